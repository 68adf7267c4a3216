"""The orders of a retail file and the account of its lines: plain values, and the report drawn from them.

Money of an order is whole pence (GBP); money of the file is exact decimals in pounds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple, TextIO

# reason → verdict. The place of a reason in this table is how `Reading.outcomes` stores it.
REASONS = {
    "goods": "accepted",
    "freight": "accepted",
    "goods_cancelled": "accepted",
    "goods_cancelled_in_part": "accepted",  # fewer unused units were sold than the line cancels
    "postage_cancelled": "accepted",
    "postage_cancelled_in_part": "accepted",
    "same_invoice_code_and_price": "merged",
    "stock_adjustment": "refused",
    "price_zero": "refused",
    "cancellation_of_neither_goods_nor_postage": "refused",
    "cancellation_of_postage_without_earlier_match": "refused",
    "cancellation_without_customer": "refused",
    "cancellation_without_earlier_match": "refused",
    "manual": "refused",
    "gift_voucher": "refused",
    "bank_charge": "refused",
    "marketplace_fee": "refused",
    "sample": "refused",
    "discount": "refused",  # as a sale only outside the shared half of the data
    "sub_penny_price": "refused",
    "postage_without_goods": "refused",
    "not_a_country": "refused",
}
PLACE = {reason: place for place, reason in enumerate(REASONS)}
UNDECIDED = 255

PENNY = Decimal("0.01")

Kind = Literal["cancel", "return", "grant_refund"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an order; `line_no` counts from 1, `sku` is upper case, `unit_price` is in pence."""

    line_no: int
    sku: str
    description: str
    quantity: int
    unit_price: int

    @property
    def amount(self) -> int:
        """Pence."""
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class Order:
    """One invoice. `customer` None is a guest; `country` is ISO 3166-1 alpha-2; `freight` is in pence (GBP)."""

    invoice_no: str
    customer: str | None
    country_name: str
    country: str
    placed_at: datetime
    lines: tuple[Line, ...]
    freight: int

    @property
    def total(self) -> int:
        """Goods and freight in pence."""
        return sum(line.amount for line in self.lines) + self.freight

    @property
    def domestic(self) -> bool:
        """The merchant sells from the United Kingdom; the Channel Islands are abroad, as they are for its customs."""
        return self.country == "GB"


@dataclass(frozen=True, slots=True)
class Undo:
    """What one cancellation line takes back of one line of one order.

    `line_no` 0 is the order's freight. `amount` is in pence. `after` is the time since the order was placed.
    (`source_line`, `invoice_no`, `line_no`) never repeats, so an id derived from it is stable.
    """

    cancellation_no: str
    source_line: int
    invoice_no: str
    line_no: int
    quantity: int
    unit_price: int
    cancelled_at: datetime
    after: timedelta
    kind: Kind

    @property
    def amount(self) -> int:
        """Pence."""
        return self.quantity * self.unit_price


class Verdict(NamedTuple):
    """What became of one source line. `line` counts from 1, with the header as line 1."""

    line: int
    verdict: Literal["accepted", "merged", "refused"]
    reason: str


@dataclass(slots=True)
class Money:
    """Sums of quantity times price of the file's own decimals, in pounds; cancellations are negative."""

    sold: Decimal = Decimal(0)  # accepted and merged lines of sales
    cancelled: Decimal = Decimal(0)  # accepted lines of cancellations, whole
    cancelled_beyond_sales: Decimal = Decimal(0)  # of these, the units that no sale was left for
    refused: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Reading:
    """A whole file, classified. `outcomes[i]` is the place in REASONS of the reason for line i + 2.

    `orders` are in the order of their first accepted line, `undos` in the order of their time.
    `first_at` is the earliest time of any line; None when the file has a header only.
    """

    outcomes: bytes
    orders: tuple[Order, ...]
    undos: tuple[Undo, ...]
    money: Money
    first_at: datetime | None


def shifted(reading: Reading, now: datetime) -> Reading:
    """The same reading with every time moved so that the first line of the file is at `now` (aware)."""
    if reading.first_at is None:
        return reading
    by = now - reading.first_at
    return replace(
        reading,
        orders=tuple(replace(order, placed_at=order.placed_at + by) for order in reading.orders),
        undos=tuple(replace(undo, cancelled_at=undo.cancelled_at + by) for undo in reading.undos),
        first_at=now,
    )


def verdicts(reading: Reading) -> Iterator[Verdict]:
    """What became of every source line, in the file's order."""
    table = [(verdict, reason) for reason, verdict in REASONS.items()]
    for line, place in enumerate(reading.outcomes, start=2):
        yield Verdict(line, *table[place])


def write_verdicts(lines: Iterable[Verdict], file: TextIO) -> None:
    """Write one JSON object a line: {"line": 2, "verdict": "accepted", "reason": "goods"}."""
    for line in lines:
        file.write(json.dumps(line._asdict()) + "\n")


def report(reading: Reading) -> dict[str, object]:
    """The account of a file, ready for JSON.

    `lines` = `accepted` + `merged` + `refused`. `money` holds pounds as exact decimal texts and
    `money_difference`, in tenths of a penny, is what remains between the file and the orders; anything but 0 is a bug:
    sold + cancelled - cancelled_beyond_sales - (orders - undone).
    """
    counts = Counter(reading.outcomes)
    reasons = {reason: counts[place] for reason, place in PLACE.items() if counts[place]}
    by_verdict: Counter[str] = Counter()
    for reason, count in reasons.items():
        by_verdict[REASONS[reason]] += count
    money = reading.money
    ordered = sum(order.total for order in reading.orders)
    undone = sum(undo.amount for undo in reading.undos)
    difference = money.sold + money.cancelled - money.cancelled_beyond_sales - (ordered - undone) * PENNY
    tenths = difference * 1000
    return {
        "lines": len(reading.outcomes),
        "accepted": by_verdict["accepted"],
        "merged": by_verdict["merged"],
        "refused": by_verdict["refused"],
        "orders": len(reading.orders),
        "money_difference": int(tenths) if tenths == int(tenths) else str(tenths),
        "reasons": reasons,
        "orders_of_guests": sum(order.customer is None for order in reading.orders),
        "orders_domestic": sum(order.domestic for order in reading.orders),
        "orders_by_country": dict(Counter(order.country for order in reading.orders).most_common()),
        "order_lines": sum(len(order.lines) for order in reading.orders),
        "undos": len(reading.undos),
        "undos_by_kind": dict(sorted(Counter(undo.kind for undo in reading.undos).items())),
        "money": {
            "currency": "GBP",
            "sold": str(money.sold),
            "cancelled": str(money.cancelled),
            "cancelled_beyond_sales": str(money.cancelled_beyond_sales),
            "refused": str(money.refused),
            "orders": str(ordered * PENNY),
            "undone": str(undone * PENNY),
        },
    }
