"""One order as its three services see it now: read from their databases, asked with their own pure machines."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import asyncpg
from pydantic_core import from_json

from schemas.envelope import type_of
from schemas.quotes import Quote
from services.cli.order_records import Event, database, reading
from services.cli.state import Folder
from services.orders.app import spec as orders_spec
from services.payments.app import spec as payments_spec
from services.runtime import clock
from services.runtime.clock import Clock
from services.runtime.decision import Impossible, NotYet, SharedMissing
from services.runtime.owner import parked_record
from services.runtime.settings import SERVICES, Settings
from services.runtime.spec import Spec
from services.shipping.app import spec as shipping_spec
from services.shipping.storage import Stock

SPECS = {"orders": orders_spec, "payments": payments_spec, "shipping": shipping_spec}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A record that a service keeps until `waits_for` happens. `since` is real time."""

    service: str
    type: str
    id: str
    topic: str
    offset: int
    since: datetime
    waits_for: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call to the payment provider without a definite answer yet. `made_at` is real time."""

    intent_id: str
    kind: str
    amount: int
    parcel_id: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """What one service knows. `state` is its machine's own (Order, Account, Shipment), so is the `document` beside it."""

    service: str
    status: str
    closed: bool
    sequence: int
    state: Any
    waiting: tuple[Waiting, ...] = ()
    calls: tuple[Call, ...] = ()
    document: Any = None


@dataclass(frozen=True, slots=True)
class Look:
    """The whole order. A service that has not heard of it yet has no view; `now` is trade time.

    `records`: how many of it lie on the topics, counted only where no service has heard of it.
    """

    order_id: str
    views: dict[str, View]
    now: datetime
    speed: float = 1.0
    waiting: tuple[Waiting, ...] = ()
    dead: list[Event] = field(default_factory=list)
    records: int = 0

    @property
    def known(self) -> bool:
        return bool(self.views or self.waiting or self.dead)

    def state(self, service: str) -> Any:
        view = self.views.get(service)
        return view.state if view else None

    @property
    def quote(self) -> Quote | None:
        """The landed cost that orders froze with the order."""
        view = self.views.get("orders")
        return view.document.quote if view and view.document else None

    @property
    def parcels(self) -> list[str]:
        """Every parcel that anybody knows of."""
        known = {}
        for service, name in (("shipping", "parcels"), ("orders", "parcels"), ("payments", "holds")):
            known |= dict.fromkeys(getattr(self.state(service), name, ()))
        return list(known)

    @property
    def timers(self) -> list[tuple[datetime, str, str]]:
        """(due in trade time, service, name), the next first."""
        return sorted((due, service, name) for service, view in self.views.items() for name, due in view.state.timers.items())


async def look(settings: Settings, order_id: str, dead_letters: bool = True) -> Look:
    """Read all three databases and the dead letters; not in one moment, so that a running order may look torn.

    Raises NotRunning.
    """
    now = running_clock(settings)
    found = await asyncio.gather(*(_view(settings, service, order_id, now.now()) for service in SERVICES))
    dead: list[Event] = []
    if dead_letters:
        async with reading(settings, [order_id], dead_only=True) as reader:
            dead = await reader.to_end()
    views = {view.service: view for view, _ in found if view is not None}
    return Look(order_id, views, now.now(), now.speed, tuple(w for _, waiting in found for w in waiting), dead)


def running_clock(settings: Settings) -> Clock:
    return clock.running(Folder(settings.data_folder).clock)


async def _view(settings: Settings, service: str, order_id: str, now: datetime) -> tuple[View | None, list[Waiting]]:
    """The service's view, and what it keeps back; it may keep something of an order it does not know yet."""
    async with database(settings, service) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(
            "SELECT o.status, o.closed, o.seq, o.state::text, d.body::text FROM orders o"
            " LEFT JOIN documents d USING (order_id) WHERE o.order_id = $1", order_id)
        calls = await connection.fetch(
            "SELECT intent_id, kind, body::text, made_at FROM intents WHERE order_id = $1 ORDER BY made_at", order_id)
        parked = await connection.fetch(
            "SELECT order_id, topic, at_offset, source, sequence, id, headers, value, parked_at, dead FROM parked WHERE order_id = $1"
            " ORDER BY parked_at", order_id)
    spec: Spec = SPECS[service](settings)  # only now: it makes a vault key where there is none
    state = spec.state_type.validate_json(row["state"]) if row else spec.new_state(order_id)
    document = spec.document_type.validate_json(row["body"]) if row and row["body"] and spec.document_type else None
    waiting = [_waiting(spec, state, document, order_id, p, now) for p in parked]
    if row is None:
        return None, waiting
    return View(service, row["status"], row["closed"], row["seq"], state, tuple(waiting),
                tuple(_call(c) for c in calls), document), waiting


def _call(row: asyncpg.Record) -> Call:
    body = from_json(row["body"])
    return Call(row["intent_id"], row["kind"], body.get("amount", 0), body.get("parcel_id", ""), row["made_at"])


def _waiting(spec: Spec, state: Any, document: Any, order_id: str, row: asyncpg.Record, now: datetime) -> Waiting:
    record = parked_record(spec, row)
    assert record is not None and record.incoming is not None, "only what a service can read is parked"
    if record.dead:
        name = (type_of(record.headers) or b"?").decode(errors="replace")
        return Waiting(spec.name, name, row["id"], row["topic"], row["at_offset"], row["parked_at"],
                       f"somebody decides about it: it is a dead letter ({row['dead']}; `tradewind dlq list --order {order_id}`)")
    return Waiting(spec.name, record.incoming.type, row["id"], row["topic"], row["at_offset"], row["parked_at"],
                   waits_for(spec, state, document, record.incoming, now))


def waits_for(spec: Spec, state: Any, document: Any, incoming: Any, now: datetime) -> str:
    """Why the service keeps this record: its own machine is asked once more, and nothing is done with the answer."""
    try:
        answer = spec.decide(state, document, incoming, Stock(set(), []), now)
    except SharedMissing:
        return "a lock on its stock"
    except Impossible as why:
        return f"nothing: it will become a dead letter ({why.reason})"
    if isinstance(answer, NotYet):
        return answer.waiting_for
    return f"something earlier from {incoming.source or 'its source'}"
