"""One market of the stream: its state, its trade ids, and what of it was lost.

1. At the first subscription the trades of the running minute are fetched, and what
   comes in meanwhile is held for at most HOLD_S: so the first rows are whole.
2. After a loss live trades are pushed at once; the lost interval is a gap on record.
3. A gap is closed when the venue's own list, asked for after the stream was back, holds
   the last trade known before it, and no id is missing up to the newest.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .continuity import IdTracker
from .wire import (
    NS,
    Quote,
    TickerRow,
    TradeRow,
    decode_time,
    normalize_ticker,
    normalize_trades,
)

HOLD_S = 2.0
"""Longest wait for the trades of the running minute at the first start."""
_SEAM_S = 60
_PUSH_ROWS = 50

log = logging.getLogger("providers.kraken")
Send = Callable[[Quote], Awaitable[bool]]


class Gap(msgspec.Struct):
    """An interval without a proof that all its trades are known.

    `since_ns`: from when on to ask the venue; `anchor`: the newest id known before it.
    """

    start_ns: int
    end_ns: int
    cause: str
    since_ns: int
    anchor: int


class MarketFeed:
    """A market's stream into its handle, the engine's `Market`."""

    def __init__(self, symbol: str, handle: Any, send: Send) -> None:
        self.symbol = symbol
        self.handle = handle
        self.tracker = IdTracker()
        self.gaps: list[Gap] = []
        self.held: list[Sequence[TradeRow]] | None = None
        self.held_until_s = 0.0
        self.seam_ns = 0
        self.floor_ns = 0
        self.ticker: TickerRow | None = None
        self.suspect_s = 0.0
        self.repairing = False
        self.started = False
        self._lost_ns = 0
        self._cause = ""
        self._send = send
        if handle.last_id:
            self.tracker.start(handle.last_id, handle.last_time_ns)

    # The stream's state

    def up(self, now_ns: int, *, trading: bool) -> None:
        """Trades are subscribed: go live; what was lost before is a gap."""
        if self._lost_ns:
            self._open_gap(self._lost_ns, now_ns, self._cause)
            self._lost_ns = 0
        elif not self.started and self._newest_row_ns():
            self._open_gap(min(self._newest_row_ns(), now_ns), now_ns, "restart")
        elif not self.started:
            self.seam_ns = now_ns // (_SEAM_S * NS) * _SEAM_S * NS
            self.held = []
            self.held_until_s = time.monotonic() + HOLD_S
            self.handle.set_status("backfilling")
            return
        self.started = True
        self.handle.set_status("live" if trading else "closed")

    async def release(
        self, trades: NDArray[np.void] | None, *, trading: bool, now_ns: int
    ) -> None:
        """End the hold: push the running minute's trades, then what came in meanwhile.

        Without `trades` they are not known yet: that is a gap.
        """
        held, self.held = self.held or [], None
        seam_ns, self.seam_ns = self.seam_ns, 0
        self.floor_ns = seam_ns
        self.started = True
        status = "live" if trading else "closed"
        if trades is None:
            self._open_gap(seam_ns, now_ns, "start")
            self.handle.set_status(status)
        else:
            self.handle.set_status(status, since_ns=seam_ns)
            await self.take_history(trades)
        for rows in held:
            await self.take_trades(rows, snapshot=True)

    def down(self, cause: str, heard_ns: int) -> None:
        """The connection is gone; nothing was heard of it after `heard_ns`."""
        if self.held is not None:
            self.held, self.seam_ns = None, 0
        elif self.started and not self._lost_ns:
            self._lost_ns, self._cause = heard_ns, cause
        self.handle.set_status("reconnecting")

    def refuse(self) -> None:
        """The venue does not serve this market any more."""
        self.down("refused", time.time_ns())
        self.handle.set_status("stopped")

    def _newest_row_ns(self) -> int:
        times = self.handle.bars[min(self.handle.bars)].times()
        return int(times[1]) * NS if times else 0

    def _open_gap(self, start_ns: int, end_ns: int, cause: str) -> None:
        if not self.tracker.started:
            self.tracker.start(0, start_ns)
            self.floor_ns = start_ns
        anchor = self.tracker.expected - 1
        since_ns = min(start_ns, self.tracker.newest_ns) if anchor else start_ns
        self.gaps.append(Gap(start_ns, end_ns, cause, since_ns - 1000, anchor))
        self.handle.add_gap(start_ns=start_ns, end_ns=end_ns, cause=cause)

    # Quotes

    async def take_trades(self, rows: Sequence[TradeRow], *, snapshot: bool) -> None:
        """Trades of one frame; of a snapshot, those that are new."""
        if self.held is not None:
            self.held.append(rows)
            return
        if snapshot:
            rows = [row for row in rows if self._wants(row)]
        if rows:
            self.suspect_s = 0.0
            await self._push_ticks(normalize_trades(self.symbol, rows))

    async def take_ticker(self, row: TickerRow, now_ns: int) -> None:
        """The best bid and ask; a `last` that no trade told of is suspicious."""
        quote = normalize_ticker(self.symbol, row, self.ticker, now_ns)
        self.ticker = row
        if row.last is None or row.last == self.handle.last_price:
            self.suspect_s = 0.0
        elif self.started and not self.suspect_s:
            self.suspect_s = time.monotonic()
        if quote["ticks"] or "last" in quote:
            await self._send(quote)

    async def take_history(self, trades: NDArray[np.void]) -> None:
        """Trades of the venue's list, oldest first: push those that are missing."""
        old = trades["time_ns"] < self.floor_ns
        for row in trades[old]:
            self.tracker.skip(int(row["id"]), int(row["time_ns"]))
        trades = trades[~old]
        wanted = [self.tracker.wants(trade_id) for trade_id in trades["id"].tolist()]
        trades = trades[np.array(wanted, np.bool_)]
        for place in range(0, len(trades), _PUSH_ROWS):
            ticks = [_tick(row) for row in trades[place : place + _PUSH_ROWS]]
            await self._push_ticks({"symbol": self.symbol, "ticks": ticks})

    def _wants(self, row: TradeRow) -> bool:
        """Whether a trade that is told again is news; one from before is not."""
        time_ns = decode_time(row.timestamp)
        if time_ns < self.floor_ns:
            self.tracker.skip(row.trade_id, time_ns)
            return False
        return self.tracker.wants(row.trade_id)

    async def _push_ticks(self, quote: Quote) -> None:
        """Trades that the engine refuses have not been seen: they will be fetched."""
        if await self._send(quote):
            now_s = time.monotonic()
            for tick in quote["ticks"]:
                self.tracker.see(tick["id"], tick["time_ns"], now_s)

    # Gaps

    def notice_jumps(self, noticed_before_s: float) -> None:
        """Ids that are missing for longer than disorder explains are gaps on record."""
        for span in self.tracker.overdue(noticed_before_s):
            if not any(
                gap.start_ns <= span.after_ns and span.before_ns <= gap.end_ns
                for gap in self.gaps
            ):
                since_ns, anchor = span.after_ns - 1000, span.first - 1
                end_ns = span.before_ns + 1
                cause = "trades missing in stream"
                gap = Gap(span.after_ns, end_ns, cause, since_ns, anchor)
                self.gaps.append(gap)
                self.handle.add_gap(start_ns=gap.start_ns, end_ns=end_ns, cause=cause)

    def close_gaps(self, asked_ns: int, newest_id: int, *, final: bool) -> bool:
        """The venue's list was read up to `newest_id`; whether nothing is left to do.

        `final`: ids above it that the stream told of are the stream's fault.
        """
        self.tracker.settle(newest_id)
        if final and self.tracker.missing:
            log.warning("%s: the venue has no id above %d", self.symbol, newest_id)
            self.tracker.start(newest_id, self.tracker.newest_ns)
        if self.tracker.missing:
            return False
        left = []
        for gap in self.gaps:
            if gap.end_ns > asked_ns or newest_id < gap.anchor:
                left.append(gap)
                continue
            self.handle.add_gap(
                start_ns=gap.start_ns,
                end_ns=gap.end_ns,
                cause=gap.cause,
                repaired=True,
            )
            log.info("%s: gap (%s) repaired", self.symbol, gap.cause)
        self.gaps = left
        return not left

    def give_up(self) -> None:
        """What cannot be fetched stays on record, unrepaired."""
        for gap in self.gaps:
            log.warning("%s: gap (%s) stays unrepaired", self.symbol, gap.cause)
        self.gaps.clear()
        self.tracker.missing.clear()


def _tick(row: np.void) -> Quote:
    return {
        "type": "trade",
        "price": float(row["price"]),
        "size": float(row["size"]),
        "time_ns": int(row["time_ns"]),
        "id": int(row["id"]),
        "side": int(row["side"]),
        "count": int(row["count"]),
    }
