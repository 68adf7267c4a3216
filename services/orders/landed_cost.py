"""What a consignment costs its buyer at the door: goods, freight, insurance, duty, taxes, clearance fee. Pure and exact.

Fractions inside, integer minor units outside. Customs assesses in its own currency and rounds there; what the buyer pays in
another currency is that assessment converted at the customs rate, each charge rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import floor

from schemas.quotes import AssessedLine, Charge, CustomsRate, NotCharged, Quote, QuoteLine, QuoteRequest
from services.orders.rulebook import DutyRate, Fee, Rounding, Row, Rule, Rules, TaxRate, countries, exponent, spans

HUNDRED = Fraction(100)
OUTSIDE = "tradewind quote --rates, TRADEWIND_RATES_FILE"
TAXES = ("duty", "consumption_tax", "import_tax")
TAX_KINDS = {"none": (), "vat": ("vat",), "china": ("vat", "consumption")}
RATE_OF = {"duty": "duty", "consumption_tax": "consumption", "import_tax": "vat"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no quote: a named `reason`, `what` is wrong, `where`, and the `remedy`."""

    reason: str
    what: str
    where: str
    remedy: str


class _Refused(Exception):
    """Carries a Refusal out of the calculation; never leaves this module."""

    def __init__(self, reason: str, what: str, where: str, remedy: str) -> None:
        super().__init__(reason)
        self.refusal = Refusal(reason, what, where, remedy)


@dataclass(slots=True)
class _Line:
    """One line in customs' currency: exact values in whole units, assessed amounts in minor units."""

    asked: QuoteLine
    goods: Fraction
    value: Fraction
    rates: dict[str, DutyRate | TaxRate] = field(default_factory=dict)
    exact: dict[str, Fraction] = field(default_factory=dict)
    assessed: dict[str, int] = field(default_factory=dict)


def landed_cost(request: QuoteRequest, rules: Rules) -> Quote | Refusal:
    """The quote by the rules of the import date, or the first reason why there is none."""
    try:
        return _quote(request, rules)
    except _Refused as refused:
        return refused.refusal


def _quote(request: QuoteRequest, rules: Rules) -> Quote:
    _sane(request)
    exchange = _Exchange(request, rules)
    rule = _rule(request, rules, exchange)
    currency = rule.currency or request.currency
    lines = _lines(request, rule, exchange.of(request.currency, currency), currency)
    complete = _rated(request, rule, rules, lines)
    if complete:
        _assess(request, rule, rules, lines, currency)
    charges = _charges(request, rule, rules, lines, currency, exchange)
    fees = [fee for fee in rules.fees if _applies(fee, request, rule, rules)]
    used: list[Row] = [rule, *exchange.used.values(), *(fee for fee in fees if fee.enabled)]
    used += [row for line in lines for row in line.rates.values()]
    return Quote(
        destination=request.destination, channel=request.channel, mode=_mode(request, rule), import_date=request.import_date,
        currency=request.currency, customs_currency=currency, customs_rate=exchange.told(request.currency, currency),
        rule_id=rule.id, declaration=rule.declaration, charges=charges, lines=[_told(line, currency) for line in lines],
        total=sum(charge.amount for charge in charges), complete=complete, required_data=_required(request, rule, rules),
        not_charged=[NotCharged(id=fee.id, title=fee.title, certainty=fee.certainty, source=fee.source)
                     for fee in fees if not fee.enabled],
        notes=_notes(request, rule, complete), certainty=max(row.certainty for row in used))


def _sane(request: QuoteRequest) -> None:
    numbers = [line.line_no for line in request.lines]
    if len(set(numbers)) != len(numbers):
        raise _Refused("line_numbers", "two lines have the same number", "lines", "Number them 1, 2, 3 …")
    for where, country in (("destination", request.destination), *((f"line {l.line_no}", l.origin) for l in request.lines)):
        if country not in countries():
            raise _Refused("unknown_country", f"{country} is not an ISO 3166 country", where,
                           "Name one by its two letters; Greece is GR, Great Britain GB.")
    try:
        exponent(request.currency)
    except ValueError as error:
        raise _Refused("unknown_currency", str(error), "currency", "Name one such as EUR.") from error
    if all(line.amount == 0 for line in request.lines):
        raise _Refused("nothing_to_value", "every line costs nothing", "lines", "Customs values goods: give their price.")


