"""orders.order.v1: what happened to an order as a whole. Written by orders; read by payments, shipping, the console."""

from __future__ import annotations

from typing import Literal

from schemas import brands, merchants
from schemas.brands import BrandChain
from schemas.china_papers import Consignee, OrderDocument
from schemas.cold_chain import ColdLine
from schemas.model import Country, Currency, Event, Id, LineUnits, Minor, Part, Quantity, Regime, Sku, Text, Time
from schemas.quotes import Quote
from schemas.terms import Terms


class PlacedLine(Part):
    line_no: int
    sku: Sku
    quantity: Quantity
    amount: Minor
    hs_code: str | None = None


ASKED_DAYS, BACK_DAYS = 30, 45  # of orders placed before the rule stood on them


class ChinaImport(Part):
    """Cross-border retail import into China: what the buyer may bring in by the rules of the day, in fen.

    `person`: keyed hash of the identity number (of the person, where none is known); `value`: dutiable, counted to the `year`
    (Asia/Shanghai). A parcel is worth `per_parcel` at most, one with a single item in it `single_item`. `platform`: our code
    at customs (ebpCode).
    `mode`: 9610, direct mail; 1210, from a bonded warehouse in China, of its account book `ems_no` in `area_code`; `records`:
    each line's itemRecordNo there. `return_rule`: by which goods that are asked back within `asked_days` of customs' release, and
    are back within `back_days`, are not taxed and do not count to the year.
    """

    rules: list[str]
    person: str
    year: int
    value: Minor
    yearly: Minor
    per_parcel: Minor
    single_item: Minor
    platform: str = ""
    consignee: Consignee | None = None
    mode: Literal["9610", "1210"] = "9610"
    ems_no: str = ""
    area_code: str = ""
    records: dict[int, str] = {}
    return_rule: str = ""
    asked_days: int = ASKED_DAYS
    back_days: int = BACK_DAYS


class Declaration(Part):
    """What customs wants at the destination's border, by the rule of the import date. `hs_digits`: of each line's code."""

    name: str
    rule_id: str
    hs_digits: int


class PreSale(Part):
    """When goods that are sold before their harvest may be shipped."""

    ships_not_before: Time
    ships_not_after: Time


class OrderPlaced(Event):
    """Accepted, by the `screening_list` (the version of the list of denied parties): CLEAR, or REVIEW, which an officer ends.
    Buyer and consignee are tokens (to look up) and keyed hashes (to compare); the persons are in the vault.

    `quote`: the landed cost, frozen, when duty and taxes are paid with the order; `tax` is then what goes to others.
    `terms`: what the platform agreed with the merchant, as of the day it was placed.
    `cold`: the lines whose goods must stay in a band. `brands`: the protected ones, and who lets the merchant sell them.
    `declaration`: absent within a country, and where a broker knows better. `real_name`: ASKED of a registry, into China, whose
    the buyer's identity number is; the order stands still until that is known.
    """

    merchant_id: Id
    currency: Currency
    origin: Country
    destination: Country
    regime: Regime
    lines: list[PlacedLine]
    freight: Minor
    tax: Minor
    total: Minor
    on_shortage: Literal["ship_available", "wait"]
    backorder: bool = False
    payment_token: Id
    buyer_token: str
    buyer_hash: str
    consignee_token: str
    consignee_hash: str
    placed_at: Time
    quote: Quote | None = None
    china: ChinaImport | None = None
    terms: Terms | None = None
    cold: list[ColdLine] | None = None
    season: PreSale | None = None
    declaration: Declaration | None = None
    screening: Literal["CLEAR", "REVIEW"] = "CLEAR"
    screening_list: str = ""
    brands: list[BrandChain] | None = None
    real_name: Literal["", "ASKED"] = ""


class OrderRejected(Event):
    """Refused at intake, with a named reason; nothing else will ever happen to this order."""

    reason: str
    detail: Text = ""


class CommandRefused(Event):
    """A later command that the order's state does not allow; the order is as it was."""

    command: str
    command_id: str
    reason: str
    detail: Text = ""


class OrderHeld(Event):
    """The order stands still: nothing of it is charged, released, packed or handed over until every hold has ended.
    `ref` says what holds it, for instance the merchant's freeze."""

    reason: str
    ref: str
    detail: Text = ""


class OrderResumed(Event):
    """This hold has ended and the order goes on; `held_s`: for how long (trade time) its deadlines stood still."""

    reason: str
    ref: str
    held_s: int = 0


