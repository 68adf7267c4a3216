"""A service process: joins the group, starts an owner for each partition it holds on every input topic, and rebuilds
everything after any error. Runs on `mode`, the service framework of Faust; see docs/decisions for why not as Faust agents.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pathlib
import socket
from collections import Counter

import mode
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor

from services.runtime import storage
from services.runtime.clock import Clock
from services.runtime.crash import point
from services.runtime.owner import DEAD_LETTERS_MAX, TRANSIENT, Owner
from services.runtime.spec import Spec

log = logging.getLogger(__name__)

PAUSE_AFTER_ERROR_S = 0.5
SESSION_TIMEOUT_MS = 10_000
COLLECT_EVERY_S = 30.0
FETCH_BYTES = 1_000_000  # as much waits at the broker before a fetch is answered, or `linger_ms` passes


class PartitionService(mode.Service):
    """One instance of a service. `effects(producer)` may give a callable that carries out intents."""

    def __init__(self, spec: Spec, dsn: str, bootstrap: str, partitions: int, clock: Clock, effects=None,
                 linger_ms: int = 0, ready_file: str | None = None, member: str | None = None,
                 dead_letters_max: int = DEAD_LETTERS_MAX, parked_grace_s: float | None = None, **kwargs):
        """`member`: a name that this instance keeps across restarts and shares with no other living one. With it, a
        killed instance that comes back has its partitions at once; without, they wait for the session to run out."""
        super().__init__(**kwargs)
        self.spec, self.dsn, self.bootstrap, self.partitions, self.clock = spec, dsn, bootstrap, partitions, clock
        self.effects, self.linger_ms, self.ready_file = effects, linger_ms, ready_file
        self.member, self.dead_letters_max, self.parked_grace_s = member, dead_letters_max, parked_grace_s
        self.instance = f"{spec.name}-{socket.gethostname()[:12]}-{os.getpid()}"
        self.owners: dict[int, Owner] = {}
        self.counts: Counter[str] = Counter()

    async def on_start(self) -> None:
        """Raises Unfit: with another partition count every new order would look misplaced."""
        stored = await storage.installed_partitions(self.dsn)
        if stored is not None and stored != self.partitions:
            raise storage.Unfit(f"the database of {self.spec.name} was made for {stored} partitions, the settings say "
                                f"{self.partitions}: set TRADEWIND_PARTITIONS={stored}, or use another database")

    @mode.Service.task
    async def _run(self) -> None:
        while not self.should_stop:
            try:
                await _Session(self).run()
            except TRANSIENT as why:
                log.warning("%s starts over: %s: %s", self.instance, type(why).__name__, why)
                await self.sleep(PAUSE_AFTER_ERROR_S)

    @mode.Service.task
    async def _collect(self) -> None:
        """The cyclic collector walks over every open order; freeze what start-up made and collect seldom."""
        gc.collect()
        gc.freeze()
        gc.disable()
        while not self.should_stop:
            await self.sleep(COLLECT_EVERY_S)
            gc.collect(1)

    def is_ready(self) -> None:
        if self.ready_file:
            pathlib.Path(self.ready_file).touch()


class _Session(ConsumerRebalanceListener):
    """One consumer and one producer, from start to the first error of any owner."""

    def __init__(self, service: PartitionService):
        self.service = service
        self.tasks: dict[int, asyncio.Task] = {}
        self.failed: asyncio.Future = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        service, spec = self.service, self.service.spec
        self.producer = AIOKafkaProducer(bootstrap_servers=service.bootstrap, acks="all", enable_idempotence=True,
                                         linger_ms=0, max_batch_size=1_000_000, request_timeout_ms=20_000)
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=service.bootstrap, group_id=f"tradewind-{spec.name}", enable_auto_commit=False,
            group_instance_id=service.member, value_deserializer=spec.pick(),
            auto_offset_reset="none", isolation_level="read_uncommitted",
            partition_assignment_strategy=(RangePartitionAssignor,), session_timeout_ms=SESSION_TIMEOUT_MS, heartbeat_interval_ms=1_000,
            max_partition_fetch_bytes=2 * FETCH_BYTES, fetch_min_bytes=FETCH_BYTES if service.linger_ms else 1,
            fetch_max_wait_ms=service.linger_ms or 100, max_poll_interval_ms=600_000, metadata_max_age_ms=10_000)
        stop = asyncio.ensure_future(service._stopped.wait())
        try:
            await self.producer.start()
            point("session.producer_started")
            self.submit = service.effects(self.producer) if service.effects else None
            await self.consumer.start()
            self.consumer.subscribe([t.name for t in spec.inputs], listener=self)
            point("session.subscribed")
            watched = {self.failed, stop} | ({self.submit.failed} if self.submit is not None else set())
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            for ended in watched - {stop}:
                if ended.done():
                    ended.result()  # raises: neither ever has a result
        finally:
            stop.cancel()
            await self._end_owners()
            if self.submit is not None:
                await self.submit.stop()
            # A broken connection must not keep the next session from starting.
            await asyncio.gather(self.consumer.stop(), self.producer.stop(), return_exceptions=True)

    submit = None

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        await self._end_owners()

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Nothing is read before its owner has claimed; a partition not held on every input topic never is."""
        try:
            self.consumer.pause(*assigned)
            point("session.assigned")
            if more := {tp for tp in assigned if tp.partition >= self.service.partitions}:
                raise storage.Unfit(f"{min(more)} is beyond the {self.service.partitions} partitions of this installation: "
                                    "a topic was extended, which moves orders to other partitions; make the topic anew")
            held = {p for p in {tp.partition for tp in assigned}
                    if all(TopicPartition(t.name, p) in assigned for t in self.service.spec.inputs)}
            for tp in assigned:
                self.consumer.seek(tp, 0)  # a position, so that nothing asks the reset policy; the owner seeks again
            if half := {tp for tp in assigned if tp.partition not in held}:
                log.error("%s reads nothing of %s: not held on every input topic", self.service.instance, sorted(half))
            for partition in sorted(held):
                self._start_owner(partition)
            self.service.is_ready()
        except Exception as why:  # the consumer would only log it, and go on without us
            self._fail(why)

    def _start_owner(self, partition: int) -> None:
        s = self.service
        owner = Owner(s.spec, s.dsn, partition, s.partitions, s.instance, self.consumer, self.producer, s.clock,
                      self.submit, cache_max=max(1000, 60_000 // s.partitions), dead_letters_max=s.dead_letters_max,
                      parked_grace_s=s.parked_grace_s)
        s.owners[partition] = owner
        task = asyncio.create_task(owner.run(), name=f"{s.spec.name}-{partition}")
        task.add_done_callback(lambda t: None if t.cancelled() else self._fail(t.exception() or RuntimeError("owner ended")))
        self.tasks[partition] = task

    def _fail(self, why: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(why)

    async def _end_owners(self) -> None:
        tasks, self.tasks = list(self.tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        point("session.owners_ended")
        for owner in self.service.owners.values():
            self.service.counts.update(owner.counts)
        self.service.owners.clear()
