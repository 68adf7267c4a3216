"""`tradewind dlq` on the real broker and database: list, show, edit, replay, discard."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import asyncpg

from schemas.topics import INTAKE, PAYMENT
from services.cli import exits
from services.orders import app as orders
from services.runtime.clock import Clock
from services.runtime.migrate import migrate
from services.runtime.service import PartitionService
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics
from tests.tally import Raw, send, until
from tests.test_dlq import PARTITIONS, good


async def test_list_show_edit_replay_and_discard(kafka, postgres, tmp_path):
    await ensure_topics(kafka, PARTITIONS)
    env = dict(os.environ, TRADEWIND_BOOTSTRAP_SERVERS=kafka, TRADEWIND_DATA_FOLDER=str(tmp_path), NO_COLOR="1")
    for service in SERVICES:
        env[f"TRADEWIND_{service.upper()}_DSN"] = dsn = await postgres(f"dlq_{service}")
        await migrate(dsn, service, PARTITIONS)

    async def run(*words: str) -> tuple[int, dict]:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.cli.main", "dlq", *words, "--json", env=env,
                                                       stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        out, err = await asyncio.wait_for(process.communicate(), 120)
        assert out, err.decode()
        return process.returncode, json.loads(out.splitlines()[-1])

    a, b = (f"dlq-{os.urandom(3).hex()}-{n}" for n in "ab")
    bad = good(INTAKE, "PlaceOrder", a, unknown_field=1)
    held = Raw(PAYMENT.name, b.encode(), b"\xff", good(PAYMENT, "PaymentAuthorised", b, 1).headers)
    settings = Settings(data_folder=tmp_path)
    service = PartitionService(orders.spec(settings), env["TRADEWIND_ORDERS_DSN"], kafka, PARTITIONS, Clock.real(),
                               dead_letters_max=10**6)
    await service.start()
    try:
        await send(kafka, [bad, good(INTAKE, "PlaceOrder", b), held, good(PAYMENT, "PaymentVoided", b, 2)])
        await until(lambda: _listed(run, a, {"new": 1}), within_s=90)
        await until(lambda: _listed(run, b, {"new": 1}), within_s=90)
        _, line = await run("list", "--order", a, "--each")
        place = line["letters"][0]["place"]
        assert (line["groups"][0]["reason"], line["letters"][0]["detail"]) == ("invalid", "unknown_field: Extra inputs are not permitted")

        code, line = await run("replay", place, "--dry-run")
        assert code == exits.OK and line["letters"][0]["would"].startswith("a dead letter again: invalid")
        code, line = await run("replay", place, "--by", "ann", "--wait", "60")
        assert code == exits.REFUSED and line["states"] == {"failed again": 1}
        place = line["letters"][0]["came_back"]
        assert (await run("edit", place, "--set", "total=-1"))[0] == exits.REFUSED
        code, line = await run("edit", place, "--unset", "unknown_field", "--by", "bob")
        assert code == exits.OK and line["id"].startswith(f"PlaceOrder:{a}:") and line["kept"]
        code, line = await run("replay", place, "--dry-run")
        assert line["letters"][0]["would"].startswith("applied: Order"), line
        code, line = await run("replay", place, "--wait", "60")
        assert code == exits.OK and line["states"] == {"resolved": 1}
        _, line = await run("show", place)
        assert [(m["action"], m["by"]) for m in line["history"]][0] == ("edited", "bob") and line["state"] == "resolved"
        assert (await run("replay", place))[0] == exits.REFUSED, "what is resolved is not sent again"

        _, line = await run("list", "--order", b, "--each")
        assert line["letters"][0]["holds"] == "1 payments" and line["groups"][0]["holding"] == 1
        assert (await run("discard", "--order", b))[0] == exits.REFUSED, "not without a reason"
        code, line = await run("discard", "--order", b, "--because", "broken for good")
        assert code == exits.OK and line["discarded"] == 1
        assert await _listed(run, b, {"discarded": 1})
        await until(lambda: _none_parked(env["TRADEWIND_ORDERS_DSN"], b))
    finally:
        await service.stop()


async def _listed(run, order: str, states: dict) -> bool:
    return (await run("list", "--order", order))[1]["states"] == states


async def _none_parked(dsn: str, order: str) -> bool:
    conn = await asyncpg.connect(dsn)
    try:
        return not await conn.fetch("SELECT 1 FROM parked WHERE order_id = $1 AND sequence = 1", order)
    finally:
        await conn.close()
