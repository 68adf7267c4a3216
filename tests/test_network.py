"""The network and its plans: real places, legs that add up, never dearer than 1.05 times the optimum."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shipping.allocation import Line, Wanted
from services.shipping.network import generate
from services.shipping.network.compare import against_optimum, compare, orders
from services.shipping.network.geography import km, places
from services.shipping.network.lanes import DOOR, network
from services.shipping.network.planner import Planner, legs
from services.shipping.network.solver import small_network
from services.shipping.network.sourcing import Want, source
from services.shipping.network.timetables import Timetable, works
from services.shipping.plans import Plans
from services.simulators.demo_orders import demo_orders
from services.simulators.scenario import warehouse_of

PLANNER = Planner(network())
MORNING = datetime(2026, 11, 16, 10, tzinfo=UTC)


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_places_and_calendars_are_those_of_the_data_packages():
    for path, given_ in generate.files().items():
        assert path.read_text(encoding="utf-8") == given_


def test_calendars_reach_beyond_the_days_of_the_network():
    first, last = network().valid
    assert generate.FIRST <= first - timedelta(days=30) and generate.LAST >= last + timedelta(days=60)


@pytest.mark.parametrize(("orders_", "apart_s", "searches"), [(2_000, 0.001, 30), (1_440, 60, 110)])
def test_what_a_wave_can_reach_is_searched_once_however_many_orders_it_has(orders_, apart_s, searches):
    """A search costs as much as planning thirty orders by it: at the benchmark's pace, and at one order a minute for a day."""
    plans, asked = Plans(network()), set()
    lines = demo_orders(7, orders_, vault_key=bytes(32), placed_at=MORNING, forced=False, domestic=False, fast=True, prefix="bench")
    wants = [(MORNING + timedelta(seconds=n * apart_s), Wanted(
        "USD", o.destination, "wait", 0, 100, [Line(l.line_no, l.sku, l.quantity, l.amount) for l in o.lines]))
        for n, o in enumerate(lines)]
    for twice in range(2):
        for at, wanted in wants:
            shares, _ = plans.plan(wanted, lambda sku: [(warehouse_of(sku), 10**6)], at, frozenset())
            asked |= {(w, plans.planner.wave(w, int(at.timestamp())), wanted.destination) for w in shares}
        assert plans.planner.searched <= min(searches, 3 * len(asked))  # from each of the hubs that a warehouse reaches by road


def test_1800_places_of_which_every_country_has_a_hub():
    kinds = {p.country: set() for p in places().values()}
    for p in places().values():
        ZoneInfo(p.zone)
        kinds[p.country].add(p.kind)
    assert len(places()) == 1800
    assert all(found & {"hub", "major"} for found in kinds.values())
    assert places()["SEA1"].name == "Seattle" and places()["PVD1"].name == "Providence"


def test_a_lorry_does_not_cross_the_sea():
    net = network()
    assert not [lane.id for lane in net.lanes.values() if lane.service == "road" and lane.to != DOOR
                and {net.places[lane.origin].country, net.places[lane.to].country} & {"JP", "AU", "NZ", "IS", "TW"}
                and net.places[lane.origin].country != net.places[lane.to].country]


@pytest.mark.parametrize(("country", "days", "day", "open_"), [
    ("US", "working", date(2026, 11, 26), False),  # Thanksgiving
    ("US", "working", date(2026, 11, 28), False), ("US", "most", date(2026, 11, 28), True),  # a Saturday
    ("US", "most", date(2026, 11, 29), False), ("US", "daily", date(2026, 11, 29), True),
    ("CN", "working", date(2026, 10, 1), False), ("CN", "most", date(2026, 10, 2), False),  # National Day
    ("SA", "most", date(2026, 11, 27), False), ("SA", "most", date(2026, 11, 29), True),  # Friday is the day of rest
    ("DE", "working", date(2026, 12, 25), False), ("DE", "working", date(2026, 12, 28), True),
    ("AX", "working", date(2026, 11, 28), False),
])  # fmt: skip
def test_working_days_are_those_of_the_country(country, days, day, open_):
    assert works(country, days, day) is open_


def test_a_cutoff_is_local_time_also_when_the_clocks_change():
    table = Timetable("DE", "Europe/Berlin", "daily", ("20:00",))
    assert table.next(moment("2026-10-24T12:00")) == moment("2026-10-24T18:00")
    assert table.next(moment("2026-10-25T12:00")) == moment("2026-10-25T19:00")
    assert table.next(moment("2026-10-25T19:00")) == moment("2026-10-25T19:00")
    assert table.next(moment("2026-10-25T19:00") + 1) == moment("2026-10-26T19:00")


def test_the_same_question_asked_years_apart_has_an_answer():
    table = Timetable("US", "America/New_York", "working", ("08:00",))
    assert table.next(moment("2026-12-25T00:00")) == moment("2026-12-28T13:00")
    assert table.next(moment("2027-07-03T00:00")) == moment("2027-07-06T12:00")  # the 5th is a holiday instead of the 4th
    assert table.next(moment("2026-12-25T00:00")) == moment("2026-12-28T13:00")


# -- plans ------------------------------------------------------------------------------------------------------------


