"""One order's records, as they lie on the topics: read by key from its partition, decoded, never changed.

Everything about an order carries its id as key, so that one partition a topic holds its whole story. Dead letters are
read from every partition: a record may be one because it stood in the wrong partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from pydantic_core import from_json

from schemas.topics import INTAKE, ORDER, PAYMENT, PROVIDER_RESULT, REPORT, SHIPMENT, TOPICS, Topic
from services.cli.output import NotRunning
from services.cli.prepare import public_address
from services.runtime.local_kafka import brokers
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import partition_counts

LANES = ("world", "orders", "payments", "shipping")
_LANE_OF = {INTAKE.name: "world", REPORT.name: "world", PROVIDER_RESULT.name: "world",
            ORDER.name: "orders", PAYMENT.name: "payments", SHIPMENT.name: "shipping"}
_CONNECT_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Event:
    """One record of an order. `time` is trade time (None: the record does not say), `recorded` the broker's real time.

    `lane`: who speaks; a dead letter stands in the lane of the service that gave up on it, with `dead` = (reason, detail).
    `parked`: the services that keep the record until something else happens. `repeats`: the same id stood earlier.
    """

    topic: str
    partition: int
    offset: int
    recorded: datetime
    lane: str
    type: str
    id: str
    source: str = ""
    time: datetime | None = None
    sequence: int = 0
    causation: str = ""
    correlation: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    dead: tuple[str, str] | None = None
    parked: tuple[str, ...] = ()
    repeats: bool = False

    @property
    def place(self) -> str:
        """Where the record lies, as topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def event_of(record: Any) -> Event:
    """Decode a consumer's record. Never raises for what the record contains: dead letters may hold anything."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    dead = None
    if record.topic.endswith(".dlq"):
        lane = headers.get("__dlq.errors.service", "world")
        dead = headers.get("__dlq.errors.reason", "unknown"), headers.get("__dlq.errors.detail", "")
    else:
        lane = _LANE_OF.get(record.topic, "world")
    return Event(
        record.topic, record.partition, record.offset, datetime.fromtimestamp(record.timestamp / 1000, UTC),
        lane if lane in LANES else "world", headers.get("ce_type", "?"), headers.get("ce_id", ""),
        headers.get("ce_source", ""), _time(headers.get("ce_time")), _number(headers.get("ce_sequence")),
        headers.get("ce_causationid", ""), headers.get("ce_correlationid", ""), _public(record.value), dead)


def _time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _public(value: bytes | None) -> dict[str, Any]:
    """The content without the sealed persons: nobody who reads a timeline needs them."""
    try:
        data = from_json(value or b"")
    except ValueError:
        return {}
    if not isinstance(data, dict):
        return {}
    for role in ("buyer", "consignee"):
        if isinstance(data.get(role), dict):
            data[role] = {"token": data[role].get("token")}
    return data


class Reader:
    """Reads the records of some keys from some topics, and keeps reading. Use `reading`, which also closes it."""

    def __init__(self, consumer: AIOKafkaConsumer, keys: frozenset[bytes], places: list[TopicPartition]):
        self._consumer, self._keys, self._places = consumer, keys, places

    async def to_end(self) -> list[Event]:
        """Everything up to the ends as they are now."""
        ends = await self._consumer.end_offsets(self._places)
        found: list[Event] = []
        while behind := [p for p in self._places if await self._consumer.position(p) < ends[p]]:
            found += await self.more(100 * len(behind))
        return found

    async def more(self, timeout_ms: int = 200) -> list[Event]:
        """What has come since; waits up to `timeout_ms` for the first record."""
        batches = await self._consumer.getmany(timeout_ms=timeout_ms)
        return [event_of(r) for records in batches.values() for r in records if r.key in self._keys]


@asynccontextmanager
async def reading(settings: Settings, order_ids: Iterable[str], topics: Iterable[Topic] = TOPICS, *,
                  from_start: bool = True, dead_only: bool = False) -> AsyncIterator[Reader]:
    """A Reader from offset 0, or from the ends as they are now; `dead_only`: only of the topics' dead letters.

    Raises NotRunning, also while it is used.
    """
    async with kafka_errors(settings):
        if not await brokers(settings.bootstrap):
            raise not_running(settings)
        keys = frozenset(order_id.encode() for order_id in order_ids)
        places = _places(await partition_counts(settings.bootstrap), list(topics), frozenset() if dead_only else keys)
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False,
                                    auto_offset_reset="earliest", fetch_max_wait_ms=50, max_partition_fetch_bytes=4 << 20)
        await consumer.start()
        try:
            consumer.assign(places)
            if from_start:
                for place in places:
                    consumer.seek(place, 0)
            else:
                for place, end in (await consumer.end_offsets(places)).items():
                    consumer.seek(place, end)
            yield Reader(consumer, keys, places)
        finally:
            await consumer.stop()


def _places(counts: dict[str, int], topics: list[Topic], keys: frozenset[bytes]) -> list[TopicPartition]:
    """The partitions of these keys, and all of the dead letters. `counts`: partitions by topic, of those there are."""
    if missing := [name for topic in topics for name in (topic.name, topic.dlq) if name not in counts]:
        raise NotRunning(f"topics do not exist: {', '.join(missing)}", "Kafka", "Create them with `tradewind up --detach`.")
    return [TopicPartition(topic.name, p) for topic in topics
            for p in {(murmur2(key) & 0x7FFFFFFF) % counts[topic.name] for key in keys}] + [
        TopicPartition(topic.dlq, p) for topic in topics for p in range(counts[topic.dlq])]


def not_running(settings: Settings, why: object = "no Kafka answers") -> NotRunning:
    return NotRunning(f"Tradewind does not run here: {why}", settings.bootstrap, "Start it with `tradewind up --detach`.")


@asynccontextmanager
async def kafka_errors(settings: Settings) -> AsyncIterator[None]:
    """Whatever the broker's client raises becomes NotRunning, with the address."""
    try:
        yield
    except KafkaError as error:
        raise not_running(settings, f"Kafka fails ({type(error).__name__})") from error


