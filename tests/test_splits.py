"""A warehouse puts some units of a parcel into one of their own: two parcels, together what the one was, each with its own end."""

from __future__ import annotations

import json

import pytest

from schemas import merchants
from schemas import orders_intake as ask
from schemas import orders_order as said
from schemas import payments_payment as paid
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.model import LineQuantity
from schemas.payments_provider_result import DisputeTold
from services.cli import parcel_facts
from services.explorer.simulation import order
from services.orders.order import unknown_parcel
from services.runtime.decision import Incoming, NotYet
from services.shipping.allocation import Content, Line
from services.shipping.machine import STATE
from services.shipping.plans import Plans
from services.shipping.shipment import Aside, Parcel, Shipment, Work
from services.shipping.splitting import divided
from tests.test_lifecycle import Outside, ends, given, ids, nothing

P1, P2 = "A1-P1", "A1-P1.2"
TWO_LINES = (("CHERRY", 3, 5000), ("PLUM", 1, 1999))


def units(*lines: tuple[int, int]) -> list[LineQuantity]:
    return [LineQuantity(line_no=line_no, quantity=quantity) for line_no, quantity in lines]


def splits(*lines: tuple[int, int], then=None) -> Outside:
    """The warehouse puts these units into another parcel, then packs both; or does `then` with the first."""
    outside = Outside()

    def pack(e, w):
        if e.parcel_id == P1:
            w.send(report.SplitReported(**ids(e), lines=units(*lines)), "/warehouse")
        if e.parcel_id != P1 or then is None:
            w.send(report.PackedReported(**ids(e)), "/warehouse")
        else:
            then(e, w)
    outside.on[ship.FulfilmentRequested] = pack
    return outside


def told(world, name: str) -> list[dict]:
    return [json.loads(e.value) for e in world.events if e.type == name]


# -- both go their way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("destination", ["US", "DE"])
@pytest.mark.parametrize("seed", range(4))
def test_both_parcels_go_their_way_and_are_paid_for(destination, seed):
    world, _ = given(order(destination=destination, lines=TWO_LINES), outside=splits((1, 1), (2, 1)), seed=seed, doubles=True)
    ends(world, "completed", buyer=-7699, released=7699)
    [split] = told(world, "ParcelSplit")
    part = split["part"]
    assert (split["parcel_id"], part["parcel_id"]) == (P1, P2)
    assert [(l["line_no"], l["quantity"], l["amount"]) for l in split["lines"]] == [(1, 2, 3334)]
    assert [(l["line_no"], l["quantity"], l["amount"]) for l in part["lines"]] == [(1, 1, 1666), (2, 1, 1999)]
    assert split["amount"] + part["amount"] == 7699 and split["freight"] + part["freight"] == 700
    assert part["freight"] == 700 * 3665 // 6999
    assert [e["parcel_id"] for e in told(world, "ParcelDelivered")] == [P1, P2] or seed
    assert sorted((e["parcel_id"], e["amount"]) for e in told(world, "PaymentSettled")) == [(P1, split["amount"]), (P2, part["amount"])]
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 97} and dict(world.stock.available("PLUM")) == {"SEA1": 99}
    numbers = {(e["sscc"], e["waybill_no"]) for e in told(world, "FulfilmentRequested")}
    assert len(numbers) == 2 and (part["sscc"], part["waybill_no"]) in numbers


def test_the_ledger_moves_its_escrow_and_the_provider_hears_nothing():
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=splits((2, 1)))
    [moved] = told(world, "PaymentDivided")
    assert moved["of"] == P1 and moved["amount"] == told(world, "ParcelSplit")[0]["part"]["amount"]
    assert len(told(world, "PaymentHeld")) == 1
    hold = world.state("payments").holds
    assert (hold[P1].captured, hold[P2].captured) == (7699 - moved["amount"], moved["amount"])


