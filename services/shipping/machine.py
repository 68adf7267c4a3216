"""What shipping decides. Pure. The legal transitions are in schemas/lifecycle.py; `allocation.py` splits an order.

Shipping alone knows where the goods are, so it answers every wish to undo: before hand-over it unpacks and restocks,
afterwards it asks the carrier. Each event that makes the buyer owe less says by how much (`refund`); payments needs no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas import shipping_shipment as out
from schemas.lifecycle import PARCEL, Answer, deadlines
from schemas.model import LineUnits
from services.runtime.decision import TIMER, Decision, Impossible, Incoming, NotYet, Stale, earliest
from services.shipping.allocation import Content, Document, Line, Wanted, allocate
from services.shipping.storage import StockMove

BEFORE_HANDOVER = {"allocated", "documented", "requested", "packed"}
CUTTABLE = {"allocated", "documented", "requested"}
NO_SUCH_HS_CHAPTER = "00"


@dataclass(slots=True)
class Parcel:
    """`cut`: units of a line that are no longer the buyer's; `granted`: money given back without goods (minor units)."""

    warehouse: str
    status: str = "allocated"
    cut: dict[int, int] = field(default_factory=dict)
    granted: int = 0
    undone: bool = False
    attempts: int = 0
    intercept: str = ""
    claim_open: bool = False
    returns: dict[str, list[list[int]] | None] = field(default_factory=dict)
    reason: str = ""

    def draft(self) -> Parcel:
        return Parcel(self.warehouse, self.status, dict(self.cut), self.granted, self.undone, self.attempts, self.intercept,
                      self.claim_open, dict(self.returns), self.reason)


@dataclass(slots=True)
class Shipment:
    """`pending`: what an order that waits for stock still wants (None: allocated)."""

    order_id: str
    status: str = "new"
    closed: bool = False
    merchant_id: str = ""
    regime: str = "abroad"
    pending: Wanted | None = None
    parcels: dict[str, Parcel] = field(default_factory=dict)
    timers: dict[str, datetime] = field(default_factory=dict)

    def draft(self) -> Shipment:
        return Shipment(self.order_id, self.status, self.closed, self.merchant_id, self.regime, self.pending,
                        {k: p.draft() for k, p in self.parcels.items()}, dict(self.timers))

    def due(self) -> datetime | None:
        return earliest(self.timers)


STATE = TypeAdapter(Shipment)
DOCUMENT = TypeAdapter(Document)


def decide(shipment: Shipment, document: Document | None, incoming: Incoming, stock: Any, now: datetime
           ) -> Decision | NotYet | Stale:
    """One event, report or timer against one order's goods. `stock` is the view of the locked stock rows."""
    if shipment.status == "new" and incoming.type not in ("OrderPlaced", "InboundReceived"):
        return NotYet("OrderPlaced")
    work = _Work(shipment.draft(), document, stock, now)
    answer = HANDLERS[incoming.type](work, incoming)
    if answer is not None:
        return answer
    s = work.shipment
    if s.parcels:
        s.closed = all(p.status in PARCEL[s.regime].terminal and not p.claim_open and not p.returns for p in s.parcels.values())
        s.status = "closed" if s.closed else "open"
        if s.closed:
            s.timers.clear()
    return Decision(s, work.events, moves=work.moves, document=work.fresh_document)


def stock_keys(shipment: Shipment | None, document: Document | None, incoming: Incoming) -> list[str]:
    """The SKUs whose stock rows this event may need, to be locked before it is decided."""
    if incoming.type == "OrderPlaced":
        return [line.sku for line in incoming.data.lines]
    if incoming.type == "InboundReceived":
        return [incoming.data.sku]
    if incoming.type not in TOUCHES_STOCK or shipment is None:
        return []
    if shipment.pending is not None:
        return [line.sku for line in shipment.pending.lines]
    if document is None:
        return []
    parcel_id = getattr(incoming.data, "parcel_id", None)
    if parcel_id is not None:
        content = document.parcels.get(parcel_id)
        return [line.sku for line in content.lines] if content else []
    if incoming.type == TIMER and not any(due <= incoming.time for name, due in shipment.timers.items()
                                          if name == "reservation"):
        return []
    return [line.sku for content in document.parcels.values() for line in content.lines]


