"""Protected brands: whom an unbroken chain of authorisations covers may sell, and what happens when a link is revoked."""

from __future__ import annotations

import json
from datetime import date

import pytest

from schemas import brands as b
from schemas import merchants as m
from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.cold_chain import AskedBand
from services.explorer.simulation import World, order
from services.orders.brands import chain
from tests.history import network_plans
from tests.test_freeze import Until
from tests.test_lifecycle import ends, given, ids

KEY = b.brand_key("Bärenherz & Söhne")
BY = {"order_id": KEY, "decided_by": "officer"}
HASH = "ab" * 32


def grant(id: str, grantor: str, grantee: str, territory=("*",), begins=date(2026, 1, 1), until=date(2027, 12, 31)):
    return b.GrantAuthorisation(authorisation_id=id, grantor=grantor, grantee=grantee, territory=list(territory),
                                valid_from=begins, valid_to=until, doc_hash=HASH, **BY)


REGISTERED = (b.RegisterBrand(name="Bärenherz & Söhne", owner="baerenherz", **BY),
              grant("A1", "baerenherz", "distributor"), grant("A2", "distributor", "m1", ("EU", "CN")))


def placed(order_id: str = "A1", destination: str = "DE", brand: str | None = "BÄRENHERZ & SÖHNE"):
    found = order(order_id, destination)
    return found.model_copy(update={"lines": [found.lines[0].model_copy(update={"brand": brand})]})


def world_of(*commands) -> World:
    world = World(lambda *_: None)
    for command in commands:
        world.send(command, "/platform")
    world.run()
    return world


def register(world: World) -> None:
    for command in REGISTERED:
        world.send(command, "/platform")
    world.run()


def sold(stop: str = "ParcelPacked"):
    """(world, outside) of an accepted order that stands at `stop`."""
    return given(placed(), outside=Until(stop), before=register)


@pytest.mark.parametrize("links, destination, missing", [
    ([], "DE", "nobody has authorised m1 for DE on 2026-11-23"),
    ([("L", "d", "m1", "*", "2026-01-01", "2026-12-31")], "DE", "nobody has authorised d for DE on 2026-11-23"),
    ([("L", "o", "m1", "*", "2026-01-01", "2026-11-22")], "DE", "no authorisation of m1 for DE on 2026-11-23: L of o ended on 2026-11-22"),
    ([("L", "o", "m1", "*", "2026-11-24", "2026-12-31")], "DE", "no authorisation of m1 for DE on 2026-11-23: L of o begins on 2026-11-24"),
    ([("L", "o", "m1", "EU", "2026-01-01", "2026-12-31")], "GB", "no authorisation of m1 for GB on 2026-11-23: L of o covers EU alone"),
    ([("U", "o", "d", "US", "2026-01-01", "2026-12-31"), ("D", "d", "m1", "*", "2026-01-01", "2026-12-31")], "DE",
     "no authorisation of d for DE on 2026-11-23: U of o covers US alone"),
    ([("X", "a", "m1", "*", "2026-01-01", "2026-12-31"), ("Y", "m1", "a", "*", "2026-01-01", "2026-12-31")], "DE",
     "nobody has authorised a for DE on 2026-11-23"),
    ([("L", "o", "m1", "EU", "2026-11-23", "2026-11-23")], "DE", ["L"]),
    ([("D", "d", "m1", "DE", "2026-01-01", "2026-12-31"), ("U", "o", "d", "*", "2026-01-01", "2026-12-31"),
      ("Z", "z", "m1", "*", "2026-01-01", "2026-12-31")], "DE", ["U", "D"]),
])
def test_a_chain_has_no_gap_or_its_missing_link_is_named(links, destination, missing):
    rows = [[id, grantor, grantee, [place], begins, until, HASH, False] for id, grantor, grantee, place, begins, until in links]
    territory = {"DE": "EU"}.get(destination, destination)
    assert chain({"owner": "o", "links": rows}, "m1", destination, territory, date(2026, 11, 23)) == missing


def test_one_brand_has_one_key_however_it_is_written():
    assert b.brand_key("ACME  Toys®") == b.brand_key("acme-toys") == "brand:acme-toys"
    assert b.brand_key("华为") != b.brand_key("小米") and len(b.brand_key("x" * 80)) <= 60
    assert KEY == b.brand_key("BARENHERZ, SOHNE") == "brand:barenherz-sohne"


def test_of_a_protected_brand_only_what_a_chain_covers_is_accepted():
    world = world_of(*REGISTERED)
    for n, one in enumerate((placed("A1"), placed("A2", "GB"), placed("A3", brand=None), placed("A4", brand="Nobody's"))):
        world.send(one)
    world.run()
    states = {n: world.state("orders", f"A{n}") for n in (1, 2, 3, 4)}
    assert [states[n].reason for n in (1, 2, 3, 4)] == ["no_stock", "brand_not_authorised", "no_stock", "no_stock"]
    refused = next(e for e in world.events if e.type == "OrderRejected")
    assert "A2 of distributor covers EU, CN alone".encode() in refused.value and "for GB on 2026-11-23".encode() in refused.value
    accepted = next(e for e in world.events if e.type == "OrderPlaced" and e.key == b"A1")
    assert f'"brands":[{{"brand":"{KEY}","lines":[1],"links":["A1","A2"]}}]'.encode() in accepted.value


