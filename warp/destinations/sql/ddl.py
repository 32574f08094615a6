"""What making and changing a table is on any server: tried until nobody is in the way, registered
under a new version, and refused in the same words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from warp.destinations.sql.session import Session
from warp.errors import DestinationRefused, DestinationUnavailable, SchemaBusy
from warp.kinds import Relation, relation
from warp.model import (
    SHARED,
    Change,
    Column,
    Kind,
    Phase,
    Role,
    SchemaChange,
    TableSchema,
    TableSettings,
    WorkUnit,
)


def unit_of(settings: TableSettings) -> WorkUnit:
    return WorkUnit.of_table(settings.schema, settings.table)


def insist(
    once: Callable[[], None],
    settings: TableSettings,
    *,
    is_of_a_lock: Callable[[BaseException], bool],
    tries: int,
    pause: float,
    who: str,
) -> None:
    """Make a change that waits for nobody for long, so that readers do not queue behind it.

    `who` names where a person sees who is in the way.
    """
    for attempt in count(1):
        try:
            once()
            return
        except DestinationUnavailable as error:
            if error.__cause__ is None or not is_of_a_lock(error.__cause__):
                raise
            if attempt == tries:
                raise SchemaBusy(
                    f"expected to change the table within {tries} tries, found it in use each "
                    f"time; end the long transaction that reads it ({who}), or wait",
                    place=str(settings.destination),
                ) from error
        time.sleep(pause * random.uniform(0.5, 1.5))  # holding no lock


def must_be_there(settings: TableSettings, phase: str) -> None:
    """Of a registered table that the server does not have."""
    if phase != Phase.PLANNED.value:  # else it is to be read anew
        raise DestinationRefused(
            f"expected the table {settings.destination}, found it dropped; "
            f"run `cartridge-warp resync {settings.table}` to read it anew",
            place=unit_of(settings).id,
        )


def must_leave_ours(
    settings: TableSettings,
    names: Iterable[str],
    ours: Iterable[str | None],
    *,
    alike: Callable[[str], str] = str,
) -> None:
    """Of a source's columns; `alike` is the same for names that the server takes for one."""
    used = {alike(name) for name in ours if name is not None}
    if taken := sorted(name for name in names if alike(name) in used):
        raise DestinationRefused(
            f"expected no source column named {taken}, which this table needs for itself, found "
            "one; choose another soft_delete_column or rename the column",
            place=str(settings.destination),
        )


def must_have_its_key(settings: TableSettings, key: Iterable[str], kept: Iterable[Column]) -> None:
    if missing := set(key) - {column.name for column in kept}:
        raise DestinationRefused(
            f"expected the key columns {sorted(missing)} in {settings.destination}, found them "
            f"dropped; drop the table and run `cartridge-warp resync {settings.table}`",
            place=unit_of(settings).id,
        )


def must_have_key(
    settings: TableSettings, wanted: TableSchema, key: tuple[str, ...], *, whole: bool = True
) -> None:
    """Of a table that somebody else made; `whole` where no column is indexed in part."""
    if set(key) != set(wanted.key) or not whole:
        raise DestinationRefused(
            f"expected the existing table to have the primary key {list(wanted.key)}, found "
            f"{list(key) or 'none'}; change its key, or name another destination table",
            place=str(settings.destination),
        )


def may_be_null(settings: TableSettings, blocking: list[str], how: str) -> None:
    """Of a table that somebody else made; `how` is the ALTER TABLE."""
    if blocking:
        raise DestinationRefused(
            f"expected columns that may be NULL, found {blocking} of the existing table NOT NULL "
            f"without a default; run {how} on each",
            place=str(settings.destination),
        )


def of_existing(
    settings: TableSettings, have: TableSchema | None, change: SchemaChange
) -> tuple[TableSchema, Column]:
    """The table and the column that a change of a column is about."""
    if change.column is None:
        raise AssertionError(f"{change.change} carries a column")
    if have is None:
        raise DestinationRefused(
            f"expected the table {settings.destination}, found none; create it first",
            place=str(settings.table),
        )
    return have, change.column


