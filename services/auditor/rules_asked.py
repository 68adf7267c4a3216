"""Rules of cancellations that a warehouse is asked about (48): not undone behind its back, and none without an answer."""

from __future__ import annotations

from collections.abc import Iterator

from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.story import Event

_ANSWERS = ("CancellationDeclined", "InterceptRequested", "ParcelLinesCancelled")
_ENDS = ("ParcelCancelled", "ParcelDestroyed")
_AMENDED = ("ParcelShortPicked", "ParcelLinesCancelled")  # into China: it stands still until its papers are right again


@order_rule(48, "a warehouse that has begun is asked before its parcel is cancelled")
def who_has_begun_is_asked(case: Case) -> Iterator[Verdict]:
    platform = {f"orders:{case.order_id}:{e.sequence}" for e in case.story.of("orders", "CancellationRequested") if e.data == "platform"}
    for parcel_id in _with(case, "PackingStarted", "CancellationAsked"):
        begun, asked = False, {}
        for event in _events(case, parcel_id):
            wrong = []
            if event.type == "CancellationAsked":
                wrong += [] if begun else ["nobody has begun to pack it"]
            elif event.type == "ParcelPacked" and any(ask.data.lines for ask in asked.values()):
                wrong += ["what is to be in it was not answered"]
            elif event.type in _ENDS and event.data.ref == "cancelled" and begun and not asked and event.cause not in platform:
                wrong += ["its warehouse had begun, and was not asked"]
            begun = _begun(event, begun, case.facts.regime)
            _keep(event, asked)
            yield [str(event), f"parcel {parcel_id}", *wrong] if wrong else None


@order_rule(48, "what a warehouse is asked is answered, or asked of the carrier", live=False)
def asked_is_answered(case: Case) -> Iterator[Verdict]:
    for parcel_id in _with(case, "CancellationAsked"):
        asked: dict[str, Event] = {}
        for event in _events(case, parcel_id):
            _keep(event, asked)
        yield [f"parcel {parcel_id}", *(f"{event} has no answer" for event in asked.values())] if asked else None


def _begun(event: Event, begun: bool, regime: str) -> bool:
    if event.type in ("PackingHeld", "ParcelReplaced", "ParcelHandedOver") or event.type in _AMENDED and regime in ("china", "bonded"):
        return False
    return begun or event.type == "PackingStarted"


def _keep(event: Event, asked: dict[str, Event]) -> None:
    """What is open after this event: cancellation -> how it was asked."""
    if event.type == "CancellationAsked":
        asked[event.data.ref] = event
    elif event.type in _ANSWERS:
        asked.pop(event.data.ref, None)
    elif event.type in _ENDS:
        asked.clear()


def _events(case: Case, parcel_id: str) -> list[Event]:
    return [event for event in case.story.events["shipping"] if event.tells_of(parcel_id)]


def _with(case: Case, *types: str) -> list[str]:
    """The parcels that such an event tells of."""
    return sorted({parcel_id for event in case.story.of("shipping", *types) for parcel_id, _ in event.parcels})