def test_a_catalogues_brand_counts_where_the_order_names_none_and_is_not_contradicted():
    item = m.CatalogueItem(sku="CHERRY", hs_code="080929", origin="US", brand="Bärenherz & Söhne", band="chilled")
    who = {"order_id": "merchant:m1", "decided_by": "officer"}
    world = world_of(REGISTERED[0], m.RegisterMerchant(order_id="merchant:m1", legal_name="M", country="US", registration_no="1",
                                                       payout_currency="USD", payout_token="a"), m.ApproveMerchant(**who),
                     m.UpdateCatalogue(order_id="merchant:m1", items=[item]))
    told = {"cold": AskedBand(), "brand": "barenherz sohne", "origin": "US", "hs_code": "08092900"}
    wrong = [{"cold": None}, {"cold": AskedBand(low_tenths=-200, high_tenths=80)}, {"brand": "ACME"}, {"origin": "CL"}, {"hs_code": "950300"},
             {}, {"brand": None, "origin": None, "hs_code": None}]
    for n, change in enumerate(wrong):
        one = order(f"A{n}")
        world.send(one.model_copy(update={"lines": [one.lines[0].model_copy(update=told | change)]}))
    world.run()
    assert [world.state("orders", f"A{n}").reason for n in range(7)] == ["catalogue_mismatch"] * 5 + ["brand_not_authorised"] * 2
    details = [e.value for e in world.events if e.type == "OrderRejected"]
    for n, word in enumerate((b"not kept", "-20 to 8 °C".encode(), b"brand is ACME", b"origin is CL", b"hs_code is 950300")):
        assert word in details[n], (details[n], word)


def test_a_revoked_link_holds_open_orders_until_another_chain_covers_them():
    world, outside = sold()
    world.send(b.RevokeAuthorisation(authorisation_id="A1", reason="sold elsewhere", **BY), "/platform")
    world.run()
    assert world.state("orders").stops == world.state("payments").stops == world.state("shipping").stops == ["brand_not_authorised"]
    assert world.types("shipping")[-1] == "ParcelStopped" and "OrderHeld" in world.types()
    world.send(grant("A3", "baerenherz", "distributor", ("DE",)), "/platform")
    world.run()
    assert not world.state("orders").stops and world.types("shipping")[-1] == "ParcelCleared"
    outside.go_on(world)
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("stop", ["authorise", "capture", "FulfilmentRequested", "ParcelPacked"])
def test_a_gap_that_nobody_closes_undoes_what_has_not_left(stop):
    world, outside = sold(stop)
    world.send(b.RevokeAuthorisation(authorisation_id="A2", **BY), "/platform")
    world.run()
    world.wait(days=2, hours=23)
    assert "CancellationRequested" not in world.types()
    world.wait(hours=2)
    outside.go_on(world)
    world.wait(days=30)
    state = world.state("orders")
    assert (state.status, state.reason, state.closed) == ("cancelled", "brand_not_authorised", True), state
    assert world.balance().get("released", 0) == world.balance().get("held", 0) == 0


def test_what_has_left_was_sold_by_right_and_goes_on_when_the_carrier_cannot_stop_it():
    world, outside = sold("CustomsPresented")
    outside.on[ship.InterceptRequested] = lambda e, w: w.send(report.InterceptRefused(**ids(e), reason="on its way"), "/carrier")
    world.send(b.RevokeAuthorisation(authorisation_id="A2", **BY), "/platform")
    world.run()
    world.wait(days=4)
    outside.go_on(world)
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


def test_delivered_goods_are_not_touched():
    world, _ = sold("")
    assert "ParcelDelivered" in world.types()
    world.send(b.RevokeAuthorisation(authorisation_id="A2", **BY), "/platform")
    world.run()
    assert "OrderHeld" not in world.types()


def test_commands_about_a_brand_are_refused_by_name():
    wrong = [REGISTERED[0], REGISTERED[1], grant("A4", "a", "b", until=date(2025, 1, 1)), grant("A5", "a", "b", ("XX",)),
             grant("A6", "a", "a"), b.RevokeAuthorisation(authorisation_id="A9", **BY),
             b.RegisterBrand(order_id="brand:other", name="ACME", owner="acme", decided_by="o")]
    world = world_of(grant("A0", "a", "b"), *REGISTERED, b.RevokeAuthorisation(authorisation_id="A1", **BY),
                     b.RevokeAuthorisation(authorisation_id="A1", **BY), *wrong)
    reasons = [json.loads(e.value)["reason"] for e in world.events if e.type == "CommandRefused"]
    assert reasons == ["brand_new", "revoked_before", "brand_protected", "authorisation_exists", "authorisation_dates",
                       "unknown_country", "authorisation_parties", "unknown_authorisation", "brand_key"]
    assert not world.dead


def test_a_brands_command_under_an_orders_key_is_a_dead_letter_and_the_other_way_round():
    world = world_of(*REGISTERED, grant("A7", "a", "b").model_copy(update={"order_id": "A1"}), ask.ConfirmReceipt(order_id=KEY, parcel_id="p"))
    assert len(world.dead) == 2


def test_the_promise_of_what_is_undone_is_void_and_its_clock_never_goes_on():
    world, _ = given(placed(), outside=Until("ParcelPacked"), before=register, plans=network_plans())
    world.send(b.RevokeAuthorisation(authorisation_id="A2", **BY), "/platform")
    world.run()
    assert "PromiseHeld" in world.types()
    world.wait(days=4)
    assert "ParcelCancelled" in world.types() and "PromiseResumed" not in world.types()
