from libc.stdint cimport uint8_t, uint64_t

cimport numpy as cnp

from piker_core.core.native cimport pk_tick
from piker_core.core.rings cimport Segment


cdef class TickReader:
    cdef Segment segment
    cdef bytes lock_name

    cdef Segment _mapped(self)


cdef class TickCursor:
    cdef Segment segment
    cdef uint64_t place, missed
    cdef object buffer, empty
    cdef pk_tick *scratch
    cdef Py_ssize_t room
    cdef uint8_t *wanted

    cdef Segment _mapped(self)
    cdef uint64_t _grow(self, Py_ssize_t most) except? 0
    cdef Py_ssize_t _keep(self, Py_ssize_t kept, uint64_t count) noexcept
