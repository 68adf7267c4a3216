"""The clock of a promise: planned with the order, stopped for a reason, at risk before it breaks, told at the door."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.lifecycle import PROMISE
from schemas.orders_order import ChinaImport, DocumentsSupplied, LineCode, OrderHeld, OrderPlaced, OrderResumed, PlacedLine
from schemas.payments_payment import PaymentAuthorised, PaymentHeld
from schemas.shipping_shipment import ParcelsAllocated
from schemas.topics import MODELS
from services.auditor.audit import examine
from services.explorer.simulation import bonded_order
from services.runtime.decision import TIMER, Decision, Incoming
from services.runtime.decision import LANES_CHANGED, Impossible, Stale, Standing
from services.shipping import machine, stops
from services.shipping.allocation import Line, Wanted
from services.shipping.network.lanes import in_bond
from services.shipping.plans import Plans
from services.shipping.shipment import Work
from services.shipping.storage import Stock
from tests.history import History
from tests.test_lifecycle import Outside, given, ids

PLANS = Plans()
MONDAY = datetime(2026, 11, 16, 10, tzinfo=UTC)
P1 = "A1-P1"


class Story:
    """One order at shipping alone, with the moment of everything that is told."""

    def __init__(self, destination: str = "DE", hs_code: str = "950300", stock=(("SEA1", 9),), plans: Plans | None = PLANS, screening: str = "CLEAR", regime: str = ""):
        self.state, self.document, self.events, self.plans = machine.Shipment("A1"), None, [], plans
        self.stock = Stock({"TOY"}, [(warehouse, "TOY", units) for warehouse, units in stock])
        regime = regime or {"CN": "china", "US": "domestic"}.get(destination, "abroad")
        self.tell(OrderPlaced.model_construct(
            order_id="A1", merchant_id="m1", currency="USD", origin="US", destination=destination, regime=regime, freight=700, tax=0,
            lines=[PlacedLine(line_no=1, sku="TOY", quantity=2, amount=5000, hs_code=hs_code)], total=5700,
            on_shortage="ship_available", screening=screening), MONDAY)

    def tell(self, message, at: datetime) -> list:
        kind = TIMER if message is None else type(message).__name__
        decision = machine.decide(self.state, self.document, Incoming(kind, "i", "s", 1, at, message), self.stock, at,
                                  plans=self.plans)
        assert isinstance(decision, Decision), decision
        self.state, self.document = decision.state, decision.document or self.document
        for move in decision.moves:
            self.stock.apply(move)
        encoded = machine.STATE.dump_json(self.state)
        assert machine.STATE.validate_json(encoded) == self.state
        self.events += decision.events
        return [type(e).__name__ for e in decision.events]

    def say(self, model, at: datetime, **fields) -> list:
        return self.tell(model(order_id="A1", parcel_id=P1, **fields), at)

    def paid(self) -> Story:
        soon, part = MONDAY + timedelta(hours=3), [{"parcel_id": P1, "amount": 5700}]
        self.tell(PaymentAuthorised.model_construct(order_id="A1", parcels=part), soon)
        if self.state.parcels[P1].status == "documented" or self.state.regime == "china":
            self.tell(PaymentHeld.model_construct(order_id="A1", parcels=[_Part(P1)]), soon)
        return self

    @property
    def route(self):
        return self.document.parcels[P1].route

    def carry(self, *until: str, late: timedelta = timedelta()) -> Story:
        """Every scan by the plan up to these steps; the last one `late`."""
        r = self.route
        b = r.border
        steps = [("packed", report.PackedReported, r.legs[0].departs - timedelta(hours=1), {}),
                 ("handed_over", report.HandedOverReported, r.legs[0].departs, {"carrier": "c", "tracking_no": "T"})]
        if b >= 0:
            arrives = r.legs[b].arrives
            steps += [("exported", report.ExportedReported, r.legs[b].departs, {}),
                      ("arrived", report.ArrivedReported, arrives - timedelta(hours=4), {}),
                      ("presented", report.PresentedReported, arrives - timedelta(hours=3), {}),
                      ("released", report.CustomsReleaseReported, arrives - timedelta(hours=1), {})]
        steps += [("out", report.OutForDeliveryReported, r.legs[-1].departs, {}),
                  ("delivered", report.DeliveredReported, r.promised_at - timedelta(minutes=30), {})]
        done = [name for name, *_ in steps if name in getattr(self, "done", set())]
        for name, model, at, fields in steps[len(done):]:
            last = name == until[-1]
            self.told = self.say(model, at + (late if last else timedelta()), **fields)
            done.append(name)
            if last:
                break
        self.done = set(done)
        return self

    def timer(self, name: str) -> list:
        return self.tell(None, self.state.timers[name])

    def of(self, name: str):
        return [e for e in self.events if type(e).__name__ == name]


class _Part:
    def __init__(self, parcel_id):
        self.parcel_id, self.amount = parcel_id, 5700


def test_an_order_is_promised_with_its_parcels():
    story = Story()
    [allocated] = story.of("ParcelsAllocated")
    [parcel] = allocated.parcels
    assert allocated.accepted_at == MONDAY and parcel.route == story.route
    assert story.route.in_time and story.route.promised_at <= MONDAY + timedelta(hours=72)
    assert [leg.lane for leg in story.route.legs][0] == "SEA1-USSEA-road" and story.route.legs[-1].arrives == story.route.promised_at
    assert ParcelsAllocated.model_validate_json(allocated.model_dump_json()) == ParcelsAllocated.model_validate(
        allocated.model_dump())


@pytest.mark.parametrize("destination", ["DE", "CN", "US"])
def test_an_order_that_goes_as_planned_tells_nothing_more(destination):
    story = Story(destination).paid().carry("delivered")
    assert not [e for e in story.events if type(e).__name__ in ("PromisePaused", "PromiseAtRisk", "PromiseBroken")]
    [delivered] = story.of("ParcelDelivered")
    assert delivered.kept and delivered.promised_at == story.route.promised_at >= delivered.delivered_at
    assert story.state.closed and story.state.parcels[P1].aside is None and not story.state.timers


def test_late_at_the_door_is_a_broken_promise():
    story = Story().paid().carry("delivered", late=timedelta(hours=2))
    assert story.told == ["PromiseBroken", "ParcelDelivered"]
    [broken], [delivered] = story.of("PromiseBroken"), story.of("ParcelDelivered")
    assert not delivered.kept and broken.delivered_at == delivered.delivered_at > broken.promised_at


def test_customs_hold_stops_the_clock():
    story = Story().paid().carry("presented")
    at = story.route.legs[story.route.border].arrives
    assert story.say(report.CustomsHoldReported, at, reason="inspection") == ["CustomsHeld", "PromisePaused"]
    assert "risk:A1-P1" not in story.state.timers
    assert story.say(report.CustomsReleaseReported, at + timedelta(hours=30)) == ["PromiseResumed", "CustomsReleased"]
    [resumed], [released] = story.of("PromiseResumed"), story.of("CustomsReleased")
    assert resumed.paused_s == 30 * 3600 and resumed.promised_at == story.route.promised_at + timedelta(hours=30)
    assert released.planned == [story.route.legs[-1].departs + timedelta(hours=30), resumed.promised_at]
    story.say(report.OutForDeliveryReported, released.planned[0])
    story.say(report.DeliveredReported, resumed.promised_at)
    assert story.of("ParcelDelivered")[0].kept and not story.of("PromiseAtRisk")


def test_an_absent_buyer_stops_the_clock_until_he_can_be_reached():
    story = Story("US").paid().carry("out")
    evening = story.route.promised_at - timedelta(hours=1)
    assert story.say(report.DeliveryFailureReported, evening, attempt=1, reason="nobody") == ["DeliveryFailed", "PromisePaused"]
    morning = evening + timedelta(hours=15)
    assert story.say(report.OutForDeliveryReported, morning) == ["PromiseResumed", "ParcelOutForDelivery"]
    story.say(report.DeliveredReported, morning + timedelta(minutes=50))
    assert story.of("ParcelDelivered")[0].kept


def test_at_the_pickup_point_the_clock_stands_until_it_is_collected():
    story = Story("US").paid().carry("out")
    at = story.route.promised_at - timedelta(hours=1)
    for attempt in (1, 2, 3):
        story.say(report.DeliveryFailureReported, at, attempt=attempt, reason="nobody")
        at += timedelta(hours=20)
        if attempt < 3:
            story.say(report.OutForDeliveryReported, at)
            at += timedelta(minutes=10)
    assert story.state.parcels[P1].status == "at_pickup"
    assert story.say(report.DeliveredReported, at + timedelta(days=2)) == ["PromiseResumed", "ParcelDelivered"]
    assert story.of("ParcelDelivered")[0].kept


def test_missing_papers_stop_the_clock():
    story = Story(hs_code="000000").paid()
    assert [type(e).__name__ for e in story.events] == ["ParcelsAllocated", "PromisePaused", "DocumentsMissing"]


def hold(story: Story, at: datetime, reason: str = "screening") -> list:
    return story.tell(OrderHeld(order_id="A1", reason=reason, ref="r"), at)


def resume(story: Story, at: datetime, reason: str = "screening") -> list:
    return story.tell(OrderResumed(order_id="A1", reason=reason, ref="r"), at)


def test_a_held_order_stops_the_clock_of_what_the_carrier_has_not_got():
    story = Story().paid()
    at = MONDAY + timedelta(hours=5)
    assert hold(story, at) == ["ParcelStopped", "PromiseHeld"] and story.of("PromiseHeld")[0].reason == "screening"
    assert "risk:A1-P1" not in story.state.timers
    assert resume(story, at + timedelta(hours=30)) == ["ParcelCleared", "PromiseResumed"]
    assert story.of("PromiseResumed")[0].promised_at == story.route.promised_at + timedelta(hours=30)
    assert story.state.timers["risk:A1-P1"] == story.route.legs[0].departs + timedelta(hours=30) + PLANS.tolerance


def test_an_order_held_from_the_beginning_has_a_clock_that_stands():
    story = Story(screening="REVIEW")
    assert [type(e).__name__ for e in story.events] == ["ParcelsAllocated", "PromiseHeld"]
    assert resume(story, MONDAY + timedelta(hours=20)) == ["PromiseResumed"]


def test_the_clock_goes_on_when_the_last_reason_has_ended():
    story = Story().paid()
    at = MONDAY + timedelta(hours=5)
    hold(story, at)
    assert hold(story, at + timedelta(hours=1), "inspection") == ["ParcelStopped"]
    assert resume(story, at + timedelta(hours=2)) == ["ParcelCleared"]
    assert resume(story, at + timedelta(hours=9), "inspection") == ["ParcelCleared", "PromiseResumed"]
    assert story.of("PromiseResumed")[0].paused_s == 9 * 3600


def test_goods_handed_over_all_the_same_have_a_clock_again():
    story = Story().paid().carry("packed")
    leaves = story.route.legs[0].departs
    hold(story, leaves - timedelta(hours=1))
    assert story.carry("handed_over").told == ["PromiseResumed", "ParcelHandedOver"]
    assert resume(story, leaves + timedelta(hours=2)) == []


def test_goods_on_their_way_are_not_stopped():
    story = Story().paid().carry("exported")
    assert hold(story, story.route.legs[-1].departs) == []


def test_papers_that_come_while_the_order_is_held_do_not_start_its_clock():
    story = Story(hs_code="000000").paid()
    hold(story, MONDAY + timedelta(hours=5))
    supplied = DocumentsSupplied(order_id="A1", lines=[LineCode(line_no=1, hs_code="950300")])
    assert story.tell(supplied, MONDAY + timedelta(hours=6)) == ["DocumentsReady"]
    assert resume(story, MONDAY + timedelta(hours=8)) == ["PromiseResumed"]
    assert story.of("PromiseResumed")[0].paused_s == 5 * 3600 and "risk:A1-P1" in story.state.timers


def test_on_a_clock_that_runs_ahead_our_own_work_is_no_risk_and_a_lost_day_is():
    fast = Plans(speed=20_000)  # 4 s are 22 hours
    story = Story(plans=fast).paid()
    story.say(report.PackedReported, story.route.legs[0].departs + timedelta(hours=12))
    assert not story.of("PromiseAtRisk")
    story = Story(plans=fast).paid().carry("handed_over")
    story.say(report.ExportedReported, story.route.legs[story.route.border].departs + timedelta(hours=50))
    [risk] = story.of("PromiseAtRisk")
    assert risk.predicted_at > risk.promised_at


def test_the_clock_of_a_cancelled_parcel_is_not_stopped():
    story = Story(hs_code="000000")
    story.timer("reservation")
    story.tell(PaymentAuthorised.model_construct(order_id="A1", parcels=[]), MONDAY + timedelta(hours=30))
    assert [type(e).__name__ for e in story.events] == ["ParcelsAllocated", "ParcelCancelled"]


def test_a_scan_that_does_not_come_is_a_risk_before_the_promise_breaks():
    story = Story().paid().carry("handed_over")
    before = story.state.timers["risk:A1-P1"]
    assert before < story.route.promised_at
    told = story.timer("risk:A1-P1")
    while "risk:A1-P1" in story.state.timers:  # a later flight may still make it
        assert told == []
        told = story.timer("risk:A1-P1")
    assert told == ["PromiseAtRisk"]
    [risk] = story.of("PromiseAtRisk")
    assert risk.reason == "no_scan" and risk.predicted_at > risk.promised_at == story.route.promised_at
    story.carry("delivered", late=timedelta(days=1))
    assert story.told == ["PromiseBroken", "ParcelDelivered"] and len(story.of("PromiseAtRisk")) == 1


def test_a_late_scan_predicts_by_the_departures_that_are_left():
    story = Story().paid().carry("handed_over")
    border = story.route.legs[story.route.border]
    told = story.say(report.ExportedReported, border.departs + timedelta(hours=40))
    assert told == ["ParcelExported", "PromiseAtRisk"]
    assert story.of("PromiseAtRisk")[0].reason == "late_scan"


def test_a_little_late_is_no_risk_where_the_next_departure_is_made():
    story = Story().paid().carry("arrived", late=timedelta(minutes=20))
    assert not story.of("PromiseAtRisk") and "risk:A1-P1" in story.state.timers


def test_an_order_within_its_country_is_not_missed_at_a_border_that_its_route_crosses():
    story = Story("GB", regime="domestic").paid()
    leaves, last = story.route.legs[0].departs, story.route.legs[-1]
    assert story.route.border >= 0
    story.say(report.PackedReported, leaves - timedelta(hours=1))
    story.say(report.HandedOverReported, leaves, carrier="c", tracking_no="T")
    assert story.state.timers["risk:A1-P1"] == last.departs + PLANS.tolerance
    story.say(report.OutForDeliveryReported, last.departs)
    story.say(report.DeliveredReported, last.arrives)
    assert story.of("ParcelDelivered")[0].kept and not story.of("PromiseAtRisk")


def test_on_the_last_leg_a_missed_scan_is_a_risk_when_the_promise_ends():
    story = Story("US", plans=Plans.of_places("SEA1", "USSEA", "DEBER")).paid()
    assert len(story.route.legs) == 1
    story.carry("handed_over")
    told = story.timer("risk:A1-P1")
    while told == []:
        told = story.timer("risk:A1-P1")
    assert told == ["PromiseAtRisk"]


def test_a_promise_ends_with_its_parcel():
    story = Story().paid().carry("handed_over")
    story.say(report.LossReported, MONDAY + timedelta(days=1))
    assert "risk:A1-P1" not in story.state.timers
    states = {row.event: row.to for row in PROMISE.rows if row.state == "running"}
    assert states["ParcelLost"] == "void" and states["ParcelDelivered"] == "kept"


def test_the_cheaper_warehouse_sends_and_two_only_when_they_must():
    story = Story("GB", stock=(("PVD1", 9), ("SEA1", 9)))
    assert [p.warehouse for p in story.of("ParcelsAllocated")[0].parcels] == ["PVD1"]
    story = Story("GB", stock=(("PVD1", 1), ("SEA1", 9)))
    assert [p.warehouse for p in story.of("ParcelsAllocated")[0].parcels] == ["SEA1"]
    story = Story("GB", stock=(("PVD1", 1), ("SEA1", 1)))
    assert sorted(p.warehouse for p in story.of("ParcelsAllocated")[0].parcels) == ["PVD1", "SEA1"]


def test_what_the_network_does_not_know_is_sent_without_a_promise():
    for story in (Story("AQ"), Story(stock=(("XYZ9", 9),)), Story(plans=None)):
        assert story.route is None and story.of("ParcelsAllocated")[0].accepted_at is None
        assert not any(name.startswith("risk") for name in story.state.timers)


# -- lanes ---------------------------------------------------------------------------------------------------------------


def lane_is(story: Story, *closed: str, at: datetime) -> list:
    """The order is told that these lanes are closed, as its owner tells it."""
    row = Standing(f"lanes {at}", "lanes", "shipping:lane:x:1", {"closed": list(closed), "changes": 1})
    decision = machine.decide(story.state, story.document, Incoming(LANES_CHANGED, "c", "standing", 0, at, None, lanes=row),
                              story.stock, at, plans=PLANS)
    story.state = decision.state
    assert machine.STATE.validate_json(machine.STATE.dump_json(story.state)) == story.state
    story.events += decision.events
    return [type(e).__name__ for e in decision.events]


def test_a_closed_lane_ahead_is_gone_round_and_the_promise_stays():
    story = Story().paid()
    ahead = story.route.legs[story.route.border].lane
    told = lane_is(story, ahead, at=MONDAY + timedelta(hours=5))
    [rerouted] = story.of("ParcelRerouted")
    assert told[0] == "ParcelRerouted" and rerouted.lane == ahead
    lanes = [leg.lane for leg in rerouted.route.legs]
    assert ahead not in lanes and lanes[0].startswith("SEA1-") and lanes[-1].startswith("DEBER-door-")
    arrives = rerouted.route.legs[-1].arrives
    assert (told == ["ParcelRerouted", "PromiseAtRisk"]) == (arrives > story.route.promised_at)
    clock = story.state.parcels[P1].aside.clock
    assert clock.route.legs == rerouted.route.legs
    assert story.state.timers["risk:A1-P1"] == rerouted.route.legs[0].departs + PLANS.tolerance
    assert lane_is(story, ahead, at=MONDAY + timedelta(hours=6)) == []


def test_who_is_past_the_lane_goes_on():
    story = Story().paid().carry("exported")
    assert lane_is(story, *(leg.lane for leg in story.route.legs[:story.route.border + 1]), at=MONDAY + timedelta(hours=20)) == []


def test_after_hand_over_only_what_lies_ahead_changes():
    story = Story().paid().carry("handed_over")
    first, ahead = story.route.legs[0], story.route.legs[story.route.border].lane
    lane_is(story, ahead, at=first.departs + timedelta(minutes=5))
    [rerouted] = story.of("ParcelRerouted")
    assert rerouted.route.legs[0] == first and rerouted.route.legs[1].departs >= first.arrives


def test_where_no_way_is_open_the_plan_stays():
    story = Story().paid()
    every = [lane.id for lane in PLANS.network.out["SEA1"]]
    assert lane_is(story, *every, at=MONDAY + timedelta(hours=5)) == []


def test_a_new_order_avoids_a_closed_lane():
    flown = Story().route.legs[Story().route.border].lane
    row = Standing("lanes 1", "lanes", "c", {"closed": [flown], "changes": 1})
    story = Story.__new__(Story)
    story.state, story.document, story.events, story.plans = machine.Shipment("A1"), None, [], PLANS
    story.stock = Stock({"TOY"}, [("SEA1", "TOY", 9)])
    placed = OrderPlaced.model_construct(
        order_id="A1", merchant_id="m1", currency="USD", origin="US", destination="DE", regime="abroad", freight=700, tax=0,
        lines=[PlacedLine(line_no=1, sku="TOY", quantity=2, amount=5000, hs_code="950300")], total=5700,
        on_shortage="ship_available")
    decision = machine.decide(story.state, None, Incoming("OrderPlaced", "i", "orders", 1, MONDAY, placed, lanes=row), story.stock,
                              MONDAY, plans=PLANS)
    [parcel] = decision.events[0].parcels
    assert flown not in [leg.lane for leg in parcel.route.legs] and decision.state.lanes == "lanes 1"


def test_lanes_are_closed_once_and_opened_again():
    lane, subject = "USSEA-JPHND-air", machine.Shipment("lane:USSEA-JPHND-air")
    message = report.CloseLane(order_id=f"lane:{lane}", lane=lane, reason="fog")
    decision = machine.decide(subject, None, Incoming("CloseLane", "i", "/operations", 0, MONDAY, message), None, MONDAY, plans=PLANS)
    assert decision.standing.facts == {"closed": [lane], "changes": 1} and type(decision.events[0]).__name__ == "LaneClosed"
    row = decision.standing
    again = machine.decide(decision.state, None, Incoming("CloseLane", "j", "/operations", 0, MONDAY, message, lanes=row), None, MONDAY,
                           plans=PLANS)
    assert isinstance(again, Stale)
    reopen = report.OpenLane(order_id=f"lane:{lane}", lane=lane)
    decision = machine.decide(decision.state, None, Incoming("OpenLane", "k", "/operations", 0, MONDAY, reopen, lanes=row), None, MONDAY,
                              plans=PLANS)
    assert decision.standing.facts == {"closed": [], "changes": 2} and decision.standing.label != row.label
    with pytest.raises(Impossible):
        machine.decide(subject, None, Incoming("CloseLane", "l", "/operations", 0, MONDAY, message.model_copy(
            update={"lane": "USSEA-NOWHERE-air"})), None, MONDAY, plans=PLANS)


# -- from a bonded warehouse (mode 1210) ----------------------------------------------------------------------------------


def bonded(statuses: tuple[str, ...] = ("120", "800"), stock=None, **more):
    """Sold from a bonded warehouse in Shanghai; Chinese customs says these statuses of its list."""
    outside = Outside()

    def tell(event, world):
        for status in statuses:
            accepted_as(event, world, status)
    outside.on[ship.DocumentsMatched] = tell
    return given(bonded_order(**more), stock=stock or {"CHERRY": {"CNSHA": 9}}, outside=outside, plans=PLANS)[0]


def accepted_as(event, world, status: str) -> None:
    world.send(report.CarrierScanReported(**ids(event), dialect="ceb622", code=status, at=world.now, reason="as told",
                                          tracking_no=event.import_list.list_no), "/customs/CN", f"{event.import_list.list_no}:{status}")


def told(world, name: str) -> list:
    return [MODELS[name].model_validate_json(e.value) for e in world.events if e.type == name]


async def is_clean(world) -> None:
    assert not world.dead
    found = await examine(History([world]))
    assert found.clean, "\n".join(found.lines())


async def test_goods_in_bond_are_promised_over_lanes_of_their_country():
    world = bonded()
    [allocated] = told(world, "ParcelsAllocated")
    route = allocated.parcels[0].route
    assert allocated.accepted_at and route.border == -1 and route.in_time
    lanes = [leg.lane for leg in route.legs]
    assert lanes[0].startswith("CNSHA-") and "-door-" in lanes[-1]
    assert all(place.startswith("CN") or place == "door" for lane in lanes for place in lane.split("-")[:2])
    [delivered] = told(world, "ParcelDelivered")
    assert delivered.kept and delivered.promised_at == route.promised_at
    assert not {"ParcelExported", "ParcelArrived", "CustomsPresented"} & set(world.types())
    await is_clean(world)


async def test_customs_in_bond_stops_the_clock():
    world = bonded(("120", "500"))
    world.wait(hours=20)
    accepted_as(told(world, "DocumentsMatched")[0], world, "800")
    world.run()
    [paused], [resumed] = told(world, "PromisePaused"), told(world, "PromiseResumed")
    assert (paused.reason, resumed.reason) == ("customs_hold", "customs_hold") and resumed.paused_s >= 20 * 3600
    [allocated] = told(world, "ParcelsAllocated")
    assert resumed.promised_at == allocated.parcels[0].route.promised_at + timedelta(seconds=resumed.paused_s)
    types = world.types("shipping")
    assert types.index("ListHeld") < types.index("PromisePaused") < types.index("PromiseResumed") < types.index("FulfilmentRequested")
    await is_clean(world)


async def test_customs_and_a_stopped_order_together_stand_until_both_are_over():
    """The order is held and let go while customs holds the goods: the clock goes on with the release alone."""
    world = bonded(("120", "500"))
    parcel = world.state("shipping").parcels["A1-P1"]
    assert parcel.aside.clock.paused == "customs_hold"
    work = Work(world.state("shipping").draft(), world.parties["shipping"].entries["A1"].document, None, world.now, plans=PLANS)
    stops.stop(work, "screening")
    stops.clear(work, "screening", lambda *_: None)
    assert not work.events and work.shipment.parcels["A1-P1"].aside.clock.paused == "customs_hold"


@pytest.mark.parametrize("stock", [{"CHERRY": {"SHB9": 9}}, {"CHERRY": {"CNSHA": 1, "SHB9": 9}}])
async def test_a_bonded_warehouse_that_the_network_does_not_have_sends_without_a_promise(stock):
    world = bonded(stock=stock)
    assert all(p.route is None for p in told(world, "ParcelsAllocated")[0].parcels)
    assert world.state("orders").status == "completed"
    await is_clean(world)


def test_a_closed_lane_in_bond_is_gone_round_within_the_country():
    lanes = [leg.lane for leg in PLANS.plan(_wanted(), lambda sku: [("CNCGO", 9)], MONDAY, frozenset())[1]["CNCGO"].legs]
    again = PLANS.again("CNCGO", MONDAY, "CNSHA", MONDAY + timedelta(hours=72), frozenset({lanes[0]}), bonded=True)
    assert again[0].lane != lanes[0] and all(leg.lane.startswith("CN") for leg in again)
    assert not any(lane.customs for lanes in in_bond(PLANS.network).out.values() for lane in lanes)


def _wanted() -> Wanted:
    china = ChinaImport.model_construct(mode="1210")
    return Wanted("CNY", "CN", "ship_available", 0, 100, [Line(1, "TOY", 2, 100)], china=china)


async def test_an_auditor_notices_goods_in_bond_that_left_the_country():
    history = History([bonded()])
    told_, at = history.find("shipping.shipment.v1", "ParcelsAllocated", "A1")
    parcels = json.loads(told_[at].value)["parcels"]
    parcels[0]["route"]["border"] = 0
    history.change("shipping.shipment.v1", "ParcelsAllocated", "A1", parcels=parcels)
    found = await examine(history)
    assert any("goods in bond have left their country" in line for v in found.violations for line in v.evidence)
