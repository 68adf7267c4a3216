"""From which warehouses an order is sent: one parcel from each chosen one, at the least cost that keeps the promise.

An order that one warehouse can fill is seldom cheaper from two, and how cheap two could be at best is known before anything is
tried: so most orders cost a look at each warehouse that has the goods. The others are searched by branch and bound over (warehouse,
way); the search is exact unless it is cut off after NODES_MAX steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.shipping.network.planner import Option, Planner, Route

NODES_MAX = 2_000
TRIED_MAX = 24  # ways in a search; beyond, only the most promising

Stock = Mapping[str, Sequence[tuple[str, int]]]  # SKU -> (warehouse, units nobody has reserved)


class Want(NamedTuple):
    sku: str
    units: int
    grams: int  # of one unit


class Parcel(NamedTuple):
    """`units` by SKU."""

    warehouse: str
    units: dict[str, int]
    grams: int
    route: Route


class _Way(NamedTuple):
    """A warehouse with what it has of the order, and one way from it to the buyer that is there by the deadline."""

    rate: int
    fixed: int
    warehouse: str
    has: dict[str, int]
    option: Option


def source(planner: Planner, wants: Sequence[Want], stock: Stock, area: str, accepted: int) -> list[Parcel] | None:
    """The parcels of an order, whose SKUs differ; what is in no warehouse is left out. None: no way leads to the area."""
    has: dict[str, dict[str, int]] = {}
    left = []
    for want in wants:
        sku, units, there = want.sku, want.units, 0
        for warehouse, free in stock[sku]:
            if free > 0 and warehouse in planner.network.places:
                has.setdefault(warehouse, {})[sku] = min(free, units)
                there += free
        if there >= units:
            left.append(want)
        elif there:
            left.append(Want(sku, there, want.grams))
    waves = {warehouse: planner.wave(warehouse, accepted) for warehouse in has}
    options = {w: found for w, wave in waves.items() if (found := planner.options(w, wave, area))}
    deadline = accepted + planner.promise_s
    chosen = _from_one(has, options, left, deadline)
    if chosen is None:
        if not left or not _covers(left, [has[w] for w in options]):
            return None
        in_time = [has[w] for w, found in options.items() if found[0].arrives <= deadline]
        if not _covers(left, in_time):
            deadline = _earliest(has, options, left)
        chosen = _from_one(has, options, left, deadline) or _Search(has, options, left, deadline).run()
    grams = {want.sku: want.grams for want in left}
    return [_parcel(planner, way, units, grams, waves[way.warehouse], accepted) for way, units in chosen]


Filled = list[tuple[_Way, dict[str, int]]]


def _from_one(has: dict, options: dict, left: list[Want], deadline: int) -> Filled | None:
    """All from the cheapest single warehouse; None when none can, or when several might be cheaper."""
    grams = sum(want.units * want.grams for want in left)
    best, cost, lean, leaner, rate = None, 0, None, None, None
    for warehouse, ways in options.items():
        shelf = has[warehouse]
        fills = len(shelf) == len(left) and all(shelf[want.sku] >= want.units for want in left)
        for option in ways:
            arrives, fixed, per_gram, _ = option
            if arrives > deadline:
                break
            if lean is None or fixed < lean[0]:
                if lean is not None and lean[1] != warehouse:
                    leaner = lean[0]
                lean = fixed, warehouse
            elif lean[1] != warehouse and (leaner is None or fixed < leaner):
                leaner = fixed
            if rate is None or per_gram < rate:
                rate = per_gram
            if fills and (best is None or fixed + per_gram * grams < cost):
                best, cost = _Way(per_gram, fixed, warehouse, shelf, option), fixed + per_gram * grams
    if best is None or (leaner is not None and lean[0] + leaner + rate * grams < cost):
        return None
    return [(best, {want.sku: want.units for want in left})]


def _earliest(has: dict, options: dict, left: list[Want]) -> int:
    """When the last parcel can be there at the earliest."""
    order = sorted(options, key=lambda w: (options[w][0].arrives, w))
    for n, warehouse in enumerate(order, 1):
        if _covers(left, [has[w] for w in order[:n]]):
            return options[warehouse][0].arrives
    raise AssertionError("all of them together cover it")


def _covers(left: Sequence[Want], shelves: list[dict[str, int]]) -> bool:
    return all(sum(shelf.get(want.sku, 0) for shelf in shelves) >= want.units for want in left)


class _Search:
    """Which ways to use. Of each SKU the ways with the lowest rate carry first, so a set of ways has one best filling."""

    def __init__(self, has: dict, options: dict, left: list[Want], deadline: int):
        self.left, self.grams = left, {want.sku: want.grams for want in left}
        self.ways = sorted(_Way(o.rate, o.fixed, w, has[w], o) for w, found in options.items()
                           for o in self._envelope(found, has[w], deadline))
        if len(self.ways) > TRIED_MAX:
            self.ways = self._promising()
        self.able = {want.sku: self.able_of(want) for want in left}
        self.least = sum(want.units * want.grams * self.able[want.sku][0].rate for want in left)
        self.entry = {sku: min(way.fixed for way in ways) for sku, ways in self.able.items()}
        self.best: Filled | None = None
        self.cost = self.nodes = 0

    def _envelope(self, options: list[Option], shelf: dict[str, int], deadline: int) -> list[Option]:
        """Of a warehouse's ways that are there in time those that are the cheapest for some load it may have to send."""
        light, heavy = min(self.grams[sku] for sku in shelf), sum(units * self.grams[sku] for sku, units in shelf.items())
        kept: list[Option] = []
        for option in sorted((o for o in options if o.arrives <= deadline), key=lambda o: (o.cost(light), o.cost(heavy))):
            if not kept or option.cost(heavy) < kept[-1].cost(heavy):
                kept.append(option)
        return kept

    def able_of(self, want: Want) -> list[_Way]:
        return [way for way in self.ways if want.sku in way.has]

    def run(self) -> Filled:
        self._extend([], 0, frozenset())
        assert self.best is not None, "the first descent covers everything"
        return self.best

    def _extend(self, chosen: list[_Way], fixed: int, barred: frozenset[int]) -> None:
        self.nodes += 1
        open_ = [want for want in self.left if sum(way.has.get(want.sku, 0) for way in chosen) < want.units]
        least = fixed + self.least + max([self.entry[want.sku] for want in open_], default=0)
        if self.best is not None and (self.nodes > NODES_MAX or least >= self.cost):
            return
        if not open_:
            self._fill(chosen)
        used = {way.warehouse for way in chosen}
        more = min((self.able[want.sku] for want in open_), key=len, default=self.ways)
        more = [way for way in more if way.warehouse not in used and id(way) not in barred]
        if open_:
            more.sort(key=self._price)
        for way in more:
            if self.best is None or fixed + way.fixed + self.least < self.cost:
                self._extend([*chosen, way], fixed + way.fixed, barred)
            barred |= {id(way)}

    def _price(self, way: _Way) -> float:
        """Of a gram, when it carries all it can."""
        load = sum(units * self.grams[sku] for sku, units in way.has.items())
        return (way.fixed + way.rate * load) / load

    def _fill(self, chosen: list[_Way]) -> None:
        open_, filled, cost = {want.sku: want.units for want in self.left}, [], 0
        for way in sorted(chosen, key=lambda way: way[:3]):
            taken = {sku: min(units, open_[sku]) for sku, units in way.has.items() if open_[sku]}
            if taken:
                filled.append((way, taken))
                cost += way.fixed + way.rate * sum(units * self.grams[sku] for sku, units in taken.items())
                for sku, units in taken.items():
                    open_[sku] -= units
        if self.best is None or cost < self.cost:
            self.best, self.cost = filled, cost

    def _promising(self) -> list[_Way]:
        """The cheapest for all they have, and for each SKU on its own until it is covered twice."""
        kept = sorted(self.ways, key=self._price)[:TRIED_MAX // 2]
        for want in self.left:
            units, seen = 0, set()
            for way in sorted(self.able_of(want), key=lambda w: w.fixed / w.has[want.sku] + w.rate * want.grams):
                if units >= 2 * want.units:
                    break
                kept.append(way)
                units += 0 if way.warehouse in seen else way.has[want.sku]
                seen.add(way.warehouse)
        return sorted({id(way): way for way in kept}.values(), key=lambda way: way[:3])


def _parcel(planner: Planner, way: _Way, units: dict[str, int], grams: dict[str, int], wave: int, accepted: int) -> Parcel:
    load = sum(count * grams[sku] for sku, count in units.items())
    option = way.option
    return Parcel(way.warehouse, units, load, Route(wave, wave + planner.pack_s, option.arrives, option.arrives <= accepted
                                                    + planner.promise_s, option.cost(load), option.lanes))
