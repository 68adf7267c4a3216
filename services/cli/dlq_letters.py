"""Dead letters as they lie on their topics, with what people did about them and what became of that. Never changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.dead_letters import ERRORS, LOG, Mark, Origin, Reason, origin_of
from schemas.topics import TOPICS
from services.cli.order_records import database, kafka_errors, not_running
from services.cli.output import Refused
from services.runtime.local_kafka import brokers
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import partition_counts

STATES = ("new", "replayed", "resolved", "failed again", "discarded")


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def of(cls, text: str) -> Place:
        """Raises ValueError."""
        topic, partition, offset = text.strip().rsplit("/", 2)
        return cls(topic, int(partition), int(offset))


@dataclass(slots=True)
class Letter:
    """One dead letter. `headers`: the record's own, without the reasons. `holds`: "sequence source" when others queue behind
    it. `state` is one of STATES; `came_back`: the dead letter that its replay became."""

    place: Place
    recorded: datetime
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    origin: Origin
    holds: str = ""
    cut: str = ""
    marks: list[Mark] = field(default_factory=list)
    state: str = "new"
    came_back: Place | None = None

    def header(self, name: str) -> str:
        return next((v.decode(errors="replace") for k, v in self.headers if k == name and v is not None), "")

    @property
    def origin_place(self) -> Place:
        return Place(*self.origin[1:4])

    @property
    def type(self) -> str:
        return self.header("ce_type") or "?"

    @property
    def version(self) -> str:
        """As its producer names it, else that of its topic."""
        named = self.header("ce_dataschema")
        topic = named.split("/")[-2] if named.count("/") >= 1 else self.origin.topic
        return "v" + topic.rpartition(".v")[2] if ".v" in topic else topic or "?"

    @property
    def order_id(self) -> str:
        return self.key.decode(errors="replace")

    @property
    def edited(self) -> Mark | None:
        """The newest correction that was not sent yet."""
        last = next((m for m in reversed(self.marks) if m.action != "discarded"), None)
        return last if last and last.action == "edited" else None

    @property
    def copies(self) -> list[Place]:
        return [Place.of(mark.copy_at) for mark in self.marks if mark.action == "replayed"]

    @property
    def remedy(self) -> str:
        return Reason(self.origin.reason).remedy if self.origin.reason in set(Reason) else "Ask whoever wrote it."

    def body(self) -> Any | None:
        """Its JSON; None when it is none."""
        try:
            return from_json(self.value)
        except ValueError:
            return None

    def shown(self) -> Any | None:
        """Its JSON without the sealed persons, whom nobody needs who looks why it failed."""
        body = self.body()
        if isinstance(body, dict):
            for role in ("buyer", "consignee"):
                if isinstance(body.get(role), dict):
                    body[role] = {name: text for name, text in body[role].items() if name != "sealed"} | {"sealed": "…"}
        return body

    def as_json(self) -> dict[str, Any]:
        return {
            "place": str(self.place), "state": self.state, "topic": self.origin.topic, "partition": self.origin.partition,
            "offset": self.origin.offset, "service": self.origin.service, "reason": self.origin.reason, "detail": self.origin.detail,
            "type": self.type, "version": self.version, "id": self.header("ce_id"), "order": self.order_id, "holds": self.holds,
            "recorded": self.recorded.isoformat(), "dialect": self.origin.dialect, "came_back": self.came_back and str(self.came_back),
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Which letters are meant: all that fit. `places`: their own, or that of the record they were."""

    topic: str | None = None
    reason: str | None = None
    type: str | None = None
    order: str | None = None
    state: str | None = None
    places: frozenset[Place] = frozenset()

    def fits(self, letter: Letter) -> bool:
        return ((self.topic is None or self.topic.removesuffix(".dlq") == letter.origin.topic or self.topic == letter.place.topic)
                and (self.reason is None or self.reason == letter.origin.reason) and (self.type is None or self.type == letter.type)
                and (self.order is None or self.order == letter.order_id) and (self.state is None or self.state == letter.state)
                and (not self.places or letter.place in self.places or letter.origin_place in self.places))


async def letters(settings: Settings) -> list[Letter]:
    """All dead letters, the oldest first, each once, although a batch of them may have been sent twice. Raises NotRunning."""
    async with kafka_errors(settings):
        if not await brokers(settings.bootstrap):
            raise not_running(settings)
        counts = await partition_counts(settings.bootstrap)
        found: dict[tuple, Letter] = {}
        marks: dict[Place, list[Mark]] = {}
        again: dict[Place, Place] = {}
        for record in await _records(settings, [TopicPartition(name, p) for name in (*(t.dlq for t in TOPICS), LOG)
                                                for p in range(counts.get(name, 0))]):
            if record.topic == LOG:
                if (mark := _mark_of(record.value)) is not None:
                    marks.setdefault(Place.of(mark.letter), []).append(mark)
                continue
            letter = letter_of(record)
            first = found.setdefault((letter.origin_place, letter.origin.service) if letter.origin.offset >= 0 else letter.place, letter)
            again[letter.place] = first.place
    for place, made in marks.items():
        first = again.get(place)
        for letter in found.values():
            if letter.place == first:
                letter.marks += made
    for letter in found.values():
        letter.marks.sort(key=lambda mark: mark.at)
    await _judge(settings, list(found.values()))
    return sorted(found.values(), key=lambda letter: (letter.recorded, letter.place))


