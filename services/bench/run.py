"""One benchmark from beginning to end: a fresh system, a warm-up, the closed loop, half of its rate, the limit."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import TOPICS
from services.bench import limit, measure, orders, parts, quiet
from services.bench.load import Load, Stalled
from services.bench.measure import Meter, Snapshot
from services.bench.traffic import Traffic, Watch
from services.cli import prepare
from services.cli.state import Folder, Lock
from services.cli.supervisor import Supervisor, run
from services.cli.table import Program, UnknownProgram
from services.orders import rulebook
from services.runtime.kafka_jars import KAFKA_VERSION
from services.runtime.local_postgres import POSTGRES_MAJOR
from services.runtime.processes import StartError
from services.runtime.settings import ELSEWHERE, SERVICES, Settings
from services.runtime.topics import TopicRefused
from services.simulators.edge import Publisher

WARM_UP = 0.1
IN_FLIGHT = 6_000
TUNED = {"partitions": 2, "linger_ms": 80}
HALF_SECONDS, HALF_ORDERS_MAX = 10.0, 20_000
DISK_BYTES = 6_000_000_000  # the write-ahead log at its largest, and room to breathe
# Measured over 30,000 orders: 20,400 and 7,600; and 2,000 of the file they are read from.
TOPIC_BYTES_PER_ORDER, TABLE_BYTES_PER_ORDER = 24_000, 11_000
# A topic is looked at every five minutes; until then it may hold more than it is allowed to.
RETAIN_OVERRUN_BYTES = 8_000_000_000
MEMORY_FIRST = 10_000  # finished orders, when memory is noted first; then ten times in a run


class TooLittleDisk(StartError):
    """The topics and databases of so many orders do not fit."""


@dataclass(frozen=True)
class Plan:
    """What to measure. `profile`: a program to run under cProfile, which makes it slower, hence its figures useless."""

    orders: int
    seed: int
    in_flight: int = IN_FLIGHT
    half_load: bool = True
    limit: bool = True
    profile: str | None = None
    part_orders: int = 0  # for each part of the trade: so many without and with it, in memory; 0: the parts are not measured
    retain_gb: float | None = None  # of all topics together; None: they keep everything, as the product's do

    @property
    def in_flight_max(self) -> int:
        """The loop is full only between its first and its last `in_flight` orders, so a short run needs fewer of them."""
        return max(1, min(self.in_flight, self.orders // 5))

    @property
    def memory_marks(self) -> list[int]:
        """After how many finished orders memory is noted."""
        step = max(MEMORY_FIRST, self.orders // 10)
        return sorted({MEMORY_FIRST, *range(step, self.orders, step)} if self.orders > MEMORY_FIRST else set())

    @property
    def half_orders_max(self) -> int:
        return min(self.orders, HALF_ORDERS_MAX) if self.half_load else 0


def own_settings(settings: Settings) -> Settings:
    """A system of its own below the data folder, on local servers, at the speed of real time.

    One instance a service has nothing to spread, so two partitions and fuller fetches unless the settings say otherwise."""
    tuned = {name: value for name, value in TUNED.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=dict.fromkeys(ELSEWHERE) | tuned | {
        "data_folder": settings.data_folder / "bench", "provider": "inprocess", "speed": 1.0, "log_level": "WARNING"})


def table(settings: Settings, plan: Plan) -> tuple[Program, ...]:
    """The three services and one world. Raises UnknownProgram when the plan profiles another."""
    world = Program("world", "services.simulators.world", ("--role", "all", "--fast", "--no-journal", "--seed", str(plan.seed)),
                    SERVICES)
    programs = (*(Program(service, f"services.{service}.app") for service in SERVICES), world)
    if plan.profile not in (None, *(p.name for p in programs)):
        raise UnknownProgram(f"no program is called {plan.profile}", "--profile",
                             f"There are: {', '.join(p.name for p in programs)}.")
    return tuple(_profiled(p, settings) if p.name == plan.profile else p for p in programs)


def _profiled(program: Program, settings: Settings) -> Program:
    folder = settings.data_folder / "profile"
    folder.mkdir(parents=True, exist_ok=True)
    return Program(program.name, "cProfile", ("-o", str(folder / f"{program.name}.prof"), "-m", program.module, *program.args),
                   program.needs)


async def empty(settings: Settings) -> None:
    """Remove what an earlier benchmark left. Raises AlreadyRunning when one is still running there."""
    folder = Folder(settings.data_folder)
    lock = Lock(folder)
    lock.take()
    try:
        # Servers whose supervisor was killed may still be going down; they must not write into the new folder.
        await asyncio.gather(prepare.kafka(settings).stop(), prepare.postgres(settings).stop())
        shutil.rmtree(settings.data_folder)
    finally:
        lock.release()


def bench(settings: Settings, plan: Plan, progress: Callable[[str], None] = lambda _: None) -> dict:
    """Everything; the figures. Raises StartError, Interrupted, KeyboardInterrupt; by then everything is stopped. The data
    stays in the folder, for an audit."""
    settings = own_settings(settings)
    asyncio.run(empty(settings))
    programs = table(settings, plan)
    count = plan.orders + plan.half_orders_max
    require_disk(settings, plan, count)
    found = _parts(settings, plan, progress) if plan.part_orders else {}
    progress(f"prepare {count} orders")
    path = settings.data_folder / "bench-orders.msgpack"
    given = {"vault_key": settings.vault_key_bytes(), "placed_at": datetime.now(UTC)}
    mix, stock = orders.build(path, seed=plan.seed, count=plan.orders + plan.half_orders_max, partitions=settings.partitions, **given)
    reader = orders.Reader(path)

    async def body(supervisor: Supervisor) -> dict:
        if plan.retain_gb is not None:
            names = [topic.name for topic in TOPICS]
            await retain(settings.bootstrap, names, settings.partitions, int(plan.retain_gb * 1e9))
        async with Publisher(settings.bootstrap) as publisher:
            await publisher.send(stock)
        await quiet.rest(settings, calm_s=0.5)
        return await _Run(settings, plan, supervisor, progress).all(reader)

    gc.collect()
    gc.freeze()
    gc.disable()  # as in the services: nothing here makes cycles, and the collector would walk over every open order
    try:
        figures = asyncio.run(run(Supervisor(settings, programs, progress), body))
    finally:
        gc.enable()
        reader.close()
        reader.path.unlink(missing_ok=True)
    return figures | found | {"partitions": settings.partitions, "linger_ms": settings.linger_ms, "mix": mix.as_dict(),
                      "seed": plan.seed, "retain_gb": plan.retain_gb, "versions": _versions(),
                      "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}


def _parts(settings: Settings, plan: Plan, progress: Callable[[str], None]) -> dict:
    """What each part of the trade costs, before anything else runs here."""
    rules, found = rulebook.load(settings.rates_file, settings.tax_rounding), {}
    for part in parts.PARTS.values():
        progress(f"part {part.name}: {plan.part_orders} orders without and with it")
        found[part.name] = parts.measured(part, settings, rules, seed=plan.seed, count=plan.part_orders, placed_at=datetime.now(UTC))
    return {"parts": found}


def require_disk(settings: Settings, plan: Plan, count: int) -> None:
    """Raises TooLittleDisk: a broker whose disk is full takes a long time to die."""
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    topics = count * TOPIC_BYTES_PER_ORDER
    if plan.retain_gb is not None:
        topics = min(topics, plan.retain_gb * 1e9 + RETAIN_OVERRUN_BYTES)
    wanted, free = DISK_BYTES + topics + count * TABLE_BYTES_PER_ORDER, shutil.disk_usage(settings.data_folder).free
    if free < wanted:
        raise TooLittleDisk(f"{count} orders need about {wanted / 1e9:.0f} GB of disk, {free / 1e9:.0f} GB are free",
                            str(settings.data_folder),
                            "Choose another folder (TRADEWIND_DATA_FOLDER), fewer orders, or --retain-gb.")


async def retain(bootstrap: str, topics: list[str], partitions: int, total_bytes: int) -> None:
    """Let these topics keep about `total_bytes` together, the newest; the product's own keep everything. Raises TopicRefused."""
    each = max(1 << 20, total_bytes // (len(topics) * partitions))
    configs = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": str(each),
               "segment.bytes": str(min(1 << 30, max(1 << 20, each // 4)))}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answers = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=configs) for name in topics])
        for code, message, _, name in (resource for answer in answers for resource in answer.resources):
            if code:
                raise TopicRefused(f"topic {name} cannot be made to forget: {message}", name, "Look at the broker's log.")
    finally:
        await admin.close()


class _Run:
    """The phases on a running, stocked system."""

    def __init__(self, settings: Settings, plan: Plan, supervisor: Supervisor, progress: Callable[[str], None]):
        self.settings, self.plan, self.supervisor, self.progress = settings, plan, supervisor, progress
        pids = {name.removesuffix("-1"): w.child.pid for name, w in supervisor.watched.items()}
        self.meter = Meter(pids | {"load": os.getpid()})
        self.watch, self.sampling = Watch(settings), None
        self.told = 0.0

    async def all(self, reader: orders.Reader) -> dict:
        settings, plan = self.settings, self.plan
        rss = {"start": self.meter.rss_mb()}
        await self.watch.begin(exact=plan.limit)
        async with Load(settings.bootstrap, settings.partitions, reader) as load:
            figures, first, last = await self._closed(load, rss)
            rss["end"] = self.meter.rss_mb()
            traffic = None
            if not load.open:
                await quiet.rest(settings)
                traffic = await self.watch.traffic(plan.orders, exact=plan.limit)
            if not load.open and plan.half_load:
                figures["half_load"] = await self._half(load, figures["lifecycles_per_s"] / 2)
        delay = await measure.delays(settings.bootstrap, settings.partitions, first.epoch_ms, last.epoch_ms, plan.orders)
        figures |= {"p50_s": delay["settled"]["p50_s"], "p99_s": delay["settled"]["p99_s"], "delays": delay}
        figures |= {"restarts": {name: w.restarts for name, w in self.supervisor.watched.items() if w.restarts},
                    "traffic": traffic.as_dict() if traffic else None, "limit_ratio": None}
        if not load.open:
            await quiet.rest(settings)
            if plan.limit:
                figures |= await self._limit(figures, traffic)
        dead = await quiet.ends(settings.bootstrap, [topic.dlq for topic in TOPICS], settings.partitions)
        return figures | {
            "rss_mb": {name: {moment: values.get(name) for moment, values in rss.items()} for name in rss["start"]},
            "dead_letters": {name: sum(found) for name, found in dead.items() if sum(found)},
        }

    async def _limit(self, figures: dict, traffic: Traffic) -> dict:
        """What the run moved, without its logic. The ratios of processor time are there because they hardly depend on what
        else the machine is doing, as the ratios of the rates do."""
        await self.supervisor.stop_programs()
        result = {}
        for suffix, batch_min in (("", 1), ("_full_batches", limit.FULL_BATCH)):
            self.progress(f"the same bytes and rows without logic{suffix.replace('_', ' ')}")
            found = await limit.measured(self.settings, self.supervisor, traffic, self.plan.orders, self.plan.in_flight_max,
                                         batch_min)
            result[f"limit{suffix}"] = found
            if found["lifecycles_per_s"] and figures["cpu_us_per_order"]:
                result[f"limit_ratio{suffix}"] = round(figures["lifecycles_per_s"] / found["lifecycles_per_s"], 3)
                result[f"limit_cpu_ratio{suffix}"] = round(
                    found["cpu_us_per_order"]["total"] / figures["cpu_us_per_order"]["total"], 3)
        return result

    async def _closed(self, load: Load, rss: dict) -> tuple[dict, Snapshot, Snapshot]:
        """Measured from the end of the warm-up until the last order is placed: from then on the loop runs empty."""
        plan, marks, began = self.plan, [], time.monotonic()
        moments = plan.memory_marks

        def each() -> None:
            if moments and load.finished >= moments[0]:
                rss[str(moments.pop(0))] = self.meter.rss_mb()
            if plan.limit and self.sampling is None and load.finished >= plan.orders * WARM_UP / 3:
                self.sampling = asyncio.create_task(self.watch.sample())
            if not marks and load.finished >= plan.orders * WARM_UP:
                rss["warm"] = self.meter.rss_mb()
                marks.append(self.meter.snapshot(load.finished))
            elif len(marks) == 1 and load.placed == plan.orders:
                marks.append(self.meter.snapshot(load.finished))
            self._tell("closed loop", load)

        stalled = await self._phase(load.closed(plan.orders, plan.in_flight_max, each))
        if self.sampling is not None:
            await self.sampling
        while len(marks) < 2:  # stalled before it was warm, or before all were placed
            marks.append(self.meter.snapshot(load.finished))
        figures = measure.cost(*marks) | {"placed": load.placed, "finished": load.finished, "in_flight": plan.in_flight_max,
                                          "whole_run_s": round(time.monotonic() - began, 2)} | stalled
        return figures, marks[0], marks[1]

    async def _half(self, load: Load, rate: float) -> dict:
        """The same system at a fixed rate. Delays without the orders of its first fifth; processor time of all of it, to
        the last order's end, because an order's work is spread over its delay."""
        count = max(1, min(self.plan.half_orders_max, round(rate * HALF_SECONDS)))
        first_placed, since_ms, until_ms = load.placed, 0, 0

        def each() -> None:
            nonlocal since_ms, until_ms
            if not since_ms and load.placed >= first_placed + count / 5:
                since_ms = int(time.time() * 1000)
            if not until_ms and load.placed == first_placed + count:
                until_ms = int(time.time() * 1000)
            self._tell(f"half load, {rate:.0f}/s", load)

        first = self.meter.snapshot(load.finished)
        stalled = await self._phase(load.steady(count, rate, each))
        figures = measure.cost(first, self.meter.snapshot(load.finished)) | {"wanted_per_s": round(rate, 1), "placed": count}
        delay = await measure.delays(self.settings.bootstrap, self.settings.partitions, since_ms, until_ms, count)
        return figures | {"p50_s": delay["settled"]["p50_s"], "p99_s": delay["settled"]["p99_s"], "delays": delay} | stalled

    @staticmethod
    async def _phase(phase) -> dict:
        try:
            await phase
        except Stalled as why:  # the figures up to here show where it stands still
            return {"stalled": f"{why.what}: {why.where}"}
        return {}

    def _tell(self, phase: str, load: Load) -> None:
        if time.monotonic() - self.told >= 1:
            self.told = time.monotonic()
            self.progress(f"{phase}: {load.finished} finished, {len(load.open)} open")


def _versions() -> dict[str, str]:
    return {"tradewind": version("tradewind"), "python": platform.python_version(), "kafka": KAFKA_VERSION,
            "postgres": POSTGRES_MAJOR, "aiokafka": version("aiokafka"), "asyncpg": version("asyncpg")}
