"""Landed cost: what is asked (`QuoteRequest`) and what is answered (`Quote`), between storefronts and orders.

Amounts are minor units of the currency the buyer pays in, except where a field says that customs counts in another one.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.model import CommandPart, Country, Currency, LineNo, Minor, Part, Quantity

HsCode = Annotated[str, Field(pattern=r"^\d{6,10}$", description="Harmonised System, 6 to 10 digits without dots")]
Mode = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,20}$", description="9610, 1210, ioss …; absent: the usual one")]
Channel = Literal["b2c", "post", "express"]
Kind = Literal["goods", "freight", "insurance", "duty", "consumption_tax", "import_tax", "clearance_fee"]
Certainty = Literal["A", "B", "C"]


class QuoteLine(CommandPart):
    """`amount` is the price of the whole line, before freight and tax; `origin` is where the goods were made."""

    line_no: LineNo
    hs_code: HsCode
    origin: Country
    quantity: Quantity
    amount: Minor
    net_grams: Annotated[int, Field(ge=1, le=10**9, description="of the whole line; some taxes depend on it")] | None = None


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
    used_this_year: Annotated[int, Field(ge=0, le=10**13, description="of the buyer's yearly limit, customs' currency")] | None = None


class CustomsRate(Part):
    """What customs converts with: 1 `base` = `rate` `quote`, as a decimal string."""

    id: str
    base: Currency
    quote: Currency
    rate: str


class Charge(Part):
    """One component of the landed cost; `assessed` is the same in customs' currency, `rows` the ids of what it follows from."""

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
