"""What a person brings into China: never above the year's limit, and given back when the goods do not stay."""

from __future__ import annotations

import base64
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given as each
from hypothesis import settings
from hypothesis import strategies as st

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.model import LineQuantity
from schemas.numbers import resident_check
from schemas.parties import Person, seal
from schemas.topics import INTAKE
from services.explorer.simulation import KEY, World, order
from services.orders import app as orders
from services.orders.quota import key_of
from services.runtime.migrate import migrate
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from tests.tally import Place, Raw, running, send, until
from tests.test_lifecycle import Outside, given, ids

YEARLY = 2_600_000
NUMBER = "1101051949123100" + "2" + resident_check("11010519491231002")


def person(name: str = "Mei Lin", number: str = NUMBER) -> dict:
    sealed = seal(Person(name=name, identity_no=number), KEY)
    return {"buyer": sealed, "consignee": sealed}


def bought(order_id: str, goods: int, units: int = 1, freight: int = 0, **more):
    fields = {"destination": "CN", "lines": (("CHERRY", units, goods),), "freight": freight} | person() | more
    return order(order_id, **fields)


def quota(world: World) -> dict[str, int]:
    (change,) = world.quota.changes.values()
    return {name: change.get(name, 0) for name in ("reserved", "released", "committed", "restored")}


def refusal(world: World, order_id: str = "A1") -> str:
    return world.state("orders", order_id).reason


# -- the limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placed, reason", [
    (bought("A1", 490_000, freight=10_000), ""),
    (bought("A1", 490_001, units=2, freight=10_000), "over_parcel_limit"),
    (bought("A1", 490_001, freight=10_000), ""),               # one single item may be worth more, at full tax
    (bought("A1", YEARLY), ""), (bought("A1", YEARLY + 1), "quota_exceeded"),
    (bought("A1", 100, currency="USD"), "customs_currency"),
    (bought("A1", 100, placed_at=datetime(2018, 6, 1, tzinfo=UTC)), "no_rule_for_date"),
])
def test_a_limit_refuses_before_any_money_moves(placed, reason):
    world, _ = given(placed)
    assert refusal(world) == reason
    assert reason == "" or "PaymentHeld" not in world.types()
    if world.quota.changes and reason:
        assert quota(world)["released"] == quota(world)["reserved"]


