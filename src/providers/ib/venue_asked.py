"""What requests for history ask for, and the errors for what cannot be asked.

Sources: https://interactivebrokers.github.io/tws-api/historical_bars.html and
https://interactivebrokers.github.io/tws-api/historical_time_and_sales.html
"""

import re
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .venue_bars import QUOTED, TRADED
from .venue_directory import Found, Refused
from .venue_frames import Fields
from .venue_hours import DAY_S
from .venue_pacing import STEPS_S, HistoryLimits

SERVICE = "Historical Market Data Service error message:"
NO_ZONE = (
    "Warning: You submitted request with date-time attributes without explicit time "
    "zone. Please switch to use yyyymmdd-hh:mm:ss in UTC or use instrument time zone, "
    "like US/Eastern."
)
LEAST_LIVE_S = 5
_INVALID = "Error validating request.-'bK' : cause - "
_BAD_TIME = (
    "End Date/Time: The date, time, or time-zone entered is invalid. The correct "
    "format is yyyymmdd hh:mm:ss xx/xxxx where yyyymmdd and xx/xxxx are optional."
)
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_TIME = re.compile(r"(\d{8})([ -]) *(\d\d:\d\d:\d\d)(?: (\S+))?")
_DURATION = re.compile(r"(\d{1,6})(?: ([SDWMY]))?")
_UNIT_S = {"S": 1, "D": DAY_S, "W": 7 * DAY_S, "M": 31 * DAY_S, "Y": 366 * DAY_S}
_SHOWN = {
    "TRADES": "Trades", "AGGTRADES": "AggTrades", "ADJUSTED_LAST": "Adjusted_Last",
    "BID": "Bid", "ASK": "Ask", "MIDPOINT": "Midpoint", "BID_ASK": "Bid_Ask",
}  # fmt: skip
_NEVER_HERE = frozenset(
    {"HISTORICAL_VOLATILITY", "OPTION_IMPLIED_VOLATILITY", "FEE_RATE", "SCHEDULE"}
    | {"YIELD_BID", "YIELD_ASK", "YIELD_BID_ASK", "YIELD_LAST"}
)


class BarsAsked(NamedTuple):
    """A request for bars; an empty `end` is now."""

    found: Found
    end: str
    step: str
    duration: str
    rth: bool
    what: str
    format: int
    live: bool

    @property
    def period_s(self) -> int:
        """The bars' period."""
        return STEPS_S[self.step]

    @property
    def span(self) -> tuple[int, str]:
        """The duration as a number and a unit."""
        match = _DURATION.fullmatch(self.duration)
        if match is None:
            raise Refused(321, f"{_INVALID}Invalid duration: {self.duration}")
        return int(match[1]), match[2] or "S"


class TicksAsked(NamedTuple):
    """A request for ticks: from a start on, or those before an end."""

    found: Found
    start: str
    end: str
    number: int
    what: str
    rth: bool


class HeadAsked(NamedTuple):
    """A request for the time of the first trade or quote."""

    found: Found
    what: str
    format: int


Asked = BarsAsked | TicksAsked | HeadAsked


def read_bars(fields: Fields, found: Found) -> BarsAsked:
    """The fields of reqHistoricalData after the contract."""
    fields.flag()  # includeExpired
    end, step, duration = fields.text(), fields.text(), fields.text()
    rth, what, form = fields.flag(), fields.text().upper(), fields.integer()
    return BarsAsked(found, end, step, duration, rth, what, form, fields.flag())


def read_head(fields: Fields, found: Found) -> HeadAsked:
    """The fields of reqHeadTimeStamp after the contract."""
    fields.flag()  # includeExpired
    fields.flag()  # useRTH: the first one counts either way
    return HeadAsked(found, fields.text().upper(), fields.integer())


