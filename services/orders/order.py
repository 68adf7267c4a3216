"""What orders knows of one order, and the small steps that all its decisions are made of. Pure.

Each parcel is known from two sides, the goods (told by shipping) and the money (told by payments); the order itself ends when
every parcel has ended on both sides and nothing it was asked for is still pending.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas import orders_order as out
from schemas.lifecycle import ORDER, Answer
from schemas.quotes import Quote
from services.orders import holds, real_name
from services.orders.brands import Brands
from services.orders.papers import Papers
from services.orders.quota import Quota
from services.runtime.decision import Decision, Incoming, NotYet, earliest

GOODS_END = {"ParcelDelivered": "delivered", "ParcelCancelled": "cancelled", "ParcelReturned": "returned", "ParcelLost": "lost",
             "ParcelDestroyed": "destroyed"}
MONEY_END = {"PaymentVoided": "voided", "PaymentDeclined": "declined", "PaymentExpired": "expired",
             "PaymentRefunded": "refunded", "PaymentSettled": "settled", "PaymentChargedBack": "charged_back"}
UNDONE = {"voided", "declined", "expired", "refunded"}
HS_DIGITS = 6  # of the Harmonised System itself, the same everywhere
GONE = {"cancelled", "returned", "lost", "destroyed"}


@dataclass(slots=True)
class Parcel:
    """`pending`: returns, grants and lost disputes whose money has not moved yet. `pause_left_s`: of a stopped timer.
    `returning`: the return whose goods are awaited; `judged`: the dispute that was lost; `repaid`: the buyer has all back;
    `contested`: the open disputes of his bank; `split_off`: parcels that its warehouse made of it."""

    goods: str = "open"
    money: str = "open"
    delivered_at: datetime | None = None
    confirmed: bool = False
    dispute: str = ""
    pause_left_s: float = 0.0
    pending: list[str] = field(default_factory=list)
    reason: str = ""
    returning: str = ""
    judged: str = ""
    repaid: bool = False
    contested: tuple[str, ...] = ()
    split_off: tuple[str, ...] = ()

    def draft(self) -> Parcel:
        return Parcel(self.goods, self.money, self.delivered_at, self.confirmed, self.dispute, self.pause_left_s,
                      list(self.pending), self.reason, self.returning, self.judged, self.repaid, self.contested,
                      self.split_off)

    @property
    def ended(self) -> bool:
        money = self.money in UNDONE or self.money == "charged_back" or (
            self.money == "settled" and self.goods in ("delivered", "lost"))
        return money and self.goods != "open" and not self.pending and not (self.dispute or self.contested)


@dataclass(slots=True)
class Order:
    """`standing`: the label of the merchant's row that the order obeys; `stops`: why it stands still, since `held_since`."""

    order_id: str
    status: str = "new"
    closed: bool = False
    merchant_id: str = ""
    regime: str = "abroad"
    reason: str = ""
    parcels: dict[str, Parcel] = field(default_factory=dict)
    timers: dict[str, datetime] = field(default_factory=dict)
    quota: Quota | None = None
    standing: str = ""
    stops: list[str] = field(default_factory=list)
    held_since: datetime | None = None
    brands: Brands | None = None

    def draft(self) -> Order:
        parcels = {k: p.draft() for k, p in self.parcels.items()}
        return Order(self.order_id, self.status, self.closed, self.merchant_id, self.regime, self.reason, parcels,
                     dict(self.timers), self.quota, self.standing, self.stops, self.held_since,
                     self.brands and self.brands.draft())

    def running(self) -> dict[str, datetime]:
        """The timers that run now: while the order is held, those of what it is held for alone."""
        return {k: due for k, due in self.timers.items() if k in holds.RUNS_ON} if self.stops else self.timers

    def due(self) -> datetime | None:
        return earliest(self.running())


