"""The trusted edge: seals persons, encodes commands into records, and publishes them in large batches.

A storefront, the importer and the benchmark all place their orders through here. A record is sent again under the same
id as long as its fate is unknown: the readers take the second one for a repetition, provided its content is the same. So
an order is built once and kept (or read again from where it came), never sealed a second time under one id.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from pydantic_core import to_json

from schemas import brands, merchants
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.orders_intake import OrderLine, PlaceOrder
from schemas.shipping_report import HarvestAnnounced, InboundReceived
from schemas.terms import STANDARD
from schemas.topics import INTAKE, PROVIDER_RESULT, REPORT
from services.runtime.crash import point
from services.runtime.settings import Settings
# whoever places orders finds them here
from services.simulators.demo_orders import AGREED, corridor_orders as corridor_orders, demo_orders as demo_orders
from services.simulators.journal import Journal
from services.simulators.scenario import (BRANDED, FORCED, OPENS_AFTER, SKU_NOWHERE, SKU_PART, SKU_SEASON, TERMS_CHANGED, announced_too_little, goods_needed,
                                          warehouse_of)

STOREFRONT, PLATFORM = "/storefront", "/platform"
CHUNK = 4_000
QUANTITY_MAX = 10**6

_TOPIC_OF = {model: topic.name for topic in (INTAKE, PROVIDER_RESULT, REPORT) for model in topic.messages}


class Record(NamedTuple):
    """One command or report, ready for the broker."""

    topic: str
    id: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    message: Any


def record_of(message: Any, *, id: str, time: datetime, merchant: str, source: str = STOREFRONT, correlation: str = "",
              causation: str = "") -> Record:
    """Encode a command or report. `id` must be the same for the same wish, however often it is sent; `time` is trade
    time. Without a `correlation` the record starts a conversation of its own."""
    topic, name = _TOPIC_OF[type(message)], type(message).__name__
    envelope = Envelope(id, name, source, time, message.order_id, 0, correlation or id, causation, merchant)
    return Record(topic, id, message.order_id.encode(), message.__pydantic_serializer__.to_json(message),
                  headers_of(envelope, dataschema_of(topic, name)), message)


def place_id(order_id: str) -> str:
    """The id under which an order is placed, and which correlates all that follows."""
    return f"place:{order_id}"


def place_record(order: PlaceOrder) -> Record:
    return record_of(order, id=place_id(order.order_id), time=order.placed_at, merchant=order.merchant_id)


def inbound_for(orders: Iterable[PlaceOrder], *, batch: str, time: datetime) -> Iterator[Record]:
    """The reports that stock the warehouses with what these orders need: nothing of an SKU that is nowhere, one unit too
    few of one that is short. `batch` names this delivery: the same name again is a repetition."""
    wanted: dict[str, int] = {}
    merchants: dict[str, str] = {}
    for order in orders:
        for line in order.lines:
            if line.sku.startswith(SKU_SEASON):
                yield _announcement(order, line, batch, time)
                continue
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity * goods_needed(order.order_id)
            merchants[line.sku] = order.merchant_id
    for sku, quantity in wanted.items():
        left = 0 if sku.startswith(SKU_NOWHERE) else quantity - sku.startswith(SKU_PART)
        warehouse = warehouse_of(sku)
        for part in range(0, left, QUANTITY_MAX):
            message = InboundReceived(order_id=f"stock:{warehouse}:{sku}", warehouse=warehouse, sku=sku,
                                      quantity=min(QUANTITY_MAX, left - part))
            yield record_of(message, id=f"inbound:{batch}:{warehouse}:{sku}:{part // QUANTITY_MAX}", time=time,
                            merchant=merchants[sku], source=f"/warehouse/{warehouse}")


def _announcement(order: PlaceOrder, line: OrderLine, batch: str, time: datetime) -> Record:
    """A harvest of the line's goods, of one unit too few where the scenario asks for it."""
    warehouse = warehouse_of(line.sku)
    message = HarvestAnnounced(order_id=f"stock:{warehouse}:{line.sku}", warehouse=warehouse, sku=line.sku,
                               quantity=line.quantity - announced_too_little(order.order_id), harvest_on=(time + OPENS_AFTER).date())
    return record_of(message, id=f"harvest:{batch}:{warehouse}:{line.sku}", time=time, merchant=order.merchant_id,
                     source=f"/warehouse/{warehouse}")


def registrations_for(orders: Iterable[PlaceOrder], time: datetime) -> Iterator[Record]:
    """What the platform knows of the brands of these orders: owner, distributor, and the merchant where he may sell; and their
    merchant, where his terms change. Only orders whose scenario is about that have one of their own."""
    for order in orders:
        if order.order_id.startswith(f"{FORCED}{TERMS_CHANGED}."):
            yield from merchant_records(order.merchant_id, STANDARD, order.currency, time)
        brand, refused = order.lines[0].brand, order.order_id.startswith(f"{FORCED}brand_refused.")
        if brand is None or not order.order_id.startswith(tuple(f"{FORCED}{name}." for name in BRANDED)):
            continue
        key = brands.brand_key(brand)
        by = {"order_id": key, "decided_by": "officer-1"}
        link = by | {"territory": ["*"], "valid_from": time.date() - timedelta(days=400), "valid_to": time.date() + timedelta(days=400),
                     "doc_hash": hashlib.sha256(brand.encode()).hexdigest()}
        yield record_of(brands.RegisterBrand(name=brand, owner="brand-owner", **by), id=f"brand:{key}", time=time, merchant="", source=PLATFORM)
        yield record_of(brands.GrantAuthorisation(authorisation_id="A1", grantor="brand-owner", grantee="distributor", **link),
                        id=f"grant:{key}:A1", time=time, merchant="", source=PLATFORM)
        if not refused:
            yield record_of(brands.GrantAuthorisation(authorisation_id="A2", grantor="distributor", grantee=order.merchant_id, **link),
                            id=f"grant:{key}:A2", time=time, merchant="", source=PLATFORM)


