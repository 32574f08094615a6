# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""BSON documents to packed columns, and to JSON text, in one pass over their bytes.

The reference is `warp.sources.shaping` (and `extjson`, `lossless`): a row that is not surely
shaped here exactly as there, to the last byte, is left to it (guarantee 4).  What is doubtful is
therefore never guessed: garbled text, NUL, a name that comes twice, numbers whose text has an
exponent, deprecated types, damaged lengths, deep nesting.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

from warp.model import Kind
from warp.native.breath cimport breathe
from warp.native.elements cimport length_at, value_size
from warp.native.packed cimport (
    ABSENT_CELL,
    BYTES,
    NULL_CELL,
    Packed,
    VALUE,
    is_text,
    new_packed,
)
from warp.native.replies cimport Slices

cdef extern from "Python.h":
    char *PyOS_double_to_string(double, char, int, int, int *) except NULL
    int Py_DTSF_ADD_DOT_0

cdef extern from *:
    """
    /* The digits of a decimal128's coefficient; 0 where it has more than 34. */
    static int warp_digits(uint64_t high, uint64_t low, char *to) {
        unsigned __int128 value = ((unsigned __int128) high << 64) | low;
        char found[40];
        int count = 0, i;
        do { found[count++] = (char) ('0' + (int) (value % 10)); value /= 10; } while (value);
        if (count > 34) return 0;
        for (i = 0; i < count; i++) to[i] = found[count - 1 - i];
        return count;
    }
    """
    int warp_digits(uint64_t high, uint64_t low, char *to) nogil

cdef enum:
    DONE = 0
    SLOW = 1    # the reference must do it

cdef enum:
    EXTENDED = 0    # as extjson writes values
    EXACT = 1       # as lossless writes documents

cdef enum:
    DEEPEST = 64    # orjson gives up at 254
    MOST_NAMES = 256  # of one object, that are compared with each other

cdef enum:
    FIELD = 0
    EXTRA = 1
    DOCUMENT = 2

# Kinds, for a switch in C.
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
    MOMENT = 11
    JSON = 13
    OBJECTID = 15
    TAGGED = 16

cdef dict CODES = {
    Kind.BOOL: BOOL, Kind.INT32: INT32, Kind.INT64: INT64, Kind.FLOAT32: FLOAT32,
    Kind.FLOAT64: FLOAT64, Kind.DECIMAL: DECIMAL, Kind.TEXT: TEXT, Kind.BYTES: BLOB,
    Kind.UUID: UUID, Kind.DATE: DATE, Kind.TIME: TIME, Kind.DATETIME: MOMENT,
    Kind.TIMESTAMP: MOMENT, Kind.JSON: JSON, Kind.JSON_TEXT: JSON, Kind.OBJECTID: OBJECTID,
    Kind.TAGGED: TAGGED,
}

cdef enum:
    LONGEST_KEY = 2000  # bytes, as `warp.sources.bson_cells` has it

cdef int64_t FIRST_INSTANT = -210866803200000    # milliseconds, of what timestamptz holds
cdef int64_t LAST_INSTANT = 9223372036854775     # beyond it microseconds pass 63 bits
cdef int64_t FIRST_DAY = -719162                 # 0001-01-01
cdef int64_t LAST_DAY = 2932896                  # 9999-12-31
cdef int64_t EXACT_IN_DOUBLE = 1 << 53
cdef const char *HEX = b"0123456789abcdef"
cdef const char *BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

cdef uint8_t ESCAPED[256]   # of a character in a JSON string: 0 as it is, 'u' as \u00XX, or \ and this
memset(ESCAPED, 0, 256)
memset(ESCAPED, c"u", 32)
ESCAPED[8] = c"b"
ESCAPED[9] = c"t"
ESCAPED[10] = c"n"
ESCAPED[12] = c"f"
ESCAPED[13] = c"r"
ESCAPED[34] = c'"'
ESCAPED[92] = c"\\"

include "bson_json.pxi"


# -------------------------------------------------------------------------------------------------
# Cells

cdef struct Field:
    const uint8_t *name
    Py_ssize_t length
    int kind
    int role
    bint key
    Py_ssize_t limit    # bytes of text, digits before the point of a decimal; -1: none
    Py_ssize_t scale    # digits after it
    int next            # with the same bucket

cdef struct Found:
    const uint8_t *start    # NULL: the document has no such field
    Py_ssize_t size
    uint8_t code

