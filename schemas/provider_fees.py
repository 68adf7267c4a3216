"""What the payment provider asks for its work: dated rows by kind of movement. Pure.

The provider's own price list and what finance agreed with it are rows of the same shape, in two files, so that a settlement file
can be held against the agreement.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from schemas.dated import DatedRow
from schemas.model import Currency, Minor
from schemas.terms import Permyriad


class FeeRow(DatedRow):
    """Of each movement of this kind: `share` of its amount, rounded half up, and `fixed` minor units of its currency."""

    kind: Literal["capture", "refund", "chargeback", "second_chargeback"]
    share: Permyriad = 0
    fixed: dict[Currency, Minor] = {}


class NotAgreed(LookupError):
    """There are rows of this kind, but none of this day."""


def fee(rows: Iterable[FeeRow], kind: str, amount: int, currency: str, day: date) -> int:
    """Minor units of `currency`; 0 for a kind that no row names. Raises NotAgreed."""
    own = [row for row in rows if row.kind == kind]
    row = next((row for row in own if row.holds(day)), None)
    if row is None:
        if own:
            raise NotAgreed(f"no fee for a {kind} on {day}")
        return 0
    return (2 * amount * row.share + 10_000) // 20_000 + row.fixed.get(currency, 0)


@lru_cache(maxsize=4)
def price_list(path: Path) -> tuple[FeeRow, ...]:
    """The rows `[[provider_fee]]` of a file. Raises OSError, ValueError."""
    return TypeAdapter(tuple[FeeRow, ...]).validate_python(tomllib.loads(path.read_text(encoding="utf-8")).get("provider_fee", []))
