# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""Prices that orders wait for, tested on every tick at a cost that their number has no part in."""

cimport cython
from cpython.object cimport PyObject
from libc.math cimport NAN, isfinite
from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc

cimport numpy as cnp

from piker_core.core.native cimport pk_row, pk_tick

from operator import index

import numpy as np

from piker_core.dtypes import OHLCV_DTYPE, TICK_DTYPE, TICK_TYPES
from piker_core.errors import NotFound

__all__ = ["Triggers", "feed_all", "of_markets"]

cnp.import_array()

cdef extern from "reach.h" nogil:
    const uint32_t PK_NONE

    ctypedef struct pk_trigger:
        double level, best
        int way, trails

    ctypedef struct pk_fired:
        int64_t key, place

    ctypedef struct pk_triggers:
        int64_t newest_ns, second, heard_ns
        double last, high, low, bid, bid_size, ask, ask_size
        pk_trigger *nodes
        pk_fired *fired
        uint32_t count, fired_count

    void pk_triggers_init(pk_triggers *t, uint32_t counted, int mid) noexcept
    void pk_triggers_free(pk_triggers *t) noexcept
    int pk_reserve_trigger(pk_triggers *t) noexcept
    uint32_t pk_add_level(pk_triggers *t, int64_t key, int way, double price, int64_t since_ns) noexcept
    uint32_t pk_add_trail(pk_triggers *t, int64_t key, int way, double distance, double best,
                          int64_t since_ns) noexcept
    void pk_remove_trigger(pk_triggers *t, uint32_t node) noexcept
    uint32_t pk_group_of(const pk_triggers *t, uint32_t node) noexcept
    void pk_feed_tick(pk_triggers *t, const pk_tick *tick, int64_t place, int64_t heard_ns) noexcept
    void pk_feed_row(pk_triggers *t, const pk_row *row, int64_t place) noexcept
    void pk_check_range(pk_triggers *t, double high, double low) noexcept
    double pk_counted_price(pk_triggers *t, const pk_tick *tick) noexcept

cdef dict _COUNTED = {
    "trade": ("trade", "utrade"), "bid": ("bid",), "ask": ("ask",), "mid": ("bid", "ask"),
}


cdef double _positive(value, str what) except -1.0:
    cdef double number = value
    if not (isfinite(number) and number > 0):
        raise ValueError(f"{what} {value!r:.80} must be finite and positive")
    return number


cdef int _way(value, str what) except -1:
    """0 for +1, 1 for -1."""
    if value != 1 and value != -1:
        raise ValueError(f"{what} {value!r:.80} must be 1 or -1")
    return value < 0


cdef cnp.ndarray _records(records, dtype, str call):
    if not isinstance(records, np.ndarray) or records.ndim != 1 or records.dtype != dtype:
        name = "TICK_DTYPE" if dtype is TICK_DTYPE else "OHLCV_DTYPE"
        raise TypeError(f"{call} takes a one-dimensional array of {name}")
    return np.ascontiguousarray(records)


