"""Binance's history: klines paged without loss, bars of aggregates, honest ends."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pendulum
import pytest
import trio
import trio.testing

import piker_core as pk
from providers.binance.history import open_history_client
from tests.binance_answers import SPOT, Venue, error, ok

NOW_S = 1_790_000_040  # 2026-09-21 14:14:00 UTC
HOUR_S = 3600
PRICES = ("open", "high", "low", "close")


def moment(time_s: float) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)


class Klines(Venue):
    """Klines of one market since its listing, as the venue pages them.

    Every seventh is without trades; those in `absent` are left out.
    """

    def __init__(self, listed_s: int, *, absent: set[int] | None = None) -> None:
        super().__init__()
        self.listed_s = listed_s
        self.absent = absent or set()
        self.ended_s = 2**40

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("exchangeInfo"):
            return ok(SPOT | {"serverTime": int(time.time() * 1000)})
        self.calls.append(request)
        query = request.url.params
        period = {"1s": 1, "1m": 60, "1h": 3600}[query["interval"]]
        limit = int(query.get("limit", 500))
        running_s = min(int(time.time()) // period * period, self.ended_s)
        first_s, last_s = -(-self.listed_s // period) * period, running_s
        if "endTime" in query:
            last_s = min(last_s, int(query["endTime"]) // 1000 // period * period)
        if "startTime" in query:
            asked_s = -(-int(query["startTime"]) // 1000 // period) * period
            first_s = max(first_s, asked_s)
            times = range(first_s, last_s + 1, period)
            rows = [t for t in times if t not in self.absent][:limit]
        else:
            times = range(max(first_s, last_s - limit * period), last_s + 1, period)
            rows = [t for t in times if t not in self.absent][-limit:]
        return ok([kline(at, period) for at in rows])


def kline(at: int, period: int) -> list[Any]:
    traded = at // period % 7 != 0
    before, price = price_at(at - period, period), price_at(at, period)
    opened = price if traded else before
    high, low = (price + 0.5, price - 0.5) if traded else (before, before)
    close, volume = (price, 2.5) if traded else (before, 0)
    rows = [f"{p:.8f}" for p in (opened, high, low, close, volume)]
    cost = f"{2.5 * (price - 0.1):.8f}" if traded else "0.00000000"
    ends_us = (at + period) * 10**6 - 1
    count = at % 11 + 1 if traded else 0
    return [at * 10**6, *rows, ends_us, cost, count, "0", "0", "0"]


def price_at(at: int, period: int) -> float:
    """The close of the kline at a time: flat ones keep the one before."""
    number = at // period
    return 100 + (number - (number % 7 == 0)) % 50


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that stands half a second after `NOW_S`."""
    monkeypatch.setattr(time, "time", lambda: NOW_S + 0.5)
    monkeypatch.setattr(time, "time_ns", lambda: NOW_S * 10**9 + 5 * 10**8)


@asynccontextmanager
async def open_market(
    venue: Venue, name: str = "btcusdt", **settings: Any
) -> AsyncIterator[Any]:
    async with (
        venue.open_client(**({"settle_s": 0.0} | settings)) as client,
        open_history_client(f"{name}.binance", client=client) as (get_ohlc, limits),
    ):
        assert limits == {"erlangs": 4, "rate": 10}
        yield get_ohlc


def check(rows: Any, period: int) -> None:
    """Every row is the venue's kline, or flat at the close before."""
    assert (np.diff(rows["time"]) == period).all()
    for row in rows:
        at = int(row["time"])
        wanted = kline(at, period)
        assert [row[f] for f in PRICES] == [float(p) for p in wanted[1:5]]
        assert row["volume"] == float(wanted[5]) and row["count"] == wanted[8]
        assert bool(row["flags"] & pk.BarFlag.FLAT) == (row["count"] == 0)
        if row["count"]:
            assert row["bar_wap"] == float(wanted[7]) / float(wanted[5])
        else:
            assert row["bar_wap"] == row["close"] == row["open"]


# Klines


