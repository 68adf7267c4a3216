"""What an excursion is: goods outside their band for longer than they tolerate. Pure; the view and the auditor both fold by it.

Readings come late, twice and in any order, so they are kept by window of their own time, and each new one is judged together
with what is known of the windows around it. Once found, an excursion stays found: a reading that comes later may explain it,
which is for a person to weigh. Temperatures are whole tenths of a degree Celsius, times whole seconds since 1970.

A run outside lasts from its first reading outside to the first one inside after it, or to the last one outside as yet: between
two readings nobody knows, and food is not given the benefit of the doubt. Between readings more than a window apart nothing
is concluded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple

from pydantic import Field

from schemas.model import CommandPart, LineNo, Part

WINDOW_S = 86_400
KEEP_S = 60 * WINDOW_S  # a reading that comes later than this, by the parcel's newest one, is too late
Tenths = Annotated[int, Field(ge=-2_732, le=2_000, description="tenths of a degree Celsius")]
Silence = Annotated[int, Field(ge=30, le=7 * WINDOW_S // 60)]
Tolerance = Annotated[int, Field(ge=0, le=WINDOW_S // 60)]


class Band(Part):
    """Between `low_tenths` and `high_tenths`, both included; outside for `tolerance_minutes` at most. Default: 2 to 8 °C.
    `silent_minutes`: how long its logger may say nothing; absent: nobody waits for it."""

    low_tenths: Tenths = 20
    high_tenths: Tenths = 80
    tolerance_minutes: Tolerance = 30
    silent_minutes: Silence | None = None


class AskedBand(Band, CommandPart):
    """A band as a command states it."""


class ColdLine(Band):
    """An order line whose goods have a band."""

    line_no: LineNo


def common_band(bands: Iterable[Band]) -> Band | None:
    """The band that suits all of them, or None where there is none."""
    found = list(bands)
    low, high = max(b.low_tenths for b in found), min(b.high_tenths for b in found)
    return Band(low_tenths=low, high_tenths=high, tolerance_minutes=min(b.tolerance_minutes for b in found), silent_minutes=min(
        (b.silent_minutes for b in found if b.silent_minutes is not None), default=None)) if low < high else None


class Reading(NamedTuple):
    time_s: int
    tenths: int


class Excursion(NamedTuple):
    """`until_s`: up to when it was known to last when it was found; `worst`: the reading farthest outside, in tenths."""

    began_s: int
    until_s: int
    worst: int

    @property
    def minutes(self) -> int:
        return (self.until_s - self.began_s) // 60


def window_of(time_s: int) -> int:
    """The number of the window that a moment lies in."""
    return time_s // WINDOW_S


def runs(readings: Iterable[Reading], band: Band) -> list[Excursion]:
    """Every run outside the band, however short, of the readings in the order of their times."""
    found: list[Excursion] = []
    began = until = worst = None
    for time_s, tenths in sorted(set(readings)):
        beyond = max(band.low_tenths - tenths, tenths - band.high_tenths)
        if beyond > 0:
            if began is None:
                began, worst = time_s, (beyond, tenths)
            until, worst = time_s, max(worst, (beyond, tenths))
        elif began is not None:
            found.append(Excursion(began, time_s, worst[1]))
            began = None
    if began is not None:
        found.append(Excursion(began, until, worst[1]))
    return found


def judge(around: Iterable[Reading], band: Band, known: list[tuple[int, int]]) -> list[Excursion]:
    """The excursions among the readings around a new one that are not `known` yet. `known`, the spans found before, is
    brought up to date: one that goes on is no new one."""
    fresh = []
    for run in runs(around, band):
        if run.until_s - run.began_s <= band.tolerance_minutes * 60:
            continue
        overlapping = [span for span in known if span[0] <= run.until_s and run.began_s <= span[1]]
        if not overlapping:
            fresh.append(run)
        known[:] = [span for span in known if span not in overlapping]
        known.append((min([run.began_s, *(s[0] for s in overlapping)]), max([run.until_s, *(s[1] for s in overlapping)])))
    return fresh


class Watch:
    """The readings of one parcel, in whatever order they come. What a view does with its windows, in memory."""

    def __init__(self) -> None:
        self.windows: dict[int, list[Reading]] = {}
        self.known: list[tuple[int, int]] = []

    def take(self, reading: Reading, band: Band) -> list[Excursion]:
        """The excursions that this reading shows."""
        here = window_of(reading.time_s)
        mine = self.windows.setdefault(here, [])
        if reading in mine:
            return []
        mine.append(reading)
        around = [r for n in (here - 1, here, here + 1) for r in self.windows.get(n, ())]
        return judge(around, band, self.known)


def excursion_id(parcel_id: str, found: Excursion) -> str:
    """The same for whoever finds it, so that finding it again changes nothing."""
    return f"{parcel_id}:{found.began_s}"
