"""Backorders: what is there is sent now, the rest follows when it has come, or is paid back alone."""

from __future__ import annotations

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.model import LineQuantity
from services.auditor.audit import examine
from services.explorer.simulation import World, order
from tests.history import History, network_plans
from tests.test_lifecycle import Outside, given

REST = "A1-P2"


def started(destination: str = "US", plans=None, outside=None, **more) -> World:
    """Two of three units are there."""
    placed = order(destination=destination, lines=(("CHERRY", 3, 6000),), backorder=True, **more)
    return given(placed, stock={"CHERRY": {"SEA1": 2}}, plans=plans, outside=outside)[0]


def arrives(world: World, units: int = 5, warehouse: str = "PVD1") -> World:
    world.send(report.InboundReceived(order_id=f"stock:{warehouse}:CHERRY", warehouse=warehouse, sku="CHERRY", quantity=units), "/warehouse")
    world.run()
    world.wait(hours=7)
    return world


async def is_clean(world: World) -> None:
    assert not world.dead
    found = await examine(History([world]))
    assert found.clean, "\n".join(found.lines())


def of(world: World, name: str) -> list:
    from schemas.topics import MODELS
    return [MODELS[name].model_validate_json(e.value) for e in world.events if e.type == name]


@pytest.mark.parametrize("destination", ["US", "DE", "CN"])
async def test_the_rest_follows_from_where_it_came_to(destination):
    world = started(destination)
    [told] = of(world, "ParcelBackordered")
    assert (told.parcel_id, told.quantity) == (REST, 1)
    assert world.state("shipping").parcels["A1-P1"].status == "delivered", "what is there does not wait"
    assert world.state("shipping").parcels[REST].status in ("allocated", "documented")
    arrives(world)
    [filled] = of(world, "BackorderFilled")
    assert filled.warehouse == "PVD1"
    assert [e.warehouse for e in of(world, "FulfilmentRequested")] == ["SEA1", "PVD1"]
    assert world.state("orders").status == "completed" and world.state("shipping").closed
    total = 6700
    assert sum(e.amount for e in of(world, "PaymentHeld")) == total == world.balance()["released"]
    await is_clean(world)


async def test_into_china_each_parcel_has_a_payment_and_nothing_is_declared_that_is_not_there():
    world = started("CN")
    assert [[p.parcel_id for p in e.parcels] for e in of(world, "PaymentHeld")] == [["A1-P1"], [REST]]
    assert [e.parcel_id for e in of(world, "DocumentsMatched")] == ["A1-P1"]
    arrives(world)
    assert [e.parcel_id for e in of(world, "DocumentsMatched")] == ["A1-P1", REST]


@pytest.mark.parametrize("destination", ["US", "CN"])
async def test_what_never_comes_is_paid_back_and_nothing_else(destination):
    world = started(destination)
    world.wait(days=15)
    [cancelled] = of(world, "ParcelCancelled")
    assert (cancelled.parcel_id, cancelled.reason) == (REST, "backorder_expired")
    assert world.state("orders").status == "completed"
    # A third of the goods, and of the freight what falls to them.
    assert world.balance()["refunded"] == cancelled.refund == 6000 // 3 + (700 - 700 * 2 // 3)
    await is_clean(world)


async def test_a_warehouse_that_has_too_few_is_not_asked():
    world = given(order(destination="US", lines=(("CHERRY", 5, 5000),), backorder=True), stock={"CHERRY": {"SEA1": 2}})[0]
    arrives(world, units=2)
    assert not of(world, "BackorderFilled")
    arrives(world, units=1)
    assert of(world, "BackorderFilled") and world.state("orders").status == "completed"
    await is_clean(world)


async def test_the_rest_can_be_cancelled_before_it_comes():
    world = given(order(destination="US", lines=(("CHERRY", 3, 6000), ("TOY", 2, 1000)), backorder=True), stock={
        "CHERRY": {"SEA1": 9}})[0]
    world.send(ask.CancelOrder(order_id="A1", lines=[LineQuantity(line_no=2, quantity=1)]))
    world.run()
    world.send(ask.CancelOrder(order_id="A1", lines=[LineQuantity(line_no=2, quantity=1)]))
    world.run()
    assert world.state("shipping").parcels[REST].status == "cancelled" and world.state("orders").status == "completed"
    assert not [name for name in world.state("shipping").timers if name.startswith("stock")]
    await is_clean(world)


async def test_where_nothing_is_there_the_order_waits_whole():
    world = given(order(destination="US", lines=(("CHERRY", 3, 6000),), backorder=True), stock={})[0]
    assert world.types("shipping") == ["Backordered"]
    arrives(world, units=2)
    assert [p.warehouse for p in of(world, "ParcelsAllocated")[0].parcels] == ["PVD1", ""]
    arrives(world)
    assert world.state("orders").status == "completed"
    await is_clean(world)


