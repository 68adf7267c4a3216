"""The papers of a parcel into China, from the captured payment to an accepted import list: matched (matching.py), declared,
corrected and sent again so many times, else paid back. Nothing is packed before customs has the list. Pure.

A document that tells of goods which have left the parcel meanwhile is not wrong but old: its service tells it anew, and the
match waits for that. One timer, `papers:<parcel>`, ends every wait."""

from __future__ import annotations

from typing import Any

from schemas import shipping_shipment as out
from schemas.carrier_codes import names_a_list
from schemas.china_papers import PaymentDocument
from schemas.lifecycle import BEFORE_PACKING
from services.runtime.decision import STANDING, Incoming, NotYet, Stale
from services.shipping import packing, promise
from services.shipping.matching import differences, import_list
from services.shipping.shipment import CHINESE, Papers, Parcel, Shipment, Work
from services.shipping.undoing import cancel_parcel

WRONG = ("allocated", "correcting", "amending")
DECLARED = ("declared", "redeclared")
RELEASING = ("listed", "relisted")  # mode 1210: customs has the list, and the goods
REFUSED = {"4", "100"}                                             # may be corrected, or sent again
FINAL = {"-621005": "over_limit", "-621018": "over_limit", "700": "list_refused"}
SENDING_FAILED = "4"
HELD = {"500", "501", "502", "503", "599"}
ON_ITS_WAY = {"1", "2", "3", "4", "120"}  # what tells of the list alone, not of the parcel at the border


def paid(work: Work, parcel_id: str, document: PaymentDocument | None) -> None:
    """The money of the parcel is held."""
    parcel = work.shipment.parcels[parcel_id]
    if parcel.status not in WRONG:
        return
    if parcel.awaits:  # nothing is declared that is not there
        parcel.aside.ready = True
        if document is not None:
            _papers(parcel).payment = document
        return
    if document is None or work.document.china is None:  # placed before papers were matched: as it was then
        work.step(parcel, "DocumentsMatched")
        work.emit(out.DocumentsMatched, parcel_id=parcel_id)
        _accept(work, parcel_id, parcel, "")
        return
    _papers(parcel).payment = document
    work.arm(f"papers:{parcel_id}", "papers")
    match(work, parcel_id)


