# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of a MySQL result, from the packets of the text protocol into packed columns.

What a cell means is said by `warp.sources.mysql.columns`, which is the reference: a cell is taken
here only where it surely means the same, and else left to it (guarantee 4).
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from warp.native.breath cimport breathe
from warp.native.calendar cimport NO_DAY, days_of
from warp.native.packed cimport NULL_CELL, Packed, is_text, new_packed

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, void *) except? -1.0

cdef enum:
    WHOLE_NUMBER = 0   # INT32, INT64
    BIG_NUMBER = 1     # DECIMAL
    REAL_NUMBER = 2    # FLOAT32, FLOAT64
    PLAIN_TEXT = 3
    PLAIN_BYTES = 4    # BYTES, JSON
    UUID_TEXT = 5
    DAY = 6
    MOMENT = 7
    ONE_BIT = 8
    FEW_BITS = 9       # INT64
    ALL_BITS = 10      # DECIMAL

cdef dict READINGS = {
    "whole": WHOLE_NUMBER, "decimal": BIG_NUMBER, "real": REAL_NUMBER, "text": PLAIN_TEXT,
    "bytes": PLAIN_BYTES, "uuid": UUID_TEXT, "day": DAY, "moment": MOMENT, "bool": ONE_BIT,
    "bits": FEW_BITS, "wide": ALL_BITS,
}

cdef enum:
    HUGE_PACKET = 0xFFFFFF   # is followed by the rest of the row
    INT32 = 1                # as packed.pyx counts kinds

# 10 to 0 … 22 are doubles without an error, so that one operation rounds once.
cdef double[23] TENS
TENS[:] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
           1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22]


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return <uint8_t> (c - 48) < 10


cdef inline int64_t two(const uint8_t *p) noexcept nogil:
    """Two digits; -1000 where they are none."""
    if not is_digit(p[0]) or not is_digit(p[1]):
        return -1000
    return (p[0] - 48) * 10 + p[1] - 48


cdef inline int64_t day_at(const uint8_t *p) noexcept nogil:
    """`2024-02-29`; NO_DAY where it is no day."""
    cdef int64_t century = two(p), year = two(p + 2), month = two(p + 5), day = two(p + 8)
    if century < 0 or year < 0 or month < 0 or day < 0 or p[4] != b"-" or p[7] != b"-":
        return NO_DAY
    return days_of(century * 100 + year, month, day)


# Each of these takes one cell; 0 where it is not surely what the reference would make of it.

cdef int take_whole(Packed column, const uint8_t *p, size_t length, bint short) except -1:
    cdef const uint8_t *end = p + length
    cdef bint negative = False
    cdef uint64_t value = 0
    if p < end and p[0] == b"-":
        negative = True
        p += 1
    if p == end or end - p > 19:  # nineteen digits stay below 2^64
        return 0
    while p < end:
        if not is_digit(p[0]):
            return 0
        value = value * 10 + (p[0] - 48)
        p += 1
    if short:
        if value > <uint64_t> 0x7FFFFFFF + negative:
            return 0
    elif value > <uint64_t> 0x7FFFFFFFFFFFFFFF + negative:
        return 0
    column.add_whole(<int64_t> (0 - value) if negative else <int64_t> value)
    return 1


cdef int take_decimal(Packed column, const uint8_t *p, size_t length) except -1:
    """`-12.50`, without the zeros that ZEROFILL puts before it."""
    cdef const uint8_t *end = p + length
    cdef const uint8_t *at
    cdef char *out
    cdef bint negative = False
    if p < end and p[0] == b"-":
        negative = True
        p += 1
    while end - p > 1 and p[0] == b"0" and is_digit(p[1]):
        p += 1
    at = p
    while at < end and is_digit(at[0]):
        at += 1
    if at == p:
        return 0
    if at < end:
        if at[0] != b"." or at + 1 == end:
            return 0
        at += 1
        while at < end:
            if not is_digit(at[0]):
                return 0
            at += 1
    length = end - p
    column.make_space(length + 1)
    out = column.data + column.used
    if negative:
        out[0] = b"-"
    memcpy(out + negative, p, length)
    column.add_written(length + negative)
    return 1


