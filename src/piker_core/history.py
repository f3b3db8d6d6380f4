"""Back-fill of rings: history, newest first, put below the live rows while they flow.

It comes from a store, as far as that has it, and for the rest from the venue (frames).
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Never

import numpy as np
import trio

from piker_core.backfill import UNSURE, missing_spans, near_spans
from piker_core.core.engine import BarWriter, Market
from piker_core.dtypes import OHLCV_DTYPE, BarFlag
from piker_core.errors import DataUnavailable, PikerError
from piker_core.fetch import (
    FRAME_ROWS,
    LEAST_ROWS,
    LONG_ROWS,
    Fetch,
    GetOhlc,
    Pace,
    Rows,
    Span,
)

if TYPE_CHECKING:
    from piker_core.store.protocol import Store

BEGIN_S = 30.0
"""Longest wait for a market to be live and its first gap repaired."""
CATCH_UP_S = (1.0, 2.0, 4.0)
"""Waits for a venue that has not finished its newest bars yet..."""
CATCH_UP_BARS = 5
"""... if there are so few of them: more are a night or a quiet market."""
NS = 1_000_000_000

log = logging.getLogger("piker_core.history")


@asynccontextmanager
async def open_no_history(
    symbol: str,
) -> AsyncIterator[tuple[GetOhlc, dict[str, float]]]:
    """The history client of a provider that has none: all there is, is in a store."""

    async def get_ohlc(*_: object, **__: object) -> Never:
        raise DataUnavailable(f"the provider has no history of {symbol}")

    yield get_ohlc, {}


async def backfill(
    get_ohlc: GetOhlc,
    market: Market,
    period: int,
    rows_back: int,
    pace: Pace,
    *,
    store: "Store | None" = None,
) -> int:
    """Prepend history until the ring reaches `rows_back` periods before now.

    How many rows were added. The venue is asked only for what the store lacks. Stops
    early where there is no older history; a venue that goes on failing ends it with a
    warning, and what was fetched or is in the store is there nevertheless.
    """
    ring = market.bars[period]
    oldest_s = -(-(int(time.time()) - rows_back * period) // period) * period
    kept = await _stored(store, ring, oldest_s)
    await _wait_begun(market, ring)
    end_s = _end_s(ring)
    if oldest_s >= end_s:
        return 0
    newest_s = end_s if ring.times() else end_s - period  # see _newest
    kept = kept[kept["time"] < newest_s]
    stitch = Stitch(market, ring, oldest_s, end_s, kept=kept)
    fetch = Fetch(get_ohlc, period, pace, name=ring.fqme)
    try:
        with stitch.scope:
            await _fill(fetch, stitch, kept)
    except PikerError as error:
        log.warning("%s: back-fill of %d s rows ended: %s", ring.fqme, period, error)
        stitch.close()
    log.info("%s: %d rows of %d s back-filled", ring.fqme, stitch.added, period)
    return stitch.added


async def _stored(store: "Store | None", ring: BarWriter, start_s: int) -> Rows:
    if store is not None:
        try:
            return await trio.to_thread.run_sync(
                store.read_ohlcv, ring.fqme, ring.period, start_s
            )
        except PikerError as error:
            log.warning("%s: history comes from the venue: %s", ring.fqme, error)
    return np.zeros(0, OHLCV_DTYPE)


async def _fill(fetch: Fetch, stitch: "Stitch", kept: Rows) -> None:
    """What is kept, and what the venue has between it."""
    spans = near_spans(
        missing_spans(kept, fetch.period, stitch.oldest_s, stitch.end_s), fetch.period
    )
    start_s = stitch.oldest_s
    for span in [*spans, Span(stitch.end_s, stitch.end_s)]:
        stitch.put(kept[:0], start_s, span.start_s)
        start_s = span.end_s
    frame_rows = 0
    if spans and spans[-1].end_s == stitch.end_s:
        span, frame_rows = await _newest(fetch, stitch, spans.pop())
        spans.append(span)
    await fetch.run(spans, stitch.take, frame_rows=frame_rows)


async def _newest(fetch: Fetch, stitch: "Stitch", span: Span) -> tuple[Span, int]:
    """The frame before the feed's own rows: what is left of its span, its rows.

    The venue may not have finished its newest rows when they are asked for first.
    """
    long = span.end_s - span.start_s > LONG_ROWS * fetch.period
    found = await _asked(fetch, _end_s(stitch.ring), None if long else span.start_s)
    if not len(found):
        first_s = max(span.start_s, span.end_s - LEAST_ROWS * fetch.period)
        stitch.put(found, first_s, span.end_s)
        return Span(span.start_s, first_s), FRAME_ROWS if long else 0
    for wait_s in CATCH_UP_S:
        if not stitch.lags(found):
            break
        await trio.sleep(wait_s)
        after_s, end_s = int(found["time"][-1]) + fetch.period, _end_s(stitch.ring)
        newer = await _asked(fetch, end_s, after_s)
        found = np.concatenate([found, newer[newer["time"] >= after_s]])
    rows = found[found["time"] >= span.start_s]
    first_s = int(rows["time"][0]) if len(rows) == len(found) else span.start_s
    stitch.put(rows, first_s, span.end_s)
    return Span(span.start_s, first_s), len(found) if long else 0


async def _asked(fetch: Fetch, end_s: int, start_s: int | None) -> Rows:
    try:
        return await fetch.ask(end_s, start_s)
    except DataUnavailable:
        return np.zeros(0, OHLCV_DTYPE)


class Stitch:
    """Puts spans of rows into a ring, newest first, whatever order they come in.

    They are spans from `oldest_s` to `end_s` that do not overlap. `kept`: rows that
    are known already; those that do not know all give way to what a span has. `scope`
    is cancelled when the ring has no room for more.
    """

    def __init__(
        self, market: Market, ring: BarWriter, oldest_s: int, end_s: int, *, kept: Rows
    ) -> None:
        self.ring = ring
        self.oldest_s, self.end_s = oldest_s, end_s
        self.added = 0
        self.scope = trio.CancelScope()
        self._market = market
        self._kept = kept
        self._waiting: dict[int, tuple[Rows, int]] = {}
        self._next_s = end_s

    async def take(self, rows: Rows, start_s: int, end_s: int) -> None:
        """`put` for a fetch; a checkpoint."""
        self.put(rows, start_s, end_s)
        await trio.lowlevel.checkpoint()

    def put(self, rows: Rows, start_s: int, end_s: int) -> None:
        """All rows of a span: into the ring once what is newer is there."""
        if start_s == end_s:
            return
        self._waiting[end_s] = self._with_kept(rows, start_s, end_s), start_s
        while self._next_s in self._waiting:
            rows, self._next_s = self._waiting.pop(self._next_s)
            self._prepend(rows)

    def _with_kept(self, rows: Rows, start_s: int, end_s: int) -> Rows:
        first, after = np.searchsorted(self._kept["time"], [start_s, end_s])
        kept = self._kept[first:after]
        if not len(kept):
            return rows
        sure = kept["time"][(kept["flags"] & UNSURE) == 0]
        new = rows[~np.isin(rows["time"], sure)]
        both = np.concatenate([new, kept[~np.isin(kept["time"], new["time"])]])
        return both[np.argsort(both["time"])]

    def close(self) -> None:
        """Put in what waits for spans that will not come."""
        for end_s in sorted(self._waiting, reverse=True):
            self._prepend(self._waiting.pop(end_s)[0])

    def _prepend(self, rows: Rows) -> None:
        rows = _joined(rows, self._market, self.ring)
        room = self.scope.cancel_called is False
        added = self.ring.prepend(rows) if len(rows) and room else 0
        self.added += added
        if added < len(rows):
            self.scope.cancel()

    def lags(self, rows: Rows) -> bool:
        """Whether the venue has not yet finished the rows before the feed's own."""
        return _lags(rows, self._market, self.ring)


