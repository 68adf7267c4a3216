"""What a part of the trade costs an order: the same orders without it and with it, in turns, on the same running system.

A machine is never as quiet twice, so the two sides alternate, and a difference is the sum over all turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from schemas.orders_intake import PlaceOrder
from services.bench.orders import Reader, write
from services.cli.duties import duties_paid
from services.orders.landed_cost import Refusal
from services.orders.rulebook import Rules
from services.simulators.demo_orders import demo_orders
from services.simulators.scenario import EXITS_PERMILLE, scenario_of

TURNS = ("without", "with", "with", "without", "without", "with", "with", "without")
SIDES = ("without", "with")


@dataclass(frozen=True)
class Part:
    """`dress` gives an order the part, or says None: this order cannot have it, and takes no part."""

    name: str
    text: str
    dress: Callable[[PlaceOrder, Rules], PlaceOrder | None]


def _quoted(order: PlaceOrder, rules: Rules) -> PlaceOrder | None:
    paid = duties_paid(order, rules)
    return None if isinstance(paid, Refusal) else paid


PARTS = {part.name: part for part in (
    Part("landed_cost", "the quote that the buyer paid on is worked out again, compared and frozen", _quoted),
)}


def pairs(part: Part, rules: Rules, seed: int, count: int, **given) -> Iterator[tuple[PlaceOrder, PlaceOrder]]:
    """`count` orders that go the normal way, without the part and with it; they differ in nothing else but their ids."""
    plain = demo_orders(seed, 100 * count, forced=False, domestic=False, fast=True, prefix=f"part-{part.name}", **given)
    return islice(_dressed(part, rules, seed, plain), count)


def _dressed(part: Part, rules: Rules, seed: int, plain: Iterator[PlaceOrder]) -> Iterator[tuple[PlaceOrder, PlaceOrder]]:
    for order in plain:
        twin_id = f"{order.order_id}-with"
        if {scenario_of(name, seed, EXITS_PERMILLE, fast=True) for name in (order.order_id, twin_id)} == {"normal"}:
            if (dressed := part.dress(order, rules)) is not None:
                yield order, dressed.model_copy(update={"order_id": twin_id})


@dataclass(frozen=True)
class Prepared:
    """The two sides of a part, encoded. `turn`: orders in each turn."""

    part: Part
    readers: dict[str, Reader]
    turn: int


def prepare(folder: Path, rules: Rules, *, seed: int, turn: int, partitions: int, **given
            ) -> tuple[list[Prepared], Iterator[PlaceOrder]]:
    """Write the orders of all parts; and all of them once more, for whoever delivers their stock."""
    prepared, everything = [], []
    for part in PARTS.values():
        sides = dict(zip(SIDES, zip(*pairs(part, rules, seed, turn * len(TURNS) // 2, **given), strict=True), strict=True))
        for side, orders in sides.items():
            write(folder / f"part-{part.name}-{side}.msgpack", orders, partitions)
            everything += orders
        prepared.append(Prepared(part, {side: Reader(folder / f"part-{part.name}-{side}.msgpack") for side in SIDES}, turn))
    return prepared, iter(everything)


def compared(part: Part, sums: dict[str, dict[str, float]], orders: int) -> dict:
    """`sums`: side → process → processor seconds over `orders` orders. µs an order of each side, and what the part adds."""
    micros = {side: {name: s / orders * 1e6 for name, s in used.items()} for side, used in sums.items()}
    without, with_ = (sum(micros[side].values()) for side in SIDES)
    return {"what": part.text, "orders": orders, "without_us": round(without), "with_us": round(with_),
            "adds_us": {name: round(micros["with"][name] - micros["without"][name]) for name in micros["with"]}
            | {"total": round(with_ - without)}, "ratio": round(with_ / without, 3)}
