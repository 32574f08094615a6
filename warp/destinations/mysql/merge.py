"""The statements that carry staged rows into their table.  Pure: composed, never run here.

`d` is the destination's row, `s` the staged one.  A READ lands on older versions only, anything
else on versions up to its own, because all changes of one transaction share a version.

Rows that are there are changed by an UPDATE that finds them by their key and nothing else; rows
that are not there are INSERTed.  Never `ON DUPLICATE KEY UPDATE`: where the table has another
unique key, that changes whatever row holds the value, and says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, Concatenate, Final, ParamSpec, cast

from warp.destinations.mysql.carriers import key_bytes, spelled
from warp.destinations.mysql.names import fitting, quoted, text_literal
from warp.destinations.sql import landing as shared
from warp.model import EVERY_VERSION, KeySpan, Kind, Operation
from warp.staged import PARTIAL

_NUMBERS: Final = frozenset({Kind.INT32, Kind.INT64, Kind.DECIMAL})
VERSION: Final = "`_cw_version`"
DELETED: Final = "`_cw_deleted`"
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Landing(shared.Landing):
    """A table of MySQL and how it is written to."""

    collation: str = field(kw_only=True)  # compares texts by their bytes

    @property
    def table(self) -> str:
        return quoted(fitting(self.place.namespace), fitting(self.place.name))

    @property
    def staged(self) -> str:
        return quoted(self.meta, self.staging)

    @property
    def same_key(self) -> str:
        return self.keyed("d")

    def keyed(self, row: str) -> str:
        """Has the destination's row, by this name, the staged one's key?"""
        return " and ".join(
            f"{row}.{quoted(column)} = s.c{place}"
            for column, place in zip(self.schema.key, self.places(self.schema.key), strict=True)
        )


def composed(
    make: Callable[Concatenate[Landing, P], list[str]],
) -> Callable[Concatenate[Landing, P], list[str]]:
    """Each statement is composed once for its Landing and arguments."""
    return cast(
        "Callable[Concatenate[Landing, P], list[str]]",
        lru_cache(maxsize=512)(cast("Callable[..., Any]", make)),
    )


def staging_table(landing: Landing) -> str:
    """Keys are spelled as in the table, so that a row is found by its index."""
    schema = landing.schema
    key = key_bytes(schema)
    columns = [
        f"c{place} "
        + spelled(column.kind, landing.collation, key=key if column.name in schema.key else 0)
        for place, column in enumerate(schema.columns)
    ]
    columns += ["op tinyint unsigned", "v bigint", "kept varbinary(1024)", "n int"]
    return f"create temporary table {landing.staged} ({', '.join(columns)}) engine = InnoDB"


def drop_staging(landing: Landing) -> str:
    return f"drop temporary table if exists {landing.staged}"


def empty_staging(landing: Landing) -> str:
    return f"delete from {landing.staged}"


@composed
def missing(landing: Landing) -> list[str]:
    """The numbers of the staged rows that are not in the table.

    While the table is read anew (the parameter `unit` is its marker), rows older than that are
    not what the source has: `Marker.stale_below`.
    """
    below = (
        f"coalesce((select case m.phase when 'planned' then {EVERY_VERSION} else m.sweep_below end"
        f" from {quoted(landing.meta, 'sync_markers')} as m"
        " where m.unit = %(unit)s and m.phase in ('planned', 'snapshot')), -1)"
    )
    return [
        f"select s.n from {landing.staged} as s left join {landing.table} as d"
        f" on {landing.same_key}"
        f" where d.{VERSION} is null or d.{DELETED} or d.{VERSION} < {below} order by 1"
    ]


@composed
def upsert(
    landing: Landing,
    *,
    operations: frozenset[int] | None,
    reads: bool,
    one_version: bool,
    left_out: frozenset[int],
    partial: bool = False,
) -> list[str]:
    """Rows that are there, then those that are not; to be run again where another writer inserts
    one of them in between.

    `operations` filters the staged rows; None where all of them are meant.  Takes the parameter
    `after`: rows of a snapshot taken up to that version are gone.
    """
    version = _version(one_version)
    schema = landing.schema
    chosen = [place for place in range(len(schema.columns)) if place not in left_out]
    conditions: list[str] = [] if operations is None else [_op_in(operations)]
    if reads:
        conditions.append(f"{version} > %(after)s")
    sets = [
        _assigned(schema.columns[place].name, place, partial)
        for place in chosen
        if schema.columns[place].name not in schema.key
    ]
    sets += [f"d.{VERSION} = {version}", f"d.{DELETED} = false"]
    into = [quoted(schema.columns[place].name) for place in chosen] + [VERSION, DELETED]
    values = [f"s.c{place}" for place in chosen] + [version, "false"]
    if landing.soft is not None:
        sets.append(f"d.{quoted(landing.soft)} = false")
        into.append(quoted(landing.soft))
        values.append("false")
    older = f"d.{VERSION} {'<' if reads else '<='} {version}"
    update = f"update {_joined(landing)} set {', '.join(sets)} where {_all([*conditions, older])}"
    insert = (
        f"insert into {landing.table} ({', '.join(into)}) select {', '.join(values)}"
        f" from {landing.staged} as s left join {landing.table} as d on {landing.same_key}"
        f" where {_all([*conditions, f'd.{VERSION} is null'])}"
    )
    return [update, insert]


def _assigned(name: str, place: int, partial: bool) -> str:
    column = f"d.{quoted(name)}"
    return f"{column} = " + (
        f"if({_keeps(place)}, {column}, s.c{place})" if partial else f"s.c{place}"
    )


@composed
def delete(landing: Landing, *, settled: bool, all_rows: bool, one_version: bool) -> list[str]:
    """Deletes, with the destination's last values in the audit; run one after the other.

    While the table's snapshot is under way a deleted row leaves a tombstone in its place, so that
    a late chunk does not bring it back.
    """
    version = _version(one_version)
    schema = landing.schema
    chosen = [] if all_rows else [_op_in([Operation.DELETE])]
    older = f"d.{VERSION} <= {version}"
    steps: list[str] = []
    if not settled:
        key = [quoted(column) for column in schema.key]
        cells = [f"s.c{place}" for place in landing.places(schema.key)]
        steps.append(
            f"insert into {landing.table} ({', '.join([*key, VERSION, DELETED])})"
            f" select {', '.join([*cells, version, 'true'])}"
            f" from {landing.staged} as s left join {landing.table} as d on {landing.same_key}"
            f" where {_all([*chosen, f'd.{VERSION} is null'])}"
        )
    found = _all([*chosen, older])
    if landing.soft is not None:
        steps.append(
            f"update {_joined(landing)} set d.{quoted(landing.soft)} = true,"
            f" d.{VERSION} = {version} where {found}"
        )
        return steps
    # The rows stay locked, so the values in the audit are the ones that then go.  A tombstone in a
    # settled table holds the place of a row that a correction is to bring: its end must be told.
    last = [*chosen, older] if settled else [*chosen, older, f"not d.{DELETED}"]
    steps.append(
        _audit(landing, "delete", version)
        + f" from {_joined(landing)} where {_all(last)} for update"
    )
    if settled:
        # By its name: an alias would be looked for in the session's own database; it has none.
        table = landing.table
        found = _all([*chosen, f"{table}.{VERSION} <= {version}"])
        steps.append(
            f"delete from {table} using {landing.staged} as s straight_join {table}"
            f" on {landing.keyed(table)} where {found}"
        )
        return steps
    emptied = [f"d.{quoted(name)} = null" for name in schema.names() if name not in schema.key]
    emptied += [f"d.{DELETED} = true", f"d.{VERSION} = {version}"]
    steps.append(f"update {_joined(landing)} set {', '.join(emptied)} where {found}")
    return steps


@composed
def truncate(landing: Landing) -> list[str]:
    """Every row up to the parameter `version` goes; the audit keeps one line with their number."""
    older = f"{VERSION} <= %(version)s"
    if landing.soft is not None:
        soft = quoted(landing.soft)
        return [
            f"delete from {landing.table} where {older} and {DELETED}",
            f"update {landing.table} set {soft} = true, {VERSION} = %(version)s"
            f" where {older} and not {soft}",
        ]
    return [
        f"insert into {quoted(landing.meta, 'deletion_audit')} ({_AUDITED}, version, `rows`)"
        f" select {_writer(landing, 'truncate')}, %(version)s, count(*) from {landing.table}"
        f" where {older} and not {DELETED} having count(*) > 0",
        f"delete from {landing.table} where {older}",
    ]


def purge(landing: Landing) -> list[str]:
    """Tombstones, once no chunk can come any more."""
    return [f"delete from {landing.table} where {DELETED}"]


def count_as_older(landing: Landing) -> str:
    """Rows of the version `newest` or later, as if they were of the one before it."""
    return f"update {landing.table} set {VERSION} = %(newest)s - 1 where {VERSION} >= %(newest)s"


def sweep(landing: Landing, within: KeySpan | None = None) -> list[str]:
    """Rows of the range older than the parameter `below`, which the snapshot did not find again."""
    older = stale(landing, within)
    if landing.soft is not None:
        soft = quoted(landing.soft)
        return [f"update {landing.table} as d set d.{soft} = true where {older} and not d.{soft}"]
    # By its name: an alias would be looked for in the session's own database; it has none.
    table = landing.table
    return [
        _audit(landing, "sweep", f"d.{VERSION}") + f" from {table} as d where {older} for update",
        f"delete from {table} where {stale(landing, within, table)}",
    ]


def stale(landing: Landing, within: KeySpan | None, row: str = "d") -> str:
    """Rows of the range that are older than the parameter `below`; `row` is a row's name."""
    conditions = [f"{row}.{VERSION} < %(below)s"]
    for edge, strict in (
        (within.lower if within else None, ">"),
        (within.upper if within else None, "<"),
    ):
        if edge is not None and within is not None:
            columns = [
                next(c for c in landing.schema.columns if c.source == source)
                for source in within.key[: len(edge.values)]
            ]
            conditions.append(
                beyond(
                    [f"{row}.{quoted(column.name)}" for column in columns],
                    [_edge(c.kind, v) for c, v in zip(columns, edge.values, strict=True)],
                    strict,
                    inclusive=edge.inclusive,
                )
            )
    return _all(conditions)


