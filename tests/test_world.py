"""The outside world: what it answers in each scenario, that it answers the same again, and when it may commit."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from schemas import carrier_codes, generate
from schemas import orders_order as orders
from schemas import payments_payment as payments
from schemas import shipping_shipment as shipping
from schemas.envelope import Envelope, dataschema_of, envelope_of, event_id, headers_of
from schemas.shipping_report import CarrierScanReported
from schemas.topics import MODELS, ORDER, PAYMENT, REPORT, SHIPMENT
from services.runtime.clock import Clock
from services.runtime.reader import Fetched, Raw
from services.simulators.agenda import Agenda, Options, encode
from services.simulators.demo_orders import MARKETS, ORIGIN, corridor_orders, demo_orders
from services.simulators.edge import inbound_for
from services.simulators.journal import Journal
from services.simulators.outsiders import ID_MAX, Heard, Memory
from services.simulators.reactions import ROLES, react, remember
from services.simulators.scenario import SCENARIOS, destinations_of, forced_id, goods_needed, payment_token_of, scenario_of, warehouse_of

NOW = datetime(2026, 11, 1, tzinfo=UTC)
KEY = bytes(range(32))
O, P = "order-1", "order-1-p1"
LINES = [shipping.ParcelLine(line_no=3, sku="CHERRY", quantity=2, amount=500)]
ONE = [shipping.ParcelLine(line_no=3, sku="CHERRY", quantity=1, amount=250)]
ROSES = shipping.ParcelLine(line_no=4, sku="ROSE", quantity=1, amount=99)
PLAN = shipping.ParcelPlan(parcel_id=P, warehouse="SEA1", lines=LINES, freight=0, amount=500)

ALLOCATED = shipping.ParcelsAllocated(order_id=O, currency="USD", total=500, parcels=[PLAN])
HELD = payments.PaymentHeld(order_id=O, payment_id="pay-1", currency="USD", amount=500, parcels=[])
PAYOUT = payments.ManualPayoutRequested(order_id=O, payment_id="pay-1", currency="USD", parcel_id=P, amount=500,
                                        payout_id="po-1")
COMPLETED = orders.OrderCompleted(order_id=O, outcomes={P: "delivered/settled", "p0": "cancelled/voided"})
DISPUTED = orders.DisputeOpened(order_id=O, dispute_id="d-1", parcel_id=P)


def parcel(name: str, **fields) -> object:
    return MODELS[name](order_id=O, parcel_id=P, **fields)


def request(lines=LINES):
    return parcel("FulfilmentRequested", warehouse="SEA1", destination="CN", regime="china", lines=lines)


def held_for(reason: str):
    return orders.OrderHeld(order_id=O, reason=reason, ref="r-1")


def second_box():
    return request().model_copy(update={"parcel_id": f"{P}.2"})


def handed_over(regime="abroad"):
    return parcel("ParcelHandedOver", carrier="c", tracking_no="t", destination="DE", regime=regime)


def resolved(outcome: str):
    return orders.DisputeResolved(order_id=O, dispute_id="d-1", parcel_id=P, outcome=outcome)


PRESENTED = parcel("CustomsPresented", destination="DE")
DELIVERED, RELEASED = parcel("ParcelDelivered"), parcel("CustomsReleased")
INTERCEPT = parcel("InterceptRequested", cancellation_id="c-1")
ASKED = parcel("CancellationAsked", cancellation_id="c-1", until=datetime(2026, 11, 24, tzinfo=UTC))
LIST_REJECTED = parcel("ListRejected", list_no="order-1-P1.L1", status="100", attempt=1)
RECEIVED = parcel("ReturnReceived", return_id="r-1", lines=[], refund=250)
PACKED = parcel("ParcelPacked", warehouse="SEA1", destination="DE", regime="abroad")
THREE = "OutForDelivery DeliveryFailure OutForDelivery DeliveryFailure OutForDelivery DeliveryFailure"

# role, scenario, given (heard before), when, then (the messages' short names)
CASES = [
    ("warehouse", "normal", [], request(), "Packed"),
    ("warehouse", "short_pick", [], request(), "ShortPick:3x1 Packed"),
    ("warehouse", "short_pick", [], request(ONE), "ShortPick:3x1"),
    ("warehouse", "packing_rejected", [], request(), "PackingRejected"),
    ("warehouse", "warehouse_hold", [], request(), "PackingHeld PackingResumed Packed"),
    ("warehouse", "warehouse_hold_expires", [], request(), "PackingHeld"),
    ("warehouse", "cancel_begun_accepted", [], request(), "PackingStarted Packed"),
    ("storefront", "merchant_frozen_lifted", [], held_for("merchant_frozen"), "FileAppeal DecideAppeal:lifted"),
    ("storefront", "brand_covered", [], held_for("real_name"), ""),
    ("storefront", "merchant_frozen_lifted", [], held_for("real_name"), ""),
    ("warehouse", "parcel_split", [], request(), "Split:3x1 Packed"),
    ("warehouse", "parcel_split", [], request(ONE), "Packed"),
    ("warehouse", "parcel_split", [], second_box(), "Packed"),
    ("warehouse", "parcel_split_ready", [], request([*LINES, ROSES]), "Split:3x2 PackingHeld PackingResumed Packed"),
    ("warehouse", "parcel_split_ready", [], second_box(), "Packed"),
    ("warehouse", "china_split_refused", [], request(), "Split:3x1 Packed"),
    ("warehouse", "cancel_begun_accepted", [], ASKED, "CancellationAccepted"),
    ("warehouse", "cancel_begun_declined", [], ASKED, "CancellationRefused"),
    ("warehouse", "cancel_begun_silent", [], ASKED, ""),
    ("storefront", "cancel_begun_line", [], parcel("PackingStarted"), "CancelOrder:1x1"),
    ("storefront", "cancel_begun_silent", [], parcel("PackingStarted"), "CancelOrder"),
    ("warehouse", "normal", [], parcel("ParcelReturning", reason="x"), "ReturnedToSender"),
    ("warehouse", "customs_refused", [], parcel("CustomsRefused", reason="x", refund=1), "ReturnedToSender"),
    ("warehouse", "return_whole", [], parcel("ReturnAuthorised", return_id="r-1"), "ReturnReceived"),
    ("warehouse", "part_stock_follows", [], shipping.ParcelBackordered(
        order_id=O, parcel_id=P, line_no=1, sku="PART-1", quantity=2, until=datetime(2026, 12, 7, tzinfo=UTC)), "InboundReceived"),
    ("warehouse", "part_stock_expires", [], shipping.ParcelBackordered(
        order_id=O, parcel_id=P, line_no=1, sku="PART-1", quantity=2, until=datetime(2026, 12, 7, tzinfo=UTC)), ""),
    ("warehouse", "part_stock_wait", [], shipping.Backordered(order_id=O, missing=[
        shipping.MissingLine(line_no=1, sku="PART-1", quantity=2)]), "InboundReceived"),
    ("warehouse", "no_stock", [], shipping.Backordered(order_id=O, missing=[
        shipping.MissingLine(line_no=1, sku="NONE-1", quantity=2)]), ""),
    ("carrier", "normal", [], PACKED, "HandedOver"),
    ("carrier", "normal", [], handed_over(), "Exported Arrived"),
    ("carrier", "normal", [], handed_over("domestic"), "OutForDelivery Delivered"),
    ("carrier", "normal", [], RELEASED, "OutForDelivery Delivered"),
    ("carrier", "delivery_pickup", [], RELEASED, THREE),
    ("carrier", "delivery_pickup", [], handed_over("domestic"), THREE),
    ("carrier", "delivery_pickup", [], parcel("ParcelAtPickup"), "Delivered"),
    ("carrier", "delivery_return", [], RELEASED, THREE),
    ("carrier", "delivery_return", [], parcel("ParcelAtPickup"), ""),
    ("carrier", "lost_silent", [], handed_over(), ""),
    ("carrier", "lost_silent", [], INTERCEPT, "InterceptRefused"),
    ("carrier", "lost_reported", [], handed_over(), "Loss"),
    ("carrier", "destroyed", [], handed_over(), "Destroyed"),
    ("carrier", "pickup_point", [], parcel("ParcelAtPickup"), "Delivered"),
    ("carrier", "lost_reported", [], parcel("ParcelLost", reason="x", refund=9, claim=7), "ClaimPaid:7"),
    ("carrier", "lost_silent", [], parcel("ParcelLost", reason="x", refund=9, claim=0), ""),
    ("carrier", "cancel_too_late_accepted", [], handed_over(), ""),
    ("carrier", "cancel_too_late_accepted", [], INTERCEPT, "InterceptAccepted"),
    ("carrier", "cancel_too_late_accepted", [INTERCEPT], RELEASED, ""),
    ("carrier", "cancel_too_late_declined", [], INTERCEPT, "InterceptRefused"),
    ("carrier", "cancel_too_late_declined", [INTERCEPT], RELEASED, "OutForDelivery Delivered"),
    ("customs", "normal", [], parcel("ParcelArrived", destination="DE"), "Presented"),
    ("customs", "normal", [], PRESENTED, "CustomsRelease"),
    ("customs", "customs_held", [], PRESENTED, "CustomsHold CustomsRelease"),
    ("customs", "customs_refused", [], PRESENTED, "CustomsRefusal"),
    ("storefront", "normal", [], DELIVERED, "ConfirmReceipt"),
    ("storefront", "normal", [], ALLOCATED, ""),
    ("storefront", "normal", [], HELD, ""),
    ("storefront", "never_confirmed", [], DELIVERED, ""),
    ("storefront", "cancel_before_payment", [], ALLOCATED, "CancelOrder"),
    ("storefront", "cancel_whole", [], HELD, "CancelOrder"),
    ("storefront", "cancel_whole", [HELD], HELD, ""),
    ("storefront", "refund_fails", [], HELD, "CancelOrder"),
    ("storefront", "cancel_line", [], HELD, "CancelOrder:1x1"),
    ("storefront", "cancel_too_late_accepted", [], handed_over(), "CancelOrder"),
    ("storefront", "cancel_too_late_declined", [handed_over()], handed_over(), ""),
    ("storefront", "return_whole", [], DELIVERED, "RequestReturn"),
    ("storefront", "return_whole", [], RECEIVED, ""),
    ("storefront", "return_line", [ALLOCATED], DELIVERED, "RequestReturn:3x1"),
    ("storefront", "return_line", [ALLOCATED], RECEIVED, "ConfirmReceipt"),
    ("storefront", "return_line", [], RECEIVED, "ConfirmReceipt"),
    ("storefront", "china_list_rejected", [ALLOCATED], LIST_REJECTED, "SupplyDocuments:3"),
    ("storefront", "china_list_rejected", [], LIST_REJECTED, "SupplyDocuments:1"),
    ("storefront", "return_after_settlement", [], DELIVERED, "ConfirmReceipt"),
    ("storefront", "return_after_settlement", [], COMPLETED, "RequestReturn"),
    ("storefront", "dispute_won", [], DELIVERED, "OpenDispute"),
    ("storefront", "dispute_won", [], DISPUTED, "ResolveDispute:won"),
    ("storefront", "dispute_won", [], resolved("won"), "ConfirmReceipt"),
    ("storefront", "dispute_lost", [], DISPUTED, "ResolveDispute:lost"),
    ("storefront", "dispute_lost", [], resolved("lost"), ""),
    ("storefront", "grant_refund", [], DELIVERED, "ConfirmReceipt"),
    ("storefront", "grant_refund", [], COMPLETED, "GrantRefund:100"),
    ("storefront", "grant_refund", [COMPLETED], COMPLETED, ""),
    ("storefront", "refund_fails", [], PAYOUT, "RecordManualPayout:500"),
]


def short(message) -> str:
    name = re.sub("Reported$", "", carrier_codes.meaning_of(message).report if isinstance(message, CarrierScanReported)
                  else type(message).__name__)
    for field in ("attempt", "outcome", "amount"):
        if getattr(message, field, None) is not None:
            return f"{name}:{getattr(message, field)}"
    lines = getattr(message, "lines", None)
    quantity = f"x{lines[0].quantity}" if lines and hasattr(lines[0], "quantity") else ""
    return f"{name}:{lines[0].line_no}{quantity}" if lines else name


@pytest.mark.parametrize(("role", "scenario", "given", "when", "then"), CASES,
                         ids=[f"{c[0]}-{c[1]}-{len(c[2])}-{type(c[3]).__name__}-{c[4][:12]}" for c in CASES])
def test_reactions(role, scenario, given, when, then):
    memory = Memory(seed=1)
    for before in given:
        remember(Heard("shipping:order-1:1", before), scenario, memory)
    heard = Heard("shipping:order-1:2", when)
    said = react(role, heard, scenario, memory)
    assert " ".join(short(r.message) for r in said) == then
    assert said == react(role, heard, scenario, memory), "the same event gives the same answers"
    assert len({r.id for r in said}) == len(said)
    assert [r.delay_s for r in said] == sorted(r.delay_s for r in said)
    for reaction in said:  # what the world says is what the schema lets pass
        type(reaction.message).model_validate_json(reaction.message.model_dump_json())


def test_every_role_is_silent_about_events_that_are_not_its_business():
    for role in ROLES:
        assert react(role, Heard("x", parcel("ParcelExported")), "normal", Memory(1)) == []


def test_a_long_partner_id_still_gives_an_id_that_an_envelope_takes():
    authorised = parcel("ReturnAuthorised", return_id="r" * 5 * ID_MAX)
    assert len(react("warehouse", Heard("x", authorised), "normal", Memory(1))[0].id) <= 200


def test_what_is_remembered_outlives_a_session():
    options, clock = Options("storefront", "", seed=1, exits_permille=0), Clock(NOW, NOW, 3600.0)
    memory = Memory(seed=1)
    remember(Heard("shipping:order-1:1", ALLOCATED), "return_line", Agenda(options, clock, memory).memory)
    assert Agenda(options, clock, memory).memory.first_line


def test_memory_is_bounded():
    memory = Memory(1, limit=3)
    for number in range(10):
        memory.note(memory.stopped, f"p{number}")
    assert list(memory.stopped) == ["p7", "p8", "p9"]


def test_scenarios_are_drawn_the_same_again_and_in_the_shares_of_the_table():
    ids = [f"order-{n}" for n in range(20_000)]
    drawn = Counter(scenario_of(i, 7, 200) for i in ids)
    assert drawn == Counter(scenario_of(i, 7, 200) for i in ids)
    assert 0.18 < 1 - drawn["normal"] / len(ids) < 0.22
    assert set(drawn) == {"normal"} | {s.name for s in SCENARIOS.values() if s.weight}, "the others need an id that forces them"
    assert all(SCENARIOS[name].fast for name in {scenario_of(i, 7, 1000, fast=True) for i in ids})
    assert {scenario_of(i, 7, 0) for i in ids} == {"normal"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_test_id_forces_its_scenario(name):
    assert scenario_of(forced_id(name, "1"), seed=3, exits_permille=0) == name
    assert payment_token_of(name).startswith("tok_test_")


def record_like(data, sequence: int, offset: int, time: datetime = NOW):
    """A consumed record of one of our services."""
    topic = next(t for t in (ORDER, PAYMENT, SHIPMENT) if type(data) in t.messages)
    source, name = topic.name.split(".")[0], type(data).__name__
    envelope = Envelope(event_id(source, data.order_id, sequence), name, source, time, data.order_id, sequence,
                        f"place:{data.order_id}", "cause", "merchant-1")

    headers = tuple(headers_of(envelope, dataschema_of(topic.name, name)))
    return Raw(offset, data.order_id.encode(), data.model_dump_json().encode(), headers, name.encode(), None)


def fetched(*records: Raw) -> Fetched:
    found = Fetched(records)
    found.end = records[-1].offset + 1
    return found


def agenda(role="all", fast=False) -> Agenda:
    return Agenda(Options(role, "", seed=1, exits_permille=0, fast=fast), Clock(NOW, NOW, 3600.0))


TP = TopicPartition(SHIPMENT.name, 0)


def test_headers_are_those_of_the_envelope_and_copy_what_belongs_to_the_order():
    said = agenda(fast=True).hear(TP, fetched(record_like(request(), 5, 0)), 0.0)
    _, _, headers = encode(said[0])
    envelope = envelope_of(tuple(headers))
    assert headers == headers_of(envelope, dataschema_of(REPORT.name, "PackedReported"))
    assert envelope == Envelope(f"packed:{P}", "PackedReported", "/warehouse/SEA1", NOW, O, 0, f"place:{O}",
                                f"shipping:{O}:5", "merchant-1", dataschema_of(REPORT.name, "PackedReported"))


def test_a_pending_answer_holds_the_offset_back_until_it_is_said():
    it = agenda()
    start = NOW.timestamp()
    assert it.hear(TP, fetched(record_like(parcel("ParcelExported"), 1, 10), record_like(handed_over(), 2, 11),
                               record_like(parcel("ParcelExported"), 3, 12)), start) == []
    assert it.safe_offsets() == {TP: 11}
    later = it.due(start + 12.1)  # 2 to 12 trade hours, at an hour a second
    assert [short(s.reaction.message) for s in later] == ["Exported", "Arrived"]
    assert start + 1 <= start + (envelope_of(tuple(encode(later[0])[2])).time - NOW).total_seconds() / 3600 <= start + 6
    it.answered(later[:1])
    assert it.safe_offsets() == {TP: 11}
    it.answered(later[1:])
    assert it.safe_offsets() == {TP: 13}


def test_an_event_that_cannot_be_read_is_counted_and_does_not_stop_the_world():
    broken, it = record_like(request(), 1, 0)._replace(value=b'{"order_id":'), agenda(fast=True)
    assert len(it.hear(TP, fetched(broken, record_like(request(), 2, 1)), 0.0)) == 1
    assert it.counts["unreadable"] == 1 and it.safe_offsets() == {TP: 2}


def test_a_stopped_parcel_is_not_scanned_any_more_even_when_the_scan_was_planned():
    it = agenda()
    it.hear(TP, fetched(record_like(handed_over(), 1, 0),
                        record_like(parcel("ParcelCancelled", reason="x", refund=0), 2, 1)), 0.0)
    assert it.unstopped(it.due(NOW.timestamp() + 99)) == []


def test_partitions_that_went_to_another_reader_are_forgotten():
    it = agenda()
    it.hear(TP, fetched(record_like(request(), 1, 0)), 0.0)
    it.forget([TP])
    assert it.next_due() is None and it.safe_offsets() == {}


def test_a_journal_drops_the_half_line_of_a_writer_that_was_killed(tmp_path: Path):
    path = tmp_path / "j" / "carrier.ndjson"
    journal = Journal(path)
    journal.write([b'{"id":1}', b'{"id":2}'])
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"id":' + b"9" * 100_000)
    journal = Journal(path)
    journal.write([b'{"id":3}'])
    journal.close()
    assert path.read_bytes() == b'{"id":1}\n{"id":2}\n{"id":3}\n'


def test_demo_orders_add_up_and_contain_each_scenario():
    made = list(demo_orders(5, 400, vault_key=KEY, placed_at=NOW))
    assert [o.order_id for o in made] == [o.order_id for o in demo_orders(5, 400, vault_key=KEY, placed_at=NOW)]
    assert {scenario_of(o.order_id, 5) for o in made} == set(SCENARIOS)
    wrong = [o.order_id for o in made if o.total != sum(l.amount for l in o.lines) + o.freight + o.tax]
    assert wrong == [forced_id("refused", "demo-5")]
    two = sum(len({warehouse_of(l.sku) for l in o.lines}) > 1 for o in made)
    assert 0.13 < two / len(made) < 0.27
    assert all(o.origin != o.destination for o in demo_orders(5, 300, vault_key=KEY, placed_at=NOW, domestic=False))


def test_corridor_orders_take_every_scenario_to_every_country():
    made = corridor_orders(5, 640, vault_key=KEY, placed_at=NOW)
    assert len(made) == len({order.order_id for order in made}) == 640
    reached = {(scenario_of(order.order_id, 5), order.destination) for order in made}
    assert reached >= {(name, country) for name in SCENARIOS for country in MARKETS
                       if country in destinations_of(name, [c for c in MARKETS if c != ORIGIN])}


def test_stock_covers_the_orders_except_where_a_scenario_says_otherwise():
    made = list(demo_orders(5, 100, vault_key=KEY, placed_at=NOW))
    wanted, stocked = Counter(), Counter()
    for order in made:
        wanted.update({line.sku: 0 for line in order.lines})
        for line in order.lines:
            wanted[line.sku] += line.quantity * goods_needed(order.order_id)
    for record in inbound_for(made, batch="b", time=NOW):
        assert record.key == f"stock:{warehouse_of(record.message.sku)}:{record.message.sku}".encode()
        stocked[record.message.sku] += record.message.quantity
    short = {line.sku for order in made if order.order_id.startswith("try.season_sold_out.") for line in order.lines}
    for sku, quantity in wanted.items():
        missing = 1 if sku in short else quantity if sku.startswith("NONE-") else 1 if sku.startswith("PART-") else 0
        assert stocked[sku] == quantity - missing, sku


# -- by the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "event", "scans"), [
    ("warehouse", "FulfilmentRequested", ["packed"]), ("carrier", "ParcelPacked", ["handed-over"]),
    ("carrier", "ParcelHandedOver", ["exported", "arrived"]), ("carrier", "CustomsReleased", ["out:1", "delivered"]),
])
def test_who_has_a_plan_keeps_to_it(role, event, scans):
    data = MODELS[event].model_validate(generate.example_of(SHIPMENT, MODELS[event])["payload"])
    planned = [datetime(2026, 11, 25, 12, tzinfo=UTC) + timedelta(hours=7 * n) for n in range(len(scans))]
    heard = Heard("shipping:A:1", data.model_copy(update={"planned": planned, "cold": None} if "cold" in type(data).model_fields
                                                  else {"planned": planned}), "2026-11-25T00:00:00.000000Z")
    said = react(role, heard, "normal", Memory(7))
    assert [r.id.rpartition(":")[0] for r in said] == scans
    for reaction, due in zip(said, planned):
        at = datetime(2026, 11, 25, tzinfo=UTC) + timedelta(seconds=reaction.delay_s)
        assert at < due and (scans == ["packed"] or due - at <= timedelta(hours=4))
