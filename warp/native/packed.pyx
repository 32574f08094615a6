# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Columns whose cells lie in memory as machine words and bytes, not as Python objects.

A `Packed` column is one more representation of a column (see `warp.cells`): whoever asks for its
cells gets the very carriers that a list would hold.  What it holds is exact: a value that has no
form in its layout is not taken, and the caller goes the slow way (guarantee 4).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memchr, memcmp, memcpy, memset

from warp.native.breath cimport breathe

from array import array
from datetime import date
from decimal import Decimal

from warp.model import ABSENT, UNCHANGED, Kind

cdef extern from *:
    """
    static inline uint16_t warp_swap16(uint16_t v) { return __builtin_bswap16(v); }
    static inline uint32_t warp_swap32(uint32_t v) { return __builtin_bswap32(v); }
    static inline uint64_t warp_swap64(uint64_t v) { return __builtin_bswap64(v); }
    """
    uint16_t swap16 "warp_swap16"(uint16_t) nogil
    uint32_t swap32 "warp_swap32"(uint32_t) nogil
    uint64_t swap64 "warp_swap64"(uint64_t) nogil

cdef enum:
    BOOL = 0
    INT32 = 1
    INT64 = 2
    FLOAT32 = 3
    FLOAT64 = 4
    DECIMAL = 5
    TEXT = 6
    BLOB = 7
    UUID = 8
    DATE = 9
    TIME = 10
    DATETIME = 11
    TIMESTAMP = 12
    JSON = 13
    JSON_TEXT = 14
    OBJECTID = 15
    TAGGED = 16

cdef dict CODES = {
    Kind.BOOL: BOOL, Kind.INT32: INT32, Kind.INT64: INT64, Kind.FLOAT32: FLOAT32,
    Kind.FLOAT64: FLOAT64, Kind.DECIMAL: DECIMAL, Kind.TEXT: TEXT, Kind.BYTES: BLOB,
    Kind.UUID: UUID, Kind.DATE: DATE, Kind.TIME: TIME, Kind.DATETIME: DATETIME,
    Kind.TIMESTAMP: TIMESTAMP, Kind.JSON: JSON, Kind.JSON_TEXT: JSON_TEXT,
    Kind.OBJECTID: OBJECTID, Kind.TAGGED: TAGGED,
}
cdef object _UNCHANGED = UNCHANGED
cdef object _ABSENT = ABSENT
cdef int64_t EPOCH = date(1970, 1, 1).toordinal()
cdef object from_ordinal = date.fromordinal
cdef object to_ordinal = date.toordinal


cdef bint is_text(const uint8_t *start, size_t length) noexcept nogil:
    cdef const uint8_t *p = start
    cdef const uint8_t *end = start + length
    cdef uint8_t c
    cdef uint64_t word
    while p < end:
        # Eight plain ASCII bytes at once, none of them zero.
        while end - p >= 8:
            memcpy(&word, p, 8)
            if word & <uint64_t> 0x8080808080808080:
                break
            if (word - <uint64_t> 0x0101010101010101) & ~word & <uint64_t> 0x8080808080808080:
                return False
            p += 8
        if p == end:
            break
        c = p[0]
        if c < 0x80:
            if c == 0:
                return False
            p += 1
        elif c < 0xC2:
            return False
        elif c < 0xE0:
            if end - p < 2 or p[1] & 0xC0 != 0x80:
                return False
            p += 2
        elif c < 0xF0:
            if end - p < 3 or p[1] & 0xC0 != 0x80 or p[2] & 0xC0 != 0x80:
                return False
            if c == 0xE0 and p[1] < 0xA0:
                return False
            if c == 0xED and p[1] > 0x9F:  # a surrogate
                return False
            p += 3
        elif c < 0xF5:
            if end - p < 4 or p[1] & 0xC0 != 0x80 or p[2] & 0xC0 != 0x80 or p[3] & 0xC0 != 0x80:
                return False
            if c == 0xF0 and p[1] < 0x90:
                return False
            if c == 0xF4 and p[1] > 0x8F:
                return False
            p += 4
        else:
            return False
    return True


