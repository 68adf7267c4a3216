"""The machines: order, payment, chargeback, parcel, declaration, return, merchant, brand. Every transition of the system stands in this file.

A row is (state, event) -> state and the service whose event it is. Services ask `answer`; the auditor, the explorer and
the pages read the same rows. States after which nothing more needs to happen are in `TERMINAL`; some of them can be left
again (a return after the money was released), which is why terminal is a set of its own and not "has no exit".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

NEW = "new"
# What leads back to a way that was gone before: nothing waits for it to happen, so a late scan stays stale.
STARTS_OVER = frozenset({"ParcelReplaced"})


class Answer(Enum):
    """What a machine says to an event in a state."""

    APPLIED = "applied"
    NOT_YET = "not yet"  # legal in a state that can still come: wait for it
    STALE = "stale"      # no coming state allows it: late, doubled or overtaken


@dataclass(frozen=True)
class Row:
    state: str
    event: str
    to: str
    owner: str


class Machine:
    """A table of rows. Raises ValueError when two rows disagree."""

    def __init__(self, name: str, rows: list[Row], terminal: set[str]):
        self.name = name
        self.rows = tuple(rows)
        self.terminal = frozenset(terminal)
        self.next: dict[tuple[str, str], str] = {}
        for row in rows:
            if self.next.setdefault((row.state, row.event), row.to) != row.to:
                raise ValueError(f"{name}: ({row.state}, {row.event}) leads to two states")
        self.states = frozenset({r.state for r in rows} | {r.to for r in rows})
        self._ahead = {state: self._events_ahead(state) for state in self.states}

    def answer(self, state: str, event: str) -> tuple[Answer, str]:
        """The answer and the state after it (the same state unless APPLIED)."""
        to = self.next.get((state, event))
        if to is not None:
            return Answer.APPLIED, to
        return (Answer.NOT_YET if event in self._ahead[state] else Answer.STALE), state

    def _events_ahead(self, state: str) -> frozenset[str]:
        reached, frontier, events = {state}, [state], set()
        while frontier:
            here = frontier.pop()
            for row in self.rows:
                if row.state == here and row.event not in STARTS_OVER:
                    events.add(row.event)
                    if row.to not in reached:
                        reached.add(row.to)
                        frontier.append(row.to)
        return frozenset(events)


def _rows(owner: str, event: str, *pairs: tuple[str | tuple[str, ...], str]) -> list[Row]:
    return [Row(state, event, to, owner) for states, to in pairs
            for state in ((states,) if isinstance(states, str) else states)]


def _loops(owner: str, event: str, *states: str) -> list[Row]:
    return [Row(state, event, state, owner) for state in states]


_OPEN = ("placed", "presold", "backordered", "allocated", "authorised", "fulfilling")
_SOLD = ("completed", "after_sale")
DISPUTED = ("InformationRequested", "ChargebackOpened", "SecondChargeback")  # the buyer's bank asks, or takes

ORDER = Machine("order", [
    *_rows("orders", "OrderPlaced", (NEW, "placed")),
    *_rows("orders", "OrderRejected", (NEW, "rejected")),
    *_rows("shipping", "PreSold", ("placed", "presold")),
    *_rows("shipping", "SeasonOpened", ("presold", "placed")),
    *_rows("shipping", "Backordered", ("placed", "backordered")),
    *_rows("shipping", "ParcelsAllocated", (("placed", "backordered"), "allocated")),
    *_rows("payments", "PaymentAuthorised", (("allocated", "authorised"), "authorised")),
    *_rows("payments", "PaymentHeld", (("allocated", "authorised", "fulfilling"), "fulfilling")),
    *_loops("orders", "DocumentsSupplied", *_OPEN),
    *_loops("orders", "CancellationRequested", *_OPEN),
    *_loops("orders", "OrderHeld", *_OPEN, "after_sale"),
    *_loops("orders", "OrderResumed", *_OPEN, "after_sale"),
    *_loops("orders", "ScreeningDecided", *_OPEN),
    *_loops("orders", "ScreeningRepeated", *_OPEN),
    *_loops("orders", "RealNameAnswered", *_OPEN),
    *_loops("orders", "ComplaintFiled", *_OPEN, *_SOLD, "cancelled"),
    *_loops("orders", "ReceiptConfirmed", "fulfilling", "after_sale"),
    *_rows("orders", "ReturnRequested", ("fulfilling", "fulfilling"), (_SOLD, "after_sale")),
    *_loops("orders", "ReturnExpired", "fulfilling", "after_sale"),
    *_rows("orders", "DisputeOpened", ("fulfilling", "fulfilling"), (_SOLD, "after_sale")),
    *_loops("orders", "DisputeResolved", "fulfilling", "after_sale"),
    *_rows("orders", "RefundGranted", ("fulfilling", "fulfilling"), (_SOLD, "after_sale")),
    *(row for event in DISPUTED for row in _rows("payments", event, ("fulfilling", "fulfilling"), (_SOLD, "after_sale"))),
    *_rows("payments", "FundsRecovered", (_SOLD, "after_sale")),  # goods of a return that had expired came all the same
    *_rows("orders", "OrderCompleted", (("fulfilling", "after_sale"), "completed")),
    *_rows("orders", "OrderCancelled", (_OPEN, "cancelled"), ("after_sale", "cancelled")),
], {"completed", "cancelled", "rejected"})

# One instance a parcel: the money of one parcel, whichever provider payment carries it.
_PAID = ("held", "recovered")
# Taken back by the buyer's bank, and not decided: the state that it was in, and the one it is in meanwhile. Of what the buyer
# had back already a bank can take only what it gives back, or what was paid back by hand.
CONTESTS = {"held": "contested", "settled": "contested_settled", "recovered": "contested_recovered",
            "refunded": "contested_refunded", "charged_back": "contested_charged_back"}
CONTESTED = tuple(CONTESTS.values())
PAYMENT = Machine("payment", [
    *_rows("payments", "PaymentAuthorised", (NEW, "authorised")),
    *_rows("payments", "PaymentDeclined", (NEW, "declined")),
    *_rows("payments", "PaymentVoided", ((NEW, "authorised"), "voided")),
    *_rows("payments", "PaymentExpired", ("authorised", "expired")),
    *_rows("payments", "PaymentHeld", ((NEW, "authorised"), "held")),  # from new: China, authorised and captured at once
    *_rows("payments", "PaymentDivided", (NEW, "held")),  # escrow of a parcel that was split
    *_rows("payments", "PaymentPartiallyRefunded", ("held", "held"), ("recovered", "settled")),
    *_rows("payments", "PaymentRefunded", (_PAID, "refunded")),
    *_loops("payments", "RefundFailed", *_PAID),
    *_loops("payments", "ManualPayoutRequested", *_PAID),
    *_rows("payments", "PaymentSettled", (_PAID, "settled")),
    *_rows("payments", "PaymentChargedBack", (_PAID, "charged_back")),
    *_rows("payments", "FundsRecovered", (("settled", "refunded", "charged_back"), "recovered")),
    *(row for event in ("TaxAssessed", "TaxReclaimed") for row in _loops(
        "payments", event, *_PAID, "settled", "refunded", "charged_back", *CONTESTED)),
    *(row for event in DISPUTED[1:] for row in _rows("payments", event, *CONTESTS.items())),
    *_rows("payments", "ChargebackReversed", *((to, state) for state, to in CONTESTS.items())),
    *_rows("payments", "ChargebackPartlyLost", ("contested", "held"), (("contested_settled", "contested_recovered"), "settled")),
    *_rows("payments", "ChargebackLost", ("contested_refunded", "refunded"), (
        ("contested", "contested_settled", "contested_recovered", "contested_charged_back"), "charged_back")),
    *_loops("payments", "PaymentDocumentAmended", "held"),
], {"declined", "voided", "expired", "refunded", "settled", "charged_back"})

# One instance a dispute of the buyer's bank and parcel that it concerns. What the bank says may come late, twice and in any
# order; who answers is the merchant.
CHARGEBACK = Machine("chargeback", [
    *_rows("payments", "InformationRequested", (NEW, "inquiry")),
    *_rows("payments", "InquiryClosed", ("inquiry", "closed")),
    *_rows("payments", "ChargebackOpened", ((NEW, "inquiry", "closed"), "taken")),
    *_loops("payments", "EvidenceSubmitted", "inquiry", "taken"),
    *_loops("payments", "EvidenceMissed", "inquiry", "taken"),
    *_rows("payments", "ChargebackReversed", ("taken", "reversed")),
    *_rows("payments", "SecondChargeback", ("reversed", "taken_again")),
    *_rows("payments", "ChargebackLost", (("taken", "taken_again"), "lost")),
    *_rows("payments", "ChargebackPartlyLost", (("taken", "taken_again"), "lost")),
], {"closed", "reversed", "lost"})
# Its events that move no money: a parcel's payment is where it was.
CORRESPONDENCE = frozenset({"InformationRequested", "InquiryClosed", "EvidenceSubmitted", "EvidenceMissed"})

_BEFORE_HANDOVER = ("allocated", "documented", "requested", "on_hold", "in_progress", "packed")
_AT_WAREHOUSE = _BEFORE_HANDOVER[2:]
# Into China: papers that are not right yet before, or again after, the warehouse was asked to pack.
_CORRECTING, _AMENDING = ("correcting", "declared"), ("amending", "redeclared")
_RELEASING = ("listed", "relisted")  # from a bonded warehouse
BEFORE_HANDOVER = frozenset({*_BEFORE_HANDOVER, *_CORRECTING, *_AMENDING, *_RELEASING})
BEFORE_PACKING = BEFORE_HANDOVER - {"packed"}
_LEGS = ("handed_over", "exported", "arrived", "presented", "customs_held", "released", "out_for_delivery", "at_pickup",
         "delivery_failed")


def _three_documents(bonded: bool = False) -> list[Row]:
    """Order, payment and waybill agree, then customs has the list; what is changed later is agreed and declared once more.
    `bonded`: the goods lie in China, and nothing is packed before customs has released them (mode 1210)."""
    before, after = ("allocated", "correcting"), ("requested", "on_hold", "in_progress", *_AMENDING)
    if bonded:
        after = (*after, *_RELEASING[1:])
    return [
        *_rows("shipping", "DocumentsMismatched", (before, "correcting"), ("amending", "amending")),
        *_rows("shipping", "DocumentsMatched", (before, "declared"), ("amending", "redeclared")),
        *_loops("shipping", "BackorderFilled", "allocated"),
        *([] if bonded else _rows("shipping", "ListAccepted", ("declared", "documented"), ("redeclared", "requested"))),
        *(_bonded() if bonded else []),
        *_rows("shipping", "ListRejected", ("declared", "correcting"), ("redeclared", "amending")),
        *_rows("shipping", "ParcelShortPicked", (after, "amending")),
        *_rows("shipping", "ParcelLinesCancelled", ("allocated", "allocated"), (_CORRECTING, "correcting"), (after, "amending")),
        *_rows("shipping", "ParcelCancelled", ((*_CORRECTING, *_AMENDING), "cancelled")),
        *_loops("shipping", "SplitRefused", *after),
        *_loops("shipping", "ListWithdrawn", "cancelled", "delivered"),
        *(row for event in ("ParcelStopped", "ParcelCleared", "CancellationDeclined")
          for row in _loops("shipping", event, *_AMENDING, *(_RELEASING[1:] if bonded else ()))),
    ]


def _bonded() -> list[Row]:
    """Between the list and the release: units may leave the parcel, and then it is declared anew."""
    return [
        *_rows("shipping", "ListAccepted", ("declared", "listed"), ("redeclared", "relisted")),
        *_loops("shipping", "ListHeld", *_RELEASING),
        *_rows("shipping", "ListReleased", ("listed", "documented"), ("relisted", "requested")),
        *_rows("shipping", "ListRejected", ("listed", "correcting"), ("relisted", "amending")),
        *_rows("shipping", "ParcelLinesCancelled", ("listed", "correcting")),
        *_rows("shipping", "ParcelCancelled", (_RELEASING, "cancelled")),
    ]


def _parcel(name: str, customs: bool, papers: list[Row]) -> Machine:
    """The parcel's table; within a country the customs rows are absent. `papers`: how they become right."""
    legs = _LEGS if customs else ("handed_over", "out_for_delivery", "at_pickup", "delivery_failed")
    border = [
        *_rows("shipping", "ParcelExported", ("handed_over", "exported")),
        *_rows("shipping", "ParcelArrived", ("exported", "arrived")),
        *_rows("shipping", "CustomsPresented", ("arrived", "presented")),
        *_rows("shipping", "CustomsHeld", ("presented", "customs_held")),
        *_rows("shipping", "CustomsReleased", (("presented", "customs_held"), "released")),
        *_loops("shipping", "DutyAssessed", "released"),
        *_rows("shipping", "CustomsRefused", (("presented", "customs_held"), "returning")),
    ]
    last_mile = "released" if customs else "handed_over"
    return Machine(name, [
        *_rows("shipping", "ParcelsAllocated", (NEW, "allocated")),
        *_loops("shipping", "ParcelBackordered", "allocated"),
        *papers,
        *_rows("shipping", "FulfilmentRequested", ("documented", "requested")),
        *_rows("shipping", "PackingHeld", (("requested", "in_progress"), "on_hold")),
        *_rows("shipping", "PackingResumed", ("on_hold", "requested")),
        # Whoever begins or packs holds nothing up any more.
        *_rows("shipping", "PackingStarted", (("requested", "on_hold"), "in_progress")),
        *_rows("shipping", "ParcelPacked", (("requested", "on_hold", "in_progress"), "packed")),
        *_loops("shipping", "CancellationAsked", "in_progress", "packed"),
        *_rows("shipping", "ParcelCancelled", (_BEFORE_HANDOVER, "cancelled")),
        *_loops("shipping", "ParcelStopped", *_AT_WAREHOUSE),
        *_loops("shipping", "ParcelCleared", *_AT_WAREHOUSE),
        *_loops("shipping", "InterceptRequested", *legs),
        *_loops("shipping", "CancellationDeclined", *_AT_WAREHOUSE, *legs, "delivered", "returning", "lost", "destroyed"),
        *_rows("shipping", "ParcelHandedOver", ("packed", "handed_over")),
        *(border if customs else []),
        *_rows("shipping", "ParcelOutForDelivery", ((last_mile, "delivery_failed"), "out_for_delivery")),
        *_rows("shipping", "DeliveryFailed", ("out_for_delivery", "delivery_failed")),
        *_rows("shipping", "ParcelAtPickup", ((last_mile, "out_for_delivery", "delivery_failed"), "at_pickup")),
        *_rows("shipping", "ParcelDelivered", (("out_for_delivery", "at_pickup"), "delivered")),
        *_rows("shipping", "ParcelReturning", (legs, "returning")),
        *_rows("shipping", "ParcelReturned", ("returning", "returned")),
        *_loops("shipping", "ParcelQuarantined", "packed", *legs, "returning", "delivered"),
        *_loops("shipping", "QualityReleased", "packed", *legs, "returning", "delivered"),
        *_loops("shipping", "QualityRefunded", "delivered"),
        *_loops("shipping", "SerialAlert", "packed", *legs, "returning", "delivered"),
        *_loops("shipping", "InspectionHeld", "packed"),
        *_loops("shipping", "InspectionEnded", "packed"),
        *_rows("shipping", "ParcelReplaced", (("packed", *legs), "documented")),
        *_rows("shipping", "ParcelDestroyed", (("packed", *legs, "returning"), "destroyed")),
        *_rows("shipping", "ParcelLost", ((*legs, "returning"), "lost")),
        *_loops("shipping", "ClaimPaid", "lost"),
        *_loops("shipping", "ReturnAuthorised", "delivered"),
        *_loops("shipping", "ReturnReceived", "delivered"),
        *_loops("shipping", "GrantPriced", "delivered"),
    ], {"cancelled", "delivered", "returned", "destroyed", "lost"})


