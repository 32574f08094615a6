"""A MariaDB compared with its source: what differs is found, named and mended, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import pytest
from any_cells import rows_of
from fix_servers import Server, mysql_client
from hypothesis import HealthCheck, given, settings
from hypothesis import Phase as Step
from mysql_destination_world import ORDERS as TABLE
from mysql_destination_world import SCHEMA as COLUMNS
from mysql_destination_world import World
from mysql_world import world_at
from postgresql_shop import Shop
from verified_copy import FAULTS, ORDERS, SCHEMA, OneCopy, VerifiedCopy, plant, sixty_orders

from warp.assembly import Assembly
from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions, formless
from warp.destinations.mysql.comparing import MysqlComparing
from warp.digest import canonical
from warp.digest.ranges import compared_of
from warp.digest.seams import EVERYTHING, Compared, KeyRange
from warp.digest.sums import Sums, leaves_of, total
from warp.interfaces import SourceConnector
from warp.leases.memory import MemoryLeaseStore
from warp.model import (
    Change,
    Column,
    Kind,
    Operation,
    SchemaChange,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
)
from warp.mysql_family import identifier
from warp.sources.postgresql import PostgresSource
from workers.errands import Desk, recover


@dataclass
class CopyInMysql(VerifiedCopy):
    """Two databases of their own on a shared server."""

    Destination: ClassVar[Any] = MysqlDestination

    def __post_init__(self) -> None:
        self.mark = secrets.token_hex(4)
        self.shop, self.meta = f"shop_{self.mark}", f"meta_{self.mark}"
        super().__post_init__()
        chosen = self.select

        def select(table: TableId) -> TableSettings | None:
            found = chosen(table)
            return found and replace(found, destination=TableId(self.shop, table.name))

        self.select = select

    def connect(self) -> Any:
        return mysql_client(self.url)

    def destination(self) -> MysqlDestination:
        options = {"connection_string": self.url, "metadata_schema": self.meta}
        return MysqlDestination(MysqlWriterOptions.model_validate(options), self.select)

    def run(self, statement: str, parameters: Any = None) -> list[Any]:
        with self.looking.cursor() as cursor:
            cursor.execute(statement.replace("shop.", f"{self.shop}."), parameters)
            return list(cursor.fetchall())

    def states(self, table: str, more: str = "") -> list[Any]:
        return self.run(f"select `key`, state from {self.meta}.{table} {more}")

    def close(self) -> None:
        for database in (self.shop, self.meta):
            self.run(f"drop database if exists {database}")
        super().close()


@contextmanager
def copied(
    make_source: Callable[[], SourceConnector], select: TableSelection, url: str
) -> Iterator[CopyInMysql]:
    with closing(CopyInMysql(make_source, select, url)) as copy:
        yield copy


def everything(table: TableId) -> TableSettings | None:
    if table.namespace != "shop":
        return None
    return TableSettings(table, table, SCHEMA, full_load_batch_size=50, write_batch_size=20)


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    return capture_shop


@pytest.fixture
def copy(shop: Shop, mariadb: Server) -> Iterator[CopyInMysql]:
    sixty_orders(shop)
    with copied(lambda: PostgresSource(shop.options(), everything), everything, mariadb.url) as it:
        yield it


def test_planted_faults_are_found_and_mended_and_no_other_row_is_written(
    copy: CopyInMysql, shop: Shop
) -> None:
    """Also that what this server has no form for (NaN) is NULL here and no difference."""
    shop.run("update shop.orders set share = 'NaN' where id = 8")
    wrong = "select id, share, name from shop.orders where id in (7, 20, 33) and not _cw_deleted"
    others = "select id, _cw_version from shop.orders where id not in (7, 20, 33, 1000) order by 1"
    with copy.following(ORDERS):
        first = copy.verify(ORDERS)
        assert (first.rows, first.units, first.differences, first.unsettled) == (60, 3, 0, 0)
        before, untouched = copy.run(wrong), copy.run(others)
        plant(copy)
        second = copy.verify(ORDERS)
        assert copy.differences(ORDERS) == FAULTS
        assert {k.columns for k in copy.kept(ORDERS) if k.sort == "differs"} == {
            ("share",),
            ("name",),
        }
        assert second.digest == first.digest  # of what should be there
        assert first.newest is not None
        assert second.oldest is not None
        assert first.newest <= second.oldest
        copy.mend(ORDERS)
        repaired = copy.states("quarantine", "where code = 'REPAIR'")
        assert dict(repaired) == dict.fromkeys(FAULTS, "replayed")
        assert sorted(copy.run(wrong)) == sorted(before)
        assert copy.run(others) == untouched
        assert copy.verify(ORDERS).differences == 0
        assert {state for _, state in copy.states("differences")} == {"repaired"}


@pytest.mark.parametrize("twin", [False, True])
def test_a_row_that_is_deleted_before_its_correction_is_stored_does_not_come_back(
    copy: CopyInMysql, shop: Shop, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone in its place is what the delete leaves its trace by."""
    if twin:
        monkeypatch.setattr(MysqlComparing, "hold_places", lambda *_: None)
    with copy.following(ORDERS):
        copy.run("delete from shop.orders where id = 20")
        copy.verify(ORDERS)
        corrections = copy.look(ORDERS)
        shop.run("delete from shop.orders where id = 20")
        copy.arrived()
        copy.hand_on(ORDERS, corrections)
        copy.replay(ORDERS)
        back = copy.run("select id from shop.orders where id = 20 and not _cw_deleted")
        assert back == ([(20,)] if twin else [])


