"""Publishing a wish about an order, and waiting for what the services say to it.

Every command gets an answer: an event that names it as its cause, a CommandRefused, a place among what waits, a dead
letter, or, where it changes nothing, silence that can be told from slowness by the offsets in the orders' database.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.errors import KafkaError
from pydantic_core import from_json

from schemas.brands import BRAND
from schemas.merchants import MERCHANT
from schemas.orders_intake import PlaceOrder
from schemas.topics import INTAKE, ORDER, SHIPMENT
from services.cli.order_place import same_but_for_time
from services.cli.order_records import Event, Reader, database, not_running, reading, wait_for
from services.cli.order_state import look, running_clock
from services.cli.output import Refused
from services.cli.timeline import ENDS, ended, weave
from services.runtime.processes import StartError
from services.runtime.settings import Settings
from services.simulators.edge import Publisher, Record, inbound_for, place_id, place_record, record_of, registrations_for

STOCKED_WITHIN_S = 15.0
_SHIPPING_WITHIN_S = 5.0
Tell = Callable[[Event], None]

REMEDIES = {
    "unknown_order": "Check the id; `tradewind order place` prints that of a new order.",
    "order_exists": "Choose another --id or --key, or look at the first with `tradewind order show`.",
    "id_reused": "Choose another --key: this one was used with other content.",
    "already_closed": "Within the market's window: `tradewind order return`; later the merchant may: `tradewind order refund`.",
    "already_delivered": "Ask for a return instead: `tradewind order return`.",
    "unknown_parcel": "`tradewind order show` lists the order's parcels.",
    "not_delivered": "Wait for the delivery; `tradewind order show` says what must happen next.",
    "in_dispute": "Wait for the arbiter: `tradewind order resolve`.",
    "no_dispute": "Open one first: `tradewind order dispute`.",
    "busy": "Wait until that has ended; `tradewind order show` says what it waits for.",
    "return_window_over": "The merchant may still give money back: `tradewind order refund`.",
    "nothing_to_dispute": "Only a paid parcel that was not undone can be disputed.",
    "parcel_needed": "Name it with --parcel.",
    "unknown_line": "`tradewind order timeline` shows the order's lines.",
    "too_many": "Ask for fewer units.",
    "not_in_review": "`tradewind order show` says how it stands; only an order in review is decided about.",
    "no_real_name_asked": "`tradewind order show` says what it waits for.",
    "merchant_new": "Nothing is known of this merchant: `tradewind merchant register`.",
    "left_already": "Ask for it back: `tradewind order cancel`, or complain: `tradewind inspect complain`.",
    "never_accepted": "`tradewind order show` says why the order was refused.",
    "brand_new": "Protect the brand first: `tradewind merchant brand register`.",
    **dict.fromkeys(("brand_protected", "authorisation_exists", "unknown_authorisation", "revoked_before", "brand_not_authorised"),
                    "`tradewind merchant brand show` has the brand's owner and all authorisations."),
    "unknown_sku": "`tradewind merchant show --json` has the catalogue.",
    **dict.fromkeys(("merchant_applied", "merchant_active", "merchant_frozen", "merchant_closed", "merchant_refused"),
                    "`tradewind merchant show` says how the merchant stands."),
    "declined": "The parcel goes on; once it is delivered: `tradewind order return`.",
}
_SEE_TIMELINE = "Look at `tradewind order timeline`, correct it and try again with another id."


class NoAnswer(StartError):
    """The wish was published, but no answer came in time; it is not lost and will be answered."""


def refused(reason: str, detail: str, order_id: str) -> Refused:
    return Refused(f"{reason}: {detail}" if detail else reason, f"order {order_id}", REMEDIES.get(reason, _SEE_TIMELINE))


@dataclass(frozen=True, slots=True)
class Answer:
    """`status`: accepted, waiting (`detail`: until what) or unchanged. `then`: what shipping said to a cancellation.

    `repeated`: the same wish had been sent before.
    """

    status: str
    events: tuple[Event, ...] = ()
    then: tuple[Event, ...] = ()
    detail: str = ""
    repeated: bool = False


# -- commands ---------------------------------------------------------------------------------------------------------


async def ask(settings: Settings, message: Any, *, id: str, keyed: bool, timeout_s: float) -> Answer:
    """Publish a command about an existing order and wait for its answer. With `keyed`, the same `id` again is not sent twice.

    Raises Refused with the named reason, NotRunning, NoAnswer.
    """
    order_id = message.order_id
    async with reading(settings, [order_id], (INTAKE, ORDER, SHIPMENT), from_start=keyed) as reader:
        merchant, sequence = await _known(settings, order_id)
        earlier = await reader.to_end() if keyed else []
        sent = next((e for e in earlier if e.topic == INTAKE.name and e.id == id), None)
        record = record_of(message, id=id, time=running_clock(settings).now(), merchant=merchant, correlation=place_id(order_id))
        if sent is None:
            await publish(settings, [record])
        elif (sent.type, sent.data) != (type(message).__name__, from_json(record.value)):
            raise refused("id_reused", f"{id} was used for another {sent.type}", order_id)
        wait = _Wait(settings, reader, record, earlier, sequence if sent is None else 0)
        return replace(await wait.answer(timeout_s), repeated=sent is not None)


async def _known(settings: Settings, order_id: str) -> tuple[str, int]:
    """(merchant, last sequence of orders' events). Raises Refused for an order that was never placed."""
    async with database(settings, "orders") as connection:
        row = await connection.fetchrow("SELECT state->>'merchant_id', seq FROM orders WHERE order_id = $1", order_id)
    if order_id.startswith(MERCHANT):  # whoever is named may register, and may be stopped
        return order_id.removeprefix(MERCHANT), row[1] if row is not None else 0
    if order_id.startswith(BRAND):
        return "", row[1] if row is not None else 0
    if row is not None:
        return row[0], row[1]
    # Placed, but still ahead of the orders service: then it is on the topic.
    async with reading(settings, [order_id], (INTAKE,)) as reader:
        for event in await reader.to_end():
            if event.type == "PlaceOrder" and event.dead is None:
                return event.data.get("merchant_id", ""), 0
    raise unknown(order_id)


def unknown(order_id: str) -> Refused:
    return refused("unknown_order", "no order with this id was ever placed", order_id)


@dataclass
class _Wait:
    """Waiting for the answer to `record`. `sequence`: the last event of orders that cannot be the answer."""

    settings: Settings
    reader: Reader
    record: Record
    heard: list[Event]
    sequence: int

    async def answer(self, timeout_s: float) -> Answer:
        """Raises Refused, NoAnswer, NotRunning."""
        end = time.monotonic() + timeout_s
        state, order_id = "", self.record.message.order_id
        while True:
            found = _of_events(self.heard, self.record.id, order_id)
            if found is not None:
                return replace(found, then=await self._shipping_says(found.events)) if found.events else found
            if state == "waiting":
                return Answer("waiting", detail=await _waits_for(self.settings, order_id, self.record.id))
            if state == "done":
                return Answer("unchanged")
            if time.monotonic() > end:
                raise NoAnswer(f"orders has not answered {self.record.id} within {timeout_s:g} s", f"order {order_id}",
                               "The command is not lost. See `tradewind status`, then `tradewind order show`.")
            self.heard += await self.reader.more(100)
            state = await self._progress()

    async def _progress(self) -> str:
        """What orders has done with the record, by its database: "waiting", "done" (and said nothing), or "" (not read yet,
        or what it said is still on its way to the topic)."""
        sent = next((e for e in self.heard if e.topic == INTAKE.name and e.id == self.record.id), None)
        if sent is None:
            return ""
        async with database(self.settings, "orders") as connection:
            row = await connection.fetchrow(
                "SELECT (p.offsets->>$2)::bigint AS next, o.seq, EXISTS"
                " (SELECT FROM parked WHERE order_id = $3 AND id = $4) AS parked"
                " FROM partitions p LEFT JOIN orders o ON o.order_id = $3 WHERE p.partition = $1",
                sent.partition, INTAKE.name, self.record.message.order_id, self.record.id)
        if row is None or row["next"] is None or row["next"] <= sent.offset:
            return ""
        if row["parked"]:
            return "waiting"
        heard = max((e.sequence for e in self.heard if e.topic == ORDER.name), default=0)
        return "done" if row["seq"] is not None and row["seq"] <= max(heard, self.sequence) else ""

    async def _shipping_says(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """To a cancellation: shipping alone knows where the goods are. Its answers to one event come together."""
        asked = {e.id for e in events if e.type == "CancellationRequested"}
        if not asked:
            return ()
        found: list[Event] = []

        def take(events: list[Event]) -> bool:
            found.extend(e for e in events if e.topic == SHIPMENT.name and e.causation in asked)
            return bool(found)

        if not take(self.heard):
            await wait_for(self.reader, _SHIPPING_WITHIN_S, take)
        return tuple(found)


def _of_events(heard: list[Event], id_: str, order_id: str) -> Answer | None:
    """The answer as far as the topics tell it. Raises Refused."""
    mine = [e for e in heard if e.topic == ORDER.name and e.causation == id_ and not e.repeats]
    for event in mine:
        if event.type == "CommandRefused":
            raise refused(event.data.get("reason", "refused"), event.data.get("detail", ""), order_id)
    for event in heard:
        if event.dead and event.id == id_ and event.topic == INTAKE.dlq:
            raise refused(*event.dead, order_id)
    return Answer("accepted", tuple(mine)) if mine else None


async def _waits_for(settings: Settings, order_id: str, id_: str) -> str:
    seen = await look(settings, order_id, dead_letters=False)
    return next((w.waits_for for w in seen.waiting if w.id == id_), "the order's next change")


async def publish(settings: Settings, records: list[Record], journal: str = "client-order") -> None:
    """Through the edge, with a journal of our own: another client may be writing to the importer's. Raises NotRunning."""
    try:
        async with Publisher(settings.bootstrap, settings.data_folder / "journals" / f"{journal}.ndjson") as publisher:
            await publisher.send(records)
    except KafkaError as error:
        raise not_running(settings, f"Kafka did not take it ({type(error).__name__})") from error


# -- placing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placed:
    """`status`: sent, accepted, or how it ended (completed, cancelled). `reason` of a cancelled one."""

    status: str
    reason: str = ""
    repeated: bool = False


async def place(settings: Settings, order: PlaceOrder, *, stock: bool, given_id: bool, until: str, timeout_s: float,
                tell: Tell) -> Placed:
    """Place an order and follow it `until` "sent", "accepted" or "completed". `given_id`: it may have been placed before; the
    same content is then not placed twice.

    Raises Refused (rejected at intake, or another order has the id), NoAnswer, NotRunning.
    """
    async with reading(settings, [order.order_id], from_start=given_id) as reader:
        heard = await reader.to_end() if given_id else []
        first = next((e for e in heard if e.type == "PlaceOrder" and e.dead is None), None)
        if first is not None and not same_but_for_time(order, first.data):
            raise refused("order_exists", "another order was placed with this id before", order.order_id)
        if first is None:
            if stock:
                await _stock(settings, order, timeout_s)
            await _brands(settings, order, timeout_s)
            await publish(settings, [place_record(order)])
        for event in heard:
            tell(event)
        status, reason = await _follow(reader, heard, order.order_id, until, timeout_s, tell)
        return Placed(status, reason, repeated=first is not None)


async def _follow(reader: Reader, heard: list[Event], order_id: str, until: str, timeout_s: float, tell: Tell) -> tuple[str, str]:
    def reached(events: list[Event]) -> bool:
        for event in events:
            tell(event)
        heard.extend(events)
        return _stage(weave(heard), order_id) in ("accepted", "ended")[until == "completed":]

    if until != "sent" and not reached([]) and not await wait_for(reader, timeout_s, reached):
        raise NoAnswer(f"the order is not {until} within {timeout_s:g} s", f"order {order_id}",
                       "It goes on all the same. See `tradewind order show`, and `tradewind status`.")
    end = ended(weave(heard))
    if end is not None and until == "completed":
        return ENDS[end.type], end.data.get("reason", "")
    return ("sent" if until == "sent" else "accepted"), ""


def _stage(events: list[Event], order_id: str) -> str:
    """"" (no answer yet), "accepted" or "ended". Raises Refused for an order that was rejected, or is a dead letter."""
    for event in events:
        if event.type == "OrderRejected" and not event.dead:
            raise refused(event.data.get("reason", "rejected"), event.data.get("detail", ""), order_id)
        if event.dead and event.id == place_id(order_id):
            raise refused(*event.dead, order_id)
    if ended(events):
        return "ended"
    return "accepted" if any(e.type == "OrderPlaced" for e in events) else ""


async def _brands(settings: Settings, order: PlaceOrder, timeout_s: float) -> None:
    """Register the brand of an order whose scenario is about one."""
    records = list(registrations_for([order], running_clock(settings).now()))
    if not records:
        return
    missing = {record.id for record in records}

    def known(events: list[Event]) -> bool:
        missing.difference_update(e.causation for e in events)
        return not missing

    async with reading(settings, [records[0].key.decode()], (ORDER,), from_start=False) as reader:
        await publish(settings, records)
        if not await wait_for(reader, timeout_s, known):
            raise NoAnswer("orders has not taken the brand's registration", f"order {order.order_id}",
                           "The order was not placed. See `tradewind status`.")


async def _stock(settings: Settings, order: PlaceOrder, timeout_s: float) -> None:
    """Bring what the order needs to the warehouses, and wait until shipping has it on the shelf."""
    records = list(inbound_for([order], batch=f"order:{order.order_id}", time=running_clock(settings).now()))
    missing = {record.id for record in records}
    if not records:
        return

    def arrived(events: list[Event]) -> bool:
        missing.difference_update(e.causation for e in events if e.type == "StockReceived")
        return not missing

    async with reading(settings, [r.key.decode() for r in records], (SHIPMENT,), from_start=False) as reader:
        await publish(settings, records)
        if not await wait_for(reader, max(timeout_s, STOCKED_WITHIN_S), arrived):
            raise NoAnswer(f"shipping has not taken the stock: {', '.join(sorted(missing))}", f"order {order.order_id}",
                           "The order was not placed. See `tradewind status`.")
