"""Rule 28: a service's own topic, folded alone, gives what stands in its database: status and end of each order, ledger.

Rule 25 asks whether all three services tell the same; this one asks of each by itself, so that a database could be made
again from its topic. The stock's part of it is rule 15, "stock table = sum of events". That reading every topic again from
its beginning changes nothing is the other half of 28: see `services.auditor.reread`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from schemas.ledger import ASIDE, side
from schemas.lifecycle import PARCEL, PAYMENT
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.story import Event

_ENDS = {"OrderCompleted": "completed", "OrderCancelled": "cancelled", "OrderRejected": "rejected"}
_UNSAID = ("", False)  # compared by identity: the topic alone does not say whether the order is open
_OPENS_AGAIN = {"ReturnRequested", "DisputeOpened", "RefundGranted"}
_TAKEN = {"ChargebackOpened", "SecondChargeback"}
_LOST = {"ChargebackLost", "ChargebackPartlyLost"}
# Event -> the account that goes down, the one that goes up.
_BOOKS = {"PaymentHeld": ("buyer", "held"), "PaymentPartiallyRefunded": ("held", "refunded"),
          "PaymentRefunded": ("held", "refunded"), "PaymentSettled": ("held", "released"),
          "PaymentChargedBack": ("held", "charged_back"), "FundsRecovered": ("recovered", "held")}


@order_rule(28, "the ledger is payments' topic, folded", live=False)
def ledger_from_topic(case: Case) -> Iterator[Verdict]:
    """Every account of every parcel, also such as no event knows."""
    folded = ledger_of(case.story.events["payments"])
    for key in folded.keys() | case.balances.keys():
        have, told = case.balances[key], folded[key]
        yield None if have == told else [f"parcel {key[0]}, account {key[1]}: ledger {have}, events {told}"]
    aside = [b for b in case.ledger if side(b.account, b.kind) == ASIDE]
    if aside:
        taxed = case.facts.placed is not None and case.facts.placed.quote is not None
        lost = bool(case.story.of("payments", *_LOST))
        kinds = {*(("assess", "declare", "variance") if taxed else ()), *(("chargeback_lost",) if lost else ()),
                 *(("reclaim",) if case.story.of("payments", "TaxReclaimed") else ())}
        wrong = [b for b in aside if b.kind not in kinds]
        yield ["no event books this", *map(str, wrong)] if wrong else None


@order_rule(28, "an order's status is that of its service's topic, folded", live=False)
def rows_from_topics(case: Case) -> Iterator[Verdict]:
    if not case.story.events["orders"]:
        return  # a record about an order that never was left a row; who waits there is rule 27's and 26's business
    for service, row in case.rows.items():
        end = _END_OF[service](case)
        if end is _UNSAID:
            continue
        status, closed = end or ("", False)
        right = row.closed == closed and (not status or row.status == status)
        yield None if right else [f"{service} has it {row.status!r}, {'closed' if row.closed else 'open'}",
                                  f"its topic alone says {status or 'closed' if closed else 'open'}",
                                  *(f"last: {e}" for e in case.story.events[service][-1:])]


def ledger_of(events: list[Event]) -> Counter[tuple[str, str]]:
    """(parcel, account) -> minor units."""
    sums: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event.type in _TAKEN or event.type == "ChargebackReversed":
            sign, from_platform = (1, "recovered") if event.type in _TAKEN else (-1, "released")
            for parcel_id, amount in event.parcels:
                escrow = dict(event.data.parts)["escrow"]
                sums[parcel_id, "charged_back"] += sign * amount
                sums[parcel_id, "held"] -= sign * escrow
                sums[parcel_id, from_platform] -= sign * (amount - escrow)
        elif event.type == "PaymentDivided":
            for parcel_id, sign in ((event.data.ref, -1), (event.parcels[0][0], 1)):
                sums[parcel_id, "buyer"] -= sign * event.data.amount
                sums[parcel_id, "held"] += sign * event.data.amount
        elif event.type in _BOOKS:
            down, up = _BOOKS[event.type]
            for parcel_id, amount in event.parcels:
                sums[parcel_id, down] -= amount
                sums[parcel_id, up] += amount
    return sums


def _orders(case: Case) -> tuple[str, bool] | None:
    """The end that orders told last, unless it opened the order again since. None: open."""
    end = None
    for event in case.story.events["orders"]:
        if event.type in _ENDS:
            end = _ENDS[event.type], True
        elif event.type in _OPENS_AGAIN:
            end = None
    return end


def _payments(case: Case) -> tuple[str, bool] | None:
    """Closed once the money of every parcel it ever spoke of is at its end."""
    told = {parcel_id for event in case.story.events["payments"] for parcel_id, _ in event.parcels}
    if not told:
        return _UNSAID
    over = all(case.facts.parcels[parcel_id].money in PAYMENT.terminal for parcel_id in told)
    return ("", True) if over else None


def _shipping(case: Case) -> tuple[str, bool] | None:
    facts = case.facts
    machine = PARCEL.get(facts.regime)
    if machine is None or not facts.parcels:
        return _UNSAID
    over = all(parcel.goods in machine.terminal for parcel in facts.parcels.values())
    return ("", True) if over else None


_END_OF = {"orders": _orders, "payments": _payments, "shipping": _shipping}
