"""Rules of authenticity (46): serial numbers that are in two parcels alarm somebody, and nothing leaves while it is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule

_CAME_BACK = ("ParcelCancelled", "ParcelReturned", "ReturnReceived", "ParcelReplaced")
_OVER = ("ParcelDestroyed", "ParcelCancelled", "ParcelLost", "ParcelReplaced")


class Packing(NamedTuple):
    """A unit in a parcel, from `at` until it came back; `alarmed`: an alert of the parcel names it."""

    parcel_id: str
    at: datetime
    back: datetime | None
    alarmed: bool


def packings_of(case: Case) -> Iterator[tuple[str, Packing]]:
    """(GTIN and serial number, its packing) of what was packed with serial numbers."""
    packed = [e for e in case.story.of("shipping", "ParcelPacked") if e.data.units]
    alarmed = {(e.parcels[0][0], e.data.ref) for e in case.story.of("shipping", "SerialAlert")} if packed else set()
    for event in packed:
        parcel_id = event.parcels[0][0]
        first = case.facts.parcels[parcel_id].first
        back = min((first[name] for name in _CAME_BACK if name in first), default=None)
        for unit in event.data.units:
            yield unit, Packing(parcel_id, event.time, back, (parcel_id, unit) in alarmed)


@order_rule(46, "nothing is handed over while somebody has to look at it")
def looked_at_first(case: Case) -> Iterator[Verdict]:
    open_: dict[str, dict[str, object]] = {}
    for event in case.story.of("shipping", "InspectionHeld", "InspectionEnded", "ParcelHandedOver", *_OVER):
        parcel_id = event.parcels[0][0]
        here = open_.setdefault(parcel_id, {})
        if event.type == "InspectionHeld":
            here[event.data.id] = event
        elif event.type == "InspectionEnded":
            known = here.pop(event.data.id, None)
            yield None if known else [str(event), "no such inspection was open"]
        elif event.type == "ParcelHandedOver":
            if here:
                yield [str(event), *(f"{held} has no result" for held in here.values())]
        else:
            here.clear()


@order_rule(46, "an alert opens an inspection of what is still there")
def alerts_are_looked_into(case: Case) -> Iterator[Verdict]:
    alerts = case.story.of("shipping", "SerialAlert")
    if not alerts:
        return
    held = case.story.of("shipping", "InspectionHeld")
    for alert in alerts:
        left = [e for e in case.story.of("shipping", "ParcelHandedOver", *_OVER) if e.parcels[0][0] == alert.parcels[0][0]
                and e.sequence < alert.sequence]
        if not left:
            right = any(e.parcels[0][0] == alert.parcels[0][0] and (e.cause == alert.cause or e.sequence < alert.sequence) for e in held)
            yield None if right else [str(alert), "the parcel was still there, and nobody was asked to look at it"]


@order_rule(46, "what is counterfeit is destroyed, paid back and complained about", live=False)
def counterfeits_are_undone(case: Case) -> Iterator[Verdict]:
    for event in case.story.of("shipping", "InspectionEnded"):
        if event.data.result == "genuine":
            continue
        parcel = case.facts.parcels[event.parcels[0][0]]
        wrong = [] if parcel.goods == "destroyed" else [f"its parcel is {parcel.goods}"]
        if parcel.released:
            wrong.append(f"{parcel.released} was released to the merchant")
        if event.data.result == "counterfeit" and event.data.id not in {e.data for e in case.story.of("orders", "ComplaintFiled")}:
            wrong.append("nobody complained about the merchant")
        yield [str(event), *wrong] if wrong else None


@whole_rule(46, "of a serial number in two parcels the second alarms somebody", live=False)
def copies_are_noticed(whole: Whole) -> Iterator[WholeVerdict]:
    near = whole.near
    for unit, packings in whole.units.items():
        packings.sort(key=lambda each: each.at)
        for first, second in zip(packings, packings[1:]):
            if first.parcel_id != second.parcel_id and (first.back is None or first.back > second.at + near):
                near_too = first.alarmed and second.at - first.at <= near  # whose batch was first is not told
                yield None if second.alarmed or near_too else (second.parcel_id, [
                    f"{unit} is in {first.parcel_id} since {first.at} and in {second.parcel_id} since {second.at}; nobody was told"])
