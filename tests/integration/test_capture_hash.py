"""`strategy: hash`: both servers say where a table and its copy differ; only that is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from capture_world import NOW, Held, database_of_postgresql, emptied, mysql, postgresql
from fix_servers import Server, fresh_database, mysql_client
from in_process import There, live, of_mysql, settings_of
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from coordinator.status import StatusReader
from warp import hash_capture
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.errors import LeaseLost, SourceRefused
from warp.interfaces import SourceConnector
from warp.model import (
    Capture,
    ChangeBatch,
    Chunk,
    Lease,
    Phase,
    TableId,
    TableSelection,
    TableSettings,
    WorkUnit,
    Written,
)
from warp.pipeline import NoMeter
from warp.sources.mysql import MysqlSource
from warp.sources.postgresql import PostgresSource
from warp.sources.postgresql.capture import CaptureSide as PostgresSide
from warp.testing.servers import MariaDb
from workers import errands


class Counting(NoMeter):
    """How many rows were written."""

    def __init__(self) -> None:
        self.rows = 0

    def committed(self, batch: ChangeBatch, written: Written) -> None:
        self.rows += sum(written.counts.values())


class Dying(Held):
    """A lease that is lost after so many signs of life, as of a worker that is killed there."""

    def __init__(self, lease: Lease, checks: int) -> None:
        super().__init__(lease, None)
        self._checks = checks

    def check(self) -> None:
        self._checks -= 1
        if self._checks < 0:
            raise LeaseLost("as the test says")


@dataclass
class At:
    """A source's database as its application sees it."""

    namespace: str
    connect: Callable[[TableSelection], SourceConnector]
    run: Callable[[str], list[Any]]
    name: Callable[[str], str]  # quoted
    connector: type[Any]
    counts: type[Any]  # whose `version` says how far the server has counted

    def table(self, name: str) -> TableId:
        return TableId(self.namespace, name)


@pytest.fixture(scope="module")
def pg_source(postgres: Server) -> Iterator[str]:
    with database_of_postgresql(postgres.url) as url:
        yield url


@pytest.fixture(scope="module")
def shared_warehouse(postgres: Server, _prepared: str) -> Iterator[str]:
    with fresh_database(postgres, like=conninfo_to_dict(_prepared)["dbname"]) as url:
        yield url


