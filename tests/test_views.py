"""The console's views: what they count is a sum over the events, whatever the order, repetition or restart."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from services.cli.watch import Views, duration, money
from services.console.funnel import SOURCES, STAGES, Row, Totals, bucket_of, fact_of, percentile_s
from services.console.topics import MORE
from services.explorer.simulation import World, order
from services.runtime import processes
from services.runtime.local import LocalKafka
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from tests.tally import until
from tests.test_lifecycle import Outside, ids

PARTITIONS = 2
ORDERS = 30


def trade(seed: int = 1) -> World:
    """Orders abroad, into China and within a country; some declined, without stock, refused by customs or cancelled."""
    outside = Outside()

    def present(e, w):
        refused = e.order_id.endswith("4")
        w.send((report.CustomsRefusalReported(**ids(e), reason="x") if refused else report.CustomsReleaseReported(**ids(e))),
               "/customs")

    outside.on[ship.CustomsPresented] = present
    world = World(outside, seed)
    world.send(report.InboundReceived(order_id="stock:SEA1:CHERRY", warehouse="SEA1", sku="CHERRY", quantity=1000), "/warehouse")
    world.run()
    for n in range(ORDERS):
        sku = "NONE" if n % 10 == 7 else "CHERRY"
        currency = "XXX" if n % 10 == 3 else "USD"  # no such money: refused at intake
        destination = ("DE", "CN", "US")[n % 3]
        world.send(order(f"V{n}", destination=destination, lines=((sku, 1, 5000),), currency=currency))
        if n % 10 == 8:
            world.send(ask.CancelOrder(order_id=f"V{n}"))
        world.run(doubles=n % 2 == 0)
        world.wait(hours=1)
    return world


def records(world: World) -> dict[str, list[tuple]]:
    return {topic: world.topics[topic] for topic in SOURCES}


def count(arrivals: list[tuple[str, tuple]]) -> tuple[Totals, dict[bytes, Row]]:
    """What the worker does with records in this order."""
    totals, rows = Totals(), {}
    for topic, (key, value, headers) in arrivals:
        fact = fact_of(topic, headers, value)
        if fact is not None:
            row, _ = totals.apply(rows.get(key), fact)
            if row is not None:
                rows[key] = Row.unpack(row.pack())
    return totals, rows


def shuffled(topics: dict[str, list[tuple]], seed: int) -> list[tuple[str, tuple]]:
    """The topics interleaved at random, each in its own sequence."""
    turns = [topic for topic, all_of in topics.items() for _ in all_of]
    random.Random(seed).shuffle(turns)
    left = {topic: iter(all_of) for topic, all_of in topics.items()}
    return [(topic, next(left[topic])) for topic in turns]


def outcome(totals: Totals) -> dict:
    """The sums alone, without how they were come by."""
    sums = {name: +getattr(totals, name) for name in ("reached", "now", "exits", "held")}  # + leaves out zeros
    return sums | {"dwell": totals.dwell, "events": totals.events}


# -- without a broker -------------------------------------------------------------------------------------------------


def test_the_sums_agree_with_the_services():
    world = trade()
    totals, rows = count(shuffled(records(world), 0))
    states = {f"V{n}": world.state("orders", f"V{n}") for n in range(ORDERS)}
    for status in ("completed", "cancelled", "rejected"):
        assert totals.now[status] == sum(state.status == status for state in states.values()) > 0, status
    assert totals.reached["placed"] == ORDERS - totals.now["rejected"]
    assert totals.held.total() == world.balance().get("held", 0)
    assert sum(totals.exits.values()) == totals.now["cancelled"] + totals.now["rejected"]
    assert totals.exact and len(rows) == ORDERS


@pytest.mark.parametrize("seed", range(5))
def test_neither_order_of_reading_nor_repetition_changes_them(seed):
    topics = records(trade())
    twice = {topic: [r for one in all_of for r in (one, one)] for topic, all_of in topics.items()}
    one_after_the_other = [(topic, r) for topic, all_of in topics.items() for r in all_of]
    plain, _ = count(one_after_the_other)
    mixed, _ = count(shuffled(twice, seed))
    assert outcome(plain) == outcome(mixed)
    assert mixed.repeated > plain.repeated


def test_money_held_follows_an_order_that_is_under_way():
    outside = Outside()
    del outside.on[ship.FulfilmentRequested]
    world = World(outside)
    world.send(report.InboundReceived(order_id="stock:SEA1:CHERRY", warehouse="SEA1", sku="CHERRY", quantity=9), "/warehouse")
    world.run()
    world.send(order())
    world.run()
    totals, _ = count(shuffled(records(world), 0))
    assert totals.held == {"USD": 5700} and totals.now["requested"] == 1


def test_records_that_were_skipped_or_read_before_are_told():
    totals = Totals()
    assert totals.is_new("t", 0, 0) and totals.is_new("t", 0, 1)
    assert not totals.is_new("t", 0, 0) and totals.repeated == 1 and totals.exact
    assert totals.is_new("t", 0, 5) and totals.missed == 3 and not totals.exact


def test_a_saved_state_is_the_same_when_it_is_read_back():
    totals, _ = count(shuffled(records(trade()), 0))
    assert Totals.from_dict(json.loads(json.dumps(totals.as_dict()))) == totals


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"{}", b'{"currency": "USD", "amount": null}'])
def test_a_bad_value_changes_nothing(value):
    topic, (key, _, headers) = next((t, r) for t, all_of in records(trade()).items() for r in all_of
                                    if dict(r[2])["ce_type"] == b"PaymentHeld")
    totals = Totals()
    with pytest.raises(ValueError):
        totals.apply(None, fact_of(topic, headers, value))
    assert totals == Totals()


def test_percentiles_are_within_a_bucket():
    durations = [10 * 1.01**n for n in range(1000)]
    buckets = Counter(bucket_of(round(ms)) for ms in durations)
    for share in (0.5, 0.95):
        assert percentile_s(buckets, share) == pytest.approx(durations[int(share * 1000)] / 1000, rel=0.1)


def test_words():
    assert money({"GBP": 123450, "JPY": 900}) == "GBP 1,234.50, JPY 900"
    assert [duration(s) for s in (None, 0.34, 12.5, 12_000, 792_000)] == ["-", "340 ms", "12.5 s", "3 h 20 m", "9 d 4 h"]


# -- on a broker of its own, since the views count whole topics ---------------------------------------------------------


@pytest.fixture(scope="module")
async def settings(tmp_path_factory, cache_folder) -> AsyncIterator[Settings]:
    folder = tmp_path_factory.mktemp("views")
    kafka = LocalKafka(folder / "kafka", processes.free_port(2), cache=cache_folder)
    await kafka.start(120)
    made = Settings(bootstrap_servers=kafka.bootstrap, data_folder=folder, partitions=PARTITIONS, console_port=processes.free_port())
    await ensure_topics(kafka.bootstrap, PARTITIONS, MORE)
    yield made
    await kafka.stop()


async def publish(settings: Settings, topics: dict[str, list[tuple]], at_ms: int | None = None) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for topic, all_of in topics.items():
            sent = [await producer.send(topic, value, key, None, at_ms, list(headers)) for key, value, headers in all_of]
            await asyncio.gather(*sent)
    finally:
        await producer.stop()


@asynccontextmanager
async def worker(settings: Settings, last: int = signal.SIGTERM) -> AsyncIterator[processes.Child]:
    """From ready to ended by the signal `last`."""
    ready = settings.data_folder / "views.ready"
    ready.unlink(missing_ok=True)
    child = start(settings, "services.console.views", "worker", TRADEWIND_READY_FILE=str(ready))
    try:
        await until(ready.exists, within_s=60)
        yield child
    finally:
        assert await processes.stop(child, first=last, grace_s=10)


def start(settings: Settings, *command: str, **env: str) -> processes.Child:
    log = settings.data_folder / "views.log"
    return processes.spawn("views", [sys.executable, "-m", *command], log=log, env=settings.child_env(**env))


async def rebuild(settings: Settings) -> int:
    child = start(settings, "services.console.rebuild")
    assert await processes.gone(child, 40)
    return child.popen.returncode


async def shown(settings: Settings, events: int) -> dict:
    """The funnel as soon as so many events are counted and nothing waits."""
    def look():
        answer = Views(settings).ask().funnel
        return answer if answer and answer["events"] >= events and answer["behind"] == 0 else None

    return await until(lambda: asyncio.to_thread(look), within_s=60, every_s=0.1)


def comparable(funnel: dict) -> dict:
    return {name: funnel[name] for name in ("stages", "ended", "exits", "held", "events")}


async def test_the_views_are_the_same_after_their_state_is_deleted(settings):
    topics = records(trade())
    expected, _ = count(shuffled(topics, 0))
    half = {topic: all_of[: len(all_of) // 2] for topic, all_of in topics.items()}
    rest = {topic: all_of[len(all_of) // 2 :] for topic, all_of in topics.items()}
    await publish(settings, half)
    async with worker(settings):
        await publish(settings, rest)
        first = await shown(settings, expected.events)
        assert first["exact"]
        assert {s["stage"]: s["reached"] for s in first["stages"]} == {s: expected.reached[s] for s in STAGES}
        assert first["exits"] == dict(expected.exits) and first["held"] == {c: n for c, n in expected.held.items() if n}
        assert await rebuild(settings) != 0, "refused while a worker runs"
    async with worker(settings):  # takes up its tables
        again = await shown(settings, expected.events)
        assert again["resumed"] == 1 and not again["exact"]
        assert comparable(again) == comparable(first)
    assert await rebuild(settings) == 0
    async with worker(settings):
        rebuilt = await shown(settings, expected.events)
        assert rebuilt["exact"] and comparable(rebuilt) == comparable(first)


async def test_a_killed_worker_is_not_exact_and_a_rebuilt_one_is(settings):
    topics = records(trade(seed=4))
    fresh = renamed(topics, b"K")
    async with worker(settings):
        before = await shown(settings, 0)
    counted = count(shuffled(topics, 0))[0]
    async with worker(settings, signal.SIGKILL):
        await publish(settings, fresh)
    await until_rebuilt(settings)
    async with worker(settings):
        after = await shown(settings, before["events"] + counted.events)
    assert after["exact"]
    assert after["ended"] == {name: before["ended"][name] + counted.now[name] for name in before["ended"]}


async def until_rebuilt(settings: Settings) -> None:
    """The broker takes a killed worker for a member until its session ends."""
    async def once() -> bool:
        return await rebuild(settings) == 0

    await until(once, within_s=60, every_s=1)


def renamed(topics: dict[str, list[tuple]], prefix: bytes) -> dict[str, list[tuple]]:
    """The same as orders of other names."""
    return {topic: [(prefix + key, value, headers) for key, value, headers in all_of] for topic, all_of in topics.items()}


async def test_rates_are_of_record_time_by_window(settings):
    fresh = renamed(records(trade(seed=9)), b"R")
    placed = count(shuffled(fresh, 0))[0].reached["placed"]
    minute = time.time() // 60 * 60 - 300
    async with worker(settings):
        await publish(settings, fresh, int((minute + 31) * 1000))
        await until(lambda: asyncio.to_thread(lambda: round(rates(settings, minute + 60)["60s"].get("placed", 0) * 60) == placed), 60)
        assert round(rates(settings, minute + 40)["10s"]["placed"] * 10) == placed
        assert rates(settings, minute + 120)["60s"]["placed"] == rates(settings, minute)["60s"]["placed"] == 0


def rates(settings: Settings, at: float) -> dict[str, dict[str, float]]:
    url = f"http://127.0.0.1:{settings.console_port}/views/rates?at={at}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["per_second"]


async def test_a_view_that_stops_answering_is_stale(settings):
    asked = Views(settings)
    async with worker(settings):
        await until(lambda: asyncio.to_thread(lambda: asked.ask().funnel))
        assert asked.stale_since is None and "STALE" not in asked.line()
    asked.ask()
    assert asked.stale_since is not None and "STALE since" in "\n".join(asked.lines())
