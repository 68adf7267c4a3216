"""Rows of data that hold on some days: terms, price lists, what is asked of goods."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Dated(BaseModel):
    """`valid_to` is the last day; absent: no end is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    valid_from: date
    valid_to: date | None = None

    def holds(self, day: date) -> bool:
        return self.valid_from <= day and (self.valid_to is None or day <= self.valid_to)


class DatedRow(Dated):
    """One that a person wrote, with a name and where it is from."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,79}$")]
    source: Annotated[str, Field(min_length=5)]
