# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""A server's reply cut into documents and change events where it lies, without a copy of each.

The twins in Python are `warp.sources.mongodb.cursor` and `warp.sources.mongodb.events`; what is
not surely read here as they would read it is left to them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, strlen

from warp.native.elements cimport length_at, value_size


cdef class Slices:
    """A sequence of documents as bytes, each made when it is asked for."""

    def __cinit__(self):
        self.buffers = []

    def __dealloc__(self):
        PyMem_RawFree(self.starts)
        PyMem_RawFree(self.lengths)

    cdef int make_room(self, Py_ssize_t more) except -1:
        cdef void *moved
        cdef Py_ssize_t room = self.count + more
        if room <= self.room:
            return 0
        if room < 2 * self.room:
            room = 2 * self.room
        moved = PyMem_RawRealloc(self.starts, room * sizeof(char *))
        if moved == NULL:
            raise MemoryError()
        self.starts = <const char **> moved
        moved = PyMem_RawRealloc(self.lengths, room * 4)
        if moved == NULL:
            raise MemoryError()
        self.lengths = <uint32_t *> moved
        self.room = room
        return 0

    cdef void add(self, const char *start, uint32_t length) noexcept:
        self.starts[self.count] = start
        self.lengths[self.count] = length
        self.count += 1

    cdef object at(self, Py_ssize_t place):
        return PyBytes_FromStringAndSize(self.starts[place], self.lengths[place])

    def append(self, bytes document not None):
        if PyBytes_GET_SIZE(document) > 0xFFFFFFFF:
            raise OverflowError("a document of less than 4 GB was expected")
        self.make_room(1)
        self.buffers.append(document)
        self.add(PyBytes_AS_STRING(document), <uint32_t> PyBytes_GET_SIZE(document))

    def extend(self, documents):
        """With those of another one, or any others."""
        cdef Slices other
        cdef Py_ssize_t place, count
        if type(documents) is not Slices:
            for document in documents:
                self.append(document)
            return
        other = <Slices> documents
        count = other.count
        self.make_room(count)
        for place in range(count):
            self.add(other.starts[place], other.lengths[place])
        for buffer in list(other.buffers):
            # A reply's documents come in a row: its bytes need be kept once.
            if not self.buffers or self.buffers[len(self.buffers) - 1] is not buffer:
                self.buffers.append(buffer)

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        cdef Py_ssize_t row
        if isinstance(place, slice):
            return [self.at(row) for row in range(*place.indices(self.count))]
        row = place
        if row < 0:
            row += self.count
        if not 0 <= row < self.count:
            raise IndexError(place)
        return self.at(row)

    def __iter__(self):
        cdef Py_ssize_t row
        for row in range(self.count):
            yield self.at(row)


# -------------------------------------------------------------------------------------------------
# Replies

def cut(bytes reply):
    """(cursor id, namespace, postBatchResumeToken or None, documents, bytes of these).

    None where the reply is not laid out as expected.
    """
    cdef const uint8_t *p = <const uint8_t *> PyBytes_AS_STRING(reply)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(reply)
    cdef const uint8_t *end
    cdef const uint8_t *name
    cdef const uint8_t *value
    cdef Py_ssize_t size, name_length
    cdef uint8_t code
    cdef Slices documents = None
    cdef bint inside = False
    id = namespace = resume = None
    cdef Py_ssize_t total = 0
    if length < 5 or length_at(p) != length or p[length - 1] != 0:
        return None
    end = p + length - 1
    p += 4
    while p < end:
        code = p[0]
        name = p + 1
        name_length = strlen(<const char *> name)  # the reply ends with NUL
        value = name + name_length + 1
        if value > end:
            return None
        size = value_size(code, value, end)
        if size < 0:
            return None
        if not inside:
            if code == 0x03 and name_length == 6 and memcmp(name, b"cursor", 6) == 0:
                inside = True
                end = value + size - 1
                p = value + 4
                continue
        elif name_length == 9 and memcmp(name, b"nextBatch", 9) == 0 or (
            name_length == 10 and memcmp(name, b"firstBatch", 10) == 0
        ):
            if code != 0x04 or documents is not None:
                return None
            documents = _documents(value, size)
            if documents is None:
                return None
            documents.buffers.append(reply)
            total = size
        elif code == 0x12 and name_length == 2 and memcmp(name, b"id", 2) == 0:
            id = _int64(value)
        elif code == 0x02 and name_length == 2 and memcmp(name, b"ns", 2) == 0:
            namespace = PyBytes_FromStringAndSize(<const char *> value + 4, size - 5).decode()
        elif code == 0x03 and name_length == 20 and memcmp(name, b"postBatchResumeToken", 20) == 0:
            resume = PyBytes_FromStringAndSize(<const char *> value, size)
        p = value + size
    if documents is None or id is None or namespace is None:
        return None
    return id, namespace, resume, documents, total


