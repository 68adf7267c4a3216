"""What a merchant's fee plan takes and what a currency costs, as dated rows of a file; what holds that day is frozen on the order.

Which plan a merchant has and how he is paid, he registered with (`merchants.agreed`). The file is the operator's
(`TRADEWIND_TERMS_FILE`): we ship no prices. Tables: `plan` (fee, withholding, reserve), `fx` (exchange rates that orders are
placed on), `provider_fee`. A day without a row is refused, never guessed; only the plan `standard` is there without any, and
takes nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.dated import DatedRow
from schemas.model import Country, Currency, Id, Minor
from schemas.provider_fees import FeeRow
from schemas.terms import STANDARD, FxQuote, Permyriad, Rate, Terms
from services.orders.rulebook import exponent
from services.runtime.processes import StartError


class TermsError(StartError):
    """A terms file that cannot be used: which row, and how to mend it."""


class Plan(DatedRow):
    """Shares of the goods' price, in hundredths of a percent. `fee_fixed`: minor units a parcel, by currency."""

    plan: Id
    fee: Permyriad = 0
    fee_fixed: dict[Currency, Minor] = {}
    withheld: Permyriad = 0
    withheld_for: Country | None = None
    reserve: Permyriad = 0
    reserve_days: Annotated[int, Field(ge=0, le=3650)] = 0
    freight: Literal["carrier", "merchant"] = "carrier"

    @model_validator(mode="after")
    def _sane(self) -> Plan:
        if self.fee + self.withheld + self.reserve > 10_000:
            raise ValueError(f"{self.id} takes more than all of it")
        if bool(self.withheld) != (self.withheld_for is not None):
            raise ValueError(f"{self.id}: withheld and withheld_for belong together")
        return self


_NOTHING = Plan(id=STANDARD, plan=STANDARD, valid_from=date.min, source="we ship no prices")


class Agreed(NamedTuple):
    """What a merchant registered with, or agreed to since (`version` 2, 3, …): the name of his plan, his payout currency."""

    version: int
    plan: str
    payout: str


class FxRow(DatedRow):
    """1 `base` = `rate` `quote`. Valid on its days from midnight to midnight, UTC."""

    base: Currency
    quote: Currency
    rate: Rate
    side: Literal["sell", "buy", "mid"] = "mid"

    @model_validator(mode="after")
    def _countable(self) -> FxRow:
        exponent(self.base)
        exponent(self.quote)
        if self.base == self.quote or float(self.rate) == 0:
            raise ValueError(f"{self.id}: a rate above 0 between two currencies")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: tuple[Plan, ...] = ()
    fx: tuple[FxRow, ...] = ()
    provider_fee: tuple[FeeRow, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _no_merchants(cls, file: dict[str, Any]) -> dict[str, Any]:
        if "merchant" in file:
            raise ValueError("a merchant's plan and payout currency stand in his registration: take the rows [[merchant]] out, and"
                             " use `tradewind merchant register` and `tradewind merchant terms`")
        return file


@dataclass(frozen=True, eq=False)
class Book:
    """Every row. Compared by identity, so that the lookups of an order can be remembered."""

    plans: tuple[Plan, ...] = ()
    rates: tuple[FxRow, ...] = ()
    fees: tuple[FeeRow, ...] = ()  # of the payment provider

    @lru_cache(maxsize=4096)  # a book lives as long as the process
    def of(self, agreed: Agreed, currency: str, day: date) -> Terms | tuple[str, str]:
        """What that comes to for an order of that day; or (reason, detail) why an order cannot have it."""
        plan = next((p for p in self.plans if p.plan == agreed.plan and p.holds(day)), None)
        if plan is None and agreed.plan == STANDARD and STANDARD not in self.names:
            plan = _NOTHING
        if plan is None:
            return "no_terms", f"the merchant's fee plan {agreed.plan} has no row for {day}"
        fx = None
        if agreed.payout != currency:
            fx = self.quote(currency, agreed.payout, day)
            if fx is None:
                return "no_fx_quote", f"the merchant is paid in {agreed.payout}: there is no rate from {currency} on {day}"
        return Terms(plan=plan.id, version=agreed.version, fee=plan.fee, fee_fixed=plan.fee_fixed.get(currency, 0),
                     withheld=plan.withheld, withheld_for=plan.withheld_for, reserve=plan.reserve,
                     reserve_days=plan.reserve_days, freight=plan.freight, payout=agreed.payout, fx=fx)

    @property
    def names(self) -> list[str]:
        return sorted({plan.plan for plan in self.plans})

    @lru_cache(maxsize=4096)
    def quote(self, base: str, quote: str, day: date) -> FxQuote | None:
        """The quote that an order of that day is placed on; it expires at the day's end, or the row's."""
        row = next((r for r in self.rates if (r.base, r.quote) == (base, quote) and r.holds(day)), None)
        if row is None:
            return None
        locked = datetime.combine(day, time(), UTC)
        return FxQuote(id=f"{row.id}.{day:%Y%m%d}", base=base, quote=quote, rate=row.rate, side=row.side, source=row.source,
                       locked_at=locked, expires_at=locked + timedelta(days=1))


NOBODY = Book()


@lru_cache(maxsize=8)
def load(path: Path | None) -> Book:
    """The book of this file; without one there is only the plan `standard`. Raises TermsError."""
    if path is None:
        return NOBODY
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise TermsError(f"the terms cannot be read: {error.strerror}", str(path), "Check TRADEWIND_TERMS_FILE.") from error
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        raise TermsError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"]))), str(path),
                         "Mend the row; services/orders/terms.py says what a row may hold.") from wrong
    except ValueError as error:  # neither UTF-8 nor TOML
        raise TermsError(f"the file is not TOML: {error}", str(path), "See services/simulators/terms.toml for its form.") from error
    for rows, key in ((file.plan, lambda r: r.plan), (file.fx, lambda r: (r.base, r.quote)), (file.provider_fee, lambda r: r.kind)):
        if pair := _overlap(rows, key):
            raise TermsError(f"{pair[0].id} and {pair[1].id} say two things for the same days", str(path),
                             "End one (valid_to) before the other begins.")
    return Book(file.plan, file.fx, file.provider_fee)


def _overlap(rows: Iterable[Any], key: Any) -> tuple[Any, Any] | None:
    seen: dict[Any, list[Any]] = {}
    for row in rows:
        for other in seen.setdefault(key(row), []):
            if other.holds(row.valid_from) or row.holds(other.valid_from):
                return other, row
        seen[key(row)].append(row)
    return None
