"""A warehouse that has told that it began to pack is asked before a buyer's cancellation undoes anything."""

from __future__ import annotations

import json

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.model import LineQuantity
from services.explorer.simulation import order
from services.shipping.machine import STATE
from tests.test_lifecycle import Outside, ends, given, ids, nothing

ONE = [LineQuantity(line_no=1, quantity=1)]


def begun(lines=None, asked=nothing, at=ship.PackingStarted) -> Outside:
    """The warehouse tells that it begins; the buyer cancels `at` that moment, and the warehouse does `asked`."""
    outside = Outside()

    def start(e, w):
        w.send(report.PackingStartedReported(**ids(e)), "/warehouse")
        if at is ship.ParcelPacked:
            w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = start
    outside.on[at] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id, lines=lines), id="cancel-1")
    outside.on[ship.CancellationAsked] = asked
    return outside


def yes(e, w):
    w.send(report.CancellationAccepted(**ids(e), cancellation_id=e.cancellation_id), "/warehouse")


def no(e, w):
    w.send(report.CancellationRefused(**ids(e), cancellation_id=e.cancellation_id, reason="on the belt"), "/warehouse")


def pack(e, w):
    w.send(report.PackedReported(order_id=e.order_id, parcel_id=e.parcel_id), "/warehouse")


def told(world, name: str) -> list[dict]:
    return [json.loads(e.value) for e in world.events if e.type == name]


@pytest.mark.parametrize("destination", ["US", "DE", "CN"])
@pytest.mark.parametrize("at", [ship.PackingStarted, ship.ParcelPacked])
def test_it_says_yes(destination, at):
    outside = begun(asked=yes, at=at)
    if at is ship.ParcelPacked:
        outside.on[ship.ParcelHandedOver] = nothing
    world, _ = given(order(destination=destination), outside=outside)
    captured = world.balance()["buyer"]
    ends(world, "cancelled", reason="cancelled", buyer=captured, refunded=-captured)
    assert [e["lines"] for e in told(world, "CancellationAsked")] == [None]
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 100}


def test_it_says_no_and_the_parcel_goes_on():
    def refuse(e, w):
        no(e, w)
        pack(e, w)
    world, _ = given(outside=begun(asked=refuse))
    [declined] = told(world, "CancellationDeclined")
    assert declined["reason"] == "on the belt" and declined["cancellation_id"] == "cancel-1"
    ends(world, "completed", buyer=-5700, released=5700)


def test_after_a_no_the_buyer_may_still_have_the_carrier_stop_it():
    def refuse(e, w):
        no(e, w)
        pack(e, w)
    outside = begun(asked=refuse)
    outside.on[ship.ParcelHandedOver] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id), id="cancel-2")
    outside.on[ship.InterceptRequested] = lambda e, w: w.send(report.InterceptAccepted(**ids(e)), "/carrier")
    world, _ = given(outside=outside)
    assert [e["cancellation_id"] for e in told(world, "InterceptRequested")] == ["cancel-2"]
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")


@pytest.mark.parametrize("stops", [True, False])
def test_handed_over_before_its_answer_it_is_asked_of_the_carrier(stops):
    outside = begun(asked=pack)
    outside.on[ship.ParcelHandedOver] = nothing

    def carrier(e, w):
        w.send(report.InterceptAccepted(**ids(e)) if stops else report.InterceptRefused(**ids(e), reason="gone"), "/carrier")
        w.send(report.CancellationAccepted(**ids(e), cancellation_id=e.cancellation_id), "/warehouse")  # it does not have it any more
    outside.on[ship.InterceptRequested] = carrier
    world, _ = given(outside=outside)
    assert [e["cancellation_id"] for e in told(world, "InterceptRequested")] == ["cancel-1"]
    if stops:
        ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")
    else:
        assert world.state("shipping").parcels["A1-P1"].status == "handed_over" and told(world, "CancellationDeclined")
        assert not any(name.startswith("asked") for name in world.state("shipping").timers)


def test_silence_holds_nobodys_money():
    world, _ = given(outside=begun())
    assert world.state("shipping").parcels["A1-P1"].aside.asked == {"cancel-1": None}
    world.wait(hours=23)
    assert world.state("shipping").parcels["A1-P1"].status == "in_progress"
    world.wait(hours=2)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")


