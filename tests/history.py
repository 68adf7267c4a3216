"""Histories for the auditor, made by the services' own machines in memory, then frozen, and open to corruption.

`worlds` runs one order of each kind of path; `History` is what `services.auditor.audit.examine` reads.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from schemas import brands, merchants
from schemas import orders_intake as ask
from schemas import payments_payment as pay
from schemas.books import BookProviderFees, CloseStatement, PayMerchant, RecoverTax, RemitTax, StatementLine
from schemas import shipping_report as report
from schemas import shipping_sensor as sensor
from schemas import shipping_shipment as ship
from schemas.cold_chain import AskedBand, Reading, Watch, excursion_id
from schemas.model import LineQuantity
from schemas.orders_order import OrderCompleted
from schemas.parties import Person, seal
from schemas.payments_provider_result import DisputeTold
from schemas.topics import INTAKE, PROVIDER_RESULT, TOPICS
from schemas.terms import ReportedAssessment
from services.auditor.evidence import letter_of, partition_of
from services.auditor.facts import STOCK_KINDS
from services.auditor.rules import Booking, Call, DeadLetter, Journals, Request, Whole
from services.auditor.rules_quota import COLUMNS
from services.auditor.story import Raw, digest_of
from services.auditor.watch import watched
from services.cli.duties import duties_paid
from services.explorer.simulation import KEY, START, TERMS, World, bonded_order, order
from services.orders.landed_cost import Refusal
from services.orders.rulebook import load
from services.runtime.settings import SERVICES
from services.shipping.plans import Plans
from tests.test_lifecycle import Outside, failing, given, ids, nothing

PARTITIONS = 3


def _normal(lines=2, **more) -> World:
    return given(doubles=True, **_args(lines=lines, **more))[0]


def _args(name: str = "normal", lines: int = 1, outside: Outside | None = None, stock: int = 100, **more) -> dict:
    goods = tuple((f"{name.upper()}-{n}", 2, 5000) for n in range(lines))
    places = {sku: {("SEA1", "PVD1")[n % 2]: stock} if stock else {} for n, (sku, _, _) in enumerate(goods)}
    return {"placed": order(order_id=name, lines=goods, **more), "stock": places, "outside": outside}


def _with(event: type, act: Callable, name: str, days: int = 0, fails=(), quiet=(), **more) -> World:
    outside = Outside()
    outside.on[event] = act
    outside.fails = set(fails)
    for silent in quiet:
        outside.on[silent] = nothing
    world, _ = given(**_args(name, outside=outside, **more))
    world.wait(days=days)
    return world


def _once(message: Callable):
    done: list[bool] = []

    def act(event, world):
        if not done:
            done.append(True)
            world.send(message(event))
    return act


def _cut(event):
    return ask.CancelOrder(order_id=event.order_id, lines=[LineQuantity(line_no=1, quantity=1)])


def _cancel(event):
    return ask.CancelOrder(order_id=event.order_id)


def _part_back(event):
    return ask.RequestReturn(order_id=event.order_id, lines=[LineQuantity(line_no=1, quantity=1)])


def _dispute(outcome: str, name: str) -> World:
    world = _with(ship.ParcelDelivered, _once(lambda e: ask.OpenDispute(**ids(e))), name)
    world.send(ask.ResolveDispute(order_id=name, parcel_id=f"{name}-P1", outcome=outcome))
    world.run()
    world.wait(days=11)
    return world


def _cold() -> World:
    """Too warm on its way: its logger tells, the view finds it, a person releases it."""
    outside, onward = Outside(), []

    def measured(event, world):
        band, watch = AskedBand(), Watch()
        told = [(world.now + timedelta(minutes=15 * n), tenths) for n, tenths in enumerate((40, 95, 110, 96, 99, 40))]
        world.send(sensor.SensorReported(**ids(event), sensor_element_list=[sensor.SensorElement(
            sensor_metadata=sensor.SensorMetadata(device_id="l1", band=band),
            sensor_report=[sensor.SensorReport(time=at, value_tenths=tenths) for at, tenths in told])]), "/logger")
        for at, tenths in told:
            for found in watch.take(Reading(int(at.timestamp()), tenths), band):
                world.send(report.ExcursionReported(
                    **ids(event), excursion_id=excursion_id(event.parcel_id, found), minutes=found.minutes, worst_tenths=found.worst,
                    began=datetime.fromtimestamp(found.began_s, UTC), until=datetime.fromtimestamp(found.until_s, UTC)), "/cold-chain")
        onward.append(event)

    def decided(event, world):
        world.send(report.RecordQualityDecision(**ids(event), excursion_id=event.excursion_id, decision="release",
                                                decided_by="merchant"), "/merchant")
        outside.legs(onward[0], world)
    outside.on[ship.ParcelHandedOver], outside.on[ship.ParcelQuarantined] = measured, decided
    args = _args("cold", outside=outside)
    lines = [line.model_copy(update={"cold": AskedBand()}) for line in args["placed"].lines]
    return given(**args | {"placed": args["placed"].model_copy(update={"lines": lines})})[0]


def _silent() -> World:
    """Its logger is heard once on the way, and then no more; the next day somebody finds the goods fit."""
    outside, onward = Outside(), []
    outside.on[ship.ParcelHandedOver] = lambda e, w: onward.append(e)
    args = _args("silent", destination="US", outside=outside)
    lines = [line.model_copy(update={"cold": AskedBand(silent_minutes=1440)}) for line in args["placed"].lines]
    world, _ = given(**args | {"placed": args["placed"].model_copy(update={"lines": lines})})
    world.wait(hours=2)
    world.send(report.LoggerHeard(**ids(onward[0]), at=world.now), "/cold-chain", f"heard:silent-P1:{int(world.now.timestamp())}")
    world.run()
    world.wait(hours=25)
    world.send(report.RecordQualityDecision(**ids(onward[0]), excursion_id="silent-P1:silent:1", decision="release",
                                            decided_by="warehouse"), "/warehouse")
    outside.legs(onward[0], world)
    world.run()
    return world


def _held_up() -> World:
    """Promised, and held by customs for a day."""
    outside = Outside()
    outside.on[ship.CustomsPresented] = lambda e, w: w.send(report.CustomsHoldReported(**ids(e), reason="inspection"), "/customs")
    outside.on[ship.CustomsHeld] = nothing
    world, _ = given(**_args("held_up", outside=outside), plans=network_plans())
    world.wait(days=1)
    world.send(report.CustomsReleaseReported(order_id="held_up", parcel_id="held_up-P1"), "/customs")
    world.run()
    return world


def _late() -> World:
    """Promised, and forgotten by its carrier for four days."""
    outside = Outside()
    outside.on[ship.ParcelHandedOver] = nothing
    world, _ = given(**_args("late", outside=outside), plans=network_plans())
    world.wait(days=4)
    for model in (report.ExportedReported, report.ArrivedReported):
        world.send(model(order_id="late", parcel_id="late-P1"), "/carrier")
    world.run()
    return world


def _rerouted() -> World:
    """Promised; a lane ahead of it is closed while it lies packed."""
    outside, packed = Outside(), []
    outside.on[ship.ParcelPacked] = lambda e, w: packed.append(e)
    world, _ = given(**_args("rerouted", outside=outside), plans=network_plans())
    route = world.parties["shipping"].entries["rerouted"].document.parcels["rerouted-P1"].route
    lane = route.legs[route.border].lane
    world.send(report.CloseLane(order_id=f"lane:{lane}", lane=lane, reason="fog"), "/operations")
    world.run()
    world.send(report.HandedOverReported(**ids(packed[0]), carrier="c", tracking_no="T1"), "/carrier")
    world.run()
    return world


@lru_cache(maxsize=1)
def network_plans() -> Plans:
    return Plans()


def _season() -> World:
    """Sold before its harvest, which comes."""
    placed = order("season", lines=(("SEASON", 2, 5000),)).model_copy(update={"season": ask.Season(
        ships_not_before=START + timedelta(days=3), ships_not_after=START + timedelta(days=6))})
    goods = {"order_id": "stock:SEA1:SEASON", "warehouse": "SEA1", "sku": "SEASON", "quantity": 2}
    world, _ = given(placed, stock={}, before=lambda w: (w.send(
        report.HarvestAnnounced(**goods, harvest_on=START.date()), "/warehouse"), w.run()))
    world.send(report.InboundReceived(**goods, harvest=True), "/warehouse")
    world.run()
    world.wait(days=8)
    return world


def _duties() -> World:
    """Duty and taxes paid with the order, as quoted."""
    args = _args("duties", destination="GB", currency="GBP")
    coded = [line.model_copy(update={"hs_code": "950300"}) for line in args["placed"].lines]
    paid = duties_paid(args["placed"].model_copy(update={"lines": coded}), load())
    assert not isinstance(paid, Refusal), paid
    return given(**args | {"placed": paid})[0]


def _frozen() -> World:
    """Frozen when it is packed; the carrier takes it all the same, a day later, and forgets it for four: what was promised is at
    risk in spite of the freeze. Lifted after a month."""
    outside, packed = Outside(), []
    outside.on[ship.ParcelPacked] = lambda e, w: packed.append(e)
    outside.on[ship.ParcelHandedOver] = nothing
    world, _ = given(**_args("frozen", outside=outside, merchant_id="m9"), plans=network_plans())
    for days, message in ((1, merchants.FreezeMerchant(order_id="merchant:m9", reason="fraud", decided_by="o")),
                          (1, report.HandedOverReported(**ids(packed[0]), carrier="c", tracking_no="T1")),
                          (4, report.ExportedReported(**ids(packed[0]))), (0, report.ArrivedReported(**ids(packed[0]))),
                          (30, merchants.DecideAppeal(order_id="merchant:m9", outcome="lifted", decided_by="o"))):
        world.wait(days=days)
        world.send(message, "/platform" if message.order_id == "merchant:m9" else "/carrier")
        world.run()
    return world


def _branded() -> World:
    """Of a protected brand; its chain breaks while it is packed, and is mended the next day."""
    by, packed, outside = {"order_id": "brand:acme", "decided_by": "o"}, [], Outside()
    link = by | {"territory": ["EU"], "valid_from": START.date() - timedelta(days=9), "valid_to": START.date(), "doc_hash": "ab" * 32}
    grants = [brands.GrantAuthorisation(authorisation_id=f"A{n}", grantor=grantor, grantee=grantee, **link)
              for n, (grantor, grantee) in enumerate((("acme", "d"), ("d", "m1"), ("acme", "m1")), 1)]

    def before(world):
        for command in (brands.RegisterBrand(name="ACME", owner="acme", **by), *grants[:2]):
            world.send(command, "/platform")
        world.run()
        world.wait(hours=1)
    outside.on[ship.ParcelPacked] = lambda e, w: packed.append(e)
    args = _args("branded", outside=outside)
    lines = [line.model_copy(update={"brand": "Acme"}) for line in args["placed"].lines]
    world, _ = given(**args | {"placed": args["placed"].model_copy(update={"lines": lines})}, before=before)
    for days, message in ((1, brands.RevokeAuthorisation(authorisation_id="A1", **by)), (1, grants[2]),
                          (0, report.HandedOverReported(**ids(packed[0]), carrier="c", tracking_no="T1"))):
        world.wait(days=days)
        world.send(message, "/carrier" if message.order_id == "branded" else "/platform")
        world.run()
    return world


def _copied() -> World:
    """Two units with one serial number: an inspection, which finds them counterfeit; and the same number in another order."""
    outside = Outside()

    def pack(event, world):
        serials = ("S1", "S1") if event.order_id == "copied" else ("S2", "S1")
        world.send(report.PackedReported(**ids(event), units=[report.UnitCode(line_no=1, gtin="04006381333931", serial=serial)
                                                              for serial in serials]), "/warehouse")
    outside.on[ship.FulfilmentRequested] = pack
    outside.on[ship.InspectionHeld] = lambda e, w: w.send(report.RecordInspection(
        **ids(e), inspection_id=e.inspection_id, result="counterfeit" if e.order_id == "copied" else "genuine", decided_by="i"), "/inspector")
    world, _ = given(**_args("copied", outside=outside))
    world.wait(hours=1)
    world.send(_args("copy", outside=outside)["placed"].model_copy(update={"lines": _args("copied")["placed"].lines}))
    world.run()
    return world


def _listed_later() -> World:
    """Packed, its buyer is nearly on a newer list; the next day an officer clears him."""
    outside, packed = Outside(), []
    outside.on[ship.ParcelPacked] = lambda e, w: packed.append(e)
    world, _ = given(**_args("listed_later", outside=outside))
    for days, message in ((0, ask.RescreenOrder(order_id="listed_later", result="REVIEW", screening_list="L2")),
                          (1, ask.DecideScreening(order_id="listed_later", outcome="clear", decided_by="o")),
                          (0, report.HandedOverReported(**ids(packed[0]), carrier="c", tracking_no="T1"))):
        world.wait(days=days)
        world.send(message, "/platform")
        world.run()
    return world


def _named() -> World:
    """Into China: the registry cannot say whose number it is, an officer does."""
    buyer = seal(Person(name="Mei Lin", identity_no="11010519491231002X"), KEY)
    world, _ = given(**_args("named", destination="CN", outside=Outside(), buyer=buyer, consignee=buyer), real_names=True)
    for hours, message, source in ((1, ask.AnswerRealName(order_id="named", outcome="unknown", decided_by="registry"), "/registry"),
                                   (5, ask.AnswerRealName(order_id="named", outcome="match", decided_by="o"), "/platform")):
        world.wait(hours=hours)
        world.send(message, source)
        world.run()
    world.wait(days=11)
    return world


def _split() -> World:
    """The same for a merchant with terms, and customs bills more than was quoted."""
    args = _args("split", destination="GB", currency="GBP", merchant_id="split")
    coded = [line.model_copy(update={"hs_code": "950300"}) for line in args["placed"].lines]
    outside = Outside()
    outside.on[ship.CustomsPresented] = lambda e, w: w.send(report.CustomsReleaseReported(**ids(e), assessed=ReportedAssessment(
        amount=e.declared.amount + 37, currency=e.declared.currency, document="T1")), "/customs")
    paid = duties_paid(args["placed"].model_copy(update={"lines": coded}), load())
    return given(**args | {"placed": paid, "outside": outside})[0]


def _receipts() -> World:
    """Chinese customs tells what it does in receipts, also late and in the wrong order."""
    outside = Outside()

    def told(*statuses):
        def act(event, world):
            for status in statuses:
                world.send(report.CarrierScanReported(**ids(event), dialect="ceb622", code=status, at=world.now, reason="as told"),
                           "/customs/CN", f"{event.order_id}:{status}")
        return act
    outside.on[ship.ParcelArrived], outside.on[ship.CustomsPresented] = told("1", "120", "2"), told("300", "501", "800", "100")
    return given(**_args("receipts", destination="CN", outside=outside))[0]


def _mismatched() -> World:
    """Papers that disagree on a customs code; the merchant supplies it, and a unit that is not on the shelf has them told anew."""
    outside = Outside()

    def short(event, world):
        world.send(report.ShortPickReported(**ids(event), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
        world.send(report.PackedReported(**ids(event)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = short
    outside.on[ship.DocumentsMismatched] = lambda e, w: w.send(ask.SupplyDocuments(
        order_id=e.order_id, lines=[ask.SuppliedCode(line_no=1, hs_code="9503008900")]))
    args = _args("mismatched", destination="CN", outside=outside)
    lines = [line.model_copy(update={"hs_code": "950300"}) for line in args["placed"].lines]
    return given(**args | {"placed": args["placed"].model_copy(update={"lines": lines})})[0]


def _returned() -> World:
    """One unit is sent back from China in time, after the merchant was paid; the tax of it is given back, and paid."""
    outside = Outside()
    outside.on[ship.ReturnReceived] = lambda e, w: w.send(report.ListWithdrawalReported(
        **ids(e), list_no=e.returns_list, form="CEB626", accepted=True, return_id=e.return_id), "/customs/CN")
    outside.on[ship.CustomsPresented] = lambda e, w: w.send(report.CustomsReleaseReported(**ids(e), assessed=ReportedAssessment(
        amount=e.declared.amount, currency=e.declared.currency, document="T1")), "/customs")
    args = _args("returned", destination="CN", merchant_id="split", outside=outside)
    world, _ = given(**args | {"placed": duties_paid(args["placed"], load())})
    world.send(ask.RequestReturn(order_id="returned", lines=[LineQuantity(line_no=1, quantity=1)]))
    world.run()
    world.send(RecoverTax(order_id="books:tax:CN", period="2026-11", currency="CNY", amount=100, bank_reference="B1"), "/finance")
    world.run()
    return world


def _revoked() -> World:
    """Cancelled when it is packed and Chinese customs has its import list, which is revoked."""
    outside = Outside()
    outside.on[ship.ParcelPacked] = lambda e, w: w.send(_cancel(e))
    outside.on[ship.ParcelCancelled] = lambda e, w: w.send(report.ListWithdrawalReported(
        **ids(e), list_no=e.revokes, form="CEB624", accepted=True), "/customs/CN")
    return given(**_args("revoked", destination="CN", outside=outside))[0]


def _books(world: World) -> World:
    """And what finance books afterwards: the tax remitted, a statement closed and paid out."""
    line = StatementLine(currency="GBP", payout="USD", fx="fx1.20261123", rate="1.2345", market="1.2500", gross=5000, refunds=0,
                         fee=250, withheld=50, reserve=500, net=4200)
    for command in (
            RemitTax(order_id="books:tax:GB", claim="payable", period="2026-11", currency="GBP", amount=1000, bank_reference="B1"),
            CloseStatement(order_id="books:merchant:split", statement_id="s1", lines=[line]),
            PayMerchant(order_id="books:merchant:split", batch_id="b1", currency="USD", amount=5000, bank_reference="B2"),
            BookProviderFees(order_id="books:provider:payments", period="2026-11", currency="GBP", total=116)):
        world.send(command, "/finance")
        world.run()
    return world


def _bank() -> World:
    """Settled, then taken back by the buyer's bank: nobody answers, it gives the money back all the same, and takes it again."""
    world, _ = given(**_args("bank", destination="US", merchant_id="split"))
    for stage in ("chargeback", "chargeback_reversed", "second_chargeback"):
        world.send(DisputeTold(order_id="bank", dispute_id="D1", payment_id="bank-Y1", stage=stage, amount=5700, currency="USD",
                               evidence_due=world.now + timedelta(days=7) if stage == "chargeback" else None),
                   "payments-webhook", f"dispute:D1:{stage}")
        world.run()
        world.wait(days=8)
    return world


