"""One order in the owner's cache: its state, what was seen of whom, and what waits."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from services.runtime.decision import Incoming

SEEN_MAX = 256  # outsiders' ids that an order remembers


class Record(NamedTuple):
    """One record that concerns this service. `fault`: why it can never be handled (reason, detail)."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    order_id: str = ""
    incoming: Incoming | None = None
    fault: tuple[str, str] | None = None


@dataclass(slots=True)
class Track:
    """What was seen of whom, so that nothing counts twice. `waiting`: how many records of a source are held back."""

    last: dict[str, int] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)

    def encode(self) -> str:
        return to_json({"last": self.last, "seen": self.seen, "waiting": self.waiting}).decode()

    @classmethod
    def decode(cls, text: str) -> Track:
        return cls(**from_json(text))


@dataclass(slots=True)
class Entry:
    """One order in the owner's cache. `armed` is the due time of its row in `timers`, `stored` whether it has rows."""

    state: Any
    document: Any = None
    seq: int = 0
    track: Track = field(default_factory=Track)
    parked: list[Record] = field(default_factory=list)
    armed: datetime | None = None
    stored: bool = False

    def draft(self) -> Entry:
        track = Track(dict(self.track.last), list(self.track.seen), dict(self.track.waiting))
        return Entry(self.state, self.document, self.seq, track, list(self.parked), self.armed, self.stored)


def fingerprint(incoming: Incoming, value: bytes) -> str:
    """64 bits of source and id, then 30 bits of the content: enough never to take a stranger for a repetition."""
    identity = hashlib.blake2b(f"{incoming.source}\0{incoming.id}".encode(), digest_size=8).digest()
    content = hashlib.blake2b(value, digest_size=4).digest()
    return base64.b64encode(identity + content)[:16].decode()
