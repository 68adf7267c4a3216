"""The outside world as a process: it reads what our services publish and answers on the public topics.

    python -m services.simulators.world --role storefront|warehouse|carrier|customs|all

Invariant: the group's committed offset never passes an event that still has an unsaid, or an unacknowledged, reaction.
So a world that was killed says some things twice, never less than once, and twice means byte for byte the same.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import itertools
import logging
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.partitioner import murmur2
from pydantic import ValidationError
from pydantic_core import to_json

from schemas.envelope import CONTENT_TYPE, SPECVERSION, dataschema_of, stamp, type_of
from schemas.topics import ORDER, PAYMENT, SHIPMENT
from services.runtime.clock import Clock
from services.runtime.settings import Settings
from services.simulators.journal import Journal
from services.simulators.outsiders import Heard, Memory, Reaction
from services.simulators.reactions import NOTED, ROLES, TABLE, react, remember
from services.simulators.scenario import EXITS_PERMILLE, scenario_of

log = logging.getLogger(__name__)

PENDING_MAX = 50_000
COMMIT_EVERY_S = 0.5
WAIT_MAX_S = 0.25
PAUSE_AFTER_ERROR_S = 0.5
COLLECT_EVERY_S = 30.0


@dataclass(frozen=True)
class Options:
    """`fast`: no trade time passes between an event and its answer. `linger_s`: real seconds to gather larger batches."""

    role: str
    bootstrap: str
    seed: int
    exits_permille: int = EXITS_PERMILLE
    fast: bool = False
    linger_s: float = 0.0
    journals: Path | None = None
    ready_file: Path | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ROLES if self.role == "all" else (self.role,)


class Interest(NamedTuple):
    """A type that someone here listens to; None: in every scenario."""

    validate: Any
    scenarios: frozenset[str] | None


class Said(NamedTuple):
    """A reaction with what its envelope takes from the event it answers (header values as they came)."""

    reaction: Reaction
    role: str
    event: TopicPartition
    offset: int
    key: bytes
    time: bytes
    correlation: bytes
    causation: bytes
    merchant: bytes


def interests(roles: tuple[str, ...]) -> dict[tuple[str, bytes], Interest]:
    """(topic, type) -> how to decode it and when; everything else is skipped undecoded."""
    found: dict[tuple[str, bytes], Interest] = {}
    for topic in (ORDER, PAYMENT, SHIPMENT):
        for model in topic.messages:
            name = model.__name__
            wanted = [TABLE[role][name][1] for role in roles if name in TABLE[role]]
            wanted += [NOTED[role][name] for role in roles if name in NOTED.get(role, {})]
            if wanted:
                scenarios = None if None in wanted else frozenset().union(*wanted)
                found[topic.name, name.encode()] = Interest(model.__pydantic_validator__.validate_json, scenarios)
    return found


def encode(said: Said) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers. The headers are those of `schemas.envelope.headers_of`; what is copied from the event stays
    bytes, because there and back through text and datetime would double the world's CPU."""
    reaction, message = said.reaction, said.reaction.message
    name = type(message).__name__
    key = message.order_id.encode()
    return key, message.__pydantic_serializer__.to_json(message), [
        SPECVERSION, ("ce_id", reaction.id.encode()), ("ce_type", name.encode()), ("ce_source", reaction.source.encode()),
        ("ce_time", said.time), ("ce_subject", key), ("ce_dataschema", dataschema_of(reaction.topic, name)),
        ("ce_correlationid", said.correlation), ("ce_causationid", said.causation), ("ce_merchant", said.merchant),
        CONTENT_TYPE]


