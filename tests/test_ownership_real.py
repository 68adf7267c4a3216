"""The real owner, storage and relay do what their model does, step by step, on a real PostgreSQL.

The broker is a list that accepts, refuses or keeps its answer to itself when told to (the relay on a real one is in
test_owner.py). Stories are random ones of the model, all rules on.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from types import SimpleNamespace

import asyncpg
import pytest
from aiokafka.errors import KafkaError

from services.explorer.ownership import BOTH, INPUT, OUT, TIMER, TOPICS, Ownership, World
from services.runtime import storage
from services.runtime.clock import Clock
from services.runtime.decision import TIMER as TIMER_FIRED
from services.runtime.decision import Incoming
from services.runtime.owner import TRANSIENT, Owner
from services.runtime.relay import unpack
from services.runtime.spec import read
from services.runtime.track import Record
from tests.tally import NOW, Add, Fact, Open, Place, record, spec, until


class Broker:
    """One partition. `how` is what the next produce request meets."""

    def __init__(self):
        self.log: list[int] = []
        self.how = ""

    def create_batch(self):
        records = []
        return SimpleNamespace(append=lambda **fields: records.append(fields) or True, record_count=lambda: len(records),
                               records=records)

    async def deliver(self, builder) -> None:
        if self.how != "refused":
            for fields in builder.records:
                sequence = int(dict(fields["headers"])["ce_sequence"])
                if sequence not in self.log:
                    self.log.append(sequence)
        if self.how:
            raise KafkaError(self.how)


class Gated(Owner):
    """An owner that waits before it reads offsets, before it commits and before it sends, until it is told to go on."""

    def __init__(self, place: Place, broker: Broker, name: str):
        consumer = SimpleNamespace(seek=lambda *_: None, resume=lambda *_: None,
                                   end_offsets=self._ends, beginning_offsets=self._starts)
        super().__init__(place.spec, place.dsn, 0, 1, name, consumer, self, Clock.real())
        self.broker = broker
        self.read, self.at_commit, self.go, self.sends = (asyncio.Event() for _ in range(4))
        self.forget, self.tasks = False, []

    async def _ends(self, tps):
        return dict.fromkeys(tps, 10)

    async def _starts(self, tps):
        return dict.fromkeys(tps, 0)

    def create_batch(self):
        return self.broker.create_batch()

    async def send_batch(self, builder, topic, partition):
        await self.sends.wait()
        self.sends.clear()
        await self.broker.deliver(builder)
        return _nothing()

    async def _write(self, *what):
        number = await super()._write(*what)
        self.at_commit.set()
        await self.go.wait()
        return number

    async def _committed(self, batch, end, number):
        if self.forget:
            raise ConnectionError("the answer to COMMIT did not come")
        await super()._committed(batch, end, number)


async def _nothing():
    pass


class Reality:
    """Does what the model does, with the real owner, storage and relay."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch):
        self.place, self.broker, self.owners = place, Broker(), [None, None]
        self.gates: dict = {}
        read_offsets = storage.read_offsets

        async def gated(conn, partition):
            owner = self.gates.get(conn)
            if owner is not None:
                await owner.read.wait()
            return await read_offsets(conn, partition)
        monkeypatch.setattr(storage, "read_offsets", gated)

    async def begin_with(self) -> None:
        """An open order with a timer, and nothing in the outbox: where the model starts."""
        self.conn = await asyncpg.connect(self.place.dsn)
        self.place.query = self.conn.fetch
        owner = Gated(self.place, self.broker, "first")
        owner.conn = await storage.connect(self.place.dsn, "tradewind first 0")
        await owner._claim()
        owner.go.set()
        wake = [record(self.place.spec, message) for message in (Open(order_id="A"), Add(order_id="A", text="wake:0"))]
        await owner._attempt([self._read(raw, n) for n, raw in enumerate(wake)], NOW - timedelta(seconds=60))
        owner.conn.terminate()
        await self.place.query("DELETE FROM outbox")
        self.base = await self.place.offsets()

    def _read(self, raw, offset: int) -> Record:
        return read(self.place.spec, raw.topic, offset, raw.key, raw.value, raw.headers)

    def _records(self, owner: Gated, work: tuple[str, ...]) -> list[Record]:
        facts, intake = self.place.spec.inputs[1].name, self.place.spec.inputs[0].name
        made, owner.ahead = [], dict(owner.ahead)
        for name in work:
            if name == TIMER:
                made.append(Record("timer", 0, b"A", None, (), "A", Incoming(TIMER_FIRED, "timer:A:0", "timer", 0, NOW, None, "t")))
            elif name in INPUT["facts"]:
                n = INPUT["facts"].index(name)
                made.append(self._read(record(self.place.spec, Fact(order_id="A", text=name), n + 1), self.base.get(facts, 0) + n))
            else:
                n = INPUT["intake"].index(name)
                made.append(self._read(record(self.place.spec, Add(order_id="A", text=name)), self.base.get(intake, 0) + n))
        for fetched in made:  # as `Owner._read` does
            if fetched.topic in owner.ahead:
                owner.ahead[fetched.topic] = fetched.offset + 1
        return made

    async def do(self, action) -> None:
        what, n, how = action
        if what != "assign":
            await getattr(self, f"_{what}")(n, how)

    async def _ask(self, n: int, how: str) -> None:
        self.owners[n] = owner = Gated(self.place, self.broker, f"instance-{n}")
        owner.conn = await storage.connect(self.place.dsn, f"tradewind instance-{n} 0")
        self.gates[owner.conn] = owner

    async def _claim(self, n: int, how: str) -> None:
        owner = self.owners[n]
        epoch = (await self.place.query("SELECT epoch FROM partitions"))[0][0]
        owner.tasks.append(asyncio.create_task(owner._claim()))
        await until(lambda: self._epoch_is_above(epoch))

    async def _epoch_is_above(self, epoch: int) -> bool:
        return (await self.place.query("SELECT epoch FROM partitions"))[0][0] > epoch

    async def _load(self, n: int, how: str) -> None:
        owner = self.owners[n]
        owner.read.set()
        await owner.tasks.pop()
        for batch, payload in await storage.read_outbox(owner.conn, 0):
            await owner.relay.put(batch, unpack(payload))
        owner.relay_task = asyncio.create_task(owner.relay.run())

    async def _begin(self, n: int, work: tuple[str, ...]) -> None:
        owner = self.owners[n]
        owner.at_commit.clear()
        owner.go.clear()
        owner.batch = asyncio.create_task(owner._attempt(self._records(owner, work), NOW))
        await asyncio.wait([owner.batch, asyncio.create_task(owner.at_commit.wait())], return_when=asyncio.FIRST_COMPLETED)
        if owner.batch.done():
            await self._left(n, owner.batch)

    async def _commit(self, n: int, how: str) -> None:
        owner = self.owners[n]
        owner.forget = how == "answer lost"
        if how == "lost":
            await self._hang_up(owner)
        owner.go.set()
        await asyncio.wait([owner.batch])
        await self._left(n, owner.batch)

    async def _send(self, n: int, how: str) -> None:
        owner, waiting = self.owners[n], len(self.owners[n].relay._waiting)
        self.broker.how = how
        owner.sends.set()
        await until(lambda: owner.relay.failed is not None or len(owner.relay._waiting) < waiting)
        if owner.relay.failed is not None:
            await self._crash(n, "")  # whoever looks at the relay next leaves

    async def _tidy(self, n: int, how: str) -> None:
        owner = self.owners[n]
        owner.go.set()
        owner.batch = asyncio.create_task(owner._attempt([], NOW))
        await asyncio.wait([owner.batch])
        await self._left(n, owner.batch)

    async def _left(self, n: int, task: asyncio.Task) -> None:
        """An error that is not the record's ends the owner, as in `PartitionService`."""
        if (why := task.exception()) is not None:
            assert isinstance(why, TRANSIENT), why
            await self._crash(n, "")

    async def _crash(self, n: int, how: str) -> None:
        owner, self.owners[n] = self.owners[n], None
        tasks = [t for t in (*owner.tasks, getattr(owner, "relay_task", None), getattr(owner, "batch", None)) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hang_up(owner)

    _notice = _crash

    async def _hang_up(self, owner: Gated) -> None:
        """The session ends, and what it had not committed with it."""
        if owner.conn.is_closed():
            return
        pid = owner.conn.get_server_pid()
        owner.conn.terminate()
        await until(lambda: self._gone(pid))

    async def _gone(self, pid: int) -> bool:
        return not await self.place.query("SELECT 1 FROM pg_stat_activity WHERE pid = $1", pid)

    async def seen(self) -> dict:
        """What can be seen of it, in the model's words."""
        offsets = await self.place.offsets()
        names = {"facts": self.place.spec.inputs[1].name, "intake": self.place.spec.inputs[0].name}
        applied = [text for text in await self.place.applied() if text != "wake:0"]
        outbox = await self.place.query("SELECT payload FROM outbox ORDER BY batch")
        return {
            "offsets": tuple(offsets.get(names[t], 0) - self.base.get(names[t], 0) for t in TOPICS),
            "applied": tuple(TIMER if text == "timer" else text for text in applied),
            "outbox": [[out.sequence - 1 for out in unpack(row[0])] for row in outbox],
            "timer": bool(await self.place.query("SELECT 1 FROM timers")),
            "log": [sequence - 1 for sequence in self.broker.log],
            "owners": [owner is not None for owner in self.owners],
        }


def expected(world: World) -> dict:
    row = world.row
    return {"offsets": row.offsets, "applied": row.applied, "outbox": [[e.sequence for e in batch] for batch in row.outbox],
            "timer": row.timer, "log": [e.sequence for e in world.log], "owners": [i != OUT for i in world.instances]}


@pytest.fixture
def shared_rows(monkeypatch):
    """With rows shared between orders a batch is a transaction that begins with the fence; without, one statement."""
    async def lock(conn, keys):
        return None
    return SimpleNamespace(lock=lock)


@pytest.mark.parametrize("seed", range(9))
async def test_the_real_owner_does_what_the_model_does(postgres, monkeypatch, shared_rows, seed):
    """A random story of the model, step by step; stories with faults and with both instances in it are preferred."""
    one_statement = seed % 3 == 2
    dice = random.Random(seed)
    place = await _place(postgres, None if one_statement else shared_rows)
    reality = Reality(place, monkeypatch)
    await reality.begin_with()
    model, told = Ownership(), []
    world = model.start()
    for _ in range(30):
        action = _choose(model, world, dice, one_statement)
        if action is None:
            break
        told.append(model.name(action))
        world = model.apply(world, action).state
        await reality.do(action)
        if any(i.stage == "batch" for i in world.instances) and one_statement:
            continue  # the one statement is under way as a whole
        assert await reality.seen() == expected(world), "; ".join(told)
    for n in (0, 1):
        if reality.owners[n] is not None:
            await reality._crash(n, "")
    await reality.conn.close()
    assert len(told) > 10


def _choose(model: Ownership, world: World, dice: random.Random, one_statement: bool):
    possible = [action for action, _ in model.actions(world) if action[0] != "assign" or BOTH in action[2]]
    if one_statement and (busy := [n for n, i in enumerate(world.instances) if i.stage == "batch"]):
        possible = [action for action in possible if action[0] == "commit" and action[1] == busy[0] and action[2] != "lost"]
    if not possible:
        return None
    weights = [{"assign": 1, "crash": 1, "notice": 1, "ask": 3}.get(action[0], 6) for action in possible]
    return dice.choices(possible, weights)[0]


_numbers = iter(range(1000))


async def _place(postgres, shared) -> Place:
    from tests.tally import make_database
    more = {"shared": shared, "shared_keys": lambda state, document, incoming: ["row"]} if shared else {}
    of = spec(f"model{next(_numbers)}", **more)
    dsn = await postgres(of.name)
    await make_database(dsn, of.name, 1)
    return Place(of, dsn, "", 1)
