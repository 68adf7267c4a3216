"""The cold-chain view on a real broker: what it tells of late, doubled and out-of-order readings is the fold of the readings, also
after it was killed in the middle; and what cannot be read is a dead letter."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas import shipping_sensor as sensor
from schemas.cold_chain import AskedBand, Band, Reading, Watch, excursion_id
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.shipping_report import ExcursionReported
from schemas.topics import REPORT, SENSOR
from services.runtime import processes
from services.runtime.local import LocalKafka
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from services.shipping.topics import MORE
from tests.tally import until

PARTITIONS = 2
START = datetime(2026, 7, 1, tzinfo=UTC)
BAND = AskedBand()


@pytest.fixture
async def settings(tmp_path, cache_folder):
    kafka = LocalKafka(tmp_path / "kafka", processes.free_port(2), cache=cache_folder)
    await kafka.start(120)
    await ensure_topics(kafka.bootstrap, PARTITIONS, MORE)
    yield Settings(bootstrap_servers=kafka.bootstrap, data_folder=tmp_path, partitions=PARTITIONS)
    await kafka.stop()


def journeys(seed: int) -> list[sensor.SensorReported]:
    """A dozen parcels for three days: loggers tell in heaps, which come late, twice and in the wrong order."""
    rng, sent = random.Random(seed), []
    for number in range(12):
        order_id, warm = f"cold-{number}", rng.random() < 0.7
        outside = range(at := rng.randrange(20, 200), at + rng.randrange(1, 40)) if warm else range(0)
        told = [sensor.SensorReport(time=START + timedelta(minutes=15 * n), value_tenths=rng.randrange(25, 75) + (
            60 if n in outside else 0)) for n in range(288)]
        for n in range(0, 288, 6):
            heap = told[n:n + 6]
            rng.shuffle(heap)
            sent.append((n + rng.random() * rng.choice((1, 40)), sensor.SensorReported(
                order_id=order_id, parcel_id=f"{order_id}-P1", sensor_element_list=[sensor.SensorElement(
                    sensor_metadata=sensor.SensorMetadata(device_id="logger-1", band=BAND), sensor_report=heap)])))
    sent += [(at + 30, message) for at, message in rng.sample(sent, 60)]
    return [message for _, message in sorted(sent, key=lambda pair: pair[0])]


def folded(messages: list[sensor.SensorReported]) -> set[tuple[str, int]]:
    watches: dict[str, Watch] = defaultdict(Watch)
    return {(excursion_id(m.parcel_id, found), found.minutes) for m in messages for element in m.sensor_element_list
            for told in element.sensor_report
            for found in watches[m.parcel_id].take(Reading(int(told.time.timestamp()), told.value_tenths), Band(**BAND.__dict__))}


async def publish(settings: Settings, messages: list, first: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for n, message in enumerate(messages, first):
            envelope = Envelope(f"read:{n}", "SensorReported", "/logger", START, message.order_id)
            await producer.send(SENSOR.name, message.model_dump_json().encode(), message.order_id.encode(),
                                headers=list(headers_of(envelope, dataschema_of(SENSOR.name, "SensorReported"))))
        await producer.flush()
    finally:
        await producer.stop()


async def everything(settings: Settings, topic: str) -> list:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap)
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends, found = await consumer.end_offsets(places), []
        while any([await consumer.position(p) < end for p, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
        return found
    finally:
        await consumer.stop()


def start(settings: Settings) -> processes.Child:
    ready = settings.data_folder / "view.ready"
    ready.unlink(missing_ok=True)
    return processes.spawn("cold-chain-view", [sys.executable, "-m", "services.shipping.views", "worker", "--without-web"],
                           log=settings.data_folder / "view.log", env=settings.child_env(TRADEWIND_READY_FILE=str(ready)))


async def test_the_view_tells_what_the_readings_say(settings):
    messages, right = (made := journeys(7)), folded(made)
    assert len(right) > 5
    half = len(messages) // 2

    async def told() -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = defaultdict(set)
        for record in await everything(settings, REPORT.name):
            found[dict(record.headers)["ce_id"].decode()].add(record.value)
        return found

    await publish(settings, messages[:half], 0)
    view = start(settings)
    try:
        await until((settings.data_folder / "view.ready").exists, within_s=60)
        before = {name for name, _ in folded(messages[:half])}
        while len(await told()) < len(before):
            await asyncio.sleep(0.1)
        await processes.stop(view, first=signal.SIGKILL)
        await publish(settings, messages[half:], half)
        view = start(settings)
        while len(found := await told()) < len(right):
            await asyncio.sleep(0.1)
        assert all(len(values) == 1 for values in found.values()), "told again after the kill, it is the same to the byte"
        reports = [ExcursionReported.model_validate_json(value) for values in found.values() for value in values]
        assert {(r.excursion_id, r.minutes) for r in reports} == right
        assert {name.removeprefix("excursion:") for name in found} == {name for name, _ in right}
        await refused(settings)
    finally:
        await processes.stop(view)


async def refused(settings: Settings) -> None:
    """A reading that nobody can read stops nobody: it is a dead letter, and the next one is taken."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    await producer.send_and_wait(SENSOR.name, b"{", b"cold-0", headers=list(headers_of(
        Envelope("bad", "SensorReported", "/logger", START, "cold-0"), dataschema_of(SENSOR.name, "SensorReported"))))
    await producer.stop()
    async with asyncio.timeout(20):
        while not (letters := await everything(settings, SENSOR.dlq)):
            await asyncio.sleep(0.1)
    headers = dict(letters[0].headers)
    assert headers["__dlq.errors.reason"] == b"undecodable" and headers["ce_id"] == b"bad" and letters[0].value == b"{"
