"""Where the evidence comes from: all topics and their dead letters from offset 0, three databases, the journals.

Everything is read partition by partition, since one order is in one partition of every topic. An order's facts are then
in memory only while its partition is judged. Nothing is ever written, and no consumer group is joined.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from pydantic_core import from_json

from schemas.dead_letters import REPLAY
from schemas.topics import TOPICS
from services.auditor.facts import QUOTA_KINDS, STOCK_KINDS
from services.auditor.rules import Booking, Call, DeadLetter, Journals, Request, Row, Whole
from services.auditor.kept import handed_over_as
from services.auditor.rules_terms import plans_in
from services.auditor.story import Raw, digest_of
from services.auditor.watch import JOURNAL, watched
from services.runtime.settings import SERVICES, Settings

FETCH = 2_000
GRACE_S = 120.0  # real time: a service that was killed fires its timers when it is back
QUOTA_COLUMNS = ("reserved", *QUOTA_KINDS.values())
ROLES = ("warehouse", "carrier", "customs")
_LETTER = "__dlq.errors."


# What has to be there beside an order's row: (service, what, the orders that lack it).
PARTS = (
    ("orders", "document", "SELECT order_id FROM orders o WHERE status NOT IN ('new', 'rejected') AND order_id !~ '^(merchant|brand):'"
     " AND NOT EXISTS (SELECT FROM documents d WHERE d.order_id = o.order_id)"),
    ("orders", "person in its vault", "SELECT order_id FROM orders o WHERE status NOT IN ('new', 'rejected') AND order_id !~ '^(merchant|brand):'"
     " AND NOT EXISTS (SELECT FROM vault v WHERE v.order_id = o.order_id)"),
    ("shipping", "document", "SELECT order_id FROM orders o WHERE (state->'parcels')::text <> '{}'"
     " AND NOT EXISTS (SELECT FROM documents d WHERE d.order_id = o.order_id)"),
)


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
        self.grace = timedelta(seconds=GRACE_S * settings.speed)
        self.ends: dict[tuple[str, int], int] = {}
        self.notes: list[str] = []
        self._letters: list[TopicPartition] = []
        self._databases: dict[str, asyncpg.Connection] = {}
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap, enable_auto_commit=False, auto_offset_reset="none", check_crcs=False,
            fetch_max_wait_ms=20, max_partition_fetch_bytes=4 << 20, fetch_max_bytes=32 << 20)

    async def __aenter__(self) -> Evidence:
        try:
            await self._consumer.start()
            for service in SERVICES:
                self._databases[service] = await asyncpg.connect(self.settings.dsn(service), timeout=10)
            await self._find_topics()
        except KafkaError as error:
            await self.__aexit__()
            raise CannotRead(f"Kafka does not answer: {error}", self.settings.bootstrap,
                             "Start it with `tradewind up`.") from error
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            await self.__aexit__()
            raise CannotRead(f"a database does not answer: {error}", "TRADEWIND_<SERVICE>_DSN",
                             "Look with `tradewind doctor`.") from error
        except CannotRead:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: Any) -> None:
        await asyncio.gather(self._consumer.stop(), *(db.close() for db in self._databases.values()), return_exceptions=True)

    async def _find_topics(self) -> None:
        counts = await self._count_partitions()
        ours = {t.name: counts[t.name] for t in TOPICS if t.name in counts}
        if missing := [t.name for t in TOPICS if t.name not in ours]:
            raise CannotRead(f"there is no topic {', '.join(missing)}", self.settings.bootstrap, "Start with `tradewind up`.")
        if len(set(ours.values())) > 1:
            raise CannotRead(f"topics with different numbers of partitions: {ours}", self.settings.bootstrap,
                             "Orders can have no order of events there; start on another data folder.")
        self.partitions = next(iter(ours.values()))
        self._letters = [TopicPartition(t.dlq, p) for t in TOPICS for p in range(counts.get(t.dlq, 0))]
        self.notes += [f"27 {t.dlq}: there is no such topic" for t in TOPICS if t.dlq not in counts]
        self.ends = await self.ends_now()
        starts = await self._consumer.beginning_offsets([TopicPartition(*place) for place in self.ends])
        self.notes += [f"{tp.topic}/{tp.partition} before offset {start}: its records are deleted"
                       for tp, start in starts.items() if start]

    async def _count_partitions(self) -> dict[str, int]:
        """Of every topic there is. A consumer knows only those that it has read."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        await admin.start()
        try:
            wanted = {name for t in TOPICS for name in (t.name, t.dlq)} & set(await admin.list_topics())
            return {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics(sorted(wanted))}
        finally:
            await admin.close()

    async def ends_now(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> offset of the next record."""
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
        found: dict[tuple, DeadLetter] = {}
        if self._letters:
            async for batch in self._read(await self._consumer.end_offsets(self._letters)):
                for raw in batch:
                    letter = letter_of(raw)
                    found.setdefault(letter[:4], letter)
        return list(found.values())

    async def dead_letters_told(self) -> int:
        """Records on the topics of dead letters, repetitions too."""
        return sum((await self._consumer.end_offsets(self._letters)).values())

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
            rows = await db.fetch(
                "SELECT order_id, status, closed, seq, track::text, state::text FROM orders WHERE partition = $1", partition)
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

    def _plans(self) -> dict[str, dict[str, Any]] | None:
        file = self.settings.terms_file
        try:
            return plans_in(file)
        except (OSError, ValueError, KeyError) as error:
            raise CannotRead(f"the fee plans cannot be read: {error}", str(file), "Check TRADEWIND_TERMS_FILE.") from error

    async def whole(self) -> Whole:
        """What concerns no single order, as it is now. The ends are asked for last: no owner can have read beyond them."""
        whole = Whole(plans=self._plans())
        for service, db in self._databases.items():
            for partition, offsets in await db.fetch("SELECT partition, offsets::text FROM partitions"):
                stored = from_json(offsets)
                for topic in TOPICS:
                    if service in topic.read_by and partition < self.partitions:
                        whole.offsets[service, topic.name, partition] = stored.get(topic.name, 0)
            whole.outbox |= {(service, p): n for p, n in await db.fetch(
                "SELECT p.partition, count(o.batch) FROM partitions p LEFT JOIN outbox o USING (partition) GROUP BY 1")}
            for order_id, what, dead, behind, *where in await db.fetch(
                    "SELECT order_id, source || ' #' || sequence || ' ' || id, dead <> '', EXISTS (SELECT FROM parked d"
                    " WHERE d.order_id = p.order_id AND d.dead <> ''), topic, partition, at_offset FROM parked p LIMIT 100000"):
                place = service, *where
                whole.waiting.add(place)
                if dead:
                    whole.held.append((order_id, place))
                elif not behind and place[1:] not in self._planted:
                    whole.parked.append((service, order_id, what))
            whole.intents += [(service, *row) for row in await db.fetch("SELECT order_id, intent_id FROM intents LIMIT 1000")]
            whole.timers += [(service, *row) for row in await db.fetch("SELECT order_id, due FROM timers")]
            whole.needless += [(service, row[0]) for row in await db.fetch(
                "SELECT order_id FROM timers JOIN orders USING (order_id) WHERE closed LIMIT 1000")]
        columns = ", ".join(STOCK_KINDS)
        for warehouse, sku, *counts in await self._databases["shipping"].fetch(f"SELECT warehouse, sku, {columns} FROM stock"):
            whole.stock[warehouse, sku] = dict(zip(STOCK_KINDS, counts, strict=True))
        for key, *counts in await self._databases["orders"].fetch(f"SELECT key, {', '.join(QUOTA_COLUMNS)} FROM quota"):
            whole.quota[key] = dict(zip(QUOTA_COLUMNS, counts, strict=True))
        payments = self._databases["payments"]
        for service, what, query in PARTS:
            whole.strangers += [(f"{service} has no {what} of it", row[0]) for row in await self._databases[service].fetch(
                f"{query} LIMIT 1000")]
        whole.strangers += [("the ledger has entries of no order", row[0]) for row in await payments.fetch(
            "SELECT DISTINCT order_id FROM ledger l"
            " WHERE NOT EXISTS (SELECT FROM orders o WHERE o.order_id = l.order_id) LIMIT 1000")]
        # Type bits of pg_trigger: 8 DELETE, 16 UPDATE. 'D' is a trigger that somebody disabled.
        whole.trial_balance = dict(await payments.fetch("SELECT currency, sum(amount)::bigint FROM ledger GROUP BY 1"))
        whole.accounts = {(a, c): n for a, c, n in await payments.fetch(
            "SELECT account, currency, sum(amount)::bigint FROM ledger GROUP BY 1, 2")}
        whole.ledger_guarded = await payments.fetchval(
            "SELECT coalesce(bit_or(tgtype), 0) & 24 = 24 FROM pg_trigger"
            " WHERE tgrelid = 'ledger'::regclass AND tgenabled <> 'D'")
        whole.ends = await self.ends_now()
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

    @cached_property
    def _planted(self) -> set[tuple[str, int, int]]:
        return set(read_planted(self.settings.data_folder / "journals") or ())


def content_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> str:
    """A digest of a record. A dead letter cannot tell an empty key or value from none."""
    return digest_of(repr((key or b"", value or b"", list(headers))).encode())


def letter_of(raw: Raw) -> DeadLetter:
    found = {k[len(_LETTER):]: (v or b"").decode(errors="replace") for k, v in raw.headers if k.startswith(_LETTER)}
    own = [(k, v) for k, v in raw.headers if not k.startswith(_LETTER)]
    return DeadLetter(found.get("topic", raw.topic), int(found.get("partition") or raw.partition),
                      int(found.get("offset") or raw.offset), found.get("service", "?"), found.get("reason", "?"),
                      found.get("detail", ""), (raw.key or b"").decode(errors="replace"),
                      "" if "cut" in found else content_of(raw.key, raw.value, own), any(k == REPLAY for k, _ in own))


def row_of(columns: tuple) -> Row:
    status, closed, seq, track, state = columns
    return Row(status, closed, seq, from_json(track).get("last", {}), from_json(state))


def partition_of(order_id: str, partitions: int) -> int:
    return (murmur2(order_id.encode()) & 0x7FFFFFFF) % partitions


# -- journals ---------------------------------------------------------------------------------------------------------


def read_journals(folder: Path) -> Journals:
    """Each is optional: `client*.ndjson` of whoever places orders, `provider.ndjson`, and one of each role of the world."""
    notes = [f"{name}.ndjson: there is no such journal" for name in ("provider", *ROLES)
             if not (folder / f"{name}.ndjson").exists()]
    clients = sorted(folder.glob("client*.ndjson"))
    if not clients:
        notes.append("client*.ndjson: there is no such journal")
    provider = None
    if (path := folder / "provider.ndjson").exists():
        provider = defaultdict(list)
        for n, line, _ in _lines(path):
            provider[line["order_id"]].append(Call(n, line["intent_id"], line["kind"], line["payment_id"], line["amount"],
                                                   line["currency"], line["outcome"]))
    seen = None
    if (path := folder / JOURNAL).exists():
        seen = watched(line for _, line, _ in _lines(path))
    else:
        notes += [f"22 and 30, {JOURNAL}: nobody watched the run"]
    messages: dict[str, dict[int, bytes]] = {}
    handovers: dict[str, dict[str, set[str]]] = {}
    for role in ROLES:
        if (path := folder / f"{role}.ndjson").exists():
            written = messages[role] = {}
            for _, line, message in _lines(path):
                written[hash((line["source"], line["id"]))] = digest_of(message)
                if number := handed_over_as(line["type"], line["message"]):
                    handovers.setdefault(line["order"], {}).setdefault(line["message"]["parcel_id"], set()).add(number)
    return Journals(_requests(clients) if clients else None, provider, handovers, messages, tuple(notes), seen, read_planted(folder))


def read_planted(folder: Path) -> dict[tuple[str, int, int], dict[str, str]] | None:
    """`planted*.ndjson` of whoever put bad records onto the topics; None: nobody says that they did."""
    paths = sorted(folder.glob("planted*.ndjson"))
    return {(line["topic"], line["partition"], line["offset"]): line["expected"] for path in paths for _, line, _ in _lines(path)
            } if paths else None


def _requests(paths: list[Path]) -> dict[str, list[Request]]:
    """order -> requests. A line `sent` comes before the record goes out, one `acknowledged` or `unknown` after it; a
    request without either is unknown too: its sender was killed. What was sent again counts once."""
    sent: dict[str, Request] = {}
    acknowledged: set[str] = set()
    for path in paths:
        for n, line, _ in _lines(path):
            if "sent" in line:
                request = Request(f"{path.name} line {n}", line["sent"], line["order"], line["type"], line["content"])
                before = sent.setdefault(request.id, request)
                if before.content != request.content:
                    sent[request.id] = before._replace(content="different each time")
            elif "acknowledged" in line:
                acknowledged.add(line["acknowledged"])
    found: dict[str, list[Request]] = defaultdict(list)
    for request in sent.values():
        found[request.order_id].append(request._replace(acknowledged=request.id in acknowledged))
    return found


def _lines(path: Path):
    """(number, line, bytes of its message). A half line at the end is of a writer that was killed; nobody was told."""
    with open(path, "rb") as file:
        for n, text in enumerate(file, 1):
            if text.endswith(b"\n"):
                yield n, from_json(text), text.partition(b'"message":')[2][:-2]