class ScreeningDecided(Event):
    """The officer's decision on an order that was held for it; nobody decided in time: `decided_by` is "timer"."""

    outcome: Literal["clear", "block"]
    decided_by: str
    detail: Text = ""


class ScreeningRepeated(Event):
    """A newer list of denied parties means a person of this order, who was clear when it was accepted. BLOCK: what has not left is
    undone. REVIEW: it stands still until an officer decides."""

    result: Literal["REVIEW", "BLOCK"]
    screening_list: str


class RealNameAnswered(Event):
    """What the registry, or an officer who has seen papers, says of the buyer's name and identity number. match: the order goes on;
    mismatch: it is undone; unknown: it waits for an officer. In the end it is unanswered, and undone: `decided_by` is "timer"."""

    outcome: Literal["match", "mismatch", "unknown", "unanswered"]
    decided_by: str
    detail: Text = ""


class CancellationRequested(Event):
    """`by`: who wants it; what the platform undoes (a denied party, a closed merchant) no warehouse is asked about."""

    cancellation_id: str
    lines: list[LineUnits] | None = None
    reason: Text = ""
    by: Literal["buyer", "platform"] = "buyer"


class ReceiptConfirmed(Event):
    """`split_off`: parcels that its warehouse made of it; their money is none of this one's."""

    parcel_id: str
    confirmed_by: Literal["buyer", "timer"]
    split_off: list[str] = []


class ReturnRequested(Event):
    """Goods of one parcel will come back; its money stands still meanwhile."""

    return_id: str
    parcel_id: str
    lines: list[LineUnits] | None = None
    reason: Text = ""


class ReturnExpired(Event):
    """The goods never came back: the parcel goes on where it was."""

    return_id: str
    parcel_id: str


class DisputeOpened(Event):
    dispute_id: str
    parcel_id: str
    reason: Text = ""


class DisputeResolved(Event):
    """`split_off`: as of ReceiptConfirmed."""

    dispute_id: str
    parcel_id: str
    outcome: Literal["won", "lost"]
    split_off: list[str] = []


class RefundGranted(Event):
    """The merchant gives back `amount`, or the value of `lines` (shipping prices them), of one parcel."""

    grant_id: str
    parcel_id: str
    lines: list[LineUnits] | None = None
    amount: Minor | None = None
    reason: Text = ""


class QuotaMoved(Event):
    """China: of what was reserved of a person's year, `amount` (fen) is now committed, released or, after that, restored.
    `parcel_id` is empty for what is in no parcel."""

    parcel_id: str = ""
    kind: Literal["commit", "release", "restore"]
    amount: Minor


class OrderDocumented(Event):
    """China: the order document (CEB311) of one parcel, whose money is held. Told again, with a higher `revision`, when what is
    in the parcel or what the merchant says of it has changed."""

    parcel_id: str
    revision: int
    document: OrderDocument


class ComplaintFiled(Event):
    """Somebody complains about the merchant for this order; `inspection`: an inspection found its goods to be counterfeit. Counted
    per merchant, against all of his orders."""

    complaint_id: str
    by: Literal["buyer", "brand", "authority", "inspection"]
    reason: Literal["counterfeit", "not_as_described", "damaged", "not_received", "other"]
    parcel_id: str | None = None
    detail: Text = ""


class LineCode(Part):
    line_no: int
    hs_code: str


class DocumentsSupplied(Event):
    """The merchant supplied what the customs papers of these lines lacked."""

    lines: list[LineCode]


class OrderCompleted(Event):
    """Every parcel has ended, at least one with the goods at the buyer and the money at the merchant."""

    outcomes: dict[str, str]


class OrderCancelled(Event):
    """Every parcel was undone, to the last cent; `reason` is the exit."""

    reason: str
    outcomes: dict[str, str] = {}


MESSAGES = (
    OrderPlaced, OrderRejected, CommandRefused, CancellationRequested, ReceiptConfirmed, ReturnRequested, ReturnExpired,
    DisputeOpened, DisputeResolved, RefundGranted, OrderCompleted, OrderCancelled, QuotaMoved, OrderDocumented,
    OrderHeld, OrderResumed, ScreeningDecided, ScreeningRepeated, RealNameAnswered, DocumentsSupplied, ComplaintFiled, *merchants.EVENTS,
    *brands.EVENTS,
)
