"""Records that can never be handled, made from a seed, each with what must become of it.

    planted = await plant(bootstrap, generate(seed=7, count=1_000, partitions=6), journal)

    TRADEWIND_DEAD_LETTERS_MAX=100000 tradewind up --detach && python -m services.simulators.poison --count 10000 && tradewind audit

`generate` covers the whole catalogue of bad records on a topic. Every one names an order of its own, so that what stands
beside it must not notice; a few are harmless on purpose (a repetition, the first of a pair) and expect nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from pydantic_core import to_json

from schemas import books, brands, merchants
from schemas.dead_letters import Reason
from schemas.generate import example_of
from schemas.model import Command
from schemas.shipping_report import LANE
from schemas.topics import INTAKE, ORDER, PAYMENT, PROVIDER_RESULT, REPORT, SENSOR, SHIPMENT, TOPICS, Topic
from services.runtime.settings import Settings
from services.simulators.journal import Journal

OVERSIZE_BYTES = 900_001
SERVICES = ("orders", "payments", "shipping")
OURS = {ORDER.name: "orders", PAYMENT.name: "payments", SHIPMENT.name: "shipping"}

# Which services act on a type. A reader drops what it does not handle before it looks inside, so that a bad record of
# such a type is nobody's dead letter. No type is here that the simulated outside world answers: it would believe a bad event,
# and its answer would be one more record that nobody can handle.
READERS: dict[str, tuple[str, ...]] = {
    **{model.__name__: ("orders",) for model in INTAKE.messages},
    **{model.__name__: ("payments",) for model in PROVIDER_RESULT.messages},
    **{model.__name__: ("shipping",) for model in REPORT.messages},
    "OrderPlaced": ("payments", "shipping"), "ReturnRequested": ("payments", "shipping"),
    "CancellationRequested": ("shipping",), "ReceiptConfirmed": ("payments",),
    "PaymentAuthorised": ("orders", "shipping"), "PaymentSettled": ("orders",),
    "ParcelsAllocated": ("orders", "payments"), "ParcelCancelled": ("orders", "payments"),
}


class Poison(NamedTuple):
    """One record. `partition` None: that of its key. `expected`: service -> reason of its dead letter; empty: none."""

    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    partition: int | None
    expected: dict[str, Reason]


class Planted(NamedTuple):
    """A record and where it lies."""

    poison: Poison
    partition: int
    offset: int


class _Good:
    """A record that would be right, to be spoilt."""

    def __init__(self, topic: Topic, model: type, order_id: str, partitions: int, draw: random.Random):
        example = example_of(topic, model)
        self.topic, self.model, self.name, self.draw, self.partitions = topic, model, model.__name__, draw, partitions
        self.readers = READERS[self.name]
        self.payload: dict[str, Any] = copy.deepcopy(example["payload"])
        if self.name == "InboundReceived":
            self.payload["sku"] = order_id[:40]
            order_id = f"stock:{self.payload['warehouse']}:{self.payload['sku']}"
        elif "lane" in model.model_fields and not OURS.get(topic.name):
            self.payload["lane"] = order_id[:50]
            order_id = f"{LANE}{self.payload['lane']}"
        self.payload["order_id"] = self.order_id = order_id
        self.key: bytes | None = order_id.encode()
        self.headers: dict[str, bytes | None] = {name: value.encode() for name, value in example["headers"].items()}
        ours = OURS.get(topic.name)
        sequence = example["headers"].get("ce_sequence", "")
        self.headers |= {"ce_subject": order_id.encode(), "ce_merchant": b"m-poison",
                         "ce_id": (f"{ours}:{order_id}:{sequence}" if ours else f"{self.name}:{order_id}").encode()}
        self.partition: int | None = None

    def value(self) -> bytes:
        return to_json(self.payload)

    def spoilt(self, kind: str, reason: Reason, value: bytes | None = b"", *, readers: tuple[str, ...] | None = None) -> Poison:
        """`value` b"" stands for the payload as it is."""
        return Poison(kind, self.topic.name, self.key, self.value() if value == b"" else value,
                      tuple(self.headers.items()), self.partition, dict.fromkeys(readers or self.readers, reason))


def _undecodable(good: _Good) -> Poison:
    whole, draw = good.value(), good.draw
    value = draw.choice((
        whole[:draw.randrange(1, len(whole))], b"\xff\xfe" + draw.randbytes(40), b"\0" * draw.randrange(1, 99), b"{",
        b"[" * 5_000, whole.replace(b'":"', b'":"\xc3\x28', 1), whole + b"}", b"not json at all", whole.replace(b"{", b"{{", 1),
        b'{"order_id":"\\ud800"}', b"\xef\xbb\xbf" + whole))
    return good.spoilt("undecodable", Reason.UNDECODABLE, value)


def _invalid(good: _Good) -> Poison:
    payload, draw = good.payload, good.draw
    required = [name for name, field in good.model.model_fields.items() if field.is_required()]
    name = draw.choice(required)
    ways: list[Callable[[], Any]] = [
        lambda: payload.pop(name), lambda: payload.update({name: {"not": ["this"]}}), lambda: payload.update({name: None}),
        lambda: payload.update(order_id="zero\u200bwidth"), lambda: payload.update(order_id="x" * 61),
        lambda: payload.update(order_id="two\u202eways"), lambda: payload.update(order_id="nul\0")]
    if issubclass(good.model, Command):
        ways += [lambda: payload.update(unknown_field=1), lambda: payload.update({"order_id": 7})]
    numbers = [n for n, v in payload.items() if isinstance(v, int) and not isinstance(v, bool)]
    if numbers:
        number = draw.choice(numbers)
        ways.append(lambda: payload.update({number: 1.5}))
        bounds = {name for part in good.model.model_fields[number].metadata for name in ("ge", "le")
                  if getattr(part, name, None) is not None}
        if "ge" in bounds:  # a temperature may be below zero
            ways.append(lambda: payload.update({number: -1}))
        if "le" in bounds:
            ways.append(lambda: payload.update({number: 10**30}))
    draw.choice(ways)()
    value = good.value() if draw.random() < 0.9 else draw.choice((b"[]", b"7", b'"text"', b"null", b"{}", b'{"order_id":NaN}'))
    return good.spoilt("invalid", Reason.INVALID, value)


def _null(good: _Good) -> Poison:
    return good.spoilt("null_value", Reason.NULL_VALUE, None)


def _unknown_type(good: _Good) -> Poison:
    others = [m.__name__ for t in TOPICS if t is not good.topic for m in t.messages]
    wrong = good.draw.choice((None, b"", b"OrderTeleported", b"\xff\xfe\xfd", b"placeorder",
                              good.draw.choice(others).encode(), f"{good.name}V2".encode()))
    good.headers.pop("ce_type")
    if wrong is not None:
        good.headers["ce_type"] = wrong
    return good.spoilt("unknown_type", Reason.UNKNOWN_TYPE, readers=_services_of(good.topic))


def _unknown_version(good: _Good) -> Poison:
    named = good.topic.name.rpartition(".v")[0]
    good.headers["ce_dataschema"] = good.draw.choice((
        f"schemas/{named}.v2/{good.name}.json".encode(), f"schemas/{good.topic.name}/{good.name}V2.json".encode(),
        b"https://example.org/schema.json", b"\xff"))
    return good.spoilt("unknown_version", Reason.UNKNOWN_VERSION)


def _envelope(good: _Good) -> Poison:
    draw, headers = good.draw, good.headers
    name = draw.choice(("ce_specversion", "ce_id", "ce_source", "ce_time", "ce_subject"))
    wrong = {"ce_specversion": (b"0.3", b"2.0", b""), "ce_id": (b"", b"\xff", b"x" * 201, b"nul\0", "zero\u200bwidth".encode()), "ce_source": (b"\xff", b"/s" * 101, b"/a\n"),
             "ce_time": (b"yesterday", b"2026-11-23T12:00:00", b"", b"\xff"), "ce_subject": (b"\xff", b"s" * 201),
             "ce_sequence": (None, b"one", b"-1", b"4294967296", b"9" * 5000, b"1.5"), "ce_correlationid": (b"c" * 500, b"\xff"),
             "ce_causationid": (b"c" * 500,), "ce_merchant": (None, b"m" * 500, b"\xc3")}
    if draw.random() < 0.3:
        del headers[name]
    else:
        name = draw.choice(list(wrong))
        headers[name] = draw.choice(wrong[name])
    return good.spoilt("envelope", Reason.ENVELOPE)


def _twice(good: _Good) -> Poison:
    poison = good.spoilt("envelope twice", Reason.ENVELOPE)
    return poison._replace(headers=(*poison.headers, ("ce_type", b"SomethingElse")))


def _source(good: _Good) -> Poison:
    ours = OURS.get(good.topic.name)
    if ours is None:
        good.headers["ce_source"] = good.draw.choice(SERVICES).encode()
    elif good.draw.random() < 0.5:
        good.headers["ce_source"] = good.draw.choice([s for s in (*SERVICES, "/outside") if s != ours]).encode()
    else:
        del good.headers["ce_sequence"]
    return good.spoilt("source", Reason.SOURCE)


def _key(good: _Good) -> Poison:
    way = good.draw.randrange(3)
    if way == 0:
        good.key = None
    elif way == 1:
        good.key = b"another-" + good.draw.randbytes(4).hex().encode()
    else:
        good.headers["ce_subject"] = b"another"
    return good.spoilt("key", Reason.KEY)


def _partition(good: _Good) -> Poison:
    right = (murmur2(good.key) & 0x7FFFFFFF) % good.partitions
    good.partition = (right + good.draw.randrange(1, good.partitions)) % good.partitions
    return good.spoilt("partition", Reason.PARTITION)


def _oversize(good: _Good) -> Poison:
    return good.spoilt("oversize", Reason.OVERSIZE, good.value() + b" " * OVERSIZE_BYTES)


def _no_merchant(good: _Good) -> Poison:
    good.headers["ce_merchant"] = b""
    return good.spoilt("no_merchant", Reason.NO_MERCHANT)


def _future(good: _Good) -> Poison:
    return good.spoilt("future", Reason.PARKED_TOO_LONG)


def _services_of(topic: Topic) -> tuple[str, ...]:
    return tuple(s for s in SERVICES if s in topic.read_by)


# kind -> (share in 1000, how, the topics on which it makes sense)
# The sensors' topic is left out: no service reads it, and its view is not always there to refuse (tests/test_cold_view.py).
_ALL, _OUTSIDE, _OURS = tuple(t for t in TOPICS if t is not SENSOR), (INTAKE, PROVIDER_RESULT, REPORT), (ORDER, PAYMENT, SHIPMENT)
KINDS: dict[str, tuple[int, Callable[[_Good], Poison], tuple[Topic, ...]]] = {
    "undecodable": (160, _undecodable, _ALL), "invalid": (180, _invalid, _ALL), "null_value": (80, _null, _ALL),
    "unknown_type": (100, _unknown_type, _ALL), "unknown_version": (80, _unknown_version, _ALL),
    "envelope": (120, _envelope, _ALL), "envelope twice": (20, _twice, _ALL), "source": (70, _source, _ALL),
    "key": (60, _key, _ALL), "partition": (40, _partition, _ALL), "oversize": (2, _oversize, _ALL),
    "no_merchant": (30, _no_merchant, _OURS), "future": (20, _future, _OUTSIDE),
}
PAIR_PERMILLE = 30  # an id that comes twice, with the same content or with another one


def generate(seed: int, count: int, partitions: int, *, future: bool = True) -> list[Poison]:
    """`count` records, the same for the same arguments; their ids and orders are this seed's own. What comes in pairs
    stands in its order. `future`: also what only the timeout of waiting makes a dead letter."""
    draw = random.Random(seed)
    kinds = {kind: share for kind, (share, _, _) in KINDS.items()
             if (future or kind != "future") and (partitions > 1 or kind != "partition")}
    found: list[Poison] = []
    while len(found) < count:
        order_id = f"poison-{seed}-{len(found)}"
        if draw.randrange(1000) < PAIR_PERMILLE and len(found) < count - 1:
            found += _pair(order_id, partitions, draw)
            continue
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        _, spoil, topics = KINDS[kind]
        topic = draw.choice(topics)
        models = [m for m in topic.messages if m.__name__ in READERS and not (kind == "future" and m.__name__ in _FIRST)]
        found.append(spoil(_Good(topic, draw.choice(models), order_id, partitions, draw)))
    return found


# They need no order to be there, so that they would not wait.
_FIRST = {"PlaceOrder", "InboundReceived", "HarvestAnnounced", "CloseLane", "OpenLane",
          *(command.__name__ for command in (*merchants.COMMANDS, *brands.COMMANDS, *books.COMMANDS))}


def _pair(order_id: str, partitions: int, draw: random.Random) -> list[Poison]:
    """A delivery of stock, and the same id again."""
    model = next(m for m in REPORT.messages if m.__name__ == "InboundReceived")
    good = _Good(REPORT, model, order_id, partitions, draw)
    first = good.spoilt("first", Reason.ID_REUSED)._replace(expected={})
    if draw.random() < 0.5:
        return [first, first._replace(kind="repetition")]
    good.payload["quantity"] += 1
    return [first, good.spoilt("id_reused", Reason.ID_REUSED)]


async def plant(bootstrap: str, poisons: Iterable[Poison], journal: Path | None = None, per_s: float = 0.0) -> list[Planted]:
    """Publish them in the order given, and note in the journal where each lies and what is expected of whom.

    `per_s`: so many a second (0: at once). A line: {"planted", "topic", "partition", "offset", "expected"}.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=1_048_576)
    notes = Journal(journal) if journal else None
    await producer.start()
    try:
        under_way, found = [], []
        for poison in poisons:
            under_way.append((poison, await producer.send(poison.topic, poison.value, poison.key, poison.partition,
                                                          headers=list(poison.headers))))
            if per_s:
                await asyncio.sleep(1 / per_s)
        for poison, sent in under_way:
            where = await sent
            found.append(Planted(poison, where.partition, where.offset))
        if notes:
            notes.write([to_json({"planted": p.poison.kind, "topic": p.poison.topic, "partition": p.partition,
                                  "offset": p.offset, "expected": p.poison.expected}) for p in found])
        return found
    finally:
        await producer.stop()
        if notes:
            notes.close()


def dead_letters_of(planted: Iterable[Planted]) -> Counter[tuple[str, int, int, str, str]]:
    """The dead letters there must be: (topic, partition, offset, service, reason)."""
    return Counter((p.poison.topic, p.partition, p.offset, service, str(reason))
                   for p in planted for service, reason in p.poison.expected.items())


def main() -> None:
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m services.simulators.poison", description="Bad records onto a running system")
    parser.add_argument("--seed", type=int, default=settings.seed, help="a seed that was planted before gives repetitions of it")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=0.0, help="0: at once")
    parser.add_argument("--future", action="store_true", help="also what becomes a dead letter only after an hour of waiting")
    given = parser.parse_args()
    bad = generate(given.seed, given.count, settings.partitions, future=given.future)
    planted = asyncio.run(plant(settings.bootstrap, bad, settings.data_folder / "journals" / "planted.ndjson", given.per_second))
    print(to_json({"planted": len(planted), "dead_letters": dead_letters_of(planted).total(), "seed": given.seed,
                   "kinds": Counter(p.kind for p in bad)}).decode())


if __name__ == "__main__":
    main()
