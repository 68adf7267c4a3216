"""The webhook edge: `python -m services.payments.webhook`. The provider's signed answers in, events out.

It decides nothing and remembers nothing: an answer is put on the topic, keyed by its order, and 200 is said once the broker
has it. A repeated webhook puts the same event there again, which payments recognises. Answers: 200; 400 not JSON; 401
unsigned, wrongly signed or signed more than five minutes ago; 413 above 256 KiB; 422 signed but not what was agreed; 503
with Retry-After while the broker cannot be reached (the provider tries again).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import ValidationError
from pydantic_core import from_json
from standardwebhooks import Webhook, WebhookVerificationError

from schemas.payments_provider_result import DisputeTold
from schemas.provider_api import DISPUTE_WEBHOOK_TYPE, WEBHOOK_TYPE, DisputeWebhook, ProviderDispute, ProviderVerdict, ProviderWebhook
from schemas.topics import PROVIDER_RESULT
from services.payments.answers import WEBHOOK, headers_for, headers_of_dispute, value_of
from services.runtime.clock import Clock
from services.runtime.crash import point
from services.runtime.processes import require_port
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

PATH = "/webhooks/provider"
BODY_BYTES_MAX = 256 * 1024
SEND_TIMEOUT_S = 5.0
RETRY_AFTER_S = 2
CONNECT_PAUSE_S = 0.5
DRAIN_S = 5.0


class Edge:
    """The edge as an aiohttp application. It starts, and answers 503, also while there is no broker."""

    def __init__(self, bootstrap: str, secret: str, clock: Clock, *, send_timeout_s: float = SEND_TIMEOUT_S):
        self._bootstrap, self._verifier, self._clock = bootstrap, Webhook(secret), clock
        self._send_timeout_s = send_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task | None = None
        self.app = web.Application(client_max_size=BODY_BYTES_MAX)
        self.app.router.add_post(PATH, self._receive)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.cleanup_ctx.append(self._kafka)

    async def _kafka(self, _: web.Application):
        self._connecting = asyncio.create_task(self._connect())
        yield
        self._connecting.cancel()
        with suppress(asyncio.CancelledError):
            await self._connecting
        if self._producer is not None:
            await self._producer.stop()

    async def _connect(self) -> None:
        while True:
            # Not idempotent: a repetition does no harm here, and such a producer recovers from any error by itself.
            producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", linger_ms=2,
                                        request_timeout_ms=int(self._send_timeout_s * 1000))
            try:
                await producer.start()
            except (KafkaError, OSError) as why:
                log.warning("no broker yet: %s", why)
                await producer.stop()
                await asyncio.sleep(CONNECT_PAUSE_S)
            except BaseException:  # also a cancellation: its sockets and tasks must not outlive it
                await producer.stop()
                raise
            else:
                self._producer = producer
                return

    # -- requests -------------------------------------------------------------------------------------------------

    async def _receive(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _problem(413, "too large", f"at most {BODY_BYTES_MAX} bytes")
        try:
            self._verifier.verify(body, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError) as why:  # ValueError: not base64, not UTF-8, no version
            return _problem(401, "bad signature", f"{why}")
        try:
            parsed = from_json(body)
        except ValueError as bad:
            return _problem(400, "not JSON", f"{bad}")
        try:
            if isinstance(parsed, dict) and parsed.get("type") == DISPUTE_WEBHOOK_TYPE:
                return await self._disputed(DisputeWebhook.model_validate(parsed).data)
            webhook = ProviderWebhook.model_validate(parsed)
            if webhook.type != WEBHOOK_TYPE or webhook.data.outcome == "pending":
                return _problem(422, "not an answer", f"only definite answers of type {WEBHOOK_TYPE} are taken")
            value = _value(webhook.data)
        except ValidationError as bad:
            return _problem(422, "not as agreed", str(bad.errors(include_url=False, include_input=False)[:3]))
        verdict = webhook.data
        headers = headers_for(verdict.intent_id, verdict.order_id, WEBHOOK, self._clock.now())
        return await self._publish(verdict.intent_id, verdict.order_id, value, headers)

    async def _disputed(self, dispute: ProviderDispute) -> web.Response:
        told = DisputeTold(**dispute.model_dump())
        headers = headers_of_dispute(told, WEBHOOK, self._clock.now())
        return await self._publish(f"{told.dispute_id} {told.stage}", told.order_id, told.__pydantic_serializer__.to_json(told), headers)

    async def _publish(self, what: str, order_id: str, value: bytes, headers: list[tuple[str, bytes]]) -> web.Response:
        if self._producer is None:
            return _unavailable("the broker has not been reached yet")
        point("webhook.verified")
        try:
            # The producer's own partitioner: the one by which an order's key finds its partition everywhere.
            await asyncio.wait_for(self._producer.send_and_wait(
                PROVIDER_RESULT.name, value, key=order_id.encode(), headers=headers), self._send_timeout_s)
        except (TimeoutError, KafkaError) as why:
            # Perhaps it did arrive; then the repetition is recognised by its id.
            log.warning("%s not acknowledged: %r", what, why)
            return _unavailable("the broker did not acknowledge in time")
        point("webhook.published")
        return web.json_response({"received": what})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok" if self._producer is not None else "no broker yet"})


def _value(verdict: ProviderVerdict) -> bytes:
    return value_of(verdict.order_id, verdict.intent_id, verdict.payment_id, verdict.kind, verdict.outcome, verdict.amount,
                    verdict.currency, verdict.reference, verdict.reason)


def _problem(status: int, title: str, detail: str) -> web.Response:
    """RFC 9457."""
    return web.json_response({"type": "about:blank", "title": title, "status": status, "detail": detail}, status=status,
                             content_type="application/problem+json")


def _unavailable(detail: str) -> web.Response:
    response = _problem(503, "try again", detail)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


async def serve(settings: Settings, clock: Clock) -> None:
    """Listen until SIGTERM or SIGINT, then answer what is under way. Raises PortTaken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    require_port(settings.webhook_port, "TRADEWIND_WEBHOOK_PORT")
    edge = Edge(settings.bootstrap, settings.webhook_secret_text(), clock)
    runner = web.AppRunner(edge.app, access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", settings.webhook_port).start()
        if ready := os.environ.get("TRADEWIND_READY_FILE"):
            Path(ready).touch()
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    configured = Settings()
    logging.basicConfig(level=configured.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(configured, Clock.from_env()))
