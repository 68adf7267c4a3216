"""Many orders of every kind at once, in memory: they share stock, three merchants, three currencies and every batch.

What goes wrong in a crowd goes wrong outside: records twice, answers twice, late, contradictory or never, bad records among
good ones. `crowd(seed)` gives the world when everything has come to rest; the services must have made each order end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction

from schemas import brands
from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas.books import CloseStatement, PayMerchant, RemitTax, StatementLine
from schemas.merchants import ChangeTerms
from schemas.envelope import Envelope, dataschema_of, headers_of
from schemas.model import LineQuantity
from schemas.orders_intake import Bonded
from schemas.parties import Person, seal
from schemas.payments_provider_result import ProviderAnswered
from schemas.terms import ReportedAssessment
from schemas.topics import INTAKE, REPORT, SHIPMENT
from services.cli.duties import duties_paid
from services.orders.rulebook import load
from services.runtime.decision import Intent
from services.simulators.scenario import NO_PAPERS_HS_CODE
from services.explorer.simulation import KEY, REGISTERED, World, order
from tests.test_lifecycle import Outside, ids, nothing

# What nobody can handle, by the reason for it; `source` also for every copy of a forged event, by each of its two readers.
DEAD_LETTERS = {"unknown_type": 2, "null_value": 1, "invalid": 1, "key": 1, "source": 1, "id_reused": 1, "amount_mismatch": 1}
DESTINATIONS = (("DE", "EUR"), ("US", "USD"), ("CN", "CNY"), ("JP", "JPY"), ("GB", "GBP"))
LAST_TIMER_DAYS = 70
BY = {"order_id": "brand:acme", "decided_by": "officer"}
VERDICT_AFTER_DAYS = 12  # by then the other parcel is confirmed and settled, ten days after its delivery


def _cancel(event, world):
    world.send(ask.CancelOrder(order_id=event.order_id))


def _cut(event, world):
    world.send(ask.CancelOrder(order_id=event.order_id, lines=[LineQuantity(line_no=1, quantity=1)]))


def _begin(event, world):
    world.send(report.PackingStartedReported(**ids(event)), "/warehouse")


def _undo(event, world):
    world.send(report.CancellationAccepted(**ids(event), cancellation_id=event.cancellation_id), "/warehouse")


def _boxes(event, world):
    if not event.parcel_id.endswith(".2"):
        lines = [LineQuantity(line_no=event.lines[0].line_no, quantity=1)]
        world.send(report.SplitReported(**ids(event), lines=lines), "/warehouse")
    world.send(report.PackedReported(**ids(event)), "/warehouse")


def _short(event, world):
    lines = [LineQuantity(line_no=event.lines[0].line_no, quantity=1)]
    world.send(report.ShortPickReported(**ids(event), lines=lines), "/warehouse")
    world.send(report.PackedReported(**ids(event)), "/warehouse")


def _nothing_there(event, world):
    lines = [LineQuantity(line_no=line.line_no, quantity=line.quantity) for line in event.lines]
    world.send(report.ShortPickReported(**ids(event), lines=lines), "/warehouse")


def _reject(event, world):
    world.send(report.PackingRejected(**ids(event), reason="broken"), "/warehouse")


def _refuse(event, world):
    world.send(report.CustomsRefusalReported(**ids(event), reason="no"), "/customs")


def _hold(event, world):
    world.send(report.CustomsHoldReported(**ids(event), reason="look again"), "/customs")
    world.send(report.CustomsReleaseReported(**ids(event)), "/customs")


def _nobody_home(event, world):
    for attempt in (1, 2, 3):
        world.send(report.OutForDeliveryReported(**ids(event)), "/carrier")
        world.send(report.DeliveryFailureReported(**ids(event), attempt=attempt), "/carrier")


def _lost(event, world):
    world.send(report.LossReported(**ids(event)), "/carrier")


def _stop(event, world):
    world.send(report.InterceptAccepted(**ids(event)), "/carrier")


def _go_on(event, world):
    world.send(report.InterceptRefused(**ids(event), reason="on the truck"), "/carrier")
    if event.order_id not in world.outside.gone:
        world.outside.gone.add(event.order_id)
        world.outside.legs_of(event, world)


def _return(event, world):
    world.send(ask.RequestReturn(order_id=event.order_id, parcel_id=event.parcel_id))


def _return_one(event, world):
    world.send(ask.RequestReturn(**ids(event), lines=[LineQuantity(line_no=1, quantity=1)]))


def _dispute(event, world):
    world.send(ask.OpenDispute(**ids(event)))


def _verdict(outcome: str):
    def act(event, world):
        world.send(ask.ResolveDispute(**ids(event), outcome=outcome))
    return act


def _grant(amount: int):
    def act(event, world):
        if event.order_id not in world.outside.gone:
            world.outside.gone.add(event.order_id)
            world.send(ask.GrantRefund(order_id=event.order_id, parcel_id=f"{event.order_id}-P1", amount=amount))
    return act


def _grant_then_confirm(event, world):
    _grant(701)(event, world)
    world.send(ask.ConfirmReceipt(**ids(event)))


def _bill(event, world):
    """Customs asks for a little more than was declared."""
    bill = ReportedAssessment(amount=event.declared.amount + 13, currency=event.declared.currency)
    world.send(report.CustomsReleaseReported(**ids(event), assessed=bill), "/customs")


def _claw_back(event, world):
    if event.order_id not in world.outside.gone:
        world.outside.gone.add(event.order_id)
        world.send(ask.RequestReturn(order_id=event.order_id, parcel_id=f"{event.order_id}-P1"))


def _first(act: Callable):
    """Only of the order's first parcel."""
    def first(event, world):
        if event.parcel_id.endswith("-P1"):
            act(event, world)
    return first