class World:
    """Plans reactions and keeps account of which events are answered. No I/O; times are real seconds (epoch)."""

    def __init__(self, options: Options, clock: Clock):
        self.options, self.clock = options, clock
        self.memory = Memory(options.seed)
        self.counts: Counter[str] = Counter()
        self._interests = interests(options.roles)
        self._heap: list[tuple[float, int, Said]] = []
        self._number = itertools.count()
        self._open: dict[TopicPartition, dict[int, int]] = {}
        self._next: dict[TopicPartition, int] = {}

    def hear(self, partition: TopicPartition, records: list[Any], now: float) -> list[Said]:
        """Take records in order; returns what is to be said at once, and keeps the rest until it is due."""
        at_once: list[Said] = []
        topic, interests_, options = partition.topic, self._interests, self.options
        for record in records:
            interest = interests_.get((topic, type_of(record.headers)))
            if interest is None or record.key is None:
                continue
            scenario = scenario_of(record.key.decode(), options.seed, options.exits_permille, options.fast)
            if interest.scenarios is None or scenario in interest.scenarios:
                try:
                    self._react(partition, record, interest, scenario, now, at_once)
                except (ValidationError, KeyError, ValueError) as why:
                    # A world that stood still at a broken event would hold up every other order.
                    self.counts["unreadable"] += 1
                    log.error("%s %s offset %s cannot be read and is left unanswered: %s", topic, partition.partition,
                              record.offset, why)
        self._next[partition] = records[-1].offset + 1
        return at_once

    def _react(self, partition: TopicPartition, record: Any, interest: Interest, scenario: str, now: float,
               at_once: list[Said]) -> None:
        headers = dict(record.headers)
        event_id, event_time = headers["ce_id"], headers["ce_time"]
        heard = Heard(event_id.decode(), interest.validate(record.value))
        correlation = headers.get("ce_correlationid") or event_id
        merchant = headers.get("ce_merchant", b"")
        for role in self.options.roles:
            for reaction in react(role, heard, scenario, self.memory):
                due, moment = self._when(reaction, event_time, now)
                said = Said(reaction, role, partition, record.offset, record.key, moment, correlation, event_id, merchant)
                offsets = self._open.setdefault(partition, {})
                offsets[record.offset] = offsets.get(record.offset, 0) + 1
                if due <= now:
                    at_once.append(said)
                else:
                    heapq.heappush(self._heap, (due, next(self._number), said))
        remember(heard, scenario, self.memory)

    def _when(self, reaction: Reaction, event_time: bytes, now: float) -> tuple[float, bytes]:
        """Real due time, and the trade time to write on it, which depends on the event alone."""
        if self.options.fast:
            return now + reaction.real_s, event_time
        trade = datetime.fromisoformat(event_time.decode()) + timedelta(seconds=reaction.delay_s)
        return max(self.clock.real_at(trade).timestamp(), now + reaction.real_s), stamp(trade)

    def due(self, now: float) -> list[Said]:
        """What has become due, oldest first."""
        out = []
        while self._heap and self._heap[0][0] <= now:
            out.append(heapq.heappop(self._heap)[2])
        return out

    def next_due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def full(self) -> bool:
        return len(self._heap) >= PENDING_MAX

    def unstopped(self, said: list[Said]) -> list[Said]:
        """Without the scans of parcels that were stopped while their time came."""
        stopped = self.memory.stopped
        return [s for s in said if s.reaction.unless_stopped not in stopped] if stopped else said

    def answered(self, said: list[Said]) -> None:
        """These were acknowledged, or will never be said."""
        for one in said:
            offsets = self._open.get(one.event)
            if offsets is not None and one.offset in offsets:
                offsets[one.offset] -= 1
                if not offsets[one.offset]:
                    del offsets[one.offset]

    def safe_offsets(self) -> dict[TopicPartition, int]:
        """By partition, the offset below which everything is answered."""
        return {tp: next(iter(self._open.get(tp, ())), offset) for tp, offset in self._next.items()}

    def forget(self, partitions: list[TopicPartition]) -> None:
        """They have another reader now, who starts at what was committed."""
        gone = set(partitions)
        self._heap = [entry for entry in self._heap if entry[2].event not in gone]
        heapq.heapify(self._heap)
        for partition in gone:
            self._open.pop(partition, None)
            self._next.pop(partition, None)


