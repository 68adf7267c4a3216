"""How fast the trade clock may run: refused above what was measured on this machine, and measured only when it matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from services.bench import probe
from services.cli import exits, pace
from services.runtime.processes import free_port
from services.runtime.settings import Settings


def settings(folder: Path, speed: float) -> Settings:
    return Settings(data_folder=folder, speed=speed)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The p99s that the next measurements find; each is used once."""
    coming: list[float] = []
    monkeypatch.setattr(probe, "probe", lambda *_: {"p50_s": 0.1, "p99_s": coming.pop(0), "orders": 300})
    return coming


def age(folder: Path, seconds: float) -> None:
    note = folder / "latency.json"
    stored = json.loads(note.read_text())
    for entry in stored.values():
        entry["at"] = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    note.write_text(json.dumps(stored))


def test_a_tenth_of_the_shortest_deadline_is_the_limit() -> None:
    name, seconds = pace.shortest_deadline()
    assert (name, seconds) == ("reservation", 86_400)  # a retry of a backorder comes sooner, and ends nothing
    assert pace.permitted(1.0) == 8_600 and pace.permitted(0.25) == 34_500


def test_a_moderate_speed_is_taken_without_measuring(tmp_path: Path, measured: list[float]) -> None:
    pace.require(settings(tmp_path, 1.0), print)
    pace.require(settings(tmp_path, 4_100.0), print)
    assert pace.chosen(settings(tmp_path, 1.0), 4_000.0, print) == 4_000.0
    assert not (tmp_path / "latency.json").exists()


def test_a_speed_that_is_too_high_is_refused_with_all_that_one_needs_to_know(tmp_path: Path, measured: list[float]) -> None:
    measured.append(0.5)
    with pytest.raises(pace.TooFast) as refused:
        pace.require(settings(tmp_path, 24_000.0), print)
    assert "17,200 times" in refused.value.what and "24,000" in refused.value.what  # the highest there may be, what was asked
    assert "0.50 s" in refused.value.what and f"{datetime.now(UTC):%Y-%m-%d}" in refused.value.what
    assert "reservation, 24 h" in refused.value.what and "TRADEWIND_SPEED=17200" in refused.value.remedy


def test_what_was_measured_holds_until_it_permits_too_little(tmp_path: Path, measured: list[float]) -> None:
    measured += [0.3, 0.5, 0.2]
    pace.require(settings(tmp_path, 24_000.0), print)  # 0.3 s: 28,800
    age(tmp_path, 30 * 86_400)
    pace.require(settings(tmp_path, 28_000.0), print)
    assert measured == [0.5, 0.2]
    age(tmp_path, 90)
    with pytest.raises(pace.TooFast):
        pace.require(settings(tmp_path, 29_000.0), print)  # old, so measured again: 0.5 s
    with pytest.raises(pace.TooFast):
        pace.require(settings(tmp_path, 20_000.0), print)  # of this minute: not again
    age(tmp_path, 90)
    pace.require(settings(tmp_path, 20_000.0), print)
    assert not measured


def test_who_takes_what_he_gets_measures_again_only_where_it_is_much_less(tmp_path: Path, measured: list[float]) -> None:
    measured += [0.5, 0.9, 0.3]
    assert pace.chosen(settings(tmp_path, 1.0), 25_000.0, print) == 17_200
    age(tmp_path, 30 * 86_400)
    assert pace.chosen(settings(tmp_path, 1.0), 25_000.0, print) == 17_200 and measured == [0.9, 0.3]
    assert pace.chosen(settings(tmp_path, 1.0), 40_000.0, print) == 9_600
    assert pace.chosen(settings(tmp_path, 1.0), 40_000.0, print) == 9_600  # of this minute: not again
    age(tmp_path, 90)
    assert pace.chosen(settings(tmp_path, 1.0), 40_000.0, print) == 28_800 and not measured


def test_another_place_is_measured_for_itself(tmp_path: Path, measured: list[float]) -> None:
    measured += [0.1, 2.0]
    pace.require(settings(tmp_path, 24_000.0), print)
    with pytest.raises(pace.TooFast):
        pace.require(settings(tmp_path, 24_000.0).model_copy(update={"partitions": 48}), print)


def test_up_refuses_a_speed_that_no_machine_bears(tmp_path: Path) -> None:
    """Really measured: a whole system is started, runs, and leaves nothing."""
    ports = free_port(5)
    names = ("POSTGRES", "ORDERS", "CONSOLE", "PROVIDER", "WEBHOOK")
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRADEWIND_")} | {
        "TRADEWIND_DATA_FOLDER": str(tmp_path), "TRADEWIND_CACHE_FOLDER": str(Settings().cache_folder), "NO_COLOR": "1",
        "TRADEWIND_KAFKA_PORT": str(free_port(2)), "TRADEWIND_SPEED": "1e9",
    } | {f"TRADEWIND_{name}_PORT": str(ports + n) for n, name in enumerate(names)}
    done = subprocess.run([sys.executable, "-m", "services.cli.main", "up", "--detach", "--json"], env=env,
                          capture_output=True, text=True, timeout=300)
    line = json.loads(done.stdout.strip().splitlines()[-1])
    assert done.returncode == exits.USAGE, done.stderr
    assert line["error"]["where"] == "TRADEWIND_SPEED" and "1,000,000,000" in line["error"]["what"]
    noted = pace.noted(Settings(data_folder=tmp_path))
    assert noted and 0 < noted.p50_s <= noted.p99_s < 60 and noted.orders > 100
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]
    assert not (tmp_path / "probe").exists()
