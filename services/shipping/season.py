"""Short seasons: goods sold before their harvest. They are held of what warehouses announced, taken from the shelf when the season
opens, and paid only then, so that no authorisation can run out before the goods may be shipped. What is not handed over when
the season closes is cancelled, and paid back if it was paid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from schemas import shipping_shipment as out
from schemas.dead_letters import Reason
from schemas.orders_order import PreSale
from services.runtime.decision import Impossible, Incoming
from services.shipping import reservation, undoing
from services.shipping.allocation import allocate
from services.shipping.shipment import Work
from services.shipping.storage import Stock, StockMove

CLOSED = "season_closed"


def announced(work: Work, incoming: Incoming) -> None:
    event = incoming.data
    if event.order_id != f"stock:{event.warehouse}:{event.sku}":
        raise Impossible(Reason.KEY, f"order_id must be stock:{event.warehouse}:{event.sku}")
    work.shipment.status, work.shipment.closed = "stock", True
    work.moves.append(StockMove(event.warehouse, event.sku, "announce", event.quantity))
    work.emit(out.HarvestExpected, warehouse=event.warehouse, sku=event.sku, quantity=event.quantity, harvest_on=event.harvest_on)


def presell(work: Work, season: PreSale) -> None:
    """The order waits for its season: its goods are held, or it fails at once. Open already: it is an order like any other."""
    s = work.shipment
    s.timers["closes"] = season.ships_not_after
    if season.ships_not_before <= work.now:
        reservation.try_to_allocate(work, first=True)
        return
    found = allocate(s.order_id, s.pending, work.stock.promisable)
    if found.missing:
        reservation.fail(work, "sold_out")
        return
    lines = [out.PreSoldLine(line_no=line.line_no, sku=line.sku, warehouse=content.warehouse, quantity=line.quantity)
             for content in found.parcels.values() for line in content.lines]
    s.pending = replace(s.pending, held=[(line.warehouse, line.sku, line.quantity) for line in lines])
    work.moves += [StockMove(warehouse, sku, "presell", units) for warehouse, sku, units in s.pending.held]
    s.timers["opens"] = season.ships_not_before
    work.emit(out.PreSold, lines=lines, opens=season.ships_not_before, closes=season.ships_not_after)


def opens(work: Work) -> None:
    if work.shipment.pending is not None:
        work.emit(out.SeasonOpened)
        work.stock = _Own(work.stock, work.shipment.pending.held)
        reservation.let_go(work)
        reservation.try_to_allocate(work, first=False)  # promised from now on: nobody waits for cherries before their harvest


class _Own:
    """The stock as it is once this order's own hold is over; the batch applies its moves only after the decision."""

    def __init__(self, stock: Stock, held: list[tuple[str, str, int]]):
        self._stock, self._own = stock, Counter()
        for warehouse, sku, units in held:
            self._own[warehouse, sku] += units

    def available(self, sku: str) -> list[tuple[str, int]]:
        return self._stock.available(sku, self._own)

    def serial(self) -> int:
        return self._stock.serial()


def closes(work: Work) -> None:
    """Nothing of it may be shipped any more."""
    s = work.shipment
    if s.pending is not None:
        reservation.fail(work, CLOSED)
    for parcel_id in s.parcels:
        undoing.cancel_parcel(work, parcel_id, CLOSED)
