"""One process of the limit program: writes, reads and stores what its task says, as fast as it can, with no logic.

    python -m services.bench.mover FOLDER NAME      (started by services.bench.limit, which says what is counted)
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from services.bench.traffic import Record, Rows
from services.runtime import storage

GO, READY, DONE = "go", ".ready", ".done"
STOCK_ROWS = 60


@dataclass(frozen=True)
class Writes:
    """`records` to a topic in batches of `batch`, over and over from `sample`."""

    topic: str
    records: int
    batch: int
    sample: list[Record]


@dataclass(frozen=True)
class Task:
    """One process's share of `orders` orders: `reads` is records by topic, `rows` and `transactions` are per order."""

    name: str
    bootstrap: str
    partitions: int
    orders: int
    in_flight: int
    writes: list[Writes]
    reads: dict[str, int]
    dsn: str | None
    rows: dict[str, Rows]
    transactions: float


def done_file(folder: Path, name: str) -> Path:
    """Holds the seconds that a mover took, as soon as it has ended."""
    return folder / f"{name}{DONE}"


async def main(folder: Path, name: str) -> None:
    task: Task = pickle.loads((folder / f"{name}.task").read_bytes())
    producer = AIOKafkaProducer(bootstrap_servers=task.bootstrap, acks="all", enable_idempotence=True, linger_ms=0,
                                max_batch_size=1_000_000)
    consumer = AIOKafkaConsumer(bootstrap_servers=task.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
                                max_partition_fetch_bytes=1_048_576, fetch_max_wait_ms=100)
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(topic, p) for topic in task.reads for p in range(task.partitions)])
    stores = [await Store.open(task, p) for p in range(task.partitions)] if task.dsn else []
    gc.collect()
    gc.freeze()
    gc.disable()
    (folder / f"{name}{READY}").touch()
    while not (folder / GO).exists():
        await asyncio.sleep(0.005)
    began = time.monotonic()
    await asyncio.gather(
        read(consumer, sum(task.reads.values())), *(store.run() for store in stores),
        *(write(producer, w, p, task.partitions) for w in task.writes for p in range(task.partitions)))
    draft = folder / f"{name}.draft"
    draft.write_text(str(time.monotonic() - began))
    draft.rename(done_file(folder, name))
    await asyncio.Event().wait()  # so that its accounts can be read; the parent ends it


async def write(producer: AIOKafkaProducer, writes: Writes, partition: int, partitions: int) -> None:
    """This partition's share, one batch at a time, as a relay does."""
    left = writes.records // partitions + (partition < writes.records % partitions)
    sample = itertools.cycle(writes.sample)
    while left:
        builder, count = producer.create_batch(), 0
        for key, value, headers in itertools.islice(sample, min(left, writes.batch)):
            if builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
                break
            count += 1
        left -= count
        await (await producer.send_batch(builder, writes.topic, partition=partition))


async def read(consumer: AIOKafkaConsumer, left: int) -> None:
    while left > 0:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            left -= len(records)


class Share:
    """Turns a rate a transaction into whole rows, without losing the fractions."""

    def __init__(self, rate: float):
        self.rate, self.owed = rate, 0.0

    def take(self) -> int:
        self.owed += self.rate
        whole = int(self.owed)
        self.owed -= whole
        return whole


