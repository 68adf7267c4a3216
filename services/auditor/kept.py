"""What the auditor keeps of a message: slim tuples, and the one table that tells for each type which of its fields they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from operator import attrgetter
from typing import Any, NamedTuple

from schemas.brands import brand_key
from schemas.carrier_codes import UnknownCode, meaning_of
from schemas.china_papers import Consignee, PaymentDocument
from schemas.cold_chain import Band, Reading
from schemas.payments_payment import DisputeEvent, ParcelPaymentEvent
from schemas.quotes import PAID_TO_OTHERS, Quote
from schemas.shipping_report import CarrierScanReported
from schemas.terms import Terms
from schemas.topics import PAYMENT, SHIPMENT, TOPICS


class Landed(NamedTuple):
    """The landed cost an order was placed on. `to_others`: duty, consumption tax, import tax, clearance fee; `tax`: the order's."""

    rule: str
    to_others: tuple[int, ...]
    tax: int
    total: int


class China(NamedTuple):
    """What an order reserves of a person's year, and the limits it states; fen. `returns`: days after customs' release, to ask for a
    return and for its goods to be back."""

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
    returns: tuple[int, int] = (0, 0)


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
    in a band. `real_name`: ASKED or not. `short`: lines whose customs code is none, or has less digits than the declaration asks for (`digits`)."""

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
    day: date = date.min
    real_name: str = ""


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


class Split(NamedTuple):
    """ParcelSplit: what a parcel is from now on, and what was put into another."""

    rest: Plan
    part_id: str
    part: Plan


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
    `paper`: the import list that it withdraws; `late`: goods that are back too late for that;
    `worth`: of those that are not."""

    refund: int = 0
    lines: tuple[tuple[int, int], ...] = ()
    ref: str = ""
    claim: int = 0
    units: tuple[str, ...] = ()
    until: datetime | None = None
    paper: str = ""
    late: bool = False
    worth: int = 0


class Quarantined(NamedTuple):
    """ParcelQuarantined: the excursion `ref`. `silent`: minutes for which its logger said nothing, if it is set aside for that."""

    ref: str
    silent: int = 0


class Withdrawn(NamedTuple):
    """ListWithdrawn: of the list `ref`; `return_id` is empty where it was revoked."""

    ref: str
    return_id: str
    accepted: bool


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


def _placed(m: Any) -> tuple[tuple, Placed]:
    lines = {line.line_no: (line.sku, line.quantity, line.amount) for line in m.lines}
    persons = (m.buyer_token, m.buyer_hash, m.consignee_token, m.consignee_hash) if hasattr(m, "buyer_token") else (
        m.buyer.token, m.buyer.hash, m.consignee.token, m.consignee.hash)
    return (), Placed(m.merchant_id, m.currency, m.total, lines, m.freight + m.tax, persons, getattr(m, "regime", ""),
                      _landed(m) if m.quote else None, m.freight, _china(getattr(m, "china", None)), getattr(m, "terms", None),
                      m.quote if isinstance(m.quote, Quote) else None, _cold(m),
                      m.season and (m.season.ships_not_before, m.season.ships_not_after),
                      (getattr(m, "screening", ""), getattr(m, "screening_list", "")), _sold(m), *_codes(m), m.placed_at.date(),
                      getattr(m, "real_name", ""))


def _sold(m: Any) -> Sold | None:
    chains = getattr(m, "brands", None)
    named = () if hasattr(m, "brands") else [line.brand for line in m.lines if line.brand is not None]
    if not chains and not named:
        return None
    return Sold(m.destination, m.placed_at.date(), tuple((c.brand, tuple(c.links)) for c in chains or ()),
                frozenset(map(brand_key, named)))


def _codes(m: Any) -> tuple[tuple[int, ...], int]:
    digits = m.declaration.hs_digits if getattr(m, "declaration", None) else 0
    return tuple(line.line_no for line in m.lines if line.hs_code is not None and (
        line.hs_code.startswith("00") or len(line.hs_code) < digits)), digits


def _cold(m: Any) -> tuple[tuple[int, Band], ...]:
    """Of a command or an event, the same."""
    told = m.cold or () if hasattr(m, "cold") else [line for line in m.lines if line.cold is not None]
    return tuple((line.line_no, _band(getattr(line, "cold", line))) for line in told)


def _band(m: Any) -> Band:
    return Band.model_construct(low_tenths=m.low_tenths, high_tenths=m.high_tenths, tolerance_minutes=m.tolerance_minutes,
                                silent_minutes=m.silent_minutes)


def readings_of(m: Any) -> list[tuple[str, Band, list[Reading]]]:
    return [(m.parcel_id, _band(element.sensor_metadata.band), [
        Reading(int(told.time.timestamp()), told.value_tenths) for told in element.sensor_report])
        for element in m.sensor_element_list]


def _china(m: Any) -> China | None:
    return m and China(m.person, m.year, m.value, m.yearly, m.per_parcel, m.single_item, m.platform, m.consignee, m.mode,
                       (m.ems_no, m.area_code), m.records, (m.asked_days, m.back_days))


