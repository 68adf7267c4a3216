"""Orders that stand still: for a merchant's freeze, or for whatever else must be looked into first.

While an order is held its clock stands: no timer of it fires, and when the last hold ends each has as much time left as it
had. What happens to goods and money meanwhile is recorded as ever; payments and shipping do not let it go further.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas import orders_order as out
from schemas.lifecycle import ORDER, Answer, deadlines
from services.runtime.decision import CLOSED, FROZEN, SCREENING, Decision, Stale, Standing

DENIED, UNAUTHORISED = "denied_party", "brand_not_authorised"
REVIEW_TIMER, BRAND_TIMER, REAL_NAME_TIMER = "screening:", "brand:", "real_name:"
RUNS_ON = frozenset({REVIEW_TIMER, BRAND_TIMER, REAL_NAME_TIMER})  # while the order is held: they are of what it is held for


def review(order: Any, version: str, now: datetime) -> list:
    """Somebody of the order is nearly a denied party: it stands still until an officer has decided, or too long."""
    order.timers[REVIEW_TIMER] = now + timedelta(seconds=deadlines()["screening"])
    return hold(order, SCREENING, version, now)


def decide_review(order: Any, outcome: str, by: str, detail: str, ref: str, now: datetime) -> list:
    """Clear: the order goes on. Blocked: it stays held, and all of it is cancelled."""
    order.timers.pop(REVIEW_TIMER, None)
    events = [out.ScreeningDecided(order_id=order.order_id, outcome=outcome, decided_by=by, detail=detail)]
    if outcome == "clear":
        order.reason = ""
        return events + resume(order, SCREENING, ref, now)
    events.append(_undo(order, ref))
    # After the second screening, what has left goes on, where it cannot be stopped.
    return events + (resume(order, SCREENING, ref, now) if order.reason == DENIED else [])


def rescreened(order: Any, document: Any, incoming: Any, now: datetime) -> Decision | Stale:
    """A newer list of denied parties means a person of this order."""
    command = incoming.data
    if order.closed or ORDER.answer(order.status, "ScreeningRepeated")[0] is not Answer.APPLIED or (
            order.parcels and all(p.goods != "open" for p in order.parcels.values())):
        return Stale("nothing of it is on its way any more")
    if order.reason == DENIED or SCREENING in order.stops:
        return Stale("it is held or undone for this already")
    order.reason = DENIED
    events = [out.ScreeningRepeated(order_id=order.order_id, result=command.result, screening_list=command.screening_list)]
    if command.result == "REVIEW":
        return Decision(order, events + review(order, command.screening_list, now))
    return Decision(order, [*events, _undo(order, incoming.id)])


def _undo(order: Any, ref: str) -> out.CancellationRequested:
    return out.CancellationRequested(order_id=order.order_id, cancellation_id=ref, reason=DENIED, by="platform")


def denied(order: Any) -> bool:
    """The officer has blocked it: the hold is for good."""
    return SCREENING in order.stops and REVIEW_TIMER not in order.timers


def stands(order: Any, row: Standing, now: datetime) -> list:
    """The merchant was frozen, or the freeze was lifted, or upheld: then the order is undone by the ways there are."""
    order.standing = row.label
    if order.status == "new" or order.closed:
        return []
    if row.frozen:
        return hold(order, FROZEN, row.cause, now)
    events = resume(order, FROZEN, row.cause, now)
    if row.status != "closed":
        return events
    events = []  # it does not go on, it is undone
    under_way = not order.parcels or any(p.goods == "open" for p in order.parcels.values())
    if under_way and ORDER.answer(order.status, "CancellationRequested")[0] is Answer.APPLIED:
        events.append(out.CancellationRequested(order_id=order.order_id, cancellation_id=row.cause, reason=CLOSED, by="platform"))
    for parcel_id in order.parcels:
        events += take_back(order, row.cause, parcel_id)
    return events


def take_back(order: Any, ref: str, parcel_id: str) -> list:
    """What the buyer has of a closed merchant, and the merchant has no money for yet, is paid back in full. Asked whenever
    goods or money get that far: each is told on a topic of its own."""
    parcel = order.parcels[parcel_id]
    if not order.standing.startswith("closed") or (parcel.goods, parcel.money) != ("delivered", "held") or parcel.judged:
        return []
    order.timers.pop(f"confirm:{parcel_id}", None)
    grant_id = f"{ref}/{parcel_id}"
    parcel.pending.append(grant_id)
    answer, order.status = ORDER.answer(order.status, "RefundGranted")
    assert answer is Answer.APPLIED, f"RefundGranted is not in the table for an order that is {order.status}"
    return [out.RefundGranted(order_id=order.order_id, grant_id=grant_id, parcel_id=parcel_id, reason=CLOSED)]


def hold(order: Any, reason: str, ref: str, now: datetime, detail: str = "") -> list:
    if reason in order.stops:
        return []
    order.stops = [*order.stops, reason]
    order.held_since = order.held_since or now
    return [out.OrderHeld(order_id=order.order_id, reason=reason, ref=ref, detail=detail)]


def resume(order: Any, reason: str, ref: str, now: datetime) -> list:
    if reason not in order.stops:
        return []
    order.stops = [stop for stop in order.stops if stop != reason]
    held = now - order.held_since
    if not order.stops:
        order.timers = {name: due + held if name not in RUNS_ON else due for name, due in order.timers.items()}
        order.held_since = None
    return [out.OrderResumed(order_id=order.order_id, reason=reason, ref=ref, held_s=int(held.total_seconds()))]


def stand_still(order: Any, before: dict[str, datetime], now: datetime) -> None:
    """Timers that were armed while the order is held begin when its clock goes on."""
    for name, due in order.timers.items():
        if before.get(name) != due and name not in RUNS_ON:
            order.timers[name] = due - (now - order.held_since)


def clock(order: Any, now: datetime) -> datetime:
    """What the order's own clock shows."""
    return order.held_since or now
