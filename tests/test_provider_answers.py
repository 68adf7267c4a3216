"""The ways of the provider's answer: callers and webhooks, onto the topic, once; also when the provider is killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from schemas.envelope import envelope_of
from schemas.payments_provider_result import DisputeTold, ProviderAnswered
from schemas.topics import PROVIDER_RESULT
from services.payments.effects import Effects, EffectsFailed
from services.payments.providers import Answer, CallRefused, ProviderPending, ProviderUnavailable
from services.payments.providers.http import HttpProvider
from services.payments.providers.inprocess import InProcessProvider
from services.payments.webhook import PATH, Edge
from services.runtime import processes
from services.runtime.clock import Clock
from services.runtime.decision import Intent
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from tests.provider_helpers import MANNERS, SECRET, call, journal, served, simulator, until

PARTITIONS = Settings.model_fields["partitions"].default


def intent(key: str, kind: str = "authorise", payment: str = "P-1", amount: int = 5_000, token: str = "tok_visa") -> Intent:
    return Intent(key, kind, {"payment_id": payment, "amount": amount, "currency": "EUR", "token": token,
                              "reference": "", "parcel_id": "K-1"})


class Producer:
    """Takes batches as aiokafka's producer does; `errors` are raised first, one a batch. Holds acks while `hold`."""

    def __init__(self, *errors: Exception, batch_size: int = 1_000_000):
        self.errors, self.batch_size, self.hold = list(errors), batch_size, False
        self.batches: list[tuple[int, list]] = []

    def create_batch(self) -> BatchBuilder:
        builder, records = BatchBuilder(self.batch_size, 0), []
        builder.records, append = records, builder.append

        def note(**record):
            done = append(**record)
            if done is not None:
                records.append((record["key"], record["value"], tuple(record["headers"])))
            return done

        builder.append = note
        return builder

    async def send_batch(self, builder, topic, *, partition):
        assert topic == PROVIDER_RESULT.name and builder.record_count()
        acknowledged = asyncio.get_running_loop().create_future()
        if self.errors:
            acknowledged.set_exception(self.errors.pop(0))
        else:
            self.batches.append((partition, builder.records))
            if not self.hold:
                acknowledged.set_result(None)
        return acknowledged

    @property
    def events(self) -> list[tuple[int, bytes, ProviderAnswered]]:
        return [(p, key, ProviderAnswered.model_validate_json(value)) for p, rs in self.batches for key, value, _ in rs]


class Fickle:
    """A provider that does what a list says: raises its errors, then answers; counts the calls of each key."""

    def __init__(self, *errors: Exception):
        self.errors, self.calls, self.gate = list(errors), [], asyncio.Event()
        self.gate.set()

    async def authorise(self, asked):
        self.calls.append(asked.intent_id)
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return Answer("failed", asked.amount, "ref\x00", "no\u0000 \u202eway" + "!" * 600)


@pytest.fixture
def start():
    """Makes Effects and stops them in the end."""
    made = []

    def make(producer, provider, **options) -> Effects:
        made.append(Effects(producer, provider, Clock.real(), linger_s=0, **options))
        return made[-1]

    yield make
    for effects in made:
        for task in effects._tasks:
            task.cancel()


# -- callers --------------------------------------------------------------------------------------------------------------


async def test_answers_are_batched_by_partition_and_named_after_their_intent(start) -> None:
    producer = Producer()
    effects = start(producer, InProcessProvider(knows_all=True))
    for n in range(10):
        await effects(n % 2, f"O-{n}", intent(f"i{n}", payment=f"P-{n}"))
    await until(lambda: effects.counts["answered"] == 10, "ten answers")
    assert len(producer.batches) == 2
    for partition, records in producer.batches:
        for key, value, headers in records:
            envelope, event = envelope_of(headers), ProviderAnswered.model_validate_json(value)
            assert (envelope.id, envelope.source, envelope.type) == (
                f"answer:{event.intent_id}", "payments-caller", "ProviderAnswered")
            assert key.decode() == event.order_id == envelope.subject and int(key[2:]) % 2 == partition
            assert event.outcome == "succeeded" and event.amount == 5_000
    await effects.stop()
    with pytest.raises(EffectsFailed):
        await effects(0, "O-1", intent("late"))


async def test_a_small_batch_size_splits_and_loses_nothing(start) -> None:
    producer = Producer(batch_size=2_000)
    effects = start(producer, InProcessProvider())
    for n in range(50):
        await effects(0, f"O-{n}", intent(f"i{n}", payment=f"P-{n}"))
    await until(lambda: effects.counts["answered"] == 50, "fifty answers")
    assert len(producer.batches) > 1 and [e.intent_id for *_, e in producer.events] == [f"i{n}" for n in range(50)]


