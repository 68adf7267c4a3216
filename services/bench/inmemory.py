"""The three services in memory: each reads, decides and encodes as its partition's owner does, and its processor time is counted.

Left out is what the parts of the trade do not change: fetching, PostgreSQL's and Kafka's own work. What a part adds there
follows from the bytes and rows it adds, which are counted. Nothing outside takes any time, and no deadline passes.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime

from schemas.cold_chain import Reading, Watch
from schemas.envelope import dataschema_of, event_id, headers_of_type, stamp
from schemas.orders_intake import AnswerRealName, PlaceOrder
from schemas.shipping_sensor import SensorReported
from schemas.topics import INTAKE, MODELS, PROVIDER_RESULT, SENSOR
from services.explorer.simulation import EveryQuota, EveryStock
from services.orders import denied, quota
from services.orders import app as orders_app
from services.orders import machine as orders_machine
from services.orders.real_name import REGISTRY, key_of
from services.orders.rulebook import Rules
from services.orders.terms import NOBODY, Book
from services.payments import app as payments_app
from services.payments.answers import CALLER, headers_for as answer_headers, value_of
from services.payments.effects import call_of
from services.payments.providers.inprocess import InProcessProvider
from services.runtime.batch import Batch
from services.runtime.decision import Intent, Standing
from services.runtime.reader import Fields, Raw
from services.runtime.relay import headers_for, pack
from services.runtime.settings import SERVICES, Settings
from services.runtime.spec import OURS, Spec, read_raw
from services.shipping import app as shipping_app
from services.shipping import machine as shipping_machine
from services.shipping.plans import Plans
from services.shipping.storage import StockMove
from services.simulators.edge import STOREFRONT, place_id
from services.simulators.outsiders import Heard, Memory
from services.simulators.reactions import NOTED, ROLES, TABLE, react, remember
from services.simulators.scenario import warehouse_of

VIEW = "cold_view"  # the fold of its readings; what Faust costs beside it is Faust's
PROCESSES = (*SERVICES, VIEW)
_PLENTY = 10**9


@dataclass(frozen=True)
class Platform:
    """What the services are started with, beside the settings. `plans`: the network; None: nothing is promised. `standing`: the
    row of each merchant that has one; `quota`: whether a person's year is counted; `real_names`: a registry is asked, and knows
    everybody."""

    plans: Plans | None = None
    lists: tuple[denied.DeniedList, ...] = ()
    terms: Book = NOBODY
    registered_only: bool = False
    standing: dict[str, Standing] = field(default_factory=dict)
    quota: bool = True
    real_names: bool = False


@dataclass
class Account:
    """What some orders cost: processor seconds by process, records and bytes of them that were published."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PROCESSES, 0.0))
    records: int = 0
    bytes: int = 0


