"""The clock of a promise: by when a parcel was promised at the door, what stops that clock, and whether it will be kept.

A parcel that goes as planned leaves no trace here but its next check among the timers: by when the next scan must have come.
What the plan says is in the shipment's document; `Aside.clock` has what has become of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas import shipping_shipment as out
from schemas.lifecycle import BEFORE_HANDOVER
from schemas.shipping_shipment import Leg, Route
from services.shipping.shipment import Clock, Parcel, Work

NO_STOCK, CUSTOMS_HOLD = "no_stock", "customs_hold"
_HELD = ("customs_held", "listed", "relisted")  # by customs: at the border, or in a bonded warehouse
ON_ITS_WAY = BEFORE_HANDOVER | {"handed_over", "exported", "arrived", "presented", "customs_held", "released"}
OPEN = ON_ITS_WAY | {"out_for_delivery", "delivery_failed", "at_pickup"}
_GOES_ON = OPEN | {"delivered"}  # else its promise is void, and no clock of it runs any more


def begin(work: Work, parcel_id: str) -> None:
    """It is promised: the first thing to check is that it leaves the warehouse."""
    work.shipment.timers[f"risk:{parcel_id}"] = work.content(parcel_id).route.legs[0].departs + work.plans.tolerance


def promised(work: Work, parcel_id: str) -> datetime | None:
    """By when it must be at the door, pauses counted; None: nothing was promised."""
    return _clock(work.shipment.parcels[parcel_id]).promised(work.content(parcel_id).route)


def planned(work: Work, parcel_id: str, *steps: str) -> list[datetime]:
    """When these steps are due by the plan as it stands, for whoever has to take them."""
    route = route_of(work, parcel_id)
    if route is None:
        return []
    slip = timedelta(seconds=_clock(work.shipment.parcels[parcel_id]).slip_s)
    return [_planned(work, route, step) + slip for step in steps]


def slip_s(work: Work, parcel_id: str) -> int:
    """How long its clock has stood still."""
    return _clock(work.shipment.parcels[parcel_id]).slip_s


def route_of(work: Work, parcel_id: str) -> Route | None:
    """The way as planned last."""
    return _clock(work.shipment.parcels[parcel_id]).route or work.content(parcel_id).route


def scanned(work: Work, parcel_id: str, before: str) -> None:
    """After a scan: was it late, will the promise hold, and by when must the next one come? On a clock that runs ahead a scan may
    be late because we asked late: so much is not counted."""
    parcel, timers = work.shipment.parcels[parcel_id], work.shipment.timers
    timers.pop(f"risk:{parcel_id}", None)
    route = route_of(work, parcel_id)
    if route is None or parcel.status == before or parcel.status not in _NEXT or work.plans is None:
        return
    clock = _clock(parcel)
    if clock.paused or clock.at_risk:
        return
    slip = timedelta(seconds=clock.slip_s)
    due = _planned(work, route, _NEXT[parcel.status]) + slip
    was_due = _planned(work, route, _NEXT[before]) + slip if before in _NEXT else due
    if (at := work.at - work.plans.slack) > was_due and (predicted := _predicted(work, route, parcel.status, at)) is not None:
        due = max(due, predicted[0].departs if predicted else due)
        if predicted and predicted[-1].arrives > promised(work, parcel_id):
            risk(work, parcel_id, "late_scan", predicted[-1].arrives)
    timers[f"risk:{parcel_id}"] = due + work.plans.tolerance


def overdue(work: Work, parcel_id: str) -> None:
    """The next scan has not come. Everything that can still be done is done from now on."""
    parcel, route = work.shipment.parcels[parcel_id], route_of(work, parcel_id)
    clock = _clock(parcel)
    if route is None or clock.paused or clock.at_risk or parcel.status not in _NEXT or work.plans is None:
        return
    late = max(work.now, _planned(work, route, _NEXT[parcel.status]) + timedelta(seconds=clock.slip_s) + work.plans.tolerance)
    predicted = _predicted(work, route, parcel.status, late - work.plans.slack)
    if predicted is None:
        return
    arrives = predicted[-1].arrives if predicted else late
    if arrives > promised(work, parcel_id):
        risk(work, parcel_id, "no_scan", arrives)
    else:
        then = predicted[0].departs if predicted else promised(work, parcel_id)  # on the last leg: when it should be there
        work.shipment.timers[f"risk:{parcel_id}"] = then + work.plans.tolerance


def take(work: Work, parcel_id: str, route: Route) -> None:
    """Another way than planned before; the promise stays."""
    parcel, timer = work.shipment.parcels[parcel_id], f"risk:{parcel_id}"
    clock = _clock(parcel)
    _set(work, parcel_id, clock, route=route)
    if timer in work.shipment.timers:
        work.shipment.timers[timer] = _planned(work, route, _NEXT[parcel.status]) + timedelta(
            seconds=clock.slip_s) + work.plans.tolerance


def risk(work: Work, parcel_id: str, reason: str, predicted_at: datetime) -> None:
    """It will be late, as far as can be known; told once."""
    clock = _clock(work.shipment.parcels[parcel_id])
    if not clock.at_risk and not clock.paused:
        _set(work, parcel_id, clock, at_risk=True)
        work.emit(out.PromiseAtRisk, parcel_id=parcel_id, reason=reason, promised_at=promised(work, parcel_id),
                  predicted_at=predicted_at)


def pause(work: Work, parcel_id: str, reason: str, event: type = out.PromisePaused) -> None:
    """From now on it waits for somebody else."""
    clock = _clock(work.shipment.parcels[parcel_id])
    if route_of(work, parcel_id) is not None and not clock.paused and work.shipment.parcels[parcel_id].status in OPEN:
        work.disarm(f"risk:{parcel_id}")
        _set(work, parcel_id, clock, paused=reason, since=work.at, at_risk=False)
        work.emit(event, parcel_id=parcel_id, reason=reason, at=work.at)


def stop(work: Work, reason: str) -> None:
    """The order stands still, and with it the clocks of all that the carrier has not got yet."""
    for parcel_id, parcel in work.shipment.parcels.items():
        if parcel.status in BEFORE_HANDOVER:
            pause(work, parcel_id, reason, out.PromiseHeld)


def share(work: Work, parcel_id: str) -> None:
    """It was split off a parcel, by whose way it goes: from now on a clock of its own says whether it leaves in time."""
    if route_of(work, parcel_id) is not None and work.plans is not None:
        work.shipment.timers[f"risk:{parcel_id}"] = planned(work, parcel_id, "hand over")[0] + work.plans.tolerance


def resume(work: Work, parcel_id: str) -> None:
    """What it waited for has come. It may be told of one thing and wait for another as well."""
    s, parcel = work.shipment, work.shipment.parcels[parcel_id]
    clock = _clock(parcel)
    if clock.paused and parcel.status in _GOES_ON and not parcel.awaits and not (
            clock.paused == CUSTOMS_HOLD and parcel.status in _HELD) and not (
            parcel.status in BEFORE_HANDOVER and (s.stops or s.waits_for_papers or parcel.aside.inspections)):
        stood = max(0, int((work.at - clock.since).total_seconds()))
        _set(work, parcel_id, clock, paused="", since=None, slip_s=clock.slip_s + stood)
        work.emit(out.PromiseResumed, parcel_id=parcel_id, reason=clock.paused, at=work.at, paused_s=stood,
                  promised_at=promised(work, parcel_id))
        if parcel.status in _NEXT and work.plans is not None:
            s.timers[f"risk:{parcel_id}"] = work.plans.tolerance + planned(work, parcel_id, _NEXT[parcel.status])[0]


def wait(work: Work, parcel_id: str) -> None:
    """Its goods are not there: the clock stands from the beginning."""
    _set(work, parcel_id, _UNTOUCHED, paused=NO_STOCK, since=work.now)
    work.emit(out.PromiseHeld, parcel_id=parcel_id, reason=NO_STOCK, at=work.now)


def came(work: Work, parcel_id: str, route: Route | None) -> None:
    """They are: it is promised from now on, by this way. What else it waits for stops the clock anew. None: no way is known."""
    s, parcel = work.shipment, work.shipment.parcels[parcel_id]
    clock = _clock(parcel)
    if route is None:
        parcel.beside().clock = None
        return
    stood = int((work.now - clock.since).total_seconds()) if clock.since else 0
    _set(work, parcel_id, _UNTOUCHED, route=route, due=route.promised_at)
    s.timers[f"risk:{parcel_id}"] = route.legs[0].departs + work.plans.tolerance
    work.emit(out.PromiseResumed, parcel_id=parcel_id, reason=NO_STOCK, at=work.now, paused_s=stood, promised_at=route.promised_at)
    if s.stops:
        pause(work, parcel_id, s.stops[0], out.PromiseHeld)
    elif s.waits_for_papers:
        pause(work, parcel_id, "documents_missing")


def delivered(work: Work, parcel_id: str) -> dict[str, Any]:
    """At the door: what the event of it tells of the promise. A broken one is told first."""
    resume(work, parcel_id)
    due = promised(work, parcel_id)
    if due is None:
        return {}
    if work.at > due:
        work.emit(out.PromiseBroken, parcel_id=parcel_id, promised_at=due, delivered_at=work.at)
    return {"delivered_at": work.at, "promised_at": due, "kept": work.at <= due}


# -- the plan ----------------------------------------------------------------------------------------------------------

# What must come next for a parcel in this state, where the clock runs.
_NEXT = dict.fromkeys(BEFORE_HANDOVER, "hand over") | {
    "handed_over": "export", "exported": "arrive", "arrived": "release", "presented": "release", "released": "go out",
    "out_for_delivery": "deliver"}


def _planned(work: Work, route: Route, step: str) -> datetime:
    """When a step is due by a route, without pauses. What crosses no border, or is told of none (an order within its country that is
    sent from elsewhere), goes out for delivery instead."""
    legs, border = route.legs, route.border
    if step == "hand over":
        return legs[0].departs
    if step == "deliver":
        return legs[-1].arrives
    if step == "go out" or border < 0 or work.shipment.regime == "domestic":
        return legs[-1].departs
    if step == "export":
        return legs[border].departs
    return legs[border].arrives - (work.plans.clears(legs[border]) if step == "arrive" and work.plans is not None else timedelta())


def ahead(route: Route, status: str) -> int:
    """The first leg that a parcel in this state has certainly not begun; beyond the last: none."""
    if status in BEFORE_HANDOVER:
        return 0
    if status == "handed_over":
        return max(1, route.border if route.border >= 0 else 1)
    if status in ("exported", "arrived", "presented", "customs_held", "released"):
        return min(len(route.legs) - 1, route.border + 1)
    return len(route.legs)


def _predicted(work: Work, route: Route, status: str, moment: datetime) -> list[Leg] | None:
    """The legs that are left, from this moment on; empty: it is at the door already. None: a lane is no more."""
    first = ahead(route, status)
    if status in ("exported", "arrived", "presented") and route.border >= 0:
        moment = max(moment, route.legs[route.border].arrives)
    return work.plans.run(route.legs[first:], moment) if first < len(route.legs) else []


def _clock(parcel: Parcel) -> Clock:
    return parcel.aside.clock if parcel.aside is not None and parcel.aside.clock is not None else _UNTOUCHED


def _set(work: Work, parcel_id: str, clock: Clock, **changes: Any) -> None:
    work.shipment.parcels[parcel_id].beside().clock = clock.but(**changes)


_UNTOUCHED = Clock()
