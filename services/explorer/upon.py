"""What an event of ours makes possible: the provider, the buyer's bank, warehouses, carriers, customs and persons hear of it.

Each function offers what the words of a path allow; `UPON` says which event leads to which."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas.model import LineQuantity
from schemas.payments_provider_result import DisputeTold, RecordManualPayout, SubmitEvidence
from schemas.terms import ReportedAssessment
from services.explorer.offers import START, Offer, Send, Way, offer
from services.runtime.decision import Intent

BANK = {"bank", "bank late"}


def refund_or_bank(intent: Intent, yes: Send, no: Send) -> Offer:
    """The provider gives back what the bank has not taken; a token says where the money is."""
    payment_id = intent.body["payment_id"]
    bank = f"token the bank has {payment_id}"
    return Offer(f"refund {intent.intent_id}", (
        Way("answers yes to refund", (yes,), needs=(f"token money of {payment_id}",)),
        Way("refuses the refund: the bank has it", (no,), (Offer(bank, ()),), (bank,))), must=True)


def _bank(e: Any, amount: int) -> list[Offer]:
    """One dispute of a payment, stage by stage or all of it told in the wrong order."""
    money, bank, name = f"token money of {e.payment_id}", f"token the bank has {e.payment_id}", f"D-{e.payment_id}"

    def told(stage: str) -> Send:
        return Send(DisputeTold(order_id=e.order_id, dispute_id=name, payment_id=e.payment_id, stage=stage, amount=amount,
                                currency=e.currency, evidence_due=START + timedelta(days=7) if stage == "chargeback" else None),
                    "payments-webhook", f"dispute:{name}:{stage}")

    lost = Way("keeps it", (told("lost"),))
    again = Offer(f"bank again {name}", (Way("takes it again", (told("second_chargeback"),), (Offer(bank, ()),), (money,)),))
    back = Way("gives it back", (told("chargeback_reversed"),), (Offer(money, ()), again), (bank,))
    return [Offer(money, ()), Offer(f"bank {name}", (
        Way("takes it", (told("chargeback"),), (Offer(bank, ()), Offer(f"bank decides {name}", (lost, back), must=True)), (money,)),
        Way("asks, and takes it", (told("request_for_information"), told("chargeback")),
            (Offer(bank, ()), Offer(f"bank decides {name}", (lost, back), must=True)), (money,)),
        Way("asks, and has its answer", (told("request_for_information"), told("inquiry_closed"))),
        Way("takes it twice; it is told in the wrong order", (told("second_chargeback"), told("chargeback_reversed"),
                                                               told("chargeback")), (Offer(bank, ()),), (money,))))]


def _captured(e, words):
    return _bank(e, e.amount) if "bank" in words else []


def _settled(e, words):
    return _bank(e, e.amount) if "bank late" in words else []


def _taken(e, words):
    return [offer(f"evidence {e.dispute_id}", "sends evidence", Send(SubmitEvidence(
        order_id=e.order_id, dispute_id=e.dispute_id, evidence="E1"), "/finance", f"evidence:{e.dispute_id}"))
        ] if "evidence" in words else []


def _report(event: Any, model: type, who: str, extra: str = "", **fields: Any) -> Send:
    made = model(order_id=event.order_id, parcel_id=event.parcel_id, **fields)
    return Send(made, who, f"{model.__name__}:{event.parcel_id}{extra}")


def _again(e):
    """The box that replaces a spoiled one, all the way: told by its number."""
    legs = [(report.PackedReported, {}), (report.HandedOverReported, {"carrier": "c", "tracking_no": "T2"})]
    if e.regime != "domestic":
        legs += [(model, {}) for model in (report.ExportedReported, report.ArrivedReported, report.PresentedReported,
                                           report.CustomsReleaseReported)]
    legs += [(report.OutForDeliveryReported, {}), (report.DeliveredReported, {})]
    sends = [_report(e, model, "/warehouse/express", ":2", sscc=e.sscc, **fields) for model, fields in legs]
    return [Offer(f"send again {e.parcel_id}", (Way("sends it once more", tuple(sends)),), must=True)]


def _excursion(e, n: int):
    return offer(f"excursion {e.parcel_id} {n}", "was too warm", Send(report.ExcursionReported(
        order_id=e.order_id, parcel_id=e.parcel_id, excursion_id=f"{e.parcel_id}:{n}", began=START, until=START, minutes=60,
        worst_tenths=120), "/cold-chain", f"excursion:{e.parcel_id}:{n}"))


def _decide(e, words):
    return [Offer(f"decide {e.excursion_id}", tuple(Way(f"somebody decides: {decision}", (Send(report.RecordQualityDecision(
        order_id=e.order_id, parcel_id=e.parcel_id, excursion_id=e.excursion_id, decision=decision, decided_by="merchant"),
        "/merchant", f"decide:{e.excursion_id}:{decision}"),)) for decision in ("release", "reship", "refund")))]


def _inspect(e, words):
    return [Offer(f"look {e.parcel_id}", tuple(Way(f"finds it {result}", (_report(
        e, report.RecordInspection, "/inspector", f":{result}", inspection_id=e.inspection_id, result=result, decided_by="inspector"),))
        for result in ("genuine", "counterfeit")))]


def _fulfil(e, words):
    if e.replaces:
        return _again(e)
    packed = _report(e, report.PackedReported, "/warehouse")
    ways = [Way("packs", (packed,))]
    if "short" in words:
        one = [LineQuantity(line_no=e.lines[0].line_no, quantity=1)]
        ways.append(Way("finds one unit too few and packs the rest", (
            _report(e, report.ShortPickReported, "/warehouse", lines=one), packed)))
    if "rejects" in words:
        ways.append(Way("rejects the parcel", (_report(e, report.PackingRejected, "/warehouse", reason="broken"),)))
    pack = Offer(f"pack {e.parcel_id}", tuple(ways), must=True)
    if "begins" in words:
        begun = _report(e, report.PackingStartedReported, "/warehouse")
        pack = Offer(f"pack {e.parcel_id}", (Way("begins to pack", (begun,), (pack._replace(key=f"pack on {e.parcel_id}"),)),), must=True)
    offers = [pack]
    if "splits" in words and "." not in e.parcel_id:
        offers.append(offer(f"split {e.parcel_id}", "puts one unit into a parcel of its own", _report(
            e, report.SplitReported, "/warehouse", lines=[LineQuantity(line_no=e.lines[0].line_no, quantity=1)])))
    if "holds up" in words:
        resumed = _report(e, report.PackingResumedReported, "/warehouse")
        offers.append(Offer(f"hold up {e.parcel_id}", (Way(
            "holds the parcel up", (_report(e, report.PackingHeldReported, "/warehouse", reason="no carton"),),
            (offer(f"resume {e.parcel_id}", "goes on", resumed),), (f"token holds up {e.order_id}",)),)))
    if "inspects" in words:
        offers.append(offer(f"inspect {e.parcel_id}", "wants to look at it", _report(
            e, report.OpenInspection, "/inspector", inspection_id="I1", reason="random")))
    if "dispute" in words:
        offers.append(offer(f"dispute {e.parcel_id}", "the buyer disputes", Send(
            ask.OpenDispute(order_id=e.order_id, parcel_id=e.parcel_id), "/storefront", f"dispute:{e.parcel_id}")))
    return offers


def _packed(e, words):
    # As soon as it is packed: until it is read, anything may have happened to the parcel.
    spoiled = [_excursion(e, 1)] if "spoils" in words else []
    if "logs" in words:
        spoiled.append(offer(f"logger {e.parcel_id}", "its logger is heard", _report(e, report.LoggerHeard, "/cold-chain", at=START)))
    return [*spoiled, offer(f"hand over {e.parcel_id}", "takes the parcel",
                   _report(e, report.HandedOverReported, "/carrier", carrier="c", tracking_no="T1"), must=True)]


def _handed_over(e, words):
    offers = []
    if "destroys" in words:
        offers.append(offer(f"destroy {e.parcel_id}", "destroys the parcel", _report(e, report.DestroyedReported, "/carrier")))
    if "loses" in words:
        offers.append(offer(f"lose {e.parcel_id}", "reports the parcel lost", _report(e, report.LossReported, "/carrier")))
    if e.regime == "domestic":
        return offers + _last_mile(e, words)
    exported, arrived = (_report(e, model, "/carrier") for model in (report.ExportedReported, report.ArrivedReported))
    presented = _report(e, report.PresentedReported, "/customs")
    if "express" in words:
        return offers + [offer(f"carry {e.parcel_id}", "carries it across the border", exported, arrived, presented)]
    if "swaps" in words:
        return offers + [offer(f"export {e.parcel_id}", "scans the export", exported),
                         offer(f"arrive {e.parcel_id}", "scans the arrival", arrived),
                         offer(f"present {e.parcel_id}", "is shown the parcel", presented)]
    return offers + [offer(f"export {e.parcel_id}", "scans the export", exported)]


def _exported(e, words):
    if words & {"swaps", "express"}:
        return []
    return [offer(f"arrive {e.parcel_id}", "scans the arrival", _report(e, report.ArrivedReported, "/carrier"))]


def _arrived(e, words):
    if words & {"swaps", "express"}:
        return []
    return [offer(f"present {e.parcel_id}", "is shown the parcel", _report(e, report.PresentedReported, "/customs"))]


def _list(e, words):
    """Chinese customs' answer to an import list."""
    if e.import_list is None:
        return []

    def say(status):
        return _report(e, report.CarrierScanReported, "/customs", f":{e.import_list.list_no}:{status}", dialect="ceb622",
                       code=status, at=START, reason="as told", tracking_no=e.import_list.list_no)
    bonded = e.import_list.mode == "1210"
    ways = [Way("takes the list", (say("120"),), (Offer(f"bond {e.import_list.list_no}", (
        Way("releases the goods in bond", (say("800"),)),
        *((Way("inspects, then releases them", (say("500"), say("800"))),) if "holds" in words else ()),
        *((Way("sends the goods in bond back", (say("700"),)),) if "refuses" in words else ())), must=True),) if bonded else ())]
    if "rejects list" in words:
        ways += [Way("rejects the list", (say("100"),), needs=(f"token rejects list {e.order_id}",)),
                 Way("never got the list", (say("4"),), needs=(f"token rejects list {e.order_id}",)),
                 Way("finds the buyer above the limit", (say("-621018"),))]
    return [Offer(f"list {e.import_list.list_no}", tuple(ways), must=True)]


