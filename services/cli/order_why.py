"""Why an order is where it is, in plain words: what must happen next, who does it, and by when. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from schemas.lifecycle import CONTESTED
from services.cli.order_state import Look
from services.cli.timeline import money, short_parcel, trade_time

# Where the goods are -> (what must happen next, the timer that ends the wait, what happens then).
_GOODS = {
    "allocated": ("the payment must be authorised", "reservation", "the reservation ends and the parcel is cancelled"),
    "correcting": ("its papers into China are wrong and must be corrected (`tradewind order supply`)", "papers",
                   "it is cancelled and refunded"),
    "declared": ("Chinese customs must take its import list", "papers", "it is cancelled and refunded"),
    "amending": ("units left it: order, payment document and import list must be told anew", "papers", "it is cancelled and refunded"),
    "redeclared": ("Chinese customs must take its amended import list", "papers", "it is cancelled and refunded"),
    "listed": ("Chinese customs must release the goods in the bonded warehouse", "papers", "it is cancelled and refunded"),
    "relisted": ("Chinese customs must release the goods in the bonded warehouse once more", "papers", "it is cancelled and refunded"),
    "documented": ("the money must be captured", "authorisation", "the authorisation expires and the parcel is cancelled"),
    "requested": ("the warehouse must pack it", "", ""),
    "on_hold": ("the warehouse holds it up and must go on packing it", "hold", "it is cancelled and refunded"),
    "in_progress": ("the warehouse has begun and must pack it", "", ""),
    "packed": ("the carrier must collect it", "", ""),
    "handed_over": ("the carrier must bring it on its way", "lost", "it counts as lost"),
    "exported": ("it must arrive in the country of destination", "lost", "it counts as lost"),
    "arrived": ("it must be presented to customs", "lost", "it counts as lost"),
    "presented": ("customs must decide", "customs", "it counts as refused and goes back"),
    "customs_held": ("customs holds it and must decide", "customs", "it counts as refused and goes back"),
    "released": ("the carrier must go out with it", "lost", "it counts as lost"),
    "out_for_delivery": ("the carrier must deliver it", "lost", "it counts as lost"),
    "delivery_failed": ("the carrier must try again", "lost", "it counts as lost"),
    "at_pickup": ("the buyer must collect it at the pickup point", "pickup", "it goes back to the sender"),
    "returning": ("it must come back to the warehouse", "lost", "it counts as lost"),
}
# Why it stands still -> (what must happen, the timer that ends the wait).
_HELD = {
    "screening": ("an officer must decide about its buyer (`tradewind order screen`)", "screening:"),
    "real_name": ("the registry must say whose the buyer's identity number is, or an officer who has seen papers "
                  "(`tradewind order real-name`)", "real_name:"),
    "brand_not_authorised": ("somebody must authorise the merchant to sell its brand (`tradewind merchant brand grant`)", "brand:"),
    "merchant_frozen": ("its merchant is frozen until his appeal is decided (`tradewind merchant decide`)", ""),
}
_MONEY_ENDED = {"declined", "voided", "expired", "refunded", "settled", "charged_back"}


def why(look: Look) -> list[str]:
    """One sentence for each thing the order waits for; at least one, also when it waits for nothing."""
    if not look.known and look.records:
        return ["orders has not taken it up yet; `tradewind status` says whether it runs"]
    if not look.known:
        return ["no service has heard of this order"]
    found = [f"{e.lane} gave up on {e.type} ({e.dead[0]}: {e.dead[1]}): somebody must look at the dead letter {e.place}"
             for e in look.dead if e.dead]
    found += [f"{w.service} keeps {w.type} until {w.waits_for}" for w in look.waiting]
    orders = look.state("orders")
    if orders is None:
        return found or ["orders must take up the order: nothing of it is in its database yet"]
    if orders.closed and not _open_elsewhere(look):
        return [*found, _end(orders)]
    found += [_held(look, stop) for stop in orders.stops if stop in _HELD] + _calls(look)
    shipping = look.state("shipping")
    if shipping is None or not (shipping.parcels or orders.parcels):
        found += _unallocated(look, shipping)
    for parcel_id in look.parcels:
        found += [f"{short_parcel(parcel_id, look.order_id)}: {text}" for text in _parcel(look, parcel_id)]
    return found or ["nothing is due: the services are about to answer one another"]


def _open_elsewhere(look: Look) -> bool:
    return any(not view.closed for service, view in look.views.items() if service != "orders")


def _end(orders: Any) -> str:
    if orders.status == "completed":
        return "completed: nothing more must happen; goods may still come back within the market's window"
    return f"{orders.status} ({orders.reason}): nothing more will happen"


def _held(look: Look, stop: str) -> str:
    text, timer = _HELD[stop]
    due = next((due for due, _, name in look.timers if timer and name == timer), None)
    if timer and due is None:
        return "it stands still while it is undone"
    return f"it stands still: {text}{_by(look, due)}{', else it is undone' if due else ''}"


def _calls(look: Look) -> list[str]:
    view = look.views.get("payments")
    return [f"the payment provider must answer {c.kind} of {money(c.amount, view.state.currency)} ({c.intent_id}); "
            "it is asked until it does" for c in view.calls] if view else []


def _unallocated(look: Look, shipping: Any) -> list[str]:
    if shipping is None:
        return ["shipping must reserve the stock"]
    if shipping.status == "failed":
        return ["shipping found no stock; orders must close the order"]
    if opens := shipping.timers.get("opens"):
        return [f"its season must open{_by(look, opens)}; until then its goods are held of the announced harvest"]
    retry, end = shipping.timers.get("retry"), shipping.timers.get("backorder") or shipping.timers.get("closes")
    if retry is None:
        return ["shipping must reserve the stock"]
    goods = ", ".join(sorted({line.sku for line in shipping.pending.lines})) if shipping.pending else "goods"
    return [f"stock of {goods} must arrive; shipping looks again{_by(look, retry)}, and gives up{_by(look, end)}"]


def _parcel(look: Look, parcel_id: str) -> list[str]:
    goods = getattr(look.state("shipping"), "parcels", {}).get(parcel_id)
    hold = getattr(look.state("payments"), "holds", {}).get(parcel_id)
    mine = getattr(look.state("orders"), "parcels", {}).get(parcel_id)
    found = _waits(look, parcel_id, goods, hold) if goods else []
    if hold is not None:
        found += _money(look, goods, hold)
    if mine is not None and goods is not None and goods.status == "delivered":
        found += _after_delivery(look, parcel_id, mine, hold)
    elif mine is not None and mine.contested and (hold is None or hold.status not in CONTESTED):
        found.append(f"the buyer's bank asks about the payment{_evidence(look)}; the money stands still")
    elif mine is not None and mine.dispute:
        found.append(f"the arbiter must decide dispute {mine.dispute}; the money stands still")
    return found


def _waits(look: Look, parcel_id: str, goods: Any, hold: Any) -> list[str]:
    if goods.status == "lost":
        return ["the carrier must pay the claim"] if goods.claim_open else []
    if goods.awaits and goods.status != "cancelled":
        return [f"a warehouse must have its goods; shipping looks again{_by(look, _timer(look, 'stock', parcel_id))}, and pays them "
                f"back{_by(look, _timer(look, 'stock_ends', parcel_id))}"]
    if goods.quarantined:
        due = _timer(look, "quality", parcel_id)
        return [f"merchant or warehouse must decide about {', '.join(goods.aside.quarantine)}: the goods were too warm or too cold "
                f"for too long{_by(look, due)}, else they are paid back"]
    if goods.status not in _GOODS:
        return []
    text, timer, then = _GOODS[goods.status]
    if goods.status == "allocated" and hold is not None and hold.status == "authorised":
        text, timer, then = "its customs papers must be complete", "authorisation", _GOODS["documented"][2]
    if goods.status == "delivery_failed":
        text += f" ({goods.attempts} of 3 attempts failed)"
    if goods.intercept:
        text += "; it was also asked to stop it"
    if goods.aside is not None and goods.aside.asked:
        what = "it is cancelled" if None in goods.aside.asked.values() else "it goes on"
        return [f"its warehouse must say whether it can still be cancelled{_by(look, _timer(look, 'asked', parcel_id))}, else {what}"]
    due = _timer(look, timer, parcel_id)
    return [text + (f"{_by(look, due)}, else {then}" if due else "")]


def _timer(look: Look, kind: str, parcel_id: str) -> datetime | None:
    """The due time of a timer of the parcel, of its payment, or of the order."""
    payment = next((k for k, p in getattr(look.state("payments"), "payments", {}).items() if parcel_id in p.parcels), "")
    names = {kind, f"{kind}:{parcel_id}", f"{kind}:{payment}"}
    return next((due for due, _, name in look.timers if kind and name in names), None)


def _evidence(look: Look) -> str:
    """What is known of the evidence: sent, or until when it is taken."""
    open_ = [d for d in (look.state("payments").disputes or {}).values() if d.status in ("inquiry", "taken")]
    if sent := next((d.sent for d in open_ if d.sent), ""):
        return f" ({sent} was sent)"
    due = next((due for due, _, name in look.timers if name.startswith("evidence:")), None)
    return f" (`tradewind money evidence`{_by(look, due)})" if due else ""


def _money(look: Look, goods: Any, hold: Any) -> list[str]:
    currency = look.state("payments").currency
    if hold.status in CONTESTED:
        return [f"the buyer's bank has taken money back and must decide{_evidence(look)}; the money stands still"]
    if hold.payout:
        return [f"a finance clerk must pay {money(hold.owed[0].amount, currency)} to the buyer by hand ({hold.payout})"]
    if hold.owed:
        return [f"payments must give {money(o.amount, currency)} back to the buyer ({o.reason})" for o in hold.owed]
    retry = next((due for due, _, name in look.timers if name.startswith("release:")), None)
    if hold.held and retry:
        return [f"the merchant's account refused the money; payments asks again{_by(look, retry)}"]
    if hold.held and hold.confirmed and not hold.frozen:
        return [f"payments must release {money(hold.held, currency)} to the merchant"]
    if goods is not None and goods.status in ("cancelled", "returned", "destroyed") and hold.status not in _MONEY_ENDED:
        return ["payments must give up the authorisation"]
    return []


def _after_delivery(look: Look, parcel_id: str, mine: Any, hold: Any) -> list[str]:
    if mine.contested and (hold is None or hold.status not in CONTESTED):
        return [f"the buyer's bank asks about the payment{_evidence(look)}; the timer and the money stand still"]
    if mine.dispute:
        return [f"the arbiter must decide dispute {mine.dispute}; the timer and the money stand still"]
    if back := _timer(look, "return", parcel_id):
        return [f"the goods of return {next(iter(mine.pending), '?')} must come back{_by(look, back)}, else it expires"]
    if due := _timer(look, "confirm", parcel_id):
        return [f"the buyer must confirm the receipt{_by(look, due)}, else the timer does"]
    if mine.pending and not (hold and hold.owed):
        return [f"the money of {', '.join(mine.pending)} must move"]
    return []


def _by(look: Look, due: datetime | None) -> str:
    """" by 2026-… (in 3 d 4 h, 12 s of real time)", so that nobody has to compute."""
    if due is None:
        return ""
    left = due - look.now
    if left <= timedelta(0):
        return f" by {trade_time(due)} (due now)"
    real = "" if look.speed == 1 else f", {span(left / look.speed)} of real time"
    return f" by {trade_time(due)} (in {span(left)}{real})"


def span(left: timedelta) -> str:
    """A length of time in its two largest units."""
    seconds = int(left.total_seconds())
    parts = [(seconds // 86_400, "d"), (seconds % 86_400 // 3600, "h"), (seconds % 3600 // 60, "min"), (seconds % 60, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number) or "less than a second"
