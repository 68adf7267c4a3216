"""Finds, in the bytes of a connection, a request whose answer is to be lost, and where that answer begins.

One object a connection and protocol. `to_server` is told everything the client sends and says whether an armed request
was in it; `to_client` is told everything the server sends and says how much of it comes before the doomed answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

_PRODUCE = 0
_REQUEST = struct.Struct(">hhi")  # api key, its version, correlation id
_CORRELATION = struct.Struct(">i")
_COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
_COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00"


class Wire(Protocol):
    """`to_client` returns None as long as the doomed answer has not begun, else the bytes that come before it."""

    def to_server(self, data: bytes, armed: bool) -> bool: ...
    def to_client(self, data: bytes) -> int | None: ...


class Frames:
    """Messages with a length of four bytes before them; each is told once its first `head` bytes are there."""

    def __init__(self, head: int):
        self._head, self._skip, self._begun = 4 + head, 0, b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(where in `data` it begins, 0 if earlier; its first bytes without the length)."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            start = max(0, at - len(self._begun))
            taken = data[at:at + self._head - len(self._begun)]
            at += len(taken)
            self._begun += taken
            if len(self._begun) < self._head:
                return
            head, self._begun = self._begun, b""
            self._skip = int.from_bytes(head[:4], "big") - (self._head - 4)
            yield start, head[4:]


class KafkaWire:
    """A produce request: the broker has its records, the producer never hears of it."""

    def __init__(self) -> None:
        self._up, self._down = Frames(_REQUEST.size), Frames(_CORRELATION.size)
        self._doomed: int | None = None

    def to_server(self, data: bytes, armed: bool) -> bool:
        found = False
        for _, head in self._up.feed(data):
            key, _, correlation = _REQUEST.unpack(head)
            if armed and not found and self._doomed is None and key == _PRODUCE:
                self._doomed, found = correlation, True
        return found

    def to_client(self, data: bytes) -> int | None:
        for start, head in self._down.feed(data):
            if self._doomed is not None and _CORRELATION.unpack(head)[0] == self._doomed:
                return start
        return None


class PostgresWire:
    """A COMMIT: the server has committed, the client never hears of it. Nothing is ever sent behind a COMMIT before its
    answer, so that it is always the end of what was written at once."""

    def __init__(self) -> None:
        self._doomed = False

    def to_server(self, data: bytes, armed: bool) -> bool:
        if armed and data.endswith(_COMMIT):
            self._doomed = True
            return True
        return False

    def to_client(self, data: bytes) -> int | None:
        at = data.find(_COMMITTED) if self._doomed else -1
        return at if at >= 0 else None


class HttpWire:
    """A POST: the provider has done it, the caller never hears of it. One request at a time on a connection."""

    def __init__(self) -> None:
        self._doomed = False

    def to_server(self, data: bytes, armed: bool) -> bool:
        if armed and data.startswith(b"POST "):
            self._doomed = True
            return True
        return False

    def to_client(self, data: bytes) -> int | None:
        return 0 if self._doomed else None
