"""The auditor: a clean history of every kind of path has no violation; each planted corruption is caught by its rule.

The history is made by the services' own machines in memory, then frozen; corruptions are planted into the frozen records,
rows and journals, so that the auditor sees what a bug would have left behind.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from pydantic_core import from_json

from schemas.envelope import Envelope, headers_of
from schemas.topics import INTAKE, ORDER, PAYMENT as PAYMENTS, REPORT, SHIPMENT
from services.auditor import invariants, rules_money
from services.auditor.audit import audit, examine
from services.auditor.evidence import CannotRead, content_of, letter_of, partition_of, read_journals
from services.auditor.facts import STOCK_KINDS
from services.auditor.report import Report
from services.auditor.rules import ORDER_RULES, RECORD_RULES, WHOLE_RULES, Call, DeadLetter, Request
from services.auditor.story import Raw, digest_of
from services.auditor.watch import is_settled
from services.console.funnel import OUTCOMES, SOURCES, STAGES, Totals, fact_of
from services.payments.machine import LEDGER
from services.runtime.decision import Incoming
from services.runtime.local import LocalKafka
from services.runtime.migrate import migrate
from services.runtime.processes import free_port
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics
from services.runtime.track import Track, fingerprint
from tests.history import PARTITIONS, History, headers_with, worlds


@lru_cache(maxsize=1)
def _made() -> History:
    return History(worlds())


@pytest.fixture
def history() -> History:
    return copy.deepcopy(_made())


def numbers(found: Report) -> set[int]:
    return {violation.rule for violation in found.violations}


def views_of(history: History) -> dict:
    """The funnel that the operators' views would answer: their own fold of the same topics."""
    totals, rows = Totals(), {}
    for (topic, partition), records in history.topics.items():
        for raw in records if topic in SOURCES else ():
            if totals.is_new(topic, partition, raw.offset) and (fact := fact_of(topic, raw.headers, raw.value)):
                rows[raw.key], _ = totals.apply(rows.get(raw.key), fact)
    return {"stages": [{"stage": stage, "reached": totals.reached[stage]} for stage in STAGES], "exits": dict(totals.exits),
            "ended": {outcome: totals.now[outcome] for outcome in OUTCOMES[1:]}, "held": dict(totals.held), "behind": 0,
            "exact": totals.exact}


# -- clean ----------------------------------------------------------------------------------------------------------------


async def test_a_clean_history_has_no_violation(history):
    found = await examine(history)
    assert found.clean, "\n".join(found.lines())
    assert found.orders == 19 and found.events > 250
    assert found.exits["cancelled: no_stock"] == 1 and found.exits["rejected: total_mismatch"] == 1
    assert found.exits["completed: delivered/charged_back"] == 1 and found.examples["completed: short pick"] == "short"
    money = found.money["USD"]
    assert money["captured"] + money["recovered"] == sum(money[name] for name in rules_money.ACCOUNTS[2:]) and money["held"] == 0
    assert found.funnel["placed"] == 18 and found.funnel["delivered"] >= found.funnel["completed"] > 0


async def test_every_rule_says_how_much_it_looked_at(history):
    history.note_what_clients_sent()
    history.note_what_a_watcher_saw()
    found = await examine(history, views=views_of(history))
    assert found.clean, "\n".join(found.lines())
    idle = {rule.label for rule in (*ORDER_RULES, *WHOLE_RULES) if not found.checked[rule.label]}
    assert not idle and all(line.startswith("4 ") for line in found.not_checked)
    line = found.as_json()
    assert (line["orders"], line["violations"], line["details"]) == (19, 0, [])
    assert json.loads(json.dumps(line, default=str)) and found.rich().plain.endswith("no violation\n")


