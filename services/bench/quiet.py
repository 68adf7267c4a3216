"""When a system has come to rest: everything that was published has been read, and nothing more is being said."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import TOPICS
from services.runtime.processes import NotReady
from services.runtime.settings import SERVICES, Settings

# Longer than an outsider takes to answer, also when it waits on purpose (services.simulators.logistics).
CALM_S = 3.0
LOOK_EVERY_S = 0.25


async def ends(bootstrap: str, topics: list[str], partitions: int) -> dict[str, list[int]]:
    """Topic -> the next offset of each partition."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        found = await consumer.end_offsets([TopicPartition(t, p) for t in topics for p in range(partitions)])
    finally:
        await consumer.stop()
    return {t: [found[TopicPartition(t, p)] for p in range(partitions)] for t in topics}


async def read_so_far(dsn: str) -> dict[tuple[str, int], int]:
    """(topic, partition) -> the next offset that a service will read."""
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch("SELECT partition, offsets::text FROM partitions")
    finally:
        await conn.close()
    return {(topic, p): offset for p, offsets in rows for topic, offset in json.loads(offsets).items()}


async def rest(settings: Settings, calm_s: float = CALM_S, timeout_s: float = 120.0) -> None:
    """Wait until all services have read everything and no topic has grown for `calm_s` seconds.

    Raises NotReady, which names the topics that are still behind.
    """
    names = [topic.name for topic in TOPICS]
    began = since = time.monotonic()
    last: dict[str, list[int]] = {}
    while True:
        now = await ends(settings.bootstrap, names, settings.partitions)
        behind = set()
        for service in SERVICES:
            for (topic, partition), offset in (await read_so_far(settings.dsn(service))).items():
                if offset < now[topic][partition]:
                    behind.add(f"{service} on {topic}")
        if now != last or behind:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= calm_s:
            return
        if time.monotonic() - began > timeout_s:
            raise NotReady(f"the system does not come to rest within {timeout_s:g} s", ", ".join(sorted(behind)) or "topics grow",
                           "See the services' logs.")
        await asyncio.sleep(LOOK_EVERY_S)
