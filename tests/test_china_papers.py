"""The three documents of an import into China: they must agree before customs is told, and customs must agree before anything is
packed; corrected so many times, else everything is given back."""

from __future__ import annotations

import pytest

from schemas import orders_intake as ask
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.china_papers import Consignee, OrderDocument, OrderedGoods, PaymentDocument
from schemas.model import LineQuantity
from schemas.topics import MODELS
from services.explorer.simulation import bonded_order, order
from services.orders import quota as orders_quota
from services.shipping.matching import differences
from tests.test_lifecycle import Outside, accepted, ends, given, ids, nothing
from tests.test_quota import quota

WHO = Consignee(name="a" * 32, phone="b" * 32, address="c" * 32)
LINES = [OrderedGoods(gnum=1, line_no=1, gname="Cream", gcode="3304990029", quantity=2, amount=5000),
         OrderedGoods(gnum=2, line_no=3, gname="Puzzle", gcode="9503008900", quantity=1, amount=1999)]
ORDER = OrderDocument(order_no="A1-P1", platform="TRADEWIND0", transaction="T1", buyer="d" * 32, consignee=WHO, lines=LINES,
                      goods=6999, freight=700, tax=301, paid=8000)
PAYMENT = PaymentDocument(order_no="A1-P1", platform="TRADEWIND0", transaction="T1", payer="d" * 32, amount=8000)


def line(n: int, **changes) -> dict:
    return {"lines": [each.model_copy(update=changes) if i == n else each for i, each in enumerate(LINES)]}


@pytest.mark.parametrize("on_order, on_payment, label, named", [
    ({}, {}, WHO, []),
    ({}, {"payer": "e" * 32}, WHO, ["buyer (order/payment)"]),
    ({}, {"amount": 7999}, WHO, ["paid (order/payment)"]),
    ({}, {"transaction": "T2", "platform": "ELSEWHERE0"}, WHO, ["platform (order/payment)", "transaction (order/payment)"]),
    ({}, {"currency": "840"}, WHO, ["currency (order/payment)"]),
    ({}, {"order_no": "A1-P2"}, WHO, ["order_no (order/payment)"]),
    ({"order_no": "A1-P2"}, {"order_no": "A1-P2"}, WHO, ["order_no (order/waybill)"]),
    ({}, {}, WHO.model_copy(update={"phone": "0" * 32}), ["consignee.phone (order/waybill)"]),
    ({}, {}, WHO.model_copy(update={"name": "0" * 32, "address": "0" * 32}),
     ["consignee.name (order/waybill)", "consignee.address (order/waybill)"]),
    ({}, {}, None, ["consignee (order/waybill)"]),
    ({"tax": 300}, {}, WHO, ["paid (order)"]), ({"goods": 7000, "tax": 300}, {}, WHO, ["paid (order)"]),
    ({"discount": 1}, {}, WHO, ["paid (order)"]),
    (line(1, gnum=3), {}, WHO, ["gnum (order)"]),
    (line(0, gname=" "), {}, WHO, ["lines.1.gname (order)"]),
    (line(1, gcode="950300"), {}, WHO, ["lines.2.gcode (order)"]),
    (line(1, gcode="0000000000"), {}, WHO, ["lines.2.gcode (order)"]),
])
def test_every_field_that_disagrees_is_named(on_order, on_payment, label, named):
    found = differences(ORDER.model_copy(update=on_order), PAYMENT.model_copy(update=on_payment), "A1-P1", label)
    assert [f"{each.field} ({each.between})" for each in found] == named


def placed(code: str = "9503008900", **more):
    made = order(destination="CN", **more)
    return made.model_copy(update={"lines": [each.model_copy(update={"hs_code": code}) for each in made.lines]})


def papers(world) -> list[str]:
    """What was told of papers, in order; of orders and payments their documents."""
    wanted = {"OrderDocumented", "PaymentDocumentAmended", "DocumentsMismatched", "DocumentsMatched", "ListAccepted", "ListRejected",
              "FulfilmentRequested", "ParcelPacked", "ParcelCancelled"}
    return [event.type for event in world.events if event.type in wanted]


def told(world, type_: str) -> list:
    return [MODELS[type_].model_validate_json(event.value) for event in world.events if event.type == type_]


def supplies(*codes: str) -> Outside:
    """The merchant answers one mismatch after the other with these codes, then with nothing."""
    outside, left = Outside(), list(codes)

    def act(event, world):
        if left:
            world.send(ask.SupplyDocuments(order_id=event.order_id, lines=[ask.SuppliedCode(line_no=1, hs_code=left.pop(0))]))
    outside.on[ship.DocumentsMismatched] = outside.on[ship.ListRejected] = act
    return outside