def test_of_two_parcels_the_one_above_the_limit_is_left_out():
    lines = (("CHERRY", 2, 600_000), ("TOY", 1, 1999))
    world, _ = given(bought("A1", 0, lines=lines), stock={"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}})
    assert world.state("orders").status == "completed" and len(world.state("orders").parcels) == 1
    assert quota(world) == {"reserved": 601_999, "released": 600_000, "committed": 1_999, "restored": 0}


def test_the_year_is_that_of_shanghai_and_the_person_that_of_the_number():
    late = datetime(2026, 12, 31, 16, 30, tzinfo=UTC)  # half past midnight there
    assert key_of(bought("A1", 1, placed_at=late)).endswith(":2027")
    moved = person(name="Mei Lin, of another address")
    assert key_of(bought("A1", 1)) == key_of(bought("A2", 1, **moved))
    assert key_of(bought("A1", 1)) != key_of(bought("A2", 1, **person(number="")))
    assert NUMBER not in key_of(bought("A1", 1))


def test_a_hash_of_another_number_is_refused():
    other = person()["buyer"].model_copy(update={"identity": "0" * 32})
    assert refusal(given(bought("A1", 100, buyer=other))[0]) == "party_unreadable"


# -- with the goods -----------------------------------------------------------------------------------------------------


def _return(event, world):
    world.send(ask.RequestReturn(order_id=event.order_id))


def _return_one(event, world):
    world.send(ask.RequestReturn(order_id=event.order_id, lines=[LineQuantity(line_no=1, quantity=1)]))


def _customs(takes: bool):
    def act(event, world):
        world.send(report.ListWithdrawalReported(**ids(event), list_no=event.returns_list, form="CEB626", accepted=takes,
                                                 return_id=event.return_id), "/customs")
    return act


def _short(event, world):
    world.send(report.ShortPickReported(**ids(event), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
    world.send(report.PackedReported(**ids(event)), "/warehouse")


WAYS = {
    "kept": (None, None, (1_000, 0, 1_000, 0)),
    "short": (ship.FulfilmentRequested, _short, (1_000, 0, 1_000, 333)),
    "rejected": (ship.FulfilmentRequested, lambda e, w: w.send(report.PackingRejected(**ids(e), reason="no"), "/warehouse"),
                 (1_000, 0, 1_000, 1_000)),
    "refused": (ship.CustomsPresented, lambda e, w: w.send(report.CustomsRefusalReported(**ids(e), reason="no"), "/customs"),
                (1_000, 0, 1_000, 1_000)),
    "above the limit, by customs' receipt": (ship.CustomsPresented, lambda e, w: w.send(report.CarrierScanReported(
        **ids(e), dialect="ceb622", code="-621018", at=w.now, reason="annual"), "/customs"), (1_000, 0, 1_000, 1_000)),
    "returned, and customs has not answered": (ship.ParcelDelivered, _return, (1_000, 0, 1_000, 0)),
    "returned": (ship.ParcelDelivered, _return, (1_000, 0, 1_000, 1_000), True),
    "returned in part": (ship.ParcelDelivered, _return_one, (1_000, 0, 1_000, 333), True),
    "returned, and customs does not take it back": (ship.ParcelDelivered, _return, (1_000, 0, 1_000, 0), False),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_stay_is_given_back(way):
    event, act, expected, *takes = WAYS[way]
    outside = Outside()
    if takes:
        outside.on[ship.ReturnReceived] = _customs(*takes)
    if event:
        outside.on[event] = act
    world, _ = given(bought("A1", 998, units=3, freight=2), outside=outside)
    world.wait(days=40)
    assert tuple(quota(world).values()) == tuple(expected)


def test_declined_money_gives_the_reservation_back():
    outside = Outside()
    outside.fails = {"authorise"}
    world, _ = given(bought("A1", 1_000), outside=outside)
    assert quota(world) == {"reserved": 1_000, "released": 1_000, "committed": 0, "restored": 0}


# -- in any order ---------------------------------------------------------------------------------------------------------


class Fickle(Outside):
    """Does something else with each parcel, by a generator of its own."""

    def __init__(self, seed: int):
        super().__init__()
        self.dice = random.Random(seed)
        for event, (what, share) in {ship.FulfilmentRequested: ("short rejected", 0.3), ship.CustomsPresented: ("refused", 0.3),
                                     ship.ParcelDelivered: ("returned returned_in_part", 0.5)}.items():
            self.on[event] = self._either(self.on[event], [WAYS[w.replace("_", " ")][1] for w in what.split()], share)

    def _either(self, usual, others, share):
        return lambda e, w: (self.dice.choice(others) if self.dice.random() < share else usual)(e, w)

    def provider(self, order_id, intent, world):
        self.fails = {"authorise"} if self.dice.random() < 0.2 else set()
        super().provider(order_id, intent, world)


@each(st.lists(st.integers(1, 900_000), min_size=2, max_size=8), st.integers(0, 10**6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_one_persons_orders_never_pass_the_limit_whatever_becomes_of_them(goods, seed, doubles):
    world, seen = World(Fickle(seed), seed), []
    apply = world.quota.apply

    def watched(move):
        apply(move)
        seen.append(world.quota.used(move.key))
    world.quota.apply = watched
    world.send(report.InboundReceived(order_id="stock:SEA1:CHERRY", warehouse="SEA1", sku="CHERRY", quantity=99), "/warehouse")
    for n, amount in enumerate(goods):
        world.send(bought(f"A{n}", amount, units=3 if amount < 480_000 else 1, freight=amount % 7))
    world.run(doubles=doubles)
    world.wait(days=60)
    assert world.dead == [] and all(0 <= used <= YEARLY for used in seen)
    moved = quota(world)
    assert moved["reserved"] == moved["released"] + moved["committed"], "nothing stays reserved for nobody"
    kept = sum(share.worth(entry.document) for entry in world.parties["orders"].entries.values() if entry.state.quota
               for share in entry.state.quota.shares.values())
    assert moved["committed"] - moved["restored"] == kept
    for order_id, entry in world.parties["orders"].entries.items():
        goods_of = {p.goods for p in entry.state.parcels.values()}
        if entry.state.quota and goods_of <= {"cancelled", "returned"}:
            assert not any(share.worth(entry.document) for share in entry.state.quota.shares.values()), order_id


# -- on the real database ---------------------------------------------------------------------------------------------------


def _record(message) -> Raw:
    envelope = Envelope(f"place:{message.order_id}", "PlaceOrder", "/storefront", message.placed_at, message.order_id)
    return Raw(INTAKE.name, message.order_id.encode(), message.model_dump_json().encode(),
               tuple(headers_of(envelope, dataschema_of(INTAKE.name, "PlaceOrder"))))


async def test_two_persons_orders_meet_on_every_partition_and_none_is_above_the_limit(kafka, postgres, tmp_path, caplog):
    """400 orders of two persons who are new to the database, of CNY 100 to 499 each: there is room for some, exactly to the limit."""
    partitions = 6
    config = Settings(data_folder=tmp_path, vault_key=base64.b64encode(KEY).decode())
    await ensure_topics(kafka, partitions)
    dsn = await postgres("quota_orders")
    await migrate(dsn, "orders", partitions)
    place = Place(orders.spec(config), dsn, kafka, partitions)
    who = [person(), person("Li Na", "11010519491231011" + resident_check("11010519491231011"))]
    wanted = {f"quota-{n}": 10_000 + 100 * n for n in range(400)}
    async with running(place.spec, dsn, kafka, partitions):
        await send(kafka, [_record(bought(order_id, goods, **who[n % 2])) for n, (order_id, goods) in enumerate(wanted.items())])
        await until(lambda: place.query("SELECT 1 FROM orders WHERE order_id LIKE 'quota-%' AND status <> 'new' HAVING count(*) = 400"))
    assert "starts over" not in caplog.text, "no deadlock ended an owner"
    rows = await place.query("SELECT key, reserved, released, committed, restored, allowed FROM quota ORDER BY key")
    accepted, refused = Counter(), {}
    for row in await place.query("SELECT order_id, state->'quota'->>'key' AS key, state->>'reason' AS reason FROM orders"
                                 " WHERE order_id LIKE 'quota-%'"):
        goods = wanted[row["order_id"]]
        key = key_of(bought(row["order_id"], goods, **who[int(row["order_id"][6:]) % 2]))
        assert row["reason"] == ("" if row["key"] else "quota_exceeded")
        if row["key"]:
            accepted[key] += goods
        else:
            refused[key] = min(goods, refused.get(key, goods))
    assert {row["key"]: row["reserved"] for row in rows} == accepted and len(rows) == 2
    for row in rows:
        assert row["reserved"] <= row["allowed"] == YEARLY
        assert row["reserved"] + refused[row["key"]] > YEARLY, "an order was refused that there was room for"