_READY = [*_loops("shipping", "BackorderFilled", "allocated", "documented"),
          *_rows("shipping", "DocumentsReady", ("allocated", "documented")),
          *_loops("shipping", "ParcelShortPicked", *_AT_WAREHOUSE[:3]),
          *_rows("shipping", "ParcelSplit", (NEW, "documented"), *((state, state) for state in _AT_WAREHOUSE[:3])),
          *_loops("shipping", "SplitRefused", *_AT_WAREHOUSE[:3]),
          *_loops("shipping", "ParcelLinesCancelled", *_BEFORE_HANDOVER[:5])]
PARCEL = {
    "abroad": _parcel("parcel", True, _READY),
    "china": _parcel("parcel (China)", True, _three_documents()),
    "domestic": _parcel("parcel (domestic)", False, _READY),
    "bonded": _parcel("parcel (bonded, China)", False, _three_documents(bonded=True)),
}

DECLARATION = Machine("declaration", [
    *_rows("shipping", "DocumentsReady", (NEW, "ready")),
    *_rows("shipping", "ParcelSplit", ((NEW, "ready"), "ready")),
    *_rows("shipping", "DocumentsMismatched", ((NEW, "wrong", "ready", "listed", "released"), "wrong")),
    *_rows("shipping", "DocumentsMatched", ((NEW, "wrong", "ready", "listed", "released"), "ready")),
    *_rows("shipping", "ListAccepted", ("ready", "listed")),
    *_rows("shipping", "ListRejected", (("ready", "listed"), "wrong")),
    *_loops("shipping", "ListHeld", "listed"),
    *_rows("shipping", "ListReleased", ("listed", "released")),
    *_rows("shipping", "ParcelCancelled", (("ready", "wrong", "listed", "released", NEW), "withdrawn")),
    *_rows("shipping", "CustomsPresented", (("ready", "listed"), "presented")),
    *_rows("shipping", "CustomsHeld", ("presented", "held")),
    *_rows("shipping", "CustomsReleased", (("presented", "held"), "released")),
    *_rows("shipping", "CustomsRefused", (("presented", "held"), "refused")),
    *_rows("shipping", "ParcelReplaced", (("ready", "presented", "held", "released"), "ready")),
], {"withdrawn", "released", "refused"})

