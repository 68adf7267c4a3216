"""Why no goods of an order go forward: its merchant is frozen or closed, or the order itself is held.

What would let goods go forward is kept, not refused, and decided when the last stop ends; the warehouse is told which parcels
it must not hand over. What has happened to goods all the same is recorded as ever. Deadlines of ours stand still, those of
carriers and customs do not.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from schemas import shipping_shipment as out
from schemas.carrier_codes import names_a_list
from schemas.topics import MODELS
from services.runtime.decision import CLOSED, MERCHANT_STATUS, STOPS, Decision, Incoming, Stale, Standing
from services.shipping import promise
from services.shipping.shipment import Shipment, Work

KEPT = frozenset({"PaymentAuthorised", "PaymentHeld",  # their money lets goods go forward
                  "OrderDocumented", "PaymentDocumentAmended"})


def merchant(subject: Shipment, incoming: Incoming) -> Decision:
    """What orders says of a merchant: from the commit on, all his orders here obey."""
    status, event = MERCHANT_STATUS[incoming.type], incoming.data
    subject.status, subject.closed, subject.merchant_id = status, True, event.merchant_id
    return Decision(subject, standing=Standing(f"{status} {event.freeze_no}", status))


def keeps(incoming: Incoming) -> bool:
    """Whether it would let goods go forward: money, papers, or what customs says of a list."""
    return incoming.type in KEPT or incoming.type == "CarrierScanReported" and names_a_list(incoming.data)


def keep(work: Work, incoming: Incoming) -> None:
    work.shipment.kept = [*work.shipment.kept, [incoming.type, incoming.data.model_dump_json()]]


def stands(work: Work, incoming: Incoming, decide: Callable[[Work, Incoming], Any]) -> None:
    """The merchant was frozen, or the freeze was lifted, or upheld: orders then cancels what can be."""
    s, row = work.shipment, incoming.standing
    s.standing = row.label
    if row.status in STOPS:
        if row.status == "closed" and CLOSED not in s.stops:
            s.stops = [*(stop for stop in s.stops if stop not in STOPS.values()), CLOSED]
            s.held_since, s.kept = s.held_since or work.now, []
        elif row.frozen:
            stop(work, STOPS[row.status])
        return
    for reason in STOPS.values():
        if reason in s.stops:
            clear(work, reason, decide)


def held(work: Work, incoming: Incoming) -> Stale | None:
    reason = incoming.data.reason
    if reason in STOPS.values() or reason in work.shipment.stops:
        return Stale("the merchant's row says so, or it is held for this already")
    stop(work, reason)
    return None


def resumed(work: Work, incoming: Incoming, decide: Callable[[Work, Incoming], Any]) -> Stale | None:
    reason = incoming.data.reason
    if reason in STOPS.values() or reason not in work.shipment.stops:
        return Stale("the merchant's row says so, or it is not held for this")
    clear(work, reason, decide)
    return None


def stop(work: Work, reason: str) -> None:
    s = work.shipment
    if reason in s.stops:
        return
    s.stops = [*s.stops, reason]
    s.held_since = s.held_since or work.now
    for parcel_id in _at_warehouse(work, "ParcelStopped"):
        work.emit(out.ParcelStopped, parcel_id=parcel_id, reason=reason)
    promise.stop(work, reason)


def clear(work: Work, reason: str, decide: Callable[[Work, Incoming], Any]) -> None:
    """The stop ends; with the last one the order goes on where it stood, with as much time as it had."""
    s = work.shipment
    s.stops = [each for each in s.stops if each != reason]
    for parcel_id in _at_warehouse(work, "ParcelCleared"):
        work.emit(out.ParcelCleared, parcel_id=parcel_id, reason=reason)
    if s.stops:
        return
    for parcel_id, parcel in s.parcels.items():
        if parcel.status in promise.OPEN:  # else it was cancelled meanwhile, and its clock with it
            promise.resume(work, parcel_id)
    standing_still = work.now - s.held_since
    s.timers = {name: due + standing_still if name.partition(":")[0] in s.STANDS_STILL else due
                for name, due in s.timers.items()}
    s.held_since, kept, s.kept = None, s.kept, []
    for type_, body in kept:
        decide(work, Incoming(type_, "", "", 0, work.now, MODELS[type_].model_validate_json(body)))


def stand_still(s: Shipment, before: dict[str, datetime], now: datetime) -> None:
    """Timers of ours that were armed during a stop begin when it ends."""
    for name, due in s.timers.items():
        if name.partition(":")[0] in s.STANDS_STILL and before.get(name) != due:
            s.timers[name] = due - (now - s.held_since)


def _at_warehouse(work: Work, event: str) -> list[str]:
    return [parcel_id for parcel_id, parcel in work.shipment.parcels.items() if work.step(parcel, event)]
