"""The auditor audited: every planted bug is noticed by whoever is meant to, and the product without one is clean.

All that show in memory run here. Of those that need a broker and databases, a few do; the others with
`make test TEST_ARGS="-m planted"`, and all of them with a table of who noticed what by `python -m tests.planted_runs`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from services.runtime.local import LocalKafka
from services.runtime.processes import free_port
from tests.planted import CONTROL, Caught, locate
from tests.planted_bugs import BUGS
from tests.planted_runs import controls, is_right, run

ALWAYS = {"control of kills", "dual_write", "offsets_before_the_work", "wrong_partition"}
IN_MEMORY = [bug for bug in BUGS if bug.run == "memory"]


def test_every_bug_has_a_name_of_its_own_and_fits_into_the_product():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 30
    for bug in BUGS:
        sources = locate(bug)
        for module, source in sources.items():
            compile(source, module, "exec")


@pytest.fixture(scope="module")
def caught() -> dict[str, Caught]:
    """Two at a time, each in a process that has imported nothing of the services before its bug was planted."""
    done = subprocess.run([sys.executable, "-m", "tests.planted", "--json", "--needed"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [Caught(**json.loads(line)) for line in done.stdout.splitlines()]
    return {each.name: each for each in found}


def test_without_a_bug_nobody_complains(caught):
    assert caught[CONTROL.name].by == {}


@pytest.mark.parametrize("bug", IN_MEMORY, ids=lambda bug: bug.name)
def test_a_bug_in_the_machines_is_noticed(caught, bug):
    found = caught[bug.name]
    assert set(found.by) >= bug.by, found
    assert not bug.rules or set(found.rules) & bug.rules, found


@pytest.fixture(scope="module")
async def kafka_alone(tmp_path_factory, cache_folder):
    """A broker of its own: what is on its topics is deleted before each run."""
    kafka = LocalKafka(tmp_path_factory.mktemp("planted-kafka"), free_port(2), cache=cache_folder)
    await kafka.start()
    yield kafka
    await kafka.stop()


@pytest.mark.parametrize("bug", [
    pytest.param(bug, id=bug.name.replace(" ", "_"), marks=() if bug.name in ALWAYS else pytest.mark.planted)
    for bug in (*controls(), *BUGS) if bug.run != "memory"])
async def test_a_bug_between_services_is_noticed(bug, kafka_alone, postgres, tmp_path):
    found = await run(bug, kafka_alone, postgres, tmp_path)
    assert is_right(bug, found), found
