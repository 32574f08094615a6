# Text of BSON values as JSON, a part of bson.pyx: numbers, strings, values, documents.
# EXTENDED is how warp/sources/extjson.py writes a value, EXACT how warp/sources/lossless.py writes
# a document; what these would write otherwise, or refuse, is SLOW.
# -------------------------------------------------------------------------------------------------
# Text

cdef struct Name:
    const uint8_t *start
    uint32_t length
    uint64_t print

cdef struct Pen:
    char *start
    size_t used
    size_t space
    int form            # EXTENDED or EXACT
    Name *names         # of the objects being written, inner ones behind outer ones
    Py_ssize_t named
    Py_ssize_t names_room


cdef int pen_open(Pen *pen) except -1:
    pen.used = 0
    pen.space = 1024
    pen.named = 0
    pen.names_room = 64
    pen.form = EXTENDED
    pen.start = <char *> PyMem_RawMalloc(pen.space)
    pen.names = <Name *> PyMem_RawMalloc(pen.names_room * sizeof(Name))
    if pen.start == NULL or pen.names == NULL:
        raise MemoryError()
    return 0


cdef void pen_close(Pen *pen) noexcept:
    PyMem_RawFree(pen.start)
    PyMem_RawFree(pen.names)
    pen.start = NULL
    pen.names = NULL


cdef inline int room(Pen *pen, size_t more) except -1:
    cdef void *moved
    cdef size_t space
    if pen.space - pen.used >= more:
        return 0
    space = pen.used + more + (pen.used + more) // 2
    moved = PyMem_RawRealloc(pen.start, space)
    if moved == NULL:
        raise MemoryError()
    pen.start = <char *> moved
    pen.space = space
    return 0


cdef inline int put(Pen *pen, const char *text, size_t length) except -1:
    room(pen, length)
    memcpy(pen.start + pen.used, text, length)
    pen.used += length
    return 0


cdef inline int put_one(Pen *pen, char letter) except -1:
    room(pen, 1)
    pen.start[pen.used] = letter
    pen.used += 1
    return 0


cdef int whole_text(int64_t value, char *to) noexcept nogil:
    """The digits, up to 20 bytes with the sign; how many bytes."""
    cdef char found[24]
    cdef int count = 0, at = 0
    cdef uint64_t left = <uint64_t> value
    if value < 0:
        left = 0 - left
        to[0] = c"-"
        at = 1
    while True:
        found[count] = <char> (48 + left % 10)
        count += 1
        left //= 10
        if left == 0:
            break
    while count:
        count -= 1
        to[at] = found[count]
        at += 1
    return at


cdef inline int put_whole(Pen *pen, int64_t value) except -1:
    room(pen, 24)
    pen.used += whole_text(value, pen.start + pen.used)
    return 0


cdef int quoted(Pen *pen, const uint8_t *text, Py_ssize_t length) except -1:
    """A JSON string as orjson writes it.  `text` is UTF-8 without NUL."""
    cdef Py_ssize_t at = 0, begun = 0
    cdef uint8_t escaped
    room(pen, length + 2)
    pen.start[pen.used] = c'"'
    pen.used += 1
    while at < length:
        escaped = ESCAPED[text[at]]
        if escaped:
            put(pen, <const char *> text + begun, at - begun)
            room(pen, 6)
            pen.start[pen.used] = c"\\"
            pen.start[pen.used + 1] = escaped
            pen.used += 2
            if escaped == c"u":
                pen.start[pen.used] = c"0"
                pen.start[pen.used + 1] = c"0"
                pen.start[pen.used + 2] = HEX[text[at] >> 4]
                pen.start[pen.used + 3] = HEX[text[at] & 15]
                pen.used += 4
            begun = at + 1
        at += 1
    put(pen, <const char *> text + begun, length - begun)
    return put_one(pen, c'"')


cdef int put_hex(Pen *pen, const uint8_t *data, Py_ssize_t length) except -1:
    cdef Py_ssize_t at
    room(pen, 2 * length)
    for at in range(length):
        pen.start[pen.used] = HEX[data[at] >> 4]
        pen.start[pen.used + 1] = HEX[data[at] & 15]
        pen.used += 2
    return 0


