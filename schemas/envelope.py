"""CloudEvents 1.0, binary mode: the attributes are Kafka headers, the record's value is the model's JSON.

Ids are deterministic: source and the order's sequence at that source. The same decision, published twice after a crash,
carries the same id, so that a reader can tell a repetition from news. Outsiders choose their own ids.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from typing import NamedTuple

CONTENT_TYPE = ("content-type", b"application/json")
SPECVERSION = ("ce_specversion", b"1.0")
TEXT_MAX = 200
REQUIRED = ("ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject")


class BadEnvelope(ValueError):
    """A record's headers are not a CloudEvent of ours; `reason` is one of the dead-letter reasons."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Envelope(NamedTuple):  # a frozen dataclass takes four times as long to make, and each record needs one
    """The attributes of one event. `sequence` is 0 for outsiders, who have none."""

    id: str
    type: str
    source: str
    time: datetime
    subject: str
    sequence: int = 0
    correlation: str = ""
    causation: str = ""
    merchant: str = ""


def event_id(source: str, order_id: str, sequence: int) -> str:
    return f"{source}:{order_id}:{sequence}"


def headers_of(envelope: Envelope, dataschema: bytes) -> list[tuple[str, bytes]]:
    """Kafka headers of an event; `dataschema` is the address of its JSON Schema."""
    headers = [
        SPECVERSION, ("ce_id", envelope.id.encode()), ("ce_type", envelope.type.encode()),
        ("ce_source", envelope.source.encode()), ("ce_time", stamp(envelope.time)),
        ("ce_subject", envelope.subject.encode()), ("ce_dataschema", dataschema),
        ("ce_correlationid", envelope.correlation.encode()), ("ce_causationid", envelope.causation.encode()),
        ("ce_merchant", envelope.merchant.encode()), CONTENT_TYPE,
    ]
    if envelope.sequence:
        headers.append(("ce_sequence", b"%d" % envelope.sequence))
    return headers


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
    try:
        sequence = int(found.get("ce_sequence", b"0"))
        envelope = Envelope(
            found["ce_id"].decode(), found["ce_type"].decode(), found["ce_source"].decode(),
            datetime.fromisoformat(found["ce_time"].decode()), found["ce_subject"].decode(), sequence,
            found.get("ce_correlationid", b"").decode(), found.get("ce_causationid", b"").decode(),
            found.get("ce_merchant", b"").decode(),
        )
    except KeyError as missing:
        raise BadEnvelope("envelope", f"header {missing.args[0]} is missing") from missing
    except (UnicodeDecodeError, ValueError, AttributeError) as why:
        raise BadEnvelope("envelope", f"a header cannot be read: {why}") from why
    if found.get("ce_specversion") != b"1.0":
        raise BadEnvelope("envelope", "ce_specversion is not 1.0")
    if envelope.time.tzinfo is None or not envelope.id or not 0 <= sequence < 2**31:
        raise BadEnvelope("envelope", "ce_time has no zone, ce_id is empty or ce_sequence is out of range")
    if max(len(envelope.id), len(envelope.source), len(envelope.subject), len(envelope.correlation),
           len(envelope.causation), len(envelope.merchant)) > TEXT_MAX:  # what follows from this event repeats some of them
        raise BadEnvelope("envelope", f"an attribute is longer than {TEXT_MAX} characters")
    return envelope


@lru_cache(maxsize=256)
def dataschema_of(topic: str, type_name: str) -> bytes:
    return f"schemas/{topic}/{type_name}.json".encode()
