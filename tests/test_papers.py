"""Customs papers that lack something: the order waits, says for what and how long, and goes on when it is supplied."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas import orders_intake as ask
from schemas import shipping_shipment as ship
from schemas.lifecycle import deadlines
from schemas.orders_intake import OrderLine
from services.explorer.simulation import START, order
from services.orders.declarations import declared
from services.orders.rulebook import load
from tests.test_lifecycle import Outside, ends, given


def _lacking(line_no: int = 2):
    lines = [OrderLine(line_no=n, sku=f"TOY-{n}", quantity=1, amount=5000, hs_code="000000" if n == line_no else "950300")
             for n in (1, 2)]
    return order(lines=(("TOY", 1, 10_000),)).model_copy(update={"lines": lines})


def _codes(*lines: int) -> ask.SupplyDocuments:
    return ask.SupplyDocuments(order_id="A1", lines=[ask.SuppliedCode(line_no=n, hs_code="950300") for n in lines])


def test_what_is_missing_is_named_with_its_deadline_and_the_order_goes_on_when_it_comes():
    heard, outside = [], Outside()
    outside.on[ship.DocumentsMissing] = lambda e, w: heard.append(e)
    world, _ = given(_lacking(), outside=outside)
    assert [(m.line_no, m.what) for m in heard[0].missing] == [(2, "hs_code: no such chapter")]
    assert heard[0].until == START + timedelta(seconds=deadlines()["authorisation"])
    assert "DocumentsReady" not in world.types() and "PaymentHeld" not in world.types()
    world.send(_codes(2))
    world.run(doubles=True)
    ends(world, "completed", released=10_700, buyer=-10_700)
    assert world.types().count("DocumentsReady") == 1


def _into_germany(amount: int, code: str, currency: str = "EUR", to: str = "DE"):
    placed = order(lines=(("TOY", 1, amount),), destination=to)
    lines = [OrderLine(line_no=1, sku="TOY", quantity=1, amount=amount, hs_code=code)]
    return placed.model_copy(update={"currency": currency, "lines": lines})


# Each by hand from docs/trade.md; the goods' value decides, the limit is inclusive.
@pytest.mark.parametrize("to, currency, amount, name, digits", [
    ("DE", "EUR", 15_000, "H7", 6), ("DE", "EUR", 15_001, "H1", 8), ("FR", "EUR", 1, "H7", 6),
    ("GB", "GBP", 13_500, "CDS", 6), ("GB", "GBP", 13_501, "CDS", 8), ("JP", "JPY", 900_000, "local", 6),
    ("DE", "JPY", 100, None, None)])  # no customs rate of the yen into the euro: a broker declares
def test_the_declaration_is_chosen_by_value(to, currency, amount, name, digits):
    found = declared(_into_germany(amount, "950300", currency, to), None, load())
    assert (found and found.name, found and found.hs_digits) == (name, digits)


def test_into_the_united_states_ten_digits_since_low_values_are_not_exempt():
    placed = _into_germany(5_000, "950300", "USD", "US").model_copy(update={"origin": "GB"})
    days = {datetime(2025, 8, 20, tzinfo=UTC): ("T13", 6), datetime(2026, 11, 1, tzinfo=UTC): ("T11", 10)}
    for day, expected in days.items():
        found = declared(placed.model_copy(update={"placed_at": day}), None, load())
        assert (found.name, found.hs_digits) == expected
    beyond = placed.model_copy(update={"lines": [placed.lines[0].model_copy(update={"amount": 250_001})]})
    assert declared(beyond, None, load()) is None  # formal entry: a broker's


def test_no_border_no_declaration():
    assert declared(_into_germany(5_000, "950300").model_copy(update={"origin": "FR"}), None, load()) is None


def test_a_code_too_short_for_its_declaration_is_named_and_so_is_a_supplied_one():
    heard, outside = [], Outside()
    outside.on[ship.DocumentsMissing] = lambda e, w: heard.append(e)
    world, _ = given(_into_germany(20_000, "950300"), outside=outside)
    assert [(m.line_no, m.what) for m in heard[0].missing] == [(1, "hs_code: H1 asks for 8 digits, not 6")]
    world.send(_codes(1))
    world.run()
    assert world.types()[-1] == "CommandRefused" and "PaymentHeld" not in world.types()
    world.send(ask.SupplyDocuments(order_id="A1", lines=[ask.SuppliedCode(line_no=1, hs_code="95030049")]))
    world.run()
    assert "PaymentHeld" in world.types() and world.state("orders").status == "completed"


@pytest.mark.parametrize("lines, reason", [((9,), "unknown_line"), ((1,), None)])
def test_what_was_not_asked_for_changes_nothing(lines, reason):
    world, _ = given(_lacking())
    world.send(_codes(*lines))
    world.run()
    assert "PaymentHeld" not in world.types()
    assert ("CommandRefused" in world.types()) == (reason is not None)
    world.wait(days=8)
    ends(world, "cancelled", reason="authorisation_expired")


def test_what_comes_too_late_is_refused():
    world, _ = given(_lacking())
    world.wait(days=8)
    world.send(_codes(2))
    world.run()
    assert world.types()[-1] == "CommandRefused"
    ends(world, "cancelled", reason="authorisation_expired")


def test_supplied_before_it_is_asked_for_is_enough():
    outside = Outside()
    outside.silent = {"authorise"}
    asked = []
    world, _ = given(_lacking(), outside=outside)
    outside.silent = set()
    world.send(_codes(2))
    world.run()
    outside.on[ship.DocumentsMissing] = lambda e, w: asked.append(e)
    world.send(ask.CancelOrder(order_id="A1"))
    world.run()
    assert asked == [] and world.state("shipping").supplied == [2]


def test_what_is_supplied_while_goods_are_awaited_holds_nothing_up():
    placed = _lacking().model_copy(update={"on_shortage": "wait"})
    world, _ = given(placed, stock={})
    world.send(_codes(2))
    world.run()
    world.send(ask.CancelOrder(order_id="A1"))
    world.run()
    ends(world, "cancelled")