class _Session(ConsumerRebalanceListener):
    """One consumer and one producer, until stopped or until the first error of either."""

    def __init__(self, options: Options, clock: Clock, journals: dict[str, Journal], stop: asyncio.Event):
        self.options, self.journals, self.stop = options, journals, stop
        self.world = World(options, clock)
        self.committed: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        options = self.options
        self.producer = AIOKafkaProducer(bootstrap_servers=options.bootstrap, acks="all", enable_idempotence=True,
                                         linger_ms=0, max_batch_size=900_000, request_timeout_ms=20_000)
        # A static member that comes back within the session has its partitions again at once, without a rebalance.
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=options.bootstrap, group_id=f"world-{options.role}", enable_auto_commit=False,
            group_instance_id=f"world-{options.role}", auto_offset_reset="earliest", session_timeout_ms=10_000,
            heartbeat_interval_ms=1_000, max_poll_interval_ms=600_000, fetch_max_wait_ms=100)
        try:
            await self.producer.start()
            await self.consumer.start()
            self.consumer.subscribe(sorted({topic for topic, _ in interests(options.roles)}), listener=self)
            while not self.stop.is_set():
                await self._turn()
            await self._commit()
        finally:
            # A broken connection must not keep the next session from starting.
            await asyncio.gather(self.consumer.stop(), self.producer.stop(), return_exceptions=True)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        self.world.forget(revoked)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        if self.options.ready_file:
            self.options.ready_file.touch()

    last_commit = 0.0

    async def _turn(self) -> None:
        """Read, say what is due, and commit now and then."""
        world = self.world
        next_due = world.next_due()
        wait = WAIT_MAX_S if next_due is None else min(WAIT_MAX_S, max(0.0, next_due - time.time()))
        if world.full:
            await asyncio.sleep(wait)
            heard = {}
        else:
            heard = await self.consumer.getmany(timeout_ms=int(wait * 1000) + 1)
        now = time.time()
        said = world.due(now)
        for partition, records in heard.items():
            said += world.hear(partition, records, now)
        if said:
            await self._say(world.unstopped(said))
            world.answered(said)
        if now - self.last_commit >= COMMIT_EVERY_S:
            self.last_commit = now
            await self._commit()
        if self.options.linger_s:
            await asyncio.sleep(self.options.linger_s)

    async def _say(self, said: list[Said]) -> None:
        """Journal first, then one prebuilt batch a topic and partition; returns when all are acknowledged."""
        batches: dict[tuple[str, int], list[Any]] = {}
        lines: dict[str, list[bytes]] = {}
        for one in said:
            key, value, headers = encode(one)
            topic = one.reaction.topic
            partition = one.event.partition if key == one.key else self._partition_of(topic, key)
            builders = batches.setdefault((topic, partition), [])
            if not builders or builders[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
                builders.append(self.producer.create_batch())
                if builders[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
                    raise ValueError(f"{one.reaction.id} is above the broker's record limit")
            if self.journals:
                lines.setdefault(one.role, []).append(journal_line(one, value))
        for role, text in lines.items():
            self.journals[role].write(text)
        await asyncio.gather(*[await self.producer.send_batch(builder, topic, partition=partition)
                               for (topic, partition), builders in batches.items() for builder in builders])
        self.world.counts["said"] += len(said)

    def _partition_of(self, topic: str, key: bytes) -> int:
        return (murmur2(key) & 0x7FFFFFFF) % len(self.producer._metadata.partitions_for_topic(topic))

    async def _commit(self) -> None:
        held = self.consumer.assignment()
        offsets = {tp: offset for tp, offset in self.world.safe_offsets().items()
                   if tp in held and self.committed.get(tp) != offset}
        if offsets:
            try:
                await self.consumer.commit(offsets)
                self.committed |= offsets
            except (CommitFailedError, IllegalStateError) as why:
                log.warning("offsets not committed, another instance has the partitions now: %s", why)


def journal_line(said: Said, value: bytes) -> bytes:
    """One message sent: who, what, why, and the message itself with its amounts."""
    reaction = said.reaction
    return (b'{"id":%s,"order":"%s","type":"%s","topic":"%s","source":"%s","cause":%s,"time":"%s","message":%s}' % (
        to_json(reaction.id), reaction.message.order_id.encode(), type(reaction.message).__name__.encode(),
        reaction.topic.encode(), reaction.source.encode(), to_json(said.causation.decode()), said.time, value))


async def run(options: Options, clock: Clock, stop: asyncio.Event) -> None:
    """Answer until `stop` is set. A Kafka error starts the session over from the committed offsets."""
    journals = {role: Journal(options.journals / f"{role}.ndjson") for role in options.roles} if options.journals else {}
    gc.collect()
    gc.freeze()
    gc.disable()
    collector = asyncio.create_task(_collect())
    try:
        while not stop.is_set():
            try:
                await _Session(options, clock, journals, stop).run()
            except (KafkaError, OSError, asyncio.TimeoutError) as why:
                log.warning("world-%s starts over: %s: %s", options.role, type(why).__name__, why)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
    finally:
        collector.cancel()
        for journal in journals.values():
            journal.close()


async def _collect() -> None:
    while True:  # the collector walks over every pending reaction: seldom is enough, nothing here makes cycles
        await asyncio.sleep(COLLECT_EVERY_S)
        gc.collect(1)


async def main() -> None:
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m services.simulators.world", description="The simulated outside world")
    parser.add_argument("--role", choices=(*ROLES, "all"), default="all")
    parser.add_argument("--seed", type=int, default=settings.seed)
    parser.add_argument("--exits-permille", type=int, default=EXITS_PERMILLE, help="orders that leave the normal way")
    parser.add_argument("--fast", action="store_true", help="answer at once, draw only scenarios without deadlines")
    parser.add_argument("--linger-ms", type=float, default=0.0, help="gather larger batches")
    parser.add_argument("--no-journal", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    ready = os.environ.get("TRADEWIND_READY_FILE")
    options = Options(given.role, settings.bootstrap, given.seed, given.exits_permille, given.fast, given.linger_ms / 1000,
                      None if given.no_journal else settings.data_folder / "journals", Path(ready) if ready else None)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await run(options, Clock.from_env(), stop)


if __name__ == "__main__":
    asyncio.run(main())
