"""The escrow of a parcel that its warehouse split: part of it is the new parcel's from now on. No money moves. Pure.

Both are paid for by one captured payment, so the provider has nothing to do with it; the ledger takes the part out of the
one parcel and puts it into the other, so that each is even by itself. What is about to go back to the buyer, and a
return, dispute or payout that is open, stays with the first: it was of that parcel. While a bank has its money, or asks
for it, the split waits for the bank's decision."""

from __future__ import annotations

from typing import Any

from schemas import payments_payment as out
from schemas.lifecycle import CHARGEBACK, CONTESTED
from services.payments.account import Hold, Shares, Work
from services.runtime.decision import Incoming, NotYet, Stale


def divided(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    event, account = incoming.data, work.account
    first, plan = account.holds.get(event.parcel_id), event.part
    if first is None or first.status in ("new", "authorised"):
        return NotYet("PaymentHeld")
    if plan.parcel_id in account.holds:
        return Stale("divided before")
    if first.status in CONTESTED or _in_dispute(work, event.parcel_id):
        return NotYet("the decision of the buyer's bank")
    payment_id, payment = next((k, p) for k, p in account.payments.items() if event.parcel_id in p.parcels)
    # Of what the buyer's bank has taken for good nothing can be divided; the first is the one that it was taken of.
    amount = min(plan.amount, first.due - 1) if first.due else 0
    assert 0 <= amount <= first.held, f"{plan.parcel_id}: {amount} of {first}"
    second = account.holds[plan.parcel_id] = Hold(amount, documents=True)
    payment.parcels = [*payment.parcels, plan.parcel_id]
    if first.shares is not None:
        _share(first.shares, second, event)
    for name, dispute in (account.disputes or {}).items():
        if event.parcel_id in dispute.parts:
            account.disputes[name] = dispute = dispute.draft()
            dispute.parts[plan.parcel_id] = 0  # should the bank come back to it, it is about both
    first.due -= amount
    first.captured -= amount
    first.held -= amount
    second.captured = second.held = amount
    work.step(plan.parcel_id, "PaymentDivided")
    work.emit(out.PaymentDivided, payment_id, parcel_id=plan.parcel_id, amount=amount, of=event.parcel_id)
    if amount:
        work.book("divide", payment_id, event.parcel_id, "held", "buyer", amount)
        work.book("divide", payment_id, plan.parcel_id, "buyer", "held", amount)
    else:  # the buyer has, or will have, all back of both, with the first
        work.step(plan.parcel_id, "PaymentRefunded")
        work.emit(out.PaymentRefunded, payment_id, parcel_id=plan.parcel_id, amount=0, reason="dispute_lost",
                  ref="", via="provider")
    return None


def awaited(work: Work, event: Any) -> NotYet | None:
    """Orders knows what was split off the parcel that it decides about; shipping tells us on a topic of its own."""
    return NotYet("ParcelSplit") if any(parcel_id not in work.account.holds for parcel_id in event.split_off) else None


def _in_dispute(work: Work, parcel_id: str) -> bool:
    return any(parcel_id in dispute.parts and dispute.status not in CHARGEBACK.terminal
               for dispute in (work.account.disputes or {}).values())


def _share(first: Shares, second: Hold, event: Any) -> None:
    """Freight, goods and tax as shipping divided them. A clearance fee is the first's: it was quoted for one box."""
    plan = event.part
    second.shares = Shares(plan.freight, plan.amount - plan.freight, plan.tax)
    first.freight -= plan.freight
    first.goods -= plan.amount - plan.freight
    first.quoted -= plan.tax
