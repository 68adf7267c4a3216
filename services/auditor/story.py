"""Records folded into one story an order: slim events, in the order of their sequence, and what outsiders said.

`Fold.take` sees every record once and applies the rules that concern single records: 17 (sequence), 18 (one id, one
content), 19 (one order, one partition) and 23 (valid, from whom it claims to be). What a story needs later is kept as
tuples; the decoded model is dropped at once, so that a hundred thousand orders fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from aiokafka.partitioner import murmur2
from pydantic import ValidationError

from schemas.brands import BRAND, brand_key
from schemas.china_papers import Consignee, PaymentDocument
from schemas.cold_chain import Band, Reading
from schemas.carrier_codes import RECEIPTS, UnknownCode, meaning_of
from schemas.dead_letters import DISCARD, REPLACES
from schemas.envelope import BadEnvelope, envelope_of, event_id
from schemas.merchants import MERCHANT
from schemas.shipping_report import LANE
from schemas.ledger import BOOKS
from schemas.payments_payment import DisputeEvent, ParcelPaymentEvent
from schemas.quotes import PAID_TO_OTHERS, Quote
from schemas.shipping_report import CarrierScanReported
from schemas.terms import Terms
from schemas.topics import INTAKE, ORDER, PAYMENT, PROVIDER_RESULT, SHIPMENT, TOPICS

OWNERS = {ORDER.name: "orders", PAYMENT.name: "payments", SHIPMENT.name: "shipping"}
STOCK = "stock:"
SUBJECTS = (STOCK, MERCHANT, BOOKS, LANE, BRAND)  # keys that are no orders


class Raw(NamedTuple):
    """One Kafka record, as read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Landed(NamedTuple):
    """The landed cost an order was placed on. `to_others`: duty, consumption tax, import tax, clearance fee; `tax`: the order's."""

    rule: str
    to_others: tuple[int, ...]
    tax: int
    total: int


class China(NamedTuple):
    """What an order reserves of a person's year, and the limits it states; fen."""

    person: str
    year: int
    value: int
    yearly: int
    per_parcel: int
    single_item: int
    platform: str = ""
    consignee: Consignee | None = None
    mode: str = "9610"
    bond: tuple[str, str] = ("", "")
    records: dict[int, str] = {}


class TaxBill(NamedTuple):
    """TaxAssessed: `amount` in the order's currency, of which the ledger owes `owed` to the authority in `currency`."""

    authority: str
    currency: str
    owed: int


class Sold(NamedTuple):
    """Goods of brands in an order. `chains`: (protected brand, ids of the authorisations) as it was accepted by; `brands`: keys of
    those that the command names."""

    destination: str
    day: date
    chains: tuple[tuple[str, tuple[str, ...]], ...]
    brands: frozenset[str]


class Placed(NamedTuple):
    """PlaceOrder and OrderPlaced. `lines`: line number -> (sku, quantity, amount); `extra`: freight and tax; `persons`: tokens
    and hashes of buyer and consignee. `regime` is empty in the command; `landed` is None where nothing was quoted, `china`
    where nothing is imported into China. `screening`: result and list, empty in the command. `cold`: lines whose goods must stay
    in a band. `short`: lines whose customs code is none, or has less digits than the declaration asks for (`digits`)."""

    merchant: str
    currency: str
    total: int
    lines: dict[int, tuple[str, int, int]]
    extra: int
    persons: tuple[str, str, str, str]
    regime: str = ""
    landed: Landed | None = None
    freight: int = 0
    china: China | None = None
    terms: Terms | None = None
    quote: Quote | None = None
    cold: tuple[tuple[int, Band], ...] = ()
    season: tuple[datetime, datetime] | None = None
    screening: tuple[str, str] = ("", "")
    sold: Sold | None = None
    short: tuple[int, ...] = ()
    digits: int = 0


class Plan(NamedTuple):
    """One parcel of ParcelsAllocated; `lines`: line number -> (sku, quantity), `amounts`: -> what they cost."""

    warehouse: str
    amount: int
    lines: dict[int, tuple[str, int]]
    amounts: dict[int, int]
    freight: int
    sscc: str = ""
    waybill_no: str = ""
    tax: int = 0
    way: Way | None = None


