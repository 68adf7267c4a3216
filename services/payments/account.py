"""What payments knows of an order's money, and what one decision about it collects. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from schemas.lifecycle import PAYMENT, Answer
from schemas.terms import Terms
from services.runtime.decision import Intent, earliest


@dataclass(slots=True)
class Owed:
    """One refund to make: `kind` is refund or chargeback; `tries` counts refusals of the provider."""

    amount: int
    reason: str
    ref: str = ""
    kind: str = "refund"
    tries: int = 0


@dataclass(slots=True)
class Shares:
    """Of what a parcel costs its buyer, what is others': `freight`, and tax, `quoted` for goods worth `goods` (with it), of
    which goods worth `gone` left the sale. `assessed`: by customs, in the order's currency (None: not told yet);
    `collected`: tax released from escrow; `varied`: booked as duty variance. `ended`: the parcel's money has come to rest,
    so that its tax account has to be even.

    `base`: the goods that were assessed; of them worth `returned` went back in time, for which `reclaimed` of the tax is claimed
    back, `relieved` of it for the platform. `returning`: (return, worth, whether the merchant had been paid) that customs has
    not answered yet."""

    freight: int
    goods: int
    quoted: int = 0
    gone: int = 0
    assessed: int | None = None
    collected: int = 0
    varied: int = 0
    ended: bool = False
    reserve: int = 0  # of the merchant's money, kept since `reserved_at`
    reserved_at: datetime | None = None
    base: int = 0
    returning: tuple[tuple[str, int, bool], ...] = ()
    returned: int = 0
    reclaimed: int = 0
    relieved: int = 0

    @property
    def tax(self) -> int:
        """Of what is left of the goods."""
        return self.quoted - self.quoted * min(self.gone, self.goods) // self.goods if self.goods else 0

    @property
    def odd(self) -> int:
        """What is left on the parcel's tax account."""
        return self.collected - (self.assessed or 0) + self.relieved - self.varied


@dataclass(slots=True, frozen=True)
class Duty:
    """Whom the platform owes the order's tax, and how customs' currency becomes the order's: `rate` is order / customs, as
    a pair of whole numbers over their minor units. `clearance_fee`: what the carrier was quoted to ask."""

    authority: str
    currency: str
    rate: tuple[int, int] = (1, 1)
    clearance_fee: int = 0


@dataclass(slots=True)
class Hold:
    """The money of one parcel, in minor units. `status` is the payment machine's."""

    due: int
    status: str = "new"
    captured: int = 0
    held: int = 0
    released: int = 0
    refunded: int = 0
    charged_back: int = 0
    recovered: int = 0
    documents: bool = False
    confirmed: bool = False
    frozen: list[str] = field(default_factory=list)
    owed: list[Owed] = field(default_factory=list)
    payout: str = ""
    expired: list[str] = field(default_factory=list)  # returns that orders gave up: their goods may be on the way all the same
    shares: Shares | None = None  # only where a release has more than one payee

    def draft(self) -> Hold:
        return Hold(self.due, self.status, self.captured, self.held, self.released, self.refunded, self.charged_back,
                    self.recovered, self.documents, self.confirmed, list(self.frozen),
                    [Owed(o.amount, o.reason, o.ref, o.kind, o.tries) for o in self.owed], self.payout, list(self.expired),
                    replace(self.shares) if self.shares else None)


@dataclass(slots=True)
class Payment:
    """One payment at the provider. `status`: new, authorised, held, ended. `intent`: the call in flight. `refused`: why its
    capture was; its authorisation is given up then. `transaction`: the provider's reference of the capture, for customs."""

    parcels: list[str]
    status: str = "new"
    authorised: int = 0
    reference: str = ""
    intent: str = ""
    intent_kind: str = ""
    intent_amount: int = 0
    intent_parcel: str = ""
    capturing: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    expiring: bool = False
    refused: str = ""
    transaction: str = ""

    def draft(self) -> Payment:
        return Payment(self.parcels, self.status, self.authorised, self.reference, self.intent, self.intent_kind,
                       self.intent_amount, self.intent_parcel, dict(self.capturing), self.calls, self.expiring, self.refused,
                       self.transaction)


@dataclass(slots=True)
class Dispute:
    """One dispute of the buyer's bank. `status`: the chargeback machine's; `parts`: parcel -> amount, `laid_out`: parcel ->
    how much of it the platform pays meanwhile; `taken_at`: the chargeback; `due`: until when evidence is taken;
    `evidence`: waits to be sent, `sent`: the provider has it."""

    payment_id: str
    status: str = "new"
    parts: dict[str, int] = field(default_factory=dict)
    laid_out: dict[str, int] = field(default_factory=dict)
    taken_at: datetime | None = None
    due: datetime | None = None
    evidence: str = ""
    sent: str = ""

    def draft(self) -> Dispute:
        return replace(self, parts=dict(self.parts), laid_out=dict(self.laid_out))


