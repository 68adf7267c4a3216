"""The provider inside the process, for the benchmark: the same contract and test amounts, a few microseconds a call.

Memory is bounded: of keys and of payments it remembers the newest, in two generations each (when the young one is full
it becomes the old one, and the former old one is forgotten). It has no webhooks: a pending call is asked again, and disputes
of test payments are told by whoever makes the calls (`coming`, `advance`); with the process they are gone.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

from schemas.provider_api import (ABANDONED_AFTER_HOURS, COURSES, ERRORS_BEFORE_SUCCESS, SCRIPT_BY_AMOUNT,
                                  SCRIPT_BY_TOKEN, ProviderDispute, Script)
from schemas.provider_disputes import Dispute
from services.payments.providers import Answer, Call, CallRefused, ProviderPending, ProviderUnavailable
from services.runtime.clock import Clock

KEYS_MAX = 10_000
PAYMENTS_MAX = 10_000
PENDING_S = 0.5
AUTHORISED, CAPTURED, VOIDED, REFUNDED, RELEASED, CURRENCY, SCRIPT, DISPUTED = range(8)
_TOTAL = {"authorise": AUTHORISED, "capture": CAPTURED, "void": VOIDED, "refund": REFUNDED, "release": RELEASED}


class _Newest:
    """A mapping that keeps at least the newest `size` entries and at most twice as many. Eviction costs nothing a call."""

    __slots__ = ("size", "young", "old", "forgot")

    def __init__(self, size: int):
        self.size, self.young, self.old, self.forgot = size, {}, {}, False

    def get(self, key: str) -> Any:
        found = self.young.get(key)
        if found is None and (found := self.old.get(key)) is not None:
            self.put(key, found)
        return found

    def put(self, key: str, value: Any) -> None:
        if len(self.young) >= self.size:
            self.forgot = self.forgot or bool(self.old)
            self.old, self.young = self.young, {}
        self.young[key] = value


class InProcessProvider:
    """`knows_all`: no other process served these payments, so one it does not know is refused. Otherwise, and once it has
    forgotten any, an unknown payment may be an old one, and what is asked about it is granted unchecked."""

    def __init__(self, clock: Clock | None = None, *, knows_all: bool = False, keys_max: int = KEYS_MAX,
                 payments_max: int = PAYMENTS_MAX, pending_s: float = PENDING_S):
        self._clock, self._knows_all, self._pending_s = clock or Clock.real(), knows_all, pending_s
        self._keys, self._payments = _Newest(keys_max), _Newest(payments_max)
        # Only what scripts leave unanswered, so a handful: key -> errors given, or when it will be settled.
        self._errors: dict[str, int] = {}
        self.disputes: dict[str, Dispute] = {}  # payment -> what its buyer's bank does about it
        self._pending: dict[str, tuple[str, Call, float | datetime, str]] = {}

    async def authorise(self, call: Call) -> Answer:
        return self.perform("authorise", call)

    async def capture(self, call: Call) -> Answer:
        return self.perform("capture", call)

    async def void(self, call: Call) -> Answer:
        return self.perform("void", call)

    async def refund(self, call: Call) -> Answer:
        return self.perform("refund", call)

    async def release(self, call: Call) -> Answer:
        return self.perform("release", call)

    async def evidence(self, call: Call) -> Answer:
        return self.perform("evidence", call)

    async def close(self) -> None:
        """Nothing to end; what it remembers stays."""

    def perform(self, kind: str, call: Call) -> Answer:
        """As the five calls, without waiting."""
        known = self._keys.get(call.intent_id)
        if known is not None:
            if known[0] != kind or known[1] != call:
                raise CallRefused(f"key {call.intent_id} was used with another body")
            return known[2]
        payment = self._payments.get(call.payment_id)
        script = SCRIPT_BY_TOKEN.get(call.token) or SCRIPT_BY_AMOUNT.get(call.amount) or (payment and payment[SCRIPT])
        if script and kind in script.kinds:
            return self._scripted(script, kind, call, payment)
        return self._settle(kind, call, payment, self._refusal(kind, call, payment), script)

    def _refusal(self, kind: str, call: Call, p: list | None) -> str:
        """Why the call cannot be granted; empty when it can."""
        amount = call.amount
        if kind == "evidence":
            dispute = self.disputes.get(call.payment_id)
            return dispute.refusal(call.reference, self._clock.now()) if dispute else "unknown_dispute"
        if amount <= 0 and kind != "void":
            return "amount_not_positive"
        if kind == "authorise":
            return "already_authorised" if p else ""
        if p is None:
            return "unknown_payment" if self._knows_all and not self._payments.forgot else ""
        if p[CURRENCY] != call.currency:
            return "currency_mismatch"
        if kind == "refund":
            return "exceeds_captured" if p[REFUNDED] + p[DISPUTED] + amount > p[CAPTURED] else ""
        if kind == "release":
            return "exceeds_captured" if p[RELEASED] + amount > p[CAPTURED] else ""
        left = p[AUTHORISED] - p[VOIDED] - p[CAPTURED]
        if kind == "void" and left == 0:
            return "nothing_to_void"
        return "exceeds_authorised" if amount > left else ""

    def _settle(self, kind: str, call: Call, p: list | None, refusal: str, script: Script | None) -> Answer:
        """The definite answer: book it and remember it under its key."""
        if refusal:
            answer = Answer("failed", call.amount, f"inp-{call.intent_id}", refusal)
        else:
            if kind == "authorise":
                self._payments.put(call.payment_id, [call.amount, 0, 0, 0, 0, call.currency, script, 0])
            elif p is not None and kind in _TOTAL:
                p[_TOTAL[kind]] += call.amount if call.amount or kind != "void" else (
                    p[AUTHORISED] - p[VOIDED] - p[CAPTURED])
            if script is not None and script.name in COURSES:
                self._dispute(kind, call, script.name)
            answer = Answer("succeeded", call.amount, f"inp-{call.intent_id}")
        self._keys.put(call.intent_id, (kind, call, answer))
        return answer

    # -- disputes -------------------------------------------------------------------------------------------------

    def _dispute(self, kind: str, call: Call, course: str) -> None:
        dispute = self.disputes.setdefault(call.payment_id, Dispute(call.order_id, call.payment_id, call.currency, course))
        dispute.called(kind, self._clock.now())

    def coming(self, payment_id: str) -> datetime | None:
        """When this payment's dispute comes to its next stage; None: never, or not before another call."""
        dispute = self.disputes.get(payment_id)
        found = dispute.following() if dispute else None
        return found and found[1]

    def advance(self, payment_id: str) -> ProviderDispute | None:
        """The next stage comes now; None when there is nothing left to dispute."""
        dispute, p = self.disputes[payment_id], self._payments.get(payment_id)
        stage = dispute.following()[0]
        amount = dispute.amount_of(stage, p[CAPTURED] - p[REFUNDED] - p[DISPUTED] if p else 0)
        if amount <= 0:
            del self.disputes[payment_id]
            return None
        taken = dispute.enter(stage, amount, self._clock.now())
        if p:
            p[DISPUTED] += taken
        return dispute.told(stage)

    # -- the test amounts -----------------------------------------------------------------------------------------

    def _scripted(self, script: Script, kind: str, call: Call, payment: list | None) -> Answer:
        key, refusal = call.intent_id, self._refusal(kind, call, payment)
        if script.name == "error" and self._errors.get(key, 0) < ERRORS_BEFORE_SUCCESS:
            self._errors[key] = self._errors.get(key, 0) + 1
            raise ProviderUnavailable(f"{kind} {key}: 500")
        self._errors.pop(key, None)
        if script.name == "declined":
            refusal = refusal or "card_declined"
        elif script.name == "refund_fails":
            refusal = refusal or "account_closed"
        elif script.name in ("pending", "abandoned") and not refusal:
            refusal = self._wait(script, kind, call)
        answer = self._settle(kind, call, payment, refusal, script)
        if script.name == "timeout":
            raise ProviderUnavailable(f"{kind} {key}: timed out")
        return answer

    def _wait(self, script: Script, kind: str, call: Call) -> str:
        """Raises ProviderPending until the call's time has come; then the reason it fails for, or none."""
        abandoned = script.name == "abandoned"
        now = self._clock.now() if abandoned else time.monotonic()
        if (waiting := self._pending.get(call.intent_id)) is None:
            due = now + (timedelta(hours=ABANDONED_AFTER_HOURS) if abandoned else self._pending_s)
            waiting = self._pending[call.intent_id] = (kind, call, due, "authentication_abandoned" if abandoned else "")
        if waiting[:2] != (kind, call):
            raise CallRefused(f"key {call.intent_id} was used with another body")
        if now < waiting[2]:
            raise ProviderPending(f"{kind} {call.intent_id}")
        del self._pending[call.intent_id]
        return waiting[3]
