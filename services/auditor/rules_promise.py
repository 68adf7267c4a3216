"""Rules of the promise (40): it follows from its plan, its clock adds up, and what is told of it is so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from schemas.lifecycle import NEW, PROMISE
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.kept import Tick, Way
from services.auditor.story import Event

PROMISED = timedelta(hours=72)  # as the auditor knows it, not as the network states it
DOOR, NO_STOCK, CHINA = "door", "no_stock", "CN"
_STEPS = {row.event for row in PROMISE.rows}


@order_rule(40, "a promise is the end of a plan that adds up")
def promise_is_the_plan(case: Case) -> Iterator[Verdict]:
    allocated = case.facts.allocated
    if allocated is None or allocated.accepted is None:
        return
    told = case.story.of("shipping", "ParcelsAllocated")[0]
    waited = case.story.of("shipping", "Backordered", "SeasonOpened")
    placed = case.story.of("orders", "OrderPlaced")
    since = told.time if waited else placed[0].time if placed else allocated.accepted
    yield None if allocated.accepted == since else [str(told), f"accepted {allocated.accepted}, the order says {since}"]
    for parcel_id, plan in allocated.plans.items():
        if plan.way is not None:
            wrong = _wrong(plan.way, plan.warehouse, allocated.accepted, case.facts.regime)
            if plan.way.in_time != (plan.way.promised - allocated.accepted <= PROMISED):
                wrong.append(f"promised {plan.way.promised}, accepted {allocated.accepted}, in time: {plan.way.in_time}")
            yield [str(told), f"parcel {parcel_id}", *wrong] if wrong else None


@order_rule(40, "what had to come first is promised from the moment it came")
def promised_when_it_came(case: Case) -> Iterator[Verdict]:
    for event in case.story.of("shipping", "BackorderFilled"):
        way = event.data.way
        if way is not None:
            wrong = _wrong(way, event.data.ref, event.time, case.facts.regime)
            if way.in_time != (way.promised - event.time <= PROMISED):
                wrong.append(f"promised {way.promised}, it came {event.time}, in time: {way.in_time}")
            yield [str(event), *wrong] if wrong else None


def _wrong(way: Way, start: str, since: datetime, regime: str) -> list[str]:
    """What of a way does not fit together."""
    found, place, moment = [], start, since
    for lane, departs, arrives in way.legs:
        origin, to, _ = lane.split("-", 2)
        if origin != place or not moment <= departs <= arrives:
            found.append(f"{lane} leaves {departs} and arrives {arrives}, but it is at {place} at {moment}")
        place, moment = to, arrives
    if regime == "bonded" and (way.border >= 0 or not all(place == DOOR or place.startswith(CHINA) for lane, _, _ in way.legs
                                                          for place in lane.split("-")[:2])):
        found.append("goods in bond have left their country")
    if place != DOOR or way.promised != moment:
        found.append(f"it ends at {place} at {moment}, promised is {way.promised}")
    if not -1 <= way.border < len(way.legs) - 1:
        found.append(f"leg {way.border} is no border")
    return found


@order_rule(40, "the clock of a promise adds up, and kept is kept")
def clock_adds_up(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        way = parcel.plan.way if parcel.plan else None
        if way is None:
            continue
        state, due, since, broken, stops, why, cleared, held = NEW, way.promised, None, None, set(), "", None, None
        for event in _events(case, parcel_id, _STEPS | _STOPS | _WAITED_FOR):
            if event.type in _STOPS:
                (stops.add if event.type == "ParcelStopped" else stops.discard)(event.data.ref)
                cleared = None if stops else event.time
                continue
            if held is not None and event.type != "PromisePaused":
                yield [str(held), f"parcel {parcel_id}", "customs holds it, and the clock runs"]
            held = event if event.type in _HELD and state in ("running", "at_risk") else None
            if event.type in _PAUSES:
                why = event.data.ref
            wrong = _ought_to_stand(event, state, stops, why)
            if event.type == "ParcelHandedOver":
                stops.clear()  # in spite of them: what the carrier has got goes on, and its clock with it
            if event.type not in _STEPS:
                yield [str(event), f"parcel {parcel_id}", *wrong] if wrong else None
                continue
            to = PROMISE.next.get((state, event.type))
            if to is None:
                wrong.append(f"the promise is {state!r}: the table has no such row")
            state, tick = to or state, event.data
            if event.type in _PAUSES:
                since = tick.at
            elif event.type == "PromiseResumed" and since is not None:
                if cleared is not None and since < cleared < event.time and why not in _ENDS:
                    wrong.append(f"nothing stopped the goods since {cleared}, and the clock stood")
                stood = int((tick.at - since).total_seconds())
                due += timedelta(seconds=max(0, stood) if why != NO_STOCK else 0)  # it was promised only then
                wrong += [] if (max(0, stood), due) == (tick.told, tick.promised) else [
                    f"it stood still {stood} s, told are {tick.told}; promised is {due}, told {tick.promised}"]
            elif event.type == "PromiseAtRisk":
                wrong += [] if tick.promised == due < tick.at else [f"promised {due}, told {tick.promised}, predicted {tick.at}"]
            elif event.type == "PromiseBroken":
                broken = tick
            elif event.type == "ParcelDelivered":
                wrong += _delivered(tick, due, broken)
            yield [str(event), f"parcel {parcel_id}", *wrong] if wrong else None


# What a pause of this reason ends with, at the latest; any other when the goods go on: asked for, or handed over.
_ENDS = {"customs_hold": {"CustomsReleased", "ListReleased"}, "buyer_absent": {"ParcelOutForDelivery"}, NO_STOCK: {"FulfilmentRequested"}}
_GO_ON = frozenset({"FulfilmentRequested", "ParcelHandedOver"})
_HELD = frozenset({"CustomsHeld", "ListHeld"})
_WAITED_FOR = _GO_ON | _HELD | {"CustomsReleased", "ListReleased", "ParcelOutForDelivery"}
_PAUSES = frozenset({"PromisePaused", "PromiseHeld"})
_STOPS = frozenset({"ParcelStopped", "ParcelCleared"})


def _ought_to_stand(event: Event, state: str, stops: set[str], why: str) -> list[str]:
    if state == "paused" and event.type in _ENDS.get(why, _GO_ON):
        return [f"the clock still stands for {why}, which is over"]
    if stops and event.type == "PromiseAtRisk":
        return [f"the goods are stopped for {', '.join(stops)}, and the clock runs"]
    return []


def _events(case: Case, parcel_id: str, types: frozenset[str] | set[str] = frozenset(_STEPS)) -> list[Event]:
    """Of a parcel's promise. After the delivery nothing of it happens any more."""
    return [e for e in case.story.events["shipping"] if e.type in types and e.tells_of(parcel_id)]


