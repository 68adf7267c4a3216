"""What goes through Chinese customs' port: typed XML with persons in clear, held against a schema, signed, and the same when it
comes back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from lxml import etree

from schemas.parties import Person, unseal
from services.explorer.simulation import KEY, bonded_order
from services.orders.port.messages import CEB311, CEB411, CEB511, CEB621, NotTheSame, papers
from services.orders.port.xml import NAMESPACE, BadPaper, from_xml, new_key, sign, to_xml, verified
from tests.test_china_papers import placed, told
from tests.test_lifecycle import given
from tests.test_quota import person

AT = datetime(2026, 11, 25, 9, 30, tzinfo=UTC)


def of(made=None) -> tuple[list, Person]:
    """The papers of an order's parcel, and its buyer."""
    made = made or placed(lines=(("CHERRY", 3, 5000), ("TOY", 1, 1999)), tax=1000, total=8699, **person())
    world, _ = given(made)
    who = unseal(made.buyer, KEY)
    return papers(told(world, "OrderDocumented")[0].document, told(world, "PaymentHeld")[0].document,
                  told(world, "DocumentsMatched")[0].import_list, who, who, KEY, AT), who


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return new_key("a port of ours", AT)


@pytest.mark.parametrize("made", [None, bonded_order(**person())], ids=["9610", "1210"])
def test_every_paper_comes_back_as_it_was(made, pair):
    found, who = of(made)
    assert [type(paper) for paper in found] == [CEB311, CEB411, CEB511, CEB621]
    for paper in found:
        data = sign(to_xml(paper), *pair)
        assert verified(data, pair[1]) == paper and from_xml(to_xml(paper)) == paper
        assert NAMESPACE.encode() in data and who.name.encode() in data, "customs reads persons in clear, here alone"


def test_amounts_and_modes_are_as_customs_wants_them():
    order_, payment, waybill, listed = of()[0]
    assert str(order_.acturalPaid) == str(payment.amountPaid) == "86.99"
    assert order_.acturalPaid == order_.goodsValue + order_.freight + order_.taxTotal - order_.discount
    assert (listed.tradeMode, listed.billNo, listed.emsNo) == ("9610", waybill.logisticsNo, "")
    bonded = of(bonded_order(**person()))[0][3]
    assert (bonded.tradeMode, bonded.billNo, bonded.emsNo, bonded.areaCode, bonded.lines[0].itemRecordNo) == (
        "1210", "", "T2231W000123", "310066", "R1")


@pytest.mark.parametrize("change", [
    lambda data: data.replace(b"86.99", b"86.98"), lambda data: data.replace(b"Mei Lin", b"Mei Lim"),
    lambda data: data.replace(b"CEB311", b"CEB411"), lambda data: data[:200], lambda data: b"<a/>",
])
def test_what_was_changed_on_its_way_is_refused(change, pair):
    with pytest.raises(BadPaper):
        verified(change(sign(to_xml(of()[0][0]), *pair)), pair[1])


def test_what_somebody_else_signed_is_refused(pair):
    with pytest.raises(BadPaper):
        verified(sign(to_xml(of()[0][0]), *new_key("somebody", AT)), pair[1])


@pytest.mark.parametrize("element, value, what", [
    ("currency", "840", "currency"), ("acturalPaid", "1.005", "acturalPaid"), ("orderNo", "x" * 61, "orderNo"), ("gcode", "950300", "gcode")])
def test_what_the_schema_forbids_is_named(element, value, what):
    root = to_xml(of()[0][0])
    next(root.iter(f"{{{NAMESPACE}}}{element}")).text = value
    with pytest.raises(BadPaper, match=what):
        from_xml(etree.fromstring(etree.tostring(root)))


def test_persons_who_are_not_those_of_the_papers_are_not_told():
    made = placed(**person())
    world, _ = given(made)
    right, other = unseal(made.buyer, KEY), unseal(person("Li Na", "11010519491231011X")["buyer"], KEY)
    parts = [told(world, "OrderDocumented")[0].document, told(world, "PaymentHeld")[0].document,
             told(world, "DocumentsMatched")[0].import_list]
    for buyer, consignee in ((other, right), (right, other)):
        with pytest.raises(NotTheSame):
            papers(*parts, buyer, consignee, KEY, AT)


def test_entities_of_others_are_not_expanded(pair):
    bomb = b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'
    with pytest.raises(BadPaper):
        verified(bomb, pair[1])
