"""What the log of a real PostgreSQL says of every sort of change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from postgresql_shop import Shop, everything, follow, read, seen

from warp.errors import SourceUnavailable
from warp.model import ABSENT, UNCHANGED, Position, TableId, TableSettings
from warp.own_process import wait_until
from warp.sources.postgresql import stream
from warp.sources.postgresql.position import Place, lsn_text
from warp.sources.postgresql.transactions import InProgress

ORDERS = TableId("shop", "orders")
LARGE = "x" * 5_000


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id int primary key, name text, large text)")
    # Stored out of line, and not compressed into the row.
    shop.run("alter table shop.orders alter column large set storage external")
    return shop


def changes(shop: Shop, *statements: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """(operation, cells) of the next `count` rows that the statements make."""
    source = shop.source()
    start = source.position()
    for statement in statements:
        shop.run(statement)
    found = follow(source, start, count)
    source.close()
    return [(operation, cells) for (operation, _, cells), _ in found]


def test_a_large_value_that_was_not_changed_is_unchanged(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'a', %s)", (LARGE,))
    assert changes(shop, "update shop.orders set name = 'b'", count=1) == [
        ("UPDATE", {"id": 1, "name": "b", "large": UNCHANGED})
    ]


def test_under_full_identity_a_large_value_is_taken_from_the_old_row(shop: Shop) -> None:
    shop.run("alter table shop.orders replica identity full")
    shop.run("insert into shop.orders values (1, 'a', %s)", (LARGE,))
    assert changes(
        shop,
        "update shop.orders set name = 'b'",
        "update shop.orders set id = 2",
        "delete from shop.orders",
        count=4,
    ) == [
        ("UPDATE", {"id": 1, "name": "b", "large": LARGE}),
        ("DELETE", {"id": 1, "name": ABSENT, "large": ABSENT}),
        ("CREATE", {"id": 2, "name": "b", "large": LARGE}),
        ("DELETE", {"id": 2, "name": ABSENT, "large": ABSENT}),
    ]


def test_a_changed_key_is_a_delete_and_a_create(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'a', null)")
    assert changes(shop, "update shop.orders set id = 2", count=2) == [
        ("DELETE", {"id": 1, "name": ABSENT, "large": ABSENT}),
        ("CREATE", {"id": 2, "name": "a", "large": None}),
    ]


def test_a_changed_key_without_its_large_value_asks_to_be_looked_up(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'a', %s)", (LARGE,))
    source = shop.source()
    start = source.position()
    shop.run("update shop.orders set id = 2")
    batches = []
    for batch in source.get_changes(start, selection=everything, idle=0.05):
        batches.append(batch)
        if len(batch):
            break
    assert [(row[0], row[2]) for row in seen(batches[-1])] == [
        ("DELETE", {"id": 1, "name": ABSENT, "large": ABSENT}),
        ("UPDATE", {"id": 2, "name": "a", "large": UNCHANGED}),
    ]
    found = source.look_up(batches[-1].changes[0])
    assert list(found.rows()) == [(2, "a", LARGE)]
    assert found.operations == b"r"


def test_truncate_is_told_for_each_table(shop: Shop) -> None:
    shop.run("create table shop.items (id int primary key references shop.orders)")
    got = changes(
        shop,
        "insert into shop.orders values (1)",
        "insert into shop.items values (1)",
        "truncate shop.orders cascade",
        count=4,
    )
    assert sorted(operation for operation, _ in got) == ["CREATE", "CREATE", "TRUNCATE", "TRUNCATE"]
    assert ("TRUNCATE", {"id": ABSENT}) in got


def test_partitions_speak_under_their_roots_name(shop: Shop) -> None:
    shop.run("create table shop.parts (id int primary key, v text) partition by range (id)")
    shop.run("create table shop.low partition of shop.parts for values from (0) to (10)")
    shop.run("create table shop.high partition of shop.parts for values from (10) to (20)")
    parts = TableId("shop", "parts")
    source = shop.source()
    assert source.tables() == [ORDERS, parts]
    start = source.position()
    shop.run("insert into shop.parts values (1, 'a'), (11, 'b')")
    shop.run("update shop.parts set id = 12 where id = 1")
    got = follow(source, start, 4)
    assert [(row[0], row[2]["id"]) for row, _ in got] == [
        ("CREATE", 1),
        ("CREATE", 11),
        ("DELETE", 1),
        ("CREATE", 12),
    ]
    assert sorted(row[2]["id"] for row in read(source, parts, 2)) == [11, 12]


def test_what_a_publication_leaves_out_is_in_neither_log_nor_snapshot(shop: Shop) -> None:
    source = shop.source()
    shop.admin.execute("reset role")
    shop.run(
        f'create publication "{shop.publication}" for table only shop.orders (id, name) '
        "where (id < 100) with (publish_via_partition_root = true)"
    )
    start = source.position()
    shop.run("insert into shop.orders values (1, 'a', 'l'), (100, 'b', 'l')")
    shop.run("update shop.orders set id = 101 where id = 1")
    shop.run("update shop.orders set id = 2 where id = 101")
    assert [(row[0], row[2]) for row, _ in follow(source, start, 3)] == [
        ("CREATE", {"id": 1, "name": "a"}),
        ("DELETE", {"id": 1, "name": ABSENT}),
        ("CREATE", {"id": 2, "name": "a"}),
    ]
    assert [row[2] for row in read(source, ORDERS)] == [{"id": 2, "name": "a"}]
    assert source.get_schema([ORDERS])[ORDERS].names() == ("id", "name")
    [batch] = source.get_full_snapshot(source.chunks(ORDERS, 10)[0])
    assert list(source.look_up(batch.changes[0]).rows()) == [(2, "a")]


def test_stored_columns_are_in_both_and_virtual_ones_in_neither(shop: Shop) -> None:
    shop.run(
        "create table shop.sums (id int primary key, "
        "twice int generated always as (id * 2) stored, "
        "thrice int generated always as (id * 3) virtual)"
    )
    source = shop.source()
    start = source.position()
    shop.run("insert into shop.sums (id) values (4)")
    [(row, _)] = follow(source, start, 1)
    assert row[2] == {"id": 4, "twice": 8}
    assert [r[2] for r in read(source, TableId("shop", "sums"))] == [{"id": 4, "twice": 8}]


def test_a_large_transaction_comes_in_parts_that_end_before_it(shop: Shop) -> None:
    source = shop.source()
    start = source.position()
    shop.run("insert into shop.orders values (0)")
    shop.run("insert into shop.orders select generate_series(1, 120)")
    shop.run("insert into shop.orders values (121)")
    got = follow(source, start, 122)
    assert [row[2]["id"] for row, _ in got] == list(range(122))
    versions = {row[1] for row, _ in got[1:121]}
    assert len(versions) == 1
    assert got[0][0][1] < min(versions) < got[121][0][1]
    # Resumed from within, the whole transaction comes again, and nothing before it.
    middle = got[30][1]
    again = [row[2]["id"] for row, _ in follow(shop.source(), middle, 3)]
    assert again[0] in (0, 1)


def test_a_transaction_that_is_not_much_larger_than_a_batch_is_kept_whole(shop: Shop) -> None:
    source = shop.source()
    start = source.position()
    shop.run("insert into shop.orders select generate_series(1, 50)")  # batches are of 20
    shop.run("insert into shop.orders values (51)")
    batches = (b for b in source.get_changes(start, selection=everything, idle=0.05) if len(b))
    assert len(next(batches)) == 50
    assert len(next(batches)) == 1
    source.close()


@pytest.fixture
def in_advance(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Large transactions come before they end, which is made sure of: their messages so far."""
    in_advance: list[int] = []
    add = InProgress.add

    def noted(self: InProgress, xid: int, subtransaction: int, message: bytes) -> None:
        in_advance.append(subtransaction)
        add(self, xid, subtransaction, message)

    monkeypatch.setattr(InProgress, "add", noted)
    shop.admin.execute("reset role")
    shop.run(f"alter role {shop.reader} set logical_decoding_work_mem = '64kB'")
    shop.run(f"set role {shop.owner}")
    yield in_advance
    assert len(in_advance) > 1000
    shop.admin.execute("reset role")
    shop.run(f"alter role {shop.reader} reset logical_decoding_work_mem")


