"""Tax that an authority gives back for goods that came back in time: claimed once it has taken their list back. Pure.

Whether they are in time is shipping's to say, by the rule frozen on the order; what is late has no list to return, and no claim.
Whoever bore the tax has what is given back: the merchant, who had been paid and gave his buyer everything back; else the
platform, whose variance it was.
"""

from __future__ import annotations

from typing import Any

from schemas import payments_payment as out
from services.payments import shares
from services.payments.account import Hold, Work
from services.runtime.decision import Incoming, NotYet, Stale


def noted(hold: Hold, event: Any) -> None:
    """Goods are back, and their list is returned to customs (CEB625). Where nothing was assessed yet, what will be declared is
    without them."""
    if event.returns_list and hold.shares is not None and hold.shares.assessed is not None:
        hold.shares.returning = (*hold.shares.returning, (event.return_id, event.worth, hold.released > 0))


def answered(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """Customs took the list back, or not."""
    event = incoming.data
    hold = work.account.holds.get(event.parcel_id)
    if hold is None:
        return NotYet("ParcelsAllocated")
    own = hold.shares
    found = next((each for each in own.returning if each[0] == event.return_id), None) if own is not None else None
    if event.form != "CEB626" or found is None:
        return Stale("no tax was paid with these goods")
    own.returning = tuple(each for each in own.returning if each is not found)
    if not event.accepted:
        return None  # the tax stays; customs said why
    _, worth, settled = found
    own.returned += worth
    amount = own.assessed * min(own.returned, own.base) // own.base - own.reclaimed if own.base else 0
    if amount > 0:
        _claim(work, event, hold, amount, "merchant" if settled else "platform")
    return None


def _claim(work: Work, event: Any, hold: Hold, amount: int, credited: str) -> None:
    own, duty = hold.shares, work.account.duty
    assert duty.currency == work.account.currency, "only China gives tax back, and takes no order in another currency"
    payment_id = next(k for k, p in work.account.payments.items() if event.parcel_id in p.parcels)
    own.reclaimed += amount
    work.post("reclaim", payment_id, event.parcel_id, [(f"reclaim/{duty.authority}", -amount),
                                                       ("merchant" if credited == "merchant" else "tax", amount)])
    if credited == "platform":
        own.relieved += amount
        if own.ended:
            shares.even(work, payment_id, event.parcel_id, own)
    work.emit(out.TaxReclaimed, payment_id, parcel_id=event.parcel_id, amount=amount, authority=duty.authority,
              return_id=event.return_id, list_no=event.list_no, credited=credited)
