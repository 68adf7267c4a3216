"""Goods that somebody has to look at before they leave: at random, for a risk (a serial number that was seen elsewhere), or
because their brand complains. What is in doubt is not handed over, and goes back to no shelf.

The warehouse is told to keep the parcel; should the carrier have it all the same, the scan waits for the result."""

from __future__ import annotations

from typing import Any

from schemas import shipping_shipment as out
from schemas.lifecycle import BEFORE_PACKING
from services.runtime.decision import Incoming, NotYet, Stale
from services.shipping import promise, serials
from services.shipping.reports import no_parcel, reported
from services.shipping.shipment import Work
from services.shipping.undoing import destroy

INSPECTION = "inspection"


def opened(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """Somebody wants it looked at: at once, or as soon as it is packed."""
    report = incoming.data
    parcel = work.shipment.parcels.get(report.parcel_id)
    if parcel is None:
        return no_parcel(work.shipment, report.parcel_id)
    if parcel.status in BEFORE_PACKING:
        return _wanted(parcel, report.inspection_id, report.reason, report.detail)
    return _opened(work, incoming)


@reported("InspectionHeld")
def _opened(work, report, parcel_id, parcel, before):
    return begin(work, parcel_id, report.inspection_id, report.reason, report.detail)


def complained(work: Work, incoming: Incoming) -> Stale | None:
    """A brand complains: whatever of the order has not left is looked at."""
    event = incoming.data
    if event.by != "brand" or not work.shipment.parcels:
        return Stale("nothing is held for it")
    answers = []
    for parcel_id, parcel in work.shipment.parcels.items():
        if event.parcel_id in (None, parcel_id):
            id_ = f"{event.complaint_id}/{parcel_id}"
            if parcel.status in BEFORE_PACKING:
                answers.append(_wanted(parcel, id_, "brand_complaint", event.detail))
            elif parcel.status == "packed":
                answers.append(begin(work, parcel_id, id_, "brand_complaint", event.detail))
    return None if None in answers else Stale("nothing of it is still here")


def _wanted(parcel: Any, id_: str, reason: str, detail: str) -> Stale | None:
    aside = parcel.beside()
    if any(wish[0] == id_ for wish in aside.wanted):
        return Stale("known before")
    aside.wanted.append([id_, reason, detail])
    return None


def packed(work: Work, parcel_id: str, units: Any) -> None:
    """After packing: what is known of its units, and what was wanted before."""
    if units and serials.packed(work, parcel_id, units):
        begin(work, parcel_id, f"alert/{parcel_id}", "risk", "a serial number was seen elsewhere")
    aside = work.shipment.parcels[parcel_id].aside
    for id_, reason, detail in (aside.wanted if aside is not None else ()):
        begin(work, parcel_id, id_, reason, detail)


def scanned(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    answer = serials.scanned(work, incoming)
    if not isinstance(answer, bool):
        return answer
    parcel_id = incoming.data.parcel_id
    if answer and work.shipment.parcels[parcel_id].status == "packed":
        begin(work, parcel_id, f"alert/{parcel_id}", "risk", "a serial number was seen elsewhere")
    return None


def begin(work: Work, parcel_id: str, id_: str, reason: str, detail: str) -> Stale | None:
    parcel = work.shipment.parcels[parcel_id]
    aside = parcel.beside()
    if id_ in aside.inspections or id_ in aside.inspected:
        return Stale("the inspection is known")
    work.step(parcel, "InspectionHeld")
    work.emit(out.InspectionHeld, parcel_id=parcel_id, inspection_id=id_, reason=reason, detail=detail)
    if not aside.inspections:
        work.step(parcel, "ParcelStopped")
        work.emit(out.ParcelStopped, parcel_id=parcel_id, reason=INSPECTION)
        work.arm(f"{INSPECTION}:{parcel_id}", INSPECTION)
        promise.pause(work, parcel_id, INSPECTION, out.PromiseHeld)
    aside.inspections.append(id_)
    return None


@reported("InspectionEnded")
def ended(work, report, parcel_id, parcel, before):
    aside = parcel.aside
    if aside is None or report.inspection_id not in aside.inspections:
        return Stale("no such inspection waits for a result")
    work.emit(out.InspectionEnded, parcel_id=parcel_id, inspection_id=report.inspection_id, result=report.result,
              decided_by=report.decided_by, detail=report.detail)
    if report.result == "counterfeit":
        _undo(work, parcel_id, "counterfeit")
        return None
    aside.inspections.remove(report.inspection_id)
    aside.inspected.append(report.inspection_id)
    if not aside.inspections:
        work.disarm(f"{INSPECTION}:{parcel_id}")
        work.step(parcel, "ParcelCleared")
        work.emit(out.ParcelCleared, parcel_id=parcel_id, reason=INSPECTION)
        promise.resume(work, parcel_id)
    return None


def overdue(work: Work, parcel_id: str) -> None:
    """Nobody looked: nobody shall have it."""
    parcel = work.shipment.parcels[parcel_id]
    if parcel.aside is not None and parcel.aside.inspections:
        work.step(parcel, "InspectionEnded")
        work.emit(out.InspectionEnded, parcel_id=parcel_id, inspection_id=parcel.aside.inspections[0], result="undecided",
                  decided_by="deadline", detail="no result by the deadline")
        _undo(work, parcel_id, "not_inspected")


def _undo(work: Work, parcel_id: str, reason: str) -> None:
    work.step(work.shipment.parcels[parcel_id], "ParcelDestroyed")
    destroy(work, parcel_id, reason)
