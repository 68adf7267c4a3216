"""Rules of 47: what Chinese customs says of a parcel in its receipts (CEB622) is what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator

from services.auditor.rules import Case, Verdict, order_rule

# Status -> what it may make of a parcel, as the auditor knows it; a status without a row makes nothing of it.
MEANS = {
    **dict.fromkeys(("2", "3", "120"), "CustomsPresented"), **dict.fromkeys(("500", "501", "502", "503", "599"), "CustomsHeld"),
    **dict.fromkeys(("100", "700", "-621005", "-621018"), "CustomsRefused"), "800": "CustomsReleased",
}
DECISIONS = frozenset({"CustomsReleased", "CustomsRefused"})


@order_rule(47, "customs' receipts lead to what they say")
def receipts_are_followed(case: Case) -> Iterator[Verdict]:
    """Each event that a receipt caused is the one its status means."""
    told = {said.id: said for said in case.story.said.values() if said.status}
    if not told:
        return
    for event in case.story.of("shipping", *set(MEANS.values())):
        said = told.get(event.cause)
        if said is not None:
            means = MEANS.get(said.status)
            yield None if means == event.type else [str(event), f"{said}: {said.status} means {means or 'nothing'}"]


@order_rule(47, "what customs decided by a receipt is not forgotten", live=False)
def decisions_are_taken(case: Case) -> Iterator[Verdict]:
    """A parcel of which a receipt tells a decision was decided about, or never came before customs."""
    for said in case.story.said.values():
        if MEANS.get(said.status) in DECISIONS:
            parcel = case.facts.parcels.get(said.about)
            if parcel is not None and "CustomsPresented" in parcel.first:
                done = DECISIONS & parcel.first.keys()
                yield None if done or parcel.goods in ("lost", "destroyed", "returned") else [
                    f"{said}: {said.status}", f"parcel {said.about} is {parcel.goods}"]
