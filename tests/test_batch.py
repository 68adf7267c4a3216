"""What a batch does to the orders of a partition: duplicates, waiting, dead letters. Pure; the tiny service of `tally`."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letters import Reason
from schemas.envelope import dataschema_of, headers_of
from services.runtime.batch import CUT_VALUE_BYTES, RETRY, Batch, Out, envelope_for, partition_of
from services.runtime.decision import TIMER, Impossible, Incoming, SharedMissing
from services.runtime.relay import headers_for, pack, unpack
from services.runtime.spec import VALUE_BYTES_MAX, read
from services.runtime.track import SEEN_MAX, Entry, Record, Track
from tests.tally import NOW, STATE, Add, Fact, Ignored, Open, Raw, record, spec

SPEC = spec("pure")


class Book:
    """The owner's part: commits what a batch drafted, through the form in which it would be stored."""

    def __init__(self, partitions: int = 1):
        self.entries: dict[str, Entry] = {}
        self.partitions, self.offset, self.now = partitions, 0, NOW
        self.dead, self.out, self.applied = [], [], []

    def do(self, *raws: Raw | Record, shared=None, cautious: bool = False) -> Batch:
        """All in one batch."""
        batch = Batch(SPEC, 0, self.partitions, self.entries, shared, self.now, cautious)
        for raw in raws:
            found = self.read(raw)
            if found is not None:
                batch.handle(found)
        return self.commit(batch)

    def read(self, raw: Raw | Record) -> Record | None:
        if isinstance(raw, Record):
            return raw
        self.offset += 1
        return read(SPEC, raw.topic, self.offset, raw.key, raw.value, raw.headers)

    def commit(self, batch: Batch) -> Batch:
        for order_id, draft in batch.drafts.items():
            draft.state = STATE.validate_json(STATE.dump_json(draft.state))
            draft.track, draft.stored = Track.decode(draft.track.encode()), True
            self.entries[order_id] = draft
        events = unpack(pack(batch.out))
        assert events == batch.out
        self.dead += [out for out in events if out.headers]
        self.out += [out for out in events if not out.headers]
        self.applied += batch.rows["applied"]
        return batch

    def texts(self, order_id: str = "A") -> list[str]:
        return self.entries[order_id].state.texts if order_id in self.entries else []

    def reasons(self) -> list[str]:
        return [dict(out.headers)["__dlq.errors.reason"].decode() for out in self.dead]


def opened(*order_ids: str) -> Book:
    book = Book()
    book.do(*(record(SPEC, Open(order_id=o)) for o in order_ids or ("A",)))
    return book


def fact(number: int, text: str = "", needs: int = 0, order_id: str = "A") -> Raw:
    return record(SPEC, Fact(order_id=order_id, text=text or f"f{number}", needs=needs), number)


def add(text: str, needs: int = 0, order_id: str = "A", id: str = "") -> Raw:
    return record(SPEC, Add(order_id=order_id, text=text, needs=needs), id=id)


def timer(order_id: str = "A") -> Record:
    return Record("timer", 0, order_id.encode(), None, (), order_id, Incoming(TIMER, "t", "timer", 0, NOW, None))


def retry(order_id: str = "A") -> Record:
    return Record("retry", 0, order_id.encode(), None, (), order_id, Incoming(RETRY, "r", "retry", 0, NOW, None))


def waiting(book: Book, order_id: str = "A") -> list[int]:
    """The sequences of what is parked, dead letters among them, as they queue."""
    return [p.incoming.sequence for p in book.entries[order_id].parked]


# -- duplicates -------------------------------------------------------------------------------------------------------


def test_a_sequence_that_was_seen_is_dropped_and_counted():
    book = opened()
    batch = book.do(fact(1), fact(2), fact(1), fact(2))
    assert book.texts() == ["f1", "f2"] and batch.counts["duplicate"] == 2 and not book.dead
    assert book.do(fact(2)).counts["duplicate"] == 1, "also in a later batch"


