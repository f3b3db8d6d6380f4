"""When a contract trades, from the texts of its details.

`20261123:0930-20261123:1600;20261126:CLOSED`, older ones are like
`20180323:0400-1200,1230-2000`; times are of the zone `timeZoneId`, which may be an
abbreviation.

1. Spans are half-open, ascending, in UTC nanoseconds; what ends within a minute of the
   next is one span with it.
2. Days the text does not speak of are like the latest one of their weekday that it
   does; a weekday it never speaks of is closed.
3. Without a text that can be read a contract is always open.

Source: https://interactivebrokers.github.io/tws-api/contract_details.html
"""

import bisect
import re
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

NS = 1_000_000_000
_EVER_NS = 1 << 62
_JOIN_NS = 60 * NS
_LOOK_DAYS = 10
_STAMP = re.compile(r"(?:(\d{8}):)?(\d{2}):?(\d{2})")
_ABBREVIATIONS = {
    "EST": "America/New_York",
    "EST5EDT": "America/New_York",
    "CST": "America/Chicago",
    "CST6CDT": "America/Chicago",
    "CTT": "Asia/Shanghai",
    "MST": "America/Denver",
    "PST": "America/Los_Angeles",
    "JST": "Asia/Tokyo",
    "HKT": "Asia/Hong_Kong",
    "IST": "Asia/Kolkata",
    "AEST": "Australia/Sydney",
}
"""What the time zone database has without daylight saving, or not at all."""

Span = tuple[int, int]
_Offsets = tuple[tuple[timedelta, timedelta], ...]
"""Begin and end of a day's spans, as local time from that day's midnight."""


class Hours:
    """Open and closed times of one contract."""

    def __init__(self, days: dict[date, _Offsets], zone: ZoneInfo) -> None:
        self._days = days
        self._zone = zone
        self._weekdays: dict[int, _Offsets] = {}
        for day in sorted(days):
            if days[day] or day.weekday() not in self._weekdays:
                self._weekdays[day.weekday()] = days[day]

    @property
    def always(self) -> bool:
        """Whether nothing is known that could close it."""
        return not self._days

    @property
    def known_until_ns(self) -> int:
        """The end of the last day that the text speaks of."""
        if not self._days:
            return _EVER_NS
        return self._moment_ns(max(self._days), timedelta(days=1))

    def spans(self, start_ns: int, end_ns: int) -> list[Span]:
        """The open parts of start <= time < end."""
        if self.always:
            return [(start_ns, end_ns)] if start_ns < end_ns else []
        merged: list[Span] = []
        for begin_ns, close_ns in self._sessions(start_ns, end_ns):
            if merged and begin_ns - merged[-1][1] <= _JOIN_NS:
                begin_ns = merged.pop()[0]
            merged.append((begin_ns, close_ns))
        cut = [(max(begin, start_ns), min(end, end_ns)) for begin, end in merged]
        return [(begin, end) for begin, end in cut if begin < end]

    def is_open(self, now_ns: int) -> bool:
        """Whether it trades at a time."""
        return bool(self.spans(now_ns, now_ns + 1))

    def next_change_ns(self, now_ns: int) -> int:
        """When it opens or closes next, as far as can be known."""
        horizon_ns = now_ns + _LOOK_DAYS * 86400 * NS
        spans = self.spans(now_ns, horizon_ns)
        if not spans:
            return horizon_ns
        begin_ns, end_ns = spans[0]
        return end_ns if begin_ns <= now_ns else begin_ns

    def last_open_ns(self, end_ns: int) -> int:
        """The end itself if it was open until then, else the last close before it."""
        spans = self.spans(end_ns - _LOOK_DAYS * 86400 * NS, end_ns)
        return spans[-1][1] if spans else end_ns

    def same_session(self, first_s: int, second_s: int) -> bool:
        """Whether it never closed between two seconds, the first one earlier."""
        start_ns, end_ns = first_s * NS, second_s * NS
        return self.spans(start_ns, end_ns) == [(start_ns, end_ns)]

    def _sessions(self, start_ns: int, end_ns: int) -> list[Span]:
        """All spans of the days around a stretch of time, ascending."""
        margin = timedelta(days=2)
        day = self._local(start_ns) - margin
        last = self._local(min(end_ns, start_ns + 400 * 86400 * NS)) + margin
        found: list[Span] = []
        while day <= last:
            for begin, end in self._offsets(day):
                span = (self._moment_ns(day, begin), self._moment_ns(day, end))
                if span[0] < span[1]:
                    bisect.insort(found, span)
            day += timedelta(days=1)
        return found

    def _offsets(self, day: date) -> _Offsets:
        known = self._days.get(day)
        return self._weekdays.get(day.weekday(), ()) if known is None else known

    def _local(self, time_ns: int) -> date:
        return datetime.fromtimestamp(time_ns // NS, self._zone).date()

    def _moment_ns(self, day: date, offset: timedelta) -> int:
        local = datetime(day.year, day.month, day.day) + offset
        return int(local.replace(tzinfo=self._zone).timestamp()) * NS


def parse_hours(text: str, zone_id: str) -> Hours:
    """Hours of a `tradingHours` or `liquidHours` text; raises ValueError.

    An empty text gives hours that never close.
    """
    zone = find_zone(zone_id)
    days: dict[date, _Offsets] = {}
    for part in filter(None, text.split(";")):
        head, colon, rest = part.partition(":")
        if not colon or not re.fullmatch(r"\d{8}", head):
            raise ValueError(f"{part!r} is no day of trading hours")
        day = datetime.strptime(head, "%Y%m%d").date()
        offsets = days.get(day, ())
        if rest.strip().upper() != "CLOSED":
            spans = (_parse_span(day, each) for each in rest.split(","))
            offsets = (*offsets, *spans)
        days[day] = offsets
    return Hours(days, zone)


def find_zone(zone_id: str) -> ZoneInfo:
    """The zone of `US/Eastern` or `EST (Eastern Standard Time)`; raises ValueError."""
    name = zone_id.partition(" (")[0].strip()
    try:
        return ZoneInfo(_ABBREVIATIONS.get(name, name) or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time zone {zone_id!r} is not known") from error


def _parse_span(day: date, text: str) -> tuple[timedelta, timedelta]:
    first, dash, second = text.strip().partition("-")
    begin, end = _STAMP.fullmatch(first), _STAMP.fullmatch(second)
    if not dash or begin is None or end is None:
        raise ValueError(f"{text!r} is no span of trading hours")
    start, stop = _offset(day, begin), _offset(day, end)
    if stop <= start:  # an end without a date may be of the day after
        stop += timedelta(days=1)
    return start, stop


def _offset(day: date, stamp: "re.Match[str]") -> timedelta:
    named, hour, minute = stamp.groups()
    days = timedelta(0)
    if named:
        days = datetime.strptime(named, "%Y%m%d").date() - day
    return days + timedelta(hours=int(hour), minutes=int(minute))


def utc_text(time_ns: int) -> str:
    """A time in whole seconds as requests write it: `20261123-14:30:00`, UTC."""
    return f"{datetime.fromtimestamp(time_ns // NS, UTC):%Y%m%d-%H:%M:%S}"
