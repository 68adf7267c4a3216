"""A warehouse whose goods do not go into one box, or are not ready together, puts some units into a parcel of their own.

Split is what it was asked to pack and has not packed: by then the money is held, so that none moves, and stock is
reserved for the units, whichever parcel they are in. The second parcel has a part of amount, freight and tax by what its
goods are worth; what a division leaves over stays with the first, so that the two together are what the parcel was. It is
promised as the first is. Whatever cannot be split is answered with an event that says why, never silence. Pure."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

from schemas import shipping_shipment as out
from schemas.lifecycle import NEW, PARCEL, Answer
from schemas.shipping_shipment import Leg, Route
from services.runtime.decision import Incoming, NotYet, Stale
from services.shipping import promise
from services.shipping.allocation import Content, Line
from services.shipping.packing import request
from services.shipping.reports import no_parcel
from services.shipping.reservation import lines_of
from services.shipping.shipment import CHINESE, Parcel, Work

PARTS_MAX = 20  # of one allocated parcel


def reported(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    report, s = incoming.data, work.shipment
    parcel_id = report.parcel_id
    parcel = s.parcels.get(parcel_id)
    if parcel is None:
        return no_parcel(s, parcel_id)
    answer, _ = PARCEL[s.regime].answer(parcel.status, "SplitRefused")
    if answer is Answer.NOT_YET:
        return NotYet("FulfilmentRequested")
    if answer is Answer.STALE:
        return Stale(f"SplitReported for a parcel that is {parcel.status}")
    wanted: dict[int, int] = {}
    for line in report.lines:
        wanted[line.line_no] = wanted.get(line.line_no, 0) + line.quantity
    why = _refusal(work, parcel_id, wanted)
    if why is None:
        rest, part = divided(work, parcel_id, wanted)
        if not part.amount or not _worth(rest, parcel.cut):
            why = "worthless", "one of the two would cost nothing"
    if why is not None:
        work.step(parcel, "SplitRefused")
        work.emit(out.SplitRefused, parcel_id=parcel_id, reason=why[0], detail=why[1])
        return None
    _split(work, parcel_id, rest, part)
    return None


def _refusal(work: Work, parcel_id: str, wanted: dict[int, int]) -> tuple[str, str] | None:
    s, parcel = work.shipment, work.shipment.parcels[parcel_id]
    left = {line.line_no: units for line, units in work.left(parcel_id)}
    short = [line_no for line_no, units in wanted.items() if units > left.get(line_no, 0)]
    if s.regime in CHINESE:
        return "one_list", "into China a parcel has one captured payment, one payment document and one list"
    if s.stops:
        return "stopped", f"the order stands still: {', '.join(s.stops)}"
    if parcel.aside is not None and parcel.aside.asked:
        return "asked", f"answer first: {', '.join(parcel.aside.asked)}"
    if parcel.aside is not None and parcel.aside.sscc:
        return "replaced", "it is sent once more, for a box that was spoiled"
    if short:
        return "too_many", f"line {short[0]}: {wanted[short[0]]} units, and {left.get(short[0], 0)} are in it"
    if sum(wanted.values()) == sum(left.values()):
        return "nothing_left", "these are all units that are in it"
    if len(_parts(s.parcels, parcel_id)) >= PARTS_MAX:
        return "too_often", f"it is in {PARTS_MAX} parcels by now"
    return None


def divided(work: Work, parcel_id: str, wanted: dict[int, int]) -> tuple[Content, Content]:
    """What stays in a parcel, with the units that have left it, and what goes: together its price line by line, and what the
    buyer owes for it, exactly."""
    content = work.content(parcel_id)
    stay: list[Line] = []
    go: list[Line] = []
    goods = 0
    for line, left in work.left(parcel_id):
        units, owed = wanted.get(line.line_no, 0), line.amount * left // line.quantity
        goods += owed
        amount = _price(line, left, units, owed) if units else 0
        if units:
            go.append(replace(line, quantity=units, amount=amount))
        if units < line.quantity:
            stay.append(replace(line, quantity=line.quantity - units, amount=line.amount - amount))
    worth = sum(line.amount for line in go)
    freight = content.freight * worth // goods if goods else 0
    planned = content.amount - content.freight
    tax = content.tax * worth // planned if planned else 0
    part = Content(content.warehouse, go, freight, worth + freight, tax=tax)
    return replace(content, lines=stay, freight=content.freight - freight, amount=content.amount - part.amount,
                   tax=content.tax - tax), part


def _price(line: Line, left: int, units: int, owed: int) -> int:
    """Of a line's price that of `units`, so that with what the buyer still owes for the others it is `owed`. Where units
    have left the line before, theirs was rounded: then not every part of the price will do."""
    rest = line.quantity - units
    if not rest:
        return line.amount
    return next(price for price in range(line.amount * units // line.quantity, line.amount + 1)
                if price + (line.amount - price) * (left - units) // rest == owed)


def _worth(content: Content, cut: dict[int, int]) -> int:
    """What the buyer owes for it."""
    return content.freight + sum(line.amount * (line.quantity - cut.get(line.line_no, 0)) // line.quantity
                                 for line in content.lines)


def _split(work: Work, parcel_id: str, rest: Content, part: Content) -> None:
    s, parcel = work.shipment, work.shipment.parcels[parcel_id]
    sscc, waybill_no = work.numbers(work.document.origin)
    part = replace(part, warehouse=parcel.warehouse, sscc=sscc, waybill_no=waybill_no, route=_route(work, parcel_id))
    new_id = _next_id(s.parcels, parcel_id)
    s.parcels[new_id] = fresh = Parcel(parcel.warehouse, NEW)
    fresh.beside().content = part
    if parcel.aside is not None:  # who wants to look at the goods wants to see all of them
        fresh.beside().wanted = list(parcel.aside.wanted)
    parcel.beside().content = rest
    for each in (parcel, fresh):
        work.step(each, "ParcelSplit")
    work.emit(out.ParcelSplit, parcel_id=parcel_id, lines=lines_of(rest), freight=rest.freight, amount=rest.amount,
              tax=rest.tax, part=out.ParcelPlan.model_construct(
                  parcel_id=new_id, warehouse=part.warehouse, lines=lines_of(part), freight=part.freight, amount=part.amount,
                  sscc=sscc, waybill_no=waybill_no, tax=part.tax, route=part.route))
    promise.share(work, new_id)
    work.step(fresh, "FulfilmentRequested")
    request(work, new_id)


def _route(work: Work, parcel_id: str) -> Route | None:
    """The way of the parcel as it is planned and promised now, for one that has no pauses behind it."""
    route, due = promise.route_of(work, parcel_id), promise.promised(work, parcel_id)
    if route is None:
        return None
    slip = timedelta(seconds=promise.slip_s(work, parcel_id))
    legs = [Leg.model_construct(lane=leg.lane, departs=leg.departs + slip, arrives=leg.arrives + slip) for leg in route.legs]
    return Route.model_construct(service=route.service, legs=legs, promised_at=due, in_time=route.in_time,
                                 border=route.border, cost=route.cost)


def _first(parcel_id: str) -> str:
    """The allocated parcel that one was split off."""
    return re.sub(r"(-P\d+)\.\d+$", r"\1", parcel_id)


def _parts(parcels: dict[str, Parcel], parcel_id: str) -> list[str]:
    """All parcels that are one allocated parcel's, itself among them."""
    return [each for each in parcels if _first(each) == _first(parcel_id)]


def _next_id(parcels: dict[str, Parcel], parcel_id: str) -> str:
    """<order>-P1.2, .3 …, whichever of them is split."""
    return f"{_first(parcel_id)}.{len(_parts(parcels, parcel_id)) + 1}"
