"""What happens to goods the buyer has: sent back whole or by line, or paid back without coming home."""

from __future__ import annotations

from datetime import timedelta

from schemas import shipping_shipment as out
from schemas.lifecycle import deadlines
from services.runtime.decision import Incoming, Stale
from services.shipping.reports import reported
from services.shipping.shipment import Work, line_units


@reported("ReturnAuthorised")
def return_requested(work, event, parcel_id, parcel, before):
    parcel.returns[event.return_id] = [[l.line_no, l.quantity] for l in event.lines] if event.lines is not None else None
    work.emit(out.ReturnAuthorised, parcel_id=parcel_id, return_id=event.return_id)


@reported("ReturnReceived")
def return_received(work, report, parcel_id, parcel, before):
    if report.return_id not in parcel.returns:
        return Stale("no such return is open")
    wanted = parcel.returns.pop(report.return_id)
    if wanted is None:
        taken = [(line, units) for line, units in work.left(parcel_id) if units]
        refund = work.undo(parcel_id)
        parcel.cut.update({line.line_no: line.quantity for line, _ in taken})
    else:
        taken, refund = work.cut(parcel_id, wanted)
    work.move(parcel_id, "restock", taken)
    listed = work.listed(parcel_id)
    late = bool(listed) and work.now > parcel.papers.released + timedelta(seconds=deadlines()["customs_return"])
    if listed and not late:
        parcel.papers.returning.append(report.return_id)
    work.emit(out.ReturnReceived, parcel_id=parcel_id, return_id=report.return_id, lines=line_units(taken), refund=refund,
              returns_list="" if late else listed, late=late)


def return_expired(work: Work, incoming: Incoming) -> Stale | None:
    parcel = work.shipment.parcels[incoming.data.parcel_id]
    if incoming.data.return_id not in parcel.returns:
        return Stale("the goods came after all")
    del parcel.returns[incoming.data.return_id]
    return None


@reported("GrantPriced")
def grant(work, event, parcel_id, parcel, before):
    value = work.value(parcel_id)
    if event.amount is not None:
        refund = min(event.amount, value)
    elif event.lines is not None:
        lines = {line.line_no: line for line in work.content(parcel_id).lines}
        refund = min(value, sum(lines[l.line_no].amount * l.quantity // lines[l.line_no].quantity
                                for l in event.lines if l.line_no in lines))
    else:
        refund = value
    parcel.granted += refund  # the goods stay with the buyer; only what they still cost goes down
    work.emit(out.GrantPriced, parcel_id=parcel_id, grant_id=event.grant_id, refund=refund)
