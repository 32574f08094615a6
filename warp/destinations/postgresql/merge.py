"""The statements that carry staged rows into their table.  Pure: composed, never run here.

`d` is the destination's row, `s` the staged one.  The guard and the write are one statement, so
nothing comes between them: a READ lands on older versions only, anything else on versions up to
its own, because all changes of one transaction share a version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Concatenate, ParamSpec, cast

from psycopg import sql

from warp.destinations.postgresql.carriers import TYPES
from warp.destinations.postgresql.session import literal, name, text
from warp.destinations.sql import landing as shared
from warp.model import EVERY_VERSION, Column, KeySpan, Kind, Operation
from warp.staged import PARTIAL

VERSION = sql.Identifier("_cw_version")
DELETED = sql.Identifier("_cw_deleted")
_COMMA = text(", ")
P = ParamSpec("P")
_AND = text(" and ")


@dataclass(frozen=True, eq=False)
class Landing(shared.Landing):
    """A table of PostgreSQL and how it is written to."""

    # Sets of its columns that rows of other tables refer to; None where nothing can wait for it.
    awaited: frozenset[tuple[str, ...]] | None = None

    @property
    def table(self) -> sql.Identifier:
        return name(self.place.namespace, self.place.name)

    @property
    def staged(self) -> sql.Identifier:
        return sql.Identifier("pg_temp", self.staging)

    def cell(self, place: int) -> sql.Identifier:
        """A column of the staging table."""
        return sql.Identifier("s", f"c{place}")

    @property
    def same_key(self) -> sql.Composed:
        if not self.schema.key:
            return text("{}").format(text("false"))  # no row is another one's
        return _AND.join(
            text("d.{} = {}").format(name(column), self.cell(place))
            for column, place in zip(self.schema.key, self.places(self.schema.key), strict=True)
        )

    @property
    def in_key_order(self) -> sql.Composed:
        # Writers that take row locks in one order do not wait for each other in a circle.
        # Any one order does, so text is compared by its bytes, which costs least.
        if not self.schema.key:
            return text("{}").format(text(""))
        return text(" order by ") + _COMMA.join(
            text("{} collate {}").format(self.cell(place), sql.Identifier("C"))
            if TYPES[self.schema.columns[place].kind] == "text"
            else self.cell(place)
            for place in self.places(self.schema.key)
        )


def composed(
    make: Callable[Concatenate[Landing, P], list[sql.Composed]],
) -> Callable[Concatenate[Landing, P], list[bytes]]:
    """Each statement is composed once for its Landing and arguments, which costs as much as 200
    rows do."""

    @lru_cache(maxsize=512)
    def cached(landing: Landing, *args: P.args, **how: P.kwargs) -> list[bytes]:
        return [statement.as_bytes(None) for statement in make(landing, *args, **how)]

    return cast("Callable[Concatenate[Landing, P], list[bytes]]", cached)


def staging_table(staging: str, kinds: Iterable[Kind]) -> sql.Composed:
    columns: list[sql.Composable] = [
        text("c{} {}").format(text(str(place)), text(TYPES[kind]))
        for place, kind in enumerate(kinds)
    ]
    columns += [text("op smallint"), text("v bigint"), text("kept bytea"), text("n integer")]
    return text("create temporary table {} ({}) on commit delete rows").format(
        sql.Identifier(staging), _COMMA.join(columns)
    )


def drop_staging(staging: str) -> sql.Composed:
    return text("drop table {}").format(sql.Identifier("pg_temp", staging))


@composed
def empty_staging(landing: Landing) -> list[sql.Composed]:
    return [text("delete from {}").format(landing.staged)]


@composed
def copy_in(
    landing: Landing, *, op: bool, v: bool, kept: bool, numbered: bool = False
) -> list[sql.Composed]:
    columns = [f"c{place}" for place in range(len(landing.schema.columns))]
    columns += ["op"] * op + ["v"] * v + ["kept"] * kept + ["n"] * numbered
    return [
        text("copy {} ({}) from stdin (format binary)").format(
            landing.staged, _COMMA.join(map(sql.Identifier, columns))
        )
    ]


@composed
def missing(landing: Landing) -> list[sql.Composed]:
    """The numbers of the staged rows that are not in the table.

    While the table is read anew (the parameter `unit` is its marker), rows older than that are
    not what the source has: `Marker.stale_below`.
    """
    found = text("select from {} as d where {} and not d.{} and d.{} >= {}").format(
        landing.table,
        landing.same_key,
        DELETED,
        VERSION,
        text(
            "coalesce((select case m.phase when 'planned' then {} else m.sweep_below end"
            " from {} m where m.unit = %(unit)s and m.phase in ('planned', 'snapshot')), -1)"
        ).format(sql.Literal(EVERY_VERSION), name(landing.meta, "sync_markers")),
    )
    return [
        text("select s.n from {} as s where not exists ({}) order by 1").format(
            landing.staged, found
        )
    ]


@composed
def upsert(
    landing: Landing,
    *,
    operations: frozenset[int] | None,
    reads: bool,
    one_version: bool,
    left_out: frozenset[int],
) -> list[sql.Composed]:
    """Whole rows.  `operations` filters the staged rows; None where all of them are meant.

    Takes the parameter `after`: rows of a snapshot taken up to that version are gone.
    """
    version = _version(one_version)
    schema = landing.schema
    chosen = [place for place in range(len(schema.columns)) if place not in left_out]
    into = [name(schema.columns[place].name) for place in chosen] + [VERSION, DELETED]
    values: list[sql.Composable] = [landing.cell(place) for place in chosen]
    values += [version, text("false")]
    if landing.soft is not None:
        into.append(name(landing.soft))
        values.append(text("false"))
    key = set(schema.key)
    updated = [column for column in into if column not in [name(k) for k in key]]
    conditions: list[sql.Composable] = []
    if operations is not None:
        conditions.append(_op_in(operations))
    if reads:
        conditions.append(text("{} > %(after)s").format(version))
    where = text(" where ") + _AND.join(conditions) if conditions else text("")
    statement = text(
        "insert into {} as d ({}) select {} from {} as s{}{}"
        " on conflict ({}) do update set {} where d.{} {} excluded.{}"
    ).format(
        landing.table,
        _COMMA.join(into),
        _COMMA.join(values),
        landing.staged,
        where,
        landing.in_key_order,
        _COMMA.join(map(name, schema.key)),
        _COMMA.join(text("{0} = excluded.{0}").format(column) for column in updated),
        VERSION,
        text("<" if reads else "<="),
        VERSION,
    )
    return [statement]


@composed
def partial(landing: Landing, *, one_version: bool, left_out: frozenset[int]) -> list[sql.Composed]:
    """Rows that keep some cells: first those that are missing, then all of them.

    In this order, because the insert waits for another writer's uncommitted row and the update
    then sees it; the other way round that change would be lost between the two.
    """
    version = _version(one_version)
    schema = landing.schema
    chosen = [place for place in range(len(schema.columns)) if place not in left_out]
    into = [name(schema.columns[place].name) for place in chosen] + [VERSION]
    values: list[sql.Composable] = [*map(landing.cell, chosen), version]
    missing = text(
        "insert into {} as d ({}) select {} from {} as s where {}{} on conflict ({}) do nothing"
    ).format(
        landing.table,
        _COMMA.join(into),
        _COMMA.join(values),
        landing.staged,
        _op_in([PARTIAL]),
        landing.in_key_order,
        _COMMA.join(map(name, schema.key)),
    )
    sets = [
        text("{0} = case when get_bit(s.kept, {1}) = 1 then d.{0} else {2} end").format(
            name(schema.columns[place].name), sql.Literal(place), landing.cell(place)
        )
        for place in chosen
        if schema.columns[place].name not in schema.key
    ]
    sets += [text("{} = {}").format(VERSION, version), text("{} = false").format(DELETED)]
    if landing.soft is not None:
        sets.append(text("{} = false").format(name(landing.soft)))
    rest = text("update {} as d set {} from {} as s where {} and {} and d.{} <= {}").format(
        landing.table,
        _COMMA.join(sets),
        landing.staged,
        _op_in([PARTIAL]),
        landing.same_key,
        VERSION,
        version,
    )
    return [missing, rest]


@composed
def delete(
    landing: Landing, *, settled: bool, all_rows: bool, one_version: bool
) -> list[sql.Composed]:
    """Deletes, with the destination's last values in the audit; run one after the other.

    While the table's snapshot is under way a deleted row leaves a tombstone in its place, so that
    a late chunk does not bring it back.
    """
    version = _version(one_version)
    chosen = text("true") if all_rows else _op_in([Operation.DELETE])
    older = text("d.{} <= {}").format(VERSION, version)
    found = _AND.join([chosen, landing.same_key, older])
    steps: list[sql.Composed] = []
    if not settled:
        key = [name(column) for column in landing.schema.key]
        cells = [landing.cell(place) for place in landing.places(landing.schema.key)]
        steps.append(
            text(
                "insert into {} as d ({}) select {} from {} as s where {}{}"
                " on conflict ({}) do nothing"
            ).format(
                landing.table,
                _COMMA.join([*key, VERSION, DELETED]),
                _COMMA.join([*cells, version, text("true")]),
                landing.staged,
                chosen,
                landing.in_key_order,
                _COMMA.join(key),
            )
        )
    if landing.soft is not None:
        steps.append(
            text("update {} as d set {} = true, {} = {} from {} as s where {}").format(
                landing.table, name(landing.soft), VERSION, version, landing.staged, found
            )
        )
        return steps
    if settled:
        steps.append(
            text("with gone as (delete from {} as d using {} as s where {} returning {})").format(
                landing.table, landing.staged, found, _last_values(landing, version)
            )
            + _audit(landing, "delete", text("select * from gone"))
        )
        return steps
    # The rows stay locked, so the values in the audit are the ones that are then emptied.
    last = text("select {} from {} as d join {} as s on {} where not d.{} for update of d").format(
        _last_values(landing, version), landing.table, landing.staged, found, DELETED
    )
    steps.append(_audit(landing, "delete", last))
    emptied = [
        text("{} = null").format(name(column))
        for column in landing.schema.names()
        if column not in landing.schema.key
    ]
    emptied += [text("{} = true").format(DELETED), text("{} = {}").format(VERSION, version)]
    steps.append(
        text("update {} as d set {} from {} as s where {}").format(
            landing.table, _COMMA.join(emptied), landing.staged, found
        )
    )
    return steps


@composed
def truncate(landing: Landing) -> list[sql.Composed]:
    """Every row up to the parameter `version` goes; the audit keeps one line with their number."""
    older = text("d.{} <= %(version)s").format(VERSION)
    if landing.soft is not None:
        return [
            text("delete from {} as d where {} and d.{}").format(landing.table, older, DELETED),
            text("update {} as d set {} = true, {} = %(version)s where {} and not d.{}").format(
                landing.table, name(landing.soft), VERSION, older, name(landing.soft)
            ),
        ]
    return [
        text("with gone as (delete from {} as d where {} returning d.{})").format(
            landing.table, older, DELETED
        )
        + _counted(landing)
    ]


def purge(landing: Landing) -> sql.Composed:
    """Tombstones, once no chunk can come any more."""
    return text("delete from {} where {}").format(landing.table, DELETED)


def count_as_older(landing: Landing) -> sql.Composed:
    """Rows of the version `newest` or later, as if they were of the one before it."""
    return text("update {0} set {1} = %(newest)s::bigint - 1 where {1} >= %(newest)s").format(
        landing.table, VERSION
    )


def sweep(landing: Landing, within: KeySpan | None = None) -> sql.Composed:
    """Rows older than the parameter `below`, which the snapshot did not find again."""
    older = stale(landing, within)
    if landing.soft is not None:
        return text("update {} as d set {} = true where {} and not d.{}").format(
            landing.table, name(landing.soft), older, name(landing.soft)
        )
    return text("with gone as (delete from {} as d where {} returning {})").format(
        landing.table, older, _last_values(landing, text("d.{}").format(VERSION))
    ) + _audit(landing, "sweep", text("select * from gone"))


def stale(landing: Landing, within: KeySpan | None) -> sql.Composed:
    """Rows of the range that are older than the parameter `below`, of the alias `d`."""
    conditions = [text("d.{} < %(below)s").format(VERSION)]
    for edge, signs in (
        (within.lower if within else None, (">", ">=")),
        (within.upper if within else None, ("<", "<=")),
    ):
        if edge is not None and within is not None:
            names = within.key[: len(edge.values)]
            columns = [next(c for c in landing.schema.columns if c.source == n) for n in names]
            conditions.append(
                text("({}) {} ({})").format(
                    _COMMA.join(_ordered(text("d.{}").format(name(c.name)), c) for c in columns),
                    text(signs[edge.inclusive]),
                    _COMMA.join(
                        _ordered(text("{}::{}").format(literal(v), text(TYPES[c.kind])), c)
                        for v, c in zip(edge.values, columns, strict=True)
                    ),
                )
            )
    return _AND.join(conditions)


def _ordered(value: sql.Composable, column: Column) -> sql.Composable:
    """Texts, which stand for values of another kind here, in the order of those."""
    if TYPES[column.kind] != "text":
        return value
    return text("{} collate {}").format(value, sql.Identifier("C"))


def _last_values(landing: Landing, version: sql.Composable) -> sql.Composed:
    """What the audit keeps of a row: the version it went at, its key and its values."""
    key = _COMMA.join(
        text("{}, d.{}").format(literal(column), name(column)) for column in landing.schema.key
    )
    return text("{}, jsonb_build_object({}), {}").format(version, key, _row(landing))


def _row(landing: Landing) -> sql.Composable:
    """The row as jsonb.  A `json` column may hold NUL, which jsonb refuses (22P05): it goes in as
    the text it is."""
    if all(column.kind is not Kind.JSON_TEXT for column in landing.schema.columns):
        return text("to_jsonb(d.*)")  # not of `d`, which may be the name of a column
    cells = [
        text("d.{0}::text as {0}" if column.kind is Kind.JSON_TEXT else "d.{0}").format(
            name(column.name)
        )
        for column in landing.schema.columns
    ]
    cells += [text("d.{}").format(column) for column in (VERSION, DELETED)]
    return text("(select to_jsonb(r.*) from (select {}) as r)").format(_COMMA.join(cells))


def _audit(landing: Landing, reason: str, rows: sql.Composable) -> sql.Composed:
    return text(
        " insert into {} (unit, position, run, source_namespace, source_table, reason, version,"
        " key, row) select {}, {}, {}, {}, gone.* from ({}) as gone"
    ).format(
        name(landing.meta, "deletion_audit"),
        _writer(landing),
        literal(landing.schema.table.namespace),
        literal(landing.schema.table.name),
        literal(reason),
        rows,
    )


def _writer(landing: Landing) -> sql.Composed:
    """Unit, position and run, as values: the marker was moved by this very transaction."""
    return text(
        "{unit}, (select m.position from {markers} m where m.unit = {unit}), (select r.run"
        " from {runs} r where r.unit = {unit} and r.ended_at is null"
        " order by r.started_at desc limit 1)"
    ).format(
        unit=literal(landing.unit),
        markers=name(landing.meta, "sync_markers"),
        runs=name(landing.meta, "sync_runs"),
    )


def _counted(landing: Landing) -> sql.Composed:
    return text(
        " insert into {} (unit, position, run, source_namespace, source_table, reason, version,"
        " rows) select {}, {}, {}, 'truncate', %(version)s, count(*) from gone where not {}"
        " having count(*) > 0"
    ).format(
        name(landing.meta, "deletion_audit"),
        _writer(landing),
        literal(landing.schema.table.namespace),
        literal(landing.schema.table.name),
        DELETED,
    )


def _op_in(operations: Iterable[int]) -> sql.Composed:
    return text("s.op in ({})").format(_COMMA.join(sql.Literal(int(o)) for o in operations))


def _version(one: bool) -> sql.Composable:
    """Each row's own, or the parameter `version` where all have the same."""
    return text("%(version)s::bigint") if one else text("s.v")
