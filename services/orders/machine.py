"""What orders decides. Pure: state, document, event, time in; decision out. The legal transitions are in schemas/lifecycle.py.

What an order knows is in order.py; what is asked for when goods are with the buyer, in after_delivery.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas import orders_order as out
from schemas.brands import BRAND
from schemas.cold_chain import ColdLine
from schemas.lifecycle import ORDER, Answer, deadlines
from schemas.merchants import MERCHANT
from schemas.orders_intake import PlaceOrder
from services.orders import brands, complaints, contested, denied, holds, merchants, real_name, splitting
from services.orders.after_delivery import (confirm, confirmed, grant_priced, grant_refund, open_dispute, request_return,
                                            resolve_dispute, return_received)
from services.orders.order import (DOCUMENT, GOODS_END, HS_DIGITS, MONEY_END, STATE, Document, Order, Parcel, answered, close, end_if_done,
                                   pause, refuse, resume, step, wrong_lines)
from services.orders.papers import issue, papers_of
from services.orders.goods import Goods
from services.orders.quota import NOTED, follow, reserve
from services.orders.rulebook import Rules, load
from services.orders.screening import accept
from services.orders.terms import NOBODY, Book
from services.runtime.decision import BRAND_CHANGED, STANDING, TIMER, Decision, Incoming, NotYet, Stale

__all__ = ["DOCUMENT", "HANDLERS", "STATE", "Document", "Order", "Parcel", "decide"]


def decide(order: Order, document: Document | None, incoming: Incoming, vault_key: bytes, now: datetime,
           rules: Rules | None = None, shared: Any = None, registered_only: bool = False,
           terms: Book = NOBODY, lists: tuple[denied.DeniedList, ...] | None = None, platform: str = "",
           asked: Goods | None = None, real_names: bool = False) -> Decision | NotYet | Stale:
    """One command, event or timer against one order. Refused commands are events of their own, never silence.
    `shared`: the rows of `quota.shared_keys`; `rules` check quotes and limits; None: those we ship. `registered_only`: no
    merchant may sell who is not registered; `terms`: fee plans and exchange rates; `lists`: of denied parties; `platform`: our
    code at Chinese customs; `real_names`: there is a registry to ask whose an identity number is."""
    if order.order_id.startswith(MERCHANT):
        return merchants.decide(order, incoming, terms, now)
    if order.order_id.startswith(BRAND):
        return brands.decide(order, incoming)
    if incoming.type == BRAND_CHANGED:
        return brands.changed(order, incoming, rules or load(), now)
    if incoming.type == STANDING:
        return Decision(fresh := order.draft(), holds.stands(fresh, incoming.standing, now))
    handler = HANDLERS[incoming.type]
    if order.status == "new" and incoming.type != "PlaceOrder" and incoming.type not in _SUBJECTS:
        return NotYet("OrderPlaced")
    if incoming.type == "PlaceOrder":
        return _place(order, incoming, vault_key, shared, rules or load(), registered_only, terms,
                      denied.load() if lists is None else lists, now, platform, asked, real_names)
    answer = handler(draft := order.draft(), document, incoming, now)
    if order.quota is not None and isinstance(answer, Decision):
        follow(answer, document, incoming)
        issue(answer, document, incoming)
    if draft.stops:
        holds.stand_still(draft, order.timers, now)
    return answer


# -- commands ---------------------------------------------------------------------------------------------------------


def _place(order: Order, incoming: Incoming, vault_key: bytes, shared: Any, rules: Rules, registered_only: bool,
           terms: Book, lists: tuple[denied.DeniedList, ...], now: datetime, platform: str, asked: Goods | None,
           real_names: bool) -> Decision:
    command: PlaceOrder = incoming.data
    if order.status != "new":
        return refuse(order, incoming, "order_exists", "an order with this id was placed before; choose another id")
    fresh = Order(order.order_id, merchant_id=command.merchant_id, standing=order.standing)
    chains = brands.check(incoming, command, rules) if incoming.known else None
    found = merchants.may_sell(incoming.standing, command, registered_only) or chains
    if not isinstance(found, tuple):
        found = accept(command, vault_key, shared, rules, terms, lists, platform, asked,
                       merchants.agreed(incoming.standing, command.placed_at.date()))
    if isinstance(found, tuple):
        fresh.status, fresh.closed, fresh.reason = step(fresh, "OrderRejected"), True, found[0]
        return Decision(fresh, [out.OrderRejected(order_id=order.order_id, reason=found[0], detail=found[1])])
    fresh.status = step(fresh, "OrderPlaced")
    fresh.regime = ("domestic" if command.origin == command.destination else
                    "china" if command.destination == "CN" else "abroad")
    buyer, consignee = command.buyer, command.consignee
    placed = out.OrderPlaced.model_construct(
        order_id=order.order_id, merchant_id=command.merchant_id, currency=command.currency, origin=command.origin,
        destination=command.destination, regime=fresh.regime,
        lines=[out.PlacedLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=l.quantity, amount=l.amount,
                                              hs_code=l.hs_code) for l in command.lines],
        freight=command.freight, tax=command.tax, total=command.total, on_shortage=command.on_shortage, backorder=command.backorder,
        payment_token=command.payment_token, buyer_token=buyer.token, buyer_hash=buyer.hash,
        consignee_token=consignee.token, consignee_hash=consignee.hash, placed_at=command.placed_at, quote=found.quote,
        china=found.china, terms=found.terms, cold=_cold(command), screening=found.screening,
        screening_list=found.screening_list, season=command.season and out.PreSale(**command.season.__dict__), brands=chains,
        declaration=found.declaration, real_name=real_name.needed(command, found.china) if real_names else "")
    fresh.brands = brands.of_order(chains, command, incoming) if chains else None
    persons = [("buyer+consignee", buyer)] if buyer.token == consignee.token else [("buyer", buyer), ("consignee", consignee)]
    rows = [("vault", (order.order_id, role, person.token, person.hash, person.sealed)) for role, person in persons]
    amounts = {l.line_no: l.amount for l in command.lines} if found.china else None
    events = [placed, *holds.review(fresh, found.screening_list, now)] if found.screening == "REVIEW" else [placed]
    if placed.real_name:
        events += real_name.ask(fresh, now)
    return Decision(fresh, events, rows=rows, moves=reserve(fresh, found.china) if found.china else [],
                    document=Document({l.line_no: l.quantity for l in command.lines}, found.quote, amounts,
                                      papers_of(command, found.china),
                                      found.declaration.hs_digits if found.declaration else HS_DIGITS))


def _cold(command: PlaceOrder) -> list[ColdLine] | None:
    return [ColdLine.model_construct(line_no=line.line_no, **line.cold.__dict__) for line in command.lines
            if line.cold is not None] or None


def _cancel(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    command = incoming.data
    if ORDER.answer(order.status, "CancellationRequested")[0] is not Answer.APPLIED:
        return refuse(order, incoming, "already_closed", f"the order is {order.status}; ask for a return instead")
    if order.parcels and all(p.goods != "open" for p in order.parcels.values()):
        return refuse(order, incoming, "already_delivered", "no parcel is on its way any more; ask for a return instead")
    if (wrong := wrong_lines(document, command.lines)) is not None:
        return refuse(order, incoming, *wrong)
    return Decision(order, [out.CancellationRequested(order_id=order.order_id, cancellation_id=incoming.id,
                                                      lines=command.lines, reason=command.reason)])


def _supply(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    if ORDER.answer(order.status, "DocumentsSupplied")[0] is not Answer.APPLIED:
        return refuse(order, incoming, "already_closed", f"the order is {order.status}; its papers are of no use any more")
    if unknown := [line.line_no for line in incoming.data.lines if line.line_no not in document.quantities]:
        return refuse(order, incoming, "unknown_line", f"the order has no line {unknown[0]}")
    if short := [line for line in incoming.data.lines if len(line.hs_code) < document.hs_digits]:
        return refuse(order, incoming, "code_too_short", f"line {short[0].line_no}: {short[0].hs_code} has not the "
                      f"{document.hs_digits} digits that its declaration asks for")
    lines = [out.LineCode(line_no=line.line_no, hs_code=line.hs_code) for line in incoming.data.lines]
    return Decision(order, [out.DocumentsSupplied(order_id=order.order_id, lines=lines)])


def _decide_screening(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    command = incoming.data
    if holds.REVIEW_TIMER not in order.timers:
        return refuse(order, incoming, "not_in_review", "no officer is asked about this order")
    return Decision(order, holds.decide_review(order, command.outcome, command.decided_by, command.detail, incoming.id, now))


def _answer_real_name(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | Stale:
    command = incoming.data
    if real_name.waits(order):
        return Decision(order, real_name.decide(order, command.outcome, command.decided_by, command.detail, incoming.id, now))
    if incoming.source == real_name.REGISTRY:
        return Stale("whose number it is, is known by now or of no matter")
    return refuse(order, incoming, "no_real_name_asked", "nobody is asked whose the buyer's identity number is, or not any more")


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
    return Decision(order, close(order, "OrderCancelled"))


def _paid(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    """PaymentAuthorised, PaymentHeld: the order goes on, and the parcels they name are paid so far."""
    if not order.parcels:
        return NotYet("ParcelsAllocated")
    answer, to = ORDER.answer(order.status, incoming.type)
    if answer is Answer.APPLIED:
        order.status = to
    for part in incoming.data.parcels:
        order.parcels[part.parcel_id].money = "authorised" if incoming.type == "PaymentAuthorised" else "held"
    return Decision(order, [event for part in incoming.data.parcels
                            for event in holds.take_back(order, incoming.id, part.parcel_id)])


def _noted(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | Stale:
    return Decision(order) if order.quota is not None else Stale("of no concern to the order")


def _goods_ended(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    parcel.goods = GOODS_END[incoming.type]
    if parcel.goods == "delivered" and order.standing.startswith("closed"):
        parcel.delivered_at = now
        return Decision(order, holds.take_back(order, incoming.id, parcel_id) + end_if_done(order))
    if parcel.goods == "delivered":
        parcel.delivered_at = now
        order.timers[f"confirm:{parcel_id}"] = now + timedelta(seconds=deadlines()["confirmation"])
        if parcel.dispute or parcel.contested:
            pause(order, parcel_id, now)
    else:
        parcel.reason = parcel.reason or incoming.data.reason
    return Decision(order, end_if_done(order))


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
            answered(parcel, event.ref)
            answered(parcel, parcel.judged)  # nothing is left to charge back
            parcel.repaid = True
            order.timers.pop(f"confirm:{parcel_id}", None)
    return Decision(order, end_if_done(order))


def _part_refunded(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if parcel.money == "recovered":
        parcel.money = "settled"
    answered(parcel, incoming.data.ref)
    return Decision(order, end_if_done(order))


def _recovered(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if incoming.data.recovered_from == "merchant":
        parcel.money = "recovered"  # on its way to the buyer; a carrier's claim is between carrier and merchant
        if order.closed:
            order.status, order.closed = step(order, incoming.type), False
    return Decision(order)


# -- time -------------------------------------------------------------------------------------------------------------


def _timer(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    events: list[Any] = []
    for name in sorted(n for n, due in order.running().items() if due <= now):
        kind, parcel_id = name.split(":", 1)
        del order.timers[name]
        if name == holds.REVIEW_TIMER:
            events += holds.decide_review(order, "block", "timer", "nobody decided in time", f"timer:{order.order_id}", now)
        if name == holds.REAL_NAME_TIMER:
            events += real_name.decide(order, "unanswered", "timer", "nobody said in time whose number it is", f"timer:{order.order_id}", now)
        if name == holds.BRAND_TIMER:
            events += brands.overdue(order, now)
        if kind == "confirm":
            events += confirmed(order, parcel_id, "timer")
        elif kind == "return":
            parcel = order.parcels[parcel_id]
            if parcel.returning not in parcel.pending:
                continue  # refunded already; the warehouse's event is on its way
            return_id, parcel.returning = parcel.returning, ""
            parcel.pending.remove(return_id)
            events.append(out.ReturnExpired(order_id=order.order_id, return_id=return_id, parcel_id=parcel_id))
            resume(order, parcel_id, now)
            events += end_if_done(order)
    return Decision(order, events)


_SUBJECTS = dict.fromkeys(merchants.HANDLERS, merchants.misplaced) | dict.fromkeys(brands.HANDLERS, brands.misplaced)
HANDLERS = {
    **_SUBJECTS,
    "FileComplaint": complaints.filed, "InspectionEnded": complaints.inspected, "RescreenOrder": holds.rescreened,
    "AnswerRealName": _answer_real_name,
    "PlaceOrder": _place, "CancelOrder": _cancel, "SupplyDocuments": _supply, "DecideScreening": _decide_screening,
    "ConfirmReceipt": confirm, "RequestReturn": request_return, "GrantRefund": grant_refund,
    "OpenDispute": open_dispute, "ResolveDispute": resolve_dispute,
    "ParcelsAllocated": _allocated, "AllocationFailed": _not_allocated,
    **dict.fromkeys(("Backordered", "PreSold", "SeasonOpened"), _step_only),
    **dict.fromkeys(("PaymentAuthorised", "PaymentHeld"), _paid),
    "ParcelSplit": splitting.split, "PaymentDivided": splitting.divided,
    **dict.fromkeys(GOODS_END, _goods_ended), "CustomsRefused": _customs_refused,
    **dict.fromkeys(MONEY_END, _money_ended), "PaymentPartiallyRefunded": _part_refunded, "FundsRecovered": _recovered,
    "ReturnReceived": return_received, "GrantPriced": grant_priced, **dict.fromkeys(contested.EVENTS, contested.told),
    TIMER: _timer,
    **dict.fromkeys(NOTED, _noted),
}
