# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What a PostgreSQL server writes, to packed columns: messages of the log, lines of COPY.

The twins in Python are `warp.sources.postgresql.pgoutput` and `.rows`; what a cell's text means is
said by `.values`.  A text that is not surely read here as it is there (`infinity`, a year before
Christ, an array) is kept as it came, for the twin to read (guarantee 4).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.math cimport HUGE_VAL, NAN, isinf
from libc.stdint cimport (
    INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint16_t,
    uint32_t, uint64_t,
)
from libc.string cimport memchr, memcmp, memcpy, memset

from warp.native.breath cimport breathe
from warp.native.packed cimport (
    ABSENT_CELL, NULL_CELL, UNCHANGED_CELL, VALUE, Packed, is_text, new_packed,
)

from warp.errors import WarpError
from warp.model import ABSENT, UNCHANGED, Kind, Operation

cdef extern from "Python.h":
    double PyOS_string_to_double(const char *, char **, void *) except? -1.0

cdef extern from *:
    """
    static inline uint16_t warp_be16(const char *p) {
        uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
    static inline uint32_t warp_be32(const char *p) {
        uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
    static inline uint64_t warp_be64(const char *p) {
        uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
    """
    uint16_t be16 "warp_be16"(const char *) nogil
    uint32_t be32 "warp_be32"(const char *) nogil
    uint64_t be64 "warp_be64"(const char *) nogil

cdef object _UNCHANGED = UNCHANGED
cdef object _ABSENT = ABSENT
cdef object _JSON = Kind.JSON
cdef uint8_t CREATE = Operation.CREATE.value
cdef uint8_t UPDATE = Operation.UPDATE.value
cdef uint8_t DELETE = Operation.DELETE.value
cdef uint8_t TRUNCATE = Operation.TRUNCATE.value

# -------------------------------------------------------------------------------------------------
# Texts of values.  Each says whether it took the text; what it took is exactly the twin's value.

cdef enum:
    RAW = 0  # as it came, for the twin
    BOOL = 1
    INT32 = 2
    INT64 = 3
    FLOAT32 = 4
    FLOAT64 = 5
    DECIMAL = 6
    TEXT = 7
    BLOB = 8
    UUID = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    TIMESTAMP = 13
    JSON = 14

cdef dict FORMS = {
    Kind.BOOL: BOOL, Kind.INT32: INT32, Kind.INT64: INT64, Kind.FLOAT32: FLOAT32,
    Kind.FLOAT64: FLOAT64, Kind.DECIMAL: DECIMAL, Kind.TEXT: TEXT, Kind.BYTES: BLOB,
    Kind.UUID: UUID, Kind.DATE: DATE, Kind.TIME: TIME, Kind.DATETIME: DATETIME,
    Kind.TIMESTAMP: TIMESTAMP, Kind.JSON: JSON, Kind.JSON_TEXT: JSON,
}

cdef double[23] TENS
TENS[:] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
           1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22]
cdef int[13] MONTH_DAYS
MONTH_DAYS[:] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

cdef uint8_t[256] NIBBLES
cdef int _digit
for _digit in range(256):
    NIBBLES[_digit] = 255
for _digit in range(10):
    NIBBLES[48 + _digit] = _digit
for _digit in range(6):
    NIBBLES[65 + _digit] = NIBBLES[97 + _digit] = 10 + _digit


cdef inline bint digit(char c) noexcept nogil:
    return c >= 48 and c <= 57


cdef inline int two(const char *s) noexcept nogil:
    """Two digits; negative where they are none."""
    if not (digit(s[0]) and digit(s[1])):
        return -1
    return (s[0] - 48) * 10 + s[1] - 48


cdef bint whole(const char *s, size_t n, int64_t *out) noexcept nogil:
    cdef size_t i = 0
    cdef bint negative = False
    cdef int64_t value = 0
    if n and s[0] == 45:
        negative = True
        i = 1
    if n == i or n - i > 18:  # the few that are longer are the twin's
        return False
    while i < n:
        if not digit(s[i]):
            return False
        value = value * 10 + (s[i] - 48)
        i += 1
    out[0] = -value if negative else value
    return True


