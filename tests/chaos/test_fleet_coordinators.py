"""Coordinators come and go, and one schema's trouble is its own (guarantees 7 and 8)."""

from __future__ import annotations

import random

import pytest
from fleet import TABLES, Fleet, Servers, Writers, preload
from warehouses import METADATA

pytestmark = pytest.mark.xdist_group("fleet")

ROWS = 300  # of each table


@pytest.mark.holds(guarantee=(7, 8), source="mongodb", destination="postgresql", fault="kill -9")
def test_a_coordinator_killed_while_it_plans_leaves_nothing_half_planned(fragile: Servers) -> None:
    with Fleet(fragile, chunk_rows=20) as fleet:
        coordinator = fleet.coordinator()
        fleet.wait_for("the metadata to be there", lambda: prepared(fleet))
        with fleet.destination() as connection:
            connection.execute(
                "create function audit.slow() returns trigger language plpgsql as"
                " 'begin perform pg_sleep(0.1); return new; end';"
                f"create trigger slow before insert on {METADATA}.sync_markers for each row"
                " when (new.kind = 'chunk') execute function audit.slow()"
            )
        preload(fleet.source, ROWS, random.Random(1))
        for _ in range(3):
            fleet.wait_for("a plan to be half written", lambda: plans(fleet) == 1)
            coordinator.crash()
            fleet.wait_for("its transaction to have ended", lambda: plans(fleet) == 0)
            assert half_planned(fleet) == []
            coordinator.start()
        with fleet.destination() as connection:
            connection.execute(f"drop trigger slow on {METADATA}.sync_markers")
        fleet.worker(slots=8)
        fleet.catch_up(TABLES)
        assert fleet.differences(TABLES) == []
        assert fleet.faults() == []


def prepared(fleet: Fleet) -> bool:
    return bool(fleet.ask(f"select from {METADATA}.sync_markers where kind = 'stream'"))


def plans(fleet: Fleet) -> int:
    """Transactions that are writing the chunks of a table right now."""
    return len(
        fleet.ask(
            "select from pg_stat_activity where datname = %s and wait_event = 'PgSleep'",
            fleet.name,
        )
    )


def half_planned(fleet: Fleet) -> list[tuple[str, int]]:
    """Tables whose chunks do not cover every key: without a first, a last or one between."""
    rows = fleet.ask(
        "select source_table, count(*) from (select source_table, kind, spec,"
        " lead(spec ->> 'lower') over w as next, row_number() over w as n,"
        " count(*) over (partition by source_table) as all"
        f" from {METADATA}.sync_markers where kind = 'chunk'"
        " window w as (partition by source_table order by (spec ->> 'number')::int)) as c"
        " where (n = 1 and spec ->> 'lower' is not null)"
        " or spec ->> 'upper' is distinct from next group by source_table"
    )
    return [(row[0], row[1]) for row in rows]


@pytest.mark.holds(guarantee=7, source="mongodb", destination="postgresql", fault="kill -9")
def test_two_coordinators_at_once_do_no_harm_and_one_outlives_the_other(fragile: Servers) -> None:
    with Fleet(fragile, chunk_rows=50) as fleet:
        preload(fleet.source, ROWS, random.Random(1))
        coordinators = [fleet.coordinator(), fleet.coordinator()]
        fleet.worker()
        with Writers(fragile.mongo.url, fleet.name, ROWS, 1, threads=1, pause=0.01):
            fleet.wait_for("the snapshot to be complete", lambda: fleet.settled(*TABLES))
            leader = next(c for c in coordinators if c.said("leadership_taken"))
            leader.crash()
            fleet.source["later"].insert_many([{"name": f"later {n}"} for n in range(ROWS)])
            fleet.wait_for("the other one to plan the new table", lambda: fleet.settled("later"))
        fleet.catch_up([*TABLES, "later"])
        assert fleet.differences([*TABLES, "later"]) == []
        assert fleet.faults() == []


def test_a_schema_that_fails_stops_no_other(fragile: Servers) -> None:
    with Fleet(fragile, beside="odd") as fleet:
        assert fleet.beside is not None
        with fleet.destination() as connection:
            # Somebody's own table stands where ours should: only a person can mend that.
            connection.execute(
                f'create table "{fleet.beside}".orders (_id money primary key);'
                f'alter table "{fleet.beside}".orders owner to "{fleet.name}"'
            )
        for database in (fleet.name, fleet.beside):
            fleet.client[database]["orders"].insert_many(
                [{"_id": n, "name": f"order {n}"} for n in range(ROWS)]
            )
        fleet.coordinator()
        fleet.worker()
        fleet.wait_for("the odd schema to stop", lambda: bool(failed(fleet)))
        fleet.client[fleet.beside]["orders"].insert_one({"_id": -1, "name": "for nobody"})
        fleet.catch_up(["orders"])
        assert fleet.differences(["orders"]) == []
        assert failed(fleet) <= {fleet.beside}
        errors = fleet.ask(f"select message, action from {METADATA}.error_log where unit <> ''")
        assert any("expected" in message and action for message, action in errors)


def failed(fleet: Fleet) -> set[str]:
    """The schemas with a unit that waits for a person."""
    rows = fleet.ask(f"select schema_name from {METADATA}.sync_markers where phase = 'failed'")
    return {row[0] for row in rows}
