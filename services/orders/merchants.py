"""Merchants: who may sell, what, and who is stopped. Pure. The transitions are MERCHANT's in schemas/lifecycle.py.

A merchant is a subject of its own (`merchant:<id>`). What all his orders obey is his row (`runtime/standing.py`); its facts,
kept by orders alone, are the registration, the versions of his terms, the catalogue and the count of his freezes.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from schemas import merchants as out
from schemas.brands import brand_key
from schemas.dead_letters import Reason
from schemas.lifecycle import MERCHANT, Answer
from schemas.merchants import MERCHANT as KEY
from schemas.merchants import MERCHANT_ID_MAX
from schemas.orders_intake import PlaceOrder
from schemas.orders_order import CommandRefused
from schemas.terms import STANDARD
from services.orders.onboarding import checked, wrong_terms
from services.orders.terms import Agreed, Book
from services.runtime.decision import Decision, Impossible, Incoming, Standing

Refusal = tuple[str, str]  # reason, and a sentence with the remedy
# Within which a line's band must lie, in tenths of a degree: what the trade calls chilled and frozen.
BANDS = {"ambient": (0, 0), "chilled": (-20, 100), "frozen": (-800, -120)}


def decide(subject: Any, incoming: Incoming, terms: Book, now: datetime) -> Decision:
    """One command about one merchant. `subject` is the state of the key; who he is stands in his row. `terms`: the fee plans."""
    handler = HANDLERS.get(incoming.type)
    if handler is None:
        raise Impossible(Reason.KEY, f"{incoming.type} is about an order, and {subject.order_id} is a merchant's key")
    row = incoming.standing or Standing("", "new")
    answer = handler(row, incoming.data, subject.order_id.removeprefix(KEY), *((terms, now.date()) if handler in _OF_TERMS else ()))
    if isinstance(answer[0], out.MerchantFrozen):  # when, for whoever counts them by week
        answer[1]["frozen_at"] = [*row.facts.get("frozen_at", ()), incoming.time.isoformat()]
    fresh = subject.draft()
    fresh.merchant_id, fresh.closed = subject.order_id.removeprefix(KEY), True  # nothing of a merchant is woken by time
    event, facts = answer
    if isinstance(event, str):
        refused = event, facts
    else:
        found, fresh.status = MERCHANT.answer(row.status, type(event).__name__)
        if found is Answer.APPLIED:
            label = f"{fresh.status} {facts['freezes']}" if facts.get("freezes") else ""
            return Decision(fresh, [event], standing=Standing(label, fresh.status, incoming.id, facts))
        refused = f"merchant_{row.status}", f"{incoming.type} does not fit a merchant who is {row.status}; see docs/lifecycle.md"
    fresh.status = row.status
    return Decision(fresh, [CommandRefused(order_id=subject.order_id, command=incoming.type, command_id=incoming.id,
                                           reason=refused[0], detail=refused[1])])


def misplaced(order: Any, document: Any, incoming: Incoming, now: Any) -> Decision:
    raise Impossible(Reason.KEY, f"{incoming.type} needs the key {KEY}<merchant_id>, not {order.order_id!r}")


def may_sell(row: Standing | None, command: PlaceOrder, registered_only: bool) -> Refusal | None:
    """Why this merchant's order is refused at intake, or None."""
    if len(command.merchant_id) > MERCHANT_ID_MAX:
        return "merchant_id_too_long", f"a merchant's id has at most {MERCHANT_ID_MAX} characters"
    if row is None:
        if registered_only:
            return "merchant_unknown", f"{command.merchant_id} is not registered; see `tradewind merchant register`"
        return None
    if row.status != "active":
        return f"merchant_{row.status}", f"{command.merchant_id} is {row.status} and may not sell now"
    return contradicted(row.facts.get("catalogue") or {}, command)


def agreed(row: Standing | None, day: date) -> Agreed | None:
    """The terms that an order of that day is accepted by; None: the merchant never registered, and has all of his sales."""
    if row is None:
        return None
    found = None
    for version, since, plan, payout in versions(row.facts):
        if since <= day.isoformat():  # they follow one another
            found = Agreed(version, plan, payout)
    return found


def versions(facts: dict[str, Any]) -> list[list]:
    """[version, first day (ISO; "": from the beginning), fee plan, payout currency], the oldest first."""
    if (known := facts.get("terms")) is not None:
        return known
    registered = facts.get("registration")
    return [[1, "", registered["fee_plan"], registered["payout_currency"]]] if registered else []


def contradicted(catalogue: dict[str, list], command: PlaceOrder) -> Refusal | None:
    """A line that says something else of a SKU than its merchant's catalogue does."""
    if not catalogue:
        return None
    for line in command.lines:
        item = catalogue.get(line.sku)
        if item is None:
            return "not_in_catalogue", f"line {line.line_no}: {line.sku} is not in the merchant's catalogue"
        for name, said, ours, same in _compared(line, command, *item):
            if not same:
                return "catalogue_mismatch", f"line {line.line_no}: {name} is {said}, the catalogue has {ours} for {line.sku}"
    return None


