"""Reading a partition at less than half of aiokafka's price: what nobody wants is passed over before anything is made of it.

Two thirds of what a service fetches is not its business, and aiokafka makes a record with a dozen headers of each before
anybody can look at its type. Here the type is looked at in the broker's bytes (`headers_of` writes it first), and the
headers of what is wanted are read in one go where they stand in the order of `headers_of`. Whatever looks different, a
header more, another order, a null, a value of 64 bytes, a compressed batch, is read as aiokafka reads it: the quick way
accepts, it never refuses.

A consumer reads like this when its `value_deserializer` is a `Pick`; every other one of the process reads as before. Made
for aiokafka 0.14.0, of which three names are replaced at the end; tests/test_reader.py holds both ways against each other.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from schemas.envelope import dataschema_of, headers_of_type, type_of
from schemas.topics import Topic

Header = tuple[str, bytes | None]
# Base offset, length, leader's epoch, magic, checksum, attributes, last offset's delta, two times, three of the producer, count.
_BATCH = struct.Struct(">qiibIhiqqqhii")
_LENGTH_FROM, _CHECKSUM_FROM = 12, 21  # where that begins in a batch which its length and its checksum are of
_UNUSUAL = 0x07 | 0x10 | 0x20  # attributes: compressed, transactional, control
_TYPE = b"\x0ece_type"
_SEQUENCE = "\x16ce_sequence"
_VARYING = re.compile("".join(f"{chr(2 * len(name))}{name}(.)([ -~]*)" for name in (
    "ce_source", "ce_id", "ce_time", "ce_subject", "ce_correlationid", "ce_causationid", "ce_merchant"))
    + f"(?:{_SEQUENCE}(.)([0-9]{{1,9}}))?", re.DOTALL).fullmatch
_COUNT, _COUNT_WITH_SEQUENCE = 2 * 11, 2 * 12  # of headers, as they are written


class Fields(NamedTuple):
    """The attributes of an envelope; `time` as it was written, `sequence` 0 where there is none."""

    source: str
    id: str
    time: str
    subject: str
    correlation: str
    causation: str
    merchant: str
    sequence: int


class Raw(NamedTuple):
    """One record. `type` is its first `ce_type`; `fields` only where the headers are just the usual ones."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Iterable[Header]
    type: bytes | None
    fields: Fields | None


class Headers:
    """Headers as the broker has them, made when somebody asks."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes):
        self._raw = raw

    def __iter__(self) -> Iterator[Header]:
        return iter(_headers(self._raw, 0, len(self._raw)))


class Fetched(list[Raw]):
    """Wanted records of one partition, in order; `end` is the offset behind the last that was looked at. True even when
    nothing was wanted: aiokafka would not hand it over, and nobody would hear how far the reader came."""

    end = 0

    def __bool__(self) -> bool:
        return True


class Pick:
    """The types that are wanted, by topic; what does not belong on a topic always is. A consumer's `value_deserializer`."""

    def __init__(self, wanted: Mapping[str, Iterable[str]], topics: Iterable[Topic]):
        self.passed: dict[str, frozenset[bytes]] = {}
        self.usual: dict[str, dict[bytes, bytes]] = {}  # topic -> type -> the headers that all of the type begin with
        for topic in topics:
            names = {model.__name__ for model in topic.messages}
            self.passed[topic.name] = frozenset(name.encode() for name in names - set(wanted.get(topic.name, ())))
            self.usual[topic.name] = {name.encode(): _beginning(topic.name, name) for name in names}

    def __call__(self, value: bytes | None) -> bytes | None:
        return value


def _beginning(topic: str, name: str) -> bytes:
    written = headers_of_type(name, dataschema_of(topic, name))
    return b"".join(_written(len(key)) + key.encode() + _written(len(value)) + value for key, value in written)


