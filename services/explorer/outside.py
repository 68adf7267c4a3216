"""What the world outside may do, as an alphabet: which answers a path allows to whom.

An event of ours makes offers ("the warehouse may pack, or find too little"); each offer is taken in one of its ways at any
later moment, or never, unless it `must` come: the provider is asked until it answers, a claim is paid some day. What only a
person may wish (cancel, return, grant, dispute) is on offer from the start. Ways that would go round for ever take a token.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from schemas import brands, merchants
from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas.model import LineQuantity
from schemas.terms import ReportedAssessment
from schemas.payments_provider_result import DisputeTold, ProviderAnswered, RecordManualPayout, SubmitEvidence
from services.runtime.decision import Intent


class Way(NamedTuple):
    """One way to take an offer: records to send, (model, source, id) or with planted/late; tokens it takes; what it opens."""

    label: str
    sends: tuple = ()
    opens: tuple[Offer, ...] = ()
    needs: tuple[str, ...] = ()


class Offer(NamedTuple):
    key: str
    ways: tuple[Way, ...]
    must: bool = False


class Send(NamedTuple):
    model: Any
    source: str
    id: str
    planted: bool = False
    late: bool = False


WORDS = {
    "decline": "the provider declines the authorisation", "capture fails": "the provider refuses a capture",
    "void fails": "the provider refuses a void", "refund fails": "the provider refuses refunds",
    "release fails": "the provider refuses a release, twice at most", "answers twice": "answers come again, by webhook and caller",
    "contradicts": "the provider says afterwards the opposite of its answer", "wrong amount": "an answer names another amount",
    "short": "the warehouse finds one unit too few", "rejects": "the warehouse rejects a parcel",
    "splits": "the warehouse puts one unit of a parcel into one of its own, at any moment",
    "begins": "the warehouse tells that it has begun to pack, and says yes or no to a cancellation",
    "holds up": "the warehouse holds a parcel up, once, and may go on", "destroys": "the carrier destroys a parcel",
    "spoils": "an excursion is found, a person decides in every way",
    "logs": "the logger of a parcel is heard once more, at any moment",
    "pickup": "the carrier leaves a parcel at a pickup point", "scans": "the carrier tells in codes of UPU, in any order",
    "assesses": "customs bills the tax, as declared or not",
    "rejects list": "Chinese customs does not take an import list, twice at most",
    "keeps lists": "Chinese customs may not take back what is returned",
    "holds": "customs holds a parcel", "refuses": "customs refuses a parcel", "fails": "deliveries fail",
    "loses": "the carrier reports a parcel lost", "stops": "the carrier stops a parcel when asked",
    "swaps": "scans come in the wrong order", "express": "the scans of a leg come all at once",
    "confirm": "the buyer confirms", "cancel": "the buyer cancels at any moment", "cancel line": "the buyer cancels one unit",
    "return": "the buyer sends all back", "return line": "the buyer sends one unit back",
    "supply": "the merchant supplies the missing customs code",
    "supply digits": "the merchant supplies a customs code of ten digits, as China asks for it",
    "return late": "the buyer asks weeks later to send it back", "grant": "the merchant grants a refund of everything",
    "grant amount": "the merchant grants an amount", "grant line": "the merchant grants one unit's price",
    "dispute": "the buyer disputes, an arbiter decides either way", "inbound": "goods arrive at the warehouse",
    "officer": "an officer decides about a buyer who is nearly a denied party",
    "fog": "the lane that a parcel is planned to fly on is closed, and opened again",
    "inspects": "somebody wants to look at a parcel at any moment, and finds it genuine or not",
    "brand": "an authorisation of the brand is revoked, and another granted",
    "bank": "the buyer's bank asks, takes the money back, gives it back, takes it again, and the provider tells late",
    "bank late": "the same, after the money was released", "evidence": "the merchant sends evidence against a chargeback",
    "registry": "a registry says whose the buyer's identity number is, or cannot, and an officer says",
    "rescreens": "a newer list of denied parties means the buyer, or nearly",
    "terms": "the merchant's terms change for new orders",
    "freeze": "the merchant is frozen, and the freeze lifted or upheld",
    "resend": "each service publishes a batch twice (a crash before the acknowledgement)",
}
START = datetime(2026, 11, 23, 12, tzinfo=UTC)  # as in simulation.py
TOKENS = {"holds up": 1, "rejects list": 2, "release fails": 2, "refund fails": 4, "contradicts": 1, "wrong amount": 1, "answers twice": 2}


BRAND = brands.brand_key("ACME")


def authorisation(id: str) -> brands.GrantAuthorisation:
    """The brand's owner lets the merchant sell it everywhere."""
    return brands.GrantAuthorisation(order_id=BRAND, authorisation_id=id, grantor="acme", grantee="m1", territory=["*"], decided_by="officer",
                                     valid_from=START.date(), valid_to=START.date(), doc_hash="ab" * 32)