cdef struct Unknown:
    const uint8_t *name
    Py_ssize_t length
    const uint8_t *start
    Py_ssize_t size
    uint8_t code


cdef int add_text(Packed part, Field *field, const char *text, Py_ssize_t length) except -1:
    if field.limit >= 0 and length > field.limit:
        return SLOW
    part.add_bytes(text, length)
    return DONE


cdef int add_decimal(Packed part, Field *field, const char *text, int length) except -1:
    cdef int at = 0, point
    cdef const char *found
    if length == 0:
        return SLOW
    if field.limit >= 0:
        if memchr(text, c"E", length) != NULL:
            return SLOW
        if text[0] == c"-":
            at = 1
        found = <const char *> memchr(text, c".", length)
        point = <int> (found - text) if found != NULL else length
        if point - at > field.limit or (found != NULL and length - point - 1 > field.scale):
            return SLOW
    part.add_bytes(text, length)
    return DONE


cdef int add_real(Packed part, Field *field, double value) except -1:
    if field.kind == FLOAT32 and value == value and <double> <float> value != value:
        return SLOW
    part.add_real(value)
    return DONE


cdef int add_hex(Packed part, Field *field, const uint8_t *p) except -1:
    cdef char text[24]
    cdef int at
    for at in range(12):
        text[2 * at] = HEX[p[at] >> 4]
        text[2 * at + 1] = HEX[p[at] & 15]
    return add_text(part, field, text, 24)


cdef int add_cell(Packed part, Field *field, Found *found, Pen *pen) except -1:
    """One cell of a field's column; SLOW where the reference must say what it is."""
    cdef uint8_t code = found.code
    cdef const uint8_t *p = found.start
    cdef Py_ssize_t size = found.size
    cdef int kind = field.kind
    cdef int64_t whole = 0
    cdef int32_t small
    cdef double real
    cdef char text[64]
    if p == NULL:
        part.add_blank(ABSENT_CELL)
        return DONE
    if kind == TAGGED:
        return add_tagged(part, found, pen)
    if code == 0x0A:
        if field.key:
            return SLOW
        part.add_blank(NULL_CELL)
        return DONE
    if code == 0x10:
        memcpy(&small, p, 4)
        whole = small
    elif code == 0x12 or code == 0x09:
        memcpy(&whole, p, 8)
    elif code == 0x01:
        memcpy(&real, p, 8)
    if kind == TEXT:
        if code != 0x02 or not is_text(p + 4, size - 5):
            return SLOW
        if field.key and (size - 5) * 6 + 2 > LONGEST_KEY:
            return SLOW
        return add_text(part, field, <const char *> p + 4, size - 5)
    if kind == INT64 or kind == INT32:
        if code == 0x01 and kind == INT64:
            if not -9223372036854775808.0 <= real < 9223372036854775808.0:
                return SLOW
            whole = <int64_t> real
            if <double> whole != real:
                return SLOW
        elif code != 0x10 and code != 0x12:
            return SLOW
        elif kind == INT32 and not -0x80000000 <= whole <= 0x7FFFFFFF:
            return SLOW
        part.add_whole(whole)
        return DONE
    if kind == FLOAT64 or kind == FLOAT32:
        if code == 0x10 or code == 0x12:
            real = <double> whole
            if real >= 9223372036854775808.0 or <int64_t> real != whole:
                return SLOW
        elif code != 0x01:
            return SLOW
        return add_real(part, field, real)
    if kind == JSON:
        pen.used = 0
        pen.named = 0
        pen.form = EXTENDED
        if write_value(pen, code, p, size, 0) == SLOW:
            return SLOW
        part.add_bytes(pen.start, pen.used)
        return DONE
    if kind == BOOL:
        if code != 0x08 or p[0] > 1:
            return SLOW
        part.add_whole(p[0])
        return DONE
    if kind == MOMENT:
        if code != 0x09 or not FIRST_INSTANT <= whole <= LAST_INSTANT:
            return SLOW
        part.add_whole(whole * 1000)
        return DONE
    if kind == OBJECTID:
        if code != 0x07:
            return SLOW
        return add_hex(part, field, p)
    if kind == DECIMAL:
        if code == 0x13:
            return add_decimal(part, field, text, decimal_text(p, text))
        if code == 0x10 or code == 0x12:
            return add_decimal(part, field, text, whole_text(whole, text))
        if code == 0x01 and real - real == 0:
            if real == 0.0:
                return SLOW  # of which there are two
            return add_decimal(part, field, text, real_text(real, text))
        return SLOW
    if kind == BLOB:
        if code != 0x05 or p[4] == 2 or (field.key and (p[4] != 0 or size > 1000)):
            return SLOW
        part.add_bytes(<const char *> p + 5, size - 5)
        return DONE
    if kind == UUID:
        if code != 0x05 or p[4] != 4 or size != 21:
            return SLOW
        part.add_bytes(<const char *> p + 5, 16)
        return DONE
    if kind == DATE:
        if code != 0x09 or whole % 86400000 != 0:
            return SLOW
        whole //= 86400000
        if not FIRST_DAY <= whole <= LAST_DAY:
            return SLOW
        part.add_whole(whole)
        return DONE
    return SLOW


