"""What payments decides. Pure. One rule carries all exits: `_next` compares what should be with what is.

Each parcel has a hold: what the buyer still owes for it (`due`), what of it is held, and what has to go back (`owed`).
Whatever happens to goods only lowers `due`; `_next` then finds the one call that brings a payment closer to the truth:
authorise, capture, void, refund or release. A payment has at most one call in flight until its definite answer, else a
void would find nothing and the authorisation that was being retried would land after it.

Ledger (schemas/ledger.py): the rows of each entry add up to zero; per order and currency
captured + recovered = held + released + refunded + charged back. Who gets what of a release: shares.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from schemas import payments_payment as out
from schemas.dead_letters import Reason
from schemas.lifecycle import CONTESTED, PAYMENT, deadlines
from schemas.terms import Share
from services.payments import books, disputes, dividing, papers, reclaims, shares, stops
from services.payments.account import Account, Hold, Owed, Payment, Work
from services.runtime.decision import MERCHANT_STATUS, REAL_NAME, SCREENING, STANDING, TIMER, Decision, Impossible, Incoming, NotYet, Stale

REFUND_TRIES_MAX = 3
RELEASE_PAUSE = REFUND_PAUSE = timedelta(hours=1)
STATE = TypeAdapter(Account)


def decide(account: Account, document: None, incoming: Incoming, shared: None, now: datetime) -> Decision | NotYet | Stale:
    """One event, provider's answer or timer against the money of one order."""
    if incoming.type in MERCHANT_STATUS:
        return stops.merchant(account.draft(), incoming)
    if account.status in ("new", "books"):
        if incoming.type in books.HANDLERS:
            return books.decide(account, incoming, now)
        if incoming.type not in ("OrderPlaced", STANDING):
            return NotYet("OrderPlaced")
    draft = account.draft()
    work = Work(draft, now)
    answer = HANDLERS[incoming.type](work, incoming)
    if answer is not None:
        return answer
    for payment_id, payment in draft.payments.items():
        _next(work, payment_id, payment)
    draft.closed = bool(draft.holds) and all(_done(draft, p) for p in draft.payments.values())
    if draft.status in ("void", "books"):
        draft.closed = True
    elif draft.status != "new":
        draft.status = "closed" if draft.closed else "open"
    if draft.closed:
        draft.timers.clear()
    return Decision(draft, work.events, work.intents, work.answered, work.rows)


# -- the one rule -----------------------------------------------------------------------------------------------------


def _next(work: Work, payment_id: str, payment: Payment) -> None:
    """The call that brings this payment closer to what should be; none while one is in flight."""
    if payment.intent or payment.status == "ended":
        return
    holds = {k: work.account.holds[k] for k in payment.parcels}
    due = sum(h.due for h in holds.values())
    if payment.status == "new":
        if due:
            if not work.account.stops:
                work.call(payment_id, "authorise", due)
        else:
            _give_up(work, payment_id, payment, "PaymentVoided", 0)
    elif payment.status == "authorised":
        if not due or payment.expiring:
            work.call(payment_id, "void", payment.authorised)
        elif work.account.stops:
            return
        elif work.account.regime == "china" or all(h.documents for h in holds.values() if h.due):
            payment.capturing = {k: h.due for k, h in holds.items() if h.due}
            work.call(payment_id, "capture", due)
    else:
        _next_of_held(work, payment_id, holds)


def _next_of_held(work: Work, payment_id: str, holds: dict[str, Hold]) -> None:
    if work.account.disputes and disputes.call(work, payment_id):
        return
    for parcel_id, hold in holds.items():
        if hold.payout:
            continue
        if hold.owed:
            if hold.status in CONTESTED or f"{disputes.PAUSE}:{payment_id}" in work.account.timers:
                continue  # perhaps the buyer has it by then
            owed = hold.owed[0]
            if owed.amount > hold.held:  # it was with the merchant already
                _recover(work, payment_id, parcel_id, "merchant", owed.amount - hold.held)
            work.call(payment_id, "refund", owed.amount, parcel_id)
            return
        if f"release:{payment_id}" in work.account.timers:
            continue
        if hold.held and not hold.frozen and (hold.confirmed or hold.status == "recovered") and stops.may_release(work.account, hold):
            work.call(payment_id, "release", hold.held, parcel_id)
            return


