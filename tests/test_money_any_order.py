"""Whatever happens to money, in whatever order: the books balance after every posting, and no account has the wrong sign.

An honest provider (it takes, refunds and releases no more than it has), a bank that disputes, goods that come back, claims,
customs' bills, statements and payouts, told in any order, late and twice. Generated; the amounts by hand are in the table below.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import example, settings
from hypothesis import given as forall
from hypothesis import strategies as st

from schemas import books, orders_order
from schemas import shipping_shipment as ship
from schemas.ledger import SIGNS, account_of
from schemas.payments_provider_result import DisputeTold, ProviderAnswered, RecordManualPayout
from schemas.terms import Assessment
from services.explorer.simulation import START
from services.payments import machine as payments
from services.payments.account import FIGURES, Account
from services.runtime.decision import TIMER, Decision, Incoming, NotYet
from tests.test_lifecycle import Outside, given
from tests.test_shares import taxed

HOLDER = "books:merchant:split"
PARCELS = ("A1-P1", "A1-P2")


@lru_cache(maxsize=1)
def allocated() -> Account:
    """Two parcels of a merchant with terms (5 % fee, 1 % withheld, 10 % reserve), tax paid with the order; nothing paid yet."""
    outside = Outside()
    outside.silent = {"authorise"}
    placed = taxed(merchant_id="split")
    more = placed.lines[0].model_copy(update={"line_no": 2, "sku": "TOY"})
    from services.cli.duties import duties_paid
    from services.orders.rulebook import load
    whole = placed.model_copy(update={"lines": [placed.lines[0], more], "quote": None, "tax": 0, "total": 10_000 + placed.freight})
    world, _ = given(duties_paid(whole, load()), {"CHERRY": {"SEA1": 9}, "TOY": {"PVD1": 9}}, outside=outside)
    return world.state("payments")


class Bank:
    """One dispute at the provider: which stage it has come to there."""

    NEXT = {"": ("request_for_information", "chargeback"), "request_for_information": ("inquiry_closed", "chargeback"),
            "inquiry_closed": ("chargeback",), "chargeback": ("chargeback_reversed", "lost"),
            "chargeback_reversed": ("second_chargeback",)}

    def __init__(self) -> None:
        self.stage, self.amount = "", 0


class Told:
    """Payments as it is told things; the ledger as its rows add up; the provider's own totals."""

    def __init__(self) -> None:
        self.account, self.book, self.now, self.number = allocated().draft(), Account(HOLDER), START, 0
        self.sums: Counter[tuple[str, str]] = Counter()
        self.by_parcel: Counter[tuple[str, str]] = Counter()
        self.rows: list[tuple] = []
        self.waiting: list[Any] = []
        self.late: list[DisputeTold] = []
        self.captured = self.refunded = self.disputed = self.released = 0
        self.banks = {"D1": Bank(), "D2": Bank()}
        self.kinds: Counter[str] = Counter()

    # -- telling

    def tell(self, event: Any, name: str = "") -> None:
        answer = self._decide(event, name)
        if isinstance(answer, NotYet):
            self.waiting.append(event)
            return
        while isinstance(answer, Decision) and self.waiting:
            for waits in list(self.waiting):
                again = self._decide(waits)
                if not isinstance(again, NotYet):
                    self.waiting.remove(waits)
                    break
            else:
                return

    def _decide(self, event: Any, name: str = "") -> Any:
        self.number += 1
        type_ = name or type(event).__name__
        of_the_house = getattr(event, "order_id", "").startswith("books:")
        state = self.book if of_the_house else self.account
        answer = payments.decide(state, None, Incoming(type_, f"e{self.number}", "test", 0, self.now, event), None, self.now)
        if isinstance(answer, Decision):
            if of_the_house:
                self.book = answer.state
            else:
                self.account = answer.state
            self._booked([row for table, row in answer.rows if table == "ledger"])
        return answer

    def _booked(self, rows: list[tuple]) -> None:
        """After every single entry, not just at the end."""
        for entry in dict.fromkeys((row[0], row[1]) for row in rows):
            own = [row for row in rows if (row[0], row[1]) == entry]
            for _, _, account, currency, amount, _, parcel_id, kind, _ in own:
                self.sums[account, currency] += amount
                self.by_parcel[account_of(account), parcel_id] += amount
                self.kinds[kind] += 1
            self.rows += own
            for currency in {row[3] for row in own}:
                assert sum(n for (_, c), n in self.sums.items() if c == currency) == 0, own
            for (account, currency), amount in self.sums.items():
                assert amount * SIGNS.get(account_of(account), 0) >= 0, (account, currency, amount, own)
        for name in ("held", "reserve"):
            assert all(self.by_parcel[name, parcel_id] >= 0 for parcel_id in PARCELS), (name, rows)
        holds = self.account.holds.values()
        for hold in holds:
            assert hold.captured + hold.recovered == hold.held + hold.released + hold.refunded + hold.charged_back
            assert min(hold.held, hold.released, hold.refunded, hold.charged_back, hold.recovered, hold.due) >= 0

    # -- what may happen

    def answer(self, ok: bool) -> None:
        """The provider answers the call in flight, by what it has."""
        payment_id, payment = next(iter(self.account.payments.items()))
        if not payment.intent:
            return
        kind, amount, reason = payment.intent_kind, payment.intent_amount, ""
        if kind == "refund":
            reason = "exceeds_captured" if self.refunded + self.disputed + amount > self.captured else "" if ok else "account_closed"
            self.refunded += 0 if reason else amount
        elif kind == "release":
            reason = "" if ok else "blocked"
            self.released += 0 if reason else amount
        elif kind == "capture":
            self.captured += amount
        self.tell(ProviderAnswered(order_id="A1", intent_id=payment.intent, payment_id=payment_id, kind=kind,
                                   outcome="failed" if reason else "succeeded", amount=amount, currency="GBP", reason=reason))

    def documents(self) -> None:
        self.tell(ship.DocumentsReady(order_id="A1", parcel_ids=list(PARCELS)))

    def confirm(self, parcel_id: str) -> None:
        self.tell(orders_order.ReceiptConfirmed(order_id="A1", parcel_id=parcel_id, confirmed_by="buyer"))

    def grant(self, parcel_id: str, amount: int) -> None:
        self.tell(ship.GrantPriced.model_construct(order_id="A1", parcel_id=parcel_id, grant_id=f"g{self.number}",
                                                   refund=min(amount, self.account.holds[parcel_id].due)))

    def give_back(self, parcel_id: str, amount: int) -> None:
        return_id = f"r{self.number}"
        self.tell(orders_order.ReturnRequested(order_id="A1", parcel_id=parcel_id, return_id=return_id))
        self.tell(ship.ReturnReceived.model_construct(order_id="A1", parcel_id=parcel_id, return_id=return_id, lines=[],
                                                      refund=min(amount, self.account.holds[parcel_id].due)))

    def lose(self, parcel_id: str, claim: int) -> None:
        hold = self.account.holds[parcel_id]
        if hold.captured and not hold.confirmed and not hold.recovered:
            self.tell(ship.ParcelLost.model_construct(order_id="A1", parcel_id=parcel_id, reason="lost", refund=hold.due, claim=claim))
            self.tell(ship.ClaimPaid.model_construct(order_id="A1", parcel_id=parcel_id, amount=claim))

    def dispute(self, parcel_id: str, outcome: str) -> None:
        dispute_id = f"d{self.number}"
        self.tell(orders_order.DisputeOpened(order_id="A1", dispute_id=dispute_id, parcel_id=parcel_id))
        self.tell(orders_order.DisputeResolved(order_id="A1", dispute_id=dispute_id, parcel_id=parcel_id, outcome=outcome))

    def assess(self, parcel_id: str, amount: int) -> None:
        self.tell(ship.DutyAssessed.model_construct(order_id="A1", parcel_id=parcel_id, assessed=Assessment(amount=amount, currency="GBP")))

    def bank(self, name: str, choice: int, amount: int) -> None:
        """Its dispute comes to another stage at the provider; it is told later."""
        bank = self.banks[name]
        ways = Bank.NEXT.get(bank.stage, ())
        left = self.captured - self.refunded - self.disputed
        if not ways or not left:
            return
        stage = ways[choice % len(ways)]
        if stage in ("chargeback", "second_chargeback"):
            bank.amount = min(bank.amount if stage == "second_chargeback" else amount, left)
            self.disputed += bank.amount
        elif stage == "chargeback_reversed":
            self.disputed -= bank.amount
        bank.stage = stage
        self.late.append(DisputeTold(order_id="A1", dispute_id=name, payment_id="A1-Y1", stage=stage, amount=bank.amount or min(amount, left),
                                     currency="GBP", evidence_due=self.now + timedelta(days=7)))

    def webhook(self, which: int, again: bool) -> None:
        if self.late:
            told = self.late[which % len(self.late)]
            if not again:
                self.late.remove(told)
            self.tell(told)

    def by_hand(self, parcel_id: str) -> None:
        hold = self.account.holds[parcel_id]
        if hold.payout:
            self.tell(RecordManualPayout(order_id="A1", payout_id=hold.payout, payment_id="A1-Y1", parcel_id=parcel_id,
                                         amount=hold.owed[0].amount, currency="GBP", bank_reference="B"))

    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        if (due := self.account.due()) is not None and due <= self.now:
            self.tell(None, TIMER)

    def statement(self) -> None:
        """As finance reads it of the ledger, worked out here from its rows."""
        sums = Counter[str]()
        for order_id, _, account, _, amount, _, parcel_id, kind, _ in self.rows:
            name = account_of(account) if order_id == "A1" else ""
            if kind == "release" and name in ("merchant", "fee", "reserve", "withheld"):
                sums["gross"] += amount
            sums["refunds"] -= amount if (name, kind) == ("merchant", "recover_merchant") else 0
            sums["claims"] += amount if (name, kind) == ("merchant", "release_claim") else 0
            sums["chargebacks"] -= amount if kind == "chargeback_lost" and name in ("merchant", "reserve") else 0
            if name in ("merchant", "fee", "withheld", "reserve"):
                sums[{"merchant": "net"}.get(name, name)] += amount
                if name == "reserve" and self._over(parcel_id):
                    sums["reserve_back"] += amount
        sums["net"] += sums["reserve_back"]
        before = self.book.book.stated.get("GBP fx1", []) if self.book.book else []
        figures = {name: sums[name] - (before[n] if before else 0) for n, name in enumerate(FIGURES)}
        if any(figures.values()):
            self.tell(books.CloseStatement(order_id=HOLDER, statement_id=f"s{self.number}", lines=[books.StatementLine(
                currency="GBP", payout="USD", fx="fx1", rate="1.2345", market="1.2500", **figures)]))

    def _over(self, parcel_id: str) -> bool:
        kept = min(r[8] for r in self.rows if r[6] == parcel_id and r[2] == "reserve")
        return kept + timedelta(days=90) <= self.now and not self.account.holds[parcel_id].status.startswith("contested")

    def pay(self, share: int) -> None:
        due = self.book.book.due.get("USD", 0) if self.book.book else 0
        if due * share // 100 > 0:
            self.tell(books.PayMerchant(order_id=HOLDER, batch_id=f"b{self.number}", currency="USD", amount=due * share // 100,
                                        bank_reference="B"))

    def end(self) -> None:
        """Everything that was said is heard, every bank decides, every call is answered, every payout made."""
        for bank in ("D1", "D2"):
            while self.banks[bank].stage in ("request_for_information", "chargeback"):
                before = self.banks[bank].stage
                self.bank(bank, 0, 1)
                if self.banks[bank].stage == before:  # nothing is left to take
                    break
        for parcel_id in PARCELS:
            self.confirm(parcel_id)
        while self.late:
            self.webhook(0, False)
        for _ in range(20):
            before = self.number
            self.answer(True)
            for parcel_id in PARCELS:
                self.by_hand(parcel_id)
            self.wait(2)
            if self.number == before:
                break


