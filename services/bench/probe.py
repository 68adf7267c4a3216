"""How long an order takes on this machine, from its placing until the warehouse is asked to pack, under light load.

On a system of its own, with servers of its own, below the data folder: the figure must not depend on what a user has on
theirs, and no order may appear among theirs that nobody placed. Addresses of other servers are left aside: a broker
farther away only makes an order slower.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from services.bench import measure, orders, quiet
from services.bench.load import Load
from services.bench.run import empty
from services.cli.supervisor import Supervisor, run
from services.cli.table import VIEWS, programs
from services.runtime.processes import NotReady
from services.runtime.settings import ELSEWHERE, Settings
from services.simulators.edge import Publisher

ORDERS, PER_SECOND, WARM_UP = 360, 40.0, 120


def probe(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> dict:
    """{p50_s, p99_s, orders}. Starts and stops everything, and leaves nothing. Raises StartError, Interrupted."""
    own = settings.model_copy(update=dict.fromkeys(ELSEWHERE) | {"data_folder": settings.data_folder / "probe", "speed": 1.0})
    asyncio.run(empty(own))
    path = own.data_folder / "probe-orders.msgpack"
    _, stock = orders.build(path, seed=own.seed, count=ORDERS, vault_key=own.vault_key_bytes(), placed_at=datetime.now(UTC),
                            partitions=own.partitions)
    # All but the operators' views, which no order depends on. Outsiders answer at once: their time is not ours.
    table = tuple(replace(p, args=(*p.args, "--fast")) if p.module == "services.simulators.world" else p
                  for p in programs(own) if p.name not in VIEWS)
    reader = orders.Reader(path)
    try:
        return asyncio.run(run(Supervisor(own, table, progress), lambda _: _measured(own, stock, reader)))
    finally:
        reader.close()
        shutil.rmtree(own.data_folder, ignore_errors=True)


async def _measured(settings: Settings, stock: list, reader: orders.Reader) -> dict:
    async with Publisher(settings.bootstrap) as publisher:
        await publisher.send(stock)
    await quiet.rest(settings, calm_s=0.25)
    since_ms = 0

    def each() -> None:
        nonlocal since_ms
        if not since_ms and load.placed >= WARM_UP:
            since_ms = int(time.time() * 1000)

    async with Load(settings.bootstrap, settings.partitions, reader) as load:
        await load.steady(ORDERS, PER_SECOND, each)
    found = (await measure.delays(settings.bootstrap, settings.partitions, since_ms, int(time.time() * 1000), ORDERS)
             )["fulfilment_requested"]
    if not found["orders"]:
        raise NotReady("no order came as far as the warehouse", str(settings.data_folder / "logs"), "Run `tradewind doctor`.")
    return found
