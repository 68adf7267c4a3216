"""The benchmark's orders, encoded before the clock starts and read back from a file in small pieces.

A file, because a million orders in memory would be the largest thing on the machine and slow down what is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgpack
from aiokafka.partitioner import murmur2

from schemas.orders_intake import PlaceOrder
from services.simulators.demo_orders import demo_orders
from services.simulators.edge import Record, inbound_for, place_record
from services.simulators.scenario import EXITS_PERMILLE, scenario_of, warehouse_of

PREFIX = "bench"


class Placed(NamedTuple):
    """One order as the broker gets it."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass
class Mix:
    """What the orders are: counts by scenario, destination and number of parcels (one a warehouse)."""

    orders: int = 0
    bytes: int = 0
    scenarios: Counter[str] = field(default_factory=Counter)
    destinations: Counter[str] = field(default_factory=Counter)
    parcels: Counter[int] = field(default_factory=Counter)

    def count(self, order: PlaceOrder, scenario: str, size: int) -> None:
        self.orders += 1
        self.bytes += size
        self.scenarios[scenario] += 1
        self.destinations[order.destination] += 1
        self.parcels[len({warehouse_of(line.sku) for line in order.lines})] += 1

    def as_dict(self) -> dict:
        """Shares are percent of all orders, except the exits', which are counts."""
        def share(counts: Counter) -> dict:
            return {k: round(100 * n / self.orders, 1) for k, n in sorted(counts.items())}

        exits = {name: n for name, n in self.scenarios.most_common() if name != "normal"}
        return {
            "cross_border_percent": 100.0, "exits_percent": round(100 * sum(exits.values()) / self.orders, 1),
            "two_parcels_percent": share(self.parcels).get(2, 0.0), "destinations_percent": share(self.destinations),
            "exits": exits, "bytes_per_order": round(self.bytes / self.orders),
        }


def build(path: Path, *, seed: int, count: int, vault_key: bytes, placed_at: datetime, partitions: int,
          ) -> tuple[Mix, list[Record]]:
    """Write `count` orders to `path`; their mix, and the reports that stock the warehouses with what all of them need.

    All cross a border and end without a deadline of the trade. The same arguments give the same orders, except the seals.
    """
    mix = Mix()
    orders = demo_orders(seed, count, vault_key=vault_key, placed_at=placed_at, fast=True, forced=False, domestic=False,
                         prefix=PREFIX)

    def counted() -> Iterator[PlaceOrder]:
        for order, size in written(path, orders, partitions):
            mix.count(order, scenario_of(order.order_id, seed, EXITS_PERMILLE, fast=True), size)
            yield order

    stock = list(inbound_for(counted(), batch=f"{PREFIX}-{seed}", time=placed_at))
    return mix, stock


def written(path: Path, orders: Iterable[PlaceOrder], partitions: int) -> Iterator[tuple[PlaceOrder, int]]:
    """Each order once it is in the file, and the bytes of its body."""
    pack = msgpack.Packer().pack
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for order in orders:
            record = place_record(order)
            partition = (murmur2(record.key) & 0x7FFFFFFF) % partitions
            file.write(pack((partition, record.key, record.value, record.headers)))
            yield order, len(record.value)


def write(path: Path, orders: Iterable[PlaceOrder], partitions: int) -> None:
    for _ in written(path, orders, partitions):
        pass


class Reader:
    """Takes orders from a file, in its order."""

    def __init__(self, path: Path):
        self.path = path
        self._file = open(path, "rb")
        self._orders = msgpack.Unpacker(self._file, use_list=False, read_size=1 << 20)

    def take(self, count: int) -> list[Placed]:
        return [Placed(p, key, value, list(headers)) for p, key, value, headers in islice(self._orders, count)]

    def close(self) -> None:
        self._file.close()