def _recover(work: Work, payment_id: str, parcel_id: str, source: str, amount: int) -> None:
    hold = work.account.holds[parcel_id]
    work.step(parcel_id, "FundsRecovered")
    hold.held += amount
    hold.recovered += amount
    work.book(f"recover_{source}", payment_id, parcel_id, "claims" if source == "carrier" else source, "held", amount)
    work.emit(out.FundsRecovered, payment_id, parcel_id=parcel_id, amount=amount, recovered_from=source)


def _give_up(work: Work, payment_id: str, payment: Payment, event: str, amount: int, **fields: Any) -> None:
    """No capture will come: the payment's end for all its parcels."""
    payment.status = "ended"
    work.account.timers.pop(f"authorisation:{payment_id}", None)
    parcels = [out.ParcelAmount(parcel_id=k, amount=work.account.holds[k].due) for k in payment.parcels]
    for parcel_id in payment.parcels:
        work.step(parcel_id, event)
    if event != "PaymentDeclined":
        fields["amount"] = amount
    work.emit(getattr(out, event), payment_id, parcels=parcels, **fields)


def _done(account: Account, payment: Payment) -> bool:
    if payment.intent or payment.status in ("new", "authorised"):
        return False
    return payment.status == "ended" or all(
        account.holds[k].status in PAYMENT.terminal and not account.holds[k].owed and not account.holds[k].payout
        and not account.holds[k].frozen for k in payment.parcels)


# -- what orders and shipping say ---------------------------------------------------------------------------------------


def _placed(work: Work, incoming: Incoming) -> Stale | None:
    account, event = work.account, incoming.data
    if account.status != "new":
        return Stale("placed before")
    account.status = "open"
    account.merchant_id, account.currency, account.regime = event.merchant_id, event.currency, event.regime
    account.token = event.payment_token
    if event.screening == "REVIEW":
        account.stops = [*account.stops, SCREENING]
    if event.real_name:
        account.stops = [*account.stops, REAL_NAME]
    account.terms = event.terms
    if event.china is not None and event.china.platform:
        account.papers = event.china.platform, event.china.person
    account.duty = shares.duty_of(event.quote) if event.quote else None
    return None


def _allocated(work: Work, incoming: Incoming) -> Stale | None:
    account, event = work.account, incoming.data
    if account.holds:
        return Stale("allocated before")
    account.holds = {plan.parcel_id: Hold(plan.amount) for plan in event.parcels}
    if account.terms or account.duty:
        fee = account.duty.clearance_fee if account.duty else 0
        for hold, own in zip(account.holds.values(), shares.shares_of(event.parcels, fee)):
            hold.shares = own
    groups = [[p] for p in account.holds] if account.regime == "china" else [list(account.holds)]
    account.payments = {f"{account.order_id}-Y{n}": Payment(parcels) for n, parcels in enumerate(groups, 1)}
    return None


def _not_allocated(work: Work, incoming: Incoming) -> None:
    work.account.status = "void"  # no money has moved, and none will


def _documents(work: Work, incoming: Incoming) -> NotYet | None:
    if not work.account.holds:
        return NotYet("ParcelsAllocated")
    for parcel_id in incoming.data.parcel_ids:
        work.account.holds[parcel_id].documents = True
    return None


def _lowered(work: Work, incoming: Incoming) -> NotYet | None:
    """The buyer owes less for a parcel, for whatever reason shipping has."""
    event, account = incoming.data, work.account
    hold = account.holds.get(event.parcel_id)
    if hold is None:
        return NotYet("ParcelsAllocated")
    ref = ""
    if incoming.type == "ReturnReceived":
        waiting = next((names for names in (hold.frozen, hold.expired) if event.return_id in names), None)
        if waiting is None:
            return NotYet("ReturnRequested")
        waiting.remove(event.return_id)
        ref = event.return_id
        reclaims.noted(hold, event)
    elif incoming.type == "GrantPriced":
        ref = event.grant_id
    named = incoming.type in ("ParcelCancelled", "ParcelReturned", "ParcelDestroyed")  # elsewhere `reason` is somebody's free text
    reason = event.reason if named else REASONS[incoming.type]
    _lower(account, event.parcel_id, Owed(event.refund, reason, ref))
    return None


