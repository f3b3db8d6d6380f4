# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""The writing side: an engine a provider process, which folds ticks into its rings."""

import os

cimport cython
from cpython.dict cimport PyDict_GetItemWithError
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EEXIST, ENOENT, ENOSPC, errno
from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, int8_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset, strncmp
from posix.fcntl cimport O_RDWR
from posix.unistd cimport close, getuid

cimport numpy as cnp

from piker_core.core.native cimport *
from piker_core.core.rings cimport checked_namespace, segment_name

from decimal import Decimal
from numbers import Real

import numpy as np

from piker_core.core.rings import COUNTERS
from piker_core.dtypes import OHLCV_DTYPE, STATUSES, TICK_DTYPE, TICK_TYPES, session_array
from piker_core.errors import BadTick, PikerError, SegmentError, WriterBusy
from piker_core.messages import Quote, Tick

cnp.import_array()

cdef extern from "recover.h" nogil:
    int pk_take_ticks(pk_market *m, pk_tick *ticks, uint64_t count, uint64_t *taken) noexcept
    int pk_begin_with_history(pk_market *m, int64_t now_ns) noexcept

include "segments.pxi"
include "parse.pxi"
include "markets.pxi"

cdef tuple _REQUIRED = OHLCV_DTYPE.names[:9]
cdef dict _BARS_FROM = {"trade": 0, "bid": 1, "ask": 2, "mid": 3}
cdef int64_t MOST_NS = 1 << 62  # the year 2116; sums of times and periods stay below 2**63
DEFAULT_ROWS = {1: 3 * 86400, 60: 6 * 525600}

if pk_watch_forks():
    raise ImportError("this process cannot watch its forks (pthread_atfork failed)")


