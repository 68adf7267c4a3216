"""Splitting an order into parcels: which warehouse sends which units, and what the buyer owes for each parcel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from schemas.cold_chain import Band, common_band
from schemas.orders_order import ChinaImport
from schemas.shipping_shipment import Route


@dataclass(slots=True, frozen=True)
class Line:
    """`amount`: what the buyer owes for these units, in minor units, with the line's share of tax."""

    line_no: int
    sku: str
    quantity: int
    amount: int
    hs_code: str | None = None


@dataclass(slots=True, frozen=True)
class Limits:
    """What a parcel into China may be worth at most, in fen: `per_parcel`, or `single_item` when that is all it holds.
    `prices`: line -> (price of its units as ordered, how many), without tax."""

    per_parcel: int
    single_item: int
    prices: dict[int, tuple[int, int]]

    def allow(self, content: Content) -> bool:
        worth = content.freight + sum(self.prices[l.line_no][0] * l.quantity // self.prices[l.line_no][1] for l in content.lines)
        return worth <= (self.single_item if sum(l.quantity for l in content.lines) == 1 else self.per_parcel)


@dataclass(slots=True, frozen=True)
class Wanted:
    """What an order wants of the warehouses. `goods`: sum of all line amounts as placed; the base of shares of freight, and of
    `tax`, which was quoted for an authority. `held`: (warehouse, SKU, units) of an announced harvest, until its season opens."""

    currency: str
    destination: str
    on_shortage: str
    freight: int
    goods: int
    lines: list[Line]
    limits: Limits | None = None
    origin: str = "US"
    tax: int = 0
    cold: dict[int, Band] | None = None
    accepted_at: datetime | None = None
    season: bool = False
    china: ChinaImport | None = None
    hs_digits: int = 6
    declaration: str = ""
    held: list[tuple[str, str, int]] = field(default_factory=list)
    backorder: bool = False

    @classmethod
    def of(cls, placed: Any, accepted_at: datetime | None = None) -> Wanted:
        amounts = [line.amount for line in placed.lines]
        taxes = shares(placed.tax, amounts)
        lines = [Line(l.line_no, l.sku, l.quantity, l.amount + tax, l.hs_code) for l, tax in zip(placed.lines, taxes)]
        limits = placed.china and Limits(placed.china.per_parcel, placed.china.single_item,
                                         {l.line_no: (l.amount, l.quantity) for l in placed.lines})
        return cls(placed.currency, placed.destination, placed.on_shortage, placed.freight, sum(l.amount for l in lines), lines,
                   limits, placed.origin, placed.quote.for_authorities if placed.quote else 0,
                   placed.cold and {l.line_no: Band.model_construct(
                       low_tenths=l.low_tenths, high_tenths=l.high_tenths, tolerance_minutes=l.tolerance_minutes,
                       silent_minutes=l.silent_minutes) for l in placed.cold}, accepted_at, placed.season is not None, placed.china,
                   *((placed.declaration.hs_digits, placed.declaration.name) if placed.declaration else ()),
                   backorder=placed.backorder and placed.season is None)

    def without(self, units: dict[int, int]) -> Wanted:
        """The same with some units taken out."""
        kept = []
        for line in self.lines:
            left = line.quantity - units.get(line.line_no, 0)
            if left > 0:
                kept.append(replace(line, quantity=left, amount=line.amount * left // line.quantity))
        return replace(self, lines=kept)


@dataclass(slots=True, frozen=True)
class Content:
    """One parcel as planned. `sscc` names it everywhere, `waybill_no` (S10) on its way abroad; `route`: as it was
    planned first."""

    warehouse: str
    lines: list[Line]
    freight: int
    amount: int
    sscc: str = ""
    waybill_no: str = ""
    tax: int = 0
    route: Route | None = None


@dataclass(slots=True, frozen=True)
class Document:
    """What of a shipment never changes: who gets what from where. `cold`: the bands of the lines that have one; `china`: what its
    customs papers say of the persons. `declaration` wants codes of `hs_digits`; `papers_missing`: some line's is not such a code."""

    currency: str
    destination: str
    parcels: dict[str, Content]
    papers_missing: bool = False
    origin: str = "US"
    cold: dict[int, Band] | None = None
    china: ChinaImport | None = None
    hs_digits: int = 6
    declaration: str = ""

    def band(self, content: Content) -> Band | None:
        """What the logger of a parcel with this in it is set to; None: it needs none."""
        bands = [self.cold[line.line_no] for line in content.lines if line.line_no in self.cold] if self.cold else ()
        return common_band(bands) if bands else None


AWAITED = "\0"  # begins what stands for the warehouse that will have a line's units some day; no warehouse is called so


@dataclass(slots=True)
class Allocation:
    parcels: dict[str, Content] = field(default_factory=dict)
    missing: list[tuple[Line, int]] = field(default_factory=list)


def allocate(order_id: str, wanted: Wanted, available: Callable[[str], Iterable[tuple[str, int]]],
             shares_of: dict[str, dict[str, int]] | None = None) -> Allocation:
    """Take each line from the fewest warehouses, those already used first; or as `shares_of` (warehouse -> SKU -> units) says.
    `available(sku)`: (warehouse, units) pairs.

    Pure; two lines of the same SKU share what is there. Freight follows the value of what is sent; nothing is charged
    for what is missing. With a backorder what is missing is a parcel a line, of no warehouse yet."""
    taken: dict[tuple[str, str], int] = {}
    content: dict[str, list[Line]] = {}
    result = Allocation()
    for line in wanted.lines:
        there = ((w, units.get(line.sku, 0)) for w, units in shares_of.items()) if shares_of else available(line.sku)
        rows = [(w, n - taken.get((w, line.sku), 0)) for w, n in there]
        if not shares_of:
            # Whole lines first, then warehouses that send a parcel anyway, then the fullest; the name decides a draw.
            rows.sort(key=lambda row: (row[1] < line.quantity, row[0] not in content, -row[1], row[0]))
        open_units, done = line.quantity, 0
        for warehouse, units in rows:
            units = min(units, open_units)
            if units <= 0:
                continue
            amount = line.amount * (done + units) // line.quantity - line.amount * done // line.quantity
            content.setdefault(warehouse, []).append(Line(line.line_no, line.sku, units, amount, line.hs_code))
            taken[warehouse, line.sku] = taken.get((warehouse, line.sku), 0) + units
            open_units, done = open_units - units, done + units
        if open_units:
            result.missing.append((line, open_units))
    if wanted.backorder and content:
        content |= {f"{AWAITED}{line.line_no}": [Line(line.line_no, line.sku, units, line.amount - line.amount * (
            line.quantity - units) // line.quantity, line.hs_code)] for line, units in result.missing}
        result.missing.clear()
    values = {w: sum(line.amount for line in lines) for w, lines in content.items()}
    freights = shares(wanted.freight, list(values.values()), wanted.goods)
    taxes = shares(wanted.tax, list(values.values()), wanted.goods) if wanted.tax else [0] * len(values)
    for n, (warehouse, lines) in enumerate(content.items(), 1):
        freight = freights[n - 1]
        result.parcels[f"{order_id}-P{n}"] = Content("" if warehouse.startswith(AWAITED) else warehouse, lines, freight, values[warehouse] + freight, tax=taxes[n - 1])
    return result


def within_limits(found: Allocation, limits: Limits) -> bool:
    """Take the parcels out that customs would refuse for what they are worth; whether there were any."""
    over = [parcel_id for parcel_id, content in found.parcels.items() if not limits.allow(content)]
    for parcel_id in over:
        found.missing += [(line, line.quantity) for line in found.parcels.pop(parcel_id).lines]
    return bool(over)


def shares(total: int, weights: list[int], of: int | None = None) -> list[int]:
    """Split `total` by weight so that the parts add up to it exactly (or to its part, when the weights are not all)."""
    whole, parts, seen, given = of or sum(weights), [], 0, 0
    for weight in weights:
        seen += weight
        upto = total * seen // whole if whole else 0
        parts.append(upto - given)
        given = upto
    return parts
