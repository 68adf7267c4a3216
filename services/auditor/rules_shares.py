"""Rules of who gets what: a release is split by the terms frozen on the order, and tax goes to its authority.

What a release must be is worked out here from OrderPlaced, ParcelsAllocated and the refunds before it, not taken from payments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from schemas.ledger import RELEASES, account_of
from services.auditor.facts import Parcel, Release
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule

_RESTS = {"settled", "refunded", "charged_back"}


@order_rule(7, "ledger = events, payee by payee", live=False)
def payees_got_what_was_told(case: Case) -> Iterator[Verdict]:
    booked: dict[str, Counter[str]] = {}
    for row in case.ledger:
        if row.kind in RELEASES and row.kind != "release_advance" and row.account != "held":
            booked.setdefault(row.parcel_id, Counter())[row.account] += row.amount
    for parcel_id, parcel in case.facts.parcels.items():
        told: Counter[str] = Counter()
        for release in parcel.releases:
            told.update(dict(release.event.data.parts or (("merchant", release.amount),)))
        if told or parcel_id in booked:
            have = booked.get(parcel_id, Counter())
            # Before accounts were split, all of it stood on one.
            yield None if have == told or set(have) == {"released"} else [f"parcel {parcel_id}", f"events {dict(told)}",
                                                                        f"ledger {dict(have)}"]


@order_rule(12, "a release is split by the order's terms", live=False)
def split_as_agreed(case: Case) -> Iterator[Verdict]:
    placed = case.facts.placed
    if placed is None or (placed.terms is None and placed.quote is None):
        return
    for parcel_id, parcel in case.facts.parcels.items():
        for release in parcel.releases:
            right, told = _right(case, parcel_id, parcel, release), dict(release.event.data.parts)
            yield None if told == right else [str(release.event), f"parcel {parcel_id}: split {told} instead of {right}"]


def _right(case: Case, parcel_id: str, parcel: Parcel, release: Release) -> dict[str, int]:
    """Who should have got what. Percentages are of the goods without tax and freight, each rounded half up."""
    placed, plan, left, parts = case.facts.placed, parcel.plan, release.amount, {}
    if plan is None or release.claim:
        return {"merchant": left} if placed.terms or _taxed(case) else {}
    if not (placed.terms or _taxed(case)):
        return {}

    def take(account: str, wanted: int) -> None:
        nonlocal left
        part = min(wanted, left)
        left -= part
        if part:
            parts[account] = parts.get(account, 0) + part

    goods = plan.amount - plan.freight
    take("tax", plan.tax - plan.tax * min(release.gone, goods) // goods if goods else 0)
    terms = placed.terms
    if terms is not None:
        if terms.freight == "carrier":
            take("carrier", plan.freight + _clearance(case, parcel_id))
        sold = left
        take("fee", (2 * sold * terms.fee + 10_000) // 20_000 + terms.fee_fixed)
        if terms.withheld_for:
            take(f"withheld/{terms.withheld_for}", (2 * sold * terms.withheld + 10_000) // 20_000)
        take("reserve", (2 * sold * terms.reserve + 10_000) // 20_000)
    return parts | ({"merchant": left} if left else {})


def _taxed(case: Case) -> bool:
    quote = case.facts.placed.quote
    return quote is not None and quote.for_authorities > 0


def _clearance(case: Case, parcel_id: str) -> int:
    """The parcel's part of a clearance fee that was quoted, by worth, in the order of the parcels."""
    quote, plans = case.facts.placed.quote, case.facts.allocated.plans
    fee = quote.amount("clearance_fee") if quote and _taxed(case) else 0
    whole, seen = sum(plan.amount for plan in plans.values()), 0
    for name, plan in plans.items():
        before, seen = fee * seen // whole, seen + plan.amount
        if name == parcel_id:
            return fee * seen // whole - before
    return 0


@order_rule(12, "a parcel's tax is its share of what was quoted")
def tax_by_worth(case: Case) -> Iterator[Verdict]:
    placed, allocated = case.facts.placed, case.facts.allocated
    if placed is None or allocated is None or not (placed.quote or any(plan.tax for plan in allocated.plans.values())):
        return
    quoted = placed.quote.for_authorities if placed.quote else 0
    goods = placed.total - placed.freight
    sent = sum(plan.amount - plan.freight for plan in allocated.plans.values())
    tax = sum(plan.tax for plan in allocated.plans.values())
    whole = allocated.total == placed.total
    right = tax == quoted if whole else tax <= quoted * sent / max(goods, 1) + len(allocated.plans)
    yield None if right and all(plan.tax >= 0 for plan in allocated.plans.values()) else [
        f"quoted {quoted}, its parcels have {tax} for {sent} of {goods}"]


@order_rule(9, "tax collected = assessed + variance; payable = assessed", live=False)
def tax_meets_its_bill(case: Case) -> Iterator[Verdict]:
    """By the ledger: at rest nothing is left between what the buyer paid as tax and the authority's claim."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for row in case.ledger:
        sums[row.parcel_id, row.account, row.currency] += row.amount
    for parcel_id, parcel in case.facts.parcels.items():
        bill, mine = parcel.assessed, {(a, c): n for (p, a, c), n in sums.items() if p == parcel_id}
        touched = bill is not None or any(account_of(a) in ("tax", "payable", "variance") for a, _ in mine)
        if not touched:
            continue
        if parcel.money in _RESTS:
            odd = sum(n for (a, _), n in mine.items() if a == "tax")
            yield None if odd == 0 else [f"parcel {parcel_id} is {parcel.money}", f"{odd} left on its tax account"]
        if bill is not None:
            name, currency, owed = bill.data.bill
            have = mine.get((f"payable/{name}", currency), 0)
            yield None if have == owed else [str(bill), f"assessed {owed} {currency}, payable/{name} has {have}"]
            gain = sum(n for (a, _), n in mine.items() if a == "variance")
            collected = sum(dict(r.event.data.parts).get("tax", 0) for r in parcel.releases)
            if parcel.money in _RESTS:
                back = sum(e.data.amount for e in parcel.reclaims if e.data.via == "platform")
                yield None if gain == collected - bill.data.amount + back else [
                    str(bill), f"collected {collected}, assessed {bill.data.amount}, given back {back}, variance {gain}"]


@whole_rule(8, "the trial balance of every currency is zero")
def trial_balance(whole: Whole) -> Iterator[WholeVerdict]:
    for currency, off in whole.trial_balance.items():
        yield None if off == 0 else ("", [f"the ledger's accounts in {currency} add up to {off}"])
