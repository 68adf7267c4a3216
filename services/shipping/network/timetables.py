"""When something leaves: local hours on the working days of a country, as moments of the one clock of all.

Moments are seconds of the epoch. A timetable is asked for its next departure all the time, so each works out its departures
for some months around what it is asked for, and then looks them up.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import holidays

HOUR, DAY = 3600, 86_400
_AROUND_S = 45 * DAY
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
        """Departures of some months around the moment; what was known before is left, so that memory stays small."""
        zone, first = ZoneInfo(self.zone), datetime.fromtimestamp(moment - _AROUND_S, UTC).date()
        times = [time.fromisoformat(text) for text in self.cutoffs]
        days = (first + timedelta(days=n) for n in range(2 * _AROUND_S // DAY + 1))
        found = {int(datetime.combine(day, at, zone).timestamp()) for day in days if works(self.country, self.days, day)
                 for at in times}
        self._departures, self._from, self._to = sorted(found), moment - _AROUND_S + DAY, moment + _AROUND_S - _MARGIN_S


@lru_cache(maxsize=100_000)
def works(country: str, days: str, day: date) -> bool:
    """Whether what keeps such days works on this one. A country without known holidays keeps its weekends."""
    if days == "daily":
        return True
    calendar = _calendar(country)
    if days == "working":
        return calendar.is_working_day(day)
    weekend = calendar.weekend
    rest = _SUNDAY if _SUNDAY in weekend or not weekend else min(weekend)
    return day.weekday() != rest and day not in calendar


@lru_cache(maxsize=None)  # as many as there are countries
def _calendar(country: str) -> holidays.HolidayBase:
    if country in holidays.list_supported_countries(include_aliases=False):
        return holidays.country_holidays(country)
    return holidays.HolidayBase()
