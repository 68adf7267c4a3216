"""Check digits of numbers that come from outside. A number that holds is well written; it need not exist."""

from __future__ import annotations

import re

_RESIDENT = re.compile(r"\d{17}[\dX]", re.ASCII)
_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_RESIDENT_CHECKS = "10X98765432"


def resident_check(first_17: str) -> str:
    """The last character of a Chinese resident identity number (GB 11643: ISO 7064, MOD 11-2)."""
    return _RESIDENT_CHECKS[sum(int(digit) * weight for digit, weight in zip(first_17, _RESIDENT_WEIGHTS, strict=True)) % 11]


def is_resident_number(number: str) -> bool:
    """Whether this is written like a Chinese resident identity number, check character included."""
    return _RESIDENT.fullmatch(number) is not None and resident_check(number[:17]) == number[17]
