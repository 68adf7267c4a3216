"""The views behind `tradewind status --watch`: a Faust app that turns our three event topics into tables.

    python -m services.console.views worker     (the same as `faust -A services.console.views worker`)
    python -m services.console.rebuild          forget all; the next worker reads the topics from their beginning

http://127.0.0.1:<TRADEWIND_CONSOLE_PORT>/views/funnel and /views/rates[?at=<seconds since 1970>] answer
with JSON.

Faust acknowledges what failed and may repeat what succeeded, and it saves a table and an offset at different moments. So
the tables are approximate while it runs, say so (`exact`, `missed`, `resumed`), and are exact after a rebuild: then every
record is counted once from offset 0 into empty tables. No decision about an order or money may rest on them.

One worker alone: the sums are one row. The store is memory:// with changelog topics and not RocksDB: what is kept is
bounded (MAX_OPEN, MAX_ENDED; 350 bytes an order), a changelog of that size is read back in seconds, and native code would be one
more thing to install and its files one more to lose.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import faust
from aiokafka.partitioner import murmur2
from faust.types import TP
from faust.web import Request, Response, View

from services.console import topics
from services.console.funnel import OUTCOMES, SOURCES, STAGES, Row, Totals, fact_of, percentile_s
from services.runtime.settings import Settings

MAX_OPEN, MAX_ENDED = 500_000, 100_000
BATCH_MAX, BATCH_S = 2_000, 0.5
_TOTALS = b"totals"
# Faust warns whenever a batch writes more than 100 rows, and then waits until they are sent: as it should.
logging.getLogger("faust.transport.producer").setLevel(logging.ERROR)

settings = Settings()


class Table(faust.Table):
    """A table that knows where a key belongs. Faust takes the partition of "the current event", of which a batch has
    many, or asks its producer, which crashes the agent until it has sent something to that changelog (ran)."""

    def partition_for_key(self, key: Any) -> int:
        # An order's row lies in the partition its events are in; windows, whose keys are tuples, in the first.
        return (murmur2(key) & 0x7FFFFFFF) % settings.partitions if isinstance(key, bytes) else 0


app = faust.App(
    topics.APP, broker=[f"kafka://{address}" for address in settings.bootstrap.split(",")], store="memory://",
    datadir=settings.data_folder / "console-views", topic_partitions=settings.partitions, topic_allow_declare=False,
    topic_disable_leader=True, consumer_auto_offset_reset="earliest", stream_wait_empty=False, broker_session_timeout=10.0,
    broker_heartbeat_interval=2.0, broker_request_timeout=20.0, web_enabled=True, web_bind="127.0.0.1", web_host="127.0.0.1",
    web_port=settings.console_port, web_in_thread=False, worker_redirect_stdouts=False,
    Table=Table,
)  # fmt: skip
source = app.topic(*SOURCES, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", allow_empty=True)
orders = app.Table(topics.ORDERS, key_type=bytes, value_type=bytes)
saved = app.Table(topics.TOTALS, key_type=bytes)
rates = {
    width: app.Table(topics.rates(width), default=int).tumbling(width, expires=keep)
    for width, keep in topics.WINDOWS.items()
}


class Views:
    """The tables and what is derived from them when a worker starts."""

    def __init__(self) -> None:
        self.totals = Totals.from_dict(saved[_TOTALS]) if _TOTALS in saved else Totals()
        self.totals.resumed += _TOTALS in saved
        # The least recently touched comes first, and is forgotten first.
        self.open: OrderedDict[bytes, None] = OrderedDict()
        self.ended: OrderedDict[bytes, None] = OrderedDict()
        rows = sorted((max(row.times), key, row.outcome) for key, row in ((k, Row.unpack(v)) for k, v in orders.items()))
        for _, key, outcome in rows:
            (self.ended if outcome else self.open)[key] = None
        self.record_time = 0.0

    def take(self, events: list[faust.EventT]) -> None:
        """Count a batch; every order, sum and window is written once, however many events touched it."""
        touched: dict[bytes, Row] = {}
        counted: Counter[tuple[str, int]] = Counter()
        for event in events:
            message = event.message
            if not self.totals.is_new(message.topic, message.partition, message.offset):
                continue
            key = message.key or b""
            row = touched.get(key)
            if row is None and (stored := orders.get(key)):
                row = Row.unpack(stored)
            try:
                fact = fact_of(message.topic, message.headers, message.value)
                if fact is None:
                    continue
                row, happened = self.totals.apply(row, fact)
            except ValueError:
                self.totals.unreadable += 1
                continue
            if row is not None:
                touched[key] = row
            if happened:
                counted[happened, int(message.timestamp)] += 1
            self.record_time = max(self.record_time, message.timestamp)
        for key, row in touched.items():
            orders[key] = row.pack()
            self._remember(key, row)
        self._count_rates(counted)
        self._forget()
        saved[_TOTALS] = self.totals.as_dict()

    def _remember(self, key: bytes, row: Row) -> None:
        if row.outcome:
            self.open.pop(key, None)
        group = self.ended if row.outcome else self.open
        group[key] = None
        group.move_to_end(key)

    def _forget(self) -> None:
        while len(self.ended) > MAX_ENDED:
            del orders[self.ended.popitem(last=False)[0]]
        while len(self.open) > MAX_OPEN:
            self.totals.forgotten += 1
            del orders[self.open.popitem(last=False)[0]]

    def _count_rates(self, counted: Counter[tuple[str, int]]) -> None:
        for width, table in rates.items():
            sums: Counter[tuple[str, int]] = Counter()
            for (name, second), count in counted.items():
                sums[name, second - second % width] += count
            for (name, start), count in sums.items():
                window = table.table.window.current(start)
                table[name][window] = table[name][window] + count


views: Views | None = None


def current() -> Views:
    """The views over the tables as they are; made when they are first needed after a recovery."""
    global views
    if views is None:
        views = Views()
    return views


@saved.on_recover
async def _recovered() -> None:
    # Orders may be read back after this table: what is derived from both is made at the first use, not here.
    global views
    views = None


@app.agent(source)
async def count(stream: faust.StreamT[bytes]) -> None:
    global views
    async for events in stream.take_events(BATCH_MAX, within=BATCH_S):
        try:
            current().take(events)
        except BaseException:  # also a cancellation
            # Faust goes on with the next batch. What is half counted is forgotten; the tables show what is missing.
            views = None
            raise


@app.task
async def ready() -> None:
    """Runs when the tables are read back."""
    if path := os.environ.get("TRADEWIND_READY_FILE"):
        Path(path).touch()


@app.page("/views/funnel")
async def funnel_page(view: View, request: Request) -> Response:
    return view.json(funnel())


@app.page("/views/rates")
async def rates_page(view: View, request: Request) -> Response:
    try:
        at = float(request.query["at"]) if "at" in request.query else None
    except ValueError:
        return view.json({"error": "at is not a number of seconds since 1970"}, status=400)
    return view.json(rates_at(at))


def funnel() -> dict[str, Any]:
    """Orders by stage (`reached`: ever, `now`: at this moment), dwell in seconds of trade time, money in minor units."""
    totals = current().totals
    stages = [{"stage": s, "reached": totals.reached[s], "now": totals.now[s], **_dwell(totals, s)} for s in STAGES]
    return {
        "stages": stages, "ended": {outcome: totals.now[outcome] for outcome in OUTCOMES[1:]},
        "exits": dict(sorted(totals.exits.items())), "held": {c: n for c, n in sorted(totals.held.items()) if n},
        "events": totals.events, "behind": behind(), "exact": totals.exact, "missed": totals.missed,
        "resumed": totals.resumed, "forgotten": totals.forgotten, "unreadable": totals.unreadable,
        "repeated": totals.repeated, "late": totals.late,
    }  # fmt: skip


def _dwell(totals: Totals, stage: str) -> dict[str, float | None]:
    buckets = totals.dwell.get(stage, Counter())
    return {"p50_s": percentile_s(buckets, 0.5), "p95_s": percentile_s(buckets, 0.95)}


def behind() -> int | None:
    """How many records of the topics are not counted yet, as far as the last fetches told; None before the first."""
    positions, left = current().totals.positions, 0
    for topic in SOURCES:
        for partition in range(settings.partitions):
            end = app.consumer.highwater(TP(topic, partition))
            if end is None:
                return None
            left += max(0, end - positions.get(f"{topic}:{partition}", 0))
    return left


def rates_at(at: float | None = None) -> dict[str, Any]:
    """Orders a second by window: the last whole one before `at`, in seconds since 1970 of the records' own time.

    None: before now, or before the last record while records wait.
    """
    seen = current()
    if at is None:
        at = seen.record_time if behind() else time.time()
    names = [*(s for s in STAGES if seen.totals.reached[s]), *sorted(seen.totals.exits)]
    found = {}
    for width, table in rates.items():
        window = table.table.window.current(at - width)
        found[f"{width}s"] = {name: table[name][window] / width for name in names}
    return {"at": at, "per_second": found}


if __name__ == "__main__":
    app.main()