def test_an_id_that_was_seen_is_dropped_and_counted():
    book = opened()
    assert book.do(add("a"), add("a")).counts["duplicate"] == 1
    assert book.texts() == ["a"] and not book.dead


def test_an_id_with_other_content_is_a_dead_letter():
    book = opened()
    book.do(add("a", id="x"), add("b", id="x"))
    assert book.texts() == ["a"] and book.reasons() == ["id_reused"]


def test_all_of_it_read_again_changes_nothing_however_many_ids_an_order_had_to_forget():
    book = opened()
    many = [add("waits", needs=SEEN_MAX + 5), *(add(f"t{n}") for n in range(SEEN_MAX + 20)), add("last")]
    book.do(*many)
    stored = book.entries["A"].track
    assert len(stored.seen) == SEEN_MAX and len(book.texts()) == len(many)
    book.offset, told = 0, len(book.out)
    again = book.do(record(SPEC, Open(order_id="A")), *many)
    assert (again.counts["duplicate"], len(book.out)) == (len(many) + 1, told)
    assert book.entries["A"].track == stored and not again.rows["applied"]
    book.do(add("a new one"))
    assert book.texts()[-1] == "a new one"


def test_what_had_no_effect_was_seen_all_the_same():
    book = opened()
    batch = book.do(add("stale", id="x"), add("stale", id="x"), fact(1, "stale"), fact(1, "stale"))
    assert batch.counts["duplicate"] == 2 and batch.counts["stale: of no use any more"] == 2
    book.do(add("impossible", id="y"), add("impossible", id="y"))
    assert book.reasons() == ["unknown_line"]


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_before_its_order_it_waits_and_then_applies_in_sequence():
    book = Book()
    batch = book.do(fact(1), fact(2), fact(3))
    assert book.texts() == [] and len(batch.parked) == 3 and batch.counts["parked"] == 3
    assert book.entries["A"].track.waiting == {"facts": 3} and book.entries["A"].track.last == {}
    batch = book.do(record(SPEC, Open(order_id="A")))
    assert book.texts() == ["f1", "f2", "f3"] and len(batch.unparked) == 3
    assert book.entries["A"].track == Track({"facts": 3}, book.entries["A"].track.seen, {})


def test_what_parks_and_unparks_in_one_batch_never_reaches_the_table():
    batch = Book().do(fact(1), record(SPEC, Open(order_id="A")))
    assert not batch.parked and not batch.unparked


def test_later_records_of_a_source_queue_behind_the_one_that_waits():
    book = opened()
    book.do(fact(1, needs=1), fact(2))  # the second could be applied by itself
    assert book.texts() == [] and book.entries["A"].track.last == {}
    book.do(add("a"))  # another source flows, and what it changes lets the queue go on
    assert book.texts() == ["a", "f1", "f2"]


def test_other_orders_flow_past_one_that_waits():
    book = opened("A", "B")
    book.do(fact(1, needs=1), fact(1, order_id="B"))
    assert book.texts("A") == [] and book.texts("B") == ["f1"]


def test_an_outsiders_reports_may_come_out_of_order():
    book = Book()
    book.do(add("second", needs=1), add("first"))  # queued behind the one that waits for it, nothing would ever move
    book.do(record(SPEC, Open(order_id="A")))
    assert book.texts() == ["first", "second"]


def test_a_repetition_of_what_waits_is_not_parked_twice():
    book = opened()
    batch = book.do(fact(1, needs=1), fact(1, needs=1), add("a", needs=2), add("a", needs=2))
    assert batch.counts["duplicate"] == 2 and len(batch.parked) == 2


def test_a_retry_bypasses_the_duplicate_check():
    book = opened()
    book.do(add("a", needs=1))  # its id counts as seen from here on, or a repetition would be parked beside it
    assert book.entries["A"].track.seen and book.entries["A"].track.waiting == {"/outside": 1}
    book.do(fact(1))
    assert book.texts() == ["f1", "a"]


