"""`tradewind dlq`: dialects of headers, corrections and their limits. On the real broker and database: test_dlq_real.py."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from schemas.dead_letters import DIALECTS, ERRORS, REPLACES, REPLAY, Mark, Origin, origin_of
from schemas.generate import example_of
from schemas.topics import INTAKE, PAYMENT
from services.cli import dlq
from services.cli.dlq_letters import Choice, Letter, Place, grouped, letter_of
from services.cli.dlq_send import copy_of, edit
from services.cli.output import Refused
from services.runtime.settings import Settings
from tests.tally import Raw

PARTITIONS = Settings.model_fields["partitions"].default


def good(topic, name: str, order_id: str, sequence: int = 0, **fields) -> Raw:
    """A golden example under another order."""
    model = next(m for m in topic.messages if m.__name__ == name)
    example = example_of(topic, model)
    headers = {k: v.encode() for k, v in example["headers"].items()} | {"ce_subject": order_id.encode(), "ce_merchant": b"m-orchard"}
    if sequence:
        headers |= {"ce_sequence": b"%d" % sequence, "ce_id": f"payments:{order_id}:{sequence}".encode()}
    else:
        headers["ce_id"] = f"{name}:{order_id}".encode()
    body = example["payload"] | {"order_id": order_id} | fields
    return Raw(topic.name, order_id.encode(), json.dumps(body).encode(), tuple(headers.items()))


def letter(raw: Raw, reason: str = "invalid", service: str = "orders", holds: str = "") -> Letter:
    why = {"topic": raw.topic, "partition": "3", "offset": "17", "service": service, "reason": reason, "detail": "why", "holds": holds}
    headers = [*raw.headers, *((f"{ERRORS}{name}", text.encode()) for name, text in why.items())]
    return letter_of(SimpleNamespace(topic=f"{raw.topic}.dlq", partition=3, offset=4, timestamp=1_764_000_000_000, key=raw.key,
                                     value=raw.value, headers=headers))


# -- headers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_tells_where_a_record_was(dialect):
    numbers = ((3).to_bytes(4, "big"), (2**40).to_bytes(8, "big")) if dialect == "spring" else (b"3", b"%d" % 2**40)
    values = (b"t.v1", *numbers, b"who", b"SomeException", "ü".encode())
    found = origin_of([("other", None), *((n, v) for n, v in zip(DIALECTS[dialect], values) if n)])
    assert found == Origin(dialect, "t.v1", 3, 2**40, "" if dialect == "streams" else "who", "SomeException", "ü")


def test_headers_of_nobody_or_broken_ones_are_shown_as_they_are():
    assert origin_of([("x", b"y")]) == Origin("unknown")
    assert origin_of([(f"{ERRORS}topic", b"\xff"), (f"{ERRORS}partition", b"many"), (f"{ERRORS}offset", None)])[2:4] == (-1, -1)


def test_letters_are_grouped_and_chosen():
    found = [letter(good(INTAKE, "PlaceOrder", "A")), letter(good(INTAKE, "PlaceOrder", "B")),
             letter(good(PAYMENT, "PaymentHeld", "A", 3), "undecodable", holds="3 payments")]
    found[1].state = "resolved"
    first, second = grouped(found)
    assert (first.topic, first.reason, first.type, first.version, dict(first.states)) == (
        INTAKE.name, "invalid", "PlaceOrder", "v1", {"new": 1, "resolved": 1})
    assert second.holding == 1
    for choice, wanted in ((Choice(topic=INTAKE.name), 2), (Choice(topic=INTAKE.dlq), 2), (Choice(reason="undecodable"), 1),
                           (Choice(order="A"), 2), (Choice(state="new", order="A", type="PlaceOrder"), 1),
                           (Choice(places=frozenset([Place(INTAKE.name, 3, 17)])), 2), (Choice(places=frozenset([Place("x", 0, 0)])), 0)):
        assert sum(map(choice.fits, found)) == wanted, choice


# -- corrections --------------------------------------------------------------------------------------------------------


def test_an_edited_copy_has_a_new_id_that_names_the_old_and_the_right_envelope():
    raw = good(INTAKE, "CancelOrder", "A")
    broken = Raw(raw.topic, b"wrong key", b"\xff", tuple((k, v) for k, v in raw.headers if k not in ("ce_subject", "ce_type")))
    copy = edit(letter(broken), json.loads(raw.value), "CancelOrder", None, PARTITIONS, Settings())
    taken = Letter.edited.fget(SimpleNamespace(marks=[Mark(letter="x/0/0", action="edited", by="ann", at="2026-01-01T00:00Z", edited=copy)]))
    assert taken.edited == copy and copy.key == "A"
    found = letter(broken)
    found.marks.append(taken)
    topic, key, value, headers, partition = asyncio.run(copy_of(Settings(), found))
    named = dict(headers)
    assert (topic, key, partition) == (INTAKE.name, b"A", copy.partition)
    assert named["ce_id"].startswith(b"CancelOrder:A:") and named[REPLACES] == b"CancelOrder:A"
    assert named["ce_subject"] == b"A" and named["ce_type"] == b"CancelOrder" and named[REPLAY] == b"orders.intake.v1.dlq/3/4"
    assert len(named["ce_id"]) <= 60 and not any(name.startswith(ERRORS) for name in named)


def test_an_edited_event_of_ours_keeps_its_sequence():
    raw = good(PAYMENT, "PaymentHeld", "A", 3)
    copy = edit(letter(raw), json.loads(raw.value), None, None, PARTITIONS, Settings())
    assert dict(copy.headers)["ce_sequence"] == "Mw=="


@pytest.mark.parametrize("spoil, named", [
    (lambda raw, body: (raw, body | {"total": -1}, None), "total"), (lambda raw, body: (raw, body | {"zero": 1}, None), "zero"),
    (lambda raw, body: (raw, body, "OrderPlaced"), "does not belong"), (lambda raw, body: (raw, body, "Nonsense"), "Nonsense"),
    (lambda raw, body: (good(PAYMENT, "PaymentHeld", "A"), json.loads(good(PAYMENT, "PaymentHeld", "A").value), None), "sequence"),
    (lambda raw, body: (Raw("elsewhere", raw.key, raw.value, raw.headers), body, None), "none of ours"),
])
def test_a_copy_that_would_be_refused_again_is_not_accepted(spoil, named):
    raw = good(INTAKE, "PlaceOrder", "A")
    raw, body, type_ = spoil(raw, json.loads(raw.value))
    if raw.topic == PAYMENT.name:
        raw = Raw(raw.topic, raw.key, raw.value, tuple((k, v) for k, v in raw.headers if k != "ce_sequence"))
    with pytest.raises(Refused, match=named):
        edit(letter(raw), body, type_, None, PARTITIONS, Settings())


def test_fields_are_set_by_dotted_names():
    found = letter(good(INTAKE, "PlaceOrder", "A"))
    new = dlq._new_body(found, found.body(), ["lines.0.quantity=7", "total=1", "merchant_reference=a b"], ["placed_at"], None, False)
    assert (new["lines"][0]["quantity"], new["total"], new["merchant_reference"]) == (7, 1, "a b") and "placed_at" not in new
    for wrong in ("total", "lines.9.quantity=1", "total.x=1"):
        with pytest.raises(Refused):
            dlq._new_body(found, found.body(), [wrong], [], None, False)
    assert "placed_at" in found.body(), "the letter stays as it is"


def test_what_is_not_text_is_shown_escaped():
    assert dlq._safe(b"a\x1b[31m\xff") == "a\\x1b[31m\\\\xff" and "\x1b" not in dlq._body(letter(Raw("t", b"k", b"\x1b\xff", ())))