cdef bint real(const char *s, size_t n, double *out):
    cdef size_t i = 0
    cdef bint negative = False, below = False
    cdef int digits = 0, scale = 0, exponent = 0, length
    cdef uint64_t mantissa = 0
    cdef double value
    cdef char buffer[64]
    cdef char *end
    if n == 0 or n > 60:
        return False
    if s[0] == 45:
        negative = True
        i = 1
    if i < n and (s[i] == 78 or s[i] == 73):
        if n == 3 and memcmp(s, b"NaN", 3) == 0:
            out[0] = NAN
            return True
        if n - i == 8 and memcmp(s + i, b"Infinity", 8) == 0:
            out[0] = -HUGE_VAL if negative else HUGE_VAL
            return True
        return False
    length = 0
    while i < n and digit(s[i]):
        length += 1
        if digits or s[i] != 48:
            digits += 1
            if digits < 19:
                mantissa = mantissa * 10 + (s[i] - 48)
        i += 1
    if length == 0:
        return False
    if i < n and s[i] == 46:
        i += 1
        length = 0
        while i < n and digit(s[i]):
            length += 1
            if digits or s[i] != 48:
                digits += 1
                if digits < 19:
                    mantissa = mantissa * 10 + (s[i] - 48)
            i += 1
        scale = length
        if length == 0:
            return False
    if i < n:
        if s[i] != 101 and s[i] != 69:
            return False
        i += 1
        if i < n and (s[i] == 45 or s[i] == 43):
            below = s[i] == 45
            i += 1
        if i == n or n - i > 4:
            return False
        while i < n:
            if not digit(s[i]):
                return False
            exponent = exponent * 10 + (s[i] - 48)
            i += 1
        if below:
            exponent = -exponent
    exponent -= scale
    if digits <= 15 and -22 <= exponent <= 22:
        # Both are doubles without loss, and so the one operation rounds as the best reader would.
        value = <double> mantissa
        value = value / TENS[-exponent] if exponent < 0 else value * TENS[exponent]
        out[0] = -value if negative else value
        return True
    memcpy(buffer, s, n)
    buffer[n] = 0
    try:
        out[0] = PyOS_string_to_double(buffer, &end, NULL)  # what float() calls
    except ValueError:
        return False
    return end == buffer + n


cdef bint decimal(const char *s, size_t n) noexcept nogil:
    """Is it a number as numeric_out() writes it?"""
    cdef size_t i = 0, start
    if n and s[0] == 45:
        i = 1
    if i < n and s[i] == 73:
        return n - i == 8 and memcmp(s + i, b"Infinity", 8) == 0
    if n == 3 and memcmp(s, b"NaN", 3) == 0:
        return True
    start = i
    while i < n and digit(s[i]):
        i += 1
    if i == start:
        return False
    if i == n:
        return True
    if s[i] != 46:
        return False
    i += 1
    start = i
    while i < n and digit(s[i]):
        i += 1
    return i == n and i > start


