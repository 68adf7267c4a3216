"""Where the evidence comes from: all topics and their dead letters from offset 0, three databases, the journals.

Everything is read partition by partition, since one order is in one partition of every topic. An order's facts are then
in memory only while its partition is judged. Nothing is ever written, and no consumer group is joined.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from pydantic_core import from_json

from schemas.topics import TOPICS
from services.auditor.facts import STOCK_KINDS
from services.auditor.rules import Booking, Call, DeadLetter, Journals, Request, Row, Whole
from services.auditor.story import Raw
from services.runtime.settings import SERVICES, Settings

FETCH = 2_000
ROLES = ("warehouse", "carrier", "customs")
_LETTER = "__dlq.errors."


class CannotRead(Exception):
    """Evidence cannot be reached; says what, where, and what to do."""

    def __init__(self, what: str, where: str, remedy: str):
        super().__init__(f"{what} ({where}): {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


class Evidence:
    """A running system, or a stopped one whose Kafka and PostgreSQL are up. An async context manager.

    `ends` are those of the moment of opening, or of the end of `settle`: what is written later is not looked at.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.partitions = 0
        self.ends: dict[tuple[str, int], int] = {}
        self.notes: list[str] = []
        self._databases: dict[str, asyncpg.Connection] = {}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap, enable_auto_commit=False, auto_offset_reset="none", check_crcs=False,
            max_partition_fetch_bytes=4 << 20, fetch_max_bytes=32 << 20)

    async def __aenter__(self) -> Evidence:
        try:
            await self._consumer.start()
            for service in SERVICES:
                self._databases[service] = await asyncpg.connect(self.settings.dsn(service), timeout=10)
            await self._find_topics()
        except KafkaError as error:
            await self.__aexit__()
            raise CannotRead(f"Kafka does not answer: {error}", self.settings.bootstrap, "Start it with `tradewind up`.") from error
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            await self.__aexit__()
            raise CannotRead(f"a database does not answer: {error}", "TRADEWIND_<SERVICE>_DSN", "Look with `tradewind doctor`.") from error
        except CannotRead:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: Any) -> None:
        await asyncio.gather(self._consumer.stop(), *(db.close() for db in self._databases.values()), return_exceptions=True)

    async def _find_topics(self) -> None:
        there = await self._consumer.topics()
        missing = [t.name for t in TOPICS if t.name not in there]
        if missing:
            raise CannotRead(f"there is no topic {', '.join(missing)}", self.settings.bootstrap, "Start with `tradewind up`.")
        counts = {t.name: len(self._consumer.partitions_for_topic(t.name)) for t in TOPICS}
        if len(set(counts.values())) > 1:
            raise CannotRead(f"topics with different numbers of partitions: {counts}", self.settings.bootstrap,
                             "Orders can have no order of events there; start on another data folder.")
        self.partitions = next(iter(counts.values()))
        self.ends = await self._ends()
        starts = await self._consumer.beginning_offsets([TopicPartition(*place) for place in self.ends])
        self.notes += [f"{tp.topic}/{tp.partition} before offset {start}: its records are deleted" for tp, start in starts.items() if start]

    async def _ends(self) -> dict[tuple[str, int], int]:
        places = [TopicPartition(t.name, p) for t in TOPICS for p in range(self.partitions)]
        return {(tp.topic, tp.partition): end for tp, end in (await self._consumer.end_offsets(places)).items()}

    # -- topics ---------------------------------------------------------------------------------------------------

    async def records(self, partition: int) -> AsyncIterator[list[Raw]]:
        """Every record of this partition, each topic in its order, in batches."""
        ends = {TopicPartition(t.name, partition): self.ends[t.name, partition] for t in TOPICS}
        async for batch in self._read(ends):
            yield batch

    async def dead_letters(self) -> list[DeadLetter]:
        """Every refusal once, although a batch of them may have been sent twice."""
        there = await self._consumer.topics()
        names = [t.dlq for t in TOPICS if t.dlq in there]
        places = [TopicPartition(n, p) for n in names for p in sorted(self._consumer.partitions_for_topic(n) or ())]
        found: dict[tuple, DeadLetter] = {}
        if places:
            async for batch in self._read(await self._consumer.end_offsets(places)):
                for raw in batch:
                    letter = letter_of(raw)
                    found.setdefault(letter[:4], letter)
        return list(found.values())

    async def _read(self, ends: dict[TopicPartition, int]) -> AsyncIterator[list[Raw]]:
        wanted = {tp: end for tp, end in ends.items() if end}
        if not wanted:
            return
        consumer, left = self._consumer, set(wanted)
        consumer.assign(list(wanted))
        starts = await consumer.beginning_offsets(list(wanted))
        for tp, start in starts.items():
            consumer.seek(tp, start)
            if start >= wanted[tp]:
                left.discard(tp)
        while left:
            fetched = await consumer.getmany(*left, timeout_ms=500, max_records=FETCH)
            for tp, records in fetched.items():
                topic, partition, end = tp.topic, tp.partition, wanted[tp]
                yield [Raw(topic, partition, r.offset, r.key, r.value, r.headers) for r in records if r.offset < end]
            for tp in list(left):
                if await consumer.position(tp) >= wanted[tp]:
                    left.discard(tp)
                    consumer.pause(tp)

    # -- databases ------------------------------------------------------------------------------------------------

    async def rows(self, partition: int) -> dict[str, dict[str, tuple]]:
        """service -> order -> the columns of its row, still encoded (see `row_of`)."""
        found = {}
        for service, db in self._databases.items():
            rows = await db.fetch("SELECT order_id, status, closed, seq, track::text, state::text FROM orders WHERE partition = $1",
                                  partition)
            found[service] = {row[0]: tuple(row)[1:] for row in rows}
        return found

    async def ledger(self, partition: int) -> dict[str, list[Booking]]:
        rows = await self._databases["payments"].fetch(
            "SELECT l.order_id, l.entry, l.account, l.currency, l.amount, l.payment_id, l.parcel_id, l.kind FROM ledger l"
            " JOIN orders o USING (order_id) WHERE o.partition = $1 ORDER BY l.order_id, l.entry", partition)
        found: dict[str, list[Booking]] = defaultdict(list)
        for order_id, *columns in rows:
            found[order_id].append(Booking(*columns))
        return found

    async def whole(self) -> Whole:
        """What concerns no single order, as it is now. The ends are asked for last: no owner can have read beyond them."""
        whole = Whole()
        for service, db in self._databases.items():
            for partition, offsets in await db.fetch("SELECT partition, offsets::text FROM partitions"):
                stored = from_json(offsets)
                for topic in TOPICS:
                    if service in topic.read_by and partition < self.partitions:
                        whole.offsets[service, topic.name, partition] = stored.get(topic.name, 0)
            whole.outbox |= {(service, p): n for p, n in await db.fetch(
                "SELECT p.partition, count(o.batch) FROM partitions p LEFT JOIN outbox o USING (partition) GROUP BY 1")}
            whole.parked += [(service, *row) for row in await db.fetch(
                "SELECT order_id, source || ' #' || sequence || ' ' || id FROM parked LIMIT 1000")]
            whole.intents += [(service, *row) for row in await db.fetch("SELECT order_id, intent_id FROM intents LIMIT 1000")]
            whole.timers += [(service, *row) for row in await db.fetch("SELECT order_id, due FROM timers")]
        columns = ", ".join(STOCK_KINDS)
        for warehouse, sku, *counts in await self._databases["shipping"].fetch(f"SELECT warehouse, sku, {columns} FROM stock"):
            whole.stock[warehouse, sku] = dict(zip(STOCK_KINDS, counts, strict=True))
        payments = self._databases["payments"]
        whole.strangers = [("the ledger has entries of no order", row[0]) for row in await payments.fetch(
            "SELECT DISTINCT order_id FROM ledger l WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = l.order_id) LIMIT 1000")]
        # Type bits of pg_trigger: 8 DELETE, 16 UPDATE. 'D' is a trigger that somebody disabled.
        whole.ledger_guarded = await payments.fetchval(
            "SELECT coalesce(bit_or(tgtype), 0) & 24 = 24 FROM pg_trigger WHERE tgrelid = 'ledger'::regclass AND tgenabled <> 'D'")
        whole.ends = await self._ends()
        return whole

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is under way any more, at most so long: owners note once a second how far they have read."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            whole = await self.whole()
            self.ends = whole.ends
            behind = any(offset < self.ends.get(place[1:], 0) for place, offset in whole.offsets.items())
            if not (behind or whole.parked or whole.intents or any(whole.outbox.values())):
                return
            await asyncio.sleep(0.25)

    def journals(self) -> Journals:
        return read_journals(self.settings.data_folder / "journals")


