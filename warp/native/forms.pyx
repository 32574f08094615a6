# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The canonical forms of packed columns and of JSON, as warp/digest/canonical.py writes them.

That module is the reference and says what a form is; here the texts of rows are written cell by
cell without an object for each.  What is not surely known here (an exponent, half a surrogate
pair, JSON that is damaged) is left to it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.math cimport isinf
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memcmp, memcpy

from warp.native.breath cimport breathe
from warp.native.packed cimport BYTES, Packed, REAL, UNCHANGED_CELL, VALUE, is_text

from warp.model import Kind

cdef enum:
    DEEPEST = 100           # levels of JSON within each other; deeper ones are left to Python
    DAYS_1970 = 10957       # from 1970-01-01 to 2000-01-01
    SLOW = 1                # left to Python
    DONE = 0

cdef int64_t EPOCH_US = 946684800000000
cdef const char *HEX = "0123456789abcdef"

# How the cells of a kind are written.
cdef enum:
    TRUTH = 0
    NUMBER = 1
    DOUBLE = 2
    SINGLE = 3
    DIGITS = 4
    TEXT = 5
    PLAIN = 6
    HEXED = 7
    DAY = 8
    LONG = 9
    INSTANT = 10
    DOCUMENT = 11

cdef dict WAYS = {
    Kind.BOOL: TRUTH, Kind.INT32: NUMBER, Kind.INT64: NUMBER, Kind.FLOAT64: DOUBLE,
    Kind.FLOAT32: SINGLE, Kind.DECIMAL: DIGITS, Kind.TEXT: TEXT, Kind.TAGGED: TEXT,
    Kind.JSON_TEXT: TEXT, Kind.OBJECTID: PLAIN, Kind.BYTES: HEXED, Kind.UUID: HEXED,
    Kind.DATE: DAY, Kind.TIME: LONG, Kind.DATETIME: INSTANT, Kind.TIMESTAMP: INSTANT,
    Kind.JSON: DOCUMENT,
}

# ---------------------------------------------------------------- a text that grows

cdef struct Member:
    const uint8_t *name     # of an object, in the JSON that is read
    size_t length
    size_t begin            # of it and its value, in the text that is written
    size_t end
    size_t place            # among the members: of two with one name the last is kept


cdef class _Pen:
    """Text being written, and the members of the objects being written, inner behind outer."""

    cdef char *text
    cdef size_t used
    cdef size_t space
    cdef Member *members
    cdef size_t count
    cdef size_t seats

    def __cinit__(self):
        self.space = 1024
        self.text = <char *> PyMem_RawMalloc(self.space)
        self.seats = 64
        self.members = <Member *> PyMem_RawMalloc(self.seats * sizeof(Member))
        if self.text == NULL or self.members == NULL:
            raise MemoryError()

    def __dealloc__(self):
        PyMem_RawFree(self.text)
        PyMem_RawFree(self.members)

    cdef int room(self, size_t more) except -1:
        cdef void *moved
        cdef size_t space
        if self.space - self.used >= more:
            return 0
        space = self.used + more + (self.used + more) // 2
        moved = PyMem_RawRealloc(self.text, space)
        if moved == NULL:
            raise MemoryError()
        self.text = <char *> moved
        self.space = space
        return 0

    cdef int put(self, const char *text, size_t length) except -1:
        self.room(length)
        memcpy(self.text + self.used, text, length)
        self.used += length
        return 0

    cdef int put_one(self, char letter) except -1:
        self.room(1)
        self.text[self.used] = letter
        self.used += 1
        return 0

    cdef int put_hex(self, const uint8_t *data, size_t length) except -1:
        cdef size_t at
        self.room(2 * length)
        for at in range(length):
            self.text[self.used] = HEX[data[at] >> 4]
            self.text[self.used + 1] = HEX[data[at] & 15]
            self.used += 2
        return 0

    cdef int put_word(self, uint64_t value, int bytes_) except -1:
        """The lowest bytes of a word in hexadecimal, the highest of them first."""
        cdef int at
        self.room(16)
        for at in range(2 * bytes_ - 1, -1, -1):
            self.text[self.used] = HEX[(value >> (4 * at)) & 15]
            self.used += 1
        return 0

    cdef int put_number(self, int64_t value) except -1:
        cdef char digits[24]
        cdef int count = 0
        cdef uint64_t left = <uint64_t> value
        self.room(24)
        if value < 0:
            left = 0 - left
            self.text[self.used] = c"-"
            self.used += 1
        while True:
            digits[count] = <char> (48 + left % 10)
            count += 1
            left //= 10
            if left == 0:
                break
        while count:
            count -= 1
            self.text[self.used] = digits[count]
            self.used += 1
        return 0

    cdef Member *join(self) except NULL:
        """A seat for one more member."""
        cdef void *moved
        if self.count == self.seats:
            moved = PyMem_RawRealloc(self.members, 2 * self.seats * sizeof(Member))
            if moved == NULL:
                raise MemoryError()
            self.members = <Member *> moved
            self.seats *= 2
        self.count += 1
        return &self.members[self.count - 1]


