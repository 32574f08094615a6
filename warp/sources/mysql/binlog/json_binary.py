"""MySQL's binary JSON -> JSON text, as the server prints it.

A document is a type byte and a value; objects and arrays hold offsets into themselves, of two
bytes (small) or four (large).  Every number keeps its value: integers up to 64 bits, decimals with
their digits, doubles as the shortest text that reads back the same.
"""

from __future__ import annotations

import base64
import struct
from functools import lru_cache
from math import isfinite
from typing import Final

import orjson

from warp.errors import WarpError
from warp.sources.mysql.binlog.events import damaged

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY = range(4)
_LITERAL, _INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64 = range(4, 11)
_DOUBLE, _STRING, _OPAQUE = 11, 12, 15

_LITERALS: Final = {0: b"null", 1: b"true", 2: b"false"}
_NUMBERS: Final = {
    _INT16: struct.Struct("<h").unpack_from,
    _UINT16: struct.Struct("<H").unpack_from,
    _INT32: struct.Struct("<i").unpack_from,
    _UINT32: struct.Struct("<I").unpack_from,
    _INT64: struct.Struct("<q").unpack_from,
    _UINT64: struct.Struct("<Q").unpack_from,
}
_REAL: Final = struct.Struct("<d").unpack_from
_SMALL_ENTRY: Final = struct.Struct("<BH").unpack_from  # of a value: type, and offset or itself
_LARGE_ENTRY: Final = struct.Struct("<BI").unpack_from
_SMALL_KEY: Final = struct.Struct("<HH").unpack_from  # offset, length
_LARGE_KEY: Final = struct.Struct("<IH").unpack_from
_INLINE: Final = (_LITERAL, _INT16, _UINT16)
_INLINE_LARGE: Final = (_INT32, _UINT32)
# Types of MySQL columns that a document may hold whole.
_NEWDECIMAL, _TIMESTAMP, _DATE, _TIME, _DATETIME = 246, 7, 10, 11, 12
_DEEPEST: Final = 120  # the server allows 100 levels


