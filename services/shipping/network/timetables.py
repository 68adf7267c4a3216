"""When something leaves: local hours on the working days of a country, as moments of the one clock of all.

Moments are seconds of the epoch. A timetable is asked for its next departure all the time, so each works out its departures
for some weeks ahead of what it is asked for, and then looks them up.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

CALENDARS_FILE = Path(__file__).with_name("calendars.csv")
HOUR, DAY = 3600, 86_400
_BEHIND_S, _AHEAD_S = 2 * DAY, 30 * DAY
_MARGIN_S = 15 * DAY  # longer than any run of holidays
_SUNDAY = 6


class Timetable:
    """`days`: working (no weekend, no holiday), most (one rest day a week, no holiday) or daily; `cutoffs`: local times."""

    __slots__ = ("country", "zone", "days", "cutoffs", "_departures", "_from", "_to")

    def __init__(self, country: str, zone: str, days: str, cutoffs: tuple[str, ...]):
        self.country, self.zone, self.days, self.cutoffs = country, zone, days, cutoffs
        self._departures: list[int] = []
        self._from = self._to = 0

    def next(self, moment: int) -> int:
        """The first departure at or after the moment."""
        if not self._from <= moment < self._to:
            self._cover(moment)
        return self._departures[bisect_left(self._departures, moment)]

    def _cover(self, moment: int) -> None:
        """Departures of some weeks from the moment on; what was known before is left, so that memory stays small."""
        zone, first = ZoneInfo(self.zone), datetime.fromtimestamp(moment - _BEHIND_S, UTC).date()
        times = [time.fromisoformat(text) for text in self.cutoffs]
        days = (first + timedelta(days=n) for n in range((_BEHIND_S + _AHEAD_S) // DAY + 1))
        found = {int(datetime.combine(day, at, zone).timestamp()) for day in days if works(self.country, self.days, day)
                 for at in times}
        self._departures, self._from, self._to = sorted(found), moment - _BEHIND_S + DAY, moment + _AHEAD_S - _MARGIN_S


@lru_cache(maxsize=100_000)
def works(country: str, days: str, day: date) -> bool:
    """Whether what keeps such days works on this one. A country without known holidays keeps its weekends."""
    if days == "daily":
        return True
    calendar = calendars().get(country, _WEEKENDS_ALONE)
    if days == "working":
        return day in calendar.worked or day.weekday() not in calendar.weekend and day not in calendar.holidays
    rest = _SUNDAY if _SUNDAY in calendar.weekend or not calendar.weekend else min(calendar.weekend)
    return day.weekday() != rest and day not in calendar.holidays


class Calendar(NamedTuple):
    """`weekend`: weekdays, Monday is 0; `worked`: days of it that are worked all the same."""

    weekend: frozenset[int]
    holidays: frozenset[date]
    worked: frozenset[date]


_WEEKENDS_ALONE = Calendar(frozenset({5, 6}), frozenset(), frozenset())


@lru_cache(maxsize=1)
def calendars() -> dict[str, Calendar]:
    """By country, for the years of calendars.csv; later ones have weekends alone."""
    with CALENDARS_FILE.open(encoding="utf-8") as file:
        return {row["country"]: Calendar(frozenset(map(int, row["weekend"])), _dates(row["holidays"]), _dates(row["worked"]))
                for row in csv.DictReader(line for line in file if not line.startswith("#"))}


def _dates(text: str) -> frozenset[date]:
    return frozenset(map(date.fromisoformat, text.split()))
