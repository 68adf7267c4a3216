"""payments.provider-result.v1: definite answers of the payment provider, from our callers and from its webhooks.

Written by payments' callers, the webhook edge and finance; read by payments. The same answer may come twice, from both.
"""

from __future__ import annotations

from typing import Literal

from schemas import books
from schemas.model import Command, Currency, Id, Minor, Text

IntentKind = Literal["authorise", "capture", "void", "refund", "release"]


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


class RecordManualPayout(Command):
    """A finance clerk paid the buyer by hand, for a refund that the provider could not make."""

    payout_id: str
    payment_id: str
    parcel_id: Id
    amount: Minor
    currency: Currency
    bank_reference: str


MESSAGES = (ProviderAnswered, RecordManualPayout, *books.COMMANDS)
