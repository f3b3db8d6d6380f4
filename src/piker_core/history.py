"""Back-fill: history, newest first, put below the live rows while they flow."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pendulum
import trio
from numpy.typing import NDArray

from piker_core.core.engine import BarWriter
from piker_core.dtypes import OHLCV_DTYPE, BarFlag
from piker_core.errors import DataThrottle, DataUnavailable, NoData, ProviderError
from piker_core.tasks import Backoff

Rows = NDArray[np.void]
GetOhlc = Callable[..., Awaitable[tuple[Rows, Any, Any]]]
TRIES = 6
"""How often one frame is asked for before the back-fill is given up."""
EMPTY_FRAMES = 50
"""How many empty spans in a row are stepped over."""

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
    get_ohlc: GetOhlc, ring: BarWriter, rows_back: int, pace: Pace
) -> int:
    """Prepend history until the ring reaches `rows_back` periods before now.

    How many rows were added. Stops early where there is no older history; a venue that
    goes on failing ends it with a warning, and what was fetched stays.
    """
    period = ring.period
    began_s = int(time.time())
    oldest_s = began_s - rows_back * period
    end_s = _first_s(ring) or began_s // period * period
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
        if not added and _lags(rows, ring, began_s):
            await trio.sleep(1.0)
            end_s = _first_s(ring) or end_s  # the first live row may have come since
            rows = await _frame(get_ohlc, ring, end_s, pace)
            if rows is None or not len(rows):
                break
        rows = _joined(rows[rows["time"] >= oldest_s], ring, began_s)
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


def _lags(rows: Rows, ring: BarWriter, began_s: int) -> bool:
    """Whether the venue has not yet finished the row before the first live one."""
    end_s = int(rows["time"][-1]) + ring.period
    return end_s < min(_first_s(ring) or began_s // ring.period * ring.period, began_s)


def _joined(rows: Rows, ring: BarWriter, began_s: int) -> Rows:
    """Rows that end where the ring begins.

    Between history that reaches the time when the feed was live already and the first
    live row nothing traded: those rows are flat.
    """
    first_s = _first_s(ring)
    if not len(rows) or not first_s:
        return rows
    rows = rows[rows["time"] < first_s]
    if not len(rows):
        return rows
    end_s = int(rows["time"][-1]) + ring.period
    if end_s >= first_s or end_s < began_s:
        return rows
    flat = np.zeros((first_s - end_s) // ring.period, OHLCV_DTYPE)
    flat["time"] = np.arange(end_s, first_s, ring.period)
    for field in ("open", "high", "low", "close", "bar_wap"):
        flat[field] = rows["close"][-1]
    flat["flags"] = BarFlag.FLAT
    known = np.zeros(len(rows), OHLCV_DTYPE)
    for field in rows.dtype.names or ():
        known[field] = rows[field]
    return np.concatenate([known, flat])
