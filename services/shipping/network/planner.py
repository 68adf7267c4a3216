"""Which way a parcel goes: the cheapest that arrives in time, else the one that arrives first.

All that a warehouse packs in one wave leaves together, so what can be reached, when and at what price depends on (warehouse,
wave, destination) and not on the order: it is searched once, exactly, by labels (arrival, price of a parcel, price of a gram)
of which none is better than another in all three, and an order only looks through the few that are left. What arrives at a
hub between two departures goes on like what arrives just before the later one, so that tails of routes are shared by many.
A route has at most three lanes between hubs, and two where it ends in a major.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from services.shipping.network.lanes import Lane, Network
from services.shipping.network.timetables import HOUR, Timetable

LIGHT_G, HEAVY_G = 50, 50_000  # prices are straight lines: who is dearer at both ends is dearer between them
HUB_LANES, MAJOR_LANES = 3, 2
REMEMBERED = 60_000

# One way to some place: (second of arrival, fixed, rate, last lane, the label before it). `fixed`, `rate`: as of a Lane, summed.
Label = tuple[int, int, int, Lane | None, Any]


class Option(NamedTuple):
    """One way to the door, as a Label; `lanes` in order."""

    arrives: int
    fixed: int
    rate: int
    lanes: tuple[Lane, ...]

    def cost(self, grams: int) -> int:
        """Thousandths of a cent."""
        return self.fixed + self.rate * grams


class Route(NamedTuple):
    """A plan of one parcel: the packers begin at `wave`, it `starts` on its lanes. Moments are seconds of the epoch, `cost` is in
    thousandths of a cent."""

    wave: int
    starts: int
    arrives: int
    in_time: bool
    cost: int
    lanes: tuple[Lane, ...]


class Planner:
    """Plans on a network without the `closed` lanes. Remembers what it has searched; the same question gives the same answer."""

    def __init__(self, network: Network, closed: frozenset[str] = frozenset()):
        self.network, self.closed = network, closed
        rules = network.rules
        self.lead_s, self.promise_s = rules["lead_h"] * HOUR, rules["promise_h"] * HOUR
        self.pack_s, self.pack_cost = rules["warehouse"]["pack_h"] * HOUR, rules["warehouse"]["parcel"] * 1000
        self._options: dict[tuple[str, int, str], list[Option]] = {}
        self._tails: dict[tuple[str, int, str], list[Option]] = {}
        self._labels: dict[tuple, list[Label]] = {}
        self._lanes: dict[str, list[Lane]] = {}
        self._tables: dict[str, list[Timetable]] = {}
        self.searched = 0

    def area(self, destination: str) -> str | None:
        """The place whose doors are meant: a place itself, or a country's largest. None where the network has none."""
        return destination if destination in self.network.places else self.network.main.get(destination)

    def wave(self, warehouse: str, accepted: int) -> int:
        """When a warehouse begins to pack what is accepted at this moment."""
        return self.network.waves[warehouse].next(accepted + self.lead_s)

    def plan(self, warehouse: str, area: str, grams: int, accepted: int) -> Route | None:
        """The cheapest way that keeps the promise, else the earliest; None: no way at all."""
        wave, deadline = self.wave(warehouse, accepted), accepted + self.promise_s
        best = choose(self.options(warehouse, wave, area), grams, deadline)
        return best and Route(wave, wave + self.pack_s, best.arrives, best.arrives <= deadline, best.cost(grams), best.lanes)

    def options(self, warehouse: str, wave: int, area: str) -> list[Option]:
        """All ways worth a thought from a wave to the doors of an area, the earliest first."""
        key = warehouse, wave, area
        found = self._options.get(key)
        if found is None:
            found = _remember(self._options, key, self.onward(warehouse, wave + self.pack_s, area, self.pack_cost))
        return found

    def onward(self, place: str, moment: int, area: str, fixed: int = 0) -> list[Option]:
        """The same for what is at a place at a moment."""
        if self.network.is_hub(place):
            found = [Option(a, f + fixed, rate, lanes) for a, f, rate, lanes in self._tail(place, moment, area)]
            return found
        start: list[Label] = [(moment, fixed, 0, None, None)]
        ways = [(start, door) for door in self._doors(area)] if place == area else []
        found = [_option(label) for label in _best(ways)]
        for lane in self._open(self.network.out[place]):
            [first] = _best([(start, lane)])
            found += [Option(a, first[1] + f, first[2] + rate, (lane, *lanes))
                      for a, f, rate, lanes in self._tail(lane.to, first[0], area)]
        return _best_options(found)

    # -- search -------------------------------------------------------------------------------------------------------

    def _tail(self, hub: str, moment: int, area: str) -> list[Option]:
        """From a hub to the doors of an area."""
        moment = self._leaves(hub, moment)
        key = hub, moment, area
        found = self._tails.get(key)
        if found is None:
            self.searched += 1
            if self.network.is_hub(area):
                there = self._at(hub, moment, area, self._lanes_to(area))
            else:
                there = _best([(self._at(hub, moment, lane.origin, self._lanes_to(lane.origin)), lane)
                               for lane in self._into(area)])
            found = _remember(self._tails, key, [_option(label) for label in _best([(there, d) for d in self._doors(area)])])
        return found

    def _leaves(self, hub: str, moment: int) -> int:
        """The next moment at which anything leaves a hub: until then nothing is decided."""
        tables = self._tables.get(hub)
        if tables is None:
            lanes = (*self.network.out[hub], *self.network.doors[hub])
            tables = self._tables[hub] = list({id(lane.table): lane.table for lane in lanes}.values())
        return min(table.next(moment) for table in tables)

    def _at(self, hub: str, moment: int, place: str, lanes: int) -> list[Label]:
        """At a hub, over at most so many lanes between hubs."""
        key = hub, moment, place, lanes
        found = self._labels.get(key)
        if found is None:
            if place == hub:
                found = [(moment, 0, 0, None, None)]
            elif lanes == 1:
                start: list[Label] = [(moment, 0, 0, None, None)]
                found = _best([(start, lane) for lane in self._between(hub, place)])
            else:
                before = [(self._at(hub, moment, lane.origin, lanes - 1), lane) for lane in self._last_lanes(hub, place, lanes)]
                found = _best([way for way in before if way[0]], moment + self.promise_s)
            _remember(self._labels, key, found)
        return found

    def _last_lanes(self, hub: str, place: str, lanes: int) -> list[Lane]:
        """Lanes that may end a way of so many lanes. Of two, only those from where one lane leads: whichever side has fewer."""
        if lanes > 2 or len(self.network.out[hub]) >= len(self.network.into[place]):
            return self._into(place)
        there = dict.fromkeys([hub, *(lane.to for lane in self.network.out[hub])])
        return [lane for at in there if self.network.is_hub(at) for lane in self._between(at, place)]

    def _lanes_to(self, hub: str) -> int:
        return MAJOR_LANES if self.network.places[hub].kind == "major" else HUB_LANES

    def _into(self, place: str) -> list[Lane]:
        """Lanes from hubs to a place that are not closed."""
        known = self._lanes.get(place)
        if known is None:
            known = self._lanes[place] = [lane for lane in self._open(self.network.into[place])
                                          if self.network.is_hub(lane.origin)]
        return known

    def _between(self, hub: str, place: str) -> list[Lane]:
        return self._open(self.network.between.get((hub, place), []))

    def _doors(self, place: str) -> list[Lane]:
        return self._open(self.network.doors[place])

    def _open(self, lanes: list[Lane]) -> list[Lane]:
        return [lane for lane in lanes if lane.id not in self.closed] if self.closed else lanes


