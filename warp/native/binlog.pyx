# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Rows of the binary log of MySQL and MariaDB, from an event's bytes into packed columns.

`warp.sources.mysql.binlog` is the reference: an event that is not surely read here as it would be
there is not taken at all, and a cell that is not is read there by itself (guarantee 4).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from warp.native.calendar cimport NO_DAY, days_of
from warp.native.packed cimport (
    ABSENT_CELL,
    NULL_CELL,
    UNCHANGED_CELL,
    Packed,
    is_text,
    new_packed,
)

from warp.model import Invalid, Kind

cdef enum:
    OTHER = 0        # by the reference, cell by cell
    INTEGER = 1
    BIG = 2          # an unsigned BIGINT, as DECIMAL
    SINGLE = 3
    DOUBLE = 4
    YEAR = 5
    DECIMAL = 6
    BITS = 7         # INT64 or BOOL
    DATE = 8
    DATETIME = 9
    TIMESTAMP = 10
    TIME = 11
    TEXT = 12        # UTF-8
    ASCII_TEXT = 13  # of a character set that holds ASCII as it is
    PLAIN = 14       # bytes
    PADDED = 15      # bytes, whose zeros at the end are not in the log
    CHOICE = 16

cdef dict CODES = {
    "other": OTHER, "integer": INTEGER, "big": BIG, "single": SINGLE, "double": DOUBLE,
    "year": YEAR, "decimal": DECIMAL, "bits": BITS, "date": DATE, "datetime": DATETIME,
    "timestamp": TIMESTAMP, "time": TIME, "text": TEXT, "ascii": ASCII_TEXT, "plain": PLAIN,
    "padded": PADDED, "choice": CHOICE,
}

cdef struct Span:
    const uint8_t *start   # of the length before the value, where there is one
    const uint8_t *value
    size_t size            # of the value
    bint there
    bint null

cdef struct How:
    int code
    int column             # which of the columns that are made; -1: left out
    int fixed              # bytes of a value; 0: its length stands before it
    int prefix             # bytes of that length
    int size               # digits of a decimal, of a fraction; bytes of a padded value
    int scale
    bint unsigned
    bint key

cdef int64_t DAY_US = 86400000000
cdef uint64_t[10] POWERS
POWERS[:] = [1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000]
cdef int[10] DIGIT_BYTES
DIGIT_BYTES[:] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
cdef object _Invalid = Invalid
cdef object _TEXT = Kind.TEXT


