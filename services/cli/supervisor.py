"""Starts, watches and stops a whole Tradewind: Kafka, PostgreSQL, the services and the outside world.

Whatever ends it, nothing is left behind: it stops its children in reverse order when it is asked to end, and
when it is killed the kernel kills them (see `services.runtime.processes`); the next start clears the rest.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TypeVar

from services.cli import prepare
from services.cli.state import Folder, FolderRemoved, Lock, child_of, read_state, write_state
from services.cli.table import Program, programs, waves
from services.orders import rulebook
from services.runtime import clock as clocks
from services.runtime import crash, processes
from services.runtime.clock import Clock
from services.runtime.local import LocalKafka, LocalPostgres
from services.runtime.processes import Child, NotReady
from services.runtime.settings import Settings

T = TypeVar("T")
_LOOK_EVERY_S = 0.1
_READY_WITHIN_S = 60.0
_GRACE_S = 10.0
_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 5.0
_STEADY_S = 30.0  # whoever lived that long starts over with the shortest backoff


class Interrupted(Exception):
    """SIGINT, SIGTERM or SIGHUP arrived, and everything has been stopped."""


@dataclass
class Watched:
    """A process that is started again when it dies. Times are of the monotonic clock, in seconds."""

    name: str
    launch: Callable[[], Awaitable[Child]]
    child: Child
    since: float
    restarts: int = 0
    failures: int = 0  # in a row
    held: bool = False  # stays down until somebody lets it go
    reviving: asyncio.Task[None] | None = None

    @property
    def backoff_s(self) -> float:
        return min(_BACKOFF_S * 2**self.failures, _BACKOFF_MAX_S)


class Supervisor:
    """One running Tradewind. Use `run` below, which also handles signals and always stops it."""

    def __init__(
        self, settings: Settings, table: tuple[Program, ...] | None = None, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        """`table` None: all programs that are installed. `progress` is told each step, in words."""
        self.settings, self.progress = settings, progress
        self.table = programs(settings) if table is None else table
        self.folder = Folder(settings.data_folder)
        self.watched: dict[str, Watched] = {}
        self._halted: dict[str, Watched] = {}
        self.kafka: LocalKafka | None = None
        self.postgres: LocalPostgres | None = None
        self.clock: Clock | None = None
        self.crash = {p.name: os.environ[crash.VARIABLE] for p in self.table} if crash.VARIABLE in os.environ else {}
        self.phase = "starting"
        self.was_ready = False
        self._lock = Lock(self.folder)
        self._started = datetime.now(UTC)
        self._error: dict[str, str] | None = None
        self._hurry = False

    async def start(self) -> None:
        """Everything up and ready. Raises StartError; `stop` clears up whatever was started by then."""
        self._lock.take()
        rulebook.load(self.settings.rates_file, self.settings.tax_rounding)  # refuses here what orders could not start with
        await self._clear_leftovers()
        self.clock = clocks.resume(self.folder.clock, self.settings.speed)
        self._save()
        for program in self.table:
            if program.port:  # or it would be found taken only when everything else runs
                processes.require_port(getattr(self.settings, program.port), f"TRADEWIND_{program.port.upper()}")
        await self._start_servers()
        self.progress("databases and topics")
        await prepare.databases(self.settings, self.postgres)
        await prepare.topics(self.settings)
        self.progress("start " + ", ".join(program.name for program in self.table))
        for wave in waves(self.table):
            for program in wave:
                await self._watch_over(program.name, lambda program=program: self._spawn(program))
        await _together(self._wait_ready(program) for program in self.table)
        self.phase, self.was_ready = "ready", True
        self._save()

    async def watch(self) -> None:
        """Start again what dies, and keep the trade clock on disk. Never returns; raises FolderRemoved."""
        saved = 0.0
        while True:
            if self._lock.lost:
                raise FolderRemoved(
                    "the data folder was removed while Tradewind ran on it; everything is stopped", str(self.folder.data),
                    "Use `tradewind down` before removing it.",
                )  # fmt: skip
            for watched in self.watched.values():
                if watched.reviving is None and not watched.held and not watched.child.alive:
                    watched.reviving = asyncio.create_task(self._revive(watched))
            if time.monotonic() - saved >= clocks.SAVE_EVERY_S:
                self._on_disk("the trade clock", lambda: clocks.save(self.folder.clock, self.clock, stopped=False))
                saved = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def stop_programs(self, only: Iterable[str] | None = None) -> None:
        """Stop the programs (None: all) for good and let the servers go on: what they wrote can be read in peace."""
        mine = {program.name for program in self.table} & self.watched.keys() & set(self.watched if only is None else only)
        for name in mine:
            self.watched[name].held = True
        await _all(self._no_more(self.watched[name]) for name in mine)
        troubles = await _all(processes.stop(self.watched[name].child, grace_s=self._grace_s) for name in mine)
        for name in mine:
            del self.watched[name]
        if troubles:
            raise troubles[0]

    @staticmethod
    async def _no_more(watched: Watched) -> None:
        """End its revival, if it was dead just now."""
        if watched.reviving is not None:
            watched.reviving.cancel()
            await asyncio.gather(watched.reviving, return_exceptions=True)

    async def stop(self) -> None:
        """Stop the programs, last wave first, then the servers. Does nothing when nothing was started."""
        if self.clock is not None:  # the lock is ours
            self.phase = "failed" if self._error else "stopping"
            self._save()
        for watched in self.watched.values():
            if watched.reviving is not None:
                watched.reviving.cancel()
        troubles = await _all(w.reviving for w in self.watched.values() if w.reviving)
        for wave in reversed(waves(self.table)):
            going = [self.watched[p.name].child for p in wave if p.name in self.watched]
            troubles += await _all(processes.stop(child, grace_s=self._grace_s) for child in going)
        servers = [server for server in (self.kafka, self.postgres) if server is not None]
        troubles += await _all(server.stop(self._grace_s * 2) for server in servers)
        if self.clock is not None:
            if not self._lock.lost:
                clocks.save(self.folder.clock, self.clock, stopped=True)
            self.phase = "failed" if self._error else "stopped"
            self.watched.clear()
            self._save()
        self._lock.release()
        for trouble in troubles:
            if not isinstance(trouble, asyncio.CancelledError):
                raise trouble

    async def halt(self, name: str) -> None:
        """Stop a program, and leave it stopped until `resume`."""
        watched = self.watched[name]
        while watched.reviving is not None:
            await asyncio.sleep(_LOOK_EVERY_S)
        self._halted[name] = self.watched.pop(name)  # what nobody watches is not started again
        await processes.stop(watched.child, grace_s=self._grace_s)

    async def resume(self, name: str) -> None:
        """Start a halted program again, and wait until it is ready."""
        watched = self._halted.pop(name)
        watched.child, watched.since = await watched.launch(), time.monotonic()
        self.watched[name] = watched
        self._save()
        await self._wait_ready(next(program for program in self.table if program.name == name))

    def hurry(self) -> None:
        """Asked to stop a second time: no more patience. PostgreSQL replays its log at the next start."""
        self._hurry = True
        for watched in self.watched.values():
            watched.child.signal(signal.SIGQUIT if watched.name == "postgres" else signal.SIGKILL)

    def failed(self, error: processes.StartError) -> None:
        """Note why the start failed, for whoever reads the state."""
        self.phase = "failed"
        self._error = {"what": error.what, "where": error.where, "remedy": error.remedy}

    @property
    def _grace_s(self) -> float:
        return 0.1 if self._hurry else _GRACE_S

    async def _clear_leftovers(self) -> None:
        """End what a supervisor that was killed left; its children are usually dead or dying by themselves."""
        entries = (read_state(self.folder) or {}).get("processes", {})
        leftovers = [child_of(name, entry) for name, entry in entries.items() if not name.startswith(("kafka", "postgres"))]
        await asyncio.gather(*(processes.stop(child, grace_s=2) for child in leftovers if child.alive))
        await asyncio.gather(prepare.kafka(self.settings).stop(), prepare.postgres(self.settings).stop())

    async def _start_servers(self) -> None:
        starting = []
        if self.settings.needs_local_postgres:
            self.postgres = prepare.postgres(self.settings)
            starting.append(self.postgres.start())
        if self.settings.bootstrap_servers is None:
            self.kafka = self.make_kafka()
            starting.append(self.kafka.start())
        if starting:
            self.progress("start Kafka and PostgreSQL (the first time, some jars are fetched)")
        await _together(starting)
        if self.postgres is not None:
            self._note("postgres", self._revive_postgres, self.postgres.child)
        for node, child in self.kafka.children.items() if self.kafka else ():
            self._note(child.name, lambda node=node: self.kafka.start_node(node), child)
        self._save()

    def make_kafka(self) -> LocalKafka:
        """The local broker to start, when none is configured."""
        return prepare.kafka(self.settings)

    def settings_for(self, program: Program) -> Settings:
        """What one program is started with."""
        return self.settings

    async def _revive_postgres(self) -> Child:
        await self.postgres.start()
        return self.postgres.child

    async def _spawn(self, program: Program) -> Child:
        ready = self.folder.ready(program.name)
        ready.unlink(missing_ok=True)
        # For this one life: a process that ended at a crash point must not end there again and again.
        armed = {crash.VARIABLE: self.crash.pop(program.name)} if program.name in self.crash else {}
        env = self.settings_for(program).child_env(
            TRADEWIND_READY_FILE=str(ready), TRADEWIND_MEMBER=self._member(program), **armed, **self.clock.env())  # fmt: skip
        command = [sys.executable, "-m", program.module, *program.args]
        step_back = partial(os.nice, program.nice) if program.nice else None
        return processes.spawn(program.name, command, log=self.folder.log(program.name), env=env, before_exec=step_back)

    def _member(self, program: Program) -> str:
        """One name for all lives of a program, and of no other supervisor's: what was killed takes its place again."""
        where = zlib.crc32(str(self.folder.data).encode())
        return f"{program.name}-{socket.gethostname()[:40]}-{where:08x}"

    def _note(self, name: str, launch: Callable[[], Awaitable[Child]], child: Child) -> None:
        self.watched[name] = Watched(name, launch, child, time.monotonic())

    async def _watch_over(self, name: str, launch: Callable[[], Awaitable[Child]]) -> None:
        self._note(name, launch, await launch())
        self._save()

    async def _wait_ready(self, program: Program) -> None:
        """A program that dies before it was ever ready is not started again: its cause would not go away."""
        log, child = self.folder.log(program.name), self.watched[program.name].child
        end = time.monotonic() + _READY_WITHIN_S
        while not self.folder.ready(program.name).exists():
            if not child.alive and child.popen.returncode == crash.EXIT_CRASHED:
                child = self.watched[program.name].child = await self._spawn(program)
            if not child.alive:
                raise NotReady(f"{program.name} ended: {processes.tail(log)}", str(log), "Its log has the cause.")
            if time.monotonic() > end:
                raise NotReady(f"{program.name} is not ready after {_READY_WITHIN_S:g} s", str(log), "See its log.")
            await asyncio.sleep(0.02)

    async def _revive(self, watched: Watched) -> None:
        if time.monotonic() - watched.since > _STEADY_S:
            watched.failures = 0
        self.progress(f"{watched.name} (pid {watched.child.pid}) ended unexpectedly; it is started again")
        await asyncio.sleep(watched.backoff_s)
        watched.failures += 1
        try:
            watched.child = await watched.launch()
            watched.restarts += 1
        except (processes.StartError, OSError) as error:  # a full disk too: it is tried again until there is room
            self.progress(f"{watched.name} does not start: {error}")
        finally:
            watched.since, watched.reviving = time.monotonic(), None
        self._save()

    def _save(self) -> None:
        if self._lock.lost:
            return  # what is there now belongs to another
        seen = {
            name: w.child.as_dict() | {"restarts": w.restarts, "log": str(self._log_of(name))}
            for name, w in self.watched.items()
        }
        me = processes.itself("supervisor")
        state = {
            "phase": self.phase, "error": self._error, "version": version("tradewind"), "supervisor": me.as_dict(),
            "started": self._started.isoformat(), "addresses": prepare.addresses(self.settings), "processes": seen,
        }  # fmt: skip
        self._on_disk("the state", lambda: write_state(self.folder, state))

    def _on_disk(self, what: str, write: Callable[[], None]) -> None:
        """A full disk must not end a system that may go on when there is room again; the next time writes it anew."""
        try:
            write()
        except OSError as error:
            if not self.was_ready:
                raise
            self.progress(f"{what} cannot be saved: {error}")

    def _log_of(self, name: str):
        if name == "postgres":
            return self.postgres.log
        return self.kafka.log(int(name.split("-")[1])) if name.startswith("kafka-") else self.folder.log(name)


