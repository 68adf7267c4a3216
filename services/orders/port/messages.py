"""The four papers of a parcel as customs reads them: typed, with the element names of its own messages. Built from what is on the
topics and from the vault; amounts are yuan with two decimals.

The schema beside it (ceb.xsd) is ours, after what is publicly known of CEB311, 411, 511 and 621; the real one is customs'.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.china_papers import ImportList, OrderDocument, PaymentDocument
from schemas.parties import Person, SealBroken, consignee_of, identity_hash, person_json

Yuan = Annotated[Decimal, Field(ge=0, max_digits=15, decimal_places=2)]
Text = Annotated[str, Field(min_length=1, max_length=500)]
OrderNo = Annotated[str, Field(min_length=1, max_length=60)]


class NotTheSame(ValueError):
    """A person of the vault is not the one whose hash stands in the papers: nothing is told to customs of either."""


class Paper(BaseModel):
    """One message. Field names are customs' element names; `GOODS`: of a line."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ROOT: ClassVar[str]
    GOODS: ClassVar[str] = ""


class OrderedLine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    gnum: int
    itemName: Text
    gcode: Annotated[str, Field(pattern=r"^\d{10}$")]
    qty: int
    totalPrice: Yuan


class CEB311(Paper):
    """The order."""

    ROOT: ClassVar[str] = "CEB311Message"
    GOODS: ClassVar[str] = "OrderList"
    orderNo: OrderNo
    ebpCode: Text
    appTime: datetime
    goodsValue: Yuan
    freight: Yuan
    discount: Yuan
    taxTotal: Yuan
    acturalPaid: Yuan
    currency: Literal["142"]
    buyerName: Text
    buyerIdNumber: Text
    payTransactionId: Text
    consignee: Text
    consigneeTelephone: str
    consigneeAddress: str
    lines: list[OrderedLine]


class CEB411(Paper):
    """The payment."""

    ROOT: ClassVar[str] = "CEB411Message"
    orderNo: OrderNo
    ebpCode: Text
    appTime: datetime
    payTransactionId: Text
    payerName: Text
    payerIdNumber: Text
    amountPaid: Yuan
    currency: Literal["142"]


class CEB511(Paper):
    """The waybill."""

    ROOT: ClassVar[str] = "CEB511Message"
    logisticsNo: Text
    orderNo: OrderNo
    appTime: datetime
    freight: Yuan
    packNo: Literal[1]
    consignee: Text
    consigneeTelephone: str
    consigneeAddress: str


class ListedLine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    gnum: int
    itemRecordNo: str
    gname: Text
    gcode: Annotated[str, Field(pattern=r"^\d{10}$")]
    qty: int


class CEB621(Paper):
    """The import list. Mode 9610 is told by which way it comes, mode 1210 from which account book and area."""

    ROOT: ClassVar[str] = "CEB621Message"
    GOODS: ClassVar[str] = "InventoryList"
    copNo: Text
    orderNo: OrderNo
    logisticsNo: Text
    appTime: datetime
    tradeMode: Literal["9610", "1210"]
    voyageNo: str
    billNo: str
    emsNo: str
    areaCode: str
    packNo: Literal[1]
    buyerName: Text
    buyerIdNumber: Text
    lines: list[ListedLine]


def _yuan(fen: int) -> Decimal:
    return Decimal(fen).scaleb(-2).quantize(Decimal("0.01"))


def papers(order: OrderDocument, payment: PaymentDocument, listed: ImportList, buyer: Person, consignee: Person, key: bytes,
           at: datetime) -> list[Paper]:
    """The four of one parcel, with the persons in clear. Raises NotTheSame when they are not those of the papers."""
    _check(order, buyer, consignee, key)
    common = {"orderNo": order.order_no, "appTime": at}
    who = {"consignee": consignee.name, "consigneeTelephone": consignee.phone, "consigneeAddress": consignee.address}
    return [
        CEB311(**common, **who, ebpCode=order.platform, goodsValue=_yuan(order.goods), freight=_yuan(order.freight),
               discount=_yuan(order.discount), taxTotal=_yuan(order.tax), acturalPaid=_yuan(order.paid), currency=order.currency,
               buyerName=buyer.name, buyerIdNumber=buyer.identity_no or "-", payTransactionId=order.transaction,
               lines=[OrderedLine(gnum=line.gnum, itemName=line.gname, gcode=line.gcode, qty=line.quantity,
                                  totalPrice=_yuan(line.amount)) for line in order.lines]),
        CEB411(**common, ebpCode=payment.platform, payTransactionId=payment.transaction, payerName=buyer.name,
               payerIdNumber=buyer.identity_no or "-", amountPaid=_yuan(payment.amount), currency=payment.currency),
        CEB511(**common, **who, logisticsNo=listed.logistics_no, freight=_yuan(order.freight), packNo=listed.packs),
        CEB621(**common, copNo=listed.list_no, logisticsNo=listed.logistics_no, tradeMode=listed.mode, packNo=listed.packs,
               voyageNo=listed.voyage, billNo=listed.logistics_no if listed.mode == "9610" else "", emsNo=listed.ems_no,
               areaCode=listed.area_code, buyerName=buyer.name, buyerIdNumber=buyer.identity_no or "-",
               lines=[ListedLine(gnum=line.gnum, itemRecordNo=line.item_record, gname=line.gname, gcode=line.gcode,
                                 qty=line.quantity) for line in listed.lines])]


def _check(order: OrderDocument, buyer: Person, consignee: Person, key: bytes) -> None:
    try:
        if consignee_of(person_json(consignee), key) != order.consignee:
            raise NotTheSame(f"the consignee in the vault is not the one of {order.order_no}")
    except SealBroken as why:
        raise NotTheSame(str(why)) from why
    if buyer.identity_no and identity_hash(buyer.identity_no, key) != order.buyer:
        raise NotTheSame(f"the buyer in the vault is not the one of {order.order_no}")
