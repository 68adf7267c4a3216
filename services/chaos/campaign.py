"""One way of every campaign: a fresh system, load, faults, heal, at most a minute of drain, the audit, the report."""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from services.auditor.audit import audit
from services.chaos import disks
from services.chaos.faults import RECOVERY_MAX_S, Fault
from services.chaos.load import Load, stream
from services.chaos.recovery import Observer, until
from services.chaos.system import Links, TormentedSupervisor, table
from services.cli import pace
from services.cli.output import Refused
from services.cli.rest import PLACED, left_open
from services.cli.supervisor import Watched, run
from services.runtime import processes
from services.runtime.processes import NotReady
from services.runtime.settings import ELSEWHERE, SERVICES, Settings

RATE_S = 45.0  # orders a second
DRAIN_MAX_S = 60.0
DEAD_LETTERS_MAX = 10**6  # those that a campaign plants must not stop a reader
OUTSIDE = ("world", "provider", "payments-webhook")
TUNED = {"partitions": 3, "linger_ms": 20}


@dataclass(frozen=True)
class Plan:
    """`n` occurrences of a fault. `orders`: so many, spread over the faults; None: `rate_s` as long as they last.
    `minutes`: no new occurrence after that, whatever `n` says."""

    fault: Fault
    n: int
    seed: int
    orders: int | None = None
    rate_s: float = RATE_S
    minutes: float | None = None
    drain_s: float = DRAIN_MAX_S

    @property
    def pace_s(self) -> float:
        return self.orders / (self.n * self.fault.seconds) if self.orders and self.n else self.rate_s

    @property
    def meets_deadlines(self) -> bool:
        """Whether a day of the trade passes while it runs, so that orders that wait for that long have ended by its end."""
        return self.n * self.fault.seconds * self.fault.speed > 2 * 86_400

    @property
    def command(self) -> str:
        """What does the same again."""
        parts = [f"tradewind chaos --campaign {self.fault.name} --n {self.n} --seed {self.seed}"]
        return " ".join(parts + ([f"--orders {self.orders}"] if self.orders else [f"--rate {self.rate_s:g}"]))


@dataclass
class Told:
    """What a campaign has seen. `recovery_s`: from each blow, or from its end where it lasts, until a service had applied
    all that lay before it by then. `broken`: promises that were broken besides those that the auditor knows."""

    hits: Counter[str] = field(default_factory=Counter)
    n: int = 0
    recovery_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    orders: int = 0
    unknown: int = 0
    load_s: float = 0.0
    drain_s: float = 0.0
    rss_mb: dict[str, int] = field(default_factory=dict)
    report: Any = None

    @property
    def violations(self) -> int:
        return self.report.violation_count + len(self.broken)


def own_settings(settings: Settings, plan: Plan, folder: Path) -> Settings:
    """A system of its own in `folder`, on servers of its own."""
    tuned = {name: value for name, value in TUNED.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=dict.fromkeys(ELSEWHERE) | tuned | {
        "data_folder": folder, "speed": pace.chosen(settings, plan.fault.speed), "provider": "http", "seed": plan.seed,
        "kafka_nodes": plan.fault.nodes, "log_level": "WARNING", "dead_letters_max": DEAD_LETTERS_MAX})


def empty(folder: Path) -> None:
    """Remove what an earlier campaign left, and nothing else."""
    if folder.exists():
        if not (folder / "run").is_dir() and any(folder.iterdir()):
            raise Refused("the folder holds something else", str(folder), "Choose another one with --keep.")
        shutil.rmtree(folder)


