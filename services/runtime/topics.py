"""The topics of `schemas.topics` and their dead letters, made once and checked at every start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from schemas.dead_letters import LOG
from schemas.topics import KEEP, TOPICS
from services.runtime.crash import point
from services.runtime.processes import FolderOfAnotherVersion, NotReady, StartError


class OtherPartitionCount(FolderOfAnotherVersion):
    """A topic has another number of partitions than the settings say."""


class TopicRefused(StartError):
    """The broker would not create a topic."""


def wanted(more: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, dict[str, str]]:
    """Name → configuration of every topic there must be: ours, one of dead letters beside each, and `more`."""
    names = {topic.name: dict(topic.config) for topic in TOPICS}
    # A dead letter is evidence: it stays until someone has decided about it.
    names |= {topic.dlq: dict(KEEP) for topic in TOPICS} | {LOG: dict(KEEP)}
    return names | {name: dict(config) for name, config in (more or {}).items()}


async def ensure_topics(
    bootstrap: str, partitions: int, more: Mapping[str, Mapping[str, str]] | None = None, timeout_s: float = 30
) -> list[str]:
    """Create the topics that are missing and wait until each has its leaders; returns the names created.

    `more` adds topics that only the caller knows, such as the changelogs of a Faust table. Each is replicated three
    times where there are three brokers. Safe to call from several processes at once.

    Raises OtherPartitionCount when a topic exists with another number of partitions: keys would move to other
    partitions, and an order's events would lose their sequence. Raises TopicRefused, NotReady.
    """
    topics = wanted(more)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await _partition_counts(admin, list(topics))
        _check(found, partitions)
        point("topics.checked")
        missing = [name for name in topics if name not in found]
        if missing:
            replicas = 3 if len((await admin.describe_cluster())["brokers"]) >= 3 else 1
            await _create(admin, [NewTopic(name, partitions, replicas, topic_configs=topics[name]) for name in missing])
        point("topics.created")
        end = time.monotonic() + timeout_s
        while len(found := await _partition_counts(admin, list(topics))) < len(topics):
            if time.monotonic() > end:
                late = ", ".join(sorted(set(topics) - set(found)))
                raise NotReady(f"topics without a leader after {timeout_s:g} s: {late}", bootstrap, "Look at the brokers.")
            await asyncio.sleep(0.05)
        _check(found, partitions)  # another process may have created them meanwhile
        return missing
    finally:
        await admin.close()


async def partition_counts(bootstrap: str, more: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, int]:
    """Topic → partitions, of those of our topics that exist."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return await _partition_counts(admin, list(wanted(more)))
    finally:
        await admin.close()


async def _partition_counts(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, int]:
    """Only topics all of whose partitions have a leader."""
    described = await admin.describe_topics(names)
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if topic["error_code"] == 0 and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


def _check(found: dict[str, int], partitions: int) -> None:
    for name, count in sorted(found.items()):
        if count != partitions:
            raise OtherPartitionCount(
                f"topic {name} has {count} partitions, the settings say {partitions}", name,
                f"Set TRADEWIND_PARTITIONS={count}, or start on another data folder.",
            )  # fmt: skip


async def _create(admin: AIOKafkaAdminClient, topics: list[NewTopic]) -> None:
    try:
        response = await admin.create_topics(topics)
    except KafkaError as error:
        raise TopicRefused(f"topics could not be created: {error}", topics[0].name, "Look at the broker's log.") from error
    for name, code, *message in response.topic_errors:
        if code not in (0, TopicAlreadyExistsError.errno):
            raise TopicRefused(
                f"topic {name} was refused: {for_code(code).__name__} {message[:1]}", name, "Look at the broker's log.")  # fmt: skip