class Way(NamedTuple):
    """A planned route. `legs`: (lane, departs, arrives); `border`: which of them enters the destination."""

    legs: tuple[tuple[str, datetime, datetime], ...]
    promised: datetime
    in_time: bool
    border: int


class Allocated(NamedTuple):
    currency: str
    total: int
    plans: dict[str, Plan]
    accepted: datetime | None = None


class Money(NamedTuple):
    """A payment event. `amount` is the whole payment's where the event names several parcels. Minor units. `via`: how it
    went back, or from whom it came; `why`: its reason. `parts`: (account, amount) of a release; of a chargeback what is
    `escrow`'s, or who pays. `ref` of a chargeback is its dispute; `dropped`: refunds that it makes needless; `due`: of evidence;
    `paper`: the payment document of an import into China."""

    payment_id: str
    currency: str
    amount: int
    ref: str = ""
    via: str = ""
    why: str = ""
    parts: tuple[tuple[str, int], ...] = ()
    bill: TaxBill | None = None
    paper: PaymentDocument | None = None
    dropped: tuple[str, ...] = ()
    due: datetime | None = None


class Goods(NamedTuple):
    """A parcel event. `refund`: by how much the buyer owes less. `lines`: (line number, units). `claim`: on the carrier, or
    what it paid. `units`: with serial numbers. `until`: a deadline that it tells.
    `paper`: the import list that it withdraws; `late`: goods that are back too late for that."""

    refund: int = 0
    lines: tuple[tuple[int, int], ...] = ()
    ref: str = ""
    claim: int = 0
    units: tuple[str, ...] = ()
    until: datetime | None = None
    paper: str = ""
    late: bool = False


class Looked(NamedTuple):
    """An inspection; `result` is empty where it begins."""

    id: str
    result: str = ""


class Tick(NamedTuple):
    """An event of a promise's clock, or a delivery that tells of it. `at`: when it was (of a risk: is expected to be) so;
    `promised`: by when; `told`: whether it was kept, or the seconds it stood still; `way`: the new one."""

    at: datetime | None = None
    promised: datetime | None = None
    told: bool | int | None = None
    ref: str = ""
    way: Way | None = None


class Event:
    """One event of ours. `parcels`: (parcel, amount) pairs it is about; `data`: one of the tuples above, or None."""

    __slots__ = ("topic", "partition", "offset", "sequence", "type", "cause", "time", "digest", "parcels", "data")

    def __init__(self, topic: str, partition: int, offset: int, sequence: int, type_: str, cause: str, time: datetime,
                 digest: int, parcels: tuple[tuple[str, int], ...], data: Any):
        self.topic, self.partition, self.offset, self.sequence, self.type = topic, partition, offset, sequence, type_
        self.cause, self.time, self.digest, self.parcels, self.data = cause, time, digest, parcels, data

    def tells_of(self, parcel_id: str) -> bool:
        return any(own == parcel_id for own, _ in self.parcels)

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset} {self.type} #{self.sequence}"


class Said(NamedTuple):
    """One message of an outsider. `about`: its parcel, or a Placed. `number`: under which the carrier took the parcel over, or
    which excursion it tells of. `status`: what Chinese customs' receipt says of its list."""

    topic: str
    partition: int
    offset: int
    type: str
    source: str
    id: str
    cause: str
    content: str
    about: Any
    number: str = ""
    status: str = ""

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}@{self.offset} {self.type} {self.id!r} of {self.source}"


class Story:
    """All that the topics say of one order. `events`: owner -> events, without repetitions; `said`: the same of outsiders.
    `readings`: parcel, band and what its logger measured, as they came. `mended`: ids of what a person corrected and sent again, of which its sender's journal knows nothing."""

    __slots__ = ("order_id", "partition", "merchant", "events", "said", "mended", "readings")

    def __init__(self, order_id: str, partition: int):
        self.order_id, self.partition, self.merchant = order_id, partition, ""
        self.events: dict[str, list[Event]] = {"orders": [], "payments": [], "shipping": []}
        self.said: dict[tuple[str, str], Said] = {}
        self.mended: set[str] = set()
        self.readings: list[tuple[str, Band, list[Reading]]] = []

    def of(self, owner: str, *types: str) -> list[Event]:
        return [e for e in self.events[owner] if e.type in types]

    def all(self) -> list[Event]:
        return [e for events in self.events.values() for e in events]


