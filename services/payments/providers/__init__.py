"""The port to the payment provider: five calls, each with a definite answer or none.

Two implementations: `http.py`, and `inprocess.py` for the benchmark. One suite holds both to this contract
(tests/test_provider.py):
- The idempotency key is `Call.intent_id`. The same call again gets the same answer and has no second effect.
- A definite answer never changes. "failed" is one: nothing moved, and the same key will not move anything later.
- Whatever is not definite raises ProviderUnavailable: the call may or may not have taken effect. The caller tries again
  with the same key, for ever; it must not give up, for then nobody knows where the money is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from datetime import datetime

    from schemas.provider_api import ProviderDispute
    from schemas.provider_disputes import Dispute
    from services.runtime.clock import Clock
    from services.runtime.settings import Settings


class Call(NamedTuple):
    """One call. `amount` in minor units of `currency`; `token` names the buyer's means of payment."""

    intent_id: str
    order_id: str
    payment_id: str
    amount: int
    currency: str
    token: str = ""
    reference: str = ""


class Answer(NamedTuple):
    """A definite answer. `amount` is what was asked for: all of it moved, or (failed, for `reason`) nothing."""

    outcome: Literal["succeeded", "failed"]
    amount: int
    reference: str
    reason: str = ""


class ProviderUnavailable(Exception):
    """No definite answer (timeout, 5xx, connection lost, an unreadable answer): try again with the same key."""


class ProviderPending(ProviderUnavailable):
    """The provider works on it: the answer comes by webhook. The same call gets it too, once there is one: ask seldom."""


class CallRefused(Exception):
    """The provider refuses to read the call (4xx; a key used before with another body): no retry helps. A bug of ours, or
    a wrong address in TRADEWIND_PROVIDER_URL."""


class Provider(Protocol):
    """Each call returns a definite Answer, or raises ProviderUnavailable, ProviderPending or CallRefused."""

    async def authorise(self, call: Call) -> Answer:
        """Reserve `amount` of the buyer's money for `payment_id`; once a payment."""

    async def capture(self, call: Call) -> Answer:
        """Take part or all of what is authorised; several captures together at most that."""

    async def void(self, call: Call) -> Answer:
        """Give up `amount` of what is authorised and not captured; 0: all that is left."""

    async def refund(self, call: Call) -> Answer:
        """Give back to the buyer; together at most what was captured, whether or not it was released meanwhile."""

    async def release(self, call: Call) -> Answer:
        """Pay out to the merchant; together at most what was captured. The provider does not set refunds off against it:
        a lost parcel is refunded to the buyer and, with the carrier's money, paid to the merchant."""

    async def evidence(self, call: Call) -> Answer:
        """The merchant's evidence against the dispute that `reference` names."""

    async def close(self) -> None:
        """End connections; no calls afterwards."""


@runtime_checkable
class SyncProvider(Protocol):
    """A provider that answers without waiting; `Effects` then performs calls in batches, without a task for each, and tells
    its `disputes` (by payment), for it has no webhooks."""

    disputes: dict[str, Dispute]

    def perform(self, kind: str, call: Call) -> Answer: ...

    def coming(self, payment_id: str) -> datetime | None: ...

    def advance(self, payment_id: str) -> ProviderDispute | None: ...


def from_settings(settings: Settings, clock: Clock) -> Provider:
    """The provider that TRADEWIND_PROVIDER names."""
    if settings.provider == "inprocess":
        from services.payments.providers.inprocess import InProcessProvider

        return InProcessProvider(clock)
    from services.payments.providers.http import HttpProvider

    return HttpProvider(settings.provider_address)
