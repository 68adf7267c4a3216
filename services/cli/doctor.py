"""`tradewind doctor`: every usual cause for which Tradewind does not run, and what to do about each."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import asyncpg
import psutil
import typer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from services.cli import exits
from services.cli.output import Output
from services.cli.prepare import kafka, postgres, public_address
from services.cli.state import Folder, read_state, supervisor_of
from services.runtime import processes
from services.runtime.kafka_jars import cached
from services.runtime.local_kafka import java_version
from services.runtime.processes import StartError
from services.runtime.settings import SERVICES, Settings

_DISK_GIB, _MEMORY_GIB = 2, 1.5
_JAVA_MAJOR_MIN = 17  # what Kafka 4 needs of a broker's Java


@dataclass(frozen=True)
class Finding:
    """One check. `found` says what was seen; `cause` and `fix` are empty when it is well."""

    check: str
    ok: bool
    found: str
    cause: str = ""
    fix: str = ""


def doctor(as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False) -> None:
    """Check disk, memory, Java, the downloads, the data folder's versions, the ports and every configured address.

    Changes nothing. Exit code 3 when something is found. Settings are environment variables TRADEWIND_<NAME>;
    their names and defaults stand in services/runtime/settings.py.

    Example:  tradewind doctor --json
    """
    with Output(as_json) as out:
        settings = Settings()
        findings = asyncio.run(examine(settings))
        for finding in findings:
            out.say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:22} {finding.found}")
            if not finding.ok:
                out.say(f"      cause: {finding.cause}")
                out.say(f"      fix:   {finding.fix}")
        ok = all(finding.ok for finding in findings)
        out.result({"ok": ok, "checks": [asdict(finding) for finding in findings]}, exits.OK if ok else exits.ENVIRONMENT)


async def examine(settings: Settings) -> list[Finding]:
    """All checks that these settings call for."""
    running = supervisor_of(read_state(Folder(settings.data_folder))) is not None
    findings = [_data_folder(settings.data_folder), _disk(settings.data_folder), _memory(running), _rules(settings)]
    if settings.bootstrap_servers is None:
        findings += [_java(), _downloads(settings.cache_folder), _folder("Kafka's folder", kafka(settings).check_folder)]
    else:
        findings.append(await _brokers(settings.bootstrap_servers))
    if settings.needs_local_postgres:
        findings.append(_folder("PostgreSQL's folder", postgres(settings).check_folder))
    for service in SERVICES:
        if (dsn := getattr(settings, f"{service}_dsn")) is not None:
            findings.append(await _database(service, dsn))
    for setting in ("provider_url", "registry_url"):
        if (url := getattr(settings, setting)) is not None:
            findings.append(await _address(setting, url))
    return findings + [_port(name, port, running) for name, port in _ports(settings).items()]


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def _data_folder(folder: Path) -> Finding:
    place = _existing(folder)
    ok = place.is_dir() and _writable(place)
    return Finding("data folder", ok, str(folder), *_unless(
        ok, f"{place} {'cannot be written' if place.is_dir() else 'is no folder'}", "Choose another with TRADEWIND_DATA_FOLDER."))


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    return Finding("disk", free >= _DISK_GIB, f"{free:.1f} GiB free at {folder}",
                   *_unless(free >= _DISK_GIB, f"less than {_DISK_GIB} GiB: topics keep everything",
                            "Free some, or choose another folder with TRADEWIND_DATA_FOLDER."))  # fmt: skip


def _memory(running: bool) -> Finding:
    free = psutil.virtual_memory().available / 2**30
    ok = running or free >= _MEMORY_GIB
    return Finding("memory", ok, f"{free:.1f} GiB available",
                   *_unless(ok, f"less than {_MEMORY_GIB} GiB: the kernel may kill the broker", "Close other programs."))  # fmt: skip


def _rules(settings: Settings) -> Finding:
    from services.orders.rulebook import RulesError, load

    try:
        rows = sum(1 for _ in load(settings.rates_file, settings.tax_rounding).rows())
    except RulesError as wrong:
        return Finding("the trade's rules", False, f"{wrong.what} ({wrong.where})", "orders would not start with them", wrong.remedy)
    return Finding("the trade's rules", True, f"{rows} rows" + (f", with {settings.rates_file}" if settings.rates_file else ""))


def _java() -> Finding:
    try:
        found = java_version()
    except StartError as error:
        return Finding("Java", False, error.where, error.what, error.remedy)
    version = found.split('"')[1] if '"' in found else found
    ok = version.split(".")[0].isdigit() and int(version.split(".")[0]) >= _JAVA_MAJOR_MIN
    return Finding("Java", ok, found,
                   *_unless(ok, f"Kafka needs Java {_JAVA_MAJOR_MIN} or newer", "Run `make clean .venv`."))  # fmt: skip


def _downloads(cache: Path) -> Finding:
    have, all_of_them = cached(cache)
    # Missing ones are no fault: the first start fetches them. A folder that cannot be written is one.
    place = _existing(cache)
    ok = have == all_of_them or place.is_dir() and _writable(place)
    return Finding("Kafka's jars", ok, f"{have} of {all_of_them} in {cache}",
                   *_unless(ok, f"{place} cannot be written", "Choose another folder with TRADEWIND_CACHE_FOLDER."))  # fmt: skip


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _folder(name: str, check) -> Finding:
    try:
        check()
    except StartError as error:
        return Finding(name, False, error.where, error.what, error.remedy)
    return Finding(name, True, "of this version, or new")


def _ports(settings: Settings) -> dict[str, int]:
    """The ports that `up` needs, by the setting that chooses each."""
    found = {}
    if settings.bootstrap_servers is None:
        found |= {f"TRADEWIND_KAFKA_PORT +{port - settings.kafka_port}": port for port in kafka(settings).ports}
    if settings.needs_local_postgres:
        found["TRADEWIND_POSTGRES_PORT"] = settings.postgres_port
    for name in ("orders", "console", "webhook", *(() if settings.provider_url else ("provider",))):
        found[f"TRADEWIND_{name.upper()}_PORT"] = getattr(settings, f"{name}_port")
    return found


def _port(setting: str, port: int, running: bool) -> Finding:
    if processes.port_free(port):
        return Finding(f"port {port}", True, "free")
    holder = processes.listener_of(port)
    if running:
        return Finding(f"port {port}", True, f"in use by {holder} while Tradewind runs")
    fix = f"Stop that process, or choose another port with {setting.split()[0]}."
    return Finding(f"port {port}", False, f"taken by {holder}", f"{setting}: only one process can listen there", fix)


async def _brokers(bootstrap: str) -> Finding:
    """The trap of every Kafka: the address that is asked answers, but the one it advertises is out of reach."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await client.bootstrap()
        advertised = [(broker.host, broker.port) for broker in client.cluster.brokers()]
    except (KafkaError, OSError) as error:
        return Finding("Kafka", False, bootstrap, f"no broker answers: {error}", "Check TRADEWIND_BOOTSTRAP_SERVERS and the network.")
    finally:
        await client.close()
    lost = [f"{host}:{port}" for host, port in advertised if not await _answers(host, port)]
    return Finding("Kafka", not lost, f"{bootstrap} answers and advertises {', '.join(f'{h}:{p}' for h, p in advertised)}",
                   *_unless(not lost, f"advertised but not reachable from here: {', '.join(lost)}",
                            "Set the broker's advertised.listeners to addresses that this machine can reach."))  # fmt: skip


async def _answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 3)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


async def _address(setting: str, url: str) -> Finding:
    """Whether somebody listens there; what he says is for those who call."""
    variable, parts = f"TRADEWIND_{setting.upper()}", urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # a port that is no number
        host = port = None
    where = f"{parts.scheme}://{host}:{port}"  # without a user's name and password
    if not host or port is None:
        return Finding(variable, False, "not an address", "It must begin with http:// or https:// and name a host.", f"Correct {variable}.")
    ok = await _answers(host, port)
    return Finding(variable, ok, where, *_unless(ok, "nobody listens there", f"Start what should, or correct {variable}."))


async def _database(service: str, dsn: str) -> Finding:
    name, where = f"database of {service}", public_address(dsn)
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return Finding(name, False, where, str(error) or type(error).__name__, f"Check TRADEWIND_{service.upper()}_DSN.")
    await connection.close()
    return Finding(name, True, f"{where} answers")


def _unless(ok: bool, cause: str, fix: str) -> tuple[str, ...]:
    return () if ok else (cause, fix)
