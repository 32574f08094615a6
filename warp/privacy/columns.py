"""The rules of a table with a schema, applied to its columns.  Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final

from warp.cells import listed
from warp.digest.canonical import json_form
from warp.kinds import as_text
from warp.model import UNCHANGED, Cells, Column, Cover, Invalid, Kind, Privacy, TableSchema
from warp.privacy.covering import Covering
from warp.privacy.paths import Paths, Rule, rules_of

_MARK: Final = type(UNCHANGED)
_JSON: Final = (Kind.JSON, Kind.JSON_TEXT)
_UNREAD: Final = (Kind.TEXT, Kind.BYTES)  # may hold JSON; MariaDB has no other column for it
_TOO_DEEP: Final = "JSON that is nested too deeply for the privacy rules"

Make = Callable[[Any], Any]
"""One carrier to what is written for it."""


@dataclass(frozen=True, slots=True)
class CoveredTable:
    """A schema with its rules: what becomes of the schema, and of columns of it."""

    at_source: TableSchema
    schema: TableSchema  # as all others see it
    kept: tuple[tuple[int, Make | None], ...]  # place at the source; None: as it is
    covered_key: bool  # a value of the key is covered
    unmet: tuple[str, ...]  # paths of rules that name nothing here
    opaque: tuple[str, ...]  # those of them into a column that may hold fields and tells none
    broken: tuple[str, ...]  # paths whose rule would make different keys equal

    def columns(self, columns: Sequence[Cells]) -> list[Cells]:
        return [
            columns[place] if make is None else _made(columns[place], make)
            for place, make in self.kept
        ]


def cover_table(schema: TableSchema, privacy: Privacy) -> CoveredTable:
    covering = Covering(privacy.key)
    paths = Paths(rules_of(privacy.rules))
    columns: list[Column] = []
    kept: list[tuple[int, Make | None]] = []
    met: set[str] = set()
    broken: list[str] = []
    opaque: list[str] = []
    covered_key = False
    for place, column in enumerate(schema.columns):
        whole, inside = paths.at(column.source)
        if inside is not None and column.kind not in _JSON:
            if whole is None and column.kind in _UNREAD:
                opaque += inside.paths()
            inside = None
        used = [whole.path] if whole is not None else list(inside.paths()) if inside else []
        met.update(used)
        if column.name in schema.key and used:
            covered_key = True
            by_path = dict(privacy.rules)
            broken += [path for path in used if by_path[path] in (Cover.DROP, Cover.MASK)]
        if whole is not None and whole.cover is Cover.DROP:
            continue
        kept.append((place, _make(column, whole, inside, covering)))
        columns.append(column if whole is None else _column(column, whole.cover))
    return CoveredTable(
        schema,
        replace(schema, columns=tuple(columns)),
        tuple(kept),
        covered_key,
        tuple(path for path, _ in privacy.rules if path not in met),
        tuple(path for path in opaque if path not in met),
        tuple(broken),
    )


def _column(column: Column, cover: Cover) -> Column:
    """The leaves of JSON are covered one by one, but for a hash, which is of all of it."""
    if column.kind in _JSON and cover is not Cover.HASH:
        return column
    return replace(column, kind=Kind.TEXT, limit=None, scale=None)


def _make(
    column: Column, whole: Rule | None, inside: Paths | None, covering: Covering
) -> Make | None:
    if whole is None and inside is None:
        return None
    if column.kind in _JSON and (whole is None or whole.cover is not Cover.HASH):
        return _JsonCells(whole, inside, covering).make
    if whole is None:
        raise AssertionError("only JSON has fields inside")
    cover, kind = whole.cover, column.kind
    if kind is Kind.TEXT:
        return lambda value: covering.text(cover, value)
    family = _FAMILIES[kind]
    return lambda value: covering.other(cover, family, canonical_text(kind, value))


# Numbers of all kinds are one family: a column may become wider at the source.
_FAMILIES: Final = {
    Kind.BOOL: "bool",
    Kind.INT32: "number",
    Kind.INT64: "number",
    Kind.FLOAT32: "number",
    Kind.FLOAT64: "number",
    Kind.DECIMAL: "number",
    Kind.TEXT: "text",
    Kind.BYTES: "bytes",
    Kind.UUID: "uuid",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.DATETIME: "datetime",
    Kind.TIMESTAMP: "timestamp",
    Kind.JSON: "json",
    Kind.JSON_TEXT: "json",
    Kind.OBJECTID: "objectid",
    Kind.TAGGED: "tagged",
}


def canonical_text(kind: Kind, value: Any) -> str:
    """One text for each value: 1.10 and 1.1 are one number, and so are 0 and -0."""
    if kind in _JSON:
        try:
            return json_form(value)
        except (ValueError, RecursionError):
            return as_text(kind, value)
    if _FAMILIES[kind] == "number" and not value:
        return "0"
    text = as_text(kind, value)
    if kind is Kind.DECIMAL and "." in text and "E" not in text:
        return text.rstrip("0").rstrip(".")
    return text


def _made(column: Cells, make: Make) -> list[Any]:
    """Each value once: a column often repeats its values."""
    known: dict[Any, Any] = {}
    made: list[Any] = []
    for cell in listed(column):
        if cell is None or type(cell) is _MARK:
            made.append(cell)
        elif type(cell) is Invalid:
            # What it was, only its source could have said; and that is not to be told.
            made.append(Invalid("a value under a privacy rule"))
        else:
            if cell not in known:
                known[cell] = make(cell)
            made.append(known[cell])
    return made


# ---------------------------------------------------------------- fields inside of JSON


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Object(list[tuple[str, Any]]):
    """An object with its names in order, repeated ones too."""

    __slots__ = ()


_decode: Final = json.JSONDecoder(
    parse_float=_Number,
    parse_int=_Number,
    parse_constant=_Number,
    object_pairs_hook=_Object,
).decode


class _JsonCells:
    """A column of JSON, of which all leaves or some fields are covered."""

    def __init__(self, whole: Rule | None, inside: Paths | None, covering: Covering) -> None:
        self._whole = whole
        self._inside = inside
        self._covering = covering

    def make(self, cell: bytes) -> bytes | Invalid:
        try:
            value = _decode(cell.decode("utf-8", "surrogatepass"))
            if self._whole is not None:
                value = self._covered(value, self._whole.cover)
            elif self._inside is not None:
                value = self._with_fields(value, self._inside)
            return "".join(_spelled(value)).encode()
        except (ValueError, RecursionError):
            return Invalid(_TOO_DEEP)  # never the value as it was

    def _with_fields(self, value: Any, paths: Paths) -> Any:
        if type(value) is list:
            return [self._with_fields(each, paths) for each in value]
        if type(value) is not _Object:
            return value
        fields = _Object()
        for name, field in value:
            whole, inside = paths.at(name)
            if whole is not None:
                if whole.cover is not Cover.DROP:
                    fields.append((name, self._covered(field, whole.cover)))
            elif inside is not None:
                fields.append((name, self._with_fields(field, inside)))
            else:
                fields.append((name, field))
        return fields

    def _covered(self, value: Any, cover: Cover) -> Any:
        if value is None:
            return None
        if type(value) is str:
            return self._covering.text(cover, value)
        if type(value) is _Number:
            return self._covering.other(cover, "number", json_form(value))
        if type(value) is bool:
            return self._covering.other(cover, "bool", "true" if value else "false")
        if cover is Cover.HASH:
            return self._covering.other(cover, "json", json_form("".join(_spelled(value))))
        if type(value) is list:
            return [self._covered(each, cover) for each in value]
        return _Object((name, self._covered(each, cover)) for name, each in value)


def _spelled(value: Any) -> Iterator[str]:
    if type(value) is _Number:
        yield value
    elif type(value) is str:
        yield _quoted(value)
    elif type(value) is _Object:
        before = "{"
        for name, field in value:
            yield f"{before}{_quoted(name)}: "
            yield from _spelled(field)
            before = ", "
        yield "}" if value else "{}"
    elif type(value) is list:
        before = "["
        for each in value:
            yield before
            yield from _spelled(each)
            before = ", "
        yield "]" if value else "[]"
    else:
        yield "null" if value is None else "true" if value else "false"


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair, which only an escape can write
        return encode_basestring_ascii(text)
    return encode_basestring(text)