# ---------------------------------------------------------------- JSON

cdef struct Reading:
    const uint8_t *at
    const uint8_t *end


cdef inline void skip_blanks(Reading *read) noexcept:
    while read.at < read.end and read.at[0] in (c" ", c"\n", c"\t", c"\r"):
        read.at += 1


cdef inline int nibble(uint8_t letter) noexcept:
    if c"0" <= letter <= c"9":
        return letter - c"0"
    if c"a" <= letter <= c"f":
        return letter - c"a" + 10
    if c"A" <= letter <= c"F":
        return letter - c"A" + 10
    return -1


cdef int put_letter(_Pen pen, uint32_t letter) except -1:
    """A letter that was written as \\uXXXX, as it stands in a form.  No half of a surrogate pair."""
    cdef char made[3]
    if letter == c'"' or letter == c"\\":
        pen.put_one(c"\\")
        return pen.put_one(<char> letter)
    if letter < 0x20:
        return put_control(pen, letter)
    if letter < 0x80:
        return pen.put_one(<char> letter)
    if letter < 0x800:
        made[0] = <char> (0xC0 | letter >> 6)
        made[1] = <char> (0x80 | letter & 63)
        return pen.put(made, 2)
    made[0] = <char> (0xE0 | letter >> 12)
    made[1] = <char> (0x80 | (letter >> 6) & 63)
    made[2] = <char> (0x80 | letter & 63)
    return pen.put(made, 3)


cdef int put_control(_Pen pen, uint32_t letter) except -1:
    pen.put_one(c"\\")
    if letter == 8:
        return pen.put_one(c"b")
    if letter == 9:
        return pen.put_one(c"t")
    if letter == 10:
        return pen.put_one(c"n")
    if letter == 12:
        return pen.put_one(c"f")
    if letter == 13:
        return pen.put_one(c"r")
    pen.put(b"u00", 3)
    pen.put_one(HEX[letter >> 4])
    return pen.put_one(HEX[letter & 15])


cdef int string(_Pen pen, Reading *read, bint escapes) except -1:
    """A string from its opening quote on, quotes and all; SLOW where it may not have escapes."""
    cdef const uint8_t *begun
    cdef uint8_t letter
    cdef uint32_t told
    cdef int digit, count
    read.at += 1
    pen.put_one(c'"')
    begun = read.at
    while True:
        while read.at < read.end and read.at[0] >= 0x20 and read.at[0] not in (c'"', c"\\"):
            read.at += 1
        if read.at == read.end or read.at[0] < 0x20:
            return SLOW
        pen.put(<const char *> begun, read.at - begun)
        letter = read.at[0]
        read.at += 1
        if letter == c'"':
            pen.put_one(c'"')
            return DONE
        if not escapes or read.at == read.end:
            return SLOW
        letter = read.at[0]
        read.at += 1
        if letter in (c'"', c"\\", c"b", c"f", c"n", c"r", c"t"):
            pen.put_one(c"\\")
            pen.put_one(letter)
        elif letter == c"/":
            pen.put_one(c"/")
        elif letter == c"u":
            if read.end - read.at < 4:
                return SLOW
            told = 0
            for count in range(4):
                digit = nibble(read.at[count])
                if digit < 0:
                    return SLOW
                told = told << 4 | <uint32_t> digit
            read.at += 4
            if 0xD800 <= told < 0xE000:
                return SLOW
            put_letter(pen, told)
        else:
            return SLOW
        begun = read.at


