"""`tradewind chaos --crash-points`: every crash point, again and again, in one running system under load; then every topic
is read again from its beginning, which must change nothing, and the audit.

Each process of the system is one chain of lives: armed for a point, it runs until it ends there, and its supervisor
starts the next life, armed for the next point. All chains run side by side, so that several are down at most moments.
Points in commands (`prepare`, `import`) are tried by running the command twice: it ends there, then it must succeed.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg

from services.chaos.campaign import empty
from services.chaos.crash_clients import Clients
from services.chaos.crash_load import Load
from services.chaos.crash_trials import AT_STOP, IMPORT, PREPARE, Trial, plan, sample
from services.chaos.reread import reread
from services.cli import exits, pace
from services.cli.output import Output, Refused
from services.cli.rest import PLACED, left_open
from services.runtime.crash import EXIT_CRASHED, POINTS
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.cli.supervisor import Supervisor, Watched
    from services.runtime.processes import Child

SPEED = 4_000.0  # a reservation's day passes in 22 s: some end while a service is down, and timers fire within a run
HIT_WITHIN_S = 40.0  # longer than those 22 s, for what passes only then
TRIES = 4
DRAIN_S = 180.0
_LOOK_EVERY_S = 0.05
_PROVIDER = ("--webhook-share", "0.6", "--pending-ms", "300")


@dataclass
class Told:
    """What a run has seen. `odd`: lives that ended in another way than at their point, or a command that failed."""

    hit: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    odd: list[str] = field(default_factory=list)
    orders: int = 0
    dead_letters: int = 0
    left: list[str] = field(default_factory=list)
    report: Any = None
    reread: Any = None


def crash_points(out: Output, *, only: list[str] | None, times: int, some: int | None, seed: int | None,
                 within: float | None, notes: Path | None, keep: Path | None) -> None:
    """The body of the command; see `services.cli.chaos`. `some`: only so many points, others with each seed."""
    from services.cli.supervisor import Supervisor, run

    base, began = Settings(), time.monotonic()
    seed = base.seed if seed is None else seed
    points = _chosen(only) or (sample(seed, some) if some else tuple(POINTS))
    folder = base.data_folder / "crash-points" if keep is None else keep.expanduser().absolute()
    settings = base.model_copy(update={"data_folder": folder, "speed": pace.chosen(base, SPEED), "provider": "http", "seed": seed,
                                       "partitions": 3, "parked_grace_s": 1.0})
    earlier = _read(notes, seed)
    done = sum((Counter(line["by_point"]) for line in earlier), Counter())
    chains = plan(points, times, seed, done)
    lines = list(earlier)
    if chains:
        empty(folder)
        trials = Trials(settings, chains, within, out)
        told = asyncio.run(run(Supervisor(settings, _table(settings), out.progress), trials.run))
        lines.append(_line(told, time.monotonic() - began))
        if notes is not None:
            with open(notes, "a") as file:
                file.write(json.dumps({"seed": seed} | lines[-1], default=str) + "\n")
        if told.report.clean and not (told.left or told.odd or lines[-1]["reread_changed"]) and keep is None:
            shutil.rmtree(folder)
    line = _sum(lines, points, times, seed)
    _say(out, line)
    wrong = line["violations"] or line["left"] or line["odd"] or line["reread_changed"]
    out.result(line, exits.VIOLATIONS if wrong or (within is None and line["not_hit"]) else exits.OK)


def _chosen(only: list[str] | None) -> tuple[str, ...]:
    if unknown := set(only or ()) - set(POINTS):
        names = ", ".join(sorted(unknown))
        raise Refused(f"no crash point is called {names}", "--point", f"There are: {', '.join(POINTS)}.")
    return tuple(only or ())


def _read(notes: Path | None, seed: int) -> list[dict[str, Any]]:
    """The lines of earlier runs of this set; only clean ones count their points."""
    if notes is None or not notes.exists():
        return []
    lines = [json.loads(text) for text in notes.read_text().splitlines()]
    if seeds := {line["seed"] for line in lines} - {seed}:
        raise Refused(f"the file is of a set with seed {min(seeds)}, not {seed}", str(notes), "Give that seed, or another file.")
    return lines


def _table(settings: Settings) -> tuple:
    """All programs but the operators' views, which no order depends on. Outsiders answer at once; the provider sends many
    webhooks."""
    from services.cli.table import VIEWS, programs

    more = {"services.simulators.world": ("--fast",), "services.simulators.provider": _PROVIDER}
    return tuple(replace(p, args=(*p.args, *more.get(p.module, ()))) for p in programs(settings)
                 if p.name not in VIEWS)


class Trials:
    """One run. `within_s`: no trial begins later than that."""

    def __init__(self, settings: Settings, chains: dict[str, list[Trial]], within_s: float | None, out: Output):
        self.settings, self.chains, self.within_s, self.out = settings, chains, within_s, out
        self.dice = random.Random(f"crash run:{settings.seed}")
        self.told = Told()
        self.total = sum(map(len, chains.values()))

    async def run(self, supervisor: Supervisor) -> Told:
        from services.auditor.audit import audit

        self.supervisor, told = supervisor, self.told
        self.late_at = time.monotonic() + self.within_s if self.within_s is not None else float("inf")
        async with Load(self.settings, supervisor.clock) as self.load:
            self.out.progress("stock the warehouses")
            await self.load.stock()
            async with asyncio.TaskGroup() as both:
                both.create_task(self.load.run())
                await asyncio.gather(*(self._commands(trials) if program in (PREPARE, IMPORT) else
                                       self._lives(supervisor.watched[program], deque(trials))
                                       for program, trials in self.chains.items()))
                self.load.stopping = True
        told.orders, told.dead_letters = self.load.placed, self.load.planted
        await self._drain()
        if not told.left:
            self.out.progress("read every topic again from its beginning")
            told.reread = await reread(self.settings, supervisor)
        self.out.progress("audit")
        told.report = await audit(self.settings, expected_dead_letters=told.dead_letters)
        return told

    @property
    def _late(self) -> bool:
        return time.monotonic() > self.late_at

    # -- programs of the supervisor -----------------------------------------------------------------------------------

    async def _lives(self, watched: Watched, queue: deque[Trial]) -> None:
        """One trial a life. The next one is laid out before this one can end, so that whoever revives it finds it."""
        now: Trial | None = None
        while now or (queue and not self._late):
            following = queue.popleft() if queue and not self._late else None
            if following:
                self.supervisor.crash[watched.name] = str(following)
            child, watched.failures = watched.child, 0
            hit = await self._life(watched, child, now)
            if now and hit:
                self._hit(now)
            elif now and now.tries < TRIES and not self._late:
                queue.append(replace(now, nth=1, tries=now.tries + 1))
            elif now and not self._late:
                self.told.missed[now.point] += 1
            now = following
            while watched.child is child:
                await asyncio.sleep(_LOOK_EVERY_S)

    async def _life(self, watched: Watched, child: Child, trial: Trial | None) -> bool:
        """Until the process has ended; whether at the trial's point. Without a trial it is killed at once."""
        if trial is None:
            child.signal(signal.SIGKILL)
        self.load.planting = trial is not None and trial.point == "relay.between_topics" or (
            self.load.planting and watched.name != "orders")
        if trial is not None and trial.point in AT_STOP:
            await self._stop_later(watched, child)
        end = time.monotonic() + HIT_WITHIN_S
        while child.alive:
            if time.monotonic() > end or self._late:
                child.signal(signal.SIGKILL)
            await asyncio.sleep(_LOOK_EVERY_S)
        code = child.popen.returncode
        if code not in (EXIT_CRASHED, -signal.SIGKILL):
            self.told.odd.append(f"{watched.name}, armed for {trial}, ended with {code}")
        return code == EXIT_CRASHED

    async def _stop_later(self, watched: Watched, child: Child) -> None:
        ready = self.supervisor.folder.ready(watched.name)
        while child.alive and not ready.exists():
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.sleep(self.dice.uniform(0.2, 1.0))
        child.signal(signal.SIGTERM)

    def _hit(self, trial: Trial) -> None:
        self.told.hit[trial.point] += 1
        self.out.progress(f"crash {self.told.hit.total()} of {self.total}: {trial.program} at {trial}")

    # -- commands -----------------------------------------------------------------------------------------------------

    async def _commands(self, trials: list[Trial]) -> None:
        """Each command ends at its point, and does all of its work when it is called again."""
        clients = Clients(self.settings, self.supervisor, self.load)
        for trial in trials:
            if self._late:
                return
            for nth in (trial.nth, *([1] if trial.nth > 1 else [])):
                trial = replace(trial, nth=nth)
                hit, trouble = await (clients.prepare(trial) if trial.program == PREPARE else clients.import_(trial))
                if trouble:
                    self.told.odd.append(f"{trial.program}, after {trial}: {trouble}")
                if hit:
                    self._hit(trial)
                    break
            else:
                self.told.missed[trial.point] += 1

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Until no service has anything open, at most DRAIN_S; what is left then is told, and seen by the auditor."""
        end = time.monotonic() + DRAIN_S
        while True:
            self.told.left = await left_open(self.settings)
            if missing := self.told.orders - await self._known():
                self.told.left.append(f"orders: {missing} not read yet")
            if not self.told.left or time.monotonic() > end:
                return
            self.out.progress("still open: " + "; ".join(self.told.left))
            await asyncio.sleep(1.0)

    async def _known(self) -> int:
        conn = await asyncpg.connect(self.settings.dsn("orders"))
        try:
            return await conn.fetchval(PLACED)
        finally:
            await conn.close()


# -- what is told -----------------------------------------------------------------------------------------------------

def _line(told: Told, seconds: float) -> dict[str, Any]:
    report = told.report.as_json()
    return {
        "crashes": told.hit.total(), "by_point": dict(sorted(told.hit.items())), "missed": dict(told.missed),
        "orders": told.orders, "events": report["events"], "violations": report["violations"], "left": told.left,
        "dead_letters": report["dead_letters"], "seconds": round(seconds, 1), "details": report["details"][:20],
        "reread": told.reread.records if told.reread else 0, "odd": told.odd,
        "reread_changed": told.reread.differences if told.reread else [],
    }  # fmt: skip


def _sum(lines: list[dict[str, Any]], points: tuple[str, ...], times: int, seed: int) -> dict[str, Any]:
    """All runs of a set as one: numbers are sums, lists one after the other."""
    hit = sum((Counter(line["by_point"]) for line in lines), Counter())
    total = {name: sum(line.get(name, 0) for line in lines)
             for name in ("crashes", "orders", "events", "violations", "dead_letters", "reread")}
    lists = {name: [what for line in lines for what in line.get(name, ())] for name in ("left", "odd", "details", "reread_changed")}
    return {
        "points": len(points), "times": times, "fewest": min(hit[p] for p in points), **total,
        "not_hit": [p for p in points if hit[p] < times], "runs": len(lines), "seed": seed,
        "seconds": round(sum(line["seconds"] for line in lines), 1), **lists, "by_point": {p: hit[p] for p in points},
    }  # fmt: skip


def _say(out: Output, line: dict[str, Any]) -> None:
    out.say(f"{line['crashes']} crashes at {line['points']} points, each at least {line['fewest']} of {line['times']} times, "
            f"seed {line['seed']}")
    out.say(f"{line['orders']} orders, {line['events']} events, {line['reread']} records read again without a change, "
            f"{line['seconds']} s in {line['runs']} runs")
    for name in ("not_hit", "left", "odd", "reread_changed"):
        for what in line[name]:
            out.say(f"{name.replace('_', ' ')}: {what}")
    for violation in line["details"]:
        out.say(f"rule {violation['rule']} ({violation['name']}) broken by order {violation['order'] or '-'}")
        for text in violation["evidence"]:
            out.say(f"    {text}")
    out.say(f"{line['violations']} violations" if line["violations"] else "no violation")