def test_a_transaction_that_comes_before_its_end_is_applied_at_its_end(
    shop: Shop, in_advance: list[int]
) -> None:
    source = shop.source(spill_after="64kB")
    start = source.position()
    with shop.another() as other:
        other.execute(
            "insert into shop.orders select n, repeat('a', 100) from generate_series(1, 2000) n"
        )
        other.execute("savepoint s")
        other.execute("insert into shop.orders select n, 'gone' from generate_series(2001, 4000) n")
        other.execute("rollback to savepoint s")
        other.execute("update shop.orders set name = 'z' where id <= 10")
        shop.run("insert into shop.orders values (9000, 'meanwhile')")
        batches = source.get_changes(start, selection=everything, idle=0.05)
        first = next(batch for batch in batches if len(batch))
        assert [row[2]["id"] for row in seen(first)] == [9000]
    rows = []
    for batch in batches:
        rows += seen(batch)
        assert len(batch) <= 20
        if len(rows) >= 2010:
            break
    assert [row[2]["id"] for row in rows] == [*range(1, 2001), *range(1, 11)]
    assert len({row[1] for row in rows}) == 1
    source.close()


def test_a_transaction_that_came_and_was_rolled_back_leaves_nothing(
    shop: Shop, in_advance: list[int]
) -> None:
    source = shop.source(spill_after="64kB")
    batches = source.get_changes(source.position(), selection=everything, idle=0.05)
    with shop.another() as other:
        other.execute(
            "insert into shop.orders select n, repeat('a', 100) from generate_series(1, 2000) n"
        )
        next(batch for batch in batches if len(in_advance) > 1000)
        other.rollback()
    shop.run("insert into shop.orders values (1, 'kept')")
    assert [row[2]["id"] for row in seen(next(batch for batch in batches if len(batch)))] == [1]
    source.close()