def _reviewed() -> World:
    """The buyer's name is nearly on the list of denied parties; an officer clears it the next day."""
    world, _ = given(**_args("reviewed", destination="US", buyer=seal(Person(name="Viktor Grauhaven"), KEY)), plans=network_plans())
    world.wait(days=1)
    world.send(ask.DecideScreening(order_id="reviewed", outcome="clear", decided_by="officer"), "/platform")
    world.run()
    return world


def _follows() -> World:
    """Two of three units are there; the third comes the next day."""
    world, _ = given(order("follows", destination="US", lines=(("FOLLOWS", 3, 6000),), backorder=True), stock={"FOLLOWS": {"SEA1": 2}})
    world.wait(days=1)
    world.send(report.InboundReceived(order_id="stock:PVD1:FOLLOWS", warehouse="PVD1", sku="FOLLOWS", quantity=1), "/warehouse")
    world.run()
    world.wait(hours=7)
    return world


def _follows_promised() -> World:
    """The same, promised when it has come."""
    world, _ = given(order("late_goods", destination="DE", lines=(("LATE", 3, 6000),), backorder=True), stock={"LATE": {"SEA1": 2}},
                     plans=network_plans())
    world.send(report.InboundReceived(order_id="stock:PVD1:LATE", warehouse="PVD1", sku="LATE", quantity=1), "/warehouse")
    world.run()
    world.wait(hours=7)
    return world


