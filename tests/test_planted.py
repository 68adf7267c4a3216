"""The auditor audited: every planted bug is noticed by whoever is meant to, and the product without one is clean."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.planted import CONTROL, Caught, locate
from tests.planted_bugs import BUGS

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
    done = subprocess.run([sys.executable, "-m", "tests.planted", "--json"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [Caught(**json.loads(line)) for line in done.stdout.splitlines()]
    return {each.name: each for each in found}


def test_without_a_bug_nobody_complains(caught):
    assert caught[CONTROL.name].by == {}


@pytest.mark.parametrize("bug", IN_MEMORY, ids=lambda bug: bug.name)
def test_a_bug_in_the_machines_is_noticed(caught, bug):
    found = caught[bug.name]
    assert set(found.by) >= bug.by, found
    assert set(found.rules) >= bug.rules, found
