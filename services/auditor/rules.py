"""What a rule is, what it is shown, and the list of all.

A rule about one order takes a `Case`, one about everything a `Whole`. It is a generator that yields one verdict for each
thing it looked at: None when that is right, else the evidence. So "0 violations" always comes with how much was checked.
Numbers are those of the invariants: intake 1-5, money 6-13, goods 14-15, events 16-23, the end 24-27, each service's topic
against its database 28, views 29, reads 30, what a person brings into China 32, its papers 47.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from schemas.ledger import side
from schemas.lifecycle import NEW, Machine
from services.auditor.facts import Facts
from services.auditor.story import SUBJECTS, Story
from services.auditor.watch import Watched

Verdict = list[str] | None
WholeVerdict = tuple[str, list[str]] | None


class Row(NamedTuple):
    """One order in one service's database. `last`: source -> last sequence seen; `state`: as the service stores it."""

    status: str
    closed: bool
    seq: int
    last: dict[str, int]
    state: dict[str, Any]


class Booking(NamedTuple):
    """One row of the ledger; minor units."""

    entry: int
    account: str
    currency: str
    amount: int
    payment_id: str
    parcel_id: str
    kind: str


class Call(NamedTuple):
    """One line of the provider's journal: a definite effect, or a refusal. `line`: its number, from 1."""

    line: int
    intent_id: str
    kind: str
    payment_id: str
    amount: int
    currency: str
    outcome: str


class Request(NamedTuple):
    """One message of a client, by its journal. `content`: digest of the value, as `story.digest_of`. Without an
    acknowledgement its outcome is unknown."""

    where: str
    id: str
    order_id: str
    type: str
    content: str
    acknowledged: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.type} {self.id!r}, {'acknowledged' if self.acknowledged else 'outcome unknown'}"


class DeadLetter(NamedTuple):
    """A record that a service refused: where it was, by whom, why. `content`: digest of key, value and headers as it has
    them, empty when it was cut; `replayed`: a person had sent that record again."""

    topic: str
    partition: int
    offset: int
    service: str
    reason: str
    detail: str
    order_id: str
    content: str = ""
    replayed: bool = False

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset} refused by {self.service}: {self.reason}: {self.detail}"


@dataclass(frozen=True)
class Journals:
    """What outsiders wrote down, by order. None: there is no such journal. `handovers`: order -> parcel -> carrier's numbers;
    `messages`: role -> hash of (source, id) -> digest of the content; `planted`: where a bad record was put -> service ->
    reason of the dead letter that it must become."""

    client: dict[str, list[Request]] | None = None
    provider: dict[str, list[Call]] | None = None
    handovers: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    messages: dict[str, dict[int, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    watched: Watched | None = None
    planted: dict[tuple[str, int, int], dict[str, str]] | None = None


HEARD_WITHIN = 40  # of a deadline's grace (120 s) that part in which every service and every order has heard of a thing


@dataclass
class Case:
    """One order, from every side. `rows` has no entry for a service that does not know the order. `grace`: trade time that
    may pass between a deadline and what it causes; `near`: until everybody has heard of a thing. `reads`: what a watcher read
    of it during the run."""

    story: Story
    rows: dict[str, Row]
    ledger: list[Booking]
    provider: list[Call] | None
    journals: Journals
    dead: set[tuple[str, int, int]]
    requests: list[Request] | None = None
    grace: timedelta = timedelta()
    reads: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.story)

    @cached_property
    def places(self) -> dict[str, tuple[str, int]]:
        """Event id -> (its service, its index in that service's events)."""
        return {f"{owner}:{self.story.order_id}:{e.sequence}": (owner, n)
                for owner, events in self.story.events.items() for n, e in enumerate(events)}

    @property
    def near(self) -> timedelta:
        return self.grace / HEARD_WITHIN

    @property
    def order_id(self) -> str:
        return self.story.order_id

    @property
    def is_stock(self) -> bool:
        return self.story.order_id.startswith(SUBJECTS)

    @cached_property
    def balances(self) -> Counter[tuple[str, str]]:
        """(parcel, name of the order's equation) -> sum of the ledger's rows."""
        sums: Counter[tuple[str, str]] = Counter()
        for row in self.ledger:
            sums[row.parcel_id, side(row.account, row.kind)] += row.amount
        return sums


@dataclass
class Funnel:
    """What the operators' views count, folded from the events: orders by stage, by end and by exit; minor units held."""

    reached: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)


