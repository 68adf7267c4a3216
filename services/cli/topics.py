"""`tradewind topics`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.topics import TOPICS
from services.cli.output import NotRunning, Output
from services.runtime.local_kafka import brokers
from services.runtime.settings import Settings
from services.runtime.topics import partition_counts


def topics(as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False) -> None:
    """List every topic with its writers and readers, and, of a running Kafka, partitions, records and dead letters.

    Example:  tradewind topics --json
    """
    with Output(as_json) as out:
        counts = asyncio.run(_counts(Settings().bootstrap))
        rows = []
        for topic in TOPICS:
            partitions, records = counts.get(topic.name, (0, 0))
            dead = counts.get(topic.dlq, (0, 0))[1]
            rows.append({
                "name": topic.name, "written_by": topic.written_by, "read_by": topic.read_by, "partitions": partitions,
                "records": records, "dead_letters": dead, "messages": sorted(m.__name__ for m in topic.messages),
            })  # fmt: skip
            out.say(f"{topic.name:30} {partitions:>3} partitions {records:>10} records {dead:>6} dead letters")
            out.say(f"    {', '.join(topic.written_by)} → {', '.join(topic.read_by)}")
        out.result({"topics": rows})


async def _counts(bootstrap: str) -> dict[str, tuple[int, int]]:
    """Topic → partitions and records ever written. Raises NotRunning."""
    try:
        if not await brokers(bootstrap):
            raise NotRunning("no Kafka answers", bootstrap, "Start it with `tradewind up --detach`.")
        partitions = await partition_counts(bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [TopicPartition(name, p) for name, count in partitions.items() for p in range(count)]
            ends = await consumer.end_offsets(places)
        finally:
            await consumer.stop()
    except KafkaError as error:
        raise NotRunning(f"Kafka does not answer: {error}", bootstrap, "Look with `tradewind doctor`.") from error
    return {n: (count, sum(ends[p] for p in places if p.topic == n)) for n, count in partitions.items()}