class Store:
    """The rows of one partition of one service: `run` makes its share of the transactions, one after the other."""

    def __init__(self, task: Task, partition: int, conn: asyncpg.Connection):
        self.task, self.partition, self.conn = task, partition, conn
        total = max(1, round(task.transactions * task.orders))
        self.transactions = total // task.partitions + (partition < total % task.partitions)
        each = task.orders / total
        self.shares = {table: [Share(n * each) for n in (rows.inserted, rows.updated, rows.deleted)]
                       for table, rows in task.rows.items()}
        self.samples = {table: itertools.cycle(rows.sample) for table, rows in task.rows.items() if rows.sample}
        self.numbers = itertools.count()
        self.live: dict[str, deque] = {table: deque() for table in task.rows}
        self.batch = 0

    @classmethod
    async def open(cls, task: Task, partition: int) -> Store:
        """Connected, with the stock rows that are updated over and over."""
        conn = await storage.connect(task.dsn, f"limit {task.name} {partition}")
        store = cls(task, partition, conn)
        if "stock" in task.rows:
            skus = [f"LIMIT-{partition}-{n}" for n in range(STOCK_ROWS)]
            await conn.execute("INSERT INTO stock (sku, warehouse) SELECT sku, 'SEA1' FROM unnest($1::text[]) AS n(sku)", skus)
            store.live["stock"].extend(skus)
        return store

    async def run(self) -> None:
        offsets: dict[str, int] = {}
        for number in range(self.transactions):
            write, start = storage.Write(), offsets
            for table, shares in self.shares.items():
                step = getattr(self, f"_{table}", None) or (
                    self._appended if "order_id" in self.task.rows[table].columns else self._shared)
                step(write, table, *(share.take() for share in shares))
            offsets = {topic: number for topic in self.task.reads}
            await write.send(self.conn, self.partition, 0, start, offsets)

    def _fresh(self, table: str, count: int, key: str = "order_id") -> list[tuple]:
        """Sampled rows under new keys; nothing of a table no row of which was caught."""
        if table not in self.samples or not count:
            return []
        columns = self.task.rows[table].columns
        at, partition_at = columns.index(key), columns.index("partition") if "partition" in columns else None
        rows = []
        for row in itertools.islice(self.samples[table], count):
            row = list(row)
            row[at] = f"limit-{self.partition}-{next(self.numbers):010d}"
            if partition_at is not None:
                row[partition_at] = self.partition
            rows.append(tuple(row))
        return rows

    def _columns(self, table: str, rows: list[tuple], *names: str) -> list[tuple]:
        at = [self.task.rows[table].columns.index(name) for name in names]
        return [tuple(row[n] for n in at) for row in rows]

    def _appended(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        if rows := self._fresh(table, inserted):
            write.append(table, rows)

    def _shared(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        """Rows that belong to no order, such as a person's quota: their first column is their key."""
        live, columns = self.live[table], self.task.rows[table].columns
        touched = [live[n] for n in range(min(updated, len(live)))]
        if touched:
            live.rotate(-len(touched))
            write.change(f"UPDATE {table} SET {columns[1]} = {table}.{columns[1]} FROM fence WHERE {columns[0]} = ANY({{}}::text[])",
                         touched)
        if columns and (rows := self._fresh(table, inserted, columns[0])):
            write.append(table, rows)
            live.extend(row[0] for row in rows)

    def _orders(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        live, names = self.live[table], ("order_id", "status", "closed", "seq", "track", "state",
                                       "merchant")
        changed = [live[n] for n in range(min(updated, len(live)))]
        if rows := self._fresh(table, inserted):
            write.insert_orders(self._columns(table, rows, *names))
            live.extend(rows)
        if changed:  # of earlier transactions: no part of a write may touch what another one makes
            live.rotate(-len(changed))
            write.update_orders(self._columns(table, changed, *names))
        window = max(updated, self.task.in_flight // self.task.partitions)
        while len(live) > window:
            live.popleft()

    def _timers(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        live = self.live[table]
        if self.task.rows[table].columns:
            gone = [live.popleft()[0] for _ in range(min(deleted, len(live)))]
            again = [live[n] for n in range(min(updated, len(live)))]
            new = self._columns(table, self._fresh(table, inserted), "order_id", "due")
            if new or again:
                write.arm_timers(new + again)
            live.extend(new)
            if gone:
                write.disarm_timers(gone)

    def _intents(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        live = self.live[table]
        gone = [live.popleft() for _ in range(min(deleted, len(live)))]
        if rows := self._columns(table, self._fresh(table, inserted, "intent_id"), "intent_id", "order_id", "kind", "body"):
            write.insert_intents(rows)
            live.extend(row[0] for row in rows)
        if gone:
            write.delete_intents(gone)

    def _outbox(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        if table in self.samples:
            if deleted and self.batch:
                write.delete_outbox(self.batch)
            for _ in range(inserted):
                self.batch += 1
                payload = next(self.samples[table])[self.task.rows[table].columns.index("payload")]
                write.insert_outbox(self.batch, payload)

    def _stock(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        if updated:
            live = self.live[table]
            write.change("UPDATE stock SET received = received + 1 FROM fence WHERE sku = ANY({}::text[])",
                         [live[n] for n in range(min(updated, len(live)))])

    def _parked(self, write: storage.Write, table: str, inserted: int, updated: int, deleted: int) -> None:
        """Rare, and left out: what waits is logic."""


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