cdef object _int64(const uint8_t *p):
    cdef int64_t found
    memcpy(&found, p, 8)
    return found


cdef Slices _documents(const uint8_t *array, Py_ssize_t size):
    """The documents of an array; None where one of its elements is none."""
    cdef Slices made = Slices()
    cdef const uint8_t *p = array + 4
    cdef const uint8_t *end = array + size - 1
    cdef Py_ssize_t found
    while p < end:
        if p[0] != 0x03:
            return None
        p += 2 + strlen(<const char *> p + 1)  # the array ends with NUL
        if p >= end:
            return None
        found = value_size(0x03, p, end)
        if found < 0:
            return None
        made.make_room(1)
        made.add(<const char *> p, <uint32_t> found)
        p += found
    return made


# -------------------------------------------------------------------------------------------------
# Change events

cdef enum:
    OTHER = 0    # for Python to read
    ROW = 1
    GONE = 2     # an update whose document was deleted before it could be looked up

cdef struct Event:
    int kind
    int operation
    int space              # which of the namespaces
    uint32_t token_length
    uint32_t document_length
    const char *token
    const char *document
    uint64_t version
    uint64_t wall


cdef inline const uint8_t *past(
    const uint8_t *p, const uint8_t *end, const char *expected, Py_ssize_t length
) noexcept nogil:
    """Behind these bytes; NULL where others stand there."""
    if p == NULL or end - p < length or memcmp(p, expected, length) != 0:
        return NULL
    return p + length


cdef inline const uint8_t *past_string(
    const uint8_t *p, const uint8_t *end, const uint8_t **text, Py_ssize_t *length
) noexcept nogil:
    cdef Py_ssize_t size
    if p == NULL:
        return NULL
    size = value_size(0x02, p, end)
    if size < 0:
        return NULL
    text[0] = p + 4
    length[0] = size - 5
    return p + size


