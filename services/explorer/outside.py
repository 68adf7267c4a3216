"""What the world outside may do, as an alphabet: which answers a path allows to whom.

An event of ours makes offers ("the warehouse may pack, or find too little"); each offer is taken in one of its ways at any
later moment, or never, unless it `must` come: the provider is asked until it answers, a claim is paid some day. What only a
person may wish (cancel, return, grant, dispute) is on offer from the start. Ways that would go round for ever take a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from schemas import brands, merchants
from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas.model import LineQuantity
from schemas.payments_provider_result import ProviderAnswered
from services.explorer.offers import START, Offer, Send, Way, offer
from services.explorer.upon import BANK, UPON, refund_or_bank
from services.runtime.decision import Intent


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
        offers = [offer(f"{word} {order_id}", word, Send(model, "/storefront", f"{word}-{order_id}".replace(" ", "-"),
                                                         late=word == "return late"))
                  for word, model in wishes if word in self.words]
        for warehouse, sku, quantity in inbound:
            offers.append(offer(f"inbound {warehouse} {sku}", f"{quantity} units of {sku} arrive at {warehouse}", Send(
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
                    offer(f"grant {order_id}", "grants another one", Send(authorisation("A2"), "/platform", f"grant-{order_id}")),)),)))
        if "freeze" in self.words:
            offers.append(_freeze(order_id))
        if "terms" in self.words:
            offers.append(offer(f"terms {order_id}", "the merchant's terms change", Send(merchants.ChangeTerms(
                order_id=f"{merchants.MERCHANT}split", fee_plan="more", valid_from=START.date(), decided_by="officer"), "/platform", "terms")))
        offers += [Offer(f"token {word} {order_id}", ()) for word, many in TOKENS.items() if word in self.words
                   for _ in range(many)]
        return offers

    def upon(self, event: Any) -> list[Offer]:
        """What an event of ours makes possible."""
        act = UPON.get(type(event).__name__)
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
            return refund_or_bank(intent, yes, answer("failed", 0, reason="exceeds_captured"))
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
