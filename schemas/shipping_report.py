"""shipping.report.v1: what warehouses, carriers and customs report. Read by shipping.

Key: order id, except `InboundReceived` and `HarvestAnnounced`, whose key is their `order_id` field `stock:<warehouse>:<sku>`,
and lanes'.
Reports may come late, twice and out of order; the record's CloudEvents id makes a repeated one harmless.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from schemas.cold_chain import Tenths
from schemas.model import Command, CommandPart, Id, LineNo, LineQuantity, Minor, Quantity, Sku, Text, Time
from schemas.terms import ReportedAssessment


class ParcelReport(Command):
    """`sscc`: which box; needed once a parcel was replaced, so that nothing is believed of the box that it was before."""

    parcel_id: Id
    sscc: Annotated[str, Field(pattern=r"^\d{18}$")] | None = None


class InboundReceived(Command):
    """Goods arrived at a warehouse: stock grows. `harvest`: they are what was announced."""

    warehouse: Id
    sku: Sku
    quantity: Quantity
    harvest: bool = False


class HarvestAnnounced(Command):
    """So much will be harvested and come to a warehouse: it can be sold before it is there. Key as of InboundReceived."""

    warehouse: Id
    sku: Sku
    quantity: Quantity
    harvest_on: Annotated[date, Field(strict=False)]


LANE = "lane:"  # begins the keys of what concerns a lane of the network, which belongs to no order


class CloseLane(Command):
    """Nothing goes over this lane any more: new plans avoid it, parcels that have it ahead are re-routed. Key and `order_id`:
    `lane:<lane>`."""

    lane: Id
    reason: Text = ""


class OpenLane(Command):
    """The lane may be used again; routes that were changed stay as they are."""

    lane: Id


Element = r'[!"%-/0-9:-?A-Z_a-z]'  # GS1's characters of a serial number or lot


class UnitCode(CommandPart):
    """What is written on one unit: its GTIN (AI 01), serial number (21) and lot (10). `line_no`: of which line of the order it is."""

    line_no: LineNo
    gtin: Annotated[str, Field(pattern=r"^\d{8,14}$")]
    serial: Annotated[str, Field(pattern=f"^{Element}{{1,20}}$")]
    lot: Annotated[str, Field(pattern=f"^{Element}{{0,20}}$")] = ""


CancellationId = Annotated[str, Field(min_length=1, max_length=300)]


class PackedReported(ParcelReport):
    """`units`: the serial numbers of what was packed, where its units have some."""

    units: Annotated[list[UnitCode], Field(max_length=5000)] = []


class SerialScanReported(ParcelReport):
    """Somebody scanned a unit of a parcel: `at`, in a `place` of the network, by whom (a warehouse, the brand's app, customs)."""

    gtin: Annotated[str, Field(pattern=r"^\d{8,14}$")]
    serial: Annotated[str, Field(pattern=f"^{Element}{{1,20}}$")]
    place: Id
    at: Time
    scanned_by: Id


InspectionId = Annotated[str, Field(min_length=1, max_length=300)]


class OpenInspection(ParcelReport):
    """Somebody has to look at the goods before they leave; of a parcel that is not packed yet, as soon as it is."""

    inspection_id: InspectionId
    reason: Literal["random", "risk", "brand_complaint"]
    detail: Text = ""


class RecordInspection(ParcelReport):
    """Somebody has looked at them. Genuine: they go on; counterfeit: the buyer gets the money, the merchant a complaint."""

    inspection_id: InspectionId
    result: Literal["genuine", "counterfeit"]
    decided_by: Id
    detail: Text = ""


class ShortPickReported(ParcelReport):
    """Some units were not on the shelf; the rest is packed."""

    lines: Annotated[list[LineQuantity], Field(min_length=1)]


class SplitReported(ParcelReport):
    """The goods do not go into one box, or are not ready together: these units go on in a parcel of their own. Before packing alone;
    what is packed afterwards is what is left."""

    lines: Annotated[list[LineQuantity], Field(min_length=1, max_length=2000)]


class PackingRejected(ParcelReport):
    """The warehouse cannot pack this parcel at all."""

    reason: Text


class PackingHeldReported(ParcelReport):
    """The warehouse cannot pack this parcel now: it stands still until it is resumed, packed, rejected or cancelled."""

    reason: Text


class PackingResumedReported(ParcelReport):
    """What held it up is over."""


class PackingStartedReported(ParcelReport):
    """Somebody has begun to pack it. From now on the warehouse is asked before a buyer's cancellation undoes anything."""


class CancellationAccepted(ParcelReport):
    """The warehouse's yes to CancellationAsked: the goods, or those lines of them, go back to their shelf."""

    cancellation_id: CancellationId


class CancellationRefused(ParcelReport):
    """Its no: the parcel goes on."""

    cancellation_id: CancellationId
    reason: Text


class HandedOverReported(ParcelReport):
    carrier: Id
    tracking_no: Id


class ExportedReported(ParcelReport):
    pass


class ArrivedReported(ParcelReport):
    pass


class PresentedReported(ParcelReport):
    pass


class CustomsHoldReported(ParcelReport):
    reason: Text


class CustomsReleaseReported(ParcelReport):
    """`assessed`: duty and taxes as customs' bill says (CEB816 or its like); absent: none is told at the border."""

    assessed: ReportedAssessment | None = None


class CustomsRefusalReported(ParcelReport):
    reason: Text


class OutForDeliveryReported(ParcelReport):
    pass


class DeliveryFailureReported(ParcelReport):
    attempt: Annotated[int, Field(ge=1, le=9)]
    reason: Text = ""


class AtPickupReported(ParcelReport):
    """It waits for the buyer at a pickup point."""


class DeliveredReported(ParcelReport):
    pass


class InterceptAccepted(ParcelReport):
    pass


class InterceptRefused(ParcelReport):
    reason: Text


class ReturnedToSenderReported(ParcelReport):
    """The undelivered parcel is back in the warehouse."""


class LossReported(ParcelReport):
    pass


class DestroyedReported(ParcelReport):
    """It was destroyed on its way, or instead of coming back."""


class CarrierScanReported(ParcelReport):
    """An event in the carrier's own words: `code` of `dialect`, scanned `at` a place. carrier_codes.toml says which report it
    is, or that it is information only; a code without a row is refused. `ceb622`: a receipt of Chinese customs, for a parcel
    into China alone; before the parcel arrives it names the import list it is about in `tracking_no`.

    `leg`: which border, for codes that are used at both. `reason`: why a parcel is held, or could not be delivered."""

    dialect: Literal["upu", "cainiao", "gs1", "ceb622"]
    code: Annotated[str, Field(min_length=1, max_length=60)]
    at: Time
    place: Annotated[str, Field(max_length=100)] = ""
    leg: Literal["export", "import"] | None = None
    carrier: Id | None = None
    tracking_no: Id | None = None
    reason: Text = ""


class ListWithdrawalReported(ParcelReport):
    """Chinese customs' receipt for a revocation (CEB624) of the import list `list_no`, or for the return of goods of it (CEB626,
    which names `return_id`)."""

    list_no: Id
    form: Literal["CEB624", "CEB626"]
    accepted: bool
    return_id: Annotated[str, Field(max_length=200)] = ""
    reason: Text = ""


class ClaimPaidReported(ParcelReport):
    amount: Minor


class ReturnReceivedReported(ParcelReport):
    """Goods a buyer sent back are in the warehouse, fit for sale."""

    return_id: str


class ExcursionReported(ParcelReport):
    """Said by shipping's own view of shipping.sensor.v1: the goods were outside their band for longer than they tolerate.

    It lasted from `began` at least `until`, when it was found; `worst_tenths`: farthest outside, in tenths of a degree."""

    excursion_id: Annotated[str, Field(max_length=80)]
    began: Time
    until: Time
    minutes: Annotated[int, Field(ge=0)]
    worst_tenths: Tenths


class LoggerHeard(ParcelReport):
    """Said by shipping's own view of shipping.sensor.v1, of goods whose band has `silent_minutes`: the parcel's logger said something.
    `at`: its newest reading then."""

    at: Time


class RecordQualityDecision(ParcelReport):
    """A person looked at an excursion: the goods go on, are sent once more, or are paid back."""

    excursion_id: Annotated[str, Field(max_length=80)]
    decision: Literal["release", "reship", "refund"]
    decided_by: Literal["merchant", "warehouse"]
    reason: Text = ""


MESSAGES = (
    InboundReceived, HarvestAnnounced, CloseLane, OpenLane, PackedReported, ShortPickReported, SplitReported, PackingRejected,
    PackingHeldReported, PackingResumedReported, PackingStartedReported, CancellationAccepted, CancellationRefused,
    HandedOverReported, ExportedReported, ArrivedReported, PresentedReported, CustomsHoldReported, CustomsReleaseReported,
    CustomsRefusalReported, OutForDeliveryReported, DeliveryFailureReported, AtPickupReported, DeliveredReported,
    InterceptAccepted, InterceptRefused, ReturnedToSenderReported, LossReported, DestroyedReported, ClaimPaidReported,
    ReturnReceivedReported, ListWithdrawalReported, CarrierScanReported, ExcursionReported, LoggerHeard, RecordQualityDecision,
    SerialScanReported, OpenInspection, RecordInspection,
)
