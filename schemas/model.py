"""The two kinds of message and the fields they share.

Money is an integer of minor units (cents, fen, yen) next to one ISO 4217 currency a message.
Times are aware and in UTC. Ids are short, printable ASCII, so that they can stand in a URL, a label or a log line.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

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


class Message(BaseModel):
    """What all messages and their parts have in common: a quick way to make one from values that are right already."""

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """As pydantic's, which spends three quarters of its time on aliases, extra fields and private attributes: our
        messages have none of them. Nothing is validated."""
        made = cls.__new__(cls)
        defaults = _defaults(cls)
        _set(made, "__dict__", {**defaults, **values} if defaults else values)
        _set(made, "__pydantic_fields_set__", set(values) if _fields_set is None else _fields_set)
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


_set = object.__setattr__  # the messages themselves are frozen


@lru_cache(maxsize=None)  # as many as there are models
def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()
            if not field.is_required()}


class Event(Message):
    """A fact one of our services published. Unknown fields are ignored: a newer writer may know more than we do."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    order_id: Id


class Command(Message):
    """A wish or report from outside. Unknown fields and loose types are refused: a typing error must not be guessed away."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    order_id: Id


class Part(Message):
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
