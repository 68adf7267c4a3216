"""The three services in memory: real `read`, `Batch` and machines; lists for topics, a dictionary for each database.

`World` delivers records in any interleaving a seeded random generator picks, once or twice, which is what Kafka may do
across topics. It tells one story at a time; `system.py` tells all of them, with the same `specs` and `settle`.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.ledger import ASIDE, side
from schemas.merchants import MERCHANT, ApproveMerchant, RegisterMerchant
from schemas.orders_intake import Bonded, OrderLine, PlaceOrder
from schemas.parties import Person, seal
from schemas.topics import INTAKE, MODELS, ORDER, PAYMENT, PROVIDER_RESULT, REPORT, SHIPMENT, TOPICS
from services.orders import machine as orders
from services.orders import quota
from services.orders import storage as orders_storage
from services.orders.terms import FxRow, Plan
from services.payments import machine as payments
from services.runtime.batch import Batch, Out, envelope_for
from services.runtime.decision import BRANDED, INTERNAL, LANES, PROTECTED, STANDING, TIMER, WALKED, Incoming, Standing
from services.runtime.spec import Spec, read
from services.runtime.track import Entry, Record, Track
from services.shipping import machine as shipping
from services.shipping import storage

KEY = bytes(range(32))
PLATFORM = "TRADEWIND0"
MERCHANT_ID = "m1"  # of all orders here
START = datetime(2026, 11, 23, 12, tzinfo=UTC)
TOPIC_OF = {model.__name__: topic.name for topic in TOPICS for model in topic.messages}
# Only "split" registers, so that his orders are split and all others are not.
_DAYS = {"valid_from": START.date() - timedelta(days=400), "source": "for the explorer"}
TERMS = orders.Book(
    (Plan(id="p1", plan="all", fee=500, fee_fixed={"USD": 30}, withheld=100, withheld_for="US", reserve=1000,
          reserve_days=90, **_DAYS), Plan(id="p2", plan="more", fee=900, **_DAYS)),
    (FxRow(id="fx1", base="GBP", quote="USD", rate="1.2345", **_DAYS), FxRow(id="fx2", base="CNY", quote="USD", rate="0.1408", **_DAYS)))
_SPLIT = f"{MERCHANT}split"
REGISTERED = (
    RegisterMerchant(order_id=_SPLIT, legal_name="Split", country="US", registration_no="1", fee_plan="all", payout_currency="USD",
                     payout_token="acct"), ApproveMerchant(order_id=_SPLIT, decided_by="officer"))


def specs(plans=None, resends: int = 3, real_names: bool = False) -> list[Spec]:
    """`plans`: the network that parcels travel on; without one nothing is promised. `resends`: how often wrong papers into China
    may be corrected; `real_names`: a registry is asked whose identity numbers are."""
    def decide_order(state, document, incoming, shared, now):
        return orders.decide(state, document, incoming, KEY, now, None, shared, terms=TERMS, platform=PLATFORM,
                             real_names=real_names)

    return [
        Spec("orders", (INTAKE, PAYMENT, SHIPMENT), ORDER, frozenset(orders.HANDLERS) - INTERNAL, orders.Order, decide_order,
             orders.STATE, orders.DOCUMENT, quota.shared_keys, orders_storage, WALKED | {PROTECTED}),
        Spec("payments", (ORDER, SHIPMENT, PROVIDER_RESULT), PAYMENT, frozenset(payments.HANDLERS) - INTERNAL,
             payments.Account, payments.decide, payments.STATE, walked_for=WALKED - {"frozen"}),
        Spec("shipping", (ORDER, PAYMENT, REPORT), SHIPMENT, frozenset(shipping.HANDLERS) - INTERNAL, shipping.Shipment,
             partial(shipping.decide, plans=plans, resends=resends), shipping.STATE, shipping.DOCUMENT, shipping.shared_keys, storage,
             WALKED | {LANES}),
    ]


class EveryQuota(orders_storage.Rows):
    """All persons' rows, always locked."""

    def __init__(self):
        super().__init__(set())

    def _need(self, key: str) -> None:
        pass


