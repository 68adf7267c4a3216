"""Why no money of an order goes forward: its merchant is frozen or closed, or the order itself is held. Back it always may."""

from __future__ import annotations

from typing import Any

from services.runtime.decision import FROZEN, MERCHANT_STATUS, STOPS, Decision, Incoming, Stale, Standing


def merchant(subject: Any, incoming: Incoming) -> Decision:
    """What orders says of a merchant: from the commit on, all his orders here obey."""
    status, event = MERCHANT_STATUS[incoming.type], incoming.data
    subject.status, subject.closed, subject.merchant_id = status, True, event.merchant_id
    return Decision(subject, standing=Standing(f"{status} {event.freeze_no}", status))


def stands(work: Any, incoming: Incoming) -> None:
    account, row = work.account, incoming.standing
    account.standing = row.label
    account.stops = [stop for stop in account.stops if stop not in STOPS.values()]
    if row.status in STOPS:
        account.stops = [*account.stops, STOPS[row.status]]


def held(work: Any, incoming: Incoming) -> Stale | None:
    reason = incoming.data.reason
    if reason in STOPS.values() or reason in work.account.stops:
        return Stale("the merchant's row says so, or it is held for this already")
    work.account.stops = [*work.account.stops, reason]
    return None


def resumed(work: Any, incoming: Incoming) -> Stale | None:
    reason = incoming.data.reason
    if reason in STOPS.values() or reason not in work.account.stops:
        return Stale("the merchant's row says so, or it is not held for this")
    work.account.stops = [stop for stop in work.account.stops if stop != reason]
    return None


def may_release(account: Any, hold: Any) -> bool:
    """What a carrier paid for goods whose buyer has the money back is the merchant's, whyever the order stands still; only
    while he is frozen nothing at all goes to him."""
    return not account.stops or hold.status == "recovered" and FROZEN not in account.stops