async def test_while_it_runs_only_what_always_holds_is_judged(history):
    """A cut through a run at any moment: some events, rows and offsets are there, others not yet."""
    for records in history.topics.values():
        del records[len(records) * 2 // 3:]
    assert not (await examine(copy.deepcopy(history))).clean
    found = await examine(history, live=True)
    assert found.clean, "\n".join(found.lines())
    assert any("not while it runs" in what for what in found.not_checked)


# -- planted --------------------------------------------------------------------------------------------------------------


def duplicate_dispatch(h):
    records, at = h.find(REPORT.name, "HandedOverReported", "normal")
    h.append(REPORT.name, records[at], "normal", {"ce_id": "again"}, tracking_no="T2")


def dispatched_twice_in_the_carriers_journal(h):
    h.handovers["normal"] = {"normal-P1": {"scan:1", "scan:2"}}


def one_cent_too_much_refunded(h):
    h.change(PAYMENTS.name, "PaymentPartiallyRefunded", "part_back", amount=2501)


def one_cent_too_much_everywhere(h):
    """The service itself is wrong: event, ledger, provider and state agree with one another."""
    h.change(PAYMENTS.name, "PaymentPartiallyRefunded", "part_back", amount=2501)
    h.change(PAYMENTS.name, "PaymentSettled", "part_back", amount=3199)
    swap = {2500: 2501, 3200: 3199, -2500: -2501, -3200: -3199}
    h.ledger_["part_back"] = [b._replace(amount=swap.get(b.amount, b.amount)) for b in h.ledger_["part_back"]]
    h.calls = [(o, c._replace(amount=swap.get(c.amount, c.amount)) if o == "part_back" else c) for o, c in h.calls]
    hold = h.rows_["payments"]["part_back"]["state"]["holds"]["part_back-P1"]
    hold["refunded"], hold["released"] = 2501, 3199


def more_refunded_than_captured(h):
    h.change(PAYMENTS.name, "PaymentRefunded", "cancelled", amount=5701)


def lost_event(h):
    h.drop(SHIPMENT.name, "ParcelArrived", "normal")


def same_id_other_content(h):
    records, at = h.find(SHIPMENT.name, "ParcelHandedOver", "china")
    h.append(SHIPMENT.name, records[at], "china", {}, tracking_no="T9")


def outsiders_id_with_other_content(h):
    records, at = h.find(REPORT.name, "HandedOverReported", "china")
    h.append(REPORT.name, records[at], "china", {}, carrier="other")


def wrong_partition(h):
    key = b"stray"
    right = partition_of("stray", PARTITIONS)
    records, at = h.find(REPORT.name, "PackedReported", "normal")
    wrong = (right + 1) % PARTITIONS
    value = json.dumps(json.loads(records[at].value) | {"order_id": "stray"}).encode()
    there = h.topics[REPORT.name, wrong]
    there.append(Raw(REPORT.name, wrong, len(there), key, value, headers_with(records[at].headers, {"ce_subject": "stray"})))


def missing_cause(h):
    h.change(ORDER.name, "ReceiptConfirmed", "normal", {"ce_causationid": "nobody-said-this"})


def outsiders_missing_cause(h):
    h.change(REPORT.name, "DeliveredReported", "normal", {"ce_causationid": "shipping:normal:99"})


def cyclic_causes(h):
    h.change(ORDER.name, "OrderPlaced", "normal", {"ce_causationid": "shipping:normal:1"})


def released_before_delivered(h):
    early = (datetime(2026, 1, 1, tzinfo=UTC)).isoformat().replace("+00:00", "Z")
    h.change(PAYMENTS.name, "PaymentSettled", "normal", {"ce_time": early})


def shipped_before_captured(h):
    h.change(SHIPMENT.name, "FulfilmentRequested", "domestic", {"ce_causationid": "payments:domestic:1"})


def order_in_limbo(h):
    h.drop(ORDER.name, "OrderCompleted", "silent_buyer")
    row = h.rows_["orders"]["silent_buyer"]
    row["seq"], row["status"], row["closed"] = row["seq"] - 1, "fulfilling", False


def booked_where_no_event_books(h):
    """Balanced, complete, and on accounts that nothing else looks at."""
    last = h.ledger_["normal"][-1]
    h.ledger_["normal"] += [last._replace(entry=last.entry + 1, account=name, amount=amount, kind="fee")
                            for name, amount in (("fees", 5), ("rounding", -5))]


def closed_in_the_database_alone(h):
    h.drop(ORDER.name, "OrderCompleted", "silent_buyer")
    h.rows_["orders"]["silent_buyer"]["seq"] -= 1


def row_left_open(h):
    h.rows_["shipping"]["normal"]["closed"] = False


def ledger_unbalanced(h):
    rows = h.ledger_["normal"]
    rows[-1] = rows[-1]._replace(amount=rows[-1].amount + 1)


def ledger_is_not_the_events(h):
    h.ledger_["normal"] = [b._replace(amount=b.amount * 2) for b in h.ledger_["normal"]]


def ledger_entry_taken_out(h):
    h.ledger_["part_back"] = [b for b in h.ledger_["part_back"] if b.kind != "refund"]


def ledger_of_another_currency(h):
    h.ledger_["normal"] = [b._replace(currency="EUR") for b in h.ledger_["normal"]]


def ledger_open_to_changes(h):
    h.whole_.ledger_guarded = False


def stock_sold_twice(h):
    row = h.whole_.stock["SEA1", "NORMAL-0"]
    row["reserved"] = row["consumed"] = row["received"] + 1


def stock_not_released(h):
    h.whole_.stock["SEA1", "LINE_CUT-0"]["released"] -= 1


def undeclared_transition(h):
    h.change(SHIPMENT.name, "ParcelExported", "normal", {"ce_type": "ParcelArrived"}, destination="DE")


def completed_twice(h):
    records, at = h.find(ORDER.name, "OrderCompleted", "dispute_won")
    n = h.rows_["orders"]["dispute_won"]["seq"] + 1
    h.append(ORDER.name, records[at], "dispute_won", {"ce_id": f"orders:dispute_won:{n}", "ce_sequence": str(n)})
    h.rows_["orders"]["dispute_won"]["seq"] = n


def captured_twice_at_the_provider(h):
    call = next(c for o, c in h.calls if o == "normal" and c.kind == "capture")
    h.call("normal", **_without_line(call) | {"intent_id": "fresh"})


def _without_line(call: Call) -> dict:
    return {name: value for name, value in call._asdict().items() if name != "line"}


def intent_carried_out_twice(h):
    call = next(c for o, c in h.calls if o == "normal" and c.kind == "release")
    h.call("normal", **_without_line(call))


def never_voided_at_the_provider(h):
    h.call("nostock", intent_id="i", kind="authorise", payment_id="nostock-Y1", amount=5700, currency="USD", outcome="succeeded")


def unknown_order_at_the_provider(h):
    h.call("ghost", intent_id="i", kind="refund", payment_id="ghost-Y1", amount=1, currency="USD", outcome="succeeded")


def order_nobody_placed(h):
    h.drop(INTAKE.name, "PlaceOrder", "normal")


def placed_for_another_amount(h):
    h.change(ORDER.name, "OrderPlaced", "china", total=1_000_000)


def accepted_and_forgotten(h):
    records, at = h.find(INTAKE.name, "PlaceOrder", "normal")
    place = (INTAKE.name, partition_of("forgotten", PARTITIONS))
    value = json.dumps(json.loads(records[at].value) | {"order_id": "forgotten"}).encode()
    h.topics[place].append(Raw(*place, len(h.topics[place]), b"forgotten", value,
                               headers_with(records[at].headers, {"ce_subject": "forgotten", "ce_id": "place-forgotten"})))


def rejected_and_charged(h):
    h.call("rejected", intent_id="i", kind="capture", payment_id="rejected-Y1", amount=1, currency="USD", outcome="failed")


def published_without_commit(h):
    h.rows_["payments"]["normal"]["seq"] -= 1


def committed_and_never_published(h):
    h.rows_["payments"]["normal"]["seq"] += 1


def status_differs(h):
    h.rows_["orders"]["normal"]["status"] = "cancelled"


def parcel_differs(h):
    h.rows_["shipping"]["lost"]["state"]["parcels"]["lost-P1"]["status"] = "delivered"


def hold_differs(h):
    h.rows_["payments"]["normal"]["state"]["holds"]["normal-P1"]["held"] = 1


def order_missing_in_shipping(h):
    del h.rows_["shipping"]["declined"]


def not_as_the_schema_says(h):
    """A report with a field that nobody knows, and nobody refused it."""
    records, at = h.find(REPORT.name, "PackedReported", "normal")
    h.append(REPORT.name, records[at], "normal", {"ce_id": "other"}, weight="much")


def forged_source(h):
    records, at = h.find(SHIPMENT.name, "ParcelDelivered", "normal")
    h.append(SHIPMENT.name, records[at], "normal", {"ce_source": "mallory"})


def another_merchant(h):
    h.change(PAYMENTS.name, "PaymentSettled", "normal", {"ce_merchant": "m2"})


def parked_left_over(h):
    h.whole_.parked.append(("shipping", "normal", "payments #3"))


def intent_left_over(h):
    h.whole_.intents.append(("payments", "normal", "normal-Y1.refund.4"))


def timer_overdue(h):
    h.whole_.timers.append(("orders", "normal", datetime(2026, 11, 23, tzinfo=UTC)))


def outbox_left_over(h):
    h.whole_.outbox["orders", 0] = 2


def offset_moved_before_the_work(h):
    h.read_to["orders", PAYMENTS.name, 0] = 10**6


def reader_stopped(h):
    h.read_to["orders", PAYMENTS.name, 0] = 0


def booking_of_no_order(h):
    h.whole_.strangers.append(("the ledger has entries of no order", "ghost"))


def order_no_client_sent(h):
    h.note_what_clients_sent()
    del h.client["china"]


def order_other_than_sent(h):
    h.note_what_clients_sent()
    h.client["china"] = [r._replace(content="00") for r in h.client["china"]]


def acknowledged_and_lost(h):
    h.note_what_clients_sent()
    h.client["gone"] = [Request("line 99", "place:gone", "gone", "PlaceOrder", "00", True)]


def dead_letter(h):
    h.letters.append(DeadLetter(REPORT.name, 0, 999, "shipping", "invalid", "attempt: too large", "normal"))


def queue_behind_nothing(h):
    h.whole_.held.append(("normal", ("shipping", ORDER.name, 0, 3)))


def claim_paid_to_nobody(h):
    h.change(SHIPMENT.name, "ClaimPaid", "lost", amount=1)


def another_buyer(h):
    h.change(ORDER.name, "OrderPlaced", "normal", buyer_token="Mei Lin")


def another_duty_than_agreed(h):
    records, at = h.find(ORDER.name, "OrderPlaced", "duties")
    placed = json.loads(records[at].value)
    tax = next(charge for charge in placed["quote"]["charges"] if charge["kind"] == "import_tax")
    tax["amount"] += 1
    h.change(ORDER.name, "OrderPlaced", "duties", quote=placed["quote"])


def a_quote_nobody_froze(h):
    h.change(ORDER.name, "OrderPlaced", "duties", quote=None)


def one_cent_too_much_for_what_is_missing(h):
    h.change(SHIPMENT.name, "ParcelShortPicked", "short", refund=2501)


def third_side_of_an_entry(h):
    rows = h.ledger_["normal"]
    rows.append(rows[0]._replace(account="released", amount=0))


def ended_before_its_return_was_paid(h):
    h.change(PAYMENTS.name, "PaymentPartiallyRefunded", "part_back", {"ce_time": "2026-12-04T11:00:00Z"})
    h.change(ORDER.name, "OrderCompleted", "part_back", {"ce_time": "2026-12-04T10:00:00Z"})


def cancelled_without_an_answer(h):
    """A wish that orders told of and shipping never answered."""
    name, at = "part_back", h.find(ORDER.name, "CancellationRequested", "line_cut")
    asked, row = at[0][at[1]], h.rows_["orders"]["part_back"]
    records, last = h.find(ORDER.name, "OrderCompleted", name)
    n, row["seq"] = row["seq"], row["seq"] + 1
    value = json.dumps({"order_id": name, "cancellation_id": "c", "lines": None, "reason": ""}).encode()
    ids = {"ce_id": f"orders:{name}:{n}", "ce_sequence": str(n), "ce_subject": name}
    end = records[last]
    records[last] = end._replace(headers=headers_with(end.headers, {"ce_id": f"orders:{name}:{n + 1}", "ce_sequence": str(n + 1)}))
    records.insert(last, end._replace(value=value, headers=headers_with(asked.headers, ids)))


def customs_took_too_long(h):
    h.change(SHIPMENT.name, "CustomsReleased", "normal", {"ce_time": "2026-11-29T12:00:00Z"})


def passed_by(h):
    h.note_what_a_watcher_saw()
    h.watch.append({"passed": "payments", "topic": ORDER.name, "partition": 0, "offset": 0, "stored": 1, "order": "normal"})


def read_and_taken_back(h):
    h.note_what_a_watcher_saw()
    h.watch.append({"read": "normal", "service": "orders", "status": "placed", "seq": 1, "last": {}})


def read_and_never_committed(h):
    h.note_what_a_watcher_saw()
    seen = h.rows_["shipping"]["normal"]
    h.watch.append({"read": "normal", "service": "shipping", "status": "open", "seq": seen["seq"] + 1, "last": seen["last"]})


def placed_twice(h):
    """By a client that never learnt of the first time."""
    h.note_what_clients_sent()
    records, at = h.find(ORDER.name, "OrderPlaced", "normal")
    n = h.rows_["orders"]["normal"]["seq"] + 1
    h.append(ORDER.name, records[at], "normal", {"ce_id": f"orders:normal:{n}", "ce_sequence": str(n)})
    h.rows_["orders"]["normal"]["seq"] = n


def more_allocated_than_ordered(h):
    records, at = h.find(SHIPMENT.name, "ParcelsAllocated", "domestic")
    parcels = json.loads(records[at].value)["parcels"]
    parcels[0]["lines"][0]["quantity"] += 1
    h.change(SHIPMENT.name, "ParcelsAllocated", "domestic", parcels=parcels)


def timer_of_an_ended_order(h):
    h.whole_.needless.append(("orders", "normal"))


PLANTED = [
    (timer_of_an_ended_order, {26}),
    (placed_twice, {1, 3, 16}), (more_allocated_than_ordered, {15}),
    (passed_by, {22}), (read_and_taken_back, {30}), (read_and_never_committed, {30}),
    (another_duty_than_agreed, {12}), (a_quote_nobody_froze, {12}), (claim_paid_to_nobody, {7}), (another_buyer, {12}), (one_cent_too_much_for_what_is_missing, {12}),
    (third_side_of_an_entry, {13}), (ended_before_its_return_was_paid, {24}), (cancelled_without_an_answer, {16, 20}),
    (customs_took_too_long, {26}),
    (duplicate_dispatch, {14}), (dispatched_twice_in_the_carriers_journal, {14}),
    (one_cent_too_much_refunded, {7, 9, 12, 24, 25, 28}), (one_cent_too_much_everywhere, {12}),
    (more_refunded_than_captured, {7, 9, 10, 11, 12, 24, 25, 28}), (lost_event, {16, 17}), (same_id_other_content, {18}),
    (outsiders_id_with_other_content, {18}), (wrong_partition, {5, 19}), (missing_cause, {20}),
    (outsiders_missing_cause, {20}), (cyclic_causes, {1, 20}), (released_before_delivered, {11}),
    (shipped_before_captured, {11}), (order_in_limbo, {24}), (row_left_open, {24, 28}), (ledger_unbalanced, {7, 8, 9, 28}),
    (ledger_is_not_the_events, {7, 28}), (ledger_entry_taken_out, {7, 13, 28}), (ledger_of_another_currency, {12}),
    (ledger_open_to_changes, {13}), (stock_sold_twice, {15}), (stock_not_released, {15}), (undeclared_transition, {16}),
    (completed_twice, {16}), (captured_twice_at_the_provider, {6, 7}), (intent_carried_out_twice, {6, 7}),
    (never_voided_at_the_provider, {11}), (unknown_order_at_the_provider, {5, 7}), (order_nobody_placed, {5, 20}),
    (placed_for_another_amount, {12}), (accepted_and_forgotten, {1}), (rejected_and_charged, {2}),
    (published_without_commit, {21}), (committed_and_never_published, {21}), (status_differs, {25, 28}),
    (parcel_differs, {25}), (hold_differs, {25}), (order_missing_in_shipping, {21, 25}), (not_as_the_schema_says, {23}),
    (forged_source, {23}), (another_merchant, {23}), (parked_left_over, {26}), (intent_left_over, {26}),
    (timer_overdue, {26}), (outbox_left_over, {26}), (offset_moved_before_the_work, {22}), (reader_stopped, {26}),
    (booking_of_no_order, {25}), (dead_letter, {27}), (queue_behind_nothing, {27}), (order_no_client_sent, {5}), (order_other_than_sent, {5}),
    (acknowledged_and_lost, {1}), (booked_where_no_event_books, {28}), (closed_in_the_database_alone, {24, 25, 28}),
]


CAUGHT: set[str] = set()


@pytest.mark.parametrize("plant, rules", PLANTED, ids=lambda value: value.__name__ if callable(value) else "")
async def test_a_planted_corruption_is_caught(history, plant, rules):
    plant(history)
    found = await examine(history)
    assert numbers(found) == rules, "\n".join(found.lines())
    assert all(violation.evidence for violation in found.violations)
    CAUGHT.update(f"{violation.rule} {violation.name}" for violation in found.violations)


def test_each_rule_has_caught_something():
    """A rule that no corruption ever broke may be one that nothing can break."""
    if len(CAUGHT) < 10:
        pytest.skip("needs the corruptions before it")
    labels = {rule.label for rule in (*ORDER_RULES, *WHOLE_RULES)} | {f"{n} {name}" for n, name in RECORD_RULES.items()}
    assert labels - CAUGHT == {"29 the operators' views = the fold of the events"}, "that one has a test of its own"


def test_each_invariant_has_a_rule_or_says_where_it_is_checked():
    assert list(invariants.INVARIANTS) == list(range(1, 32))
    for number in invariants.INVARIANTS:
        assert invariants.rules_of(number) or number in invariants.ELSEWHERE


async def test_views_that_count_otherwise_are_caught(history):
    views = views_of(history)
    views["stages"][3]["reached"] += 1
    views["held"]["USD"] += 1
    assert {v.evidence[0] for v in (await examine(history, views=views)).violations if v.rule == 29} == {"reached", "held"}
    assert (await examine(history, views=views | {"exact": False})).clean, "they say themselves that they are not exact"


async def test_a_dead_letter_that_was_planted_is_no_violation(history):
    """Its reader refused it by name; what is wrong with it is no news."""
    not_as_the_schema_says(history)
    records, at = history.find(REPORT.name, "PackedReported", "normal", -1)
    history.letters.append(DeadLetter(*records[at][:3], "shipping", "invalid", "weight: unknown", "normal"))
    assert (await examine(history, expected_dead_letters=1)).clean
    assert numbers(await examine(history)) == {27}
    history.letters.clear()
    assert numbers(await examine(history, expected_dead_letters=1)) == {23, 27}


def test_a_watcher_knows_what_an_order_remembers():
    """In the form in which the runtime stores it."""
    envelope = Envelope("scan:1", "PackedReported", "/warehouse", datetime.now(UTC), "A")
    record = Raw(REPORT.name, 0, 7, b"A", b"{}", tuple(headers_of(envelope, b"")))
    assert not is_settled(record, {}, set())
    assert not is_settled(record, {"A": {"last": {}, "seen": {}, "read": {REPORT.name: 6}}}, set())
    incoming = Incoming(envelope.type, envelope.id, envelope.source, 0, envelope.time, None)
    track = Track(seen=dict([fingerprint(incoming, b"{}")]))
    assert is_settled(record, {"A": from_json(track.encode())}, set())
    assert is_settled(record, {"A": from_json(Track(read={REPORT.name: 7}).encode())}, set())
    ours = record._replace(topic=ORDER.name, headers=tuple(headers_of(envelope._replace(source="orders", sequence=3), b"")))
    assert not is_settled(ours, {"A": from_json(Track({"orders": 2}).encode())}, set())
    assert is_settled(ours, {"A": from_json(Track({"orders": 3}).encode())}, set())
    assert is_settled(ours, {}, {("A", "orders", 3)})


def test_journals_are_read_as_their_writers_leave_them(tmp_path):
    """Half lines at the end, a request sent twice, one whose outcome nobody learnt."""
    assert set(read_journals(tmp_path).notes) == {
        f"{name}.ndjson: there is no such journal" for name in ("client*", "provider", "warehouse", "carrier", "customs")} | {
            "22 and 30, watch.ndjson: nobody watched the run"}
    sent = '{"sent":"place:A","order":"A","type":"PlaceOrder","topic":"orders.intake.v1","content":"11"}\n'
    (tmp_path / "client.ndjson").write_text(
        sent + '{"unknown":"place:A"}\n' + sent + '{"acknowledged":"place:A"}\n' + sent.replace("A", "B") + '{"ackn')
    (tmp_path / "client-order.ndjson").write_text(sent.replace("A", "C") + sent.replace("A", "C").replace("11", "22"))
    (tmp_path / "provider.ndjson").write_text(json.dumps(dict(
        order_id="A", intent_id="i1", kind="capture", payment_id="A-Y1", amount=5, currency="USD", outcome="succeeded")) + "\n")
    message = b'{"order_id":"A","parcel_id":"A-P1","carrier":"c","tracking_no":"T"}'
    (tmp_path / "carrier.ndjson").write_bytes(
        b'{"id":"scan:1","order":"A","type":"HandedOverReported","topic":"shipping.report.v1","source":"/carrier/c","cause":"x",'
        b'"time":"t","message":%s}\n' % message)
    found = read_journals(tmp_path)
    assert {o: [(r.acknowledged, r.content) for r in requests] for o, requests in found.client.items()} == {
        "A": [(True, "11")], "B": [(False, "11")], "C": [(False, "different each time")]}
    assert found.provider["A"] == [Call(1, "i1", "capture", "A-Y1", 5, "USD", "succeeded")]
    assert found.handovers == {"A": {"A-P1": {"scan:1"}}}
    assert found.messages == {"carrier": {hash(("/carrier/c", "scan:1")): digest_of(message)}}


async def test_dead_letters_are_compared_with_what_was_planted_record_by_record(history, monkeypatch):
    """By the journal of whoever planted them: each, for its reason, with its bytes, and no other."""
    not_as_the_schema_says(history)
    records, at = history.find(REPORT.name, "PackedReported", "normal", -1)
    bad, journals = records[at], history.journals()
    right = DeadLetter(*bad[:3], "shipping", "invalid", "weight: unknown", "normal", content_of(*bad[3:]))

    async def found(*letters, planted=None):
        history.letters[:] = letters
        told = {bad[:3]: {"shipping": "invalid"}} if planted is None else planted
        monkeypatch.setattr(history, "journals", lambda: replace(journals, planted=told))
        return [v.evidence[-1] for v in (await examine(history)).violations if v.rule == 27]
    assert await found(right) == []
    assert "is no dead letter" in (await found())[0]
    assert await found(right._replace(reason="key")) == ["planted as invalid"]
    assert "'because' is no reason" in await found(right._replace(reason="because"), planted={bad[:3]: {"shipping": "because"}})
    assert await found(right._replace(content="00")) == ["its key, value or headers are not those of the record"]
    assert await found(right, planted={}) == ["nobody planted it"] and await found(right._replace(replayed=True), planted={}) == []
    assert len(await found(right, right._replace(service="orders"))) == 1, "each service refuses for itself"
    history.whole_.waiting.add(("shipping", *bad[:3]))
    assert await found(planted={bad[:3]: {"shipping": "parked_too_long"}}) == [], "it still waits"


def test_a_dead_letter_names_where_it_was():
    headers = {"topic": b"orders.order.v1", "partition": b"2", "offset": b"7", "reason": b"invalid", "service": b"payments"}
    raw = Raw("orders.order.v1.dlq", 0, 0, b"A", b"", tuple((f"__dlq.errors.{k}", v) for k, v in headers.items()))
    assert letter_of(raw)[:5] == ("orders.order.v1", 2, 7, "payments", "invalid")


# -- on a real broker and real databases --------------------------------------------------------------------------------------


async def store(history: History, settings: Settings) -> None:
    """Write the history where the services would have left it."""
    await ensure_topics(settings.bootstrap, PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=5)
    await producer.start()
    for (topic, partition), records in history.topics.items():
        for raw in records:
            await producer.send(topic, key=raw.key, value=raw.value, headers=list(raw.headers), partition=partition)
    for letter in history.letters:
        named = {"topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "reason": letter.reason}
        headers = [(f"__dlq.errors.{name}", str(value).encode()) for name, value in named.items()]
        await producer.send(f"{letter.topic}.dlq", key=letter.order_id.encode(), value=b"", headers=headers, partition=1)
    await producer.stop()
    whole = await history.whole()
    for service in SERVICES:
        await migrate(settings.dsn(service), service, PARTITIONS)
        db = await asyncpg.connect(settings.dsn(service))
        await db.copy_records_to_table("orders", columns=(
            "order_id", "partition", "status", "closed", "seq", "track", "state"), records=[
            (order_id, partition_of(order_id, PARTITIONS), r["status"], r["closed"], r["seq"], json.dumps({"last": r["last"]}),
             json.dumps(r["state"])) for order_id, r in history.rows_[service].items()])
        whole_orders = [order_id for order_id, r in history.rows_[service].items() if r["status"] not in ("rejected", "stock")]
        if service != "payments":
            await db.copy_records_to_table("documents", records=[(order_id, "{}") for order_id in whole_orders])
        if service == "orders":
            await db.copy_records_to_table("vault", records=[(order_id, "buyer", "t", "h", "s") for order_id in whole_orders])
        for partition in range(PARTITIONS):
            read = {t: offset for (s, t, p), offset in whole.offsets.items() if (s, p) == (service, partition)}
            await db.execute("UPDATE partitions SET offsets = $2::text::jsonb WHERE partition = $1", partition, json.dumps(read))
        if service == "payments":
            await db.copy_records_to_table("ledger", columns=LEDGER, records=[
                (o, b.entry, b.account, b.currency, b.amount, b.payment_id, b.parcel_id, b.kind, datetime.now(UTC))
                for o, rows in history.ledger_.items() for b in rows])
        if service == "shipping":
            await db.copy_records_to_table("stock", columns=("warehouse", "sku", *STOCK_KINDS), records=[
                (*place, *row.values()) for place, row in history.whole_.stock.items()])
        await db.close()
    path = settings.data_folder / "journals" / "provider.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(_without_line(call) | {"order_id": o}) + "\n" for o, call in history.calls))


async def test_what_the_services_left_is_read_whole(history, tmp_path, cache_folder, postgres, monkeypatch):
    """A broker of its own: on a shared one every other test's orders would be evidence too."""
    kafka = LocalKafka(tmp_path / "kafka", free_port(), cache=cache_folder)
    await kafka.start()
    try:
        dsns = {f"{service}_dsn": await postgres(f"audit_{service}") for service in SERVICES}
        settings = Settings(bootstrap_servers=kafka.bootstrap, data_folder=tmp_path / "data", partitions=PARTITIONS, **dsns)
        with pytest.raises(CannotRead, match="there is no topic"):
            await audit(settings)
        await store(history, settings)
        clean = await audit(settings)
        assert clean.clean, "\n".join(clean.lines())
        found = await examine(history)
        for name in ("orders", "events", "records", "money", "funnel", "exits"):
            assert getattr(clean, name) == getattr(found, name), name
        assert {k: v for k, v in clean.checked.items() if k in found.checked} == found.checked

        await corrupt(settings)
        broken = await audit(settings, live=True)
        assert numbers(broken) == {8, 9, 13, 21, 25, 27}, "\n".join(broken.lines())
        monkeypatch.setattr("services.auditor.audit.SETTLE_S", 0.5)
        broken = await audit(settings)
        assert numbers(broken) >= {7, 8, 9, 13, 21, 25, 26, 27}, "\n".join(broken.lines())
        whose = {(v.rule, v.order) for v in broken.violations}
        assert {(25, "china"), (25, "ghost"), (25, "lost"), (25, "short"), (25, "lost"), (25, "short"), (26, "normal"), (27, "normal"), (8, "part_back")} <= whose
    finally:
        await kafka.stop()


async def corrupt(settings: Settings) -> None:
    """Plant into the databases and a topic of dead letters what a bug could leave there."""
    payments = await asyncpg.connect(settings.dsn("payments"))
    await payments.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_append_only")
    await payments.execute("UPDATE ledger SET amount = amount + 1 WHERE order_id = 'part_back' AND account = 'refunded'")
    await payments.execute("INSERT INTO ledger VALUES ('ghost', 1, 'held', 'USD', 1, 'y', 'p', 'capture', now())")
    await payments.execute("INSERT INTO intents VALUES ('i', 0, 'normal', 'void', '{}')")
    await payments.execute("UPDATE orders SET seq = seq - 1 WHERE order_id = 'china'")
    await payments.close()
    orders = await asyncpg.connect(settings.dsn("orders"))
    await orders.execute("UPDATE orders SET status = 'cancelled' WHERE order_id = 'china'")
    await orders.execute("INSERT INTO outbox VALUES (0, 1, '')")
    await orders.execute("DELETE FROM documents WHERE order_id = 'lost'")
    await orders.execute("DELETE FROM vault WHERE order_id = 'short'")
    await orders.close()
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    await producer.send_and_wait(f"{REPORT.name}.dlq", key=b"normal", value=b"?", headers=[("__dlq.errors.reason", b"invalid")])
    await producer.stop()
