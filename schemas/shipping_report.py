"""shipping.report.v1: what warehouses, carriers and customs report. Read by shipping.

Key: order id, except `InboundReceived`, whose key is its `order_id` field `stock:<warehouse>:<sku>`.
Reports may come late, twice and out of order; the record's CloudEvents id makes a repeated one harmless.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from schemas.model import Command, Id, LineQuantity, Minor, Quantity, Sku, Text


class ParcelReport(Command):
    parcel_id: Id


class InboundReceived(Command):
    """Goods arrived at a warehouse: stock grows."""

    warehouse: Id
    sku: Sku
    quantity: Quantity


class PackedReported(ParcelReport):
    pass


class ShortPickReported(ParcelReport):
    """Some units were not on the shelf; the rest is packed."""

    lines: Annotated[list[LineQuantity], Field(min_length=1)]


class PackingRejected(ParcelReport):
    """The warehouse cannot pack this parcel at all."""

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
    pass


class CustomsRefusalReported(ParcelReport):
    reason: Text


class OutForDeliveryReported(ParcelReport):
    pass


class DeliveryFailureReported(ParcelReport):
    attempt: Annotated[int, Field(ge=1, le=9)]
    reason: Text = ""


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


class ClaimPaidReported(ParcelReport):
    amount: Minor


class ReturnReceivedReported(ParcelReport):
    """Goods a buyer sent back are in the warehouse, fit for sale."""

    return_id: str


MESSAGES = (
    InboundReceived, PackedReported, ShortPickReported, PackingRejected, HandedOverReported, ExportedReported,
    ArrivedReported, PresentedReported, CustomsHoldReported, CustomsReleaseReported, CustomsRefusalReported,
    OutForDeliveryReported, DeliveryFailureReported, DeliveredReported, InterceptAccepted, InterceptRefused,
    ReturnedToSenderReported, LossReported, ClaimPaidReported, ReturnReceivedReported,
)