def _edge(kind: Kind, value: str) -> str:
    """A number is written as one: compared with a text the server makes a double of it."""
    return f"{Decimal(value):f}" if kind in _NUMBERS else text_literal(value)


def beyond(
    names: Sequence[str], values: Sequence[str], strict: str, *, inclusive: bool = False
) -> str:
    """Is a key on this side of a place (`strict` is `<` or `>`)?  So written that an index finds
    it, which a comparison of whole rows is not."""
    either = []
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        same = [f"{n} = {v}" for n, v in zip(names[:place], values[:place], strict=True)]
        last = inclusive and place == len(names) - 1
        either.append(_all([*same, f"{name} {strict}{'=' * last} {value}"]))
    return f"({' or '.join(f'({one})' for one in either)})"


@composed
def vacate(landing: Landing, *, columns: tuple[str, ...], one_version: bool) -> list[str]:
    """Empty these unique columns of the rows that the staged ones are about to overwrite.

    So two rows can swap a value: neither holds it while both are written.  The version stays, so
    that the staged rows land.
    """
    version = _version(one_version)
    at = {column: place for place, column in enumerate(landing.schema.names())}
    sets = [
        f"d.{quoted(column)} = if(s.op = {PARTIAL} and {_keeps(at[column])}, d.{quoted(column)},"
        " null)"
        for column in columns
    ]
    lands = (
        f"(d.{VERSION} < {version} or (s.op <> {int(Operation.READ)} and d.{VERSION} = {version}))"
    )
    return [
        f"update {_joined(landing)} set {', '.join(sets)}"
        f" where s.op <> {int(Operation.DELETE)} and {lands}"
    ]


