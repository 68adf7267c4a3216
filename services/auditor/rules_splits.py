"""Rules of parcels that a warehouse split (49): the two are together what the one was, in units, in money and in its
promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from services.auditor.kept import Plan, Split
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.rules_promise import NO_STOCK
from services.auditor.story import Event


@order_rule(49, "a parcel that is split is together what it was")
def together_what_it_was(case: Case) -> Iterator[Verdict]:
    for event, was, missing in case.facts.splits:
        wrong = _unlike(was, event.data)
        if missing:
            wrong.append(f"its buyer owes {missing} less for the two than for the one")
        if case.facts.regime not in ("abroad", "domestic"):
            wrong.append("into China a parcel has one payment and one list")
        if not all(units > 0 for _, units in event.data.part.lines.values()) or not event.data.rest.lines:
            wrong.append(f"of {was.lines} go {event.data.part.lines}, stay {event.data.rest.lines}")
        yield [str(event), *wrong] if wrong else None


def _unlike(was: Plan, split: Split) -> list[str]:
    """What of the two does not add up to the one, line by line."""
    rest, part = split.rest, split.part
    units: Counter[tuple[int, str]] = Counter()
    amounts: Counter[int] = Counter()
    for plan in (rest, part):
        units.update({(line_no, sku): count for line_no, (sku, count) in plan.lines.items()})
        amounts.update(plan.amounts)
    wrong = [f"{name}: {getattr(was, name)} became {getattr(rest, name)} and {getattr(part, name)}"
             for name in ("amount", "freight", "tax") if getattr(was, name) != getattr(rest, name) + getattr(part, name)]
    if units != Counter({(line_no, sku): count for line_no, (sku, count) in was.lines.items()}):
        wrong.append(f"units of {was.lines} became {rest.lines} and {part.lines}")
    if amounts != Counter(was.amounts):
        wrong.append(f"prices {was.amounts} became {rest.amounts} and {part.amounts}")
    return wrong


@order_rule(49, "a parcel that was split off is promised as the other is")
def promised_alike(case: Case) -> Iterator[Verdict]:
    for event, was, _ in case.facts.splits:
        due, way = _due(case, event, was), event.data.part.way
        yield None if (way and way.promised) == due else [
            str(event), f"promised {due}, and the part {way.promised if way else 'nothing'}"]


def _due(case: Case, split: Event, was: Plan) -> datetime | None:
    """By when its goods were promised until then; None: not at all."""
    due, parcel_id = was.way.promised if was.way else None, split.parcels[0][0]
    for event in case.story.of("shipping", "PromiseResumed"):
        if event.sequence < split.sequence and event.tells_of(parcel_id) and event.data.ref != NO_STOCK:
            due = event.data.promised
    return due


@order_rule(49, "escrow follows goods that are split off", live=False)
def escrow_follows(case: Case) -> Iterator[Verdict]:
    """All that the part costs, unless its buyer had got money of it back by then, through a dispute."""
    moved: dict[str, list[Event]] = {}
    for event in case.story.of("payments", "PaymentDivided"):
        moved.setdefault(event.parcels[0][0], []).append(event)
    lost = case.story.of("payments", "ChargebackLost", "ChargebackPartlyLost")
    for event, _, _ in case.facts.splits:
        [(parcel_id, _), (part_id, _)] = event.parcels
        told, right = moved.get(part_id, []), event.data.part.amount
        less = lost or case.facts.parcels[parcel_id].dispute_lost
        fits = [e.data.ref for e in told] == [parcel_id] and (
            told[0].data.amount == right or less and told[0].data.amount < right)
        yield None if fits else [
            str(event), f"parcel {part_id}: {right} to be held for it", *(f"{e}: {e.data.amount}" for e in told)]
