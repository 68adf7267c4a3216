"""The Online Retail file, line by line: every cell checked, nothing interpreted.

The format is that of `../shared/data/README.md`: UTF-8 CSV, plain or gzip (told by its first bytes, not by its
name), a header, eight columns in any order. One line of the file is one record: a line break inside a quoted cell
is a control character, and those are refused. That keeps line numbers exact and memory bounded by one line.

Line numbers count from 1 as an editor shows them; the header is line 1.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pycountry

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
CELL_CHARS_MAX = 500  # the longest text our messages carry; the longest cell of the real file has 35
LINE_BYTES_MAX = len(COLUMNS) * CELL_CHARS_MAX * 4  # four bytes are the longest character of UTF-8

WHOLE_LINE = "(whole line)"
WHOLE_FILE = "(whole file)"

# Names of the file that ISO 3166-1 does not know, as they were used in 2010 and 2011.
FILE_COUNTRIES = {
    "Channel Islands": "JE",  # no code of their own: Jersey and Guernsey (GG) share the name, Jersey is the larger
    "Czech Republic": "CZ",  # ISO's short name is Czechia since 2016
    "EIRE": "IE",  # the Irish name of Ireland
    "Korea": "KR",  # the file means the republic in the south
    "RSA": "ZA",
    "USA": "US",
    # Not countries: nothing can be declared to them.
    "Unspecified": None,
    "European Community": None,  # the European Union since 1993
}

_INVOICE = re.compile(r"C?[0-9]{1,12}")
_CODE = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,39}|BANK CHARGES")
_QUANTITY = re.compile(r"-?([0-9]{1,6})(\.0*)?")
_PRICE = re.compile(r"[0-9]{1,5}(\.[0-9]{1,10})?")
_CUSTOMER = re.compile(r"([0-9]{1,12})(\.0)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}")
# Unicode's own line breaks count as control characters: some readers would see two lines where we see one.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# A complete cell and the comma after it: quoted, plain or empty.
_CELL = re.compile(r'(?:"(?:[^"]|"")*"|[^",][^,]*|),')
_FORMULA = ("=", "+", "-", "@")


class BadFile(Exception):
    """{path}, line {line}, column {column}: {problem}. {remedy}.

    Raised before anything is done with the file: it is read to its end, or not at all.
    """

    def __init__(self, path: str | Path, line: int, column: str, problem: str, remedy: str) -> None:
        super().__init__(path, line, column, problem, remedy)
        self.path, self.line, self.column, self.problem, self.remedy = str(path), line, column, problem, remedy

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}, column {self.column}: {self.problem}. {self.remedy}."


class Record(NamedTuple):
    """One source line.

    `code` is upper case, `quantity` is never 0, `at` is the file's time taken as UTC, `price` is in pounds, `customer`
    None is a guest, `country` is ISO 3166-1 alpha-2, or None where the file names no country.
    """

    line: int
    invoice_no: str
    code: str
    description: str
    quantity: int
    at: datetime
    price: Decimal
    customer: str | None
    country_name: str
    country: str | None

    @property
    def cancels(self) -> bool:
        """Whether this is a line of a cancellation: its invoice number starts with C."""
        return self.invoice_no[0] == "C"

    @property
    def money(self) -> Decimal:
        """Quantity times price in pounds, exact; negative on a cancellation."""
        return self.quantity * self.price


class _BadCell(Exception):
    """{problem}; {remedy}. Becomes a BadFile where line and column are known."""


# Caches make the second sight of a cell cheap, and equal cells of a file share one object in memory.
@lru_cache(maxsize=65536)
def _invoice(text: str) -> str:
    if not _INVOICE.fullmatch(text):
        raise _BadCell(f"{text[:20]!r} is neither digits (a sale) nor C and digits (a cancellation)",
                       "Remove invoices of other kinds, such as A (bad debt)")
    return text


@lru_cache(maxsize=65536)
def _code(text: str) -> str:
    code = text.upper()
    if not _CODE.fullmatch(code):
        raise _BadCell(f"{text[:40]!r} is not a stock code", "Use letters, digits, dot, dash and underline, 40 at most")
    return code


@lru_cache(maxsize=65536)
def _description(text: str) -> str:
    if text.startswith(_FORMULA):
        raise _BadCell(f"{text[:20]!r} is a formula", "Write a text that starts with another character")
    return text


@lru_cache(maxsize=65536)
def _quantity(text: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if not found or not int(found[1]):
        raise _BadCell(f"{text[:20]!r} is not a whole quantity", "Write a whole number, 1 to 999999 or its negative")
    return -int(found[1]) if text[0] == "-" else int(found[1])


@lru_cache(maxsize=65536)
def _price(text: str) -> Decimal:
    if not _PRICE.fullmatch(text):
        raise _BadCell(f"{text[:20]!r} is not a price", "Write pounds from 0 to 99999.99 without sign or exponent")
    return Decimal(text)


@lru_cache(maxsize=65536)
def _customer(text: str) -> str | None:
    if not text:
        return None
    found = _CUSTOMER.fullmatch(text)
    if not found:
        raise _BadCell(f"{text[:20]!r} is not a customer number", "Write digits, or nothing for a guest")
    return found[1]


@lru_cache(maxsize=65536)
def _date(text: str) -> datetime:
    try:
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # a 30 February
        pass
    raise _BadCell(f"{text[:20]!r} is not a date and time", "Write it like 2010-12-01T08:26:00")


def country_code(name: str) -> str | None:
    """ISO 3166-1 alpha-2 of a country of the file; None for a name the file uses for no country. Unknown: KeyError."""
    if name in FILE_COUNTRIES:
        return FILE_COUNTRIES[name]
    found = pycountry.countries.get(name=name) or pycountry.countries.get(common_name=name)
    if found is None:
        raise KeyError(name)
    return found.alpha_2


@lru_cache(maxsize=1024)
def _country(text: str) -> tuple[str, str | None]:
    try:
        return text, country_code(text)
    except KeyError:
        raise _BadCell(f"{text[:40]!r} is not a country", "Use its English short name of ISO 3166") from None


# In the order of COLUMNS.
_PARSERS = (_invoice, _code, _description, _quantity, _date, _price, _customer, _country)


def records(path: str | Path) -> Iterator[Record]:
    """Every line after the header, in the file's order. Raises BadFile at the first cell that is not as agreed."""
    numbered = lines(path)
    header = next(numbered, None)
    if header is None:
        raise BadFile(path, 1, WHOLE_FILE, "the file is empty", f"Start it with the header {','.join(COLUMNS)}")
    names = _cells(path, *header, columns=None)
    order = _order(path, names)
    for number, text in numbered:
        cells = _cells(path, number, text, columns=names)
        if len(cells) != len(names):
            raise BadFile(path, number, names[len(cells)] if len(cells) < len(names) else WHOLE_LINE,
                          f"{len(cells)} cells where the header has {len(names)}", "Complete the line, or remove it")
        row = [cells[i].strip() for i in order]
        try:
            invoice_no, code, description = _invoice(row[0]), _code(row[1]), _description(row[2])
            quantity, at, price, customer = _quantity(row[3]), _date(row[4]), _price(row[5]), _customer(row[6])
            country_name, country = _country(row[7])
        except _BadCell:
            raise _located(path, number, row) from None
        yield Record(number, invoice_no, code, description, quantity, at, price, customer, country_name, country)


