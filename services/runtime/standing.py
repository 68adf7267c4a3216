"""How merchants stand, and which lanes are closed: rows that orders obey, read from memory and exact all the same.

A row changes seldom and is asked for at every step, so each owner keeps what it has seen, with the database's version of
all rows. Every write of an owner compares that version, in the row of its partition that it locks anyway; whoever changes a
row first locks the rows of all partitions, and raises the version on each. So no batch that decided by an older row can
commit after the change, and a batch that looks again costs nothing until there is one.

An order learns of a change before anything else happens to it (`batch.py`), and at the latest when its partition's owner
walks over the merchant's open orders, which it does after every change, and again after a crash.
"""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from services.runtime.decision import BRANDED, LANES, PROTECTED, Standing


class Standings:
    """What one owner knows. `known`: merchant -> row; `version` belongs into every write; `walks`: merchant -> the last of
    its open orders that was told."""

    def __init__(self, conn: asyncpg.Connection, partition: int, walked_for: frozenset[str]):
        self._conn, self._partition, self._walked_for = conn, partition, walked_for
        self.known: dict[str, Standing] = {}
        self.walks: dict[str, str] = {}
        self.version = self._walked = 0
        self._absent: set[str] = set()
        self._told: dict[str, str] = {}  # merchant -> the label that the last walk told, or tells

    async def begin(self) -> None:
        """After a claim: what a former owner did not walk to its end is walked again."""
        self.version, self._walked = await self._conn.fetchrow(
            "SELECT standing, walked FROM partitions WHERE partition = $1", self._partition)
        for merchant, row in await _rows(self._conn, "version > $1", self._walked):
            self._learnt(merchant, row)
        if LANES in self._walked_for:
            await self.look_up({LANES})
        if PROTECTED in self._walked_for:
            self.known.update(await _rows(self._conn, "merchant_id LIKE $1", f"{BRANDED}%"))

    async def learn(self) -> None:
        """Another version was seen: read what has changed."""
        before = self.version
        self.version = await self._conn.fetchval("SELECT standing FROM partitions WHERE partition = $1", self._partition)
        for merchant, row in await _rows(self._conn, "version > $1", before):
            self._learnt(merchant, row)

    async def changed(self) -> bool:
        return self.version != await self._conn.fetchval("SELECT standing FROM partitions WHERE partition = $1",
                                                         self._partition)

    async def look_up(self, merchants: set[str]) -> None:
        """Read the rows of merchants that were not heard of yet."""
        missing = [m for m in merchants if m and m not in self.known and m not in self._absent]
        if missing:
            found = await _rows(self._conn, "merchant_id = ANY($1)", missing)
            self.known.update(found)
            self._absent.update(set(missing) - {merchant for merchant, _ in found})

    def wrote(self, rows: dict[str, Standing]) -> None:
        """Our own change is committed."""
        self.version += 1
        for merchant, row in rows.items():
            self._learnt(merchant, row)

    def telling(self, merchant: str) -> str:
        """What the walk over this merchant's orders tells: the label of his row when it began."""
        return self._told.get(merchant, "")

    async def walked(self, merchant: str, told: str, last: str | None) -> None:
        """The walk that tells `told` came up to `last`; None: to its end. Where his row changed meanwhile another walk has begun,
        and must not begin behind the orders that were told of the change before."""
        if told != self.telling(merchant):
            return
        if last is not None:
            self.walks[merchant] = last
            return
        self.walks.pop(merchant, None)
        if not self.walks and self._walked != self.version:
            self._walked = self.version
            await self._conn.execute("UPDATE partitions SET walked = greatest(walked, $2) WHERE partition = $1",
                                     self._partition, self._walked)

    def _learnt(self, merchant: str, row: Standing) -> None:
        self.known[merchant] = row
        self._absent.discard(merchant)
        if row.label != self._told.get(merchant, "") and row.status in self._walked_for:
            self.walks[merchant] = ""
            self._told[merchant] = row.label


async def open_orders(conn: asyncpg.Connection, partition: int, merchant: str, after: str, limit: int) -> list[str]:
    """Of a merchant; with goods of a brand; all there are, when it is the lanes that have changed."""
    if merchant == LANES:
        return [row[0] for row in await conn.fetch(
            "SELECT order_id FROM orders WHERE partition = $1 AND NOT closed AND order_id > $2 ORDER BY order_id LIMIT $3",
            partition, after, limit)]
    if merchant.startswith(BRANDED):
        return [row[0] for row in await conn.fetch(
            "SELECT order_id FROM orders WHERE partition = $1 AND NOT closed AND state->'brands'->'labels'->>$2 IS NOT NULL"
            " AND order_id > $3 ORDER BY order_id LIMIT $4", partition, merchant, after, limit)]
    return [row[0] for row in await conn.fetch(
        "SELECT order_id FROM orders WHERE partition = $1 AND merchant = $2 AND NOT closed AND order_id > $3"
        " ORDER BY order_id LIMIT $4", partition, merchant, after, limit)]


async def hold(conn: asyncpg.Connection) -> None:
    """Before the fence of a batch that may change a row: nobody else's batch is in the middle, and none begins."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('tradewind standing'))")
    await conn.execute("SELECT FROM partitions ORDER BY partition FOR UPDATE")


async def write(conn: asyncpg.Connection, version: int, rows: dict[str, Standing]) -> None:
    """Within the transaction that holds all partitions: the rows, and the version that they make."""
    await conn.execute("UPDATE partitions SET standing = $1", version)
    await conn.execute(
        "INSERT INTO merchants (merchant_id, label, status, cause, facts, version)"
        " SELECT n.*, $6 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::json[]) AS n"
        " ON CONFLICT (merchant_id) DO UPDATE SET (label, status, cause, facts, version)"
        " = ROW (EXCLUDED.label, EXCLUDED.status, EXCLUDED.cause, EXCLUDED.facts, EXCLUDED.version)",
        list(rows), [r.label for r in rows.values()], [r.status for r in rows.values()], [r.cause for r in rows.values()],
        [json.dumps(r.facts) for r in rows.values()], version)


async def _rows(conn: asyncpg.Connection, where: str, argument: Any) -> list[tuple[str, Standing]]:
    return [(merchant, Standing(label, status, cause, json.loads(facts))) for merchant, label, status, cause, facts in
            await conn.fetch(f"SELECT merchant_id, label, status, cause, facts::text FROM merchants WHERE {where}", argument)]
