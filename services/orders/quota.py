"""What one person may bring into China: limits by the rules of the day, and how each order's part of the year is reserved when
it is placed, committed when customs has the list, and given back when the goods do not stay. Pure.

Of a parcel it is the dutiable value (goods and freight, without tax) that counts, in fen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from schemas.china_papers import ORDER_NO_MAX, Consignee
from schemas.orders_intake import PlaceOrder
from schemas.orders_order import ChinaImport, QuotaMoved
from services.orders.rulebook import Rules, spans
from services.orders.storage import QUOTA, QuotaMove
from services.runtime.decision import Decision, Incoming

CHINA = ZoneInfo("Asia/Shanghai")
CURRENCY = "CNY"  # customs takes no other: 142 on every document
FEN = 100
ORDER_ID_MAX = ORDER_NO_MAX - len("-P99.L99")  # of it are made customs' orderNo (the parcel's id) and the list's number


@dataclass(slots=True)
class Share:
    """One parcel's part: the units of each line that count, its freight, and whether customs has its list. `priced`: line ->
    (what the buyer owes for them with tax, of how many); `transaction`: of its payment; `revision`: of its order document;
    `returning`: return -> units by line that are back, and whose list customs has not taken back yet."""

    units: dict[int, int]
    freight: int
    committed: bool = False
    priced: dict[int, tuple[int, int]] = field(default_factory=dict)
    transaction: str = ""
    revision: int = 0
    returning: dict[str, dict[int, int]] = field(default_factory=dict)

    def worth(self, document: Any) -> int:
        """In fen. Freight counts as long as anything is in the parcel."""
        goods = sum(document.amounts[n] * units // document.quantities[n] for n, units in self.units.items())
        return goods + self.freight if any(self.units.values()) else 0


@dataclass(slots=True)
class Quota:
    """An order's part of a person's year. `value`: all of it; `shares`: by parcel, once there are parcels; `codes`: customs codes
    that the merchant supplied, by line."""

    key: str
    value: int
    shares: dict[str, Share] = field(default_factory=dict)
    codes: dict[int, str] = field(default_factory=dict)

    def draft(self) -> Quota:
        return Quota(self.key, self.value, {k: Share(dict(s.units), s.freight, s.committed, s.priced, s.transaction, s.revision, dict(s.returning))
                                            for k, s in self.shares.items()}, self.codes)

    @property
    def person(self) -> str:
        return self.key.split(":")[1]


def is_import(command: PlaceOrder) -> bool:
    return command.destination == "CN" != command.origin


def key_of(command: PlaceOrder) -> str:
    """The shared row of this order's buyer and year."""
    return f"{QUOTA}{command.buyer.identity or command.buyer.hash}:{command.placed_at.astimezone(CHINA).year}"


def shared_keys(order: Any, document: Any, incoming: Incoming) -> list[str]:
    """The rows this event may move, to be locked before it is decided."""
    if incoming.type == "PlaceOrder":
        return [key_of(incoming.data)] if is_import(incoming.data) else []
    if order is None or order.quota is None or incoming.type not in MOVING:
        return []
    return [order.quota.key]


def limits(command: PlaceOrder, rows: Any, rules: Rules, platform: str, consignee: Consignee) -> ChinaImport | tuple[str, str]:
    """What holds for this order, or (reason, detail) why it cannot come in."""
    if len(command.order_id) > ORDER_ID_MAX:
        return "order_no_too_long", f"Chinese customs takes numbers of {ORDER_NO_MAX} characters; choose an order_id of at most {ORDER_ID_MAX}"
    if command.currency != CURRENCY:
        return "customs_currency", f"Chinese customs takes documents in {CURRENCY} alone, not {command.currency}; quote in {CURRENCY}"
    day = command.placed_at.astimezone(CHINA).date()
    found = _limits_of(rules, day)
    if isinstance(found, str):
        return "no_rule_for_date", found
    names, yearly, per_parcel, single = found
    value = sum(line.amount for line in command.lines) + command.freight
    if value > yearly:
        return "quota_exceeded", f"{value} fen are more than a person may bring in within a year ({yearly}); clear it as general trade"
    key = key_of(command)
    if rows.used(key) + value > yearly:  # how much is used is the buyer's own business: what we say here stands on a topic
        return "quota_exceeded", f"the buyer would pass the {yearly} fen of {day.year}; wait for the next year"
    back = rules.return_rule("CN", day)
    returns = {"asked_days": 0, "back_days": 0} if back is None else {
        "return_rule": back.id, "asked_days": back.asked_within_days, "back_days": back.back_within_days}
    return ChinaImport(**returns, rules=names, person=key.split(":")[1], year=day.year, value=value, yearly=yearly, per_parcel=per_parcel,
                       single_item=single, platform=platform, consignee=consignee, **_bonded(command))


