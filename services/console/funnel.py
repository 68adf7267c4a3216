"""What the views count, without Faust: the stages of an order, the time between them, exits, money held.

Everything is a sum over the set of events, so that neither the order in which the three topics are read nor repeated
events change the outcome: a stage counts once an order; a dwell is noted when the second of its two ends becomes known;
money held is PaymentHeld + FundsRecovered - what left. Repetitions are told by offset (the worker read it before) and by
the order's last sequence of each source (its writer published it twice, after a crash).
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from schemas.dead_letters import DISCARD
from schemas.brands import BRAND
from schemas.merchants import MERCHANT
from schemas.topics import ORDER, PAYMENT, SHIPMENT

SOURCES = {ORDER.name: 0, PAYMENT.name: 1, SHIPMENT.name: 2}
# An order is at a stage as soon as its first parcel is.
STAGES = ("placed", "allocated", "held", "requested", "packed", "handed_over", "customs_released", "delivered", "settled",
          "completed")  # fmt: skip
_STAGE_OF = {
    b"OrderPlaced": 0, b"ParcelsAllocated": 1, b"PaymentHeld": 2, b"FulfilmentRequested": 3, b"ParcelPacked": 4,
    b"ParcelHandedOver": 5, b"CustomsReleased": 6, b"ParcelDelivered": 7, b"PaymentSettled": 8, b"OrderCompleted": 9,
}  # fmt: skip
# The dwell of a stage is the time to it from this one. From hand-over and not from customs to the door: within a country
# there is no customs, and the door is what the 72 hours are counted to.
DWELL_FROM = (None, 0, 1, 2, 3, 4, 5, 5, 7, 8)
OUTCOMES = ("open", "completed", "cancelled", "rejected")
_OUTCOME_OF = {b"OrderCompleted": 1, b"OrderCancelled": 2, b"OrderRejected": 3}
_HELD = {
    b"PaymentHeld": 1, b"FundsRecovered": 1, b"PaymentSettled": -1, b"PaymentRefunded": -1,
    b"PaymentPartiallyRefunded": -1, b"PaymentChargedBack": -1,
    b"ChargebackOpened": -1, b"SecondChargeback": -1, b"ChargebackReversed": 1,
}  # fmt: skip
_HELD_IN = dict.fromkeys((b"ChargebackOpened", b"SecondChargeback", b"ChargebackReversed"), "escrow")  # not all of it was held
_BUCKETS_PER_DOUBLING = 4  # a percentile is at most 9 % off
_BUCKET_MAX = 160  # 35 years
_ROW = struct.Struct("<3IB10q")


@dataclass(slots=True)
class Row:
    """One order: the last sequence of each source, how it ended, when it first reached each stage (ms; 0: never)."""

    seen: list[int] = field(default_factory=lambda: [0, 0, 0])
    outcome: int = 0
    times: list[int] = field(default_factory=lambda: [0] * len(STAGES))

    def pack(self) -> bytes:
        return _ROW.pack(*self.seen, self.outcome, *self.times)

    @classmethod
    def unpack(cls, data: bytes) -> Row:
        values = _ROW.unpack(data)
        return cls(list(values[:3]), values[3], list(values[4:]))

    @property
    def place(self) -> str | None:
        """Where the order is now: how it ended, else its furthest stage; None before its first."""
        if self.outcome:
            return OUTCOMES[self.outcome]
        return next((STAGES[n] for n in reversed(range(len(STAGES))) if self.times[n]), None)


@dataclass(slots=True, frozen=True)
class Fact:
    """What the views need of one record; `time_ms` is trade time, ms since 1970."""

    source: int
    type: bytes
    sequence: int
    time_ms: int
    value: bytes


_SUBJECTS = MERCHANT.encode(), BRAND.encode()
_ASIDE = {b"StockReceived", DISCARD.encode()}


def fact_of(topic: str, headers: Sequence[tuple[str, bytes]], value: bytes | None) -> Fact | None:
    """The headers of one record; None when it is not about an order. Raises ValueError when it cannot be read."""
    found = dict(headers)
    if found.get("ce_type") in _ASIDE or found.get("ce_subject", b"").startswith(_SUBJECTS):
        return None
    try:
        time = datetime.fromisoformat(found["ce_time"].decode())
        sequence = int(found["ce_sequence"])
        return Fact(SOURCES[topic], found["ce_type"], sequence, int(time.timestamp() * 1000), value or b"")
    except KeyError as missing:
        raise ValueError(f"no {missing.args[0]}") from missing


@dataclass(slots=True)
class Totals:
    """The views' sums. `positions`: next offset of each topic and partition. How far from exact they are:
    `missed` records that Faust skipped, `resumed` starts from saved tables, `forgotten` open orders (too many),
    `unreadable` records. `repeated` and `late` (of orders that ended long ago) are counted, and do no harm."""

    reached: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    dwell: dict[str, Counter[int]] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    events: int = 0
    missed: int = 0
    resumed: int = 0
    forgotten: int = 0
    unreadable: int = 0
    repeated: int = 0
    late: int = 0

    @property
    def exact(self) -> bool:
        """Whether these are the sums over every event that was read since a rebuild."""
        return not (self.missed or self.resumed or self.forgotten or self.unreadable)

    def as_dict(self) -> dict[str, Any]:
        """A copy that JSON can hold; `from_dict` reads it back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        copies = {name: dict(value) for name, value in plain.items() if isinstance(value, dict)}
        return plain | copies | {"dwell": {stage: dict(buckets) for stage, buckets in self.dwell.items()}}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Totals:
        counters = {name: Counter(stored[name]) for name in ("reached", "now", "exits", "held")}
        dwell = {stage: Counter({int(b): n for b, n in buckets.items()}) for stage, buckets in stored["dwell"].items()}
        return cls(**(stored | counters | {"dwell": dwell}))

    def is_new(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the record is read for the first time; counts those skipped before it."""
        name = f"{topic}:{partition}"
        expected = self.positions.get(name, 0)
        if offset < expected:
            self.repeated += 1
            return False
        self.missed += offset - expected
        self.positions[name] = offset + 1
        return True

    def apply(self, row: Row | None, fact: Fact) -> tuple[Row | None, str | None]:
        """Count one fact. Returns the order's row and, of what is worth a rate, its name ("placed", "cancelled: …").

        Without a row and not at a source's beginning, the order ended long ago and is forgotten: then only its money
        is counted, since its stages are already. Raises ValueError, before anything is changed, when the value is bad.
        """
        # A stage may already be marked (a second parcel), so that a repetition is one by its sequence.
        details = from_json(fact.value) if fact.type in _HELD or fact.type in _OUTCOME_OF else {}
        try:
            money = (details["currency"], _HELD[fact.type] * details[_HELD_IN.get(fact.type, "amount")]) if fact.type in _HELD else None
        except (KeyError, TypeError) as why:
            raise ValueError(f"{fact.type!r} without {why}") from why
        if row is None and fact.sequence == 1:
            row = Row()
        if row is not None:
            if fact.sequence <= row.seen[fact.source]:
                self.repeated += 1
                return row, None
            row.seen[fact.source] = fact.sequence
        else:
            self.late += 1
        self.events += 1
        if money:
            self.held[money[0]] += money[1]
        return row, self._move(row, fact, details) if row is not None else None

    def _move(self, row: Row, fact: Fact, details: dict[str, Any]) -> str | None:
        before, happened = row.place, None
        stage = _STAGE_OF.get(fact.type)
        if stage is not None and not row.times[stage]:
            row.times[stage] = fact.time_ms
            self.reached[STAGES[stage]] += 1
            happened = STAGES[stage]
            self._note_dwells(row, stage)
        outcome = _OUTCOME_OF.get(fact.type)
        if outcome:
            row.outcome = outcome
            if outcome > 1:
                happened = f"{OUTCOMES[outcome]}: {details.get('reason', '')}"
                self.exits[happened] += 1
        if (after := row.place) != before:
            if before:
                self.now[before] -= 1
            self.now[after] += 1
        return happened

    def _note_dwells(self, row: Row, stage: int) -> None:
        for to, start in enumerate(DWELL_FROM):
            if start is not None and stage in (to, start) and row.times[to] and row.times[start]:
                buckets = self.dwell.setdefault(STAGES[to], Counter())
                buckets[bucket_of(row.times[to] - row.times[start])] += 1


def bucket_of(ms: int) -> int:
    """The histogram bucket of a duration: 0 below a millisecond, then four for each doubling."""
    return min(_BUCKET_MAX, 1 + int(math.log2(ms) * _BUCKETS_PER_DOUBLING)) if ms >= 1 else 0


def percentile_s(buckets: Counter[int], share: float) -> float | None:
    """The duration, in seconds, below which `share` of the noted ones lie; None without any."""
    left = share * sum(buckets.values())
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0:
            return round(2 ** ((bucket - 0.5) / _BUCKETS_PER_DOUBLING) / 1000, 4) if bucket else 0.0
    return None