# -- the rule ---------------------------------------------------------------------------------------------------------


def _rule(request: QuoteRequest, rules: Rules, exchange: _Exchange) -> Rule:
    """The first rule that fits. Each step says what would have fitted."""
    where = f"{request.channel} into {request.destination} on {request.import_date}"
    known = rules.rules_for(request.destination)
    dated = [rule for rule in known if rule.holds(request.import_date)]
    if not dated:
        raise _Refused("no_rule_for_date", f"no rule is valid on {request.import_date}", where,
                       f"Rules for {rules.territory(request.destination)} are known for "
                       f"{spans(rule for rule in known if rule.enabled)}.")
    origins = {line.origin for line in request.lines}
    fit = [rule for rule in dated if request.channel in rule.channels and origins.isdisjoint(rule.not_from)
           and (not rule.made_in or not origins.isdisjoint(rule.made_in))]
    if not fit:
        channels = sorted({channel for rule in dated if rule.enabled for channel in rule.channels})
        raise _Refused("no_rule_for_channel", f"no rule for {request.channel} with goods of {', '.join(sorted(origins))}",
                       where, f"On that day there are rules for: {', '.join(channels)}.")
    moded = [rule for rule in fit if request.mode is None or request.mode in rule.modes]
    if not moded:
        modes = list(dict.fromkeys(mode for rule in fit for mode in rule.modes))
        raise _Refused("no_rule_for_mode", f"no rule for mode {request.mode}", where,
                       f"Modes: {', '.join(modes)}." if modes else "Leave the mode out; this destination has none.")
    valued = [rule for rule in moded if _value_fits(rule, request, exchange)]
    if not valued:
        limits = "; ".join(f"{rule.id}: {_bounds(rule)}" for rule in moded if rule.enabled)
        others = [f"{rule.id} (mode {rule.modes[0]})" for rule in fit
                  if rule.enabled and rule not in moded and _value_fits(rule, request, exchange)]
        raise _Refused("over_limit", f"the consignment's value fits no rule; {limits}", where,
                       f"It fits {', '.join(others)}." if others else "Split it, or clear it as general trade.")
    rule = next((rule for rule in valued if rule.enabled), None)
    if rule is None:
        unsure = "; ".join(f"{rule.id} is disabled, of certainty {rule.certainty}: {rule.source}" for rule in valued)
        raise _Refused("rule_disabled", unsure, where, "Choose another channel or mode, or verify the rule and enable it.")
    _within_limits(rule, request, exchange, where)
    return rule


def _value_fits(rule: Rule, request: QuoteRequest, exchange: _Exchange) -> bool:
    if rule.value is None:
        return True
    minor = sum(line.amount for line in request.lines)
    minor += request.freight + request.insurance if rule.value.basis == "dutiable" else 0
    return rule.value.holds(exchange.whole(minor, rule.currency or request.currency))


def _within_limits(rule: Rule, request: QuoteRequest, exchange: _Exchange, where: str) -> None:
    if rule.single_item and (len(request.lines) > 1 or request.lines[0].quantity > 1):
        raise _Refused("over_limit", f"{rule.id} allows one single item: {rule.title}", where,
                       "Split the order into consignments within the limit, or clear it as general trade.")
    if rule.yearly_limit is not None and request.used_this_year is not None:
        currency = rule.currency or request.currency
        now = exchange.whole(sum(line.amount for line in request.lines) + request.freight + request.insurance, currency)
        if now + Fraction(request.used_this_year, 10 ** exponent(currency)) > rule.yearly_limit:
            raise _Refused("over_yearly_limit", f"the buyer would pass {currency} {plain(rule.yearly_limit)} a year", where,
                           "Wait for the next calendar year, or clear it as general trade.")


