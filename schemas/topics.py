"""Every topic: who writes it, who reads it, what is on it. Key = order id; the same number of partitions everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas import (orders_intake, orders_order, payments_payment, payments_provider_result, shipping_report,
                     shipping_sensor, shipping_shipment)
from schemas.model import Command, Event

KEEP = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}


@dataclass(frozen=True)
class Topic:
    name: str
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    messages: tuple[type[Event] | type[Command], ...]
    config: dict[str, str] = field(default_factory=lambda: dict(KEEP))

    @property
    def dlq(self) -> str:
        """Where a reader puts a record that it can never handle."""
        return f"{self.name}.dlq"


INTAKE = Topic("orders.intake.v1", ("storefronts",), ("orders",), orders_intake.MESSAGES)
ORDER = Topic("orders.order.v1", ("orders",), ("payments", "shipping", "console", "storefronts"), orders_order.MESSAGES)
PAYMENT = Topic("payments.payment.v1", ("payments",), ("orders", "shipping", "console"), payments_payment.MESSAGES)
PROVIDER_RESULT = Topic("payments.provider-result.v1", ("payments' callers", "webhooks"), ("payments",),
                        payments_provider_result.MESSAGES)
SHIPMENT = Topic("shipping.shipment.v1", ("shipping",),
                 ("orders", "payments", "warehouses", "carriers", "customs", "console"), shipping_shipment.MESSAGES)
REPORT = Topic("shipping.report.v1", ("warehouses", "carriers", "customs", "cold-chain view"), ("shipping",),
               shipping_report.MESSAGES)
SENSOR = Topic("shipping.sensor.v1", ("loggers",), ("cold-chain view",), shipping_sensor.MESSAGES)

TOPICS: tuple[Topic, ...] = (INTAKE, ORDER, PAYMENT, PROVIDER_RESULT, SHIPMENT, REPORT, SENSOR)

MODELS = {model.__name__: model for topic in TOPICS for model in topic.messages}
assert len(MODELS) == sum(len(topic.messages) for topic in TOPICS), "a message name is used twice"
