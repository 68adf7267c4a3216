"""Closing and opening a lane of the network that runs, and waiting for shipping's answer."""

from __future__ import annotations

import secrets
from typing import Any

from pydantic_core import from_json

from schemas.topics import REPORT, SHIPMENT
from services.cli.order_ask import NoAnswer, publish
from services.cli.order_records import Event, database, reading, wait_for
from services.cli.order_state import running_clock
from services.cli.output import Refused
from services.runtime.settings import Settings
from services.simulators.edge import record_of

OPERATIONS = "/operations"


async def change(settings: Settings, message: Any, timeout_s: float) -> Event:
    """Publish CloseLane or OpenLane; the event that answers it. Raises Refused, NoAnswer, NotRunning."""
    id_ = f"{type(message).__name__}:{secrets.token_hex(8)}"
    closed = type(message).__name__ == "CloseLane"
    if (message.lane in await closed_now(settings)) == closed:
        raise Refused(f"the lane is {'closed already' if closed else 'open'}", message.lane, "Nothing is to be done.")
    record = record_of(message, id=id_, time=running_clock(settings).now(), merchant="", source=OPERATIONS)
    async with reading(settings, [message.order_id], (REPORT, SHIPMENT), from_start=False) as reader:
        await publish(settings, [record], "client-lanes")
        found: list[Event] = []

        def take(events: list[Event]) -> bool:
            found.extend(e for e in events if e.causation == id_ and e.lane == "shipping" or e.dead and e.id == id_)
            return bool(found)

        if not await wait_for(reader, timeout_s, take):
            raise NoAnswer("shipping has not answered yet", message.order_id, "Wait; `tradewind status` says whether it runs.")
    if found[0].dead:
        raise Refused(": ".join(found[0].dead), message.lane, "See `tradewind dlq list`.")
    return found[0]


async def closed_now(settings: Settings) -> list[str]:
    """The lanes that are closed, as shipping's database has them. Raises NotRunning."""
    async with database(settings, "shipping") as connection:
        row = await connection.fetchval("SELECT facts->'closed' FROM merchants WHERE merchant_id = 'lanes'")
    return from_json(row) if row else []