def _withdraw(e, words):
    """Chinese customs' answer when a list is revoked, or goods of it are returned."""
    form, list_no = ("CEB624", e.revokes) if hasattr(e, "revokes") else ("CEB626", e.returns_list)
    if not list_no:
        return []
    of = getattr(e, "return_id", "")
    return [Offer(f"withdraw {list_no} {of}", tuple(Way(f"{'takes' if accepted else 'does not take'} the list back", (_report(
        e, report.ListWithdrawalReported, "/customs", f":{list_no}:{of}:{accepted}", list_no=list_no, form=form, accepted=accepted,
        return_id=of),)) for accepted in ((True, False) if "keeps lists" in words else (True,))), must=True)]


def _customs(e, words):
    tell = _receipts if getattr(e, "destination", "") == "CN" and not getattr(e, "declared", None) else _report
    ways = [Way("releases", (tell(e, report.CustomsReleaseReported, "/customs"),))]
    if "assesses" in words and getattr(e, "declared", None):
        bill = ReportedAssessment(amount=e.declared.amount + 37, currency=e.declared.currency, document="T1")
        ways.append(Way("releases, and bills more", (_report(e, report.CustomsReleaseReported, "/customs", assessed=bill),)))
    if "holds" in words and type(e).__name__ == "CustomsPresented":
        ways.append(Way("holds", (tell(e, report.CustomsHoldReported, "/customs", reason="inspection"),)))
    if "refuses" in words:
        ways.append(Way("refuses", (tell(e, report.CustomsRefusalReported, "/customs", reason="forbidden"),)))
    return [Offer(f"decide {e.parcel_id}", tuple(ways))]