def documented(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """OrderDocumented, or PaymentDocumentAmended."""
    parcel_id = incoming.data.parcel_id
    parcel = work.shipment.parcels.get(parcel_id)
    if parcel is None:
        return NotYet("ParcelsAllocated")
    if parcel.status not in BEFORE_PACKING:
        return Stale(f"{incoming.type} for a parcel that is {parcel.status}")
    name = "order" if incoming.type == "OrderDocumented" else "payment"
    setattr(_papers(parcel), name, incoming.data.document)
    match(work, parcel_id)
    return None


def match(work: Work, parcel_id: str) -> None:
    """Declare the list when the papers agree; name the fields when they do not; wait while one is missing or old."""
    parcel = work.shipment.parcels[parcel_id]
    papers = _papers(parcel)
    if parcel.status not in WRONG or parcel.awaits or papers.payment is None or papers.order is None:
        return
    if _old(work, parcel_id, parcel, papers):
        return
    found = differences(papers.order, papers.payment, parcel_id, work.document.china.consignee)
    if not found:
        _declare(work, parcel_id, parcel, papers)
        return
    papers.wrong += 1
    work.step(parcel, "DocumentsMismatched")
    work.emit(out.DocumentsMismatched, parcel_id=parcel_id, attempt=papers.wrong, differences=found,
              until=work.shipment.timers[f"papers:{parcel_id}"])
    _correct(work, parcel_id, papers, "documents_mismatch")


def _old(work: Work, parcel_id: str, parcel: Parcel, papers: Papers) -> bool:
    """Whether a document still tells of goods that have left the parcel."""
    told = {line.line_no: line.quantity for line in papers.order.lines}
    return told != {line.line_no: units for line, units in work.left(parcel_id) if units} or (
        bool(parcel.cut) and papers.payment.amount > work.value(parcel_id))


def _declare(work: Work, parcel_id: str, parcel: Parcel, papers: Papers) -> None:
    replaces = number(parcel_id, papers) if papers.lists else ""
    papers.lists += 1
    papers.listed = number(parcel_id, papers)
    work.step(parcel, "DocumentsMatched")
    work.emit(out.DocumentsMatched, parcel_id=parcel_id, import_list=import_list(
        papers.order, work.label(parcel_id)[1], number(parcel_id, papers), replaces, _voyage(work, parcel_id),
        work.document.china))
    promise.resume(work, parcel_id)


def _voyage(work: Work, parcel_id: str) -> str:
    """The lane over the border and its day, by the plan."""
    route = promise.route_of(work, parcel_id)
    if route is None or route.border < 0:
        return ""
    leg = route.legs[route.border]
    return f"{leg.lane} {leg.departs:%Y-%m-%d}"


def number(parcel_id: str, papers: Papers) -> str:
    """Of the list that was declared last."""
    return f"{parcel_id}.L{papers.lists}"


def _correct(work: Work, parcel_id: str, papers: Papers, reason: str) -> None:
    """Wait for better papers, or for nothing more."""
    if papers.wrong > work.resends:
        cancel_parcel(work, parcel_id, reason)
    else:
        promise.pause(work, parcel_id, "documents_missing")


# -- what customs says of the list ----------------------------------------------------------------------------------------


def about_the_list(scan: Any, parcel: Parcel) -> bool:
    """Whether a receipt tells of the list it names, and not of the parcel at the border."""
    papers = parcel.papers
    return (parcel.status in (*DECLARED, *RELEASING) or scan.code in ON_ITS_WAY or papers is None
            or scan.tracking_no != number(scan.parcel_id, papers))


def receipt(work: Work, scan: Any, parcel: Parcel) -> NotYet | Stale | None:
    """A receipt (CEB622) about a list."""
    papers, parcel_id = parcel.papers, scan.parcel_id
    if papers is None or scan.tracking_no != number(parcel_id, papers):
        return Stale("a receipt of a list that is not this parcel's, or not any more")
    if parcel.status in RELEASING:
        return _in_bond(work, scan, parcel, papers)
    if parcel.status not in DECLARED:
        return Stale(f"status {scan.code} of a list, for a parcel that is {parcel.status}")
    if scan.code == "120":
        _accept(work, parcel_id, parcel, scan.tracking_no)
    elif scan.code in REFUSED or scan.code in FINAL:
        _reject(work, scan, parcel, papers)
    elif scan.code == "800" or scan.code in HELD and work.shipment.regime == "bonded":
        return NotYet("ListAccepted")
    else:
        return Stale(f"status {scan.code} decides nothing about a list")
    return None


def ends(scan: Any) -> bool:
    """Whether a receipt may end a parcel that is not packed yet, whose stock is free again then."""
    return names_a_list(scan) and (scan.code in FINAL or scan.code in REFUSED)


def may_end(shipment: Shipment, event: str) -> bool:
    """Whether this event may: papers that are wrong once more, or what was kept while the order stood still."""
    if shipment.regime not in CHINESE:
        return False
    if event in ("OrderDocumented", "PaymentDocumentAmended"):
        return any(parcel.papers is not None and parcel.papers.wrong for parcel in shipment.parcels.values())
    return bool(shipment.kept) and event in ("OrderResumed", STANDING)


def _in_bond(work: Work, scan: Any, parcel: Parcel, papers: Papers) -> Stale | None:
    """Mode 1210: what customs does with the goods, which lie in the bonded warehouse."""
    parcel_id, told = scan.parcel_id, {"parcel_id": scan.parcel_id, "list_no": scan.tracking_no}
    if scan.code == "800":
        papers.released = work.now
        work.step(parcel, "ListReleased")
        promise.resume(work, parcel_id)
        work.emit(out.ListReleased, **told)
        _go_on(work, parcel_id, parcel)
    elif scan.code in HELD:
        work.step(parcel, "ListHeld")
        work.emit(out.ListHeld, **told, status=scan.code, reason=scan.reason)
        promise.pause(work, parcel_id, promise.CUSTOMS_HOLD)
    elif scan.code == "100" or scan.code in FINAL:
        _reject(work, scan, parcel, papers)
    else:
        return Stale(f"status {scan.code} of a list, for a parcel that is {parcel.status}")
    return None


def _accept(work: Work, parcel_id: str, parcel: Parcel, list_no: str) -> None:
    work.step(parcel, "ListAccepted")
    work.emit(out.ListAccepted, parcel_id=parcel_id, list_no=list_no)
    if parcel.status not in RELEASING:
        _go_on(work, parcel_id, parcel)


def _go_on(work: Work, parcel_id: str, parcel: Parcel) -> None:
    """It may be packed."""
    work.disarm(f"papers:{parcel_id}")
    if work.step(parcel, "FulfilmentRequested"):  # else the warehouse was asked before, and the list is an amended one
        packing.request(work, parcel_id)


def _reject(work: Work, scan: Any, parcel: Parcel, papers: Papers) -> None:
    parcel_id = scan.parcel_id
    papers.wrong += 1
    papers.listed = ""
    work.step(parcel, "ListRejected")
    work.emit(out.ListRejected, parcel_id=parcel_id, list_no=scan.tracking_no, status=scan.code, attempt=papers.wrong,
              reason=scan.reason)
    if scan.code in FINAL:
        cancel_parcel(work, parcel_id, FINAL[scan.code])
    elif scan.code == SENDING_FAILED and papers.wrong <= work.resends:
        match(work, parcel_id)
    else:
        _correct(work, parcel_id, papers, "list_rejected")


def withdrawn(work: Work, incoming: Incoming) -> Stale | None:
    """Customs' answer to the revocation of a list, or to a return of its goods."""
    answer = incoming.data
    parcel = work.shipment.parcels.get(answer.parcel_id)
    revoked = answer.form == "CEB624"
    if parcel is None or not (listed := work.listed(answer.parcel_id)) or answer.list_no != listed or (
            parcel.status != "cancelled" if revoked else answer.return_id not in parcel.papers.returning):
        return Stale("of no list that was to be withdrawn, or answered before")
    if revoked:
        parcel.papers.listed = ""
    else:
        parcel.papers.returning.remove(answer.return_id)
    work.step(parcel, "ListWithdrawn")
    work.emit(out.ListWithdrawn, parcel_id=answer.parcel_id, list_no=answer.list_no, form=answer.form, accepted=answer.accepted,
              return_id=answer.return_id, reason=answer.reason)
    return None


def overdue(work: Work, parcel_id: str) -> None:
    """Nobody corrected the papers, or customs never answered."""
    cancel_parcel(work, parcel_id, "papers_expired")


def _papers(parcel: Parcel) -> Papers:
    aside = parcel.beside()
    if aside.papers is None:
        aside.papers = Papers()
    return aside.papers
