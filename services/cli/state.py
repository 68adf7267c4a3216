"""What a running supervisor leaves in the data folder for other commands: a lock, the state, ready marks, logs."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.runtime.processes import Child, StartError, read_json, write_json


class AlreadyRunning(StartError):
    """Another supervisor runs on the same data folder."""


class FolderUnusable(StartError):
    """The data folder cannot be made or written."""


class FolderRemoved(StartError):
    """The data folder of a running supervisor was removed; another may already run on a new one."""


class Folder:
    """The places in a data folder. Nothing is created before something is written."""

    def __init__(self, data: Path) -> None:
        self.data, self.run, self.logs = data, data / "run", data / "logs"
        self.state, self.clock, self.lock = self.run / "state.json", data / "clock.json", self.run / "lock"
        self.kafka, self.postgres = data / "kafka", data / "postgres"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def ready(self, name: str) -> Path:
        return self.run / f"{name}.ready"


class Lock:
    """Held while a supervisor runs; the kernel lets go of it however that ends."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._fd = folder, -1

    def take(self) -> None:
        """Raises AlreadyRunning, which names the process, or FolderUnusable."""
        try:
            self._folder.run.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise FolderUnusable(
                f"the data folder cannot be used: {error.strerror}", str(self._folder.data),
                "Choose another with TRADEWIND_DATA_FOLDER.") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode() or "starting"
            os.close(fd)
            raise AlreadyRunning(
                f"Tradewind already runs on this data folder (pid {holder})", str(self._folder.data),
                "Stop it with `tradewind down`, or choose another folder with TRADEWIND_DATA_FOLDER.",
            ) from None  # fmt: skip
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    @property
    def lost(self) -> bool:
        """Whether the lock is held on a file that is no longer there: somebody removed the data folder."""
        try:
            return self._fd >= 0 and os.stat(self._folder.lock).st_ino != os.fstat(self._fd).st_ino
        except FileNotFoundError:
            return True

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write_state(folder: Folder, state: dict[str, Any]) -> None:
    write_json(folder.state, state | {"written": datetime.now(UTC).isoformat()})


def read_state(folder: Folder) -> dict[str, Any] | None:
    return read_json(folder.state)


def supervisor_of(state: dict[str, Any] | None) -> Child | None:
    """The supervisor a state tells of, if it still runs."""
    child = child_of("supervisor", state["supervisor"]) if state else None
    return child if child is not None and child.alive else None


def child_of(name: str, entry: dict[str, Any]) -> Child:
    return Child(name, entry["pid"], entry["created"])
