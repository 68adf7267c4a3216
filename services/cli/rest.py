"""Waiting for a running system: until stock has arrived, until nothing is open any more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncpg

from services.runtime.settings import SERVICES, Settings

if TYPE_CHECKING:
    from services.auditor.watch import Watch


async def stocked(settings: Settings, count: int) -> None:
    """Until shipping has taken in that many deliveries of stock: an order placed before would find none."""
    conn = await asyncpg.connect(settings.dsn("shipping"))
    try:
        while await conn.fetchval("SELECT count(*) FROM orders WHERE status = 'stock'") < count:
            await asyncio.sleep(0.05)
    finally:
        await conn.close()


async def registered(settings: Settings, count: int) -> None:
    """Until orders has decided that many commands about brands and merchants: an order placed before would not know them."""
    conn = await asyncpg.connect(settings.dsn("orders"))
    try:
        while await conn.fetchval(f"SELECT coalesce(sum(seq), 0) FROM orders WHERE NOT {OF_A_CLIENT}") < count:
            await asyncio.sleep(0.05)
    finally:
        await conn.close()


def watching(settings: Settings) -> Watch:
    """The auditor beside a run, as an async context manager; it notes what the audit after the run could not see any more."""
    from services.auditor.watch import Watch
    from services.orders.app import spec as orders
    from services.payments.app import spec as payments
    from services.shipping.app import spec as shipping

    return Watch(settings, {spec.name: spec.handled for spec in (make(settings) for make in (orders, payments, shipping))})


# In the orders' database: those that a client placed. How merchants and brands stand lies in rows of the same kind.
OF_A_CLIENT = "order_id !~ '^(merchant|brand):'"
PLACED = f"SELECT count(*) FROM orders WHERE {OF_A_CLIENT}"
# What waits behind a dead letter waits for a person, and a row "new" only keeps what came for an order nobody has heard of.
OPEN = {"open orders": "SELECT count(*) FROM orders WHERE NOT closed AND status <> 'new'",
        "parked records": "SELECT count(*) FROM parked p WHERE NOT EXISTS"
                          " (SELECT FROM parked d WHERE d.order_id = p.order_id AND d.dead <> '')",
        "calls in flight": "SELECT count(*) FROM intents", "unsent events": "SELECT count(*) FROM outbox"}


async def at_rest(settings: Settings, within_s: float = 60.0) -> list[str]:
    """Wait until no service has anything open; returns what is left after within_s."""
    end = time.monotonic() + within_s
    while (left := await left_open(settings)) and time.monotonic() <= end:
        await asyncio.sleep(0.2)
    return left


async def left_open(settings: Settings) -> list[str]:
    """What each service still has open, in words; empty at rest."""
    left = []
    for service in SERVICES:
        conn = await asyncpg.connect(settings.dsn(service))
        try:
            for name, query in OPEN.items():
                if count := await conn.fetchval(query):
                    left.append(f"{service}: {count} {name}")
        finally:
            await conn.close()
    return left
