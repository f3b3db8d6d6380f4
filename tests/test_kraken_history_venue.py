"""Kraken's history against the simulated venue: exact bars, faults, limits."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import numpy as np
import pendulum
import pytest
import trio

import piker_core as pk
from providers.kraken import api
from providers.kraken.history import GetOhlc, open_history_client
from providers.kraken.venue import Venue, open_venue

Rows = np.ndarray[Any, Any]


@asynccontextmanager
async def open_history(
    name: str = "xbtusd", **options: Any
) -> AsyncIterator[tuple[GetOhlc, Venue]]:
    """History of a market of a venue, and the venue."""
    known = {"seed": 7, "history_s": 2400.0, "history_rate": 10.0, "live_rate": 40.0}
    free = {"rest_rate": 200.0, "rest_burst": 200.0}
    async with open_venue(**(known | free | options)) as venue:
        config = api.Config(rest_url=venue.rest_url, rest_rate=50, rest_burst=50)
        async with (
            api.get_client(config) as client,
            open_history_client(name, client=client) as (get_ohlc, _),
        ):
            yield get_ohlc, venue


def assert_true(rows: Rows, venue: Venue, name: str, period: int, *, cut: bool) -> None:
    """Rows equal the venue's candles; `cut`: their vwap has the venue's decimals."""
    start_s, end_s = int(rows["time"][0]), int(rows["time"][-1]) + period
    candles = venue.candles(name.upper(), period, start_s, end_s)
    assert rows["time"].tolist() == [candle.time_s for candle in candles]
    for row, candle in zip(rows, candles, strict=True):
        for field in ("open", "high", "low", "close"):
            assert row[field] == float(getattr(candle, field))
        assert Decimal(repr(round(float(row["volume"]), 8))) == candle.volume
        assert row["count"] == candle.count
        if not candle.count:
            assert row["flags"] == pk.BarFlag.FLAT
            assert row["bar_wap"] == row["close"]
        elif cut:
            assert row["bar_wap"] == float(candle.vwap)
        else:
            exact = float(candle.notional / candle.volume)
            assert row["bar_wap"] == pytest.approx(exact, rel=1e-15)


@pytest.mark.parametrize("name", ["xbtusd", "xdgusd", "mlneur"])
async def test_one_second_frames_equal_the_venues_candles(name: str) -> None:
    async with open_history(name) as (get_ohlc, venue):
        before = time.time()
        rows, start, end = await get_ohlc(1)
        assert int(before) <= end.timestamp() <= time.time()
        frames = [rows]
        for _ in range(2):
            rows, start, end = await get_ohlc(1, start)
            assert end.timestamp() == frames[0]["time"][0]
            frames.insert(0, rows)
        assert_true(np.concatenate(frames), venue, name, 1, cut=False)
        assert start.timestamp() == frames[0]["time"][0]
    assert sum(map(len, frames)) >= 1800


async def test_the_whole_history_ends_with_the_first_trade() -> None:
    async with open_history(history_s=1000.0) as (get_ohlc, venue):
        rows, start, _ = await get_ohlc(1, None, pendulum.datetime(2020, 1, 1))
        first_s = venue.trades("XBTUSD")[0].time_ns // 10**9
        assert start.timestamp() == first_s
        assert_true(rows, venue, "xbtusd", 1, cut=False)
        with pytest.raises(pk.DataUnavailable):
            await get_ohlc(1, start)


async def test_minutes_equal_the_venues_candles_without_the_forming_one() -> None:
    async with open_history() as (get_ohlc, venue):
        before = time.time()
        rows, _, end = await get_ohlc(60)
        assert before // 60 * 60 <= end.timestamp() <= time.time()
        assert rows["time"][-1] == end.timestamp() - 60
        assert venue.statistics().rest_requests == {"AssetPairs": 1, "OHLC": 1}
        assert_true(rows, venue, "xbtusd", 60, cut=True)


async def test_minutes_beyond_the_venues_bars_equal_its_candles() -> None:
    fourteen_h = 14 * 3600.0
    async with open_history(history_s=fourteen_h, history_rate=1.0) as (
        get_ohlc,
        venue,
    ):
        recent, start, _ = await get_ohlc(60)
        assert len(recent) == 719
        older, _, end = await get_ohlc(60, start)
        assert end == start
        assert_true(recent, venue, "xbtusd", 60, cut=True)
        assert_true(older, venue, "xbtusd", 60, cut=False)
        joined, _, _ = await get_ohlc(60, None, start.subtract(minutes=len(older)))
        assert set(np.diff(joined["time"])) == {60}


async def test_a_throttled_call_is_told_of_and_the_next_one_works() -> None:
    async with open_history() as (get_ohlc, venue):
        until_s = int(time.time()) + 1
        venue.faults.throttle(1, until_s=until_s)
        with pytest.raises(pk.DataThrottle) as hit:
            await get_ohlc(1)
        assert 0 < hit.value.retry_after <= 1
        rows, _, _ = await get_ohlc(1)
        assert_true(rows, venue, "xbtusd", 1, cut=False)


async def test_pages_of_html_a_busy_engine_and_slow_answers_are_survived() -> None:
    async with open_history() as (get_ohlc, venue):
        for fault in (venue.faults.html, venue.faults.unavailable):
            fault(1)
            rows, _, _ = await get_ohlc(1)
            assert_true(rows, venue, "xbtusd", 1, cut=False)
        venue.faults.slow_rest(0.3)
        rows, _, _ = await get_ohlc(60)
        assert_true(rows, venue, "xbtusd", 60, cut=True)


async def test_a_cancelled_call_leaves_a_client_that_works() -> None:
    async with open_history() as (get_ohlc, venue):
        venue.faults.slow_rest(60)
        with trio.move_on_after(0.2) as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(get_ohlc, 60)
        assert scope.cancelled_caught
        venue.faults.slow_rest(0)
        rows, _, _ = await get_ohlc(60)
        assert_true(rows, venue, "xbtusd", 60, cut=True)


async def test_a_venue_that_counts_refuses_none_of_many_calls_at_once() -> None:
    async with open_venue(
        seed=3, history_s=2400.0, rest_rate=20.0, rest_burst=12.0
    ) as venue:
        config = api.Config(rest_url=venue.rest_url, rest_rate=20, rest_burst=5)
        frames: dict[str, Rows] = {}

        async def fetch(name: str) -> None:
            async with (
                api.get_client(config) as client,
                open_history_client(name, client=client) as (get_ohlc, _),
            ):
                _, start, _ = await get_ohlc(1)
                await get_ohlc(60)
                frames[name], _, _ = await get_ohlc(1, start)

        async with trio.open_nursery() as nursery:
            for name in ("xbtusd", "ethusd", "xbtusdt", "xdgusd", "mlneur"):
                nursery.start_soon(fetch, name)
        statistics = venue.statistics()
        assert statistics.rest_refused == 0
        assert statistics.rest_requests["AssetPairs"] == 1
        for name, rows in frames.items():
            assert_true(rows, venue, name, 1, cut=False)


async def test_the_configured_venue_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIKER_CONFIG", os.devnull)
    async with open_venue(seed=3, history_s=900.0) as venue:
        monkeypatch.setenv("PIKER_KRAKEN__REST_URL", venue.rest_url)
        async with open_history_client("btcusd.kraken") as (get_ohlc, limits):
            assert limits == {"erlangs": 3, "rate": 1}
            rows, _, _ = await get_ohlc(60)
            assert_true(rows, venue, "xbtusd", 60, cut=True)
        market, pair = await api.get_mkt_info("DOGE/USD")
        assert (market.fqme, pair.v2_symbol) == ("xdgusd.kraken", "DOGE/USD")
        assert market.price_tick == Decimal("0.000005")
        async with api.open_symbol_search() as search:
            assert [*await search("qqq"), *await search("mln")] == ["mlneur.kraken"]
        async with api.get_client() as client:
            tickers = await client.ticker(["xbtusd", "ethusd"])
            assert tickers.keys() == {"XXBTZUSD", "XETHZUSD"}
            assert tickers["XXBTZUSD"].bid < tickers["XXBTZUSD"].ask
            assert (await client.system_status()).status == "online"
        assert venue.statistics().rest_requests["AssetPairs"] == 1
