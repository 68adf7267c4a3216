"""What shipping decides. Pure. The legal transitions are in schemas/lifecycle.py; `allocation.py` splits an order.

Shipping alone knows where the goods are, so it answers every wish to undo. HANDLERS, at the end, says who handles what.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from schemas import shipping_shipment as out
from schemas.lifecycle import PARCEL
from schemas.numbers import COMPANY_PREFIX
from services.runtime.decision import LANES_CHANGED, MERCHANT_STATUS, STANDING, TIMER, Decision, Incoming, NotYet, Stale
from services.shipping import (after_delivery, asking, backorders, china, inspection, loggers, packing, papers, promise, quality, reports, rerouting,
                               reservation, scans, season, serials, splitting, stops, undoing)
from services.shipping.allocation import Document
from services.shipping.plans import Plans
from services.shipping.shipment import CHINESE, Shipment, Work

STATE = TypeAdapter(Shipment)
DOCUMENT = TypeAdapter(Document)


def decide(shipment: Shipment, document: Document | None, incoming: Incoming, stock: Any, now: datetime,
           prefix: str = COMPANY_PREFIX, plans: Plans | None = None, resends: int = 3) -> Decision | NotYet | Stale:
    """One event, report or timer against one order's goods. `stock` is the view of the locked stock rows, `prefix` what the
    parcels' SSCCs begin with, `plans` the network they travel on; without one nothing is promised. `resends`: how often papers into China may be corrected."""
    if incoming.type in MERCHANT_STATUS:
        return stops.merchant(shipment.draft(), incoming)
    if shipment.status == "new" and incoming.type not in FIRST:
        return NotYet("OrderPlaced")
    work = Work(shipment.draft(), document, stock, now, prefix, min(incoming.time, now), plans,
                rerouting.closed_lanes(incoming), resends)
    s = work.shipment
    if s.stops and s.parcels and stops.keeps(incoming):
        answer = stops.keep(work, incoming)
    else:
        answer = HANDLERS[incoming.type](work, incoming)
    if answer is not None:
        return answer
    if s.stops:
        stops.stand_still(s, shipment.timers, now)
    if s.parcels:
        ends = PARCEL[s.regime].terminal
        s.closed = all(p.status in ends and not p.claim_open and not p.returns and not p.quarantined for p in s.parcels.values())
        s.status = "closed" if s.closed else "open"
        if s.closed:
            s.timers.clear()
    return Decision(s, work.events, moves=work.moves, document=work.fresh_document, standing=work.standing)


def shared_keys(shipment: Shipment | None, document: Document | None, incoming: Incoming) -> list[str]:
    """The SKUs whose stock rows this event may need, and the units whose rows it may, to be locked before it is decided."""
    found = stock_keys(shipment, document, incoming)
    if found or incoming.type in ("SerialScanReported", "PackedReported"):
        return [*found, *units] if (units := serials.keys(shipment, incoming)) else found
    return found


def stock_keys(shipment: Shipment | None, document: Document | None, incoming: Incoming) -> list[str]:
    """The SKUs alone."""
    if incoming.type == "OrderPlaced":
        return [line.sku for line in incoming.data.lines]
    if incoming.type in ("InboundReceived", "HarvestAnnounced"):
        return [incoming.data.sku]
    touches = incoming.type in TOUCHES_STOCK or (
        incoming.type == "CarrierScanReported" and (scans.report_of(incoming.data) in TOUCHES_STOCK or china.ends(incoming.data))) or (
        shipment is not None and china.may_end(shipment, incoming.type))
    if not touches or shipment is None:
        return []
    if shipment.pending is not None:
        return [line.sku for line in shipment.pending.lines]
    if document is None:
        return []
    parcel_id = getattr(incoming.data, "parcel_id", None)
    if parcel_id is not None:
        content = shipment.content(parcel_id, document)
        return [line.sku for line in content.lines] if content else []
    if incoming.type == TIMER and not any(due <= incoming.time for name, due in shipment.timers.items()
                                          if name.partition(":")[0] in STOCK_TIMERS):
        return []
    return [line.sku for content in document.parcels.values() for line in content.lines]


# -- money ------------------------------------------------------------------------------------------------------------


def _authorised(work: Work, incoming: Incoming) -> Stale | NotYet | None:
    s = work.shipment
    if not s.parcels:
        return NotYet("ParcelsAllocated")
    work.disarm("reservation")
    if lines := papers.lacking(work):
        papers.wait(work, lines)
    else:
        papers.ready(work)
    return None


def _held(work: Work, incoming: Incoming) -> NotYet | None:
    s = work.shipment
    if not s.parcels:
        return NotYet("ParcelsAllocated")
    work.disarm("reservation")
    for part in incoming.data.parcels:
        if s.regime in CHINESE:
            china.paid(work, part.parcel_id, incoming.data.document)
        else:
            packing.go_on(work, part.parcel_id)
    return None


def _not_paid(work: Work, incoming: Incoming) -> NotYet | None:
    if not work.shipment.parcels:
        return NotYet("ParcelsAllocated")
    reason = "payment_declined" if incoming.type == "PaymentDeclined" else "authorisation_expired"
    for part in incoming.data.parcels:
        undoing.cancel_parcel(work, part.parcel_id, reason)
    return None


# -- time -------------------------------------------------------------------------------------------------------------


