"""One market of the stream: its lines, its state, and what of it was lost.

Rules this file owns:

1. At the first start trades of the running minute are fetched, and what comes in
   meanwhile is held for at most HOLD_S: so the first rows are whole.
2. After a loss live data are pushed at once; the lost time, as far as the contract was
   open, is a gap on record until its trades are known by their second.
3. The engine knows the contract's hours: outside of them the market is `closed` and has
   no flat rows, whatever its lines do.
4. A line is alive when it has told something; TWS's mere acknowledgement is enough for
   one that has never told anything.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

import piker_core as pk
from piker_core.calendars import AHEAD_NS, BACK_NS, NS

from .audit import VAIN_MOST
from .contracts import Listing
from .hours import Hours
from .known import Known, KnownTrades
from .tape import Tape, Tick

HOLD_S = 5.0
"""Longest wait for the trades of the running minute, once they can be asked for."""
_BEFORE_S = 2
_EDGE_NS = 500_000_000
"""How long after a line's first word trades may still not be told on it."""
_BEHIND_NS = 10 * NS
"""The clock may be as late as that; older rows are missing as nothing was traded."""
_SEAM_S = 60
_FRESH_NS = 5 * NS
"""What is heard so soon after a line was asked for may be what was known before."""
PUSH_TICKS = 50
_WORD_S = 2.0
"""How soon a line tells something once it is acknowledged, if there is anything."""
_TICKED = frozenset(("ack", "word", "tick", "farm", "retry"))
"""What a market may wait for when its line tells something."""
Quote = dict[str, Any]
Send = Callable[[Quote], Awaitable[bool]]

log = logging.getLogger("providers.ib")


class Gap(msgspec.Struct):
    """An interval without a proof that all its trades are known.

    Trades of seconds `next_s` to `until_s` are still to be looked for; those up to
    subscription `epoch` were told before it, by samples if `sampled`. `found` counts
    those that were missing; `shared`: of its seconds another gap has found some. The
    volume has told of those named `audit`, the venue's bars of those named `sweep`.
    """

    start_ns: int
    end_ns: int
    cause: str
    next_s: int
    until_s: int
    epoch: int
    found: int = 0
    pages: int = 0
    audit: bool = False
    sweep: bool = False
    sampled: bool = False
    shared: bool = False


