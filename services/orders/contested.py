"""A parcel whose buyer's bank asks about its payment, or takes it back. Pure.

Its confirmation timer stops, and goes on with what was left of it. A dispute of the bank may begin long after the order was
completed; then the order is open again until the bank has decided.
"""

from __future__ import annotations

from datetime import datetime

from schemas.lifecycle import DISPUTED, ORDER, Answer
from services.orders.order import Document, Order, end_if_done, pause, resume
from services.runtime.decision import Decision, Incoming, NotYet, Stale

EVENTS = (*DISPUTED, "InquiryClosed", "ChargebackReversed", "ChargebackLost", "ChargebackPartlyLost")


def told(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    """What payments tells of a dispute of the buyer's bank."""
    event, parcel = incoming.data, order.parcels.get(incoming.data.parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    ended = parcel.money in ("refunded", "charged_back")  # before the bank was heard of: nothing stands still for it
    if ended and event.dispute_id not in parcel.contested:
        return Stale(f"the money is {parcel.money}")
    others = tuple(name for name in parcel.contested if name != event.dispute_id)
    if incoming.type in DISPUTED:
        answer, to = ORDER.answer(order.status, incoming.type)
        if answer is Answer.NOT_YET:
            return NotYet("PaymentHeld")
        assert answer is Answer.APPLIED, f"{incoming.type} is not in the table for an order that is {order.status}"
        parcel.contested, order.status, order.closed = (*others, event.dispute_id), to, False
        pause(order, event.parcel_id, now)
        return Decision(order)
    parcel.contested = others
    if incoming.type == "ChargebackLost" and not ended:
        parcel.money, parcel.reason, parcel.repaid = "charged_back", parcel.reason or "chargeback", True
        parcel.pending.clear()
    elif incoming.type == "ChargebackPartlyLost":
        parcel.money = "settled" if parcel.money == "recovered" else parcel.money
        parcel.pending = [ref for ref in parcel.pending if ref not in event.dropped]
    resume(order, event.parcel_id, now)
    return Decision(order, end_if_done(order))