def _confirm_first(event, world):
    """The buyer says nothing of the second parcel, which is confirmed ten days later."""
    if event.parcel_id.endswith("-P1"):
        world.send(ask.ConfirmReceipt(**ids(event)))


def _hold_up(event, world):
    world.send(report.PackingHeldReported(**ids(event), reason="no carton"), "/warehouse")


def _correct(event, world):
    world.send(ask.SupplyDocuments(order_id=event.order_id, lines=[ask.SuppliedCode(line_no=1, hs_code="9503008900")]))


def _spoil(event, world):
    """Too warm for an hour; its carrier goes on all the same."""
    began = world.now - timedelta(hours=1)
    world.send(report.ExcursionReported(**ids(event), excursion_id=f"{event.parcel_id}:1", began=began, until=world.now, minutes=60,
                                        worst_tenths=120), "/cold-chain", f"excursion:{event.parcel_id}:1")
    world.outside.legs(event, world)


def _release(event, world):
    world.send(report.RecordQualityDecision(**ids(event), excursion_id=event.excursion_id, decision="release",
                                            decided_by="warehouse"), "/merchant")


def _revoke(event, world):
    """Packed, the brand's owner takes his authorisation back, and nobody grants another."""
    world.send(brands.RevokeAuthorisation(authorisation_id="A1", **BY), "/platform", "revoke:A1")


def _pack_units(event, world):
    """With one serial number for each unit, of which the very first is the same in all orders: copies. `copied`: in its own parcel
    too, so that it is never the one that nobody looks at."""
    kind, seed = event.order_id.split(".")
    made = [report.UnitCode(line_no=line.line_no, gtin="04006381333931", serial=f"{event.order_id}-{line.line_no}-{n}")
            for line in event.lines for n in range(line.quantity)]
    if kind == "copied":
        made[0] = made[1]
    elif event.parcel_id.endswith("-P1"):
        made[0] = made[0].model_copy(update={"serial": f"S-{seed}"})
    world.send(report.PackedReported(**ids(event), units=made), "/warehouse")


def _look(event, world):
    """The carrier has it already when the result comes."""
    world.send(report.HandedOverReported(**ids(event), carrier="c", tracking_no="T"), "/carrier", f"handed:{event.parcel_id}")
    world.send(report.RecordInspection(**ids(event), inspection_id=event.inspection_id, result="genuine", decided_by="i"), "/inspector")


