"""Rules of what a parcel carries and where it has been: its numbers (37), how warm it was (38), and its season (39)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from schemas.cold_chain import Watch, common_band, excursion_id
from schemas.lifecycle import deadlines
from schemas.numbers import is_s10, is_sscc
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule
from services.auditor.story import Event


@order_rule(37, "a parcel's numbers hold, from its plan to its carrier")
def numbers_hold(case: Case) -> Iterator[Verdict]:
    facts = case.facts
    if facts.placed is None:
        return
    for parcel_id, parcel in facts.parcels.items():
        plan = parcel.plan
        if plan is None or not plan.sscc:
            continue  # allocated before parcels had numbers
        abroad = facts.regime != "domestic"
        right = is_sscc(plan.sscc) and (is_s10(plan.waybill_no) if abroad else not plan.waybill_no)
        yield None if right else [f"parcel {parcel_id}: SSCC {plan.sscc!r}, waybill {plan.waybill_no!r}"]
        for event in case.story.of("shipping", "FulfilmentRequested", "ParcelPacked"):
            if event.parcels[0][0] == parcel_id:
                yield None if event.data.ref in parcel.boxes else [str(event), f"{event.data.ref!r} is none of {parcel.boxes}"]
    for said in case.story.said.values():
        parcel = facts.parcels.get(said.about) if is_s10(said.number) else None
        if parcel is not None and parcel.plan and parcel.plan.sscc:
            yield None if any(said.number in box for box in parcel.boxes) else [
                str(said), f"took it as {said.number}, which is none of {parcel.boxes}"]


@whole_rule(37, "no two parcels have a number in common")
def numbers_are_unique(whole: Whole) -> Iterator[WholeVerdict]:
    for number, parcels in whole.numbers.items():
        yield None if len(parcels) == 1 else ("", [f"{number} is on {', '.join(sorted(parcels))}"])


# -- cold chain ---------------------------------------------------------------------------------------------------------


_DECIDED = {"ParcelReplaced", "ParcelDestroyed", "QualityRefunded", "ParcelLost"}  # about all that is open


@order_rule(38, "nothing is given out or put back before its excursion was decided about")
def excursions_are_decided(case: Case) -> Iterator[Verdict]:
    open_: dict[str, dict[str, Event]] = defaultdict(dict)
    for event in case.story.events["shipping"]:
        for parcel_id, _ in event.parcels:
            if event.type == "ParcelQuarantined":
                open_[parcel_id][event.data.ref] = event
            elif event.type == "QualityReleased":
                yield None if open_[parcel_id].pop(event.data.ref, None) else [str(event), "no such excursion was open"]
            elif event.type in _DECIDED:
                open_.pop(parcel_id, None)
            elif event.type in ("ParcelDelivered", "ParcelReturned", "ParcelCancelled") and open_[parcel_id]:
                yield [str(event), *(f"{e} waits for a decision" for e in open_[parcel_id].values())]


@order_rule(38, "every excursion is decided about in the end", live=False)
def excursions_come_to_an_end(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        at, ends = parcel.first.get("ParcelQuarantined"), [
            parcel.first[e] for e in ("QualityReleased", *_DECIDED) if e in parcel.first]
        if at is not None:
            late = min(ends, default=None)
            allowed = at + timedelta(seconds=deadlines()["quality"]) + case.grace
            yield None if late is not None and late <= allowed else [
                f"parcel {parcel_id}: quarantined at {at}, decided {late or 'never'}"]


@order_rule(38, "the excursions reported are those of the readings", live=False)
def excursions_are_those_of_the_readings(case: Case) -> Iterator[Verdict]:
    """By the same fold as the view's, in the topic's order; what it found must have been said, and nothing else."""
    if not case.story.readings:
        return
    watches: dict[str, Watch] = defaultdict(Watch)
    right: dict[str, str] = {}
    for parcel_id, band, readings in case.story.readings:
        for reading in readings:
            right.update((excursion_id(parcel_id, found), f"{found.minutes} minutes, {found.worst}")
                         for found in watches[parcel_id].take(reading, band))
    told = {said.number: said for said in case.story.said.values() if said.type == "ExcursionReported"}
    for name in sorted(right.keys() | told.keys()):
        yield None if name in right and name in told else [
            f"excursion {name}", f"by the readings {right.get(name, 'there is none')}", f"told: {told.get(name, 'never')}"]


@order_rule(38, "loggers are set to what the goods tolerate")
def loggers_fit_the_goods(case: Case) -> Iterator[Verdict]:
    placed, facts = case.facts.placed, case.facts
    for parcel_id, band, _ in case.story.readings:
        parcel = facts.parcels.get(parcel_id)
        if placed is None or parcel is None or parcel.plan is None:
            continue
        bands = [b for line_no, b in placed.cold if line_no in parcel.plan.lines]
        right = common_band(bands) if bands else None
        yield None if band == right else [f"parcel {parcel_id}: a logger was set to {band}, the goods ask for {right}"]


_OFF = {"ParcelDelivered", "ParcelCancelled", "ParcelReturning", "ParcelReplaced", "ParcelDestroyed", "ParcelLost", "CustomsRefused"}


@order_rule(38, "a logger that falls silent on the way is told, after as long as the goods allow", live=False)
def silence_is_told(case: Case) -> Iterator[Verdict]:
    placed, heard = case.facts.placed, defaultdict(list)
    if placed is None or not placed.cold:
        return
    for said in case.story.said.values():
        if said.type == "LoggerHeard":
            heard[said.about].append(datetime.fromtimestamp(int(said.id.rpartition(":")[2]), UTC))
    for parcel_id, parcel in case.facts.parcels.items():
        bands = [b for line_no, b in placed.cold if line_no in parcel.plan.lines] if parcel.plan else []
        allowed = common_band(bands).silent_minutes if bands else None
        told = [e for e in case.story.of("shipping", "ParcelQuarantined") if e.tells_of(parcel_id) and e.data.silent]
        for event in told:
            yield None if event.data.silent == allowed else [str(event), f"{event.data.silent} minutes, the goods allow {allowed}"]
        packed = parcel.first.get("ParcelPacked")
        if allowed is None or packed is None or told or case.story.of("orders", "OrderHeld"):
            continue  # what stands still is not waited for
        end = min((parcel.first[name] for name in _OFF if name in parcel.first), default=packed)
        times = [packed, *sorted(at for at in heard[parcel_id] if packed < at < end), end]
        long = [(a, b) for a, b in zip(times, times[1:]) if b - a > timedelta(minutes=allowed) + case.grace]
        yield [f"parcel {parcel_id}: nothing heard from {long[0][0]} to {long[0][1]}, and nobody was told"] if long else None


# -- seasons ------------------------------------------------------------------------------------------------------------


_PAID = ("ParcelsAllocated", "PaymentAuthorised", "PaymentHeld")  # an authorisation must not run out before it may be captured


@order_rule(39, "within its season")
def within_the_season(case: Case) -> Iterator[Verdict]:
    """Nothing is asked of the buyer before it opens, nothing is handed over after it closed."""
    season = case.facts.placed.season if case.facts.placed else None
    if season is None:
        return
    opens, closes = season
    for event in case.story.all():
        if event.type in (*_PAID, "ParcelHandedOver"):
            right = event.time >= opens and (event.type != "ParcelHandedOver" or event.time <= closes + case.grace)
            yield None if right else [f"{event} at {event.time}", f"the season is from {opens} to {closes}"]
