"""A TCP proxy whose lines can be made as bad as real ones: slow, narrow, cut, open in one direction only, or such that
an answer is lost after its request was carried out.

    link = Link("orders → postgres", "127.0.0.1", 5432, PostgresWire)
    await link.open(); connect to link.port …; link.up.held = True; …; await link.close()

Everything happens on the event loop that opened the link. A switch takes effect at once, also for open connections.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from services.chaos.wire import Wire

_IN_TRANSIT_MAX = 1 << 20  # bytes of one connection and direction; beyond it the sender has to wait
_RESET = struct.pack("ii", 1, 0)
_BACKLOG = 512


@dataclass
class Line:
    """One direction of a link. `held`: nothing comes through; what is sent waits in the sender's socket, as it would for
    a line that is down, and arrives late if the connection lives that long."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    held: bool = False


class Link:
    """Listens on `port` of 127.0.0.1 and connects each client to the target. `up` is client → server, `down` the other.

    `refusing`: a new connection is reset at once. `carried`: bytes that arrived, both directions.
    """

    def __init__(self, name: str, host: str, port: int, wire: Callable[[], Wire] | None = None, seed: int = 0):
        self.name, self.target, self._wire = name, (host, port), wire
        self.up, self.down = Line(), Line()
        self.refusing = False
        self.carried = 0
        self.random = random.Random(f"{seed}:{name}")
        self._connections: set[_Connection] = set()
        self._armed: asyncio.Future[None] | None = None
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self).client, "127.0.0.1", 0, backlog=_BACKLOG)

    async def close(self) -> None:
        """Stop listening and reset whatever is open."""
        self._server.close()
        self.cut()
        await asyncio.sleep(0)

    # -- switches -----------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every open connection, both ends; how many."""
        cut = list(self._connections)
        for connection in cut:
            connection.reset()
        return len(cut)

    def forget(self) -> int:
        """Let every open connection carry nothing any more, without a word to either end, as a router does that has lost its
        memory; new ones are good. How many."""
        for connection in self._connections:
            connection.forget()
        return len(self._connections)

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Let nothing through in these directions (and everything in the others)."""
        self.up.held, self.down.held = up, down
        for connection in self._connections:
            connection.obey()

    def slow(self, latency_s: float, jitter_s: float = 0.0, bytes_per_s: float | None = None) -> None:
        """Both directions from now on; 0 is as fast as it goes."""
        for line in (self.up, self.down):
            line.latency_s, line.jitter_s, line.bytes_per_s = latency_s, jitter_s, bytes_per_s

    def heal(self) -> None:
        """A good line again; connections that are still open go on."""
        self.slow(0.0)
        self.hold()
        self.refusing = False
        self.disarm()

    def lose_answer(self) -> asyncio.Future[None]:
        """Let the next request that changes something through, keep its answer back and reset the connection. Done when
        that has happened; cancelled by `disarm`."""
        assert self._wire is not None and (self._armed is None or self._armed.done()), self.name
        self._armed = asyncio.get_running_loop().create_future()
        return self._armed

    def disarm(self) -> None:
        if self._armed is not None and not self._armed.done():
            self._armed.cancel()
        self._armed = None

    # -- for connections ----------------------------------------------------------------------------------------------

    def _wants_request(self) -> bool:
        return self._armed is not None and not self._armed.done() and not any(c.wire.doomed for c in self._connections)

    def _answer_lost(self) -> None:
        if self._armed is not None and not self._armed.done():
            self._armed.set_result(None)


class _Connection:
    """A client's connection and ours to the server. Data in transit is what the loop's timers hold."""

    def __init__(self, link: Link):
        self.link = link
        self.wire = link._wire() if link._wire else None
        self.client, self.server = _End(self), _End(self)
        self.client.other, self.server.other = self.server, self.client
        self.client.line, self.server.line = link.up, link.down

    def accepted(self) -> None:
        link = self.link
        link._connections.add(self)
        if link.refusing:
            self.reset()
            return
        self.client.wait_for("connected")
        self.obey()
        asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.server, *self.link.target)
        except OSError:  # the server is down, and the client learns it as it would without us
            self.reset()
            return
        if self.client.transport.is_closing():
            self.reset()
            return
        self.obey()
        self.client.go_on("connected")

    def obey(self) -> None:
        for end in (self.client, self.server):
            (end.wait_for if end.line.held else end.go_on)("held")

    def forget(self) -> None:
        for end in (self.client, self.server):
            end.wait_for("forgotten")

    def received(self, end: _End, data: bytes) -> None:
        if self.wire is not None:
            if end is self.client:
                self.wire.to_server(data, self.link._wants_request())
            else:
                data, lost = self.wire.to_client(data)
                if lost:
                    end.pass_on(data)
                    self.reset()
                    self.link._answer_lost()
                    return
        if data:
            end.pass_on(data)

    def lost(self, end: _End) -> None:
        """One end closed: so does the other, after what was sent before has arrived."""
        end.other.close_at(end.due)
        if self.client.gone and self.server.gone:
            self.link._connections.discard(self)

    def reset(self) -> None:
        self.link._connections.discard(self)
        for end in (self.client, self.server):
            end.reset()


class _End(asyncio.Protocol):
    """What one side sends, and its way to the other side."""

    other: _End
    line: Line

    def __init__(self, connection: _Connection):
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.due = 0.0  # when the last byte that was sent arrives
        self.gone = False
        self._in_transit = 0
        self._waits: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._waits:
            transport.pause_reading()
        if self is self.connection.client:
            self.connection.accepted()

    def data_received(self, data: bytes) -> None:
        self.connection.received(self, data)

    def connection_lost(self, _: Exception | None) -> None:
        self.gone = True
        self.connection.lost(self)

    def pause_writing(self) -> None:
        self.other.wait_for("reader")

    def resume_writing(self) -> None:
        self.other.go_on("reader")

    # -- sending ------------------------------------------------------------------------------------------------------

    def pass_on(self, data: bytes) -> None:
        line, now = self.line, asyncio.get_running_loop().time()
        if self.due <= now and not line.latency_s and not line.bytes_per_s:
            self._arrived(data)
            return
        late = line.latency_s + self.connection.link.random.uniform(-line.jitter_s, line.jitter_s)
        # In order, whatever the jitter: the loop does not promise the order of timers of one moment.
        self.due = max(now + max(0.0, late), self.due + 1e-6) + (len(data) / line.bytes_per_s if line.bytes_per_s else 0.0)
        self._in_transit += len(data)
        if self._in_transit > _IN_TRANSIT_MAX:
            self.wait_for("transit")
        asyncio.get_running_loop().call_at(self.due, self._arrived_late, data)

    def _arrived_late(self, data: bytes) -> None:
        self._in_transit -= len(data)
        if self._in_transit <= _IN_TRANSIT_MAX:
            self.go_on("transit")
        self._arrived(data)

    def _arrived(self, data: bytes) -> None:
        transport = self.other.transport
        if transport is not None and not transport.is_closing():
            self.connection.link.carried += len(data)
            transport.write(data)

    # -- reading ------------------------------------------------------------------------------------------------------

    def wait_for(self, why: str) -> None:
        """Read nothing of this side until every such reason is gone."""
        if not self._waits and self._open:
            self.transport.pause_reading()
        self._waits.add(why)

    def go_on(self, why: str) -> None:
        if why in self._waits:
            self._waits.discard(why)
            if not self._waits and self._open:
                self.transport.resume_reading()

    @property
    def _open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    # -- ends ---------------------------------------------------------------------------------------------------------

    def close_at(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        if self._open:
            loop.call_at(due, self.transport.close) if due > loop.time() else self.transport.close()

    def reset(self) -> None:
        """RST: the peer learns at once that the connection is dead, not that it ended well."""
        if self._open:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
