"""What shipping knows of an order's goods, and what one decision about them collects. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar

from schemas.china_papers import OrderDocument, PaymentDocument
from schemas.cold_chain import Band
from schemas.dead_letters import Reason
from schemas.lifecycle import PARCEL, Answer, deadlines
from schemas.model import LineUnits
from schemas.numbers import COMPANY_PREFIX, s10, sscc
from schemas.shipping_shipment import Route
from services.runtime.decision import Impossible, Standing, earliest
from services.shipping.allocation import Content, Document, Line, Wanted
from services.shipping.serials import back
from services.shipping.storage import StockMove


CHINESE = ("china", "bonded")  # regimes whose papers Chinese customs sees


@dataclass(slots=True, frozen=True)
class Clock:
    """What has become of a promise (promise.py). `slip_s`: how long it stood still before; `paused`: why it does, `since` when;
    `route`: the way, where it is another than the first; `due`: by when it was promised, where its goods had to come first."""

    slip_s: int = 0
    paused: str = ""
    since: datetime | None = None
    at_risk: bool = False
    route: Route | None = None
    due: datetime | None = None

    def promised(self, route: Route | None) -> datetime | None:
        """By when it must be at the door, of a parcel whose first way was `route`, pauses counted; None: nothing was promised."""
        first = self.due or (route and route.promised_at)
        return first and first + timedelta(seconds=self.slip_s)

    def but(self, **changes: Any) -> Clock:
        return replace(self, **changes)


@dataclass(slots=True)
class Papers:
    """Into China, until it is packed: the newest order and payment documents, how many lists were declared, and how often papers
    were found wrong. `listed`: the list that customs may have; `released`: when it let the goods in; `returning`: returns that
    it has not answered yet; `asked_late`: those that were asked for too late for it."""

    order: OrderDocument | None = None
    payment: PaymentDocument | None = None
    lists: int = 0
    wrong: int = 0
    listed: str = ""
    released: datetime | None = None
    returning: list[str] = field(default_factory=list)
    asked_late: list[str] = field(default_factory=list)

    def draft(self) -> Papers:
        return Papers(self.order, self.payment, self.lists, self.wrong, self.listed, self.released, list(self.returning),
                      list(self.asked_late))


@dataclass(slots=True)
class Aside:
    """What only few parcels need. `attempt_at`: when the carrier last scanned an attempt to deliver; `short`: units of a line
    that were not on the shelf, whoever they were for. `quarantine`: excursions that nobody decided about yet; `judged`: the
    others. `inspections`: those without a result, `inspected`: the others, `wanted`: [id, reason, detail] of those that begin
    when it is packed. `units`: keys of the serial numbers in it (serials.py) -> line. `sscc`, `waybill_no`: of the box that replaces a spoiled one; `spoiled`: units of a line that were replaced.
    `awaits`: its goods, which no warehouse had (backorders.py); `ready`: everything else of it is, so it goes on with them.
    `begun`: it is packed, and the warehouse had told that it began; `asked`: cancellation -> its (line, units), None: all, to
    which the warehouse has not answered (asking.py). `content`: what is in it since it was split (splitting.py)."""

    attempt_at: datetime | None = None
    short: dict[int, int] = field(default_factory=dict)
    quarantine: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    sscc: str = ""
    waybill_no: str = ""
    spoiled: dict[int, int] = field(default_factory=dict)
    clock: Clock | None = None
    papers: Papers | None = None
    inspections: list[str] = field(default_factory=list)
    inspected: list[str] = field(default_factory=list)
    wanted: list[list[str]] = field(default_factory=list)
    units: dict[str, int] = field(default_factory=dict)
    awaits: bool = False
    ready: bool = False
    begun: bool = False
    asked: dict[str, list[tuple[int, int]] | None] = field(default_factory=dict)
    content: Content | None = None

    def draft(self) -> Aside:
        return Aside(self.attempt_at, dict(self.short), list(self.quarantine), list(self.judged), self.sscc, self.waybill_no,
                     dict(self.spoiled), self.clock, self.papers and self.papers.draft(), list(self.inspections),
                     list(self.inspected), list(self.wanted), dict(self.units), self.awaits, self.ready, self.begun, dict(self.asked),
                     self.content)


@dataclass(slots=True)
class Parcel:
    """`cut`: units of a line that are no longer the buyer's; `granted`: money given back without goods (minor units)."""

    warehouse: str
    status: str = "allocated"
    cut: dict[int, int] = field(default_factory=dict)
    granted: int = 0
    undone: bool = False
    attempts: int = 0
    intercept: str = ""
    claim_open: bool = False
    returns: dict[str, list[list[int]] | None] = field(default_factory=dict)
    reason: str = ""
    aside: Aside | None = None

    def draft(self) -> Parcel:
        return Parcel(self.warehouse, self.status, dict(self.cut), self.granted, self.undone, self.attempts, self.intercept,
                      self.claim_open, dict(self.returns), self.reason, self.aside.draft() if self.aside else None)

    @property
    def quarantined(self) -> bool:
        return self.aside is not None and bool(self.aside.quarantine)

    @property
    def in_doubt(self) -> bool:
        """Nobody knows yet whether these goods may be sold."""
        return self.aside is not None and bool(self.aside.quarantine or self.aside.inspections)

    @property
    def papers(self) -> Papers | None:
        """Into China alone."""
        return self.aside.papers if self.aside is not None else None

    @property
    def awaits(self) -> bool:
        """No warehouse has its goods yet."""
        return self.aside is not None and self.aside.awaits

    @property
    def begun(self) -> bool:
        """Whether its warehouse has told that it began to pack it, and still has it."""
        return self.status == "in_progress" or self.status == "packed" and self.aside is not None and self.aside.begun

    def beside(self) -> Aside:
        """Its `aside`, made when it is needed first."""
        if self.aside is None:
            self.aside = Aside()
        return self.aside


