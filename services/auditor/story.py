"""Records folded into one story an order: slim events, in the order of their sequence, and what outsiders said.

`Fold.take` sees every record once and applies the rules that concern single records: 17 (sequence), 18 (one id, one
content), 19 (one order, one partition) and 23 (valid, from whom it claims to be). What a story needs later is kept as
tuples; the decoded model is dropped at once, so that a hundred thousand orders fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from aiokafka.partitioner import murmur2
from pydantic import ValidationError

from schemas.brands import BRAND
from schemas.carrier_codes import RECEIPTS
from schemas.cold_chain import Band, Reading
from schemas.dead_letters import DISCARD, REPLACES
from schemas.envelope import BadEnvelope, envelope_of, event_id
from schemas.ledger import BOOKS
from schemas.merchants import MERCHANT
from schemas.shipping_report import LANE
from schemas.topics import INTAKE, ORDER, PAYMENT, PROVIDER_RESULT, SHIPMENT
from services.auditor.kept import handed_over_as, kinds, readings_of

OWNERS = {ORDER.name: "orders", PAYMENT.name: "payments", SHIPMENT.name: "shipping"}
STOCK = "stock:"
SUBJECTS = (STOCK, MERCHANT, BOOKS, LANE, BRAND)  # keys that are no orders


class Raw(NamedTuple):
    """One Kafka record, as read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Event:
    """One event of ours. `parcels`: (parcel, amount) pairs it is about; `data`: what kept.py keeps of it, or None."""

    __slots__ = ("topic", "partition", "offset", "sequence", "type", "cause", "time", "digest", "parcels", "data")

    def __init__(self, topic: str, partition: int, offset: int, sequence: int, type_: str, cause: str, time: datetime,
                 digest: int, parcels: tuple[tuple[str, int], ...], data: Any):
        self.topic, self.partition, self.offset, self.sequence, self.type = topic, partition, offset, sequence, type_
        self.cause, self.time, self.digest, self.parcels, self.data = cause, time, digest, parcels, data

    def tells_of(self, parcel_id: str) -> bool:
        return any(own == parcel_id for own, _ in self.parcels)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset} {self.type} #{self.sequence}"


class Said(NamedTuple):
    """One message of an outsider. `about`: its parcel, or a Placed. `number`: under which the carrier took the parcel over, or
    which excursion it tells of. `status`: what Chinese customs' receipt says of its list."""

    topic: str
    partition: int
    offset: int
    type: str
    source: str
    id: str
    cause: str
    content: str
    about: Any
    number: str = ""
    status: str = ""

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset} {self.type} {self.id!r} of {self.source}"


class Story:
    """All that the topics say of one order. `events`: owner -> events, without repetitions; `said`: the same of outsiders.
    `readings`: parcel, band and what its logger measured, as they came. `mended`: ids of what a person corrected and sent again, of which its sender's journal knows nothing."""

    __slots__ = ("order_id", "partition", "merchant", "events", "said", "mended", "readings")

    def __init__(self, order_id: str, partition: int):
        self.order_id, self.partition, self.merchant = order_id, partition, ""
        self.events: dict[str, list[Event]] = {"orders": [], "payments": [], "shipping": []}
        self.said: dict[tuple[str, str], Said] = {}
        self.mended: set[str] = set()
        self.readings: list[tuple[str, Band, list[Reading]]] = []

    def of(self, owner: str, *types: str) -> list[Event]:
        return [e for e in self.events[owner] if e.type in types]

    def all(self) -> list[Event]:
        return [e for events in self.events.values() for e in events]


