"""Parts of the simulated gateway: hours, contracts, frames, pacing; recordings."""

import json
import math
import re
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ib_venue_client import AAPL, NEW, Client, open_client

from providers.ib.venue import HistoryLimits, Hours, Tape, Venue, open_venue
from providers.ib.venue_contracts import (
    expiries,
    list_contracts,
    select_contracts,
    third_friday,
)
from providers.ib.venue_directory import Directory, Refused, Wanted
from providers.ib.venue_frames import (
    Fields,
    ascii_text,
    decimal_text,
    frame,
    size_text,
    time_text,
)
from providers.ib.venue_hours import CME, FOREX, US_STOCKS, always
from providers.ib.venue_market import ContractMarket
from providers.ib.venue_pacing import Pacing

NS = 10**9
MONDAY = date(2026, 11, 23)
SPRING = date(2027, 3, 15)
"""A Monday after the clocks of the United States went forward."""


def at(text: str) -> int:
    """A UTC time in Unix s."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


# Hours


def test_a_day_of_stocks_begins_at_four_and_is_liquid_from_half_past_nine() -> None:
    (trading,) = US_STOCKS.day_sessions(MONDAY)
    (liquid,) = US_STOCKS.day_sessions(MONDAY, rth=True)
    assert trading == (MONDAY, at("2026-11-23T09:00"), at("2026-11-24T01:00"))
    assert liquid == (MONDAY, at("2026-11-23T14:30"), at("2026-11-23T21:00"))
    (summer,) = US_STOCKS.day_sessions(SPRING, rth=True)
    assert summer.begin_s == at("2027-03-15T13:30")


def test_a_day_of_futures_begins_on_the_eve() -> None:
    (session,) = CME.day_sessions(MONDAY)
    assert session == (MONDAY, at("2026-11-22T23:00"), at("2026-11-23T22:00"))
    assert CME.at(at("2026-11-23T00:00")) == session
    assert CME.at(at("2026-11-23T22:30")) is None
    assert CME.following(at("2026-11-21T12:00")) == session
    assert CME.trading_day(at("2026-11-23T22:30")) == session
    assert CME.at(at("2026-11-23T12:00"), rth=True) is None


def test_hours_are_written_as_recorded() -> None:
    now_s = at("2026-11-21T15:00")
    assert US_STOCKS.text(now_s, days=3) == (
        "20261121:CLOSED;20261122:CLOSED;20261123:0400-20261123:2000"
    )
    assert CME.text(now_s, days=3) == (
        "20261121:CLOSED;20261122:CLOSED;20261122:1700-20261123:1600"
    )
    assert FOREX.text(at("2026-11-24T15:00"), days=1) == "20261123:1715-20261124:1700"
    assert always("UTC").text(now_s, days=2) == (
        "20261121:0000-20261122:0000;20261122:0000-20261123:0000"
    )


def test_trading_days_count_back_over_weekends_and_holidays() -> None:
    hours = Hours(
        zone="US/Eastern",
        trading=((570, 960),),
        weekdays=(0, 1, 2, 3, 4),
        holidays=frozenset({date(2026, 11, 26)}),
    )
    found = hours.before(at("2026-11-30T16:00"), False, 4)
    assert [row.day.day for row in found] == [24, 25, 27, 30]
    assert hours.following(at("2026-11-26T15:00")).day == date(2026, 11, 27)


def test_hours_that_never_open_or_overlap_are_a_valueerror() -> None:
    with pytest.raises(ValueError, match="stay closed"):
        Hours(zone="UTC", weekdays=()).following(0)
    with pytest.raises(ValueError, match="overlap"):
        Hours(zone="UTC", trading=((0, 600), (500, 900))).day_sessions(MONDAY)


@given(st.lists(st.integers(0, 10 * 86_400 * NS), min_size=1, max_size=60))
def test_times_are_moved_out_of_closed_hours_and_keep_their_order(
    offsets: list[int],
) -> None:
    begin_ns = at("2026-11-18T00:00") * NS
    times = np.array(sorted(offsets), np.int64) + begin_ns
    moved = times.copy()
    US_STOCKS.shift_open(moved)
    assert all(US_STOCKS.at(int(each) // NS) for each in moved)
    assert (moved >= times).all()
    assert (np.diff(moved) >= 0).all()
    same = [int(each) for each in np.diff(times)]
    steps = [int(each) for each in np.diff(moved)]
    assert all(step >= before for step, before in zip(steps, same, strict=True))


# Contracts


def test_expiries_are_third_fridays_after_a_week_from_now() -> None:
    assert third_friday(2026, 12) == date(2026, 12, 18)
    assert third_friday(2027, 1) == date(2027, 1, 15)
    quarterly = expiries(date(2026, 12, 11), 3)
    assert [next(quarterly) for _ in range(2)] == [
        date(2027, 3, 19),
        date(2027, 6, 18),
    ]
    assert next(expiries(date(2026, 12, 10), 3)) == date(2026, 12, 18)


def test_the_catalogue_names_each_contract_once() -> None:
    rows = list_contracts(MONDAY)
    assert len({row.con_id for row in rows}) == len(rows)
    assert len({row.symbol for row in rows}) == len(rows)
    assert math.isclose(sum(row.live_share for row in rows), 1.0)
    kinds = {row.sec_type for row in rows}
    assert kinds == {"STK", "FUT", "OPT", "CASH", "IND", "CRYPTO"}
    names = {row.symbol for row in rows}
    assert {"ESZ6", "ESH7", "MNQZ6", "AAPL  261218C00270000"} <= names
    chosen = select_contracts(["AAPL", "265598", rows[1]], MONDAY)
    assert [row.symbol for row in chosen] == ["AAPL", "MSFT"]
    with pytest.raises(ValueError, match="contracts is empty"):
        select_contracts([], MONDAY)


@pytest.fixture(scope="module")
def markets() -> list[ContractMarket]:
    """Every market, with a minute of history."""
    return [
        ContractMarket(
            row,
            1,
            start_ns=at("2026-11-23T15:00") * NS,
            history_s=60,
            live_rate=1,
            history_rate=10,
        )
        for row in list_contracts(MONDAY)
    ]


def wanted(**named: Any) -> Wanted:
    """A request's contract."""
    empty = dict.fromkeys(Wanted._fields, "") | {"con_id": 0, "strike": 0.0}
    return Wanted(**{**empty, **named})