def _compared(line: Any, command: PlaceOrder, hs_code: str, origin: str, brand: str, band: str
              ) -> list[tuple[str, Any, str, bool]]:
    """(what, as the line has it, as the catalogue has it, whether they agree). What a line leaves out contradicts nothing, but
    goods that must be kept cold have to travel so."""
    quoted = next((each.origin for each in command.quote.lines if each.line_no == line.line_no), None) if command.quote else None
    cold = line.cold and f"{line.cold.low_tenths / 10:g} to {line.cold.high_tenths / 10:g} °C"
    low, high = BANDS[band]
    return [("hs_code", line.hs_code, hs_code, line.hs_code is None or line.hs_code[:6] == hs_code[:6]),
            ("origin", line.origin, origin, line.origin in (None, origin)),
            ("the quote's origin", quoted, origin, quoted in (None, origin)),
            ("brand", line.brand, brand or "none", line.brand is None or bool(brand) and brand_key(line.brand) == brand_key(brand)),
            ("temperature", cold or "not kept", f"{band} goods", line.cold is None if band == "ambient" else
             line.cold is not None and low <= line.cold.low_tenths and line.cold.high_tenths <= high)]


# -- commands -----------------------------------------------------------------------------------------------------------


def _register(row: Standing, command: out.RegisterMerchant, merchant: str, terms: Book, today: date):
    found = checked(command, terms)
    if isinstance(found, tuple):
        return found
    registration = out.Registration(**command.model_dump(exclude={"order_id"}))
    event = out.MerchantRegistered(order_id=command.order_id, merchant_id=merchant, registration=registration, checks=found)
    return event, row.facts | {"registration": registration.model_dump()}


def _approve(row: Standing, command: out.ApproveMerchant, merchant: str):
    registered = row.facts.get("registration") or {}
    return out.MerchantApproved(order_id=command.order_id, merchant_id=merchant, decided_by=command.decided_by,
                                fee_plan=registered.get("fee_plan", STANDARD),
                                payout_currency=registered.get("payout_currency", "USD")), row.facts


def _change_terms(row: Standing, command: out.ChangeTerms, merchant: str, terms: Book, today: date):
    if (wrong := wrong_terms(command, terms)) is not None:
        return wrong
    if not (known := versions(row.facts)):
        return "merchant_unknown", f"{merchant} never registered, and has no terms to change; see `tradewind merchant register`"
    number, since, plan, payout = known[-1]
    if command.valid_from < today or command.valid_from.isoformat() < since:
        return "terms_too_early", (f"{command.valid_from} has passed: orders of that day were accepted; today is {today}"
                                   if command.valid_from < today else f"version {number} begins on {since}; begin no earlier")
    plan, payout = command.fee_plan or plan, command.payout_currency or payout
    event = out.TermsChanged(order_id=command.order_id, merchant_id=merchant, version=number + 1, fee_plan=plan,
                             payout_currency=payout, valid_from=command.valid_from, decided_by=command.decided_by)
    return event, row.facts | {"terms": [*known, [number + 1, command.valid_from.isoformat(), plan, payout]]}


def _refuse(row: Standing, command: out.RefuseMerchant, merchant: str):
    return out.MerchantRefused(order_id=command.order_id, merchant_id=merchant, decided_by=command.decided_by,
                               reason=command.reason), row.facts


def _catalogue(row: Standing, command: out.UpdateCatalogue, merchant: str):
    catalogue = dict(row.facts.get("catalogue") or {})
    if unknown := [sku for sku in command.withdraw if sku not in catalogue]:
        return "unknown_sku", f"{unknown[0]} is not in the catalogue, so it cannot be withdrawn"
    for sku in command.withdraw:
        del catalogue[sku]
    catalogue |= {item.sku: [item.hs_code, item.origin, item.brand, item.band] for item in command.items}
    return out.CatalogueUpdated(order_id=command.order_id, merchant_id=merchant, items=len(catalogue),
                                changed=[item.sku for item in command.items], withdrawn=list(command.withdraw),
                                ), row.facts | {"catalogue": catalogue}


def _freeze(row: Standing, command: out.FreezeMerchant, merchant: str):
    number = row.facts.get("freezes", 0) + 1
    return out.MerchantFrozen(order_id=command.order_id, merchant_id=merchant, freeze_no=number, reason=command.reason,
                              detail=command.detail, decided_by=command.decided_by
                              ), row.facts | {"freezes": number, "appealed": False}


def _appeal(row: Standing, command: out.FileAppeal, merchant: str):
    return out.AppealFiled(order_id=command.order_id, merchant_id=merchant, freeze_no=row.facts.get("freezes", 0),
                           statement=command.statement), row.facts | {"appealed": True}


def _decide_appeal(row: Standing, command: out.DecideAppeal, merchant: str):
    model = out.FreezeLifted if command.outcome == "lifted" else out.FreezeUpheld
    return model(order_id=command.order_id, merchant_id=merchant, freeze_no=row.facts.get("freezes", 0),
                 decided_by=command.decided_by, detail=command.detail), row.facts


HANDLERS = {"RegisterMerchant": _register, "ApproveMerchant": _approve, "RefuseMerchant": _refuse, "UpdateCatalogue": _catalogue,
            "ChangeTerms": _change_terms, "FreezeMerchant": _freeze, "FileAppeal": _appeal, "DecideAppeal": _decide_appeal}
_OF_TERMS = (_register, _change_terms)
