"""What a run moved: records, batches and bytes by topic, rows and transactions by table, with samples of each."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import INTAKE, TOPICS
from services.bench import quiet
from services.runtime.settings import SERVICES, Settings

RECORDS_SAMPLED, ROWS_SAMPLED = 600, 300
# A session tells the server's counters when a statement ends a second or more after it last did. An idle owner asks for its
# merchants' standing several times a second, so this is late enough; a session that asked nothing more would take ten seconds.
COUNTERS_AFTER_S = 2.5
# Rows here live for moments: they have to be looked at while the run goes on.
LOOKS, LOOK_EVERY_S = 12, 0.02
_HEADER = struct.Struct(">qi11xi30xi")  # of a record batch: base offset, length, last offset delta, record count
_HEADER_BYTES = 61
_BEFORE_LENGTH_COUNTS = 12

Record = tuple[bytes, bytes, list[tuple[str, bytes]]]


@dataclass
class Flow:
    """Of one topic, per order of the run (`bytes` as they lie on the broker's disk)."""

    records: float = 0.0
    batches: float = 0.0
    bytes: float = 0.0


@dataclass
class Rows:
    """Of one table, per order: rows inserted, updated, deleted, and some of its rows."""

    inserted: float
    updated: float
    deleted: float
    columns: tuple[str, ...] = ()
    sample: list[tuple] = field(default_factory=list)


@dataclass
class Traffic:
    """`transactions` are those that changed offsets, which every batch does; per order, by service."""

    topics: dict[str, Flow]
    rows: dict[str, dict[str, Rows]]
    transactions: dict[str, float]

    def as_dict(self) -> dict:
        return {
            "topics": {name: {"records": round(f.records, 2), "batches": round(f.batches, 3), "bytes": round(f.bytes)}
                       for name, f in self.topics.items()},
            "rows": {service: {name: {"inserted": round(r.inserted, 2), "updated": round(r.updated, 2),
                                      "deleted": round(r.deleted, 2)} for name, r in tables.items()}
                     for service, tables in self.rows.items()},
            "transactions": {service: round(n, 3) for service, n in self.transactions.items()},
        }


class Watch:
    """Taken at the beginning of a run; `traffic` at its end tells the difference."""

    def __init__(self, settings: Settings):
        self._settings, self._samples = settings, {}

    async def begin(self, *, exact: bool) -> None:
        """The system must be at rest. Unless `exact`, some of what it did just before may count as the run's."""
        if exact:
            await asyncio.sleep(COUNTERS_AFTER_S)
        self._counts = await self._rows_so_far()
        self._ends = await quiet.ends(self._settings.bootstrap, [t.name for t in TOPICS], self._settings.partitions)

    async def sample(self) -> None:
        """Some rows of each table, while orders are under way; a few looks, because some rows live for moments only."""
        await asyncio.gather(*(self._sample(service) for service in SERVICES))

    async def _sample(self, service: str) -> None:
        conn = await asyncpg.connect(self._settings.dsn(service))
        try:
            tables = [row[0] for row in await conn.fetch("SELECT relname FROM pg_stat_user_tables")]
            for _ in range(LOOKS):
                for table in tables:
                    await self._look(conn, service, table)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await conn.close()

    async def _look(self, conn: asyncpg.Connection, service: str, table: str) -> None:
        columns, found = self._samples.setdefault((service, table), ((), []))
        if len(found) < ROWS_SAMPLED:
            rows = await conn.fetch(f'SELECT * FROM "{table}" LIMIT {ROWS_SAMPLED - len(found)}')
            if rows:
                self._samples[service, table] = tuple(rows[0].keys()), found + [tuple(row) for row in rows]

    async def traffic(self, orders: int, *, exact: bool) -> Traffic:
        """What the system moved for `orders` orders since `begin`. It must be at rest. Unless `exact`, the last second's
        rows may be missing."""
        if exact:
            await asyncio.sleep(COUNTERS_AFTER_S)
        after = await self._rows_so_far()
        rows: dict[str, dict[str, Rows]] = {service: {} for service in SERVICES}
        for (service, table), counts in after.items():
            before = self._counts.get((service, table), (0, 0, 0))
            moved = [(now - then) / orders for now, then in zip(counts, before)]
            if any(moved):
                rows[service][table] = Rows(*moved, *self._samples.get((service, table), ((), [])))
        transactions = {service: rows[service].pop("partitions").updated for service in SERVICES}
        data = self._settings.data_folder / "kafka" / "node-1" / "data"
        topics = await asyncio.to_thread(lambda: {
            topic: _flow(data, topic, starts, orders) for topic, starts in self._ends.items()})
        return Traffic(topics, rows, transactions)

    async def _rows_so_far(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        found = {}
        for service in SERVICES:
            conn = await asyncpg.connect(self._settings.dsn(service))
            try:
                for table, *counts in await conn.fetch("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables"):
                    found[service, table] = tuple(counts)
            finally:
                await conn.close()
        return found


def _flow(data: Path, topic: str, starts: list[int], orders: int) -> Flow:
    """Counted in the broker's own files: no client sees how records were batched."""
    flow = Flow()
    for partition, start in enumerate(starts):
        for path in (data / f"{topic}-{partition}").glob("*.log"):
            with open(path, "rb") as file:
                while len(head := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
                    first, length, _, records = _HEADER.unpack(head)
                    file.seek(length + _BEFORE_LENGTH_COUNTS - _HEADER_BYTES, 1)
                    if first >= start:
                        flow.records += records / orders
                        flow.batches += 1 / orders
                        flow.bytes += (length + _BEFORE_LENGTH_COUNTS) / orders
    return flow


async def records_of(settings: Settings, topic: str) -> dict[bool, list[Record]]:
    """Some records from the middle of a topic: True those that place an order, False all others."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False)
    found: dict[bool, list[Record]] = {True: [], False: []}
    await consumer.start()
    try:
        tp = TopicPartition(topic, 0)
        end = (await consumer.end_offsets([tp]))[tp]
        at = max(0, end // 2 - RECORDS_SAMPLED)
        stop = min(end, at + 2 * RECORDS_SAMPLED)
        consumer.assign([tp])
        consumer.seek(tp, at)
        while at < stop:
            for record in (await consumer.getmany(tp, timeout_ms=500)).get(tp, ()):
                at = record.offset + 1
                places = topic == INTAKE.name and ("ce_type", b"PlaceOrder") in record.headers
                found[places].append((record.key, record.value, list(record.headers)))
    finally:
        await consumer.stop()
    return found