@cython.final
cdef class Triggers:
    """Triggers of one market: levels, which fire when they are reached, and trails.

    `bars_from`: "trade" (the default), "bid", "ask" or "mid", whose prices count. A tick
    that reaches nothing costs two compares, however many rest. Not thread-safe.
    """

    cdef pk_triggers native
    cdef dict nodes

    def __cinit__(self, bars_from="trade"):
        if bars_from not in _COUNTED:
            raise ValueError(f"bars_from {bars_from!r:.80} must be {', '.join(_COUNTED)}")
        counted = sum(1 << TICK_TYPES[name] for name in _COUNTED[bars_from])
        pk_triggers_init(&self.native, counted, bars_from == "mid")
        self.nodes = {}

    def __dealloc__(self):
        pk_triggers_free(&self.native)

    def __len__(self):
        return self.native.count

    cdef int64_t _reserve(self, key) except -1:
        if index(key) in self.nodes:
            raise ValueError(f"there is a trigger {key} already")
        if pk_reserve_trigger(&self.native):
            raise MemoryError
        return 0

    def add(self, key, price, direction, since_ns=INT64_MIN) -> None:
        """A trigger that fires at `price` and above (`direction` 1), or and below (-1).

        `key`: a whole number that names it. Ticks of before `since_ns` (UTC, as the venue
        timed them) do not fire it. Raises ValueError for a price that is not finite and
        positive, and for a key that is there.
        """
        cdef double level = _positive(price, "price")
        cdef int way = _way(direction, "direction")
        self._reserve(key)
        self.nodes[key] = pk_add_level(&self.native, key, way, level, since_ns)

    def add_trail(self, key, distance, side, best, since_ns=INT64_MIN) -> None:
        """A trailing stop: fires when the price has come back by `distance` from its best.

        `side` -1 sells: the best is the highest price since, at first `best`, and it fires
        that much below; 1 buys, the other way round. Ticks of before the newest `since_ns`
        of all trails, as the venue timed them, neither move trails nor fire them. Raises as `add`.
        """
        cdef double far = _positive(distance, "distance"), start = _positive(best, "best")
        cdef int way = 1 - _way(side, "side")
        self._reserve(key)
        self.nodes[key] = pk_add_trail(&self.native, key, way, far, start, since_ns)

    def remove(self, key) -> bool:
        """Forget a trigger; whether it was there."""
        node = self.nodes.pop(key, None)
        if node is None:
            return False
        pk_remove_trigger(&self.native, node)
        return True

    def best(self, key) -> float:
        """The best price that a trail has seen. Raises NotFound for what is no trail of these."""
        cdef uint32_t node = self.nodes.get(key, PK_NONE)
        cdef double best
        if node == PK_NONE or not self.native.nodes[node].trails:
            raise NotFound(f"there is no trail {key}")
        best = self.native.nodes[pk_group_of(&self.native, node)].best
        return -best if self.native.nodes[node].way else best

    cdef list _fired(self):
        cdef uint32_t i
        cdef list fired = []
        for i in range(self.native.fired_count):
            self.nodes.pop(self.native.fired[i].key)
            fired.append((self.native.fired[i].key, self.native.fired[i].place))
        self.native.fired_count = 0
        return fired

    def feed(self, ticks, market) -> list:
        """Test ticks, in order: (key, place in `ticks`) of each trigger that one reached.

        `ticks`: array of `TICK_DTYPE`, of which those of the market with the number
        `market` count. What fires is gone; several at one tick come as they were added.
        """
        cdef cnp.ndarray own = _records(ticks, TICK_DTYPE, "feed()")
        cdef const pk_tick *tick = <const pk_tick *>cnp.PyArray_DATA(own)
        cdef Py_ssize_t place, count = len(own)
        cdef uint32_t wanted = market
        for place in range(count):
            if tick[place].market == wanted:
                pk_feed_tick(&self.native, &tick[place], place, 0)
        return self._fired() if self.native.fired_count else []

    def feed_rows(self, rows) -> list:
        """As `feed`, by rows of the market whose ticks were lost, in order.

        `rows`: array of `OHLCV_DTYPE` that have traded; a price that is not known is NAN.
        Levels fire where the high or the low reached them. Which of these came first is not
        known: a trail fires where it did in any case, which open and close help to say, and
        follows the prices to its best. Their time must be later than that of the triggers.
        """
        cdef cnp.ndarray own = _records(rows, OHLCV_DTYPE, "feed_rows()")
        cdef const pk_row *row = <const pk_row *>cnp.PyArray_DATA(own)
        cdef Py_ssize_t place, count = len(own)
        for place in range(count):
            pk_feed_row(&self.native, &row[place], place)
        return self._fired() if self.native.fired_count else []

    def check(self, high, low) -> list:
        """Keys of the levels that prices from `low` to `high` reach, as they were added.

        They stay: who knows that it was their time that had this range removes them. Of
        trails nothing is said: these depend on the way the prices took.
        """
        cdef uint32_t i
        pk_check_range(&self.native, high, low)
        keys = [self.native.fired[i].key for i in range(self.native.fired_count)]
        self.native.fired_count = 0
        return keys

    def prices(self, batches, market):
        """The price of each tick as `feed` would count it, NAN where not; tests nothing.

        `batches`: arrays of `TICK_DTYPE`, one after the other, those of `market` count.
        """
        cdef cnp.ndarray own
        cdef const pk_tick *tick
        cdef Py_ssize_t place, count
        cdef pk_triggers copy = self.native
        cdef uint32_t wanted = market
        prices = np.full(sum(map(len, batches)), NAN)
        cdef double *price = <double *>cnp.PyArray_DATA(prices)
        for ticks in batches:
            own = _records(ticks, TICK_DTYPE, "prices()")
            tick = <const pk_tick *>cnp.PyArray_DATA(own)
            count = len(own)
            for place in range(count):
                if tick[place].market == wanted:
                    price[place] = pk_counted_price(&copy, &tick[place])
            price += count
        return prices

    @property
    def last(self) -> tuple:
        """Price and time (UTC nanoseconds) of the newest price fed, in venue order; (NAN, 0) if none."""
        if self.native.newest_ns == INT64_MIN:
            return NAN, 0
        return self.native.last, self.native.newest_ns

    @property
    def heard_ns(self) -> int:
        """When `last` was fed, as `feed_all` was told; 0: it was not."""
        return self.native.heard_ns

    @property
    def second(self) -> tuple:
        """The newest second that had a price (UTC), its high and its low; (0, NAN, NAN) if none had."""
        if self.native.second == INT64_MIN:
            return 0, NAN, NAN
        return self.native.second, self.native.high, self.native.low

    @property
    def quote(self) -> tuple:
        """The bid fed last, its size, the ask and its size; 0.0 for what was not."""
        return self.native.bid, self.native.bid_size, self.native.ask, self.native.ask_size


