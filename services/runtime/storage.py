"""All SQL of the runtime. Invariant: whatever one batch changes commits together, or not at all.

Every write of an owner is a `Write`, which fences; where rows are shared with other owners, a transaction that began with
`fence` locks them first. `claim` makes the next owner, and ends the database session of the former one if that still
holds the row: a process stopped in the middle of a batch would otherwise block its successor for ever, and no timeout of
PostgreSQL fires for it.
"""

from __future__ import annotations

import itertools
import json
import logging
from datetime import datetime
from functools import lru_cache
from typing import NoReturn

import asyncpg
from pydantic_core import to_json

log = logging.getLogger(__name__)


class OwnershipLost(Exception):
    """Another instance claimed the partition, or moved its offsets: this owner must drop its cache and leave."""


class StandingChanged(Exception):
    """How a merchant stands has changed since this owner last looked: it must look again, and decide again."""


class Unfit(Exception):
    """Database, topics and settings do not belong together; trying again does not help. The message has the remedy.

    Never transient: the process ends with EXIT_UNFIT, so that its supervisor and whoever watches it see it."""


EXIT_UNFIT = 78  # EX_CONFIG of sysexits.h
COMMAND_TIMEOUT_S = 15.0  # a connection may be dead without a word; nothing of ours takes as long


async def connect(dsn: str, application: str) -> asyncpg.Connection:
    """A session for one owner. JSON travels as text: the models encode it themselves.

    An owner finds every row by a key. A plan made once for all, while the tables were empty, must not read them whole
    when they are full; making one anew for each batch costs more than the batch."""
    plans = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off",
             "enable_mergejoin": "off", "jit": "off"}
    return await asyncpg.connect(dsn, server_settings={"application_name": application[:63]} | plans,
                                 statement_cache_size=200, command_timeout=COMMAND_TIMEOUT_S)


async def claim(conn: asyncpg.Connection, partition: int, instance: str) -> int:
    """Become the owner: raise the epoch and return it. Ends the sessions of former owners when they block."""
    pid = conn.get_server_pid()
    for attempt in itertools.count(1):
        try:
            async with conn.transaction():
                await conn.execute("SET LOCAL lock_timeout = '400ms'")
                epoch = await conn.fetchval(
                    "UPDATE partitions SET epoch = epoch + 1, instance = $2, backend = $3 WHERE partition = $1"
                    " RETURNING epoch", partition, instance, pid)
            if epoch is None:
                raise Unfit(f"partition {partition} is not in the table `partitions`: run the migrations with the same "
                            "number of partitions as the topics have")
            return epoch
        except asyncpg.LockNotAvailableError:
            await _end_former_owners(conn, partition)
            if attempt % 10 == 0:
                log.warning("partition %d: its row has been locked for %.0f s by a session that is no owner's; "
                            "see pg_stat_activity and pg_locks", partition, attempt * 0.4)


async def _end_former_owners(conn: asyncpg.Connection, partition: int) -> None:
    """End every session of an owner of this partition that has had a transaction open for a while: it may have stopped
    in a batch or in its own claim, so the name decides, not what the row says. Who waits for a lock blocks nobody."""
    await conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND application_name LIKE 'tradewind % ' || $1::int"
        " AND xact_start < clock_timestamp() - interval '300 ms' AND wait_event_type IS DISTINCT FROM 'Lock'", partition)


async def read_offsets(conn: asyncpg.Connection, partition: int) -> dict[str, int]:
    """A statement of its own, after the claim: a snapshot taken while the claim waited would be too old."""
    return json.loads(await conn.fetchval("SELECT offsets::text FROM partitions WHERE partition = $1", partition))


async def read_levels(conn: asyncpg.Connection, partition: int) -> dict[str, list[int]]:
    """How near each topic is to the limit of dead letters; see `limit.py`."""
    return json.loads(await conn.fetchval("SELECT dead_levels::text FROM partitions WHERE partition = $1", partition))


async def read_outbox(conn: asyncpg.Connection, partition: int) -> list[tuple[int, bytes]]:
    rows = await conn.fetch("SELECT batch, payload FROM outbox WHERE partition = $1 ORDER BY batch", partition)
    return [(row[0], row[1]) for row in rows]


async def read_intents(conn: asyncpg.Connection, partition: int) -> list[asyncpg.Record]:
    return await conn.fetch(
        "SELECT intent_id, order_id, kind, body::text FROM intents WHERE partition = $1 ORDER BY made_at", partition)


async def next_due(conn: asyncpg.Connection, partition: int) -> datetime | None:
    return await conn.fetchval("SELECT min(due) FROM timers WHERE partition = $1", partition)


async def due_timers(conn: asyncpg.Connection, partition: int, now: datetime, limit: int) -> list[asyncpg.Record]:
    return await conn.fetch("SELECT order_id, due FROM timers WHERE partition = $1 AND due <= $2 ORDER BY due LIMIT $3",
                            partition, now, limit)


