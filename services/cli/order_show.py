"""How `order show` tells one order: the three services side by side, its parcels, what it waits for, and why. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from services.cli import promises
from services.cli.duties import charges_of
from services.cli.order_state import Look
from services.cli.order_why import span, why
from services.cli.timeline import facts, money, short_parcel, trade_time, whole
from services.runtime.settings import SERVICES

_SUMS = ("due", "captured", "held", "released", "refunded", "charged_back", "recovered")
_ALWAYS = _SUMS[:3]


class Show:
    """Everything about one order for a terminal or a pipe; parts that are empty are left out."""

    def __init__(self, look: Look):
        self.look = look

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        look, account = self.look, self.look.state("payments")
        head = [f"order {look.order_id}"]
        if account is not None and account.currency:
            head += [f"merchant {account.merchant_id}", account.regime, account.currency]
        yield Text("  ".join(head), style="bold")
        yield Text(f"trade time {trade_time(look.now)} UTC")
        for table in (_services(look), _parcels(look), _promises(look), _timers(look), _calls(look), _waiting(look), _dead(look), _landed(look)):
            if table is not None:
                yield ""
                yield whole(table, console, options)
        yield ""
        for n, line in enumerate(why(look)):
            yield Text(f"why: {line}" if n == 0 else f"     {line}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right" if column in (*_SUMS, "amount") else "left", overflow="fold")
    return table


def _services(look: Look) -> Table:
    table = _table("", "", *SERVICES)

    def row(name: str, tell: Any) -> None:
        table.add_row(name, *(tell(look.views[s]) if s in look.views else "-" for s in SERVICES))

    row("status", lambda view: view.status)
    row("closed", lambda view: "yes" if view.closed else "no")
    row("events", lambda view: str(view.sequence))
    return table


def _parcels(look: Look) -> Table | None:
    if not look.parcels:
        return None
    account = look.state("payments")
    holds = [hold for parcel_id in look.parcels if (hold := _of(look, parcel_id)[1])]
    sums = [name for name in _SUMS if name in _ALWAYS or any(getattr(hold, name) for hold in holds)]
    table = _table("parcels", "parcel", "goods", "money", "orders says", *sums)
    for parcel_id in look.parcels:
        goods, hold, mine = _of(look, parcel_id)
        amounts = [_amount(getattr(hold, name), account.currency) if hold else "-" for name in sums]
        table.add_row(short_parcel(parcel_id, look.order_id), goods.status if goods else "-", hold.status if hold else "-",
                      f"{mine.goods}/{mine.money}" if mine else "-", *amounts)
    return table


def _promises(look: Look) -> Table | None:
    found = [(parcel_id, told) for parcel_id in look.parcels if (told := promises.of_parcel(look, parcel_id))]
    if not found:
        return None
    table = _table("promise", "parcel", "way", "promised at the door", "clock", "left")
    for parcel_id, told in found:
        due = datetime.fromisoformat(told["promised_at"])
        late = "" if told["in_time"] else " (not within 72 h)"
        left = "-" if told["left_s"] is None else span(due - look.now) if due > look.now else "over"
        table.add_row(short_parcel(parcel_id, look.order_id), told["way"] + (" (re-routed)" if told["rerouted"] else ""),
                      trade_time(due) + late, told["clock"], left)
    return table


def _amount(minor: int, currency: str) -> str:
    """The head names the currency."""
    return money(minor, currency).removeprefix(f"{currency} ")


def _of(look: Look, parcel_id: str) -> tuple[Any, Any, Any]:
    """(shipping's parcel, payments' hold, orders' parcel), each None where the service has none."""
    return (getattr(look.state("shipping"), "parcels", {}).get(parcel_id),
            getattr(look.state("payments"), "holds", {}).get(parcel_id),
            getattr(look.state("orders"), "parcels", {}).get(parcel_id))


def _timers(look: Look) -> Table | None:
    if not look.timers:
        return None
    table = _table("timers", "service", "timer", "due (trade time)", "left")
    for due, service, name in look.timers:
        left = span(due - look.now) if due > look.now else "due"
        table.add_row(service, name.replace(f"{look.order_id}-", ""), trade_time(due), left)
    return table


def _calls(look: Look) -> Table | None:
    view = look.views.get("payments")
    if view is None or not view.calls:
        return None
    table = _table("calls in flight", "call", "amount", "asked (real time)")
    for call in view.calls:
        table.add_row(call.intent_id, money(call.amount, view.state.currency), trade_time(call.made_at))
    return table


def _waiting(look: Look) -> Table | None:
    if not look.waiting:
        return None
    table = _table("not yet", "service", "keeps", "until", "since (real time)")
    for w in look.waiting:
        table.add_row(w.service, w.type, w.waits_for, trade_time(w.since))
    return table


def _dead(look: Look) -> Table | None:
    if not look.dead:
        return None
    table = _table("dead letters", "event", "what", "where")
    for event in look.dead:
        table.add_row(event.type, facts(event), event.place)
    return table


def _landed(look: Look) -> Table | None:
    return charges_of(look.quote, "landed cost") if look.quote else None


def as_json(look: Look) -> dict[str, Any]:
    """The same as plain values: amounts in minor units, times ISO 8601."""
    account = look.state("payments")
    parcels = {}
    for parcel_id in look.parcels:
        goods, hold, mine = _of(look, parcel_id)
        parcels[parcel_id] = {
            "goods": goods.status if goods else None, "money": hold.status if hold else None,
            "orders": {name: getattr(mine, name) for name in ("goods", "money", "pending", "dispute", "contested")} if mine else None,
            "amounts": {name: getattr(hold, name) for name in _SUMS} if hold else None,
            "promise": promises.of_parcel(look, parcel_id)}
    return {
        "order": look.order_id, "trade_time": look.now.isoformat(), "currency": account.currency if account else None,
        "services": {s: {"status": v.status, "closed": v.closed, "events": v.sequence} for s, v in look.views.items()},
        "parcels": parcels,
        "timers": [{"due": due.isoformat(), "service": service, "name": name} for due, service, name in look.timers],
        "calls": [{"id": c.intent_id, "kind": c.kind, "amount": c.amount, "made_at": c.made_at.isoformat()}
                  for v in look.views.values() for c in v.calls],
        "waiting": [{"service": w.service, "type": w.type, "id": w.id, "waits_for": w.waits_for} for w in look.waiting],
        "dead_letters": [{"type": e.type, "id": e.id, "reason": e.dead[0], "detail": e.dead[1], "place": e.place}
                         for e in look.dead],
        "landed_cost": look.quote.model_dump(mode="json") if look.quote else None,
        "why": why(look)}
