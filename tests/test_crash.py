"""Crash points: every one in the source is in the registry and the other way round; armed, a process ends there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from services.chaos.crash_trials import plan, sample
from services.cli.table import PROGRAMS
from services.runtime import crash
from services.runtime.processes import free_port

ROOT = Path(__file__).parents[1]


def points_in_source() -> Counter[str]:
    """The names given to `point` under services/, and how often; a name that is not a plain string counts as its source."""
    found: Counter[str] = Counter()
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            called = isinstance(node, ast.Call) and (getattr(node.func, "id", None) or getattr(node.func, "attr", None))
            if called == "point":
                name = node.args[0]
                found[name.value if isinstance(name, ast.Constant) else f"{path.name}:{node.lineno}"] += 1
    return found


def test_the_registry_is_what_stands_in_the_source():
    found = points_in_source()
    assert set(found) == set(crash.POINTS)
    assert {name for name, times in found.items() if times > 1} <= {"provider.deciding"}, "a name is one place"
    assert all(crash.POINTS.values())


def test_no_point_stands_in_a_loop_over_events():
    """What runs once an event must stay free of them: the machines, and a batch's own code."""
    runtime = ROOT / "services/runtime"
    pure = runtime / "batch.py", runtime / "spec.py", runtime / "track.py", ROOT / "schemas/envelope.py"
    for path in (*(ROOT / "services").glob("*/machine.py"), *pure):
        assert "point(" not in path.read_text(), path


def child(text: str, code: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {crash.VARIABLE: text}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


TWICE = ("import atexit; from services.runtime.crash import point; atexit.register(print, 'cleaned up')\n"
         "for n in range(3): print(n, flush=True); point('relay.sent'); point('relay.taken')")


def test_an_armed_process_ends_the_nth_time_without_cleanup():
    ended = child("relay.sent:2,relay.taken:9", TWICE)
    assert (ended.returncode, ended.stdout.split()) == (crash.EXIT_CRASHED, ["0", "1"])
    assert ended.stderr == "crash point relay.sent\n"


@pytest.mark.parametrize("text", ["", "relay.in_flight:1", " relay.sent:4 "])
def test_a_point_that_is_not_passed_so_often_does_nothing(text):
    assert child(text, TWICE).stdout.split() == ["0", "1", "2", "cleaned", "up"]


@pytest.mark.parametrize("text, says", [
    ("relay.snet:1", "no crash point is called 'relay.snet'"), ("relay.sent", "'relay.sent' must be name:nth"),
    ("relay.sent:0", "from 1"), ("relay.sent:x", "from 1"), ("relay.sent:1,relay.sent:2", "each name once")])
def test_what_cannot_be_armed_is_refused_at_start(text, says):
    ended = child(text, TWICE)
    assert (ended.returncode, ended.stdout) == (crash.EXIT_WRONG, "")
    assert says in ended.stderr and "Traceback" not in ended.stderr
    if "snet" in text:
        assert all(name in ended.stderr for name in crash.POINTS)


def test_unarmed_a_point_is_an_empty_function():
    assert crash.point.__code__.co_names == () and crash.point("anything") is None


# -- on a real broker and real databases --------------------------------------------------------------------------------


def test_the_plan_reaches_every_point_in_a_process_that_passes_it():
    chains = plan(tuple(crash.POINTS), 20, 1, Counter())
    trials = [trial for chain in chains.values() for trial in chain]
    assert Counter(trial.point for trial in trials) == dict.fromkeys(crash.POINTS, 20)
    assert set(chains) - {"prepare", "import"} <= {program.name for program in PROGRAMS}
    assert {p for n in range(100) for p in sample(n, 8)} == set(crash.POINTS), "days in a row cover all"
    done = Counter({"relay.sent": 19, "relay.taken": 20})
    left = Counter(trial.point for chain in plan(tuple(crash.POINTS), 20, 1, done).values() for trial in chain)
    assert (left["relay.sent"], left["relay.taken"], left["batch.written"]) == (1, 0, 20)
    assert plan(tuple(crash.POINTS), 20, 1, Counter()) == chains != plan(tuple(crash.POINTS), 20, 2, Counter())


def test_processes_end_at_their_points_and_nothing_is_lost(tmp_path, cache_folder):
    """Eight points today, the next eight tomorrow; all of them with `tradewind chaos --crash-points --times 1`."""
    names = ("KAFKA_PORT", "POSTGRES_PORT", "ORDERS_PORT", "CONSOLE_PORT", "PROVIDER_PORT", "WEBHOOK_PORT")
    first = free_port(12)
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")} | {
        f"TRADEWIND_{name}": str(first + 2 * n) for n, name in enumerate(names)} | {
        "TRADEWIND_DATA_FOLDER": str(tmp_path), "TRADEWIND_CACHE_FOLDER": str(cache_folder)}
    seed = date.today().toordinal()
    command = [sys.executable, "-m", "services.cli.main", "chaos", "--crash-points", "--times", "1", "--some", "8",
               "--seed", str(seed), "--json"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert run.stdout, run.stderr
    line = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0 and line["violations"] == 0, line
    assert line["by_point"] == dict.fromkeys(sample(seed, 8), 1), line
    assert line["reread"] > 500 and not line["reread_changed"], "offsets set back to 0 change nothing"
