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
            async with self.conn.transaction():
                await storage.fence(self.conn, self.partition, 0, offsets)
                for table, shares in self.shares.items():
                    step = getattr(self, f"_{table}", None) or self._appended
                    await step(table, *(share.take() for share in shares))
                offsets = {topic: number for topic in self.task.reads}
                await storage.move_offsets(self.conn, self.partition, offsets)

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

    async def _appended(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        if rows := self._fresh(table, inserted):
            await storage.append(self.conn, table, self.task.rows[table].columns, rows)

    async def _orders(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        live, rows = self.live[table], self._fresh(table, inserted)
        if rows:
            await storage.append(self.conn, table, self.task.rows[table].columns, rows)
            live.extend(rows)
        if changed := [live[n] for n in range(min(updated, len(live)))]:
            live.rotate(-len(changed))
            at = [self.task.rows[table].columns.index(name) for name in storage.COLUMNS_ORDERS]
            await storage.update_orders(self.conn, [tuple(row[n] for n in at) for row in changed])
        window = max(updated, self.task.in_flight // self.task.partitions)
        while len(live) > window:
            live.popleft()

    async def _timers(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        live, columns = self.live[table], self.task.rows[table].columns
        if columns:
            fresh, due = self._fresh(table, inserted), columns.index("due")
            new = [(row[columns.index("order_id")], row[due]) for row in fresh]
            again = [live[n] for n in range(min(updated, len(live)))]
            if new or again:
                await storage.arm_timers(self.conn, self.partition, new + again)
            live.extend(new)
            if gone := [live.popleft()[0] for _ in range(min(deleted, len(live)))]:
                await storage.disarm_timers(self.conn, gone)

    async def _intents(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        live, columns = self.live[table], self.task.rows[table].columns
        if rows := self._fresh(table, inserted, "intent_id"):
            await storage.append(self.conn, table, columns, rows)
            live.extend(row[columns.index("intent_id")] for row in rows)
        if gone := [live.popleft() for _ in range(min(deleted, len(live)))]:
            await storage.delete_intents(self.conn, gone)

    async def _outbox(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        if table in self.samples:
            if deleted and self.batch:
                await storage.delete_outbox(self.conn, self.partition, self.batch)
            for _ in range(inserted):
                self.batch += 1
                payload = next(self.samples[table])[self.task.rows[table].columns.index("payload")]
                await storage.insert_outbox(self.conn, self.partition, self.batch, payload)

    async def _stock(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        if updated:
            live = self.live[table]
            await self.conn.execute("UPDATE stock SET received = received + 1 WHERE sku = ANY($1)",
                                    [live[n] for n in range(min(updated, len(live)))])

    async def _parked(self, table: str, inserted: int, updated: int, deleted: int) -> None:
        """Rare, and left out: what waits is logic."""


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