def _written(number: int) -> bytes:
    """As Kafka writes a length: zigzag, then seven bits a byte."""
    left, out = number << 1, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((*out, left))


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """What stands there, and the position behind it."""
    found = shift = 0
    while True:
        byte = raw[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
        shift += 7


def _piece(raw: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    """A length and so many bytes, None for -1; and the position behind them."""
    length, at = _number(raw, at)
    if at + length > end:
        raise CorruptRecordException(f"a part of {length} bytes reaches beyond its record")
    return (raw[at:at + length], at + length) if length >= 0 else (None, at)


def _headers(raw: bytes, at: int, end: int) -> tuple[Header, ...]:
    """All headers of a record. Raises CorruptRecordException, and UnicodeDecodeError of a name, as aiokafka does."""
    count, at = _number(raw, at)
    found = []
    for _ in range(count):
        name, at = _piece(raw, at, end)
        value, at = _piece(raw, at, end)
        if name is None:
            raise CorruptRecordException("a header without a name")
        found.append((name.decode(), value))
    if at != end or count < 0:
        raise CorruptRecordException("headers and record do not end together")
    return tuple(found)


def _fields(text: str, count: int) -> Fields | None:
    """`text`: the headers behind those of the type. None unless it is as usual, each length the one that is written."""
    match = _VARYING(text)
    if match is None:
        return None
    a, source, b, id_, c, time, d, subject, e, correlation, f, causation, g, merchant, h, sequence = match.groups()
    if ord(a) != 2 * len(source) or ord(b) != 2 * len(id_) or ord(c) != 2 * len(time) or ord(d) != 2 * len(subject) \
            or ord(e) != 2 * len(correlation) or ord(f) != 2 * len(causation) or ord(g) != 2 * len(merchant):
        return None
    if h is None:
        return _new(Fields, (source, id_, time, subject, correlation, causation, merchant, 0)) if count == _COUNT else None
    if ord(h) != 2 * len(sequence) or count != _COUNT_WITH_SEQUENCE:
        return None
    return _new(Fields, (source, id_, time, subject, correlation, causation, merchant, int(sequence)))


_new = tuple.__new__  # a third of the time that a named tuple's own takes


class _Memory:
    """What a fetch brought, as aiokafka's fetcher wants to ask it, with the bytes still at hand."""

    def __init__(self, raw: bytes):
        records = MemoryRecords(raw)
        self.raw, self.has_next, self.next_batch, self.size_in_bytes = raw, records.has_next, records.next_batch, records.size_in_bytes


_Theirs = fetcher.PartitionRecords


class _Records(_Theirs):
    """What a fetch brought of one partition. The format is described in aiokafka/record/default_records.py."""

    def __init__(self, tp: Any, records: _Memory, aborted: Any, fetch_offset: int, *rest: Any):
        super().__init__(tp, records, aborted, fetch_offset, *rest)
        self._raw, self._batch_end = records.raw, 0
        self._at = self._left = self._base = self._after = 0  # of the batch that is open: place, records, offsets
        self._unusual: Iterator[Any] = iter(())
        self.quick = isinstance(self._value_deserializer, Pick)
        if self.quick:  # their generator and this object hold each other, and with them the bytes, until somebody collects
            self._records_iterator = None

    @property
    def done(self) -> bool:
        return not self._left and not self._whole()

    def take(self, limit: int) -> Fetched:
        """The next wanted records, at most `limit`. Raises CorruptRecordException, UnicodeDecodeError (a header's name)."""
        found = Fetched()
        try:
            while len(found) < limit and (self._left or self._open()):
                self._read_usual(found, limit) if self._at else self._read_theirs(found, limit)
        except IndexError as why:
            raise CorruptRecordException(f"a record of {self._tp} reaches beyond its batch") from why
        found.end = self.next_fetch_offset
        return found

    def _whole(self) -> bool:
        """Whether another batch follows that arrived whole."""
        raw, at = self._raw, self._batch_end
        return len(raw) - at >= _LENGTH_FROM and at + _LENGTH_FROM + int.from_bytes(raw[at + 8:at + 12]) <= len(raw)

    def _open(self) -> bool:
        """Go to the next batch; False when there is none."""
        if not self._whole():
            return False
        raw, at = self._raw, self._batch_end
        if len(raw) - at < _BATCH.size:
            raise CorruptRecordException(f"a batch of {self._tp} is too short to be one")
        base, length, _, magic, checksum, attributes, last, _, _, _, _, _, count = _BATCH.unpack_from(raw, at)
        self._batch_end = end = at + _LENGTH_FROM + length
        if magic != 2 or attributes & _UNUSUAL:
            self._at, self._left = 0, 1
            self._unusual = _Theirs(self._tp, MemoryRecords(raw[at:end]), self._aborted_transactions, self.next_fetch_offset,
                                    None, None, self._check_crcs, self._isolation_level)
            return True
        if self._check_crcs and calc_crc32c(memoryview(raw)[at + _CHECKSUM_FROM:end]) != checksum:
            raise CorruptRecordException(f"Invalid CRC - {self._tp}")
        self._at, self._left, self._base, self._after = at + _BATCH.size, count, base, base + last + 1
        return True

    def _read_theirs(self, found: Fetched, limit: int) -> None:
        """A batch that is compressed, of a transaction or of an old format, as aiokafka reads it."""
        passed = self._value_deserializer.passed[self._tp.topic]
        while len(found) < limit:
            record = next(self._unusual, None)
            self.next_fetch_offset = max(self.next_fetch_offset, self._unusual.next_fetch_offset)
            if record is None:
                self._left = 0
                break
            name = type_of(record.headers)
            if name not in passed:
                found.append(Raw(record.offset, record.key, record.value, record.headers, name, None))

    def _read_usual(self, found: Fetched, limit: int) -> None:
        """Records of this batch until it ends or `limit` are found. Numbers of one or two bytes are read here: most are."""
        raw, at, left, base, topic = self._raw, self._at, self._left, self._base, self._tp.topic
        passed, usual = self._value_deserializer.passed[topic], self._value_deserializer.usual[topic]
        offset, expected, room = -1, self.next_fetch_offset, limit - len(found)
        while left and room:
            left -= 1
            first, second = raw[at], raw[at + 1]
            if first < 0x80:
                length, at = first >> 1, at + 1
            elif second < 0x80:
                length, at = (first & 0x7F | second << 7) >> 1, at + 2
            else:
                length, at = _number(raw, at)
            end = at + length
            at += 1  # attributes, of which there are none
            while raw[at] > 0x7F:  # the time since the batch's
                at += 1
            at += 1
            first, second = raw[at], raw[at + 1]
            if first < 0x80:
                offset, at = base + (first >> 1), at + 1
            elif second < 0x80:
                offset, at = base + ((first & 0x7F | second << 7) >> 1), at + 2
            else:
                offset, at = _number(raw, at)
                offset += base
            first = raw[at]
            if first < 0x80 and not first & 1:
                key_from, at = at + 1, at + 1 + (first >> 1)
                key_to = at
            else:
                key_to, key_from = _number(raw, at)
                key_to += key_from
                at = max(key_from, key_to)
            first, second = raw[at], raw[at + 1]
            if first < 0x80 and not first & 1:
                value_from, at = at + 1, at + 1 + (first >> 1)
                value_to = at
            elif first > 0x7F > second and not first & 1:
                value_from = at + 2
                at = value_to = value_from + ((first & 0x7F | second << 7) >> 1)
            else:
                value_to, value_from = _number(raw, at)
                value_to += value_from
                at = max(value_from, value_to)
            headers_at, at = at, end
            if offset < expected:  # the fetch began within the batch
                continue
            fields = name = None
            if raw[headers_at + 1:headers_at + 9] == _TYPE:
                name = raw[headers_at + 10:headers_at + 10 + (raw[headers_at + 9] >> 1)]
                beginning = usual.get(name)
                if beginning is not None and raw.startswith(beginning, headers_at + 1):
                    if name in passed:
                        continue
                    fields = _fields(raw[headers_at + 1 + len(beginning):end].decode("latin-1"), raw[headers_at])
            if fields is not None:
                headers = Headers(raw[headers_at:end])
            else:
                headers = _headers(raw, headers_at, end)
                name = type_of(headers)
                if name in passed:
                    continue
            found.append(_new(Raw, (offset, raw[key_from:key_to] if key_to >= key_from else None,
                                    raw[value_from:value_to] if value_to >= value_from else None, headers, name, fields)))
            room -= 1
        if not left and at != self._batch_end:
            raise CorruptRecordException(f"records and batch of {self._tp} do not end together")
        self._at, self._left = at, left
        self.next_fetch_offset = max(expected, offset + 1 if left else self._after)


class _Result(fetcher.FetchResult):
    def getall(self, max_records: int | None = None) -> list[Any]:
        records = self._partition_records
        if records is None or not records.quick:
            return super().getall(max_records)
        if not self.check_assignment(self._topic_partition):
            return []
        found = records.take(max_records or sys.maxsize)
        self._update_position()
        if records.done:
            self._partition_records = None
        return found


fetcher.MemoryRecords, fetcher.PartitionRecords, fetcher.FetchResult = _Memory, _Records, _Result