@pytest.mark.parametrize(("name", "period"), [("btcusdt", 1), ("btcusdt", 60)])
async def test_a_frame_is_a_thousand_final_klines_up_to_now(
    name: str, period: int
) -> None:
    venue = Klines(NOW_S - 30 * 86400)
    async with open_market(venue, name) as get_ohlc:
        rows, start, end = await get_ohlc(float(period))
    assert len(rows) == 1000
    assert rows["time"][-1] == NOW_S // period * period - period
    assert (start, end) == (moment(rows["time"][0]), moment(rows["time"][-1] + period))
    check(rows, period)
    assert venue.count("/api/v3/klines") == 1


async def test_frames_join_without_a_row_lost_or_repeated() -> None:
    venue = Klines(NOW_S - 86400)
    async with open_market(venue) as get_ohlc:
        newest, start, _ = await get_ohlc(1.0)
        older, _, end = await get_ohlc(1.0, end_dt=start)
    assert end == start
    check(np.concatenate([older, newest]), 1)


async def test_a_span_of_many_pages_is_whole() -> None:
    venue = Klines(NOW_S - 86400)
    begin, end = NOW_S - 5000, NOW_S - 1499
    async with open_market(venue) as get_ohlc:
        rows, *_ = await get_ohlc(1.0, start_dt=moment(begin), end_dt=moment(end))
    assert rows["time"].tolist() == list(range(begin, end))
    check(rows, 1)
    assert venue.count("/api/v3/klines") == 4


async def test_ends_that_are_no_multiples_take_whole_bars_only() -> None:
    venue = Klines(NOW_S - 86400)
    begin, end = NOW_S - 299.5, NOW_S - 59.5
    async with open_market(venue) as get_ohlc:
        rows, *_ = await get_ohlc(60.0, start_dt=moment(begin), end_dt=moment(end))
    assert rows["time"].tolist() == [NOW_S - 240 + 60 * i for i in range(4)]


async def test_a_bars_end_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    venue = Klines(NOW_S - 86400)
    async with open_market(venue, settle_s=2.0) as get_ohlc:
        began = trio.current_time()
        await get_ohlc(60.0)
        assert trio.current_time() - began == pytest.approx(1.5, abs=0.3)
        await get_ohlc(60.0, end_dt=moment(NOW_S - 60))
        assert trio.current_time() - began == pytest.approx(1.5, abs=0.3)


async def test_the_running_kline_is_that_of_the_venues_clock() -> None:
    venue = Klines(NOW_S - 86400)
    async with open_market(venue) as get_ohlc:
        ahead = get_ohlc.__self__._side.clock
        ahead._low_s = ahead._high_s = 60.0
        rows, *_ = await get_ohlc(60.0, end_dt=moment(NOW_S + 600))
    assert rows["time"][-1] == NOW_S  # what ran here is over there


async def test_klines_that_were_left_out_are_flat() -> None:
    absent = {NOW_S - 40, NOW_S - 39, NOW_S - 20}
    async with open_market(Klines(NOW_S - 86400, absent=absent)) as get_ohlc:
        rows, *_ = await get_ohlc(1.0, start_dt=moment(NOW_S - 60))
    assert (np.diff(rows["time"]) == 1).all()
    by_time = {int(row["time"]): row for row in rows}
    for at in absent:
        row, before = by_time[at], by_time[at - 1]
        assert row["flags"] & pk.BarFlag.FLAT and not row["count"]
        assert {row[f] for f in (*PRICES, "bar_wap")} == {before["close"]}
    assert not by_time[NOW_S - 38]["flags"] or (NOW_S - 38) % 7 == 0


async def test_a_market_begins_with_its_listing() -> None:
    venue = Klines(NOW_S - 1500)
    async with open_market(venue) as get_ohlc:
        start, early = moment(0), moment(NOW_S - 1500)
        rows, first, _ = await get_ohlc(1.0, start_dt=start, end_dt=moment(NOW_S))
        assert (len(rows), first) == (1500, early)
        assert venue.count("/api/v3/klines") == 4  # one is empty, one finds the listing
        rows, first, _ = await get_ohlc(1.0, end_dt=moment(NOW_S - 1000))
        assert (len(rows), first) == (500, early)
        for end_s in (NOW_S - 1500, NOW_S - 86400):
            with pytest.raises(pk.DataUnavailable, match=r"btcusdt\.binance.*no such"):
                await get_ohlc(1.0, end_dt=moment(end_s))


