"""Two campaigns, some seconds each, end with a clean audit; tests/test_chaos.py has service-kill. The full set is
`tradewind chaos --campaign all`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from services.chaos import report
from services.chaos.faults import FAULTS
from services.chaos.series import plans
from services.runtime.processes import free_port

PORTS = ("KAFKA_PORT", "POSTGRES_PORT", "ORDERS_PORT", "CONSOLE_PORT", "PROVIDER_PORT", "WEBHOOK_PORT")


@pytest.fixture
def chaos(tmp_path, cache_folder):
    first = free_port(36)
    ports = {f"TRADEWIND_{name}": str(first + 6 * n) for n, name in enumerate(PORTS)}
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")} | ports | {
        "TRADEWIND_DATA_FOLDER": str(tmp_path), "TRADEWIND_CACHE_FOLDER": str(cache_folder)}

    def run(*arguments: str) -> tuple[int, dict]:
        command = [sys.executable, "-m", "services.cli.main", "chaos", "--json", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout.splitlines()[-1])
    return run


@pytest.mark.parametrize("name, n, hits", [
    ("cut-answers", 9, {"commit", "produce", "provider"}),
    ("postgres-kill", 1, {"postgres"}),
])
def test_a_campaign_ends_clean(chaos, tmp_path, name, n, hits):
    code, line = chaos("--campaign", name, "--n", str(n), "--orders", "60", "--seed", "2")
    assert code == 0 and line["violations"] == 0 and not line["left"], line
    assert line["n"] == n and set(line["hits"]) <= hits and sum(line["hits"].values()) == n
    assert line["orders"] >= 60 and line["recoveries"] >= 1 and line["recovery_s_max"] > 0
    assert not (tmp_path / "chaos").exists(), "a clean run leaves nothing"


def test_what_there_is_not_is_refused(chaos):
    code, line = chaos("--campaign", "meteor")
    assert code == 6 and "meteor" in line["error"]["what"] and "service-kill" in line["error"]["remedy"]


def test_every_fault_of_the_table_is_listed(chaos):
    code, line = chaos("--list")
    assert code == 0 and [c["name"] for c in line["campaigns"]] == list(FAULTS)


def test_a_set_of_an_hour_is_as_large_as_promised():
    wanted = {plan.fault.name: plan.n for plan in plans(60, 1)}
    assert wanted["service-kill"] >= 300 and wanted["cut-answers"] >= 200
    assert wanted["broker-kill-1"] + wanted["broker-kill-3"] >= 50 and wanted["postgres-kill"] >= 50
    assert all(plan.n >= 1 for plan in plans(3, 1))


def test_the_document_names_every_campaign_and_takes_a_sets_figures():
    text = report.DOCUMENT.read_text()
    assert not [name for name in FAULTS if f"| `{name}`" not in text]
    line = {"campaign": "zombie", "n": 3, "orders": 4_000, "recovery_s_p50": 1.5, "recovery_s_max": 2.5, "violations": 0, "late": 0,
            "seconds": 60.0, "events": 90_000, "checks": 1_000_000, "details": [], "broken": [], "repeat": "", "drain_s": 7.0,
            "hits": {"orders": 3}}
    state = {"given": {"minutes": 5.0, "seed": 7, "rate": 45.0}, "finished": {"zombie": line}, "seconds": 60.0}
    made = report.document(text, state)
    assert "| `zombie` | orders 3 | 3 | 4,000 | 1.5 / 2.5 | 7.0 | 0 |" in made and "**0 violations**" in made
    assert report.document(made, state) == made and made.startswith(text.partition(report.BEGIN)[0])