cdef inline uint64_t big_endian(const uint8_t *p, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int at
    for at in range(size):
        value = value << 8 | p[at]
    return value


cdef inline uint64_t little_endian(const uint8_t *p, int size) noexcept nogil:
    cdef uint64_t value = 0
    cdef int at
    for at in range(size):
        value |= <uint64_t> p[at] << (8 * at)
    return value


# Each of these takes one cell; 0 where it is not surely what the reference would make of it.

cdef int take_integer(Packed column, const uint8_t *p, int size, bint unsigned) except -1:
    cdef uint64_t value = little_endian(p, size)
    if not unsigned and size < 8 and value >> (8 * size - 1):
        column.add_whole(<int64_t> value - (<int64_t> 1 << (8 * size)))
    else:
        column.add_whole(<int64_t> value)
    return 1


cdef int take_big(Packed column, uint64_t value) except -1:
    cdef char text[24]
    cdef int place = 24
    while True:
        place -= 1
        text[place] = <char> (48 + value % 10)
        value //= 10
        if value == 0:
            break
    column.add_bytes(text + place, 24 - place)
    return 1


cdef inline char *put_digits(char *out, uint64_t value, int width) noexcept nogil:
    cdef int place = width
    while place > 0:
        place -= 1
        out[place] = <char> (48 + value % 10)
        value //= 10
    return out + width


cdef int take_decimal(Packed column, const uint8_t *p, int size, int digits, int scale) except -1:
    """Groups of nine digits in four bytes, big endian; negative ones inverted."""
    cdef uint8_t groups[48]
    cdef char text[128]
    cdef char *out = text
    cdef char *first
    cdef int at, width, place = 0, left = digits - scale
    cdef uint64_t value
    cdef bint negative = not p[0] & 0x80, zero = True
    for at in range(size):
        groups[at] = p[at] ^ (0xFF if negative else 0)
    groups[0] ^= 0x80
    out[0] = b"-"
    out += 1
    while left > 0:
        width = left % 9
        if width == 0:
            width = 9
        value = big_endian(groups + place, DIGIT_BYTES[width])
        if value >= POWERS[width]:
            return 0
        zero = zero and value == 0
        out = put_digits(out, value, width)
        place += DIGIT_BYTES[width]
        left -= width
    if digits == scale:
        out[0] = b"0"
        out += 1
    first = text + 1
    while first + 1 < out and first[0] == b"0":
        first += 1
    if scale:
        out[0] = b"."
        out += 1
        left = scale
        while left > 0:
            width = 9 if left > 9 else left
            value = big_endian(groups + place, DIGIT_BYTES[width])
            if value >= POWERS[width]:
                return 0
            zero = zero and value == 0
            out = put_digits(out, value, width)
            place += DIGIT_BYTES[width]
            left -= width
    if negative and not zero:
        first -= 1
        first[0] = b"-"
    column.add_bytes(first, out - first)
    return 1


cdef int take_datetime(Packed column, const uint8_t *p, int size) except -1:
    cdef uint64_t v = big_endian(p, 5)
    cdef int64_t month = v >> 22 & 0x1FFFF, fraction = 0, day
    day = days_of(month // 13, month % 13, v >> 17 & 31)
    if day == NO_DAY:
        return 0
    if size:
        fraction = big_endian(p + 5, size) * POWERS[6 - 2 * size]
    column.add_whole(
        day * DAY_US
        + <int64_t> ((v >> 12 & 31) * 3600 + (v >> 6 & 63) * 60 + (v & 63)) * 1000000
        + fraction
    )
    return 1


cdef int take_time(Packed column, const uint8_t *p, int size, int digits) except -1:
    """`-838:59:59.000000`: a span, not a time of day."""
    cdef int64_t v = <int64_t> big_endian(p, 3 + size) - (<int64_t> 1 << (8 * (3 + size) - 1))
    cdef uint64_t packed = -v if v < 0 else v, seconds, hours, fraction
    cdef char text[32]
    cdef char *out = text
    cdef char part[8]
    seconds = packed >> (8 * size)
    fraction = (packed & ((<uint64_t> 1 << (8 * size)) - 1)) * POWERS[6 - 2 * size]
    if fraction > 999999:
        return 0
    if v < 0:
        out[0] = b"-"
        out += 1
    hours = seconds >> 12 & 0x3FF
    out = put_digits(out, hours, 4 if hours > 999 else 3 if hours > 99 else 2)
    out[0] = b":"
    out = put_digits(out + 1, seconds >> 6 & 63, 2)
    out[0] = b":"
    out = put_digits(out + 1, seconds & 63, 2)
    if digits:
        put_digits(part, fraction, 6)
        out[0] = b"."
        memcpy(out + 1, part, digits)
        out += 1 + digits
    column.add_bytes(text, out - text)
    return 1


cdef bint is_ascii(const uint8_t *p, size_t size) noexcept nogil:
    """And without NUL."""
    cdef size_t at
    for at in range(size):
        if p[at] == 0 or p[at] >= 0x80:
            return False
    return True


cdef class Plan:
    """How the rows of one table map are read."""

    cdef How *how
    cdef Span *before
    cdef Span *after
    cdef Py_ssize_t count
    cdef readonly list kinds  # of the columns that are made
    cdef list cells           # what reads one value: the reference
    cdef list choices         # of an enum: its values in UTF-8

    def __cinit__(self):
        self.how = NULL
        self.before = NULL
        self.after = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.how)
        PyMem_RawFree(self.before)
        PyMem_RawFree(self.after)

    def __init__(self, columns):
        """Each as (code, kind or None, fixed, prefix, size, scale, unsigned, key, cell, values)."""
        cdef list listed = list(columns)
        cdef How *how
        cdef Py_ssize_t place
        if self.how != NULL:
            raise ValueError("to be made once")
        self.count = len(listed)
        self.how = <How *> PyMem_RawMalloc((self.count + 1) * sizeof(How))
        self.before = <Span *> PyMem_RawMalloc((self.count + 1) * sizeof(Span))
        self.after = <Span *> PyMem_RawMalloc((self.count + 1) * sizeof(Span))
        if self.how == NULL or self.before == NULL or self.after == NULL:
            raise MemoryError()
        self.kinds = []
        self.cells = []
        self.choices = []
        for place, (code, kind, fixed, prefix, size, scale, unsigned, key, cell, values) in (
            enumerate(listed)
        ):
            how = &self.how[place]
            how.code = CODES[code]
            how.column = -1
            how.fixed, how.prefix, how.size, how.scale = fixed, prefix, size, scale
            how.unsigned, how.key = unsigned, key
            if not (1 <= fixed <= 64 if not prefix else fixed == 0 and 1 <= prefix <= 4):
                raise ValueError(f"a size of 1 to 64 bytes, or a length of 1 to 4, for {kind}")
            if how.code == DECIMAL and not (0 <= scale <= size <= 81 and 1 <= size):
                raise ValueError(f"a decimal of 1 to 81 digits, for {size}")
            if how.code in (DATETIME, TIMESTAMP, TIME) and not 0 <= size <= 6:
                raise ValueError(f"a fraction of 0 to 6 digits, for {size}")
            if how.code in (INTEGER, BIG, BITS) and fixed > 8:
                raise ValueError(f"a whole number of at most 8 bytes, for {fixed}")
            if kind is not None:
                how.column = len(self.kinds)
                self.kinds.append(kind)
            self.cells.append(cell)
            self.choices.append(values)

    cdef const uint8_t *image(
        self, const uint8_t *p, const uint8_t *end, const uint8_t *there, Span *spans
    ) noexcept:
        """Where the cells of one row lie; after it, or NULL where they are not all in it."""
        cdef const uint8_t *nulls = p
        cdef Py_ssize_t place, present = 0, bit = 0
        cdef size_t size
        cdef Span *span
        cdef How *how
        for place in range(self.count):
            spans[place].there = there[place >> 3] >> (place & 7) & 1
            present += spans[place].there
        if present == 0 or end - p < (present + 7) >> 3:
            return NULL
        p += (present + 7) >> 3
        for place in range(self.count):
            span = &spans[place]
            if not span.there:
                continue
            span.null = nulls[bit >> 3] >> (bit & 7) & 1
            bit += 1
            if span.null:
                continue
            how = &self.how[place]
            span.start = p
            if how.prefix:
                if end - p < how.prefix:
                    return NULL
                size = little_endian(p, how.prefix)
                p += how.prefix
            else:
                size = how.fixed
            if <size_t> (end - p) < size:
                return NULL
            span.value = p
            span.size = size
            p += size
        return p


cdef class Filling:
    """Columns that grow by the rows of events."""

    cdef list kinds
    cdef list columns
    cdef list odd             # of each column: row -> its carrier, where it has no packed form
    cdef readonly Py_ssize_t rows

    def __init__(self, kinds):
        self.kinds = list(kinds)
        self.columns = [new_packed(kind, 16) for kind in self.kinds]
        self.odd = [None] * len(self.kinds)
        self.rows = 0

    def columns_made(self):
        """The columns; nothing may be added afterwards."""
        return [
            (<Packed> column).replaced(odd) if odd else column
            for column, odd in zip(self.columns, self.odd)
        ]

    def add_rows(self, rows):
        """Rows of carriers, as the reference gives them."""
        cdef Py_ssize_t place
        cdef Py_ssize_t width = len(self.columns)
        for row in rows:
            if len(row) != width:
                raise ValueError(f"a row of {width} cells was expected, found {len(row)}")
            for place in range(width):
                self._put(place, row[place])
            self.rows += 1

    cdef int _put(self, Py_ssize_t place, object cell) except -1:
        cdef Packed column = <Packed> self.columns[place]
        try:
            column.add_cell(cell)
        except ValueError:
            if self.odd[place] is None:
                self.odd[place] = {}
            if column.kind is _TEXT and type(cell) is str and "\0" in cell:
                cell = _Invalid(cell)  # no text that every destination takes
            self.odd[place][self.rows] = cell
            column.add_blank(NULL_CELL)
        return 0

    cdef int _cut(self, Py_ssize_t rows) except -1:
        cdef Packed column
        cdef Py_ssize_t place
        for place in range(len(self.columns)):
            column = <Packed> self.columns[place]
            column.cut(rows)
            if self.odd[place]:
                self.odd[place] = {
                    row: cell for row, cell in self.odd[place].items() if row < rows
                }
        self.rows = rows
        return 0

    cdef int _take(self, Plan plan, Py_ssize_t place, Span *span) except -1:
        """One cell that is there."""
        cdef How *how = &plan.how[place]
        cdef Packed column = <Packed> self.columns[how.column]
        cdef const uint8_t *p = span.value
        cdef size_t size = span.size
        cdef int code = how.code, taken = 0, bytes_of_fraction
        cdef int64_t value
        cdef float single
        cdef double real
        cdef bytes chosen
        cdef list values
        if span.null:
            return column.add_blank(NULL_CELL)
        if code == INTEGER:
            taken = take_integer(column, p, how.fixed, how.unsigned)
        elif code == TEXT:
            if is_text(p, size):
                column.add_bytes(<const char *> p, size)
                taken = 1
        elif code == PLAIN:
            column.add_bytes(<const char *> p, size)
            taken = 1
        elif code == DECIMAL:
            taken = take_decimal(column, p, how.fixed, how.size, how.scale)
        elif code == DATETIME:
            taken = take_datetime(column, p, (how.size + 1) // 2)
        elif code == TIMESTAMP:
            bytes_of_fraction = (how.size + 1) // 2
            value = <int64_t> big_endian(p, 4) * 1000000
            if bytes_of_fraction:
                value += big_endian(p + 4, bytes_of_fraction) * POWERS[6 - 2 * bytes_of_fraction]
            if value:
                column.add_whole(value)
                taken = 1
        elif code == DOUBLE:
            memcpy(&real, p, 8)
            column.add_real(real)
            taken = 1
        elif code == SINGLE:
            memcpy(&single, p, 4)
            column.add_real(single)
            taken = 1
        elif code == DATE:
            value = little_endian(p, 3)
            value = days_of(value >> 9, value >> 5 & 15, value & 31)
            if value != NO_DAY:
                column.add_whole(value)
                taken = 1
        elif code == CHOICE:
            value = little_endian(p, how.fixed)
            values = <list> plan.choices[place]
            if value < len(values):
                chosen = <bytes> values[value]
                column.add_bytes(PyBytes_AS_STRING(chosen), PyBytes_GET_SIZE(chosen))
                taken = 1
        elif code == BITS:
            if how.size == 1:
                column.add_whole(big_endian(p, how.fixed) != 0)
                taken = 1
            elif not (how.fixed == 8 and p[0] & 0x80):
                column.add_whole(<int64_t> big_endian(p, how.fixed))
                taken = 1
        elif code == YEAR:
            column.add_whole(p[0] + 1900 if p[0] else 0)
            taken = 1
        elif code == BIG:
            taken = take_big(column, little_endian(p, 8))
        elif code == TIME:
            taken = take_time(column, p, (how.size + 1) // 2, how.size)
        elif code == ASCII_TEXT:
            if is_ascii(p, size):
                column.add_bytes(<const char *> p, size)
                taken = 1
        elif code == PADDED:
            if size <= <size_t> how.size:
                column.make_space(how.size)
                memcpy(column.data + column.used, p, size)
                memset(column.data + column.used + size, 0, how.size - size)
                column.add_written(how.size)
                taken = 1
        if not taken:
            self._put(
                how.column,
                plan.cells[place](
                    PyBytes_FromStringAndSize(<const char *> span.start, p + size - span.start)
                ),
            )
        return 0

    def insert(
        self,
        Plan plan,
        const uint8_t[::1] event,
        size_t start,
        size_t end,
        const uint8_t[::1] there,
        bint deleted,
    ):
        """The rows of an event that has one image of each; how many, or -1 where none was taken."""
        self._check(plan, event, start, end, there)
        return self._insert(plan, &event[0] + start, &event[0] + end, &there[0], deleted)

    cdef Py_ssize_t _insert(
        self, Plan plan, const uint8_t *p, const uint8_t *last, const uint8_t *there, bint deleted
    ) except -2:
        cdef Py_ssize_t before = self.rows, place
        try:
            while p < last:
                p = plan.image(p, last, there, plan.after)
                if p == NULL:
                    self._cut(before)
                    return -1
                for place in range(plan.count):
                    if plan.how[place].column < 0:
                        continue
                    if plan.after[place].there:
                        self._take(plan, place, &plan.after[place])
                    else:
                        (<Packed> self.columns[plan.how[place].column]).add_blank(
                            ABSENT_CELL if deleted else UNCHANGED_CELL
                        )
                self.rows += 1
        except BaseException:
            self._cut(before)
            raise
        return self.rows - before

    def update(
        self,
        Plan plan,
        const uint8_t[::1] event,
        size_t start,
        size_t end,
        const uint8_t[::1] there_before,
        const uint8_t[::1] there_after,
    ):
        """The rows of an UPDATE; -1 also where a key may have changed."""
        self._check(plan, event, start, end, there_before)
        self._check(plan, event, start, end, there_after)
        return self._update(
            plan, &event[0] + start, &event[0] + end, &there_before[0], &there_after[0]
        )

    cdef Py_ssize_t _update(
        self,
        Plan plan,
        const uint8_t *p,
        const uint8_t *last,
        const uint8_t *there_before,
        const uint8_t *there_after,
    ) except -2:
        cdef Py_ssize_t before = self.rows, place
        cdef Span *old
        cdef Span *new
        try:
            while p < last:
                p = plan.image(p, last, there_before, plan.before)
                if p != NULL:
                    p = plan.image(p, last, there_after, plan.after)
                if p == NULL:
                    self._cut(before)
                    return -1
                for place in range(plan.count):
                    if plan.how[place].column < 0:
                        continue
                    old, new = &plan.before[place], &plan.after[place]
                    if plan.how[place].key and old.there and new.there and not same(old, new):
                        self._cut(before)
                        return -1
                    if new.there:
                        self._take(plan, place, new)
                    elif old.there:
                        self._take(plan, place, old)
                    else:
                        (<Packed> self.columns[plan.how[place].column]).add_blank(UNCHANGED_CELL)
                self.rows += 1
        except BaseException:
            self._cut(before)
            raise
        return self.rows - before

    cdef int _check(
        self,
        Plan plan,
        const uint8_t[::1] event,
        size_t start,
        size_t end,
        const uint8_t[::1] there,
    ) except -1:
        if not start < end <= <size_t> event.shape[0]:
            raise ValueError("a part of the event was expected")
        if there.shape[0] != (plan.count + 7) // 8 or plan.kinds != self.kinds:
            raise ValueError("images of the columns of the plan were expected")
        return 0


cdef bint same(Span *one, Span *other) noexcept:
    if one.null or other.null:
        return one.null == other.null
    return one.size == other.size and memcmp(one.value, other.value, one.size) == 0


# -------------------------------------------------------------------------------------------------
# Whole transactions

cdef uint32_t CRC[8][256]
cdef uint32_t POLYNOMIAL = 0xEDB88320


cdef void _make_table() noexcept:
    cdef uint32_t value
    cdef int byte, bit, slice
    for byte in range(256):
        value = byte
        for bit in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else <uint32_t> 0)
        CRC[0][byte] = value
    for byte in range(256):
        for slice in range(1, 8):
            CRC[slice][byte] = CRC[slice - 1][byte] >> 8 ^ CRC[0][CRC[slice - 1][byte] & 0xFF]


_make_table()


cdef uint32_t crc_of(const uint8_t *p, size_t size) noexcept nogil:
    """CRC-32 as zlib has it, eight bytes at once."""
    cdef uint32_t crc = 0xFFFFFFFF, low, high
    while size >= 8:
        memcpy(&low, p, 4)
        memcpy(&high, p + 4, 4)
        low ^= crc
        crc = (
            CRC[7][low & 0xFF] ^ CRC[6][low >> 8 & 0xFF] ^ CRC[5][low >> 16 & 0xFF]
            ^ CRC[4][low >> 24] ^ CRC[3][high & 0xFF] ^ CRC[2][high >> 8 & 0xFF]
            ^ CRC[1][high >> 16 & 0xFF] ^ CRC[0][high >> 24]
        )
        p += 8
        size -= 8
    while size:
        crc = crc >> 8 ^ CRC[0][(crc ^ p[0]) & 0xFF]
        p += 1
        size -= 1
    return ~crc


def crc32(const uint8_t[::1] data):
    """For the test that it is zlib's."""
    return crc_of(&data[0], data.shape[0]) if data.shape[0] else 0


cdef enum:
    E_QUERY = 2
    E_XID = 16
    E_TABLE_MAP = 19
    E_ROWS_QUERY = 29
    E_GTID = 33
    E_ANNOTATE = 160
    E_MARIADB_GTID = 162
    MAPS = 16            # table maps of one transaction
    NOT_SIMPLE = 0xE1    # of MariaDB's flags: standalone, DDL, either part of XA

cdef uint32_t RESIDUE = 0x2144DF1C  # the CRC-32 of anything followed by its own


cdef class Target:
    """Where the rows of one table map go, in one batch."""

    cdef Plan plan
    cdef Filling filling
    cdef bytearray operations
    cdef list versions
    cdef list sets       # of inserts, updates, deletes: the columns that are there, or None
    cdef int codes[3]    # what such rows are called
    cdef Py_ssize_t before  # rows before the transaction at hand


cdef class Transactions:
    """Small transactions that lie whole in the buffer and are like ones that were seen before.

    Whatever is not just so (another statement, another shape of rows, a damaged byte, a gap) is
    left where it is, with its whole transaction, for the reference to read.
    """

    cdef dict targets
    cdef readonly size_t start        # of what was not taken
    cdef readonly int sequence
    cdef readonly uint32_t position   # in the log file: the end of the last transaction taken
    cdef readonly Py_ssize_t count    # transactions taken
    cdef readonly Py_ssize_t rows
    cdef readonly size_t size         # bytes of the events with their rows
    cdef readonly int64_t number      # of the last one: its sequence, or its number
    cdef readonly uint32_t server     # of the last one (MariaDB)
    cdef readonly int64_t version
    cdef readonly double committed_at

    def __init__(self):
        self.targets = {}

    def forget(self):
        """Another batch, or tables that are not as they were."""
        self.targets.clear()

    def know(
        self,
        bytes body,
        int sort,
        bytes there,
        Plan plan,
        Filling filling,
        bytearray operations,
        list versions,
        int code,
    ):
        """Rows that were packed: of this table map, INSERT 0, UPDATE 1 or DELETE 2, so marked."""
        cdef Target target = <Target> self.targets.get(body)
        if target is None or target.filling is not filling or target.plan is not plan:
            target = Target.__new__(Target)
            target.plan, target.filling = plan, filling
            target.operations, target.versions = operations, versions
            target.sets = [None, None, None]
            self.targets[body] = target
        if not 0 <= sort <= 2 or len(there) < (2 if sort == 1 else 1) * ((plan.count + 7) // 8):
            raise ValueError("a set of columns was expected")
        target.sets[sort] = there
        target.codes[sort] = code

    def take(
        self,
        const uint8_t[::1] buffer,
        size_t start,
        size_t end,
        int sequence,
        uint32_t position,
        uint32_t domain,
        const uint8_t[::1] source,
        int64_t number,
        int64_t version,
        Py_ssize_t rows,
        size_t size,
        Py_ssize_t most_rows,
        size_t most_bytes,
    ):
        """Take transactions until a batch is full or one is not simple.

        The last transaction before was `number` of `domain` (MariaDB, where `source` is empty), or
        of the UUID `source`; `version` is what its rows have.
        """
        cdef size_t after
        if not start <= end <= <size_t> buffer.shape[0] or source.shape[0] not in (0, 16):
            raise ValueError("a part of the buffer was expected")
        self.start, self.sequence, self.position = start, sequence, position
        self.number, self.version, self.count = number, version, 0
        self.rows, self.size = rows, size
        if not self.targets or start == end:
            return
        while self.rows < most_rows and self.size < most_bytes:
            after = self._one(
                &buffer[0], end, domain, &source[0] if source.shape[0] else NULL, most_rows
            )
            if after == 0:
                break
            self.start = after
            self.count += 1

    cdef size_t _one(
        self,
        const uint8_t *base,
        size_t end,
        uint32_t domain,
        const uint8_t *source,
        Py_ssize_t most_rows,
    ) except? 0:
        """Where the next transaction ends, once it is taken; 0 where it is not."""
        cdef size_t at = self.start, length, size, sizes = 0
        cdef const uint8_t *event
        cdef int kind, sequence = self.sequence, maps = 0, place
        cdef uint32_t position = self.position, next_position, server = 0
        cdef bint begun = False, opened = source == NULL
        cdef int64_t number = 0, version = 0
        cdef double committed_at = 0
        cdef uint64_t ids[MAPS]
        cdef uint64_t table
        cdef list mapped = []   # the targets, as `ids` has them
        cdef Target target
        cdef Py_ssize_t added, rows = 0
        try:
            while True:
                if end - at < 4 + 1 + 19 + 4:
                    break
                length = base[at] | base[at + 1] << 8 | <size_t> base[at + 2] << 16
                if length == 0xFFFFFF or end - at - 4 < length or length < 1 + 19 + 4:
                    break
                if base[at + 3] != sequence or base[at + 4] != 0:
                    break
                sequence = (sequence + 1) & 0xFF
                event = base + at + 5
                size = length - 1
                at += 4 + length
                if little_endian(event + 9, 4) != size or crc_of(event, size) != RESIDUE:
                    break
                next_position = <uint32_t> little_endian(event + 13, 4)
                if next_position < position:
                    break
                position = next_position
                kind = event[4]
                size -= 4
                if not begun:
                    if source == NULL:
                        if kind != E_MARIADB_GTID or size < 32 or event[31] & NOT_SIMPLE:
                            break
                        if <uint32_t> little_endian(event + 27, 4) != domain:
                            break
                        number = <int64_t> little_endian(event + 19, 8)
                        if number <= self.number:
                            break
                        server = <uint32_t> little_endian(event + 5, 4)
                        version = self.version + (number - self.number)
                        committed_at = <double> little_endian(event, 4)
                    else:
                        if kind != E_GTID or size < 68 or event[44] != 2:
                            break
                        number = <int64_t> little_endian(event + 36, 8)
                        if memcmp(event + 20, source, 16) != 0 or number != self.number + 1:
                            break
                        version = self.version + 1
                        committed_at = (
                            <double> (little_endian(event + 61, 7) & ((<uint64_t> 1 << 55) - 1))
                        ) / 1e6
                    begun = True
                elif kind == E_QUERY:
                    if opened or size < 38 or memcmp(event + size - 6, b"\0BEGIN", 6) != 0:
                        break
                    opened = True
                elif not opened:
                    break
                elif kind == E_ANNOTATE or kind == E_ROWS_QUERY:
                    pass
                elif kind == E_TABLE_MAP:
                    if size < 28 or maps == MAPS:
                        break
                    found = self.targets.get(
                        PyBytes_FromStringAndSize(<const char *> event + 25, size - 25)
                    )
                    if found is None:
                        break
                    target = <Target> found
                    ids[maps] = little_endian(event + 19, 6)
                    maps += 1
                    if target not in mapped:
                        target.before = target.filling.rows
                    mapped.append(target)
                elif 23 <= kind <= 25 or 30 <= kind <= 32:
                    if size < 29:
                        break
                    table = little_endian(event + 19, 6)
                    place = maps - 1
                    while place >= 0 and ids[place] != table:
                        place -= 1
                    if place < 0:
                        break
                    target = <Target> mapped[place]
                    added = self._rows(
                        target, kind - 23 if kind < 30 else kind - 30, event, size, kind >= 30,
                        version,
                    )
                    if added < 0:
                        break
                    rows += added
                    if self.rows + rows >= 4 * most_rows:
                        break  # perhaps it must end amid the transaction
                    sizes += size + 4
                elif kind == E_XID:
                    self.sequence, self.position = sequence, position
                    self.number, self.version, self.server = number, version, server
                    self.committed_at = committed_at
                    self.rows += rows
                    self.size += sizes
                    return at
                else:
                    break
        except BaseException:
            self._undo(mapped)
            raise
        self._undo(mapped)
        return 0

    cdef Py_ssize_t _rows(
        self,
        Target target,
        int sort,
        const uint8_t *event,
        size_t size,
        bint second_form,
        int64_t version,
    ) except -2:
        cdef size_t place = 27
        cdef Py_ssize_t added, row
        cdef size_t width, bits = (target.plan.count + 7) // 8
        cdef bytes there
        cdef const uint8_t *sets
        if second_form:
            place += little_endian(event + 27, 2)
        known = target.sets[sort]
        if known is None:
            return -1
        there = <bytes> known
        width = PyBytes_GET_SIZE(there)
        if place >= size or size - place <= width:
            return -1
        sets = <const uint8_t *> PyBytes_AS_STRING(there)
        if memcmp(event + place, sets, width) != 0:
            return -1
        place += width
        if sort == 1:
            added = target.filling._update(
                target.plan, event + place, event + size, sets + width - 2 * bits,
                sets + width - bits,
            )
        else:
            added = target.filling._insert(
                target.plan, event + place, event + size, sets + width - bits, sort == 2
            )
        for row in range(added):
            target.operations.append(target.codes[sort])
            target.versions.append(version)
        return added

    cdef int _undo(self, list mapped) except -1:
        cdef Target target
        for each in mapped:
            target = <Target> each
            target.filling._cut(target.before)
            del target.operations[target.before:]
            del target.versions[target.before:]
        return 0
