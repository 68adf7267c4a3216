"""Planted bugs on a real broker and real databases: load, faults, drain, audit.

    python -m tests.planted_runs                 every such bug, and each kind of run without one; a table at the end
    python -m tests.planted_runs NAME …          these

One broker and one database server for all runs. Before each, what is on the topics is deleted, and new databases start
at their ends; the broker, the payment provider, the outside world and the auditor never have a bug.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import asyncpg
import psutil
from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from schemas.provider_api import WEBHOOK_TYPE, ProviderVerdict, ProviderWebhook
from schemas.topics import TOPICS
from services.auditor.audit import audit
from services.auditor.report import Report
from services.auditor.watch import Watch
from services.cli.rest import left_open, stocked
from services.orders import app as orders
from services.payments import app as payments
from services.runtime import processes
from services.runtime.clock import Clock
from services.runtime.local import LocalKafka, LocalPostgres
from services.runtime.migrate import migrate
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics
from services.shipping import app as shipping
from services.simulators import world
from services.simulators.agenda import Options
from services.simulators.edge import Publisher, client_journal, demo_orders, inbound_for, place_record
from services.simulators.provider import Manners, Provider
from services.simulators.provider_webhooks import Webhooks
from services.simulators.scenario import COLD, SCENARIOS, WAIT_LONGER, scenario_of
from tests.planted import CONTROL, ROOT, Caught
from tests.planted_bugs import BUGS, Bug

PARTITIONS, SEED, SPEED, ORDERS = 2, 7, 12_000.0, 48
DRAIN_S, STILL_S, READY_S, KILLS = 20.0, 5.0, 60.0, 3
# With what trade time does in such a run, these would end by their deadlines alone, or need the provider to misbehave.
LEFT_OUT = WAIT_LONGER | COLD | {"payment_abandoned", "provider_timeout"}

MakeDb = Callable[[str], Awaitable[str]]


@dataclass
class System:
    """One run. `child`: the process with the services in it."""

    bug: Bug
    settings: Settings
    clock: Clock
    folder: Path
    child: processes.Child | None = None
    found: list[tuple[str, Report]] = field(default_factory=list)
    crash: str = ""
    watching: bool = True

    def start(self) -> None:
        env = self.settings.child_env(**self.clock.env(), PLANTED_READY=str(self.folder / "ready"))
        if self.crash:  # of the first life alone
            kind = self.bug.run.partition(":")[0]
            env[{"zombie": "PLANTED_STOP", "ends": "PLANTED_END"}.get(kind, "TRADEWIND_CRASH")], self.crash = self.crash, ""
        for name in SERVICES:
            (self.folder / "ready" / name).unlink(missing_ok=True)
        name = (self.bug if self.bug.changes else CONTROL).name
        command = [sys.executable, "-m", "tests.planted", "--run", name, "tests.planted_system"]
        self.child = processes.spawn("planted", command, log=self.folder / "system.log", env=env, cwd=ROOT)

    async def ready(self) -> None:
        async with asyncio.timeout(READY_S):
            while not all((self.folder / "ready" / name).exists() for name in SERVICES):
                assert self.child.alive or self.watching, processes.tail(self.folder / "system.log", 20)
                await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Start the services again whenever they have ended."""
        while True:
            await asyncio.sleep(0.05)
            if self.watching and not self.child.alive:
                self.start()

    async def kill(self) -> None:
        self.child.signal(signal.SIGKILL)
        await processes.gone(self.child, 5)


# -- what a run does to the system ------------------------------------------------------------------------------------------


async def steady(system: System) -> None:
    """No fault."""


async def kills(system: System) -> None:
    """SIGKILL at random moments; while nothing runs, what is committed and published must agree already."""
    dice = random.Random(SEED)
    for _ in range(KILLS):
        await system.ready()
        await asyncio.sleep(dice.uniform(0.15, 0.6))
        system.watching = False
        await system.kill()
        system.found.append(("audit after a kill", await audit(system.settings, live=True)))
        system.start()
        system.watching = True


async def zombie(system: System) -> None:
    """The process stops in the middle of a batch (see `System.start`), another takes over, then it wakes up."""
    async with asyncio.timeout(READY_S):
        while psutil.Process(system.child.pid).status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.02)
    system.watching = False
    old = system.child
    system.start()
    await system.ready()
    await asyncio.sleep(1.0)
    old.signal(signal.SIGCONT)
    await asyncio.sleep(2.0)
    old.signal(signal.SIGKILL)
    await processes.gone(old, 5)
    if not system.child.alive:
        system.start()
    system.watching = True


