"""Servers and this program compute the same digests of random rows of every type."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from typing import Any

import pytest
from any_cells import CELLS, rows_of
from fix_servers import mysql_client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from postgresql_world import META, ORDERS, World

from warp.destinations.postgresql import PostgresDestination
from warp.digest import canonical, servers
from warp.digest.ranges import compared_of
from warp.digest.seams import EVERYTHING, Compared, KeyRange
from warp.digest.sums import Sums, leaves_of, total
from warp.model import Column, Kind, Operation, TableSchema

FEW = settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink a failure here would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KINDS = list(Kind)
ROWS = 10
HOSTILE = 'we"ird %s col'
COLUMNS = (
    Column("id", Kind.INT64),
    *(Column(HOSTILE if kind is Kind.TEXT else f"c_{kind.value}", kind) for kind in KINDS),
)
SCHEMA = TableSchema(ORDERS, COLUMNS, ("id",))


@FEW
@given(rows=rows_of(KINDS, ROWS), data=st.data())
def test_postgresql_sums_rows_of_every_kind_up_as_we_do(
    pg_warehouse: str, rows: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    with closing(World(pg_warehouse)) as world:
        world.looking.execute("drop schema if exists shop cascade")
        world.looking.execute(f"delete from {META}.sync_markers")
        world.looking.execute(f"delete from {META}.schema_registry")
        unit = world.settled(SCHEMA)
        events = [(Operation.CREATE, 5, id, *row) for id, row in enumerate(rows)]
        unit.write("a", *events)
        columns = [list(column) for column in zip(*(e[2:] for e in events), strict=True)]
        compared = compared_of(unit.schema(), None)
        _agrees(unit.destination, compared, columns)
        lower = data.draw(st.none() | st.integers(0, ROWS))
        upper = data.draw(st.none() | st.integers(0, ROWS))
        where = KeyRange(None if lower is None else (lower,), None if upper is None else (upper,))
        inside = [
            id for id in range(ROWS) if (lower or 0) <= id < (ROWS if upper is None else upper)
        ]
        some = [[column[id] for id in inside] for column in columns]
        assert unit.destination.comparing().total(compared, where) == _sums(compared, some)


def _agrees(destination: PostgresDestination, compared: Compared, columns: list[list[Any]]) -> None:
    comparing = destination.comparing()
    ordered = _ordered(compared, columns)
    hashes = canonical.row_hashes(compared.columns, ordered)
    assert comparing.total(compared, EVERYTHING) == Sums.of(hashes)
    leaves = comparing.leaves(compared, EVERYTHING)
    assert total(leaves.values()) == Sums.of(hashes)
    assert set(leaves) == set(leaves_of(compared.key, [columns[0]]))
    listed = comparing.rows(compared, EVERYTHING, list(leaves))
    assert dict(listed) == {(str(id),): h for id, h in zip(columns[0], hashes, strict=True)}
    found = comparing.look(compared, [[*columns[0], 99]])
    forms = canonical.forms_of(compared.columns, ordered)
    assert [one and one.forms for one in found] == [*forms, None]
    # Another way, which shares no code with the rest:
    names = [(column.name, column.kind.value) for column in compared.columns]
    assert comparing.recount(("shop", "orders"), names, None) == (
        len(hashes),
        str(Sums.of(hashes)),
    )


def _ordered(compared: Compared, columns: list[list[Any]]) -> list[list[Any]]:
    by_name = dict(zip((c.name for c in COLUMNS), columns, strict=True))
    return [by_name[column.name] for column in compared.columns]


def _sums(compared: Compared, columns: list[list[Any]]) -> Sums:
    return Sums.of(canonical.row_hashes(compared.columns, _ordered(compared, columns)))


def test_a_tombstone_and_a_soft_deleted_row_are_no_rows(pg_warehouse: str) -> None:
    with closing(World(pg_warehouse)) as world:
        world.table["soft_delete_column"] = "is_deleted"
        unit = world.settled()
        unit.write("a", (Operation.CREATE, 5, 1, "a"), (Operation.CREATE, 5, 2, "b"))
        unit.write("b", (Operation.DELETE, 6, 2))
        compared = compared_of(unit.schema(), None)
        comparing = unit.destination.comparing()
        comparing.hold_places(compared, [[3]], 7)
        assert comparing.total(compared, EVERYTHING).rows == 1
        found = comparing.look(compared, [[1, 2, 3, 4]])
        assert [one and (one.version, one.gone) for one in found] == [
            *((5, False), (6, True), (7, True)),
            None,
        ]
        columns = [(column.name, column.kind.value) for column in compared.columns]
        assert comparing.recount(("shop", "orders"), columns, "is_deleted")[0] == 1


# ---------------------------------------------------------------- MySQL and MariaDB

MYSQL_TYPES = {
    Kind.BOOL: "bit(1)",
    Kind.INT32: "int",
    Kind.INT64: "bigint",
    Kind.DECIMAL: "decimal(38,6)",
    Kind.TEXT: "varchar(50) character set utf8mb4 collate utf8mb4_general_ci",
    Kind.BYTES: "varbinary(50)",
    Kind.DATE: "date",
    Kind.TIME: "time(6)",
    Kind.DATETIME: "datetime(6)",
    Kind.TIMESTAMP: "datetime(6)",  # a TIMESTAMP would only reach to 2038
    Kind.OBJECTID: "char(24) character set latin1",
    Kind.TAGGED: "text character set utf8mb4",
}
_START = dt.datetime(1970, 1, 1)  # noqa: DTZ001


def _of_mysql(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    if kind in (Kind.DATETIME, Kind.TIMESTAMP):
        return _START + dt.timedelta(microseconds=value)
    if kind is Kind.TIME:
        return dt.timedelta(microseconds=value)
    return value


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


@FEW
@given(rows=rows_of(list(MYSQL_TYPES), ROWS))
def test_mysql_sums_rows_up_as_we_do(mariadb_database: str, rows: list[tuple[Any, ...]]) -> None:
    columns = [Column(f"c{i}", kind) for i, kind in enumerate(MYSQL_TYPES)]
    declared = ", ".join(f"c{i} {type_}" for i, type_ in enumerate(MYSQL_TYPES.values()))
    quoted = [(column.kind, f"`{column.name}`") for column in columns]
    text = servers.mysql_text(quoted)
    assert text is not None
    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("set time_zone = '+00:00'")
        cursor.execute(f"create or replace table t (n int, {declared})")
        marks = ", ".join(["%s"] * (len(columns) + 1))
        given_rows = [
            [n, *(_of_mysql(c.kind, v) for c, v in zip(columns, row, strict=True))]
            for n, row in enumerate(rows)
        ]
        cursor.executemany(f"insert into t values ({marks})", given_rows)
        cursor.execute(f"select {text} from t order by n")
        told = [_decoded(one) for (one,) in cursor.fetchall()]
        cells = [list(column) for column in zip(*rows, strict=True)]
        assert told == canonical.row_texts(columns, cells)
        cursor.execute(f"select {servers.mysql_sums(text)} from t")
        [(counted, hashed, high, low)] = cursor.fetchall()
        assert counted == hashed
        expected = Sums.of(canonical.row_hashes(columns, cells))
        assert Sums.told(counted, high, low) == expected
        cursor.execute(f"select {servers.mysql_leaf(text)} from t order by n")
        assert [int(leaf) for (leaf,) in cursor.fetchall()] == leaves_of(columns, cells)


@pytest.mark.parametrize("kind", [Kind.FLOAT32, Kind.FLOAT64, Kind.JSON, Kind.JSON_TEXT])
def test_what_mysql_prints_in_its_own_way_is_left_to_us(kind: Kind) -> None:
    assert servers.mysql_text([(Kind.INT64, "`a`"), (kind, "`b`")]) is None


def test_every_kind_is_drawn() -> None:
    assert set(CELLS) == set(Kind)
