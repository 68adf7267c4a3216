"""Trade time: it runs `speed` times as fast as real time while the system is up, and stands still while it is down.

Deadlines of the trade (confirmation, returns, customs) are in trade time; retries and leases are in real time.
Every process computes trade time from the same two anchors, so that they agree without asking one another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.runtime.processes import read_json, write_json

SAVE_EVERY_S = 1.0
_REAL, _TRADE, _SPEED = "TRADEWIND_CLOCK_REAL", "TRADEWIND_CLOCK_TRADE", "TRADEWIND_SPEED"


class ClockNotSet(Exception):
    """A speed other than 1 needs the anchors TRADEWIND_CLOCK_REAL and TRADEWIND_CLOCK_TRADE: start with `tradewind up`,
    or give the same two instants (ISO 8601 with an offset) to every process."""


@dataclass(frozen=True)
class Clock:
    """At the real instant `anchor_real` it was trade time `anchor_trade`; both aware, UTC."""

    anchor_real: datetime
    anchor_trade: datetime
    speed: float = 1.0

    def __post_init__(self) -> None:
        assert self.speed > 0, self.speed
        assert self.anchor_real.tzinfo is not None and self.anchor_trade.tzinfo is not None

    def now(self) -> datetime:
        """The trade time, aware, UTC."""
        return self.at(datetime.now(UTC))

    def at(self, real: datetime) -> datetime:
        """The trade time at a real instant."""
        return self.anchor_trade + (real - self.anchor_real) * self.speed

    def real_at(self, trade: datetime) -> datetime:
        """The real instant at which it is `trade`, should the system stay up until then."""
        return self.anchor_real + (trade - self.anchor_trade) / self.speed

    @classmethod
    def real(cls) -> Clock:
        """Trade time is real time."""
        now = datetime.now(UTC)
        return cls(now, now)

    @classmethod
    def from_env(cls) -> Clock:
        """The clock a process was started with; without anchors and with speed 1, real time. Raises ClockNotSet."""
        speed = float(os.environ.get(_SPEED) or 1)
        if _REAL in os.environ and _TRADE in os.environ:
            real, trade = (datetime.fromisoformat(os.environ[name]).astimezone(UTC) for name in (_REAL, _TRADE))
            return cls(real, trade, speed)
        if speed != 1:
            raise ClockNotSet(ClockNotSet.__doc__)
        return cls.real()

    def env(self) -> dict[str, str]:
        """What `from_env` of a child reads."""
        return {_REAL: self.anchor_real.isoformat(), _TRADE: self.anchor_trade.isoformat(), _SPEED: repr(self.speed)}


def resume(path: Path, speed: float) -> Clock:
    """A clock that goes on where the file says trade time stopped; without a file, from the real time now."""
    now = datetime.now(UTC)
    stored = read_json(path)
    if stored is None:
        return Clock(now, now, speed)
    trade = datetime.fromisoformat(stored["trade_at"])
    if not stored["stopped"]:
        # Killed between two saves: processes have seen later times than the file, and time never goes back.
        trade += timedelta(seconds=2 * SAVE_EVERY_S * stored["speed"])
    return Clock(now, trade, speed)


def running(path: Path) -> Clock:
    """The clock of a running system, for a process that it did not start: trade time as last saved, and the real time
    since then at its speed. Behind by less than a real millisecond. Without a file as `Clock.from_env`: raises ClockNotSet."""
    stored = read_json(path)
    if stored is None:
        return Clock.from_env()
    saved = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Clock(saved, datetime.fromisoformat(stored["trade_at"]), stored["speed"])


def save(path: Path, clock: Clock, *, stopped: bool) -> None:
    """Note how far trade time has come. The supervisor alone does so, every SAVE_EVERY_S seconds and at its end."""
    stored = read_json(path) or {"origin_real": clock.anchor_real.isoformat(), "origin_trade": clock.anchor_trade.isoformat()}
    write_json(path, stored | {"trade_at": clock.now().isoformat(), "speed": clock.speed, "stopped": stopped})
