"""`tradewind status`: what runs, and with --watch what flows."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from services.cli import complaints
from services.cli import watch as views
from services.cli.output import NotRunning, Output
from services.cli.state import Folder, child_of, read_state, supervisor_of
from services.runtime.processes import read_json
from services.runtime.settings import Settings


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew, until Ctrl-C; with --json a line a second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Show the processes (alive, restarts), how long they run, the trade time, the addresses, and the funnel.

    The funnel comes from the console's views: orders by stage, a second, time since the stage before, money held.

    Exit code 4 when nothing runs on the data folder, 3 when a process that should run does not.

    Example:  tradewind status --json
    """
    with Output(as_json) as out:
        settings = Settings()
        seen = look(settings)
        if watch and as_json:
            out.result(views.watch_json(settings, lambda: look(settings)))
        elif watch:
            views.watch(settings, lambda: brief(look(settings)), sys.stdout.isatty())
        else:
            flow = views.Views(settings).ask()
            trust = complaints.brief(settings)
            for line in text(seen) + flow.lines() + trust["lines"]:
                out.say(line)
            code = 0 if all(p["alive"] for p in seen["processes"].values()) else 3
            out.result(seen | {"views": flow.as_dict(), "complaints": trust["all"]}, code)


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


def _head(seen: dict[str, Any]) -> list[str]:
    up_for = timedelta(seconds=int(seen["uptime_s"]))
    lines = [f"Tradewind {seen['version']}: {seen['phase']}, up {up_for}, supervisor pid {seen['supervisor']}"]
    if seen["trade_time"]:
        lines.append(f"trade time {seen['trade_time'][:19]}Z, {seen['speed']:g} times as fast as real time")
    return lines


def brief(seen: dict[str, Any]) -> list[str]:
    """Few lines, so that the funnel below them fits on a small terminal."""
    alive = {name: process["alive"] for name, process in seen["processes"].items()}
    restarts = sum(process["restarts"] for process in seen["processes"].values())
    dead = ", ".join(name for name, lives in alive.items() if not lives)
    return [*_head(seen), f"{sum(alive.values())} processes alive, {restarts} restarts" + (f", DEAD: {dead}" if dead else "")]


def text(seen: dict[str, Any]) -> list[str]:
    """The same in lines for people."""
    lines = [*_head(seen), "", f"  {'process':18}{'pid':>8}  state    restarts"]
    for name, process in seen["processes"].items():
        lines.append(f"  {name:18}{process['pid']:>8}  {'alive' if process['alive'] else 'DEAD ':8} {process['restarts']:>8}")
    return [*lines, "", *(f"  {name:24} {address}" for name, address in seen["addresses"].items())]
