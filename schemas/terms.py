"""What a platform agreed with a merchant, frozen on each order: fee, withholding, reserve, payout currency, exchange quote."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.model import CommandPart, Country, Currency, Minor, Part, Time

STANDARD = "standard"  # the fee plan that is there without a row, and then takes nothing
Permyriad = Annotated[int, Field(ge=0, le=10_000, description="hundredths of a percent")]
Rate = Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,12})?$", description="decimal string, above 0")]


class FxQuote(Part):
    """An exchange quote: 1 `base` = `rate` `quote`, in whole units. `side`: which of the two the platform sells.

    Locked at `locked_at`; an order may be placed on it until `expires_at`. What was placed on it is converted by it, however
    much later: it holds for the order's refunds too.
    """

    id: Annotated[str, Field(max_length=80)]
    base: Currency
    quote: Currency
    rate: Rate
    side: Literal["sell", "buy", "mid"]
    source: str
    locked_at: Time
    expires_at: Time


class Terms(Part):
    """`version`: of the merchant's terms, that the order was accepted by. Of the goods' price: `fee` and `fee_fixed` for the platform (minor units of the order's currency), `withheld` as tax for
    `withheld_for`, `reserve` kept for `reserve_days`. `freight`: who is paid for the way. `payout`: the merchant's currency;
    `fx` converts into it, absent where it is the order's own."""

    plan: Annotated[str, Field(max_length=80)]
    version: Annotated[int, Field(ge=0)] = 0
    fee: Permyriad = 0
    fee_fixed: Minor = 0
    withheld: Permyriad = 0
    withheld_for: Country | None = None
    reserve: Permyriad = 0
    reserve_days: Annotated[int, Field(ge=0, le=3650)] = 0
    freight: Literal["carrier", "merchant"] = "carrier"
    payout: Currency
    fx: FxQuote | None = None


class Share(Part):
    """One part of a release; `account` is the ledger's."""

    account: str
    amount: Minor


class Assessment(Part):
    """What customs assesses on one parcel: duty and taxes in its own currency. `document`: the number of its tax bill."""

    amount: Minor
    currency: Currency
    document: Annotated[str, Field(max_length=60)] = ""


class ReportedAssessment(Assessment, CommandPart):
    """The same, as customs reports it."""