# kind -> event type -> what the outside does then, instead of its usual.
KINDS: dict[str, dict[str, Callable]] = {
    "normal": {}, "another": {}, "third": {}, "bad_total": {}, "no_stock": {}, "waits": {}, "declined": {}, "abandoned": {},
    "release_refused_once": {}, "contradicted": {}, "no_papers": {}, "short_code": {},
    "cancelled_early": {"ParcelsAllocated": _cancel}, "cancelled": {"FulfilmentRequested": _cancel},
    "by_hand": {"FulfilmentRequested": _cancel}, "packed_then_cancelled": {"ParcelPacked": _cancel},
    "boxes": {"FulfilmentRequested": _boxes},
    "begun": {"FulfilmentRequested": _begin, "PackingStarted": _cancel, "CancellationAsked": _undo},
    "line_cut": {"PaymentHeld": _cut}, "line_cut_early": {"ParcelsAllocated": _cut}, "short": {"FulfilmentRequested": _short},
    "nothing_there": {"FulfilmentRequested": _nothing_there}, "rejected": {"FulfilmentRequested": _reject},
    "refused": {"CustomsPresented": _refuse}, "held": {"CustomsPresented": _hold}, "undecided": {"CustomsPresented": nothing},
    "not_collected": {"CustomsReleased": _nobody_home}, "lost": {"ParcelHandedOver": _lost},
    "no_scan": {"ParcelHandedOver": nothing}, "stopped": {"ParcelHandedOver": _cancel, "InterceptRequested": _stop},
    "too_late": {"ParcelHandedOver": _cancel, "InterceptRequested": _go_on}, "silent_buyer": {"ParcelDelivered": nothing},
    "returned": {"ParcelDelivered": _return}, "returned_in_part": {"ParcelDelivered": _return_one},
    "return_never_comes": {"ParcelDelivered": _return, "ReturnAuthorised": nothing}, "clawed_back": {"OrderCompleted": _claw_back},
    "disputed_won": {"ParcelDelivered": _dispute, "DisputeOpened": _verdict("won")},
    "disputed_lost": {"ParcelDelivered": _dispute, "DisputeOpened": _verdict("lost")},
    "half_returned": {"ParcelDelivered": _confirm_first, "PaymentSettled": _first(_return), "ReturnAuthorised": nothing},
    "half_disputed": {"ParcelDelivered": _confirm_first, "PaymentSettled": _first(_dispute), "DisputeOpened": nothing},
    "granted": {"OrderCompleted": _grant(100)}, "granted_too_much": {"OrderCompleted": _grant(10**7)},
    "capture_refused": {}, "taxed": {"CustomsPresented": _bill}, "taxed_short": {"FulfilmentRequested": _short},
    "wrong_papers": {"DocumentsMismatched": _correct}, "bonded": {}, "held_up": {"FulfilmentRequested": _hold_up}, "spoiled": {"ParcelHandedOver": _spoil}, "spoiled_released": {
        "ParcelHandedOver": _spoil, "ParcelQuarantined": _release},
    "branded": {"ParcelPacked": _revoke}, "numbered": {"FulfilmentRequested": _pack_units}, "renumbered": {
        "FulfilmentRequested": _pack_units}, "copied": {
        "FulfilmentRequested": _pack_units, "InspectionHeld": _look, "ParcelPacked": nothing}, "taxed_granted": {"ParcelDelivered": _grant_then_confirm, "CustomsPresented": _bill},
}  # fmt: skip


