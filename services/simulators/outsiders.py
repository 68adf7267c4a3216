"""What every outsider has: what it heard, what it says in return, what it remembers, how long it takes."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

HOUR = 3600.0
ID_MAX = 190

Message = Any  # a command or report of `schemas`


@dataclass(slots=True, frozen=True)
class Heard:
    """One event of our services: its CloudEvents id, the decoded model, its time and merchant as the envelope has them."""

    id: str
    data: Any
    time: str = ""
    merchant: str = ""


class Reaction(NamedTuple):
    """Say `message` on `topic`, `delay_s` trade seconds after the event (and at least `real_s` real ones from now).

    Not said at all when the parcel `unless_stopped` was stopped in the meantime.
    """

    delay_s: float
    topic: str
    message: Message
    id: str
    source: str
    unless_stopped: str = ""
    real_s: float = 0.0


@dataclass(slots=True)
class Memory:
    """What the reactions may look at: the newest `limit` facts of each kind. `fast`: nothing takes any time.

    `done`: orders cancelled or compensated once, with the id of the event that this answered; `stopped`: parcels that
    travel no further; `kept`: those that must stay in the warehouse for now; `first_line`: parcel -> (a line in it, whether
    it holds more than one unit).
    """

    seed: int
    fast: bool = False
    limit: int = 20_000
    done: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, None] = field(default_factory=dict)
    kept: dict[str, None] = field(default_factory=dict)
    first_line: dict[str, tuple[int, bool]] = field(default_factory=dict)

    def answered_another(self, heard: Heard) -> bool:
        """Whether the order was cancelled or compensated because of another event; to the same one the answer is the same."""
        return self.done.get(heard.data.order_id, heard.id) != heard.id

    def note(self, facts: dict, key: str, value: Any = None) -> None:
        facts[key] = value
        if len(facts) > self.limit:
            del facts[next(iter(facts))]


def hours(memory: Memory, key: str, low: float, high: float) -> float:
    """Trade seconds between `low` and `high` hours; the same for the same key and seed."""
    if memory.fast:
        return 0.0
    return HOUR * (low + (high - low) * (zlib.crc32(key.encode(), memory.seed & 0xFFFFFFFF) % 10_000) / 10_000)


_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def moment_of(heard: Heard, after_s: float = 0.0) -> datetime:
    """Trade time, whole seconds after the event: what an outsider writes into its message. Follows from the event alone."""
    began = datetime.fromisoformat(heard.time) if heard.time else _EPOCH
    return began.replace(microsecond=0) + timedelta(seconds=round(after_s))


def said_id(kind: str, key: str) -> str:
    """A partner's id inside `key` may be long; an envelope's id may not."""
    if len(key) > ID_MAX:
        key = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{kind}:{key}"


def after(low: float, high: float, memory: Memory, topic: str, source: str, said: str, message: Message, start: float = 0.0,
        unless_stopped: str = "", real_s: float = 0.0) -> Reaction:
    """A reaction `low` to `high` trade hours from `start` (trade seconds)."""
    return Reaction(start + hours(memory, said, low, high), topic, message, said, source, unless_stopped, real_s)
