"""Is a destination equal to its source?  A hash of each column, whatever the order of the rows.

What the source holds is read by its plain driver and put into a table of its own; both tables are
then hashed by the same SQL.  A type may be wider than the source's (a bool kept as smallint, a
decimal as text), a value may not differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from benchmarks.side_by_side.figures import Verdict
from benchmarks.side_by_side.shop import COLUMNS, Order

DDL: Final = (
    "id bigint primary key, customer text, qty integer, amount numeric(12,2),"
    " weight double precision, created_at timestamptz, paid boolean, extra jsonb"
)
EXPECTED: Final = "expected"
_MICROSECONDS: Final = "(extract(epoch from {}) * 1000000)::bigint::text"
_CANONICAL: Final = {
    "id": "({})::text::bigint::text",
    "customer": "({})::text",
    "qty": "trim_scale(({})::text::numeric)::text",
    "amount": "trim_scale(({})::text::numeric)::text",
    "weight": "({})::text::float8::text",
    "created_at": _MICROSECONDS,
    "paid": "({})::text::boolean::text",
    "extra": "({})::text::jsonb::text",
}

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a contender put the rows, and how its columns are called or dug out."""

    schema: str
    table: str
    columns: Mapping[str, str] = field(default_factory=dict)  # ours -> an SQL expression
    where: str = "true"

    def relation(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def column(self, name: str) -> str:
        return self.columns.get(name, f'"{name}"')


Digest = tuple[int, tuple[str, ...]]
"""How many rows, and the hash of each column together with the key."""


def keep_expected(url: str, rows: Iterator[Order]) -> Digest:
    """What the source holds, in a table of the database at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"drop table if exists {EXPECTED}")
        connection.execute(f"create table {EXPECTED} ({DDL})".encode())
        fill(connection, EXPECTED, rows)
        return digest(connection, Landing("public", EXPECTED))


def fill(connection: Connection, table: str, rows: Iterator[Order]) -> None:
    with connection.cursor().copy(
        sql.SQL("copy {} from stdin").format(sql.Identifier(table))
    ) as copy:
        for row in rows:
            copy.write_row((*row[:-1], row.json))


def digest(connection: Connection, landing: Landing) -> Digest:
    canonical = _canonical(connection, landing)
    hashes = sql.SQL(", ").join(
        sql.SQL(
            "coalesce(sum(hashtextextended({} || '|' || coalesce({}, 'NULL'), 0)::numeric), 0)"
        ).format(canonical["id"], canonical[name])
        for name in COLUMNS
    )
    query = sql.SQL("select count(*), {} from {} where {}").format(
        hashes, landing.relation(), _raw(landing.where)
    )
    count, *sums = connection.execute(query).fetchone() or (0,)
    return int(count), tuple(str(each) for each in sums)


def compare(url: str, landing: Landing, expected: Digest, expected_url: str) -> Verdict:
    """`expected_url` is where `keep_expected` put the rows, to be fetched where hashes differ."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set timezone to 'UTC'")
        try:
            found = digest(connection, landing)
            if found == expected:
                return Verdict(expected[0], found[0])
            _fetch(connection, expected_url)
            return Verdict(expected[0], found[0], _differing(connection, landing))
        except psycopg.Error as error:
            return Verdict(expected[0], -1, unreadable=str(error).splitlines()[0])


def _differing(connection: Connection, landing: Landing) -> dict[str, int]:
    """Rows by column, of those that both have; `id` counts those that only one of them has."""
    theirs = _canonical(connection, landing)
    ours = _canonical(connection, Landing("pg_temp", EXPECTED))
    query = sql.SQL(
        "with a as (select {} from {}), b as (select {} from {} where {})"
        " select count(*) filter (where a.id is null or b.id is null), {}"
        " from a full join b on a.id = b.id"
    ).format(
        _as_columns(ours),
        sql.Identifier("pg_temp", EXPECTED),
        _as_columns(theirs),
        landing.relation(),
        _raw(landing.where),
        sql.SQL(", ").join(
            sql.SQL("count(*) filter (where a.id = b.id and a.{0} is distinct from b.{0})").format(
                sql.Identifier(name)
            )
            for name in COLUMNS[1:]
        ),
    )
    counts = connection.execute(query).fetchone() or ()
    return {name: int(n) for name, n in zip(COLUMNS, counts, strict=True) if n}


def _as_columns(canonical: Mapping[str, sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} as {}").format(canonical[name], sql.Identifier(name)) for name in COLUMNS
    )


def _canonical(connection: Connection, landing: Landing) -> dict[str, sql.Composable]:
    found: dict[str, sql.Composable] = {}
    for name in COLUMNS:
        expression = landing.column(name)
        form = _CANONICAL[name]
        if name == "created_at" and _type_of(connection, landing, expression) in (
            "text",
            "varchar",
        ):
            expression = f"(({expression})::timestamptz)"
        found[name] = _raw(form.format(expression))
    return found


def _type_of(connection: Connection, landing: Landing, expression: str) -> str:
    query = sql.SQL("select pg_typeof({})::text from (select 1) one left join {} on true limit 1")
    row = connection.execute(query.format(_raw(expression), landing.relation())).fetchone()
    return str(row[0]) if row else ""


def _raw(expression: str) -> sql.SQL:
    """Expressions are this package's own, written beside each contender."""
    return sql.SQL(expression)


def _fetch(connection: Connection, expected_url: str) -> None:
    connection.execute(f"create temporary table {EXPECTED} ({DDL})".encode())
    with psycopg.connect(expected_url, autocommit=True) as there:
        copy_across(there, f"select * from {EXPECTED}", connection, f"pg_temp.{EXPECTED}")


def copy_across(there: Connection, query: str, here: Connection, table: str) -> None:
    with (
        there.cursor().copy(f"copy ({query}) to stdout (format binary)".encode()) as reading,
        here.cursor().copy(f"copy {table} from stdin (format binary)".encode()) as writing,
    ):
        for part in reading:
            writing.write(part)
