"""Bars of a simulated gateway: of a span of history, and of the time that runs.

Rules this file owns:

1. Bars are of trading time alone. A span in seconds counts trading seconds back from
   its end, one in days counts trading days; always-open contracts have days of 24 h.
2. Bars of a day and longer are made of whole trading days and named by the last one.
"""

from calendar import monthrange
from collections.abc import Hashable
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import NamedTuple

from piker_core.simulation.market import NS

from .venue_directory import Found
from .venue_faults import Group
from .venue_frames import bar_fields, frame, time_text
from .venue_hours import DAY_S, Session
from .venue_market import Bar, ContractMarket
from .venue_tape import Tape

TRADED = frozenset({"TRADES", "AGGTRADES", "ADJUSTED_LAST"})
QUOTED = frozenset({"BID", "ASK", "MIDPOINT", "BID_ASK"})
WEEK_S, MONTH_S = 7 * DAY_S, 30 * DAY_S
REAL_TIME_S = 5
_ALL_TIME_S = 5 * 10**9
_SECONDS_BACK_DAYS = 15


class Series(NamedTuple):
    """What bars are of: a contract, what to show of it, and their period."""

    found: Found
    what: str
    period_s: int
    rth: bool
    tape: Tape
    version: int
    epoch: bool = True

    @property
    def market(self) -> ContractMarket:
        """The contract's market."""
        return self.found.market

    def stretch(self, begin_ns: int, end_ns: int, period_s: int = 0) -> list[Bar]:
        """Bars of a stretch without a break."""
        period_s = period_s or self.period_s
        if self.what not in TRADED:
            return self.market.quote_bars(self.what, period_s, begin_ns, end_ns)
        bars = self.market.trade_bars(period_s, begin_ns, end_ns)
        if not self.tape.flat_bars:
            bars = [bar for bar in bars if bar.trades]
        if not self.found.contract.sized:
            return [bar._replace(volume=0, wap=0, trades=0) for bar in bars]
        return bars

    def time_field(self, bar: Bar) -> object:
        """A bar's time as a field."""
        if self.period_s >= DAY_S:
            return f"{self.market.hours.today(bar.time_s):%Y%m%d}"
        zone = self.market.hours.zone
        return bar.time_s if self.epoch else time_text(bar.time_s, zone, self.version)

    def row(self, bar: Bar) -> tuple[object, ...]:
        """Time, open, high, low, close, volume, wap and count as fields."""
        contract = self.found.contract
        lot = self.tape.lot_of(contract, self.version)
        shown = bar_fields(contract, bar, version=self.version, lot=lot)
        return (self.time_field(bar), *shown)


def window(series: Series, end_s: int, number: int, unit: str) -> list[Session]:
    """Sessions of a span before a time, oldest first, cut to it."""
    hours, rth = series.market.hours, series.rth
    if unit in "SD" and hours.always and series.period_s < DAY_S:
        begin_s = end_s - number * (1 if unit == "S" else DAY_S)
        return [Session(hours.today(begin_s), begin_s, end_s)]
    if unit == "D":
        return cut_sessions(hours.before(end_s, rth, number), 0, end_s)
    if unit != "S":
        first_s = series.market.first_s(series.what in TRADED) - DAY_S
        begin_s = max(_months_back(end_s, number, unit), first_s)
        return cut_sessions(hours.sessions(begin_s, end_s, rth), begin_s, end_s)
    found: list[Session] = []
    rows = hours.sessions(end_s - number - _SECONDS_BACK_DAYS * DAY_S, end_s, rth)
    for row in reversed(cut_sessions(rows, 0, end_s)):
        begin_s = max(row.begin_s, row.end_s - number)
        found.insert(0, row._replace(begin_s=begin_s))
        number -= row.end_s - begin_s
        if not number:
            break
    return found


