"""What must hold of one service's order at any moment (`of_local`), and of the whole system at rest (`of_end`).

Each returns sentences that say what is wrong; an empty list is what everybody hopes for.
"""

from __future__ import annotations

from schemas.ledger import ASIDE
from schemas.brands import BRAND as BRAND_KEY
from schemas.lifecycle import BRAND, CONTESTED, MERCHANT, ORDER, PARCEL, PAYMENT
from schemas.merchants import MERCHANT as MERCHANT_KEY
from services.explorer.shared import Counters, level
from services.orders.storage import QUOTA
from services.runtime.decision import LANES, STOPS

# What may become of one parcel: goods at shipping -> money at payments.
OUTCOMES = {
    "delivered": {"settled", "charged_back", "refunded"},
    "cancelled": {"voided", "declined", "expired", "refunded", "charged_back"},
    "returned": {"refunded", "charged_back"},
    "destroyed": {"refunded", "charged_back"},
    "lost": {"refunded", "charged_back", "settled"},  # settled: the carrier's claim went on to the merchant
}
YEARLY_FEN = 2_600_000  # what the law allows a person, said once more: the rules must not be judged by themselves
FORWARD = {"authorise", "capture", "release", "OrderPlaced", "DocumentsReady", "DocumentsMatched", "ListAccepted", "ListReleased", "FulfilmentRequested",
           "ParcelCleared", "OrderResumed"}
_LIFTS = {"ParcelCleared", "OrderResumed"}  # one reason to stand still; for the others it does


def of_local(local) -> list[str]:
    """Whatever step made it: the tables, the money and the calls to the provider of one order at one service."""
    if local.entry is None:
        return []
    state = local.entry.state
    if local.order_id.startswith(MERCHANT_KEY):
        return [] if state.status in MERCHANT.states else [f"the merchant is {state.status!r}, which is in no row of the table"]
    if local.order_id.startswith(BRAND_KEY):
        return [] if state.status in BRAND.states else [f"the brand is {state.status!r}, which is in no row of the table"]
    armed = state.closed and sorted(state.timers)
    faults = [f"{local.service} is closed with a timer armed: {armed}"] if armed else []
    return faults + {"orders": _order, "payments": _money, "shipping": _goods}[local.service](local, state)


def of_frozen(effect, published: list, row) -> list[str]:
    """While the merchant is frozen nothing goes forward: no money is asked for, taken or released, no goods are let go."""
    if row is None or not row.frozen:
        return []
    return [f"asks to {intent.kind} while the merchant is frozen" for intent in effect.intents if intent.kind in FORWARD] + [
        f"publishes {message.type} while the merchant is frozen" for message in published
        if message.type in FORWARD and not (message.type in _LIFTS and message.model.reason not in STOPS.values())]


def of_terms(published: list, row) -> list[str]:
    """An order is accepted by the newest terms of its merchant; here each holds from the day it is told."""
    if row is None or not (facts := row.facts or {}).get("registration"):
        return []
    newest = facts.get("terms", [[1]])[-1][0]
    return [f"accepted by version {found} of the merchant's terms, which are at {newest}" for message in published
            if message.type == "OrderPlaced" and (found := message.model.terms and message.model.terms.version) != newest]


def of_lanes(published: list, row) -> list[str]:
    """Nobody is sent over a closed lane."""
    closed = set(row.facts["closed"]) if row is not None and row.status == LANES else set()
    return [f"re-routes over {leg.lane}, which is closed" for message in published if message.type == "ParcelRerouted"
            for leg in message.model.route.legs if leg.lane in closed]


def _order(local, state) -> list[str]:
    faults = []
    if state.status not in ORDER.states:
        faults.append(f"the order is {state.status!r}, which is in no row of the table")
    if state.closed != (state.status in ORDER.terminal):
        faults.append(f"the order is {state.status} and closed={state.closed}")
    for parcel_id, parcel in state.parcels.items() if state.closed else ():
        if parcel.pending or parcel.dispute or parcel.contested:
            faults.append(f"{parcel_id} is closed with {parcel.pending or parcel.dispute or parcel.contested} open")
    return faults


