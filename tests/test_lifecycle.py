"""Every path of the lifecycle, given / when / then, over the three pure machines and the partition owner's own code.

Each test says what the outside world does differently; then the goods, the money and the order must agree.
"""

from __future__ import annotations

import json

import pytest

from schemas import orders_intake as ask
from schemas import orders_order as told
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.lifecycle import PAYMENT
from schemas.model import LineQuantity
from schemas.orders_order import OrderCompleted
from schemas.payments_payment import FundsRecovered, ManualPayoutRequested, PaymentHeld, PaymentRefunded
from schemas.payments_provider_result import ProviderAnswered, RecordManualPayout
from services.explorer.simulation import KEY, REGISTERED, START, World, order
from services.orders import machine as orders
from services.payments import machine as payments
from services.runtime.decision import TIMER, Decision, Incoming, Intent, NotYet


class Outside:
    """Everybody outside, doing their job. A test replaces what should go differently: `on[EventType] = function`."""

    def __init__(self):
        self.on = {
            ship.FulfilmentRequested: lambda e, w: w.send(report.PackedReported(**ids(e)), "/warehouse"),
            ship.DocumentsMatched: accepted,
            ship.ParcelPacked: lambda e, w: w.send(
                report.HandedOverReported(**ids(e), carrier="c", tracking_no="T1"), "/carrier"),
            ship.ParcelHandedOver: self.legs,
            ship.ParcelArrived: lambda e, w: w.send(report.PresentedReported(**ids(e)), "/customs"),
            ship.CustomsPresented: lambda e, w: w.send(report.CustomsReleaseReported(**ids(e)), "/customs"),
            ship.CustomsReleased: self.last_mile,
            ship.ParcelDelivered: lambda e, w: w.send(ask.ConfirmReceipt(**ids(e))),
            ship.ParcelReturning: lambda e, w: w.send(report.ReturnedToSenderReported(**ids(e)), "/warehouse"),
            ship.CustomsRefused: lambda e, w: w.send(report.ReturnedToSenderReported(**ids(e)), "/warehouse"),
            ship.ParcelLost: lambda e, w: w.send(report.ClaimPaidReported(**ids(e), amount=e.claim), "/carrier"),
            ship.ReturnAuthorised: lambda e, w: w.send(
                report.ReturnReceivedReported(**ids(e), return_id=e.return_id), "/warehouse"),
            ManualPayoutRequested: lambda e, w: w.send(RecordManualPayout(
                order_id=e.order_id, payout_id=e.payout_id, payment_id=e.payment_id, parcel_id=e.parcel_id, amount=e.amount,
                currency=e.currency, bank_reference="B1"), "/finance"),
        }
        self.fails: set[str] = set()   # kinds of calls that the provider refuses
        self.silent: set[str] = set()  # kinds of calls that it never answers

    def __call__(self, event, world):
        if isinstance(event, tuple):
            self.provider(*event, world)
        elif type(event) in self.on:
            self.on[type(event)](event, world)

    def provider(self, order_id: str, intent: Intent, world: World) -> None:
        if intent.kind in self.silent:
            return
        body, failed = intent.body, intent.kind in self.fails
        world.send(ProviderAnswered(
            order_id=order_id, intent_id=intent.intent_id, payment_id=body["payment_id"], kind=intent.kind,
            outcome="failed" if failed else "succeeded", amount=0 if failed else body["amount"], currency=body["currency"],
            provider_reference=f"R:{intent.intent_id}", reason="refused" if failed else ""), "/provider", f"answer:{intent.intent_id}")

    def legs(self, e, w):
        if e.regime == "domestic":
            self.last_mile(e, w)
        else:
            w.send(report.ExportedReported(**ids(e)), "/carrier")
            w.send(report.ArrivedReported(**ids(e)), "/carrier")

    def last_mile(self, e, w):
        w.send(report.OutForDeliveryReported(**ids(e)), "/carrier")
        w.send(report.DeliveredReported(**ids(e)), "/carrier")


def ids(event) -> dict:
    return {"order_id": event.order_id, "parcel_id": event.parcel_id}


