"""`tradewind audit`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from services.auditor.audit import audit as run
from services.auditor.evidence import CannotRead
from services.cli import exits
from services.cli.output import NotRunning, Output
from services.cli.watch import Views
from services.runtime.settings import Settings


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write the whole report there, as JSON.")] = None,
    live: Annotated[bool, typer.Option("--live", help="While orders are open: only rules that hold at any moment.")] = False,
    expected_dead_letters: Annotated[int, typer.Option("--expected-dead-letters", min=0, help="How many were planted.")] = 0,
    rules: Annotated[bool, typer.Option("--rules", help="Only tell the invariants, and the rules that check each.")] = False,
) -> None:
    """Read every topic from its beginning, the three databases and the outsiders' journals, and name each contradiction.

    Changes nothing. Needs Kafka and PostgreSQL to be up. Exit code 1 when a rule is broken.

    Example:  tradewind audit --json
    """
    with Output(as_json) as out:
        if rules:
            from services.auditor import invariants

            for line in invariants.lines():
                out.say(line)
            out.result({"rules": {n: invariants.rules_of(n) for n in invariants.INVARIANTS},
                        "elsewhere": invariants.ELSEWHERE}, exits.OK)
            return
        settings = Settings()
        out.progress("reading every topic from its beginning")
        try:
            found = asyncio.run(run(settings, live=live, expected_dead_letters=expected_dead_letters,
                                    views=lambda: Views(settings).ask().funnel))
        except CannotRead as error:
            raise NotRunning(error.what, error.where, error.remedy) from error
        if report:
            report.write_text(json.dumps(found.as_json(), indent=1, default=str) + "\n")
        out.say(found.rich())
        out.result(found.as_json(), exits.OK if found.clean else exits.VIOLATIONS)