cdef int take_real(Packed column, const uint8_t *start, size_t length) except -1:
    cdef const uint8_t *p = start
    cdef const uint8_t *end = start + length
    cdef bint negative = False, below = False, exact = True
    cdef uint64_t digits = 0
    cdef int seen = 0, scale = 0, exponent = 0, figures = 0
    cdef double value
    cdef char text[64]
    if length > 60:
        return 0
    if p < end and p[0] == b"-":
        negative = True
        p += 1
    while p < end and is_digit(p[0]):
        digits = digits * 10 + (p[0] - 48)
        seen += 1
        p += 1
    if seen == 0:
        return 0
    if p < end and p[0] == b".":
        p += 1
        figures = seen
        while p < end and is_digit(p[0]):
            digits = digits * 10 + (p[0] - 48)
            seen += 1
            scale -= 1
            p += 1
        if seen == figures:
            return 0
    if p < end and (p[0] == b"e" or p[0] == b"E"):
        p += 1
        if p < end and (p[0] == b"-" or p[0] == b"+"):
            below = p[0] == b"-"
            p += 1
        if p == end or end - p > 4:
            return 0
        while p < end and is_digit(p[0]):
            exponent = exponent * 10 + (p[0] - 48)
            p += 1
        if below:
            exponent = -exponent
    if p != end:
        return 0
    scale += exponent
    if seen <= 18 and digits <= <uint64_t> 1 << 53 and -22 <= scale <= 22:
        value = <double> digits
        if scale < 0:
            value /= TENS[-scale]
        else:
            value *= TENS[scale]
        column.add_real(-value if negative else value)
        return 1
    memcpy(text, start, length)
    text[length] = 0
    column.add_real(PyOS_string_to_double(text, NULL, NULL))
    return 1


cdef int take_uuid(Packed column, const uint8_t *p, size_t length) except -1:
    cdef uint8_t out[16]
    cdef int at, half, nibble
    cdef uint8_t c
    if length != 36 or p[8] != b"-" or p[13] != b"-" or p[18] != b"-" or p[23] != b"-":
        return 0
    half = 0
    for at in range(36):
        if at == 8 or at == 13 or at == 18 or at == 23:
            continue
        c = p[at]
        if is_digit(c):
            nibble = c - 48
        elif b"a" <= (c | 32) <= b"f":
            nibble = (c | 32) - 87
        else:
            return 0
        if half & 1:
            out[half >> 1] |= nibble
        else:
            out[half >> 1] = nibble << 4
        half += 1
    column.add_bytes(<char *> out, 16)
    return 1


cdef int take_moment(Packed column, const uint8_t *p, size_t length) except -1:
    """`2024-02-29 23:59:59.123456`, with none to six digits of a fraction."""
    cdef int64_t day, hour, minute, second, fraction = 0
    cdef size_t at
    if length < 19 or length == 20 or length > 26:
        return 0
    if p[10] != b" " or p[13] != b":" or p[16] != b":":
        return 0
    day, hour, minute, second = day_at(p), two(p + 11), two(p + 14), two(p + 17)
    if day == NO_DAY or not 0 <= hour < 24 or not 0 <= minute < 60 or not 0 <= second < 60:
        return 0
    if length > 20:
        if p[19] != b".":
            return 0
        for at in range(20, 26):
            if at >= length:
                fraction *= 10
            elif is_digit(p[at]):
                fraction = fraction * 10 + (p[at] - 48)
            else:
                return 0
    column.add_whole((day * 86400 + hour * 3600 + minute * 60 + second) * 1000000 + fraction)
    return 1


cdef int take_bits(Packed column, const uint8_t *p, size_t length, bint wide) except -1:
    cdef uint64_t value = 0
    cdef size_t at
    cdef char text[24]
    cdef int place = 24
    if length > 8:
        return 0
    for at in range(length):
        value = value << 8 | p[at]
    if not wide:
        if value > <uint64_t> 0x7FFFFFFFFFFFFFFF:
            return 0
        column.add_whole(<int64_t> value)
        return 1
    while True:
        place -= 1
        text[place] = <char> (48 + value % 10)
        value //= 10
        if value == 0:
            break
    column.add_bytes(text + place, 24 - place)
    return 1


