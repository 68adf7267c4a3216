"""What orders decides. Pure: state, document, event, time in; decision out. The legal transitions are in schemas/lifecycle.py.

Orders knows each parcel from two sides, the goods (told by shipping) and the money (told by payments); the order itself
ends when every parcel has ended on both sides and nothing it was asked for is still pending.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas import orders_order as out
from schemas.cold_chain import ColdLine
from schemas.lifecycle import ORDER, Answer, deadlines
from schemas.merchants import MERCHANT
from schemas.orders_intake import PlaceOrder
from schemas.quotes import Quote
from services.orders import denied, holds, merchants
from services.orders.quota import NOTED, Quota, follow, reserve
from services.orders.rulebook import Rules, load
from services.orders.screening import accept
from services.orders.terms import NOBODY, Book
from services.runtime.decision import STANDING, TIMER, Decision, Incoming, NotYet, Stale, earliest

GOODS_END = {"ParcelDelivered": "delivered", "ParcelCancelled": "cancelled", "ParcelReturned": "returned", "ParcelLost": "lost",
             "ParcelDestroyed": "destroyed"}
MONEY_END = {"PaymentVoided": "voided", "PaymentDeclined": "declined", "PaymentExpired": "expired",
             "PaymentRefunded": "refunded", "PaymentSettled": "settled", "PaymentChargedBack": "charged_back"}
UNDONE = {"voided", "declined", "expired", "refunded"}
GONE = {"cancelled", "returned", "lost", "destroyed"}


@dataclass(slots=True)
class Parcel:
    """`pending`: returns, grants and lost disputes whose money has not moved yet. `pause_left_s`: of a stopped timer.
    `returning`: the return whose goods are awaited; `judged`: the dispute that was lost; `repaid`: the buyer has all back."""

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

    def draft(self) -> Parcel:
        return Parcel(self.goods, self.money, self.delivered_at, self.confirmed, self.dispute, self.pause_left_s,
                      list(self.pending), self.reason, self.returning, self.judged, self.repaid)

    @property
    def ended(self) -> bool:
        money = self.money in UNDONE or self.money == "charged_back" or (
            self.money == "settled" and self.goods in ("delivered", "lost"))
        return money and self.goods != "open" and not self.pending and not self.dispute


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

    def draft(self) -> Order:
        parcels = {k: p.draft() for k, p in self.parcels.items()}
        return Order(self.order_id, self.status, self.closed, self.merchant_id, self.regime, self.reason, parcels,
                     dict(self.timers), self.quota, self.standing, self.stops, self.held_since)

    def running(self) -> dict[str, datetime]:
        """The timers that run now: while the order is held, that of an officer who must decide about it alone."""
        return {k: due for k, due in self.timers.items() if k == holds.REVIEW_TIMER} if self.stops else self.timers

    def due(self) -> datetime | None:
        return earliest(self.running())


@dataclass(slots=True, frozen=True)
class Document:
    """What was ordered: line number -> quantity. `quote`: the landed cost, when duty and taxes were paid with the order;
    `amounts`: line number -> price, into China alone."""

    quantities: dict[int, int]
    quote: Quote | None = None
    amounts: dict[int, int] | None = None


STATE = TypeAdapter(Order)
DOCUMENT = TypeAdapter(Document)


def decide(order: Order, document: Document | None, incoming: Incoming, vault_key: bytes, now: datetime,
           rules: Rules | None = None, shared: Any = None, registered_only: bool = False,
           terms: Book = NOBODY, lists: tuple[denied.DeniedList, ...] | None = None) -> Decision | NotYet | Stale:
    """One command, event or timer against one order. Refused commands are events of their own, never silence.
    `shared`: the rows of `quota.shared_keys`; `rules` check quotes and limits; None: those we ship. `registered_only`: no
    merchant may sell who is not registered; `terms`: what was agreed with them; `lists`: of denied parties."""
    if order.order_id.startswith(MERCHANT):
        return merchants.decide(order, incoming)
    if incoming.type == STANDING:
        return Decision(fresh := order.draft(), holds.stands(fresh, incoming.standing, now))
    handler = HANDLERS[incoming.type]
    if order.status == "new" and incoming.type != "PlaceOrder" and incoming.type not in merchants.HANDLERS:
        return NotYet("OrderPlaced")
    if incoming.type == "PlaceOrder":
        return _place(order, incoming, vault_key, shared, rules or load(), registered_only, terms,
                      denied.load() if lists is None else lists, now)
    answer = handler(draft := order.draft(), document, incoming, now)
    if order.quota is not None and isinstance(answer, Decision):
        follow(answer, document, incoming)
    if draft.stops:
        holds.stand_still(draft, order.timers, now)
    return answer


# -- commands ---------------------------------------------------------------------------------------------------------


def _place(order: Order, incoming: Incoming, vault_key: bytes, shared: Any, rules: Rules, registered_only: bool,
           terms: Book, lists: tuple[denied.DeniedList, ...], now: datetime) -> Decision:
    command: PlaceOrder = incoming.data
    if order.status != "new":
        return _refuse(order, incoming, "order_exists", "an order with this id was placed before; choose another id")
    fresh = Order(order.order_id, merchant_id=command.merchant_id, standing=order.standing)
    found = merchants.may_sell(incoming.standing, command, registered_only) or accept(
        command, vault_key, shared, rules, terms, lists)
    if isinstance(found, tuple):
        fresh.status, fresh.closed, fresh.reason = _step(fresh, "OrderRejected"), True, found[0]
        return Decision(fresh, [out.OrderRejected(order_id=order.order_id, reason=found[0], detail=found[1])])
    fresh.status = _step(fresh, "OrderPlaced")
    fresh.regime = ("domestic" if command.origin == command.destination else
                    "china" if command.destination == "CN" else "abroad")
    buyer, consignee = command.buyer, command.consignee
    placed = out.OrderPlaced.model_construct(
        order_id=order.order_id, merchant_id=command.merchant_id, currency=command.currency, origin=command.origin,
        destination=command.destination, regime=fresh.regime,
        lines=[out.PlacedLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=l.quantity, amount=l.amount,
                                              hs_code=l.hs_code) for l in command.lines],
        freight=command.freight, tax=command.tax, total=command.total, on_shortage=command.on_shortage,
        payment_token=command.payment_token, buyer_token=buyer.token, buyer_hash=buyer.hash,
        consignee_token=consignee.token, consignee_hash=consignee.hash, placed_at=command.placed_at, quote=found.quote,
        china=found.china, terms=found.terms, cold=_cold(command), screening=found.screening,
        screening_list=found.screening_list, season=command.season and out.PreSale(**command.season.__dict__))
    persons = [("buyer+consignee", buyer)] if buyer.token == consignee.token else [("buyer", buyer), ("consignee", consignee)]
    rows = [("vault", (order.order_id, role, person.token, person.hash, person.sealed)) for role, person in persons]
    amounts = {l.line_no: l.amount for l in command.lines} if found.china else None
    events = [placed, *holds.review(fresh, found.screening_list, now)] if found.screening == "REVIEW" else [placed]
    return Decision(fresh, events, rows=rows, moves=reserve(fresh, found.china) if found.china else [],
                    document=Document({l.line_no: l.quantity for l in command.lines}, found.quote, amounts))


def _cold(command: PlaceOrder) -> list[ColdLine] | None:
    return [ColdLine.model_construct(line_no=line.line_no, **line.cold.__dict__) for line in command.lines
            if line.cold is not None] or None


def _cancel(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    command = incoming.data
    if ORDER.answer(order.status, "CancellationRequested")[0] is not Answer.APPLIED:
        return _refuse(order, incoming, "already_closed", f"the order is {order.status}; ask for a return instead")
    if order.parcels and all(p.goods != "open" for p in order.parcels.values()):
        return _refuse(order, incoming, "already_delivered", "no parcel is on its way any more; ask for a return instead")
    if (wrong := _wrong_lines(document, command.lines)) is not None:
        return _refuse(order, incoming, *wrong)
    return Decision(order, [out.CancellationRequested(order_id=order.order_id, cancellation_id=incoming.id,
                                                      lines=command.lines, reason=command.reason)])


def _supply(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    if ORDER.answer(order.status, "DocumentsSupplied")[0] is not Answer.APPLIED:
        return _refuse(order, incoming, "already_closed", f"the order is {order.status}; its papers are of no use any more")
    if unknown := [line.line_no for line in incoming.data.lines if line.line_no not in document.quantities]:
        return _refuse(order, incoming, "unknown_line", f"the order has no line {unknown[0]}")
    lines = [out.LineCode(line_no=line.line_no, hs_code=line.hs_code) for line in incoming.data.lines]
    return Decision(order, [out.DocumentsSupplied(order_id=order.order_id, lines=lines)])


def _confirm(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return _unknown_parcel(order, incoming, parcel_id)
    if parcel.goods == "open":
        return NotYet("ParcelDelivered")
    if parcel.goods != "delivered":
        return _refuse(order, incoming, "not_delivered", f"the parcel is {parcel.goods}")
    answer = ORDER.answer(order.status, "ReceiptConfirmed")[0]
    if parcel.confirmed or order.closed or answer is Answer.STALE:
        return Stale("confirmed before, or the money has gone another way")
    if answer is Answer.NOT_YET:
        return NotYet("PaymentHeld")  # goods and money are told on two topics: the delivery may be known first
    if parcel.dispute:
        return _refuse(order, incoming, "in_dispute", "the arbiter decides about this parcel now")
    return Decision(order, _confirmed(order, parcel_id, "buyer"))


def _confirmed(order: Order, parcel_id: str, by: str) -> list:
    parcel = order.parcels[parcel_id]
    parcel.confirmed = True
    order.timers.pop(f"confirm:{parcel_id}", None)
    return [out.ReceiptConfirmed(order_id=order.order_id, parcel_id=parcel_id, confirmed_by=by)]


def _request_return(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    command = incoming.data
    chosen = _delivered_parcels(order, incoming, several=command.lines is None)
    if not isinstance(chosen, list):
        return chosen
    if (wrong := _wrong_lines(document, command.lines)) is not None:
        return _refuse(order, incoming, *wrong)
    window = timedelta(seconds=deadlines()["return_window_china" if order.regime == "china" else "return_window"])
    events = []
    for parcel_id in chosen:
        parcel = order.parcels[parcel_id]
        if now > parcel.delivered_at + window:
            return _refuse(order, incoming, "return_window_over", f"goods could be sent back for {window.days} days")
        if parcel.dispute or parcel.pending:
            return _refuse(order, incoming, "busy", "a return, refund or dispute of this parcel is still open")
        return_id = incoming.id if len(chosen) == 1 else f"{incoming.id}/{parcel_id}"
        parcel.pending.append(return_id)
        parcel.returning = return_id
        _pause(order, parcel_id, now)
        order.timers[f"return:{parcel_id}"] = now + timedelta(seconds=deadlines()["return_arrival"])
        events.append(out.ReturnRequested(order_id=order.order_id, return_id=return_id, parcel_id=parcel_id,
                                          lines=command.lines, reason=command.reason))
    order.status, order.closed = _step(order, "ReturnRequested"), False
    return Decision(order, events)


def _grant_refund(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    command = incoming.data
    chosen = _delivered_parcels(order, incoming, several=command.lines is None and command.amount is None)
    if not isinstance(chosen, list):
        return chosen
    if (wrong := _wrong_lines(document, command.lines)) is not None:
        return _refuse(order, incoming, *wrong)
    events = []
    for parcel_id in chosen:
        grant_id = incoming.id if len(chosen) == 1 else f"{incoming.id}/{parcel_id}"
        order.parcels[parcel_id].pending.append(grant_id)
        events.append(out.RefundGranted(order_id=order.order_id, grant_id=grant_id, parcel_id=parcel_id,
                                        lines=command.lines, amount=command.amount, reason=command.reason))
    order.status, order.closed = _step(order, "RefundGranted"), False
    return Decision(order, events)


def _open_dispute(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return _unknown_parcel(order, incoming, parcel_id)
    if parcel.money in ("open", "authorised"):
        return NotYet("PaymentHeld")
    if parcel.money in UNDONE or parcel.money == "charged_back" or parcel.goods in GONE:
        return _refuse(order, incoming, "nothing_to_dispute", f"the money is {parcel.money}, the goods are {parcel.goods}")
    if parcel.dispute or parcel.pending:
        return _refuse(order, incoming, "busy", "a return, refund or dispute of this parcel is still open")
    parcel.dispute = incoming.id
    _pause(order, parcel_id, now)
    order.status, order.closed = _step(order, "DisputeOpened"), False
    return Decision(order, [out.DisputeOpened(order_id=order.order_id, dispute_id=incoming.id, parcel_id=parcel_id,
                                              reason=incoming.data.reason)])


def _resolve_dispute(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    parcel_id, outcome = incoming.data.parcel_id, incoming.data.outcome
    parcel = order.parcels.get(parcel_id)
    if parcel is None or not parcel.dispute:
        return _refuse(order, incoming, "no_dispute", "no dispute of this parcel is open")
    dispute_id, parcel.dispute = parcel.dispute, ""
    events: list[Any] = [out.DisputeResolved(order_id=order.order_id, dispute_id=dispute_id, parcel_id=parcel_id,
                                             outcome=outcome)]
    if outcome == "won":
        _resume(order, parcel_id, now)
    elif not parcel.repaid:  # else another exit of the parcel was faster, and payments has no more to say
        parcel.pending.append(dispute_id)
        parcel.judged = dispute_id
    return Decision(order, events + _end_if_done(order))


# -- what shipping and payments say -----------------------------------------------------------------------------------


def _allocated(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    answer, to = ORDER.answer(order.status, incoming.type)
    if answer is not Answer.APPLIED:
        return Stale("allocated before")
    order.status = to
    order.parcels = {plan.parcel_id: Parcel() for plan in incoming.data.parcels}
    return Decision(order)


def _step_only(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    answer, to = ORDER.answer(order.status, incoming.type)
    if answer is Answer.NOT_YET:
        return NotYet(f"a state that allows {incoming.type}")
    if answer is Answer.STALE:
        return Stale(f"{incoming.type} in {order.status}")
    order.status = to
    return Decision(order)


def _not_allocated(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | Stale:
    if order.closed:
        return Stale("closed before")
    order.reason = incoming.data.reason
    return Decision(order, _close(order, "OrderCancelled"))


def _paid(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    """PaymentAuthorised, PaymentHeld: the order goes on, and the parcels they name are paid so far."""
    if not order.parcels:
        return NotYet("ParcelsAllocated")
    answer, to = ORDER.answer(order.status, incoming.type)
    if answer is Answer.APPLIED:
        order.status = to
    for part in incoming.data.parcels:
        order.parcels[part.parcel_id].money = "authorised" if incoming.type == "PaymentAuthorised" else "held"
    return Decision(order, [event for part in incoming.data.parcels for event in holds.take_back(order, incoming.id, part.parcel_id)])


def _noted(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | Stale:
    return Decision(order) if order.quota is not None else Stale("of no concern to the order")


def _goods_ended(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    parcel.goods = GOODS_END[incoming.type]
    if parcel.goods == "delivered" and order.standing.startswith("closed"):
        parcel.delivered_at = now
        return Decision(order, holds.take_back(order, incoming.id, parcel_id) + _end_if_done(order))
    if parcel.goods == "delivered":
        parcel.delivered_at = now
        order.timers[f"confirm:{parcel_id}"] = now + timedelta(seconds=deadlines()["confirmation"])
        if parcel.dispute:
            _pause(order, parcel_id, now)
    else:
        parcel.reason = parcel.reason or incoming.data.reason
    return Decision(order, _end_if_done(order))


def _customs_refused(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    parcel.reason = "customs_refused"
    return Decision(order)


def _money_ended(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    if not order.parcels:
        return NotYet("ParcelsAllocated")
    event = incoming.data
    for parcel_id in [p.parcel_id for p in event.parcels] if hasattr(event, "parcels") else [event.parcel_id]:
        parcel = order.parcels[parcel_id]
        parcel.money = MONEY_END[incoming.type]
        if incoming.type == "PaymentChargedBack":
            parcel.reason = "dispute_lost"
            parcel.pending.clear()
        elif incoming.type == "PaymentRefunded":
            parcel.reason = parcel.reason or event.reason
            _answered(parcel, event.ref)
            _answered(parcel, parcel.judged)  # nothing is left to charge back
            parcel.repaid = True
            order.timers.pop(f"confirm:{parcel_id}", None)
    return Decision(order, _end_if_done(order))


def _part_refunded(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if parcel.money == "recovered":
        parcel.money = "settled"
    _answered(parcel, incoming.data.ref)
    return Decision(order, _end_if_done(order))


def _answered(parcel: Parcel, ref: str) -> None:
    if ref in parcel.pending:
        parcel.pending.remove(ref)


def _recovered(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if incoming.data.recovered_from == "merchant":
        parcel.money = "recovered"  # on its way to the buyer; a carrier's claim is between carrier and merchant
        if order.closed:
            order.status, order.closed = _step(order, incoming.type), False
    return Decision(order)


def _return_received(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    event = incoming.data
    parcel = order.parcels.get(event.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if event.return_id == parcel.returning:  # an earlier one, which had expired, changes nothing for this one
        parcel.returning = ""
        order.timers.pop(f"return:{event.parcel_id}", None)
        _resume(order, event.parcel_id, now)
    if event.refund == 0:
        _answered(parcel, event.return_id)
    return Decision(order, _end_if_done(order))


def _grant_priced(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    parcel = order.parcels[incoming.data.parcel_id]
    if incoming.data.refund == 0:
        _answered(parcel, incoming.data.grant_id)
    return Decision(order, _end_if_done(order))


# -- time -------------------------------------------------------------------------------------------------------------


def _timer(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    events: list[Any] = []
    for name in sorted(n for n, due in order.running().items() if due <= now):
        kind, parcel_id = name.split(":", 1)
        del order.timers[name]
        if name == holds.REVIEW_TIMER:
            events += holds.decide_review(order, "block", "timer", "nobody decided in time", f"timer:{order.order_id}", now)
        if kind == "confirm":
            events += _confirmed(order, parcel_id, "timer")
        elif kind == "return":
            parcel = order.parcels[parcel_id]
            if parcel.returning not in parcel.pending:
                continue  # refunded already; the warehouse's event is on its way
            return_id, parcel.returning = parcel.returning, ""
            parcel.pending.remove(return_id)
            events.append(out.ReturnExpired(order_id=order.order_id, return_id=return_id, parcel_id=parcel_id))
            _resume(order, parcel_id, now)
            events += _end_if_done(order)
    return Decision(order, events)


def _pause(order: Order, parcel_id: str, now: datetime) -> None:
    due = order.timers.pop(f"confirm:{parcel_id}", None)
    if due is not None:
        order.parcels[parcel_id].pause_left_s = max(0.0, (due - holds.clock(order, now)).total_seconds())


def _resume(order: Order, parcel_id: str, now: datetime) -> None:
    parcel = order.parcels[parcel_id]
    if parcel.goods == "delivered" and not parcel.confirmed and parcel.money == "held":
        order.timers[f"confirm:{parcel_id}"] = now + timedelta(seconds=parcel.pause_left_s)


# -- ends -------------------------------------------------------------------------------------------------------------


def _end_if_done(order: Order) -> list:
    if order.closed or not order.parcels or not all(p.ended for p in order.parcels.values()):
        return []
    # A lost parcel whose claim was paid to the merchant is "settled" too, but its buyer has neither goods nor money spent.
    done = any(p.money in ("settled", "charged_back") and p.goods == "delivered" for p in order.parcels.values())
    if not done:
        order.reason = holds.CLOSED if order.standing.startswith("closed") else holds.DENIED if holds.denied(order) else next((p.reason for p in order.parcels.values() if p.reason), "refunded")
    return _close(order, "OrderCompleted" if done else "OrderCancelled")


def _close(order: Order, event: str) -> list:
    order.status, order.closed = _step(order, event), True
    order.timers.clear()
    outcomes = {k: f"{p.goods}/{p.money}" for k, p in order.parcels.items()}
    if event == "OrderCompleted":
        return [out.OrderCompleted(order_id=order.order_id, outcomes=outcomes)]
    return [out.OrderCancelled(order_id=order.order_id, reason=order.reason, outcomes=outcomes)]


def _step(order: Order, event: str) -> str:
    answer, to = ORDER.answer(order.status, event)
    assert answer is Answer.APPLIED, f"{event} is not in the table for an order that is {order.status}"
    return to


def _refuse(order: Order, incoming: Incoming, reason: str, detail: str) -> Decision:
    return Decision(order, [out.CommandRefused(order_id=order.order_id, command=incoming.type, command_id=incoming.id,
                                               reason=reason, detail=detail)])


def _unknown_parcel(order: Order, incoming: Incoming, parcel_id: str) -> Decision | NotYet:
    if not order.parcels and not order.closed:
        return NotYet("ParcelsAllocated")
    return _refuse(order, incoming, "unknown_parcel", f"the order has {sorted(order.parcels)}, not {parcel_id!r}")


def _delivered_parcels(order: Order, incoming: Incoming, several: bool) -> list[str] | Decision | NotYet:
    """The parcels a return or grant is about; they must be with the buyer, and their money not already gone."""
    named = incoming.data.parcel_id
    if named is not None and named not in order.parcels:
        return _unknown_parcel(order, incoming, named)
    if not order.closed and (not order.parcels or any(
            p.goods == "open" for k, p in order.parcels.items() if named in (None, k))):
        return NotYet("ParcelDelivered")
    if any(p.goods == "delivered" and p.money in ("open", "authorised") for k, p in order.parcels.items() if named in (None, k)):
        return NotYet("PaymentHeld")  # shipped goods are paid for; that event is on its way here
    chosen = [k for k, p in order.parcels.items() if named in (None, k)
              and p.goods == "delivered" and p.money in ("held", "settled", "recovered")]
    if not chosen:
        return _refuse(order, incoming, "not_delivered", "no parcel of this order is with the buyer and paid")
    if len(chosen) > 1 and not several:
        return _refuse(order, incoming, "parcel_needed", f"name the parcel: {chosen}")
    return chosen


def _wrong_lines(document: Document, lines: Any) -> tuple[str, str] | None:
    for line in lines or ():
        ordered = document.quantities.get(line.line_no)
        if ordered is None:
            return "unknown_line", f"the order has no line {line.line_no}"
        if line.quantity > ordered:
            return "too_many", f"line {line.line_no} has {ordered} units, not {line.quantity}"
    return None


def _decide_screening(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    command = incoming.data
    if holds.REVIEW_TIMER not in order.timers:
        return _refuse(order, incoming, "not_in_review", "no officer is asked about this order")
    return Decision(order, holds.decide_review(order, command.outcome, command.decided_by, command.detail, incoming.id, now))


HANDLERS = {
    **dict.fromkeys(merchants.HANDLERS, merchants.misplaced), "DecideScreening": _decide_screening, "PlaceOrder": _place, "CancelOrder": _cancel, "SupplyDocuments": _supply, "ConfirmReceipt": _confirm, "RequestReturn": _request_return,
    "GrantRefund": _grant_refund, "OpenDispute": _open_dispute, "ResolveDispute": _resolve_dispute,
    "ParcelsAllocated": _allocated, "Backordered": _step_only, "PreSold": _step_only, "SeasonOpened": _step_only, "AllocationFailed": _not_allocated,
    "PaymentAuthorised": _paid, "PaymentHeld": _paid,
    **dict.fromkeys(GOODS_END, _goods_ended), "CustomsRefused": _customs_refused,
    **dict.fromkeys(MONEY_END, _money_ended), "PaymentPartiallyRefunded": _part_refunded, "FundsRecovered": _recovered,
    "ReturnReceived": _return_received, "GrantPriced": _grant_priced, TIMER: _timer,
    **dict.fromkeys(NOTED, _noted),
}
