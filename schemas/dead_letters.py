"""Dead letters: the fixed list of reasons, and the headers by which a reader says why it could not handle a record.

A dead letter is the record as it came (key, value, headers) on `<topic>.dlq`, with `__dlq.errors.*` headers added.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

ERRORS = "__dlq.errors."


class Reason(StrEnum):
    """Why a record can never be handled. No other reason can appear on a topic. `alert`: somebody writes what they must not."""

    meaning: str
    remedy: str
    alert: bool

    def __new__(cls, value: str, meaning: str, remedy: str, alert: bool = False) -> Reason:
        self = str.__new__(cls, value)
        self._value_, self.meaning, self.remedy, self.alert = value, meaning, remedy, alert
        return self

    # What the record itself is.
    UNKNOWN_TYPE = ("unknown_type", "ce_type is missing, or names a message that does not belong on this topic",
                    "Tell its producer; edit it with --type when you know what it is, else discard it.")
    UNKNOWN_VERSION = ("unknown_version", "ce_dataschema names another version of the message than this reader knows",
                       "Deploy a reader of that version and replay; or edit it into the current one.")
    ENVELOPE = ("envelope", "a CloudEvents attribute is missing, unreadable or out of range",
                "Tell its producer; edit it (its attributes are made anew) or discard it.")
    NULL_VALUE = ("null_value", "the record has no value", "Tell its producer; edit it with the body it should have had, or discard it.")
    OVERSIZE = ("oversize", "the value is larger than 900,000 bytes", "Tell its producer to send less at once; discard it.")
    UNDECODABLE = ("undecodable", "the value is not JSON", "Tell its producer; edit it with a body that can be read, or discard it.")
    INVALID = ("invalid", "the value does not fit the message's schema", "Edit the named field and replay, or discard it.")
    NO_MERCHANT = ("no_merchant", "an event of a service does not say which merchant it belongs to",
                   "A fault of that service: fix it, then edit with --merchant and replay.")
    # Who sent it, and where to.
    SOURCE = ("source", "its producer may not write this type here: it says it is somebody else, or has no sequence",
              "Find out who writes to the topic; discard it. The topic's access rules should have stopped it.", True)
    KEY = ("key", "key, ce_subject and order_id are not the same",
           "Tell its producer; edit it (the key is made from order_id) and replay, or discard it.", True)
    PARTITION = ("partition", "the key belongs to another partition: its producer partitions otherwise than Kafka does",
                 "Tell its producer; edit it without changes (the copy goes to the right partition) and replay.", True)
    ID_REUSED = ("id_reused", "the same ce_id came before with other content, and that was taken",
                 "Ask the producer which one counts; to take this one too, edit it (it gets an id of its own) and replay.", True)
    # What the order says to it.
    UNKNOWN_PARCEL = ("unknown_parcel", "it names a parcel that the order does not have", "Edit parcel_id and replay, or discard it.")
    UNKNOWN_LINE = ("unknown_line", "it names lines that the parcel does not have", "Edit the lines and replay, or discard it.")
    UNKNOWN_CODE = ("unknown_code", "no row of the carriers' codes says what the scan means, or it lacks what its code needs",
                    "Ask the carrier what it means; add a row to schemas/carrier_codes.toml and replay, or edit or discard it.")
    AMOUNT_MISMATCH = ("amount_mismatch", "the amount or currency is not what was asked for",
                       "Compare with the payment provider's own books before anything else; then edit and replay.")
    PARKED_TOO_LONG = ("parked_too_long", "what it waits for did not come in time",
                       "See `tradewind order why`; replay it once what it waits for is there, or discard it.")
    # What is wrong with us.
    OUTPUT_TOO_LARGE = ("output_too_large", "what would follow from it does not fit into a record",
                        "Split the order, or raise the broker's limit and ours; then replay.")
    HANDLER_ERROR = ("handler_error", "our code or our database failed on this record, and on this record alone",
                     "A bug: the service's log has the trace. Fix it, deploy, replay.")


# -- what the operator's tool writes back to a topic --------------------------------------------------------------------

REPLAY = "dlq_replay"      # header of a replayed record: the dead letter it is, as topic/partition/offset
REPLACES = "dlq_replaces"  # header of an edited one: the ce_id it stands for; its own names the old too
DISCARD = "DiscardDeadLetter"


class DiscardDeadLetter(BaseModel):
    """Written to the topic of a dead letter that others queue behind, under its key: `service` gives it up and goes on.

    `source` and `sequence` are the dead letter's, `letter` its place as topic/partition/offset."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    order_id: Annotated[str, Field(max_length=200)]
    service: str
    source: str
    sequence: Annotated[int, Field(ge=1, lt=2**31)]
    letter: str
    by: Annotated[str, Field(max_length=200)]
    reason: Annotated[str, Field(max_length=500)]


assert DiscardDeadLetter.__name__ == DISCARD


# -- what people did about dead letters ---------------------------------------------------------------------------------

LOG = "operations.dead-letter.v1"  # a topic: one Mark a record, nothing is ever taken back


class Copy(BaseModel):
    """A corrected record, ready to be sent. Header values and `value` are base64; the key is the order's id."""

    key: str
    value: str
    headers: list[tuple[str, str]]
    partition: int


class Mark(BaseModel):
    """`letter`: the dead letter as topic/partition/offset of its dead letter topic. `copy_at`: where the replayed record lies;
    it is written after the broker has it. `at` is real time."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    letter: str
    action: Literal["edited", "replayed", "discarded"]
    by: str
    at: AwareDatetime
    reason: str = ""
    copy_at: str = ""
    edited: Copy | None = None


# -- the same in other words ----------------------------------------------------------------------------------------------


class Origin(NamedTuple):
    """Where a dead letter lay, who refused it and why. `dialect` names whose headers said so; -1: they do not say."""

    dialect: str
    topic: str = ""
    partition: int = -1
    offset: int = -1
    service: str = ""
    reason: str = ""
    detail: str = ""


# dialect -> the headers that it has for each field of Origin, in the order topic, partition, offset, service, reason, detail.
# Spring writes numbers as big-endian integers, everybody else as text.
DIALECTS: dict[str, tuple[str, str, str, str, str, str]] = {
    "kafka": tuple(f"{ERRORS}{name}" for name in ("topic", "partition", "offset", "service", "reason", "detail")),
    "connect": tuple(f"__connect.errors.{name}" for name in (
        "topic", "partition", "offset", "connector.name", "exception.class.name", "exception.message")),
    "streams": tuple(name and f"__streams.errors.{name}" for name in ("topic", "partition", "offset", "", "exception", "message")),
    "spring": tuple(f"kafka_dlt-{name}" for name in (
        "original-topic", "original-partition", "original-offset", "original-consumer-group", "exception-fqcn", "exception-message")),
}


def origin_of(headers: Iterable[tuple[str, bytes | None]]) -> Origin:
    """Read the headers of a dead letter in whichever dialect; the last of two headers of one name counts."""
    found = {name: value or b"" for name, value in headers}
    for dialect, (topic, partition, offset, *texts) in DIALECTS.items():
        if topic in found:
            service, reason, detail = (found.get(name, b"").decode(errors="replace") for name in texts)
            numbers = (_number(found.get(name), dialect == "spring") for name in (partition, offset))
            return Origin(dialect, found[topic].decode(errors="replace"), *numbers, service, reason, detail)
    return Origin("unknown")


def _number(value: bytes | None, binary: bool) -> int:
    if binary:
        return int.from_bytes(value, "big", signed=True) if value and len(value) in (4, 8) else -1
    return int(value[:19]) if value and value.isdigit() else -1
