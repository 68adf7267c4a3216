"""What must be there before the first process starts: the servers' addresses, the databases, the topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from urllib.parse import urlsplit

import asyncpg

from services.cli.state import Folder
from services.runtime.local import LocalKafka, LocalPostgres
from services.runtime.processes import FolderOfAnotherVersion, NotReady
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics


def kafka(settings: Settings, proxied: Mapping[str, Sequence[int]] | None = None) -> LocalKafka:
    folder = Folder(settings.data_folder).kafka
    return LocalKafka(folder, settings.kafka_port, settings.kafka_nodes, settings.cache_folder, proxied)


def postgres(settings: Settings) -> LocalPostgres:
    return LocalPostgres(Folder(settings.data_folder).postgres, settings.postgres_port)


async def databases(settings: Settings, local: LocalPostgres | None) -> None:
    """Create the local databases and migrate those of every service that is installed."""
    from services.runtime.migrate import WrongInstallation, migrate

    for service in SERVICES:
        dsn = settings.dsn(service)
        if local is not None and getattr(settings, f"{service}_dsn") is None:
            await local.create_database(f"tradewind_{service}")
        if find_spec(f"services.{service}") is None or not (files(f"services.{service}") / "schema.sql").is_file():
            continue
        where = public_address(dsn)
        try:
            await migrate(dsn, service, settings.partitions)
        except WrongInstallation as error:
            raise FolderOfAnotherVersion(str(error), where, "Set TRADEWIND_PARTITIONS back, or use another database.") from error
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            name = f"TRADEWIND_{service.upper()}_DSN"
            raise NotReady(f"the database of {service} cannot be prepared: {error}", where, f"Check {name}.") from error


async def topics(settings: Settings) -> list[str]:
    """Create the topics that are missing, with those that only one package knows (`topics.MORE` in it)."""
    return await ensure_topics(settings.bootstrap, settings.partitions, more_topics())


def more_topics() -> dict[str, dict[str, str]]:
    """Faust cannot create its tables' topics on this Kafka, so each package lists them: name → configuration."""
    found: dict[str, dict[str, str]] = {}
    for package in (*SERVICES, "console"):
        if find_spec(f"services.{package}") and find_spec(f"services.{package}.topics"):
            found |= import_module(f"services.{package}.topics").MORE
    return found


def addresses(settings: Settings) -> dict[str, str]:
    """Where the parts of a running system answer; without passwords."""
    places = {"kafka": settings.bootstrap}
    places |= {f"database of {service}": public_address(settings.dsn(service)) for service in SERVICES}
    return places | {
        "payment provider": settings.provider_address,
        "orders API": f"http://127.0.0.1:{settings.orders_port}",
        "console": f"http://127.0.0.1:{settings.console_port}",
    }


def public_address(dsn: str) -> str:
    """A DSN without user and password, fit to be shown."""
    parts = urlsplit(dsn)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
