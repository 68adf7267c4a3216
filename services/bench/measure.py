"""What is measured from outside: processor time and memory of each process, and delays from the records' own timestamps."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.topics import INTAKE, PAYMENT, SHIPMENT

MB = 1_000_000
SAMPLE_MAX = 50_000  # orders whose delays are looked up


@dataclass(frozen=True)
class Snapshot:
    """At `at` (monotonic seconds; `epoch_ms` is the same moment): processor seconds used so far, by process and by all of
    the machine, and `finished` orders."""

    at: float
    epoch_ms: int
    finished: int
    cpu_s: dict[str, float]
    machine_s: float


class Meter:
    """Reads the processes' accounts. A process that was replaced since would distort every figure: see `same`."""

    def __init__(self, pids: Mapping[str, int]):
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._processes)

    def snapshot(self, finished: int) -> Snapshot:
        cpu = {name: _cpu_s(process) for name, process in self._processes.items()}
        times = psutil.cpu_times()
        return Snapshot(time.monotonic(), int(time.time() * 1000), finished, cpu, sum(times) - times.idle - times.iowait
                        - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0))

    def rss_mb(self) -> dict[str, float]:
        """Resident megabytes by process; of a family, pages that several of them share count once where the system tells."""
        return {name: round(_memory(process) / MB, 1) for name, process in self._processes.items()}


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    """User and system time of a process, its living children, and those that have ended (PostgreSQL's sessions come and go)."""
    if process.pid == os.getpid():
        used = process.cpu_times()  # ours are the others
        return used.user + used.system
    total = 0.0
    for member in _family(process):
        try:
            used = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def _memory(process: psutil.Process) -> int:
    if process.pid == os.getpid():
        return process.memory_info().rss
    members, total = _family(process), 0
    for member in members:
        try:
            total += member.memory_info().rss if len(members) == 1 else member.memory_full_info().pss
        except (psutil.AccessDenied, AttributeError):
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def cost(first: Snapshot, last: Snapshot) -> dict:
    """Between two snapshots: orders a second, processor µs an order by process and in total, and how many cores that kept
    busy. `cores_others` is what the rest of the machine took meanwhile: with much of it the figures mean little."""
    seconds, orders = last.at - first.at, last.finished - first.finished
    used = {name: last.cpu_s[name] - first.cpu_s[name] for name in last.cpu_s}
    if not orders or not seconds:
        return {"lifecycles_per_s": 0.0, "cpu_us_per_order": {}, "seconds": round(seconds, 2), "orders": orders}
    total = sum(used.values())
    micros = {name: round(s / orders * 1e6) for name, s in used.items()} | {"total": round(total / orders * 1e6)}
    return {
        "lifecycles_per_s": round(orders / seconds, 1), "cpu_us_per_order": micros, "seconds": round(seconds, 2),
        "orders": orders, "cores_used": round(total / seconds, 2),
        "cores_others": round(max(0.0, last.machine_s - first.machine_s - total) / seconds, 2),
    }


# -- delays -----------------------------------------------------------------------------------------------------------


async def delays(bootstrap: str, partitions: int, since_ms: int, until_ms: int, orders: int) -> dict:
    """Seconds from an order's placing to its last request for fulfilment and to its last settlement, p50 and p99.

    Of the orders placed between two moments (epoch ms), read afterwards from the records' timestamps, which are the
    moments at which producers wrote them: so the measuring itself costs the run nothing. When there are many orders, of
    some partitions only (an order's records all lie in one), and of the last ones only.
    """
    sample = max(1, min(partitions, round(partitions * SAMPLE_MAX / max(orders, 1))))
    share = min(1.0, SAMPLE_MAX * partitions / (sample * max(orders, 1)))
    since_ms = round(until_ms - (until_ms - since_ms) * share)
    placed: dict[bytes, int] = {}
    requested: dict[bytes, int] = {}
    settled: dict[bytes, int] = {}
    wanted = ((INTAKE.name, b"PlaceOrder", placed), (SHIPMENT.name, b"FulfilmentRequested", requested),
              (PAYMENT.name, b"PaymentSettled", settled))
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, max_partition_fetch_bytes=4 << 20)
    await consumer.start()
    try:
        for topic, name, found in wanted:
            await _moments(consumer, [TopicPartition(topic, p) for p in range(sample)], name, since_ms, found)
    finally:
        await consumer.stop()
    mine = {key: at for key, at in placed.items() if since_ms <= at <= until_ms}
    return {what: _percentiles([(found[key] - at) / 1000 for key, at in mine.items() if key in found])
            for what, found in (("fulfilment_requested", requested), ("settled", settled))}


async def _moments(consumer: AIOKafkaConsumer, tps: list[TopicPartition], name: bytes, since_ms: int,
                   found: dict[bytes, int]) -> None:
    """The timestamp of each key's last record of type `name` written since `since_ms`."""
    starts = await consumer.offsets_for_times({tp: since_ms for tp in tps})
    ends = await consumer.end_offsets(tps)
    tps = [tp for tp in tps if starts[tp] is not None]
    consumer.assign(tps)
    for tp in tps:
        consumer.seek(tp, starts[tp].offset)
    left = set(tps)
    while left:
        for tp, records in (await consumer.getmany(*left, timeout_ms=500)).items():
            for record in records:
                if ("ce_type", name) in record.headers:
                    found[record.key] = record.timestamp
            if records[-1].offset + 1 >= ends[tp]:
                left.discard(tp)


def _percentiles(values: list[float]) -> dict:
    values.sort()

    def at(share: float) -> float | None:
        return round(values[min(len(values) - 1, int(len(values) * share))], 3) if values else None

    return {"p50_s": at(0.50), "p99_s": at(0.99), "orders": len(values)}
