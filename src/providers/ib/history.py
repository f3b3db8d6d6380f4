"""History of a contract: TWS's own bars, of any period that it has.

Rules this file owns:

1. One frame is what one request may ask for: 2,000 s of 1 s bars, a day of 60 s bars.
   A span with a start is as many frames as it needs.
2. A row is final: the forming one is never returned.
3. In a session rows are contiguous: where nothing traded they are flat at the close
   before. Where the contract is closed there are none.
4. A span without data is NoData, unless nothing older can be: DataUnavailable.

Source: https://interactivebrokers.github.io/tws-api/historical_limitations.html
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
from piker_core.calendars import NS
from piker_core.errors import DataUnavailable, NoData

from .api import Client, get_client
from .archive import BAR_SIZES, Rows
from .contracts import Listing, known_hours
from .market_feed import HOLD_S

Frame = tuple[Rows, pendulum.DateTime, pendulum.DateTime]
GetOhlc = Callable[..., Awaitable[Frame]]

LIMITS = {"erlangs": 3, "rate": 2}
"""At most so many calls at once, so many a second; the ledger keeps TWS's limits."""

_DAY_S = 86400
_SMALL_S = 30

wall_s = time.time


@asynccontextmanager
async def open_history_client(
    symbol: str, *, client: Client | None = None
) -> AsyncIterator[tuple[GetOhlc, dict[str, int]]]:
    """History of a contract: `(get_ohlc, {"erlangs": 3, "rate": 2})`.

    `await get_ohlc(timeframe, end_dt=None, start_dt=None)` gives
    `(rows of OHLCV_DTYPE, start, end)`, see `ContractHistory.get_ohlc`. Raises NotFound
    for an unknown or ambiguous name.
    """
    if client is not None:
        listing = await client.listing(symbol)
        yield ContractHistory(client, listing).get_ohlc, dict(LIMITS)
        return
    async with get_client() as opened:
        listing = await opened.listing(symbol)
        yield ContractHistory(opened, listing).get_ohlc, dict(LIMITS)


