"""`tradewind import FILE`: a retail CSV file's orders, placed, followed to their end and accounted for line by line."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import exits
from services.cli.output import NotRunning, Output, Refused
from services.cli.state import Folder, read_state, supervisor_of
from services.runtime import clock as clocks
from services.runtime.settings import Settings


def import_(
    file: Annotated[Path, typer.Argument(help="CSV or CSV.gz with the columns of the Online Retail data.")],
    verdicts: Annotated[Path | None, typer.Option(help="Write what became of every line here, as NDJSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and account for the file; place nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow the orders to their end.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Place only the first so many orders.")] = None,
    timeout: Annotated[float, typer.Option(help="Give up waiting after so many seconds.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Read orders from a retail CSV file into a running Tradewind.

    Every line of the file is accepted, merged or refused with a reason. Importing a file again creates nothing twice.

    Example:  tradewind import tests/data/online-retail-sample.csv.gz --json
    """
    with Output(as_json) as out:
        settings = Settings()
        reading = read_file(file)
        line = account(reading)
        if verdicts is not None:
            from services.simulators.retail import verdicts as each_line
            from services.simulators.retail import write_verdicts
            with open(verdicts, "w", encoding="utf-8") as target:
                write_verdicts(each_line(reading), target)
        if not dry_run:
            _require_running(settings)
            line |= asyncio.run(_place(settings, file, reading, out, wait, limit, timeout))
        say(out, line)
        out.result(line, exits.OK if line.get("unfinished", 0) == 0 else exits.REFUSED)


def read_file(file: Path) -> Any:
    """Raises Refused naming line, column and remedy."""
    from services.simulators.retail import BadFile, read
    try:
        return read(file)
    except BadFile as bad:
        raise Refused(str(bad.problem), f"{bad.path}, line {bad.line}, column {bad.column}", bad.remedy) from bad
    except OSError as bad:
        raise Refused(f"the file cannot be read: {bad.strerror or bad}", str(file), "Check the name and who may read it.") from bad


def account(reading: Any) -> dict[str, Any]:
    from services.simulators.retail import report
    return report(reading)


def _require_running(settings: Settings) -> None:
    if settings.bootstrap_servers is None and supervisor_of(read_state(Folder(settings.data_folder))) is None:
        raise NotRunning("there is no Tradewind to import into", str(settings.data_folder), "Start it: tradewind up --detach")


async def _place(settings: Settings, file: Path, reading: Any, out: Output, wait: bool, limit: int | None,
                 timeout: float) -> dict[str, Any]:
    from services.simulators import importer as imports
    from services.simulators.edge import client_journal

    clock = clocks.running(Folder(settings.data_folder).clock)
    reading = imports.anchored(reading, file, settings.data_folder, clock.now())
    plan = imports.plan(reading, file, settings.vault_key_bytes(), settings.seed, limit)
    out.progress(f"{len(plan.orders)} orders, {len(plan.wishes)} cancellations, seed {settings.seed}")
    started, told = time.monotonic(), 0.0

    def each(importer: Any, follower: Any) -> None:
        nonlocal told
        if time.monotonic() - told > 1:
            told = time.monotonic()
            out.progress(f"{follower.funnel['placed']} placed, {follower.ended} of {len(plan.orders)} at their end, "
                         f"{importer.pending} cancellations open")

    work = imports.Import(plan, settings.bootstrap, client_journal(settings), settings.seed, datetime.now(UTC))
    importer, follower, done = await work.run(each, wait, timeout)
    return result_of(plan, importer, follower) | {
        "seconds": round(time.monotonic() - started, 1), "seed": settings.seed,
        "unfinished": 0 if done else len(plan.orders) - follower.ended}


def result_of(plan: Any, importer: Any, follower: Any) -> dict[str, Any]:
    """What became of the orders and of the file's cancellations."""
    reasons: dict[str, int] = {}
    for story in follower.stories.values():
        if story.end and story.reason:
            reasons[story.reason] = reasons.get(story.reason, 0) + 1
    return {"placed": len(plan.orders), "ended": dict(follower.ends), "exits": reasons,
            "cancellations": dict(importer.outcomes), "cancellations_refused": dict(importer.refusals)}


def say(out: Output, line: dict[str, Any]) -> None:
    out.say(f"{line['lines']:,} lines: {line['accepted']:,} accepted, {line['merged']:,} merged, {line['refused']:,} refused; "
            f"{line['orders']:,} orders; money difference {line['money_difference']} tenths of a penny")
    for name in ("ended", "exits", "cancellations", "cancellations_refused"):
        if line.get(name):
            out.say(f"  {name.replace('_', ' ')}: " + ", ".join(f"{k} {v:,}" for k, v in sorted(line[name].items())))
