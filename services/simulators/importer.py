"""A retail file's orders, placed at the edge, and its cancellations, asked for when the order's state allows them.

Within 24 hours the merchant's buyer cancels at once; within 30 days the goods come back after delivery; later the
merchant grants the money after the order is completed. Every id follows from the file, and everything said under an id
is byte for byte the same each time, so that a second import, or one after a kill half-way, creates nothing twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Any

from schemas.model import LineQuantity
from schemas.orders_intake import CancelOrder, GrantRefund, OrderLine, PlaceOrder, RequestReturn
from schemas.parties import Person, seal
from schemas.shipping_report import InboundReceived
from services.runtime.crash import point
from services.runtime.processes import read_json, write_json
from services.simulators.edge import Publisher, Record, inbound_for, place_record, record_of
from services.simulators.follow import Follower
from services.simulators.retail_orders import Order, Reading, Undo, shifted
from services.simulators.scenario import SCENARIOS, payment_token_of, scenario_of

MERCHANT = "uk-gifts"
CURRENCY, ORIGIN = "GBP", "GB"
PLACE_CHUNK = 20
UNPAID_MAX = 60
PACE_S_MAX = 60.0
SHORT_SKUS_PERMILLE = 3  # of the SKUs, so many have less on the shelf than the file sold
WATCHED = frozenset({"ParcelsAllocated", "ParcelSplit", "ParcelDelivered", "ReturnReceived", "GrantPriced", "CommandRefused",
                     "PaymentPartiallyRefunded", "PaymentRefunded", "OrderCompleted", "OrderCancelled", "OrderRejected",
                     "StockReceived"})


def order_id_of(invoice_no: str) -> str:
    return f"{MERCHANT}.{invoice_no}"


def anchored(reading: Reading, path: Path, folder: Path, now: datetime) -> Reading:
    """The reading with its first line at the moment of its first import: a second import says the same as the first."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
    note = folder / "imports" / f"{digest}.json"
    stored = read_json(note)
    if stored is None:
        note.parent.mkdir(parents=True, exist_ok=True)
        stored = {"file": path.name, "first_at": now.isoformat()}
        write_json(note, stored)
        point("importer.anchored")
    return shifted(reading, datetime.fromisoformat(stored["first_at"]))


def place_order(order: Order, key: bytes, seed: int) -> PlaceOrder:
    """The command for one invoice. The file knows customers by number only; guests are known by their invoice."""
    order_id = order_id_of(order.invoice_no)
    who = f"Customer {order.customer}" if order.customer else f"Guest of invoice {order.invoice_no}"
    person = seal(Person(name=who, address=order.country_name), key)
    return PlaceOrder.model_construct(
        order_id=order_id, merchant_id=MERCHANT, currency=CURRENCY, origin=ORIGIN, destination=order.country,
        lines=[OrderLine.model_construct(line_no=l.line_no, sku=l.sku, description=l.description, quantity=l.quantity,
                                         amount=l.amount, hs_code=None) for l in order.lines],
        freight=order.freight, tax=0, total=order.total, on_shortage="wait" if _waits(order_id, seed) else "ship_available",
        payment_token=payment_token_of(scenario_of(order_id, seed)), buyer=person, consignee=person,
        placed_at=order.placed_at, merchant_reference=f"invoice {order.invoice_no}")


