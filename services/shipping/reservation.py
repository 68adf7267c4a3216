"""From an order to reserved stock: all of it, what is there, or later. Nothing moves money before this succeeded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from schemas.model import LineUnits
from services.runtime.decision import REAL_NAME, SCREENING, Impossible, Incoming, Stale
from services.shipping.allocation import Content, Document, Wanted, allocate, within_limits
from services.shipping import papers, promise, stops
from services.shipping.shipment import Parcel, Work
from services.shipping.storage import StockMove


def placed(work: Work, incoming: Incoming, presell: Callable[[Work, Any], None], backordered: Callable[[Work], None]) -> Stale | None:
    """`presell`: what is done for an order with a season; `backordered`: for one of whose parcels some wait for their goods."""
    s, event = work.shipment, incoming.data
    if s.status != "new":
        return Stale("placed before")
    s.status, s.merchant_id, s.regime = "waiting", event.merchant_id, event.regime
    if event.china is not None and event.china.mode == "1210":
        s.regime = "bonded"
    if event.screening == "REVIEW":
        stops.stop(work, SCREENING)
    if event.real_name:
        stops.stop(work, REAL_NAME)
    s.pending, s.lanes = Wanted.of(event, incoming.time), incoming.lanes.label if incoming.lanes else ""
    if event.season is not None:
        presell(work, event.season)
    else:
        try_to_allocate(work, first=True)
        if event.backorder and s.parcels:
            backordered(work)
    return None


def try_to_allocate(work: Work, first: bool) -> None:
    s = work.shipment
    wanted, shares, routes = s.pending, {}, {}
    if work.plans is not None:
        # One that waited is promised anew, from the moment its goods are there.
        shares, routes = work.plans.plan(wanted, work.stock.available, wanted.accepted_at if first else work.now, work.closed)
    found = allocate(s.order_id, wanted, work.stock.available, shares)
    if s.pending.limits and within_limits(found, s.pending.limits) and not found.parcels:
        fail(work, "over_parcel_limit")
    elif found.parcels and (not found.missing or s.pending.on_shortage == "ship_available" and not s.pending.season):
        _reserve(work, found, routes, s.pending.accepted_at if first else work.now)
    elif s.pending.on_shortage == "wait" or s.pending.season or s.pending.backorder:
        work.arm("retry", "backorder_retry")
        if first and not s.pending.season:  # whose end is its season's
            work.arm("backorder", "backorder")
            work.emit(out.Backordered, missing=[
                out.MissingLine(line_no=line.line_no, sku=line.sku, quantity=units) for line, units in found.missing])
    else:
        fail(work, "no_stock")


def _reserve(work: Work, found: Any, routes: dict[str, out.Route], accepted_at: datetime | None) -> None:
    s, wanted = work.shipment, work.shipment.pending
    work.disarm("retry", "backorder")
    contents = {parcel_id: _numbered(work, content, routes) for parcel_id, content in found.parcels.items()}
    work.fresh_document = Document(wanted.currency, wanted.destination, contents,
                                   any(papers.wrong(line.hs_code, wanted.hs_digits) for line in wanted.lines), wanted.origin,
                                   wanted.cold, wanted.china, wanted.hs_digits, wanted.declaration)
    s.pending, s.status = None, "open"
    plans = []
    for parcel_id, content in contents.items():
        s.parcels[parcel_id] = parcel = Parcel(content.warehouse)
        if not content.warehouse:
            parcel.beside().awaits = True
        work.move(parcel_id, "reserve")
        plans.append(out.ParcelPlan.model_construct(
            parcel_id=parcel_id, warehouse=content.warehouse, freight=content.freight,
            lines=lines_of(content), amount=content.amount, sscc=content.sscc, waybill_no=content.waybill_no, tax=content.tax,
            route=content.route))
        if content.route is not None:
            promise.begin(work, parcel_id)
    work.arm("reservation", "reservation")
    work.emit(out.ParcelsAllocated, currency=wanted.currency, total=sum(p.amount for p in plans), parcels=plans,
              accepted_at=accepted_at if routes else None,
              unfilled=[LineUnits(line_no=line.line_no, quantity=units) for line, units in found.missing])
    if s.stops:
        promise.stop(work, s.stops[0])


def _numbered(work: Work, content: Content, routes: dict[str, out.Route]) -> Content:
    sscc, waybill_no = work.numbers(work.shipment.pending.origin)
    return replace(content, sscc=sscc, waybill_no=waybill_no, route=routes.get(content.warehouse))


def lines_of(content: Content) -> list[out.ParcelLine]:
    """As a parcel's plan tells them."""
    return [out.ParcelLine.model_construct(line_no=l.line_no, sku=l.sku, quantity=l.quantity, amount=l.amount)
            for l in content.lines]


def let_go(work: Work) -> None:
    """What was held of a harvest is held no longer."""
    s = work.shipment
    if s.pending is not None and s.pending.held:
        work.moves += [StockMove(warehouse, sku, "unsell", units) for warehouse, sku, units in s.pending.held]
        s.pending = replace(s.pending, held=[])


def fail(work: Work, reason: str) -> None:
    s = work.shipment
    let_go(work)
    s.pending, s.status, s.closed = None, "failed", True
    s.timers.clear()
    work.emit(out.AllocationFailed, reason=reason)


def inbound(work: Work, incoming: Incoming) -> None:
    event = incoming.data
    if event.order_id != f"stock:{event.warehouse}:{event.sku}":
        raise Impossible(Reason.KEY, f"order_id must be stock:{event.warehouse}:{event.sku}")
    s = work.shipment
    s.status, s.closed = "stock", True
    available = dict(work.stock.available(event.sku)).get(event.warehouse, 0)
    arrived = min(event.quantity, work.stock.coming(event.sku, event.warehouse)) if event.harvest else 0
    work.moves.append(StockMove(event.warehouse, event.sku, "receive", event.quantity))
    if arrived:
        work.moves.append(StockMove(event.warehouse, event.sku, "arrive", arrived))
    work.emit(out.StockReceived, warehouse=event.warehouse, sku=event.sku, quantity=event.quantity,
              available=available + event.quantity, arrived=arrived)
