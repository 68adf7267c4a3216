"""Protected brands: who may sell their goods, and where. Pure. The transitions are BRAND's in schemas/lifecycle.py.

A brand is a subject of its own (`brand:<key>`); its row (`runtime/standing.py`) has the owner and all authorisations. An order
of its goods is accepted when an unbroken chain of them leads from the owner to the merchant, of which every link covers the
destination on the order's day. When a link is revoked the orders that have not ended are looked at again: what no other chain
covers is held, and undone after three days as far as its goods have not left; a new authorisation lets it go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from schemas import brands as out
from schemas import orders_order
from schemas.brands import BRAND as KEY
from schemas.brands import EVERYWHERE, BrandChain, brand_key
from schemas.dead_letters import Reason
from schemas.lifecycle import BRAND, ORDER, Answer, deadlines
from schemas.orders_intake import PlaceOrder
from services.orders import holds
from services.orders.rulebook import Rules, countries
from services.runtime.decision import BRANDED, PROTECTED, Decision, Impossible, Incoming, Standing, row_name

UNAUTHORISED, TIMER = holds.UNAUTHORISED, holds.BRAND_TIMER


@dataclass(slots=True)
class Brands:
    """Of an order that has goods of protected brands. `labels`: name of a brand's row -> its label when the order last looked;
    `lapsed`: nobody closed the gap in time."""

    destination: str
    day: date
    labels: dict[str, str] = field(default_factory=dict)
    lapsed: bool = False

    def draft(self) -> Brands:
        return Brands(self.destination, self.day, dict(self.labels), self.lapsed)


class Link(NamedTuple):
    """An authorisation as the row keeps it; days as ISO text, `revoked` empty or true."""

    id: str
    grantor: str
    grantee: str
    territory: list[str]
    valid_from: str
    valid_to: str
    doc_hash: str
    revoked: bool


# -- the chain ----------------------------------------------------------------------------------------------------------


def chain(facts: dict[str, Any], merchant: str, destination: str, territory: str, day: date) -> list[str] | str:
    """The ids of the links from the owner to the merchant; or, in words, the link that is missing. `territory`: the customs
    territory of the destination."""
    owner, links = facts["owner"], [Link(*row) for row in facts["links"]]
    places, today = {destination, territory, EVERYWHERE}, day.isoformat()
    usable = [link for link in links if not _fault(link, places, today)]
    down: dict[str, Link | None] = {merchant: None}  # party -> its link towards the merchant
    reached = [merchant]
    for party in reached:
        if party == owner:
            break
        for link in usable:
            if link.grantee == party and link.grantor not in down:
                down[link.grantor] = link
                reached.append(link.grantor)
    if owner not in down:
        return _missing(reached, links, places, today, destination)
    found, party = [], owner
    while (link := down[party]) is not None:
        found.append(link.id)
        party = link.grantee
    return found


def _fault(link: Link, places: set[str], today: str) -> str:
    if link.revoked:
        return "was revoked"
    if not places.intersection(link.territory):
        return f"covers {', '.join(link.territory)} alone"
    if today < link.valid_from:
        return f"begins on {link.valid_from}"
    return f"ended on {link.valid_to}" if today > link.valid_to else ""


def _missing(reached: list[str], links: list[Link], places: set[str], today: str, destination: str) -> str:
    """`reached`: who leads to the merchant, the nearest first. Of the farthest who was authorised once, why no more."""
    for party in reversed(reached):
        if broken := [link for link in links if link.grantee == party and _fault(link, places, today)]:
            told = "; ".join(f"{link.id} of {link.grantor} {_fault(link, places, today)}" for link in broken[:3])
            return f"no authorisation of {party} for {destination} on {today}: {told}"
    return f"nobody has authorised {reached[-1]} for {destination} on {today}"


# -- orders ---------------------------------------------------------------------------------------------------------------


def check(incoming: Incoming, command: PlaceOrder, rules: Rules) -> list[BrandChain] | tuple[str, str] | None:
    """The chains of an order's protected brands; None: it has none; or (reason, detail) of the first without a chain."""
    wanted: dict[str, list[int]] = {}
    catalogue = incoming.standing.facts.get("catalogue") or {} if incoming.standing else {}
    for line in command.lines:
        item = catalogue.get(line.sku)
        name = item[2] if item else line.brand
        if name and (row := row_name(brand_key(name))) in incoming.known:
            wanted.setdefault(row, []).append(line.line_no)
    found = []
    for name, lines in wanted.items():
        facts = incoming.known[name].facts
        links = chain(facts, command.merchant_id, command.destination, rules.territory(command.destination),
                      command.placed_at.date())
        if isinstance(links, str):
            return UNAUTHORISED, f"line {lines[0]}: {facts['name']} is a protected brand, and there is {links}"
        found.append(BrandChain(brand=KEY + name.removeprefix(BRANDED), lines=lines, links=links))
    return found or None


def of_order(chains: list[BrandChain], command: PlaceOrder, incoming: Incoming) -> Brands:
    names = [row_name(each.brand) for each in chains]
    return Brands(command.destination, command.placed_at.date(), {name: incoming.known[name].label for name in names})