cdef Packed new_packed(object kind, Py_ssize_t rows):
    cdef Packed made = Packed.__new__(Packed)
    made.kind = kind
    made.code = CODES[kind]
    if made.code in (FLOAT32, FLOAT64):
        made.layout = REAL
    elif made.code in (BOOL, INT32, INT64, DATE, TIME, DATETIME, TIMESTAMP):
        made.layout = WHOLE
    else:
        made.layout = BYTES
    made.room = rows if rows > 16 else 16
    made.states = <uint8_t *> PyMem_RawMalloc(made.room)
    if made.layout == BYTES:
        made.ends = <uint64_t *> PyMem_RawMalloc(made.room * 8)
        made.space = 16 * made.room
        made.data = <char *> PyMem_RawMalloc(made.space)
        if made.ends == NULL or made.data == NULL:
            raise MemoryError()
    else:
        made.whole = <int64_t *> PyMem_RawMalloc(made.room * 8)
        if made.whole == NULL:
            raise MemoryError()
    if made.states == NULL:
        raise MemoryError()
    return made


cdef class Packed:
    """A column in memory; immutable once whoever fills it has handed it on."""

    def __dealloc__(self):
        PyMem_RawFree(self.states)
        PyMem_RawFree(self.whole)
        PyMem_RawFree(self.ends)
        PyMem_RawFree(self.data)

    def __init__(self):
        raise TypeError("a packed column is made by Packed.of() or by a decoder")

    # -- filling

    cdef int make_room(self) except -1:
        cdef Py_ssize_t room
        cdef void *moved
        if self.rows < self.room:
            return 0
        room = self.room * 2
        moved = PyMem_RawRealloc(self.states, room)
        if moved == NULL:
            raise MemoryError()
        self.states = <uint8_t *> moved
        if self.layout == BYTES:
            moved = PyMem_RawRealloc(self.ends, room * 8)
            if moved == NULL:
                raise MemoryError()
            self.ends = <uint64_t *> moved
        else:
            moved = PyMem_RawRealloc(self.whole, room * 8)
            if moved == NULL:
                raise MemoryError()
            self.whole = <int64_t *> moved
        self.room = room
        return 0

    cdef int make_space(self, size_t more) except -1:
        cdef size_t space
        cdef void *moved
        if self.space - self.used >= more:
            return 0
        # Half as much again, not twice: documents may be large (guarantee 9).
        space = self.used + more + (self.used + more) // 2
        moved = PyMem_RawRealloc(self.data, space)
        if moved == NULL:
            raise MemoryError()
        self.data = <char *> moved
        self.space = space
        return 0

    cdef int add_blank(self, uint8_t state) except -1:
        self.make_room()
        self.states[self.rows] = state
        if self.layout == BYTES:
            self.ends[self.rows] = self.used
        else:
            self.whole[self.rows] = 0
        self.rows += 1
        self.blanks += 1
        return 0

    cdef int add_whole(self, int64_t value) except -1:
        self.make_room()
        self.states[self.rows] = VALUE
        self.whole[self.rows] = value
        self.rows += 1
        return 0

    cdef int add_real(self, double value) except -1:
        self.make_room()
        self.states[self.rows] = VALUE
        memcpy(&self.whole[self.rows], &value, 8)
        self.rows += 1
        return 0

    cdef int add_bytes(self, const char *start, size_t length) except -1:
        self.make_space(length)
        memcpy(self.data + self.used, start, length)
        return self.add_written(length)

    cdef int add_written(self, size_t length) except -1:
        self.make_room()
        self.used += length
        self.states[self.rows] = VALUE
        self.ends[self.rows] = self.used
        self.rows += 1
        return 0

    cdef int add_from(self, Packed other, Py_ssize_t row) except -1:
        """A cell of another column of this kind."""
        cdef uint64_t begin
        if other.states[row] != VALUE:
            return self.add_blank(other.states[row])
        if self.layout == BYTES:
            begin = other.ends[row - 1] if row else 0
            return self.add_bytes(other.data + begin, other.ends[row] - begin)
        return self.add_whole(other.whole[row])

    cdef void cut(self, Py_ssize_t rows) noexcept:
        while self.rows > rows:
            self.rows -= 1
            if self.states[self.rows] != VALUE:
                self.blanks -= 1
        if self.layout == BYTES:
            self.used = self.ends[rows - 1] if rows else 0

    cdef int add_cell(self, object cell) except -1:
        """Add a carrier; ValueError where it is not exactly one of this kind."""
        cdef int overflow = 0
        cdef int64_t value
        cdef Py_ssize_t length
        cdef const char *start
        if cell is None:
            return self.add_blank(NULL_CELL)
        if cell is _UNCHANGED:
            return self.add_blank(UNCHANGED_CELL)
        if cell is _ABSENT:
            return self.add_blank(ABSENT_CELL)
        if self.layout == WHOLE:
            if self.code == BOOL:
                if type(cell) is not bool:
                    raise ValueError(cell)
                return self.add_whole(cell is True)
            if self.code == DATE:
                if type(cell) is not date:
                    raise ValueError(cell)
                value = to_ordinal(cell)
                return self.add_whole(value - EPOCH)
            if type(cell) is bool or not isinstance(cell, int):
                raise ValueError(cell)
            value = PyLong_AsLongLongAndOverflow(cell, &overflow)
            if overflow or (self.code == INT32 and not -0x80000000 <= value <= 0x7FFFFFFF):
                raise ValueError(cell)
            return self.add_whole(value)
        if self.layout == REAL:
            if type(cell) is not float:
                raise ValueError(cell)
            return self.add_real(PyFloat_AS_DOUBLE(cell))
        if self.code == DECIMAL:
            if type(cell) is not Decimal:
                raise ValueError(cell)
            cell = str(cell)
        if self.code in (TEXT, OBJECTID, TAGGED, DECIMAL):
            if type(cell) is not str:
                raise ValueError(cell)
            start = PyUnicode_AsUTF8AndSize(cell, &length)  # UnicodeEncodeError is a ValueError
            if memchr(start, 0, length) != NULL:
                raise ValueError(cell)
            return self.add_bytes(start, length)
        if type(cell) is not bytes:
            raise ValueError(cell)
        if self.code == UUID and PyBytes_GET_SIZE(cell) != 16:
            raise ValueError(cell)
        return self.add_bytes(PyBytes_AS_STRING(cell), PyBytes_GET_SIZE(cell))

    @staticmethod
    def of(kind, cells):
        """Carriers as a packed column; None where one of them has no exact form in it."""
        cdef Packed made = new_packed(kind, len(cells))
        try:
            for cell in cells:
                made.add_cell(cell)
        except ValueError:
            return None
        return made

    # -- what it holds

    def __len__(self):
        return self.rows

    cdef object cell(self, Py_ssize_t row):
        cdef uint8_t state = self.states[row]
        cdef double real
        cdef const char *start
        cdef uint64_t begin
        cdef Py_ssize_t length
        if state != VALUE:
            if state == NULL_CELL:
                return None
            return _UNCHANGED if state == UNCHANGED_CELL else _ABSENT
        if self.layout == WHOLE:
            if self.code == BOOL:
                return self.whole[row] != 0
            if self.code == DATE:
                return from_ordinal(self.whole[row] + EPOCH)
            return self.whole[row]
        if self.layout == REAL:
            memcpy(&real, &self.whole[row], 8)
            return real
        begin = self.ends[row - 1] if row else 0
        start = self.data + begin
        length = self.ends[row] - begin
        if self.code in (TEXT, OBJECTID, TAGGED):
            return PyUnicode_DecodeUTF8(start, length, NULL)
        if self.code == DECIMAL:
            return Decimal(PyUnicode_DecodeUTF8(start, length, NULL))
        return PyBytes_FromStringAndSize(start, length)

    def __getitem__(self, place):
        cdef Py_ssize_t row
        if isinstance(place, slice):
            return [self.cell(row) for row in range(*place.indices(self.rows))]
        row = place
        if row < 0:
            row += self.rows
        if not 0 <= row < self.rows:
            raise IndexError(place)
        return self.cell(row)

    def __iter__(self):
        return iter(self.tolist())

    def __contains__(self, cell):
        return cell in self.tolist()

    def count(self, cell):
        """How many cells equal this one, as of a list."""
        return self.tolist().count(cell)

    def index(self, cell):
        return self.tolist().index(cell)

    def __reversed__(self):
        return reversed(self.tolist())

    def tolist(self):
        """The carriers, in a list of the caller's own."""
        cdef Py_ssize_t row
        return [self.cell(row) for row in range(self.rows)]

    @property
    def marked(self):
        """Does it hold UNCHANGED or ABSENT?"""
        cdef Py_ssize_t row
        if self.blanks:
            for row in range(self.rows):
                if self.states[row] >= UNCHANGED_CELL:
                    return True
        return False

    @property
    def blank(self):
        """Does it hold a cell that is no value: NULL, UNCHANGED, ABSENT?"""
        return self.blanks != 0

    @property
    def nbytes(self):
        """What it occupies, about."""
        return self.rows * 9 + self.used

    def unchanged(self):
        """The rows whose cell is UNCHANGED."""
        cdef Py_ssize_t row
        if not self.blanks:
            return []
        return [row for row in range(self.rows) if self.states[row] == UNCHANGED_CELL]

    # -- others made of it

    def take(self, rows):
        """These of its rows, in this order."""
        cdef Packed made = new_packed(self.kind, len(rows))
        cdef Py_ssize_t row
        cdef size_t length = 0
        for row in rows:
            if not 0 <= row < self.rows:
                raise IndexError(row)
            if self.layout == BYTES:
                length += self.ends[row] - (self.ends[row - 1] if row else 0)
        if length:
            made.make_space(length)
        for row in rows:
            made.add_from(self, row)
        return made

    def replaced(self, cells):
        """With other carriers at some rows (row -> carrier); a list where one has no form here."""
        cdef Packed made = new_packed(self.kind, self.rows)
        cdef Py_ssize_t row
        made.make_space(self.used)
        try:
            for row in range(self.rows):
                if row in cells:
                    made.add_cell(cells[row])
                else:
                    made.add_from(self, row)
        except ValueError:
            listed = self.tolist()
            for row, cell in cells.items():
                listed[row] = cell
            return listed
        return made