# Of a statement, in each currency.
FIGURES = ("gross", "refunds", "fee", "withheld", "reserve", "reserve_back", "claims", "net", "chargebacks")


@dataclass(slots=True)
class Book:
    """`done`: periods, statements and batches -> amount; `due`: currency -> payable to the merchant; `stated`:
    "currency fx" -> the sums of FIGURES so far."""

    done: dict[str, int] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    stated: dict[str, list[int]] = field(default_factory=dict)

    def draft(self) -> Book:
        return Book(dict(self.done), dict(self.due), {k: list(v) for k, v in self.stated.items()})


@dataclass(slots=True)
class Account:
    """All money of one order. `entries` numbers the ledger's entries. `standing`: the label of the merchant's row that it
    obeys; `stops`: why no money goes forward, that is to the merchant; back to the buyer it always may. `terms`: what the merchant agreed to, `duty`: whom the
    quoted tax is owed to; both as frozen on the order."""

    order_id: str
    status: str = "new"
    closed: bool = False
    merchant_id: str = ""
    currency: str = ""
    regime: str = "abroad"
    token: str = ""
    entries: int = 0
    payments: dict[str, Payment] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    timers: dict[str, datetime] = field(default_factory=dict)
    standing: str = ""
    stops: list[str] = field(default_factory=list)
    terms: Terms | None = None
    duty: Duty | None = None
    book: Book | None = None  # of what is no order: see books.py
    papers: tuple[str, str] | None = None  # into China: the platform's code at customs, and who pays
    disputes: dict[str, Dispute] | None = None  # of the buyer's bank: see disputes.py

    def draft(self) -> Account:
        return Account(self.order_id, self.status, self.closed, self.merchant_id, self.currency, self.regime, self.token,
                       self.entries, {k: p.draft() for k, p in self.payments.items()},
                       {k: h.draft() for k, h in self.holds.items()}, dict(self.timers), self.standing,
                       self.stops, self.terms, self.duty, self.book, self.papers,
                       {k: d.draft() for k, d in self.disputes.items()} if self.disputes else None)

    def running(self) -> dict[str, datetime]:
        """The timers that run now: a freeze does not stop the provider's."""
        return self.timers

    def due(self) -> datetime | None:
        return earliest(self.timers)


class Work:
    """What one decision collects."""

    def __init__(self, account: Account, now: datetime):
        self.account, self.now = account, now
        self.events: list[Any] = []
        self.intents: list[Intent] = []
        self.answered: list[str] = []
        self.rows: list[tuple[str, tuple]] = []

    def emit(self, model: type, payment_id: str, **fields: Any) -> None:
        a = self.account
        self.events.append(model.model_construct(order_id=a.order_id, payment_id=payment_id, currency=a.currency, **fields))

    def step(self, parcel_id: str, event: str) -> None:
        hold = self.account.holds[parcel_id]
        answer, to = PAYMENT.answer(hold.status, event)
        assert answer is Answer.APPLIED, f"{event} is not in the table for money that is {hold.status}"
        hold.status = to

    def book(self, kind: str, payment_id: str, parcel_id: str, debit: str, credit: str, amount: int) -> None:
        """Two rows, together zero: `debit` goes down by `amount`, `credit` goes up."""
        a = self.account
        a.entries += 1
        for name, signed in ((debit, -amount), (credit, amount)):
            self.rows.append(("ledger", (a.order_id, a.entries, name, a.currency, signed, payment_id, parcel_id, kind, self.now)))

    def post(self, kind: str, payment_id: str, parcel_id: str, rows: list[tuple[str, int]], currency: str = "") -> None:
        """One entry of several rows (account, signed amount), together zero; those of zero are left out."""
        a = self.account
        assert sum(amount for _, amount in rows) == 0, f"{kind} of {parcel_id or a.order_id} does not balance: {rows}"
        a.entries += 1
        for name, signed in rows:
            if signed:
                self.rows.append(("ledger", (a.order_id, a.entries, name, currency or a.currency, signed, payment_id, parcel_id,
                                             kind, self.now)))

    def call(self, payment_id: str, kind: str, amount: int, parcel_id: str = "", reference: str = "") -> None:
        """`parcel_id`: what the answer is about (of evidence: the dispute)."""
        a, payment = self.account, self.account.payments[payment_id]
        payment.calls += 1
        payment.intent = f"{payment_id}.{kind}.{payment.calls}"
        payment.intent_kind, payment.intent_amount, payment.intent_parcel = kind, amount, parcel_id
        self.intents.append(Intent(payment.intent, kind, {
            "payment_id": payment_id, "amount": amount, "currency": a.currency, "token": a.token,
            "reference": reference or payment.reference, "parcel_id": parcel_id}))