def _located(path: str | Path, number: int, row: list[str]) -> BadFile:
    """The error of the first bad cell of a line (cells in the order of COLUMNS)."""
    for column, parse, text in zip(COLUMNS, _PARSERS, row, strict=True):
        try:
            parse(text)
        except _BadCell as error:
            problem, remedy = error.args
            if text.startswith(("=", "+", "@")):
                problem = f"{text[:20]!r} is a formula"
            return BadFile(path, number, column, problem, remedy)
    raise AssertionError(f"line {number} failed, but none of its cells does")


def _order(path: str | Path, names: list[str]) -> list[int]:
    """Where each of COLUMNS stands in the header."""
    for column in COLUMNS:
        if names.count(column) != 1:
            problem = "the column stands twice" if column in names else "the column is missing"
            raise BadFile(path, 1, column, problem, f"The header is {','.join(COLUMNS)}")
    for name in names:
        if name not in COLUMNS:
            raise BadFile(path, 1, name or WHOLE_LINE, "the column is unknown", f"The header is {','.join(COLUMNS)}")
    return [names.index(column) for column in COLUMNS]


def _cells(path: str | Path, number: int, text: str, columns: list[str] | None) -> list[str]:
    """The cells of one line. Raises BadFile for a control character, a bad quote and a cell that is too long."""
    found = _CONTROL.search(text)
    if found:
        raise BadFile(path, number, _column(text[: found.start()], columns),
                      f"the control character U+{ord(found[0]):04X} stands in the cell", "Remove the character")
    try:
        cells = next(csv.reader((text,), strict=True), [])
    except csv.Error as error:
        raise BadFile(path, number, _column(text, columns), f"the quotes do not match ({error})",
                      "Close each quoted cell on its line and double a quote inside it") from None
    # One test a line instead of one a cell: a line this short holds no cell that is too long.
    if len(text) > CELL_CHARS_MAX:
        for i, cell in enumerate(cells):
            if len(cell) > CELL_CHARS_MAX:
                raise BadFile(path, number, _nth(i, columns), f"the cell is longer than {CELL_CHARS_MAX} characters",
                              "Shorten the cell")
    return cells


