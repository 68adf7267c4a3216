"""The order document of a parcel into China (CEB311): issued when its money is held, and again when what is in the parcel, or
what the merchant says of it, has changed. Pure.

Orders alone has it all: the prices, the buyer, the consignee. Persons are keyed hashes of parts of what is in the vault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.china_papers import Consignee, OrderDocument, OrderedGoods
from schemas.orders_order import OrderDocumented
from services.orders.quota import Quota, Share
from services.runtime.decision import Decision, Incoming


@dataclass(frozen=True, slots=True)
class Papers:
    """What never changes of an order's papers: `goods`: line number -> (name, customs code)."""

    platform: str
    consignee: Consignee
    goods: dict[int, tuple[str, str]]


def papers_of(command: Any, china: Any) -> Papers | None:
    """Of an order that is accepted; None where it does not go to China."""
    return china and Papers(china.platform, china.consignee, {
        line.line_no: (line.description or line.sku, line.hs_code or "") for line in command.lines})


def issue(decision: Decision, document: Any, incoming: Incoming) -> None:
    """Add the order documents that this event asks for to the decision."""
    act = ISSUING.get(incoming.type)
    if act is None or document.papers is None:
        return
    order = decision.state
    order.quota = order.quota.draft()
    for parcel_id in act(order.quota, decision, incoming.data):
        share = order.quota.shares[parcel_id]
        if share.transaction and order.parcels[parcel_id].goods == "open" and any(share.units.values()):
            share.revision += 1
            decision.events.append(OrderDocumented.model_construct(
                order_id=order.order_id, parcel_id=parcel_id, revision=share.revision,
                document=_document(parcel_id, order.quota, share, document)))


def _paid(quota: Quota, decision: Decision, event: Any) -> list[str]:
    if event.document is None:
        return []
    parcel_id = event.parcels[0].parcel_id
    quota.shares[parcel_id].transaction = event.document.transaction
    return [parcel_id]


def _changed(quota: Quota, decision: Decision, event: Any) -> list[str]:
    return [event.parcel_id]


def _supplied(quota: Quota, decision: Decision, command: Any) -> list[str]:
    if not any(type(event).__name__ == "DocumentsSupplied" for event in decision.events):
        return []  # refused
    quota.codes = quota.codes | {line.line_no: line.hs_code for line in command.lines}
    return [parcel_id for parcel_id, share in quota.shares.items() if any(line.line_no in share.units for line in command.lines)]


def _document(parcel_id: str, quota: Quota, share: Share, document: Any) -> OrderDocument:
    """Of what is left in the parcel."""
    lines, papers = [], document.papers
    for gnum, (line_no, units) in enumerate(((n, u) for n, u in share.units.items() if u), 1):
        name, code = papers.goods[line_no]
        lines.append(OrderedGoods.model_construct(
            gnum=gnum, line_no=line_no, gname=name, gcode=quota.codes.get(line_no, code), quantity=units,
            amount=document.amounts[line_no] * units // document.quantities[line_no]))
    goods = sum(line.amount for line in lines)
    due = sum(share.priced[n][0] * units // share.priced[n][1] for n, units in share.units.items())
    return OrderDocument.model_construct(
        order_no=parcel_id, platform=papers.platform, transaction=share.transaction, buyer=quota.person,
        consignee=papers.consignee, lines=lines, goods=goods, freight=share.freight, tax=due - goods,
        paid=due + share.freight)


ISSUING = {"PaymentHeld": _paid, "ParcelShortPicked": _changed, "ParcelLinesCancelled": _changed, "SupplyDocuments": _supplied}
