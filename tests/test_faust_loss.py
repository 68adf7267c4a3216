"""What Faust's acknowledgement loses on a real broker, and what ours does not, in the same trouble.

This is why no money waits on Faust (docs/decisions/0001). Should a later Faust lose nothing here, the first test fails
and that decision is due again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from services.runtime import processes
from tests.tally import Add, Open, make_database, make_topics, record, running, send, spec, until

EVENTS = 40
TROUBLE, BATCH_MAX = "trouble", 10
AT = 12  # the event in trouble
ORDER = "L1"
WORKER = ["tests.lossy_faust", "worker"]


def texts() -> list[str]:
    return [TROUBLE if n == AT else f"text {n}" for n in range(EVENTS)]


@asynccontextmanager
async def process(name: str, args: list[str], folder: Path, **env: str) -> AsyncIterator[processes.Child]:
    child = processes.spawn(name, [sys.executable, "-m", *args], log=folder / f"{name}.log", env=os.environ | env)
    try:
        yield child
    finally:
        await processes.stop(child, first=signal.SIGKILL)


async def committed(kafka: str, group: str, topic: str) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    except GroupCoordinatorNotAvailableError:  # a new broker makes the topic of offsets when it is first asked
        return -1
    finally:
        await admin.close()
    return found[TopicPartition(topic, 0)].offset if TopicPartition(topic, 0) in found else -1


@pytest.mark.parametrize("mode", ["raising", "raising_in_a_batch", "killed"])
async def test_faust_commits_what_was_never_handled(kafka, tmp_path, mode):
    of = spec(f"lossy{uuid4().hex[:8]}")
    topic, group = of.inputs[0].name, f"{of.name}-faust"
    await make_topics(kafka, of, 1)
    await send(kafka, [record(of, Add(order_id=ORDER, text=text)) for text in texts()])
    handled = tmp_path / "handled"
    env = {
        "LOSSY_BOOTSTRAP": kafka, "LOSSY_TOPIC": topic, "LOSSY_GROUP": group, "LOSSY_MODE": mode,
        "LOSSY_HANDLED": str(handled), "LOSSY_MARK": str(tmp_path / "mark"),
        "LOSSY_TROUBLE": TROUBLE, "LOSSY_BATCH": str(BATCH_MAX),
    }  # fmt: skip

    async def past(offset: int) -> bool:
        return await committed(kafka, group, topic) >= offset

    async with process("faust", WORKER, tmp_path, **env) as faust:
        if mode == "killed":
            await until(lambda: past(AT + 1), within_s=60, every_s=0.1)  # while the event in trouble is still being handled
            faust.signal(signal.SIGKILL)
            assert await processes.gone(faust, 5)
            again = process("faust-again", WORKER, tmp_path, **env)
        else:
            again = nullcontext()  # Faust starts its agent again by itself, and loses what the old one had buffered
            await until(lambda: past(EVENTS), within_s=60, every_s=0.1)
        async with again:
            await send(kafka, [record(of, Add(order_id=ORDER, text="last"))])
            await until(lambda: handled.exists() and "last" in handled.read_text().splitlines(), within_s=60)
            await until(lambda: past(EVENTS + 1), within_s=60, every_s=0.1)
    lost = set(texts()) - set(handled.read_text().splitlines())
    print(f"{mode}: Faust lost {len(lost)} of {EVENTS}")
    assert TROUBLE in lost, "Faust lost nothing: look at docs/decisions/0001 again"


@pytest.mark.parametrize("trouble", ["raising", "killed"])
async def test_the_partition_owner_loses_nothing(kafka, postgres, tmp_path, trouble):
    of = spec(f"lossless{uuid4().hex[:8]}")
    dsn = await postgres(of.name)
    await make_database(dsn, of.name, 1)
    await make_topics(kafka, of, 1)
    await send(kafka, [record(of, Open(order_id=ORDER)), *(record(of, Add(order_id=ORDER, text=t)) for t in texts())])
    conn = await asyncpg.connect(dsn)
    try:
        lock = conn.transaction()
        await lock.start()
        await conn.execute("LOCK TABLE applied")  # the batch stands still in the middle of its transaction
        async with process("owner", ["tests.tally", of.name, dsn, kafka, "1"], tmp_path) as owner:
            stuck = await until(lambda: waiting_session(conn))
            if trouble == "killed":
                owner.signal(signal.SIGKILL)
                assert await processes.gone(owner, 5)
            else:
                await conn.execute("SELECT pg_terminate_backend($1)", stuck)
            await lock.rollback()
            if trouble == "raising":  # the same process goes on by itself
                applied = await until(lambda: all_applied(conn), within_s=60)
        if trouble == "killed":
            async with running(of, dsn, kafka, 1):
                applied = await until(lambda: all_applied(conn), within_s=60)
    finally:
        await conn.close()
    assert applied == Counter(texts()), "each exactly once"


async def waiting_session(conn: asyncpg.Connection) -> int | None:
    """The database session that waits for our lock."""
    return await conn.fetchval(
        "SELECT pid FROM pg_locks WHERE relation = 'applied'::regclass AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())")


async def all_applied(conn: asyncpg.Connection) -> Counter[str] | None:
    found = Counter(row["text"] for row in await conn.fetch("SELECT text FROM applied"))
    return found if found.total() >= EVENTS else None
