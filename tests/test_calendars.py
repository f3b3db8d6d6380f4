"""Sessions of exchanges, of forex, and as a broker tells them, in UTC."""

import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import piker_core as pk
from piker_core import calendars
from piker_core.calendars import (
    FOREVER_NS,
    Sessions,
    find_calendar,
    find_zone,
    ib_sessions,
    local_ns,
)
from piker_core.dtypes import session_array

# exchange_calendars 4.13 calls what pandas 3.1 is going to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NS = 1_000_000_000
NEW_YORK = ZoneInfo("America/New_York")


def ns(text: str) -> int:
    """UTC: "2026-11-26 14:30"."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


def texts(times: object) -> list[str]:
    """The same back."""
    return [
        f"{datetime.fromtimestamp(time_ns / NS, UTC):%Y-%m-%d %H:%M}"
        for time_ns in np.ravel(np.asarray(times)).tolist()
    ]


def sessions_of(name: str, start: str, end: str) -> list[str]:
    pytest.importorskip("exchange_calendars")
    return texts(find_calendar(name).between(ns(start), ns(end)))


# Always, and forex


def test_a_market_without_a_calendar_is_always_open() -> None:
    for name in ("24/7", ""):
        always = find_calendar(name)
        assert always.is_open(0) and always.is_open(ns("2026-12-25 12:00"))
        assert always.next_change(5) is None
        assert always.between(5, 6).tolist() == [[0, FOREVER_NS]]
        assert always.for_engine(5, 6) is None


def test_the_forex_week_is_from_sunday_to_friday_17_00_in_new_york() -> None:
    fx = find_calendar("fx")
    weeks = fx.between(ns("2026-10-26 00:00"), ns("2026-11-09 00:00"))
    assert texts(weeks) == [
        *("2026-10-25 21:00", "2026-10-30 21:00"),  # daylight-saving time
        *("2026-11-01 22:00", "2026-11-06 22:00"),  # ends in the night to Sunday
        *("2026-11-08 22:00", "2026-11-13 22:00"),
    ]
    spring = fx.between(ns("2027-03-10 00:00"), ns("2027-03-16 00:00"))
    assert texts(spring)[1:3] == ["2027-03-12 22:00", "2027-03-14 21:00"]


@pytest.mark.parametrize(
    ("time", "open_", "change"),
    [
        ("2026-10-30 20:59", True, "2026-10-30 21:00"),
        ("2026-10-30 21:00", False, "2026-11-01 22:00"),
        ("2026-11-01 21:30", False, "2026-11-01 22:00"),
        ("2026-11-01 22:00", True, "2026-11-06 22:00"),
    ],
)
def test_forex_opens_and_closes_on_the_dot(time: str, open_: bool, change: str) -> None:
    fx = find_calendar("fx")
    assert fx.is_open(ns(time)) == open_
    assert texts(fx.next_change(ns(time))) == [change]
    change_ns = fx.next_change(ns(time))
    assert change_ns is not None
    assert fx.is_open(change_ns - 1) == open_ != fx.is_open(change_ns)


# Exchanges


def test_a_half_day_and_a_holiday_of_new_york() -> None:
    assert sessions_of("XNYS", "2026-11-25 00:00", "2026-12-01 00:00") == [
        *("2026-11-25 14:30", "2026-11-25 21:00"),
        *("2026-11-27 14:30", "2026-11-27 18:00"),  # half a day after Thanksgiving
        *("2026-11-30 14:30", "2026-11-30 21:00"),
    ]


@pytest.mark.parametrize(
    ("start", "end", "before", "after"),
    [
        ("2026-03-06", "2026-03-10", "14:30", "13:30"),  # clocks go forward
        ("2026-10-30", "2026-11-03", "13:30", "14:30"),  # and back
        ("2008-03-07", "2008-03-11", "14:30", "13:30"),
    ],
)
def test_new_york_opens_at_09_30_on_both_sides_of_a_clock_change(
    start: str, end: str, before: str, after: str
) -> None:
    friday, _, monday, _ = sessions_of("XNYS", f"{start} 00:00", f"{end} 00:00")
    assert (friday[-5:], monday[-5:]) == (before, after)


def test_hong_kong_has_a_morning_and_an_afternoon() -> None:
    assert sessions_of("XHKG", "2026-11-26 00:00", "2026-11-27 00:00") == [
        *("2026-11-26 01:30", "2026-11-26 04:00"),
        *("2026-11-26 05:00", "2026-11-26 08:00"),
    ]
    half = sessions_of("XHKG", "2025-12-24 00:00", "2025-12-25 00:00")
    assert half == ["2025-12-24 01:30", "2025-12-24 04:00"]  # no afternoon


def test_chicago_futures_trade_through_the_week_from_sunday_on() -> None:
    week = sessions_of("CMES", "2026-11-02 12:00", "2026-11-07 00:00")
    assert week == ["2026-11-01 23:00", "2026-11-06 23:00"]
    summer = sessions_of("CMES", "2026-10-26 12:00", "2026-10-31 00:00")
    assert summer == ["2026-10-25 22:00", "2026-10-30 22:00"]


def test_an_exchange_is_asked_where_it_stands() -> None:
    pytest.importorskip("exchange_calendars")
    nyse = find_calendar("XNYS")
    assert nyse is find_calendar("XNYS")
    noon = ns("2026-11-27 17:00")
    assert nyse.is_open(noon) and texts(nyse.next_change(noon)) == ["2026-11-27 18:00"]
    closed = ns("2026-11-27 18:00")
    assert not nyse.is_open(closed) and nyse.is_open(closed - 1)
    assert texts(nyse.next_change(closed)) == ["2026-11-30 14:30"]
    assert nyse.next_change(nyse.until_ns) is None
    assert (
        nyse.since_ns < ns("2010-01-01 00:00") < ns("2026-12-31 00:00") < nyse.until_ns
    )


def test_recorded_trades_on_both_sides_of_a_clock_change_lie_in_the_sessions(
    captures: Path,
) -> None:
    pytest.importorskip("exchange_calendars")
    nyse = find_calendar("XNYS")
    for day, regular in (("20080307", "14:30"), ("20080310", "13:30")):
        with zipfile.ZipFile(captures / f"sessions/shy/{day}_trade.zip") as zipped:
            rows = zipped.read(zipped.namelist()[0]).decode().split()
        midnight = local_ns(datetime.strptime(day, "%Y%m%d"), NEW_YORK)
        times = [midnight + int(row.split(",")[0]) * 1_000_000 for row in rows]
        inside = [time_ns for time_ns in times if nyse.is_open(time_ns)]
        assert texts(inside[0])[0][-5:] == regular
        assert len(times) - len(inside) <= 6  # before and after hours
        [session] = nyse.between(times[0], times[-1]).tolist()
        assert session[0] <= inside[0] and inside[-1] + 60 * NS <= session[1]
        assert session[1] - session[0] == 6.5 * 3600 * NS


def test_an_unknown_calendar_is_told() -> None:
    pytest.importorskip("exchange_calendars")
    with pytest.raises(pk.NotFound, match=r"no calendar 'NOPE': it is 24/7, fx, or"):
        find_calendar("NOPE")


def test_without_the_extra_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    calendars._exchange.cache_clear()
    with pytest.raises(pk.PikerError, match=r"pip install 'piker-core\[calendars\]'"):
        find_calendar("XNYS")
    assert find_calendar("fx").name == "fx"


# As a broker tells them

WEEK = (
    "20261123:0930-20261123:1600;20261124:0930-20261124:1600;"
    "20261126:CLOSED;20261127:0930-20261127:1300;20261128:CLOSED"
)


def test_hours_of_shares_are_read() -> None:
    hours = ib_sessions(WEEK, "US/Eastern")
    assert texts(hours.between(0, FOREVER_NS)) == [
        *("2026-11-23 14:30", "2026-11-23 21:00"),
        *("2026-11-24 14:30", "2026-11-24 21:00"),
        *("2026-11-27 14:30", "2026-11-27 18:00"),
    ]
    assert texts([hours.since_ns, hours.until_ns]) == [
        *("2026-11-23 05:00", "2026-11-29 05:00"),
    ]


def test_hours_of_futures_go_over_midnight_and_over_a_clock_change() -> None:
    text = (
        "20261030:1700-20261031:1600;20261101:1700-20261102:1600;"
        "20261102:1700-20261103:1600;"
    )
    assert texts(ib_sessions(text, "US/Central").between(0, FOREVER_NS)) == [
        *("2026-10-30 22:00", "2026-10-31 21:00"),
        *("2026-11-01 23:00", "2026-11-02 22:00"),
        *("2026-11-02 23:00", "2026-11-03 22:00"),
    ]


def test_hours_that_touch_or_overlap_are_one_session() -> None:
    text = (
        "20261123:0400-20261123:0930,20261123:0930-20261123:1600;"
        "20261123:1500-20261123:2000"
    )
    assert texts(ib_sessions(text, "US/Eastern").between(0, FOREVER_NS)) == [
        *("2026-11-23 09:00", "2026-11-24 01:00"),
    ]


@pytest.mark.parametrize(
    ("text", "session"),
    [
        # 01:30 comes twice: a session that opens then opens the first time, one that
        # closes then closes the second time
        ("20261101:0130-20261101:0600", ["2026-11-01 05:30", "2026-11-01 11:00"]),
        ("20261031:1700-20261101:0130", ["2026-10-31 21:00", "2026-11-01 06:30"]),
        ("20261101:0130-20261101:0130", ["2026-11-01 05:30", "2026-11-01 06:30"]),
        # 02:30 does not come: half an hour after two, which is three
        ("20270314:0230-20270314:0500", ["2027-03-14 07:30", "2027-03-14 09:00"]),
        ("20270313:1700-20270314:0230", ["2027-03-13 22:00", "2027-03-14 07:30"]),
        ("20261123:0000-20261123:2400", ["2026-11-23 05:00", "2026-11-24 05:00"]),
    ],
)
def test_hours_that_the_clock_repeats_or_leaves_out(
    text: str, session: list[str]
) -> None:
    hours = ib_sessions(text, "America/New_York")
    assert texts(hours.between(0, FOREVER_NS)) == session


def test_without_any_hours_a_market_is_always_open() -> None:
    for text in ("", " ;; "):
        assert ib_sessions(text, "US/Eastern").for_engine(0, 1) is None


def test_days_that_are_all_closed_are_known_to_be_closed() -> None:
    hours = ib_sessions("20261128:CLOSED;20261129:CLOSED", "US/Eastern")
    assert len(hours.between(0, FOREVER_NS)) == 0
    assert not hours.is_open(ns("2026-11-28 15:00"))
    assert hours.next_change(0) is None
    spans = hours.for_engine(0, FOREVER_NS)
    assert spans is not None
    assert texts(spans[:, 0][1:]) == ["2026-11-30 05:00"]
    assert texts(spans[:, 1][:1]) == ["2026-11-28 05:00"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("20261123", "are not like 20261123:0930-20261123:1600"),
        ("20261123:0930-1600", "are not like"),
        ("20261123:OPEN", "are not like"),
        ("20261323:CLOSED", "no day 20261323"),
        ("20261123:0930-20261123:2560", "no time 2560"),
        ("20261123:2430-20261124:1600", "no time 2430"),
        ("20261123:1600-20261123:0930", "end before they begin"),
    ],
)
def test_hours_that_are_not_understood_are_told(text: str, why: str) -> None:
    with pytest.raises(pk.PikerError, match=why):
        ib_sessions(text, "US/Eastern")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("US/Eastern", "US/Eastern"),
        ("EST (Eastern Standard Time)", "America/New_York"),
        ("JST", "Asia/Tokyo"),
        ("MET", "MET"),
        ("HKT", "Asia/Hong_Kong"),
        ("AEST", "Australia/Sydney"),
        ("Asia/Hong_Kong", "Asia/Hong_Kong"),
    ],
)
def test_zones_are_found_by_the_names_that_brokers_use(name: str, key: str) -> None:
    assert find_zone(name).key == key


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../../etc/passwd", "America"])
def test_an_unknown_zone_is_told(name: str) -> None:
    with pytest.raises(pk.PikerError, match="there is no time zone"):
        find_zone(name)


# The surface

LISTS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple), max_size=8
)


@given(spans=LISTS, start=st.integers(-5, 70), length=st.integers(0, 70))
def test_sessions_are_what_a_plain_list_says(
    spans: list[tuple[int, int]], start: int, length: int
) -> None:
    sessions = Sessions("plain", spans)
    open_ = [any(o <= t < c for o, c in spans) for t in range(-9, 80)]

    def is_open(time: int) -> bool:
        return open_[time + 9]

    assert [sessions.is_open(t) for t in range(-9, 80)] == open_
    changes = [t for t in range(-8, 80) if is_open(t) != is_open(t - 1)]
    for time in range(-9, 70):
        later = [change for change in changes if change > time]
        assert sessions.next_change(time) == (later[0] if later else None)
    found = sessions.between(start, start + length)
    runs = list(zip(changes[::2], changes[1::2], strict=True))
    overlapping = [(o, c) for o, c in runs if c > start and o < start + length]
    assert [tuple(row) for row in found.tolist()] == overlapping
    assert found.dtype == np.int64 and found.shape == (len(overlapping), 2)


@given(
    spans=LISTS,
    known=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    asked=st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
def test_an_engine_is_told_that_what_is_not_known_is_open(
    spans: list[tuple[int, int]], known: tuple[int, int], asked: tuple[int, int]
) -> None:
    sessions = Sessions("plain", spans, since_ns=known[0], until_ns=known[1])
    told = sessions.for_engine(*asked)
    assert told is not None
    both = range(max(known[0], asked[0]), min(known[1], asked[1]))
    for time in range(70):
        wanted = time not in both or any(o <= time < c for o, c in spans)
        assert any(o <= time < c for o, c in told.tolist()) == wanted
    assert told[-1, 1] == FOREVER_NS
    session_array(told)  # as an engine checks it
