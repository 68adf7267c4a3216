"""Rules of goods, 14 and 15: nothing is sent twice, and nothing that was not there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from services.auditor.facts import STOCK_KINDS
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule


@order_rule(14, "at most one hand-over a parcel")
def handed_over_once(case: Case) -> Iterator[Verdict]:
    """A carrier may tell of one hand-over twice; under two numbers it took the parcel twice."""
    reported: dict[str, list[str]] = defaultdict(list)
    for parcel_id, number, said in sorted((s.about, s.number, str(s)) for s in case.story.said.values()
                                          if s.number and s.type != "ExcursionReported"):
        if not any(number in told for told in reported[parcel_id]):
            reported[parcel_id].append(f"{number}: {said}")
    for parcel_id, numbers in case.journals.handovers.get(case.order_id, {}).items():
        reported[parcel_id] = max(reported[parcel_id], [f"carrier's journal: {n}" for n in sorted(numbers)], key=len)
    boxes = {parcel_id: max(1, len(parcel.boxes)) for parcel_id, parcel in case.facts.parcels.items()}
    for parcel_id, evidence in reported.items():
        yield None if len(evidence) <= boxes.get(parcel_id, 1) else evidence
    for parcel_id, parcel in case.facts.parcels.items():
        if parcel.handovers > boxes[parcel_id]:
            yield [f"parcel {parcel_id} was handed over {parcel.handovers} times",
                   *(str(e) for e in case.story.of("shipping", "ParcelHandedOver"))]


@order_rule(15, "allocated and shipped <= ordered")
def no_more_than_ordered(case: Case) -> Iterator[Verdict]:
    facts = case.facts
    if not facts.placed or not facts.allocated:
        return
    planned: Counter[int] = Counter()
    shipped: Counter[int] = Counter()
    for parcel in facts.parcels.values():
        shipped.update(parcel.shipped)
        planned.update({line_no: units for line_no, (_, units) in (parcel.plan.lines if parcel.plan else {}).items()})
        for line_no, units in parcel.left.items():
            if units < 0:
                yield [f"line {line_no}: {-units} units more were taken out of a parcel than were in it"]
    for line_no in planned | shipped:
        ordered = facts.placed.lines.get(line_no, ("", 0, 0))[1]
        right = planned[line_no] <= ordered and shipped[line_no] <= ordered
        yield None if right else [f"line {line_no}: ordered {ordered}, allocated {planned[line_no]}, shipped {shipped[line_no]}"]


@order_rule(15, "what is awaited is packed only when it came, and paid back in time")
def backorders_end(case: Case) -> Iterator[Verdict]:
    told = case.story.of("shipping", "ParcelBackordered")
    for event in told:
        [(parcel_id, _)] = event.parcels
        later = [e for e in case.story.events["shipping"] if e.tells_of(parcel_id)]
        types = [e.type for e in later]
        plan, wrong = case.facts.allocated.plans.get(parcel_id), []
        if plan is None or plan.warehouse or [(n, units) for n, (_, units) in plan.lines.items()] != list(event.data.lines):
            wrong.append(f"it was allocated as {plan}")
        if "FulfilmentRequested" in types and "BackorderFilled" not in types[:types.index("FulfilmentRequested")]:
            wrong.append("the warehouse is asked to pack what never came")
        stood = case.story.of("orders", "OrderHeld")  # then its deadline was moved
        late = [e for e in later if e.type == "BackorderFilled" and e.time > event.data.until + case.grace and not stood]
        if not {"BackorderFilled", "ParcelCancelled"} & set(types) and case.story.of("orders", "OrderCompleted", "OrderCancelled"):
            wrong.append("it never came, and nothing was paid back")
        yield [str(event), *map(str, late), *wrong] if wrong or late else None
    silent = [p for p, plan in (case.facts.allocated.plans if case.facts.allocated else {}).items() if not plan.warehouse]
    if set(silent) - {p for e in told for p, _ in e.parcels}:
        yield [f"parcels of no warehouse: {silent}"]


@whole_rule(15, "stock is never negative, and never sold twice")
def stock_is_possible(whole: Whole) -> Iterator[WholeVerdict]:
    for (warehouse, sku), row in whole.stock.items():
        open_ = row["reserved"] - row["released"] - row["consumed"] - row["shrunk"]
        free = row["received"] + row["restocked"] + row["released"] - row["reserved"]
        yield None if open_ >= 0 and free >= 0 and min(row.values()) >= 0 else (
            f"stock:{warehouse}:{sku}", [f"open {open_}, free {free}", str(row)])


@whole_rule(15, "stock table = sum of events", live=False)
def stock_is_the_events(whole: Whole) -> Iterator[WholeVerdict]:
    for place in whole.stock.keys() | {key[:2] for key in whole.stock_of_events}:
        row = whole.stock.get(place) or dict.fromkeys(STOCK_KINDS, 0)
        wrong = [f"{kind}: events {whole.stock_of_events[*place, kind]}, table {row[kind]}" for kind in STOCK_KINDS
                 if whole.stock_of_events[*place, kind] != row[kind]]
        yield (f"stock:{place[0]}:{place[1]}", wrong) if wrong else None
