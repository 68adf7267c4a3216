"""The partition owner: reads one partition of all of a service's input topics, and is the only one who writes its orders.

The way of a batch: fetch -> load the orders -> one transaction (fence, shared rows, decide, write, outbox) -> relay.
Everything the owner believes (cache, offsets, epoch) is valid only while its epoch is: on any doubt it ends, and the
service starts a new owner that claims again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import asyncpg
import msgpack
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from pydantic_core import from_json, to_json

from schemas.dead_letters import Reason
from schemas.brands import BRAND
from schemas.merchants import MERCHANT
from schemas.shipping_report import LANE
from services.runtime import standing, storage
from services.runtime.batch import RETRY, Batch, shared_keys_of
from services.runtime.clock import Clock
from services.runtime.crash import point
from services.runtime.decision import STANDING, TIMER, Impossible, Incoming, Intent, SharedMissing
from services.runtime.limit import Levels, TooManyDeadLetters, at_start, levels_after
from services.runtime.reader import Fetched
from services.runtime.relay import Relay, pack, unpack
from services.runtime.spec import VALUE_BYTES_MAX, Spec, read, read_raw
from services.runtime.standing import Standings
from services.runtime.track import Entry, Record, Track

log = logging.getLogger(__name__)

# Not the record's fault: the owner ends, and the next one tries again. Never a dead letter.
TRANSIENT = (
    storage.OwnershipLost, KafkaError, OSError, asyncio.TimeoutError, asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError, asyncpg.OperatorInterventionError, asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError, asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.PostgresSystemError,
    # A database that is read-only, in an older version, closed to us or broken is so for every record.
    asyncpg.InvalidTransactionStateError, asyncpg.SyntaxOrAccessError, asyncpg.FeatureNotSupportedError,
    asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, asyncpg.InternalServerError,
    asyncpg.InternalClientError, MemoryError,
)
UNENCODABLE = asyncpg.exceptions._base.DataError  # asyncpg calls it an InterfaceError, but the value is to blame
PARKED_SECONDS_MAX = 3600.0
PARKED_GRACE_S = 300.0  # after a long stop all seems late, and what it waits for may still stand in a backlog
POISONED_TIMER_PAUSE = timedelta(minutes=10)  # real time: trade time may run so fast that it would be no pause
WAIT_S = 0.2
DEAD_LETTERS_MAX = 100
FAREWELL_S = 5.0

Submit = Callable[[int, str, Intent], Awaitable[None]]


def _is_of_the_record(why: Exception) -> bool:
    return isinstance(why, UNENCODABLE) or not isinstance(why, (*TRANSIENT, storage.Unfit))


def parked_record(spec: Spec, row: asyncpg.Record) -> Record:
    """A row of `storage.load_parked` as it was before it was parked. A dead letter is not read again: it only keeps its place."""
    raw = row["topic"], row["at_offset"], row["order_id"].encode(), row["value"], tuple(map(tuple, msgpack.unpackb(row["headers"])))
    if row["dead"]:
        return Record(*raw, row["order_id"], Incoming("", row["id"], row["source"], row["sequence"], datetime.min, None),
                      dead=row["dead"])
    return read(spec, *raw)


async def load_entries(spec: Spec, conn: asyncpg.Connection, partition: int, order_ids: list[str]) -> dict[str, Entry]:
    """The orders as they are stored, with what waits of them; those that the service does not know are left out."""
    found: dict[str, Entry] = {}
    rows = await storage.load(conn, partition, order_ids)
    documents = await storage.load_documents(conn, [row[0] for row in rows]) if rows and spec.document_type else {}
    for order_id, seq, track, state, due in rows:
        document = documents.get(order_id)
        found[order_id] = Entry(spec.state_type.validate_json(state),
                                spec.document_type.validate_json(document) if document else None,
                                seq, Track.decode(track), [], due, True)
    if waiting := [order_id for order_id, entry in found.items() if entry.track.waiting]:
        for row in await storage.load_parked(conn, waiting):
            found[row["order_id"]].parked.append(parked_record(spec, row))
    return found


class Owner:
    """Owns partition `partition` from `claim` until anything goes wrong. One database session, one relay."""

    def __init__(self, spec: Spec, dsn: str, partition: int, partitions: int, instance: str, consumer: AIOKafkaConsumer,
                 producer: AIOKafkaProducer, clock: Clock, submit: Submit | None = None, batch_max: int = 1_000,
                 cache_max: int = 10_000, dead_letters_max: int = DEAD_LETTERS_MAX,
                 parked_grace_s: float | None = None):
        self.spec, self.dsn, self.partition, self.partitions, self.instance = spec, dsn, partition, partitions, instance
        self.consumer, self.producer, self.clock, self.submit = consumer, producer, clock, submit
        self.batch_max, self.cache_max, self.dead_letters_max = batch_max, cache_max, dead_letters_max
        self.parked_grace_s = parked_grace_s
        self.tps = [TopicPartition(t.name, partition) for t in spec.inputs]
        self.cache: dict[str, Entry] = {}
        self.counts: Counter[str] = Counter()
        self.conn: asyncpg.Connection | None = None

    async def run(self) -> None:
        """Claim and work until cancelled; raises what ended the ownership."""
        self.conn = await storage.connect(self.dsn, f"tradewind {self.instance} {self.partition}")
        relay_task = None
        point("owner.connected")
        try:
            await self._claim()
            relay_task = asyncio.create_task(self.relay.run(), name=f"relay-{self.partition}")
            unsent = await storage.read_outbox(self.conn, self.partition)
            point("owner.outbox_read")
            for batch, payload in unsent:
                await self.relay.put(batch, unpack(payload))
            point("owner.outbox_queued")
            for row in await storage.read_intents(self.conn, self.partition):
                await self._submit(row[1], Intent(row[0], row[2], from_json(row[3])))
            point("owner.intents_queued")
            await self._work()
        finally:
            if relay_task:
                relay_task.cancel()
                await asyncio.gather(relay_task, return_exceptions=True)
            self.conn.terminate()

    async def _claim(self) -> None:
        self.epoch = await storage.claim(self.conn, self.partition, self.instance)
        point("owner.claimed")
        self.stored = await storage.read_offsets(self.conn, self.partition)
        self.levels = at_start(await storage.read_levels(self.conn, self.partition), self.dead_letters_max)
        point("owner.offsets_read")
        self.ahead = {tp.topic: self.stored.get(tp.topic, 0) for tp in self.tps}
        self.since = asyncio.get_running_loop().time()
        self.next_batch = self.epoch << 32
        self.relay = Relay(self.producer, self.partition)
        self.due = await storage.next_due(self.conn, self.partition)
        self.standings = Standings(self.conn, self.partition, self.spec.walked_for)
        await self.standings.begin()
        point("owner.standing_read")
        await self._refuse_other_topics()
        point("owner.topics_checked")
        # What was fetched before the claim is thrown away: seek drops it.
        for tp in self.tps:
            self.consumer.seek(tp, self.ahead[tp.topic])
        self.consumer.resume(*self.tps)
        point("owner.sought")

    async def _refuse_other_topics(self) -> None:
        ends, starts = await self.consumer.end_offsets(self.tps), await self.consumer.beginning_offsets(self.tps)
        for tp in self.tps:
            at, start, end = self.ahead[tp.topic], starts[tp], ends[tp]
            if not start <= at <= end:
                raise storage.Unfit(
                    f"{tp.topic} partition {self.partition} holds offsets {start} to {end}, but the database has read to "
                    f"{at}: {'records are gone' if at < start else 'the topic is older than the database'}; restore both "
                    "from the same moment")

    # -- the loop -------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        housekeeping = loop.time() + 1.0
        while True:
            fetched = await self._fetch()
            records = self._read(fetched)
            now = self.clock.now()
            fired = self.due is not None and self.due <= now
            if fired:
                records += await self._timers(now)
            if records:
                point("owner.fetched")
                await self._process(records, now)
            elif await self.standings.changed():  # a busy owner is told by its fence
                await self.standings.learn()
            if self.standings.walks:
                await self._walk()
            if fired:  # the rows that were not due yet are still there
                self.due = await storage.next_due(self.conn, self.partition)
            if loop.time() >= housekeeping:
                housekeeping = loop.time() + 1.0
                await self._tidy()
            if self.relay.failed is not None:
                raise self.relay.failed

    async def _fetch(self) -> dict[TopicPartition, Fetched]:
        try:
            return await self.consumer.getmany(*self.tps, timeout_ms=self._wait_ms(), max_records=self.batch_max)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as why:
            raise storage.Unfit(f"partition {self.partition}: records that were not read yet are gone from their topic, or "
                                f"the topic was made anew ({why!r}); restore topics and databases from the same moment") from why
        except UnicodeDecodeError as why:  # header names are decoded before anybody sees the record
            raise storage.Unfit(f"partition {self.partition}: a record at or behind {self.ahead} has a header whose name is not "
                                f"UTF-8 ({why}), which cannot be read; find its producer, and copy the topic without it") from why

    def _wait_ms(self) -> int:
        if self.due is None:
            return int(WAIT_S * 1000)
        real = (self.due - self.clock.now()).total_seconds() / self.clock.speed
        return max(1, int(min(WAIT_S, real) * 1000))

    def _read(self, fetched: dict[TopicPartition, Fetched]) -> list[Record]:
        records = []
        for tp in self.tps:
            found = fetched.get(tp)
            if found is None:
                continue
            ahead = self.ahead[tp.topic]
            for raw in found:
                if raw.offset >= ahead and (record := read_raw(self.spec, tp.topic, raw)) is not None:
                    records.append(record)
            self.ahead[tp.topic] = max(ahead, found.end)
        return records

    async def _timers(self, now: datetime) -> list[Record]:
        rows = await storage.due_timers(self.conn, self.partition, now, self.batch_max)
        point("owner.timers_read")
        return [Record("timer", 0, order_id.encode(), None, (), order_id,
                       Incoming(TIMER, f"timer:{order_id}:{due.timestamp():.6f}", "timer", 0, now, None,
                                f"timer:{order_id}:{due.timestamp():.6f}"))
                for order_id, due in rows]

    async def _walk(self) -> None:
        """Tell some more of a merchant's open orders how he stands now; those that know are as they were."""
        merchant, after = next(iter(self.standings.walks.items()))
        told = self.standings.telling(merchant)
        found = await standing.open_orders(self.conn, self.partition, merchant, after, self.batch_max)
        await self._process([self._internal(STANDING, order_id) for order_id in found], self.clock.now())
        await self.standings.walked(merchant, told, found[-1] if len(found) == self.batch_max else None)

    async def _tidy(self) -> None:
        """Once a second: move past records of no interest, delete what the broker has, give up what waited too long."""
        if self.ahead != self.stored or self.relay.acknowledged > self.relay.deleted:
            await self._attempt([], self.clock.now())
            point("owner.tidied")
        grace_s = PARKED_GRACE_S if self.parked_grace_s is None else self.parked_grace_s
        if asyncio.get_running_loop().time() - self.since > grace_s:
            await self._give_up()
        for _ in range(len(self.cache) - self.cache_max):
            del self.cache[next(iter(self.cache))]

    async def _give_up(self) -> None:
        """Dead letters of what has waited too long."""
        late = await storage.parked_too_long(self.conn, self.partition, PARKED_SECONDS_MAX, self.batch_max)
        point("owner.overdue_read")
        if late:
            await self._attempt([], self.clock.now(), expire=[tuple(row) for row in late])

    # -- one batch ------------------------------------------------------------------------------------------------

    async def _process(self, records: list[Record], now: datetime) -> None:
        """Apply all records, by halves when something among them can never be applied."""
        while records:
            try:
                done, again = await self._attempt(records, now)
            except TooManyDeadLetters as stop:
                if stop.settled:
                    await self._process(records[:stop.settled], now)
                await self._sent()
                raise
            except Exception as why:  # a bug or a value PostgreSQL refuses: its neighbours must not suffer for it
                if not _is_of_the_record(why):
                    raise
                if len(records) > 1:
                    await self._process(records[:len(records) // 2], now)
                    await self._process(records[len(records) // 2:], now)
                    return
                done, again = await self._alone(records, now)
            records = records[done:]
            if again:
                records = [self._internal(RETRY, order_id) for order_id in again] + records

    async def _sent(self) -> None:
        """Wait a little until the broker has all that is committed: whoever looks why we stopped looks at dead letters."""
        end = asyncio.get_running_loop().time() + FAREWELL_S
        while not self.relay.idle and self.relay.failed is None and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.01)

    async def _alone(self, records: list[Record], now: datetime) -> tuple[int, set[str]]:
        """One record that failed: without what waits for it, which may be the culprit; else it is the dead letter."""
        try:
            return await self._attempt(records, now, cautious=True)
        except Exception as why:  # as in `_process`
            if not _is_of_the_record(why):
                raise
            record = records[0]
            log.exception("record %s/%d@%d of %r can never be applied", record.topic, self.partition, record.offset,
                          record.order_id)
            return await self._attempt(records, now, cautious=True, poison=why)

    @staticmethod
    def _internal(kind: str, order_id: str) -> Record:
        source = kind.lower()
        return Record(source, 0, order_id.encode(), None, (), order_id,
                      Incoming(kind, f"{source}:{order_id}", source, 0, datetime.min, None))

    async def _attempt(self, *arguments, **more) -> tuple[int, set[str]]:
        """`_try`, as often as a merchant's standing changes meanwhile."""
        while True:
            try:
                return await self._try(*arguments, **more)
            except storage.StandingChanged:
                await self.standings.learn()

    async def _try(self, records: list[Record], now: datetime, poison: Exception | None = None,
                       expire: list[tuple] = (), cautious: bool = False) -> tuple[int, set[str]]:
        """One transaction. Returns how many records it settled (fewer, when one needs rows not yet locked) and the
        orders whose parked records need a batch of their own."""
        await self._load(records, [key[0] for key in expire])
        conn, keys = self.conn, shared_keys_of(self.spec, self.cache, records)
        alone = any(r.order_id.startswith((MERCHANT, LANE, BRAND)) for r in records)  # with the rows of all partitions locked
        point("owner.loaded")
        # Without shared rows the one statement that writes is enough.
        transaction = conn.transaction() if keys or alone else None
        if transaction:
            await transaction.start()
        try:
            if alone:
                await standing.hold(conn)
            if transaction:
                await storage.fence(conn, self.partition, self.epoch, self.stored, self.standings.version)
                point("batch.fenced")
            shared = await self.spec.shared.lock(conn, keys) if self.spec.shared else None
            if transaction:
                point("batch.shared_locked")
            batch = Batch(self.spec, self.partition, self.partitions, self.cache, shared, now, cautious,
                          self.standings.known)
            done = self._decide(batch, records, poison)
            for key in expire:
                batch.expire(key)
            end, levels = self._end_of(records, done), self.levels
            if batch.dead or levels:
                levels = levels_after(levels, records[:done], batch.dead, self.dead_letters_max, self.partition)
            point("batch.decided")
            number = await self._write(batch, end, levels)
            if batch.standings:
                await standing.write(conn, self.standings.version + 1, batch.standings)
            point("batch.written")
        except Exception:  # whatever it was, nothing of the batch may stay; the caller sorts it out
            if transaction and not conn.is_closed():
                await transaction.rollback()
            raise
        if transaction:
            await transaction.commit()
        point("batch.committed")
        self.levels = levels
        await self._committed(batch, end, number)
        return done, batch.again

    def _decide(self, batch: Batch, records: list[Record], poison: Exception | None) -> int:
        done = len(records)
        for n, record in enumerate(records):
            if poison is not None:
                batch.poison(record, poison)
                continue
            try:
                batch.handle(record)
            except SharedMissing:
                if n == 0:
                    raise
                done = n
                break
        for out in batch.out:
            if len(out.value) > VALUE_BYTES_MAX and out.headers is None:
                raise Impossible(Reason.OUTPUT_TOO_LARGE, f"{out.type} has {len(out.value)} bytes")
        return done

    def _end_of(self, records: list[Record], done: int) -> dict[str, int]:
        """Without records (housekeeping: everything fetched is settled), all that was skipped is behind us too."""
        end = dict(self.ahead) if not records else dict(self.stored)
        for record in records[:done]:
            if record.topic in self.ahead:
                end[record.topic] = max(end.get(record.topic, 0), record.offset + 1)
        return end

    async def _load(self, records: list[Record], more: list[str]) -> None:
        """The orders that are not in the cache, and how the merchants of these stand."""
        ids = {r.order_id for r in records if r.order_id}.union(more)
        missing = {order_id for order_id in ids if order_id not in self.cache}
        if missing:
            found = await load_entries(self.spec, self.conn, self.partition, list(missing))
            self.cache |= found
            if self.spec.walked_for:
                merchants = {entry.state.merchant_id for entry in found.values()}
                for record in records:
                    if record.order_id in missing and record.order_id not in found and record.incoming is not None:
                        merchants.add(record.order_id.removeprefix(MERCHANT) if record.order_id.startswith(MERCHANT)
                                      else getattr(record.incoming.data, "merchant_id", ""))
                await self.standings.look_up(merchants)

    # -- writing --------------------------------------------------------------------------------------------------

    async def _write(self, batch: Batch, end: dict[str, int], levels: Levels) -> int:
        write, spec = storage.Write(), self.spec
        fresh, changed, arm, disarm = self._rows_of(batch)
        if batch.shared is not None:
            await spec.shared.write(self.conn, batch.shared, write)
        if fresh:
            write.insert_orders(fresh)
        if changed:
            write.update_orders(changed)
        if batch.documents:
            encode = spec.document_type.serializer.to_json
            write.insert_documents([(order_id, encode(body).decode()) for order_id, body in batch.documents])
        for table, rows in batch.rows.items():
            write.append(table, rows)
        if arm:
            write.arm_timers(arm)
        if disarm:
            write.disarm_timers(disarm)
        if batch.intents:
            write.insert_intents([(i.intent_id, order_id, i.kind, to_json(i.body).decode()) for order_id, i in batch.intents])
        if batch.done_intents:
            write.delete_intents(batch.done_intents)
        if gone := [key for key in batch.unparked if key not in batch.parked]:
            write.delete_parked(gone)
        if batch.parked:  # what takes the place of a dead letter may have its id
            write.insert_parked([(*key, r.topic, r.offset, msgpack.packb(tuple(r.headers)), r.value or b"", r.dead)
                                 for key, r in batch.parked.items()])
        if self.relay.acknowledged > self.relay.deleted:
            self._deleting = self.relay.acknowledged
            write.delete_outbox(self._deleting)
        else:
            self._deleting = self.relay.deleted
        if batch.out:
            self.next_batch += 1
            write.insert_outbox(self.next_batch, pack(batch.out))
        if levels != self.levels:
            write.set_levels(levels)
        if write or end != self.stored:
            await write.send(self.conn, self.partition, self.epoch, self.stored, end, self.standings.version)
        return self.next_batch

    def _rows_of(self, batch: Batch) -> tuple[list, list, list, list]:
        encode = self.spec.state_type.serializer.to_json
        fresh, changed, arm, disarm = [], [], [], []
        for order_id, draft in batch.drafts.items():
            entry = self.cache.get(order_id)
            state, stored = draft.state, draft.stored
            if entry is None and not stored and not draft.seq and draft.track == Track():
                continue  # only a dead letter named this order
            postponed = order_id in batch.postponed
            if not postponed and entry is not None and entry.state is state and entry.track == draft.track and entry.armed == draft.armed:
                continue
            row = (order_id, state.status, state.closed, draft.seq, draft.track.encode(), encode(state).decode(),
                   state.merchant_id)
            (changed if stored else fresh).append(row)
            due = batch.now + POISONED_TIMER_PAUSE * self.clock.speed if postponed else None if state.closed else state.due()
            if due is not None and (postponed or draft.armed is None or due < draft.armed):
                arm.append((order_id, due))
                draft.armed = due
            elif due is None and (draft.armed is not None or (entry is not None and entry.armed is not None)):
                disarm.append(order_id)
                draft.armed = None
            draft.stored = True
        return fresh, changed, arm, disarm

    async def _committed(self, batch: Batch, end: dict[str, int], number: int) -> None:
        """Only now is the batch true: the cache takes the drafts, the relay the events, the callers the intents."""
        self.stored = end
        if batch.standings:
            self.standings.wrote(batch.standings)
        self.relay.deleted = self._deleting
        self.counts.update(batch.counts)
        for (topic, offset), (reason, detail) in batch.dead.items():
            log.log(logging.ERROR if reason.alert else logging.WARNING, "dead letter %s/%d@%d: %s: %s", topic, self.partition,
                    offset, reason, detail[:200])
        for order_id, draft in batch.drafts.items():
            self.cache.pop(order_id, None)  # the youngest change goes to the end: eviction takes from the front
            if draft.stored and not draft.state.closed:
                self.cache[order_id] = draft
            if draft.armed is not None and (self.due is None or draft.armed < self.due):
                self.due = draft.armed
        if batch.out:
            await self.relay.put(number, batch.out)
            point("batch.relayed")
        for order_id, intent in batch.intents:
            await self._submit(order_id, intent)
        if batch.intents:
            point("batch.submitted")

    async def _submit(self, order_id: str, intent: Intent) -> None:
        if self.submit is not None:
            await self.submit(self.partition, order_id, intent)