async def installed_partitions(dsn: str) -> int | None:
    """The partition count that this database was made for; None before any migration."""
    conn = await asyncpg.connect(dsn)
    try:
        if await conn.fetchval("SELECT to_regclass('installation')") is None:
            return None
        stored = await conn.fetchval("SELECT value FROM installation WHERE name = 'partitions'")
        return int(stored) if stored is not None else None
    finally:
        await conn.close()


async def fence(conn: asyncpg.Connection, partition: int, epoch: int, start: dict[str, int], standing: int = 0) -> None:
    """Begin a batch that locks shared rows: still the owner, and nobody moved the offsets it starts from, or changed how a
    merchant stands. Holds the row. Raises OwnershipLost, StandingChanged."""
    done = await conn.fetchval(
        "SELECT 1 FROM partitions WHERE partition = $1 AND epoch = $2 AND offsets = $3::text::jsonb AND standing = $4 FOR UPDATE",
        partition, epoch, _text(start), standing)
    if done is None:
        await _refused(conn, partition, epoch, start)


async def _refused(conn: asyncpg.Connection, partition: int, epoch: int, start: dict[str, int]) -> NoReturn:
    """Why the fence found no row."""
    ours = await conn.fetchval("SELECT 1 FROM partitions WHERE partition = $1 AND epoch = $2 AND offsets = $3::text::jsonb",
                               partition, epoch, _text(start))
    if ours is not None:
        raise StandingChanged(f"partition {partition}")
    raise OwnershipLost(f"partition {partition}: epoch {epoch} or its offsets are no longer current")


async def load(conn: asyncpg.Connection, partition: int, order_ids: list[str]) -> list[asyncpg.Record]:
    return await conn.fetch(
        "SELECT o.order_id, o.seq, o.track::text, o.state::text, t.due FROM orders o LEFT JOIN timers t USING (order_id)"
        " WHERE o.order_id = ANY($1) AND o.partition = $2", order_ids, partition)


async def load_documents(conn: asyncpg.Connection, order_ids: list[str]) -> dict[str, str]:
    return dict(await conn.fetch("SELECT order_id, body::text FROM documents WHERE order_id = ANY($1)", order_ids))


async def load_parked(conn: asyncpg.Connection, order_ids: list[str]) -> list[asyncpg.Record]:
    return await conn.fetch(
        "SELECT order_id, topic, at_offset, headers, value, source, sequence, id, dead FROM parked WHERE order_id = ANY($1)"
        " ORDER BY order_id, source, sequence, at_offset", order_ids)


