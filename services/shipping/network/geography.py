"""The places of the network, as places.csv has them, and how far apart they are."""

from __future__ import annotations

import csv
from functools import lru_cache
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any, NamedTuple

PLACES_FILE = Path(__file__).with_name("places.csv")
EARTH_KM = 6371.0


class Place(NamedTuple):
    """`kind`: major (flown through by the world), hub (of its country or region) or warehouse. Any place sends and delivers."""

    id: str
    name: str
    country: str
    lat: float
    lon: float
    zone: str
    kind: str

    def __str__(self) -> str:
        return f"{self.id} {self.name}, {self.country}"


@lru_cache(maxsize=1)
def places() -> dict[str, Place]:
    """By id; of a country, the largest first."""
    with PLACES_FILE.open(encoding="utf-8") as file:
        return {row["id"]: Place(row["id"], row["name"], row["country"], float(row["lat"]), float(row["lon"]), row["zone"],
                                 row["kind"]) for row in csv.DictReader(line for line in file if not line.startswith("#"))}


def km(a: Any, b: Any) -> float:
    """Great circle between two things with lat and lon, in degrees."""
    lat, other = radians(a.lat), radians(b.lat)
    half = sin((other - lat) / 2) ** 2 + cos(lat) * cos(other) * sin(radians(b.lon - a.lon) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(half)))
