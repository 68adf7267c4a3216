"""What is checked before an order is accepted. A refusal is a named reason and a sentence with the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import iso4217
from pydantic_core import from_json

from schemas.cold_chain import common_band
from schemas.numbers import is_gtin, is_resident_number
from schemas.orders_intake import PlaceOrder
from schemas.orders_order import ChinaImport, Declaration
from schemas.parties import SealBroken, SealedParty, check, consignee_of, identity_hash
from schemas.quotes import PAID_TO_OTHERS, Quote, QuoteLine, QuoteRequest, StatedQuote
from schemas.terms import Terms
from services.orders import denied, goods, quota
from services.orders.declarations import declared
from services.orders.landed_cost import Refusal, landed_cost
from services.orders.rulebook import Rules, countries
from services.orders.terms import Agreed, Book


@lru_cache(maxsize=1)
def currencies() -> frozenset[str]:
    # A currency without an exponent (gold, testing codes) cannot be counted in minor units.
    return frozenset(c.code for c in iso4217.Currency if c.exponent is not None)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is frozen of an order besides what it says: how its persons stand to the list of denied parties, its landed cost, the
    limits of an import into China, what was agreed with its merchant, and what is declared at the border."""

    quote: Quote | None = None
    china: ChinaImport | None = None
    terms: Terms | None = None
    screening: denied.Result = "CLEAR"
    screening_list: str = ""
    declaration: Declaration | None = None


def accept(command: PlaceOrder, vault_key: bytes, shared: Any, rules: Rules, book: Book,
           lists: tuple[denied.DeniedList, ...], platform: str = "", asked: goods.Goods | None = None,
           agreed: Agreed | None = None) -> Accepted | tuple[str, str]:
    """Everything that is checked, or (reason, detail) of the first thing wrong. `shared`: the rows of `quota.shared_keys`;
    `asked`: what is asked of goods; `agreed`: with the merchant."""
    persons: list[bytes] = []
    if (refusal := screen(command, vault_key, persons)) is not None:
        return refusal
    if (refusal := goods.check(command, asked or goods.load())) is not None:
        return refusal
    result, version = denied.screened(persons, command.placed_at.date(), lists)
    if result == "BLOCK":
        return "denied_party", f"buyer or consignee stands on the list of denied parties {version}; nothing may be sold to them"
    frozen = freeze(command, rules) if command.quote is not None else None
    if isinstance(frozen, tuple):
        return frozen
    china = quota.limits(command, shared, rules, platform, consignee_of(persons[-1], vault_key)) if quota.is_import(command) else None
    if isinstance(china, tuple):
        return china
    terms = book.of(agreed, command.currency, command.placed_at.date()) if agreed else None
    if isinstance(terms, tuple):
        return terms
    if command.fx_quote is not None and (wrong := _stale_fx(command, terms)) is not None:
        return wrong
    declaration = None if china else declared(command, frozen, rules)  # the three documents into China are shipping's to match
    return Accepted(frozen, china, terms, result, version, declaration)


def _stale_fx(command: PlaceOrder, terms: Terms | None) -> tuple[str, str] | None:
    """Whether the exchange quote that the merchant was shown still holds: else what he gets is not what he saw."""
    fx = terms.fx if terms else None
    if fx is None:
        return "fx_not_needed", f"{command.merchant_id} is paid in {command.currency}; leave the exchange quote out"
    if fx.id != command.fx_quote:
        return "fx_quote_expired", f"{command.fx_quote} does not hold at {command.placed_at:%Y-%m-%d %H:%M} UTC; now it is {fx.id}"
    return None


def screen(command: PlaceOrder, vault_key: bytes, persons: list[bytes] | None = None) -> tuple[str, str] | None:
    """(reason, detail) of the first thing wrong, or None. `persons` gets buyer and consignee as their seals hold them."""
    if command.currency not in currencies():
        return "unknown_currency", f"{command.currency} is not an ISO 4217 currency with minor units"
    for name, country in (("origin", command.origin), ("destination", command.destination)):
        if country not in countries():
            return "unknown_country", f"{name} {country} is not an ISO 3166 country"
    numbers = {line.line_no for line in command.lines}
    if len(numbers) != len(command.lines):
        return "line_numbers", "two lines have the same number; number them 1, 2, 3 …"
    for line in command.lines:
        if line.gtin is not None and not is_gtin(line.gtin):
            return "gtin_invalid", f"line {line.line_no}: {line.gtin} is no GTIN, its check digit does not fit; ask the merchant"
    cold = [line.cold for line in command.lines if line.cold is not None]
    if cold and common_band(cold) is None:
        return "cold_bands", "no temperature suits all of its goods; order what is frozen and what is only cool apart"
    season = command.season
    if season is not None and not max(season.ships_not_before, command.placed_at) < season.ships_not_after:
        return "season_dates", "the season must close after it opens, and after the order is placed"
    goods = sum(line.amount for line in command.lines)
    total = goods + command.freight + command.tax
    if total != command.total:
        return "total_mismatch", f"lines {goods} + freight {command.freight} + tax {command.tax} = {total}, not {command.total}"
    if command.total <= 0:
        return "nothing_to_pay", "the total must be above zero"
    if command.bonded is not None and (wrong := _bonded_wrong(command)) is not None:
        return wrong
    try:
        buyer = check(command.buyer, vault_key)
        found = [buyer] if command.consignee.token == command.buyer.token else [buyer, check(command.consignee, vault_key)]
    except SealBroken as why:
        return "party_unreadable", str(why)
    if persons is not None:
        persons += found
    return _identity_wrong(command.buyer, buyer, vault_key) if quota.is_import(command) else None


