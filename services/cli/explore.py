"""`tradewind explore`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli import exits
from services.cli.output import BadUsage, Output
from services.explorer import explore as explorer

STORY_LINES = 120


def explore(
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
    path: Annotated[list[str] | None, typer.Option("--path", help="Close this path only; may be given again. Runs no "
                                                   "schedules unless --schedules is given.")] = None,
    schedules: Annotated[int | None, typer.Option("--schedules", min=0, help="How many random schedules.",
                                                  show_default="10000")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random schedules.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="At most, for each path and for all schedules.")] = 600.0,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes.", show_default="one a core")] = None,
    replay: Annotated[str | None, typer.Option("--replay", metavar="TEXT|FILE", help="Tell a violation's story again.")] = None,
) -> None:
    """Try every order of delivery: the three services' own code in memory, and a world that may do what it can.

    Paths are closed completely (every state, and from each an end can be reached); then random schedules of many orders that
    share stock. Needs neither Kafka nor PostgreSQL. Exit code 1 when a rule is broken: then the shortest story is told.

    Example:  tradewind explore --path return --json
    """
    with Output(as_json) as out:
        try:
            if replay is not None:
                return _replay(out, replay)
            paths = explorer.chosen(path or ())
        except (explorer.UnknownPath, explorer.BadReplay) as error:
            raise BadUsage(str(error), "--replay" if replay else "--path", "See `tradewind explore --help`.") from error
        many = schedules if schedules is not None else 0 if path else 10_000
        report = explorer.explore(paths, many, seed, seconds, jobs or len(os.sched_getaffinity(0)), out.progress)
        out.say(_table(report))
        for line in _summary(report):
            out.say(line)
        out.result(report.as_json(), exits.VIOLATIONS if report.violations else exits.OK)


def _replay(out: Output, text: str) -> None:
    if len(text) < 255 and Path(text).is_file():
        text = Path(text).read_text()
    lines, what = explorer.replayed(text)
    for line in lines:
        out.say(line)
    out.result({"violations": int(bool(what)), "what": what, "story": lines}, exits.VIOLATIONS if what else exits.OK)


def _table(report: explorer.Report):
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in (("path", "left"), ("states", "right"), ("transitions", "right"), ("s", "right"), ("ends in", "left")):
        table.add_column(name, justify=side, overflow="fold")
    for p in report.paths:
        ends = ", ".join(sorted(end.removeprefix("cancelled: ") for end in p.ends))
        table.add_row(p.name, f"{p.states:,}", f"{p.transitions:,}", f"{p.seconds:.1f}",
                      ends if p.complete else f"NOT CLOSED in the time given; so far: {ends}")
    return table


def _summary(report: explorer.Report) -> list[str]:
    line = report.as_json()
    told = [f"{line['paths']} paths: {line['states']:,} states, {line['transitions']:,} transitions"
            + (f"; not closed: {', '.join(report.open_paths)}" if report.open_paths else ", all closed")]
    if report.schedules:
        told.append(f"{report.schedules:,} random schedules, {report.steps:,} actions: {line['schedules_per_s']:,} schedules/s")
    for violation in report.violations[:3]:
        told += ["", f"VIOLATION on {violation.where}: {violation.what}", *violation.story[-STORY_LINES:],
                 f"Tell it again:  tradewind explore --replay {violation.replay}"]
    many = len(report.violations)
    told.append(f"{many or 'No'} violation{'s' if many != 1 else ''}. {report.seconds:.0f} s in all.")
    return told
