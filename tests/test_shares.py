"""Who gets what of an order's money: tax as assessed, the release split by the merchant's terms. Given, when, then."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from schemas import orders_intake as ask
from schemas import payments_payment as pay
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.ledger import ACCOUNTS, KINDS, account_of
from schemas.merchants import ChangeTerms, TermsChanged
from schemas.model import LineQuantity
from schemas.orders_order import CommandRefused, OrderCompleted, OrderPlaced
from schemas.payments_provider_result import ProviderAnswered
from schemas.quotes import Charge, CustomsRate, Quote
from schemas.shipping_shipment import DutyAssessed
from schemas.terms import Assessment, ReportedAssessment, Terms
from services.cli.duties import duties_paid
from services.explorer.simulation import START, order
from services.orders.rulebook import load
from services.orders.terms import NOBODY, Agreed
from services.payments import machine as payments
from services.payments import shares
from services.runtime.decision import Incoming
from tests.test_lifecycle import Outside, ends, given, ids

GOODS = 5000


def taxed(destination: str = "GB", currency: str = "GBP", **more):
    """An order whose duty and taxes are paid with it: GBP 50.00 and 7.00 freight, 20 % tax."""
    lines = [ask.OrderLine(line_no=1, sku="CHERRY", quantity=2, amount=GOODS, hs_code="950300")]
    placed = order(destination=destination, currency=currency, **more).model_copy(update={"lines": lines})
    return duties_paid(placed, load())


def bills(amount: int | None, currency: str = "GBP") -> Outside:
    """Customs releases, and bills `amount` (None: nothing at the border)."""
    outside = Outside()
    bill = None if amount is None else ReportedAssessment(amount=amount, currency=currency, document="T1")
    outside.on[ship.CustomsPresented] = lambda e, w: w.send(
        report.CustomsReleaseReported(**ids(e), assessed=bill), "/customs")
    return outside


def test_without_terms_and_quote_a_release_is_two_rows():
    world, _ = given()
    rows = [row for row in world.parties["payments"].ledger if row[7] == "release"]
    assert [(row[2], row[4]) for row in rows] == [("held", -5700), ("merchant", 5700)]


def test_the_declared_tax_is_told_to_customs():
    seen, outside = [], bills(1140)
    release = outside.on[ship.CustomsPresented]
    outside.on[ship.CustomsPresented] = lambda e, w: (seen.append(e.declared), release(e, w))
    given(taxed(), outside=outside)
    assert [(d.amount, d.currency) for d in seen] == [(1140, "GBP")]


@pytest.mark.parametrize("assessed, variance", [(1140, 0), (1203, -63), (1001, 139), (None, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_the_difference_between_assessed_and_quoted_tax_is_the_platforms(assessed, variance, seed):
    """Whatever customs makes of it, the buyer paid what was quoted, and the merchant gets the same."""
    world, _ = given(taxed(), outside=bills(assessed), seed=seed, doubles=True)
    ends(world, "completed", buyer=-6840, released=6840)
    owed = 1140 if assessed is None else assessed
    expected = {"buyer": -6840, "merchant": 5700, "payable/GB": owed, "variance": variance}
    assert world.accounts() == {name: amount for name, amount in expected.items() if amount}


def test_a_merchant_with_terms_gets_what_is_left_of_fee_withholding_and_reserve():
    world, _ = given(taxed(merchant_id="split"), outside=bills(1200))
    # 5 % (there is no fixed fee in GBP), 1 % and 10 % of GBP 50.00
    assert world.accounts() == {"buyer": -6840, "payable/GB": 1200, "variance": -60, "carrier": 700, "fee": 250,
                                "withheld/US": 50, "reserve": 500, "merchant": 4200}
    settled = next(e for e in world.events if e.type == "PaymentSettled")
    told = {s.account: s.amount for s in pay.PaymentSettled.model_validate_json(settled.value).shares}
    assert told == {"tax": 1140, "carrier": 700, "fee": 250, "withheld/US": 50, "reserve": 500, "merchant": 4200}


def test_terms_and_the_exchange_quote_are_frozen_on_the_order():
    world, _ = given(taxed(merchant_id="split"), outside=bills(None))
    placed = OrderPlaced.model_validate_json(next(e for e in world.events if e.type == "OrderPlaced").value)
    assert (placed.terms.plan, placed.terms.payout, placed.terms.fx.rate) == ("p1", "USD", "1.2345")
    assert placed.terms.fx.locked_at <= placed.placed_at < placed.terms.fx.expires_at


@pytest.mark.parametrize("currency, fx_quote, reason", [
    ("GBP", "fx1.20261123", ""), ("GBP", "fx1.20261122", "fx_quote_expired"), ("USD", "fx1.20261123", "fx_not_needed")])
def test_an_exchange_quote_holds_until_it_expires(currency, fx_quote, reason):
    world, _ = given(order(merchant_id="split", currency=currency, fx_quote=fx_quote))
    assert world.state("orders").reason == reason
    assert (world.state("orders").status == "rejected") == bool(reason)


def test_an_order_that_no_rate_of_its_day_converts_is_refused():
    world, _ = given(order(merchant_id="split", currency="JPY"))
    assert world.state("orders").reason == "no_fx_quote"


def test_a_day_on_which_his_fee_plan_has_no_row_is_refused():
    world, _ = given(order(merchant_id="split", placed_at=START - timedelta(days=900)))
    assert world.state("orders").reason == "no_terms"


def terms_of(world, order_id: str):
    return OrderPlaced.model_validate_json(next(e for e in world.events if e.type == "OrderPlaced" and e.key == order_id.encode()).value).terms


def changes(world, **what) -> None:
    world.send(ChangeTerms(order_id="merchant:split", decided_by="officer", **what), "/platform")
    world.run()


def test_a_change_of_terms_holds_from_its_day_for_new_orders():
    """The open order is settled by what it was accepted by, those of an earlier day too, whenever they come."""
    outside = Outside()
    packed = []
    outside.on[ship.FulfilmentRequested] = lambda e, w: packed.append(e) if e.order_id == "A1" else w.send(report.PackedReported(**ids(e)))
    world, _ = given(order(destination="US", merchant_id="split"), outside=outside)
    tomorrow = START.date() + timedelta(days=1)
    changes(world, fee_plan="more", payout_currency="EUR", valid_from=tomorrow)
    world.wait(hours=24)
    for name, placed_at, currency in (("A2", START, "USD"), ("A3", START + timedelta(days=1), "EUR"), ("A4", START + timedelta(days=1), "USD")):
        world.send(order(name, destination="US", merchant_id="split", placed_at=placed_at, currency=currency))
        world.run()
    world.send(report.PackedReported(**ids(packed[0])), "/warehouse")
    world.run()
    assert [(terms_of(world, name).version, terms_of(world, name).plan, terms_of(world, name).payout) for name in ("A1", "A2", "A3")] == [
        (1, "p1", "USD"), (1, "p1", "USD"), (2, "p2", "EUR")]
    assert world.state("orders", "A4").reason == "no_fx_quote", "nobody has a rate from USD to EUR"
    fees = {e.key.decode(): {s.account: s.amount for s in pay.PaymentSettled.model_validate_json(e.value).shares}.get("fee")
            for e in world.events if e.type == "PaymentSettled"}
    assert fees == {"A1": 280, "A2": 280, "A3": 450}, "5 % and 0.30; 9 %"


@pytest.mark.parametrize("change, reason", [
    (dict(fee_plan="gold", valid_from=START.date()), "unknown_fee_plan"),
    (dict(payout_currency="XAU", valid_from=START.date()), "unknown_currency"),
    (dict(valid_from=START.date() - timedelta(days=1)), "terms_too_early"),
    (dict(order_id="merchant:m1", valid_from=START.date()), "merchant_unknown")])
def test_terms_that_cannot_be_are_refused_by_name(change, reason):
    world, _ = given(order(destination="US", merchant_id="split"))
    changes(world, valid_from=START.date(), fee_plan="more") if "order_id" not in change else None
    world.send(ChangeTerms(**{"order_id": "merchant:split", "decided_by": "officer"} | change), "/platform")
    world.run()
    refused = CommandRefused.model_validate_json(next(e for e in world.events if e.type == "CommandRefused").value)
    assert refused.reason == reason and world.dead == []


def test_terms_follow_one_another():
    world, _ = given(order(destination="US", merchant_id="split"))
    changes(world, fee_plan="more", valid_from=START.date() + timedelta(days=9))
    changes(world, fee_plan="all", valid_from=START.date() + timedelta(days=8))
    assert CommandRefused.model_validate_json(next(e for e in world.events if e.type == "CommandRefused").value).reason == "terms_too_early"
    changes(world, payout_currency="CNY", valid_from=START.date() + timedelta(days=9))
    told = [TermsChanged.model_validate_json(e.value) for e in world.events if e.type == "TermsChanged"]
    assert [(t.version, t.fee_plan, t.payout_currency) for t in told] == [(2, "more", "USD"), (3, "more", "CNY")]


def test_standard_takes_nothing_where_nobody_gave_it_a_price():
    free = NOBODY.of(Agreed(1, "standard", "USD"), "USD", START.date())
    assert (free.plan, free.fee, free.withheld, free.reserve, free.fx) == ("standard", 0, 0, 0, None)
    assert NOBODY.of(Agreed(1, "gold", "USD"), "USD", START.date())[0] == "no_terms"


def test_tax_leaves_with_the_goods():
    outside = bills(None)

    def short(e, w):
        w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = short
    world, _ = given(taxed(), outside=outside)
    ends(world, "completed", buyer=-6840, refunded=3070, released=3770)
    assert world.accounts()["payable/GB"] == 570 and world.accounts()["merchant"] == 3200


def test_a_gift_of_the_merchant_leaves_the_tax_as_it_is():
    world, _ = given(taxed(), outside=bills(1140))
    world.send(ask.GrantRefund(order_id="A1", amount=1000))
    world.run()
    assert world.accounts() == {"buyer": -6840, "refunded": 1000, "merchant": 4700, "payable/GB": 1140}


def test_tax_assessed_on_goods_that_came_back_is_the_platforms_loss():
    outside = bills(1140)
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(ask.RequestReturn(order_id=e.order_id))
    world, _ = given(taxed(), outside=outside)
    ends(world, "cancelled", buyer=-6840, refunded=6840)
    assert world.accounts() == {"buyer": -6840, "refunded": 6840, "payable/GB": 1140, "variance": -1140}


def test_returned_after_settlement_the_merchant_bears_all_of_it():
    outside, done = bills(1140), []

    def once(e, w):
        if not done:
            done.append(1)
            w.send(ask.RequestReturn(order_id=e.order_id))
    outside.on[OrderCompleted] = once
    world, _ = given(taxed(merchant_id="split"), outside=outside)
    ends(world, "cancelled", buyer=-6840, released=6840, recovered=-6840, refunded=6840)
    assert world.accounts()["merchant"] == 4200 - 6840


def test_a_carriers_claim_is_all_the_merchants():
    outside = bills(1140)
    outside.on[ship.CustomsReleased] = lambda e, w: w.send(report.LossReported(**ids(e)), "/carrier")
    world, _ = given(taxed(merchant_id="split"), outside=outside)
    claim = GOODS + 1140  # a line's worth has its share of tax in it
    assert world.accounts() == {"buyer": -6840, "refunded": 6840, "payable/GB": 1140, "variance": -1140, "claims": -claim,
                                "merchant": claim}


# -- one decision ---------------------------------------------------------------------------------------------------------


def test_the_bill_may_be_heard_of_after_the_release():
    """Two topics: payments may hear of the buyer's confirmation before the parcel came through customs."""
    account = payments.Account("A1", "open", currency="GBP", duty=shares.Duty("GB", "GBP"), payments={
        "A1-Y1": payments.Payment(["A1-P1"], "held", 6840, "", "i", "release", 6840, "A1-P1")}, holds={
        "A1-P1": payments.Hold(6840, "held", 6840, 6840, confirmed=True, shares=shares.Shares(700, 6140, 1140))})
    first = payments.decide(account, None, Incoming("ProviderAnswered", "a", "payments-caller", 0, START, ProviderAnswered(
        order_id="A1", intent_id="i", payment_id="A1-Y1", kind="release", outcome="succeeded", amount=6840, currency="GBP")),
        None, START)
    then = payments.decide(first.state, None, Incoming("DutyAssessed", "b", "shipping", 9, START, DutyAssessed(
        order_id="A1", parcel_id="A1-P1", assessed=Assessment(amount=1111, currency="GBP"))), None, START)
    assert sums(first, then) == {"held": -6840, "merchant": 5700, "payable/GB": 1111, "variance": 29}
    assert [type(e).__name__ for e in then.events] == ["TaxAssessed"] and then.state.closed


