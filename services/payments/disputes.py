"""Disputes of the buyer's bank: what the provider tells of them, and who bears what was taken. Pure.

The provider takes the money first and asks afterwards. While nobody has decided, a parcel's money stands still: what was in
escrow is out of it, what the merchant had already is laid out by the platform (`advanced`), so that he is debited only for
what is lost: out of his reserve for the parcel first, as long as it is kept, then from what he has coming. A disputed payment
has several parcels; each bears its part of what its buyer still paid.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from schemas import payments_payment as out
from schemas.dead_letters import Reason
from schemas.lifecycle import CHARGEBACK, CONTESTS, Answer
from services.payments import shares
from services.payments.account import Account, Dispute, Hold, Payment, Work
from services.runtime.decision import Impossible, Incoming, NotYet, Stale

EVENTS = {"request_for_information": out.InformationRequested, "inquiry_closed": out.InquiryClosed,
          "chargeback": out.ChargebackOpened, "chargeback_reversed": out.ChargebackReversed,
          "second_chargeback": out.SecondChargeback, "lost": out.ChargebackLost}
TIMER, PAUSE = "evidence", "refund"  # the latter: refunds wait, because a bank has taken what they would be made of


def told(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """The provider says that a dispute has come to another stage."""
    account, event = work.account, incoming.data
    if not account.payments:
        return NotYet("ParcelsAllocated")
    payment = account.payments.get(event.payment_id)
    if payment is None or payment.status == "ended" or event.currency != account.currency:
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.dispute_id} is about {event.payment_id} in {event.currency}; the order is "
                         f"paid in {account.currency} by {', '.join(k for k, p in account.payments.items() if p.status != 'ended')}")
    if payment.status != "held":
        return NotYet("PaymentHeld")
    dispute = (account.disputes or {}).get(event.dispute_id) or Dispute(event.payment_id)
    answer, to = CHARGEBACK.answer(dispute.status, EVENTS[event.stage].__name__)
    if answer is Answer.NOT_YET:
        return NotYet(f"an earlier stage than {event.stage} of {event.dispute_id}")
    if answer is Answer.STALE:
        return Stale(f"{event.stage} of a dispute that is {dispute.status}")
    refused = _STAGES[event.stage](work, event, payment, dispute)
    if refused is None:
        dispute.status = "lost" if event.stage == "second_chargeback" else to
        account.disputes = {**(account.disputes or {}), event.dispute_id: dispute}
    return refused


def paid(hold: Hold) -> int:
    """What the buyer has not got back of what was captured; below zero: he has more than that."""
    return hold.captured - hold.refunded - hold.charged_back


def _parts(account: Account, parcels: Iterable[str], amount: int) -> dict[str, int]:
    """Parcel -> its part of `amount`, by what the buyer still paid for each, and beyond that by what he had back."""
    own = {k: max(0, paid(account.holds[k])) for k in parcels}
    left = sum(own.values())
    parts = _spread(own, min(amount, left))
    if amount > left:
        beyond = _spread({k: _room(account, k) - own[k] for k in own}, amount - left)
        parts |= {k: parts.get(k, 0) + part for k, part in beyond.items()}
    return parts


def _room(account: Account, parcel_id: str) -> int:
    """What was captured for it, without what banks have of it."""
    taken = [d for d in account.disputes.values() if d.status in ("taken", "lost")] if account.disputes else ()
    return account.holds[parcel_id].captured - sum(d.parts.get(parcel_id, 0) for d in taken)


def _spread(weights: dict[str, int], amount: int) -> dict[str, int]:
    """By weight, together `amount`; none more than its weight as long as all together are not."""
    whole, seen, given, parts = sum(weights.values()), 0, 0, {}
    for name, weight in weights.items():
        seen += weight
        upto = amount * seen // whole if whole else 0
        if upto > given:
            parts[name] = upto - given
        given = upto
    return parts


# -- the stages -------------------------------------------------------------------------------------------------------


def _asked(work: Work, event: Any, payment: Payment, dispute: Dispute) -> None:
    left = sum(max(0, paid(work.account.holds[k])) for k in payment.parcels)
    if not left:
        return  # the buyer has it back: nothing stands still, and nobody has to answer
    dispute.parts = _parts(work.account, payment.parcels, min(event.amount, left))
    _wait_for_evidence(work, event, dispute)
    for parcel_id, part in dispute.parts.items():
        work.account.holds[parcel_id].frozen.append(event.dispute_id)
        _emit(work, out.InformationRequested, event.dispute_id, dispute, parcel_id, part, reason=event.reason,
              evidence_due=event.evidence_due)


def _answered_well(work: Work, event: Any, payment: Payment, dispute: Dispute) -> None:
    _over(work, event.dispute_id, dispute)
    for parcel_id, part in dispute.parts.items():
        _emit(work, out.InquiryClosed, event.dispute_id, dispute, parcel_id, part)


def _opened(work: Work, event: Any, payment: Payment, dispute: Dispute) -> NotYet | None:
    wait = _take(work, event, payment, dispute, out.ChargebackOpened, reason=event.reason, evidence_due=event.evidence_due)
    if wait is None:
        dispute.sent = ""
        _wait_for_evidence(work, event, dispute)
    return wait


def _taken_again(work: Work, event: Any, payment: Payment, dispute: Dispute) -> NotYet | None:
    wait = _take(work, event, payment, dispute, out.SecondChargeback)
    if wait is None:
        _lost(work, event, payment, dispute)
    return wait


def _take(work: Work, event: Any, payment: Payment, dispute: Dispute, model: type, **fields: Any) -> NotYet | None:
    """Money left us. A call in flight may have met it at the provider: only its answer says what was there to be taken."""
    account = work.account
    if payment.intent:
        return NotYet("the provider's answer to the call in flight")
    parcels = dispute.parts if model is out.SecondChargeback else payment.parcels  # it is about the same ones
    if event.amount > (left := sum(_room(account, k) for k in parcels)):
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.dispute_id} takes {event.amount} of {event.payment_id}; by the ledger "
                         f"there is {left} that no bank has taken")
    parts = _parts(account, parcels, event.amount)
    if any(_moving(account.holds[k]) for k in parts):
        return NotYet("the money of its parcels to come to rest")
    for parcel_id in [k for k in dispute.parts if k not in parts and event.dispute_id in account.holds[k].frozen]:
        _thaw(account.holds[parcel_id], event.dispute_id)  # the bank had asked about it, and takes none of it
        _emit(work, out.InquiryClosed, event.dispute_id, dispute, parcel_id, dispute.parts[parcel_id])
    dispute.parts, dispute.laid_out, dispute.taken_at = parts, {}, work.now
    for parcel_id, part in parts.items():
        hold = account.holds[parcel_id]
        if laid := max(0, part - hold.held):
            dispute.laid_out[parcel_id] = laid
            hold.held += laid
            hold.recovered += laid
            work.book("recover_platform", dispute.payment_id, parcel_id, "advanced", "held", laid)
        hold.held -= part
        hold.charged_back += part
        work.book(event.stage, dispute.payment_id, parcel_id, "held", "charged_back", part)
        work.step(parcel_id, model.__name__)
        if event.dispute_id not in hold.frozen:
            hold.frozen.append(event.dispute_id)
        _emit(work, model, event.dispute_id, dispute, parcel_id, part, escrow=part - laid, **fields)
    return None


def _moving(hold: Hold) -> bool:
    """A payout by hand is open, a carrier's claim on its way to the merchant, or another dispute not decided."""
    return bool(hold.payout) or hold.status not in CONTESTS or hold.status == "recovered" and not hold.owed


