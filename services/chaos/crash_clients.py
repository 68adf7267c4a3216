"""Commands that end at a crash point and are called again: `prepare` on empty databases, `import` of a small file."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import PROVIDER_RESULT
from services.chaos.crash_trials import Trial
from services.runtime import processes
from services.runtime.crash import EXIT_CRASHED, VARIABLE
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import partition_counts
from services.simulators.retail_csv import COLUMNS

if TYPE_CHECKING:
    from services.chaos.crash_load import Load
    from services.cli.supervisor import Supervisor

ENDS_WITHIN_S = 90.0
INVOICES = 3
_FIRST_DAY = datetime(2011, 3, 1, 9)
_TOPIC = PROVIDER_RESULT.dlq  # nobody writes to it in a run, so it may be missing for a moment


class Clients:
    """Each trial gives (whether the command ended at its point, what was wrong afterwards)."""

    def __init__(self, settings: Settings, supervisor: Supervisor, load: Load):
        self.settings, self.supervisor, self.load = settings, supervisor, load

    async def prepare(self, trial: Trial) -> tuple[bool, str]:
        """On databases that are new, and a broker that lacks a topic."""
        settings = self.settings
        prefix = f"crash_{trial.point.replace('.', '_')}_{trial.number}_{trial.nth}"
        names = {service: f"{prefix}_{service}" for service in SERVICES}
        dsns = {service: settings.dsn(service).rpartition("/")[0] + f"/{name}" for service, name in names.items()}
        for name in names.values():
            await self.supervisor.postgres.create_database(name)
        await self._without_topic()
        env = settings.child_env(TRADEWIND_BOOTSTRAP_SERVERS=settings.bootstrap,
                                 **{f"TRADEWIND_{service.upper()}_DSN": dsn for service, dsn in dsns.items()})
        first, second = await self._twice(trial, ["prepare", "--json"], env)
        trouble = "" if second == 0 else f"the second time it ended with {second}"
        for dsn in dsns.values():
            trouble = trouble or await self._unprepared(dsn)
        if _TOPIC not in await partition_counts(settings.bootstrap):
            trouble = trouble or f"topic {_TOPIC} is not there"
        await self._drop(names.values())
        return first == EXIT_CRASHED, trouble

    async def import_(self, trial: Trial) -> tuple[bool, str]:
        """Of a file of its own. That nothing is placed twice or lost is seen by the audit."""
        file = self.settings.data_folder / "files" / f"{trial.point}-{trial.number}-{trial.nth}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text(_csv(int.from_bytes(file.name.encode(), "big") % 10**9))
        env = self.settings.child_env()
        first, second = await self._twice(trial, ["import", str(file), "--no-wait", "--json"], env)
        self.load.placed += INVOICES
        return first == EXIT_CRASHED, "" if second == 0 else f"the second time it ended with {second}"

    async def _twice(self, trial: Trial, arguments: list[str], env: dict[str, str]) -> tuple[int, int]:
        """Exit codes of the armed call, and of the one after it."""
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        log = self.supervisor.folder.log(trial.program)
        given = {"log": log, "timeout_s": ENDS_WITHIN_S}
        first = await processes.run(trial.program, command, env=env | {VARIABLE: str(trial)}, **given)
        return first, await processes.run(trial.program, command, env=env, **given)

    async def _without_topic(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        await admin.start()
        try:
            await admin.delete_topics([_TOPIC])
        finally:
            await admin.close()
        end = time.monotonic() + ENDS_WITHIN_S
        while _TOPIC in await partition_counts(self.settings.bootstrap):
            assert time.monotonic() < end, f"the broker does not delete {_TOPIC}"
            await asyncio.sleep(0.1)

    async def _unprepared(self, dsn: str) -> str:
        conn = await asyncpg.connect(dsn)
        try:
            rows = await conn.fetchval("SELECT count(*) FROM partitions")
        finally:
            await conn.close()
        return "" if rows == self.settings.partitions else f"{dsn} has {rows} partitions"

    async def _drop(self, names) -> None:
        conn = await asyncpg.connect(self.settings.dsn("orders"))
        try:
            for name in names:
                await conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        finally:
            await conn.close()


def _csv(number: int) -> str:
    """INVOICES invoices that no other file has, and a cancellation of part of the first within a day of it."""
    at, first = _FIRST_DAY, number * 100
    lines = [",".join(COLUMNS)]
    for n in range(INVOICES):
        lines += [f"{first + n},{code},MADE FOR A CRASH {code},{4 + n},{at + timedelta(minutes=n):%Y-%m-%dT%H:%M:%S},2.55,"
                  f"{1_000 + number % 10_000},France" for code in ("85123A", "71053")]
    lines.append(f"C{first + 50},85123A,MADE FOR A CRASH 85123A,-1,{at + timedelta(hours=2):%Y-%m-%dT%H:%M:%S},2.55,"
                 f"{1_000 + number % 10_000},France")
    return "\n".join(lines) + "\n"
