"""Generated bad records among good orders, on a real broker and real databases: all three services, the outside world, the audit.

TRADEWIND_TEST_POISON=10000 plants ten thousand (the suite: 1,000).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter

from schemas.topics import TOPICS
from services.auditor.audit import audit
from services.cli.rest import at_rest, left_open
from services.orders import app as orders
from services.payments import app as payments
from services.runtime import owner
from services.runtime.clock import Clock
from services.runtime.local import LocalKafka
from services.runtime.migrate import migrate
from services.runtime.processes import free_port
from services.runtime.service import PartitionService
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics
from services.shipping import app as shipping
from services.simulators import world
from services.simulators.agenda import Options
from services.simulators.demo_orders import demo_orders
from services.simulators.edge import Publisher, client_journal, inbound_for, place_record
from services.simulators.poison import dead_letters_of, generate, plant
from tests.tally import content, until

COUNT, GOOD, PARTITIONS = int(os.environ.get("TRADEWIND_TEST_POISON", 1_000)), 60, 3
APPS = {"orders": orders, "payments": payments, "shipping": shipping}


@contextlib.asynccontextmanager
async def everything(settings: Settings):
    """The three services and the world, in this process."""
    clock, stop = Clock.real(), asyncio.Event()
    services = []
    for name, app in APPS.items():
        effects = app.effects(settings, clock) if name == "payments" else None
        services.append(PartitionService(app.spec(settings), settings.dsn(name), settings.bootstrap, PARTITIONS, clock, effects,
                                         dead_letters_max=10**6))
    options = Options("all", settings.bootstrap, seed=1, exits_permille=0, fast=True, journals=settings.data_folder / "journals")
    for service in services:
        await service.start()
    outside = asyncio.create_task(world.run(options, clock, stop))
    try:
        yield services
    finally:
        stop.set()
        await asyncio.gather(outside, return_exceptions=True)
        for service in services:
            await service.stop()


async def found_letters(settings: Settings) -> Counter:
    """(topic, partition, offset, service, reason), each once."""
    found = set()
    for topic in TOPICS:
        for letter in await content(settings.bootstrap, topic.dlq, PARTITIONS):
            why = {k.removeprefix("__dlq.errors."): v for k, v in letter.headers if k.startswith("__dlq.errors.")}
            found.add((why["topic"].decode(), int(why["partition"]), int(why["offset"]), why["service"].decode(), why["reason"].decode()))
    return Counter(found)


async def test_bad_records_are_exactly_the_dead_letters_and_their_neighbours_all_end(tmp_path, cache_folder, postgres, monkeypatch):
    kafka = LocalKafka(tmp_path / "kafka", free_port(2), cache=cache_folder)
    await kafka.start()
    dsns = {}
    for service in SERVICES:
        dsns[f"{service}_dsn"] = await postgres(f"poison_{service}")
        await migrate(dsns[f"{service}_dsn"], service, PARTITIONS)
    settings = Settings(bootstrap_servers=kafka.bootstrap, data_folder=tmp_path / "data", partitions=PARTITIONS, provider="inprocess", **dsns)
    await ensure_topics(kafka.bootstrap, PARTITIONS)
    clock = Clock.real()
    good = list(demo_orders(1, GOOD, vault_key=settings.vault_key_bytes(), placed_at=clock.now(), exits_permille=0, forced=False))
    bad = generate(7, COUNT, PARTITIONS)
    try:
        async with everything(settings) as services, Publisher(kafka.bootstrap, client_journal(settings)) as publisher:
            await publisher.send(inbound_for(good, batch="poison", time=clock.now()))
            half = len(bad) // 2
            journals = settings.data_folder / "journals"
            planted = await plant(kafka.bootstrap, bad[:half], journals / "planted.ndjson")
            _, more = await asyncio.gather(publisher.send(map(place_record, good)),
                                           plant(kafka.bootstrap, bad[half:], journals / "planted.ndjson"))
            planted += more
            wanted = dead_letters_of(planted)
            late = Counter({where: n for where, n in wanted.items() if where[4] == "parked_too_long"})
            assert late and len(wanted) > COUNT * 0.9
            await until(lambda: _is(settings, wanted - late), within_s=60 + COUNT / 50, every_s=1.0)
            await until(lambda: _only_parked(settings), within_s=60, every_s=0.5)
            monkeypatch.setattr(owner, "PARKED_GRACE_S", 0.0)
            monkeypatch.setattr(owner, "PARKED_SECONDS_MAX", 1.0)
            await until(lambda: _is(settings, wanted), within_s=30 + COUNT / 100, every_s=1.0)
            assert not any(service.crash_reason for service in services)
            assert await at_rest(settings, 10) == []
        report = await audit(settings)
        assert report.clean, "\n".join(report.lines())
        assert report.orders == GOOD and report.dead_letters == len(wanted) and not report.exits["open"]
    finally:
        await kafka.stop()


async def _only_parked(settings: Settings) -> bool:
    """The good orders have all ended; what waits is the future's."""
    return all("parked" in what for what in await left_open(settings))


async def _is(settings: Settings, wanted: Counter) -> bool:
    return await found_letters(settings) == wanted