class Crowd(Outside):
    """Everybody outside, for orders named `<kind>.<seed>`; and the provider with a book of its own.

    `calls`: intent id -> (order id, line of the provider's journal), the first effect of each key.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.usual, self.seed = {model.__name__: act for model, act in self.on.items()}, seed
        self.gone: set[str] = set()
        self.calls: dict[str, tuple[str, dict]] = {}
        self.failed_once: set[str] = set()

    def __call__(self, event, world):
        if isinstance(event, tuple):
            self.provider(*event, world)
            return
        kind, name = event.order_id.partition(".")[0], type(event).__name__
        act = KINDS.get(kind, {}).get(name) or self.usual.get(name)
        if act:
            act(event, world)

    def legs_of(self, event, world):
        """What a carrier does that was asked to stop a parcel and goes on; customs follows from its arrival."""
        self.legs(next(e for e in world.handed_over if e.parcel_id == event.parcel_id), world)

    def provider(self, order_id: str, intent: Intent, world: World) -> None:
        kind, body = order_id.partition(".")[0], intent.body
        if kind == "abandoned" and intent.kind == "authorise" and intent.intent_id not in self.calls:
            self.calls[intent.intent_id] = order_id, self._line(intent, "succeeded")
            return  # done, and the answer is lost; what asks again gets it
        failed = (kind, intent.kind) in {("declined", "authorise"), ("by_hand", "refund"), ("capture_refused", "capture")}
        if (kind, intent.kind) == ("release_refused_once", "release") and order_id not in self.failed_once:
            self.failed_once.add(order_id)
            failed = True
        line = self._line(intent, "failed" if failed else "succeeded")
        _, first = self.calls.setdefault(intent.intent_id, (order_id, line))
        assert {**first, "outcome": ""} == {**line, "outcome": ""}, f"key {intent.intent_id} was used with another body"
        answer = ProviderAnswered(
            order_id=order_id, intent_id=intent.intent_id, payment_id=body["payment_id"], kind=intent.kind,
            outcome=first["outcome"], amount=0 if failed else body["amount"], currency=body["currency"],
            provider_reference=f"R:{intent.intent_id}", reason="refused" if failed else "")
        if kind == "contradicted" and intent.kind == "capture":
            world.send(answer.model_copy(update={"amount": answer.amount + 1}), "/provider", f"wrong:{intent.intent_id}")
        for source in ("/caller", "/webhook") if world.random.random() < 0.5 else ("/caller",):
            world.send(answer, source, f"answer:{intent.intent_id}")

    @staticmethod
    def _line(intent: Intent, outcome: str) -> dict:
        body = intent.body
        return {"intent_id": intent.intent_id, "kind": intent.kind, "payment_id": body["payment_id"], "amount": body["amount"],
                "currency": body["currency"], "outcome": outcome}


class CrowdWorld(World):
    """As `World`; commands and reports are sent twice now and then, and it knows who was handed over."""

    def __init__(self, outside: Crowd, seed: int):
        super().__init__(outside, seed)
        self.sent: dict[str, list] = defaultdict(list)

    @property
    def handed_over(self) -> list:
        from schemas.shipping_shipment import ParcelHandedOver

        return [ParcelHandedOver.model_validate_json(out.value) for out in self.events if out.type == "ParcelHandedOver"]

    def send(self, message, source: str = "/storefront", id: str | None = None) -> None:
        super().send(message, source, id)
        topic = next(t for t in (INTAKE.name, REPORT.name, *self.topics) if self.topics[t] and
                     self.topics[t][-1][1] == message.model_dump_json().encode())
        if self.random.random() < 0.2:
            self.topics[topic].append(self.topics[topic][-1])

    def put(self, topic: str, type_: str, value: bytes, key: str, **envelope) -> None:
        """A record as anybody could write it."""
        given = {"id": f"bad-{len(self.topics[topic])}", "source": "/storefront", "sequence": 0} | envelope
        made = Envelope(given["id"], type_, given["source"], self.now, given.get("subject", key), given["sequence"])
        self.topics[topic].append((key.encode(), value, tuple(headers_of(made, dataschema_of(topic, type_)))))


def crowd(seed: int) -> CrowdWorld:
    """One order of each kind, at once, until all have ended; bad records in between."""
    outside = Crowd(seed)
    world = CrowdWorld(outside, seed)
    world.outside = outside
    placed = [_order(kind, n, seed) for n, kind in enumerate(KINDS)]
    _stock(world, placed, seed)
    world.send(brands.RegisterBrand(name="ACME", owner="acme", **BY), "/platform", "brand")
    for n in range(3):
        world.send(brands.GrantAuthorisation(authorisation_id=f"A{n}", grantor="acme", grantee="m9" if n != 1 else placed[-2].merchant_id, territory=["*"],
                                             valid_from=world.now.date(), valid_to=world.now.date(), doc_hash="ab" * 32, **BY), "/platform", f"grant:{n}")
    for n, command in enumerate(REGISTERED):
        world.send(command, "/platform", f"split:{n}")
    world.run(doubles=True)
    world.wait(hours=1)
    for n, each in enumerate(placed):
        if n == len(placed) // 2:
            _bad_records(world, placed[0], seed)
        world.send(each, id=f"place:{each.order_id}")
    world.run(100_000, doubles=True)
    for days in range(LAST_TIMER_DAYS):
        if days == 2:
            _more_stock(world, seed)
            world.send(ChangeTerms(order_id="merchant:split", payout_currency="EUR", valid_from=world.now.date(), decided_by="officer"),
                       "/platform", "terms")
        if days == 3:
            _answer_at_last(world, f"abandoned.{seed}")
        if days == VERDICT_AFTER_DAYS:
            order_id = f"half_disputed.{seed}"
            world.send(ask.ResolveDispute(order_id=order_id, parcel_id=f"{order_id}-P1", outcome="won"))
        world.wait(days=1)
        world.run(100_000, doubles=True)
    _month_end(world)
    return world


def _month_end(world: CrowdWorld) -> None:
    """What finance books of the merchant with terms: his taxes remitted, his sales stated and paid out, each asked twice."""
    sums: dict[str, int] = defaultdict(int)
    for _, _, account, currency, amount, *_ in world.parties["payments"].ledger:
        if currency == "GBP":
            sums[account.partition("/")[0]] += amount
    fee, withheld, reserve, net = sums["fee"], sums["withheld"], sums["reserve"], sums["merchant"] - _plain(world)
    line = StatementLine(currency="GBP", payout="USD", fx="fx1.20261123", rate="1.2345", market="1.25", refunds=0, fee=fee,
                         withheld=withheld, reserve=reserve, gross=net + fee + withheld + reserve, net=net)
    due = round(Fraction(net) * Fraction("1.2345"))
    for command in (
            RemitTax(order_id="books:tax:GB", claim="payable", period="2026-11", currency="GBP", amount=1, bank_reference="B"),
            CloseStatement(order_id="books:merchant:split", statement_id="s1", lines=[line]),
            *([PayMerchant(order_id="books:merchant:split", batch_id="b1", currency="USD", amount=due, bank_reference="B")]
              if due > 0 else [])):  # with some bugs the house has nothing to pay
        for n in (1, 2):  # under another id each time: the period, statement and batch say that it is the same
            world.send(command, "/finance", f"{type(command).__name__}:{n}")
            world.run()


def _plain(world: CrowdWorld) -> int:
    """What of the merchants' pounds is of merchants without terms."""
    holds = {order_id for order_id, entry in world.parties["payments"].entries.items() if entry.state.merchant_id != "split"}
    return sum(row[4] for row in world.parties["payments"].ledger if row[0] in holds and row[2:4] == ("merchant", "GBP"))