def _in_bond() -> World:
    """Promised from a bonded warehouse, where customs holds it for a day."""
    outside, lists = Outside(), []

    def held(e, w):
        lists.append(e)
        for status in ("120", "500"):
            receipt(w, status)

    def receipt(w, status):
        w.send(report.CarrierScanReported(**ids(lists[0]), dialect="ceb622", code=status, at=w.now, reason="as told",
                                          tracking_no=lists[0].import_list.list_no), "/customs/CN")
    outside.on[ship.DocumentsMatched] = held
    world, _ = given(bonded_order("in_bond", lines=(("BOND", 2, 5000),)), stock={"BOND": {"CNSHA": 9}}, outside=outside, plans=network_plans())
    world.wait(days=1)
    receipt(world, "800")
    world.run()
    return world


def _begun() -> World:
    """Its warehouse has begun when the buyer cancels, and goes on."""
    outside = Outside()

    def go_on(e, w):
        w.send(report.CancellationRefused(**ids(e), cancellation_id=e.cancellation_id, reason="on the belt"), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")
    outside.on[ship.FulfilmentRequested] = lambda e, w: w.send(report.PackingStartedReported(**ids(e)), "/warehouse")
    outside.on[ship.PackingStarted], outside.on[ship.CancellationAsked] = lambda e, w: w.send(_cancel(e)), go_on
    return given(**_args("begun", outside=outside))[0]


def _boxes() -> World:
    """The goods do not go into one box: with duties, for a merchant with terms, by a plan; of the second box one unit comes back."""
    outside = Outside()

    def pack(e, w):
        if e.parcel_id == "boxes-P1":
            w.send(report.SplitReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=2)]), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")

    def assess(e, w):
        w.send(report.CustomsReleaseReported(**ids(e), assessed=ReportedAssessment(
            amount=e.declared.amount + 7, currency=e.declared.currency, document="T1")), "/customs")
    outside.on[ship.FulfilmentRequested], outside.on[ship.CustomsPresented] = pack, assess
    outside.on[ship.ParcelDelivered] = lambda e, w: w.send(
        ask.ConfirmReceipt(**ids(e)) if e.parcel_id == "boxes-P1" else ask.RequestReturn(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]))
    args = _args("boxes", lines=2, destination="GB", currency="GBP", merchant_id="split", freight=701)
    lines = [line.model_copy(update={"hs_code": "950300", "quantity": 5, "amount": 5003 if line.line_no == 1 else 1999})
             for line in args["placed"].lines]
    paid = duties_paid(args["placed"].model_copy(update={"lines": lines, "total": 5003 + 1999 + 701}), load())
    args |= {"placed": paid, "outside": outside, "stock": {line.sku: {"SEA1": 9} for line in lines}}
    world, _ = given(**args, plans=network_plans())
    world.wait(days=11)
    return world


