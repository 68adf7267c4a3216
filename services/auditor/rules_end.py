"""Rules of the end, 24 to 26: everything has come to rest, and everybody tells the same. None of them holds in a live run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from schemas.lifecycle import DECLARATION, ORDER, PARCEL, PAYMENT, deadlines
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule
from services.auditor.kept import Money
from services.auditor.story import Event, Story

SERVICES = ("orders", "payments", "shipping")
_GOODS_END = {"cancelled", "delivered", "returned", "destroyed", "lost"}
_MONEY = ("captured", "held", "released", "refunded", "charged_back", "recovered")


@order_rule(24, "every order has ended", live=False)
def has_ended(case: Case) -> Iterator[Verdict]:
    """One verdict an order: what stands still in one place stands still in all."""
    facts, story = case.facts, case.story
    if not story.events["orders"]:
        return
    open_ = [] if facts.states & ORDER.terminal else [f"the order is {' or '.join(sorted(facts.states))}"]
    machine = PARCEL.get(facts.regime)
    for parcel_id, parcel in facts.parcels.items():
        goods = machine is None or parcel.goods in machine.terminal
        if not goods or parcel.money not in PAYMENT.terminal or parcel.held:
            open_.append(f"parcel {parcel_id}: goods {parcel.goods}, money {parcel.money}, held {parcel.held}")
        # Papers of a parcel that turned back on its way are never decided about; those of a delivered one are.
        if facts.regime != "domestic" and parcel.goods == "delivered" and parcel.paper not in DECLARATION.terminal:
            open_.append(f"parcel {parcel_id} is delivered, its papers are {parcel.paper}")
    open_ += [f"the database of {service} has it {row.status!r}, not closed"
              for service, row in case.rows.items() if not row.closed]
    last = [f"last: {events[-1]}" for events in story.events.values() if events]
    yield [*open_, *last] if open_ else None


@order_rule(24, "nothing is open in an order that has ended", live=False)
def nothing_open_at_the_end(case: Case) -> Iterator[Verdict]:
    """At each of its ends: every return was answered, every dispute decided. One clock for all services."""
    story = case.story
    returns: dict[str, Event] = {}
    disputes: dict[str, Event] = {}
    for event in story.events["orders"]:
        if event.type == "ReturnRequested":
            returns[event.data] = event
        elif event.type == "ReturnExpired":
            returns.pop(event.data, None)
        elif event.type == "DisputeOpened":
            disputes[event.parcels[0][0]] = event
        elif event.type == "DisputeResolved":
            disputes.pop(event.parcels[0][0], None)
        elif event.type in ("OrderCompleted", "OrderCancelled"):
            open_ = [r for return_id, r in returns.items() if not _answered(story, return_id, event)]
            yield [str(event), *(f"{e} is still open" for e in [*open_, *disputes.values()])] if open_ or disputes else None


def _answered(story: Story, return_id: str, end: Event) -> bool:
    """The money of a return moved before this end, or it came to nothing."""
    paid = [e for e in story.events["payments"] if isinstance(e.data, Money) and return_id in (e.data.ref, *e.data.dropped)]
    worthless = [e for e in story.of("shipping", "ReturnReceived") if e.data.ref == return_id and not e.data.refund]
    return any(e.time <= end.time for e in [*paid, *worthless, *story.of("payments", "PaymentChargedBack", "ChargebackLost")])


@order_rule(25, "databases agree with the events", live=False)
def databases_agree(case: Case) -> Iterator[Verdict]:
    story, facts = case.story, case.facts
    if not story.events["orders"]:
        return
    wanted = SERVICES if facts.placed else ("orders",)
    for service in wanted:
        row = case.rows.get(service)
        yield None if row else [f"the database of {service} does not have the order"]
    if "orders" in case.rows:
        yield from _orders(case)
    if facts.parcels:
        if "payments" in case.rows:
            yield from _payments(case)
        if "shipping" in case.rows:
            yield from _shipping(case)


def _orders(case: Case) -> Iterator[Verdict]:
    row, facts = case.rows["orders"], case.facts
    yield None if row.status in facts.states else [f"orders has {row.status!r}, the events say {sorted(facts.states)}"]
    stored = row.state.get("parcels", {})
    yield None if stored.keys() == facts.parcels.keys() else [f"orders has parcels {sorted(stored)}, not {sorted(facts.parcels)}"]
    for parcel_id in stored.keys() & facts.parcels.keys():
        parcel, have = facts.parcels[parcel_id], stored[parcel_id]
        goods = parcel.goods if parcel.goods in _GOODS_END else "open"
        # While money moves the two may differ: orders does not hear of every step.
        money = parcel.money if parcel.money in PAYMENT.terminal else have.get("money")
        yield None if (have.get("goods"), have.get("money")) == (goods, money) else [
            f"parcel {parcel_id}: orders has {have.get('goods')}/{have.get('money')}, the events say {goods}/{money}"]


def _payments(case: Case) -> Iterator[Verdict]:
    stored, parcels = case.rows["payments"].state.get("holds", {}), case.facts.parcels
    yield None if stored.keys() == parcels.keys() else [f"payments has holds {sorted(stored)}, not {sorted(parcels)}"]
    for parcel_id in stored.keys() & parcels.keys():
        have, told = stored[parcel_id], parcels[parcel_id].totals
        wrong = [f"{name}: payments has {have.get(name)}, the events say {told[name]}" for name in _MONEY
                 if have.get(name) != told[name]]
        if have.get("status") != parcels[parcel_id].money:
            wrong.append(f"payments has {have.get('status')!r}, the events say {parcels[parcel_id].money!r}")
        yield [f"parcel {parcel_id}", *wrong] if wrong else None


def _shipping(case: Case) -> Iterator[Verdict]:
    stored, parcels = case.rows["shipping"].state.get("parcels", {}), case.facts.parcels
    yield None if stored.keys() == parcels.keys() else [f"shipping has parcels {sorted(stored)}, not {sorted(parcels)}"]
    for parcel_id in stored.keys() & parcels.keys():
        have, told = stored[parcel_id].get("status"), parcels[parcel_id].goods
        yield None if have == told else [f"parcel {parcel_id}: shipping has {have!r}, the events say {told!r}"]


@whole_rule(25, "every booking has an order, every order its document and persons")
def no_strangers(whole: Whole) -> Iterator[WholeVerdict]:
    """One verdict in all: what is looked for is what has no order to be counted by."""
    yield from [(order_id, [where]) for where, order_id in whole.strangers] or [None]


@whole_rule(26, "nothing waits to be read", live=False)
def no_lag(whole: Whole) -> Iterator[WholeVerdict]:
    for (service, topic, partition), offset in whole.offsets.items():
        end = whole.ends.get((topic, partition), 0)
        yield None if offset >= end else ("", [f"{service} has read {topic}/{partition} up to {offset} of {end}"])


@whole_rule(26, "outbox empty", live=False)
def outbox_is_empty(whole: Whole) -> Iterator[WholeVerdict]:
    for (service, partition), rows in whole.outbox.items():
        yield None if rows == 0 else ("", [f"{service} partition {partition}: {rows} batches were never sent"])


@whole_rule(26, "nothing parked, no call without an answer", live=False)
def nothing_is_left(whole: Whole) -> Iterator[WholeVerdict]:
    yield from [(order_id, [f"{service} still has parked: {what}"]) for service, order_id, what in whole.parked] or [None]
    yield from [(order_id, [f"{service} waits for the answer to {what}"]) for service, order_id, what in whole.intents] or [None]


@whole_rule(26, "no timer is overdue", live=False)
def no_timer_is_overdue(whole: Whole) -> Iterator[WholeVerdict]:
    """Trade time is at least that of the newest event."""
    late = [t for t in whole.timers if whole.newest is not None and t[2] <= whole.newest]
    yield from [(order_id, [f"{service} wanted to wake it at {due}; events go on to {whole.newest}"])
                for service, order_id, due in late] or [None]


@whole_rule(26, "no timer of an order that has ended", live=False)
def no_timer_is_needless(whole: Whole) -> Iterator[WholeVerdict]:
    yield from [(order_id, [f"{service} would wake it, although it has ended"])
                for service, order_id in whole.needless] or [None]


# What ends a wait, by the event that begins it; the deadline's name in schemas.lifecycle.
_WAITS = (
    ("ParcelsAllocated", "reservation",
     ("PaymentAuthorised", "PaymentHeld", "PaymentDeclined", "PaymentVoided", "ParcelCancelled")),
    ("PaymentAuthorised", "authorisation", ("PaymentHeld", "PaymentVoided", "PaymentExpired")),
    ("CustomsPresented", "customs", ("CustomsReleased", "CustomsRefused", "ParcelReturning", "ParcelDestroyed", "ParcelLost")),
    ("ParcelAtPickup", "pickup", ("ParcelDelivered", "ParcelReturning", "ParcelDestroyed", "ParcelLost")),
    ("PackingHeld", "packing_hold", ("PackingResumed", "PackingStarted", "ParcelPacked", "ParcelCancelled")),
    ("CancellationAsked", "cancellation_answer",
     ("CancellationDeclined", "InterceptRequested", "ParcelLinesCancelled", "ParcelCancelled", "ParcelDestroyed")),
)


@order_rule(26, "no deadline was missed", live=False)
def deadlines_were_kept(case: Case) -> Iterator[Verdict]:
    """What ended later than its deadline and the grace was not ended by it. What never ended is seen by 24."""
    for parcel_id, parcel in case.facts.parcels.items():
        for begin, name, ends in _WAITS:
            ended = min((parcel.first[end] for end in ends if end in parcel.first), default=None)
            if begin in parcel.first and ended is not None:
                late = ended - parcel.first[begin] - timedelta(seconds=deadlines()[name]) - case.grace
                yield None if late <= timedelta() else [
                    f"parcel {parcel_id}: {begin} at {parcel.first[begin]}, ended {ended}, {late} after the {name} deadline"]


@whole_rule(29, "the operators' views = the fold of the events", live=False)
def views_are_the_events(whole: Whole) -> Iterator[WholeVerdict]:
    """Of views that say themselves that they are exact; after a restart they do not, until they are rebuilt."""
    views, right = whole.views, whole.funnel
    if views is None or not views["exact"] or views["behind"] != 0:
        return
    told = {"reached": {s["stage"]: s["reached"] for s in views["stages"]}, "ended": views["ended"], "exits": views["exits"],
            "held": views["held"]}
    for name, sums in told.items():
        folded = getattr(right, name)
        wrong = [f"{key}: views {sums.get(key, 0)}, events {folded[key]}" for key in sorted(sums.keys() | folded.keys())
                 if sums.get(key, 0) != folded[key]]
        yield ("", [name, *wrong]) if wrong else None
