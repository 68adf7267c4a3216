"""Child processes that never outlive their reason: start on a leash, find again after a crash, stop in order.

Linux kills a leashed child when the thread that started it ends (PR_SET_PDEATHSIG), so that not even a
SIGKILL of the parent leaves an orphan. For that reason `spawn` belongs on the main thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: between fork and exec nothing may take a lock that another thread holds.
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StartError(Exception):
    """Something that must run cannot: `what` happened, `where`, and what to do about it (`remedy`)."""

    def __init__(self, what: str, where: str, remedy: str) -> None:
        super().__init__(f"{what} ({where}). {remedy}")
        self.what, self.where, self.remedy = what, where, remedy


class PortTaken(StartError):
    """Another process listens on a port we need."""


class FolderOfAnotherVersion(StartError):
    """A data folder was written by another version, or for another number of nodes or partitions."""


class ProgramMissing(StartError):
    """A program or download that we start is not there and cannot be fetched."""


class NotReady(StartError):
    """A process started but ended, or did not answer in time."""


@dataclass
class Child:
    """A process of ours. `created` tells it from a later process that was given the same pid."""

    name: str
    pid: int
    created: float
    popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        if self.popen is not None:
            return self.popen.poll() is None  # poll also reaps it
        try:
            process = psutil.Process(self.pid)
            # The kernel counts from boot, psutil turns it into a date: a corrected clock shifts it a little.
            if abs(process.create_time() - self.created) > 2:
                return False
            # A process whose first thread has ended looks like a zombie while its other threads still run.
            return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: int) -> None:
        """Send a signal; a process that is gone, or whose pid is another's by now, gets none."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "pid": self.pid, "created": self.created}


def itself(name: str) -> Child:
    """This process, as others may note and later find it."""
    return Child(name, os.getpid(), psutil.Process().create_time())


def leash(death_signal: int, parent: int) -> None:
    """Runs in the child before exec: tie its life to the parent's."""
    if LIBC is None:
        return
    LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:  # the parent died between fork and prctl
        os._exit(1)


def spawn(
    name: str,
    args: list[str],
    *,
    log: Path,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: int = signal.SIGKILL,
    before_exec=None,
) -> Child:
    """Start `args` leashed to this process, its output appended to `log`.

    It gets a session of its own: Ctrl-C in the terminal reaches the parent only, which then stops its
    children in order. `before_exec` runs in the child, before the leash (a change of user undoes it).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent = os.getpid()

    def prepare() -> None:
        if before_exec is not None:
            before_exec()
        leash(death_signal, parent)

    with open(log, "ab") as output:
        try:
            popen = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, cwd=cwd,
                start_new_session=True, preexec_fn=prepare,
            )  # fmt: skip
        except (FileNotFoundError, PermissionError) as error:
            raise ProgramMissing(f"{name} cannot be started: {error.strerror}", args[0], "Run `make .venv`.") from error
    return Child(name, popen.pid, psutil.Process(popen.pid).create_time(), popen)


async def run(name: str, args: list[str], *, log: Path, timeout_s: float = 60, **options) -> int:
    """Run a short program to its end; its exit code. Killed when it takes too long (-9) or when we are cancelled."""
    child = spawn(name, args, log=log, **options)
    try:
        await gone(child, timeout_s)
    finally:
        child.signal(signal.SIGKILL)
    return child.popen.wait()


async def stop(child: Child, *, first: int = signal.SIGTERM, grace_s: float = 15.0, then: int = signal.SIGKILL) -> bool:
    """End a child: signal `first`, after `grace_s` seconds `then`, after 5 more SIGKILL. True if `first` sufficed."""
    for number, wait_s in ((first, grace_s), (then, 5.0), (signal.SIGKILL, 5.0)):
        child.signal(number)
        if await gone(child, wait_s):
            return number == first
    raise NotReady(f"{child.name} does not end on SIGKILL", f"pid {child.pid}", "It hangs in the kernel; look at the disk.")


async def gone(child: Child, timeout_s: float) -> bool:
    """Wait until the child has ended, at most `timeout_s`; whether it has."""
    end = time.monotonic() + timeout_s
    while child.alive:
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(0.02)
    return True


def write_json(path: Path, value: object) -> None:
    """Replace a file in one step: a reader, or a start after a crash, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value, indent=1))
    draft.replace(path)


def read_json(path: Path) -> dict | None:
    """The object in a file; None when there is no file or it is not an object."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def save_pid(path: Path, child: Child, **more: object) -> None:
    """Note a process that was just started. Where that cannot be written it is ended: nobody would find it again."""
    try:
        write_json(path, child.as_dict() | more)
    except OSError:
        child.signal(signal.SIGKILL)
        raise


def running(path: Path) -> tuple[Child, dict] | None:
    """The process a pid file tells of, with the rest of the file, if it still runs."""
    stored = read_json(path)
    if stored is None:
        return None
    child = Child(stored["name"], stored["pid"], stored["created"])
    return (child, stored) if child.alive else None


def listener_of(port: int) -> str:
    """Who listens on a TCP port of this machine, as far as we may know: `name (pid 1)`."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return "a process of another user"


def port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def require_port(port: int, setting: str) -> None:
    """Raises PortTaken, which names the process that has the port and the setting that chooses another."""
    if not port_free(port):
        raise PortTaken(
            f"port {port} is taken by {listener_of(port)}", f"127.0.0.1:{port}",
            f"Stop that process or choose another port with {setting}.",
        )  # fmt: skip


def free_port(count: int = 1) -> int:
    """The first of `count` adjacent ports that are free now. For tests; another process may be quicker.

    Below the range from which the kernel gives ports to outgoing connections: there one is taken at any moment.
    """
    for _ in range(200):
        first = random.SystemRandom().randrange(20_000, 32_000)
        if all(port_free(first + n) for n in range(count)):
            return first
    raise PortTaken(f"no {count} adjacent ports are free", "127.0.0.1", "Stop some of the processes that listen.")


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            return " | ".join(file.read().decode(errors="replace").strip().splitlines()[-lines:])
    except FileNotFoundError:
        return "no log"
