"""How fast the trade clock may run here.

On a clock that runs ahead, our own work takes trade time too. A deadline must not pass while what would meet it is still
on its way, so the slowest of a hundred orders may use up a tenth of the shortest deadline: `permitted`. How long an order
takes on this machine is measured once (`services.bench.probe`) and noted in the data folder, with its date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import floor
from os import cpu_count
from pathlib import Path

from schemas.lifecycle import deadlines
from services.runtime.processes import StartError, read_json, write_json
from services.runtime.settings import Settings

SHARE = 10
NO_DEADLINE = frozenset({"backorder_retry"})  # tries again; nothing ends when it comes early
ASSUMED_P99_S = 2.1  # up to the speed that this permits nothing is measured
ENOUGH = 2 / 3  # of the speed that is wanted: a demo at 20,000 lasts 20 s longer than at 30,000, and a measurement 24
AGAIN_AFTER_S = 60.0  # a figure that permits too little is taken anew: somebody else may have been busy


class TooFast(StartError):
    """The trade clock would outrun the services."""


@dataclass(frozen=True)
class Latency:
    """Real seconds from an order's placing until the warehouse is asked to pack: all that is ours to do, nobody outside.
    `place`: what it was measured on; elsewhere it says nothing."""

    p50_s: float
    p99_s: float
    orders: int
    at: str
    place: str

    @property
    def permitted(self) -> int:
        """The highest speed, rounded down to a hundred."""
        return permitted(self.p99_s)

    @property
    def age_s(self) -> float:
        return (datetime.now(UTC) - datetime.fromisoformat(self.at)).total_seconds()


def shortest_deadline() -> tuple[str, int]:
    """Its name, and how many seconds of trade time it has."""
    return min(((name, s) for name, s in deadlines().items() if name not in NO_DEADLINE), key=lambda each: each[1])


def permitted(p99_s: float) -> int:
    """The highest speed at which `p99_s` is a tenth of the shortest deadline."""
    return floor(shortest_deadline()[1] / SHARE / p99_s / 100) * 100


def chosen(settings: Settings, wanted: float, progress: Callable[[str], None] = lambda _: None) -> float:
    """`wanted`, or the highest speed that is permitted here. May measure, which takes some 15 s, unless what was noted permits
    most of it: who takes what he gets would wait longer for a new figure than a better one could save him."""
    if wanted <= permitted(ASSUMED_P99_S):
        return wanted
    return min(wanted, latency(settings, wanted * ENOUGH, progress).permitted)


def require(settings: Settings, progress: Callable[[str], None]) -> None:
    """Raises TooFast when the settings' speed is above what is permitted here. May measure, which takes some 15 s."""
    if settings.speed <= permitted(ASSUMED_P99_S):
        return
    found = latency(settings, settings.speed, progress)
    if settings.speed > found.permitted:
        name, seconds = shortest_deadline()
        raise TooFast(
            f"the trade clock may run {found.permitted:,} times as fast as real time here, not {settings.speed:,.0f} times: "
            f"the slowest of a hundred orders needs {found.p99_s:.2f} s of our own work (p99 of {found.orders}, measured "
            f"{found.at[:16].replace('T', ' ')} UTC), and that may be a tenth of the shortest deadline ({name}, "
            f"{seconds // 3600} h of trade time) at most",
            "TRADEWIND_SPEED", f"Set TRADEWIND_SPEED={found.permitted} or less, or end what else keeps this machine busy and "
            "try again in a minute.")


def latency(settings: Settings, wanted: float, progress: Callable[[str], None]) -> Latency:
    """The figure noted for this machine and these settings; measured when there is none, or it permits less than `wanted`
    and is not of this minute. Raises StartError when nothing can be started here."""
    found = noted(settings)
    if found is None or found.permitted < wanted and found.age_s > AGAIN_AFTER_S:
        from services.bench.probe import probe

        progress("measure how long an order takes here, once")
        figures = probe(settings, progress)
        now = datetime.now(UTC).isoformat()
        found = Latency(figures["p50_s"], figures["p99_s"], figures["orders"], now, _place(settings))
        write_json(_note(settings), (read_json(_note(settings)) or {}) | {found.place: asdict(found)})
    return found


def noted(settings: Settings) -> Latency | None:
    stored = (read_json(_note(settings)) or {}).get(_place(settings))
    return Latency(**stored) if stored else None


def _note(settings: Settings) -> Path:
    return settings.data_folder / "latency.json"


def _place(settings: Settings) -> str:
    return (f"tradewind {version('tradewind')}, {cpu_count()} cores, {settings.partitions} partitions, "
            f"linger {settings.linger_ms} ms, {settings.kafka_nodes} brokers, provider {settings.provider}")
