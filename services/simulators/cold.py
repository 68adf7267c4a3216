"""Cold goods in the simulated world: what their loggers measure, who decides about an excursion, and the box that replaces another.

Only orders of these scenarios have cold goods; nobody else is asked anything. Pure."""

from __future__ import annotations

import zlib

from schemas import shipping_report as report
from schemas import shipping_sensor as sensor
from schemas.cold_chain import AskedBand, Band
from schemas.topics import REPORT, SENSOR
from services.simulators.outsiders import HOUR, Heard, Memory, Reaction, after, hours, moment_of, said_id
from services.simulators.scenario import COLD, SILENT

EVERY_S, READINGS, IN_HEAP = 1_800, 48, 4  # a reading every half hour for a day, told four at a time
EXCURSION_FROM, EXCURSION_LONG = 12, 6     # its first reading outside, and how many there are
SILENT_AFTER = 3                           # heaps, of the logger that falls silent
DECISIONS = {SILENT: "release", "cold_released": "release", "cold_reshipped": "reship", "cold_refunded": "refund"}


def measured(heard: Heard, scenario: str, memory: Memory, start_s: float) -> list[Reaction]:
    """What the logger of a parcel tells, from `start_s` after this event on: heaps that come late, twice and in any order."""
    event = heard.data
    band, device = event.cold, f"logger-{zlib.crc32(event.sscc.encode()):08x}"
    metadata = sensor.SensorMetadata(device_id=device, band=AskedBand(
        low_tenths=band.low_tenths, high_tenths=band.high_tenths, tolerance_minutes=band.tolerance_minutes, silent_minutes=band.silent_minutes))
    said = []
    for heap in range(SILENT_AFTER if scenario == SILENT and not event.replaces else READINGS // IN_HEAP):
        told = [sensor.SensorReport(value_tenths=_tenths(n, band, scenario, event), time=moment_of(heard, start_s + n * EVERY_S))
                for n in range(heap * IN_HEAP, (heap + 1) * IN_HEAP)]
        message = sensor.SensorReported(order_id=event.order_id, parcel_id=event.parcel_id, sensor_element_list=[
            sensor.SensorElement(sensor_metadata=metadata, sensor_report=told)])
        name = f"{event.sscc}:{heap}"
        at = start_s + (heap + 1) * IN_HEAP * EVERY_S + hours(memory, name, 0, 5)  # some overtake others
        said.append(Reaction(at, SENSOR.name, message, f"read:{name}", f"/warehouse/logger/{device}"))
        if heap % 3 == 0:
            said.append(Reaction(at + HOUR, SENSOR.name, message, f"read:{name}:again", f"/warehouse/logger/{device}"))
    return said


def _tenths(n: int, band: Band, scenario: str, event) -> int:
    middle = (band.low_tenths + band.high_tenths) // 2 + zlib.crc32(f"{event.sscc}:{n}".encode()) % 11 - 5
    if scenario in ("cold_kept", SILENT) or event.replaces:
        return band.high_tenths + 12 if n == EXCURSION_FROM and not event.replaces else middle  # a door that stood open
    return band.high_tenths + 20 + n if EXCURSION_FROM <= n < EXCURSION_FROM + EXCURSION_LONG else middle


def decide(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The merchant, or the warehouse for it, looks at what was too warm."""
    event, decision = heard.data, DECISIONS.get(scenario)
    if decision is None:
        return []  # nobody does: the deadline will
    message = report.RecordQualityDecision(
        order_id=event.order_id, parcel_id=event.parcel_id, excursion_id=event.excursion_id, decision=decision,
        decided_by="warehouse" if decision == "release" else "merchant", reason=f"{event.minutes} minutes outside, {event.worst_tenths / 10} °C"
        if not event.silent else f"nothing heard for {event.minutes} minutes")
    said = said_id("quality", event.excursion_id)
    return [after(2, 8, memory, REPORT.name, "/warehouse/quality", said, message)]


def send_again(heard: Heard, memory: Memory) -> list[Reaction]:
    """The box that replaces a spoiled one goes express, and the warehouse tells everything of it, by the box's own number: the
    parcel was another box before."""
    event = heard.data
    common, abroad = {"order_id": event.order_id, "parcel_id": event.parcel_id, "sscc": event.sscc}, event.regime != "domestic"
    carrier = {"carrier": "express", "tracking_no": event.waybill_no or event.sscc}
    legs = [("packed", report.PackedReported, {}), ("handed-over", report.HandedOverReported, carrier),
            ("exported", report.ExportedReported, {}), ("arrived", report.ArrivedReported, {}),
            ("presented", report.PresentedReported, {}), ("released", report.CustomsReleaseReported, {}),
            ("out", report.OutForDeliveryReported, {}), ("delivered", report.DeliveredReported, {})]
    at, said = 0.0, []
    for word, model, fields in legs if abroad else [*legs[:2], *legs[6:]]:
        at += hours(memory, f"{word}:{event.sscc}", 1, 3)
        said.append(Reaction(at, REPORT.name, model(**common, **fields), f"{word}:{event.sscc}", f"/warehouse/{event.warehouse}/express"))
    return said


def slow(scenario: str) -> tuple[float, float]:
    """How long, in hours, such a parcel is on sea: long enough for somebody to look at its readings."""
    return (60, 80) if scenario in COLD else (1, 6)