def _bonded(command: PlaceOrder) -> dict[str, Any]:
    """What is declared of goods that lie in a bonded warehouse."""
    if command.bonded is None:
        return {}
    return {"mode": "1210", "ems_no": command.bonded.ems_no, "area_code": command.bonded.area_code,
            "records": {line.line_no: line.item_record for line in command.lines}}


@lru_cache(maxsize=64)  # as many orders as a day has ask the same
def _limits_of(rules: Rules, day: date) -> tuple[tuple[str, ...], int, int, int] | str:
    """(ids of rows, yearly, per parcel, single item) in fen, or why there are none."""
    known = [rule for rule in rules.rules_for("CN") if rule.enabled and rule.yearly_limit is not None]
    dated = [rule for rule in known if rule.holds(day)]
    if not dated:
        return f"no rule of retail import is valid on {day}; they are known for {spans(known)}"
    usual = [rule.value.up_to for rule in dated if not rule.single_item]
    single = [rule.value.up_to for rule in dated if rule.single_item]
    yearly, per_parcel = min(rule.yearly_limit for rule in dated), max(usual)
    return tuple(rule.id for rule in dated), int(yearly * FEN), int(per_parcel * FEN), int(max([per_parcel, *single]) * FEN)


def reserve(order: Any, china: ChinaImport) -> list[QuotaMove]:
    key = f"{QUOTA}{china.person}:{china.year}"
    order.quota = Quota(key, china.value)
    return [QuotaMove(key, "reserve", china.value, china.yearly)]


# -- what becomes of it -------------------------------------------------------------------------------------------------


def follow(decision: Decision, document: Any, incoming: Incoming) -> None:
    """Move the order's part along with its parcels: adds to the decision's events and moves."""
    move = MOVING.get(incoming.type)
    if move is not None:
        decision.state.quota = quota = decision.state.quota.draft()
        move(decision, quota, document, incoming.data)


def _move(decision: Decision, quota: Quota, parcel_id: str, kind: str, amount: int) -> None:
    if amount:
        decision.events.append(QuotaMoved.model_construct(order_id=decision.state.order_id, parcel_id=parcel_id, kind=kind,
                                                          amount=amount))
        decision.moves.append(QuotaMove(quota.key, kind, amount))


def _shared_out(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    """Each parcel its value; what is in none is not brought in."""
    for plan in event.parcels:
        quota.shares[plan.parcel_id] = Share({line.line_no: line.quantity for line in plan.lines}, plan.freight,
                                             priced={line.line_no: (line.amount, line.quantity) for line in plan.lines})
    _move(decision, quota, "", "release", quota.value - sum(share.worth(document) for share in quota.shares.values()))


def _not_allocated(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    _move(decision, quota, "", "release", quota.value)


def _listed(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    share = quota.shares[event.parcel_id]
    if not share.committed:
        share.committed = True
        _move(decision, quota, event.parcel_id, "commit", share.worth(document))


def _given_back(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    """All that is left of the parcel: it never came in."""
    _cut_to(decision, quota, document, event.parcel_id, {})


def _cut(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    """Some units are no longer in the parcel."""
    _cut_by(decision, quota, document, event.parcel_id, {line.line_no: line.quantity for line in event.lines})


def _returned(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    """What goes back too late has come in; in time, it has until customs takes its list back."""
    if event.returns_list:
        quota.shares[event.parcel_id].returning[event.return_id] = {line.line_no: line.quantity for line in event.lines}
    elif not event.late:
        _cut(decision, quota, document, event)


def _withdrawn(decision: Decision, quota: Quota, document: Any, event: Any) -> None:
    gone = quota.shares[event.parcel_id].returning.pop(event.return_id, None)
    if gone is not None and event.accepted:
        _cut_by(decision, quota, document, event.parcel_id, gone)


def _cut_by(decision: Decision, quota: Quota, document: Any, parcel_id: str, gone: dict[int, int]) -> None:
    left = {n: units - gone.get(n, 0) for n, units in quota.shares[parcel_id].units.items()}
    _cut_to(decision, quota, document, parcel_id, {n: units for n, units in left.items() if units > 0})


def _cut_to(decision: Decision, quota: Quota, document: Any, parcel_id: str, left: dict[int, int]) -> None:
    share = quota.shares[parcel_id]
    before, share.units = share.worth(document), left
    _move(decision, quota, parcel_id, "restore" if share.committed else "release", before - share.worth(document))


MOVING = {
    "ParcelsAllocated": _shared_out, "AllocationFailed": _not_allocated, "ListAccepted": _listed,
    "ParcelShortPicked": _cut, "ParcelLinesCancelled": _cut, "ReturnReceived": _returned, "ListWithdrawn": _withdrawn,
    **dict.fromkeys(("ParcelCancelled", "ParcelReturned", "ParcelDestroyed", "ParcelLost", "CustomsRefused"), _given_back),
}
NOTED = ("ListAccepted", "ListWithdrawn", "ParcelShortPicked", "ParcelLinesCancelled")  # what orders hears of for the quota's sake alone
