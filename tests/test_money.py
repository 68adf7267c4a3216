"""The books of the house: taxes remitted, statements closed and converted once, payouts. Decisions, and the SQL behind them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given as forall
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from schemas.books import BookProviderFees, CloseStatement, PayMerchant, RemitTax, StatementLine
from schemas import shipping_report as report
from schemas import shipping_shipment as ship
from schemas.dead_letters import Reason
from schemas.model import LineQuantity
from schemas.payments_provider_result import DisputeTold
from schemas.provider_api import SETTLED, SETTLEMENT_COLUMNS
from services.cli import money_books, money_reconcile
from services.explorer.simulation import START, World, order
from services.orders.terms import Agreed, TermsError, load
from services.payments import books
from services.payments import machine as payments
from services.runtime.decision import Impossible, Incoming, Stale
from services.runtime.migrate import migrate
from services.runtime.settings import Settings
from tests.test_lifecycle import Outside, given, ids
from tests.test_shares import bills, taxed

ROOT = Path(__file__).parents[1]
HOLDER = "books:merchant:split"


class Finance:
    """One book, and all that is booked in it."""

    def __init__(self, key: str):
        self.account, self.rows, self.events = payments.Account(key), [], []

    def tell(self, command):
        answer = payments.decide(self.account, None, Incoming(type(command).__name__, "c", "/finance", 0, START, command), None, START)
        if isinstance(answer, Stale):
            return answer
        # As the database would have it.
        self.account = payments.STATE.validate_json(payments.STATE.dump_json(answer.state))
        self.rows += [row for _, row in answer.rows]
        self.events += answer.events
        for entry in {row[1] for row in self.rows}:
            sums = Counter()
            for row in self.rows:
                sums[row[3]] += row[4] if row[1] == entry else 0
            assert not any(sums.values()), "an entry adds up to zero in each currency"
        return answer

    def sums(self) -> dict[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for row in self.rows:
            found[row[2], row[3]] += row[4]
        return {key: amount for key, amount in found.items() if amount}


def line(net: int, currency: str = "GBP", payout: str = "USD", rate: str = "1.2345", market: str = "1.2345", **figures) -> StatementLine:
    base = dict(gross=net, refunds=0, fee=0, withheld=0, reserve=0) | figures
    return StatementLine(currency=currency, payout=payout, fx="q1" if currency != payout else "", rate=rate, market=market, net=net, **base)


def test_tax_is_remitted_once_for_a_period():
    book = Finance("books:tax:GB")
    command = RemitTax(order_id="books:tax:GB", claim="payable", period="2026-11", currency="GBP", amount=1140, bank_reference="B1")
    book.tell(command)
    assert book.sums() == {("payable/GB", "GBP"): -1140, ("remitted/GB", "GBP"): 1140}
    assert isinstance(book.tell(command), Stale)
    assert book.account.closed and book.account.merchant_id == "platform"


def test_a_providers_fees_of_a_month_are_booked_as_far_as_they_are_new():
    book = Finance("books:provider:payments")
    for total in (300, 300, 450, 440):
        book.tell(BookProviderFees(order_id="books:provider:payments", period="2026-11", currency="EUR", total=total))
    assert book.sums() == {("provider_fees", "EUR"): -440, ("provider", "EUR"): 440}
    assert [(e.amount, e.total) for e in book.events] == [(300, 300), (150, 450), (-10, 440)]


def test_a_statement_converts_the_net_once_and_the_market_is_the_platforms():
    book = Finance(HOLDER)
    book.tell(CloseStatement(order_id=HOLDER, statement_id="s1", lines=[line(10_001, market="1.2500")]))
    # 123.46 for the merchant (half to even), 125.01 at the market.
    assert book.sums() == {("merchant", "GBP"): -10_001, ("position", "GBP"): 10_001, ("merchant", "USD"): 12_346,
                           ("position", "USD"): -12_501, ("fx", "USD"): 155}
    assert book.events[-1].due == {"USD": 12_346} and book.events[-1].lines[0].fx_gain == 155


def test_a_refund_after_the_rate_has_moved_costs_the_merchant_what_he_got_and_the_platform_the_difference():
    """The buyer gets the original amount in his currency; to buy it back costs more now."""
    book = Finance(HOLDER)
    book.tell(CloseStatement(order_id=HOLDER, statement_id="s1", lines=[line(10_000)]))
    book.tell(CloseStatement(order_id=HOLDER, statement_id="s2", lines=[
        line(-10_000, gross=0, refunds=10_000, market="1.3000")]))
    assert book.sums() == {("position", "USD"): 13_000 - 12_345, ("fx", "USD"): 12_345 - 13_000}
    assert book.account.book.due == {"USD": 0}


def test_nobody_is_paid_twice_or_more_than_is_due():
    book = Finance(HOLDER)
    book.tell(CloseStatement(order_id=HOLDER, statement_id="s1", lines=[line(500, "USD")]))
    pay = PayMerchant(order_id=HOLDER, batch_id="b1", currency="USD", amount=500, bank_reference="B")
    book.tell(pay)
    assert isinstance(book.tell(pay), Stale) and book.sums() == {("merchant", "USD"): -500, ("paid_out", "USD"): 500}
    with pytest.raises(Impossible) as caught:
        book.tell(pay.model_copy(update={"batch_id": "b2"}))
    assert caught.value.reason is Reason.AMOUNT_MISMATCH


def test_nothing_is_paid_to_a_merchant_who_is_stopped():
    book = Finance(HOLDER)
    book.tell(CloseStatement(order_id=HOLDER, statement_id="s1", lines=[line(500, "USD")]))
    book.account.stops = ["merchant_frozen"]
    assert isinstance(book.tell(PayMerchant(order_id=HOLDER, batch_id="b1", currency="USD", amount=500, bank_reference="B")), Stale)


@pytest.mark.parametrize("command, key", [
    (RemitTax(order_id="A1", claim="payable", period="2026-11", currency="GBP", amount=1, bank_reference="B"), "A1"),
    (CloseStatement(order_id="books:tax:GB", statement_id="s", lines=[line(1)]), "books:tax:GB")])
def test_a_command_with_the_key_of_something_else_is_a_dead_letter(command, key):
    with pytest.raises(Impossible) as caught:
        Finance(key).tell(command)
    assert caught.value.reason is Reason.KEY


def test_an_amount_that_no_message_can_carry_is_a_dead_letter():
    with pytest.raises(Impossible, match="beyond any amount"):
        Finance(HOLDER).tell(CloseStatement(order_id=HOLDER, statement_id="s", lines=[line(10**12, rate="99999")]))


def test_figures_that_do_not_add_up_are_a_dead_letter():
    with pytest.raises(Impossible):
        Finance(HOLDER).tell(CloseStatement(order_id=HOLDER, statement_id="s", lines=[line(100, fee=1)]))


@hypothesis(max_examples=300, deadline=None)
@forall(st.lists(st.tuples(st.integers(-10**7, 10**7), st.decimals("0.0001", "10000", places=6)), min_size=1, max_size=6),
        st.sampled_from(["JPY", "EUR", "KWD"]))
def test_conversions_lose_no_cent(lines, payout):
    """Whatever the rates do: each currency adds up to zero, and what is due is what was converted."""
    book = Finance(HOLDER)
    for n, (net, market) in enumerate(lines):
        book.tell(CloseStatement(order_id=HOLDER, statement_id=f"s{n}", lines=[line(net, "GBP", payout, market=f"{market:f}")]))
    sums = book.sums()
    for currency in ("GBP", payout):
        assert sum(amount for (_, own), amount in sums.items() if own == currency) == 0
    assert book.account.book.due[payout] == sums.get(("merchant", payout), 0)
    one = books.convert(1, "GBP", payout, "1.2345")
    assert abs(sums.get(("merchant", payout), 0) - books.convert(sum(n for n, _ in lines), "GBP", payout, "1.2345")) <= len(lines) + abs(one)


# -- terms ----------------------------------------------------------------------------------------------------------------


def test_the_demos_terms_can_be_read_and_a_wrong_file_names_the_row(tmp_path):
    book = load(ROOT / "services/simulators/terms.toml")
    assert book.of(Agreed(1, "goods", "USD"), "GBP", START.date()).fx.rate == "1.2658"
    wrong = tmp_path / "terms.toml"
    wrong.write_text('[[plan]]\nid="p1"\nplan="a"\nfee=10001\nvalid_from=2020-01-01\nsource="nobody"\n')
    with pytest.raises(TermsError, match="plan.0.fee"):
        load(wrong)
    (old := tmp_path / "old.toml").write_text('[[merchant]]\nid="m"\nmerchant="m"\n')
    with pytest.raises(TermsError, match="tradewind merchant terms"):
        load(old)
    row = '[[plan]]\nid="{}"\nplan="a"\nvalid_from=2020-01-01\nsource="nobody"\n'
    (two := tmp_path / "two.toml").write_text(row.format("p1") + row.format("p2"))
    with pytest.raises(TermsError, match="p1 and p2"):
        load(two)


# -- the ledger in a database ---------------------------------------------------------------------------------------------


async def stored(world: World, dsn: str) -> None:
    """What payments would have of this world in its database."""
    await migrate(dsn, "payments", 1)
    connection = await asyncpg.connect(dsn)
    for order_id, entry in world.parties["payments"].entries.items():
        await connection.execute(
            "INSERT INTO orders (partition, order_id, status, closed, seq, track, state) VALUES (0, $1, $2, $3, $4, '{}', $5)",
            order_id, entry.state.status, entry.state.closed, entry.seq, payments.STATE.dump_json(entry.state).decode())
    await connection.executemany("INSERT INTO ledger VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", world.parties["payments"].ledger)
    await connection.close()


def close(world: World, lines: dict[str, list[StatementLine]], name: str) -> None:
    for merchant, own in lines.items():
        world.send(CloseStatement(order_id=f"books:merchant:{merchant}", statement_id=name, lines=own), "/finance")
    world.run()


async def test_statements_are_what_the_ledger_says_and_are_stated_once(postgres, tmp_path):
    """Sold; then the reserve's days are over; then nothing is left to state."""
    world, _ = given(taxed(merchant_id="split"), outside=bills(1200))

    def settings(dsn):
        return Settings(payments_dsn=dsn, data_folder=tmp_path)

    seen = []
    for days, name in ((1, "s1"), (95, "s2"), (1, "s3")):
        world.wait(days=days)
        dsn = await postgres(f"money_{name}")
        await stored(world, dsn)
        lines = await money_books.due_lines(settings(dsn), world.now)
        seen.append({m: money_books.sums_of(own) for m, own in lines.items()})
        if name == "s1":
            (only,) = lines["split"]
            assert (only.payout, only.fx, only.rate) == ("USD", "fx1.20261123", "1.2345")
            taxes = await money_books.taxes(settings(dsn))
            assert [(t.account, t.period, t.payable) for t in taxes] == [("payable/GB", "2026-11", 1200), ("withheld/US", "2026-11", 50)]
        close(world, lines, name)
    assert seen[0] == {"split": dict(gross=5000, refunds=0, fee=250, withheld=50, reserve=500, reserve_back=0, claims=0, net=4200, chargebacks=0)}
    assert seen[1] == {"split": dict(gross=0, refunds=0, fee=0, withheld=0, reserve=0, reserve_back=500, claims=0, net=500, chargebacks=0)}
    assert seen[2] == {}
    assert world.state("payments", HOLDER).book.due == {"USD": books.convert(4200, "GBP", "USD", "1.2345") + books.convert(500, "GBP", "USD", "1.2345")}
    accounts = world.accounts()
    assert accounts.get("merchant GBP", 0) == accounts.get("reserve GBP", 0) == 0, "all of it is stated and converted"
    assert world.dead == []