STATUSES = {"CustomsReleaseReported": "800", "CustomsHoldReported": "500", "CustomsRefusalReported": "-621018"}


def _receipts(e: Any, model: type, who: str, reason: str = "") -> Send:
    """The same as Chinese customs tells it: the status of an import list."""
    status = STATUSES[model.__name__]
    return _report(e, report.CarrierScanReported, who, f":{status}", dialect="ceb622", code=status, at=START, reason=reason)


def _scan(e: Any, code: str, minute: int, copy: str = "") -> Send:
    """A scan in the codes of UPU, so many minutes after the beginning; `copy`: the same scan once more, as another message."""
    return _report(e, report.CarrierScanReported, "/carrier", f":{code}:{minute}{copy}", dialect="upu", code=code,
                   at=START + timedelta(minutes=minute), reason="nobody at home" if code == "EMH" else "")


def _scanned_last_mile(e, words, attempt: int):
    """The scans may come in any order, the first also twice; the attempts may fail."""
    out, failed, done = (_scan(e, code, 10 * attempt + n) for n, code in enumerate(("EDG", "EMH", "EMI")))
    ways = [Way("scans the delivery", (done,))]
    if "fails" in words:
        ways.append(Way("scans a failed attempt", (failed,)))
    offers = [Offer(f"scan {e.parcel_id} {attempt} out", (Way("scans the way out", (out,)),)),
              Offer(f"scan {e.parcel_id} {attempt} door", tuple(ways))]
    if attempt == 1:  # once is enough to be taken for the second attempt
        offers.append(offer(f"scan {e.parcel_id} again", "scans the way out once more", _scan(e, "EDG", 10, "again")))
    return offers


