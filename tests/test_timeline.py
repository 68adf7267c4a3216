"""An order's story: how it is woven out of the topics and told, and why the order is where it is."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from schemas import generate
from schemas.lifecycle import NEW, PARCEL
from schemas.topics import MODELS, ORDER, TOPICS
from services.cli import order_why, parcel_facts, timeline
from services.cli.order_place import Wish, order_of
from services.cli.order_records import Event, event_of, with_parked
from services.cli.order_show import Show, as_json
from services.cli.order_state import Call, Look, View, Waiting, waits_for
from services.orders import machine as orders
from services.payments import machine as payments
from services.runtime.decision import TIMER, Incoming
from services.runtime.spec import Spec
from services.shipping import shipment as shipping

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))
O, P = "cli-1", "cli-1-P1"


def event(topic: str, offset: int, ms: int, type_: str, id_: str, causation: str = "", **more: Any) -> Event:
    lane = {"orders": "orders", "payments": "payments", "shipping": "shipping"}.get(id_.split(":")[0], "world")
    more.setdefault("data", {"order_id": O})
    return Event(topic, 0, offset, NOW + timedelta(milliseconds=ms), lane, type_, id_, lane, NOW, offset + 1, causation, **more)


PLACE = event("orders.intake.v1", 0, 5, "PlaceOrder", "place:cli-1", data={"order_id": O, "currency": "EUR", "total": 1230})
PLACED = event("orders.order.v1", 0, 3, "OrderPlaced", "orders:cli-1:1", "place:cli-1")  # the broker's clocks disagree
ALLOCATED = event("shipping.shipment.v1", 7, 3, "ParcelsAllocated", "shipping:cli-1:1", "orders:cli-1:1", data={
    "order_id": O, "currency": "EUR", "parcels": [{"parcel_id": P, "amount": 1230}]})
CANCELLED = event("orders.order.v1", 1, 3, "OrderCancelled", "orders:cli-1:2", "shipping:cli-1:1",
                  data={"order_id": O, "reason": "no_stock", "outcomes": {P: "cancelled/voided"}})
DEAD = event("orders.intake.v1.dlq", 0, 4, "PlaceOrder", "place:cli-1", dead=("id_reused", "came before"))


# -- the story --------------------------------------------------------------------------------------------------------


def test_no_effect_stands_before_its_cause() -> None:
    story = timeline.weave([CANCELLED, ALLOCATED, DEAD, PLACE, PLACED])
    assert [e.type for e in story] == ["PlaceOrder", "OrderPlaced", "ParcelsAllocated", "OrderCancelled", "PlaceOrder"]
    assert timeline.causes(story) == [None, 0, 1, 2, 0]
    assert timeline.weave(list(reversed(story))) == story


def test_records_of_one_partition_keep_their_order() -> None:
    first, second = event("t", 1, 9, "A", "a"), event("t", 2, 1, "B", "b")
    assert [e.type for e in timeline.weave([second, first])] == ["A", "B"]


def test_a_forged_circle_of_causes_is_still_told() -> None:
    circle = [event("t", 1, 1, "A", "a", "b"), event("u", 1, 2, "B", "b", "a"), event("v", 1, 3, "C", "c", "c")]
    assert {e.type for e in timeline.weave(circle)} == {"A", "B", "C"}


def test_a_repetition_is_marked_and_causes_nothing() -> None:
    again = event("orders.order.v1", 5, 9, "OrderPlaced", "orders:cli-1:1", "place:cli-1")
    story = timeline.weave([PLACE, PLACED, again, ALLOCATED])
    assert [e.repeats for e in story] == [False, False, False, True]
    assert timeline.causes(story)[2] == 1 and "again" in timeline.facts(story[3])


def test_an_order_that_was_opened_again_has_not_ended() -> None:
    back = event("orders.order.v1", 2, 9, "ReturnRequested", "orders:cli-1:3")
    refused = event("orders.order.v1", 3, 9, "CommandRefused", "orders:cli-1:4")
    assert timeline.ended([PLACED]) is None
    assert timeline.ended([PLACED, CANCELLED, refused]) is CANCELLED
    assert timeline.ended([PLACED, CANCELLED, back]) is None


@pytest.mark.parametrize(("amount", "currency", "told"), [
    (1230, "EUR", "EUR 12.30"), (5, "EUR", "EUR 0.05"), (1230, "JPY", "JPY 1,230"), (1230, "KWD", "KWD 1.230"),
    (-123456789, "USD", "USD -1,234,567.89"), (0, "EUR", "EUR 0.00"), (7, "???", "7 minor units ???"), (7, "", "7 minor units"),
])
def test_money_is_told_with_its_currency_s_exponent(amount: int, currency: str, told: str) -> None:
    assert timeline.money(amount, currency) == told


def test_facts_are_on_one_line() -> None:
    lost = event("s", 0, 0, "ParcelLost", "x", data={
        "order_id": O, "parcel_id": P, "refund": 100, "claim": 90, "reason": "no_scan"})
    assert timeline.facts(lost, "EUR") == "P1, refund EUR 1.00, claim EUR 0.90, no_scan"
    assert timeline.facts(ALLOCATED) == "P1 EUR 12.30"
    parked = with_parked([PLACED], {("orders.order.v1", "orders:cli-1:1"): ("payments",)})
    assert timeline.facts(parked[0]) == "WAITS in payments"
    assert timeline.facts(DEAD).startswith("dead letter of world: id_reused: came before")


def test_compact_is_one_line_an_event() -> None:
    lines = timeline.compact([PLACE, PLACED, ALLOCATED, CANCELLED])
    assert len(lines) == 4 and lines[3].split() == ["4", "2026-11-01", "12:00:00", "orders", "OrderCancelled", "no_stock,", "P1",
                                                    "cancelled/voided", "←3"]
    assert timeline.compact([PLACE, PLACED, ALLOCATED, CANCELLED], 3) == lines[3:]


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_a_terminal_and_is_whole_in_a_pipe(width: int) -> None:
    events = [PLACE, PLACED, ALLOCATED, CANCELLED, DEAD]
    terminal, pipe = (Console(file=io.StringIO(), width=width, force_terminal=forced, color_system=None)
                      for forced in (True, False))
    for console in (terminal, pipe):
        console.print(timeline.render(events), soft_wrap=console is pipe)
    assert all(len(line) <= width for line in terminal.file.getvalue().splitlines())
    lines = pipe.file.getvalue().splitlines()
    assert len(lines) == 1 + len(events) and "shipping.shipment.v1/0/7" in lines[3] and "✗" in lines[5]


def test_a_record_that_is_nonsense_is_told_without_an_error() -> None:
    class Record:
        topic, partition, offset, timestamp, key = "orders.intake.v1.dlq", 1, 2, 1_700_000_000_000, b"cli-1"
        value = b"\xff{"
        headers = (("ce_type", b"\xff"), ("ce_time", b"2026-01-01T00:00:00"), ("__dlq.errors.reason", b"invalid"),
                   ("__dlq.errors.service", b"nobody"), ("ce_sequence", "²".encode()))

    told = event_of(Record())
    assert (told.lane, told.time, told.sequence, told.dead, told.data) == ("world", None, 0, ("invalid", ""), {})


def test_nobody_s_name_is_in_a_story() -> None:
    order = order_of(Wish(buyer="Aiko Tanaka"), O, KEY, NOW)

    class Record:
        topic, partition, offset, timestamp, headers = "orders.intake.v1", 0, 0, 0, ()
        value = order.model_dump_json().encode()

    assert event_of(Record()).data["buyer"] == {"token": order.buyer.token}


# -- why --------------------------------------------------------------------------------------------------------------


def seen(goods: shipping.Parcel | None = None, hold: payments.Hold | None = None, mine: orders.Parcel | None = None,
         timers: dict[str, datetime] | None = None, status: str = "fulfilling", closed: bool = False, **more: Any) -> Look:
    """A look at an order with one parcel."""
    order = orders.Order(O, status, closed, parcels={P: mine} if mine else {}, reason="no_stock" if closed else "")
    account = payments.Account(O, "open", closed, currency="EUR", holds={P: hold} if hold else {},
                               payments={f"{O}-Y1": payments.Payment([P])} if hold else {})
    goods_of = shipping.Shipment(O, "open", closed, parcels={P: goods} if goods else {}, timers=timers or {})
    calls = more.pop("calls", ())
    views = {"orders": View("orders", status, closed, 1, order), "shipping": View("shipping", "open", closed, 1, goods_of),
             "payments": View("payments", "open", closed, 1, account, calls=calls)}
    return Look(O, views, NOW, **more)


LATER = NOW + timedelta(days=3, hours=4)
WHYS = [
    (Look(O, {}, NOW), "no service has heard of this order"),
    (Look(O, {}, NOW, records=1), "orders has not taken it up yet; `tradewind status` says whether it runs"),
    (seen(status="cancelled", closed=True), "cancelled (no_stock): nothing more will happen"),
    (seen(shipping.Parcel("SEA1"), payments.Hold(5), orders.Parcel(), {"reservation": LATER}),
     "P1: the payment must be authorised by 2026-11-04 16:00:00 (in 3 d 4 h), "
     "else the reservation ends and the parcel is cancelled"),
    (seen(shipping.Parcel("SEA1", "presented"), payments.Hold(5), orders.Parcel(), {f"customs:{P}": LATER}, speed=3600.0),
     "P1: customs must decide by 2026-11-04 16:00:00 (in 3 d 4 h, 1 min 16 s of real time), "
     "else it counts as refused and goes back"),
    (seen(shipping.Parcel("SEA1", "lost", claim_open=True), payments.Hold(0, "refunded"), orders.Parcel("lost")),
     "P1: the carrier must pay the claim"),
    (seen(shipping.Parcel("SEA1", "delivered"), payments.Hold(5, "held", held=5, confirmed=True), orders.Parcel("delivered")),
     "P1: payments must release EUR 0.05 to the merchant"),
    (seen(shipping.Parcel("SEA1", "delivered"), payments.Hold(5, "held", held=5), orders.Parcel("delivered", dispute="d-1")),
     "P1: the arbiter must decide dispute d-1; the timer and the money stand still"),
    (seen(shipping.Parcel("SEA1", "cancelled"), payments.Hold(
        0, "held", held=5, payout="po-1", owed=[payments.Owed(5, "cancelled")]), orders.Parcel()),
     "P1: a finance clerk must pay EUR 0.05 to the buyer by hand (po-1)"),
    (seen(waiting=(Waiting("orders", "ConfirmReceipt", "c-1", "orders.intake.v1", 1, NOW, "ParcelDelivered"),)),
     "orders keeps ConfirmReceipt until ParcelDelivered"),
    (seen(dead=[DEAD]), "world gave up on PlaceOrder (id_reused: came before): "
     "somebody must look at the dead letter orders.intake.v1.dlq/0/0"),
    (seen(calls=(Call("y-1", "capture", 1230, "", NOW),)),
     "the payment provider must answer capture of EUR 12.30 (y-1); it is asked until it does"),
]


@pytest.mark.parametrize(("look", "first"), WHYS, ids=[first[:40] for _, first in WHYS])
def test_why_says_what_must_happen_next_and_by_when(look: Look, first: str) -> None:
    assert order_why.why(look)[0] == first
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(Show(look))
    assert "why: " in console.file.getvalue() and json.dumps(as_json(look))


def test_every_state_of_a_parcel_has_a_why() -> None:
    for machine in PARCEL.values():
        assert machine.states - machine.terminal - {NEW} <= set(order_why._GOODS)


def test_the_service_s_own_machine_says_what_a_parked_record_waits_for() -> None:
    spec = Spec("orders", (), ORDER, frozenset(), orders.Order, lambda s, d, i, x, now: orders.decide(s, d, i, KEY, now),
                orders.STATE, orders.DOCUMENT)
    incoming = Incoming(TIMER, "x", "shipping", 1, NOW, None)
    assert waits_for(spec, orders.Order(O), None, incoming, NOW) == "OrderPlaced"
    known = orders.Order(O, "placed")
    assert waits_for(spec, known, None, incoming, NOW) == "something earlier from shipping"


@pytest.mark.parametrize(("model", "said"), [
    ("CarrierScanReported", "upu EME, scanned 2026-11-24T09:30 DEFRAA"), ("ExcursionReported", "outside for 60 min, 11.2 °C"),
    ("RecordQualityDecision", "release by the warehouse"), ("SensorReported", "2 readings, 4.1 to 9.7 °C"),
    ("FulfilmentRequested", "SSCC 006141410000000173, waybill LA000000178US, at 2 to 8 °C"),
    ("PreSold", "from 2027-06-21 to 2027-07-05")])
def test_what_is_said_of_scans_numbers_temperatures_and_seasons(model, said):
    topic = next(t for t in TOPICS for m in t.messages if m.__name__ == model)
    body = generate.example_of(topic, MODELS[model])["payload"]
    assert ", ".join(parcel_facts.told(body)) == said