def _keeps(place: int) -> str:
    """Does a partial row leave this column as it is?"""
    return f"ord(substring(s.kept, {place // 8 + 1}, 1)) & {1 << place % 8}"


def gone(landing: Landing) -> str:
    """Is a row of the alias `d` a tombstone, or soft-deleted?"""
    if landing.soft is None:
        return f"d.{DELETED}"
    return f"(d.{DELETED} or coalesce(d.{quoted(landing.soft)}, false))"


@composed
def present(landing: Landing) -> list[str]:
    """What the table has of each staged key; the staged row's number stands where its version
    would."""
    return [f"select s.v, d.{VERSION}, {gone(landing)} from {_joined(landing)}"]


@composed
def whole(landing: Landing, *, cells: str) -> list[str]:
    """As `present`, with these cells of each row."""
    return [f"select s.v, d.{VERSION}, {gone(landing)}, {cells} from {_joined(landing)}"]


@composed
def hold_places(landing: Landing) -> list[str]:
    """A tombstone of the parameter `version` for each staged key of which there is nothing."""
    key = [quoted(column) for column in landing.schema.key]
    cells = [f"s.c{place}" for place in landing.places(landing.schema.key)]
    return [
        f"insert into {landing.table} ({', '.join([*key, VERSION, DELETED])})"
        f" select {', '.join([*cells, '%(version)s', 'true'])}"
        f" from {landing.staged} as s left join {landing.table} as d on {landing.same_key}"
        f" where d.{VERSION} is null"
    ]