def _delivered(tick: Tick, due: datetime, broken: Tick | None) -> list[str]:
    kept = tick.at is not None and tick.at <= due
    if tick.promised == due and tick.told is kept and (broken is None) is kept and (broken is None or broken.at == tick.at):
        return []
    return [f"delivered {tick.at}, promised {due}: told are {tick.promised}, kept {tick.told}, and "
            f"{'no ' if broken is None else ''}broken promise"]


@order_rule(40, "who is past a closed lane is not re-routed, and nobody turns back")
def reroutes_lie_ahead(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        way = parcel.plan.way if parcel.plan else None
        if way is None:
            continue
        begun = 0
        for event in case.story.events["shipping"]:
            if not event.tells_of(parcel_id):
                continue
            if event.type in _BEGUN:
                begun = max(begun, _BEGUN[event.type](way))
            if event.type == "ParcelRerouted":
                lanes = [lane for lane, _, _ in way.legs]
                wrong = _wrong(event.data.way, parcel.plan.warehouse, case.facts.allocated.accepted, case.facts.regime)
                if event.data.ref not in lanes[begun:]:
                    wrong.append(f"{event.data.ref} is not ahead of it: {lanes[begun:]}")
                if event.data.ref in [lane for lane, _, _ in event.data.way.legs] or event.data.way.legs[:begun] != way.legs[:begun]:
                    wrong.append(f"its way was {lanes}, of which it has begun {begun}, and is now {event.data.way.legs}")
                yield [str(event), f"parcel {parcel_id}", *wrong] if wrong else None
                way = event.data.way


# Scan -> how many legs it has begun for certain.
_BEGUN = {"ParcelHandedOver": lambda way: 1, **dict.fromkeys(("ParcelExported", "ParcelArrived", "CustomsReleased"),
                                                             lambda way: way.border + 1),
          "ParcelOutForDelivery": lambda way: len(way.legs)}


@order_rule(40, "the database has the clock that the events tell", live=False)
def database_has_the_clock(case: Case) -> Iterator[Verdict]:
    row = case.rows.get("shipping")
    for parcel_id, parcel in case.facts.parcels.items():
        stored = row.state.get("parcels", {}).get(parcel_id) if row else None
        if stored is None or parcel.plan is None or parcel.plan.way is None:
            continue
        clock = (stored.get("aside") or {}).get("clock") or {}
        events = _events(case, parcel_id)
        stood = sum(e.data.told for e in events if e.type == "PromiseResumed" and e.data.ref != NO_STOCK)
        last = next((e for e in reversed(events) if e.type in (*_PAUSES, "PromiseResumed")), None)
        paused = last.data.ref if last and last.type in _PAUSES else ""
        right = (clock.get("slip_s", 0), clock.get("paused", "")) == (stood, paused)
        yield None if right else [f"parcel {parcel_id}: the database has {clock or 'no clock'}, the events {stood} s and {paused!r}"]
