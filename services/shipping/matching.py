"""The match of the three documents of an import into China, field by field. Pure; whoever asks names nobody and no amount.

order = payment: orderNo, platform, amount, currency, transaction, buyer = payer. order = waybill: orderNo, consignee. The
order in itself: what is paid is the sum of its parts, and each line is named, and coded with ten digits.
"""

from __future__ import annotations

from collections.abc import Iterator

from schemas.china_papers import CNY, CODE_DIGITS, Consignee, Difference, ImportList, ListedGoods, OrderDocument, PaymentDocument
from schemas.orders_order import ChinaImport

_PAID_FOR = (("order_no", "order_no"), ("platform", "platform"), ("currency", "currency"), ("transaction", "transaction"),
             ("buyer", "payer"), ("paid", "amount"))


def differences(order: OrderDocument, payment: PaymentDocument, parcel_id: str, consignee: Consignee | None) -> list[Difference]:
    """What keeps customs from taking the list; empty: they agree. `consignee`: on the label, which is the waybill's."""
    found = [_differ(mine, "order/payment") for mine, theirs in _PAID_FOR if getattr(order, mine) != getattr(payment, theirs)]
    if order.order_no != parcel_id:
        found.append(_differ("order_no", "order/waybill"))
    if order.consignee is None or consignee is None:
        found += [_differ("consignee", "order/waybill")] if order.consignee is not consignee else []
    else:
        found += [_differ(f"consignee.{part}", "order/waybill") for part in Consignee.model_fields
                  if getattr(order.consignee, part) != getattr(consignee, part)]
    return [*found, *(_differ(field, "order") for field in _unsound(order))]


def _differ(field: str, between: str) -> Difference:
    return Difference.model_construct(field=field, between=between)


def _unsound(order: OrderDocument) -> Iterator[str]:
    if order.currency != CNY:
        yield "currency"
    if order.paid != order.goods + order.freight + order.tax - order.discount or order.goods != sum(l.amount for l in order.lines):
        yield "paid"
    if [line.gnum for line in order.lines] != list(range(1, len(order.lines) + 1)):
        yield "gnum"
    for line in order.lines:
        if not line.gname.strip():
            yield f"lines.{line.gnum}.gname"
        if len(line.gcode) != CODE_DIGITS or line.gcode.startswith("00"):
            yield f"lines.{line.gnum}.gcode"


def import_list(order: OrderDocument, waybill_no: str, list_no: str, replaces: str, voyage: str, china: ChinaImport) -> ImportList:
    """One list a parcel, its lines those of the order document."""
    return ImportList.model_construct(
        list_no=list_no, replaces=replaces, order_no=order.order_no, logistics_no=waybill_no, buyer=order.buyer, voyage=voyage,
        mode=china.mode, ems_no=china.ems_no, area_code=china.area_code,
        lines=[ListedGoods.model_construct(gnum=line.gnum, gname=line.gname, gcode=line.gcode, quantity=line.quantity,
                                           item_record=china.records.get(line.line_no, ""))
               for line in order.lines])