def _reversed(work: Work, event: Any, payment: Payment, dispute: Dispute) -> None:
    _over(work, event.dispute_id, dispute)
    for parcel_id, part in dispute.parts.items():
        hold, laid = work.account.holds[parcel_id], dispute.laid_out.get(parcel_id, 0)
        hold.charged_back -= part
        hold.held += part - laid
        hold.released += laid
        work.book("chargeback_reversed", dispute.payment_id, parcel_id, "charged_back", "held", part)
        if laid:
            work.book("release_advance", dispute.payment_id, parcel_id, "held", "advanced", laid)
        work.step(parcel_id, "ChargebackReversed")
        _emit(work, out.ChargebackReversed, event.dispute_id, dispute, parcel_id, part, escrow=part - laid)
    dispute.laid_out = {}


def _lost(work: Work, event: Any, payment: Payment, dispute: Dispute) -> None:
    """For good: the merchant bears it, by less in escrow or out of what he has."""
    _over(work, event.dispute_id, dispute)
    for parcel_id, part in dispute.parts.items():
        hold, laid = work.account.holds[parcel_id], dispute.laid_out.get(parcel_id, 0)
        reserve = _reserve(work.account, hold, dispute, laid)
        if laid:
            work.post("chargeback_lost", dispute.payment_id, parcel_id, [
                ("advanced", laid), ("reserve", -reserve), ("merchant", reserve - laid)])
        dropped, fields = _drop(hold, part), {"reserve": reserve, "merchant": laid - reserve}
        whole = paid(hold) <= 0
        work.step(parcel_id, "ChargebackLost" if whole else "ChargebackPartlyLost")
        if whole:
            _emit(work, out.ChargebackLost, event.dispute_id, dispute, parcel_id, part, **fields)
            if hold.shares is not None:
                shares.even(work, dispute.payment_id, parcel_id, hold.shares)
        else:
            _emit(work, out.ChargebackPartlyLost, event.dispute_id, dispute, parcel_id, part, dropped=dropped, **fields)
    dispute.laid_out = {}


def _reserve(account: Account, hold: Hold, dispute: Dispute, laid: int) -> int:
    """Of what was laid out, the part that the parcel's reserve pays. A statement gives it back once its days are over, so
    that it must not be taken then; while the parcel is contested it stays."""
    own = hold.shares
    if own is None or not own.reserve or dispute.taken_at >= own.reserved_at + timedelta(days=account.terms.reserve_days):
        return 0
    part = min(laid, own.reserve)
    own.reserve -= part
    return part


