"""Numbers with check digits: made for our parcels, checked where they come from outside. A number that holds is well
written; it need not exist.

A parcel's SSCC (GS1) and its S10 waybill number (UPU) are both written from one serial number of our own, 0 … SERIALS - 1:
different serials give different numbers, and nothing else than the serial tells them apart."""

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


# -- GS1 ----------------------------------------------------------------------------------------------------------------

COMPANY_PREFIX = "0614141"  # GS1's own in its examples: TRADEWIND_GS1_PREFIX is the operator's
SERIALS = 10**10
_GTIN_LENGTHS = {8, 12, 13, 14}
_DIGITS = re.compile(r"\d+", re.ASCII)


def gs1_check(digits: str) -> str:
    """The last digit of a GTIN or SSCC: weights 3, 1, 3, … from the right, to a multiple of ten."""
    numbers = [ord(digit) - 48 for digit in digits]
    return str(-(3 * sum(numbers[::-2]) + sum(numbers[-2::-2])) % 10)


def is_gtin(number: str) -> bool:
    """Whether this is written like a GTIN-8, -12, -13 or -14, check digit included."""
    return len(number) in _GTIN_LENGTHS and _DIGITS.fullmatch(number) is not None and gs1_check(number[:-1]) == number[-1]


def is_sscc(number: str) -> bool:
    """Whether this is written like a serial shipping container code, check digit included."""
    return len(number) == 18 and _DIGITS.fullmatch(number) is not None and gs1_check(number[:-1]) == number[-1]


def sscc(serial: int, prefix: str = COMPANY_PREFIX) -> str:
    """A parcel's SSCC: extension digit, company prefix of 7 digits, serial reference of 9, check digit."""
    assert 0 <= serial < SERIALS and len(prefix) == 7, (serial, prefix)
    digits = f"{serial // 10**9}{prefix}{serial % 10**9:09d}"
    return digits + gs1_check(digits)


# -- UPU S10 ------------------------------------------------------------------------------------------------------------

_S10 = re.compile(r"[A-Z]{2}\d{9}[A-Z]{2}", re.ASCII)
_S10_WEIGHTS = (8, 6, 4, 2, 3, 5, 9, 7)
# A hundred service indicators of a hundred million numbers each: letter post, parcels, express and registered items, whose
# second letter is the post's own to give (Z is left to agreements between posts).
_S10_SERVICES = tuple(first + second for first in "LCER" for second in "ABCDEFGHIJKLMNOPQRSTUVWXY")


def s10_check(digits: str) -> str:
    """The ninth digit of an S10 number, from its eight digits."""
    left = 11 - sum((ord(digit) - 48) * weight for digit, weight in zip(digits, _S10_WEIGHTS, strict=True)) % 11
    return {10: "0", 11: "5"}.get(left) or str(left)


def is_s10(number: str) -> bool:
    """Whether this is written like an S10 number: service, eight digits, check digit, country of the post."""
    return _S10.fullmatch(number) is not None and s10_check(number[2:10]) == number[10]


def s10(serial: int, country: str) -> str:
    """An international waybill number of the post of `country`."""
    assert 0 <= serial < SERIALS, serial
    digits = f"{serial % 10**8:08d}"
    return f"{_S10_SERVICES[serial // 10**8]}{digits}{s10_check(digits)}{country}"
