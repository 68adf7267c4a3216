"""The supervisor: what dies is started again, and whatever ends it, nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from services.cli import exits, state
from services.cli.state import AlreadyRunning, Folder, FolderRemoved, read_state
from services.cli.supervisor import Supervisor, run
from services.cli.table import Program, waves
from services.runtime import clock as clocks
from services.runtime import processes
from services.runtime.clock import Clock
from services.runtime.processes import NotReady, free_port, read_json
from services.runtime.settings import Settings
from tests.conftest import MakeDb

STEADY = """
import os, pathlib, time
pathlib.Path(os.environ["TRADEWIND_READY_FILE"]).touch()
print(os.environ["TRADEWIND_CLOCK_TRADE"], flush=True)
time.sleep(3600)
"""
PASSING = "from services.runtime.crash import point; point('relay.sent'); point('relay.sent')\n" + STEADY
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STEADY
ALL = (Program("steady", "steady"), Program("late", "steady", needs=("steady",)))
UP = "from services.cli.main import main; main()"


@pytest.fixture(autouse=True)
def dummies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that children can run: `python -m steady`."""
    for name, program in {"steady": STEADY, "stubborn": STUBBORN, "passing": PASSING, "broken": "raise SystemExit('no way')"}.items():
        (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
async def settings(tmp_path: Path, kafka: str, postgres: MakeDb) -> Settings:
    dsns = {f"{service}_dsn": await postgres(f"supervised_{service}") for service in ("orders", "payments", "shipping")}
    return Settings(data_folder=tmp_path / "data", bootstrap_servers=kafka, **dsns)


@pytest.fixture
def local(tmp_path: Path, cache_folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a `tradewind` of its own, with all its servers; whatever is left of it is stopped."""
    ports = free_port(5)
    data = tmp_path / "data"
    yield {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")} | {
        "TRADEWIND_DATA_FOLDER": str(data), "TRADEWIND_CACHE_FOLDER": str(cache_folder), "NO_COLOR": "1",
        "TRADEWIND_KAFKA_PORT": str(free_port(2)), "TRADEWIND_POSTGRES_PORT": str(ports),
        "TRADEWIND_ORDERS_PORT": str(ports + 1), "TRADEWIND_CONSOLE_PORT": str(ports + 2),
        "TRADEWIND_PROVIDER_PORT": str(ports + 3), "TRADEWIND_WEBHOOK_PORT": str(ports + 4),
    }  # fmt: skip
    state = read_state(Folder(data)) or {}
    left = [*state.get("processes", {}).values(), *([state["supervisor"]] if state else [])]
    for entry in left:
        if psutil.pid_exists(entry["pid"]) and abs(psutil.Process(entry["pid"]).create_time() - entry["created"]) < 2:
            os.kill(entry["pid"], signal.SIGKILL)


async def until(condition: Callable[[], object], timeout_s: float = 30) -> object:
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)
    return value


def family(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True)]


def none_left(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=15)
    return not alive


def test_a_program_starts_after_what_it_calls_and_stops_before_it() -> None:
    assert [[p.name for p in wave] for wave in waves(ALL)] == [["steady"], ["late"]]
    with pytest.raises(AssertionError, match="circle"):
        waves((Program("a", "a", needs=("b",)), Program("b", "b", needs=("a",))))


async def test_what_dies_is_started_again_with_the_same_clock(settings: Settings) -> None:
    async def body(supervisor: Supervisor) -> dict:
        steady = supervisor.watched["steady"]
        first = steady.child.pid
        for restarts in (1, 2):
            os.kill(steady.child.pid, signal.SIGKILL)
            await until(lambda: steady.restarts == restarts and supervisor.folder.ready("steady").exists())
        state = read_state(supervisor.folder)
        assert state["phase"] == "ready" and state["processes"]["steady"]["restarts"] == 2
        assert state["processes"]["steady"]["pid"] == steady.child.pid != first
        assert state["processes"]["late"]["restarts"] == 0
        return state

    supervisor = Supervisor(settings, ALL)
    state = await run(supervisor, body)
    assert not any(psutil.pid_exists(process["pid"]) for process in state["processes"].values())
    assert len(set(supervisor.folder.log("steady").read_text().split())) == 1
    assert read_json(supervisor.folder.clock)["stopped"]
    assert read_state(supervisor.folder)["phase"] == "stopped"


async def test_a_crash_point_ends_a_program_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its first life, before it was ever ready, and in a later one that is armed while it runs."""
    async def body(supervisor: Supervisor) -> None:
        passing = supervisor.watched["passing"]
        supervisor.crash["passing"] = "relay.sent:2"
        os.kill(passing.child.pid, signal.SIGKILL)
        await until(lambda: passing.restarts == 2 and supervisor.folder.ready("passing").exists())

    monkeypatch.setenv("TRADEWIND_CRASH", "relay.sent:1")
    supervisor = Supervisor(settings, (Program("passing", "passing"),))
    monkeypatch.delenv("TRADEWIND_CRASH")
    await run(supervisor, body)
    assert supervisor.folder.log("passing").read_text().count("crash point relay.sent") == 2


async def test_what_is_halted_stays_so_until_it_is_resumed(settings: Settings) -> None:
    async def body(supervisor: Supervisor) -> None:
        child = supervisor.watched["steady"].child
        await supervisor.halt("steady")
        assert not child.alive and "steady" not in supervisor.watched
        await supervisor.resume("steady")
        assert supervisor.watched["steady"].child.alive and supervisor.watched["steady"].restarts == 0
        await supervisor.halt("late")

    await run(Supervisor(settings, ALL), body)


async def test_a_full_disk_is_survived_until_there_is_room(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    write_json, full = processes.write_json, []

    def refusing(path, value):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    for module in (clocks, state):
        monkeypatch.setattr(module, "write_json", refusing)

    async def body(supervisor: Supervisor) -> None:
        full.append(True)
        steady = supervisor.watched["steady"]
        os.kill(steady.child.pid, signal.SIGKILL)
        await until(lambda: steady.restarts == 1)
        await until(lambda: any("the trade clock cannot be saved" in line for line in told))
        assert any("the state cannot be saved" in line for line in told)
        full.clear()
        os.kill(steady.child.pid, signal.SIGKILL)
        await until(lambda: steady.restarts == 2)
        assert read_state(supervisor.folder)["processes"]["steady"]["restarts"] == 2

    await run(Supervisor(settings, ALL, told.append), body)


def test_a_process_that_cannot_be_noted_is_ended(tmp_path: Path) -> None:
    child = processes.spawn("sleeper", ["sleep", "60"], log=tmp_path / "log")
    with pytest.raises(OSError):
        processes.save_pid(tmp_path / "log" / "no folder", child)
    assert child.popen.wait(5) == -signal.SIGKILL


async def test_trade_time_stands_still_between_two_runs(settings: Settings) -> None:
    fast = settings.model_copy(update={"speed": 86400.0})

    async def body(supervisor: Supervisor) -> Clock:
        return supervisor.clock

    folder = Folder(settings.data_folder)
    await run(Supervisor(fast, ()), body)
    stopped_at = read_json(folder.clock)["trade_at"]
    again = await run(Supervisor(fast, ()), body)
    assert again.anchor_trade.isoformat() == stopped_at


async def test_a_program_that_never_gets_ready_stops_the_start_and_all_others(settings: Settings) -> None:
    supervisor = Supervisor(settings, (*ALL, Program("broken", "broken", needs=("late",))))
    with pytest.raises(NotReady, match="broken ended: no way"):
        await run(supervisor)
    state = read_state(supervisor.folder)
    assert state["phase"] == "failed" and "no way" in state["error"]["what"]
    assert not family(os.getpid()) or not any("steady" in " ".join(c.cmdline()) for c in family(os.getpid()))


async def test_two_on_one_folder_are_refused_and_the_first_goes_on(settings: Settings) -> None:
    async def body(supervisor: Supervisor) -> None:
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}.*tradewind down"):
            await Supervisor(settings, ALL).start()
        assert all(watched.child.alive for watched in supervisor.watched.values())

    await run(Supervisor(settings, ALL), body)


async def test_a_supervisor_whose_folder_is_removed_stops_and_leaves_the_new_folder_alone(settings: Settings) -> None:
    folder = Folder(settings.data_folder)

    async def body(supervisor: Supervisor) -> None:
        children.extend(psutil.Process(watched.child.pid) for watched in supervisor.watched.values())
        shutil.rmtree(settings.data_folder)
        folder.run.mkdir(parents=True)
        folder.state.write_text('{"phase": "of another"}')
        await asyncio.Event().wait()

    children: list[psutil.Process] = []
    with pytest.raises(FolderRemoved, match="tradewind down"):
        await run(Supervisor(settings, ALL), body)
    assert len(children) == len(ALL) and none_left(children)
    assert read_state(folder) == {"phase": "of another"} and not folder.clock.exists()


async def test_a_program_that_ignores_sigterm_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.cli.supervisor._GRACE_S", 0.3)

    async def body(supervisor: Supervisor) -> psutil.Process:
        return psutil.Process(supervisor.watched["stubborn"].child.pid)

    process = await run(Supervisor(settings, (Program("stubborn", "stubborn"),)), body)
    assert none_left([process])


def tradewind(env: dict[str, str], *arguments: str) -> tuple[int, dict, str]:
    """Run the command to its end: exit code, JSON line, stderr."""
    done = subprocess.run([sys.executable, "-c", UP, *arguments, "--json"], env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def test_up_status_down_and_up_again(local: dict[str, str]) -> None:
    assert tradewind(local, "status")[0] == exits.NOT_RUNNING
    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    everything = [psutil.Process(line["supervisor"]), *family(line["supervisor"])]
    assert {"postgres", "kafka-1"} <= set(line["pids"])

    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.ALREADY_RUNNING and "already runs" in line["error"]["what"] and "remedy" in error
    code, line, _ = tradewind(local, "status")
    assert code == exits.OK and all(process["alive"] for process in line["processes"].values())
    code, line, _ = tradewind(local, "topics")
    assert code == exits.OK and {topic["partitions"] for topic in line["topics"]} == {6}
    code, line, _ = tradewind(local, "doctor")
    assert code == exits.OK and line["ok"]

    assert tradewind(local, "down")[:2] == (exits.OK, {"stopped": True})
    assert none_left(everything)
    assert tradewind(local, "down")[:2] == (exits.OK, {"stopped": False})

    code, line, _ = tradewind(local | {"TRADEWIND_PARTITIONS": "4"}, "up", "--detach", "--only", "")
    assert code == exits.ENVIRONMENT and "6" in line["error"]["what"]
    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    assert tradewind(local, "down")[1] == {"stopped": True}


def test_everything_that_is_installed_starts_and_stops(local: dict[str, str]) -> None:
    done = tradewind(local, "up", "--detach")
    assert done[0] == exits.OK, done
    everything = family(done[1]["supervisor"])
    code, line, _ = tradewind(local, "status")
    assert code == exits.OK and {"orders", "payments", "shipping"} <= set(line["processes"])
    assert all(process["alive"] and process["restarts"] == 0 for process in line["processes"].values())
    assert tradewind(local, "down")[1] == {"stopped": True}
    assert none_left(everything)


def _in_front(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UP, "up", "--only", ""], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


MOMENTS = {
    "a first child": lambda data, children: children,
    "Kafka's folder is formatted": lambda data, children: (data / "kafka/node-1/format.log").exists(),
    "the broker is started": lambda data, children: (data / "kafka/node-1/kafka.pid.json").exists(),
    "the database is started": lambda data, children: (data / "postgres/postgres.pid.json").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_ctrl_c_while_it_starts_leaves_nothing_behind(local: dict[str, str], tmp_path: Path, moment: str) -> None:
    command = _in_front(local)
    await until(lambda: MOMENTS[moment](tmp_path / "data", family(command.pid)))
    started = family(command.pid)
    command.send_signal(signal.SIGINT)
    _, error = await asyncio.to_thread(command.communicate, timeout=60)
    assert command.returncode == exits.INTERRUPTED, error
    assert none_left(started)
    assert read_state(Folder(tmp_path / "data"))["phase"] == "stopped"


def test_an_unknown_program_is_wrong_usage(local: dict[str, str]) -> None:
    code, line, _ = tradewind(local, "up", "--only", "ordres")
    assert code == exits.USAGE and "ordres" in line["error"]["what"] and "payments" in line["error"]["remedy"]


async def test_ctrl_c_twice_when_it_runs_leaves_nothing_behind(local: dict[str, str], tmp_path: Path) -> None:
    command = _in_front(local)
    folder = Folder(tmp_path / "data")
    await until(lambda: command.poll() is not None or (read_state(folder) or {}).get("phase") == "ready", 60)
    everything = family(command.pid)
    command.send_signal(signal.SIGINT)
    await until(lambda: read_state(folder)["phase"] != "ready")
    command.send_signal(signal.SIGINT)
    out, error = await asyncio.to_thread(command.communicate, timeout=60)
    assert command.returncode == exits.OK, error
    assert none_left(everything)


async def test_a_killed_supervisor_leaves_no_children_and_the_next_up_goes_on(local: dict[str, str]) -> None:
    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    children = family(line["supervisor"])
    assert children
    os.kill(line["supervisor"], signal.SIGKILL)
    # At once, while PostgreSQL may still be going down: the next start has to cope.
    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    assert none_left(children)
    assert tradewind(local, "down")[1] == {"stopped": True}


async def test_a_killed_broker_and_database_come_back(local: dict[str, str]) -> None:
    code, line, error = tradewind(local, "up", "--detach", "--only", "")
    assert code == exits.OK, error
    for name in ("kafka-1", "postgres"):
        os.kill(line["pids"][name], signal.SIGKILL)

    def both_back() -> bool:
        now = tradewind(local, "status")[1]["processes"]
        again = [now[name] for name in ("kafka-1", "postgres")]
        return all(p["alive"] and p["restarts"] == 1 and p["pid"] not in line["pids"].values() for p in again)

    await until(both_back, 60)
    assert tradewind(local, "topics")[0] in (exits.OK, exits.NOT_RUNNING)  # the broker may still be starting
    assert tradewind(local, "down")[1] == {"stopped": True}


def test_help_is_fast_and_names_an_example_for_each_command() -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", UP, "--help"], capture_output=True, text=True, check=True)
    took = time.monotonic() - started
    assert "Example" in done.stdout and "Exit codes" in done.stdout
    for name in ("up", "down", "status", "doctor", "topics"):
        assert name in done.stdout
        one = subprocess.run([sys.executable, "-c", UP, name, "--help"], capture_output=True, text=True, check=True)
        assert "Example" in one.stdout, name
    # Heavy imports would take seconds; the machine that runs the tests may be busy.
    assert took < 2.5
