# The writing end of a bar ring, and one market of an engine.


@cython.final
cdef class BarWriter:
    """The writing end of one bar ring; `market.bars[period]`."""

    def __init__(self):
        raise TypeError("use FeedEngine.add_market()")

    def __dealloc__(self):
        pk_unmap(&self.native.segment)

    @property
    def period(self) -> int:
        """Seconds a row spans."""
        return self.native.period

    @property
    def first(self) -> int:
        """Sequence of the oldest row."""
        return self.native.first

    @property
    def head(self) -> int:
        """Sequence after the newest row."""
        return self.native.head

    @property
    def capacity(self) -> int:
        """How many rows the ring holds at most."""
        return self.native.segment.capacity

    def times(self) -> tuple:
        """Open times (s) of the oldest and the newest row, or () without rows."""
        cdef pk_row row
        self.market.engine.check_open()
        if self.native.head == self.native.first:
            return ()
        pk_own_row(&self.native, self.native.first, &row, NULL)
        return row.time, self.native.row.time

    def prepend(self, rows) -> int:
        """Put history below the oldest row; how many rows fitted, the newest of them.

        `rows`: structured array of `OHLCV_DTYPE`, or of its nine first fields; ascending
        times, multiples of the period, all before the oldest row. Raises ValueError, OSError.
        """
        cdef cnp.ndarray own = _history(rows, self.native.period)
        self.market.engine.check_open()
        cdef uint64_t room = self.native.segment.capacity - (self.native.head - self.native.first)
        cdef Py_ssize_t count = min(<uint64_t>len(own), room), i
        if not count:
            return 0
        times = self.times()
        if times and own["time"].max() >= times[0]:
            raise ValueError(
                f"history of {self.fqme} overlaps its rows: it ends at {own['time'].max()}, "
                f"they begin at {times[0]}"
            )
        own = np.ascontiguousarray(own[len(own) - count:])
        cdef pk_row *native = <pk_row *>cnp.PyArray_DATA(own)
        sides = np.zeros((count, 8), np.int64)
        cdef pk_side *side = <pk_side *>cnp.PyArray_DATA(sides)
        for i in range(count):
            pk_prepare_side(&side[i], &native[i], not times and i == count - 1)
            side[i].folded = self.market.engine.ticks.head
        _check_errno(pk_reserve(&self.native.segment, self.native.first - count, self.native.head), self.fqme)
        pk_prepend(&self.native, native, side, count)
        if not times:
            pk_begin_with_history(&self.market.native, self.market.engine.clock_ns)  # else by the clock's next step
        pk_wake(&self.native.segment)
        return count


