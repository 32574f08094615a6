"""Many units of one schema begin at once, and each makes the table it needs."""

from __future__ import annotations

import threading
from contextlib import closing

from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.model import Change, Column, Kind, SchemaChange, TableId, TableSchema, TableSettings


def select(table: TableId) -> TableSettings:
    return TableSettings(table, table, "shop")


def test_units_that_make_the_first_tables_of_a_schema_at_once_do_not_fail(pg_database: str) -> None:
    # `create schema if not exists` is no guard against another that is not committed yet: seen as
    # 23505 on pg_namespace_nspname_index in 6 of 16 hand-over trials, and it stopped the unit.
    options = PostgresOptions.model_validate({"connection_string": pg_database})
    units, rounds = 4, 5
    errors: list[BaseException] = []
    together = threading.Barrier(units)

    def make(number: int) -> None:
        with closing(PostgresDestination(options, select)) as destination:
            destination.metadata().prepare()
            for round_ in range(rounds):
                table = TableId(f"shop{round_}", f"t{number}")
                schema = TableSchema(table, (Column("id", Kind.INT64),), ("id",))
                together.wait()
                try:
                    destination.apply_schema_changes(
                        [SchemaChange(table, Change.CREATE_TABLE, schema=schema)]
                    )
                except BaseException as error:  # noqa: BLE001 - shown by the assertion
                    errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(units)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
