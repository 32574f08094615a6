"""Values moved out of `_extra` by us, which read what the server's JSON would make doubles of."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from warp.destinations.mysql.names import quoted, text_literal
from warp.destinations.mysql.rewriting import Rewriting
from warp.destinations.mysql.session import Session
from warp.destinations.sql import backfill as shared
from warp.model import Column, Kind, TableSchema, TableSettings

_INT32: Final = range(-(1 << 31), 1 << 31)
_INT64: Final = range(-(1 << 63), 1 << 63)
_DECIMAL: Final = re.compile("-?[0-9]{1,35}([.][0-9]{1,30})?")
_YEARS: Final = range(-62_135_596_800_000, 253_402_300_800_000)  # 1 to 9999, in milliseconds
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def finish(session: Session, settings: TableSettings, schema: TableSchema | None) -> None:
    def fill(extra: Column, column: Column) -> None:
        if schema is not None and column.kind in _EXACT:
            _fill(Rewriting(session, settings, schema), extra, column)

    shared.finish(session, settings, schema, alone=lambda unit: _alone(session, unit), fill=fill)


@contextmanager
def _alone(session: Session, unit: str) -> Iterator[bool]:
    lock = f"cartridge-warp {sha256(unit.encode()).hexdigest()[:32]}"
    if session.run("select get_lock(%(lock)s, 0)", {"lock": lock}).fetchall() != ((1,),):
        yield False
        return
    try:
        yield True
    finally:
        if not session.lost:
            session.run("select release_lock(%(lock)s)", {"lock": lock})


def _fill(rewriting: Rewriting, extra: Column, column: Column) -> None:
    condition = f"d.{quoted(extra.name)} is not null and d.{quoted(column.name)} is null"
    if re.fullmatch(r"[\w.-]+", column.source, re.ASCII):
        named = text_literal(f'"{column.source}"')
        condition += f" and locate({named}, d.{quoted(extra.name)}) > 0"
    for keys, extras in rewriting.pages(extra, condition):
        moved: list[tuple[Any, bytes | None, bytes]] = []
        kept: list[tuple[Any, ...]] = []
        for key, text in zip(keys, extras, strict=True):
            found = taken_out(text.decode(), column.source.replace("\0", "\u2400"))
            if found is None:
                continue
            raw, rest = found
            fits, cell = exact(column, raw)
            if fits:
                kept.append(key)
                moved.append((cell, rest.encode() if rest else None, text))
        if kept:
            cells, rests, before = map(list, zip(*moved, strict=True))
            first = len(kept[0])
            rewriting.write(
                kept,
                [(column, cells), (extra, rests), (extra, before)],
                {column.name: 0, extra.name: 1},
                # Nothing that a writer has changed meanwhile.
                f"d.{quoted(column.name)} is null and d.{quoted(extra.name)} = s.c{first + 2}",
            )


# -- pure


def taken_out(text: str, field: str) -> tuple[str, str] | None:
    """The text of a field's value, and the object without it, every other byte as it was.

    None where the object has no such field; an empty rest where it has no other.
    """
    scan = json.JSONDecoder().raw_decode
    at = _skip(text, _skip(text, 0) + 1)
    members: list[tuple[str, str, str]] = []
    while at < len(text) and text[at] != "}":
        key_from = at
        name, at = scan(text, at)
        value_from = _skip(text, _skip(text, at) + 1)
        _, at = scan(text, value_from)
        members.append((name, text[key_from:at], text[value_from:at]))
        at = _skip(text, at)
        if at < len(text) and text[at] == ",":
            at = _skip(text, at + 1)
    values = [value for name, _, value in members if name == field]
    if len(values) != 1:
        return None
    rest = ",".join(member for name, member, _ in members if name != field)
    return values[0], "{" + rest + "}" if rest else ""


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def exact(column: Column, raw: str) -> tuple[bool, Any]:
    """Does the JSON value fit the column, and the carrier it then is."""
    value = json.loads(raw, parse_float=Decimal)
    if value is None:
        return True, None
    if column.kind in (Kind.JSON, Kind.JSON_TEXT):
        return True, raw.encode()
    try:
        cell = _EXACT[column.kind](value)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return False, None
    if cell is None:
        return False, None
    if isinstance(cell, str) and column.limit is not None and len(cell) > column.limit:
        return False, None
    return True, cell


def _whole(within: range) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or value % 1:
            return None
        return int(value) if int(value) in within else None

    return read


def _float(value: Any) -> Any:
    if isinstance(value, dict):
        [(name, text)] = value.items()
        found = float(text) if name == "$numberDouble" else None
        return found if found is not None and math.isfinite(found) else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    # Beyond 2**53 a double and an int64 look alike as JSON.
    number = Decimal(value)
    if number % 1 or abs(number) <= 1 << 53 or abs(number) >= 1 << 63:
        return float(number)
    return None


def _decimal(value: Any) -> Any:
    if isinstance(value, dict):
        [(name, text)] = value.items()
        value = Decimal(text) if name == "$numberDecimal" else None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    value = Decimal(value)
    return value if value.is_finite() and _DECIMAL.fullmatch(f"{value:f}") else None


def _under(name: str, value: Any) -> Any:
    [(only, inner)] = value.items()
    return inner if only == name else None


def _timestamp(value: Any) -> Any:
    text = _under("$numberLong", _under("$date", value))
    if not re.fullmatch("-?[0-9]{1,16}", text) or int(text) not in _YEARS:
        return None
    return int(text) * 1000


def _binary(value: Any) -> Any:
    return base64.b64decode(_under("$binary", value)["base64"], validate=True)


def _uuid(value: Any) -> Any:
    found = _binary(value)
    return found if len(found) == 16 and value["$binary"]["subType"] == "04" else None


_EXACT: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    Kind.BOOL: lambda v: v if isinstance(v, bool) else None,
    Kind.INT32: _whole(_INT32),
    Kind.INT64: _whole(_INT64),
    Kind.FLOAT64: _float,
    Kind.DECIMAL: _decimal,
    Kind.TEXT: lambda v: v if isinstance(v, str) else None,
    Kind.OBJECTID: lambda v: o if re.fullmatch("[0-9a-f]{24}", o := _under("$oid", v)) else None,
    Kind.TIMESTAMP: _timestamp,
    Kind.UUID: _uuid,
    Kind.BYTES: _binary,
    Kind.JSON: lambda v: v,
    Kind.JSON_TEXT: lambda v: v,
}
