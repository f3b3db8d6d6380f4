# cython: embedsignature=True, auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, freethreading_compatible=False
"""Bar rings as readers see them: numpy rows out of shared memory, no event loop needed."""

import math
import operator
import os
import re
import time

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, ENOENT, errno
from libc.math cimport INFINITY
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport getuid

cimport numpy as cnp

from piker_core.core.native cimport *

import numpy as np

from piker_core.dtypes import GAP_DTYPE, OHLCV_DTYPE, STATUSES
from piker_core.errors import NotFound, PikerError, SegmentError

__all__ = ["COUNTERS", "BarReader", "attach_bars", "checked_namespace", "describe_segment"]

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(type subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims,
                                cnp.npy_intp *strides, void *where, int flags, PyObject *obj)
    object PyArray_Scalar(void *where, cnp.dtype descr, PyObject *base)
    const int NPY_ARRAY_CARRAY_RO

cdef cnp.dtype _ROW = OHLCV_DTYPE
cdef type _ndarray = cnp.ndarray
cdef enum:
    _BIG_COPY = 4096  # rows whose copying is worth giving the GIL away for
    _PATIENCE = 100  # looks at a text that is being written
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,63}")

COUNTERS = (
    "ticks", "late", "late_inexact", "duplicates", "refused", "unknown", "unplaced",
    "revisions", "flat_rows", "gap_rows", "gaps",
)


cpdef str checked_namespace(namespace):
    """The namespace given, or `$PIKER_NAMESPACE`, or `piker`. Raises PikerError if misspelt."""
    if namespace is None:
        namespace = os.environ.get("PIKER_NAMESPACE") or "piker"
    if not isinstance(namespace, str) or not _NAMESPACE.fullmatch(namespace):
        raise PikerError(
            f"namespace {namespace!r:.80} must be 1 to 63 letters, digits, dots, dashes or underscores"
        )
    return namespace


cdef bytes segment_name(str namespace, str provider, str fqme, int period):
    """File name of a ring: a hash of the namespace and user, a hash of what it holds."""
    space = f"{getuid()}/{namespace}".encode()
    identity = f"{provider}/{fqme}/{period}".encode("utf-8", "surrogatepass")
    cdef uint64_t low = pk_hash(<char *>space, len(space), PK_HASH_START)
    cdef uint64_t high = pk_hash(<char *>identity, len(identity), low)
    return b"pk%08x.%016x" % ((low ^ (low >> 32)) & 0xFFFFFFFF, high)


cdef Segment attach(bytes name, uint32_t kind, str what):
    """Map a segment for reading. Raises NotFound or SegmentError."""
    cdef Segment segment = Segment.__new__(Segment)
    cdef char why[256]
    cdef int status = pk_attach(name, kind, &segment.native, &segment.identity, why, sizeof(why))
    if status == PK_OK:
        segment.fqme = segment.identity.fqme.decode("utf-8", "replace")
        segment.provider = segment.identity.provider.decode("utf-8", "replace")
        segment.namespace = segment.identity.space.decode("utf-8", "replace")
        return segment
    if status == PK_MISSING:
        raise NotFound(f"there is no ring of {what}: no writer has made one")
    path = "/dev/shm/" + name.decode()
    text = why.decode("utf-8", "replace")
    if status == PK_BLANK:
        raise NotFound(f"there is no ring of {what} yet: {path} {text}")
    if status == PK_REFUSED:
        raise SegmentError(f"{path} {text}; remove it if it is not in use")
    raise SegmentError(f"{path} {text}") from OSError(errno, text)


cdef int check_identity(Segment segment, str namespace, str provider, str fqme) except -1:
    """A file under a ring's name must hold that ring. Raises SegmentError."""
    if segment.namespace != namespace or segment.provider != provider or segment.fqme != fqme:
        raise SegmentError(
            f"/dev/shm/{segment.native.name.decode()} holds a ring of {segment.fqme or segment.provider} "
            f"in {segment.namespace} (layout version {PK_VERSION}); remove it if it is not in use"
        )
    return 0


