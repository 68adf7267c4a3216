"""Rules of screening (33): nothing leaves for persons whom no list of denied parties was held against, or, where a registry is asked,
whose identity number may be another's."""

from __future__ import annotations

from collections.abc import Iterator

from services.auditor.rules import Case, Verdict, order_rule


@order_rule(33, "no hand-over without screening", live=False)
def screened_first(case: Case) -> Iterator[Verdict]:
    """A review is over before anything is asked for, so the whole story is enough: goods leave cleared, or not at all."""
    left = case.story.of("shipping", "ParcelHandedOver")
    if not left or case.facts.placed is None:
        return
    result, version = case.facts.placed.screening
    decided = [e.data for e in case.story.of("orders", "ScreeningDecided")]
    right = version and (result == "CLEAR" or decided == ["clear"])
    yield None if right else [str(left[0]), f"screening: {result or 'none'} by list {version or 'none'}, decided: {decided or 'never'}"]


@order_rule(33, "a review is decided, or the order is undone", live=False)
def reviewed(case: Case) -> Iterator[Verdict]:
    if case.facts.placed is None or case.facts.placed.screening[0] != "REVIEW":
        return
    held = [e for e in case.story.of("orders", "OrderHeld") if e.data == "screening"]
    done = case.story.of("orders", "ScreeningDecided", "OrderCancelled")
    yield None if held and done else [f"screening: REVIEW, held: {[*map(str, held)]}, decided or undone: {[*map(str, done)]}"]


@order_rule(33, "what a newer list means is not handed over, or an officer has cleared it", live=False)
def screened_again(case: Case) -> Iterator[Verdict]:
    repeated = case.story.of("orders", "ScreeningRepeated")
    for event in repeated:
        heard = event.time + case.near
        cleared = [e.time for e in case.story.of("orders", "ScreeningDecided") if e.data == "clear" and e.time >= event.time]
        left = [e for e in case.story.of("shipping", "ParcelHandedOver") if e.time > heard and not (cleared and cleared[0] <= e.time)]
        asked = event.data == "BLOCK" or any(e.cause == event.cause and e.data == "screening" for e in case.story.of("orders", "OrderHeld"))
        yield None if asked and not left else [str(event), *map(str, left), *([] if asked else ["no officer was asked"])]


@order_rule(33, "where a registry is asked, nothing is paid or handed over before the identity number is the buyer's", live=False)
def real_name_first(case: Case) -> Iterator[Verdict]:
    if case.facts.placed is None or not case.facts.placed.real_name:
        return
    held = any(e.data == "real_name" for e in case.story.of("orders", "OrderHeld"))
    answered = [e for e in case.story.of("orders", "RealNameAnswered") if e.data != "unknown"]
    proven = answered[0].time if answered and answered[0].data == "match" else None
    early = [e for e in (*case.story.of("payments", "PaymentAuthorised", "PaymentHeld"), *case.story.of("shipping", "ParcelHandedOver"))
             if proven is None or e.time + case.near < proven]
    ended = answered or case.story.of("orders", "OrderCancelled")
    yield None if held and ended and not early else [
        f"real name: asked, held: {held}, answered: {[e.data for e in answered] or 'never'}", *map(str, early)]
