"""What a plan says would happen is what then happens; what has changed since stops the start."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
import yaml
from fix_servers import Server, mysql_client
from pymongo.database import Database

from commands import plan as planning
from warp.config import Settings, load
from warp.errors import ConfigError

ROWS = 60


def write(tmp_path: Path, tree: dict[str, Any]) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def planned(
    config: Path, capsys: pytest.CaptureFixture[str], out: Path, sample: int = 1_000
) -> Any:
    capsys.readouterr()
    assert planning.run(load(config, {}, {}), sample=sample, out=str(out), as_json=True) == 0
    [table] = json.loads(capsys.readouterr().out)["tables"]
    return table


def started(config: Path, *more: str) -> Any:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}
    return programs.run("commands.cli", "--config", str(config), "--once", *more, env=inherited)


def asked(url: str, statement: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def what_happened(url: str) -> dict[tuple[str, str], int]:
    """(column, outcome) -> cells, by the error log."""
    found = asked(
        url,
        "select column_name, action, sum(cells)::int from cartridge_warp_metadata.error_log"
        " where finding is not null group by 1, 2",
    )
    return {(column, action): cells for column, action, cells in found}


def what_was_said(table: Any) -> dict[tuple[str, str], int]:
    return {
        (one["column"], outcome): count
        for one in table["columns"]
        for outcome, count in one["cells"].items()
    }


def columns_of(url: str, namespace: str) -> dict[str, str]:
    found = asked(
        url,
        "select column_name, data_type from information_schema.columns"
        f" where table_schema = '{namespace}' and column_name not like '\\_cw%'",
    )
    return dict(found)


def test_the_forecast_of_a_mysql_table_is_what_happens(
    mariadb: Server,
    mariadb_database: str,
    pg_database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = mariadb_database.rpartition("/")[2]
    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, note text, n varchar(10), at datetime)"
        )
        cursor.execute("SET sql_mode = ''")
        cursor.executemany(
            "INSERT INTO orders VALUES (%s, %s, %s, %s)",
            [
                (
                    id,
                    "a note that is too long" if id % 10 == 0 else "short",
                    "many" if id % 20 == 0 else str(id),
                    "0000-00-00 00:00:00" if id % 30 == 0 else "2026-01-01 00:00:00",
                )
                for id in range(ROWS)
            ],
        )
    with psycopg.connect(pg_database, autocommit=True) as warehouse:
        # A table that somebody else made, with limits of its own.
        warehouse.execute(f'create schema "{name}"'.encode())
        warehouse.execute(
            f'create table "{name}".orders (id int primary key, note varchar(8), n bigint)'.encode()
        )
    config = write(
        tmp_path,
        {
            "source": {"type": "mysql", "connection_string": mariadb.url, "database": name},
            "destination": {"type": "postgresql", "connection_string": pg_database},
            "schemas": [{"name": name, "chunk_rows": 15, "on_narrower": "set_null"}],
            "monitoring": {"prometheus": {"enabled": False}},
        },
    )
    out = tmp_path / "plan.json"
    table = planned(config, capsys, out)
    assert (table["rows_sampled"], table["whole"], table["obstacle"]) == (ROWS, True, None)
    assert any('add column if not exists "at" timestamp' in line for line in table["ddl"])
    assert columns_of(pg_database, name).keys() == {"id", "note", "n"}  # nothing was changed
    share = {one["column"]: one["share"] for one in table["columns"]}
    assert share["note"] == {"truncated": 0.1}
    assert share["at"] == {"nulled": round(2 / ROWS, 6)}

    done = started(config, "--plan", str(out))
    assert done.returncode == (3 if table["quarantined_rows"] else 0), done.stderr
    assert what_happened(pg_database) == what_was_said(table)
    assert columns_of(pg_database, name).keys() == set(table["after"]["columns"])
    # Started again with the same plan, which is carried out by now.
    planning.check(load(config, {}, {}), str(out))


def test_the_forecast_of_documents_is_what_happens(
    mongo: Server,
    mongo_database: Database[dict[str, Any]],
    pg_database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = mongo_database.name
    mongo_database["orders"].insert_many(
        [
            {"_id": n, "n": n, "v": "x" if n % 20 == 0 else n, "o": {"a": n} if n % 15 == 0 else n}
            for n in range(ROWS)
        ]
    )
    config = write(
        tmp_path,
        {
            "source": {"type": "mongodb", "connection_string": mongo.url, "database": name},
            "destination": {"type": "postgresql", "connection_string": pg_database},
            "schemas": [
                {
                    "name": name,
                    "tables": {"orders": {"columns": {"v": "int64", "o": "int64"}}},
                }
            ],
            "monitoring": {"prometheus": {"enabled": False}},
        },
    )
    out = tmp_path / "plan.json"
    table = planned(config, capsys, out)
    assert table["before"] is None
    assert any(line.startswith("create table") for line in table["ddl"])
    assert not asked(pg_database, "select 1 from pg_namespace where nspname like 'cartridge%'")

    done = started(config, "--plan", str(out))
    assert done.returncode == 0, done.stderr
    assert what_happened(pg_database) == what_was_said(table)
    types = columns_of(pg_database, name)
    assert types.keys() == set(table["after"]["columns"])


@pytest.fixture
def made(
    tmp_path: Path,
    mariadb: Server,
    mariadb_database: str,
    pg_database: str,
    capsys: pytest.CaptureFixture[str],
) -> tuple[Path, Path]:
    """(configuration, plan) of a table of two columns."""
    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id int PRIMARY KEY, v int)")
    name = mariadb_database.rpartition("/")[2]
    tree = {
        "source": {"type": "mysql", "connection_string": mariadb.url, "database": name},
        "destination": {"type": "postgresql", "connection_string": pg_database},
        "schemas": [{"name": name}],
    }
    config, out = write(tmp_path, tree), tmp_path / "plan.json"
    planned(config, capsys, out)
    return config, out


def settings_of(config: Path) -> Settings:
    return load(config, {}, {})


def test_what_has_changed_since_stops_the_start_before_the_first_write(
    made: tuple[Path, Path], mariadb_database: str, pg_database: str, tmp_path: Path
) -> None:
    config, out = made
    planning.check(settings_of(config), str(out))

    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE orders MODIFY v text, ADD COLUMN w int")
        cursor.execute("CREATE TABLE late (id int PRIMARY KEY)")
    tree = yaml.safe_load(config.read_text())
    tree["schemas"][0]["batch_size"] = 7
    write(tmp_path, tree)
    done = started(config, "--plan", str(out))
    assert done.returncode == 2
    for what in (
        "configuration: expected",
        "column v: expected int32, found text",
        "column w: expected none, found int32",
        "late",
    ):
        assert what in done.stderr
    assert not asked(pg_database, "select 1 from pg_namespace where nspname like 'cartridge%'")


def test_a_plan_that_was_edited_is_refused(made: tuple[Path, Path]) -> None:
    config, out = made
    plan = json.loads(out.read_text())
    plan["tables"][0]["ddl"].append("drop table orders")
    out.write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match="edited"):
        planning.check(settings_of(config), str(out))
    out.write_text("{}")
    with pytest.raises(ConfigError, match="expected a plan"):
        planning.check(settings_of(config), str(out))
    with pytest.raises(ConfigError, match="No such file"):
        planning.check(settings_of(config), str(out) + "x")
