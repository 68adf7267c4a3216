"""The payment document of a parcel into China (CEB411): what was captured, of whom; amended when part of it went back. Pure."""

from __future__ import annotations

from schemas.china_papers import PaymentDocument
from schemas.payments_payment import PaymentDocumentAmended
from services.payments.account import Account, Work


def document(account: Account, payment_id: str, parcel_id: str) -> PaymentDocument | None:
    """None where customs asks for none."""
    if account.papers is None:
        return None
    platform, payer = account.papers
    payment = account.payments[payment_id]
    payment.transaction = payment.transaction or payment.reference or payment_id  # refunds have references of their own
    return PaymentDocument.model_construct(
        order_no=parcel_id, platform=platform, transaction=payment.transaction, payer=payer,
        amount=account.holds[parcel_id].held)


def amend(work: Work, payment_id: str, parcel_id: str) -> None:
    """Part went back: the document says what is left."""
    if work.account.papers is not None and work.account.holds[parcel_id].status == "held":
        work.step(parcel_id, "PaymentDocumentAmended")
        work.emit(PaymentDocumentAmended, payment_id, parcel_id=parcel_id, document=document(work.account, payment_id, parcel_id))
