"""Units that were not there when the rest of an order was allocated. They follow in parcels of their own, one a line: paid for like
the others, packed when a warehouse has all of them, or paid back when none has them in time. Pure."""

from __future__ import annotations

from schemas import shipping_shipment as out
from services.shipping import china, packing, promise, undoing
from services.shipping.shipment import CHINESE, Work

EXPIRED = "backorder_expired"


def tell(work: Work) -> None:
    """After the allocation: what is awaited, and until when."""
    for parcel_id, parcel in work.shipment.parcels.items():
        if parcel.awaits:
            work.arm(f"stock:{parcel_id}", "backorder_retry")
            work.arm(f"stock_ends:{parcel_id}", "backorder")
            [(line, units)] = work.left(parcel_id)
            work.emit(out.ParcelBackordered, parcel_id=parcel_id, line_no=line.line_no, sku=line.sku, quantity=units,
                      until=work.shipment.timers[f"stock_ends:{parcel_id}"])
            if _promisable(work):
                promise.wait(work, parcel_id)


def try_again(work: Work, parcel_id: str) -> None:
    """Reserve the goods where the best way begins, or where the most are, if that is enough, and go on where the parcel would
    stand by now."""
    parcel = work.shipment.parcels[parcel_id]
    [(line, units)] = work.left(parcel_id)
    enough = [(warehouse, free) for warehouse, free in work.stock.available(line.sku) if free >= units]
    if not enough:
        work.arm(f"stock:{parcel_id}", "backorder_retry")
        return
    found = work.plans.best(work.document.destination, enough, units, work.now, work.closed,
                            work.shipment.regime == "bonded") if work.plans is not None else None
    warehouse, route = found or (max(enough, key=lambda there: (there[1], there[0]))[0], None)
    aside, parcel.warehouse = parcel.aside, warehouse
    aside.awaits = False
    work.disarm(f"stock_ends:{parcel_id}")
    work.move(parcel_id, "reserve")
    work.step(parcel, "BackorderFilled")
    work.emit(out.BackorderFilled, parcel_id=parcel_id, warehouse=warehouse, route=route)
    if aside.clock is not None or route is not None:
        promise.came(work, parcel_id, route)
    if not aside.ready:
        return
    if work.shipment.regime in CHINESE:
        china.paid(work, parcel_id, parcel.papers and parcel.papers.payment)
    else:
        packing.go_on(work, parcel_id)


def _promisable(work: Work) -> bool:
    """Whether a way can be promised to where they are wanted."""
    destination = (work.fresh_document or work.document).destination
    return work.plans is not None and work.plans.area(destination, work.now) is not None


def expired(work: Work, parcel_id: str) -> None:
    undoing.cancel_parcel(work, parcel_id, EXPIRED)
