"""One service, as the partition owner sees it, and how the bytes of a record become something it can decide about.

Nothing of a record is trusted before `read` has looked at it; what it refuses becomes a dead letter, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from schemas.brands import BRAND
from schemas.dead_letters import DISCARD, DiscardDeadLetter, Reason
from schemas.envelope import BadEnvelope, Envelope, dataschema_of, envelope_of, moment, type_of
from schemas.model import ID_PATTERN
from schemas.shipping_report import LANE
from schemas.topics import Topic
from services.runtime.decision import Decision, Incoming, NotYet, Stale
from services.runtime.reader import Pick, Raw
from services.runtime.track import Record

VALUE_BYTES_MAX = 900_000  # below the broker's record limit, with room for the headers
STOCK = "stock:"  # begins the keys of deliveries, which belong to no merchant
_NOBODYS = (STOCK, LANE, BRAND)


@dataclass(frozen=True)
class Spec:
    """One service, as the partition owner sees it."""

    name: str
    inputs: tuple[Topic, ...]
    output: Topic
    handled: frozenset[str]
    new_state: Callable[[str], Any]
    decide: Callable[..., Decision | NotYet | Stale]
    state_type: TypeAdapter
    document_type: TypeAdapter | None = None
    shared_keys: Callable[[Any, Any, Incoming], Iterable[str]] | None = None
    shared: Any = None  # module with `lock(conn, keys) -> view` and `write(conn, view, write)`
    walked_for: frozenset[str] = frozenset()  # what open orders are told of without delay: a merchant's status; see standing.py

    def __post_init__(self):
        models, known = {}, {}
        for topic in self.inputs:
            known[topic.name] = {m.__name__.encode() for m in topic.messages}
            for model in topic.messages:
                if model.__name__ in self.handled:
                    models[topic.name, model.__name__.encode()] = (model.__pydantic_validator__, model.__name__,
                                                                   dataschema_of(topic.name, model.__name__))
        missing = self.handled - {name.decode() for _, name in models}
        if missing:
            raise ValueError(f"{self.name} handles types that none of its input topics carries: {sorted(missing)}")
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "known", known)

    def pick(self) -> Pick:
        """What a consumer of this service has to hand over."""
        return Pick({topic.name: self.handled for topic in self.inputs}, self.inputs)


OURS = {"orders.order.v1": "orders", "payments.payment.v1": "payments", "shipping.shipment.v1": "shipping"}


def read(spec: Spec, topic: str, offset: int, key: bytes | None, value: bytes | None,
         headers: tuple[tuple[str, bytes], ...]) -> Record | None:
    """Decode a record; None when its type is not this service's business. Never raises for what a record contains."""
    name = type_of(headers)
    model = spec.models.get((topic, name))
    if model is None:
        return None if name in spec.known[topic] else _of_no_model(spec, topic, offset, key, value, headers, name)
    validator, _, schema = model
    raw = topic, offset, key, value, headers
    try:
        envelope = envelope_of(headers)
        if not value:
            return _refused(raw, envelope, Reason.NULL_VALUE, "the record has no value")
        if len(value) > VALUE_BYTES_MAX:
            return _refused(raw, envelope, Reason.OVERSIZE, f"{len(value)} bytes, {VALUE_BYTES_MAX} are allowed")
        if envelope.dataschema != schema and envelope.dataschema and not envelope.dataschema.endswith(b"/" + schema):
            return _refused(raw, envelope, Reason.UNKNOWN_VERSION, f"ce_dataschema is {envelope.dataschema[:200]!r}, not {schema!r}")
        data = validator.validate_json(value)
    except BadEnvelope as bad:
        return Record(*raw, fault=(bad.reason, bad.detail))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_input=False)[0]
        reason = Reason.UNDECODABLE if first["type"] == "json_invalid" else Reason.INVALID
        return _refused(raw, envelope, reason, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300].lstrip(": "))
    ours = OURS.get(topic)
    if (envelope.source == ours) != (ours is not None) or (ours and not envelope.sequence) or \
            (not ours and envelope.source in OURS.values()):
        return Record(*raw, fault=(Reason.SOURCE, f"source {envelope.source!r} with sequence {envelope.sequence} may not write here"))
    if key != data.order_id.encode() or envelope.subject != data.order_id:
        return Record(*raw, fault=(Reason.KEY, "key, subject and order_id are not the same"))
    if ours and not envelope.merchant and not data.order_id.startswith(_NOBODYS):
        return _refused(raw, envelope, Reason.NO_MERCHANT, "ce_merchant is empty")
    incoming = Incoming(envelope.type, envelope.id, envelope.source, envelope.sequence if ours else 0, envelope.time, data,
                        envelope.correlation or envelope.id, envelope.merchant)
    return Record(topic, offset, key, value, headers, data.order_id, incoming)