RETURN = Machine("return", [
    *_rows("orders", "ReturnRequested", (NEW, "requested")),
    *_rows("shipping", "ReturnAuthorised", ("requested", "authorised")),
    *_rows("shipping", "ReturnReceived", (("authorised", "expired"), "received")),
    *_rows("payments", "PaymentPartiallyRefunded", ("received", "refunded")),
    *_rows("payments", "PaymentRefunded", ("received", "refunded")),
    *_rows("orders", "ReturnExpired", (("requested", "authorised"), "expired")),
], {"refunded", "expired"})

MERCHANT = Machine("merchant", [
    *_rows("orders", "MerchantRegistered", ((NEW, "refused"), "applied")),
    *_rows("orders", "MerchantApproved", ("applied", "active")),
    *_rows("orders", "MerchantRefused", ("applied", "refused")),
    *_loops("orders", "CatalogueUpdated", "applied", "active", "frozen"),
    *_loops("orders", "TermsChanged", "active", "frozen"),
    *_rows("orders", "MerchantFrozen", ((NEW, "active"), "frozen")),  # new: one who sold before anybody had to register
    *_loops("orders", "AppealFiled", "frozen"),
    *_rows("orders", "FreezeLifted", ("frozen", "active")),
    *_rows("orders", "FreezeUpheld", ("frozen", "closed")),
], {"active", "refused", "closed"})

