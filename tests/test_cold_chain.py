"""Excursions: what one is, whatever the order of the readings; and what becomes of the parcel, its money and its goods."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.cold_chain import WINDOW_S, AskedBand, Band, Reading, Watch, common_band, excursion_id, runs
from schemas.lifecycle import PARCEL, Answer
from services.explorer.simulation import KEY, order
from services.orders.screening import screen
from tests.test_lifecycle import Outside, ends, given, ids, nothing

BAND = Band()  # 2 to 8 °C, half an hour
STEP = 900
temperatures = st.lists(st.integers(-20, 120), min_size=1, max_size=120)


def series(tenths: list[int], every: int = STEP, start: int = 1_000_000) -> list[Reading]:
    return [Reading(start + n * every, t) for n, t in enumerate(tenths)]


def by_definition(readings: list[Reading], band: Band = BAND) -> list[tuple[int, int]]:
    """Spans outside the band for longer than tolerated, of readings in order: the plainest way to say it."""
    spans, inside = [], [band.low_tenths <= r.tenths <= band.high_tenths for r in readings]
    n = 0
    while n < len(readings):
        if inside[n]:
            n += 1
            continue
        first = n
        while n < len(readings) and not inside[n]:
            n += 1
        until = readings[n] if n < len(readings) else readings[-1]
        if until.time_s - readings[first].time_s > band.tolerance_minutes * 60:
            spans.append((readings[first].time_s, until.time_s))
    return spans


def fold(readings: list[Reading]) -> tuple[Watch, list]:
    watch = Watch()
    return watch, [found for reading in readings for found in watch.take(reading, BAND)]


@pytest.mark.parametrize(("tenths", "found"), [
    ([40, 40, 40], []), ([40, 90, 40], []), ([40, 90, 90, 40], []), ([40, 90, 90, 90, 40], [45]), ([90, 90, 90], []), ([90, 90, 90, 90], [45]),
    ([80, 20, 80], []), ([81, 40, 81, 40, 81], []), ([40, 10, 90, 10, 40], [45]), ([40, -50, -50, -50], [])])
def test_an_excursion_is_longer_outside_than_tolerated(tenths, found):
    """Readings a quarter of an hour apart; half an hour is tolerated. Found as soon as it is known, so 45 minutes at first."""
    assert [(e.until_s - e.began_s) // 60 for e in runs(series(tenths), BAND) if e.until_s - e.began_s > 1_800] == found


@for_any(temperatures)
def test_readings_in_order_give_each_excursion_once_and_no_other(tenths):
    readings = series(tenths)
    _, found = fold(readings)
    right = by_definition(readings)
    assert [e.began_s for e in found] == [began for began, _ in right]
    assert all(began < e.until_s <= until for e, (began, until) in zip(found, right))


@for_any(temperatures, st.randoms(use_true_random=False))
def test_late_doubled_and_out_of_order_readings_hide_no_excursion(tenths, rng: random.Random):
    """Whatever comes when: each excursion of all readings is covered by one that was told, and no two told ones overlap at
    the end more than one by one."""
    readings = series(tenths)
    sent = readings + rng.sample(readings, rng.randint(0, len(readings)))
    rng.shuffle(sent)
    watch, found = fold(sent)
    for began, until in by_definition(readings):
        assert any(a <= began and until <= b for a, b in watch.known), (began, until, watch.known)
    assert len({excursion_id("P", e) for e in found}) == len(found)
    assert fold(sent)[1] == found, "the same readings in the same order find the same"
    assert fold([*sent, *sent])[1] == found, "reading everything again finds nothing new"


@for_any(temperatures, st.integers(0, WINDOW_S))
def test_windows_cut_no_excursion_in_two(tenths, start):
    """Hourly readings over days: wherever the windows lie, a run that goes on is one excursion."""
    readings = series(tenths, 3_600, start)
    watch, found = fold(readings)
    assert sorted(watch.known) == by_definition(readings)
    assert [e.began_s for e in found] == [began for began, _ in by_definition(readings)]


def test_bands_of_a_parcel_are_what_suits_all_of_it():
    frozen, cool = Band(low_tenths=-250, high_tenths=-180), Band(low_tenths=0, high_tenths=40, tolerance_minutes=10)
    assert common_band([BAND, cool]) == Band(low_tenths=20, high_tenths=40, tolerance_minutes=10)
    assert common_band([frozen, cool]) is None
    lines = [line.model_copy(update={"cold": AskedBand(**band.__dict__)}) for line, band in zip(
        order(lines=(("ICE", 1, 500), ("CHERRY", 1, 500))).lines, (frozen, cool))]
    refused = screen(order(lines=(("ICE", 1, 500), ("CHERRY", 1, 500))).model_copy(update={"lines": lines}), KEY)
    assert refused[0] == "cold_bands"


# -- what becomes of the parcel -------------------------------------------------------------------------------------------


def cold(**more):
    placed = order(**more)
    return placed.model_copy(update={"lines": [line.model_copy(update={"cold": AskedBand()}) for line in placed.lines]})


def excursion(e, n: int = 1) -> report.ExcursionReported:
    began = datetime(2026, 11, 24, n, tzinfo=UTC)
    return report.ExcursionReported(**ids(e), excursion_id=f"{e.parcel_id}:{n}", began=began, until=began + timedelta(hours=1),
                                    minutes=60, worst_tenths=130)


def verdict(e, decision: str) -> report.RecordQualityDecision:
    return report.RecordQualityDecision(**ids(e), excursion_id=e.excursion_id, decision=decision, decided_by="merchant")


def judged(decision: str | None, at=ship.ParcelHandedOver, placed=None, stock=100):
    """The excursion is found when `at` happens; then the carrier delivers all the same, and somebody decides."""
    outside = Outside()
    onward = outside.on.get(at, nothing)

    def found(e, w):
        if w.types().count(at.__name__) == 1:
            w.send(excursion(e), "/cold-chain", f"excursion:{e.parcel_id}:1")
            onward(e, w)
    outside.on[at] = found
    if decision:
        outside.on[ship.ParcelQuarantined] = lambda e, w: w.send(verdict(e, decision), "/merchant")

    def again(e, w):
        if not e.replaces:
            w.send(report.PackedReported(**ids(e)), "/warehouse")
            return
        box = ids(e) | {"sscc": e.sscc}
        for model, fields in ((report.PackedReported, {}), (report.HandedOverReported, {"carrier": "x", "tracking_no": "T2"}),
                              (report.ExportedReported, {}), (report.ArrivedReported, {}), (report.PresentedReported, {}),
                              (report.CustomsReleaseReported, {}), (report.OutForDeliveryReported, {}), (report.DeliveredReported, {})):
            w.send(model(**box, **fields), "/express", f"{model.__name__}:{e.sscc}")
    outside.on[ship.FulfilmentRequested] = again
    world, _ = given(placed or cold(), outside=outside, stock=stock)
    return world


def test_the_band_goes_with_the_goods_and_only_with_those_that_have_one():
    world, _ = given(cold())
    asked = [ship.FulfilmentRequested.model_validate_json(e.value) for e in world.events if e.type == "FulfilmentRequested"]
    assert [e.cold for e in asked] == [BAND]
    world, _ = given()
    assert b'"cold":null' in next(e.value for e in world.events if e.type == "FulfilmentRequested")


def test_released_after_an_excursion_it_is_delivered():
    world = judged("release")
    types = world.types("shipping")
    assert types.index("ParcelQuarantined") < types.index("QualityReleased") < types.index("ParcelDelivered")
    ends(world, "completed", buyer=-5700, released=5700)


def test_refunded_after_an_excursion_it_is_destroyed():
    world = judged("refund")
    assert "ParcelDelivered" not in world.types() and dict(world.stock.available("CHERRY")) == {"SEA1": 98}
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="spoiled")


def test_nobody_decides_and_the_deadline_does():
    world = judged(None)
    assert world.state("shipping").parcels["A1-P1"].status == "out_for_delivery", "it is at the door, and stays in the van"
    world.wait(days=3)
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="spoiled")


def test_sent_once_more_it_is_another_box_of_the_same_parcel():
    world = judged("reship")
    replaced = next(ship.ParcelReplaced.model_validate_json(e.value) for e in world.events if e.type == "ParcelReplaced")
    assert replaced.sscc != replaced.replaces and world.types().count("ParcelHandedOver") == 2
    assert world.types().count("ParcelDelivered") == 1 and world.types().count("PaymentHeld") == 1
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 96}
    ends(world, "completed", buyer=-5700, released=5700)
    seen = len(world.events)
    world.send(report.DeliveredReported(order_id="A1", parcel_id="A1-P1"), "/carrier", "the old box, at last")
    world.run()
    assert len(world.events) == seen and not world.dead


@pytest.mark.parametrize("why", ["no stock", "china", "delivered"])
def test_what_cannot_be_sent_once_more_is_paid_back(why):
    placed = cold(destination="CN") if why == "china" else cold()
    world = judged("reship", ship.ParcelDelivered if why == "delivered" else ship.ParcelHandedOver, placed,
                   stock=2 if why == "no stock" else 100)
    assert ("QualityRefunded" in world.types()) == (why == "delivered") and "ParcelReplaced" not in world.types()
    # A buyer who has it has confirmed it too: the money comes back from the merchant.
    back = {"released": 5700, "recovered": -5700} if why == "delivered" else {}
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="spoiled", **back)


def test_found_after_the_merchant_was_paid_it_is_taken_back_from_him():
    world, outside = given(cold())
    world.wait(days=11)
    ends(world, "completed", buyer=-5700, released=5700)
    outside.on[ship.ParcelQuarantined] = lambda e, w: w.send(verdict(e, "refund"), "/merchant")
    delivered = next(ship.ParcelDelivered.model_validate_json(e.value) for e in world.events if e.type == "ParcelDelivered")
    world.send(excursion(delivered), "/cold-chain")
    world.run()
    ends(world, "cancelled", buyer=-5700, released=5700, refunded=5700, recovered=-5700, reason="spoiled")


def test_each_excursion_needs_its_own_decision():
    outside = Outside()
    outside.on[ship.ParcelHandedOver] = lambda e, w: [w.send(excursion(e, n), "/cold-chain", f"x{n}") for n in (1, 2, 1)]
    world, _ = given(cold(), outside=outside)
    parcel = world.state("shipping").parcels["A1-P1"]
    assert parcel.aside.quarantine == ["A1-P1:1", "A1-P1:2"]
    for n in (1, 2):
        world.send(report.RecordQualityDecision(order_id="A1", parcel_id="A1-P1", excursion_id=f"A1-P1:{n}", decision="release",
                                                decided_by="warehouse"), "/merchant")
        world.run()
        assert bool(world.state("shipping").parcels["A1-P1"].aside.quarantine) == (n == 1)
    world.send(excursion(next(ship.ParcelHandedOver.model_validate_json(e.value) for e in world.events
                              if e.type == "ParcelHandedOver")), "/cold-chain", "told again under another id")
    world.run()
    assert not world.state("shipping").parcels["A1-P1"].aside.quarantine


def test_cancelled_while_in_quarantine_it_goes_to_no_shelf():
    outside = Outside()

    def found(e, w):
        w.send(excursion(e), "/cold-chain")
    outside.on[ship.ParcelPacked] = found
    outside.on[ship.ParcelQuarantined] = lambda e, w: w.send(ask.CancelOrder(order_id=e.order_id))
    world, _ = given(cold(), outside=outside)
    assert dict(world.stock.available("CHERRY")) == {"SEA1": 98} and "ParcelDestroyed" in world.types()
    ends(world, "cancelled", buyer=-5700, refunded=5700, reason="cancelled")


def test_a_way_that_starts_over_keeps_late_scans_stale():
    """A parcel may be sent once more; no scan waits for that."""
    for state, event in (("arrived", "ParcelExported"), ("out_for_delivery", "CustomsReleased"), ("exported", "ParcelPacked")):
        assert PARCEL["abroad"].answer(state, event)[0] is Answer.STALE


# -- a logger that falls silent -------------------------------------------------------------------------------------------


def logged(silent: int | None = 1440):
    """Handed over, and on its way until the test goes on; its logger may be silent for so many minutes."""
    outside, onward = Outside(), []
    outside.on[ship.ParcelHandedOver] = lambda e, w: onward.append(e)
    placed = order(destination="US")
    lines = [line.model_copy(update={"cold": AskedBand(silent_minutes=silent)}) for line in placed.lines]
    world, _ = given(placed.model_copy(update={"lines": lines}), outside=outside)
    return world, lambda: (outside.legs(onward[0], world), world.run())


def heard(world, hours_ago: float = 0) -> None:
    world.send(report.LoggerHeard(order_id="A1", parcel_id="A1-P1", at=world.now - timedelta(hours=hours_ago)), "/cold-chain")
    world.run()


def silences(world) -> list[str]:
    return [e.excursion_id for e in (ship.ParcelQuarantined.model_validate_json(o.value) for o in world.events
                                     if o.type == "ParcelQuarantined") if e.silent]


def test_a_logger_that_is_not_heard_alarms_and_nobody_gets_the_goods_before_somebody_has_decided():
    world, go_on = logged()
    world.wait(hours=23)
    assert not silences(world)
    world.wait(hours=2)
    assert silences(world) == ["A1-P1:silent:1"]
    go_on()
    assert "ParcelDelivered" not in world.types()
    world.send(report.RecordQualityDecision(order_id="A1", parcel_id="A1-P1", excursion_id="A1-P1:silent:1", decision="release",
                                            decided_by="warehouse"), "/warehouse")
    world.run()
    ends(world, "completed", buyer=-5700, released=5700)


def test_what_it_says_puts_the_alarm_off_and_what_is_old_does_not():
    world, go_on = logged()
    for _ in range(4):
        world.wait(hours=20)
        heard(world, hours_ago=2)
    assert not silences(world)
    heard(world, hours_ago=30)
    world.wait(hours=21)
    assert not silences(world), "the newest reading counts"
    world.wait(hours=2)
    assert silences(world) == ["A1-P1:silent:1"]
    heard(world)
    world.wait(hours=25)
    assert silences(world) == ["A1-P1:silent:1", "A1-P1:silent:2"], "heard again, and silent again"


def test_a_logger_whose_clock_runs_ahead_is_not_waited_for_any_longer():
    world, _ = logged()
    heard(world, hours_ago=-500)
    world.wait(hours=25)
    assert len(silences(world)) == 1


def test_nobody_waits_for_a_logger_of_goods_that_name_no_time_or_that_are_there():
    world, _ = logged(silent=None)
    world.wait(days=5)
    assert not silences(world)
    world, go_on = logged()
    go_on()
    world.wait(days=5)
    assert not silences(world) and not world.dead


def test_nobody_decides_about_silence_and_the_deadline_does():
    world, _ = logged()
    world.wait(days=4)
    assert "ParcelDestroyed" in world.types()
    ends(world, "cancelled", reason="spoiled", buyer=-5700, refunded=5700)
