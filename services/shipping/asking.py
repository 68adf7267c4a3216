"""A warehouse that has told that it began to pack a parcel is asked before a buyer's cancellation undoes it. It says yes or no;
what is handed over meanwhile is the carrier's to stop, as any parcel that has left.

Silence holds nobody's money: after a day the whole parcel is cancelled. Of single lines it is a no, for nobody can tell what is
in the box by then; and what the box holds is not known before the answer, so a packed one waits for it. Pure."""

from __future__ import annotations

from services.runtime.decision import Incoming, NotYet, Stale
from services.shipping.reports import no_parcel
from services.shipping.shipment import Work
from services.shipping.undoing import cancel_parcel, decline, take_out


def accepted(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    answer = incoming.data
    if (why := _nothing_asked(work, answer)) is not None:
        return why
    lines = _answered(work, answer)
    if lines is None:
        cancel_parcel(work, answer.parcel_id, "cancelled")
        return None
    left = {line.line_no: units for line, units in work.left(answer.parcel_id)}
    if any(left[line_no] for line_no, _ in lines):
        take_out(work, answer.parcel_id, answer.cancellation_id, lines)
    else:
        decline(work, answer.parcel_id, answer.cancellation_id, "nothing of it is left")
    return None


def refused(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    answer = incoming.data
    if (why := _nothing_asked(work, answer)) is not None:
        return why
    _answered(work, answer)
    decline(work, answer.parcel_id, answer.cancellation_id, answer.reason)
    return None


def overdue(work: Work, parcel_id: str) -> None:
    """The warehouse has not answered."""
    asked = work.shipment.parcels[parcel_id].aside.asked
    if None in asked.values():
        cancel_parcel(work, parcel_id, "cancelled")
    for cancellation_id in list(asked):
        decline(work, parcel_id, cancellation_id, "the warehouse did not answer")
    work.unasked(parcel_id)


def _nothing_asked(work: Work, answer) -> NotYet | Stale | None:
    parcel = work.shipment.parcels.get(answer.parcel_id)
    if parcel is None:
        return no_parcel(work.shipment, answer.parcel_id)
    if parcel.aside is None or answer.cancellation_id not in parcel.aside.asked:
        return Stale("of no cancellation that waits for an answer")
    return None


def _answered(work: Work, answer) -> list[tuple[int, int]] | None:
    """What the answer is about."""
    asked = work.shipment.parcels[answer.parcel_id].aside.asked
    lines = asked.pop(answer.cancellation_id)
    if not asked:
        work.disarm(f"asked:{answer.parcel_id}")
    return lines
