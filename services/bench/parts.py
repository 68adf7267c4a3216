"""What a part of the trade costs an order: the same orders through the same services without it and with it, in turns.

Measured in memory (`inmemory.py`): on a running system the difference drowns in what a broker and a database take a little
more or less of each time. The two sides alternate, and a difference is the sum over all turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from itertools import islice

from schemas.cold_chain import AskedBand
from schemas.orders_intake import PlaceOrder
from services.bench.inmemory import PROCESSES, Account, Platform, System
from services.cli.duties import duties_paid
from services.orders import denied
from services.orders.landed_cost import Refusal
from services.orders.rulebook import Rules
from services.orders.terms import Book, FxRow, Plan
from services.runtime.decision import Standing
from services.runtime.settings import Settings
from services.shipping.plans import Plans
from services.simulators.demo_orders import MERCHANTS, SHELVES, demo_orders
from services.simulators.scenario import EXITS_PERMILLE, NO_PAPERS_HS_CODE, scenario_of

TURNS = ("without", "with", "with", "without", "without", "with", "with", "without")
SIDES = ("without", "with")
WARM_UP = 20
NAMES = 10_000  # on a list of denied parties of the size that a platform has
_CURRENCY, _PAYOUT = "EUR", "USD"
_ALWAYS = {"valid_from": date(2020, 1, 1), "source": "the benchmark's"}

Dress = Callable[[PlaceOrder, Rules], PlaceOrder | None]


def _same(order: PlaceOrder, rules: Rules) -> PlaceOrder:
    return order


@dataclass(frozen=True)
class Part:
    """Either `dress` gives an order the part, or says None: this order cannot have it, and takes no part. Or the platform that
    `platform` makes for True has it, and the one for False has not. `scenario`: how an order that has it goes."""

    name: str
    text: str
    dress: Dress = _same
    platform: Callable[[bool], Platform] = lambda has: Platform(_known_plans(), _lists())
    only: Callable[[PlaceOrder], bool] = lambda order: True
    scenario: str = "normal"


def _quoted(order: PlaceOrder, rules: Rules) -> PlaceOrder | None:
    paid = duties_paid(order, rules)
    return None if isinstance(paid, Refusal) else paid


def _cold(order: PlaceOrder, rules: Rules) -> PlaceOrder:
    first, *others = order.lines
    return order.model_copy(update={"lines": [first.model_copy(update={"cold": AskedBand()}), *others]})


def _without_papers(order: PlaceOrder, rules: Rules) -> PlaceOrder | None:
    if order.destination == "CN":
        return None
    first, *others = order.lines
    return order.model_copy(update={"lines": [first.model_copy(update={"hs_code": NO_PAPERS_HS_CODE}), *others]})


@lru_cache(maxsize=1)
def _known_plans() -> Plans:
    """What one side has searched, the other finds: planning is no part of their difference."""
    return Plans()


@lru_cache(maxsize=1)
def _lists() -> tuple[denied.DeniedList, ...]:
    return denied.load()


@lru_cache(maxsize=1)
def _long_lists() -> tuple[denied.DeniedList, ...]:
    newest = _lists()[0]
    names = tuple(denied.plain(f"{first}{n:04d} {last}{n * 7 % 9973:04d} Trading") for n in range(NAMES // 2)
                  for first, last in (("Gor", "Bal"), ("Ister", "Wex")))
    return (denied.DeniedList(f"{newest.id}+{NAMES}", newest.valid_from, newest.source, newest.certainty, newest.names + names),)


@lru_cache(maxsize=1)
def _prices() -> Book:
    plan = Plan(id="bench", plan="bench", fee=500, withheld=100, withheld_for="US", reserve=1000, reserve_days=90, **_ALWAYS)
    return Book((plan,), (FxRow(id="bench", base=_CURRENCY, quote=_PAYOUT, rate="1.0873", **_ALWAYS),))


def _with_terms(payout: str) -> Platform:
    """Every merchant registered for the same fee plan, to be paid in this currency."""
    agreed = Standing("", "active", facts={"registration": {"fee_plan": "bench", "payout_currency": payout}})
    return Platform(_known_plans(), _lists(), _prices(), standing=dict.fromkeys(MERCHANTS, agreed))


def _registered() -> dict[str, Standing]:
    """Every merchant with a catalogue of all he has."""
    return {merchant: Standing("", "active", facts={"catalogue": {
        sku: [hs_code, "US", "", "ambient"] for (owner, _), shelf in SHELVES.items() if owner == merchant
        for sku, _, hs_code, _ in shelf}}) for merchant in MERCHANTS}


def _in_euro(order: PlaceOrder) -> bool:
    return order.currency == _CURRENCY


PARTS = {part.name: part for part in (
    Part("landed_cost", "the quote that the buyer paid on is worked out again, compared and frozen", _quoted),
    Part("promise", "warehouses, routes and the promise are planned, its clock is kept",
         platform=lambda has: Platform(Plans() if has else None, _lists())),
    Part("screening", f"buyer and consignee are compared with {NAMES} names; most have bought before",
         platform=lambda has: Platform(_known_plans(), _long_lists() if has else ())),
    Part("quota", "of a Chinese buyer's year a part is reserved, shared out to parcels, committed",
         platform=lambda has: Platform(_known_plans(), _lists(), quota=has), only=lambda order: order.destination == "CN"),
    Part("real_name", "a Chinese buyer's order stands still until a registry has said whose the identity number is",
         platform=lambda has: Platform(_known_plans(), _lists(), real_names=has), only=lambda order: order.destination == "CN"),
    Part("terms", "fee, tax withheld and reserve of the merchant are frozen, and split off when it is settled",
         platform=lambda has: _with_terms(_CURRENCY) if has else Platform(_known_plans(), _lists()), only=_in_euro),
    Part("fx", "and he is paid in another currency than the buyer pays in",
         platform=lambda has: _with_terms(_PAYOUT if has else _CURRENCY), only=_in_euro),
    Part("merchant_standing", "only registered merchants may sell, what their catalogue has; each step looks at how they stand",
         platform=lambda has: Platform(_known_plans(), _lists(), registered_only=has, standing=_registered() if has else {})),
    Part("cold_chain", "a logger is set and tells 48 readings in 16 messages; they are folded into windows", _cold,
         scenario="cold_kept"),
    Part("documents_missing", "a customs code is missing: named, waited for, supplied; the promise's clock stands still",
         _without_papers, scenario="documents_supplied"),
)}


def pairs(part: Part, rules: Rules, seed: int, count: int, **given) -> Iterator[tuple[PlaceOrder, PlaceOrder]]:
    """`count` orders that go the normal way, without the part and with it; they differ in nothing else."""
    plain = demo_orders(seed, 100 * count, forced=False, domestic=False, fast=True, prefix=f"part-{part.name}", **given)
    return islice(_dressed(part, rules, seed, plain), count)


def _dressed(part: Part, rules: Rules, seed: int, plain: Iterator[PlaceOrder]) -> Iterator[tuple[PlaceOrder, PlaceOrder]]:
    for order in plain:
        if part.only(order) and scenario_of(order.order_id, seed, EXITS_PERMILLE, fast=True) == "normal":
            if (dressed := part.dress(order, rules)) is not None:
                yield order, dressed


def measured(part: Part, settings: Settings, rules: Rules, *, seed: int, count: int, placed_at: datetime) -> dict:
    """Carry `count` orders without the part and the same with it; what it adds."""
    made = list(pairs(part, rules, seed, count, vault_key=settings.vault_key_bytes(), placed_at=placed_at))
    orders = dict(zip(SIDES, zip(*made, strict=True), strict=True))
    for has in (False, True):  # what a process makes once is nobody's
        System(settings, rules, part.platform(has), "normal", placed_at).carry(orders["without"][:WARM_UP])
    systems = {side: System(settings, rules, part.platform(side == "with"), part.scenario if side == "with" else "normal", placed_at)
               for side in SIDES}
    turn = -(-count // (len(TURNS) // 2))
    done = dict.fromkeys(SIDES, 0)
    for side in TURNS:
        systems[side].carry(orders[side][done[side]:done[side] + turn])
        done[side] += turn
    return compared(part, {side: system.account for side, system in systems.items()}, count)


def compared(part: Part, accounts: dict[str, Account], orders: int) -> dict:
    """µs an order of each side, and what the part adds: by process, and in published records and bytes."""
    micros = {side: {name: s / orders * 1e6 for name, s in account.seconds.items()} for side, account in accounts.items()}
    without, with_ = (sum(micros[side].values()) for side in SIDES)
    more = accounts["with"], accounts["without"]
    return {"what": part.text, "orders": orders, "without_us": round(without), "with_us": round(with_),
            "adds_us": {name: round(micros["with"][name] - micros["without"][name]) for name in PROCESSES}
            | {"total": round(with_ - without)}, "ratio": round(with_ / without, 3),
            "adds_records": round((more[0].records - more[1].records) / orders, 2),
            "adds_bytes": round((more[0].bytes - more[1].bytes) / orders)}