def test_a_parcel_is_packed_when_its_papers_agree_and_customs_has_the_list():
    world, _ = given(placed(lines=(("CHERRY", 3, 5000), ("TOY", 1, 1999)), tax=1000, total=8699))
    assert papers(world) == ["OrderDocumented", "DocumentsMatched", "ListAccepted", "FulfilmentRequested", "ParcelPacked"]
    [ordered], [matched] = told(world, "OrderDocumented"), told(world, "DocumentsMatched")
    document, listed = ordered.document, matched.import_list
    assert (document.goods, document.freight, document.tax, document.paid) == (6999, 700, 1000, 8699)
    assert (listed.order_no, listed.packs, [each.gnum for each in listed.lines]) == ("A1-P1", 1, [1, 2])
    assert listed.logistics_no == told(world, "FulfilmentRequested")[0].waybill_no
    ends(world, "completed", buyer=-8699, released=8699)
    assert world.state("shipping").parcels["A1-P1"].aside.papers.order is None, "of no use any more, and not kept"


def test_persons_are_keyed_hashes_on_every_paper():
    world, _ = given(placed())
    for event in world.events:
        for clear in (b"Mei Lin", b"Long Road"):
            assert clear not in event.value, event.type


@pytest.mark.parametrize("destination", ["DE", "US"])
def test_nobody_else_hears_of_papers(destination):
    world, _ = given(order(destination=destination))
    assert not {"OrderDocumented", "PaymentDocumentAmended", "DocumentsMatched", "ListAccepted"} & set(world.types())
    assert world.state("shipping").parcels["A1-P1"].aside is None and told(world, "PaymentHeld")[0].document is None


@pytest.mark.parametrize("seed", range(4))
def test_a_wrong_code_is_named_and_corrected(seed):
    world, _ = given(placed("950300"), outside=supplies("950301", "9503008900"), seed=seed)
    first, second = told(world, "DocumentsMismatched")
    assert [(each.field, each.between) for each in first.differences] == [("lines.1.gcode", "order")] and second.attempt == 2
    assert [each.revision for each in told(world, "OrderDocumented")] == [1, 2, 3]
    ends(world, "completed", buyer=-5700, released=5700)


def test_papers_that_are_wrong_once_too_often_give_everything_back():
    world, _ = given(placed("950300"), outside=supplies("950301", "950302", "950303"))
    assert papers(world)[-2:] == ["DocumentsMismatched", "ParcelCancelled"] and len(told(world, "DocumentsMismatched")) == 4
    ends(world, "cancelled", reason="documents_mismatch", buyer=-5700, refunded=5700)
    assert quota(world) == {"reserved": 5700, "released": 5700, "committed": 0, "restored": 0}


def test_papers_that_nobody_corrects_end_at_the_deadline():
    world, _ = given(placed("950300"))
    world.wait(days=6)
    ends(world, "cancelled", reason="papers_expired", buyer=-5700, refunded=5700)


@pytest.mark.parametrize("status, then", [("4", []), ("100", ["9503008901"])])
def test_a_list_that_customs_did_not_take_is_sent_again_under_another_number(status, then):
    outside = supplies(*then)
    outside.on[ship.DocumentsMatched] = lambda e, w: accepted(e, w, status if not e.import_list.replaces else "120")
    world, _ = given(placed(), outside=outside)
    first, second = (each.import_list for each in told(world, "DocumentsMatched"))
    assert (first.list_no, second.list_no, second.replaces) == ("A1-P1.L1", "A1-P1.L2", "A1-P1.L1")
    assert [(each.status, each.list_no) for each in told(world, "ListRejected")] == [(status, "A1-P1.L1")]
    ends(world, "completed", buyer=-5700, released=5700)


@pytest.mark.parametrize("status, reason", [("-621018", "over_limit"), ("-621005", "over_limit"), ("700", "list_refused")])
def test_a_list_that_customs_will_never_take_is_paid_back(status, reason):
    outside = Outside()
    outside.on[ship.DocumentsMatched] = lambda e, w: accepted(e, w, status)
    world, _ = given(placed(), outside=outside)
    ends(world, "cancelled", reason=reason, buyer=-5700, refunded=5700)
    assert quota(world)["released"] == 5700 and "FulfilmentRequested" not in world.types()


def test_a_list_that_never_gets_through_is_paid_back():
    outside = Outside()
    outside.on[ship.DocumentsMatched] = lambda e, w: accepted(e, w, "4")
    world, _ = given(placed(), outside=outside)
    assert len(told(world, "ListRejected")) == 4
    ends(world, "cancelled", reason="list_rejected", buyer=-5700, refunded=5700)


