"""Asking a registry whose the identity numbers of buyers into China are: `python -m services.orders.registry`, a process of its own
beside the orders service, where TRADEWIND_REGISTRY_URL names one.

It hears of an order that waits, opens its buyer's seal in the vault, asks, and publishes the answer as a command about the order;
what is to happen then, orders decides. Invariant: the group's committed offset never passes an order whose answer the broker has
not acknowledged. So one who was killed asks twice, under the same key, and says the same twice. It writes no row.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from pydantic import ValidationError
from pydantic_core import from_json

from schemas.envelope import BadEnvelope, Envelope, dataschema_of, envelope_of, headers_of, type_of
from schemas.lifecycle import deadlines
from schemas.orders_intake import AnswerRealName
from schemas.orders_order import OrderPlaced
from schemas.parties import SealBroken, SealedParty, check
from schemas.registry_api import PATH, RealNameQuestion, RealNameVerdict
from schemas.topics import INTAKE, ORDER
from services.orders.real_name import REGISTRY, key_of
from services.runtime.clock import Clock
from services.runtime.main import run_beside
from services.runtime.settings import Settings

log = logging.getLogger(__name__)
GROUP, PLACED = "tradewind-registry", OrderPlaced.__name__.encode()
TIMEOUT_S, AT_ONCE_MAX = 3.0, 16
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
PATIENCE_S = 60.0  # with one batch; then it is read again, so that the group does not take us for dead
WAIT_MS, RECORDS_MAX, PAUSE_S = 200, 500, 1.0
_BUYERS = "SELECT order_id, token, hash, sealed FROM vault WHERE order_id = ANY($1) AND role IN ('buyer', 'buyer+consignee')"


class RegistryUnavailable(Exception):
    """No verdict (timeout, an error, an unreadable answer): the same question again, with the same key."""


class Registry(Protocol):
    """The port: who is asked. The same `key` gets the same verdict. Raises RegistryUnavailable."""

    async def ask(self, key: str, question: RealNameQuestion) -> RealNameVerdict: ...

    async def close(self) -> None: ...


class HttpRegistry:
    """The registry over HTTP (contract: schemas/registry_api.py)."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S):
        self._url = address.rstrip("/") + PATH
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s))

    async def ask(self, key: str, question: RealNameQuestion) -> RealNameVerdict:
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            async with self._session.post(self._url, data=question.model_dump_json(), headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise RegistryUnavailable(f"{key}: {response.status}")
                return RealNameVerdict.model_validate_json(await response.content.read(65_536))
        except (TimeoutError, aiohttp.ClientError, OSError) as why:
            raise RegistryUnavailable(f"{key}: {type(why).__name__} {why}") from why
        except ValidationError as bad:  # what it said is not told: it may name somebody
            raise RegistryUnavailable(f"{key}: an unreadable answer ({bad.error_count()} errors)") from None

    async def close(self) -> None:
        await self._session.close()


class Waiting(NamedTuple):
    """An order that stands still for an answer. `until`: then it has given up by itself (trade time)."""

    order_id: str
    merchant: str
    until: datetime


def waiting(headers: tuple[tuple[str, bytes], ...], value: bytes | None) -> Waiting | None:
    """Whether a record of orders' topic is of an order that waits for the registry. One that cannot be read is told of, and passed
    over: an order that nobody asks about is undone in time."""
    if type_of(headers) != PLACED or not value or b'"ASKED"' not in value:
        return None
    try:
        envelope, placed = envelope_of(headers), OrderPlaced.model_validate_json(value)
    except (BadEnvelope, ValidationError) as why:
        log.error("an order cannot be read, and is not asked about: %s", str(why)[:300])
        return None
    if not placed.real_name or envelope.source != "orders":
        return None
    return Waiting(placed.order_id, placed.merchant_id, envelope.time + timedelta(seconds=deadlines()["real_name"]))


async def questions(conn: asyncpg.Connection, key: bytes, orders: list[Waiting]) -> dict[str, RealNameQuestion | None]:
    """Order -> what to ask; None where its buyer cannot be looked up, which a person must see to."""
    found: dict[str, RealNameQuestion | None] = {order.order_id: None for order in orders}
    for order_id, token, hash_, sealed in await conn.fetch(_BUYERS, list(found)):
        try:
            buyer = from_json(check(SealedParty(token=token, hash=hash_, sealed=sealed), key))
        except SealBroken as why:
            log.error("the buyer of %s cannot be asked about: %s", order_id, why)
            continue
        found[order_id] = RealNameQuestion(name=buyer["name"], identity_no=buyer["identity_no"])
    return found


async def verdict_of(registry: Registry, order: Waiting, question: RealNameQuestion | None, clock: Clock) -> RealNameVerdict | None:
    """Asked until there is a verdict; None: the order has given up meanwhile."""
    if question is None:
        return RealNameVerdict(outcome="unknown")  # the buyer's seal cannot be opened; an officer has to look
    pause = BACKOFF_FIRST_S
    while clock.now() < order.until:
        try:
            return await registry.ask(key_of(order.order_id), question)
        except RegistryUnavailable as why:
            log.warning("the registry does not answer: %s", why)
            await asyncio.sleep(pause)
            pause = min(2 * pause, BACKOFF_MAX_S)
    return None


class Asker:
    """One session with broker, database and registry, until the first error of any of them."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock):
        self._settings, self._registry, self._clock = settings, registry, clock
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)

    async def run(self, stop: asyncio.Event) -> None:
        bootstrap = self._settings.bootstrap
        consumer = AIOKafkaConsumer(ORDER.name, bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False,
                                    auto_offset_reset="earliest")
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
        try:
            await consumer.start()
            await producer.start()
            while not stop.is_set():
                read = await consumer.getmany(timeout_ms=WAIT_MS, max_records=RECORDS_MAX)
                records = [record for part in read.values() for record in part]
                orders = [order for record in records if (order := waiting(record.headers, record.value)) is not None]
                if orders:
                    async with asyncio.timeout(PATIENCE_S):
                        await self._ask(producer, orders)
                if records:
                    await consumer.commit({tp: part[-1].offset + 1 for tp, part in read.items()})
        finally:
            await asyncio.gather(consumer.stop(), producer.stop(), return_exceptions=True)

    async def _ask(self, producer: AIOKafkaProducer, orders: list[Waiting]) -> None:
        conn = await asyncpg.connect(self._settings.dsn("orders"), server_settings={"default_transaction_read_only": "on"})
        try:
            asked = await questions(conn, self._settings.vault_key_bytes(), orders)
        finally:
            await conn.close()
        await asyncio.gather(*(self._answer(producer, order, asked[order.order_id]) for order in orders))

    async def _answer(self, producer: AIOKafkaProducer, order: Waiting, question: RealNameQuestion | None) -> None:
        async with self._slots:
            verdict = await verdict_of(self._registry, order, question, self._clock)
        if verdict is None:
            return
        answer = AnswerRealName(order_id=order.order_id, outcome=verdict.outcome, decided_by="registry")
        envelope = Envelope(key_of(order.order_id), "AnswerRealName", REGISTRY, self._clock.now(), order.order_id, 0,
                            f"place:{order.order_id}", "", order.merchant)
        await producer.send_and_wait(INTAKE.name, answer.model_dump_json().encode(), key=order.order_id.encode(),
                                     headers=headers_of(envelope, dataschema_of(INTAKE.name, "AnswerRealName")))


async def run(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Until `stop`. A registry, a database or a broker that is away: from the last committed offset again."""
    if settings.registry_url is None:
        raise SystemExit("nobody is asked whose an identity number is: set TRADEWIND_REGISTRY_URL to the registry's address")
    registry = HttpRegistry(settings.registry_url)
    try:
        while not stop.is_set():
            asking, stopped = asyncio.create_task(Asker(settings, registry, clock).run(stop)), asyncio.create_task(stop.wait())
            await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            asking.cancel()  # what it has not committed, the next one asks again
            try:
                with suppress(asyncio.CancelledError):
                    await asking
            except (KafkaError, CommitFailedError, IllegalStateError, OSError, TimeoutError, asyncpg.PostgresError,
                    asyncpg.InterfaceError) as why:
                log.warning("asking starts over: %s: %s", type(why).__name__, why)
                await asyncio.sleep(PAUSE_S)
    finally:
        await registry.close()


if __name__ == "__main__":
    run_beside(run)