@dataclass(slots=True)
class Shipment:
    """`pending`: what an order that waits for stock still wants (None: allocated). `standing`: the label of the merchant's row
    that it obeys; `stops`: why its goods go no further, since `held_since`; `kept`: (type, body) of what would let them;
    `lanes`: the label of the closed lanes that its routes avoid."""

    STANDS_STILL: ClassVar[frozenset[str]] = frozenset({"reservation", "backorder", "retry", "hold", "papers", "stock", "stock_ends"})  # timers, while it is stopped

    order_id: str
    status: str = "new"
    closed: bool = False
    merchant_id: str = ""
    regime: str = "abroad"
    pending: Wanted | None = None
    parcels: dict[str, Parcel] = field(default_factory=dict)
    timers: dict[str, datetime] = field(default_factory=dict)
    standing: str = ""
    stops: list[str] = field(default_factory=list)
    held_since: datetime | None = None
    kept: list[list[str]] = field(default_factory=list)
    lanes: str = ""
    waits_for_papers: bool = False
    supplied: list[int] = field(default_factory=list)

    def draft(self) -> Shipment:
        return Shipment(self.order_id, self.status, self.closed, self.merchant_id, self.regime, self.pending,
                        {k: p.draft() for k, p in self.parcels.items()}, dict(self.timers), self.standing,
                        self.stops, self.held_since, self.kept, self.lanes, self.waits_for_papers, self.supplied)

    def running(self) -> dict[str, datetime]:
        """The timers that run now."""
        if not self.stops:
            return self.timers
        return {name: due for name, due in self.timers.items() if name.partition(":")[0] not in self.STANDS_STILL}

    def due(self) -> datetime | None:
        return earliest(self.running())

    def content(self, parcel_id: str, document: Document) -> Content | None:
        """What is planned to be in a parcel: as it was allocated, or split since."""
        parcel = self.parcels.get(parcel_id)
        if parcel is not None and parcel.aside is not None and parcel.aside.content is not None:
            return parcel.aside.content
        return document.parcels.get(parcel_id)


CLOCKS_DIFFER = timedelta(days=1)


