"""What finance asks of the books of the house, and what payments says of them: remittances, statements, payouts.

Commands on payments.provider-result.v1, events on payments.payment.v1. `order_id`, key and subject are a book's name,
`books:tax:<authority>` or `books:merchant:<merchant>` (schemas/ledger.py). A command's id makes a repetition harmless; the
same statement or batch, or period and bank reference, under another id is no news either.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.ledger import BOOKS
from schemas.model import Command, CommandPart, Currency, Event, Id, Minor, Part
from schemas.terms import Rate

TAX_BOOK, MERCHANT_BOOK, PROVIDER_BOOK = f"{BOOKS}tax:", f"{BOOKS}merchant:", f"{BOOKS}provider:"
Period = Annotated[str, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description="year and month of the assessment")]
Signed = Annotated[int, Field(ge=-(10**13), le=10**13, description="minor units; negative: the merchant owes it")]
Claim = Literal["payable", "withheld"]


class RemitTax(Command):
    """Paid to an authority: what it assessed in a period (`payable`), or what was withheld from merchants for it."""

    claim: Claim
    period: Period
    currency: Currency
    amount: Annotated[Minor, Field(ge=1)]
    bank_reference: Annotated[str, Field(max_length=60)]


class RecoverTax(Command):
    """Paid back by an authority: what was claimed of it in a period for goods that were returned in time."""

    period: Period
    currency: Currency
    amount: Annotated[Minor, Field(ge=1)]
    bank_reference: Annotated[str, Field(max_length=60)]


class Figures(Part):
    """What a merchant sold, in one currency and under one exchange quote: gross - refunds - chargebacks - fee - withheld -
    reserve + reserve_back + claims = net. A lost chargeback that the reserve paid for lowers both."""

    gross: Signed
    refunds: Signed
    fee: Signed
    withheld: Signed
    reserve: Signed
    reserve_back: Signed = 0
    claims: Signed = 0
    net: Signed
    chargebacks: Signed = 0


class StatementLine(Figures, CommandPart):
    """`fx`: id of the orders' quote, which converts by `rate`; empty where the merchant is paid in `currency`. `market`: the
    rate of the day, by which the platform converts; the difference is its gain or loss."""

    currency: Currency
    payout: Currency
    fx: Annotated[str, Field(max_length=80)] = ""
    rate: Rate = "1"
    market: Rate = "1"


class CloseStatement(Command):
    """State what a merchant has coming since his last statement. `lines` are differences, as read from the ledger."""

    statement_id: Id
    lines: Annotated[list[StatementLine], Field(min_length=1, max_length=200)]


class PayMerchant(Command):
    """Paid out to a merchant with a batch; never more than he has coming."""

    batch_id: Id
    currency: Currency
    amount: Annotated[Minor, Field(ge=1)]
    bank_reference: Annotated[str, Field(max_length=60)]


class BookProviderFees(Command):
    """What the provider's settlement files say it asked in a month, all together so far: the difference to what was booked of
    that month is booked now."""

    period: Period
    currency: Currency
    total: Minor


class ProviderFeesBooked(Event):
    """`amount` more (or less, when a file was corrected) of the month; `total`: all of it so far."""

    period: str
    currency: Currency
    amount: Signed
    total: Minor


class TaxRemitted(Event):
    claim: Claim
    authority: str
    period: str
    currency: Currency
    amount: Minor
    bank_reference: str


class TaxRecovered(Event):
    authority: str
    period: str
    currency: Currency
    amount: Minor
    bank_reference: str


class StatedLine(Figures):
    """`converted`: the net in the payout currency, converted once; `fx_gain`: of the platform."""

    currency: Currency
    payout: Currency
    fx: str = ""
    rate: str = "1"
    market: str = "1"
    converted: Signed
    fx_gain: Signed = 0


class StatementClosed(Event):
    """`due`: currency -> what the merchant has coming after it."""

    statement_id: str
    lines: list[StatedLine]
    due: dict[str, int]


class MerchantPaid(Event):
    batch_id: str
    currency: Currency
    amount: Minor
    bank_reference: str


COMMANDS = (RemitTax, RecoverTax, CloseStatement, PayMerchant, BookProviderFees)
EVENTS = (TaxRemitted, TaxRecovered, StatementClosed, MerchantPaid, ProviderFeesBooked)