def _last_mile(e, words, attempt: int = 1):
    """Out for delivery, and then at the door; a carrier does not wait for anybody between two scans."""
    if "scans" in words:
        return _scanned_last_mile(e, words, attempt)
    out = _report(e, report.OutForDeliveryReported, "/carrier", f":{attempt}")
    ways = [Way("delivers", (_report(e, report.DeliveredReported, "/carrier"),))]
    if "fails" in words:
        ways.append(Way("finds nobody at home", (_report(
            e, report.DeliveryFailureReported, "/carrier", f":{attempt}", attempt=attempt),)))
    if "pickup" in words:
        ways.append(Way("leaves it at a pickup point", (_report(e, report.AtPickupReported, "/carrier"),)))
    door = Offer(f"deliver {e.parcel_id} {attempt}", tuple(ways))
    if "swaps" in words:
        return [Offer(f"go out {e.parcel_id} {attempt}", (Way("goes out for delivery", (out,)),)), door]
    return [Offer(f"go out {e.parcel_id} {attempt}", (Way("goes out for delivery", (out,), (door,)),))]


def _failed(e, words):
    return _last_mile(e, words, e.attempt + 1) if e.attempt < 3 else []


def _at_pickup(e, words):
    return [offer(f"collect {e.parcel_id}", "gives it out at the pickup point",
                   _report(e, report.DeliveredReported, "/carrier"))]


def _delivered(e, words):
    offers = []
    if "confirm" in words:
        offers.append(offer(f"confirm {e.parcel_id}", "confirms", Send(
            ask.ConfirmReceipt(order_id=e.order_id, parcel_id=e.parcel_id), "/storefront", f"confirm:{e.parcel_id}")))
    return offers


def _arbiter(e, words):
    return [Offer(f"judge {e.parcel_id}", tuple(Way(f"the arbiter decides: {outcome}", (Send(
        ask.ResolveDispute(order_id=e.order_id, parcel_id=e.parcel_id, outcome=outcome), "/storefront",
        f"judge:{e.parcel_id}:{outcome}"),)) for outcome in ("won", "lost")), must=True)]


def _stop(e, words):
    ways = [Way("cannot stop it", (_report(e, report.InterceptRefused, "/carrier", reason="too late"),))]
    if "stops" in words:
        ways.append(Way("stops it", (_report(e, report.InterceptAccepted, "/carrier"),)))
    return [Offer(f"stop {e.parcel_id}", tuple(ways))]


def _may_be_undone(e, words):
    told = {"extra": f":{e.cancellation_id}", "cancellation_id": e.cancellation_id}
    return [Offer(f"undo {e.parcel_id} {e.cancellation_id}", (
        Way("the warehouse undoes it", (_report(e, report.CancellationAccepted, "/warehouse", **told),)),
        Way("the warehouse goes on", (_report(e, report.CancellationRefused, "/warehouse", reason="on the belt", **told),))))]


def _coming_back(e, words):
    return [offer(f"back {e.parcel_id}", "has the goods back", _report(e, report.ReturnedToSenderReported, "/warehouse"))]


def _lost(e, words):
    return [offer(f"claim {e.parcel_id}", "pays for the lost goods",
                   _report(e, report.ClaimPaidReported, "/carrier", amount=e.claim), must=True)]


def _return(e, words):
    return [offer(f"receive {e.return_id}", "receives the return", _report(
        e, report.ReturnReceivedReported, "/warehouse", f":{e.return_id}", return_id=e.return_id))]


def _payout(e, words):
    return [offer(f"payout {e.payout_id}", "the clerk pays by hand", Send(RecordManualPayout(
        order_id=e.order_id, payout_id=e.payout_id, payment_id=e.payment_id, parcel_id=e.parcel_id, amount=e.amount,
        currency=e.currency, bank_reference="B1"), "/finance", f"payout:{e.payout_id}"), must=True)]


UPON: dict[str, Callable[[Any, frozenset[str]], list[Offer]]] = {
    "PaymentHeld": _captured, "PaymentSettled": _settled, "ChargebackOpened": _taken,
    "DocumentsMatched": _list, "ParcelCancelled": _withdraw, "ReturnReceived": _withdraw, "FulfilmentRequested": _fulfil, "ParcelPacked": _packed, "ParcelHandedOver": _handed_over, "ParcelExported": _exported,
    "ParcelArrived": _arrived, "CustomsPresented": _customs, "CustomsHeld": _customs, "CustomsReleased": _last_mile,
    "DeliveryFailed": _failed, "ParcelAtPickup": _at_pickup, "ParcelDelivered": _delivered,
    "DisputeOpened": _arbiter, "InterceptRequested": _stop, "ParcelReturning": _coming_back, "CustomsRefused": _coming_back,
    "ParcelLost": _lost, "ReturnAuthorised": _return, "ManualPayoutRequested": _payout, "ParcelQuarantined": _decide,
    "InspectionHeld": _inspect, "CancellationAsked": _may_be_undone,
}
