"""What an outsider is going to say, and which events it has answered. No I/O: the loop in `world.py` does that."""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from pydantic import ValidationError
from pydantic_core import to_json

from schemas.envelope import dataschema_of, headers_of_type, stamp
from schemas.topics import ORDER, PAYMENT, SHIPMENT
from services.runtime.clock import Clock
from services.runtime.reader import Fetched, Fields, Pick, Raw
from services.simulators.logistics import HANDED_OVER
from services.simulators.outsiders import Heard, Memory, Reaction
from services.simulators.reactions import NOTED, ROLES, TABLE, react, remember
from services.simulators.scenario import EXITS_PERMILLE, scenario_of

log = logging.getLogger(__name__)

PENDING_MAX = 50_000
ASK_AGAIN_S = 0.25


@dataclass(frozen=True)
class Options:
    """`instance` tells processes of one role apart. `fast`: no trade time passes between an event and its answer, and only
    scenarios without deadlines are drawn. `linger_s`: real seconds in which the broker gathers a larger fetch."""

    role: str
    bootstrap: str
    seed: int
    instance: int = 0
    exits_permille: int = EXITS_PERMILLE
    fast: bool = False
    linger_s: float = 0.0
    journals: Path | None = None
    ready_file: Path | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ROLES if self.role == "all" else (self.role,)


class Interest(NamedTuple):
    """A type that `roles` here listen to, in these scenarios (None: in all); `noted`: something of it is remembered."""

    validate: Any
    roles: tuple[str, ...]
    scenarios: frozenset[str] | None
    noted: bool


class Said(NamedTuple):
    """A reaction with what its envelope takes from the event it answers (header values as they came)."""

    reaction: Reaction
    role: str
    event: TopicPartition
    offset: int
    key: bytes
    time: str
    correlation: str
    causation: str
    merchant: str


def pick(roles: tuple[str, ...]) -> Pick:
    """What a consumer for these roles has to hand over."""
    wanted: dict[str, list[str]] = {}
    for topic, name in interests(roles):
        wanted.setdefault(topic, []).append(name.decode())
    return Pick(wanted, (ORDER, PAYMENT, SHIPMENT))


def interests(roles: tuple[str, ...]) -> dict[tuple[str, bytes], Interest]:
    """(topic, type) -> how to decode it and when; everything else is skipped undecoded."""
    found: dict[tuple[str, bytes], Interest] = {}
    for topic in (ORDER, PAYMENT, SHIPMENT):
        for model in topic.messages:
            name = model.__name__
            listening = tuple(role for role in roles if name in TABLE[role])
            wanted = [TABLE[role][name][1] for role in listening]
            noted = name in NOTED and NOTED[name][0] in roles
            if noted:
                wanted.append(NOTED[name][1])
            if wanted:
                scenarios = None if None in wanted else frozenset().union(*wanted)
                found[topic.name, name.encode()] = Interest(model.__pydantic_validator__.validate_json, listening, scenarios,
                                                            noted)
    return found


