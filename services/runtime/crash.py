"""Crash points: named places around every step that touches a database, Kafka or the outside, at which a process can be
told to end.

    TRADEWIND_CRASH=batch.written:3,relay.sent:1 python -m services.orders.app

ends the process the third time it passes `batch.written`, or the first time it passes `relay.sent`: at once, with
EXIT_CRASHED and without any cleanup, as SIGKILL would. The count is the process's own and nothing is remembered, so a
restart without the variable runs on. A supervisor hands it to the first life of what it starts, and to no later one.

Unset, as always outside such a test, `point` is an empty function. A point does not belong into a loop over events.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

VARIABLE = "TRADEWIND_CRASH"
EXIT_CRASHED = 86  # no other exit code of ours, of Python or of a signal
EXIT_WRONG = 78  # EX_CONFIG of sysexits.h: what `VARIABLE` says cannot be done

# Name -> what must hold there, and so after the restart. tests/test_crash.py compares it with the source.
POINTS = {
    # A session of a service with Kafka, and the claim of a partition.
    "session.producer_started": "nothing is read or claimed yet",
    "session.subscribed": "a member of the group without partitions: the session's end gives them to the next",
    "session.assigned": "partitions are ours at the broker; no owner has claimed, so nothing may be read",
    "session.owners_ended": "every batch is committed or rolled back; events may still stand in the outbox",
    "owner.connected": "a database session without a claim: the former owner is still the owner",
    "owner.claimed": "the epoch is raised: the former owner can commit nothing; the next claim raises it again",
    "owner.offsets_read": "nothing is sought yet; the next owner reads the same offsets",
    "owner.standing_read": "nothing is changed by reading how merchants stand",
    "owner.topics_checked": "nothing is changed by looking at the topics' ends",
    "owner.sought": "Kafka may fetch from here; the offsets in the database alone decide where the next owner reads",
    "owner.outbox_read": "what an earlier owner committed is not sent yet, and is sent by the next in the same order",
    "owner.outbox_queued": "what an earlier owner committed may be sent or not; the next sends it again, as repetitions",
    "owner.intents_queued": "calls of an earlier owner may be made or not; the next makes them again, with the same keys",
    # One batch.
    "owner.fetched": "records are in memory only; the offsets say that they were not read",
    "owner.timers_read": "due timers still stand in their table",
    "owner.loaded": "reading orders changes nothing",
    "batch.fenced": "the transaction holds the partition's row; its end lets go of it",
    "batch.shared_locked": "the transaction holds rows that other partitions want too; its end lets go of them",
    "batch.decided": "what was decided is in memory only",
    "batch.written": "after the restart all of the batch is there, or, where its transaction was open, nothing of it",
    "batch.committed": "the batch is there, its offsets too; its events stand in the outbox, its calls among the intents",
    "batch.relayed": "events may be at the broker or not; the outbox has them until a later transaction",
    "batch.submitted": "calls may be made or not; the intents stay until their answers are applied",
    "owner.tidied": "the outbox is without what the broker acknowledged; skipped records are behind us",
    "owner.overdue_read": "what waited too long is still parked",
    # From the outbox to the broker.
    "relay.taken": "the batch is committed and not sent: the next owner sends it",
    "relay.between_topics": "one topic has its part of a batch, another not: the next owner sends both parts again",
    "relay.in_flight": "the producer has the records; whether the broker has them nobody knows, so they are sent again",
    "relay.sent": "the broker has the batch, the outbox still too: it is sent again, and readers drop it",
    # Topics and tables.
    "topics.checked": "some topics may be missing; the next start makes them",
    "topics.created": "topics may exist without leaders; the next start waits for them",
    "migrate.begun": "the database is as it was",
    "migrate.written": "all of the migration is there after the restart, or nothing of it",
    "migrate.committed": "the database is up to date; a second migration changes nothing",
    # Calls of payments to the provider, and the answers.
    "effects.asked": "the call was not made; the intent makes the next owner's caller make it",
    "effects.answered": "the provider has done it, nobody here knows: the same key gets the same answer again",
    "effects.pending": "the provider works on it; its webhook or the next call with the same key brings the answer",
    "effects.publishing": "the answer is in memory only: the same key gets it again",
    "effects.in_flight": "whether the topic has the answer nobody knows: it is published again under the same id",
    "effects.published": "the answer is on the topic, its intent still there: a second answer is a repetition",
    "webhook.verified": "nothing is published and 200 was not said: the provider sends the webhook again",
    "webhook.published": "the answer is on the topic, 200 was not said: the webhook comes again, as a repetition",
    # The outside world: what its journals say must stay true without help of those who are audited by them.
    "provider.deciding": "no line in the journal: nothing has happened, and the same key may be asked again",
    "provider.journaled": "the line is there, nobody was told: after its restart the provider gives the same answer",
    "provider.waiting": "a pending call is noted, nobody was told: after its restart it is still pending",
    "world.deciding": "nothing is said and no line written: the event is heard again after the restart",
    "world.journaled": "the line is there without its message: the message is said after the restart, with a second line",
    "world.sent": "the message is there, the group's offset is not moved: it is said again, byte for byte the same",
    "world.committed": "the offset is moved past events that are all answered",
    # Clients at the edge.
    "edge.sending": "nothing is sent, and the journal does not say so either",
    "edge.journaled": "the journal says `sent` of what was not sent: its outcome is unknown to the client",
    "edge.in_flight": "the journal says `sent`; whether the broker has it nobody knows",
    "edge.sent": "the broker has acknowledged, the journal does not say so: its outcome is unknown to the client",
    "edge.acknowledged": "the journal says `acknowledged`",
    "importer.anchored": "the file's first moment is noted: every later import of it says the same",
    "importer.stocked": "the warehouses are stocked; a second import's deliveries are repetitions",
    "importer.placed": "some orders are placed: a second import places them again, as repetitions",
}


class Wrong(Exception):
    """The variable names no point, or not in the form name:nth."""


def parse(text: str) -> dict[str, int]:
    """`name:nth[,name:nth…]` -> how many times each point is still to be passed. Raises Wrong, which says what there is."""
    left: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, nth = part.partition(":")
        if name not in POINTS:
            raise Wrong(f"no crash point is called {name!r}. There are: {', '.join(POINTS)}")
        if not nth.isdecimal() or int(nth) < 1 or name in left:
            raise Wrong(f"{part!r} must be name:nth with nth from 1, each name once")
        left[name] = int(nth)
    return left


def armed(left: dict[str, int]) -> Callable[[str], None]:
    """A `point` that counts down, and ends the process at zero."""
    def point(name: str) -> None:
        if name in left:
            left[name] -= 1
            if left[name] == 0:
                os.write(2, f"crash point {name}\n".encode())  # not through a buffer: nothing is flushed any more
                os._exit(EXIT_CRASHED)
    return point


def _from_environment() -> Callable[[str], None] | None:
    try:
        left = parse(os.environ.get(VARIABLE, ""))
    except Wrong as wrong:
        print(f"{VARIABLE}: {wrong}", file=sys.stderr)
        raise SystemExit(EXIT_WRONG) from None
    return armed(left) if left else None


def point(name: str) -> None:
    """A place where the process may be told to end; see the module's docstring."""


point = _from_environment() or point
