"""Rules of 47: what Chinese customs is told of a parcel agrees, and what it says of it is what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from schemas.china_papers import CNY, CODE_DIGITS, ImportList, OrderDocument, PaymentDocument
from schemas.lifecycle import deadlines
from services.auditor.facts import Parcel
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.story import Event

# Event -> the statuses of a receipt that may cause it, as the auditor knows them.
MEANS = {
    "ListAccepted": {"120"}, "ListRejected": {"4", "100", "700", "-621005", "-621018"},
    "ListReleased": {"800"}, "ListHeld": {"500", "501", "502", "503", "599"},
    "CustomsPresented": {"2", "3", "120"}, "CustomsHeld": {"500", "501", "502", "503", "599"},
    "CustomsRefused": {"100", "700", "-621005", "-621018"}, "CustomsReleased": {"800"},
}
DECISIONS = ("CustomsReleased", "CustomsRefused")
DECIDING = MEANS[DECISIONS[0]] | MEANS[DECISIONS[1]]
CHINESE = ("china", "bonded")
RESENDS_MAX = 9  # what may be set at most; how many are, an order does not tell
_CUTS = ("ParcelShortPicked", "ParcelLinesCancelled")


@order_rule(47, "customs' receipts lead to what they say", live=False)  # a receipt may be read after what it caused
def receipts_are_followed(case: Case) -> Iterator[Verdict]:
    """Each event that a receipt caused is the one its status means."""
    told = {said.id: said for said in case.story.said.values() if said.status}
    for event in case.story.of("shipping", *MEANS):
        said = told.get(event.cause)
        if said is not None:
            yield None if said.status in MEANS[event.type] else [str(event), f"{said}: {said.status}"]
        elif event.type.startswith("List"):  # kept while the order was held: then its cause is what let it go
            right = case.story.of("orders", "OrderHeld") and any(
                s.about == event.parcels[0][0] and s.status in MEANS[event.type] for s in told.values())
            yield None if right else [str(event), "no receipt of customs caused it"]


@order_rule(47, "what customs decided by a receipt is not forgotten", live=False)
def decisions_are_taken(case: Case) -> Iterator[Verdict]:
    """A parcel of which a receipt tells a decision was decided about, or never came before customs."""
    for said in case.story.said.values():
        if said.status in DECIDING:
            parcel = case.facts.parcels.get(said.about)
            if parcel is not None and "CustomsPresented" in parcel.first:
                done = [event for event in DECISIONS if event in parcel.first]
                yield None if done or parcel.goods in ("lost", "destroyed", "returned") else [
                    f"{said}: {said.status}", f"parcel {said.about} is {parcel.goods}"]


@dataclass
class _Declared:
    """One import list, the units of each line that were in the parcel when it was declared, and what followed from it."""

    event: Event
    left: dict[int, int]
    accepted: Event | None = None
    wrong: list[Event] = field(default_factory=list)


def lists_of(case: Case, parcel_id: str, parcel: Parcel) -> list[_Declared]:
    """Every list of a parcel, in order."""
    found: list[_Declared] = []
    left = {line_no: units for line_no, (_, units) in parcel.plan.lines.items()} if parcel.plan else {}
    for event in case.story.events["shipping"]:
        if not event.tells_of(parcel_id):
            continue
        if event.type in _CUTS:
            left = {n: units - dict(event.data.lines).get(n, 0) for n, units in left.items()}
        elif event.type == "DocumentsMatched":
            found.append(_Declared(event, left))
        elif event.type == "ListAccepted" and found:
            found[-1].accepted = event
    return found


@order_rule(47, "order, payment and waybill agree with the list", live=False)  # three topics: one may be read further
def documents_agree(case: Case) -> Iterator[Verdict]:
    if case.facts.regime not in CHINESE:
        return
    for parcel_id, parcel in case.facts.parcels.items():
        for declared in lists_of(case, parcel_id, parcel):
            listed = declared.event.data
            if listed is not None:  # else placed before papers were matched
                wrong = _disagreement(case, parcel_id, parcel, listed, declared.left)
                yield [str(declared.event), *wrong] if wrong else None


def _disagreement(case: Case, parcel_id: str, parcel: Parcel, listed: ImportList, left: dict[int, int]) -> list[str]:
    """What is wrong with a list, by what the three services told; of several order documents one must fit."""
    china = case.facts.placed.china
    orders = [e.data for e in case.story.of("orders", "OrderDocumented") if e.parcels[0][0] == parcel_id]
    payments = [e.data.paper for e in case.story.of("payments", "PaymentHeld", "PaymentDocumentAmended")
                if e.data.paper is not None and e.tells_of(parcel_id)]
    head = {"orderNo": listed.order_no == parcel_id, "logisticsNo": listed.logistics_no == parcel.plan.waybill_no,
            "packNo": listed.packs == 1, "buyer": listed.buyer == china.person, "mode": listed.mode == china.mode,
            "emsNo, areaCode": (listed.ems_no, listed.area_code) == china.bond}
    wrong = [f"{name} of the list is wrong" for name, right in head.items() if not right]
    fitting = [order for order in orders if _goods(order) == _goods(listed) and {
        line.line_no: line.quantity for line in order.lines} == {n: units for n, units in left.items() if units}]
    if fitting and china.records and {line.item_record for line in listed.lines} != {
            china.records[line.line_no] for line in fitting[0].lines}:
        wrong.append("itemRecordNo of the list is wrong")
    if not fitting:
        return [*wrong, f"no order document has its lines {_goods(listed)} and the parcel's units {left}"]
    reasons = [[*_unlike(order, payment, china)] for order in fitting for payment in payments] or [["no payment document"]]
    return [*wrong, *min(reasons, key=len)]


def _goods(paper: OrderDocument | ImportList) -> list[tuple]:
    return [(line.gnum, line.gname, line.gcode, line.quantity) for line in paper.lines]


def _unlike(order: OrderDocument, payment: PaymentDocument, china) -> Iterator[str]:
    checks = {
        "amount": order.paid == order.goods + order.freight + order.tax - order.discount == payment.amount,
        "currency": order.currency == payment.currency == CNY, "transaction": order.transaction == payment.transaction != "",
        "payer": order.buyer == payment.payer == china.person, "platform": order.platform == payment.platform == china.platform,
        "orderNo": order.order_no == payment.order_no, "consignee": order.consignee == china.consignee,
        "gnum": [line.gnum for line in order.lines] == list(range(1, len(order.lines) + 1)),
        "gname": all(line.gname for line in order.lines),
        "gcode": all(len(line.gcode) == CODE_DIGITS and line.gcode.isdigit() for line in order.lines)}
    yield from (f"{name}: order and payment document do not agree, or it is not as customs wants it"
                for name, right in checks.items() if not right)


@order_rule(47, "nothing is packed or handed over without a list that customs has")
def listed_first(case: Case) -> Iterator[Verdict]:
    """The newest list, of what is in the parcel now; from a bonded warehouse (mode 1210) nothing before customs' 800."""
    if case.facts.regime not in CHINESE:
        return
    listed: dict[str, str] = {}
    for event in case.story.events["shipping"]:
        for parcel_id, _ in event.parcels:
            if event.type in ("DocumentsMatched", *_CUTS):
                listed[parcel_id] = ""
            elif event.type == ("ListAccepted" if case.facts.regime == "china" else "ListReleased"):
                listed[parcel_id] = str(event)
            elif event.type in ("ParcelPacked", "ParcelHandedOver"):
                yield None if listed.get(parcel_id) else [str(event), "customs has no list of what is in the parcel"]


