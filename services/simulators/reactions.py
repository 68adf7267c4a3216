"""What buyers, warehouses, carriers, customs and the finance clerk do when they hear of something. Pure.

    react(role, heard, scenario, memory) -> list[Reaction]     reads the memory only
    remember(heard, scenario, memory)                          the only function that changes it

A reaction's id follows from what it answers, so an outsider that hears the same event twice says the same thing twice,
byte for byte, and its readers can tell. What is remembered makes the world more lifelike and is lost with the process;
no order depends on it to come to its end.
"""

from __future__ import annotations

from collections.abc import Callable

from services.simulators import buyers, chinese_customs, cold, inspectors, logistics, platform
from services.simulators.logistics import BEFORE_HANDOVER
from services.simulators.outsiders import Heard, Memory, Reaction
from services.simulators.scenario import ANSWERED, BEGUN, COLD, INSPECTED, SEASONS, TERMS_CHANGED

ROLES = ("storefront", "warehouse", "carrier", "customs")
_LATE = frozenset({"cancel_too_late_accepted", "cancel_too_late_declined"})
_COMPENSATED = frozenset({"grant_refund", "return_after_settlement"})

_Answer = Callable[[Heard, str, Memory], list[Reaction]]
# role -> type -> (what it does, the scenarios in which it does; None: in all). Others are not even decoded.
TABLE: dict[str, dict[str, tuple[_Answer, frozenset[str] | None]]] = {
    "storefront": {
        "ParcelsAllocated": (buyers.cancel_planned, frozenset({"cancel_before_payment"})),
        "DocumentsMissing": (buyers.supply, frozenset({"documents_supplied", "documents_code_short"})),
        "ListAccepted": (buyers.cancel_listed, frozenset({"china_revoked"})),
        "DocumentsMismatched": (buyers.correct, buyers.CORRECTS), "ListRejected": (buyers.correct, buyers.CORRECTS),
        "PaymentHeld": (buyers.cancel_held, BEFORE_HANDOVER),
        "ParcelHandedOver": (buyers.cancel_late, _LATE), "PackingStarted": (buyers.cancel_begun, BEGUN),
        "ParcelDelivered": (buyers.buyer_has_it, None),
        "ReturnReceived": (buyers.keeps_the_rest, frozenset({"return_line"})),
        "DisputeOpened": (buyers.arbitrate, None),
        "DisputeResolved": (buyers.dispute_over, None),
        "OrderCompleted": (buyers.after_completion, _COMPENSATED),
        "FulfilmentRequested": (platform.act, frozenset({platform.LIFTED, TERMS_CHANGED}) | platform.REVOKING | inspectors.BEFORE),
        "ParcelPacked": (inspectors.scan, frozenset({"serial_far"})),
        "InspectionHeld": (inspectors.look, INSPECTED),
        "ComplaintFiled": (platform.punish, frozenset({"brand_complaint"})),
        "OrderHeld": (platform.decide, platform.HELD), "RealNameAnswered": (platform.see_papers, frozenset({platform.SEEN})),
        "ManualPayoutRequested": (buyers.pay_by_hand, None),
        "InformationRequested": (buyers.prove, ANSWERED), "ChargebackOpened": (buyers.prove, ANSWERED),
    },
    "warehouse": {
        "FulfilmentRequested": (logistics.pack, None), "ReturnAuthorised": (logistics.return_arrives, None),
        "ParcelReturning": (logistics.goods_are_back, None), "CustomsRefused": (logistics.goods_are_back, None),
        "Backordered": (logistics.restock, None), "ParcelBackordered": (logistics.restock_rest, None), "ParcelQuarantined": (cold.decide, COLD),
        "PreSold": (logistics.harvest, SEASONS), "CancellationAsked": (logistics.may_be_undone, BEGUN),
    },
    "carrier": {
        "ParcelsAllocated": (logistics.close_lane, frozenset({"lane_closed"})), "ParcelPacked": (logistics.collect, None), "ParcelHandedOver": (logistics.set_out, None),
        "CustomsReleased": (logistics.last_mile, None), "ParcelLost": (logistics.pay_claim, None),
        "ParcelAtPickup": (logistics.collected, frozenset({"delivery_pickup", "pickup_point"})),
        "InterceptRequested": (logistics.intercept, None),
    },
    "customs": {"DocumentsMatched": (chinese_customs.answer_list, None), "ParcelCancelled": (chinese_customs.withdraw, None),
                "ReturnReceived": (chinese_customs.withdraw, None), "ParcelArrived": (logistics.present, None), "CustomsPresented": (logistics.clear, None)},
}
# Type -> the role that remembers something of it, and in which scenarios.
NOTED: dict[str, tuple[str, frozenset[str] | None]] = {
    "ParcelsAllocated": ("storefront", frozenset({"return_line"}) | buyers.CORRECTS),
    "PaymentHeld": ("storefront", BEFORE_HANDOVER), "ParcelHandedOver": ("storefront", _LATE),
    "OrderCompleted": ("storefront", _COMPENSATED),
    "ParcelStopped": ("carrier", None), "ParcelCleared": ("carrier", None),
    "ParcelCancelled": ("warehouse", None), "InterceptRequested": ("carrier", None),
    "ParcelReplaced": ("carrier", COLD), "ParcelDestroyed": ("carrier", INSPECTED | {"inspection_undecided"}),
}


def react(role: str, heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """What `role` says to this event. Types and scenarios that do not concern it give an empty list."""
    known = TABLE[role].get(type(heard.data).__name__)
    if known is None or (known[1] is not None and scenario not in known[1]):
        return []
    return known[0](heard, scenario, memory)


def remember(heard: Heard, scenario: str, memory: Memory) -> None:
    """Note what later reactions need. Called once for each event of a type in `NOTED`, after the reactions to it."""
    event = heard.data
    name = type(event).__name__
    _, scenarios = NOTED[name]
    if scenarios is not None and scenario not in scenarios:
        return
    if name == "InterceptRequested" and logistics.gives_way(event.parcel_id, scenario, memory):
        memory.note(memory.stopped, event.parcel_id)
    elif name == "ParcelStopped":
        memory.note(memory.kept, event.parcel_id)
    elif name == "ParcelCleared":
        memory.kept.pop(event.parcel_id, None)
    elif name in ("ParcelCancelled", "ParcelReplaced", "ParcelDestroyed"):  # the box that was replaced goes no further
        memory.kept.pop(event.parcel_id, None)
        memory.note(memory.stopped, event.parcel_id)
    elif name == "ParcelsAllocated":
        for plan in event.parcels:
            memory.note(memory.first_line, plan.parcel_id, (plan.lines[0].line_no, sum(l.quantity for l in plan.lines) > 1))
    elif name in ("PaymentHeld", "ParcelHandedOver", "OrderCompleted"):
        memory.note(memory.done, event.order_id, memory.done.get(event.order_id, heard.id))