def letter_of(record: Any) -> Letter:
    """A consumer's record; never raises for what it contains."""
    extra = dict(record.headers)
    return Letter(
        Place(record.topic, record.partition, record.offset), datetime.fromtimestamp(record.timestamp / 1000, UTC),
        record.key or b"", record.value or b"", [(k, v) for k, v in record.headers if not k.startswith(ERRORS)],
        origin_of(record.headers), (extra.get(f"{ERRORS}holds") or b"").decode(errors="replace"),
        (extra.get(f"{ERRORS}cut") or b"").decode(errors="replace"))


def _mark_of(value: bytes | None) -> Mark | None:
    try:
        return Mark.model_validate_json(value or b"")
    except ValidationError:
        return None  # a mark of a later version of this tool, which knows more than we can show


async def _records(settings: Settings, places: list[TopicPartition]) -> list[Any]:
    """Everything on these partitions up to their ends as they are now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
                                fetch_max_wait_ms=50, max_partition_fetch_bytes=4 << 20)
    await consumer.start()
    try:
        if not places:
            return []
        consumer.assign(places)
        ends, found = await consumer.end_offsets(places), []
        left = {place for place, end in ends.items() if end}
        while left:
            for batch in (await consumer.getmany(*left, timeout_ms=200)).values():
                found += batch
            left = {place for place in left if await consumer.position(place) < ends[place]}
        return found
    finally:
        await consumer.stop()


async def fetch(settings: Settings, place: Place) -> Any:
    """The one record at a place. Raises Refused when it is gone."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        where = TopicPartition(place.topic, place.partition)
        consumer.assign([where])
        consumer.seek(where, place.offset)
        for record in (await consumer.getmany(where, timeout_ms=3_000, max_records=1)).get(where, ()):
            if record.offset == place.offset:
                return record
    finally:
        await consumer.stop()
    raise Refused(f"the record at {place} is gone", place.topic, "Edit the dead letter with a whole body (--body).")


async def _judge(settings: Settings, found: list[Letter]) -> None:
    """What became of each: its last copy came back, or its service has read past it, and keeps it no longer."""
    back = {(letter.origin_place, letter.origin.service): letter.place for letter in found}
    known: dict[str, tuple[dict, set]] = {}
    for letter in found:
        last = next((mark for mark in reversed(letter.marks) if mark.action != "edited"), None)
        if last is None:
            continue
        if last.action == "discarded":
            letter.state = "discarded"
            continue
        copy, service = letter.copies[-1], letter.origin.service
        letter.came_back = back.get((copy, service))
        if letter.came_back is not None:
            letter.state = "failed again"
            continue
        if service in SERVICES and service not in known:
            known[service] = await _progress(settings, service)
        offsets, parked = known.get(service, ({}, set()))
        passed = offsets.get((copy.topic, copy.partition), 0) > copy.offset and copy not in parked
        letter.state = "resolved" if passed else "replayed"


async def _progress(settings: Settings, service: str) -> tuple[dict[tuple[str, int], int], set[Place]]:
    """(topic, partition) -> next offset to read, and where the records lie that it keeps back."""
    async with database(settings, service) as conn:
        rows = await conn.fetch("SELECT partition, offsets::text FROM partitions")
        offsets = {(topic, p): at for p, text in rows for topic, at in from_json(text).items()}
        return offsets, {Place(*row) for row in await conn.fetch("SELECT topic, partition, at_offset FROM parked")}


@dataclass
class Group:
    """Letters of one topic, reason, type and version."""

    topic: str
    reason: str
    type: str
    version: str
    states: Counter[str] = field(default_factory=Counter)
    holding: int = 0
    oldest: Letter | None = None
    newest: Letter | None = None

    def as_json(self) -> dict[str, Any]:
        return {"topic": self.topic, "reason": self.reason, "type": self.type, "version": self.version, "count": self.states.total(),
                "states": dict(self.states), "holding": self.holding, "oldest": self.oldest.recorded.isoformat(),
                "newest": self.newest.recorded.isoformat(), "example": str(self.newest.place)}


def grouped(found: Iterable[Letter]) -> list[Group]:
    """The largest first. `found`: the oldest first."""
    groups: dict[tuple, Group] = {}
    for letter in found:
        key = letter.origin.topic or letter.place.topic, letter.origin.reason, letter.type, letter.version
        group = groups.setdefault(key, Group(*key))
        group.states[letter.state] += 1
        group.holding += bool(letter.holds) and letter.state in ("new", "replayed", "failed again")
        group.oldest, group.newest = group.oldest or letter, letter
    return sorted(groups.values(), key=lambda group: -group.states.total())