def _lower(account: Account, parcel_id: str, owed: Owed) -> None:
    hold = account.holds[parcel_id]
    owed.amount = min(owed.amount, hold.due)
    if hold.shares is not None:
        hold.shares.gone += owed.amount if owed.reason not in ("granted", "dispute_lost") else 0  # tax leaves with goods alone
    hold.due -= owed.amount
    payment = next(p for p in account.payments.values() if parcel_id in p.parcels)
    # Before the capture is under way, less is captured; from then on, what is too much goes back.
    if owed.amount and (hold.captured or parcel_id in payment.capturing):
        hold.owed.append(owed)


def _confirmed(work: Work, incoming: Incoming) -> NotYet | None:
    hold = work.account.holds.get(incoming.data.parcel_id)
    if hold is None:
        return NotYet("ParcelsAllocated")
    if (wait := dividing.awaited(work, incoming.data)) is not None:
        return wait
    hold.confirmed = True
    return None


def _frozen(work: Work, incoming: Incoming) -> NotYet | None:
    """A return or dispute begins: what is held stays held."""
    event = incoming.data
    hold = work.account.holds.get(event.parcel_id)
    if hold is None:
        return NotYet("ParcelsAllocated")
    hold.frozen.append(event.return_id if incoming.type == "ReturnRequested" else event.dispute_id)
    return None


def _thawed(work: Work, incoming: Incoming) -> NotYet | None:
    event = incoming.data
    if incoming.type == "DisputeResolved" and (wait := dividing.awaited(work, event)) is not None:
        return wait
    hold = work.account.holds[event.parcel_id]
    name = event.return_id if incoming.type == "ReturnExpired" else event.dispute_id
    if name in hold.frozen:
        hold.frozen.remove(name)
        if incoming.type == "ReturnExpired":
            hold.expired.append(name)
    if incoming.type == "DisputeResolved" and event.outcome == "lost":
        _lower(work.account, event.parcel_id, Owed(hold.due, "dispute_lost", name, "chargeback"))
    return None


def _assessed(work: Work, incoming: Incoming) -> NotYet | Stale | None:
    """Customs let a parcel in, and says what it asks for it."""
    event, account = incoming.data, work.account
    hold = account.holds.get(event.parcel_id)
    if hold is None or not hold.captured:
        return NotYet("PaymentHeld")
    if hold.shares is None or account.duty is None:
        return Stale("the tax was not paid with the order")
    if event.assessed.currency not in (account.currency, account.duty.currency):
        raise Impossible(Reason.AMOUNT_MISMATCH, f"assessed in {event.assessed.currency}; the order is in {account.currency},"
                         f" its customs count in {account.duty.currency}")
    payment_id = next(k for k, p in account.payments.items() if event.parcel_id in p.parcels)
    shares.assessed(work, payment_id, event.parcel_id, hold, event.assessed)
    return None


def _claim_paid(work: Work, incoming: Incoming) -> NotYet | None:
    """The carrier pays for what it lost, once the buyer has the money back; it goes on to the merchant."""
    event = incoming.data
    hold = work.account.holds.get(event.parcel_id)
    if hold is None or hold.status not in ("refunded", "charged_back"):
        return NotYet("PaymentRefunded")
    payment_id = next(k for k, p in work.account.payments.items() if event.parcel_id in p.parcels)
    if event.amount:
        _recover(work, payment_id, event.parcel_id, "carrier", event.amount)
    return None


# -- what the provider says ---------------------------------------------------------------------------------------------


def _answered(work: Work, incoming: Incoming) -> Stale | None:
    event = incoming.data
    payment = work.account.payments.get(event.payment_id)
    if payment is None or payment.intent != event.intent_id:
        return Stale("answer to a call that is not open")
    if (event.kind, event.currency) != (payment.intent_kind, work.account.currency) or (
            event.outcome == "succeeded" and event.amount != payment.intent_amount):
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.intent_id}: asked to {payment.intent_kind} {payment.intent_amount} "
                         f"{work.account.currency}, answered {event.kind} {event.amount} {event.currency}")
    parcel_id, payment.intent = payment.intent_parcel, ""
    payment.reference = event.provider_reference or payment.reference
    work.answered.append(event.intent_id)
    {"authorise": _authorise_answered, "capture": _capture_answered, "void": _void_answered,
     "refund": _refund_answered, "release": _release_answered, "evidence": disputes.answered}[event.kind](work, event, payment, parcel_id)
    return None


