"""The partition owner on a real Kafka and a real PostgreSQL: what it must survive, and what happens without each rule.

Every rule has a test that takes it away and sees the damage: a rule whose absence nobody notices is not tested.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from services.runtime import owner, storage
from services.runtime.owner import TRANSIENT, Owner
from services.runtime.relay import BACKLOG_MAX, Relay
from tests.tally import Add, Fact, Open, Raw, opening, record, until


# -- claim ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def stopped_owner(place, where: str):
    """The database session of an owner whose process has stopped in the middle of `where`."""
    conn = await storage.connect(place.dsn, f"tradewind {place.spec.name}-elsewhere-7 0")
    transaction, copying = conn.transaction(), None
    await transaction.start()
    if where == "a claim":
        await conn.execute("UPDATE partitions SET epoch = epoch + 1")
    else:
        await conn.execute("SELECT 1 FROM partitions WHERE partition = 0 FOR UPDATE")
    if where == "a COPY":
        async def rows():
            yield ("Z", "z")
            await asyncio.Event().wait()
        copying = asyncio.create_task(conn.copy_records_to_table("applied", records=rows(), columns=("order_id", "text")))
    try:
        yield
    finally:
        if copying:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
        conn.terminate()


@pytest.mark.parametrize("where", ["a batch", "a COPY", "a claim"])
async def test_a_stopped_owner_does_not_block_its_successor(place, where):
    place = await place()
    await place.send(*opening("a"))
    async with stopped_owner(place, where), place.running():
        await place.applies("a", within_s=10)
    assert await place.applied("Z") == []


async def test_without_ending_its_session_a_stopped_owner_blocks_for_ever(place, monkeypatch):
    async def nothing(*_):
        pass
    monkeypatch.setattr(storage, "_end_former_owners", nothing)
    place = await place()
    conn = await storage.connect(place.dsn, "tradewind next 0")
    async with stopped_owner(place, "a COPY"):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(storage.claim(conn, 0, "next"), 2)
    conn.terminate()


async def test_what_was_fetched_before_the_claim_is_thrown_away(place, monkeypatch):
    """The former owner commits its last batch while the claim waits for it; records are here already, for nothing pauses."""
    monkeypatch.setattr(AIOKafkaConsumer, "pause", lambda *_: None)
    place = await place()
    await place.send(*opening("a", "b"), Add(order_id="B", text="x"))
    intake, facts = (t.name for t in place.spec.inputs)
    conn = await asyncpg.connect(place.dsn)  # not an owner's name: it is waited for, not ended
    async with conn.transaction():
        await conn.execute("SELECT 1 FROM partitions FOR UPDATE")
        async with place.running() as service:
            await until(lambda: service.owners)
            await until(lambda: _fetched(service.owners[0].consumer))
            await conn.execute("UPDATE partitions SET offsets = $1::text::jsonb", f'{{"{intake}": 2, "{facts}": 1}}')
            await conn.execute("COMMIT")
            await until(lambda: place.is_at({intake: 2, facts: 2}))
    await conn.close()
    parked = [row[0] for row in await place.query("SELECT id FROM parked")]
    assert parked == ["facts:A:2"], "the rest belongs to the former owner's batch"


def _fetched(consumer) -> bool:
    return bool(consumer._fetcher._records)


# -- fence ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["epoch = epoch + 1", "offsets = '{\"other\": 1}'"])
async def test_the_fence_sees_another_epoch_and_other_offsets(place, change):
    place = await place()
    conn = await storage.connect(place.dsn, "tradewind one 0")
    epoch = await storage.claim(conn, 0, "one")
    async with conn.transaction():
        await storage.fence(conn, 0, epoch, {})
    write = storage.Write()
    write.append("applied", [("A", "a")])
    await write.send(conn, 0, epoch, {}, {})
    await place.query(f"UPDATE partitions SET {change}")
    with pytest.raises(storage.OwnershipLost):
        await storage.fence(conn, 0, epoch, {})
    with pytest.raises(storage.OwnershipLost):
        await write.send(conn, 0, epoch, {}, {})
    assert await place.applied("A") == ["a"], "nothing of the second write"
    conn.terminate()


@pytest.mark.parametrize("fenced", [True, False])
async def test_a_batch_of_a_former_owner_is_refused(place, monkeypatch, fenced):
    """A successor has claimed, and applied what this owner is about to read."""
    place = await place()
    if not fenced:
        monkeypatch.setattr(storage, "_FENCE", "UPDATE partitions SET offsets = $4::text::jsonb WHERE partition = $1"
                            " AND $2::bigint > 0 AND $3::text <> '' AND $5::bigint >= 0 RETURNING partition")
        storage._statement.cache_clear()
    async with place.running() as service:
        await place.send(*opening("a"))
        await place.applies("a")
        zombie = service.owners[0]
        ahead = dict(zombie.ahead) | {place.spec.inputs[0].name: 2}
        await place.query("UPDATE partitions SET epoch = epoch + 1, offsets = $1::text::jsonb", str(ahead).replace("'", '"'))
        await place.send(Add(order_id="A", text="theirs"))
        if fenced:
            await until(lambda: service.owners and service.owners[0] is not zombie)
            await place.send(Add(order_id="A", text="b"))
            await place.applies("a", "b")
        else:
            await place.applies("a", "theirs")  # applied a second time
    storage._statement.cache_clear()


# -- relay ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent_first", [True, False])
async def test_what_a_crash_left_in_the_outbox_is_sent_first(place, monkeypatch, sent_first):
    place = await place()

    async def never(self, out):
        await asyncio.Event().wait()
    with monkeypatch.context() as crashed:
        crashed.setattr(Relay, "_send", never)
        async with place.running():
            await place.send(*opening("a", "b"))
            await place.applies("a", "b")
    assert await place.published() == [] and await place.outbox()
    if not sent_first:
        async def empty(*_):
            return []
        monkeypatch.setattr(storage, "read_outbox", empty)
    async with place.running():
        await place.send(Add(order_id="A", text="c"))
        await place.applies("a", "b", "c")
        if sent_first:
            await place.publishes("a", "b", "c")
            await until(lambda: place.is_sent())
        else:
            await until(place.published)
            assert await place.published() == [("tally:A:3", "c")]  # its readers would take 1 and 2 for repetitions


async def careless(self) -> None:
    """A relay that goes on after a failure."""
    while True:
        await self._wake.wait()
        while self._waiting:
            batch, out = self._waiting.popleft()
            with contextlib.suppress(KafkaError):
                await self._send(out)
            self.acknowledged = batch
        self._wake.clear()


@pytest.mark.parametrize("careful", [True, False])
async def test_a_batch_that_the_broker_refused_is_not_overtaken(place, monkeypatch, careful):
    place = await place()
    deliver, three, failed = Relay._deliver, asyncio.Event(), []

    async def once_refused(self, builder, topic):
        if not failed:
            await three.wait()
            failed.append(topic)
            raise KafkaError("refused")
        await deliver(self, builder, topic)
    monkeypatch.setattr(Relay, "_deliver", once_refused)
    if not careful:
        monkeypatch.setattr(Relay, "run", careless)
    async with place.running():
        await place.send(*opening("a"))
        await place.applies("a")
        await place.send(Add(order_id="A", text="b"))
        await place.applies("a", "b")
        await place.send(Add(order_id="A", text="c"))
        await place.applies("a", "b", "c")
        three.set()
        if careful:
            await place.publishes("a", "b", "c")
        else:
            await until(lambda: _has(place, "tally:A:3"))
            assert [id for id, _ in await place.published()] == ["tally:A:2", "tally:A:3"]  # the first is lost


async def _has(place, id: str) -> bool:
    return id in [found for found, _ in await place.published()]


async def test_who_hands_a_batch_to_a_relay_that_has_ended_does_not_wait_for_ever():
    relay = Relay(SimpleNamespace(create_batch=lambda: 1 / 0), 0)
    task = asyncio.create_task(relay.run())
    out = [SimpleNamespace(topic="t")]
    await relay.put(0, out)
    await asyncio.gather(task, return_exceptions=True)
    for batch in range(1, BACKLOG_MAX + 2):
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(relay.put(batch, out), 1)


async def test_a_relay_whose_producer_never_answers_ends(monkeypatch):
    monkeypatch.setattr("services.runtime.relay.SEND_WITHIN_S", 0.05)

    async def send_batch(*_, **__):
        return asyncio.get_running_loop().create_future()

    batch = SimpleNamespace(append=lambda **_: True, record_count=lambda: 1)
    relay = Relay(SimpleNamespace(create_batch=lambda: batch, send_batch=send_batch), 0)
    task = asyncio.create_task(relay.run())
    await relay.put(0, [SimpleNamespace(topic="t", key=b"k", value=b"v", headers=(("h", b""),))])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 5)
    assert isinstance(relay.failed, TRANSIENT)


# -- poison -----------------------------------------------------------------------------------------------------------


def nul(place) -> Raw:
    """It passes every check of ours, and stops a COPY."""
    return record(place.spec, Add(order_id="A", text="a\0b"), id="nul")


async def whole(self, records, now):
    await self._attempt(records, now)


@pytest.mark.parametrize("by_halves", [True, False])
async def test_a_value_that_postgresql_refuses_is_one_dead_letter(place, monkeypatch, by_halves):
    place = await place()
    if not by_halves:
        monkeypatch.setattr(Owner, "_process", whole)
    texts = [f"t{n}" for n in range(9)]
    await place.send(Open(order_id="A"), *(Add(order_id="A", text=t) for t in texts[:5]), nul(place),
                     *(Add(order_id="A", text=t) for t in texts[5:]))
    async with place.running() as service:
        if not by_halves:
            await until(lambda: service.crash_reason)
            assert isinstance(service.crash_reason, asyncpg.CharacterNotInRepertoireError) and not await place.applied()
            return
        await place.applies(*texts)
        await until(place.dead)
        assert await place.dead() == ["handler_error"]
        await place.send(nul(place))  # again: it was seen
        await place.send(Add(order_id="A", text="end"))
        await place.applies(*texts, "end")
        assert await place.dead() == ["handler_error"]


async def test_poison_that_waited_does_not_take_its_order_with_it(place):
    place = await place()
    async with place.running():
        await place.send(*(Fact(order_id="A", text=text) for text in ("a\0b", "b")), Add(order_id="A", text="c"))
        await until(lambda: place.query("SELECT 1 FROM parked"))
        await place.send(Open(order_id="A"))
        await place.applies("c")
        await until(place.dead)
    assert await place.dead() == ["handler_error"]
    found = await place.query("SELECT sequence, dead FROM parked ORDER BY 1")
    assert [tuple(row) for row in found] == [(1, "handler_error"), (2, "")], "its source waits, nobody else does"


async def test_an_output_above_the_record_limit_never_commits(place):
    place = await place()
    async with place.running():
        await place.send(*opening("a", "huge", "behind it"))
        await until(place.dead)
        await place.send(Add(order_id="A", text="b"))
        await place.applies("a", "b")
        await place.publishes("a", "b")
    assert await place.dead() == ["output_too_large"]


async def test_without_the_limit_nothing_of_the_partition_gets_out_any_more(place, monkeypatch):
    monkeypatch.setattr(owner, "VALUE_BYTES_MAX", 10**9)
    place = await place()
    async with place.running():
        await place.send(*opening("huge", "b"), Add(order_id="A", text="huge:2"))
        await until(lambda: place.query("SELECT 1 FROM partitions WHERE epoch > 2"))  # again and again
    assert await place.published() == [] and await place.outbox()


async def test_a_dead_letter_of_a_record_at_the_limit_gets_out(place):
    place = await place()
    async with place.running():
        good = record(place.spec, Add(order_id="A", text="x"))
        await place.send(Raw(good.topic, b"A", b"\xff" * 1_047_000, good.headers), *opening("a"))
        await place.applies("a")
        await place.publishes("a")
    assert await place.dead() == ["oversize"]