def accepted(event, world, status="120"):
    """Chinese customs has the import list, or says another `status` of it."""
    world.send(report.CarrierScanReported(**ids(event), dialect="ceb622", code=status, at=world.now, reason="as told",
                                          tracking_no=event.import_list.list_no), "/customs/CN", f"{event.import_list.list_no}:{status}")
    if event.import_list.mode == "1210" and status == "120":  # the goods lie there already
        accepted(event, world, "800")


def nothing(event, world):
    """The outside keeps silent."""


def given(placed=None, stock=100, seed=0, doubles=False, outside=None, before=None, plans=None, real_names=False) -> tuple[World, Outside]:
    """Stock for every SKU of the order in one warehouse, then the order; runs until everything is at rest."""
    outside = outside or Outside()
    world = World(outside, seed, plans, real_names)
    placed = placed or order()
    stocks = stock if isinstance(stock, dict) else {line.sku: {"SEA1": stock} for line in placed.lines}
    for sku, warehouses in stocks.items():
        for warehouse, quantity in warehouses.items():
            world.send(report.InboundReceived(order_id=f"stock:{warehouse}:{sku}", warehouse=warehouse, sku=sku,
                                              quantity=quantity), "/warehouse")
    world.run()
    if before:
        before(world)
    for n, command in enumerate(REGISTERED if placed.merchant_id == "split" else ()):
        world.send(command, "/platform", f"split:{n}")
    world.run()
    world.send(placed)
    world.run(doubles=doubles)
    return world, outside


def ends(world: World, status: str, *, held=0, reason: str | None = None, order_id="A1", **accounts) -> None:
    """The order is `status` in all three services, nothing waits anywhere, and the ledger's accounts are as given."""
    assert world.dead == []
    for name, party in world.parties.items():
        entry = party.entries[order_id]
        assert entry.state.closed and not entry.parked and entry.armed is None, (name, entry)
    final = world.state("orders", order_id)
    assert final.status == status
    if reason is not None:
        assert final.reason == reason
    balance = {k: v for k, v in world.balance().items() if v}
    assert balance == {k: v for k, v in (accounts | {"held": held}).items() if v}
    for hold in world.state("payments", order_id).holds.values():
        assert hold.status in PAYMENT.terminal
        assert hold.captured + hold.recovered == hold.held + hold.released + hold.refunded + hold.charged_back
    free_and_open(world)


def free_and_open(world: World) -> None:
    for change in world.stock.changes.values():
        c = {k: change.get(k, 0) for k in ("received", "reserved", "released", "consumed", "restocked", "shrunk")}
        assert c["received"] + c["restocked"] + c["released"] - c["reserved"] >= 0
        assert c["reserved"] - c["released"] - c["consumed"] - c["shrunk"] == 0, "nothing stays reserved at the end"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("destination", ["DE", "CN", "US"])
