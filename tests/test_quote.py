"""Landed cost: a table of cases that can be checked by hand, properties, the rule data, and `tradewind quote`."""

from __future__ import annotations

import ast
import csv
import io
import json
import operator
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.quotes import Quote, QuoteLine, QuoteRequest
from services.cli import exits
from services.cli.main import main
from services.orders import trade_doc
from services.orders.landed_cost import Refusal, apportion, landed_cost
from services.orders.rulebook import FOLDER, RulesError, load

DATA = Path(__file__).parent / "data"
OUTSIDE = DATA / "quote-rates.toml"
CASES = list(csv.DictReader((DATA / "landed-cost.csv").read_text().splitlines()))
CHARGES = ("duty", "consumption_tax", "import_tax", "clearance_fee")
TOY, SOCKS = "9503008900", "61159610"


# -- the table --------------------------------------------------------------------------------------------------------


def line(number: int, text: str) -> QuoteLine:
    hs_code, origin, quantity, amount, *grams = text.split(":")
    return QuoteLine(line_no=number, hs_code=hs_code, origin=origin, quantity=int(quantity), amount=int(amount),
                     net_grams=int(grams[0]) if grams else None)


def request(to: str, on: str, currency: str, *lines: str, **more) -> QuoteRequest:
    return QuoteRequest(destination=to, import_date=date.fromisoformat(on), currency=currency,
                        lines=[line(n, text) for n, text in enumerate(lines, 1)], **more)


def asked(case: dict[str, str]) -> QuoteRequest:
    return request(case["to"], case["on"], case["currency"], *case["lines"].split(), channel=case["channel"],
                   mode=case["mode"] or None, freight=int(case["freight"]), insurance=int(case["insurance"]),
                   used_this_year=int(case["used_this_year"]) if case["used_this_year"] else None)


def by_hand(expression: str) -> Decimal:
    """The value of numbers, + - * / and r0, r2, r3 (round half up to so many places); exact until rounded."""
    maths = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(ast.get_source_segment(expression, node))
        if isinstance(node, ast.BinOp):
            return maths[type(node.op)](value(node.left), value(node.right))
        assert isinstance(node, ast.Call) and node.func.id in ("r0", "r2", "r3"), expression
        found = value(node.args[0])
        place = Decimal(1).scaleb(-int(node.func.id[1]))
        return Fraction((Decimal(found.numerator) / found.denominator).quantize(place, ROUND_HALF_UP))

    found = value(ast.parse(expression, mode="eval").body)
    return Decimal(found.numerator) / found.denominator


PLACES = {"JPY": 0, "KWD": 3}


def test_the_table_is_large_and_says_how_each_amount_comes_about():
    assert len(CASES) >= 200
    for case in CASES:
        for kind in CHARGES if case["total"] else ():
            how = case[f"how_{kind}"]
            expected = by_hand(how).scaleb(PLACES.get(case["currency"], 2)) if how else Decimal(0)
            assert expected == int(case[kind]), (case["case"], kind, how)


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_a_case_of_the_table(case):
    answer = landed_cost(asked(case), load(OUTSIDE))
    if case["rule"].startswith("refused:"):
        assert isinstance(answer, Refusal), answer
        assert answer.reason == case["rule"].removeprefix("refused:")
        assert answer.what and answer.where and answer.remedy
        return
    assert isinstance(answer, Quote), answer
    assert {"rule": answer.rule_id, "total": answer.total} | {kind: answer.amount(kind) for kind in CHARGES} == {
        "rule": case["rule"], "total": int(case["total"])} | {kind: int(case[kind]) for kind in CHARGES}


# -- properties -------------------------------------------------------------------------------------------------------

PLACES_TO_GO = {"CN": ("CNY", TOY), "DE": ("EUR", "95030041"), "GB": ("GBP", SOCKS), "US": ("USD", "9503000073"),
                "BR": ("EUR", "95030000"), "JP": ("JPY", "95030000")}