cdef int add_tagged(Packed part, Found *found, Pen *pen) except -1:
    """A key that says its type, as `extjson.tagged` writes the common ones."""
    cdef double real
    cdef int64_t whole
    cdef uint8_t code = found.code
    pen.used = 0
    pen.named = 0
    pen.form = EXTENDED
    if code == 0x01:
        memcpy(&real, found.start, 8)
        if not -9e15 <= real <= 9e15:
            return SLOW
        whole = <int64_t> real
        if <double> whole != real:
            return SLOW
        put_whole(pen, whole)
    elif code in (0x02, 0x07, 0x08, 0x09, 0x0A, 0x10, 0x12, 0x05):
        if write_value(pen, code, found.start, found.size, 0) == SLOW:
            return SLOW
    else:
        return SLOW
    if pen.used > LONGEST_KEY:
        return SLOW
    part.add_bytes(pen.start, pen.used)
    return DONE


# -------------------------------------------------------------------------------------------------
# Documents

_TYPES = {
    0x01: "double", 0x02: "string", 0x03: "object", 0x04: "array", 0x05: "binData",
    0x07: "objectId", 0x08: "bool", 0x09: "date", 0x0A: "null", 0x0B: "regex",
    0x0D: "javascript", 0x10: "int", 0x11: "timestamp", 0x12: "long", 0x13: "decimal",
    0x7F: "maxKey", 0xFF: "minKey",
}


cdef uint32_t bucket(const uint8_t *name, Py_ssize_t length) noexcept nogil:
    cdef uint32_t h = <uint32_t> length
    cdef Py_ssize_t at
    for at in range(length):
        h = (h ^ name[at]) * 16777619
    return h ^ (h >> 15)


