# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""Tick rings as readers see them: cursors that count exactly what they lost."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove

cimport numpy as cnp

from piker_core.core.native cimport *
from piker_core.core.rings cimport (
    Segment, attach, check_identity, checked_namespace, doorbell, segment_name, wait_head,
)

import numpy as np

from piker_core.dtypes import TICK_DTYPE
from piker_core.errors import NotFound, PikerError, SegmentError

__all__ = ["TickCursor", "TickReader", "attach_ticks"]

cnp.import_array()


cdef str _market_name(Segment segment, uint64_t market):
    cdef char[64] name
    pk_read_name(&segment.native, market, name)
    return (<bytes>name).decode("utf-8", "replace")


cdef uint64_t _head(Segment segment) except? 0:
    cdef uint64_t head = pk_head(&segment.native)
    if head >= <uint64_t>1 << 62:
        raise SegmentError(f"the header of {segment.provider}'s ticks is damaged: impossible head")
    return head


@cython.final
cdef class TickReader:
    """All ticks of one provider process, in the order of their publication. See `attach_ticks`."""

    def __init__(self):
        raise TypeError("use piker_core.attach_ticks()")

    cdef Segment _mapped(self):
        if self.segment is None:
            raise PikerError("this reader is closed")
        return self.segment

    @property
    def provider(self) -> str:
        """The provider whose ticks these are."""
        return self._mapped().provider

    @property
    def first(self) -> int:
        """Sequence of the oldest tick that is still there."""
        cdef Segment segment = self._mapped()
        return min(pk_ticks_first(&segment.native), _head(segment))

    @property
    def head(self) -> int:
        """Sequence of the next tick."""
        return _head(self._mapped())

    @property
    def capacity(self) -> int:
        """How many ticks the ring holds at most."""
        return self._mapped().native.capacity

    @property
    def generation(self) -> int:
        """How many writers have opened this ring."""
        return pk_generation(&self._mapped().native)

    @property
    def heartbeat_ns(self) -> int:
        """UTC nanoseconds of the writer's last clock step."""
        return <int64_t>pk_load(&self._mapped().native.header.heartbeat_ns)

    @property
    def writer_alive(self) -> bool:
        """Whether a process holds the writer's lock; asks the lock, never takes it."""
        self._mapped()
        return pk_lock_held(self.lock_name) != 0

    @property
    def writer_pid(self) -> int:
        """Process id of the last writer."""
        return pk_load(&self._mapped().native.header.writer_pid)

    def markets(self) -> list:
        """Names of the markets, by id."""
        cdef Segment segment = self._mapped()
        return [_market_name(segment, i) for i in range(pk_names(&segment.native))]

    def market(self, number) -> str:
        """The full name of the market with this id. Raises NotFound."""
        cdef Segment segment = self._mapped()
        if not 0 <= number < pk_names(&segment.native):
            raise NotFound(f"{segment.provider} has no market with the id {number}")
        return _market_name(segment, number)

    def cursor(self, start="live", markets=None) -> TickCursor:
        """A new cursor at the next tick ("live"), the "oldest", or a sequence.

        `markets`: full names to which it is limited; None is all. Raises ValueError for
        another start, NotFound for a market that the ring does not know.
        """
        cdef TickCursor cursor = TickCursor.__new__(TickCursor)
        cursor.segment = self._mapped()
        cursor.empty = np.empty(0, TICK_DTYPE)
        head = self.head
        if start == "live":
            cursor.place = head
        elif start == "oldest":
            cursor.place = self.first
        elif isinstance(start, (int, np.integer)) and not isinstance(start, bool):
            cursor.place = min(max(int(start), 0), head)
        else:
            raise ValueError(f"start {start!r:.80} must be 'live', 'oldest' or a sequence")
        if markets is not None:
            _select(cursor, self.markets(), list(markets))
        return cursor

    def close(self) -> None:
        """Let go of the ring; its cursors stay usable."""
        self.segment = None

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __repr__(self) -> str:
        return "<TickReader closed>" if self.segment is None else f"<TickReader {self.segment.provider}>"


cdef int _select(TickCursor cursor, list known, list names) except -1:
    cursor.wanted = <uint8_t *>calloc(1, cursor.segment.native.table_capacity)
    if cursor.wanted == NULL:
        raise MemoryError
    for name in names:
        if name not in known:
            raise NotFound(f"{cursor.segment.provider} has no ticks of {name!r:.80}")
        cursor.wanted[known.index(name)] = 1
    return 0


