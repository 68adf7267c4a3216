"""Loggers that fall silent: goods that nobody measures are not given the benefit of the doubt. Pure.

Only goods whose band names `silent_minutes` are waited for. The cold-chain view says that a logger was heard (LoggerHeard); one
timer, `logger:<parcel>`, runs from its newest reading, and from when it was packed. When it fires the parcel is set aside as after
an excursion, and a person decides."""

from __future__ import annotations

from datetime import timedelta

from schemas import shipping_shipment as out
from services.runtime.decision import Incoming, NotYet, Stale
from services.shipping.reports import no_parcel
from services.shipping.shipment import Work

WATCHED = {"packed", "handed_over", "exported", "arrived", "presented", "customs_held", "released", "out_for_delivery", "at_pickup"}


def watch(work: Work, parcel_id: str) -> None:
    """It is packed, with its logger."""
    if (allowed := _allowed(work, parcel_id)) is not None:
        work.shipment.timers[f"logger:{parcel_id}"] = work.now + allowed


def heard(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    report, timers = incoming.data, work.shipment.timers
    parcel = work.shipment.parcels.get(parcel_id := report.parcel_id)
    if parcel is None:
        return no_parcel(work.shipment, parcel_id)
    allowed = _allowed(work, parcel_id)
    if allowed is None or parcel.status not in WATCHED:
        return Stale("nobody waits for its logger")
    due = min(report.at, work.now) + allowed  # a logger whose clock runs ahead is not waited for any longer
    if due <= timers.get(f"logger:{parcel_id}", work.now):
        return Stale("it was heard later than that")
    timers[f"logger:{parcel_id}"] = due
    return None


def silent(work: Work, parcel_id: str) -> None:
    """The timer fired."""
    parcel, allowed = work.shipment.parcels[parcel_id], _allowed(work, parcel_id)
    if allowed is None or parcel.status not in WATCHED or not work.step(parcel, "ParcelQuarantined"):
        return
    aside = parcel.beside()
    name = f"{parcel_id}:silent:{sum(':silent:' in each for each in (*aside.quarantine, *aside.judged)) + 1}"
    set_aside(work, parcel_id, name)
    work.emit(out.ParcelQuarantined, parcel_id=parcel_id, excursion_id=name, began=work.now - allowed, until=work.now,
              minutes=allowed // timedelta(minutes=1), worst_tenths=0, silent=True)


def set_aside(work: Work, parcel_id: str, excursion_id: str) -> None:
    """Somebody has to decide about it, by the deadline of the first that nobody decided about."""
    work.shipment.parcels[parcel_id].aside.quarantine.append(excursion_id)
    if f"quality:{parcel_id}" not in work.shipment.timers:
        work.arm(f"quality:{parcel_id}", "quality")


def _allowed(work: Work, parcel_id: str) -> timedelta | None:
    band = work.band(parcel_id)
    return None if band is None or band.silent_minutes is None else timedelta(minutes=band.silent_minutes)
