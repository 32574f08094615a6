"""The elements of a BSON document, one after the other, without a driver.  Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from bson.errors import InvalidBSON

LENGTH: Final = struct.Struct("<i")

# Bytes of a value by its type; what is not here has a length of its own, or is damaged.
_FIXED: Final = {
    0x01: 8,
    0x06: 0,
    0x07: 12,
    0x08: 1,
    0x09: 8,
    0x0A: 0,
    0x10: 4,
    0x11: 8,
    0x12: 8,
    0x13: 16,
    0x7F: 0,
    0xFF: 0,
}


def elements(document: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, name, value) of each element, in order, without looking into the values."""
    at, end = 4, len(document) - 1
    while at < end:
        code = document[at]
        name_end = document.index(0, at + 1)
        start = name_end + 1
        if code in _FIXED:
            size = _FIXED[code]
        elif code in (0x03, 0x04, 0x0F):
            size = LENGTH.unpack_from(document, start)[0]
        elif code in (0x02, 0x0D, 0x0E):
            size = 4 + LENGTH.unpack_from(document, start)[0]
        elif code == 0x05:
            size = 5 + LENGTH.unpack_from(document, start)[0]
        elif code == 0x0C:
            size = 16 + LENGTH.unpack_from(document, start)[0]
        elif code == 0x0B:
            size = document.index(0, document.index(0, start) + 1) + 1 - start
        else:
            raise InvalidBSON(f"a BSON type was expected, found {code:#x}")
        yield code, document[at + 1 : name_end], document[start : start + size]
        at = start + size
