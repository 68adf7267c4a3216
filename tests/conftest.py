"""A real Kafka and a real PostgreSQL for the tests: an address given, else Docker, else processes of our own.

TRADEWIND_TEST_BOOTSTRAP=host:port and TRADEWIND_TEST_POSTGRES_DSN=postgresql://… name servers that already run.
Every test gets fresh databases; topics are shared by a session, so tests use order ids of their own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from services.runtime.local import LocalKafka, LocalPostgres
from services.runtime.local_kafka import brokers
from services.runtime.processes import free_port
from services.runtime.settings import Settings

KAFKA_IMAGE = "apache/kafka:4.3.0"
POSTGRES_IMAGE = "postgres:18.4"

MakeDb = Callable[[str], Awaitable[str]]


@pytest.fixture(scope="session")
def cache_folder() -> Path:
    """Where the broker's jars lie: that of the settings, so that a demo and the tests fetch them once."""
    return Settings().cache_folder


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> AsyncIterator[str]:
    """Bootstrap address of a broker with no topics of ours yet."""
    if given := os.environ.get("TRADEWIND_TEST_BOOTSTRAP"):
        yield given
        return
    if _docker_has(KAFKA_IMAGE):
        port = free_port()
        with _kafka_container(port):
            bootstrap, end = f"127.0.0.1:{port}", time.monotonic() + 60
            while not await brokers(bootstrap):
                assert time.monotonic() < end, "Kafka's container does not answer"
                await asyncio.sleep(0.1)
            yield bootstrap
        return
    local = LocalKafka(tmp_path_factory.mktemp("kafka"), free_port(2), cache=cache_folder)
    await local.start()
    yield local.bootstrap
    await local.stop()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | LocalPostgres]:
    """A DSN of a server that was given or runs in Docker, else a local one that `postgres` starts."""
    if given := os.environ.get("TRADEWIND_TEST_POSTGRES_DSN"):
        yield given
    elif _docker_has(POSTGRES_IMAGE):
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
            yield container.get_connection_url()
    else:
        yield LocalPostgres(tmp_path_factory.mktemp("postgres"), free_port())


@pytest.fixture(scope="session")
async def postgres(postgres_server: str | LocalPostgres) -> AsyncIterator[MakeDb]:
    """`await postgres(name)` makes the database `name` anew, empty, and returns its DSN."""
    if isinstance(postgres_server, LocalPostgres):
        await postgres_server.start()
        server = postgres_server.dsn()
    else:
        server = postgres_server

    async def make_db(name: str) -> str:
        assert name.replace("_", "").isalnum(), name
        connection = await asyncpg.connect(server)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))

    yield make_db
    if isinstance(postgres_server, LocalPostgres):
        await postgres_server.stop()


def _kafka_container(port: int):
    """Apache's own image, which testcontainers' Kafka module (made for Confluent's) does not start."""
    from testcontainers.core.container import DockerContainer

    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in {
        "NODE_ID": "1", "PROCESS_ROLES": "broker,controller", "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093", "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093", "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "GROUP_INITIAL_REBALANCE_DELAY_MS": "0", "AUTO_CREATE_TOPICS_ENABLE": "false",
    }.items():  # fmt: skip
        container = container.with_env(f"KAFKA_{name}", value)
    return container


# Its helper image need not be there; the containers are stopped by the fixtures themselves.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")


def _docker_has(image: str) -> bool:
    """Whether a Docker engine answers and has the image, or can pull it."""
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        client = docker.from_env(timeout=30)
        client.ping()
    except DockerException:
        return False
    try:
        client.images.get(image)
    except ImageNotFound:
        try:
            client.images.pull(image)
        except DockerException:
            return False
    return True


@pytest.fixture
async def place(kafka: str, postgres: MakeDb):
    """`await place(partitions=1)`: topics and a database of their own for the tiny service of `tests.tally`."""
    from tests.tally import Place

    async def make(partitions: int = 1) -> Place:
        return await Place.make(kafka, postgres, partitions)

    yield make


@pytest.fixture
def history():
    """One order of each kind of path, frozen, as the auditor reads it; the test may change it."""
    from tests.history import fresh

    return fresh()
