"""The trade's rules as dated data: what `rules/*.toml` and a file from outside may hold, and which row holds on a day.

Every row has an id, the days on which it is valid, its source and its certainty: A read in an official document, B in a good
secondary source, C not verified. A charge of certainty C is never enabled; the loader refuses it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import iso4217
import pycountry
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.dated import Dated
from schemas.model import Country, Currency
from schemas.quotes import Certainty, Channel
from services.runtime.processes import StartError

FOLDER = Path(__file__).parent / "rules"
EVERYWHERE = "*"
ROUNDINGS = ("half_up", "half_even", "down", "up")


class RulesError(StartError):
    """Rule data that cannot be used: which file, which row, and how to mend it."""


def _decimal(value: Any) -> Fraction:
    # A TOML float has already lost digits; a string has not.
    if not isinstance(value, str):
        raise ValueError('write numbers as strings, such as "0.7"')
    return Fraction(value)


def _known(code: str) -> str:
    exponent(code)
    return code


def _several(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Number = Annotated[Fraction, BeforeValidator(_decimal), Field(ge=0)]
Money = Annotated[Currency, AfterValidator(_known)]
Prefix = Annotated[str, Field(pattern=r"^\d{0,10}$")]
Prefixes = Annotated[tuple[Prefix, ...], BeforeValidator(_several), Field(min_length=1)]
Destination = Annotated[str, Field(pattern=r"^([A-Z]{2}|\*)$")]
Strategy = Literal["half_up", "half_even", "down", "up"]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Row(_Data, Dated):
    """What every row has."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,79}$")]
    source: Annotated[str, Field(min_length=5)]
    certainty: Certainty
    enabled: bool = True

    @model_validator(mode="after")
    def _sane(self) -> Row:
        if self.valid_to is not None and self.valid_to < self.valid_from:
            raise ValueError(f"{self.id} ends ({self.valid_to}) before it begins ({self.valid_from})")
        if self.enabled and self.certainty == "C":
            raise ValueError(f"{self.id} is of certainty C and enabled; verify its source first, then raise its certainty")
        return self


class Bounds(_Data):
    """`over` < value ≤ `up_to`. intrinsic: the goods alone; dutiable: with freight and insurance."""

    basis: Literal["intrinsic", "dutiable"]
    over: Number | None = None
    up_to: Number | None = None

    def holds(self, value: Fraction) -> bool:
        return (self.over is None or value > self.over) and (self.up_to is None or value <= self.up_to)


class Duty(_Data):
    """flat_per_hs6: `amount` once for each six-digit code in the consignment. percent: by the duty rows, of cif or fob."""

    kind: Literal["none", "flat_per_hs6", "percent"]
    amount: Number | None = None
    base: Literal["cif", "fob"] = "cif"

    @model_validator(mode="after")
    def _amount_if_flat(self) -> Duty:
        if (self.kind == "flat_per_hs6") != (self.amount is not None):
            raise ValueError("an amount belongs to flat_per_hs6, and to nothing else")
        return self


class Tax(_Data):
    """vat: on goods, freight, insurance and duty. china: consumption tax and VAT on the composed price, times `relief`."""

    kind: Literal["none", "vat", "china"]
    relief: Number = Fraction(1)


class Rounding(_Data):
    """Each tax is rounded to the minor unit of customs' currency: on each line, or once on the total."""

    mode: Strategy
    per: Literal["line", "total"]
    certainty: Certainty


class Rule(Row):
    """How a consignment of one destination, channel, mode and value is charged. `currency`: customs', or the quote's."""

    title: Annotated[str, Field(min_length=5)]
    destinations: tuple[Destination, ...]
    made_in: Annotated[tuple[Country, ...], Field(alias="from")] = ()
    not_from: tuple[Country, ...] = ()
    channels: tuple[Channel, ...]
    modes: tuple[str, ...] = ()
    currency: Money | None = None
    value: Bounds | None = None
    single_item: bool = False
    yearly_limit: Number | None = None
    duty: Duty
    tax: Tax
    rates_needed: bool = True
    collected_by: Literal["platform", "seller", "carrier", "buyer"]
    collect_at: Literal["checkout", "import"]
    declaration: str
    hs_digits: Annotated[int, Field(ge=6, le=10)]
    rounding: Rounding


class DutyRate(Row):
    """Duty in per cent of goods whose code begins with one of `hs`, made in one of `from` (absent: anywhere)."""

    country: Destination
    hs: Prefixes
    made_in: Annotated[tuple[Country, ...], Field(alias="from")] = ()
    percent: Number


class TaxRate(Row):
    """VAT or consumption tax in per cent; the empty prefix is the country's standard rate."""

    country: Country
    kind: Literal["vat", "consumption"]
    hs: Prefixes
    percent: Annotated[Number, Field(lt=100)]
    from_value_per_gram: Number | None = None


class Rate(Row):
    """A customs exchange rate: 1 `base` = `rate` `quote`."""

    base: Money
    quote: Money
    rate: Annotated[Number, Field(gt=0)]