def json_text(raw: bytes) -> bytes:
    """UTF-8 text of a document.  JSON's null is `null`; a cell that is SQL NULL never comes here.

    An empty value is what the server stores for NULL that slipped into a NOT NULL column, and
    prints as `null`.
    """
    if not raw:
        return b"null"
    try:
        return _value(raw[0], raw, 1, len(raw), 0)
    except (IndexError, struct.error, UnicodeDecodeError, KeyError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error


def _damaged(what: str) -> WarpError:
    return damaged(f"a JSON value that is damaged ({what})")


def _value(kind: int, raw: bytes, place: int, end: int, depth: int) -> bytes:
    if kind == _STRING:
        return _string(_counted(raw, place, end))
    if kind <= _LARGE_ARRAY:
        return _container(kind, raw, place, end, depth)
    if kind == _LITERAL:
        return _LITERALS[raw[place]]
    if kind in _NUMBERS:
        return b"%d" % _NUMBERS[kind](raw, place)[0]
    if kind == _DOUBLE:
        value: float = _REAL(raw, place)[0]
        if not isfinite(value):
            raise _damaged(str(value))
        return double_text(value).encode()
    if kind == _OPAQUE:
        return _opaque(raw[place], _counted(raw, place + 1, end)).encode()
    raise _damaged(f"type {kind}")


def _container(kind: int, raw: bytes, start: int, end: int, depth: int) -> bytes:
    if depth > _DEEPEST:
        raise _damaged("too deep")
    large = kind in (_LARGE_OBJECT, _LARGE_ARRAY)
    width = 4 if large else 2
    is_object = kind in (_SMALL_OBJECT, _LARGE_OBJECT)
    count = _number(raw, start, width, end)
    size = _number(raw, start + width, width, end)
    if start + size > end:
        raise _damaged("a container longer than its surroundings")
    end = start + size
    keys_at = start + 2 * width
    values_at = keys_at + (count * (width + 2) if is_object else 0)
    if values_at + count * (1 + width) > end:
        raise _damaged("more values than their container holds")
    unpack = _LARGE_ENTRY if large else _SMALL_ENTRY
    parts = []
    for entry in range(values_at, values_at + count * (1 + width), 1 + width):
        inner, place = unpack(raw, entry)
        if inner in _INLINE or (large and inner in _INLINE_LARGE):
            place = entry + 1  # small enough to stand in the entry itself
        else:
            place += start
        if place >= end:
            raise _damaged("a value beyond its container")
        parts.append(_value(inner, raw, place, end, depth + 1))
    if not is_object:
        return b"[" + b", ".join(parts) + b"]"
    unpack = _LARGE_KEY if large else _SMALL_KEY
    for number, entry in enumerate(range(keys_at, values_at, width + 2)):
        place, length = unpack(raw, entry)
        place += start
        if place + length > end:
            raise _damaged("a key beyond its object")
        parts[number] = _key(raw[place : place + length]) + parts[number]
    return b"{" + b", ".join(parts) + b"}"


@lru_cache(maxsize=10_000)
def _key(raw: bytes) -> bytes:
    """Documents of one column have the same few keys."""
    return _string(raw) + b": "


def _number(raw: bytes, place: int, width: int, end: int) -> int:
    if place + width > end:
        raise _damaged("a number beyond its container")
    return int.from_bytes(raw[place : place + width], "little")


def _counted(raw: bytes, place: int, end: int) -> bytes:
    """Bytes behind their length, of which each byte gives seven bits."""
    length = shift = 0
    while True:
        byte = raw[place]
        place += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise _damaged("a length of more than five bytes")
    if place + length > end:
        raise _damaged("a text beyond its container")
    return raw[place : place + length]


def _string(raw: bytes) -> bytes:
    return orjson.dumps(raw.decode())


def double_text(value: float) -> str:
    """As the server prints a double in JSON: the shortest digits, always with a point or an `e`."""
    if value == 0:
        return "-0.0" if str(value).startswith("-") else "0.0"
    sign = "-" if value < 0 else ""
    digits, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = digits.partition(".")
    point = len(whole) + int(exponent or 0)
    figures = whole + ("" if fraction == "0" else fraction)
    stripped = figures.lstrip("0")
    point -= len(figures) - len(stripped)
    figures = stripped.rstrip("0")
    # From 1e15 on an exponent, unless that would hide that there are halves or tenths.
    if -15 < point <= 15 or (point == 16 and len(figures) == 17):
        if point <= 0:
            return f"{sign}0.{'0' * -point}{figures}"
        if point >= len(figures):
            return f"{sign}{figures}{'0' * (point - len(figures))}.0"
        return f"{sign}{figures[:point]}.{figures[point:]}"
    mantissa = figures[0] + (f".{figures[1:]}" if len(figures) > 1 else "")
    return f"{sign}{mantissa}e{point - 1}"


def _opaque(kind: int, raw: bytes) -> str:
    if kind == _NEWDECIMAL:
        return _decimal(raw)
    if kind in (_DATE, _DATETIME, _TIMESTAMP):
        return f'"{_moment(kind, raw)}"'
    if kind == _TIME:
        return f'"{_time(raw)}"'
    text = base64.b64encode(raw).decode()
    lines = (text[start : start + 76] for start in range(0, len(text), 76))
    return f'"base64:type{kind}:' + "\\n".join(lines) + '"'


_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def _decimal(raw: bytes) -> str:
    """Precision, scale, then the groups of digits as in a DECIMAL column."""
    digits, scale = raw[0], raw[1]
    groups = bytearray(raw[2:])
    negative = not groups[0] & 0x80
    groups[0] ^= 0x80
    if negative:
        groups = bytearray(byte ^ 0xFF for byte in groups)
    first = (digits - scale) % 9
    widths = [first] * bool(first) + [9] * ((digits - scale) // 9 + scale // 9)
    widths += [scale % 9] * bool(scale % 9)
    text, place = "", 0
    for width in widths:
        size = _DIGIT_BYTES[width]
        part = groups[place : place + size]
        if len(part) != size:
            raise _damaged("a decimal cut short")
        text += f"{int.from_bytes(part, 'big'):0{width}}"
        place += size
    whole, fraction = text[: digits - scale].lstrip("0") or "0", text[digits - scale :]
    return ("-" if negative else "") + whole + (f".{fraction}" if scale else "")


def _packed(raw: bytes) -> int:
    if len(raw) != 8:
        raise _damaged(f"a time of {len(raw)} bytes")
    return int.from_bytes(raw, "little", signed=True)


def _moment(kind: int, raw: bytes) -> str:
    packed = abs(_packed(raw))
    whole, microseconds = packed >> 24, packed & 0xFFFFFF
    year, month = divmod(whole >> 22, 13)
    day = f"{year:04}-{month:02}-{whole >> 17 & 31:02}"
    if kind == _DATE:
        return day
    return f"{day} {whole >> 12 & 31:02}:{whole >> 6 & 63:02}:{whole & 63:02}.{microseconds:06}"


def _time(raw: bytes) -> str:
    packed = _packed(raw)
    sign, packed = ("-" if packed < 0 else ""), abs(packed)
    whole, microseconds = packed >> 24, packed & 0xFFFFFF
    return f"{sign}{whole >> 12 & 0x3FF:02}:{whole >> 6 & 63:02}:{whole & 63:02}.{microseconds:06}"
