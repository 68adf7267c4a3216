"""An import's own decisions, without a broker: what is said when, once, and in which pieces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from schemas import orders_order as ordered
from schemas import shipping_shipment as ship
from schemas.orders_intake import CancelOrder, GrantRefund, RequestReturn
from schemas.payments_payment import PaymentPartiallyRefunded
from services.simulators import retail
from services.simulators.importer import Importer, order_id_of, plan, wishes_of
from services.simulators.retail_orders import Undo
from services.simulators.scenario import SCENARIOS, scenario_of

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ORDER = order_id_of("1")
SAMPLE, SEED = Path(__file__).parent / "data" / "online-retail-sample.csv.gz", 20101201


def undo(line_no: int, kind: str, quantity: int = 1, cancellation: str = "C9", source_line: int = 7) -> Undo:
    return Undo(cancellation, source_line, "1", line_no, quantity, 100, NOW, timedelta(days=2), kind)


def importer(*undos: Undo) -> Importer:
    made = Importer(None, SimpleNamespace(stories={}), NOW)
    made.follow(wishes_of(undos))
    return made


def allocated(parcels: dict[str, dict[int, int]]) -> ship.ParcelsAllocated:
    return ship.ParcelsAllocated(order_id=ORDER, currency="GBP", total=0, parcels=[
        ship.ParcelPlan(parcel_id=p, warehouse="W", freight=0, amount=0, lines=[
            ship.ParcelLine(line_no=n, sku="S", quantity=q, amount=0) for n, q in lines.items()])
        for p, lines in parcels.items()])


def said(made: Importer) -> list:
    out, made.out = made.out, []
    return [record.message for record in out]


def tell(made: Importer, event) -> None:
    made.react(type(event).__name__, event)


def test_a_cancellation_follows_its_order_at_once_and_once():
    made = importer(undo(1, "cancel", 2), undo(2, "cancel"))
    made.placed([ORDER])
    made.placed([ORDER])
    [command] = said(made)
    assert isinstance(command, CancelOrder) and [(l.line_no, l.quantity) for l in command.lines] == [(1, 2), (2, 1)]


def test_returns_wait_for_their_parcel_and_for_each_other():
    made = importer(undo(1, "return", 2), undo(2, "return", 1, "C9"), undo(1, "return", 1, "C10", 8))
    tell(made, allocated({f"{ORDER}-P1": {1: 5}, f"{ORDER}-P2": {2: 5}}))
    assert said(made) == [] and made.pending == 2
    tell(made, ship.ParcelDelivered(order_id=ORDER, parcel_id=f"{ORDER}-P1"))
    [first] = said(made)
    assert isinstance(first, RequestReturn) and first.parcel_id == f"{ORDER}-P1"
    assert [(l.line_no, l.quantity) for l in first.lines] == [(1, 2)]
    tell(made, PaymentPartiallyRefunded(order_id=ORDER, payment_id="Y", currency="GBP", parcel_id=f"{ORDER}-P1", amount=1,
                                        reason="returned", ref=f"return:C9:1:{ORDER}-P1"))
    [second] = said(made)
    assert [(l.line_no, l.quantity) for l in second.lines] == [(1, 1)]
    tell(made, ship.ParcelDelivered(order_id=ORDER, parcel_id=f"{ORDER}-P2"))
    assert [m.parcel_id for m in said(made)] == [f"{ORDER}-P2"]


def test_late_cancellations_and_freight_are_granted_after_the_end():
    made = importer(undo(1, "grant_refund"), undo(0, "return", 1, "C11", 9))
    tell(made, allocated({f"{ORDER}-P1": {1: 5}}))
    tell(made, ship.ParcelDelivered(order_id=ORDER, parcel_id=f"{ORDER}-P1"))
    assert said(made) == []
    tell(made, ordered.OrderCompleted(order_id=ORDER, outcomes={}))
    [goods] = said(made)
    assert isinstance(goods, GrantRefund) and goods.lines
    tell(made, ship.GrantPriced(order_id=ORDER, parcel_id=f"{ORDER}-P1", grant_id=f"grant_refund:C9:1:{ORDER}-P1", refund=0))
    [freight] = said(made)
    assert freight.amount == 100 and freight.lines is None
    tell(made, ordered.CommandRefused(order_id=ORDER, command="GrantRefund", command_id=f"grant_refund:C11:1:freight:{ORDER}-P1",
                                      reason="busy"))
    assert made.pending == 0 and made.refusals == {"GrantRefund: busy": 1}


def test_what_takes_long_is_placed_first():
    made = plan(retail.read(SAMPLE), SAMPLE, bytes(32), SEED)
    slow = [n for n, order in enumerate(made.orders) if not SCENARIOS[scenario_of(order.order_id, SEED)].fast]
    undone = {wish.order_id for wish in made.wishes}
    comes_back = [n for n, order in enumerate(made.orders) if order.order_id in undone]
    usual = [n for n, order in enumerate(made.orders) if order.order_id not in undone
             and scenario_of(order.order_id, SEED) == "normal" and order.on_shortage != "wait"]
    assert slow and comes_back and usual
    assert max(slow) < min(usual) and max(comes_back) < min(usual)
    assert max(slow) < len(made.orders) // 10  # a deadline of days passes while the rest is placed
