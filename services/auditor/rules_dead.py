"""Rule 27: dead letters are exactly what was planted, for the right reasons, whole; and nobody waits but behind one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from schemas.dead_letters import Reason
from services.auditor.rules import Whole, WholeVerdict, whole_rule


@whole_rule(27, "dead letters are those that were planted")
def dead_letters_expected(whole: Whole) -> Iterator[WholeVerdict]:
    """By the journal of whoever planted them, record by record; without one, their number."""
    if whole.planted is not None:
        yield from _by_journal(whole)
        return
    found = whole.dead_letters
    if len(found) == whole.expected_dead_letters:
        yield from (None for _ in found or (0,))
        return
    reasons = Counter(letter.reason for letter in found)
    for letter in found:
        yield letter.order_id, [str(letter), f"{len(found)} dead letters {dict(reasons)}, {whole.expected_dead_letters} expected"]
    if not found:
        yield "", [f"no dead letter, {whole.expected_dead_letters} expected"]


def _by_journal(whole: Whole) -> Iterator[WholeVerdict]:
    """What a person replayed is no plant of anybody's: it may come back for any reason."""
    found = {letter[:4]: letter for letter in whole.dead_letters if not letter.replayed}
    for where, expected in whole.planted.items():
        for service, reason in expected.items():
            letter = found.pop((*where, service), None)
            if letter is None:
                waits = whole.live or reason == Reason.PARKED_TOO_LONG and (service, *where) in whole.waiting
                yield None if waits else ("", [f"{_text(where)} was planted as {reason} for {service}, and is no dead letter"])
            else:
                yield None if letter.reason == reason else (letter.order_id, [str(letter), f"planted as {reason}"])
    for letter in found.values():
        yield letter.order_id, [str(letter), "nobody planted it"]


@whole_rule(27, "a dead letter has a reason of the list, and the bytes of the record at its coordinates", live=False)
def dead_letters_are_whole(whole: Whole) -> Iterator[WholeVerdict]:
    known = set(Reason)
    for letter in whole.dead_letters:
        wrong = [] if letter.reason in known else [f"{letter.reason!r} is no reason"]
        if letter.topic != "timer":
            there = whole.originals.get(letter[:3])
            if there is None:
                wrong.append("there is no record at its coordinates")
            elif letter.content not in ("", there):
                wrong.append("its key, value or headers are not those of the record")
        yield (letter.order_id, [str(letter), *wrong]) if wrong else None
    if not whole.dead_letters:
        yield None


@whole_rule(27, "nobody waits for a person but behind a dead letter", live=False)
def who_waits_waits_behind_one(whole: Whole) -> Iterator[WholeVerdict]:
    """`held` are the places that dead letters keep in the queues of their orders."""
    known = {(letter.service, *letter[:3]) for letter in whole.dead_letters}
    for order_id, where in whole.held:
        yield None if where in known else (order_id, [f"{where[0]} holds a queue for {_text(where[1:])}, which is no dead letter"])
    if not whole.held:
        yield None


def _text(where: tuple) -> str:
    return f"{where[0]}/{where[1]}@{where[2]}"