async def forged_webhook(system: System) -> None:
    """Somebody without the secret says that payments failed."""
    conn = await asyncpg.connect(system.settings.dsn("payments"))
    address = f"http://127.0.0.1:{system.settings.webhook_port}/webhooks/provider"
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,Zm9yZ2Vk"}
    told: set[str] = set()
    async with aiohttp.ClientSession() as session:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            rows = await conn.fetch("SELECT intent_id, order_id, body::text FROM intents WHERE kind = 'authorise'")
            for intent_id, order_id, body in rows:
                if intent_id not in told:
                    told.add(intent_id)
                    call = {name: value for name, value in json.loads(body).items() if name in ("payment_id", "amount", "currency")}
                    verdict = ProviderVerdict(intent_id=intent_id, kind="authorise", order_id=order_id, outcome="failed",
                                              reason="forged", **call)
                    text = ProviderWebhook(type=WEBHOOK_TYPE, timestamp=datetime.now(UTC), data=verdict).model_dump_json()
                    async with session.post(address, data=text, headers=headers):
                        pass
            await asyncio.sleep(0.005)
    await conn.close()
    assert told, "no call was open long enough to be lied about"


RUNS = {"steady": steady, "kills": kills, "zombie": zombie, "forged_webhook": forged_webhook}


# -- one run ------------------------------------------------------------------------------------------------------------------


async def run(bug: Bug, kafka: LocalKafka, make_db: MakeDb, base: Path) -> Caught:
    """The run that this bug shows in, and what the auditor says of it."""
    began, folder = time.monotonic(), base / bug.name
    (folder / "ready").mkdir(parents=True)
    port = processes.free_port(2)
    dsns = {f"{service}_dsn": await make_db(f"planted_{service}") for service in SERVICES}
    settings = Settings(bootstrap_servers=kafka.bootstrap, data_folder=folder, partitions=PARTITIONS, seed=SEED, speed=SPEED,
                        provider="http", provider_port=port, webhook_port=port + 1, linger_ms=5, **dsns)
    settings.vault_key_bytes(), settings.webhook_secret_text()
    await _from_nothing(settings)
    now = datetime.now(UTC)
    system = System(bug, settings, Clock(now, now, SPEED), folder)
    kind, _, system.crash = bug.run.partition(":")
    handled = {app.spec(settings).name: app.spec(settings).handled for app in (orders, payments, shipping)}
    async with (_outside(settings, system.clock), Publisher(kafka.bootstrap, client_journal(settings)) as publisher,
                Watch(settings, handled)):
        system.start()
        watch = asyncio.create_task(system.watch())
        try:
            await _load(system, publisher, RUNS.get(kind, steady))
            await _drain(settings, 1 if bug.changes else 4)
        finally:
            watch.cancel()
            await asyncio.sleep(1.2)  # owners note once a second how far they have read
            await system.kill()
    system.found.append(("audit at the end", await audit(settings)))
    caught = Caught(bug.name, seconds=round(time.monotonic() - began, 1))
    for when, report in system.found:
        if not report.clean:
            first = report.violations[0]
            caught.by.setdefault("auditor", f"{when}: rule {first.rule} ({first.name}): {'; '.join(first.evidence)}"[:200])
            caught.rules = sorted({v.rule for v in report.violations} | set(caught.rules))
    return caught


async def _from_nothing(settings: Settings) -> None:
    """Empty topics and databases. Offsets go on where they were: the databases have read up to there."""
    await ensure_topics(settings.bootstrap, PARTITIONS)
    places = [TopicPartition(name, p) for t in TOPICS for name in (t.name, t.dlq) for p in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap)
    await consumer.start()
    ends = await consumer.end_offsets(places)
    await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    if used := {tp: RecordsToDelete(before_offset=end) for tp, end in ends.items() if end}:
        await admin.delete_records(used)
    await admin.close()
    for service in SERVICES:
        await migrate(settings.dsn(service), service, PARTITIONS)
        conn = await asyncpg.connect(settings.dsn(service))
        for partition in range(PARTITIONS):
            read = {t.name: ends[TopicPartition(t.name, partition)] for t in TOPICS if service in t.read_by}
            await conn.execute("UPDATE partitions SET offsets = $2::text::jsonb WHERE partition = $1", partition,
                               json.dumps(read))
        await conn.close()


