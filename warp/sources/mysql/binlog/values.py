"""Which kind a column of the log is, and the code that reads one of its cells.

The code is Python source: it reads from `b` (an event) at `p`, assigns the carrier of the kind to
`{c}` and moves `p` on.  A value that the server itself would show as damaged becomes `Invalid`
with the server's own text; it is never NULL and never another value.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Context
from functools import partial
from typing import Any, Final

from warp.errors import SourceRefused
from warp.model import Invalid, Kind
from warp.sources.mysql.binlog import charsets
from warp.sources.mysql.binlog.dates import (
    DATES,
    DATETIMES,
    bad_date,
    bad_datetime,
    fraction_size,
    fraction_text,
    old_datetime_value,
    old_time_text,
    time_text,
)
from warp.sources.mysql.binlog.events import damaged
from warp.sources.mysql.binlog.json_binary import json_text
from warp.sources.mysql.binlog.table_map import ColumnType, LoggedColumn

T = ColumnType


@dataclass(frozen=True, slots=True)
class Reading:
    """How the cells of one column are read.

    `fixed` is the `struct` format of a cell that needs no more than that, so that neighbours are
    read together; `then` is what is left to do with what it gives.
    """

    kind: Kind
    lines: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()  # move `p` on without reading
    fixed: str = ""
    then: str = ""
    names: Mapping[str, Any] = field(default_factory=dict)  # what the code refers to


def reading(column: LoggedColumn, declared: str = "", *, table: str = "") -> Reading:
    """How to read a column.

    `declared` is its type as `information_schema.columns.data_type` has it: the log does not tell
    MariaDB's `uuid`, `inet4` and `inet6` from a CHAR.
    """
    try:
        return _READINGS[column.type](column, declared.lower())
    except KeyError:
        raise SourceRefused(
            f"expected a column type that can be read from the log, found {column.type.name}; "
            "leave the column's table out of `tables:`, or change the column with "
            f"ALTER TABLE … MODIFY {column.name}",
            place=f"{table}.{column.name}",
        ) from None
    except _UnknownCharset as error:
        raise SourceRefused(
            f"expected a character set that can be read here, found {error}; change it with "
            f"ALTER TABLE … MODIFY {column.name} … CHARACTER SET utf8mb4",
            place=f"{table}.{column.name}",
        ) from None


class _UnknownCharset(Exception):
    pass


# -- numbers

_INTEGERS: Final = {T.TINY: "b", T.SHORT: "h", T.LONG: "i", T.LONGLONG: "q"}


def _integer(column: LoggedColumn, declared: str) -> Reading:
    code = _INTEGERS[column.type]
    if column.type is T.LONGLONG:
        if column.unsigned:  # beyond INT64
            return Reading(Kind.DECIMAL, fixed="Q", then="{c}=Decimal({c})")
        return Reading(Kind.INT64, fixed="q")
    if column.unsigned:
        kind = Kind.INT64 if column.type is T.LONG else Kind.INT32
        return Reading(kind, fixed=code.upper())
    return Reading(Kind.INT32, fixed=code)


def _int24(column: LoggedColumn, declared: str) -> Reading:
    signed = "" if column.unsigned else ",signed=True"
    return Reading(Kind.INT32, (f"{{c}}=number(b[p:p+3],'little'{signed}); p+=3",), skip=("p+=3",))


def _float(column: LoggedColumn, declared: str) -> Reading:
    if column.type is T.FLOAT:
        return Reading(Kind.FLOAT32, fixed="f")
    return Reading(Kind.FLOAT64, fixed="d")


def _year(column: LoggedColumn, declared: str) -> Reading:
    return Reading(Kind.INT32, fixed="B", then="{c}={c} and {c}+1900")


_DIGIT_BYTES: Final = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_CONTEXT: Final = Context(prec=70)


def _decimal(column: LoggedColumn, declared: str) -> Reading:
    """Groups of nine digits in four bytes, big endian; negative ones inverted.

    All groups are one number, of which each is cut out.
    """
    digits, scale = column.size, column.scale
    whole, first = divmod(digits - scale, 9)
    parts, last = divmod(scale, 9)
    groups = [(_DIGIT_BYTES[first], first), *[(4, 9)] * (whole + parts), (_DIGIT_BYTES[last], last)]
    size = sum(width for width, _ in groups)
    left, below, terms = 8 * size, digits, []
    for width, count in groups:
        if width:
            left, below = left - 8 * width, below - count
            mask = (1 << 8 * width) - 1
            terms.append(f"(v>>{left}&{mask})*{10**below}")
    sign = 1 << 8 * size - 1
    exponent = f".scaleb(-{scale},exact)" if scale else ""
    lines = (
        f"v=number(b[p:p+{size}],'big'); p+={size}",
        f"if v&{sign}:",
        f" v^={sign}; {{c}}=Decimal({'+'.join(terms)}){exponent}",
        "else:",
        f" v^={sign - 1}; {{c}}=Decimal(-({'+'.join(terms)})){exponent}",
    )
    return Reading(Kind.DECIMAL, lines, skip=(f"p+={size}",), names={"exact": _CONTEXT})


def _bit(column: LoggedColumn, declared: str) -> Reading:
    size = (column.size + 7) // 8
    raw = f"number(b[p:p+{size}],'big')"
    kind = Kind.INT64
    if column.size == 1:
        kind, raw = Kind.BOOL, f"{raw}!=0"
    elif column.size == 64:
        kind, raw = Kind.DECIMAL, f"Decimal({raw})"
    return Reading(kind, (f"{{c}}={raw}; p+={size}",), skip=(f"p+={size}",))


# -- dates and times


def _date(column: LoggedColumn, declared: str) -> Reading:
    lines = (
        "v=b[p]|b[p+1]<<8|b[p+2]<<16; p+=3",
        "try: {c}=dates[v]",
        "except KeyError: {c}=bad_date(v)",
    )
    names = {"dates": DATES, "bad_date": bad_date}
    return Reading(Kind.DATE, lines, skip=("p+=3",), names=names)


def _datetime2(column: LoggedColumn, declared: str) -> Reading:
    size, unit = fraction_size(column.size)
    fraction = f"number(b[p-{size}:p],'big')*{unit}" if size else "0"
    lines = (
        f"v=number(b[p:p+5],'big'); p+={5 + size}",
        f"try: {{c}}=datetimes[v>>17]+((v>>12&31)*3600+(v>>6&63)*60+(v&63))*1000000+{fraction}",
        f"except KeyError: {{c}}=bad_datetime(v,{fraction},{column.size})",
    )
    names = {"datetimes": DATETIMES, "bad_datetime": bad_datetime}
    return Reading(Kind.DATETIME, lines, skip=(f"p+={5 + size}",), names=names)


def _timestamp2(column: LoggedColumn, declared: str) -> Reading:
    size, unit = fraction_size(column.size)
    zero = Invalid("0000-00-00 00:00:00" + fraction_text(0, column.size))
    fraction = f"+number(b[p+4:p+{4 + size}],'big')*{unit}" if size else ""
    lines = (f"{{c}}=number(b[p:p+4],'big')*1000000{fraction} or zero{{i}}; p+={4 + size}",)
    # Zero seconds and no fraction is how the zero date is kept: no row can say 1970-01-01 00:00:00.
    return Reading(Kind.TIMESTAMP, lines, skip=(f"p+={4 + size}",), names={"zero{i}": zero})


def _time2(column: LoggedColumn, declared: str) -> Reading:
    """Text: TIME is a span of up to 838 hours, not a time of day."""
    size, _ = fraction_size(column.size)
    width, zero = 3 + size, 1 << 8 * (3 + size) - 1
    read = f"time_text(number(b[p:p+{width}],'big')-{zero},{size},{column.size})"
    return Reading(
        Kind.TEXT,
        (f"{{c}}={read}; p+={width}",),
        skip=(f"p+={width}",),
        names={"time_text": time_text},
    )


# Before MySQL 5.6, and MariaDB with mysql56_temporal_format=OFF; without fractions.


def _old_time(column: LoggedColumn, declared: str) -> Reading:
    read = "old_time_text(number(b[p:p+3],'little',signed=True))"
    return Reading(
        Kind.TEXT,
        (f"{{c}}={read}; p+=3",),
        skip=("p+=3",),
        names={"old_time_text": old_time_text},
    )


def _old_datetime(column: LoggedColumn, declared: str) -> Reading:
    return Reading(
        Kind.DATETIME,
        fixed="Q",
        then="{c}=old_datetime({c})",
        names={"old_datetime": old_datetime_value},
    )


def _old_timestamp(column: LoggedColumn, declared: str) -> Reading:
    zero = Invalid("0000-00-00 00:00:00")
    return Reading(
        Kind.TIMESTAMP, fixed="I", then="{c}={c}*1000000 or zero{i}", names={"zero{i}": zero}
    )


# -- text and bytes


def _long(width: int) -> str:
    """The length before a value, as code that gives the place after the value."""
    if width == 1:
        return "n=b[p]+p+1"
    if width == 2:
        return "n=(b[p]|b[p+1]<<8)+p+2"
    return f"n=number(b[p:p+{width}],'little')+p+{width}"


def _of_length(column: LoggedColumn, width: int, declared: str = "") -> Reading:
    """A value behind its length: text, or bytes where the character set is binary."""
    where, skip = _long(width), (f"{_long(width)}; p=n",)
    cell = f"b[p+{width}:n]"
    charset = column.charset
    if column.collation is None or charset == charsets.BINARY:
        return Reading(Kind.BYTES, (f"{where}; {{c}}={cell}; p=n",), skip=skip)
    read, names = _text(column, cell)
    lines = (
        where,
        f"try: {{c}}={read}",
        f"except UnicodeDecodeError: {{c}}=bad_text({cell})",
        "p=n",
    )
    return Reading(Kind.TEXT, lines, skip=skip, names={"bad_text": _bad_text, **names})


def _text(column: LoggedColumn, cell: str) -> tuple[str, dict[str, Any]]:
    charset = column.charset
    decode = None if charset is None else charsets.decoder(charset)
    if charset is None or decode is None:
        raise _UnknownCharset(charset or f"collation {column.collation}")
    if charsets.is_utf8(charset):
        return f"{cell}.decode()", {}
    return f"text{{i}}({cell})", {"text{i}": decode}


def _bad_text(raw: bytes) -> Invalid:
    return Invalid(raw.decode("utf-8", "backslashreplace"))


def _varchar(column: LoggedColumn, declared: str) -> Reading:
    return _of_length(column, 1 if column.size < 256 else 2)


def _blob(column: LoggedColumn, declared: str) -> Reading:
    return _of_length(column, column.size)


def _string(column: LoggedColumn, declared: str) -> Reading:
    width = 1 if column.size < 256 else 2
    if declared in _PACKED:
        kind, convert = _PACKED[declared]
        line = f"{_long(width)}; {{c}}=packed{{i}}(b[p+{width}:n].ljust({column.size},b'\\0')); p=n"
        return Reading(kind, (line,), skip=(f"{_long(width)}; p=n",), names={"packed{i}": convert})
    if column.charset == charsets.BINARY:
        # The log leaves out the zeros at its end, a SELECT does not.
        line = f"{_long(width)}; {{c}}=b[p+{width}:n].ljust({column.size},b'\\0'); p=n"
        return Reading(Kind.BYTES, (line,), skip=(f"{_long(width)}; p=n",))
    return _of_length(column, width)


def _inet4(raw: bytes) -> str:
    return ".".join(map(str, raw))


def _inet6(raw: bytes) -> str:
    """As MariaDB shows it: unlike `inet_ntop` it shortens a single zero as well."""
    words = struct.unpack(">8H", raw)
    at, length, place = 0, 0, 0
    while place < 8:
        run = 0
        while place + run < 8 and words[place + run] == 0:
            run += 1
        if run > length:
            at, length = place, run
        place += run + 1
    if at == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        return f"::{'ffff:' if length == 5 else ''}{_inet4(raw[12:])}"
    texts = [f"{word:x}" for word in words]
    if not length:
        return ":".join(texts)
    return f"{':'.join(texts[:at])}::{':'.join(texts[at + length :])}"


# MariaDB's types of fixed length that the log shows as CHAR.
_PACKED: Final[dict[str, tuple[Kind, Any]]] = {
    "uuid": (Kind.UUID, bytes),
    "inet6": (Kind.TEXT, _inet6),
    "inet4": (Kind.TEXT, _inet4),
}


def _choices(column: LoggedColumn) -> list[str]:
    charset = column.charset
    decode = None if charset is None else charsets.decoder(charset)
    if charset == charsets.BINARY:
        decode = partial(str, encoding="latin-1")
    if decode is None:
        raise _UnknownCharset(charset or f"collation {column.collation}")
    try:
        return [decode(value) for value in column.values]
    except UnicodeDecodeError as error:
        raise damaged(f"the values of {column.name}, which are no text ({error})") from error


def _enum(column: LoggedColumn, declared: str) -> Reading:
    # Number 0 is what a value that is none of them became: the server shows ''.
    values = ["", *_choices(column)]
    number = "b[p]" if column.size == 1 else "b[p]|b[p+1]<<8"
    lines = (f"{{c}}=values{{i}}[{number}]; p+={column.size}",)
    return Reading(Kind.TEXT, lines, (f"p+={column.size}",), names={"values{i}": values})


_REMEMBERED: Final = 100_000  # combinations of a set's values


class _Sets(dict[int, str]):
    def __init__(self, values: list[str]) -> None:
        self._values = values

    def __missing__(self, bits: int) -> str:
        if bits >> len(self._values):
            raise IndexError(bits)
        text = ",".join(value for n, value in enumerate(self._values) if bits >> n & 1)
        if len(self) < _REMEMBERED:
            self[bits] = text
        return text


def _set(column: LoggedColumn, declared: str) -> Reading:
    size = column.size
    lines = (f"{{c}}=values{{i}}[number(b[p:p+{size}],'little')]; p+={size}",)
    return Reading(Kind.TEXT, lines, (f"p+={size}",), names={"values{i}": _Sets(_choices(column))})


def _json(column: LoggedColumn, declared: str) -> Reading:
    width = column.size
    line = f"{_long(width)}; {{c}}=json_text(b[p+{width}:n]); p=n"
    return Reading(
        Kind.JSON, (line,), skip=(f"{_long(width)}; p=n",), names={"json_text": json_text}
    )


def _raw(column: LoggedColumn, declared: str) -> Reading:
    """Geometry (its SRID and WKB) and vectors, as the server keeps them."""
    width = column.size
    return Reading(
        Kind.BYTES,
        (f"{_long(width)}; {{c}}=b[p+{width}:n]; p=n",),
        skip=(f"{_long(width)}; p=n",),
    )


def _inflated(raw: bytes) -> bytes:
    """A value of a MariaDB COMPRESSED column: method and width of the length, the length, zlib."""
    if not raw:
        return raw
    method, bare, width = raw[0] >> 4, raw[0] & 8, raw[0] & 7
    if method == 0:
        return raw[1:]
    if method != 8:
        raise damaged(f"a COMPRESSED value by method {method}, which is not zlib")
    try:
        value = zlib.decompress(raw[1 + width :], -zlib.MAX_WBITS if bare else zlib.MAX_WBITS)
    except zlib.error as error:
        raise damaged(f"a COMPRESSED value that zlib refuses ({error})") from error
    if len(value) != int.from_bytes(raw[1 : 1 + width], "big"):
        raise damaged("a COMPRESSED value of another length than it says")
    return value


def _compressed(column: LoggedColumn, declared: str) -> Reading:
    width = column.size
    if column.type is T.VARCHAR_COMPRESSED:
        width = 1 if column.size < 256 else 2
    lines: tuple[str, ...] = (f"{_long(width)}; v=inflated(b[p+{width}:n]); p=n",)
    names: dict[str, Any] = {"inflated": _inflated, "bad_text": _bad_text}
    skip = (f"{_long(width)}; p=n",)
    if column.collation is None or column.charset == charsets.BINARY:
        return Reading(Kind.BYTES, (*lines, "{c}=v"), skip, names=names)
    read, more = _text(column, "v")
    lines += (f"try: {{c}}={read}", "except UnicodeDecodeError: {c}=bad_text(v)")
    return Reading(Kind.TEXT, lines, skip, names={**names, **more})


_READINGS: Final[dict[ColumnType, Callable[[LoggedColumn, str], Reading]]] = {
    **dict.fromkeys((T.TINY, T.SHORT, T.LONG, T.LONGLONG), _integer),
    T.INT24: _int24,
    T.FLOAT: _float,
    T.DOUBLE: _float,
    T.YEAR: _year,
    T.NEWDECIMAL: _decimal,
    T.BIT: _bit,
    T.DATE: _date,
    T.DATETIME2: _datetime2,
    T.TIMESTAMP2: _timestamp2,
    T.TIME2: _time2,
    T.TIME: _old_time,
    T.DATETIME: _old_datetime,
    T.TIMESTAMP: _old_timestamp,
    T.VARCHAR: _varchar,
    T.VAR_STRING: _varchar,
    T.STRING: _string,
    **dict.fromkeys((T.BLOB, T.TINY_BLOB, T.MEDIUM_BLOB, T.LONG_BLOB), _blob),
    T.ENUM: _enum,
    T.SET: _set,
    T.JSON: _json,
    T.GEOMETRY: _raw,
    T.VECTOR: _raw,
    T.VARCHAR_COMPRESSED: _compressed,
    T.BLOB_COMPRESSED: _compressed,
}
