"""The quick reader finds in the broker's bytes what aiokafka finds, and nothing else: both read the same batches here."""

from __future__ import annotations

import gc
import json
import weakref
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.subscription_state import ManualSubscription
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import Envelope, dataschema_of, headers_of, type_of
from schemas.generate import example_of
from schemas.topics import ORDER, TOPICS
from services.payments.app import spec as payments_spec
from services.runtime.reader import Fetched, Pick, _Memory, _Records, _Result, _Theirs
from services.runtime.settings import Settings
from services.runtime.spec import read, read_raw
from services.shipping.app import spec as shipping_spec

TP = TopicPartition(ORDER.name, 0)
NOW = datetime(2026, 11, 25, tzinfo=UTC)
NAMES = [model.__name__ for model in ORDER.messages]
EXAMPLES = {model.__name__: example_of(ORDER, model)["payload"] for model in ORDER.messages}
SPECS = [make(Settings()) for make in (payments_spec, shipping_spec)]
Written = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


def batch(records: list[Written], base: int = 0, compression: int = 0, gap: int = 1) -> bytes:
    """As a broker stores it; `gap`: between two offsets, as in a topic that was compacted."""
    builder = DefaultRecordBatchBuilder(2, compression, 0, 7, 1, 0, 1 << 24)
    for n, (key, value, headers) in enumerate(records):
        assert builder.append(n * gap, 1_700_000_000_000 + n * 70, key, value, list(headers))
    return base.to_bytes(8) + bytes(builder.build())[8:]


def quick(raw: bytes, wanted: list[str], at: int = 0, limit: int = 1 << 30) -> Fetched:
    return _Records(TP, _Memory(raw), None, at, None, Pick({ORDER.name: wanted}, TOPICS), True, 0).take(limit)


def theirs(raw: bytes, at: int = 0) -> list:
    return list(_Theirs(TP, MemoryRecords(raw), None, at, None, None, True, 0))


def plain(records) -> list[tuple]:
    return [(r.offset, r.key, r.value, tuple(r.headers)) for r in records]


def event(n: int, name: str = "OrderCompleted", source: str = "orders", **fields) -> Written:
    envelope = Envelope(f"{source}:order-{n}:{n + 1}", name, source, NOW, f"order-{n}", n + 1)._replace(
        **{"correlation": "c", "causation": "d", "merchant": "m-1"} | fields)
    return f"order-{n}".encode(), json.dumps(EXAMPLES[name] | {"order_id": f"order-{n}"}).encode(), tuple(
        headers_of(envelope, dataschema_of(ORDER.name, name)))


# Texts around the lengths at which a number takes another byte, and everything that is not printable ASCII.
texts = st.one_of(st.text(max_size=12), st.integers(0, 70).map("x".__mul__), st.integers(8100, 8200).map("y".__mul__),
                  st.sampled_from(["\x0ece_type", "a\x0ece_id", " ce_correlationid", "\x16ce_sequence\x021", "é"]))
values = st.one_of(st.none(), texts.map(str.encode))
usual = st.builds(
    lambda n, name, fields: event(n, name, **fields), st.integers(0, 200), st.sampled_from(NAMES),
    st.fixed_dictionaries({}, optional={"source": texts, "id": texts, "subject": texts, "correlation": texts, "causation": texts,
                                        "merchant": texts, "sequence": st.integers(0, 2**31)}))


@st.composite
def spoiled(draw) -> Written:
    """An event of ours with something about its headers changed, or any record at all."""
    key, value, headers = draw(usual)
    headers = list(headers)
    what = draw(st.sampled_from(("order", "drop", "more", "twice", "value", "name", "none", "as it is", "key")))
    at = draw(st.integers(0, len(headers) - 1))
    if what == "order":
        headers = draw(st.permutations(headers))
    elif what == "drop":
        del headers[at]
    elif what == "more":
        headers += draw(st.lists(st.tuples(texts, values), min_size=1, max_size=80))
    elif what == "twice":
        headers.insert(draw(st.integers(0, len(headers))), headers[at])
    elif what == "value":
        headers[at] = headers[at][0], draw(values)
    elif what == "name":
        headers[at] = draw(texts), headers[at][1]
    elif what == "none":
        headers = []
    elif what == "key":
        key, value = draw(values), draw(values)
    return key, value, tuple(headers)