# -- what is kept of each type ------------------------------------------------------------------------------------------


def _placed(m: Any) -> tuple[tuple, Placed]:
    lines = {line.line_no: (line.sku, line.quantity, line.amount) for line in m.lines}
    persons = (m.buyer_token, m.buyer_hash, m.consignee_token, m.consignee_hash) if hasattr(m, "buyer_token") else (
        m.buyer.token, m.buyer.hash, m.consignee.token, m.consignee.hash)
    return (), Placed(m.merchant_id, m.currency, m.total, lines, m.freight + m.tax, persons, getattr(m, "regime", ""),
                      _landed(m) if m.quote else None, m.freight, _china(getattr(m, "china", None)), getattr(m, "terms", None),
                      m.quote if isinstance(m.quote, Quote) else None, _cold(m),
                      m.season and (m.season.ships_not_before, m.season.ships_not_after),
                      (getattr(m, "screening", ""), getattr(m, "screening_list", "")), _sold(m), *_codes(m))


def _sold(m: Any) -> Sold | None:
    chains = getattr(m, "brands", None)
    named = () if hasattr(m, "brands") else [line.brand for line in m.lines if line.brand is not None]
    if not chains and not named:
        return None
    return Sold(m.destination, m.placed_at.date(), tuple((c.brand, tuple(c.links)) for c in chains or ()), frozenset(map(brand_key, named)))


def _codes(m: Any) -> tuple[tuple[int, ...], int]:
    digits = m.declaration.hs_digits if getattr(m, "declaration", None) else 0
    return tuple(line.line_no for line in m.lines if line.hs_code is not None and (
        line.hs_code.startswith("00") or len(line.hs_code) < digits)), digits


def _cold(m: Any) -> tuple[tuple[int, Band], ...]:
    """Of a command or an event, the same."""
    told = m.cold or () if hasattr(m, "cold") else [line for line in m.lines if line.cold is not None]
    return tuple((line.line_no, _band(getattr(line, "cold", line))) for line in told)


def _band(m: Any) -> Band:
    return Band.model_construct(low_tenths=m.low_tenths, high_tenths=m.high_tenths, tolerance_minutes=m.tolerance_minutes)


def _readings(m: Any) -> list[tuple[str, Band, list[Reading]]]:
    return [(m.parcel_id, _band(element.sensor_metadata.band), [
        Reading(int(told.time.timestamp()), told.value_tenths) for told in element.sensor_report])
        for element in m.sensor_element_list]


def _china(m: Any) -> China | None:
    return m and China(m.person, m.year, m.value, m.yearly, m.per_parcel, m.single_item, m.platform, m.consignee, m.mode,
                       (m.ems_no, m.area_code), m.records)


def _landed(m: Any) -> Landed:
    if isinstance(m.quote, Quote):
        charges = tuple(m.quote.amount(kind) for kind in PAID_TO_OTHERS)
        return Landed(m.quote.rule_id, charges, m.tax, sum(charge.amount for charge in m.quote.charges))
    return Landed(m.quote.rule_id, tuple(getattr(m.quote, kind) for kind in PAID_TO_OTHERS), m.tax, m.total)


def _allocated(m: Any) -> tuple[tuple, Allocated]:
    plans = {p.parcel_id: Plan(p.warehouse, p.amount, {line.line_no: (line.sku, line.quantity) for line in p.lines},
                               {line.line_no: line.amount for line in p.lines}, p.freight, p.sscc, p.waybill_no, p.tax,
                               _way(p.route) if p.route else None) for p in m.parcels}
    return tuple((p.parcel_id, p.amount) for p in m.parcels), Allocated(m.currency, m.total, plans, m.accepted_at)


def _way(route: Any) -> Way:
    return Way(tuple((_NAMES.setdefault(leg.lane, leg.lane), leg.departs, leg.arrives) for leg in route.legs), route.promised_at,
               route.in_time, route.border)


