"""Rules of customs declarations (36): nothing is packed whose codes customs does not take."""

from __future__ import annotations

from collections.abc import Iterator

from services.auditor.rules import Case, Verdict, order_rule


@order_rule(36, "nothing is packed before its customs codes are right", live=False)
def coded_first(case: Case) -> Iterator[Verdict]:
    """A wrong code is supplied again before any parcel of the order is asked for, with as many digits as its declaration wants.
    Into China each parcel has a list of its own, and its own lines count."""
    placed, asked = case.facts.placed, case.story.of("shipping", "FulfilmentRequested")
    if placed is None or placed.regime == "domestic" or not asked:
        return
    supplied = {line_no for e in case.story.of("orders", "DocumentsSupplied") for line_no, code in e.data
                if len(code) >= placed.digits}
    for event in asked if placed.regime == "china" else asked[:1]:
        plan = case.facts.allocated.plans.get(event.parcels[0][0]) if placed.regime == "china" and case.facts.allocated else None
        left = sorted((set(placed.short) & plan.lines.keys() if plan else set(placed.short)) - supplied)
        yield None if not left else [str(event), f"no right customs code of lines {left}; {placed.digits or 6} digits are asked for"]
