"""TABLE_MAP: what the log says about the table whose rows come next.

Parsed lazily: a table nobody selected costs its name only, whatever types it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from warp.errors import SourceRefused
from warp.sources.mysql.binlog.charsets import charset_of
from warp.sources.mysql.binlog.events import damaged, length_at

MAP_FROM: Final = 27  # the header, a table id of 6 bytes, flags of 2


class ColumnType(IntEnum):
    DECIMAL = 0
    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    NULL = 6
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    TYPED_ARRAY = 20
    BLOB_COMPRESSED = 140  # MariaDB
    VARCHAR_COMPRESSED = 141  # MariaDB
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    TINY_BLOB = 249
    MEDIUM_BLOB = 250
    LONG_BLOB = 251
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


T = ColumnType
_META_SIZE: Final = {
    **dict.fromkeys((T.FLOAT, T.DOUBLE, T.TIMESTAMP2, T.DATETIME2, T.TIME2), 1),
    **dict.fromkeys((T.BLOB, T.JSON, T.GEOMETRY, T.VECTOR, T.BLOB_COMPRESSED), 1),
    **dict.fromkeys((T.TINY_BLOB, T.MEDIUM_BLOB, T.LONG_BLOB), 1),
    **dict.fromkeys((T.VARCHAR, T.VARCHAR_COMPRESSED, T.BIT, T.NEWDECIMAL), 2),
    **dict.fromkeys((T.ENUM, T.SET, T.VAR_STRING, T.STRING), 2),
    **dict.fromkeys((T.TINY, T.SHORT, T.LONG, T.LONGLONG, T.INT24, T.YEAR, T.NULL), 0),
    **dict.fromkeys((T.TIMESTAMP, T.DATE, T.TIME, T.DATETIME, T.NEWDATE, T.DECIMAL), 0),
}
# Both servers give YEAR, which is unsigned, a bit of its own (seen on 10.11 and 9.7).
_NUMERIC: Final = {
    *(T.TINY, T.SHORT, T.LONG, T.LONGLONG, T.INT24, T.FLOAT, T.DOUBLE, T.NEWDECIMAL, T.YEAR),
}
_CHARACTER: Final = {
    *(T.STRING, T.VAR_STRING, T.VARCHAR, T.VARCHAR_COMPRESSED),
    *(T.BLOB, T.TINY_BLOB, T.MEDIUM_BLOB, T.LONG_BLOB, T.BLOB_COMPRESSED),
}

# Optional metadata, each as (type u8, length, value).
_SIGNEDNESS, _DEFAULT_CHARSET, _COLUMN_CHARSET, _COLUMN_NAME = 1, 2, 3, 4
_SET_VALUES, _ENUM_VALUES, _PRIMARY_KEY, _PREFIX_KEY = 5, 6, 8, 9
_ENUM_DEFAULT_CHARSET, _ENUM_COLUMN_CHARSET, _VISIBILITY = 10, 11, 12


@dataclass(frozen=True, slots=True)
class LoggedColumn:
    name: str
    type: ColumnType  # never STRING for an enum or a set
    size: int  # bytes: the longest value, or of the length before it; digits of a fraction
    scale: int = 0  # of a NEWDECIMAL
    unsigned: bool = False
    collation: int | None = None
    values: tuple[bytes, ...] = ()  # of an enum or a set, in the column's character set
    visible: bool = True

    @property
    def charset(self) -> str | None:
        return None if self.collation is None else charset_of(self.collation)


@dataclass(frozen=True, slots=True)
class TableMap:
    namespace: str
    name: str
    columns: tuple[LoggedColumn, ...]
    primary_key: tuple[int, ...]  # places of its columns; () where the log does not say

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


def names_at(event: bytes, end: int) -> tuple[str, str, int]:
    """(namespace, table, the place after them): all that a table nobody selected needs."""
    try:
        size = event[MAP_FROM]
        after = MAP_FROM + 2 + size
        namespace = event[MAP_FROM + 1 : after - 1].decode()
        size = event[after]
        name = event[after + 1 : after + 1 + size].decode()
    except (IndexError, UnicodeDecodeError) as error:
        raise damaged("a table map without its names") from error
    after += size + 2
    if after > end:
        raise damaged("a table map that ends within its names")
    return namespace, name, after


@dataclass(slots=True)
class _Details:
    """The optional metadata as it comes."""

    names: list[str] = field(default_factory=list)
    signedness: bytes | None = None
    charsets: list[int] | None = None
    default_charset: tuple[int, dict[int, int]] | None = None
    enum_charsets: list[int] | None = None
    enum_default: tuple[int, dict[int, int]] | None = None
    enums: list[tuple[bytes, ...]] = field(default_factory=list)
    sets: list[tuple[bytes, ...]] = field(default_factory=list)
    primary_key: tuple[int, ...] = ()
    visibility: bytes | None = None


def table_map_of(event: bytes, end: int, *, mariadb: bool = False) -> TableMap:
    """`mariadb` says who wrote it: only MariaDB counts geometries among columns of text."""
    namespace, name, place = names_at(event, end)
    table = f"{namespace}.{name}"
    try:
        count, place = length_at(event, place)
        kinds = event[place : place + count]
        place += count
        meta_size, place = length_at(event, place)
        shapes = list(_shapes(kinds, event[place : place + meta_size], table))
        place += meta_size + (count + 7) // 8  # which columns may be NULL says each row anew
        if place > end or len(kinds) != count:
            raise damaged("a table map that is cut short", place=table)
        details = _details(event[place:end])
    except (IndexError, ValueError) as error:
        raise damaged(f"a table map that cannot be read ({error})", place=table) from error
    if len(details.names) != count:
        raise SourceRefused(
            "expected the names of the columns in the log, found none: "
            "binlog_row_metadata is MINIMAL, or was when this part of the log was written; "
            "run `SET GLOBAL binlog_row_metadata = FULL` at the source, then "
            "`cartridge-warp resync`, since the older part stays as it is",
            place=table,
        )
    if any(place >= count for place in details.primary_key):
        raise damaged("a table map with a key of columns that are not there", place=table)
    if mariadb:
        _refuse_old_times(shapes, details.names, table)
    character = _CHARACTER | {T.GEOMETRY} if mariadb else _CHARACTER
    try:
        columns = tuple(_columns(shapes, details, character))
    except IndexError as error:
        raise damaged("a table map with fewer character sets than texts", place=table) from error
    return TableMap(namespace, name, columns, details.primary_key)


def _refuse_old_times(
    shapes: list[tuple[ColumnType, int, int]], names: list[str], table: str
) -> None:
    """MariaDB's old form of times has the same type with and without a fraction.

    The log does not say which it is, and a guess has shown wrong values.
    """
    for name, (kind, _, _) in zip(names, shapes, strict=True):
        if kind in (T.TIME, T.DATETIME, T.TIMESTAMP):
            raise SourceRefused(
                f"expected times in the form of MySQL 5.6, found the column {name} in MariaDB's "
                "older one (mysql56_temporal_format was OFF when it was made); run `SET GLOBAL "
                "mysql56_temporal_format = ON` and `ALTER TABLE … FORCE` at the source, then "
                "`cartridge-warp resync`, since the older part of the log stays as it is",
                place=table,
            )


def _shapes(kinds: bytes, meta: bytes, table: str) -> Iterator[tuple[ColumnType, int, int]]:
    """(type, size, scale) of each column."""
    place = 0
    for number, code in enumerate(kinds):
        if code not in _META_SIZE:
            raise SourceRefused(
                f"expected column types that MySQL 9 or MariaDB 11 has, found type {code} in "
                f"column {number + 1}; leave this table out of `tables:`",
                place=table,
            )
        kind, width = ColumnType(code), _META_SIZE[ColumnType(code)]
        first = meta[place] if width else 0
        second = meta[place + 1] if width == 2 else 0
        place += width
        if kind in (T.VARCHAR, T.VARCHAR_COMPRESSED):
            yield kind, first | second << 8, 0
        elif kind is T.NEWDECIMAL:
            yield kind, first, second
        elif kind is T.BIT:
            yield kind, second * 8 + first, 0
        elif kind in (T.STRING, T.VAR_STRING):
            # A CHAR over 255 bytes hides two bits of its length in its type's byte, inverted.
            if first & 0x30 != 0x30:
                yield kind, second | ((first & 0x30) ^ 0x30) << 4, 0
            elif first in (T.ENUM, T.SET):
                yield ColumnType(first), second, 0
            else:
                yield kind, second, 0
        elif kind in (T.ENUM, T.SET):
            yield kind, second, 0
        else:
            yield kind, first, 0
    if place != len(meta):
        raise damaged(f"{len(meta)} bytes about its columns, of which {place} are due", place=table)


def _details(raw: bytes) -> _Details:
    details, place = _Details(), 0
    while place < len(raw):
        sort = raw[place]
        size, place = length_at(raw, place + 1)
        part = raw[place : place + size]
        if len(part) != size:
            raise IndexError(place)
        place += size
        if sort == _SIGNEDNESS:
            details.signedness = part
        elif sort == _COLUMN_NAME:
            details.names = [name.decode() for name in _texts(part)]
        elif sort == _COLUMN_CHARSET:
            details.charsets = list(_numbers(part))
        elif sort == _DEFAULT_CHARSET:
            details.default_charset = _default(part)
        elif sort == _ENUM_COLUMN_CHARSET:
            details.enum_charsets = list(_numbers(part))
        elif sort == _ENUM_DEFAULT_CHARSET:
            details.enum_default = _default(part)
        elif sort == _ENUM_VALUES:
            details.enums = list(_choices(part))
        elif sort == _SET_VALUES:
            details.sets = list(_choices(part))
        elif sort == _PRIMARY_KEY:
            details.primary_key = tuple(_numbers(part))
        elif sort == _PREFIX_KEY:
            details.primary_key = tuple(_numbers(part))[::2]
        elif sort == _VISIBILITY:
            details.visibility = part
        # Anything else is newer than us and about a column's type: the rows do not need it.
    return details


def _numbers(raw: bytes) -> Iterator[int]:
    place = 0
    while place < len(raw):
        number, place = length_at(raw, place)
        yield number


def _default(raw: bytes) -> tuple[int, dict[int, int]]:
    first, *others = _numbers(raw)  # ValueError where there is none
    return first, dict(zip(others[::2], others[1::2], strict=True))


def _texts(raw: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(raw):
        size, place = length_at(raw, place)
        yield raw[place : place + size]
        place += size


def _choices(raw: bytes) -> Iterator[tuple[bytes, ...]]:
    """The values of each enum (or each set), which come as (count, texts…)."""
    place = 0
    while place < len(raw):
        count, place = length_at(raw, place)
        texts = []
        for _ in range(count):
            size, place = length_at(raw, place)
            texts.append(raw[place : place + size])
            place += size
        yield tuple(texts)


def _columns(
    shapes: list[tuple[ColumnType, int, int]], details: _Details, character: set[ColumnType]
) -> Iterator[LoggedColumn]:
    numeric = characters = choices = 0
    enums, sets = iter(details.enums), iter(details.sets)
    for number, (kind, size, scale) in enumerate(shapes):
        unsigned, collation = False, None
        values: tuple[bytes, ...] = ()
        if kind in _NUMERIC:
            unsigned = _bit(details.signedness, numeric)
            numeric += 1
        elif kind in character:
            collation = _collation(details.charsets, details.default_charset, characters)
            characters += 1
        elif kind in (T.ENUM, T.SET):
            collation = _collation(details.enum_charsets, details.enum_default, choices)
            choices += 1
            values = next(enums if kind is T.ENUM else sets, ())
        visible = details.visibility is None or _bit(details.visibility, number)
        yield LoggedColumn(
            details.names[number], kind, size, scale, unsigned, collation, values, visible
        )


def _bit(bits: bytes | None, number: int) -> bool:
    """A bit of a set that begins with the highest one of the first byte."""
    return bits is not None and bool(bits[number // 8] & 0x80 >> number % 8)


def _collation(
    each: list[int] | None, default: tuple[int, dict[int, int]] | None, number: int
) -> int | None:
    if each is not None:
        return each[number]
    if default is not None:
        return default[1].get(number, default[0])
    return None
