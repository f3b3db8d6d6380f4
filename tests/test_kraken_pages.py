"""Pages of Kraken's trades: bursts over their edges, piles at one time, dead ends."""

from typing import Any
from unittest import mock

import httpx
import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import piker_core as pk
from providers.kraken import history, pages
from providers.kraken.pages import TradePages
from tests.kraken_market import (
    NS,
    T0,
    Market,
    Trade,
    assert_equal,
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


@pytest.mark.parametrize("inclusive", [True, False])
async def test_a_burst_over_a_page_boundary_is_whole(inclusive: bool) -> None:
    stamp = (T0 + 50) * NS + 500_000_001
    early = [(T0 * NS + n * 10**6, "100.0", "1.0", 1 + n) for n in range(700)]
    burst = [(stamp, "101.0", "1.0", 701 + n) for n in range(990)]
    late = [((T0 + 60 + n) * NS, "102.0", "1.0", 1691 + n) for n in range(30)]
    market = Market(early + burst + late, inclusive=inclusive)
    async with open_market(market) as get_ohlc:
        rows, _, _ = await get_ohlc(1, moment(T0 + 80), moment(T0))
    assert_equal(rows, market, 1, T0, T0 + 80)
    assert rows["count"][50] == 990


async def test_a_page_that_ends_within_the_last_second_is_not_the_last() -> None:
    market = Market(
        [(T0 * NS + n * NS // 100, "1.0", "1.0", 1 + n) for n in range(1100)]
    )
    async with open_market(market) as get_ohlc:
        for end_s in (9, 10, 11):
            market.calls.clear()
            rows, _, _ = await get_ohlc(1, moment(T0 + end_s), moment(T0))
            assert rows["count"].tolist() == [100] * end_s
            assert len(market.calls) == (1 if end_s < 10 else 2)


@pytest.mark.parametrize("inclusive", [True, False])
async def test_more_trades_than_a_page_with_one_time_stamp_do_not_stop_the_pages(
    inclusive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stamp = (T0 + 50) * NS + 500_000_001
    early = [((T0 + n) * NS, "100.0", "1.0", 1 + n) for n in range(30)]
    burst = [(stamp, "101.0", "1.0", 31 + n) for n in range(1500)]
    late = [((T0 + 60 + n) * NS, "102.0", "1.0", 1531 + n) for n in range(30)]
    market = Market(early + burst + late, inclusive=inclusive)
    async with open_market(market) as get_ohlc:
        rows, _, _ = await get_ohlc(1, moment(T0 + 80), moment(T0))
    assert len(market.calls) <= 5
    assert rows["count"][50] == 1000
    assert rows["count"].sum() == 30 + 1000 + 20
    partial = rows["flags"] & pk.BarFlag.PARTIAL != 0
    assert np.flatnonzero(partial).tolist() == [50]
    assert f"more than 1000 trades at {stamp // 1000 * 1000} ns" in caplog.text


async def test_exactly_a_page_with_one_time_stamp_is_whole() -> None:
    stamp = (T0 + 50) * NS
    burst = [(stamp, "101.0", "1.0", 1 + n) for n in range(1000)]
    late = [((T0 + 60 + n) * NS, "102.0", "1.0", 1001 + n) for n in range(30)]
    market = Market(burst + late)
    async with open_market(market) as get_ohlc:
        rows, _, _ = await get_ohlc(1, moment(T0 + 80), moment(T0 + 50))
    assert_equal(rows, market, 1, T0 + 50, T0 + 80)
    assert not np.any(rows["flags"] & pk.BarFlag.PARTIAL)


@pytest.mark.parametrize("last", [0, 2**62, None])
async def test_pages_that_lead_nowhere_are_an_error(last: int | None) -> None:
    market = Market(make_trades(3000, 10**8))
    first = market.page(
        httpx.Request("GET", "http://x", params={"since": 0, "count": 1000})
    ).json()
    if last is not None:
        first["result"]["last"] = str(last)
    market.page = lambda _: httpx.Response(200, json=first)  # type: ignore[method-assign, assignment]
    async with open_market(market) as get_ohlc:
        with pytest.raises(pk.ProviderError, match="do not go on"):
            await get_ohlc(1, moment(T0 + 3600), moment(T0))
    assert len(market.calls) == 3


async def test_a_busy_past_is_searched_by_halves_not_page_by_page(
    clock: list[float],
) -> None:
    busy = [(T0 * NS + n * 2 * NS, f"{100 + n}.0", "1.0", 1 + n) for n in range(60_000)]
    start_s = busy[-1][0] // NS + 30_000
    clock[0] = start_s + 1000
    market = Market(busy)
    async with open_client(market) as client:
        trades = TradePages(client, await client.pair("xbtusd"))
        close = await trades.close_before(start_s * NS)
    assert close == float(busy[-1][1])
    assert len(market.calls) < 20


async def test_the_close_before_a_pile_of_trades_at_one_time_is_found() -> None:
    pile = [(T0 * NS, "101.0", "1.0", 1 + n) for n in range(3000)]
    market = Market(pile)
    async with open_client(market) as client:
        trades = TradePages(client, await client.pair("xbtusd"))
        assert await trades.close_before((T0 + 3600) * NS) == 101.0
    assert len(market.calls) < 60


async def test_a_last_that_means_nothing_does_not_stop_the_search() -> None:
    market = Market([(T0 * NS, "101.0", "1.0", 1 + n) for n in range(3000)])
    page = market.page

    def lie(request: httpx.Request) -> httpx.Response:
        told = page(request).json()
        told["result"]["last"] = "0"
        return httpx.Response(200, json=told)

    market.page = lie  # type: ignore[method-assign]
    async with open_client(market) as client:
        trades = TradePages(client, await client.pair("xbtusd"))
        assert await trades.close_before((T0 + 3600) * NS) == 101.0
    assert len(market.calls) < 60


@pytest.mark.parametrize("inclusive", [True, False])
async def test_the_trade_at_the_very_time_that_was_searched_from_is_found(
    inclusive: bool,
) -> None:
    end_ns = (T0 + 86400) * NS
    market = Market([(end_ns - 480 * NS, "5.0", "1.0", 1)], inclusive=inclusive)
    async with open_client(market) as client:
        trades = TradePages(client, await client.pair("xbtusd"))
        assert await trades.close_before(end_ns) == 5.0
    assert market.calls[0].url.params["since"] == str(end_ns - 480 * NS)


STEPS_NS = [0, 1000, 300_000_000, NS, 7 * NS, 70 * NS, 5000 * NS, 10**6 * NS]


@st.composite
def some_trades(draw: st.DrawFn) -> list[Trade]:
    """Up to 60 trades, at most 4 of them with one time stamp."""
    steps = draw(st.lists(st.sampled_from(STEPS_NS), min_size=1, max_size=60))
    at, run, trades = T0 * NS + draw(st.integers(0, NS)), 0, []
    for number, step in enumerate(steps):
        run = 0 if step or run == 3 else run + 1
        at += step if step or run else 1000
        price = f"{draw(st.integers(1, 10**6)) / 10:.1f}"
        trades.append((at, price, "0.10000000", 1 + number))
    return trades


def test_the_close_before_is_of_the_last_trade_of_its_time() -> None:
    times = (0, 0, 0, 1000, 1000, 1000)
    prices = ("0.1",) * 5 + ("0.2",)
    trades = [
        (1_762_795_440 * NS + time_ns, price, "0.10000000", number + 1)
        for number, (time_ns, price) in enumerate(zip(times, prices, strict=True))
    ]
    market = Market(trades, inclusive=False)
    market.page_size = 5

    async def compare() -> None:
        async with open_market(market) as get_ohlc:
            start_s, end_s = 1_762_795_471, 1_762_795_472
            got, _, _ = await get_ohlc(1, moment(end_s), moment(start_s))
            assert got["close"].tolist() == [0.2]

    with (
        mock.patch.object(pages, "PAGE_TRADES", 5),
        mock.patch.object(history, "wall_s", return_value=1_762_895_440.0),
    ):
        trio.run(compare)


@settings(max_examples=150, deadline=None)
@given(
    some_trades(),
    st.booleans(),
    st.sampled_from([1, 5, 60]),
    st.integers(-100, 6000),
    st.integers(1, 300),
    st.randoms(use_true_random=False),
)
def test_any_span_of_any_trades_has_the_exact_bars(
    trades: list[Trade], inclusive: bool, period: int, offset: int, rows: int, rng: Any
) -> None:
    anchor_s = rng.choice(trades)[0] // NS
    start_s = (anchor_s - offset) // period * period
    end_s = start_s + rows * period
    market = Market(trades, inclusive=inclusive)
    market.page_size = 5

    async def compare() -> None:
        async with open_market(market) as get_ohlc:
            if end_s * NS <= trades[0][0]:
                with pytest.raises(pk.DataUnavailable):
                    await get_ohlc(period, moment(end_s), moment(start_s))
                return
            got, _, _ = await get_ohlc(period, moment(end_s), moment(start_s))
            assert_equal(got, market, period, start_s, end_s)

    now_s = float(trades[-1][0] // NS + 10**5)
    with (
        mock.patch.object(pages, "PAGE_TRADES", 5),
        mock.patch.object(history, "wall_s", return_value=now_s),
    ):
        trio.run(compare)