def read_raw(spec: Spec, topic: str, raw: Raw) -> Record | None:
    """As `read`, of a record from `reader`. The quick way only accepts: whatever it does not is read again, and named."""
    offset, key, value, headers, name, fields = raw
    model = spec.models.get((topic, name))
    if fields is not None and model is not None and value and len(value) <= VALUE_BYTES_MAX:
        source, id_, time, subject, correlation, _, merchant, sequence = fields
        ours = OURS.get(topic)
        try:
            data, at = model[0].validate_json(value), moment(time)
        except ValueError:  # of the value or of the time: `read` says which
            return read(spec, topic, offset, key, value, tuple(headers))
        order_id = data.order_id
        if subject == order_id and key == order_id.encode() and id_ and at.tzinfo is not None and (
                source == ours and sequence and (merchant or order_id.startswith(_NOBODYS)) if ours else source not in _SERVICES):
            incoming = _new(Incoming, (model[1], id_, source, sequence if ours else 0, at, data, correlation or id_, merchant,
                                       None, None, None))
            return _new(Record, (topic, offset, key, value, headers, order_id, incoming, None, ""))
    return read(spec, topic, offset, key, value, tuple(headers))


_SERVICES = frozenset(OURS.values())
_new = tuple.__new__  # a third of the time that a named tuple's own takes
Bytes = tuple[str, int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def _refused(raw: Bytes, envelope: Envelope, reason: Reason, detail: str) -> Record:
    """A record whose envelope can be read. Of our own events it is known whose place in which queue it keeps."""
    topic, _, key, _, _ = raw
    subject, sequence = envelope.subject, envelope.sequence
    if envelope.source != OURS.get(topic) or not sequence or key != subject.encode() or not ID_PATTERN.fullmatch(subject):
        return Record(*raw, fault=(reason, detail))
    return Record(*raw, subject, Incoming(envelope.type, envelope.id, envelope.source, sequence, envelope.time, None),
                  (reason, detail))


def _of_no_model(spec: Spec, topic: str, offset: int, key: bytes | None, value: bytes | None,
                 headers: tuple[tuple[str, bytes], ...], name: bytes | None) -> Record | None:
    """A type that does not belong on the topic, or a discard, which may stand on any of them."""
    raw = topic, offset, key, value, headers
    what = "ce_type is missing" if name is None else f"type {name[:80]!r} does not belong on {topic}"
    try:
        envelope = envelope_of(headers)
        if name != DISCARD.encode():
            return _refused(raw, envelope, Reason.UNKNOWN_TYPE, what)
        data = DiscardDeadLetter.model_validate_json(value or b"")
    except BadEnvelope:
        return Record(*raw, fault=(Reason.UNKNOWN_TYPE, what))
    except ValidationError as bad:
        return Record(*raw, fault=(Reason.INVALID, f"{DISCARD}: {bad.errors(include_url=False)[0]['msg']}"))
    if key != data.order_id.encode():
        return Record(*raw, fault=(Reason.KEY, "key and order_id are not the same"))
    if data.service != spec.name:
        return None
    return Record(*raw, data.order_id, Incoming(DISCARD, envelope.id, envelope.source, 0, envelope.time, data))
