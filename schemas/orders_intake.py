"""orders.intake.v1: what storefronts, buyers, merchants and the platform's arbiters ask of an order, or of a merchant.

Written by storefronts through a trusted edge; read by orders. Key: order id, `merchant:<id>` (see `merchants.py`) or
`brand:<key>` (see `brands.py`).
Persons arrive sealed (see `parties.py`): no name, address or identity number ever stands on a topic in clear.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas import brands, merchants
from schemas.cold_chain import AskedBand
from schemas.model import Command, CommandPart, Country, Currency, Id, LineNo, LineQuantity, Minor, Quantity, Sku, Text, Time
from schemas.parties import SealedParty
from schemas.quotes import StatedQuote


class LithiumBattery(CommandPart):
    """Lithium cells in or with the goods, of one unit, as the carrier's papers need them: UN number, packing instruction, energy,
    state of charge."""

    un: Literal["UN3480", "UN3481"] | None = None
    packing_instruction: Literal["965", "966", "967"] | None = None
    watt_hours: Annotated[float, Field(gt=0, le=10_000, strict=False)] | None = None
    charge_percent: Annotated[int, Field(ge=0, le=100)] | None = None


class OrderLine(CommandPart):
    """One line of an order. `amount` is what the buyer pays for the whole line, before freight and tax.

    `cold`: the band the goods must stay in; its parcel then travels with a logger. `origin`: where they were made; `brand`:
    whose name they bear; `net_grams`: of all its units; `battery`: where they contain lithium cells. What the merchant's catalogue says of the SKU is not contradicted."""

    line_no: LineNo
    sku: Sku
    description: Text = ""
    quantity: Quantity
    amount: Minor
    hs_code: Annotated[str, Field(pattern=r"^\d{6,10}$")] | None = None
    gtin: Annotated[str, Field(pattern=r"^\d{8,14}$", description="the product's GTIN-8, -12, -13 or -14")] | None = None
    cold: AskedBand | None = None
    item_record: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,30}$", description="of bonded goods: itemRecordNo")] | None = None
    origin: Country | None = None
    brand: Annotated[merchants.BrandName, Field(min_length=1)] | None = None
    net_grams: Annotated[int, Field(ge=1, le=10**9)] | None = None
    battery: LithiumBattery | None = None


class Season(CommandPart):
    """Goods that are sold before their harvest: shipped not before, and not after, or not at all.

    Until it opens they are held of what warehouses announced; nothing is paid before it opens."""

    ships_not_before: Time
    ships_not_after: Time


class Bonded(CommandPart):
    """Where goods lie that wait in a bonded warehouse in China (mode 1210): the account book (emsNo) and the area's code."""

    ems_no: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,30}$")]
    area_code: Annotated[str, Field(pattern=r"^[A-Z0-9]{1,18}$")]


class PlaceOrder(Command):
    """Place an order. `total` = sum of line amounts + freight + tax, or the order is refused.

    `on_shortage`: what happens when only part of the stock is there: ship that and cancel the rest, or wait. `backorder`: ship
    what is there, and the rest later in parcels of its own, one a line.
    `quote`: duty and taxes are paid with the order; it is refused when the quote does not hold.
    """

    merchant_id: Id
    currency: Currency
    origin: Country
    destination: Country
    lines: Annotated[list[OrderLine], Field(min_length=1, max_length=2000)]
    freight: Minor = 0
    tax: Minor = 0
    total: Minor
    on_shortage: Literal["ship_available", "wait"] = "ship_available"
    backorder: bool = False
    payment_token: Id
    buyer: SealedParty
    consignee: SealedParty
    placed_at: Time
    merchant_reference: Text = ""
    quote: StatedQuote | None = None
    fx_quote: Annotated[str, Field(max_length=80)] | None = None
    season: Season | None = None
    bonded: Bonded | None = None


class CancelOrder(Command):
    """Cancel the whole order (`lines` absent) or some units of some lines. After hand-over it is a request."""

    lines: Annotated[list[LineQuantity], Field(min_length=1, max_length=2000)] | None = None
    reason: Text = ""


class ConfirmReceipt(Command):
    """The buyer has the parcel: the money may go to the merchant."""

    parcel_id: Id


class RequestReturn(Command):
    """The buyer sends goods back, whole (`lines` absent) or by line, within the market's window."""

    parcel_id: Id | None = None
    lines: Annotated[list[LineQuantity], Field(min_length=1, max_length=2000)] | None = None
    reason: Text = ""


class OpenDispute(Command):
    """The buyer contests a parcel: its timer and its money stand still until an arbiter decides."""

    parcel_id: Id
    reason: Text = ""


class ResolveDispute(Command):
    """The arbiter's decision, from the merchant's point of view."""

    parcel_id: Id
    outcome: Literal["won", "lost"]


class GrantRefund(Command):
    """The merchant gives money back of its own will, at any time after delivery: `amount`, or the value of `lines`."""

    parcel_id: Id | None = None
    lines: Annotated[list[LineQuantity], Field(min_length=1, max_length=2000)] | None = None
    amount: Annotated[int, Field(ge=1, le=10**13)] | None = None
    reason: Text = ""


class DecideScreening(Command):
    """An officer has looked at an order whose buyer or consignee is nearly a denied party: it goes on, or is undone."""

    outcome: Literal["clear", "block"]
    decided_by: Id
    detail: Text = ""


class FileComplaint(Command):
    """Somebody complains about an order, at any time. A brand's complaint holds what has not left until it was looked at."""

    by: Literal["buyer", "brand", "authority"]
    reason: Literal["counterfeit", "not_as_described", "damaged", "not_received", "other"]
    parcel_id: Id | None = None
    detail: Text = ""


class RescreenOrder(Command):
    """A newer list of denied parties means a person of this order: said by the second screening, about an order that is open."""

    result: Literal["REVIEW", "BLOCK"]
    screening_list: Annotated[str, Field(min_length=1, max_length=100)]


class AnswerRealName(Command):
    """Whether the buyer's name and identity number belong together: said by the registry that was asked, or by an officer who has
    seen papers. `unknown`: the registry cannot say."""

    outcome: Literal["match", "mismatch", "unknown"]
    decided_by: Id
    detail: Text = ""


class SuppliedCode(CommandPart):
    line_no: LineNo
    hs_code: Annotated[str, Field(pattern=r"^(0[1-9]|[1-9]\d)\d{4,8}$")]


class SupplyDocuments(Command):
    """The merchant supplies what the customs papers lack, as DocumentsMissing names it."""

    lines: Annotated[list[SuppliedCode], Field(min_length=1, max_length=2000)]


MESSAGES = (PlaceOrder, CancelOrder, ConfirmReceipt, RequestReturn, OpenDispute, ResolveDispute, GrantRefund, DecideScreening,
            SupplyDocuments, FileComplaint, RescreenOrder, AnswerRealName,
            *merchants.COMMANDS, *brands.COMMANDS)
