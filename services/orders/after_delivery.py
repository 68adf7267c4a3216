"""What the buyer, the merchant and the arbiter ask for once goods are with the buyer: receipt, return, refund, dispute. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas import orders_order as out
from schemas.lifecycle import ORDER, Answer, deadlines
from services.orders.order import (GONE, UNDONE, Document, Order, answered, end_if_done, pause, refuse, resume, step, unknown_parcel,
                                   wrong_lines)
from services.runtime.decision import Decision, Incoming, NotYet, Stale


def confirm(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return unknown_parcel(order, incoming, parcel_id)
    if parcel.goods == "open":
        return NotYet("ParcelDelivered")
    if parcel.goods != "delivered":
        return refuse(order, incoming, "not_delivered", f"the parcel is {parcel.goods}")
    answer = ORDER.answer(order.status, "ReceiptConfirmed")[0]
    if parcel.confirmed or order.closed or answer is Answer.STALE:
        return Stale("confirmed before, or the money has gone another way")
    if answer is Answer.NOT_YET:
        return NotYet("PaymentHeld")  # goods and money are told on two topics: the delivery may be known first
    if parcel.dispute:
        return refuse(order, incoming, "in_dispute", "the arbiter decides about this parcel now")
    return Decision(order, confirmed(order, parcel_id, "buyer"))


def confirmed(order: Order, parcel_id: str, by: str) -> list:
    parcel = order.parcels[parcel_id]
    parcel.confirmed = True
    order.timers.pop(f"confirm:{parcel_id}", None)
    return [out.ReceiptConfirmed(order_id=order.order_id, parcel_id=parcel_id, confirmed_by=by,
                                 split_off=list(parcel.split_off))]


def request_return(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    command = incoming.data
    chosen = _delivered_parcels(order, incoming, several=command.lines is None)
    if not isinstance(chosen, list):
        return chosen
    if (wrong := wrong_lines(document, command.lines)) is not None:
        return refuse(order, incoming, *wrong)
    window = timedelta(seconds=deadlines()["return_window_china" if order.regime == "china" else "return_window"])
    events = []
    for parcel_id in chosen:
        parcel = order.parcels[parcel_id]
        if now > parcel.delivered_at + window:
            return refuse(order, incoming, "return_window_over", f"goods could be sent back for {window.days} days")
        if parcel.dispute or parcel.pending or parcel.contested:
            return refuse(order, incoming, "busy", "a return, refund or dispute of this parcel is still open")
        return_id = incoming.id if len(chosen) == 1 else f"{incoming.id}/{parcel_id}"
        parcel.pending.append(return_id)
        parcel.returning = return_id
        pause(order, parcel_id, now)
        order.timers[f"return:{parcel_id}"] = now + timedelta(seconds=deadlines()["return_arrival"])
        events.append(out.ReturnRequested(order_id=order.order_id, return_id=return_id, parcel_id=parcel_id,
                                          lines=command.lines, reason=command.reason))
    order.status, order.closed = step(order, "ReturnRequested"), False
    return Decision(order, events)


def grant_refund(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    command = incoming.data
    chosen = _delivered_parcels(order, incoming, several=command.lines is None and command.amount is None)
    if not isinstance(chosen, list):
        return chosen
    if (wrong := wrong_lines(document, command.lines)) is not None:
        return refuse(order, incoming, *wrong)
    events = []
    for parcel_id in chosen:
        grant_id = incoming.id if len(chosen) == 1 else f"{incoming.id}/{parcel_id}"
        order.parcels[parcel_id].pending.append(grant_id)
        events.append(out.RefundGranted(order_id=order.order_id, grant_id=grant_id, parcel_id=parcel_id,
                                        lines=command.lines, amount=command.amount, reason=command.reason))
    order.status, order.closed = step(order, "RefundGranted"), False
    return Decision(order, events)


def open_dispute(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    parcel = order.parcels.get(parcel_id := incoming.data.parcel_id)
    if parcel is None:
        return unknown_parcel(order, incoming, parcel_id)
    if parcel.money in ("open", "authorised"):
        return NotYet("PaymentHeld")
    if parcel.money in UNDONE or parcel.money == "charged_back" or parcel.goods in GONE:
        return refuse(order, incoming, "nothing_to_dispute", f"the money is {parcel.money}, the goods are {parcel.goods}")
    if parcel.dispute or parcel.pending or parcel.contested:
        return refuse(order, incoming, "busy", "a return, refund or dispute of this parcel is still open")
    parcel.dispute = incoming.id
    pause(order, parcel_id, now)
    order.status, order.closed = step(order, "DisputeOpened"), False
    return Decision(order, [out.DisputeOpened(order_id=order.order_id, dispute_id=incoming.id, parcel_id=parcel_id,
                                              reason=incoming.data.reason)])


def resolve_dispute(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    parcel_id, outcome = incoming.data.parcel_id, incoming.data.outcome
    parcel = order.parcels.get(parcel_id)
    if parcel is None or not parcel.dispute:
        return refuse(order, incoming, "no_dispute", "no dispute of this parcel is open")
    dispute_id, parcel.dispute = parcel.dispute, ""
    events: list[Any] = [out.DisputeResolved(order_id=order.order_id, dispute_id=dispute_id, parcel_id=parcel_id,
                                             outcome=outcome, split_off=list(parcel.split_off))]
    if outcome == "won":
        resume(order, parcel_id, now)
    elif not parcel.repaid:  # else another exit of the parcel was faster, and payments has no more to say
        parcel.pending.append(dispute_id)
        parcel.judged = dispute_id
    return Decision(order, events + end_if_done(order))


def return_received(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    event = incoming.data
    parcel = order.parcels.get(event.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if event.return_id == parcel.returning:  # an earlier one, which had expired, changes nothing for this one
        parcel.returning = ""
        order.timers.pop(f"return:{event.parcel_id}", None)
        resume(order, event.parcel_id, now)
    if event.refund == 0:
        answered(parcel, event.return_id)
    return Decision(order, end_if_done(order))


def grant_priced(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision:
    parcel = order.parcels[incoming.data.parcel_id]
    if incoming.data.refund == 0:
        answered(parcel, incoming.data.grant_id)
    return Decision(order, end_if_done(order))


def _delivered_parcels(order: Order, incoming: Incoming, several: bool) -> list[str] | Decision | NotYet:
    """The parcels a return or grant is about; they must be with the buyer, and their money not already gone."""
    named = incoming.data.parcel_id
    if named is not None and named not in order.parcels:
        return unknown_parcel(order, incoming, named)
    if not order.closed and (not order.parcels or any(
            p.goods == "open" for k, p in order.parcels.items() if named in (None, k))):
        return NotYet("ParcelDelivered")
    if any(p.goods == "delivered" and p.money in ("open", "authorised") for k, p in order.parcels.items() if named in (None, k)):
        return NotYet("PaymentHeld")  # shipped goods are paid for; that event is on its way here
    chosen = [k for k, p in order.parcels.items() if named in (None, k)
              and p.goods == "delivered" and p.money in ("held", "settled", "recovered")]
    if not chosen:
        return refuse(order, incoming, "not_delivered", "no parcel of this order is with the buyer and paid")
    if len(chosen) > 1 and not several:
        return refuse(order, incoming, "parcel_needed", f"name the parcel: {chosen}")
    return chosen
