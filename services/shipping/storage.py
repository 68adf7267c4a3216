"""Rows that orders share: stock, never negative; and where units with a serial number were seen last (serials.py). Locked in
sorted order for a batch, changed once for all its orders."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import asyncpg

from services.runtime.decision import SharedMissing
from services.runtime.storage import Write
from services.shipping.serials import UNIT, Sighting, UnitSeen

COUNTERS = {"receive": "received", "reserve": "reserved", "release": "released", "consume": "consumed",
            "restock": "restocked", "shrink": "shrunk"}
SEASONAL = {"announce": "announced", "arrive": "arrived", "presell": "presold", "unsell": "unsold"}
_FREE_BY = {"receive": 1, "restock": 1, "release": 1, "reserve": -1}
COLUMN_OF = COUNTERS | SEASONAL


@dataclass(slots=True, frozen=True)
class StockMove:
    """`kind` is one of COUNTERS or SEASONAL; a shrinkage also ends the reservation of its units."""

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

    def __init__(self, keys: set[str], rows: list[asyncpg.Record], serials: Iterator[int] | None = None,
                 units: dict[str, Sighting] | None = None):
        self._keys, self._serials = keys, itertools.repeat(0) if serials is None else serials
        self._free: dict[str, dict[str, int]] = {}
        self.stored = {(sku, warehouse) for warehouse, sku, *_ in rows}
        self._coming: dict[tuple[str, str], int] = {}  # announced, and not there yet
        self._held: dict[tuple[str, str], int] = {}    # for orders whose season has not opened
        for warehouse, sku, free, *seasonal in rows:
            self._free.setdefault(sku, {})[warehouse] = free
            if seasonal and any(seasonal):
                self._coming[sku, warehouse], self._held[sku, warehouse] = seasonal
        self.changes: dict[tuple[str, str], dict[str, int]] = {}
        self._units: dict[str, Sighting] = units or {}
        self.seen: dict[str, Sighting] = {}  # what has changed of them

    def sighting(self, unit: str) -> Sighting | None:
        """Where a unit was seen last."""
        self._need(unit)
        return self._units.get(unit)

    def available(self, sku: str, own: Mapping[tuple[str, str], int] | None = None) -> list[tuple[str, int]]:
        """(warehouse, units that nobody has reserved, nor was promised of a harvest that should be there). `own`: what of the
        promises, by (warehouse, SKU), is the asker's."""
        self._need(sku)
        free = self._free.get(sku, {})
        if not self._held:
            return sorted(free.items())
        return sorted((place, max(0, units - self._promised(sku, place, own.get((place, sku), 0) if own else 0)))
                      for place, units in free.items())

    def _promised(self, sku: str, place: str, own: int) -> int:
        """Units on the shelf that are for orders whose season opens later."""
        return max(0, self._held.get((sku, place), 0) - own - self._coming.get((sku, place), 0))

    def promisable(self, sku: str) -> list[tuple[str, int]]:
        """(warehouse, units that are free or announced, and nobody was promised)."""
        self._need(sku)
        places = self._free.get(sku, {}).keys() | {w for s, w in self._coming if s == sku}
        return sorted((w, max(0, self._free.get(sku, {}).get(w, 0) + self._coming.get((sku, w), 0) - self._held.get((sku, w), 0)))
                      for w in places)

    def coming(self, sku: str, warehouse: str) -> int:
        """Units that were announced and are not there yet."""
        self._need(sku)
        return self._coming.get((sku, warehouse), 0)

    def serial(self) -> int:
        """A number that no parcel has."""
        return next(self._serials)

    def apply(self, move: StockMove | UnitSeen) -> None:
        if type(move) is UnitSeen:
            self._units[move.key] = self.seen[move.key] = move.sighting
            return
        self._need(move.sku)
        change = self.changes.setdefault((move.sku, move.warehouse), {})
        column = COLUMN_OF[move.kind]
        change[column] = change.get(column, 0) + move.units
        if move.kind in SEASONAL:
            sums = self._coming if move.kind in ("announce", "arrive") else self._held
            place = move.sku, move.warehouse
            sums[place] = sums.get(place, 0) + move.units * (1 if move.kind in ("announce", "presell") else -1)
            return
        here = self._free.setdefault(move.sku, {})
        free = _FREE_BY.get(move.kind, 0)
        here[move.warehouse] = here.get(move.warehouse, 0) + free * move.units
        assert here[move.warehouse] >= 0, f"stock of {move.sku} in {move.warehouse} would be negative"

    def _need(self, sku: str) -> None:
        if sku not in self._keys:
            raise SharedMissing(sku)


