"""Whose an identity number is: asked of a registry, and nothing of the order goes on before it is known."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.orders_intake import AnswerRealName, CancelOrder, DecideScreening
from schemas.orders_order import OrderPlaced
from schemas.parties import Person, seal
from schemas.registry_api import TEST_NAMES, RealNameQuestion, RealNameVerdict
from schemas.topics import INTAKE, ORDER
from services.cli.table import programs
from services.explorer.simulation import KEY, START, order
from services.orders import registry
from services.runtime.clock import Clock
from services.runtime.migrate import migrate
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from services.simulators.registry import add_to
from services.simulators.scenario import SCENARIOS, name_of
from tests.test_freeze import Until
from tests.test_lifecycle import ends, given

NUMBER = "11010519491231002X"


def placed(name: str = "Mei Lin", number: str = NUMBER, destination: str = "CN", **more):
    return order(destination=destination, buyer=seal(Person(name=name, identity_no=number), KEY), **more)


def answer(world, outcome: str, source: str = "/registry", id: str = "real-name:A1") -> None:
    world.send(AnswerRealName(order_id="A1", outcome=outcome, decided_by=source.strip("/")), source, id)
    world.run()


def asked(order, **more):
    return given(order, real_names=True, **more)


# -- what orders decides ----------------------------------------------------------------------------------------------------


def test_nothing_is_paid_before_the_number_is_the_buyers():
    world, outside = asked(placed(), outside=Until("authorise"))
    assert not world.intents and {s: world.state(s).stops for s in world.parties} == dict.fromkeys(world.parties, ["real_name"])
    answer(world, "match")
    assert world.state("orders").stops == world.state("payments").stops == world.state("shipping").stops == []
    outside.go_on(world)
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("more", [{"number": ""}, {"destination": "DE"}, {"destination": "US"}])
def test_nobody_is_asked_without_a_number_or_beyond_china(more):
    world, _ = asked(placed(**more))
    assert "OrderHeld" not in world.types("orders") and not world.state("orders").stops


def test_another_persons_number_undoes_the_order_and_gives_the_year_back():
    world, _ = asked(placed())
    answer(world, "mismatch")
    ends(world, "cancelled", reason="real_name_unproven")
    assert not world.intents and "QuotaMoved" in world.types("orders")


def test_nobody_says_in_time():
    world, _ = asked(placed())
    world.wait(days=2, hours=23)
    assert world.state("orders").status == "allocated"
    world.wait(hours=2)
    ends(world, "cancelled", reason="real_name_unproven")
    assert b'"outcome":"unanswered"' in next(e.value for e in world.events if e.type == "RealNameAnswered")


@pytest.mark.parametrize("outcome, end, reason", [("match", "completed", ""), ("mismatch", "cancelled", "real_name_unproven"),
                                                  (None, "cancelled", "real_name_unproven")])
def test_what_the_registry_does_not_know_an_officer_says_or_nobody(outcome, end, reason):
    world, _ = asked(placed())
    answer(world, "unknown")
    assert world.state("orders").stops == ["real_name"] and not world.intents
    world.wait(days=2)
    if outcome:
        answer(world, outcome, "/platform", "papers")
    world.wait(days=30)
    assert (world.state("orders").status, world.state("orders").reason) == (end, reason)


def test_a_late_answer_of_the_registry_is_silent_and_a_late_officer_is_told():
    world, _ = asked(placed())
    answer(world, "match", "/platform", "papers")
    before = len(world.events)
    answer(world, "mismatch")
    assert len(world.events) == before and not world.dead
    answer(world, "mismatch", "/platform", "late")
    assert b'"reason":"no_real_name_asked"' in world.events[-1].value


@pytest.mark.parametrize("first", ["officer", "registry"])
def test_a_review_of_denied_parties_is_apart_from_it(first):
    """Two things hold the order, and it goes on after the second, whichever that is."""
    world, _ = asked(placed("Viktor Grauhaven"))
    assert world.state("orders").stops == ["screening", "real_name"]
    decide = [lambda: world.send(DecideScreening(order_id="A1", outcome="clear", decided_by="o"), "/platform"),
              lambda: world.send(AnswerRealName(order_id="A1", outcome="match", decided_by="registry"), "/registry")]
    for act in decide if first == "officer" else reversed(decide):
        assert not world.intents
        act()
        world.run()
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


def test_it_can_be_cancelled_meanwhile():
    world, _ = asked(placed())
    world.send(CancelOrder(order_id="A1"))
    world.run()
    ends(world, "cancelled", reason="cancelled")
    answer(world, "match")
    assert world.state("orders").status == "cancelled" and not world.dead


def test_no_event_names_the_person_or_the_number():
    world, _ = asked(placed("Somebody Else"))
    answer(world, "mismatch")
    assert not [e.type for e in world.events if NUMBER.encode() in e.value or b"Somebody" in e.value]


# -- who asks ---------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(*answers):
    """The simulated registry behind an address; `answers` are given before its own: a status, or a text."""
    asked, left = [], list(answers)

    @web.middleware
    async def first(request, handler):
        asked.append((request.headers["Idempotency-Key"], await request.text()))
        if not left:
            return await handler(request)
        told = left.pop(0)
        return web.Response(status=told) if isinstance(told, int) else web.Response(text=told)
    app = web.Application(middlewares=[first])
    add_to(app)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("name, outcome", [("Mei Lin", "match"), *TEST_NAMES.items()])
async def test_the_simulated_registry_keeps_the_contract(name, outcome):
    async with listening() as (address, asked):
        port = registry.HttpRegistry(address)
        question = RealNameQuestion(name=name, identity_no=NUMBER)
        assert [await port.ask("real-name:A1", question) for _ in range(2)] == [RealNameVerdict(outcome=outcome)] * 2
        assert {key for key, _ in asked} == {"real-name:A1"}
        await port.close()


@pytest.mark.parametrize("told", [500, 302, 404, 422, "no json", '{"outcome":"perhaps"}', ""])
async def test_what_is_no_verdict_says_nothing_about_the_person(told):
    async with listening(told) as (address, _):
        port = registry.HttpRegistry(address)
        with pytest.raises(registry.RegistryUnavailable) as why:
            await port.ask("real-name:A1", RealNameQuestion(name="Mei Lin", identity_no=NUMBER))
        assert NUMBER not in str(why.value) and "Mei" not in str(why.value)
        await port.close()


async def test_nobody_listens():
    port = registry.HttpRegistry("http://127.0.0.1:9")
    with pytest.raises(registry.RegistryUnavailable):
        await port.ask("k", RealNameQuestion(name="Mei Lin", identity_no=NUMBER))
    await port.close()


def test_what_cannot_be_read_is_passed_over():
    world, _ = asked(placed())
    event = next(e for e in world.events if e.type == "OrderPlaced")
    headers = tuple(headers_of(Envelope("orders:A1:1", "OrderPlaced", "orders", START, "A1", 1, "", "", "m1"),
                               dataschema_of(ORDER.name, "OrderPlaced")))
    assert registry.waiting(headers, event.value) == ("A1", "m1", START + timedelta(days=3))
    for wrong in ((headers, event.value[:-9] + b'"ASKED"'), (headers[:1], event.value), (headers, None), (headers, b"{}"), ((), event.value),
                  (tuple((k, b"/storefront" if k == "ce_source" else v) for k, v in headers), event.value)):
        assert registry.waiting(*wrong) is None


class Silent:
    def __init__(self):
        self.asked = 0

    async def ask(self, key, question):
        self.asked += 1
        raise registry.RegistryUnavailable("silence")


async def test_an_order_that_has_given_up_is_asked_about_no_more(monkeypatch):
    monkeypatch.setattr(registry, "BACKOFF_FIRST_S", 0.0)
    clock, silent = Clock(datetime.now(UTC), START, speed=1_000_000.0), Silent()
    left = registry.Waiting("A1", "m1", clock.now() + timedelta(hours=2))
    assert await registry.verdict_of(silent, left, RealNameQuestion(name="Mei", identity_no=NUMBER), clock) is None
    assert silent.asked, "it was asked until then"


def test_it_runs_only_where_a_registry_is_named():
    names = [{p.name for p in programs(Settings(registry_url=url))} for url in (None, "http://127.0.0.1:1")]
    assert "registry" not in names[0] and "registry" in names[1]


def test_the_simulated_buyers_have_the_names_that_the_registry_is_tried_with():
    assert {name_of(scenario, "") for scenario in SCENARIOS if scenario.startswith("china_name_")} == set(TEST_NAMES)


async def test_from_the_event_through_the_vault_to_the_command(kafka, postgres):
    """On the real broker and database: the registry is down at first; one order does not wait, one waits in vain."""
    dsn = await postgres("registry")
    await migrate(dsn, "orders", 6)
    await ensure_topics(kafka, 6)
    buyer = seal(Person(name="Somebody Else", identity_no=NUMBER), KEY)
    conn = await asyncpg.connect(dsn)
    await conn.executemany("INSERT INTO vault VALUES ($1, $2, $3, $4, $5)", [
        (f"RN-{n}", role, buyer.token, buyer.hash, buyer.sealed) for n in range(3) for role in ("buyer", "consignee")])
    await conn.close()
    clock = Clock(datetime.now(UTC), START)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    world, _ = asked(placed())
    told = next(OrderPlaced.model_validate_json(e.value) for e in world.events if e.type == "OrderPlaced")
    for n, (wish, at) in enumerate((("ASKED", clock.now()), ("", clock.now()), ("ASKED", clock.now() - timedelta(days=4)))):
        event = told.model_copy(update={"order_id": f"RN-{n}", "real_name": wish})
        envelope = Envelope(f"orders:RN-{n}:1", "OrderPlaced", "orders", at, f"RN-{n}", 1, f"place:RN-{n}", "", "m1")
        await producer.send_and_wait(ORDER.name, event.model_dump_json().encode(), key=f"RN-{n}".encode(),
                                     headers=headers_of(envelope, dataschema_of(ORDER.name, "OrderPlaced")))
    await producer.stop()
    stop = asyncio.Event()
    async with listening(503, 503) as (address, heard):
        settings = Settings(bootstrap_servers=kafka, orders_dsn=dsn, registry_url=address, vault_key=base64.b64encode(KEY).decode())
        running = asyncio.create_task(registry.run(settings, clock, stop))
        try:
            (answer,) = await _answers(kafka, 1)
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)
    assert (answer.outcome, answer.order_id) == ("mismatch", "RN-0")
    assert [key for key, _ in heard] == ["real-name:RN-0"] * 3, "the same question until there is a verdict, and no other"


async def _answers(kafka: str, many: int) -> list[AnswerRealName]:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(INTAKE.name, p) for p in range(6)])
        found: list[AnswerRealName] = []
        async with asyncio.timeout(30):
            while len(found) < many:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [AnswerRealName.model_validate_json(r.value) for r in records if r.key.startswith(b"RN-")]
        return found
    finally:
        await consumer.stop()