cdef int put_base64(Pen *pen, const uint8_t *data, Py_ssize_t length) except -1:
    cdef Py_ssize_t at = 0
    cdef uint32_t word
    cdef char *to
    room(pen, 4 * (length // 3 + 1))
    while at < length:
        word = <uint32_t> data[at] << 16
        if at + 1 < length:
            word |= <uint32_t> data[at + 1] << 8
        if at + 2 < length:
            word |= data[at + 2]
        to = pen.start + pen.used
        to[0] = BASE64[word >> 18]
        to[1] = BASE64[(word >> 12) & 63]
        to[2] = BASE64[(word >> 6) & 63] if at + 1 < length else c"="
        to[3] = BASE64[word & 63] if at + 2 < length else c"="
        pen.used += 4
        at += 3
    return 0


cdef double POWERS[7]
POWERS[:] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6]


cdef int real_text(double value, char *to) except -1:
    """Python's repr of a number that has no exponent in it, up to 30 bytes; 0 where it has one."""
    cdef double size = -value if value < 0 else value
    cdef double scaled
    cdef int64_t digits
    cdef int places, length, at = 0, count
    cdef char *made
    cdef char whole[24]
    if 1e-4 <= size < 1e15:
        # A decimal of at most 15 digits that is divided back exactly is the shortest: two such
        # decimals never are one double.
        for places in range(7):
            scaled = size * POWERS[places]
            if scaled >= 1e15:
                break
            digits = <int64_t> (scaled + 0.5)
            if <double> digits / POWERS[places] == size and digits < 1000000000000000:
                if value < 0:
                    to[0] = c"-"
                    at = 1
                if places == 0:
                    at += whole_text(digits, to + at)
                    to[at] = c"."
                    to[at + 1] = c"0"
                    return at + 2
                length = whole_text(digits, whole)
                if length <= places:
                    to[at] = c"0"
                    to[at + 1] = c"."
                    at += 2
                    for count in range(places - length):
                        to[at] = c"0"
                        at += 1
                    memcpy(to + at, whole, length)
                    return at + length
                memcpy(to + at, whole, length - places)
                at += length - places
                to[at] = c"."
                memcpy(to + at + 1, whole + length - places, places)
                return at + 1 + places
    made = PyOS_double_to_string(value, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    length = <int> strlen(made)
    if length > 29 or memchr(made, c"e", length) != NULL:
        length = 0
    memcpy(to, made, length)
    PyMem_Free(made)
    return length


cdef int decimal_text(const uint8_t *p, char *to) noexcept nogil:
    """A decimal128 as `str` of Python's Decimal, up to 50 bytes; 0 where the reference must look."""
    cdef uint64_t low, high
    cdef int exponent, count, left, point, at = 0, adjusted
    cdef char digits[40]
    memcpy(&low, p, 8)
    memcpy(&high, p + 8, 8)
    if (high >> 61) & 3 == 3:  # NaN, an infinity, or a coefficient that is too large
        return 0
    exponent = <int> ((high >> 49) & 0x3FFF) - 6176
    count = warp_digits(high & <uint64_t> 0x1FFFFFFFFFFFF, low, digits)
    adjusted = exponent + count - 1
    if count == 0 or not -900 < exponent < 900 or not -900 < adjusted < 900:
        return 0
    if high >> 63:
        to[0] = c"-"
        at = 1
    left = exponent + count
    point = left if exponent <= 0 and left > -6 else 1
    if point <= 0:
        to[at] = c"0"
        to[at + 1] = c"."
        at += 2
        memset(to + at, c"0", -point)
        at -= point
        memcpy(to + at, digits, count)
        at += count
    elif point >= count:
        memcpy(to + at, digits, count)
        at += count
        memset(to + at, c"0", point - count)
        at += point - count
    else:
        memcpy(to + at, digits, point)
        to[at + point] = c"."
        memcpy(to + at + point + 1, digits + point, count - point)
        at += count + 1
    if left != point:
        to[at] = c"E"
        at += 1
        if left > point:
            to[at] = c"+"
            at += 1
        at += whole_text(left - point, to + at)
    return at


# -------------------------------------------------------------------------------------------------
# Values as JSON

cdef int wrapped(Pen *pen, const char *head, const uint8_t *text, Py_ssize_t length) except -1:
    """{"$…":"text"}, whose head is {"$…":"""
    if not is_text(text, length):
        return SLOW
    put(pen, head, strlen(head))
    quoted(pen, text, length)
    put_one(pen, c"}")
    return DONE


cdef int write_value(Pen *pen, uint8_t code, const uint8_t *p, Py_ssize_t size, int depth) except -1:
    cdef int64_t whole
    cdef uint64_t bits
    cdef double real
    cdef int32_t small
    cdef uint32_t word
    cdef int length
    cdef char text[64]
    cdef Py_ssize_t first
    if code == 0x02:
        if not is_text(p + 4, size - 5):
            return SLOW
        quoted(pen, p + 4, size - 5)
    elif code == 0x10:
        memcpy(&small, p, 4)
        put_whole(pen, small)
    elif code == 0x12:
        memcpy(&whole, p, 8)
        if pen.form == EXACT and -0x80000000 <= whole <= 0x7FFFFFFF:
            put(pen, b'{"$numberLong":"', 16)
            put_whole(pen, whole)
            put(pen, b'"}', 2)
        else:
            put_whole(pen, whole)
    elif code == 0x01:
        memcpy(&real, p, 8)
        memcpy(&bits, p, 8)
        if real != real:
            if pen.form == EXACT and bits != <uint64_t> 0x7FF8000000000000:
                return SLOW
            put(pen, b'{"$numberDouble":"NaN"}', 23)
        elif real - real != 0:
            if real > 0:
                put(pen, b'{"$numberDouble":"Infinity"}', 28)
            else:
                put(pen, b'{"$numberDouble":"-Infinity"}', 29)
        elif bits == <uint64_t> 0x8000000000000000:
            put(pen, b'{"$numberDouble":"-0.0"}', 24)
        else:
            room(pen, 32)
            length = real_text(real, pen.start + pen.used)
            if length == 0:
                return SLOW
            pen.used += length
    elif code == 0x08:
        if p[0] == 1:
            put(pen, b"true", 4)
        elif p[0] == 0:
            put(pen, b"false", 5)
        else:
            return SLOW
    elif code == 0x0A:
        put(pen, b"null", 4)
    elif code == 0x03:
        return write_object(pen, p, size, depth)
    elif code == 0x04:
        return write_array(pen, p, size, depth)
    elif code == 0x07:
        put(pen, b'{"$oid":"', 9)
        put_hex(pen, p, 12)
        put(pen, b'"}', 2)
    elif code == 0x09:
        memcpy(&whole, p, 8)
        put(pen, b'{"$date":{"$numberLong":"', 25)
        put_whole(pen, whole)
        put(pen, b'"}}', 3)
    elif code == 0x13:
        length = decimal_text(p, text)
        if length == 0:
            return SLOW
        put(pen, b'{"$numberDecimal":"', 19)
        put(pen, text, length)
        put(pen, b'"}', 2)
    elif code == 0x05:
        if p[4] == 2:
            return SLOW
        put(pen, b'{"$binary":{"base64":"', 22)
        put_base64(pen, p + 5, size - 5)
        put(pen, b'","subType":"', 13)
        put_hex(pen, p + 4, 1)
        put(pen, b'"}}', 3)
    elif code == 0x11:
        put(pen, b'{"$timestamp":{"t":', 19)
        memcpy(&word, p + 4, 4)
        put_whole(pen, word)
        put(pen, b',"i":', 5)
        memcpy(&word, p, 4)
        put_whole(pen, word)
        put(pen, b'}}', 2)
    elif code == 0x0D:
        return wrapped(pen, b'{"$code":', p + 4, size - 5)
    elif code == 0x0B:
        first = strlen(<const char *> p)
        if not is_text(p, first) or not ordered_flags(p + first + 1, size - first - 2):
            return SLOW
        put(pen, b'{"$regularExpression":{"pattern":', 33)
        quoted(pen, p, first)
        put(pen, b',"options":', 11)
        quoted(pen, p + first + 1, size - first - 2)
        put(pen, b'}}', 2)
    elif code == 0x7F:
        put(pen, b'{"$maxKey":1}', 13)
    elif code == 0xFF:
        put(pen, b'{"$minKey":1}', 13)
    else:
        return SLOW
    return DONE


cdef bint ordered_flags(const uint8_t *options, Py_ssize_t length) noexcept nogil:
    """Options of a regex as decoding and writing them again leaves them."""
    cdef Py_ssize_t at
    for at in range(length):
        if memchr(b"ilmsux", options[at], 6) == NULL or (at and options[at - 1] >= options[at]):
            return False
    return True


cdef int note_name(Pen *pen, Py_ssize_t base, const uint8_t *name, Py_ssize_t length) except -1:
    """Of the object whose names begin at `base`: SLOW where it is there already."""
    cdef Py_ssize_t at
    cdef uint64_t print = 0
    cdef void *moved
    memcpy(&print, name, length if length < 8 else 8)
    if pen.named - base >= MOST_NAMES:
        return SLOW
    for at in range(base, pen.named):
        if (
            pen.names[at].print == print
            and pen.names[at].length == <uint32_t> length
            and memcmp(pen.names[at].start, name, length) == 0
        ):
            return SLOW
    if pen.named == pen.names_room:
        moved = PyMem_RawRealloc(pen.names, 2 * pen.names_room * sizeof(Name))
        if moved == NULL:
            raise MemoryError()
        pen.names = <Name *> moved
        pen.names_room *= 2
    pen.names[pen.named].start = name
    pen.names[pen.named].length = <uint32_t> length
    pen.names[pen.named].print = print
    pen.named += 1
    return DONE


cdef int write_object(Pen *pen, const uint8_t *p, Py_ssize_t size, int depth) except -1:
    cdef const uint8_t *end = p + size - 1
    cdef const uint8_t *name
    cdef Py_ssize_t length, found
    cdef Py_ssize_t base = pen.named
    cdef uint8_t code
    cdef bint first = True
    if depth >= DEEPEST:
        return SLOW
    p += 4
    put_one(pen, c"{")
    while p < end:
        code = p[0]
        name = p + 1
        length = strlen(<const char *> name)  # the object ends with NUL
        p = name + length + 1
        if p > end or not is_text(name, length):
            return SLOW
        # A reference to another document, or what looks like a form of ours.
        if length and name[0] == c"$" and (pen.form == EXACT or memcmp(name, b"$ref", 5) == 0):
            return SLOW
        if pen.form == EXTENDED and note_name(pen, base, name, length) == SLOW:
            return SLOW
        found = value_size(code, p, end)
        if found < 0:
            return SLOW
        if not first:
            put_one(pen, c",")
        first = False
        quoted(pen, name, length)
        put_one(pen, c":")
        if write_value(pen, code, p, found, depth + 1) == SLOW:
            return SLOW
        p += found
    pen.named = base
    put_one(pen, c"}")
    return DONE


cdef int write_array(Pen *pen, const uint8_t *p, Py_ssize_t size, int depth) except -1:
    cdef const uint8_t *end = p + size - 1
    cdef const uint8_t *name
    cdef Py_ssize_t length, found, place = 0
    cdef uint8_t code
    cdef char number[24]
    if depth >= DEEPEST:
        return SLOW
    p += 4
    put_one(pen, c"[")
    while p < end:
        code = p[0]
        name = p + 1
        length = strlen(<const char *> name)
        p = name + length + 1
        if p > end:
            return SLOW
        if pen.form == EXACT:
            if length > 20 or whole_text(place, number) != length:
                return SLOW
            if memcmp(name, number, length) != 0:
                return SLOW
        found = value_size(code, p, end)
        if found < 0:
            return SLOW
        if place:
            put_one(pen, c",")
        place += 1
        if write_value(pen, code, p, found, depth + 1) == SLOW:
            return SLOW
        p += found
    put_one(pen, c"]")
    return DONE