# -- changed columns


def batches_with(shop: Shop, *statements: str, rows: int) -> list[Any]:
    source = shop.source()
    start = source.position()
    shop.run("insert into shop.orders values (1, 'a', 'l')")
    found = []
    count = 0
    for batch in source.get_changes(start, selection=everything, idle=0.05):
        if len(batch) and not count:
            for statement in statements:
                shop.run(statement)
        count += len(batch)
        if len(batch) or batch.reload:
            found.append(batch)
        if count >= rows:
            break
    source.close()
    return found


def test_a_new_column_comes_with_the_next_row(shop: Shop) -> None:
    first, second = batches_with(
        shop,
        "alter table shop.orders add column more int",
        "insert into shop.orders values (2, 'b', 'l', 5)",
        rows=2,
    )
    assert seen(first)[0][2] == {"id": 1, "name": "a", "large": "l"}
    assert seen(second)[0][2] == {"id": 2, "name": "b", "large": "l", "more": 5}
    assert second.reload == ()


@pytest.mark.parametrize(
    "statement",
    [
        "alter table shop.orders rename column name to title",
        "alter table shop.orders add column more int default 5",
        "alter table shop.orders alter column name type int using 7",
    ],
    ids=["rename", "default", "type"],
)
def test_where_old_rows_changed_without_an_event_the_table_is_read_anew(
    shop: Shop, statement: str
) -> None:
    found = batches_with(shop, statement, "insert into shop.orders values (2)", rows=2)
    assert [batch.reload for batch in found] == [(), (ORDERS,)]


@pytest.mark.holds(
    guarantee=5, source="postgresql", destination="pretended", fault="drop and rename"
)
def test_a_table_in_the_place_of_another_is_read_anew_and_keeps_its_place_in_the_order(
    shop: Shop,
) -> None:
    shop.run("create table shop.twin (like shop.orders including all)")
    found = batches_with(
        shop,
        "do $$ begin"
        " insert into shop.orders values (2, 'gone', 'l');"
        " alter table shop.orders rename to former; alter table shop.twin rename to orders;"
        " insert into shop.orders values (3, 'new', 'l'); end $$",
        rows=3,
    )
    rows = [row[2]["id"] for batch in found for row in seen(batch)]
    assert rows == [1, 2, 3]
    assert len(found) == 3  # the rows of two relations of one name are in no batch together
    assert found[-1].reload == (ORDERS,)


def first_reload(shop: Shop, position: Position) -> tuple[TableId, ...]:
    source = shop.source()
    batch = next(iter(source.get_changes(position, selection=everything, idle=0.05)))
    source.close()
    return batch.reload


def test_columns_changed_while_nobody_followed_are_read_anew(shop: Shop) -> None:
    shop.run("create table shop.quiet (id int primary key)")
    source = shop.source()
    position = source.position()
    shop.run("alter table shop.orders rename column name to title")
    shop.run("create table shop.new (id int, more text, primary key (id))")
    source.tables()
    assert first_reload(shop, position) == (ORDERS,)
    # Whoever starts at a later place, of which that is known, reads nothing anew.
    assert first_reload(shop, source.position()) == ()


