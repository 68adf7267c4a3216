"""shipping.shipment.v1: where the goods are. Written by shipping; read by orders, payments, warehouses, carriers, customs.

`refund` on an event is by how much the buyer owes less for that parcel because of it, in minor units: payments needs to
know nothing else about why goods did not arrive.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.china_papers import Difference, ImportList
from schemas.cold_chain import Band
from schemas.model import Country, Currency, Event, LineUnits, Minor, Part, Regime, Text, Time
from schemas.terms import Assessment


class ParcelLine(Part):
    """Units of one order line in one parcel; `amount` is what the buyer owes for them, with the line's share of tax."""

    line_no: int
    sku: str
    quantity: int
    amount: Minor


class Leg(Part):
    """One lane of a route, named FROM-TO-SERVICE by places of the network; at the end FROM-door-SERVICE. `arrives`: through
    customs, where it enters another territory."""

    lane: str
    departs: Time
    arrives: Time


class Route(Part):
    """The way of a parcel, planned when it was allocated. `promised_at`: when it is at the door; `in_time`: within the promised hours
    from acceptance; `border`: which leg (from 0) enters the destination's customs territory, -1: none; `cost`: of the carriage,
    in US cents."""

    service: str
    legs: list[Leg]
    promised_at: Time
    in_time: bool
    border: int = -1
    cost: Minor


class ParcelPlan(Part):
    """One parcel: what is in it and what the buyer owes for it (`amount` = lines + freight). `tax`: what of it was quoted as
    duty and taxes that the platform owes an authority.

    `warehouse` is empty where the goods are not there yet: see ParcelBackordered. `route` is absent where the network has no place for the destination. `sscc` names the parcel, `waybill_no` (UPU S10) on its way across a border; no two parcels have one in common."""

    parcel_id: str
    warehouse: str
    lines: list[ParcelLine]
    freight: Minor
    amount: Minor
    sscc: str = ""
    waybill_no: str = ""
    tax: Minor = 0
    route: Route | None = None


class ParcelsAllocated(Event):
    """Stock is reserved and split into parcels; the money may be asked for. The promise counts from `accepted_at`."""

    currency: Currency
    total: Minor
    parcels: list[ParcelPlan]
    unfilled: list[LineUnits] = []
    accepted_at: Time | None = None


class AllocationFailed(Event):
    """Nothing of the order is in stock, or it waited too long; no money has moved."""

    reason: str


class MissingLine(Part):
    line_no: int
    sku: str
    quantity: int


class Backordered(Event):
    """Part of the stock is missing and the order asked to wait."""

    missing: list[MissingLine]


class ParcelBackordered(Event):
    """Units that were not there when the rest was allocated, and follow in a parcel of their own: paid for like the others, packed
    when a warehouse has them, or paid back at `until`."""

    parcel_id: str
    line_no: int
    sku: str
    quantity: int
    until: Time


class BackorderFilled(Event):
    """A warehouse has them now, and they are reserved. `route`: their way, and promised from now on."""

    parcel_id: str
    warehouse: str
    route: Route | None = None


class StockReceived(Event):
    """Goods are on the shelf and may be sold. `order_id` is `stock:<warehouse>:<sku>`, as in the report.

    `arrived`: units of them that were announced."""

    warehouse: str
    sku: str
    quantity: int
    available: int
    arrived: int = 0


class HarvestExpected(Event):
    """Goods may be sold before they are there. `order_id` as of StockReceived."""

    warehouse: str
    sku: str
    quantity: int
    harvest_on: date


class PreSoldLine(Part):
    line_no: int
    sku: str
    warehouse: str
    quantity: int


class PreSold(Event):
    """Held of an announced harvest until the season opens; nothing is paid before."""

    lines: list[PreSoldLine]
    opens: Time
    closes: Time


class SeasonOpened(Event):
    """What was held is taken from the shelf now, or waited for until the season closes."""


class InventoryAdjusted(Event):
    """Units that were free to sell are not on the shelf: a parcel was to be packed with them and its buyer had cancelled them."""

    warehouse: str
    sku: str
    quantity: int


class LaneClosed(Event):
    """A lane of the network is closed. `order_id` is `lane:<lane>`, as in the report."""

    lane: str
    reason: Text = ""


class LaneOpened(Event):
    """It may be used again."""

    lane: str


class ParcelEvent(Event):
    """`planned`, where a type has it: when the next steps are due by the plan, the nearest first."""

    parcel_id: str


