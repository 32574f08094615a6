# The elements of a BSON document, for the compiled modules: how long a value is, nothing decoded.
# The twin in Python is warp/sources/elements.py, which trusts lengths where this does not.
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memchr, memcpy


cdef inline int32_t length_at(const uint8_t *p) noexcept nogil:
    cdef int32_t found
    memcpy(&found, p, 4)
    return found


cdef inline Py_ssize_t value_size(uint8_t code, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Bytes of a value that begins at p; -1 where it is damaged or would pass the end."""
    cdef Py_ssize_t size = -1
    cdef Py_ssize_t left = end - p
    cdef const uint8_t *found
    if code == 0x10:
        size = 4
    elif code in (0x01, 0x09, 0x11, 0x12):
        size = 8
    elif code == 0x08:
        size = 1
    elif code == 0x07:
        size = 12
    elif code == 0x13:
        size = 16
    elif code in (0x06, 0x0A, 0x7F, 0xFF):
        size = 0
    elif code in (0x02, 0x0D, 0x0E):
        if left >= 5:
            size = length_at(p)
            if size < 1 or size > left - 4 or p[3 + size] != 0:
                return -1
            size += 4
    elif code in (0x03, 0x04, 0x0F):
        if left >= 5:
            size = length_at(p)
            if size < 5 or size > left or p[size - 1] != 0:
                return -1
    elif code == 0x05:
        if left >= 5:
            size = length_at(p)
            if size < 0 or size > left - 5:
                return -1
            size += 5
    elif code == 0x0C:
        if left >= 17:
            size = length_at(p)
            if size < 1 or size > left - 16 or p[3 + size] != 0:
                return -1
            size += 16
    elif code == 0x0B:
        found = <const uint8_t *> memchr(p, 0, left)
        if found != NULL:
            found = <const uint8_t *> memchr(found + 1, 0, end - found - 1)
        if found != NULL:
            size = found + 1 - p
    if size > left:
        return -1
    return size