records = st.lists(st.one_of(usual, spoiled()), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(records, st.lists(st.sampled_from(NAMES), unique=True), st.sampled_from([0, 0, 0, 3]), st.integers(1, 300), st.integers(0, 900))
def test_it_finds_what_aiokafka_finds_without_what_nobody_wants(written, wanted, compression, gap, at):
    raw = batch(written, 0, compression, gap) + batch(written, 2000)
    passed = {name.encode() for name in NAMES} - {name.encode() for name in wanted}
    expected = [r for r in theirs(raw, at) if type_of(r.headers) not in passed]
    found = quick(raw, wanted, at)
    assert plain(found) == plain(expected)
    assert found.end == 2000 + len(written)
    for one in found:
        assert one.type == type_of(tuple(one.headers))
        if one.fields is not None:
            said = {name: value.decode() for name, value in one.headers}
            assert len(said) == len(list(one.headers)) and one.fields == (
                *(said[f"ce_{name}"] for name in ("source", "id", "time", "subject", "correlationid", "causationid", "merchant")),
                int(said.get("ce_sequence", "0")))


@settings(max_examples=150, deadline=None)
@given(records, st.sampled_from(SPECS))
def test_a_service_decides_the_same_about_a_record_however_it_was_read(written, spec):
    for one, its in zip(quick(batch(written), NAMES), theirs(batch(written)), strict=True):
        record, expected = read_raw(spec, ORDER.name, one), read(spec, ORDER.name, its.offset, its.key, its.value, its.headers)
        if expected is None:
            assert record is None
        else:
            assert record._replace(headers=tuple(record.headers)) == expected


def test_what_our_services_write_is_read_the_quick_way():
    assert all(one.fields is not None for one in quick(batch([event(n, name) for n, name in enumerate(NAMES)]), NAMES))
    outsider = headers_of(Envelope("packed:p", NAMES[0], "/warehouse/SEA1", NOW, "order-1"), dataschema_of(ORDER.name, NAMES[0]))
    assert quick(batch([(b"k", b"v", tuple(outsider))]), NAMES)[0].fields.sequence == 0


def test_a_service_takes_its_usual_records_the_quick_way():
    for n, name in enumerate(NAMES):
        (one,) = quick(batch([event(n, name)]), NAMES)
        for spec in SPECS:
            record = read_raw(spec, ORDER.name, one)
            assert record is None if name not in spec.handled else record.headers is one.headers and record.incoming


@pytest.mark.parametrize("compression", [0, 3])
def test_a_limit_is_kept_and_nothing_is_lost_behind_it(compression):
    names = ["OrderCompleted", "OrderCancelled", "OrderPlaced"]
    raw = b"".join(batch([event(n, names[n % 3]) for n in range(base, base + 5)], base, compression) for base in (0, 5, 10))
    records, found, ends = _Records(TP, _Memory(raw), None, 3, None, Pick({ORDER.name: names[:2]}, TOPICS), True, 0), [], []
    while not records.done:
        part = records.take(2)
        assert len(part) <= 2 and all(r.offset < part.end for r in part)
        found, ends = found + part, [*ends, part.end]
    assert [r.offset for r in found] == [n for n in range(3, 15) if n % 3 < 2]
    assert ends == sorted(ends) and ends[-1] == 15


def test_a_batch_that_did_not_arrive_whole_waits_for_the_next_fetch():
    whole = batch([event(n) for n in range(3)])
    for cut in (1, 20, 61, 100):
        found = quick(whole + batch([event(9)], 3)[:-cut], NAMES)
        assert len(found) == 3 and found.end == 3


@pytest.mark.parametrize("compression", [0, 3])
def test_what_was_read_is_gone_at_once_without_the_collector(compression):
    records = _Records(TP, _Memory(batch([event(1)], 0, compression)), None, 0, None, Pick({ORDER.name: NAMES}, TOPICS), True, 0)
    gone = weakref.ref(records)
    gc.disable()  # as in the services
    try:
        assert len(records.take(9)) == 1
        del records
        assert gone() is None
    finally:
        gc.enable()


def test_a_flipped_bit_is_found():
    whole = bytearray(batch([event(n) for n in range(3)]))
    whole[200] ^= 1
    with pytest.raises(CorruptRecordException):
        quick(bytes(whole), NAMES)


def test_a_header_name_that_is_not_utf_8_is_told_as_aiokafka_tells_it():
    key, value, headers = event(0)
    raw = batch([(key, value, (*headers, ("bad-name", b"")))]).replace(b"bad-name", b"bad\xffname")
    for way in (theirs, lambda raw: quick(raw, NAMES)):
        records = bytearray(raw)
        records[17:21] = _checksum(raw)
        with pytest.raises(UnicodeDecodeError):
            way(bytes(records))


def _checksum(raw: bytes) -> bytes:
    from aiokafka.record.util import calc_crc32c
    return calc_crc32c(memoryview(raw)[21:]).to_bytes(4)


async def test_the_fetcher_hands_over_how_far_it_came_even_when_nothing_was_wanted():
    subscription = ManualSubscription({TP})
    state = subscription.assignment.state_value(TP)
    state.seek(0)
    raw = batch([event(n) for n in range(4)])
    result = _Result(TP, assignment=subscription.assignment, backoff=0.1,
                     partition_records=_Records(TP, _Memory(raw), None, 0, None, Pick({ORDER.name: []}, TOPICS), True, 0))
    found = result.getall(500)
    assert found and list(found) == [] and found.end == 4 == state.position and not result.has_more()


def test_other_consumers_read_as_ever_and_the_version_is_the_one_that_was_looked_at():
    raw = batch([event(n) for n in range(4)])
    assert plain(_Records(TP, _Memory(raw), None, 2, None, None, True, 0)) == plain(theirs(raw, 2))
    assert (fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult) == (_Memory, _Records, _Result)
    assert version("aiokafka") == "0.14.0", "read aiokafka/consumer/fetcher.py again before this number is changed"
