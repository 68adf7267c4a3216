"""Finds, in the bytes of a connection, a request that changes something and whose answer is to be lost.

One object a connection and protocol. `to_server` is told everything the client sends, and dooms a request when one is
wanted; `to_client` is told everything the server sends, and gives what of it may pass, and whether the doomed answer has
come: then what the request asked for has happened, and the connection is to end without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

_PRODUCE = 0
_REQUEST = struct.Struct(">hhi")  # api key, its version, correlation id
_CORRELATION = struct.Struct(">i")
_COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
_WRITE = b"WITH fence AS (UPDATE "  # how the one statement of a batch begins (services/runtime/storage.py)
_READY, _OUTSIDE = b"Z\x00\x00\x00\x05", b"I"


class Wire(Protocol):
    doomed: bool

    def to_server(self, data: bytes, wanted: bool) -> None: ...
    def to_client(self, data: bytes) -> tuple[bytes, bool]: ...


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
        self._correlation: int | None = None

    @property
    def doomed(self) -> bool:
        return self._correlation is not None

    def to_server(self, data: bytes, wanted: bool) -> None:
        for _, head in self._up.feed(data):
            key, _, correlation = _REQUEST.unpack(head)
            if wanted and not self.doomed and key == _PRODUCE:
                self._correlation = correlation

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        for start, head in self._down.feed(data):
            if self.doomed and _CORRELATION.unpack(head)[0] == self._correlation:
                return data[:start], True
        return data, False


class PostgresWire:
    """A COMMIT, or the one statement of a batch outside a transaction: the server has committed, the client never hears of
    it. A session of ours sends nothing before the answer to its last request has come, so that a request is the beginning
    of what is written at once, and an answer is at its end when the server is ready again."""

    def __init__(self) -> None:
        self.doomed = False
        self._writes: set[bytes] = set()  # names of prepared statements
        self._kept = b""

    def to_server(self, data: bytes, wanted: bool) -> None:
        if data[:1] == b"P":
            name, _, text = data[5:].partition(b"\x00")
            if text.startswith(_WRITE):
                self._writes.add(name)
        elif wanted and not self.doomed:
            self.doomed = data == _COMMIT or (data[:1] == b"B" and data[5:200].split(b"\x00")[1] in self._writes)

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        if not self.doomed:
            return data, False
        self._kept += data
        if self._kept[-6:-1] != _READY:
            return b"", False
        if self._kept.endswith(_OUTSIDE) and b"E" != self._kept[:1]:
            return b"", True
        kept, self._kept, self.doomed = self._kept, b"", False  # an error, or still in its transaction: nothing is committed
        return kept, False


class HttpWire:
    """A POST: the provider has done it, the caller never hears of it. One request at a time on a connection."""

    def __init__(self) -> None:
        self.doomed = False

    def to_server(self, data: bytes, wanted: bool) -> None:
        if wanted and data.startswith(b"POST "):
            self.doomed = True

    def to_client(self, data: bytes) -> tuple[bytes, bool]:
        return (b"", True) if self.doomed else (data, False)