def _money(local, state) -> list[str]:
    faults = []
    for parcel_id, hold in state.holds.items():
        if hold.captured + hold.recovered != hold.held + hold.released + hold.refunded + hold.charged_back:
            faults.append(f"{parcel_id}: captured {hold.captured} + recovered {hold.recovered} is not held {hold.held} +"
                          f" released {hold.released} + refunded {hold.refunded} + charged back {hold.charged_back}")
        if min(hold.due, hold.captured, hold.held, hold.released, hold.refunded, hold.charged_back, hold.recovered) < 0:
            faults.append(f"{parcel_id} has an amount below zero: {hold}")
        if hold.status in CONTESTED and not hold.frozen:
            faults.append(f"{parcel_id} is {hold.status}, and nothing stops its money: {hold}")
        if hold.status not in PAYMENT.states:
            faults.append(f"{parcel_id}: money is {hold.status!r}, which is in no row of the table")
        if state.closed and (hold.held or hold.owed or hold.payout or hold.status not in PAYMENT.terminal):
            faults.append(f"{parcel_id} is closed with money on its way: {hold}")
        if (own := hold.shares) is not None and (min(own.freight, own.tax, own.collected) < 0):
            faults.append(f"{parcel_id}: shares {own} of {hold.due} due")
        if state.closed and hold.shares is not None and hold.status in ("settled", "refunded", "charged_back") and hold.shares.odd:
            faults.append(f"{parcel_id} is closed with {hold.shares.odd} on its tax account: {hold.shares}")
    for account, sign, name in (("buyer", -1, "captured"), ("recovered", -1, "recovered"), ("held", 1, "held"),
                                ("released", 1, "released"), ("refunded", 1, "refunded"), ("charged_back", 1, "charged_back")):
        booked, kept = local.sums.get(account, 0), sign * sum(getattr(h, name) for h in state.holds.values())
        if booked != kept:
            faults.append(f"the ledger has {booked} on {account}, the state {kept}")
    if sum(local.sums.values()) or local.sums.get(ASIDE):
        faults.append(f"the ledger's accounts do not add up to zero: {local.sums}")
    calls = {p.intent for p in state.payments.values() if p.intent}
    if calls != set(local.intents):
        faults.append(f"calls in flight are {sorted(calls)}, intents saved {sorted(local.intents)}")
    for payment_id, payment in state.payments.items():
        captured = sum(state.holds[k].captured for k in payment.parcels)
        if captured > payment.authorised:
            faults.append(f"{payment_id}: captured {captured} of {payment.authorised} authorised")
    return faults


def _goods(local, state) -> list[str]:
    armed = [f"{parcel_id}: its promise's clock stands still, and a scan is missed all the same" for parcel_id, parcel in
             state.parcels.items() if parcel.aside and parcel.aside.clock and parcel.aside.clock.paused
             and f"risk:{parcel_id}" in state.timers]
    return armed + [f"{parcel_id} is {parcel.status!r}, which is in no row of the table" for parcel_id, parcel in state.parcels.items()
            if parcel.status not in PARCEL[state.regime].states]


def of_shared(counters: Counters) -> list[str]:
    """At any moment: nothing is sold twice, and nobody brings in more than is allowed."""
    faults = []
    for row, counts in counters.items():
        now, quota = level(row, counts), row[0].startswith(QUOTA)
        if now < 0 or min(counts.values(), default=0) < 0:
            faults.append(f"{' in '.join(filter(None, row))}: {now} {'fen used' if quota else 'units free'}")
        if quota and now > YEARLY_FEN:
            faults.append(f"{row[0]}: {now} fen used of {YEARLY_FEN}")
    return faults


