"""One order's whole story: what happened in which service, when, and because of what.

    events = await story(settings, order_id)     from the topics and the parked records, causes before effects
    console.print(render(events))                a table with a lane for each service
    compact(events)                              one plain line an event
`weave`, `facts`, `render` and `compact` are pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import iso4217
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from schemas.topics import ORDER
from services.cli import parcel_facts, promises
from services.cli.order_records import LANES, Event, parked_places, reading, with_parked
from services.runtime.settings import Settings

ENDS = {"OrderCompleted": "completed", "OrderCancelled": "cancelled", "OrderRejected": "rejected"}
_COLOUR = {"world": "yellow", "orders": "cyan", "payments": "green", "shipping": "magenta"}
_WIDE = 150
_FACT_MAX = 80


async def story(settings: Settings, order_id: str) -> list[Event]:
    """All records of the order, woven; empty for an id that nobody ever used. Raises NotRunning."""
    async with reading(settings, [order_id]) as reader:
        events = await reader.to_end()
    return weave(with_parked(events, await parked_places(settings, order_id)))


def weave(events: Iterable[Event]) -> list[Event]:
    """One sequence out of all topics: by the broker's time, but never an effect before its cause, nor two records of a
    partition the wrong way round. The clocks of several processes alone would not give that."""
    pending = sorted(events, key=_order_key)
    first: dict[str, int] = {}
    for n, event in enumerate(pending):
        if event.dead is None and event.id:
            first.setdefault(event.id, n)
    after: dict[int, list[int]] = {}
    waits = [0] * len(pending)
    previous: dict[tuple[str, int], int] = {}
    for n in sorted(range(len(pending)), key=lambda n: (pending[n].topic, pending[n].partition, pending[n].offset)):
        event = pending[n]
        cause = first.get(event.id) if event.dead else first.get(event.causation)
        for before in {previous.get((event.topic, event.partition)), cause} - {None, n}:
            after.setdefault(before, []).append(n)
            waits[n] += 1
        previous[event.topic, event.partition] = n
    return _marked([pending[n] for n in _topological(after, waits)])


def _order_key(event: Event) -> tuple[Any, ...]:
    return event.recorded, event.dead is not None, LANES.index(event.lane), event.offset


def _topological(after: dict[int, list[int]], waits: list[int]) -> list[int]:
    """Numbers, smallest first, each after those it waits for. An outsider's forged causes may form a circle: the smallest
    of what is left then goes first."""
    ready = [n for n, count in enumerate(waits) if count == 0]
    done: list[int] = []
    seen = [False] * len(waits)
    while len(done) < len(waits):
        n = heapq.heappop(ready) if ready else seen.index(False)
        if seen[n]:
            continue
        seen[n] = True
        done.append(n)
        for later in after.get(n, ()):
            waits[later] -= 1
            if waits[later] == 0:
                heapq.heappush(ready, later)
    return done


def _marked(events: list[Event]) -> list[Event]:
    seen: set[tuple[str, str, bool]] = set()
    marked = []
    for event in events:
        mark = event.source, event.id, event.dead is not None
        marked.append(replace(event, repeats=True) if event.id and mark in seen else event)
        seen.add(mark)
    return marked


def ended(events: Iterable[Event]) -> Event | None:
    """The event that ended the order, unless something later opened it again."""
    told = [e for e in events if e.topic == ORDER.name and e.type != "CommandRefused" and not e.repeats]
    return told[-1] if told and told[-1].type in ENDS else None


def causes(events: Sequence[Event]) -> list[int | None]:
    """For each event the index of the one it follows from; a dead letter follows from the record it is a copy of."""
    first: dict[str, int] = {}
    for n, event in enumerate(events):
        if event.dead is None and event.id:
            first.setdefault(event.id, n)
    return [first.get(e.id if e.dead else e.causation) for e in events]


# -- facts ------------------------------------------------------------------------------------------------------------


def currency_of(events: Iterable[Event]) -> str:
    """The order's currency: a message about goods carries amounts without one."""
    return next((e.data["currency"] for e in events if isinstance(e.data.get("currency"), str)), "")


def money(amount: int, currency: str) -> str:
    """Minor units as people write them: EUR 12.30, JPY 1230; bare minor units where the currency is not known."""
    try:
        exponent = iso4217.Currency(currency).exponent or 0
    except ValueError:
        return f"{amount} minor units {currency}".strip()
    sign, whole = "-" if amount < 0 else "", f"{abs(amount):0{exponent + 1}d}"
    units = f"{int(whole[:len(whole) - exponent]):,}"
    return f"{currency} {sign}{units}" + (f".{whole[-exponent:]}" if exponent else "")