async def test_a_contested_reserve_is_kept_beyond_its_days_and_pays_first(postgres, tmp_path):
    """Taken on day 2 of 90; on day 96 nobody has decided; then it is lost: of 68.40 the reserve's 5.00 and the merchant's 63.40."""
    world, _ = given(taxed(merchant_id="split"), outside=bills(1140))
    seen = []

    def tell(stage: str) -> None:
        world.send(DisputeTold(order_id="A1", dispute_id="D1", payment_id="A1-Y1", stage=stage, amount=6840, currency="GBP"),
                   "payments-webhook", f"dispute:D1:{stage}")
        world.run()

    for days, stage in ((2, "chargeback"), (95, "lost"), (100, "")):
        world.wait(days=days)
        dsn = await postgres(f"money_contested{len(seen)}")
        await stored(world, dsn)
        lines = await money_books.due_lines(Settings(payments_dsn=dsn, data_folder=tmp_path), world.now)
        seen.append({name: amount for m, own in lines.items() for name, amount in money_books.sums_of(own).items() if amount})
        close(world, lines, f"s{days}")
        if stage:
            tell(stage)
    assert seen == [dict(gross=5000, fee=250, withheld=50, reserve=500, net=4200), {},
                    dict(chargebacks=6840, reserve=-500, net=-6340)]
    accounts = world.accounts()
    assert accounts.get("merchant GBP", 0) == accounts.get("reserve GBP", 0) == accounts.get("advanced GBP", 0) == 0
    assert world.dead == []