def test_a_part_is_split_again_and_each_gets_a_number_of_its_own():
    outside = Outside()

    def pack(e, w):
        if sum(line.quantity for line in e.lines) > 1:
            w.send(report.SplitReported(**ids(e), lines=units((1, sum(line.quantity for line in e.lines) - 1))), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = pack
    world, _ = given(order(destination="US", lines=(("CHERRY", 4, 1001),)), outside=outside)
    assert list(world.state("shipping").parcels) == [P1, P2, "A1-P1.3", "A1-P1.4"]
    ends(world, "completed", buyer=-1701, released=1701)


def test_one_line_is_ready_and_another_is_not():
    """The first is held up, what is ready leaves it and is on its way; later the rest is cancelled, and paid back alone."""
    outside = splits((2, 1))
    ready = outside.on[ship.FulfilmentRequested]

    def hold(e, w):
        if e.parcel_id == P1:
            w.send(report.PackingHeldReported(**ids(e), reason="no cherries picked yet"), "/warehouse")
            w.send(report.SplitReported(**ids(e), lines=units((2, 1))), "/warehouse")
        else:
            ready(e, w)
    outside.on[ship.FulfilmentRequested] = hold
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert world.state("shipping").parcels[P1].status == "on_hold" and world.state("shipping").parcels[P2].status == "delivered"
    world.wait(hours=24 * 5 + 1)
    part = told(world, "ParcelSplit")[0]["part"]["amount"]
    ends(world, "completed", buyer=-7699, refunded=7699 - part, released=part)


def test_each_is_returned_disputed_lost_and_claimed_by_itself():
    outside = splits((2, 1))
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(
        ask.RequestReturn(**ids(e)) if e.parcel_id == P2 else ask.ConfirmReceipt(**ids(e)))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    split = told(world, "ParcelSplit")[0]
    ends(world, "completed", buyer=-7699, refunded=split["part"]["amount"], released=split["amount"])

    outside = splits((2, 1))
    outside.on[ship.ParcelHandedOver] = lambda e, w: (
        w.send(report.LossReported(**ids(e)), "/carrier") if e.parcel_id == P2 else outside.legs(e, w))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert [e["claim"] for e in told(world, "ParcelLost")] == [1999]
    ends(world, "completed", buyer=-7699, refunded=split["part"]["amount"], released=split["amount"] + 1999, recovered=-1999)


def test_what_is_cancelled_afterwards_is_cancelled_in_both():
    outside = splits((2, 1), then=nothing)
    outside.on[ship.ParcelSplit] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    outside.on[ship.ParcelPacked] = nothing
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert sorted(e["parcel_id"] for e in told(world, "ParcelCancelled")) == [P1, P2]
    ends(world, "cancelled", buyer=-7699, refunded=7699)
    assert dict(world.stock.available("PLUM")) == {"SEA1": 100}


# -- what cannot be split -----------------------------------------------------------------------------------------------


def refused(lines, reason: str, placed=None, **more) -> None:
    world, _ = given(placed or order(destination="US", lines=TWO_LINES), outside=splits(*lines), **more)
    [no] = told(world, "SplitRefused")
    assert no["reason"] == reason and no["detail"]
    assert not told(world, "ParcelSplit") and list(world.state("shipping").parcels) == [P1]
    captured = world.balance()["buyer"]
    ends(world, "completed", buyer=captured, released=-captured)


def test_what_cannot_be_split_is_refused_by_name():
    refused([(1, 4)], "too_many")
    refused([(1, 1), (1, 3)], "too_many")
    refused([(7, 1)], "too_many")
    refused([(1, 3), (2, 1)], "nothing_left")
    refused([(2, 1)], "worthless", order(destination="US", lines=(("CHERRY", 3, 5000), ("CARD", 1, 0)), freight=0))
    refused([(1, 3)], "worthless", order(destination="US", lines=(("CHERRY", 3, 5000), ("CARD", 1, 0)), freight=0))


def test_into_china_a_parcel_stays_one():
    outside = splits((1, 1))
    world, _ = given(order(destination="CN", lines=TWO_LINES), outside=outside)
    assert [e["reason"] for e in told(world, "SplitRefused")] == ["one_list"]
    ends(world, "completed", buyer=-7699, released=7699)


def test_too_late_is_stale():
    outside = Outside()
    outside.on[ship.ParcelPacked] = lambda e, w: (
        w.send(report.SplitReported(**ids(e), lines=units((1, 1))), "/warehouse"),
        w.send(report.HandedOverReported(**ids(e), carrier="c", tracking_no="T1"), "/carrier"))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert not told(world, "SplitRefused") and not told(world, "ParcelSplit")
    ends(world, "completed", buyer=-7699, released=7699)

    outside = splits((1, 1), then=nothing)
    outside.on[paid.PaymentHeld] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert not told(world, "ParcelSplit")
    ends(world, "cancelled", buyer=-7699, refunded=7699)


def test_a_cancellation_is_answered_first_and_a_held_order_stands_still():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(report.PackingStartedReported(**ids(e)), "/warehouse")
    outside.on[ship.PackingStarted] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id), id="cancel-1")

    def both(e, w):
        w.send(report.SplitReported(**ids(e), lines=units((1, 1))), "/warehouse", id="early")
        w.send(report.CancellationRefused(**ids(e), cancellation_id="cancel-1", reason="on the belt"), "/warehouse")
        w.send(report.SplitReported(**ids(e), lines=units((1, 1))), "/warehouse", id="late")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.CancellationAsked] = both
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert [e["reason"] for e in told(world, "SplitRefused")] == ["asked"] and len(told(world, "ParcelSplit")) == 1