_SERIALS = itertools.count()  # several worlds may be told as one


class EveryStock(storage.Stock):
    """All stock rows, always locked: there is nobody else."""

    def __init__(self):
        super().__init__(set(), [], _SERIALS)

    def _need(self, sku: str) -> None:
        pass


def settle(batch: Batch) -> dict[str, Entry]:
    """The batch's drafts as a database would have them after the commit: order id -> entry. AssertionError when what would
    be stored does not come back the same, for then a crash would change the order."""
    kept = {}
    for order_id, draft in batch.drafts.items():
        if not draft.stored and not draft.seq and draft.track == Track():
            continue  # only a dead letter named this order
        encoded = batch.spec.state_type.dump_json(draft.state)
        assert batch.spec.state_type.validate_json(encoded) == draft.state, f"state does not survive its database: {draft.state}"
        draft.armed, draft.stored = None if draft.state.closed else draft.state.due(), True
        kept[order_id] = draft
    return kept


@dataclass
class Party:
    """One service: its orders, and how far it has read each topic."""

    spec: Spec
    entries: dict[str, Entry] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    ledger: list[tuple] = field(default_factory=list)
    known: dict[str, Standing] = field(default_factory=dict)


class World:
    """Topics, services and a clock. `outside(event, world)` stands for everybody else."""

    def __init__(self, outside, seed: int = 0, plans=None, real_names: bool = False):
        self.outside, self.random = outside, random.Random(seed)
        self.parties = {spec.name: Party(spec) for spec in specs(plans, real_names=real_names)}
        self.topics: dict[str, list[tuple[bytes, bytes, tuple]]] = defaultdict(list)
        self.now = START
        self.stock, self.quota = EveryStock(), EveryQuota()
        self.events: list[Out] = []
        self.dead: list[Out] = []
        self.intents: list[tuple[str, object]] = []
        self.commands = 0

    def send(self, message, source: str = "/storefront", id: str | None = None) -> None:
        """Publish a command or report from outside."""
        self.commands += 1
        name, topic = type(message).__name__, TOPIC_OF[type(message).__name__]
        envelope = Envelope(id or f"{name}-{self.commands}", name, source, self.now, message.order_id)
        value = message.model_dump_json().encode()
        self.topics[topic].append((message.order_id.encode(), value, tuple(headers_of(envelope, dataschema_of(topic, name)))))

    def run(self, steps: int = 10_000, doubles: bool = False) -> None:
        """Until nothing is left to read: pick a service and a topic, let it read a few records; repeat."""
        for _ in range(steps):
            ready = [(p, t.name) for p in self.parties.values() for t in p.spec.inputs
                     if p.positions[t.name] < len(self.topics[t.name])]
            if not ready:
                return
            party, topic = self.random.choice(ready)
            count = self.random.randint(1, 4)
            self._read(party, topic, count)
            if doubles and self.random.random() < 0.2:  # a crash between commit and acknowledgement: published twice
                self.topics[party.spec.output.name].extend(self.topics[party.spec.output.name][-1:])
        raise AssertionError("the system does not come to rest")

    def wait(self, **delta) -> None:
        """Let trade time pass: timers fire one after the other, and what follows from them happens in between."""
        until = self.now + timedelta(**delta)
        while True:
            due = [(e.armed, name, order_id) for name, p in self.parties.items() for order_id, e in p.entries.items()
                   if e.armed is not None and e.armed <= until]
            if not due:
                break
            moment, name, order_id = min(due)
            self.now = max(self.now, moment)
            incoming = Incoming(TIMER, f"timer:{order_id}:{moment}", "timer", 0, self.now, None)
            self._apply(self.parties[name], [Record("timer", 0, order_id.encode(), None, (), order_id, incoming)])
            self.run()
        self.now = until

    def state(self, service: str, order_id: str = "A1"):
        return self.parties[service].entries[order_id].state

    def types(self, *names: str) -> list[str]:
        """The types of all events in the order of publication; of the named topics' owners, if any."""
        return [e.type for e in self.events if not names or e.topic.split(".")[0] in names]

    def balance(self) -> dict[str, int]:
        """The ledger by the names of the order's equation (`schemas.ledger.side`); together always zero."""
        sums: dict[str, int] = defaultdict(int)
        for row in self.parties["payments"].ledger:
            sums[side(row[2], row[7])] += row[4]
        assert sum(sums.values()) == 0 == sums.pop(ASIDE, 0), sums
        return dict(sums)

    def accounts(self) -> dict[str, int]:
        """The ledger's accounts, without those that are even; together always zero, in every currency."""
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for row in self.parties["payments"].ledger:
            sums[row[2], row[3]] += row[4]
        for currency in {currency for _, currency in sums}:
            assert sum(amount for (_, own), amount in sums.items() if own == currency) == 0, sums
        currencies = {currency for _, currency in sums}
        return {name if len(currencies) == 1 else f"{name} {own}": amount for (name, own), amount in sums.items() if amount}

    # -- inside ---------------------------------------------------------------------------------------------------

    def _read(self, party: Party, topic: str, count: int) -> None:
        start = party.positions[topic]
        raw = self.topics[topic][start:start + count]
        party.positions[topic] = start + len(raw)
        found = (read(party.spec, topic, start + n, key, value, headers) for n, (key, value, headers) in enumerate(raw))
        self._apply(party, [record for record in found if record is not None])

    def _apply(self, party: Party, records: list[Record]) -> None:
        shared = {"shipping": self.stock, "orders": self.quota}.get(party.spec.name)
        batch = Batch(party.spec, 0, 1, party.entries, shared, self.now, known=party.known)
        for record in records:
            batch.handle(record)
        party.known |= batch.standings
        party.entries.update(settle(batch))
        party.ledger.extend(batch.rows.get("ledger", ()))
        for out in batch.out:
            if out.headers is not None:
                self.dead.append(out)
                continue
            headers = tuple(headers_of(envelope_for(out), dataschema_of(out.topic, out.type)))
            self.topics[out.topic].append((out.key, out.value, headers))
            self.events.append(out)
            self.outside(MODELS[out.type].model_validate_json(out.value), self)
        for order_id, intent in batch.intents:
            self.outside((order_id, intent), self)
        for merchant in [m for m, row in batch.standings.items() if row.status in party.spec.walked_for]:
            self._apply(party, [Record("standing", 0, o.encode(), None, (), o, Incoming(STANDING, "", "", 0, self.now, None))
                                for o, e in party.entries.items() if not e.state.closed and (
                                    merchant in (e.state.merchant_id, LANES) or merchant.startswith(BRANDED))])