_NAMES: dict[str, str] = {}  # of lanes, which thousands of orders have in common


def _unit(m: Any) -> str:
    return f"{m.gtin.zfill(14)} {m.serial}"


def _tick(*names: str) -> Callable[[Any], tuple[tuple, Tick]]:
    """`names`: the fields that become `at`, `promised` and `told`."""
    at, promised, told = (attrgetter(name) if name else lambda m: None for name in names)
    return lambda m: (((m.parcel_id, 0),), Tick(at(m), promised(m), told(m), getattr(m, "reason", "")))


def _get(model: type, *names: str) -> Callable[[Any], Any]:
    """Reads the first of these fields that the model has, else nothing: asking a model for what it lacks is slow."""
    name = next((n for n in names if n in model.model_fields), None)
    return attrgetter(name) if name else lambda m: ""


def _parcels_of(model: type) -> Callable[[Any], tuple[tuple[str, int], ...]]:
    fields = model.model_fields
    if "parcels" in fields:
        return lambda m: tuple((p.parcel_id, p.amount) for p in m.parcels)
    if "parcel_id" not in fields:
        return lambda m: ()
    return (lambda m: ((m.parcel_id, m.amount),)) if issubclass(model, ParcelPaymentEvent) else lambda m: ((m.parcel_id, 0),)


def _money(model: type) -> Callable[[Any], tuple[tuple, Money]]:
    parcels, amount, ref = _parcels_of(model), _get(model, "amount"), _get(model, "ref")
    via, why = _get(model, "via", "recovered_from"), _get(model, "reason")
    if model.__name__ == "PaymentSettled":
        return lambda m: (parcels(m), Money(m.payment_id, m.currency, m.amount,
                                            parts=tuple((share.account, share.amount) for share in m.shares)))
    if issubclass(model, DisputeEvent):
        names = tuple(name for name in ("escrow", "reserve", "merchant") if name in model.model_fields)
        return lambda m: (parcels(m), Money(m.payment_id, m.currency, m.amount, m.dispute_id, parts=tuple(
            (name, getattr(m, name)) for name in names), dropped=tuple(getattr(m, "dropped", ())), due=getattr(m, "evidence_due", None)))
    if model.__name__ == "TaxAssessed":
        return lambda m: (parcels(m), Money(m.payment_id, m.currency, m.amount, bill=TaxBill(
            m.authority, m.assessed.currency, m.assessed.amount)))
    if model.__name__ in ("PaymentHeld", "PaymentDocumentAmended"):
        return lambda m: (parcels(m), Money(m.payment_id, m.currency, amount(m) or 0, paper=m.document))
    return lambda m: (parcels(m), Money(m.payment_id, m.currency, amount(m) or 0, ref(m), via(m), why(m)))


def _goods(model: type) -> Callable[[Any], tuple[tuple, Goods]]:
    parcels, refund, lines = _parcels_of(model), _get(model, "refund"), _get(model, "lines")
    ref, claim = _get(model, "return_id", "grant_id", "reason"), _get(model, "claim", "amount")
    return lambda m: (parcels(m), Goods(refund(m) or 0, tuple((x.line_no, x.quantity) for x in lines(m)), ref(m),
                                        claim(m) or 0))


def _other(model: type) -> Callable[[Any], tuple[tuple, str]]:
    parcels, said = _parcels_of(model), _get(model, "return_id", "outcome")
    return lambda m: (parcels(m), said(m))


def handed_over_as(report: str, message: dict[str, Any] | Any) -> str:
    """The carrier's number, of a report or scan that a parcel was handed over; empty for any other."""
    if report == "CarrierScanReported":
        scan = CarrierScanReported.model_validate(message, strict=False) if isinstance(message, dict) else message
        try:
            return scan.tracking_no if meaning_of(scan).report == "HandedOverReported" else ""
        except UnknownCode:
            return ""
    if report != "HandedOverReported":
        return ""
    return message["tracking_no"] if isinstance(message, dict) else message.tracking_no


