"""What the warehouse reports of a parcel that it was asked to pack: packed, too little on the shelf, rejected, held up."""

from __future__ import annotations

from typing import Any

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from services.runtime.decision import Impossible, Incoming, NotYet, Stale
from services.shipping import inspection, loggers, promise, undoing
from services.shipping.reports import reported
from services.shipping.shipment import Work, line_units
from services.shipping.storage import StockMove


def go_on(work: Work, parcel_id: str) -> None:
    """Its papers and its money are right: the warehouse is asked to pack it, as soon as the goods are there."""
    parcel = work.shipment.parcels[parcel_id]
    if parcel.awaits:
        parcel.aside.ready = True
    elif work.step(parcel, "FulfilmentRequested"):
        request(work, parcel_id)


def request(work: Work, parcel_id: str, replaces: str = "") -> None:
    """Ask the warehouse to pack it. `replaces`: the SSCC of the box that was spoiled."""
    sscc, waybill_no = work.label(parcel_id)
    lines = [out.ParcelLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=units, amount=l.amount * units // l.quantity)
             for l, units in work.left(parcel_id) if units]
    work.emit(out.FulfilmentRequested, parcel_id=parcel_id, warehouse=work.shipment.parcels[parcel_id].warehouse, destination=work.document.destination,
              regime=work.legs, lines=lines, sscc=sscc, waybill_no=waybill_no, replaces=replaces,
              cold=work.band(parcel_id),
              planned=promise.planned(work, parcel_id, "hand over"))


@reported("ParcelPacked")
def packed(work, report, parcel_id, parcel, before):
    work.move(parcel_id, "consume")
    if before == "on_hold":
        work.disarm(f"hold:{parcel_id}")
    if before == "in_progress" or parcel.aside is not None:
        parcel.beside().begun = before == "in_progress"
    if parcel.papers is not None:  # nothing of them changes any more
        parcel.papers.order = parcel.papers.payment = None
    if work.document.cold:
        loggers.watch(work, parcel_id)
    sscc, waybill_no = work.label(parcel_id)
    units = getattr(report, "units", ())  # a scan knows of none
    told = {"units": [out.PackedUnit.model_construct(**unit.__dict__) for unit in units]} if units else {}
    work.emit(out.ParcelPacked, parcel_id=parcel_id, warehouse=parcel.warehouse, destination=work.document.destination,
              regime=work.legs, sscc=sscc, waybill_no=waybill_no, planned=promise.planned(work, parcel_id, "hand over"),
              **told)
    if units or parcel.aside is not None:
        inspection.packed(work, parcel_id, units)


@reported("ParcelCancelled")
def rejected(work, report, parcel_id, parcel, before):
    undoing.cancel(work, parcel_id, before, "packing_rejected")


def started(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    parcel = work.shipment.parcels.get(incoming.data.parcel_id)
    if parcel is not None and parcel.status == "in_progress":
        return Stale("begun before")
    return _started(work, incoming)


@reported("PackingStarted")
def _started(work, report, parcel_id, parcel, before):
    work.disarm(f"hold:{parcel_id}")
    work.emit(out.PackingStarted, parcel_id=parcel_id)


@reported("PackingHeld")
def held(work, report, parcel_id, parcel, before):
    work.arm(f"hold:{parcel_id}", "packing_hold")
    work.emit(out.PackingHeld, parcel_id=parcel_id, reason=report.reason)


@reported("PackingResumed")
def resumed(work, report, parcel_id, parcel, before):
    work.disarm(f"hold:{parcel_id}")
    work.emit(out.PackingResumed, parcel_id=parcel_id)


# -- too little on the shelf --------------------------------------------------------------------------------------------


def short_picked(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """Units are not on the shelf. For those that were still the buyer's he gets his money back; those he had cancelled by then
    are free to sell in our books, and are taken out of them."""
    parcel = work.shipment.parcels.get(incoming.data.parcel_id)
    if parcel is None or parcel.status != "cancelled":
        return _short_picked(work, incoming)
    if not _write_off(work, incoming.data, {}):
        return Stale("ParcelShortPicked for a parcel that is cancelled")
    return None


@reported("ParcelShortPicked")
def _short_picked(work, report, parcel_id, parcel, before):
    taken, refund = work.cut(parcel_id, [(line.line_no, line.quantity) for line in report.lines])
    if not taken and not _lines_of(work, parcel_id) & {line.line_no for line in report.lines}:
        raise Impossible(Reason.UNKNOWN_LINE, "none of the lines is in the parcel")
    units_taken = {line.line_no: units for line, units in taken}
    if not taken:
        parcel.status = before  # nothing of the buyer's is missing
    else:
        # The units were counted on the shelf but are not there: neither reserved nor in stock any more.
        work.move(parcel_id, "shrink", taken)
        if any(units for _, units in work.left(parcel_id)):
            work.told_anew(parcel_id)
            work.emit(out.ParcelShortPicked, parcel_id=parcel_id, lines=line_units(taken), refund=refund)
        else:
            work.step(parcel, "ParcelCancelled")
            work.disarm(f"hold:{parcel_id}", f"papers:{parcel_id}")
            work.unasked(parcel_id)
            parcel.reason, parcel.undone = "short_pick", True
            work.emit(out.ParcelCancelled, parcel_id=parcel_id, reason="short_pick", refund=refund,
                      revokes=work.listed(parcel_id))
    if not _write_off(work, report, units_taken) and not taken:
        return Stale("the missing units are no longer the buyer's, and nobody counts on them")  # his cancellation was known
    return None


def _lines_of(work: Work, parcel_id: str) -> set[int]:
    """The lines that are, or before it was split may have been, in a parcel."""
    contents = [work.content(parcel_id)]
    aside = work.shipment.parcels[parcel_id].aside
    if aside is not None and aside.content is not None:
        contents += work.document.parcels.values()
    return {line.line_no for content in contents for line in content.lines}


def _write_off(work: Work, report: Any, taken: dict[int, int]) -> bool:
    """Take the missing units that the buyer had cancelled out of what is free to sell. Units that were sold to somebody else
    meanwhile are missing from his parcel, whose short pick will say so."""
    parcel, found = work.shipment.parcels[report.parcel_id], False
    for line in work.content(report.parcel_id).lines:
        missing = sum(told.quantity for told in report.lines if told.line_no == line.line_no) - taken.get(line.line_no, 0)
        short = parcel.aside.short.get(line.line_no, 0) if parcel.aside else 0
        if taken.get(line.line_no):
            short += taken[line.line_no]
            parcel.beside().short[line.line_no] = short
        gone = line.quantity if parcel.status == "cancelled" else parcel.cut.get(line.line_no, 0)
        free = dict(work.stock.available(line.sku)).get(parcel.warehouse, 0)
        if (units := min(missing, gone - short, free)) > 0:
            parcel.beside().short[line.line_no] = short + units
            work.moves += [StockMove(parcel.warehouse, line.sku, kind, units) for kind in ("reserve", "shrink")]
            work.emit(out.InventoryAdjusted, warehouse=parcel.warehouse, sku=line.sku, quantity=units)
            found = True
    return found
