"""The payment provider's public contract: its HTTP bodies, its reasons, and the test amounts that make it misbehave.

`POST /v1/{kind}` with the header Idempotency-Key and a `ProviderCall` as body answers 200 with a `ProviderVerdict`, or 202
with one that is still pending; then the verdict comes as a signed webhook (Standard Webhooks), a `ProviderWebhook`. The
same key with the same body gets the same verdict for ever, with another body 422. 5xx and silence say nothing about
whether the call took effect: ask again with the same key. `GET /v1/settlement` is the settlement file: CSV, a line each
movement of money (SETTLED), in the order of time, and at its end how many there are.

A buyer's bank may dispute a captured payment: `request_for_information`, which is answered (`inquiry_closed`) or becomes a
`chargeback`; that is reversed (`chargeback_reversed`), `lost`, or after its reversal a `second_chargeback`, which is final. The
provider takes the money with the chargeback, and tells each stage by a webhook of its own (`DISPUTE_WEBHOOK_TYPE`): late,
twice, and in any order. Evidence (`POST /v1/evidence`, the dispute's id as `reference`) is taken until `evidence_due`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.model import Currency, Id, Minor, Text
from schemas.payments_provider_result import DisputeId, DisputeStage, IntentKind

KINDS: tuple[IntentKind, ...] = ("authorise", "capture", "void", "refund", "release", "evidence")
WEBHOOK_TYPE, DISPUTE_WEBHOOK_TYPE = "payment.answered", "payment.disputed"
BY_THE_BANK: tuple[DisputeStage, ...] = ("chargeback", "chargeback_reversed", "second_chargeback")  # these move money
SETTLED: tuple[str, ...] = ("capture", "refund", "release", *BY_THE_BANK)
SETTLEMENT_COLUMNS = ("line", "reference", "kind", "payment_id", "amount", "currency", "settled_at", "fee")  # of the same currency
SETTLEMENT_END = "end"  # begins the last line, which has the number of lines before it

# 190: "answer:" and the key together are an event's id, which has at most 200 characters.
IntentId = Annotated[str, Field(pattern=r"^[!-~]{1,190}$", description="printable ASCII without blanks")]
Name = Annotated[str, Field(max_length=200)]

REASONS = {
    "card_declined": "the buyer's bank refuses",
    "authentication_abandoned": "the buyer never finished the bank's check",
    "account_closed": "the account to be refunded no longer exists; no retry can help",
    "amount_not_positive": "every kind but void needs an amount above 0",
    "already_authorised": "the payment has an authorisation under another key",
    "unknown_payment": "nothing was ever authorised under this payment id",
    "currency_mismatch": "the payment is in another currency",
    "exceeds_authorised": "more than is authorised and neither captured nor voided",
    "exceeds_captured": "more than was captured and not yet refunded or taken by the bank, or not yet released",
    "nothing_to_void": "all that was authorised is captured or voided",
    "unknown_dispute": "the payment has no dispute of this id that asks for evidence",
    "evidence_too_late": "the time in which evidence is taken is over",
}


class ProviderCall(BaseModel):
    """What is asked. `amount` is in minor units; a void of 0 gives up all that is left. `reference` is the caller's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    order_id: Id
    payment_id: Annotated[str, Field(min_length=1, max_length=200)]
    amount: Minor
    currency: Currency
    token: Name = ""
    reference: Name = ""


class ProviderVerdict(BaseModel):
    """What became of it. `amount` is what was asked for: all of it moved (succeeded), or nothing (failed, pending)."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    intent_id: IntentId
    kind: IntentKind
    order_id: Id
    payment_id: Annotated[str, Field(min_length=1, max_length=200)]
    outcome: Literal["succeeded", "failed", "pending"]
    amount: Minor
    currency: Currency
    reference: Name = ""
    reason: Text = ""


class ProviderWebhook(BaseModel):
    """The body of a webhook; its id, time of sending and signature are headers."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    type: str
    timestamp: AwareDatetime
    data: ProviderVerdict