def _bounds(rule: Rule) -> str:
    bounds, currency = rule.value, rule.currency or ""
    if bounds is None:
        return "any value"
    parts = [f"over {plain(bounds.over)}"] if bounds.over is not None else []
    parts += [f"up to {plain(bounds.up_to)}"] if bounds.up_to is not None else []
    return f"{' '.join(parts)} {currency} {bounds.basis}"


def _mode(request: QuoteRequest, rule: Rule) -> str | None:
    return request.mode or next(iter(rule.modes), None)


# -- money ------------------------------------------------------------------------------------------------------------


class _Exchange:
    """Customs rates of the import date; remembers which were used."""

    def __init__(self, request: QuoteRequest, rules: Rules) -> None:
        self.request, self.rules = request, rules
        self.used: dict[tuple[str, str], Row] = {}

    def of(self, base: str, quote: str) -> Fraction:
        """`quote` for 1 `base`."""
        if base == quote:
            return Fraction(1)
        found = self.rules.rate(base, quote, self.request.import_date)
        if found is None:
            day = self.request.import_date
            raise _Refused("no_customs_rate", f"no customs rate of {base} and {quote} is valid on {day}",
                           "currency", f"Quote in {quote}, or give a [[customs_rate]] of your own ({OUTSIDE}).")
        self.used[base, quote] = found[0]
        return found[1]

    def whole(self, minor: int, currency: str) -> Fraction:
        """Minor units of the request's currency in whole units of `currency`."""
        return Fraction(minor, 10 ** exponent(self.request.currency)) * self.of(self.request.currency, currency)

    def told(self, base: str, quote: str) -> CustomsRate | None:
        row = self.used.get((base, quote))
        return row and CustomsRate(id=row.id, base=row.base, quote=row.quote, rate=plain(row.rate).replace(",", ""))


