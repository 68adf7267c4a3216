"""How a parcel's promise is told: its way, by when it was promised, what stands in its way. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.cli.order_state import Look
from services.shipping.shipment import Clock

_ENDED = {"cancelled", "delivered", "returned", "lost", "destroyed", "returning"}


def way(legs: list[Any]) -> str:
    """SEA1 road USSEA express DEFRA … door; `legs` are models or plain values."""
    text = ""
    for leg in legs:
        origin, to, service = (leg["lane"] if isinstance(leg, dict) else leg.lane).split("-", 2)
        text += f"{'' if text else origin} {service} {to}"
    return text


def of_parcel(look: Look, parcel_id: str) -> dict[str, Any] | None:
    """The promise of a parcel as plain values; None where nothing was promised. `left_s`: while its clock runs."""
    shipping = look.views.get("shipping")
    content = shipping.state.content(parcel_id, shipping.document) if shipping and shipping.document else None
    if content is None:
        return None
    parcel = shipping.state.parcels[parcel_id]
    clock = parcel.aside is not None and parcel.aside.clock or Clock()
    first, route = content.route or clock.route, clock.route or content.route
    if first is None:
        return None
    due, ended = clock.promised(first), parcel.status in _ENDED
    state = "ended" if ended else f"paused: {clock.paused}" if clock.paused else "at risk" if clock.at_risk else "running"
    running = not ended and not clock.paused
    return {"service": route.service, "way": way(route.legs), "legs": [leg.model_dump(mode="json") for leg in route.legs],
            "promised_at": due.isoformat(), "in_time": first.in_time, "paused_s": clock.slip_s, "clock": state,
            "since": clock.since.isoformat() if clock.since else None, "rerouted": bool(clock.route and content.route),
            "cost_usd_cents": first.cost, "left_s": int((due - look.now).total_seconds()) if running else None}


def told(data: dict[str, Any]) -> list[str]:
    """What an event says of a promise."""
    parts = []
    for plan in data.get("parcels") or ():
        if isinstance(plan, dict) and isinstance(plan.get("route"), dict):
            parts += _route(plan["route"])
    if isinstance(data.get("route"), dict):
        parts += _route(data["route"])
    if data.get("kept") is not None:
        parts.append("promise kept" if data["kept"] else "promise broken")
    for name, word in (("promised_at", "promised"), ("predicted_at", "expected"), ("delivered_at", "delivered")):
        if isinstance(value := data.get(name), str):
            parts.append(f"{word} {_moment(value)}")
    if isinstance(lane := data.get("lane"), str):
        parts.append(f"lane {lane} is closed")
    if isinstance(paused := data.get("paused_s"), int):
        parts.append(f"stood still {paused / 3600:.1f} h")
    return parts


def _route(route: dict[str, Any]) -> list[str]:
    late = "" if route["in_time"] else " (not within 72 h)"
    return [way(route["legs"]), f"promised {_moment(route['promised_at'])}{late}"]


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text):%m-%d %H:%M}"
    except ValueError:
        return text