def of_markets(ticks, wanted) -> tuple:
    """Those of the ticks that are of a wanted market, and the highest number of all markets.

    `wanted`: an array of bools by the number of the market. Nothing is copied where all are.
    """
    cdef cnp.ndarray own = _records(ticks, TICK_DTYPE, "of_markets()")
    cdef cnp.ndarray bits = np.ascontiguousarray(wanted, np.uint8)
    cdef const pk_tick *tick = <const pk_tick *>cnp.PyArray_DATA(own)
    cdef const uint8_t *want = <const uint8_t *>cnp.PyArray_DATA(bits)
    cdef uint32_t markets = len(bits), highest = 0, number
    cdef Py_ssize_t place, kept = 0, count = len(own)
    cdef pk_tick *target
    for place in range(count):
        number = tick[place].market
        if number > highest:
            highest = number
        if number < markets and want[number]:
            kept += 1
    if kept == count:
        return ticks, highest
    found = np.empty(kept, TICK_DTYPE)
    target = <pk_tick *>cnp.PyArray_DATA(found)
    for place in range(count):
        number = tick[place].market
        if number < markets and want[number]:
            target[0] = tick[place]
            target += 1
    return found, highest


def feed_all(ticks, books, heard_ns=0) -> list:
    """`feed` of many markets in one pass: (key, place) of all that fired, in the ticks' order.

    `books`: their `Triggers` by the number of the market, None for those that have none;
    `heard_ns`: what their `heard_ns` is to be, of those whose last price this brings.
    """
    cdef cnp.ndarray own = _records(ticks, TICK_DTYPE, "feed_all()")
    cdef const pk_tick *tick = <const pk_tick *>cnp.PyArray_DATA(own)
    cdef Py_ssize_t place, count = len(own)
    cdef uint32_t markets = len(books), number
    cdef int64_t heard = heard_ns
    cdef PyObject **found
    cdef Triggers book
    cdef list fired = []
    for each in books:
        if each is not None and not isinstance(each, Triggers):
            raise TypeError(f"books are Triggers or None, not {each!r:.80}")
    kept = list(books)
    found = <PyObject **>malloc((markets + 1) * sizeof(PyObject *))
    if found == NULL:
        raise MemoryError
    try:
        for number in range(markets):
            found[number] = NULL if kept[number] is None else <PyObject *>kept[number]
        for place in range(count):
            number = tick[place].market
            if number < markets and found[number] != NULL:
                book = <Triggers>found[number]
                pk_feed_tick(&book.native, &tick[place], place, heard)
                if book.native.fired_count:
                    fired += book._fired()
    finally:
        free(found)
    return fired
