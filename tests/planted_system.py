"""The three services and the webhook edge in one process, so that one SIGKILL ends all: `python -m tests.planted_system`.

Run through `python -m tests.planted --run BUG tests.planted_system` it has a bug. It is what its supervisor in
`tests.planted_runs` kills, stops and starts again; everything else of a run lives outside.

PLANTED_STOP=payments:batch.decided:15 stops it (SIGSTOP) when payments passes that crash point for the 15th time;
PLANTED_END=parked:1 ends it when a batch was committed in which something came too early, for the first time; PLANTED_END=out:20
when the 20th was committed that has something to tell.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from services.runtime import crash
from services.runtime.clock import Clock
from services.runtime.settings import Settings


def stop_at(service: str, name: str, nth: int) -> None:
    """Let the process stop there. Before anything that passes crash points is imported."""
    left = nth

    def point(passed: str) -> None:
        nonlocal left
        if passed == name and sys._getframe(1).f_locals["self"].spec.name == service:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    crash.point = point


def end_with(part: str, nth: int) -> None:
    """Let the process end, without cleanup, when a batch is committed of which this part is not empty."""
    left = nth

    def point(passed: str) -> None:
        nonlocal left
        if passed == "batch.committed" and getattr(sys._getframe(1).f_locals["batch"], part):
            left -= 1
            if left == 0:
                os._exit(crash.EXIT_CRASHED)

    crash.point = point


async def main() -> None:
    from services.orders import app as orders
    from services.payments import app as payments
    from services.payments.webhook import Edge
    from services.runtime.service import PartitionService
    from services.shipping import app as shipping

    settings, clock = Settings(), Clock.from_env()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    edge = web.AppRunner(Edge(settings.bootstrap, settings.webhook_secret_text(), clock).app, access_log=None)
    await edge.setup()
    await web.TCPSite(edge, "127.0.0.1", settings.webhook_port, reuse_port=True).start()
    running = []
    for app in (orders, payments, shipping):
        spec = app.spec(settings)
        effects = app.effects(settings, clock) if app is payments else None
        running.append(PartitionService(
            spec, settings.dsn(spec.name), settings.bootstrap, settings.partitions, clock, effects, linger_ms=settings.linger_ms,
            ready_file=str(Path(os.environ["PLANTED_READY"]) / spec.name), member=f"planted-{spec.name}"))
    for service in running:
        await service.start()
    ends = [asyncio.create_task(service.wait_until_stopped()) for service in running]
    await asyncio.wait([asyncio.create_task(stop.wait()), *ends], return_when=asyncio.FIRST_COMPLETED)
    for service in running:
        await service.stop()
    if crashed := next((service.crash_reason for service in running if service.crash_reason is not None), None):
        raise crashed


if __name__ == "__main__":
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    if where := os.environ.get("PLANTED_STOP"):
        whose, what, count = where.split(":")
        stop_at(whose, what, int(count))
    if how := os.environ.get("PLANTED_END"):
        part_, many = how.split(":")
        end_with(part_, int(many))
    asyncio.run(main())
