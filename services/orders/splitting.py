"""A parcel that its warehouse split in two: the order has one more, whose goods shipping tells of and whose money payments
does, each on a topic of its own. Pure."""

from __future__ import annotations

from datetime import datetime

from services.orders import holds
from services.orders.order import Document, Order, Parcel
from services.runtime.decision import Decision, Incoming, NotYet, Stale


def split(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet | Stale:
    event = incoming.data
    first = order.parcels.get(event.parcel_id)
    if first is None:
        return NotYet("ParcelsAllocated")
    if event.part.parcel_id in order.parcels:
        return Stale("split before")
    order.parcels[event.part.parcel_id] = Parcel()
    first.split_off = (*first.split_off, event.part.parcel_id)
    return Decision(order)


def divided(order: Order, document: Document, incoming: Incoming, now: datetime) -> Decision | NotYet:
    """Its part of the escrow is its own."""
    parcel_id = incoming.data.parcel_id
    if parcel_id not in order.parcels:
        return NotYet("ParcelSplit")
    order.parcels[parcel_id].money = "held"
    return Decision(order, holds.take_back(order, incoming.id, parcel_id))

