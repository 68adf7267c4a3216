"""What one service makes of one record or timer for one order, remembered: the machines are pure, so once is enough.

A `Local` is one order at one service as its database has it; locals and records are small integers here, equal ones are the
same integer. Each step runs `Batch` and the machine for real the first time, and is then held against what every step must
keep: the same step again gives the same, a repeated record changes nothing, state survives its database, and a reader of
another version understands the event.

Time is left out: a timer that is armed may fire at any later moment, in any order with everything else, because a service
may have been down while it was due. So all due times are alike (`FAR`) except that of the timer that fires.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.ledger import side
from schemas.topics import MODELS
from services.explorer import rules
from services.explorer import shared as rows
from services.explorer.simulation import MERCHANT_ID, START, TOPIC_OF, settle, specs
from services.runtime.batch import RETRY, Batch, Out, envelope_for, shared_keys_of
from services.runtime.decision import BRANDED, Incoming, LANES, PROTECTED, STANDING, SharedMissing, Standing, TIMER
from services.runtime.spec import OURS, read
from services.runtime.track import Entry, Record

STALE_FOR_GOOD = " for a parcel that is "  # shipping's words where the parcel's table says that no coming state allows it
FAR = START + timedelta(days=400)
LATE = START + timedelta(days=60)  # later than any window for returns
TOLD = "how the merchant stands"  # the cue of an owner's walk over a merchant's open orders, or over a brand's
Free = rows.Levels


class Broken(Exception):
    """A step that no service may make; `args[0]` says which rule it breaks and how."""


@dataclass(frozen=True, slots=True)
class Message:
    """One record on a topic. `planted`: a dead letter is the right answer to it. `late`: read weeks later."""

    number: int
    topic: str
    type: str
    id: str
    order_id: str
    source: str
    sequence: int
    record: tuple  # key, value, headers
    model: Any
    planted: bool = False
    late: bool = False


class Local:
    """One order at one service. `intents`: calls to the provider without an answer; `sums`: the ledger by
    `schemas.ledger.side`;
    `standing`: of a merchant's subject, the row that his orders obey."""

    def __init__(self, number: int, service: str, order_id: str, entry: Entry | None, intents: dict, sums: dict[str, int],
                 standing: Standing | None = None):
        self.number, self.service, self.order_id = number, service, order_id
        self.entry, self.intents, self.sums, self.standing = entry, intents, sums, standing

    @cached_property
    def timers(self) -> tuple[str, ...]:
        """Names of what may fire."""
        if self.entry is None or self.entry.state.closed:
            return ()
        return tuple(sorted(self.entry.state.running()))

    @property
    def closed(self) -> bool:
        return self.entry is None or self.entry.state.closed


class Effect(NamedTuple):
    """What a step did. `out`: numbers of published messages; `intents`: new calls; `said`: the answer, in a word or two;
    `idle`: a repetition, or what no coming state allows: it would be the same at any later moment."""

    local: int
    out: tuple[int, ...]
    intents: tuple
    moves: tuple
    said: str
    broken: str = ""
    idle: bool = False


