"""Writes the figures of a finished set into docs/reliability.md:  python -m services.chaos.report <folder>/set.json"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from services.chaos.faults import FAULTS
from services.chaos.series import summary
from services.runtime.processes import read_json

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- measured by `tradewind chaos --campaign all` -->", "<!-- end of measured -->"


def measured(state: dict[str, Any]) -> str:
    """The table, the sums, and the JSON summary of a set's state."""
    whole = summary(state)
    lines = ["| Campaign | What was hit | n | orders | recovery p50 / max, s | drain, s | violations |", "|---|---|---|---|---|---|---|"]
    for line in state["finished"].values():
        hits = ", ".join(f"{name} {count:,}" for name, count in sorted(line["hits"].items()))
        lines.append(f"| `{line['campaign']}` | {hits} | {line['n']:,} | {line['orders']:,} | {line['recovery_s_p50']} / "
                     f"{line['recovery_s_max']} | {line['drain_s']} | {line['violations']} |")
    given = state["given"]
    lines += ["", f"{whole['n']:,} faults, {whole['orders']:,} orders, {whole['events']:,} events, {whole['checks']:,} checks in "
              f"{whole['seconds'] / 60:.0f} minutes: **{whole['violations']} violations**. The command: "
              f"`tradewind chaos --campaign all --minutes {given['minutes']:g} --seed {given['seed']} --rate {given['rate']:g} --json`; "
              "its summary:", "", "```json", json.dumps(whole["faults"], indent=1).replace(",\n  ", ", ").replace("{\n  ", "{"), "```"]
    return "\n".join(lines)


def document(text: str, state: dict[str, Any]) -> str:
    """docs/reliability.md with its figures made anew. Raises ValueError when the marks are gone."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/reliability.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{measured(state)}\n\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.chaos.report", description=__doc__.split(":")[0])
    parser.add_argument("state", type=Path, help="set.json of the set's folder")
    path = parser.parse_args(arguments).state
    state = read_json(path)
    if state is None or not state.get("finished"):
        print(f"{path} tells of no finished campaign", file=sys.stderr)
        return 1
    unknown = set(state["finished"]) - set(FAULTS)
    assert not unknown, unknown
    DOCUMENT.write_text(document(DOCUMENT.read_text(), state))
    print(f"wrote docs/{DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
