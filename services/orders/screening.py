"""What is checked before an order is accepted. A refusal is a named reason and a sentence with the remedy."""

from __future__ import annotations

from functools import lru_cache

import iso4217

from schemas.orders_intake import PlaceOrder
from schemas.parties import SealBroken, check
from services.orders.rulebook import countries


@lru_cache(maxsize=1)
def _currencies() -> frozenset[str]:
    # A currency without an exponent (gold, testing codes) cannot be counted in minor units.
    return frozenset(c.code for c in iso4217.Currency if c.exponent is not None)


def screen(command: PlaceOrder, vault_key: bytes) -> tuple[str, str] | None:
    """(reason, detail) of the first thing wrong, or None."""
    if command.currency not in _currencies():
        return "unknown_currency", f"{command.currency} is not an ISO 4217 currency with minor units"
    for name, country in (("origin", command.origin), ("destination", command.destination)):
        if country not in countries():
            return "unknown_country", f"{name} {country} is not an ISO 3166 country"
    numbers = {line.line_no for line in command.lines}
    if len(numbers) != len(command.lines):
        return "line_numbers", "two lines have the same number; number them 1, 2, 3 …"
    goods = sum(line.amount for line in command.lines)
    total = goods + command.freight + command.tax
    if total != command.total:
        return "total_mismatch", f"lines {goods} + freight {command.freight} + tax {command.tax} = {total}, not {command.total}"
    if command.total <= 0:
        return "nothing_to_pay", "the total must be above zero"
    try:
        check(command.buyer, vault_key)
        if command.consignee.token != command.buyer.token:
            check(command.consignee, vault_key)
    except SealBroken as why:
        return "party_unreadable", str(why)
    return None
