"""Publishes records again that are on the topics already, as a relay after a crash or an outsider in doubt does."""

from __future__ import annotations

import asyncio
import random
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.topics import TOPICS
from services.runtime.settings import Settings

STALE_MAX = 200  # very old records a round, besides the share of the new ones
LOOK_BACK = 2_000


async def republish(settings: Settings, dice: random.Random, *, share: float, seconds: float) -> int:
    """For so many seconds, publish a `share` of what appears on any topic again, and some records from long ago, in
    another order; how many. Key, partition, headers and content stay what they were."""
    places = [TopicPartition(t.name, p) for t in TOPICS for p in range(settings.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False, auto_offset_reset="latest")
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", max_batch_size=900_000)
    await consumer.start()
    try:
        await producer.start()
        consumer.assign(places)
        count = await _again(producer, await _stale(consumer, dice, places), dice)
        await consumer.seek_to_end(*places)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = await consumer.getmany(timeout_ms=200)
            fresh = [record for records in found.values() for record in records if dice.random() < share]
            count += await _again(producer, fresh, dice)
            await asyncio.sleep(dice.uniform(0.0, 0.5))
        return count
    finally:
        await asyncio.gather(consumer.stop(), producer.stop())


async def _stale(consumer: AIOKafkaConsumer, dice: random.Random, places: list[TopicPartition]) -> list:
    ends = await consumer.end_offsets(places)
    for place in places:
        consumer.seek(place, dice.randrange(max(1, ends[place])) if dice.random() < 0.5 else max(0, ends[place] - LOOK_BACK))
    found = await consumer.getmany(timeout_ms=500, max_records=LOOK_BACK)
    records = [record for records in found.values() for record in records]
    return dice.sample(records, min(STALE_MAX, len(records)))


async def _again(producer: AIOKafkaProducer, records: list, dice: random.Random) -> int:
    dice.shuffle(records)
    await asyncio.gather(*[await producer.send(r.topic, r.value, r.key, r.partition, headers=list(r.headers)) for r in records])
    return len(records)
