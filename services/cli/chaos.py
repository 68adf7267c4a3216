"""`tradewind chaos`: kill services under load, let them recover, audit."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import asyncpg
import typer

from services.cli import exits
from services.cli.output import Output, Refused
from services.cli.rest import left_open
from services.runtime.processes import NotReady
from services.runtime.settings import SERVICES, Settings

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from schemas.orders_intake import PlaceOrder
    from services.cli.supervisor import Supervisor, Watched
    from services.simulators.edge import Publisher

SPEED = 3_000.0  # a reservation's day passes in 29 s: longer than a recovery, or all orders would end by it
TOO_LONG = frozenset({"lost_silent", "never_confirmed", "delivery_return", "documents_missing"})  # they wait for a week
ORDERS_A_KILL = 20
GAP_S = (0.4, 2.4)  # between two kills, drawn evenly
EARLY = 0.3  # of the kills may hit a service that has not recovered from the one before
RECOVERY_MAX_S = 60.0
_LOOK_EVERY_S = 0.1


@dataclass
class Told:
    """What a run has seen. `recovery_s`: from each kill until its service had applied all that lay before it by then."""

    killed: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)
    orders: int = 0
    left: list[str] = field(default_factory=list)
    report: Any = None


def chaos(
    kills: Annotated[int, typer.Option("--kills", "-k", min=0, help="How many times a service is killed.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Of victims, moments, orders and exits; default: TRADEWIND_SEED.")] = None,
    orders: Annotated[int | None, typer.Option("--orders", "-n", min=40, help=f"Default: {ORDERS_A_KILL} a kill.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Use this folder, and keep what the run leaves there.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that orders have to come to their end after the last kill.")] = 180.0,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Kill orders, payments and shipping with SIGKILL at random moments while orders flow, then audit everything.

    Starts a system of its own in <data folder>/chaos (emptied first, removed after a clean run). The same seed draws the
    same victims and pauses. Exit code 1 when the auditor finds anything; the folder is kept then.

    Example:  tradewind chaos --kills 100 --seed 7 --json
    """
    with Output(as_json) as out:
        from services.cli.supervisor import Supervisor, run

        base, started = Settings(), time.monotonic()
        folder = base.data_folder / "chaos" if keep is None else keep.expanduser().absolute()
        settings = base.model_copy(update={"data_folder": folder, "speed": SPEED, "provider": "http",
                                           "seed": base.seed if seed is None else seed})
        _empty(folder)
        campaign = Campaign(settings, kills, orders or max(40, ORDERS_A_KILL * kills), timeout, out)
        told = asyncio.run(run(Supervisor(settings, _table(settings), out.progress), campaign.run))
        line = _line(told, settings.seed, time.monotonic() - started)
        _say(out, told, line)
        if told.report.clean and keep is None:
            shutil.rmtree(folder)
        out.result(line, exits.OK if told.report.clean else exits.VIOLATIONS)


def _empty(folder: Path) -> None:
    """Our own folder of an earlier run, and nothing else."""
    if folder.exists():
        if not (folder / "run").is_dir() and any(folder.iterdir()):
            raise Refused("the folder holds something else", str(folder), "Choose another one with --keep.")
        shutil.rmtree(folder)


def _table(settings: Settings) -> tuple:
    """All programs but the operators' views, which no order depends on; outsiders answer at once, so that load is dense."""
    from services.cli.table import programs

    return tuple(replace(p, args=(*p.args, "--fast")) if p.module == "services.simulators.world" else p
                 for p in programs(settings) if p.name != "console-views")