baskets = st.lists(st.tuples(st.integers(0, 60_000), st.integers(1, 5)), min_size=1, max_size=6).filter(
    lambda basket: any(amount for amount, _ in basket))


def basket_request(to: str, basket: list[tuple[int, int]], freight: int, insurance: int, on: str = "2026-09-01"
                   ) -> QuoteRequest:
    currency, hs_code = PLACES_TO_GO[to]
    return request(to, on, currency, *(f"{hs_code}:CN:{quantity}:{amount}" for amount, quantity in basket), freight=freight,
                   insurance=insurance)


@given(st.sampled_from(sorted(PLACES_TO_GO)), baskets, st.integers(0, 20_000), st.integers(0, 2_000))
@settings(deadline=None, max_examples=150)
def test_the_charges_add_up_to_the_total_and_the_lines_to_the_charges(to, basket, freight, insurance):
    answer = landed_cost(basket_request(to, basket, freight, insurance), load(OUTSIDE))
    if isinstance(answer, Refusal):
        assert answer.reason == "over_limit"
        return
    assert sum(charge.amount for charge in answer.charges) == answer.total
    assert answer.amount("goods", "freight", "insurance") == sum(a for a, _ in basket) + freight + insurance
    for charge in answer.charges:
        if charge.kind in ("duty", "consumption_tax", "import_tax"):
            assert sum(getattr(line, charge.kind) for line in answer.lines) == charge.assessed == charge.amount
    assert sum(line.customs_value for line in answer.lines) == answer.amount("goods", "freight", "insurance")


@given(st.sampled_from(["CN", "DE", "GB", "US", "BR"]), st.integers(1, 90_000), st.integers(1, 30_000),
       st.integers(0, 5_000))
