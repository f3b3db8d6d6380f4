# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""Bars of ticks at rest: the engine's own fold, without a ring."""

from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memset

cimport numpy as cnp

from piker_core.core.native cimport *

from operator import index

import numpy as np

from piker_core.dtypes import OHLCV_DTYPE, TICK_DTYPE, TICK_TYPES, session_array
from piker_core.errors import BadTick

cnp.import_array()


cdef extern from "fold.h" nogil:
    void pk_set_worth(pk_trade *t) noexcept

cdef int64_t MOST_S = 1 << 32


cdef _in_venue_order(ticks):
    """Trades that make bars, by time, id and arrival; of a repeated id the first to arrive."""
    own = ticks[(ticks["type"] >= TICK_TYPES["trade"]) & (ticks["type"] <= TICK_TYPES["dark_trade"])]
    named = np.flatnonzero(own["id"])
    keep = own["id"] == 0
    keep[named[np.unique(own["id"][named], return_index=True)[1]]] = True
    own = own[keep & (own["type"] != TICK_TYPES["dark_trade"])]
    return np.ascontiguousarray(own[np.lexsort((own["id"], own["time_ns"]))])


cdef int _check(const pk_tick *tick, Py_ssize_t count) except -1:
    cdef Py_ssize_t n
    for n in range(count):
        if not (isfinite(tick[n].price) and tick[n].price > 0 and isfinite(tick[n].size)
                and tick[n].size >= 0 and 0 <= tick[n].time_ns < MOST_S * PK_NS):
            raise BadTick(
                f"trade {tick[n].id}: price {tick[n].price} must be finite and positive, size "
                f"{tick[n].size} finite and not negative, time_ns {tick[n].time_ns} from 0 to {MOST_S} s"
            )
    return 0


cdef int64_t _second(value, str what) except -1:
    second = index(value)
    if not 0 <= second <= MOST_S:
        raise ValueError(f"{what} {second} must be seconds UTC, from 0 to {MOST_S}")
    return second


cdef _with_sessions(rows, int64_t step, sessions):
    """Rows that traded or have open time."""
    spans = session_array(sessions)
    start = rows["time"] * PK_NS
    opens = np.append(spans[:, 0], INT64_MAX)[np.searchsorted(spans[:, 1], start, "right")]
    return rows[(opens < start + step * PK_NS) | (rows["flags"] & PK_FLAT == 0)]


def fold_ticks(ticks, period, *, start_s=None, end_s=None, close=None, sessions=None):
    """Bars of trades, bit for bit those that an engine folds from them; flat where none traded.

    `ticks`: one-dimensional array of `TICK_DTYPE`, in any order, repeated ids count once.
    Rows for start_s <= time < end_s (seconds UTC; by default from the first trade to the
    last), every `period` seconds; before the first trade they are flat at `close` if that
    is given, else absent. With `sessions` (see `Market.set_sessions`) a bar without open
    time has a row only if it traded. Returns `OHLCV_DTYPE` with `index` 0. Raises TypeError, ValueError,
    BadTick for a price, size or time that an engine would refuse.
    """
    cdef int64_t step = _second(period, "period"), first = 0, last = 0
    cdef Py_ssize_t count
    cdef pk_tick *tick
    cdef double price = 0.0
    if not isinstance(ticks, np.ndarray) or ticks.ndim != 1 or not np.can_cast(ticks.dtype, TICK_DTYPE, "equiv"):
        raise TypeError("fold_ticks() takes a one-dimensional array of TICK_DTYPE")
    if not 0 < step < 1 << 31:
        raise ValueError(f"period {period} must be a positive number of seconds")
    if close is not None:
        price = close
        if not (isfinite(price) and price > 0):
            raise ValueError(f"close {price} must be finite and positive")
    own = _in_venue_order(ticks.astype(TICK_DTYPE, copy=False))
    tick = <pk_tick *>cnp.PyArray_DATA(own)
    count = len(own)
    _check(tick, count)
    if not count and (close is None or start_s is None or end_s is None):
        return np.zeros(0, OHLCV_DTYPE)
    if count:
        first = pk_bar_time(tick[0].time_ns // PK_NS, step)
        last = tick[count - 1].time_ns // PK_NS + 1
    if start_s is not None and (close is not None or _second(start_s, "start_s") > first):
        first = (_second(start_s, "start_s") + step - 1) // step * step
    if end_s is not None:
        last = _second(end_s, "end_s")
    rows = np.zeros(max((last - first + step - 1) // step, 0), OHLCV_DTYPE)
    _fold_rows(<pk_row *>cnp.PyArray_DATA(rows), len(rows), first, step, tick, count, price)
    return rows if sessions is None else _with_sessions(rows, step, sessions)


cdef void _fold_rows(pk_row *row, Py_ssize_t rows, int64_t first, int64_t step,
                     const pk_tick *tick, Py_ssize_t count, double price) noexcept nogil:
    """Trades in venue order into bars from `first` on; `price`: the close before them."""
    cdef pk_side side
    cdef pk_trade trade
    cdef Py_ssize_t i = 0, n
    cdef int64_t end
    while i < count and tick[i].time_ns < first * PK_NS:
        price = tick[i].price
        i += 1
    for n in range(rows):
        row[n] = pk_flat_row(first + n * step, price, PK_FLAT)
        end = (first + (n + 1) * step) * PK_NS
        memset(&side, 0, sizeof(side))
        while i < count and tick[i].time_ns < end:
            trade.time_ns, trade.id = tick[i].time_ns, tick[i].id
            trade.price, trade.size = tick[i].price, tick[i].size
            trade.count = tick[i].count or 1
            pk_set_worth(&trade)
            pk_add_trade(&row[n], &side, &trade, 1)
            i += 1
        price = row[n].close
