"""Orders as a client places them, all through a campaign: it notes what was acknowledged and what it never heard of."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, count, islice

import asyncpg
from aiokafka.errors import KafkaError

from schemas.orders_intake import PlaceOrder
from services.runtime.clock import Clock
from services.runtime.settings import Settings
from services.simulators.edge import Publisher, Record, client_journal, demo_orders, inbound_for, place_record
from services.simulators.scenario import COLD, SCENARIOS, SKU_NOWHERE, SKU_PART, WAIT_A_DAY, WAIT_LONGER, scenario_of

CHUNK = 500  # orders whose stock is delivered together, before any of them is placed
OPEN_MAX = 1_500  # placed and not ended: more would not end within the drain
HOT_SKU = "HOT-1"
FORGOTTEN = 0.1  # of the sends without an answer are not sent again: their orders exist once or not at all
TURN_S = 0.1
_LOST_S = 0.5
TOO_LONG = WAIT_LONGER | COLD
DEADLINE = TOO_LONG | WAIT_A_DAY

MISFORTUNES = ("provider_timeout", "provider_500", "payment_pending", "declined", "refund_fails")
MISFORTUNES_EACH = 10


def stream(settings: Settings, clock: Clock, *, deadlines: bool, hot_sku: bool = False) -> Iterator[PlaceOrder]:
    """One order of each scenario that ends within a campaign (those with `deadlines` of a day too), then without end
    those that need none. The same seed gives the same orders. `hot_sku`: half of them want one more SKU, the same."""
    given = {"vault_key": settings.vault_key_bytes(), "placed_at": clock.now()}
    leave_out = TOO_LONG if deadlines else DEADLINE
    first = [order for order in demo_orders(settings.seed, len(SCENARIOS), prefix="chaos", **given)
             if scenario_of(order.order_id, settings.seed) not in leave_out]
    orders = chain(first, demo_orders(settings.seed, 10**9, prefix="stream", forced=False, fast=True, **given))
    return map(_hot, orders, count()) if hot_sku else orders


def _hot(order: PlaceOrder, number: int) -> PlaceOrder:
    first, *others = order.lines
    if number % 2 or first.sku.startswith((SKU_NOWHERE, SKU_PART)):
        return order
    return order.model_copy(update={"lines": [first.model_copy(update={"sku": HOT_SKU}), *others]})


class Load:
    """Places `rate_s` orders a second from `run` on until `stopping` is set, `total` at most, OPEN_MAX open at most."""

    def __init__(self, settings: Settings, clock: Clock, orders: Iterator[PlaceOrder], rate_s: float, total: int | None = None):
        self.settings, self.clock, self.orders, self.rate_s, self.total = settings, clock, orders, rate_s, total
        self.random = random.Random(f"load:{settings.seed}")
        self.placed = self.acknowledged = self.unknown = self.closed = 0
        self.stopping = False
        self._placing = asyncio.Lock()
        self._ready: list[PlaceOrder] = []
        self._next: list[PlaceOrder] = []
        self._deliveries = 0
        self._publisher: Publisher | None = None

    @property
    def open(self) -> int:
        return self.placed - self.closed

    async def stock(self) -> int:
        """Deliver what the first orders need; how many SKUs."""
        self._next = list(islice(self.orders, CHUNK))
        return await self._deliver(self._next)

    async def pile(self, count: int) -> None:
        """Place so many at once, however many are open."""
        async with self._placing:
            for left in range(count, 0, -CHUNK):
                await self._place(min(left, CHUNK))

    async def misfortunes(self, number: int) -> Counter[str]:
        """Place orders with whose payment something goes wrong at the provider; how many of each scenario."""
        given = {"vault_key": self.settings.vault_key_bytes(), "placed_at": self.clock.now()}
        orders = [order for part in range(MISFORTUNES_EACH)
                  for order in demo_orders(self.settings.seed, len(SCENARIOS), prefix=f"trouble-{number}-{part}", **given)
                  if scenario_of(order.order_id, self.settings.seed) in MISFORTUNES]
        async with self._placing:
            await self._deliver(orders)
            await self._send([place_record(order) for order in orders], patient=True)
            self.placed += len(orders)
        return Counter(scenario_of(order.order_id, self.settings.seed) for order in orders)

    async def run(self) -> None:
        looking = asyncio.create_task(self._look())
        began = time.monotonic()
        try:
            while not self.stopping:
                if looking.done():
                    looking.result()  # it never ends by itself: raises what ended it, or nothing more would be placed unseen
                due = int((time.monotonic() - began) * self.rate_s)
                due = due if self.total is None else min(due, self.total)
                count = min(due - self.placed, OPEN_MAX - self.open, CHUNK // 4)
                if count > 0:
                    async with self._placing:
                        await self._place(count)
                await asyncio.sleep(TURN_S)
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def close(self) -> None:
        if self._publisher is not None:
            await self._publisher.__aexit__()
            self._publisher = None

    async def _place(self, count: int) -> None:
        now = self.clock.now()
        records = [place_record(order.model_copy(update={"placed_at": now})) for order in await self._take(count)]
        await self._send(records, patient=False)
        self.placed += count

    async def _take(self, count: int) -> list[PlaceOrder]:
        if len(self._ready) < count:
            self._ready += self._next
            self._next = list(islice(self.orders, CHUNK))
            await self._deliver(self._next)
        taken, self._ready = self._ready[:count], self._ready[count:]
        return taken

    async def _deliver(self, orders: list[PlaceOrder]) -> int:
        self._deliveries += 1
        records = list(inbound_for(orders, batch=f"chaos-{self._deliveries}", time=self.clock.now()))
        await self._send(records, patient=True)
        return len(records)

    async def _send(self, records: list[Record], *, patient: bool) -> None:
        """Until all are acknowledged; without patience some are given up, their outcome unknown."""
        while True:
            try:
                if self._publisher is None:
                    self._publisher = await Publisher(self.settings.bootstrap, client_journal(self.settings)).__aenter__()
                await self._publisher.send(records)
                self.acknowledged += len(records)
                return
            except (TimeoutError, KafkaError, OSError):
                # An idempotent producer may never recover from an error: the next try has a new one.
                publisher, self._publisher = self._publisher, None
                if publisher is not None:
                    await asyncio.gather(publisher.__aexit__(), return_exceptions=True)
                if not patient and publisher is not None and self.random.random() < FORGOTTEN:
                    self.unknown += len(records)
                    return
                await asyncio.sleep(_LOST_S)

    async def _look(self) -> None:
        """How many orders have ended, once a second; an old figure while the database is away."""
        conn = None
        while True:
            try:
                if conn is None:
                    conn = await asyncpg.connect(self.settings.dsn("orders"), timeout=5)
                self.closed = await conn.fetchval("SELECT count(*) FROM orders WHERE closed", timeout=5)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                if conn is not None:
                    conn.terminate()
                conn = None
            await asyncio.sleep(1.0)
