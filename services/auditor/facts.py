"""What one order's events add up to: where each parcel and its money are, by the tables of `schemas.lifecycle`, and how
much moved. Steps that no table allows are noted in `broken` and skipped, so that one fault is one violation.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import NamedTuple

from schemas.lifecycle import (CHARGEBACK, CORRESPONDENCE, DECLARATION, DISPUTED, NEW, ORDER, PARCEL, PAYMENT, PROMISE_EVENTS,
                               RETURN, Machine)
from services.auditor.kept import Allocated, Goods, Money, Placed, Plan
from services.auditor.story import Event, Story

QUOTA_KINDS = {"commit": "committed", "release": "released", "restore": "restored"}
STOCK_KINDS = ("received", "reserved", "released", "consumed", "restocked", "shrunk", "announced", "arrived", "presold", "unsold")
# Facts that no machine's state depends on.
ASIDE = {"CommandRefused", "AllocationFailed", "StockReceived", "HarvestExpected", "QuotaMoved", "DocumentsMissing", "OrderDocumented"}
REFUNDS = {"PaymentPartiallyRefunded", "PaymentRefunded"}
_OUTSIDE_ORDERS = {"ParcelsAllocated", "PreSold", "SeasonOpened", "Backordered", "PaymentAuthorised", "PaymentHeld", "FundsRecovered",
                   *DISPUTED}
_OF_CHARGEBACKS = {row.event for row in CHARGEBACK.rows}


class Release(NamedTuple):
    """PaymentSettled; `gone`: as it was then; `claim`: a carrier's money, for goods that are lost."""

    event: Event
    amount: int
    gone: int
    claim: bool


