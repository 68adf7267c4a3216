"""When a reader must stop: too many dead letters close together are a fault of somebody's, not of the records.

A topic's level goes up by one with each dead letter and down by a tenth with each good record; in ordinary times it is
zero and costs nothing. It is stored with the offsets, so that a restart does not begin to count anew: the batch that would
pass the limit never commits, and the reader stops at the same record until somebody raises the limit or it is no longer bad.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from schemas.dead_letters import Reason
from services.runtime.storage import Unfit
from services.runtime.track import Record

TENTHS = 10  # so many good records make up for a dead letter

Levels = dict[str, tuple[int, int]]  # topic -> (level in tenths, offset of the first dead letter it counts)
Dead = dict[tuple[str, int], tuple[Reason, str]]  # (topic, offset) -> reason, detail


class TooManyDeadLetters(Unfit):
    """`settled`: how many records of the batch come before the one that would pass the limit."""

    def __init__(self, message: str, settled: int):
        super().__init__(message)
        self.settled = settled


def at_start(stored: dict[str, list[int]], limit: int) -> Levels:
    """A limit that was raised to let a run pass, and is lowered again, does not stop at what has passed."""
    return {topic: (min(level, limit * TENTHS), first) for topic, (level, first) in stored.items()}


def levels_after(levels: Levels, records: Iterable[Record], dead: Dead, limit: int, partition: int) -> Levels:
    """The levels after these records, of which `dead` are dead letters. What a person replayed does not count.

    Raises TooManyDeadLetters before the record that would pass the limit."""
    after = dict(levels)
    for n, record in enumerate(records):
        topic, offset = record.topic, record.offset
        level, first = after.get(topic, (0, offset))
        if (topic, offset) not in dead:
            if topic in after and level > 1:
                after[topic] = level - 1, first
            elif topic in after:
                del after[topic]
        elif not record.replayed:
            if level + TENTHS > limit * TENTHS:
                raise TooManyDeadLetters(_message(topic, partition, first, offset, dead, limit), n)
            after[topic] = level + TENTHS, first
    return after


def _message(topic: str, partition: int, first: int, offset: int, dead: Dead, limit: int) -> str:
    reason, detail = dead[topic, offset]
    of_batch = ", ".join(f"{count} {name}" for name, count in Counter(str(r) for (t, _), (r, _) in dead.items() if t == topic).most_common())
    return (f"{topic} partition {partition}: more than {limit} dead letters close together (ten good records make up for one), "
            f"the first at offset {first}. It stops before offset {offset} ({reason}: {detail[:200]}; what was just read has "
            f"{of_batch}), and will do so at every start. Look at them with `tradewind dlq list --topic {topic}`, and stop or "
            f"mend their producer: {reason.remedy} To let them pass, start with a higher TRADEWIND_DEAD_LETTERS_MAX.")
