"""Binance's history against the simulated venue: every row is its own candle."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pendulum
import pytest

import piker_core as pk
from providers.binance import api
from providers.binance.history import open_history_client
from providers.binance.venue import Venue, open_venue

SPOT = ("btcusdt", "ethbtc")
USDM = ("btcusdt.usdtm.perp", "btcusdt.usdtm.20301227")
HISTORY_S = 7200.0


@asynccontextmanager
async def open_pointed(**options: Any) -> AsyncIterator[tuple[Venue, api.Client]]:
    known = {"seed": 11, "live_rate": 40.0, "history_s": HISTORY_S}
    async with open_venue(**(known | options)) as venue:
        config = api.Config(**venue.config, settle_s=0.3)
        async with api.get_client(config) as client:
            yield venue, client


def moment(time_s: float) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)


def check(venue: Venue, name: str, rows: Any, period: int) -> None:
    """All fields of all rows, which are without a hole."""
    assert (np.diff(rows["time"]) == period).all()
    first, end = int(rows["time"][0]), int(rows["time"][-1]) + period
    candles = venue.candles(name, period, first, end)
    assert [c.time_s for c in candles] == rows["time"].tolist()
    for row, c in zip(rows, candles, strict=True):
        got = [row[field] for field in ("open", "high", "low", "close", "count")]
        assert got == [*map(float, (c.open, c.high, c.low, c.close)), c.count], row
        assert round(float(row["volume"]), 8) == float(c.volume)
        wap = float(c.notional / c.volume) if c.count else float(c.close)
        cut = 1e-8 / float(c.volume or 1)  # spot tells costs with 8 decimals
        assert row["bar_wap"] == pytest.approx(wap, rel=1e-12, abs=cut)
        assert bool(row["flags"] & pk.BarFlag.FLAT) == (not c.count)


@pytest.mark.parametrize("name", [*SPOT, *USDM])
@pytest.mark.parametrize("period", [1, 60, 300])
async def test_frames_are_the_venues_candles(name: str, period: int) -> None:
    async with (
        open_pointed() as (venue, client),
        open_history_client(f"{name}.binance", client=client) as (get_ohlc, _),
    ):
        asked_s = time.time()
        rows, start, end = await get_ohlc(float(period))
        assert asked_s // period * period <= end.timestamp() <= time.time()
        check(venue, name, rows, period)
        if period == 1:
            older, _, end = await get_ohlc(float(period), end_dt=start)
            assert end == start
            check(venue, name, np.concatenate([older, rows]), period)


@pytest.mark.parametrize("name", ["btcusdt", "btcusdt.usdtm.perp"])
async def test_periods_that_the_venue_has_not_are_folded_exactly(name: str) -> None:
    async with (
        open_pointed() as (venue, client),
        open_history_client(f"{name}.binance", client=client) as (get_ohlc, _),
    ):
        now_s = int(time.time())
        for period in (5, 7, 90):
            start, end = moment(now_s - 1803), moment(now_s - 401)
            rows, *_ = await get_ohlc(float(period), start_dt=start, end_dt=end)
            assert rows["time"][0] == -(-(now_s - 1803) // period) * period
            check(venue, name, rows, period)


@pytest.mark.parametrize("name", [*SPOT, *USDM])
async def test_history_ends_where_the_market_began(name: str) -> None:
    async with (
        open_pointed(history_s=900.0) as (venue, client),
        open_history_client(f"{name}.binance", client=client) as (get_ohlc, _),
    ):
        first_s = venue.trades(name)[0].time_ns // 10**9
        rows, start, _ = await get_ohlc(1.0, start_dt=moment(first_s - 3600))
        assert start.timestamp() == rows["time"][0] == first_s
        check(venue, name, rows, 1)
        with pytest.raises(pk.DataUnavailable, match="no such market"):
            await get_ohlc(1.0, end_dt=moment(first_s // 60 * 60))
        with pytest.raises(pk.DataUnavailable):
            await get_ohlc(60.0, end_dt=moment(first_s - 7200))


async def test_seconds_of_contracts_are_had_for_as_long_as_their_trades_are() -> None:
    name = "btcusdt.usdtm.perp"
    async with (
        open_pointed(history_s=3 * 86400, history_rate=0.05) as (venue, client),
        open_history_client(f"{name}.binance", client=client) as (get_ohlc, _),
    ):
        old = moment(time.time() - 2.5 * 86400)
        with pytest.raises(pk.DataUnavailable, match="keeps no trades"):
            await get_ohlc(1.0, end_dt=old)
        rows, *_ = await get_ohlc(60.0, end_dt=old)
        check(venue, name, rows, 60)


async def test_a_market_that_does_not_trade_has_its_history_still() -> None:
    async with open_pointed() as (venue, client):
        async with open_history_client("xrpeth", client=client) as (get_ohlc, _):
            rows, *_ = await get_ohlc(60.0)
            check(venue, "xrpeth", rows, 60)
        async with open_history_client("bccbtc", client=client) as (get_ohlc, _):
            with pytest.raises(pk.DataUnavailable):
                await get_ohlc(60.0)
        with pytest.raises(pk.NotFound):
            async with open_history_client("nothing", client=client):
                raise AssertionError("it opened")
