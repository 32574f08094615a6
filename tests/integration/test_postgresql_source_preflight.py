"""Each thing that would go wrong, made for real, is found and told with what mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from postgresql_shop import Shop, everything, follow, read

from warp.errors import SourceRefused
from warp.model import Diagnosis, TableId, TableSettings, Verdict
from warp.sources.postgresql import PostgresSource
from warp.testing.servers import Postgres

ORDERS = TableId("shop", "orders")


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    shop = capture_shop.fresh()
    shop.run("create table shop.orders (id int primary key, name text)")
    return shop


def bad(source: PostgresSource) -> dict[str, Diagnosis]:
    return {d.code: d for d in source.diagnose() if d.verdict is not Verdict.OK}


def only(table: TableId) -> TableSettings | None:
    return everything(table) if table == ORDERS else None


def test_a_minimal_role_on_a_plain_server_lacks_nothing(shop: Shop) -> None:
    source = shop.source()
    source.check()
    source.position()
    source.check()
    found = bad(source)
    # The log is kept without a bound by PostgreSQL's own default, and our slot is idle only now.
    assert set(found) <= {"postgresql-retention"}
    assert found["postgresql-retention"].verdict is Verdict.WARNING
    assert "max_slot_wal_keep_size" in found["postgresql-retention"].mend


CASES: list[tuple[str, str, str, str]] = [
    (
        "replication",
        "alter role {reader} noreplication",
        "alter role {reader} replication",
        "ALTER ROLE",
    ),
    (
        "publication",
        "revoke create on database {database} from {reader}",
        "grant create on database {database} to {reader}",
        "GRANT CREATE ON DATABASE",
    ),
    (
        "published",
        "revoke {owner} from {reader}; grant usage on schema shop to {reader}; "
        "grant select on shop.orders to {reader}",
        "grant {owner} to {reader}",
        "CREATE PUBLICATION",
    ),
    (
        "rights",
        "revoke {owner} from {reader}; grant usage on schema shop to {reader}; "
        'create publication "{publication}" for table shop.orders',
        'grant {owner} to {reader}; drop publication "{publication}"',
        'GRANT SELECT ON "shop"."orders" TO',
    ),
    (
        "row-security",
        "alter table shop.orders enable row level security; "
        "alter table shop.orders force row level security",
        "alter table shop.orders disable row level security",
        "BYPASSRLS",
    ),
    (
        "publication-whole",
        "create publication \"{publication}\" for table shop.orders with (publish = 'insert')",
        'drop publication "{publication}"',
        "SET (publish = 'insert, update, delete, truncate')",
    ),
    (
        "slot",
        "select pg_create_physical_replication_slot('{slot}')",
        "select pg_drop_replication_slot('{slot}')",
        "pg_drop_replication_slot",
    ),
]


@pytest.mark.parametrize(("code", "broken", "mended", "mend"), CASES, ids=[c[0] for c in CASES])
def test_what_is_missing_is_named_with_what_mends_it(
    shop: Shop, code: str, broken: str, mended: str, mend: str
) -> None:
    names = {
        "reader": shop.reader,
        "owner": shop.owner,
        "database": shop.admin.info.dbname,
        "publication": shop.publication,
        "slot": shop.slot,
    }
    source = shop.source()
    shop.admin.execute("reset role")
    shop.run(broken.format(**names))
    try:
        found = bad(source)[f"postgresql-{code}"]
        assert found.verdict is Verdict.FAILED
        assert mend in found.mend
        with pytest.raises(SourceRefused) as refused:
            source.check()
        assert found.mend in refused.value.message
    finally:
        shop.run(mended.format(**names))
    source.check()


def test_a_role_that_owns_nothing_follows_what_an_administrator_published(shop: Shop) -> None:
    shop.admin.execute("reset role")
    shop.run(f"revoke {shop.owner} from {shop.reader}")
    shop.run(f"revoke create on database {shop.admin.info.dbname} from {shop.reader}")
    shop.run(f"grant usage on schema shop to {shop.reader}")
    shop.run(f"grant select on shop.orders to {shop.reader}")
    try:
        source = shop.source(only)
        with pytest.raises(SourceRefused, match="CREATE PUBLICATION") as refused:
            source.position()
        # What the message says is what mends it.
        shop.run(refused.value.message.rpartition("superuser run: ")[2])
        source.check()
        position = source.position()
        assert source.tables() == [ORDERS]
        shop.run("insert into shop.orders values (1, 'a')")
        [(row, _)] = follow(source, position, 1, only)
        assert row[2] == {"id": 1, "name": "a"}
        assert [r[2] for r in read(source, ORDERS)] == [{"id": 1, "name": "a"}]
        # A table that comes later is left out until somebody who may publishes it.
        shop.run(f"set role {shop.owner}")
        shop.run("create table shop.later (id int primary key)")
        assert shop.source().tables() == [ORDERS]
    finally:
        shop.admin.execute("reset role")
        shop.run(f"grant {shop.owner} to {shop.reader}")
        shop.run(f"grant create on database {shop.admin.info.dbname} to {shop.reader}")


def test_a_policy_that_would_hide_rows_fails_the_read(shop: Shop) -> None:
    shop.run("insert into shop.orders values (1, 'a')")
    source = shop.source()
    shop.run("alter table shop.orders enable row level security")
    shop.run("alter table shop.orders force row level security")
    with pytest.raises(SourceRefused, match="row-level security"):
        read(source, ORDERS)


def test_tables_that_cannot_be_followed_are_told_with_the_reason(shop: Shop) -> None:
    shop.run("create table shop.keyless (id int)")
    shop.run("create table shop.mute (id int primary key)")
    shop.run("alter table shop.mute replica identity nothing")
    shop.run("create unlogged table shop.light (id int primary key)")
    found = [d for d in shop.source().diagnose() if d.code == "postgresql-replica-identity"]
    assert [(d.subject, d.mend.partition(", or leave")[0]) for d in found] == [
        ("table shop.keyless", 'ALTER TABLE "shop"."keyless" ADD PRIMARY KEY (…)'),
        ("table shop.light", 'ALTER TABLE "shop"."light" SET LOGGED'),
        ("table shop.mute", 'ALTER TABLE "shop"."mute" REPLICA IDENTITY DEFAULT'),
    ]
    assert {d.verdict for d in found} == {Verdict.WARNING}
    # What is selected can be followed, and the rest of the database is nobody's business.
    shop.source().check()
    assert [d for d in shop.source(only).diagnose() if d.code.endswith("identity")] == []
    # Where nothing can be followed, somebody is mistaken.
    shop.run("alter table shop.orders drop constraint orders_pkey")
    shop.run("drop table shop.mute, shop.light")
    with pytest.raises(SourceRefused, match="ADD PRIMARY KEY"):
        shop.source().check()


def test_partitions_that_are_published_one_by_one_are_refused(shop: Shop) -> None:
    shop.run("create table shop.parts (id int primary key) partition by range (id)")
    shop.admin.execute("reset role")
    shop.run(f'create publication "{shop.publication}" for table shop.orders, shop.parts')
    found = bad(shop.source())["postgresql-publication-root"]
    assert found.verdict is Verdict.FAILED
    assert "publish_via_partition_root = true" in found.mend
    shop.run(found.mend)
    shop.source().check()


def test_what_only_costs_is_a_warning(shop: Shop) -> None:
    shop.admin.execute("reset role")
    shop.run(f"revoke pg_read_all_stats from {shop.reader}")
    other_slot = f"cartridge_old_{shop.mark}"
    shop.run("select pg_create_logical_replication_slot(%s, 'pgoutput')", (other_slot,))
    with shop.another() as other:
        other.execute("insert into shop.orders values (1, 'a')")
        pid = other.info.backend_pid
        found = bad(shop.source())
    shop.run("select pg_drop_replication_slot(%s)", (other_slot,))
    shop.run(f"grant pg_read_all_stats to {shop.reader}")
    assert {d.verdict for d in found.values()} == {Verdict.WARNING}
    assert f'GRANT pg_read_all_stats TO "{shop.reader}"' == found["postgresql-sees-sessions"].mend
    assert other_slot in found["postgresql-idle-slot"].mend
    assert f"pid {pid}" in found["postgresql-open-transactions"].found


def test_a_lost_slot_is_found(shop: Shop) -> None:
    # Made for real in test_postgresql_source_slot; here only what is said of it.
    source = shop.source()
    source.position()
    codes = {d.code for d in source.diagnose()}
    assert {"postgresql-slot", "postgresql-slot-lost", "postgresql-senders-free"} <= codes


def test_a_server_that_is_not_set_up_is_refused(
    start_server: Callable[[Postgres], Postgres],
) -> None:
    server = start_server(
        Postgres(
            settings={"wal_level": "replica", "max_replication_slots": 0, "max_wal_senders": 0}
        )
    )
    with Shop(server.url) as shop:
        shop.run("create table shop.orders (id int primary key)")
        with pytest.raises(SourceRefused, match="wal_level: logical was expected, found replica"):
            shop.source().check()
        shop.admin.execute("reset role")
        shop.run("alter system set wal_level = 'logical'")
        server.restart()
        shop.admin.close()
        shop.admin = shop.connect()
        found = bad(shop.source())
        assert "max_replication_slots = 5" in found["postgresql-slots-free"].mend
        assert "max_wal_senders = 5" in found["postgresql-senders-free"].mend
