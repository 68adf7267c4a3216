"""The partition owner on a real Kafka and a real PostgreSQL: what waits, what is due, and what does not fit together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from services.runtime import main, owner, storage
from services.runtime.clock import Clock
from services.runtime.migrate import WrongInstallation, migrate
from services.runtime.owner import Owner
from services.runtime.service import PartitionService, _Session
from tests.tally import Add, Fact, Open, opening, until


# -- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
async def test_what_comes_before_its_order_waits_through_a_restart(place, monkeypatch, durable):
    place = await place()
    if not durable:
        monkeypatch.setattr(storage.Write, "insert_parked", lambda *_: None)
    async with place.running():
        await place.send(Fact(order_id="A", text="a"), Fact(order_id="A", text="b"))
        await until(lambda: place.query("SELECT 1 FROM orders"))
    async with place.running():
        await place.send(Open(order_id="A"), Add(order_id="A", text="c"))
        await place.applies(*(["a", "b", "c"] if durable else ["c"]))
    assert not await place.query("SELECT 1 FROM parked")


async def test_what_waits_too_long_is_given_up_but_not_at_once_after_a_stop(place, monkeypatch):
    place = await place()
    async with place.running():
        await place.send(Fact(order_id="A", text="a", needs=3), Fact(order_id="A", text="b"), Open(order_id="A"))
        await until(lambda: place.query("SELECT 1 FROM parked HAVING count(*) = 2"))
    await place.query("UPDATE parked SET parked_at = now() - interval '2 hours' WHERE sequence = 1")
    async with place.running() as service:
        tidied = _tidied(monkeypatch)
        await until(lambda: service.owners and tidied)
        assert await place.dead() == []
        monkeypatch.setattr(owner, "PARKED_GRACE_S", 0.0)
        await until(place.dead)
        await place.send(Add(order_id="A", text="c"))
        await place.applies("c")
    assert await place.dead() == ["parked_too_long"]
    await place.query("UPDATE parked SET parked_at = now() - interval '2 hours'")
    async with place.running():
        await place.send(Add(order_id="A", text="d"))
        await place.applies("c", "d")
        tidied.clear()
        await until(lambda: len(tidied) > 1)
    assert await place.dead() == ["parked_too_long"], "what queues behind a dead letter waits for a person, however long"
    assert [row[0] for row in await place.query("SELECT dead FROM parked ORDER BY sequence")] == ["parked_too_long", ""]


def _tidied(monkeypatch) -> list:
    done, tidy = [], Owner._tidy

    async def noted(self):
        await tidy(self)
        done.append(1)
    monkeypatch.setattr(Owner, "_tidy", noted)
    return done


# -- timers -----------------------------------------------------------------------------------------------------------


async def test_timers_fire_once_each_also_those_that_were_not_due_together(place):
    place = await place()
    async with place.running():
        await place.send(*(m for o in "AB" for m in (Open(order_id=o), Add(order_id=o, text=f"wake:{0.3 if o == 'A' else 0.9}"))))
        await place.applies("wake:0.3", "timer")
        await place.applies("wake:0.9", "timer", order_id="B")
    assert not await place.query("SELECT 1 FROM timers")


async def test_a_timer_that_fails_is_postponed(place):
    place = await place()
    async with place.running():
        await place.send(*opening("timer bug", "wake:0.1"))
        await until(place.dead)
        rows = await place.query("SELECT due > now() + interval '9 minutes' FROM timers")
        assert rows[0][0]
        await place.send(Add(order_id="A", text="b"))
        await place.applies("timer bug", "wake:0.1", "b")
    assert len(await place.dead()) <= 2, "once more at most, when the order changed"


# -- the topics and the database belong together ------------------------------------------------------------------------


async def crash(place) -> BaseException:
    async with place.running() as service:
        await until(lambda: service.crash_reason)
        return service.crash_reason


async def test_a_database_ahead_of_its_topic_refuses_to_start(place):
    place = await place()
    await place.send(*opening("a"))
    await place.set_offsets({place.spec.inputs[0].name: 7})
    why = await crash(place)
    assert isinstance(why, storage.Unfit) and "read to 7" in str(why) and "restore both" in str(why)
    assert not await place.applied()


@pytest.mark.parametrize("checked_at_start", [True, False])
async def test_records_that_are_gone_stop_the_reader(place, monkeypatch, checked_at_start):
    """`earliest` would go on behind the hole, and `latest` behind everything."""
    place = await place()
    await place.send(*opening("a", "b"))
    if not checked_at_start:  # the hole comes while it runs
        async def unseen(self):
            pass
        monkeypatch.setattr(Owner, "_refuse_other_topics", unseen)
    admin = AIOKafkaAdminClient(bootstrap_servers=place.bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(place.spec.inputs[1].name, 0): RecordsToDelete(before_offset=1)})
    await admin.close()
    why = await crash(place)
    assert isinstance(why, storage.Unfit) and "are gone" in str(why)
    assert "b" not in await place.applied()


async def test_a_process_that_cannot_go_on_ends_with_a_code_and_a_reason(place, caplog):
    place = await place()
    await place.set_offsets({place.spec.inputs[0].name: 7})
    settings = SimpleNamespace(dsn=lambda name: place.dsn, bootstrap=place.bootstrap, partitions=1, linger_ms=0,
                               dead_letters_max=100, parked_grace_s=None)
    with pytest.raises(SystemExit) as ended:
        await main._serve(settings, lambda settings: place.spec, None)
    assert ended.value.code == storage.EXIT_UNFIT
    assert "cannot go on" in caplog.text and "restore both" in caplog.text


async def test_another_partition_count_is_refused(place, postgres):
    place = await place()
    service = PartitionService(place.spec, place.dsn, place.bootstrap, 2, Clock.real())
    with pytest.raises(storage.Unfit, match="TRADEWIND_PARTITIONS=1"):
        await service.on_start()
    dsn = await postgres("migrated_twice")
    await migrate(dsn, "orders", 2)
    await migrate(dsn, "orders", 2)
    with pytest.raises(WrongInstallation, match="partitions = 2"):
        await migrate(dsn, "orders", 3)


async def test_reading_everything_again_changes_nothing(place):
    place = await place()
    async with place.running():
        await place.send(*opening("a", "b"), Add(order_id="A", text="c"), Add(order_id="A", text="impossible"),
                         Add(order_id="Q", text="waits for ever"))
        await until(lambda: place.query("SELECT 1 FROM applied HAVING count(*) = 3"))
        await until(place.dead)
        await until(lambda: place.is_sent())
    before = [await place.query(f"SELECT * FROM {t} ORDER BY 1, 2") for t in ("orders", "applied", "parked")]
    published, dead, offsets = await place.published(), await place.dead(), await place.offsets()
    await place.set_offsets({})
    async with place.running():
        await until(lambda: place.is_at(offsets))
        await until(lambda: place.is_sent())
    after = [await place.query(f"SELECT * FROM {t} ORDER BY 1, 2") for t in ("orders", "applied", "parked")]
    assert after == before and await place.published() == published and await place.dead() == dead


# -- several instances ------------------------------------------------------------------------------------------------


def session(partitions: int, topics: int = 2):
    """A session whose consumer only notes what it is told; the topics it would read, and the partitions it started."""
    of = SimpleNamespace(inputs=[SimpleNamespace(name=f"t{n}") for n in range(topics)])
    service = SimpleNamespace(spec=of, instance="i", partitions=partitions, is_ready=lambda: None)
    found, started = _Session(service), []
    found.consumer = SimpleNamespace(pause=lambda *_: None, seek=lambda *_: None)
    found._start_owner = started.append
    return found, started


async def test_a_partition_that_is_not_held_on_every_topic_is_not_claimed():
    found, started = session(4)
    await found.on_partitions_assigned([TopicPartition("t0", 0), TopicPartition("t1", 0), TopicPartition("t0", 1)])
    assert started == [0]


async def test_a_topic_that_was_extended_stops_the_service():
    found, started = session(1)
    await found.on_partitions_assigned([TopicPartition(t, p) for t in ("t0", "t1") for p in (0, 1)])
    assert started == [] and isinstance(found.failed.exception(), storage.Unfit)