class Fold:
    """Takes the records of one partition, each topic in its order.

    `report(rule, order_id, evidence)` is told what is wrong; `dead` holds the coordinates of refused records: what is
    wrong with those was seen by its reader, so that it is no news. `planted`: of bad records, which tell of no order.
    `checked`: rule -> records looked at.
    """

    def __init__(self, partition: int, partitions: int, report: Callable[[int, str, list[str]], None],
                 dead: set[tuple[str, int, int]], planted: set[tuple[str, int, int]] = frozenset()):
        self.partition, self.partitions, self.report, self.dead, self.planted = partition, partitions, report, dead, planted
        self.stories: dict[str, Story] = {}
        self.records = self.events = 0
        self.checked = dict.fromkeys((17, 18, 19, 23), 0)
        self.newest: datetime | None = None
        self._kinds = kinds()

    def take(self, raw: Raw) -> None:
        """One record; never raises for what it contains."""
        self.records += 1
        if self.planted and raw[:3] in self.planted:
            return
        self.checked[23] += 1
        read = self._read(raw)
        if read is None:
            return
        if isinstance(read, str):
            if raw[:3] not in self.dead:
                self.report(23, (raw.key or b"").decode(errors="replace"), [f"{_where(raw)}: {read}"])
            return
        envelope, kind, message = read
        story = self.stories.get(message.order_id)
        if story is None:
            story = self.stories[message.order_id] = Story(message.order_id, raw.partition)
            self._right_partition(raw, message.order_id)
        if self.newest is None or envelope.time > self.newest:
            self.newest = envelope.time
        parcels, data = kind[2](message)
        if raw.topic in OWNERS:
            self._merchant(story, envelope, raw)
            self._ours(story, raw, envelope, parcels, data)
        else:
            if _has(raw, REPLACES):
                story.mended.add(envelope.id)
            about = data if kind[0] == "PlaceOrder" else parcels[0][0] if parcels else ""
            number = message.excursion_id if kind[0] == "ExcursionReported" else handed_over_as(kind[0], message)
            status = message.code if kind[0] == "CarrierScanReported" and message.dialect == RECEIPTS else ""
            if kind[0] == "SensorReported":
                story.readings += readings_of(message)
            self._said(story, Said(*raw[:3], kind[0], envelope.source, envelope.id, envelope.causation,
                                   digest_of(raw.value), about, number, status))

    def _read(self, raw: Raw) -> tuple | str | None:
        """(envelope, kind, model), or what is wrong with the record; None: it tells of no order."""
        try:
            envelope = envelope_of(raw.headers)
        except BadEnvelope as bad:
            return str(bad)
        kind = self._kinds[raw.topic].get(envelope.type.encode())
        if kind is None and envelope.type == DISCARD:
            return None
        if kind is None:
            return f"type {envelope.type!r} does not belong on this topic"
        try:
            message = kind[1](raw.value or b"")
        except ValidationError as bad:
            first = bad.errors(include_url=False, include_input=False)[0]
            return f"{envelope.type} is not as its schema says: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        if raw.key != message.order_id.encode() or envelope.subject != message.order_id:
            return f"key {raw.key!r}, subject {envelope.subject!r} and order {message.order_id!r} are not the same"
        owner = OWNERS.get(raw.topic)
        if owner is None:
            return f"source {envelope.source!r} may not write here" if envelope.source in OWNERS.values() else (
                envelope, kind, message)
        if envelope.source != owner or envelope.id != event_id(owner, message.order_id, envelope.sequence) and not _has(raw, REPLACES):
            return f"id {envelope.id!r} of {envelope.source!r} with sequence {envelope.sequence} is not one of {owner}"
        return envelope, kind, message

    def _right_partition(self, raw: Raw, order_id: str) -> None:
        self.checked[19] += 1
        right = (murmur2(raw.key) & 0x7FFFFFFF) % self.partitions
        if right != raw.partition and raw[:3] not in self.dead:
            self.report(19, order_id, [f"{_where(raw)}: the key belongs to partition {right}"])

    def _merchant(self, story: Story, envelope: Any, raw: Raw) -> None:
        if envelope.merchant == story.merchant and envelope.merchant or story.order_id.startswith((STOCK, LANE, BRAND)):
            return
        if not envelope.merchant:
            self.report(23, story.order_id, [f"{_where(raw)} {envelope.type}: no merchant"])
        elif story.merchant:
            self.report(23, story.order_id, [f"{_where(raw)} {envelope.type}: merchant {envelope.merchant!r}, "
                                             f"but the order is of {story.merchant!r}"])
        else:
            story.merchant = envelope.merchant

    def _ours(self, story: Story, raw: Raw, envelope: Any, parcels: tuple, data: Any) -> None:
        events = story.events[envelope.source]
        digest = hash((envelope.type, envelope.causation, raw.value))
        event = Event(*raw[:3], envelope.sequence, envelope.type, envelope.causation, envelope.time, digest, parcels, data)
        self.checked[17] += 1
        self.checked[18] += 1
        last = events[-1].sequence if events else 0
        if event.sequence > last:
            if event.sequence != last + 1:
                self.report(17, story.order_id, [
                    str(event), f"follows {events[-1]}" if events else "is the first", f"{event.sequence - last - 1} missing"])
            events.append(event)
            self.events += 1
            return
        same = next((e for e in events if e.sequence == event.sequence), None)
        if same is None:
            self.report(17, story.order_id, [str(event), f"comes after {events[-1]} and was never there before"])
        elif same.digest != digest and _has(raw, REPLACES):
            events[events.index(same)] = event  # a person mended it, in its place
        elif same.digest != digest:
            self.report(18, story.order_id, [str(same), str(event), f"the same id {envelope.id!r}, another content"])

    def _said(self, story: Story, said: Said) -> None:
        self.checked[18] += 1
        # An answer of the provider may come by two ways; its id is the same on both.
        key = ("" if said.topic == PROVIDER_RESULT.name else said.source, said.id)
        before = story.said.setdefault(key, said)
        if (before.type, before.content) != (said.type, said.content) and said[:3] not in self.dead:
            self.report(18, story.order_id, [str(before), str(said), "the same id, another content"])


def _has(raw: Raw, header: str) -> bool:
    return any(name == header for name, _ in raw.headers)


def digest_of(value: bytes) -> str:
    """The fingerprint by which journals name a message's exact content."""
    return blake2b(value, digest_size=8).hexdigest()


def _where(raw: Raw) -> str:
    return f"{raw.topic}/{raw.partition}@{raw.offset}"


def places(story: Story) -> list[Said]:
    """The PlaceOrder commands of an order; an honest history has one."""
    return [said for said in story.said.values() if said.topic == INTAKE.name and said.type == "PlaceOrder"]
