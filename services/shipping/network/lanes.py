"""The lanes between the places, as network.toml prices and times them."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from datetime import date
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from services.shipping.network.geography import Place, km, places
from services.shipping.network.timetables import HOUR, Timetable

RULES_FILE = Path(__file__).with_name("network.toml")
DOOR = "door"
_GRID_S = 1800  # transit times are rounded up to it, so that arrivals fall together
_MAJORS_NEAR = 3


class Lane(NamedTuple):
    """One way from a place to another, or to the doors around it (`to` is DOOR). `fixed`: for a parcel, `rate`: for a gram,
    both in thousandths of a cent. A lane that enters another customs territory ends with `customs`, `clear_s` long."""

    id: str
    origin: str
    to: str
    service: str
    carrier: str
    fixed: int
    rate: int
    table: Timetable
    transit_s: int
    customs: Timetable | None = None
    clear_s: int = 0

    def run(self, moment: int) -> tuple[int, int]:
        """(departs, arrives) of what is there at this moment."""
        departs = self.table.next(moment)
        arrives = departs + self.transit_s
        return departs, arrives if self.customs is None else self.customs.next(arrives) + self.clear_s


class Network(NamedTuple):
    """`out`, `into`: lanes by place, `between`: by both; `doors`: a place's last legs; `main`: a country's largest place;
    `waves`: when a place's packers begin."""

    version: str
    valid: tuple[date, date]
    rules: dict[str, Any]
    places: dict[str, Place]
    lanes: dict[str, Lane]
    out: dict[str, list[Lane]]
    into: dict[str, list[Lane]]
    between: dict[tuple[str, str], list[Lane]]
    doors: dict[str, list[Lane]]
    waves: dict[str, Timetable]
    main: dict[str, str]

    def is_hub(self, place_id: str) -> bool:
        return self.places[place_id].kind != "warehouse"


def build(rules: dict[str, Any], known: dict[str, Place]) -> Network:
    """The network of these places. Deterministic."""
    found: dict[str, Lane] = {}
    for a, b, service in _pairs(rules, known):
        lane = _lane(rules, known[a], known[b], service)
        found[lane.id] = lane
    out, into, between, doors, main = defaultdict(list), defaultdict(list), defaultdict(list), {}, {}
    for lane in found.values():
        between[lane.origin, lane.to].append(lane)
        out[lane.origin].append(lane)
        into[lane.to].append(lane)
    for place in known.values():
        main.setdefault(place.country, place.id)
        doors[place.id] = [_door(rules, place, name) for name in rules["door"]]
        found |= {lane.id: lane for lane in doors[place.id]}
    waves = {place.id: _table(place, rules["warehouse"]) for place in known.values()}
    valid = rules["valid_from"], rules["valid_to"]
    return Network(rules["version"], valid, rules, known, found, out, into, between, doors, waves, main)


@lru_cache(maxsize=1)
def network() -> Network:
    """The network of today, once a process."""
    return build(load_rules(), places())


@lru_cache(maxsize=1)
def load_rules() -> dict[str, Any]:
    return tomllib.loads(RULES_FILE.read_text(encoding="utf-8"))


def in_bond(net: Network) -> Network:
    """What parcels from bonded warehouses (mode 1210) travel on: places and lanes within their country, so that none crosses a border."""
    bonded = net.rules["bonded"]
    known = {id_: place for id_, place in net.places.items() if place.country == bonded["country"]}

    def stay(lanes: dict[Any, list[Lane]]) -> dict[Any, list[Lane]]:
        return defaultdict(list, {key: [lane for lane in found if lane.origin in known and (lane.to in known or lane.to == DOOR)]
                                  for key, found in lanes.items()})
    return net._replace(places=known, out=stay(net.out), into=stay(net.into), between=stay(net.between),
                        rules=net.rules | {"lead_h": bonded["lead_h"]})


def _pairs(rules: dict[str, Any], known: dict[str, Place]) -> list[tuple[str, str, str]]:
    """(from, to, service) of every lane: lorries to hubs near by, aeroplanes between majors and from each hub to some."""
    hubs = [p for p in known.values() if p.kind != "warehouse"]
    majors = [p for p in hubs if p.kind == "major"]
    lands = {country: n for n, land in enumerate(rules["lands"]) for country in land}
    road, found = rules["service"]["road"], []
    by_land: dict[Any, list[Place]] = defaultdict(list)
    for hub in hubs:
        by_land[lands.get(hub.country, hub.country)].append(hub)
    for place in known.values():
        near = sorted((km(place, hub), hub.id) for hub in by_land[lands.get(place.country, place.country)] if hub.id != place.id)
        reached = [id_ for far, id_ in near[:road["neighbours"]] if far <= road["reach_km"]]
        if place.kind == "warehouse":
            reached = [*reached[:3], *(id_ for _, id_ in near[:1] if not reached)]
        found += [pair for id_ in reached for pair in ((place.id, id_, "road"), (id_, place.id, "road"))]
        if place.kind == "hub":
            some = sorted((km(place, major), major.id) for major in majors)[:_MAJORS_NEAR]
            found += [pair for _, id_ in some for service in ("air", "express")
                      for pair in ((place.id, id_, service), (id_, place.id, service))]
    found += [(a.id, b.id, service) for a in majors for b in majors if a is not b for service in ("air", "express")]
    return list(dict.fromkeys(found))


def _lane(rules: dict[str, Any], a: Place, b: Place, service: str) -> Lane:
    by, far = rules["service"][service], km(a, b)
    hours = far * by["detour"] / by["kmh"] + by["handling_h"]
    fixed, customs, clear_s = by["parcel"], None, 0
    if _territory(rules, a.country) != _territory(rules, b.country):
        office = rules["customs"]["express" if service == "express" else "standard"]
        fixed, customs, clear_s = fixed + office["parcel"], _table(b, office), office["clear_h"] * HOUR
    return Lane(f"{a.id}-{b.id}-{service}", a.id, b.id, service, by["carrier"], fixed * 1000,
                round(by["kg"] + by["kg_1000km"] * far * by["detour"] / 1000), _table(a, by),
                ceil(hours * HOUR / _GRID_S) * _GRID_S, customs, clear_s)


def _door(rules: dict[str, Any], place: Place, name: str) -> Lane:
    by = rules["door"][name]
    return Lane(f"{place.id}-{DOOR}-{name}", place.id, DOOR, name, by["carrier"], by["parcel"] * 1000, by["kg"], _table(place, by),
                by["hours"] * HOUR)


def _table(place: Place, by: dict[str, Any]) -> Timetable:
    return _shared(place.country, place.zone, by["days"], tuple(by["cutoffs"]))


@lru_cache(maxsize=None)  # a few for each country and zone
def _shared(*hours: Any) -> Timetable:
    return Timetable(*hours)


def _territory(rules: dict[str, Any], country: str) -> str:
    return "EU" if country in rules["europe"] else country