_FREE = ("SELECT warehouse, sku, received + restocked + released - reserved, announced - arrived, presold - unsold FROM stock"
         " WHERE sku = ANY($1) ORDER BY sku, warehouse")


async def lock(conn: asyncpg.Connection, keys: set[str]) -> Stock:
    """Lock the rows of these SKUs and units, in one order for everybody, so that two owners cannot wait for each other."""
    if not keys:
        return Stock(keys, [], _SERIALS)
    await _SERIALS.fill(conn)
    units = sorted(key for key in keys if key.startswith(UNIT))
    skus = sorted(keys.difference(units)) if units else sorted(keys)
    rows = await conn.fetch(f"{_FREE} FOR UPDATE", skus) if skus else []
    if units:  # new ones too: of two parcels with one number, the second waits for the first
        await conn.execute("INSERT INTO units (key) SELECT * FROM unnest($1::text[])"
                           " ON CONFLICT (key) DO UPDATE SET key = EXCLUDED.key WHERE false", units)
    return Stock(keys, rows, _SERIALS, await _seen(conn, units) if units else None)


async def look(conn: asyncpg.Connection, keys: set[str]) -> Stock:
    """The same without a lock, for a decision that will not be written."""
    units = [key for key in keys if key.startswith(UNIT)]
    return Stock(keys, await conn.fetch(_FREE, sorted(keys)) if keys else [], None, await _seen(conn, units) if units else None)


async def _seen(conn: asyncpg.Connection, units: list[str]) -> dict[str, Sighting]:
    return {key: Sighting(*sighting) for key, *sighting in await conn.fetch(
        "SELECT key, order_id, parcel_id, place, seen_at, lot, back FROM units WHERE key = ANY($1) AND parcel_id <> ''", units)}


async def write(conn: asyncpg.Connection, stock: Stock, write: Write) -> None:
    """One statement for the whole batch: a SKU that everybody buys is still one update."""
    if stock.seen:
        write.change("UPDATE units u SET (order_id, parcel_id, place, seen_at, lot, back)"
                     " = ROW (n.order_id, n.parcel_id, n.place, n.seen_at, n.lot, n.back) FROM fence, unnest({}::text[], {}::text[],"
                     " {}::text[], {}::text[], {}::timestamptz[], {}::text[], {}::boolean[])"
                     " AS n(key, order_id, parcel_id, place, seen_at, lot, back) WHERE u.key = n.key",
                     list(stock.seen), *map(list, zip(*stock.seen.values())))
    if not stock.changes:
        return
    order = sorted(stock.changes)
    skus, warehouses = [key[0] for key in order], [key[1] for key in order]
    # An upsert would check the constraints against the bare changes, so the rows are made first. Only a delivery makes one,
    # and all deliveries of a SKU to a warehouse have one key, hence one owner: nobody waits for a row that is being made.
    if fresh := [n for n, key in enumerate(order) if key not in stock.stored]:
        await conn.execute("INSERT INTO stock (sku, warehouse) SELECT * FROM unnest($1::text[], $2::text[])"
                           " ON CONFLICT DO NOTHING", [skus[n] for n in fresh], [warehouses[n] for n in fresh])
    kinds = tuple(COUNTERS.values())
    if any(name in change for change in stock.changes.values() for name in SEASONAL.values()):  # a few orders a year
        kinds = tuple(COLUMN_OF.values())
    columns = [[stock.changes[key].get(name, 0) for key in order] for name in kinds]
    write.change(_update(kinds), skus, warehouses, *columns)


@lru_cache(maxsize=2)
def _update(columns: tuple[str, ...]) -> str:
    return (f"UPDATE stock s SET {', '.join(f'{name} = s.{name} + n.{name}' for name in columns)} FROM fence,"
            f" unnest({{}}::text[], {{}}::text[]{', {}::bigint[]' * len(columns)}) AS n(sku, warehouse, {', '.join(columns)})"
            " WHERE s.sku = n.sku AND s.warehouse = n.warehouse")