def apportion(total: int, weights: Sequence[Fraction | int]) -> list[int]:
    """`total` in whole parts proportional to `weights` that add up to it: largest remainder, of equals the first."""
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    shares = [total * weight for weight in weights]
    parts = [int(share // whole) for share in shares]
    left = total - sum(parts)
    for n in sorted(range(len(parts)), key=lambda n: (-(shares[n] % whole), n))[:left]:
        parts[n] += 1
    return parts


def _round(value: Fraction, currency: str, mode: str) -> int:
    """Whole units to minor units of `currency`. Values are never negative."""
    minor = value * 10 ** exponent(currency)
    down = floor(minor)
    rest = minor - down
    if rest == 0 or mode == "down":
        return down
    if mode == "half_even" and rest == Fraction(1, 2):
        return down + down % 2
    return down + (mode == "up" or rest >= Fraction(1, 2))


def plain(number: Fraction) -> str:
    """The decimal string of a number that was read from one."""
    return format((Decimal(number.numerator) / number.denominator).normalize(), ",f")


# -- the assessment ---------------------------------------------------------------------------------------------------


def _lines(request: QuoteRequest, rule: Rule, rate: Fraction, currency: str) -> list[_Line]:
    """Each line with its share of freight and insurance, shared by value in the buyer's minor units."""
    for line in request.lines:
        if len(line.hs_code) < rule.hs_digits:
            raise _Refused("hs_code_too_short", f"{line.hs_code} is shorter than the {rule.hs_digits} digits {rule.id} needs",
                           f"line {line.line_no}", "Give the full code of the destination's tariff.")
    amounts = [line.amount for line in request.lines]
    unit = Fraction(1, 10 ** exponent(request.currency)) * rate
    shares = zip(request.lines, apportion(request.freight, amounts), apportion(request.insurance, amounts), strict=True)
    return [_Line(line, line.amount * unit, (line.amount + freight + insured) * unit) for line, freight, insured in shares]


def _rated(request: QuoteRequest, rule: Rule, rules: Rules, lines: list[_Line]) -> bool:
    """Find each line's rates. False when one is missing where the buyer may pay on arrival instead."""
    for line in lines:
        hs, origin, wanted = line.asked.hs_code, line.asked.origin, {}
        if rule.duty.kind == "percent":
            wanted["duty"] = rules.duty_of(request.destination, hs, origin, request.import_date)
        for kind in TAX_KINDS[rule.tax.kind]:
            wanted[kind] = rules.tax_of(request.destination, kind, hs, request.import_date)
        line.rates = {kind: row for kind, row in wanted.items() if row is not None}
        missing = [kind for kind in wanted if kind not in line.rates]
        if missing and rule.rates_needed:
            raise _Refused("no_rate", f"no {' and no '.join(missing)} rate for {hs} of {origin} into {request.destination} "
                           f"is valid on {request.import_date}", f"line {line.asked.line_no}",
                           f"Check the code, or give a [[duty]] or [[tax]] row of your own ({OUTSIDE}).")
        if missing:
            for each in lines:
                each.rates.clear()
            return False
    return True


def _assess(request: QuoteRequest, rule: Rule, rules: Rules, lines: list[_Line], currency: str) -> None:
    """Duty first, rounded; then the taxes, which are charged on it too."""
    if rule.duty.kind == "flat_per_hs6":
        groups: dict[str, list[_Line]] = {}
        for line in lines:
            groups.setdefault(line.asked.hs_code[:6], []).append(line)
        for group in groups.values():
            parts = apportion(_round(rule.duty.amount, currency, "half_up"), [line.asked.amount for line in group])
            for line, part in zip(group, parts, strict=True):
                line.assessed["duty"] = part
    elif rule.duty.kind == "percent":
        for line in lines:
            base = line.value if rule.duty.base == "cif" else line.goods
            line.exact["duty"] = base * line.rates["duty"].percent / HUNDRED
        _settle(lines, "duty", currency, rule.rounding)
    for line in lines:
        base = line.value + Fraction(line.assessed.get("duty", 0), 10 ** exponent(currency))
        if rule.tax.kind == "vat":
            line.exact["import_tax"] = base * line.rates["vat"].percent / HUNDRED
        elif rule.tax.kind == "china":
            vat, consumption = line.rates["vat"].percent / HUNDRED, _consumption(line)
            composed = base / (1 - consumption) * rule.tax.relief
            line.exact["consumption_tax"], line.exact["import_tax"] = composed * consumption, composed * vat
    for kind in ("consumption_tax", "import_tax"):
        if kind in lines[0].exact:
            _settle(lines, kind, currency, rule.rounding)


def _consumption(line: _Line) -> Fraction:
    """The consumption tax rate of a line; some goods are taxed only above a value per gram."""
    row = line.rates["consumption"]
    if row.from_value_per_gram is None:
        return row.percent / HUNDRED
    if line.asked.net_grams is None:
        raise _Refused("weight_needed", f"{row.id} depends on the value per gram", f"line {line.asked.line_no}",
                       "Give the line's net weight in grams (net_grams, or --line …:GRAMS).")
    return row.percent / HUNDRED if line.value / line.asked.net_grams >= row.from_value_per_gram else Fraction(0)


def _settle(lines: list[_Line], kind: str, currency: str, rounding: Rounding) -> None:
    """Round one tax, on each line or once on the total; the parts of a rounded total add up to it."""
    if rounding.per == "line":
        parts = [_round(line.exact[kind], currency, rounding.mode) for line in lines]
    else:
        total = _round(sum(line.exact[kind] for line in lines), currency, rounding.mode)
        parts = apportion(total, [line.exact[kind] for line in lines])
    for line, part in zip(lines, parts, strict=True):
        line.assessed[kind] = part


# -- the charges ------------------------------------------------------------------------------------------------------


def _charges(request: QuoteRequest, rule: Rule, rules: Rules, lines: list[_Line], currency: str, exchange: _Exchange
             ) -> list[Charge]:
    """Every kind of charge once, also when it is nothing, in the order in which people add them up."""
    mode, here = rule.rounding.mode, currency == request.currency
    back = 1 / exchange.of(request.currency, currency)

    def plain(kind: str, minor: int, who: str) -> Charge:
        assessed = minor if here else _round(exchange.whole(minor, currency), currency, mode)
        return Charge(kind=kind, amount=minor, assessed=assessed, levied_by=who, collected_by="platform", collect_at="checkout")

    def levied(kind: str, who: str) -> Charge:
        assessed = sum(line.assessed.get(kind, 0) for line in lines)
        amount = assessed if here else _round(Fraction(assessed, 10 ** exponent(currency)) * back, request.currency, mode)
        rows = [rule, *(line.rates[rate] for line in lines if (rate := RATE_OF[kind]) in line.rates)]
        return Charge(kind=kind, amount=amount, assessed=assessed, levied_by=f"{request.destination} {who}",
                      collected_by=rule.collected_by, collect_at=rule.collect_at,
                      rows=list(dict.fromkeys(row.id for row in rows)), certainty=max(row.certainty for row in rows))

    goods = sum(line.amount for line in request.lines)
    return [plain("goods", goods, "seller"), plain("freight", request.freight, "carrier"),
            plain("insurance", request.insurance, "insurer"), levied("duty", "customs"),
            levied("consumption_tax", "tax authority"), levied("import_tax", "tax authority"),
            _clearance(request, rule, rules, currency, exchange)]


def _clearance(request: QuoteRequest, rule: Rule, rules: Rules, currency: str, exchange: _Exchange) -> Charge:
    fees = [fee for fee in rules.fees if fee.enabled and _applies(fee, request, rule, rules)]
    mode = rule.rounding.mode
    amount = sum(_round(fee.amount * exchange.of(fee.currency or request.currency, request.currency), request.currency, mode)
                 for fee in fees)
    return Charge(kind="clearance_fee", amount=amount, assessed=_round(exchange.whole(amount, currency), currency, mode),
                  levied_by="carrier", collected_by=fees[0].collected_by if fees else "carrier",
                  collect_at=fees[0].collect_at if fees else rule.collect_at, rows=[fee.id for fee in fees],
                  certainty=max((fee.certainty for fee in fees), default=None))


def _applies(fee: Fee, request: QuoteRequest, rule: Rule, rules: Rules) -> bool:
    return (fee.holds(request.import_date) and rules.covers(fee, request.destination)
            and (not fee.channels or request.channel in fee.channels)
            and (not fee.declarations or rule.declaration in fee.declarations))


def _told(line: _Line, currency: str) -> AssessedLine:
    return AssessedLine(line_no=line.asked.line_no, hs_code=line.asked.hs_code,
                        customs_value=_round(line.value, currency, "half_up"),
                        rows=[row.id for row in line.rates.values()], **{kind: line.assessed.get(kind, 0) for kind in TAXES})


def _required(request: QuoteRequest, rule: Rule, rules: Rules) -> list[str]:
    rows = [row for row in rules.requirements if row.enabled and row.holds(request.import_date)
            and rules.covers(row, request.destination) and (not row.modes or _mode(request, rule) in row.modes)]
    return list(dict.fromkeys(name for row in rows for name in row.data))


def _notes(request: QuoteRequest, rule: Rule, complete: bool) -> list[str]:
    notes = []
    if not complete:
        notes.append("duty and import tax are not in the total: the carrier collects them from the buyer on arrival (DAP)")
    if rule.yearly_limit is not None:
        limit = f"{rule.currency} {plain(rule.yearly_limit)} for a buyer and year"
        unchecked = "" if request.used_this_year is not None else ", which was not checked here"
        notes.append(f"counts towards {limit}{unchecked}")
    return notes
