"""Whose money a parcel's is: how a release is split, and how quoted tax meets what was assessed. Pure.

Only orders with terms or with duty and taxes paid have `Shares`; nothing here runs for others. The tax account of a parcel
is even at its end: collected from the buyer - assessed + given back - variance = 0. What differs is the platform's, never the buyer's.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import iso4217

from schemas import payments_payment as out
from schemas.quotes import Quote
from schemas.terms import Assessment, Share, Terms
from services.payments.account import Duty, Hold, Shares, Work

WHOLE = 10_000  # permyriads


def duty_of(quote: Quote) -> Duty | None:
    """Whom the platform owes this quote's tax; None where the seller declares it himself, or there is none."""
    if not quote.for_authorities:
        return None
    rate, pair = quote.customs_rate, (1, 1)
    if rate is not None:
        one = Fraction(rate.rate) * Fraction(10 ** _exponent(rate.quote), 10 ** _exponent(rate.base))
        exact = one if rate.base == quote.customs_currency else 1 / one
        pair = exact.numerator, exact.denominator
    return Duty(quote.destination, quote.customs_currency, pair, quote.amount("clearance_fee"))


def _exponent(currency: str) -> int:
    return iso4217.Currency(currency).exponent


def shares_of(plans: list[Any], fee: int) -> list[Shares]:
    """One a parcel. The clearance `fee` follows the parcels' worth, and is the carrier's like the freight."""
    whole, seen, given, made = sum(p.amount for p in plans), 0, 0, []
    for plan in plans:
        seen += plan.amount
        upto = fee * seen // whole if whole else 0
        made.append(Shares(plan.freight + upto - given, plan.amount - plan.freight, plan.tax))
        given = upto
    return made


def split(amount: int, shares: Shares, terms: Terms | None) -> list[tuple[str, int]]:
    """(account, part) of a release: each part at least 0, together `amount`; each percentage rounded half up."""
    tax = min(shares.tax, amount)
    rest = amount - tax
    parts = [("tax", tax)]
    if terms is not None:
        freight = min(shares.freight, rest) if terms.freight == "carrier" else 0
        rest -= freight
        sold = rest
        parts.append(("carrier", freight))
        for account, wanted in (("fee", _part(sold, terms.fee) + terms.fee_fixed),
                                (f"withheld/{terms.withheld_for}", _part(sold, terms.withheld) if terms.withheld_for else 0),
                                ("reserve", _part(sold, terms.reserve))):
            part = min(wanted, rest)
            rest -= part
            parts.append((account, part))
    return [(account, part) for account, part in (("merchant", rest), *parts) if part]


def _part(amount: int, permyriad: int) -> int:
    return (amount * permyriad + WHOLE // 2) // WHOLE


def release(work: Work, payment_id: str, parcel_id: str, hold: Hold, amount: int) -> list[Share]:
    """Book `amount` out of escrow to all who have a share in it. A carrier's claim (`recovered`) is all the merchant's."""
    shares, account = hold.shares, work.account
    parts = [("merchant", amount)] if hold.status == "recovered" else split(amount, shares, account.terms)
    work.post("release_claim" if hold.status == "recovered" else "release", payment_id, parcel_id, [("held", -amount), *parts])
    if hold.status != "recovered":
        told = dict(parts)
        shares.collected, shares.reserve = told.get("tax", 0), told.get("reserve", 0)
        shares.reserved_at = work.now if shares.reserve else None
        if shares.assessed is None and account.duty is not None:
            _assess(work, "declare", payment_id, parcel_id, shares, shares.collected)
    even(work, payment_id, parcel_id, shares)
    return [Share.model_construct(account=name, amount=part) for name, part in parts]


def assessed(work: Work, payment_id: str, parcel_id: str, hold: Hold, bill: Assessment) -> None:
    """Customs has told what it asks for this parcel. It may tell so after the release: then what was declared is mended."""
    account, duty, shares = work.account, work.account.duty, hold.shares
    inside = bill.amount
    if bill.currency != account.currency:
        assert bill.currency == duty.currency, "looked at before"
        inside = (2 * bill.amount * duty.rate[0] + duty.rate[1]) // (2 * duty.rate[1])  # half up
    _assess(work, "assess", payment_id, parcel_id, shares, inside, bill)
    work.emit(out.TaxAssessed, payment_id, parcel_id=parcel_id, amount=inside, quoted=shares.collected or shares.tax,
              authority=duty.authority, document=bill.document, assessed=bill)
    if shares.ended:
        even(work, payment_id, parcel_id, shares)


def _assess(work: Work, kind: str, payment_id: str, parcel_id: str, shares: Shares, amount: int, bill: Assessment | None = None
            ) -> None:
    """The authority's claim on the platform grows to `amount`. What is owed in another currency is owed in that one."""
    if shares.assessed is None:
        shares.base = shares.goods - min(shares.gone, shares.goods)
    duty, more = work.account.duty, amount - (shares.assessed or 0)
    shares.assessed = amount
    payable = f"payable/{duty.authority}"
    if bill is None or bill.currency == work.account.currency:
        if more:
            work.post(kind, payment_id, parcel_id, [("tax", -more), (payable, more)])
        return
    work.post(kind, payment_id, parcel_id, [("tax", -more), ("position", more)])
    work.post(kind, payment_id, parcel_id, [("position", -bill.amount), (payable, bill.amount)], bill.currency)


def even(work: Work, payment_id: str, parcel_id: str, shares: Shares) -> None:
    """The parcel's money is at rest: what is left of its tax is the platform's gain or loss."""
    shares.ended = True
    odd = shares.odd
    if odd:
        work.post("variance", payment_id, parcel_id, [("tax", -odd), ("variance", odd)])
        shares.varied += odd
