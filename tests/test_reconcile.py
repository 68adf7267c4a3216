"""The provider's settlement file against the ledger: planted breaks of each kind are found, and nothing else."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest

from schemas.provider_api import SETTLEMENT_COLUMNS
from schemas.provider_fees import FeeRow, NotAgreed, fee
from services.cli.money_reconcile import BREAKS, Movement, match
from services.explorer.simulation import START


DAYS = {"valid_from": date(2020, 1, 1), "source": "for the test"}
AGREED = (FeeRow(id="f1", kind="capture", share=140, fixed={"EUR": 25}, **DAYS),
          FeeRow(id="f2", kind="refund", fixed={"EUR": 10}, **DAYS))


@pytest.mark.parametrize("kind, amount, currency, expected", [
    ("capture", 1000, "EUR", 39), ("capture", 1000, "JPY", 14), ("capture", 1035, "EUR", 39), ("capture", 1036, "EUR", 40),
    ("capture", 35, "JPY", 0), ("capture", 36, "JPY", 1), ("refund", 99_999, "EUR", 10), ("release", 5000, "EUR", 0)])
def test_a_fee_by_hand(kind, amount, currency, expected):
    """1.4 % rounded half up, and 0.25 EUR; 10.35 EUR: 14.49 ct + 25; 10.36: 14.504 + 25; 35 yen: 0.49."""
    assert fee(AGREED, kind, amount, currency, START.date()) == expected


def test_a_day_without_terms_is_refused():
    with pytest.raises(NotAgreed):
        fee(AGREED, "capture", 1, "EUR", date(2019, 12, 31))


def movements(n: int = 30) -> list[Movement]:
    """Payments with a capture, some with refunds of the same amount twice, and a release."""
    made = []
    for k in range(n):
        made.append(Movement(f"P{k}", "capture", "EUR", 1000 + k, START + timedelta(hours=k), f"O{k}"))
        if k % 3 == 0:
            made += [Movement(f"P{k}", "refund", "EUR", 100, START + timedelta(hours=k, minutes=m), f"O{k}") for m in (1, 2)]
        made.append(Movement(f"P{k}", "release", "EUR", 700, START + timedelta(hours=k, minutes=9), f"O{k}"))
    return made


def settled(booked: list[Movement]) -> list[list[str]]:
    return [[str(n), f"{m.payment_id}.{m.kind}.{n}", m.kind, m.payment_id, str(m.amount), m.currency, m.booked_at.isoformat(),
             str(fee(AGREED, m.kind, m.amount, m.currency, m.booked_at.date()))]
            for n, m in enumerate(booked, 1)]


def text(rows: list[list[str]], end: str | None = None) -> str:
    return "\n".join([",".join(SETTLEMENT_COLUMNS), *(",".join(row) for row in rows), end or f"end,{len(rows)}", ""])


def test_a_file_that_says_what_the_ledger_says_has_no_break():
    found = match(text(settled(movements())), movements())
    assert (found.lines, found.matched, found.open, found.breaks) == (80, 80, 0, [])


def test_the_order_of_lines_does_not_matter():
    rows = settled(movements())
    random.Random(1).shuffle(rows)
    assert match(text(rows), movements()).breaks == []


def _other_amount(rows, booked):
    rows[7][4] = str(int(rows[7][4]) + 1)
    return [("amount_differs", rows[7][3])]


def _other_currency(rows, booked):
    rows[8][5] = "USD"
    rows[8][7] = str(fee(AGREED, rows[8][2], int(rows[8][4]), "USD", START.date()))
    return [("currency_differs", rows[8][3])]


def _doubled(rows, booked):
    rows.insert(3, list(rows[2]))
    return [("doubled", rows[2][3])]


def _moved_twice(rows, booked):
    rows.insert(3, [*rows[2][:1], "another", *rows[2][2:]])
    return [("not_in_ledger", rows[2][3])]


def _missing_line(rows, booked):
    return [("not_in_file", rows.pop(5)[3])]


def _not_booked(rows, booked):
    gone = booked.pop(10)
    return [("not_in_ledger", gone.payment_id)]


def _stranger(rows, booked):
    rows.append(["99", "x", "capture", "P-unknown", "5", "EUR", START.isoformat(), "25"])
    return [("unknown_payment", "P-unknown")]


def _garbage(rows, booked):
    rows[4][4] = "12.50"
    return [("unreadable", ""), ("not_in_file", rows[4][3])]


def _cut(rows, booked):
    return [("cut_short", "")]


def _wrong_fee(rows, booked):
    rows[2][7] = str(int(rows[2][7]) + 1)
    return [("fee_differs", rows[2][3])]


def _fee_of_no_day(rows, booked):
    rows[0][6], rows[0][7] = "2019-12-31T23:59:59+00:00", "0"
    return [("fee_not_agreed", rows[0][3])]


PLANTED = [_wrong_fee, _fee_of_no_day, _other_amount, _other_currency, _doubled, _moved_twice, _missing_line, _not_booked, _stranger, _garbage, _cut]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__[1:])
def test_a_planted_break_is_found_and_no_other(plant):
    booked = movements()
    rows = settled(booked)
    expected = plant(rows, booked)
    found = match(text(rows, f"end,{len(rows) + 1}" if plant is _cut else None), booked, AGREED)
    assert sorted((b.what, b.payment_id) for b in found.breaks) == sorted(expected)


def test_every_kind_of_break_is_planted():
    kinds = set()
    for plant in PLANTED:
        booked = movements()
        kinds |= {what for what, _ in plant(settled(booked), booked)}
    assert kinds == set(BREAKS)


def test_what_was_booked_after_the_files_end_is_open():
    booked = movements()
    later = Movement("P1", "refund", "EUR", 5, START + timedelta(days=9), "O1")
    found = match(text(settled(booked)), [*booked, later])
    assert (found.open, found.breaks) == (1, [])


def test_another_kind_of_file_is_told_as_such():
    (only,) = match("a,b,c\n1,2,3\n", []).breaks
    assert only.what == "unreadable" and only.where == "line 1"