async def test_a_span_without_klines_behind_the_listing_is_no_data() -> None:
    venue = Klines(NOW_S - 86400)
    venue.ended_s = NOW_S - 7200
    async with open_market(venue) as get_ohlc:
        with pytest.raises(pk.NoData, match=r"btcusdt\.binance"):
            await get_ohlc(1.0)
        rows, *_ = await get_ohlc(1.0, end_dt=moment(NOW_S - 7000))
        assert rows["time"][-1] == NOW_S - 7200


async def test_a_span_that_holds_no_final_bar_is_no_data() -> None:
    async with open_market(Klines(NOW_S - 86400)) as get_ohlc:
        for start_s, end_s in ((NOW_S - 30, NOW_S), (NOW_S, NOW_S), (NOW_S, 0)):
            with pytest.raises(pk.NoData):
                await get_ohlc(60.0, start_dt=moment(start_s), end_dt=moment(end_s))


@pytest.mark.parametrize("timeframe", [0, -1, 0.5, 2**31, float("nan")])
async def test_a_timeframe_is_whole_seconds(timeframe: float) -> None:
    async with open_market(Klines(NOW_S - 86400)) as get_ohlc:
        with pytest.raises(ValueError, match="whole seconds"):
            await get_ohlc(timeframe)
        with pytest.raises(ValueError, match="time zone"):
            await get_ohlc(1.0, end_dt=datetime(2026, 1, 1))
        rows, *_ = await get_ohlc(1.0, end_dt=datetime(2026, 9, 21, 14, tzinfo=UTC))
        assert len(rows) == 1000


async def test_klines_out_of_order_are_an_error() -> None:
    rows = [kline(at, 60) for at in (NOW_S - 120, NOW_S - 180)]
    venue = Venue("/api/v3/klines", ok(rows))
    async with open_market(venue) as get_ohlc:
        with pytest.raises(pk.ProviderError, match="not in order"):
            await get_ohlc(60.0)


async def test_patience_that_the_venue_asks_for_is_raised() -> None:
    venue = Klines(NOW_S - 86400)
    throttled = error(-1003, "Too much.", 429, Retry_After="9")
    async with open_market(venue) as get_ohlc:
        answer = venue.answer

        async def refuse(request: httpx.Request) -> httpx.Response:
            return throttled if "klines" in request.url.path else await answer(request)

        transport = get_ohlc.__self__._side.rest._http._transport
        transport.handler = refuse
        with pytest.raises(pk.DataThrottle) as hit:
            await get_ohlc(1.0)
        assert hit.value.retry_after == pytest.approx(9, abs=0.1)


# Recorded answers


async def test_recorded_pages_of_klines_are_read_exactly(captures: Path) -> None:
    answers = json.loads((captures / "binance" / "rest_recordings.json").read_bytes())
    for recorded in answers["/api/v3/klines"]:
        query = dict(part.split("=") for part in recorded["query"].split("&"))
        data = recorded["data"]
        if query["symbol"] != "BTCUSDT" or query["interval"] not in ("1m", "5m"):
            continue
        period = {"1m": 60, "5m": 300}[query["interval"]]
        begin_s, end_s = data[0][0] // 1000, data[-1][0] // 1000 + period
        venue = Venue("/api/v3/klines", ok(data))
        async with open_market(venue) as get_ohlc:
            rows, start, end = await get_ohlc(
                float(period), start_dt=moment(begin_s), end_dt=moment(end_s)
            )
        assert (start, end) == (moment(begin_s), moment(end_s))
        assert len(rows) == len(data)
        for row, told in zip(rows, data, strict=True):
            assert row["time"] == told[0] // 1000
            assert [row[f] for f in PRICES] == [float(text) for text in told[1:5]]
            assert (row["volume"], row["count"]) == (float(told[5]), told[8])
            wap = float(told[7]) / float(told[5])
            assert row["bar_wap"] == pytest.approx(wap, rel=1e-15)
        sent = venue.calls[-1].url.params
        assert int(sent["startTime"]) == begin_s * 1000
        assert int(sent["endTime"]) == end_s * 1000 - 1