class _Work:
    """What one decision collects."""

    def __init__(self, shipment: Shipment, document: Document | None, stock: Any, now: datetime):
        self.shipment, self.document, self.stock, self.now = shipment, document, stock, now
        self.fresh_document: Document | None = None
        self.events: list[Any] = []
        self.moves: list[StockMove] = []

    def emit(self, model: type, **fields: Any) -> None:
        self.events.append(model.model_construct(order_id=self.shipment.order_id, **fields))

    def step(self, parcel: Parcel, event: str) -> bool:
        answer, to = PARCEL[self.shipment.regime].answer(parcel.status, event)
        if answer is Answer.APPLIED:
            parcel.status = to
        return answer is Answer.APPLIED

    def content(self, parcel_id: str) -> Content:
        return (self.fresh_document or self.document).parcels[parcel_id]

    def left(self, parcel_id: str) -> list[tuple[Line, int]]:
        """The parcel's lines with the units that are still the buyer's."""
        cut = self.shipment.parcels[parcel_id].cut
        return [(line, line.quantity - cut.get(line.line_no, 0)) for line in self.content(parcel_id).lines]

    def value(self, parcel_id: str) -> int:
        """What the buyer owes for the parcel as it is now. Freight is owed as long as anything is in it."""
        parcel = self.shipment.parcels[parcel_id]
        if parcel.undone:
            return 0
        left = self.left(parcel_id)
        goods = sum(line.amount * units // line.quantity for line, units in left)
        freight = self.content(parcel_id).freight if any(units for _, units in left) else 0
        return max(0, goods + freight - parcel.granted)

    def move(self, parcel_id: str, kind: str, lines: list[tuple[Line, int]] | None = None) -> None:
        """Move stock of the parcel's warehouse: reserve, release, consume, restock, shrink."""
        warehouse = self.shipment.parcels[parcel_id].warehouse
        for line, units in lines if lines is not None else self.left(parcel_id):
            if units:
                self.moves.append(StockMove(warehouse, line.sku, kind, units))

    def arm(self, name: str, kind: str) -> None:
        self.shipment.timers[name] = self.now + timedelta(seconds=deadlines()[kind])

    def disarm(self, *names: str) -> None:
        for name in names:
            self.shipment.timers.pop(name, None)

    def undo(self, parcel_id: str) -> int:
        """Nothing of the parcel will be the buyer's: returns by how much the buyer owes less."""
        refund = self.value(parcel_id)
        self.shipment.parcels[parcel_id].undone = True
        return refund

    def cut(self, parcel_id: str, lines: list[tuple[int, int]]) -> tuple[list[tuple[Line, int]], int]:
        """Take units out of the parcel, as far as they are there. Returns what was taken, and the money for it."""
        before, parcel, taken = self.value(parcel_id), self.shipment.parcels[parcel_id], []
        left = {line.line_no: (line, units) for line, units in self.left(parcel_id)}
        for line_no, units in lines:
            line, available = left.get(line_no, (None, 0))
            units = min(units, available)
            if units:
                parcel.cut[line_no] = parcel.cut.get(line_no, 0) + units
                left[line_no] = (line, available - units)
                taken.append((line, units))
        return taken, before - self.value(parcel_id)


# -- allocation -------------------------------------------------------------------------------------------------------


def _placed(work: _Work, incoming: Incoming) -> Stale | None:
    s, event = work.shipment, incoming.data
    if s.status != "new":
        return Stale("placed before")
    s.status, s.merchant_id, s.regime = "waiting", event.merchant_id, event.regime
    s.pending = Wanted.of(event)
    _try_to_allocate(work, first=True)
    return None


def _try_to_allocate(work: _Work, first: bool) -> None:
    s = work.shipment
    found = allocate(s.order_id, s.pending, work.stock.available)
    if found.parcels and (not found.missing or s.pending.on_shortage == "ship_available"):
        _reserve(work, found)
    elif s.pending.on_shortage == "wait":
        work.arm("retry", "backorder_retry")
        if first:
            work.arm("backorder", "backorder")
            work.emit(out.Backordered, missing=[
                out.MissingLine(line_no=line.line_no, sku=line.sku, quantity=units) for line, units in found.missing])
    else:
        _fail(work, "no_stock")


def _reserve(work: _Work, found: Any) -> None:
    s, wanted = work.shipment, work.shipment.pending
    work.disarm("retry", "backorder")
    work.fresh_document = Document(wanted.currency, wanted.destination, found.parcels, not all(
        not (line.hs_code or "").startswith(NO_SUCH_HS_CHAPTER) for line in wanted.lines))
    s.pending, s.status = None, "open"
    plans = []
    for parcel_id, content in found.parcels.items():
        s.parcels[parcel_id] = Parcel(content.warehouse)
        work.move(parcel_id, "reserve")
        plans.append(out.ParcelPlan.model_construct(
            parcel_id=parcel_id, warehouse=content.warehouse, freight=content.freight,
            lines=_lines(content), amount=content.amount))
    work.arm("reservation", "reservation")
    work.emit(out.ParcelsAllocated, currency=wanted.currency, total=sum(p.amount for p in plans), parcels=plans,
              unfilled=[LineUnits(line_no=line.line_no, quantity=units) for line, units in found.missing])


def _lines(content: Content) -> list[out.ParcelLine]:
    return [out.ParcelLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=l.quantity, amount=l.amount)
            for l in content.lines]