async def test_the_ledger_knows_every_movement_of_the_provider(postgres, tmp_path):
    """Two parcels captured at once, one unit of each refunded for the same amount, all released: nothing is left over."""
    outside, asked = Outside(), []
    outside.on[ship.FulfilmentRequested] = lambda e, w: (
        w.send(report.ShortPickReported(**ids(e), lines=[LineQuantity(line_no=e.lines[0].line_no, quantity=1)]), "/warehouse"),
        w.send(report.PackedReported(**ids(e)), "/warehouse"))
    answer = outside.provider
    outside.provider = lambda order_id, intent, world: (asked.append((intent, world.now)), answer(order_id, intent, world))
    world, _ = given(order(lines=(("CHERRY", 2, 5000), ("TOY", 2, 5000))), {"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}}, outside=outside)
    dsn = await postgres("money_movements")
    await stored(world, dsn)
    booked = await money_reconcile.movements(Settings(payments_dsn=dsn, data_folder=tmp_path))
    rows = [",".join((str(n), intent.intent_id, intent.kind, intent.body["payment_id"], str(intent.body["amount"]),
                      intent.body["currency"], now.isoformat(), "0"))
            for n, (intent, now) in enumerate((pair for pair in asked if pair[0].kind in SETTLED), 1)]
    found = money_reconcile.match("\n".join([",".join(SETTLEMENT_COLUMNS), *rows, f"end,{len(rows)}", ""]), booked)
    assert (found.lines, found.matched, found.open, found.breaks) == (5, 5, 0, [])
