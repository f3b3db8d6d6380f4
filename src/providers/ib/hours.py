"""When a contract trades: what TWS says of some days, and what follows for the others.

1. Days of which TWS does not speak are like the latest one of their weekday that has
   hours. It speaks of a few days only, so a working day that is never told, told only
   as closed, or as much shorter than the others is like the usual one: what it told is
   taken for a holiday. A Saturday or Sunday without hours is closed.
2. A session is of the day on which it ends: Monday's may begin on Sunday.
3. What ends within a minute of the next is one session with it.
4. Without hours a contract is always open.

Source: https://interactivebrokers.github.io/tws-api/contract_details.html
"""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from piker_core.calendars import (
    FOREVER_NS,
    NS,
    Sessions,
    Spans,
    find_zone,
    ib_sessions,
    local_ns,
)

_JOIN_NS = 60 * NS
_LOOK_NS = 10 * 86400 * NS
_DAY = timedelta(days=1)
_WORKING = range(5)
_SHORT = 0.75
"""A working day with less than this part of the usual hours is an exception."""

Span = tuple[int, int]
_Offsets = tuple[tuple[timedelta, timedelta], ...]
"""Begin and end of a day's sessions, as local time from that day's midnight.

Of one that began on the evening before the begin is negative.
"""


class Hours(Sessions):
    """Sessions of one contract, for all time; made by `contract_hours`."""

    def __init__(self, days: dict[date, _Offsets], zone: ZoneInfo) -> None:
        super().__init__(zone.key, [])
        self._days = days
        self._zone = zone
        self._weekdays = _usual_week(days)

    @property
    def told_until_ns(self) -> int:
        """The end of the last day of which TWS has spoken."""
        if not self._days:
            return FOREVER_NS
        return local_ns(_midnight(max(self._days)) + _DAY, self._zone)

    def between(self, start_ns: int, end_ns: int) -> Spans:
        """See `Sessions.between`."""
        if not self._days:
            return np.array([(0, FOREVER_NS)], np.int64)
        merged: list[Span] = []
        for opens_ns, closes_ns in self._around(start_ns, end_ns):
            if merged and opens_ns - merged[-1][1] <= _JOIN_NS:
                opens_ns, before_ns = merged.pop()
                closes_ns = max(before_ns, closes_ns)
            merged.append((opens_ns, closes_ns))
        inside = [span for span in merged if span[1] > start_ns and span[0] < end_ns]
        return np.array(inside, np.int64).reshape(-1, 2)

    def for_engine(self, start_ns: int, end_ns: int) -> Spans | None:
        """See `Sessions.for_engine`."""
        return super().for_engine(start_ns, end_ns) if self._days else None

    def spans(self, start_ns: int, end_ns: int) -> list[Span]:
        """The open parts of start <= time < end."""
        cut = np.clip(self.between(start_ns, end_ns), start_ns, end_ns).tolist()
        return [(opens, closes) for opens, closes in cut if opens < closes]

    def last_open_ns(self, end_ns: int) -> int:
        """The end itself if it was open until then, else the last close before it."""
        spans = self.spans(end_ns - _LOOK_NS, end_ns)
        return spans[-1][1] if spans else end_ns

    def same_session(self, first_s: int, second_s: int) -> bool:
        """Whether it never closed between two seconds, the first one earlier."""
        start_ns, end_ns = first_s * NS, second_s * NS
        return self.spans(start_ns, end_ns) == [(start_ns, end_ns)]

    def _after(self, time_ns: int) -> Spans:
        return self.between(time_ns, time_ns + _LOOK_NS)

    def _around(self, start_ns: int, end_ns: int) -> list[Span]:
        """All sessions that begin on the days about a stretch of time, ascending."""
        day, last = self._local(start_ns) - 2 * _DAY, self._local(end_ns) + 2 * _DAY
        found: list[Span] = []
        while day <= last:
            offsets = self._days.get(day)
            if offsets is None:
                offsets = self._weekdays.get(day.weekday(), ())
            for opens, closes in offsets:
                opens_ns = local_ns(_midnight(day) + opens, self._zone)
                closes_ns = local_ns(_midnight(day) + closes, self._zone, last=True)
                if opens_ns < closes_ns:
                    found.append((opens_ns, closes_ns))
            day += _DAY
        return sorted(found)

    def _local(self, time_ns: int) -> date:
        return datetime.fromtimestamp(time_ns // NS, self._zone).date()


def _usual_week(days: dict[date, _Offsets]) -> dict[int, _Offsets]:
    """The hours of each weekday that has any, as far as can be told from some days."""
    week = {day.weekday(): days[day] for day in sorted(days) if days[day]}
    working = [week[weekday] for weekday in _WORKING if weekday in week]
    if working:
        usual = max(working, key=lambda hours: (_length(hours), working.count(hours)))
        for weekday in _WORKING:
            if _length(week.get(weekday, ())) < _SHORT * _length(usual):
                week[weekday] = usual
    return week


def _length(hours: _Offsets) -> timedelta:
    return sum((closes - opens for opens, closes in hours), timedelta())


def contract_hours(text: str, zone_id: str) -> Hours:
    """Hours of a `tradingHours` or `liquidHours` text of the zone `timeZoneId`.

    An empty text gives hours that never close. Raises PikerError for a text or zone
    that is not understood.
    """
    entries = [entry for entry in text.split(";") if entry.strip()]
    zone = find_zone(zone_id) if entries else ZoneInfo("UTC")
    days: dict[date, _Offsets] = {}
    for entry in entries:
        told = ib_sessions(entry, zone_id)
        spans = told.between(told.since_ns, told.until_ns).tolist()
        end_ns = spans[-1][1] - NS if spans else told.since_ns
        day = _local_time(end_ns, zone).date()
        midnight = _midnight(day)
        offsets = tuple(
            (_local_time(opens, zone) - midnight, _local_time(closes, zone) - midnight)
            for opens, closes in spans
        )
        days[day] = (*days.get(day, ()), *offsets)
    return Hours(days, zone)


def _local_time(time_ns: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(time_ns // NS, zone).replace(tzinfo=None)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