def _landed(m: Any) -> Landed:
    if isinstance(m.quote, Quote):
        charges = tuple(m.quote.amount(kind) for kind in PAID_TO_OTHERS)
        return Landed(m.quote.rule_id, charges, m.tax, sum(charge.amount for charge in m.quote.charges))
    return Landed(m.quote.rule_id, tuple(getattr(m.quote, kind) for kind in PAID_TO_OTHERS), m.tax, m.total)


def _allocated(m: Any) -> tuple[tuple, Allocated]:
    plans = {p.parcel_id: _plan(p) for p in m.parcels}
    return tuple((p.parcel_id, p.amount) for p in m.parcels), Allocated(m.currency, m.total, plans, m.accepted_at)


def _plan(p: Any, **others: Any) -> Plan:
    return Plan(lines={line.line_no: (line.sku, line.quantity) for line in p.lines}, amounts={line.line_no: line.amount for line in p.lines},
                amount=p.amount, freight=p.freight, tax=p.tax, **(others or {
                    "warehouse": p.warehouse, "sscc": p.sscc, "waybill_no": p.waybill_no, "way": _way(p.route) if p.route else None}))


def _split(m: Any) -> tuple[tuple, Split]:
    """Of the first, its plan tells where it goes from and by which way: the event does not repeat it."""
    return ((m.parcel_id, 0), (m.part.parcel_id, 0)), Split(_plan(m, warehouse=m.part.warehouse), m.part.parcel_id, _plan(m.part))


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
    if model.__name__ == "TaxReclaimed":
        return lambda m: (parcels(m), Money(m.payment_id, m.currency, m.amount, via=m.credited, why=m.return_id))
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
    **dict.fromkeys(("MerchantApproved", "TermsChanged", "BrandRegistered", "AuthorisationGranted", "AuthorisationRevoked"), lambda m: ((), m)),
    **dict.fromkeys(("TaxRemitted", "TaxRecovered", "StatementClosed", "MerchantPaid", "ProviderFeesBooked"), lambda m: ((), m)),
    "OrderRejected": lambda m: ((), m.reason), "OrderCancelled": lambda m: ((), (m.reason, m.outcomes)),
    "ParcelSplit": _split, "PaymentDivided": lambda m: (((m.parcel_id, m.amount),), Money(m.payment_id, m.currency, m.amount, m.of)),
    "ParcelBackordered": lambda m: (((m.parcel_id, 0),), Goods(lines=((m.line_no, m.quantity),), until=m.until)),
    "BackorderFilled": lambda m: (((m.parcel_id, 0),), Tick(ref=m.warehouse, way=_way(m.route) if m.route else None)),
    "RefundGranted": lambda m: (((m.parcel_id, 0),), (m.grant_id, m.amount)),
    "CancellationRequested": lambda m: ((), m.by if m.lines is None else "lines"),
    **dict.fromkeys(("CancellationAsked", "ParcelLinesCancelled"), lambda m: (((m.parcel_id, 0),), Goods(
        getattr(m, "refund", 0), tuple((x.line_no, x.quantity) for x in m.lines or ()), m.cancellation_id))),
    **dict.fromkeys(("CancellationDeclined", "InterceptRequested"), lambda m: (((m.parcel_id, 0),), Goods(ref=m.cancellation_id))),
    "QuotaMoved": lambda m: ((), (m.kind, m.amount)),
    "OrderCompleted": lambda m: ((), ("", m.outcomes)), "CommandRefused": lambda m: ((), m.command_id),
    **dict.fromkeys(("ScreeningDecided", "RealNameAnswered"), lambda m: ((), m.outcome)), "ScreeningRepeated": lambda m: ((), m.result), "OrderHeld": lambda m: ((), m.reason), "OrderResumed": lambda m: ((), m.reason),
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
    "QualityReleased": lambda m: (((m.parcel_id, 0),), Goods(ref=m.excursion_id)),
    "ParcelQuarantined": lambda m: (((m.parcel_id, 0),), Quarantined(m.excursion_id, m.minutes if m.silent else 0)),
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
                                                            paper=m.returns_list, late=m.late, worth=m.worth)),
    "ListWithdrawn": lambda m: (((m.parcel_id, 0),), Withdrawn(m.list_no, m.return_id, m.accepted)),
    "ListRejected": lambda m: (((m.parcel_id, 0),), (m.attempt, m.status)),
    "AllocationFailed": lambda m: ((), m.reason), "Backordered": lambda m: ((), None),
}
OTHERS = {PAYMENT.name: _money, SHIPMENT.name: _goods}


def kinds() -> dict[str, dict[bytes, tuple]]:
    """topic -> type -> (name, validate, keep)."""
    return {t.name: {m.__name__.encode(): (m.__name__, m.__pydantic_validator__.validate_json,
                                           SPECIAL.get(m.__name__) or OTHERS.get(t.name, _other)(m))
                     for m in t.messages} for t in TOPICS}
