"""The outside world and the edge on a real broker: nothing unsaid after a restart, nothing said in two versions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaTimeoutError
from aiokafka.partitioner import murmur2

from schemas.topics import INTAKE, ORDER, PAYMENT, REPORT, SHIPMENT
from services.runtime.clock import Clock
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from services.simulators import world
from services.simulators.agenda import Options
from services.simulators.demo_orders import demo_orders
from services.simulators.edge import Publisher, place, place_record
from tests.test_world import DELIVERED, KEY, NOW, PRESENTED, handed_over, record_like, request

PARTITIONS = Settings.model_fields["partitions"].default


async def read_all(kafka: str, topics: list[str], wanted: int, mine: str) -> list:
    """Wait until `wanted` records whose key starts with `mine` are there; returns all of them that are."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, p) for topic in topics for p in range(PARTITIONS)])
        found: list = []
        async with asyncio.timeout(15):
            while len(found) < wanted:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [r for r in records if r.key.decode().startswith(mine)]
        return found
    finally:
        await consumer.stop()


async def start_at_the_end(kafka: str, group: str) -> None:
    """The group's first reader would answer what other tests left on the topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(t.name, p) for t in (ORDER, PAYMENT, SHIPMENT) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.commit(await consumer.end_offsets(partitions))
    await consumer.stop()


async def publish(kafka: str, events: list) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()
    for number, data in enumerate(events, 1):
        record = record_like(data, number, 0)
        topic = next(t.name for t in (ORDER, PAYMENT, SHIPMENT) if type(data) in t.messages)
        await producer.send(topic, record.value, record.key, headers=list(record.headers))
    await producer.flush()
    await producer.stop()


@contextlib.asynccontextmanager
async def a_world(kafka: str, journals: Path):
    stop = asyncio.Event()
    options = Options("all", kafka, seed=1, exits_permille=0, fast=True, journals=journals)
    task = asyncio.create_task(world.run(options, Clock.real(), stop))
    yield task
    stop.set()
    await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)


async def test_a_restarted_world_repeats_nothing_but_the_same_bytes(kafka: str, tmp_path: Path, monkeypatch):
    await ensure_topics(kafka, PARTITIONS)
    await start_at_the_end(kafka, "world-all")
    mine = f"world-{os.urandom(4).hex()}"
    events = []
    for number in range(20):
        ids = {"order_id": f"{mine}-{number}", "parcel_id": f"{mine}-{number}-p1"}
        for event in (request(), handed_over(), PRESENTED, DELIVERED):
            events.append(event.model_copy(update=ids))
    await publish(kafka, events)
    expected = 20 * 5

    commit = world._Session._commit

    async def dies(self) -> None:
        """A world that is killed between its answers and its commit."""

    monkeypatch.setattr(world._Session, "_commit", dies)
    async with a_world(kafka, tmp_path):
        first = await read_all(kafka, [REPORT.name, INTAKE.name], expected, mine)
    monkeypatch.setattr(world._Session, "_commit", commit)
    async with a_world(kafka, tmp_path):
        both = await read_all(kafka, [REPORT.name, INTAKE.name], 2 * expected, mine)
    async with a_world(kafka, tmp_path):  # this one begins where the second committed
        marker = request().model_copy(update={"order_id": f"{mine}-end", "parcel_id": f"{mine}-end-p1"})
        await publish(kafka, [marker])
        last = await read_all(kafka, [REPORT.name, INTAKE.name], 2 * expected + 1, mine)

    assert (len(first), len(both), len(last)) == (expected, 2 * expected, 2 * expected + 1)
    contents = defaultdict(set)
    for record in last:
        content = record.topic, record.partition, record.key, record.value, record.headers
        contents[dict(record.headers)["ce_id"]].add(content)
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS
    assert len(contents) == expected + 1 and all(len(c) == 1 for c in contents.values())
    lines = [json.loads(line) for path in tmp_path.glob("*.ndjson") for line in path.read_text().splitlines()]
    assert Counter(line["id"].encode() for line in lines) == Counter(dict(r.headers)["ce_id"] for r in last)


async def test_the_edge_publishes_every_order_to_its_partition_and_keeps_a_journal(kafka: str, tmp_path: Path):
    await ensure_topics(kafka, PARTITIONS)
    mine, journal = f"edge-{os.urandom(4).hex()}", tmp_path / "client.ndjson"
    made = list(demo_orders(1, 500, vault_key=KEY, placed_at=NOW, forced=False, prefix=mine))
    assert await place(kafka, made, journal) == 500
    found = await read_all(kafka, [INTAKE.name], 500, mine)
    assert {r.value for r in found} == {place_record(order).value for order in made}
    assert all(r.partition == (murmur2(r.key) & 0x7FFFFFFF) % PARTITIONS for r in found)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["sent"] for line in lines[:500]] == [line["acknowledged"] for line in lines[500:]]
    assert lines[0]["total"] == made[0].total and lines[0]["currency"] == made[0].currency


async def test_records_that_the_broker_did_not_acknowledge_are_unknown(kafka: str, tmp_path: Path, monkeypatch):
    await ensure_topics(kafka, PARTITIONS)
    journal = tmp_path / "client.ndjson"
    order = next(demo_orders(1, 1, vault_key=KEY, placed_at=NOW, prefix=f"edge-{os.urandom(4).hex()}"))
    async with Publisher(kafka, journal) as publisher:
        async def lost(*_, **__):
            raise KafkaTimeoutError

        monkeypatch.setattr(publisher._producer, "send_batch", lost)
        with pytest.raises(KafkaTimeoutError):
            await publisher.send([place_record(order)])
    assert [next(iter(json.loads(line))) for line in journal.read_text().splitlines()] == ["sent", "unknown"]
