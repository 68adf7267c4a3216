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
    timers: frozenset[str] | None = None
    stock: int = 9
    inbound: tuple[tuple[str, str, int], ...] = ()
    order: PlaceOrder | None = None

    def setting(self) -> Setting:
        placed = self.order or order(destination=DESTINATIONS[self.regime], lines=TWO if self.parcels == 2 else ONE)
        stock = {("SEA1", "CHERRY"): self.stock} | ({("PVD1", "TOY"): 9} if self.parcels == 2 else {})
        return Setting((placed,), (self.words,), {row: units for row, units in stock.items() if units}, self.inbound,
                       self.timers)


def _path(name: str, about: str, words: str, ends: set[str] | frozenset[str], **more) -> Path:
    return Path(name, about, frozenset(filter(None, words.split(", "))), frozenset(ends), **more)


PATHS: tuple[Path, ...] = (
    _path("abroad", "", "confirm", set()),
    _path("china", "", "confirm", set(), regime="china"),
    _path("domestic", "", "confirm", set(), regime="domestic"),
    _path("cancel", "", "confirm, cancel, stops", set()),
    _path("cancel-china", "", "confirm, cancel, stops", set(), regime="china"),
    _path("cancel-line", "", "confirm, cancel line, stops", set()),
    _path("cancel-line-china", "", "confirm, cancel line, stops", set(), regime="china"),
    _path("cancel-line-domestic", "", "confirm, cancel line, cancel", set(), regime="domestic"),
    _path("short", "", "confirm, short, rejects", set()),
    _path("customs", "", "confirm, holds, refuses", set()),
    _path("customs-china", "", "confirm, holds, refuses", set(), regime="china"),
    _path("deliveries", "", "confirm, fails, loses", set(), regime="domestic"),
    _path("deliveries-abroad", "", "confirm, fails, loses", set()),
    _path("return", "", "confirm, return", set(), regime="domestic"),
    _path("return-line", "", "confirm, return line, return late", set(), regime="domestic"),
    _path("return-china", "", "confirm, return line", set(), regime="china"),
    _path("grant", "", "confirm, grant", set(), regime="domestic"),
    _path("grant-amount", "", "confirm, grant amount, grant line", set(), regime="domestic"),
    _path("dispute", "", "confirm, dispute", set(), regime="domestic"),
    _path("dispute-return", "", "confirm, dispute, return", set(), regime="domestic"),
    _path("dispute-cancel", "", "dispute, cancel, stops", set(), regime="domestic"),
    _path("dispute-customs", "", "dispute, refuses", set()),
    _path("dispute-grant", "", "dispute, grant amount", set(), regime="domestic"),
    _path("return-grant", "", "return, grant", set(), regime="domestic"),
    _path("return-twice", "", "return, return line", set(), regime="domestic"),
    _path("provider", "", "confirm, decline, capture fails, void fails, release fails", set()),
    _path("provider-china", "", "confirm, decline, capture fails, void fails, release fails", set(), regime="china"),
    _path("refund-fails", "", "confirm, refund fails, cancel", set(), regime="domestic"),
    _path("twice", "", "answers twice, cancel, confirm", set(), regime="domestic"),
    _path("contradicts", "", "contradicts, cancel, confirm", set(), regime="domestic"),
    _path("wrong", "", "wrong amount, confirm", set(), regime="domestic"),
    _path("swaps", "", "swaps, confirm", set()),
    _path("resend", "", "resend, confirm", set(), regime="domestic"),
    _path("two", "", "confirm", set(), parcels=2, regime="domestic"),
    _path("two-still", "", "confirm, express", set(), parcels=2, regime="domestic", timers=frozenset({"confirm"})),
    _path("two-abroad-still", "", "confirm, express", set(), parcels=2, timers=frozenset({"confirm"})),
    _path("two-china-still", "", "confirm, express", set(), parcels=2, regime="china", timers=frozenset({"confirm"})),
)
