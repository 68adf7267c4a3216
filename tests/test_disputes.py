"""Disputes of the buyer's bank: every stage, before and after the money was released, in any order. Given, when, then."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas import orders_intake as ask
from schemas import payments_payment as pay
from schemas import shipping_shipment as ship
from schemas.payments_provider_result import DisputeTold, SubmitEvidence
from services.explorer.simulation import START, order
from tests.test_lifecycle import Outside, ends, given

DUE = START + timedelta(days=7)


def tell(world, stage: str, amount: int = 5700, name: str = "D1", id: str = "", payment: str = "A1-Y1", due=DUE, run: bool = True):
    world.send(DisputeTold(order_id="A1", dispute_id=name, payment_id=payment, stage=stage, amount=amount, currency="USD",
                           reason="fraudulent", evidence_due=due if stage in ("request_for_information", "chargeback") else None),
               "payments-webhook", id or f"dispute:{name}:{stage}")
    if run:
        world.run()


def evidence(world, text: str = "signed-by-buyer.pdf", name: str = "D1"):
    world.send(SubmitEvidence(order_id="A1", dispute_id=name, evidence=text), "/finance")
    world.run()


def delivered(merchant: str = "m1", confirmed: bool = False, **more):
    """An order of USD 57.00 with its buyer, who has not said so unless `confirmed`."""
    outside = Outside()
    if not confirmed:
        outside.on[ship.ParcelDelivered] = lambda e, w: None
    world, _ = given(order(merchant_id=merchant, destination="US", **more), outside=outside)
    return world


def hold(world, parcel: str = "A1-P1"):
    return world.state("payments").holds[parcel]


def told(world, model: type) -> list:
    return [model.model_validate_json(e.value) for e in world.events if e.type == model.__name__]


# -- before the money was released --------------------------------------------------------------------------------------


def test_an_inquiry_stops_the_timer_and_the_money_and_evidence_lets_them_go_on():
    world = delivered()
    left = world.state("orders").timers["confirm:A1-P1"] - world.now
    world.wait(days=2)
    tell(world, "request_for_information")
    assert world.state("orders").timers == {} and hold(world).frozen == ["D1"]
    world.wait(days=3)
    evidence(world)
    assert [e.evidence for e in told(world, pay.EvidenceSubmitted)] == ["signed-by-buyer.pdf"]
    tell(world, "inquiry_closed")
    assert world.state("orders").timers["confirm:A1-P1"] - world.now == left - timedelta(days=2)
    assert not [n for n in world.state("payments").timers if n.startswith("evidence")]
    world.wait(days=10)
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_confirmation_during_an_inquiry_is_taken_and_the_money_waits():
    world = delivered()
    tell(world, "request_for_information")
    world.send(ask.ConfirmReceipt(order_id="A1", parcel_id="A1-P1"))
    world.run()
    assert hold(world).held == 5700 and world.types().count("PaymentSettled") == 0
    tell(world, "inquiry_closed")
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_chargeback_takes_the_money_out_of_escrow_and_a_reversal_puts_it_back():
    world = delivered()
    tell(world, "chargeback")
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700}
    assert (hold(world).status, hold(world).held) == ("contested", 0)
    evidence(world)
    tell(world, "chargeback_reversed")
    assert world.accounts() == {"buyer": -5700, "held": 5700} and hold(world).status == "held"
    world.wait(days=11)
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_chargeback_that_is_lost_is_the_buyers():
    world = delivered()
    tell(world, "chargeback")
    world.wait(days=8)
    assert world.types().count("EvidenceMissed") == 1
    tell(world, "lost")
    ends(world, "completed", buyer=-5700, charged_back=5700)
    assert world.state("orders").parcels["A1-P1"].reason == "chargeback"


def test_evidence_is_refused_by_name():
    world = delivered()
    evidence(world)
    tell(world, "chargeback")
    evidence(world, "first")
    evidence(world, "second")
    world.wait(days=8)
    tell(world, "lost")
    evidence(world, "third")
    assert [(e.evidence, e.reason) for e in told(world, pay.EvidenceRefused)] == [
        ("signed-by-buyer.pdf", "unknown_dispute"), ("second", "already_sent"), ("third", "not_open")]
    late = delivered()
    tell(late, "chargeback")
    late.wait(days=8)
    evidence(late)
    assert [e.reason for e in told(late, pay.EvidenceRefused)] == ["too_late"]


def test_evidence_that_the_provider_does_not_take():
    world = delivered()
    world.outside.fails = {"evidence"}
    tell(world, "chargeback")
    evidence(world)
    assert [(e.evidence, e.reason) for e in told(world, pay.EvidenceRefused)] == [("signed-by-buyer.pdf", "refused")]
    world.outside.fails = set()
    evidence(world, "another")
    assert [e.evidence for e in told(world, pay.EvidenceSubmitted)] == ["another"]


def test_a_second_chargeback_is_final():
    world = delivered()
    for stage in ("chargeback", "chargeback_reversed", "second_chargeback"):
        tell(world, stage)
    ends(world, "completed", buyer=-5700, charged_back=5700)


# -- after it ------------------------------------------------------------------------------------------------------------


def test_after_settlement_the_platform_lays_out_what_the_bank_takes_until_it_is_decided():
    world = delivered(confirmed=True)
    ends(world, "completed", buyer=-5700, released=5700)
    tell(world, "chargeback")
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700, "merchant": 5700, "advanced": -5700}
    assert world.state("orders").status == "after_sale" and not world.state("orders").closed
    tell(world, "chargeback_reversed")
    ends(world, "completed", buyer=-5700, recovered=-5700, released=11400)
    assert world.accounts() == {"buyer": -5700, "merchant": 5700}


def test_after_settlement_a_lost_chargeback_is_the_merchants():
    world = delivered(confirmed=True)
    tell(world, "chargeback")
    tell(world, "lost")
    ends(world, "completed", buyer=-5700, charged_back=5700, released=5700, recovered=-5700)
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700}


def test_the_reserve_pays_first_then_the_merchant():
    """57.00: freight 7.00; of 50.00 goods 5 % and 0.30 fee, 1 % withheld, 10 % reserve."""
    world = delivered("split", confirmed=True)
    assert world.accounts() == {"buyer": -5700, "carrier": 700, "fee": 280, "withheld/US": 50, "reserve": 500, "merchant": 4170}
    tell(world, "chargeback")
    assert world.accounts()["reserve"] == 500 and world.accounts()["advanced"] == -5700
    tell(world, "lost")
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700, "carrier": 700, "fee": 280, "withheld/US": 50,
                                "merchant": 4170 - 5200}
    lost = told(world, pay.ChargebackLost)[0]
    assert (lost.reserve, lost.merchant) == (500, 5200)


def test_a_reserve_whose_days_are_over_is_the_merchants_own():
    world = delivered("split", confirmed=True)
    world.wait(days=90)
    tell(world, "chargeback", due=None)
    tell(world, "lost")
    assert (world.accounts()["reserve"], world.accounts()["merchant"]) == (500, 4170 - 5700)


def test_second_chargebacks_take_no_more_of_a_reserve_than_there_is():
    world = delivered("split", confirmed=True)
    tell(world, "chargeback", 300)
    tell(world, "lost", 300)
    tell(world, "chargeback", 1000, "D2")
    tell(world, "lost", 1000, "D2")
    assert [(e.reserve, e.merchant) for e in told(world, pay.ChargebackPartlyLost)] == [(300, 0), (200, 800)]
    ends(world, "completed", buyer=-5700, charged_back=1300, released=5700, recovered=-1300)


# -- in any order ----------------------------------------------------------------------------------------------------------

STAGES = ("request_for_information", "inquiry_closed", "chargeback", "chargeback_reversed", "second_chargeback")


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_stages_come_late_twice_and_in_any_order(confirmed, seed):
    world = delivered(confirmed=confirmed)
    told_ = [*STAGES, "chargeback_reversed", "second_chargeback", "chargeback"]
    world.random.seed(seed)
    world.random.shuffle(told_)
    for n, stage in enumerate(told_):
        # A repetition comes under its own id or another.
        tell(world, stage, id="" if seed % 2 else f"odd-{n}", run=bool(seed % 3))
    world.run(doubles=True)
    if confirmed:
        ends(world, "completed", buyer=-5700, charged_back=5700, released=11400, recovered=-11400)
    else:
        ends(world, "completed", buyer=-5700, charged_back=5700)
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700}
    assert [t for t in world.types() if "Chargeback" in t] == ["ChargebackOpened", "ChargebackReversed", "SecondChargeback",
                                                               "ChargebackLost"]


def test_a_second_chargeback_before_the_first_waits_for_it():
    world = delivered()
    tell(world, "second_chargeback")
    assert world.accounts() == {"buyer": -5700, "held": 5700} and len(world.parties["payments"].entries["A1"].parked) == 1
    tell(world, "chargeback_reversed")
    tell(world, "chargeback")
    ends(world, "completed", buyer=-5700, charged_back=5700)


# -- with the other exits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome, accounts", [
    ("lost", {"charged_back": 5700}), ("chargeback_reversed", {"refunded": 5700})])
def test_a_return_during_a_chargeback_is_refunded_only_when_the_bank_gives_it_back(outcome, accounts):
    world = delivered()
    world.outside.on[ship.ReturnAuthorised] = lambda e, w: None
    world.send(ask.RequestReturn(order_id="A1"), id="R1")
    world.run()
    tell(world, "chargeback")
    Outside.__init__(world.outside)
    from schemas import shipping_report as report
    world.send(report.ReturnReceivedReported(order_id="A1", parcel_id="A1-P1", return_id="R1"), "/warehouse")
    world.run()
    assert world.accounts() == {"buyer": -5700, "charged_back": 5700}
    tell(world, outcome)
    ends(world, "cancelled" if outcome != "lost" else "completed", buyer=-5700, **accounts)


def test_what_is_partly_lost_takes_from_what_was_to_be_refunded():
    """Granted 40.00 of 57.00 while the bank has 30.00; it keeps them: 27.00 more go back, and all of it has."""
    world = delivered()
    tell(world, "chargeback", 3000)
    world.send(ask.GrantRefund(order_id="A1", amount=4000), id="G1")
    world.run()
    assert world.accounts() == {"buyer": -5700, "charged_back": 3000, "held": 2700}
    tell(world, "lost", 3000)
    world.send(ask.ConfirmReceipt(order_id="A1", parcel_id="A1-P1"))
    world.run()
    ends(world, "cancelled", buyer=-5700, charged_back=3000, refunded=2700)


def test_a_dispute_is_spread_over_the_parcels_of_its_payment():
    outside = Outside()
    outside.on[ship.ParcelDelivered] = lambda e, w: None
    lines = (("CHERRY", 2, 5000), ("TOY", 1, 1999))
    world, _ = given(order(destination="US", lines=lines), {"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}}, outside=outside)
    tell(world, "chargeback", 3000)
    opened = told(world, pay.ChargebackOpened)
    assert sum(e.amount for e in opened) == 3000 and len(opened) == 2
    tell(world, "lost", 3000)
    world.wait(days=11)
    ends(world, "completed", buyer=-7699, charged_back=3000, released=4699)


def test_a_chargeback_waits_for_the_answer_to_a_call_in_flight():
    world = delivered()
    world.outside.silent = {"refund"}
    world.send(ask.GrantRefund(order_id="A1", amount=1000), id="G1")
    world.run()
    tell(world, "chargeback", 4700)
    assert world.accounts() == {"buyer": -5700, "held": 5700}
    world.outside.silent = set()
    order_id, intent = world.intents[-1] if world.intents else (None, None)
    payment = world.state("payments").payments["A1-Y1"]
    from services.runtime.decision import Intent
    world.outside.provider("A1", Intent(payment.intent, "refund", {"payment_id": "A1-Y1", "amount": 1000, "currency": "USD"}), world)
    world.run()
    assert world.accounts() == {"buyer": -5700, "refunded": 1000, "charged_back": 4700}


def test_a_bank_that_takes_more_than_was_paid_is_for_a_person_to_look_at():
    world = delivered()
    tell(world, "chargeback", 5701)
    assert [dict(e.headers)["__dlq.errors.reason"] for e in world.dead] == [b"amount_mismatch"]
    assert world.accounts() == {"buyer": -5700, "held": 5700}