def test_receipts_of_another_list_or_late_ones_move_nothing():
    outside = Outside()

    def several(event, world):
        for n, (status, number) in enumerate((("120", "A1-P1.L9"), ("1", ""), ("300", ""), ("120", ""), ("120", ""), ("4", ""), ("2", ""))):
            world.send(report.CarrierScanReported(**ids(event), dialect="ceb622", code=status, at=world.now, reason="x",
                                                  tracking_no=number or event.import_list.list_no), "/customs/CN", f"r{n}")
    outside.on[ship.DocumentsMatched] = several
    world, _ = given(placed(), outside=outside)
    assert papers(world).count("ListAccepted") == 1 and "ListRejected" not in papers(world)
    ends(world, "completed", buyer=-5700, released=5700)


def one_is_missing(event, world):
    """The warehouse finds one unit less on its shelf, and packs the rest."""
    world.send(report.ShortPickReported(**ids(event), lines=[LineQuantity(line_no=1, quantity=1)]), "/warehouse")
    world.send(report.PackedReported(**ids(event)), "/warehouse")


@pytest.mark.parametrize("seed", range(6))
def test_a_short_pick_has_all_three_documents_told_anew_before_it_is_packed(seed):
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = one_is_missing
    world, _ = given(placed(lines=(("CHERRY", 3, 6000),)), outside=outside, seed=seed, doubles=True)
    events = papers(world)
    assert events[-1] == "ParcelPacked" and {"OrderDocumented", "PaymentDocumentAmended", "DocumentsMatched", "ListAccepted"} <= set(
        events[events.index("FulfilmentRequested"):])
    assert events.count("FulfilmentRequested") == 1, "the warehouse knows already"
    listed = told(world, "DocumentsMatched")[-1].import_list
    assert [each.quantity for each in listed.lines] == [2] and told(world, "PaymentDocumentAmended")[-1].document.amount == 4700
    assert told(world, "OrderDocumented")[-1].document.paid == 4700
    ends(world, "completed", buyer=-6700, released=4700, refunded=2000)
    assert quota(world) == {"reserved": 6700, "released": 0, "committed": 6700, "restored": 2000}


def test_a_freeze_keeps_papers_and_receipts_until_it_is_lifted():
    from schemas import merchants
    outside, waiting = Outside(), []
    outside.on[ship.DocumentsMatched] = lambda e, w: waiting.append(e)
    world, _ = given(placed(), outside=outside)
    world.send(merchants.FreezeMerchant(order_id="merchant:m1", reason="fraud", decided_by="o"), "/platform")
    world.run()
    accepted(waiting[0], world)
    world.run()
    assert "ListAccepted" not in world.types()
    world.send(merchants.DecideAppeal(order_id="merchant:m1", outcome="lifted", decided_by="o"), "/platform")
    world.run()
    ends(world, "completed", buyer=-5700, released=5700)


def test_a_payment_without_a_document_goes_the_way_it_went_before():
    """Held by a service of before papers were matched."""
    world, _ = given(placed(), outside=_deaf())
    entry = world.parties["shipping"].entries["A1"]
    assert entry.state.parcels["A1-P1"].status == "declared"
    entry.state.parcels["A1-P1"].status, entry.state.parcels["A1-P1"].aside = "allocated", None
    from services.runtime.decision import Incoming
    from services.shipping.machine import decide
    held = told(world, "PaymentHeld")[0].model_copy(update={"document": None})
    decision = decide(entry.state, entry.document, Incoming("PaymentHeld", "p", "payments", 9, world.now, held), world.stock, world.now)
    assert [type(event).__name__ for event in decision.events] == ["DocumentsMatched", "ListAccepted", "FulfilmentRequested"]


def _deaf() -> Outside:
    outside = Outside()
    outside.on[ship.DocumentsMatched] = nothing
    return outside


def test_an_order_whose_number_is_too_long_for_customs_is_refused():
    long = "A" * (orders_quota.ORDER_ID_MAX + 1)
    world, _ = given(placed(order_id=long))
    assert world.state("orders", long).reason == "order_no_too_long"


# -- from a bonded warehouse (mode 1210) -----------------------------------------------------------------------------------


def test_goods_in_bond_are_packed_when_customs_has_released_them_and_cross_no_border():
    world, _ = given(bonded_order())
    types = world.types("shipping")
    assert types[types.index("DocumentsMatched"):] == ["DocumentsMatched", "ListAccepted", "ListReleased", "FulfilmentRequested",
                                                       "ParcelPacked", "ParcelHandedOver", "ParcelOutForDelivery", "ParcelDelivered"]
    listed = told(world, "DocumentsMatched")[0].import_list
    assert (listed.mode, listed.ems_no, listed.area_code, listed.lines[0].item_record) == ("1210", "T2231W000123", "310066", "R1")
    assert told(world, "FulfilmentRequested")[0].regime == "domestic", "to the warehouse and the carrier it is a way within China"
    ends(world, "completed", buyer=-5700, released=5700)
    assert quota(world) == {"reserved": 5700, "released": 0, "committed": 5700, "restored": 0}


