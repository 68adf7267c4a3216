"""Rules of merchants' terms (12): each order is paid out by those that its merchant had agreed to when it was accepted.

That a release is split by the terms frozen on its order is `rules_shares.split_as_agreed`; here they are held against what the
merchant registered with, and against the fee plans' own rows where their file is at hand.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from schemas.terms import STANDARD, Terms
from services.auditor.rules import Case, Whole, WholeVerdict, whole_rule
from services.auditor.rules_merchants import Span

_TAKES = {"fee": 0, "withheld": 0, "withheld_for": None, "reserve": 0, "reserve_days": 0, "freight": "carrier"}


class Agreement(NamedTuple):
    """`told`: when; `since`: for orders of that day on, None: of any."""

    version: int
    told: datetime
    since: date | None
    plan: str
    payout: str


def agreements_of(case: Case) -> list[Agreement]:
    """Of a merchant's story."""
    return [Agreement(1, event.time, None, event.data.fee_plan, event.data.payout_currency) if event.type == "MerchantApproved" else
            Agreement(event.data.version, event.time, event.data.valid_from, event.data.fee_plan, event.data.payout_currency)
            for event in case.story.of("orders", "MerchantApproved", "TermsChanged")]


def plans_in(file: Path | None) -> dict[str, dict[str, Any]] | None:
    """The rows of fee plans, by id; None: their file is not at hand."""
    return None if file is None else {row["id"]: row for row in tomllib.loads(file.read_text(encoding="utf-8")).get("plan", ())}


@whole_rule(12, "an order's fee and payout currency are those in force for its merchant at acceptance")
def as_agreed(whole: Whole) -> Iterator[WholeVerdict]:
    for merchant, spans in whole.spans.items():
        known = whole.agreed.get(merchant, [])
        for span in spans:
            if known or span.terms is not None:
                wrong = _wrong(span, _in_force(known, span, whole.near), whole.plans)
                yield (span.order_id, [f"placed on {span.day} with {merchant}", *wrong]) if wrong else None


def _in_force(known: list[Agreement], span: Span, near: timedelta) -> set[Agreement | None]:
    """One, or several where terms changed just when the order came: merchant and order need not be in one partition."""
    fits = [each for each in known if (each.since is None or each.since <= span.day) and each.told <= span.placed + near]
    sure = [each for each in fits if each.told <= span.placed - near]
    return {sure[-1] if sure else None, *fits[len(sure):]}


def _wrong(span: Span, right: set[Agreement | None], plans: dict[str, dict[str, Any]] | None) -> list[str]:
    terms: Terms | None = span.terms
    if terms is None:
        return [] if None in right else [f"it has no terms, and {sorted(filter(None, right))} were in force"]
    agreed = next((each for each in right if each is not None and each.version == terms.version), None)
    if agreed is None:
        return [f"accepted by version {terms.version} of his terms, and {sorted(filter(None, right))} were in force"]
    wrong = [f"paid out in {terms.payout} instead of {agreed.payout}"] if terms.payout != agreed.payout else []
    fx = terms.fx
    if (fx is None) != (terms.payout == span.currency) or fx is not None and (
            (fx.base, fx.quote) != (span.currency, terms.payout) or not fx.locked_at.date() <= span.day <= fx.expires_at.date()):
        wrong.append(f"converted from {span.currency} into {terms.payout} by {fx}")
    return wrong + (_price(terms, agreed, span, plans) if plans is not None else [])


def _price(terms: Terms, agreed: Agreement, span: Span, plans: dict[str, dict[str, Any]]) -> list[str]:
    free = agreed.plan == STANDARD and all(row["plan"] != STANDARD for row in plans.values())
    row = {"plan": STANDARD, "valid_from": span.day} if free and terms.plan == STANDARD else plans.get(terms.plan)
    if row is None or row["plan"] != agreed.plan or not row["valid_from"] <= span.day <= (row.get("valid_to") or date.max):
        return [f"by the row {terms.plan}, which is no row of {agreed.plan} on {span.day}"]
    right = {name: row.get(name, default) for name, default in _TAKES.items()} | {
        "fee_fixed": row.get("fee_fixed", {}).get(span.currency, 0)}
    return [f"{name} is {getattr(terms, name)} instead of {value}" for name, value in right.items() if getattr(terms, name) != value]
