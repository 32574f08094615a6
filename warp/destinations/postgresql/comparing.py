"""The rows of a table summed up by the server: digests of key ranges, and looks at single keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import sql

from warp.destinations.postgresql import witness
from warp.destinations.postgresql.carriers import TYPES
from warp.destinations.postgresql.merge import DELETED, VERSION
from warp.destinations.postgresql.session import Session, literal, name, text
from warp.destinations.postgresql.tables import as_registered
from warp.destinations.sql import markers
from warp.destinations.sql.landing import selected
from warp.digest import servers
from warp.digest.canonical import HASH_BYTES
from warp.digest.comparing import Key, Stored
from warp.digest.seams import EVERYTHING, Bound, Compared, KeyRange
from warp.digest.sums import Sums
from warp.kinds import as_text
from warp.model import (
    Cells,
    Column,
    Marker,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
)

_COMMA = text(", ")
_AND = text(" and ")
_NO = text("false")


class PostgresComparing:
    """As `warp.digest.seams.Comparing`."""

    def __init__(self, session: Session, selection: TableSelection) -> None:
        self._session = session
        self._selection = selection
        self._audited: int | None = None  # the last line of the audit before the first look

    def total(self, compared: Compared, where: KeyRange) -> Sums:
        statement, parameters = self._total(compared, where)
        [row] = self._ask(compared, statement, parameters)
        return Sums.told(*row)

    def together(self, tables: Sequence[Compared]) -> tuple[list[Sums], list[Marker]]:
        found = []
        doing = "summing up tables"
        with self._session.transaction(doing, patient=True):
            self._session.run(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            for compared in tables:
                statement, parameters = self._total(compared, EVERYTHING)
                with as_registered(compared.schema.table):
                    row = self._session.run(statement, parameters).fetchone()
                found.append(Sums.told(*(row or (0, 0, 0))))
            streams = self._session.named("read_markers", kinds=[UnitKind.STREAM.value])
            return found, [markers.from_row(self._session, row) for row in streams]

    def recount(
        self,
        place: tuple[str, str],
        columns: Sequence[tuple[str, str]],
        soft_delete_column: str | None,
    ) -> tuple[int, str]:
        return witness.recount(self._session, place, columns, soft_delete_column)

    def _total(self, compared: Compared, where: KeyRange) -> tuple[sql.Composed, list[Any]]:
        condition, parameters = self._within(compared, where)
        hash_ = servers.postgresql_hash(_text(compared.columns))
        statement = text("select {} from (select {} as h from {} as d where {} offset 0) as r")
        sums = text(servers.postgresql_sums("r.h"))
        return statement.format(sums, text(hash_), self._table(compared), condition), parameters

    def leaves(self, compared: Compared, where: KeyRange) -> dict[int, Sums]:
        condition, parameters = self._within(compared, where)
        statement = text(
            "select r.leaf, {} from (select {} as leaf, {} as h from {} as d where {} offset 0)"
            " as r group by r.leaf"
        ).format(
            text(servers.postgresql_sums("r.h")),
            text(_leaf(compared)),
            text(servers.postgresql_hash(_text(compared.columns))),
            self._table(compared),
            condition,
        )
        return {leaf: Sums.told(*row) for leaf, *row in self._ask(compared, statement, parameters)}

    def rows(
        self, compared: Compared, where: KeyRange, leaves: Sequence[int]
    ) -> list[tuple[Key, bytes]]:
        condition, parameters = self._within(compared, where)
        statement = text("select {}, {} from {} as d where {} and {} = any(%s)").format(
            _COMMA.join(map(_form, compared.key)),
            text(servers.postgresql_hash(_text(compared.columns))),
            self._table(compared),
            condition,
            text(_leaf(compared)),
        )
        found = self._ask(compared, statement, [*parameters, list(leaves)])
        return [(tuple(key), bytes(hash_)[:HASH_BYTES]) for *key, hash_ in found]

    def keeps_forms(self, compared: Compared) -> bool:
        return True

    def kept(self, compared: Compared, cells: Sequence[Cells]) -> Sequence[Cells]:
        return cells

    def look(self, compared: Compared, keys: Sequence[Cells]) -> list[Stored | None]:
        asked, joined = _asked(compared.key)
        statement = text("select k.n, d.{}, {}, {} from {} join {} as d on {}").format(
            VERSION,
            self._gone(compared.schema.table),
            _COMMA.join(map(_form, compared.columns)),
            asked,
            self._table(compared),
            joined,
        )
        if self._audited is None:
            self._audited = self._last_audited()
        stored: list[Stored | None] = [None] * len(keys[0])
        for place, version, gone, *forms in self._ask(compared, statement, _texts(compared, keys)):
            stored[place - 1] = Stored(version, gone, tuple(forms))
        if None in stored:
            for place, version in self._deleted_since(compared, keys):
                if stored[place - 1] is None:
                    stored[place - 1] = Stored(version, True, ())
        return stored

    def _last_audited(self) -> int:
        statement = text("select coalesce(max(id), 0) from {}").format(self._audit)
        with self._session.meaning("looking for the end of the audit"):
            row = self._session.run(statement).fetchone()
        return int(row[0]) if row is not None else 0

    def _deleted_since(self, compared: Compared, keys: Sequence[Cells]) -> list[tuple[int, int]]:
        """(number of the key from 1, version) of those that were deleted since the first look.

        A row that comes and goes may be absent at each look and there at the source each time;
        that it has gone in between is what tells it from one that is missing.
        """
        table = compared.schema.table
        asked, _ = _asked(compared.key)
        built = _COMMA.join(
            text("{}, k.k{}::{}").format(
                literal(column.name), text(str(place)), text(TYPES[column.kind])
            )
            for place, column in enumerate(compared.key)
        )
        statement = text(
            "select k.n, max(a.version) from {} join {} as a on a.key = jsonb_build_object({})"
            " where a.id > %s and a.source_namespace = %s and a.source_table = %s group by k.n"
        ).format(asked, self._audit, built)
        parameters = [*_texts(compared, keys), self._audited, table.namespace, table.name]
        return [(place, version) for place, version in self._ask(compared, statement, parameters)]

    @property
    def _audit(self) -> sql.Identifier:
        return name(self._session.options.metadata_schema, "deletion_audit")

    def single_out(self, compared: Compared, keys: Sequence[Cells]) -> None:
        """Nothing to do: the table's key lets no two rows be, and each has a version."""

    def hold_places(self, compared: Compared, keys: Sequence[Cells], version: int) -> None:
        asked, _ = _asked(compared.key)
        cells = [
            text("k.k{}::{}").format(text(str(place)), text(TYPES[column.kind]))
            for place, column in enumerate(compared.key)
        ]
        statement = text(
            "insert into {} ({}, {}, {}) select {}, %s, true from {} on conflict do nothing"
        ).format(
            self._table(compared),
            _COMMA.join(name(column.name) for column in compared.key),
            VERSION,
            DELETED,
            _COMMA.join(cells),
            asked,
        )
        with self._session.transaction(f"holding places in {compared.schema.table}"):
            self._session.run(statement, [version, *_texts(compared, keys)])

    # -- the statements' parts

    def _ask(
        self, compared: Compared, statement: sql.Composed, parameters: Sequence[Any]
    ) -> list[Any]:
        doing = f"summing up rows of {compared.schema.table}"
        # A table that moved meanwhile says SchemaMoved, as for whoever writes to it.
        with (
            self._session.meaning(doing),
            self._unhurried(),
            as_registered(compared.schema.table),
        ):
            return self._session.run(statement, parameters).fetchall()

    @contextmanager
    def _unhurried(self) -> Iterator[None]:
        """Without a limit for the statement, and without a transaction: whoever takes long to read
        a large answer would be ended as idle in it."""
        self._session.run(b"SET statement_timeout = 0")
        try:
            with self._session.unhurried():
                yield
        finally:
            if not self._session.lost:
                limit = round(self._session.options.statement_timeout * 1000)
                self._session.run(f"SET statement_timeout = {limit}".encode())

    def _table(self, compared: Compared) -> sql.Identifier:
        place = self._settings(compared.schema.table).destination
        return name(place.namespace, place.name)

    def _settings(self, table: TableId) -> TableSettings:
        return selected(self._selection, table, place=self._session.place)

    def _gone(self, table: TableId) -> sql.Composed:
        soft = self._settings(table).soft_delete_column
        flag = _NO if soft is None else text("coalesce(d.{}, false)").format(name(soft))
        return text("(d.{} or {})").format(DELETED, flag)

    def _within(self, compared: Compared, where: KeyRange) -> tuple[sql.Composed, list[Any]]:
        """The live rows of a key range, and the parameters of its ends."""
        conditions: list[sql.Composable] = [
            text("not {}").format(self._gone(compared.schema.table))
        ]
        parameters: list[Any] = []
        for bound, compares in ((where.lower, ">="), (where.upper, "<")):
            if bound is not None:
                conditions.append(_compared(compared.key, compares))
                parameters += _bound(compared.key, bound)
        return _AND.join(conditions), parameters