def merchant_records(merchant: str, fee_plan: str, payout: str, time: datetime) -> Iterator[Record]:
    """An application to sell by this plan, paid out in this currency, and an officer's approval."""
    key = f"{merchants.MERCHANT}{merchant}"
    for message in (merchants.RegisterMerchant(order_id=key, legal_name=f"{merchant} Inc.", country="US", registration_no="604-001-234",
                                               fee_plan=fee_plan, payout_currency=payout, payout_token=f"acct-{merchant}"),
                    merchants.ApproveMerchant(order_id=key, decided_by="officer-1")):
        yield record_of(message, id=f"{type(message).__name__}:{merchant}", time=time, merchant="", source=PLATFORM)


def merchants_for(time: datetime) -> Iterator[Record]:
    """The synthetic merchants who registered, each with the terms he has now; the others sell without any."""
    for merchant, agreed in AGREED.items():
        (plan, payout), *later = agreed
        yield from merchant_records(merchant, plan, payout, time)
        for plan, payout in later:
            changed = merchants.ChangeTerms(order_id=f"{merchants.MERCHANT}{merchant}", fee_plan=plan, payout_currency=payout,
                                            valid_from=time.date(), decided_by="officer-1")
            yield record_of(changed, id=f"terms:{merchant}:{plan}", time=time, merchant="", source=PLATFORM)


def client_journal(settings: Settings) -> Path:
    return settings.data_folder / "journals" / "client.ndjson"


class Publisher:
    """An idempotent producer with a client's journal: a line `sent` before a record goes out, and after it a line
    `acknowledged`, or `unknown` when the broker did not say.

    async with Publisher(bootstrap, journal) as publisher: await publisher.send(records)
    """

    def __init__(self, bootstrap: str, journal: Path | None = None):
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0,
                                          max_batch_size=900_000, request_timeout_ms=20_000)
        self._journal = Journal(journal) if journal else None
        self._partitions: dict[str, int] = {}

    async def __aenter__(self) -> Publisher:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        if self._journal:
            self._journal.close()

    async def send(self, records: Iterable[Record]) -> int:
        """Publish in the order given; returns how many, all acknowledged. While one chunk is under way the next is made.

        Raises KafkaError when the broker did not acknowledge: those records are `unknown`, and may be sent again.
        """
        under_way: asyncio.Task | None = None
        count, chunk = 0, []
        for record in records:
            chunk.append(record)
            if len(chunk) == CHUNK:
                under_way, chunk = await self._next(under_way, chunk), []
                count += CHUNK
        under_way = await self._next(under_way, chunk)
        await under_way
        return count + len(chunk)

    async def _next(self, under_way: asyncio.Task | None, chunk: list[Record]) -> asyncio.Task:
        if under_way is not None:
            await under_way  # an order's records keep their sequence: one chunk at a time
        task = asyncio.create_task(self._deliver(chunk))
        await asyncio.sleep(0)  # let it reach the socket before the next chunk takes the processor
        return task

    async def _deliver(self, chunk: list[Record]) -> None:
        batches: dict[tuple[str, int], list[Any]] = {}
        for record in chunk:
            partition = (murmur2(record.key) & 0x7FFFFFFF) % await self._partition_count(record.topic)
            builders = batches.setdefault((record.topic, partition), [])
            if not builders or not _append(builders[-1], record):
                builders.append(self._producer.create_batch())
                if not _append(builders[-1], record):
                    raise ValueError(f"{record.id} is above the broker's record limit")
        point("edge.sending")
        self._note(_sent_line(record) for record in chunk)
        point("edge.journaled")
        try:
            under_way = [await self._producer.send_batch(builder, topic, partition=partition)
                         for (topic, partition), builders in batches.items() for builder in builders]
            point("edge.in_flight")
            await asyncio.gather(*under_way)
        except KafkaError:
            self._note(b'{"unknown":%s}' % to_json(record.id) for record in chunk)
            raise
        point("edge.sent")
        self._note(b'{"acknowledged":%s}' % to_json(record.id) for record in chunk)
        point("edge.acknowledged")

    def _note(self, lines: Iterable[bytes]) -> None:
        if self._journal:
            self._journal.write(list(lines))

    async def _partition_count(self, topic: str) -> int:
        if topic not in self._partitions:
            self._partitions[topic] = len(await self._producer.partitions_for(topic))
        return self._partitions[topic]


def _append(builder: Any, record: Record) -> bool:
    return builder.append(timestamp=None, key=record.key, value=record.value, headers=record.headers) is not None


def _sent_line(record: Record) -> bytes:
    """What the client will stand by: id, order, amounts, and a fingerprint of the exact content."""
    message = record.message
    line = {"sent": record.id, "order": message.order_id, "type": type(message).__name__, "topic": record.topic,
            "content": hashlib.blake2b(record.value, digest_size=8).hexdigest()}
    for name in ("merchant_id", "currency", "total", "amount", "parcel_id", "quantity"):
        value = getattr(message, name, None)
        if value is not None:
            line[name] = value
    return to_json(line)


async def place(bootstrap: str, orders: Iterable[PlaceOrder], journal: Path | None = None) -> int:
    """Place orders at full speed; returns how many were acknowledged. Raises KafkaError as `Publisher.send`."""
    async with Publisher(bootstrap, journal) as publisher:
        return await publisher.send(place_record(order) for order in orders)
