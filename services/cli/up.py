"""`tradewind up` and `tradewind down`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from typing import Annotated

import typer

from services.cli import pace
from services.cli.output import Output
from services.cli.state import Folder, Lock, child_of, read_state, supervisor_of
from services.cli.table import Program, programs
from services.runtime import processes
from services.runtime.processes import Child, StartError
from services.runtime.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")]
_DOWN_WITHIN_S = 90.0


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when everything is ready.")] = False,
    world: Annotated[bool, typer.Option(help="Also start the simulated outside world.")] = True,
    only: Annotated[str | None, typer.Option(help="Only these programs, with commas; '' for the servers alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start Kafka, PostgreSQL, the services and the simulated outside world, and keep them running.

    Without --detach until Ctrl-C. A later `up` on the same data folder goes on where this one stopped.

    A speed of the trade clock (TRADEWIND_SPEED) at which deadlines would outrun the services is refused; above 4,100 it is
    measured first how long an order takes here, which adds some 15 s the first time.

    Example:  TRADEWIND_SPEED=3000 tradewind up --detach --json
    """
    with Output(as_json) as out:
        settings = Settings()
        table = programs(settings, world=world, only=None if only is None else tuple(filter(None, only.split(","))))
        _refuse_another(settings)
        pace.require(settings, out.progress)
        if detach:
            state = _detached(settings, out, table)
            _say_ready(out, state)
            out.result(_summary(state))
        else:
            asyncio.run(_in_front(settings, out, table))


def _refuse_another(settings: Settings) -> None:
    """Raises AlreadyRunning, clearly and before anything is measured or started."""
    lock = Lock(Folder(settings.data_folder))
    lock.take()
    lock.release()


async def _in_front(settings: Settings, out: Output, table: tuple[Program, ...]) -> None:
    from services.cli.supervisor import Interrupted, Supervisor, run

    async def until_asked(supervisor: Supervisor) -> None:
        _say_ready(out, read_state(supervisor.folder))
        await asyncio.Event().wait()

    supervisor = Supervisor(settings, table, out.progress)
    try:
        await run(supervisor, until_asked)
    except Interrupted:
        # Ctrl-C is how this command is meant to end, unless it came before everything was up.
        if supervisor.was_ready:
            out.result({"stopped": True})
        else:
            raise


def _detached(settings: Settings, out: Output, table: tuple[Program, ...]) -> dict:
    """Start `up` in a session of its own and wait until it is ready; its state. Raises StartError."""
    folder = Folder(settings.data_folder)
    log = folder.log("supervisor")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "services.cli.main", "up", "--only", ",".join(program.name for program in table)]
    with open(log, "ab") as output:
        started = subprocess.Popen(
            command, env=settings.child_env(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)  # fmt: skip
    out.progress(f"starting as pid {started.pid}, log {log}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends us wants no start that goes on unseen
    try:
        while True:
            state = read_state(folder) or {}
            mine = state.get("supervisor", {}).get("pid") == started.pid
            if mine and state["phase"] == "ready":
                return state
            if started.poll() is not None:
                error = state.get("error") if mine else None
                ended = {"what": f"it ended: {processes.tail(log)}", "where": str(log), "remedy": "See its log."}
                raise StartError(**(error or ended))
            time.sleep(0.05)
    except KeyboardInterrupt:
        started.send_signal(signal.SIGINT)
        started.wait()
        raise


def _say_ready(out: Output, state: dict) -> None:
    out.say(f"Tradewind is up: {len(state['processes'])} processes, supervisor pid {state['supervisor']['pid']}.")
    for name, address in state["addresses"].items():
        out.say(f"  {name:24} {address}")


def _summary(state: dict) -> dict:
    pids = {name: entry["pid"] for name, entry in state["processes"].items()}
    return {"running": True, "supervisor": state["supervisor"]["pid"], "addresses": state["addresses"], "pids": pids}


def down(as_json: AsJson = False) -> None:
    """Stop everything that runs on the data folder, in order; data stays. Nothing running is fine too.

    Example:  tradewind down
    """
    with Output(as_json) as out:
        folder = Folder(Settings().data_folder)
        supervisor = supervisor_of(read_state(folder))
        stopped = asyncio.run(_stop(supervisor, out)) if supervisor else asyncio.run(_sweep(folder))
        out.say("Tradewind is stopped." if stopped else f"Nothing runs on {folder.data}.")
        out.result({"stopped": stopped})


async def _stop(supervisor: Child, out: Output) -> bool:
    out.progress(f"stopping pid {supervisor.pid}")
    supervisor.signal(signal.SIGTERM)
    if not await processes.gone(supervisor, _DOWN_WITHIN_S):
        raise StartError(
            f"it has not stopped after {_DOWN_WITHIN_S:g} s", f"pid {supervisor.pid}",
            f"Kill it (kill -9 {supervisor.pid}); its children go with it and the next `up` clears up.",
        )  # fmt: skip
    return True


async def _sweep(folder: Folder) -> bool:
    """End what a supervisor that was killed has left, if anything."""
    lock = Lock(folder)
    if folder.state.exists():
        lock.take()
    entries = (read_state(folder) or {}).get("processes", {})
    left = [child for name, entry in entries.items() if (child := child_of(name, entry)).alive]
    for child in left:
        await processes.stop(child, first=signal.SIGINT if child.name == "postgres" else signal.SIGTERM)
    lock.release()
    return bool(left)
