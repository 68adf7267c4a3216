"""The reader of real orders: the table of counts, each rule on a small file, and files that are not as agreed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.simulators import retail
from services.simulators.retail import BadFile, read, report, shifted, verdicts, write_verdicts
from services.simulators.retail_csv import COLUMNS, country_code, records
from services.simulators.retail_sample import sample

HERE = Path(__file__).parent
SAMPLE = HERE / "data" / "online-retail-sample.csv.gz"
SHARED = HERE.parent.parent / "shared" / "data" / "online-retail-2010-12-to-2011-05.csv.gz"
HEADER = ",".join(COLUMNS)
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the shared data does not lie beside the repository")


def line(invoice="1", code="10001", quantity="1", at="2010-12-01T10:00:00", price="1.50", customer="7",
         country="France", description="A MUG"):
    return f"{invoice},{code},{description},{quantity},{at},{price},{customer},{country}"


def write(folder: Path, *lines: str, name: str = "orders.csv") -> Path:
    path = Path(folder) / name
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return path


def reasons(path: Path) -> list[str]:
    return [verdict.reason for verdict in verdicts(read(path))]


# --- The real files -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    if not SHARED.exists():
        pytest.skip("the shared data does not lie beside the repository")
    return read(SHARED)


@pytest.fixture(scope="module")
def committed():
    return read(SAMPLE)


def test_the_whole_file_gives_every_count_of_the_table(whole):
    told = report(whole)
    assert told["reasons"] == {
        "stock_adjustment": 651,
        "price_zero": 641,
        "cancellation_of_neither_goods_nor_postage": 201,
        "cancellation_of_postage_without_earlier_match": 42,
        "cancellation_without_customer": 79,
        "cancellation_without_earlier_match": 877,
        "manual": 136,
        "gift_voucher": 17,
        "bank_charge": 4,
        "marketplace_fee": 2,
        "sample": 1,
        "sub_penny_price": 1,
        "postage_without_goods": 15,
        "not_a_country": 85,
        "same_invoice_code_and_price": 3109,
        "goods": 199776,
        "freight": 808,
        "goods_cancelled": 2553,
        "goods_cancelled_in_part": 17,
        "postage_cancelled": 14,
    }
    assert sum(told["reasons"][r] for r in ("manual", "gift_voucher", "bank_charge", "marketplace_fee", "sample",
                                            "sub_penny_price")) == 161
    assert (told["lines"], told["accepted"], told["merged"], told["refused"]) == (209029, 203168, 3109, 2752)
    assert (told["orders"], told["orders_of_guests"], told["money_difference"]) == (8063, 702, 0)
    assert sum(x.sku.startswith("DCGS") for order in whole.orders for x in order.lines) == 24
    assert sum(country != "GB" for country in told["orders_by_country"]) == 33
    assert told["undos_by_kind"] == {"cancel": 306, "grant_refund": 430, "return": 1862}


def test_the_sample_has_these_counts(committed):
    told = report(committed)
    assert (told["lines"], told["accepted"], told["merged"], told["refused"]) == (48350, 46865, 802, 683)
    assert (told["orders"], told["orders_domestic"], told["money_difference"]) == (1874, 1176, 0)
    assert told["undos_by_kind"] == {"cancel": 85, "grant_refund": 175, "return": 487}
    assert sum(country != "GB" for country in told["orders_by_country"]) == 33
    domestic = {record.invoice_no for record in records(SAMPLE) if record.country == "GB"}
    assert len(domestic) == 1500


@needs_shared
def test_the_sample_is_what_its_module_makes_of_the_whole_file(tmp_path, whole):
    assert sample(SHARED, tmp_path / "again.csv.gz") == 48350
    assert gzip.decompress((tmp_path / "again.csv.gz").read_bytes()) == gzip.decompress(SAMPLE.read_bytes())


@pytest.mark.parametrize("which", ["whole", "committed"])
def test_money_agrees_with_an_independent_sum_of_the_file(which, request):
    reading = request.getfixturevalue(which)
    with gzip.open(SHARED if which == "whole" else SAMPLE, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counted = sum((Decimal(row["Quantity"]) * Decimal(row["UnitPrice"])
                   for row, verdict in zip(rows, verdicts(reading), strict=True) if verdict.verdict != "refused"),
                  Decimal(0))
    orders = sum(order.total for order in reading.orders) - sum(undo.amount for undo in reading.undos)
    beyond = reading.money.cancelled_beyond_sales
    assert counted == Decimal(orders) / 100 + beyond


def test_no_unit_is_undone_twice_and_no_sale_after_its_undo(committed):
    orders = {order.invoice_no: order for order in committed.orders}
    assert len(orders) == len(committed.orders)
    undone, freight = Counter(), Counter()
    for undo in committed.undos:
        order = orders[undo.invoice_no]
        assert undo.after == undo.cancelled_at - order.placed_at >= timedelta(0)
        if undo.line_no:
            assert order.lines[undo.line_no - 1].unit_price == undo.unit_price
            undone[undo.invoice_no, undo.line_no] += undo.quantity
        else:
            freight[undo.invoice_no] += undo.amount
    assert all(units <= orders[no].lines[line_no - 1].quantity for (no, line_no), units in undone.items())
    assert all(pence <= orders[no].freight for no, pence in freight.items())
    keys = [(undo.source_line, undo.invoice_no, undo.line_no) for undo in committed.undos]
    assert len(keys) == len(set(keys))


# --- Each rule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lines", "expected"), [
    ([line(quantity="-3")], ["stock_adjustment"]),
    ([line(quantity="-3", price="0.0")], ["stock_adjustment"]),
    ([line(price="0.0")], ["price_zero"]),
    ([line(invoice="C1", quantity="-1", price="0.00", code="M")], ["price_zero"]),
    ([line(invoice="C1", quantity="-1", code="M")], ["cancellation_of_neither_goods_nor_postage"]),
    ([line(invoice="C1", quantity="-1", code="CRUK")], ["cancellation_of_neither_goods_nor_postage"]),
    ([line(invoice="C1", quantity="-1", code="POST")], ["cancellation_of_postage_without_earlier_match"]),
    ([line(invoice="C1", quantity="-1", code="POST", customer="")], ["cancellation_of_postage_without_earlier_match"]),
    ([line(customer=""), line(invoice="C1", quantity="-1", customer="")], ["goods", "cancellation_without_customer"]),
    ([line(), line(invoice="C1", quantity="-1", price="1.51")], ["goods", "cancellation_without_earlier_match"]),
    ([line(), line(invoice="C1", quantity="-1", customer="8")], ["goods", "cancellation_without_earlier_match"]),
    ([line(), line(invoice="C1", quantity="-1", code="10002")], ["goods", "cancellation_without_earlier_match"]),
    ([line(), line(invoice="C1", quantity="-1", at="2010-12-01T09:59:59")],
     ["goods", "cancellation_without_earlier_match"]),
    ([line(), line(invoice="C1", quantity="-1"), line(invoice="C2", quantity="-1")],
     ["goods", "goods_cancelled", "cancellation_without_earlier_match"]),
    ([line(quantity="2"), line(invoice="C1", quantity="-3")], ["goods", "goods_cancelled_in_part"]),
    ([line(), line(code="POST"), line(invoice="C1", quantity="-1", code="POST")],
     ["goods", "freight", "postage_cancelled"]),
    ([line(code="M"), line(code="m"), line(code="gift_0001_20"), line(code="BANK CHARGES"), line(code="AMAZONFEE"),
      line(code="S"), line(code="PADS", price="0.001"), line(price="1.255")],
     ["manual", "manual", "gift_voucher", "bank_charge", "marketplace_fee", "sample", "sub_penny_price",
      "sub_penny_price"]),
    ([line(code="POST"), line(code="DOT"), line(code="C2")], ["postage_without_goods"] * 3),
    ([line(price="0"), line(code="POST")], ["price_zero", "postage_without_goods"]),
    ([line(code="POST"), line()], ["freight", "goods"]),
    ([line(country="Unspecified"), line(country="Unspecified", code="POST"),
      line(invoice="2", country="European Community")], ["not_a_country"] * 3),
    ([line(code="POST", country="Unspecified")], ["postage_without_goods"]),
    ([line(), line(quantity="4"), line(price="1.5"), line(price="1.6"), line(invoice="2")],
     ["goods", "same_invoice_code_and_price", "same_invoice_code_and_price", "goods", "goods"]),
    ([line(code="10001a"), line(code="10001A"), line(code="DCGS0003")],
     ["goods", "same_invoice_code_and_price", "goods"]),
])
def test_each_rule(tmp_path, lines, expected):
    assert reasons(write(tmp_path, *lines)) == expected
    told = report(read(write(tmp_path, *lines)))
    assert told["lines"] == told["accepted"] + told["merged"] + told["refused"] == len(lines)
    assert told["money_difference"] == 0


def test_an_order_holds_lines_freight_and_country(tmp_path):
    path = write(tmp_path, line(quantity="6.0", at="2010-12-01T10:01:00"),
                 line(code="10002b", price="0.1", quantity="3"),
                 line(quantity="1"), line(code="POST", price="18.0", quantity="2"), line(code="DOT", price="0.29"))
    (order,) = read(path).orders
    assert order == retail.Order(
        "1", "7", "France", "FR", datetime(2010, 12, 1, 10, tzinfo=UTC),
        (retail.Line(1, "10001", "A MUG", 7, 150), retail.Line(2, "10002B", "A MUG", 3, 10)), 3629)
    assert (order.total, order.domestic) == (7 * 150 + 30 + 3629, False)


@pytest.mark.parametrize(("after", "kind"), [
    (timedelta(0), "cancel"), (timedelta(hours=24), "cancel"), (timedelta(hours=24, seconds=1), "return"),
    (timedelta(days=30), "return"), (timedelta(days=30, seconds=1), "grant_refund")])
def test_the_time_since_the_order_makes_the_kind(tmp_path, after, kind):
    at = (datetime(2010, 12, 1, 10) + after).isoformat()
    (undo,) = read(write(tmp_path, line(), line(invoice="C1", quantity="-1", at=at))).undos
    assert (undo.kind, undo.after, undo.invoice_no, undo.line_no, undo.amount) == (kind, after, "1", 1, 150)


def test_the_newest_sale_is_undone_first_and_in_part(tmp_path):
    path = write(tmp_path, line(quantity="5"), line(invoice="2", quantity="2", at="2010-12-03T10:00:00"),
                 line(invoice="3", quantity="9", at="2010-12-09T10:00:00"),
                 line(invoice="C4", quantity="-3", at="2010-12-04T09:00:00"),
                 line(invoice="C5", quantity="-6", at="2010-12-05T09:00:00"))
    reading = read(path)
    assert [(u.cancellation_no, u.source_line, u.invoice_no, u.quantity, u.kind) for u in reading.undos] == [
        ("C4", 5, "2", 2, "cancel"), ("C4", 5, "1", 1, "return"), ("C5", 6, "1", 4, "return")]
    assert reading.money.cancelled_beyond_sales == Decimal("-3.00")
    assert report(reading)["money_difference"] == 0


def test_dates_move_so_that_the_first_is_now(tmp_path):
    path = write(tmp_path, line(quantity="-1"), line(at="2010-12-02T10:00:00"),
                 line(invoice="C1", quantity="-1", at="2010-12-02T11:00:00"))
    now = datetime(2030, 1, 1, tzinfo=UTC)
    moved = shifted(read(path), now)
    assert moved.first_at == now
    assert moved.orders[0].placed_at == now + timedelta(days=1)
    assert moved.undos[0].cancelled_at == moved.orders[0].placed_at + moved.undos[0].after
    assert shifted(read(write(tmp_path)), now).orders == ()


def test_verdicts_are_written_one_object_a_line(tmp_path):
    out = io.StringIO()
    write_verdicts(verdicts(read(write(tmp_path, line(), line(price="0")))), out)
    assert [json.loads(text) for text in out.getvalue().splitlines()] == [
        {"line": 2, "verdict": "accepted", "reason": "goods"},
        {"line": 3, "verdict": "refused", "reason": "price_zero"}]


def test_names_of_the_file_become_iso_codes():
    names = ("EIRE", "RSA", "USA", "Channel Islands", "Czech Republic", "United Kingdom", "Unspecified")
    assert [country_code(name) for name in names] == ["IE", "ZA", "US", "JE", "CZ", "GB", None]


lines_of_any_kind = st.lists(st.builds(
    line,
    invoice=st.sampled_from(["1", "2", "3", "C4", "C5"]),
    code=st.sampled_from(["10001", "10001a", "10001A", "DCGS0003", "POST", "DOT", "M", "gift_0001_10", "S"]),
    quantity=st.integers(-4, 4).filter(bool).map(str),
    at=st.sampled_from(["2010-12-01T10:00:00", "2010-12-01T10:01:00", "2010-12-09T10:00:00", "2011-03-09T10:00:00"]),
    price=st.sampled_from(["0", "0.001", "0.29", "1.5", "1.50", "1.125"]),
))


@settings(max_examples=150, deadline=None)
@given(lines_of_any_kind, st.booleans())
def test_every_line_and_penny_is_accounted_for(lines, guest):
    # One customer and country for all: an invoice that disagrees with itself is a bad file, tested below.
    lines = [text.replace(",7,", ",,") for text in lines] if guest else lines
    with tempfile.TemporaryDirectory() as folder:
        reading = read(write(Path(folder), *lines))
    seen = list(verdicts(reading))
    told = report(reading)
    assert [verdict.line for verdict in seen] == list(range(2, len(lines) + 2))
    assert told["lines"] == told["accepted"] + told["merged"] + told["refused"] == len(lines)
    assert sum(told["reasons"].values()) == len(lines)
    assert told["money_difference"] == 0
    left = {(o.invoice_no, x.line_no): x.quantity for o in reading.orders for x in o.lines}
    for undo in reading.undos:
        if undo.line_no:
            left[undo.invoice_no, undo.line_no] -= undo.quantity
    assert all(units >= 0 for units in left.values())
    assert all(order.lines for order in reading.orders)


# --- Bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bad", "column"), [
    (line(invoice="A1"), "InvoiceNo"),
    (line(invoice="c1"), "InvoiceNo"),
    (line(invoice="C"), "InvoiceNo"),
    (line(invoice=""), "InvoiceNo"),
    (line(invoice="=cmd|' /C calc'!A0"), "InvoiceNo"),
    (line(code="XYZ"), "StockCode"),
    (line(code=""), "StockCode"),
    (line(code="@SUM(A1)"), "StockCode"),
    (line(description="=1+1"), "Description"),
    (line(description="  +1"), "Description"),
    (line(description="@x"), "Description"),
    (line(description="-1+1"), "Description"),
    (line(description='"=HYPERLINK(""x"",""y"")"'), "Description"),
    (line(description="M\x00G"), "Description"),
    (line(description="M\x1b[2JG"), "Description"),
    (line(description="M\x85G"), "Description"),
    (line(description="M\u2028G"), "Description"),
    (line(description="A\rMUG"), "Description"),
    (line(description="A" * 501), "Description"),
    (line(description='"A MUG'), "Description"),
    (line(description='"A" MUG'), "Description"),
    (line(description='5" MUG', quantity="\x01"), "Quantity"),
    (line(description='"A, ""B"""', quantity="\x01"), "Quantity"),
    (line(quantity="1.5"), "Quantity"),
    (line(quantity="0"), "Quantity"),
    (line(quantity="1e999"), "Quantity"),
    (line(quantity="NaN"), "Quantity"),
    (line(quantity="+5"), "Quantity"),
    (line(quantity="٣"), "Quantity"),
    (line(quantity=""), "Quantity"),
    (line(quantity="1000000"), "Quantity"),
    (line(at="2010-02-30T10:00:00"), "InvoiceDate"),
    (line(at="12/1/2010 8:26"), "InvoiceDate"),
    (line(price="1e999"), "UnitPrice"),
    (line(price="nan"), "UnitPrice"),
    (line(price="Infinity"), "UnitPrice"),
    (line(price="-1.50"), "UnitPrice"),
    (line(price="=1+1"), "UnitPrice"),
    (line(price="1,50"), "(whole line)"),
    (line(customer="x"), "CustomerID"),
    (line(country="Atlantis"), "Country"),
    (line(country=""), "Country"),
    ("1,10001,A MUG,1,2010-12", "UnitPrice"),
    ("", "InvoiceNo"),
    (line(customer="8"), "CustomerID"),
    (line(country="Germany"), "Country"),
])
def test_a_bad_cell_is_named_by_line_and_column(tmp_path, bad, column):
    path = tmp_path / "orders.csv"
    path.write_bytes("\n".join((HEADER, line(), bad, line())).encode() + b"\n")
    with pytest.raises(BadFile) as caught:
        read(path)
    assert (caught.value.line, caught.value.column) == (3, column)
    assert f"line 3, column {column}" in str(caught.value)
    assert caught.value.problem and caught.value.remedy


