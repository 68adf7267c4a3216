"""Write docs/trade.md: every rule, charge and rate, its days, its source and its certainty, out of the rule data.

    python -m services.orders.trade_doc            write it
    python -m services.orders.trade_doc --check    write nothing, fail when it is not current
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from services.orders import goods
from services.orders.landed_cost import plain
from services.orders.rulebook import Duty, DutyRate, Row, Rule, Rules, Tax, TaxRate, load

PAGE = Path(__file__).parents[2] / "docs" / "trade.md"

HEAD = """\
# The rules of the trade

Written from the rows in [`services/orders/rules`](../services/orders/rules) by `python -m services.orders.trade_doc`; change
the rows, not this file. `tradewind quote` answers by them:

    tradewind quote --to DE --import-date 2026-07-01 --line 950300:CN:2:4000 --line 610910:CN:1:1500 --freight 500

**Landed cost** = goods + freight + insurance + duty + consumption tax + import tax + clearance fee, in whole minor units.

| | |
|---|---|
| Which rule | the first, in the order below, that is valid on the **import date** and fits destination, channel, origin, mode and value. None fits: refused by name, never guessed |
| Value | intrinsic: the goods alone; dutiable: with freight and insurance. Limits are inclusive |
| Shares | freight and insurance are shared out by the lines' prices in minor units; the parts add up exactly (largest remainder) |
| Duty | a percentage of goods + freight + insurance (cif) or of the goods alone (fob), or a flat amount for each six-digit code in the consignment |
| VAT | a percentage of goods + freight + insurance + duty |
| China's papers | order, payment and waybill are matched field by field on keyed hashes, then the import list is declared (facts, certainty A); modes 9610 and, from a bonded warehouse there, 1210; wrong ones are corrected `TRADEWIND_CHINA_RESENDS` times (3: ours, a setting), the buyer's year is committed by the list that customs takes ([decision 30](decisions/0030-papers-into-china-agree-before-packing.md)) |
| China | P = (goods + shares + duty) / (1 − c); consumption tax P·c·relief, VAT P·v·relief; c and v are the line's rates |
| Rates | by HS code, the longest prefix; of equals the one that names the origin |
| Tax as assessed | customs' bill is booked on arrival; what it differs from the quote is the platform's, and each authority's tax payable is what was assessed less what was remitted and what it gives back for goods returned in time ([money.md](money.md)) |
| Another currency | customs assesses and rounds in its own; each charge is then converted at the customs rate and rounded once |
| Rounding | {rounding}. Nobody verified these, so they are a setting: `TRADEWIND_TAX_ROUNDING=CN=half_even/line,EU=down/total` |
| Declaration | frozen with the order: by its quote, else by the value of its goods two days after it is placed; a line whose code is shorter than the declaration asks for is told as DocumentsMissing, and the order waits for `tradewind order supply`. Where no rule says (no customs rate of the day, formal entry), the carrier's broker declares |
| Product identifier | the line's GTIN, else the merchant's SKU: an order has one for each line |
| Certainty | A: read in an official document. B: in a good secondary source. C: not verified; a charge of certainty C is **disabled**, and a quote lists it as not charged |
| From outside | `TRADEWIND_RATES_FILE`, or `--rates`: a file of the same form with rows of your own, such as duty rates into the US, this month's customs rates, your carrier's fee |
"""

# What is no row of a rule file: (what, where it is checked, source, certainty).
CHECKS = (
    ("Brand authorisation: goods of a registered brand are accepted only by an unbroken chain from its owner to the merchant, of "
     "which every link covers the destination on the order's day", "at intake (`brand_not_authorised`), and again when a link is "
     "revoked", "The trade's own form of a brand's authorisation: brand, grantor, grantee, territory, first and last day, document", "B"),
    ("Serial numbers: GS1 AI 01 and 21, lot 10, of each unit packed; one number in two parcels, or in two places farther apart than "
     "900 km an hour and 200 km, alarms", "when it is packed, or scanned anywhere (`SerialAlert`)", "GS1 General Specifications (AI 01, "
     "10, 21); the speed is an aeroplane's, the 200 km are for scanners' clocks: not verified", "C"),
    ("Inspection hold: random, risk or brand complaint; nothing is handed over before its result; counterfeit is paid back and "
     "complained about", "before hand-over; 5 days at most", "The trade's own form: inspection_hold with reason and result", "B"),
    ("A warehouse may put part of a parcel into one of its own before it is packed: price, freight and tax follow the goods' worth, what a "
     "division leaves over and a clearance fee stay with the first; both are promised as it was", "when it is asked to pack it (`SplitReported`)",
     "The trade's own form: partial shipment; one list a parcel into China is the customs' rule", "B"),
    ("Complaints per transaction, and merchants frozen a week", "`tradewind merchant complaints`, `tradewind status`", "The trade's "
     "references: one complaint per 860,000 transactions, 10,000 shops a week", "B"),
    ("Catalogue: HS code, origin, brand and temperature band of a line are those of the merchant's catalogue; chilled is −2 to "
     "10 °C, frozen −12 °C and colder", "at intake (`catalogue_mismatch`)", "The bands are the usual ones of food logistics, not verified", "C"),
    ("Promise of 72 hours from acceptance; goods in bond (mode 1210) travel on lanes of their country alone, from nine cities of the "
     "pilot for bonded retail import, and wait ten hours for list and release; what follows as a backorder is promised when it has come",
     "when parcels are allocated, or their goods come", "Facts, mode 1210; the first cities of China's pilot for cross-border retail "
     "import; hours and prices are settings (`services/shipping/network/network.toml`)", "C"),
)

MISSING = """\
## Not here

