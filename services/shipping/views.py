"""The cold-chain view: a Faust app that finds excursions in the loggers' readings and tells shipping of them.

    python -m services.shipping.views worker --without-web      (else Faust listens on its port, whatever the app says)

Readings are kept in tumbling windows of a day, by the reading's own time, and judged by `schemas.cold_chain`; what is found is
an ExcursionReported on shipping.report.v1 with an id that follows from parcel and beginning, so that finding it again changes
nothing. No money waits on it: shipping hears of excursions as it hears of everything else.

Faust acknowledges what failed and may repeat what succeeded. So every start forgets tables and offsets and reads the topic
from its beginning (it holds readings of cold goods alone), and whatever goes wrong, a reading that cannot be handled or one
that was skipped, ends the process: its supervisor starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.partitioner import murmur2
from aiokafka.structs import OffsetAndMetadata

from schemas.cold_chain import KEEP_S, WINDOW_S, Band, Excursion, Reading, excursion_id, judge
from schemas.dead_letters import ERRORS
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.shipping_report import ExcursionReported, LoggerHeard
from schemas.topics import REPORT, SENSOR
from services.runtime.decision import Incoming
from services.runtime.settings import Settings
from services.runtime.spec import Spec, read
from services.shipping import topics

log = logging.getLogger(__name__)
SOURCE = "/cold-chain"
BATCH_MAX, BATCH_S = 500, 0.2
EXIT_AGAIN = 75  # EX_TEMPFAIL: the supervisor starts it again, and it reads everything again
FORGET_WITHIN_S, PAUSE_S = 30.0, 0.5
logging.getLogger("faust.transport.producer").setLevel(logging.ERROR)

settings = Settings()
# `read` needs to know the topic and its one message; the rest of a service is not there.
SPEC = Spec("cold-chain", (SENSOR,), REPORT, frozenset({"SensorReported"}), None, None, None)


class Table(faust.Table):
    """Keys begin with the order's id, in whose partition its readings are. Faust would take that of "the current event"."""

    def partition_for_key(self, key: Any) -> int:
        parcel = key if isinstance(key, str) else key[0]
        return (murmur2(parcel.partition(" ")[0].encode()) & 0x7FFFFFFF) % settings.partitions


app = faust.App(
    topics.APP, broker=[f"kafka://{address}" for address in settings.bootstrap.split(",")], store="memory://",
    datadir=settings.data_folder / "cold-chain-view", topic_partitions=settings.partitions, topic_allow_declare=False,
    topic_disable_leader=True, consumer_auto_offset_reset="earliest", stream_wait_empty=False, broker_session_timeout=10.0,
    broker_heartbeat_interval=2.0, broker_request_timeout=20.0, web_enabled=False, worker_redirect_stdouts=False, Table=Table,
)  # fmt: skip
RAW = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
source = app.topic(SENSOR.name, allow_empty=True, **RAW)
reports, refused = app.topic(REPORT.name, **RAW), app.topic(SENSOR.dlq, **RAW)
readings = app.Table(topics.READINGS).tumbling(WINDOW_S, expires=KEEP_S).table  # (parcel, window) -> readings
known = app.Table(topics.KNOWN)  # parcel -> spans of excursions that were found
positions: dict[int, int] = {}


def take(parcel: str, reading: Reading, band: Band) -> list[Excursion]:
    """What `cold_chain.Watch.take` does, with Faust's windows: the excursions that this reading shows."""
    span = readings.window.current(reading.time_s)
    mine = readings.get((parcel, span)) or []
    if list(reading) in mine:
        return []
    readings[parcel, span] = mine = [*mine, list(reading)]
    around = [told for by in (-WINDOW_S, WINDOW_S) for told in readings.get((parcel, readings.window.current(span[0] + by))) or ()]
    before = [tuple(span) for span in known.get(parcel) or ()]
    spans = list(before)
    fresh = judge([Reading(*told) for told in (*around, *mine)], band, spans)
    if spans != before:
        known[parcel] = spans
    return fresh


def readings_of(message: Any) -> Iterable[tuple[str, Reading, Band]]:
    key = f"{message.order_id} {message.parcel_id}"
    for element in message.sensor_element_list:
        for told in element.sensor_report:
            yield key, Reading(int(told.time.timestamp()), told.value_tenths), element.sensor_metadata.band


def heard_of(told: Incoming) -> tuple[bytes, dict[str, bytes]] | None:
    """The same of what tells shipping that a logger was heard; None where nobody waits for it."""
    elements = told.data.sensor_element_list
    if all(element.sensor_metadata.band.silent_minutes is None for element in elements):
        return None
    order_id, parcel_id = told.data.order_id, told.data.parcel_id
    at = max(each.time for element in elements for each in element.sensor_report)
    envelope = Envelope(f"heard:{parcel_id}:{int(at.timestamp())}", "LoggerHeard", SOURCE, at, order_id, 0, told.correlation, told.id,
                        told.merchant)
    message = LoggerHeard(order_id=order_id, parcel_id=parcel_id, at=at)
    return message.model_dump_json().encode(), dict(headers_of(envelope, dataschema_of(REPORT.name, "LoggerHeard")))


