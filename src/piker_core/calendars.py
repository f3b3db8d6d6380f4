"""When a market is open: its sessions in UTC nanoseconds, whatever its own clock does.

find_calendar("24/7")       always; what a market has that names no other
find_calendar("fx")         from Sunday 17:00 to Friday 17:00 in New York
find_calendar("XNYS")       whatever `exchange_calendars` knows (an extra)
ib_sessions(text, zone)     the hours that Interactive Brokers tells of a contract
"""

import importlib
import re
import time
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from piker_core.errors import NotFound, PikerError

NS = 1_000_000_000
FOREVER_NS = 1 << 62
"""The end of time, in 2116."""
BACK_NS = 60 * 86400 * NS
AHEAD_NS = 400 * 86400 * NS
ALWAYS = "24/7"
FX = "fx"
FX_ZONE = "America/New_York"

Spans = NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1)
_WEEK = timedelta(days=7)
_IB_HOURS = re.compile(r"(\d{8}):(?:CLOSED|(\d{4})-(\d{8}):(\d{4}))")
_JAVA_ZONES = {
    "AEST": "Australia/Sydney",
    "AET": "Australia/Sydney",
    "CST": "America/Chicago",
    "CTT": "Asia/Shanghai",
    "EST": "America/New_York",
    "HKT": "Asia/Hong_Kong",
    "IST": "Asia/Kolkata",
    "JST": "Asia/Tokyo",
    "MST": "America/Denver",
    "PST": "America/Los_Angeles",
}
"""Short names that mean a place, not an offset, to who sends them."""


class Sessions:
    """Sessions of a market, each from its opening to its close, exclusive.

    Known from `since_ns` to `until_ns`; beyond that nothing is said. Never changed:
    usable from any thread.
    """

    def __init__(
        self,
        name: str,
        spans: Iterable[tuple[int, int]],
        *,
        since_ns: int = 0,
        until_ns: int = FOREVER_NS,
    ) -> None:
        """`spans`: (open_ns, close_ns), in any order; what overlaps or touches is one.

        They are known from `since_ns` to `until_ns`.
        """
        self.name = name
        self.since_ns = since_ns
        self.until_ns = until_ns
        self._spans = _merged(spans)

    def is_open(self, time_ns: int) -> bool:
        """Whether a session is on at that time."""
        return len(self.between(time_ns, time_ns + 1)) > 0

    def next_change(self, time_ns: int) -> int | None:
        """The first opening or close after that time; None if none is known."""
        for change_ns in self._after(time_ns).ravel().tolist():
            if time_ns < change_ns < FOREVER_NS:
                return int(change_ns)
        return None

    def between(self, start_ns: int, end_ns: int) -> Spans:
        """The sessions with time in [start_ns, end_ns): rows of (open_ns, close_ns).

        Whole ones, ascending, int64.
        """
        first = np.searchsorted(self._spans[:, 1], start_ns, "right")
        last = np.searchsorted(self._spans[:, 0], end_ns, "left")
        return self._spans[first : max(first, last)].copy()

    def for_engine(self, start_ns: int, end_ns: int) -> Spans | None:
        """What `FeedEngine.add_market` and `Market.set_sessions` take; None: always.

        The sessions in [start_ns, end_ns), and open for all time before and after, or
        of which nothing is known: better a flat row too many than a loss untold.
        """
        known_ns, unknown_ns = max(start_ns, self.since_ns), min(end_ns, self.until_ns)
        known = np.clip(self.between(known_ns, unknown_ns), known_ns, unknown_ns)
        return _merged([(0, known_ns), *known.tolist(), (unknown_ns, FOREVER_NS)])

    def _after(self, time_ns: int) -> Spans:
        """The session of that time, if there is one, and the next."""
        first = np.searchsorted(self._spans[:, 1], time_ns, "right")
        return self._spans[first : first + 2]

    def __repr__(self) -> str:
        return f"<Sessions {self.name}>"


class _Always(Sessions):
    def __init__(self) -> None:
        super().__init__(ALWAYS, [(0, FOREVER_NS)])

    def for_engine(self, start_ns: int, end_ns: int) -> None:
        return None


class _FxWeek(Sessions):
    """One session a week, worked out when asked for."""

    def __init__(self) -> None:
        super().__init__(FX, [])
        self._zone = find_zone(FX_ZONE)

    def between(self, start_ns: int, end_ns: int) -> Spans:
        weeks: list[tuple[int, int]] = []
        end_ns = min(end_ns, FOREVER_NS)
        sunday = datetime.combine(_day_of(start_ns), datetime.min.time())
        sunday -= timedelta(days=(sunday.weekday() + 1) % 7 + 7)
        while True:
            opens = sunday.replace(hour=17)
            week = (
                local_ns(opens, self._zone),
                local_ns(opens + timedelta(days=5), self._zone),
            )
            if week[0] >= end_ns:
                return _merged(weeks)
            if week[1] > start_ns:
                weeks.append(week)
            sunday += _WEEK

    def _after(self, time_ns: int) -> Spans:
        return self.between(time_ns, time_ns + 8 * 86400 * NS)


def find_calendar(name: str) -> Sessions:
    """The sessions of a calendar: `24/7`, `fx`, or a name of exchange_calendars.

    Names such as XNYS, XHKG, CMES. May take a second the first time: call it from a
    thread. Raises NotFound for an unknown name, PikerError without the extra.
    """
    if name in (ALWAYS, ""):
        return _Always()
    if name == FX:
        return _FxWeek()
    return _exchange(name)