def _fail(work: _Work, reason: str) -> None:
    s = work.shipment
    s.pending, s.status, s.closed = None, "failed", True
    s.timers.clear()
    work.emit(out.AllocationFailed, reason=reason)


def _inbound(work: _Work, incoming: Incoming) -> None:
    event = incoming.data
    if event.order_id != f"stock:{event.warehouse}:{event.sku}":
        raise Impossible("key", f"order_id must be stock:{event.warehouse}:{event.sku}")
    s = work.shipment
    s.status, s.closed = "stock", True
    available = dict(work.stock.available(event.sku)).get(event.warehouse, 0)
    work.moves.append(StockMove(event.warehouse, event.sku, "receive", event.quantity))
    work.emit(out.StockReceived, warehouse=event.warehouse, sku=event.sku, quantity=event.quantity,
              available=available + event.quantity)


# -- money ------------------------------------------------------------------------------------------------------------


def _authorised(work: _Work, incoming: Incoming) -> Stale | NotYet | None:
    s = work.shipment
    if not s.parcels:
        return NotYet("ParcelsAllocated")
    work.disarm("reservation")
    if work.document.papers_missing and s.regime != "domestic":
        return None  # the money waits for the papers, until its authorisation ends
    ready = [k for k, p in s.parcels.items() if p.status == "allocated" and work.step(p, "DocumentsReady")]
    if ready:
        work.emit(out.DocumentsReady, parcel_ids=ready)
    return None


def _held(work: _Work, incoming: Incoming) -> NotYet | None:
    s = work.shipment
    if not s.parcels:
        return NotYet("ParcelsAllocated")
    work.disarm("reservation")
    for part in incoming.data.parcels:
        parcel = s.parcels[part.parcel_id]
        if s.regime == "china" and work.step(parcel, "DocumentsMatched"):
            work.emit(out.DocumentsMatched, parcel_id=part.parcel_id)
        if work.step(parcel, "FulfilmentRequested"):
            lines = [out.ParcelLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=units,
                                                    amount=l.amount * units // l.quantity)
                     for l, units in work.left(part.parcel_id) if units]
            work.emit(out.FulfilmentRequested, parcel_id=part.parcel_id, warehouse=parcel.warehouse,
                      destination=work.document.destination, regime=s.regime, lines=lines)
    return None


def _not_paid(work: _Work, incoming: Incoming) -> NotYet | None:
    if not work.shipment.parcels:
        return NotYet("ParcelsAllocated")
    reason = "payment_declined" if incoming.type == "PaymentDeclined" else "authorisation_expired"
    for part in incoming.data.parcels:
        _cancel_parcel(work, part.parcel_id, reason)
    return None