def test_hostile_names_and_tables_without_a_number_for_a_key(mariadb: Server) -> None:
    """Both servers sum up what they can; keys of text, and rows without a key, too."""
    names = ("we`ird \"%s' tbl", "words", "bare")
    place = identifier
    with world_at(mariadb.url) as world:
        columns = f"{place('i`d %')} int, {place('né %(x)s')} varchar(20), at datetime(6)"
        world.sql(f"create table {place(names[0])} ({columns}, primary key ({place('i`d %')}))")
        world.sql("create table words (w varchar(50) collate utf8mb4_bin primary key, f float)")
        world.sql("create table bare (n int, t varchar(9))")
        fill = f"insert into {place(names[0]).replace('%', '%%')} values (%s, %s, '2024-02-03')"
        for n in range(40):
            world.sql(fill, [n, f"v{n}"])
        for word in ("a", "A", "%s", "ü`'\""):
            world.sql("insert into words values (%s, 0.1)", [word])
        world.sql("insert into bare values (1, 'x'), (1, 'x'), (2, null)")
        tables = [world.table(name) for name in names]

        def select(table: TableId) -> TableSettings | None:
            return TableSettings(table, table, SCHEMA) if table in tables else None

        with (
            copied(lambda: world.source(select), select, mariadb.url) as copy,
            copy.following(*tables),
        ):
            assert [copy.verify(table).differences for table in tables] == [0, 0, 0]
            weird, shop = f"{copy.shop}.{place(names[0])}", copy.shop
            key, text = place("i`d %").replace("%", "%%"), place("né %(x)s").replace("%", "%%")
            weird = weird.replace("%", "%%")
            copy.run(f"update {weird} set {text} = 'other' where {key} = %s", [10])
            copy.run(f"delete from {weird} where {key} = %s", [11])
            copy.run(f"update {shop}.words set f = f * 2 where w = %s", ["A"])
            copy.run(f"delete from {shop}.words where w = %s", ["%s"])
            copy.run(f"delete from {shop}.bare where n = 2")
            for table in tables:
                copy.verify(table)
            assert copy.differences(tables[0]) == {
                '{"i`d %": 10}': "differs",
                '{"i`d %": 11}': "missing",
            }
            assert copy.differences(tables[1]) == {
                '{"w": "A"}': "differs",
                '{"w": "%s"}': "missing",
            }
            assert copy.differences(tables[2]) == {'{"n": 2, "t": null}': "missing"}
            for table in tables[:2]:
                copy.mend(table)
                assert copy.verify(table).differences == 0


# ---------------------------------------------------------------- a lost place


@pytest.mark.holds(guarantee=6, source="postgresql", destination="mariadb", fault="lost position")
def test_a_lost_place_is_recovered_by_writing_what_differs(copy: CopyInMysql, shop: Shop) -> None:
    copy.bring(ORDERS)
    shop.drop_slot()
    shop.admin.execute("reset role")
    shop.run("update shop.orders set name = 'in the gap' where id = 3")
    shop.run("delete from shop.orders where id = 4")
    ledger = MemoryLeaseStore()
    with closing(copy.destination()) as destination:
        desk = Desk(destination.metadata(), ledger, cast("Assembly", OneCopy(copy)))
        assert "compare what it has missed" in recover(desk, schema=SCHEMA)
    with copy.streaming():
        with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
            for entry in ledger.units():
                if entry.unit.kind is UnitKind.VERIFY:
                    copy.work(source, destination, entry.unit)
        copy.replay(ORDERS)
        found = copy.run("select id, name from shop.orders where id < 5 and not _cw_deleted")
        assert sorted(found) == [(1, "n1"), (2, "n2"), (3, "in the gap")]
        repaired = copy.states("quarantine", "where code = 'REPAIR'")
        assert sorted(repaired) == [('{"id": 3}', "replayed"), ('{"id": 4}', "replayed")]


