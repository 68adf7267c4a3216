"""Kafka's programs: a pinned list of jars, fetched once into the cache, each checked against its SHA-256.

`python -m services.runtime.kafka_jars` resolves the version below anew and rewrites the list.
The jars lie in <cache folder>/kafka-<version>/ (see `Settings.cache_folder`); from then on no network is needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from jgo.maven import MavenContext

from services.runtime.processes import ProgramMissing

KAFKA_VERSION = "4.3.0"
_ROOT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
# The broker logs through slf4j 1.7 and brings no writer for it; without one its fatal errors are silent.
# Added by itself: resolved together with the broker, its managed versions replace the broker's own.
_LOG_WRITER = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
_LIST = Path(__file__).with_name("kafka_jars.lock")


def jars(cache: Path) -> list[Path]:
    """The jars in the order of the list, fetched if missing. Blocking; several processes may call it at once.

    Raises ProgramMissing when one can be had neither from the cache nor from Maven Central.
    """
    wanted, folder = _pinned(), cache / f"kafka-{KAFKA_VERSION}"
    paths = {name: folder / _file_name(name) for name in wanted}
    if not all(path.exists() for path in paths.values()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ProgramMissing(
                f"the cache folder cannot be made: {error.strerror}", str(folder), "Choose one with TRADEWIND_CACHE_FOLDER."
            ) from error
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [name for name, path in paths.items() if not path.exists()]
            with ThreadPoolExecutor(12) as pool:
                list(pool.map(lambda name: _fetch(name, wanted[name], paths[name]), missing))
    return list(paths.values())


def cached(cache: Path) -> tuple[int, int]:
    """How many of the jars are there, and how many there must be."""
    names = [cache / f"kafka-{KAFKA_VERSION}" / _file_name(name) for name in _pinned()]
    return sum(name.exists() for name in names), len(names)


def _pinned() -> dict[str, str]:
    """Coordinate → SHA-256."""
    return dict(line.split() for line in _LIST.read_text().splitlines() if line and not line.startswith("#"))


def _file_name(coordinate: str) -> str:
    _, artifact, version = coordinate.split(":")
    return f"{artifact}-{version}.jar"


def _fetch(coordinate: str, sha256: str, target: Path) -> None:
    """One jar into a folder of its own, then moved in place: a half file is never taken for a whole one."""
    error: Exception | None = None
    for _ in range(3):
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            try:
                # jgo's defaults look into ~/.m2 too; only a download into the draft folder is checked below.
                context = MavenContext(repo_cache=Path(draft), local_repos=[], timeout=60)
                path = context.create_dependency(coordinate).artifact.resolve()
            except (requests.RequestException, RuntimeError, OSError) as failed:
                error = failed
                continue
            if hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
                shutil.move(path, target)
                return
            error = ValueError("its SHA-256 is not the pinned one")
    raise ProgramMissing(
        f"{coordinate} could not be fetched: {error}", str(target),
        "Check the way to Maven Central, or copy the folder from a machine that has it.",
    )  # fmt: skip


def _pin() -> None:
    """Resolve the broker and everything it needs, and write the list."""
    with tempfile.TemporaryDirectory() as draft:
        context = MavenContext(repo_cache=Path(draft), timeout=60)
        found, needed = context.resolver.resolve([context.create_dependency(_ROOT)])
        lines = set()
        for item in (*found, *needed, context.create_dependency(_LOG_WRITER)):
            artifact = getattr(item, "artifact", item)
            digest = hashlib.sha256(artifact.resolve().read_bytes()).hexdigest()
            lines.add(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {digest}")
    head = "# Written by `python -m services.runtime.kafka_jars`: coordinate and SHA-256 of each jar.\n"
    _LIST.write_text(head + "\n".join(sorted(lines)) + "\n")


if __name__ == "__main__":
    _pin()