class ProviderDispute(BaseModel):
    """A dispute at one stage. `evidence_due` with the stages that ask for evidence."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    dispute_id: DisputeId
    order_id: Id
    payment_id: Annotated[str, Field(min_length=1, max_length=200)]
    stage: DisputeStage
    amount: Annotated[Minor, Field(ge=1)]
    currency: Currency
    reason: Text = ""
    evidence_due: AwareDatetime | None = None


class DisputeWebhook(BaseModel):
    """The body of the other kind of webhook."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    type: str
    timestamp: AwareDatetime
    data: ProviderDispute


class Step(NamedTuple):
    """A stage comes `hours` of trade time `after` a call, an earlier stage, or the evidence for the stage before."""

    stage: DisputeStage
    after: str
    hours: float


@dataclass(frozen=True)
class Script:
    """A planned misfortune, chosen by the amount of a call or by the payment's token; other kinds go well."""

    name: str
    amount: int
    token: str
    kinds: frozenset[str]
    what: str


_ALL = frozenset(KINDS)
# Orders of real data cannot choose their amounts, so that a token does the same; a payment keeps what it was authorised
# with. Any other amount and token succeeds.
SCRIPTS: tuple[Script, ...] = (
    Script("declined", 1_000_001, "tok_test_declined", frozenset({"authorise"}), "fails: card_declined"),
    Script("timeout", 1_000_002, "tok_test_timeout", _ALL, "takes effect, its answer is lost once; the retry gets it"),
    Script("error", 1_000_003, "tok_test_500", _ALL, "500 twice without effect, then succeeds"),
    Script("refund_fails", 1_000_004, "tok_test_refund_fails", frozenset({"refund"}), "fails for good: account_closed"),
    Script("pending", 1_000_005, "tok_test_pending", _ALL, "202; succeeds a little later, by a webhook sent twice"),
    Script("abandoned", 1_000_006, "tok_test_abandoned", frozenset({"authorise"}),
           "202; fails after 26 hours of trade time, by webhook: authentication_abandoned"),
)
EVIDENCE_DAYS = 7
# What the buyer's bank does about a payment of a test amount or token; its calls go well. Where a step waits for evidence and
# none is sent in time, an inquiry becomes a chargeback, and a chargeback is lost.
_ASKED, _TAKEN, _BACK = "request_for_information", "chargeback", "chargeback_reversed"
COURSES: dict[str, tuple[Step, ...]] = {
    "inquiry": (Step(_ASKED, "capture", 72), Step("inquiry_closed", "evidence", 12)),
    "bank_won": (Step(_ASKED, "capture", 24), Step(_TAKEN, _ASKED, 24), Step(_BACK, "evidence", 24)),
    "bank_lost": (Step(_TAKEN, "capture", 36), Step("lost", "evidence", 24)),
    "bank_late": (Step(_TAKEN, "release", 24), Step("lost", "evidence", 24)),
    "bank_late_won": (Step(_TAKEN, "release", 24), Step(_BACK, "evidence", 24)),
    "bank_twice": (Step(_TAKEN, "release", 24), Step(_BACK, _TAKEN, 0.25), Step("second_chargeback", _BACK, 0.25)),
}
WRONG_ORDER = frozenset({"bank_twice"})  # the later a stage, the earlier it is told
SCRIPTS += tuple(Script(name, 1_000_007 + n, f"tok_test_{name}", frozenset(), "the buyer's bank: " + ", ".join(
    f"{step.stage} {step.hours:g} h after {step.after}" for step in course)) for n, (name, course) in enumerate(COURSES.items()))
SCRIPT_BY_AMOUNT = {script.amount: script for script in SCRIPTS}
SCRIPT_BY_TOKEN = {script.token: script for script in SCRIPTS}
ABANDONED_AFTER_HOURS = 26
ERRORS_BEFORE_SUCCESS = 2