class Fee(Row):
    """A clearance fee for each consignment; absent `currency`: the quote's."""

    title: Annotated[str, Field(min_length=5)]
    destinations: tuple[Destination, ...]
    channels: tuple[Channel, ...] = ()
    declarations: tuple[str, ...] = ()
    amount: Number
    currency: Money | None = None
    collected_by: Literal["platform", "seller", "carrier", "buyer"] = "carrier"
    collect_at: Literal["checkout", "import"] = "import"


class Requirement(Row):
    """Data that customs asks for, beside what every consignment has."""

    destinations: tuple[Destination, ...]
    modes: tuple[str, ...] = ()
    data: Annotated[tuple[str, ...], Field(min_length=1)]


class ReturnRule(Row):
    """Goods that are sent back: until how many days after customs' release the return is asked for, and the goods are back, so
    that customs gives up their tax, and the year of their buyer."""

    title: Annotated[str, Field(min_length=5)]
    destinations: tuple[Destination, ...]
    asked_within_days: Annotated[int, Field(ge=0)]
    back_within_days: Annotated[int, Field(ge=0)]


class _File(_Data):
    groups: dict[str, tuple[Country, ...]] = {}
    rule: tuple[Rule, ...] = ()
    duty: tuple[DutyRate, ...] = ()
    tax: tuple[TaxRate, ...] = ()
    customs_rate: tuple[Rate, ...] = ()
    fee: tuple[Fee, ...] = ()
    requirement: tuple[Requirement, ...] = ()
    returned: tuple[ReturnRule, ...] = ()