async def _together(steps: Iterable[Awaitable[object]]) -> None:
    """Do all of them. The first error ends the others, which clear up after themselves, and is raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all(steps: Iterable[Awaitable[object]]) -> list[BaseException]:
    """Do all of them to the end, whatever one of them raises; what was raised."""
    return [e for e in await asyncio.gather(*steps, return_exceptions=True) if isinstance(e, BaseException)]


async def run(supervisor: Supervisor, body: Callable[[Supervisor], Awaitable[T]] | None = None) -> T:
    """Start everything, run `body` beside the watch (None: until a signal), stop everything; what `body` returned.

    Raises Interrupted after a signal, StartError when something cannot start, and what `body` raises; by then
    everything has been stopped. A second signal shortens the stop.
    """
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(_work(supervisor, body))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, lambda: supervisor.hurry() if work.done() else work.cancel())
    try:
        return await work
    except asyncio.CancelledError:
        raise Interrupted from None
    except processes.StartError as error:
        supervisor.failed(error)
        raise
    finally:
        supervisor.progress("stop")
        await supervisor.stop()
        for number in numbers:
            loop.remove_signal_handler(number)


async def _work(supervisor: Supervisor, body: Callable[[Supervisor], Awaitable[T]] | None) -> T:
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    doing = asyncio.ensure_future(body(supervisor) if body else asyncio.Event().wait())
    try:
        await asyncio.wait({watching, doing}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # raises: it never returns
        return doing.result()
    finally:
        watching.cancel()
        doing.cancel()
        await asyncio.gather(watching, doing, return_exceptions=True)
