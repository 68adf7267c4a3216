"""Dead letters on the real broker and database: the queue, replay and discard across restarts, the limit, passing faults."""

from __future__ import annotations

import json

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError

from schemas.dead_letters import ERRORS
from services.runtime import storage
from services.runtime.limit import TooManyDeadLetters, at_start, levels_after
from services.runtime.owner import UNENCODABLE
from services.runtime.track import Record
from tests import tally
from tests.tally import Add, Fact, Open, Raw, content, record, until
from tests.test_dead_letters import Reason, discard, replayed


def bad(place, number: int = 0) -> Raw:
    """Of an outsider, under an id of its own."""
    good = record(place.spec, Add(order_id="A", text="x"), id=f"bad-{number}")
    return Raw(good.topic, b"A", b"\xff", good.headers)


async def letters(place) -> list[str]:
    """The reasons in the order of the coordinates; what was sent twice, as after a restart, once."""
    found = {}
    for topic in (*place.spec.inputs, place.spec.output):
        for letter in await content(place.bootstrap, topic.dlq, place.partitions):
            headers = dict(letter.headers)
            found[topic.name, int(headers[f"{ERRORS}offset"])] = headers[f"{ERRORS}reason"].decode()
    return [found[where] for where in sorted(found)]


# -- the queue ----------------------------------------------------------------------------------------------------------


async def test_a_queue_behind_a_dead_letter_survives_restarts_until_a_replay(place):
    place = await place()
    facts = [record(place.spec, Fact(order_id="A", text=f"f{n}"), n) for n in range(1, 5)]
    broken = Raw(facts[1].topic, b"A", b"\xff", facts[1].headers)
    async with place.running():
        await place.send(Open(order_id="A"), facts[0], broken, facts[2])
        await until(lambda: place.query("SELECT 1 FROM parked HAVING count(*) = 2"))
    async with place.running():
        await place.send(facts[3], Add(order_id="A", text="a"))
        await place.applies("f1", "a")
    async with place.running():
        await place.send(replayed(facts[1]))
        await place.applies("f1", "a", "f2", "f3", "f4")
        await until(place.is_sent)
    assert await letters(place) == ["undecodable"] and not await place.query("SELECT 1 FROM parked")


async def test_a_queue_behind_a_dead_letter_goes_on_after_a_discard(place):
    place = await place()
    facts = [record(place.spec, Fact(order_id="A", text=text), n) for n, text in enumerate(("a", "impossible", "b", "c"), 1)]
    async with place.running():
        await place.send(Open(order_id="A"), *facts)
        await until(lambda: place.query("SELECT 1 FROM parked HAVING count(*) = 3"))
        again = replayed(facts[1])
        await place.send(again)
        await until(lambda: _count(place, 2))
        control = discard(2, service=place.spec.name)
        await place.send(Raw(facts[0].topic, b"A", control.value, control.headers))
        await place.applies("a", "b", "c")
    assert await letters(place) == ["unknown_line"] * 2


async def _count(place, wanted: int) -> bool:
    return len(await letters(place)) == wanted


async def test_reading_everything_again_makes_no_second_queue(place):
    """Offsets back to 0 over a full database: the dead letter is there, and what queues behind it."""
    place = await place()
    await place.send(Open(order_id="A"), Fact(order_id="A", text="impossible"), Fact(order_id="A", text="b"), Add(order_id="A", text="a"))
    async with place.running():
        await until(lambda: place.query("SELECT 1 FROM parked HAVING count(*) = 2"))
        await place.applies("a")
        await until(place.dead)
    before, offsets = await place.query("SELECT * FROM parked ORDER BY sequence"), await place.offsets()
    await place.set_offsets({})
    async with place.running():
        await until(lambda: place.is_at(offsets))
        await until(place.is_sent)
    assert await place.query("SELECT * FROM parked ORDER BY sequence") == before and await letters(place) == ["unknown_line"]


