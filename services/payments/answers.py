"""The provider's answer as an event on `payments.provider-result.v1`, written the same by our callers and by the webhook
edge: the same intent gives the same id and the same bytes, so that a repetition is recognised whichever way it comes.
"""

from __future__ import annotations

from datetime import datetime

from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.payments_provider_result import DisputeTold, ProviderAnswered
from schemas.topics import PROVIDER_RESULT

CALLER, WEBHOOK = "payments-caller", "payments-webhook"
_TYPE, _DISPUTE = ProviderAnswered.__name__, DisputeTold.__name__
_DATASCHEMA = dataschema_of(PROVIDER_RESULT.name, _TYPE)
_to_json = ProviderAnswered.__pydantic_serializer__.to_json
_REASON_MAX = 500


def value_of(order_id: str, intent_id: str, payment_id: str, kind: str, outcome: str, amount: int, currency: str,
             reference: str, reason: str) -> bytes:
    """The record's value. `reference` and `reason` are the provider's free text: what PostgreSQL or a log line cannot
    hold is left out. Raises pydantic.ValidationError when anything else is not as the schema says."""
    return _to_json(ProviderAnswered(
        order_id=order_id, intent_id=intent_id, payment_id=payment_id, kind=kind, outcome=outcome, amount=amount,
        currency=currency, provider_reference=_clean(reference), reason=_clean(reason)))


def headers_for(intent_id: str, order_id: str, source: str, now: datetime) -> list[tuple[str, bytes]]:
    """The record's headers; `source` is CALLER or WEBHOOK. Only they tell the two ways apart, and when it came."""
    envelope = Envelope(f"answer:{intent_id}", _TYPE, source, now, order_id, causation=intent_id)
    return headers_of(envelope, _DATASCHEMA)


def headers_of_dispute(told: DisputeTold, source: str, now: datetime) -> list[tuple[str, bytes]]:
    """Of what the provider tells of a dispute: one id a stage, however often and by whomever it is told."""
    envelope = Envelope(f"dispute:{told.dispute_id}:{told.stage}", _DISPUTE, source, now, told.order_id)
    return headers_of(envelope, dataschema_of(PROVIDER_RESULT.name, _DISPUTE))


def _clean(text: str) -> str:
    if text.isprintable() and len(text) <= _REASON_MAX:
        return text
    return "".join(c for c in text if c.isprintable())[:_REASON_MAX]
