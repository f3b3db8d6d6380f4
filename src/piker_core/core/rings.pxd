from libc.stdint cimport uint32_t, uint64_t

from piker_core.core.native cimport pk_identity, pk_segment


cdef class Segment:
    cdef pk_segment native
    cdef pk_identity identity
    cdef readonly str fqme, provider, namespace


cdef class Window:
    cdef Segment segment
    cdef uint64_t clock


cdef class BarReader:
    cdef Segment segment
    cdef bytes lock_name

    cdef int extent(self, uint64_t *first, uint64_t *head) except -1
    cdef copy_rows(self, uint64_t start, uint64_t end)
    cdef Segment _mapped(self)


cdef bytes segment_name(str namespace, str provider, str fqme, int period)
cdef Segment attach(bytes name, uint32_t kind, str what)
cpdef str checked_namespace(namespace)
cdef int check_identity(Segment segment, str namespace, str provider, str fqme) except -1
cdef int doorbell(Segment segment, int place, uint64_t key) except? -1
cdef object wait_head(Segment segment, uint64_t after, timeout)