class DocumentsReady(Event):
    """The parcels' customs papers are complete (within a country: none are needed)."""

    parcel_ids: list[str]


class MissingDocument(Part):
    line_no: int
    what: str


class DocumentsMissing(Event):
    """The customs papers lack something: the order waits for the merchant (SupplyDocuments), at most until `until`, when the
    buyer's authorisation runs out."""

    missing: list[MissingDocument]
    until: Time


class ParcelStopped(ParcelEvent):
    """To the warehouse: do not hand this parcel over until each `reason` it was stopped for is cleared."""

    reason: str


class ParcelCleared(ParcelEvent):
    """To the warehouse: this reason to keep the parcel has ended."""

    reason: str


class DocumentsMismatched(ParcelEvent):
    """China: order, payment and waybill disagree, on these fields. Corrected by `until`, or the buyer is paid back; `attempt`:
    how many times this parcel's papers were found wrong, by us or by customs."""

    attempt: int
    differences: list[Difference]
    until: Time


class DocumentsMatched(ParcelEvent):
    """China: order, captured payment and waybill agree. To customs: this is the parcel's import list."""

    import_list: ImportList | None = None


class ListAccepted(ParcelEvent):
    """China: customs has the import list; the parcel may be packed."""

    list_no: str


class ListHeld(ParcelEvent):
    """China, mode 1210: customs inspects or detains the goods in the bonded warehouse."""

    list_no: str
    status: str
    reason: Text = ""


class ListReleased(ParcelEvent):
    """China, mode 1210: customs released the goods (status 800); they may be packed."""

    list_no: str


class ListRejected(ParcelEvent):
    """China: customs did not take the import list. `status` as its receipt (CEB622) says."""

    list_no: str
    status: str
    attempt: int
    reason: Text = ""


class FulfilmentRequested(ParcelEvent):
    """To the warehouse: pack this, and write its numbers on the label. `cold`: with a logger that is set to this band.
    `replaces`: the SSCC of the box that was spoiled, whose goods are sent once more."""

    warehouse: str
    destination: Country
    regime: Regime
    lines: list[ParcelLine]
    sscc: str = ""
    waybill_no: str = ""
    cold: Band | None = None
    replaces: str = ""
    planned: list[Time] = []


class PackedUnit(Part):
    """One unit by GTIN, serial number and lot, as the warehouse scanned it."""

    line_no: int
    gtin: str
    serial: str
    lot: str = ""


class ParcelPacked(ParcelEvent):
    warehouse: str
    destination: Country
    regime: Regime
    sscc: str = ""
    waybill_no: str = ""
    planned: list[Time] = []
    units: list[PackedUnit] = []


class SeenAt(Part):
    """Where a unit was: in which parcel, at which place of the network, when."""

    order_id: str
    parcel_id: str
    place: str
    at: Time


class SerialAlert(ParcelEvent):
    """A serial number was seen where it cannot be: in two parcels (`twice`), or in two places that are farther apart (`km`) than
    anything travels in that time. One of the two is a copy."""

    kind: Literal["twice", "too_far"]
    gtin: str
    serial: str
    lot: str = ""
    km: int
    first: SeenAt
    again: SeenAt


class InspectionHeld(ParcelEvent):
    """Nobody hands the parcel over before somebody has looked at the goods."""

    inspection_id: str
    reason: Literal["random", "risk", "brand_complaint"]
    detail: Text = ""


class InspectionEnded(ParcelEvent):
    """Genuine: it goes on. Counterfeit, or undecided by the deadline: the buyer gets the money, and nobody the goods."""

    inspection_id: str
    result: Literal["genuine", "counterfeit", "undecided"]
    decided_by: str
    detail: Text = ""


class PackingHeld(ParcelEvent):
    """The warehouse cannot pack it now; resumed, packed, or cancelled and refunded by the deadline."""

    reason: Text


class PackingResumed(ParcelEvent):
    pass


class PackingStarted(ParcelEvent):
    """The warehouse has begun: it is asked before a buyer's cancellation undoes anything."""


class CancellationAsked(ParcelEvent):
    """To the warehouse, which has begun: may this be undone? All of it, or `lines`. Without an answer by `until` all of it is;
    of single lines silence is a no. Handed over before: the carrier is asked instead."""

    cancellation_id: str
    lines: list[LineUnits] | None = None
    until: Time


