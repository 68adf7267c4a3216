"""Whose identity number a buyer into China gave: asked of a registry, for a check digit says only that it is well written. Pure.

The order stands still until that is known; what the registry cannot say, an officer decides. Who asks is `real_names.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from schemas import orders_order as out
from schemas.lifecycle import deadlines
from schemas.orders_intake import PlaceOrder
from services.orders import holds
from services.runtime.decision import REAL_NAME

UNPROVEN = "real_name_unproven"
REGISTRY = "/registry"  # the source of what the registry says


def needed(command: PlaceOrder, china: out.ChinaImport | None) -> Literal["", "ASKED"]:
    """Without a number there is nothing to ask about: customs' papers then lack it, which is found later."""
    return "ASKED" if china is not None and command.buyer.identity else ""


def key_of(order_id: str) -> str:
    """Names the question, and the answer."""
    return f"real-name:{order_id}"


def ask(order: Any, now: datetime) -> list:
    order.timers[holds.REAL_NAME_TIMER] = now + timedelta(seconds=deadlines()["real_name"])
    return holds.hold(order, REAL_NAME, key_of(order.order_id), now)


def waits(order: Any) -> bool:
    return holds.REAL_NAME_TIMER in order.timers


def unproven(order: Any) -> bool:
    """It is held for good."""
    return REAL_NAME in order.stops and not waits(order)


def decide(order: Any, outcome: str, by: str, detail: str, ref: str, now: datetime) -> list:
    """match: the order goes on. unknown: it waits on. Else it stays held, and all of it is cancelled."""
    events: list = [out.RealNameAnswered(order_id=order.order_id, outcome=outcome, decided_by=by, detail=detail)]
    if outcome == "unknown":
        return events
    order.timers.pop(holds.REAL_NAME_TIMER, None)
    if outcome == "match":
        return events + holds.resume(order, REAL_NAME, ref, now)
    return [*events, out.CancellationRequested(order_id=order.order_id, cancellation_id=ref, reason=UNPROVEN, by="platform")]