@pytest.mark.parametrize("statuses, end, packed", [
    (("120", "300", "500", "501", "800"), "completed", True), (("120", "700"), "cancelled", False),
    (("120", "500", "-621018"), "cancelled", False), (("800", "120"), "completed", True),
])
def test_what_customs_does_with_goods_in_bond(statuses, end, packed):
    outside = Outside()

    def says(event, world):
        for n, status in enumerate(statuses):
            world.send(report.CarrierScanReported(**ids(event), dialect="ceb622", code=status, at=world.now, reason="x",
                                                  tracking_no=event.import_list.list_no), "/customs/CN", f"r{n}")
    outside.on[ship.DocumentsMatched] = says
    world, _ = given(bonded_order(), outside=outside)
    assert world.state("orders").status == end and ("ParcelPacked" in world.types()) == packed
    moved = quota(world)
    assert moved["committed"] - moved["restored"] == (5700 if packed else 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_short_pick_in_bond_is_declared_and_released_anew(seed):
    outside = Outside()
    outside.on[ship.FulfilmentRequested] = one_is_missing
    world, _ = given(bonded_order(lines=(("CHERRY", 3, 6000),)), outside=outside, seed=seed)
    assert world.types().count("ListReleased") == 2 and world.types().count("FulfilmentRequested") == 1
    ends(world, "completed", buyer=-6700, released=4700, refunded=2000)


@pytest.mark.parametrize("changes, reason", [
    ({"origin": "CN"}, "bonded_not_into_china"), ({"destination": "DE"}, "bonded_not_into_china"), ({"lines": 0}, "item_record_missing")])
def test_goods_in_bond_need_what_their_list_asks_for(changes, reason):
    made = bonded_order()
    if "lines" in changes:
        changes = {"lines": [each.model_copy(update={"item_record": None}) for each in made.lines]}
    world, _ = given(made.model_copy(update=changes))
    assert world.state("orders").reason == reason


# -- taken back ------------------------------------------------------------------------------------------------------------


def withdraws(event, world):
    """Customs answers a revocation or a return, twice."""
    form, list_no = ("CEB624", event.revokes) if hasattr(event, "revokes") else ("CEB626", event.returns_list)
    for copy in "ab" if list_no else ():
        world.send(report.ListWithdrawalReported(**ids(event), list_no=list_no, form=form, accepted=True,
                                                 return_id=getattr(event, "return_id", "")), "/customs/CN", f"{form}:{list_no}:{copy}")


def world_that_takes_back(on: type, act, **more):
    outside = Outside()
    outside.on[ship.ParcelCancelled] = outside.on[ship.ReturnReceived] = withdraws
    outside.on[on] = act
    return given(placed(**more), outside=outside)[0]


@pytest.mark.parametrize("on, revoked", [(ship.ListAccepted, "A1-P1.L1"), (ship.ParcelPacked, "A1-P1.L1"), (ship.ParcelsAllocated, "")])
def test_a_cancelled_parcels_list_is_revoked(on, revoked):
    world = world_that_takes_back(on, lambda e, w: w.send(ask.CancelOrder(order_id="A1")))
    [cancelled] = told(world, "ParcelCancelled")
    assert cancelled.revokes == revoked or on is ship.ParcelsAllocated
    assert [(each.form, each.list_no) for each in told(world, "ListWithdrawn")] == ([("CEB624", cancelled.revokes)] if cancelled.revokes else [])
    assert world.state("orders").status == "cancelled" and world.dead == []


def test_a_list_that_customs_rejected_is_not_revoked():
    outside = Outside()
    outside.on[ship.DocumentsMatched] = lambda e, w: accepted(e, w, "-621018")
    world, _ = given(placed(), outside=outside)
    assert told(world, "ParcelCancelled")[0].revokes == ""


@pytest.mark.parametrize("first, then, late", [(0, 1, False), (29, 30, True)])
def test_goods_that_are_back_in_time_return_their_list_and_the_year(first, then, late):
    world = world_that_takes_back(ship.ReturnAuthorised, nothing)
    world.wait(days=first)
    world.send(ask.RequestReturn(order_id="A1"))
    world.run()
    [asked] = told(world, "ReturnAuthorised")
    world.wait(days=then)
    world.send(report.ReturnReceivedReported(**ids(asked), return_id=asked.return_id), "/warehouse")
    world.run()
    [back] = told(world, "ReturnReceived")
    assert (back.returns_list, back.late) == ("" if late else "A1-P1.L1", late)
    assert [each.form for each in told(world, "ListWithdrawn")] == ([] if late else ["CEB626"])
    assert quota(world)["restored"] == (0 if late else 5700) and world.dead == []
