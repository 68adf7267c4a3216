"""Which declaration an order needs at its destination's border, by the rules of the import date, and how long its codes must be.

Frozen when the order is placed, told with it, and held against its lines before anything is packed. Pure.
"""

from __future__ import annotations

from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from schemas.orders_intake import PlaceOrder
from schemas.orders_order import Declaration
from schemas.quotes import Channel, Quote
from services.orders.rulebook import Bounds, Rules, exponent

CHANNEL: Channel = "b2c"
AHEAD = timedelta(days=2)  # from the order to the border, where no quote names the day


class _Choice(NamedTuple):
    """A declaration and the values it is for, in minor units of the order's currency. `dutiable`: with freight."""

    declaration: Declaration
    over: Fraction | None
    up_to: Fraction | None
    dutiable: bool

    def fits(self, goods: int, freight: int) -> bool:
        value = goods + freight if self.dutiable else goods
        return (self.over is None or value > self.over) and (self.up_to is None or value <= self.up_to)


def declared(command: PlaceOrder, quote: Quote | None, rules: Rules) -> Declaration | None:
    """None: no border of customs is crossed, or none of our rules says what is asked there (no customs rate of the day, a
    value beyond all rules): the carrier's broker then declares as he knows."""
    if quote is not None:
        digits = next((rule.hs_digits for rule in rules.rules if rule.id == quote.rule_id), 6)
        return Declaration.model_construct(name=quote.declaration, rule_id=quote.rule_id, hs_digits=digits)
    if rules.territory(command.origin) == rules.territory(command.destination):
        return None
    goods = sum(line.amount for line in command.lines)
    day = command.placed_at.date() + AHEAD
    for choice in _choices(rules, command.origin, command.destination, command.currency, day):
        if choice.fits(goods, command.freight):
            return choice.declaration
    return None


@lru_cache(maxsize=4096)
def _choices(rules: Rules, origin: str, destination: str, currency: str, day: date) -> tuple[_Choice, ...]:
    """In the order of the rules; nothing where one of them cannot be compared with, for it might be the one."""
    choices = []
    for rule in rules.rules_for(destination):
        if not rule.enabled or not rule.holds(day) or CHANNEL not in rule.channels or rule.single_item:
            continue
        if origin in rule.not_from or (rule.made_in and origin not in rule.made_in):
            continue
        unit = _unit(rules, currency, rule.currency or currency, day)
        if unit is None:
            return ()
        bounds = rule.value or Bounds(basis="intrinsic")
        choices.append(_Choice(
            Declaration.model_construct(name=rule.declaration, rule_id=rule.id, hs_digits=rule.hs_digits),
            bounds.over and bounds.over / unit, bounds.up_to and bounds.up_to / unit, bounds.basis == "dutiable"))
    return tuple(choices)


def _unit(rules: Rules, currency: str, customs: str, day: date) -> Fraction | None:
    """What a minor unit of the order's currency is worth in whole units of customs' currency."""
    minor = Fraction(1, 10 ** exponent(currency))
    if currency == customs:
        return minor
    found = rules.rate(currency, customs, day)
    return found and minor * found[1]