@asynccontextmanager
async def database(settings: Settings, service: str) -> AsyncIterator[asyncpg.Connection]:
    """A read-only session of one service's database. Raises NotRunning, also for a database that was never migrated."""
    where = public_address(settings.dsn(service))
    try:
        connection = await asyncpg.connect(settings.dsn(service), timeout=_CONNECT_WITHIN_S, command_timeout=30,
                                           server_settings={"default_transaction_read_only": "on"})
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotRunning(f"the database of {service} does not answer: {error or type(error).__name__}", where,
                         "Start it with `tradewind up --detach`.") from error
    try:
        yield connection
    except asyncpg.UndefinedTableError as error:
        raise NotRunning(f"the database of {service} is empty: {error}", where, "Migrate it with `tradewind up`.") from error
    finally:
        await connection.close()


async def parked_places(settings: Settings, order_id: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(topic, event id) -> the services that keep that record of the order back. Raises NotRunning."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for service in SERVICES:
        async with database(settings, service) as connection:
            for topic, id_ in await connection.fetch("SELECT topic, id FROM parked WHERE order_id = $1", order_id):
                found[topic, id_] = (*found.get((topic, id_), ()), service)
    return found


def with_parked(events: Iterable[Event], parked: dict[tuple[str, str], tuple[str, ...]]) -> list[Event]:
    return [replace(e, parked=parked[e.topic, e.id]) if (e.topic, e.id) in parked else e for e in events]


async def wait_for(reader: Reader, timeout_s: float, take: Any) -> bool:
    """Read until `take(events)` says True; False after `timeout_s` real seconds."""
    end = time.monotonic() + timeout_s
    while not take(await reader.more(100)):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0)
    return True