cdef object wait_head(Segment segment, uint64_t after, timeout):
    """Sleep until the head is above `after`, without the GIL; the head."""
    cdef double seconds = INFINITY if timeout is None else timeout
    cdef int64_t deadline = INT64_MAX
    cdef int status
    if seconds != seconds:
        raise ValueError("timeout must be a number of seconds, or None")
    if seconds < 9e9:
        deadline = pk_clock_ns(CLOCK_MONOTONIC) + <int64_t>(max(seconds, 0.0) * 1e9)
    while True:
        with nogil:
            status = pk_wait_head(&segment.native, after, deadline)
        if status != EINTR:
            return pk_head(&segment.native)
        PyErr_CheckSignals()


@cython.final
cdef class Segment:
    """A mapped segment; unmapped when the last reader or window of it is gone."""

    def __dealloc__(self):
        pk_unmap(&self.native)


@cython.final
@cython.freelist(64)
cdef class Window:
    """What a window's array stands on: the mapping, and the ring's clock when it was taken."""


@cython.final
cdef class BarReader:
    """Rows of one market and period, as any process sees them. See `attach_bars`."""

    def __init__(self):
        raise TypeError("use piker_core.attach_bars()")

    cdef int extent(self, uint64_t *first, uint64_t *head) except -1:
        if self.segment is None:
            raise PikerError("this reader is closed")
        if pk_extent(&self.segment.native, first, head):
            raise SegmentError(f"the header of {self.segment.fqme} is damaged: impossible head or first")
        return 0

    cdef copy_rows(self, uint64_t start, uint64_t end):
        cdef cnp.npy_intp count = end - start
        cdef uint64_t asked = start
        cdef Segment segment = self.segment
        cdef pk_row *target
        cdef int status = 0
        Py_INCREF(_ROW)
        rows = PyArray_NewFromDescr(_ndarray, _ROW, 1, &count, NULL, NULL, 0, NULL)
        target = <pk_row *>cnp.PyArray_DATA(rows)
        if count > _BIG_COPY:
            with nogil:
                status = pk_read_rows(&segment.native, &start, end, target)
        elif count:
            status = pk_read_rows(&segment.native, &start, end, target)
        if status:
            raise SegmentError(f"rows of {segment.fqme} are damaged")
        return rows[: end - start] if start > asked else rows

    @property
    def fqme(self) -> str:
        """The market's full name."""
        return self._mapped().fqme

    @property
    def period(self) -> int:
        """Seconds a row spans."""
        return self._mapped().native.period

    @property
    def first(self) -> int:
        """Sequence of the oldest row."""
        cdef uint64_t first, head
        self.extent(&first, &head)
        return first

    @property
    def head(self) -> int:
        """Sequence after the newest row."""
        cdef uint64_t first, head
        self.extent(&first, &head)
        return head

    @property
    def capacity(self) -> int:
        """How many rows the ring holds at most."""
        return self._mapped().native.capacity

    @property
    def status(self) -> str:
        """`starting live stale reconnecting backfilling closed` or `stopped`."""
        cdef uint64_t code = pk_read_status(&self._mapped().native)
        if code >= <uint64_t>len(STATUSES):
            raise SegmentError(f"the header of {self.segment.fqme} is damaged: status {code}")
        return STATUSES[code]

    @property
    def status_reason(self) -> str:
        """Why the status is what it is, as its writer said; empty if it said nothing.

        With status `starting` it is what the writer before said of the last status it set.
        """
        cdef char[128] text
        cdef uint64_t status
        cdef Segment segment = self._mapped()
        for _ in range(_PATIENCE):
            if pk_read_reason(&segment.native, &status, text) == PK_OK:
                if status == pk_read_status(&segment.native):
                    return text[: strnlen(text, PK_REASON - 1)].decode("utf-8", "replace")
        return ""  # of a status that is just being set, or whose writer was killed setting it

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
    def last_price(self) -> float:
        """The newest price known of the market, 0.0 if none."""
        cdef uint64_t word = pk_load(&self._mapped().native.header.last_price)
        return (<double *>&word)[0]

    @property
    def price_tick(self) -> str:
        """The step of the market's prices, as its writer gave it."""
        return (<bytes>self._mapped().identity.price_tick).decode("ascii", "replace")

    @property
    def size_tick(self) -> str:
        """The step of the market's sizes, as its writer gave it."""
        return (<bytes>self._mapped().identity.size_tick).decode("ascii", "replace")

    @property
    def about(self) -> bytes:
        """What the provider says of the market, JSON text; empty if nothing."""
        cdef char[512] text
        cdef Segment segment = self._mapped()
        for _ in range(_PATIENCE):
            if pk_read_about(&segment.native, text) == PK_OK:
                return text[: strnlen(text, PK_ABOUT - 1)]
            time.sleep(0.001)  # its writer is being held up, or was killed in these few words
        raise SegmentError(f"the description of {segment.fqme} is unfinished: open an engine again")

    cdef Segment _mapped(self):
        if self.segment is None:
            raise PikerError("this reader is closed")
        return self.segment

    def last(self):
        """The newest row, a consistent copy (structured scalar). Raises NotFound without rows."""
        cdef uint64_t first, head
        cdef pk_row row
        cdef int status
        while True:
            self.extent(&first, &head)
            if head == first:
                raise NotFound(f"{self.segment.fqme} has no row of {self.segment.native.period} s yet")
            status = pk_read_row(&self.segment.native, head - 1, &row)
            if status == PK_OK:
                return PyArray_Scalar(&row, _ROW, NULL)
            if status != PK_LAPPED:
                raise SegmentError(f"rows of {self.segment.fqme} are damaged")

    def window(self, Py_ssize_t count, *, end=None):
        """The newest `count` rows, or those before sequence `end`: a read-only zero-copy view.

        Fewer where there are fewer. The view lies in the ring: ask `intact()` whether its
        rows are still those that were there.
        """
        cdef uint64_t first, head, start, stop
        cdef cnp.npy_intp length
        cdef pk_segment *native
        cdef Window base = Window.__new__(Window)
        self.extent(&first, &head)
        native = &self.segment.native
        base.segment = self.segment
        base.clock = pk_clock(native)
        self.extent(&first, &head)
        stop = head if end is None else _clamped_to(end, first, head)
        start = first if count >= <int64_t>(stop - first) else stop - max(count, 0)
        length = stop - start
        Py_INCREF(_ROW)
        rows = PyArray_NewFromDescr(
            _ndarray, _ROW, 1, &length, NULL,
            native.items + start % native.capacity * PK_ROW_WORDS, NPY_ARRAY_CARRAY_RO, NULL,
        )
        cnp.set_array_base(rows, base)
        return rows

    def intact(self, cnp.ndarray window not None) -> bool:
        """False if a row of a window was overwritten or rewritten since it was taken.

        `window`: what `window()` gave, or a view of it. Raises ValueError for another array.
        """
        cdef object base = window
        cdef Window taken
        cdef char *low
        cdef char *high
        cdef char *items
        cdef int axis
        while isinstance(base, cnp.ndarray):
            base = cnp.get_array_base(base)
        if not isinstance(base, Window):
            raise ValueError("intact() takes an array that window() gave")
        taken = base
        self._mapped()
        if taken.segment is not self.segment:
            raise ValueError("this window is of another reader")
        if not window.size:
            return True
        low = high = <char *>cnp.PyArray_DATA(window)
        for axis in range(window.ndim):
            if window.strides[axis] < 0:
                low += window.strides[axis] * (window.shape[axis] - 1)
            else:
                high += window.strides[axis] * (window.shape[axis] - 1)
        items = <char *>self.segment.native.items
        first = (low - items) // (8 * PK_ROW_WORDS)
        return pk_intact(
            &self.segment.native, first, (high - items) // (8 * PK_ROW_WORDS) - first + 1, taken.clock
        ) != 0

    def snapshot(self, Py_ssize_t count, *, end=None):
        """Consistent copies of the newest `count` rows, or of those before sequence `end`."""
        cdef uint64_t first, head, stop
        self.extent(&first, &head)
        stop = head if end is None else _clamped_to(end, first, head)
        return self.copy_rows(first if count >= <int64_t>(stop - first) else stop - max(count, 0), stop)

    def between(self, t0_s, t1_s):
        """Copies of the rows with t0_s <= time < t1_s (seconds UTC), by binary search."""
        cdef uint64_t first, head, start = 0, stop = 0
        cdef int64_t low = _clamped(t0_s), high = _clamped(t1_s)
        self.extent(&first, &head)
        if pk_search(&self.segment.native, first, head, low, &start) or pk_search(
            &self.segment.native, start, head, high, &stop
        ):
            raise SegmentError(f"rows of {self.segment.fqme} are damaged")
        return self.copy_rows(start, stop)

    def wait(self, after, timeout=None) -> int:
        """The head once it is above `after`; the old head after `timeout` seconds.

        Sleeps without the GIL; signals are handled.
        """
        return wait_head(self._mapped(), max(after, 0), timeout)

    async def changed(self, after) -> int:
        """`wait()` under trio: the head once it is above `after`; cancellable."""
        from piker_core.waiting import wait_head_async
        return await wait_head_async(self, after)

    def gaps(self):
        """Gap records, oldest first: start_ns, end_ns (half-open), cause, repaired."""
        cdef Segment segment = self._mapped()
        records = np.zeros(segment.native.table_capacity, GAP_DTYPE)
        cdef uint64_t count = 0
        if pk_read_gaps(&segment.native, <pk_gap *>cnp.PyArray_DATA(records), &count):
            raise SegmentError(f"the gap records of {segment.fqme} change all the time")
        return records[:count]

    def statistics(self) -> dict:
        """Counters of the market since its ring was made, by name."""
        cdef Segment segment = self._mapped()
        return {
            name: pk_load(&segment.native.header.counters[i]) for i, name in enumerate(COUNTERS)
        }

    def doorbell(self, int place, uint64_t key) -> int:
        """For `changed`: leave a key (place -1), announce again (key 0), or take it back."""
        return doorbell(self._mapped(), place, key)

    def close(self) -> None:
        """Let go of the ring; windows stay valid until they are gone themselves."""
        self.segment = None

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.segment is None:
            return "<BarReader closed>"
        return f"<BarReader {self.segment.fqme} {self.segment.native.period} s>"


