"""What the simulated provider knows: payments, keys, what is pending; and its journal, which is the truth about both.

The journal has one line for each definite effect, written before anyone is told: after a crash the provider knows
exactly what it has answered. Calls that are pending stand in a file of their own, for they have no effect yet.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

from schemas.payments_provider_result import DisputeStage
from schemas.provider_disputes import Dispute
from schemas.provider_fees import fee, price_list
from schemas.provider_api import (ABANDONED_AFTER_HOURS, COURSES, ERRORS_BEFORE_SUCCESS, SCRIPT_BY_AMOUNT,
                                  SCRIPT_BY_TOKEN, SETTLED, SETTLEMENT_COLUMNS, SETTLEMENT_END, ProviderCall, ProviderDispute,
                                  ProviderVerdict, Script)
from services.runtime.clock import Clock
from services.runtime.crash import point
from services.runtime.processes import StartError


class JournalInUse(StartError):
    """Another provider writes this journal."""


class JournalBroken(StartError):
    """A line in the middle of a journal cannot be read."""


class KeyReused(Exception):
    """The idempotency key came before with another body."""


class Erring(Exception):
    """The test amount wants a 500 now; nothing has happened."""


class Journal:
    """An append-only file of JSON lines, of one process at a time.

    A line survives the death of the process as soon as `write` returns; not that of the machine (no fsync: a simulator's
    journal is evidence about crashes of processes). A half line at the end was never told to anyone and is cut off.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(self._file)
            raise JournalInUse("another provider writes the journal", str(path), "Stop it first.") from held

    def read(self) -> list[dict]:
        """Every line; cuts off a half one at the end. Raises JournalBroken."""
        whole, _, half = self.path.read_bytes().rpartition(b"\n")
        if half:
            os.ftruncate(self._file, len(whole) + 1 if whole else 0)
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as bad:
            raise JournalBroken(f"a line is not JSON: {bad}", str(self.path), "Start on another data folder.") from bad

    def write(self, line: dict) -> None:
        """Append; all of the line, or nothing and OSError."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        before = os.fstat(self._file).st_size
        if os.write(self._file, data) != len(data):
            os.ftruncate(self._file, before)
            raise OSError(f"{self.path}: no room for a whole line")

    def close(self) -> None:
        os.close(self._file)


@dataclass(slots=True)
class Payment:
    """Totals in minor units. `script`: the misfortune that came with the token or amount it was authorised with.
    `disputed`: what the buyer's bank has taken back."""

    currency: str
    authorised: int = 0
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    released: int = 0
    disputed: int = 0
    script: Script | None = None
    dispute: Dispute | None = None

    @property
    def left(self) -> int:
        """Authorised, and neither captured nor voided."""
        return self.authorised - self.captured - self.voided


@dataclass(slots=True)
class Entry:
    """What became of one key. `due`: when a pending call gets its verdict (trade time); `told`: its answer was not lost."""

    kind: str
    call: ProviderCall
    verdict: ProviderVerdict
    due: datetime | None = None
    told: bool = field(default=True)


