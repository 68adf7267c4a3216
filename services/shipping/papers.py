"""Customs papers that lack something: named, waited for until the money's authorisation ends, supplied by the merchant. Pure."""

from __future__ import annotations

from datetime import timedelta

from schemas import shipping_shipment as out
from schemas.lifecycle import deadlines
from services.runtime.decision import Incoming, Stale
from services.shipping import promise
from services.shipping.shipment import Work

NO_SUCH_CHAPTER = "00"  # of the Harmonised System


def wrong(hs_code: str | None, digits: int) -> bool:
    """Whether customs takes no such code. One that is not given at all is found by whoever declares."""
    return hs_code is not None and (hs_code.startswith(NO_SUCH_CHAPTER) or len(hs_code) < digits)


def lacking(work: Work) -> list[int]:
    """The lines whose code customs does not take, and that the merchant has not corrected."""
    s = work.shipment
    if s.regime == "domestic" or not work.document.papers_missing:
        return []
    bad = {line.line_no for content in work.document.parcels.values() for line in content.lines
           if wrong(line.hs_code, work.document.hs_digits)}
    return sorted(bad.difference(s.supplied))


def _what(work: Work, line_no: int) -> str:
    document = work.document
    code = next(line.hs_code for content in document.parcels.values() for line in content.lines if line.line_no == line_no)
    if code.startswith(NO_SUCH_CHAPTER):
        return "hs_code: no such chapter"
    return f"hs_code: {document.declaration} asks for {document.hs_digits} digits, not {len(code)}"


def wait(work: Work, lines: list[int]) -> None:
    """The money waits for the papers, until its authorisation ends. Told once, and not of what is cancelled by then."""
    s = work.shipment
    if s.waits_for_papers or all(parcel.status == "cancelled" for parcel in s.parcels.values()):
        return
    s.waits_for_papers = True
    for parcel_id in s.parcels:
        promise.pause(work, parcel_id, "documents_missing")
    work.emit(out.DocumentsMissing, missing=[out.MissingDocument(line_no=n, what=_what(work, n)) for n in lines],
              until=work.now + timedelta(seconds=deadlines()["authorisation"]))


def ready(work: Work) -> None:
    s = work.shipment
    found = [k for k, p in s.parcels.items() if p.status == "allocated" and work.step(p, "DocumentsReady")]
    if found:
        work.emit(out.DocumentsReady, parcel_ids=found)
    if s.waits_for_papers:
        s.waits_for_papers = False
        for parcel_id in found:
            promise.resume(work, parcel_id)


def supplied(work: Work, incoming: Incoming) -> Stale | None:
    """Also before there are parcels: a cancellation may stand behind it, and must not wait for stock."""
    s, lines = work.shipment, {line.line_no for line in incoming.data.lines}
    if s.closed:
        return Stale("nothing is sent any more")
    useful = lines.intersection(lacking(work)) if s.parcels else lines
    if not useful:
        return Stale("nothing of it was missing")
    s.supplied = sorted({*s.supplied, *useful})
    if s.waits_for_papers and not lacking(work):
        ready(work)
    return None
