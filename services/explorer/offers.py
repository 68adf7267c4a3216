"""What the world outside may do next: an offer, the ways to take it, and the records that a way sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

START = datetime(2026, 11, 23, 12, tzinfo=UTC)  # as in simulation.py


class Way(NamedTuple):
    """One way to take an offer: records to send, (model, source, id) or with planted/late; tokens it takes; what it opens."""

    label: str
    sends: tuple = ()
    opens: tuple[Offer, ...] = ()
    needs: tuple[str, ...] = ()


class Offer(NamedTuple):
    key: str
    ways: tuple[Way, ...]
    must: bool = False


class Send(NamedTuple):
    model: Any
    source: str
    id: str
    planted: bool = False
    late: bool = False


def offer(key: str, label: str, *sends: Send, must: bool = False) -> Offer:
    return Offer(key, (Way(label, sends),), must)