@cython.final
cdef class Market:
    """One market of an engine: its rings, state and counters. Made by `add_market`."""

    def __init__(self):
        raise TypeError("use FeedEngine.add_market()")

    def __dealloc__(self):
        pk_ids_free(&self.native.ids)
        free(self.native.sessions.spans)

    @property
    def id(self) -> int:
        """Its number in the tick ring."""
        return self.native.id

    @property
    def status(self) -> str:
        """`starting live stale reconnecting backfilling closed` or `stopped`, as readers see it."""
        return STATUSES[pk_shown_status(&self.native)]

    @property
    def feed_status(self) -> str:
        """What `set_status` said last; `status` is closed where the market's session is."""
        return STATUSES[self.native.status]

    @property
    def last_id(self) -> int:
        """Venue's id of the newest trade known, 0 if none."""
        return self.native.last_id

    @property
    def last_time_ns(self) -> int:
        """UTC nanoseconds of the newest trade known, 0 if none."""
        return self.native.last_time_ns

    @property
    def live_since_ns(self) -> int | None:
        """UTC nanoseconds from when on all trades are told; None while that is not known."""
        cdef bint known = self.native.live_from_ns < INT64_MAX
        return self.native.live_from_ns if known and self.native.status == PK_LIVE else None

    @property
    def open_gaps(self) -> list:
        """Start and end, UTC nanoseconds, of the gaps that this writer has open, oldest first."""
        return [(self.native.gap_start[i], self.native.gap_end[i]) for i in range(self.native.gaps)]

    @property
    def last_price(self) -> float:
        """Price of the newest trade, or the `last` of a quote; 0.0 if neither came."""
        return self.native.last_price

    def set_status(self, status, *, since_ns=None, reason="") -> None:
        """Say what the feed is doing. Raises ValueError for an unknown status, TypeError.

        `since_ns`: with "live", from when on (UTC ns) all trades are known or will be told;
        rows before it are lost, the first bar that begins before it is PARTIAL. Without,
        that is the second of the first clock step while live. `reason`: why, for people;
        readers find it in `BarReader.status_reason`. What is beyond 127 bytes of UTF-8 is
        cut off, what cannot be printed is blank.
        """
        if status not in STATUSES:
            raise ValueError(f"status {status!r:.80} must be one of {', '.join(STATUSES)}")
        if since_ns is not None and status != "live":
            raise ValueError(f"since_ns goes with status live, not with {status}")
        cdef int64_t since = INT64_MAX if since_ns is None else nanoseconds(since_ns, "since_ns")
        cdef bytes text = _reason_text(reason)
        self.engine.check_open()
        pk_set_status(&self.native, STATUSES.index(status), text)
        if since_ns is not None:
            self.native.live_from_ns = since
        _wake_all(self)

    def set_sessions(self, sessions) -> None:
        """Say when the market is open, from now on; None: always.

        `sessions`: array-like of (open_ns, close_ns), UTC, ascending, not overlapping;
        outside of them it is closed. A bar without open time has a row only if something
        trades in it, and is never a loss; in a closed session readers find the status
        `closed`. The clock opens and closes it. Raises ValueError, TypeError.
        """
        cdef pk_sessions old = self.native.sessions
        cdef pk_sessions new = _spans(sessions)
        try:
            self.engine.check_open()
        except PikerError:
            free(new.spans)
            raise
        self.native.sessions = new
        free(old.spans)
        if self.engine.clock_ns:
            pk_set_closed(&self.native, not pk_is_open(&self.native.sessions, self.engine.clock_ns))
            _wake_all(self)

    def add_gap(self, *, start_ns, end_ns, cause, repaired=False) -> None:
        """Record that [start_ns, end_ns) was lost, or change the record that starts there.

        While a record is open, late trades in it are folded exactly, however late;
        `repaired=True` closes it, and its placeholder rows become exact ones, up to its end,
        which cannot lie ahead of the clock. `cause`: what is beyond 39 bytes is cut off.
        Raises ValueError, OSError.
        """
        cdef int64_t start = nanoseconds(start_ns, "start_ns"), end = nanoseconds(end_ns, "end_ns")
        cdef bytes text = str(cause).encode()[:39].decode("utf-8", "ignore").encode()
        cdef bint closed = bool(repaired)
        if start > end:
            raise ValueError(f"a gap from {start_ns} to {end_ns} ns is none")
        self.engine.check_open()
        if closed and end > pk_wall_ns() + self.engine.max_skew_ns:
            raise ValueError(f"a gap that ends at {end_ns} ns, ahead of the clock, cannot be repaired yet")
        _check_errno(pk_add_gap(&self.native, start, end, text, closed), self.fqme)
        for ring in self.rings:
            pk_wake(&(<BarWriter>ring).native.segment)

    def statistics(self) -> dict:
        """Counters of the market since its rings were made, by name."""
        return {name: self.native.counters[i] for i, name in enumerate(COUNTERS)}

    def __repr__(self) -> str:
        return f"<Market {self.fqme} {self.status}>"


cdef bytes _reason_text(reason):
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a status is text, not {reason!r:.80}")
    printable = "".join(letter if letter.isprintable() else " " for letter in reason[:PK_REASON])
    return printable.encode()[: PK_REASON - 1].decode("utf-8", "ignore").encode()


cdef pk_sessions _spans(sessions) except *:
    """A copy of the sessions for the core; to be freed."""
    cdef pk_sessions found
    cdef Py_ssize_t size
    memset(&found, 0, sizeof(found))
    if sessions is None:
        return found
    own = session_array(sessions)
    size = own.size * sizeof(int64_t)
    found.count = len(own)
    found.spans = <pk_span *>malloc(max(size, 1))
    if found.spans == NULL:
        raise MemoryError
    memcpy(found.spans, cnp.PyArray_DATA(own), size)
    return found


cdef void _wake_all(Market market) noexcept:
    """Whoever waits is to look at the status."""
    for ring in market.rings:
        pk_wake_all(&(<BarWriter>ring).native.segment)