cdef int number(_Pen pen, Reading *read) except -1:
    """A number with all its digits; SLOW where it has an exponent, or is none."""
    cdef const uint8_t *begun = read.at
    cdef bint nothing = True  # no digit but zero
    if read.at[0] == c"-":
        read.at += 1
    if read.at == read.end or not c"0" <= read.at[0] <= c"9":
        return SLOW
    if read.at[0] == c"0":
        read.at += 1
    else:
        nothing = False
        while read.at < read.end and c"0" <= read.at[0] <= c"9":
            read.at += 1
    if read.at < read.end and read.at[0] == c".":
        read.at += 1
        if read.at == read.end or not c"0" <= read.at[0] <= c"9":
            return SLOW
        while read.at < read.end and c"0" <= read.at[0] <= c"9":
            nothing = nothing and read.at[0] == c"0"
            read.at += 1
    if read.at < read.end and read.at[0] in (c"e", c"E"):
        return SLOW
    if nothing and begun[0] == c"-":
        begun += 1
    pen.put(<const char *> begun, read.at - begun)
    return DONE


cdef int word(_Pen pen, Reading *read, const char *expected, size_t length) except -1:
    if <size_t> (read.end - read.at) < length or memcmp(read.at, expected, length):
        return SLOW
    read.at += length
    pen.put(expected, length)
    return DONE


cdef int value(_Pen pen, Reading *read, int depth) except -1:
    """One value, blanks before it too."""
    cdef uint8_t letter
    skip_blanks(read)
    if read.at == read.end or depth > DEEPEST:
        return SLOW
    letter = read.at[0]
    if letter == c'"':
        return string(pen, read, True)
    if letter == c"{":
        return members(pen, read, depth)
    if letter == c"[":
        return elements(pen, read, depth)
    if letter == c"t":
        return word(pen, read, b"true", 4)
    if letter == c"f":
        return word(pen, read, b"false", 5)
    if letter == c"n":
        return word(pen, read, b"null", 4)
    return number(pen, read)


cdef int elements(_Pen pen, Reading *read, int depth) except -1:
    cdef uint8_t letter
    read.at += 1
    pen.put_one(c"[")
    skip_blanks(read)
    if read.at < read.end and read.at[0] == c"]":
        read.at += 1
        pen.put_one(c"]")
        return DONE
    while True:
        if value(pen, read, depth + 1):
            return SLOW
        skip_blanks(read)
        if read.at == read.end:
            return SLOW
        letter = read.at[0]
        read.at += 1
        if letter == c"]":
            pen.put_one(c"]")
            return DONE
        if letter != c",":
            return SLOW
        pen.put(b", ", 2)


cdef int members(_Pen pen, Reading *read, int depth) except -1:
    cdef size_t first = pen.count, begin
    cdef Member *one
    cdef bint ordered = True
    cdef uint8_t letter
    read.at += 1
    pen.put_one(c"{")
    begin = pen.used
    skip_blanks(read)
    if read.at < read.end and read.at[0] == c"}":
        read.at += 1
        pen.put_one(c"}")
        return DONE
    while True:
        skip_blanks(read)
        if read.at == read.end or read.at[0] != c'"':
            return SLOW
        one = pen.join()
        one.name = read.at + 1
        one.begin = pen.used
        one.place = pen.count
        if string(pen, read, False):
            return SLOW
        one.length = read.at - one.name - 1
        if pen.count - first > 1 and by_name(one - 1, one) >= 0:
            ordered = False
        skip_blanks(read)
        if read.at == read.end or read.at[0] != c":":
            return SLOW
        read.at += 1
        pen.put(b": ", 2)
        if value(pen, read, depth + 1):
            return SLOW
        pen.members[pen.count - 1].end = pen.used
        skip_blanks(read)
        if read.at == read.end:
            return SLOW
        letter = read.at[0]
        read.at += 1
        if letter == c"}":
            break
        if letter != c",":
            return SLOW
        pen.put(b", ", 2)
    if not ordered:
        in_order(pen, first, begin)
    pen.count = first
    return pen.put_one(c"}")


