"""One audit: gather, judge each order, judge the whole, report.

    report = await audit(Settings())

Partition by partition: fold its records, take the rows of its orders, apply every rule, forget. Judging costs about as
much as reading, so the garbage collector rests meanwhile: nothing here makes cycles that matter.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import Any, Protocol

import asyncpg
from aiokafka.errors import KafkaError

from schemas.merchants import MERCHANT
from services.auditor import invariants, rules_brands, rules_inspection, rules_merchants, rules_terms  # noqa: F401  (every file of rules registers itself)
from services.auditor.evidence import CannotRead, Evidence, content_of, partition_of, row_of
from services.auditor.report import Report, Violation
from services.auditor.rules import (ORDER_RULES, RECORD_RULES, WHOLE_RULES, Booking, Call, Case, DeadLetter, Funnel,
                                    Journals, Request, Rule, Whole)
from services.auditor.rules_money import ACCOUNTS
from services.auditor.story import Fold, Raw, Story
from services.auditor.watch import Watched
from services.runtime.settings import Settings

SETTLE_S = 5.0
STAGES = (("placed", "OrderPlaced"), ("allocated", "ParcelsAllocated"), ("paid", "PaymentHeld"), ("packed", "ParcelPacked"),
          ("handed over", "ParcelHandedOver"), ("delivered", "ParcelDelivered"), ("settled", "PaymentSettled"),
          ("completed", "OrderCompleted"))

# The operators' funnel: an order is at a stage as soon as one of its parcels is.
VIEWED = {"placed": "OrderPlaced", "allocated": "ParcelsAllocated", "held": "PaymentHeld", "requested": "FulfilmentRequested",
          "packed": "ParcelPacked", "handed_over": "ParcelHandedOver", "customs_released": "CustomsReleased",
          "delivered": "ParcelDelivered", "settled": "PaymentSettled", "completed": "OrderCompleted"}
_ENDED = {"OrderCompleted": "completed", "OrderCancelled": "cancelled", "OrderRejected": "rejected"}
AskViews = Callable[[], dict[str, Any] | None]

BEYOND = ("4 same key, same body, same answer: orders come in through a topic; no HTTP client keeps a journal yet",)


class Source(Protocol):
    """What `evidence.Evidence` is to `examine`; a test gives its own."""

    partitions: int
    notes: list[str]
    grace: timedelta

    def records(self, partition: int) -> AsyncIterator[list[Raw]]: ...
    async def dead_letters(self) -> list[DeadLetter]: ...
    async def rows(self, partition: int) -> dict[str, dict[str, tuple]]: ...
    async def ledger(self, partition: int) -> dict[str, list[Booking]]: ...
    async def whole(self) -> Whole: ...
    def journals(self) -> Journals: ...


async def audit(settings: Settings, *, live: bool = False, expected_dead_letters: int = 0, views: AskViews | None = None
                ) -> Report:
    """Audit the system at these settings. `live`: while it runs, so that only what holds at any moment is judged. `views`
    asks this system's operators' views for their funnel; None when they do not answer.
    Raises evidence.CannotRead. Waits up to SETTLE_S for what is under way, unless live."""
    began = time.monotonic()
    try:
        async with Evidence(settings) as evidence:
            if not live:
                await evidence.settle(SETTLE_S)
            funnel = await _settled(views) if views and not live else None
            report = await examine(evidence, live=live, expected_dead_letters=expected_dead_letters, views=funnel)
            report.seconds = time.monotonic() - began
            return report
    except (KafkaError, asyncpg.PostgresConnectionError) as lost:
        raise CannotRead(f"the connection was lost while reading: {lost!r}", settings.bootstrap, "Audit again.") from lost


async def _settled(views: AskViews) -> dict[str, Any] | None:
    """Their answer once they have counted everything, or the last one."""
    end = time.monotonic() + SETTLE_S
    while (funnel := await asyncio.to_thread(views)) and funnel["behind"] != 0 and time.monotonic() < end:
        await asyncio.sleep(0.25)
    return funnel


async def examine(source: Source, *, live: bool = False, expected_dead_letters: int = 0, views: dict[str, Any] | None = None
                  ) -> Report:
    """Judge what `source` has; `views`: the funnel of the operators' views."""
    began, collecting = time.monotonic(), gc.isenabled()
    gc.disable()
    try:
        return await _Audit(source, live, expected_dead_letters, views).run(began)
    finally:
        if collecting:
            gc.enable()