# -- the limit ----------------------------------------------------------------------------------------------------------


def records(*offsets: int) -> list[Record]:
    return [Record("t", n, b"", b"", ()) for n in offsets]


def dead(*offsets: int) -> dict:
    return {("t", n): (Reason.INVALID, "why") for n in offsets}


def test_dead_letters_close_together_reach_the_limit_and_good_records_make_up_for_them():
    levels = levels_after({}, records(*range(30)), dead(3, 4), 2, 0)
    assert levels == {}, "twenty good ones for two"
    levels = levels_after({}, records(*range(10)), dead(3, 4), 2, 0)
    assert levels == {"t": (15, 3)}
    with pytest.raises(TooManyDeadLetters, match="first at offset 3.*before offset 11.*invalid: why") as stop:
        levels_after(levels, records(10, 11), dead(11), 2, 0)
    assert stop.value.settled == 1
    assert levels_after(levels, records(*range(20, 26)), dead(25), 2, 0) == {"t": (20, 3)}
    assert at_start({"t": [500, 7]}, 2) == {"t": (20, 7)}
    replay = [Record("t", 0, b"", b"", (("dlq_replay", b""),))]
    assert levels_after({}, replay, dead(0), 1, 0) == {}


async def test_a_run_of_dead_letters_stops_the_reader_at_the_same_place_at_every_start(place, caplog):
    place = await place()
    await place.send(Open(order_id="A"), Add(order_id="A", text="a"), *(bad(place, n) for n in range(3)), Add(order_id="A", text="b"),
                     *(bad(place, n) for n in range(3, 12)), Add(order_id="A", text="never"))
    for _ in range(3):
        async with place.running(dead_letters_max=5) as service:
            await until(lambda: service.crash_reason)
            assert isinstance(service.crash_reason, TooManyDeadLetters)
            text = str(service.crash_reason)
            assert all(part in text for part in (
                f"{place.spec.inputs[0].name} partition 0", "first at offset 2", "before offset 8", "undecodable",
                "TRADEWIND_DEAD_LETTERS_MAX", "tradewind dlq list")), text
        assert await place.applied() == ["a", "b"] and (await place.offsets())[place.spec.inputs[0].name] == 8
        assert await letters(place) == ["undecodable"] * 5, "and those are on their topic when it ends"
    async with place.running(dead_letters_max=50):
        await place.applies("a", "b", "never")
        await until(lambda: _count(place, 12))
    async with place.running(dead_letters_max=5):  # what has passed does not stop it again
        await place.send(*(Add(order_id="A", text=f"t{n}") for n in range(20)))
        await until(lambda: place.query("SELECT 1 FROM applied HAVING count(*) = 23"))
        assert json.loads((await place.query("SELECT dead_levels::text FROM partitions"))[0][0])[place.spec.inputs[0].name][0] < 50


async def test_dead_letters_that_a_person_replays_in_vain_do_not_stop_the_reader(place):
    place = await place()
    async with place.running(dead_letters_max=2):
        await place.send(Open(order_id="A"), *(replayed(bad(place, n)) for n in range(9)), Add(order_id="A", text="a"))
        await place.applies("a")
        await until(lambda: _count(place, 9))


# -- what passes is nobody's dead letter ----------------------------------------------------------------------------------

PASSING = [
    asyncpg.SerializationError("could not serialize access"), asyncpg.DeadlockDetectedError("deadlock detected"),
    asyncpg.LockNotAvailableError("canceling statement due to lock timeout"),
    asyncpg.QueryCanceledError("canceling statement due to statement timeout"), asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.AdminShutdownError("terminating connection"), asyncpg.CannotConnectNowError("starting up"),
    asyncpg.TooManyConnectionsError("sorry"), asyncpg.DiskFullError("no space left"), asyncpg.OutOfMemoryError("out of memory"),
    asyncpg.ReadOnlySQLTransactionError("a standby"), asyncpg.IdleInTransactionSessionTimeoutError("idle"),
    asyncpg.InvalidCachedStatementError("schema changed"), asyncpg.UndefinedColumnError("not migrated yet"),
    asyncpg.InsufficientPrivilegeError("grants"), asyncpg.InterfaceError("connection is closed"), TimeoutError(), OSError("network"),
    ConnectionResetError("reset"), KafkaConnectionError("no broker"), MemoryError(),
]


