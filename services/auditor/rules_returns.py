"""Rules of goods that come back to Chinese customs: in time by the rule on the order, and then with their tax, to the unit."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from schemas.ledger import account_of
from services.auditor.facts import Parcel
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.story import Event

_CUTS = ("ParcelShortPicked", "ParcelLinesCancelled")


@order_rule(47, "goods come back to customs in time exactly when the rule on the order says so")
def late_or_not(case: Case) -> Iterator[Verdict]:
    china = case.facts.placed.china if case.facts.placed else None
    if china is None:
        return
    asked_days, back_days = china.returns
    for parcel_id in case.facts.parcels:
        asked = {e.data.ref: e.time for e in case.story.of("shipping", "ReturnAuthorised") if e.tells_of(parcel_id)}
        released = [e.time for e in case.story.of("shipping", "CustomsReleased", "ListReleased") if e.tells_of(parcel_id)]
        for event in _back(case, parcel_id):
            if not (event.data.paper or event.data.late) or not released:
                continue
            late = (not back_days or asked[event.data.ref] > released[-1] + timedelta(days=asked_days)
                    or event.time > released[-1] + timedelta(days=back_days))
            yield None if event.data.late == late else [
                str(event), f"released {released[-1]}, asked {asked[event.data.ref]}, back {event.time}: told as {'late' if event.data.late else 'in time'}"]


@order_rule(9, "tax is claimed back for the goods that customs took back, as they were assessed", live=False)
def claimed_back(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        worths = {e.data.ref: (e.data.worth, e) for e in _back(case, parcel_id) if e.data.paper}
        if not worths and not parcel.reclaims:
            continue
        told = {e.data.why: e for e in parcel.reclaims}
        assessed = sum(b.amount for b in case.ledger if b.parcel_id == parcel_id and account_of(b.account) == "payable")
        whole, sum_, before = _declared(case, parcel_id, parcel), 0, 0
        for event in case.story.of("shipping", "ListWithdrawn"):
            worth, back = worths.get(event.data.return_id, (0, None)) if event.tells_of(parcel_id) else (0, None)
            if back is None:
                continue
            right = 0
            if event.data.accepted and _was_assessed(case, parcel_id, parcel, event.data.return_id):
                sum_ += worth
                right = assessed * min(sum_, whole) // whole - before if whole else 0
                before += right
            found = told.pop(event.data.return_id, None)
            have = found.data.amount if found else 0
            yield None if have == right else [str(event), f"of {assessed} assessed for {whole} is {right} for {sum_}, claimed {have}"]
            if found and (settled := _settled_before(case, parcel_id, event.data.return_id)) is not None:
                yield None if found.data.via == ("merchant" if settled else "platform") else [str(found), f"given to the {found.data.via}"]
        for event in told.values():
            yield [str(event), "customs took nothing back for it"]


def _back(case: Case, parcel_id: str) -> list[Event]:
    return [e for e in case.story.of("shipping", "ReturnReceived") if e.tells_of(parcel_id)]


def _declared(case: Case, parcel_id: str, parcel: Parcel) -> int:
    """What the goods cost that customs let in, or that were declared when the rest was settled."""
    plan = parcel.plan
    left = {n: units for n, (_, units) in plan.lines.items()}
    gone = [e for e in case.story.of("shipping", *_CUTS) if e.tells_of(parcel_id)]
    gone += [e for e in _back(case, parcel_id) if parcel.assessed is None and not _was_assessed(case, parcel_id, parcel, e.data.ref)]
    for event in gone:
        for line_no, units in event.data.lines:
            left[line_no] -= units
    return sum(plan.amounts[n] * units // plan.lines[n][1] for n, units in left.items())


def _was_assessed(case: Case, parcel_id: str, parcel: Parcel, return_id: str) -> bool:
    """By customs' bill, which comes with the release; else when the parcel was settled."""
    return parcel.assessed is not None or bool(_settled_before(case, parcel_id, return_id))


def _settled_before(case: Case, parcel_id: str, return_id: str) -> bool | None:
    """Whether the merchant had been paid when this return's money went back; None: none went back."""
    settled = False
    for event in case.story.events["payments"]:
        if event.type == "PaymentSettled" and event.tells_of(parcel_id):
            settled = True
        elif event.type in ("PaymentRefunded", "PaymentPartiallyRefunded") and event.data.ref == return_id and event.tells_of(parcel_id):
            return settled
    return None
