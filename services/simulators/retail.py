"""Real orders out of the Online Retail data: which lines count, what they order, and what is undone later.

`read` sorts every source line into accepted, merged or refused with a named reason (first match wins):

 1. a negative quantity outside a cancellation (stock adjustment): refused
 2. another price of zero: refused
 3. a line of a cancellation (invoice number C...): refused unless it undoes an earlier sale (see below)
 4. not goods and not postage (manual entry, voucher, fee, sample), or a price in fractions of a penny: refused
 5. postage on an invoice without goods of rules 1 to 4: refused
 6. "Unspecified" and "European Community", which are no countries: refused
 7. same invoice, code and price as a line before: merged into it by adding
 8. the rest: accepted, goods as order lines, postage as the order's freight

Goods have a code that starts with five digits or with DCGS; postage is POST, DOT and C2; codes are compared in upper
case. A code that is in no rule is an error of the file, not a refusal: nobody has said what it means.

Cancellations name no sale, so each is matched with the earlier lines of rule 8 that have its customer, code and price:
the newest first, in part where quantities differ, and no unit twice. "Earlier" is earlier in time, then in the file.
A guest has no number to be matched by, so nothing of a guest is undone. What a cancellation has beyond the units sold
stands in the report as `cancelled_beyond_sales` and moves no money.

Applied to the whole of `online-retail-2010-12-to-2011-05.csv.gz` this gives every count the project set out from, with
no difference left: 209,029 lines = 203,168 accepted + 3,109 merged + 2,752 refused; 8,063 orders, 702 of guests.
`tests/test_retail.py` holds the whole table.

Two readings had to be chosen, and neither changes a figure. The 42 refused postage cancellations are 29 without an
earlier match and 13 of guests. A "sub-penny price" is any price that is not in whole pence: the file has one line of
that kind (PADS at 0.001), and without them an order, each of its lines and each undone unit is a whole number of
pence, so nothing is ever rounded. `money_difference` is computed all the same, from the file's own decimals.

Source: Chen, Sain, Guo (2012), Online Retail, UCI Machine Learning Repository; see `tests/data/README.md`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from services.simulators.retail_csv import BadFile, Record, records
from services.simulators.retail_orders import (
    PENNY,
    PLACE,
    REASONS,
    UNDECIDED,
    Kind,
    Line,
    Money,
    Order,
    Reading,
    Undo,
    Verdict,
    report,
    shifted,
    verdicts,
    write_verdicts,
)

__all__ = ["BadFile", "Line", "Order", "Reading", "Undo", "Verdict", "read", "report", "shifted", "verdicts",
           "write_verdicts"]

POSTAGE = frozenset({"POST", "DOT", "C2"})
NEITHER = {"M": "manual", "BANK CHARGES": "bank_charge", "AMAZONFEE": "marketplace_fee", "S": "sample", "D": "discount"}

LINES_MAX = 2000  # of an order; this and the next two are the limits of the topic orders are placed on
QUANTITY_MAX = 10**6
PENCE_MAX = 10**13

CANCEL_WITHIN = timedelta(hours=24)
RETURN_WITHIN = timedelta(days=30)

@dataclass(slots=True)
class _Sale:
    """An accepted sale line while it is gathered; `left` are the units no cancellation has used yet."""

    first: Record
    quantity: int
    line_no: int = 0
    placed_at: datetime | None = None
    left: int = 0

    @property
    def pence(self) -> int:
        return int(self.first.price * 100)


@dataclass(slots=True)
class _Classes:
    """What the first pass leaves: a place in REASONS for each line it could decide, and the others."""

    outcomes: bytearray = field(default_factory=bytearray)
    sales: dict[str, list[Record]] = field(default_factory=dict)  # by invoice
    cancellations: list[Record] = field(default_factory=list)
    money: Money = field(default_factory=Money)
    first_at: datetime | None = None

    def settle(self, record: Record, reason: str) -> None:
        self.outcomes[record.line - 2] = PLACE[reason]
        if REASONS[reason] == "refused":
            self.money.refused += record.money
        elif record.cancels:
            self.money.cancelled += record.money
        else:
            self.money.sold += record.money


def read(path: str | Path) -> Reading:
    """Read a CSV or .csv.gz file to its end and classify every line.

    Raises BadFile for what the file holds and OSError when it cannot be opened; nothing is half done.
    """
    classes = _Classes()
    for record in records(path):
        classes.outcomes.append(UNDECIDED)
        if classes.first_at is None or record.at < classes.first_at:
            classes.first_at = record.at
        try:
            reason = _refusal(record)
        except KeyError:
            raise BadFile(path, record.line, "StockCode", f"{record.code!r} is no goods, postage or known charge",
                          "Remove the line, or say what the code means in services/simulators/retail.py") from None
        if reason:
            classes.settle(record, reason)
        elif record.cancels:
            classes.cancellations.append(record)
        else:
            classes.sales.setdefault(record.invoice_no, []).append(record)

    orders, sales = [], []
    for invoice in classes.sales.values():
        gathered = _gather(path, invoice, classes)
        if gathered:
            orders.append(_order(path, gathered))
            sales += gathered
    undos = tuple(_match(sales, classes))
    assert UNDECIDED not in classes.outcomes, "a line was left without a verdict"
    return Reading(bytes(classes.outcomes), tuple(orders), undos, classes.money, classes.first_at)


@lru_cache(maxsize=65536)
def is_goods(code: str) -> bool:
    """Whether an upper-case stock code means goods, as against a charge."""
    return (len(code) >= 5 and code[:5].isdigit()) or code.startswith("DCGS")


def _refusal(record: Record) -> str | None:
    """Rules 1 to 4, which need nothing but the line. Raises KeyError for a code that is in no rule."""
    if record.quantity < 0 and not record.cancels:
        return "stock_adjustment"
    if not record.price:
        return "price_zero"
    sellable = is_goods(record.code) or record.code in POSTAGE
    if record.cancels:
        return None if sellable else "cancellation_of_neither_goods_nor_postage"
    if record.code.startswith("GIFT_"):
        return "gift_voucher"
    if record.code in NEITHER:
        return NEITHER[record.code]
    if record.price % PENNY:
        return "sub_penny_price"
    if not sellable:
        raise KeyError(record.code)
    return None


def _gather(path: str | Path, invoice: list[Record], classes: _Classes) -> list[_Sale]:
    """Rules 5 to 8 on the remaining lines of one invoice; its accepted lines, with what is merged into them."""
    head = invoice[0]
    with_goods = any(is_goods(record.code) for record in invoice)
    sales: dict[tuple[str, Decimal], _Sale] = {}
    for record in invoice:
        if record.customer != head.customer:
            raise _at_odds(path, record, "CustomerID", record.customer, head.customer)
        if record.country_name != head.country_name:
            raise _at_odds(path, record, "Country", record.country_name, head.country_name)
        key = (record.code, record.price)
        if not is_goods(record.code) and not with_goods:
            classes.settle(record, "postage_without_goods")
        elif record.country is None:
            classes.settle(record, "not_a_country")
        elif key in sales:
            sales[key].quantity += record.quantity
            classes.settle(record, "same_invoice_code_and_price")
        else:
            sales[key] = _Sale(record, record.quantity)
            classes.settle(record, "goods" if is_goods(record.code) else "freight")
    return list(sales.values())


def _at_odds(path: str | Path, record: Record, column: str, here: str | None, before: str | None) -> BadFile:
    return BadFile(path, record.line, column, f"invoice {record.invoice_no} has {here or 'nothing'} here and "
                   f"{before or 'nothing'} on an earlier line", "Make the invoice agree with itself")


def _order(path: str | Path, sales: list[_Sale]) -> Order:
    """One order of an invoice's accepted lines; tells each of them its line number and time."""
    head = sales[0].first
    # 34 invoices of the file were typed across a minute; the order is placed at its first.
    placed_at = min(sale.first.at for sale in sales)
    lines: list[Line] = []
    freight = 0
    for sale in sales:
        record = sale.first
        sale.placed_at, sale.left = placed_at, sale.quantity
        if is_goods(record.code):
            sale.line_no = len(lines) + 1
            lines.append(Line(sale.line_no, record.code, record.description, sale.quantity, sale.pence))
        else:
            freight += sale.quantity * sale.pence
        if len(lines) > LINES_MAX:
            raise BadFile(path, record.line, "InvoiceNo", f"the invoice has more than {LINES_MAX} order lines",
                          "Split the invoice")
        if sale.quantity > QUANTITY_MAX:
            raise BadFile(path, record.line, "Quantity", f"with the lines merged into it over {QUANTITY_MAX} units",
                          "Split the invoice")
    order = Order(head.invoice_no, head.customer, head.country_name, head.country, placed_at, tuple(lines), freight)
    if order.total > PENCE_MAX:
        raise BadFile(path, head.line, "UnitPrice", f"the invoice comes to more than {PENCE_MAX} pence",
                      "Split the invoice")
    return order


