"""Rules of disputes that buyers' banks open: nothing goes forward meanwhile, and whoever has to bears what is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from schemas.lifecycle import CHARGEBACK, CONTESTED, DISPUTED
from services.auditor.rules import Case, Verdict, order_rule
from services.auditor.story import Event

_ENDS = {"InquiryClosed", "ChargebackReversed", "ChargebackLost", "ChargebackPartlyLost"}
_LOST = ("ChargebackLost", "ChargebackPartlyLost")


@order_rule(44, "nothing of a contested parcel is released, and what its bank took is not refunded")
def stands_still(case: Case) -> Iterator[Verdict]:
    open_: dict[tuple[str, str], Event] = {}
    for event in case.story.events["payments"]:
        for parcel_id, _ in event.parcels:
            if event.type in DISPUTED:
                open_[parcel_id, event.data.ref] = event
            elif event.type in _ENDS:
                open_.pop((parcel_id, event.data.ref), None)
            elif event.type in ("PaymentSettled", "PaymentRefunded", "PaymentPartiallyRefunded"):
                stop = [e for (own, _), e in open_.items() if own == parcel_id
                        and (event.type == "PaymentSettled" or e.type != "InformationRequested")]
                yield [str(event), *(f"{e} is not decided" for e in stop)] if stop else None


@order_rule(44, "every dispute of a bank is decided", live=False)
def is_decided(case: Case) -> Iterator[Verdict]:
    for parcel_id, parcel in case.facts.parcels.items():
        for dispute_id, state in parcel.chargebacks.items():
            yield None if state in CHARGEBACK.terminal else [f"{dispute_id} of parcel {parcel_id} is {state}"]


@order_rule(44, "evidence is told to be missing only once its time is over")
def evidence_has_its_time(case: Case) -> Iterator[Verdict]:
    asked: dict[str, Event] = {}
    for event in case.story.events["payments"]:
        if event.type in ("InformationRequested", "ChargebackOpened"):
            asked[event.data.ref] = event
        elif event.type == "EvidenceMissed":
            due = asked[event.data.ref].data.due if event.data.ref in asked else None
            yield None if due is not None and event.time >= due else [str(event), f"at {event.time}", f"due {due}"]


@order_rule(44, "what was laid out is back once decided: by the bank, or out of the reserve and from the merchant", live=False)
def laid_out_is_back(case: Case) -> Iterator[Verdict]:
    paid: dict[str, Counter[str]] = {}
    kept: Counter[str] = Counter()
    for row in case.ledger:
        if row.account == "advanced" or row.kind == "chargeback_lost":
            paid.setdefault(row.parcel_id, Counter())[row.account] += row.amount
        if row.account == "reserve":
            kept[row.parcel_id] += row.amount
    for parcel_id, booked in paid.items():
        parcel = case.facts.parcels.get(parcel_id)
        if parcel is None or parcel.money in CONTESTED:
            continue
        told: Counter[str] = Counter()
        for event in case.story.of("payments", *_LOST):
            if event.parcels[0][0] == parcel_id:
                told.update(dict(event.data.parts))
        have = {"reserve": -booked["reserve"], "merchant": -booked["merchant"]}
        yield None if booked["advanced"] == 0 and have == {"reserve": told["reserve"], "merchant": told["merchant"]} else [
            f"parcel {parcel_id}", f"left laid out: {-booked['advanced']}", f"events {dict(told)}", f"ledger {have}"]
        yield None if kept[parcel_id] >= 0 else [f"parcel {parcel_id}: {-kept[parcel_id]} more than its reserve was taken"]