def of_end(orders: list[tuple], counters: Counters) -> list[str]:
    """The system is at rest. `orders`: (orders' local, payments' local, shipping's local) of each order."""
    faults = of_shared(counters)
    gone: dict[tuple[str, str], int] = {}
    for trio in orders:
        faults += _agree(*trio)
        _count(trio[2], gone)
    for row, counts in counters.items():
        get = counts.get
        if row[0].startswith(QUOTA):
            faults += _quota_at_rest(row[0], counts, orders)
            continue
        reserved = get("reserved", 0) - sum(get(k, 0) for k in ("released", "consumed", "shrunk"))
        if reserved:
            faults.append(f"{reserved} units of {row[0]} in {row[1]} stay reserved for nobody")
        if get("presold", 0) != get("unsold", 0):
            faults.append(f"{get('presold', 0) - get('unsold', 0)} units of {row[0]} in {row[1]} stay promised to nobody")
        out = get("consumed", 0) - get("restocked", 0)
        if out != gone.get(row, 0):
            faults.append(f"{out} units of {row[0]} left {row[1]}, buyers and carriers have {gone.get(row, 0)}")
    return faults


def _quota_at_rest(key: str, counts: dict[str, int], orders: list[tuple]) -> list[str]:
    """What a person has used of the year is what came in and stayed. `before`: used by nobody of these orders."""
    get, kept = counts.get, 0
    for local, _, _ in orders:
        quota = local.entry.state.quota if local.entry else None
        if quota is not None and quota.key == key:
            kept += sum(share.worth(local.entry.document) for share in quota.shares.values())
    open_ = get("reserved", 0) - get("released", 0) - get("committed", 0)
    faults = [f"{key}: {open_} fen stay reserved for nobody"] if open_ else []
    used = get("committed", 0) - get("restored", 0) - get("before", 0)
    return faults + ([f"{key}: {used} fen committed, but {kept} came in and stayed"] if used != kept else [])


def _count(shipping, gone: dict[tuple[str, str], int]) -> None:
    """Units that are with buyers, or lost or destroyed on their way."""
    entry = shipping.entry
    for parcel_id, parcel in entry.state.parcels.items() if entry else ():
        there, spoiled = parcel.status in ("delivered", "lost", "destroyed"), parcel.aside.spoiled if parcel.aside else {}
        for line in entry.state.content(parcel_id, entry.document).lines if there or spoiled else ():
            row, units = (line.sku, parcel.warehouse), line.quantity - parcel.cut.get(line.line_no, 0)
            gone[row] = gone.get(row, 0) + (units if there else 0) + spoiled.get(line.line_no, 0)


def _agree(orders, payments, shipping) -> list[str]:
    """The three services tell the same of one order, and it is something that may become of an order."""
    state, faults = orders.entry.state, []
    for local in (orders, payments, shipping):
        if local.entry is not None and local.entry.parked:
            waiting = [record.incoming.type for record in local.entry.parked]
            faults.append(f"{local.service} still waits to apply {', '.join(waiting)}")
    if payments.sums.get("held", 0):
        faults.append(f"{payments.sums['held']} minor units stay held")
    if state.status == "rejected":
        return faults + [f"the order was rejected, and {local.service} knows of it"
                         for local in (payments, shipping) if local.entry]
    goods = shipping.entry.state.parcels if shipping.entry else {}
    money = payments.entry.state.holds if payments.entry else {}
    if not set(state.parcels) == set(goods) == set(money):
        return faults + [f"orders has the parcels {sorted(state.parcels)}, shipping {sorted(goods)}, payments"
                         f" {sorted(money)}"]
    for parcel_id, parcel in state.parcels.items():
        there, paid = goods[parcel_id].status, money[parcel_id].status
        if parcel.goods != there or parcel.money != paid:
            faults.append(f"{parcel_id}: orders says {parcel.goods}/{parcel.money}, shipping {there}, payments {paid}")
        if paid not in OUTCOMES.get(there, ()):
            faults.append(f"{parcel_id}: goods {there} and money {paid} do not go together")
    kept = [k for k, g in goods.items() if g.status == "delivered" and money[k].status in ("settled", "charged_back")]
    if (state.status == "completed") != bool(kept):
        faults.append(f"the order is {state.status}, but {kept or 'no parcel'} stayed with the buyer and was paid")
    return faults