# -- undoing ----------------------------------------------------------------------------------------------------------


def _cancel_parcel(work: _Work, parcel_id: str, reason: str) -> None:
    """Before hand-over: release what is reserved, or put back what is packed. Nothing when it is too late."""
    parcel = work.shipment.parcels[parcel_id]
    kind = "restock" if parcel.status == "packed" else "release"
    left = work.left(parcel_id)
    if parcel.status in BEFORE_HANDOVER and work.step(parcel, "ParcelCancelled"):
        parcel.reason = reason
        work.move(parcel_id, kind, left)
        work.emit(out.ParcelCancelled, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id))
        if all(p.status == "cancelled" for p in work.shipment.parcels.values()):
            work.disarm("reservation")


def _cancellation(work: _Work, incoming: Incoming) -> Stale | None:
    s, event = work.shipment, incoming.data
    if s.pending is not None:
        if event.lines is not None:
            s.pending = s.pending.without({l.line_no: l.quantity for l in event.lines})
        if event.lines is None or not s.pending.lines:
            _fail(work, "cancelled")
        return None
    if not s.parcels:
        return Stale(f"shipment is {s.status}")
    if event.lines is None:
        for parcel_id in s.parcels:
            _cancel_whole(work, parcel_id, event.cancellation_id)
        return None
    wanted = {line.line_no: line.quantity for line in event.lines}
    for parcel_id in s.parcels:
        mine = [(line.line_no, min(units, wanted[line.line_no])) for line, units in work.left(parcel_id)
                if units and wanted.get(line.line_no)]
        if mine and _cancel_lines(work, parcel_id, event.cancellation_id, mine):
            for line_no, units in mine:
                wanted[line_no] -= units
    return None


def _cancel_whole(work: _Work, parcel_id: str, cancellation_id: str) -> None:
    parcel = work.shipment.parcels[parcel_id]
    if parcel.status in BEFORE_HANDOVER:
        _cancel_parcel(work, parcel_id, "cancelled")
    elif not parcel.intercept and work.step(parcel, "InterceptRequested"):
        parcel.intercept = cancellation_id
        work.emit(out.InterceptRequested, parcel_id=parcel_id, cancellation_id=cancellation_id)
    else:
        _decline(work, parcel_id, cancellation_id, f"the parcel is {parcel.status}")


def _cancel_lines(work: _Work, parcel_id: str, cancellation_id: str, lines: list[tuple[int, int]]) -> bool:
    parcel = work.shipment.parcels[parcel_id]
    if parcel.status not in CUTTABLE:
        _decline(work, parcel_id, cancellation_id, f"the parcel is {parcel.status}")
        return False
    taking = dict(lines)
    if all(units <= taking.get(line.line_no, 0) for line, units in work.left(parcel_id)):
        _cancel_parcel(work, parcel_id, "cancelled")
        return True
    taken, refund = work.cut(parcel_id, lines)
    work.step(parcel, "ParcelLinesCancelled")
    work.move(parcel_id, "release", taken)
    work.emit(out.ParcelLinesCancelled, parcel_id=parcel_id, cancellation_id=cancellation_id, refund=refund, lines=_units(taken))
    return True


def _decline(work: _Work, parcel_id: str, cancellation_id: str, reason: str) -> None:
    if work.step(work.shipment.parcels[parcel_id], "CancellationDeclined"):
        work.emit(out.CancellationDeclined, parcel_id=parcel_id, cancellation_id=cancellation_id, reason=reason)


def _units(taken: list[tuple[Line, int]]) -> list[LineUnits]:
    return [LineUnits(line_no=line.line_no, quantity=units) for line, units in taken]


# -- reports ----------------------------------------------------------------------------------------------------------


