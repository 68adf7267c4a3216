"""What carriers and customs report of a parcel, from hand-over to the door or back. For the warehouse see packing.py."""

from __future__ import annotations

from typing import Any

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from schemas.lifecycle import PARCEL, Answer
from schemas.shipping_report import ParcelReport
from schemas.terms import Assessment
from services.runtime.decision import Impossible, Incoming, NotYet, Stale
from services.shipping import promise
from services.shipping.shipment import Aside, Shipment, Work
from services.shipping.undoing import decline, destroy


def no_parcel(s: Shipment, parcel_id: str) -> NotYet:
    """The answer to a report of a parcel that the order does not have, or not yet. Raises Impossible."""
    if not s.parcels and not s.closed:
        return NotYet("ParcelsAllocated")
    raise Impossible(Reason.UNKNOWN_PARCEL, f"the order has {sorted(s.parcels)}, not {parcel_id!r}")


def reported(event: str):
    """A handler for a report that becomes `event` of its parcel, where the table allows it."""
    def decorate(act):
        def handle(work: Work, incoming: Incoming) -> NotYet | Stale | None:
            s, parcel_id = work.shipment, incoming.data.parcel_id
            parcel = s.parcels.get(parcel_id)
            if parcel is None:
                return no_parcel(s, parcel_id)
            if parcel.aside is not None and (answer := _aside(parcel.aside, incoming.data, event)) is not None:
                return answer
            answer, to = PARCEL[s.regime].answer(parcel.status, event)
            if answer is Answer.NOT_YET:
                return NotYet(f"a parcel state that allows {event}")
            if answer is Answer.STALE:
                return Stale(f"{event} for a parcel that is {parcel.status}")
            before, parcel.status = parcel.status, to
            if f"lost:{parcel_id}" in s.timers:
                work.arm(f"lost:{parcel_id}", "lost")  # a scan: it is not lost yet
            answer = act(work, incoming.data, parcel_id, parcel, before)
            if answer is None and (f"risk:{parcel_id}" in s.timers or parcel.aside is not None):
                promise.scanned(work, parcel_id, before)
            return answer
        return handle
    return decorate


# What a parcel in quarantine must not do before somebody has decided about it.
HELD_BACK = {"ParcelDelivered", "ParcelReturned", "ParcelCancelled"}
HELD_BY_INSPECTION = {"ParcelHandedOver", "ParcelCancelled"}  # the same of one whose goods somebody has to look at
OF_NO_BOX = {"ReturnReceived", "ClaimPaid", "InspectionHeld", "InspectionEnded"}  # told of what it is whichever box it is in


def _aside(aside: Aside, report: Any, event: str) -> NotYet | Stale | None:
    if aside.sscc and isinstance(report, ParcelReport) and event not in OF_NO_BOX and report.sscc != aside.sscc:
        return Stale("it tells of the box that was replaced")
    if aside.quarantine and event in HELD_BACK:
        return NotYet("a quality decision")
    if aside.inspections and event in HELD_BY_INSPECTION:
        return NotYet("an inspection's result")
    if aside.asked and event == "ParcelPacked" and any(aside.asked.values()):
        return NotYet("the warehouse's answer: what is to be in it")
    return None


def plain(event: str, model: type):
    @reported(event)
    def act(work, report, parcel_id, parcel, before):
        work.emit(model, parcel_id=parcel_id)
    return act


@reported("ParcelHandedOver")
def handed_over(work, report, parcel_id, parcel, before):
    work.arm(f"lost:{parcel_id}", "lost")
    promise.resume(work, parcel_id)
    work.emit(out.ParcelHandedOver, parcel_id=parcel_id, carrier=report.carrier, tracking_no=report.tracking_no,
              destination=work.document.destination, regime=work.legs, despite=list(work.shipment.stops),
              planned=promise.planned(work, parcel_id, *("go out", "deliver") if work.legs == "domestic" else
                                      ("export", "arrive")))
    if parcel.aside is not None and parcel.aside.asked:
        _ask_carrier(work, parcel_id, parcel)


def _ask_carrier(work, parcel_id: str, parcel) -> None:
    """It left before its warehouse had answered whether it can be cancelled."""
    for cancellation_id in list(parcel.aside.asked):
        if not parcel.intercept and work.step(parcel, "InterceptRequested"):
            parcel.intercept = cancellation_id
            work.emit(out.InterceptRequested, parcel_id=parcel_id, cancellation_id=cancellation_id)
        else:
            decline(work, parcel_id, cancellation_id, "the carrier is asked already")
    work.unasked(parcel_id)


@reported("ParcelArrived")
def arrived(work, report, parcel_id, parcel, before):
    work.emit(out.ParcelArrived, parcel_id=parcel_id, destination=work.document.destination)


@reported("CustomsPresented")
def presented(work, report, parcel_id, parcel, before):
    work.arm(f"customs:{parcel_id}", "customs")
    work.emit(out.CustomsPresented, parcel_id=parcel_id, destination=work.document.destination, declared=_declared(work, parcel_id))