def torment(settings: Settings, plan: Plan, folder: Path, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The whole campaign in an empty `folder`, which stays; the JSON line. Raises StartError, Interrupted."""
    began = time.monotonic()
    settings, fault = own_settings(settings, plan, folder), plan.fault
    empty(folder)
    campaign = Campaign(settings, plan, progress)
    supervisor = TormentedSupervisor(settings, table(settings, fault.instances, fault.provider_args), campaign.links, progress)
    with disks.mounted(folder) if fault.small_disks else nullcontext():
        told = asyncio.run(run(supervisor, campaign.run))
    return line_of(plan, told, time.monotonic() - began)


class Campaign:
    """One run. Faults use `random`, `number` (of the occurrence), `links`, `supervisor`, and the methods without a dash."""

    def __init__(self, settings: Settings, plan: Plan, progress: Callable[[str], None]):
        self.settings, self.plan, self.progress = settings, plan, progress
        self.random = random.Random(f"chaos:{settings.seed}")
        self.links = Links(settings)
        self.observer = Observer(settings)
        self.told = Told()
        self.number = 0
        self._recoveries: dict[str, asyncio.Task] = {}

    async def run(self, supervisor: TormentedSupervisor) -> Told:
        self.supervisor = supervisor
        plan, told = self.plan, self.told
        orders = stream(self.settings, supervisor.clock, deadlines=plan.meets_deadlines, hot_sku=plan.fault.hot_sku)
        self.load = Load(self.settings, supervisor.clock, orders, plan.pace_s, plan.orders)
        try:
            await self._stock()
            began = time.monotonic()
            loading = asyncio.create_task(self.load.run())
            await self._torment()
            await self._heal()
            if plan.orders:
                await self._until_placed(loading)
            self.load.stopping = True
            await loading
            told.load_s = time.monotonic() - began
            told.orders, told.unknown = self.load.placed, self.load.unknown
            await self._drain()
            await self._silence()
        finally:
            await self.load.close()
            await self.observer.close()
        self.progress("audit")
        told.report = await audit(self.settings)
        return told

    # -- for faults ---------------------------------------------------------------------------------------------------

    def hit(self, what: str, count: int = 1) -> None:
        """Note what was done, and to whom."""
        if count:
            self.told.hits[what] += count
            self.progress(f"{self.plan.fault.name} {self.number + 1} of {self.plan.n}: {what}")

    def breaks(self, what: str) -> None:
        """A promise was broken that the auditor cannot see."""
        self.told.broken.append(what)
        self.progress(f"broken: {what}")

    async def up(self, name: str) -> Watched:
        """The process, once it runs. Raises NotReady."""
        watched = self.supervisor.watched[name]
        await until(lambda: watched.reviving is None and watched.child.alive, RECOVERY_MAX_S, f"{name} is not started again",
                    self.settings)
        return watched

    def measure(self, service: str, instead_of: int | None = None) -> None:
        """Measure from now until `service` has applied what lies before it now; `instead_of`: by another process."""
        if (earlier := self._recoveries.pop(service, None)) is not None:
            if earlier.done():
                earlier.result()  # raises if it never recovered
            earlier.cancel()  # hit again before it had recovered: the next recovery counts
        self._recoveries[service] = asyncio.create_task(self._recovery(service, instead_of))

    async def settled(self, service: str, *, impatient: bool = False) -> None:
        """Wait until `service` has recovered, unless impatient. Raises NotReady when it does not."""
        if service in self._recoveries and not impatient:
            await self._recoveries.pop(service)

    def recoveries(self) -> list[asyncio.Task]:
        return list(self._recoveries.values())

    def note_memory(self, service: str) -> None:
        """Of the process that runs now; the highest counts."""
        try:
            used = psutil.Process(self.supervisor.watched[service].child.pid).memory_info().rss >> 20
        except psutil.NoSuchProcess:
            return
        self.told.rss_mb[service] = max(used, self.told.rss_mb.get(service, 0))

    async def all_recover(self) -> None:
        for service in SERVICES:
            self.measure(service)
        for service in SERVICES:
            await self.settled(service)

    # -- the way ------------------------------------------------------------------------------------------------------

    async def _stock(self) -> None:
        """Fill the warehouses, and wait until shipping knows: an order placed before would find nothing."""
        self.progress("stock the warehouses")
        count = await self.load.stock()
        conn = await asyncpg.connect(self.settings.dsn("shipping"))
        try:
            await until(lambda: conn.fetchval("SELECT count(*) >= $1 FROM orders WHERE status = 'stock'", count),
                        RECOVERY_MAX_S, "shipping does not take its stock in", self.settings)
        finally:
            await conn.close()

    async def _torment(self) -> None:
        """All occurrences, or as many as there is time for; a service that does not recover ends them."""
        end = time.monotonic() + self.plan.minutes * 60 if self.plan.minutes else float("inf")
        try:
            while self.number < self.plan.n and time.monotonic() < end:
                await asyncio.sleep(self.random.uniform(*self.plan.fault.gap_s))
                await self.plan.fault.blow(self)
                self.number += 1
            for service in list(self._recoveries):
                await self.settled(service)
        except NotReady as why:
            self.breaks(f"occurrence {self.number + 1}: {why}")
        self.told.n = self.number

    async def _heal(self) -> None:
        """Every line good, every process running."""
        self.links.heal()
        for task in self._recoveries.values():
            task.cancel()
        for watched in self.supervisor.watched.values():
            watched.held = False
        for name in self.supervisor.watched:
            try:
                await self.up(name)
            except NotReady as why:
                self.breaks(str(why))

    async def _until_placed(self, loading: asyncio.Task) -> None:
        while self.load.placed < self.plan.orders and not loading.done():
            await asyncio.sleep(0.1)

    async def _recovery(self, service: str, instead_of: int | None) -> None:
        began, victim = time.monotonic(), self.supervisor.watched[service]
        marks = await self.observer.marks(service, RECOVERY_MAX_S)

        async def recovered() -> bool:
            if victim.child.pid == instead_of or not self.supervisor.folder.ready(service).exists():
                return False
            return await self.observer.applied(service, marks)

        await until(recovered, self.plan.fault.recovery_max_s, f"{service} does not recover", self.settings)
        self.told.recovery_s.append(time.monotonic() - began)

    async def _drain(self) -> None:
        """Until nothing is open anywhere, at most `drain_s`; what is left then is the auditor's business."""
        self.progress("wait until every order has ended")
        began = time.monotonic()
        while True:
            self.told.left = await self._left()
            self.told.drain_s = time.monotonic() - began
            if not self.told.left or self.told.drain_s > self.plan.drain_s:
                return
            await asyncio.sleep(0.25)

    async def _silence(self) -> None:
        """The outside world falls silent: an answer that comes late and twice must not arrive in the middle of the audit."""
        outside = [w for name, w in self.supervisor.watched.items() if name in OUTSIDE]
        for watched in outside:
            watched.held = True
        await asyncio.gather(*(processes.stop(watched.child) for watched in outside))
        try:
            for service in SERVICES:
                marks = await self.observer.marks(service, RECOVERY_MAX_S)
                await until(lambda: self.observer.applied(service, marks), RECOVERY_MAX_S, f"{service} does not catch up",
                            self.settings)
        except NotReady as why:
            self.breaks(str(why))

    async def _left(self) -> list[str]:
        left = await left_open(self.settings)
        conn = await asyncpg.connect(self.settings.dsn("orders"))
        try:
            known = await conn.fetchval(PLACED)
        finally:
            await conn.close()
        if known < (wanted := self.told.orders - self.told.unknown):
            left.append(f"orders: {wanted - known} not read yet")
        return left


def line_of(plan: Plan, told: Told, seconds: float) -> dict[str, Any]:
    """The line of a campaign. `late`: recoveries beyond the fault's limit."""
    report, times = told.report.as_json(), sorted(told.recovery_s)
    return {
        "campaign": plan.fault.name, "n": told.n, "orders": told.orders,
        "recovery_s_p50": round(statistics.median(times), 2) if times else 0.0, "recovery_s_max": round(max(times, default=0.0), 2),
        "violations": told.violations, "seed": plan.seed, "seconds": round(seconds, 1), "recoveries": len(times),
        "late": sum(t > plan.fault.limit_s for t in times), "hits": dict(told.hits), "broken": told.broken,
        "orders_per_s": round(told.orders / told.load_s, 1) if told.load_s else 0.0, "unknown": told.unknown,
        "drain_s": round(told.drain_s, 1), "rss_mb": told.rss_mb, "left": told.left, "events": report["events"], "records": report["records"],
        "audit_s": report["seconds"], "checks": sum(report["checked"].values()), "dead_letters": report["dead_letters"],
        "exits": report["exits"], "found": report["found"], "details": report["details"][:20], "repeat": plan.command,
    }  # fmt: skip
