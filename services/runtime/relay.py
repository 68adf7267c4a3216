"""From the outbox to the broker: one relay a partition, one batch at a time.

Invariant: a later batch reaches the producer only after the earlier one is acknowledged. An idempotent producer that lost
a batch delivers the next ones all the same, and readers would then take the resent one for a repetition. So does a batch
that had to be split. Any error ends the relay; the next owner sends what the outbox still holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timezone

import msgpack
from aiokafka import AIOKafkaProducer

from schemas.envelope import dataschema_of, headers_of_type, stamp
from services.runtime.batch import Out
from services.runtime.crash import point
from services.runtime.spec import OURS
from services.runtime.track import Unreadable

BACKLOG_MAX = 4
SEND_WITHIN_S = 30.0  # an idempotent producer may wait for ever for an answer that never comes; a new one does not


def pack(out: list[Out]) -> bytes:
    """The outbox row of a batch."""
    return msgpack.packb([(o.topic, o.key, o.value, o.type, o.sequence, o.time.timestamp(), o.correlation, o.causation,
                           o.merchant, o.headers) for o in out])


def unpack(payload: bytes) -> list[Out]:
    """Raises Unreadable."""
    out = []
    try:
        for topic, key, value, name, sequence, time, correlation, causation, merchant, headers in msgpack.unpackb(payload):
            pairs = tuple((k, v) for k, v in headers) if headers is not None else None
            out.append(Out(topic, key, value, name, sequence, datetime.fromtimestamp(time, timezone.utc), correlation,
                           causation, merchant, pairs))
    except (ValueError, TypeError, OverflowError, OSError, msgpack.UnpackException) as why:
        raise Unreadable(f"a row of table outbox: {why!r}; restore it from a backup, nothing after it is sent") from why
    return out


def headers_for(event: Out) -> list[tuple[str, bytes]]:
    """`headers_of` the event's envelope, without making the one and encoding what is bytes already."""
    key, source = event.key, OURS[event.topic].encode()
    sequence = b"%d" % event.sequence
    return [
        *headers_of_type(event.type, dataschema_of(event.topic, event.type)), ("ce_source", source),
        ("ce_id", b"%b:%b:%b" % (source, key, sequence)), ("ce_time", stamp(event.time)), ("ce_subject", key),
        ("ce_correlationid", event.correlation.encode()), ("ce_causationid", event.causation.encode()),
        ("ce_merchant", event.merchant.encode()), ("ce_sequence", sequence),
    ]


class Relay:
    """Sends committed batches in order. `acknowledged` is the newest batch that the broker has for certain."""

    def __init__(self, producer: AIOKafkaProducer, partition: int):
        self._producer, self._partition = producer, partition
        self._waiting: deque[tuple[int, list[Out]]] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.acknowledged = -1
        self.deleted = -1
        self.failed: BaseException | None = None

    async def put(self, batch: int, out: list[Out]) -> None:
        """Queue a committed batch; waits while too many are unacknowledged. Raises what ended the relay."""
        self._waiting.append((batch, out))
        self._wake.set()
        if len(self._waiting) >= BACKLOG_MAX and self.failed is None:  # a relay that ended makes no room any more
            self._room.clear()
            await self._room.wait()
        if self.failed is not None:
            raise self.failed

    async def run(self) -> None:
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                batch, out = self._waiting[0]
                point("relay.taken")
                await self._send(out)
                point("relay.sent")
                self._waiting.popleft()
                self.acknowledged = batch
                if len(self._waiting) < BACKLOG_MAX:
                    self._room.set()
        except BaseException as why:
            self.failed = why  # also a cancellation: whoever waits for room must not wait for ever
            self._room.set()
            raise

    @property
    def idle(self) -> bool:
        return not self._waiting

    async def _send(self, out: list[Out]) -> None:
        now_ms = None
        by_topic: dict[str, list[Out]] = {}
        for event in out:
            by_topic.setdefault(event.topic, []).append(event)
        for n, (topic, events) in enumerate(by_topic.items()):
            if n:
                point("relay.between_topics")
            builder = self._producer.create_batch()
            for event in events:
                headers = list(event.headers or ()) or headers_for(event)
                if builder.append(timestamp=now_ms, key=event.key, value=event.value, headers=headers) is None:
                    await self._deliver(builder, topic)
                    builder = self._producer.create_batch()
                    if builder.append(timestamp=now_ms, key=event.key, value=event.value, headers=headers) is None:
                        raise ValueError(f"a record of {len(event.value)} bytes for {topic} is above the broker's limit")
            await self._deliver(builder, topic)

    async def _deliver(self, builder, topic: str) -> None:
        if builder.record_count():
            async with asyncio.timeout(SEND_WITHIN_S):
                acknowledged = await self._producer.send_batch(builder, topic, partition=self._partition)
                point("relay.in_flight")
                await acknowledged