def _declared(work: Work, parcel_id: str) -> Assessment | None:
    """The quoted tax of what is left in the parcel."""
    content = work.content(parcel_id)
    if not content.tax:
        return None
    goods = content.amount - content.freight
    left = sum(line.amount * units // line.quantity for line, units in work.left(parcel_id))
    return Assessment(amount=content.tax * left // goods, currency=work.document.currency)


@reported("CustomsHeld")
def customs_held(work, report, parcel_id, parcel, before):
    work.emit(out.CustomsHeld, parcel_id=parcel_id, reason=report.reason)
    promise.pause(work, parcel_id, promise.CUSTOMS_HOLD)


@reported("CustomsReleased")
def customs_released(work, report, parcel_id, parcel, before):
    work.disarm(f"customs:{parcel_id}")
    if parcel.papers is not None:
        parcel.papers.released = work.now
    promise.resume(work, parcel_id)
    work.emit(out.CustomsReleased, parcel_id=parcel_id, planned=promise.planned(work, parcel_id, "go out", "deliver"))
    assessed = getattr(report, "assessed", None)  # a carrier that scans the release knows of no bill
    if assessed is not None and work.step(parcel, "DutyAssessed"):
        work.emit(out.DutyAssessed, parcel_id=parcel_id, assessed=assessed)


@reported("CustomsRefused")
def customs_refused(work, report, parcel_id, parcel, before):
    refuse_at_customs(work, parcel_id, report.reason)


def refuse_at_customs(work: Work, parcel_id: str, reason: str) -> None:
    work.disarm(f"customs:{parcel_id}")
    work.shipment.parcels[parcel_id].reason = "customs_refused"
    work.emit(out.CustomsRefused, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id))


@reported("ParcelOutForDelivery")
def out_for_delivery(work, report, parcel_id, parcel, before):
    promise.resume(work, parcel_id)
    work.emit(out.ParcelOutForDelivery, parcel_id=parcel_id)


@reported("DeliveryFailed")
def delivery_failed(work, report, parcel_id, parcel, before):
    parcel.attempts += 1
    work.emit(out.DeliveryFailed, parcel_id=parcel_id, attempt=parcel.attempts, reason=report.reason)
    promise.pause(work, parcel_id, "buyer_absent")
    if parcel.attempts >= 3:
        work.step(parcel, "ParcelAtPickup")
        _wait_at_pickup(work, parcel_id)


@reported("ParcelAtPickup")
def at_pickup(work, report, parcel_id, parcel, before):
    _wait_at_pickup(work, parcel_id)


def _wait_at_pickup(work: Work, parcel_id: str) -> None:
    work.disarm(f"lost:{parcel_id}")
    work.arm(f"pickup:{parcel_id}", "pickup")
    work.emit(out.ParcelAtPickup, parcel_id=parcel_id)
    promise.pause(work, parcel_id, "buyer_absent")


@reported("ParcelDelivered")
def delivered(work, report, parcel_id, parcel, before):
    work.disarm(f"lost:{parcel_id}", f"pickup:{parcel_id}")
    if parcel.intercept:
        decline(work, parcel_id, parcel.intercept, "delivered before it could be stopped")
        parcel.intercept = ""
    work.emit(out.ParcelDelivered, parcel_id=parcel_id, **promise.delivered(work, parcel_id))


@reported("ParcelReturning")
def intercepted(work, report, parcel_id, parcel, before):
    parcel.intercept = ""
    send_back(work, parcel_id, "cancelled")


def send_back(work: Work, parcel_id: str, reason: str) -> None:
    work.disarm(f"customs:{parcel_id}", f"pickup:{parcel_id}")
    work.arm(f"lost:{parcel_id}", "lost")
    work.shipment.parcels[parcel_id].reason = reason
    work.emit(out.ParcelReturning, parcel_id=parcel_id, reason=reason)


def intercept_refused(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    parcel = work.shipment.parcels.get(incoming.data.parcel_id)
    if parcel is None or not parcel.intercept:
        return Stale("no intercept is open")
    decline(work, incoming.data.parcel_id, parcel.intercept, incoming.data.reason)
    parcel.intercept = ""
    return None


@reported("ParcelReturned")
def returned_to_sender(work, report, parcel_id, parcel, before):
    work.disarm(f"lost:{parcel_id}")
    refund = work.undo(parcel_id)
    work.move(parcel_id, "restock")
    work.emit(out.ParcelReturned, parcel_id=parcel_id, reason=parcel.reason, refund=refund)


@reported("ParcelDestroyed")
def destroyed(work, report, parcel_id, parcel, before):
    destroy(work, parcel_id, "destroyed")


@reported("ParcelLost")
def lost(work, report, parcel_id, parcel, before):
    lose(work, parcel_id, "reported_lost")


def lose(work: Work, parcel_id: str, reason: str) -> None:
    parcel = work.shipment.parcels[parcel_id]
    work.disarm(*(f"{kind}:{parcel_id}" for kind in ("lost", "customs", "pickup", "quality")))
    if parcel.aside is not None:
        parcel.aside.quarantine.clear()
    parcel.claim_open, parcel.reason = True, reason
    # The carrier owes the goods' worth even when the buyer has the money back already (refused, then lost on its way home).
    claim = sum(line.amount * units // line.quantity for line, units in work.left(parcel_id))
    work.emit(out.ParcelLost, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id), claim=claim)


@reported("ClaimPaid")
def claim_paid(work, report, parcel_id, parcel, before):
    if not parcel.claim_open:
        return Stale("the claim was paid before")
    parcel.claim_open = False
    work.emit(out.ClaimPaid, parcel_id=parcel_id, amount=report.amount)
