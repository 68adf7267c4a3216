"""Random schedules: many orders that share stock, one complete run after another, each made from a seed and its number.

A schedule is a world (which orders, how much stock, who may do what) and a list of actions taken until everything has
ended. Unlike `search`, nothing is left out here: late reports are sent and dropped, batches are published again at any moment,
and now and then several records are decided in one batch, which must give what they give one by one.
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from services.explorer.machines import Machines, digest, row_of, timeless
from services.explorer.outside import WORDS
from services.explorer.rules import YEARLY_FEN
from services.explorer.shared import VIEWS
from services.explorer.simulation import MERCHANT_ID, START, order, settle
from services.explorer.system import Action, Setting, State, Step, System
from services.orders.quota import is_import, key_of
from services.runtime.batch import Batch, shared_keys_of
from services.runtime.decision import SharedMissing
from services.runtime.spec import read

WORLDS = 64
STEPS_MAX = 4_000          # a schedule that has not ended by then never will: each takes some hundreds
BATCH_OF_EACH = 40         # one read in so many is held against a batch of several records
THOROUGH = 8               # the paths hold every step against the rules of steps; here one in so many is
LOCALS_MAX = 300_000       # then what is remembered is forgotten, or memory would grow for ever
GOODS = ((("CHERRY", 2, 5000),), (("CHERRY", 2, 5000), ("TOY", 1, 1999)), (("TOY", 3, 3000),),
         (("CHERRY", 1, 2500), ("TOY", 2, 2001)))
# Each order id has one shape, so that what was learned in one world serves in the next.
SHAPES = (("A1", "DE", 0, "ship_available"), ("A2", "CN", 1, "ship_available"), ("A3", "US", 2, "wait"),
          ("A4", "US", 1, "ship_available"), ("A5", "CN", 3, "wait"), ("A6", "US", 0, "ship_available"))
ALWAYS = frozenset({"confirm", "stops", "short", "fails", "refuses"})
# Those of the bank are about one payment that goes back as a whole or not at all; "terms" about a merchant whom no world registers.
SOMETIMES = sorted(set(WORDS) - ALWAYS - {"inbound", "express", "swaps", "resend", "brand", "fog", "bank", "bank late", "evidence", "terms"})


@dataclass(frozen=True)
class Failure:
    """A schedule that broke a rule: world, the actions that show it (shrunk), and what is wrong."""

    world: int
    names: tuple[str, ...]
    what: str

    @property
    def replay(self) -> str:
        return f"schedule:{pack(self.world, *self.names)}"


def pack(*what: Any) -> str:
    """A list of plain values as one word."""
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(what).encode(), 9)).decode()


def unpack(text: str) -> list[Any]:
    """What `pack` was given. Raises ValueError."""
    try:
        return json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
    except (ValueError, zlib.error) as why:
        raise ValueError(f"it cannot be read: {why}") from why


@lru_cache(maxsize=WORLDS)
def setting(world: int) -> Setting:
    """The same number is the same world, on every machine."""
    dice = random.Random(world)
    shapes = sorted(dice.sample(SHAPES, dice.randint(3, 6)))
    orders = tuple(order(order_id, destination, GOODS[goods], on_shortage=shortage)
                   for order_id, destination, goods, shortage in shapes)
    words = [ALWAYS | frozenset(dice.sample(SOMETIMES, dice.randint(1, 4))) for _ in shapes]
    words[0] |= {"resend"}
    stock = {("SEA1", "CHERRY"): dice.randint(0, 5), ("PVD1", "CHERRY"): dice.randint(0, 2),
             ("PVD1", "TOY"): dice.randint(0, 6)}
    return Setting(orders, tuple(words), {row: units for row, units in stock.items() if units},
                   (("SEA1", "CHERRY", 3), ("PVD1", "TOY", 2)), used=_almost(orders, dice), placed=False)


def _almost(orders: tuple, dice: random.Random) -> tuple[tuple[str, int], ...]:
    """All orders are one person's. Of the year's quota there is room for both that go to China, for one, or for none."""
    room = dice.choice((4_000, 7_500, 10_000, 20_000))
    return tuple((key, YEARLY_FEN - room) for key in {key_of(order) for order in orders if is_import(order)})


class Schedules:
    """Runs schedules in this process; what one learns of the machines the next one knows."""

    def __init__(self) -> None:
        self._machines = Machines(THOROUGH)
        self._systems: dict[int, System] = {}
        self.steps = 0

    def system(self, world: int) -> System:
        if len(self._machines.locals) > LOCALS_MAX:
            self._machines = Machines(THOROUGH)
            self._systems.clear()
        found = self._systems.get(world)
        if found is None:
            found = self._systems[world] = System(setting(world), self._machines, reduced=False)
        return found

    def run(self, seed: int, number: int) -> Failure | None:
        """One complete schedule; a failure comes back shrunk."""
        dice = random.Random(f"{seed}:{number}")
        world = dice.randrange(WORLDS)
        system = self.system(world)
        taken: list[str] = []
        what = _walk(system, dice, taken)
        self.steps += len(taken)
        return self._shrunk(Failure(world, tuple(taken), what)) if what else None

    def replay(self, world: int, names: tuple[str, ...]) -> tuple[list[tuple[Action, Step]], str]:
        """The actions of these names, as far as they are possible, then whatever brings the rest to its end."""
        system = self.system(world)
        told = list(system.named(names))
        if told and told[-1][1].broken:
            return told, told[-1][1].broken
        return _to_the_end(system, told[-1][1].state if told else system.start(), told)

    def _shrunk(self, failure: Failure) -> Failure:
        """Leave out what can be left out: halves first, then smaller pieces, until every action is needed."""
        names, what, size = list(failure.names), failure.what, max(1, len(failure.names) // 2)
        while size:
            n = 0
            while n < len(names):
                fewer = names[:n] + names[n + size:]
                _, wrong = self.replay(failure.world, tuple(fewer))
                if wrong and kind_of(wrong) == kind_of(what):
                    names, what = fewer, wrong
                else:
                    n += size
            size //= 2
        return replace(failure, names=tuple(names), what=what)


def kind_of(what: str) -> str:
    """The part of a finding that does not depend on amounts and ids: shrinking must not slide into another fault."""
    return " ".join(word for word in what.split(":")[0].split() if word.isalpha())[:60]


# -- a walk ---------------------------------------------------------------------------------------------------------------


def _walk(system: System, dice: random.Random, taken: list[str]) -> str:
    """Random actions until all has ended and nobody wants more; returns what is wrong, or nothing."""
    state, want_more = system.start(), dice.random() < 0.5
    for _ in range(STEPS_MAX):
        if system.is_end(state) and _all_placed(system, state):
            if faults := system.faults_of_end(state):
                return "at rest, but " + "; ".join(faults)
            if not want_more or not (action := _outside(system, state, dice)):
                return ""
            want_more = dice.random() < 0.8
        else:
            action = _pick(system, state, dice)
            if action is None:
                return "nothing can happen any more, and not everything has ended"
        if action[0] == "read" and dice.random() < 1 / BATCH_OF_EACH and (wrong := _together(system, state, action[1])):
            return wrong
        taken.append(system.name(action))
        step = system.apply(state, action)
        if step.broken:
            return step.broken
        state = step.state
    return f"has not come to rest after {STEPS_MAX} actions"


def _all_placed(system: System, state: State) -> bool:
    return all(trio[0].entry is not None for trio in system.trios(state).values())


def _pick(system: System, state: State, dice: random.Random) -> Action | None:
    """Mostly reading; often something from outside; seldom a timer or a crash."""
    chance = dice.random()
    if chance < 0.66:
        waiting = [n for n, queue in enumerate(state.queues) if queue]
        if waiting:
            return ("read", dice.choice(waiting))
    if chance < 0.96 and (action := _outside(system, state, dice)):
        return action
    if chance > 0.98 and (batches := [n for n, batch in enumerate(state.last) if batch]):
        return ("resend", dice.choice(batches))
    if chance > 0.9 and (action := _timer(system, state, dice)):
        return action
    possible = system.actions(state)
    return dice.choice(possible)[0] if possible else None


def _outside(system: System, state: State, dice: random.Random) -> Action | None:
    for _ in range(3):
        if not state.offers:
            return None
        number = dice.choice(state.offers)
        ways = system.ways(number)
        if ways:
            way = dice.randrange(len(ways))
            if all(token in state.offers for token in ways[way][2]):
                return ("outside", number, way)
    return None


def _timer(system: System, state: State, dice: random.Random) -> Action | None:
    slot = dice.randrange(len(state.locals))
    timers = system.machines.locals[state.locals[slot]].timers
    return ("timer", slot, dice.choice(timers)) if timers else None


def _to_the_end(system: System, state: State, told: list) -> tuple[list[tuple[Action, Step]], str]:
    """Only what must happen, in a fixed order: reading first, then answers, then timers."""
    for _ in range(STEPS_MAX):
        if system.is_end(state) and _all_placed(system, state):
            faults = system.faults_of_end(state)
            return told, "at rest, but " + "; ".join(faults) if faults else ""
        sure = [action for action, must in system.actions(state) if must]
        if not sure:
            return told, "nothing can happen any more, and not everything has ended"
        action = min(sure, key=lambda a: (("read", "tell", "outside", "timer").index(a[0]), len(told) % 7 if a[0] == "timer" else 0))
        if action[0] == "timer":
            action = [a for a in sure if a[0] == "timer"][len(told) % sum(a[0] == "timer" for a in sure)]
        step = system.apply(state, action)
        told.append((action, step))
        if step.broken:
            return told, step.broken
        state = step.state
    return told, f"has not come to rest after {STEPS_MAX} actions"


# -- several records in one batch -------------------------------------------------------------------------------------------


def _together(system: System, state: State, queue: int, most: int = 4) -> str:
    """The first records of a queue in one real batch: the same states and events as one after the other."""
    service, _ = system.queues[queue]
    spec, machines = system.machines.specs[service], system.machines
    messages = [machines.messages[number] for number in state.queues[queue][:most]]
    if any(message.late or message.planted for message in messages):
        return ""
    mine = [machines.locals[n] for slot, n in zip(system.slots, state.locals) if slot[0] == service]
    entries = {local.order_id: local.entry for local in mine if local.entry is not None}
    records = [read(spec, message.topic, message.number, *message.record) for message in messages]
    view = VIEWS[service](shared_keys_of(spec, entries, records), system.free(state)) if spec.shared else None
    row = system.standing(state, service)
    batch, done = Batch(spec, 0, 1, entries, view, START, known={row_of(row): row} if row else None), 0
    for record in records:
        try:
            batch.handle(record)
        except SharedMissing:
            break  # the owner ends the batch before this one
        done += 1
    if batch.again:
        return ""  # what waited is tried in a later batch, and may then stand elsewhere in the order of things
    events = [(out.type, out.value) for out in batch.out if out.headers is None]
    after, single = entries | settle(batch), []
    for _ in range(done):
        step = system.apply(state, ("read", queue))
        if step.broken:
            return step.broken
        state = step.state
        single += [(machines.messages[n].type, machines.messages[n].record[1]) for n in step.effect.out]
    if single != events:
        return f"{done} records in one batch publish {[e[0] for e in events]}, one by one {[e[0] for e in single]}"
    if (row := system.standing(state, service)) != batch.known.get(MERCHANT_ID if row is None else row_of(row)):
        return f"{done} records in one batch leave the merchant otherwise than one by one: {row}"
    for slot, n in zip(system.slots, state.locals):
        if slot[0] == service and slot[1] in after:
            if digest(spec, timeless(after[slot[1]])) != digest(spec, machines.locals[n].entry):
                return f"{done} records in one batch leave {slot[1]} at {service} otherwise than one by one"
    return ""