def _report(event: str):
    """A handler for a report that becomes `event` of its parcel, where the table allows it."""
    def decorate(act):
        def handle(work: _Work, incoming: Incoming) -> NotYet | Stale | None:
            s, parcel_id = work.shipment, incoming.data.parcel_id
            parcel = s.parcels.get(parcel_id)
            if parcel is None:
                if not s.parcels and not s.closed:
                    return NotYet("ParcelsAllocated")
                raise Impossible("unknown_parcel", f"the order has {sorted(s.parcels)}, not {parcel_id!r}")
            answer, to = PARCEL[s.regime].answer(parcel.status, event)
            if answer is Answer.NOT_YET:
                return NotYet(f"a parcel state that allows {event}")
            if answer is Answer.STALE:
                return Stale(f"{event} for a parcel that is {parcel.status}")
            before, parcel.status = parcel.status, to
            if f"lost:{parcel_id}" in s.timers:
                work.arm(f"lost:{parcel_id}", "lost")  # a scan: it is not lost yet
            return act(work, incoming.data, parcel_id, parcel, before)
        return handle
    return decorate


def _plain(event: str, model: type):
    @_report(event)
    def act(work, report, parcel_id, parcel, before):
        work.emit(model, parcel_id=parcel_id)
    return act


@_report("ParcelPacked")
def _packed(work, report, parcel_id, parcel, before):
    work.move(parcel_id, "consume")
    work.emit(out.ParcelPacked, parcel_id=parcel_id, warehouse=parcel.warehouse, destination=work.document.destination,
              regime=work.shipment.regime)


@_report("ParcelShortPicked")
def _short_picked(work, report, parcel_id, parcel, before):
    taken, refund = work.cut(parcel_id, [(line.line_no, line.quantity) for line in report.lines])
    if not taken:
        raise Impossible("unknown_line", "none of the lines is in the parcel")
    # The units were counted on the shelf but are not there: neither reserved nor in stock any more.
    work.move(parcel_id, "shrink", taken)
    if any(units for _, units in work.left(parcel_id)):
        work.emit(out.ParcelShortPicked, parcel_id=parcel_id, lines=_units(taken), refund=refund)
    else:
        work.step(parcel, "ParcelCancelled")
        parcel.reason, parcel.undone = "short_pick", True
        work.emit(out.ParcelCancelled, parcel_id=parcel_id, reason="short_pick", refund=refund)


@_report("ParcelCancelled")
def _packing_rejected(work, report, parcel_id, parcel, before):
    work.move(parcel_id, "restock" if before == "packed" else "release")
    parcel.reason = "packing_rejected"
    work.emit(out.ParcelCancelled, parcel_id=parcel_id, reason="packing_rejected", refund=work.undo(parcel_id))


@_report("ParcelHandedOver")
def _handed_over(work, report, parcel_id, parcel, before):
    work.arm(f"lost:{parcel_id}", "lost")
    work.emit(out.ParcelHandedOver, parcel_id=parcel_id, carrier=report.carrier, tracking_no=report.tracking_no,
              destination=work.document.destination, regime=work.shipment.regime)


@_report("ParcelArrived")
def _arrived(work, report, parcel_id, parcel, before):
    work.emit(out.ParcelArrived, parcel_id=parcel_id, destination=work.document.destination)


@_report("CustomsPresented")
def _presented(work, report, parcel_id, parcel, before):
    work.arm(f"customs:{parcel_id}", "customs")
    work.emit(out.CustomsPresented, parcel_id=parcel_id, destination=work.document.destination)


@_report("CustomsHeld")
def _customs_held(work, report, parcel_id, parcel, before):
    work.emit(out.CustomsHeld, parcel_id=parcel_id, reason=report.reason)


@_report("CustomsReleased")
def _customs_released(work, report, parcel_id, parcel, before):
    work.disarm(f"customs:{parcel_id}")
    work.emit(out.CustomsReleased, parcel_id=parcel_id)


@_report("CustomsRefused")
def _customs_refused(work, report, parcel_id, parcel, before):
    _refuse_at_customs(work, parcel_id, report.reason)


def _refuse_at_customs(work: _Work, parcel_id: str, reason: str) -> None:
    work.disarm(f"customs:{parcel_id}")
    work.shipment.parcels[parcel_id].reason = "customs_refused"
    work.emit(out.CustomsRefused, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id))