def short_parcel(parcel_id: str, order_id: str) -> str:
    """Parcel ids begin with their order's id, which everybody looking at the order knows."""
    tail = parcel_id.removeprefix(f"{order_id}-")
    return tail if tail and tail != parcel_id else parcel_id


_MONEY = {"total": "", "amount": "", "refund": "refund", "claim": "claim", "quoted": "quoted"}
_LEADING = ("kind", "outcome", "command")
_SPEAKING = ("reason", "detail")  # need no name before them
_NAMED = ("via", "recovered_from", "confirmed_by", "warehouse", "carrier", "tracking_no", "attempt", "regime", "bank_reference",
          "authority", "ref", "freeze_no", "decided_by")


def facts(event: Event, currency: str = "") -> str:
    """The few facts that matter, on one line."""
    data, order_id = event.data, event.data.get("order_id", "")
    parts = [f"dead letter of {event.lane}: {event.dead[0]}: {event.dead[1]}"] if event.dead else []
    if event.parked:
        parts.append(f"WAITS in {', '.join(event.parked)}")
    if event.repeats:
        parts.append("again")
    if isinstance(data.get("parcel_id"), str):
        parts.append(short_parcel(data["parcel_id"], order_id))
    parts += [" ".join(str(data[name]) for name in _LEADING if data.get(name))]
    parts += [f"{label} {money(data[name], data.get('currency') or currency)}".strip()
              for name, label in _MONEY.items() if isinstance(data.get(name), int)]
    parts += [str(data[name]) for name in _SPEAKING if data.get(name)]
    parts += [f"{name} {data[name]}" for name in _NAMED if data.get(name)]
    parts += _lists(data, order_id, data.get("currency") or currency)
    if "origin" in data and "destination" in data:
        parts.append(f"{data['origin']}→{data['destination']}")
    parts += promises.told(data)
    parts += parcel_facts.told(data)
    parts += _shared(data, data.get("currency") or currency)
    if isinstance(data.get("quote"), dict):
        parts += _quoted(data["quote"], data.get("currency") or currency)
    return ", ".join(p if len(p) <= _FACT_MAX or event.dead else f"{p[:_FACT_MAX - 1]}…" for p in parts if p)


def _lists(data: dict[str, Any], order_id: str, currency: str) -> list[str]:
    parts = []
    for name, word in (("lines", ""), ("unfilled", "unfilled "), ("missing", "missing ")):
        if isinstance(data.get(name), list) and data[name]:
            units = sum(line.get("quantity", 0) for line in data[name])
            parts.append(f"{word}{_count(len(data[name]), 'line')}, {_count(units, 'unit')}")
    for plan in data.get("parcels") or ():
        parts.append(f"{short_parcel(plan.get('parcel_id', ''), order_id)} {money(plan.get('amount', 0), currency)}")
    parts += [short_parcel(p, order_id) for p in data.get("parcel_ids") or ()]
    parts += [f"{short_parcel(p, order_id)} {how}" for p, how in (data.get("outcomes") or {}).items()]
    return parts


def _shared(data: dict[str, Any], currency: str) -> list[str]:
    """Who got what of a release, what customs asks for, and by which terms the merchant is paid."""
    parts = [f"{share['account']} {money(share['amount'], currency)}" for share in data.get("shares") or ()]
    for name in ("assessed", "declared"):
        if isinstance(bill := data.get(name), dict):
            parts.append(f"{name} {money(bill['amount'], bill['currency'])} {bill.get('document', '')}".strip())
    if isinstance(terms := data.get("terms"), dict):
        fx = terms.get("fx")
        parts.append(f"terms {terms['plan']} (version {terms.get('version', 0)}), paid in {terms['payout']}" + (
            f" at 1 {fx['base']} = {fx['rate']} {fx['quote']} ({fx['id']})" if fx else ""))
    return parts


