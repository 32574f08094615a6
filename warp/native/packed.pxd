# The C side of a packed column, for the other compiled modules.  See packed.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    VALUE = 0
    NULL_CELL = 1
    UNCHANGED_CELL = 2
    ABSENT_CELL = 3

cdef enum:
    WHOLE = 0      # an int64 a cell: BOOL, INT32, INT64, DATE (days), TIME, DATETIME, TIMESTAMP
    REAL = 1       # a double a cell: FLOAT32, FLOAT64
    BYTES = 2      # bytes a cell: TEXT, BYTES, UUID, JSON, JSON_TEXT, OBJECTID, TAGGED, DECIMAL

cdef class Packed:
    cdef readonly object kind
    cdef int code           # of its kind, see packed.pyx
    cdef int layout
    cdef Py_ssize_t rows    # filled
    cdef Py_ssize_t room    # allocated
    cdef Py_ssize_t blanks  # cells that are no value
    cdef uint8_t *states    # a row each
    cdef int64_t *whole     # WHOLE; a REAL's double lies in the same eight bytes
    cdef uint64_t *ends     # BYTES: where cell i ends in `data`; it begins where i - 1 ended
    cdef char *data
    cdef size_t used
    cdef size_t space

    cdef int make_room(self) except -1
    cdef int make_space(self, size_t more) except -1
    cdef int add_blank(self, uint8_t state) except -1
    cdef int add_whole(self, int64_t value) except -1
    cdef int add_real(self, double value) except -1
    cdef int add_bytes(self, const char *start, size_t length) except -1
    # Written in place: make_space(n), write up to n bytes at data + used, then add_written(n).
    cdef int add_written(self, size_t length) except -1
    cdef int add_from(self, Packed other, Py_ssize_t row) except -1
    # Take back every row from `rows` on, after a row that turned out to need the slow path.
    cdef void cut(self, Py_ssize_t rows) noexcept
    cdef int add_cell(self, object cell) except -1
    cdef object cell(self, Py_ssize_t row)

cdef Packed new_packed(object kind, Py_ssize_t rows)
# Is this UTF-8 as Python reads it, without NUL?
cdef bint is_text(const uint8_t *start, size_t length) noexcept nogil