class System:
    """The services of one platform, and a world in which each order goes the way of `scenario`."""

    def __init__(self, settings: Settings, rules: Rules, platform: Platform, scenario: str, now: datetime):
        self._platform, self._scenario, self._now = platform, scenario, now
        self._specs = _specs(settings, rules, platform)
        self._readers: dict[str, list[str]] = defaultdict(list)
        for spec in self._specs.values():
            for topic in spec.inputs:
                self._readers[topic.name].append(spec.name)
        self._shared = {"orders": EveryQuota(), "shipping": EveryStock()}
        self.entries: dict[str, dict] = {name: {} for name in SERVICES}
        self._queues: dict[tuple[str, str], list[Raw]] = defaultdict(list)
        self._offsets: dict[str, itertools.count] = defaultdict(itertools.count)
        self._memory, self._provider = Memory(seed=0, fast=True), InProcessProvider(knows_all=True)
        self._watches: dict[str, Watch] = defaultdict(Watch)
        self._stocked: set[str] = set()
        self.account = Account()

    def carry(self, orders: Iterable[PlaceOrder]) -> None:
        """Place these orders, and go on until nothing is left to do. AssertionError when one of them has not ended."""
        placed = list(orders)
        for order in placed:
            self._stock(order)
            self._told(INTAKE.name, order, place_id(order.order_id), STOREFRONT, place_id(order.order_id), "", order.merchant_id)
        with nullcontext() if self._platform.quota else _uncounted(), _collecting_nothing():
            while ready := [key for key, queue in self._queues.items() if queue]:
                for service, topic in ready:
                    self._turn(self._specs[service], topic, self._queues.pop((service, topic), []))
        for order in placed:
            state = self.entries["orders"][order.order_id].state
            assert state.closed and state.status == "completed", f"{order.order_id} ends {state.status}: {state.reason}"

    def _turn(self, spec: Spec, topic: str, raws: list[Raw]) -> None:
        """One batch, as an owner takes it."""
        began = time.thread_time()
        records = [record for raw in raws if (record := read_raw(spec, topic, raw)) is not None]
        if spec.shared_keys is not None:
            for record in records:
                entry = self.entries[spec.name].get(record.order_id)
                spec.shared_keys(entry and entry.state, entry and entry.document, record.incoming)
        batch = Batch(spec, 0, 1, self.entries[spec.name], self._shared.get(spec.name), self._now,
                      known=self._platform.standing)
        for record in records:
            batch.handle(record)
        encode, encode_document = spec.state_type.serializer.to_json, spec.document_type and spec.document_type.serializer.to_json
        for draft in batch.drafts.values():
            draft.track.encode(), encode(draft.state), draft.state.due()
            draft.stored = True
        for _, document in batch.documents:
            encode_document(document)
        pack(batch.out)
        headers = [headers_for(out) for out in batch.out if out.headers is None]
        self.account.seconds[spec.name] += time.thread_time() - began
        dead = [dict(out.headers)["__dlq.errors.detail"] for out in batch.out if out.headers is not None]
        assert not dead, f"{spec.name} refuses a record of {self._scenario}: {dead[0].decode()}"
        self.entries[spec.name].update(batch.drafts)
        for out, written in zip(batch.out, headers, strict=True):
            self._publish(out, written)
        for order_id, intent in batch.intents:
            self._perform(order_id, intent)

    def _publish(self, out, headers: list[tuple[str, bytes]]) -> None:
        source, order_id = OURS[out.topic], out.key.decode()
        id_ = event_id(source, order_id, out.sequence)
        self._put(out.topic, out.key, out.value, headers, out.type,
                  Fields(source, id_, stamp(out.time).decode(), order_id, out.correlation, out.causation, out.merchant, out.sequence))
        if out.type == "OrderHeld" and self._platform.real_names:
            answer = AnswerRealName(order_id=order_id, outcome="match", decided_by="registry")
            self._told(INTAKE.name, answer, key_of(order_id), REGISTRY, out.correlation, id_, out.merchant)
        listening = [role for role in ROLES if out.type in TABLE[role]]
        if not listening and out.type not in NOTED:
            return
        heard = Heard(id_, MODELS[out.type].model_validate_json(out.value), stamp(out.time).decode())
        for role in listening:
            for said in react(role, heard, self._scenario, self._memory):
                if said.topic == SENSOR.name:
                    self._measured(said.message)
                else:
                    self._told(said.topic, said.message, said.id, said.source, out.correlation, id_, out.merchant)
        if out.type in NOTED:
            remember(heard, self._scenario, self._memory)

    def _perform(self, order_id: str, intent: Intent) -> None:
        answer, body, name = self._provider.perform(intent.kind, call_of(order_id, intent)), intent.body, "ProviderAnswered"
        value = value_of(order_id, intent.intent_id, body["payment_id"], intent.kind, answer.outcome, answer.amount,
                         body["currency"], answer.reference, answer.reason)
        headers = answer_headers(intent.intent_id, order_id, CALLER, self._now)
        self._put(PROVIDER_RESULT.name, order_id.encode(), value, headers, name, Fields(
            CALLER, f"answer:{intent.intent_id}", stamp(self._now).decode(), order_id, "", intent.intent_id, "", 0))

    def _told(self, topic: str, message, id_: str, source: str, correlation: str, causation: str, merchant: str) -> None:
        """Somebody outside publishes."""
        name, key = type(message).__name__, message.order_id
        moment = stamp(self._now)
        headers = [*headers_of_type(name, dataschema_of(topic, name)), ("ce_source", source.encode()), ("ce_id", id_.encode()),
                   ("ce_time", moment), ("ce_subject", key.encode()), ("ce_correlationid", correlation.encode()),
                   ("ce_causationid", causation.encode()), ("ce_merchant", merchant.encode())]
        self._put(topic, key.encode(), message.__pydantic_serializer__.to_json(message), headers, name,
                  Fields(source, id_, moment.decode(), key, correlation, causation, merchant, 0))

    def _put(self, topic: str, key: bytes, value: bytes, headers, name: str, fields: Fields) -> None:
        raw = Raw(next(self._offsets[topic]), key, value, headers, name.encode(), fields)
        self.account.records += 1
        self.account.bytes += len(value) + sum(len(k) + len(v) for k, v in headers)
        for service in self._readers[topic]:
            if name in self._specs[service].handled:
                self._queues[service, topic].append(raw)

    def _measured(self, message: SensorReported) -> None:
        """What the view does with one report of a logger."""
        value = message.__pydantic_serializer__.to_json(message)
        self.account.records += 1
        self.account.bytes += len(value)
        began = time.thread_time()
        told = SensorReported.model_validate_json(value)
        for element in told.sensor_element_list:
            for reading in element.sensor_report:
                self._watches[told.parcel_id].take(Reading(int(reading.time.timestamp()), reading.value_tenths),
                                                   element.sensor_metadata.band)
        self.account.seconds[VIEW] += time.thread_time() - began

    def _stock(self, order: PlaceOrder) -> None:
        for line in order.lines:
            if line.sku not in self._stocked:
                self._stocked.add(line.sku)
                self._shared["shipping"].apply(StockMove(warehouse_of(line.sku), line.sku, "receive", _PLENTY))


@contextmanager
def _uncounted() -> Iterator[None]:
    """No order is an import whose buyer's year counts. Nothing can be set for that: it is the law."""
    asked, quota.is_import = quota.is_import, lambda command: False
    try:
        yield
    finally:
        quota.is_import = asked


@contextmanager
def _collecting_nothing() -> Iterator[None]:
    """As the services, which freeze what they have and collect seldom."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _specs(settings: Settings, rules: Rules, platform: Platform) -> dict[str, Spec]:
    """The services' own, started otherwise."""
    key = settings.vault_key_bytes()

    def decide_order(state, document, incoming, shared, now):
        return orders_machine.decide(state, document, incoming, key, now, rules, shared, platform.registered_only,
                                     platform.terms, platform.lists, settings.china_platform, real_names=platform.real_names)

    def decide_shipment(state, document, incoming, shared, now):
        return shipping_machine.decide(state, document, incoming, shared, now, settings.gs1_prefix, platform.plans)

    return {"orders": replace(orders_app.spec(settings), decide=decide_order), "payments": payments_app.spec(settings),
            "shipping": replace(shipping_app.spec(settings), decide=decide_shipment)}
