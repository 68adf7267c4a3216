"""The payment provider, simulated, as a process of its own: `python -m services.simulators.provider`.

Contract and test amounts: schemas/provider_api.py. Beside the five calls: `GET /v1/payments/{id}` gives a payment's totals,
`GET /v1/settlement` the settlement file,
`GET /healthz` says that it is up; the registry of identity numbers (registry.py) answers here too. Everything it has ever done stands in `journals/provider.ndjson` of the data folder, one
line for each definite effect; an auditor may take it for the truth about money.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from schemas.provider_api import KINDS, WRONG_ORDER, ProviderCall, ProviderVerdict
from services.runtime.clock import Clock
from services.runtime.processes import require_port
from services.runtime.settings import Settings
from services.simulators import registry
from services.simulators.provider_book import Book, Entry, Erring, KeyReused
from services.simulators.provider_webhooks import Webhooks

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 65_536
DRAIN_S = 2.0
JOURNAL_RETRY_S = 1.0


@dataclass(frozen=True)
class Manners:
    """How the provider behaves, in real seconds. `hang_s`: how long it says nothing before it cuts a lost answer off."""

    latency_s: float = 0.005
    hang_s: float = 4.0
    pending_s: float = 0.5
    webhook_share: float = 0.1
    webhook_late_s: float = 2.0


class Provider:
    """The HTTP side. Needs a running event loop; `app` may be served once."""

    def __init__(self, folder: Path, clock: Clock, manners: Manners, webhooks: Webhooks):
        self.book = Book(folder, clock, manners.pending_s)
        self.clock, self.manners, self.webhooks = clock, manners, webhooks
        self.app = web.Application(client_max_size=BODY_BYTES_MAX)
        registry.add_to(self.app)
        self.app.router.add_post("/v1/{kind}", self._call)
        self.app.router.add_get("/v1/payments/{payment}", self._payment)
        self.app.router.add_get("/v1/settlement", self._settlement)
        self.app.router.add_get("/healthz", self._healthz)
        self.app.on_startup.append(self._resume)
        self.app.on_cleanup.append(self._close)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # -- requests -------------------------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.Response:
        kind, key = request.match_info["kind"], request.headers.get("Idempotency-Key", "")
        if kind not in KINDS:
            return _problem(404, "no such call", f"the calls are {', '.join(KINDS)}")
        if not (0 < len(key) <= 190 and key.isascii() and key.isprintable() and " " not in key):
            return _problem(400, "bad idempotency key", "the header Idempotency-Key needs 1 to 190 printable characters")
        try:
            call = ProviderCall.model_validate_json(await request.read())
        except ValidationError as bad:
            return _problem(422, "bad body", str(bad.errors(include_url=False, include_input=False)[:3]))
        new = key not in self.book.entries
        try:
            entry = self.book.ask(key, kind, call)
        except KeyReused:
            return _problem(422, "key reused", f"{key} came before with another body")
        except Erring:
            return _problem(500, "test amount", "nothing has happened; this amount answers 500 twice")
        except OSError as full:
            log.error("the journal cannot be written, nothing has happened: %s", full)
            return _problem(500, "journal", "nothing has happened")
        if new:
            self._made(key, entry)
        return await self._tell(request, entry)

    def _made(self, key: str, entry: Entry) -> None:
        if entry.due is not None:
            self._wake_at(key, entry)
        else:
            self.webhooks.answered(entry.verdict, self.clock.now())
        self._watch(entry.verdict.payment_id)

    async def _tell(self, request: web.Request, entry: Entry) -> web.Response:
        verdict, told = entry.verdict, entry.told
        if not told:
            entry.told = True  # only the first answer is lost
            await asyncio.sleep(self.manners.hang_s)
            if request.transport is not None:
                request.transport.abort()
        elif self.manners.latency_s:
            await asyncio.sleep(self.manners.latency_s)
        return _json(verdict, 202 if verdict.outcome == "pending" else 200)

    async def _settlement(self, _: web.Request) -> web.Response:
        return web.Response(text=self.book.settlement(), content_type="text/csv")

    async def _payment(self, request: web.Request) -> web.Response:
        payment = self.book.payments.get(request.match_info["payment"])
        if payment is None:
            return _problem(404, "no such payment", "nothing was authorised under this id")
        return web.json_response({name: getattr(payment, name) for name in (
            "currency", "authorised", "captured", "voided", "refunded", "released", "disputed")})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "payments": len(self.book.payments), "pending": len(self._timers)})

    # -- pending calls --------------------------------------------------------------------------------------------

    def _wake_at(self, key: str, entry: Entry) -> None:
        real_s = (entry.due - self.clock.now()).total_seconds() / self.clock.speed
        self._timers[key] = asyncio.get_running_loop().call_later(max(0.0, real_s), self._settle, key)

    def _settle(self, key: str) -> None:
        entry = self.book.entries[key]
        if self.clock.now() < entry.due:  # the loop's timer and the clock differ by a hair
            self._wake_at(key, entry)
            return
        try:
            entry = self.book.settle(key)
        except OSError as full:
            log.error("the journal cannot be written, %s stays pending: %s", key, full)
            self._timers[key] = asyncio.get_running_loop().call_later(JOURNAL_RETRY_S, self._settle, key)
            return
        del self._timers[key]
        self.webhooks.answered(entry.verdict, self.clock.now(), always=True)
        self._watch(entry.verdict.payment_id)

    # -- disputes -------------------------------------------------------------------------------------------------

    def _watch(self, payment_id: str) -> None:
        """Of a payment whose buyer's bank will dispute it: the next stage when its time has come."""
        payment = self.book.payments.get(payment_id)
        if payment is None or payment.dispute is None or (coming := payment.dispute.following()) is None:
            return
        if timer := self._timers.pop(payment.dispute.id, None):
            timer.cancel()
        real_s = max(0.0, (coming[1] - self.clock.now()).total_seconds() / self.clock.speed)
        self._timers[payment.dispute.id] = asyncio.get_running_loop().call_later(real_s, self._advance, payment_id)

    def _advance(self, payment_id: str) -> None:
        dispute = self.book.payments[payment_id].dispute
        del self._timers[dispute.id]
        if self.clock.now() < dispute.following()[1]:  # the loop's timer and the clock differ by a hair
            self._watch(payment_id)
            return
        try:
            told = self.book.advance(payment_id)
        except OSError as full:
            log.error("the journal cannot be written, %s stays as it is: %s", dispute.id, full)
            self._timers[dispute.id] = asyncio.get_running_loop().call_later(JOURNAL_RETRY_S, self._advance, payment_id)
            return
        if told is not None:
            self.webhooks.disputed(told, self.clock.now(), dispute.course in WRONG_ORDER)
            self._watch(payment_id)

    async def _resume(self, _: web.Application) -> None:
        for key, entry in list(self.book.entries.items()):
            if entry.due is not None:
                self._wake_at(key, entry)
        for payment_id, payment in self.book.payments.items():
            if payment.dispute is not None:  # what was being told when the process ended, is told again
                for stage in payment.dispute.stages:
                    self.webhooks.disputed(payment.dispute.told(stage), self.clock.now())
                self._watch(payment_id)

    async def _close(self, _: web.Application) -> None:
        for timer in self._timers.values():
            timer.cancel()
        await self.webhooks.close()
        self.book.close()