@pytest.mark.parametrize("parcels", [1, 2])
def test_the_whole_path(destination, parcels, seed):
    lines = (("CHERRY", 2, 5000), ("TOY", 1, 1999))[:parcels]
    stock = {"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}}
    world, _ = given(order(destination=destination, lines=lines), stock, seed, doubles=True)
    total = 5700 if parcels == 1 else 7699
    ends(world, "completed", buyer=-total, released=total)
    assert world.types().count("ParcelDelivered") == parcels
    assert ("CustomsReleased" in world.types()) == (destination != "US")
    assert world.types().count("PaymentHeld") == (parcels if destination == "CN" else 1)


def test_refused_at_intake():
    world, _ = given(order(total=1))
    assert world.types("orders") == ["OrderRejected"]
    assert world.state("orders").reason == "total_mismatch"


def test_no_stock_moves_no_money():
    world, _ = given(stock=0 or {})
    assert world.state("orders").reason == "no_stock" and world.balance() == {}
    assert "PaymentAuthorised" not in world.types()


def test_part_of_the_stock_ships_what_is_there():
    world, _ = given(order(lines=(("CHERRY", 4, 4000),), freight=100), 3)
    ends(world, "completed", buyer=-3075, released=3075)


def test_part_of_the_stock_waits_and_goes_on():
    world, outside = given(order(on_shortage="wait"), 1)
    assert "Backordered" in world.types() and world.balance() == {}
    world.send(report.InboundReceived(order_id="stock:SEA1:CHERRY", warehouse="SEA1", sku="CHERRY", quantity=5), "/warehouse")
    world.run()
    world.wait(hours=7)
    ends(world, "completed", buyer=-5700, released=5700)


def test_waits_for_stock_in_vain():
    world, _ = given(order(on_shortage="wait"), 1)
    world.wait(days=15)
    assert world.state("orders").reason == "no_stock" and world.balance() == {}


def test_payment_declined():
    outside = Outside()
    outside.fails = {"authorise"}
    world, _ = given(outside=outside)
    ends(world, "cancelled", reason="payment_declined")


def test_reservation_expires_and_the_late_authorisation_is_voided():
    outside = Outside()
    outside.silent = {"authorise"}
    world, _ = given(outside=outside)
    world.wait(hours=25)
    assert world.state("shipping").parcels["A1-P1"].reason == "reservation_expired"
    outside.silent.clear()
    outside.provider("A1", Intent("A1-Y1.authorise.1", "authorise", {"payment_id": "A1-Y1", "amount": 5700, "currency": "USD"}), world)
    world.run()
    ends(world, "cancelled", reason="reservation_expired")
    assert "PaymentVoided" in world.types()


def test_authorisation_expires_when_papers_are_missing():
    lines = [ask.OrderLine(line_no=1, sku="CHERRY", quantity=1, amount=5000, hs_code="000000")]
    world, _ = given(order(lines=(("CHERRY", 1, 5000),), freight=0).model_copy(update={"lines": lines}))
    world.wait(days=8)
    ends(world, "cancelled", reason="authorisation_expired")


@pytest.mark.parametrize("when", [ship.ParcelsAllocated, PaymentHeld, ship.FulfilmentRequested, ship.ParcelPacked])
@pytest.mark.parametrize("destination", ["DE", "CN"])
@pytest.mark.parametrize("seed", range(4))
def test_cancelled_before_hand_over(when, destination, seed):
    outside = Outside()
    outside.on[ship.ParcelPacked] = nothing
    if when is not ship.ParcelPacked:
        outside.on[ship.FulfilmentRequested] = nothing
    outside.on[when] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    world, _ = given(order(destination=destination), outside=outside, seed=seed)
    captured = world.balance().get("buyer", 0)
    ends(world, "cancelled", reason="cancelled", buyer=captured, refunded=-captured)


@pytest.mark.parametrize("when", [ship.ParcelsAllocated, PaymentHeld])
def test_one_line_cancelled(when):
    outside = Outside()
    cancel = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id, lines=[LineQuantity(line_no=1, quantity=1)]))
    outside.on[when] = cancel
    outside.on[ship.FulfilmentRequested] = nothing
    world, _ = given(outside=outside)
    world.send(report.PackedReported(order_id="A1", parcel_id="A1-P1"), "/warehouse")
    world.run()
    captured = -world.balance()["buyer"]
    ends(world, "completed", buyer=-captured, released=3200, refunded=captured - 3200)


@pytest.mark.parametrize("accepted", [True, False])
def test_cancelled_after_hand_over_is_a_request(accepted):
    outside = Outside()
    outside.on[ship.ParcelHandedOver] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))

    def answer(e, w):
        if accepted:
            w.send(report.InterceptAccepted(**ids(e)), "/carrier")
        else:
            w.send(report.InterceptRefused(**ids(e), reason="too late"), "/carrier")
            w.send(report.ExportedReported(**ids(e)), "/carrier")
            w.send(report.ArrivedReported(**ids(e)), "/carrier")
    outside.on[ship.InterceptRequested] = answer
    world, _ = given(outside=outside)
    if accepted:
        ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")
    else:
        assert "CancellationDeclined" in world.types()
        ends(world, "completed", buyer=-5700, released=5700)


def test_short_pick_refunds_the_missing_units():
    outside = Outside()

    def short(e, w):
        w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = short
    world, _ = given(outside=outside)
    ends(world, "completed", buyer=-5700, refunded=2500, released=3200)


def test_a_short_pick_of_what_the_buyer_has_cancelled_meanwhile_changes_nothing():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(ask.CancelOrder(
        order_id=e.order_id, lines=[LineQuantity(line_no=1, quantity=1)], reason="second thoughts"))

    def short(e, w):
        w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.ParcelLinesCancelled] = short
    world, _ = given(order(lines=(("CHERRY", 1, 2500), ("TOY", 1, 2500))), outside=outside)
    ends(world, "completed", buyer=-5700, refunded=2500, released=3200)
    assert "ParcelShortPicked" not in world.types() and not world.dead


