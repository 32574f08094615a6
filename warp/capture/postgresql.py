"""What capture says to PostgreSQL: names, values, its clock, and its triggers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

from psycopg import sql

from warp.capture import names
from warp.capture.queue import key_columns
from warp.capture.side import Clock
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Diagnosis, Kind, TableId, TableSchema, Verdict
from warp.sql import load

Ask = Callable[[str], list[tuple[Any, ...]]]
Act = Callable[..., None]

_EVENTS: Final = {
    "cartridge_warp_insert": ("insert", "new table as cartridge_warp_new"),
    "cartridge_warp_update": (
        "update",
        "old table as cartridge_warp_old new table as cartridge_warp_new",
    ),
    "cartridge_warp_delete": ("delete", "old table as cartridge_warp_old"),
    "cartridge_warp_truncate": ("truncate", ""),
}
# Types whose text depends on the session of whoever writes; others need no setting, which costs.
_SETTINGS: Final = "set datestyle = 'ISO, YMD' set timezone = 'UTC' set intervalstyle = 'postgres'"
_SETTING_FREE: Final = frozenset({"int8", "text", "varchar", "bpchar", "uuid", "numeric", "bytea"})
# Whoever writes to the table waits behind us for as long as we wait for those before.
_LOCK_TIMEOUT: Final = "2s"
_ALONE: Final = 0x6361_7264_7761_7270  # the advisory lock of whoever installs


class PostgresDialect:
    """As `side.Dialect`."""

    def name(self, *parts: str) -> str:
        return sql.Identifier(*parts).as_string(None)

    def literal(self, kind: Kind, text: str) -> str:
        # Without a type: it takes that of the column it is compared with.
        return _text(text)

    def selected(self, table: TableId, column: str) -> str:
        return self.name(column)

    def ordered(self, table: TableId, column: str) -> str:
        return self.name(column)


def clock(ask: Ask) -> Clock:
    """As `side.SqlSide.clock`."""
    [(now, oldest, pid, prepared, hidden, standby, role)] = ask(load("capture", "postgresql_clock"))
    untold = ""
    if standby:
        untold = (
            "a standby does not show the primary's transactions: set change_detection.overlap to "
            "the longest of them, or poll the primary"
        )
    elif hidden:
        grant = f"GRANT pg_read_all_stats TO {sql.Identifier(role).as_string(None)}"
        untold = f"{grant}; or set change_detection.overlap to the longest transaction"
    holder = f"pid {pid}" if prepared is None else f"prepared transaction {prepared!r}"
    return Clock(now, oldest, holder, unknown=prepared is not None, untold=untold)


def leads_index(ask: Ask, table: TableId, column: str) -> bool:
    """As `side.SqlSide.leads_index`."""
    place = sql.Identifier(table.namespace, table.name).as_string(None)
    statement = load("capture", "postgresql_leads_index").format(
        table=_text(place), column=_text(column)
    )
    return ask(statement) == [(True,)]


class PostgresTriggers:
    """As `side.Triggers`: of statements, with the rows they wrote, keys only.

    `drop schema cartridge_warp_capture cascade` takes all of it away, triggers included.
    """

    def __init__(self, ask: Ask, act: Act, *, schema: str = names.SCHEMA) -> None:
        self._ask = ask
        self._act = act
        self._schema = schema
        self._dialect = PostgresDialect()

    def queue(self, table: TableId) -> TableId:
        return TableId(self._schema, names.queue(table))

    def install(self, table: TableId, schema: TableSchema) -> bool:
        types = self._key_types(table, schema)
        place = self._name(self.queue(table))
        on = self._name(table)
        keys = [f"k{number}" for number in range(len(types))]
        values = [f"r.{self._dialect.name(column)}::{type_}" for column, type_ in types]
        body = load("capture", "postgresql_body").format(
            queue=place, keys=", ".join(keys), values=", ".join(values)
        )
        free = all(type_.removeprefix("pg_catalog.") in _SETTING_FREE for _, type_ in types)
        function = load("capture", "postgresql_function").format(
            function=place, settings="" if free else _SETTINGS, body=_text(body)
        )
        definition = f"of {table}: {hashlib.sha256(function.encode()).hexdigest()[:16]}"
        if self._is_installed(table, definition):
            return False
        declared = ", ".join(f"{key} {type_}" for key, (_, type_) in zip(keys, types, strict=True))
        statements = [
            f"set local lock_timeout = {_text(_LOCK_TIMEOUT)}",
            f"select pg_advisory_xact_lock({_ALONE})",
            f"create schema if not exists {self._dialect.name(self._schema)}",
            *self._drops(table),
            f"create table {place} (id bigint generated always as identity primary key,"
            f" truncated integer not null default 0, {declared})",
            f"comment on table {place} is {_text(definition)}",
            function,
            *(
                f"create trigger {name} after {event} on {on}"
                f"{' referencing ' + rows if rows else ''}"
                f" for each statement execute function {place}()"
                for name, (event, rows) in _EVENTS.items()
            ),
        ]
        try:
            self._act(*statements)
        except SourceUnavailable as error:
            statement = load("capture", "postgresql_holders").format(table=_text(on))
            [(holders,)] = self._ask(statement)
            if holders is None:
                raise
            raise SourceUnavailable(
                f"expected {_LOCK_TIMEOUT} to be enough for the transactions that use the table to "
                f"end, found it in use by pid {', '.join(map(str, holders))}; it is tried again",
                place=str(table),
            ) from error
        return True

    def changes_unseen(self, table: TableId) -> str:
        # Each installation makes another queue; what happened before it, it has not seen.
        [(queue,)] = self._ask(
            f"select to_regclass({_text(self._name(self.queue(table)))})::oid::bigint"
        )
        return f"queue {queue}"

    def diagnose(self, table: TableId) -> list[Diagnosis]:
        statement = load("capture", "postgresql_rights").format(
            table=_text(self._name(table)), schema=_text(self._regname())
        )
        [(trigger, create, role, database)] = self._ask(statement)
        to = self._dialect.name(role)
        missing = []
        if not trigger:
            missing.append(f"GRANT TRIGGER ON {self._name(table)} TO {to}")
        if not create:
            missing.append(
                f"GRANT CREATE ON DATABASE {self._dialect.name(database)} TO {to}, or ALTER SCHEMA "
                f"{self._regname()} OWNER TO {to}"
            )
        return [
            Diagnosis(
                "capture-trigger-rights",
                Verdict.FAILED if missing else Verdict.OK,
                str(table),
                "the right to make triggers and their queue",
                "it is missing" if missing else "there",
                "; ".join(missing),
            )
        ]

    def remove(self, table: TableId) -> None:
        self._act(f"set local lock_timeout = {_text(_LOCK_TIMEOUT)}", *self._drops(table))
        left = load("capture", "postgresql_orphans").format(schema=_text(self._regname()))
        if self._ask(left) == [(0,)]:
            self._act(f"drop schema if exists {self._regname()}")

    def _drops(self, table: TableId) -> list[str]:
        """The function takes its triggers with it, also from a table that was renamed since; the
        table may have those of another name it had."""
        place = self._name(self.queue(table))
        return [
            f"drop function if exists {place}() cascade",
            *(f"drop trigger if exists {name} on {self._name(table)}" for name in _EVENTS),
            f"drop table if exists {place}",
        ]

    def _is_installed(self, table: TableId, definition: str) -> bool:
        statement = load("capture", "postgresql_installed").format(
            queue=_text(self._name(self.queue(table))),
            table=_text(self._name(table)),
            definition=_text(definition),
            names=", ".join(map(_text, _EVENTS)),
            function=_text(self.queue(table).name),
            schema=_text(self._regname()),
        )
        return self._ask(statement) == [(True, len(_EVENTS))]

    def _key_types(self, table: TableId, schema: TableSchema) -> list[tuple[str, str]]:
        """The key's columns in order, with the type each has in the queue."""
        statement = load("capture", "postgresql_key_types").format(table=_text(self._name(table)))
        types: dict[str, str] = dict(self._ask(statement))
        columns = [column.source for _, column in key_columns(schema)]
        if missing := [column for column in columns if column not in types]:
            raise SourceRefused(
                f"expected the key column {missing[0]!r}, found none of that name; was it renamed "
                "just now?",
                place=str(table),
            )
        return [(column, types[column]) for column in columns]

    def _name(self, table: TableId) -> str:
        return self._dialect.name(table.namespace, table.name)

    def _regname(self) -> str:
        return self._dialect.name(self._schema)


def _text(value: str) -> str:
    return sql.Literal(value).as_string(None)