class MarketFeed:
    """A market's messages into its handle, the engine's `Market`."""

    def __init__(
        self,
        symbol: str,
        listing: Listing,
        handle: Any,
        send: Send,
        tape: Tape,
        hours: Hours,
    ) -> None:
        self.symbol = symbol
        self.listing = listing
        self.handle = handle
        self.tape = tape
        self.missed = 0
        self.compared = self.uncompared = 0
        self.swept_s = 0
        self.known = KnownTrades()
        self.gaps: list[Gap] = []
        self.seam: Gap | None = None
        self.repairing = False
        self.started = False
        self.heard_ns = 0
        self.shut_ns = 0
        self.up_ns = 0
        self.lines: list[int] = []
        self.awaits = "ack"
        self.due_s = 0.0
        self._held: list[list[Tick]] | None = None
        self._up = False
        self._stale = self._refused = False
        self._said = ("", "")
        self.quiet = 0
        self._asked_ns = 0
        self._anew = False
        self._lost_ns = 0
        self._cause = self._why = ""
        self._sampled = False
        self._first_s = 0
        self._vain = 0
        self.come = self._read = 0
        self._has_read = trio.Event()
        self._send = send
        self.set_hours(hours)

    def set_hours(self, hours: Hours) -> None:
        """When it is open, by all that TWS has said."""
        self.hours = hours
        now_ns = time.time_ns()
        sessions = hours.for_engine(now_ns - BACK_NS, now_ns + AHEAD_NS)
        self.handle.set_sessions(sessions)

    def restore(self, namespace: str | None) -> None:
        """What earlier writers of its rings knew of the last trade's second.

        Of seconds before it nothing is known any more, nor missing. `namespace`: where
        its rings are, None: the usual one.
        """
        second = self.handle.last_time_ns // NS
        if not self._newest_row_ns() or not second:
            return
        self.tape.remember(self.handle.last_time_ns)
        rows = self._written(second, namespace)
        self._first_s = second if len(rows) else second + 1
        if len(rows):
            size = Decimal(repr(float(rows["volume"][0])))
            self.known.put(Known(0, self.handle.last_time_ns, "trade", 0.0, size))

    def _written(self, second: int, namespace: str | None) -> NDArray[np.void]:
        """The 1 s row of a second, as it is in our own rings."""
        ring = self.handle.bars.get(1)
        if ring is not None:
            try:
                with pk.attach_bars(self.handle.fqme, namespace=namespace) as bars:
                    if bars.head == ring.head:
                        return bars.between(second, second + 1)
            except pk.PikerError as error:
                log.debug("%s: its rings cannot be read: %s", self.symbol, error)
        log.warning("%s: trades of its last second may be missing", self.symbol)
        return np.zeros(0, pk.OHLCV_DTYPE)

    # State

    @property
    def up(self) -> bool:
        """Whether its data flow, as far as is known."""
        return self._up

    @property
    def closed(self) -> bool:
        """Whether nothing is to be expected of it at this hour."""
        return bool(self.handle.status == "closed")

    @property
    def told_by_tick(self) -> bool:
        """Whether each of its trades is told, and can be compared with its bars."""
        by_tick = self.listing.kind == "trades" and self.tape.source != "sampled"
        return by_tick and self._vain < VAIN_MOST

    @property
    def held(self) -> bool:
        """Whether live trades wait for those of the running minute."""
        return self._held is not None

    def ask(self, now_ns: int, *, by_tick: bool) -> None:
        """Its lines were asked for: wait for a word on them."""
        self.known.epoch += 1
        self._anew = True
        self._asked_ns = now_ns
        self.awaits = "ack"
        self.tape.begin(now_ns, by_tick=by_tick)

    def come_up(self, now_ns: int) -> None:
        """Data flow from now on; what was lost before is a gap."""
        if self._up:
            return
        if not self._anew:
            self.known.epoch += 1
            self.tape.resume(now_ns)
        self._up, self.awaits, self.up_ns = True, "", now_ns
        self._stale = self._refused = False
        since_ns = None
        if self._lost_ns:
            self._open_gaps(self._lost_ns, now_ns, self._cause)
            self._lost_ns, since_ns = 0, now_ns
        elif not self.started and self._newest_row_ns():
            self._open_gaps(min(self._newest_row_ns(), now_ns), now_ns, "restart")
            since_ns = now_ns
        elif not self.started and self.hours.is_open(now_ns):
            minute_ns = now_ns // (_SEAM_S * NS) * _SEAM_S * NS
            self._first_s = minute_ns // NS
            self.seam = self._gap(minute_ns, now_ns, "start")
            self._held = []
        if not self.started:
            self.swept_s = self.seam.next_s if self.seam else now_ns // NS
        self.started = True
        self._show(since_ns)

    def go_down(
        self, cause: str, heard_ns: int, *, stale: bool = False, refused: bool = False
    ) -> None:
        """No data; nothing was heard of it after `heard_ns`."""
        if self._held is not None:
            self.seam = self._held = None
            self.started = False
            self.known.clear()  # what was held has not been told
        elif self.started and not self._lost_ns:
            self._lost_ns, self._cause = self._rows_until_ns(heard_ns), cause[:39]
        self._why = cause
        if self._up:
            self._sampled = self.tape.source == "sampled"
        self._up, self._anew = False, False
        self._stale, self._refused = stale, refused
        self._show()

    def _show(self, since_ns: int | None = None) -> None:
        """Its state as the status of its rings."""
        status, reason = "live", ""
        if self._refused:
            status, reason = "stopped", self._why
        elif not self._up:
            lost = "stale" if self._stale else "reconnecting"
            status = lost if self.started or self._stale else "starting"
            reason = self._why
        elif self._held is not None:
            status, reason = "backfilling", "trades of the running minute"
        if (status, reason) != self._said:
            self._said = (status, reason)
            self.handle.set_status(status, since_ns=since_ns, reason=reason)

    def _rows_until_ns(self, heard_ns: int) -> int:
        """The end of the newest row, if the clock has not come to what was heard last.

        Of the rows that are missing the engine does not know that nothing was lost.
        """
        newest_ns = self._newest_row_ns()
        if not newest_ns:
            return heard_ns
        rows_ns = newest_ns + int(min(self.handle.bars)) * NS
        return min(heard_ns, max(rows_ns, heard_ns - _BEHIND_NS))

    def _newest_row_ns(self) -> int:
        times = self.handle.bars[min(self.handle.bars)].times()
        return int(times[1]) * NS if times else 0

    # Gaps

    def _gap(self, start_ns: int, end_ns: int, cause: str) -> Gap:
        return Gap(
            start_ns,
            end_ns,
            cause,
            next_s=max(start_ns // NS - _BEFORE_S, self._first_s),
            until_s=(end_ns + _EDGE_NS) // NS + 1,
            epoch=self.known.epoch - 1,
        )

    def _open_gaps(self, start_ns: int, end_ns: int, cause: str) -> None:
        """What was lost of open hours; at other times there was nothing to lose."""
        spans = self.hours.spans(start_ns, end_ns)
        for begin_ns, close_ns in spans:
            gap = self._gap(begin_ns, close_ns, cause)
            gap.sampled = self._sampled and spans == [(start_ns, end_ns)]
            if cause == "restart" or begin_ns > start_ns:
                gap.next_s = max(begin_ns // NS, self._first_s)
            if close_ns < end_ns:
                gap.until_s = -(-close_ns // NS)
            self._record(gap)

    def open_audit_gap(self, start_ns: int, end_ns: int) -> None:
        """The volume says that trades are missing which the stream should have told."""
        gap = self._gap(start_ns, end_ns, "trades missing in stream")
        gap.epoch, gap.audit = self.known.epoch, True
        self._record(gap)

    def open_sweep_gap(self, start_s: int, end_s: int) -> None:
        """The venue's bars say that trades of these seconds are missing."""
        gap = self._gap(start_s * NS, end_s * NS, "trades missing in stream")
        gap.next_s, gap.until_s = start_s, end_s
        gap.epoch, gap.sweep = self.known.epoch_of(start_s, end_s), True
        self._record(gap)

    def _record(self, gap: Gap) -> None:
        self.gaps.append(gap)
        self.handle.add_gap(start_ns=gap.start_ns, end_ns=gap.end_ns, cause=gap.cause)

    def lost_size(self, gap: Gap) -> Decimal | None:
        """How much was traded in a gap, where the volume says it exactly."""
        told = gap.sampled and self.tape.source == "sampled"
        between = self.known.epoch == gap.epoch + 1
        return self.tape.sampler.meter.jump if told and between else None

    def close_gap(self, gap: Gap) -> None:
        """All of its trades are known."""
        self.gaps.remove(gap)
        self.missed += gap.found
        for other in self.gaps if gap.found else ():
            other.shared |= other.next_s < gap.until_s
        if gap.audit and (gap.found or not gap.shared):
            self.tape.audit.judge(gap.found)
        if gap.sweep:
            self._judge_sweep(gap.found)
        self.handle.add_gap(
            start_ns=gap.start_ns, end_ns=gap.end_ns, cause=gap.cause, repaired=True
        )
        log.info("%s: gap (%s) repaired, %d trades", self.symbol, gap.cause, gap.found)

    def _judge_sweep(self, found: int) -> None:
        self._vain = 0 if found else self._vain + 1
        if self._vain == VAIN_MOST:
            log.warning(
                "%s: the volumes of its bars are not those of its trades; they are not "
                "compared any more, so a loss may not be noticed",
                self.symbol,
            )

    def give_up(self, gap: Gap, why: str) -> None:
        """What cannot be fetched stays on record, unrepaired."""
        self.gaps.remove(gap)
        log.warning("%s: gap (%s) stays unrepaired: %s", self.symbol, gap.cause, why)

    async def release(self, ticks: list[Tick] | None, now_ns: int) -> None:
        """End the hold: push the running minute's trades, then what came in meanwhile.

        Without `ticks` they are not known yet: that is a gap.
        """
        held, self._held = self._held or [], None
        seam, self.seam = self.seam, None
        if seam is None:
            return
        if ticks is None:
            seam.end_ns = now_ns
            self._record(seam)
            self._show(now_ns)
        else:
            self._show(seam.start_ns)
            self.known.add(ticks, seam.epoch)
            await self.push(ticks)
        for each in held:
            await self.push(each)

    # Quotes

    def take(self, name: str, arguments: tuple[Any, ...], now_ns: int) -> None:
        """A message on one of its lines; raises ValueError for nonsense."""
        if name in ("tickReqParams", "marketDataType"):
            if self.awaits == "ack":
                self.awaits = "word"
                self.due_s = trio.current_time() + _WORD_S
        else:
            self.heard_ns = now_ns
            if now_ns - self._asked_ns > _FRESH_NS:
                self.quiet = 0
            if self.awaits in _TICKED:
                self.come_up(now_ns)
        self.tape.take(name, arguments, now_ns)

    def note_read(self, come: int) -> None:
        """So many of the messages that have `come` in are known."""
        self._read = come
        self._has_read.set()
        self._has_read = trio.Event()

    async def wait_read(self) -> None:
        """Wait until all that has come in by now is known.

        What history lists may have been told before its answer, and be no loss.
        """
        come = self.come
        while self._read < come:
            await self._has_read.wait()

    async def flush(self, now_ns: int) -> None:
        """Push what came in since the last call."""
        ticks = self.tape.flush(now_ns)
        if not ticks:
            return
        self.known.add(ticks)
        self.known.forget(self._needed_s())
        if self._held is not None:
            self._held.append(ticks)
        else:
            await self.push(ticks)

    def _needed_s(self) -> int:
        """The first second whose trades may be looked for, or be compared."""
        seconds = [gap.next_s for gap in self.gaps]
        if self.told_by_tick and self.swept_s:
            seconds.append(self.swept_s)
        return min(seconds, default=1 << 40)

    async def push(self, ticks: list[Tick]) -> bool:
        """Send ticks; whether the engine took them all."""
        taken = True
        for place in range(0, len(ticks), PUSH_TICKS):
            quote: Quote = {
                "symbol": self.symbol,
                "ticks": ticks[place : place + PUSH_TICKS],
            }
            taken = await self._send(quote) and taken
        return taken
