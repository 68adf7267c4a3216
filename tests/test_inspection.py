"""Serial numbers that are seen twice or too far apart, goods that are looked at before they leave, complaints."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.lifecycle import NEW, PARCEL
from services.cli.inspection_ask import has_left
from services.explorer.simulation import World, order
from services.runtime.decision import Decision, Incoming
from services.shipping import machine
from services.shipping.allocation import Content, Document
from services.shipping.serials import Sighting, far, key_of
from services.shipping.shipment import Parcel
from services.explorer.simulation import START
from tests.history import network_plans
from tests.test_freeze import Until
from tests.test_lifecycle import ends, given, ids

GTIN = "04006381333931"


def units(*serials: str, line_no: int = 1) -> list[report.UnitCode]:
    return [report.UnitCode(line_no=line_no, gtin=GTIN, serial=serial, lot="L7") for serial in serials]


def packs(world: World, event, *serials: str, **more) -> None:
    world.send(report.PackedReported(**ids(event), units=units(*serials, **more)), "/warehouse")


def packed_with(*serials: str, order_id: str = "A1", world: World | None = None, **more):
    """(world, outside) of an order that lies packed with units of these serial numbers, unless it was held."""
    outside = Until("ParcelPacked")
    outside.on[ship.FulfilmentRequested] = lambda e, w: packs(w, e, *serials)
    if world is None:
        return given(order(order_id), outside=outside, **more)
    world.outside = outside
    world.send(order(order_id))
    world.run()
    return world, outside


def told(world: World, name: str) -> list[dict]:
    return [json.loads(e.value) for e in world.events if e.type == name]


def result(world: World, how: str, id_: str = "alert/A1-P1", order_id: str = "A1") -> None:
    world.send(report.RecordInspection(order_id=order_id, parcel_id=f"{order_id}-P1", inspection_id=id_, result=how, decided_by="i"), "/inspector")
    world.run()


def inspect(world: World, id_: str = "I1", **more) -> None:
    world.send(report.OpenInspection(**{"order_id": "A1", "parcel_id": "A1-P1", "inspection_id": id_, "reason": "random"} | more), "/inspector")
    world.run()


def test_a_parcel_without_serial_numbers_has_no_new_event_and_asks_for_no_row_of_a_unit():
    world, _ = given(order())
    assert not {"SerialAlert", "InspectionHeld", "ParcelStopped"} & set(world.types())
    packed = next(e for e in world.events if e.type == "ParcelPacked")
    assert json.loads(packed.value)["units"] == []
    entry = world.parties["shipping"].entries["A1"]
    assert entry.state.parcels["A1-P1"].aside is None
    for kind in ("PackedReported", "CancellationRequested", "ReturnReceivedReported"):
        incoming = machine.Incoming(kind, "", "", 0, world.now, report.PackedReported(order_id="A1", parcel_id="A1-P1"))
        assert machine.shared_keys(entry.state, entry.document, incoming) == machine.stock_keys(entry.state, entry.document, incoming)


def test_serial_numbers_stand_on_the_parcel_and_new_ones_alarm_nobody():
    world, outside = packed_with("S1", "S2")
    [packed] = told(world, "ParcelPacked")
    assert packed["units"] == [{"line_no": 1, "gtin": GTIN, "serial": s, "lot": "L7"} for s in ("S1", "S2")]
    outside.go_on(world)
    world.wait(days=20)
    assert "SerialAlert" not in world.types()
    ends(world, "completed", buyer=-5700, released=5700)


def test_one_number_on_two_units_opens_an_inspection():
    world, _ = packed_with("S1", "S1")
    [alert], [held] = told(world, "SerialAlert"), told(world, "InspectionHeld")
    assert (alert["kind"], alert["serial"], alert["gtin"]) == ("twice", "S1", GTIN)
    assert (held["reason"], held["inspection_id"]) == ("risk", "alert/A1-P1") and world.types("shipping")[-1] == "ParcelStopped"


def test_one_number_in_two_parcels_of_two_orders_opens_one_of_the_second_and_names_the_first():
    world, _ = packed_with("S1", stock={"CHERRY": {"SEA1": 100}})
    packed_with("S1", order_id="A2", world=world)
    [alert] = told(world, "SerialAlert")
    assert alert["order_id"] == "A2" and alert["first"]["parcel_id"] == "A1-P1" and alert["again"]["parcel_id"] == "A2-P1"
    assert [held["order_id"] for held in told(world, "InspectionHeld")] == ["A2"]


def test_what_came_back_is_packed_again_without_an_alarm():
    world, _ = packed_with("S1")
    world.send(ask.CancelOrder(order_id="A1"))
    world.run()
    assert world.types("shipping")[-1] == "ParcelCancelled"
    packed_with("S1", order_id="A2", world=world)
    assert "SerialAlert" not in world.types()


@pytest.mark.parametrize("place, hours, alarm", [("DEBER", 1, True), ("DEBER", 12, False), ("SEA1", 0, False), ("NOWHERE", 0, False)])
def test_two_places_are_too_far_apart_when_nothing_travels_so_fast(place, hours, alarm):
    seen = Sighting("A1", "A1-P1", "SEA1", START)
    distance, impossible = far(seen, place, START + timedelta(hours=hours))
    assert impossible is alarm and (distance > 7000) is (place == "DEBER")


def test_a_number_that_is_seen_half_a_world_away_holds_what_is_still_here():
    world, outside = packed_with("S1", "S2", plans=network_plans())
    world.wait(minutes=30)
    scan = {"order_id": "A1", "parcel_id": "A1-P1", "gtin": GTIN[1:], "place": "DEBER", "at": world.now, "scanned_by": "app"}
    world.send(report.SerialScanReported(serial="S9", **scan), "/brand")
    world.run()
    assert "SerialAlert" not in world.types(), "no unit of the parcel has this number"
    world.send(report.SerialScanReported(serial="S1", **scan), "/brand")
    world.run()
    [alert] = told(world, "SerialAlert")
    assert alert["kind"] == "too_far" and alert["km"] > 7000
    assert [e for e in world.types("shipping")[-4:]] == ["SerialAlert", "InspectionHeld", "ParcelStopped", "PromiseHeld"]
    outside.go_on(world)
    assert "ParcelHandedOver" not in world.types(), "the carrier's scan waits for the result"
    world.wait(hours=8)
    result(world, "genuine")
    resumed = told(world, "PromiseResumed")[0]
    assert resumed["reason"] == "inspection" and resumed["paused_s"] == 8 * 3600
    assert {"ParcelCleared", "ParcelHandedOver"} <= set(world.types())
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_counterfeit_is_paid_back_goes_to_no_shelf_and_the_merchant_gets_a_complaint():
    world, outside = packed_with("S1", "S1")
    outside.go_on(world)
    result(world, "counterfeit")
    world.wait(days=1)
    ends(world, "cancelled", reason="counterfeit", buyer=-5700, refunded=5700)
    [complaint] = told(world, "ComplaintFiled")
    assert (complaint["by"], complaint["reason"], complaint["parcel_id"]) == ("inspection", "counterfeit", "A1-P1")
    change = world.stock.changes["CHERRY", "SEA1"]
    assert change.get("restocked", 0) == 0 and change["consumed"] == 2 and "ParcelHandedOver" not in world.types()


def test_nobody_looks_and_the_buyer_gets_the_money():
    world, _ = packed_with("S1", "S1")
    world.wait(days=5, hours=1)
    assert told(world, "InspectionEnded")[0]["result"] == "undecided"
    ends(world, "cancelled", reason="not_inspected", buyer=-5700, refunded=5700)
    assert "ComplaintFiled" not in world.types()


def test_an_inspection_that_is_wanted_early_begins_when_it_is_packed_and_each_needs_its_result():
    world, outside = given(order(), outside=Until("FulfilmentRequested"))
    inspect(world)
    assert "InspectionHeld" not in world.types()
    outside.go_on(world)
    inspect(world, "I2", reason="risk")
    assert [held["inspection_id"] for held in told(world, "InspectionHeld")] == ["I1", "I2"]
    result(world, "genuine", "I1")
    assert "ParcelCleared" not in world.types()
    result(world, "genuine", "I2")
    world.wait(days=20)
    ends(world, "completed", buyer=-5700, released=5700)


def test_what_is_cancelled_while_somebody_looks_goes_back_to_no_shelf():
    world, _ = given(order(), outside=Until("ParcelPacked"))
    inspect(world)
    world.send(ask.CancelOrder(order_id="A1"))
    world.run()
    ends(world, "cancelled", reason="cancelled", buyer=-5700, refunded=5700)
    assert world.stock.changes["CHERRY", "SEA1"].get("restocked", 0) == 0


def test_an_inspection_that_comes_too_late_holds_nothing():
    world, _ = given(order(), outside=Until("ParcelHandedOver"))
    inspect(world)
    assert "InspectionHeld" not in world.types() and not world.dead


@pytest.mark.parametrize("regime", PARCEL)
def test_the_command_refuses_what_the_machine_would_not_hold_and_nothing_else(regime):
    """In every state of every table, also before anything is packed for China."""
    for status in PARCEL[regime].states - {NEW}:
        shipment = machine.Shipment("A1", status="open", regime=regime, parcels={"A1-P1": Parcel("SEA1", status)})
        wish = report.OpenInspection(order_id="A1", parcel_id="A1-P1", inspection_id="I1", reason="random")
        document = Document("USD", "DE", {"A1-P1": Content("SEA1", [], 0, 0)}, False)
        answer = machine.decide(shipment, document, Incoming("OpenInspection", "i", "/inspector", 0, START, wish), None, START)
        held = isinstance(answer, Decision) and (answer.state.parcels["A1-P1"].aside.wanted or answer.state.parcels["A1-P1"].aside.inspections)
        assert bool(held) is not has_left(status), (regime, status, answer)


@pytest.mark.parametrize("stop", ["FulfilmentRequested", "ParcelPacked"])
def test_a_brands_complaint_holds_what_has_not_left(stop):
    world, outside = given(order(), outside=Until(stop))
    world.send(ask.FileComplaint(order_id="A1", by="brand", reason="counterfeit", detail="never by us"), "/brand", "C1")
    world.run()
    outside.go_on(world)
    [held] = told(world, "InspectionHeld")
    assert (held["reason"], held["inspection_id"]) == ("brand_complaint", "C1/A1-P1")
    result(world, "counterfeit", "C1/A1-P1")
    assert [(c["by"], c["complaint_id"]) for c in told(world, "ComplaintFiled")] == [("brand", "C1"), ("inspection", "C1/A1-P1")]


def test_a_buyers_complaint_is_counted_at_any_time_and_moves_nothing():
    world, _ = given(order())
    before = len(world.events)
    world.send(ask.FileComplaint(order_id="A1", by="buyer", reason="damaged", parcel_id="A1-P1"))
    world.send(ask.FileComplaint(order_id="A1", by="buyer", reason="damaged", parcel_id="A1-P9"))
    world.run()
    assert world.types()[before:] == ["ComplaintFiled", "CommandRefused"]
    ends(world, "completed", buyer=-5700, released=5700)


def test_units_that_cannot_be_are_dead_letters():
    for wrong in (units("S1", line_no=7), [report.UnitCode(line_no=1, gtin="04006381333932", serial="S1")]):
        outside = Until("ParcelPacked")
        outside.on[ship.FulfilmentRequested] = lambda e, w, wrong=wrong: w.send(report.PackedReported(**ids(e), units=wrong), "/warehouse")
        world, _ = given(order(), outside=outside)
        assert len(world.dead) == 1 and "ParcelPacked" not in world.types()


def test_one_code_has_one_key_with_or_without_leading_zeros():
    assert key_of("4006381333931", "A") == key_of(GTIN, "A") == f"unit:{GTIN}.A"