def test_a_formula_is_called_one(tmp_path):
    for bad, cell in ((line(price="=1+1"), "=1+1"), (line(code="@SUM"), "@SUM"), (line(description="+1"), "+1")):
        with pytest.raises(BadFile, match="formula") as caught:
            read(write(tmp_path, bad))
        assert cell in caught.value.problem


@pytest.mark.parametrize(("header", "column"), [
    (HEADER.replace(",Quantity", ""), "Quantity"),
    (HEADER.replace("Quantity", "Country"), "Quantity"),
    (HEADER + ",Country", "Country"),
    (HEADER + ",Colour", "Colour"),
    (HEADER.replace(",", ";"), "InvoiceNo"),
    ("", "InvoiceNo"),
])
def test_a_bad_header_is_named(tmp_path, header, column):
    path = tmp_path / "orders.csv"
    path.write_text(header + "\n" + line() + "\n")
    with pytest.raises(BadFile) as caught:
        read(path)
    assert (caught.value.line, caught.value.column) == (1, column)


def test_columns_may_stand_in_any_order_with_a_mark_and_dos_line_ends(tmp_path):
    path = tmp_path / "orders.csv"
    header = ",".join(reversed(COLUMNS))
    row = ",".join(reversed(line(description="MUG").split(",")))
    path.write_bytes(f"\ufeff{header}\r\n{row}".encode())
    assert report(read(path))["accepted"] == 1


