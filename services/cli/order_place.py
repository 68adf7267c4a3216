"""An order out of options or a JSON file, ready to be placed: persons are sealed here, in memory, and nowhere else."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.orders_intake import OrderLine, PlaceOrder
from schemas.parties import Person, seal
from services.runtime.processes import StartError
from services.simulators.demo_orders import CODES, SHELVES
from services.simulators.scenario import (SCENARIOS, TOKEN, backorder_of, brand_of, cold_of, forced_id, hs_code_of, merchant_of, name_of, on_shortage_of,
                                          payment_token_of, season_of, sku_of)

HS_CODE = "950300"  # toys; a papers' code that customs knows
_FILE_MAX_BYTES = 5_000_000
_SHAPE = ("An order is an object of PlaceOrder (schemas/orders_intake.py); order_id, placed_at, total and payment_token "
          "may be left out, buyer and consignee are {\"name\": …, \"phone\": …, \"address\": …} in clear.")


class WrongInput(StartError):
    """What was given is not an order, or not a command that makes sense."""


@dataclass(frozen=True)
class Wish:
    """The simple options of `order place`. Amounts are minor units and for the whole line."""

    merchant: str = "maple-toys"
    skus: list[str] = field(default_factory=list)
    currency: str = "USD"
    origin: str = "US"
    destination: str = "DE"
    freight: int = 0
    tax: int = 0
    buyer: str = "Test Buyer"
    on_shortage: str | None = None
    scenario: str | None = None
    reference: str = ""
    backorder: bool = False


def order_id_for(tail: str, scenario: str | None, given: str | None) -> str:
    """The id: as given, or made of `tail`. A scenario is chosen by the id's beginning, so it is put before it."""
    if scenario is None:
        return given or f"cli-{tail}"
    known_scenario(scenario)
    wanted = forced_id(scenario, "")
    return given if given and given.startswith(wanted) else forced_id(scenario, given or f"cli-{tail}")


def known_scenario(name: str) -> str:
    """Raises WrongInput, which lists what there is."""
    if name not in SCENARIOS:
        raise WrongInput(f"no scenario is called {name!r}", "--scenario", f"There are: {', '.join(SCENARIOS)}.")
    return name


def order_of(wish: Wish, order_id: str, key: bytes, now: datetime) -> PlaceOrder:
    """The order of simple options. Raises WrongInput naming the option. Without a SKU it is three of the merchant's first."""
    scenario = wish.scenario or "normal"
    lines = [_line(n, text, order_id, scenario if n == 1 else "normal", wish.destination)
             for n, text in enumerate(wish.skus or [_usual(wish)], 1)]
    party = seal(Person(name=name_of(scenario, wish.buyer)), key)
    total = sum(line.amount for line in lines) + wish.freight + wish.tax + (scenario == "refused")
    return _checked("options", dict(
        order_id=order_id, merchant_id=merchant_of(scenario, order_id, wish.merchant), currency=wish.currency, origin=wish.origin,
        destination=wish.destination, lines=lines, freight=wish.freight, tax=wish.tax, total=total,
        on_shortage=wish.on_shortage or on_shortage_of(scenario), backorder=wish.backorder or backorder_of(scenario), payment_token=payment_token_of(scenario), buyer=party,
        consignee=party, placed_at=now, season=season_of(scenario, now), merchant_reference=wish.reference))


def _usual(wish: Wish) -> str:
    shelf = next((shelf for (merchant, _), shelf in sorted(SHELVES.items()) if merchant == wish.merchant), None)
    if shelf is None:
        raise WrongInput(f"nothing is known of merchant {wish.merchant!r}", "--merchant",
                         f"Name its goods with --sku SKU:QTY:AMOUNT, or choose {', '.join(sorted({m for m, _ in SHELVES}))}.")
    sku, _, _, cents = shelf[0]
    return f"{sku}:3:{cents * 3}"


