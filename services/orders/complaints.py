"""Complaints about a merchant, one order at a time: by a buyer, a brand, an authority, or by what an inspection found. Pure.

They are counted from rows of their own (`tradewind merchant complaints`); an order is not moved by one. What a brand complains
about is held by shipping until somebody has looked at it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas import orders_order as out
from schemas.lifecycle import ORDER, Answer
from services.orders.order import refuse
from services.runtime.decision import Decision, Incoming, Stale


def filed(order: Any, document: Any, incoming: Incoming, now: datetime) -> Decision:
    command = incoming.data
    if command.parcel_id is not None and command.parcel_id not in order.parcels:
        return refuse(order, incoming, "unknown_parcel", f"the order has {sorted(order.parcels)}, not {command.parcel_id!r}")
    if ORDER.answer(order.status, "ComplaintFiled")[0] is not Answer.APPLIED:
        return refuse(order, incoming, "never_accepted", f"the order is {order.status}: nobody bought anything")
    return _complaint(order, incoming.id, command.by, command.reason, command.parcel_id, command.detail, now)


def inspected(order: Any, document: Any, incoming: Incoming, now: datetime) -> Decision | Stale:
    event = incoming.data
    if event.result != "counterfeit":
        return Stale("nothing to complain about")
    return _complaint(order, event.inspection_id, "inspection", "counterfeit", event.parcel_id, event.detail, now)


def _complaint(order: Any, id_: str, by: str, reason: str, parcel_id: str | None, detail: str, now: datetime) -> Decision:
    event = out.ComplaintFiled(order_id=order.order_id, complaint_id=id_, by=by, reason=reason, parcel_id=parcel_id, detail=detail)
    return Decision(order, [event], rows=[("complaints", (order.order_id, order.merchant_id, id_, by, reason, now))])
