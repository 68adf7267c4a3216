"""How merchants stand, as the three services have it: their rows, and how many of their open orders obey."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from services.cli.order_records import database
from services.orders.merchants import versions
from services.runtime.decision import FROZEN
from services.runtime.settings import SERVICES, Settings

_ORDERS = ("SELECT count(*) AS open, count(*) FILTER (WHERE state->>'standing' = $2) AS told,"
           " count(*) FILTER (WHERE position($3 IN (state->'stops')::text) > 0) AS held"
           " FROM orders WHERE merchant = $1 AND NOT closed")


async def look(settings: Settings, merchant: str) -> dict[str, Any] | None:
    """One merchant; None: he neither registered nor was ever stopped, and has no order that is open. `held`: open orders that
    stand still by now; `told`: those that obey his row as it is (the others will before anything else happens to them)."""
    found: dict[str, Any] = {"merchant": merchant, "status": "unknown", "freezes": 0, "registration": None, "terms": [],
                             "catalogue": {}, "services": {}}
    for service in SERVICES:
        async with database(settings, service) as connection:
            row = await connection.fetchrow("SELECT label, status, facts::text FROM merchants WHERE merchant_id = $1", merchant)
            orders = await connection.fetchrow(_ORDERS, merchant, row["label"] if row else "", FROZEN)
        found["services"][service] = {"stands": row["status"] if row else "", **dict(orders)}
        if service == "orders" and row:
            facts = json.loads(row["facts"])
            found |= {"status": row["status"], "freezes": facts.get("freezes", 0), "appealed": facts.get("appealed", False),
                      "registration": facts.get("registration"), "catalogue": facts.get("catalogue") or {},
                      "terms": versions(facts)}
    known = found["status"] != "unknown" or any(each["open"] for each in found["services"].values())
    return found if known else None


async def every(settings: Settings, status: str | None, limit: int) -> list[dict[str, Any]]:
    async with database(settings, "orders") as connection:
        rows = await connection.fetch(
            "SELECT m.merchant_id AS merchant, m.status, (m.facts->>'freezes')::int AS freezes,"
            " m.facts->'registration'->>'legal_name' AS name,"
            " (SELECT count(*) FROM orders o WHERE o.merchant = m.merchant_id AND NOT o.closed) AS open"
            " FROM merchants m WHERE $1::text IS NULL OR m.status = $1 ORDER BY m.merchant_id LIMIT $2", status, limit)
    return [dict(row) for row in rows]


def render(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['merchant']}: {found['status']}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "stands", "open orders", "held", "obey by now"):
        table.add_column(column)
    for service, each in found["services"].items():
        table.add_row(service, each["stands"] or "not told of", str(each["open"]), str(each["held"]), str(each["told"]))
    return table


def facts(found: dict[str, Any]) -> list[str]:
    """What else there is to say, line by line."""
    lines = []
    if registration := found["registration"]:
        lines.append("{legal_name}, {country}".format(**registration))
    lines += [f"terms {version}: fee plan {plan}, paid out in {payout}" + (f", for orders from {since} on" if since else "")
              for version, since, plan, payout in found["terms"]]
    if found["catalogue"]:
        lines.append(f"catalogue: {len(found['catalogue'])} items")
    if found["freezes"]:
        lines.append(f"frozen {found['freezes']} times" + (", has appealed" if found.get("appealed") else ""))
    return lines


def render_all(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("merchant", "status", "name", "freezes", "open orders"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["merchant"], row["status"], row["name"] or "", str(row["freezes"] or 0), str(row["open"]))
    return table