def _line(number: int, text: str, order_id: str, scenario: str, destination: str) -> OrderLine:
    sku, *numbers = text.rsplit(":", 2)
    if len(numbers) != 2 or not all(n.isascii() and n.isdecimal() for n in numbers):
        raise WrongInput(f"{text!r} is not SKU:QTY:AMOUNT", "--sku", "Example: --sku MAPLE-1S:2:6800, the amount in minor units.")
    quantity, amount = map(int, numbers)
    usual = HS_CODE if scenario == "documents_code_short" else CODES.get(destination, {}).get(HS_CODE, HS_CODE)
    return _checked_line(text, dict(line_no=number, sku=sku_of(scenario, order_id, sku), quantity=quantity, amount=amount,
                                    hs_code=hs_code_of(scenario, usual), cold=cold_of(scenario),
                                    brand=brand_of(scenario, order_id)))


def _checked_line(text: str, fields: dict[str, Any]) -> OrderLine:
    try:
        return OrderLine(**fields)
    except ValidationError as wrong:
        raise WrongInput(f"{text!r}: {first_of(wrong)}", "--sku", "Example: --sku MAPLE-1S:2:6800.") from wrong


def order_from(path: Path, order_id: str | None, tail: str, key: bytes, now: datetime) -> PlaceOrder:
    """The order in a JSON file; `order_id` takes the place of its own. Raises WrongInput naming file and field."""
    raw = _object(path)
    raw["order_id"] = order_id or raw.get("order_id") or order_id_for(tail, None, None)
    raw.setdefault("placed_at", now.isoformat())
    raw.setdefault("payment_token", TOKEN)
    raw.setdefault("consignee", raw.get("buyer"))
    for role in ("buyer", "consignee"):
        raw[role] = _sealed(path, role, raw.get(role), key)
    if "total" not in raw:
        raw["total"] = _total(path, raw)
    return _checked(str(path), raw, as_json=True)


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _FILE_MAX_BYTES:
            raise WrongInput(f"more than {_FILE_MAX_BYTES:,} bytes", str(path), "One order a file; see `tradewind import`.")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongInput(f"the file cannot be read: {error.strerror}", str(path), "Check the path.") from error
    except ValueError as error:  # neither UTF-8 nor JSON
        raise WrongInput(f"the file is not JSON: {error}", str(path), _SHAPE) from error
    if not isinstance(raw, dict):
        raise WrongInput("the file does not hold one JSON object", str(path), _SHAPE)
    return raw


def _sealed(path: Path, role: str, person: Any, key: bytes) -> Any:
    if isinstance(person, dict) and "sealed" in person:
        return person  # by another edge with the same vault key; orders checks it
    if person is None:
        raise WrongInput(f"{role} is missing", str(path), _SHAPE)
    try:
        return seal(Person.model_validate(person), key).model_dump()
    except ValidationError as wrong:
        raise WrongInput(f"{role}: {first_of(wrong)}", str(path), _SHAPE) from wrong


def _total(path: Path, raw: dict[str, Any]) -> int:
    lines = raw.get("lines")
    amounts = [line.get("amount") if isinstance(line, dict) else None for line in lines] if isinstance(lines, list) else [None]
    parts = [*amounts, raw.get("freight", 0), raw.get("tax", 0)]
    if not all(type(part) is int for part in parts):
        raise WrongInput("lines, freight and tax need whole amounts in minor units", str(path), _SHAPE)
    return sum(parts)


def _checked(where: str, fields: dict[str, Any], as_json: bool = False) -> PlaceOrder:
    try:
        return PlaceOrder.model_validate_json(json.dumps(fields)) if as_json else PlaceOrder(**fields)
    except ValidationError as wrong:
        raise WrongInput(first_of(wrong), where, "See `tradewind order place --help`.") from wrong


def first_of(wrong: ValidationError) -> str:
    """The first thing wrong, with its field."""
    error = wrong.errors(include_url=False)[0]
    return ": ".join(filter(None, [".".join(map(str, error["loc"])), error["msg"]]))


def same_but_for_time(order: PlaceOrder, before: dict[str, Any]) -> bool:
    """Whether this is the order that stands on the topic already: then placing it again is a repetition, not a new wish.
    `before`: its content without the sealed persons."""
    mine = json.loads(order.model_dump_json())
    for role in ("buyer", "consignee"):
        mine[role] = {"token": mine[role]["token"]}
    return all(mine[name] == before.get(name) for name in mine if name != "placed_at")
