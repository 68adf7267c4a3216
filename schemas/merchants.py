"""What is asked of and told about a merchant: commands on orders.intake.v1, events on orders.order.v1.

Their `order_id`, key and subject is `merchant:<merchant_id>`, so that everything about one merchant has one order of its own.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.model import Command, CommandPart, Country, Currency, Event, Id, Part, Sku, Text
from schemas.terms import STANDARD

MERCHANT = "merchant:"
MERCHANT_ID_MAX = 60 - len(MERCHANT)  # a longer id could not be a key
Band = Literal["ambient", "chilled", "frozen"]
FreezeReason = Literal["counterfeit", "complaints", "fraud", "sanctions", "documents", "other"]
BrandName = Annotated[str, Field(max_length=80)]


class CatalogueItem(CommandPart):
    """What the merchant says of a SKU once; an order's line may not contradict it. `brand` "": of no brand."""

    sku: Sku
    description: Text = ""
    hs_code: Annotated[str, Field(pattern=r"^\d{6,10}$")]
    origin: Country
    brand: BrandName = ""
    band: Band = "ambient"


class RegisterMerchant(Command):
    """Apply to sell. `payout_token` stands for the account; `registration_no` is the commercial register's number."""

    legal_name: Annotated[str, Field(min_length=1, max_length=200)]
    country: Country
    registration_no: Annotated[str, Field(min_length=1, max_length=40)]
    vat_no: Annotated[str, Field(max_length=20)] = ""
    fee_plan: Id = STANDARD
    payout_currency: Currency
    payout_token: Id


class ApproveMerchant(Command):
    """The officer has checked the application: the merchant may sell."""

    decided_by: Id


class RefuseMerchant(Command):
    decided_by: Id
    reason: Text


class UpdateCatalogue(Command):
    """Items to add or to replace, and SKUs to withdraw. Orders that were accepted keep what they were accepted with."""

    items: Annotated[list[CatalogueItem], Field(max_length=2000)] = []
    withdraw: Annotated[list[Sku], Field(max_length=2000)] = []


class ChangeTerms(Command):
    """New terms from a day on, for orders placed on it or later; what was accepted keeps the terms it was accepted by. What is
    left out stays. The day is never one that has passed, and never before one that was agreed already."""

    fee_plan: Id | None = None
    payout_currency: Currency | None = None
    valid_from: date
    decided_by: Id


class FreezeMerchant(Command):
    """Stop a merchant: nothing of any open order goes forward until the freeze is lifted, or upheld."""

    reason: FreezeReason
    detail: Text = ""
    decided_by: Id


class FileAppeal(Command):
    """The merchant contests the freeze."""

    statement: Text


class DecideAppeal(Command):
    """The freeze is lifted, and all goes on; or upheld, and every open order is cancelled and refunded."""

    outcome: Literal["lifted", "upheld"]
    decided_by: Id
    detail: Text = ""


class Registration(Part):
    """The checked application."""

    legal_name: str
    country: Country
    registration_no: str
    vat_no: str = ""
    fee_plan: str
    payout_currency: Currency
    payout_token: str


class MerchantEvent(Event):
    merchant_id: str


class MerchantRegistered(MerchantEvent):
    """The application passed the checks of form (`checks`), and waits for an officer."""

    registration: Registration
    checks: list[str]


class MerchantApproved(MerchantEvent):
    """From now on the merchant sells by this fee plan and is paid out in this currency."""

    decided_by: str
    fee_plan: str
    payout_currency: Currency


class TermsChanged(MerchantEvent):
    """`version` counts the merchant's terms; the first are those that he was approved with."""

    version: int
    fee_plan: str
    payout_currency: Currency
    valid_from: date
    decided_by: str


class MerchantRefused(MerchantEvent):
    decided_by: str
    reason: Text


class CatalogueUpdated(MerchantEvent):
    """`items` says how many the catalogue has now."""

    changed: list[Sku]
    withdrawn: list[Sku]
    items: int


class MerchantFrozen(MerchantEvent):
    """Nothing of this merchant's open orders goes forward. `freeze_no` counts his freezes."""

    freeze_no: int
    reason: str
    detail: Text = ""
    decided_by: str


class AppealFiled(MerchantEvent):
    freeze_no: int
    statement: Text


class FreezeLifted(MerchantEvent):
    """The appeal succeeded: all goes on, with the time of the freeze added to what was running."""

    freeze_no: int
    decided_by: str
    detail: Text = ""


class FreezeUpheld(MerchantEvent):
    """The merchant is closed: every open order is cancelled and refunded."""

    freeze_no: int
    decided_by: str
    detail: Text = ""


COMMANDS = (RegisterMerchant, ApproveMerchant, RefuseMerchant, UpdateCatalogue, ChangeTerms, FreezeMerchant, FileAppeal, DecideAppeal)
EVENTS = (MerchantRegistered, MerchantApproved, MerchantRefused, CatalogueUpdated, TermsChanged, MerchantFrozen, AppealFiled,
          FreezeLifted, FreezeUpheld)