cdef inline bint leap(int year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef bint day(const char *s, int64_t *out) noexcept nogil:
    """Ten characters as days since 1970: 2024-02-29."""
    cdef int upper = two(s), lower = two(s + 2), month = two(s + 5), number = two(s + 8)
    cdef int64_t year, era, of_era, of_year
    if upper < 0 or lower < 0 or month < 1 or month > 12 or number < 1:
        return False
    if s[4] != 45 or s[7] != 45:
        return False
    year = upper * 100 + lower
    if year == 0:
        return False
    if number > MONTH_DAYS[month] and not (month == 2 and number == 29 and leap(<int> year)):
        return False
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + number - 1
    out[0] = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return True


cdef bint clock(const char *s, size_t n, int64_t *out) noexcept nogil:
    """12:34:56, and up to six digits after a point, as microseconds."""
    cdef int hour, minute, second
    cdef int64_t fraction = 0
    cdef size_t i
    if n < 8 or n == 9 or n > 15 or s[2] != 58 or s[5] != 58:
        return False
    hour, minute, second = two(s), two(s + 3), two(s + 6)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return False
    if n > 8:
        if s[8] != 46:
            return False
        for i in range(9, 15):
            fraction *= 10
            if i < n:
                if not digit(s[i]):
                    return False
                fraction += s[i] - 48
    out[0] = ((hour * 60 + minute) * 60 + second) * <int64_t> 1000000 + fraction
    return True


cdef bint moment(const char *s, size_t n, int64_t *out) noexcept nogil:
    cdef int64_t days, micros
    if n < 19 or s[10] != 32 or not day(s, &days) or not clock(s + 11, n - 11, &micros):
        return False
    out[0] = days * <int64_t> 86400000000 + micros
    return True


# -------------------------------------------------------------------------------------------------
# Columns being filled

cdef inline int put_whole(Packed column, int64_t value) except -1:
    if column.rows == column.room:
        column.make_room()
    column.states[column.rows] = VALUE
    column.whole[column.rows] = value
    column.rows += 1
    return 0


cdef inline int put_bytes(Packed column, const char *start, size_t length) except -1:
    if column.space - column.used < length:
        column.make_space(length)
    memcpy(column.data + column.used, start, length)
    if column.rows == column.room:
        column.make_room()
    column.used += length
    column.states[column.rows] = VALUE
    column.ends[column.rows] = column.used
    column.rows += 1
    return 0


cdef class Column:
    """One column as it is filled: packed, or in a list where only the twin can read it."""

    cdef int form
    cdef Packed packed
    cdef list raw
    cdef dict odd  # row -> a text that was not surely read
    cdef object kind

    def __init__(self, kind):
        self.kind = kind
        self.form = RAW if kind is None else FORMS[kind]
        self.begin(0)

    cdef int begin(self, Py_ssize_t rows) except -1:
        self.odd = None
        if self.form == RAW:
            self.raw = []
        else:
            self.packed = new_packed(self.kind, rows)
        return 0

    cdef object take(self, Py_ssize_t expected):
        """(cells, odd ones); the next ones begin anew."""
        taken = (self.raw if self.form == RAW else self.packed, self.odd)
        self.begin(expected)
        return taken

    cdef int blank(self, uint8_t state) except -1:
        if self.form == RAW:
            if state == NULL_CELL:
                self.raw.append(None)
            else:
                self.raw.append(_UNCHANGED if state == UNCHANGED_CELL else _ABSENT)
            return 0
        return self.packed.add_blank(state)

    cdef int text(self, const char *s, size_t n) except -1:
        """A cell that the server wrote so."""
        cdef int64_t value
        cdef double number = 0
        cdef float single
        cdef int form = self.form
        cdef Packed packed = self.packed
        cdef size_t i
        cdef uint8_t high, low
        cdef char *to
        if form == RAW:
            self.raw.append(PyBytes_FromStringAndSize(s, n))
            return 0
        if form == TEXT:
            if is_text(<const uint8_t *> s, n):
                return put_bytes(packed, s, n)
        elif form == INT64 or form == INT32:
            if whole(s, n, &value) and (
                form == INT64 or -0x80000000 <= value <= 0x7FFFFFFF
            ):
                return put_whole(packed, value)
        elif form == DECIMAL:
            if decimal(s, n):
                return put_bytes(packed, s, n)
        elif form == TIMESTAMP:
            if n >= 22 and memcmp(s + n - 3, b"+00", 3) == 0 and moment(s, n - 3, &value):
                return put_whole(packed, value)
        elif form == BOOL:
            if n == 1 and (s[0] == 116 or s[0] == 102):
                return put_whole(packed, s[0] == 116)
        elif form == FLOAT64 or form == FLOAT32:
            if real(s, n, &number):
                if form == FLOAT32:
                    single = <float> number
                    if isinf(single) and not isinf(number):
                        return self.strange(s, n)
                    number = single
                return packed.add_real(number)
        elif form == JSON:
            return put_bytes(packed, s, n)
        elif form == DATE:
            if n == 10 and day(s, &value):
                return put_whole(packed, value)
        elif form == DATETIME:
            if moment(s, n, &value):
                return put_whole(packed, value)
        elif form == TIME:
            if clock(s, n, &value):
                return put_whole(packed, value)
        elif form == UUID:
            if n == 36 and s[8] == 45 and s[13] == 45 and s[18] == 45 and s[23] == 45:
                packed.make_space(16)
                to = packed.data + packed.used
                i = 0
                while i < 36:
                    if i == 8 or i == 13 or i == 18 or i == 23:
                        i += 1
                    high, low = NIBBLES[<uint8_t> s[i]], NIBBLES[<uint8_t> s[i + 1]]
                    if (high | low) > 15:
                        return self.strange(s, n)
                    to[0] = <char> (high << 4 | low)
                    to += 1
                    i += 2
                return packed.add_written(16)
        elif form == BLOB:
            if n >= 2 and n % 2 == 0 and s[0] == 92 and s[1] == 120:
                packed.make_space(n // 2)
                to = packed.data + packed.used
                i = 2
                while i < n:
                    high, low = NIBBLES[<uint8_t> s[i]], NIBBLES[<uint8_t> s[i + 1]]
                    if (high | low) > 15:
                        return self.strange(s, n)
                    to[0] = <char> (high << 4 | low)
                    to += 1
                    i += 2
                return packed.add_written(n // 2 - 1)
        return self.strange(s, n)

    cdef int strange(self, const char *s, size_t n) except -1:
        if self.odd is None:
            self.odd = {}
        self.odd[self.packed.rows] = PyBytes_FromStringAndSize(s, n)
        return self.packed.add_blank(NULL_CELL)


# -------------------------------------------------------------------------------------------------
# What came over the wire

PADDING = bytes(4)


cdef class Frames:
    """Messages one behind another, as bytes."""

    cdef char *data
    cdef uint64_t *ends
    cdef size_t used
    cdef size_t space
    cdef Py_ssize_t count
    cdef Py_ssize_t room

    def __cinit__(self):
        self.space = 1 << 16
        self.room = 256
        self.data = <char *> PyMem_RawMalloc(self.space)
        self.ends = <uint64_t *> PyMem_RawMalloc(self.room * 8)
        if self.data == NULL or self.ends == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.data)
        PyMem_RawFree(self.ends)

    cdef int add(self, const char *start, size_t length) except -1:
        cdef void *moved
        if self.space - self.used < length:
            moved = PyMem_RawRealloc(self.data, (self.used + length) * 2)
            if moved == NULL:
                raise MemoryError()
            self.data = <char *> moved
            self.space = (self.used + length) * 2
        if self.count == self.room:
            moved = PyMem_RawRealloc(self.ends, self.room * 16)
            if moved == NULL:
                raise MemoryError()
            self.ends = <uint64_t *> moved
            self.room *= 2
        memcpy(self.data + self.used, start, length)
        self.used += length
        self.ends[self.count] = self.used
        self.count += 1
        return 0

    @staticmethod
    def of(messages):
        cdef Frames made = Frames()
        cdef bytes message
        for message in messages:
            made.add(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        return made

    def __len__(self):
        return self.count

    @property
    def nbytes(self):
        return self.used

    def __getitem__(self, Py_ssize_t place):
        """The message, and PADDING, which the reader in Python wants."""
        cdef uint64_t begin
        if not 0 <= place < self.count:
            raise IndexError(place)
        begin = self.ends[place - 1] if place else 0
        return PyBytes_FromStringAndSize(self.data + begin, self.ends[place] - begin) + PADDING


ctypedef int (*get_t)(void *, char **, int) noexcept
ctypedef void (*free_t)(void *) noexcept
ctypedef int (*consume_t)(void *) noexcept

FULL, WAIT, ENDED, REFUSED, LOST = 1, 0, -1, -2, -3
"""What `receive` stopped at: enough of them; nothing more is there yet; the server has ended the
COPY; it has refused to go on; the connection broke."""


cdef class Receiver:
    """Messages of a COPY taken from libpq without a Python object each.

    The addresses are those of PQgetCopyData, PQfreemem and PQconsumeInput in the very library that
    made the connection.
    """

    cdef get_t get
    cdef free_t free
    cdef consume_t consume

    def __init__(self, size_t get, size_t free, size_t consume):
        self.get = <get_t> get
        self.free = <free_t> free
        self.consume = <consume_t> consume

    def receive(self, Frames into, size_t connection, size_t most_bytes, Py_ssize_t most):
        """The GIL is kept: another thread must not finish the connection meanwhile."""
        cdef char *message = NULL
        cdef int length
        cdef bint asked = False
        cdef void *of = <void *> connection
        if of == NULL:
            return LOST
        while into.used < most_bytes and into.count < most:
            length = self.get(of, &message, 1)
            if length > 0:
                asked = False
                try:
                    into.add(message, length)
                finally:
                    self.free(message)
            elif length == 0:
                if asked:
                    return WAIT
                if not self.consume(of):
                    return LOST
                asked = True
            else:
                return length
        return FULL


# -------------------------------------------------------------------------------------------------
# Lines of COPY

def columns_of(Frames lines, kinds):
    """[(cells, odd ones), …] of lines of COPY's text format.

    For a kind of None the cells are a list of what the server wrote, with None for NULL.  An odd
    cell stands as NULL in its packed column, and as the server wrote it among the odd ones.
    """
    cdef list columns = [Column(kind) for kind in kinds]
    cdef Column column
    cdef Py_ssize_t width = len(columns), row, place
    cdef uint64_t begin = 0
    cdef const char *p
    cdef const char *end
    cdef const char *stop
    cdef const char *q
    cdef char *scratch = NULL
    cdef char *to
    cdef bint escaped
    cdef size_t length
    if width == 0:
        raise ValueError("at least one column was expected")
    for column in columns:
        column.begin(lines.count)
    try:
        for row in range(lines.count):
            breathe(row)
            p = lines.data + begin
            length = lines.ends[row] - begin
            begin = lines.ends[row]
            if length == 0 or p[length - 1] != 10:
                raise WarpError("a line was expected, found one without its end")
            end = p + length - 1
            escaped = memchr(p, 92, length) != NULL
            if escaped:
                PyMem_RawFree(scratch)
                scratch = <char *> PyMem_RawMalloc(length)
                if scratch == NULL:
                    raise MemoryError()
            for place in range(width):
                column = <Column> columns[place]
                stop = <const char *> memchr(p, 9, end - p)
                if (stop == NULL) != (place == width - 1):
                    raise WarpError(f"a line of {width} cells was expected, found another number")
                if stop == NULL:
                    stop = end
                if not escaped or memchr(p, 92, stop - p) == NULL:
                    column.text(p, stop - p)
                elif stop - p == 2 and p[1] == 78:  # \N
                    column.blank(NULL_CELL)
                else:
                    to = scratch
                    q = p
                    while q < stop:
                        if q[0] == 92 and q + 1 < stop:
                            q += 1
                            if q[0] == 98:
                                to[0] = 8
                            elif q[0] == 102:
                                to[0] = 12
                            elif q[0] == 110:
                                to[0] = 10
                            elif q[0] == 114:
                                to[0] = 13
                            elif q[0] == 116:
                                to[0] = 9
                            elif q[0] == 118:
                                to[0] = 11
                            else:
                                to[0] = q[0]
                        else:
                            to[0] = q[0]
                        to += 1
                        q += 1
                    column.text(scratch, to - scratch)
                p = stop + 1
    finally:
        PyMem_RawFree(scratch)
    return [(<Column> column).take(0) for column in columns]


# -------------------------------------------------------------------------------------------------
# Rows of binary COPY

cdef enum:
    COPY_HEAD = 19  # signature, flags, length of what follows it: nothing, so far

cdef int64_t POSTGRES_DAYS = 10957  # from 1970 to 2000
cdef int64_t POSTGRES_MICROSECONDS = 946684800000000
cdef int64_t FIRST_DAY = -719162  # 0001-01-01, of date.min
cdef int64_t LAST_DAY = 2932896  # 9999-12-31


def binary_columns_of(Frames rows, kinds):
    """The same of rows of COPY's binary format; no kind may be None.

    An odd cell is given as the text that the server would have written.
    """
    cdef list columns = [Column(kind) for kind in kinds]
    cdef Column column
    cdef Py_ssize_t width = len(columns), row, place
    cdef uint64_t begin = 0
    cdef const char *p
    cdef const char *end
    cdef uint32_t length
    for column in columns:
        if column.form == RAW:
            raise ValueError("kinds that have a binary form were expected")
        column.begin(rows.count)
    for row in range(rows.count):
        breathe(row)
        p = rows.data + begin
        end = rows.data + rows.ends[row]
        begin = rows.ends[row]
        if end - p >= COPY_HEAD and memcmp(p, b"PGCOPY\n\xff\r\n\0", 11) == 0:
            p += COPY_HEAD  # it comes with the first row; no row has so many fields
        if end - p == 2 and be16(p) == 0xFFFF:
            continue  # the end
        if end - p < 2 or be16(p) != width:
            raise WarpError(f"a row of {width} cells was expected, found another number")
        p += 2
        for place in range(width):
            column = <Column> columns[place]
            if end - p < 4:
                raise WarpError("a whole row was expected, found one that is cut short")
            length = be32(p)
            p += 4
            if length == 0xFFFFFFFF:
                column.blank(NULL_CELL)
                continue
            if <uint64_t> (end - p) < length:
                raise WarpError("a whole row was expected, found one that is cut short")
            if not binary_cell(column, p, length):
                raise WarpError(
                    f"a binary {column.kind} was expected, found {p[:min(length, 40)].hex()}"
                )
            p += length
        if p != end:
            raise WarpError(f"a row of {width} cells was expected, found more behind it")
    return [(<Column> column).take(0) for column in columns]


cdef int binary_cell(Column column, const char *p, uint32_t n) except -1:
    """Is it a value of that kind?"""
    cdef int form = column.form
    cdef Packed packed = column.packed
    cdef int64_t value
    cdef uint32_t word
    cdef uint64_t double_word
    cdef float single
    cdef double number = 0
    if form == TEXT:
        if not is_text(<const uint8_t *> p, n):
            column.strange(p, n)
            return True
        put_bytes(packed, p, n)
    elif form == INT64:
        if n == 8:
            put_whole(packed, <int64_t> be64(p))
        elif n == 4:  # an oid
            put_whole(packed, be32(p))
        else:
            return False
    elif form == INT32:
        if n == 4:
            put_whole(packed, <int32_t> be32(p))
        elif n == 2:
            put_whole(packed, <int16_t> be16(p))
        else:
            return False
    elif form == DECIMAL:
        return binary_numeric(packed, p, n)
    elif form == TIMESTAMP or form == DATETIME:
        if n != 8:
            return False
        value = <int64_t> be64(p)
        if value == INT64_MAX or value == INT64_MIN:
            infinite(column, value > 0)
        elif value > INT64_MAX - POSTGRES_MICROSECONDS:
            return False  # no year that PostgreSQL knows
        else:
            put_whole(packed, value + POSTGRES_MICROSECONDS)
    elif form == BOOL:
        if n != 1:
            return False
        put_whole(packed, p[0] != 0)
    elif form == FLOAT64:
        if n != 8:
            return False
        double_word = be64(p)
        memcpy(&number, &double_word, 8)
        packed.add_real(NAN if number != number else number)
    elif form == FLOAT32:
        if n != 4:
            return False
        word = be32(p)
        memcpy(&single, &word, 4)
        number = single
        packed.add_real(NAN if number != number else number)
    elif form == JSON:
        if column.kind is _JSON:  # of jsonb
            if n < 1 or p[0] != 1:
                return False
            put_bytes(packed, p + 1, n - 1)
        else:
            put_bytes(packed, p, n)
    elif form == BLOB:
        put_bytes(packed, p, n)
    elif form == UUID:
        if n != 16:
            return False
        put_bytes(packed, p, n)
    elif form == DATE:
        if n != 4:
            return False
        value = <int32_t> be32(p)
        if value == INT32_MAX or value == INT32_MIN:
            infinite(column, value > 0)
            return True
        value += POSTGRES_DAYS
        if FIRST_DAY <= value <= LAST_DAY:
            put_whole(packed, value)
        else:
            text = date_text(value)
            column.strange(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    elif form == TIME:
        if n != 8:
            return False
        value = <int64_t> be64(p)
        if 0 <= value < 86400000000:
            put_whole(packed, value)
        elif value == 86400000000:
            column.strange(b"24:00:00", 8)
        else:
            return False
    else:
        return False
    return True


cdef int infinite(Column column, bint positive) except -1:
    if positive:
        return column.strange(b"infinity", 8)
    return column.strange(b"-infinity", 9)


cdef bytes date_text(int64_t days):
    """Days since 1970 as the server writes a date that Python has not."""
    cdef int64_t era, of_era, year_of_era, of_year, shifted, year, month
    days += 719468
    era = days // 146097 if days >= 0 else -((146096 - days) // 146097)
    of_era = days - era * 146097
    year_of_era = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    year = year_of_era + era * 400 + (month <= 2)
    of_year = of_year - (153 * shifted + 2) // 5 + 1
    if year < 1:
        return f"{1 - year:04}-{month:02}-{of_year:02} BC".encode()
    return f"{year:04}-{month:02}-{of_year:02}".encode()


cdef int binary_numeric(Packed packed, const char *p, uint32_t n) except -1:
    """numeric_send() to what numeric_out() writes: digits of base 10000 to those of ten."""
    cdef int groups, weight, sign, scale, at, group, place
    cdef char *to
    cdef char four[4]
    if n < 8:
        return False
    groups, weight, sign, scale = be16(p), <int16_t> be16(p + 2), be16(p + 4), be16(p + 6)
    if sign == 0xC000:
        put_bytes(packed, b"NaN", 3)
        return True
    if sign == 0xD000:
        put_bytes(packed, b"Infinity", 8)
        return True
    if sign == 0xF000:
        put_bytes(packed, b"-Infinity", 9)
        return True
    if (sign != 0 and sign != 0x4000) or n != 8 + 2 * <uint32_t> groups or scale > 0x3FFF:
        return False
    for at in range(groups):
        if be16(p + 8 + 2 * at) > 9999:
            return False
    packed.make_space((weight + 1 if weight >= 0 else 0) * 4 + scale + 8)
    to = packed.data + packed.used
    if sign:
        to[0] = 45
        to += 1
    if weight < 0:
        to[0] = 48
        to += 1
    for at in range(weight + 1):
        group = be16(p + 8 + 2 * at) if at < groups else 0
        four[0], four[1] = group // 1000 + 48, group // 100 % 10 + 48
        four[2], four[3] = group // 10 % 10 + 48, group % 10 + 48
        place = 0
        if at == 0:  # without leading zeros
            while place < 3 and four[place] == 48:
                place += 1
        memcpy(to, four + place, 4 - place)
        to += 4 - place
    if scale:
        to[0] = 46
        to += 1
        at = weight + 1  # the group behind the point; those before the first are zero
        place = 0
        while place < scale:
            group = be16(p + 8 + 2 * at) if 0 <= at < groups else 0
            four[0], four[1] = group // 1000 + 48, group // 100 % 10 + 48
            four[2], four[3] = group // 10 % 10 + 48, group % 10 + 48
            memcpy(to, four, 4 if scale - place > 4 else scale - place)
            to += 4 if scale - place > 4 else scale - place
            place += 4
            at += 1
    packed.add_written(to - (packed.data + packed.used))
    return True


# -------------------------------------------------------------------------------------------------
# Messages of pgoutput

cdef struct Cell:
    const char *start
    uint32_t length
    uint8_t state


cdef class Rows:
    """The rows gathered of one relation.  The twin is `pgoutput.Gathered`."""

    cdef list columns
    cdef Py_ssize_t width
    cdef Py_ssize_t keys
    cdef Py_ssize_t *key
    cdef Cell *old
    cdef Cell *new
    cdef Cell *bare
    cdef uint8_t *operations
    cdef uint64_t *versions
    cdef Py_ssize_t count
    cdef Py_ssize_t room

    def __cinit__(self, kinds, key):
        cdef Py_ssize_t place
        self.columns = [Column(kind) for kind in kinds]
        self.width = len(self.columns)
        self.keys = len(key)
        self.room = 256
        self.key = <Py_ssize_t *> PyMem_RawMalloc((self.keys + 1) * sizeof(Py_ssize_t))
        self.old = <Cell *> PyMem_RawMalloc((self.width + 1) * sizeof(Cell))
        self.new = <Cell *> PyMem_RawMalloc((self.width + 1) * sizeof(Cell))
        self.bare = <Cell *> PyMem_RawMalloc((self.width + 1) * sizeof(Cell))
        self.operations = <uint8_t *> PyMem_RawMalloc(self.room)
        self.versions = <uint64_t *> PyMem_RawMalloc(self.room * 8)
        if (
            self.key == NULL or self.old == NULL or self.new == NULL or self.bare == NULL
            or self.operations == NULL or self.versions == NULL
        ):
            raise MemoryError()
        for place in range(self.keys):
            if not 0 <= key[place] < self.width:
                raise IndexError(key[place])
            self.key[place] = key[place]

    def __dealloc__(self):
        PyMem_RawFree(self.key)
        PyMem_RawFree(self.old)
        PyMem_RawFree(self.new)
        PyMem_RawFree(self.bare)
        PyMem_RawFree(self.operations)
        PyMem_RawFree(self.versions)

    def __len__(self):
        return self.count

    cdef const char *tuple_(self, const char *p, const char *end, Cell *cells) except NULL:
        """Read a TupleData; returns where it ends."""
        cdef Py_ssize_t place
        cdef Cell *cell
        if end - p < 2:
            raise cut_short()
        if be16(p) != self.width:
            raise WarpError(f"as many cells as columns were expected, found {be16(p)}")
        p += 2
        for place in range(self.width):
            cell = &cells[place]
            if p >= end:
                raise cut_short()
            if p[0] == 116:
                if end - p < 5:
                    raise cut_short()
                cell.state = VALUE
                cell.length = be32(p + 1)
                cell.start = p + 5
                if <uint64_t> (end - cell.start) < cell.length:
                    raise cut_short()
                p = cell.start + cell.length
            else:
                cell.length = 0
                cell.start = p
                if p[0] == 110:
                    cell.state = NULL_CELL
                elif p[0] == 117:
                    cell.state = UNCHANGED_CELL
                else:
                    raise WarpError(
                        f"a text, NULL or unchanged value was expected, found {chr(<uint8_t> p[0])!r}"
                    )
                p += 1
        return p

    cdef int emit(self, uint8_t operation, uint64_t version, Cell *cells) except -1:
        cdef Py_ssize_t place
        cdef void *moved
        cdef Column column
        if self.count == self.room:
            moved = PyMem_RawRealloc(self.operations, self.room * 2)
            if moved == NULL:
                raise MemoryError()
            self.operations = <uint8_t *> moved
            moved = PyMem_RawRealloc(self.versions, self.room * 16)
            if moved == NULL:
                raise MemoryError()
            self.versions = <uint64_t *> moved
            self.room *= 2
        for place in range(self.width):
            column = <Column> self.columns[place]
            if cells[place].state == VALUE:
                column.text(cells[place].start, cells[place].length)
            else:
                column.blank(cells[place].state)
        self.operations[self.count] = operation
        self.versions[self.count] = version
        self.count += 1
        return 0

    cdef Cell *only_key(self, Cell *cells) noexcept:
        cdef Py_ssize_t place
        for place in range(self.width):
            self.bare[place].state = ABSENT_CELL
        for place in range(self.keys):
            self.bare[self.key[place]] = cells[self.key[place]]
        return self.bare

    cdef int add(self, char kind, const char *p, const char *end, uint64_t version) except -1:
        """An Insert, Update or Delete, after its relation's oid; how many rows it made."""
        cdef bint whole_row, moved = False
        cdef Py_ssize_t place
        cdef Cell *a
        cdef Cell *b
        if end - p < 1:
            raise cut_short()
        if kind == 73:  # I
            self.tuple_(p + 1, end, self.new)
            self.emit(CREATE, version, self.new)
            return 1
        if kind == 68:  # D
            self.tuple_(p + 1, end, self.old)
            self.emit(DELETE, version, self.only_key(self.old))
            return 1
        if p[0] == 78:  # N
            self.tuple_(p + 1, end, self.new)
            self.emit(UPDATE, version, self.new)
            return 1
        whole_row = p[0] == 79  # O
        p = self.tuple_(p + 1, end, self.old)
        if end - p < 1:
            raise cut_short()
        self.tuple_(p + 1, end, self.new)
        # A large value that was not changed is in the old row, if that came.
        if whole_row:
            for place in range(self.width):
                if self.new[place].state == UNCHANGED_CELL:
                    self.new[place] = self.old[place]
        else:
            for place in range(self.keys):
                if self.new[self.key[place]].state == UNCHANGED_CELL:
                    self.new[self.key[place]] = self.old[self.key[place]]
        for place in range(self.keys):
            a, b = &self.new[self.key[place]], &self.old[self.key[place]]
            if a.state != b.state or a.length != b.length or (
                a.state == VALUE and memcmp(a.start, b.start, a.length) != 0
            ):
                moved = True
        if not moved:
            self.emit(UPDATE, version, self.new)
            return 1
        # See the twin: without an old row the new one may lack values, and is looked up then.
        self.emit(DELETE, version, self.only_key(self.old))
        for place in range(self.width):
            if self.new[place].state == UNCHANGED_CELL:
                self.emit(UPDATE, version, self.new)
                return 2
        self.emit(CREATE, version, self.new)
        return 2

    def truncate(self, uint64_t version):
        cdef Py_ssize_t place
        for place in range(self.width):
            self.bare[place].state = ABSENT_CELL
        self.emit(TRUNCATE, version, self.bare)

    def take(self):
        """(operations, versions, [(cells, odd ones), …]) so far; the next ones begin anew."""
        cdef Py_ssize_t row
        cdef object version = None
        cdef list versions = [None] * self.count
        cdef Column column
        for row in range(self.count):
            if row == 0 or self.versions[row] != self.versions[row - 1]:
                version = self.versions[row]
            versions[row] = version
        operations = bytearray(PyBytes_FromStringAndSize(<char *> self.operations, self.count))
        columns = [(<Column> column).take(self.count) for column in self.columns]
        self.count = 0
        return operations, versions, columns


cdef object cut_short():
    return WarpError("a whole message of pgoutput was expected, found one that is cut short")


cdef enum:
    HEADER = 25  # of a DATA frame, before the plugin's own message


cdef class Log:
    """The messages of the log to rows, transaction after transaction.

    What it does not know (a keepalive, another relation, a block of a transaction in progress) it
    leaves to the caller, who goes on behind it.
    """

    cdef dict relations
    cdef uint32_t last_oid
    cdef Rows last
    cdef readonly uint64_t version  # of the rows to come
    cdef readonly Py_ssize_t rows
    cdef readonly size_t size
    cdef readonly bint within  # a transaction
    cdef readonly bint committed  # one, in what was gathered last
    cdef readonly uint64_t end  # of the last one, with `committed`
    cdef readonly int64_t at  # microseconds since 2000

    def __init__(self):
        self.relations = {}

    def relation(self, uint32_t oid, Rows rows):
        """How rows of the relation are gathered from here on; None: they are passed over."""
        self.relations[oid] = rows
        self.last = None

    def begin(self, uint64_t version):
        self.version = version

    def taken(self):
        """All rows were taken."""
        self.rows = self.size = 0

    cdef int find(self, uint32_t oid) except -1:
        """Sets `last`: is the relation known?"""
        if self.last is not None and self.last_oid == oid:
            return True
        found = self.relations.get(oid, 0)
        if found is 0:
            return False
        self.last_oid = oid
        self.last = <Rows?> found if found is not None else None
        return True

    def row(self, char kind, bytes message, Py_ssize_t at):
        """An Insert, Update or Delete that stands alone; `at` is where the relation's oid stands.

        False where the relation is not known.
        """
        cdef const char *start = PyBytes_AS_STRING(message)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(message) - 4  # the padding
        if not 0 < at <= length - 5:
            raise cut_short()
        if not self.find(be32(start + at)):
            return False
        if self.last is not None:
            self.rows += self.last.add(kind, start + at + 4, start + length, self.version)
            self.size += length
        return True

    def truncate(self, uint32_t oid):
        if self.find(oid) and self.last is not None:
            self.last.truncate(self.version)
            self.rows += 1

    def gather(self, Frames frames, Py_ssize_t start, *, Py_ssize_t enough, Py_ssize_t most,
               size_t most_bytes):
        """From message `start` on, up to one that is not known here; returns its place.

        Or the place after a commit with which `enough` rows are gathered, or after the row with
        which there are `most` rows or `most_bytes`.
        """
        cdef Py_ssize_t place
        cdef uint64_t begin, length
        cdef const char *p
        cdef char kind
        self.committed = False
        if start < 0:
            raise IndexError(start)
        for place in range(start, frames.count):
            begin = frames.ends[place - 1] if place else 0
            length = frames.ends[place] - begin
            p = frames.data + begin
            if length <= HEADER or p[0] != 119:  # w
                return place
            kind = p[HEADER]
            p += HEADER + 1
            length -= HEADER + 1
            if kind == 73 or kind == 85 or kind == 68:  # I U D
                if length < 5:
                    raise cut_short()
                if not self.find(be32(p)):
                    return place
                if self.last is None:
                    continue
                self.rows += self.last.add(kind, p + 4, p + length, self.version)
                self.size += length
                if self.rows >= most or self.size >= most_bytes:
                    return place + 1
            elif kind == 66:  # B
                if length < 20:
                    raise cut_short()
                self.version = be64(p)
                self.within = True
            elif kind == 67:  # C
                if length < 25:
                    raise cut_short()
                self.within = False
                self.committed = True
                self.end = be64(p + 9)
                self.at = <int64_t> be64(p + 17)
                if self.rows >= enough:
                    return place + 1
            else:
                return place
        return frames.count
