"""The provider over HTTP: one POST a call, the idempotency key in its header (contract: schemas/provider_api.py)."""

from __future__ import annotations

import aiohttp
from pydantic import ValidationError

from schemas.provider_api import ProviderCall, ProviderVerdict
from services.payments.providers import Answer, Call, CallRefused, ProviderPending, ProviderUnavailable

TIMEOUT_S = 3.0
CONNECTIONS_MAX = 64
ANSWER_BYTES_MAX = 65_536
# Refusals that are about the moment and not about the call.
_LATER = frozenset({408, 409, 425, 429})


class HttpProvider:
    """A client with connections of its own; belongs to the event loop of its first call."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S):
        self._address, self._timeout = address, aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def authorise(self, call: Call) -> Answer:
        return await self._post("authorise", call)

    async def capture(self, call: Call) -> Answer:
        return await self._post("capture", call)

    async def void(self, call: Call) -> Answer:
        return await self._post("void", call)

    async def refund(self, call: Call) -> Answer:
        return await self._post("refund", call)

    async def release(self, call: Call) -> Answer:
        return await self._post("release", call)

    async def evidence(self, call: Call) -> Answer:
        return await self._post("evidence", call)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, kind: str, call: Call) -> Answer:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout, connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX))
        headers = {"Idempotency-Key": call.intent_id, "Content-Type": "application/json"}
        try:
            async with self._session.post(
                f"{self._address}/v1/{kind}", data=_body(call), headers=headers, allow_redirects=False
            ) as response:
                status, text = response.status, await _read(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as why:
            raise ProviderUnavailable(f"{kind} {call.intent_id}: {type(why).__name__} {why}") from why
        return _answer(kind, call, status, text)


def _body(call: Call) -> bytes:
    try:
        asked = ProviderCall(order_id=call.order_id, payment_id=call.payment_id, amount=call.amount,
                             currency=call.currency, token=call.token, reference=call.reference)
    except ValidationError as bad:
        raise CallRefused(f"{call.intent_id} is not a call the provider can read: {bad}") from bad
    return asked.__pydantic_serializer__.to_json(asked)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """At most ANSWER_BYTES_MAX: a broken proxy must not fill our memory."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise aiohttp.ClientPayloadError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
    return b"".join(parts)


def _answer(kind: str, call: Call, status: int, text: bytes) -> Answer:
    if 400 <= status < 500 and status not in _LATER:
        raise CallRefused(f"{kind} {call.intent_id}: {status} {text[:300]!r}")
    if status not in (200, 202):
        raise ProviderUnavailable(f"{kind} {call.intent_id}: {status}")
    try:
        verdict = ProviderVerdict.model_validate_json(text)
    except ValidationError as bad:
        raise ProviderUnavailable(f"{kind} {call.intent_id}: unreadable answer {text[:100]!r}") from bad
    told = (verdict.intent_id, verdict.kind, verdict.order_id, verdict.payment_id, verdict.amount, verdict.currency)
    if told != (call.intent_id, kind, call.order_id, call.payment_id, call.amount, call.currency):
        raise ProviderUnavailable(f"{kind} {call.intent_id}: the answer is about something else: {told}")
    if verdict.outcome == "pending" or status == 202:
        raise ProviderPending(f"{kind} {call.intent_id}")
    return Answer(verdict.outcome, verdict.amount, verdict.reference, verdict.reason)
