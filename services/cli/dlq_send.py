"""What is done with a dead letter: a corrected copy, a trial on today's handler, a replay, a discard.

Replay copies, waits for the acknowledgement, then marks: it never moves. A crash between the two leaves a letter that looks
new; replaying it once more is harmless, because readers take a second copy for a repetition.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from pydantic import ValidationError

from schemas.dead_letters import DISCARD, ERRORS, LOG, REPLACES, REPLAY, Copy, DiscardDeadLetter, Mark
from schemas.envelope import BadEnvelope, Envelope, dataschema_of, envelope_of, headers_of
from schemas.topics import MODELS, TOPICS
from services.cli.dlq_letters import Letter, fetch
from services.cli.order_records import database
from services.cli.order_state import SPECS, running_clock
from services.cli.output import Refused
from services.runtime.batch import Batch, shared_keys_of
from services.runtime.decision import SharedMissing
from services.runtime.owner import load_entries
from services.runtime.settings import SERVICES, Settings
from services.runtime.spec import OURS, read

ID_MAX = 48  # an id may become part of another one, which must fit into 60 characters
Sent = tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]], int]  # topic, key, value, headers, partition


# -- a corrected copy ---------------------------------------------------------------------------------------------------


def edit(letter: Letter, body: Any, type_: str | None, merchant: str | None, partitions: int, settings: Settings) -> Copy:
    """The letter with another body, checked against its schema and read by its service's own reader. Raises Refused.

    Envelope attributes are kept where they are right and made anew where not; the id is a new one that names the old."""
    topic = next((t for t in TOPICS if t.name == letter.origin.topic), None)
    if topic is None:
        raise Refused(f"{letter.origin.topic or 'its topic'} is none of ours", str(letter.place), "It can be discarded.")
    name = type_ or letter.type
    model = MODELS.get(name)
    if model not in topic.messages:
        raise Refused(f"type {name!r} does not belong on {topic.name}", str(letter.place),
                      f"Name one with --type: {', '.join(m.__name__ for m in topic.messages)}.")
    value = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    try:
        message = model.model_validate_json(value)
    except ValidationError as bad:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in bad.errors(include_url=False)[:5])
        raise Refused(f"the body does not fit {name}: {wrong}", str(letter.place),
                      f"See schemas/generated/{topic.name}/{name}.json; set fields with --set NAME=VALUE.") from bad
    envelope = _envelope(letter, name, message.order_id, value, merchant, OURS.get(topic.name, ""))
    key = message.order_id.encode()
    headers = [*headers_of(envelope, dataschema_of(topic.name, name)), (REPLACES, letter.header("ce_id").encode())]
    partition = (murmur2(key) & 0x7FFFFFFF) % partitions
    if letter.origin.service in SERVICES:
        taken = read(SPECS[letter.origin.service](settings), topic.name, 0, key, value, tuple(headers))
        if taken is None:
            raise Refused(f"{letter.origin.service} does not act on {name}", str(letter.place), "Discard it.")
        if taken.fault is not None:
            raise Refused(f"it would be a dead letter again: {taken.fault[0]}: {taken.fault[1]}", str(letter.place), taken.fault[0].remedy)
    return Copy(key=message.order_id, value=_text(value), headers=[(n, _text(v)) for n, v in headers], partition=partition)


def _envelope(letter: Letter, name: str, order_id: str, value: bytes, merchant: str | None, ours: str) -> Envelope:
    old = letter.header("ce_id")
    mark = hashlib.blake2b(value + str(letter.place).encode(), digest_size=3).hexdigest()
    named = "".join(c if c.isascii() and (c.isalnum() or c in "._:-") else "-" for c in old)[:ID_MAX] or "edited"
    try:
        had = envelope_of(tuple((k, v) for k, v in letter.headers if k != "ce_type") + (("ce_type", name.encode()),))
    except BadEnvelope:
        had = None
    sequence = letter.header("ce_sequence") if ours else "0"
    if ours and not (sequence.isdecimal() and 0 < int(sequence[:11]) < 2**31):
        raise Refused("an event of ours without its sequence has no place in its queue", str(letter.place), "Discard it.")
    source = ours or (had.source if had and had.source not in OURS.values() else "/dlq")
    return Envelope(f"{named}:{mark}", name, source, had.time if had else datetime.now(UTC), order_id, int(sequence),
                    had.correlation if had and had.correlation else old[:200] or named, had.causation if had else "",
                    merchant or (had.merchant if had else ""))


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


# -- what would be sent -------------------------------------------------------------------------------------------------


async def copy_of(settings: Settings, letter: Letter, original: bool = False) -> Sent:
    """The record as it would go out: the corrected copy if there is one, else as it came. Raises Refused."""
    if letter.origin.topic not in {t.name for t in TOPICS}:
        raise Refused("it did not come from a topic of ours", str(letter.place), "Replay it with the tool that wrote it.")
    mark = (REPLAY, str(letter.place).encode())
    if letter.edited and not original:
        copy = letter.edited.edited
        headers = [(name, base64.b64decode(value)) for name, value in copy.headers]
        return letter.origin.topic, copy.key.encode(), base64.b64decode(copy.value), [*headers, mark], copy.partition
    key, value, headers = letter.key, letter.value, letter.headers
    if letter.cut:  # the dead letter has only its beginning
        whole = await fetch(settings, letter.origin_place)
        key, value, headers = whole.key, whole.value, list(whole.headers)
    headers = [(name, text) for name, text in headers if name != REPLAY and not name.startswith(ERRORS)]
    return letter.origin.topic, key or None, value or None, [*headers, mark], letter.origin.partition


async def rehearse(settings: Settings, letter: Letter, partitions: int) -> str:
    """What today's handler would do with it, against the order as it is stored. Nothing is written. Raises Refused."""
    topic, key, value, headers, partition = await copy_of(settings, letter)
    service = letter.origin.service
    if service not in SERVICES:
        raise Refused(f"{service or 'its reader'} is none of our services", str(letter.place), "Replay it without a trial.")
    spec = SPECS[service](settings)
    record = read(spec, topic, 2**62, key, value, tuple(headers))
    if record is None:
        return f"{service} passes by: it does not act on {letter.type}"
    async with database(settings, service) as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        entries = await load_entries(spec, conn, partition, [record.order_id]) if record.order_id else {}
        shared = await spec.shared.look(conn, shared_keys_of(spec, entries, [record])) if spec.shared else None
    batch = Batch(spec, partition, partitions, entries, shared, running_clock(settings).now())
    try:
        batch.handle(record)
    except SharedMissing as rows:
        return f"not known: it asks for rows that a trial does not see ({rows})"
    except Exception as bug:  # of a handler: it would be a dead letter again, and why is what is asked here
        return f"a dead letter again: handler_error: {type(bug).__name__}: {bug}"
    return _told(batch, record)


