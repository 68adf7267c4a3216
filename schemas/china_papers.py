"""The papers of one parcel into China, as Chinese customs names them: order (CEB311), payment (CEB411), waybill (CEB511), import
list (CEB621). A parcel is customs' sub-order: its id is their orderNo.

Persons are keyed hashes here; in clear they stand only in what goes through customs' port. Amounts are fen.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.model import Minor, Part, Quantity

ORDER_NO_MAX = 60
CNY = "142"  # customs' own number
CODE_DIGITS = 10


class Consignee(Part):
    """Keyed hashes of what is compared of the person on the label."""

    name: str
    phone: str
    address: str


class PaymentDocument(Part):
    """CEB411, by payments: who paid what for a parcel. `transaction`: payTransactionId; `payer`: as `ChinaImport.person`."""

    order_no: str
    platform: str
    transaction: str
    payer: str
    amount: Minor
    currency: str = CNY


class OrderedGoods(Part):
    """One line of the sub-order. `gnum` counts from 1; `amount`: price of the units, without tax."""

    gnum: int
    line_no: int
    gname: str
    gcode: str
    quantity: Quantity
    amount: Minor


class OrderDocument(Part):
    """CEB311, by orders. `paid` (acturalPaid) = goods + freight + tax - discount."""

    order_no: str
    platform: str
    transaction: str
    buyer: str
    consignee: Consignee | None = None
    lines: list[OrderedGoods]
    goods: Minor
    freight: Minor
    tax: Minor
    discount: Minor = 0
    paid: Minor
    currency: str = CNY


class ListedGoods(Part):
    gnum: int
    gname: str
    gcode: str
    quantity: Quantity
    item_record: str = ""


class ImportList(Part):
    """CEB621, by shipping, once the three agree. `list_no` (copNo) names it; `replaces`: the one it is sent instead of.
    `voyage`: the planned way over the border, absent where there is no plan. Mode 1210: account book, area, and of each line its
    record there."""

    list_no: str
    replaces: str = ""
    order_no: str
    logistics_no: str
    mode: Literal["9610", "1210"] = "9610"
    buyer: str
    lines: list[ListedGoods]
    packs: Annotated[int, Field(ge=1, le=1)] = 1
    voyage: str = ""
    ems_no: str = ""
    area_code: str = ""


class Difference(Part):
    """One field on which papers disagree, or that is not as customs wants it: `field` as above, of a line `lines.<gnum>.<field>`;
    `between`: the papers, such as order/payment."""

    field: str
    between: str