parcel, amount = st.sampled_from(PARCELS), st.integers(1, 14_000)
ACTIONS = st.one_of(
    st.tuples(st.just("answer"), st.booleans()), st.tuples(st.just("answer"), st.just(True)), st.tuples(st.just("documents")),
    st.tuples(st.just("confirm"), parcel), st.tuples(st.just("grant"), parcel, amount), st.tuples(st.just("give_back"), parcel, amount),
    st.tuples(st.just("lose"), parcel, amount), st.tuples(st.just("dispute"), parcel, st.sampled_from(["won", "lost"])),
    st.tuples(st.just("assess"), parcel, amount), st.tuples(st.just("bank"), st.sampled_from(["D1", "D2"]), st.integers(0, 1), amount),
    st.tuples(st.just("webhook"), st.integers(0, 3), st.booleans()), st.tuples(st.just("by_hand"), parcel),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 24 * 45])), st.tuples(st.just("statement")),
    st.tuples(st.just("pay"), st.integers(1, 100)))
PAID = [("answer", True), ("documents",), ("answer", True)]
SEEN: Counter[str] = Counter()


ALL = [  # each kind of posting once
    ("assess", "A1-P1", 1500), ("statement",), ("pay", 50), ("bank", "D1", 1, 3000), ("webhook", 0, False), ("bank", "D1", 0, 1),
    ("webhook", 0, True), ("webhook", 0, False), ("bank", "D1", 0, 1), ("webhook", 0, False), ("grant", "A1-P1", 500),
    ("answer", True), ("dispute", "A1-P2", "lost"), ("answer", True)]


