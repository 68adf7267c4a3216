"""Who leads, who controls, who is in sync, in a cluster of local brokers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from schemas.topics import TOPICS
from services.runtime.local import LocalKafka
from services.runtime.processes import NotReady, read_json
from services.runtime.settings import Settings

# Not a promise of ours, but what the next kill needs. A killed broker checks its whole log when it starts again, which on a busy
# machine took longer than a minute once 26,000 orders were in it.
IN_SYNC_S = 240.0


async def with_role(kafka: LocalKafka, role: str) -> int:
    """A node that is the controller, that leads the most partitions (leader), or that leads the fewest (follower)."""
    if role == "controller":
        return _controller(kafka)
    leads = Counter({node: 0 for node in range(1, kafka.nodes + 1)})
    leads.update(part["leader"] for topic in await _described(kafka.bootstrap) for part in topic["partitions"])
    ranked = sorted(leads, key=lambda node: (leads[node], node))
    return ranked[-1] if role == "leader" else ranked[0]


def _controller(kafka: LocalKafka) -> int:
    """As the nodes themselves noted at the last election; clients are told a broker that only passes requests on."""
    found = [state for node in range(1, kafka.nodes + 1) if (state := read_json(
        kafka.folder / f"node-{node}" / "data" / "__cluster_metadata-0" / "quorum-state"))]
    newest = max(found, key=lambda state: (state["leaderEpoch"], state["leaderId"]))
    return newest["leaderId"] if newest["leaderId"] > 0 else 1


async def in_sync(settings: Settings, within_s: float = IN_SYNC_S) -> None:
    """Wait until every partition has a leader and all its replicas in sync. Raises NotReady."""
    end = time.monotonic() + within_s
    while True:
        try:
            parts = [part for topic in await _described(settings.bootstrap) for part in topic["partitions"]]
            if parts and all(part["leader"] >= 0 and len(part["isr"]) == len(part["replicas"]) for part in parts):
                return
        except (TimeoutError, KafkaError, OSError):
            pass  # a broker that starts may not answer yet
        if time.monotonic() > end:
            raise NotReady(f"the brokers are not in sync within {within_s:g} s", settings.bootstrap, "See their logs.")
        await asyncio.sleep(0.3)


async def _described(bootstrap: str) -> list[dict]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    try:
        await admin.start()
        return await admin.describe_topics([topic.name for topic in TOPICS])
    finally:
        await admin.close()
