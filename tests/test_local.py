"""The local Kafka and PostgreSQL: start, go on on the same folder, stop, and say clearly why they cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from schemas.topics import INTAKE
from services.runtime import processes
from services.runtime.local import LocalKafka, LocalPostgres
from services.runtime.processes import FolderOfAnotherVersion, PortTaken, free_port
from services.runtime.topics import OtherPartitionCount, ensure_topics, partition_counts


async def _send(bootstrap: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(INTAKE.name, value, key=b"order-1", partition=0)
    await producer.stop()


async def _read(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(INTAKE.name, 0)])
    values = [(await consumer.getone()).value for _ in range(count)]
    await consumer.stop()
    return values


async def test_kafka_keeps_its_records_over_a_stop_a_crash_and_another_port(tmp_path: Path, cache_folder: Path) -> None:
    first = LocalKafka(tmp_path, free_port(2), cache=cache_folder)
    await first.start()
    assert INTAKE.name in await ensure_topics(first.bootstrap, 2)
    assert await ensure_topics(first.bootstrap, 2) == []
    await _send(first.bootstrap, b"before the stop")
    pid = first.children[1].pid
    await first.stop()
    assert not psutil.pid_exists(pid)

    second = LocalKafka(tmp_path, free_port(2), cache=cache_folder)
    await second.start()
    await _send(second.bootstrap, b"before the crash")
    second.children[1].signal(signal.SIGKILL)
    assert await processes.gone(second.children[1], 10)

    await second.start()
    assert await _read(second.bootstrap, 2) == [b"before the stop", b"before the crash"]
    await second.stop()


async def test_a_running_kafka_of_this_folder_is_taken_over(tmp_path: Path, cache_folder: Path) -> None:
    one = LocalKafka(tmp_path, free_port(2), cache=cache_folder)
    await one.start()
    other = LocalKafka(tmp_path, one.port, cache=cache_folder)
    await other.start()
    assert other.children[1].pid == one.children[1].pid
    await other.stop()
    assert not one.children[1].alive


async def test_three_nodes_replicate(tmp_path: Path, cache_folder: Path) -> None:
    kafka = LocalKafka(tmp_path, free_port(6), nodes=3, cache=cache_folder)
    await kafka.start()
    try:
        await ensure_topics(kafka.bootstrap, 1)
        kafka.children[1].signal(signal.SIGKILL)
        survivors = ",".join(kafka.bootstrap.split(",")[1:])
        await _send(survivors, b"two of three")
        assert await _read(survivors, 1) == [b"two of three"]
    finally:
        await kafka.stop()


async def test_kafka_refuses_a_folder_of_another_version(tmp_path: Path, cache_folder: Path) -> None:
    (tmp_path / "version.json").write_text(json.dumps({"kafka": "3.9.0", "nodes": 1, "cluster": "x"}))
    with pytest.raises(FolderOfAnotherVersion, match="kafka 3.9.0.*TRADEWIND_DATA_FOLDER"):
        await LocalKafka(tmp_path, free_port(2), cache=cache_folder).start()


async def test_a_taken_port_names_the_process_and_the_setting(tmp_path: Path, cache_folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"{port} .*pid {os.getpid()}.*TRADEWIND_KAFKA_PORT"):
            await LocalKafka(tmp_path / "kafka", port, cache=cache_folder).start()
        with pytest.raises(PortTaken, match=f"{port} .*pid {os.getpid()}.*TRADEWIND_POSTGRES_PORT"):
            await LocalPostgres(tmp_path / "postgres", port).start()


async def test_topics_of_another_partition_count_are_refused(kafka: str) -> None:
    await ensure_topics(kafka, count := 6)
    assert set((await partition_counts(kafka)).values()) == {count}
    with pytest.raises(OtherPartitionCount, match="has 6 partitions.*TRADEWIND_PARTITIONS=6"):
        await ensure_topics(kafka, 7)


async def test_postgres_keeps_what_was_committed_over_a_stop_and_a_crash(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path, free_port())
    await server.start()
    dsn = await server.create_database("tradewind_test")
    assert dsn == await server.create_database("tradewind_test")
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SHOW fsync") == "on"
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    pid = server.child.pid
    await server.stop()  # although a session is open
    assert not psutil.pid_exists(pid)

    again = LocalPostgres(tmp_path, free_port())
    await again.start()
    connection = await asyncpg.connect(again.dsn("tradewind_test"))
    await connection.execute("INSERT INTO kept VALUES (2)")
    again.child.signal(signal.SIGKILL)
    assert await processes.gone(again.child, 10)

    await again.start()
    connection = await asyncpg.connect(again.dsn("tradewind_test"))
    assert await connection.fetchval("SELECT sum(n) FROM kept") == 3
    await again.stop()


async def test_postgres_refuses_a_folder_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(FolderOfAnotherVersion, match="version 16, this is 18.*TRADEWIND_DATA_FOLDER"):
        await LocalPostgres(tmp_path, free_port()).start()


async def test_a_killed_parent_takes_its_postgres_and_kafka_with_it(tmp_path: Path, cache_folder: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from services.runtime.local import LocalKafka, LocalPostgres
async def main(folder, cache, kafka_port, postgres_port):
    kafka, postgres = LocalKafka(folder / "k", kafka_port, cache=cache), LocalPostgres(folder / "p", postgres_port)
    await asyncio.gather(kafka.start(), postgres.start())
    print(kafka.children[1].pid, postgres.child.pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
"""
    arguments = [str(tmp_path), str(cache_folder), str(free_port(2)), str(free_port())]
    parent = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    children += [sub for child in children for sub in child.children(recursive=True)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
