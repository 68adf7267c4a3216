"""Draw the documentation that follows from tables: `docs/lifecycle.md`, and the topics in `docs/architecture.md`.

    python -m schemas.diagrams            write what changed
    python -m schemas.diagrams --check    write nothing, fail when a drawing is not current
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections import defaultdict
from pathlib import Path

from schemas.lifecycle import BRAND, CHARGEBACK, DECLARATION, MERCHANT, NEW, ORDER, PARCEL, PAYMENT, PROMISE, RETURN, Machine, deadlines
from schemas.topics import TOPICS

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- drawn from schemas/topics.py by `python -m schemas.diagrams` -->", "<!-- end of drawing -->"
OURS = ("orders", "payments", "shipping", "console")

OUTSIDE = ("storefronts", "warehouses", "carriers", "customs", "loggers")
HELPERS = {"payments' callers": "payments", "webhooks": "payments", "cold-chain view": "shipping"}  # processes of a service, drawn as that service

MACHINES = (
    ("Order", ORDER, "One an order. It derives from the order's parcels: it ends when all of them have."),
    ("Payment", PAYMENT, "One a parcel: the money of that parcel, whichever payment at the provider carries it."),
    ("Chargeback", CHARGEBACK,
     "One for each parcel that a dispute of the buyer's bank concerns. `taken_again` is left at once: a second chargeback is "
     "final."),
    ("Parcel, to another country", PARCEL["abroad"], "One a parcel: where the goods are."),
    ("Parcel, into China", PARCEL["china"],
     "The money is captured first; order, payment and waybill must agree (DocumentsMatched) and customs must have the import "
     "list (ListAccepted) before anything is packed; see [decision 30](decisions/0030-papers-into-china-agree-before-packing.md)."),
    ("Parcel, from a bonded warehouse in China", PARCEL["bonded"],
     "Mode 1210: the goods lie in China. Nothing is packed before customs has released them (ListReleased), and there are no legs "
     "across a border."),
    ("Parcel, within a country", PARCEL["domestic"], "The customs rows are absent."),
    ("Declaration", DECLARATION, "One a parcel that crosses a border: its customs papers."),
    ("Return", RETURN, "One for each return a buyer asked for."),
    ("Merchant", MERCHANT, "One a merchant, under the key `merchant:<id>`. While he is frozen nothing of his open orders goes "
     "forward; see [decision 60](decisions/0060-how-merchants-stand.md)."),
    ("Brand", BRAND, "One a protected brand, under the key `brand:<key>`: its owner and all authorisations; see "
     "[decision 62](decisions/0062-brands-are-rows-that-orders-obey.md)."),
    ("Promise", PROMISE, "One a parcel with a planned route: the clock of the moment by which it was promised at the door."),
)
HEAD = """\
# The machines of an order's life

Drawn from [`schemas/lifecycle.py`](../schemas/lifecycle.py) by `python -m schemas.diagrams`; change the table, not this
file. A double circle is the end of a story; some ends can be left again, such as by a return after the money was released.
Events that leave the state as it is are not drawn; the tables have them. The owner is the service whose event it is.

An event that no row allows in a state is *not yet* when a state that allows it can still come (it is kept and tried
again), and *stale* when none can (late, doubled or overtaken: dropped and counted).
"""


def lifecycle() -> str:
    """The whole of docs/lifecycle.md."""
    parts = [HEAD]
    for title, machine, what in MACHINES:
        parts.append(f"## {title}\n\n{what}\n\n{_diagram(machine)}\n\n{_table(machine)}\n")
    rows = "\n".join(f"| `{name}` | {_days(seconds)} |" for name, seconds in deadlines().items())
    parts.append(f"## Deadlines\n\nIn trade time, which runs at `TRADEWIND_SPEED` and stands still while the system is down.\n\n"
                 f"| Deadline | Length |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _diagram(machine: Machine) -> str:
    labels: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in machine.rows:
        if row.state != row.to:
            labels[_start(row.state), row.to].append(row.event)
    lines = [f"    {a} --> {b}: {'<br/>'.join(dict.fromkeys(events))}" for (a, b), events in labels.items()]
    lines += [f"    {state} --> [*]" for state in sorted(machine.terminal)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def _table(machine: Machine) -> str:
    grouped: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in machine.rows:
        grouped[row.event, row.owner, "(the same)" if row.state == row.to else row.to].append(row.state)
    lines = [f"| {event} | {owner} | {', '.join(states)} | {to} |" for (event, owner, to), states in grouped.items()]
    return "\n".join(["| Event | Owner | From | To |", "|---|---|---|---|", *lines])


def _start(state: str) -> str:
    return "[*]" if state == NEW else state


def _days(seconds: int) -> str:
    return f"{seconds // 86_400} days" if seconds % 86_400 == 0 and seconds > 86_400 else f"{seconds // 3600} hours"


def topics() -> str:
    """The drawing of docs/architecture.md: outside world, topics, services, and the table beside it."""
    lines = ["```mermaid", "flowchart LR", "    subgraph outside[the outside world]"]
    lines += [f"        {name}([{name}])" for name in OUTSIDE]
    lines += ["        provider([payment provider])", "    end", "    subgraph ours[Tradewind]"]
    lines += [f"        {name}[{name}]" for name in OURS]
    lines += [f"        db_{name}[(database of {name})]" for name in OURS[:3]] + ["    end"]
    for topic in TOPICS:
        box = topic.name.replace(".", "_").replace("-", "_")
        lines.append(f"    {box}{{{{{topic.name}}}}}")
        lines += [f"    {who} --> {box}" for who in dict.fromkeys(map(_party, topic.written_by))]
        lines += [f"    {box} --> {_party(who)}" for who in topic.read_by]
    lines += [f"    {name} --- db_{name}" for name in OURS[:3]]
    lines += ["    payments -. calls with an idempotency key .-> provider", "    provider -. signed webhooks .-> payments", "```", "",
              "| Topic | Written by | Read by | Messages |", "|---|---|---|---|"]
    lines += [f"| `{t.name}` | {', '.join(t.written_by)} | {', '.join(t.read_by)} | {len(t.messages)} |" for t in TOPICS]
    lines += ["| `<topic>.dlq` | the reader that refused a record | the console | the record as it came |"]
    return "\n".join(lines)


def _party(who: str) -> str:
    """The box of a party as `topics.py` names it. Raises KeyError for one that nobody drew."""
    return who if who in (*OURS, *OUTSIDE) else HELPERS[who]


def architecture(text: str) -> str:
    """docs/architecture.md with its drawing made anew. Raises ValueError when the marks are gone."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/architecture.md needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{topics()}\n\n{END}{after}"


def drawings() -> dict[Path, str]:
    """Every drawn file with the text it must have."""
    overview = DOCS / "architecture.md"
    return {DOCS / "lifecycle.md": lifecycle(), overview: architecture(overview.read_text())}


def stale() -> list[Path]:
    return [path for path, text in drawings().items() if not path.exists() or path.read_text() != text]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m schemas.diagrams", description=inspect.cleandoc(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a drawing is not current")
    check = parser.parse_args(arguments).check
    old = stale()
    texts = drawings()
    for path in old:
        if check:
            print(f"docs/{path.name} is not current; run: python -m schemas.diagrams", file=sys.stderr)
        else:
            path.write_text(texts[path])
            print(f"wrote docs/{path.name}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