def span_bars(series: Series, sessions: list[Session], end_ns: int) -> list[Bar]:
    """Bars of sessions, up to a time; the last may be running."""
    if series.period_s >= DAY_S:
        return _long_bars(series, sessions, end_ns)
    hours, period_s, made = series.market.hours, series.period_s, []
    for row in _joined(sessions):
        opening = hours.at(row.begin_s, series.rth)
        begin_s = row.begin_s
        if hours.always or opening is None or opening.begin_s != begin_s:
            begin_s = -(-begin_s // period_s) * period_s
        until_ns = min(row.end_s * NS, end_ns)
        if begin_s * NS < until_ns:
            made += series.stretch(begin_s * NS, until_ns)
    return made


def _joined(sessions: list[Session]) -> list[Session]:
    """Sessions of which those without a break between them are one."""
    made: list[Session] = []
    for row in sessions:
        if made and made[-1].end_s == row.begin_s:
            made[-1] = made[-1]._replace(end_s=row.end_s)
        else:
            made.append(row)
    return made


def _long_bars(series: Series, sessions: list[Session], end_ns: int) -> list[Bar]:
    hours = series.market.hours
    groups: dict[Hashable, list[Bar]] = {}
    for row in sessions:
        whole = hours.day_sessions(row.day, series.rth)
        for part in whole if row.begin_s == whole[0].begin_s else (row,):
            until_ns = min(part.end_s * NS, end_ns)
            if part.begin_s * NS < until_ns:
                bars = series.stretch(part.begin_s * NS, until_ns, _ALL_TIME_S)
                # named by the noon of its day, whatever evening the day began on
                noon_s = hours.noon_s(row.day)
                group = groups.setdefault(_group(row.day, series.period_s), [])
                group.extend(bar._replace(time_s=noon_s) for bar in bars)
    return [_together(bars) for bars in groups.values() if bars]


def _group(day: date, period_s: int) -> Hashable:
    if period_s >= MONTH_S:
        return (day.year, day.month)
    return day.isocalendar()[:2] if period_s >= WEEK_S else day


def _together(bars: list[Bar]) -> Bar:
    """One bar of several, in order."""
    first, last = bars[0], bars[-1]
    volume, wap, trades = first.volume, first.wap, first.trades
    if trades >= 0:
        volume = sum(bar.volume for bar in bars)
        trades = sum(bar.trades for bar in bars)
        if volume:
            wap = Fraction(sum(bar.wap * bar.volume for bar in bars), volume)
    return Bar(
        last.time_s,
        first.open,
        max(bar.high for bar in bars),
        min(bar.low for bar in bars),
        last.close,
        volume,
        wap,
        trades,
    )


def cut_sessions(rows: list[Session], begin_s: int, end_s: int) -> list[Session]:
    """Sessions cut to a span; none of those outside of it."""
    cut = [
        row._replace(begin_s=max(row.begin_s, begin_s), end_s=min(row.end_s, end_s))
        for row in rows
    ]
    return [row for row in cut if row.begin_s < row.end_s]


def _months_back(end_s: int, number: int, unit: str) -> int:
    end = datetime.fromtimestamp(end_s, UTC)
    if unit == "W":
        return end_s - number * WEEK_S
    months = end.year * 12 + end.month - 1 - number * (12 if unit == "Y" else 1)
    months = max(months, 1970 * 12)
    year, month = months // 12, months % 12 + 1
    day = min(end.day, monthrange(year, month)[1])
    return int(end.replace(year=year, month=month, day=day).timestamp())


class BarUpdates:
    """The bars that history with keepUpToDate goes on with."""

    def __init__(self, request_id: int, series: Series, bars: list[Bar]) -> None:
        self.market = series.market
        self._id = request_id
        self._series = series
        self._last = bars[-1]

    def update(self, now_ns: int) -> Group:
        """Frames of the bars that changed since the last sent one."""
        series, group = self._series, []
        for bar in self._bars_since(now_ns):
            if bar != self._last:
                self._last = bar
                time, opened, high, low, close, volume, wap, count = series.row(bar)
                shown = (opened, close, high, low, wap, volume)
                group.append(frame(90, self._id, count, time, *shown))
        return group

    def _bars_since(self, now_ns: int) -> list[Bar]:
        series, end_s = self._series, now_ns // NS + 1
        if series.period_s >= DAY_S:
            unit = {DAY_S: "D", WEEK_S: "W", MONTH_S: "M"}[series.period_s]
            return span_bars(series, window(series, end_s, 1, unit), now_ns + 1)[-1:]
        begin_s = self._last.time_s
        sessions = series.market.hours.sessions(begin_s, end_s, series.rth)
        return span_bars(series, cut_sessions(sessions, begin_s, end_s), now_ns + 1)


class RealTimeBars:
    """One reqRealTimeBars: a bar for each five seconds of trading."""

    def __init__(self, request_id: int, series: Series) -> None:
        self.market = series.market
        self._id = request_id
        self._series = series

    def bar(self, end_s: int) -> Group:
        """The frame of the bar that ends at a multiple of five seconds."""
        begin_s = end_s - REAL_TIME_S
        if not self.market.hours.at(begin_s, self._series.rth):
            return []
        bars = self._series.stretch(begin_s * NS, end_s * NS)
        return [frame(50, 3, self._id, *self._series.row(bar)) for bar in bars]
