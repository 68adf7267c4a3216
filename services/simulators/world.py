"""The outside world as a process: it reads what our services publish and answers on the public topics.

    python -m services.simulators.world --role storefront|warehouse|carrier|customs|all

Invariant: the group's committed offset never passes an event that still has an unsaid, or an unacknowledged, reaction.
So a world that was killed says some things twice, never less than once, and twice means byte for byte the same.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.partitioner import murmur2

from services.runtime.clock import Clock
from services.runtime.crash import point
from schemas.topics import REPORT
from services.runtime.settings import Settings
from services.simulators.agenda import Agenda, Options, Said, encode, interests, journal_line, pick
from services.simulators.journal import Journal
from services.simulators.outsiders import Memory
from services.simulators.reactions import ROLES
from services.simulators.scenario import EXITS_PERMILLE

log = logging.getLogger(__name__)

COMMIT_EVERY_S = 0.5
FETCH_BYTES = 1_000_000
WAIT_MAX_S = 0.25
PAUSE_AFTER_ERROR_S = 0.5
SEND_WITHIN_S = 20.0  # an idempotent producer may wait for ever for an answer; the next session has a new one
COLLECT_EVERY_S = 30.0


class _Session(ConsumerRebalanceListener):
    """One consumer and one producer, until stopped or until the first error of either."""

    def __init__(self, options: Options, agenda: Agenda, journals: dict[str, Journal], stop: asyncio.Event):
        self.options, self.agenda, self.journals, self.stop = options, agenda, journals, stop
        self.committed: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        options = self.options
        self.producer = AIOKafkaProducer(bootstrap_servers=options.bootstrap, acks="all", enable_idempotence=True,
                                         linger_ms=0, max_batch_size=900_000, request_timeout_ms=20_000)
        # The broker gathers: an answer of one large fetch is far cheaper than many small ones.
        linger_ms = round(options.linger_s * 1000)
        # A static member that comes back within the session has its partitions again at once, without a rebalance.
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=options.bootstrap, group_id=f"world-{options.role}", enable_auto_commit=False,
            group_instance_id=f"world-{options.role}-{options.instance}", auto_offset_reset="earliest",
            value_deserializer=pick(options.roles),
            session_timeout_ms=10_000, heartbeat_interval_ms=1_000, max_poll_interval_ms=600_000,
            fetch_min_bytes=FETCH_BYTES if linger_ms else 1, fetch_max_wait_ms=linger_ms or 100)
        try:
            await self.producer.start()
            # Every topic has the same number; asked for once, because the producer's cache forgets topics it does not use.
            self.partitions = len(await self.producer.partitions_for(REPORT.name))
            await self.consumer.start()
            self.consumer.subscribe(sorted({topic for topic, _ in interests(options.roles)}), listener=self)
            while not self.stop.is_set():
                await self._turn()
            await self._commit()
        finally:
            # A broken connection must not keep the next session from starting.
            await asyncio.gather(self.consumer.stop(), self.producer.stop(), return_exceptions=True)

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        self.agenda.forget(revoked)

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        if self.options.ready_file:
            self.options.ready_file.touch()

    last_commit = 0.0

    async def _turn(self) -> None:
        """Read, say what is due, and commit now and then."""
        agenda = self.agenda
        next_due = agenda.next_due()
        wait = WAIT_MAX_S if next_due is None else min(WAIT_MAX_S, max(0.0, next_due - time.time()))
        if agenda.full:
            await asyncio.sleep(wait)
            heard = {}
        else:
            heard = await self.consumer.getmany(timeout_ms=int(wait * 1000) + 1)
        now = time.time()
        late = agenda.due(now)
        said = list(late)
        for partition, records in heard.items():
            said += agenda.hear(partition, records, now)
        if said:
            await self._say(agenda.unstopped(said))
            agenda.answered(late)
        if now - self.last_commit >= COMMIT_EVERY_S:
            self.last_commit = now
            await self._commit()

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
        point("world.deciding")
        for role, text in lines.items():
            self.journals[role].write(text)
        point("world.journaled")
        async with asyncio.timeout(SEND_WITHIN_S):
            await asyncio.gather(*[await self.producer.send_batch(builder, topic, partition=partition)
                                   for (topic, partition), builders in batches.items() for builder in builders])
        point("world.sent")
        self.agenda.counts["said"] += len(said)

    def _partition_of(self, topic: str, key: bytes) -> int:
        return (murmur2(key) & 0x7FFFFFFF) % self.partitions

    async def _commit(self) -> None:
        held = self.consumer.assignment()
        offsets = {tp: offset for tp, offset in self.agenda.safe_offsets().items()
                   if tp in held and self.committed.get(tp) != offset}
        if offsets:
            try:
                await self.consumer.commit(offsets)
                point("world.committed")
                self.committed |= offsets
            except (CommitFailedError, IllegalStateError) as why:
                log.warning("offsets not committed, another instance has the partitions now: %s", why)


async def run(options: Options, clock: Clock, stop: asyncio.Event) -> None:
    """Answer until `stop` is set. A Kafka error starts the session over from the committed offsets."""
    memory = Memory(options.seed, fast=options.fast)  # outlives a broker that is away
    journals = {role: Journal(options.journals / f"{role}.ndjson") for role in options.roles} if options.journals else {}
    try:
        while not stop.is_set():
            try:
                await _Session(options, Agenda(options, clock, memory), journals, stop).run()
            except (TimeoutError, KafkaError, OSError) as why:
                log.warning("world-%s starts over: %s: %s", options.role, type(why).__name__, why)
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
    finally:
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
    parser.add_argument("--linger-ms", type=float, default=settings.linger_ms, help="gather larger batches")
    parser.add_argument("--no-journal", action="store_true")
    parser.add_argument("--instance", type=int, default=0, help="a number of its own for each process of one role")
    given = parser.parse_args()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    ready = os.environ.get("TRADEWIND_READY_FILE")
    options = Options(given.role, settings.bootstrap, given.seed, given.instance, given.exits_permille, given.fast,
                      given.linger_ms / 1000, None if given.no_journal else settings.data_folder / "journals",
                      Path(ready) if ready else None)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    gc.collect()
    gc.freeze()
    gc.disable()
    collector = asyncio.create_task(_collect())
    await run(options, Clock.from_env(), stop)
    collector.cancel()


if __name__ == "__main__":
    uvloop.run(main())
