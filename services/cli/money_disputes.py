"""Disputes of buyers' banks, as payments has them, and evidence against them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from schemas.lifecycle import CHARGEBACK
from schemas.payments_provider_result import SubmitEvidence
from services.cli import money_books
from services.cli.order_records import database
from services.cli.output import Refused
from services.runtime.settings import Settings

_ROWS = "SELECT order_id, state::text FROM orders WHERE state->'disputes' IS NOT NULL AND state->>'disputes' IS NOT NULL ORDER BY order_id"
_ONE = "SELECT state::text FROM orders WHERE order_id = $1"


@dataclass(frozen=True, slots=True)
class Row:
    """One dispute. `laid_out`: of its amount, what the platform pays until it is decided; `evidence`: sent, or on its way."""

    order_id: str
    dispute_id: str
    merchant: str
    status: str
    amount: int
    laid_out: int
    currency: str
    due: datetime | None
    evidence: str

    @property
    def open(self) -> bool:
        return self.status not in CHARGEBACK.terminal


async def disputes(settings: Settings, merchant: str | None = None, all_: bool = False) -> list[Row]:
    """Those that are not decided; `all_`: every one. Raises NotRunning."""
    async with database(settings, "payments") as connection:
        rows = await connection.fetch(_ROWS)
    found = [row for order_id, state in rows for row in _of(order_id, from_json(state))]
    return [row for row in found if (all_ or row.open) and merchant in (None, row.merchant)]


def _of(order_id: str, state: dict[str, Any]) -> list[Row]:
    return [Row(order_id, dispute_id, state["merchant_id"], d["status"], sum(d["parts"].values()), sum(d["laid_out"].values()),
                state["currency"], datetime.fromisoformat(d["due"]) if d["due"] else None, d["sent"] or d["evidence"])
            for dispute_id, d in (state["disputes"] or {}).items()]


async def submit(settings: Settings, order_id: str, dispute_id: str | None, evidence: str) -> Row:
    """Send it, and wait until payments has taken it. Raises Refused, NotBooked, NotRunning."""
    own = [row for row in await _now(settings, order_id) if dispute_id in (None, row.dispute_id) and (dispute_id or row.open)]
    if len(own) != 1:
        raise Refused("no dispute of this order is open" if not own else "the order has several disputes", order_id,
                      "See `tradewind money disputes`, and name one with --dispute.")
    name = own[0].dispute_id
    command = SubmitEvidence(order_id=order_id, dispute_id=name, evidence=evidence)
    await money_books.book(settings, [command], [f"evidence:{name}:{evidence}"[:190]])
    after = next(row for row in await _now(settings, order_id) if row.dispute_id == name)
    if after.evidence != evidence:
        raise Refused(f"not taken: the dispute is {after.status}"
                      + (f", {after.evidence} was sent before" if after.evidence else "")
                      + (f", evidence was due {after.due:%Y-%m-%d %H:%M} UTC" if after.due else ""), name,
                      "`tradewind order timeline` has EvidenceRefused with the reason.")
    return after


async def _now(settings: Settings, order_id: str) -> list[Row]:
    async with database(settings, "payments") as connection:
        state = await connection.fetchval(_ONE, order_id)
    return _of(order_id, from_json(state)) if state else []
