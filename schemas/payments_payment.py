"""payments.payment.v1: what happened to the buyer's money. Written by payments; read by orders, shipping, the console.

Money is held per parcel. At any moment, per order and currency:
captured + recovered = held + released + refunded + charged back.
"""

from __future__ import annotations

from typing import Literal

from schemas import books
from schemas.china_papers import PaymentDocument
from schemas.model import Currency, Event, Minor, Part, Text, Time
from schemas.terms import Assessment, Share


class ParcelAmount(Part):
    parcel_id: str
    amount: Minor


class PaymentEvent(Event):
    payment_id: str
    currency: Currency


class PaymentAuthorised(PaymentEvent):
    amount: Minor
    parcels: list[ParcelAmount]


class PaymentDeclined(PaymentEvent):
    reason: str
    parcels: list[ParcelAmount]


class PaymentExpired(PaymentEvent):
    """The authorisation ran out before the documents were ready."""

    amount: Minor
    parcels: list[ParcelAmount]


class PaymentVoided(PaymentEvent):
    """Given up before any capture; `amount` is what had been authorised (0: nothing had)."""

    amount: Minor
    parcels: list[ParcelAmount]


class PaymentHeld(PaymentEvent):
    """Captured, and held for the parcels until the buyer has them. `document`: into China, where each parcel has a payment of
    its own, the payment document (CEB411)."""

    amount: Minor
    parcels: list[ParcelAmount]
    document: PaymentDocument | None = None


class PaymentDocumentAmended(PaymentEvent):
    """China: part of the money went back, and the payment document says what is left."""

    parcel_id: str
    document: PaymentDocument


class ParcelPaymentEvent(PaymentEvent):
    parcel_id: str
    amount: Minor


class PaymentDivided(ParcelPaymentEvent):
    """So much of what is held for parcel `of` is held for this one now, into which its warehouse put part of the goods. The
    provider has nothing to do with it."""

    of: str


class PaymentPartiallyRefunded(ParcelPaymentEvent):
    """Part went back; some of the parcel's money is still held, or with the merchant."""

    reason: str
    ref: str = ""  # the return, grant or cancellation it belongs to
    via: Literal["provider", "manual_payout"] = "provider"


class PaymentRefunded(ParcelPaymentEvent):
    """The last of the parcel's money went back to the buyer."""

    reason: str
    ref: str = ""  # the return, grant or cancellation it belongs to
    via: Literal["provider", "manual_payout"] = "provider"


class RefundFailed(ParcelPaymentEvent):
    """The provider refused the refund for good; a person pays by hand."""

    detail: Text = ""


class ManualPayoutRequested(ParcelPaymentEvent):
    payout_id: str


class PaymentSettled(ParcelPaymentEvent):
    """Released from escrow: to the merchant, or (`shares`, by the ledger's accounts) to all who have a part in it."""

    shares: list[Share] = []


class TaxAssessed(ParcelPaymentEvent):
    """Customs' bill for a parcel whose tax was paid with the order; `amount` in the order's currency, `assessed` in customs'.

    The difference to `quoted` is the platform's."""

    quoted: Minor
    authority: str
    document: str = ""
    assessed: Assessment


class TaxReclaimed(ParcelPaymentEvent):
    """Goods of `list_no` came back in time: the authority gives their tax back. `credited`: who had borne it. The authority pays
    it with a period (TaxRecovered)."""

    authority: str
    return_id: str
    list_no: str
    credited: Literal["platform", "merchant"]


class PaymentChargedBack(ParcelPaymentEvent):
    """The merchant lost the dispute: the money went to the buyer."""


class DisputeEvent(ParcelPaymentEvent):
    """Of a dispute that the buyer's bank has opened with the provider, as far as it concerns this parcel."""

    dispute_id: str


class InformationRequested(DisputeEvent):
    """The buyer's bank asks what this payment was for. Nothing has been taken; the parcel's money stands still."""

    reason: Text = ""
    evidence_due: Time | None = None


class InquiryClosed(DisputeEvent):
    """The bank has its answer: the money goes on."""


class ChargebackOpened(DisputeEvent):
    """The bank took `amount` back: `escrow` of it out of the hold; the rest, which the merchant has, the platform laid out."""

    escrow: Minor
    reason: Text = ""
    evidence_due: Time | None = None


class EvidenceSubmitted(DisputeEvent):
    """The provider has the merchant's evidence."""

    evidence: str


class EvidenceMissed(DisputeEvent):
    """Nobody sent evidence in time; the bank decides without it."""


class ChargebackReversed(DisputeEvent):
    """The bank gave `amount` back: `escrow` of it into the hold, the rest to the platform, which had laid it out."""

    escrow: Minor


class SecondChargeback(DisputeEvent):
    """The bank took `amount` once more, and for good. `escrow`: as in ChargebackOpened."""

    escrow: Minor


class ChargebackLost(DisputeEvent):
    """The buyer keeps the money; none of the parcel's is left. Of `amount`, `reserve` and then `merchant` pay what the
    platform had laid out."""

    reserve: Minor = 0
    merchant: Minor = 0


class ChargebackPartlyLost(DisputeEvent):
    """The same, and some of the parcel's money is left. `dropped`: returns and grants whose refund is not made any more,
    because the buyer has it by this way."""

    reserve: Minor = 0
    merchant: Minor = 0
    dropped: list[str] = []


class EvidenceRefused(PaymentEvent):
    """Evidence that was not sent, or that the provider did not take."""

    dispute_id: str
    evidence: str
    reason: str
    detail: Text = ""


class FundsRecovered(ParcelPaymentEvent):
    """Money came back into the hold: a claim the carrier paid, or a claw-back from the merchant."""

    recovered_from: Literal["carrier", "merchant", "platform"]


MESSAGES = (
    PaymentAuthorised, PaymentDeclined, PaymentExpired, PaymentVoided, PaymentHeld, PaymentDivided, PaymentPartiallyRefunded,
    PaymentRefunded, RefundFailed, ManualPayoutRequested, PaymentSettled, PaymentChargedBack, FundsRecovered,
    TaxAssessed, TaxReclaimed, PaymentDocumentAmended,
    InformationRequested, InquiryClosed, ChargebackOpened, EvidenceSubmitted, EvidenceMissed, ChargebackReversed,
    SecondChargeback, ChargebackLost, ChargebackPartlyLost, EvidenceRefused, *books.EVENTS,
)