def letter_of(raw: Raw) -> DeadLetter:
    found = {k[len(_LETTER):]: v.decode(errors="replace") for k, v in raw.headers if k.startswith(_LETTER)}
    return DeadLetter(found.get("topic", raw.topic), int(found.get("partition") or raw.partition),
                      int(found.get("offset") or raw.offset), found.get("service", "?"), found.get("reason", "?"),
                      found.get("detail", ""), (raw.key or b"").decode(errors="replace"))


def row_of(columns: tuple) -> Row:
    status, closed, seq, track, state = columns
    return Row(status, closed, seq, from_json(track).get("last", {}), from_json(state))


def partition_of(order_id: str, partitions: int) -> int:
    return (murmur2(order_id.encode()) & 0x7FFFFFFF) % partitions


# -- journals ---------------------------------------------------------------------------------------------------------


def read_journals(folder: Path) -> Journals:
    """Each journal is optional. The client's has one line a request: order_id, outcome (accepted, rejected, unknown) and,
    where it speaks HTTP, key, body, status, response (digests of the bodies)."""
    notes = [f"{name}.ndjson: there is no such journal" for name in ("client", "provider", *ROLES)
             if not (folder / f"{name}.ndjson").exists()]
    client = provider = handovers = None
    if (path := folder / "client.ndjson").exists():
        client = [Request(n, str(line.get("order_id") or line.get("order")), str(line["outcome"]), str(line.get("key", "")),
                          str(line.get("body", "")), int(line.get("status") or 0), str(line.get("response", "")))
                  for n, line, _ in _lines(path) if "outcome" in line]
    if (path := folder / "provider.ndjson").exists():
        provider = defaultdict(list)
        for n, line, _ in _lines(path):
            provider[line["order_id"]].append(Call(n, line["intent_id"], line["kind"], line["payment_id"], line["amount"],
                                                   line["currency"], line["outcome"]))
    messages: dict[str, dict[int, int]] = {}
    for role in ROLES:
        if (path := folder / f"{role}.ndjson").exists():
            written = messages[role] = {}
            handovers = handovers if handovers is not None or role != "carrier" else {}
            for _, line, message in _lines(path):
                written[hash((line["source"], line["id"]))] = hash(message)
                if line["type"] == "HandedOverReported":
                    parcel = handovers.setdefault(line["order"], {}).setdefault(line["message"]["parcel_id"], set())
                    parcel.add(line["id"])
    return Journals(client, provider, handovers, messages, tuple(notes))


def _lines(path: Path):
    """(number, line, bytes of its message). A half line at the end is of a writer that was killed; nobody was told."""
    with open(path, "rb") as file:
        for n, text in enumerate(file, 1):
            if text.endswith(b"\n"):
                yield n, from_json(text), text.partition(b'"message":')[2][:-2]