cdef int by_name(const void *one, const void *other) noexcept nogil:
    """Shorter names first, then by bytes."""
    cdef const Member *left = <const Member *> one
    cdef const Member *right = <const Member *> other
    if left.length != right.length:
        return -1 if left.length < right.length else 1
    return memcmp(left.name, right.name, left.length)


cdef int by_name_and_place(const void *one, const void *other) noexcept nogil:
    cdef int found = by_name(one, other)
    if found:
        return found
    return -1 if (<const Member *> one).place < (<const Member *> other).place else 1


cdef int in_order(_Pen pen, size_t first, size_t begin) except -1:
    """Members that have been written from `begin` on, in the order of their names."""
    cdef size_t length = pen.used - begin, at
    cdef Member *one
    cdef char *written = <char *> PyMem_RawMalloc(length)
    if written == NULL:
        raise MemoryError()
    memcpy(written, pen.text + begin, length)
    qsort(&pen.members[first], pen.count - first, sizeof(Member), by_name_and_place)
    pen.used = begin
    for at in range(first, pen.count):
        one = &pen.members[at]
        if at + 1 < pen.count and by_name(one, one + 1) == 0:
            continue
        # No more than was there before, so there is room.
        if pen.used > begin:
            memcpy(pen.text + pen.used, b", ", 2)
            pen.used += 2
        memcpy(pen.text + pen.used, written + (one.begin - begin), one.end - one.begin)
        pen.used += one.end - one.begin
    PyMem_RawFree(written)
    return 0


cdef int document(_Pen pen, const uint8_t *text, size_t length) except -1:
    """The form of a JSON text; SLOW, and nothing written, where it is left to Python."""
    cdef Reading read
    cdef size_t before = pen.used
    cdef int left = SLOW
    pen.count = 0
    read.at = text
    read.end = text + length
    if is_text(text, length):
        left = value(pen, &read, 0)
        skip_blanks(&read)
        if read.at != read.end:
            left = SLOW
    if left:
        pen.used = before
    return left


def json_form(text):
    """The form of a JSON text; None where it is left to Python."""
    cdef _Pen pen = _Pen()
    cdef Py_ssize_t length
    cdef const char *start
    if PyBytes_Check(text):
        start, length = PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)
    else:
        try:
            start = PyUnicode_AsUTF8AndSize(text, &length)
        except UnicodeEncodeError:
            return None
    if document(pen, <const uint8_t *> start, length):
        return None
    return PyUnicode_DecodeUTF8(pen.text, pen.used, NULL)


# ---------------------------------------------------------------- rows

cdef int decimal(_Pen pen, const uint8_t *text, size_t length) except -1:
    """Digits without the zeros that say nothing; SLOW where it is more than digits and a point."""
    cdef size_t at = 0, point = length, last
    cdef bint minus = length > 0 and text[0] == c"-"
    if minus:
        at = 1
    if at == length or not c"0" <= text[at] <= c"9":
        return SLOW
    if text[at] == c"0" and at + 1 < length and text[at + 1] != c".":
        return SLOW
    last = at
    while at < length:
        if text[at] == c"." and point == length:
            point = at
        elif not c"0" <= text[at] <= c"9":
            return SLOW
        at += 1
    at = length
    if point < length:
        while text[at - 1] == c"0":
            at -= 1
        if at - 1 == point:
            at = point
    if at - last == 1 and text[last] == c"0":  # minus zero is zero
        minus = False
    return pen.put(<const char *> text + last - (1 if minus else 0), at - last + (1 if minus else 0))