# -- prices -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 2, 99, 100, 1001, 33333])
@pytest.mark.parametrize("freight,tax", [(0, 0), (700, 0), (1, 0), (313, 41)])
def test_the_two_are_what_the_one_was_whatever_had_left_it_before(amount, freight, tax):
    for quantity in range(2, 9):
        for gone in range(quantity - 1):
            for taken in range(1, quantity - gone):
                whole = Content("SEA1", [Line(1, "CHERRY", quantity, amount), Line(2, "PLUM", 2, 501)], freight,
                                amount + 501 + freight, tax=tax)
                shipment = Shipment("A1", parcels={P1: Parcel("SEA1", "requested", {1: gone} if gone else {}, aside=Aside(content=whole))})
                work = Work(shipment, None, None, None)
                before = work.value(P1)
                rest, part = divided(work, P1, {1: taken, 2: 1})
                shipment.parcels[P1].aside.content = rest
                assert work.value(P1) + part.amount == before
                for name in ("amount", "freight", "tax"):
                    assert getattr(rest, name) + getattr(part, name) == getattr(whole, name) and getattr(part, name) >= 0
                assert rest.amount == rest.freight + sum(l.amount for l in rest.lines) and min(l.amount for l in rest.lines) >= 0
                assert part.amount == part.freight + sum(l.amount for l in part.lines)
                kept, went = ({l.line_no: l.quantity for l in content.lines} for content in (rest, part))
                assert went == {1: taken, 2: 1} and kept == {1: quantity - taken, 2: 1}


def test_units_that_left_before_and_after_are_paid_back_to_the_cent():
    outside = Outside()

    def pack(e, w):
        if e.parcel_id == P1:
            w.send(report.ShortPickReported(**ids(e), lines=units((1, 1))), "/warehouse")
            w.send(report.SplitReported(**ids(e), lines=units((1, 2))), "/warehouse")
            w.send(report.ShortPickReported(**ids(e), lines=units((1, 1))), "/warehouse", id="again")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = pack
    world, _ = given(order(destination="US", lines=(("CHERRY", 7, 1000),), freight=100), outside=outside)
    refunds = [e["refund"] for e in told(world, "ParcelShortPicked")]
    assert len(refunds) == 2
    ends(world, "completed", buyer=-1100, refunded=sum(refunds), released=1100 - sum(refunds))


# -- the promise, the state ---------------------------------------------------------------------------------------------


def test_both_are_promised_alike_and_the_state_is_kept():
    outside = splits((2, 1), then=nothing)
    outside.on[ship.ParcelPacked] = nothing
    world, _ = given(order(destination="DE", lines=TWO_LINES), outside=outside, plans=Plans.of_places("SEA1", "USSEA", "DEBER", "USLAX"))
    state = world.state("shipping")
    assert STATE.validate_json(STATE.dump_json(state)) == state
    [allocated], [split] = told(world, "ParcelsAllocated"), told(world, "ParcelSplit")
    assert split["part"]["route"] and split["part"]["route"] == allocated["parcels"][0]["route"]
    assert {f"risk:{P1}", f"risk:{P2}"} <= set(state.timers)
    first, second = told(world, "FulfilmentRequested")
    assert first["planned"] == second["planned"]


# -- what is told on other topics ---------------------------------------------------------------------------------------


def test_while_the_order_stands_still_it_is_refused_and_split_afterwards():
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = nothing
    world, _ = given(order(destination="US", lines=TWO_LINES, merchant_id="m9"), outside=outside)
    world.send(merchants.FreezeMerchant(order_id="merchant:m9", reason="fraud", decided_by="o"), "/platform")
    world.run()
    common = {"order_id": "A1", "parcel_id": P1}
    world.send(report.SplitReported(**common, lines=units((2, 1))), "/warehouse", id="early")
    world.run()
    assert [e["reason"] for e in told(world, "SplitRefused")] == ["stopped"]
    world.send(merchants.DecideAppeal(order_id="merchant:m9", outcome="lifted", decided_by="o"), "/platform")
    world.run()
    world.send(report.SplitReported(**common, lines=units((2, 1))), "/warehouse", id="late")
    for parcel_id in (P1, P2):
        world.send(report.PackedReported(order_id="A1", parcel_id=parcel_id), "/warehouse")
    world.run()
    ends(world, "completed", buyer=-7699, released=7699)