class Outside:
    """The offers of one order's world. `words` are keys of WORDS."""

    def __init__(self, words: frozenset[str]):
        if unknown := words - set(WORDS):
            raise ValueError(f"no word of the alphabet: {sorted(unknown)}")
        self.words = words

    def at_first(self, order_id: str, inbound: tuple = ()) -> list[Offer]:
        """Wishes that may come at any moment, and the tokens. `inbound`: (warehouse, sku, quantity) that may arrive."""
        wishes = [
            ("cancel", ask.CancelOrder(order_id=order_id)),
            ("cancel line", ask.CancelOrder(order_id=order_id, lines=[LineQuantity(line_no=1, quantity=1)])),
            ("supply", ask.SupplyDocuments(order_id=order_id, lines=[ask.SuppliedCode(line_no=1, hs_code="080929")])),
            ("supply digits", ask.SupplyDocuments(order_id=order_id, lines=[ask.SuppliedCode(line_no=1, hs_code="0809290000")])),
            ("return", ask.RequestReturn(order_id=order_id)),
            ("return line", ask.RequestReturn(order_id=order_id, lines=[LineQuantity(line_no=1, quantity=1)])),
            ("return late", ask.RequestReturn(order_id=order_id, reason="late")),
            ("grant", ask.GrantRefund(order_id=order_id)),
            ("grant amount", ask.GrantRefund(order_id=order_id, amount=100, parcel_id=f"{order_id}-P1")),
            ("grant line", ask.GrantRefund(order_id=order_id, lines=[LineQuantity(line_no=1, quantity=1)])),
        ]
        offers = [_offer(f"{word} {order_id}", word, Send(model, "/storefront", f"{word}-{order_id}".replace(" ", "-"),
                                                         late=word == "return late"))
                  for word, model in wishes if word in self.words]
        for warehouse, sku, quantity in inbound:
            offers.append(_offer(f"inbound {warehouse} {sku}", f"{quantity} units of {sku} arrive at {warehouse}", Send(
                report.InboundReceived(order_id=f"stock:{warehouse}:{sku}", warehouse=warehouse, sku=sku, quantity=quantity),
                "/warehouse", f"inbound-{warehouse}-{sku}")))
        if "rescreens" in self.words:
            offers.append(Offer(f"rescreen {order_id}", tuple(Way(f"a newer list: {result}", (Send(ask.RescreenOrder(
                order_id=order_id, result=result, screening_list="L2"), "/screening", f"rescreen:{order_id}:{result}"),))
                for result in ("BLOCK", "REVIEW"))))
        if "officer" in self.words:
            offers.append(Offer(f"screen {order_id}", tuple(Way(f"the officer decides: {outcome}", (Send(ask.DecideScreening(
                order_id=order_id, outcome=outcome, decided_by="officer"), "/platform", f"screen:{order_id}:{outcome}"),))
                for outcome in ("clear", "block"))))
        if "registry" in self.words:
            offers.append(Offer(f"ask {order_id}", tuple(Way(f"the registry says: {outcome}", (Send(ask.AnswerRealName(
                order_id=order_id, outcome=outcome, decided_by="registry"), "/registry", f"real-name:{order_id}"),), (Offer(
                    f"look {order_id}", tuple(Way(f"an officer says: {seen}", (Send(ask.AnswerRealName(
                        order_id=order_id, outcome=seen, decided_by="officer"), "/platform", f"look:{order_id}:{seen}"),))
                        for seen in ("match", "mismatch"))),)) for outcome in ("match", "mismatch", "unknown"))))
        if "fog" in self.words:
            offers.append(_fog())
        if "brand" in self.words:
            offers.append(Offer(f"revoke {order_id}", (Way("revokes the authorisation", (Send(brands.RevokeAuthorisation(
                order_id=BRAND, authorisation_id="A1", decided_by="officer"), "/platform", f"revoke-{order_id}"),), (
                    _offer(f"grant {order_id}", "grants another one", Send(authorisation("A2"), "/platform", f"grant-{order_id}")),)),)))
        if "freeze" in self.words:
            offers.append(_freeze(order_id))
        if "terms" in self.words:
            offers.append(_offer(f"terms {order_id}", "the merchant's terms change", Send(merchants.ChangeTerms(
                order_id=f"{merchants.MERCHANT}split", fee_plan="more", valid_from=START.date(), decided_by="officer"), "/platform", "terms")))
        offers += [Offer(f"token {word} {order_id}", ()) for word, many in TOKENS.items() if word in self.words
                   for _ in range(many)]
        return offers

    def upon(self, event: Any) -> list[Offer]:
        """What an event of ours makes possible."""
        act = _UPON.get(type(event).__name__)
        return act(event, self.words) if act else []

    def asked(self, order_id: str, intent: Intent) -> Offer:
        """The provider's answer to a call: it must come, some day."""
        body, words = intent.body, self.words

        def answer(outcome: str, amount: int, source: str = "payments-caller", id: str = "", planted: bool = False,
                   reason: str = "refused") -> Send:
            return Send(ProviderAnswered(
                order_id=order_id, intent_id=intent.intent_id, payment_id=body["payment_id"], kind=intent.kind,
                outcome=outcome, amount=amount, currency=body["currency"], provider_reference=f"R:{intent.intent_id}",
                reason="" if outcome == "succeeded" else reason), source, id or f"answer:{intent.intent_id}", planted)

        yes, no = answer("succeeded", body["amount"]), answer("failed", 0)
        if words & BANK and intent.kind == "refund":
            return _refund_or_bank(intent, yes, answer("failed", 0, reason="exceeds_captured"))
        ways = [self._answered("yes", order_id, intent, yes, answer("failed", 0, planted=True), answer)]
        word = "decline" if intent.kind == "authorise" else f"{intent.kind} fails"
        if word in words:
            token = (f"token {word} {order_id}",) if word in TOKENS else ()
            ways.append(self._answered("no", order_id, intent, no, answer("succeeded", body["amount"], planted=True), answer,
                                       token))
        if "wrong amount" in words and body["amount"] > 1:
            wrong = answer("succeeded", body["amount"] - 1, planted=True)
            corrected = answer("succeeded", body["amount"], id=f"answer:{intent.intent_id}#corrected")
            ways.append(Way("answers with another amount", (wrong,), (Offer(f"correct {intent.intent_id}", (
                Way("the answer is corrected by hand", (corrected,)),), must=True),), (f"token wrong amount {order_id}",)))
        return Offer(f"{intent.kind} {intent.intent_id}", tuple(ways), must=True)

    def _answered(self, what: str, order_id: str, intent: Intent, first: Send, opposite: Send, answer: Callable,
                  needs: tuple[str, ...] = ()) -> Way:
        """An answer, and what the provider may say of it afterwards."""
        opens, both = [], self.words >= {"answers twice", "contradicts"}  # then one id may come with two contents
        name = f"{intent.kind} {intent.intent_id}"
        if "answers twice" in self.words:
            opens.append(Offer(f"again {name}", (
                Way("the answer comes again", (first,), needs=(f"token answers twice {order_id}",)),
                Way("the answer comes by webhook too", (first._replace(source="payments-webhook", planted=both),),
                    needs=(f"token answers twice {order_id}",)))))
        if "contradicts" in self.words:
            token = (f"token contradicts {order_id}",)
            opens.append(Offer(f"contradict {name}", (
                Way("the provider's caller says the opposite", (opposite,), needs=token),
                Way("the provider's webhook says the opposite",
                    (opposite._replace(source="payments-webhook", planted=both),), needs=token))))
        return Way(f"answers {what} to {intent.kind}", (first,), tuple(opens), needs)