@settings(deadline=None, max_examples=150)
def test_a_dearer_basket_never_costs_less_under_the_same_rule(to, price, more, freight):
    cheap, dear = (landed_cost(basket_request(to, [(p, 1)], freight, 0), load(OUTSIDE)) for p in (price, price + more))
    if isinstance(cheap, Quote) and isinstance(dear, Quote) and cheap.rule_id == dear.rule_id:
        assert dear.total >= cheap.total + more
        assert all(d.amount >= c.amount for c, d in zip(cheap.charges, dear.charges, strict=True))


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_apportioned_parts_add_up_and_are_within_one_of_their_share(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    whole = sum(weights)
    for part, weight in zip(parts, weights, strict=True) if whole else ():
        assert abs(part - Fraction(total * weight, whole)) < 1


@given(baskets, st.integers(0, 20_000))
@settings(deadline=None, max_examples=50)
def test_rounded_once_the_tax_is_within_half_a_unit_of_the_exact_sum(basket, freight):
    rules = load(OUTSIDE, "EU=half_up/total")
    answer = landed_cost(basket_request("DE", basket, freight, 0, "2026-06-30"), rules)
    if answer.rule_id == "eu.low-value.ioss.2021":
        exact = Fraction(19, 100) * answer.amount("goods", "freight")
        assert abs(answer.amount("import_tax") - exact) <= Fraction(1, 2)
        assert sum(line.import_tax for line in answer.lines) == answer.amount("import_tax")


# -- what a quote says ------------------------------------------------------------------------------------------------


def test_every_charge_names_who_levies_it_by_which_rows_and_how_sure_they_are():
    answer = landed_cost(request("US", "2026-11-25", "USD", "9503000073:CN:1:5000"), load(OUTSIDE))
    duty, fee = (next(c for c in answer.charges if c.kind == kind) for kind in ("duty", "clearance_fee"))
    assert (duty.levied_by, duty.collected_by, duty.collect_at, duty.rows, duty.certainty) == (
        "US customs", "carrier", "import", ["us.informal.2025", "test.us.9503.china"], "B")
    assert (fee.amount, fee.rows) == (250, ["test.fee.us"])
    assert [n.id for n in answer.not_charged] == ["carrier.fee.clearance", "us.fee.merchandise-processing"]
    assert {n.certainty for n in answer.not_charged} == {"C"}


def test_the_customs_rate_is_part_of_the_quote_and_absent_where_none_was_needed():
    abroad = landed_cost(request("DE", "2026-07-01", "JPY", "950300:CN:1:8000"), load(OUTSIDE))
    assert abroad.customs_rate.model_dump() == {"id": "test.rate.JPY", "base": "EUR", "quote": "JPY", "rate": "160"}
    assert (abroad.customs_currency, abroad.amount("duty"), abroad.charges[3].assessed) == ("EUR", 480, 300)
    assert landed_cost(request("DE", "2026-07-01", "EUR", "950300:CN:1:8000"), load()).customs_rate is None


def test_without_rates_from_outside_what_is_dutiable_into_the_us_is_refused():
    answer = landed_cost(request("US", "2025-08-29", "USD", "9503000073:CN:1:5000"), load())
    assert isinstance(answer, Refusal) and answer.reason == "no_rate" and "--rates" in answer.remedy


def test_where_the_buyer_pays_on_arrival_the_quote_says_that_it_is_not_complete():
    answer = landed_cost(request("AU", "2026-09-01", "EUR", "950300:CN:1:8000"), load())
    assert not answer.complete and "on arrival" in answer.notes[0] and answer.total == 8000


def test_customs_asks_for_product_identifiers_from_november_2026():
    before, after = (landed_cost(request("DE", day, "EUR", "950300:CN:1:800"), load())
                     for day in ("2026-10-31", "2026-11-01"))
    assert before.required_data == ["IOSS number"]
    assert after.required_data == ["product identifier per item", "IOSS number"]


@pytest.mark.parametrize(("price", "setting", "tax"), [
    # 5.00 · 0.13 · 0.7 = 0.455 and 15.00 · 0.13 · 0.7 = 1.365
    (500, "", 46), (500, "CN=half_up/line", 46), (500, "CN=half_even/line", 46), (500, "CN=down/line", 45),
    (1500, "", 137), (1500, "CN=half_even/line", 136), (1500, "CN=up/line", 137), (1500, "CN=down/total", 136)])
def test_a_rounding_nobody_verified_is_a_setting(price, setting, tax):
    answer = landed_cost(request("CN", "2026-01-15", "CNY", f"{TOY}:JP:1:{price}"), load(None, setting))
    assert answer.amount("import_tax") == tax


def test_two_lines_of_one_number_and_a_currency_without_minor_units_are_refused():
    doubled = request("DE", "2026-07-01", "EUR", "950300:CN:1:1", "950300:CN:1:1")
    doubled = doubled.model_copy(update={"lines": [doubled.lines[0], doubled.lines[0]]})
    assert landed_cost(doubled, load()).reason == "line_numbers"
    assert landed_cost(request("DE", "2026-07-01", "XAU", "950300:CN:1:1"), load()).reason == "unknown_currency"


# -- the rule data ----------------------------------------------------------------------------------------------------


def test_every_row_has_a_source_and_what_is_of_certainty_c_is_disabled():
    rows = list(load().rows())
    assert len(rows) > 80
    assert all(row.source for row in rows)
    assert [row.id for row in rows if row.certainty == "C" and row.enabled] == []
    assert [row.id for row in rows if row.certainty == "C"], "what is known but not sure is shipped too"


def test_every_member_state_has_one_standard_rate_on_every_day_since_ioss_began():
    rules = load()
    for country in rules.groups["EU"]:
        day = date(2021, 7, 1)
        while day <= date(2028, 6, 30):
            fit = [row for row in rules.taxes if row.country == country and row.hs == ("",) and row.holds(day)]
            assert len(fit) == 1, (country, day)
            day += timedelta(days=30)


def test_no_two_rules_fit_one_consignment():
    rules = load().rules
    edges = sorted({day for rule in rules for end in (rule.valid_from, rule.valid_to) if end
                    for day in (end - timedelta(days=1), end, end + timedelta(days=1))})
    bounds = sorted({edge for rule in rules if rule.value for edge in (rule.value.over, rule.value.up_to) if edge is not None})
    values = [value + step for value in bounds for step in (Fraction(-1, 100), Fraction(0), Fraction(1, 100))]
    seen = 0
    for destination in ("CN", "EU", "GB", "US", "*"):
        own = [rule for rule in rules if destination in rule.destinations and rule.enabled]
        for day, value, origin in ((d, v, o) for d in edges for v in values for o in ("CN", "DE")):
            for mode in {mode for rule in own for mode in rule.modes} or {None}:
                for channel in ("b2c", "post", "express"):
                    fit = [rule.id for rule in own if rule.holds(day) and channel in rule.channels and origin not in rule.not_from
                           and (not rule.made_in or origin in rule.made_in) and (mode is None or mode in rule.modes)
                           and (rule.value is None or rule.value.holds(value))]
                    assert len(fit) <= 1, (destination, day, value, origin, mode, channel, fit)
                    seen += len(fit)
    assert seen > 1000


@pytest.mark.parametrize(("text", "named"), [
    ('[[fee]]\nid = "x.fee"\ntitle = "a fee of ours"\ndestinations = ["DE"]\nvalid_from = 2026-01-01\namount = "2"\n'
     'source = "hearsay"\ncertainty = "C"', "certainty C and enabled"),
    ('[[tax]]\nid = "x.vat"\ncountry = "DE"\nkind = "vat"\nhs = ""\npercent = "16"\nvalid_from = 2026-01-01\n'
     'source = "a second standard rate"\ncertainty = "B"', "eu.vat.DE.2021"),
    ('[[customs_rate]]\nid = "x.rate"\nbase = "USD"\nquote = "EUR"\nrate = 0.8\nvalid_from = 2026-01-01\n'
     'source = "a float"\ncertainty = "B"', "as strings"),
    ('[[customs_rate]]\nid = "x.rate"\nbase = "XAU"\nquote = "EUR"\nrate = "0.8"\nvalid_from = 2026-01-01\n'
     'source = "of gold"\ncertainty = "B"', "XAU"),
    ('[[duty]]\nid = "eu.full"\ncountry = "DE"\nhs = "01"\npercent = "1"\nvalid_from = 2026-01-01\nsource = "an id taken"\n'
     'certainty = "B"', "two rows are called eu.full"),
    ('[[duty]]\nid = "x.duty"\ncountry = "DE"\nhs = "01"\npercent = "1"\nvalid_from = 2026-02-01\nvalid_to = 2026-01-01\n'
     'source = "backwards"\ncertainty = "B"', "before it begins"),
    ('[[duty]]\nid = "x.duty"\nrate = "1"', "x.duty.valid_from"),
    ("not toml", "not TOML"),
])
def test_rule_data_that_cannot_be_used_is_refused_by_file_and_row(tmp_path, text, named):
    path = tmp_path / "rates.toml"
    path.write_text(text)
    with pytest.raises(RulesError, match=named) as refused:
        load(path)
    assert str(path) == refused.value.where


@pytest.mark.parametrize("setting", ["CN", "CN=nearest/line", "CN=half_up/parcel", "ZZ=half_up/line"])
def test_a_rounding_that_is_none_is_refused(setting):
    with pytest.raises(RulesError, match="TERRITORY=MODE/PER"):
        load(None, setting)


def test_the_documentation_of_the_rules_is_current():
    assert trade_doc.PAGE.read_text() == trade_doc.page(), "run: python -m services.orders.trade_doc"
    text = trade_doc.page()
    assert [row.id for row in load().rows() if f"`{row.id}`" not in text] == []
    assert all((FOLDER / name).exists() for name in ("china.toml", "eu.toml", "gb.toml", "us.toml", "elsewhere.toml"))


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRADEWIND_RATES_FILE", raising=False)

    def run(*words: str) -> tuple[int, dict, str]:
        with pytest.raises(SystemExit) as left:
            main(["quote", *words])
        said = capsys.readouterr()
        return left.value.code, json.loads(said.out.splitlines()[-1]) if "--json" in words else {}, said.out + said.err

    return run


WORKED = ["--to", "CN", "--import-date", "2026-11-25", "--currency", "CNY", "--freight", "2000",
          "--line", "3304990029:FR:1:42500:30", "--line", f"{TOY}:US:1:19990"]


def test_the_worked_example_by_the_command(run):
    code, said, _ = run(*WORKED, "--json")
    charges = {c["kind"]: c["amount"] for c in said["quote"]["charges"]}
    assert (code, charges["consumption_tax"] + charges["import_tax"], said["quote"]["total"]) == (exits.OK, 11991, 76481)


def test_people_see_the_charges_the_rules_and_what_is_not_charged(run):
    code, _, text = run("--to", "DE", "--import-date", "2026-11-01", "--line", "950300:CN:2:4000")
    assert code == exits.OK
    for word in ("EUR 51.17", "eu.low-value.ioss.2026", "DE customs", "not charged: eu.fee.handling", "customs needs"):
        assert word in text, word


def test_a_request_from_a_file_and_from_stdin(run, tmp_path, monkeypatch):
    body = json.dumps({"destination": "GB", "import_date": "2026-09-01", "currency": "GBP",
                       "lines": [{"line_no": 1, "hs_code": "950300", "origin": "CN", "quantity": 1, "amount": 1000}]})
    (tmp_path / "ask.json").write_text(body)
    assert run("--from", "ask.json", "--json")[1]["quote"]["total"] == 1200
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body.encode())))
    assert run("--from", "-", "--json")[1]["quote"]["total"] == 1200