@settings(max_examples=120, deadline=None)
@example(True, ALL)
@forall(st.booleans(), st.lists(ACTIONS, max_size=40))
def test_the_books_balance_and_keep_their_signs_after_every_posting(released, actions):
    told = Told()
    for name, *arguments in [*PAID, *([("confirm", PARCELS[0]), ("answer", True)] if released else []), *actions]:
        getattr(told, name)(*arguments)
    told.end()
    told.statement()
    assert told.waiting == [] or all(isinstance(w, DisputeTold) or type(w).__name__ == "ClaimPaid" for w in told.waiting)
    assert told.sums["advanced", "GBP"] == 0 or any("contested" in h.status for h in told.account.holds.values())
    paid = told.refunded + told.disputed
    booked = told.sums["refunded", "GBP"] + told.sums["charged_back", "GBP"]
    by_hand = sum(row[4] for row in told.rows if row[7] == "manual_payout" and row[2] == "refunded")
    assert booked - by_hand == paid or told.late or told.waiting, "the buyer has by the books what he has by the provider's"
    SEEN.update(told.kinds)


def test_every_kind_of_posting_was_among_them():
    """Else the property would say nothing about it."""
    assert SEEN.keys() >= {"capture", "release", "refund", "recover_merchant", "recover_platform", "chargeback", "chargeback_reversed",
                           "chargeback_lost", "release_advance", "charge_back", "assess", "variance", "convert", "payout"}


@pytest.mark.parametrize("name", sorted(SIGNS))
def test_a_sign_is_of_an_account(name):
    from schemas.ledger import ACCOUNTS

    assert name in ACCOUNTS and SIGNS[name] in (-1, 1)
