# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""Bars of ticks at rest: the engine's own fold, without a ring."""

from libc.math cimport isfinite
from libc.stdint cimport int64_t
from libc.string cimport memset

cimport numpy as cnp

from piker_core.core.native cimport *

import numpy as np

from piker_core.dtypes import OHLCV_DTYPE, TICK_DTYPE, TICK_TYPES
from piker_core.errors import BadTick

cnp.import_array()


cdef _in_venue_order(ticks):
    """Trades that make bars, by time, id and arrival, each id once."""
    own = ticks[(ticks["type"] == TICK_TYPES["trade"]) | (ticks["type"] == TICK_TYPES["utrade"])]
    own = own[np.lexsort((own["id"], own["time_ns"]))]
    named = np.flatnonzero(own["id"])
    first = np.unique(own["id"][named], return_index=True)[1]
    keep = own["id"] == 0
    keep[named[first]] = True
    return np.ascontiguousarray(own[keep])


def fold_ticks(ticks, period, *, start_s=None, end_s=None, close=None):
    """Bars of trades, bit for bit those that an engine folds from them; flat where none traded.

    `ticks`: one-dimensional array of `TICK_DTYPE`, in any order, repeated ids count once.
    Rows for start_s <= time < end_s (seconds UTC; by default from the first trade to the
    last), every `period` seconds; before the first trade they are flat at `close` if that
    is given, else absent. Returns `OHLCV_DTYPE` with `index` 0. Raises TypeError, ValueError,
    BadTick for a price, size or time that an engine would refuse.
    """
    cdef int64_t step = period, first = 0, last = 0, bar
    cdef Py_ssize_t count, i = 0, n = 0
    cdef double price = 0.0
    cdef pk_tick *tick
    cdef pk_row *row
    cdef pk_side side
    cdef pk_trade trade
    if not isinstance(ticks, np.ndarray) or ticks.dtype != TICK_DTYPE or ticks.ndim != 1:
        raise TypeError("fold_ticks() takes a one-dimensional array of TICK_DTYPE")
    if not 0 < step < 1 << 31:
        raise ValueError(f"period {period!r:.80} must be a positive number of seconds")
    own = _in_venue_order(ticks)
    tick = <pk_tick *>cnp.PyArray_DATA(own)
    count = len(own)
    for n in range(count):
        if not (isfinite(tick[n].price) and tick[n].price > 0 and isfinite(tick[n].size)
                and tick[n].size >= 0 and tick[n].time_ns >= 0):
            raise BadTick(f"trade {tick[n].id} at {tick[n].time_ns} ns: {tick[n].size} for {tick[n].price}")
    if not count and (close is None or start_s is None or end_s is None):
        return np.zeros(0, OHLCV_DTYPE)
    if count:
        first = pk_bar_time(tick[0].time_ns // PK_NS, step)
        last = pk_bar_time(tick[count - 1].time_ns // PK_NS, step) + step
    if start_s is not None and (close is not None or start_s > first):
        first = -(-<int64_t>start_s // step) * step
    if end_s is not None:
        last = end_s
    if close is not None:
        price = close
    rows = np.zeros(max((last - first + step - 1) // step, 0), OHLCV_DTYPE)
    row = <pk_row *>cnp.PyArray_DATA(rows)
    while i < count and tick[i].time_ns < first * PK_NS:
        price = tick[i].price
        i += 1
    for n in range(len(rows)):
        bar = first + n * step
        row[n] = pk_flat_row(bar, price, PK_FLAT)
        memset(&side, 0, sizeof(side))
        while i < count and tick[i].time_ns < (bar + step) * PK_NS:
            trade.time_ns, trade.id = tick[i].time_ns, tick[i].id
            trade.price, trade.size = tick[i].price, tick[i].size
            trade.count = tick[i].count or 1
            pk_add_trade(&row[n], &side, &trade, 1)
            i += 1
        price = row[n].close
    return rows
