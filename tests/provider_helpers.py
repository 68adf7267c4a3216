"""What the tests of the payment provider share: a simulator served in the process, a clock to turn, conditions to wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from aiohttp import web

from services.payments.providers import Call
from services.payments.providers.http import HttpProvider
from services.runtime.clock import Clock
from services.simulators.provider import Manners, Provider
from services.simulators.provider_webhooks import Webhooks

SECRET = "whsec_" + "c2VjcmV0" * 5
PENDING_S = 0.05
MANNERS = Manners(latency_s=0, hang_s=0.01, pending_s=PENDING_S, webhook_share=0, webhook_late_s=0.05)


class Turned(Clock):
    """A clock whose hands a test moves: class attribute, because clocks are frozen."""

    ahead = timedelta()

    def at(self, real: datetime) -> datetime:
        return super().at(real) + Turned.ahead


async def until(condition, what: str, timeout_s: float = 10.0):
    """Wait for a condition, not for a time."""
    end = asyncio.get_running_loop().time() + timeout_s
    while not (found := condition()):
        assert asyncio.get_running_loop().time() < end, f"never: {what}"
        await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def served(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        yield "http://127.0.0.1:%d" % runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def simulator(folder: Path, clock: Clock, manners: Manners = MANNERS, hook: str = "http://127.0.0.1:9/"):
    simulated = Provider(folder, clock, manners, Webhooks(hook, SECRET, 7, manners.webhook_share, manners.webhook_late_s))
    async with served(simulated.app) as address:
        client = HttpProvider(address, timeout_s=2)
        client.simulated, client.address = simulated, address
        try:
            yield client
        finally:
            await client.close()


def call(key: str, amount: int = 5_000, payment: str = "P-1", currency: str = "EUR", token: str = "tok_visa") -> Call:
    return Call(key, "O-1", payment, amount, currency, token, "")


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "provider.ndjson").read_text().splitlines()]