def _quoted(quote: dict[str, Any], currency: str) -> list[str]:
    """Of a frozen quote its charges, rule and customs rate; of one that an order only states, the rule."""
    charges = [charge for charge in quote.get("charges") or () if charge["kind"] not in ("goods", "freight", "insurance")]
    parts = [f"{charge['kind'].replace('_', ' ')} {money(charge['amount'], currency)}" for charge in charges if charge["amount"]]
    rate = quote.get("customs_rate")
    return [*parts, f"landed cost by {quote.get('rule_id')}, import {quote.get('import_date')}",
            *([f"1 {rate['base']} = {rate['rate']} {rate['quote']} ({rate['id']})"] if rate else [])]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


# -- what people see --------------------------------------------------------------------------------------------------


def trade_time(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "-"


def _cause(event: Event, cause: int | None) -> str:
    if cause is not None:
        return f"←{cause + 1}"
    if event.causation and event.causation == event.data.get("intent_id"):
        return "←call"  # a call to the provider is an intent of payments, not a record
    return {"timer": "←timer", "": ""}.get(event.causation.partition(":")[0], "←?")


def compact(events: Sequence[Event], start: int = 0) -> list[str]:
    """One plain line an event, from number `start` on: number, trade time, lane, event, facts, cause."""
    currency = currency_of(events)
    return [
        f"{n:>3} {trade_time(event.time):19} {event.lane:8} {event.type:24} {facts(event, currency)}"
        + (f"  {arrow}" if (arrow := _cause(event, cause)) else "")
        for n, (event, cause) in enumerate(zip(events, causes(events)), 1) if n > start]


def whole(table: Table, console: Console, options: ConsoleOptions) -> Table:
    """The table as wide as it wants to be where there is no terminal: whoever reads a pipe or a file wants whole lines."""
    if not console.is_terminal:
        table.width = console.measure(table, options=options.update(width=10_000)).maximum
    return table


def render(events: Sequence[Event]) -> Timeline:
    """A rich renderable: one row an event, a lane for each service. On a narrow terminal facts and place stand below."""
    return Timeline(events)


class Timeline:
    """What `render` gives; it knows its width only when it is printed."""

    def __init__(self, events: Sequence[Event]):
        self.events = events

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield whole(self._table(not console.is_terminal or options.max_width >= _WIDE), console, options)

    def _table(self, wide: bool) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
        table.add_column("#", justify="right", no_wrap=True)
        table.add_column("trade time (UTC)", no_wrap=True)
        if wide:
            table.add_column("recorded", no_wrap=True)
        for lane in LANES:
            table.add_column(lane if wide else lane[0].upper(), justify="center", no_wrap=True, style=_COLOUR[lane])
        table.add_column("event", no_wrap=wide)
        if wide:
            table.add_column("facts", ratio=1)
        table.add_column("cause", no_wrap=True, justify="right")
        if wide:
            table.add_column("topic/partition/offset", no_wrap=True, style="dim")
        self._rows(table, wide)
        return table

    def _rows(self, table: Table, wide: bool) -> None:
        currency, began = currency_of(self.events), min((e.recorded for e in self.events), default=None)
        for n, (event, cause) in enumerate(zip(self.events, causes(self.events)), 1):
            told = facts(event, currency)
            name = Text(event.type, style="bold red" if event.dead else _COLOUR[event.lane])
            mark = "✗" if event.dead else "◌" if event.parked else "●"
            lanes = [mark if lane == event.lane else "│" for lane in LANES]
            when = [f"+{(event.recorded - began).total_seconds():.3f}s"] if wide else []
            if wide:
                rest = [name, Text(told), _cause(event, cause), event.place]
            else:
                below = Text(f"\n{told}" if told else "") + Text(f"\n{event.place}", style="dim")
                rest = [name + below, _cause(event, cause)]
            table.add_row(str(n), trade_time(event.time), *when, *lanes, *rest)


def as_json(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The events as plain values; `cause` is the number of the causing one, `n` counts from 1."""
    return [asdict(event) | {"n": n, "cause": cause + 1 if cause is not None else None,
                             "facts": facts(event, currency_of(events))}
            for n, (event, cause) in enumerate(zip(events, causes(events)), 1)]


async def follow(settings: Settings, order_id: str, before: Sequence[Event], say: Callable[[str], None]) -> list[Event]:
    """Say what comes after `before`, a line an event, until the order has ended; all events then. Raises NotRunning."""
    events, known = list(before), {event.place for event in before}
    async with reading(settings, [order_id]) as reader:
        while not ended(events):
            fresh = [e for e in await reader.more() if e.place not in known]
            known.update(e.place for e in fresh)
            told = len(events)
            events += weave(fresh)
            for line in compact(events, told):
                say(line)
    return events
