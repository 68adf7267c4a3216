"""The runtime's own rules as a small model: one partition, two instances, a database row, and a broker that may refuse.

What is pure of the runtime runs in `machines.py` as it is; this is the rest: claim, fence, commit, outbox, relay, deletion.
tests/test_ownership_real.py holds it against the real owner, storage and relay on a real PostgreSQL, step by step. Left out is
what an order is: a record adds one event with the next sequence, which shows all that can go wrong between instances.

An instance may stop at any step and go on later (nobody has to take the next step), crash, lose the answer to a COMMIT or to
a produce request, be refused by the broker, or have its partition taken away without noticing. The two instances run different
versions of the program: an event's bytes tell which one wrote it.

`without`: rules that are switched off, to see that each is needed: a key of RULES.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from services.explorer.system import Step

RULES = {
    "epoch": "a batch commits only while its owner's epoch is the row's",
    "offsets": "a batch commits only from the offsets it was read at",
    "leave": "who does not know whether his COMMIT arrived drops what he believes, and claims again",
    "after": "offsets and outbox are read after the claim, not by the statement that waited for it",
    "seek": "what was fetched before the claim is thrown away",
    "outbox": "what the outbox holds is sent before anything new",
    "stored": "it is sent as it was stored, not encoded again",
    "order": "a batch is sent when the one before is acknowledged; after a refusal nothing is",
    "acknowledged": "only what the broker acknowledged is deleted",
    "whole": "only who holds the partition of all input topics claims it",
}
TOPICS = ("facts", "intake")
INPUT = {"facts": ("a",), "intake": ("b",)}
TIMER = "t"
RECORDS = 3
ALL_TOLD = "all applied, all told"
BOTH, NONE = (True, True), (False, False)


class Event(NamedTuple):
    sequence: int
    record: str
    version: int


Batch = tuple[Event, ...]


class Row(NamedTuple):
    """The service's database. `applied`: records in the order of their commits; `locked`: whose transaction has the row."""

    offsets: tuple[int, int] = (0, 0)
    outbox: tuple[Batch, ...] = ()
    applied: tuple[str, ...] = ()
    timer: bool = True
    locked: int = -1


class Instance(NamedTuple):
    """What one instance believes. `stage`: out, asking, claimed, owner, batch. `current`: its epoch is the row's.

    `seen`: the row as the waiting claim saw it; `waiting`: the relay's queue; `acked`: sequence up to which it may delete;
    `deleting`: up to which the open transaction does."""

    stage: str = "out"
    current: bool = False
    alive: bool = True
    seen: Row | None = None
    offsets: tuple[int, int] = (0, 0)
    ahead: tuple[int, int] = (0, 0)
    sequence: int = 0
    timer: bool = False
    waiting: tuple[Batch, ...] = ()
    acked: int = 0
    deleting: int = 0
    work: tuple[str, ...] = ()


OUT = Instance()


class World(NamedTuple):
    row: Row
    instances: tuple[Instance, Instance]
    held: tuple[tuple[bool, bool], tuple[bool, bool]]
    log: tuple[Event, ...] = ()
    faults: int = 0
    moves: int = 0


Action = tuple  # (what, instance, how)


class Violated(Exception):
    """A step broke what must always hold."""