def test_a_contract_is_resolved_only_if_it_is_one(
    markets: list[ContractMarket],
) -> None:
    directory = Directory(markets)
    stock = wanted(ticker="AAPL", sec_type="STK", exchange="SMART")
    assert directory.resolve(stock).contract.con_id == 265598
    for request, code in (
        (stock._replace(exchange=""), 321),
        (stock._replace(exchange="MOON"), 200),
        (stock._replace(sec_type=""), 321),
        (stock._replace(ticker=""), 200),
        (wanted(ticker="ES", sec_type="FUT", exchange="CME"), 200),
        (wanted(con_id=1, exchange="SMART"), 200),
    ):
        with pytest.raises(Refused) as refused:
            directory.resolve(request)
        assert refused.value.code == code
    future = wanted(ticker="ES", sec_type="CONTFUT", exchange="GLOBEX")
    assert directory.resolve(future).contract.symbol == "ESZ6"


def test_sizes_are_whole_steps_and_quotes_are_on_record(
    markets: list[ContractMarket],
) -> None:
    for market in markets:
        step = market.pair.step_units
        assert (market.rows()["size"] % step == 0).all()
        quotes = market.quotes()
        assert len(quotes) > 1 or not market.pair.history_share
        assert (quotes["bid"] < quotes["ask"]).all()
        assert (quotes["bid_size"] % step == 0).all()
        assert (np.diff(quotes["time_ns"]) >= 0).all()
        tick = market.pair.tick_units
        assert ((quotes["ask"] - quotes["bid"]) % tick == 0).all()


