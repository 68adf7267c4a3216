"""Complaints per transaction, and merchants frozen a week: counted in orders' database when somebody asks."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from services.cli.order_records import database
from services.cli.order_state import running_clock
from services.cli.output import NotRunning
from services.cli.rest import OF_A_CLIENT
from services.runtime.settings import Settings

REFERENCE, FROZEN_A_WEEK = 860_000, 10_000  # the trade's: transactions a complaint, shops a week
WEEKS = 4
_SOLD = f"{OF_A_CLIENT} AND status NOT IN ('new', 'rejected')"
_BY_MERCHANT = (
    "SELECT c.merchant, c.complaints, c.orders, c.counterfeit, (SELECT count(*) FROM orders o WHERE o.merchant = c.merchant AND"
    f" {_SOLD}) AS transactions FROM (SELECT merchant, count(*) AS complaints, count(DISTINCT order_id) AS orders,"
    " count(*) FILTER (WHERE reason = 'counterfeit') AS counterfeit FROM complaints GROUP BY merchant) c"
    " WHERE $1::text IS NULL OR c.merchant = $1 ORDER BY c.orders DESC, c.merchant LIMIT $2")
_ALL = (f"SELECT (SELECT count(*) FROM orders WHERE {_SOLD}) AS transactions, (SELECT count(*) FROM complaints) AS complaints,"
        " (SELECT count(DISTINCT order_id) FROM complaints) AS orders")
_FROZEN = ("SELECT at::timestamptz FROM merchants, json_array_elements_text(coalesce(facts->'frozen_at', '[]')) AS at"
           " WHERE at::timestamptz > $1")


async def look(settings: Settings, merchant: str | None, limit: int) -> dict[str, Any]:
    """{"all": …, "frozen_a_week": newest first, "merchants": …}. A rate is in complaints per million transactions, of orders that
    were complained about at least once; None without a transaction. Raises NotRunning."""
    now = running_clock(settings).now()
    async with database(settings, "orders") as connection:
        rows = [dict(row) for row in await connection.fetch(_BY_MERCHANT, merchant, limit)]
        if merchant is not None and not rows:
            sold = await connection.fetchval(f"SELECT count(*) FROM orders WHERE merchant = $1 AND {_SOLD}", merchant)
            rows = [{"merchant": merchant, "complaints": 0, "orders": 0, "counterfeit": 0, "transactions": sold}] if sold else []
        found = dict(await connection.fetchrow(_ALL))
        frozen = [row[0] for row in await connection.fetch(_FROZEN, now - timedelta(weeks=WEEKS))]
    return {"all": found | {"per_million": _rate(found)}, "reference_per_million": round(1e6 / REFERENCE, 3),
            "frozen_a_week": _weeks(frozen, now), "frozen_reference": FROZEN_A_WEEK,
            "merchants": [row | {"per_million": _rate(row)} for row in rows]}


def _rate(row: dict[str, Any]) -> float | None:
    return round(1e6 * row["orders"] / row["transactions"], 3) if row["transactions"] else None


def _weeks(frozen: list[datetime], now: datetime) -> list[int]:
    """How many in the last seven days, in the seven before, and so on."""
    counts = [0] * WEEKS
    for at in frozen:
        counts[min(WEEKS - 1, max(0, (now - at) // timedelta(weeks=1)))] += 1
    return counts


def lines(found: dict[str, Any]) -> list[str]:
    told = [*_of_all(found), ""] if found["merchants"] else _of_all(found)
    for row in found["merchants"]:
        told.append(f"  {row['merchant']:28} {row['orders']:>6} of {row['transactions']:>9,} orders complained about, "
                    f"{row['complaints']} complaints, {row['counterfeit']} of counterfeits: {_words(row)}")
    return told


def _of_all(found: dict[str, Any]) -> list[str]:
    weeks = ", ".join(f"{count:,}" for count in found["frozen_a_week"])
    return [f"complaints: {found['all']['orders']:,} of {found['all']['transactions']:,} orders complained about: {_words(found['all'])} "
            f"(reference: 1 per {REFERENCE:,})",
            f"merchants frozen in the last 7 days: {found['frozen_a_week'][0]:,} (reference: {FROZEN_A_WEEK:,}); by week back: {weeks}"]


def _words(row: dict[str, Any]) -> str:
    if not row["orders"]:
        return "none"
    return f"1 per {row['transactions'] / row['orders']:,.0f}" if row["transactions"] else "none accepted"


def brief(settings: Settings) -> dict[str, Any]:
    """For `tradewind status`, which tells what there is: nothing, where the database does not answer."""
    try:
        found = asyncio.run(look(settings, None, 1))
    except (NotRunning, OSError, asyncpg.PostgresError):
        return {"all": None, "lines": []}
    return {"all": {name: found[name] for name in ("all", "frozen_a_week")}, "lines": ["", *_of_all(found)]}