def changed(order: Any, incoming: Incoming, rules: Rules, now: datetime) -> Decision:
    """The authorisations of one of its brands are others now."""
    fresh = order.draft()
    brands, row = fresh.brands, incoming.standing
    brands.labels[f"{BRANDED}{row.facts['key']}"] = row.label
    if fresh.closed:
        return Decision(fresh)
    gap = next((f"{facts['name']}: {links}" for facts, links in (
        (incoming.known[name].facts, chain(incoming.known[name].facts, fresh.merchant_id, brands.destination,
                                           rules.territory(brands.destination), brands.day)) for name in brands.labels)
        if isinstance(links, str)), "")
    if not gap:
        fresh.timers.pop(TIMER, None)
        return Decision(fresh, holds.resume(fresh, UNAUTHORISED, row.cause, now))
    if UNAUTHORISED in fresh.stops or brands.lapsed or (
            fresh.parcels and all(parcel.goods != "open" for parcel in fresh.parcels.values())):
        return Decision(fresh)  # what the buyer has was sold by right
    fresh.timers[TIMER] = now + timedelta(seconds=deadlines()["brand_gap"])
    return Decision(fresh, holds.hold(fresh, UNAUTHORISED, row.cause, now, f"there is {gap}"[:500]))


def overdue(order: Any, now: datetime) -> list:
    """Nobody closed the gap: what has not left is undone, what has is stopped if it can be, and the rest goes on."""
    order.brands.lapsed, ref, events = True, f"timer:{order.order_id}:{now.isoformat()}", []
    if ORDER.answer(order.status, "CancellationRequested")[0] is Answer.APPLIED:
        events.append(orders_order.CancellationRequested(order_id=order.order_id, cancellation_id=ref, reason=UNAUTHORISED, by="platform"))
    return events + holds.resume(order, UNAUTHORISED, ref, now)


# -- the brand itself -----------------------------------------------------------------------------------------------------


def decide(subject: Any, incoming: Incoming) -> Decision:
    """One command about one brand. `subject` is the state of the key; who may sell it stands in its row."""
    handler = HANDLERS.get(incoming.type)
    if handler is None:
        raise Impossible(Reason.KEY, f"{incoming.type} is about an order, and {subject.order_id} is a brand's key")
    row = incoming.standing or Standing("", "new")
    fresh = subject.draft()
    fresh.status, fresh.closed = row.status, True  # nothing of a brand is woken by time
    answer = handler(row, incoming.data)
    if not isinstance(answer[0], str):
        event, facts = answer
        found, fresh.status = BRAND.answer(row.status, type(event).__name__)
        if found is Answer.APPLIED:
            facts = {"key": event.order_id.removeprefix(KEY), **facts, "changes": row.facts.get("changes", 0) + 1}
            return Decision(fresh, [event], standing=Standing(str(facts["changes"]), PROTECTED, incoming.id, facts))
        fresh.status, answer = row.status, ("brand_" + row.status, f"{incoming.type} does not fit a brand that is {row.status}")
    return Decision(fresh, [orders_order.CommandRefused(order_id=subject.order_id, command=incoming.type, command_id=incoming.id,
                                                        reason=answer[0], detail=answer[1])])


def misplaced(order: Any, document: Any, incoming: Incoming, now: Any) -> Decision:
    raise Impossible(Reason.KEY, f"{incoming.type} needs the key of its brand, {KEY}<key>, not {order.order_id!r}")


def _register(row: Standing, command: out.RegisterBrand):
    if command.order_id != (key := brand_key(command.name)):
        return "brand_key", f"the key of {command.name!r} is {key}, not {command.order_id}"
    return out.BrandRegistered(**command.model_dump()), {"name": command.name, "owner": command.owner, "links": []}


def _grant(row: Standing, command: out.GrantAuthorisation):
    links = row.facts.get("links", [])
    if any(link[0] == command.authorisation_id for link in links):
        return "authorisation_exists", f"{command.authorisation_id} is an authorisation of this brand already; choose another id"
    if command.valid_to < command.valid_from:
        return "authorisation_dates", f"it would end on {command.valid_to}, before it begins on {command.valid_from}"
    if command.grantor == command.grantee:
        return "authorisation_parties", f"{command.grantor} cannot authorise itself"
    if unknown := [place for place in command.territory if place not in countries() and place not in (EVERYWHERE, "EU")]:
        return "unknown_country", f"{unknown[0]} is neither an ISO 3166 country nor EU"
    link = Link(command.authorisation_id, command.grantor, command.grantee, command.territory, command.valid_from.isoformat(),
                command.valid_to.isoformat(), command.doc_hash, revoked=False)
    event = out.AuthorisationGranted(order_id=command.order_id, decided_by=command.decided_by, authorisation=out.BrandAuthorisation(
        brand=row.facts.get("name", ""), **command.model_dump(exclude={"order_id", "decided_by"})))
    return event, row.facts | {"links": [*links, list(link)]}


def _revoke(row: Standing, command: out.RevokeAuthorisation):
    links = row.facts.get("links", [])
    known = next((link for link in links if link[0] == command.authorisation_id), None)
    if known is None:
        return "unknown_authorisation", f"this brand has no authorisation {command.authorisation_id}"
    if known[-1]:
        return "revoked_before", f"{command.authorisation_id} was revoked before"
    rest = [link if link is not known else [*link[:-1], True] for link in links]
    return out.AuthorisationRevoked(**command.model_dump()), row.facts | {"links": rest}


HANDLERS = {"RegisterBrand": _register, "GrantAuthorisation": _grant, "RevokeAuthorisation": _revoke}