def test_what_waits_too_long_is_a_dead_letter():
    book = opened()
    for late in (fact(1, needs=9), add("a", needs=9)):
        parked = book.do(late).parked
        batch = Batch(SPEC, 0, 1, book.entries, None, NOW)
        batch.expire(next(iter(parked)))
        book.commit(batch)
    assert book.reasons() == ["parked_too_long"] * 2 and book.texts() == []
    book.do(fact(2), add("b"))
    assert book.texts() == ["b"] and waiting(book) == [1, 2], "an event of ours keeps its place, an outsider's has none"


# -- shared rows ------------------------------------------------------------------------------------------------------


class Shelf:
    """Shared rows, of which only some are locked."""

    def __init__(self, *keys: str):
        self.keys = keys

    def take(self, key: str) -> None:
        if key not in self.keys:
            raise SharedMissing(key)


def test_a_row_that_is_not_locked_ends_the_batch_before_the_record():
    book = opened()
    batch = Batch(SPEC, 0, 1, book.entries, Shelf("K"), NOW)
    batch.handle(book.read(fact(1)))
    with pytest.raises(SharedMissing):
        batch.handle(book.read(fact(2, "take:L")))
    book.commit(batch)
    assert book.texts() == ["f1"] and book.entries["A"].track.last == {"facts": 1}
    book.do(fact(2, "take:L"), shared=Shelf("L"))
    assert book.texts() == ["f1", "take:L"]


def test_what_waits_for_a_row_that_is_not_locked_gets_a_batch_of_its_own():
    book = opened()
    book.do(fact(1, "take:L", needs=1))
    assert book.do(add("a"), shared=Shelf()).again == {"A"} and book.texts() == ["a"]
    with pytest.raises(SharedMissing):  # the owner's rows are the wrong ones: not again for ever
        book.do(retry(), shared=Shelf())
    book.do(retry(), shared=Shelf("L"))
    assert book.texts() == ["a", "take:L"]


# -- dead letters -----------------------------------------------------------------------------------------------------


def changed(raw: Raw, **headers: bytes | None) -> Raw:
    found = {name: value for name, value in raw.headers} | {f"ce_{k}": v for k, v in headers.items()}
    return Raw(raw.topic, raw.key, raw.value, tuple((k, v) for k, v in found.items() if v is not None))


