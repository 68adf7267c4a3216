"""Rules of what a parcel carries and where it has been: its numbers (37)."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.numbers import is_s10, is_sscc
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule


@order_rule(37, "a parcel's numbers hold, from its plan to its carrier")
def numbers_hold(case: Case) -> Iterator[Verdict]:
    facts = case.facts
    for parcel_id, parcel in facts.parcels.items():
        plan = parcel.plan
        if plan is None or not plan.sscc:
            continue  # allocated before parcels had numbers
        abroad = facts.regime != "domestic"
        right = is_sscc(plan.sscc) and (is_s10(plan.waybill_no) if abroad else not plan.waybill_no)
        yield None if right else [f"parcel {parcel_id}: SSCC {plan.sscc!r}, waybill {plan.waybill_no!r}"]
        for event in case.story.of("shipping", "FulfilmentRequested", "ParcelPacked"):
            if event.parcels[0][0] == parcel_id:
                yield None if event.data.ref == f"{plan.sscc} {plan.waybill_no}" else [
                    str(event), f"the numbers are {event.data.ref!r}, planned were {plan.sscc} {plan.waybill_no}"]
    for said in case.story.said.values():
        plan = facts.parcels[said.about].plan if said.number and said.about in facts.parcels else None
        if plan is not None and is_s10(said.number):
            yield None if said.number == plan.waybill_no else [str(said), f"took it as {said.number}, it is {plan.waybill_no}"]


@whole_rule(37, "no two parcels have a number in common")
def numbers_are_unique(whole: Whole) -> Iterator[WholeVerdict]:
    for number, parcels in whole.numbers.items():
        yield None if len(parcels) == 1 else ("", [f"{number} is on {', '.join(sorted(parcels))}"])
