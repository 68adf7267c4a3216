"""An order whose duty and taxes are paid with it: its quote is worked out again, and frozen, or refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from rich.console import Console

from schemas.orders_intake import OrderLine, PlaceOrder
from schemas.orders_order import OrderPlaced, OrderRejected
from schemas.parties import Person, seal
from schemas.quotes import PAID_TO_OTHERS, Quote, QuoteLine, QuoteRequest, StatedLine, StatedQuote
from services.cli.duties import duties_paid
from services.cli.order_records import Event
from services.cli.order_show import Show, as_json
from services.cli.order_state import Look, View
from services.cli.timeline import facts
from services.orders import machine
from services.orders.landed_cost import Refusal, landed_cost
from services.orders.rulebook import load
from services.runtime.decision import Incoming
from tests.test_quote import OUTSIDE

KEY = bytes(range(32))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = load(OUTSIDE)
LINES = (("950300", 1, 4000), ("610910", 2, 1500))


def quoted(currency: str = "EUR", **more) -> tuple[QuoteRequest, Quote]:
    request = QuoteRequest(**(dict(
        destination="DE", import_date=date(2026, 11, 26), currency=currency, freight=450, insurance=50,
        lines=[QuoteLine(line_no=n, hs_code=hs, origin="CN", quantity=q, amount=a) for n, (hs, q, a) in enumerate(LINES, 1)])
        | more))
    quote = landed_cost(request, RULES)
    assert isinstance(quote, Quote), quote
    return request, quote


def order(stated: StatedQuote | None, quote: Quote, **more) -> PlaceOrder:
    person = seal(Person(name="Test Buyer"), KEY)
    lines = [OrderLine(line_no=n, sku=f"SKU-{n}", quantity=q, amount=a, hs_code=hs) for n, (hs, q, a) in enumerate(LINES, 1)]
    fields = dict(
        order_id="A1", merchant_id="m1", currency=quote.currency, origin="CN", destination=quote.destination, lines=lines,
        freight=500, tax=quote.amount(*PAID_TO_OTHERS), payment_token="tok", buyer=person, consignee=person, placed_at=NOW,
        quote=stated) | more
    goods = sum(line.amount for line in fields["lines"])
    return PlaceOrder(**fields, total=goods + fields["freight"] + fields["tax"])


def placed(command: PlaceOrder, rules=RULES) -> machine.Decision:
    # As it comes over the topic, so that strict types and dates are those of JSON.
    command = PlaceOrder.model_validate_json(command.model_dump_json())
    incoming = Incoming("PlaceOrder", "e", "/storefront", 0, NOW, command)
    return machine.decide(machine.Order("A1"), None, incoming, KEY, NOW, rules)


def refusal(command: PlaceOrder, rules=RULES) -> OrderRejected:
    (event,) = placed(command, rules).events
    assert isinstance(event, OrderRejected), event
    return event


@pytest.mark.parametrize("currency", ["EUR", "USD", "JPY", "KWD"])
def test_a_quote_that_holds_is_frozen_on_the_order_with_its_rules_and_rate(currency):
    request, quote = quoted(currency)
    decision = placed(order(StatedQuote.of(quote, request), quote))
    (event,) = decision.events
    assert isinstance(event, OrderPlaced) and event.quote == quote and event.total == quote.total
    assert event.quote.rule_id == "eu.low-value.ioss.2026"
    assert (event.quote.customs_rate is None) == (currency == "EUR")
    kept = machine.DOCUMENT.validate_json(machine.DOCUMENT.dump_json(decision.document))
    assert kept.quote == quote and kept.quantities == {1: 1, 2: 2}
    assert OrderPlaced.model_validate_json(event.model_dump_json()).quote == quote


def test_an_order_without_a_quote_is_as_it_was():
    _, quote = quoted()
    decision = placed(order(None, quote, tax=123))
    assert decision.events[0].quote is None and decision.document.quote is None


def test_a_document_of_before_quotes_is_still_read():
    assert machine.DOCUMENT.validate_json('{"quantities": {"1": 2}}') == machine.Document({1: 2})


@pytest.mark.parametrize(("change", "named"), [
    ({"duty": 500}, "duty is 600, not 500"), ({"import_tax": 1}, "import_tax is 1254, not 1"),
    ({"clearance_fee": 200}, "clearance_fee is 0, not 200"),
    ({"rule_id": "eu.full"}, "rule is eu.low-value.ioss.2026, not eu.full"),
    ({"insurance": 501}, "insurance 501 is more than"),
    ({"import_date": date(2028, 6, 30), "duty": 0}, "duty is 600, not 0"),
])
def test_a_quote_that_says_something_else_is_refused_by_what_differs(change, named):
    request, quote = quoted()
    told = refusal(order(StatedQuote.of(quote, request).model_copy(update=change), quote))
    assert told.reason == "quote_mismatch" and named in told.detail


def test_another_customs_rate_is_refused():
    request, quote = quoted("USD")
    stated = StatedQuote.of(quote, request)
    dearer = stated.model_copy(update={"customs_rate": stated.customs_rate.model_copy(update={"rate": "0.9"})})
    told = refusal(order(dearer, quote))
    assert told.reason == "quote_mismatch" and "customs rate is 0.8 (test.rate.USD), not 0.9" in told.detail


def test_a_tax_beside_the_quote_is_refused():
    request, quote = quoted()
    told = refusal(order(StatedQuote.of(quote, request), quote, tax=quote.amount(*PAID_TO_OTHERS) + 1))
    assert told.reason == "quote_mismatch" and "tax is 1854, not 1855" in told.detail


def test_another_price_than_the_quoted_one_is_refused():
    request, quote = quoted()
    command = order(StatedQuote.of(quote, request), quote)
    cheaper = command.lines[0].model_copy(update={"amount": 3000})
    told = refusal(command.model_copy(update={"lines": [cheaper, command.lines[1]], "total": command.total - 1000}))
    assert told.reason == "quote_mismatch" and "import_tax" in told.detail


@pytest.mark.parametrize(("change", "reason"), [
    ({"import_date": date(2026, 11, 22)}, "quote_date"),
    ({"lines": [StatedLine(line_no=1, origin="CN")]}, "quote_lines"),
    ({"lines": [StatedLine(line_no=1, origin="CN"), StatedLine(line_no=1, origin="CN")]}, "quote_lines"),
    ({"lines": [StatedLine(line_no=1, origin="CN"), StatedLine(line_no=3, origin="CN")]}, "quote_lines"),
    ({"lines": [StatedLine(line_no=1, origin="XX"), StatedLine(line_no=2, origin="CN")]}, "quote_refused"),
    ({"mode": "9610"}, "quote_refused"),
    ({"import_date": date(2028, 7, 1)}, "quote_refused"),
])
def test_a_quote_that_cannot_be_worked_out_is_refused_by_name(change, reason):
    request, quote = quoted()
    told = refusal(order(StatedQuote.of(quote, request).model_copy(update=change), quote))
    assert told.reason == reason and told.detail


def test_what_the_rules_at_hand_cannot_give_is_refused():
    request, quote = quoted("USD")
    told = refusal(order(StatedQuote.of(quote, request), quote), rules=None)
    assert told.reason == "quote_refused" and "no_customs_rate" in told.detail


def test_a_line_without_a_code_a_border_that_is_none_and_taxes_on_arrival_are_refused():
    request, quote = quoted()
    stated = StatedQuote.of(quote, request)
    bare = [line.model_copy(update={"hs_code": None}) for line in order(stated, quote).lines]
    assert refusal(order(stated, quote, lines=bare)).reason == "quote_lines"
    assert refusal(order(stated, quote, origin="FR")).reason == "quote_not_an_import"
    request, quote = quoted(destination="AU")
    assert refusal(order(StatedQuote.of(quote, request), quote)).reason == "quote_incomplete"


def test_the_total_is_checked_before_the_quote():
    request, quote = quoted()
    command = order(StatedQuote.of(quote, request), quote)
    assert refusal(command.model_copy(update={"total": command.total + 1})).reason == "total_mismatch"


def test_the_timeline_tells_charges_rule_and_rate():
    request, quote = quoted("USD")
    (event,) = placed(order(StatedQuote.of(quote, request), quote)).events
    record = Event("orders.order.v1", 0, 0, NOW, "orders", "OrderPlaced", "e", data=event.model_dump(mode="json"))
    told = facts(record)
    for part in ("duty USD 7.50", "import tax USD 12.83", "landed cost by eu.low-value.ioss.2026, import 2026-11-26",
                 "1 USD = 0.8 EUR (test.rate.USD)"):
        assert part in told, told


def test_an_order_is_placed_on_its_quote_and_a_total_that_is_wrong_on_purpose_stays_wrong():
    _, quote = quoted()
    plain = order(None, quote, tax=0)
    paid = duties_paid(plain, RULES)
    assert paid.quote.import_date == date(2026, 11, 26) and paid.tax == paid.total - plain.total > 0
    (event,) = placed(paid).events
    assert isinstance(event, OrderPlaced) and event.quote.amount(*PAID_TO_OTHERS) == paid.tax
    wrong = duties_paid(plain.model_copy(update={"total": plain.total + 1}), RULES)
    assert refusal(wrong).reason == "total_mismatch"


@pytest.mark.parametrize(("change", "reason"), [
    ({"origin": "FR"}, "quote_not_an_import"), ({"destination": "AU"}, "quote_incomplete"),
    ({"currency": "SEK"}, "no_customs_rate")])
def test_where_no_quote_is_to_be_had_the_reason_is_named(change, reason):
    _, quote = quoted()
    told = duties_paid(order(None, quote, tax=0, **change), RULES)
    assert isinstance(told, Refusal) and told.remedy and told.reason == reason


def test_an_order_shown_has_its_landed_cost():
    request, quote = quoted("USD")
    decision = placed(order(StatedQuote.of(quote, request), quote))
    views = {"orders": View("orders", "placed", False, 1, decision.state, document=decision.document)}
    console = Console(width=160)
    with console.capture() as shown:
        console.print(Show(Look("A1", views, NOW)))
    for word in ("landed cost", "USD 12.83", "EUR 10.26", "DE tax authority", "eu.vat.DE.2021"):
        assert word in shown.get(), word
    assert as_json(Look("A1", views, NOW))["landed_cost"] == quote.model_dump(mode="json")