class ParcelShortPicked(ParcelEvent):
    lines: list[LineUnits]
    refund: Minor


class ParcelSplit(ParcelEvent):
    """From now on it has only these `lines`, units that had left it by then among them, and `part` goes on as a parcel of its own,
    which its warehouse is asked to pack. No money moves: the two together are what the parcel was, amount, freight and tax, and
    what a division leaves over stays in the first."""

    lines: list[ParcelLine]
    freight: Minor
    amount: Minor
    tax: Minor = 0
    part: ParcelPlan


class SplitRefused(ParcelEvent):
    """To the warehouse: this parcel stays one. China: one captured payment, one payment document and one list a parcel
    (`one_list`); the order stands still (`stopped`); a cancellation waits for the warehouse's answer (`asked`); it is sent once
    more, for a box that was spoiled (`replaced`); it has not so many units of a line (`too_many`); nothing would be left in it
    (`nothing_left`), or nothing that costs anything in one of the two (`worthless`); it is split often enough (`too_often`)."""

    reason: Literal["one_list", "stopped", "asked", "replaced", "too_many", "nothing_left", "worthless", "too_often"]
    detail: Text = ""


class ParcelLinesCancelled(ParcelEvent):
    cancellation_id: str
    lines: list[LineUnits]
    refund: Minor


class ParcelCancelled(ParcelEvent):
    """Undone before hand-over: unpacked and restocked. `revokes`: China: the import list that customs has, which is revoked (CEB623)."""

    reason: str
    refund: Minor
    revokes: str = ""


class CancellationDeclined(ParcelEvent):
    """Too late: the parcel goes on."""

    cancellation_id: str
    reason: str


class InterceptRequested(ParcelEvent):
    """To the carrier: stop this parcel if you can."""

    cancellation_id: str


class ParcelHandedOver(ParcelEvent):
    """The carrier has it. `despite`: what it was stopped for, when the goods had left before the warehouse heard of it."""

    carrier: str
    tracking_no: str
    destination: Country
    regime: Regime
    despite: list[str] = []
    planned: list[Time] = []


class ParcelExported(ParcelEvent):
    pass


class ParcelArrived(ParcelEvent):
    destination: Country


class CustomsPresented(ParcelEvent):
    """`declared`: duty and taxes that were quoted for what is in it, where they were paid with the order."""

    destination: Country
    declared: Assessment | None = None


class CustomsHeld(ParcelEvent):
    reason: Text


class CustomsReleased(ParcelEvent):
    planned: list[Time] = []


class DutyAssessed(ParcelEvent):
    """Customs' bill came with the release."""

    assessed: Assessment


class CustomsRefused(ParcelEvent):
    """Refused, or not decided by the deadline: it goes back to the sender and the buyer gets the money back."""

    reason: Text
    refund: Minor


class ParcelOutForDelivery(ParcelEvent):
    pass


class DeliveryFailed(ParcelEvent):
    attempt: int
    reason: Text = ""


class ParcelAtPickup(ParcelEvent):
    """It waits for the buyer at a pickup point: the carrier says so, or it was the third failed attempt."""


class ParcelDelivered(ParcelEvent):
    """`kept`: whether it was there by `promised_at`, pauses counted; absent where nothing was promised."""

    delivered_at: Time | None = None
    promised_at: Time | None = None
    kept: bool | None = None


class ParcelReturning(ParcelEvent):
    """On its way back to the sender: not collected, or intercepted."""

    reason: str


class ParcelReturned(ParcelEvent):
    """Back at the warehouse and restocked."""

    reason: str
    refund: Minor


class ParcelQuarantined(ParcelEvent):
    """The goods were too warm or too cold for too long, or (`silent`) their logger said nothing for longer than it may: nobody gets
    them until somebody has decided, or the deadline has."""

    excursion_id: str
    began: Time
    until: Time
    minutes: int
    worst_tenths: int
    silent: bool = False


class QualityReleased(ParcelEvent):
    """The goods are fit all the same."""

    excursion_id: str
    decided_by: str
    reason: Text = ""


class QualityRefunded(ParcelEvent):
    """The goods, which the buyer has already, are not fit."""

    excursion_id: str
    decided_by: str
    refund: Minor
    reason: Text = ""


class ParcelReplaced(ParcelEvent):
    """The goods are not fit and are sent once more, in another box; the money stays where it is."""

    excursion_id: str
    decided_by: str
    sscc: str
    waybill_no: str
    replaces: str
    reason: Text = ""


