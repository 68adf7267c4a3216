"""What warehouses, carriers and customs report. Pure."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from typing import Any

from schemas import shipping_report as report
from schemas.model import LineQuantity
from schemas.terms import ReportedAssessment
from schemas.topics import REPORT
from services.simulators import chinese_customs, cold, inspectors
from services.simulators.dialects import Leg, carrier_of, tell
from services.simulators.outsiders import HOUR, Heard, Memory, Reaction, after, hours, moment_of, said_id
from services.simulators.scenario import BEGUN, SKU_NOWHERE, SPLIT, warehouse_of

FORGOTTEN = timedelta(hours=50)  # a parcel that its carrier left behind and found again
OPERATIONS = "/carrier/operations"
PACKERS = "/warehouse/packing"  # nor do questions to it
RETURNS_DESK = "/warehouse/returns"  # the events of a return do not name the warehouse
BEFORE_HANDOVER = frozenset({"cancel_whole", "cancel_line", "refund_fails"})
# A parcel that the buyer is about to cancel lies in the warehouse at least this long, in real time: where trade legs
# take no time, the cancellation would otherwise lose every race against the packers.
CANCEL_ROOM_S = 2.0
HANDED_OVER = "handed-over"  # begins the ids of what carriers say when they take a parcel

# -- warehouse --------------------------------------------------------------------------------------------------------



def pack(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    order_id, parcel_id, source = event.order_id, event.parcel_id, f"/warehouse/{event.warehouse}"
    if event.replaces:
        return cold.send_again(heard, memory)
    if scenario == "season_too_late":
        return [after(100, 120, memory, REPORT.name, source, f"packed:{parcel_id}",
                      report.PackedReported(order_id=order_id, parcel_id=parcel_id), 0.0, parcel_id)]
    if scenario == "packing_rejected":
        message = report.PackingRejected(order_id=order_id, parcel_id=parcel_id, reason="damaged in storage")
        return [after(1, 6, memory, REPORT.name, source, f"rejected:{parcel_id}", message, 0.0, parcel_id)]
    said, start, split_s = [], 0.0, 0.0
    if scenario in SPLIT and (part := _other_box(event, scenario)):
        said.append(after(0.2, 1, memory, REPORT.name, source, f"split:{parcel_id}",
                          report.SplitReported(order_id=order_id, parcel_id=parcel_id, lines=part)))
        split_s = said[0].delay_s
    if scenario in ("warehouse_hold", "warehouse_hold_expires") or split_s and scenario == "parcel_split_ready":
        held = after(1, 2, memory, REPORT.name, source, f"hold:{parcel_id}", report.PackingHeldReported(
            order_id=order_id, parcel_id=parcel_id, reason="the rest is not ready" if split_s else "no carton of this size"))
        if scenario == "warehouse_hold_expires":
            return [held]
        resumed = after(12, 24, memory, REPORT.name, source, f"resume:{parcel_id}",
                        report.PackingResumedReported(order_id=order_id, parcel_id=parcel_id), held.delay_s)
        said, start = [*said, held, resumed], resumed.delay_s
    if scenario in BEGUN:
        said.append(after(0.2, 1, memory, REPORT.name, source, f"started:{parcel_id}",
                          report.PackingStartedReported(order_id=order_id, parcel_id=parcel_id)))
    if scenario in ("short_pick", "china_bonded_short"):
        missing = [LineQuantity(line_no=event.lines[0].line_no, quantity=1)]
        said.append(after(1, 2, memory, REPORT.name, source, f"short:{parcel_id}",
                        report.ShortPickReported(order_id=order_id, parcel_id=parcel_id, lines=missing), 0.0, parcel_id))
        if sum(line.quantity for line in event.lines) == 1:
            return said  # nothing is left to pack
    slow = scenario in BEFORE_HANDOVER | BEGUN or scenario == "china_revoked"
    low, high = (36, 48) if slow else (2, 6)
    packed = after(low, high, memory, REPORT.name, source, f"packed:{parcel_id}",
                   report.PackedReported(order_id=order_id, parcel_id=parcel_id, units=inspectors.units(event, scenario)), start or split_s,
                   parcel_id, CANCEL_ROOM_S if slow else 0.0)
    if event.planned and not (memory.fast or slow or start):  # in time for the lorry, which leaves then
        left_s = (event.planned[0] - moment_of(heard, 0.0)).total_seconds()
        packed = packed._replace(delay_s=max(split_s + 0.2 * HOUR, min(packed.delay_s, left_s - HOUR)))
    said.append(packed)
    return said + cold.measured(heard, scenario, memory, said[-1].delay_s) if event.cold else said


def _other_box(event: Any, scenario: str) -> list[LineQuantity]:
    """What of a parcel goes into another box; nothing of one that is a second box itself, or holds too little."""
    if "." in event.parcel_id.rpartition("-")[2] or sum(line.quantity for line in event.lines) < 2:
        return []
    if scenario == "parcel_split_ready" and len(event.lines) > 1:
        return [LineQuantity(line_no=event.lines[0].line_no, quantity=event.lines[0].quantity)]
    many = [line for line in event.lines if line.quantity > 1] or event.lines[:1]
    return [LineQuantity(line_no=line.line_no, quantity=1) for line in many]


def may_be_undone(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """Asked while it packs: it says yes, or no; or nothing."""
    event = heard.data
    common = {"order_id": event.order_id, "parcel_id": event.parcel_id, "cancellation_id": event.cancellation_id}
    if scenario == "cancel_begun_silent":
        return []
    message = (report.CancellationRefused(**common, reason="it is on the belt") if scenario == "cancel_begun_declined" else
               report.CancellationAccepted(**common))
    said = said_id("undo", f"{event.parcel_id}:{event.cancellation_id}")
    return [after(0.3, 2, memory, REPORT.name, PACKERS, said, message)]


def goods_are_back(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    message = report.ReturnedToSenderReported(order_id=event.order_id, parcel_id=event.parcel_id)
    return [after(24, 48, memory, REPORT.name, RETURNS_DESK, f"back:{event.parcel_id}", message)]


def return_arrives(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    message = report.ReturnReceivedReported(order_id=event.order_id, parcel_id=event.parcel_id, return_id=event.return_id)
    return [after(48, 72, memory, REPORT.name, RETURNS_DESK, said_id("returned", event.return_id), message)]


def restock(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The id names the event: the same line may be short again, because another order was quicker."""
    said = []
    for line in heard.data.missing:
        if not line.sku.startswith(SKU_NOWHERE):
            warehouse = warehouse_of(line.sku)
            message = report.InboundReceived(order_id=f"stock:{warehouse}:{line.sku}", warehouse=warehouse, sku=line.sku,
                                             quantity=line.quantity)
            said.append(after(6, 24, memory, REPORT.name, f"/warehouse/{warehouse}",
                            said_id("inbound", f"{heard.id}:{line.line_no}"), message))
    return said