class Machines:
    """The steps of all three services, remembered by (local, message or timer, shared rows looked at).

    `thorough`: one step in so many is held against the rules of every step; each is against those of its result. `plans`: the network that
    parcels travel on; None: nothing is promised; `resends`: how often wrong papers may be corrected; `real_names`: a registry is asked."""

    def __init__(self, thorough: int = 1, plans: Any = None, resends: int = 3, real_names: bool = False) -> None:
        self._thorough = thorough
        self.specs = {spec.name: spec for spec in specs(plans, resends, real_names)}
        self.readers = {name: [spec.name for spec in self.specs.values() if any(t.name == topic for t in spec.inputs)
                               and name in spec.handled] for name, topic in TOPIC_OF.items()}
        self.messages: list[Message] = []
        self.locals: list[Local] = []
        self._message_numbers: dict[tuple, int] = {}
        self._local_numbers: dict[tuple, int] = {}
        self._steps: dict[tuple, Effect] = {}
        self._looked: dict[tuple, tuple[str, ...]] = {}
        self.computed = 0

    # -- names ------------------------------------------------------------------------------------------------------

    def unborn(self, service: str, order_id: str) -> int:
        """The local of an order that the service has not heard of."""
        return self._intern(service, order_id, None, {}, {})

    def command(self, model, source: str, id: str, planted: bool = False, late: bool = False) -> int:
        """A message from outside."""
        name = type(model).__name__
        envelope = Envelope(id, name, source, START, model.order_id)
        return self._message(envelope, TOPIC_OF[name], model.model_dump_json().encode(), planted, late)

    def _message(self, envelope: Envelope, topic: str, value: bytes, planted: bool = False, late: bool = False) -> int:
        key = (topic, envelope.type, envelope.source, envelope.id, value, planted, late)
        number = self._message_numbers.get(key)
        if number is None:
            number = self._message_numbers[key] = len(self.messages)
            # Who caused it is told to people, not to machines: without it the same event by another way is the same.
            plain = envelope._replace(correlation="", causation="", time=START)
            record = (envelope.subject.encode(), value, tuple(headers_of(plain, dataschema_of(topic, envelope.type))))
            self.messages.append(Message(number, topic, envelope.type, envelope.id, envelope.subject, envelope.source,
                                         envelope.sequence, record, MODELS[envelope.type].model_validate_json(value),
                                         planted, late))
        return number

    def _intern(self, service: str, order_id: str, entry: Entry | None, intents: dict, sums: dict[str, int],
                standing: Standing | None = None) -> int:
        key = (service, order_id, digest(self.specs[service], entry), tuple(sorted(intents)), tuple(sorted(sums.items())),
               standing and standing[:3])
        number = self._local_numbers.get(key)
        if number is None:
            number = len(self.locals)
            local = Local(number, service, order_id, entry, intents, sums, standing)
            if faults := rules.of_local(local):
                raise Broken("; ".join(faults))
            self._local_numbers[key] = number
            self.locals.append(local)
        return number

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, local: int, cue: int | str, free: Free, row: Standing | None = None) -> Effect:
        """`cue`: the number of a message, the name of a timer ("*": all that are armed), or TOLD. `row`: how the order's
        merchant stands with the service."""
        label = row and row[:3]
        known = self._looked.get((local, cue))
        if known is not None:
            effect = self._steps.get((local, cue, _seen(known, free), label))
            if effect is not None:
                return effect
        self.computed += 1
        looked: set[str] = set()
        try:
            effect = self._checked(local, cue, free, looked, row)
        except Broken as broken:
            effect = Effect(local, (), (), (), "broken", str(broken))
        except Exception as bug:  # whatever a machine raises would be a dead letter, "handler_error": that is a finding
            effect = Effect(local, (), (), (), "broken", f"the machine raised {type(bug).__name__}: {bug}")
        names = tuple(sorted(looked | set(known or ())))
        self._looked[local, cue] = names
        self._steps[local, cue, _seen(names, free), label] = effect
        return effect

    def _checked(self, number: int, cue: int | str, free: Free, looked: set[str], row: Standing | None) -> Effect:
        effect = self._run(number, cue, free, looked, row)
        published = [self.messages[n] for n in effect.out]
        if faults := rules.of_frozen(effect, published, row) + rules.of_lanes(published, row) + rules.of_terms(published, row):
            raise Broken("; ".join(faults))
        if self.computed % self._thorough:
            return effect
        again = self._run(number, cue, free, looked, row)
        if again != effect:
            raise Broken(f"the same step gave two results: {effect.said} and {again.said}")
        if isinstance(cue, int):
            row = self.locals[effect.local].standing or row
            twice = self._run(effect.local, cue, rows.after(free, effect.moves), looked, row)
            if (twice.local, twice.out, twice.intents, twice.moves) != (effect.local, (), (), ()):
                raise Broken(f"the same record once more is not a repetition: {twice.said}")
            self._another_version(self.messages[cue])
        return effect

    def _run(self, number: int, cue: int | str, free: Free, looked: set[str], row: Standing | None) -> Effect:
        local = self.locals[number]
        spec, order_id = self.specs[local.service], local.order_id
        message = self.messages[cue] if isinstance(cue, int) else None
        entries = {order_id: local.entry} if local.entry else {}
        if message is not None:
            record = read(spec, message.topic, message.number, *message.record)
        elif cue == TOLD:
            record = Record("standing", 0, order_id.encode(), None, (), order_id,
                            Incoming(STANDING, f"standing:{order_id}", "standing", 0, START, None))
        else:
            entries = {order_id: _due(local.entry, cue)}
            record = Record("timer", 0, order_id.encode(), None, (), order_id,
                            Incoming(TIMER, f"timer:{order_id}", "timer", 0, START, None))
        now = LATE if message is not None and message.late else START
        out, intents, done, moves, said, sums, standing = [], [], [], [], [], dict(local.sums), local.standing
        while record is not None:
            batch = self._batch(spec, entries, record, free, moves, now, looked, standing or row)
            standing = next(iter(batch.standings.values()), standing)
            entries = entries | settle(batch)
            out += batch.out
            intents += [intent for _, intent in batch.intents]
            done += batch.done_intents
            for row in batch.rows.get("ledger", ()):
                name = side(row[2], row[7])
                sums[name] = sums.get(name, 0) + row[4]
            said += _words(batch)
            record = Record("retry", 0, order_id.encode(), None, (), order_id, Incoming(
                RETRY, f"retry:{order_id}", "retry", 0, datetime.min, None)) if batch.again else None
        dead = [event for event in out if event.headers is not None]
        if dead and (message is None or not message.planted):
            why = dict(dead[0].headers)
            raise Broken(f"dead letter {why['__dlq.errors.reason'].decode()}: {why['__dlq.errors.detail'].decode()}")
        if message is not None and message.type == "ProviderAnswered" and not message.planted and any(
                "not open" in word for word in said) and not message.source.endswith("webhook"):
            raise Broken("the provider's first answer to a call was not taken: money moved that the ledger does not know")
        entry = entries.get(order_id)
        left = {k: v for k, v in (local.intents | {i.intent_id: i for i in intents}).items() if k not in done}
        numbers = tuple(self._published(event) for event in out if event.headers is None)
        after = self._intern(local.service, order_id, timeless(entry) if entry else None, left, sums, standing)
        idle = not (numbers or intents or moves or dead) and all(
            word == "duplicate" or word.startswith("stale: ") and STALE_FOR_GOOD in word for word in said) and said != []
        idle = idle and (local.entry is None or _obeyed(local.entry.state) == _obeyed(entry.state))
        return Effect(after, numbers, tuple(intents), tuple(moves), ", ".join(said), idle=idle)

    def _batch(self, spec, entries, record, free: Free, moves: list, now, looked: set[str], row: Standing | None) -> Batch:
        """One record in one transaction, with the rows locked that the service names beforehand."""
        shared = None
        if spec.shared is not None:
            shared = rows.VIEWS[spec.name](shared_keys_of(spec, entries, [record]), free)
            for move in moves:
                shared.again(move)
        batch = Batch(spec, 0, 1, entries, shared, now, known={row_of(row): row} if row else None)
        try:
            batch.handle(record)
        except SharedMissing as key:
            raise Broken(f"{record.incoming.type} needs the row of {key}, which the service's `shared_keys` does not name") from key
        finally:
            if shared is not None:
                looked |= shared.looked
        moves += shared.moves if shared is not None else []
        return batch

    def _published(self, event: Out) -> int:
        return self._message(envelope_for(event), event.topic, event.value)

    def _another_version(self, message: Message) -> None:
        """During a rolling upgrade a newer writer adds a field: an older reader must read the same."""
        if message.source not in OURS.values():
            return
        newer = to_json(from_json(message.record[1]) | {"field_of_tomorrow": {"a": [1]}})
        if MODELS[message.type].model_validate_json(newer) != message.model:
            raise Broken(f"{message.type} with an unknown field reads differently")