@cython.final
cdef class FeedEngine:
    """Writer of one provider's rings. Made by `open_engine`; a context manager.

    Not thread-safe: one thread pushes and steps.
    """

    def __init__(self):
        raise TypeError("use piker_core.open_engine()")

    def __cinit__(self):
        self.lock.fd = -1

    def __dealloc__(self):
        pk_drop_lock(&self.lock)
        pk_unmap(&self.ticks.segment)
        pk_chain_free(&self.chain)
        free(self.scratch)

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more: closed, or inherited over a fork."""
        return self.lock.fd < 0

    cdef int check_open(self) except -1:
        if self.lock.fd < 0:
            raise PikerError(
                f"the engine of {self.provider} is closed, or was inherited over a fork: "
                "only the process that opened it writes"
            )
        return 0

    cdef pk_tick *reserve_scratch(self, Py_ssize_t count) except NULL:
        cdef Py_ssize_t room = max(count, 64)
        if self.room < room:
            grown = realloc(self.scratch, room * sizeof(pk_tick))
            if grown == NULL:
                raise MemoryError
            self.scratch = <pk_tick *>grown
            self.room = room
        return self.scratch

    def add_market(self, fqme, *, periods=(1, 60), capacity=None, price_tick="1e-8",
                   size_tick="1e-8", fill="flat", bars_from="trade", about=b"",
                   sessions=None) -> Market:
        """Open a market's rings, new or where their last writer left them.

        `periods` in seconds; `capacity` rows by period, for new rings; `fill` "flat" or
        "none"; `bars_from` "trade", "bid", "ask" or "mid"; `about`: up to 511 bytes that
        readers find in `BarReader.about`; `sessions`: see `Market.set_sessions`. Raises
        ValueError, TypeError, SegmentError, OSError, PikerError if the market is there already.
        """
        self.check_open()
        fqme = _checked_part(fqme, "market", 63)
        if not fqme.endswith(f".{self.provider}") or fqme == f".{self.provider}":
            raise PikerError(f"{fqme!r:.80} is no market of {self.provider}: it must end in .{self.provider}")
        for name in (fqme, fqme[: -len(self.provider) - 1]):
            if name in self.by_symbol:
                raise PikerError(f"{name} is in this engine already")
        rows = dict(DEFAULT_ROWS) | dict(capacity or {})
        if not isinstance(about, bytes) or len(about) >= PK_ABOUT:
            raise ValueError(f"about {about!r:.80} must be at most {PK_ABOUT - 1} bytes")
        cdef Market market = _new_market(self, fqme, fill, bars_from)
        market.native.sessions = _spans(sessions)
        cdef int[8] old
        cdef int place, error
        ordered = _checked_periods(periods)
        for place, period in enumerate(ordered):
            market.rings.append(_open_bars(
                market, period, rows.get(period, 86400), price_tick, size_tick, about, &old[place]
            ))
            market.native.bars[place] = &(<BarWriter>market.rings[place]).native
            market.native.periods = place + 1
            market.bars[period] = market.rings[place]
        _adopt_counters(market)
        pk_load_open_gaps(&market.native)
        market.native.id = _market_id(self, fqme)
        error = pk_recover(&market.native, &self.chain, old)
        _check_errno(error, fqme)
        market.native.closed = self.clock_ns and not pk_is_open(&market.native.sessions, self.clock_ns)
        _begin_status(market)
        _open_generation(self, market)
        self.by_symbol[fqme] = self.by_symbol[market.symbol] = market
        self.markets.append(market)
        return market

    def push(self, quote) -> int:
        """Publish and fold the ticks of a quote (dict or `Quote`); how many were taken.

        Taken whole or not at all: BadTick for a bad value, PikerError for an unknown
        symbol or what is no quote, OSError when shared memory is full. Repeated trade ids
        are dropped and counted, ticks of unknown type ignored and counted.
        """
        cdef PyObject *found
        cdef Py_ssize_t taken = 0
        self.check_open()
        if type(quote) is dict:
            symbol, ticks, last = quote.get("symbol"), quote.get("ticks"), quote.get("last")
        elif isinstance(quote, Quote):
            symbol, ticks, last = quote.symbol, quote.ticks, quote.last
        else:
            try:
                symbol, ticks, last = quote.get("symbol"), quote.get("ticks"), quote.get("last")
            except (AttributeError, TypeError):
                raise PikerError(f"a quote is a mapping with symbol and ticks, not {shown(quote)}") from None
        found = PyDict_GetItemWithError(self.by_symbol, symbol) if isinstance(symbol, str) else NULL
        if found == NULL:
            self.unknown_symbols += 1
            raise PikerError(f"{self.provider} has no market {shown(symbol)} in this engine: add_market() first")
        cdef Market market = <Market>found
        cdef double price = 0.0 if last is None else seed_price(last)
        if ticks is not None:
            if type(ticks) is not list and type(ticks) is not tuple:
                raise PikerError(f"ticks of a quote are a list, not {shown(ticks)}")
            taken = self.take_quote(market, ticks)
        if price > 0 and not market.native.last_price > 0:
            market.native.last_price = price
            _store_last(market)
        return taken

    cdef Py_ssize_t take_quote(self, Market market, ticks) except -1:
        """Parse the ticks of a quote and take them."""
        cdef Py_ssize_t count = 0, row = 0, room = len(ticks)
        cdef int64_t now = pk_wall_ns()
        cdef pk_tick *scratch
        if self.parsing:
            raise PikerError("a value in a quote cannot push another quote")
        scratch = self.reserve_scratch(room)
        self.parsing = True
        try:
            for tick in ticks:
                if row == room:
                    raise PikerError("a value in a quote cannot change the quote")
                count += parse_tick(tick, &scratch[count], row, now + self.max_skew_ns)
                row += 1
        except BadTick:
            pk_count(&market.native, PK_N_REFUSED)
            raise
        finally:
            self.parsing = False
        self.check_open()
        _stamp(scratch, count, now)
        taken = self.take(market, scratch, count)
        _count_unknown(market, row - count)
        return taken

    def push_trade(self, Market market not None, time_ns, price, size, id=0, side=0, count=1) -> int:
        """Publish and fold one trade: 1 if taken, 0 if its id is known. Raises BadTick."""
        cdef pk_tick tick
        cdef int64_t now = pk_wall_ns()
        memset(&tick, 0, sizeof(tick))
        tick.type = 1
        tick.recv_ns = now
        try:
            tick.time_ns = whole(time_ns, 0, "time_ns")
            tick.price, tick.size = number(price, 0, "price"), number(size, 0, "size")
            tick.id, tick.side = whole(id, 0, "id"), parse_side(side, 0)
            tick.count = checked_count(whole(count, 0, "count"), 0)
            check_tick(&tick, 0, now + self.max_skew_ns)
        except BadTick:
            self.check_own(market)
            pk_count(&market.native, PK_N_REFUSED)
            raise
        self.check_own(market)
        return self.take(market, &tick, 1)

    def push_ticks(self, Market market not None, array) -> int:
        """Publish and fold records of `TICK_DTYPE`, in order; how many were taken.

        Taken whole or not at all. `seq` and `market` are filled in, `recv_ns` where it is
        0; a `count` of 0 is 1. Packed records will do (np.concatenate makes them). Raises
        BadTick (naming the row), TypeError for other arrays.
        """
        cdef Py_ssize_t count = 0, row, rows
        cdef int64_t now = pk_wall_ns()
        cdef pk_tick *source
        cdef pk_tick *scratch
        own = tick_records(array, "push_ticks()")
        self.check_own(market)
        if self.parsing:
            raise PikerError("a value in a quote cannot push another quote")
        rows = len(own)
        source = <pk_tick *>cnp.PyArray_DATA(own)
        scratch = self.reserve_scratch(rows)
        for row in range(rows):
            if source[row].type == 0 or source[row].type >= PK_TYPES:
                continue
            scratch[count] = source[row]
            scratch[count].flags = 0
            if scratch[count].count == 0:
                scratch[count].count = 1
            if check_tick(&scratch[count], row, now + self.max_skew_ns, 0):
                pk_count(&market.native, PK_N_REFUSED)
                check_tick(&scratch[count], row, now + self.max_skew_ns)
            count += 1
        _stamp(scratch, count, now)
        taken = self.take(market, scratch, count)
        _count_unknown(market, rows - count)
        return taken

    cdef Py_ssize_t take(self, Market market, pk_tick *ticks, Py_ssize_t count) except -1:
        """Publish checked ticks; wakes sleepers once."""
        cdef uint64_t taken = 0
        if not count:
            return 0
        _check_errno(pk_take_ticks(&market.native, ticks, count, &taken), market.fqme)
        _store_last(market)
        pk_wake(&self.ticks.segment)
        _wake_rings(market)
        return taken

    def step(self, now_ns) -> None:
        """The clock: forming rows of now's second for all live markets, and heartbeats.

        `now_ns`: UTC, at the beginning of a second; an older one than the last is ignored.
        A market whose rings find no memory does not keep the others from their rows; its
        OSError is raised at the end. Raises TypeError, ValueError.
        """
        cdef int64_t now = nanoseconds(now_ns, "now_ns")
        cdef int64_t wall = pk_wall_ns()
        cdef int error, closed
        cdef Market market
        self.check_open()
        failed = None
        pk_store(&self.ticks.segment.header.heartbeat_ns, wall)
        for item in self.markets:
            market = item
            for ring in market.rings:
                pk_store(&(<BarWriter>ring).native.segment.header.heartbeat_ns, wall)
            if now < self.clock_ns:
                continue
            closed = market.native.closed
            error = pk_step(&market.native, now)
            if error and failed is None:
                failed = (error, market.fqme)
            _wake_rings(market)
            if closed != market.native.closed:
                _wake_all(market)
        self.clock_ns = max(now, self.clock_ns)
        if failed is not None:
            _check_errno(failed[0], failed[1])

    def send_channel(self):
        """A trio SendChannel whose `send` is `push`."""
        from piker_core.channel import EngineChannel
        self.check_open()
        return EngineChannel(self)

    def close(self) -> None:
        """Set every market `stopped` and let go of the lock; the segments stay."""
        cdef Market market
        if self.lock.fd >= 0:
            for market in self.markets:
                pk_set_status(&market.native, PK_STOPPED, b"")
                _wake_all(market)
            pk_drop_lock(&self.lock)
        for market in self.markets:
            for ring in market.rings:
                pk_unmap(&(<BarWriter>ring).native.segment)
        pk_unmap(&self.ticks.segment)
        self.markets.clear()
        self.by_symbol.clear()

    cdef int check_own(self, Market market) except -1:
        self.check_open()
        if market.engine is not self:
            raise PikerError(f"{market.fqme} is of another engine")
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FeedEngine {self.provider} in {self.namespace}>"


def open_engine(provider, *, namespace=None, tick_capacity=1 << 17, max_skew_s=30,
                late_window_s=900) -> FeedEngine:
    """Become the writer of a provider's rings.

    `tick_capacity` is for a new tick ring; one that exists keeps its own. `max_skew_s`:
    how far ahead of the wall clock a tick's time may be; `late_window_s`: how late a trade
    may still set a bar's open or close. Raises WriterBusy while another engine, in whatever
    process, is; SegmentError for a foreign segment; OSError without shared memory;
    PikerError or ValueError for an argument that cannot be.
    """
    cdef FeedEngine engine = FeedEngine.__new__(FeedEngine)
    engine.namespace = checked_namespace(namespace)
    engine.provider = _checked_part(provider, "provider", 31)
    if "." in provider:
        raise PikerError(f"provider {provider!r} must have no dot: it ends the names of its markets")
    engine.by_symbol, engine.markets = {}, []
    engine.max_skew_ns = seconds_to_ns(max_skew_s, "max_skew_s", 1e9)
    engine.late_window_ns = seconds_to_ns(late_window_s, "late_window_s", 9e9)
    _open_ticks(engine, tick_capacity)
    return engine
