"""Pages of Kraken's trades: bursts over their edges, piles at one time, dead ends."""

import httpx
import numpy as np
import pytest

import piker_core as pk
from providers.kraken import history
from providers.kraken.pages import TradePages
from tests.kraken_market import (
    NS,
    T0,
    Market,
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
        pages = TradePages(client, await client.pair("xbtusd"))
        close = await pages.close_before(start_s * NS)
    assert close == float(busy[-1][1])
    assert len(market.calls) < 20


async def test_the_close_before_a_pile_of_trades_at_one_time_is_found() -> None:
    pile = [(T0 * NS, "101.0", "1.0", 1 + n) for n in range(3000)]
    market = Market(pile)
    async with open_client(market) as client:
        pages = TradePages(client, await client.pair("xbtusd"))
        assert await pages.close_before((T0 + 3600) * NS) == 101.0
    assert len(market.calls) < 60