SPECIAL: dict[str, Callable[[Any], tuple[tuple, Any]]] = {
    "PlaceOrder": _placed, "OrderPlaced": _placed, "ParcelsAllocated": _allocated,
    **dict.fromkeys(("BrandRegistered", "AuthorisationGranted", "AuthorisationRevoked"), lambda m: ((), m)),
    **dict.fromkeys(("TaxRemitted", "StatementClosed", "MerchantPaid", "ProviderFeesBooked"), lambda m: ((), m)),
    "OrderRejected": lambda m: ((), m.reason), "OrderCancelled": lambda m: ((), (m.reason, m.outcomes)),
    "ParcelBackordered": lambda m: (((m.parcel_id, 0),), Goods(lines=((m.line_no, m.quantity),), until=m.until)),
    "BackorderFilled": lambda m: (((m.parcel_id, 0),), Goods(ref=m.warehouse)),
    "RefundGranted": lambda m: (((m.parcel_id, 0),), (m.grant_id, m.amount)),
    "CancellationRequested": lambda m: ((), "" if m.lines is None else "lines"),
    "QuotaMoved": lambda m: ((), (m.kind, m.amount)),
    "OrderCompleted": lambda m: ((), ("", m.outcomes)), "CommandRefused": lambda m: ((), m.command_id),
    "ScreeningDecided": lambda m: ((), m.outcome), "ScreeningRepeated": lambda m: ((), m.result), "OrderHeld": lambda m: ((), m.reason), "OrderResumed": lambda m: ((), m.reason),
    **dict.fromkeys(("MerchantFrozen", "FreezeLifted", "FreezeUpheld"), lambda m: ((), (m.merchant_id, m.freeze_no))),
    **dict.fromkeys(("ParcelStopped", "ParcelCleared"), lambda m: (((m.parcel_id, 0),), Goods(ref=m.reason))),
    "ParcelHandedOver": lambda m: (((m.parcel_id, 0),), Goods(ref=",".join(m.despite))),
    "DocumentsSupplied": lambda m: ((), tuple((line.line_no, line.hs_code) for line in m.lines)),
    "DocumentsReady": lambda m: (tuple((p, 0) for p in m.parcel_ids), None),
    **dict.fromkeys(("FulfilmentRequested", "ParcelReplaced"), lambda m: (((m.parcel_id, 0),), Goods(ref=f"{m.sscc} {m.waybill_no}"))),
    "ParcelPacked": lambda m: (((m.parcel_id, 0),), Goods(ref=f"{m.sscc} {m.waybill_no}", units=tuple(map(_unit, m.units)))),
    "SerialAlert": lambda m: (((m.parcel_id, 0),), Goods(ref=_unit(m))), "ComplaintFiled": lambda m: ((), m.complaint_id),
    "InspectionHeld": lambda m: (((m.parcel_id, 0),), Looked(m.inspection_id)),
    "InspectionEnded": lambda m: (((m.parcel_id, 0),), Looked(m.inspection_id, m.result)),
    **dict.fromkeys(("ParcelQuarantined", "QualityReleased"), lambda m: (((m.parcel_id, 0),), Goods(ref=m.excursion_id))),
    **dict.fromkeys(("HarvestExpected", "InventoryAdjusted"), lambda m: ((), (m.warehouse, m.sku, m.quantity))),
    "StockReceived": lambda m: ((), (m.warehouse, m.sku, m.quantity, m.arrived)), "SeasonOpened": lambda m: ((), None),
    "PreSold": lambda m: ((), (m.opens, m.closes, tuple((line.warehouse, line.sku, line.quantity) for line in m.lines))),
    **dict.fromkeys(("PromisePaused", "PromiseHeld"), _tick("at", "", "")), "PromiseResumed": _tick("at", "promised_at", "paused_s"),
    "PromiseAtRisk": _tick("predicted_at", "promised_at", ""), "PromiseBroken": _tick("delivered_at", "promised_at", ""),
    "ParcelDelivered": _tick("delivered_at", "promised_at", "kept"),
    "ParcelRerouted": lambda m: (((m.parcel_id, 0),), Tick(ref=m.lane, way=_way(m.route))),
    "OrderDocumented": lambda m: (((m.parcel_id, 0),), m.document), "DocumentsMatched": lambda m: (((m.parcel_id, 0),), m.import_list),
    "DocumentsMismatched": lambda m: (((m.parcel_id, 0),), (m.attempt,)),
    **dict.fromkeys(("ListReleased", "ListHeld"), lambda m: (((m.parcel_id, 0),), Goods(ref=m.list_no))),
    "ParcelCancelled": lambda m: (((m.parcel_id, 0),), Goods(m.refund, ref=m.reason, paper=m.revokes)),
    "ReturnReceived": lambda m: (((m.parcel_id, 0),), Goods(m.refund, tuple((x.line_no, x.quantity) for x in m.lines), m.return_id,
                                                            paper=m.returns_list, late=m.late)),
    "ListWithdrawn": lambda m: (((m.parcel_id, 0),), Goods(ref=m.list_no)),
    "ListRejected": lambda m: (((m.parcel_id, 0),), (m.attempt, m.status)),
    "AllocationFailed": lambda m: ((), m.reason), "Backordered": lambda m: ((), None),
}
OTHERS = {PAYMENT.name: _money, SHIPMENT.name: _goods}


