"""`tradewind status`: what runs, and with --watch what flows."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from services.cli.output import NotRunning, Output
from services.cli.state import Folder, child_of, read_state, supervisor_of
from services.runtime.processes import read_json
from services.runtime.settings import Settings

# A module that has `lines(settings) -> list[str]`: the funnel and the rates, shown under the processes.
_FUNNEL = "services.console.funnel"


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every second, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Show the processes (alive, restarts), how long they run, the trade time, and the addresses.

    Exit code 4 when nothing runs on the data folder, 3 when a process that should run does not.

    Example:  tradewind status --json
    """
    with Output(as_json) as out:
        settings = Settings()
        seen = look(settings)
        if watch and not as_json:
            _watch(settings)
        else:
            for line in text(seen) + _funnel()(settings):
                out.say(line)
            out.result(seen, 0 if all(p["alive"] for p in seen["processes"].values()) else 3)


def look(settings: Settings) -> dict[str, Any]:
    """What the supervisor wrote, checked against the processes there are. Raises NotRunning."""
    folder = Folder(settings.data_folder)
    state = read_state(folder)
    if state is None or supervisor_of(state) is None:
        last = f"; the last start failed: {state['error']['what']}" if state and state.get("error") else ""
        raise NotRunning(f"Tradewind does not run here{last}", str(folder.data), "Start it with `tradewind up --detach`.")
    processes = {
        name: {"pid": e["pid"], "alive": child_of(name, e).alive, "restarts": e["restarts"], "log": e["log"]}
        for name, e in state["processes"].items()
    }
    up_for = datetime.now(UTC) - datetime.fromisoformat(state["started"])
    clock = read_json(folder.clock) or {}
    return {
        "running": True, "phase": state["phase"], "version": state["version"], "supervisor": state["supervisor"]["pid"],
        "uptime_s": round(up_for.total_seconds(), 1), "trade_time": clock.get("trade_at"), "speed": clock.get("speed"),
        "processes": processes, "addresses": state["addresses"],
    }  # fmt: skip


def text(seen: dict[str, Any]) -> list[str]:
    """The same in lines for people."""
    up_for = timedelta(seconds=int(seen["uptime_s"]))
    lines = [f"Tradewind {seen['version']}: {seen['phase']}, up {up_for}, supervisor pid {seen['supervisor']}"]
    if seen["trade_time"]:
        lines.append(f"trade time {seen['trade_time'][:19]}Z, {seen['speed']:g} times as fast as real time")
    lines += ["", f"  {'process':18}{'pid':>8}  state    restarts"]
    for name, process in seen["processes"].items():
        lines.append(f"  {name:18}{process['pid']:>8}  {'alive' if process['alive'] else 'DEAD ':8} {process['restarts']:>8}")
    return [*lines, "", *(f"  {name:24} {address}" for name, address in seen["addresses"].items())]


def _watch(settings: Settings) -> None:
    from rich.live import Live

    funnel = _funnel()
    with Live(auto_refresh=False, screen=False) as live:
        try:
            while True:
                live.update("\n".join(text(look(settings)) + funnel(settings)), refresh=True)
                time.sleep(1)
        except KeyboardInterrupt:
            return


def _funnel() -> Callable[[Settings], list[str]]:
    if find_spec("services.console") and find_spec(_FUNNEL):
        return import_module(_FUNNEL).lines
    return lambda settings: []