def promised() -> list[World]:
    """What goes on besides the plan: held by customs, forgotten, re-routed, held for an officer."""
    return [_held_up(), _late(), _rerouted(), _reviewed(), _follows_promised(), _in_bond()]


def worlds() -> list[World]:
    def lost(e, w):
        w.send(report.LossReported(**ids(e)), "/carrier")

    def refuse(e, w):
        w.send(report.CustomsRefusalReported(**ids(e), reason="no"), "/customs")

    def short(e, w):
        w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
        w.send(report.PackedReported(**ids(e)), "/warehouse")

    return [
        _normal(), _normal(name="china", destination="CN"), _normal(name="domestic", destination="US", lines=1),
        given(**_args("rejected", total=1))[0], given(**_args("nostock", stock=0))[0],
        given(**_args("declined", outside=_failing({"authorise"})))[0],
        _with(pay.PaymentHeld, _once(_cut), "line_cut"),
        _with(ship.ParcelPacked, lambda e, w: w.send(_cancel(e)), "cancelled"),
        _with(ship.FulfilmentRequested, lambda e, w: w.send(_cancel(e)), "by_hand", fails={"refund"}),
        _with(ship.FulfilmentRequested, short, "short"),
        _with(ship.CustomsPresented, refuse, "refused", days=6),
        _with(ship.CustomsReleased, failing, "not_collected", days=8),
        _with(ship.ParcelHandedOver, lost, "lost"),
        _with(ship.ParcelDelivered, _once(_part_back), "part_back", days=11),
        _with(OrderCompleted, _once(_part_back), "claw_back"),
        _with(ship.ParcelDelivered, nothing, "silent_buyer", days=11),
        _dispute("won", "dispute_won"), _dispute("lost", "dispute_lost"), _duties(), _frozen(), _returned(), _books(_split()), _cold(), _silent(), _season(), _branded(),
        _receipts(), _mismatched(), _revoked(), _copied(), _bank(), _follows(), _begun(), _boxes(), *promised(),
        _listed_later(),
        _named(),
    ]