def readable(const uint8_t[::1] data):
    """Is this UTF-8 without NUL, as a TEXT cell must be?"""
    return data.shape[0] == 0 or is_text(&data[0], data.shape[0])


# -------------------------------------------------------------------------------------------------
# Keys

cdef inline uint64_t _mixed(uint64_t h, uint64_t v) noexcept nogil:
    h ^= v
    h *= <uint64_t> 0x9E3779B97F4A7C15
    return h ^ (h >> 29)


cdef inline uint64_t _hash(Packed column, Py_ssize_t row, uint64_t h) noexcept:
    cdef uint64_t begin, length, word
    cdef const char *p
    h = _mixed(h, column.states[row])
    if column.layout != BYTES:
        return _mixed(h, <uint64_t> column.whole[row])
    begin = column.ends[row - 1] if row else 0
    length = column.ends[row] - begin
    p = column.data + begin
    h = _mixed(h, length)
    while length >= 8:
        memcpy(&word, p, 8)
        h = _mixed(h, word)
        p += 8
        length -= 8
    word = 0
    memcpy(&word, p, length)
    return _mixed(h, word)


cdef inline bint _same(Packed column, Py_ssize_t one, Py_ssize_t other) noexcept:
    cdef uint64_t a, b, length
    if column.states[one] != column.states[other]:
        return False
    if column.layout != BYTES:
        return column.whole[one] == column.whole[other]
    a = column.ends[one - 1] if one else 0
    b = column.ends[other - 1] if other else 0
    length = column.ends[one] - a
    if length != column.ends[other] - b:
        return False
    return memcmp(column.data + a, column.data + b, length) == 0