cdef int doorbell(Segment segment, int place, uint64_t key) except? -1:
    if place >= PK_DOORBELLS:
        raise ValueError(f"there is no place {place} for a doorbell")
    if not segment.native.can_wait:
        return -1
    if place < 0:
        place = pk_claim_doorbell(&segment.native, key)
    elif key:
        pk_release_doorbell(&segment.native, place, key)
        return -1
    if place >= 0:
        pk_announce(&segment.native, PK_DOORBELL)
    return place


cdef int64_t _clamped(seconds) except? -1:
    """The first whole second from `seconds` on."""
    return math.ceil(min(max(seconds, -(1 << 62)), 1 << 62))


cdef uint64_t _clamped_to(sequence, uint64_t first, uint64_t head) except? 0:
    return min(max(operator.index(sequence), first), head)


cdef int _pread_header(int fd, pk_header *header) except -1:
    """Read a header; again while the reason in it may be torn."""
    cdef pk_header again
    cdef bytes text = os.pread(fd, sizeof(again), 0)
    memcpy(header, <char *>text, len(text))
    for _ in range(_PATIENCE):
        text = os.pread(fd, sizeof(again), 0)
        memcpy(&again, <char *>text, len(text))
        if pk_load(&again.reason_number) == pk_load(&header.reason_number):
            break
        memcpy(header, &again, sizeof(again))
    return 0


