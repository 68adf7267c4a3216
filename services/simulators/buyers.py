"""What the storefront says for its people: buyers, merchants, the arbiter and the finance clerk. Pure."""

from __future__ import annotations

import hashlib
import zlib

from schemas import orders_intake as buyer
from schemas.model import LineQuantity
from schemas.payments_provider_result import RecordManualPayout, SubmitEvidence
from schemas.topics import INTAKE, PROVIDER_RESULT
from services.simulators import platform
from services.simulators.outsiders import Heard, Memory, Message, Reaction, after, said_id

STOREFRONT, FINANCE = "/storefront", "/finance"
GRANT_MINOR = 100
SHORT_CODE, RIGHT_CODE, CHINESE_CODE = "950300", "9503004900", "9503008900"
# Whose merchant answers when papers into China are wrong, and with which code.
ANSWERS = {"china_mismatch": CHINESE_CODE, "china_mismatch_kept": SHORT_CODE, "china_list_rejected": CHINESE_CODE,
           "documents_supplied": CHINESE_CODE}
CORRECTS = frozenset(ANSWERS)



def _ask(low: float, high: float, memory: Memory, said: str, message: Message) -> list[Reaction]:
    return [after(low, high, memory, INTAKE.name, STOREFRONT, said, message)]


def supply(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The merchant looks the codes up."""
    event = heard.data
    lines = [buyer.SuppliedCode(line_no=line.line_no, hs_code=RIGHT_CODE) for line in event.missing]
    return _ask(6, 24, memory, f"supply:{event.order_id}", buyer.SupplyDocuments(order_id=event.order_id, lines=lines))


def correct(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The same for papers into China: the code of the parcel's first line, which is wrong on purpose; some get it wrong again."""
    event = heard.data
    line_no = memory.first_line[event.parcel_id][0] if event.parcel_id in memory.first_line else 1
    lines = [buyer.SuppliedCode(line_no=line_no, hs_code=ANSWERS[scenario])]
    return _ask(2, 12, memory, said_id("correct", heard.id), buyer.SupplyDocuments(order_id=event.order_id, lines=lines))


def cancel_planned(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    order_id = heard.data.order_id
    return _ask(0, 0, memory, f"cancel:{order_id}", buyer.CancelOrder(order_id=order_id, reason="changed my mind"))


def cancel_listed(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    order_id = heard.data.order_id
    return _ask(0, 0, memory, f"cancel:{order_id}", buyer.CancelOrder(order_id=order_id, reason="found it cheaper"))


def cancel_held(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    if memory.answered_another(heard):  # into China every parcel has a payment of its own; one cancellation is enough
        return []
    lines = [LineQuantity(line_no=1, quantity=1)] if scenario == "cancel_line" else None
    message = buyer.CancelOrder(order_id=event.order_id, lines=lines, reason="ordered by mistake")
    return _ask(0, 0.2, memory, said_id("cancel", event.payment_id), message)


def cancel_begun(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    lines = [LineQuantity(line_no=1, quantity=1)] if scenario == "cancel_begun_line" else None
    message = buyer.CancelOrder(order_id=event.order_id, lines=lines, reason="changed my mind")
    return _ask(0, 0.2, memory, f"cancel:{event.order_id}", message)  # one order, one wish, however many parcels are begun


def cancel_late(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    if memory.answered_another(heard):
        return []
    message = buyer.CancelOrder(order_id=event.order_id, reason="not needed any more")
    return _ask(0, 0.2, memory, f"cancel:{event.parcel_id}", message)


def buyer_has_it(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    order_id, parcel_id = heard.data.order_id, heard.data.parcel_id
    if scenario in ("never_confirmed", "bank_inquiry"):
        return []
    if scenario == platform.UPHELD:
        return platform.freeze(heard, scenario, memory)
    if scenario in ("return_whole", "china_returned", "china_return_kept"):
        message = buyer.RequestReturn(order_id=order_id, parcel_id=parcel_id, reason="not as expected")
        return _ask(12, 48, memory, f"return:{parcel_id}", message)
    if scenario == "return_line":
        line_no = memory.first_line.get(parcel_id, (1, False))[0]
        message = buyer.RequestReturn(order_id=order_id, parcel_id=parcel_id, reason="one too many",
                                      lines=[LineQuantity(line_no=line_no, quantity=1)])
        return _ask(12, 48, memory, f"return:{parcel_id}:{line_no}", message)
    if scenario in ("dispute_won", "dispute_lost"):
        message = buyer.OpenDispute(order_id=order_id, parcel_id=parcel_id, reason="the box was empty")
        return _ask(2, 24, memory, f"dispute:{parcel_id}", message)
    return _confirm(heard, scenario, memory)


def _confirm(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    message = buyer.ConfirmReceipt(order_id=event.order_id, parcel_id=event.parcel_id)
    return _ask(1, 24, memory, f"confirm:{event.parcel_id}", message)


def keeps_the_rest(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    # A buyer who does not remember confirms: of a parcel that is empty by now he is told so, of another nobody else would.
    more = memory.first_line.get(heard.data.parcel_id, (1, True))[1]
    return _confirm(heard, scenario, memory) if more else []  # what is left unsaid, the confirmation timer says


def arbitrate(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    drawn = zlib.crc32(event.parcel_id.encode(), memory.seed & 0xFFFFFFFF) & 1
    outcome = {"dispute_won": "won", "dispute_lost": "lost"}.get(scenario, "won" if drawn else "lost")
    message = buyer.ResolveDispute(order_id=event.order_id, parcel_id=event.parcel_id, outcome=outcome)
    return _ask(24, 48, memory, said_id("verdict", event.dispute_id), message)


def dispute_over(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    return _confirm(heard, scenario, memory) if heard.data.outcome == "won" else []


def after_completion(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    if memory.answered_another(heard):  # the order completes a second time, because of what was asked the first time
        return []
    settled = sorted(k for k, outcome in event.outcomes.items() if outcome == "delivered/settled")
    if scenario == "grant_refund":
        return [r for parcel_id in settled[:1] for r in _ask(
            6, 48, memory, f"grant:{event.order_id}",
            buyer.GrantRefund(order_id=event.order_id, parcel_id=parcel_id, amount=GRANT_MINOR, reason="goodwill"))]
    return [r for parcel_id in settled for r in _ask(
        6, 48, memory, f"return:{parcel_id}",
        buyer.RequestReturn(order_id=event.order_id, parcel_id=parcel_id, reason="broken after a day"))]


def prove(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    """The merchant sends what he has: the delivery's receipt, or of goods on their way the carrier's."""
    event = heard.data
    stage = "inquiry" if type(event).__name__ == "InformationRequested" else "chargeback"
    message = SubmitEvidence(order_id=event.order_id, dispute_id=event.dispute_id, evidence=f"{stage}-receipt.pdf")
    return [after(4, 20, memory, PROVIDER_RESULT.name, FINANCE, said_id("evidence", f"{event.dispute_id}:{stage}"), message)]


def pay_by_hand(heard: Heard, scenario: str, memory: Memory) -> list[Reaction]:
    event = heard.data
    reference = "BANK-" + hashlib.blake2b(event.payout_id.encode(), digest_size=6).hexdigest()
    message = RecordManualPayout(order_id=event.order_id, payout_id=event.payout_id, payment_id=event.payment_id,
                                 parcel_id=event.parcel_id, amount=event.amount, currency=event.currency,
                                 bank_reference=reference)
    return [after(4, 24, memory, PROVIDER_RESULT.name, FINANCE, said_id("payout", event.payout_id), message)]
