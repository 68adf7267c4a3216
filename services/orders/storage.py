"""Rows that orders share, by the prefix of their key. Locked in sorted order for a batch, changed once for all its orders.

`quota:<person>:<year>`: what one person brings into China in one calendar year (Asia/Shanghai), in fen. Never above what
the law allows, however many partitions have orders of that person at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from services.runtime.decision import SharedMissing
from services.runtime.storage import Write

QUOTA = "quota:"
COUNTERS = {"reserve": "reserved", "release": "released", "commit": "committed", "restore": "restored"}


@dataclass(slots=True, frozen=True)
class QuotaMove:
    """`kind` is one of COUNTERS. A release ends a reservation, a restoration what was committed. `allowed`: the year's
    limit by the rules, which a reservation states."""

    key: str
    kind: str
    units: int
    allowed: int = 0


class Rows:
    """The locked rows. `used` raises SharedMissing for a key that was not locked."""

    def __init__(self, keys: set[str], quotas: Iterable[tuple[str, int]] = ()):
        self._keys = keys
        self._used: dict[str, int] = dict(quotas)
        self.changes: dict[str, dict[str, int]] = {}

    def used(self, key: str) -> int:
        """Fen that are reserved or committed, and were not given back."""
        self._need(key)
        return self._used.get(key, 0)

    def apply(self, move: QuotaMove) -> None:
        self._need(move.key)
        used = self._used.get(move.key, 0) + {"reserve": 1, "release": -1, "commit": 0, "restore": -1}[move.kind] * move.units
        assert used >= 0, f"{move.key} would be below zero"
        assert move.kind != "reserve" or used <= move.allowed, f"{move.key} would be above {move.allowed}"
        self._used[move.key] = used
        change = self.changes.setdefault(move.key, {})
        column = COUNTERS[move.kind]
        change[column] = change.get(column, 0) + move.units
        change["allowed"] = max(change.get("allowed", 0), move.allowed)

    def _need(self, key: str) -> None:
        if key not in self._keys:
            raise SharedMissing(key)


_USED = "SELECT key, reserved - released - restored AS used FROM quota WHERE key = ANY($1)"


async def lock(conn: asyncpg.Connection, keys: set[str]) -> Rows:
    """Lock the rows of these keys, and make those that are new, in one order for everybody: of two owners who meet at a
    key, one waits, and no circle of waiting can come about."""
    if not keys:
        return Rows(keys)
    names = sorted(keys)
    # An update that is never done locks the row all the same. What others committed meanwhile is seen by the next statement.
    await conn.execute("INSERT INTO quota (key) SELECT * FROM unnest($1::text[])"
                       " ON CONFLICT (key) DO UPDATE SET key = EXCLUDED.key WHERE false", names)
    return Rows(keys, await conn.fetch(_USED, names))


async def look(conn: asyncpg.Connection, keys: set[str]) -> Rows:
    """The same without a lock, for a decision that will not be written."""
    return Rows(keys, await conn.fetch(_USED, sorted(keys)) if keys else ())


async def write(conn: asyncpg.Connection, rows: Rows, write: Write) -> None:
    """One statement for the whole batch, however many orders a person has in it."""
    if not rows.changes:
        return
    order = sorted(rows.changes)
    columns = [[rows.changes[key].get(name, 0) for key in order] for name in (*COUNTERS.values(), "allowed")]
    write.change(
        "UPDATE quota q SET reserved = q.reserved + n.reserved, released = q.released + n.released,"
        " committed = q.committed + n.committed, restored = q.restored + n.restored, allowed = greatest(q.allowed, n.allowed)"
        " FROM fence, unnest({}::text[], {}::bigint[], {}::bigint[], {}::bigint[], {}::bigint[], {}::bigint[])"
        " AS n(key, reserved, released, committed, restored, allowed) WHERE q.key = n.key", order, *columns)