def key_column(settings: TableSettings, have: TableSchema, wanted: Column) -> Column:
    old = have.column(wanted.name)
    if old is None or old.name not in have.key:
        raise AssertionError(f"{wanted.name} is no key column of {settings.table}")
    return old


def no_such_key(
    settings: TableSettings, wanted: Kind, found: Kind, why: str = ""
) -> DestinationRefused:
    return DestinationRefused(
        f"expected a key that can become {wanted}, found {found}{f': {why}' if why else ''}; "
        f"drop the table and run `cartridge-warp resync {settings.table}`",
        place=str(settings.destination),
    )


def holds_all_of(column: Column, wanted: Column) -> bool:
    """Another worker may have changed it already, perhaps further."""
    if column.kind == wanted.kind:
        return column.limit is None
    return relation(wanted.kind, column.kind) is Relation.LOSSLESS


def too_large(size: int, settings: TableSettings, how: str) -> str | None:
    """Why a table of so many bytes is not rewritten now; `how` is the ALTER TABLE."""
    if size <= settings.rewrite_limit:
        return None
    return (
        f"a rewrite of {size:,} bytes is more than rewrite_limit ({settings.rewrite_limit:,}); "
        f"run {how}"
    )


def with_column(have: TableSchema, made: Column) -> tuple[Column, ...]:
    return tuple(made if column.name == made.name else column for column in have.columns)


def log_kept(session: Session, settings: TableSettings, old: Column, wanted: str, why: str) -> None:
    """A column that was to become `wanted`, and stays."""
    session.named(
        "log_error",
        code=DestinationRefused.code,
        error_class=DestinationRefused.__name__,
        message=session.storable(f"expected to change the column to {wanted}: {why}"),
        schema=settings.schema,
        unit=unit_of(settings).id,
        run="",
        namespace=settings.table.namespace,
        table=settings.table.name,
        column=session.storable(old.name),
        key="",
        position=None,
        action="the column stays; values that do not fit are kept beside it",
    )


def register(
    session: Session,
    settings: TableSettings,
    schema: TableSchema,
    change: SchemaChange,
    fitting: Callable[[str], str],
) -> None:
    """A new version of a table; `fitting` gives a name as the server has it."""
    unit, place = unit_of(settings), settings.destination
    unfilled = None
    if change.column is not None and any(c.role is Role.EXTRA for c in schema.columns):
        if change.change is Change.ADD_COLUMN:
            unfilled = schema.columns[-1].name  # under the name that it got
        elif change.change is Change.WIDEN_COLUMN:
            unfilled = change.column.name
    session.named(
        "register_schema",
        unit=unit.id,
        version=schema.version,
        schema=settings.schema,
        namespace=settings.table.namespace,
        table=settings.table.name,
        destination_namespace=fitting(place.namespace),
        destination_table=fitting(place.name),
        columns=session.to_json([_to_json(column) for column in schema.columns]),
        key=session.to_json(list(schema.key)),
        change=change.change.value,
        streams=[WorkUnit.stream(one).id for one in (settings.schema, SHARED)],
        unfilled=unfilled,
    )
    session.named("raise_schema_version", unit=unit.id, version=schema.version)


def _to_json(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "kind": column.kind.value,
        "source": column.source,
        "role": column.role.value,
        "comment": column.comment,
        **({"fixed": True} if column.fixed else {}),
    }


def columns_of(session: Session, stored: Any) -> list[Column]:
    """The columns of a registered version."""
    return [
        Column(
            one["name"],
            Kind(one["kind"]),
            one["source"],
            Role(one["role"]),
            one["comment"],
            fixed=one.get("fixed", False),
        )
        for one in session.of_json(stored)
    ]