def compares_by_bytes(kind):
    """Are two values of this kind equal exactly where their packed forms are?"""
    return kind not in (Kind.FLOAT32, Kind.FLOAT64, Kind.DECIMAL, Kind.JSON, Kind.JSON_TEXT)


cdef inline bint _stays(bytes operations, versions, Py_ssize_t row, Py_ssize_t earlier) except -1:
    """Does the earlier change of a key stand against a later one?  See `warp.compact`."""
    cdef bint reads = operations[row] == 114  # Operation.READ
    if reads:
        return versions[earlier] >= versions[row]
    return versions[earlier] > versions[row]


def last_of_each(columns, bytes operations not None, versions):
    """The row of the last change of each key, ascending; only of kinds that `compares_by_bytes`."""
    cdef list parts = list(columns)
    cdef bytearray gone
    cdef Packed part
    cdef Py_ssize_t rows = len(parts[0])
    cdef Py_ssize_t row, other, size = 16
    cdef uint64_t h, place
    cdef int32_t *table
    cdef bint equal
    while size < 2 * rows:
        size *= 2
    if rows >= 0x7FFFFFFF:
        raise ValueError("a batch of fewer than 2^31 rows was expected")
    if len(operations) != rows or len(versions) != rows:
        raise ValueError(f"an operation and a version for each of {rows} rows were expected")
    gone = bytearray(rows)
    table = <int32_t *> PyMem_RawMalloc(size * 4)
    if table == NULL:
        raise MemoryError()
    memset(table, 0xFF, size * 4)
    try:
        for row in range(rows):
            h = 0x243F6A8885A308D3
            for part in parts:
                h = _hash(part, row, h)
            place = h & <uint64_t> (size - 1)
            while table[place] >= 0:
                other = table[place]
                equal = True
                for part in parts:
                    if not _same(part, row, other):
                        equal = False
                        break
                if equal:
                    if _stays(operations, versions, row, other):
                        gone[row] = 1
                    else:
                        gone[other] = 1
                        table[place] = <int32_t> row
                    break
                place = (place + 1) & <uint64_t> (size - 1)
            else:
                table[place] = <int32_t> row
        return [row for row in range(rows) if not gone[row]]
    finally:
        PyMem_RawFree(table)


