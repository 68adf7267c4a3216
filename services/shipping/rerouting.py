"""Lanes that are closed, and the way round them for parcels that have one ahead.

Which lanes are closed is one row that all orders obey (services/runtime/standing.py): no plan is made over a lane after its
closure is committed, and every open order is told of it."""

from __future__ import annotations

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from schemas.shipping_report import LANE
from services.runtime.decision import LANES, Impossible, Incoming, Stale, Standing
from services.shipping import promise
from services.shipping.shipment import Work

_NONE: frozenset[str] = frozenset()


def closed_lanes(incoming: Incoming) -> frozenset[str]:
    return frozenset(incoming.lanes.facts["closed"]) if incoming.lanes is not None else _NONE


def close(work: Work, incoming: Incoming) -> Stale | None:
    lane = _lane(work, incoming)
    if lane in work.closed:
        return Stale("the lane is closed already")
    _now(work, incoming, work.closed | {lane})
    work.emit(out.LaneClosed, lane=lane, reason=incoming.data.reason)
    return None


def reopen(work: Work, incoming: Incoming) -> Stale | None:
    lane = _lane(work, incoming)
    if lane not in work.closed:
        return Stale("the lane is open")
    _now(work, incoming, work.closed - {lane})
    work.emit(out.LaneOpened, lane=lane)
    return None


def _lane(work: Work, incoming: Incoming) -> str:
    event = incoming.data
    if event.order_id != f"{LANE}{event.lane}":
        raise Impossible(Reason.KEY, f"order_id must be {LANE}{event.lane}")
    if work.plans is not None and event.lane not in work.plans.network.lanes:
        raise Impossible(Reason.INVALID, f"lane: the network has no {event.lane!r}")
    work.shipment.status, work.shipment.closed = "lane", True
    return event.lane


def _now(work: Work, incoming: Incoming, closed: frozenset[str]) -> None:
    changes = incoming.lanes.facts["changes"] + 1 if incoming.lanes is not None else 1
    work.standing = Standing(f"lanes {changes}", LANES, facts={"closed": sorted(closed), "changes": changes})


def changed(work: Work, incoming: Incoming) -> None:
    """An open order hears of it before anything else happens to it."""
    work.shipment.lanes = incoming.lanes.label
    for parcel_id in work.shipment.parcels:
        _reroute(work, parcel_id)


def _reroute(work: Work, parcel_id: str) -> None:
    """The cheapest way on that still keeps the promise, else the earliest; as it was, where no way is open."""
    parcel, route = work.shipment.parcels[parcel_id], promise.route_of(work, parcel_id)
    if route is None or work.plans is None or parcel.status not in promise.ON_ITS_WAY:
        return
    first = promise.ahead(route, parcel.status)
    shut = next((leg.lane for leg in route.legs[first:] if leg.lane in work.closed), None)
    if shut is None:
        return
    place, area = work.plans.ends(route.legs[first])[0], work.plans.ends(route.legs[-1])[0]
    there = route.legs[first - 1].arrives if first else route.legs[0].departs
    due = promise.promised(work, parcel_id)
    onward = work.plans.again(place, max(work.now, there), area, due, work.closed, work.shipment.regime == "bonded")
    if onward is None:
        return
    legs = [*route.legs[:first], *onward]
    fresh = work.plans.route(legs, legs[-1].arrives <= due and (work.content(parcel_id).route or route).in_time, route.cost)
    promise.take(work, parcel_id, fresh)
    work.emit(out.ParcelRerouted, parcel_id=parcel_id, lane=shut, route=fresh)
    if legs[-1].arrives > due:
        promise.risk(work, parcel_id, "lane_closed", legs[-1].arrives)