# ---------------------------------------------------------------- digests

KINDS = list(Kind)
ROWS = 10
WIDE = TableSchema(
    TABLE,
    (
        Column("id", Kind.INT64),
        *(
            Column('we`ird %s "col' if kind is Kind.TEXT else f"c_{kind.value}", kind)
            for kind in KINDS
        ),
    ),
    ("id",),
)
BY_SERVER = frozenset(KINDS) - {Kind.FLOAT32, Kind.FLOAT64, Kind.JSON, Kind.JSON_TEXT}


@pytest.fixture
def world(mariadb: Server) -> Iterator[World]:
    with closing(World(mariadb.url)) as made:
        yield made


@settings(
    max_examples=5,
    deadline=None,
    phases=[Step.explicit, Step.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=rows_of(KINDS, ROWS))
def test_rows_of_every_kind_are_summed_up_as_we_do(
    world: World, rows: list[tuple[Any, ...]]
) -> None:
    """All columns, which we must hash; those whose forms the server has; and by the witness."""
    world.ask(f"drop table if exists `{world.shop}`.orders")
    world.destination().metadata().prepare()
    for table in ("sync_markers", "schema_registry", "quarantine"):
        world.ask(f"delete from {world.meta}.{table}")
    unit = world.settled(WIDE)
    unit.write("a", *((Operation.CREATE, 5, id, *row) for id, row in enumerate(rows)))
    whole = compared_of(unit.schema(), None)
    given_ = [list(column) for column in zip(*((id, *r) for id, r in enumerate(rows)), strict=True)]
    by_name = dict(zip(WIDE.names(), given_, strict=True))
    # A value that no column of this server takes in a row is refused with its row.
    [there] = [[id for (id,) in world.ask(f"select id from `{world.shop}`.orders order by 1")]]
    for columns in (whole.columns, tuple(c for c in whole.columns if c.kind in BY_SERVER)):
        compared = replace(whole, columns=columns)
        cells = [[by_name[c.name][id] for id in there] for c in columns]
        _agrees(unit.destination, compared, cells, there, (world.shop, "orders"))


def _agrees(
    destination: MysqlDestination,
    compared: Compared,
    given_: list[list[Any]],
    ids: list[int],
    place: tuple[str, str],
) -> None:
    comparing = destination.comparing()
    cells = comparing.kept(compared, given_)
    hashes = canonical.row_hashes(compared.columns, cells)
    assert comparing.total(compared, EVERYTHING) == Sums.of(hashes)
    leaves = comparing.leaves(compared, EVERYTHING)
    assert total(leaves.values()) == Sums.of(hashes)
    assert set(leaves) == set(leaves_of(compared.key, [ids]))
    listed = comparing.rows(compared, EVERYTHING, list(leaves))
    assert dict(listed) == {(str(id),): h for id, h in zip(ids, hashes, strict=True)}
    inside = [h for id, h in zip(ids, hashes, strict=True) if 3 <= id < 7]
    assert comparing.total(compared, KeyRange((3,), (7,))) == Sums.of(inside)
    assert [one and one.forms for one in comparing.look(compared, [[*ids, 99]])] == [
        *canonical.forms_of(compared.columns, cells),
        None,
    ]
    [summed], streams = comparing.together([compared])
    assert summed == Sums.of(hashes)
    assert [marker.unit.kind for marker in streams] == [UnitKind.STREAM]
    names = [(column.name, column.kind.value) for column in compared.columns]
    assert comparing.recount(place, names, None) == (len(hashes), str(Sums.of(hashes)))


def test_a_value_without_a_form_here_counts_as_what_it_is_kept_as() -> None:
    columns = (Column("id", Kind.FLOAT64), Column("f", Kind.FLOAT64), Column("t", Kind.TIMESTAMP))
    nan, far = float("nan"), 1 << 62
    [ids, floats, times] = formless.nulled(columns, [[nan], [nan], [far]], ["id"])
    assert ids[0] != ids[0]  # a key is never changed
    assert (floats, times) == ([None], [None])


def test_tombstones_and_soft_deleted_rows_are_no_rows_and_deletions_are_told(world: World) -> None:
    world.table["soft_delete_column"] = "is %deleted"
    unit = world.settled()
    unit.write("a", (Operation.CREATE, 5, 1, "a"), (Operation.CREATE, 5, 2, "b"))
    unit.write("b", (Operation.DELETE, 6, 2))
    compared = compared_of(unit.schema(), None)
    comparing = unit.destination.comparing()
    comparing.hold_places(compared, [[3, 1]], 7)  # of 1 there is a row
    assert comparing.total(compared, EVERYTHING).rows == 1
    found = comparing.look(compared, [[1, 2, 3, 4]])
    assert [one and (one.version, one.gone) for one in found] == [
        *((5, False), (6, True), (7, True)),
        None,
    ]
    columns = [(column.name, column.kind.value) for column in compared.columns]
    place = (world.shop, "orders")
    assert comparing.recount(place, columns, "is %deleted")[0] == 1


def test_a_row_deleted_since_the_first_look_is_told_as_gone(world: World) -> None:
    unit = world.settled()
    unit.write("a", (Operation.CREATE, 5, 1, "a"), (Operation.CREATE, 5, 2, "b"))
    unit.write("b", (Operation.DELETE, 6, 2))
    compared = compared_of(unit.schema(), None)
    comparing = unit.destination.comparing()
    [one, two] = comparing.look(compared, [[1, 2]])
    assert (one and one.gone, two) == (False, None)  # 2 went before
    unit.write("c", (Operation.DELETE, 7, 1))
    [one, two] = comparing.look(compared, [[1, 2]])
    assert (one and (one.version, one.gone), two) == ((7, True), None)


def test_metadata_whose_migration_was_cut_short_is_moved_forward_by_the_next(world: World) -> None:
    """No statement of one is undone on this server, so each may meet what it makes."""
    metadata = world.destination().metadata()
    metadata.prepare()
    before = world.of_meta("version", "schema_version", "order by 1")
    world.ask(f"delete from {world.meta}.schema_version where version > 1")
    metadata.prepare()
    assert world.of_meta("version", "schema_version", "order by 1") == before
    # As after the version before: it has none of the tables of this one.
    world.ask(f"delete from {world.meta}.schema_version where version > 1")
    world.ask(f"drop table {world.meta}.verifications, {world.meta}.differences")
    world.ask(f"alter table {world.meta}.sync_runs drop index sync_runs_cut_short")
    metadata.prepare()
    assert world.of_meta("count(*)", "verifications") == [(0,)]


# ---------------------------------------------------------------- what a plan says


def test_what_is_foreseen_of_a_change_is_what_is_then_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = world.unit()
    destination = unit.destination
    columns = (
        Column("id", Kind.INT32),
        Column("100% `x`", Kind.TEXT),
        Column("n", Kind.INT32),
        Column("price", Kind.DECIMAL),
        Column("flag", Kind.BOOL),
    )
    made = TableSchema(TABLE, columns, ("id",))
    changes = [
        SchemaChange(TABLE, Change.CREATE_TABLE, schema=made),
        SchemaChange(TABLE, Change.ADD_COLUMN, column=Column("new %", Kind.JSON)),
        SchemaChange(TABLE, Change.WIDEN_COLUMN, column=Column("n", Kind.INT64)),
        SchemaChange(TABLE, Change.TEXT_COLUMN, column=Column("flag", Kind.TEXT)),
        SchemaChange(TABLE, Change.WIDEN_COLUMN, column=Column("price", Kind.DECIMAL)),
        SchemaChange(TABLE, Change.RETYPE_KEY, column=Column("id", Kind.TAGGED)),
    ]
    assert destination.standing(TABLE) is None
    have, told = None, list[list[Any]]()
    for change in changes:
        foreseen = destination.foresee(have, change)
        have = foreseen.schema
        told.append([have, *foreseen.statements])
    assert world.ask(f"show tables from {world.shop}") == []  # nothing was changed

    run = type(destination._session).run
    ran: list[str] = []

    def noted(self: Any, statement: str, *given: Any) -> Any:
        if statement.startswith(("create table", "create database", "alter table")):
            ran.append(statement.replace("%%", "%"))
        return run(self, statement, *given)

    monkeypatch.setattr(type(destination._session), "run", noted)
    for change, [schema, *statements] in zip(changes, told, strict=True):
        ran.clear()
        destination.apply_schema_changes([change])
        now = destination.standing(TABLE)
        assert now is not None
        assert ran == statements, change.change
        assert (now.columns, now.key) == (schema.columns, schema.key), change.change
    assert COLUMNS.table == TABLE
