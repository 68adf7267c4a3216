"""What happens to goods the buyer has: sent back whole or by line, or paid back without coming home."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas import shipping_shipment as out
from schemas.orders_order import ASKED_DAYS, BACK_DAYS
from services.runtime.decision import Incoming, Stale
from services.shipping.reports import reported
from services.shipping.shipment import Line, Work, line_units


@reported("ReturnAuthorised")
def return_requested(work, event, parcel_id, parcel, before):
    papers = parcel.papers
    if papers is not None and papers.released is not None and work.now > papers.released + timedelta(days=_allowed(work)[0]):
        papers.asked_late.append(event.return_id)
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
    told = _to_customs(work, parcel_id, listed, report.return_id, taken) if listed else {}
    work.emit(out.ReturnReceived, parcel_id=parcel_id, return_id=report.return_id, lines=line_units(taken), refund=refund, **told)


def _to_customs(work: Work, parcel_id: str, listed: str, return_id: str, taken: list[tuple[Line, int]]) -> dict[str, Any]:
    """Into China: in time the goods are returned of their list; else it says why they are not."""
    papers, (_, back_days) = work.shipment.parcels[parcel_id].papers, _allowed(work)
    why = "no_rule" if not back_days else "asked_late" if return_id in papers.asked_late else ""
    if not why and work.now > papers.released + timedelta(days=back_days):
        why = "back_late"
    if why:
        return {"late": True, "why_late": why}
    papers.returning.append(return_id)
    left = {line.line_no: units for line, units in work.left(parcel_id)}
    worth = [line.amount * (left.get(line.line_no, 0) + here) // line.quantity for line, units in taken for here in (units, 0)]
    return {"returns_list": listed, "worth": sum(worth[::2]) - sum(worth[1::2])}  # so that all returns together are the whole


def _allowed(work: Work) -> tuple[int, int]:
    """Days after customs' release: to ask for the return, and for the goods to be back."""
    china = work.document.china
    return (china.asked_days, china.back_days) if china is not None else (ASKED_DAYS, BACK_DAYS)


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