def engine_sessions(name: str) -> Spans | None:
    """What an engine is to know of a calendar: two months back, more than a year ahead.

    See `find_calendar` and `Sessions.for_engine`.
    """
    now_ns = time.time_ns()
    return find_calendar(name).for_engine(now_ns - BACK_NS, now_ns + AHEAD_NS)


def ib_sessions(text: str, zone: str) -> Sessions:
    """Sessions from `liquidHours` or `tradingHours` of Interactive Brokers.

    Such as `20261123:0930-20261123:1600;20261124:CLOSED`, times of `zone`, which is
    their `timeZoneId`. Of an hour that the clock repeats, the first counts for an
    opening, the second for a close. Known from the first day told to the end of the
    last; without any hours the market is always open. Raises PikerError for a text or
    zone that is not understood.

    Source: https://interactivebrokers.github.io/tws-api/ (contract details)
    """
    where = find_zone(zone)
    spans, days = [], []
    for entry in re.split(r"[;,]", text.strip().strip(";")):
        if not entry:
            continue
        said = _IB_HOURS.fullmatch(entry)
        if said is None:
            raise PikerError(
                f"hours {entry!r:.80} are not like 20261123:0930-20261123:1600 "
                "or 20261124:CLOSED"
            )
        day, opens, close_day, closes = said.groups()
        midnight = _local(day, "0000", entry)
        days.append(local_ns(midnight, where))
        if opens is None:
            days.append(local_ns(midnight + timedelta(days=1), where))
            continue
        span = (
            local_ns(_local(day, opens, entry), where),
            local_ns(_local(close_day, closes, entry), where, last=True),
        )
        if span[0] >= span[1]:
            raise PikerError(f"hours {entry!r:.80} end before they begin")
        spans.append(span)
        days.append(span[1])
    if not days:
        return _Always()
    return Sessions(zone, spans, since_ns=min(days), until_ns=max(days))


def find_zone(name: str) -> ZoneInfo:
    """A time zone by name, such as `America/New_York` or `EST (Eastern Standard Time)`.

    Raises PikerError for one that is not known.
    """
    short = name.partition(" (")[0].strip()
    try:
        return ZoneInfo(_JAVA_ZONES.get(short, short))
    except (KeyError, ValueError, OSError):
        raise PikerError(
            f"there is no time zone {name!r:.80} here; names are like America/New_York "
            "(if that is unknown too: pip install tzdata)"
        ) from None


def local_ns(local: datetime, zone: ZoneInfo, *, last: bool = False) -> int:
    """UTC nanoseconds of a local time.

    `last`: of an hour that the clock repeats, the second. A time that the clock leaves
    out is as long after midnight as it says.
    """
    first = local.replace(tzinfo=zone, fold=0).utcoffset() or timedelta()
    second = local.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
    offset = second if last and second < first else first
    return (local - offset - _EPOCH) // timedelta(microseconds=1) * 1000


@lru_cache(maxsize=64)
def _exchange(name: str) -> Sessions:
    """An exchange's sessions of some twenty years, and of the next one."""
    try:
        exchange_calendars = importlib.import_module("exchange_calendars")
    except ImportError:
        raise PikerError(
            f"calendar {name} needs exchange_calendars: "
            "pip install 'piker-core[calendars]'"
        ) from None
    try:
        schedule = exchange_calendars.get_calendar(name).schedule
    except exchange_calendars.errors.InvalidCalendarName:
        raise NotFound(
            f"there is no calendar {name!r:.80}: it is {ALWAYS}, {FX}, or a name of "
            "exchange_calendars such as XNYS, XHKG or CMES"
        ) from None
    opens, closes = (_nanoseconds(schedule[part]) for part in ("open", "close"))
    stops, goes_on = (
        _nanoseconds(schedule[part]) for part in ("break_start", "break_end")
    )
    broken = stops > 0  # at noon; no time at all is negative
    morning = np.column_stack((opens, np.where(broken, stops, closes)))
    afternoon = np.column_stack((goes_on, closes))[broken]
    spans = np.concatenate((morning, afternoon)).tolist()
    return Sessions(name, spans, since_ns=int(opens[0]), until_ns=int(closes[-1]))


def _nanoseconds(times: Any) -> Spans:
    naive = times.dt.tz_convert(None).to_numpy("datetime64[ns]")
    nanoseconds: Spans = naive.astype(np.int64)
    return nanoseconds


def _merged(spans: Iterable[tuple[int, int]]) -> Spans:
    merged: list[list[int]] = []
    for opens, closes in sorted((opens, closes) for opens, closes in spans):
        if merged and opens <= merged[-1][1]:
            merged[-1][1] = max(closes, merged[-1][1])
        elif opens < closes:
            merged.append([opens, closes])
    return np.array(merged, np.int64).reshape(-1, 2)


def _local(day: str, clock: str, entry: str) -> datetime:
    """A day and hhmm, up to 2400."""
    try:
        midnight = datetime.strptime(day, "%Y%m%d")
    except ValueError:
        raise PikerError(f"hours {entry!r:.80} have no day {day}") from None
    hours, minutes = int(clock[:2]), int(clock[2:])
    if hours > 24 or minutes > 59 or (hours == 24 and minutes):
        raise PikerError(f"hours {entry!r:.80} have no time {clock}")
    return midnight + timedelta(hours=hours, minutes=minutes)


def _day_of(time_ns: int) -> date:
    seconds = min(max(time_ns // NS, 0), FOREVER_NS // NS)
    return date.fromordinal(_EPOCH.toordinal() + seconds // 86400)
