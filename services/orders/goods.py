"""What is asked of goods: the positive list of imports through CBEC, limits per person, lithium batteries by air. Pure.

Rows are dated data (`lists/goods.toml`); a row of certainty C holds only where its file says so."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from schemas.dated import Dated
from schemas.orders_intake import OrderLine, PlaceOrder
from schemas.quotes import Certainty
from services.runtime.processes import StartError

SHIPPED = Path(__file__).parent / "lists" / "goods.toml"
UN = "UN3481"


class BadGoods(StartError):
    """The file of goods cannot be read; the message names place and remedy."""


class _Row(Dated):
    id: str
    hs: tuple[str, ...]
    source: str
    certainty: Certainty
    enabled: bool

    @model_validator(mode="before")
    @classmethod
    def _unsure_unless_said(cls, row: dict[str, Any]) -> dict[str, Any]:
        return {"enabled": row.get("certainty") != "C", **row}

    def covers(self, hs_code: str) -> bool:
        return hs_code.startswith(self.hs)


class Positive(_Row):
    into: str


class Limit(_Row):
    into: str
    grams: int


class Battery(_Row):
    over_wh: float
    charge_percent_max: int
    instructions: tuple[str, ...]


@dataclass(frozen=True, eq=False)  # one object a file: its identity is a key
class Goods:
    """The rows of a file that hold, disabled ones left out."""

    positive: tuple[Positive, ...]
    limits: tuple[Limit, ...]
    batteries: tuple[Battery, ...]

    @lru_cache(maxsize=16_384)
    def of(self, hs_code: str) -> tuple[tuple[Limit, ...], tuple[Battery, ...]]:
        """The limits and batteries of a code: none, for most."""
        return tuple(r for r in self.limits if r.covers(hs_code)), tuple(r for r in self.batteries if r.covers(hs_code))


@lru_cache(maxsize=4)
def load(path: Path | None = None) -> Goods:
    """Raises BadGoods."""
    found = rows(path)
    return Goods(*(tuple(row for row in found if type(row) is kind and row.enabled) for kind in (Positive, Limit, Battery)))


def rows(path: Path | None = None) -> list[_Row]:
    """All of a file, with those that are disabled. Raises BadGoods."""
    path = path or SHIPPED
    try:
        text = tomllib.loads(path.read_text())
        if unknown := text.keys() - {"positive", "limit", "battery"}:
            raise ValueError(f"it has {sorted(unknown)}")
        return [kind(**row) for name, kind in (("positive", Positive), ("limit", Limit), ("battery", Battery)) for row in text.get(name, ())]
    except (OSError, ValueError, TypeError, ValidationError) as why:
        raise BadGoods(f"the file of goods cannot be read: {why}", str(path), "See services/orders/lists/goods.toml for its form.") from why


def check(command: PlaceOrder, goods: Goods) -> tuple[str, str] | None:
    """(reason, detail) of the first thing wrong with an order's goods, or None."""
    if command.origin == command.destination:
        return None  # within a country nothing of this is asked
    day = command.placed_at.date()
    listed = [row for row in goods.positive if row.into == command.destination and row.holds(day)]
    grams: dict[str, int] = {}
    for line in command.lines:
        limits, batteries = goods.of(line.hs_code) if line.hs_code is not None else ((), ())
        if listed and (line.hs_code is None or not any(row.covers(line.hs_code) for row in listed)):
            return "not_on_positive_list", f"line {line.line_no}: {line.hs_code or 'no hs_code'} is not on the list {listed[0].id} of what may be imported through CBEC"
        for row in limits:
            if row.into != command.destination or not row.holds(day):
                continue
            weight = _grams(command, line)
            if weight is None:
                return "goods_data_missing", f"line {line.line_no}: {line.hs_code} has a limit of {row.grams} g a person; its net_grams is missing"
            grams[row.id] = grams.get(row.id, 0) + weight
            if grams[row.id] > row.grams:
                return "over_goods_limit", f"line {line.line_no}: {grams[row.id]} g of {line.hs_code}, one person may have {row.grams} g ({row.id})"
        if batteries or line.battery is not None:
            wrong = "; ".join(_battery(line, day, goods))
            if wrong:
                return "dangerous_goods", f"line {line.line_no}: {wrong}"
    return None


def _grams(command: PlaceOrder, line: OrderLine) -> int | None:
    if line.net_grams is not None or command.quote is None:
        return line.net_grams
    return next((each.net_grams for each in command.quote.lines if each.line_no == line.line_no), None)


def _battery(line: OrderLine, day: date, goods: Goods) -> Iterator[str]:
    """What is missing or wrong of a line with lithium cells that crosses a border, which is by air."""
    row: Any = next((row for row in goods.batteries if row.holds(day)), None)
    if row is None:
        return
    told = line.battery
    if told is None:
        yield f"goods of {line.hs_code} contain lithium cells: give battery with un, watt_hours, charge_percent and packing_instruction ({row.id})"
        return
    missing = [name for name in ("un", "watt_hours", "charge_percent", "packing_instruction") if getattr(told, name) is None]
    if missing:
        yield f"battery lacks {', '.join(missing)} ({row.id})"
    if told.un not in (None, UN):
        yield f"only {UN} (packed with or in equipment) is carried, not {told.un}"
    if told.packing_instruction not in (None, *row.instructions):
        yield f"packing_instruction is {told.packing_instruction}, {UN} goes by {' or '.join(row.instructions)}"
    if told.watt_hours is not None and told.watt_hours > row.over_wh and (told.charge_percent or 0) > row.charge_percent_max:
        yield f"charge_percent is {told.charge_percent}, above {row.over_wh} Wh at most {row.charge_percent_max} by air ({row.id})"
