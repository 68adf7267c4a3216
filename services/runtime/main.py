"""From a service's spec to a running process: settings, clock, logging, signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from services.runtime import storage
from services.runtime.clock import Clock
from services.runtime.service import PartitionService
from services.runtime.settings import Settings
from services.runtime.spec import Spec

log = logging.getLogger(__name__)


def run(make_spec: Callable[[Settings], Spec], make_effects: Callable | None = None) -> None:
    """Run one instance until SIGTERM or SIGINT; what is committed by then is all that matters."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    uvloop.run(_serve(settings, make_spec, make_effects))  # a tenth less CPU than asyncio's own loop


def run_beside(work: Callable[[Settings, Clock, asyncio.Event], Awaitable[None]]) -> None:
    """Run a process beside a service, which owns no partition, until SIGTERM or SIGINT sets the event."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    asyncio.run(_beside(settings, work))


async def _beside(settings: Settings, work: Callable[[Settings, Clock, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    if ready := os.environ.get("TRADEWIND_READY_FILE"):
        Path(ready).touch()
    await work(settings, Clock.from_env(), stop)


async def _serve(settings: Settings, make_spec: Callable, make_effects: Callable | None) -> None:
    clock = Clock.from_env()
    spec = make_spec(settings)
    service = PartitionService(
        spec, settings.dsn(spec.name), settings.bootstrap, settings.partitions, clock,
        make_effects(settings, clock) if make_effects else None,
        linger_ms=settings.linger_ms, ready_file=os.environ.get("TRADEWIND_READY_FILE"), member=os.environ.get("TRADEWIND_MEMBER"),
        dead_letters_max=settings.dead_letters_max, parked_grace_s=settings.parked_grace_s)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    try:
        await _until_ended(service, stop)
    except storage.Unfit as why:
        log.critical("%s cannot go on: %s", spec.name, why)
        raise SystemExit(storage.EXIT_UNFIT) from why


async def _until_ended(service: PartitionService, stop: asyncio.Event) -> None:
    """Raises what ended the service, if it was not `stop`."""
    await service.start()
    asked, ended = asyncio.create_task(stop.wait()), asyncio.create_task(service.wait_until_stopped())
    await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    await service.stop()
    ended.cancel()
    if service.crash_reason is not None:
        raise service.crash_reason  # the supervisor starts a new one; nothing that was committed is lost
