"""Pages of the simulated Binance's history: trades, aggregates, klines."""

import itertools
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from binance_venue_client import Caller, open_caller

from providers.binance.venue import API_KEY, Venue, VenueTrade, open_venue

NS = 10**9
MS = 10**6
NAMES = ["btcusdt", "btcusdt.usdtm.perp"]


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    async with open_venue(seed=2, live_rate=50) as opened:
        yield opened


@pytest.fixture
async def spot(venue: Venue) -> AsyncIterator[Caller]:
    async with open_caller(venue) as caller:
        yield caller


def side(venue: Venue, name: str) -> Any:
    """A caller of the side a name belongs to."""
    return open_caller(venue, usdm="." in name)


def as_row(trade: VenueTrade) -> tuple[Any, ...]:
    """A trade the venue knows as the values of its row."""
    return (
        trade.trade_id,
        trade.exact_price,
        trade.exact_size,
        trade.exact_price * trade.exact_size,
        trade.time_ns // MS,
        trade.side == "sell",
    )


def from_row(row: dict[str, Any]) -> tuple[Any, ...]:
    """The same of a row of `trades`."""
    figures = (Decimal(row[key]) for key in ("price", "qty", "quoteQty"))
    return (row["id"], *figures, row["time"], row["isBuyerMaker"])


# Trades


@pytest.mark.parametrize("name", NAMES)
async def test_old_trades_joined_by_id_are_the_trades_of_the_venue(
    venue: Venue, name: str
) -> None:
    most = 500 if "." in name else 1000
    joined: list[dict[str, Any]] = []
    at = venue.market(name).pair.first_id
    async with side(venue, name) as caller:
        while True:
            call = f"historicalTrades?symbol=BTCUSDT&fromId={at}&limit={most}"
            rows = await caller.get(call, **{"X-MBX-APIKEY": API_KEY})
            joined += rows
            if len(rows) < most:
                break
            at = rows[-1]["id"] + 1
    truth = venue.trades(name)[: len(joined)]
    assert [from_row(row) for row in joined] == [as_row(row) for row in truth]
    assert len(joined) > 2000


async def test_without_an_id_the_newest_trades_come(venue: Venue, spot: Caller) -> None:
    for method in ("trades", "historicalTrades"):
        rows = await spot.get(f"{method}?symbol=BTCUSDT")
        ids = [row["id"] for row in rows]
        assert ids == list(range(ids[0], ids[0] + 500))
        assert len(await spot.get(f"{method}?symbol=BTCUSDT&limit=5000")) == 1000
        truth = {row.trade_id: as_row(row) for row in venue.trades("BTCUSDT")}
        assert [from_row(row) for row in rows] == [truth[number] for number in ids]


async def test_an_id_before_the_first_or_after_the_last_is_no_error(
    venue: Venue, spot: Caller
) -> None:
    pair = venue.market("BTCUSDT").pair
    (row,) = await spot.get("historicalTrades?symbol=BTCUSDT&fromId=0&limit=1")
    assert row["id"] == pair.first_id
    (row,) = await spot.get("aggTrades?symbol=BTCUSDT&fromId=0&limit=1")
    assert row["a"] == pair.first_group
    later = 9 * 10**15
    for method in ("historicalTrades", "aggTrades"):
        assert await spot.get(f"{method}?symbol=BTCUSDT&fromId={later}") == []


# Aggregates