GOOD = record(SPEC, Add(order_id="A", text="good"))
WRONG = {
    "no type": (changed(GOOD, type=None), "unknown_type"),
    "a type of another topic": (changed(GOOD, type=b"Fact"), "unknown_type"),
    "bytes for a type": (changed(GOOD, type=b"\xff\xfe"), "unknown_type"),
    "no id": (changed(GOOD, id=None), "envelope"),
    "an empty id": (changed(GOOD, id=b""), "envelope"),
    "a long id": (changed(GOOD, id=b"x" * 201), "envelope"),
    "a long correlation, which everything that follows would repeat": (changed(GOOD, correlationid=b"x" * 500), "envelope"),
    "a time without zone": (changed(GOOD, time=b"2026-11-23T12:00:00"), "envelope"),
    "no time": (changed(GOOD, time=b"yesterday"), "envelope"),
    "a sequence that is no number": (changed(GOOD, sequence=b"one"), "envelope"),
    "bytes for a source": (changed(GOOD, source=b"\xff"), "envelope"),
    "a control character in the id, which no database stores": (changed(GOOD, id=b"a\0b"), "envelope"),
    "a header twice, of which readers see one each": (
        Raw(GOOD.topic, GOOD.key, GOOD.value, (*GOOD.headers, ("ce_type", b"Open"))), "envelope"),
    "another version": (changed(GOOD, dataschema=b"schemas/pure.intake.v2/Add.json"), "unknown_version"),
    "ours without a merchant": (changed(fact(1), merchant=None), "no_merchant"),
    "more than fits": (Raw(GOOD.topic, GOOD.key, GOOD.value + b" " * VALUE_BYTES_MAX, GOOD.headers), "oversize"),
    "another version of CloudEvents": (changed(GOOD, specversion=b"0.3"), "envelope"),
    "an outsider who says it is ours": (changed(GOOD, source=b"facts"), "source"),
    "ours under another name": (changed(fact(1), source=b"tally"), "source"),
    "ours without a sequence": (changed(fact(1), sequence=None), "source"),
    "another key": (Raw(GOOD.topic, b"B", GOOD.value, GOOD.headers), "key"),
    "no key": (Raw(GOOD.topic, None, GOOD.value, GOOD.headers), "key"),
    "another subject": (changed(GOOD, subject=b"B"), "key"),
    "no value": (Raw(GOOD.topic, GOOD.key, None, GOOD.headers), "null_value"),
    "an empty value": (Raw(GOOD.topic, GOOD.key, b"", GOOD.headers), "null_value"),
    "no JSON": (Raw(GOOD.topic, GOOD.key, b"\xff{", GOOD.headers), "undecodable"),
    "an unknown field of a command": (Raw(GOOD.topic, GOOD.key, b'{"order_id":"A","text":"a","x":1}', GOOD.headers), "invalid"),
    "a loose type": (Raw(GOOD.topic, GOOD.key, b'{"order_id":"A","text":1}', GOOD.headers), "invalid"),
}


@pytest.mark.parametrize("what", WRONG)
def test_dead_letters(what):
    wrong, reason = WRONG[what]
    book = opened()
    book.do(wrong, add("a"))
    assert book.reasons() == [reason]
    letter, headers = book.dead[0], dict(book.dead[0].headers)
    assert letter.topic == f"{wrong.topic}.dlq" and letter.key == (wrong.key or b"") and letter.value == (wrong.value or b"")[:len(letter.value)]
    assert set(wrong.headers) <= set(letter.headers) or reason == "oversize", "its own headers stay as they came"
    assert headers["__dlq.errors.topic"] == wrong.topic.encode() and headers["__dlq.errors.partition"] == b"0"
    assert headers["__dlq.errors.offset"] == b"%d" % (book.offset - 1) and headers["__dlq.errors.service"] == b"pure"
    assert book.texts() == ["a"], "its successor is applied"


def test_our_events_may_have_fields_that_we_do_not_know():
    book = opened()
    book.do(Raw(fact(1).topic, b"A", b'{"order_id":"A","text":"new","added_later":1}', fact(1).headers))
    assert book.texts() == ["new"] and not book.dead


def test_a_type_that_is_known_but_not_handled_is_not_even_decoded():
    raw = record(SPEC, Ignored(order_id="A"))
    assert read(SPEC, raw.topic, 0, None, b"\xff", raw.headers) is None


def test_a_key_of_another_partition_is_a_dead_letter():
    book, home = Book(partitions=4), [o for o in "ABCDEFGHIJ" if (murmur2(o.encode()) & 0x7FFFFFFF) % 4 == 0]
    assert 0 < len(home) < 10
    book.do(*(record(SPEC, Open(order_id=o)) for o in "ABCDEFGHIJ"))
    assert sorted(o for o, e in book.entries.items() if e.state.status == "open") == home
    assert book.reasons() == ["partition"] * (10 - len(home))


def test_a_dead_letter_always_fits_into_a_record():
    book = opened()
    huge = Raw(GOOD.topic, b"A", b"\xff" * (VALUE_BYTES_MAX + 100_000), changed(GOOD, extra=b"x" * 50_000).headers)
    wide = changed(GOOD, type=None, extra=b"x" * 1_000_000)
    book.do(huge, wide)
    assert book.reasons() == ["oversize", "unknown_type"]
    for letter in book.dead:
        size = len(letter.key) + len(letter.value) + sum(len(k) + len(v) for k, v in letter.headers)
        assert size < VALUE_BYTES_MAX and b"bytes" in dict(letter.headers)["__dlq.errors.cut"]
    assert len(book.dead[0].value) == CUT_VALUE_BYTES