def test_rates_from_outside_by_option_and_by_setting(run, monkeypatch):
    words = ["--to", "US", "--import-date", "2025-08-29", "--currency", "USD", "--line", "6109100012:VN:1:5000", "--json"]
    code, said, text = run(*words)
    assert code == exits.REFUSED and said["error"]["reason"] == "no_rate" and "remedy:" in text
    assert run(*words, "--rates", str(OUTSIDE))[1]["quote"]["total"] == 5000 + 825 + 250
    monkeypatch.setenv("TRADEWIND_RATES_FILE", str(OUTSIDE))
    assert run(*words)[1]["quote"]["total"] == 6075


@pytest.mark.parametrize(("words", "named"), [
    (["--to", "DE"], "--import-date is missing"),
    (["--to", "DE", "--import-date", "2026-07-01"], "there is no line"),
    (["--to", "DE", "--import-date", "1.7.2026", "--line", "950300:CN:1:5"], "import_date"),
    (["--to", "de", "--import-date", "2026-07-01", "--line", "950300:CN:1:5"], "destination"),
    (["--to", "DE", "--import-date", "2026-07-01", "--line", "950300:CN:1"], "HS:ORIGIN:QTY:AMOUNT"),
    (["--to", "DE", "--import-date", "2026-07-01", "--line", "toys:CN:1:5"], "hs_code"),
    (["--to", "DE", "--import-date", "2026-07-01", "--line", "950300:CN:1:-5"], "HS:ORIGIN:QTY:AMOUNT"),
    (["--to", "DE", "--import-date", "2026-07-01", "--line", "950300:CN:1:5", "--channel", "boat"], "channel"),
    (["--from", "nowhere.json"], "cannot be read"),
    (["--from", "nowhere.json", "--to", "DE"], "the file says"),
    ([*WORKED, "--rates", "nowhere.toml"], "cannot be read"),
])
def test_wrong_input_is_named_with_a_remedy(run, words, named):
    code, said, text = run(*words, "--json")
    assert code == exits.USAGE == said["exit"]
    assert named in said["error"]["what"] and said["error"]["where"] and said["error"]["remedy"] and "remedy:" in text
