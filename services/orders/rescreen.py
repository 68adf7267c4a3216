"""The second screening of denied parties: `python -m services.orders.rescreen`, a process of its own beside the orders service.

When another version of the list holds, the persons of all open orders are looked at once more, where their seal is open; for
whom the new version is graver than an earlier one was, a command about that order is published. For some weeks they are looked at
again and again: an order that was placed before the version began may be accepted after it. A command's id names order and
version, so that whoever looks twice says the same twice; a process that begins anew looks at all again.
It reads the database and writes no row: what is to happen to an order, orders decides."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import date, datetime, timedelta

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.orders_intake import RescreenOrder
from schemas.parties import SealBroken, SealedParty, check
from schemas.topics import INTAKE
from services.orders import denied
from services.runtime.clock import Clock
from services.runtime.main import run_beside
from services.runtime.settings import Settings

log = logging.getLogger(__name__)
SOURCE = "/screening"
EVERY_S, PAUSE_S = 0.5, 2.0
AGAIN_FOR = timedelta(days=30)  # trade time, from the first day of a version: no order is accepted later than that
REST = 20  # times as long as it took to look at all: a twentieth of its time at most
GRAVITY = {"CLEAR": 0, "REVIEW": 1, "BLOCK": 2}
PAGE = 1_000
_OPEN = ("WITH page AS (SELECT order_id, merchant FROM orders o WHERE NOT closed AND order_id > $1"
         " AND EXISTS (SELECT FROM vault v WHERE v.order_id = o.order_id) ORDER BY order_id LIMIT $2)"
         " SELECT order_id, merchant, token, hash, sealed FROM page JOIN vault USING (order_id) ORDER BY order_id")


def graver(person: bytes, day: date, lists: tuple[denied.DeniedList, ...]) -> denied.Result | None:
    """The person's result by the list that holds on this day, where it is graver than by an earlier version: an officer who has
    cleared somebody nearly listed is not asked again about the same name."""
    held = [each for each in lists if each.valid_from <= day]
    results = [denied.screened([person], each.valid_from, (each,))[0] for each in held]
    return results[0] if len(results) > 1 and GRAVITY[results[0]] > min(GRAVITY[r] for r in results[1:]) else None


async def hits(conn: asyncpg.Connection, key: bytes, day: date, lists: tuple[denied.DeniedList, ...]
               ) -> dict[str, tuple[str, denied.Result]]:
    """Order -> merchant and result, of the open orders whose buyer or consignee the newest list means."""
    found: dict[str, tuple[str, denied.Result]] = {}
    after = ""
    while rows := await conn.fetch(_OPEN, after, PAGE):
        for order_id, merchant, token, hash_, sealed in rows:
            try:
                person = check(SealedParty(token=token, hash=hash_, sealed=sealed), key)
            except SealBroken as why:
                log.error("the persons of %s cannot be screened again: %s", order_id, why)
                continue
            result = graver(person, day, lists)
            if result and GRAVITY[result] > GRAVITY[found.get(order_id, ("", "CLEAR"))[1]]:
                found[order_id] = merchant, result
        after = rows[-1][0]
    return found


async def screen(settings: Settings, lists: tuple[denied.DeniedList, ...], newest: denied.DeniedList, now: datetime, told: set[str]) -> int:
    """Look at all open orders once; how many commands were published. `told`: ids of those that were before, and get the new."""
    conn = await asyncpg.connect(settings.dsn("orders"), server_settings={"default_transaction_read_only": "on"})
    try:
        found = await hits(conn, settings.vault_key_bytes(), now.date(), lists)
    finally:
        await conn.close()
    news = {id_: order_id for order_id in found if (id_ := f"rescreen:{newest.id}:{order_id}") not in told}
    if not news:
        return 0
    producer = AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        for id_, order_id in news.items():
            merchant, result = found[order_id]
            message = RescreenOrder(order_id=order_id, result=result, screening_list=newest.id)
            envelope = Envelope(id_, "RescreenOrder", SOURCE, now, order_id, 0, f"place:{order_id}", "", merchant)
            await producer.send_and_wait(INTAKE.name, message.model_dump_json().encode(), key=order_id.encode(),
                                         headers=headers_of(envelope, dataschema_of(INTAKE.name, "RescreenOrder")))
            told.add(id_)
    finally:
        await producer.stop()
    return len(news)


async def run(settings: Settings, clock: Clock, stop: asyncio.Event) -> None:
    """Until `stop`: whenever another version holds. A file that cannot be read, a database or broker that is away: tried again."""
    done, next_at, told = "", 0.0, set()
    while not stop.is_set():
        try:
            denied.load.cache_clear()  # a new version comes into the file while we run
            lists = denied.load(settings.denied_file)
            now, began = clock.now(), time.monotonic()
            newest = denied.holds_on(lists, now.date())
            fresh = newest is not None and newest.id != done
            if fresh or newest is not None and began >= next_at and now.date() < newest.valid_from + AGAIN_FOR:
                count = await screen(settings, lists, newest, now, told)
                if fresh or count:
                    log.info("screened open orders again by %s: %d are meant", newest.id, count)
                done, next_at = newest.id, time.monotonic() + max(PAUSE_S, REST * (time.monotonic() - began))
            wait = EVERY_S
        except (denied.BadList, KafkaError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as why:
            log.error("open orders could not be screened again: %s: %s", type(why).__name__, why)
            wait = PAUSE_S
        try:
            await asyncio.wait_for(stop.wait(), wait)
        except TimeoutError:
            pass


if __name__ == "__main__":
    run_beside(run)