def _authorise_answered(work: Work, event: Any, payment: Payment, _: str) -> None:
    if event.outcome == "failed":
        _give_up(work, event.payment_id, payment, "PaymentDeclined", 0, reason=event.reason or "declined")
        return
    payment.status, payment.authorised = "authorised", event.amount
    if work.account.regime == "china":
        return  # authorisation and capture collapse into one payment: nobody needs to know of the first half
    for parcel_id in payment.parcels:
        work.step(parcel_id, "PaymentAuthorised")
    work.account.timers[f"authorisation:{event.payment_id}"] = work.now + timedelta(seconds=deadlines()["authorisation"])
    work.emit(out.PaymentAuthorised, event.payment_id, amount=event.amount, parcels=[
        out.ParcelAmount(parcel_id=k, amount=work.account.holds[k].due) for k in payment.parcels])


def _capture_answered(work: Work, event: Any, payment: Payment, _: str) -> None:
    capturing, payment.capturing = payment.capturing, {}
    if event.outcome == "failed":
        for parcel_id in capturing:
            work.account.holds[parcel_id].owed.clear()
        payment.expiring, payment.refused = True, event.reason or "capture refused"  # the buyer's card must not stay blocked
        return
    payment.status = "held"
    work.account.timers.pop(f"authorisation:{event.payment_id}", None)
    held, left = [], []
    for parcel_id in payment.parcels:
        hold, amount = work.account.holds[parcel_id], capturing.get(parcel_id, 0)
        (held if amount else left).append(out.ParcelAmount(parcel_id=parcel_id, amount=amount))
        work.step(parcel_id, "PaymentHeld" if amount else "PaymentVoided")
        if amount:
            hold.captured = hold.held = amount
            work.book("capture", event.payment_id, parcel_id, "buyer", "held", amount)
    work.emit(out.PaymentHeld, event.payment_id, amount=event.amount, parcels=held,
              document=papers.document(work.account, event.payment_id, held[0].parcel_id))
    if left:
        work.emit(out.PaymentVoided, event.payment_id, amount=0, parcels=left)


def _void_answered(work: Work, event: Any, payment: Payment, _: str) -> None:
    # A refused void means that the provider holds no authorisation any more, which is what a void is for.
    if work.account.regime == "china" and payment.refused:
        _give_up(work, event.payment_id, payment, "PaymentDeclined", payment.authorised, reason=payment.refused)
        return
    _give_up(work, event.payment_id, payment, "PaymentExpired" if payment.expiring and work.account.regime != "china"
             else "PaymentVoided", payment.authorised)


def _refund_answered(work: Work, event: Any, payment: Payment, parcel_id: str) -> None:
    hold = work.account.holds[parcel_id]
    owed = hold.owed[0]
    if event.outcome == "succeeded":
        _refunded(work, event.payment_id, parcel_id, "provider")
        return
    if event.reason == "exceeds_captured":  # the buyer's bank was faster, and the provider has not told us yet
        work.account.timers[f"{disputes.PAUSE}:{event.payment_id}"] = work.now + REFUND_PAUSE
        return
    owed.tries += 1
    if owed.tries >= REFUND_TRIES_MAX:
        hold.payout = f"{event.payment_id}.payout.{payment.calls}"
        work.step(parcel_id, "RefundFailed")
        work.emit(out.RefundFailed, event.payment_id, parcel_id=parcel_id, amount=owed.amount, detail=event.reason)
        work.step(parcel_id, "ManualPayoutRequested")
        work.emit(out.ManualPayoutRequested, event.payment_id, parcel_id=parcel_id, amount=owed.amount, payout_id=hold.payout)


