"""The two kinds of message and the fields they share.

Money is an integer of minor units (cents, fen, yen) next to one ISO 4217 currency a message.
Times are aware and in UTC. Ids are short, printable ASCII, so that they can stand in a URL, a label or a log line.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

# No control, bidi or zero-width character can pass; 60 is the limit of a Chinese customs order number.
ID_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,59}$")
Id = Annotated[str, Field(pattern=ID_PATTERN.pattern)]
Sku = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")]
# A cap far below 2**63, so that a sum over every line of every order cannot overflow a bigint.
Minor = Annotated[int, Field(ge=0, le=10**13, description="minor units of the message's currency")]
Quantity = Annotated[int, Field(ge=1, le=10**6)]
LineNo = Annotated[int, Field(ge=1, le=2000)]
Text = Annotated[str, Field(max_length=500)]
Time = AwareDatetime
Regime = Literal["abroad", "china", "domestic"]


class Event(BaseModel):
    """A fact one of our services published. Unknown fields are ignored: a newer writer may know more than we do."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    order_id: Id


class Command(BaseModel):
    """A wish or report from outside. Unknown fields and loose types are refused: a typing error must not be guessed away."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    order_id: Id


class Part(BaseModel):
    """A value inside an event, as tolerant as the event."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class CommandPart(Part):
    """A value inside a command, as strict as the command."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LineUnits(Part):
    """So many units of one order line, as an event tells it."""

    line_no: LineNo
    quantity: Quantity


class LineQuantity(LineUnits, CommandPart):
    """So many units of one order line, as a command asks for it."""