def _match(sales: list[_Sale], classes: _Classes) -> Iterator[Undo]:
    """Rule 3 on the remaining cancellations: what each undoes, in the order of their time."""
    # One walk through both in time: a sale is on its stack before the first cancellation that may use it.
    waiting = sorted(sales, key=lambda sale: (sale.first.at, sale.first.line), reverse=True)
    stacks: defaultdict[tuple[str | None, str, Decimal], list[_Sale]] = defaultdict(list)
    for record in sorted(classes.cancellations, key=lambda record: (record.at, record.line)):
        while waiting and (waiting[-1].first.at, waiting[-1].first.line) < (record.at, record.line):
            sale = waiting.pop()
            stacks[sale.first.customer, sale.first.code, sale.first.price].append(sale)
        goods = is_goods(record.code)
        if goods and record.customer is None:
            classes.settle(record, "cancellation_without_customer")
            continue
        stack = stacks[record.customer, record.code, record.price] if record.customer else []
        wanted = -record.quantity
        while wanted and stack:
            sale = stack[-1]
            taken = min(wanted, sale.left)
            wanted -= taken
            sale.left -= taken
            if not sale.left:
                stack.pop()
            yield _undo(record, sale, taken)
        part = "_in_part" if wanted else ""
        if wanted == -record.quantity:
            classes.settle(record, "cancellation_without_earlier_match" if goods
                           else "cancellation_of_postage_without_earlier_match")
        else:
            classes.settle(record, f"{'goods' if goods else 'postage'}_cancelled{part}")
            classes.money.cancelled_beyond_sales -= wanted * record.price


def _undo(record: Record, sale: _Sale, quantity: int) -> Undo:
    assert sale.placed_at is not None and sale.placed_at <= record.at
    after = record.at - sale.placed_at
    kind: Kind = "cancel" if after <= CANCEL_WITHIN else "return" if after <= RETURN_WITHIN else "grant_refund"
    return Undo(record.invoice_no, record.line, sale.first.invoice_no, sale.line_no, quantity, sale.pence, record.at,
                after, kind)