@cython.final
cdef class TickCursor:
    """A place in a tick ring that moves with each poll. Made by `TickReader.cursor`."""

    def __init__(self):
        raise TypeError("use TickReader.cursor()")

    def __dealloc__(self):
        free(self.wanted)

    cdef Segment _mapped(self):
        if self.segment is None:
            raise PikerError("this cursor has no ring: use TickReader.cursor()")
        return self.segment

    @property
    def lost(self) -> int:
        """Ticks, of all markets, overwritten before this cursor read them, as of its last poll."""
        return self.missed

    @property
    def position(self) -> int:
        """Sequence of the next tick that a poll looks at."""
        return self.place

    @property
    def head(self) -> int:
        """Sequence of the next tick of the ring."""
        return _head(self._mapped())

    cdef uint64_t _grow(self, Py_ssize_t most) except? 0:
        if self.room < most:
            self.buffer = np.empty(most, TICK_DTYPE)
            self.scratch = <pk_tick *>cnp.PyArray_DATA(self.buffer)
            self.room = most
        return most

    def poll(self, max=4096):
        """The next ticks, at most `max`: records of `TICK_DTYPE`, valid until the next poll.

        Possibly empty. What was overwritten meanwhile is skipped and counted in `lost`.
        With `markets`, looks on past ticks of others until it has `max` or reaches the head.
        """
        cdef pk_segment *native = &self._mapped().native
        cdef uint64_t head = _head(self.segment), whole, first, count, i
        cdef Py_ssize_t kept = 0, most = max
        if self.place >= head or most <= 0:
            return self.empty
        if most > <Py_ssize_t>native.capacity:
            most = native.capacity
        self._grow(most)
        while kept < most and self.place < head:
            first = pk_ticks_first(native)
            if first > head:
                first = head
            if first > self.place:
                self.missed += first - self.place
                self.place = first
            count = head - self.place
            if count > <uint64_t>(most - kept):
                count = most - kept
            pk_read_ticks(native, self.place, count, self.scratch + kept, &whole)
            first = self.place
            self.place += count
            if whole > first:
                whole = whole - first if whole - first < count else count
                self.missed += whole
                first += whole
                count -= whole
                memmove(self.scratch + kept, self.scratch + kept + whole, count * sizeof(pk_tick))
            for i in range(count):
                if self.scratch[kept + i].sequence != first + i:
                    raise SegmentError(f"ticks of {self.segment.provider} are damaged")
            kept = self._keep(kept, count)
        return self.buffer[:kept]

    cdef Py_ssize_t _keep(self, Py_ssize_t kept, uint64_t count) noexcept:
        cdef uint64_t i
        if self.wanted == NULL:
            return kept + count
        cdef Py_ssize_t place = kept
        for i in range(count):
            if (self.scratch[kept + i].market < self.segment.native.table_capacity
                    and self.wanted[self.scratch[kept + i].market]):
                self.scratch[place] = self.scratch[kept + i]
                place += 1
        return place

    def ready_nowait(self) -> bool:
        """Whether a poll would look at anything."""
        return _head(self._mapped()) > self.place

    def wait(self, timeout=None) -> bool:
        """Sleep without the GIL until there is a tick to look at; False after `timeout` s.

        With `markets`, ticks of other markets wake it too.
        """
        return wait_head(self._mapped(), self.place, timeout) > self.place

    async def ready(self) -> None:
        """`wait()` under trio, cancellable."""
        from piker_core.waiting import wait_ready_async
        await wait_ready_async(self)

    def doorbell(self, int place, uint64_t key) -> int:
        """For `ready`: leave a key (place -1), announce again (key 0), or take it back."""
        return doorbell(self._mapped(), place, key)


def attach_ticks(provider, *, namespace=None) -> TickReader:
    """Attach to the ticks that a provider's process writes, all its markets in one ring.

    `namespace` defaults to `$PIKER_NAMESPACE`, else `piker`. Raises NotFound, SegmentError.
    """
    cdef TickReader reader = TickReader.__new__(TickReader)
    if not isinstance(provider, str):
        raise NotFound(f"{provider!r:.80} is not a provider's name")
    space = checked_namespace(namespace)
    reader.lock_name = segment_name(space, provider, "", 0)
    reader.segment = attach(reader.lock_name, PK_TICKS, f"{provider}'s ticks")
    check_identity(reader.segment, space, provider, "")
    return reader