class Ownership:
    """A system for `search.close`: the model with all rules, or `without` some. `faults`: answers lost, batches refused and
    crashes, in all; `moves`: times that the group gives topics to somebody else."""

    class setting:  # what `search` asks a system's setting for
        timers = frozenset({"only what can be reached"})

    def __init__(self, without: Iterable[str] = (), faults: int = 2, moves: int = 2):
        self.faults, self.moves = faults, moves
        self.without = frozenset(without)
        if unknown := self.without - set(RULES):
            raise ValueError(f"no such rule: {sorted(unknown)}")

    def has(self, rule: str) -> bool:
        return rule not in self.without

    def start(self) -> World:
        return World(Row(), (OUT, OUT), (BOTH, NONE), faults=self.faults, moves=self.moves)

    # -- what may happen --------------------------------------------------------------------------------------------

    def actions(self, world: World) -> list[tuple[Action, bool]]:
        found = [action for n in (0, 1) for action in self._of(world, n)]
        # Split between two the partition stands still; that the group mends it needs no move to be left.
        split = BOTH not in world.held
        found += [("assign", 0, held) for held in ((BOTH, NONE), (NONE, BOTH), ((True, False), (False, True)))
                  if held != world.held and (world.moves or (split and BOTH in held))]
        return [(action, True) for action in found]

    def _of(self, world: World, n: int) -> Iterator[Action]:
        i, faults = world.instances[n], world.faults
        if i.stage == "out":
            if self._may_claim(world, n):
                yield ("ask", n, "")
            return
        if faults:
            yield ("crash", n, "")
        if i.stage == "asking":
            yield ("claim", n, "")
        elif i.stage == "claimed":
            yield ("load", n, "")
        elif i.stage == "owner":
            if world.held[n] != BOTH:
                yield ("notice", n, "")
            if world.row.locked < 0:
                for work in self._works(i):
                    yield ("begin", n, work)
                if i.acked and any(batch[-1].sequence <= i.acked for batch in world.row.outbox):
                    yield ("tidy", n, "")
            yield from self._sends(i, n, faults)
        else:
            yield ("commit", n, "")
            if faults:
                yield from (("commit", n, how) for how in ("answer lost", "lost"))
            yield from self._sends(i, n, faults)

    @staticmethod
    def _sends(i: Instance, n: int, faults: int) -> Iterator[Action]:
        if i.waiting:
            yield ("send", n, "")
            if faults:
                yield from (("send", n, how) for how in ("answer lost", "refused"))

    def _may_claim(self, world: World, n: int) -> bool:
        return world.held[n] == BOTH if self.has("whole") else any(world.held[n])

    @staticmethod
    def _works(i: Instance) -> Iterator[tuple[str, ...]]:
        """Batches of what is next: a record of one topic, one of each, or the timer."""
        left = [INPUT[topic][at:] for topic, at in zip(TOPICS, i.ahead)]
        for records in left:
            if records:
                yield records[:1]
        if all(left):
            yield (left[0][0], left[1][0])
        if i.timer:
            yield (TIMER,)

    # -- what happens -----------------------------------------------------------------------------------------------

    def apply(self, world: World, action: Action) -> Step:
        what, n, how = action
        try:
            after = getattr(self, f"_{what}")(world, n, how)
            if sum(self._may_claim(after, n) for n in (0, 1)) > 1:
                raise Violated("two instances may claim the same partition, again and again")
            return Step(after)
        except Violated as why:
            return Step(world, broken=str(why))

    def _ask(self, world: World, n: int, how: str) -> World:
        return _with(world, n, Instance("asking", seen=world.row))

    def _claim(self, world: World, n: int, how: str) -> World:
        """Raise the epoch; who still holds the row is ended, his transaction with him."""
        other = world.instances[1 - n]._replace(current=False)
        row = world.row
        if row.locked == 1 - n:
            other, row = other._replace(alive=False), row._replace(locked=-1)
        world = _with(world._replace(row=row), 1 - n, other)
        return _with(world, n, world.instances[n]._replace(stage="claimed", current=True))

    def _load(self, world: World, n: int, how: str) -> World:
        i = world.instances[n]
        row = world.row if self.has("after") else i.seen
        waiting = row.outbox if self.has("outbox") else ()
        if not self.has("stored"):
            waiting = tuple(tuple(event._replace(version=n) for event in batch) for batch in waiting)
        return _with(world, n, i._replace(stage="owner", seen=None, offsets=row.offsets, sequence=len(row.applied),
                                          ahead=row.offsets if self.has("seek") else (0, 0), timer=row.timer, waiting=waiting))

    def _begin(self, world: World, n: int, work: tuple[str, ...]) -> World:
        """The first statement of a transaction: the fence. Holds the row."""
        i = world.instances[n]
        if not self._fenced(world, i):
            return _with(world, n, OUT)
        upto = i.acked if self.has("acknowledged") else i.sequence
        return _with(world._replace(row=world.row._replace(locked=n)), n, i._replace(stage="batch", work=work, deleting=upto))

    def _fenced(self, world: World, i: Instance) -> bool:
        return (i.current or not self.has("epoch")) and (i.offsets == world.row.offsets or not self.has("offsets"))

    def _commit(self, world: World, n: int, how: str) -> World:
        i = world.instances[n]
        if not i.alive:
            return _with(world, n, OUT)  # somebody ended the session: the transaction is gone
        row = world.row._replace(locked=-1)
        if how:
            world = world._replace(faults=world.faults - 1)
        if how == "lost":
            return self._in_doubt(world._replace(row=row), n, i)
        batch = tuple(Event(i.sequence + k, record, n) for k, record in enumerate(i.work, 1))
        for event in batch:
            if event.record in row.applied:
                raise Violated(f"{event.record} is applied twice")
            if event.sequence != len(row.applied) + 1:
                raise Violated(f"sequence {event.sequence} is given twice, or one is left out")
            row = row._replace(applied=(*row.applied, event.record))
        ends = tuple(max([at, *(INPUT[topic].index(r) + 1 for r in i.work if r in INPUT[topic])])
                     for topic, at in zip(TOPICS, i.offsets))
        row = row._replace(offsets=ends, outbox=(*_kept(world, i.deleting), batch), timer=row.timer and TIMER not in i.work)
        world = world._replace(row=row)
        if how:
            return self._in_doubt(world, n, i)
        acked = i.acked if i.acked > i.deleting else 0
        return _with(world, n, i._replace(stage="owner", work=(), acked=acked, deleting=0, offsets=ends, ahead=tuple(map(max, i.ahead, ends)),
                                          sequence=i.sequence + len(batch), timer=i.timer and TIMER not in i.work,
                                          waiting=(*i.waiting, batch)))

    def _in_doubt(self, world: World, n: int, i: Instance) -> World:
        """The answer to COMMIT did not come."""
        return _with(world, n, OUT if self.has("leave") else i._replace(stage="owner", work=(), deleting=0))

    def _send(self, world: World, n: int, how: str) -> World:
        i = world.instances[n]
        if how:
            world = world._replace(faults=world.faults - 1)
        if how != "refused":
            world = world._replace(log=_published(world.log, i.waiting[0]))
        if how and self.has("order"):
            return _with(_released(world, n), n, OUT)  # the relay ends, and its owner with it
        acked = i.waiting[0][-1].sequence
        return _with(world, n, i._replace(waiting=i.waiting[1:], acked=max(acked, i.acked)))

    def _tidy(self, world: World, n: int, how: str) -> World:
        i = world.instances[n]
        if not self._fenced(world, i):
            return _with(world, n, OUT)
        return _with(world._replace(row=world.row._replace(outbox=_kept(world, i.acked))), n, i._replace(acked=0))

    def _crash(self, world: World, n: int, how: str) -> World:
        return _with(_released(world, n), n, OUT)._replace(faults=world.faults - 1)

    def _notice(self, world: World, n: int, how: str) -> World:
        return _with(world, n, OUT)

    def _assign(self, world: World, n: int, held: tuple) -> World:
        return world._replace(held=held, moves=max(0, world.moves - 1))

    # -- the end ----------------------------------------------------------------------------------------------------

    def is_end(self, world: World) -> bool:
        return len(world.row.applied) == RECORDS and not world.row.outbox and world.row.locked < 0

    @staticmethod
    def essence(world: World) -> tuple:
        return world.log

    def faults_of_end(self, world: World) -> list[str]:
        told = {event.sequence for event in world.log}
        return [] if told == set(range(1, RECORDS + 1)) else [f"the outbox is empty, and readers have only {sorted(told)}"]

    def outcome(self, world: World) -> str:
        return ALL_TOLD

    @staticmethod
    def name(action: Action) -> str:
        what, n, how = action
        return f"{what} {n} {how if isinstance(how, str) else repr(how)}".strip()

    def named(self, names: Iterable[str]) -> Iterator[tuple[Action, Step]]:
        """As `System.named`."""
        world = self.start()
        for name in names:
            action = next((action for action, _ in self.actions(world) if self.name(action) == name), None)
            if action is not None:
                step = self.apply(world, action)
                yield action, step
                if step.broken:
                    return
                world = step.state

    @staticmethod
    def say(action: Action, step: Step) -> str:
        """The action in words."""
        what, n, how = action
        if what == "assign":
            held = [" and ".join(t for t, has in zip(TOPICS, mine) if has) or "nothing" for mine in how]
            return f"the group gives instance 0 {held[0]}, instance 1 {held[1]}"
        told = {"ask": "begins to claim the partition", "claim": "has raised the epoch; who holds the row is ended",
                "load": "reads offsets and outbox", "begin": f"passes the fence with {how}", "commit": "commits",
                "send": "sends the first batch that waits", "tidy": "deletes what was acknowledged", "crash": "crashes",
                "notice": "notices that the partition is somebody else's"}[what]
        if what == "begin" and step.state.instances[n].stage == "out":
            told = f"is refused by the fence with {how}"
        after = {"answer lost": "; it is done, the answer is lost", "lost": "; the connection breaks before it is done",
                 "refused": "; the broker refuses it"}.get(how, "") if isinstance(how, str) else ""
        row = step.state.row
        return (f"instance {n} {told}{after}   [offsets {row.offsets}, applied {' '.join(row.applied) or '-'}, outbox "
                f"{len(row.outbox)}, topic {' '.join(str(e.sequence) for e in step.state.log) or '-'}]")