cdef struct Cell:
    const char *start
    uint64_t length     # or the number itself, where `start` is NULL
    Py_ssize_t row


cdef int by_number(const void *one, const void *other) noexcept nogil:
    cdef int64_t a = <int64_t> (<const Cell *> one).length
    cdef int64_t b = <int64_t> (<const Cell *> other).length
    return (a > b) - (a < b)


cdef int by_bytes(const void *one, const void *other) noexcept nogil:
    cdef const Cell *a = <const Cell *> one
    cdef const Cell *b = <const Cell *> other
    cdef int sign = memcmp(a.start, b.start, a.length if a.length < b.length else b.length)
    return sign if sign else (a.length > b.length) - (a.length < b.length)


def sorted_rows(Packed column):
    """The rows in the order of their cells, by number or by bytes, each of which is there once.  No
    NULL among them, and only of kinds that `compares_by_bytes`."""
    cdef Py_ssize_t row, rows = column.rows
    cdef uint64_t begin = 0
    cdef Cell *cells
    cdef int64_t[::1] places
    cdef int (*by)(const void *, const void *) noexcept nogil
    by = by_bytes if column.layout == BYTES else by_number
    if column.blanks:
        raise ValueError("a column without blank cells was expected")
    order = array("q", bytes(8 * column.rows))
    if not column.rows:
        return order
    cells = <Cell *> PyMem_RawMalloc(column.rows * sizeof(Cell))
    if cells == NULL:
        raise MemoryError()
    try:
        for row in range(column.rows):
            cells[row].row = row
            if column.layout == BYTES:
                cells[row].start = column.data + begin
                cells[row].length = column.ends[row] - begin
                begin = column.ends[row]
            else:
                cells[row].start = NULL
                cells[row].length = <uint64_t> column.whole[row]
        with nogil:
            qsort(cells, rows, sizeof(Cell), by)
        places = order
        for row in range(column.rows):
            places[row] = cells[row].row
        return order
    finally:
        PyMem_RawFree(cells)