cdef str _reason_of(pk_header *header):
    cdef pk_reason *said = &header.reasons[pk_load(&header.reason_number) % 2]
    cdef char *text = <char *>said.text
    if pk_load(&said.status) != pk_load(&header.status):
        return ""
    return text[: strnlen(text, PK_REASON - 1)].decode("utf-8", "replace")


def describe_segment(name: bytes) -> dict:
    """What the header of a file in /dev/shm says, without mapping it: for listings.

    `kind` is "bars", "ticks", or, with a `reason` and without the rest, "blank",
    "damaged" or "foreign". Raises NotFound if there is no such file.
    """
    cdef pk_identity identity
    cdef pk_header header
    cdef char why[256]
    cdef int status, fd = pk_open_file(name, os.O_RDONLY)
    if fd < 0:
        if errno == ENOENT:
            raise NotFound(f"there is no /dev/shm/{os.fsdecode(name)}")
        return {"kind": "foreign", "reason": f"cannot be opened: {os.strerror(errno)}"}
    try:
        memset(&identity, 0, sizeof(identity))
        memset(&header, 0, sizeof(header))
        status = pk_read_header(fd, PK_TICKS, &identity, why, sizeof(why))
        if status == PK_REFUSED and identity.kind == PK_BARS:
            status = pk_read_header(fd, PK_BARS, &identity, why, sizeof(why))
        if status != PK_OK:
            known = identity.magic == PK_MAGIC and identity.version == PK_VERSION
            kind = "blank" if status == PK_BLANK else "damaged" if known else "foreign"
            return {"kind": kind, "reason": why.decode("utf-8", "replace")}
        _pread_header(fd, &header)
        return {
            "kind": "bars" if identity.kind == PK_BARS else "ticks",
            "namespace": identity.space.decode("utf-8", "replace"),
            "provider": identity.provider.decode("utf-8", "replace"),
            "fqme": identity.fqme.decode("utf-8", "replace"),
            "period": identity.period,
            "capacity": identity.capacity,
            "bytes": identity.total_size,
            "committed": os.fstat(fd).st_blocks * 512,
            "created_ns": identity.created_ns,
            "generation": pk_load(&header.generation),
            "status": pk_load(&header.status),
            "status_reason": _reason_of(&header),
            "heartbeat_ns": <int64_t>pk_load(&header.heartbeat_ns),
            "writer_pid": pk_load(&header.writer_pid),
            "first": pk_load(&header.first),
            "head": pk_load(&header.head),
        }
    finally:
        os.close(fd)


def attach_bars(fqme, *, period=1, namespace=None) -> BarReader:
    """Attach to the rows of a market, written by any process of this user.

    `period` in seconds; `namespace` defaults to `$PIKER_NAMESPACE`, else `piker`.
    Raises NotFound if there is no such ring, SegmentError if it cannot be trusted.
    """
    cdef BarReader reader = BarReader.__new__(BarReader)
    if not isinstance(fqme, str) or "." not in fqme:
        raise NotFound(f"{fqme!r:.80} is not a market name such as xbtusd.kraken")
    space = checked_namespace(namespace)
    provider = fqme.rpartition(".")[2]
    if not 0 < operator.index(period) < 1 << 31:
        raise NotFound(f"there is no ring of {fqme}, {period} s: no writer has made one")
    reader.lock_name = segment_name(space, provider, "", 0)
    reader.segment = attach(segment_name(space, provider, fqme, period), PK_BARS, f"{fqme}, {period} s")
    check_identity(reader.segment, space, provider, fqme)
    return reader