def stock(orders: Iterable[PlaceOrder], seed: int, batch: str, time: datetime) -> Iterator[Record]:
    """Stock for all orders, but a tenth too little of a few SKUs that the seed picks."""
    for record in inbound_for(orders, batch=batch, time=time):
        message: InboundReceived = record.message
        if _is_short(message.sku, seed):
            fewer = max(1, message.quantity * 9 // 10)
            message = message.model_copy(update={"quantity": fewer})
            record = record_of(message, id=record.id, time=time, merchant=MERCHANT, source=f"/warehouse/{message.warehouse}")
        yield record


def _is_short(sku: str, seed: int) -> bool:
    return _permille(seed, "short", sku) < SHORT_SKUS_PERMILLE


def _waits(order_id: str, seed: int) -> bool:
    """Whether the order rather waits for what is missing than goes without it."""
    return _permille(seed, "wait", order_id) < 500


def _permille(seed: int, what: str, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{what}:{name}".encode(), digest_size=4).digest(), "big") % 1000


@dataclass
class Wish:
    """One command that undoes part of an order. `freight`: pence that have no goods."""

    id: str
    kind: str
    order_id: str
    lines: dict[int, int] = field(default_factory=dict)
    freight: int = 0


def wishes_of(undos: Iterable[Undo]) -> list[Wish]:
    """One wish for each cancellation document, sale and kind: a person sends one parcel back, not each unit by itself."""
    wishes: dict[str, Wish] = {}
    for undo in undos:
        kind = "grant_refund" if undo.line_no == 0 else undo.kind
        name = f"{kind}:{undo.cancellation_no}:{undo.invoice_no}" + (":freight" if undo.line_no == 0 else "")
        wish = wishes.setdefault(name, Wish(name, kind, order_id_of(undo.invoice_no)))
        if undo.line_no:
            wish.lines[undo.line_no] = wish.lines.get(undo.line_no, 0) + undo.quantity
        else:
            wish.freight += undo.amount
    return list(wishes.values())


class Importer:
    """Places the orders, then follows them and asks for what the file cancels, one wish at a time a parcel."""

    def __init__(self, publisher: Publisher, follower: Follower, time: datetime):
        self.publisher, self.follower, self.time = publisher, follower, time
        self.waiting: dict[str, list[Wish]] = defaultdict(list)       # order -> returns and grants not yet split
        self.plans: dict[str, dict[str, dict[int, int]]] = {}         # order -> parcel -> line -> units
        self.queues: dict[str, deque[tuple[str, Any]]] = defaultdict(deque)  # parcel -> commands; the first is under way
        self.asked: set[str] = set()
        self.delivered: set[str] = set()
        self.completed: set[str] = set()
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.out: list[Record] = []
        self.stocked: Counter[str] = Counter()

    def follow(self, wishes: Iterable[Wish]) -> None:
        """Take on what the file cancels, before its orders are placed: some are delivered while others still wait."""
        for wish in wishes:
            self.waiting[wish.order_id].append(wish)

    def placed(self, order_ids: Iterable[str]) -> None:
        """These orders stand on the topic: what is cancelled within a day is cancelled now."""
        for order_id in order_ids:
            for wish in [w for w in self.waiting.get(order_id, ()) if w.kind == "cancel"]:
                self.waiting[order_id].remove(wish)
                lines = [LineQuantity(line_no=n, quantity=q) for n, q in sorted(wish.lines.items())]
                self._say(wish.id, CancelOrder(order_id=order_id, lines=lines, reason="cancelled in the file"))
                self.outcomes["cancel asked"] += 1

    @property
    def pending(self) -> int:
        """Wishes that may still be granted."""
        return sum(map(len, self.queues.values())) + sum(
            len(w) for order_id, w in self.waiting.items() if not self._over(order_id))

    async def flush(self) -> None:
        out, self.out = self.out, []
        if out:
            await self.publisher.send(out)

    def react(self, name: str, event: Any) -> None:
        """One event of an order of ours."""
        order_id = event.order_id
        if name == "StockReceived":
            self.stocked[order_id] += event.quantity
        elif name == "ParcelsAllocated":
            self.plans[order_id] = {p.parcel_id: {l.line_no: l.quantity for l in p.lines} for p in event.parcels}
        elif name == "ParcelSplit":
            self.plans[order_id] |= {p.parcel_id: {l.line_no: l.quantity for l in p.lines} for p in (event, event.part)}
        elif name == "ParcelDelivered":
            self.delivered.add(event.parcel_id)
            self._ask(order_id, "return", event.parcel_id)
        elif name == "OrderCompleted":
            self.completed.add(order_id)
            for parcel_id in self.plans.get(order_id, ()):
                self._ask(order_id, "grant_refund", parcel_id)
        elif name == "CommandRefused" and event.command_id in self.asked:
            self.refusals[f"{event.command}: {event.reason}"] += 1
            self._answered(event.command_id)
        elif name in ("ReturnReceived", "GrantPriced"):
            ref = event.return_id if name == "ReturnReceived" else event.grant_id
            if event.refund == 0:
                self._answered(ref)
        elif name in ("PaymentPartiallyRefunded", "PaymentRefunded"):
            self._answered(event.ref)

    def _over(self, order_id: str) -> bool:
        story = self.follower.stories.get(order_id)
        return story is not None and bool(story.end)  # what was not delivered by then never will be

    def _ask(self, order_id: str, kind: str, parcel_id: str) -> None:
        """The part of each wish that is in this parcel becomes a command of its own."""
        content = self.plans[order_id][parcel_id]
        for wish in self.waiting.get(order_id, ()):
            if wish.kind != kind:
                continue
            name = f"{wish.id}:{parcel_id}"
            if wish.freight:
                if parcel_id.endswith("-P1"):
                    self._queue(parcel_id, name, GrantRefund(order_id=order_id, parcel_id=parcel_id, amount=wish.freight))
                continue
            lines = [LineQuantity(line_no=n, quantity=min(q, content[n])) for n, q in sorted(wish.lines.items()) if n in content]
            model = RequestReturn if kind == "return" else GrantRefund
            if lines:
                self._queue(parcel_id, name, model(order_id=order_id, parcel_id=parcel_id, lines=lines, reason="cancelled in the file"))
        self.waiting[order_id] = [w for w in self.waiting.get(order_id, ()) if w.kind != kind or not self._all_asked(w)]

    def _all_asked(self, wish: Wish) -> bool:
        parcels = self.plans.get(wish.order_id, {})
        return wish.kind == "grant_refund" or all(p in self.delivered for p, content in parcels.items() if wish.lines.keys() & content)

    def _queue(self, parcel_id: str, name: str, command: Any) -> None:
        if name in self.asked:
            return
        self.asked.add(name)
        queue = self.queues[parcel_id]
        queue.append((name, command))
        if len(queue) == 1:
            self._say(name, command)

    def _answered(self, name: str) -> None:
        """The parcel is free for its next wish."""
        parcel_id = name.rpartition(":")[2]
        queue = self.queues.get(parcel_id)
        if queue and queue[0][0] == name:
            queue.popleft()
            self.outcomes[f"{name.partition(':')[0]} answered"] += 1
            if queue:
                self._say(*queue[0])
            else:
                del self.queues[parcel_id]

    def _say(self, name: str, command: Any) -> None:
        self.asked.add(name)
        self.out.append(record_of(command, id=name, time=self.time, merchant=MERCHANT))


@dataclass
class Plan:
    """What an import will do, worked out before anything is sent."""

    reading: Reading
    orders: list[PlaceOrder]
    wishes: list[Wish]
    batch: str


def plan(reading: Reading, path: Path, key: bytes, seed: int, limit: int | None = None) -> Plan:
    """`limit`: only the first so many orders (and what undoes them)."""
    kept = list(reading.orders[:limit])
    names = {order.invoice_no for order in kept}
    wishes = wishes_of(undo for undo in reading.undos if undo.invoice_no in names)
    # What takes long goes first: the others do their work meanwhile.
    undone = {undo.invoice_no for undo in reading.undos}
    kept.sort(key=lambda order: _haste(order, seed, order.invoice_no in undone))
    return Plan(reading, [place_order(order, key, seed) for order in kept], wishes, f"{path.name}:{limit or 'all'}")


def _haste(order: Order, seed: int, undone: bool) -> int:
    """0: may wait for a deadline of the trade, days or weeks; 1: something of it comes back or is disputed; 2: as usual."""
    order_id = order_id_of(order.invoice_no)
    scenario = scenario_of(order_id, seed)
    if not SCENARIOS[scenario].fast or _waits(order_id, seed) and any(_is_short(line.sku, seed) for line in order.lines):
        return 0
    return 1 if undone or scenario != "normal" else 2


class Import:
    """One import from the first record to the last order's end. `more`: orders of no file, whose stock somebody delivers."""

    def __init__(self, plan: Plan, bootstrap: str, journal: Path, seed: int, time: datetime, more: Sequence[PlaceOrder] = ()):
        self.plan, self.bootstrap, self.journal, self.seed, self.time = plan, bootstrap, journal, seed, time
        self.orders = [*more, *plan.orders]
        self.ids = {order.order_id for order in self.orders}
        self.unpaid: set[str] = set()

    async def run(self, each: Callable[[Importer, Follower], None], wait: bool = True, timeout_s: float = 3600,
                  extra: set[str] = frozenset()) -> tuple[Importer, Follower, bool]:
        """Stock, place, follow. Returns whether every order ended; `extra`: other orders to wait for."""
        inbound = list(stock(self.plan.orders, self.seed, self.plan.batch, self.time))
        wanted = self.ids | set(extra) | {record.message.order_id for record in inbound}
        late: list[Importer] = []
        async with Publisher(self.bootstrap, self.journal) as publisher, Follower(
                self.bootstrap, wanted, lambda name, event: late[0].react(name, event), WATCHED) as follower:
            importer = Importer(publisher, follower, self.time)
            late.append(importer)
            await publisher.send(inbound)
            # An order that is placed before its stock arrived would find none.
            await follower.until(lambda: all(importer.stocked[r.message.order_id] >= r.message.quantity for r in inbound),
                                 timeout_s=timeout_s)
            point("importer.stocked")
            importer.follow(self.plan.wishes)
            for start in range(0, len(self.orders), PLACE_CHUNK):
                chunk = self.orders[start:start + PLACE_CHUNK]
                await publisher.send(place_record(order) for order in chunk)
                point("importer.placed")
                importer.placed(order.order_id for order in chunk)
                self.unpaid.update(order.order_id for order in chunk)
                await self._paced(importer, follower, each)
            done = not wait
            if wait:
                done = await self._to_the_end(importer, follower, each, timeout_s, len(self.ids | set(extra)))
            return importer, follower, done

    async def _paced(self, importer: Importer, follower: Follower, each: Callable) -> None:
        """On a clock that runs ahead, an order that queues behind thousands loses its reservation meanwhile: wait until
        most of those placed are paid. Not for ever: a provider may be down."""
        end = monotonic() + PACE_S_MAX
        await importer.flush()
        while self._still_unpaid(follower) > UNPAID_MAX and monotonic() < end:
            await follower.read()
            await importer.flush()
            each(importer, follower)

    def _still_unpaid(self, follower: Follower) -> int:
        """How many of those placed are neither paid nor at their end without."""
        for order_id in list(self.unpaid):
            story = follower.stories.get(order_id)
            if story and (story.end or "paid" in story.reached or "delivered" in story.reached):
                self.unpaid.remove(order_id)
        return len(self.unpaid)

    async def _to_the_end(self, importer: Importer, follower: Follower, each: Callable, timeout_s: float, count: int) -> bool:
        def at_rest() -> bool:
            return follower.ended >= count and not importer.pending and not importer.out
        end = monotonic() + timeout_s
        while not at_rest():
            if monotonic() > end:
                return False
            await follower.read()
            await importer.flush()
            each(importer, follower)
        return True
