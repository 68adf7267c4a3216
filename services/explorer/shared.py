"""The rows that orders share, as the explorer has them: (key, place) -> counters that only grow. A place is a warehouse; a
person's quota has none. What of a row decides something is its `level`: units that are free, or fen that are used."""

from __future__ import annotations

from services.orders.storage import COUNTERS as QUOTA_COUNTERS
from services.orders.storage import QUOTA, QuotaMove, Rows
from services.shipping.storage import COLUMN_OF as STOCK_COUNTERS
from services.shipping.storage import Stock, StockMove

Row = tuple[str, str]
Counters = dict[Row, dict[str, int]]
Levels = dict[str, dict[str, int]]  # key -> place -> level
_STOCK_SIGNS = {"received": 1, "restocked": 1, "released": 1, "reserved": -1}
_QUOTA_SIGNS = {"reserved": 1, "released": -1, "restored": -1}


class _WatchedStock(Stock):
    """Stock rows that note which SKUs were looked at, and what was moved."""

    def __init__(self, keys: set[str], levels: Levels):
        super().__init__(keys, [(warehouse, sku, units) for sku in keys for warehouse, units in levels.get(sku, {}).items()])
        self.looked: set[str] = set()
        self.moves: list[StockMove] = []

    def apply(self, move: StockMove) -> None:
        self.moves.append(move)
        super().apply(move)

    def again(self, move: StockMove) -> None:
        """What an earlier transaction of this step did."""
        if move.sku in self._keys:
            super().apply(move)

    def _need(self, key: str) -> None:
        self.looked.add(key)
        super()._need(key)


class _WatchedRows(Rows):
    """The same of the orders' rows."""

    def __init__(self, keys: set[str], levels: Levels):
        super().__init__(keys, [(key, levels[key][""]) for key in keys if key in levels])
        self.looked: set[str] = set()
        self.moves: list[QuotaMove] = []

    def apply(self, move: QuotaMove) -> None:
        self.moves.append(move)
        super().apply(move)

    def again(self, move: QuotaMove) -> None:
        if move.key in self._keys:
            super().apply(move)

    def _need(self, key: str) -> None:
        self.looked.add(key)
        super()._need(key)


VIEWS = {"shipping": _WatchedStock, "orders": _WatchedRows}


def moved(move: StockMove | QuotaMove) -> tuple[Row, str, int]:
    """(row, counter, by how much)."""
    if isinstance(move, QuotaMove):
        return (move.key, ""), QUOTA_COUNTERS[move.kind], move.units
    return (move.sku, move.warehouse), STOCK_COUNTERS[move.kind], move.units


def level(row: Row, counters: dict[str, int]) -> int:
    signs = _QUOTA_SIGNS if row[0].startswith(QUOTA) else _STOCK_SIGNS
    return sum(sign * counters.get(name, 0) for name, sign in signs.items())


def after(levels: Levels, moves: tuple) -> Levels:
    """The levels once these moves are done."""
    found = {key: dict(places) for key, places in levels.items()}
    for move in moves:
        row, counter, units = moved(move)
        places = found.setdefault(row[0], {})
        places[row[1]] = places.get(row[1], 0) + level(row, {counter: units})
    return found