cdef class Layout:
    """The columns of one table, ready to take documents."""

    cdef list kinds
    cdef list names     # keeps the bytes that `fields` point at alive
    cdef Field *fields
    cdef int *buckets
    cdef uint32_t mask
    cdef int columns
    cdef int key        # the place of _id's column, or -1
    cdef int extra
    cdef int document

    def __cinit__(self, columns):
        """(role, kind, field, is it of the key, limit, scale) of each, -1 for no limit."""
        cdef int place = 0
        cdef Field *field
        cdef bytes name
        cdef uint32_t size = 16, at
        self.columns = len(columns)
        self.kinds = []
        self.names = []
        self.key = self.extra = self.document = -1
        while size < <uint32_t> (2 * self.columns):
            size *= 2
        self.mask = size - 1
        self.fields = <Field *> PyMem_RawMalloc((self.columns + 1) * sizeof(Field))
        self.buckets = <int *> PyMem_RawMalloc(size * sizeof(int))
        if self.fields == NULL or self.buckets == NULL:
            raise MemoryError()
        for at in range(size):
            self.buckets[at] = -1
        for role, kind, name, key, limit, scale in columns:
            field = &self.fields[place]
            self.kinds.append(kind)
            self.names.append(name)
            field.name = <const uint8_t *> PyBytes_AS_STRING(name)
            field.length = PyBytes_GET_SIZE(name)
            field.kind = CODES[kind]
            field.role = {"field": FIELD, "extra": EXTRA, "document": DOCUMENT}[role]
            field.key = key
            field.limit = limit
            field.scale = scale
            field.next = -1
            if field.role == EXTRA:
                self.extra = place
            elif field.role == DOCUMENT:
                self.document = place
            else:
                at = bucket(field.name, field.length) & self.mask
                field.next = self.buckets[at]
                self.buckets[at] = place
                if name == b"_id":
                    self.key = place
            place += 1

    def __dealloc__(self):
        PyMem_RawFree(self.fields)
        PyMem_RawFree(self.buckets)

    cdef int _place(self, const uint8_t *name, Py_ssize_t length) noexcept:
        cdef int place = self.buckets[bucket(name, length) & self.mask]
        while place >= 0:
            if self.fields[place].length == length and (
                memcmp(self.fields[place].name, name, length) == 0
            ):
                return place
            place = self.fields[place].next
        return -1

    def shape(self, raw, operations):
        """(packed columns, rows left to the reference, odd cells of others, fields without column).

        `operations` are empty or a row's each.  Rows left to the reference hold NULL.  Of a row
        with odd cells these hold NULL, its `_extra` too: they are told as (row, a document of
        these fields alone).  A field without a column is (row, name, type, is it an integer that
        no double holds).
        """
        cdef Py_ssize_t rows = len(raw)
        cdef list made = [new_packed(kind, rows) for kind in self.kinds]
        cdef list slow = [], odd = [], met = []
        cdef Slices slices = <Slices> raw if type(raw) is Slices else None
        cdef bytes document
        cdef bytes said = bytes(operations)
        cdef const uint8_t *start
        cdef Py_ssize_t length, row
        cdef int place
        cdef bint bare
        cdef Pen pen
        cdef Found *found = NULL
        cdef Unknown unknown[MOST_NAMES]
        if said and len(said) != rows:
            raise ValueError(f"an operation for each of {rows} rows was expected")
        memset(&pen, 0, sizeof(Pen))
        try:
            pen_open(&pen)
            found = <Found *> PyMem_RawMalloc((self.columns + 1) * sizeof(Found))
            if found == NULL:
                raise MemoryError()
            for row in range(rows):
                breathe(row)
                if slices is not None:
                    start = <const uint8_t *> slices.starts[row]
                    length = slices.lengths[row]
                else:
                    document = raw[row]
                    start = <const uint8_t *> PyBytes_AS_STRING(document)
                    length = PyBytes_GET_SIZE(document)
                bare = said and said[row] in (100, 116)  # DELETE, TRUNCATE
                if self._row(made, start, length, bare, row, &pen, found, unknown, odd, met) == SLOW:
                    slow.append(row)
                    for place in range(self.columns):
                        (<Packed> made[place]).cut(row)
                        (<Packed> made[place]).add_blank(NULL_CELL)
            return made, slow, odd, met
        finally:
            PyMem_RawFree(found)
            pen_close(&pen)

    cdef int _row(
        self,
        list made,
        const uint8_t *p,
        Py_ssize_t length,
        bint bare,
        Py_ssize_t row,
        Pen *pen,
        Found *found,
        Unknown *unknown,
        list odd,
        list met,
    ) except -1:
        cdef const uint8_t *whole = p
        cdef const uint8_t *end
        cdef const uint8_t *name
        cdef Py_ssize_t name_length, size
        cdef int place, expected = 0, others = 0, at
        cdef uint8_t code
        cdef bint more = False
        cdef list left = None
        cdef Field *field
        if length < 5 or length_at(p) != length or p[length - 1] != 0:
            return SLOW
        for place in range(self.columns):
            found[place].start = NULL
        end = p + length - 1
        p += 4
        while p < end:
            code = p[0]
            name = p + 1
            name_length = strlen(<const char *> name)  # the document ends with NUL
            p = name + name_length + 1
            if p > end:
                return SLOW
            size = value_size(code, p, end)
            if size < 0:
                return SLOW
            if expected < self.columns and self.fields[expected].role == FIELD and (
                self.fields[expected].length == name_length
                and memcmp(self.fields[expected].name, name, name_length) == 0
            ):
                place = expected
            else:
                place = self._place(name, name_length)
            if place >= 0:
                if found[place].start != NULL:
                    return SLOW
                found[place].start = p
                found[place].size = size
                found[place].code = code
                expected = place + 1
            elif self.extra < 0:
                if self.document < 0:
                    return SLOW
                more = True  # it is in the whole document
            else:
                if others == MOST_NAMES:
                    return SLOW
                unknown[others].name = name
                unknown[others].length = name_length
                unknown[others].start = p
                unknown[others].size = size
                unknown[others].code = code
                others += 1
            p += size
        if bare:
            # A delete says but its key, a truncation nothing; what else stands there is not
            # looked into, so the reference reads it.
            if others or more:
                return SLOW
            for place in range(self.columns):
                if place != self.key and found[place].start != NULL:
                    return SLOW
        for place in range(self.columns):
            field = &self.fields[place]
            if field.role == FIELD:
                if add_cell(<Packed> made[place], field, &found[place], pen) == SLOW:
                    # What is left over of a row goes into one text, so all of it or nothing.
                    if field.key or bare or others or self.extra < 0:
                        return SLOW
                    (<Packed> made[place]).add_blank(NULL_CELL)
                    if left is None:
                        left = []
                    left.append(element(field, &found[place]))
            elif bare:
                (<Packed> made[place]).add_blank(ABSENT_CELL)
            elif field.role == DOCUMENT:
                pen.used = 0
                pen.named = 0
                pen.form = EXACT
                if write_object(pen, whole, length, 0) == SLOW:
                    return SLOW
                (<Packed> made[place]).add_bytes(pen.start, pen.used)
            elif others == 0:
                (<Packed> made[place]).add_blank(NULL_CELL)
            else:
                if write_others(pen, unknown, others) == SLOW:
                    return SLOW
                (<Packed> made[place]).add_bytes(pen.start, pen.used)
        if left is not None:
            odd.append((row, document_of(left)))
        if self.extra >= 0 and not bare:
            for at in range(others):
                met.append(told(row, &unknown[at]))
        return DONE


