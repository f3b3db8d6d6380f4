"""History of a Kraken market: bars of the venue, or folded from its list of trades.

Rules this file owns:

1. 60 s rows come from OHLC as far back as that goes (the newest 720). Older ones, and
   rows of any other period, are folded from Trades exactly as the live engine folds.
2. A row is final: the forming one is never returned.
3. Rows are contiguous. Where nothing traded they are flat at the close before, which is
   looked for as far back as the market's first trade.
4. Pages of trades are joined by the venue's exact time and told apart by trade id.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro, OHLC and Trades
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import numpy as np
import pendulum
import trio

import piker_core as pk
from piker_core.errors import DataUnavailable, NoData, ProviderError

from .answers import OHLC_ROWS, Rows
from .api import Client, get_client
from .markets import Pair
from .pages import NS, TradePages

Frame = tuple[Rows, pendulum.DateTime, pendulum.DateTime]
GetOhlc = Callable[..., Awaitable[Frame]]

LIMITS = {"erlangs": 3, "rate": 1}
"""At most so many calls at once, so many a second."""

_MINUTE = 60
_FRAME_TRADES = 3000
_FRAME_ROWS = 720
_FRAME_LEAST_S = 600
"""A frame holds 3 pages of trades, but 10 minutes at least and 720 rows at most."""
_BEFORE_TRADES = 30
_BEFORE_S = (10, 86400)
"""Pages begin so many trades, or seconds, before the rows: for the close before."""
_RATE_LEAST = 1e-6

wall_s = time.time


@asynccontextmanager
async def open_history_client(
    symbol: str, *, client: Client | None = None
) -> AsyncIterator[tuple[GetOhlc, dict[str, int]]]:
    """History of a market: `(get_ohlc, {"erlangs": 3, "rate": 1})`.

    `await get_ohlc(timeframe, end_dt=None, start_dt=None)` gives
    `(rows of OHLCV_DTYPE, start, end)`, see `MarketHistory.get_ohlc`. Raises NotFound
    for an unknown symbol.
    """
    if client is not None:
        pair = await client.pair(symbol)
        yield MarketHistory(client, pair).get_ohlc, dict(LIMITS)
        return
    async with get_client() as opened:
        pair = await opened.pair(symbol)
        yield MarketHistory(opened, pair).get_ohlc, dict(LIMITS)


class MarketHistory:
    """Bars of one market. Usable by several tasks at once."""

    def __init__(self, client: Client, pair: Pair) -> None:
        self._client, self._pair = client, pair
        self._pages = TradePages(client, pair)
        self._trades_a_second = 1.0

    async def get_ohlc(
        self,
        timeframe: float,
        end_dt: datetime | None = None,
        start_dt: datetime | None = None,
    ) -> Frame:
        """Final bars of `timeframe` seconds with start <= time < end, ascending.

        By default up to now, and as many as one frame has: for 60 s what OHLC has (the
        newest 720), else about 3,000 trades' worth, 10 minutes at least and 720 rows at
        most. Rows start later than `start_dt` only where the market's first trade is.
        Returns `(rows, start, end)`: the time of the first row and, exclusive, the end
        of the last. `bar_wap` of rows from OHLC is the venue's vwap, which is cut to
        the price tick; of all others it is exact. A row flagged PARTIAL lacks trades
        that the venue does not give out: more than 1,000 had one time stamp.

        Raises NoData if no final bar lies in the span, DataUnavailable if the market
        had no trade before its end, DataThrottle, ProviderError. Waits `settle_s` after
        a bar's end for its last trades to be listed. Can be cancelled at any time.
        """
        if not 0 < timeframe < 2**31 or timeframe % 1:
            raise ValueError(f"timeframe {timeframe!r} must be whole seconds")
        period = int(timeframe)
        end_s = await self._final_end(period, end_dt)
        start_s = None if start_dt is None else _ceil(start_dt, period)
        if end_s <= 0 or (start_s is not None and start_s >= end_s):
            raise NoData(
                f"{self._pair.fqme}: no final {period} s bar starts before {end_dt} "
                f"and not before {start_dt}"
            )
        if period == _MINUTE:
            rows = await self._minutes(start_s, end_s)
        else:
            rows = await self._folded(period, start_s, end_s)
        first_s, last_s = int(rows["time"][0]), int(rows["time"][-1])
        return rows, _moment(first_s), _moment(last_s + period)

    async def _final_end(self, period: int, end_dt: datetime | None) -> int:
        """The end of the span, the forming bar left out, once that end has settled."""
        now_s = wall_s()
        end_s = int(now_s // period) * period
        if end_dt is not None:
            end_s = min(_ceil(end_dt, period), end_s)
        await trio.sleep(max(end_s + self._client.config.settle_s - now_s, 0))
        return end_s

    async def _minutes(self, start_s: int | None, end_s: int) -> Rows:
        """60 s rows, from OHLC as far as it goes."""
        oldest_s = (int(wall_s()) // _MINUTE - OHLC_ROWS + 1) * _MINUTE
        recent = np.zeros(0, pk.OHLCV_DTYPE)
        if end_s > oldest_s:
            recent = await self._venue_minutes(start_s, end_s)
        if not len(recent):
            return await self._folded(_MINUTE, start_s, end_s)
        first_s = int(recent["time"][0])
        if start_s is None or first_s <= start_s:
            return recent
        try:
            older = await self._folded(_MINUTE, start_s, first_s)
        except DataUnavailable:
            return recent  # they begin with the market's first trade
        return np.concatenate([older, recent])

    async def _venue_minutes(self, start_s: int | None, end_s: int) -> Rows:
        rows, last_s = await self._client.ohlc(self._pair)
        if last_s < end_s - _MINUTE:
            # An answer may be some seconds old: caches know it by its address.
            since_s = end_s - OHLC_ROWS * _MINUTE
            rows, last_s = await self._client.ohlc(self._pair, since=since_s)
        times = rows["time"]
        wanted = (times <= last_s) & (times < end_s)
        if start_s is not None:
            wanted &= times >= start_s
        return self._contiguous(rows[wanted])

    def _contiguous(self, rows: Rows) -> Rows:
        """60 s rows of the venue with flat ones for minutes that it left out."""
        steps = np.diff(rows["time"])
        if np.any(steps <= 0) or np.any(rows["time"] % _MINUTE):
            raise ProviderError(f"{self._pair.fqme}: OHLC rows are not whole minutes")
        if not np.any(steps != _MINUTE):
            return rows
        times = np.arange(rows["time"][0], rows["time"][-1] + 1, _MINUTE)
        filled = rows[np.searchsorted(rows["time"], times, "right") - 1]
        absent = filled["time"] != times
        for column in ("open", "high", "low", "bar_wap"):
            filled[column][absent] = filled["close"][absent]
        filled["volume"][absent] = 0
        filled["count"][absent] = 0
        filled["flags"][absent] = pk.BarFlag.FLAT
        filled["time"] = times
        return filled

    async def _folded(self, period: int, start_s: int | None, end_s: int) -> Rows:
        """Rows folded from trades; one frame of them if there is no start."""
        if start_s is None:
            start_s = max(end_s - self._frame_s(period), 0)
        start_ns, end_ns = start_s * NS, end_s * NS
        least_s, most_s = _BEFORE_S
        before_s = _BEFORE_TRADES / self._trades_a_second
        before_s = int(min(max(before_s, least_s), most_s))
        begin_ns = max(start_ns - before_s * NS, 0)
        if self._pages.first_ns >= end_ns:
            raise self._unavailable(end_s)
        ticks, holes = await self._pages.between(begin_ns, end_ns)
        close = None
        if not len(ticks) or ticks["time_ns"].min() >= start_ns + period * NS:
            close = await self._pages.close_before(begin_ns)
        if not len(ticks) and close is None:
            raise self._unavailable(end_s)
        seconds = end_s - start_s + before_s
        slowed = max(self._trades_a_second / 4, _RATE_LEAST)
        self._trades_a_second = max(len(ticks) / seconds, slowed)
        rows = pk.fold_ticks(ticks, period, start_s=start_s, end_s=end_s, close=close)
        incomplete = np.isin(
            rows["time"], [ns // NS // period * period for ns in holes]
        )
        rows["flags"][incomplete] |= pk.BarFlag.PARTIAL
        return rows

    def _frame_s(self, period: int) -> int:
        """Length of a frame, by how often the market traded in the last one."""
        rows = int(_FRAME_TRADES / self._trades_a_second / period)
        least = -(-_FRAME_LEAST_S // period)
        return min(max(rows, least), _FRAME_ROWS) * period

    def _unavailable(self, end_s: int) -> DataUnavailable:
        return DataUnavailable(
            f"{self._pair.fqme} had no trade before {_moment(end_s).isoformat()}"
        )


def _ceil(moment: datetime, period: int) -> int:
    """Time of the first bar that starts at this moment or later, seconds UTC."""
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone: use pendulum.datetime(..., tz=)"
        )
    return math.ceil(moment.timestamp() / period) * period


def _moment(time_s: int) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)