def test_customs_may_count_in_another_currency():
    """Owed in customs' currency; converted at the customs rate frozen with the quote, half up."""
    quote = Quote.model_construct(
        destination="CN", currency="USD", customs_currency="CNY", customs_rate=CustomsRate(id="r", base="USD", quote="CNY", rate="7.1"),
        charges=[Charge(kind="import_tax", amount=100, assessed=710, levied_by="CN", collected_by="platform", collect_at="checkout")])
    account = payments.Account("A1", "open", currency="USD", duty=shares.duty_of(quote), payments={
        "A1-Y1": payments.Payment(["A1-P1"], "held", 1100)}, holds={
        "A1-P1": payments.Hold(1100, "held", 1100, 1100, shares=shares.Shares(0, 1100, 100))})
    done = payments.decide(account, None, Incoming("DutyAssessed", "b", "shipping", 9, START, DutyAssessed(
        order_id="A1", parcel_id="A1-P1", assessed=Assessment(amount=800, currency="CNY"))), None, START)
    assert [(row[2], row[3], row[4]) for _, row in done.rows] == [
        ("tax", "USD", -113), ("position", "USD", 113), ("position", "CNY", -800), ("payable/CN", "CNY", 800)]


def sums(*decisions) -> dict[str, int]:
    found: dict[str, int] = {}
    for decision in decisions:
        for _, row in decision.rows:
            found[row[2]] = found.get(row[2], 0) + row[4]
    return {name: amount for name, amount in found.items() if amount}


