"""How the simulated carriers tell what they scanned: each in its own codes, and some of them late, twice or in the wrong order.

A carrier that answers at once (`Memory.fast`) is connected to us directly and speaks our own reports. Pure."""

from __future__ import annotations

import zlib
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from schemas import shipping_report as report
from schemas.carrier_codes import codes
from schemas.topics import REPORT
from services.simulators.outsiders import HOUR, Heard, Memory, Reaction, hours, moment_of

DIALECTS = {"bluewave": "gs1", "northport": "upu", "silkroad": "cainiao"}
CARRIERS = tuple(DIALECTS)
# In these scenarios the carrier is one of that dialect, and its scans come late, doubled and in the wrong order.
UNTIDY = {"scans_upu": "northport", "scans_cainiao": "silkroad", "scans_gs1": "bluewave"}
AT_LEAST_S = 300.0  # between two scans


class Leg(NamedTuple):
    """One scan, `low` to `high` trade hours after the one before; or, where the plan says when it is `due`, so many hours before
    that, if that is still to come. `word` is its part of the message's id."""

    word: str
    model: type
    fields: dict
    low: float
    high: float
    due: datetime | None = None


@lru_cache(maxsize=16_384)
def carrier_of(parcel_id: str, scenario: str) -> str:
    """The events after hand-over do not name the carrier; it follows from the parcel."""
    return UNTIDY.get(scenario) or CARRIERS[zlib.crc32(parcel_id.encode()) % len(CARRIERS)]


@lru_cache(maxsize=None)  # as many as there are codes
def _code(dialect: str, report_type: str) -> str:
    """The dialect's word for a report; empty where it has none."""
    return next((row.code for row in codes() if row.dialect == dialect and row.report == report_type), "")


def tell(heard: Heard, scenario: str, memory: Memory, legs: tuple[Leg, ...]) -> list[Reaction]:
    """One scan after another; none for a parcel that was stopped."""
    order_id, parcel_id = heard.data.order_id, heard.data.parcel_id
    if parcel_id in memory.stopped:
        return []
    carrier = carrier_of(parcel_id, scenario)
    at, said = 0.0, []
    for leg in legs:
        scan = f"{leg.word}:{parcel_id}"
        if leg.due is None or memory.fast:
            at += hours(memory, scan, leg.low, leg.high)
        else:
            at = max(at + AT_LEAST_S, (leg.due - moment_of(heard, 0.0)).total_seconds() - hours(memory, scan, leg.low, leg.high))
        if memory.fast:
            message = leg.model(order_id=order_id, parcel_id=parcel_id, **leg.fields)
        else:
            message = _in_dialect(heard, DIALECTS[carrier], leg, at)
        said.append(Reaction(at, REPORT.name, message, scan, f"/carrier/{carrier}", parcel_id))
    return _untidy(said, heard, carrier, memory) if scenario in UNTIDY and not memory.fast else said


def _in_dialect(heard: Heard, dialect: str, leg: Leg, after_s: float):
    order_id, parcel_id = heard.data.order_id, heard.data.parcel_id
    code = _code(dialect, leg.model.__name__)
    if not code:
        return leg.model(order_id=order_id, parcel_id=parcel_id, **leg.fields)
    fields = {name: value for name, value in leg.fields.items() if name != "attempt"}
    return report.CarrierScanReported(order_id=order_id, parcel_id=parcel_id, dialect=dialect, code=code,
                                      at=moment_of(heard, after_s), **fields)


def _untidy(said: list[Reaction], heard: Heard, carrier: str, memory: Memory) -> list[Reaction]:
    """The same scans, badly told: of two the later comes first, each comes once more some hours later as a message of its own,
    and what is information only comes when the parcel is long elsewhere."""
    # Nobody tells of a scan before it was made: the earlier of two waits for the later.
    told = [one._replace(delay_s=said[n + 1].delay_s + AT_LEAST_S) if n % 2 == 0 and n + 1 < len(said) else one
            for n, one in enumerate(said)]
    again = [one._replace(delay_s=one.delay_s + hours(memory, f"again:{one.id}", 2, 30), id=f"{one.id}:again", unless_stopped="")
             for one in said]
    asides = [row for row in codes() if row.dialect == DIALECTS[carrier] and not row.report]
    if type(heard.data).__name__ != "ParcelHandedOver":
        asides = []
    parcel_id = heard.data.parcel_id
    notes = [Reaction(n * HOUR + hours(memory, f"note:{row.code}:{parcel_id}", 0, 60), REPORT.name, report.CarrierScanReported(
        order_id=heard.data.order_id, parcel_id=parcel_id, dialect=row.dialect, code=row.code, leg=row.leg or None,
        at=moment_of(heard, n * HOUR)), f"note{n}:{parcel_id}", f"/carrier/{carrier}")
        for n, row in enumerate(asides)]
    return told + again + notes