def _timer(work: Work, incoming: Incoming) -> None:
    s = work.shipment
    for name in sorted(n for n, due in s.running().items() if due <= work.now):
        if name not in s.timers:
            continue  # an earlier one of this round ended the wait
        del s.timers[name]
        kind, _, parcel_id = name.partition(":")
        if kind == "backorder":
            reservation.fail(work, "no_stock")
        elif kind == "retry" and s.pending is not None:
            reservation.try_to_allocate(work, first=False)
            backorders.tell(work)
        elif kind == "reservation":
            for each in s.parcels:
                undoing.cancel_parcel(work, each, "reservation_expired")
        elif kind == "risk":
            promise.overdue(work, parcel_id)
        elif kind == "hold" and work.step(s.parcels[parcel_id], "ParcelCancelled"):
            undoing.cancel(work, parcel_id, "on_hold", "hold_expired")
        elif kind == "stock":
            backorders.try_again(work, parcel_id)
        elif kind == "stock_ends":
            backorders.expired(work, parcel_id)
        elif kind == "asked":
            asking.overdue(work, parcel_id)
        elif kind == "opens":
            season.opens(work)
        elif kind == "closes":
            season.closes(work)
        elif kind == "papers":
            china.overdue(work, parcel_id)
        elif kind == "quality":
            quality.overdue(work, parcel_id)
        elif kind == "logger":
            loggers.silent(work, parcel_id)
        elif kind == "inspection":
            inspection.overdue(work, parcel_id)
        elif kind == "customs" and work.step(s.parcels[parcel_id], "CustomsRefused"):
            reports.refuse_at_customs(work, parcel_id, "no decision by the deadline")
        elif kind == "pickup" and work.step(s.parcels[parcel_id], "ParcelReturning"):
            reports.send_back(work, parcel_id, "not_collected")
        elif kind == "lost" and work.step(s.parcels[parcel_id], "ParcelLost"):
            reports.lose(work, parcel_id, "no_scan")


FIRST = {"OrderPlaced", "InboundReceived", "HarvestAnnounced", "CloseLane", "OpenLane", STANDING}  # what may begin a subject
STOCK_TIMERS = {"reservation", "hold", "papers", "opens", "closes", "stock", "asked"}
TOUCHES_STOCK = {"SplitReported",  # which needs a number for its parcel
                 "RecordQualityDecision", "PaymentDeclined", "PaymentExpired", "CancellationRequested", "PackedReported", "ShortPickReported",
                 "PackingRejected", "CancellationAccepted", "ReturnedToSenderReported", "ReturnReceivedReported", TIMER}

def _again(work: Work, incoming: Incoming) -> None:
    """What was kept while the goods stood still."""
    HANDLERS[incoming.type](work, incoming)


REPORTS = {
    "PackedReported": packing.packed, "ShortPickReported": packing.short_picked, "SplitReported": splitting.reported, "PackingRejected": packing.rejected,
    "PackingHeldReported": packing.held, "PackingResumedReported": packing.resumed,
    "PackingStartedReported": packing.started, "CancellationAccepted": asking.accepted, "CancellationRefused": asking.refused,
    "HandedOverReported": reports.handed_over, "ExportedReported": reports.plain("ParcelExported", out.ParcelExported),
    "ArrivedReported": reports.arrived, "PresentedReported": reports.presented, "CustomsHoldReported": reports.customs_held,
    "CustomsReleaseReported": reports.customs_released, "CustomsRefusalReported": reports.customs_refused,
    "OutForDeliveryReported": reports.out_for_delivery,
    "DeliveryFailureReported": reports.delivery_failed, "AtPickupReported": reports.at_pickup,
    "DeliveredReported": reports.delivered,
    "InterceptAccepted": reports.intercepted, "InterceptRefused": reports.intercept_refused,
    "ReturnedToSenderReported": reports.returned_to_sender, "LossReported": reports.lost,
    "DestroyedReported": reports.destroyed, "ClaimPaidReported": reports.claim_paid,
    "ListWithdrawalReported": china.withdrawn, "ReturnReceivedReported": after_delivery.return_received,
    "SerialScanReported": inspection.scanned, "OpenInspection": inspection.opened, "RecordInspection": inspection.ended,
    "ExcursionReported": quality.found, "LoggerHeard": loggers.heard, "RecordQualityDecision": quality.decided,
}

HANDLERS = {
    **dict.fromkeys(MERCHANT_STATUS), STANDING: partial(stops.stands, decide=_again),
    "OrderHeld": stops.held, "OrderResumed": partial(stops.resumed, decide=_again),
    "CloseLane": rerouting.close, "OpenLane": rerouting.reopen, LANES_CHANGED: rerouting.changed,
    "OrderPlaced": partial(reservation.placed, presell=season.presell, backordered=backorders.tell), "InboundReceived": reservation.inbound,
    "HarvestAnnounced": season.announced,
    "PaymentAuthorised": _authorised, "PaymentHeld": _held, "PaymentDeclined": _not_paid, "PaymentExpired": _not_paid,
    "ComplaintFiled": inspection.complained,
    "CancellationRequested": undoing.cancellation, "DocumentsSupplied": papers.supplied,
    **dict.fromkeys(("OrderDocumented", "PaymentDocumentAmended"), china.documented),
    **REPORTS, "CarrierScanReported": scans.scanned(REPORTS),
    "ReturnRequested": after_delivery.return_requested,
    "ReturnExpired": after_delivery.return_expired, "RefundGranted": after_delivery.grant,
    TIMER: _timer,
}