def restock_rest(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """What was missing comes within a day; or never."""
    event = heard.data
    if scenario == "part_stock_expires" or event.sku.startswith(SKU_NOWHERE):
        return []
    warehouse = warehouse_of(event.sku)
    message = report.InboundReceived(order_id=f"stock:{warehouse}:{event.sku}", warehouse=warehouse, sku=event.sku, quantity=event.quantity)
    return [after(6, 24, memory, REPORT.name, f"/warehouse/{warehouse}", said_id("inbound", heard.id), message)]


def harvest(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """What was announced comes some hours before its season opens; or never."""
    event, said = heard.data, []
    if scenario == "season_missed":
        return []
    wait_s = max(0.0, (event.opens - moment_of(heard, 0)).total_seconds())
    for line in event.lines:
        message = report.InboundReceived(order_id=f"stock:{line.warehouse}:{line.sku}", warehouse=line.warehouse, sku=line.sku,
                                         quantity=line.quantity, harvest=True)
        name = said_id("harvested", f"{heard.id}:{line.line_no}")
        said.append(Reaction(wait_s - hours(memory, name, 2, 12), REPORT.name, message, name, f"/warehouse/{line.warehouse}"))
    return said


# -- carrier ----------------------------------------------------------------------------------------------------------


def close_lane(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """Fog, or a strike: the first parcel's lane into its country is closed before it gets there, and opened days later."""
    plan = heard.data.parcels[0]
    if plan.route is None or plan.route.border < 0:
        return []
    lane = plan.route.legs[plan.route.border].lane
    shut = after(0.1, 1, memory, REPORT.name, OPERATIONS, f"close:{plan.parcel_id}",
                 report.CloseLane(order_id=f"{report.LANE}{lane}", lane=lane, reason="fog"))
    return [shut, after(100, 120, memory, REPORT.name, OPERATIONS, f"open:{plan.parcel_id}",
                        report.OpenLane(order_id=f"{report.LANE}{lane}", lane=lane), shut.delay_s)]


def collect(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    parcel_id = heard.data.parcel_id
    # Across a border the label's number is everybody's; within a country the carrier has its own.
    tracking_no = heard.data.waybill_no or f"TW{zlib.crc32(parcel_id.encode()):010d}{zlib.adler32(parcel_id.encode()):010d}"
    handed_over = {"carrier": carrier_of(parcel_id, scenario), "tracking_no": tracking_no}
    [due] = heard.data.planned or [None]
    return tell(heard, scenario, memory, (Leg(HANDED_OVER, report.HandedOverReported, handed_over, *_shortly(due, 1, 6)),))


def set_out(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    if scenario in ("lost_silent", "cancel_too_late_accepted"):
        return []  # lost without a trace; or still in the depot when the buyer's wish arrives
    if scenario in ("lost_reported", "destroyed"):
        word, model = ("lost", report.LossReported) if scenario == "lost_reported" else ("destroyed", report.DestroyedReported)
        return tell(heard, scenario, memory, (Leg(word, model, {}, 24, 48),))
    if heard.data.regime == "domestic":
        return last_mile(heard, scenario, memory)
    leaves, arrives = heard.data.planned or (None, None)
    if scenario in cold.COLD:
        leaves = arrives = None
    elif scenario == "leg_late" and leaves is not None:
        leaves, arrives = leaves + FORGOTTEN, arrives + FORGOTTEN
    return tell(heard, scenario, memory, (Leg("exported", report.ExportedReported, {}, *_shortly(leaves, *cold.slow(scenario))),
                                          Leg("arrived", report.ArrivedReported, {}, *_shortly(arrives, 1, 6))))


def last_mile(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    out = report.OutForDeliveryReported
    if scenario == "pickup_point":
        return tell(heard, scenario, memory, (Leg("pickup", report.AtPickupReported, {}, 1, 6),))
    leaves, arrives = heard.data.planned or (None, None)
    first = Leg("out:1", out, {}, *_shortly(leaves, 1, 6))
    failed = report.DeliveryFailureReported
    if scenario == "buyer_absent":
        return tell(heard, scenario, memory, (
            first, Leg("failed:1", failed, {"attempt": 1, "reason": "nobody at home"}, 1, 4), Leg("out:2", out, {}, 14, 20),
            Leg("delivered", report.DeliveredReported, {}, 1, 3)))
    if scenario not in ("delivery_pickup", "delivery_return"):
        return tell(heard, scenario, memory, (first, Leg("delivered", report.DeliveredReported, {}, *(
            (1, 6) if arrives is None else (0.3, 4, arrives)))))
    return tell(heard, scenario, memory, tuple(leg for n in (1, 2, 3) for leg in (
        Leg(f"out:{n}", out, {}, 1, 20), Leg(f"failed:{n}", failed, {"attempt": n, "reason": "nobody at home"}, 1, 4))))


def _shortly(due: datetime | None, low: float, high: float) -> tuple:
    """When a scan comes: shortly before it is due by the plan, or some hours after the one before where there is none."""
    return (low, high) if due is None else (0.0, 0.3, due)


def collected(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    return tell(heard, scenario, memory, (Leg("delivered", report.DeliveredReported, {}, 12, 48),))


def gives_way(parcel_id: str, scenario: str, memory: Memory) -> bool:
    if scenario in ("cancel_too_late_declined", "lost_silent", "lost_reported"):
        return False
    return scenario == "cancel_too_late_accepted" or bool(zlib.crc32(parcel_id.encode(), memory.seed & 0xFFFFFFFF) & 1)


def intercept(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    common = {"order_id": event.order_id, "parcel_id": event.parcel_id}
    message = (report.InterceptAccepted(**common) if gives_way(event.parcel_id, scenario, memory) else
               report.InterceptRefused(**common, reason="already on its way"))
    said = said_id("intercept", f"{event.parcel_id}:{event.cancellation_id}")
    return [after(0.5, 2, memory, REPORT.name, f"/carrier/{carrier_of(event.parcel_id, scenario)}", said, message)]


def pay_claim(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    if not event.claim:
        return []
    message = report.ClaimPaidReported(order_id=event.order_id, parcel_id=event.parcel_id, amount=event.claim)
    source = f"/carrier/{carrier_of(event.parcel_id, scenario)}"
    return [after(24, 48, memory, REPORT.name, source, f"claim:{event.parcel_id}", message)]


# -- customs ----------------------------------------------------------------------------------------------------------


def present(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    if chinese_customs.speaks(heard, scenario):
        return chinese_customs.receipts(heard, chinese_customs.ARRIVED, memory)
    message = report.PresentedReported(order_id=event.order_id, parcel_id=event.parcel_id)
    return [after(0.1, 0.6, memory, REPORT.name, f"/customs/{event.destination}", f"presented:{event.parcel_id}", message)]


def _bill(event: Any, scenario: str) -> ReportedAssessment:
    """What customs makes of the tax that was declared: usually the same."""
    declared = event.declared
    amount = declared.amount * {"assessed_more": 112, "assessed_less": 93}.get(scenario, 100) // 100
    number = f"TAX-{event.destination}-{zlib.crc32(event.parcel_id.encode()):010d}"
    return ReportedAssessment(amount=amount, currency=declared.currency, document=number)


def clear(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    common, source = {"order_id": event.order_id, "parcel_id": event.parcel_id}, f"/customs/{event.destination}"
    if chinese_customs.speaks(heard, scenario) and not event.declared:  # a receipt has no room for the tax bill
        return chinese_customs.receipts(heard, chinese_customs.PRESENTED[scenario], memory)
    if scenario == "customs_refused":
        message = report.CustomsRefusalReported(**common, reason="the goods may not enter")
        return [after(1, 6, memory, REPORT.name, source, f"refused:{event.parcel_id}", message)]
    said, start = [], 0.0
    if scenario == "customs_held":
        held = after(0.2, 0.9, memory, REPORT.name, source, f"held:{event.parcel_id}",
                   report.CustomsHoldReported(**common, reason="inspection"))
        said, start = [held], 0.0 if memory.fast else held.delay_s + 20 * HOUR
    released = report.CustomsReleaseReported(**common, assessed=_bill(event, scenario) if event.declared else None)
    return [*said, after(0.2, 0.9, memory, REPORT.name, source, f"released:{event.parcel_id}", released, start)]
