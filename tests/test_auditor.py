"""The auditor: a clean history of every kind of path has no violation, in memory and on real servers.

The history is made by the services' own machines in memory, then frozen. What is caught when it is corrupted:
`tests/test_auditor_corruptions.py`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer
from pydantic_core import from_json

from schemas.envelope import Envelope, headers_of
from schemas.topics import ORDER, REPORT
from services.auditor import invariants, rules_merchants, rules_money
from services.auditor.audit import audit, examine
from services.auditor.evidence import CannotRead, content_of, letter_of, partition_of, read_journals
from services.auditor.facts import STOCK_KINDS
from services.auditor.rules import ORDER_RULES, WHOLE_RULES, Call, DeadLetter
from services.auditor.rules_quota import COLUMNS, YEARLY_FEN
from services.auditor.story import Raw, digest_of
from services.auditor.watch import is_settled
from services.console.funnel import OUTCOMES, SOURCES, STAGES, Totals, fact_of
from services.runtime.decision import Incoming
from services.runtime.local import LocalKafka
from services.runtime.migrate import migrate
from services.runtime.processes import free_port
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics
from services.runtime.track import Track, fingerprint
from tests.history import PARTITIONS, History, without_line
from tests.test_auditor_corruptions import not_as_the_schema_says, numbers


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
    assert found.orders == 43 and found.events > 250
    assert found.exits["cancelled: no_stock"] == 1 and found.exits["rejected: total_mismatch"] == 1
    assert found.exits["completed: delivered/charged_back"] == 2 and found.examples["completed: short pick"] in ("short", "mismatched")
    money = found.money["USD"]
    assert money["captured"] + money["recovered"] == sum(money[name] for name in rules_money.ACCOUNTS[2:]) and money["held"] == 0
    assert found.funnel["placed"] == 42 and found.funnel["delivered"] >= found.funnel["completed"] > 0


async def test_every_rule_says_how_much_it_looked_at(history):
    history.note_what_clients_sent()
    history.note_what_a_watcher_saw()
    found = await examine(history, views=views_of(history))
    assert found.clean, "\n".join(found.lines())
    idle = {rule.label for rule in (*ORDER_RULES, *WHOLE_RULES) if not found.checked[rule.label]}
    assert not idle and all(line.startswith("4 ") for line in found.not_checked)
    line = found.as_json()
    assert (line["orders"], line["violations"], line["details"]) == (43, 0, [])
    assert json.loads(json.dumps(line, default=str)) and found.rich().plain.endswith("no violation\n")


async def test_while_it_runs_only_what_always_holds_is_judged(history):
    """A cut through a run at any moment: some events, rows and offsets are there, others not yet."""
    for records in history.topics.values():
        del records[len(records) * 2 // 3:]
    assert not (await examine(copy.deepcopy(history))).clean
    found = await examine(history, live=True)
    assert found.clean, "\n".join(found.lines())
    assert any("not while it runs" in what for what in found.not_checked)


def test_each_invariant_has_a_rule_or_says_where_it_is_checked():
    assert list(invariants.INVARIANTS) == sorted(invariants.INVARIANTS) and set(range(1, 33)) <= invariants.INVARIANTS.keys()
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
    assert found.handovers == {"A": {"A-P1": {"T"}}}
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
            await db.copy_records_to_table("quota", columns=("key", *COLUMNS, "allowed"), records=[
                (key, *row.values(), YEARLY_FEN) for key, row in history.whole_.quota.items()])
        for partition in range(PARTITIONS):
            read = {t: offset for (s, t, p), offset in whole.offsets.items() if (s, p) == (service, partition)}
            await db.execute("UPDATE partitions SET offsets = $2::text::jsonb WHERE partition = $1", partition, json.dumps(read))
        if service == "payments":
            await db.copy_records_to_table("ledger", records=[
                (o, b.entry, b.account, b.currency, b.amount, b.payment_id, b.parcel_id, b.kind, datetime.now(UTC))
                for o, rows in history.ledger_.items() for b in rows])
        if service == "shipping":
            await db.copy_records_to_table("stock", columns=("warehouse", "sku", *STOCK_KINDS), records=[
                (*place, *row.values()) for place, row in history.whole_.stock.items()])
        await db.close()
    path = settings.data_folder / "journals" / "provider.ndjson"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(without_line(call) | {"order_id": o}) + "\n" for o, call in history.calls))


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


@pytest.mark.parametrize("early, right", [(timedelta(seconds=7), True), (timedelta(hours=2), False)])
def test_a_hold_may_be_told_as_a_moment_older_than_its_freeze(early, right):
    """A batch had its time before it learned of the freeze: seen at a demo's speed, 7 s of trade time."""
    since = datetime(2026, 11, 30, 22, 46, 12, tzinfo=UTC)
    freeze = rules_merchants.Freeze(1, since, since + timedelta(days=5), "FreezeLifted")
    span = rules_merchants.Span("A1", since - timedelta(days=1), since + timedelta(days=6), (since - early,), (freeze.until,),
                                since.date(), "CNY", None)
    assert (rules_merchants._of_span(span, freeze, timedelta(hours=1)) is None) == right
