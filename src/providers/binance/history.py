"""History of a Binance market: the venue's klines, or bars folded from aggregates.

Rules this file owns:

1. Periods that the venue has as intervals are its klines (1 s on spot, from 60 s on
   everywhere); others are folded from `aggTrades` exactly as the live engine folds.
2. A row is final: the running kline is never returned.
3. Rows are contiguous. A kline without trades, and one that the venue left out between
   two others, is flat at the close before.
4. Klines are asked for with both ends of their span, so pages neither overlap nor skip.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import numpy as np
import pendulum
import trio

import piker_core as pk
from piker_core.errors import DataUnavailable, NoData, ProviderError

from .answers import NS, Rows
from .api import Client, get_client
from .client import PAGE_ROWS, Side
from .markets import Symbol
from .pages import AggregatePages
from .rest import TOO_OLD, error_code

Frame = tuple[Rows, pendulum.DateTime, pendulum.DateTime]
GetOhlc = Callable[..., Awaitable[Frame]]

LIMITS = {"erlangs": 4, "rate": 10}
"""At most so many calls at once, so many a second; the weights are paced by `Rest`."""

_MINUTE = 60
_FRAME_TRADES = 3000
_FRAME_ROWS = 1000
_FRAME_LEAST_S = 600
"""A folded frame has 3 pages of aggregates, 10 minutes at least, 1000 rows at most."""
_RATE_LEAST = 1e-6


@asynccontextmanager
async def open_history_client(
    symbol: str, *, client: Client | None = None
) -> AsyncIterator[tuple[GetOhlc, dict[str, int]]]:
    """History of a market: `(get_ohlc, {"erlangs": 4, "rate": 10})`.

    `await get_ohlc(timeframe, end_dt=None, start_dt=None)` gives
    `(rows of OHLCV_DTYPE, start, end)`, see `MarketHistory.get_ohlc`. Raises NotFound
    for an unknown symbol.
    """
    if client is not None:
        yield await _get_ohlc(client, symbol), dict(LIMITS)
        return
    async with get_client() as opened:
        yield await _get_ohlc(opened, symbol), dict(LIMITS)


async def _get_ohlc(client: Client, name: str) -> GetOhlc:
    symbol = await client.symbol(name)
    settle_s = client.config.settle_s
    return MarketHistory(client.side(symbol.fqme), symbol, settle_s=settle_s).get_ohlc


class MarketHistory:
    """Bars of one market. Usable by several tasks at once."""

    def __init__(self, side: Side, symbol: Symbol, *, settle_s: float) -> None:
        self._side, self._symbol, self._settle_s = side, symbol, settle_s
        self._aggregates = AggregatePages(side, symbol)
        self._listed_s: dict[str, int] = {}
        self._trades_a_second = 1.0

    async def get_ohlc(
        self,
        timeframe: float,
        end_dt: datetime | None = None,
        start_dt: datetime | None = None,
    ) -> Frame:
        """Final bars of `timeframe` seconds with start <= time < end, ascending.

        By default up to now, and as many as one frame has: 1,000 klines, or about 3,000
        aggregates' worth. Rows begin later than `start_dt` only where the market does.
        Returns `(rows, start, end)`: the time of the first row and, exclusive, the end
        of the last. `bar_wap` of klines is the venue's cost by its volume.

        Raises NoData if no final bar lies in the span, DataUnavailable if it ends
        before the market was listed, or before what the venue keeps; DataThrottle,
        ProviderError. Waits `settle_s` after a bar's end. Can be cancelled at any time.
        """
        if not 0 < timeframe < 2**31 or timeframe % 1:
            raise ValueError(f"timeframe {timeframe!r} must be whole seconds")
        period = int(timeframe)
        end_s = await self._final_end(period, end_dt)
        start_s = None if start_dt is None else max(_ceil(start_dt, period), 0)
        if end_s <= 0 or (start_s is not None and start_s >= end_s):
            raise self._no_data(period, start_s, end_s)
        interval = self._side.shape.intervals.get(period)
        if interval is None:
            rows = await self._folded(period, start_s, end_s)
        else:
            rows = await self._klines(interval, period, start_s, end_s)
        first_s, last_s = int(rows["time"][0]), int(rows["time"][-1])
        return rows, _moment(first_s), _moment(last_s + period)

    async def _final_end(self, period: int, end_dt: datetime | None) -> int:
        """The end of the span, the running bar left out, once that end has settled."""
        now_s = self._side.clock.now_s()
        end_s = int(now_s // period) * period
        if end_dt is not None:
            end_s = min(_ceil(end_dt, period), end_s)
        await trio.sleep(max(end_s + self._settle_s - now_s, 0))
        return end_s

    # Klines

    async def _klines(
        self, interval: str, period: int, start_s: int | None, end_s: int
    ) -> Rows:
        page_s = PAGE_ROWS * period
        at_s = max(end_s - page_s, 0) if start_s is None else start_s
        pages: list[Rows] = []
        while at_s < end_s:
            page = await self._page(interval, at_s, min(at_s + page_s, end_s))
            if not pages and not len(page):
                listed_s = await self._listed(interval, end_s)
                if listed_s >= at_s + page_s:
                    at_s = listed_s
                    continue
            pages.append(page)
            at_s += page_s
        rows = np.concatenate(pages)
        if not len(rows):
            raise self._no_data(period, start_s, end_s)
        return self._contiguous(rows, period)

    async def _page(self, interval: str, start_s: int, end_s: int) -> Rows:
        rows = await self._side.klines(
            self._symbol, interval, start_s=start_s, end_s=end_s
        )
        inside = (start_s <= rows["time"]) & (rows["time"] < end_s)
        return rows[inside]

    async def _listed(self, interval: str, end_s: int) -> int:
        """When the market's first kline begins, if that is before an end."""
        if interval not in self._listed_s:
            first = await self._side.klines(self._symbol, interval, start_s=0, limit=1)
            if len(first):
                self._listed_s[interval] = int(first["time"][0])
        listed_s = self._listed_s.get(interval, end_s)
        if listed_s >= end_s:
            raise self._unavailable(end_s, "there was no such market")
        return listed_s

    def _contiguous(self, rows: Rows, period: int) -> Rows:
        """Klines with those that were left out, flat where nothing traded."""
        times = rows["time"]
        if np.any(np.diff(times) <= 0) or np.any(times % period):
            raise ProviderError(
                f"{self._symbol.fqme}: klines are not in order, or not of {period} s"
            )
        wanted = np.arange(times[0], times[-1] + 1, period)
        places = np.searchsorted(times, wanted, "right") - 1
        flat = (times[places] != wanted) | (rows["count"][places] == 0)
        traded = np.where(flat, 0, np.arange(len(wanted)))
        filled = rows[places]
        close = filled["close"][np.maximum.accumulate(traded)]
        for column in ("open", "high", "low", "close", "bar_wap"):
            filled[column][flat] = close[flat]
        filled["volume"][flat] = 0
        filled["count"][flat] = 0
        filled["flags"][flat] = pk.BarFlag.FLAT
        filled["time"] = wanted
        return filled

    # Bars of aggregates

    async def _folded(self, period: int, start_s: int | None, end_s: int) -> Rows:
        """Rows folded from aggregates; one frame of them if there is no start.

        The close before comes from the kline of the minute before.
        """
        if start_s is None:
            start_s = max(end_s - self._frame_s(period), 0)
        listed_s = await self._listed("1m", end_s)
        start_s = max(start_s, listed_s // period * period)
        begin_s = start_s // _MINUTE * _MINUTE
        before = await self._side.klines(self._symbol, "1m", end_s=begin_s, limit=1)
        close = float(before["close"][-1]) if len(before) else None
        try:
            ticks = await self._aggregates.between(begin_s * NS, end_s * NS)
        except ProviderError as error:
            if error_code(error) != TOO_OLD:
                raise
            raise self._unavailable(end_s, "the venue keeps no trades") from None
        if not len(ticks) and close is None:
            raise self._no_data(period, start_s, end_s)
        slowed = max(self._trades_a_second / 4, _RATE_LEAST)
        self._trades_a_second = max(len(ticks) / (end_s - begin_s), slowed)
        return pk.fold_ticks(ticks, period, start_s=start_s, end_s=end_s, close=close)

    def _frame_s(self, period: int) -> int:
        """Length of a frame, by how often the market traded in the last one."""
        rows = int(_FRAME_TRADES / self._trades_a_second / period)
        least = -(-_FRAME_LEAST_S // period)
        return min(max(rows, least), _FRAME_ROWS) * period

    # Ends

    def _no_data(self, period: int, start_s: int | None, end_s: int) -> NoData:
        start = "" if start_s is None else f" and not before {_moment(start_s)}"
        return NoData(
            f"{self._symbol.fqme}: no final {period} s bar starts before "
            f"{_moment(end_s)}{start}"
        )

    def _unavailable(self, end_s: int, why: str) -> DataUnavailable:
        return DataUnavailable(f"{self._symbol.fqme}: {why} before {_moment(end_s)}")


def _ceil(moment: datetime, period: int) -> int:
    """Time of the first bar that starts at this moment or later, seconds UTC."""
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone: use pendulum.datetime(..., tz=)"
        )
    return math.ceil(moment.timestamp() / period) * period


def _moment(time_s: int) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)
