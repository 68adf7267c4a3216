"""`tradewind prepare` on a real broker and real databases: topics, tables and keys, twice the same."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import asyncpg

from services.runtime.settings import SERVICES

ROOT = Path(__file__).parents[1]


async def prepare(**settings: str) -> tuple[int, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TRADEWIND_")} | settings
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli.main", "prepare", "--json", cwd=ROOT, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, errors = await process.communicate()
    return process.returncode, (out + errors).decode()


async def test_it_refuses_to_prepare_servers_that_nobody_named():
    code, said = await prepare()
    assert code == 4 and "TRADEWIND_BOOTSTRAP_SERVERS" in said


async def test_it_prepares_and_does_nothing_twice(kafka, postgres, tmp_path):
    dsns = {f"TRADEWIND_{name.upper()}_DSN": await postgres(f"prepare_{name}") for name in SERVICES}
    settings = dsns | {"TRADEWIND_BOOTSTRAP_SERVERS": kafka, "TRADEWIND_DATA_FOLDER": str(tmp_path)}
    code, said = await prepare(**settings)
    assert code == 0, said
    keys = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(keys) == {"vault.key", "webhook.key"}
    for dsn in dsns.values():
        connection = await asyncpg.connect(dsn)
        assert await connection.fetchval("SELECT count(*) FROM installation") >= 3
        await connection.close()
    code, said = await prepare(**settings)
    assert code == 0 and '"topics_created": []' in said
    assert keys == {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    code, said = await prepare(**settings | {"TRADEWIND_PARTITIONS": "7"})
    assert code == 3 and "partitions" in said