class ParcelDestroyed(ParcelEvent):
    """Nobody will have the goods."""

    reason: str
    refund: Minor


class ParcelLost(ParcelEvent):
    """No scan for too long, or the carrier says so. The carrier is asked for `claim`."""

    reason: str
    refund: Minor
    claim: Minor


class ClaimPaid(ParcelEvent):
    """The carrier made the loss good."""

    amount: Minor


class ReturnAuthorised(ParcelEvent):
    """To the buyer and the warehouse: this return is expected."""

    return_id: str


class ReturnReceived(ParcelEvent):
    """`returns_list`: China: the import list that these goods, worth `worth` with their tax, are returned of (CEB625), as long as
    the rule frozen on the order lets it; `late`: they stay imported, their tax paid and the buyer's year used, because they were
    asked for or came back too late after customs' release, or no rule of that day gives anything back (`why_late`)."""

    return_id: str
    lines: list[LineUnits]
    refund: Minor
    returns_list: str = ""
    late: bool = False
    why_late: Literal["", "asked_late", "back_late", "no_rule"] = ""
    worth: Minor = 0


class ListWithdrawn(ParcelEvent):
    """China: customs' answer to a revocation (CEB624) or a return (CEB626) of an import list. Not `accepted`: a person must
    talk to customs."""

    list_no: str
    form: Literal["CEB624", "CEB626"]
    accepted: bool
    return_id: str = ""
    reason: Text = ""


class GrantPriced(ParcelEvent):
    """What a merchant's granted refund is worth, never more than the parcel still is."""

    grant_id: str
    refund: Minor


class PromisePaused(ParcelEvent):
    """The clock of the promise stands still, from `at`: what it waits for is not ours to do."""

    reason: Literal["customs_hold", "buyer_absent", "documents_missing"]
    at: Time


class PromiseHeld(ParcelEvent):
    """The same, before the carrier has the goods: the order or its merchant is stopped (`reason` as of ParcelStopped), or they are not
    there yet (`no_stock`, from the beginning on: what is promised is told when they are)."""

    reason: str
    at: Time


class PromiseResumed(ParcelEvent):
    """It goes on. What it stood still is added to the promise: `promised_at` is the new one; after `no_stock`, the first."""

    reason: str
    at: Time
    paused_s: Annotated[int, Field(ge=0)]
    promised_at: Time


class PromiseAtRisk(ParcelEvent):
    """By what is known now it will be late: a scan came late or not at all, or its lane closed."""

    reason: Literal["late_scan", "no_scan", "lane_closed"]
    promised_at: Time
    predicted_at: Time


class PromiseBroken(ParcelEvent):
    """It was delivered after the promise had ended."""

    promised_at: Time
    delivered_at: Time


class ParcelRerouted(ParcelEvent):
    """A lane ahead of it is closed: from now on this is its way. The promise stays as it was."""

    lane: str
    route: Route


MESSAGES = (
    ParcelsAllocated, AllocationFailed, Backordered, ParcelBackordered, BackorderFilled, PreSold, SeasonOpened, StockReceived, HarvestExpected, InventoryAdjusted, DocumentsReady, DocumentsMatched, DocumentsMissing,
    DocumentsMismatched, ListAccepted, ListRejected, ListHeld, ListReleased, ListWithdrawn,
    FulfilmentRequested, PackingHeld, PackingResumed, PackingStarted, CancellationAsked, ParcelPacked, ParcelShortPicked, ParcelSplit, SplitRefused, ParcelLinesCancelled, ParcelCancelled, CancellationDeclined,
    InterceptRequested, ParcelHandedOver, ParcelExported, ParcelArrived, CustomsPresented, CustomsHeld, CustomsReleased,
    DutyAssessed, CustomsRefused, ParcelOutForDelivery, DeliveryFailed, ParcelAtPickup, ParcelDelivered, ParcelReturning,
    ParcelReturned, ParcelQuarantined, QualityReleased, QualityRefunded, ParcelReplaced, ParcelDestroyed, ParcelLost, ClaimPaid,
    ReturnAuthorised, ReturnReceived, GrantPriced, ParcelStopped, ParcelCleared, PromisePaused, PromiseHeld, PromiseResumed,
    PromiseAtRisk, PromiseBroken, ParcelRerouted, LaneClosed, LaneOpened, SerialAlert, InspectionHeld, InspectionEnded,
)
