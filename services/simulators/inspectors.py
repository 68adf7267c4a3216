"""Who looks at goods in the simulated world: the warehouse's scanner, the brand's app, an inspector, and the brand that complains.

Only orders of these scenarios have serial numbers; nobody else is asked anything. Pure."""

from __future__ import annotations

import zlib

from schemas import shipping_report as report
from schemas.numbers import gs1_check
from schemas.orders_intake import FileComplaint
from schemas.topics import INTAKE, REPORT
from services.simulators.outsiders import HOUR, Heard, Memory, Reaction, after, hours, moment_of, said_id
from services.simulators.scenario import SERIALS

BEFORE = frozenset({"inspection_random", "inspection_undecided", "brand_complaint"})  # wanted before it is packed
RESULTS = {"serial_twice": "counterfeit", "brand_complaint": "counterfeit", "serial_far": "genuine", "inspection_random": "genuine"}
FAR_AWAY = "DEBER"
BRANDS_APP, INSPECTOR = "/brand/app", "/platform/inspector"


def units(event, scenario: str) -> list[report.UnitCode]:
    """What the warehouse scans of a parcel; of the copies, one number on two units."""
    if scenario not in SERIALS:
        return []
    found = []
    for line in event.lines:
        body = f"{zlib.crc32(line.sku.encode()):013d}"
        for n in range(line.quantity):
            number = n if n or scenario != "serial_twice" else 1
            found.append(report.UnitCode(line_no=line.line_no, gtin=body + gs1_check(body), lot=f"L{line.line_no}",
                                         serial=f"{zlib.crc32(f'{event.parcel_id}:{line.line_no}:{number}'.encode()):010d}"))
    return found


def scan(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """Minutes later a buyer's telephone sees one of the numbers, half a world away."""
    event, name = heard.data, f"scan:{heard.data.parcel_id}"
    if not event.units:
        return []
    delay_s = max(60.0, hours(memory, name, 0.05, 0.2))
    unit = event.units[0]
    message = report.SerialScanReported(order_id=event.order_id, parcel_id=event.parcel_id, gtin=unit.gtin, serial=unit.serial,
                                        place=FAR_AWAY, at=moment_of(heard, delay_s), scanned_by="brand-app")
    return [Reaction(min(delay_s, 0.2 * HOUR), REPORT.name, message, name, BRANDS_APP)]


def ask(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The platform looks at one parcel in so many; or the brand complains."""
    event = heard.data
    if scenario == "brand_complaint":
        complaint = FileComplaint(order_id=event.order_id, by="brand", reason="counterfeit", detail="sold far below cost, and never by us")
        return [after(0, 0.3, memory, INTAKE.name, "/brand", said_id("complaint", event.order_id), complaint)]
    wanted = report.OpenInspection(order_id=event.order_id, parcel_id=event.parcel_id, inspection_id=f"spot:{event.parcel_id}",
                                   reason="random")
    return [after(0, 0.3, memory, REPORT.name, INSPECTOR, f"inspect:{event.parcel_id}", wanted)]


def look(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event, result = heard.data, RESULTS[scenario]
    message = report.RecordInspection(order_id=event.order_id, parcel_id=event.parcel_id, inspection_id=event.inspection_id, result=result,
                                      decided_by="inspector-5", detail="" if result == "genuine" else "stitching and label are a copy's")
    return [after(4, 16, memory, REPORT.name, INSPECTOR, said_id("result", event.inspection_id), message)]