@dataclass(slots=True, frozen=True)
class Document:
    """What was ordered: line number -> quantity. `quote`: the landed cost, when duty and taxes were paid with the order;
    into China alone `amounts`: line number -> price, and what its `papers` say. `hs_digits`: of the codes that customs wants."""

    quantities: dict[int, int]
    quote: Quote | None = None
    amounts: dict[int, int] | None = None
    papers: Papers | None = None
    hs_digits: int = HS_DIGITS


STATE = TypeAdapter(Order)
DOCUMENT = TypeAdapter(Document)


def step(order: Order, event: str) -> str:
    answer, to = ORDER.answer(order.status, event)
    assert answer is Answer.APPLIED, f"{event} is not in the table for an order that is {order.status}"
    return to


def refuse(order: Order, incoming: Incoming, reason: str, detail: str) -> Decision:
    return Decision(order, [out.CommandRefused(order_id=order.order_id, command=incoming.type, command_id=incoming.id,
                                               reason=reason, detail=detail)])


def unknown_parcel(order: Order, incoming: Incoming, parcel_id: str) -> Decision | NotYet:
    if not order.parcels and not order.closed:
        return NotYet("ParcelsAllocated")
    first, dot, number = parcel_id.rpartition(".")
    if not order.closed and dot and first in order.parcels and number.isdecimal():
        return NotYet("ParcelSplit")  # perhaps split off: whoever was told by shipping may be faster than we
    return refuse(order, incoming, "unknown_parcel", f"the order has {sorted(order.parcels)}, not {parcel_id!r}")


def wrong_lines(document: Document, lines: Any) -> tuple[str, str] | None:
    for line in lines or ():
        ordered = document.quantities.get(line.line_no)
        if ordered is None:
            return "unknown_line", f"the order has no line {line.line_no}"
        if line.quantity > ordered:
            return "too_many", f"line {line.line_no} has {ordered} units, not {line.quantity}"
    return None


def answered(parcel: Parcel, ref: str) -> None:
    if ref in parcel.pending:
        parcel.pending.remove(ref)


def end_if_done(order: Order) -> list:
    if order.closed or not order.parcels or not all(p.ended for p in order.parcels.values()):
        return []
    # A lost parcel whose claim was paid to the merchant is "settled" too, but its buyer has neither goods nor money spent.
    done = any(p.money in ("settled", "charged_back") and p.goods == "delivered" for p in order.parcels.values())
    if not done:
        order.reason = _why_undone(order)
    return close(order, "OrderCompleted" if done else "OrderCancelled")


def _why_undone(order: Order) -> str:
    if order.standing.startswith("closed"):
        return holds.CLOSED
    if order.brands is not None and order.brands.lapsed:
        return holds.UNAUTHORISED
    if order.reason == holds.DENIED or holds.denied(order):
        return holds.DENIED
    if real_name.unproven(order):
        return real_name.UNPROVEN
    return next((p.reason for p in order.parcels.values() if p.reason), "refunded")


def close(order: Order, event: str) -> list:
    order.status, order.closed = step(order, event), True
    order.timers.clear()
    outcomes = {k: f"{p.goods}/{p.money}" for k, p in order.parcels.items()}
    if event == "OrderCompleted":
        return [out.OrderCompleted(order_id=order.order_id, outcomes=outcomes)]
    return [out.OrderCancelled(order_id=order.order_id, reason=order.reason, outcomes=outcomes)]


def pause(order: Order, parcel_id: str, now: datetime) -> None:
    due = order.timers.pop(f"confirm:{parcel_id}", None)
    if due is not None:
        order.parcels[parcel_id].pause_left_s = max(0.0, (due - holds.clock(order, now)).total_seconds())


def resume(order: Order, parcel_id: str, now: datetime) -> None:
    """Once nothing stops it any more."""
    parcel = order.parcels[parcel_id]
    if parcel.dispute or parcel.contested or parcel.returning:
        return
    if parcel.goods == "delivered" and not parcel.confirmed and parcel.money == "held":
        order.timers[f"confirm:{parcel_id}"] = now + timedelta(seconds=parcel.pause_left_s)