cdef bytes element(Field *field, Found *found):
    cdef bytes name = PyBytes_FromStringAndSize(<const char *> field.name, field.length)
    cdef bytes value = PyBytes_FromStringAndSize(<const char *> found.start, found.size)
    return bytes((found.code,)) + name + b"\0" + value


cdef bytes document_of(list elements):
    cdef bytes body = b"".join(elements)
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


cdef int write_others(Pen *pen, Unknown *unknown, int others) except -1:
    cdef int at
    pen.used = 0
    pen.named = 0
    pen.form = EXTENDED
    put_one(pen, c"{")
    for at in range(others):
        if not is_text(unknown[at].name, unknown[at].length):
            return SLOW
        if note_name(pen, 0, unknown[at].name, unknown[at].length) == SLOW:
            return SLOW
    for at in range(others):
        if at:
            put_one(pen, c",")
        quoted(pen, unknown[at].name, unknown[at].length)
        put_one(pen, c":")
        if write_value(pen, unknown[at].code, unknown[at].start, unknown[at].size, 1) == SLOW:
            return SLOW
    put_one(pen, c"}")
    return DONE


cdef object told(Py_ssize_t row, Unknown *unknown):
    cdef int64_t whole = 0
    name = PyBytes_FromStringAndSize(<const char *> unknown.name, unknown.length).decode()
    if unknown.code == 0x12:
        memcpy(&whole, unknown.start, 8)
    if unknown.code == 0x05 and unknown.size == 21 and unknown.start[4] == 4:
        return row, name, "uuid", False
    return row, name, _TYPES[unknown.code], not -EXACT_IN_DOUBLE <= whole <= EXACT_IN_DOUBLE


def spliced(Packed column, list rows, list cells):
    """The column with other carriers at these rows, which ascend.

    A list where one of the carriers has no form in it.
    """
    cdef Packed made = new_packed(column.kind, column.rows)
    cdef Py_ssize_t row = 0, place, stop, at
    cdef uint64_t begin, shift
    if len(rows) != len(cells):
        raise ValueError("a cell for each of the rows was expected")
    made.make_space(column.used)
    try:
        for place in range(len(rows) + 1):
            stop = rows[place] if place < len(rows) else column.rows
            if not row <= stop <= column.rows:
                raise IndexError(stop)
            memcpy(made.states + made.rows, column.states + row, stop - row)
            for at in range(row, stop):
                if column.states[at] != VALUE:
                    made.blanks += 1
            if column.layout != BYTES:
                memcpy(made.whole + made.rows, column.whole + row, 8 * (stop - row))
            elif stop > row:
                begin = column.ends[row - 1] if row else 0
                shift = made.used - begin
                made.make_space(column.ends[stop - 1] - begin)
                memcpy(made.data + made.used, column.data + begin, column.ends[stop - 1] - begin)
                made.used += column.ends[stop - 1] - begin
                for at in range(row, stop):
                    made.ends[made.rows + at - row] = column.ends[at] + shift
            made.rows += stop - row
            if place < len(rows):
                made.add_cell(cells[place])
            row = stop + 1
    except ValueError:
        listed = column.tolist()
        for place in range(len(rows)):
            listed[rows[place]] = cells[place]
        return listed
    return made