def dead_letters_expected(world: World) -> int:
    forged = sum(dict(headers)["ce_source"] == b"mallory" for _, _, headers in world.topics[SHIPMENT.name])
    return sum(DEAD_LETTERS.values()) + 2 * forged


def _order(kind: str, n: int, seed: int):
    destination, currency = DESTINATIONS[(n + seed) % len(DESTINATIONS)]
    if kind in ("refused", "held", "undecided", "not_collected", "no_papers") and destination in ("US", "CN"):
        destination, currency = DESTINATIONS[0]
    if kind in ("wrong_papers", "bonded"):
        destination, currency = "CN", "CNY"
    if kind == "short_code":  # above the value up to which six digits are enough
        destination, currency = "DE", "EUR"
    skus = {"no_stock": ["NOWHERE"], "waits": ["LATER"], "half_returned": ["SHARED-0", "SHARED-1"],
            "half_disputed": ["SHARED-2", "SHARED-3"]}.get(kind, [f"SHARED-{(n + i) % 5}" for i in range(1 + n % 3)])
    lines = [(f"{sku}.{seed}", 2 + n % 3, 33_333 if kind == "short_code" else 3333 + 1000 * i) for i, sku in enumerate(skus)]
    made = order(order_id=f"{kind}.{seed}", destination=destination, lines=lines, freight=701, currency=currency,
                 merchant_id=f"m{n % 3}", on_shortage="wait" if kind == "waits" else "ship_available",
                 consignee=seal(Person(name=f"Friend {n}", address="2 Short Road"), KEY))
    tax = 97 * (n % 4)
    changes = {"tax": tax, "total": made.total + tax + (kind == "bad_total")}
    if kind == "branded":
        changes["lines"] = [line.model_copy(update={"brand": "Acme"}) for line in made.lines]
    if kind == "no_papers":
        changes["lines"] = [line.model_copy(update={"hs_code": NO_PAPERS_HS_CODE}) for line in made.lines]
    if kind == "short_code":
        changes["lines"] = [line.model_copy(update={"hs_code": "950300"}) for line in made.lines]
    if kind == "wrong_papers":
        changes["lines"] = [line.model_copy(update={"hs_code": "950300"}) if line.line_no == 1 else line for line in made.lines]
    if kind == "bonded":
        changes |= {"bonded": Bonded(ems_no="T2231W000123", area_code="310066"), "lines": [
            line.model_copy(update={"item_record": f"R{line.line_no}"}) for line in made.lines]}
    made = made.model_copy(update=changes)
    return _with_duties(made) if kind.startswith("taxed") else made