def _refunded(work: Work, payment_id: str, parcel_id: str, via: str) -> None:
    hold = work.account.holds[parcel_id]
    owed = hold.owed.pop(0)
    hold.held -= owed.amount
    if owed.kind == "chargeback":
        hold.charged_back += owed.amount
        work.step(parcel_id, "PaymentChargedBack")
        work.book("charge_back", payment_id, parcel_id, "held", "charged_back", owed.amount)
        work.emit(out.PaymentChargedBack, payment_id, parcel_id=parcel_id, amount=owed.amount)
        if hold.shares is not None:
            shares.even(work, payment_id, parcel_id, hold.shares)
        return
    hold.refunded += owed.amount
    model = out.PaymentPartiallyRefunded if hold.due or hold.owed else out.PaymentRefunded
    work.step(parcel_id, model.__name__)
    work.book("refund" if via == "provider" else "manual_payout", payment_id, parcel_id, "held", "refunded", owed.amount)
    work.emit(model, payment_id, parcel_id=parcel_id, amount=owed.amount, reason=owed.reason, ref=owed.ref, via=via)
    if model is out.PaymentPartiallyRefunded:
        papers.amend(work, payment_id, parcel_id)
    if hold.shares is not None and model is out.PaymentRefunded:
        shares.even(work, payment_id, parcel_id, hold.shares)


def _release_answered(work: Work, event: Any, payment: Payment, parcel_id: str) -> None:
    hold = work.account.holds[parcel_id]
    if event.outcome == "failed":
        # The merchant's account is blocked: ask again later, the money stays held meanwhile.
        work.account.timers[f"release:{event.payment_id}"] = work.now + RELEASE_PAUSE
        return
    parts: list[Share] = []
    if hold.shares is not None:
        parts = shares.release(work, event.payment_id, parcel_id, hold, event.amount)
    else:
        work.book("release_claim" if hold.status == "recovered" else "release", event.payment_id, parcel_id, "held", "merchant", event.amount)
    hold.held -= event.amount
    hold.released += event.amount
    work.step(parcel_id, "PaymentSettled")
    work.emit(out.PaymentSettled, event.payment_id, parcel_id=parcel_id, amount=event.amount, shares=parts)


def _paid_by_hand(work: Work, incoming: Incoming) -> Stale | None:
    event = incoming.data
    hold = work.account.holds.get(event.parcel_id)
    if hold is None or hold.payout != event.payout_id:
        return Stale("no such payout is open")
    if event.amount != hold.owed[0].amount or event.currency != work.account.currency:
        raise Impossible(Reason.AMOUNT_MISMATCH, f"{event.payout_id} asks for {hold.owed[0].amount} {work.account.currency}")
    hold.payout = ""
    _refunded(work, event.payment_id, event.parcel_id, "manual_payout")
    return None


def _timer(work: Work, incoming: Incoming) -> None:
    for name in sorted(n for n, due in work.account.timers.items() if due <= work.now):
        del work.account.timers[name]
        kind, payment_id = name.split(":", 1)
        if kind == disputes.TIMER:
            disputes.missed(work, payment_id)
            continue
        payment = work.account.payments[payment_id]
        if kind == "authorisation" and payment.status == "authorised" and not payment.capturing:
            payment.expiring = True


REASONS = {"ParcelShortPicked": "short_pick", "ParcelLinesCancelled": "lines_cancelled", "CustomsRefused": "customs_refused",
           "ReturnReceived": "returned", "GrantPriced": "granted", "ParcelLost": "lost", "ParcelCancelled": "",
           "ParcelReturned": "", "ParcelDestroyed": "", "QualityRefunded": "spoiled"}

HANDLERS = {
    **dict.fromkeys(MERCHANT_STATUS), STANDING: stops.stands, "OrderHeld": stops.held, "OrderResumed": stops.resumed,
    "OrderPlaced": _placed, "ReceiptConfirmed": _confirmed, "ReturnRequested": _frozen, "ReturnExpired": _thawed,
    "DisputeOpened": _frozen, "DisputeResolved": _thawed,
    "ParcelsAllocated": _allocated, "AllocationFailed": _not_allocated, "DocumentsReady": _documents,
    "ParcelSplit": dividing.divided,
    **dict.fromkeys(REASONS, _lowered), "ClaimPaid": _claim_paid, "DutyAssessed": _assessed, "ListWithdrawn": reclaims.answered,
    "ProviderAnswered": _answered, "RecordManualPayout": _paid_by_hand,
    "DisputeTold": disputes.told, "SubmitEvidence": disputes.submitted,
    **dict.fromkeys(books.HANDLERS, books.misplaced), TIMER: _timer,
}
