"""Twenty kills under load: every order ends, and the auditor finds nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from services.runtime.processes import free_port


def test_twenty_kills_leave_a_clean_audit(tmp_path, cache_folder):
    names = ("KAFKA_PORT", "POSTGRES_PORT", "ORDERS_PORT", "CONSOLE_PORT", "PROVIDER_PORT", "WEBHOOK_PORT")
    first = free_port(36)
    ports = {f"TRADEWIND_{name}": str(first + 6 * n) for n, name in enumerate(names)}
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")} | ports | {
        "TRADEWIND_DATA_FOLDER": str(tmp_path), "TRADEWIND_CACHE_FOLDER": str(cache_folder)}
    command = [sys.executable, "-m", "services.cli.main", "chaos", "--kills", "20", "--seed", "11", "--json"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert run.stdout, run.stderr
    line = json.loads(run.stdout.splitlines()[-1])
    assert run.returncode == 0 and line["violations"] == 0, line
    assert line["kills"] == 20 and line["orders"] == 400 and not line["left"]
    assert set(line["killed"]) == {"orders", "payments", "shipping"}
    assert 0 < line["recovery_s_max"] <= 15, "a killed service is back within 15 s"
    assert not (tmp_path / "chaos").exists()
