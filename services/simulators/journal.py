"""An append-only file of JSON lines: what one outsider says it did, for the auditor.

It is written before the message is sent, so every message on a topic has its line; after a kill a line may lack its
message, and a message that is sent again has its line again.
"""

from __future__ import annotations

import os
from pathlib import Path


class Journal:
    """Lines are bytes without their newline. Each `write` hands all of them to the system before it returns."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._cut_half_line()

    def _cut_half_line(self) -> None:
        """A writer that was killed may have left half a line; its message was not sent, and readers expect whole ones."""
        end = os.fstat(self._file).st_size
        while end:
            start = max(0, end - 65_536)
            newline = os.pread(self._file, end - start, start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        os.ftruncate(self._file, end)

    def write(self, lines: list[bytes]) -> None:
        data = memoryview(b"\n".join(lines) + b"\n" if lines else b"")
        while data:
            data = data[os.write(self._file, data):]

    def close(self) -> None:
        os.close(self._file)