def in_order(Packed column):
    """Does each cell come after the one before it, by its number or its bytes?  No NULL among them,
    and only of kinds that `compares_by_bytes`."""
    cdef Py_ssize_t row
    cdef uint64_t a, b, c, shorter
    cdef int sign
    if column.blanks:
        return False
    for row in range(1, column.rows):
        if column.layout != BYTES:
            if column.whole[row] <= column.whole[row - 1]:
                return False
            continue
        a = column.ends[row - 2] if row > 1 else 0
        b = column.ends[row - 1]
        c = column.ends[row]
        shorter = b - a if b - a < c - b else c - b
        sign = memcmp(column.data + a, column.data + b, shorter)
        if sign > 0 or (sign == 0 and b - a >= c - b):
            return False
    return True


# -------------------------------------------------------------------------------------------------
# PostgreSQL's binary COPY

cdef enum:
    AS_BOOL = 0
    AS_INT2 = 1
    AS_INT4 = 2
    AS_INT8 = 3
    AS_FLOAT4 = 4
    AS_FLOAT8 = 5
    AS_NUMERIC = 6
    AS_BYTES = 7        # as they are: text, bytea, uuid, json
    AS_JSONB = 8        # a version byte before them
    AS_DATE = 9         # days since 2000
    AS_MOMENT = 10      # microseconds since 2000

cdef dict AS = {
    Kind.BOOL: AS_BOOL, Kind.INT32: AS_INT4, Kind.INT64: AS_INT8, Kind.FLOAT32: AS_FLOAT4,
    Kind.FLOAT64: AS_FLOAT8, Kind.DECIMAL: AS_NUMERIC, Kind.TEXT: AS_BYTES, Kind.BYTES: AS_BYTES,
    Kind.UUID: AS_BYTES, Kind.DATE: AS_DATE, Kind.TIME: AS_INT8, Kind.DATETIME: AS_MOMENT,
    Kind.TIMESTAMP: AS_MOMENT, Kind.JSON: AS_JSONB, Kind.JSON_TEXT: AS_BYTES,
    Kind.OBJECTID: AS_BYTES, Kind.TAGGED: AS_BYTES,
}
cdef int64_t POSTGRES_DAYS = 10957
cdef int64_t POSTGRES_MICROSECONDS = 946684800000000

COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"


cdef struct Out:
    char *start
    size_t used
    size_t space


cdef int out_room(Out *out, size_t more) except -1:
    cdef void *moved
    if out.space - out.used >= more:
        return 0
    out.space = (out.used + more) * 2
    moved = PyMem_RawRealloc(out.start, out.space)
    if moved == NULL:
        raise MemoryError()
    out.start = <char *> moved
    return 0


cdef inline void out16(Out *out, uint16_t v) noexcept:
    v = swap16(v)
    memcpy(out.start + out.used, &v, 2)
    out.used += 2


cdef inline void out32(Out *out, uint32_t v) noexcept:
    v = swap32(v)
    memcpy(out.start + out.used, &v, 4)
    out.used += 4


cdef inline void out64(Out *out, uint64_t v) noexcept:
    v = swap64(v)
    memcpy(out.start + out.used, &v, 8)
    out.used += 8


