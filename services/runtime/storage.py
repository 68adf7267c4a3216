"""All SQL of the runtime. Invariant: whatever one batch changes commits together, or not at all.

Every write of an owner happens in a transaction whose first statement is `fence`. `claim` makes the next owner, and ends
the database session of the former one if that still holds the row: a process stopped in the middle of a COPY would
otherwise block its successor for ever, and no timeout of PostgreSQL fires for it.
"""

from __future__ import annotations

import itertools
import json
import logging
from datetime import datetime

import asyncpg

log = logging.getLogger(__name__)

COLUMNS_ORDERS = ("order_id", "partition", "status", "closed", "seq", "track", "state")


class OwnershipLost(Exception):
    """Another instance claimed the partition, or moved its offsets: this owner must drop its cache and leave."""


class Unfit(Exception):
    """Database, topics and settings do not belong together; trying again does not help. The message has the remedy.

    Never transient: the process ends with EXIT_UNFIT, so that its supervisor and whoever watches it see it."""


EXIT_UNFIT = 78  # EX_CONFIG of sysexits.h


async def connect(dsn: str, application: str) -> asyncpg.Connection:
    """A session for one owner. JSON travels as text: the models encode it themselves."""
    return await asyncpg.connect(dsn, server_settings={"application_name": application[:63], "jit": "off"},
                                 statement_cache_size=200, command_timeout=None)


async def claim(dsn: str, conn: asyncpg.Connection, partition: int, instance: str) -> int:
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


async def set_levels(conn: asyncpg.Connection, partition: int, levels: dict[str, tuple[int, int]]) -> None:
    await conn.execute("UPDATE partitions SET dead_levels = $2::text::jsonb WHERE partition = $1", partition, json.dumps(levels))


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


async def fence(conn: asyncpg.Connection, partition: int, epoch: int, start: dict[str, int]) -> None:
    """First statement of a batch: still the owner, and nobody moved the offsets it starts from. Holds the row."""
    done = await conn.fetchval(
        "SELECT 1 FROM partitions WHERE partition = $1 AND epoch = $2 AND offsets = $3::text::jsonb FOR UPDATE",
        partition, epoch, json.dumps(start))
    if done is None:
        raise OwnershipLost(f"partition {partition}: epoch {epoch} or its offsets are no longer current")


async def move_offsets(conn: asyncpg.Connection, partition: int, end: dict[str, int]) -> None:
    """Only after `fence`, in the same transaction: what was read up to `end` is applied."""
    await conn.execute("UPDATE partitions SET offsets = $2::text::jsonb WHERE partition = $1", partition, json.dumps(end))


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


async def insert_orders(conn: asyncpg.Connection, rows: list[tuple]) -> None:
    await conn.copy_records_to_table("orders", records=rows, columns=COLUMNS_ORDERS)


async def update_orders(conn: asyncpg.Connection, rows: list[tuple]) -> None:
    ids, _, status, closed, seq, track, state = zip(*rows)
    await conn.execute(
        "UPDATE orders o SET status = n.status, closed = n.closed, seq = n.seq, track = n.track::json, state = n.state::json"
        " FROM unnest($1::text[], $2::text[], $3::bool[], $4::int[], $5::text[], $6::text[])"
        " AS n(order_id, status, closed, seq, track, state) WHERE o.order_id = n.order_id",
        ids, status, closed, seq, track, state)


async def insert_documents(conn: asyncpg.Connection, rows: list[tuple[str, str]]) -> None:
    await conn.copy_records_to_table("documents", records=rows, columns=("order_id", "body"))


async def append(conn: asyncpg.Connection, table: str, columns: tuple[str, ...], rows: list[tuple]) -> None:
    await conn.copy_records_to_table(table, records=rows, columns=columns)


async def insert_outbox(conn: asyncpg.Connection, partition: int, batch: int, payload: bytes) -> None:
    await conn.execute("INSERT INTO outbox (partition, batch, payload) VALUES ($1, $2, $3)", partition, batch, payload)


async def delete_outbox(conn: asyncpg.Connection, partition: int, up_to: int) -> None:
    await conn.execute("DELETE FROM outbox WHERE partition = $1 AND batch <= $2", partition, up_to)


async def insert_parked(conn: asyncpg.Connection, rows: list[tuple]) -> None:
    await conn.executemany(
        "INSERT INTO parked (partition, order_id, source, sequence, id, topic, at_offset, headers, value, dead)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING", rows)


async def delete_parked(conn: asyncpg.Connection, rows: list[tuple[str, str, int, str]]) -> None:
    orders, sources, sequences, ids = zip(*rows)
    await conn.execute(
        "DELETE FROM parked p USING unnest($1::text[], $2::text[], $3::int[], $4::text[]) AS n(order_id, source, sequence, id)"
        " WHERE p.order_id = n.order_id AND p.source = n.source AND p.sequence = n.sequence AND p.id = n.id",
        orders, sources, sequences, ids)


async def parked_too_long(conn: asyncpg.Connection, partition: int, seconds: float, limit: int) -> list[asyncpg.Record]:
    """(order_id, source, sequence, id), the oldest first. An order with a dead letter waits for a person, however long."""
    return await conn.fetch("SELECT order_id, source, sequence, id FROM parked p WHERE partition = $1"
                            " AND parked_at < now() - make_interval(secs => $2)"
                            " AND NOT EXISTS (SELECT FROM parked d WHERE d.order_id = p.order_id AND d.dead <> '')"
                            " ORDER BY parked_at LIMIT $3", partition, seconds, limit)


async def arm_timers(conn: asyncpg.Connection, partition: int, rows: list[tuple[str, datetime]]) -> None:
    ids, dues = zip(*rows)
    await conn.execute(
        "INSERT INTO timers (order_id, partition, due) SELECT n.order_id, $1, n.due"
        " FROM unnest($2::text[], $3::timestamptz[]) AS n(order_id, due)"
        " ON CONFLICT (order_id) DO UPDATE SET due = EXCLUDED.due", partition, ids, dues)


async def disarm_timers(conn: asyncpg.Connection, order_ids: list[str]) -> None:
    await conn.execute("DELETE FROM timers WHERE order_id = ANY($1)", order_ids)


async def insert_intents(conn: asyncpg.Connection, rows: list[tuple]) -> None:
    await conn.copy_records_to_table("intents", records=rows, columns=("intent_id", "partition", "order_id", "kind", "body"))


async def delete_intents(conn: asyncpg.Connection, ids: list[str]) -> None:
    await conn.execute("DELETE FROM intents WHERE intent_id = ANY($1)", ids)
