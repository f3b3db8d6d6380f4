"""Kraken's history: pages joined without loss, exact bars, honest ends."""

import csv
import json
import math
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pendulum
import pytest
import trio.testing

import piker_core as pk
from providers.kraken import history
from providers.kraken.history import open_history_client
from tests.kraken_answers import error, ok
from tests.kraken_market import (
    NS,
    T0,
    TRUTH,
    Market,
    assert_equal,
    exact_bars,
    make_trades,
    moment,
    open_client,
    open_market,
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the wall clock shows, to be set."""
    shown = [float(T0 + 86400)]
    monkeypatch.setattr(history, "wall_s", lambda: shown[0])
    return shown


@pytest.fixture
def recorded(captures: Path) -> Market:
    path = captures / "kraken" / "xbtusdt_trades.json"
    rows = json.loads(path.read_bytes(), parse_float=Decimal)["result"]["XBTUSDT"]
    return Market([(int(row[2] * NS), row[0], row[1], row[6]) for row in rows])


# Bars


async def test_recorded_trades_give_the_venues_own_candles(
    recorded: Market, captures: Path
) -> None:
    path = captures / "kraken" / "xbtusdt_exchange_candles_1m.csv"
    with path.open(newline="") as file:
        candles = list(csv.DictReader(file))
    first_s, end_s = int(candles[0]["time_s"]), int(candles[-1]["time_s"]) + 60
    async with open_market(recorded) as get_ohlc:
        rows, start, end = await get_ohlc(60, moment(end_s), moment(first_s))
    assert (start, end) == (moment(first_s), moment(end_s))
    assert len(rows) == len(candles) == 155
    assert rows.dtype == pk.OHLCV_DTYPE
    for row, candle in zip(rows, candles, strict=True):
        assert row["time"] == int(candle["time_s"])
        for name in ("open", "high", "low", "close"):
            assert Decimal(repr(float(row[name]))) == Decimal(candle[name])
        assert Decimal(repr(round(float(row["volume"]), 8))) == Decimal(
            candle["volume"]
        )
        assert row["count"] == int(candle["count"])
        wap = Decimal(repr(float(row["bar_wap"])))
        shown = Decimal(candle["vwap"]) if row["count"] else Decimal(candle["close"])
        assert wap.quantize(Decimal("0.1"), ROUND_DOWN) == shown
        assert bool(row["flags"] & pk.BarFlag.FLAT) == (candle["count"] == "0")


async def test_one_second_rows_are_bit_for_bit_those_of_the_live_engine(
    recorded: Market, namespace: str
) -> None:
    async with open_client(recorded) as client:
        ticks, _ = await client.trades("xbtusd", since_ns=0)
        async with open_history_client("xbtusd", client=client) as (get_ohlc, _):
            rows, _, _ = await get_ohlc(1, moment(T0 + 3600), moment(T0))
    before = ticks["time_ns"] < (T0 + 3600) * NS
    with pk.open_engine("kraken", namespace=namespace, tick_capacity=4096) as engine:
        market = engine.add_market("xbtusd.kraken", periods=(1,), price_tick="0.1")
        market.set_status("live")
        engine.push_ticks(market, ticks[before])
        engine.step((T0 + 3600) * NS)
        with pk.attach_bars("xbtusd.kraken", period=1, namespace=namespace) as bars:
            live = bars.between(T0, T0 + 3600)
    assert len(rows) == len(live) == 3600
    for name in TRUTH:
        assert rows[name].tobytes() == live[name].tobytes(), name
    assert np.count_nonzero(rows["count"]) > 50


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("period", [1, 5, 60])
async def test_pages_join_without_loss_or_repeat(inclusive: bool, period: int) -> None:
    market = Market(make_trades(5500, 10**8), inclusive=inclusive)
    start_s = T0 + 60
    end_s = market.trades[-1][0] // NS // 60 * 60
    async with open_market(market) as get_ohlc:
        rows, start, end = await get_ohlc(period, moment(end_s), moment(start_s))
    assert (start, end) == (moment(start_s), moment(end_s))
    assert len(market.calls) <= 7
    assert_equal(rows, market, period, start_s, end_s)


# The close before


@pytest.mark.parametrize("idle_s", [40, 3600, 86400, 400 * 86400])
@pytest.mark.parametrize("inclusive", [True, False])
async def test_rows_before_the_first_trade_of_a_span_are_flat_at_the_close_before(
    inclusive: bool, idle_s: int, clock: list[float]
) -> None:
    trades = make_trades(30, 10**8)
    start_s = trades[-1][0] // NS + idle_s
    trades.append(((start_s + 5) * NS, "7.5", "1.0", 9999))
    clock[0] = start_s + 1000
    market = Market(trades, inclusive=inclusive)
    async with open_market(market) as get_ohlc:
        rows, start, _ = await get_ohlc(1, moment(start_s + 8), moment(start_s))
    assert start == moment(start_s)
    assert rows["count"].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    before = float(trades[-2][1])
    assert rows["close"].tolist() == [before] * 5 + [7.5] * 3
    assert len(market.calls) <= 8


async def test_a_span_without_any_trade_is_flat() -> None:
    market = Market(make_trades(30, 10**8))
    async with open_market(market) as get_ohlc:
        rows, start, end = await get_ohlc(1, moment(T0 + 7200))
    assert end == moment(T0 + 7200)
    assert start == moment(T0 + 7200 - len(rows))
    assert set(rows["close"]) == {float(market.trades[-1][1])}
    assert set(rows["flags"]) == {pk.BarFlag.FLAT}
    assert not rows["volume"].any()


async def test_rows_begin_with_the_markets_first_trade() -> None:
    market = Market(make_trades(300, 10**8, start_s=T0 + 77))
    async with open_market(market) as get_ohlc:
        end = moment(T0 + 120)
        rows, start, _ = await get_ohlc(1, end, moment(T0))
        assert start == moment(market.trades[0][0] // NS)
        assert_equal(rows, market, 1, T0, T0 + 120)
        rows, start, _ = await get_ohlc(1, end, pendulum.datetime(1970, 1, 1))
        assert start == moment(market.trades[0][0] // NS)
        assert {call.url.params["since"] for call in market.calls[-1:]} == {"0"}


# Frames


@pytest.mark.parametrize("period", [1, 60])
async def test_frames_lead_back_to_the_first_trade_and_then_there_is_no_more(
    period: int,
) -> None:
    market = Market(make_trades(6000, 5 * 10**8))
    end_s = last_s = market.trades[-1][0] // NS // 60 * 60
    frames: list[np.ndarray[Any, Any]] = []
    async with open_market(market) as get_ohlc:
        while end_s > market.trades[0][0] // NS:
            calls = len(market.calls)
            rows, start, end = await get_ohlc(period, moment(end_s))
            assert len(market.calls) - calls <= 10
            assert len(rows) <= 720
            assert end == moment(end_s)
            end_s = int(rows["time"][0])
            assert start == moment(end_s)
            frames.insert(0, rows)
        with pytest.raises(pk.DataUnavailable):
            await get_ohlc(period, moment(end_s))
        calls = len(market.calls)
        with pytest.raises(pk.DataUnavailable, match="had no trade before"):
            await get_ohlc(period, moment(end_s - 7 * period))
        assert len(market.calls) == calls
    assert len(frames) >= 2
    assert_equal(np.concatenate(frames), market, period, 0, last_s)


async def test_a_one_second_frame_is_ten_minutes_at_least_however_busy() -> None:
    market = Market(make_trades(9000, 5 * 10**7))
    end_s = market.trades[-1][0] // NS
    async with open_market(market) as get_ohlc:
        await get_ohlc(1, moment(end_s))
        rows, _, _ = await get_ohlc(1, moment(end_s))
    assert len(rows) == 600


async def test_frames_of_a_quiet_market_grow_to_what_few_calls_can_fetch() -> None:
    market = Market(make_trades(4000, 600 * NS, start_s=T0 - 10**7))
    lengths = []
    async with open_market(market) as get_ohlc:
        end = moment(market.trades[-1][0] // NS // 60 * 60 - 86400)
        for _ in range(4):
            rows, end, _ = await get_ohlc(60, end)
            lengths.append(len(rows))
    assert lengths == [50, 200, 720, 720]
    assert len(market.calls) == 10


# The venue's own minutes


@pytest.fixture
def minutes(clock: list[float]) -> Market:
    """Some 18 hours of trades; it is 18.5 s past the last full minute."""
    market = Market(make_trades(4500, 10 * NS))
    market.now_s = market.trades[-1][0] // NS // 60 * 60 + 18
    clock[0] = market.now_s + 0.5
    return market


async def test_the_newest_minutes_are_one_call_without_the_forming_row(
    minutes: Market,
) -> None:
    forming_s = minutes.now_s // 60 * 60
    async with open_market(minutes) as get_ohlc:
        rows, start, end = await get_ohlc(60)
    assert len(minutes.calls) == 1
    assert end == moment(forming_s)
    assert start == moment(forming_s - 719 * 60)
    assert isinstance(start, pendulum.DateTime)
    assert_equal(rows, minutes, 60, forming_s - 719 * 60, forming_s)


async def test_minutes_older_than_the_venues_bars_are_folded_and_join_them(
    minutes: Market,
) -> None:
    forming_s = minutes.now_s // 60 * 60
    start_s = forming_s - 800 * 60
    async with open_market(minutes) as get_ohlc:
        rows, start, _ = await get_ohlc(60, None, moment(start_s))
        assert start == moment(start_s)
        assert_equal(rows, minutes, 60, start_s, forming_s)
        rows, start, _ = await get_ohlc(60, None, moment(0))
        assert_equal(rows, minutes, 60, 0, forming_s)
        minutes.calls.clear()
        end_s = forming_s - 719 * 60
        rows, _, end = await get_ohlc(60, moment(end_s))
    assert end == moment(end_s)
    assert {call.url.path for call in minutes.calls} == {"/0/public/Trades"}


@pytest.mark.parametrize("rows_left", [1, 39, 700])
async def test_what_the_venues_bars_reach_is_one_call(
    rows_left: int, minutes: Market
) -> None:
    oldest_s = minutes.now_s // 60 * 60 - 719 * 60
    async with open_market(minutes) as get_ohlc:
        rows, _, _ = await get_ohlc(60, moment(oldest_s + rows_left * 60))
    assert len(rows) == rows_left
    assert [call.url.path for call in minutes.calls] == ["/0/public/OHLC"]


async def test_a_young_markets_minutes_begin_with_its_first_trade(
    clock: list[float],
) -> None:
    market = Market(make_trades(40, 10 * NS))
    market.now_s = T0 + 3600
    clock[0] = T0 + 3600.0
    async with open_market(market) as get_ohlc:
        rows, start, _ = await get_ohlc(60, None, moment(T0 - 86400))
    assert start == moment(T0)
    assert_equal(rows, market, 60, T0, T0 + 3600)


async def test_minutes_that_the_venue_leaves_out_are_flat(minutes: Market) -> None:
    forming_s = minutes.now_s // 60 * 60
    bars = exact_bars(minutes.trades, 60, forming_s - 600 * 60, forming_s)
    minutes.absent = {at for at, bar in bars.items() if not bar[5]}
    assert len(minutes.absent) > 3
    async with open_market(minutes) as get_ohlc:
        rows, _, _ = await get_ohlc(60)
    assert_equal(rows, minutes, 60, forming_s - 719 * 60, forming_s)


async def test_an_answer_from_a_cache_is_asked_for_again(minutes: Market) -> None:
    minutes.ohlc_lag_s = 60
    async with open_market(minutes) as get_ohlc:
        _, _, end = await get_ohlc(60)
    assert end == moment(minutes.now_s // 60 * 60)
    assert len(minutes.calls) == 2


async def test_what_the_venue_has_not_finished_is_not_final_whatever_our_clock_says(
    minutes: Market, clock: list[float]
) -> None:
    clock[0] += 45
    async with open_market(minutes) as get_ohlc:
        _, _, end = await get_ohlc(60)
    assert end == moment(minutes.now_s // 60 * 60)


@pytest.mark.parametrize(
    "times", [[T0, T0 + 61], [T0 + 60, T0], [T0, T0], [T0 + 1, T0 + 61]]
)
async def test_venue_bars_off_the_minute_are_refused(
    times: list[int], minutes: Market
) -> None:
    rows = [[at, "1.0", "1.0", "1.0", "1.0", "1.0", "1.0", 1] for at in times]
    last = minutes.now_s // 60 * 60
    minutes.ohlc = lambda _: ok({"X": rows, "last": last})  # type: ignore[method-assign, assignment]
    async with open_market(minutes) as get_ohlc:
        with pytest.raises(pk.ProviderError, match="not whole minutes"):
            await get_ohlc(60)


# Ends of the span, and refusals


async def test_the_forming_second_is_left_out_and_the_last_one_settles(
    clock: list[float], autojump_clock: trio.testing.MockClock
) -> None:
    market = Market(make_trades(500, 10**8))
    clock[0] = T0 + 30.2
    asked: list[float] = []
    page = market.page

    def note_time(request: httpx.Request) -> httpx.Response:
        asked.append(trio.current_time())
        return page(request)

    market.page = note_time  # type: ignore[method-assign]
    async with open_market(market, settle_s=0.5) as get_ohlc:
        begin = trio.current_time()
        for end in (None, moment(T0 + 999)):
            rows, _, end = await get_ohlc(1, end, moment(T0 + 10))
            assert end == moment(T0 + 30)
            assert_equal(rows, market, 1, T0 + 10, T0 + 30)
        assert asked[0] - begin == pytest.approx(0.3)


async def test_bounds_between_seconds_take_the_rows_that_start_within() -> None:
    market = Market(make_trades(500, 10**8))
    start, end = moment(T0 + 10.5), moment(T0 + 20.25)
    async with open_market(market) as get_ohlc:
        rows, _, _ = await get_ohlc(1, end, start)
        assert rows["time"].tolist() == list(range(T0 + 11, T0 + 21))
        rows, _, _ = await get_ohlc(1, datetime.fromtimestamp(T0 + 20, UTC), start)
        assert rows["time"].tolist() == list(range(T0 + 11, T0 + 20))


async def test_a_span_without_a_final_bar_has_no_data(clock: list[float]) -> None:
    market = Market(make_trades(500, 10**8))
    async with open_market(market) as get_ohlc:
        for start_s, end_s in [(100, 100), (100, 50), (86400, 86500)]:
            with pytest.raises(pk.NoData, match=r"xbtusd\.kraken: no final 1 s bar"):
                await get_ohlc(1, moment(T0 + end_s), moment(T0 + start_s))
    assert market.calls == []


async def test_before_the_first_trade_there_is_no_history_ever() -> None:
    market = Market(make_trades(500, 10**8))
    async with open_market(market) as get_ohlc:
        for period in (1, 60):
            with pytest.raises(pk.DataUnavailable, match="had no trade before 2025-11"):
                await get_ohlc(period, moment(T0 - 600), moment(T0 - 1200))
            with pytest.raises(pk.DataUnavailable, match="had no trade before 2012"):
                await get_ohlc(period, pendulum.datetime(2012, 1, 1))


async def test_a_market_that_never_traded_has_no_history(clock: list[float]) -> None:
    market = Market([])
    market.ohlc = lambda _: ok({"X": [], "last": 0})  # type: ignore[method-assign, assignment]
    async with open_market(market) as get_ohlc:
        for period in (1, 60):
            with pytest.raises(pk.DataUnavailable):
                await get_ohlc(period)
    assert len(market.calls) < 40


@pytest.mark.parametrize("timeframe", [0, -1, 0.5, 1.5, 2**31, math.inf, math.nan])
async def test_a_timeframe_must_be_whole_seconds(timeframe: float) -> None:
    async with open_market(Market([])) as get_ohlc:
        with pytest.raises(ValueError, match="whole seconds"):
            await get_ohlc(timeframe)


async def test_a_time_without_zone_is_refused() -> None:
    async with open_market(Market([])) as get_ohlc:
        with pytest.raises(ValueError, match="no time zone"):
            await get_ohlc(1, datetime(2025, 11, 10))


async def test_an_unknown_symbol_is_not_found_before_anything_else() -> None:
    async with open_client(Market([])) as client:
        with pytest.raises(pk.NotFound, match=r"'xbtusf'.*xbtusd\.kraken"):
            async with open_history_client("xbtusf", client=client):
                pass


async def test_a_throttled_first_page_is_passed_on() -> None:
    market = Market(make_trades(5500, 10**8))
    market.failures = [error("EGeneral:Too many requests")]
    async with open_market(market) as get_ohlc:
        with pytest.raises(pk.DataThrottle) as hit:
            await get_ohlc(1, moment(T0 + 600), moment(T0))
    assert hit.value.retry_after == pytest.approx(5, abs=0.1)


async def test_a_throttled_later_page_is_waited_for_and_nothing_is_fetched_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    market = Market(make_trades(5500, 10**8))
    end_s = market.trades[-1][0] // NS
    refusal = error("EGeneral:Too many requests")
    market.failures = [None, refusal, None, refusal, refusal, refusal]
    async with open_market(market, rest_rate=100) as get_ohlc:
        begin = trio.current_time()
        rows, _, _ = await get_ohlc(1, moment(end_s), moment(T0 + 1))
        assert trio.current_time() - begin > 5 + 5 + 10 + 20
    assert_equal(rows, market, 1, T0 + 1, end_s)
    since = [call.url.params["since"] for call in market.calls]
    assert len(since) == 6 + 4
    assert len(set(since)) == 6


async def test_a_page_that_is_throttled_again_and_again_is_passed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    market = Market(make_trades(5500, 10**8))
    market.failures = [None, *[error("EGeneral:Too many requests")] * 9]
    async with open_market(market) as get_ohlc:
        with pytest.raises(pk.DataThrottle):
            await get_ohlc(1, moment(T0 + 600), moment(T0))
    assert len(market.calls) == 5