def test_an_outsiders_dead_letter_stops_nobody():
    book = opened()
    book.do(add("a"), add("impossible", needs=3), add("b"), add("c"), add("d"))  # also when it waited
    assert book.texts() == ["a", "b", "c", "d"] and book.reasons() == ["unknown_line"]


# -- poison: what fails alone for a reason that is not transient --------------------------------------------------------


def poison(book: Book, found: Record, why: Exception = ValueError("no")) -> Batch:
    batch = Batch(SPEC, 0, 1, book.entries, None, NOW, cautious=True)
    batch.poison(found, why)
    return book.commit(batch)


def test_poison_is_a_dead_letter_and_was_seen():
    book = opened()
    poison(book, book.read(fact(1)))
    poison(book, book.read(add("x")), Impossible(Reason.OUTPUT_TOO_LARGE, "it is"))
    assert book.reasons() == ["handler_error", "output_too_large"]
    assert book.do(fact(1), add("x")).counts["duplicate"] == 2 and book.do(fact(2)) and book.texts() == []
    assert waiting(book) == [1, 2]


def test_poison_of_an_order_nobody_knows_leaves_no_order():
    book = Book()
    poison(book, book.read(add("x", order_id="Z")))
    assert book.reasons() == ["handler_error"] and "Z" not in book.entries


def test_a_poisoned_timer_is_postponed_not_fired_for_ever():
    book = opened()
    batch = poison(book, timer())
    assert batch.postponed == {"A"} and "A" in batch.drafts
    letter = book.dead[0]
    assert letter.topic == "pure.out.v1.dlq", "there is no topic of timers"
    assert dict(letter.headers)["__dlq.errors.topic"] == b"timer"


def test_poison_that_waited_takes_neither_who_woke_it_nor_who_waits_beside_it():
    book = Book()
    book.do(fact(1, "bug"), fact(2), add("a"))
    with pytest.raises(ValueError):
        book.do(record(SPEC, Open(order_id="A")))
    batch = book.do(record(SPEC, Open(order_id="A")), cautious=True)  # the owner's second try, alone
    assert batch.again == {"A"} and book.entries["A"].state.status == "open" and not book.dead
    with pytest.raises(ValueError):
        book.do(retry())
    with pytest.raises(ValueError):
        book.do(retry(), cautious=True)
    batch = poison(book, retry())
    assert book.reasons() == ["handler_error"] and dict(book.dead[0].headers)["ce_id"] == b"facts:A:1"
    assert batch.again == {"A"}
    book.do(retry())
    assert book.texts() == ["a"] and waiting(book) == [1, 2], "what followed it from its source waits for it"


def test_a_cautious_retry_moves_one_record_a_batch():
    book = Book()
    book.do(fact(1), fact(2), add("a"))
    book.do(record(SPEC, Open(order_id="A")), cautious=True)
    seen = []
    while book.entries["A"].parked:
        assert book.entries["A"].track.waiting
        book.do(retry(), cautious=True)
        seen.append(len(book.texts()))
    assert seen == [1, 2, 3]


@given(st.binary(max_size=80), st.integers(1, 50))
def test_a_key_has_the_partition_that_kafka_s_clients_give_it(key, partitions):
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_what_the_relay_writes_is_the_envelope_of_the_event():
    out = Out("orders.order.v1", b"order-1", b"{}", "OrderPlaced", 12, NOW, "place:order-1", "storefront:1", "m-1")
    assert headers_for(out) == headers_of(envelope_for(out), dataschema_of(out.topic, out.type))
