"""Load: places prepared orders and counts those that have come to an end. Of what it hears it reads only key and type.

Closed loop: so many orders are in flight, and a new one is placed for each that ends. Steady: so many are placed a
second, whatever becomes of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.topics import INTAKE, ORDER
from services.bench.orders import Placed, Reader
from services.runtime.processes import StartError
from services.runtime.reader import Pick

TERMINAL = frozenset({"OrderCompleted", "OrderCancelled", "OrderRejected"})
TURN_S = 0.02
STALL_S = 30.0


class Stalled(StartError):
    """For STALL_S seconds no order has ended, though some are open."""


class Load:
    """`orders` is where the next ones are taken from. `placed` and `finished` only grow; `open` holds the keys of the orders in flight.

    An order that ends a second time (a refund after its completion) counts once, at its first end.
    """

    def __init__(self, bootstrap: str, partitions: int, orders: Reader):
        self.orders, self._tps = orders, [TopicPartition(ORDER.name, p) for p in range(partitions)]
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0,
                                          max_batch_size=900_000, request_timeout_ms=20_000)
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=100,
                                          value_deserializer=Pick({ORDER.name: TERMINAL}, (ORDER,)))
        self.open: set[bytes] = set()
        self.placed = self.finished = 0

    async def __aenter__(self) -> Load:
        await self._producer.start()
        await self._consumer.start()
        self._consumer.assign(self._tps)
        await self._consumer.seek_to_end(*self._tps)
        for tp in self._tps:
            await self._consumer.position(tp)  # or the seek would happen after the first orders have ended
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self._producer.stop(), self._consumer.stop())

    async def closed(self, count: int, in_flight: int, each: Callable[[], None]) -> None:
        """Carry `count` more orders to their end, at most `in_flight` at a time; `each` is called after every turn.

        Raises Stalled.
        """
        await self._until_finished(count, each, lambda _: in_flight - len(self.open))

    async def steady(self, count: int, rate: float, each: Callable[[], None]) -> None:
        """Place `rate` orders a second until `count` more are placed, and wait for their end. Raises Stalled."""
        first = self.placed
        await self._until_finished(count, each, lambda seconds: int(seconds * rate) + 1 - (self.placed - first))

    async def _until_finished(self, count: int, each: Callable[[], None], room: Callable[[float], int]) -> None:
        last, goal = self.placed + count, self.finished + len(self.open) + count
        started = moved = time.monotonic()
        while self.finished < goal:
            now = time.monotonic()
            wanted = min(room(now - started), last - self.placed)
            if wanted > 0:
                await self._place(self.orders.take(wanted))
            if await self._hear():
                moved = now
            each()
            if now - moved > STALL_S and self.open:
                raise Stalled(
                    f"{len(self.open)} orders are open and none has ended for {STALL_S:g} s",
                    ", ".join(key.decode() for key in sorted(self.open)[:5]), "See the services' logs.")
            await asyncio.sleep(max(0.0, now + TURN_S - time.monotonic()))

    async def _place(self, orders: list[Placed]) -> None:
        assert orders, "more orders are wanted than were prepared"
        batches: dict[int, list] = {}
        for partition, key, value, headers in orders:
            builders = batches.setdefault(partition, [])
            if not builders or builders[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
                builders.append(self._producer.create_batch())
                builders[-1].append(timestamp=None, key=key, value=value, headers=headers)
            self.open.add(key)
        self.placed += len(orders)
        await asyncio.gather(*[await self._producer.send_batch(builder, INTAKE.name, partition=partition)
                               for partition, builders in batches.items() for builder in builders])

    async def _hear(self) -> int:
        """Take note of the orders that have ended; how many."""
        before = len(self.open)
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            self.open.difference_update(record.key for record in records if record.type.decode() in TERMINAL)
        ended = before - len(self.open)
        self.finished += ended
        return ended
