"""CloudEvents 1.0, binary mode: the attributes are Kafka headers, the record's value is the model's JSON.

Ids are deterministic: source and the order's sequence at that source. The same decision, published twice after a crash,
carries the same id, so that a reader can tell a repetition from news. Outsiders choose their own ids.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple

from schemas.dead_letters import Reason

CONTENT_TYPE = ("content-type", b"application/json")
SPECVERSION = ("ce_specversion", b"1.0")
TEXT_MAX = 200
REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject")


class BadEnvelope(ValueError):
    """A record's headers are not a CloudEvent of ours; `reason` says so to whoever reads the dead letter."""

    reason = Reason.ENVELOPE

    def __init__(self, detail: str):
        super().__init__(f"{self.reason}: {detail}")
        self.detail = detail


class Envelope(NamedTuple):  # a frozen dataclass takes four times as long to make, and each record needs one
    """The attributes of one event. `sequence` is 0 for outsiders, who have none; `dataschema` is empty where it is not said."""

    id: str
    type: str
    source: str
    time: datetime
    subject: str
    sequence: int = 0
    correlation: str = ""
    causation: str = ""
    merchant: str = ""
    dataschema: bytes = b""


def event_id(source: str, order_id: str, sequence: int) -> str:
    return f"{source}:{order_id}:{sequence}"


def headers_of(envelope: Envelope, dataschema: bytes) -> list[tuple[str, bytes]]:
    """Kafka headers of an event; `dataschema` is the address of its JSON Schema.

    The type comes first, then what all events of it have in common: a reader sees by the first few bytes whether it wants
    the record. CloudEvents leaves the order to us."""
    headers = [
        *headers_of_type(envelope.type, dataschema),
        ("ce_source", envelope.source.encode()), ("ce_id", envelope.id.encode()), ("ce_time", stamp(envelope.time)),
        ("ce_subject", envelope.subject.encode()), ("ce_correlationid", envelope.correlation.encode()),
        ("ce_causationid", envelope.causation.encode()), ("ce_merchant", envelope.merchant.encode()),
    ]
    if envelope.sequence:
        headers.append(("ce_sequence", b"%d" % envelope.sequence))
    return headers


@lru_cache(maxsize=256)
def headers_of_type(type_name: str, dataschema: bytes) -> tuple[tuple[str, bytes], ...]:
    """The headers with which every event of a type begins."""
    return ("ce_type", type_name.encode()), SPECVERSION, CONTENT_TYPE, ("ce_dataschema", dataschema)


@lru_cache(maxsize=16)  # all events of a batch have one time
def stamp(moment: datetime) -> bytes:
    """RFC 3339 in UTC, with microseconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def type_of(headers: tuple[tuple[str, bytes], ...]) -> bytes | None:
    """`ce_type` alone: readers look at it first and decode nothing they do not handle."""
    for name, value in headers:
        if name == "ce_type":
            return value
    return None


def envelope_of(headers: tuple[tuple[str, bytes], ...]) -> Envelope:
    """Read the attributes; raises BadEnvelope naming the attribute that is missing or wrong."""
    found = dict(headers)
    if len(found) != len(headers) and (twice := _twice(headers)):
        raise BadEnvelope(f"header {twice} stands twice")  # whoever looks at one would not see the other
    try:
        sequence = int(found.get("ce_sequence", b"0"))
        envelope = Envelope(
            found["ce_id"].decode(), found["ce_type"].decode(), found["ce_source"].decode(),
            moment(found["ce_time"].decode()), found["ce_subject"].decode(), sequence,
            found.get("ce_correlationid", b"").decode(), found.get("ce_causationid", b"").decode(),
            found.get("ce_merchant", b"").decode(), found.get("ce_dataschema", b""),
        )
    except KeyError as missing:
        raise BadEnvelope(f"header {missing.args[0]} is missing") from missing
    except (ValueError, AttributeError, TypeError) as why:  # also of a header without a value
        raise BadEnvelope(f"a header cannot be read: {why}") from why
    if found.get("ce_specversion") != b"1.0":
        raise BadEnvelope("ce_specversion is not 1.0")
    if not (envelope.id.isprintable() and envelope.source.isprintable()):
        raise BadEnvelope("ce_id or ce_source has control, bidi or zero-width characters")
    if envelope.time.tzinfo is None or not envelope.id or not 0 <= sequence < 2**31:
        raise BadEnvelope("ce_time has no zone, ce_id is empty or ce_sequence is out of range")
    texts = envelope.id, envelope.source, envelope.subject, envelope.correlation, envelope.causation, envelope.merchant
    if len("".join(texts)) > TEXT_MAX and max(map(len, texts)) > TEXT_MAX:  # what follows from this event repeats some
        raise BadEnvelope(f"an attribute is longer than {TEXT_MAX} characters")
    return envelope


@lru_cache(maxsize=64)  # all events of a batch have one time
def moment(text: str) -> datetime:
    """Raises ValueError. Without a zone where the text has none."""
    return datetime.fromisoformat(text)


def _twice(headers: tuple[tuple[str, bytes], ...]) -> str:
    names = [name for name, _ in headers if name.startswith("ce_")]
    return next((name for name in names if names.count(name) > 1), "")


@lru_cache(maxsize=256)
def dataschema_of(topic: str, type_name: str) -> bytes:
    return f"schemas/{topic}/{type_name}.json".encode()