def _json(verdict: ProviderVerdict, status: int) -> web.Response:
    return web.Response(text=verdict.model_dump_json(), status=status, content_type="application/json")


def _problem(status: int, title: str, detail: str) -> web.Response:
    """RFC 9457."""
    return web.json_response({"type": "about:blank", "title": title, "status": status, "detail": detail}, status=status,
                             content_type="application/problem+json")


async def serve(settings: Settings, clock: Clock, manners: Manners) -> None:
    """Listen until SIGTERM or SIGINT, then answer what is under way. Raises PortTaken, JournalInUse, JournalBroken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    require_port(settings.provider_port, "TRADEWIND_PROVIDER_PORT")
    webhooks = Webhooks(f"http://127.0.0.1:{settings.webhook_port}/webhooks/provider", settings.webhook_secret_text(),
                        settings.seed, manners.webhook_share, manners.webhook_late_s)
    provider = Provider(settings.data_folder / "journals", clock, manners, webhooks)
    runner = web.AppRunner(provider.app, access_log=None, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", settings.provider_port).start()
        log.info("provider listens on port %d; %d keys from its journal", settings.provider_port, len(provider.book.entries))
        if ready := os.environ.get("TRADEWIND_READY_FILE"):
            Path(ready).touch()
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    usual = Manners()
    parser = argparse.ArgumentParser(prog="python -m services.simulators.provider", description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=usual.latency_s * 1000, help="of every answer")
    parser.add_argument("--hang-ms", type=float, default=usual.hang_s * 1000, help="before a lost answer is cut off")
    parser.add_argument("--pending-ms", type=float, default=usual.pending_s * 1000, help="until a pending call succeeds")
    parser.add_argument("--webhook-share", type=float, default=usual.webhook_share, help="of the answers, 0 to 1")
    parser.add_argument("--webhook-late-ms", type=float, default=usual.webhook_late_s * 1000, help="at most")
    given = parser.parse_args()
    settings = Settings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    manners = Manners(given.latency_ms / 1000, given.hang_ms / 1000, given.pending_ms / 1000, given.webhook_share,
                      given.webhook_late_ms / 1000)
    asyncio.run(serve(settings, Clock.from_env(), manners))


if __name__ == "__main__":
    main()
