"""A stream of several schemas in a real PostgreSQL: every table by the schema it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from postgresql_world import CREATE, DELETE, META, ORDERS, SCHEMA, UPDATE, Unit, World

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.errors import FenceBehind
from warp.model import (
    SHARED,
    Choice,
    Finding,
    Operation,
    Outcome,
    Phase,
    Position,
    QuarantinedRow,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
)
from warp.streams import Together

STREAM = WorkUnit.stream(SHARED)
USERS = TableId("crm", "users")
USER_SCHEMA = TableSchema(USERS, SCHEMA.columns, ("id",))


def of(schema: str, table: TableId) -> TableSettings | None:
    return TableSettings(table, table, schema) if table.namespace == schema else None


TOGETHER = Together({name: lambda table, name=name: of(name, table) for name in ("shop", "crm")})


class Both(World):
    """A world whose stream carries two schemas."""

    def destination(self, **options: object) -> PostgresDestination:
        given = PostgresOptions.model_validate({"connection_string": self.url})
        self.made.append(PostgresDestination(given, TOGETHER))
        return self.made[-1]

    def streaming(self) -> Unit:
        unit = self.unit(STREAM)
        for schema in (SCHEMA, USER_SCHEMA):
            table = WorkUnit.of_table(schema.table.namespace, schema.table)
            unit.destination.metadata().register(table, position=None, phase=Phase.STREAMING)
            unit.create(schema)
        return unit


@pytest.fixture
def world(pg_database: str) -> Iterator[Both]:
    world = Both(pg_database)
    yield world
    world.close()


def test_tables_of_every_schema_land_under_their_own_markers(world: Both) -> None:
    unit = world.streaming()
    unit.write("1", (CREATE, 1, 1, "order"))
    unit.write("2", (CREATE, 2, 1, "user"), table=USERS)
    unit.write("3", (DELETE, 3, 1), table=USERS)
    assert world.rows() == [(1, "order")]
    assert world.rows("crm.users") == []  # settled: deleted, not a tombstone
    assert world.ask("select count(*) from crm.users") == [(0,)]
    found = world.ask(f"select unit from {META}.sync_markers order by 1")
    assert found == [("stream:*",), ("table:crm:crm.users",), ("table:shop:shop.orders",)]


def test_a_reload_is_planned_for_the_schema_of_its_table(world: Both) -> None:
    unit = world.streaming()
    unit.write("1", reload=[USERS])
    phases = {m.unit.id: m.phase for m in unit.destination.metadata().markers()}
    assert phases["table:crm:crm.users"] is Phase.PLANNED
    assert phases["table:shop:shop.orders"] is Phase.STREAMING


def test_what_is_set_aside_is_replayed_by_the_schema_of_its_table(world: Both) -> None:
    unit = world.streaming()
    kinds = {"id": "int64", "name": "text"}
    row = QuarantinedRow(
        USERS, '{"id": 7}', Operation.CREATE, '{"id": 7}', "bad", "x", version=5, kinds=kinds
    )
    unit.deliver(unit.batch("1"), quarantined=[row])
    metadata = unit.destination.metadata()
    [aside] = metadata.quarantine(Choice(schemas=("crm",)))
    assert (aside.schema, aside.unit) == ("crm", "stream:*")
    assert metadata.replay("shop", USERS, [aside.id]) == 0
    assert metadata.replay("crm", USERS, [aside.id]) == 1
    assert [a.id for a in metadata.to_replay("crm", USERS, 10)] == [aside.id]


def test_errors_are_found_by_the_schema_they_are_about(world: Both) -> None:
    unit = world.streaming()
    batch = unit.batch("1")
    finding = Finding(USERS, "name", Outcome.NULLED, "int64", "text", 1)
    after = unit.marker.advanced(batch)
    unit.destination.write_batch(batch, after, findings=[finding])
    metadata = unit.destination.metadata()
    metadata.log_error(code="WARP-1", error_class="E", message="of all", unit="stream:*")
    codes = {
        name: [e.code for e in metadata.errors(Choice(schemas=(name,)))] for name in ("shop", "crm")
    }
    assert codes == {"shop": ["WARP-1"], "crm": ["WARP-1", "CELL-nulled"]}


def test_a_row_waits_for_its_parent_of_another_schema(world: Both) -> None:
    world.looking.execute("create schema shop")
    world.looking.execute("create schema crm")
    world.looking.execute("create table crm.users (id bigint primary key, name text)")
    world.looking.execute(
        "create table shop.orders (id bigint primary key, name text,"
        " user_id bigint references crm.users)"
    )
    unit = world.unit(STREAM)
    metadata = unit.destination.metadata()
    for table in (ORDERS, USERS):
        marker = WorkUnit.of_table(table.namespace, table)
        metadata.register(marker, position=None, phase=Phase.STREAMING)
    user_id = replace(SCHEMA.columns[0], name="user_id", source="user_id")
    unit.create(TableSchema(ORDERS, (*SCHEMA.columns[:2], user_id), ("id",)))
    unit.create(TableSchema(USERS, SCHEMA.columns[:2], ("id",)))
    unit.write("1", (CREATE, 1, 1, "early", 7), (CREATE, 1, 2, "none", None))
    assert world.rows() == [(2, "none")]
    assert metadata.deferred() == {ORDERS: 1}
    assert world.ask(f"select unit, schema_name from {META}.deferred_rows") == [
        ("stream:*", "shop")
    ]
    unit.write("2", (UPDATE, 2, 1, "newer", 7))
    unit.write("3", (CREATE, 3, 7, "parent"), table=USERS)
    assert world.rows() == [(1, "newer"), (2, "none")]
    assert not unit.destination.deferred_due(SHARED)


def test_saying_what_a_stream_carries_shuts_out_its_worker_and_plans_what_it_leaves(
    world: Both,
) -> None:
    """Guarantee 4."""
    unit = world.streaming()
    unit.write("1", (CREATE, 1, 1, "a"))
    metadata = world.destination().metadata()
    users = WorkUnit.of_table("crm", USERS)
    assert metadata.follow(STREAM, "shop only", left=[users])
    with pytest.raises(FenceBehind):
        unit.write("2", (CREATE, 2, 2, "b"))
    found = {m.unit.id: m for m in metadata.markers()}
    assert (found[STREAM.id].follows, found[STREAM.id].position) == (
        "shop only",
        Position("1", 1_000.5),
    )
    assert (found[users.id].phase, found[users.id].epoch) == (Phase.PLANNED, 1)
    fence = found[STREAM.id].fence
    assert not metadata.follow(STREAM, "shop only", left=[users])
    again = world.unit(STREAM, fence=fence + 1)
    assert again.marker.follows == "shop only"
    again.write("2", (CREATE, 2, 2, "b"))
    assert {m.unit.id: m.follows for m in metadata.markers()}[STREAM.id] == "shop only"


def test_a_resync_of_one_schema_keeps_the_place_of_the_stream_it_shares(world: Both) -> None:
    unit = world.streaming()
    unit.write("1", (CREATE, 1, 1, "a"))
    metadata = world.destination().metadata()
    again = metadata.resync("crm", None, position=Position("50"), stream=STREAM)
    assert again == [STREAM]
    found = {m.unit.id: m for m in metadata.markers()}
    assert found[STREAM.id].position == Position("1", 1_000.5)
    assert found["table:crm:crm.users"].phase is Phase.PLANNED
    assert found["table:shop:shop.orders"].phase is Phase.STREAMING
    assert metadata.resync(SHARED, None, position=Position("50")) == [STREAM]
    assert {m.unit.id: m.position for m in metadata.markers()}[STREAM.id] == Position("50")