@asynccontextmanager
async def _outside(settings: Settings, clock: Clock) -> AsyncIterator[None]:
    """The payment provider and the outside world, in this process: they live through every kill."""
    webhooks = Webhooks(f"http://127.0.0.1:{settings.webhook_port}/webhooks/provider", settings.webhook_secret_text(), SEED)
    provider = Provider(settings.data_folder / "journals", clock, Manners(latency_s=0.02), webhooks)
    runner = web.AppRunner(provider.app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.provider_port).start()
    stop = asyncio.Event()
    options = Options("all", settings.bootstrap, SEED, fast=True, journals=settings.data_folder / "journals")
    people = asyncio.create_task(world.run(options, clock, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(people, return_exceptions=True)
        await runner.cleanup()


async def _load(system: System, publisher: Publisher, fault: Callable[[System], Awaitable[None]]) -> None:
    settings = system.settings
    given = {"vault_key": settings.vault_key_bytes(), "placed_at": system.clock.now()}
    placed = [order for order in demo_orders(SEED, len(SCENARIOS), prefix="p", **given)
              if scenario_of(order.order_id, SEED) not in LEFT_OUT]
    placed += demo_orders(SEED, ORDERS - len(placed), prefix="s", forced=False, fast=True, **given)
    await system.ready()
    count = await publisher.send(inbound_for(placed, batch="planted", time=system.clock.now()))
    async with asyncio.timeout(READY_S):
        await stocked(settings, count)
    async with asyncio.TaskGroup() as both:
        both.create_task(fault(system))
        for n in range(0, len(placed), 8):
            await publisher.send(place_record(order) for order in placed[n:n + 8])
            await asyncio.sleep(0.15)


async def _drain(settings: Settings, patience: float) -> None:
    """Until nothing is open, or nothing has moved for a while: then it never will. `patience`: for a slow machine."""
    end, before, since = time.monotonic() + DRAIN_S * patience, None, time.monotonic()
    while time.monotonic() < end:
        conn = await asyncpg.connect(settings.dsn("orders"))
        known = await conn.fetchval("SELECT count(*) FROM orders")
        await conn.close()
        left = await left_open(settings)
        if not left and known >= ORDERS:
            return
        if (left, known) != before:
            before, since = (left, known), time.monotonic()
        elif time.monotonic() - since > STILL_S * patience:
            return
        await asyncio.sleep(0.2)


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[tuple[LocalKafka, MakeDb]]:
    kafka = LocalKafka(folder / "kafka", processes.free_port(2), cache=Settings().cache_folder)
    postgres = LocalPostgres(folder / "postgres", processes.free_port())
    try:
        await asyncio.gather(kafka.start(), postgres.start())

        async def make_db(name: str) -> str:
            conn = await asyncpg.connect(postgres.dsn())
            await conn.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await conn.execute(f'CREATE DATABASE "{name}"')
            await conn.close()
            return postgres.dsn(name)

        yield kafka, make_db
    finally:
        await asyncio.gather(kafka.stop(), postgres.stop())


def is_right(bug: Bug, caught: Caught) -> bool:
    """Whether who must notice has noticed; without a bug nobody may."""
    if not bug.changes:
        return not caught.by
    return bool(caught.rules) and (not bug.rules or bool(set(caught.rules) & bug.rules))


def controls() -> list[Bug]:
    """The product without a bug, once in each kind of run."""
    kinds = dict.fromkeys(bug.run for bug in BUGS if bug.run != "memory")
    return [Bug(f"control of {kind}", CONTROL.breaks, (), run=kind) for kind in kinds]


async def main(names: list[str]) -> int:
    known = {bug.name: bug for bug in (*controls(), *(bug for bug in BUGS if bug.run != "memory"))}
    folder, wrong = Path(tempfile.mkdtemp(prefix="planted-")), 0
    async with servers(folder) as (kafka, make_db):
        for bug in [known[name] for name in names] or known.values():
            caught = await run(bug, kafka, make_db, folder / "runs")
            right = is_right(bug, caught)
            wrong += not right
            print(f"{'ok' if right else 'WRONG':5} {bug.name:34} {bug.run:18} {caught.seconds:5.1f} s  "
                  f"{','.join(map(str, caught.rules)) or '-':24} {caught.by.get('auditor', 'nobody')[:110]}", flush=True)
    if not wrong:
        shutil.rmtree(folder)
    else:
        print(f"{wrong} of {len(names) or len(known)} wrong; logs and journals are in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.planted_runs", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    os.environ.pop("TRADEWIND_CRASH", None)
    raise SystemExit(asyncio.run(main(parser.parse_args().names)))
