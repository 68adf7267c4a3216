"""The books of the house: tax remitted to an authority and paid back by it, a merchant's statements and payouts. Pure.

Sums over orders come with the command, read from the ledger by whoever asks; what is kept here is what was booked already, so
that nothing is stated, remitted or paid out twice. An entry's `payment_id` names the exchange quote or bank reference, its
`parcel_id` the period, statement or batch.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import iso4217

from schemas import books as out
from schemas.dead_letters import Reason
from services.payments.account import FIGURES, Account, Book, Work
from services.runtime.decision import Decision, Impossible, Incoming, Stale

AMOUNT_MAX = 10**13  # as schemas.model.Minor
HOUSE = "platform"  # whose events the tax books' are


def decide(account: Account, incoming: Incoming, now: datetime) -> Decision | Stale:
    """One command of finance."""
    draft, event = account.draft(), incoming.data
    prefix = _PREFIXES.get(incoming.type, out.MERCHANT_BOOK)
    name = account.order_id.removeprefix(prefix)
    if name == account.order_id or not name:
        raise Impossible(Reason.KEY, f"{incoming.type} belongs to a key {prefix}…, not {account.order_id!r}")
    draft.status, draft.closed = "books", True
    draft.merchant_id = HOUSE if incoming.type in _PREFIXES else name
    draft.book = account.book.draft() if account.book else Book()
    work = Work(draft, now)
    answer = HANDLERS[incoming.type](work, draft.book, event, name)
    return answer or Decision(draft, work.events, rows=work.rows)


def misplaced(work: Work, incoming: Incoming) -> None:
    raise Impossible(Reason.KEY, f"{incoming.type} is about a book of the house, not about an order")


def _remit(work: Work, book: Book, event: out.RemitTax, authority: str) -> Stale | None:
    key = f"{event.claim} {event.period} {event.currency} {event.bank_reference}"
    if key in book.done:
        return Stale("remitted before")
    book.done[key] = event.amount
    work.post("remit", event.bank_reference, event.period, [
        (f"{event.claim}/{authority}", -event.amount), (f"remitted/{authority}", event.amount)], event.currency)
    _emit(work, out.TaxRemitted, claim=event.claim, authority=authority, period=event.period, currency=event.currency,
          amount=event.amount, bank_reference=event.bank_reference)
    return None


def _recover(work: Work, book: Book, event: out.RecoverTax, authority: str) -> Stale | None:
    key = f"reclaim {event.period} {event.currency} {event.bank_reference}"
    if key in book.done:
        return Stale("recovered before")
    book.done[key] = event.amount
    work.post("tax_back", event.bank_reference, event.period, [
        (f"returned/{authority}", -event.amount), (f"reclaim/{authority}", event.amount)], event.currency)
    _emit(work, out.TaxRecovered, authority=authority, period=event.period, currency=event.currency, amount=event.amount,
          bank_reference=event.bank_reference)
    return None


def _fees(work: Work, book: Book, event: out.BookProviderFees, provider: str) -> Stale | None:
    key = f"fees {event.period} {event.currency}"
    more = event.total - book.done.get(key, 0)
    if not more:
        return Stale("booked before")
    book.done[key] = event.total
    work.post("provider_fee", provider, event.period, [("provider_fees", -more), ("provider", more)], event.currency)
    _emit(work, out.ProviderFeesBooked, period=event.period, currency=event.currency, amount=more, total=event.total)
    return None


def _close(work: Work, book: Book, event: out.CloseStatement, merchant: str) -> Stale | None:
    if event.statement_id in book.done:
        return Stale("stated before")
    lines, total = [], 0
    for line in event.lines:
        figures = [getattr(line, name) for name in FIGURES]
        gross, refunds, fee, withheld, reserve, back, claims, net, chargebacks = figures
        if gross - refunds - chargebacks - fee - withheld - reserve + back + claims != net:
            raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.statement_id}: the figures in {line.currency} do not give {net}")
        if back:
            work.post("reserve_back", line.fx, event.statement_id, [("reserve", -back), ("merchant", back)], line.currency)
        converted, gain = _converted(work, event.statement_id, line)
        total += converted
        book.due[line.payout] = book.due.get(line.payout, 0) + converted
        key = f"{line.currency} {line.fx}".rstrip()
        book.stated[key] = [a + b for a, b in zip_longest(book.stated.get(key, []), figures, fillvalue=0)]
        lines.append(out.StatedLine(**line.model_dump(), converted=converted, fx_gain=gain))
    book.done[event.statement_id] = total
    _emit(work, out.StatementClosed, statement_id=event.statement_id, lines=lines, due=dict(book.due))
    return None


def _converted(work: Work, statement_id: str, line: out.StatementLine) -> tuple[int, int]:
    """(net in the payout currency, the platform's gain): once, by the orders' quote; what the market gives more is a gain."""
    if line.currency == line.payout:
        return line.net, 0
    agreed = convert(line.net, line.currency, line.payout, line.rate)
    market = convert(line.net, line.currency, line.payout, line.market)
    if max(abs(agreed), abs(market), abs(market - agreed)) > AMOUNT_MAX:
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{statement_id}: {line.net} {line.currency} is beyond any amount in {line.payout}")
    if line.net:
        work.post("convert", line.fx, statement_id, [("merchant", -line.net), ("position", line.net)], line.currency)
    if agreed or market:
        work.post("convert", line.fx, statement_id, [("merchant", agreed), ("position", -market), ("fx", market - agreed)],
                  line.payout)
    return agreed, market - agreed


def _pay(work: Work, book: Book, event: out.PayMerchant, merchant: str) -> Stale | None:
    key = f"{event.batch_id} {event.currency}"
    if key in book.done:
        return Stale("paid before")
    if work.account.stops:
        return Stale("the merchant is stopped: nothing is paid to him")
    due = book.due.get(event.currency, 0)
    if event.amount > due:
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.batch_id} pays {event.amount} {event.currency}, {due} is due")
    book.done[key], book.due[event.currency] = event.amount, due - event.amount
    work.post("payout", event.bank_reference, event.batch_id, [("merchant", -event.amount), ("paid_out", event.amount)],
              event.currency)
    _emit(work, out.MerchantPaid, batch_id=event.batch_id, currency=event.currency, amount=event.amount,
          bank_reference=event.bank_reference)
    return None


def _emit(work: Work, model: type, **fields: Any) -> None:
    work.events.append(model.model_construct(order_id=work.account.order_id, **fields))


def convert(amount: int, base: str, quote: str, rate: str) -> int:
    """Minor units of `base` in those of `quote`; 1 base = `rate` quote in whole units; half to even."""
    return round(amount * _minor_rate(base, quote, rate))


@lru_cache(maxsize=4096)
def _minor_rate(base: str, quote: str, rate: str) -> Fraction:
    return Fraction(rate) * Fraction(10) ** (iso4217.Currency(quote).exponent - iso4217.Currency(base).exponent)


HANDLERS = {"RemitTax": _remit, "RecoverTax": _recover, "CloseStatement": _close, "PayMerchant": _pay, "BookProviderFees": _fees}
_PREFIXES = {"RemitTax": out.TAX_BOOK, "RecoverTax": out.TAX_BOOK, "BookProviderFees": out.PROVIDER_BOOK}  # the house's own