def _offer(key: str, label: str, *sends: Send, must: bool = False) -> Offer:
    return Offer(key, (Way(label, sends),), must)


FOGGY = "USSEA-DEBER-air"


def _fog() -> Offer:
    """One lane closed in a story, and opened again or not."""
    who = {"order_id": f"{report.LANE}{FOGGY}", "lane": FOGGY}
    again = Offer("open the lane", (Way("the fog lifts", (Send(report.OpenLane(**who), "/operations", "open-lane"),)),))
    return Offer("close the lane", (Way("fog", (Send(report.CloseLane(**who, reason="fog"), "/operations", "close-lane"),), (again,)),))


def _freeze(order_id: str) -> Offer:
    """One freeze a story, and its end."""
    who = {"order_id": f"{merchants.MERCHANT}m1", "decided_by": "officer"}
    ends = tuple(Way(f"the freeze is {outcome}", (Send(merchants.DecideAppeal(outcome=outcome, **who), "/platform",
                                                       f"decide-{order_id}"),)) for outcome in ("lifted", "upheld"))
    return Offer(f"freeze {order_id}", (Way("freezes the merchant", (
        Send(merchants.FreezeMerchant(reason="counterfeit", **who), "/platform", f"freeze-{order_id}"),),
        (Offer(f"decide {order_id}", ends, must=True),)),))