class ContractHistory:
    """Bars of one contract. Usable by several tasks at once."""

    def __init__(self, client: Client, listing: Listing) -> None:
        self._client, self._listing = client, listing
        self._archive = client.archive
        self._hours = known_hours(listing, "trading")
        self._first_s: int | None = None

    async def get_ohlc(
        self,
        timeframe: float,
        end_dt: datetime | None = None,
        start_dt: datetime | None = None,
    ) -> Frame:
        """Final bars of `timeframe` seconds with start <= time < end, ascending.

        By default up to now, and one frame of them; rows of a frame whose end is in
        closed hours are those of the session before. Bars of trades leave out what is
        not reported (odd lots); those of contracts without trades are of the quotes
        that `quote_bars_from` names, with volume 0 and a count of 1 where they moved.
        Returns `(rows, start, end)`: the time of the first row and, exclusive, the end
        of the last.

        Raises NoData if no final bar lies in the span, DataUnavailable if none older
        than its end can be had, DataThrottle, ProviderError; ValueError for a period
        that TWS has no bars of. Waits `settle_s` after a bar's end for the last trades.
        Can be cancelled at any time.
        """
        await self._wait_joined()
        if timeframe not in BAR_SIZES:
            periods = ", ".join(map(str, BAR_SIZES))
            raise ValueError(f"timeframe {timeframe!r} is none of {periods} s")
        period = int(timeframe)
        end_s = await self._final_end(period, end_dt)
        start_s = None if start_dt is None else _ceil(start_dt, period)
        self._check_span(period, start_s, end_s)
        rows = await self._frames(period, start_s, end_s)
        rows = self._contiguous(rows, period) if period < _DAY_S else rows
        first_s, last_s = int(rows["time"][0]), int(rows["time"][-1])
        return rows, _moment(first_s), _moment(last_s + period)

    async def _wait_joined(self) -> None:
        """Let a feed that begins fetch its running minute: else both would have it."""
        joined = self._client.gateway.joining.get(self._listing.symbol)
        if joined is not None:
            with trio.move_on_after(HOLD_S + self._client.config.settle_s):
                await joined.wait()

    async def _final_end(self, period: int, end_dt: datetime | None) -> int:
        """The end of the span, the forming bar left out, once that end has settled."""
        now_s = wall_s()
        end_s = int(now_s // period) * period
        if end_dt is not None:
            end_s = min(_ceil(end_dt, period), end_s)
        if period < _DAY_S:
            end_s = self._hours.last_open_ns(end_s * NS) // NS
            end_s = math.ceil(end_s / period) * period
        await trio.sleep(max(end_s + self._client.config.settle_s - now_s, 0))
        return end_s

    def _check_span(self, period: int, start_s: int | None, end_s: int) -> None:
        if end_s <= 0 or (start_s is not None and start_s >= end_s):
            raise self._no_data(period, start_s, end_s)
        days = self._client.config.small_bars_days
        if period <= _SMALL_S and end_s < wall_s() - days * _DAY_S:
            raise DataUnavailable(
                f"{self._listing.fqme}: TWS has bars of up to {_SMALL_S} s for {days} "
                "days only"
            )

    def _no_data(self, period: int, start_s: int | None, end_s: int) -> NoData:
        since = "" if start_s is None else f" and not before {_moment(start_s)}"
        return NoData(
            f"{self._listing.fqme}: no final {period} s bar starts before "
            f"{_moment(end_s)}{since}"
        )

    async def _frames(self, period: int, start_s: int | None, end_s: int) -> Rows:
        """All frames from a start to an end, or the one before the end."""
        most_s = BAR_SIZES[period].most_s
        parts: list[Rows] = []
        asked_s = end_s
        while True:
            span_s = most_s if start_s is None else min(most_s, asked_s - start_s)
            try:
                rows = await self._frame(period, asked_s, span_s)
            except (NoData, DataUnavailable):
                if not parts and (start_s is None or asked_s - span_s <= start_s):
                    raise
                rows = np.zeros(0, pk.OHLCV_DTYPE)
            first_s = int(rows["time"][0]) if len(rows) else asked_s
            parts.append(rows if start_s is None else rows[rows["time"] >= start_s])
            asked_s = min(first_s, asked_s - span_s)
            asked_s = self._hours.last_open_ns(asked_s * NS) // NS
            if start_s is None or asked_s <= start_s:
                break
        joined = np.concatenate(parts[::-1])
        if not len(joined):
            raise self._no_data(period, start_s, end_s)
        return joined

    async def _frame(self, period: int, end_s: int, span_s: int) -> Rows:
        try:
            rows = await self._archive.bars(self._listing, period, end_s, span_s)
        except NoData:
            if await self._begins_after(end_s):
                raise DataUnavailable(
                    f"{self._listing.fqme} has no history before {_moment(end_s)}"
                ) from None
            raise
        rows = rows[rows["time"] < end_s]
        if not len(rows):
            raise self._no_data(period, None, end_s)
        return rows

    async def _begins_after(self, end_s: int) -> bool:
        if self._first_s is None:
            self._first_s = await self._archive.first_s(self._listing)
        return end_s <= self._first_s

    def _contiguous(self, rows: Rows, period: int) -> Rows:
        """Rows with flat ones between those of one session."""
        steps = np.diff(rows["time"])
        parts: list[Rows] = []
        begin = 0
        for place in np.flatnonzero(steps != period).tolist():
            before, after = rows[place], rows[place + 1]
            first_s, last_s = int(before["time"]) + period, int(after["time"])
            if self._hours.same_session(first_s, last_s):
                parts += [
                    rows[begin : place + 1],
                    _flat(before, first_s, last_s, period),
                ]
                begin = place + 1
        return np.concatenate([*parts, rows[begin:]]) if parts else rows


def _flat(before: np.void, first_s: int, end_s: int, period: int) -> Rows:
    rows = np.zeros((end_s - first_s) // period, pk.OHLCV_DTYPE)
    rows["time"] = np.arange(first_s, end_s, period)
    for column in ("open", "high", "low", "close", "bar_wap"):
        rows[column] = before["close"]
    rows["flags"] = pk.BarFlag.FLAT
    return rows


def _ceil(moment: datetime, period: int) -> int:
    """Time of the first bar that starts at this moment or later, seconds UTC."""
    if moment.tzinfo is None:
        raise ValueError(
            f"{moment!r} has no time zone: use pendulum.datetime(..., tz=)"
        )
    return math.ceil(moment.timestamp() / period) * period


def _moment(time_s: int) -> pendulum.DateTime:
    return pendulum.from_timestamp(time_s)