def _drop(hold: Hold, part: int) -> list[str]:
    """The buyer owes less by what he took. What was to be refunded beyond that he has by now: the names of those refunds."""
    beyond, dropped = part - hold.due, []
    hold.due = max(0, hold.due - part)
    while beyond > 0 and hold.owed:
        last = hold.owed[-1]
        cut = min(beyond, last.amount)
        beyond -= cut
        last.amount -= cut
        if not last.amount:
            dropped.append(hold.owed.pop().ref)
    return dropped


# -- evidence ---------------------------------------------------------------------------------------------------------


def submitted(work: Work, incoming: Incoming) -> None:
    """The merchant's evidence; refused by name when it is of no use."""
    event, account = incoming.data, work.account
    dispute = (account.disputes or {}).get(event.dispute_id)
    if dispute is None:
        return _refuse(work, "", event, "unknown_dispute", "the order has no such dispute")
    if not dispute.parts or CHARGEBACK.answer(dispute.status, "EvidenceSubmitted")[0] is not Answer.APPLIED:
        return _refuse(work, dispute.payment_id, event, "not_open", f"the dispute is {dispute.status}")
    if dispute.evidence or dispute.sent:
        return _refuse(work, dispute.payment_id, event, "already_sent", f"{dispute.evidence or dispute.sent} was sent for this stage")
    if dispute.due is not None and work.now > dispute.due:
        return _refuse(work, dispute.payment_id, event, "too_late", f"it was due {dispute.due:%Y-%m-%d %H:%M} UTC")
    dispute.evidence = event.evidence
    return None


def _refuse(work: Work, payment_id: str, event: Any, reason: str, detail: str) -> None:
    work.emit(out.EvidenceRefused, payment_id, dispute_id=event.dispute_id, evidence=event.evidence, reason=reason, detail=detail)


def call(work: Work, payment_id: str) -> bool:
    """Send evidence that waits; True when there was some."""
    for dispute_id, dispute in work.account.disputes.items():
        if dispute.payment_id == payment_id and dispute.evidence:
            work.call(payment_id, "evidence", sum(dispute.parts.values()), dispute_id, dispute_id)
            return True
    return False


def answered(work: Work, event: Any, payment: Payment, dispute_id: str) -> None:
    dispute = work.account.disputes[dispute_id]
    evidence, dispute.evidence = dispute.evidence, ""
    if event.outcome == "failed":
        work.emit(out.EvidenceRefused, event.payment_id, dispute_id=dispute_id, evidence=evidence, reason=event.reason or "refused")
    elif CHARGEBACK.answer(dispute.status, "EvidenceSubmitted")[0] is Answer.APPLIED:
        dispute.sent = evidence
        work.account.timers.pop(f"{TIMER}:{dispute_id}", None)
        for parcel_id, part in dispute.parts.items():
            _emit(work, out.EvidenceSubmitted, dispute_id, dispute, parcel_id, part, evidence=evidence)


def missed(work: Work, dispute_id: str) -> None:
    """Its time is over. What is on its way to the provider may have been in time: then the answer tells."""
    dispute = work.account.disputes[dispute_id]
    if not dispute.evidence:
        for parcel_id, part in dispute.parts.items():
            _emit(work, out.EvidenceMissed, dispute_id, dispute, parcel_id, part)


def _wait_for_evidence(work: Work, event: Any, dispute: Dispute) -> None:
    dispute.due = event.evidence_due
    if event.evidence_due is not None:
        work.account.timers[f"{TIMER}:{event.dispute_id}"] = event.evidence_due


def _over(work: Work, dispute_id: str, dispute: Dispute) -> None:
    """Nothing of it stands still any more."""
    work.account.timers.pop(f"{TIMER}:{dispute_id}", None)
    work.account.timers.pop(f"{PAUSE}:{dispute.payment_id}", None)
    if not _in_flight(work.account.payments[dispute.payment_id], dispute_id):
        dispute.evidence = ""
    for parcel_id in dispute.parts:
        _thaw(work.account.holds[parcel_id], dispute_id)


def _in_flight(payment: Payment, dispute_id: str) -> bool:
    return bool(payment.intent) and (payment.intent_kind, payment.intent_parcel) == ("evidence", dispute_id)


def _thaw(hold: Hold, dispute_id: str) -> None:
    if dispute_id in hold.frozen:
        hold.frozen.remove(dispute_id)


def _emit(work: Work, model: type, dispute_id: str, dispute: Dispute, parcel_id: str, amount: int, **fields: Any) -> None:
    work.emit(model, dispute.payment_id, dispute_id=dispute_id, parcel_id=parcel_id, amount=amount, **fields)


_STAGES = {"request_for_information": _asked, "inquiry_closed": _answered_well, "chargeback": _opened,
           "chargeback_reversed": _reversed, "second_chargeback": _taken_again, "lost": _lost}
