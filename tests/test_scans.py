"""Carriers in their own codes: every code means one thing, and a late, doubled or early scan moves nothing it must not."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as st

from schemas import carrier_codes, partners_doc
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.lifecycle import PARCEL
from services.explorer.simulation import START
from services.simulators import chinese_customs
from services.simulators.outsiders import Heard, Memory
from services.simulators.reactions import react
from tests.test_lifecycle import Outside, ends, given, nothing

MOVES = {  # what a code's report makes of a parcel that is where the report is due
    "PackedReported": "ParcelPacked", "HandedOverReported": "ParcelHandedOver", "ExportedReported": "ParcelExported",
    "ArrivedReported": "ParcelArrived", "PresentedReported": "CustomsPresented", "CustomsHoldReported": "CustomsHeld",
    "CustomsReleaseReported": "CustomsReleased", "OutForDeliveryReported": "ParcelOutForDelivery",
    "DeliveryFailureReported": "DeliveryFailed", "AtPickupReported": "ParcelAtPickup", "DeliveredReported": "ParcelDelivered",
    "CustomsRefusalReported": "CustomsRefused", "ReturnedToSenderReported": "ParcelReturned", "DestroyedReported": "ParcelDestroyed",
}
WAY = ("EMA", "EXA", "EXC", "EMC", "EMJ", "EMK", "EMD", "EDB", "EME", "EDC", "EDG", "EMH", "EDG", "EMI")


def scan(e, code: str, hour: float = 0, dialect: str = "upu", **fields) -> report.CarrierScanReported:
    needed = {"carrier": "c", "tracking_no": "T1" if dialect != "ceb622" else None, "reason": "no invoice"} | fields
    return report.CarrierScanReported(order_id="A1", parcel_id="A1-P1", dialect=dialect, code=code,
                                      at=START + timedelta(hours=hour), **needed)


def silent() -> Outside:
    """Only the payment provider answers."""
    outside = Outside()
    for event in (ship.FulfilmentRequested, ship.ParcelPacked, ship.ParcelHandedOver, ship.ParcelArrived, ship.CustomsPresented,
                  ship.CustomsReleased, ship.ParcelReturning, ship.CustomsRefused):
        outside.on[event] = nothing
    return outside


def packed():
    """An order abroad whose parcel waits for its carrier."""
    world, _ = given(outside=silent())
    world.send(report.PackedReported(order_id="A1", parcel_id="A1-P1"), "/warehouse")
    world.run()
    world.now = START + timedelta(hours=100)
    return world


def where(world) -> str:
    return world.state("shipping").parcels["A1-P1"].status


@pytest.mark.parametrize("code", carrier_codes.codes(), ids=lambda c: f"{c.dialect} {c.code} {c.leg}".strip())
def test_every_code_moves_a_parcel_that_waits_for_it_or_nothing(code):
    """By the parcel's table: from a state that allows the event to the state it leads to; information changes no state."""
    row = next((r for r in PARCEL["abroad"].rows if r.event == MOVES.get(code.report)), None)
    world = packed()
    parcel = world.state("shipping").parcels["A1-P1"]
    parcel.status = row.state if row else "exported"
    if code.dialect == "ceb622":
        world.state("shipping").regime = "china"
    world.state("shipping").timers["lost:A1-P1"] = START + timedelta(days=1)
    seen = len(world.events)
    world.send(scan(None, code.code, 99, code.dialect, leg=code.leg or None), "/carrier")
    world.run()
    told = [e.type for e in world.events[seen:] if e.topic == "shipping.shipment.v1"]
    if row is None:
        assert told == [] and where(world) == "exported" and not world.dead
        assert world.state("shipping").timers["lost:A1-P1"] == START + timedelta(hours=99, days=10), "it is not lost"
    else:
        assert told[0] == row.event and where(world) == row.to and not world.dead


def test_every_report_of_a_carrier_has_a_code_and_every_code_a_source():
    told = {code.report for code in carrier_codes.codes() if code.report}
    assert told == set(MOVES)
    assert all(code.source and code.certainty in "AB" for code in carrier_codes.codes())
    assert {code.dialect for code in carrier_codes.codes()} == set(carrier_codes.dialects()) == set(
        report.CarrierScanReported.model_fields["dialect"].annotation.__args__)


def test_a_station_that_signs_is_no_delivery():
    world = packed()
    for hour, code in enumerate(("PU_PICKUP_SUCCESS", "LH_DEPART", "LH_ARRIVE", "CC_IM_START", "CC_IM_SUCCESS",
                                 "GTMS_DELIVERING", "GTMS_STA_SIGNED")):
        world.send(scan(None, code, hour, "cainiao"), "/carrier")
    world.run()
    assert where(world) == "out_for_delivery" and not world.dead
    world.send(scan(None, "GTMS_SIGNED", 9, "cainiao"), "/carrier")
    world.run()
    world.wait(days=11)
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize(("wrong", "why"), [
    ({"code": "EMX"}, "UPU EMSEVT has no code 'EMX'"), ({"code": "GTMS_SIGNED"}, "UPU EMSEVT has no code"),
    ({"code": "EME", "reason": ""}, "EME (held by import customs) needs reason"),
    ({"code": "EMA", "tracking_no": None}, "EMA (handed over) needs tracking_no"),
    ({"code": "inspecting", "dialect": "gs1"}, "leg must be one of export, import"),
    ({"code": "800", "dialect": "ceb622"}, "does not go to China"),
    ({"code": "-621099", "dialect": "ceb622"}, "CEB622 returnStatus has no code '-621099'"),
    ({"code": "EDG", "hour": 24 * 300}, "lies in the future"),
    ({"code": "EDG", "hour": -24 * 400}, "has no code 'EDG' on 2025"),
])
def test_a_scan_that_says_nothing_we_know_is_refused_by_name(wrong, why):
    world = packed()
    world.send(scan(None, **wrong), "/carrier")
    world.run()
    [letter] = world.dead
    assert why in dict(letter.headers)["__dlq.errors.detail"].decode()
    assert where(world) == "packed"