BRAND = Machine("brand", [
    *_rows("orders", "BrandRegistered", (NEW, "protected")),
    *_loops("orders", "AuthorisationGranted", "protected"),
    *_loops("orders", "AuthorisationRevoked", "protected"),
], {"protected"})

# The clock of a parcel's promise; only parcels with a route have one. Its events move no parcel.
_CLOCK = ("running", "at_risk")
PROMISE = Machine("promise", [
    *_rows("shipping", "ParcelsAllocated", (NEW, "running")),
    *_rows("shipping", "ParcelSplit", (NEW, "running"), *((state, state) for state in _CLOCK)),  # both as it was promised
    *_rows("shipping", "PromisePaused", (_CLOCK, "paused")),
    *_rows("shipping", "PromiseHeld", (_CLOCK, "paused")),
    *_rows("shipping", "PromiseResumed", ("paused", "running")),
    *_rows("shipping", "PromiseAtRisk", ("running", "at_risk")),
    *_loops("shipping", "ParcelRerouted", *_CLOCK, "paused"),
    *_rows("shipping", "PromiseBroken", (_CLOCK, "broken")),
    *_rows("shipping", "ParcelDelivered", (_CLOCK, "kept"), ("broken", "broken")),
    *(row for event in ("ParcelCancelled", "CustomsRefused", "ParcelReturning", "ParcelLost", "ParcelDestroyed")
      for row in _rows("shipping", event, ((*_CLOCK, "paused", "void"), "void"))),
], {"kept", "broken", "void"})
PROMISE_EVENTS = frozenset({"PromisePaused", "PromiseHeld", "PromiseResumed", "PromiseAtRisk", "PromiseBroken", "ParcelRerouted"})

MACHINES = (ORDER, PAYMENT, CHARGEBACK, *PARCEL.values(), DECLARATION, RETURN, MERCHANT, BRAND, PROMISE)


@lru_cache(maxsize=1)
def deadlines() -> dict[str, int]:
    """Defaults of the trade, in seconds of trade time. Which one fires is decided by the machine's service."""
    hour, day = 3600, 86_400
    return {
        "reservation": 24 * hour, "backorder": 14 * day, "backorder_retry": 6 * hour, "authorisation": 7 * day,
        "confirmation": 10 * day, "return_window": 14 * day, "return_window_china": 30 * day, "return_arrival": 45 * day,
        "customs": 5 * day, "lost": 10 * day, "pickup": 7 * day, "screening": 3 * day, "real_name": 3 * day, "brand_gap": 3 * day, "packing_hold": 5 * day, "quality": 2 * day,
        "papers": 5 * day, "inspection": 5 * day, "cancellation_answer": day,
    }