@composed
def deleted(landing: Landing, *, since: str = "version >= %(oldest)s") -> list[str]:
    """Deletions of the staged keys in the audit, as it writes a key; `since` says from where on."""
    schema = landing.schema
    key = _object(
        landing,
        [
            (column, f"s.c{place}", schema.columns[place].kind)
            for column, place in zip(schema.key, landing.places(schema.key), strict=True)
        ],
    )
    return [
        f"select s.v, max(a.version) from {landing.staged} as s straight_join"
        f" {quoted(landing.meta, 'deletion_audit')} as a"
        f" on a.source_namespace = {text_literal(schema.table.namespace)}"
        f" and a.source_table = {text_literal(schema.table.name)}"
        f" and a.{since} and a.`key` = {key} group by s.v"
    ]


def _joined(landing: Landing) -> str:
    # In this order, else the server reads the whole table where the staged rows look many.
    return f"{landing.staged} as s straight_join {landing.table} as d on {landing.same_key}"


_AUDITED: Final = "unit, position, run, source_namespace, source_table, reason"


def _audit(landing: Landing, reason: str, version: str) -> str:
    """What the audit keeps of a row: the version it went at, its key and its values."""
    kinds = {column.name: column.kind for column in landing.schema.columns}
    key = _object(
        landing, [(name, f"d.{quoted(name)}", kinds[name]) for name in landing.schema.key]
    )
    row = _object(landing, [(name, f"d.{quoted(name)}", kind) for name, kind in kinds.items()])
    return (
        f"insert into {quoted(landing.meta, 'deletion_audit')} ({_AUDITED}, version, `key`, `row`)"
        f" select {_writer(landing, reason)}, {version}, {key}, {row}"
    )


def _object(landing: Landing, cells: Sequence[tuple[str, str, Kind]]) -> str:
    """A JSON object as text, the same for the same values wherever they stand."""
    parts = (f"{text_literal(name)}, {_SHOWN.get(k, '{}').format(cell)}" for name, cell, k in cells)
    # MySQL's JSON is no text, and equal to none.
    return f"(convert(json_object({', '.join(parts)}) using utf8mb4) collate {landing.collation})"


_SHOWN: Final = {Kind.BYTES: "hex({})", Kind.UUID: "hex({})"}


def _writer(landing: Landing, reason: str) -> str:
    """Unit, position and run: the marker was moved by this very transaction."""
    unit = text_literal(landing.unit)
    return (
        f"{unit}, (select m.position from {quoted(landing.meta, 'sync_markers')} as m"
        f" where m.unit = {unit}),"
        f" (select r.run from {quoted(landing.meta, 'sync_runs')} as r"
        f" where r.unit = {unit} and r.ended_at is null order by r.started_at desc limit 1),"
        f" {text_literal(landing.schema.table.namespace)},"
        f" {text_literal(landing.schema.table.name)}, '{reason}'"
    )


def _op_in(operations: Iterable[int]) -> str:
    return f"s.op in ({', '.join(str(int(o)) for o in sorted(operations))})"


def _all(conditions: Iterable[str]) -> str:
    return " and ".join(conditions)


def _version(one: bool) -> str:
    """Each row's own, or the parameter `version` where all have the same."""
    return "%(version)s" if one else "s.v"
