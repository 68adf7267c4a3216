"""Rules of intake (1, 2, 3, 5) and of events (16, 20, 21, 22); 17, 18, 19 and 23 are in `story.Fold`."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.brands import BRAND
from schemas.merchants import MERCHANT
from schemas.shipping_report import LANE
from schemas.topics import TOPICS
from services.auditor.facts import ASIDE
from services.auditor.rules import Case, Verdict, Whole, WholeVerdict, order_rule, whole_rule
from services.auditor.story import OWNERS, Said, places

_READERS = {topic.name: topic.read_by for topic in TOPICS}
_TOPIC_OF = {owner: topic for topic, owner in OWNERS.items()}
_ANSWERS = ("OrderPlaced", "OrderRejected", "CommandRefused")


# -- intake -----------------------------------------------------------------------------------------------------------


@order_rule(1, "every accepted order exists exactly once", live=False)
def answered_once(case: Case) -> Iterator[Verdict]:
    for said in places(case.story):
        if said[:3] in case.dead:
            continue
        answers = [e for e in case.story.of("orders", *_ANSWERS) if e.cause == said.id]
        yield None if len(answers) == 1 else [str(said), f"{len(answers)} answers", *map(str, answers)]


@order_rule(1, "what was acknowledged to a client is on its topic", live=False, stock=True)
def acknowledged_is_there(case: Case) -> Iterator[Verdict]:
    there = {said.id for said in case.story.said.values()}
    for request in case.requests or ():
        if request.acknowledged:
            yield None if request.id in there else [str(request), "is on no topic"]


@order_rule(2, "a rejected order is nowhere", live=False)
def rejected_is_nowhere(case: Case) -> Iterator[Verdict]:
    rejected = case.story.of("orders", "OrderRejected")
    if rejected:
        traces = [str(e) for owner in ("payments", "shipping") for e in case.story.events[owner]]
        traces += [f"{service} has a row" for service in case.rows if service != "orders"]
        traces += [f"ledger entry {b.entry}" for b in case.ledger] + [f"provider line {c.line}" for c in case.provider or ()]
        yield [str(rejected[0]), *traces] if traces else None


@order_rule(3, "an unknown outcome is 0 or 1 orders")
def unknown_at_most_once(case: Case) -> Iterator[Verdict]:
    if unknown := [r for r in case.requests or () if r.type == "PlaceOrder" and not r.acknowledged]:
        born = case.story.of("orders", "OrderPlaced")
        yield None if len(born) <= 1 else [str(unknown[0]), *map(str, born)]


@order_rule(5, "nothing exists that no client sent", live=False)
def nothing_from_nowhere(case: Case) -> Iterator[Verdict]:
    story = case.story
    asked = places(story)
    if asked or story.said or case.rows or case.ledger or case.provider or story.all():
        yield None if asked else ["there is no PlaceOrder on orders.intake.v1", *_traces(case)]
    if case.requests is not None:
        sent = {request.id: request.content for request in case.requests}
        for said in asked:
            if said.id not in story.mended:
                yield _as_written(said, sent.get(said.id))
    for said in story.said.values():
        written = case.journals.messages.get(said.source.split("/")[1] if said.source.startswith("/") else "")
        if written is not None and said.id not in story.mended:
            yield _as_written(said, written.get(hash((said.source, said.id))))


def _traces(case: Case) -> list[str]:
    """Where an order was seen, a few examples."""
    seen = [str(e) for e in case.story.all()] + [str(said) for said in case.story.said.values()]
    seen += [f"{service} has a row ({row.status})" for service, row in case.rows.items()]
    seen += [f"ledger entry {b.entry}" for b in case.ledger]
    return (seen + [f"provider line {c.line}: {c.kind} {c.amount} {c.currency}" for c in case.provider or ()])[:5]


def _as_written(said: Said, content: str | None) -> Verdict:
    return None if content == said.content else [
        str(said), f"its sender's journal has {'no such message' if content is None else 'another content'}"]


# -- events -----------------------------------------------------------------------------------------------------------


@order_rule(16, "a path of the parcel, payment and declaration tables")
def path_of_parcels(case: Case) -> Iterator[Verdict]:
    yield from _paths(case, across=False)


@order_rule(16, "a path of the order and return tables", live=False)
def path_of_order(case: Case) -> Iterator[Verdict]:
    yield from _paths(case, across=True)


@order_rule(16, "who goes on although the order was cancelled says so", live=False)
def cancellation_is_answered(case: Case) -> Iterator[Verdict]:
    """Of a whole order: each parcel that goes on after it was told had said that it is too late."""
    told = {e.cause: {p for e2 in case.story.events["shipping"] if e2.cause == e.cause for p, _ in e2.parcels}
            for e in case.story.events["shipping"]}
    for event in case.story.of("orders", "CancellationRequested"):
        if event.data == "lines":
            continue
        answered = told.get(f"orders:{case.order_id}:{event.sequence}", set())
        wrong = [parcel_id for parcel_id, parcel in case.facts.parcels.items()
                 if parcel.goods in ("delivered", "lost") and not answered & {parcel_id, parcel.of}]
        yield [str(event), *(f"parcel {p} went on and never answered" for p in wrong)] if wrong else None


def _paths(case: Case, across: bool) -> Iterator[Verdict]:
    """`across`: machines whose events come from several topics, which are comparable only when all have been read."""
    if any(e.type not in ASIDE for e in case.story.all()):
        wrong = [why for machine, why in case.facts.broken if (machine in ("order", "return")) is across]
        yield from wrong or [None]


@order_rule(20, "every event has a cause that its service could read", live=False, stock=True)
def has_a_cause(case: Case) -> Iterator[Verdict]:
    story = case.story
    outside: dict[str, Said] = {said.id: said for said in story.said.values()}
    for owner, events in story.events.items():
        for event in events:
            cause = event.cause
            if cause.startswith("timer:"):
                right = cause.startswith(f"timer:{story.order_id}:")
            elif cause in case.places:
                right = owner in _READERS[_TOPIC_OF[case.places[cause][0]]]
            elif cause.startswith(f"orders:{MERCHANT}{story.merchant}:"):
                right = True  # how its merchant stands, which all three services hear of
            elif owner == "orders" and cause.startswith(f"orders:{BRAND}"):
                right = event.type in ("OrderHeld", "OrderResumed")
            elif owner == "shipping" and cause.startswith(f"shipping:{LANE}"):
                right = event.type in ("ParcelRerouted", "PromiseAtRisk")
            else:
                said = outside.get(cause)
                right = said is not None and owner in _READERS[said.topic]
            yield None if right else [str(event), f"its cause {cause!r} is on no topic that {owner} reads"]
    for said in outside.values():
        # What answers another order (goods for one that waits for stock) has its cause in another partition.
        source, _, rest = said.cause.partition(":")
        if source in _TOPIC_OF and rest.rpartition(":")[0] == story.order_id:
            yield None if said.cause in case.places else [str(said), f"its cause {said.cause!r} is on no topic"]


@order_rule(20, "causation is acyclic", live=False, stock=True)
def acyclic(case: Case) -> Iterator[Verdict]:
    """There is an order in which every event comes after its cause and after what its service said before."""
    story, place, moved = case.story, case.places, True
    done = dict.fromkeys(story.events, 0)
    while moved:
        moved = False
        for owner, events in story.events.items():
            while done[owner] < len(events):
                source, n = place.get(events[done[owner]].cause, ("", -1))
                if source and done[source] <= n:
                    break
                done[owner], moved = done[owner] + 1, True
    stuck = [events[done[owner]] for owner, events in story.events.items() if done[owner] < len(events)]
    yield [f"{e} waits for {e.cause}" for e in stuck] or None


@order_rule(21, "nothing on a topic that its service did not commit", stock=True)
def committed(case: Case) -> Iterator[Verdict]:
    for owner, events in case.story.events.items():
        if events:
            row = case.rows.get(owner)
            yield None if row and row.seq >= events[-1].sequence else [
                str(events[-1]), f"the database of {owner} has " + (f"sequence {row.seq}" if row else "no such order")]


@order_rule(21, "last sequences in the databases = last on the topics", live=False, stock=True)
def sequences_agree(case: Case) -> Iterator[Verdict]:
    last = {owner: events[-1].sequence if events else 0 for owner, events in case.story.events.items()}
    for service, row in case.rows.items():
        yield None if row.seq <= last[service] else [
            f"the database of {service} has sequence {row.seq}, {_TOPIC_OF[service]} ends at {last[service]}"]
        for source, seen in row.last.items():
            yield None if seen <= last.get(source, 0) else [
                f"{service} has seen sequence {seen} of {source}, whose topic ends at {last.get(source, 0)}"]


@whole_rule(22, "stored offsets are within their topics")
def offsets_within(whole: Whole) -> Iterator[WholeVerdict]:
    for (service, topic, partition), offset in whole.offsets.items():
        end = whole.ends.get((topic, partition), 0)
        yield None if 0 <= offset <= end else ("", [f"{service} has read {topic}/{partition} up to {offset}, it ends at {end}"])


@whole_rule(22, "what was read was settled, at each look during the run")
def nothing_passed_by(whole: Whole) -> Iterator[WholeVerdict]:
    for line in whole.passed:
        where = f"{line['topic']}/{line['partition']}"
        yield line["order"], [f"{line['passed']} said that it had read {where} up to {line['stored']}",
                              f"{where}@{line['offset']} was not applied, not parked and is no dead letter"]
    yield from (None for _ in range(whole.looked - len(whole.passed)))


@order_rule(30, "what was read once is never taken back", stock=True)
def reads_are_monotone(case: Case) -> Iterator[Verdict]:
    before: dict[str, dict] = {}
    for read in case.reads:
        earlier = before.get(read["service"])
        if earlier is not None:
            yield _not_back(read["service"], earlier["seq"], earlier["last"], read["seq"], read["last"], "later")
        before[read["service"]] = read
    for service, read in before.items():
        row = case.rows.get(service)
        yield _not_back(service, read["seq"], read["last"], row.seq if row else 0, row.last if row else {}, "now")


def _not_back(service: str, seq: int, last: dict[str, int], seq_then: int, last_then: dict[str, int], when: str) -> Verdict:
    back = [f"{service} had sequence {seq}, {when} {seq_then}"] if seq_then < seq else []
    back += [f"{service} had seen {source} up to {n}, {when} {last_then.get(source, 0)}" for source, n in last.items()
             if last_then.get(source, 0) < n]
    return back or None