async def test_errors_that_pass_are_never_dead_letters(place, monkeypatch):
    """Each of them, at the end of a batch of its own, before it is written or just after it."""
    place = await place()
    left, hit, write = [], [], storage.Write.send

    async def fails_once(self, *args):
        if len(hit) % 2:
            await write(self, *args)
        if left:
            hit.append(left.pop())
            raise hit[-1]
        if not len(hit) % 2:
            await write(self, *args)

    monkeypatch.setattr(storage.Write, "send", fails_once)
    monkeypatch.setattr("services.runtime.service.PAUSE_AFTER_ERROR_S", 0.01)
    async with place.running(member="one"):
        await place.send(Open(order_id="A"))
        await until(lambda: place.query("SELECT 1 FROM orders"))
        texts = [f"t{n}" for n in range(len(PASSING))]
        for n, text in enumerate(texts):
            left.append(PASSING[n])
            await place.send(Add(order_id="A", text=text), bad(place, n) if n % 7 == 0 else Open(order_id="A"))
            await until(lambda: len(hit) > n, within_s=30)
            await place.applies(*texts[:n + 1])
        assert len(hit) == len(PASSING)
    assert await letters(place) == ["undecodable"] * 3


async def test_a_lock_that_somebody_holds_delays_and_loses_nothing(place):
    place = await place()
    async with place.running(member="one"):
        await place.send(Open(order_id="A"))
        await until(lambda: place.query("SELECT 1 FROM orders"))
        conn = await asyncpg.connect(place.dsn)
        await conn.execute("ALTER DATABASE \"%s\" SET lock_timeout = '200ms'" % await conn.fetchval("SELECT current_database()"))
        await conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tradewind%'")
        async with conn.transaction():
            await conn.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            await place.send(Add(order_id="A", text="a"))
            await until(lambda: _epochs(conn, 3))  # it gave up more than once
        await conn.close()
        await place.applies("a")
    assert await place.dead() == []


async def _epochs(conn, more: int) -> bool:
    return await conn.fetchval("SELECT max(epoch) FROM partitions") >= more


async def test_a_value_that_the_driver_cannot_send_is_a_dead_letter(place, monkeypatch):
    """asyncpg says InterfaceError, as for a lost connection; taken for one, the partition would stand still for ever."""
    place, decide = await place(), tally.decide
    place.spec = tally.replace(place.spec, decide=lambda *args: _number_for_text(decide(*args)))
    async with place.running():
        await place.send(*(Open(order_id=o) for o in "AB"), Add(order_id="A", text="number"), Add(order_id="B", text="b"))
        await place.applies("b", order_id="B")
    assert await place.dead() == ["handler_error"]
    assert issubclass(UNENCODABLE, asyncpg.InterfaceError)


def _number_for_text(answer):
    for n, (table, (order_id, text)) in enumerate(getattr(answer, "rows", ())):
        if text == "number":
            answer.rows[n] = table, (order_id, 7)
    return answer


async def test_a_dead_letter_has_its_coordinates_and_its_bytes(place):
    place = await place()
    async with place.running():
        await place.send(bad(place))
        await until(place.dead)
    letter, = await content(place.bootstrap, place.spec.inputs[0].dlq)
    origin, = await content(place.bootstrap, place.spec.inputs[0].name)
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (origin.key, origin.value) and set(origin.headers) < set(letter.headers)
    assert [headers[f"{ERRORS}{name}"] for name in ("topic", "partition", "offset", "service")] == [
        origin.topic.encode(), b"0", b"0", place.spec.name.encode()]