def report_of(told: Incoming, found: Excursion) -> tuple[bytes, dict[str, bytes]]:
    """Value and headers of what is told. All of it follows from the readings, so that it is told the same again."""
    order_id, parcel_id = told.data.order_id, told.data.parcel_id
    name = excursion_id(parcel_id, found)
    began, until = (datetime.fromtimestamp(at, UTC) for at in (found.began_s, found.until_s))
    message = ExcursionReported(order_id=order_id, parcel_id=parcel_id, excursion_id=name, began=began, until=until,
                                minutes=found.minutes, worst_tenths=found.worst)
    envelope = Envelope(f"excursion:{name}", "ExcursionReported", SOURCE, until, order_id, 0, told.correlation, told.id, told.merchant)
    return message.model_dump_json().encode(), dict(headers_of(envelope, dataschema_of(REPORT.name, "ExcursionReported")))


@app.agent(source)
async def watch(stream: faust.StreamT[bytes]) -> None:
    async for events in stream.take_events(BATCH_MAX, within=BATCH_S):
        try:
            for event in events:
                await _handle(event.message)
        except BaseException as why:
            # Faust would acknowledge the batch all the same: what is lost here is found again by reading everything again.
            if not isinstance(why, asyncio.CancelledError):
                log.exception("the readings of a batch could not be handled")
            os._exit(EXIT_AGAIN)


async def _handle(message: Any) -> None:
    partition, offset = message.partition, message.offset
    if offset != positions.get(partition, 0):
        if offset < positions.get(partition, 0):
            return
        if partition in positions or offset and not await _is_first(partition, offset):
            raise RuntimeError(f"readings were skipped: partition {partition} goes on at {offset}, not {positions.get(partition, 0)}")
    positions[partition] = offset + 1
    headers = tuple(message.headers.items() if hasattr(message.headers, "items") else message.headers or ())
    record = read(SPEC, SENSOR.name, offset, message.key, message.value, headers)
    if record is None:
        return
    if record.fault is not None:
        await _refuse(message, headers, *record.fault)
        return
    told = record.incoming
    if (heard := heard_of(told)) is not None:
        await (await reports.send(key=message.key, value=heard[0], partition=partition, headers=heard[1]))
    for key, reading, band in readings_of(told.data):
        for found in take(key, reading, band):
            value, headers_out = report_of(told, found)
            await (await reports.send(key=message.key, value=value, partition=partition, headers=headers_out))


async def _is_first(partition: int, offset: int) -> bool:
    """Whether the topic begins here: old readings may be gone by its retention."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap)
    await consumer.start()
    try:
        place = TopicPartition(SENSOR.name, partition)
        return (await consumer.beginning_offsets([place]))[place] == offset
    finally:
        await consumer.stop()


async def _refuse(message: Any, headers: tuple[tuple[str, bytes], ...], reason: str, detail: str) -> None:
    why = (("topic", SENSOR.name), ("partition", str(message.partition)), ("offset", str(message.offset)), ("reason", str(reason)),
           ("detail", detail[:500]), ("service", SPEC.name))
    await (await refused.send(key=message.key or b"", value=message.value or b"", partition=message.partition, headers=dict(headers) | {
        f"{ERRORS}{name}": text.encode(errors="replace") for name, text in why}))


async def forget() -> None:
    """Empty the tables' changelogs and put the group's offsets at 0. Waits for a worker that was killed just now."""
    sources = [TopicPartition(SENSOR.name, p) for p in range(settings.partitions)]
    changelogs = [TopicPartition(topic, p) for topic in topics.MORE for p in range(settings.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.bootstrap, group_id=topics.APP, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(sources + changelogs)
        starts = await consumer.beginning_offsets(sources + changelogs)
        end = asyncio.get_running_loop().time() + FORGET_WITHIN_S
        while True:
            try:
                await consumer.commit({place: OffsetAndMetadata(starts[place], "") for place in sources})
                break
            except (CommitFailedError, UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError):
                if asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(PAUSE_S)
        ends = await consumer.end_offsets(changelogs)
    finally:
        await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    try:
        gone = {place: RecordsToDelete(before_offset=at) for place, at in ends.items() if at > starts[place]}
        if gone:
            await admin.delete_records(gone)
    finally:
        await admin.close()


@app.task
async def ready() -> None:
    """Runs when the tables are read back."""
    if path := os.environ.get("TRADEWIND_READY_FILE"):
        Path(path).touch()


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a commit that has to wait is explained above
    asyncio.run(forget())
    app.main()