def _first_s(ring: BarWriter) -> int:
    times = ring.times()
    return int(times[0]) if times else 0


def _end_s(ring: BarWriter) -> int:
    """Where history is to end: before the first row, or before the running bar."""
    return _first_s(ring) or int(time.time()) // ring.period * ring.period


async def _wait_begun(market: Market, ring: BarWriter) -> None:
    """Until it is known where the feed's own rows begin, or that they do not now.

    While a gap before them is open its trades may come: history has them, too.
    """
    with trio.move_on_after(BEGIN_S):
        while not _has_begun(market, ring):  # noqa: ASYNC110 - rings have no event
            await trio.sleep(0.1)


def _has_begun(market: Market, ring: BarWriter) -> bool:
    first_s = _first_s(ring)
    if any(not first_s or start < first_s * NS for start, _ in market.open_gaps):
        return False
    live = market.live_since_ns is not None
    return live or market.status == "closed" or first_s > 0


def _lags(rows: Rows, market: Market, ring: BarWriter) -> bool:
    """Whether the venue has not yet finished the rows before the feed's own."""
    live_ns, first_s, period = market.live_since_ns, _first_s(ring), ring.period
    if live_ns is None or 0 < first_s < live_ns // NS // period * period:
        return False  # not known, or there are rows of an earlier writer
    begins_s = -(-live_ns // (period * NS)) * period
    missing_s = min(first_s or begins_s, begins_s) - int(rows["time"][-1]) - period
    return 0 < missing_s <= CATCH_UP_BARS * period


def _joined(rows: Rows, market: Market, ring: BarWriter) -> Rows:
    """Rows that end where the feed's own begin.

    Trades of bars that began when the feed was live come by the feed. Where none came
    between history and the first live row, nothing traded: those rows are flat.
    """
    first_s, live_ns, period = _first_s(ring), market.live_since_ns, ring.period
    if live_ns is not None:
        rows = rows[rows["time"] < -(-live_ns // NS)]
    if first_s:
        rows = rows[rows["time"] < first_s]
    if not len(rows):
        return rows
    own = np.zeros(len(rows), OHLCV_DTYPE)
    for field in rows.dtype.names or ():
        own[field] = rows[field]
    _hold_places(own, market.open_gaps, period)
    end_s = int(rows["time"][-1]) + period
    if end_s >= first_s or live_ns is None or end_s * NS < live_ns:
        return own
    flat = np.zeros((first_s - end_s) // period, OHLCV_DTYPE)
    flat["time"] = np.arange(end_s, first_s, period)
    _be_flat(flat, own["close"][-1], BarFlag.FLAT)
    return np.concatenate([own, flat])


def _hold_places(rows: Rows, gaps: list[tuple[int, int]], period: int) -> None:
    """Placeholders in the open gaps: who repairs them tells the same trades again."""
    starts_ns = rows["time"] * NS
    lost = np.zeros(len(rows), np.bool_)
    for start, end in gaps:
        lost |= (starts_ns < end) & (start < starts_ns + period * NS)
    for place in np.flatnonzero(lost):
        before = rows["close"][place - 1] if place else rows["open"][place]
        _be_flat(rows[place : place + 1], before, BarFlag.FLAT | BarFlag.SYNTHETIC_GAP)


def _be_flat(rows: Rows, price: float, flags: int) -> None:
    for field in ("open", "high", "low", "close", "bar_wap"):
        rows[field] = price
    rows["volume"], rows["count"], rows["flags"] = 0.0, 0, flags
