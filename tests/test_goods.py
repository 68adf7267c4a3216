"""What is asked of goods: the positive list, limits per person, lithium batteries by air."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.orders_intake import LithiumBattery
from services.explorer.simulation import World, order
from services.orders import goods

SHIPPED = goods.load()
WHOLE = {"un": "UN3481", "packing_instruction": "967", "watt_hours": 15.4, "charge_percent": 30}


def placed(hs_code: str | None, destination: str = "DE", day: datetime | None = None, **line):
    one = order("A1", destination)
    made = one.model_copy(update={"lines": [one.lines[0].model_copy(update={"hs_code": hs_code, **line})]})
    return made.model_copy(update={"placed_at": day}) if day else made


@pytest.mark.parametrize("change, words", [
    ({}, ""), ({"charge_percent": 31}, "charge_percent is 31"), ({"charge_percent": 100, "watt_hours": 2.7}, ""),
    ({"packing_instruction": "965"}, "packing_instruction is 965, UN3481 goes by 966 or 967"), ({"un": "UN3480"}, "not UN3480"),
    ({"charge_percent": None, "un": None}, "battery lacks un, charge_percent"), (None, "give battery with un, watt_hours"),
])
def test_lithium_cells_by_air_are_declared_and_hardly_charged(change, words):
    battery = None if change is None else LithiumBattery(**WHOLE | change)
    found = goods.check(placed("85171300", battery=battery), SHIPPED)
    assert (found is None) is (words == "") and (found is None or found[0] == "dangerous_goods" and "line 1" in found[1] and words in found[1])


def test_the_rule_has_a_day_and_a_border():
    wrong = LithiumBattery(**WHOLE | {"charge_percent": 80})
    assert goods.check(placed("85171300", battery=wrong, day=datetime(2025, 12, 31, tzinfo=UTC)), SHIPPED) is None
    assert goods.check(placed("85171300", battery=wrong, day=datetime(2026, 1, 1, tzinfo=UTC)), SHIPPED) is not None
    assert goods.check(placed("85171300", "US", battery=wrong), SHIPPED) is None, "within a country nothing flies by rule"
    assert goods.check(placed("950300", battery=wrong), SHIPPED) is not None, "who declares cells is held to what he says"


@pytest.mark.parametrize("hs_code, grams, reason", [
    ("1701990010", 2_000, None), ("1701990010", 2_001, "over_goods_limit"), ("1006308000", 20_000, None),
    ("1006308000", 20_001, "over_goods_limit"), ("1006308000", None, "goods_data_missing"), ("9503008900", None, None)])
def test_one_person_may_have_so_much_sugar_and_rice(hs_code, grams, reason):
    found = goods.check(placed(hs_code, "CN", net_grams=grams), SHIPPED)
    assert (found and found[0]) == reason
    assert goods.check(placed(hs_code, "DE", net_grams=grams), SHIPPED) is None


def test_two_lines_of_one_code_are_added_up():
    one = placed("1701990010", "CN", net_grams=1_200)
    two = one.model_copy(update={"lines": [*one.lines, one.lines[0].model_copy(update={"line_no": 2})]})
    assert goods.check(two, SHIPPED)[0] == "over_goods_limit"


def test_the_extract_of_the_positive_list_is_disabled_and_a_file_of_ones_own_holds(tmp_path):
    assert SHIPPED.positive == () and any(row.id == "cn.positive.2022-03" for row in goods.rows())
    file = tmp_path / "goods.toml"
    file.write_text(goods.SHIPPED.read_text().replace('certainty = "C"\n', 'certainty = "C"\nenabled = true\n', 1))
    mine = goods.load(file)
    assert goods.check(placed("9503008900", "CN"), mine) is None and goods.check(placed("7113110000", "DE"), mine) is None
    assert goods.check(placed("7113110000", "CN"), mine)[0] == "not_on_positive_list"
    assert goods.check(placed(None, "CN"), mine)[0] == "not_on_positive_list"
    assert goods.check(placed("7113110000", "CN", day=datetime(2021, 1, 1, tzinfo=UTC)), mine) is None, "no list held then"
    file = tmp_path / "wrong.toml"
    file.write_text("[[positiv]]\nid = 1\n")
    with pytest.raises(goods.BadGoods, match="positiv"):
        goods.load(file)


def test_it_is_refused_at_intake_by_name():
    world = World(lambda *_: None)
    world.send(placed("85171300"))
    world.run()
    assert world.state("orders").reason == "dangerous_goods"
