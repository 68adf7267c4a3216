"""How merchants stand: a batch that decided by an older row can never commit after the change."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime import standing, storage
from services.runtime.decision import Standing
from services.runtime.standing import Standings

FROZEN = Standing("frozen 1", "frozen", "orders:merchant:m1:1", {"name": "Mei"})


async def test_a_batch_decided_before_a_change_is_refused_after_it(place):
    place = await place()
    conn, other = [await storage.connect(place.dsn, f"tradewind {name} 0") for name in ("one", "two")]
    epoch = await storage.claim(conn, 0, "one")
    known = Standings(conn, 0, frozenset({"frozen"}))
    await known.begin()
    await known.look_up({"m1"})
    write = storage.Write()
    write.append("applied", [("A", "a")])
    async with other.transaction():
        await standing.hold(other)
        batch = asyncio.create_task(write.send(conn, 0, epoch, {}, {}, known.version))
        await asyncio.sleep(0.05)
        assert not batch.done(), "it waits for who is changing a row"
        await standing.write(other, 1, {"m1": FROZEN})
    with pytest.raises(storage.StandingChanged):
        await batch
    with pytest.raises(storage.StandingChanged):
        await storage.fence(conn, 0, epoch, {}, known.version)
    assert await place.applied("A") == [] and await known.changed()
    await known.learn()
    assert known.known == {"m1": FROZEN} and known.walks == {"m1": ""}
    await write.send(conn, 0, epoch, {}, {}, known.version)
    assert await place.applied("A") == ["a"]
    for each in (conn, other):
        await each.close()


@pytest.mark.parametrize("last", ["A2", None])
async def test_a_change_during_a_walk_is_told_to_those_too_who_were_told_of_the_one_before(last):
    """Frozen and at once upheld: a thousand orders of a partition that the first walk had come to stayed frozen for ever."""
    known = Standings(None, 0, frozenset({"frozen", "closed"}))
    known.wrote({"m1": FROZEN})
    told = known.telling("m1")
    known.wrote({"m1": Standing("closed 1", "closed", "orders:merchant:m1:2")})
    await known.walked("m1", told, last)
    assert known.walks == {"m1": ""} and known.telling("m1") == "closed 1"
    await known.walked("m1", "closed 1", "A2")
    assert known.walks == {"m1": "A2"}


async def test_a_walk_that_was_not_ended_is_begun_again_by_the_next_owner(place):
    place = await place()
    conn = await storage.connect(place.dsn, "tradewind one 0")
    async with conn.transaction():
        await standing.hold(conn)
        await standing.write(conn, 1, {"m1": FROZEN, "m2": Standing("", "active")})
    await place.query("INSERT INTO orders SELECT 'A' || n, 0, 'open', n = 3, 1, '{}', '{}', 'm1' FROM generate_series(1, 4) AS n")
    for last, left in (("A2", ["A4"]), (None, [])):
        known = Standings(conn, 0, frozenset({"frozen"}))
        await known.begin()
        assert known.walks == {"m1": ""}, "m2 is told of nothing"
        assert await standing.open_orders(conn, 0, "m1", "", 2) == ["A1", "A2"]
        await known.walked("m1", "frozen 1", last)
        assert await standing.open_orders(conn, 0, "m1", last or "A4", 2) == left
    known = Standings(conn, 0, frozenset({"frozen"}))
    await known.begin()
    assert known.walks == {}
    await conn.close()