def _bonded_wrong(command: PlaceOrder) -> tuple[str, str] | None:
    if not quota.is_import(command):
        return "bonded_not_into_china", "goods of a bonded warehouse (mode 1210) are imported into China; leave `bonded` out, or correct the countries"
    missing = [line.line_no for line in command.lines if line.item_record is None]
    return ("item_record_missing", f"line {missing[0]} has no item_record; mode 1210 asks for each line's") if missing else None


def _identity_wrong(sealed: SealedParty, buyer: bytes, vault_key: bytes) -> tuple[str, str] | None:
    """Without a number Chinese customs gets no papers, which is found later; a wrong one would be found by them."""
    number = from_json(buyer)["identity_no"]
    if number and not is_resident_number(number):
        # The number itself is never told: what we say here stands on a topic.
        return "identity_invalid", "the buyer's identity number is miswritten (its check character does not fit); ask for it again"
    if sealed.identity != identity_hash(number, vault_key):  # or a person's year could be counted on several rows
        return "party_unreadable", "the keyed hash of the buyer's identity number is missing or another person's; seal the buyer again"
    return None


def freeze(command: PlaceOrder, rules: Rules) -> Quote | tuple[str, str]:
    """The landed cost of an order whose duty and taxes are paid with it, worked out again; or (reason, detail).

    A quote that is not what our rules give is refused, whoever it favours: the buyer agreed to these amounts.
    """
    stated = command.quote
    assert stated is not None, "only an order with a quote is frozen"
    request = _asked_again(command, stated, rules)
    if isinstance(request, tuple):
        return request
    quote = landed_cost(request, rules)
    if isinstance(quote, Refusal):
        return "quote_refused", f"{quote.reason}: {quote.what} ({quote.where}). {quote.remedy}"
    if not quote.complete:
        return "quote_incomplete", f"by {quote.rule_id} duty and tax are paid on arrival; place the order without a quote"
    wrong = [f"{name} is {ours}, not {theirs}" for name, ours, theirs in _compared(command, stated, quote) if ours != theirs]
    return ("quote_mismatch", f"{'; '.join(wrong)}; ask for the quote again") if wrong else quote


def _asked_again(command: PlaceOrder, stated: StatedQuote, rules: Rules) -> QuoteRequest | tuple[str, str]:
    if rules.territory(command.origin) == rules.territory(command.destination):
        return "quote_not_an_import", f"from {command.origin} to {command.destination} no border of customs is crossed"
    if stated.import_date < command.placed_at.date():
        return "quote_date", f"the import on {stated.import_date} lies before the order of {command.placed_at.date()}"
    if stated.insurance > command.freight:
        return "quote_mismatch", f"insurance {stated.insurance} is more than the freight {command.freight} it is a part of"
    known = {line.line_no: line for line in stated.lines}
    if len(known) != len(stated.lines) or known.keys() != {line.line_no for line in command.lines}:
        return "quote_lines", "the quote must name each line of the order once, and no other"
    if missing := [line.line_no for line in command.lines if line.hs_code is None]:
        return "quote_lines", f"line {missing[0]} has no hs_code"
    lines = [QuoteLine.model_construct(line_no=line.line_no, hs_code=line.hs_code, origin=known[line.line_no].origin,
                                       quantity=line.quantity, amount=line.amount, net_grams=known[line.line_no].net_grams)
             for line in command.lines]
    return QuoteRequest.model_construct(
        destination=command.destination, channel=stated.channel, mode=stated.mode, import_date=stated.import_date,
        currency=command.currency, lines=lines, freight=command.freight - stated.insurance, insurance=stated.insurance,
        used_this_year=None)


def _compared(command: PlaceOrder, stated: StatedQuote, quote: Quote) -> list[tuple[str, object, object]]:
    """(name, what our rules give, what the order says)."""
    rates = [rate and f"{rate.rate} ({rate.id})" for rate in (quote.customs_rate, stated.customs_rate)]
    return [("rule", quote.rule_id, stated.rule_id), ("customs rate", *rates),
            *((kind, quote.amount(kind), getattr(stated, kind)) for kind in PAID_TO_OTHERS),
            ("tax", quote.amount(*PAID_TO_OTHERS), command.tax)]
