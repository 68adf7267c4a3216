"""One order in the owner's cache: its state, what was seen of whom, and what waits."""

from __future__ import annotations

import hashlib
from binascii import b2a_base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from zlib import crc32

from pydantic_core import from_json, to_json

from schemas.dead_letters import REPLAY, Reason
from services.runtime import storage
from services.runtime.decision import Incoming


class Unreadable(storage.Unfit):
    """A row of our own database is not as we wrote it. Never the fault of the record in hand: the service stops."""


Mark = tuple[str, str]  # identity and content of an outsider's message
SEEN_MAX = 256  # outsiders' ids that an order remembers


class Record(NamedTuple):
    """One record that concerns this service. `fault`: why it can never be handled (reason, detail); of a service's event
    `incoming` says all the same whose it is, without data. `dead`: it is a dead letter, behind which its source queues."""

    topic: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    order_id: str = ""
    incoming: Incoming | None = None
    fault: tuple[Reason, str] | None = None
    dead: str = ""

    @property
    def replayed(self) -> bool:
        """Whether a person sent this dead letter again."""
        return any(name == REPLAY for name, _ in self.headers)


DEAD = "!"  # behind a fingerprint: this one is a dead letter, and may come again


@dataclass(slots=True)
class Track:
    """What was seen of whom, so that nothing counts twice. `seen`: identity -> content (see `fingerprint`), the oldest
    first. `waiting`: how many records of a source are held back.
    `read`: topic -> offset up to which outsiders' records were seen, once `seen` had to forget some of their ids."""

    last: dict[str, int] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)

    def encode(self) -> str:
        track = {"last": self.last, "seen": self.seen, "waiting": self.waiting}
        return to_json(track | {"read": self.read} if self.read else track).decode()

    @classmethod
    def decode(cls, text: str) -> Track:
        """Raises Unreadable."""
        try:
            found = from_json(text)
            last, seen, waiting, read = found["last"], found["seen"], found["waiting"], found.get("read", {})
            if not all(isinstance(part, dict) for part in (last, seen, waiting, read)):
                raise TypeError(f"last {last!r}, seen {seen!r}, waiting {waiting!r}, read {read!r}"[:200])
        except (ValueError, TypeError, KeyError) as why:
            raise Unreadable(f"column track of table orders: {why!r}; restore the row from a backup") from why
        return cls(last, seen, waiting, read)


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
        track = Track(self.track.last.copy(), self.track.seen.copy(), self.track.waiting.copy(), self.track.read.copy())
        return Entry(self.state, self.document, self.seq, track, self.parked.copy(), self.armed, self.stored)


def fingerprint(incoming: Incoming, value: bytes) -> Mark:
    """72 bits of source and id, and 32 bits of the content: enough never to take a stranger for a repetition."""
    identity = hashlib.blake2b(f"{incoming.source}\0{incoming.id}".encode(), digest_size=9).digest()
    return b2a_base64(identity, newline=False).decode(), f"{crc32(value):x}"