cdef int take(int reading, Packed column, const uint8_t *p, size_t length, bint short) except -1:
    cdef int64_t day
    if reading == WHOLE_NUMBER:
        return take_whole(column, p, length, short)
    if reading == PLAIN_TEXT:
        if not is_text(p, length):
            return 0
        column.add_bytes(<const char *> p, length)
        return 1
    if reading == MOMENT:
        return take_moment(column, p, length)
    if reading == BIG_NUMBER:
        return take_decimal(column, p, length)
    if reading == REAL_NUMBER:
        return take_real(column, p, length)
    if reading == PLAIN_BYTES:
        column.add_bytes(<const char *> p, length)
        return 1
    if reading == DAY:
        day = day_at(p) if length == 10 else NO_DAY
        if day == NO_DAY:
            return 0
        column.add_whole(day)
        return 1
    if reading == UUID_TEXT:
        return take_uuid(column, p, length)
    if reading == ONE_BIT:
        column.add_whole(not (length == 1 and p[0] == 0))
        return 1
    return take_bits(column, p, length, reading == ALL_BITS)


cdef const uint8_t *cell_at(const uint8_t *p, const uint8_t *end, size_t *size) except NULL:
    """Where the cell begins whose length stands at `p`, and that length; all of it is there."""
    cdef uint8_t first
    cdef uint64_t wide
    if p < end:
        first = p[0]
        p += 1
        size[0] = first
        if first < 0xFB:
            if <size_t> (end - p) >= first:
                return p
        elif first == 0xFC and end - p >= 2:
            size[0] = p[0] | <size_t> p[1] << 8
            if <size_t> (end - p) - 2 >= size[0]:
                return p + 2
        elif first == 0xFD and end - p >= 3:
            size[0] = p[0] | <size_t> p[1] << 8 | <size_t> p[2] << 16
            if <size_t> (end - p) - 3 >= size[0]:
                return p + 3
        elif first == 0xFE and end - p >= 8:
            memcpy(&wide, p, 8)
            size[0] = wide
            if <size_t> (end - p) - 8 >= size[0]:
                return p + 8
    raise ValueError("a row came that ends amid its cells")


