from libc.stdint cimport int64_t, uint64_t

from piker_core.core.native cimport (
    pk_bars, pk_chain, pk_identity, pk_lock, pk_market, pk_tick, pk_ticks,
)


cdef class BarWriter:
    cdef pk_bars native
    cdef Market market
    cdef readonly str fqme
    cdef uint64_t woken


cdef class Market:
    cdef pk_market native
    cdef FeedEngine engine
    cdef readonly str fqme, symbol
    cdef readonly dict bars
    cdef list rings


cdef class FeedEngine:
    cdef pk_ticks ticks
    cdef pk_lock lock
    cdef pk_chain chain
    cdef readonly str provider, namespace
    cdef dict by_symbol
    cdef list markets
    cdef int64_t max_skew_ns, late_window_ns, clock_ns
    cdef pk_tick *scratch
    cdef Py_ssize_t room
    cdef bint parsing
    cdef readonly uint64_t unknown_symbols

    cdef int check_open(self) except -1
    cdef int check_own(self, Market market) except -1
    cdef Py_ssize_t take_quote(self, Market market, ticks) except -1
    cdef Py_ssize_t take(self, Market market, pk_tick *ticks, Py_ssize_t count) except -1
    cdef pk_tick *reserve_scratch(self, Py_ssize_t count) except NULL
