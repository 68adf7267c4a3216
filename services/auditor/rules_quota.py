"""Rules of 32: what a person brings into China in a year, in fen, is within the law and follows the goods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from services.auditor.facts import QUOTA_KINDS, Parcel
from services.auditor.rules_papers import lists_of
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule
from services.auditor.kept import Placed
from services.auditor.story import Event

YEARLY_FEN = 2_600_000      # since 2019-01-01; a year's limit as the auditor knows it, not as the events state it
PER_PARCEL_FEN = 500_000
COLUMNS = ("reserved", *QUOTA_KINDS.values())


@order_rule(32, "an order reserves its dutiable value, within the limits")
def reserved_as_placed(case: Case) -> Iterator[Verdict]:
    placed = case.facts.placed
    if not placed or placed.regime != "china":
        return
    china = placed.china
    if china is None:
        yield ["an order into China reserves nothing of anybody's year"]
        return
    value = sum(amount for _, _, amount in placed.lines.values()) + placed.freight
    right = china.value == value and china.yearly == YEARLY_FEN and china.per_parcel == PER_PARCEL_FEN
    yield None if right else [f"goods and freight are {value} fen", str(china)]


@order_rule(32, "what is kept of a quota is what came in and stayed", live=False)
def quota_follows_the_goods(case: Case) -> Iterator[Verdict]:
    facts, quota = case.facts, case.facts.quota
    if not facts.placed or not facts.placed.china:
        return
    open_ = quota["reserved"] - quota["released"] - quota["committed"]
    kept, taken = quota["committed"] - quota["restored"], {
        e.data.return_id for e in case.story.of("shipping", "ListWithdrawn") if e.data.accepted}
    stays = [e for e in case.story.of("shipping", "ReturnReceived") if e.data.late or e.data.paper and e.data.ref not in taken]
    came = sum(_came_in(facts.placed, p, [e for e in stays if e.parcels[0][0] == k]) for k, p in facts.parcels.items())
    yield None if open_ == 0 and kept == came else [
        f"open {open_}, kept {kept}, came in and stayed {came}", str(dict(quota)), *(str(e) for e in facts.of("QuotaMoved"))]


@order_rule(32, "what is committed is what the accepted lists declare", live=False)
def committed_by_the_lists(case: Case) -> Iterator[Verdict]:
    """By the first list of each parcel that customs took; what left it afterwards is restored."""
    facts = case.facts
    if not facts.placed or not facts.placed.china or facts.placed.regime != "china":
        return
    listed = 0
    for parcel_id, parcel in facts.parcels.items():
        first = next((each for each in lists_of(case, parcel_id, parcel) if each.accepted), None)
        if first is not None:
            listed += parcel.plan.freight + sum(
                facts.placed.lines[n][2] * units // facts.placed.lines[n][1] for n, units in first.left.items())
    committed = facts.quota["committed"]
    yield None if committed == listed else [f"committed {committed}, the lists that customs took declare {listed}"]


def _came_in(placed: Placed, parcel: Parcel, stays: list[Event]) -> int:
    """The dutiable value of what the buyer has of this parcel, and of what he sent back too late, or customs did not take back."""
    left = Counter(parcel.left)
    for event in stays:
        left.update(dict(event.data.lines))
    if parcel.goods != "delivered" or parcel.plan is None or not any(left.values()):
        return 0
    goods = sum(placed.lines[n][2] * units // placed.lines[n][1] for n, units in left.items())
    return goods + parcel.plan.freight


@whole_rule(32, "nobody is above the year's limit")
def within_the_year(whole: Whole) -> Iterator[WholeVerdict]:
    for key, row in whole.quota.items():
        used, open_ = row["reserved"] - row["released"] - row["restored"], row["reserved"] - row["released"] - row["committed"]
        right = 0 <= used <= YEARLY_FEN and open_ >= 0 and row["committed"] >= row["restored"]
        yield None if right else (key, [f"used {used} of {YEARLY_FEN}, open {open_}", str(row)])


@whole_rule(32, "quota table = sum of events", live=False)
def quota_is_the_events(whole: Whole) -> Iterator[WholeVerdict]:
    for key in whole.quota.keys() | {key for key, _ in whole.quota_of_events}:
        row = whole.quota.get(key) or dict.fromkeys(COLUMNS, 0)
        wrong = [f"{name}: events {whole.quota_of_events[key, name]}, table {row[name]}" for name in COLUMNS
                 if whole.quota_of_events[key, name] != row[name]]
        yield (key, wrong) if wrong else None