@pytest.mark.parametrize("destination,back", [("DE", 2500), ("CN", 2500)])
def test_one_unit_leaves_the_box(destination, back):
    def take_out(e, w):
        yes(e, w)
        if e.lines and destination != "CN":
            pack(e, w)
    outside = begun(lines=ONE, asked=take_out)
    if destination == "CN":  # told anew, then packed
        outside.on[ship.ListAccepted] = lambda e, w: pack(e, w) if told(w, "ParcelLinesCancelled") else None
    world, _ = given(order(destination=destination), outside=outside)
    captured = -world.balance()["buyer"]
    ends(world, "completed", buyer=-captured, refunded=back, released=captured - back)
    [cut] = told(world, "ParcelLinesCancelled")
    assert cut["cancellation_id"] == "cancel-1" and cut["lines"] == [{"line_no": 1, "quantity": 1}]


def test_what_is_in_the_box_is_known_before_it_counts_as_packed():
    """Reports in the wrong order: packed, then the answer about what is in it."""
    def late(e, w):
        pack(e, w)
        w.run()
        assert w.state("shipping").parcels["A1-P1"].status == "in_progress"
        yes(e, w)
    world, _ = given(outside=begun(lines=ONE, asked=late))
    types = world.types("shipping")
    assert types.index("ParcelLinesCancelled") < types.index("ParcelPacked")
    ends(world, "completed", buyer=-5700, refunded=2500, released=3200)


def test_silence_about_one_unit_is_a_no():
    world, _ = given(outside=begun(lines=ONE, asked=pack))
    assert world.state("shipping").parcels["A1-P1"].status == "in_progress", "the packed box waits for the answer"
    world.wait(hours=25)
    assert [e["reason"] for e in told(world, "CancellationDeclined")] == ["the warehouse did not answer"]
    ends(world, "completed", buyer=-5700, released=5700)


def test_one_unit_then_all():
    outside = begun(lines=ONE)
    outside.on[ship.CancellationAsked] = lambda e, w: (
        w.send(ask.CancelOrder(order_id=e.order_id), id="cancel-2") if e.lines else yes(e, w))
    world, _ = given(outside=outside)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")
    assert [e["cancellation_id"] for e in told(world, "CancellationAsked")] == ["cancel-1", "cancel-2"]


def test_what_nobody_has_begun_goes_first():
    """Two parcels with the same goods: the unit leaves the one that is not begun, and nobody is asked."""
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: (
        w.send(report.PackingStartedReported(**ids(e)), "/warehouse") if e.parcel_id == "A1-P1" else None)
    outside.on[ship.PackingStarted] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id, lines=ONE))
    world, _ = given(order(destination="US", lines=(("CHERRY", 4, 8000),)), stock={"CHERRY": {"SEA1": 2, "PVD1": 2}}, outside=outside)
    assert [e["parcel_id"] for e in told(world, "ParcelLinesCancelled")] == ["A1-P2"] and not told(world, "CancellationAsked")


def test_whoever_puts_it_aside_has_not_begun():
    outside = begun()
    outside.on[ship.PackingStarted] = lambda e, w: w.send(report.PackingHeldReported(**ids(e), reason="no carton"), "/warehouse")
    outside.on[ship.PackingHeld] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    world, _ = given(outside=outside)
    assert not told(world, "CancellationAsked")
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")


def test_a_rejected_or_empty_parcel_leaves_nothing_to_answer():
    for said in (lambda e: report.PackingRejected(**ids(e), reason="broken"),
                 lambda e: report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=2)])):
        outside = begun()

        def answer(e, w, said=said):
            w.send(said(e), "/warehouse")
            yes(e, w)  # too late: nothing is asked any more
        outside.on[ship.CancellationAsked] = answer
        world, _ = given(outside=outside)
        ends(world, "cancelled", buyer=-5700, refunded=5700)


def test_what_is_asked_is_kept_and_told_twice_it_is_begun_once():
    outside = begun()
    outside.on[ship.CancellationAsked] = lambda e, w: w.send(report.PackingStartedReported(**ids(e)), "/warehouse", id="again")
    world, _ = given(outside=outside)
    state = world.state("shipping")
    assert STATE.validate_json(STATE.dump_json(state)) == state
    assert len(told(world, "PackingStarted")) == 1 and not world.parties["shipping"].entries["A1"].parked