def test_what_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_bytes(f"{HEADER}\n{line()}\n{line(description='CAFÉ')}\n".encode("latin-1"))
    with pytest.raises(BadFile, match="UTF-8") as caught:
        read(path)
    assert (caught.value.line, caught.value.column) == (3, "Description")
    path.write_text(HEADER, encoding="utf-16")
    with pytest.raises(BadFile, match="UTF-8"):
        read(path)


def test_an_empty_file_and_a_header_alone(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_bytes(b"")
    with pytest.raises(BadFile, match="empty"):
        read(path)
    told = report(read(write(tmp_path)))
    assert (told["lines"], told["orders"], told["money_difference"]) == (0, 0, 0)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("packed", [False, True])
def test_a_cell_of_ten_megabytes_is_refused_in_little_memory(tmp_path, quote, packed):
    text = f"{HEADER}\n{line()}\n{line(description=quote + 'É' * 5_000_000 + quote)}\n".encode()
    path = tmp_path / "orders.csv"
    path.write_bytes(gzip.compress(text, 1) if packed else text)
    del text
    tracemalloc.start()
    try:
        with pytest.raises(BadFile) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert (caught.value.line, caught.value.column) == (3, "Description")


def test_broken_gzip_is_one_typed_error(tmp_path):
    whole = SAMPLE.read_bytes()
    path = tmp_path / "orders.csv.gz"
    for broken in (whole[:5], whole[: len(whole) // 2], whole[:-4], whole[:-8] + b"\0" * 8, whole + b"more",
                   whole[:5000] + b"\xff" * 50 + whole[5050:]):
        path.write_bytes(broken)
        with pytest.raises(BadFile) as caught:
            for _ in records(path):
                pass
        assert caught.value.line >= 1
    path.write_text(HEADER)
    with pytest.raises(BadFile, match="not gzip"):
        read(path)


def test_an_order_has_at_most_two_thousand_lines(tmp_path):
    codes = [f"{10000 + i}" for i in range(2001)]
    assert len(read(write(tmp_path, *(line(code=code) for code in codes[:2000]))).orders[0].lines) == 2000
    with pytest.raises(BadFile, match="2000") as caught:
        read(write(tmp_path, *(line(code=code) for code in codes)))
    assert (caught.value.line, caught.value.column) == (2002, "InvoiceNo")


def test_an_order_stays_within_the_limits_of_its_topic(tmp_path):
    with pytest.raises(BadFile) as caught:
        read(write(tmp_path, line(quantity="999999"), line(quantity="2")))
    assert (caught.value.line, caught.value.column) == (2, "Quantity")
    with pytest.raises(BadFile) as caught:
        read(write(tmp_path, line(quantity="999999", price="99999"), line(quantity="999999", price="99998")))
    assert (caught.value.line, caught.value.column) == (2, "UnitPrice")
