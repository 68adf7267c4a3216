"""The shape of a decision: what goes into a service's pure `decide`, and what comes out.

    decide(state, document, incoming, shared, now) -> Decision | NotYet | Stale

`state` is small and changes; `document` is large and never changes once written; `shared` is a view of rows that orders
have in common (stock), locked for the batch. A decision is a value: nothing in it has happened until the partition owner
commits it, and the same arguments always give the same decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from schemas.brands import BRAND
from schemas.dead_letters import Reason
from schemas.merchants import MERCHANT
from schemas.shipping_report import LANE

TIMER = "TimerFired"
STANDING = "StandingChanged"  # what an order is told when its merchant stands otherwise; see standing.py
LANES_CHANGED = "LanesChanged"  # the same of the lanes that are closed
BRAND_CHANGED = "BrandChanged"  # the same of a brand whose goods it has
INTERNAL = frozenset({TIMER, STANDING, LANES_CHANGED, BRAND_CHANGED})  # no record brings these


class Incoming(NamedTuple):
    """One event or command, decoded. `data` is its schema model (None for a fired timer). `standing`: the merchant's row
    (`standing.py`), told with a new order, with what is asked about the merchant, and with STANDING; `lanes`: the row of the closed lanes, once
    there was one; `known`: all rows by name, told with a new order and with BRAND_CHANGED."""

    type: str
    id: str
    source: str
    sequence: int
    time: datetime
    data: Any
    correlation: str = ""
    merchant: str = ""
    standing: Any = None
    lanes: Any = None
    known: Any = None


@dataclass(slots=True, frozen=True)
class Intent:
    """A call to the outside, saved with the decision and made after it. `intent_id` is the idempotency key."""

    intent_id: str
    kind: str
    body: dict[str, Any]


class State(Protocol):
    """What the owner needs to know of a service's state of one order."""

    status: str
    closed: bool
    merchant_id: str

    def due(self) -> datetime | None:
        """The earliest moment (trade time) at which the order wants to be woken."""


@dataclass(slots=True)
class Decision:
    """APPLIED. `rows` are append-only rows by table; `moves` change shared rows; `document` is written once; `standing`:
    the merchant whose subject this is stands otherwise from now on."""

    state: Any
    events: list[BaseModel] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    done_intents: list[str] = field(default_factory=list)
    rows: list[tuple[str, tuple]] = field(default_factory=list)
    moves: list[Any] = field(default_factory=list)
    document: Any = None
    standing: Any = None


@dataclass(slots=True, frozen=True)
class NotYet:
    """Legal later: the owner parks the record and tries it again after each change of the order."""

    waiting_for: str


@dataclass(slots=True, frozen=True)
class Stale:
    """Late, doubled or overtaken: nothing changes; counted by `reason`."""

    reason: str


class Impossible(Exception):
    """The event contradicts the order for good; the record becomes a dead letter with this reason."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = Reason(reason), detail


class SharedMissing(Exception):
    """`decide` asked for a shared row that was not locked for this batch: the owner ends the batch before the record."""


def earliest(timers: dict[str, datetime]) -> datetime | None:
    return min(timers.values()) if timers else None


# -- how merchants stand: see standing.py --------------------------------------------------------------------------------

FROZEN, CLOSED = "merchant_frozen", "merchant_closed"
SCREENING = "screening"  # an officer has to look at who buys
REAL_NAME = "real_name"  # a registry has to say whose identity number the buyer gave
STOPS = {"frozen": FROZEN, "closed": CLOSED}  # a merchant's status -> why his orders stand still
LANES = "lanes"  # key and status of the one row that all orders obey: which lanes are closed (facts: closed, changes)
WALKED = frozenset({"active", "frozen", "closed"})
BRANDED = "brand/"  # begins the names of brands' rows (facts: owner, links): no merchant's id has a slash
PROTECTED = "protected"  # a brand's status
MERCHANT_STATUS = {"MerchantFrozen": "frozen", "FreezeLifted": "active", "FreezeUpheld": "closed"}  # what other services hear


class Standing(NamedTuple):
    """`label` is another after each change that orders must obey ("" before the first); `cause`: id of the event that made it
    so; `facts`: what only the service that decides about merchants keeps."""

    label: str
    status: str
    cause: str = ""
    facts: dict[str, Any] = {}

    @property
    def frozen(self) -> bool:
        return self.status == "frozen"


def row_name(subject: str) -> str:
    """Under which name the row stands that is decided about under this key."""
    if subject.startswith(LANE):
        return LANES
    return f"{BRANDED}{subject.removeprefix(BRAND)}" if subject.startswith(BRAND) else subject.removeprefix(MERCHANT)
