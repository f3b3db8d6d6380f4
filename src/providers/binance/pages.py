"""A market's trades from Binance's lists, page by page, each once.

Lists go by id, which rises by one, so pages join exactly. Individual trades are in
`historicalTrades`, which spot gives to anybody, aggregates in `aggTrades`. What the
stream tells as trades is repaired with trades, and aggregates with aggregates: so ids,
sizes and counts are the venue's own in both cases.

Source: https://developers.binance.com/docs/binance-spot-api-docs/rest-api
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np

import piker_core as pk

from .answers import FirstId, Rows
from .client import PAGE_ROWS, Side
from .markets import Symbol

log = logging.getLogger(__name__)

NS = 1_000_000_000
_FAR_NS = 60 * NS
"""A list that begins so much before what is known of its first id is another one's."""


class TradePages:
    """The individual trades of one market. Usable by several tasks at once."""

    def __init__(self, side: Side, symbol: Symbol) -> None:
        self.side, self.symbol = side, symbol

    async def fetch(self, first_id: int | None, limit: int = PAGE_ROWS) -> Rows:
        """A page from an id on, or the newest."""
        return await self.side.trades(self.symbol, first_id, limit)

    def pick(self, ids: FirstId) -> int:
        """Which of the first ids of an aggregate counts here."""
        return ids.trade

    async def walk(
        self, since_ns: int, until_ns: int, first_id: int = -1
    ) -> AsyncGenerator[tuple[Rows, int], None]:
        """See `TradeList.walk`: pages from an id on if that is known, else from a time.

        By time one trade before it comes first, so that the newest id is known even
        where nothing has traded since. An id of another list, such as that of trades
        where aggregates are asked for, is as good as none.
        """
        if first_id >= 0:
            foreign = False
            async with aclosing(self._from(first_id, until_ns)) as pages:
                async for page in pages:
                    foreign = page["time_ns"][0] < since_ns - _FAR_NS
                    if foreign:
                        break
                    yield page, 0
            if not foreign:
                return
            log.warning("%s: %d is no id of its list", self.symbol.fqme, first_id)
        async with aclosing(self._since(since_ns, until_ns)) as pages:
            async for page in pages:
                yield page, 0

    async def _since(self, since_ns: int, until_ns: int) -> AsyncGenerator[Rows, None]:
        newest = await self.fetch(None)
        if len(newest) < PAGE_ROWS or newest["time_ns"][0] < since_ns:
            late = np.flatnonzero(newest["time_ns"] >= since_ns)
            begin = int(late[0]) if len(late) else len(newest)
            yield newest[max(begin - 1, 0) :]
            return
        ids = await self.side.first_since(self.symbol, since_ns)
        first_id = int(newest["id"][0]) if ids is None else self.pick(ids)
        async with aclosing(self._from(first_id, until_ns)) as pages:
            async for page in pages:
                yield page

    async def between(self, begin_ns: int, end_ns: int) -> Rows:
        """Trades with begin <= time < end."""
        ids = await self.side.first_since(self.symbol, begin_ns)
        pages = [np.zeros(0, pk.TICK_DTYPE)]
        if ids is not None:
            pages += [page async for page in self._from(self.pick(ids), end_ns)]
        ticks = np.concatenate(pages, dtype=pk.TICK_DTYPE)  # else without padding
        times = ticks["time_ns"]
        return ticks[(begin_ns <= times) & (times < end_ns)]

    async def _from(self, first_id: int, until_ns: int) -> AsyncGenerator[Rows, None]:
        """Pages from an id on, none of them empty."""
        while True:
            page = await self.fetch(first_id)
            if len(page):
                yield page
            if len(page) < PAGE_ROWS or page["time_ns"][-1] >= until_ns:
                return
            first_id = int(page["id"][-1]) + 1


class AggregatePages(TradePages):
    """The aggregates of one market."""

    async def fetch(self, first_id: int | None, limit: int = PAGE_ROWS) -> Rows:
        """A page from an id on, or the newest."""
        return await self.side.aggregates(self.symbol, first_id, limit)

    def pick(self, ids: FirstId) -> int:
        """Which of the first ids of an aggregate counts here."""
        return ids.aggregate
