"""Tables at BigQuery: made, laid out, adopted, widened, and gone on with after a fault half-way."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer

from warp import faults
from warp.destinations.bigquery import BigQueryDestination
from warp.destinations.bigquery.session import ONCE
from warp.errors import DestinationRefused
from warp.model import (
    ABSENT,
    Change,
    ChangeBatch,
    Choice,
    Column,
    Kind,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    SchemaChange,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
    WorkUnit,
)
from warp.testing.contracts import select

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.soak]

NUMBERS = itertools.count(1)
CREATE, DELETE = Operation.CREATE, Operation.DELETE


class Writer:
    """A stream of one table of its own, whose columns a test chooses."""

    def __init__(
        self, warehouse: Warehouse, phase: Phase = Phase.STREAMING, **settings: Any
    ) -> None:
        def chosen(table: TableId) -> TableSettings | None:
            found = select(table)
            return found and replace(found, **settings)

        self.warehouse = warehouse
        number = next(NUMBERS)
        self.id = TableId("shop", f"things_{number}")
        self.destination: BigQueryDestination = warehouse.destination(chosen)
        self.destination.metadata().prepare()
        table = WorkUnit.of_table("shop", self.id)
        self.destination.metadata().register(table, position=None, phase=phase)
        self.adopt(number)

    def adopt(self, fence: int) -> None:
        lease = Lease(WorkUnit.stream("shop"), "w", fence)
        self.marker: Marker = self.destination.open(lease)

    def make(self, *columns: Column, key: Sequence[str] = ("id",)) -> None:
        schema = TableSchema(self.id, columns, tuple(key))
        self.change(Change.CREATE_TABLE, schema=schema)

    def change(self, change: Change, **what: Any) -> None:
        self.destination.apply_schema_changes([SchemaChange(self.id, change, **what)])

    def write(self, *rows: Sequence[Any], operation: Operation = CREATE, version: int = 1) -> None:
        schema = self.destination.get_schema(self.id)
        columns = [list(column) for column in zip(*rows, strict=True)]
        operations = bytearray([operation]) * len(rows)
        part = TableChanges(self.id, operations, [version] * len(rows), schema, columns)
        batch = ChangeBatch([part], Position(str(self.marker.batch), 1_000.0))
        after = self.marker.advanced(batch, phase=Phase.STREAMING)
        self.written = self.destination.write_batch(batch, after)
        self.marker = after

    def rows(self) -> list[dict[str, Any]]:
        found = self.warehouse.rows(self.id)
        return [{k: v for k, v in row.items() if not k.startswith("_cw_")} for row in found]

    def kinds(self) -> dict[str, Kind]:
        schema = self.destination.get_schema(self.id)
        return {c.name: c.kind for c in schema.columns} if schema else {}

    def table(self) -> Any:
        place = self.warehouse.place(self.id)
        return self.warehouse.client.get_table(f"{place.namespace}.{place.name}", retry=ONCE)


@pytest.fixture(scope="module")
def warehouse(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        yield warehouse


ID = Column("id", Kind.INT64)
HOSTILE = ['a"b', "select", "Üb er", "ID2", "id2", "x`; DROP TABLE y; --", "_TABLE_x", "9", "%s"]


def test_names_that_bigquery_does_not_take_are_changed_and_never_collide(
    warehouse: Warehouse,
) -> None:
    writer = Writer(warehouse)
    writer.make(ID, *(Column(name, Kind.TEXT) for name in HOSTILE))
    writer.write([1, *HOSTILE])
    [row] = writer.rows()
    assert sorted(map(str, row.values())) == sorted(["1", *HOSTILE])
    assert [c.name for c in writer.destination.get_schema(writer.id).columns] == ["id", *HOSTILE]  # type: ignore[union-attr]
    assert row["select"] == "select"


def test_a_new_column_that_differs_only_in_case_from_another_gets_its_own(
    warehouse: Warehouse,
) -> None:
    writer = Writer(warehouse, soft_delete_column="gone")
    writer.make(ID, Column("name", Kind.TEXT))
    sources = ("NAME", "GONE", "gone")
    for base, source in enumerate(sources, 1):
        writer.change(Change.ADD_COLUMN, column=Column(source, Kind.TEXT), base=base)
    writer.write([1, "a", *sources])
    [row] = writer.rows()
    assert (row["id"], row["name"], row["gone"]) == (1, "a", False)
    assert sorted(str(v) for k, v in row.items() if k.startswith("c_")) == sorted(sources)


def test_a_table_is_keyed_and_clustered_and_partitioned_as_configured(
    bigquery_server: BigQueryServer,
) -> None:
    layout = {"shop_*.things_*": {"partition_by": "at", "granularity": "MONTH"}}
    with Warehouse(bigquery_server, secrets.token_hex(4), layout=layout) as warehouse:
        writer = Writer(warehouse)
        writer.make(ID, Column("at", Kind.DATE), Column("n", Kind.DECIMAL))
        made = writer.table()
        assert made.table_constraints.primary_key.columns == ["id"]
        assert made.clustering_fields == ["id"]
        assert made.time_partitioning.field == "at"


@pytest.mark.holds(guarantee=4, source="none", destination="bigquery", fault="drift")
def test_columns_are_added_widened_in_place_and_made_anew(warehouse: Warehouse) -> None:
    writer = Writer(warehouse)
    writer.make(ID, Column("n", Kind.INT64), Column("f", Kind.FLOAT64), Column("d", Kind.DATE))
    writer.write([1, 7, 0.1, None], [2, None, None, None])
    writer.change(Change.ADD_COLUMN, column=Column("name", Kind.TEXT), base=1)
    writer.change(Change.WIDEN_COLUMN, column=Column("n", Kind.DECIMAL), base=2)
    writer.change(Change.WIDEN_COLUMN, column=Column("f", Kind.DECIMAL), base=3)
    writer.change(Change.TEXT_COLUMN, column=Column("d", Kind.TEXT), base=4)
    assert writer.kinds() == {
        "id": Kind.INT64,
        "n": Kind.DECIMAL,
        "f": Kind.DECIMAL,
        "d": Kind.TEXT,
        "name": Kind.TEXT,
    }
    writer.write([3, Decimal("1.5"), Decimal("0.1"), "a day", "new"], version=2)
    assert sorted(writer.rows(), key=lambda row: row["id"]) == [
        {"id": 1, "n": 7, "f": Decimal("0.1"), "d": None, "name": None},
        {"id": 2, "n": None, "f": None, "d": None, "name": None},
        {"id": 3, "n": Decimal("1.5"), "f": Decimal("0.1"), "d": "a day", "name": "new"},
    ]
    made = writer.table()
    assert made.table_constraints.primary_key.columns == ["id"]


def test_a_column_of_a_table_that_is_too_large_to_make_anew_stays(warehouse: Warehouse) -> None:
    writer = Writer(warehouse, rewrite_limit=-1)
    writer.make(ID, Column("n", Kind.INT64))
    writer.write([1, 7])
    writer.change(Change.TEXT_COLUMN, column=Column("n", Kind.TEXT), base=1)
    schema = writer.destination.get_schema(writer.id)
    assert schema is not None
    assert [(c.kind, c.fixed) for c in schema.columns] == [
        (Kind.INT64, False),
        (Kind.INT64, True),
    ]
    [line] = writer.destination.metadata().errors(Choice(table=writer.id.name))
    assert "rewrite_limit" in line.message


def test_a_key_that_becomes_one_of_any_type_is_written_as_its_source_does(
    warehouse: Warehouse,
) -> None:
    writer = Writer(warehouse)
    writer.make(Column("id", Kind.OBJECTID), Column("n", Kind.INT64))
    writer.write(["0" * 24, 1])
    writer.change(Change.RETYPE_KEY, column=Column("id", Kind.TAGGED), base=1)
    writer.write(['{"$oid":"' + "0" * 24 + '"}', 2], ["1", 3], version=2)
    assert {row["id"]: row["n"] for row in writer.rows()} == {
        '{"$oid":"' + "0" * 24 + '"}': 2,
        "1": 3,
    }


@pytest.mark.holds(guarantee=7, source="none", destination="bigquery", fault="error")
def test_a_change_cut_short_is_finished_by_whoever_comes_next(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(warehouse)
    writer.make(ID, Column("f", Kind.FLOAT64), Column("n", Kind.INT64))
    writer.write([1, 0.5, 7])

    class Killed(BaseException):
        pass

    def killed_at(point: str, change: Change, column: Column) -> None:
        def hit(name: str) -> None:
            if name == point:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(faults, "hit", hit)
            writer.change(change, column=column, base=1)

    for point, change, column in (
        ("after_register", Change.WIDEN_COLUMN, Column("f", Kind.DECIMAL)),
        ("after_alter", Change.TEXT_COLUMN, Column("n", Kind.TEXT)),
    ):
        with pytest.raises(Killed):
            killed_at(point, change, column)
        assert writer.kinds()[column.name] is column.kind
    writer.write([2, Decimal("1.5"), "words"], version=2)
    assert sorted(row["n"] for row in writer.rows()) == ["7", "words"]


def test_a_table_that_somebody_else_made_is_adopted_with_its_types(warehouse: Warehouse) -> None:
    writer = Writer(warehouse)
    place = warehouse.place(writer.id)
    warehouse.client.create_dataset(place.namespace, exists_ok=True, retry=ONCE)
    there = f"`{place.namespace}`.`{place.name}`"
    warehouse.query(f"CREATE TABLE {there} (id INT64 NOT NULL, n INT64, theirs STRING)")
    warehouse.query(f"INSERT INTO {there} (id, n, theirs) VALUES (1, 1, 'kept'), (9, 9, 'kept')")
    writer.make(ID, Column("n", Kind.FLOAT64), Column("more", Kind.TEXT))
    assert writer.kinds() == {"id": Kind.INT64, "n": Kind.INT64, "more": Kind.TEXT}
    writer.write([1, 5, "new"])
    assert sorted(writer.rows(), key=lambda row: row["id"]) == [
        {"id": 1, "n": 5, "theirs": "kept", "more": "new"},
        {"id": 9, "n": 9, "theirs": "kept", "more": None},
    ]


def test_a_dropped_table_is_told_until_it_is_to_be_read_anew(warehouse: Warehouse) -> None:
    writer = Writer(warehouse)
    writer.make(ID)
    writer.write([1])
    place = warehouse.place(writer.id)
    warehouse.client.delete_table(f"{place.namespace}.{place.name}", retry=ONCE)
    with pytest.raises(DestinationRefused, match="resync"):
        writer.destination.get_schema(writer.id)
    writer.destination.metadata().resync("shop", writer.id, position=Position("2"))
    assert writer.destination.get_schema(writer.id) is None
    next(NUMBERS)  # the fence by which the stream was set back
    writer.adopt(next(NUMBERS))
    writer.make(ID)
    writer.write([2])
    assert writer.rows() == [{"id": 2}]


def test_soft_deletes_keep_the_row_and_mark_it(warehouse: Warehouse) -> None:
    writer = Writer(warehouse, soft_delete_column="gone")
    writer.make(ID, Column("n", Kind.INT64))
    writer.write([1, 1], [2, 2])
    writer.write([1, ABSENT], operation=DELETE, version=2)
    assert sorted(writer.rows(), key=lambda row: row["id"]) == [
        {"id": 1, "n": 1, "gone": True},
        {"id": 2, "n": 2, "gone": False},
    ]
    writer.write([1, 3], version=3)
    assert {row["id"]: row["gone"] for row in writer.rows()} == {1: False, 2: False}
