"""The loads that databases are measured by run against the source; afterwards both sides are equal.

pgbench comes with PostgreSQL, sysbench from Debian.  CARTRIDGE_WARP_LOAD_SECONDS makes them last
longer: `make soak` runs them for minutes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from fleet import Servers
from sql_fleet import MariaDbOrigin, PostgresOrigin, SqlFleet

from warp.testing.servers import postgres_program, sysbench_program

SECONDS = float(os.environ.get("CARTRIDGE_WARP_LOAD_SECONDS", "5"))
MINUTES: Final = 120.0  # seconds

pytestmark = [pytest.mark.xdist_group("sql-fleet"), pytest.mark.timeout(600 + int(SECONDS))]

log = logging.getLogger(__name__)

PGBENCH: Final = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")
SYSBENCH: Final = ("sbtest1", "sbtest2")


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def rows_of(cursor: Any, table: str, key: str) -> Iterator[tuple[Any, ...]]:
    cursor.execute(f"select * from {table} limit 0")
    names = [column[0] for column in cursor.description if not column[0].startswith("_cw_")]
    cursor.execute(f"select {', '.join(sorted(names))} from {table} order by {key}")
    return iter(cursor.fetchall())


def assert_equal(fleet: SqlFleet, tables: tuple[str, ...], keys: Mapping[str, str]) -> int:
    """Row by row; how many rows were compared."""
    compared = 0
    with (
        contextlib.closing(fleet.origin.connect(fleet.name)) as source,
        fleet.destination() as destination,
    ):
        for table in tables:
            wanted = rows_of(source.cursor(), table, keys[table])
            found = rows_of(destination.cursor(), f'"{fleet.name}".{table}', keys[table])
            for ours, theirs in zip(wanted, found, strict=True):
                assert ours == theirs, table
                compared += 1
    return compared


def follow(fleet: SqlFleet, tables: tuple[str, ...]) -> None:
    fleet.coordinator()
    for _ in range(2):
        fleet.worker()
    fleet.wait_for("the first rows to arrive", lambda: bool(fleet.count(tables[0])))


def under_pgbench(servers: Servers, origin: PostgresOrigin, seconds: float) -> None:
    with SqlFleet(servers, origin, chunk_rows=20_000) as fleet:
        where = [
            *("-h", "127.0.0.1", "-p", str(origin.server.port), "-U", fleet.name),
            fleet.name,
        ]
        inside = {"PGOPTIONS": f"-c search_path={fleet.name}"}
        program = postgres_program("pgbench")
        run(program, "-i", "-q", *where, environment=inside)
        # Its history has no key, and a table without one cannot be followed.
        fleet.execute(
            "alter table pgbench_history add column n bigint generated always as identity"
            " primary key"
        )
        follow(fleet, PGBENCH)
        said = run(program, "-n", "-c", "4", "-T", f"{seconds:.0f}", *where, environment=inside)
        log.info("%s", said)
        fleet.catch_up(["orders"], limit=120 + seconds)
        fleet.wait_for("every table to be settled", lambda: fleet.settled(*PGBENCH))
        keys = dict(zip(PGBENCH, ("aid", "bid", "tid", "n"), strict=True))
        log.info("%d rows equal", assert_equal(fleet, PGBENCH, keys))
        assert fleet.faults() == []


def under_sysbench(servers: Servers, origin: MariaDbOrigin, seconds: float) -> None:
    with SqlFleet(servers, origin, chunk_rows=5_000) as fleet:
        program, environment = sysbench_program()
        common: list[str | Path] = [
            *(
                program.parents[1] / "share/sysbench/oltp_read_write.lua",
                "--db-driver=mysql",
                f"--mysql-db={fleet.name}",
            ),
            *("--mysql-host=127.0.0.1", f"--mysql-port={origin.server.port}"),
            *("--mysql-user=root", f"--mysql-password={origin.server.password}"),
            *("--tables=2", "--table-size=10000", "--threads=4"),
            f"--time={seconds:.0f}",
        ]
        run(program, *common, "prepare", environment=environment)
        follow(fleet, SYSBENCH)
        # Two of its threads may want one row: the server refuses one of them.
        more = ["--mysql-ignore-errors=all", "--skip_trx=off", "--range_selects=off"]
        said = run(program, *common, *more, "run", environment=environment)
        log.info("%s", said)
        fleet.catch_up(["orders"], limit=120 + seconds)
        fleet.wait_for("every table to be settled", lambda: fleet.settled(*SYSBENCH))
        log.info("%d rows equal", assert_equal(fleet, SYSBENCH, dict.fromkeys(SYSBENCH, "id")))
        assert fleet.faults() == []


@pytest.mark.holds(
    guarantee=(4, 7), source="postgresql", destination="postgresql", fault="no fault"
)
def test_after_pgbench_the_destination_equals_the_source(
    fragile_sql: Servers, postgres_origin: PostgresOrigin
) -> None:
    under_pgbench(fragile_sql, postgres_origin, SECONDS)


@pytest.mark.holds(guarantee=(4, 7), source="mariadb", destination="postgresql", fault="no fault")
def test_after_sysbench_the_destination_equals_the_source(
    fragile_sql: Servers, mariadb_origin: MariaDbOrigin
) -> None:
    under_sysbench(fragile_sql, mariadb_origin, SECONDS)


@pytest.mark.soak
def test_after_minutes_of_pgbench_the_destination_equals_the_source(
    fragile_sql: Servers, postgres_origin: PostgresOrigin
) -> None:
    under_pgbench(fragile_sql, postgres_origin, max(SECONDS, MINUTES))


@pytest.mark.soak
def test_after_minutes_of_sysbench_the_destination_equals_the_source(
    fragile_sql: Servers, mariadb_origin: MariaDbOrigin
) -> None:
    under_sysbench(fragile_sql, mariadb_origin, max(SECONDS, MINUTES))
