"""A tiny service for the tests of the runtime: it lists what it was told, so that "once" and "in order" can be seen.

`python -m tests.tally PREFIX DSN BOOTSTRAP PARTITIONS [MEMBER]` runs one instance until it is killed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import TypeAdapter

from schemas.dead_letters import Reason
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.model import Command, Event
from schemas.topics import Topic
from services.runtime.clock import Clock
from services.runtime.decision import TIMER, Decision, Impossible, Incoming, NotYet, Stale
from services.runtime.service import PartitionService
from services.runtime.spec import OURS, Spec

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Open(Command):
    """Nothing of an order is known before it."""


class Add(Command):
    """`needs`: not before so many texts are there. Some texts misbehave, see `decide`."""

    text: str
    needs: int = 0


class Fact(Event):
    """The same from a service of ours, which has sequences."""

    text: str
    needs: int = 0


class Ignored(Command):
    pass


class Added(Event):
    text: str
    count: int


@dataclass(slots=True)
class Tally:
    order_id: str
    status: str = "new"
    closed: bool = False
    merchant_id: str = "m1"
    texts: list[str] = field(default_factory=list)
    wake: datetime | None = None

    def due(self) -> datetime | None:
        return self.wake


STATE = TypeAdapter(Tally)


def decide(tally: Tally, document: None, incoming: Incoming, shared, now: datetime) -> Decision | NotYet | Stale:
    if incoming.type == "Open":
        return Decision(replace(tally, status="open")) if tally.status == "new" else Stale("open before")
    if tally.status == "new":
        return NotYet("Open")
    if incoming.type == TIMER:
        if "timer bug" in tally.texts:
            raise ValueError("a bug in a timer")
        return _add(replace(tally, wake=None), "timer")
    text = incoming.data.text
    if incoming.data.needs > len(tally.texts):
        return NotYet("more texts")
    match text.split(":")[0]:
        case "impossible":
            raise Impossible(Reason.UNKNOWN_LINE, "the order can never take it")
        case "bug":
            raise ValueError("a bug in a handler")
        case "stale":
            return Stale("of no use any more")
        case "wake":
            tally = replace(tally, wake=now + timedelta(seconds=float(text.split(":")[1])))
        case "take":  # of a shared row
            shared.take(text.split(":")[1])
        case "huge":
            return _add(tally, "x" * 1_100_000)
    return _add(tally, text)


def _add(tally: Tally, text: str) -> Decision:
    tally = replace(tally, texts=[*tally.texts, text])
    return Decision(tally, [Added(order_id=tally.order_id, text=text, count=len(tally.texts))],
                    rows=[("applied", (tally.order_id, text))])


def spec(prefix: str, **more) -> Spec:
    """`prefix` names the service, its group and its topics; facts come from "facts", what it publishes from "tally"."""
    intake = Topic(f"{prefix}.intake.v1", ("outside",), (prefix,), (Open, Add, Ignored))
    facts = Topic(f"{prefix}.facts.v1", ("facts",), (prefix,), (Fact,))
    out = Topic(f"{prefix}.out.v1", (prefix,), (), (Added,))
    OURS[facts.name], OURS[out.name] = "facts", "tally"
    return Spec(prefix, (intake, facts), out, frozenset({"Open", "Add", "Fact"}), Tally, decide, STATE,
                **more)


@dataclass
class Raw:
    """A record before it is on a topic."""

    topic: str
    key: bytes
    value: bytes | None
    headers: tuple


def record(of: Spec, message, number: int = 0, id: str = "") -> Raw:
    """From outside under `id`, or, for a Fact, from "facts" with the sequence `number`."""
    ours = isinstance(message, Fact)
    topic, name = of.inputs[ours].name, type(message).__name__
    id = id or (f"facts:{message.order_id}:{number}" if ours else f"{name}:{message.order_id}:{getattr(message, 'text', '')}")
    envelope = Envelope(id, name, "facts" if ours else "/outside", NOW, message.order_id, number if ours else 0, merchant="m1")
    return Raw(topic, message.order_id.encode(), message.model_dump_json().encode(),
               tuple(headers_of(envelope, dataschema_of(topic, name))))


def opening(*texts: str) -> list:
    """An order A and facts about it."""
    return [Open(order_id="A"), *(Fact(order_id="A", text=text) for text in texts)]


# -- on a real Kafka and PostgreSQL -----------------------------------------------------------------------------------


async def until(check: Callable, within_s: float = 20.0, every_s: float = 0.03):
    """What `check` returns as soon as it is true; it may be a coroutine function. Fails after `within_s`."""
    end = asyncio.get_running_loop().time() + within_s
    while True:
        found = check()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert asyncio.get_running_loop().time() < end, f"not within {within_s} s: {check}"
        await asyncio.sleep(every_s)


async def make_database(dsn: str, name: str, partitions: int) -> None:
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute((files("services.runtime") / "schema.sql").read_text())
        await conn.execute("CREATE TABLE applied (order_id text NOT NULL, text text NOT NULL)")
        await conn.executemany("INSERT INTO installation VALUES ($1, $2)", [("service", name), ("partitions", str(partitions))])
        await conn.executemany("INSERT INTO partitions (partition) VALUES ($1)", [(p,) for p in range(partitions)])
    finally:
        await conn.close()


async def make_topics(bootstrap: str, of: Spec, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        names = [name for topic in (*of.inputs, of.output) for name in (topic.name, topic.dlq)]
        await admin.create_topics([NewTopic(name, partitions, 1) for name in names])
    finally:
        await admin.close()


async def send(bootstrap: str, raws: Iterable[Raw], partition: int | None = None) -> None:
    """Acknowledged in the order given."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, max_request_size=1_048_576)
    await producer.start()
    try:
        for sent in [await producer.send(r.topic, r.value, r.key, partition, headers=list(r.headers)) for r in raws]:
            await sent
    finally:
        await producer.stop()


