"""One market of the stream: its state, its trade ids, and what of it was lost.

1. At the first subscription the trades of the running minute are fetched, and what
   comes in meanwhile is held for at most `hold_s`: so the first rows are whole.
2. After a loss live trades are pushed at once; the lost interval is a gap on record.
3. A gap is closed when the venue's own list, asked for after the stream was back, holds
   the last trade known before it, and no id is missing up to the newest.
4. What fails in one market stops that market, with the reason, until it is tried again
   or the stream is back; it touches no other.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import numpy as np
import trio

from piker_core.adapter.continuity import IdTracker
from piker_core.adapter.defaults import MarketLimits
from piker_core.adapter.loss import Gap, begin_of_loss, newest_row_ns, rows_end_ns
from piker_core.adapter.tap import tap_of
from piker_core.adapter.trades import (
    EVER_NS,
    NS,
    SLACK_NS,
    Best,
    Quote,
    TradeList,
    Trades,
    best_ticks,
    tick_of,
)
from piker_core.errors import ProviderError
from piker_core.tasks import Backoff

__all__ = [
    "EVER_NS",
    "NS",
    "Best",
    "Gap",
    "Host",
    "MarketFeed",
    "Quote",
    "TradeList",
    "Trades",
    "best_ticks",
]

_SEAM_S = 60
_NEWS_NS = NS
"""How much later than its trades a venue may say that a market trades again."""
_PUSH_ROWS = 50
_RETRY_S = (5.0, 300.0)
"""A market that failed is tried again so much later, longer each time in a row."""
_AUDIT_MOST_S = 3600.0

Normalize = Callable[[str, Any], Quote]
NormalizeBest = Callable[[str, Any, Any, int], Quote]


class Host(Protocol):
    """Who a market belongs to."""

    log: logging.Logger

    @property
    def limits(self) -> MarketLimits:
        """Its patience."""

    async def send(self, quote: Quote) -> bool:
        """Push a quote; whether the engine took it."""

    def complain(self, kind: str, text: str, frame: Any) -> None:
        """Count it, and log the first of its kind."""


def as_it_is(symbol: str, quote: Any) -> Quote:  # noqa: ARG001 - a Normalize
    """The `normalize` of markets that are given quotes."""
    given: Quote = quote
    return given


class MarketFeed:
    """A market's stream into its handle, the engine's `Market`; trades have ids.

    `normalize(symbol, rows)` makes the trades of a frame a quote whose ticks have `id`;
    `normalize_best(symbol, row, before, now_ns)` the best bid and ask, where they come
    in messages of their own (`before`: the row before, or None). Without `trades` what
    is lost stays a gap.
    """

    def __init__(
        self,
        symbol: str,
        handle: Any,
        host: Host,
        *,
        trades: TradeList | None = None,
        normalize: Normalize = as_it_is,
        normalize_best: NormalizeBest | None = None,
    ) -> None:
        self.symbol, self.handle, self.trades = symbol, handle, trades
        self.reason = ""
        self.started = self.failed = self.repairing = False
        self.trading = True
        self.gaps: list[Gap] = []
        self.held: list[Quote] | None = None
        self._behind: deque[Quote] | None = None
        self.held_until_s = 0.0
        self.seam_ns = 0
        self.floor_ns = 0
        self.heard_s = time.monotonic()
        self.suspect_s = 0.0
        self.retry_s = 0.0
        self.tracker = IdTracker()
        self._host = host
        if tap := tap_of(handle):
            normalize = tap.marking(normalize)
            normalize_best = normalize_best and tap.marking(normalize_best)
            tap.begin(symbol)
        self._normalize, self._normalize_best = normalize, normalize_best
        self._best: Any = None
        self._told_ns = self._halted_ns = self._lost_ns = 0
        self._cause = ""
        self._backoff = Backoff(*_RETRY_S)
        self._failed_s = -math.inf
        self._audited: tuple[float, float] = (0.0, 0.0)
        if handle.last_id:
            self.tracker.start(handle.last_id, handle.last_time_ns)

    # State

    def up(self, now_ns: int) -> None:
        """Trades are subscribed: go live; what was lost before is a gap.

        From its end on all are told: a clock that is late does not make it longer.
        """
        self.failed, since_ns = False, None
        if self._lost_ns:
            self._open_gap(self._lost_ns, now_ns, self._cause)
            self._lost_ns, since_ns = 0, now_ns
        elif not self.started and self._newest_row_ns():
            self._open_gap(min(self._newest_row_ns(), now_ns), now_ns, "restart")
            since_ns = now_ns
        elif not self.started and self.trades is not None:
            self.seam_ns = now_ns // (_SEAM_S * NS) * _SEAM_S * NS
            self.held = []
            self.held_until_s = time.monotonic() + self._host.limits.hold_s
            self._say("backfilling", "the running minute is fetched")
            return
        self.started = True
        self._say_live(since_ns)

    async def release(self, trades: Trades | None, *, now_ns: int) -> None:
        """End the hold: push the running minute's trades, then what came in meanwhile.

        What comes in while they are pushed comes behind them, too. Without `trades`
        they are not known yet: that is a gap.
        """
        self._behind, self.held = deque(self.held or ()), None
        seam_ns, self.seam_ns = self.seam_ns, 0
        self.floor_ns = seam_ns
        self.started = True
        try:
            if trades is None:
                self._open_gap(seam_ns, now_ns, "start")
                self._say_live(now_ns)
            else:
                self._say_live(seam_ns)
                await self.take_history(trades)
            while self._behind:
                await self._push_news(self._behind.popleft())
        finally:
            self._behind = None

    def down(self, cause: str, heard_ns: int) -> None:
        """The connection is gone; nothing was heard of it after `heard_ns`."""
        self.failed = False  # it is tried again when it is subscribed again
        self._lose(cause, heard_ns)
        self._say("reconnecting", cause)

    def stale(self) -> None:
        """Nothing was heard for too long."""
        if self.started:
            self._say("stale", "nothing is heard")

    def stop(self, cause: str, reason: str) -> None:
        """The stream does not tell of this market any more."""
        self.failed = False
        self._lose(cause, time.time_ns())
        self._say("stopped", reason)

    def fail(self, what: str, error: Exception) -> None:
        """Something of this market is broken: it stops, and is tried again later."""
        self._host.log.error("%s: %s: %r", self.symbol, what, error, exc_info=error)
        self._lose(f"failed: {type(error).__name__}", time.time_ns())
        self.failed, now_s = True, time.monotonic()
        if now_s - self._failed_s > 2 * _RETRY_S[1]:
            self._backoff.reset()
            self._backoff.next_s()  # the first is no wait
        self._failed_s, self.retry_s = now_s, now_s + self._backoff.next_s()
        self._say("stopped", f"{what}: {error!r}")

    def set_trading(self, trading: bool, *, asked_ns: int = 0) -> None:
        """Whether the venue trades this market now; when it does again, since when.

        Its word may come after the first trades, which need rows: so that is just
        before now, or before it was last asked (`asked_ns`; 0: never) and did not.
        """
        if not trading:
            self._halted_ns = asked_ns
        if trading == self.trading:
            return
        self.trading = trading
        now_ns = time.time_ns()
        since_ns = min(self._halted_ns or now_ns, now_ns) - _NEWS_NS
        if self.started and self.handle.status in ("live", "closed"):
            self._say_live(since_ns)

    def _lose(self, cause: str, heard_ns: int) -> None:
        if self.held is not None:
            self.held, self.seam_ns = None, 0
        elif self.started and not self._lost_ns:
            told_ns = self._told_ns if self.trading else EVER_NS  # closed: no rows
            self._lost_ns = begin_of_loss(self.handle, told_ns, heard_ns)
            self._cause = cause

    def _say_live(self, since_ns: int | None = None) -> None:
        if self.trading:
            self._told_ns = since_ns or self._told_ns
            self._say("live", since_ns=since_ns)
        else:
            self._say("closed", "the venue does not trade")

    def _say(
        self, status: str, reason: str = "", *, since_ns: int | None = None
    ) -> None:
        """The one place where a market's status is set.

        If no row says yet that a market is live again, the time before is not lost too.
        """
        ends = self.handle.status == "live" and status not in ("live", "closed")
        if ends and 0 < rows_end_ns(self.handle) <= self._told_ns:
            self.handle.set_status("closed")
        self.handle.set_status(status, since_ns=since_ns, reason=reason)
        if reason and reason != self.reason:
            self._host.log.info("%s: %s: %s", self.symbol, status, reason)
        self.reason = reason

    def _newest_row_ns(self) -> int:
        return newest_row_ns(self.handle)

    def _open_gap(self, start_ns: int, end_ns: int, cause: str) -> None:
        if not self.tracker.started:
            self.tracker.start(-1, start_ns)
            self.floor_ns = start_ns
        anchor = self.tracker.expected - 1
        since_ns = min(start_ns, self.tracker.newest_ns) if anchor >= 0 else start_ns
        self.handle.add_gap(start_ns=start_ns, end_ns=end_ns, cause=cause)
        self.gaps.append(Gap(start_ns, end_ns, cause, since_ns - SLACK_NS, anchor))

    # Quotes

    async def take(self, rows: Any, *, repeated: bool = False) -> None:
        """Trades of one frame, at least one, as `normalize` knows them.

        `repeated`: some of them may have been told before, such as of a snapshot. What
        is wrong with them is counted or stops this market, and is not raised.
        """
        if self.failed:
            return
        try:
            quote = self._normalize(self.symbol, rows)
            if self.held is not None:
                self.held.append(quote)
            elif self._behind is not None:
                self._behind.append(quote)
            elif repeated or not quote["ticks"][0].get("id", 1):
                await self._push_news(quote)  # the engine does not know id 0 again
            else:
                self.suspect_s = 0.0
                await self._push(quote)
        except Exception as error:  # noqa: BLE001 - sorted out there
            self._trouble("a trade", error, rows)

    async def take_best(self, row: Any, now_ns: int) -> None:
        """The best bid and ask; a `last` that no trade told of is suspicious."""
        if self.failed or self._normalize_best is None:
            return
        try:
            quote = self._normalize_best(self.symbol, row, self._best, now_ns)
            self._best = row
            last = quote.get("last")
            if last is None or last == self.handle.last_price:
                self.suspect_s = 0.0
            elif self.started and not self.suspect_s:
                self.suspect_s = time.monotonic()
            if quote["ticks"] or last is not None:
                await self._host.send(quote)
        except Exception as error:  # noqa: BLE001 - sorted out there
            self._trouble("a quote", error, row)

    async def take_history(self, trades: Trades) -> None:
        """Trades of the venue's list, oldest first: push those that are missing."""
        old = trades["time_ns"] < self.floor_ns
        for row in trades[old]:
            self.tracker.skip(int(row["id"]), int(row["time_ns"]))
        trades = trades[~old]
        wanted = [self.tracker.wants(trade_id) for trade_id in trades["id"].tolist()]
        trades = trades[np.array(wanted, np.bool_)]
        for row in trades:
            row["time_ns"] = self._fitted_ns(int(row["id"]), int(row["time_ns"]))
        await self._push_rows(trades)

    def _fitted_ns(self, trade_id: int, time_ns: int) -> int:
        """The time of a listed trade; where lists round, that of its neighbour.

        Else it could come before the one or after the other, and be a wrong open.
        """
        after_ns, before_ns = self.tracker.bounds(trade_id)
        fitted_ns = min(max(time_ns, after_ns), before_ns)
        return fitted_ns if abs(fitted_ns - time_ns) <= SLACK_NS else time_ns

    def _trouble(self, what: str, error: Exception, rows: Any) -> None:
        """Sort out what came of a frame of this market."""
        if isinstance(error, (trio.BrokenResourceError, trio.ClosedResourceError)):
            raise error  # the rings are closed
        if isinstance(error, (ProviderError, ValueError)):
            text = f"a frame was not understood: {error}"
            self._host.complain("malformed", text, rows)
        elif isinstance(error, OSError):  # fetched when there is space again
            self._host.complain("no_space", str(error), rows)
        else:
            self.fail(f"{what} could not be handled", error)

    async def _push_news(self, quote: Quote) -> None:
        """Of trades that may have been told before, push those that are new."""
        ticks = self._news(quote["ticks"])
        if ticks:
            self.suspect_s = 0.0
            await self._push(quote | {"ticks": ticks})

    async def _push_rows(self, trades: Trades) -> None:
        for place in range(0, len(trades), _PUSH_ROWS):
            ticks = [tick_of(row) for row in trades[place : place + _PUSH_ROWS]]
            await self._push({"symbol": self.symbol, "ticks": ticks})

    def _news(self, ticks: Sequence[Quote]) -> list[Quote]:
        """Those that have not been told; one from before the start is no news."""
        news = []
        for tick in ticks:
            if tick["time_ns"] < self.floor_ns:
                self.tracker.skip(tick["id"], tick["time_ns"])
            elif self.tracker.wants(tick["id"]):
                news.append(tick)
        return news

    async def _push(self, quote: Quote) -> None:
        """Trades that the engine refuses have not been seen: they will be fetched.

        A market that trades is open, though the venue has not said so yet.
        """
        if not self.trading and 0 < self._halted_ns < quote["ticks"][-1]["time_ns"]:
            self.set_trading(True)
        if await self._host.send(quote):
            self.heard_s = now_s = time.monotonic()
            see = self.tracker.see
            for tick in quote["ticks"]:
                see(tick["id"], tick["time_ns"], now_s)

    # Gaps

    def notice_jumps(self, noticed_before_s: float) -> None:
        """Ids that are missing for longer than disorder explains are gaps on record."""
        for span in self.tracker.overdue(noticed_before_s):
            if not any(
                gap.start_ns <= span.after_ns and span.before_ns <= gap.end_ns
                for gap in self.gaps
            ):
                since_ns, anchor = span.after_ns - SLACK_NS, span.first - 1
                end_ns = max(span.after_ns, span.before_ns) + 1
                cause = "trades missing in stream"
                gap = Gap(span.after_ns, end_ns, cause, since_ns, anchor)
                self.handle.add_gap(start_ns=gap.start_ns, end_ns=end_ns, cause=cause)
                self.gaps.append(gap)

    async def fill(self, asked_ns: int, *, final: bool) -> bool:
        """Read the venue's list once and push what is missing; whether all is done.

        `final`: ids that are not in the list now never existed.
        """
        newest_id = await self._fetch()
        if newest_id is None:
            self.give_up("cannot be fetched")
            return True
        return self.close_gaps(asked_ns, newest_id, final=final)

    async def _fetch(self) -> int | None:
        """The newest id listed, None if not all can be had."""
        spans = self.tracker.missing
        times = [gap.since_ns for gap in self.gaps]
        times += [span.after_ns - SLACK_NS for span in spans]
        ids = [gap.anchor for gap in self.gaps] + [span.first for span in spans]
        newest_id, pages = -1, 0
        assert self.trades is not None
        walk = self.trades.walk(max(min(times), 0), EVER_NS, min(ids))
        async with aclosing(walk):
            async for page, hole_ns in walk:
                pages += 1
                if hole_ns or pages > self._host.limits.repair_pages:
                    return None
                if len(page):
                    newest_id = max(newest_id, int(page["id"].max()))
                    await self.take_history(page)
        return newest_id

    def close_gaps(self, asked_ns: int, newest_id: int, *, final: bool) -> bool:
        """The venue's list was read up to an id; whether nothing is left to do."""
        self.tracker.settle(newest_id)
        if final and any(gap.anchor > newest_id for gap in self.gaps):
            self._forget_ids()
            return False
        if final and self.tracker.missing:
            self._host.log.warning(
                "%s: the venue has no id above %d", self.symbol, newest_id
            )
            self.tracker.start(newest_id, self.tracker.newest_ns)
        if self.tracker.missing:
            return False
        left = []
        for gap in self.gaps:
            if gap.end_ns > asked_ns or newest_id < gap.anchor:
                left.append(gap)
            else:
                self._close(gap)
        self.gaps = left
        return not left

    def _forget_ids(self) -> None:
        """The venue does not know the ids that came in: it is asked by time instead."""
        self._host.log.warning(
            "%s: the venue lists no trade %d, what was lost is fetched by time",
            self.symbol,
            self.tracker.expected - 1,
        )
        self.tracker.start(-1, self.tracker.newest_ns)
        for gap in self.gaps:
            gap.anchor = -1

    def _close(self, gap: Gap) -> None:
        self.handle.add_gap(
            start_ns=gap.start_ns, end_ns=gap.end_ns, cause=gap.cause, repaired=True
        )
        self._host.log.info("%s: gap (%s) repaired", self.symbol, gap.cause)

    def give_up(self, reason: str) -> None:
        """What cannot be fetched stays on record, unrepaired."""
        for gap in self.gaps:
            self._host.log.warning(
                "%s: gap (%s) stays unrepaired: %s", self.symbol, gap.cause, reason
            )
        self.gaps.clear()
        self.tracker.missing.clear()

    @property
    def incomplete(self) -> bool:
        """Whether something is to be fetched."""
        return bool(self.gaps or self.tracker.missing)

    def misses(self, trades: Trades) -> bool:
        """Whether the stream should have told of any of these, and did not."""
        return bool(len(trades)) and self.tracker.wants(int(trades["id"].max()))

    def audit_due(self, now_s: float) -> bool:
        """Whether nothing was heard for so long that the venue's list is looked at.

        The waits between two looks double, up to an hour.
        """
        audit_s = self._host.limits.audit_s
        if not audit_s or not self.started or self.trades is None or not self.trading:
            return False
        heard_s, due_s = self._audited
        if heard_s != self.heard_s:
            due_s = self.heard_s + audit_s
        due = now_s > due_s
        if due:
            due_s = now_s + min(2 * max(now_s - self.heard_s, audit_s), _AUDIT_MOST_S)
        self._audited = self.heard_s, due_s
        return due

    def since_last(self) -> tuple[int, int] | None:
        """From when (ns) and which id on there is news; None: nothing is known."""
        if not self.tracker.started:
            return None
        return max(self.tracker.newest_ns - SLACK_NS, 0), self.tracker.expected - 1