class Campaign:
    """One run: load and kills side by side, then the drain, then the audit."""

    def __init__(self, settings: Settings, kills: int, orders: int, timeout_s: float, out: Output):
        self.settings, self.kills, self.orders, self.timeout_s, self.out = settings, kills, orders, timeout_s, out
        self.random = random.Random(f"chaos:{settings.seed}")
        self.told = Told()
        self.share = 0.0  # of the campaign that is over: the load keeps pace with the kills

    async def run(self, supervisor: Supervisor) -> Told:
        from aiokafka import AIOKafkaConsumer

        from services.auditor.audit import audit
        from services.simulators.edge import Publisher, client_journal

        self.supervisor = supervisor
        placed = list(self._make_orders())
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            async with Publisher(self.settings.bootstrap, client_journal(self.settings)) as publisher:
                await self._stock(publisher, placed)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._place(publisher, placed))
                    both.create_task(self._kill_all(consumer))
        finally:
            await consumer.stop()
        self.told.orders = len(placed)
        await self._drain()
        self.out.progress("audit")
        self.told.report = await audit(self.settings)
        return self.told

    # -- load ---------------------------------------------------------------------------------------------------------

    def _make_orders(self) -> list[PlaceOrder]:
        """One of each scenario that ends within the run, those with deadlines too, then a stream that needs none."""
        from services.simulators.edge import demo_orders
        from services.simulators.scenario import SCENARIOS, scenario_of

        settings = self.settings
        given = {"vault_key": settings.vault_key_bytes(), "placed_at": self.supervisor.clock.now()}
        first = [order for order in demo_orders(settings.seed, len(SCENARIOS), prefix="chaos", **given)
                 if scenario_of(order.order_id, settings.seed) not in TOO_LONG][:self.orders]
        return [*first, *demo_orders(settings.seed, self.orders - len(first), prefix="stream", forced=False, fast=True, **given)]

    async def _stock(self, publisher: Publisher, placed: list[PlaceOrder]) -> None:
        """Fill the warehouses, and wait until shipping knows: an order placed before would find nothing."""
        from services.simulators.edge import inbound_for

        self.out.progress("stock the warehouses")
        count = await publisher.send(inbound_for(placed, batch="chaos", time=self.supervisor.clock.now()))
        conn = await asyncpg.connect(self.settings.dsn("shipping"))
        try:
            await _until(lambda: conn.fetchval("SELECT count(*) >= $1 FROM orders WHERE status = 'stock'", count),
                         RECOVERY_MAX_S, "shipping does not take its stock in", self.settings)
        finally:
            await conn.close()

    async def _place(self, publisher: Publisher, placed: list[PlaceOrder]) -> None:
        from services.simulators.edge import place_record

        done = 0
        while done < len(placed):
            due = int(len(placed) * self.share) if self.share < 1 else len(placed)
            if due > done:
                await publisher.send(place_record(order) for order in placed[done:due])
                done = due
            await asyncio.sleep(_LOOK_EVERY_S)

    # -- kills --------------------------------------------------------------------------------------------------------

    async def _kill_all(self, consumer: AIOKafkaConsumer) -> None:
        recoveries: dict[str, asyncio.Task] = {}
        for number in range(self.kills):
            name, gap, early = self.random.choice(SERVICES), self.random.uniform(*GAP_S), self.random.random() < EARLY
            await self._pass(gap, number)
            if name in recoveries and not early:
                await recoveries.pop(name)
            victim = self.supervisor.watched[name]
            await _until(lambda: victim.reviving is None and victim.child.alive, RECOVERY_MAX_S,
                         f"{name} is not started again", self.settings)
            if (earlier := recoveries.pop(name, None)) is not None and not earlier.done():
                earlier.cancel()  # killed again before it had recovered: the next recovery counts
            pid = victim.child.pid
            victim.child.signal(signal.SIGKILL)
            self.told.killed[name] += 1
            self.out.progress(f"kill {number + 1} of {self.kills}: {name} (pid {pid})")
            recoveries[name] = asyncio.create_task(self._recovery(consumer, victim, pid))
        self.share = 1.0
        await asyncio.gather(*(task for task in recoveries.values() if not task.cancelled()))

    async def _pass(self, gap_s: float, number: int) -> None:
        """Let `gap_s` seconds pass; the load's share grows evenly meanwhile."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < gap_s:
            self.share = (number + passed / gap_s) / self.kills
            await asyncio.sleep(min(0.02, gap_s - passed))

    async def _recovery(self, consumer: AIOKafkaConsumer, victim: Watched, pid: int) -> None:
        """From the kill until another process has applied what was on the victim's topics when it died."""
        from aiokafka import TopicPartition
        from schemas.topics import TOPICS

        began, settings, name = time.monotonic(), self.settings, victim.name
        places = [TopicPartition(t.name, p) for t in TOPICS if name in t.read_by for p in range(settings.partitions)]
        ends = await consumer.end_offsets(places)
        conn = await asyncpg.connect(settings.dsn(name))
        try:
            async def recovered() -> bool:
                if victim.child.pid == pid or not self.supervisor.folder.ready(name).exists():
                    return False
                rows = await conn.fetch("SELECT partition, offsets::text FROM partitions")
                offsets = {(topic, p): at for p, text in rows for topic, at in json.loads(text).items()}
                return all(offsets.get((tp.topic, tp.partition), 0) >= end for tp, end in ends.items())

            await _until(recovered, RECOVERY_MAX_S, f"{name} does not recover from being killed", settings)
        finally:
            await conn.close()
        self.told.recovery_s.append(time.monotonic() - began)

    # -- drain --------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Until no service has anything open, at most `timeout_s`; what is left then is the auditor's business."""
        self.out.progress("wait until every order has ended")
        end = time.monotonic() + self.timeout_s
        while True:
            self.told.left = await self._left()
            if not self.told.left or time.monotonic() > end:
                return
            await asyncio.sleep(0.25)

    async def _left(self) -> list[str]:
        left = await left_open(self.settings)
        conn = await asyncpg.connect(self.settings.dsn("orders"))
        try:
            known = await conn.fetchval("SELECT count(*) FROM orders")
        finally:
            await conn.close()
        if known < self.told.orders:
            left.append(f"orders: {self.told.orders - known} not read yet")
        return left


async def _until(check, within_s: float, what: str, settings: Settings) -> None:
    """Wait until `check`, plain or a coroutine function, is true. Raises NotReady."""
    end = time.monotonic() + within_s
    while True:
        found = check()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > end:
            raise NotReady(f"{what} within {within_s:g} s", str(settings.data_folder / "logs"), "Its log has the cause.")
        await asyncio.sleep(_LOOK_EVERY_S)


def _line(told: Told, seed: int, seconds: float) -> dict[str, Any]:
    report, times = told.report.as_json(), sorted(told.recovery_s)
    return {
        "kills": told.killed.total(), "orders": told.orders, "recovery_s_max": round(max(times, default=0.0), 2),
        "recovery_s_p50": round(statistics.median(times), 2) if times else 0.0, "recoveries": len(times),
        "violations": report["violations"], "seed": seed, "seconds": round(seconds, 1), "killed": dict(told.killed),
        "exits": report["exits"], "events": report["events"], "dead_letters": report["dead_letters"], "left": told.left,
        "details": report["details"][:20],
    }  # fmt: skip


def _say(out: Output, told: Told, line: dict[str, Any]) -> None:
    by_service = ", ".join(f"{name} {count}" for name, count in sorted(told.killed.items()))
    out.say(f"{line['kills']} kills ({by_service}), seed {line['seed']}, {line['orders']} orders, {line['seconds']} s")
    out.say(f"recovery: {line['recovery_s_p50']} s (p50), {line['recovery_s_max']} s (max), {line['recoveries']} measured")
    for what in told.left:
        out.say(f"not at rest: {what}")
    out.say(told.report.rich())
