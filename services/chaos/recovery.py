"""How long a service takes until it has applied all that lay before it at one moment."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import TOPICS
from services.runtime.processes import NotReady
from services.runtime.settings import Settings

LOOK_EVERY_S = 0.1
AWAY = (OSError, asyncio.TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, KafkaError)
Marks = dict[TopicPartition, int]


async def until(check, within_s: float, what: str, settings: Settings) -> None:
    """Wait until `check`, plain or a coroutine function, is true. Raises NotReady."""
    end = time.monotonic() + within_s
    while True:
        found = check()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > end:
            raise NotReady(f"{what} within {within_s:g} s", str(settings.data_folder / "logs"), "Its log has the cause.")
        await asyncio.sleep(LOOK_EVERY_S)


class Observer:
    """Looks at topics and databases directly, through brokers and servers that come and go."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._one_at_a_time = asyncio.Lock()

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.gather(consumer.stop(), return_exceptions=True)

    async def marks(self, service: str, within_s: float) -> Marks:
        """Where the topics of `service` end now. Waits for a broker that is away; raises NotReady."""
        places = [TopicPartition(t.name, p) for t in TOPICS if service in t.read_by for p in range(self.settings.partitions)]
        end = time.monotonic() + within_s
        while True:
            try:
                async with self._one_at_a_time:
                    return await self._ends(places)
            except AWAY as why:
                if time.monotonic() > end:
                    raise NotReady(f"Kafka does not answer within {within_s:g} s: {why!r}", self.settings.bootstrap,
                                   "See its log.") from why
                await asyncio.sleep(LOOK_EVERY_S)

    async def _ends(self, places: list[TopicPartition]) -> Marks:
        try:
            if self._consumer is None:
                self._consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap, enable_auto_commit=False,
                                                  request_timeout_ms=5_000)
                await self._consumer.start()
            return await self._consumer.end_offsets(places)
        except BaseException:  # also a cancellation: half a consumer is of no use to the next who asks
            await asyncio.shield(self.close())
            raise

    async def applied(self, service: str, marks: Marks) -> bool:
        """Whether `service` has moved past the marks; False while its database is away."""
        try:
            conn = await asyncpg.connect(self.settings.dsn(service), timeout=5)
            try:
                rows = await conn.fetch("SELECT partition, offsets::text FROM partitions", timeout=5)
            finally:
                await conn.close(timeout=5)
        except AWAY:
            return False
        offsets = {(topic, p): at for p, text in rows for topic, at in json.loads(text).items()}
        return all(offsets.get((tp.topic, tp.partition), 0) >= end for tp, end in marks.items())