def test_nothing_is_quoted_or_traded_while_the_hours_are_closed() -> None:
    stock = select_contracts(["AAPL"], MONDAY)[0]
    start_ns = at("2026-11-21T15:00") * NS
    market = ContractMarket(
        stock,
        1,
        start_ns=start_ns,
        history_s=86_400,
        live_rate=10,
        history_rate=1,
        keep_hours=True,
    )
    assert market.rows()["time_ns"][-1] < at("2026-11-21T01:00") * NS
    stamps = market.quotes()["time_ns"] // NS
    assert len(stamps) > 10
    assert all(market.hours.at(int(stamp)) for stamp in stamps)
    before = market.quote
    assert market.flutter(start_ns + NS) is before
    opening_ns = at("2026-11-23T09:00") * NS
    assert market.next_quote_ns == opening_ns
    assert (market.due_ns() or 0) >= opening_ns
    assert market.release(opening_ns - 1) == []
    assert market.release(opening_ns + 60 * NS)


# Frames


def test_a_frame_is_a_length_and_fields_with_ends() -> None:
    assert frame(49, 1, True, None, "x") == b"\0\0\0\x0a49\x001\x001\0\0x\0"
    fields = Fields(b"1\x00\x002.5\x001\x00x\x00")
    assert (fields.integer(), fields.text(), fields.number()) == (1, "", 2.5)
    assert fields.flag()
    with pytest.raises(Refused, match='For input string: "x"'):
        fields.integer()
    with pytest.raises(Refused, match="Too short"):
        fields.text()


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [
        (44360, 2, "443.60"),
        (Fraction(88721, 2), 2, "443.605"),
        (5, 0, "5"),
        (50, 0, "50"),
        (108505, 5, "1.08505"),
        (-1, 2, "-0.01"),
    ],
)
def test_prices_have_the_decimals_of_the_contract_and_midpoints_one_more(
    units: int | Fraction, decimals: int, text: str
) -> None:
    assert decimal_text(units, decimals) == text


def test_sizes_are_whole_for_old_versions_and_in_lots_when_asked() -> None:
    assert size_text(150 * 10**8, 178) == "150"
    assert size_text(12345, 178) == "0.00012345"
    assert size_text(12345, 162) == "0"
    assert size_text(250 * 10**8, 157, lot=100) == "2"
    assert size_text(-1, 178) == "-1"
    contract = select_contracts(["AAPL", "ESZ6", "AMD@IBIS"], MONDAY)
    lots = [Tape().lot_of(row, 157) for row in contract]
    assert lots == [100, 1, 1]
    assert [Tape().lot_of(row, 164) for row in contract] == [1, 1, 1]


def test_names_are_seven_bit_and_times_in_the_versions_zone() -> None:
    assert ascii_text("Société") == r"Soci\xe9t\xe9"
    noon = at("2026-11-23T17:00")
    assert time_text(noon, "US/Eastern", 174) == "20261123 12:00:00 US/Eastern"
    assert time_text(noon, "US/Eastern", 173) == "20261123  17:00:00"


# Pacing


def test_windows_of_pacing_slide() -> None:
    pacing = Pacing(HistoryLimits(requests=3, same=10))
    assert [pacing.take(second, "a", second) for second in (0, 100, 599, 599.5)] == [
        *(True, True, True, False)
    ]
    assert pacing.take(700, "a", 700) is True
    pacing = Pacing(HistoryLimits())
    assert pacing.take(0, "a", "x")
    assert not pacing.take(14.9, "a", "x")
    assert not pacing.take(15, "a", "x")
    assert pacing.take(30, "a", "x")
    taken = [pacing.take(60 + number / 10, "b", number) for number in range(6)]
    assert taken == [True] * 5 + [False]
    assert pacing.take(60.5, "c", 9)


# Recorded layouts