cdef class Events:
    """The change events of one reply: rows read where they lie, others left to Python.

    An event is recognised by the layout that `warp.sources.mongodb.events` describes.
    """

    cdef Slices source
    cdef Event *events
    cdef readonly list namespaces  # of its rows, {db, coll} as BSON, in the order of their coming

    def __cinit__(self, Slices source):
        cdef Py_ssize_t place
        self.source = source
        self.namespaces = []
        self.events = <Event *> PyMem_RawMalloc(sizeof(Event) * (source.count + 1))
        if self.events == NULL:
            raise MemoryError()
        for place in range(source.count):
            self._read(place)

    def __dealloc__(self):
        PyMem_RawFree(self.events)

    cdef int _read(self, Py_ssize_t place) except -1:
        cdef const uint8_t *p = <const uint8_t *> self.source.starts[place]
        cdef const uint8_t *end = p + self.source.lengths[place] - 1
        cdef const uint8_t *text
        cdef const uint8_t *key
        cdef const uint8_t *space
        cdef const uint8_t *inner
        cdef Py_ssize_t length, size, at
        cdef Event *event = &self.events[place]
        cdef bint gone = False
        event.kind = OTHER
        event.document = NULL
        p += 4
        if end - p > 110 and p[0] == 0x12:  # a transaction's events: its number and session first
            p = past(p, end, b"\x12txnNumber\0", 11)
            if p == NULL:
                return 0
            p = past(p + 8, end, b"\x03lsid\0", 6)
            if p == NULL:
                return 0
            size = value_size(0x03, p, end)
            if size < 0:
                return 0
            p += size
        p = past(p, end, b"\x03_id\0", 5)
        if p == NULL:
            return 0
        size = value_size(0x03, p, end)
        if size < 0:
            return 0
        inner = past_string(past(p + 4, p + size - 1, b"\x02_data\0", 7), p + size - 1, &text, &length)
        if inner != p + size - 1 or length == 0:
            return 0
        for at in range(length):
            if not (48 <= text[at] <= 57 or 65 <= text[at] <= 70):
                return 0
        event.token = <const char *> text
        event.token_length = <uint32_t> length
        p = past_string(past(p + size, end, b"\x02operationType\0", 15), end, &text, &length)
        if p == NULL:
            return 0
        if length == 6 and memcmp(text, b"insert", 6) == 0:
            event.operation = 99  # Operation.CREATE
        elif length == 6 and memcmp(text, b"update", 6) == 0:
            event.operation = 117
        elif length == 7 and memcmp(text, b"replace", 7) == 0:
            event.operation = 117
        elif length == 6 and memcmp(text, b"delete", 6) == 0:
            event.operation = 100
        else:
            return 0
        p = past(p, end, b"\x11clusterTime\0", 13)
        if p == NULL or end - p < 8:
            return 0
        memcpy(&event.version, p, 8)
        p = past(p + 8, end, b"\x09wallTime\0", 10)
        if p == NULL or end - p < 8:
            return 0
        memcpy(&event.wall, p, 8)
        p += 8
        if past(p, end, b"\x03fullDocument\0", 14) != NULL:
            p += 14
            size = value_size(0x03, p, end)
            if size < 0:
                return 0
            event.document = <const char *> p
            event.document_length = <uint32_t> size
            p += size
        elif past(p, end, b"\x0afullDocument\0", 14) != NULL:
            p += 14
            gone = True
        space = past(p, end, b"\x03ns\0", 4)
        if space == NULL:
            return 0
        size = value_size(0x03, space, end)
        if size < 0:
            return 0
        inner = space + size - 1
        p = past_string(past(space + 4, inner, b"\x02db\0", 4), inner, &text, &length)
        if p == NULL or memchr(text, 0, length) != NULL:
            return 0
        p = past_string(past(p, inner, b"\x02coll\0", 6), inner, &text, &length)
        if p != inner or memchr(text, 0, length) != NULL:
            return 0
        key = past(space + size, end, b"\x03documentKey\0", 13)
        if key == NULL:
            return 0
        length = value_size(0x03, key, end)
        if length < 0:
            return 0
        if event.operation == 100:
            event.document = <const char *> key
            event.document_length = <uint32_t> length
        elif event.document == NULL and not (gone and key + length == end):
            return 0
        event.space = self._space(<const char *> space, size, place)
        event.kind = ROW if event.document != NULL else GONE
        return 0

    cdef int _space(self, const char *start, Py_ssize_t size, Py_ssize_t place) except -1:
        cdef Py_ssize_t number
        cdef bytes known
        cdef Py_ssize_t tried
        for number in range(len(self.namespaces)):
            known = <bytes> self.namespaces[number]
            if PyBytes_GET_SIZE(known) == size and memcmp(PyBytes_AS_STRING(known), start, size) == 0:
                return number
        self.namespaces.append(PyBytes_FromStringAndSize(start, size))
        return len(self.namespaces) - 1

    def __len__(self):
        return self.source.count

    def event(self, Py_ssize_t place):
        """The event's bytes."""
        return self.source[place]

    def namespace(self, Py_ssize_t place):
        """The number of a row's namespace; None where the event is none of a row."""
        if not 0 <= place < self.source.count:
            raise IndexError(place)
        return None if self.events[place].kind == OTHER else self.events[place].space

    def token(self, Py_ssize_t place):
        """The text of a row's token."""
        if self.namespace(place) is None:
            raise ValueError("an event of a row was expected")
        return PyBytes_FromStringAndSize(self.events[place].token, self.events[place].token_length)

    def wall_ms(self, Py_ssize_t place):
        """When a row changed, by the server's clock."""
        if self.namespace(place) is None:
            raise ValueError("an event of a row was expected")
        return self.events[place].wall

    def run(self, Py_ssize_t start, room, known, const uint8_t[::1] wanted):
        """(where it stops, rows): how far rows go on until there are `room` of them.

        Stops before an event that is none of a row, and before a row of a namespace about which
        `wanted` (a byte for each) says 2.  With 1 its rows are counted, with 0 passed over, as all
        rows of versions up to `known` are.
        """
        cdef Py_ssize_t at = start
        cdef Py_ssize_t rows = 0, most = min(room, self.source.count)
        if start < 0:
            raise IndexError(start)
        cdef Event *event
        cdef int64_t passed = known
        while at < self.source.count:
            event = &self.events[at]
            if event.kind == OTHER:
                break
            if event.kind == ROW and not (passed >= 0 and event.version <= <uint64_t> passed):
                if event.space >= wanted.shape[0] or wanted[event.space] == 2:
                    break
                if wanted[event.space]:
                    rows += 1
                    if rows >= most:
                        at += 1
                        break
            at += 1
        return at, rows

    def gather(self, Py_ssize_t start, Py_ssize_t stop, known, const uint8_t[::1] wanted):
        """The rows between two places: (namespace's number, operations, versions, documents) each.

        In the order in which the namespaces come.
        """
        cdef Py_ssize_t at
        cdef Event *event
        cdef int64_t passed = known
        cdef dict parts = {}
        cdef Slices documents
        cdef bytearray operations
        cdef list versions
        cdef int last = -1
        if not 0 <= start <= stop <= self.source.count:
            raise IndexError(start)
        for at in range(start, stop):
            event = &self.events[at]
            if event.kind != ROW or (passed >= 0 and event.version <= <uint64_t> passed):
                continue
            if event.space >= wanted.shape[0] or wanted[event.space] != 1:
                continue
            if event.space != last:
                last = event.space
                if last not in parts:
                    documents = Slices()
                    documents.buffers.extend(self.source.buffers)
                    parts[last] = (bytearray(), [], documents)
                operations, versions, documents = parts[last]
            operations.append(event.operation)
            versions.append(event.version)
            documents.make_room(1)
            documents.add(event.document, event.document_length)
        return [(space, *part) for space, part in parts.items()]
