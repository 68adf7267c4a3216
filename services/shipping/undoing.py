"""Undoing what the buyer no longer wants or pays: unpacked and put back before hand-over, asked of the carrier afterwards.

Each event that makes the buyer owe less says by how much (`refund`); payments needs no more."""

from __future__ import annotations

from schemas import shipping_shipment as out
from schemas.lifecycle import BEFORE_HANDOVER, BEFORE_PACKING
from schemas.model import LineUnits
from schemas.orders_order import CancellationRequested
from services.runtime.decision import Incoming, Stale
from services.shipping.reservation import fail
from services.shipping.shipment import Work, line_units


def cancel_parcel(work: Work, parcel_id: str, reason: str) -> None:
    """Before hand-over: release what is reserved, or put back what is packed. Nothing when it is too late."""
    parcel = work.shipment.parcels[parcel_id]
    if parcel.in_doubt and parcel.status == "packed":
        work.step(parcel, "ParcelDestroyed")
        destroy(work, parcel_id, reason)  # what may be spoiled or a copy goes back to no shelf
        return
    before = parcel.status
    if before in BEFORE_HANDOVER and work.step(parcel, "ParcelCancelled"):
        cancel(work, parcel_id, before, reason)
        if all(p.status == "cancelled" for p in work.shipment.parcels.values()):
            work.disarm("reservation")


def cancel(work: Work, parcel_id: str, before: str, reason: str) -> None:
    """The parcel, which is cancelled now and was `before`, will not be packed, or was for nothing."""
    work.disarm(f"hold:{parcel_id}", f"papers:{parcel_id}", f"stock:{parcel_id}", f"stock_ends:{parcel_id}")
    work.unasked(parcel_id)
    work.move(parcel_id, "restock" if before == "packed" else "release")
    work.shipment.parcels[parcel_id].reason = reason
    work.emit(out.ParcelCancelled, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id), revokes=work.listed(parcel_id))


def destroy(work: Work, parcel_id: str, reason: str) -> None:
    """Nobody will have the goods of this parcel, which is destroyed now."""
    parcel = work.shipment.parcels[parcel_id]
    work.disarm(*(f"{kind}:{parcel_id}" for kind in ("lost", "customs", "pickup", "quality", "inspection")))
    work.unasked(parcel_id)
    if parcel.aside is not None:
        parcel.aside.quarantine.clear()
        parcel.aside.inspections.clear()
    parcel.reason = reason
    work.emit(out.ParcelDestroyed, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id))


def cancellation(work: Work, incoming: Incoming) -> Stale | None:
    s, event = work.shipment, incoming.data
    if s.pending is not None:
        if event.lines is not None:
            s.pending = s.pending.without({l.line_no: l.quantity for l in event.lines})
        if event.lines is None or not s.pending.lines:
            fail(work, "cancelled")
        return None
    if not s.parcels:
        return Stale(f"shipment is {s.status}")
    if event.lines is None:
        for parcel_id in s.parcels:
            _cancel_whole(work, parcel_id, event)
        return None
    wanted = {line.line_no: line.quantity for line in event.lines}
    for parcel_id in sorted(s.parcels, key=lambda id_: s.parcels[id_].begun):  # first what nobody has begun
        mine = [(line.line_no, min(units, wanted[line.line_no])) for line, units in work.left(parcel_id)
                if units and wanted.get(line.line_no)]
        if mine and _cancel_lines(work, parcel_id, event, mine):
            for line_no, units in mine:
                wanted[line_no] -= units
    return None


def _cancel_whole(work: Work, parcel_id: str, event: CancellationRequested) -> None:
    parcel, cancellation_id = work.shipment.parcels[parcel_id], event.cancellation_id
    if parcel.begun and event.by == "buyer":
        _ask(work, parcel_id, cancellation_id)
    elif parcel.status in BEFORE_HANDOVER:
        cancel_parcel(work, parcel_id, "cancelled")
    elif not parcel.intercept and work.step(parcel, "InterceptRequested"):
        parcel.intercept = cancellation_id
        work.emit(out.InterceptRequested, parcel_id=parcel_id, cancellation_id=cancellation_id)
    else:
        decline(work, parcel_id, cancellation_id, f"the parcel is {parcel.status}")


def _cancel_lines(work: Work, parcel_id: str, event: CancellationRequested, lines: list[tuple[int, int]]) -> bool:
    parcel, cancellation_id = work.shipment.parcels[parcel_id], event.cancellation_id
    if parcel.status not in BEFORE_PACKING:
        decline(work, parcel_id, cancellation_id, f"the parcel is {parcel.status}")
        return False
    if parcel.begun and event.by == "buyer":
        _ask(work, parcel_id, cancellation_id, lines)
    else:
        take_out(work, parcel_id, cancellation_id, lines)
    return True


def _ask(work: Work, parcel_id: str, cancellation_id: str, lines: list[tuple[int, int]] | None = None) -> None:
    """The warehouse has begun: it says whether this can be undone (asking.py)."""
    parcel, timer = work.shipment.parcels[parcel_id], f"asked:{parcel_id}"
    if timer not in work.shipment.timers:
        work.arm(timer, "cancellation_answer")
    parcel.beside().asked[cancellation_id] = lines
    work.step(parcel, "CancellationAsked")
    work.emit(out.CancellationAsked, parcel_id=parcel_id, cancellation_id=cancellation_id, until=work.shipment.timers[timer],
              lines=lines and [LineUnits(line_no=line_no, quantity=units) for line_no, units in lines])


def take_out(work: Work, parcel_id: str, cancellation_id: str, lines: list[tuple[int, int]]) -> None:
    """These units leave the parcel, which is not packed yet; with the last of them it is cancelled."""
    parcel, taking = work.shipment.parcels[parcel_id], dict(lines)
    if all(units <= taking.get(line.line_no, 0) for line, units in work.left(parcel_id)):
        cancel_parcel(work, parcel_id, "cancelled")
        return
    taken, refund = work.cut(parcel_id, lines)
    work.step(parcel, "ParcelLinesCancelled")
    work.told_anew(parcel_id)
    work.move(parcel_id, "release", taken)
    work.emit(out.ParcelLinesCancelled, parcel_id=parcel_id, cancellation_id=cancellation_id, refund=refund,
              lines=line_units(taken))


def decline(work: Work, parcel_id: str, cancellation_id: str, reason: str) -> None:
    if work.step(work.shipment.parcels[parcel_id], "CancellationDeclined"):
        work.emit(out.CancellationDeclined, parcel_id=parcel_id, cancellation_id=cancellation_id, reason=reason)
