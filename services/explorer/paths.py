"""The paths: each is one order and an alphabet of what the world may do with it, small enough to be closed completely.

Together they reach every exit of docs/exits.md; `ends` is how the order must be able to end on this path, and nothing else
may happen. On every path the provider may be late, every timer that is armed may fire at any later moment, and deliveries,
decisions and confirmations may never come.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.orders_intake import OrderLine, PlaceOrder
from services.explorer.simulation import order
from services.explorer.system import Setting

ONE = (("CHERRY", 2, 5000),)
TWO = (("CHERRY", 2, 5000), ("TOY", 1, 1999))
DESTINATIONS = {"abroad": "DE", "china": "CN", "domestic": "US"}
DELIVERED = {"completed"}
EARLY = {"cancelled: reservation_expired"}
BY_TIME = {"cancelled: lost", "cancelled: customs_refused"}


@dataclass(frozen=True)
class Path:
    """`words`: see `outside.WORDS`; `ends`: outcomes that must be reachable, and the only ones that may be."""

    name: str
    about: str
    words: frozenset[str]
    ends: frozenset[str]
    regime: str = "abroad"
    parcels: int = 1
    stock: int = 9
    inbound: tuple[tuple[str, str, int], ...] = ()
    order: PlaceOrder | None = None

    def setting(self) -> Setting:
        placed = self.order or order(destination=DESTINATIONS[self.regime], lines=TWO if self.parcels == 2 else ONE)
        stock = {("SEA1", "CHERRY"): self.stock} | ({("PVD1", "TOY"): 9} if self.parcels == 2 else {})
        return Setting((placed,), (self.words,), {row: units for row, units in stock.items() if units}, self.inbound)


def _path(name: str, about: str, words: str, ends: set[str] | frozenset[str], **more) -> Path:
    return Path(name, about, frozenset(filter(None, words.split(", "))), frozenset(ends), **more)


PATHS: tuple[Path, ...] = (
    _path("abroad", "", "confirm", set()),
    _path("china", "", "confirm", set(), regime="china"),
    _path("domestic", "", "confirm", set(), regime="domestic"),
    _path("abroad-cancel", "", "confirm, cancel, stops", set()),
    _path("two", "", "confirm", set(), parcels=2),
)
