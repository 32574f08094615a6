"""A column's values as another kind has them, exactly: by the server where it can, else by us."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pymysql

from warp.destinations.mysql import columns
from warp.destinations.mysql.errors import code_of, is_moved, is_of_a_value, is_transient, said_by
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.rewriting import Rewriting
from warp.destinations.mysql.session import Session
from warp.kinds import converter
from warp.model import Column, Kind, Role, TableSchema, TableSettings

_NUMBERS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.DECIMAL})
_LONGEST_TAGGED: Final = 2000  # bytes; sources hash what is longer


def retype(
    making: Session, settings: TableSettings, have: TableSchema, old: Column, wanted: Column
) -> str | None:
    """Make the column one of the wanted kind; returns why that cannot be, and then it stays."""
    made = replace(wanted, limit=None, scale=None)
    schema = replace(have, columns=tuple(made if c.name == old.name else c for c in have.columns))
    text = columns.definition(making, settings, schema, old.name)
    try:
        if by_server(old.kind, wanted.kind):
            making.run(f"alter table {_table(settings)} modify column {text}")
            return None
        return _copied(making, settings, have, old, made, text)
    except pymysql.err.Error as error:
        code = code_of(error)
        if making.lost or (is_transient(code) and not is_of_a_value(error)) or is_moved(error):
            raise
        return f"the server refused: {said_by(error)} ({code})"


def by_server(have: Kind, want: Kind) -> bool:
    """Does the server's own conversion keep every value as our kinds have it?"""
    if have is want or (have, want) == (Kind.FLOAT32, Kind.FLOAT64):
        return True
    if have in _NUMBERS and want in _NUMBERS:
        return True
    if have is Kind.DATE:
        return want in (Kind.DATETIME, Kind.TIMESTAMP)
    return have is Kind.OBJECTID and want is Kind.TEXT


def _copied(
    making: Session,
    settings: TableSettings,
    have: TableSchema,
    old: Column,
    made: Column,
    definition: str,
) -> str | None:
    """By way of a column beside it, which takes its name when all values are there.

    Nobody writes meanwhile; what a killed process left is filled again from the beginning.
    """
    if not have.key:
        return "a table without a key has no row to find again"
    convert = converter(old.kind, made.kind)
    if convert is None:
        return f"{old.kind} has no exact form as {made.kind}"
    table = _table(settings)
    mark = hashlib.sha256(old.name.encode()).hexdigest()[:8]
    beside = replace(made, name=f"_cw_new_{mark}")
    there = columns.there(making, settings)
    if beside.name in there:
        making.run(f"alter table {table} drop column {quoted(beside.name)}")
    temporary = definition.replace(quoted(old.name), quoted(beside.name), 1)
    making.run(f"alter table {table} add column {temporary.replace(' not null', ' null', 1)}")
    why_not = _fill(Rewriting(making, settings, have), have, old, beside, convert)
    if why_not is not None:
        making.run(f"alter table {table} drop column {quoted(beside.name)}")
        return why_not
    steps = [f"drop column {quoted(old.name)}", f"change column {quoted(beside.name)} {definition}"]
    if old.name in have.key:
        steps.insert(0, "drop primary key")
        steps.append(f"add primary key ({', '.join(map(quoted, have.key))})")
    making.run(f"alter table {table} {', '.join(steps)}")
    return None


def _fill(
    rewriting: Rewriting,
    have: TableSchema,
    old: Column,
    beside: Column,
    convert: Callable[[Any], Any],
) -> str | None:
    key = have.key.index(old.name) if old.name in have.key else None
    extra = any(c.role is Role.EXTRA for c in have.columns)
    for keys, cells in rewriting.pages(old, f"d.{quoted(old.name)} is not null"):
        converted = [convert(cell) for cell in cells]
        if key is not None and any(len(c.encode()) > _LONGEST_TAGGED for c in converted):
            kept = "and what it stands for would not be kept" if extra else ""
            return f"a key of more than {_LONGEST_TAGGED} bytes would become a hash {kept}".strip()
        rewriting.write(keys, [(beside, converted)], {beside.name: 0})
    return None


def _table(settings: TableSettings) -> str:
    place = settings.destination
    return quoted(fitting(place.namespace), fitting(place.name))
