"""Rules of the books of the house: tax remitted, statements, payouts. Each booking is worked out again from its event."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import iso4217

from schemas.books import MERCHANT_BOOK, PROVIDER_BOOK, TAX_BOOK
from schemas.ledger import ACCOUNTS, BOOKS, KINDS, SIGNS, account_of
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule


@order_rule(28, "a book of the house is its events, folded", stock=True, live=False)
def book_from_topic(case: Case) -> Iterator[Verdict]:
    if not case.order_id.startswith(BOOKS):
        return
    told: Counter[tuple[str, str, str]] = Counter()
    for event in case.story.events["payments"]:
        _fold(told, case.order_id, event.type, event.data)
    have: Counter[tuple[str, str, str]] = Counter()
    for row in case.ledger:
        have[row.kind, row.account, row.currency] += row.amount
    for key in told.keys() | have.keys():
        yield None if told[key] == have[key] else [f"{key}: events {told[key]}, ledger {have[key]}"]


def _fold(sums: Counter, book: str, type_: str, event: Any) -> None:
    def move(kind: str, currency: str, **accounts: int) -> None:
        for account, amount in accounts.items():
            sums[kind, account, currency] += amount

    if type_ == "TaxRemitted":
        authority = book.removeprefix(TAX_BOOK)
        move("remit", event.currency, **{f"{event.claim}/{authority}": -event.amount, f"remitted/{authority}": event.amount})
    elif type_ == "TaxRecovered":
        authority = book.removeprefix(TAX_BOOK)
        move("tax_back", event.currency, **{f"returned/{authority}": -event.amount, f"reclaim/{authority}": event.amount})
    elif type_ == "ProviderFeesBooked":
        move("provider_fee", event.currency, provider_fees=-event.amount, provider=event.amount)
    elif type_ == "MerchantPaid":
        move("payout", event.currency, merchant=-event.amount, paid_out=event.amount)
    elif type_ == "StatementClosed":
        for line in event.lines:
            move("reserve_back", line.currency, reserve=-line.reserve_back, merchant=line.reserve_back)
            if line.currency != line.payout:
                agreed, market = _convert(line, line.rate), _convert(line, line.market)
                move("convert", line.currency, merchant=-line.net, position=line.net)
                move("convert", line.payout, merchant=agreed, position=-market, fx=market - agreed)


def _convert(line: Any, rate: str) -> int:
    """By decimals, not by the fractions that payments uses; half to even."""
    shift = iso4217.Currency(line.payout).exponent - iso4217.Currency(line.currency).exponent
    return int((Decimal(line.net) * Decimal(rate)).scaleb(shift).quantize(Decimal(1), ROUND_HALF_EVEN))


@order_rule(9, "a provider's fees of a month add up to what its files say", stock=True)
def provider_fees_add_up(case: Case) -> Iterator[Verdict]:
    if not case.order_id.startswith(PROVIDER_BOOK):
        return
    sums: Counter[tuple[str, str]] = Counter()
    for event in case.story.events["payments"]:
        key = event.data.period, event.data.currency
        sums[key] += event.data.amount
        yield None if event.data.amount and sums[key] == event.data.total else [
            str(event), f"{key}: {event.data.amount} more makes {sums[key]}, not {event.data.total}"]


@whole_rule(8, "no account is on the wrong side", live=False)
def signs_are_kept(whole: Whole) -> Iterator[WholeVerdict]:
    for (account, currency), amount in whole.accounts.items():
        if sign := SIGNS.get(account_of(account)):
            yield None if amount * sign >= 0 else ("", [f"{account} has {amount} {currency}"])


@order_rule(9, "a statement adds up, and is converted once; nobody is paid more than is due", stock=True)
def statements_add_up(case: Case) -> Iterator[Verdict]:
    if not case.order_id.startswith(MERCHANT_BOOK):
        return
    due: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for event in case.story.events["payments"]:
        name = f"{event.type} {getattr(event.data, 'statement_id', '') or f'{event.data.batch_id} {event.data.currency}'}"
        names[name] += 1
        yield None if names[name] == 1 else [str(event), f"{name} a second time"]
        if event.type == "StatementClosed":
            for line in event.data.lines:
                net = (line.gross - line.refunds - line.chargebacks - line.fee - line.withheld - line.reserve + line.reserve_back
                       + line.claims)
                right = line.net if line.currency == line.payout else _convert(line, line.rate)
                yield None if (net, right) == (line.net, line.converted) else [
                    str(event), f"{line.currency}: the figures give {net}, net {line.net}; converted {line.converted}, not {right}"]
                due[line.payout] += line.converted
            told = {currency: amount for currency, amount in event.data.due.items() if amount}
            yield None if told == {c: n for c, n in due.items() if n} else [str(event), f"due {told}, by its history {dict(due)}"]
        elif event.type == "MerchantPaid":
            due[event.data.currency] -= event.data.amount
            left = due[event.data.currency]
            yield None if left >= 0 else [str(event), f"{-left} {event.data.currency} more than was due"]


@order_rule(13, "entries of the books have whole sides", stock=True)
def books_balance(case: Case) -> Iterator[Verdict]:
    if not case.order_id.startswith(BOOKS):
        return
    sums: Counter[tuple[int, str]] = Counter()
    for row in case.ledger:
        sums[row.entry, row.currency] += row.amount
        known = account_of(row.account) in ACCOUNTS and row.kind in KINDS
        yield None if known else [f"entry {row.entry}: {row.account} ({row.kind}) is in no plan"]
    for (entry, currency), amount in sums.items():
        yield None if amount == 0 else [f"entry {entry} is off by {amount} {currency}"]


@whole_rule(9, "tax payable = assessed - remitted, never below zero", live=False)
def never_remitted_too_much(whole: Whole) -> Iterator[WholeVerdict]:
    for (account, currency), amount in whole.accounts.items():
        if account_of(account) in ("payable", "withheld"):
            yield None if amount >= 0 else ("", [f"{account}: {-amount} {currency} more remitted than assessed"])