cdef int out_numeric(Out *out, const char *text, Py_ssize_t length) except -1:
    """The text of a Decimal as PostgreSQL's numeric, digit for digit; OverflowError where it has no such form.

    Layout: numeric_send() of PostgreSQL: ndigits, weight, sign, dscale, then digits of base 10000.
    """
    cdef Py_ssize_t at = 0, point = -1, digits = 0, first = -1, i, place
    cdef bint negative = False, below = False
    cdef long exponent = 0
    cdef char c
    cdef Py_ssize_t whole, scale, weight, groups, lead, g, k, number, nonzero_last
    cdef uint32_t group
    cdef Py_ssize_t start_digits
    if length and (text[0] == b"-" or text[0] == b"+"):
        negative = text[0] == b"-"
        at = 1
    if at < length and (text[at] == b"N" or text[at] == b"I"):
        out_room(out, 12)
        out32(out, 8)
        out16(out, 0)
        out16(out, 0)
        if length - at == 3 and memcmp(text + at, b"NaN", 3) == 0:
            out16(out, 0xC000)
        elif length - at == 8 and memcmp(text + at, b"Infinity", 8) == 0:
            out16(out, 0xF000 if negative else 0xD000)
        else:
            raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
        out16(out, 0)
        return 0
    start_digits = at
    while at < length:
        c = text[at]
        if b"0" <= c <= b"9":
            digits += 1
        elif c == b"." and point < 0:
            point = digits
        elif c == b"E" or c == b"e":
            at += 1
            if at < length and (text[at] == b"-" or text[at] == b"+"):
                below = text[at] == b"-"
                at += 1
            if at == length:
                raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
            while at < length:
                c = text[at]
                if not b"0" <= c <= b"9" or exponent > 100000:
                    raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
                exponent = exponent * 10 + (c - 48)
                at += 1
            if below:
                exponent = -exponent
            break
        else:
            raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
        at += 1
    if digits == 0:
        raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
    if point < 0:
        point = digits
    # `whole` digits stand before the decimal point, and may be negative or beyond the digits.
    whole = point + exponent
    scale = digits - whole
    if scale < 0:
        scale = 0
    if scale > 16383 or whole > 131072:
        raise OverflowError(f"PostgreSQL's numeric has no {text[:length].decode()}")
    # Groups of four digits, aligned at the decimal point: digit d has place whole - 1 - d.
    # The most significant group holds place whole - 1.
    if whole > 0:
        weight = (whole - 1) // 4
    else:
        weight = -((-whole) // 4 + 1)
    # In digits, how far the first digit of the text is from the start of that group.
    lead = (weight + 1) * 4 - whole
    groups = (lead + digits + 3) // 4
    out_room(out, 12 + 2 * groups)
    place = out.used
    out.used += 12
    number = 0
    nonzero_last = 0
    at = start_digits
    k = -lead
    for g in range(groups):
        group = 0
        for i in range(4):
            group *= 10
            if 0 <= k < digits:
                if text[at] == b".":
                    at += 1
                group += text[at] - 48
                at += 1
            k += 1
        if group == 0 and number == 0:
            weight -= 1  # leading zeros are not sent
            continue
        out16(out, <uint16_t> group)
        number += 1
        if group:
            nonzero_last = number
    out.used -= 2 * (number - nonzero_last)  # nor trailing ones
    number = nonzero_last
    if number == 0:
        weight = 0
        negative = False
    i = out.used
    out.used = place
    out32(out, <uint32_t> (8 + 2 * number))
    out16(out, <uint16_t> number)
    out16(out, <uint16_t> <int16_t> weight)
    out16(out, 0x4000 if negative else 0)
    out16(out, <uint16_t> scale)
    out.used = i
    return 0


def copy_rows(
    columns,
    Py_ssize_t start=0,
    stop=None,
    *,
    const int64_t[::1] order=None,
    wire=None,
    bytes tail=b"",
    int tail_fields=0,
):
    """Rows start to stop as binary COPY takes them, without COPY_HEAD and COPY_END.

    Of the columns as they are, or of their rows in another `order`, with each there once.

    Each cell goes as its kind is spelt at PostgreSQL; `wire` says otherwise for a column
    (place -> "int2" or "int4", of a column of whole numbers).  `tail` is added to every row: the
    bytes of `tail_fields` more fields, the same for all.  NULL is written for UNCHANGED and
    ABSENT: who must keep such cells has looked for them before.  OverflowError where PostgreSQL has
    no such value.
    """
    cdef list parts = list(columns)
    cdef Py_ssize_t width = len(parts)
    cdef Py_ssize_t number, row, place, last, rows = len(parts[0]) if parts else 0
    cdef Packed part
    cdef Out out
    cdef uint8_t state
    cdef uint64_t begin, length
    cdef int64_t value
    cdef double real
    cdef float single
    cdef uint32_t word
    cdef int as_
    cdef int forms[1700]
    cdef uint16_t fields = <uint16_t> (width + tail_fields)
    cdef const char *tail_start = PyBytes_AS_STRING(tail)
    cdef Py_ssize_t tail_length = PyBytes_GET_SIZE(tail)
    if width > 1690:
        raise ValueError("at most 1,690 columns were expected: a table cannot have more")
    for place in range(width):
        part = <Packed?> parts[place]
        if part.rows != rows:
            raise ValueError(f"columns of {rows} rows were expected, found one of {part.rows}")
        forms[place] = AS[part.kind]
        if wire is not None and place in wire:
            forms[place] = {"int2": AS_INT2, "int4": AS_INT4}[wire[place]]
            if part.layout != WHOLE:
                raise ValueError("a column of whole numbers was expected")
    last = rows if stop is None else min(<Py_ssize_t> stop, rows)
    if order is not None and order.shape[0] != rows:
        raise ValueError(f"an order of {rows} rows was expected, found one of {order.shape[0]}")
    out.used = 0
    out.space = 1 << 16
    out.start = <char *> PyMem_RawMalloc(out.space)
    if out.start == NULL:
        raise MemoryError()
    try:
        for number in range(start, last):
            breathe(number)
            row = number
            if order is not None:
                row = order[number]
                if not 0 <= row < rows:
                    raise IndexError(row)
            out_room(&out, 2 + 12 * width + tail_length)
            out16(&out, fields)
            for place in range(width):
                part = <Packed> parts[place]
                out_room(&out, 12)
                state = part.states[row]
                if state != VALUE:
                    out32(&out, 0xFFFFFFFF)
                    continue
                as_ = forms[place]
                if as_ == AS_BYTES or as_ == AS_JSONB:
                    begin = part.ends[row - 1] if row else 0
                    length = part.ends[row] - begin
                    if length > 0x7FFFFFF0:
                        raise OverflowError("a cell of less than 2 GB was expected")
                    out_room(&out, length + 17)
                    if as_ == AS_JSONB:
                        out32(&out, <uint32_t> length + 1)
                        out.start[out.used] = 1
                        out.used += 1
                    else:
                        out32(&out, <uint32_t> length)
                    memcpy(out.start + out.used, part.data + begin, length)
                    out.used += length
                elif as_ == AS_NUMERIC:
                    begin = part.ends[row - 1] if row else 0
                    out_numeric(&out, part.data + begin, part.ends[row] - begin)
                elif as_ == AS_FLOAT8:
                    out32(&out, 8)
                    out64(&out, <uint64_t> part.whole[row])
                elif as_ == AS_FLOAT4:
                    memcpy(&real, &part.whole[row], 8)
                    single = <float> real
                    memcpy(&word, &single, 4)
                    out32(&out, 4)
                    out32(&out, word)
                else:
                    value = part.whole[row]
                    if as_ == AS_INT8:
                        out32(&out, 8)
                        out64(&out, <uint64_t> value)
                    elif as_ == AS_MOMENT:
                        if value < -0x7FF0000000000000:
                            raise OverflowError("a moment that PostgreSQL holds was expected")
                        out32(&out, 8)
                        out64(&out, <uint64_t> (value - POSTGRES_MICROSECONDS))
                    elif as_ == AS_BOOL:
                        out32(&out, 1)
                        out.start[out.used] = value != 0
                        out.used += 1
                    else:
                        if as_ == AS_DATE:
                            value -= POSTGRES_DAYS
                        if as_ == AS_INT2:
                            if not -0x8000 <= value <= 0x7FFF:
                                raise OverflowError(value)
                            out32(&out, 2)
                            out16(&out, <uint16_t> <int16_t> value)
                        else:
                            if not -0x80000000 <= value <= 0x7FFFFFFF:
                                raise OverflowError(value)
                            out32(&out, 4)
                            out32(&out, <uint32_t> <int32_t> value)
            out_room(&out, tail_length)
            memcpy(out.start + out.used, tail_start, tail_length)
            out.used += tail_length
        return PyBytes_FromStringAndSize(out.start, out.used)
    finally:
        PyMem_RawFree(out.start)