@dataclass(frozen=True, eq=False)
class Rules:
    """Every row, in the order of the files: of two rules that both fit, the earlier is the usual one.

    Compared by identity, so that what is looked up for each line of each order can be remembered.
    """

    groups: dict[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    duties: tuple[DutyRate, ...]
    taxes: tuple[TaxRate, ...]
    rates: tuple[Rate, ...]
    fees: tuple[Fee, ...]
    requirements: tuple[Requirement, ...]
    returns: tuple[ReturnRule, ...] = ()

    def rows(self) -> Iterator[Row]:
        for rows in (self.rules, self.duties, self.taxes, self.rates, self.fees, self.requirements, self.returns):
            yield from rows

    @lru_cache(maxsize=512)  # rules live as long as the process
    def territory(self, country: str) -> str:
        """EU for its member states, else the country itself."""
        return next((name for name, members in self.groups.items() if country in members), country)

    @lru_cache(maxsize=512)
    def rules_for(self, country: str) -> tuple[Rule, ...]:
        """Of the country's own territory, else those for everywhere else."""
        own = tuple(rule for rule in self.rules if self.territory(country) in rule.destinations)
        return own or tuple(rule for rule in self.rules if EVERYWHERE in rule.destinations)

    @lru_cache(maxsize=512)
    def return_rule(self, country: str, day: date) -> ReturnRule | None:
        return next((row for row in self.returns if row.enabled and row.holds(day) and country in row.destinations), None)

    def covers(self, row: Fee | Requirement, country: str) -> bool:
        return not {EVERYWHERE, country, self.territory(country)}.isdisjoint(row.destinations)

    @lru_cache(maxsize=4096)
    def duty_of(self, country: str, hs: str, origin: str, day: date) -> DutyRate | None:
        """The longest prefix; of equals the one that names the origin."""
        fit = [(len(prefix), bool(row.made_in), row) for row in self.duties
               if row.enabled and row.holds(day) and row.country in (country, self.territory(country))
               and (not row.made_in or origin in row.made_in) for prefix in row.hs if hs.startswith(prefix)]
        return max(fit, key=lambda f: f[:2])[2] if fit else None

    @lru_cache(maxsize=4096)
    def tax_of(self, country: str, kind: str, hs: str, day: date) -> TaxRate | None:
        """The longest prefix."""
        fit = [(len(prefix), row) for row in self.taxes if row.enabled and row.holds(day) and row.country == country
               and row.kind == kind for prefix in row.hs if hs.startswith(prefix)]
        return max(fit, key=lambda f: f[0])[1] if fit else None

    def rate(self, base: str, quote: str, day: date) -> tuple[Rate, Fraction] | None:
        """(row, quote for 1 base), from a row of either direction."""
        for row in self.rates:
            if row.enabled and row.holds(day) and (row.base, row.quote) in ((base, quote), (quote, base)):
                return row, row.rate if row.base == base else 1 / row.rate
        return None


@lru_cache(maxsize=512)
def exponent(currency: str) -> int:
    """Decimal places of the minor unit. Raises ValueError for what cannot be counted in minor units."""
    try:
        found = iso4217.Currency(currency).exponent
    except ValueError:
        found = None
    if found is None:
        raise ValueError(f"{currency} is not an ISO 4217 currency with minor units")
    return found


@lru_cache(maxsize=1)
def countries() -> frozenset[str]:
    """ISO 3166-1 alpha-2."""
    return frozenset(country.alpha_2 for country in pycountry.countries)


@lru_cache(maxsize=8)
def load(outside: Path | None = None, tax_rounding: str = "") -> Rules:
    """The rules of this package, and before them those of `outside`. Raises RulesError naming file and row.

    `tax_rounding` overrides roundings of certainty C: "CN=half_even/line,EU=down/total".
    """
    files = [_read(path) for path in sorted(FOLDER.glob("*.toml"))]
    files = [_read(outside), *files] if outside is not None else files
    rules = Rules(
        {name: members for file in files for name, members in file.groups.items()},
        tuple(row for f in files for row in f.rule), tuple(row for f in files for row in f.duty),
        tuple(row for f in files for row in f.tax), tuple(row for f in files for row in f.customs_rate),
        tuple(row for f in files for row in f.fee), tuple(row for f in files for row in f.requirement),
        tuple(row for f in files for row in f.returned))
    _consistent(rules, outside)
    return _rounded(rules, tax_rounding) if tax_rounding else rules


def _read(path: Path) -> _File:
    raw: dict[str, Any] = {}
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        return _File.model_validate(raw)
    except OSError as error:
        raise RulesError(f"the rules cannot be read: {error.strerror}", str(path), "Check the path.") from error
    except ValidationError as wrong:
        raise RulesError(_first_wrong(wrong, raw), str(path),
                         "Mend the row; services/orders/rulebook.py says what a row may hold.") from wrong
    except ValueError as error:  # neither UTF-8 nor TOML
        raise RulesError(f"the file is not TOML: {error}", str(path), "See services/orders/rules for examples.") from error


def _first_wrong(wrong: ValidationError, raw: dict[str, Any]) -> str:
    """The first error, by the row's own id where it has one."""
    error = wrong.errors(include_url=False)[0]
    table, *rest = error["loc"]
    if rest and isinstance(rest[0], int):
        row = raw[table][rest[0]]
        name = row.get("id") if isinstance(row, dict) else None
        table, rest = name or f"{table} {rest[0] + 1}", rest[1:]
    return f"{'.'.join(map(str, (table, *rest)))}: {error['msg']}"


def _consistent(rules: Rules, outside: Path | None) -> None:
    seen: set[str] = set()
    for row in rules.rows():
        if row.id in seen:
            raise RulesError(f"two rows are called {row.id}", str(outside or FOLDER), "Give one of them another id.")
        seen.add(row.id)
    shared = _overlap(rules.duties, lambda row: [(row.country, hs, made) for hs in row.hs for made in row.made_in or ("",)])
    shared = shared or _overlap(rules.taxes, lambda row: [(row.country, row.kind, hs) for hs in row.hs])
    shared = shared or _overlap(rules.returns, lambda row: list(row.destinations))
    shared = shared or _overlap(rules.rates, lambda row: [tuple(sorted((row.base, row.quote)))])
    if shared:
        raise RulesError(f"{shared[0].id} and {shared[1].id} say two things for the same days", str(outside or FOLDER),
                         "End one (valid_to) before the other begins, or disable it.")


def _overlap(rows: Iterable[Any], keys: Any) -> tuple[Any, Any] | None:
    """Two enabled rows with a common key whose days overlap."""
    by_key: dict[Any, list[Any]] = {}
    for row in rows:
        for key in keys(row) if row.enabled else ():
            for other in by_key.setdefault(key, []):
                if other.holds(row.valid_from) or row.holds(other.valid_from):
                    return other, row
            by_key[key].append(row)
    return None


def _rounded(rules: Rules, text: str) -> Rules:
    changed = {rule.id: rule for rule in rules.rules}
    for part in text.split(","):
        territory, _, how = part.strip().partition("=")
        mode, _, per = how.partition("/")
        own = [rule for rule in rules.rules if territory in rule.destinations]
        if not own or mode not in ROUNDINGS or per not in ("line", "total"):
            raise RulesError(f"{part!r} is not TERRITORY=MODE/PER", "TRADEWIND_TAX_ROUNDING",
                             f"Example: CN=half_up/line. MODE: {', '.join(ROUNDINGS)}. PER: line, total.")
        for rule in own:
            if rule.rounding.certainty != "C":
                raise RulesError(f"the rounding of {rule.id} is of certainty {rule.rounding.certainty}, not a setting",
                                 "TRADEWIND_TAX_ROUNDING", "Leave it out.")
            changed[rule.id] = rule.model_copy(update={"rounding": Rounding(mode=mode, per=per, certainty="C")})
    return Rules(rules.groups, tuple(changed[rule.id] for rule in rules.rules), rules.duties, rules.taxes, rules.rates,
                 rules.fees, rules.requirements, rules.returns)


def spans(rows: Iterable[Row]) -> str:
    """The days that rows cover, in words: 2021-07-01 to 2028-06-30, from 2021-01-01."""
    merged: list[list[Any]] = []
    for row in sorted(rows, key=lambda row: row.valid_from):
        if merged and (merged[-1][1] is None or row.valid_from <= merged[-1][1] + timedelta(days=1)):
            if merged[-1][1] is not None:
                merged[-1][1] = None if row.valid_to is None else max(merged[-1][1], row.valid_to)
        else:
            merged.append([row.valid_from, row.valid_to])
    return ", ".join(f"{first} to {last}" if last else f"from {first}" for first, last in merged) or "no day"
