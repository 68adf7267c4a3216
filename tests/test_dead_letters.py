"""Dead letters: the list of reasons, the queue behind one, replay and discard, and generated bad records. Pure."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letters import DISCARD, ERRORS, REPLACES, REPLAY, DiscardDeadLetter, Reason
from schemas.envelope import BadEnvelope, Envelope, dataschema_of, envelope_of, headers_of
from schemas.topics import TOPICS
from services.explorer.simulation import START, EveryStock, specs
from services.runtime.batch import Batch
from services.runtime.clock import Clock
from services.runtime.decision import Impossible, SharedMissing
from services.runtime.owner import Owner
from services.runtime.relay import unpack
from services.runtime.spec import read
from services.runtime.storage import Unfit
from services.runtime.track import Track, Unreadable
from services.simulators.poison import READERS, Poison, generate
from tests.tally import NOW, Open, Raw, record
from tests.test_batch import SPEC, Book, Shelf, add, changed, fact, opened, poison, retry, timer, waiting

PARTITIONS = 6


# -- the list of reasons ------------------------------------------------------------------------------------------------


def test_no_other_reason_can_be_given():
    with pytest.raises(ValueError, match="made_up"):
        Impossible("made_up", "no such reason")
    for reason in Reason:
        assert reason.meaning and reason.remedy and reason == reason.value


def test_every_reason_in_the_code_is_of_the_list_and_every_one_of_the_list_is_given():
    """Whoever refuses a record names a member of Reason: no text, no expression."""
    given, root = set(), Path(__file__).parents[1]
    for path in sorted(root.glob("services/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason" \
                    and "simulators" not in path.parts:
                given.add(node.attr)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Impossible":
                assert ast.unparse(node.args[0]).startswith("Reason."), f"{path}:{node.lineno}"
    assert given | {"ENVELOPE"} == set(Reason.__members__)  # that one stands in BadEnvelope


def test_the_operators_page_has_every_reason():
    text = (Path(__file__).parents[1] / "docs" / "dead-letters.md").read_text()
    table = [f"| `{r}` | {r.meaning}{' **(alert)**' if r.alert else ''} | {r.remedy} |" for r in Reason]
    assert text.partition("|---|---|---|\n")[2].partition("\n\n<!-- end of table -->")[0].splitlines() == table


# -- behind a dead letter of ours ---------------------------------------------------------------------------------------


def replayed(raw: Raw, *more: tuple[str, bytes]) -> Raw:
    return Raw(raw.topic, raw.key, raw.value, (*raw.headers, (REPLAY, b"pure.facts.v1.dlq/0/0"), *more))


def discard(sequence: int, order_id: str = "A", service: str = SPEC.name, source: str = "facts") -> Raw:
    message = DiscardDeadLetter(order_id=order_id, service=service, source=source, sequence=sequence,
                                letter="pure.facts.v1.dlq/0/0", by="ann", reason="of no use")
    topic = SPEC.inputs[1].name
    envelope = Envelope(f"discard:{sequence}", DISCARD, "/dlq", NOW, order_id)
    return Raw(topic, order_id.encode(), message.model_dump_json().encode(), tuple(headers_of(envelope, dataschema_of(topic, DISCARD))))


def broken(number: int) -> Raw:
    return Raw(fact(number).topic, b"A", b"\xff", fact(number).headers)


@pytest.mark.parametrize("dead, reason", [
    (fact(2, "impossible"), "unknown_line"), (broken(2), "undecodable"), (changed(fact(2), type=b"Unheard"), "unknown_type"),
    (changed(fact(2), merchant=None), "no_merchant"), (changed(fact(2), dataschema=b"v9"), "unknown_version")])
def test_what_follows_from_its_source_queues_and_all_else_flows(dead, reason):
    book = opened("A", "B")
    book.do(fact(1), dead, fact(3), add("a"), fact(1, order_id="B"), fact(4))
    assert book.reasons() == [reason] and dict(book.dead[0].headers)[f"{ERRORS}holds"] == b"2 facts"
    assert book.texts() == ["f1", "a"] and book.texts("B") == ["f1"]
    assert book.entries["A"].track.last == {"facts": 1} and waiting(book) == [2, 3, 4]
    book.do(add("b"), fact(5))
    assert book.texts() == ["f1", "a", "b"] and waiting(book) == [2, 3, 4, 5], "whatever else changes the order"


def test_a_replay_that_can_be_handled_now_lets_the_queue_go_on():
    book = opened()
    book.do(fact(1), broken(2), fact(3), fact(4))
    batch = book.do(replayed(fact(2)))
    assert book.texts() == ["f1", "f2", "f3", "f4"] and not book.entries["A"].parked
    assert book.entries["A"].track.last == {"facts": 4} and book.entries["A"].track.waiting == {}
    assert [key[2] for key in batch.unparked] == [2, 3, 4] and not batch.parked
    assert book.do(replayed(fact(2))).counts["duplicate"] == 1, "sent twice by mistake: applied once"


def test_a_replay_that_fails_again_is_another_dead_letter_in_the_same_place():
    book = opened()
    book.do(fact(1, "impossible"), fact(2))
    batch = book.do(replayed(fact(1, "impossible")))
    assert book.reasons() == ["unknown_line"] * 2 and waiting(book) == [1, 2] and book.texts() == []
    assert len(batch.unparked) == len(batch.parked) == 1, "the row is written anew"
    book.do(replayed(broken(1)))
    assert book.reasons()[2:] == ["undecodable"] and waiting(book) == [1, 2]
    book.do(replayed(fact(1)))
    assert book.texts() == ["f1", "f2"]


def test_an_edited_one_has_its_own_id_and_the_old_sequence():
    book = opened()
    book.do(fact(1, "impossible"), fact(2))
    book.do(replayed(changed(fact(1, "mended"), id=b"facts:A:1:e1"), (REPLACES, b"facts:A:1")))
    assert book.texts() == ["mended", "f2"]


def test_a_repetition_is_no_replay():
    book = opened()
    book.do(fact(1, "impossible"), fact(2))
    assert book.do(fact(1, "impossible"), fact(2)).counts["duplicate"] == 2 and len(book.dead) == 1


def test_a_replay_behind_another_dead_letter_waits_for_its_turn():
    book = opened()
    book.do(fact(1, "impossible"), broken(2), fact(3))
    book.do(replayed(fact(2)))
    assert book.texts() == [] and waiting(book) == [1, 2, 3] and len(book.dead) == 2
    book.do(discard(1))
    assert book.texts() == ["f2", "f3"]


def test_a_replay_of_what_must_still_wait_waits_in_its_place():
    book = opened()
    book.do(fact(1, "impossible", needs=0), fact(2))
    book.do(replayed(fact(1, "now", needs=1)))
    assert waiting(book) == [1, 2] and not book.entries["A"].parked[0].dead
    book.do(add("a"))
    assert book.texts() == ["a", "now", "f2"]


def test_a_discard_lets_the_queue_go_on_without_it():
    book = opened()
    book.do(fact(1), fact(2, "impossible"), fact(3))
    batch = book.do(discard(2))
    assert book.texts() == ["f1", "f3"] and book.entries["A"].track.last == {"facts": 3} and batch.counts["discarded"] == 1
    assert book.do(replayed(fact(2, "too late"))).counts["duplicate"] == 1
    assert book.do(discard(2)).counts["discard of what is no dead letter"] == 1


def test_a_discard_is_heeded_by_the_service_that_it_names_and_touches_dead_letters_alone():
    book = opened()
    book.do(fact(1, needs=9), fact(2))
    assert book.do(discard(1)).counts["discard of what is no dead letter"] == 1 and waiting(book) == [1, 2]
    assert book.read(discard(1, service="another")) is None
    wrong = discard(1)
    assert book.read(Raw(wrong.topic, b"B", wrong.value, wrong.headers)).fault[0] is Reason.KEY
    assert book.read(Raw(wrong.topic, b"A", b"{}", wrong.headers)).fault[0] is Reason.INVALID
    book.do(discard(1, order_id="Z"))
    assert "Z" not in book.entries or not book.entries["Z"].parked


def test_a_broken_repetition_of_what_was_applied_holds_nobody():
    book = opened()
    book.do(fact(1), broken(1), fact(2))
    assert book.reasons() == ["undecodable"] and book.texts() == ["f1", "f2"]


def test_a_dead_letter_before_its_order_is_known():
    book = Book()
    book.do(broken(1), fact(2))
    assert waiting(book) == [1, 2]
    book.do(record(SPEC, Open(order_id="A")), add("a"))
    assert book.texts() == ["a"]
    book.do(replayed(fact(1)))
    assert book.texts() == ["a", "f1", "f2"]


def test_a_stranger_in_the_wrong_partition_holds_nobody():
    book = Book(partitions=4)
    away = next(o for o in "ABCDEFGH" if Batch(SPEC, 0, 4, {}, None, NOW)._misplaced(book.read(fact(1, order_id=o))))
    book.do(Raw(fact(1).topic, away.encode(), b"\xff", fact(1, order_id=away).headers))
    assert book.reasons() == ["undecodable"] and not book.entries[away].parked


def test_a_replay_that_needs_rows_not_locked_gets_a_batch_of_its_own():
    book = opened()
    book.do(broken(1), fact(2))
    assert book.do(replayed(fact(1, "take:L")), shared=Shelf()).again == {"A"} and waiting(book) == [1, 2]
    with pytest.raises(SharedMissing):
        book.do(retry(), shared=Shelf())
    book.do(retry(), shared=Shelf("L"))
    assert book.texts() == ["take:L", "f2"]


def test_a_bug_in_a_replay_is_a_dead_letter_again():
    book = opened()
    book.do(broken(1), fact(2))
    with pytest.raises(ValueError):
        book.do(replayed(fact(1, "bug")))
    assert book.do(replayed(fact(1, "bug")), cautious=True).again == {"A"}
    poison(book, retry())
    assert book.reasons() == ["undecodable", "handler_error"] and waiting(book) == [1, 2]


# -- an outsider's ------------------------------------------------------------------------------------------------------


def test_an_outsiders_replay_is_taken_once():
    book = opened()
    book.do(add("impossible", id="x"))
    assert book.do(add("impossible", id="x")).counts["duplicate"] == 1 and len(book.dead) == 1
    book.do(replayed(add("impossible", id="x")))
    assert book.reasons() == ["unknown_line"] * 2, "failed again"
    book.do(replayed(add("mended", id="x")))
    assert book.texts() == ["mended"]
    assert book.do(replayed(add("mended", id="x")), add("mended", id="x")).counts["duplicate"] == 2 and book.texts() == ["mended"]


def test_an_id_that_was_reused_is_taken_only_under_another_one():
    book = opened()
    book.do(add("a", id="x"), add("b", id="x"), replayed(add("b", id="x")))
    assert book.reasons() == ["id_reused"] * 2 and book.texts() == ["a"]
    book.do(replayed(add("b", id="x:e1"), (REPLACES, b"x")))
    assert book.texts() == ["a", "b"]


def test_an_outsiders_dead_letter_that_waited_can_be_replayed():
    book = opened()
    parked = book.do(add("late", needs=1)).parked
    batch = Batch(SPEC, 0, 1, book.entries, None, NOW)
    batch.expire(next(iter(parked)))
    book.commit(batch)
    book.do(add("a"), replayed(add("late", needs=1)))
    assert book.texts() == ["a", "late"]


def test_a_timer_that_can_never_fire_is_a_dead_letter_of_no_queue():
    book = opened()
    poison(book, timer())
    assert not book.entries["A"].parked and len(book.entries["A"].track.seen) < 2


# -- whatever comes, in whatever order ----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_in_the_end_everything_is_applied_once_and_in_order_or_was_discarded(data):
    """Facts of which some are dead; a person replays or discards each, at any moment and as often as they like."""
    count = data.draw(st.integers(2, 6))
    dead = data.draw(st.sets(st.integers(1, count), max_size=3))
    dropped = data.draw(st.sets(st.sampled_from(sorted(dead)))) if dead else set()
    book, sent = opened(), [broken(n) if n in dead else fact(n) for n in range(1, count + 1)]
    while sent:
        take = data.draw(st.integers(1, len(sent)))
        book.do(*sent[:take])
        del sent[:take]
        tried = data.draw(st.lists(st.sampled_from(sorted(dead)), max_size=2)) if dead else []
        held = {p.incoming.sequence for p in (book.entries["A"].parked) if p.dead}
        book.do(*(discard(n) if n in dropped else replayed(fact(n)) for n in tried if n in held))
    for n in sorted(dead):
        book.do(discard(n) if n in dropped else replayed(fact(n)))
    assert book.texts() == [f"f{n}" for n in range(1, count + 1) if n not in dropped]
    assert not book.entries["A"].parked and book.entries["A"].track.waiting == {}
    assert Counter(book.reasons()) == Counter({"undecodable": len(dead)} if dead else {})


# -- generated bad records ----------------------------------------------------------------------------------------------

SERVICES = {spec.name: spec for spec in specs()}


def test_the_generator_knows_who_reads_what():
    for topic in TOPICS:
        for model in topic.messages:
            if model.__name__ in READERS:
                assert set(READERS[model.__name__]) == {name for name, spec in SERVICES.items() if topic in spec.inputs
                                                        and model.__name__ in spec.handled}, model.__name__


def test_the_same_seed_gives_the_same_records():
    assert generate(5, 300, 6) == generate(5, 300, 6) != generate(6, 300, 6)
    kinds = Counter(p.kind for p in generate(5, 3_000, 6))
    assert set(kinds) >= {"undecodable", "oversize", "partition", "future", "repetition", "id_reused", "first"}


@pytest.mark.parametrize("seed", range(3))
def test_each_generated_record_is_refused_for_its_reason(seed):
    """By the readers and machines themselves, record by record; the real broker and database are in test_poison.py."""
    entries = {name: {} for name in SERVICES}
    for poison_ in generate(seed, 1_000, PARTITIONS):
        assert refusals(poison_, entries) == {s: str(r) for s, r in poison_.expected.items()}, poison_


def refusals(bad: Poison, entries: dict[str, dict]) -> dict[str, str]:
    """service -> reason. What must wait is given up at once."""
    from aiokafka.partitioner import murmur2

    partition = bad.partition if bad.partition is not None else (murmur2(bad.key or b"") & 0x7FFFFFFF) % PARTITIONS
    found = {}
    for name, spec in SERVICES.items():
        if not any(topic.name == bad.topic for topic in spec.inputs):
            continue
        taken = read(spec, bad.topic, 0, bad.key, bad.value, bad.headers)
        batch = Batch(spec, partition, PARTITIONS, entries[name], EveryStock(), START)
        if taken is not None:
            batch.handle(taken)
        for key in list(batch.parked):
            if not batch.parked[key].dead:
                batch.expire(key)
        entries[name] |= batch.drafts
        found |= {name: dict(out.headers)[f"{ERRORS}reason"].decode() for out in batch.out if out.headers}
    return found


async def test_what_the_client_itself_cannot_read_stops_the_reader_by_name():
    async def getmany(*_, **__):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    reader = Owner(SPEC, "", 3, 6, "i", SimpleNamespace(getmany=getmany), None, Clock.real())
    reader.due, reader.ahead = None, {"t": 7}
    with pytest.raises(Unfit, match=r"partition 3: .*'t': 7.*not UTF-8"):
        await reader._fetch()


# -- fuzz ---------------------------------------------------------------------------------------------------------------

HEADERS = ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time", "ce_subject", "ce_sequence", "ce_dataschema",
           "ce_correlationid", "ce_causationid", "ce_merchant", REPLAY, "x"]
VALUES = st.one_of(st.binary(max_size=40), st.none(), st.text(max_size=20).map(lambda t: t.encode(errors="surrogatepass")),
                   st.sampled_from([b"1.0", b"2026-11-23T12:00:00Z", b"A", b"1", b"orders", b"facts", b"/outside", DISCARD.encode(),
                                    *sorted(n for spec in SERVICES.values() for _, n in spec.models)]))
ANY_HEADERS = st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=14).map(tuple)
JSONISH = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)


@settings(max_examples=500, deadline=None)
@given(ANY_HEADERS)
def test_an_envelope_is_read_or_refused(headers):
    try:
        envelope_of(headers)
    except BadEnvelope as bad:
        assert bad.reason is Reason.ENVELOPE and bad.detail


@settings(max_examples=1_000, deadline=None)
@given(st.sampled_from(sorted(SERVICES)), st.sampled_from([t.name for t in TOPICS]), st.none() | st.binary(max_size=30),
       st.one_of(st.none(), st.binary(max_size=200), JSONISH.map(lambda v: str(v).encode(errors="replace"))), ANY_HEADERS)
def test_a_reader_never_raises(service, topic, key, value, headers):
    spec = SERVICES[service]
    if any(t.name == topic for t in spec.inputs):
        taken = read(spec, topic, 0, key, value, headers)
        assert taken is None or taken.fault is None or isinstance(taken.fault[0], Reason)


@settings(max_examples=1_000, deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_a_good_record_spoilt_anywhere_is_read_or_refused(seed, data):
    """Bytes flipped, cut out and put in, in value, key and headers of golden records; then handled, as far as it goes."""
    base = next(p for p in generate(seed, 20, PARTITIONS) if p.value and len(p.value) < 10_000)
    spoil = lambda b: _spoilt(data, b) if b and data.draw(st.booleans()) else b
    headers = tuple((name, spoil(value)) for name, value in base.headers)
    for spec in SERVICES.values():
        if any(t.name == base.topic for t in spec.inputs):
            taken = read(spec, base.topic, 0, spoil(base.key), spoil(base.value), headers)
            if taken is not None:
                Batch(spec, 0, 1, {}, EveryStock(), START).handle(taken)


def _spoilt(data, value: bytes) -> bytes:
    at = data.draw(st.integers(0, len(value) - 1))
    return value[:at] + data.draw(st.binary(max_size=3)) + value[at + data.draw(st.integers(0, 3)):]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), JSONISH.map(lambda v: str(v).replace("'", '"')), st.just('{"last":1}')))
def test_a_stored_track_is_read_or_named(text):
    try:
        Track.decode(text)
    except Unreadable as bad:
        assert "track" in str(bad)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.lists(st.lists(st.integers(0, 9) | st.binary(max_size=3), min_size=9, max_size=11)
                                                  ).map(msgpack.packb)))
def test_a_stored_outbox_row_is_read_or_named(payload):
    try:
        unpack(payload)
    except Unreadable as bad:
        assert "outbox" in str(bad)