def row_of(row: Standing) -> str:
    """The name of the one row of a story: the closed lanes', the brand's, or else the merchant's."""
    if row.status == LANES:
        return LANES
    if row.status == PROTECTED:
        return f"{BRANDED}{row.facts['key']}"
    return "split" if "registration" in row.facts else MERCHANT_ID  # the only one who ever registers here


def _obeyed(state: Any) -> tuple:
    brands = getattr(state, "brands", None)
    return state.standing, getattr(state, "lanes", ""), brands and tuple(brands.labels.items())


def _seen(keys: tuple[str, ...], free: Free) -> tuple:
    return tuple([tuple(sorted(free.get(key, {}).items())) for key in keys]) if keys else ()


def _words(batch: Batch) -> list[str]:
    return [word for word, times in batch.counts.items() if times and word not in ("applied", "unparked")] + (
        ["takes up what waited"] if batch.counts["unparked"] else [])


def _due(entry: Entry, timer: str) -> Entry:
    """The entry with this timer due now; all others far away."""
    draft = entry.draft()
    draft.state = draft.state.draft()
    draft.state.timers = {name: START if timer in (name, "*") else FAR for name in draft.state.timers}
    return draft


def timeless(entry: Entry) -> Entry:
    state = entry.state
    held = getattr(state, "held_since", None) not in (None, START)
    if state.timers and any(due is not FAR for due in state.timers.values()) or _paused(state) or held:
        state = state.draft()
        if held:
            state.held_since = START
        state.timers = dict.fromkeys(sorted(state.timers), FAR)
        for parcel in _paused(state):
            parcel.pause_left_s = 1.0
        entry.state = state
    entry.armed = FAR if state.running() and not state.closed else None
    return entry


def _paused(state) -> list:
    return [p for p in getattr(state, "parcels", {}).values() if getattr(p, "pause_left_s", 0) not in (0.0, 1.0)]


def digest(spec, entry: Entry | None) -> tuple | None:
    """Equal for entries that no record, timer or person could tell apart. What was seen of outsiders is a set."""
    if entry is None:
        return None
    track = entry.track
    state = json.dumps(from_json(spec.state_type.dump_json(entry.state)), sort_keys=True)
    document = spec.document_type.dump_json(entry.document) if entry.document is not None else b""
    return (state, document, entry.seq, tuple(sorted(track.last.items())), tuple(sorted(track.seen.items())),
            tuple(sorted(track.waiting.items())),
            tuple((r.incoming.type, r.incoming.source, r.incoming.id, r.value, r.dead) for r in entry.parked))