class Parcel:
    """One parcel: its three states, its money (minor units), its goods, and when what mattered happened first.

    `due`: what the buyer still owes for it, by what shipping and the arbiter said; `value`: by what is still the buyer's.
    `low`: the lowest `held` ever was. `claimed`: what a carrier paid for it, by shipping; `made_good`: by payments.
    `gone`: the worth of goods that left the sale, as payments had heard; `assessed`: the last bill of customs, `reclaims`: what it gives back of it. `boxes`: SSCC and
    waybill number of each box that it was, the newest last. `bank_took`: what its buyer's bank has of it, `bank_lost`: for good; `chargebacks`:
    dispute -> where it is. `of`: the parcel that it was split off.
    """

    __slots__ = ("plan", "goods", "paper", "money", "captured", "released", "refunded", "charged_back", "recovered", "by_hand",
                 "low", "lowered", "dispute_lost", "left", "first", "handovers", "shipped", "undone", "granted", "claimed",
                 "made_good", "gone", "releases", "assessed", "reclaims", "boxes", "bank_took", "bank_lost", "chargebacks", "of")

    def __init__(self, plan: Plan | None, of: str = ""):
        self.of = of
        self.plan, self.goods, self.paper, self.money = plan, NEW, NEW, NEW
        self.captured = self.released = self.refunded = self.charged_back = self.recovered = self.by_hand = 0
        self.low = self.lowered = self.handovers = self.granted = self.claimed = self.made_good = 0
        self.dispute_lost = self.undone = False
        self.gone = self.bank_took = self.bank_lost = 0
        self.chargebacks: dict[str, str] = {}
        self.releases: list[Release] = []
        self.assessed: Event | None = None
        self.reclaims: list[Event] = []
        self.left = {line_no: units for line_no, (_, units) in plan.lines.items()} if plan else {}
        self.shipped: dict[int, int] = {}
        self.boxes: list[str] = [f"{plan.sscc} {plan.waybill_no}"] if plan else []
        self.first: dict[str, datetime] = {}

    @property
    def held(self) -> int:
        return self.captured + self.recovered - self.released - self.refunded - self.charged_back

    @property
    def due(self) -> int:
        return 0 if self.dispute_lost or self.plan is None else max(0, self.plan.amount - self.lowered - self.bank_lost)

    @property
    def worth(self) -> int:
        """Of the goods that are left in it."""
        plan = self.plan
        if plan is None:
            return 0
        return sum(plan.amounts[n] * units // plan.lines[n][1] for n, units in self.left.items() if n in plan.lines)

    @property
    def value(self) -> int:
        if self.undone or self.plan is None:
            return 0
        return max(0, self.worth + (self.plan.freight if any(self.left.values()) else 0) - self.granted)

    @property
    def totals(self) -> dict[str, int]:
        return {"captured": self.captured, "recovered": self.recovered, "held": self.held, "released": self.released,
                "refunded": self.refunded, "charged_back": self.charged_back}


class Facts:
    """Computed once an order. `states`: every state the order's machine may be in after its events."""

    def __init__(self, story: Story):
        self.story = story
        self.placed: Placed | None = next((e.data for e in story.of("orders", "OrderPlaced")), None)
        self.allocated: Allocated | None = next((e.data for e in story.of("shipping", "ParcelsAllocated")), None)
        self.parcels: dict[str, Parcel] = {}
        if self.allocated:
            self.parcels = {parcel_id: Parcel(plan) for parcel_id, plan in self.allocated.plans.items()}
        self.regime = self.placed.regime if self.placed else ""
        if self.placed and self.placed.china and self.placed.china.mode == "1210":
            self.regime = "bonded"
        self.broken: list[tuple[str, list[str]]] = []
        self.steps = 0
        self.promised: tuple[tuple[str, str, int], ...] = ()
        self.stock: Counter[tuple[str, str, str]] = Counter()
        # (event, parcel, what was told, what it is): refunds and claims as shipping priced them.
        self.priced: list[tuple[Event, str, int, int]] = []
        # (event, the parcel's plan before, what is missing of what its buyer owed for it)
        self.splits: list[tuple[Event, Plan, int]] = []
        granted = {}
        for event in story.events["orders"]:
            if event.type == "DisputeResolved" and event.data == "lost":
                self._parcel(event, event.parcels[0][0]).dispute_lost = True
            elif event.type == "RefundGranted":
                granted[event.data[0]] = event.data[1]
        self._granted: dict[str, int | None] = granted
        self.quota = self._fold_quota()
        self._walk_goods()
        self._walk_money()
        self.states = self._walk_order()
        self._walk_returns()

    def _fold_quota(self) -> Counter[str]:
        """Column of the quota table -> fen that this order put into it."""
        sums: Counter[str] = Counter()
        if self.placed and self.placed.china:
            sums["reserved"] = self.placed.china.value
        for event in self.story.of("orders", "QuotaMoved"):
            kind, amount = event.data
            sums[QUOTA_KINDS[kind]] += amount
        return sums

    def allocated_as(self, parcel_id: str) -> Parcel:
        """The parcel as which its goods were allocated, and paid for: itself, or what it was split off."""
        parcel = self.parcels[parcel_id]
        return self.allocated_as(parcel.of) if parcel.of else parcel

    def of(self, *types: str) -> list[Event]:
        return [e for e in self.story.all() if e.type in types]

    # -- goods ----------------------------------------------------------------------------------------------------

    def _walk_goods(self) -> None:
        machine = PARCEL.get(self.regime)
        for event in self.story.events["shipping"]:
            if event.type == "StockReceived":
                warehouse, sku, units, arrived = event.data
                self.stock[warehouse, sku, "received"] += units
                self.stock[warehouse, sku, "arrived"] += arrived
            elif event.type == "HarvestExpected":
                warehouse, sku, units = event.data
                self.stock[warehouse, sku, "announced"] += units
            elif event.type in ("PreSold", "SeasonOpened", "AllocationFailed"):
                self._promise(event)
            elif event.type == "ParcelSplit":
                self._split(event)
            elif event.type == "InventoryAdjusted":  # booked as a reservation that found nothing
                warehouse, sku, units = event.data
                self.stock[warehouse, sku, "reserved"] += units
                self.stock[warehouse, sku, "shrunk"] += units
            for parcel_id, _ in event.parcels:
                parcel = self._parcel(event, parcel_id)
                before = parcel.goods
                if machine and event.type not in PROMISE_EVENTS:
                    parcel.goods = self._step(machine, parcel.goods, event, parcel_id)
                    if (event.type in _PAPERS) and self.regime != "domestic":
                        parcel.paper = self._step(DECLARATION, parcel.paper, event, parcel_id)
                parcel.first.setdefault(event.type, event.time)
                value = parcel.value if event.type in _PRICED else 0
                self._move_goods(parcel, event, before)
                if event.type in _PRICED:
                    self._price(parcel, parcel_id, event, value)

    def _move_goods(self, parcel: Parcel, event: Event, before: str) -> None:
        """Stock and debt, as this event changes them; shipping tells no more than these numbers."""
        kind, goods = event.type, event.data
        if kind == "ParcelsAllocated":
            self._stock(parcel, "reserved", parcel.left)
        elif kind == "BackorderFilled":
            parcel.plan = parcel.plan and parcel.plan._replace(warehouse=goods.ref, way=goods.way)
            self._stock(parcel, "reserved", parcel.left)
        elif kind == "ParcelPacked":
            self._stock(parcel, "consumed", parcel.left)
        elif kind == "ParcelHandedOver":
            parcel.handovers += 1
            parcel.shipped = dict(parcel.left)
        elif kind == "ParcelReplaced":
            self._stock(parcel, "reserved", parcel.left)
            parcel.boxes.append(goods.ref)
        elif kind == "ParcelCancelled":
            # A pick that found nothing at all ends the parcel: what was reserved is neither free nor on the shelf.
            how = "restocked" if before == "packed" else "shrunk" if goods.ref == "short_pick" else "released"
            self._stock(parcel, how, parcel.left)
        elif kind == "ParcelReturned":
            self._stock(parcel, "restocked", parcel.left)
        elif kind in _CUTS:
            self._stock(parcel, _CUTS[kind], dict(goods.lines))
            for line_no, units in goods.lines:
                parcel.left[line_no] = parcel.left.get(line_no, 0) - units
        if isinstance(goods, Goods):
            parcel.lowered += goods.refund
            parcel.claimed += goods.claim if kind == "ClaimPaid" else 0

    def _split(self, event: Event) -> None:
        """Part of a parcel's plan is another's; stock stays as it is."""
        [(parcel_id, _), (part_id, _)] = event.parcels
        first, split = self._parcel(event, parcel_id), event.data
        before = first.value
        if first.plan is None:
            return
        was = first.plan
        first.plan = split.rest._replace(warehouse=was.warehouse, sscc=was.sscc, waybill_no=was.waybill_no, way=was.way)
        for line_no, (_, units) in split.part.lines.items():
            first.left[line_no] = first.left.get(line_no, 0) - units
        self.parcels[part_id] = part = Parcel(split.part, parcel_id)
        self.splits.append((event, was, before - first.value - part.value))

    def _promise(self, event: Event) -> None:
        """Units held of a harvest; they are held until the season opens or the order ends before."""
        if event.type == "PreSold":
            self.promised = event.data[2]
        for warehouse, sku, units in self.promised:
            self.stock[warehouse, sku, "presold" if event.type == "PreSold" else "unsold"] += units
        if event.type != "PreSold":
            self.promised = ()

    def _price(self, parcel: Parcel, parcel_id: str, event: Event, before: int) -> None:
        """What the buyer owes less by this event must be what left the parcel, at the price it was allocated for."""
        goods = event.data
        if event.type == "GrantPriced":
            asked = self._granted.get(goods.ref)
            right = min(before, goods.refund if asked is None else asked)
            parcel.granted += goods.refund
        else:
            parcel.undone = parcel.undone or event.type in _UNDOING
            right = before - parcel.value
        self.priced.append((event, parcel_id, goods.refund, right))
        if event.type == "ParcelLost":
            self.priced.append((event, parcel_id, goods.claim, parcel.worth))

    def _stock(self, parcel: Parcel, kind: str, units: dict[int, int]) -> None:
        for line_no, count in units.items():
            if count and parcel.plan and parcel.plan.warehouse and line_no in parcel.plan.lines:
                self.stock[parcel.plan.warehouse, parcel.plan.lines[line_no][0], kind] += count

    # -- money ----------------------------------------------------------------------------------------------------

    def _walk_money(self) -> None:
        for event in self.story.events["payments"]:
            for parcel_id, amount in event.parcels:
                parcel = self._parcel(event, parcel_id)
                before = parcel.money
                if event.type not in CORRESPONDENCE:
                    parcel.money = self._step(PAYMENT, before, event, parcel_id)
                if event.type in _OF_CHARGEBACKS:
                    parcel.chargebacks[event.data.ref] = self._step(
                        CHARGEBACK, parcel.chargebacks.get(event.data.ref, NEW), event, f"{event.data.ref} of {parcel_id}")
                parcel.first.setdefault(event.type, event.time)
                self._move_money(parcel, parcel_id, event, amount, before)
                parcel.low = min(parcel.low, parcel.held)

    def _divide(self, parcel: Parcel, event: Event, amount: int) -> None:
        """Escrow from one parcel to another. What a bank had taken for good of the first may be the other's goods' worth."""
        first = self._parcel(event, event.data.ref)
        first.captured -= amount
        parcel.captured += amount
        short = parcel.plan.amount - amount if parcel.plan else 0
        first.bank_lost, parcel.bank_lost = first.bank_lost - short, short
        parcel.chargebacks = dict(first.chargebacks)
        first.low = min(first.low, first.held)

    def _move_money(self, parcel: Parcel, parcel_id: str, event: Event, amount: int, before: str) -> None:
        if event.type == "PaymentHeld":
            parcel.captured += amount
            plan = self.allocated.plans.get(parcel_id) if self.allocated else None
            parcel.gone = plan.amount - amount if plan else 0
        elif event.type == "PaymentDivided":
            self._divide(parcel, event, amount)
        elif event.type in REFUNDS:
            parcel.refunded += amount
            parcel.gone += amount if event.data.why != "granted" else 0
            parcel.by_hand += amount if event.data.via == "manual_payout" else 0
        elif event.type == "PaymentSettled":
            parcel.released += amount
            parcel.releases.append(Release(event, amount, parcel.gone, before == "recovered"))
        elif event.type == "PaymentChargedBack":
            parcel.charged_back += amount
        elif event.type == "FundsRecovered":
            parcel.recovered += amount
            parcel.made_good += amount if event.data.via == "carrier" else 0
        elif event.type in ("ChargebackOpened", "SecondChargeback"):
            parcel.charged_back += amount
            parcel.bank_took += amount
            parcel.recovered += amount - dict(event.data.parts)["escrow"]
        elif event.type == "ChargebackReversed":
            parcel.charged_back -= amount
            parcel.bank_took -= amount
            parcel.released += amount - dict(event.data.parts)["escrow"]
        elif event.type in ("ChargebackLost", "ChargebackPartlyLost"):
            parcel.bank_lost += amount
        elif event.type == "TaxAssessed":
            parcel.assessed = event
        elif event.type == "TaxReclaimed":
            parcel.reclaims.append(event)

    # -- machines -------------------------------------------------------------------------------------------------

    def _parcel(self, event: Event, parcel_id: str) -> Parcel:
        parcel = self.parcels.get(parcel_id)
        if parcel is None:
            if self.allocated:
                self.broken.append((f"parcel {parcel_id}", [str(event), f"the order has no parcel {parcel_id}"]))
            parcel = self.parcels[parcel_id] = Parcel(None)
        return parcel

    def _step(self, machine: Machine, state: str, event: Event, instance: str) -> str:
        self.steps += 1
        to = machine.next.get((state, event.type))
        if to is None:
            self.broken.append((machine.name, [str(event), f"{machine.name} {instance} is {state!r}: the table has no such row"]))
            ends = {row.to for row in machine.rows if row.event == event.type}
            return ends.pop() if len(ends) == 1 else state
        return to

    def _walk_order(self) -> set[str]:
        """Orders tells its own steps; those that shipping and payments cause in between are silent, so that several
        states are possible at once. A silent step needs its event somewhere in the story."""
        happened = {e.type for e in self.story.all()} & _OUTSIDE_ORDERS
        states = self._silent({NEW}, happened)
        for event in self.story.events["orders"]:
            if event.type in ASIDE:
                continue
            self.steps += 1
            after = {ORDER.next[s, event.type] for s in states if (s, event.type) in ORDER.next}
            if after:
                states = self._silent(after, happened)
            else:
                self.broken.append(("order", [str(event), f"the order may be {sorted(states)}: the table has no such row"]))
        return states

    @staticmethod
    def _silent(states: set[str], happened: set[str]) -> set[str]:
        found, frontier = set(states), list(states)
        while frontier:
            here = frontier.pop()
            for event in happened:
                to = ORDER.next.get((here, event))
                if to is not None and to not in found:
                    found.add(to)
                    frontier.append(to)
        return found

    def _walk_returns(self) -> None:
        """Each return's events come from three services, each in its order: some interleaving must be a path."""
        asked = self.story.of("orders", "ReturnRequested", "ReturnExpired")
        for return_id in dict.fromkeys(e.data for e in asked):
            queues = [
                [e for e in asked if e.data == return_id],
                [e for e in self.story.of("shipping", "ReturnAuthorised", "ReturnReceived") if e.data.ref == return_id],
                [e for e in self.story.events["payments"] if isinstance(e.data, Money) and e.data.ref == return_id],
            ]
            self.steps += sum(map(len, queues))
            if not _interleaves(RETURN, queues):
                self.broken.append(("return", [f"return {return_id!r}", *[str(e) for q in queues for e in q],
                                               "no order of these events is a path of the table"]))


def _interleaves(machine: Machine, queues: list[list[Event]]) -> bool:
    """Whether the queues can be merged, each keeping its order, into one path of the machine."""
    start = (NEW, *[0] * len(queues))
    seen, frontier = {start}, [start]
    while frontier:
        state, *at = frontier.pop()
        if all(n == len(queue) for n, queue in zip(at, queues, strict=True)):
            return True
        for n, queue in enumerate(queues):
            to = machine.next.get((state, queue[at[n]].type)) if at[n] < len(queue) else None
            if to is not None:
                further = (to, *at[:n], at[n] + 1, *at[n + 1:])
                if further not in seen:
                    seen.add(further)
                    frontier.append(further)
    return False


_UNDOING = {"ParcelCancelled", "CustomsRefused", "ParcelReturned", "ParcelDestroyed", "QualityRefunded", "ParcelLost"}
_PRICED = _UNDOING | {"ParcelShortPicked", "ParcelLinesCancelled", "ReturnReceived", "GrantPriced"}
_PAPERS = {row.event for row in DECLARATION.rows}
_CUTS = {"ParcelShortPicked": "shrunk", "ParcelLinesCancelled": "released", "ReturnReceived": "restocked"}
