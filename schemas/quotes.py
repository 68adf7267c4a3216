"""Landed cost: what is asked (`QuoteRequest`), what is answered (`Quote`), and what an order says of it (`StatedQuote`).

Amounts are minor units of the currency the buyer pays in, except where a field says that customs counts in another one.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.model import CommandPart, Country, Currency, LineNo, Minor, Part, Quantity

HsCode = Annotated[str, Field(pattern=r"^\d{6,10}$", description="Harmonised System, 6 to 10 digits without dots")]
Mode = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,20}$", description="9610, 1210, ioss …; absent: the usual one")]
Grams = Annotated[int, Field(ge=1, le=10**9, description="net weight of the whole line; some taxes depend on it")]
UsedLimit = Annotated[int, Field(ge=0, le=10**13, description="of the buyer's yearly limit, in customs' minor units")]
Channel = Literal["b2c", "post", "express"]
Kind = Literal["goods", "freight", "insurance", "duty", "consumption_tax", "import_tax", "clearance_fee"]
Certainty = Literal["A", "B", "C"]
# What the buyer pays beside goods, freight and insurance: an order's `tax`, when duty and taxes are paid with it.
TAXES: tuple[Kind, ...] = ("duty", "consumption_tax", "import_tax")
PAID_TO_OTHERS: tuple[Kind, ...] = (*TAXES, "clearance_fee")


class QuoteLine(CommandPart):
    """`amount` is the price of the whole line, before freight and tax; `origin` is where the goods were made."""

    line_no: LineNo
    hs_code: HsCode
    origin: Country
    quantity: Quantity
    amount: Minor
    net_grams: Grams | None = None


class QuoteRequest(CommandPart):
    """One consignment. `import_date` is when it is expected at customs; the rules of that day hold."""

    destination: Country
    channel: Channel = "b2c"
    mode: Mode | None = None
    import_date: date
    currency: Currency
    lines: Annotated[list[QuoteLine], Field(min_length=1, max_length=2000)]
    freight: Minor = 0
    insurance: Minor = 0
    used_this_year: UsedLimit | None = None


class CustomsRate(Part):
    """What customs converts with: 1 `base` = `rate` `quote`, as a decimal string."""

    id: str
    base: Currency
    quote: Currency
    rate: str


class Charge(Part):
    """One component of the landed cost. `assessed`: the same in customs' currency; `rows`: the ids of what it follows from."""

    kind: Kind
    amount: Minor
    assessed: Minor
    levied_by: str
    collected_by: str
    collect_at: str
    rows: list[str] = []
    certainty: Certainty | None = None


class AssessedLine(Part):
    """What customs is expected to assess on one line, in customs' currency."""

    line_no: LineNo
    hs_code: str
    customs_value: Minor
    duty: Minor
    consumption_tax: Minor
    import_tax: Minor
    rows: list[str] = []


class NotCharged(Part):
    """A charge that is known of but not sure enough to be asked for."""

    id: str
    title: str
    certainty: Certainty
    source: str


class Quote(Part):
    """Landed cost. `total` is the sum of `charges`; when not `complete`, the buyer pays more on arrival."""

    destination: Country
    channel: Channel
    mode: str | None = None
    import_date: date
    currency: Currency
    customs_currency: Currency
    customs_rate: CustomsRate | None = None
    rule_id: str
    declaration: str
    charges: list[Charge]
    lines: list[AssessedLine]
    total: Minor
    complete: bool = True
    required_data: list[str] = []
    not_charged: list[NotCharged] = []
    notes: list[str] = []
    certainty: Certainty

    def amount(self, *kinds: Kind) -> int:
        """The sum of these kinds of charges."""
        return sum(charge.amount for charge in self.charges if charge.kind in kinds)

    @property
    def for_authorities(self) -> int:
        """Duty and taxes that the platform owes; what the seller declares himself is his."""
        return sum(charge.amount for charge in self.charges if charge.kind in TAXES and charge.collected_by != "seller")


class StatedCustomsRate(CustomsRate, CommandPart):
    """The customs rate, as a command states it."""


class StatedLine(CommandPart):
    """What a quote knows of an order's line beside the line itself."""

    line_no: LineNo
    origin: Country
    net_grams: Grams | None = None


class StatedQuote(CommandPart):
    """Duty and taxes are paid by the buyer with the order (DDP): the quote it was placed on, worked out again on arrival.

    The order's `tax` is the sum of the four charges here; `insurance` is a part of its `freight`.
    """

    channel: Channel = "b2c"
    mode: Mode | None = None
    import_date: date
    lines: Annotated[list[StatedLine], Field(min_length=1, max_length=2000)]
    insurance: Minor = 0
    rule_id: Annotated[str, Field(max_length=80)]
    customs_rate: StatedCustomsRate | None = None
    duty: Minor
    consumption_tax: Minor
    import_tax: Minor
    clearance_fee: Minor

    @classmethod
    def of(cls, quote: Quote, request: QuoteRequest) -> StatedQuote:
        """What an order placed on `quote` says of it."""
        rate = quote.customs_rate
        return cls(
            channel=quote.channel, mode=quote.mode, import_date=quote.import_date, insurance=request.insurance,
            lines=[StatedLine(line_no=l.line_no, origin=l.origin, net_grams=l.net_grams) for l in request.lines],
            rule_id=quote.rule_id, customs_rate=StatedCustomsRate(**rate.model_dump()) if rate else None,
            **{kind: quote.amount(kind) for kind in PAID_TO_OTHERS})
