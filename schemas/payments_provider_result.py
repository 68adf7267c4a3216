"""payments.provider-result.v1: definite answers of the payment provider, from our callers and from its webhooks.

Written by payments' callers, the webhook edge and finance; read by payments. The same answer may come twice, from both; what
is told of a dispute comes by webhook alone, late, twice and in any order.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas import books
from schemas.model import Command, Currency, Id, Minor, Text, Time

IntentKind = Literal["authorise", "capture", "void", "refund", "release", "evidence"]
DisputeStage = Literal["request_for_information", "inquiry_closed", "chargeback", "chargeback_reversed", "second_chargeback",
                       "lost"]
DisputeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")]


class ProviderAnswered(Command):
    """The answer to one intent, named by the idempotency key it was sent with. Only definite answers are published."""

    intent_id: str
    payment_id: str
    kind: IntentKind
    outcome: Literal["succeeded", "failed"]
    amount: Minor
    currency: Currency
    provider_reference: str = ""
    reason: Text = ""


class DisputeTold(Command):
    """A dispute that the buyer's bank opened has come to this stage. With `chargeback` and `second_chargeback` the provider
    has taken `amount` from us already, with `chargeback_reversed` given it back."""

    dispute_id: DisputeId
    payment_id: str
    stage: DisputeStage
    amount: Annotated[Minor, Field(ge=1)]
    currency: Currency
    reason: Text = ""
    evidence_due: Time | None = None


class SubmitEvidence(Command):
    """The merchant's evidence against a dispute: the reference of a document, once for each stage that asks for it."""

    dispute_id: DisputeId
    evidence: Annotated[str, Field(min_length=1, max_length=200)]


class RecordManualPayout(Command):
    """A finance clerk paid the buyer by hand, for a refund that the provider could not make."""

    payout_id: str
    payment_id: str
    parcel_id: Id
    amount: Minor
    currency: Currency
    bank_reference: str


MESSAGES = (ProviderAnswered, DisputeTold, SubmitEvidence, RecordManualPayout, *books.COMMANDS)