cdef int cell(_Pen pen, _Pen scratch, Packed column, int way, Py_ssize_t row) except -1:
    """One value with what ends it; SLOW, and nothing written, where it is left to Python."""
    cdef uint64_t bits, begin
    cdef double real
    cdef float single
    cdef uint32_t half
    cdef int64_t whole
    cdef const uint8_t *data
    cdef size_t length
    if column.layout == BYTES:
        begin = column.ends[row - 1] if row else 0
        data = <const uint8_t *> column.data + begin
        length = column.ends[row] - begin
        if way == TEXT or way == PLAIN:
            if not is_text(data, length):
                return SLOW
            if way == TEXT:
                pen.put_number(length)
                pen.put_one(c":")
            pen.put(<const char *> data, length)
        elif way == HEXED:
            pen.put_hex(data, length)
        elif way == DOCUMENT:
            scratch.used = 0
            if document(scratch, data, length):
                return SLOW
            pen.put_number(scratch.used)
            pen.put_one(c":")
            pen.put(scratch.text, scratch.used)
        elif way == DIGITS:
            if decimal(pen, data, length):
                return SLOW
        else:
            return SLOW
    elif column.layout == REAL:
        memcpy(&real, &column.whole[row], 8)
        if way == DOUBLE:
            if real == 0:
                real = 0.0  # minus zero is zero
            memcpy(&bits, &real, 8)
            pen.put_word(bits if real == real else <uint64_t> 0x7FF8000000000000, 8)
        else:
            if real == 0:
                real = 0.0
            single = <float> real
            if isinf(single) and not isinf(real):
                return SLOW
            memcpy(&half, &single, 4)
            pen.put_word(half if real == real else <uint32_t> 0x7FC00000, 4)
    else:
        whole = column.whole[row]
        if way == TRUTH:
            pen.put_one(c"t" if whole else c"f")
        elif way == NUMBER:
            pen.put_number(whole)
        elif way == DAY:
            pen.put_word(<uint64_t> (whole - DAYS_1970), 4)
        elif way == LONG:
            pen.put_word(<uint64_t> whole, 8)
        else:
            if whole < <int64_t> (-0x7FFFFFFFFFFFFFFF) + EPOCH_US:
                return SLOW
            pen.put_word(<uint64_t> (whole - EPOCH_US), 8)
    pen.put_one(c",")
    return DONE


def row_texts(columns, slowly):
    """The text of each row, in UTF-8.

    A column is packed, or a list of fields that are written already, each with what ends it.
    `slowly(kind, carrier)` writes the field of a cell that is left to Python.
    """
    cdef _Pen pen = _Pen(), scratch = _Pen()
    cdef Py_ssize_t row, rows = len(columns[0]) if columns else 0, length
    cdef Py_ssize_t place, count = len(columns)
    cdef Packed packed
    cdef const char *start
    cdef list ways = [WAYS[c.kind] if isinstance(c, Packed) else -1 for c in columns]
    cdef list made = []
    cdef int way
    if not count:
        raise ValueError("a row has columns")
    for column in columns:
        if len(column) != rows:
            raise ValueError("columns of different lengths")
    for row in range(rows):
        breathe(row)
        pen.used = 0
        for place in range(count):
            way = ways[place]
            if way < 0:
                field = (<list> columns[place])[row]
            else:
                packed = <Packed> columns[place]
                if packed.states[row] != VALUE:
                    if packed.states[row] == UNCHANGED_CELL:
                        raise ValueError("a cell that is not known has no form")
                    pen.put(b"-,", 2)
                    continue
                if not cell(pen, scratch, packed, way, row):
                    continue
                field = slowly(packed.kind, packed.cell(row))
            try:
                start = PyUnicode_AsUTF8AndSize(field, &length)
            except UnicodeEncodeError:
                field = field.encode("utf-8", "surrogatepass")
                start, length = PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)
            pen.put(start, length)
        made.append(PyBytes_FromStringAndSize(pen.text, pen.used))
    return made