@pytest.fixture
def pg_warehouse(shared_warehouse: str) -> Iterator[str]:
    """One for all tests of this module, emptied after each: a database costs more than a test."""
    yield shared_warehouse
    with psycopg.connect(shared_warehouse, autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        schemas = connection.execute(
            "select nspname from pg_namespace where nspname !~ '^pg_'"
            " and nspname not in ('information_schema', 'cartridge_warp_metadata')"
        ).fetchall()
        for (schema,) in schemas:
            statement = sql.SQL("drop schema {} cascade").format(sql.Identifier(schema))
            connection.execute(statement)
        connection.execute("create schema public")
        kept = connection.execute(
            "select string_agg(quote_ident(tablename), ', cartridge_warp_metadata.') from pg_tables"
            " where schemaname = 'cartridge_warp_metadata' and tablename <> 'schema_version'"
        ).fetchall()
        names = sql.SQL(kept[0][0])
        connection.execute(sql.SQL("truncate cartridge_warp_metadata.{} cascade").format(names))


@contextmanager
def of_postgresql(request: pytest.FixtureRequest) -> Iterator[At]:
    url = emptied(request.getfixturevalue("pg_source"))
    with psycopg.connect(url, autocommit=True) as connection:

        def run(statement: str) -> list[Any]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        def connect(selection: TableSelection) -> SourceConnector:
            return postgresql(url, selection)

        def name(text: str) -> str:
            return sql.Identifier(text).as_string(None)

        yield At("public", connect, run, name, PostgresSource, PostgresSide)


@contextmanager
def of_mariadb(request: pytest.FixtureRequest) -> Iterator[At]:
    url = request.getfixturevalue("mariadb_database")
    with mysql_client(url) as connection, connection.cursor() as cursor:

        def run(statement: str) -> list[Any]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        def connect(selection: TableSelection) -> SourceConnector:
            return mysql(url, selection)

        def name(text: str) -> str:
            return "`" + text.replace("`", "``") + "`"

        database = urlsplit(url).path.lstrip("/")
        yield At(database, connect, run, name, MysqlSource, MysqlSource)


@pytest.fixture(params=[of_postgresql, of_mariadb])
def at(request: pytest.FixtureRequest) -> Iterator[At]:
    with request.param(request) as made:
        yield made


# What is no matter of the source is shown with one of them.
one_source = pytest.mark.parametrize("at", [of_postgresql], indirect=True)


@dataclass
class HashedCopy:
    """One table, and its copy in a PostgreSQL."""

    at: At
    url: str
    settings: TableSettings
    fences: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    written: int = 0  # rows, by the last run

    @property
    def unit(self) -> WorkUnit:
        return WorkUnit.poll("shop", self.settings.table)

    def select(self, table: TableId) -> TableSettings | None:
        return self.settings if table == self.settings.table else None

    def run(self, *, batches: int | None = None, dies_after: int | None = None) -> bool:
        """One run, as a worker begins it; asked to stop after so many batches and ranges."""
        options = PostgresOptions.model_validate({"connection_string": self.url})
        meter = Counting()
        lease = Lease(self.unit, "worker", next(self.fences))
        hold = Held(lease, batches) if dies_after is None else Dying(lease, dies_after)
        with (
            closing(self.at.connect(self.select)) as source,
            closing(PostgresDestination(options, self.select)) as destination,
        ):
            marker = destination.open(lease)
            try:
                return hash_capture.poll(
                    *(source, destination, marker, hold),
                    selection=self.select,
                    meter=meter,
                    fire_time=NOW,
                )
            finally:
                self.written = meter.rows
                [self.marker] = destination.metadata().markers((self.unit.kind,))

    def ask(self, statement: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            place = sql.Identifier(self.settings.table.namespace, self.settings.table.name)
            cursor = connection.execute(sql.SQL(statement).format(place))
            return cursor.fetchall() if cursor.description else []

    def rows(self, columns: str = "*") -> list[Any]:
        return sorted(self.ask(f"select {columns} from {{}} where not _cw_deleted"))

    def at_source(self, columns: str = "*") -> list[Any]:
        place = ".".join(
            map(self.at.name, (self.settings.table.namespace, self.settings.table.name))
        )
        return sorted(self.at.run(f"select {columns} from {place}"))


def copy_of(at: At, url: str, name: str = "orders", **settings: Any) -> HashedCopy:
    table = at.table(name)
    given = {"write_batch_size": 10, "chunk_rows": 25} | settings
    return HashedCopy(at, url, TableSettings(table, table, "shop", capture=Capture.HASH, **given))


@pytest.fixture
def orders(at: At, pg_warehouse: str) -> HashedCopy:
    """Sixty rows, and their copy."""
    fill(at)
    made = copy_of(at, pg_warehouse)
    assert made.run()
    assert made.written == 60
    return made


def fill(at: At) -> None:
    at.run("create table orders (id int primary key, name varchar(40), price decimal(12,2))")
    values = ", ".join(f"({n}, 'n{n}', {n}.50)" for n in range(1, 61))
    at.run(f"insert into orders values {values}")


def change_five(at: At) -> None:
    at.run("update orders set name = 'changed' where id in (7, 40)")
    at.run("delete from orders where id = 20")
    at.run("insert into orders values (61, 'new', null), (-5, null, 0)")


def test_inserts_updates_and_deletes_are_found_and_no_other_row_is_written(
    at: At, orders: HashedCopy
) -> None:
    assert orders.rows("id, name, price") == orders.at_source()
    before = dict(orders.ask("select id, xmin::text from {}"))
    change_five(at)
    assert orders.run()
    assert orders.rows("id, name, price") == orders.at_source()
    after = dict(orders.ask("select id, xmin::text from {} where not _cw_deleted"))
    touched = {id for id in {*before, *after} if before.get(id) != after.get(id)}
    assert touched == {-5, 7, 20, 40, 61}
    assert orders.written == 5
    deleted = "select key, row ->> 'name' from cartridge_warp_metadata.deletion_audit"
    assert orders.ask(deleted) == [({"id": 20}, "n20")]


@pytest.mark.parametrize("twin", [False, True])
def test_nothing_is_written_where_nothing_differs(
    at: At, orders: HashedCopy, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin reads the table whole, and so writes it whole."""
    if twin:
        traits = replace(at.connector.traits, reads_keys=False)
        monkeypatch.setattr(at.connector, "traits", traits)
    assert orders.run()
    assert (orders.written > 0) is twin
    assert orders.marker.phase is Phase.IDLE
    assert orders.rows("id, name, price") == orders.at_source()


@one_source
def test_whoever_meddles_with_the_copy_is_overruled_by_the_next_run(orders: HashedCopy) -> None:
    orders.ask("update {} set price = 0 where id = 3")
    orders.ask("delete from {} where id = 4")
    orders.ask("insert into {} (id, name, _cw_version, _cw_deleted) values (99, 'x', 1, false)")
    assert orders.run()
    assert orders.written == 3
    assert orders.rows("id, name, price") == orders.at_source()


@one_source
@pytest.mark.parametrize("dies_after", [0, 1, 2, 3, 5])
def test_a_run_that_is_killed_anywhere_is_made_good_by_the_next(
    at: At, orders: HashedCopy, dies_after: int
) -> None:
    at.run("update orders set name = 'changed' where id % 2 = 0")
    at.run("delete from orders where id % 5 = 1")
    with pytest.raises(LeaseLost):
        orders.run(dies_after=dies_after)
    first = orders.written
    at.run("update orders set name = 'since' where id = 60")
    assert orders.run()
    assert orders.rows("id, name, price") == orders.at_source()
    assert first + orders.written <= 30 + 12  # nothing was written twice
    at.run("insert into orders values (-1, 'later', 1)")  # where the killed run may have been
    assert orders.run()
    assert orders.rows("id, name, price") == orders.at_source()


def test_a_run_that_was_cut_short_goes_on_with_the_ranges_that_are_left(
    at: At, orders: HashedCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Chunk] = []
    apart = hash_capture._Run._apart

    def watched(self: Any, comparison: Any, chunk: Chunk) -> Any:
        compared.append(chunk)
        return apart(self, comparison, chunk)

    monkeypatch.setattr(hash_capture._Run, "_apart", watched)
    assert not orders.run(batches=1)
    assert orders.run()
    assert [chunk.number for chunk in compared] == [0, 1, 2]
    assert not orders.run(batches=1)
    at.run("delete from orders where id < 20")  # the ranges are cut anew, at other places
    assert orders.run()
    assert orders.run()  # and what was passed by is found now
    assert orders.rows("id, name, price") == orders.at_source()


def test_keys_of_several_columns_and_names_that_must_be_quoted(at: At, pg_warehouse: str) -> None:
    table, first, second, other = 'we"ird `%s', 'the "k" %d', "sel;ect`", "v'alue\\"
    place = f"{at.name(at.namespace)}.{at.name(table)}"
    names = [at.name(name) for name in (first, second, other)]
    at.run(
        f"create table {place} ({names[0]} int, {names[1]} bigint, {names[2]} varchar(40),"
        f" primary key ({names[1]}, {names[0]}))"
    )
    rows = ", ".join(f"({n % 7}, {n}, 'n''{n}')" for n in range(60))
    at.run(f"insert into {place} values {rows}")
    copy = copy_of(at, pg_warehouse, table)
    assert copy.run()
    at.run(f"update {place} set {names[2]} = '\"%s' where {names[1]} = 8")
    at.run(f"update {place} set {names[0]} = 100 where {names[1]} = 30")  # a key that changes
    at.run(f"delete from {place} where {names[1]} = 50")
    assert copy.run()
    assert copy.written == 4
    quoted = ", ".join(sql.Identifier(name).as_string(None) for name in (first, second, other))
    assert copy.rows(quoted) == copy.at_source()


def test_keys_that_servers_sort_differently_are_compared_as_one_range(
    at: At, pg_warehouse: str
) -> None:
    at.run("create table orders (code varchar(20) primary key, n int)")
    at.run("insert into orders values " + ", ".join(f"('K{n}', {n})" for n in range(60)))
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    at.run("update orders set n = -1 where code = 'K5'")
    at.run("update orders set code = 'k6' where code = 'K6'")  # to some collations the same
    at.run("delete from orders where code = 'K7'")
    assert copy.run()
    assert copy.written == 4
    assert copy.rows("code, n") == copy.at_source()


def test_a_column_that_is_new_is_brought_with_all_its_rows(at: At, orders: HashedCopy) -> None:
    at.run("alter table orders add column note varchar(20) default 'all'")
    assert orders.run()
    assert orders.rows("id, name, price, note") == orders.at_source()
    at.run("update orders set note = 'one' where id = 1")
    assert orders.run()
    assert orders.written == 1
    at.run("alter table orders drop column price")
    assert orders.run()
    assert orders.written == 0
    assert orders.rows("id, name, note") == orders.at_source()


def test_a_column_that_became_wider_is_summed_up_again_whatever_becomes_of_it(
    at: At, pg_warehouse: str
) -> None:
    word = "modify n" if at.connector is MysqlSource else "alter n type"
    at.run("create table orders (id int primary key, n int)")
    at.run("insert into orders values (1, 1), (2, 2), (3, 3)")
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    at.run(f"alter table orders {word} bigint")
    at.run("update orders set n = 5000000000 where id = 1")
    assert copy.run()  # whole, since a column is to change
    assert copy.run()
    assert copy.written == 0
    at.run("update orders set n = 7 where id = 1")
    at.run(f"alter table orders {word} int")
    assert copy.run()
    assert copy.written == 1
    assert copy.rows("id, n") == copy.at_source()


def test_rows_without_a_key_are_read_only_where_they_differ(at: At, pg_warehouse: str) -> None:
    at.run("create table orders (name varchar(20), n int)")
    at.run("insert into orders values ('same', 1), ('same', 1), ('other', 2)")
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    assert copy.run()
    assert copy.written == 0
    at.run("delete from orders where n = 2")
    assert copy.run()
    assert copy.rows("name, n") == copy.at_source()


@one_source
def test_most_of_a_long_range_is_read_whole_and_its_keys_are_never_all_in_memory(
    at: At, orders: HashedCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_capture, "LISTED", 6)
    at.run("update orders set name = 'one' where id in (3, 4, 9)")
    assert orders.run()
    assert orders.written == 3
    at.run("update orders set name = 'every'")
    assert orders.run()
    assert orders.rows("id, name, price") == orders.at_source()


@one_source
@pytest.mark.parametrize("twin", [False, True])
def test_a_server_that_was_restored_and_counts_lower_is_still_heard(
    at: At, orders: HashedCopy, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.run("update orders set name = 'before' where id = 1")
    orders.run()
    monkeypatch.setattr(at.counts, "version", lambda self: 1)
    if twin:
        monkeypatch.setattr(hash_capture, "version_of", lambda position: 0)
        monkeypatch.setattr(hash_capture, "parse", lambda *_: None)
    at.run("update orders set name = 'after' where id = 1")
    assert orders.run()
    assert (orders.rows("id, name, price") == orders.at_source()) is not twin


@one_source
def test_what_the_destination_cannot_hold_as_it_is_is_not_written_in_each_run(
    at: At, pg_warehouse: str
) -> None:
    """It makes the servers' digests differ for ever."""
    at.run("create table orders (id int primary key, at timestamptz)")
    at.run("insert into orders values (1, now()), (2, '4713-01-01 BC'), (3, 'infinity')")
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    assert copy.run()
    assert copy.written == 0
    at.run("delete from orders where id = 2")
    assert copy.run()
    assert copy.written == 1
    assert copy.rows("id") == [(1,), (3,)]


@one_source
def test_a_row_that_is_refused_waits_once_and_again_only_when_it_has_changed(
    at: At, pg_warehouse: str
) -> None:
    at.run("create table orders (b int, a varchar(9), n int, primary key (a, b))")
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    copy.ask("alter table {} add constraint small check (n < 10)")
    at.run("insert into orders values (1, 'x', 5), (2, 'y', 50)")
    waiting = "select row from cartridge_warp_metadata.quarantine where state = 'waiting'"
    for _ in range(2):
        assert copy.run()
        assert copy.rows("b, a, n") == [(1, "x", 5)]
        assert len(copy.ask(waiting)) == 1
    at.run("update orders set n = 60 where b = 2")
    assert copy.run()
    assert copy.run()
    assert len(copy.ask(waiting)) == 2
    at.run("update orders set n = 6 where b = 2")
    assert copy.run()
    assert copy.rows("b, a, n") == copy.at_source("b, a, n")


def test_values_that_a_server_cannot_digest_are_found_by_reading_the_table_whole(
    at: At, pg_warehouse: str
) -> None:
    unknown = "char(9)" if at.namespace == "public" else "double"
    at.run(f"create table orders (id int primary key, v {unknown})")
    at.run("insert into orders values (1, '1'), (2, '2'), (3, '3')")
    copy = copy_of(at, pg_warehouse)
    assert copy.run()
    at.run("delete from orders where id = 2")
    assert copy.run()
    assert copy.written > 1
    assert copy.rows("id") == [(1,), (3,)]


def test_a_server_that_writes_no_log_is_polled_from_its_first_rows_on(
    start_server: Callable[[Any], Any], pg_warehouse: str, tmp_path: Path
) -> None:
    server: MariaDb = start_server(MariaDb(settings={"skip_log_bin": 1}))
    with mysql_client(server.url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE unlogged CHARACTER SET utf8mb4")
        cursor.execute("SHOW MASTER STATUS")
        assert cursor.fetchall() == ()
    with of_mysql(server.url, server.database_url("unlogged")) as side:
        tree = {
            "source": side.tree,
            "destination": {"type": "postgresql", "connection_string": pg_warehouse},
            "schemas": [
                {
                    "name": side.namespace,
                    "mode": "batch",
                    "polling_interval": "100ms",
                    "change_detection": {"strategy": "hash"},
                }
            ],
        }
        for id in range(10):
            side.put(id, f"v{id}")
        with live(settings_of(tmp_path, tree)) as fleet:
            there = There(pg_warehouse, side)

            def equal() -> bool:
                return there.rows() == side.rows()

            fleet.until_complete("orders")
            fleet.until(equal, "the first rows")
            side.put(3, "changed")
            side.delete(4)
            fleet.until(equal, "the changes")
            errands.resync(fleet.desk, schema=side.namespace)
            fleet.until_complete("orders", epoch=1)
            side.put(11, "after")
            fleet.until(equal, "what came after a resync")
            with closing(StatusReader(fleet.assembly, fleet.ledger, [side.namespace])) as reader:
                assert {unit["kind"] for unit in reader.read()["units"]} >= {"poll"}
            with closing(fleet.assembly.source(side.namespace)) as source:
                source.check()
                with pytest.raises(SourceRefused, match="log_bin"):
                    source.position()


def test_a_table_is_compared_for_want_of_a_column_of_times(at: At) -> None:
    at.run("create table timed (id int primary key, updated_at timestamp null)")
    at.run("create table untimed (id int primary key)")
    at.run("create table keyless (updated_at timestamp null)")
    for name, meant in (("timed", False), ("untimed", True), ("keyless", True), ("gone", False)):
        table = at.table(name)
        settings = TableSettings(table, table, "shop", capture=Capture.TIMESTAMP)
        with closing(at.connect(lambda table: None)) as source:
            assert hash_capture.is_meant(source, settings) is meant, name