class _Audit:
    def __init__(self, source: Source, live: bool, expected_dead_letters: int, views: dict[str, Any] | None):
        self.source, self.live, self.expected, self.views = source, live, expected_dead_letters, views
        self.funnel = Funnel()
        self.report = Report(live=live)
        self.stock: Counter[tuple[str, str, str]] = Counter()
        self.quota: Counter[tuple[str, str]] = Counter()
        self.newest: Any = None
        self.freezes: dict[str, list[rules_merchants.Freeze]] = {}
        self.agreed: dict[str, list[rules_terms.Agreement]] = {}
        self.spans: dict[str, list[rules_merchants.Span]] = defaultdict(list)
        self.brands: dict[str, rules_brands.Known] = {}
        self.sales: list[rules_brands.Sale] = []
        self.units: dict[str, list[rules_inspection.Packing]] = defaultdict(list)
        self.numbers: dict[str, set[str]] = {}

    async def run(self, began: float) -> Report:
        source, report = self.source, self.report
        letters = await source.dead_letters()
        self.dead = {letter[:3] for letter in letters}
        self.journals = source.journals()
        self.planted = {where for where, expected in (self.journals.planted or {}).items() if expected}
        self.originals: dict[tuple[str, int, int], str] = {}
        seen = self.journals.watched or Watched()
        self.reads = seen.reads
        self.provider = _by_partition(self.journals.provider, source.partitions)
        self.requests = _by_partition(self.journals.client, source.partitions)
        for partition in range(source.partitions):
            await self._partition(partition)
        whole = await source.whole()
        whole.dead_letters, whole.expected_dead_letters, whole.originals = letters, self.expected, self.originals
        whole.live, whole.numbers = self.live, self.numbers
        whole.planted = None if self.expected else self.journals.planted
        whole.stock_of_events, whole.quota_of_events, whole.newest = self.stock, self.quota, self.newest
        whole.freezes, whole.spans, whole.agreed, whole.grace = self.freezes, self.spans, self.agreed, source.grace
        whole.brands, whole.sales, whole.units = self.brands, self.sales, self.units
        whole.looked, whole.funnel, whole.views = seen.looked, self.funnel, self.views
        whole.passed = [line for line in seen.passed if (line["topic"], line["partition"], line["offset"]) not in self.dead]
        for rule in self._applicable(WHOLE_RULES):
            for verdict in rule.check(whole):
                report.checked[rule.label] += 1
                if verdict is not None:
                    report.add(Violation(rule.number, rule.name, *verdict))
        report.dead_letters = len(letters)
        report.not_checked = [*source.notes, *self.journals.notes, *BEYOND, *self._left_out()]
        report.seconds = time.monotonic() - began
        return report

    async def _partition(self, partition: int) -> None:
        report, source = self.report, self.source
        fold = Fold(partition, source.partitions, self._wrong_record, self.dead, self.planted)
        take, dead, originals = fold.take, self.dead, self.originals
        async for batch in source.records(partition):
            for raw in batch:
                take(raw)
                if raw[:3] in dead:
                    originals[raw[:3]] = content_of(*raw[3:])
        report.records += fold.records
        report.events += fold.events
        for number, count in fold.checked.items():
            report.checked[f"{number} {RECORD_RULES[number]}"] += count
        if fold.newest is not None and (self.newest is None or fold.newest > self.newest):
            self.newest = fold.newest
        # A row "new" is no order: it only keeps what came for one that nobody has heard of. A brand or merchant may be refused so.
        rows = {service: {order_id: row for order_id, row in found.items() if row[0] != "new" or row[2]}
                for service, found in (await source.rows(partition)).items()}
        ledger = await source.ledger(partition)
        provider, requests = self.provider.get(partition, {}), self.requests.get(partition, {})
        known = dict.fromkeys([*fold.stories, *(o for found in rows.values() for o in found), *ledger, *provider, *requests])
        for order_id in known:
            story = fold.stories.pop(order_id, None) or Story(order_id, partition)
            self._order(Case(
                story, {service: row_of(found[order_id]) for service, found in rows.items() if order_id in found},
                ledger.get(order_id, []), None if self.journals.provider is None else provider.get(order_id, []),
                self.journals, self.dead, None if self.journals.client is None else requests.get(order_id, []),
                source.grace, self.reads.get(order_id, [])))

    def _wrong_record(self, number: int, order_id: str, evidence: list[str]) -> None:
        self.report.add(Violation(number, RECORD_RULES[number], order_id, evidence))

    def _order(self, case: Case) -> None:
        report, stock = self.report, case.is_stock
        self.stock.update(case.facts.stock)
        for parcel_id, parcel in case.facts.parcels.items():
            for n, box in enumerate(parcel.boxes):
                for number in box.split():
                    self.numbers.setdefault(number, set()).add(f"{parcel_id} box {n + 1}" if n else parcel_id)
        if case.facts.quota:
            china = case.facts.placed.china
            self.quota.update({(f"quota:{china.person}:{china.year}", name): fen for name, fen in case.facts.quota.items()})
        for rule in self._rules[stock]:
            label = rule.label
            for verdict in rule.check(case):
                report.checked[label] += 1
                if verdict is not None:
                    report.add(Violation(rule.number, rule.name, case.order_id, verdict))
        if not stock:
            self._count(case)
            if span := rules_merchants.span_of(case):
                self.spans[case.story.merchant].append(span)
            if sale := rules_brands.sale_of(case):
                self.sales.append(sale)
            for unit, packing in rules_inspection.packings_of(case):
                self.units[unit].append(packing)
        elif known := rules_brands.brand_of(case):
            self.brands[case.order_id] = known
        elif case.order_id.startswith(MERCHANT):
            self.freezes[case.story.merchant] = rules_merchants.freezes_of(case)
            self.agreed[case.story.merchant] = rules_terms.agreements_of(case)

    @property
    def _rules(self) -> dict[bool, list[Rule]]:
        rules = self.__dict__.get("_chosen")
        if rules is None:
            chosen = self._applicable(ORDER_RULES)
            rules = self._chosen = {False: chosen, True: [r for r in chosen if r.stock]}
        return rules

    def _applicable(self, rules: Iterable[Rule]) -> list[Rule]:
        return [rule for rule in rules if rule.live or not self.live]

    def _left_out(self) -> list[str]:
        """Rules that had nothing to look at are named: silence must not pass for innocence."""
        labels = {r.label for r in (*ORDER_RULES, *WHOLE_RULES)}
        return [f"{label}: {'not while it runs' if self.live else 'nothing to look at'}"
                for label in sorted(labels, key=lambda text: int(text.split()[0])) if not self.report.checked[label]]

    # -- what is told besides ---------------------------------------------------------------------------------------

    def _count(self, case: Case) -> None:
        report, facts, story = self.report, case.facts, case.story
        if not story.of("orders", "OrderPlaced", "OrderRejected"):
            return
        report.orders += 1
        types = {e.type for e in story.all()}
        self._fold_views(case, types)
        for stage, event in STAGES:
            report.funnel[stage] += event in types
        for exit_ in _exits(case):
            report.exits[exit_] += 1
            report.examples.setdefault(exit_, case.order_id)
        if facts.placed:
            sums = report.money.setdefault(facts.placed.currency, Counter(dict.fromkeys(ACCOUNTS, 0)))
            for parcel in facts.parcels.values():
                sums.update(parcel.totals)


    def _fold_views(self, case: Case, types: set[str]) -> None:
        funnel = self.funnel
        funnel.reached.update(stage for stage, event in VIEWED.items() if event in types)
        ends = case.story.of("orders", *_ENDED)
        funnel.exits.update(f"{_ENDED[e.type]}: {e.data if e.type == 'OrderRejected' else e.data[0]}" for e in ends
                            if e.type != "OrderCompleted")
        if ends:
            funnel.ended[_ENDED[ends[-1].type]] += 1
        if case.facts.placed:
            funnel.held[case.facts.placed.currency] += sum(parcel.held for parcel in case.facts.parcels.values())


