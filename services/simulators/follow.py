"""Follows orders on the public topics: how far each is, when it got there, how it ended. Whoever waits for orders uses it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import MODELS, ORDER, PAYMENT, SHIPMENT
from services.runtime.topics import partition_counts

# The stages of the funnel, in the order of the path; each is reached by the first event of its type.
STAGES = {
    "OrderPlaced": "placed", "ParcelsAllocated": "allocated", "PaymentHeld": "paid", "FulfilmentRequested": "requested",
    "ParcelPacked": "packed", "ParcelHandedOver": "handed over", "CustomsReleased": "through customs",
    "ParcelDelivered": "delivered", "PaymentSettled": "settled", "OrderCompleted": "completed",
}
ENDS = {"OrderCompleted": "completed", "OrderCancelled": "cancelled", "OrderRejected": "rejected"}


@dataclass(slots=True)
class Story:
    """One order. `reached`: stage -> real time in ms since 1970 of the record that got it there."""

    reached: dict[str, int] = field(default_factory=dict)
    end: str = ""
    reason: str = ""
    ended_at: int = 0


class Follower:
    """Reads the three services' topics from the beginning. `wanted`: order ids of interest (None: all). `react` is told
    each event of theirs once it is decoded; types it does not list in `types` are not decoded."""

    def __init__(self, bootstrap: str, wanted: set[str] | None = None, react: Callable[[str, Any], None] | None = None,
                 types: frozenset[str] = frozenset()):
        self.bootstrap, self.wanted, self.react, self.types = bootstrap, wanted, react, types
        self.stories: dict[str, Story] = {}
        self.funnel: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._seen: dict[tuple[str, str], int] = {}
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Follower:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await self._consumer.start()
        counts = await partition_counts(self.bootstrap)
        partitions = [TopicPartition(t.name, p) for t in (ORDER, PAYMENT, SHIPMENT) for p in range(counts[t.name])]
        self._consumer.assign(partitions)
        for partition in partitions:
            self._consumer.seek(partition, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self, timeout_ms: int = 200) -> int:
        """Read what is there; returns how many records of the wanted orders were new."""
        count = 0
        for records in (await self._consumer.getmany(timeout_ms=timeout_ms)).values():
            for record in records:
                count += self._take(record)
        return count

    async def until(self, done: Callable[[], bool], each: Callable[[], None] = lambda: None, timeout_s: float = 3600) -> bool:
        """Read until `done`, calling `each` after every read; False when it is not done in time."""
        end = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > end:
                return False
            await self.read()
            each()
            await asyncio.sleep(0)
        return True

    @property
    def ended(self) -> int:
        return sum(self.ends.values())

    def _take(self, record: Any) -> int:
        order_id = record.key.decode()
        if order_id.startswith("stock:") and "StockReceived" not in self.types:
            return 0
        if self.wanted is not None and order_id not in self.wanted:
            return 0
        name = source = ""
        sequence = 0
        for header, value in record.headers:
            if header == "ce_type":
                name = value.decode()
            elif header == "ce_source":
                source = value.decode()
            elif header == "ce_sequence":
                sequence = int(value)
        if sequence <= self._seen.get((order_id, source), 0):
            return 0  # published twice after a crash
        self._seen[order_id, source] = sequence
        story = self.stories.get(order_id)
        if story is None:
            story = self.stories[order_id] = Story()
        stage = STAGES.get(name)
        if stage and stage not in story.reached:
            story.reached[stage] = record.timestamp
            self.funnel[stage] += 1
        data = MODELS[name].model_validate_json(record.value) if name in self.types or name in ENDS else None
        if name in ENDS:
            self._end(story, ENDS[name], data, record.timestamp)
        if name in self.types:
            self.react(name, data)
        return 1

    def _end(self, story: Story, end: str, data: Any, at: int) -> None:
        if story.end:
            self.ends[story.end] -= 1  # a return after the end: it ends again
        self.ends[end] += 1
        story.end, story.reason, story.ended_at = end, getattr(data, "reason", ""), at
