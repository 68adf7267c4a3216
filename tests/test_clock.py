"""Trade time runs `speed` times as fast, stands still while the system is down and never goes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.runtime import clock as clocks
from services.runtime.clock import Clock, ClockNotSet

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_real_second_is_speed_trade_seconds() -> None:
    clock = Clock(START, START + timedelta(days=10), speed=3600)
    assert clock.at(START + timedelta(seconds=2)) == START + timedelta(days=10, hours=2)
    assert clock.real_at(START + timedelta(days=10, hours=2)) == START + timedelta(seconds=2)


def test_a_child_has_its_parents_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(START, START + timedelta(days=1), speed=86400)
    for name, value in clock.env().items():
        monkeypatch.setenv(name, value)
    assert Clock.from_env() == clock


def test_without_anchors_it_is_real_time_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Clock.real().env():
        monkeypatch.delenv(name, raising=False)
    before = datetime.now(UTC)
    assert before <= Clock.from_env().now() <= datetime.now(UTC)
    monkeypatch.setenv("TRADEWIND_SPEED", "60")
    with pytest.raises(ClockNotSet, match="tradewind up"):
        Clock.from_env()


@pytest.mark.parametrize("stopped", [True, False])
def test_it_goes_on_where_it_stood_still(tmp_path: Path, stopped: bool) -> None:
    path = tmp_path / "clock.json"
    # Up for a while, a year ago: the year down does not count.
    long_ago = Clock(datetime.now(UTC), START, speed=3600)
    clocks.save(path, long_ago, stopped=stopped)
    seen = long_ago.now()
    again = clocks.resume(path, speed=60)
    assert again.speed == 60
    ahead = again.anchor_trade - seen
    if stopped:
        assert timedelta(seconds=-3600) < ahead <= timedelta(0)  # the moment between saving and looking
    else:
        assert timedelta(0) < ahead <= timedelta(hours=2)