class Work:
    """What one decision collects. `at`: when that happened which is decided about; `plans`: the network (plans.py), None:
    nothing is promised; `closed`: its closed lanes; `resends`: how often wrong papers may be corrected."""

    def __init__(self, shipment: Shipment, document: Document | None, stock: Any, now: datetime, prefix: str = COMPANY_PREFIX,
                 at: datetime | None = None, plans: Any = None, closed: frozenset[str] = frozenset(), resends: int = 3):
        self.shipment, self.document, self.stock, self.now, self.prefix = shipment, document, stock, now, prefix
        self.at, self.plans, self.closed, self.resends = at or now, plans, closed, resends
        self.standing: Standing | None = None
        self.fresh_document: Document | None = None
        self.events: list[Any] = []
        self.moves: list[StockMove] = []

    def emit(self, model: type, **fields: Any) -> None:
        self.events.append(model.model_construct(order_id=self.shipment.order_id, **fields))

    def step(self, parcel: Parcel, event: str) -> bool:
        answer, to = PARCEL[self.shipment.regime].answer(parcel.status, event)
        if answer is Answer.APPLIED:
            parcel.status = to
        return answer is Answer.APPLIED

    def told_of(self, at: datetime) -> None:
        """Of a moment that somebody outside names. Raises Impossible for one to come."""
        if at > self.now + CLOCKS_DIFFER:
            raise Impossible(Reason.INVALID, f"at: {at} lies in the future")

    @property
    def legs(self) -> str:
        """The regime that tells which way a parcel goes: from a bonded warehouse as within a country."""
        return "domestic" if self.shipment.regime == "bonded" else self.shipment.regime

    def content(self, parcel_id: str) -> Content:
        found = self.shipment.content(parcel_id, self.fresh_document or self.document)
        assert found is not None, f"the order has no parcel {parcel_id}"
        return found

    def band(self, parcel_id: str) -> Band | None:
        """What the logger of a parcel is set to; None: it needs none."""
        document = self.fresh_document or self.document
        return document.band(self.content(parcel_id)) if document.cold else None

    def left(self, parcel_id: str) -> list[tuple[Line, int]]:
        """The parcel's lines with the units that are still the buyer's."""
        cut = self.shipment.parcels[parcel_id].cut
        return [(line, line.quantity - cut.get(line.line_no, 0)) for line in self.content(parcel_id).lines]

    def value(self, parcel_id: str) -> int:
        """What the buyer owes for the parcel as it is now. Freight is owed as long as anything is in it."""
        parcel = self.shipment.parcels[parcel_id]
        if parcel.undone:
            return 0
        left = self.left(parcel_id)
        goods = sum(line.amount * units // line.quantity for line, units in left)
        freight = self.content(parcel_id).freight if any(units for _, units in left) else 0
        return max(0, goods + freight - parcel.granted)

    def numbers(self, origin: str) -> tuple[str, str]:
        """An SSCC and, for what crosses a border, an S10 waybill number that no other parcel has (see storage.Serials)."""
        serial = self.stock.serial()
        return sscc(serial, self.prefix), s10(serial, origin) if self.shipment.regime != "domestic" else ""

    def label(self, parcel_id: str) -> tuple[str, str]:
        """SSCC and waybill number of the box that the parcel is now."""
        aside, content = self.shipment.parcels[parcel_id].aside, self.content(parcel_id)
        return (aside.sscc, aside.waybill_no) if aside and aside.sscc else (content.sscc, content.waybill_no)

    def move(self, parcel_id: str, kind: str, lines: list[tuple[Line, int]] | None = None) -> None:
        """Move stock of the parcel's warehouse: reserve, release, consume, restock, shrink."""
        parcel = self.shipment.parcels[parcel_id]
        if parcel.awaits:
            return  # nothing of it is reserved
        warehouse = parcel.warehouse
        for line, units in lines if lines is not None else self.left(parcel_id):
            if units:
                self.moves.append(StockMove(warehouse, line.sku, kind, units))
        if kind == "restock" and parcel.aside is not None and parcel.aside.units:
            back(self, parcel_id, {line.line_no for line, units in lines or self.left(parcel_id) if units})

    def arm(self, name: str, kind: str) -> None:
        self.shipment.timers[name] = self.now + timedelta(seconds=deadlines()[kind])

    def disarm(self, *names: str) -> None:
        for name in names:
            self.shipment.timers.pop(name, None)

    def unasked(self, parcel_id: str) -> None:
        """Its warehouse need not answer any more."""
        aside = self.shipment.parcels[parcel_id].aside
        if aside is not None and aside.asked:
            aside.asked.clear()
            self.disarm(f"asked:{parcel_id}")

    def told_anew(self, parcel_id: str) -> None:
        """Goods left a parcel: if its papers are made out already, all of them are told anew before it is packed."""
        if self.shipment.parcels[parcel_id].papers is not None:
            self.disarm(f"hold:{parcel_id}")
            self.arm(f"papers:{parcel_id}", "papers")

    def listed(self, parcel_id: str) -> str:
        """The import list of a parcel that Chinese customs may have; empty: none."""
        papers = self.shipment.parcels[parcel_id].papers
        return papers.listed if papers is not None else ""

    def undo(self, parcel_id: str) -> int:
        """Nothing of the parcel will be the buyer's: returns by how much the buyer owes less."""
        refund = self.value(parcel_id)
        self.shipment.parcels[parcel_id].undone = True
        return refund

    def cut(self, parcel_id: str, lines: list[tuple[int, int]]) -> tuple[list[tuple[Line, int]], int]:
        """Take units out of the parcel, as far as they are there. Returns what was taken, and the money for it."""
        before, parcel, taken = self.value(parcel_id), self.shipment.parcels[parcel_id], []
        left = {line.line_no: (line, units) for line, units in self.left(parcel_id)}
        for line_no, units in lines:
            line, available = left.get(line_no, (None, 0))
            units = min(units, available)
            if units:
                parcel.cut[line_no] = parcel.cut.get(line_no, 0) + units
                left[line_no] = (line, available - units)
                taken.append((line, units))
        return taken, before - self.value(parcel_id)


def line_units(taken: list[tuple[Line, int]]) -> list[LineUnits]:
    return [LineUnits(line_no=line.line_no, quantity=units) for line, units in taken]