async def test_an_auditor_notices_goods_that_were_packed_and_never_came():
    world = arrives(started())
    history = History([world])
    history.drop("shipping.shipment.v1", "BackorderFilled", "A1")
    found = await examine(history)
    assert 15 in {v.rule for v in found.violations}


# -- the promise of what follows --------------------------------------------------------------------------------------------


async def test_the_clock_of_the_rest_stands_until_it_is_there_and_it_is_promised_then():
    world = started("DE", plans=network_plans())
    [stands] = of(world, "PromiseHeld")
    assert (stands.parcel_id, stands.reason) == (REST, "no_stock")
    assert [p.route is not None for p in of(world, "ParcelsAllocated")[0].parcels] == [True, False]
    world.wait(days=2)
    arrives(world, warehouse="SEA1")
    [filled], [resumed] = of(world, "BackorderFilled"), of(world, "PromiseResumed")
    assert (resumed.parcel_id, resumed.reason, resumed.promised_at) == (REST, "no_stock", filled.route.promised_at)
    assert resumed.paused_s == (resumed.at - stands.at).total_seconds() and filled.route.legs[0].departs > resumed.at
    assert filled.route.promised_at > resumed.at > stands.at
    told = next(e for e in of(world, "ParcelDelivered") if e.parcel_id == REST)
    assert told.promised_at == resumed.promised_at and told.kept
    assert world.state("shipping").closed and not world.state("shipping").timers
    await is_clean(world)


async def test_it_is_sent_from_where_the_best_way_begins():
    world = started("GB", plans=network_plans())
    for warehouse in ("SEA1", "PVD1"):  # the larger stock is farther away
        world.send(report.InboundReceived(order_id=f"stock:{warehouse}:CHERRY", warehouse=warehouse, sku="CHERRY",
                                          quantity=9 if warehouse == "PVD1" else 1), "/warehouse")
    world.run()
    world.wait(hours=7)
    assert [e.warehouse for e in of(world, "BackorderFilled")] == ["SEA1"]
    await is_clean(world)


async def test_the_clock_of_what_never_comes_ends_with_it():
    world = started("DE", plans=network_plans())
    world.wait(days=15)
    assert not of(world, "PromiseResumed") and not world.state("shipping").timers
    await is_clean(world)


async def test_it_can_be_late_and_is_told_so():
    outside = Outside()
    usual = outside.on[ship.FulfilmentRequested]
    outside.on[ship.FulfilmentRequested] = lambda e, w: usual(e, w) if e.parcel_id != REST else None
    world = started("DE", plans=network_plans(), outside=outside)
    arrives(world, warehouse="SEA1")
    world.wait(days=6)
    assert [e.parcel_id for e in of(world, "PromiseAtRisk")] == [REST]
    world.send(report.PackedReported(order_id="A1", parcel_id=REST), "/warehouse")
    world.run()
    assert [e.parcel_id for e in of(world, "PromiseBroken")] == [REST]
    await is_clean(world)


async def test_what_waits_for_papers_when_it_comes_goes_on_standing():
    lines = [ask.OrderLine(line_no=1, sku="CHERRY", quantity=3, amount=6000, hs_code="000000")]
    placed = order(destination="DE", lines=(("CHERRY", 3, 6000),), backorder=True).model_copy(update={"lines": lines})
    world = given(placed, stock={"CHERRY": {"SEA1": 2}}, plans=network_plans())[0]
    arrives(world, warehouse="SEA1")
    told = [e for e in (*of(world, "PromiseHeld"), *of(world, "PromisePaused"), *of(world, "PromiseResumed")) if e.parcel_id == REST]
    assert [(type(e).__name__, e.reason) for e in told] == [("PromiseHeld", "no_stock"), ("PromisePaused", "documents_missing"),
                                                            ("PromiseResumed", "no_stock")]
    world.send(ask.SupplyDocuments(order_id="A1", lines=[ask.SuppliedCode(line_no=1, hs_code="0809290000")]))
    world.run()
    assert world.state("orders").status == "completed"
    await is_clean(world)


async def test_an_auditor_notices_a_promise_that_was_made_before_the_goods_came():
    history = History([arrives(started("DE", plans=network_plans()), warehouse="SEA1")])
    history.change("shipping.shipment.v1", "BackorderFilled", "A1", {"ce_time": "2026-12-01T12:00:00Z"})
    found = await examine(history)
    assert "what had to come first is promised from the moment it came" in {v.name for v in found.violations}