@pytest.mark.parametrize("whole", (False, True), ids=("a line", "everything"))
def test_a_short_pick_of_what_the_buyer_has_cancelled_meanwhile_is_taken_out_of_what_is_free(whole):
    """The unit was released when the buyer cancelled it; it is not on the shelf all the same, and must not be sold again."""
    outside = Outside()
    lines = None if whole else [LineQuantity(line_no=1, quantity=1)]
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id, lines=lines))

    def short(e, w):
        for n in (1, 2):  # told twice, it is still one unit that is missing
            w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse", f"short-{n}")
    outside.on[ship.ParcelCancelled if whole else ship.ParcelLinesCancelled] = short
    world, _ = given(order(lines=(("CHERRY", 1, 2500), ("TOY", 1, 2500))), outside=outside, stock=1)
    adjusted = [json.loads(e.value) for e in world.events if e.type == "InventoryAdjusted"]
    assert [(e["sku"], e["quantity"]) for e in adjusted] == [("CHERRY", 1)]
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 0} and not world.dead


def test_the_warehouse_holds_a_parcel_up_then_packs_it():
    outside = Outside()

    def hold(e, w):
        w.send(report.PackingResumedReported(**ids(e)), "/warehouse")  # too early: it waits for its hold
        w.send(report.PackingHeldReported(**ids(e), reason="no carton"), "/warehouse")
    outside.on[ship.FulfilmentRequested] = hold
    outside.on[ship.PackingResumed] = lambda e, w: w.send(report.PackedReported(**ids(e)), "/warehouse")
    world, _ = given(outside=outside)
    assert world.types("shipping")[3:7] == ["FulfilmentRequested", "PackingHeld", "PackingResumed", "ParcelPacked"]
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_parcel_that_is_held_up_for_five_days_is_cancelled_and_refunded():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(
        report.PackingHeldReported(**ids(e), reason="no carton"), "/warehouse")
    world, _ = given(outside=outside)
    world.wait(days=4)
    assert world.state("shipping").parcels["A1-P1"].status == "on_hold"
    world.wait(days=2)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="hold_expired")
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 100}


def test_a_parcel_that_is_held_up_can_still_be_cancelled_or_packed():
    for then in ("cancel", "pack"):
        outside = Outside()
        outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(
            report.PackingHeldReported(**ids(e), reason="no carton"), "/warehouse")
        outside.on[ship.PackingHeld] = lambda e, w, then=then: w.send(
            report.PackedReported(**ids(e)) if then == "pack" else ask.CancelOrder(order_id=e.order_id))
        world, _ = given(outside=outside)
        assert not world.state("shipping").timers
        ends(world, "completed" if then == "pack" else "cancelled", buyer=-5700,
             **({"released": 5700} if then == "pack" else {"refunded": 5700, "reason": "cancelled"}))


def test_a_parcel_that_the_carrier_destroys_is_refunded():
    outside = Outside()
    outside.on[ship.ParcelHandedOver] = lambda e, w: w.send(report.DestroyedReported(**ids(e)), "/carrier")
    world, _ = given(outside=outside)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="destroyed")


def test_packing_rejected():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(report.PackingRejected(**ids(e), reason="broken"), "/warehouse")
    world, _ = given(outside=outside)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="packing_rejected")


def test_customs_holds_then_releases():
    outside = Outside()

    def hold(e, w):
        w.send(report.CustomsHoldReported(**ids(e), reason="inspection"), "/customs")
        w.send(report.CustomsReleaseReported(**ids(e)), "/customs")
    outside.on[ship.CustomsPresented] = hold
    world, _ = given(outside=outside)
    assert "CustomsHeld" in world.types()
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("by_deadline", [True, False])
def test_customs_refuses(by_deadline):
    outside = Outside()
    outside.on[ship.CustomsPresented] = nothing if by_deadline else (
        lambda e, w: w.send(report.CustomsRefusalReported(**ids(e), reason="forbidden"), "/customs"))
    world, _ = given(outside=outside)
    world.wait(days=6)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="customs_refused")


