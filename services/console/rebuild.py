"""Forget everything the views know, so that the next worker reads the topics from their beginning.

`python -m services.console.rebuild`; no worker may run.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.structs import OffsetAndMetadata

from services.console.funnel import SOURCES
from services.console.topics import APP, MORE
from services.runtime.settings import Settings


class WorkerRuns(Exception):
    """A worker of the views still runs, or was killed within the last 10 seconds: it would write its old tables again.
    Stop it first, for instance with `tradewind down` and then `tradewind up --detach --only ''` (the servers alone)."""


async def forget(bootstrap: str, partitions: int) -> int:
    """Empty the changelogs and put the group's offsets at 0; returns how many changelog records went.

    Raises WorkerRuns, before anything was deleted.
    """
    sources = [TopicPartition(topic, p) for topic in SOURCES for p in range(partitions)]
    changelogs = [TopicPartition(topic, p) for topic in MORE for p in range(partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=APP, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(sources + changelogs)
        try:
            # The group accepts this only from a member, or when it has none.
            await consumer.commit({tp: OffsetAndMetadata(0, "") for tp in sources})
        except (CommitFailedError, UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError) as why:
            raise WorkerRuns(WorkerRuns.__doc__) from why
        starts, ends = await consumer.beginning_offsets(changelogs), await consumer.end_offsets(changelogs)
    finally:
        await consumer.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({tp: RecordsToDelete(before_offset=end) for tp, end in ends.items() if end > starts[tp]})
    finally:
        await admin.close()
    return sum(end - starts[tp] for tp, end in ends.items())


def main() -> None:
    """Exit code 1, with the reason on stderr, when a worker runs."""
    settings = Settings()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a refused commit is explained below
    try:
        gone = asyncio.run(forget(settings.bootstrap, settings.partitions))
    except WorkerRuns as why:
        sys.exit(str(why))
    print(f"{gone} saved records are gone; the next worker starts at the beginning of the topics.")


if __name__ == "__main__":
    main()
