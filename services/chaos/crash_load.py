"""Orders for a run of crashes: a stream without an end, with every scenario in it that ends within a run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.orders_intake import PlaceOrder
from schemas.shipping_report import InboundReceived
from schemas.topics import INTAKE
from services.cli.rest import stocked
from services.runtime.clock import Clock
from services.runtime.settings import Settings
from services.simulators.demo_orders import SHELVES
from services.simulators.edge import (QUANTITY_MAX, Publisher, Record, client_journal, demo_orders, inbound_for, place_record,
                                      record_of)
from services.simulators.scenario import COLD, SCENARIOS, SKU_PART, WAIT_LONGER, scenario_of

TOO_LONG = WAIT_LONGER | COLD
WAVE = 6
WAVE_S = 1.0
SCENARIOS_EVERY = 4  # waves
OPEN_MAX = 100  # placed and not ended
_STOCK = 10**6


class Load:
    """`async with Load(...) as load`: `await load.stock()`, then `run` until `stopping` is set. While `planting`, records
    that no service can read stand on the intake beside the orders. Counts: `placed`, `planted`."""

    def __init__(self, settings: Settings, clock: Clock):
        self.settings, self.clock = settings, clock
        self.placed = self.planted = 0
        self.stopping = self.planting = False

    async def __aenter__(self) -> Load:
        self._publisher = Publisher(self.settings.bootstrap, client_journal(self.settings))
        self._stranger = AIOKafkaProducer(bootstrap_servers=self.settings.bootstrap, acks="all", enable_idempotence=True)
        self._orders = await asyncpg.connect(self.settings.dsn("orders"))
        await self._publisher.__aenter__()
        await self._stranger.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._publisher.__aexit__()
        await self._stranger.stop()
        await self._orders.close()

    async def stock(self) -> None:
        """More of everything than a run can sell, and wait until shipping knows."""
        records = [self._delivery(warehouse, sku, merchant) for (merchant, warehouse), products in SHELVES.items()
                   for sku, *_ in products]
        await self._publisher.send(records)
        await stocked(self.settings, len(records))

    def _delivery(self, warehouse: str, sku: str, merchant: str) -> Record:
        message = InboundReceived(order_id=f"stock:{warehouse}:{sku}", warehouse=warehouse, sku=sku,
                                  quantity=min(_STOCK, QUANTITY_MAX))
        return record_of(message, id=f"inbound:crash:{warehouse}:{sku}", time=self.clock.now(), merchant=merchant,
                         source=f"/warehouse/{warehouse}")

    async def run(self) -> None:
        """A wave a second, while there is room. What an order alone needs of its own goods is delivered a wave before it."""
        number, following = 0, list(self._wave(0))
        while not self.stopping:
            wave, number = following, number + 1
            following = list(self._wave(number))
            own = [order for order in following if any(line.sku.startswith(SKU_PART) for line in order.lines)]
            deliveries = [record for record in inbound_for(own, batch=f"wave{number}", time=self.clock.now())
                          if record.message.sku.startswith(SKU_PART)]
            await self._publisher.send([*deliveries, *map(place_record, wave)])
            self.placed += len(wave)
            await self._pause()

    def _wave(self, number: int) -> Iterator[PlaceOrder]:
        seed, given = self.settings.seed, {"vault_key": self.settings.vault_key_bytes(), "placed_at": self.clock.now()}
        if number % SCENARIOS_EVERY == 0:
            return (order for order in demo_orders(seed, len(SCENARIOS), prefix=f"crash{number}", **given)
                    if scenario_of(order.order_id, seed) not in TOO_LONG)
        return demo_orders(seed, WAVE, prefix=f"wave{number}", forced=False, fast=True, **given)

    async def _pause(self) -> None:
        await asyncio.sleep(WAVE_S / 2)
        if self.planting:
            await self._plant()
        await asyncio.sleep(WAVE_S / 2)
        closed = "SELECT count(*) FROM orders WHERE closed"
        while not self.stopping and self.placed - await self._orders.fetchval(closed) > OPEN_MAX:
            await asyncio.sleep(WAVE_S / 4)

    async def _plant(self) -> None:
        """One record a partition of a type that nobody knows. Its order of events is that of its neighbours."""
        for partition in range(self.settings.partitions):
            name = f"nobody-{self.planted}"
            try:
                await self._stranger.send_and_wait(INTAKE.name, b"{}", name.encode(), partition,
                                                   headers=[("ce_type", b"Nonsense"), ("ce_id", name.encode())])
            except KafkaError as why:
                raise AssertionError("nothing hurts the broker in this run") from why
            self.planted += 1