class Write:
    """What one batch changes, as one statement: one round trip, and nothing of it without all of it.

    Its first part is the fence: where it finds no row, no other part does anything. The parts do not see one another's
    changes, so none may touch a row that another one makes."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._arguments: list[list | tuple] = []
        self._levels: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._parts or self._levels)

    def set_levels(self, levels: dict[str, tuple[int, int]]) -> None:
        """How near each topic is to the limit of dead letters; stands with the offsets, and changes seldom."""
        self._levels = [json.dumps(levels)]

    def insert_orders(self, rows: list[tuple]) -> None:
        """(order_id, status, closed, seq, track, state, merchant) of orders that have no row yet."""
        self._add(f"INSERT INTO orders (partition, {_ORDER}) SELECT fence.partition, {_NEW_ORDER} FROM fence, {_ORDERS}", rows)

    def update_orders(self, rows: list[tuple]) -> None:
        """As `insert_orders`, of orders that have one."""
        self._add(f"UPDATE orders o SET ({_ORDER}) = ROW ({_NEW_ORDER}) FROM fence, {_ORDERS} WHERE o.order_id = n.order_id",
                  rows)

    def insert_documents(self, rows: list[tuple[str, str]]) -> None:
        self._add("INSERT INTO documents (order_id, body) SELECT n.order_id, n.body::json FROM fence,"
                  " unnest({}::text[], {}::text[]) AS n(order_id, body)", rows)

    def append(self, table: str, rows: list[tuple]) -> None:
        """Rows of an append-only table of the service, with all of its columns in their order."""
        self._parts.append(f"INSERT INTO {table} SELECT n.* FROM fence, unnest({{}}::{table}[]) AS n")
        self._arguments.append(rows)

    def arm_timers(self, rows: list[tuple[str, datetime]]) -> None:
        self._add("INSERT INTO timers (order_id, partition, due) SELECT n.order_id, fence.partition, n.due FROM fence,"
                  " unnest({}::text[], {}::timestamptz[]) AS n(order_id, due)"
                  " ON CONFLICT (order_id) DO UPDATE SET due = EXCLUDED.due", rows)

    def disarm_timers(self, order_ids: list[str]) -> None:
        self._delete("timers", "order_id", order_ids)

    def insert_intents(self, rows: list[tuple]) -> None:
        """(intent_id, order_id, kind, body)."""
        self._add("INSERT INTO intents (intent_id, partition, order_id, kind, body)"
                  " SELECT n.intent_id, fence.partition, n.order_id, n.kind, n.body::json FROM fence,"
                  " unnest({}::text[], {}::text[], {}::text[], {}::text[]) AS n(intent_id, order_id, kind, body)", rows)

    def delete_intents(self, ids: list[str]) -> None:
        self._delete("intents", "intent_id", ids)

    def insert_parked(self, rows: list[tuple]) -> None:
        """(order_id, source, sequence, id, topic, at_offset, headers, value, dead). One may take another's place."""
        self._add("INSERT INTO parked (partition, order_id, source, sequence, id, topic, at_offset, headers, value, dead)"
                  " SELECT fence.partition, n.* FROM fence, unnest({}::text[], {}::text[], {}::int[], {}::text[], {}::text[],"
                  " {}::bigint[], {}::bytea[], {}::bytea[], {}::text[]) AS n ON CONFLICT (order_id, source, sequence, id)"
                  " DO UPDATE SET (topic, at_offset, headers, value, dead, parked_at) = ROW (EXCLUDED.topic,"
                  " EXCLUDED.at_offset, EXCLUDED.headers, EXCLUDED.value, EXCLUDED.dead, now())", rows)

    def delete_parked(self, rows: list[tuple[str, str, int, str]]) -> None:
        """(order_id, source, sequence, id)."""
        self._add("DELETE FROM parked p USING fence, unnest({}::text[], {}::text[], {}::int[], {}::text[])"
                  " AS n(order_id, source, sequence, id) WHERE p.order_id = n.order_id AND p.source = n.source"
                  " AND p.sequence = n.sequence AND p.id = n.id", rows)

    def insert_outbox(self, batch: int, payload: bytes) -> None:
        self._parts.append("INSERT INTO outbox (partition, batch, payload) SELECT fence.partition, {}, {} FROM fence")
        self._arguments += [batch, payload]

    def delete_outbox(self, up_to: int) -> None:
        self._parts.append("DELETE FROM outbox o USING fence WHERE o.partition = fence.partition AND o.batch <= {}")
        self._arguments.append(up_to)

    def change(self, statement: str, *columns: list) -> None:
        """A part of the service's own; `{}` stands for each of its arguments, and `fence` must be joined."""
        self._parts.append(statement)
        self._arguments += columns

    async def send(self, conn: asyncpg.Connection, partition: int, epoch: int, start: dict[str, int], end: dict[str, int],
                   standing: int = 0) -> None:
        """Write everything and move the offsets from `start` to `end`, as the partition's owner of this epoch, who knows how
        merchants stand: a transaction of its own, unless one is open. Raises OwnershipLost, StandingChanged; then nothing
        was written."""
        done = await conn.fetchval(_statement(tuple(self._parts), bool(self._levels)), partition, epoch, _text(start),
                                   _text(end), standing, *self._levels, *self._arguments)
        if done is None:
            await _refused(conn, partition, epoch, start)

    def _add(self, statement: str, rows: list[tuple]) -> None:
        self._parts.append(statement)
        self._arguments += zip(*rows)

    def _delete(self, table: str, key: str, values: list[str]) -> None:
        self._parts.append(f"DELETE FROM {table} t USING fence WHERE t.{key} = ANY({{}}::text[])")
        self._arguments.append(values)


_FENCE = ("UPDATE partitions SET offsets = $4::text::jsonb{} WHERE partition = $1 AND epoch = $2"
          " AND offsets = $3::text::jsonb AND standing = $5 RETURNING partition")
_ORDER = "order_id, status, closed, seq, track, state, merchant"
_NEW_ORDER = "n.order_id, n.status, n.closed, n.seq, n.track::json, n.state::json, n.merchant"
_ORDERS = f"unnest({{}}::text[], {{}}::text[], {{}}::bool[], {{}}::int[], {{}}::text[], {{}}::text[], {{}}::text[]) AS n({_ORDER})"


@lru_cache(maxsize=256)
def _statement(parts: tuple[str, ...], levels: bool) -> str:
    """The fence and the parts in one; PostgreSQL executes each of them once, whether or not anybody reads its rows."""
    numbers = itertools.count(6 + levels)
    fence = _FENCE.format(", dead_levels = $6::text::jsonb" if levels else "")
    texts = [part.format(*(f"${next(numbers)}" for _ in range(part.count("{}")))) for part in parts]
    named = "".join(f", part_{n} AS ({text})" for n, text in enumerate(texts))
    return f"WITH fence AS ({fence}){named} SELECT partition FROM fence"


def _text(offsets: dict[str, int]) -> str:
    return to_json(offsets).decode()


async def parked_too_long(conn: asyncpg.Connection, partition: int, seconds: float, limit: int) -> list[asyncpg.Record]:
    """(order_id, source, sequence, id), the oldest first. An order with a dead letter waits for a person, however long."""
    return await conn.fetch("SELECT order_id, source, sequence, id FROM parked p WHERE partition = $1"
                            " AND parked_at < now() - make_interval(secs => $2)"
                            " AND NOT EXISTS (SELECT FROM parked d WHERE d.order_id = p.order_id AND d.dead <> '')"
                            " ORDER BY parked_at LIMIT $3", partition, seconds, limit)
