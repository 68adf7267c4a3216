"""Publishing a report about a parcel, and waiting for what shipping makes of it: events, or nothing once it was read."""

from __future__ import annotations

import secrets
from typing import Any

from schemas.lifecycle import BEFORE_HANDOVER
from schemas.shipping_report import OpenInspection
from schemas.topics import REPORT, SHIPMENT
from services.cli.order_ask import NoAnswer, publish, refused, unknown
from services.cli.order_records import Event, database, reading, wait_for
from services.cli.order_state import running_clock
from services.runtime.settings import Settings
from services.simulators.edge import record_of

SOURCE = "/platform/inspector"
SILENCE_S = 2.0  # so long after shipping has read it nothing more is waited for


def has_left(status: str) -> bool:
    """Whether nobody can hold a parcel in this state any more: shipping would take a wish to look at it for overtaken."""
    return status not in BEFORE_HANDOVER


async def report(settings: Settings, message: Any, timeout_s: float) -> list[Event]:
    """The events it caused. Raises Refused (unknown order or parcel, a dead letter), NoAnswer, NotRunning."""
    async with database(settings, "shipping") as connection:
        row = await connection.fetchrow("SELECT state->>'merchant_id' AS merchant, state->'parcels'->$2->>'status' AS status, partition"
                                        " FROM orders WHERE order_id = $1", message.order_id, message.parcel_id)
    if row is None:
        raise unknown(message.order_id)
    if row["status"] is None:
        raise refused("unknown_parcel", f"the order has no parcel {message.parcel_id}", message.order_id)
    if type(message) is OpenInspection and has_left(row["status"]):
        raise refused("left_already", f"the parcel is {row['status']}: nobody can hold it any more", message.order_id)
    id_ = f"{type(message).__name__}:{secrets.token_hex(8)}"
    record = record_of(message, id=id_, time=running_clock(settings).now(), merchant=row["merchant"], source=SOURCE)
    async with reading(settings, [message.order_id], (REPORT, SHIPMENT), from_start=False) as reader:
        await publish(settings, [record], "client-inspections")
        found: list[Event] = []

        def take(events: list[Event]) -> bool:
            found.extend(e for e in events if e.id == id_ or e.causation == id_ and e.lane == "shipping")
            return any(e.dead or e.id != id_ for e in found)

        if not await wait_for(reader, min(timeout_s, SILENCE_S), take) and not any(e.id == id_ for e in found):
            raise NoAnswer("shipping has not read it yet", message.order_id, "Wait; `tradewind status` says whether it runs.")
    dead = next((e for e in found if e.dead), None)
    if dead is not None:
        raise refused(*dead.dead, message.order_id)
    return [e for e in found if e.id != id_]
