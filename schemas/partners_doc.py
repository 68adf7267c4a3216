"""Write the tables of docs/partners.md, for whoever connects a warehouse, a carrier or a logger: carriers' codes, out of their rows.

    python -m schemas.partners_doc            write them
    python -m schemas.partners_doc --check    write nothing, fail when they are not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from schemas.carrier_codes import codes, dialects

PAGE = Path(__file__).parents[1] / "docs" / "partners.md"
BEGIN, END = "<!-- from schemas/carrier_codes.toml by `python -m schemas.partners_doc` -->", "<!-- end of table -->"


def tables() -> str:
    parts = []
    for dialect, name in dialects().items():
        rows = [row for row in codes() if row.dialect == dialect]
        parts += [f"### {name} (`{dialect}`)", "", f"{rows[0].source}; certainty {rows[0].certainty}; valid from {rows[0].valid_from}.",
                  "", "| Code | Means | Is the report | Must carry |", "|---|---|---|---|"]
        parts += [f"| `{row.code}`{f' ({row.leg})' if row.leg else ''} | {row.meaning} | "
                  f"{row.report or 'none: information only'} | {', '.join(row.needs)} |" for row in rows]
        parts.append("")
    return "\n".join(parts)


def page() -> str:
    """docs/partners.md with its tables made anew. Raises ValueError when the marks are gone."""
    text = PAGE.read_text()
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"docs/partners.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def stale() -> bool:
    return PAGE.read_text() != page()


def main() -> int:
    if "--check" in sys.argv[1:]:
        return int(stale())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