async def test_the_same_key_is_tried_until_there_is_an_answer_and_its_bytes_never_change(start) -> None:
    producer, provider = Producer(), Fickle(*[ProviderUnavailable("down")] * 3)
    effects = start(producer, provider)
    await effects(3, "O-1", intent("i1"))
    await until(lambda: effects.counts["answered"] == 1, "the answer")
    await effects(3, "O-1", intent("i1"))  # as after another claim
    await until(lambda: effects.counts["answered"] == 2, "the answer again")
    assert provider.calls == ["i1"] * 5 and effects.counts["unavailable"] == 3
    (_, [first]), (_, [second]) = producer.batches
    assert first[:2] == second[:2]
    event = producer.events[0][2]
    assert event.provider_reference == "ref" and event.reason.startswith("no way!!!") and len(event.reason) == 500


async def test_in_flight_is_bounded_and_what_is_in_flight_is_not_queued_twice(start) -> None:
    producer, provider = Producer(), Fickle()
    provider.gate.clear()
    effects = start(producer, provider, in_flight_max=2)
    await effects(0, "O-1", intent("i1"))
    await effects(0, "O-1", intent("i1"))
    await effects(0, "O-2", intent("i2"))
    third = asyncio.create_task(effects(0, "O-3", intent("i3")))
    await until(lambda: len(provider.calls) == 2, "two calls")
    assert not third.done() and effects.counts["repeated"] == 1
    provider.gate.set()
    await asyncio.wait_for(third, 5)
    await until(lambda: effects.counts["answered"] == 3, "three answers")
    assert sorted(provider.calls) == ["i1", "i2", "i3"]


async def test_pending_calls_make_room_and_are_asked_seldom(start) -> None:
    producer, provider = Producer(), Fickle(*[ProviderPending("later")] * 3)
    effects = start(producer, provider, in_flight_max=1, pending_max=2, pending_retry_s=0.02)
    for n in range(4):
        await asyncio.wait_for(effects(0, f"O-{n}", intent(f"i{n}", payment=f"P-{n}")), 5)
    await until(lambda: effects.counts["answered"] == 3, "three answers")
    assert effects.counts["left to the webhook"] == 1 and effects.counts["unavailable"] == 0


async def test_an_unacknowledged_answer_is_sent_again(start) -> None:
    producer = Producer(KafkaConnectionError("gone"), TimeoutError())
    effects = start(producer, InProcessProvider())
    await effects(0, "O-1", intent("i1"))
    await until(lambda: effects.counts["answered"] == 1, "the answer")
    assert [e.intent_id for *_, e in producer.events] == ["i1"] and effects.counts["resent"] == 2


@pytest.mark.parametrize("bug", [CallRefused("422"), ZeroDivisionError("a bug")])
async def test_what_no_retry_heals_ends_loudly(start, bug, caplog) -> None:
    effects = start(Producer(), Fickle(bug), in_flight_max=1)
    await effects(0, "O-1", intent("i1"))
    with pytest.raises(EffectsFailed) as why:
        await asyncio.wait_for(effects(0, "O-2", intent("i2")), 5)  # waits for room, and must not wait for ever
    assert why.value.__cause__ is bug and effects.failed.exception() is why.value
    assert "no retry heals this" in caplog.text


async def test_a_broker_that_never_acknowledges_ends_the_session(start, monkeypatch) -> None:
    monkeypatch.setattr("services.payments.effects.BACKOFF_FIRST_S", 0.001)
    effects = start(Producer(*[KafkaConnectionError("gone")] * 5), InProcessProvider())
    await effects(0, "O-1", intent("i1"))
    await until(effects.failed.done, "failed")
    assert isinstance(effects.failed.exception().__cause__, KafkaConnectionError)


async def test_stop_gives_up_at_once(start) -> None:
    producer = Producer()
    producer.hold = True
    effects = start(producer, InProcessProvider())
    await effects(0, "O-1", intent("i1"))
    await until(lambda: producer.batches, "sent")
    await asyncio.wait_for(effects.stop(), 1)
    assert not effects._tasks and effects.counts["answered"] == 0


# -- the real broker ------------------------------------------------------------------------------------------------------


