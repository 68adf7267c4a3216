"""Webhooks: what the edge refuses, and how the simulated provider sends them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from services.payments.providers import ProviderPending
from services.payments.webhook import BODY_BYTES_MAX, PATH, Edge
from services.runtime import processes
from services.runtime.clock import Clock
from tests.provider_helpers import MANNERS, SECRET, call, served, simulator, until


def signed(body: bytes, name: str = "msg_1", at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {"webhook-id": name, "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(name, at, body.decode())}


def answer_body(**changes) -> bytes:
    data = {"intent_id": "w1", "kind": "capture", "order_id": "O-hook", "payment_id": "P-1", "outcome": "succeeded",
            "amount": 5_000, "currency": "EUR", "reference": "prv-w1", "reason": ""} | changes
    return json.dumps({"type": "payment.answered", "timestamp": "2026-01-01T00:00:00Z", "data": data}).encode()


async def test_the_edge_refuses_what_it_cannot_trust_and_says_when_to_come_back() -> None:
    nobody = f"127.0.0.1:{processes.free_port()}"
    edge = Edge(nobody, SECRET, Clock.real())
    good = answer_body()
    old, early = (datetime.now(UTC) + timedelta(minutes=m) for m in (-6, 6))
    tampered = signed(good) | {"webhook-signature": "v1,!!"}
    cases = [
        (401, good, {}), (401, good, tampered), (401, good, signed(good, secret="whsec_" + "b3RoZXJv" * 5)),
        (401, good, signed(good, at=old)), (401, good, signed(good, at=early)), (401, good + b" ", signed(good)),
        (401, good, signed(good) | {"webhook-timestamp": "nan"}), (401, b"\xff\xfe", signed(good)),
        (401, good, signed(good) | {"webhook-signature": "nonsense"}), (401, good, signed(good) | {"webhook-id": "msg_2"}),
        (400, b"{", signed(b"{")), (413, b" " * (BODY_BYTES_MAX + 1), signed(good)), (503, good, signed(good)),
        *((422, bad, signed(bad)) for bad in (b"[]", answer_body(outcome="pending"), answer_body(amount=-1),
                                              answer_body(kind="steal"), answer_body(order_id="a\u202eb"),
                                              good.replace(b"payment.answered", b"payout.made"))),
    ]
    async with served(edge.app) as address, aiohttp.ClientSession() as session:
        for status, body, headers in cases:
            async with session.post(address + PATH, data=body, headers=headers) as response:
                told = await response.text()
                assert (response.status, response.content_type) == (status, "application/problem+json"), (body[:99], told)
                assert ("Retry-After" in response.headers) == (status == 503)


async def test_the_simulators_webhooks_are_late_doubled_and_retried_until_taken(tmp_path) -> None:
    seen, verifier, refuse = [], Webhook(SECRET), [503, 500]

    async def receive(request: web.Request) -> web.Response:
        if refuse:
            return web.Response(status=refuse.pop())
        body = await request.read()
        seen.append((request.headers["webhook-id"], body, verifier.verify(body, dict(request.headers))))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", receive)
    async with served(app) as hook, simulator(tmp_path, Clock.real(), MANNERS, hook + "/hook") as client:
        with pytest.raises(ProviderPending):
            await client.authorise(call("a1", token="tok_test_pending"))
        await until(lambda: len(seen) == 2, "both")
        assert seen[0] == seen[1] and seen[0][2]["data"]["outcome"] == "succeeded"
        plans = [client.simulated.webhooks.plan(f"k{n}", False) for n in range(50)]
        assert not any(plans)  # no share, no webhooks
        client.simulated.webhooks._share = 0.5
        plans = [client.simulated.webhooks.plan(f"k{n}", False) for n in range(200)]
        assert {len(plan) for plan in plans} == {0, 1, 2} and plans == [
            client.simulated.webhooks.plan(f"k{n}", False) for n in range(200)]