def check_bars(asked: BarsAsked, limits: HistoryLimits) -> None:
    """Raises `Refused` for bars that nobody can have."""
    if asked.step not in STEPS_S:
        text = f"bar size setting is invalid. Legal ones are: {', '.join(STEPS_S)}"
        raise Refused(321, f"{_INVALID}Historical data {text}")
    if asked.format not in (1, 2):
        text = f"Date formatting selection of {asked.format} rejected"
        raise Refused(321, _INVALID + text)
    number, unit = asked.span
    if unit == "S" and number > DAY_S:
        text = "for durations longer than 86400 seconds must be made in days"
        raise Refused(321, f"{_INVALID}Historical data requests {text}")
    if unit == "D" and number > 365:
        text = "for durations longer than 365 days must be made in years"
        raise Refused(321, f"{_INVALID}Historical data requests {text}")
    if asked.live and (asked.end or asked.period_s < LEAST_LIVE_S):
        text = "keepUpToDate needs an empty end date and bars of 5 secs or longer"
        raise Refused(321, f"{_INVALID}{text}")
    check_shown(asked.found, asked.what)
    span_s = number * _UNIT_S[unit]
    longest_s = limits.longest_s.get(asked.step, span_s)
    if not asked.period_s <= span_s <= longest_s:
        raise Refused(162, f"{SERVICE}invalid step: {asked.period_s}")


def check_shown(found: Found, what: str, also: str = "") -> None:
    """Raises `Refused` if a contract has nothing of that kind to show."""
    contract = found.contract
    if what not in TRADED | QUOTED | _NEVER_HERE:
        raise Refused(321, f"{_INVALID}What to show value of {what} rejected.")
    if contract.sec_type == "CRYPTO" and what == "TRADES" and also != what:
        text = "Expected what to show is AGGTRADES, please use that instead of TRADES."
        raise Refused(10299, text)
    untold = what in TRADED and not contract.prints
    unquoted = what in QUOTED and not contract.sized
    if untold or unquoted or what in _NEVER_HERE:
        raise no_data(found, what)


def no_data(found: Found, what: str) -> Refused:
    """The error for a span that holds nothing."""
    place = f"{found.contract.local_symbol}@{found.exchange} {_SHOWN.get(what, what)}"
    return Refused(162, f"{SERVICE}HMDS query returned no data: {place}")


def no_permission(found: Found) -> str:
    """What errors say of data that are not subscribed."""
    return f"No market data permissions for {found.contract.exchange} {found.sec_type}"


def parse_time(text: str) -> tuple[int, bool]:
    """A time in Unix s, and whether its zone was named; else it is UTC.

    Raises `Refused` with code 10314 for anything but IB's two formats.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise Refused(10314, _BAD_TIME)
    day, dash, clock, zone = match.groups()
    try:
        moment = datetime.strptime(day + clock, "%Y%m%d%H:%M:%S")
        where = ZoneInfo(zone) if zone else UTC
        if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
            raise ValueError(f"year {moment.year}")
        return int(moment.replace(tzinfo=where).timestamp()), bool(zone or dash == "-")
    except (ValueError, OSError, ZoneInfoNotFoundError):  # a folder is no zone
        raise Refused(10314, _BAD_TIME) from None


def read_ticks(fields: Fields, found: Found) -> TicksAsked:
    """The fields of reqHistoricalTicks after the contract."""
    fields.flag()  # includeExpired
    start, end, number = fields.text(), fields.text(), fields.integer()
    return TicksAsked(found, start, end, number, fields.text().upper(), fields.flag())


def check_ticks(asked: TicksAsked, limits: HistoryLimits) -> None:
    """Raises `Refused` for ticks that nobody can have."""
    if bool(asked.start) == bool(asked.end):
        text = "Either start date and time or end date and time must be specified"
        raise Refused(321, f"{_INVALID}{text}")
    if not 1 <= asked.number <= limits.ticks:
        text = f"Number of ticks must be between 1 and {limits.ticks}"
        raise Refused(321, f"{_INVALID}{text}")
    if asked.what not in ("TRADES", "BID_ASK", "MIDPOINT"):
        text = f"What to show value of {asked.what} rejected."
        raise Refused(321, _INVALID + text)
    check_shown(asked.found, asked.what, also="TRADES")
