"""Goods sold before their harvest: held of what was announced, paid when the season opens, cancelled when it closes."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from services.explorer.simulation import KEY, START, World, order
from services.orders.screening import screen
from tests.test_lifecycle import Outside, ends, given, ids

OPENS, CLOSES = START + timedelta(days=30), START + timedelta(days=40)
SEASON = ask.Season(ships_not_before=OPENS, ships_not_after=CLOSES)
CHERRY = {"order_id": "stock:SEA1:CHERRY", "warehouse": "SEA1", "sku": "CHERRY"}


def cherries(order_id: str = "A1", season: ask.Season | None = SEASON, **more) -> ask.PlaceOrder:
    return order(order_id, **more).model_copy(update={"season": season})


def announce(world: World, units: int = 10) -> None:
    world.send(report.HarvestAnnounced(**CHERRY, quantity=units, harvest_on=date(2026, 12, 20)), "/warehouse")
    world.run()


def harvest(world: World, units: int = 10) -> None:
    world.send(report.InboundReceived(**CHERRY, quantity=units, harvest=True), "/warehouse")
    world.run()


def presold(units: int = 10, outside: Outside | None = None) -> World:
    world, _ = given(cherries(), stock={}, outside=outside, before=lambda w: announce(w, units))
    return world


def when(world: World, name: str):
    """The trade time of the first event of that type."""
    return next(e.time for e in world.events if e.type == name)


def test_held_until_it_opens_and_paid_only_then():
    world = presold()
    assert world.state("orders").status == "presold" and not world.state("payments").payments
    harvest(world)
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 8}, "two of the harvest are promised"
    world.wait(days=29)
    assert "ParcelsAllocated" not in world.types()
    world.wait(days=12)
    ends(world, "completed", buyer=-5700, released=5700)
    assert when(world, "PreSold") == START and OPENS <= when(world, "PaymentAuthorised") <= when(world, "ParcelHandedOver") <= CLOSES
    assert world.types("shipping")[:3] == ["HarvestExpected", "PreSold", "StockReceived"]


def test_a_harvest_that_never_comes_costs_nobody_anything():
    world = presold()
    world.wait(days=39)
    assert world.state("orders").status == "placed" and "SeasonOpened" in world.types()
    world.wait(days=2)
    ends(world, "cancelled", reason="season_closed")
    assert "PaymentAuthorised" not in world.types()


def test_a_harvest_that_comes_late_is_still_in_time():
    world = presold()
    world.wait(days=33)
    harvest(world)
    world.wait(days=15)
    ends(world, "completed", buyer=-5700, released=5700)


def test_what_is_not_handed_over_when_it_closes_is_paid_back():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(report.PackingHeldReported(**ids(e), reason="no ice"), "/warehouse")
    outside.on[ship.PackingHeld] = lambda e, w: None
    world = presold(outside=outside)
    world.wait(days=29)
    harvest(world)
    world.wait(days=4)
    world.send(report.PackedReported(order_id="A1", parcel_id="A1-P1"), "/warehouse")
    outside.on[ship.ParcelPacked] = lambda e, w: None
    world.run()
    world.wait(days=8)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="season_closed")
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 10}


def test_no_more_is_promised_than_was_announced():
    world = presold(units=3)
    world.send(cherries("B1"))
    world.run()
    assert world.state("orders", "B1").status == "cancelled" and world.state("orders", "B1").reason == "sold_out"
    assert world.state("orders").status == "presold"


def test_who_buys_from_the_shelf_cannot_take_what_was_promised():
    world = presold(units=2)
    harvest(world, 2)
    world.send(order("B1"))
    world.run()
    assert world.state("orders", "B1").reason == "no_stock"
    world.wait(days=45)
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_harvest_smaller_than_announced_serves_who_opens_first():
    world = presold(units=4)
    world.send(cherries("B1"))
    world.run()
    harvest(world, 3)
    world.wait(days=45)
    ended = sorted((world.state("orders", name).status, world.state("orders", name).reason) for name in ("A1", "B1"))
    assert ended == [("cancelled", "season_closed"), ("completed", "")]
    row = world.stock.changes["CHERRY", "SEA1"]
    assert (row["announced"], row["arrived"], row["presold"], row["unsold"]) == (4, 3, 4, 4)


@pytest.mark.parametrize("lines", [None, 1])
def test_cancelled_before_it_opens(lines):
    from schemas.model import LineQuantity
    world = presold()
    wanted = None if lines is None else [LineQuantity(line_no=1, quantity=1)]
    world.send(ask.CancelOrder(order_id="A1", lines=wanted))
    world.run()
    harvest(world)
    world.wait(days=45)
    if lines is None:
        ends(world, "cancelled", reason="cancelled")
    else:
        assert world.state("orders").status == "completed"
    row = world.stock.changes["CHERRY", "SEA1"]
    assert row["presold"] == row["unsold"]


def test_an_open_season_is_no_pre_sale():
    season = ask.Season(ships_not_before=START - timedelta(days=1), ships_not_after=CLOSES)
    world, _ = given(cherries(season=season))
    world.wait(days=11)
    ends(world, "completed", buyer=-5700, released=5700)
    assert "PreSold" not in world.types()


def test_a_season_that_closes_before_it_opens_is_refused():
    for opens, closes, right in ((OPENS, CLOSES, True), (CLOSES, OPENS, False), (START - timedelta(days=9), START, False)):
        refused = screen(cherries(season=ask.Season(ships_not_before=opens, ships_not_after=closes)), KEY)
        assert refused is None if right else refused[0] == "season_dates"
