"""Back-fill: history, newest first, put below the live rows while they flow."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pendulum
import trio
from numpy.typing import NDArray

from piker_core.core.engine import BarWriter, Market
from piker_core.dtypes import OHLCV_DTYPE, BarFlag
from piker_core.errors import DataThrottle, DataUnavailable, NoData, ProviderError
from piker_core.tasks import Backoff

Rows = NDArray[np.void]
GetOhlc = Callable[..., Awaitable[tuple[Rows, Any, Any]]]
TRIES = 6
"""How often one frame is asked for before the back-fill is given up."""
EMPTY_FRAMES = 50
"""How many empty spans in a row are stepped over."""
BEGIN_S = 30.0
"""Longest wait for a market to be live and its first gap repaired."""
CATCH_UP_S = (1.0, 2.0, 4.0)
"""Waits for a venue that has not finished its newest bars yet..."""
CATCH_UP_BARS = 5
"""... if there are so few of them: more are a night or a quiet market."""
NS = 1_000_000_000

log = logging.getLogger("piker_core.history")


class Pace:
    """At most `erlangs` requests at once and `rate` a second, for all of a provider."""

    def __init__(self, erlangs: int = 1, rate: float = 1.0) -> None:
        self._slots = trio.CapacityLimiter(max(int(erlangs), 1))
        self._interval_s = 1.0 / rate if rate > 0 else 0.0
        self._next_s = 0.0

    async def call(self, get_ohlc: GetOhlc, period: int, end_s: int) -> Rows:
        """One frame that ends before `end_s`, when it is its turn."""
        async with self._slots:
            now_s = trio.current_time()
            start_s = max(now_s, self._next_s)
            self._next_s = start_s + self._interval_s
            await trio.sleep(start_s - now_s)
            end_dt = pendulum.from_timestamp(end_s)
            rows, _, _ = await get_ohlc(float(period), end_dt=end_dt)
        return rows[rows["time"] < end_s]


async def backfill(
    get_ohlc: GetOhlc, market: Market, period: int, rows_back: int, pace: Pace
) -> int:
    """Prepend history until the ring reaches `rows_back` periods before now.

    How many rows were added. Stops early where there is no older history; a venue that
    goes on failing ends it with a warning, and what was fetched stays.
    """
    ring = market.bars[period]
    await _wait_begun(market, ring)
    oldest_s = int(time.time()) - rows_back * period
    end_s = _end_s(ring)
    added, empty, frame_s = 0, 0, 600 * period
    while end_s > oldest_s and empty < EMPTY_FRAMES:
        rows = await _frame(get_ohlc, ring, end_s, pace)
        if rows is None:
            break
        if not len(rows):
            empty += 1
            end_s -= frame_s
            continue
        empty, frame_s = 0, len(rows) * period
        for wait_s in CATCH_UP_S:
            if added or not _lags(rows, market, ring):
                break
            await trio.sleep(wait_s)
            newer = await _frame(get_ohlc, ring, _end_s(ring), pace)
            rows = rows if newer is None or not len(newer) else newer
        rows = _joined(rows[rows["time"] >= oldest_s], market, ring)
        if not len(rows) or ring.prepend(rows) < len(rows):
            break
        added += len(rows)
        end_s = _first_s(ring)
    log.info("%s: %d rows of %d s back-filled", ring.fqme, added, period)
    return added


async def _frame(
    get_ohlc: GetOhlc, ring: BarWriter, end_s: int, pace: Pace
) -> Rows | None:
    """One frame; empty where there are none, None where there will never be any."""
    backoff = Backoff(0.5, 10.0)
    for _ in range(TRIES):
        try:
            return await pace.call(get_ohlc, ring.period, end_s)
        except NoData:
            return np.zeros(0, OHLCV_DTYPE)
        except DataUnavailable:
            return None
        except DataThrottle as error:
            await trio.sleep(error.retry_after)
        except ProviderError as error:
            log.warning("%s: history of %d s: %s", ring.fqme, ring.period, error)
            await trio.sleep(backoff.next_s())
    log.warning("%s: back-fill of %d s rows given up", ring.fqme, ring.period)
    return None


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
