"""Stock: rows that orders share. Locked in sorted order for a batch, changed once for all its orders, never negative."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from services.runtime.decision import SharedMissing
from services.runtime.storage import Write

COUNTERS = {"receive": "received", "reserve": "reserved", "release": "released", "consume": "consumed",
            "restock": "restocked", "shrink": "shrunk"}


@dataclass(slots=True, frozen=True)
class StockMove:
    """`kind` is one of COUNTERS; a shrinkage also ends the reservation of its units."""

    warehouse: str
    sku: str
    kind: str
    units: int


class Serials:
    """Numbers for parcels, of which each is given out once in the life of a database.

    A process takes blocks of them from a sequence, which PostgreSQL moves outside of transactions: a block that a batch took
    and lost stays taken, whoever owns a partition may take one, and nobody waits for anybody. What a process has left when
    it ends is never used."""

    BLOCK, ENOUGH = 1_000, 5_000

    def __init__(self) -> None:
        self._blocks: deque[list[int]] = deque()
        self._left = 0

    async def fill(self, conn: asyncpg.Connection) -> None:
        """See to it that a batch has enough of them."""
        while self._left < self.ENOUGH:
            block = await conn.fetchval("SELECT nextval('parcel_serial_blocks')")
            self._blocks.append([block * self.BLOCK, (block + 1) * self.BLOCK])
            self._left += self.BLOCK

    def __next__(self) -> int:
        if not self._left:
            raise SharedMissing("serial numbers")  # for this batch; the next one has more
        self._left -= 1
        block = self._blocks[0]
        number, block[0] = block[0], block[0] + 1
        if block[0] == block[1]:
            self._blocks.popleft()
        return number


_SERIALS = Serials()  # of this process, for all of its partitions


class Stock:
    """The locked rows: (warehouse, sku) -> counters. `available` raises SharedMissing for a SKU that was not locked.

    `serials`: numbers for parcels; None: any will do, for a decision that nobody will see."""

    def __init__(self, keys: set[str], rows: list[asyncpg.Record], serials: Iterator[int] | None = None):
        self._keys, self._serials = keys, itertools.repeat(0) if serials is None else serials
        self._free: dict[str, dict[str, int]] = {}
        self.stored = {(sku, warehouse) for warehouse, sku, _ in rows}
        for warehouse, sku, free in rows:
            self._free.setdefault(sku, {})[warehouse] = free
        self.changes: dict[tuple[str, str], dict[str, int]] = {}

    def available(self, sku: str) -> list[tuple[str, int]]:
        """(warehouse, units that nobody has reserved)."""
        self._need(sku)
        return sorted(self._free.get(sku, {}).items())

    def serial(self) -> int:
        """A number that no parcel has."""
        return next(self._serials)

    def apply(self, move: StockMove) -> None:
        self._need(move.sku)
        change = self.changes.setdefault((move.sku, move.warehouse), {})
        column = COUNTERS[move.kind]
        change[column] = change.get(column, 0) + move.units
        here = self._free.setdefault(move.sku, {})
        free = {"receive": 1, "restock": 1, "release": 1, "reserve": -1, "consume": 0, "shrink": 0}[move.kind]
        here[move.warehouse] = here.get(move.warehouse, 0) + free * move.units
        assert here[move.warehouse] >= 0, f"stock of {move.sku} in {move.warehouse} would be negative"

    def _need(self, sku: str) -> None:
        if sku not in self._keys:
            raise SharedMissing(sku)


_FREE = ("SELECT warehouse, sku, received + restocked + released - reserved AS free FROM stock"
         " WHERE sku = ANY($1) ORDER BY sku, warehouse")


async def lock(conn: asyncpg.Connection, keys: set[str]) -> Stock:
    """Lock the rows of these SKUs, in one order for everybody, so that two owners cannot wait for each other."""
    if keys:
        await _SERIALS.fill(conn)
    return Stock(keys, await conn.fetch(f"{_FREE} FOR UPDATE", sorted(keys)) if keys else [], _SERIALS)


async def look(conn: asyncpg.Connection, keys: set[str]) -> Stock:
    """The same without a lock, for a decision that will not be written."""
    return Stock(keys, await conn.fetch(_FREE, sorted(keys)) if keys else [])


async def write(conn: asyncpg.Connection, stock: Stock, write: Write) -> None:
    """One statement for the whole batch: a SKU that everybody buys is still one update."""
    if not stock.changes:
        return
    order = sorted(stock.changes)
    skus, warehouses = [key[0] for key in order], [key[1] for key in order]
    # An upsert would check the constraints against the bare changes, so the rows are made first. Only a delivery makes one,
    # and all deliveries of a SKU to a warehouse have one key, hence one owner: nobody waits for a row that is being made.
    if fresh := [n for n, key in enumerate(order) if key not in stock.stored]:
        await conn.execute("INSERT INTO stock (sku, warehouse) SELECT * FROM unnest($1::text[], $2::text[])"
                           " ON CONFLICT DO NOTHING", [skus[n] for n in fresh], [warehouses[n] for n in fresh])
    columns = [[stock.changes[key].get(name, 0) for key in order] for name in COUNTERS.values()]
    write.change(
        "UPDATE stock s SET received = s.received + n.received, reserved = s.reserved + n.reserved,"
        " released = s.released + n.released, consumed = s.consumed + n.consumed, restocked = s.restocked + n.restocked,"
        " shrunk = s.shrunk + n.shrunk FROM fence, unnest({}::text[], {}::text[], {}::bigint[], {}::bigint[], {}::bigint[],"
        " {}::bigint[], {}::bigint[], {}::bigint[])"
        " AS n(sku, warehouse, received, reserved, released, consumed, restocked, shrunk)"
        " WHERE s.sku = n.sku AND s.warehouse = n.warehouse", skus, warehouses, *columns)