@pytest.mark.parametrize("name", NAMES)
async def test_aggregates_joined_by_id_stand_for_all_trades(
    venue: Venue, name: str
) -> None:
    joined: list[dict[str, Any]] = []
    at = venue.market(name).pair.first_group
    rows: list[dict[str, Any]] = []
    async with side(venue, name) as caller:
        while len(rows) in (0, 1000):
            rows = await caller.get(f"aggTrades?symbol=BTCUSDT&fromId={at}&limit=1000")
            joined += rows
            at = rows[-1]["a"] + 1
    assert [row["a"] for row in joined] == list(range(joined[0]["a"], at))
    truth = venue.trades(name)
    begin = 0
    for before, row in itertools.pairwise([None, *joined]):
        assert row is not None
        count = row["l"] - row["f"] + 1
        inside = truth[begin : begin + count]
        begin += count
        assert inside[0].trade_id == row["f"]
        facts = {(part.time_ns, part.exact_price, part.side) for part in inside}
        ((time_ns, price, taker),) = facts
        assert (row["T"], Decimal(row["p"])) == (time_ns // MS, price)
        assert row["m"] == (taker == "sell")
        assert Decimal(row["q"]) == sum(part.exact_size for part in inside)
        if before is not None and before["l"] + 1 == row["f"]:
            ended = truth[begin - count - 1]
            assert (ended.time_ns, ended.exact_price) != (time_ns, price)
    assert begin > 2000
    assert max(row["l"] - row["f"] for row in joined) > 1


async def test_bounds_of_a_span_are_inclusive_at_both_ends(
    venue: Venue, spot: Caller
) -> None:
    every = await spot.get("aggTrades?symbol=BTCUSDT&fromId=0&limit=1000")
    first, last = every[200], every[700]
    span = f"startTime={first['T']}&endTime={last['T']}"
    rows = await spot.get(f"aggTrades?symbol=BTCUSDT&{span}&limit=1000")
    assert rows == [row for row in every if first["T"] <= row["T"] <= last["T"]]
    in_us = f"startTime={first['T'] * 1000}&endTime={last['T'] * 1000 + 999}"
    assert rows == await spot.get(f"aggTrades?symbol=BTCUSDT&{in_us}&limit=1000")
    later = await spot.get(
        f"aggTrades?symbol=BTCUSDT&startTime={last['T'] + 1}&limit=1"
    )
    assert later[0]["T"] > last["T"]
    same = f"startTime={first['T']}&endTime={first['T']}"
    assert first in await spot.get(f"aggTrades?symbol=BTCUSDT&{same}")
    backwards = f"startTime={last['T']}&endTime={first['T'] - 1}"
    assert await spot.get(f"aggTrades?symbol=BTCUSDT&{backwards}") == []


async def test_a_span_gives_its_oldest_an_end_alone_the_newest_up_to_it(
    venue: Venue, spot: Caller
) -> None:
    every = await spot.get("aggTrades?symbol=BTCUSDT&fromId=0&limit=1000")
    first, last = every[200], every[700]
    span = f"startTime={first['T']}&endTime={last['T']}"
    both = await spot.get(f"aggTrades?symbol=BTCUSDT&{span}&limit=10")
    start = await spot.get(f"aggTrades?symbol=BTCUSDT&startTime={first['T']}&limit=10")
    assert both == start
    assert both[0] == next(row for row in every if row["T"] == first["T"])
    end = await spot.get(f"aggTrades?symbol=BTCUSDT&endTime={last['T']}&limit=10")
    inside = [row for row in every if row["T"] <= last["T"]]
    assert end == inside[-10:]
    newest = await spot.get("aggTrades?symbol=BTCUSDT")
    assert len(newest) == 500
    assert newest[-1]["l"] <= venue.trades("BTCUSDT")[-1].trade_id


# Klines


def from_kline(row: list[Any]) -> tuple[Any, ...]:
    """Open time in s, prices, volume, turnover and count of a row of `klines`."""
    figures = [Decimal(row[column]) for column in (1, 2, 3, 4, 5, 7)]
    return (row[0] // 1000, *figures, row[8])


def truth_of(venue: Venue, name: str, period_s: int) -> list[tuple[Any, ...]]:
    """The same of the venue's candles."""
    fields = ("time_s", "open", "high", "low", "close", "volume", "notional", "count")
    return [
        tuple(getattr(row, field) for field in fields)
        for row in venue.candles(name, period_s, 0, 2**40)
    ]


PERIODS = {"1s": 1, "1m": 60, "3m": 180, "15m": 900, "1h": 3600, "4h": 14400}
PERIODS |= {"1d": 86400}


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        (name, interval)
        for name in (*NAMES, "xrpeth", "dogeusdt")
        for interval in PERIODS
        if "." not in name or interval != "1s"
    ],
)
async def test_klines_are_the_candles_of_the_venue(
    venue: Venue, name: str, interval: str
) -> None:
    symbol = name.partition(".")[0].upper()
    async with side(venue, name) as caller:
        call = f"klines?symbol={symbol}&interval={interval}&limit=1000"
        rows = await caller.get(f"{call}&startTime=0")
        newest = await caller.get(call)
    truth = truth_of(venue, name, PERIODS[interval])
    times = [row[0] // 1000 for row in rows]
    period_s = PERIODS[interval]
    assert times == list(range(times[0], times[0] + len(rows) * period_s, period_s))
    closed = [row for row in rows if row[6] < time.time_ns() // MS - 2000]
    assert [from_kline(row) for row in closed] == truth[: len(closed)]
    assert all(row[6] == row[0] + period_s * 1000 - 1 for row in rows)
    # the clock may have gone on to the next bar meanwhile
    assert newest[-1][6] > time.time_ns() // MS - 3000
    assert len(rows) == 1000 or len(truth) - len(rows) in (0, 1)


async def test_taker_columns_are_of_the_trades_whose_taker_bought(
    venue: Venue, spot: Caller
) -> None:
    rows = await spot.get("klines?symbol=BTCUSDT&interval=1m&startTime=0&limit=20")
    for row in rows:
        bought = [
            trade
            for trade in venue.trades("BTCUSDT")
            if row[0] <= trade.time_ns // MS <= row[6] and trade.side == "buy"
        ]
        assert Decimal(row[9]) == sum(trade.exact_size for trade in bought)
        assert Decimal(row[10]) == sum(
            trade.exact_size * trade.exact_price for trade in bought
        )


async def test_bounds_of_klines_are_those_of_their_opens(spot: Caller) -> None:
    call = "klines?symbol=BTCUSDT&interval=1m"
    every = await spot.get(f"{call}&startTime=0&limit=1000")
    first, last = every[10][0], every[20][0]
    span = await spot.get(f"{call}&startTime={first}&endTime={last}")
    assert span == every[10:21]
    inner = await spot.get(f"{call}&startTime={first + 1}&endTime={last - 1}")
    assert inner == every[11:20]
    assert await spot.get(f"{call}&startTime={first}&endTime={first}") == [every[10]]
    assert await spot.get(f"{call}&startTime={last}&endTime={first}") == []
    assert (await spot.get(f"{call}&startTime={first}&limit=3")) == every[10:13]
    assert (await spot.get(f"{call}&endTime={last}&limit=3")) == every[18:21]
    both = f"startTime={first}&endTime={last}&limit=3"
    assert await spot.get(f"{call}&{both}") == every[10:13]


async def test_no_more_rows_come_than_the_venue_gives(venue: Venue) -> None:
    for usdm, interval, default, most in ((False, "1s", 500, 1000), (True, "1m", 0, 0)):
        async with open_caller(venue, usdm=usdm) as caller:
            call = f"klines?symbol=BTCUSDT&interval={interval}"
            if most:
                assert len(await caller.get(call)) == default
                assert len(await caller.get(f"{call}&limit=5000")) == most
            else:
                rows = await caller.get(f"{call}&limit=1500")
                assert 119 <= len(rows) <= 122


async def test_pages_of_klines_joined_by_their_opens_have_no_hole(
    venue: Venue, spot: Caller
) -> None:
    joined: list[list[Any]] = []
    at = 0
    while True:
        call = f"klines?symbol=XRPETH&interval=1s&startTime={at}&limit=1000"
        rows = await spot.get(call)
        joined += rows
        if len(rows) < 1000:
            break
        at = rows[-1][0] + 1
    times = [row[0] for row in joined]
    assert times == list(range(times[0], times[0] + 1000 * len(times), 1000))
    truth = truth_of(venue, "xrpeth", 1)
    assert [from_kline(row) for row in joined[:-3]] == truth[: len(joined) - 3]
    flat = [row for row in joined if not row[8]]
    assert len(flat) > 5000
    assert {row[5] for row in flat} == {"0.00000000"}


@pytest.mark.parametrize("interval", ["3d", "1w", "1M"])
async def test_long_klines_are_sums_of_days(
    venue: Venue, spot: Caller, interval: str
) -> None:
    call = f"klines?symbol=BTCUSDT&interval={interval}"
    (row,) = (await spot.get(call))[-1:]
    opened = time.gmtime(row[0] // 1000)
    if interval == "1w":
        assert opened.tm_wday == 0
    if interval == "1M":
        assert opened.tm_mday == 1
    assert opened.tm_hour == opened.tm_min == 0
    assert row[0] <= time.time_ns() // MS <= row[6]
    rows = await spot.get(f"{call}&startTime=0")
    truth = venue.trades("BTCUSDT")
    assert sum(row[8] for row in rows) <= len(truth)
    assert sum(row[8] for row in rows) > len(truth) - 200
    assert Decimal(rows[0][1]) == truth[0].exact_price
