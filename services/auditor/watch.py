"""The auditor beside a run: what only who looks meanwhile can see, written down for the audit after it.

    async with Watch(settings, handled): ...        # journals/watch.ndjson

Twice a second, service by service, in one snapshot of its database:
- how far it says it has read (rule 22): each record before that, of a type that it handles, is applied, parked or a dead
  letter; one that is not was skipped, whatever the end looks like;
- the orders that these records are about, as a reader would see them (rule 30): what was read once is never taken back.

Whoever starts it knows which types each service handles; the auditor itself knows no service. Nothing is ever written but
the journal. A broker or a database that does not answer is asked again: it may just have been killed.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic_core import from_json, to_json

from schemas.envelope import BadEnvelope, envelope_of
from services.auditor.story import OWNERS
from services.runtime.settings import SERVICES, Settings

log = logging.getLogger(__name__)

EVERY_S, LOOK_S_MAX = 0.5, 10.0
RECORDS_MAX = 5_000  # of one service in one look; the rest is looked at the next time
JOURNAL = "watch.ndjson"
_LOST = (KafkaError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Watch:
    """`handled`: service -> types that change its orders. Looks until the block is left, and once more then."""

    def __init__(self, settings: Settings, handled: Mapping[str, frozenset[str]], every_s: float = EVERY_S):
        self.settings, self.handled, self.every_s = settings, handled, every_s
        self._looked: dict[tuple[str, str, int], int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self.looks = 0

    async def __aenter__(self) -> Watch:
        path = self.settings.data_folder / "journals" / JOURNAL
        path.parent.mkdir(parents=True, exist_ok=True)
        self._journal = open(path, "ab", buffering=0)  # closed when the block is left
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._look()
        await self._forget()
        self._journal.close()

    async def _run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self.every_s)

    async def _look(self) -> None:
        for service in SERVICES:
            try:
                async with asyncio.timeout(LOOK_S_MAX):
                    await self._look_at(service)
            except _LOST as lost:
                log.info("cannot look at %s now: %r", service, lost)
                await self._forget()
        self.looks += 1

    async def _forget(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.gather(consumer.stop(), return_exceptions=True)

    async def _look_at(self, service: str) -> None:
        conn = await asyncpg.connect(self.settings.dsn(service), timeout=5)
        try:
            async with conn.transaction(isolation="repeatable_read", readonly=True):
                places = await conn.fetch("SELECT partition, offsets::text FROM partitions")
                stored = {(topic, p): offset for p, offsets in places for topic, offset in from_json(offsets).items()}
                records, looked = await self._records(service, stored)
                keys = sorted({_key_of(record) for record in records})
                rows = await conn.fetch(
                    "SELECT order_id, status, seq, track::text FROM orders WHERE order_id = ANY($1)", keys)
                parked = {tuple(row) for row in await conn.fetch(
                    "SELECT order_id, source, sequence FROM parked WHERE order_id = ANY($1)", keys)}
        finally:
            conn.terminate()  # nothing was changed, and a server that was stopped would not say goodbye
        tracks = {row[0]: from_json(row[3]) for row in rows}
        lines: list[dict[str, Any]] = [{"looked": service, "records": len(records)}]
        lines += [{"read": row[0], "service": service, "status": row[1], "seq": row[2], "last": tracks[row[0]]["last"]}
                  for row in rows]
        lines += [{"passed": service, "topic": r.topic, "partition": r.partition, "offset": r.offset,
                   "stored": stored[r.topic, r.partition], "order": _key_of(r)}
                  for r in records if not is_settled(r, tracks, parked)]
        self._journal.write(b"".join(to_json(line) + b"\n" for line in lines))
        self._looked |= looked

    async def _records(self, service: str, stored: dict[tuple[str, int], int]
                       ) -> tuple[list[Any], dict[tuple[str, str, int], int]]:
        """Records of handled types that the service has read since the last look, by what it says; how far they go."""
        if self._consumer is None:
            self._consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap, enable_auto_commit=False,
                                              auto_offset_reset="none", check_crcs=False)
            await self._consumer.start()
        consumer, found, seen = self._consumer, [], 0
        wanted = {}
        for (topic, partition), offset in stored.items():
            if self._looked.get((service, topic, partition), 0) < offset:
                wanted[TopicPartition(topic, partition)] = offset
        looked: dict[tuple[str, str, int], int] = {}
        if not wanted:
            return found, looked
        consumer.assign(list(wanted))
        starts = await consumer.beginning_offsets(list(wanted))
        ends = await consumer.end_offsets(list(wanted))  # an offset beyond its topic is another rule's business
        begins = {tp: max(starts[tp], self._looked.get((service, tp.topic, tp.partition), 0)) for tp in wanted}
        left = {tp for tp in wanted if min(wanted[tp], ends[tp]) > begins[tp]}
        for tp in left:
            consumer.seek(tp, begins[tp])
        while left and seen < RECORDS_MAX:
            for tp, records in (await consumer.getmany(*left, timeout_ms=200, max_records=1_000)).items():
                end = min(wanted[tp], ends[tp])
                records = [record for record in records if record.offset < end]
                found += [record for record in records if _type_of(record) in self.handled[service]]
                seen += len(records)
                at = looked[service, tp.topic, tp.partition] = min(end, await consumer.position(tp))
                if at >= end:
                    left.discard(tp)
        return found, looked


def _type_of(record: Any) -> str:
    return next((value.decode(errors="replace") for name, value in record.headers if name == "ce_type"), "")


def _key_of(record: Any) -> str:
    return (record.key or b"").decode(errors="replace").replace("\0", "")


def is_settled(record: Any, tracks: dict[str, dict[str, Any]], parked: set[tuple]) -> bool:
    """Whether the order remembers it, or keeps it for later, by its column `track`: last sequence of each source; of
    outsiders 72 bits of a hash of source and id, and how far their topics were read when the oldest had to be forgotten."""
    try:
        envelope = envelope_of(record.headers)
    except BadEnvelope:
        return False
    track = tracks.get(_key_of(record), {})
    if record.topic in OWNERS:
        return envelope.sequence <= track.get("last", {}).get(envelope.source, 0) or (
            _key_of(record), envelope.source, envelope.sequence) in parked
    identity = b64encode(blake2b(f"{envelope.source}\0{envelope.id}".encode(), digest_size=9).digest()).decode()
    return identity in track.get("seen", ()) or record.offset <= track.get("read", {}).get(record.topic, -1)


# -- what the audit reads of it ---------------------------------------------------------------------------------------------


@dataclass
class Watched:
    """`looked`: how many records were looked at; `passed`: those that a service had read and not settled; `reads`: order ->
    what was read of it, in the order of reading."""

    looked: int = 0
    passed: list[dict[str, Any]] = field(default_factory=list)
    reads: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))


def watched(lines: Iterable[dict[str, Any]]) -> Watched:
    """From the journal's lines."""
    found = Watched()
    for line in lines:
        if "looked" in line:
            found.looked += line["records"]
        elif "passed" in line:
            found.passed.append(line)
        else:
            found.reads[line["read"]].append(line)
    return found
