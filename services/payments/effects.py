"""Intents carried out: the call to the provider, again and again until it has a definite answer, then the answer's event.

One `Effects` lives as long as a session's producer. It remembers nothing: an intent stands in the database until the
transaction that applies its answer deletes it, and comes again at the next claim. So everything here may be lost at any
moment, and done twice: the intent's id is the idempotency key at the provider and the event's id on the topic.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.payments_provider_result import DisputeTold
from schemas.provider_api import KINDS
from schemas.topics import PROVIDER_RESULT
from services.payments.answers import CALLER, headers_for, headers_of_dispute, value_of
from services.payments.providers import Answer, Call, Provider, ProviderPending, ProviderUnavailable, SyncProvider
from services.runtime.clock import Clock
from services.runtime.crash import point
from services.runtime.decision import Intent
from services.runtime.storage import OwnershipLost

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 1_000
PENDING_MAX = 10_000  # beyond it the webhook alone brings the answer, or the next claim
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.05, 5.0
PENDING_RETRY_S = 15.0
LINGER_S = 0.003
SENDS_MAX, SEND_WITHIN_S = 3, 10.0  # an idempotent producer may wait for ever for an answer; a new one does not
_LOG_EVERY_S = 1.0

_Record = tuple[bytes, bytes, list[tuple[str, bytes]]]


class EffectsFailed(OwnershipLost):
    """Carrying out intents ended on an error that no retry heals; its cause says which. The owner must leave: what it
    committed is safe, and its intents come again at the next claim. It is of the kind of OwnershipLost so that no owner
    takes it for the fault of the record at hand."""


class _Lane:
    """What waits for one partition: `todo` to be performed without waiting, `answers` to be published."""

    __slots__ = ("todo", "answers", "wake")

    def __init__(self) -> None:
        self.todo: list[tuple[str, Intent]] = []
        self.answers: list[tuple[str, Intent, Answer]] = []
        self.wake = asyncio.Event()


class Effects:
    """`await effects(partition, order_id, intent)` queues an intent; `failed` is done as soon as an error has ended it.

    `counts`: submitted, repeated (was in flight), answered, unavailable, pending, left to the webhook, resent.
    """

    def __init__(self, producer: AIOKafkaProducer, provider: Provider, clock: Clock, *, in_flight_max: int = IN_FLIGHT_MAX,
                 pending_max: int = PENDING_MAX, pending_retry_s: float = PENDING_RETRY_S, linger_s: float = LINGER_S):
        self._producer, self._provider, self._clock = producer, provider, clock
        self._in_flight_max, self._pending_max = in_flight_max, pending_max
        self._pending_retry_s, self._linger_s = pending_retry_s, linger_s
        self._perform = provider.perform if isinstance(provider, SyncProvider) else None
        self._disputes = provider.disputes if isinstance(provider, SyncProvider) else {}
        self._told: dict[str, asyncio.Event] = {}  # of payments whose disputes we tell: set by each call
        self._active: set[str] = set()   # intents that count against in_flight_max
        self._pending: set[str] = set()  # intents whose answer the provider will have later
        self._room = asyncio.Event()
        self._lanes: dict[int, _Lane] = {}
        self._tasks: set[asyncio.Task] = set()
        self._logged = 0.0
        self.counts: Counter[str] = Counter()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda done: done.cancelled() or done.exception())  # it was logged when it failed
        for payment_id, dispute in self._disputes.items():
            self._tell(dispute.partition, payment_id)

    async def __call__(self, partition: int, order_id: str, intent: Intent) -> None:
        """Queue an intent; waits while too many are in flight. Raises EffectsFailed once anything has failed.

        An intent that is in flight already (its partition came back to this instance) is not queued twice.
        """
        self._check(intent)
        while len(self._active) >= self._in_flight_max:
            self._room.clear()
            await self._room.wait()
            self._check(intent)
        if intent.intent_id in self._active or intent.intent_id in self._pending:
            self.counts["repeated"] += 1
            return
        self.counts["submitted"] += 1
        self._active.add(intent.intent_id)
        lane = self._lane(partition)
        if self._perform is not None:
            lane.todo.append((order_id, intent))
            lane.wake.set()
        else:
            self._start(self._carry_out(lane, order_id, intent))

    async def stop(self) -> None:
        """Give everything up at once; the database has the intents that are not answered."""
        if not self.failed.done():
            self.failed.cancel()
        self._room.set()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check(self, intent: Intent) -> None:
        if self.failed.cancelled():
            raise EffectsFailed("effects are stopped")
        if self.failed.done():
            raise self.failed.exception()
        assert intent.kind in KINDS, intent

    # -- tasks ----------------------------------------------------------------------------------------------------

    def _lane(self, partition: int) -> _Lane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = _Lane()
            self._start(self._publish_answers(partition, lane))
        return lane

    def _start(self, coroutine) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        why = None if task.cancelled() else task.exception()
        if why is not None and not self.failed.done():
            log.error("effects end: no retry heals this", exc_info=why)
            failure = EffectsFailed(f"{type(why).__name__}: {why}")
            failure.__cause__ = why
            self.failed.set_exception(failure)
            self._room.set()

    # -- calls ----------------------------------------------------------------------------------------------------

    async def _carry_out(self, lane: _Lane, order_id: str, intent: Intent) -> None:
        """Call until there is a definite answer, then hand it to the lane."""
        call, method = call_of(order_id, intent), getattr(self._provider, intent.kind)
        pause = BACKOFF_FIRST_S
        while True:
            point("effects.asked")
            try:
                answer = await method(call)
                break
            except ProviderPending:
                point("effects.pending")
                if not self._set_aside(intent.intent_id):
                    return
                wait = self._pending_retry_s
            except ProviderUnavailable as why:
                self._unavailable(why)
                wait, pause = pause, min(pause * 2, BACKOFF_MAX_S)
            # From half to all of it, so that calls that failed together do not come back together.
            await asyncio.sleep(random.uniform(wait / 2, wait))
        point("effects.answered")
        lane.answers.append((order_id, intent, answer))
        lane.wake.set()

    def _set_aside(self, intent_id: str) -> bool:
        """A pending call may last days: it must not keep others from being made. False: too many; leave it."""
        self.counts["pending"] += 1
        if intent_id in self._pending:
            return True
        self._free(intent_id)
        if len(self._pending) >= self._pending_max:
            self.counts["left to the webhook"] += 1
            return False
        self._pending.add(intent_id)
        return True

    def _unavailable(self, why: Exception) -> None:
        self.counts["unavailable"] += 1
        if time.monotonic() - self._logged >= _LOG_EVERY_S:  # an outage concerns every call in flight
            self._logged = time.monotonic()
            log.warning("provider: %s (%d so far; trying again)", why, self.counts["unavailable"])

    def _free(self, intent_id: str) -> None:
        self._active.discard(intent_id)
        self._pending.discard(intent_id)
        self._room.set()

    # -- answers --------------------------------------------------------------------------------------------------

    async def _publish_answers(self, partition: int, lane: _Lane) -> None:
        """All that has come for one partition, as one batch; then what came meanwhile."""
        while True:
            await lane.wake.wait()
            await asyncio.sleep(self._linger_s)
            lane.wake.clear()
            todo, lane.todo = lane.todo, []
            answers, lane.answers = lane.answers, []
            if todo:
                self._perform_now(lane, todo, answers)
            if answers:
                point("effects.publishing")
                await self._publish(partition, self._records(answers))
                point("effects.published")
                if self._disputes:
                    self._tell_disputes(partition, answers)
                self.counts["answered"] += len(answers)
                for _, intent, _ in answers:
                    self._free(intent.intent_id)

    def _perform_now(self, lane: _Lane, todo: list[tuple[str, Intent]], answers: list[tuple[str, Intent, Answer]]) -> None:
        perform = self._perform
        for order_id, intent in todo:
            try:
                answers.append((order_id, intent, perform(intent.kind, call_of(order_id, intent))))
            except ProviderUnavailable:
                # The same key again, this time with the patience of a task of its own.
                self._start(self._carry_out(lane, order_id, intent))

    # -- disputes, where the provider has no webhooks of its own ------------------------------------------------------

    def _tell_disputes(self, partition: int, answers: list[tuple[str, Intent, Answer]]) -> None:
        """Tell the stages of a dispute when they come; a call may bring the next one nearer."""
        for _, intent, _ in answers:
            payment_id = intent.body["payment_id"]
            if payment_id in self._told:
                self._told[payment_id].set()
            elif payment_id in self._disputes:
                self._disputes[payment_id].partition = partition
                self._tell(partition, payment_id)

    def _tell(self, partition: int, payment_id: str) -> None:
        self._told[payment_id] = asyncio.Event()
        self._start(self._follow(partition, payment_id))

    async def _follow(self, partition: int, payment_id: str) -> None:
        called = self._told[payment_id]
        while payment_id in self._disputes:
            called.clear()
            due, wait = self._provider.coming(payment_id), None
            if due is not None:
                wait = max(0.0, (due - self._clock.now()).total_seconds() / self._clock.speed)
            if wait != 0.0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(called.wait(), wait)
                continue
            if (dispute := self._provider.advance(payment_id)) is not None:
                told = DisputeTold(**dispute.model_dump())
                await self._publish(partition, [(told.order_id.encode(), told.__pydantic_serializer__.to_json(told),
                                                 headers_of_dispute(told, CALLER, self._clock.now()))])

    def _records(self, answers: list[tuple[str, Intent, Answer]]) -> list[_Record]:
        now, records = self._clock.now(), []
        for order_id, intent, answer in answers:
            body, outcome = intent.body, answer
            value = value_of(order_id, intent.intent_id, body["payment_id"], intent.kind, outcome.outcome, outcome.amount,
                             body["currency"], outcome.reference, outcome.reason)
            records.append((order_id.encode(), value, headers_for(intent.intent_id, order_id, CALLER, now)))
        return records

    async def _publish(self, partition: int, records: list[_Record]) -> None:
        """Send until the broker has acknowledged. Twice does no harm; what it cannot be rid of fails the session, whose
        successor has a new producer (an idempotent one may never recover) and the same intents."""
        pause = BACKOFF_FIRST_S
        for sends in range(1, SENDS_MAX + 1):
            try:
                return await self._send(partition, records)
            except (TimeoutError, KafkaError) as why:
                if sends == SENDS_MAX:
                    raise
                log.warning("%d answers of partition %d are sent again: %r", len(records), partition, why)
                self.counts["resent"] += len(records)
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_MAX_S)

    async def _send(self, partition: int, records: list[_Record]) -> None:
        builder = self._producer.create_batch()
        for key, value, headers in records:
            if builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
                await self._deliver(builder, partition)
                builder = self._producer.create_batch()
                full = builder.append(timestamp=None, key=key, value=value, headers=headers) is None
                assert not full, f"an answer of {len(value)} bytes does not fit into an empty batch"
        await self._deliver(builder, partition)

    async def _deliver(self, builder, partition: int) -> None:
        async with asyncio.timeout(SEND_WITHIN_S):
            acknowledged = await self._producer.send_batch(builder, PROVIDER_RESULT.name, partition=partition)
            point("effects.in_flight")
            await acknowledged


def call_of(order_id: str, intent: Intent) -> Call:
    body = intent.body
    return Call(intent.intent_id, order_id, body["payment_id"], body["amount"], body["currency"], body["token"],
                body["reference"])
