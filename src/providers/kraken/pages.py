"""A market's trades from the pages of Kraken's Trades call, joined without loss.

A page holds at most 1,000 trades from a time on and names the exact time of its last,
where the next page goes on. Pages overlap, trades of one time stamp may be spread over
two, and more than a page of them cannot all be had.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro, Trades
"""

import logging
from collections.abc import AsyncGenerator

import numpy as np

import piker_core as pk
from piker_core.errors import DataThrottle, ProviderError

from .answers import PAGE_TRADES, Rows
from .api import Client
from .markets import Pair

NS = 1_000_000_000
EARLIEST_NS = 1_262_304_000 * NS
"""2010, before any market. A far smaller `since` is read as seconds: 0 is sent."""
_PATIENCE = 3
"""How often a throttled page is asked for again before all pages are given up."""
_FARTHER = 8

log = logging.getLogger(__name__)


class TradePages:
    """The trades of one market. Usable by several tasks at once.

    `first_ns` is the time of the market's first trade, 0 until it was come upon.
    """

    def __init__(self, client: Client, pair: Pair) -> None:
        self._client, self._pair = client, pair
        self.first_ns = 0

    async def between(self, begin_ns: int, end_ns: int) -> tuple[Rows, list[int]]:
        """Trades with begin < time < end, each once, in the venue's order.

        Returns `(ticks of TICK_DTYPE, times in ns of which trades are missing)`: more
        than a page of trades had that very time. A trade at `begin_ns` itself may be
        there or not. Raises DataThrottle at once for the first page, for a later one
        when patience did not help; ProviderError when the pages lead nowhere.
        """
        pages: list[Rows] = []
        holes: list[int] = []
        async for fresh, hole_ns in self.walk(begin_ns, end_ns):
            pages.append(fresh)
            if hole_ns:
                holes.append(hole_ns)
        ticks = np.concatenate(pages, dtype=pk.TICK_DTYPE)  # else without padding
        return ticks[ticks["time_ns"] < end_ns], holes

    async def walk(
        self, begin_ns: int, end_ns: int, first_id: int = -1
    ) -> AsyncGenerator[tuple[Rows, int], None]:
        """The same, page by page: `(what is new in it, time of missing trades or 0)`.

        The last page may go beyond `end_ns`. Kraken does not list by id.
        """
        previous = np.zeros(0, pk.TICK_DTYPE)
        since_ns, skipped, first = _since(begin_ns), False, True
        while True:
            page, last_ns = await self._page(since_ns, patient=not first)
            first = False
            fresh = page[~np.isin(page["id"], previous["id"])]
            hole_ns = 0
            if skipped and len(fresh) and fresh["id"][0] > previous["id"].max() + 1:
                hole_ns = int(previous["time_ns"][-1])
                self._report(hole_ns)
            yield fresh, hole_ns
            if len(page) < PAGE_TRADES or page["time_ns"].max() >= end_ns:
                return
            if len(fresh):
                # A nanosecond back: trades of the page's last time may follow it.
                since_ns = max(last_ns - 1, since_ns)
            elif skipped:
                raise self._lost(since_ns)
            else:
                since_ns = max(last_ns, since_ns) + 1
            skipped = not len(fresh)
            previous = page

    async def close_before(self, end_ns: int) -> float | None:
        """Price of the last trade at `end_ns` or before; None if there is none.

        Looks back in growing steps, then halves what is left: some ten calls find a
        trade that is years away.
        """
        low_ns, high_ns, back_ns = 0, end_ns, 60 * NS
        close: float | None = None
        while high_ns - low_ns > 1000 or (close is None and high_ns > 0):
            if close is None:
                back_ns *= _FARTHER
                since_ns = _since(high_ns - back_ns)
            else:
                since_ns = (low_ns + high_ns) // 2
            page, last_ns = await self._page(since_ns, patient=True)
            before = page[page["time_ns"] <= high_ns]
            if len(before):
                close = float(before["price"][-1])
                if len(page) < PAGE_TRADES:
                    return close
                low_ns = max(last_ns, since_ns)
            else:
                high_ns = since_ns
            if not since_ns and len(page):
                self.first_ns = int(page["time_ns"][0])
        if low_ns:  # trades of that page's last time may follow it
            page, _ = await self._page(low_ns - 1, patient=True)
            before = page[page["time_ns"] <= end_ns]
            close = float(before["price"][-1]) if len(before) else close
        return close

    async def _page(self, since_ns: int, *, patient: bool) -> tuple[Rows, int]:
        tries = _PATIENCE if patient else 0
        while True:
            try:
                return await self._client.trades(self._pair, since_ns)
            except DataThrottle as error:
                if not tries:
                    raise
                tries -= 1
                # No sleep: the limiter holds the next call back for long enough.
                log.warning("this page is asked for again: %s", error)

    def _report(self, hole_ns: int) -> None:
        log.warning(
            "%s: more than %d trades at %d ns, some cannot be had",
            self._pair.fqme,
            PAGE_TRADES,
            hole_ns,
        )

    def _lost(self, since_ns: int) -> ProviderError:
        return ProviderError(
            f"{self._pair.fqme}: the pages of Trades do not go on from {since_ns} ns; "
            "try again later, or report it if it stays so"
        )


def _since(time_ns: int) -> int:
    return time_ns if time_ns >= EARLIEST_NS else 0