async def test_callers_and_webhooks_put_the_same_event_on_the_orders_partition(kafka, start, tmp_path) -> None:
    await ensure_topics(kafka, PARTITIONS)
    order = f"O-hook-{datetime.now(UTC).timestamp():.0f}"
    partition = DefaultPartitioner()(order.encode(), list(range(PARTITIONS)), list(range(PARTITIONS)))
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)
    consumer = AIOKafkaConsumer(PROVIDER_RESULT.name, bootstrap_servers=kafka, auto_offset_reset="earliest", group_id=None)
    edge = Edge(kafka, SECRET, Clock.real())
    await producer.start()
    await consumer.start()
    found = []
    try:
        async with served(edge.app) as hook, simulator(tmp_path, Clock.real(), MANNERS, hook + PATH) as client:
            effects = start(producer, client, pending_retry_s=0.1)
            await effects(partition, order, intent("i1", token="tok_test_pending"))
            await until(lambda: effects.counts["answered"] == 1, "the caller's answer")
            await until(lambda: client.simulated.webhooks.delivered == 2, "two webhooks")
            await effects.stop()
        while len(found) < 3:
            records = await consumer.getmany(timeout_ms=1000)
            found += [r for rs in records.values() for r in rs if r.key == order.encode()]
    finally:
        await producer.stop()
        await consumer.stop()
    assert {r.partition for r in found} == {partition} and len({r.value for r in found}) == 1
    envelopes = [envelope_of(r.headers) for r in found]
    assert {e.id for e in envelopes} == {"answer:i1"} and {e.subject for e in envelopes} == {order}
    assert sorted(e.source for e in envelopes) == ["payments-caller", "payments-webhook", "payments-webhook"]


# -- a killed provider ----------------------------------------------------------------------------------------------------


async def test_a_killed_provider_does_nothing_twice(tmp_path, start) -> None:
    port = processes.free_port(2)
    settings = Settings(data_folder=tmp_path, provider_port=port, webhook_port=port + 1)

    async def run(number: int) -> processes.Child:
        ready = tmp_path / f"ready{number}"
        child = processes.spawn("provider", [sys.executable, "-m", "services.simulators.provider", "--latency-ms", "30",
                                             "--webhook-share", "0"], log=tmp_path / "provider.log",
                                env=settings.child_env(TRADEWIND_READY_FILE=str(ready)))
        await until(lambda: ready.exists() or not child.alive, "ready")
        assert child.alive, processes.tail(tmp_path / "provider.log")
        return child

    provider, producer, total = HttpProvider(settings.provider_address, timeout_s=2), Producer(), 120
    effects, child, path = start(producer, provider), await run(0), tmp_path / "journals" / "provider.ndjson"
    try:
        for n in range(total):
            await effects(0, f"O-{n}", intent(f"i{n}", payment=f"P-{n}"))
        for kill, lines in enumerate((10, 60), start=1):
            # Killed between the journal and the answers: 30 ms of answers are always on their way.
            await until(lambda: path.read_bytes().count(b"\n") >= lines, f"{lines} effects")
            await processes.stop(child, first=signal.SIGKILL)
            child = await run(kill)
        await until(lambda: effects.counts["answered"] == total, "all answered")
        assert await processes.stop(child) is True  # SIGTERM suffices
    finally:
        await processes.stop(child, first=signal.SIGKILL)
        await effects.stop()
        await provider.close()
    keys = [line["intent_id"] for line in journal(path.parent)]
    assert sorted(keys) == sorted(f"i{n}" for n in range(total)), "each effect once"
    assert effects.counts["unavailable"] > 0 and {e.outcome for *_, e in producer.events} == {"succeeded"}
    assert sorted(e.intent_id for *_, e in producer.events) == sorted(keys)


async def test_a_provider_without_webhooks_has_its_disputes_told_by_the_callers():
    """Captured, then asked about, answered with evidence, told to be closed; a session that starts over goes on."""
    began = datetime.now(UTC)
    clock = Clock(began, began, 3_600_000.0)  # an hour is a millisecond
    producer, provider = Producer(), InProcessProvider(clock, knows_all=True)
    effects = Effects(producer, provider, clock, linger_s=0)
    for kind in ("authorise", "capture"):
        await effects(3, "O-1", intent(kind, kind, token="tok_test_bank_late_won"))
        await until(lambda: producer.batches, "an answer")
    await effects(3, "O-1", intent("release", "release", token="tok_test_bank_late_won"))

    def told() -> list[tuple[int, str]]:
        return [(p, DisputeTold.model_validate_json(value).stage) for p, rs in producer.batches for _, value, headers in rs
                if dict(headers)["ce_type"] == b"DisputeTold"]

    await until(lambda: told() == [(3, "chargeback")], "the bank takes it")
    await effects.stop()
    effects = Effects(producer, provider, clock, linger_s=0)
    await effects(3, "O-1", Intent("e", "evidence", intent("e").body | {"reference": "dsp-P-1"}))
    await until(lambda: told()[1:] == [(3, "chargeback_reversed")], "the bank gives it back")
    assert provider.perform("refund", call("r", 1)).outcome == "succeeded"
    await effects.stop()
