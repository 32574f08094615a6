"""The columns of a destination table: as the server has them, and as statements define them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from warp.destinations.mysql.carriers import ServerColumn, key_bytes, kind_there, limits, spelled
from warp.destinations.mysql.names import fitting, quoted, unlike
from warp.destinations.mysql.session import Session
from warp.errors import DestinationRefused
from warp.model import Column, Kind, TableSchema, TableSettings

_COMMENT: Final = 1024  # characters; longer ones are refused
_QUOTES: Final = str.maketrans({"\\": "\\\\", "'": "''", "\0": "\u2400"})


def there(session: Session, settings: TableSettings) -> dict[str, ServerColumn]:
    """By name; empty where there is no such table."""
    place = settings.destination
    rows = session.named(
        "table_columns", namespace=fitting(place.namespace), table=fitting(place.name)
    ).fetchall()
    return {row[0]: _server_column(row) for row in rows}


def _server_column(row: Sequence[Any]) -> ServerColumn:
    (name, type_, full, characters, precision, scale, charset, collation, nullable, has_default,
     extra, fraction) = row  # fmt: skip
    return ServerColumn(
        name,
        _text(type_).lower(),
        _text(full).lower(),
        characters,
        precision,
        scale,
        charset,
        collation,
        bool(nullable),
        bool(has_default),
        _text(extra),
        fraction,
    )


def _text(value: Any) -> str:
    # MySQL 9 hands some of these over as binary.
    return value.decode() if isinstance(value, bytes) else str(value or "")


def in_any_case(there: Mapping[str, ServerColumn], name: str) -> ServerColumn | None:
    """A column of this name, whatever the case of its letters, which is nothing to the server."""
    if (exactly := there.get(name)) is not None:
        return exactly
    return next((c for other, c in there.items() if other.lower() == name.lower()), None)


def as_there(column: Column, found: ServerColumn) -> Column | None:
    """The column with the kind and limits it has; None where we cannot write its type."""
    kind = kind_there(found, column.kind)
    if kind is None:
        return None
    limit, scale = limits(found, kind)
    fixed = column.fixed and kind == column.kind
    return replace(column, name=found.name, kind=kind, limit=limit, scale=scale, fixed=fixed)


def refreshed(column: Column, found: ServerColumn) -> Column:
    """A registered column as it is now: somebody may have changed its type by hand since."""
    return as_there(column, found) or column


def placed(columns: Iterable[Column], taken: Iterable[str]) -> tuple[Column, ...]:
    """The columns under names that the server takes, and that differ in its eyes."""
    names = list(taken)
    found = []
    for column in columns:
        name = unlike(column.name, names)
        names.append(name)
        found.append(column if name == column.name else replace(column, name=name))
    return tuple(found)


def definition(session: Session, settings: TableSettings, schema: TableSchema, name: str) -> str:
    """A column's definition, with what people should know of it."""
    column = schema.column(name)
    if column is None:
        raise AssertionError("a column of the schema")
    in_key = name in schema.key
    key = key_bytes(schema) if in_key else 0
    if in_key and (column.kind in (Kind.JSON, Kind.JSON_TEXT) or key < 64):
        raise DestinationRefused(
            f"expected a key that an index of 3,072 bytes holds, found column {name!r} of kind "
            f"{column.kind} in a key of {len(schema.key)} columns; name other key columns, or "
            "leave the table out",
            place=str(settings.destination),
        )
    said = (column.comment or f"{settings.table}: {column.source}")[:_COMMENT]
    return (
        f"{quoted(name)} {spelled(column.kind, session.collation, key=key)}"
        f"{' not null' if in_key else ''} comment {comment(said)}"
    )


def comment(text: str) -> str:
    """Quoted as this one place needs it: it takes no hexadecimal text."""
    kept = text.encode("utf-8", "replace").decode()
    kept = "".join(c if c <= "\uffff" else "\ufffd" for c in kept)
    return "'" + kept.translate(_QUOTES).replace("%", "%%") + "'"


def of_ours(settings: TableSettings, *, adopted: bool = False) -> list[tuple[str, str]]:
    """The columns that a source does not have, with their definitions."""
    # Rows that were there before us are older than anything a source sends.
    default = " default -1" if adopted else ""
    columns = [
        ("_cw_version", f"`_cw_version` bigint not null{default}"),
        ("_cw_deleted", "`_cw_deleted` tinyint(1) not null default 0"),
    ]
    if settings.soft_delete_column is not None:
        name = fitting(settings.soft_delete_column)
        columns.append((name, f"{quoted(name)} tinyint(1) not null default 0"))
    return columns
