"""What a carrier tells in its own words. schemas/carrier_codes.toml says which report of ours it is; here is what keeps a scan
that comes late, twice or in the wrong order from moving a parcel backwards.

The parcel's table alone answers most: a scan that is early waits, one that no coming state allows is stale. What it cannot
tell apart are attempts to deliver, which come again and again: they must be newer than the last one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas.carrier_codes import RECEIPTS, Code, UnknownCode, meaning_of, names_a_list
from schemas.dead_letters import Reason
from schemas.lifecycle import deadlines
from services.runtime.decision import Impossible, Incoming, NotYet, Stale
from services.shipping import china
from services.shipping.reports import no_parcel
from services.shipping.shipment import CHINESE, Work

ATTEMPTS = {"OutForDeliveryReported", "DeliveryFailureReported"}


def report_of(scan: Any) -> str:
    """The type of the report that it is; empty: information only, or a code that will be refused."""
    try:
        return meaning_of(scan).report
    except UnknownCode:
        return ""


def scanned(reports: dict[str, Any]):
    """The handler of CarrierScanReported; `reports`: type -> the handler of the report that a scan may be."""
    def handle(work: Work, incoming: Incoming) -> NotYet | Stale | None:
        scan = incoming.data
        try:
            code = meaning_of(scan)
        except UnknownCode as why:
            raise Impossible(Reason.UNKNOWN_CODE, str(why)) from None
        if scan.dialect == RECEIPTS and work.shipment.parcels and work.shipment.regime not in CHINESE:
            raise Impossible(Reason.UNKNOWN_CODE, f"dialect: {RECEIPTS} is of Chinese customs; this order does not go to China")
        work.told_of(scan.at)
        work.at = min(scan.at, work.now)
        parcel = work.shipment.parcels.get(scan.parcel_id)
        if parcel is None:
            return no_parcel(work.shipment, scan.parcel_id)
        if names_a_list(scan) and china.about_the_list(scan, parcel):
            return china.receipt(work, scan, parcel)
        if code.report not in ATTEMPTS:
            return reports[code.report](work, incoming) if code.report else _seen(work, scan, code)
        last = parcel.aside.attempt_at if parcel.aside else None
        if last is not None and scan.at <= last:
            return Stale("a scan that is no newer than the attempt it tells of")
        answer = reports[code.report](work, incoming)
        if answer is None:
            parcel.beside().attempt_at = scan.at
        return answer
    return handle


def _seen(work: Work, scan: Any, code: Code) -> Stale | None:
    """Information only: it is not lost, at least until now."""
    s, parcel = work.shipment, work.shipment.parcels[scan.parcel_id]
    timer = f"lost:{scan.parcel_id}"
    if timer not in s.timers:
        return Stale(f"{code.code} tells nothing of a parcel that is {parcel.status}")
    due = min(scan.at, work.now) + timedelta(seconds=deadlines()["lost"])
    if due <= s.timers[timer]:
        return Stale("an older scan")
    s.timers[timer] = due
    return None