@pytest.mark.parametrize("outcome,back", [("chargeback_reversed", 0), ("lost", 7699)])
def test_while_the_buyers_bank_has_the_money_its_division_waits(outcome, back):
    """Of what the bank keeps nothing is divided: both parcels are paid back, the second with nothing more."""
    outside = splits((2, 1))
    split = outside.on[ship.FulfilmentRequested]

    def bank(stage):
        return DisputeTold(order_id="A1", dispute_id="D1", payment_id="A1-Y1", stage=stage, amount=7699, currency="USD")
    outside.on[ship.FulfilmentRequested] = nothing
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    world.send(bank("chargeback"), "payments-webhook", id="taken")
    world.run()
    outside.on[ship.FulfilmentRequested] = split
    world.send(report.SplitReported(order_id="A1", parcel_id=P1, lines=units((2, 1))), "/warehouse")
    world.send(report.PackedReported(order_id="A1", parcel_id=P1), "/warehouse")
    world.run()
    assert list(world.state("payments").holds) == [P1] and [p.incoming.type for p in world.parties["payments"].entries["A1"].parked][0] == "ParcelSplit"
    world.send(bank(outcome), "payments-webhook", id="decided")
    world.run()
    [moved] = told(world, "PaymentDivided")
    assert moved["amount"] == (0 if back else told(world, "ParcelSplit")[0]["part"]["amount"])
    ends(world, "completed", buyer=-7699, charged_back=back, released=7699 - back)


def test_a_bank_that_comes_back_to_it_takes_of_both():
    """Taken and given back before the split, taken again afterwards."""
    outside = splits((2, 1))
    split = outside.on[ship.FulfilmentRequested]
    outside.on[ship.FulfilmentRequested] = nothing
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    for stage in ("chargeback", "chargeback_reversed"):
        world.send(DisputeTold(order_id="A1", dispute_id="D1", payment_id="A1-Y1", stage=stage, amount=7699, currency="USD"),
                   "payments-webhook", id=stage)
        world.run()
    outside.on[ship.FulfilmentRequested] = split
    outside.on[ship.ParcelDelivered] = nothing
    world.send(report.SplitReported(order_id="A1", parcel_id=P1, lines=units((2, 1))), "/warehouse")
    world.send(report.PackedReported(order_id="A1", parcel_id=P1), "/warehouse")
    world.run()
    world.send(DisputeTold(order_id="A1", dispute_id="D1", payment_id="A1-Y1", stage="second_chargeback", amount=7699, currency="USD"),
               "payments-webhook", id="again")
    world.run()
    ends(world, "completed", buyer=-7699, charged_back=7699)
    assert {hold.status for hold in world.state("payments").holds.values()} == {"charged_back"}


def test_a_receipt_names_what_was_split_off_and_a_buyer_may_be_faster_than_orders():
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=splits((2, 1)))
    assert {e["parcel_id"]: e["split_off"] for e in told(world, "ReceiptConfirmed")} == {P1: [P2], P2: []}
    machine = world.parties["orders"].entries["A1"].state.draft()
    machine.closed = False
    early = unknown_parcel(machine, Incoming("ConfirmReceipt", "/storefront", "c", 0, world.now, None), f"{P1}.3")
    assert early == NotYet("ParcelSplit")
    assert not isinstance(unknown_parcel(machine, Incoming("ConfirmReceipt", "/storefront", "c", 0, world.now, None), "A1-P9"), NotYet)


def test_lost_is_the_dispute_of_the_first_alone():
    outside = splits((2, 1))
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(
        ask.OpenDispute(**ids(e)) if e.parcel_id == P1 else ask.ConfirmReceipt(**ids(e)))
    outside.on[said.DisputeOpened] = lambda e, w: w.send(ask.ResolveDispute(order_id=e.order_id, parcel_id=e.parcel_id, outcome="lost"))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    first = told(world, "ParcelSplit")[0]["amount"]
    ends(world, "completed", buyer=-7699, charged_back=first, released=7699 - first)


def test_units_that_are_missing_of_a_line_which_is_in_the_other_box_by_now_are_nobodys():
    """A short pick and a split in the wrong order: what is said of a line that left the parcel is late, and no dead letter."""
    outside = splits((2, 1), then=lambda e, w: (
        w.send(report.ShortPickReported(**ids(e), lines=units((2, 1))), "/warehouse"),
        w.send(report.PackedReported(**ids(e)), "/warehouse")))
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=outside)
    assert not told(world, "ParcelShortPicked")
    ends(world, "completed", buyer=-7699, released=7699)


def test_the_timeline_says_what_is_in_each_box():
    world, _ = given(order(destination="US", lines=TWO_LINES), outside=splits((1, 1), (2, 1)))
    [split], [moved] = told(world, "ParcelSplit"), told(world, "PaymentDivided")
    assert parcel_facts.told(split) == [f"1 × CHERRY, 1 × PLUM as {P2}, SSCC {split['part']['sscc']}; stays: 2 × CHERRY"]
    assert parcel_facts.told(moved) == [f"of what was held for {P1}"]
