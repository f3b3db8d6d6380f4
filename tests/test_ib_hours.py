"""Trading hours out of TWS's texts: recorded ones, both forms, clock changes."""

import ast
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from piker_core.calendars import NS
from piker_core.errors import PikerError
from providers.ib.archive import utc_text
from providers.ib.hours import contract_hours


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * NS


STOCK = "20261123:0930-20261123:1600;20261124:CLOSED;20261125:0930-20261125:1300"
FUTURE = (
    "20261122:CLOSED;20261122:1700-20261123:1600;20261123:1700-20261124:1600;"
    "20261124:1700-20261125:1600;20261125:1700-20261126:1200;20261128:CLOSED"
)


def test_spans_are_open_times_in_utc() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    day = hours.spans(at("2026-11-23T00:00"), at("2026-11-25T23:00"))
    assert day == [
        (at("2026-11-23T14:30"), at("2026-11-23T21:00")),
        (at("2026-11-25T14:30"), at("2026-11-25T18:00")),
    ]
    assert hours.is_open(at("2026-11-23T14:30"))
    assert not hours.is_open(at("2026-11-23T21:00"))
    assert not hours.is_open(at("2026-11-24T15:00"))


def test_spans_are_cut_to_what_is_asked_for() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    start, end = at("2026-11-23T15:00"), at("2026-11-23T16:00")
    assert hours.spans(start, end) == [(start, end)]
    assert hours.spans(end, start) == []


def test_a_session_may_begin_on_the_evening_before() -> None:
    hours = contract_hours(FUTURE, "US/Central")
    assert hours.is_open(at("2026-11-22T23:00"))
    assert hours.next_change(at("2026-11-23T12:00")) == at("2026-11-23T22:00")
    assert hours.next_change(at("2026-11-23T22:30")) == at("2026-11-23T23:00")
    assert hours.last_open_ns(at("2026-11-23T22:30")) == at("2026-11-23T22:00")
    assert hours.last_open_ns(at("2026-11-23T12:00")) == at("2026-11-23T12:00")


def test_days_that_are_not_told_are_like_their_weekday() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    assert hours.is_open(at("2026-11-16T15:00"))  # a Monday
    assert not hours.is_open(at("2026-11-21T15:00"))  # of Saturdays nothing
    future = contract_hours(FUTURE, "US/Central")
    assert future.is_open(at("2026-11-15T23:30"))  # Monday's begins on Sunday
    assert not future.is_open(at("2026-11-14T23:30"))


def test_a_holiday_says_nothing_of_its_weekday() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    assert not hours.is_open(at("2026-11-24T15:00"))  # it is told as closed
    assert hours.is_open(at("2026-11-17T15:00"))  # the Tuesday before
    assert hours.is_open(at("2026-11-18T20:00"))  # a Wednesday is not always short


def test_a_weekday_of_which_nothing_is_told_is_a_working_day() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    assert hours.is_open(at("2026-11-20T15:00"))  # a Friday


def test_local_times_follow_the_clock_change() -> None:
    hours = contract_hours("20080310:0930-20080310:1600", "EST (Eastern Standard Time)")
    assert hours.is_open(at("2008-03-10T13:30"))  # summer time since the 9th
    assert not hours.is_open(at("2008-03-03T14:29"))
    assert hours.is_open(at("2008-03-03T14:30"))  # the Monday before, still winter


def test_sessions_that_touch_are_one() -> None:
    text = "20261123:0000-20261123:2359;20261124:0000-20261124:2359"
    hours = contract_hours(text, "UTC")
    assert hours.same_session(
        at("2026-11-23T23:50") // NS, at("2026-11-24T00:10") // NS
    )
    closing = contract_hours(FUTURE, "US/Central")
    first, second = at("2026-11-23T21:00") // NS, at("2026-11-23T23:30") // NS
    assert not closing.same_session(first, second)


def test_a_day_may_end_with_its_last_minute() -> None:
    hours = contract_hours("20180323:0000-20180323:2400", "UTC")
    assert hours.spans(at("2018-03-23T00:00"), at("2018-03-25T00:00")) == [
        (at("2018-03-23T00:00"), at("2018-03-24T00:00"))
    ]


def test_an_engine_is_told_of_weeks_that_the_text_does_not_reach() -> None:
    hours = contract_hours(STOCK, "US/Eastern")
    start, end = at("2026-11-15T00:00"), at("2026-11-24T00:00")
    spans = hours.for_engine(start, end)
    assert spans is not None
    told = spans[(start <= spans[:, 0]) & (spans[:, 0] < end)]
    assert told.tolist() == [
        [at(f"2026-11-{day}T14:30"), at(f"2026-11-{day}T21:00")]
        for day in (16, 17, 18, 19, 20, 23)
    ]
    assert hours.told_until_ns == at("2026-11-26T05:00")


def test_several_sessions_of_a_day_are_read() -> None:
    day = "20090507:0700-20090507:1830,20090507:1930-20090507:2330"
    hours = contract_hours(f"{day};20090508:CLOSED", "UTC")
    assert not hours.is_open(at("2009-05-07T19:00"))
    assert hours.is_open(at("2009-05-07T20:00"))


def test_no_text_is_always_open() -> None:
    hours = contract_hours("", "")
    assert hours.for_engine(0, 1) is None
    assert hours.is_open(at("2026-11-22T03:00"))
    assert hours.last_open_ns(at("2026-11-22T03:00")) == at("2026-11-22T03:00")


@pytest.mark.parametrize(
    ("text", "zone", "named"),
    [
        ("09:30-16:00", "UTC", "hours '09:30-16:00'"),
        ("20261123:noon", "UTC", "hours '20261123:noon'"),
        (STOCK, "Mars/Olympus", "time zone 'Mars/Olympus'"),
    ],
)
def test_what_is_no_text_of_hours_is_an_error_that_names_it(
    text: str, zone: str, named: str
) -> None:
    with pytest.raises(PikerError, match=named):
        contract_hours(text, zone)


def test_recorded_hours_are_understood(captures: Path) -> None:
    path = captures / "ib" / "ib_async_notebook_contract_details_outputs.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    found = [text for text in texts if "liquidHours='" in text]
    assert found
    for text in found:
        fields = dict(
            re.findall(r"(timeZoneId|tradingHours|liquidHours)=('[^']*')", text)
        )
        zone = ast.literal_eval(fields["timeZoneId"])
        trading = contract_hours(ast.literal_eval(fields["tradingHours"]), zone)
        liquid = contract_hours(ast.literal_eval(fields["liquidHours"]), zone)
        assert trading.is_open(at("2020-01-02T10:00"))
        assert not liquid.is_open(at("2020-01-02T10:00"))
        assert liquid.is_open(at("2020-01-02T15:00"))
        assert not trading.is_open(at("2020-01-01T15:00"))  # New Year's Day


def test_times_of_requests_are_utc() -> None:
    assert utc_text(at("2026-11-23T14:30:05")) == "20261123-14:30:05"