def check(planner: Planner, order, plan) -> None:
    """Stock is there, cut-offs are kept on working days, times and costs add up, and the promise is what it says."""
    net, at, wanted = planner.network, order.accepted, {w.sku: w for w in order.wants}
    sent: dict[str, int] = {}
    for parcel in plan:
        route, on_shelf = parcel.route, {sku: dict(rows).get(parcel.warehouse, 0) for sku, rows in order.stock.items()}
        assert all(0 < units <= on_shelf[sku] for sku, units in parcel.units.items())
        for sku, units in parcel.units.items():
            sent[sku] = sent.get(sku, 0) + units
        assert parcel.grams == sum(units * wanted[sku].grams for sku, units in parcel.units.items())
        assert route.wave >= at + planner.lead_s
        assert leaves(net, net.waves[parcel.warehouse], route.wave)
        assert route.starts == route.wave + planner.pack_s
        place, moment, cost = parcel.warehouse, route.starts, planner.pack_cost
        for lane, departs, arrives in legs(route.lanes, route.starts):
            assert lane.origin == place and moment <= departs and leaves(net, lane.table, departs)
            assert arrives >= departs + lane.transit_s
            if lane.customs is not None:
                assert leaves(net, lane.customs, arrives - lane.clear_s)
            place, moment, cost = lane.to, arrives, cost + lane.fixed + lane.rate * parcel.grams
        assert (place, moment, cost) == (DOOR, route.arrives, route.cost)
        assert route.lanes[-1].origin == order.area
        assert route.in_time == (route.arrives <= at + 72 * 3600)
    assert sent == {w.sku: min(w.units, sum(free for _, free in order.stock[w.sku])) for w in order.wants}


def leaves(net, table: Timetable, when: int) -> bool:
    local = datetime.fromtimestamp(when, ZoneInfo(table.zone))
    return f"{local:%H:%M}" in table.cutoffs and works(table.country, table.days, local.date())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_every_plan_can_be_carried_out(seed):
    [order] = orders(network(), seed, 1, days=400)
    check(PLANNER, order, source(PLANNER, *order))


def test_never_dearer_than_1_05_times_the_optimum():
    ratios = against_optimum(200, seed=11)
    assert max(ratios) <= 1.05 and min(ratios) > 0.999999
    assert sum(ratios) / len(ratios) <= 1.001


def test_better_than_the_nearest_warehouse():
    found = compare(150, seed=3)
    assert found.ours.planned > found.nearest_fast.planned and found.ours.cost < found.nearest_fast.cost
    assert found.ours.planned > 2 * found.nearest_cheap.planned
    assert found.again_us < 500  # 50 on a machine of its own, see docs/decisions/0040-*.md


def test_a_dearer_way_is_taken_only_to_keep_the_promise():
    calm, late = moment("2026-11-23T06:00"), moment("2026-11-25T22:00")  # before Thanksgiving
    for accepted in (calm, late):
        route = PLANNER.plan("SEA1", "JPHND", 1500, accepted)
        cheaper = [o for o in PLANNER.options("SEA1", route.wave, "JPHND") if o.cost(1500) < route.cost]
        assert all(o.arrives > accepted + 72 * 3600 for o in cheaper) or not route.in_time


def test_what_cannot_be_there_in_time_says_so_and_comes_first_possible():
    route = PLANNER.plan("SEA1", "NZDUD", 500, moment("2026-12-24T10:00"))
    assert not route.in_time
    assert route.arrives == PLANNER.options("SEA1", route.wave, "NZDUD")[0].arrives


def test_a_split_only_where_it_is_needed_or_cheaper():
    at = moment("2026-11-23T10:00")
    wants = [Want("A", 2, 500), Want("B", 1, 500)]
    [one] = source(PLANNER, wants, {"A": [("SEA1", 2), ("PVD1", 2)], "B": [("PVD1", 1)]}, "USNEY", at)
    assert (one.warehouse, one.units) == ("PVD1", {"A": 2, "B": 1})
    two = source(PLANNER, wants, {"A": [("SEA1", 1), ("PVD1", 1)], "B": [("PVD1", 1)]}, "USNEY", at)
    assert {p.warehouse: p.units for p in two} == {"SEA1": {"A": 1}, "PVD1": {"A": 1, "B": 1}}


def test_no_way_and_no_stock_are_told_apart():
    net = small_network()
    cut = Planner(net, frozenset(lane.id for lane in net.into["CNHGH"]))
    at = moment("2026-11-23T10:00")
    assert source(cut, [Want("A", 1, 100)], {"A": [("SEA1", 1)]}, "CNHGH", at) is None
    assert source(cut, [Want("A", 1, 100)], {"A": []}, "CNSHA", at) is None


def test_a_closed_lane_is_not_used_and_nothing_else_changes():
    at = moment("2026-11-23T10:00")
    before = PLANNER.plan("SEA1", "JPHND", 500, at)
    flown = next(lane.id for lane in before.lanes if lane.service in ("air", "express"))
    after = Planner(network(), frozenset({flown})).plan("SEA1", "JPHND", 500, at)
    assert flown not in [lane.id for lane in after.lanes]
    assert after.cost >= before.cost or after.arrives > before.arrives
    other = PLANNER.plan("SEA1", "DEBER", 500, at)
    assert Planner(network(), frozenset({flown})).plan("SEA1", "DEBER", 500, at) == other


def test_the_plan_of_an_order_does_not_depend_on_what_was_asked_before():
    drawn = list(orders(network(), 9, 25))
    fresh = [source(Planner(network()), *order) for order in drawn[:5]]
    random.Random(5).shuffle(shuffled := list(drawn))
    known = Planner(network())
    for order in shuffled:
        source(known, *order)
    assert fresh == [source(known, *order) for order in drawn[:5]]


def test_distances_are_those_of_the_globe():
    known = places()
    assert km(known["USSEA"], known["USNEY"]) == pytest.approx(3870, rel=0.01)
    assert km(known["NZAKL"], known["CLSCL"]) == pytest.approx(9660, rel=0.02)
    assert timedelta(hours=72).total_seconds() == PLANNER.promise_s
