"""The limit: the bytes and rows of the measured run, moved by programs without logic. limit_ratio = measured / limit.

As many processes as in the run (three services, the world, the load), on the same broker and database server, right after
it, with the services stopped; topics and databases are fresh. Per order of the run, they do the same number of

- records written to each topic: sampled from the run itself, so with the same keys, bodies and headers, in batches of
  the run's average number of records, one batch of a topic and partition at a time;
- records read from each topic, by every process that reads it in the run;
- rows inserted, updated and deleted in each table (as PostgreSQL counted them), with sampled rows and the runtime's own
  statements, in as many transactions, each fenced and moving offsets; on the same configuration, so with fsync on.

Not counted, so the limit is higher than any real program could reach: decoding, decisions, encoding, any order of cause
and effect (everybody writes at once, nobody waits for an answer), reading rows back, contention for shared rows (each
partition has stock rows of its own), the group protocol, parked records, timers that fire.
There are two limits, because batches are a choice of the run's, not a cost of its logic: with the run's own batches
(limit_ratio: what the logic costs), and with no batch or transaction smaller than FULL_BATCH records
(limit_ratio_full_batches: what logic and small batches cost together; never the higher ratio, but for noise).
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import INTAKE, KEEP, ORDER, PROVIDER_RESULT, TOPICS
from services.bench import measure, quiet
from services.bench.measure import Meter
from services.bench.mover import GO, READY, Task, Writes, done_file
from services.bench.traffic import Traffic, records_of
from services.cli.supervisor import Supervisor
from services.runtime import processes
from services.runtime.migrate import migrate
from services.runtime.processes import Child, NotReady
from services.runtime.settings import SERVICES, Settings
from services.simulators.agenda import interests
from services.simulators.reactions import ROLES

ORDERS_MAX = 20_000
WITHIN_S = 300.0
FULL_BATCH = 500


async def measured(settings: Settings, supervisor: Supervisor, traffic: Traffic, orders: int, in_flight: int,
                   batch_min: int = 1) -> dict:
    """Run the limit program for `orders` orders; its figures. No batch has fewer than `batch_min` records.

    Raises NotReady when it does not come to its end.
    """
    orders, prefix = min(orders, ORDERS_MAX), f"limit.{batch_min}."
    folder = settings.data_folder / f"limit-{batch_min}"
    folder.mkdir(exist_ok=True)
    names = [prefix + topic.name for topic in TOPICS]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    children: dict[str, Child] = {}
    try:
        await admin.create_topics([NewTopic(name, settings.partitions, 1, topic_configs=KEEP) for name in names])
        tasks = await _tasks(settings, supervisor, traffic, orders, in_flight, batch_min, prefix)
        await _leaders(settings, names)
        for name, task in tasks.items():
            (folder / f"{name}.task").write_bytes(pickle.dumps(task))
            children[name] = processes.spawn(
                f"limit-{name}", [sys.executable, "-m", "services.bench.mover", str(folder), name],
                log=_log_of(folder, name), env=settings.child_env())
        return await _race(folder, supervisor, children, orders)
    finally:
        await asyncio.gather(*(processes.stop(child, grace_s=1) for child in children.values()))
        await admin.delete_topics(names)
        await admin.close()
        for service in SERVICES:
            await _drop(supervisor, service)


def _log_of(folder: Path, name: str) -> Path:
    return folder.parent / "logs" / f"{folder.name}-{name}.log"


async def _tasks(settings: Settings, supervisor: Supervisor, traffic: Traffic, orders: int, in_flight: int, batch_min: int,
                 prefix: str) -> dict[str, Task]:
    """Who writes, reads and stores what."""
    specs = {service: import_module(f"services.{service}.app").spec(settings) for service in SERVICES}
    owner = {spec.output.name: service for service, spec in specs.items()} | {PROVIDER_RESULT.name: "payments"}
    written = await _writes(settings, traffic, owner, orders, batch_min, prefix)
    on_topic: Counter[str] = Counter()
    for writes in written.values():
        on_topic.update({w.topic: w.records for w in writes})
    reads = {service: [topic.name for topic in spec.inputs] for service, spec in specs.items()}
    reads |= {"world": sorted({topic for topic, _ in interests(ROLES)}), "load": [ORDER.name]}
    dsns = {service: await supervisor.postgres.create_database(f"limit_{service}") for service in SERVICES}
    for service, dsn in dsns.items():
        await migrate(dsn, service, settings.partitions)

    def transactions(name: str) -> float:
        heard = sum(traffic.topics[topic].records for topic in reads[name])
        return min(traffic.transactions.get(name, 0.0), heard / batch_min)

    return {name: Task(
        name, settings.bootstrap, settings.partitions, orders, in_flight, writes,
        {prefix + topic: on_topic[prefix + topic] for topic in reads[name] if on_topic[prefix + topic]},
        dsns.get(name), traffic.rows.get(name, {}), transactions(name)) for name, writes in written.items()}


async def _writes(settings: Settings, traffic: Traffic, owner: dict[str, str], orders: int, batch_min: int, prefix: str,
                  ) -> dict[str, list[Writes]]:
    """By process. The load places orders; what else is on the intake, and all reports, come from the world."""
    written: dict[str, list[Writes]] = {name: [] for name in (*SERVICES, "world", "load")}
    for topic, flow in traffic.topics.items():
        sample, count = await records_of(settings, topic), round(flow.records * orders)
        batch = max(batch_min, round(flow.records / flow.batches)) if flow.batches else batch_min
        places = orders if topic == INTAKE.name else 0
        for who, records, kind in (("load", places, True), (owner.get(topic, "world"), count - places, False)):
            if records > 0 and sample[kind]:
                written[who].append(Writes(prefix + topic, records, batch, sample[kind]))
    return written


async def _leaders(settings: Settings, names: list[str], within_s: float = 10.0) -> None:
    """A topic that was just created may have no leader for a moment."""
    end = time.monotonic() + within_s
    while True:
        try:
            await quiet.ends(settings.bootstrap, names, settings.partitions)
            return
        except Exception as why:  # aiokafka has no common class for what happens before there is a leader
            if time.monotonic() > end:
                raise NotReady(f"the limit's topics have no leader: {why}", settings.bootstrap, "See the broker's log.") from why
            await asyncio.sleep(0.1)


async def _race(folder: Path, supervisor: Supervisor, children: dict[str, Child], orders: int) -> dict:
    """All start at once; the last to end counts."""
    await _all_have(folder, children, READY)
    servers = {name.removesuffix("-1"): watched.child.pid for name, watched in supervisor.watched.items()}
    meter = Meter(servers | {name: child.pid for name, child in children.items()})
    first = meter.snapshot(0)
    (folder / GO).touch()
    await _all_have(folder, children, None)
    figures = measure.cost(first, meter.snapshot(orders))
    ended = {name: float(done_file(folder, name).read_text()) for name in children}
    return figures | {"ended_s": {name: round(at, 2) for name, at in ended.items()}}


async def _all_have(folder: Path, children: dict[str, Child], suffix: str | None) -> None:
    end = time.monotonic() + WITHIN_S
    for name, child in children.items():
        path = done_file(folder, name) if suffix is None else folder / f"{name}{suffix}"
        while not path.exists():
            log = _log_of(folder, name)
            if not child.alive or time.monotonic() > end:
                raise NotReady(f"the limit's {name} ended or hangs: {processes.tail(log)}", str(log), "Its log has the cause.")
            await asyncio.sleep(0.01)


async def _drop(supervisor: Supervisor, service: str) -> None:
    conn = await asyncpg.connect(supervisor.postgres.dsn())
    try:
        await conn.execute(f'DROP DATABASE IF EXISTS "limit_{service}" WITH (FORCE)')
    finally:
        await conn.close()