@_report("DeliveryFailed")
def _delivery_failed(work, report, parcel_id, parcel, before):
    parcel.attempts += 1
    work.emit(out.DeliveryFailed, parcel_id=parcel_id, attempt=parcel.attempts, reason=report.reason)
    if parcel.attempts >= 3:
        work.step(parcel, "ParcelAtPickup")
        work.disarm(f"lost:{parcel_id}")
        work.arm(f"pickup:{parcel_id}", "pickup")
        work.emit(out.ParcelAtPickup, parcel_id=parcel_id)


@_report("ParcelDelivered")
def _delivered(work, report, parcel_id, parcel, before):
    work.disarm(f"lost:{parcel_id}", f"pickup:{parcel_id}")
    if parcel.intercept:
        _decline(work, parcel_id, parcel.intercept, "delivered before it could be stopped")
        parcel.intercept = ""
    work.emit(out.ParcelDelivered, parcel_id=parcel_id)


@_report("ParcelReturning")
def _intercepted(work, report, parcel_id, parcel, before):
    parcel.intercept = ""
    _send_back(work, parcel_id, "cancelled")


def _send_back(work: _Work, parcel_id: str, reason: str) -> None:
    work.disarm(f"customs:{parcel_id}", f"pickup:{parcel_id}")
    work.arm(f"lost:{parcel_id}", "lost")
    work.shipment.parcels[parcel_id].reason = reason
    work.emit(out.ParcelReturning, parcel_id=parcel_id, reason=reason)


def _intercept_refused(work: _Work, incoming: Incoming) -> NotYet | Stale | None:
    parcel = work.shipment.parcels.get(incoming.data.parcel_id)
    if parcel is None or not parcel.intercept:
        return Stale("no intercept is open")
    _decline(work, incoming.data.parcel_id, parcel.intercept, incoming.data.reason)
    parcel.intercept = ""
    return None


@_report("ParcelReturned")
def _returned_to_sender(work, report, parcel_id, parcel, before):
    work.disarm(f"lost:{parcel_id}")
    refund = work.undo(parcel_id)
    work.move(parcel_id, "restock")
    work.emit(out.ParcelReturned, parcel_id=parcel_id, reason=parcel.reason, refund=refund)


@_report("ParcelLost")
def _lost(work, report, parcel_id, parcel, before):
    _lose(work, parcel_id, "reported_lost")