def _column(before: str, columns: list[str] | None) -> str:
    """The column that `before`, the beginning of a line, ends in, or in which its quotes stop making sense."""
    index = position = 0
    while found := _CELL.match(before, position):
        index, position = index + 1, found.end()
    return _nth(index, columns)


def _nth(index: int, columns: list[str] | None) -> str:
    if columns is None:
        return f"{index + 1} of the header"
    return columns[index] if index < len(columns) else WHOLE_LINE


def lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line, without its end. At most LINE_BYTES_MAX bytes of the file are held at a time."""
    number, columns = 0, None
    with _opened(path) as file:
        while True:
            number += 1
            try:
                raw = file.readline(LINE_BYTES_MAX + 2)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise BadFile(path, number, WHOLE_LINE, f"the gzip data is broken here ({error})",
                              "Copy the file again") from None
            if not raw:
                return
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                # At the limit a character may be cut in two; then the length is what is wrong with the line.
                if len(raw) < LINE_BYTES_MAX + 2 or error.start < len(raw) - 3:
                    before = raw[: error.start].decode("utf-8").removeprefix("\ufeff")
                    raise BadFile(path, number, _column(before, columns),
                                  f"the byte 0x{raw[error.start]:02X} is not UTF-8", "Save the file as UTF-8") from None
                text = raw[: error.start].decode("utf-8")
            if number == 1:
                text = text.removeprefix("\ufeff")  # Excel starts UTF-8 with a mark
            if len(raw) == LINE_BYTES_MAX + 2 and not raw.endswith(b"\n"):
                raise BadFile(path, number, _column(text, columns), f"the line passes {LINE_BYTES_MAX} bytes here",
                              f"Shorten the cell to {CELL_CHARS_MAX} characters")
            text = text.removesuffix("\n").removesuffix("\r")
            if number == 1:
                columns = text.replace('"', "").split(",")
            yield number, text


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    with open(path, "rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        if start == b"\x1f\x8b":
            with gzip.open(raw, "rb") as file:
                # readline of GzipFile is slow; the buffer bounds what is unpacked at a time.
                yield io.BufferedReader(file, 1 << 16)
        elif str(path).endswith(".gz"):
            raise BadFile(path, 1, WHOLE_FILE, "the name ends in .gz, but this is not gzip data",
                          "Pack the file again, or rename it to .csv")
        else:
            yield raw