def _quoted(column: Column) -> str:
    return "d." + name(column.name).as_string(None)


def _text(columns: Sequence[Column]) -> str:
    return servers.postgresql_text([(c.kind, _quoted(c)) for c in columns])


def _leaf(compared: Compared) -> str:
    return servers.postgresql_leaf(servers.postgresql_hash(_text(compared.key)))


def _form(column: Column) -> sql.SQL:
    return text(servers.postgresql_form(column.kind, _quoted(column)))


def _compared(key: Sequence[Column], compares: str) -> sql.Composed:
    return text("({}) {} ({})").format(
        _COMMA.join(text(_quoted(column)) for column in key),
        text(compares),
        _COMMA.join(text(f"%s::{TYPES[column.kind]}") for column in key),
    )


def _bound(key: Sequence[Column], bound: Bound) -> list[str]:
    return [as_text(column.kind, cell) for column, cell in zip(key, bound, strict=True)]


def _asked(key: Sequence[Column]) -> tuple[sql.Composed, sql.Composed]:
    """Keys as parameters, numbered from 1, and how they join the table."""
    arrays = _COMMA.join([text("%s::text[]")] * len(key))
    names = _COMMA.join([*(text(f"k{place}") for place in range(len(key))), text("n")])
    asked = text("unnest({}) with ordinality as k({})").format(arrays, names)
    joined = _AND.join(
        text("{} = k.k{}::{}").format(
            text(_quoted(column)), text(str(place)), text(TYPES[column.kind])
        )
        for place, column in enumerate(key)
    )
    return asked, joined


def _texts(compared: Compared, keys: Sequence[Cells]) -> list[list[str]]:
    return [
        [as_text(column.kind, cell) for cell in cells]
        for column, cells in zip(compared.key, keys, strict=True)
    ]
