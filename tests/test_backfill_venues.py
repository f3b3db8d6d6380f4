"""Back-fills of a store from simulated venues: every row is the venue's own candle."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from piker_core.backfill import Filled, fill
from piker_core.dtypes import BarFlag
from piker_core.fetch import Pace
from piker_core.store import Store, open_store
from tests.test_binance_history_venue import check as check_binance
from tests.test_binance_history_venue import open_pointed
from tests.test_kraken_history_venue import assert_true, open_history

DAY = 86400
BACKFILLED = int(BarFlag.BACKFILLED)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"parquet://{tmp_path}/store"


async def filled(
    store: Store, get_ohlc: Any, fqme: str, period: int, start_s: float, **more: Any
) -> tuple[Filled, Any]:
    """What a back-fill says, and the rows that are stored then."""
    known = {"end_s": None, "pace": Pace(3, 50.0)}
    told = await fill(
        get_ohlc, store, fqme, period=period, start_s=int(start_s), **(known | more)
    )
    rows = store.read_ohlcv(fqme, period)
    assert (rows["flags"] & BACKFILLED).all()
    rows["flags"] &= ~BACKFILLED
    return told, rows


@pytest.mark.parametrize("name", ["xbtusd", "mlneur"])
async def test_kraken_seconds_are_exact_up_to_the_listing(name: str, url: str) -> None:
    async with open_history(name, history_s=3000.0) as (get_ohlc, venue):
        venue.faults.throttle(2, until_s=int(time.time()) + 2)
        with open_store(url) as store:
            told, rows = await filled(
                store, get_ohlc, f"{name}.kraken", 1, time.time() - DAY
            )
        first_s = venue.trades(name.upper())[0].time_ns // 10**9
        assert rows["time"][0] == first_s == told.begins_s
        assert (np.diff(rows["time"]) == 1).all() and len(told.holes) == 1
        assert_true(rows, venue, name, 1, cut=False)


async def test_kraken_minutes_of_bars_and_of_trades_are_joined(url: str) -> None:
    fourteen_h = 14 * 3600.0
    async with open_history(history_s=fourteen_h, history_rate=1.0) as (
        get_ohlc,
        venue,
    ):
        with open_store(url) as store:
            _, rows = await filled(
                store, get_ohlc, "xbtusd.kraken", 60, time.time() - fourteen_h + 300
            )
        assert (np.diff(rows["time"]) == 60).all() and len(rows) > 800
        recent = rows["time"] > rows["time"][-1] - 700 * 60
        assert_true(rows[recent], venue, "xbtusd", 60, cut=True)
        assert_true(rows[:80], venue, "xbtusd", 60, cut=False)


@pytest.mark.parametrize("period", [1, 60])
async def test_binance_klines_are_exact_over_two_runs(period: int, url: str) -> None:
    from providers.binance.history import open_history_client

    name, fqme = "btcusdt", "btcusdt.binance"
    async with (
        open_pointed() as (venue, client),
        open_history_client(fqme, client=client) as (get_ohlc, limits),
    ):
        pace = Pace(limits["erlangs"], limits["rate"])
        now_s = time.time()
        with open_store(url) as store:
            middle = {"end_s": int(now_s - 3000), "pace": pace}
            await filled(store, get_ohlc, fqme, period, now_s - 4000, **middle)
            told, rows = await filled(store, get_ohlc, fqme, period, now_s - 6500)
        check_binance(venue, name, rows, period)
        assert told.rows * period <= 5501 + period and not told.holes


async def test_nights_and_a_weekend_are_holes_on_record(url: str) -> None:
    pytest.importorskip("ib_async")
    from tests.ib_gateway import STOCK
    from tests.test_ib_history import assert_candles, history, opened

    week = {"history_s": 7.0 * DAY, "history_rate": 0.5, "keep_hours": True}
    async with opened(contracts=["AAPL"], live_rate=1.0, **week) as (venue, client):
        now_s = time.time()
        async with history(client, STOCK) as get_ohlc:
            with open_store(url) as store:
                told, rows = await filled(
                    store, get_ohlc, STOCK, 60, now_s - 6 * DAY, pace=Pace(3, 10.0)
                )
                gaps = store.gaps(STOCK, 60)
    lasted_s = (gaps["end_ns"] - gaps["start_ns"]) // 10**9
    assert lasted_s.max() > 2 * DAY  # never measured by its seconds of a day
    assert (lasted_s > 3 * 3600).sum() >= 2
    spans = [(int(g["start_ns"]) // 10**9, int(g["end_ns"]) // 10**9) for g in gaps]
    assert set(spans) <= set(told.holes)
    begin = 0
    for place in [*np.flatnonzero(np.diff(rows["time"]) != 60) + 1, len(rows)]:
        assert_candles(rows[begin:place], venue, "AAPL", 60)
        begin = place


async def test_seconds_of_tws_come_in_frames_of_two_thousand(url: str) -> None:
    pytest.importorskip("ib_async")
    from tests.ib_gateway import front
    from tests.test_ib_history import assert_candles, history, opened

    async with opened() as (venue, client):
        name, symbol = front(venue)
        async with history(client, name) as get_ohlc:
            with open_store(url) as store:
                _, rows = await filled(store, get_ohlc, name, 1, time.time() - 9000)
        assert (np.diff(rows["time"]) == 1).all() and len(rows) >= 8998
        assert_candles(rows, venue, symbol, 1)
        assert venue.statistics().requests["reqHistoricalData"] == 5