def _lose(work: _Work, parcel_id: str, reason: str) -> None:
    parcel = work.shipment.parcels[parcel_id]
    work.disarm(f"lost:{parcel_id}", f"customs:{parcel_id}", f"pickup:{parcel_id}")
    parcel.claim_open, parcel.reason = True, reason
    # The carrier owes the goods' worth even when the buyer has the money back already (refused, then lost on its way home).
    claim = sum(line.amount * units // line.quantity for line, units in work.left(parcel_id))
    work.emit(out.ParcelLost, parcel_id=parcel_id, reason=reason, refund=work.undo(parcel_id), claim=claim)


@_report("ClaimPaid")
def _claim_paid(work, report, parcel_id, parcel, before):
    if not parcel.claim_open:
        return Stale("the claim was paid before")
    parcel.claim_open = False
    work.emit(out.ClaimPaid, parcel_id=parcel_id, amount=report.amount)


# -- after delivery -----------------------------------------------------------------------------------------------------


@_report("ReturnAuthorised")
def _return_requested(work, event, parcel_id, parcel, before):
    parcel.returns[event.return_id] = [[l.line_no, l.quantity] for l in event.lines] if event.lines is not None else None
    work.emit(out.ReturnAuthorised, parcel_id=parcel_id, return_id=event.return_id)


@_report("ReturnReceived")
def _return_received(work, report, parcel_id, parcel, before):
    if report.return_id not in parcel.returns:
        return Stale("no such return is open")
    wanted = parcel.returns.pop(report.return_id)
    if wanted is None:
        taken = [(line, units) for line, units in work.left(parcel_id) if units]
        refund = work.undo(parcel_id)
        parcel.cut.update({line.line_no: line.quantity for line, _ in taken})
    else:
        taken, refund = work.cut(parcel_id, wanted)
    work.move(parcel_id, "restock", taken)
    work.emit(out.ReturnReceived, parcel_id=parcel_id, return_id=report.return_id, lines=_units(taken), refund=refund)


def _return_expired(work: _Work, incoming: Incoming) -> Stale | None:
    parcel = work.shipment.parcels[incoming.data.parcel_id]
    if incoming.data.return_id not in parcel.returns:
        return Stale("the goods came after all")
    del parcel.returns[incoming.data.return_id]
    return None


@_report("GrantPriced")
def _grant(work, event, parcel_id, parcel, before):
    value = work.value(parcel_id)
    if event.amount is not None:
        refund = min(event.amount, value)
    elif event.lines is not None:
        lines = {line.line_no: line for line in work.content(parcel_id).lines}
        refund = min(value, sum(lines[l.line_no].amount * l.quantity // lines[l.line_no].quantity
                                for l in event.lines if l.line_no in lines))
    else:
        refund = value
    parcel.granted += refund  # the goods stay with the buyer; only what they still cost goes down
    work.emit(out.GrantPriced, parcel_id=parcel_id, grant_id=event.grant_id, refund=refund)


# -- time -------------------------------------------------------------------------------------------------------------


def _timer(work: _Work, incoming: Incoming) -> None:
    s = work.shipment
    for name in sorted(n for n, due in s.timers.items() if due <= work.now):
        if name not in s.timers:
            continue  # an earlier one of this round ended the wait
        del s.timers[name]
        kind, _, parcel_id = name.partition(":")
        if kind == "backorder":
            _fail(work, "no_stock")
        elif kind == "retry" and s.pending is not None:
            _try_to_allocate(work, first=False)
        elif kind == "reservation":
            for each in s.parcels:
                _cancel_parcel(work, each, "reservation_expired")
        elif kind == "customs" and work.step(s.parcels[parcel_id], "CustomsRefused"):
            _refuse_at_customs(work, parcel_id, "no decision by the deadline")
        elif kind == "pickup" and work.step(s.parcels[parcel_id], "ParcelReturning"):
            _send_back(work, parcel_id, "not_collected")
        elif kind == "lost" and work.step(s.parcels[parcel_id], "ParcelLost"):
            _lose(work, parcel_id, "no_scan")


TOUCHES_STOCK = {"PaymentDeclined", "PaymentExpired", "CancellationRequested", "PackedReported", "ShortPickReported",
                 "PackingRejected", "ReturnedToSenderReported", "ReturnReceivedReported", TIMER}

HANDLERS = {
    "OrderPlaced": _placed, "CancellationRequested": _cancellation, "ReturnRequested": _return_requested,
    "ReturnExpired": _return_expired, "RefundGranted": _grant,
    "PaymentAuthorised": _authorised, "PaymentHeld": _held, "PaymentDeclined": _not_paid, "PaymentExpired": _not_paid,
    "InboundReceived": _inbound, "PackedReported": _packed, "ShortPickReported": _short_picked,
    "PackingRejected": _packing_rejected, "HandedOverReported": _handed_over,
    "ExportedReported": _plain("ParcelExported", out.ParcelExported), "ArrivedReported": _arrived,
    "PresentedReported": _presented, "CustomsHoldReported": _customs_held, "CustomsReleaseReported": _customs_released,
    "CustomsRefusalReported": _customs_refused,
    "OutForDeliveryReported": _plain("ParcelOutForDelivery", out.ParcelOutForDelivery),
    "DeliveryFailureReported": _delivery_failed, "DeliveredReported": _delivered, "InterceptAccepted": _intercepted,
    "InterceptRefused": _intercept_refused, "ReturnedToSenderReported": _returned_to_sender, "LossReported": _lost,
    "ClaimPaidReported": _claim_paid, "ReturnReceivedReported": _return_received, TIMER: _timer,
}
