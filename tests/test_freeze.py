"""A merchant's freeze: his open orders stand still, go on when it is lifted, and are undone when it is upheld."""

from __future__ import annotations

import pytest

from schemas import merchants as m
from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from services.explorer.simulation import World, order
from tests.test_lifecycle import Outside, ends, given, ids, nothing

KEY = "merchant:m1"
OFFICER = {"order_id": KEY, "decided_by": "officer"}


def freeze(world: World) -> None:
    world.send(m.FreezeMerchant(reason="counterfeit", **OFFICER), "/platform")
    world.run()


def decide(world: World, outcome: str) -> None:
    world.send(m.DecideAppeal(outcome=outcome, **OFFICER), "/platform")
    world.run()


class Until(Outside):
    """The world stops where an event of this type would be answered; `go_on` answers it."""

    def __init__(self, stop: str, confirms: bool = True):
        super().__init__()
        self.stop, self.kept = stop, []
        self.on[ship.InterceptRequested] = lambda e, w: w.send(report.InterceptAccepted(**ids(e)), "/carrier")
        if not confirms:
            self.on[ship.ParcelDelivered] = nothing

    def __call__(self, event, world):
        name = event[1].kind if isinstance(event, tuple) else type(event).__name__
        if name == self.stop:
            self.kept.append(event)
        else:
            super().__call__(event, world)

    def go_on(self, world):
        self.stop, kept, self.kept = "", self.kept, []
        for event in kept:
            super().__call__(event, world)
        world.run()


def test_money_and_goods_stand_still_and_go_on_when_the_freeze_is_lifted():
    world, outside = given(order(), outside=Until("authorise"))
    freeze(world)
    outside.go_on(world)
    assert world.state("orders").stops == world.state("payments").stops == world.state("shipping").stops == ["merchant_frozen"]
    assert "PaymentAuthorised" in world.types(), "the provider's answer is a fact"
    assert not {"PaymentHeld", "DocumentsReady", "FulfilmentRequested"} & set(world.types())
    world.wait(days=5)
    assert "OrderCancelled" not in world.types(), "the reservation's day stands still"
    decide(world, "lifted")
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)
    assert [t for t in world.types("orders") if t.startswith(("OrderH", "OrderRes"))] == ["OrderHeld", "OrderResumed"]


def test_what_is_at_the_warehouse_is_not_handed_over():
    world, outside = given(order(), outside=Until("ParcelPacked"))
    freeze(world)
    assert world.types("shipping")[-1] == "ParcelStopped"
    decide(world, "lifted")
    assert world.types("shipping")[-1] == "ParcelCleared"
    outside.go_on(world)
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


def test_goods_that_left_all_the_same_are_told_as_such():
    world, outside = given(order(), outside=Until("ParcelPacked", confirms=False))
    freeze(world)
    outside.go_on(world)
    handed = next(e for e in world.events if e.type == "ParcelHandedOver")
    assert b'"despite":["merchant_frozen"]' in handed.value
    assert "ParcelDelivered" in world.types() and "PaymentSettled" not in world.types()
    world.wait(days=60)
    assert "ReceiptConfirmed" not in world.types(), "the buyer's ten days stand still"
    decide(world, "lifted")
    world.wait(days=9, hours=23)
    assert "ReceiptConfirmed" not in world.types(), "and begin anew only as far as they had not run"
    world.wait(days=1)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("stop", ["authorise", "capture", "FulfilmentRequested", "ParcelPacked", "ParcelHandedOver"])
@pytest.mark.parametrize("destination", ["DE", "CN"])
def test_upheld_everything_is_undone(stop, destination):
    world, outside = given(order(destination=destination), outside=Until(stop))
    freeze(world)
    decide(world, "upheld")
    outside.go_on(world)
    world.wait(days=90)
    state = world.state("orders")
    assert state.status == "cancelled" and state.closed and state.reason in ("merchant_closed", "cancelled"), state
    assert world.balance().get("released", 0) == world.balance().get("held", 0) == 0


def test_a_confirmation_does_not_release_escrow_and_upheld_gives_it_back():
    world, _ = given(order(), outside=Until("", confirms=False))
    freeze(world)
    world.send(ask.ConfirmReceipt(order_id="A1", parcel_id="A1-P1"))
    world.run()
    assert "ReceiptConfirmed" in world.types() and "PaymentSettled" not in world.types()
    decide(world, "upheld")
    world.wait(days=60)
    ends(world, "cancelled", reason="merchant_closed", buyer=-5700, refunded=5700)


def test_orders_of_a_frozen_merchant_are_refused_by_name_and_taken_again_afterwards():
    world, _ = given(order())
    freeze(world)
    world.send(order("A2"))
    world.run()
    assert world.state("orders", "A2").reason == "merchant_frozen"
    decide(world, "lifted")
    world.send(order("A3"))
    world.run()
    world.wait(days=20)
    ends(world, "completed", order_id="A3", buyer=-11400, released=11400)


def test_onboarding_and_catalogue():
    world = World(lambda *_: None)
    apply = m.RegisterMerchant(order_id=KEY, legal_name="Mei GmbH", country="DE", registration_no="HRB 1", vat_no="136695976",
                               payout_currency="USD", payout_token="acct")
    world.send(apply.model_copy(update={"vat_no": "136695978"}), "/platform")
    world.send(apply, "/platform")
    world.send(order("A0"))
    world.send(m.ApproveMerchant(**OFFICER), "/platform")
    world.send(m.UpdateCatalogue(order_id=KEY, items=[m.CatalogueItem(sku="CHERRY", hs_code="080929", origin="US")]))
    world.run()
    assert world.types("orders") == ["CommandRefused", "MerchantRegistered", "OrderRejected", "MerchantApproved",
                                     "CatalogueUpdated"]
    line = ask.OrderLine(line_no=1, sku="CHERRY", quantity=2, amount=5000, hs_code="950300")
    world.send(order("A1", lines=(("TOY", 1, 5000),)))
    world.send(order("A2").model_copy(update={"lines": [line], "total": 5700}))
    world.send(order("A3"))
    world.run()
    assert [world.state("orders", f"A{n}").reason for n in range(4)] == [
        "merchant_applied", "not_in_catalogue", "catalogue_mismatch", "no_stock"]
    assert world.state("orders", KEY).status == "active" and not world.dead


def test_a_decision_that_does_not_fit_is_refused_by_name():
    world = World(lambda *_: None)
    decide(world, "lifted")
    assert b'"reason":"merchant_new"' in world.events[-1].value
    world.send(m.FreezeMerchant(order_id="A9", reason="fraud", decided_by="officer"), "/platform")
    world.run()
    assert len(world.dead) == 1, "a merchant's command under an order's key"
