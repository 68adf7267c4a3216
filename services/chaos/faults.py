"""Every fault that a campaign can do, one function and one row of the table each.

A function does its fault once: it chooses a victim with the campaign's dice, hurts it, heals it, and leaves it to
`Campaign.measure` how long the services take to catch up. What must hold in the end is the auditor's business.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import psutil

from services.chaos import brokers, disks
from services.chaos.duplicates import republish
from services.chaos.load import OPEN_MAX
from services.chaos.recovery import until
from services.runtime import processes
from services.runtime.service import SESSION_TIMEOUT_MS
from services.runtime.settings import SERVICES
from services.simulators.edge import client_journal
from services.simulators.poison import dead_letters_of, generate, plant

if TYPE_CHECKING:
    from services.chaos.campaign import Campaign

RECOVERY_MAX_S = 60.0
EARLY = 0.3  # of the blows may hit a service that has not recovered from the one before
TERM_S = 10.0
ARMED_S = 20.0
POISONED = 25  # records a time
PILE = 20_000
RSS_MAX_MB = 400
FULL_S = 8.0
STALE_OWNER_S = 2 * SESSION_TIMEOUT_MS / 1000


@dataclass(frozen=True)
class Fault:
    """A row of the table. `n` occurrences by default, about `seconds` each with the pause before it (`gap_s`, drawn
    evenly). `hour` of them belong to a set of an hour. `limit_s`: a recovery beyond it is told as late; one beyond a
    `recovery_max_s` ends the campaign as a violation."""

    name: str
    what: str
    holds: str
    blow: Callable[[Campaign], Awaitable[None]]
    n: int
    hour: int
    seconds: float
    gap_s: tuple[float, float] = (0.4, 2.4)
    limit_s: float = 15.0
    nodes: int = 1
    instances: int = 1
    speed: float = 3_000.0  # a reservation's day passes in 29 s: longer than a recovery, or all orders would end by it
    recovery_max_s: float = RECOVERY_MAX_S
    provider_args: tuple[str, ...] = ()
    hot_sku: bool = False  # half of the orders want one SKU
    small_disks: bool = False  # the servers' folders on file systems of their own


# -- services ---------------------------------------------------------------------------------------------------------

async def service_kill(c: Campaign) -> None:
    name, early = c.random.choice(SERVICES), c.random.random() < EARLY
    await c.settled(name, impatient=early)
    victim = await c.up(name)
    pid = victim.child.pid
    victim.child.signal(signal.SIGKILL)
    c.hit(name)
    c.measure(name, instead_of=pid)


async def rolling_term(c: Campaign) -> None:
    name = SERVICES[c.number % len(SERVICES)]
    await c.settled(name)
    child = (await c.up(name)).child
    child.signal(signal.SIGTERM)
    c.hit(name)
    c.measure(name, instead_of=child.pid)
    if not await processes.gone(child, TERM_S):
        c.breaks(f"{name} does not end within {TERM_S:g} s of SIGTERM")
        child.signal(signal.SIGKILL)


async def zombie(c: Campaign) -> None:
    """Each service has two instances; one of each stops, loses its partitions to the other, and wakes up again."""
    for service in SERVICES:
        await c.settled(service)
    suffix = c.random.choice(("", "-2"))
    stopped = [(await c.up(service + suffix)).child for service in SERVICES]
    try:
        if c.number % 2:
            stopped = [child for child in stopped if not child.name.startswith("shipping")]
            caught = await _stop_with_stock(c)
            stopped += caught
            c.hit("with stock rows locked", len(caught))
        for child in stopped:
            child.signal(signal.SIGSTOP)
            c.hit(child.name)
        for service in SERVICES:
            c.measure(service)
        await asyncio.sleep(STALE_OWNER_S)
    finally:
        for child in stopped:
            child.signal(signal.SIGCONT)


async def _stop_with_stock(c: Campaign, within_s: float = 30.0) -> list[processes.Child]:
    """An instance of shipping, stopped in the middle of a transaction that holds locks on stock; none if there was no
    such moment. The line is slowed meanwhile, so that the moment lasts."""
    link = c.links.postgres["shipping"]
    conn = await asyncpg.connect(c.settings.dsn("shipping"))
    children = {w.child.pid: w.child for name, w in c.supervisor.watched.items() if name in ("shipping", "shipping-2")}
    link.slow(0.05)
    try:
        end = asyncio.get_running_loop().time() + within_s
        while asyncio.get_running_loop().time() < end:
            for backend, name in await conn.fetch(_HOLDS_STOCK):
                child = children.get(int(name.split()[1].rpartition("-")[2]))
                if child is None:
                    continue
                child.signal(signal.SIGSTOP)
                await asyncio.sleep(0.4)  # what was on its way has arrived
                if backend in [row[0] for row in await conn.fetch(_HOLDS_STOCK)]:
                    return [child]
                child.signal(signal.SIGCONT)
            await asyncio.sleep(0.002)
        return []
    finally:
        link.heal()
        await conn.close()


_HOLDS_STOCK = """
    SELECT a.pid, a.application_name FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
     WHERE a.datname = current_database() AND a.xact_start IS NOT NULL AND a.wait_event = 'ClientRead'
       AND a.application_name LIKE 'tradewind shipping-%' AND l.relation = 'stock'::regclass AND l.granted"""


# -- Kafka ------------------------------------------------------------------------------------------------------------

async def broker_kill_1(c: Campaign) -> None:
    await _broker_down(c, [1], 10.0)
    await c.all_recover()


async def broker_kill_3(c: Campaign) -> None:
    """Availability is what is measured: from the kill, while the broker stays down."""
    role = ("follower", "leader", "controller")[c.number % 3]
    node = await brokers.with_role(c.supervisor.kafka, role)
    c.hit(role)
    for service in SERVICES:
        c.measure(service)
    await _broker_down(c, [node], c.random.triangular(5, 30, 5))
    await brokers.in_sync(c.settings)
    for service in SERVICES:
        await c.settled(service)


async def broker_minority(c: Campaign) -> None:
    await _broker_down(c, c.random.sample(range(1, c.settings.kafka_nodes + 1), 2), 30.0)
    await brokers.in_sync(c.settings)
    await c.all_recover()


async def leader_stop(c: Campaign) -> None:
    node = await brokers.with_role(c.supervisor.kafka, "leader")
    child = c.supervisor.watched[f"kafka-{node}"].child
    child.signal(signal.SIGSTOP)
    c.hit("leader")
    try:
        await asyncio.sleep(c.random.uniform(10, 40))
    finally:
        child.signal(signal.SIGCONT)
    await brokers.in_sync(c.settings)
    await c.all_recover()


async def _broker_down(c: Campaign, nodes: list[int], seconds: float) -> None:
    names = [f"kafka-{node}" for node in nodes]
    for name in names:
        watched = await c.up(name)
        watched.held = True
        watched.child.signal(signal.SIGKILL)
        c.hit(name)
    await asyncio.sleep(seconds)
    for name in names:
        c.supervisor.watched[name].held = False


# -- PostgreSQL -------------------------------------------------------------------------------------------------------

async def postgres_kill(c: Campaign) -> None:
    """The server and all its sessions at once, as when the machine loses its power; it replays its log."""
    child = (await c.up("postgres")).child
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass  # a session that ended by itself meanwhile
    c.hit("postgres")
    await c.all_recover()


async def postgres_stop(c: Campaign) -> None:
    (await c.up("postgres")).child.signal(signal.SIGQUIT)
    c.hit("postgres")
    await c.all_recover()


# -- lines ------------------------------------------------------------------------------------------------------------

async def cut_answers(c: Campaign) -> None:
    kind, early = ("postgres", "kafka", "provider")[c.number % 3], c.random.random() < EARLY
    service = "payments" if kind == "provider" else c.random.choice(SERVICES)
    await c.settled(service, impatient=early)
    link = {"postgres": c.links.postgres[service], "kafka": c.links.kafka[service][0], "provider": c.links.provider}[kind]
    try:
        await asyncio.wait_for(link.lose_answer(), ARMED_S)
    except TimeoutError:
        link.disarm()
        c.breaks(f"no request on {link.name} within {ARMED_S:g} s")
        return
    c.hit({"postgres": "commit", "kafka": "produce", "provider": "provider"}[kind])
    c.measure(service)


async def partition(c: Campaign) -> None:
    """One service and one of its neighbours, one direction; then the line is good again, and what waited arrives late, or
    its connections are reset, or they are dead without a word, so that only a timeout ends them."""
    service = c.random.choice(SERVICES)
    link = c.random.choice(c.links.of(service))
    up = c.random.random() < 0.5
    link.hold(up=up, down=not up)
    c.hit(f"{link.name.split(' to ')[1].split('-')[0]}, {'requests' if up else 'answers'} lost")
    await asyncio.sleep(c.random.uniform(5, 20))
    end = ("late", "reset", "dead")[c.number % 3]
    if end != "late":
        (link.cut if end == "reset" else link.forget)()
    c.hit(f"then {end}")
    link.heal()
    c.measure(service)
    await c.settled(service)


async def latency(c: Campaign) -> None:
    """All lines of one service: from 50 ms to 5 s, as likely small as large, with a fifth of jitter."""
    service = c.random.choice(SERVICES)
    late_s = 0.05 * 100 ** c.random.random()
    for link in c.links.of(service):
        link.slow(late_s, late_s / 5)
    c.hit("under 500 ms" if late_s < 0.5 else "over 500 ms")
    await asyncio.sleep(10)
    for link in c.links.of(service):
        link.heal()
    c.measure(service)
    await c.settled(service)


# -- records ----------------------------------------------------------------------------------------------------------

async def duplicates(c: Campaign) -> None:
    c.hit("records", await republish(c.settings, c.random, share=c.random.uniform(0.01, 0.5), seconds=5.0))
    for service in SERVICES:
        c.measure(service)


async def poison(c: Campaign) -> None:
    """Records that can never be handled, beside orders in flight, and a service killed while it has them in hand."""
    name = c.random.choice(SERVICES)
    await c.settled(name)
    victim = await c.up(name)
    planted = await plant(c.settings.bootstrap, generate(c.random.randrange(1 << 30), POISONED, c.settings.partitions, future=False),
                          client_journal(c.settings).with_name("planted.ndjson"))
    c.hit("records", len(planted))
    c.hit("dead letters", dead_letters_of(planted).total())
    await asyncio.sleep(c.random.uniform(0.0, 0.3))
    pid = victim.child.pid
    victim.child.signal(signal.SIGKILL)
    c.hit(f"{name} killed")
    c.measure(name, instead_of=pid)


async def backlog(c: Campaign) -> None:
    """All services stand still while orders pile up; then they have to take in everything, in no more memory than before."""
    for service in SERVICES:
        watched = await c.up(service)
        watched.held = True
        await processes.stop(watched.child, grace_s=TERM_S)
    waiting = c.plan.orders or PILE
    await c.load.pile(waiting)
    c.hit("orders waiting", waiting)
    for service in SERVICES:
        c.supervisor.watched[service].held = False
    await c.up(SERVICES[0])
    for service in SERVICES:
        c.measure(service)
    while any(not task.done() for task in c.recoveries()) or c.load.open > OPEN_MAX:
        for service in SERVICES:
            c.note_memory(service)
        await asyncio.sleep(0.5)
    for service in SERVICES:
        await c.settled(service)
        if (used := c.told.rss_mb[service]) > RSS_MAX_MB:
            c.breaks(f"{service} took {used} MB; the bound is {RSS_MAX_MB}")


# -- the rest ---------------------------------------------------------------------------------------------------------

async def hot_key(c: Campaign) -> None:
    """Half of the orders want one SKU from one warehouse; every second time its keeper is killed under that load."""
    await c.settled("shipping")
    victim = await c.up("shipping")
    pid = None
    if c.number % 2:
        pid = victim.child.pid
        victim.child.signal(signal.SIGKILL)
        c.hit("shipping killed")
    c.hit("ten seconds of it")
    for service in SERVICES:
        c.measure(service, instead_of=pid if service == "shipping" else None)
    await asyncio.sleep(10)


async def provider(c: Campaign) -> None:
    """Orders whose provider loses an answer, fails twice, answers later, refuses or cannot refund; half of all answers come
    again as a webhook, late and twice; every third time the provider itself is killed."""
    for scenario, count in (await c.load.misfortunes(c.number)).items():
        c.hit(scenario, count)
    if c.number % 3 == 2:
        (await c.up("provider")).child.signal(signal.SIGKILL)
        c.hit("provider killed")
    await asyncio.sleep(3)
    c.measure("payments")
    await c.settled("payments")


async def rebalance_storm(c: Campaign) -> None:
    """Another instance of one service or another joins and leaves every two seconds."""
    service = c.random.choice(SERVICES)
    extra = await c.supervisor.another(service)
    try:
        ready = c.supervisor.folder.ready(extra.name)
        await until(ready.exists, RECOVERY_MAX_S, f"a second instance of {service} does not join", c.settings)
        c.hit(service)
        await asyncio.sleep(1)
    finally:
        await processes.stop(extra, grace_s=TERM_S)
    c.measure(service)
    if c.number % 10 == 9:  # a storm has no pauses; progress is looked at now and then
        await c.settled(service)


async def disk_full(c: Campaign) -> None:
    """The file system of Kafka's or PostgreSQL's folder has no byte left for a while. A server that ends is started again
    and again until there is room."""
    name = ("postgres", "kafka")[c.number % 2]
    folder = c.settings.data_folder / name
    server = await c.up("postgres" if name == "postgres" else "kafka-1")
    pid, before = server.child.pid, _complaints(c)
    await asyncio.to_thread(disks.fill, folder)
    c.hit(name)
    try:
        await asyncio.sleep(FULL_S)
        ended = server.child.pid != pid or not server.child.alive
        c.hit("the server ended", ended)
        c.hit("a service was told", _complaints(c) > before)
        if not ended and _complaints(c) == before:
            c.breaks(f"nobody said that the disk of {name} is full")
    finally:
        await asyncio.to_thread(disks.free, folder)
    await c.all_recover()


def _complaints(c: Campaign) -> int:
    """How often services were told that a disk is full, by name and not as some error."""
    return sum(c.supervisor.folder.log(service).read_bytes().count(b"DiskFullError") for service in SERVICES)


FAULTS = {fault.name: fault for fault in (
    Fault("service-kill", "SIGKILL of a service at a random moment", "recovers within 15 s",
          service_kill, n=100, hour=300, seconds=2.2),
    Fault("rolling-term", "SIGTERM of one service after the other", "each ends by itself within 10 s, recovers within 15 s",
          rolling_term, n=30, hour=30, seconds=3.0),
    Fault("zombie", "an instance of each service stopped for two session timeouts, then woken; every second time "
          "in a transaction that holds stock rows", "its partitions go to the other instance; the zombie changes nothing",
          zombie, n=6, hour=4, seconds=25.0, gap_s=(2.0, 4.0), limit_s=25.0, instances=2),
    Fault("broker-kill-1", "the only broker killed, down for 10 s", "nothing half-accepted; goes on where it was",
          broker_kill_1, n=10, hour=20, seconds=17.0, gap_s=(1.0, 3.0), speed=1_000.0),
    Fault("broker-kill-3", "one of three brokers (RF 3, min ISR 2) killed: follower, leader, controller; down for 5 to 30 s",
          "stays available", broker_kill_3, n=9, hour=30, seconds=20.0, gap_s=(1.0, 2.0), limit_s=30.0, nodes=3,
          speed=1_000.0),
    Fault("broker-minority", "two of three brokers down for 30 s", "no false acknowledgement",
          broker_minority, n=3, hour=1, seconds=50.0, gap_s=(2.0, 4.0), limit_s=30.0, nodes=3, speed=600.0),
    Fault("leader-stop", "the leading broker stopped for 10 to 40 s, then woken", "an order's events keep their order",
          leader_stop, n=3, hour=2, seconds=40.0, gap_s=(2.0, 4.0), limit_s=30.0, nodes=3, speed=600.0),
    Fault("postgres-kill", "the server of all three databases and all its sessions killed; it replays its log",
          "what was committed is there", postgres_kill, n=20, hour=50, seconds=7.0),
    Fault("postgres-stop", "immediate stop of the server of all three databases", "what was committed is there",
          postgres_stop, n=20, hour=10, seconds=7.0),
    Fault("cut-answers", "the answer to a COMMIT, a produce request, a provider's call is lost after it was carried out",
          "the unknown is resolved; nothing twice", cut_answers, n=90, hour=204, seconds=2.0, gap_s=(0.2, 1.2)),
    Fault("partition", "a line of a service is held in one direction for 5 to 20 s; then good again, or reset, or dead without a word",
          "timeouts fire; catches up",
          partition, n=12, hour=6, seconds=22.0, limit_s=45.0, speed=1_000.0),
    Fault("latency", "all lines of a service 50 to 5,000 ms late for 10 s", "timeouts fire; catches up",
          latency, n=12, hour=6, seconds=18.0, limit_s=30.0, speed=1_000.0),
    Fault("duplicates", "1 to 50 % of all records published again, stale and in another order", "nothing changes",
          duplicates, n=12, hour=10, seconds=6.5, gap_s=(0.2, 1.0)),
    Fault("rebalance-storm", "another instance of a service joins and leaves every 2 s", "progress",
          rebalance_storm, n=50, hour=25, seconds=3.5, gap_s=(0.0, 0.2), limit_s=30.0),
    Fault("poison", "bad records of every kind beside orders in flight, and a service killed with them in hand",
          "the dead letters are exactly those planted, with the right reasons; the neighbours are not lost",
          poison, n=20, hour=30, seconds=4.0),
    Fault("backlog", "orders pile up while all services stand still (--orders, default 20,000)", "bounded memory, drains",
          backlog, n=1, hour=1, seconds=200.0, speed=50.0, recovery_max_s=1_800.0, limit_s=1_800.0),
    Fault("hot-key", "half of the orders want one SKU; its keeper is killed now and then", "the rest flows",
          hot_key, n=6, hour=6, seconds=12.0, hot_sku=True),
    Fault("provider", "answers lost, errors, late and doubled webhooks, refusals, the provider killed", "each call counts once",
          provider, n=10, hour=8, seconds=6.0, provider_args=("--webhook-share", "0.5", "--webhook-late-ms", "3000")),
    Fault("disk-full", "no byte left for Kafka or PostgreSQL for a while (needs root, to mount small file systems)",
          "says so; recovers", disk_full, n=4, hour=4, seconds=25.0, gap_s=(2.0, 4.0), limit_s=30.0, speed=1_000.0,
          small_disks=True),
)}
