"""Trading hours of a simulated gateway's contracts, in the zones of their exchanges.

Rules this file owns:

1. Times are Unix seconds; a session is half-open, and belongs to one trading day.
2. A trading day may begin on the evening before its date; days come in order and their
   sessions never overlap.
3. A contract that is always open has a session for each day of its zone, end to end.
"""

from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray

from piker_core.simulation.market import NS

DAY_S = 86_400
_DAY_MINUTES = 1440
_LONGEST_CLOSURE_DAYS = 15

Span = tuple[int, int]
"""Minutes from the midnight that begins the trading day; negative on the eve."""


class Session(NamedTuple):
    """One stretch of trading: its trading day, and begin and end in Unix s."""

    day: date
    begin_s: int
    end_s: int


class Hours(msgspec.Struct, frozen=True, kw_only=True):
    """The week of a contract: `trading` and `liquid` sessions on its `weekdays`.

    `zone` is the text of `timeZoneId`; weekdays count from Monday, 0.
    """

    zone: str
    trading: tuple[Span, ...] = ((0, _DAY_MINUTES),)
    liquid: tuple[Span, ...] = ((0, _DAY_MINUTES),)
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    holidays: frozenset[date] = frozenset()

    @property
    def always(self) -> bool:
        """Whether there is no hour at which the contract does not trade."""
        whole = self.trading == ((0, _DAY_MINUTES),)
        return whole and len(self.weekdays) == 7 and not self.holidays

    def today(self, now_s: int) -> date:
        """The date in the contract's zone."""
        return datetime.fromtimestamp(now_s, ZoneInfo(self.zone)).date()

    def noon_s(self, day: date) -> int:
        """Noon of a date in the contract's zone."""
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=ZoneInfo(self.zone))
        return int(noon.timestamp())

    def day_sessions(self, day: date, rth: bool = False) -> tuple[Session, ...]:
        """Sessions of one trading day, in order; none on a day that is closed."""
        return _day_sessions(self, day, rth)

    def sessions(self, begin_s: int, end_s: int, rth: bool = False) -> list[Session]:
        """Sessions that overlap a span, in order, not cut to it."""
        found = []
        day = self.today(begin_s) - timedelta(days=1)
        last = self.today(max(end_s - 1, begin_s)) + timedelta(days=2)
        while day <= last:
            for session in self.day_sessions(day, rth):
                if session.begin_s < end_s and session.end_s > begin_s:
                    found.append(session)
            day += timedelta(days=1)
        return found

    def at(self, now_s: int, rth: bool = False) -> Session | None:
        """The session that is open, if one is."""
        found = self.sessions(now_s, now_s + 1, rth)
        return found[0] if found else None

    def following(self, now_s: int) -> Session:
        """The session that is open or opens next.

        Raises `ValueError` for hours that never open again.
        """
        for days in (1, _LONGEST_CLOSURE_DAYS):
            found = self.sessions(now_s, now_s + days * DAY_S)
            if found:
                return found[0]
        raise ValueError(
            f"the hours of {self.zone} stay closed for over {_LONGEST_CLOSURE_DAYS} "
            "days: give them weekdays with sessions"
        )

    def trading_day(self, now_s: int) -> Session:
        """The first session of the trading day that counts now, open or just over."""
        for days in (2, _LONGEST_CLOSURE_DAYS):
            found = self.sessions(now_s - days * DAY_S, now_s + 1)
            if found:
                return self.day_sessions(found[-1].day)[0]
        return self.following(now_s)

    def before(self, now_s: int, rth: bool, days: int) -> list[Session]:
        """Sessions of the last trading days that began before a time, oldest first."""
        found: list[Session] = []
        day = self.today(now_s) + timedelta(days=1)
        left, misses = days, 0
        while left and misses < _LONGEST_CLOSURE_DAYS:
            rows = [row for row in self.day_sessions(day, rth) if row.begin_s < now_s]
            found = rows + found
            left -= bool(rows)
            misses = 0 if rows else misses + 1
            day -= timedelta(days=1)
        return found

    def shift_open(self, times_ns: NDArray[np.int64]) -> None:
        """Move ascending times out of closed hours, in place.

        A time that is closed, and all after it, move by as much as leads from the end
        of the session before to the next opening.
        """
        index, count = 0, len(times_ns)
        while index < count:
            session = self.following(int(times_ns[index]) // NS)
            begin_ns = session.begin_s * NS
            if times_ns[index] < begin_ns:
                missing_ns = begin_ns - int(times_ns[index]) // 1000 * 1000
                times_ns[index:] += missing_ns
            index = int(np.searchsorted(times_ns, session.end_s * NS))

    def text(self, now_s: int, rth: bool = False, days: int = 6) -> str:
        """The days to come as `tradingHours` and `liquidHours` write them."""
        first = self.today(now_s)
        parts = []
        for number in range(days):
            day = first + timedelta(days=number)
            rows = self.day_sessions(day, rth)
            if not rows:
                parts.append(f"{day:%Y%m%d}:CLOSED")
            for row in rows:
                begin, end = (self.stamp(edge) for edge in row[1:])
                parts.append(f"{begin}-{end}")
        return ";".join(parts)

    def stamp(self, time_s: int) -> str:
        """A time as hours write it: YYYYMMDD:HHMM in the contract's zone."""
        local = datetime.fromtimestamp(time_s, ZoneInfo(self.zone))
        return f"{local:%Y%m%d:%H%M}"


@lru_cache(maxsize=4096)
def _day_sessions(hours: Hours, day: date, rth: bool) -> tuple[Session, ...]:
    if day.weekday() not in hours.weekdays or day in hours.holidays:
        return ()
    zone = ZoneInfo(hours.zone)
    midnight = datetime(day.year, day.month, day.day)
    rows = []
    for span in hours.liquid if rth else hours.trading:
        edges = (
            (midnight + timedelta(minutes=minute)).replace(tzinfo=zone)
            for minute in span
        )
        begin_s, end_s = (int(edge.timestamp()) for edge in edges)
        rows.append(Session(day, begin_s, end_s))
    if any(first.end_s > second.begin_s for first, second in pairwise(rows)):
        raise ValueError(f"sessions of {hours.zone} overlap on {day}")
    return tuple(rows)


def always(zone: str) -> Hours:
    """Hours that never close."""
    return Hours(zone=zone)


US_STOCKS = Hours(
    zone="US/Eastern",
    trading=((4 * 60, 20 * 60),),
    liquid=((9 * 60 + 30, 16 * 60),),
    weekdays=(0, 1, 2, 3, 4),
)
US_INDEX = msgspec.structs.replace(US_STOCKS, trading=((9 * 60 + 30, 16 * 60 + 15),))
CME = Hours(
    zone="US/Central",
    trading=((-7 * 60, 16 * 60),),
    liquid=((8 * 60 + 30, 16 * 60),),
    weekdays=(0, 1, 2, 3, 4),
)
XETRA = Hours(
    zone="MET",
    trading=((9 * 60, 17 * 60 + 30),),
    liquid=((9 * 60, 17 * 60 + 30),),
    weekdays=(0, 1, 2, 3, 4),
)
FOREX = Hours(
    zone="US/Eastern",
    trading=((-6 * 60 - 45, 17 * 60),),
    liquid=((-6 * 60 - 45, 17 * 60),),
    weekdays=(0, 1, 2, 3, 4),
)
CRYPTO = always("US/Eastern")