cdef class Rows:
    """The rows of one result, page by page.

    `feed` takes what has come; a page is complete once `full` or `ended`, and `taken` hands it
    over.  The buffer is read within its bounds only, whatever lengths it claims.
    """

    cdef list kinds
    cdef list columns
    cdef list odd           # of each column: row -> its bytes, for the reference to read
    cdef int *readings
    cdef Py_ssize_t width
    cdef Py_ssize_t behind
    cdef Py_ssize_t most_rows
    cdef size_t most_bytes
    cdef int sequence
    cdef readonly Py_ssize_t rows
    cdef readonly size_t size       # bytes of the page's cells
    cdef readonly bint full
    cdef readonly bint ended
    cdef readonly bytes refused     # the packet in which the server says why
    cdef const uint8_t *behind_at   # where the cells of the last row lie that are in no column
    cdef const uint8_t *behind_end
    cdef tuple last                 # the same, once the buffer may change

    def __cinit__(self):
        self.readings = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.readings)

    def __init__(self, columns, Py_ssize_t behind, Py_ssize_t rows, size_t size, int sequence):
        """`columns`: (kind, reading) each; `behind` more cells follow them in every row.

        A page has at most `rows` rows, and ends with the one that brings it to `size` bytes.
        """
        cdef list listed = list(columns)
        cdef Py_ssize_t place
        if self.readings != NULL or rows < 1:
            raise ValueError("to be made once, for pages of one row or more")
        self.width = len(listed)
        self.behind = behind
        self.most_rows = rows
        self.most_bytes = size
        self.sequence = sequence
        self.kinds = [kind for kind, _ in listed]
        self.readings = <int *> PyMem_RawMalloc((self.width + 1) * sizeof(int))
        if self.readings == NULL:
            raise MemoryError()
        for place in range(self.width):
            self.readings[place] = READINGS[listed[place][1]]
        self._begin()

    def _begin(self):
        cdef Py_ssize_t room = min(self.most_rows, 10_000)
        self.columns = [new_packed(kind, room) for kind in self.kinds]
        self.odd = [None] * self.width
        self.last = ()
        self.behind_at = NULL
        self.rows = 0
        self.size = 0
        self.full = False

    def taken(self):
        """(columns, odd cells of each: row -> bytes or None, last row's cells behind), once."""
        found = self.columns, self.odd, self.last
        self._begin()
        return found

    def feed(self, const uint8_t[::1] buffer, size_t start, size_t end):
        """Take the packets that are there whole; where the first that is not begins."""
        cdef const uint8_t *base
        cdef size_t at = start, length, after
        cdef Py_ssize_t packets = 0
        if not start <= end <= <size_t> buffer.shape[0]:
            raise ValueError("a part of the buffer was expected")
        if start == end:
            return start
        base = &buffer[0]
        while not self.full and not self.ended and end - at >= 4:
            breathe(packets)
            packets += 1
            length = base[at] | base[at + 1] << 8 | <size_t> base[at + 2] << 16
            if length == HUGE_PACKET:
                after = self._huge(base, at, end)
                if after == 0:
                    break
                at = after
                continue
            if end - at - 4 < length:
                break
            if base[at + 3] != self.sequence:
                raise ValueError(f"packet {base[at + 3]} came where {self.sequence} was expected")
            self.sequence = (self.sequence + 1) & 0xFF
            self._packet(base + at + 4, length)
            at += 4 + length
        self._keep()
        return at

    cdef size_t _huge(self, const uint8_t *base, size_t start, size_t end) except? 0:
        """A row of several packets; 0 where its last one is not here yet, else where it ends."""
        cdef size_t at = start, length = HUGE_PACKET, whole = 0
        cdef uint8_t *joined
        cdef int sequence = self.sequence
        while length == HUGE_PACKET:
            if end - at < 4:
                return 0
            length = base[at] | base[at + 1] << 8 | <size_t> base[at + 2] << 16
            if end - at - 4 < length:
                return 0
            if base[at + 3] != sequence:
                raise ValueError(f"packet {base[at + 3]} came where {sequence} was expected")
            sequence = (sequence + 1) & 0xFF
            whole += length
            at += 4 + length
        joined = <uint8_t *> PyMem_RawMalloc(whole)
        if joined == NULL:
            raise MemoryError()
        try:
            at, whole, length = start, 0, HUGE_PACKET
            while length == HUGE_PACKET:
                length = base[at] | base[at + 1] << 8 | <size_t> base[at + 2] << 16
                memcpy(joined + whole, base + at + 4, length)
                whole += length
                at += 4 + length
            self.sequence = sequence
            self._packet(joined, whole)
            self._keep()
        finally:
            PyMem_RawFree(joined)
        return at

    cdef int _packet(self, const uint8_t *p, size_t length) except -1:
        cdef const uint8_t *end = p + length
        cdef Py_ssize_t place
        cdef size_t size
        cdef Packed column
        if length == 0:
            raise ValueError("an empty packet came where a row was expected")
        if p[0] == 0xFF:
            self.refused = PyBytes_FromStringAndSize(<const char *> p, length)
            self.ended = True
            return 0
        if p[0] == 0xFE and length < 9:
            self.ended = True
            return 0
        for place in range(self.width):
            column = <Packed> self.columns[place]
            if p < end and p[0] == 0xFB:
                column.add_blank(NULL_CELL)
                p += 1
                continue
            p = cell_at(p, end, &size)
            if not take(self.readings[place], column, p, size, column.code == INT32):
                self._leave(place, p, size)
            self.size += size
            p += size
        self.behind_at, self.behind_end = p, end
        for place in range(self.behind):
            if p < end and p[0] == 0xFB:
                p += 1
                continue
            p = cell_at(p, end, &size)
            self.size += size
            p += size
        if p != end:
            raise ValueError("a row came with more in it than its cells")
        self.rows += 1
        self.full = self.rows >= self.most_rows or self.size >= self.most_bytes
        return 0

    cdef int _keep(self) except -1:
        """The cells of the last row that are in no column, before the buffer changes."""
        cdef const uint8_t *p = self.behind_at
        cdef size_t size
        cdef list cells = []
        if p == NULL:
            return 0
        for _ in range(self.behind):
            if p[0] == 0xFB:
                cells.append(None)
                p += 1
                continue
            p = cell_at(p, self.behind_end, &size)
            cells.append(PyBytes_FromStringAndSize(<const char *> p, size))
            p += size
        self.last = tuple(cells)
        self.behind_at = NULL
        return 0

    cdef int _leave(self, Py_ssize_t place, const uint8_t *p, size_t size) except -1:
        """A cell for the reference; its place is kept."""
        cdef Packed column = <Packed> self.columns[place]
        if self.odd[place] is None:
            self.odd[place] = {}
        self.odd[place][self.rows] = PyBytes_FromStringAndSize(<const char *> p, size)
        column.add_blank(NULL_CELL)
        return 0