def recorded(captures: Path, kind: int) -> list[list[str]]:
    """Recorded messages of a kind, as fields."""
    lines = (captures / "ib" / "wire_messages.jsonl").read_text().splitlines()
    rows = [json.loads(line)["message"].split("\0") for line in lines]
    return [row[:-1] for row in rows if row[0] == str(kind) and len(row) > 4]


def form(text: str) -> str:
    """How a field is written."""
    for name, pattern in (
        ("hours", r"\d{8}:\d{4}-.*"),
        ("whole", r"-?\d+"),
        ("decimal", r"-?\d+\.\d+"),
        ("list", r"[A-Z0-9]+(,[A-Z0-9]+)+"),
    ):
        if re.fullmatch(pattern, text):
            return name
    return "text" if text else "empty"


async def test_contract_details_are_laid_out_as_recorded(captures: Path) -> None:
    rows = [row for row in recorded(captures, 10) if "TSLA" in row or "ES" in row]
    stock = next(row for row in rows if row[3] == "STK" and len(row[15]) > 200)
    future = next(row for row in rows if row[3] == "FUT")
    async with open_venue(history_s=60, server_version=NEW) as venue:
        async with open_client(venue) as client:
            (own,) = await client.details(9001, {**AAPL, "symbol": "TSLA"})
            wanted = {"symbol": "ES", "sec_type": "FUT", "exchange": "CME"}
            own_future, _ = await client.details(9000, wanted)
    assert own[:14] == stock[:14]
    assert [form(text) for text in own[25:42]] == [form(text) for text in stock[25:42]]
    assert len(own_future) == len(future)
    forms = [form(text) for text in own_future]
    differ = [at for at, text in enumerate(future) if form(text) != forms[at]]
    assert not differ, [(future[at], own_future[at]) for at in differ]


async def test_ticks_and_history_are_laid_out_as_recorded(captures: Path) -> None:
    (trades, *_) = recorded(captures, 98)
    (quotes, *_) = recorded(captures, 97)
    (middles, *_) = recorded(captures, 96)
    bars = recorded(captures, 17)[0]
    async with open_venue(history_s=120, server_version=NEW) as venue:
        async with open_client(venue) as client:
            got = await everything(client, venue)
    assert [form(text) for text in got[0][:4]] == [form(text) for text in trades[3:7]]
    assert [form(text) for text in got[1]] == [form(text) for text in quotes[3:9]]
    assert [form(text) for text in got[2]] == [form(text) for text in middles[3:7]]
    assert len(got[3]) == (len(bars) - 5) / int(bars[4])


async def everything(client: Client, venue: Venue) -> list[list[str]]:
    """A row of each kind of history."""
    first = datetime.fromtimestamp(venue.trades("AAPL")[0].time_ns // NS, UTC)
    asked: dict[str, Any] = {"start": f"{first:%Y%m%d-%H:%M:%S}", "number": 1}
    return [
        (await client.ticks(number, AAPL, what=what, **asked))[0]
        for number, what in enumerate(("TRADES", "BID_ASK", "MIDPOINT"))
    ] + [(await client.bars(9, AAPL, duration="60 S"))[0]]


async def test_live_messages_are_laid_out_as_recorded(captures: Path) -> None:
    async with open_venue(
        seed=1, history_s=60, live_rate=200, server_version=NEW
    ) as venue:
        async with open_client(venue) as client:
            await client.market_data(9001, AAPL)
            await client.wait_id(45)
            await client.tick_by_tick(9002, AAPL)
            by_tick = await client.wait_id(99)
    for kind in (1, 2, 45, 46):
        own = next(row for row in client.frames if row[0] == str(kind))
        lengths = {len(row) for row in recorded(captures, kind)}
        assert len(own) in lengths
    known = next(row for row in recorded(captures, 99) if row[2] == "1")
    assert len(by_tick) == len(known)
    assert [form(text) for text in by_tick[:7]] == [form(text) for text in known[:7]]