def order(order_id: str = "A1", destination: str = "DE", lines=(("CHERRY", 2, 5000),), freight: int = 700,
          on_shortage: str = "ship_available", token: str = "tok_ok", **more) -> PlaceOrder:
    """A PlaceOrder of (sku, quantity, amount) lines from the US; into China in its currency, as its customs wants it."""
    person = seal(Person(name="Mei Lin", address="1 Long Road"), KEY)
    fields = dict(
        order_id=order_id, merchant_id=MERCHANT_ID, currency="CNY" if destination == "CN" else "USD", origin="US", destination=destination, freight=freight,
        lines=[OrderLine(line_no=n, sku=s, quantity=q, amount=a, hs_code="9503008900" if destination == "CN" else None)
               for n, (s, q, a) in enumerate(lines, 1)],
        total=sum(a for _, _, a in lines) + freight, on_shortage=on_shortage, payment_token=token, buyer=person,
        consignee=person, placed_at=START)
    return PlaceOrder(**(fields | more))


def bonded_order(order_id: str = "A1", **more) -> PlaceOrder:
    """The same into China from a bonded warehouse there (mode 1210)."""
    made = order(order_id, "CN", **more)
    return made.model_copy(update={"bonded": Bonded(ems_no="T2231W000123", area_code="310066"), "lines": [
        line.model_copy(update={"item_record": f"R{line.line_no}"}) for line in made.lines]})