class Book:
    """Decides and remembers. No waiting and no network in here, so two requests never see a half-done call."""

    def __init__(self, folder: Path, clock: Clock, pending_s: float = 0.5):
        """`pending_s`: real seconds until a pending call succeeds. Raises JournalInUse, JournalBroken."""
        self.clock, self.pending_s = clock, pending_s
        self.payments: dict[str, Payment] = {}
        self.entries: dict[str, Entry] = {}
        self._errors: dict[str, int] = {}
        self._journal = Journal(folder / "provider.ndjson")
        self._waiting = Journal(folder / "provider-pending.ndjson")
        self._load()

    def close(self) -> None:
        self._journal.close()
        self._waiting.close()

    def ask(self, key: str, kind: str, call: ProviderCall) -> Entry:
        """The entry of this key, made now if it is new. Raises KeyReused, Erring, OSError (nothing has happened)."""
        entry = self.entries.get(key)
        if entry is not None:
            if (entry.kind, entry.call) != (kind, call):
                raise KeyReused(key)
            return entry
        payment = self.payments.get(call.payment_id)
        script = SCRIPT_BY_TOKEN.get(call.token) or SCRIPT_BY_AMOUNT.get(call.amount) or (payment and payment.script)
        misfortune = script.name if script and kind in script.kinds else ""
        if misfortune == "error" and self._errors.get(key, 0) < ERRORS_BEFORE_SUCCESS:
            self._errors[key] = self._errors.get(key, 0) + 1
            raise Erring(key)
        self._errors.pop(key, None)
        reason = self._refusal(kind, payment, call) or {"declined": "card_declined", "refund_fails": "account_closed"}.get(
            misfortune, "")
        if misfortune in ("pending", "abandoned") and not reason:
            return self._wait(key, kind, call, misfortune)
        entry = self._settle(key, kind, call, reason)
        entry.told = misfortune != "timeout"
        return entry

    def settle(self, key: str) -> Entry:
        """The verdict of a pending call whose time has come."""
        entry = self.entries[key]
        script = SCRIPT_BY_TOKEN.get(entry.call.token) or SCRIPT_BY_AMOUNT.get(entry.call.amount)
        abandoned = entry.kind == "authorise" and script is not None and script.name == "abandoned"
        reason = self._refusal(entry.kind, self.payments.get(entry.call.payment_id), entry.call)
        return self._settle(key, entry.kind, entry.call, reason or ("authentication_abandoned" if abandoned else ""))

    def settlement(self) -> str:
        """The settlement file of all that was ever done, as the journal has it."""
        rows, prices = [",".join(SETTLEMENT_COLUMNS)], price_list(PRICES)
        for line in self._journal.read():
            if line["outcome"] == "succeeded" and line["kind"] in SETTLED:
                day = datetime.fromisoformat(line["time"]).date()
                rows.append(f'{len(rows)},{line["intent_id"]},{line["kind"]},{line["payment_id"]},{line["amount"]},'
                            f'{line["currency"]},{line["time"]},{fee(prices, line["kind"], line["amount"], line["currency"], day)}')
        return "\n".join([*rows, f"{SETTLEMENT_END},{len(rows) - 1}", ""])

    def advance(self, payment_id: str) -> ProviderDispute | None:
        """The next stage of its dispute comes now; None when there is nothing left to dispute. Raises OSError."""
        payment = self.payments[payment_id]
        dispute = payment.dispute
        stage, _ = dispute.following()
        amount = dispute.amount_of(stage, payment.captured - payment.refunded - payment.disputed)
        if amount <= 0:
            payment.dispute = None
            return None
        now = self.clock.now()
        self._write(f"{dispute.id}.{stage}", stage, dispute, amount, "succeeded", dispute.id, "", now)
        payment.disputed += dispute.enter(stage, amount, now)
        return dispute.told(stage)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _refusal(self, kind: str, payment: Payment | None, call: ProviderCall) -> str:
        if kind == "evidence" and payment is not None:
            return payment.dispute.refusal(call.reference, self.clock.now()) if payment.dispute else "unknown_dispute"
        return refusal(kind, payment, call)

    def _write(self, intent_id: str, kind: str, about: ProviderCall | Dispute, amount: int, outcome: str, reference: str,
               reason: str, now: datetime, **more: str) -> None:
        """Journal first, then memory: should the write fail, nothing has happened."""
        point("provider.deciding")
        self._journal.write({
            "intent_id": intent_id, "kind": kind, "payment_id": about.payment_id, "order_id": about.order_id, "amount": amount,
            "currency": about.currency, "outcome": outcome, "reference": reference, "reason": reason, "time": now.isoformat(), **more})
        point("provider.journaled")

    def _wait(self, key: str, kind: str, call: ProviderCall, misfortune: str) -> Entry:
        wait = timedelta(hours=ABANDONED_AFTER_HOURS) if misfortune == "abandoned" else (
            timedelta(seconds=self.pending_s * self.clock.speed))
        due = self.clock.now() + wait
        point("provider.deciding")
        self._waiting.write({"intent_id": key, "kind": kind, "call": call.model_dump(), "due": due.isoformat()})
        point("provider.waiting")
        return self._enter_pending(key, kind, call, due)

    def _enter_pending(self, key: str, kind: str, call: ProviderCall, due: datetime) -> Entry:
        entry = self.entries[key] = Entry(kind, call, _verdict(key, kind, call, "pending", ""), due)
        return entry

    def _settle(self, key: str, kind: str, call: ProviderCall, reason: str) -> Entry:
        verdict, now = _verdict(key, kind, call, "failed" if reason else "succeeded", reason), self.clock.now()
        self._write(key, kind, call, call.amount, verdict.outcome, verdict.reference, reason, now, token=call.token,
                    call_reference=call.reference)
        return self._enter(key, kind, call, verdict, now)

    def _enter(self, key: str, kind: str, call: ProviderCall, verdict: ProviderVerdict, now: datetime) -> Entry:
        if verdict.outcome == "succeeded":
            if kind == "authorise":
                script = SCRIPT_BY_TOKEN.get(call.token) or SCRIPT_BY_AMOUNT.get(call.amount)
                self.payments[call.payment_id] = Payment(call.currency, call.amount, script=script)
            else:
                payment, total = self.payments[call.payment_id], _TOTALS.get(kind)
                moved = payment.left if kind == "void" and call.amount == 0 else call.amount
                if total is not None:
                    setattr(payment, total, getattr(payment, total) + moved)
                if payment.script is not None and payment.script.name in COURSES:
                    payment.dispute = payment.dispute or Dispute(call.order_id, call.payment_id, call.currency, payment.script.name)
                    payment.dispute.called(kind, now)
        entry = self.entries[key] = Entry(kind, call, verdict)
        return entry

    def _load(self) -> None:
        for line in self._journal.read():
            now = datetime.fromisoformat(line["time"])
            if line["kind"] in STAGES:
                payment = self.payments[line["payment_id"]]
                payment.disputed += payment.dispute.enter(line["kind"], line["amount"], now)
                continue
            call = ProviderCall(order_id=line["order_id"], payment_id=line["payment_id"], amount=line["amount"],
                                currency=line["currency"], token=line["token"], reference=line["call_reference"])
            verdict = _verdict(line["intent_id"], line["kind"], call, line["outcome"], line["reason"])
            self._enter(line["intent_id"], line["kind"], call, verdict, now)
        for line in self._waiting.read():
            if line["intent_id"] not in self.entries:
                self._enter_pending(line["intent_id"], line["kind"], ProviderCall(**line["call"]),
                                    datetime.fromisoformat(line["due"]))


