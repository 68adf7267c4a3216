"""Tax that Chinese customs gives back for goods that came back in time, and does not for those that were late. Given, when, then.

A parcel of CNY 50.00 (two units), freight 7.00, tax 5.19 (70 % of 13 % of 57.00): the buyer pays 62.19.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.books import RecoverTax
from schemas.model import LineQuantity
from schemas.terms import ReportedAssessment
from schemas.topics import MODELS
from services.cli.duties import duties_paid
from services.explorer.simulation import order
from services.orders.rulebook import load
from tests.test_lifecycle import Outside, given, ids, nothing

TAX, PAID = 519, 6219
ONE = [LineQuantity(line_no=1, quantity=1)]


def told(world, name: str) -> list:
    return [MODELS[name].model_validate_json(e.value) for e in world.events if e.type == name]


def imported(merchant: str = "m1", confirms: bool = True, takes: bool = True, billed: int | None = TAX, **more):
    """Delivered in China, and customs' answer when goods of the list are returned."""
    outside = Outside()
    bill = None if billed is None else ReportedAssessment(amount=billed, currency="CNY", document="T1")
    outside.on[ship.CustomsPresented] = lambda e, w: w.send(report.CustomsReleaseReported(**ids(e), assessed=bill), "/customs")
    outside.on[ship.ReturnReceived] = lambda e, w: w.send(report.ListWithdrawalReported(
        **ids(e), list_no=e.returns_list, form="CEB626", accepted=takes, return_id=e.return_id, reason="" if takes else "worn"),
        "/customs/CN") if e.returns_list else None
    outside.on[ship.ReturnAuthorised] = nothing
    if not confirms:
        outside.on[ship.ParcelDelivered] = nothing
    world, _ = given(duties_paid(order(destination="CN", merchant_id=merchant, **more), load()), outside=outside)
    return world


def sent_back(world, lines=None, asked: int = 0, back: int = 1) -> None:
    """Asked for `asked` days from now, and back `back` days later."""
    world.wait(days=asked)
    world.send(ask.RequestReturn(order_id="A1", lines=lines))
    world.run()
    world.wait(days=back)
    event = told(world, "ReturnAuthorised")[-1]
    world.send(report.ReturnReceivedReported(**ids(event), return_id=event.return_id), "/warehouse")
    world.run()


def balances(world) -> dict[str, int]:
    return {name.removesuffix(" CNY"): n for name, n in world.accounts().items()}


def test_tax_that_nobody_had_released_is_given_back_to_the_platform():
    world = imported(confirms=False)
    sent_back(world)
    assert balances(world) == {"buyer": -PAID, "refunded": PAID, "payable/CN": TAX, "reclaim/CN": -TAX}
    [claim] = told(world, "TaxReclaimed")
    assert (claim.amount, claim.credited, claim.authority, claim.list_no) == (TAX, "platform", "CN", "A1-P1.L1")


def test_what_the_merchant_paid_back_is_given_to_him():
    """He was settled, and gave his buyer everything back: of a whole return the tax is his again."""
    world = imported()
    sent_back(world)
    assert balances(world) == {"buyer": -PAID, "refunded": PAID, "payable/CN": TAX, "reclaim/CN": -TAX}
    assert [c.credited for c in told(world, "TaxReclaimed")] == ["merchant"] and not world.dead


@pytest.mark.parametrize("confirms", [True, False])
def test_of_one_unit_its_part_and_of_the_other_the_rest(confirms):
    world = imported(confirms=confirms, billed=521)
    sent_back(world, ONE)
    sent_back(world, ONE)
    assert [c.amount for c in told(world, "TaxReclaimed")] == [260, 261]
    assert balances(world)["reclaim/CN"] == -521 and world.balance()["refunded"] > 0


@pytest.mark.parametrize("asked, back, why", [(0, 44, ""), (29, 15, ""), (29, 17, "back_late"), (30, 1, "asked_late"), (1, 44, "back_late")])
def test_only_what_is_asked_for_and_back_in_time(asked, back, why):
    world = imported(confirms=False)
    world.state("shipping").parcels["A1-P1"].papers.released -= timedelta(hours=1)
    world.state("orders").timers.clear()  # the confirmation of somebody who says nothing
    sent_back(world, asked=asked, back=back)
    received = told(world, "ReturnReceived")
    assert [(r.why_late, r.late) for r in received] == [(why, bool(why))]
    assert [c.amount for c in told(world, "TaxReclaimed")] == ([] if why else [TAX])
    assert balances(world).get("variance", 0) == (-TAX if why else 0), "late: the platform's loss"


def test_a_day_without_a_rule_gives_nothing_back():
    """Customs' rule is of March 2020."""
    world = imported(confirms=False)
    entry = world.parties["shipping"].entries["A1"]
    china = entry.document.china.model_copy(update={"return_rule": "", "asked_days": 0, "back_days": 0})
    entry.document = replace(entry.document, china=china)
    sent_back(world)
    assert [r.why_late for r in told(world, "ReturnReceived")] == ["no_rule"] and not told(world, "TaxReclaimed")
    assert load().return_rule("CN", date(2020, 3, 27)) is None and load().return_rule("CN", date(2020, 3, 28)).back_within_days == 45


def test_what_customs_does_not_take_back_stays_taxed():
    world = imported(takes=False)
    sent_back(world)
    assert not told(world, "TaxReclaimed") and [w.reason for w in told(world, "ListWithdrawn")] == ["worn"]
    assert balances(world)["payable/CN"] == TAX


def test_where_customs_bills_nothing_what_was_declared_is_given_back():
    """From a bonded warehouse no bill comes: what was declared when the merchant was paid counts, and of nothing declared nothing."""
    world = imported(billed=None)
    sent_back(world)
    assert [c.amount for c in told(world, "TaxReclaimed")] == [TAX]
    world = imported(billed=None, confirms=False)
    sent_back(world)
    assert not told(world, "TaxReclaimed") and "payable/CN" not in balances(world)


def test_the_authority_pays_a_period_once():
    world = imported()
    sent_back(world)
    for n in "ab":
        world.send(RecoverTax(order_id="books:tax:CN", period="2026-11", currency="CNY", amount=TAX, bank_reference="B1"), "/finance", n)
        world.run()
    assert balances(world)["returned/CN"] == -TAX and "reclaim/CN" not in balances(world)
    assert [(t.authority, t.amount) for t in told(world, "TaxRecovered")] == [("CN", TAX)]