def _with_duties(made):
    """Into Great Britain, duty and taxes paid with it, of a merchant with terms."""
    lines = [line.model_copy(update={"hs_code": "950300"}) for line in made.lines]
    plain = made.model_copy(update={"lines": lines, "destination": "GB", "currency": "GBP", "merchant_id": "split", "tax": 0,
                                    "total": made.total - made.tax})
    return duties_paid(plain, load())


def _stock(world: CrowdWorld, placed: list, seed: int) -> None:
    for sku in sorted({line.sku for each in placed for line in each.lines}):
        if not sku.startswith("NOWHERE"):
            warehouse = ("SEA1", "PVD1")[ord(sku.partition(".")[0][-1]) % 2]
            world.send(_inbound(warehouse, sku, 1 if sku.startswith("LATER") else 90), "/warehouse", f"inbound:{sku}")


def _inbound(warehouse: str, sku: str, units: int):
    return report.InboundReceived(order_id=f"stock:{warehouse}:{sku}", warehouse=warehouse, sku=sku, quantity=units)


def _more_stock(world: CrowdWorld, seed: int) -> None:
    world.send(_inbound("SEA1", f"LATER.{seed}", 9), "/warehouse", f"inbound:again:{seed}")


def _answer_at_last(world: CrowdWorld, order_id: str) -> None:
    """The authorisation that nobody had heard of, after the reservation has ended."""
    for intent_id, (whose, line) in list(world.outside.calls.items()):
        if whose == order_id and line["kind"] == "authorise":
            body = {name: line[name] for name in ("payment_id", "amount", "currency")}
            world.outside.provider(order_id, Intent(intent_id, "authorise", body), world)


def _bad_records(world: CrowdWorld, good, seed: int) -> None:
    """One of each kind of record that no service can ever handle; together DEAD_LETTERS."""
    name, other = good.order_id, f"other.{seed}"
    cancel = ask.CancelOrder(order_id=name, reason="a").model_dump_json().encode()
    world.put(INTAKE.name, "Nonsense", b"{}", name)
    world.put(REPORT.name, "CancelOrder", cancel, name)
    world.put(INTAKE.name, "CancelOrder", b"", name)
    world.put(INTAKE.name, "CancelOrder", b'{"order_id":', name)
    world.put(INTAKE.name, "CancelOrder", cancel, other, subject=other)
    world.put(INTAKE.name, "CancelOrder", cancel, name, source="orders")
    forged = b'{"order_id":"%s","parcel_id":"%s-P1","reason":"cancelled","refund":1}' % (name.encode(), name.encode())
    world.put(SHIPMENT.name, "ParcelCancelled", forged, name, source="mallory", sequence=1)
    world.put(INTAKE.name, "ConfirmReceipt", b'{"order_id":"%s","parcel_id":"P9"}' % name.encode(), name, id=f"twice.{seed}")
    world.put(INTAKE.name, "ConfirmReceipt", b'{"order_id":"%s","parcel_id":"P8"}' % name.encode(), name, id=f"twice.{seed}")