@pytest.mark.parametrize("code", ["EMJ", "EMD"], ids=["information", "arrival"])
def test_a_scan_of_a_parcel_that_the_order_does_not_have_is_refused_by_name(code):
    world = packed()
    world.send(scan(None, code).model_copy(update={"parcel_id": "A1-P9"}), "/carrier")
    world.run()
    [letter] = world.dead
    assert dict(letter.headers)["__dlq.errors.reason"] == b"unknown_parcel" and where(world) == "packed"


@settings(max_examples=60, deadline=None)
@for_any(st.randoms(use_true_random=False))
def test_late_doubled_and_out_of_order_scans_end_as_those_in_order(rng: random.Random):
    """Each scan comes once or more, under the same id or another, in any order."""
    world = packed()
    sent = [(code, hour, copy) for hour, code in enumerate(WAY) for copy in range(rng.choice((1, 1, 2, 3)))]
    rng.shuffle(sent)
    before = -1
    for code, hour, copy in sent:
        world.send(scan(None, code, hour), "/carrier", f"scan:{hour}:{copy}")
        if rng.random() < 0.3:
            world.run()
            states = list(PARCEL["abroad"].states)
            place = [e.type for e in world.events if e.topic == "shipping.shipment.v1"]
            assert len(place) >= before and where(world) in states
            before = len(place)
    world.run()
    assert not world.dead
    told = [e.type for e in world.events if e.topic == "shipping.shipment.v1"]
    assert told.count("ParcelDelivered") == 1 and where(world) == "delivered"
    assert told.count("CustomsHeld") <= 1 and told.count("ParcelOutForDelivery") <= 2 and told.count("DeliveryFailed") <= 1
    world.send(scan(None, "EDG", 50), "/carrier", "far too late")
    world.send(scan(None, "EMH", 51), "/carrier", "far too late too")
    world.run()
    assert where(world) == "delivered" and len([e for e in world.events if e.topic == "shipping.shipment.v1"]) == len(told)


def test_an_attempt_that_is_told_twice_is_not_the_second_attempt():
    world = packed()
    for hour, code in enumerate(("EMA", "EMC", "EMD", "EDB", "EDC", "EDG", "EMH")):
        world.send(scan(None, code, hour), "/carrier")
    world.run()
    world.send(scan(None, "EDG", 5), "/carrier", "the first attempt once more")
    world.send(scan(None, "EMH", 6), "/carrier", "its failure once more")
    world.run()
    assert where(world) == "delivery_failed" and world.state("shipping").parcels["A1-P1"].attempts == 1


def test_the_partners_page_is_current():
    assert not partners_doc.stale(), "run: python -m schemas.partners_doc"


TOLD = chinese_customs.PRESENTED | {"refused": (("-621018", 0.5, "above the person's limit per year"), ("800", 5.0, ""))}


@pytest.mark.parametrize(("scenario", "told", "state"), [
    ("china_receipts", ["CustomsPresented", "CustomsHeld", "CustomsReleased"], "released"),
    ("refused", ["CustomsPresented", "CustomsRefused"], "returning"),
])
def test_receipts_that_come_late_doubled_or_against_a_decision_move_nothing(scenario, told, state):
    """As the simulated office tells them, each of them twice."""
    world = packed()
    world.state("shipping").regime = "china"
    world.state("shipping").parcels["A1-P1"].status = "arrived"
    seen = len(world.events)
    for n, (status, hour, why) in enumerate((*chinese_customs.ARRIVED, *TOLD[scenario])):
        for copy in "ab":
            world.send(scan(None, status, hour, "ceb622", reason=why), "/customs/CN", f"{n}:{status}:{copy}")
    world.run()
    assert [e.type for e in world.events[seen:] if e.topic == "shipping.shipment.v1" and e.type in {*MOVES.values()}] == told
    assert where(world) == state and not world.dead


def test_chinese_customs_speaks_of_parcels_into_china_alone():
    for country, told in (("CN", ["1", "2", "4", "3", "120"]), ("DE", [])):
        arrived = Heard("shipping:A1:9", ship.ParcelArrived(order_id="A1", parcel_id="A1-P1", destination=country), START.isoformat())
        said = react("customs", arrived, "china_receipts", Memory(seed=1))
        assert [getattr(r.message, "code", None) for r in said if r.message.__class__ is report.CarrierScanReported] == told
        assert len(said) == len(told) or [type(r.message) for r in said] == [report.PresentedReported]
