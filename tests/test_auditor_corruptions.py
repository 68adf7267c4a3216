"""Planted corruptions: what a bug would leave behind, put into a clean history, is caught by the rules meant for it.

Corruptions are planted into frozen records, rows and journals, so that the auditor sees what it would see of a bug; bugs of
code are in `tests.planted_bugs`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from schemas.topics import INTAKE, ORDER, PAYMENT as PAYMENTS, REPORT, SENSOR, SHIPMENT
from services.auditor.audit import examine
from services.auditor.evidence import partition_of
from services.auditor.report import Report
from services.auditor.rules import ORDER_RULES, RECORD_RULES, WHOLE_RULES, DeadLetter, Request
from services.auditor.story import Raw
from services.explorer.simulation import START
from tests.history import PARTITIONS, headers_with, without_line


def numbers(found: Report) -> set[int]:
    return {violation.rule for violation in found.violations}


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


def a_freeze_that_nobody_decided(h):
    h.change(ORDER.name, "MerchantFrozen", "merchant:m9", {"ce_type": "MerchantApproved"}, fee_plan="standard",
             payout_currency="USD")


def paid_out_while_frozen(h):
    records, at = h.find(SHIPMENT.name, "ParcelDelivered", "frozen")
    h.change(PAYMENTS.name, "PaymentSettled", "frozen", {"ce_time": dict(records[at].headers)["ce_time"].decode()})


def handed_over_without_a_word(h):
    h.change(SHIPMENT.name, "ParcelHandedOver", "frozen", despite=[])


def handed_over_unscreened(h):
    h.change(ORDER.name, "OrderPlaced", "normal", screening_list="")


def packed_with_a_short_code(h):
    records, at = h.find(ORDER.name, "OrderPlaced", "normal")
    lines = [line | {"hs_code": "950300"} for line in json.loads(records[at].value)["lines"]]
    h.change(ORDER.name, "OrderPlaced", "normal", lines=lines, declaration={"name": "H1", "rule_id": "eu.full", "hs_digits": 8})


def handed_over_though_blocked(h):
    h.change(ORDER.name, "ScreeningDecided", "reviewed", outcome="block")


def a_review_that_held_nobody(h):
    h.change(ORDER.name, "OrderHeld", "reviewed", reason="other")


def handed_over_though_listed_since(h):
    h.change(ORDER.name, "ScreeningDecided", "listed_later", outcome="block")


def paid_for_by_somebody_else(h):
    h.change(ORDER.name, "RealNameAnswered", "named", outcome="mismatch")


def a_registry_that_held_nobody(h):
    h.change(ORDER.name, "OrderHeld", "named", reason="other")


def handed_over_while_somebody_looked(h):
    """The hand-over was not told to wait: it stands before the result."""
    records, at = h.find(SHIPMENT.name, "InspectionEnded", "copy")
    _, then = h.find(SHIPMENT.name, "ParcelHandedOver", "copy")
    ended, handed = records[at], records[then]
    records[at], records[then] = (a._replace(offset=b.offset, headers=headers_with(a.headers, {
        name: dict(b.headers)[name].decode() for name in ("ce_id", "ce_sequence", "ce_time")})) for a, b in ((handed, ended), (ended, handed)))


def an_alert_that_nobody_looked_into(h):
    h.change(SHIPMENT.name, "InspectionHeld", "copied", {"ce_causationid": "somebody"}, parcel_id="copied-P1", inspection_id="other")


def a_counterfeit_that_nobody_complained_about(h):
    h.change(ORDER.name, "ComplaintFiled", "copied", complaint_id="other")


def a_copy_that_nobody_noticed(h):
    h.change(SHIPMENT.name, "SerialAlert", "copy", serial="S9")


def a_brand_that_is_protected_twice(h):
    h.change(ORDER.name, "AuthorisationGranted", "brand:acme", {"ce_type": "BrandRegistered"}, name="ACME", owner="acme")


def sold_without_a_word_about_the_brand(h):
    h.change(ORDER.name, "OrderPlaced", "branded", brands=None)
    h.change(ORDER.name, "OrderHeld", "branded", reason="other")
    h.change(ORDER.name, "OrderResumed", "branded", reason="other")


def sold_by_a_chain_with_a_gap(h):
    h.change(ORDER.name, "OrderPlaced", "branded", brands=[{"brand": "brand:acme", "lines": [1], "links": ["A2"]}])


def sold_where_nobody_may(h):
    """The service took an authorisation for the EU to cover Britain."""
    for topic, name in ((INTAKE, "PlaceOrder"), (ORDER, "OrderPlaced")):
        h.change(topic.name, name, "branded", destination="GB")


def sold_on_with_a_broken_chain(h):
    h.change(ORDER.name, "OrderHeld", "branded", reason="other")
    h.change(ORDER.name, "OrderResumed", "branded", reason="other")


def never_held(h):
    h.change(ORDER.name, "OrderHeld", "frozen", reason="screening")
    h.change(ORDER.name, "OrderResumed", "frozen", reason="screening")


def order_in_limbo(h):
    h.drop(ORDER.name, "OrderCompleted", "silent_buyer")
    row = h.rows_["orders"]["silent_buyer"]
    row["seq"], row["status"], row["closed"] = row["seq"] - 1, "fulfilling", False


def booked_where_no_event_books(h):
    """Balanced, complete, and on accounts that nothing else looks at."""
    last = h.ledger_["normal"][-1]
    h.ledger_["normal"] += [last._replace(entry=last.entry + 1, account=name, amount=amount, kind="variance")
                            for name, amount in (("fee", 5), ("variance", -5))]


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
    h.call("normal", **without_line(call) | {"intent_id": "fresh"})


def intent_carried_out_twice(h):
    call = next(c for o, c in h.calls if o == "normal" and c.kind == "release")
    h.call("normal", **without_line(call))


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
    rows.append(rows[0]._replace(account="held", amount=0))


def ended_before_its_return_was_paid(h):
    h.change(PAYMENTS.name, "PaymentPartiallyRefunded", "part_back", {"ce_time": "2026-12-04T11:00:00Z"})
    h.change(ORDER.name, "OrderCompleted", "part_back", {"ce_time": "2026-12-04T10:00:00Z"})


def promised_before_it_came(h):
    h.change(SHIPMENT.name, "BackorderFilled", "late_goods", {"ce_time": "2026-11-30T12:00:00Z"})


def _split(h):
    records, at = h.find(SHIPMENT.name, "ParcelSplit", "boxes")
    return json.loads(records[at].value)


def dearer_in_two_boxes(h):
    """One minor unit more for the second than the first has less."""
    part = _split(h)["part"]
    lines = [line | {"amount": line["amount"] + 1} for line in part["lines"]]
    h.change(SHIPMENT.name, "ParcelSplit", "boxes", part=part | {"amount": part["amount"] + 1, "lines": lines})


def a_unit_in_both_boxes(h):
    h.change(SHIPMENT.name, "ParcelSplit", "boxes", lines=[line | {"quantity": line["quantity"] + 1} for line in _split(h)["lines"]])


def escrow_left_behind(h):
    h.change(PAYMENTS.name, "PaymentDivided", "boxes", amount=2640)


def the_second_box_is_promised_later(h):
    part = _split(h)["part"]
    h.change(SHIPMENT.name, "ParcelSplit", "boxes", part=part | {"route": part["route"] | {"promised_at": "2026-11-26T19:00:00Z"}})


def asked_though_nobody_had_begun(h):
    h.change(SHIPMENT.name, "PackingStarted", "begun", parcel_id="begun-P9")


def asked_and_never_answered(h):
    h.change(SHIPMENT.name, "CancellationDeclined", "begun", cancellation_id="another")


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


def another_value_reserved(h):
    records, at = h.find(ORDER.name, "OrderPlaced", "china")
    china = json.loads(records[at].value)["china"]
    h.change(ORDER.name, "OrderPlaced", "china", china=china | {"value": china["value"] - 1})


def a_quota_nobody_committed(h):
    h.change(ORDER.name, "QuotaMoved", "china", kind="release")


def a_person_above_the_limit(h):
    """Table and events agree: the service let it happen."""
    h.whole_.quota["quota:somebody:2026"] = {"reserved": 2_600_001, "committed": 2_600_001, "released": 0, "restored": 0}


def _plan(h, name: str, **numbers):
    records, at = h.find(SHIPMENT.name, "ParcelsAllocated", name)
    plans = json.loads(records[at].value)["parcels"]
    h.change(SHIPMENT.name, "ParcelsAllocated", name, parcels=[plans[0] | numbers, *plans[1:]])


def a_number_that_does_not_hold(h):
    _plan(h, "normal", sscc="106141412345678907")


def two_parcels_of_one_number(h):
    records, at = h.find(SHIPMENT.name, "ParcelsAllocated", "china")
    _plan(h, "normal", sscc=json.loads(records[at].value)["parcels"][0]["sscc"])


def told_of_a_shorter_silence(h):
    h.change(SHIPMENT.name, "ParcelQuarantined", "silent", minutes=60)


def a_silence_taken_for_an_excursion(h):
    h.change(SHIPMENT.name, "ParcelQuarantined", "silent", silent=False)


def an_excursion_nobody_told(h):
    """The view lost a reading, and shipping never heard."""
    records, at = h.find(SENSOR.name, "SensorReported", "cold")
    told = json.loads(records[at].value)
    report = told["sensor_element_list"][0]["sensor_report"]
    late = [r | {"time": (datetime.fromisoformat(r["time"]) + timedelta(days=3)).isoformat()} for r in report]
    h.append(SENSOR.name, records[at], "cold", {"ce_id": "late"}, sensor_element_list=[
        told["sensor_element_list"][0] | {"sensor_report": late}])


def an_excursion_of_no_reading(h):
    records, at = h.find(SENSOR.name, "SensorReported", "cold")
    element = json.loads(records[at].value)["sensor_element_list"][0]
    h.change(SENSOR.name, "SensorReported", "cold", sensor_element_list=[
        element | {"sensor_report": [r | {"value_tenths": 50} for r in element["sensor_report"]]}])


def a_logger_set_too_wide(h):
    records, at = h.find(SENSOR.name, "SensorReported", "cold")
    element = json.loads(records[at].value)["sensor_element_list"][0]
    wide = element["sensor_metadata"] | {"band": {"low_tenths": 20, "high_tenths": 90, "tolerance_minutes": 30}}
    h.change(SENSOR.name, "SensorReported", "cold", sensor_element_list=[element | {"sensor_metadata": wide}])


def given_out_before_anybody_decided(h):
    h.change(SHIPMENT.name, "QualityReleased", "cold", excursion_id="another")


def decided_long_after_the_deadline(h):
    h.change(SHIPMENT.name, "QualityReleased", "cold", {"ce_time": "2026-12-23T12:00:00Z"})


def handed_over_after_the_season(h):
    h.change(SHIPMENT.name, "ParcelHandedOver", "season", {"ce_time": "2026-12-23T12:00:00Z"})


def charged_before_the_season(h):
    h.change(PAYMENTS.name, "PaymentAuthorised", "season", {"ce_time": "2026-11-23T13:00:00Z"})


def promised_and_never_let_go(h):
    h.whole_.stock["SEA1", "SEASON"]["unsold"] = 0


def carried_under_anothers_number(h):
    records, at = h.find(REPORT.name, "HandedOverReported", "normal")
    h.change(REPORT.name, "HandedOverReported", "normal", tracking_no="RA473124829US")


def _moved(h, order_id, kind, account, to):
    """What the ledger has on one account stands on another."""
    h.ledger_[order_id] = [b._replace(account=to) if (b.kind, b.account) == (kind, account) else b for b in h.ledger_[order_id]]


def freight_booked_as_fee(h):
    _moved(h, "split", "release", "carrier", "fee2")


def fee_told_one_cent_too_high(h):
    """Event and ledger agree on it."""
    records, at = h.find(PAYMENTS.name, "PaymentSettled", "split")
    parts = json.loads(records[at].value)["shares"]
    for part in parts:
        part["amount"] += {"fee": 1, "merchant": -1}.get(part["account"], 0)
    h.change(PAYMENTS.name, "PaymentSettled", "split", shares=parts)
    h.ledger_["split"] = [b._replace(amount=b.amount + {"fee": 1, "merchant": -1}.get(b.account, 0) * (b.kind == "release"))
                          for b in h.ledger_["split"]]


def _terms(h, **change):
    """Orders froze, and payments obeyed, something else."""
    records, at = h.find(ORDER.name, "OrderPlaced", "bank")
    h.change(ORDER.name, "OrderPlaced", "bank", terms=json.loads(records[at].value)["terms"] | change)


def paid_out_in_another_currency(h):
    _terms(h, payout="EUR")


def accepted_by_terms_of_tomorrow(h):
    _terms(h, version=2)


def a_plan_that_he_never_agreed_to(h):
    _terms(h, plan="p2")


def more_claimed_back_than_customs_took(h):
    """Event, ledger and state agree."""
    records, at = h.find(PAYMENTS.name, "TaxReclaimed", "returned")
    h.change(PAYMENTS.name, "TaxReclaimed", "returned", amount=json.loads(records[at].value)["amount"] + 1)
    h.ledger_["returned"] = [b._replace(amount=b.amount + (1 if b.amount > 0 else -1)) if b.kind == "reclaim" else b
                             for b in h.ledger_["returned"]]


def claimed_for_the_wrong_one(h):
    h.change(PAYMENTS.name, "TaxReclaimed", "returned", credited="platform")


def told_in_time_and_was_late(h):
    h.change(ORDER.name, "OrderPlaced", "returned", china=_china(h, back_days=0))


def _china(h, **change):
    records, at = h.find(ORDER.name, "OrderPlaced", "returned")
    return json.loads(records[at].value)["china"] | change


def tax_of_a_parcel_forgotten(h):
    records, at = h.find(SHIPMENT.name, "ParcelsAllocated", "split")
    parcels = json.loads(records[at].value)["parcels"]
    parcels[0]["tax"] -= 100
    h.change(SHIPMENT.name, "ParcelsAllocated", "split", parcels=parcels)


def bill_of_customs_not_booked(h):
    h.ledger_["split"] = [b._replace(amount=b.amount - (37 if b.amount > 0 else -37)) if b.kind == "assess" else b
                          for b in h.ledger_["split"]]


def the_buyer_pays_the_variance(h):
    _moved(h, "split", "variance", "variance", "buyer")


def _route(h, order_id, change):
    records, at = h.find(SHIPMENT.name, "ParcelsAllocated", order_id)
    parcels = json.loads(records[at].value)["parcels"]
    change(parcels[0]["route"])
    h.change(SHIPMENT.name, "ParcelsAllocated", order_id, parcels=parcels)


def promised_other_than_planned(h):
    _route(h, "held_up", lambda route: route.update(promised_at="2026-12-24T00:00:00Z"))


def a_plan_that_leaps(h):
    _route(h, "late", lambda route: route["legs"].pop(0))


def accepted_at_another_time(h):
    h.change(SHIPMENT.name, "ParcelsAllocated", "late", accepted_at="2026-11-22T00:00:00Z")


def a_pause_made_longer(h):
    h.change(SHIPMENT.name, "PromiseResumed", "held_up", paused_s=90_000)


def a_pause_of_customs_without_an_end(h):
    h.drop(SHIPMENT.name, "PromiseResumed", "held_up")


def a_hold_without_an_end(h):
    h.drop(SHIPMENT.name, "PromiseResumed", "reviewed")


def packed_before_it_came(h):
    h.change(SHIPMENT.name, "ParcelBackordered", "follows", until="2026-11-23T13:00:00Z")


def awaited_without_a_word(h):
    h.change(SHIPMENT.name, "ParcelBackordered", "follows", quantity=2)


def a_broken_promise_told_as_kept(h):
    h.change(SHIPMENT.name, "ParcelDelivered", "late", kept=True)


def a_clock_that_stood_longer(h):
    h.rows_["shipping"]["held_up"]["state"]["parcels"]["held_up-P1"]["aside"]["clock"]["slip_s"] += 1


def remitted_and_not_booked(h):
    h.ledger_["books:tax:GB"] = []


def converted_twice(h):
    """Event and ledger agree on it."""
    book = "books:merchant:split"
    records, at = h.find(PAYMENTS.name, "StatementClosed", book)
    lines = json.loads(records[at].value)["lines"]
    lines[0]["converted"] += 1
    h.change(PAYMENTS.name, "StatementClosed", book, lines=lines)


def paid_more_than_due(h):
    h.change(PAYMENTS.name, "MerchantPaid", "books:merchant:split", amount=9000)


def remitted_too_much(h):
    for name in ("payable/GB", "remitted/GB"):
        h.ledger_["books:tax:GB"] = [b._replace(amount=b.amount * 9) if b.account == name else b for b in h.ledger_["books:tax:GB"]]


def unbalanced_book(h):
    rows = h.ledger_["books:tax:GB"]
    rows[-1] = rows[-1]._replace(amount=rows[-1].amount + 1)


def rerouted_round_what_was_behind_it(h):
    h.change(SHIPMENT.name, "ParcelRerouted", "rerouted", lane="USMEM-DEBER-air")


def a_review_taken_for_a_release(h):
    records, at = h.find(REPORT.name, "CarrierScanReported", "receipts", 6)
    records[at] = records[at]._replace(value=json.dumps(json.loads(records[at].value) | {"code": "399"}).encode())


def a_release_that_nobody_heard(h):
    h.drop(SHIPMENT.name, "CustomsReleased", "receipts")


def _paper(h, topic, type_, order_id, **changed):
    records, at = h.find(topic, type_, order_id)
    h.change(topic, type_, order_id, document=json.loads(records[at].value)["document"] | changed)


def another_payer(h):
    _paper(h, PAYMENTS.name, "PaymentHeld", "receipts", payer="0" * 32)


def a_fen_more_on_the_order_document(h):
    _paper(h, ORDER.name, "OrderDocumented", "receipts", paid=10_701)


def a_list_without_a_line(h):
    records, at = h.find(SHIPMENT.name, "DocumentsMatched", "receipts")
    listed = json.loads(records[at].value)["import_list"]
    h.change(SHIPMENT.name, "DocumentsMatched", "receipts", import_list=listed | {"lines": []})


def packed_before_the_amended_list_was_there(h):
    records, at = h.find(SHIPMENT.name, "ListAccepted", "mismatched", 1)
    records[at] = records[at]._replace(headers=headers_with(records[at].headers, {"ce_type": "PromiseResumed"}), value=json.dumps(
        {"order_id": "mismatched", "parcel_id": "mismatched-P1", "reason": "x", "at": "2026-11-23T12:00:00Z", "paused_s": 0,
         "promised_at": "2026-11-24T12:00:00Z"}).encode())


def wrong_papers_counted_twice(h):
    h.change(SHIPMENT.name, "DocumentsMismatched", "mismatched", attempt=2)


def a_list_that_nobody_revoked(h):
    h.change(SHIPMENT.name, "ParcelCancelled", "revoked", revokes="")


def listed_long_after_the_deadline(h):
    late = (START + timedelta(days=6)).isoformat().replace("+00:00", "Z")
    h.change(SHIPMENT.name, "ListAccepted", "receipts", {"ce_time": late})


def released_while_contested(h):
    h.change(PAYMENTS.name, "ChargebackReversed", "bank", {"ce_type": "PaymentSettled"})


def the_reserve_was_spared(h):
    rows = h.ledger_["bank"]
    at = next(n for n, b in enumerate(rows) if b.kind == "chargeback_lost" and b.account == "reserve")
    spared = rows.pop(at).amount
    at = next(n for n, b in enumerate(rows) if b.kind == "chargeback_lost" and b.account == "merchant")
    rows[at] = rows[at]._replace(amount=rows[at].amount + spared)


def a_chargeback_nobody_decided(h):
    h.drop(PAYMENTS.name, "ChargebackLost", "bank")


def evidence_missed_before_its_time(h):
    h.change(PAYMENTS.name, "ChargebackOpened", "bank", evidence_due="2027-06-01T00:00:00Z")


def fees_that_do_not_add_up(h):
    h.change(PAYMENTS.name, "ProviderFeesBooked", "books:provider:payments", total=117)


def an_account_on_the_wrong_side(h):
    h.whole_.accounts["claims", "USD"] = 10**6


def taken_by_nobody_but_the_bank(h):
    h.calls = [(o, c) for o, c in h.calls if not (o == "bank" and c.kind == "second_chargeback")]


PLANTED = [
    (another_payer, {47}), (a_fen_more_on_the_order_document, {47}), (a_list_without_a_line, {47}),
    (packed_before_the_amended_list_was_there, {16, 47}), (wrong_papers_counted_twice, {47}), (a_list_that_nobody_revoked, {47}), (listed_long_after_the_deadline, {47}),
    (a_review_taken_for_a_release, {47}), (a_release_that_nobody_heard, {16, 17, 24, 47}),
    (released_while_contested, {7, 9, 10, 12, 16, 24, 25, 28, 44}), (the_reserve_was_spared, {44}), (a_chargeback_nobody_decided, {20, 21, 24, 25, 28, 44}),
    (evidence_missed_before_its_time, {44}), (taken_by_nobody_but_the_bank, {7}),
    (fees_that_do_not_add_up, {9}), (an_account_on_the_wrong_side, {8}),
    (rerouted_round_what_was_behind_it, {40}),
    (promised_other_than_planned, {40}), (a_plan_that_leaps, {40}), (accepted_at_another_time, {40}), (a_pause_made_longer, {40}), (packed_before_it_came, {15}), (awaited_without_a_word, {15}),
    (a_pause_of_customs_without_an_end, {17, 40}), (a_hold_without_an_end, {17, 40}),
    (a_broken_promise_told_as_kept, {40}), (a_clock_that_stood_longer, {40}),
    (remitted_and_not_booked, {28}), (converted_twice, {9}), (paid_more_than_due, {9, 28}), (remitted_too_much, {9, 28}),
    (unbalanced_book, {8, 13, 28}),
    (a_number_that_does_not_hold, {37}), (two_parcels_of_one_number, {37}), (carried_under_anothers_number, {37}),
    (handed_over_after_the_season, {39}), (charged_before_the_season, {39}), (promised_and_never_let_go, {15}),
    (told_of_a_shorter_silence, {38}), (a_silence_taken_for_an_excursion, {38}),
    (an_excursion_nobody_told, {38}), (an_excursion_of_no_reading, {38}), (a_logger_set_too_wide, {38}),
    (given_out_before_anybody_decided, {38}), (decided_long_after_the_deadline, {38}),
    (another_value_reserved, {32}), (a_quota_nobody_committed, {32}), (a_person_above_the_limit, {32}),
    (freight_booked_as_fee, {7, 13}), (fee_told_one_cent_too_high, {12}), (tax_of_a_parcel_forgotten, {12}),
    (more_claimed_back_than_customs_took, {9}), (claimed_for_the_wrong_one, {9}), (told_in_time_and_was_late, {47}),
    (paid_out_in_another_currency, {12}), (accepted_by_terms_of_tomorrow, {12}), (a_plan_that_he_never_agreed_to, {12}),
    (bill_of_customs_not_booked, {9}), (the_buyer_pays_the_variance, {7, 9, 28}),
    (timer_of_an_ended_order, {26}),
    (placed_twice, {1, 3, 16}), (more_allocated_than_ordered, {15}),
    (passed_by, {22}), (read_and_taken_back, {30}), (read_and_never_committed, {30}),
    (another_duty_than_agreed, {12}), (a_quote_nobody_froze, {12, 28}), (claim_paid_to_nobody, {7}), (another_buyer, {12}), (one_cent_too_much_for_what_is_missing, {12}),
    (third_side_of_an_entry, {13}), (ended_before_its_return_was_paid, {24}), (cancelled_without_an_answer, {16, 20}),
    (customs_took_too_long, {26}), (asked_though_nobody_had_begun, {16, 24, 25, 28, 48}), (asked_and_never_answered, {48}),
    (dearer_in_two_boxes, {12, 49}), (a_unit_in_both_boxes, {15, 49}), (escrow_left_behind, {7, 9, 24, 25, 28, 49}),
    (the_second_box_is_promised_later, {40, 49}), (promised_before_it_came, {40}),
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
    (a_freeze_that_nobody_decided, {34}), (paid_out_while_frozen, {34}), (handed_over_without_a_word, {34}), (never_held, {34}),
    (paid_for_by_somebody_else, {33}), (a_registry_that_held_nobody, {33}), (handed_over_though_listed_since, {33}), (handed_over_while_somebody_looked, {16, 34, 46}), (an_alert_that_nobody_looked_into, {20, 46}),
    (a_counterfeit_that_nobody_complained_about, {46}), (a_copy_that_nobody_noticed, {46}),
    (a_brand_that_is_protected_twice, {45}), (sold_without_a_word_about_the_brand, {45}), (sold_by_a_chain_with_a_gap, {45}),
    (sold_where_nobody_may, {45}), (sold_on_with_a_broken_chain, {45}),
    (handed_over_unscreened, {33}), (packed_with_a_short_code, {36}),
    (handed_over_though_blocked, {33}), (a_review_that_held_nobody, {33}),
    (booking_of_no_order, {25}), (dead_letter, {27}), (queue_behind_nothing, {27}),
    (order_no_client_sent, {5}), (order_other_than_sent, {5}),
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