@settings(max_examples=300, deadline=None)
@forall(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10_000),
        st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 500))
def test_no_cent_is_lost_in_a_split(amount, freight, quoted, gone, fee, withheld, reserve, fixed):
    own = shares.Shares(freight, amount, quoted, gone)
    terms = Terms(plan="p", fee=fee, fee_fixed=fixed, withheld=withheld, withheld_for="US", reserve=reserve, payout="USD")
    for given_terms in (None, terms, terms.model_copy(update={"freight": "merchant"})):
        parts = shares.split(amount, own, given_terms)
        assert sum(part for _, part in parts) == amount and all(part > 0 for _, part in parts)
        assert len({account for account, _ in parts}) == len(parts)


@settings(max_examples=200, deadline=None)
@forall(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.integers(0, 10**9))
def test_a_clearance_fee_is_shared_to_the_cent(amounts, fee):
    plans = [ship.ParcelPlan.model_construct(parcel_id=str(n), amount=a, freight=0, tax=0) for n, a in enumerate(amounts)]
    assert sum(own.freight for own in shares.shares_of(plans, fee)) == fee


def test_a_refused_capture_gives_the_authorisation_up():
    """Else the buyer's card stays blocked for a week."""
    for destination, told in (("DE", "PaymentExpired"), ("CN", "PaymentDeclined")):
        outside, calls = Outside(), []
        outside.fails = {"capture"}
        answer = outside.provider
        outside.provider = lambda order_id, intent, world: (calls.append(intent.kind), answer(order_id, intent, world))
        world, _ = given(order(destination=destination), outside=outside)
        assert calls == ["authorise", "capture", "void"] and told in world.types()
        ends(world, "cancelled")


def test_every_account_that_is_booked_is_in_the_plan():
    world, _ = given(taxed(merchant_id="split"), outside=bills(1200))
    for row in world.parties["payments"].ledger:
        assert account_of(row[2]) in ACCOUNTS and row[7] in KINDS