async def content(bootstrap: str, topic: str, partitions: int = 1) -> list:
    """All records of a topic, partition by partition."""
    places = [TopicPartition(topic, p) for p in range(partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(places)
        ends, found = await consumer.end_offsets(places), []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                found += records
        return sorted(found, key=lambda r: (r.partition, r.offset))
    finally:
        await consumer.stop()


@asynccontextmanager
async def running(of: Spec, dsn: str, bootstrap: str, partitions: int, **more) -> AsyncIterator[PartitionService]:
    """An instance in this process, from started to stopped."""
    service = PartitionService(of, dsn, bootstrap, partitions, Clock.real(), **more)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
        gc.unfreeze()
        gc.enable()


@dataclass
class Place:
    """Topics and a database of their own for one test."""

    spec: Spec
    dsn: str
    bootstrap: str
    partitions: int

    _numbers = itertools.count(1)

    @classmethod
    async def make(cls, bootstrap: str, make_db, partitions: int) -> Place:
        of = spec(f"tally{next(cls._numbers)}-{os.getpid()}")
        dsn = await make_db(of.name.replace("-", "_"))
        await make_database(dsn, of.name, partitions)
        await make_topics(bootstrap, of, partitions)
        return cls(of, dsn, bootstrap, partitions)

    def running(self, **more):
        return running(self.spec, self.dsn, self.bootstrap, self.partitions, **more)

    async def send(self, *messages, partition: int | None = None) -> None:
        """Messages (facts are numbered in the order given, per order, from 1) or Raw records."""
        numbers: Counter[str] = Counter()
        raws = []
        for message in messages:
            if isinstance(message, Fact):
                numbers[message.order_id] += 1
            raws.append(message if isinstance(message, Raw) else record(self.spec, message, numbers[message.order_id]))
        await send(self.bootstrap, raws, partition)

    async def query(self, sql: str, *values):
        conn = await asyncpg.connect(self.dsn)
        try:
            return await conn.fetch(sql, *values)
        finally:
            await conn.close()

    async def applied(self, order_id: str = "A") -> list[str]:
        rows = await self.query("SELECT text FROM applied WHERE order_id = $1 ORDER BY ctid", order_id)
        return [row[0] for row in rows]

    async def applies(self, *texts: str, order_id: str = "A", within_s: float = 20.0) -> None:
        """Wait until exactly these were applied, in this order."""
        await until(lambda: self._is(order_id, list(texts)), within_s)

    async def _is(self, order_id: str, texts: list[str]) -> bool:
        return await self.applied(order_id) == texts

    async def outbox(self) -> list[int]:
        return [row[0] for row in await self.query("SELECT batch FROM outbox ORDER BY batch")]

    async def offsets(self, partition: int = 0) -> dict[str, int]:
        rows = await self.query("SELECT offsets::text FROM partitions WHERE partition = $1", partition)
        return json.loads(rows[0][0])

    async def is_at(self, offsets: dict[str, int], partition: int = 0) -> bool:
        return await self.offsets(partition) == offsets

    async def is_sent(self) -> bool:
        return await self.outbox() == []

    async def set_offsets(self, offsets: dict[str, int]) -> None:
        await self.query("UPDATE partitions SET offsets = $1::text::jsonb", json.dumps(offsets))

    async def published(self) -> list[tuple[str, str]]:
        """(id, text) of what is on the output topic, in its order."""
        found = await content(self.bootstrap, self.spec.output.name, self.partitions)
        return [(dict(r.headers)["ce_id"].decode(), json.loads(r.value)["text"][:20]) for r in found]

    async def publishes(self, *texts: str) -> None:
        """Wait until the output topic has exactly these, with sequences 1..n; repetitions, as after a crash, left out."""
        expected = [(f"tally:A:{n}", text) for n, text in enumerate(texts, 1)]
        await until(lambda: self._published(expected))

    async def _published(self, expected: list) -> bool:
        return list(dict.fromkeys(await self.published())) == expected

    async def dead(self, topic: str | None = None) -> list[str]:
        """The reasons on the dead letter topics."""
        found = []
        for name in [topic] if topic else [t.dlq for t in (*self.spec.inputs, self.spec.output)]:
            found += await content(self.bootstrap, name, self.partitions)
        return [dict(r.headers)["__dlq.errors.reason"].decode() for r in found]


async def _main(prefix: str, dsn: str, bootstrap: str, partitions: str, member: str | None = None) -> None:
    async with running(spec(prefix), dsn, bootstrap, int(partitions), member=member):
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(_main(*sys.argv[1:]))
