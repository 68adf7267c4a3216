"""The simulated provider's webhooks: signed, retried until they are taken, and as untidy as real ones.

A seeded share of the answers is also sent as a webhook: some before the answer itself, some late, some twice. What is
sent about an intent depends on the seed and the intent alone, not on the order of requests. Deliveries under way are lost
with the process; whoever waits for one asks again with its key.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from datetime import UTC, datetime

import aiohttp
from standardwebhooks import Webhook

from schemas.provider_api import DISPUTE_WEBHOOK_TYPE, WEBHOOK_TYPE, DisputeWebhook, ProviderDispute, ProviderVerdict, ProviderWebhook

log = logging.getLogger(__name__)

ATTEMPT_TIMEOUT_S = 5.0
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 5.0
AT_ONCE_MAX = 32
_LATE_THIRDS = {"chargeback": (3,), "chargeback_reversed": (1.5, 2)}  # of the longest delay


class Webhooks:
    """`share` of the answers, from 0 to 1; the late ones up to `late_s` real seconds late."""

    def __init__(self, url: str, secret: str, seed: int, share: float = 0.1, late_s: float = 2.0):
        self._url, self._signer, self._seed, self._share, self._late_s = url, Webhook(secret), seed, share, late_s
        self._tasks: set[asyncio.Task] = set()
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._session: aiohttp.ClientSession | None = None
        self.delivered = 0

    def answered(self, verdict: ProviderVerdict, now: datetime, *, always: bool = False) -> None:
        """Send what the seed says about this verdict, `always`: late and twice. Returns at once."""
        delays = self.plan(verdict.intent_id, always)
        if not delays:
            return
        self._send(ProviderWebhook(type=WEBHOOK_TYPE, timestamp=now, data=verdict).model_dump_json(), verdict.intent_id, delays)

    def disputed(self, dispute: ProviderDispute, now: datetime, wrong_order: bool = False) -> None:
        """Tell a stage of a dispute: some late, some twice. `wrong_order`: a reversal twice, and each stage before those that
        came earlier. Returns at once."""
        what = f"{dispute.dispute_id}.{dispute.stage}"
        delays = [self._late_s * n / 3 for n in _LATE_THIRDS.get(dispute.stage, (0,))] if wrong_order else self.plan(what, True)
        self._send(DisputeWebhook(type=DISPUTE_WEBHOOK_TYPE, timestamp=now, data=dispute).model_dump_json(), what, delays)

    def _send(self, body: str, what: str, delays: list[float]) -> None:
        # Short and without the characters that the signature uses as a separator; the same for every repetition.
        name = "msg_" + hashlib.blake2b(what.encode(), digest_size=12).hexdigest()
        for delay in delays:
            task = asyncio.get_running_loop().create_task(self._deliver(delay, name, body))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def plan(self, intent_id: str, always: bool) -> list[float]:
        """When to send, in seconds from now; empty: not at all."""
        dice = random.Random(f"{self._seed}/{intent_id}")
        if dice.random() >= self._share and not always:
            return []
        late = dice.uniform(0, self._late_s)
        first = late if always or dice.random() < 0.5 else 0.0
        return [first, dice.uniform(0, self._late_s)] if always or dice.random() < 0.3 else [first]

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _ended(self, task: asyncio.Task) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a webhook was given up", exc_info=task.exception())

    async def _deliver(self, delay: float, name: str, body: str) -> None:
        await asyncio.sleep(delay)
        pause = BACKOFF_FIRST_S
        while True:
            async with self._slots:
                told = await self._post(name, body)
            if told:
                self.delivered += 1
                return
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, BACKOFF_MAX_S)

    async def _post(self, name: str, body: str) -> bool:
        """One attempt, signed anew: the receiver refuses what was signed minutes ago."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S))
        now = datetime.now(UTC)
        headers = {"webhook-id": name, "webhook-timestamp": str(int(now.timestamp())),
                   "webhook-signature": self._signer.sign(name, now, body), "content-type": "application/json"}
        try:
            async with self._session.post(self._url, data=body.encode(), headers=headers) as response:
                if response.status < 300:
                    return True
                log.info("webhook %s: %d", name, response.status)
        except (TimeoutError, aiohttp.ClientError, OSError) as why:
            log.info("webhook %s: %s", name, type(why).__name__)
        return False
