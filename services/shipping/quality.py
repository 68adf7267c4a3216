"""Cold goods that were too warm or too cold for too long: set aside, looked at by a person, and sent on, sent again or paid back.

Excursions come from our own view of the sensors' topic, as reports like any other: whoever finds one twice says the same
twice. What is in quarantine travels on, but is neither given out nor put back on a shelf before somebody has decided."""

from __future__ import annotations

from collections import Counter

from schemas import shipping_shipment as out
from services.runtime.decision import Incoming, NotYet, Stale
from services.shipping.loggers import set_aside
from services.shipping.packing import request
from services.shipping.reports import reported
from services.shipping.shipment import CHINESE, Work
from services.shipping.undoing import destroy

DEADLINE = "deadline"


@reported("ParcelQuarantined")
def found(work, report, parcel_id, parcel, before):
    aside = parcel.beside()
    if report.excursion_id in aside.quarantine or report.excursion_id in aside.judged:
        return Stale("the excursion is known")
    set_aside(work, parcel_id, report.excursion_id)
    work.emit(out.ParcelQuarantined, parcel_id=parcel_id, excursion_id=report.excursion_id, began=report.began,
              until=report.until, minutes=report.minutes, worst_tenths=report.worst_tenths)
    return None


def decided(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    report = incoming.data
    parcel = work.shipment.parcels.get(report.parcel_id)
    if parcel is None or not parcel.quarantined or report.excursion_id not in parcel.aside.quarantine:
        return Stale("no such excursion waits for a decision")
    if report.decision == "release":
        _release(work, report)
    elif report.decision == "reship" and _can_be_replaced(work, report.parcel_id):
        _replace(work, report)
    else:
        _pay_back(work, report.parcel_id, report.excursion_id, report.decided_by, report.reason)
    return None


def overdue(work: Work, parcel_id: str) -> None:
    """Nobody decided: nobody shall eat it."""
    parcel = work.shipment.parcels[parcel_id]
    if parcel.quarantined:
        _pay_back(work, parcel_id, parcel.aside.quarantine[0], DEADLINE, "no decision by the deadline")


def _release(work: Work, report) -> None:
    aside = work.shipment.parcels[report.parcel_id].aside
    aside.quarantine.remove(report.excursion_id)
    aside.judged.append(report.excursion_id)
    if not aside.quarantine:
        work.disarm(f"quality:{report.parcel_id}")
    work.emit(out.QualityReleased, parcel_id=report.parcel_id, excursion_id=report.excursion_id, decided_by=report.decided_by,
              reason=report.reason)


def _can_be_replaced(work: Work, parcel_id: str) -> bool:
    """It is on its way to a buyer who still wants it, nothing of its merchant is stopped, its warehouse has the goods, and
    customs takes a second box.

    Into China one sub-order is one waybill and one list: there it is paid back."""
    s, parcel = work.shipment, work.shipment.parcels[parcel_id]
    if s.stops or s.regime in CHINESE or parcel.intercept or parcel.aside.asked or parcel.aside.inspections or parcel.status in (
            "returning", "delivered"):
        return False
    wanted: Counter[str] = Counter()
    for line, units in work.left(parcel_id):
        wanted[line.sku] += units
    return all(dict(work.stock.available(sku)).get(parcel.warehouse, 0) >= units for sku, units in wanted.items())


def _replace(work: Work, report) -> None:
    """The same goods in another box; the money stays where it is."""
    parcel_id = report.parcel_id
    parcel, (old, _) = work.shipment.parcels[parcel_id], work.label(parcel_id)
    aside = parcel.aside
    work.step(parcel, "ParcelReplaced")
    work.disarm(*(f"{kind}:{parcel_id}" for kind in ("lost", "customs", "pickup", "quality")))
    for line, units in work.left(parcel_id):
        aside.spoiled[line.line_no] = aside.spoiled.get(line.line_no, 0) + units
    work.move(parcel_id, "reserve")
    aside.judged += aside.quarantine
    aside.quarantine.clear()
    aside.attempt_at, parcel.attempts = None, 0
    aside.sscc, aside.waybill_no = work.numbers(work.document.origin)
    work.emit(out.ParcelReplaced, parcel_id=parcel_id, excursion_id=report.excursion_id, decided_by=report.decided_by,
              sscc=aside.sscc, waybill_no=aside.waybill_no, replaces=old, reason=report.reason)
    work.step(parcel, "FulfilmentRequested")
    request(work, parcel_id, replaces=old)


def _pay_back(work: Work, parcel_id: str, excursion_id: str, decided_by: str, reason: str) -> None:
    parcel = work.shipment.parcels[parcel_id]
    parcel.aside.judged += parcel.aside.quarantine
    if parcel.status == "delivered":
        parcel.aside.quarantine.clear()
        work.disarm(f"quality:{parcel_id}")
        work.emit(out.QualityRefunded, parcel_id=parcel_id, excursion_id=excursion_id, decided_by=decided_by,
                  refund=work.undo(parcel_id), reason=reason)
    elif work.step(parcel, "ParcelDestroyed"):
        destroy(work, parcel_id, "spoiled")
