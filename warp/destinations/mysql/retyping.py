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
from warp.destinations.sql.ddl import with_column
from warp.kinds import converter
from warp.model import Column, Kind, Role, TableSchema, TableSettings

_NUMBERS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.DECIMAL})
_LONGEST_TAGGED: Final = 2000  # bytes; sources hash what is longer


def retype(
    making: Session, settings: TableSettings, have: TableSchema, old: Column, wanted: Column
) -> str | None:
    """Make the column one of the wanted kind; returns why that cannot be, and then it stays."""
    try:
        if by_server(old.kind, wanted.kind):
            making.run_all(statements(making, settings, have, old, wanted))
            return None
        return _copied(making, settings, have, old, wanted)
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


def statements(
    session: Session, settings: TableSettings, have: TableSchema, old: Column, wanted: Column
) -> tuple[str, ...]:
    """One where the server converts the values; else one before and one after we have copied them
    into a column beside it, which then takes its name."""
    made = replace(wanted, limit=None, scale=None)
    schema = replace(have, columns=with_column(have, made))
    definition = columns.definition(session, settings, schema, old.name)
    table, beside = _table(settings), quoted(_beside(old))
    if by_server(old.kind, wanted.kind):
        return (f"alter table {table} modify column {definition}",)
    temporary = definition.replace(quoted(old.name), beside, 1).replace(" not null", " null", 1)
    steps = [f"drop column {quoted(old.name)}", f"change column {beside} {definition}"]
    if old.name in have.key:
        steps.insert(0, "drop primary key")
        steps.append(f"add primary key ({', '.join(map(quoted, have.key))})")
    return (
        f"alter table {table} add column {temporary}",
        f"alter table {table} {', '.join(steps)}",
    )


def why_not_copied(have: TableSchema, old: Column, wanted: Column) -> str | None:
    if not have.key:
        return "a table without a key has no row to find again"
    if converter(old.kind, wanted.kind) is None:
        return f"{old.kind} has no exact form as {wanted.kind}"
    return None


def _copied(
    making: Session, settings: TableSettings, have: TableSchema, old: Column, wanted: Column
) -> str | None:
    """Nobody writes meanwhile; what a killed process left is filled again from the beginning."""
    convert = converter(old.kind, wanted.kind)
    if (why_not := why_not_copied(have, old, wanted)) or convert is None:
        return why_not
    before, after = statements(making, settings, have, old, wanted)
    beside = replace(wanted, name=_beside(old), limit=None, scale=None)
    drop = f"alter table {_table(settings)} drop column {quoted(beside.name)}"
    if beside.name in columns.there(making, settings):
        making.run(drop)
    making.run(before)
    why_not = _fill(Rewriting(making, settings, have), have, old, beside, convert)
    making.run(drop if why_not is not None else after)
    return why_not


def _beside(old: Column) -> str:
    return f"_cw_new_{hashlib.sha256(old.name.encode()).hexdigest()[:8]}"


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
