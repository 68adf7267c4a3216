"""Landed cost for the other commands: an order placed on a quote (DDP), and how a quote is shown."""

from __future__ import annotations

from datetime import timedelta

from rich.table import Table

from schemas.orders_intake import PlaceOrder
from schemas.quotes import PAID_TO_OTHERS, Quote, QuoteLine, QuoteRequest, StatedQuote
from services.cli.timeline import money
from services.orders.landed_cost import Refusal, landed_cost
from services.orders.rulebook import Rules

# The promise from door to door is 72 hours; customs sees a parcel within them.
PREDICTED_IMPORT = timedelta(days=3)


def duties_paid(order: PlaceOrder, rules: Rules) -> PlaceOrder | Refusal:
    """`order` with the quote it is placed on, and with what goes to others as its tax. Goods count as made where they are
    sent from."""
    if rules.territory(order.origin) == rules.territory(order.destination):
        return Refusal("quote_not_an_import", f"from {order.origin} to {order.destination} no border of customs is crossed",
                       "destination", "Place the order without duties.")
    if missing := [line.line_no for line in order.lines if line.hs_code is None]:
        return Refusal("quote_lines", "a line has no hs_code", f"line {missing[0]}", "Give the code of its goods.")
    lines = [QuoteLine(line_no=line.line_no, hs_code=line.hs_code, origin=order.origin, quantity=line.quantity,
                       amount=line.amount) for line in order.lines]
    request = QuoteRequest(destination=order.destination, import_date=(order.placed_at + PREDICTED_IMPORT).date(),
                           currency=order.currency, lines=lines, freight=order.freight)
    quote = landed_cost(request, rules)
    if isinstance(quote, Refusal):
        return quote
    if not quote.complete:
        return Refusal("quote_incomplete", f"by {quote.rule_id} duty and tax are paid on arrival", order.destination,
                       "Place the order without duties, or give the destination's rates (TRADEWIND_RATES_FILE).")
    tax = quote.amount(*PAID_TO_OTHERS)
    # Kept by difference: a total that was wrong on purpose stays wrong.
    stated = StatedQuote.of(quote, request)
    return order.model_copy(update={"tax": tax, "total": order.total - order.tax + tax, "quote": stated})


def charges_of(quote: Quote, title: str | None = None) -> Table:
    """Every charge: how much, who levies and who collects it, how sure it is, and the rows it follows from."""
    foreign = quote.customs_currency != quote.currency
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("charge", "amount", *(["assessed"] if foreign else []), "levied by", "collected", "certainty", "rules"):
        table.add_column(name, justify="right" if name in ("amount", "assessed") else "left", overflow="fold")
    for charge in quote.charges:
        assessed = [money(charge.assessed, quote.customs_currency)] if foreign else []
        table.add_row(charge.kind.replace("_", " "), money(charge.amount, quote.currency), *assessed, charge.levied_by,
                      f"by {charge.collected_by} at {charge.collect_at}", charge.certainty or "-", ", ".join(charge.rows))
    table.add_row("total", money(quote.total, quote.currency), style="bold")
    return table


def customs_rate_of(quote: Quote) -> str:
    """One line about the customs exchange rate of a quote that needed one."""
    rate = quote.customs_rate
    assert rate is not None, "only a quote in another currency than customs' has a rate"
    return f"customs counts in {quote.customs_currency}: 1 {rate.base} = {rate.rate} {rate.quote} ({rate.id})"