- **Duty and tax**: tax given back by an authority other than China's (nothing verified says when one does, so what comes back
  stays taxed there); Northern Ireland and the special territories of the EU; postal articles into China; formal entry into the US
  (above USD 2,500); preferential origin, anti-dumping and excise duty; compound and specific duties (an amount a kilogram);
  reduced VAT rates beyond those listed, for which the standard rate is quoted. An order is quoted as one consignment, also when
  it is packed in several parcels later.
- **Goods**: the CBEC positive list as a whole (an extract is shipped disabled, a file of one's own is TRADEWIND_GOODS_FILE); what
  a person bought of a limited code in other orders of the year.
- **Persons**: whose a buyer's identity number is, is asked over a contract of our own (`schemas/registry_api.py`); no public
  registry's own interface is spoken. Without a registry the number is checked by its form and its check digit alone. A quote looks
  at a buyer's yearly limit only when its request says how much is used; an order always does.
- **Parcels**: into China a warehouse cannot split a parcel (one captured payment, one payment document and one list each), nor
  anywhere one that is sent once more for a spoiled box; two parcels are never put together.
"""


def page(rules: Rules | None = None) -> str:
    """The whole of docs/trade.md."""
    rules = rules or load()
    rounding = sorted({f"{r.rounding.mode} on each {r.rounding.per}".replace("_", " ") for r in rules.rules})
    parts = [HEAD.format(rounding="; ".join(rounding)), "## How consignments are charged\n", _table(
        "| Rule | Destination | Channel, mode | Value | Duty | Tax | Collected | Declaration |", rules.rules,
        lambda r: [f"{_name(r)}<br/>{r.title}", _where(r), "<br/>".join(filter(None, [", ".join(r.channels), ", ".join(r.modes)])),
                   _value(r), _duty(r.duty), _tax(r.tax), f"by {r.collected_by} at {r.collect_at}",
                   f"{r.declaration}, codes of {r.hs_digits} digits or more"]),
        "## Clearance fees\n", _table("| Fee | Destination | Amount |", rules.fees, lambda r: [
            f"{_name(r)}<br/>{r.title}", ", ".join(r.destinations), f"{r.currency or ''} {plain(r.amount)}".strip()]),
        "## What customs asks for beside\n", _table("| Row | Destination | Data |", rules.requirements, lambda r: [
            _name(r), ", ".join((*r.destinations, *r.modes)), ", ".join(r.data)]),
        "## What comes back\n", _table("| Row | Into | Asked for, and back, within so many days of customs' release |", rules.returns, lambda r: [
            f"{_name(r)}<br/>{r.title}", ", ".join(r.destinations), f"{r.asked_within_days}, {r.back_within_days}"]),
        "## Duty rates\n", _table("| Row | Into | HS code | Per cent |", rules.duties, lambda r: [
            _name(r), r.country, _codes(r), plain(r.percent)]),
        "## Tax rates\n", _table("| Row | Into | Tax | HS code | Per cent |", rules.taxes, lambda r: [
            _name(r), r.country, r.kind, _codes(r), plain(r.percent) + _from(r.from_value_per_gram)]),
        "## Customs exchange rates\n", _table("| Row | Rate |", rules.rates, lambda r: [
            _name(r), f"1 {r.base} = {plain(r.rate)} {r.quote}"]),
        "## What is asked of goods\n", _table("| Row | What | HS code |", goods.rows(), lambda r: [
            _name(r), _asked(r), ", ".join(f"{hs}…" for hs in r.hs)]),
        "## What else is checked of goods and sellers\n", "| Rule | Checked | Source | Certainty |\n|---|---|---|---|\n" + "".join(
            f"| {' | '.join(row)} |\n" for row in CHECKS), MISSING]
    return "\n".join(parts)


def _table(head: str, rows: Iterable[Row], tell) -> str:
    """`head` and, for every row, what `tell` says of it, then what every row has."""
    head += " Valid | Source | Certainty |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for row in rows:
        sure = row.certainty + ("" if row.enabled else ", **disabled**")
        lines.append(f"| {' | '.join([*tell(row), _days(row), row.source, sure])} |")
    return "\n".join(lines) + "\n"


def _asked(row: Any) -> str:
    if isinstance(row, goods.Positive):
        return f"may be imported into {row.into} through CBEC; refused is what no row of the list covers, once one holds"
    if isinstance(row, goods.Limit):
        return f"into {row.into}, one person: {row.grams / 1000:g} kg in one order (what other orders of the year hold is not counted)"
    return (f"lithium cells ({goods.UN}) by air: above {row.over_wh:g} Wh a charge of {row.charge_percent_max} % at most, packing instruction "
            f"{' or '.join(row.instructions)}; UN number, Wh and charge must be told")


def _name(row: Row) -> str:
    return f"`{row.id}`"


def _days(row: Row) -> str:
    return f"{row.valid_from} to {row.valid_to}" if row.valid_to else f"from {row.valid_from}"


def _where(rule: Rule) -> str:
    made = f", made in {', '.join(rule.made_in)}" if rule.made_in else ""
    return ", ".join(rule.destinations).replace("*", "any other") + made + (
        f", not made in {', '.join(rule.not_from)}" if rule.not_from else "")


def _value(rule: Rule) -> str:
    if rule.value is None:
        return "any"
    parts = [f"over {plain(rule.value.over)}"] if rule.value.over is not None else []
    parts += [f"up to {plain(rule.value.up_to)}"] if rule.value.up_to is not None else []
    single = ", one single item" if rule.single_item else ""
    yearly = f"; {plain(rule.yearly_limit)} a year" if rule.yearly_limit is not None else ""
    return f"{rule.currency} {' '.join(parts)}, {rule.value.basis}{single}{yearly}"


def _duty(duty: Duty) -> str:
    return {"none": "none", "percent": f"by tariff, {duty.base}"}.get(duty.kind) or f"{plain(duty.amount)} for each HS6"


def _tax(tax: Tax) -> str:
    return {"none": "none", "vat": "VAT"}.get(tax.kind) or f"consumption tax and VAT × {plain(tax.relief)}"


def _codes(row: DutyRate | TaxRate) -> str:
    return ", ".join(f"{hs}…" if hs else "any" for hs in row.hs)


def _from(value: Fraction | None) -> str:
    return "" if value is None else f", from a value of {plain(value)} a gram; below it 0"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.orders.trade_doc",
                                     description=inspect.cleandoc(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the page is not current")
    check = parser.parse_args(arguments).check
    text = page()
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    if check:
        print("docs/trade.md is not current; run: python -m services.orders.trade_doc", file=sys.stderr)
        return 1
    PAGE.write_text(text)
    print("wrote docs/trade.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