def _told(batch: Batch, record: Any) -> str:
    if (record.topic, record.offset) in batch.dead:
        reason, detail = batch.dead[record.topic, record.offset]
        return f"a dead letter again: {reason}: {detail}"
    if any(parked.offset == record.offset for parked in batch.parked.values()):
        earlier = [p for p in batch.drafts[record.order_id].parked if p.dead and p.incoming.source == record.incoming.source]
        return f"waits behind the dead letter of sequence {earlier[0].incoming.sequence}" if earlier else "waits for something else"
    made = [out.type for out in batch.out if out.headers is None]
    if batch.counts["applied"] or batch.counts["unparked"]:
        freed = batch.counts["unparked"] - 1
        return f"applied: {', '.join(made) or 'no event follows'}" + (f"; {freed} that queue behind it follow" if freed > 0 else "")
    stale = next((name for name in batch.counts if name.startswith("stale")), "")
    return stale or ("a repetition: it was applied before" if batch.counts["duplicate"] else "settled: nothing follows from it")


# -- sending ------------------------------------------------------------------------------------------------------------


class Sender:
    """Sends copies and controls, and writes the marks. An async context manager; every send is acknowledged."""

    def __init__(self, settings: Settings, by: str):
        self._settings, self._by = settings, by
        self._producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True,
                                          max_request_size=1_048_576, request_timeout_ms=20_000)

    async def __aenter__(self) -> Sender:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def replay(self, letter: Letter, original: bool = False) -> str:
        """Where the copy lies."""
        topic, key, value, headers, partition = await copy_of(self._settings, letter, original)
        sent = await self._producer.send_and_wait(topic, value, key, partition, headers=headers)
        copy_at = f"{sent.topic}/{sent.partition}/{sent.offset}"
        await self.mark(letter, "replayed", copy_at=copy_at)
        return copy_at

    async def discard(self, letter: Letter, reason: str) -> None:
        """Whoever queues behind it is told first: a mark without that would leave them waiting for nobody."""
        if letter.holds:
            sequence, _, source = letter.holds.partition(" ")
            message = DiscardDeadLetter(order_id=letter.order_id, service=letter.origin.service, source=source,
                                        sequence=int(sequence), letter=str(letter.place), by=self._by, reason=reason)
            envelope = Envelope(f"discard:{letter.place}", DISCARD, "/dlq", datetime.now(UTC), letter.order_id)
            await self._producer.send_and_wait(letter.origin.topic, message.model_dump_json().encode(), letter.key,
                                               letter.origin.partition, headers=headers_of(envelope, b"schemas/dead_letters.py"))
        await self.mark(letter, "discarded", reason=reason)

    async def mark(self, letter: Letter, action: str, **more: Any) -> None:
        mark = Mark(letter=str(letter.place), action=action, by=self._by, at=datetime.now(UTC), **more)
        await self._producer.send_and_wait(LOG, mark.model_dump_json().encode(), letter.key or None, letter.place.partition)


def in_turn(letters: Iterable[Letter]) -> list[Letter]:
    """Of one queue the earliest first, or each would wait for the next."""
    return sorted(letters, key=lambda l: (int(l.holds.split(" ")[0]) if l.holds else 0, l.recorded, l.place))