def _failing(kinds: set[str]) -> Outside:
    outside = Outside()
    outside.fails = kinds
    return outside


# -- frozen, and open to corruption -----------------------------------------------------------------------------------------


class History:
    """A source for `examine`, made of plain lists and dictionaries that a test may change."""

    notes: list[str] = []
    partitions = PARTITIONS
    grace = timedelta(minutes=2)

    def __init__(self, made: list[World]):
        self.topics: dict[tuple[str, int], list[Raw]] = defaultdict(list)
        self.letters: list[DeadLetter] = []
        self.rows_: dict[str, dict[str, dict]] = {service: {} for service in SERVICES}
        self.ledger_: dict[str, list[Booking]] = defaultdict(list)
        self.calls: list[Call] | None = []
        self.whole_ = Whole()
        self.read_to: dict[tuple[str, str, int], int] = {}
        self.client: dict[str, list[Request]] | None = None
        self.handovers: dict[str, dict[str, set[str]]] = {}
        self.watch: list[dict] | None = None
        for world in made:
            self._take(world)

    def _take(self, world: World) -> None:
        where: dict[tuple[str, int], Raw] = {}  # the world's topics have one partition
        for topic in TOPICS:
            for n, (key, value, headers) in enumerate(world.topics[topic.name]):
                place = (topic.name, partition_of(key.decode(), PARTITIONS))
                where[topic.name, n] = raw = Raw(*place, len(self.topics[place]), key, value, headers)
                self.topics[place].append(raw)
        for service, party in world.parties.items():
            for order_id, entry in party.entries.items():
                self.rows_[service][order_id] = {
                    "status": entry.state.status, "closed": entry.state.closed, "seq": entry.seq, "last": dict(entry.track.last),
                    "state": json.loads(party.spec.state_type.dump_json(entry.state))}
                if not order_id.startswith(("merchant:", "brand:")) and party.spec.document_type and entry.document is None and (
                        entry.state.parcels if service == "shipping" else entry.state.status not in ("new", "rejected")):
                    self.whole_.strangers.append((f"{service} has no document of it", order_id))
            self.whole_.parked += [(service, order_id, f"{r.incoming.source} #{r.incoming.sequence} {r.incoming.id}")
                                   for order_id, entry in party.entries.items() for r in entry.parked]
            self.whole_.needless += [(service, order_id) for order_id, entry in party.entries.items()
                                     if entry.armed and entry.state.closed]
            self.whole_.timers += [(service, order_id, entry.armed) for order_id, entry in party.entries.items() if entry.armed]
        for out in world.dead:
            letter = letter_of(Raw(out.topic, 0, 0, out.key, out.value, out.headers))
            at = where.get((letter.topic, letter.offset))
            self.letters.append(letter._replace(partition=at.partition, offset=at.offset) if at else letter)
        for order_id, entry, account, currency, amount, payment_id, parcel_id, kind, _ in world.parties["payments"].ledger:
            self.ledger_[order_id].append(Booking(entry, account, currency, amount, payment_id, parcel_id, kind))
        if (book := getattr(world.outside, "calls", None)) is not None:
            for order_id, line in book.values():
                self.call(order_id, **line)
        else:
            for _, value, _ in world.topics[PROVIDER_RESULT.name]:
                answer = json.loads(value)
                if "intent_id" in answer:
                    self.call(answer["order_id"], **{name: answer[name] for name in Call._fields[1:]})
                elif "stage" in answer:
                    told = {name: answer[name] for name in ("payment_id", "amount", "currency")}
                    self.call(answer["order_id"], intent_id=f"{answer['dispute_id']}.{answer['stage']}", kind=answer["stage"],
                              outcome="succeeded", **told)
        for (sku, warehouse), change in world.stock.changes.items():
            self.whole_.stock[warehouse, sku] = {kind: change.get(kind, 0) for kind in STOCK_KINDS}
        for key, change in world.quota.changes.items():  # one person, who buys in several worlds
            row = self.whole_.quota.setdefault(key, dict.fromkeys(COLUMNS, 0))
            row |= {name: row[name] + change.get(name, 0) for name in COLUMNS}

    def call(self, order_id: str, **fields) -> None:
        self.calls.append((order_id, Call(len(self.calls) + 1, **fields)))

    # -- what `examine` asks for

    async def records(self, partition: int):
        for topic in TOPICS:
            yield self.topics[topic.name, partition]

    async def dead_letters(self) -> list[DeadLetter]:
        return self.letters

    async def rows(self, partition: int):
        return {service: {
            order_id: (r["status"], r["closed"], r["seq"], json.dumps({"last": r["last"]}), json.dumps(r["state"]))
            for order_id, r in rows.items() if partition_of(order_id, PARTITIONS) == partition}
            for service, rows in self.rows_.items()}

    async def ledger(self, partition: int):
        return {o: rows for o, rows in self.ledger_.items() if rows and partition_of(o, PARTITIONS) == partition}

    async def whole(self) -> Whole:
        whole = self.whole_
        whole.plans = {plan.id: plan.model_dump() for plan in TERMS.plans}
        for row in (row for rows in self.ledger_.values() for row in rows):
            whole.accounts[row.account, row.currency] = whole.accounts.get((row.account, row.currency), 0) + row.amount
            whole.trial_balance[row.currency] = whole.trial_balance.get(row.currency, 0) + row.amount
        for (topic, partition), records in self.topics.items():
            whole.ends[topic, partition] = len(records)
            for service in SERVICES:
                if any(t.name == topic and service in t.read_by for t in TOPICS):
                    place = (service, topic, partition)
                    whole.offsets[place] = self.read_to.get(place, len(records))
                whole.outbox.setdefault((service, partition), 0)
        return whole

    def journals(self) -> Journals:
        provider = None
        if self.calls is not None:
            provider = defaultdict(list)
            for order_id, call in self.calls:
                provider[order_id].append(call)
        return Journals(self.client, provider, self.handovers, watched=watched(self.watch) if self.watch is not None else None)

    def note_what_a_watcher_saw(self) -> None:
        """Every order read twice, early and at its end."""
        self.watch = [{"looked": service, "records": 10} for service in SERVICES]
        for share in (2, 1):
            self.watch += [{"read": order_id, "service": service, "status": row["status"], "seq": row["seq"] // share,
                            "last": {source: n // share for source, n in row["last"].items()}}
                           for service, rows in self.rows_.items() for order_id, row in rows.items()]

    def note_what_clients_sent(self) -> None:
        """The journal of an honest client: what became a dead letter somebody else wrote. The outcome of one order was
        never learnt."""
        self.client, dead = defaultdict(list), {letter[:3] for letter in self.letters}
        for (topic, _), records in self.topics.items():
            for raw in records if topic == INTAKE.name else ():
                if raw[:3] in dead:
                    continue
                headers, order_id = dict(raw.headers), raw.key.decode()
                self.client[order_id].append(Request(f"line {raw.offset}", headers["ce_id"].decode(), order_id,
                                                     headers["ce_type"].decode(), digest_of(raw.value), order_id != "normal"))

    # -- what a bug would do

    def find(self, topic: str, type_: str, order_id: str, nth: int = 0) -> tuple[list[Raw], int]:
        """The list it is in, and its place there."""
        records = self.topics[topic, partition_of(order_id, PARTITIONS)]
        found = [n for n, r in enumerate(records) if r.key == order_id.encode() and dict(r.headers)["ce_type"] == type_.encode()]
        return records, found[nth]

    def change(self, topic: str, type_: str, order_id: str, headers: dict[str, str] | None = None, **fields) -> None:
        """Every copy of the event gets other fields and headers."""
        records, at = self.find(topic, type_, order_id)
        same = records[at]
        for n, raw in enumerate(records):
            if (raw.value, raw.headers) == (same.value, same.headers):
                value = json.dumps(json.loads(raw.value) | fields).encode()
                records[n] = raw._replace(value=value, headers=headers_with(raw.headers, headers or {}))

    def drop(self, topic: str, type_: str, order_id: str) -> None:
        records, at = self.find(topic, type_, order_id)
        records[:] = [r for r in records if (r.value, r.headers) != (records[at].value, records[at].headers)]

    def append(self, topic: str, raw: Raw, order_id: str, headers: dict[str, str], **fields) -> None:
        """A copy of a record with other headers and fields, at the end of the order's partition."""
        records = self.topics[topic, partition_of(order_id, PARTITIONS)]
        value = json.dumps(json.loads(raw.value) | fields).encode()
        records.append(raw._replace(offset=len(records), value=value, headers=headers_with(raw.headers, headers)))


def headers_with(headers: tuple, more: dict[str, str]) -> tuple:
    return tuple((name, more[name].encode() if name in more else value) for name, value in headers)


def without_line(call: Call) -> dict:
    return {name: value for name, value in call._asdict().items() if name != "line"}


@lru_cache(maxsize=1)
def _made() -> History:
    return History(worlds())


def fresh() -> History:
    """One order of each kind of path, for the caller to change."""
    return copy.deepcopy(_made())