def _exits(case: Case) -> set[str]:
    """How the order left the normal way: refused, cancelled for a reason, or completed with something undone."""
    last = next(reversed(case.story.of("orders", "OrderRejected", "OrderCancelled", "OrderCompleted")), None)
    if last is None:
        return {"open"}
    if last.type == "OrderRejected":
        return {f"rejected: {last.data}"}
    if last.type == "OrderCancelled":
        return {f"cancelled: {last.data[0]}"}
    found = {f"completed: {outcome}" for outcome in last.data[1].values()}
    for parcel in case.facts.parcels.values():
        found |= {f"completed: {name}" for event, name in _PARTLY.items() if event in parcel.first}
    return found


_PARTLY = {"ParcelShortPicked": "short pick", "ParcelLinesCancelled": "line cancelled", "ReturnReceived": "returned in part",
           "GrantPriced": "refund granted", "CustomsHeld": "held by customs", "ParcelAtPickup": "collected at pickup",
           "CancellationDeclined": "cancellation declined", "ManualPayoutRequested": "paid out by hand",
           "InquiryClosed": "the buyer's bank asked", "ChargebackReversed": "chargeback reversed"}


def _by_partition(found: dict[str, list[Call]] | dict[str, list[Request]] | None, partitions: int) -> dict[int, dict[str, list]]:
    split: dict[int, dict[str, list]] = defaultdict(dict)
    for order_id, entries in (found or {}).items():
        split[partition_of(order_id, partitions)][order_id] = entries
    return split
