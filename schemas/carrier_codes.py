"""What a carrier's code means to us: dated rows, read from carrier_codes.toml. Nothing is guessed of a code without a row."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from schemas import shipping_report

ROWS = Path(__file__).with_name("carrier_codes.toml")
LEGS = ("export", "import")
RECEIPTS = "ceb622"  # the dialect of Chinese customs, which is no carrier


@dataclass(frozen=True, slots=True)
class Code:
    """One code of one dialect. `report`: the message of shipping.report.v1 that it is; empty: information only.

    `leg`: the border it is about, where the same code is used at both. `needs`: fields that such a scan must fill."""

    dialect: str
    code: str
    meaning: str
    source: str
    certainty: str
    valid_from: date
    valid_to: date | None = None
    report: str = ""
    needs: tuple[str, ...] = ()
    leg: str = ""

    def holds_on(self, day: date) -> bool:
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


def names_a_list(scan: Any) -> bool:
    """Whether it is a receipt of Chinese customs for an import list."""
    return scan.dialect == RECEIPTS and bool(scan.tracking_no)


@lru_cache(maxsize=1)
def codes() -> tuple[Code, ...]:
    """Every row. Raises ValueError for rows that contradict each other, or name a report that we do not have."""
    found = []
    for dialect in tomllib.loads(ROWS.read_text())["dialect"]:
        common = {name: dialect[name] for name in ("source", "certainty", "valid_from", "valid_to") if name in dialect}
        for row in dialect["codes"]:
            row = common | row
            found.append(Code(dialect=dialect["id"], **row | {"needs": tuple(row.get("needs", ()))}))
    _check(found)
    return tuple(found)


@lru_cache(maxsize=1)
def dialects() -> dict[str, str]:
    """Id -> the name people know it by."""
    return {dialect["id"]: dialect["name"] for dialect in tomllib.loads(ROWS.read_text())["dialect"]}


def _check(rows: list[Code]) -> None:
    reports = {model.__name__: model.model_fields.keys() for model in shipping_report.MESSAGES}
    scan = shipping_report.CarrierScanReported.model_fields
    for n, row in enumerate(rows):
        what = f"{row.dialect} {row.code}"
        if row.report and row.report not in reports:
            raise ValueError(f"{what}: {row.report} is no message of shipping.report.v1")
        if row.certainty not in ("A", "B") or row.leg not in ("", *LEGS) or not set(row.needs) <= scan.keys():
            raise ValueError(f"{what}: certainty {row.certainty!r}, leg {row.leg!r}, needs {row.needs}")
        for other in rows[:n]:
            same = (row.dialect, row.code) == (other.dialect, other.code) and (row.leg == other.leg or not (row.leg and other.leg))
            if same and other.holds_on(row.valid_from):
                raise ValueError(f"{what}: two rows hold on {row.valid_from}")


@lru_cache(maxsize=1)
def _by_code() -> dict[tuple[str, str], list[Code]]:
    known: dict[tuple[str, str], list[Code]] = {}
    for row in codes():
        known.setdefault((row.dialect, row.code), []).append(row)
    return known


class UnknownCode(Exception):
    """No row says what this scan means. The message names the code, and what would be right."""


def meaning_of(scan: Any) -> Code:
    """The row of a CarrierScanReported, by the day it was scanned on. Raises UnknownCode."""
    moment: datetime = scan.at
    rows = [row for row in _by_code().get((scan.dialect, scan.code), ()) if row.holds_on(moment.date())]
    if not rows:
        raise UnknownCode(f"{dialects()[scan.dialect]} has no code {scan.code!r} on {moment.date()} that we know")
    for row in rows:
        if row.leg in ("", scan.leg):
            if missing := [name for name in row.needs if not getattr(scan, name)]:
                raise UnknownCode(f"{scan.code} ({row.meaning}) needs {' and '.join(missing)}")
            return row
    raise UnknownCode(f"{scan.code} means one thing at export and another at import: leg must be one of {', '.join(LEGS)}")