PRICES = Path(__file__).with_name("provider_fees.toml")
STAGES = frozenset(get_args(DisputeStage))
_TOTALS = {"capture": "captured", "void": "voided", "refund": "refunded", "release": "released"}


def refusal(kind: str, payment: Payment | None, call: ProviderCall) -> str:
    """Why the call fails for good (a key of schemas.provider_api.REASONS); empty when it can be granted."""
    if call.amount == 0 and kind != "void":
        return "amount_not_positive"
    if kind == "authorise":
        return "already_authorised" if payment else ""
    if payment is None:
        return "unknown_payment"
    if payment.currency != call.currency:
        return "currency_mismatch"
    if kind == "refund":
        return "exceeds_captured" if payment.refunded + payment.disputed + call.amount > payment.captured else ""
    if kind == "release":
        return "exceeds_captured" if payment.released + call.amount > payment.captured else ""
    if kind == "void" and payment.left == 0:
        return "nothing_to_void"
    return "exceeds_authorised" if call.amount > payment.left else ""


def _verdict(key: str, kind: str, call: ProviderCall, outcome: str, reason: str) -> ProviderVerdict:
    return ProviderVerdict(intent_id=key, kind=kind, order_id=call.order_id, payment_id=call.payment_id, outcome=outcome,
                           amount=call.amount, currency=call.currency, reason=reason,
                           reference="" if outcome == "pending" else f"prv-{key}")