def _kinds() -> dict[str, dict[bytes, tuple]]:
    """topic -> type -> (name, validate, keep)."""
    return {t.name: {m.__name__.encode(): (m.__name__, m.__pydantic_validator__.validate_json,
                                           SPECIAL.get(m.__name__) or OTHERS.get(t.name, _other)(m))
                     for m in t.messages} for t in TOPICS}


class Fold:
    """Takes the records of one partition, each topic in its order.

    `report(rule, order_id, evidence)` is told what is wrong; `dead` holds the coordinates of refused records: what is
    wrong with those was seen by its reader, so that it is no news. `planted`: of bad records, which tell of no order.
    `checked`: rule -> records looked at.
    """

    def __init__(self, partition: int, partitions: int, report: Callable[[int, str, list[str]], None],
                 dead: set[tuple[str, int, int]], planted: set[tuple[str, int, int]] = frozenset()):
        self.partition, self.partitions, self.report, self.dead, self.planted = partition, partitions, report, dead, planted
        self.stories: dict[str, Story] = {}
        self.records = self.events = 0
        self.checked = dict.fromkeys((17, 18, 19, 23), 0)
        self.newest: datetime | None = None
        self._kinds = _kinds()

    def take(self, raw: Raw) -> None:
        """One record; never raises for what it contains."""
        self.records += 1
        if self.planted and raw[:3] in self.planted:
            return
        self.checked[23] += 1
        read = self._read(raw)
        if read is None:
            return
        if isinstance(read, str):
            if raw[:3] not in self.dead:
                self.report(23, (raw.key or b"").decode(errors="replace"), [f"{_where(raw)}: {read}"])
            return
        envelope, kind, message = read
        story = self.stories.get(message.order_id)
        if story is None:
            story = self.stories[message.order_id] = Story(message.order_id, raw.partition)
            self._right_partition(raw, message.order_id)
        if self.newest is None or envelope.time > self.newest:
            self.newest = envelope.time
        parcels, data = kind[2](message)
        if raw.topic in OWNERS:
            self._merchant(story, envelope, raw)
            self._ours(story, raw, envelope, parcels, data)
        else:
            if _has(raw, REPLACES):
                story.mended.add(envelope.id)
            about = data if kind[0] == "PlaceOrder" else parcels[0][0] if parcels else ""
            number = message.excursion_id if kind[0] == "ExcursionReported" else handed_over_as(kind[0], message)
            status = message.code if kind[0] == "CarrierScanReported" and message.dialect == RECEIPTS else ""
            if kind[0] == "SensorReported":
                story.readings += _readings(message)
            self._said(story, Said(*raw[:3], kind[0], envelope.source, envelope.id, envelope.causation,
                                   digest_of(raw.value), about, number, status))

    def _read(self, raw: Raw) -> tuple | str | None:
        """(envelope, kind, model), or what is wrong with the record; None: it tells of no order."""
        try:
            envelope = envelope_of(raw.headers)
        except BadEnvelope as bad:
            return str(bad)
        kind = self._kinds[raw.topic].get(envelope.type.encode())
        if kind is None and envelope.type == DISCARD:
            return None
        if kind is None:
            return f"type {envelope.type!r} does not belong on this topic"
        try:
            message = kind[1](raw.value or b"")
        except ValidationError as bad:
            first = bad.errors(include_url=False, include_input=False)[0]
            return f"{envelope.type} is not as its schema says: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        if raw.key != message.order_id.encode() or envelope.subject != message.order_id:
            return f"key {raw.key!r}, subject {envelope.subject!r} and order {message.order_id!r} are not the same"
        owner = OWNERS.get(raw.topic)
        if owner is None:
            return f"source {envelope.source!r} may not write here" if envelope.source in OWNERS.values() else (
                envelope, kind, message)
        if envelope.source != owner or envelope.id != event_id(owner, message.order_id, envelope.sequence) and not _has(raw, REPLACES):
            return f"id {envelope.id!r} of {envelope.source!r} with sequence {envelope.sequence} is not one of {owner}"
        return envelope, kind, message

    def _right_partition(self, raw: Raw, order_id: str) -> None:
        self.checked[19] += 1
        right = (murmur2(raw.key) & 0x7FFFFFFF) % self.partitions
        if right != raw.partition and raw[:3] not in self.dead:
            self.report(19, order_id, [f"{_where(raw)}: the key belongs to partition {right}"])

    def _merchant(self, story: Story, envelope: Any, raw: Raw) -> None:
        if envelope.merchant == story.merchant and envelope.merchant or story.order_id.startswith((STOCK, LANE, BRAND)):
            return
        if not envelope.merchant:
            self.report(23, story.order_id, [f"{_where(raw)} {envelope.type}: no merchant"])
        elif story.merchant:
            self.report(23, story.order_id, [f"{_where(raw)} {envelope.type}: merchant {envelope.merchant!r}, "
                                             f"but the order is of {story.merchant!r}"])
        else:
            story.merchant = envelope.merchant

    def _ours(self, story: Story, raw: Raw, envelope: Any, parcels: tuple, data: Any) -> None:
        events = story.events[envelope.source]
        digest = hash((envelope.type, envelope.causation, raw.value))
        event = Event(*raw[:3], envelope.sequence, envelope.type, envelope.causation, envelope.time, digest, parcels, data)
        self.checked[17] += 1
        self.checked[18] += 1
        last = events[-1].sequence if events else 0
        if event.sequence > last:
            if event.sequence != last + 1:
                self.report(17, story.order_id, [
                    str(event), f"follows {events[-1]}" if events else "is the first", f"{event.sequence - last - 1} missing"])
            events.append(event)
            self.events += 1
            return
        same = next((e for e in events if e.sequence == event.sequence), None)
        if same is None:
            self.report(17, story.order_id, [str(event), f"comes after {events[-1]} and was never there before"])
        elif same.digest != digest and _has(raw, REPLACES):
            events[events.index(same)] = event  # a person mended it, in its place
        elif same.digest != digest:
            self.report(18, story.order_id, [str(same), str(event), f"the same id {envelope.id!r}, another content"])

    def _said(self, story: Story, said: Said) -> None:
        self.checked[18] += 1
        # An answer of the provider may come by two ways; its id is the same on both.
        key = ("" if said.topic == PROVIDER_RESULT.name else said.source, said.id)
        before = story.said.setdefault(key, said)
        if (before.type, before.content) != (said.type, said.content) and said[:3] not in self.dead:
            self.report(18, story.order_id, [str(before), str(said), "the same id, another content"])


def _has(raw: Raw, header: str) -> bool:
    return any(name == header for name, _ in raw.headers)


def digest_of(value: bytes) -> str:
    """The fingerprint by which journals name a message's exact content."""
    return blake2b(value, digest_size=8).hexdigest()


def _where(raw: Raw) -> str:
    return f"{raw.topic}/{raw.partition}@{raw.offset}"


def places(story: Story) -> list[Said]:
    """The PlaceOrder commands of an order; an honest history has one."""
    return [said for said in story.said.values() if said.topic == INTAKE.name and said.type == "PlaceOrder"]
