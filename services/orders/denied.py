"""Denied parties: whether a person's name stands on the list that holds on a day, or nearly does.

Names are compared here alone, where the seal is open; what goes on is the result and the list's version.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json
from rapidfuzz import fuzz, process

from schemas.quotes import Certainty
from services.runtime.processes import StartError

SHIPPED = Path(__file__).parent / "lists" / "denied_parties.toml"
BLOCK_FROM, REVIEW_FROM = 97.0, 86.0  # per cent of likeness; words in any order
Result = Literal["CLEAR", "REVIEW", "BLOCK"]
_NO_WORD = re.compile(r"[^\w\s]|_")


class BadList(StartError):
    """A file of denied parties cannot be read; the message names place and remedy."""


class _Row(BaseModel):
    """One version, as its publisher writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    valid_from: date
    source: str
    certainty: Certainty
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)  # one object a version: its identity is a key
class DeniedList:
    """One version, ready to be compared with."""

    id: str
    valid_from: date
    source: str
    certainty: str
    names: tuple[str, ...]


def plain(name: str) -> str:
    """For comparison: without case, accents and punctuation, its words in one order."""
    if not name.isascii():
        name = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return " ".join(sorted(_NO_WORD.sub(" ", name).casefold().split()))


@lru_cache(maxsize=8)
def load(path: Path | None = None) -> tuple[DeniedList, ...]:
    """The lists of a file, the newest first. Raises BadList."""
    path = path or SHIPPED
    try:
        rows = [_Row(**row) for row in tomllib.loads(path.read_text())["list"]]
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as why:
        raise BadList(f"the list of denied parties cannot be read: {why}", str(path),
                      "Give [[list]] with id, valid_from, source, certainty and names; see services/orders/lists.") from why
    found = [DeniedList(r.id, r.valid_from, r.source, r.certainty, tuple(plain(name) for name in r.names)) for r in rows]
    return tuple(sorted(found, key=lambda each: each.valid_from, reverse=True))


def holds_on(lists: tuple[DeniedList, ...], day: date) -> DeniedList | None:
    return next((each for each in lists if each.valid_from <= day), None)


def compare(name: str, listed: DeniedList) -> Result:
    """How a name stands to a list."""
    best = process.extractOne(plain(name), listed.names, scorer=fuzz.ratio, score_cutoff=REVIEW_FROM)
    if best is None:
        return "CLEAR"
    return "BLOCK" if best[1] >= BLOCK_FROM else "REVIEW"


@lru_cache(maxsize=16_384)  # most buyers buy again; in memory alone
def _of(person: bytes, listed: DeniedList) -> Result:
    return compare(from_json(person)["name"], listed)


def screened(persons: Iterable[bytes], day: date, lists: tuple[DeniedList, ...]) -> tuple[Result, str]:
    """The gravest of the persons' results, and the version of the list; no list holds on that day: CLEAR by none. `persons`:
    as their seals hold them."""
    listed = holds_on(lists, day)
    if listed is None:
        return "CLEAR", ""
    found: Result = "CLEAR"
    for person in persons:
        result = _of(person, listed)
        if result == "BLOCK":
            return result, listed.id
        if result == "REVIEW":
            found = result
    return found, listed.id