BANK = {"bank", "bank late"}


def _refund_or_bank(intent: Intent, yes: Send, no: Send) -> Offer:
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
    return [_offer(f"evidence {e.dispute_id}", "sends evidence", Send(SubmitEvidence(
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
    return _offer(f"excursion {e.parcel_id} {n}", "was too warm", Send(report.ExcursionReported(
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
        offers.append(_offer(f"split {e.parcel_id}", "puts one unit into a parcel of its own", _report(
            e, report.SplitReported, "/warehouse", lines=[LineQuantity(line_no=e.lines[0].line_no, quantity=1)])))
    if "holds up" in words:
        resumed = _report(e, report.PackingResumedReported, "/warehouse")
        offers.append(Offer(f"hold up {e.parcel_id}", (Way(
            "holds the parcel up", (_report(e, report.PackingHeldReported, "/warehouse", reason="no carton"),),
            (_offer(f"resume {e.parcel_id}", "goes on", resumed),), (f"token holds up {e.order_id}",)),)))
    if "inspects" in words:
        offers.append(_offer(f"inspect {e.parcel_id}", "wants to look at it", _report(
            e, report.OpenInspection, "/inspector", inspection_id="I1", reason="random")))
    if "dispute" in words:
        offers.append(_offer(f"dispute {e.parcel_id}", "the buyer disputes", Send(
            ask.OpenDispute(order_id=e.order_id, parcel_id=e.parcel_id), "/storefront", f"dispute:{e.parcel_id}")))
    return offers


def _packed(e, words):
    # As soon as it is packed: until it is read, anything may have happened to the parcel.
    spoiled = [_excursion(e, 1)] if "spoils" in words else []
    if "logs" in words:
        spoiled.append(_offer(f"logger {e.parcel_id}", "its logger is heard", _report(e, report.LoggerHeard, "/cold-chain", at=START)))
    return [*spoiled, _offer(f"hand over {e.parcel_id}", "takes the parcel",
                   _report(e, report.HandedOverReported, "/carrier", carrier="c", tracking_no="T1"), must=True)]


def _handed_over(e, words):
    offers = []
    if "destroys" in words:
        offers.append(_offer(f"destroy {e.parcel_id}", "destroys the parcel", _report(e, report.DestroyedReported, "/carrier")))
    if "loses" in words:
        offers.append(_offer(f"lose {e.parcel_id}", "reports the parcel lost", _report(e, report.LossReported, "/carrier")))
    if e.regime == "domestic":
        return offers + _last_mile(e, words)
    exported, arrived = (_report(e, model, "/carrier") for model in (report.ExportedReported, report.ArrivedReported))
    presented = _report(e, report.PresentedReported, "/customs")
    if "express" in words:
        return offers + [_offer(f"carry {e.parcel_id}", "carries it across the border", exported, arrived, presented)]
    if "swaps" in words:
        return offers + [_offer(f"export {e.parcel_id}", "scans the export", exported),
                         _offer(f"arrive {e.parcel_id}", "scans the arrival", arrived),
                         _offer(f"present {e.parcel_id}", "is shown the parcel", presented)]
    return offers + [_offer(f"export {e.parcel_id}", "scans the export", exported)]


def _exported(e, words):
    if words & {"swaps", "express"}:
        return []
    return [_offer(f"arrive {e.parcel_id}", "scans the arrival", _report(e, report.ArrivedReported, "/carrier"))]


def _arrived(e, words):
    if words & {"swaps", "express"}:
        return []
    return [_offer(f"present {e.parcel_id}", "is shown the parcel", _report(e, report.PresentedReported, "/customs"))]


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
        offers.append(_offer(f"scan {e.parcel_id} again", "scans the way out once more", _scan(e, "EDG", 10, "again")))
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
    return [_offer(f"collect {e.parcel_id}", "gives it out at the pickup point",
                   _report(e, report.DeliveredReported, "/carrier"))]


def _delivered(e, words):
    offers = []
    if "confirm" in words:
        offers.append(_offer(f"confirm {e.parcel_id}", "confirms", Send(
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
    return [_offer(f"back {e.parcel_id}", "has the goods back", _report(e, report.ReturnedToSenderReported, "/warehouse"))]


def _lost(e, words):
    return [_offer(f"claim {e.parcel_id}", "pays for the lost goods",
                   _report(e, report.ClaimPaidReported, "/carrier", amount=e.claim), must=True)]


def _return(e, words):
    return [_offer(f"receive {e.return_id}", "receives the return", _report(
        e, report.ReturnReceivedReported, "/warehouse", f":{e.return_id}", return_id=e.return_id))]


def _payout(e, words):
    return [_offer(f"payout {e.payout_id}", "the clerk pays by hand", Send(RecordManualPayout(
        order_id=e.order_id, payout_id=e.payout_id, payment_id=e.payment_id, parcel_id=e.parcel_id, amount=e.amount,
        currency=e.currency, bank_reference="B1"), "/finance", f"payout:{e.payout_id}"), must=True)]


_UPON: dict[str, Callable[[Any, frozenset[str]], list[Offer]]] = {
    "PaymentHeld": _captured, "PaymentSettled": _settled, "ChargebackOpened": _taken,
    "DocumentsMatched": _list, "ParcelCancelled": _withdraw, "ReturnReceived": _withdraw, "FulfilmentRequested": _fulfil, "ParcelPacked": _packed, "ParcelHandedOver": _handed_over, "ParcelExported": _exported,
    "ParcelArrived": _arrived, "CustomsPresented": _customs, "CustomsHeld": _customs, "CustomsReleased": _last_mile,
    "DeliveryFailed": _failed, "ParcelAtPickup": _at_pickup, "ParcelDelivered": _delivered,
    "DisputeOpened": _arbiter, "InterceptRequested": _stop, "ParcelReturning": _coming_back, "CustomsRefused": _coming_back,
    "ParcelLost": _lost, "ReturnAuthorised": _return, "ManualPayoutRequested": _payout, "ParcelQuarantined": _decide,
    "InspectionHeld": _inspect, "CancellationAsked": _may_be_undone,
}