def _with(world: World, n: int, instance: Instance) -> World:
    pair = (instance, world.instances[1]) if n == 0 else (world.instances[0], instance)
    return world._replace(instances=pair)


def _released(world: World, n: int) -> World:
    """The instance's session is gone, and its transaction with it."""
    return world._replace(row=world.row._replace(locked=-1)) if world.row.locked == n else world


def _kept(world: World, upto: int) -> tuple[Batch, ...]:
    """The outbox without the batches up to a sequence."""
    for batch in world.row.outbox:
        if batch[-1].sequence <= upto and not set(batch) <= set(world.log):
            raise Violated(f"{[e.record for e in batch]} is deleted, and the broker does not have it")
    return tuple(batch for batch in world.row.outbox if batch[-1].sequence > upto)


def _published(log: tuple[Event, ...], batch: Batch) -> tuple[Event, ...]:
    """The topic after it; repetitions that change nothing for a reader are not kept, so that the model stays small."""
    for event in batch:
        before = next((old for old in log if old.sequence == event.sequence), None)
        if before is None:
            if event.sequence != len(log) + 1:
                raise Violated(f"readers see sequence {event.sequence} before {len(log) + 1}, and take that one for a "
                               "repetition when it comes")
            log = (*log, event)
        elif before != event:
            raise Violated(f"event {event.sequence} is on the topic with two contents: {before} and {event}")
    return log