def failing(e, w):
    for attempt in (1, 2, 3):
        w.send(report.OutForDeliveryReported(**ids(e)), "/carrier")
        w.send(report.DeliveryFailureReported(**ids(e), attempt=attempt, reason="absent"), "/carrier")


@pytest.mark.parametrize("collected", [True, False])
def test_delivery_fails_three_times(collected):
    outside = Outside()
    outside.on[ship.CustomsReleased] = failing
    if collected:
        outside.on[ship.ParcelAtPickup] = lambda e, w: w.send(report.DeliveredReported(**ids(e)), "/carrier")
    world, _ = given(outside=outside)
    world.wait(days=8)
    if collected:
        ends(world, "completed", buyer=-5700, released=5700)
    else:
        ends(world, "cancelled", buyer=-5700, refunded=5700, reason="not_collected")


@pytest.mark.parametrize("silent", [True, False])
def test_lost_parcel_is_refunded_and_recovered_from_the_carrier(silent):
    outside = Outside()
    outside.on[ship.ParcelHandedOver] = nothing if silent else (lambda e, w: w.send(report.LossReported(**ids(e)), "/carrier"))
    world, _ = given(outside=outside)
    world.wait(days=11)
    ends(world, "cancelled", buyer=-5700, refunded=5700, recovered=-5000, released=5000)


def test_never_confirmed_is_settled_by_the_timer():
    outside = Outside()
    outside.on[ship.ParcelDelivered] = nothing
    world, _ = given(outside=outside)
    assert world.balance()["held"] == 5700
    world.wait(days=11)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_returned_before_settlement(whole, seed):
    outside = Outside()
    lines = None if whole else [LineQuantity(line_no=1, quantity=1)]
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(ask.RequestReturn(order_id=e.order_id, lines=lines))
    world, _ = given(outside=outside, seed=seed)
    if whole:
        ends(world, "cancelled", buyer=-5700, refunded=5700)
    else:
        world.wait(days=11)
        ends(world, "completed", buyer=-5700, refunded=2500, released=3200)


def test_return_that_never_comes_expires():
    outside = Outside()
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(ask.RequestReturn(order_id=e.order_id))
    outside.on[ship.ReturnAuthorised] = nothing
    world, _ = given(outside=outside)
    world.wait(days=60)
    assert "ReturnExpired" in world.types()
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_returned_after_settlement_claws_back(whole, seed):
    outside = Outside()
    lines = None if whole else [LineQuantity(line_no=1, quantity=1)]
    done = []

    def once(e, w):
        if not done:
            done.append(1)
            w.send(ask.RequestReturn(order_id=e.order_id, lines=lines))
    outside.on[OrderCompleted] = once
    world, _ = given(outside=outside, seed=seed)
    back = 5700 if whole else 2500
    ends(world, "cancelled" if whole else "completed", buyer=-5700, released=5700, recovered=-back, refunded=back)


def test_return_after_the_window_is_refused():
    world, _ = given()
    world.wait(days=15)
    world.send(ask.RequestReturn(order_id="A1"))
    world.run()
    assert world.types()[-1] == "CommandRefused"
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("amount, lines, back", [(100, None, 100), (999_999, None, 5700),
                                                 (None, [LineQuantity(line_no=1, quantity=1)], 2500), (None, None, 5700)])
def test_refund_the_merchant_grants(amount, lines, back):
    world, _ = given()
    world.send(ask.GrantRefund(order_id="A1", amount=amount, lines=lines))
    world.run()
    ends(world, "cancelled" if back == 5700 else "completed", buyer=-5700, released=5700, recovered=-back, refunded=back)


@pytest.mark.parametrize("outcome", ["won", "lost"])
@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_dispute(outcome, settled, seed):
    outside = Outside()
    opened = []

    def dispute(e, w):
        if not opened:
            opened.append(1)
            w.send(ask.OpenDispute(order_id=e.order_id, parcel_id="A1-P1"))
    if settled:
        outside.on[OrderCompleted] = dispute
    else:
        outside.on[ship.ParcelDelivered] = dispute
    world, _ = given(outside=outside, seed=seed)
    if not settled:
        assert world.balance()["held"] == 5700
        world.wait(days=20)
        assert world.balance()["held"] == 5700, "the dispute pauses the parcel's timer"
    world.send(ask.ResolveDispute(order_id="A1", parcel_id="A1-P1", outcome=outcome))
    world.run()
    world.wait(days=11)
    if outcome == "won":
        ends(world, "completed", buyer=-5700, released=5700)
    elif settled:
        ends(world, "completed", buyer=-5700, released=5700, recovered=-5700, charged_back=5700)
    else:
        ends(world, "completed", buyer=-5700, charged_back=5700)