def encode(said: Said) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers. The headers are those of `schemas.envelope.headers_of`; the time that is copied from the event
    is not read, because there and back through datetime would cost more than the rest."""
    reaction = said.reaction
    message = reaction.message
    key = message.order_id.encode()
    return key, message.__pydantic_serializer__.to_json(message), [
        *_of_type(type(message), reaction.topic), ("ce_source", reaction.source.encode()), ("ce_id", reaction.id.encode()),
        ("ce_time", said.time.encode()), ("ce_subject", key), ("ce_correlationid", said.correlation.encode()),
        ("ce_causationid", said.causation.encode()), ("ce_merchant", said.merchant.encode())]


@lru_cache(maxsize=None)  # as many as there are message types
def _of_type(model: type, topic: str) -> tuple[tuple[str, bytes], ...]:
    return headers_of_type(model.__name__, dataschema_of(topic, model.__name__))


class Agenda:
    """Plans reactions and keeps account of which events are answered. No I/O; times are real seconds (epoch)."""

    def __init__(self, options: Options, clock: Clock, memory: Memory | None = None):
        self.options, self.clock = options, clock
        self.memory = memory or Memory(options.seed, fast=options.fast)
        self.counts: Counter[str] = Counter()
        self._interests = interests(options.roles)
        self._heap: list[tuple[float, int, Said]] = []
        self._number = itertools.count()
        self._open: dict[TopicPartition, dict[int, int]] = {}
        self._next: dict[TopicPartition, int] = {}

    def hear(self, partition: TopicPartition, records: Fetched, now: float) -> list[Said]:
        """Take records in order; returns what is to be said at once, and keeps the rest until it is due.

        What is returned must be acknowledged before `safe_offsets` is asked for again.
        """
        at_once: list[Said] = []
        topic, interests_, options = partition.topic, self._interests, self.options
        for record in records:
            interest = interests_.get((topic, record.type))
            if interest is None or record.key is None:
                continue
            scenario = scenario_of(record.key.decode(), options.seed, options.exits_permille, options.fast)
            if interest.scenarios is None or scenario in interest.scenarios:
                try:
                    self._react(partition, record, interest, scenario, now, at_once)
                except (ValidationError, KeyError, ValueError) as why:
                    # A world that stood still at a broken event would hold up every other order.
                    self.counts["unreadable"] += 1
                    log.error("%s %s offset %s cannot be read and is left unanswered: %s", topic, partition.partition,
                              record.offset, why)
        self._next[partition] = records.end
        return at_once

    def _react(self, partition: TopicPartition, record: Raw, interest: Interest, scenario: str, now: float,
               at_once: list[Said]) -> None:
        fields = record.fields or _fields_of(record)
        event_id, event_time, merchant = fields.id, fields.time, fields.merchant
        heard = Heard(event_id, interest.validate(record.value), event_time, merchant)
        correlation = fields.correlation or event_id
        for role in interest.roles:
            for reaction in react(role, heard, scenario, self.memory):
                due, moment = self._when(reaction, event_time, now)
                said = Said(reaction, role, partition, record.offset, record.key, moment, correlation, event_id, merchant)
                if due <= now:
                    at_once.append(said)
                else:
                    offsets = self._open.setdefault(partition, {})
                    offsets[record.offset] = offsets.get(record.offset, 0) + 1
                    heapq.heappush(self._heap, (due, next(self._number), said))
        if interest.noted:
            remember(heard, scenario, self.memory)

    def _when(self, reaction: Reaction, event_time: str, now: float) -> tuple[float, str]:
        """Real due time, and the trade time to write on it, which depends on the event alone."""
        if reaction.delay_s == 0.0:
            return now + reaction.real_s, event_time
        trade = datetime.fromisoformat(event_time) + timedelta(seconds=reaction.delay_s)
        return max(self.clock.real_at(trade).timestamp(), now + reaction.real_s), stamp(trade).decode()

    def due(self, now: float) -> list[Said]:
        """What has become due, oldest first; holds back its offsets until it is `answered`."""
        out, kept = [], self.memory.kept
        while self._heap and self._heap[0][0] <= now:
            said = heapq.heappop(self._heap)[2]
            if kept and said.reaction.unless_stopped in kept and said.reaction.id.startswith(HANDED_OVER):
                heapq.heappush(self._heap, (now + ASK_AGAIN_S, next(self._number), said))  # the warehouse keeps it
            else:
                out.append(said)
        return out

    def next_due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def full(self) -> bool:
        return len(self._heap) >= PENDING_MAX

    def unstopped(self, said: list[Said]) -> list[Said]:
        """Without the scans of parcels that were stopped while their time came."""
        stopped = self.memory.stopped
        return [s for s in said if s.reaction.unless_stopped not in stopped] if stopped else said

    def answered(self, said: list[Said]) -> None:
        """These, which were `due`, were acknowledged, or will never be said."""
        for one in said:
            offsets = self._open.get(one.event)
            if offsets is not None and one.offset in offsets:
                offsets[one.offset] -= 1
                if not offsets[one.offset]:
                    del offsets[one.offset]

    def safe_offsets(self) -> dict[TopicPartition, int]:
        """By partition, the offset below which everything is answered."""
        return {tp: next(iter(self._open.get(tp, ())), offset) for tp, offset in self._next.items()}

    def forget(self, partitions: list[TopicPartition]) -> None:
        """They have another reader now, who starts at what was committed."""
        gone = set(partitions)
        self._heap = [entry for entry in self._heap if entry[2].event not in gone]
        heapq.heapify(self._heap)
        for partition in gone:
            self._open.pop(partition, None)
            self._next.pop(partition, None)


def _fields_of(record: Raw) -> Fields:
    """Of an event whose headers are not in the usual order. Raises KeyError, ValueError."""
    found = {name: (value or b"").decode() for name, value in record.headers}
    return Fields("", found["ce_id"], found["ce_time"], "", found.get("ce_correlationid", ""), "", found.get("ce_merchant", ""), 0)


def journal_line(said: Said, value: bytes) -> bytes:
    """One message sent: who, what, why, and the message itself with its amounts."""
    reaction = said.reaction
    return (b'{"id":%s,"order":"%s","type":"%s","topic":"%s","source":"%s","cause":%s,"time":"%s","message":%s}' % (
        to_json(reaction.id), reaction.message.order_id.encode(), type(reaction.message).__name__.encode(),
        reaction.topic.encode(), reaction.source.encode(), to_json(said.causation), said.time.encode(), value))