@order_rule(47, "wrong papers are corrected, or the buyer is paid back", live=False)
def wrong_papers_end(case: Case) -> Iterator[Verdict]:
    """Each time is counted, and not more often than may be set; the last is followed by another list, or by the parcel's end."""
    if case.facts.regime not in CHINESE:
        return
    for parcel_id, parcel in case.facts.parcels.items():
        mine = [e for e in case.story.of("shipping", "DocumentsMismatched", "ListRejected", "DocumentsMatched", "ParcelCancelled")
                if e.tells_of(parcel_id)]
        wrong = [e for e in mine if e.type in ("DocumentsMismatched", "ListRejected")]
        if wrong:
            counted = [e.data[0] for e in wrong] == list(range(1, len(wrong) + 1)) and len(wrong) <= RESENDS_MAX + 1
            yield None if counted and mine[-1] not in wrong else [*map(str, mine)]


@order_rule(47, "papers were right by their deadline", live=False)
def papers_were_kept(case: Case) -> Iterator[Verdict]:
    """From the money on, and the goods, where they are awaited. An order that was held stood still meanwhile."""
    if case.facts.regime not in CHINESE or case.story.of("orders", "OrderHeld"):
        return
    has = "ListAccepted" if case.facts.regime == "china" else "ListReleased"
    for parcel_id, parcel in case.facts.parcels.items():
        ended = min((parcel.first[end] for end in (has, "ParcelCancelled") if end in parcel.first), default=None)
        if "PaymentHeld" in parcel.first and ended is not None:
            began = max(parcel.first["PaymentHeld"], parcel.first.get("BackorderFilled", parcel.first["PaymentHeld"]))
            if "ParcelBackordered" in parcel.first and "BackorderFilled" not in parcel.first:
                continue  # nothing is declared that is not there
            late = ended - began - timedelta(seconds=deadlines()["papers"]) - case.grace
            yield None if late <= timedelta() else [f"parcel {parcel_id}: held at {began}, listed or ended {ended}"]


@order_rule(47, "a list that customs has is revoked or returned with its goods")
def lists_are_withdrawn(case: Case) -> Iterator[Verdict]:
    """A cancelled parcel revokes the list that was declared last, unless customs had rejected it; goods that are back in time
    return theirs. What customs answers is about that list."""
    if case.facts.regime not in CHINESE:
        return
    listed: dict[str, str] = {}
    for event in case.story.events["shipping"]:
        for parcel_id, _ in event.parcels:
            if event.type == "DocumentsMatched" and event.data is not None:
                listed[parcel_id] = event.data.list_no
            elif event.type == "ListRejected":
                listed[parcel_id] = ""
            elif event.type == "ListWithdrawn":
                yield None if event.data.ref and event.data.ref == listed.get(parcel_id) else [str(event), f"customs has {listed.get(parcel_id)!r}"]
            elif event.type == "ParcelCancelled" or event.type == "ReturnReceived" and not event.data.late:
                yield None if event.data.paper == listed.get(parcel_id, "") else [
                    str(event), f"withdraws {event.data.paper!r}, customs has {listed.get(parcel_id)!r}"]
