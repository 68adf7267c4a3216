"""A Faust worker that writes down what it handled, for test_faust_loss.py. Written as Faust's documentation shows it.

`python -m tests.lossy_faust worker`, with LOSSY_BOOTSTRAP, LOSSY_TOPIC, LOSSY_GROUP, LOSSY_MODE (one of the functions below),
LOSSY_TROUBLE (the text of the event in trouble), LOSSY_BATCH (events a batch), LOSSY_HANDLED (a file, a line
for each text handled) and LOSSY_MARK (a file: the trouble has happened).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import faust

TROUBLE, BATCH_MAX = os.environ["LOSSY_TROUBLE"], int(os.environ["LOSSY_BATCH"])

_MARK, _HANDLED = Path(os.environ["LOSSY_MARK"]), Path(os.environ["LOSSY_HANDLED"])
app = faust.App(
    os.environ["LOSSY_GROUP"], broker=f"kafka://{os.environ['LOSSY_BOOTSTRAP']}", store="memory://",
    datadir=_MARK.parent / "faust", topic_partitions=1, topic_allow_declare=False, topic_disable_leader=True,
    consumer_auto_offset_reset="earliest", broker_commit_interval=0.2, broker_session_timeout=6.0,
    broker_heartbeat_interval=1.0, stream_wait_empty=False, web_enabled=False,
    worker_redirect_stdouts=False,
)  # fmt: skip
source = app.topic(os.environ["LOSSY_TOPIC"], value_serializer="json")


def first_time(text: str) -> bool:
    """Whether the trouble is now; it happens once, as a database that is away for a moment."""
    if text != TROUBLE or _MARK.exists():
        return False
    _MARK.touch()
    return True


def handled(text: str) -> None:
    with open(_HANDLED, "a") as file:
        file.write(text + "\n")


async def raising(stream: faust.StreamT) -> None:
    """The handler of one event raises; Faust starts the agent again."""
    async for value in stream:
        if first_time(value["text"]):
            raise ConnectionError("the database is away")
        handled(value["text"])


async def raising_in_a_batch(stream: faust.StreamT) -> None:
    """The same, with the events taken in batches: nothing of the batch is saved before all of it is."""
    async for values in stream.take(BATCH_MAX, within=0.2):
        if any(first_time(value["text"]) for value in values):
            raise ConnectionError("the database is away")
        for value in values:
            handled(value["text"])


async def killed(stream: faust.StreamT) -> None:
    """One event takes long, another handler goes on beside it, and the process is killed."""
    async for value in stream:
        if first_time(value["text"]):
            await asyncio.Event().wait()
        handled(value["text"])


_MODE = os.environ["LOSSY_MODE"]
app.agent(source, concurrency=2 if _MODE == "killed" else 1)({f.__name__: f for f in (raising, raising_in_a_batch, killed)}[_MODE])

if __name__ == "__main__":
    app.main()
