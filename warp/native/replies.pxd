# The C side of documents inside their replies, for the other compiled modules.  See replies.pyx.
from libc.stdint cimport uint32_t

cdef class Slices:
    cdef list buffers           # the replies, kept alive
    cdef const char **starts
    cdef uint32_t *lengths
    cdef Py_ssize_t count
    cdef Py_ssize_t room

    cdef int make_room(self, Py_ssize_t more) except -1
    cdef void add(self, const char *start, uint32_t length) noexcept
    cdef object at(self, Py_ssize_t place)