def choose(options: Iterable[Option], grams: int, deadline: int) -> Option | None:
    """The cheapest by the deadline, else the earliest. `options`: the earliest first."""
    best, least = None, 0
    for option in options:
        if best is not None and option[0] > deadline:
            break
        cost = option[1] + option[2] * grams
        if best is None or cost < least:
            best, least = option, cost
    return best


def legs(lanes: Iterable[Lane], moment: int) -> list[tuple[Lane, int, int]]:
    """(lane, departs, arrives) of what stands at the first one's origin at this moment."""
    run = []
    for lane in lanes:
        departs, moment = lane.run(moment)
        run.append((lane, departs, moment))
    return run


def _best(ways: list[tuple[list[Label], Lane]], latest: int | None = None) -> list[Label]:
    """Each label carried over its lane; of these the ones that no other beats in arrival and in price at both ends of weight,
    the earliest first. After `latest` only the first to arrive."""
    found = []
    for labels, lane in ways:
        _, _, _, _, _, fixed, rate, table, transit_s, customs, clear_s = lane
        for label in labels:
            arrives = table.next(label[0]) + transit_s
            if customs is not None:
                arrives = customs.next(arrives) + clear_s
            found.append((arrives, label[1] + fixed, label[2] + rate, lane, label))
    found.sort(key=_order)
    kept: list[Label] = []
    ends: list[tuple[int, int]] = []
    for label in found:
        if latest is not None and label[0] > latest and kept:
            break
        fixed, rate = label[1], label[2]
        light, heavy = fixed + rate * LIGHT_G, fixed + rate * HEAVY_G
        for a, b in ends:
            if a <= light and b <= heavy:
                break
        else:
            kept.append(label)
            ends.append((light, heavy))
    return kept


def _best_options(options: list[Option]) -> list[Option]:
    """As `_best`, of what has arrived."""
    kept: list[Option] = []
    for option in sorted(options, key=_order):
        light, heavy = option.cost(LIGHT_G), option.cost(HEAVY_G)
        if not any(o.cost(LIGHT_G) <= light and o.cost(HEAVY_G) <= heavy for o in kept):
            kept.append(option)
    return kept


def _order(label: tuple) -> tuple[int, int, int]:
    return label[:3]


def _option(label: Label) -> Option:
    lanes, at = [], label
    while at is not None and at[3] is not None:
        lanes.append(at[3])
        at = at[4]
    return Option(label[0], label[1], label[2], tuple(reversed(lanes)))


def _remember(answers: dict, key: tuple, answer: Any) -> Any:
    """What was asked first is the oldest wave, and asked for no more."""
    answers[key] = answer
    if len(answers) > REMEMBERED:
        for old in list(answers)[:REMEMBERED // 4]:
            del answers[old]
    return answer
