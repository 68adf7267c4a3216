"""Small file systems under the servers' folders, to be filled to the last byte and freed again. Needs root and Linux."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.cli.output import Refused

SIZE_MB = {"postgres": 2_500, "kafka": 1_500}
_BALLAST = "ballast"
_BLOCK = 1 << 20


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Memory file systems at `folder`/postgres and `folder`/kafka, gone afterwards with all that is in them.

    Raises Refused where this user may not mount."""
    done: list[Path] = []
    try:
        for name, size in SIZE_MB.items():
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            run = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=755", "tradewind-chaos", str(place)],
                                 capture_output=True, text=True)
            if run.returncode:
                raise Refused(f"no small file system can be mounted: {run.stderr.strip()}", str(place),
                              "Run this campaign as root, or leave it out.")
            done.append(place)
        yield
    finally:
        for place in done:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(folder: Path) -> None:
    """Write until nothing more fits."""
    with open(folder / _BALLAST, "wb", buffering=0) as file:
        size = _BLOCK
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def free(folder: Path) -> None:
    (folder / _BALLAST).unlink(missing_ok=True)
