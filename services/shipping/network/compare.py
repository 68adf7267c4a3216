"""The planner against an order's nearest warehouse, and against the optimum: `tradewind network compare`.

Orders of merchants with warehouses of their own, drawn from a seed. Both ways of planning see the same orders, stock and delays:
of a hundred legs five are late by two to twelve hours, and who misses a departure waits for the next.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from services.shipping.network.geography import km
from services.shipping.network.lanes import Lane, Network, network
from services.shipping.network.planner import Option, Planner
from services.shipping.network.solver import optimum, small_network
from services.shipping.network.sourcing import Want, source
from services.shipping.network.timetables import DAY, HOUR

MERCHANTS, SKUS, IN_STOCK = 40, 30, 0.75
SELL_FROM = {"CN": 30, "US": 25, "DE": 10, "GB": 8, "JP": 8, "KR": 6, "FR": 5, "IT": 4, "AU": 2, "CA": 2}
SELL_TO = {"US": 22, "DE": 14, "GB": 12, "CN": 10, "FR": 9, "JP": 8, "KR": 5, "CA": 5, "AU": 5, "BR": 4, "IT": 4, "AE": 2}
LATE_PERCENT, LATE_HOURS = 5, (2, 12)
FROM = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())
DAYS = 7


class Order(NamedTuple):
    wants: list[Want]
    stock: dict[str, list[tuple[str, int]]]
    area: str
    accepted: int


class Sent(NamedTuple):
    """One parcel of a plan: when it starts, its lanes, what it costs (thousandths of a cent)."""

    starts: int
    lanes: tuple[Lane, ...]
    cost: int
    arrives: int


@dataclass
class Tally:
    """Counts of orders: `planned` to keep the promised hours, `kept` with the delays."""

    orders: int = 0
    parcels: int = 0
    planned: int = 0
    kept: int = 0
    cost: int = 0
    told: int = 0

    def count(self, sent: list[Sent], accepted: int, promise_s: int, seed: str) -> None:
        delivered = max(_delayed(parcel, f"{seed}:{n}") for n, parcel in enumerate(sent))
        last = max(parcel.arrives for parcel in sent)
        self.orders += 1
        self.parcels += len(sent)
        self.planned += last <= accepted + promise_s
        self.kept += delivered <= accepted + promise_s
        self.told += delivered <= last  # the moment that was told, whether or not it is within the promised hours
        self.cost += sum(parcel.cost for parcel in sent)

    def figures(self) -> dict[str, Any]:
        """Shares in percent, cost in US cents an order."""
        def share(n: int) -> float:
            return round(100 * n / self.orders, 1)

        return {"planned_in_time_percent": share(self.planned), "in_time_percent": share(self.kept),
                "by_the_told_moment_percent": share(self.told), "parcels_an_order": round(self.parcels / self.orders, 2),
                "cents_an_order": round(self.cost / self.orders / 1000)}


@dataclass
class Comparison:
    """`first_us`, `again_us`: microseconds of CPU an order, with the tables to be searched, and with them known."""

    ours: Tally = field(default_factory=Tally)
    nearest_cheap: Tally = field(default_factory=Tally)
    nearest_fast: Tally = field(default_factory=Tally)
    unreachable: int = 0
    first_us: float = 0.0
    again_us: float = 0.0
    again_p99_us: float = 0.0
    searched: int = 0


def orders(net: Network, seed: int, count: int, days: int = DAYS) -> Iterator[Order]:
    """Of the same seed always the same."""
    rng = random.Random(seed)
    by_country: dict[str, list[str]] = {}
    for place in net.places.values():
        by_country.setdefault(place.country, []).append(place.id)
    shops = []
    for _ in range(MERCHANTS):
        home = rng.choices(list(SELL_FROM), list(SELL_FROM.values()))[0]
        abroad = rng.choices(list(SELL_FROM), list(SELL_FROM.values()), k=2)
        own = rng.sample(by_country[home], rng.randint(1, 3)) + [rng.choice(by_country[c]) for c in abroad[:rng.randint(0, 2)]]
        shops.append((list(dict.fromkeys(own)), [rng.choice((150, 300, 600, 1200, 2500)) for _ in range(SKUS)]))
    for _ in range(count):
        own, weights = rng.choice(shops)
        wants, stock = [], {}
        for sku in rng.sample(range(SKUS), rng.randint(1, 3)):
            name = f"SKU-{sku}"
            wants.append(Want(name, rng.randint(1, 3), weights[sku]))
            there = [w for w in own if rng.random() < IN_STOCK] or [rng.choice(own)]
            stock[name] = [(w, rng.randint(3, 50)) for w in there]
        country = rng.choices(list(SELL_TO), list(SELL_TO.values()))[0]
        yield Order(wants, stock, net.main[country], FROM + rng.randrange(days * DAY))


def compare(count: int, seed: int, progress: Callable[[str], None] = lambda text: None) -> Comparison:
    """Plan `count` orders in both ways on the whole network."""
    net, found = network(), Comparison()
    planner, drawn = Planner(net), list(orders(net, seed, count))
    progress("searching the tables")
    began = time.thread_time()
    plans = [source(planner, *order) for order in drawn]
    found.first_us = (time.thread_time() - began) * 1e6 / count
    found.searched = planner.searched
    progress("planning again with the tables known")
    taken = []
    for order in drawn:
        began = time.thread_time()
        source(planner, *order)
        taken.append((time.thread_time() - began) * 1e6)
    found.again_us, found.again_p99_us = sum(taken) / count, sorted(taken)[int(count * 0.99)]
    progress("planning from the nearest warehouses")
    for n, (order, plan) in enumerate(zip(drawn, plans, strict=True)):
        if plan is None:
            found.unreachable += 1
            continue
        sent = [Sent(p.route.starts, p.route.lanes, p.route.cost, p.route.arrives) for p in plan]
        lots, at = _nearest(planner, order), (order.accepted, planner.promise_s, f"{seed}:{n}")
        found.ours.count(sent, *at)
        found.nearest_cheap.count([_send(planner, order, *lot, _cheapest) for lot in lots], *at)
        found.nearest_fast.count([_send(planner, order, *lot, _fastest) for lot in lots], *at)
    return found


def against_optimum(count: int, seed: int) -> list[float]:
    """Cost of the planner / cost of the solver, for orders on the small network whose promises end alike. AssertionError where
    the planner is later than the solver."""
    net = small_network()
    planner, rng, found = Planner(net), random.Random(seed), []
    places = list(net.places)
    for _ in range(count):
        wants = [Want(f"SKU-{n}", rng.randint(1, 4), rng.choice((200, 500, 1500, 4000))) for n in range(rng.randint(1, 4))]
        stock = {want.sku: [(w, rng.randint(1, 5)) for w in rng.sample(places, rng.randint(1, 6))] for want in wants}
        area, accepted = rng.choice(places), FROM + rng.randrange(14 * DAY)
        ours, best = source(planner, wants, stock, area, accepted), optimum(planner, wants, stock, area, accepted)
        assert ours is not None and best is not None and max(p.route.arrives for p in ours) <= best[0], (wants, stock, area, accepted)
        found.append(sum(p.route.cost for p in ours) / best[1])
    return found


def _nearest(planner: Planner, order: Order) -> list[tuple[str, int]]:
    """(warehouse, grams): each SKU from the warehouses next to the buyer that have it."""
    places, lots = planner.network.places, {}
    for sku, units, grams in order.wants:
        for warehouse, free in sorted(order.stock[sku], key=lambda row: km(places[row[0]], places[order.area])):
            if units:
                lots[warehouse] = lots.get(warehouse, 0) + min(units, free) * grams
                units -= min(units, free)
    return list(lots.items())


def _send(planner: Planner, order: Order, warehouse: str, grams: int, pick: Callable[[list[Option], int], Option]) -> Sent:
    wave = planner.wave(warehouse, order.accepted)
    option = pick(planner.options(warehouse, wave, order.area), grams)
    return Sent(wave + planner.pack_s, option.lanes, option.cost(grams), option.arrives)


def _cheapest(options: list[Option], grams: int) -> Option:
    return min(options, key=lambda o: o.cost(grams))


def _fastest(options: list[Option], grams: int) -> Option:
    return options[0]


def _delayed(parcel: Sent, seed: str) -> int:
    """When it is there, with what happens on the way."""
    moment = parcel.starts
    for lane in parcel.lanes:
        rng = random.Random(f"{seed}:{lane.id}")
        moment = lane.run(moment)[1]
        if rng.randrange(100) < LATE_PERCENT:
            moment += rng.randint(*LATE_HOURS) * HOUR
    return moment