@pytest.mark.parametrize("told", [True, False], ids=["", "without its trace in the position"])
def test_a_table_that_one_owner_reads_anew_is_not_read_again_by_the_next(
    shop: Shop, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the log still holds rows of the older columns, so that the horizon cannot rise."""
    if not told:
        monkeypatch.setattr(stream._Progress, "read_anew_up_to", lambda *_: None)
    source = shop.source()
    position = source.position()
    shop.run("insert into shop.orders values (1, 'a', 'l')")
    shop.run("alter table shop.orders rename column name to title")
    shop.run("insert into shop.orders values (2, 'b', 'l')")
    batch = next(iter(source.get_changes(position, selection=everything, idle=0.05)))
    source.close()
    assert batch.reload == (ORDERS,)
    place, reached = Place.parse(position.token), Place.parse(batch.end.token)
    assert reached.horizon == place.horizon
    assert first_reload(shop, replace(batch.end, token=at_lsn(batch.end, place.lsn))) == (
        () if told else (ORDERS,)
    )
    shop.run("alter table shop.orders rename column title to name")
    assert first_reload(shop, batch.end) == (ORDERS,)


def at_lsn(position: Position, lsn: int) -> str:
    return position.token.replace(position.token.partition("@")[0], lsn_text(lsn))


def test_what_was_told_of_columns_is_not_told_again_to_the_next_owner(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_LOOK_AFTER", 0.0)
    source = shop.source()
    position = source.position()
    batches = source.get_changes(position, selection=everything, idle=0.05)
    next(batches)
    shop.run("alter table shop.orders rename column name to title")
    for _ in range(5):
        ends = [next(batches).end for _ in range(3)]
        shop.run("select pg_current_xact_id()")  # so that the log goes on
    # The log has said nothing of it yet, so that it is still to be found out.
    assert horizon_of(ends[-1]) == horizon_of(position)
    shop.run("insert into shop.orders values (1)")
    assert next(batch for batch in batches if len(batch)).reload == (ORDERS,)

    def risen() -> bool:
        shop.run("select pg_current_xact_id()")
        ends.append(next(batches).end)
        return horizon_of(ends[-1]) > horizon_of(position)

    assert wait_until(risen, 20)
    source.close()
    with pytest.raises(SourceUnavailable):
        next(batches)
    assert first_reload(shop, ends[-1]) == ()
    assert first_reload(shop, position) == (ORDERS,)


def horizon_of(position: Position) -> int:
    return int(position.token.rpartition(".")[2])


def test_rows_of_two_shapes_never_share_a_batch(shop: Shop) -> None:
    source = shop.source()
    start = source.position()
    shop.run("insert into shop.orders values (1, 'a', 'l')")
    shop.run("alter table shop.orders drop column large")
    shop.run("insert into shop.orders values (2, 'b')")
    got = follow(source, start, 2)
    assert [row[2] for row, _ in got] == [
        {"id": 1, "name": "a", "large": "l"},
        {"id": 2, "name": "b"},
    ]


# -- tables that come and go


def test_a_new_table_is_published_before_it_is_listed(shop: Shop) -> None:
    source = shop.source()
    start = source.position()
    assert source.tables() == [ORDERS]
    shop.run('create table shop."a ""new"" %% täble" (id int primary key)'.replace("%%", "%"))
    new = TableId("shop", 'a "new" % täble')
    assert source.tables() == [new, ORDERS]
    shop.run('insert into shop."a ""new"" % täble" values (7)')
    assert [row[2] for row, _ in follow(source, start, 1)] == [{"id": 7}]
    assert [row[2] for row in read(source, new)] == [{"id": 7}]


def test_a_table_is_not_listed_while_a_transaction_may_have_written_to_it_unpublished(
    shop: Shop,
) -> None:
    source = shop.source()
    source.position()
    shop.run("create table shop.late (id int primary key)")
    with shop.another() as other:
        other.execute("insert into shop.late values (1)")
        assert source.tables() == [ORDERS]
    assert source.tables() == [TableId("shop", "late"), ORDERS]


def test_a_table_that_is_not_selected_any_more_is_taken_out(shop: Shop) -> None:
    shop.run("create table shop.extra (id int primary key)")
    source = shop.source()
    start = source.position()

    def only_orders(table: TableId) -> TableSettings | None:
        return everything(table) if table == ORDERS else None

    shop.run("insert into shop.extra values (1)")
    shop.run("insert into shop.orders values (1)")
    [(row, _)] = follow(shop.source(only_orders), start, 1, only_orders)
    assert row[2]["id"] == 1
    published = shop.run(
        "select tablename from pg_publication_tables where pubname = %s", (shop.publication,)
    )
    assert published == [("orders",)]


def test_a_table_without_a_key_is_left_out_and_its_application_goes_on(shop: Shop) -> None:
    shop.run("create table shop.keyless (id int)")
    source = shop.source()
    source.position()
    assert source.tables() == [ORDERS]
    shop.run("insert into shop.keyless values (1)")
    shop.run("update shop.keyless set id = 2")  # refused by the server, were it published
    assert source.tables() == [ORDERS]
