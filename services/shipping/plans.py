"""Routes for orders: what the network's planner finds, as events tell it, and as the clock of a promise asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from schemas.shipping_shipment import Leg, Route
from services.shipping.allocation import Wanted
from services.shipping.network.geography import places
from services.shipping.network.lanes import DOOR, Lane, Network, build, in_bond, load_rules, network
from services.shipping.network.planner import Planner, choose, legs
from services.shipping.network.sourcing import Want, source

SCANS_ARE_TOLD_WITHIN = timedelta(hours=2)
HEARD_WITHIN_S = 4.0  # real seconds, in which a fast trade clock runs on
_LEGS_REMEMBERED = 20_000
BONDED = "1210"  # the mode of an import whose goods lie in a bonded warehouse

Shares = dict[str, dict[str, int]]  # warehouse -> SKU -> units


class Plans:
    """One network, planned on with any lanes closed. Pure: what is remembered only saves time. `slack`: how long our own work may
    take; on a clock that runs ahead that is hours, and nobody's lateness. `tolerance`: how much later than it was made a scan may
    be heard of before it is missed."""

    def __init__(self, net: Network | None = None, speed: float = 1.0):
        self._net = net
        self.slack = timedelta(seconds=HEARD_WITHIN_S * speed)
        self.tolerance = SCANS_ARE_TOLD_WITHIN + self.slack
        self._planner = lru_cache(maxsize=8)(lambda closed: Planner(self.network, closed))
        self._in_bond = lru_cache(maxsize=8)(lambda closed: Planner(in_bond(self.network), closed))
        self._legs: dict[int, tuple[Any, int, list[Leg], int]] = {}

    @classmethod
    def of_places(cls, *ids: str) -> Plans:
        """On a network of these places alone, joined as all are."""
        known = places()
        return cls(build(load_rules(), {id_: known[id_] for id_ in ids}))

    @property
    def network(self) -> Network:
        """Made when it is needed first, which takes a second: whoever only looks at orders never needs it."""
        if self._net is None:
            self._net = network()
        return self._net

    @property
    def planner(self) -> Planner:
        """On all lanes."""
        return self._planner(frozenset())

    @property
    def unit_grams(self) -> int:
        return self.network.rules["unit_grams"]

    def plan(self, wanted: Wanted, available: Callable[[str], Iterable[tuple[str, int]]], accepted: datetime,
             closed: frozenset[str]) -> tuple[Shares, dict[str, Route]]:
        """Which warehouse sends what, and the way of each one's parcel; nothing of both, where the network knows no way."""
        bonded = wanted.china is not None and wanted.china.mode == BONDED
        planner, area = self._by(closed, bonded), self.area(wanted.destination, accepted)
        if area is None:
            return {}, {}
        units: dict[str, int] = {}
        for line in wanted.lines:
            units[line.sku] = units.get(line.sku, 0) + line.quantity
        wants = [Want(sku, count, self.unit_grams) for sku, count in units.items()]
        there = {sku: self._bonded(available(sku)) if bonded else available(sku) for sku in units}
        parcels = source(planner, wants, there, area, int(accepted.timestamp()))
        if parcels is None or bonded and any(sum(p.units.get(sku, 0) for p in parcels) < count for sku, count in units.items()):
            return {}, {}  # bonded warehouses may be ones that the network does not have
        return ({p.warehouse: p.units for p in parcels},
                {p.warehouse: self._told(p.route.lanes, p.route.starts, p.route.in_time, p.route.cost) for p in parcels})

    def area(self, destination: str, moment: datetime) -> str | None:
        """The place whose doors are meant; None: the network knows none at this moment."""
        first, last = self.network.valid
        return self.planner.area(destination) if first <= moment.date() <= last else None

    def _by(self, closed: frozenset[str], bonded: bool) -> Planner:
        return self._in_bond(closed) if bonded else self._planner(closed)

    def _bonded(self, stock: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        return [(warehouse, free) for warehouse, free in stock if warehouse in self.network.rules["bonded"]["places"]]

    def best(self, destination: str, warehouses: list[tuple[str, int]], units: int, moment: datetime, closed: frozenset[str],
             bonded: bool = False) -> tuple[str, Route] | None:
        """From which of these, that have all of a parcel, and by which way: the cheapest in time, else the earliest. None: no way is
        known."""
        planner, area = self._by(closed, bonded), self.area(destination, moment)
        found = [(not way.in_time, way.cost if way.in_time else way.arrives, warehouse, way)
                 for warehouse, _ in (self._bonded(warehouses) if bonded else warehouses)
                 if area is not None and warehouse in planner.network.places
                 and (way := planner.plan(warehouse, area, units * self.unit_grams, _second(moment))) is not None]
        if not found:
            return None
        _, _, warehouse, way = min(found, key=lambda each: each[:3])
        return warehouse, self._told(way.lanes, way.starts, way.in_time, way.cost)

    def again(self, place: str, moment: datetime, area: str, deadline: datetime, closed: frozenset[str],
              bonded: bool = False) -> list[Leg] | None:
        """The cheapest way on from a place that is there by the deadline, else the earliest; None: none is open."""
        options = self._by(closed, bonded).onward(place, _second(moment), area)
        best = choose(options, self.unit_grams, int(deadline.timestamp()))
        return best and [_leg(*run) for run in legs(best.lanes, _second(moment))]

    def run(self, route: list[Leg], moment: datetime) -> list[Leg] | None:
        """The same lanes, taken from this moment on; None: one of them is no more."""
        lanes = [self.network.lanes.get(leg.lane) for leg in route]
        return None if None in lanes else [_leg(*run) for run in legs(lanes, _second(moment))]

    def border(self, route: list[Leg]) -> int:
        """Which leg enters the destination's customs territory, the last that enters any; -1: none."""
        lanes = [self.network.lanes.get(leg.lane) for leg in route]
        return max((n for n, lane in enumerate(lanes) if lane is not None and lane.customs is not None), default=-1)

    def clears(self, leg: Leg) -> timedelta:
        """How long customs takes at the end of a leg."""
        return timedelta(seconds=self.network.lanes[leg.lane].clear_s)

    def ends(self, leg: Leg) -> tuple[str, str]:
        """(from, to) of a leg."""
        lane = self.network.lanes[leg.lane]
        return lane.origin, lane.to

    def route(self, run: list[Leg], in_time: bool, cost: int = 0) -> Route:
        return Route.model_construct(service=self._service(self.network.lanes[leg.lane] for leg in run), legs=run,
                                     promised_at=run[-1].arrives, in_time=in_time, border=self.border(run), cost=cost)

    def _told(self, lanes: tuple[Lane, ...], starts: int, in_time: bool, cost: int) -> Route:
        """All parcels of a wave that go the same way share its legs."""
        known = self._legs.get(id(lanes))
        if known is None or known[0] is not lanes or known[1] != starts:
            run = [_leg(*each) for each in legs(lanes, starts)]
            if len(self._legs) >= _LEGS_REMEMBERED:
                self._legs.clear()
            known = self._legs[id(lanes)] = lanes, starts, run, self.border(run)
        _, _, run, border = known
        return Route.model_construct(service=self._service(lanes), legs=run, promised_at=run[-1].arrives, in_time=in_time,
                                     border=border, cost=-(-cost // 1000))

    @staticmethod
    def _service(lanes: Iterable[Lane]) -> str:
        """Carrier and service of the dearest leg before the door, by which the trade knows a shipment."""
        return max((lane.to != DOOR, lane.rate, f"{lane.carrier} {lane.service}") for lane in lanes)[2]


def _leg(lane: Lane, departs: int, arrives: int) -> Leg:
    return Leg.model_construct(lane=lane.id, departs=_moment(departs), arrives=_moment(arrives))


@lru_cache(maxsize=20_000)
def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def _second(moment: datetime) -> int:
    return -int(-moment.timestamp() // 1)
