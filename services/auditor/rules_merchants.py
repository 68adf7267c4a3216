"""Rules of merchants (34): their own machine, and that nothing of a frozen merchant's open orders goes forward."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

from schemas.lifecycle import MERCHANT as MACHINE
from schemas.merchants import MERCHANT
from schemas.terms import Terms
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, steps_of, whole_rule
from services.auditor.story import Event

FROZEN = "merchant_frozen"
_ENDS = ("OrderCompleted", "OrderCancelled")
_FORWARD = {"DocumentsReady", "DocumentsMatched", "ListAccepted", "ListReleased", "FulfilmentRequested", "PaymentHeld", "PaymentSettled"}


class Span(NamedTuple):
    """When an order was open, and when it was held, of the orders' events alone; `ended` None: it still is. `terms`: its merchant's,
    as they are frozen on it, and on which `day`."""

    order_id: str
    placed: datetime
    ended: datetime | None
    held: tuple[datetime, ...]
    resumed: tuple[datetime, ...]
    day: date
    currency: str
    terms: Terms | None


class Freeze(NamedTuple):
    """`until`: when it was lifted or upheld (`outcome`); None: it still lasts."""

    number: int
    since: datetime
    until: datetime | None
    outcome: str


def span_of(case: Case) -> Span | None:
    placed = case.story.of("orders", "OrderPlaced")
    if not placed:
        return None
    ends = case.story.of("orders", *_ENDS)
    held, resumed = ([e.time for e in case.story.of("orders", name) if e.data == FROZEN] for name in ("OrderHeld", "OrderResumed"))
    return Span(case.order_id, placed[0].time, ends[0].time if ends else None, tuple(held), tuple(resumed),
                placed[0].data.day, placed[0].data.currency, placed[0].data.terms)


def freezes_of(case: Case) -> list[Freeze]:
    """Of a merchant's story."""
    found: list[Freeze] = []
    for event in case.story.of("orders", "MerchantFrozen", "FreezeLifted", "FreezeUpheld"):
        if event.type == "MerchantFrozen":
            found.append(Freeze(event.data[1], event.time, None, ""))
        elif found:
            found[-1] = found[-1]._replace(until=event.time, outcome=event.type)
    return found


@order_rule(34, "a path of the merchant's table", stock=True)
def path_of_merchant(case: Case) -> Iterator[Verdict]:
    if case.order_id.startswith(MERCHANT):
        yield from steps_of(case, MACHINE, "merchant")


@order_rule(34, "nothing goes forward while the merchant is frozen")
def stands_still(case: Case) -> Iterator[Verdict]:
    """In orders' own sequence exactly; in the other services from when they must have heard of it to when they may know of its
    end, of which each hears from the merchant's own subject, and perhaps before orders does."""
    held = None
    for event in case.story.events["orders"]:
        if event.type == "OrderHeld" and event.data == FROZEN:
            held = event
        elif held and (event.type == "OrderResumed" and event.data == FROZEN or event.type in ("CancellationRequested", *_ENDS)):
            yield _forward(case, held, event.time)
            held = None
        elif held and event.type == "ReceiptConfirmed" and event.cause.startswith("timer:"):
            yield [str(held), f"and yet {event}"]
    if held:
        yield _forward(case, held, None)


def _forward(case: Case, held: Event, until: datetime | None) -> Verdict:
    heard, over = held.time + case.near, until and until - case.near
    wrong = [str(e) for service in ("payments", "shipping") for e in case.story.events[service]
             if e.type in _FORWARD and heard < e.time and (over is None or e.time < over) and not _recovered(case, e)]
    return [str(held), *(f"and yet {event}" for event in wrong)] if wrong else None


def _recovered(case: Case, event: Event) -> bool:
    """What a carrier paid, on its way to the merchant."""
    return event.type == "PaymentSettled" and any(
        e.data.via == "carrier" for e in case.story.of("payments", "FundsRecovered") if e.parcels[0][0] == event.parcels[0][0])


@order_rule(34, "goods that left in spite of a stop are told as such")
def stopped_parcels(case: Case) -> Iterator[Verdict]:
    stops: dict[str, set[str]] = {}
    for event in case.story.of("shipping", "ParcelStopped", "ParcelCleared", "ParcelHandedOver"):
        parcel_id = event.parcels[0][0]
        here = stops.setdefault(parcel_id, set())
        if event.type == "ParcelStopped":
            here.add(event.data.ref)
        elif event.type == "ParcelCleared":
            here.discard(event.data.ref)
        elif here:
            yield None if here <= set(event.data.ref.split(",")) else [str(event), f"was stopped for {sorted(here)}, and does not say so"]


@whole_rule(34, "every open order of a frozen merchant is held, and goes on when the freeze is lifted", live=False)
def all_held(whole: Whole) -> Iterator[WholeVerdict]:
    for merchant, freezes in whole.freezes.items():
        for freeze in freezes:
            for span in whole.spans.get(merchant, ()):
                if span.placed > freeze.since or span.ended is not None and span.ended <= freeze.since:
                    continue
                yield _of_span(span, freeze, whole.near)


def _of_span(span: Span, freeze: Freeze, within: timedelta) -> WholeVerdict:
    until = freeze.until
    # A batch has its time before it learns of the freeze, so a hold may be told as a moment older.
    held = [t for t in span.held if freeze.since - within <= t and (until is None or t <= until)]
    if not held:
        # What ended before its owner came to it needs no hold; nor does a freeze that ended before.
        gone, short = span.ended is not None and (until is None or span.ended < until), until and until - freeze.since < within
        return None if gone or short and (span.ended or freeze.outcome == "FreezeLifted") else (
            span.order_id, [f"was open when freeze {freeze.number} came at {freeze.since}, and was never held"])
    if freeze.outcome == "FreezeLifted" and not any(t >= until for t in span.resumed):
        if span.ended is None or span.ended > until:
            return span.order_id, [f"was held at {held[0]}, the freeze was lifted at {until}, and it never went on"]
    if freeze.outcome == "FreezeUpheld" and span.ended is None:
        return span.order_id, [f"was held at {held[0]}, the freeze was upheld at {until}, and it is still open"]
    return None
