"""Rules of protected brands (45): whatever was accepted of one stands on a chain of authorisations, or is undone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, NamedTuple

from schemas.brands import BRAND, EVERYWHERE
from schemas.lifecycle import BRAND as MACHINE
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, steps_of, whole_rule
from services.auditor.kept import Sold
from services.auditor.story import places

UNAUTHORISED = "brand_not_authorised"
_EU = frozenset("AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK".split())


class Grant(NamedTuple):
    """An authorisation; `until`: when it was revoked, None: it was not."""

    link: Any
    since: datetime
    until: datetime | None


class Known(NamedTuple):
    """What the events say of one brand."""

    owner: str
    since: datetime
    grants: dict[str, Grant]


class Sale(NamedTuple):
    """An order with goods of brands. `named`: those that the command names; `held`, `went_on`: for the brand's sake; `left`: when
    no parcel of it was open any more; `ended`: the order."""

    order_id: str
    merchant: str
    sold: Sold
    named: frozenset[str]
    placed: datetime
    held: tuple[datetime, ...]
    went_on: tuple[datetime, ...]
    left: datetime | None
    ended: datetime | None


def brand_of(case: Case) -> Known | None:
    registered = case.story.of("orders", "BrandRegistered")
    if not registered:
        return None
    grants: dict[str, Grant] = {}
    for event in case.story.of("orders", "AuthorisationGranted", "AuthorisationRevoked"):
        if event.type == "AuthorisationGranted":
            grants[event.data.authorisation.authorisation_id] = Grant(event.data.authorisation, event.time, None)
        elif (known := grants.get(event.data.authorisation_id)) is not None:
            grants[event.data.authorisation_id] = known._replace(until=event.time)
    return Known(registered[0].data.owner, registered[0].time, grants)


def sale_of(case: Case) -> Sale | None:
    placed = case.story.of("orders", "OrderPlaced")
    named = frozenset().union(*(said.about.sold.brands for said in places(case.story) if said.about.sold))
    if not placed or not (named or placed[0].data.sold):
        return None
    held, went_on = (tuple(e.time for e in case.story.of("orders", name) if e.data == UNAUTHORISED) for name in ("OrderHeld", "OrderResumed"))
    ends = [min((p.first[e] for e in _GONE if e in p.first), default=None) for p in case.facts.parcels.values()]
    ended = case.story.of("orders", "OrderCompleted", "OrderCancelled")
    return Sale(case.order_id, case.story.merchant, placed[0].data.sold or Sold("", placed[0].time.date(), (), frozenset()), named,
                placed[0].time, held, went_on, max(ends) if ends and None not in ends else None, ended[0].time if ended else None)


_GONE = ("ParcelDelivered", "ParcelCancelled", "ParcelReturned", "ParcelLost", "ParcelDestroyed")


@order_rule(45, "a path of the brand's table", stock=True)
def path_of_brand(case: Case) -> Iterator[Verdict]:
    if case.order_id.startswith(BRAND):
        yield from steps_of(case, MACHINE, "brand")


@whole_rule(45, "goods of a protected brand were sold by an unbroken chain of authorisations", live=False)
def sold_by_right(whole: Whole) -> Iterator[WholeVerdict]:
    near = whole.near
    for sale in whole.sales:
        for brand in sale.named:
            known = whole.brands.get(brand)
            if known is not None and known.since < sale.placed - near and brand not in {told for told, _ in sale.sold.chains}:
                yield sale.order_id, [f"{brand} was protected on {known.since}; accepted on {sale.placed} without a word about it"]
        for brand, links in sale.sold.chains:
            wrong = _broken(whole.brands.get(brand), links, sale, near)
            yield (sale.order_id, [f"{brand}: {'; '.join(wrong)}"]) if wrong else None


def _broken(known: Known | None, links: tuple[str, ...], sale: Sale, near: Any) -> list[str]:
    if known is None:
        return ["nobody registered it"]
    found, party = [], known.owner
    for id_ in links:
        grant = known.grants.get(id_)
        if grant is None:
            found.append(f"there is no authorisation {id_}")
        elif not _covers(grant.link, sale.sold.destination, sale.sold.day):
            found.append(f"{id_} does not cover {sale.sold.destination} on {sale.sold.day}")
        elif grant.link.grantor != party:
            found.append(f"{id_} is of {grant.link.grantor}, and {party} was to be followed")
        elif grant.since > sale.placed + near or grant.until is not None and grant.until < sale.placed - near:
            found.append(f"{id_} held from {grant.since} to {grant.until}, not on {sale.placed}")
        party = grant.link.grantee if grant else party
    return found + ([] if party == sale.merchant else [f"it ends at {party}, the merchant is {sale.merchant}"])


def _covers(link: Any, destination: str, day: date) -> bool:
    places = {destination, EVERYWHERE} | ({"EU"} if destination in _EU else set())
    return link.valid_from <= day <= link.valid_to and not places.isdisjoint(link.territory)


def _right(known: Known, sale: Sale, at: datetime) -> bool:
    """Whether a chain covers the sale by what is in force at this moment."""
    reached, before = {known.owner}, set()
    while reached != before:
        before = reached
        reached = before | {g.link.grantee for g in known.grants.values() if g.link.grantor in before and g.since <= at and (
            g.until is None or g.until > at) and _covers(g.link, sale.sold.destination, sale.sold.day)}
    return sale.merchant in reached


@whole_rule(45, "what is open when its chain breaks is held, and goes on by another, or is undone", live=False)
def held_when_broken(whole: Whole) -> Iterator[WholeVerdict]:
    near = whole.near
    for sale in whole.sales:
        for brand, _ in sale.sold.chains:
            known = whole.brands.get(brand)
            for broke in sorted(g.until for g in known.grants.values() if g.until) if known else ():
                if broke < sale.placed or _right(known, sale, broke):
                    continue
                over = min((t for t in (sale.left, sale.ended) if t is not None), default=None)
                if over is not None and over <= broke + near or any(t <= broke for t in sale.held):
                    continue
                held = [t for t in sale.held if broke <= t <= broke + near]
                yield None if held else (sale.order_id, [f"{brand}: its chain broke at {broke}, and the order was not held: {sale.held}"])
        if sale.held:
            yield None if sale.went_on or sale.ended else (sale.order_id, [f"was held at {sale.held[0]}, and that never ended"])