def test_refund_that_fails_is_paid_by_hand():
    outside = Outside()
    outside.fails = {"refund"}
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    world, _ = given(outside=outside)
    assert world.types().count("RefundFailed") == 1
    ends(world, "cancelled", buyer=-5700, refunded=5700)


def test_a_release_that_fails_is_tried_again_later():
    outside = Outside()
    outside.fails = {"release"}
    world, _ = given(outside=outside)
    assert world.balance()["held"] == 5700
    outside.fails.clear()
    world.wait(hours=2)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("seed", range(30))
def test_any_interleaving_with_repetitions_ends_the_same(seed):
    """Two parcels, one line cancelled at some moment, one parcel returned: whatever order the events arrive in."""
    outside = Outside()
    outside.on[ship.ParcelsAllocated] = lambda e, w: w.send(
        ask.CancelOrder(order_id=e.order_id, lines=[LineQuantity(line_no=1, quantity=1)]))
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(
        ask.RequestReturn(**ids(e)) if e.parcel_id.endswith("P2") else ask.ConfirmReceipt(**ids(e)))
    lines = (("CHERRY", 2, 5000), ("TOY", 1, 1999))
    world, _ = given(order(lines=lines), {"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}}, seed, doubles=True, outside=outside)
    world.wait(days=15)
    balance = world.balance()
    assert balance["held"] == 0 and -balance["buyer"] == balance["released"] + balance["refunded"]
    for party in world.parties.values():
        assert party.entries["A1"].state.closed and not party.entries["A1"].parked
    assert world.state("orders").status == "completed" and world.dead == []


@pytest.mark.parametrize("command", [
    ask.ConfirmReceipt(order_id="A1", parcel_id="P1"), ask.RequestReturn(order_id="A1"),
    ask.RequestReturn(order_id="A1", parcel_id="P1"), ask.GrantRefund(order_id="A1", amount=1),
    ask.OpenDispute(order_id="A1", parcel_id="P1")])
@pytest.mark.parametrize("status, money", [("allocated", "open"), ("authorised", "authorised")])
def test_orders_may_hear_of_the_delivery_before_the_money(command, status, money):
    """Two topics: after a restart one of them may be far ahead. What the buyer asks for waits, it is not dropped."""
    placed = orders.Order("A1", status, parcels={"P1": orders.Parcel(goods="delivered", money=money, delivered_at=START)})
    incoming = Incoming(type(command).__name__, "c1", "/storefront", 0, START, command)
    assert orders.decide(placed, orders.Document({1: 2}), incoming, KEY, START) == NotYet("PaymentHeld")


# -- found by `tradewind explore` ---------------------------------------------------------------------------------------


def _tell(account: payments.Account, *events) -> list:
    """What payments publishes when it hears these events one after the other; the account changes."""
    out = []
    for n, event in enumerate(events):
        incoming = Incoming(type(event).__name__, f"e{n}", "shipping", n + 1, START, event)
        answer = payments.decide(account, None, incoming, None, START)
        assert isinstance(answer, Decision), answer
        out += answer.events
        for name in payments.Account.__slots__:
            setattr(account, name, getattr(answer.state, name))
    return out


def _paid(**hold) -> payments.Account:
    return payments.Account("A1", "open", currency="USD", payments={"A1-Y1": payments.Payment(["A1-P1"], "held", 5700)},
                            holds={"A1-P1": payments.Hold(5700, "held", 5700, 5700, **hold)})


ON = {"order_id": "A1", "parcel_id": "A1-P1"}


def test_goods_of_a_return_that_had_expired_are_paid_back_all_the_same():
    """Orders gave the return up while its goods were being booked in: payments waited for a request that had been."""
    account = _paid()
    _tell(account, told.ReturnRequested(**ON, return_id="r1"), told.ReturnExpired(**ON, return_id="r1"),
          ship.ReturnReceived(**ON, return_id="r1", refund=5700, lines=[]))
    assert account.payments["A1-Y1"].intent_kind == "refund" and account.payments["A1-Y1"].intent_amount == 5700


def test_money_that_goes_back_after_the_end_opens_the_order_again():
    done = orders.Order("A1", "completed", True, parcels={"A1-P1": orders.Parcel("delivered", "settled", START)})
    recovered = FundsRecovered(order_id="A1", payment_id="A1-Y1", parcel_id="A1-P1", currency="USD", amount=5700,
                               recovered_from="merchant")
    again = orders.decide(done, None, Incoming("FundsRecovered", "e", "payments", 5, START, recovered), KEY, START).state
    assert (again.status, again.closed) == ("after_sale", False)
    refunded = PaymentRefunded(order_id="A1", payment_id="A1-Y1", parcel_id="A1-P1", currency="USD", amount=5700,
                               reason="returned", ref="r1", via="provider")
    end = orders.decide(again, None, Incoming("PaymentRefunded", "e", "payments", 6, START, refunded), KEY, START)
    assert [type(e).__name__ for e in end.events] == ["OrderCancelled"] and end.state.closed


def test_an_expired_return_does_not_stop_the_timer_of_the_next_one():
    parcel = orders.Parcel("delivered", "held", START, pending=["r2"], returning="r2")
    open_ = orders.Order("A1", "fulfilling", parcels={"A1-P1": parcel}, timers={"return:A1-P1": START})
    received = Incoming("ReturnReceived", "e", "shipping", 9, START, ship.ReturnReceived(**ON, return_id="r1", refund=1, lines=[]))
    assert "return:A1-P1" in orders.decide(open_, None, received, KEY, START).state.timers


def test_a_return_timer_gives_up_no_grant():
    """The goods of r1 are paid back, a grant is on its way: the old timer must not take one for the other."""
    parcel = orders.Parcel("delivered", "held", START, pending=["g1"], returning="r1")
    open_ = orders.Order("A1", "fulfilling", parcels={"A1-P1": parcel}, timers={"return:A1-P1": START})
    fired = orders.decide(open_, None, Incoming(TIMER, "t", "timer", 0, START, None), KEY, START)
    assert fired.events == [] and fired.state.parcels["A1-P1"].pending == ["g1"]


def test_a_claim_for_lost_goods_whose_money_was_charged_back_goes_to_the_merchant():
    account = _paid(frozen=["d1"])
    _tell(account, told.DisputeResolved(**ON, dispute_id="d1", outcome="lost"))
    payment = account.payments["A1-Y1"]
    answered = ProviderAnswered(order_id="A1", intent_id=payment.intent, payment_id="A1-Y1", kind="refund", outcome="succeeded",
                                amount=5700, currency="USD")
    assert [type(e).__name__ for e in _tell(account, answered)] == ["PaymentChargedBack"]
    assert [type(e).__name__ for e in _tell(account, ship.ClaimPaid(**ON, amount=5000))] == ["FundsRecovered"]


@pytest.mark.parametrize("goods", ["open", "lost"])
def test_a_dispute_lost_after_the_buyer_has_all_back_ends_the_order(goods):
    """The parcel was lost and refunded on the way: payments has nothing to charge back, and nobody may wait for it."""
    parcel = orders.Parcel(goods, "settled", dispute="d1", repaid=True, reason="no_scan")
    open_ = orders.Order("A1", "fulfilling", parcels={"A1-P1": parcel})
    lost = Incoming("ResolveDispute", "c", "/storefront", 0, START, ask.ResolveDispute(**ON, outcome="lost"))
    after = orders.decide(open_, None, lost, KEY, START)
    assert after.state.parcels["A1-P1"].pending == []
    assert after.state.closed == (goods == "lost")


def test_a_refund_of_everything_answers_a_lost_dispute():
    parcel = orders.Parcel("lost", "held", pending=["d1"], judged="d1", reason="no_scan")
    open_ = orders.Order("A1", "fulfilling", parcels={"A1-P1": parcel})
    refunded = PaymentRefunded(order_id="A1", payment_id="A1-Y1", parcel_id="A1-P1", currency="USD", amount=5700, reason="lost",
                               ref="", via="provider")
    assert orders.decide(open_, None, Incoming("PaymentRefunded", "e", "payments", 6, START, refunded), KEY, START).state.closed
