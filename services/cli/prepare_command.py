"""`tradewind prepare`: what a deployment needs once before its services start."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from aiokafka.errors import KafkaError

from services.cli import prepare as steps
from services.cli.output import NotRunning, Output
from services.runtime.settings import SERVICES, Settings


def prepare(as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False) -> None:
    """Make topics, tables and keys on servers that already run. Does nothing twice; safe to run at every start.

    Example:  TRADEWIND_BOOTSTRAP_SERVERS=kafka:9092 TRADEWIND_ORDERS_DSN=postgresql://… tradewind prepare
    """
    with Output(as_json) as out:
        settings = Settings()
        missing = [f"TRADEWIND_{name.upper()}_DSN" for name in SERVICES if getattr(settings, f"{name}_dsn") is None]
        if settings.bootstrap_servers is None or missing:
            wanted = ", ".join([] if settings.bootstrap_servers else ["TRADEWIND_BOOTSTRAP_SERVERS"]) or ", ".join(missing)
            raise NotRunning("prepare is for servers you name", wanted, "Set it, or let `tradewind up` start local servers.")
        asyncio.run(_prepare(settings, out))


async def _prepare(settings: Settings, out: Output) -> None:
    out.progress("databases")
    await steps.databases(settings, None)
    out.progress("topics")
    try:
        created = await steps.topics(settings)
    except KafkaError as error:
        raise NotRunning(f"Kafka does not answer: {error}", settings.bootstrap, "Check TRADEWIND_BOOTSTRAP_SERVERS.") from error
    # Made here, by one process, so that services need only read them.
    settings.vault_key_bytes()
    settings.webhook_secret_text()
    out.say(f"Prepared: {len(SERVICES)} databases, {len(created)} new topics, keys in {settings.data_folder / 'secrets'}.")
    out.result({"databases": list(SERVICES), "topics_created": created})