@dataclass
class Whole:
    """What concerns no single order. `offsets`, `ends`: (service, topic, partition) or (topic, partition) -> offset;
    `needless`: timers of orders that have ended; `trial_balance`: currency -> sum of the ledger, `accounts`: (account,
    currency) -> the same; `looked`, `passed`: see watch.Watched; `views`: the answer of the operators'
    views, None: there was none. `parked`: what waits for no dead letter; `held`: order and (service, topic, partition, offset)
    of those that keep a queue, `waiting`: the same of all that is parked; `originals`: digests of the records that are dead
    letters. `numbers`: SSCC or waybill number -> parcels that have it."""

    stock: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    stock_of_events: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    quota: dict[str, dict[str, int]] = field(default_factory=dict)
    quota_of_events: Counter[tuple[str, str]] = field(default_factory=Counter)
    freezes: dict[str, list[Any]] = field(default_factory=dict)
    spans: dict[str, list[Any]] = field(default_factory=dict)
    agreed: dict[str, list[Any]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any]] | None = None
    brands: dict[str, Any] = field(default_factory=dict)
    sales: list[Any] = field(default_factory=list)
    units: dict[str, list[Any]] = field(default_factory=dict)
    grace: timedelta = timedelta()
    offsets: dict[tuple[str, str, int], int] = field(default_factory=dict)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    outbox: dict[tuple[str, int], int] = field(default_factory=dict)
    parked: list[tuple[str, str, str]] = field(default_factory=list)
    intents: list[tuple[str, str, str]] = field(default_factory=list)
    timers: list[tuple[str, str, datetime]] = field(default_factory=list)
    needless: list[tuple[str, str]] = field(default_factory=list)
    strangers: list[tuple[str, str]] = field(default_factory=list)
    ledger_guarded: bool = True
    trial_balance: dict[str, int] = field(default_factory=dict)
    accounts: dict[tuple[str, str], int] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    expected_dead_letters: int = 0
    live: bool = False
    planted: dict[tuple[str, int, int], dict[str, str]] | None = None
    originals: dict[tuple[str, int, int], str] = field(default_factory=dict)
    held: list[tuple[str, tuple[str, str, int, int]]] = field(default_factory=list)
    waiting: set[tuple[str, str, int, int]] = field(default_factory=set)
    looked: int = 0
    passed: list[dict[str, Any]] = field(default_factory=list)
    funnel: Funnel = field(default_factory=Funnel)
    views: dict[str, Any] | None = None
    newest: datetime | None = None
    numbers: dict[str, set[str]] = field(default_factory=dict)

    @property
    def near(self) -> timedelta:
        return self.grace / HEARD_WITHIN


@dataclass(frozen=True)
class Rule:
    """`live`: holds at any moment, not only once everything has come to rest. `stock`: also for `stock:` stories."""

    number: int
    name: str
    check: Callable[[Any], Iterator[Any]]
    live: bool
    stock: bool = False

    @property
    def label(self) -> str:
        return f"{self.number} {self.name}"


ORDER_RULES: list[Rule] = []
WHOLE_RULES: list[Rule] = []
RECORD_RULES = {17: "sequence 1..n, no gap, no decrease", 18: "one event id, one content",
                19: "one order, one partition, that of its key", 23: "valid, with a merchant, from its owner"}


def order_rule(number: int, name: str, *, live: bool = True, stock: bool = False):
    """Register a generator `check(case) -> Verdict`."""
    def register(check: Callable[[Case], Iterator[Verdict]]):
        ORDER_RULES.append(Rule(number, name, check, live, stock))
        return check
    return register


def whole_rule(number: int, name: str, *, live: bool = True):
    """Register a generator `check(whole) -> WholeVerdict`."""
    def register(check: Callable[[Whole], Iterator[WholeVerdict]]):
        WHOLE_RULES.append(Rule(number, name, check, live))
        return check
    return register


def steps_of(case: Case, machine: Machine, what: str) -> Iterator[Verdict]:
    """Whether the events of a subject that is no order are a path of its machine."""
    state = NEW
    for event in case.story.events["orders"]:
        if event.type == "CommandRefused":
            continue
        to = machine.next.get((state, event.type))
        yield None if to else [str(event), f"the {what} is {state!r}: the table has no such row"]
        state = to or state
