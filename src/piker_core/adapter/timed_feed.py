"""One market of a venue without trade ids: what was lost is rebuilt by time.

1. A gap is closed by one reading of the venue's list, `repair_settle_s` after its end
   and the margin behind it. Trades are pushed that the list has and the stream had not;
   what the stream tells later than that counts twice.
2. In the margins of `repair_edge_s` around a gap both have trades: they are told apart
   by time, price and size, and of equal ones by how many there are.
3. After a restart nothing is known of the step of time in which the last trade was: the
   list is used from the next one on, for no trade may count twice.
"""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import trio

from piker_core.adapter.continuity import Key, TickLog, take_new
from piker_core.adapter.market_feed import Gap, Host, MarketFeed
from piker_core.adapter.trades import NS, Quote, Trades
from piker_core.dtypes import TICK_DTYPE


class TimedGap(Gap):
    """A gap, up to when to ask the venue, and what the stream told in between."""

    until_ns: int
    seen: Counter[Key]


class TimedMarketFeed(MarketFeed):
    """A `MarketFeed` whose ticks have no `id`.

    `resolution_ns`: the step of the times that the venue's list has, such as a second.
    """

    def __init__(
        self, symbol: str, handle: Any, host: Host, *, resolution_ns: int, **more: Any
    ) -> None:
        super().__init__(symbol, handle, host, **more)
        self._resolution_ns = resolution_ns
        self._edge_ns = int(host.limits.repair_edge_s * NS) + resolution_ns
        self._log = TickLog(resolution_ns, 2 * self._edge_ns)
        self._told: Counter[Key] = Counter()

    async def release(self, trades: Trades | None, *, now_ns: int) -> None:
        """End the hold; what the list has of the trades held is not pushed again."""
        if trades is not None:
            self._told = Counter(self._log.keys(trades))
        await super().release(trades, now_ns=now_ns)
        self._told = Counter()

    def _open_gap(self, start_ns: int, end_ns: int, cause: str) -> None:
        known_ns, step_ns = self._log.newest_ns, self._resolution_ns
        if known_ns:
            since_ns = min(start_ns, known_ns) - self._edge_ns
        else:
            since_ns = max(self.handle.last_time_ns + step_ns, start_ns)
        since_ns = since_ns // step_ns * step_ns  # whole steps, as the list has them
        until_ns = -(-(end_ns + self._edge_ns) // step_ns) * step_ns
        seen = self._log.since(since_ns)
        gap = TimedGap(start_ns, end_ns, cause, since_ns, -1, until_ns, seen)
        self.handle.add_gap(start_ns=start_ns, end_ns=end_ns, cause=cause)
        self.gaps.append(gap)

    async def take_history(self, trades: Trades) -> None:
        """Trades of the venue's list that the stream had not, oldest first."""
        await self._push_rows(trades[trades["time_ns"] >= self.floor_ns])

    def _news(self, ticks: Sequence[Quote]) -> list[Quote]:
        keys = [self._log.key(t["time_ns"], t["price"], t["size"]) for t in ticks]
        new = take_new(keys, self._told)
        return [tick for tick, wanted in zip(ticks, new, strict=True) if wanted]

    async def _push(self, quote: Quote) -> None:
        if not await self._host.send(quote):
            return
        self.heard_s = time.monotonic()
        for tick in quote["ticks"]:
            time_ns = tick["time_ns"]
            key = self._log.see(time_ns, tick["price"], tick["size"])
            for gap in self.gaps:
                assert isinstance(gap, TimedGap)
                if gap.since_ns <= time_ns < gap.until_ns:
                    gap.seen[key] += 1

    def notice_jumps(self, noticed_before_s: float) -> None:
        """Without ids there are none to be missing."""

    async def fill(self, asked_ns: int, *, final: bool) -> bool:
        """Rebuild the oldest gap; whether it was the last."""
        gap = self.gaps[0]
        assert isinstance(gap, TimedGap)
        settled_ns = gap.until_ns + int(self._host.limits.repair_settle_s * NS)
        await trio.sleep(max(settled_ns - time.time_ns(), 0) / NS)
        trades = await self._list(gap)
        if trades is None:
            self.give_up("cannot be fetched")
            return True
        new = take_new(self._log.keys(trades), Counter(gap.seen))
        await self._push_rows(trades[np.array(new, np.bool_)])
        self._close(gap)
        self.gaps.remove(gap)
        return not self.gaps

    async def _list(self, gap: TimedGap) -> Trades | None:
        """All trades of a gap and its margins, in order; None if not all can be had."""
        assert self.trades is not None
        pages: list[Trades] = [np.zeros(0, TICK_DTYPE)]
        walk = self.trades.walk(gap.since_ns, gap.until_ns, -1)
        async with aclosing(walk):
            async for page, hole_ns in walk:
                if hole_ns or len(pages) > self._host.limits.repair_pages:
                    return None
                times = page["time_ns"]
                pages.append(page[(gap.since_ns <= times) & (times < gap.until_ns)])
        return np.concatenate(pages, dtype=TICK_DTYPE)  # else without padding

    def misses(self, trades: Trades) -> bool:
        """Whether the stream should have told of any of these, and did not."""
        seen = self._log.since(0)
        return any(take_new(self._log.keys(trades), seen))

    def since_last(self) -> tuple[int, int] | None:
        """From when (ns) on to list what is newer; None: nothing is known."""
        known_ns, step_ns = self._log.newest_ns, self._resolution_ns
        return ((known_ns // step_ns + 1) * step_ns, -1) if known_ns else None
