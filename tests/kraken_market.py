"""A market of Kraken's as a list of trades, its REST answers, and its exact bars."""

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import ROUND_DOWN, Decimal
from typing import Any

import httpx
import numpy as np
import pendulum

import piker_core as pk
from providers.kraken import api
from providers.kraken.history import GetOhlc, open_history_client
from tests.kraken_answers import PAIRS, ok

NS = 10**9
T0 = 1_762_795_440  # 2025-11-10 17:24:00 UTC
TRUTH = ("time", "open", "high", "low", "close", "volume", "count", "bar_wap")

Trade = tuple[int, str, str, int]
"""Time in ns, price, size, id."""


class Market:
    """Trades behind Trades and OHLC; a `since` with or without its own time."""

    def __init__(self, trades: list[Trade], *, inclusive: bool = True) -> None:
        self.trades = trades
        self.now_s = T0 + 86400
        self.calls: list[httpx.Request] = []
        self.failures: list[httpx.Response | None] = []
        self.ohlc_lag_s = 0
        self.absent: set[int] = set()
        self.page_size = 1000
        self._times = [trade[0] for trade in trades]
        self._bisect = bisect_left if inclusive else bisect_right

    def answer(self, request: httpx.Request) -> httpx.Response:
        method = request.url.path.removeprefix("/0/public/")
        if method == "AssetPairs":
            return ok(PAIRS)
        self.calls.append(request)
        failure = self.failures.pop(0) if self.failures else None
        return failure or (self.page if method == "Trades" else self.ohlc)(request)

    def page(self, request: httpx.Request) -> httpx.Response:
        since = int(request.url.params["since"])
        since_ns = since if since >= 10**12 else since * NS
        first = self._bisect(self._times, since_ns)
        count = min(int(request.url.params["count"]), self.page_size)
        page = self.trades[first : first + count]
        rows = [
            f'["{price}","{size}",{Decimal(at).scaleb(-9):f},"b","l","",{number}]'
            for at, price, size, number in page
        ]
        last = page[-1][0] if page else since_ns
        text = f'{{"XXBTZUSD":[{",".join(rows)}],"last":"{last}"}}'
        return httpx.Response(200, text=f'{{"error":[],"result":{text}}}')

    def ohlc(self, request: httpx.Request) -> httpx.Response:
        lag_s = 0 if "since" in request.url.params else self.ohlc_lag_s
        forming_s = (self.now_s - lag_s) // 60 * 60
        bars = exact_bars(self.trades, 60, 0, forming_s + 60)
        rows = [
            [at, *map(str, bar[:4]), str(bar[6]), str(bar[4]), bar[5]]
            for at, bar in bars.items()
            if at > forming_s - 720 * 60 and at not in self.absent
        ]
        return ok({"XXBTZUSD": rows, "last": forming_s - 60})


def exact_bars(
    trades: list[Trade], period: int, start_s: int, end_s: int
) -> dict[int, tuple[Any, ...]]:
    """Bars by decimals: open, high, low, close, volume, count, vwap cut to 0.1."""
    groups: dict[int, list[Trade]] = {}
    for trade in trades:
        groups.setdefault(trade[0] // NS // period * period, []).append(trade)
    first_s = max(min(groups), -(-start_s // period) * period)
    before = [trade for trade in trades if trade[0] < first_s * NS]
    close = Decimal(before[-1][1]) if before else Decimal("NaN")
    bars: dict[int, tuple[Any, ...]] = {}
    for at in range(first_s, end_s, period):
        traded = [(Decimal(row[1]), Decimal(row[2])) for row in groups.get(at, [])]
        prices = [price for price, _ in traded] or [close]
        close = prices[-1]
        volume = sum((size for _, size in traded), Decimal(0))
        cost = sum((price * size for price, size in traded), Decimal(0))
        wap = cost / volume if volume else Decimal(0)
        bars[at] = (
            prices[0],
            max(prices),
            min(prices),
            close,
            volume,
            len(traded),
            wap.quantize(Decimal("0.1"), ROUND_DOWN),
        )
    return bars


def assert_equal(
    rows: np.ndarray[Any, Any], market: Market, period: int, start_s: int, end_s: int
) -> None:
    bars = exact_bars(market.trades, period, start_s, end_s)
    assert rows["time"].tolist() == list(bars)
    for row, bar in zip(rows, bars.values(), strict=True):
        prices = [Decimal(repr(float(row[name]))) for name in TRUTH[1:5]]
        assert prices == list(bar[:4])
        assert Decimal(repr(round(float(row["volume"]), 8))) == bar[4]
        assert row["count"] == bar[5]
        assert bool(row["flags"] & pk.BarFlag.FLAT) == (not bar[5])
        wap = bar[6] if bar[5] else bar[3]
        shown = Decimal(repr(round(float(row["bar_wap"]), 7)))
        assert shown.quantize(Decimal("0.1"), ROUND_DOWN) == wap


def make_trades(count: int, every_ns: int, *, start_s: int = T0) -> list[Trade]:
    """Trades in bursts of up to 7 with one time stamp, and prices that go both ways."""
    trades = []
    at = start_s * NS + 123_456_789
    for number in range(count):
        if number % 7 in (0, 3):
            at += every_ns * (3 + number % 5)
        price = f"{1000 + (number * 7919) % 997 / 10:.1f}"
        trades.append((at, price, f"{(number % 13 + 1) / 1000:.8f}", 5000 + number))
    return trades


def moment(time_s: float) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)


@asynccontextmanager
async def open_client(market: Market, **settings: Any) -> AsyncIterator[api.Client]:
    config = api.Config(**{"rest_rate": 1e6, "settle_s": 0.0} | settings)
    transport = httpx.MockTransport(market.answer)
    async with api.get_client(config, transport=transport) as client:
        yield client


@asynccontextmanager
async def open_market(market: Market, **settings: Any) -> AsyncIterator[GetOhlc]:
    async with (
        open_client(market, **settings) as client,
        open_history_client("btcusd.kraken", client=client) as (get_ohlc, limits),
    ):
        assert limits == {"erlangs": 3, "rate": 1}
        yield get_ohlc
