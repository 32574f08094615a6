"""`cartridge-warp init` against real servers: what it writes is right, and runs as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import programs
import psycopg
import pytest
import yaml
from fix_servers import Server, fresh_database, mysql_client
from processes import eventually
from psycopg import sql
from pymongo.database import Database

from commands import doctor, init
from commands.init import Given, Nobody
from warp import logs
from warp.testing.terminal import Terminal

HOSTILE = 'we"ird: {x} #'
SECRET = "geheimes-wort"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("CARTRIDGE_WARP_")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return programs.run("commands.cli", *arguments, env=clean() | variables, cwd=tmp_path)

    return run


def it_runs_as_it_is(run: Run, **variables: str) -> None:
    """Validate, then bring everything over."""
    for arguments in (["validate"], ["--once"]):
        done = run("--config", "config.yaml", *arguments, **variables)
        assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


def counts(url: str, schema: str) -> dict[str, int]:
    """Rows of each table of a schema."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "select tablename from pg_tables where schemaname = %s", [schema]
        ).fetchall()
        counted: dict[str, int] = {}
        for (name,) in found:
            query = sql.SQL("select count(*) from {}").format(sql.Identifier(schema, name))
            ((counted[name],),) = connection.execute(query).fetchall()
    return counted


@pytest.fixture
def shop(mongo_database: Database[dict[str, Any]]) -> Database[dict[str, Any]]:
    for name, count in (("orders", 30), (HOSTILE, 2), ("!no", 1)):
        mongo_database[name].insert_many([{"_id": n, "name": f"n{n}"} for n in range(count)])
    return mongo_database


def mongo_url(server: Server, database: str) -> str:
    return server.url.replace("/?", f"/{database}?")


def test_all_of_a_mongodb_database(
    run: Run, mongo: Server, shop: Database[dict[str, Any]], pg_database: str, tmp_path: Path
) -> None:
    source = mongo_url(mongo, shop.name)
    done = run("init", "--yes", "--source", source, "--destination", pg_database)

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert f"{shop.name}: 3 tables, from the log" in done.stderr
    assert "orders" in (tmp_path / "config.yaml").read_text()
    assert "about 30 rows, key _id" in (tmp_path / "config.yaml").read_text()
    it_runs_as_it_is(run)
    assert counts(pg_database, shop.name) == {"orders": 30, HOSTILE: 2, "!no": 1}


@pytest.fixture
def hostile_postgres(postgres: Server) -> Iterator[str]:
    """A database whose schema and tables have odd names, one of them without a key."""
    with fresh_database(postgres) as url:
        schema = 'sh"op ${HOME}'
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
            for name, key in ((HOSTILE + " ${HOME}\n%s", " primary key"), ("a*b", "")):
                table = sql.Identifier(schema, name)
                connection.execute(
                    sql.SQL("create table {} (id int{})").format(table, sql.SQL(key))
                )
                connection.execute(
                    sql.SQL("insert into {} select generate_series(1, 7)").format(table)
                )
        yield url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots "
                "where database = current_database() and active_pid is not null"
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots "
                "where database = current_database()"
            )


def test_a_postgresql_with_hostile_names_a_password_and_a_table_without_a_key(
    run: Run, hostile_postgres: str, pg_database: str, tmp_path: Path
) -> None:
    with_password = [
        url.replace("postgres@", f"postgres:{SECRET}@") for url in (hostile_postgres, pg_database)
    ]
    source, destination = with_password
    done = run("init", "--yes", "--source", source, "--destination", destination)

    assert done.returncode == 0, done.stderr
    written = (tmp_path / "config.yaml").read_text()
    assert SECRET not in written + done.stdout + done.stderr
    assert "SOURCE_PASSWORD" in done.stderr
    (schema,) = yaml.safe_load(written)["schemas"]
    assert schema["name"] == 'sh"op $${HOME}'
    it_runs_as_it_is(run, SOURCE_PASSWORD=SECRET, DESTINATION_PASSWORD=SECRET)
    assert counts(pg_database, 'sh"op ${HOME}') == {HOSTILE + " ${HOME}\n%s": 7, "a*b": 7}


def test_chosen_tables_of_a_mariadb(
    run: Run, mariadb_database: str, pg_database: str, tmp_path: Path
) -> None:
    name = HOSTILE + "` ${HOME}"
    with mysql_client(mariadb_database) as connection, connection.cursor() as cursor:
        for table in (name, "other", "orders"):
            quoted = "`" + table.replace("`", "``") + "`"
            cursor.execute(f"create table {quoted} (id int primary key)")
            cursor.execute(f"insert into {quoted} values (1), (2)")
    done = run(
        *("init", "--yes", "--output", "-", "--source", mariadb_database),
        *("--destination", pg_database, "--table", name, "--table", "ord*"),
    )

    assert done.returncode == 0, done.stderr
    (schema,) = yaml.safe_load(done.stdout)["schemas"]
    assert schema["tables"] == [HOSTILE + "` $${HOME}", "ord*"]
    assert "2 tables, from the log" in done.stderr
    (tmp_path / "config.yaml").write_text(done.stdout)
    it_runs_as_it_is(run)
    assert counts(pg_database, mariadb_database.rpartition("/")[2]) == {name: 2, "orders": 2}


def test_a_server_that_is_not_ready_is_told_and_the_file_says_so(
    run: Run, mongo: Server, shop: Database[dict[str, Any]], tmp_path: Path
) -> None:
    source = mongo_url(mongo, shop.name)
    nowhere = "postgresql://me@127.0.0.1:1/warehouse"
    done = run("init", "--yes", "--batch", "--source", source, "--destination", nowhere)

    assert done.returncode == 1
    assert "WARP-220" in done.stderr
    written = (tmp_path / "config.yaml").read_text()
    assert "must be mended first" in written
    assert yaml.safe_load(written)["schemas"][0]["mode"] == "batch"


def test_a_file_that_is_there_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine")
    done = run("init", "--yes", "--source", "mongodb://h/d", "--destination", "postgresql://h/d")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert (tmp_path / "config.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["init"], "terminal to ask on, or the flag --yes"),
        (["init", "--yes"], "found nobody to ask"),
        (["init", "--yes", "--source", "ftp://x", "--destination", "mysql://h"], "source.type"),
        (["--config", "x.yaml", "init"], "--output"),
    ],
)
def test_what_is_missing_is_named(
    run: Run, arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_server_is_not_copied_onto_itself(run: Run, hostile_postgres: str) -> None:
    both = dict.fromkeys(("--source", "--destination"), hostile_postgres)
    done = run("init", "--yes", "--output", "-", *(part for pair in both.items() for part in pair))
    assert done.returncode == 0, done.stderr
    (schema,) = yaml.safe_load(done.stdout)["schemas"]
    assert schema["destination_schema"] == 'sh"op $${HOME}_copy'


def test_ctrl_c_on_the_way_leaves_no_file(
    mongo: Server,
    shop: Database[dict[str, Any]],
    pg_database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", interrupted)
    monkeypatch.setattr(logs, "configure", lambda *given, **more: None)
    file = tmp_path / "config.yaml"
    given = Given(mongo_url(mongo, shop.name), pg_database, output=str(file))
    with pytest.raises(KeyboardInterrupt):
        init.run(given, Nobody(), {})
    assert list(tmp_path.iterdir()) == []


def test_the_dialogue_in_a_real_terminal(
    mongo: Server, shop: Database[dict[str, Any]], pg_database: str, tmp_path: Path
) -> None:
    """Wrong answers are asked again, Ctrl-C leaves nothing, and a file is not overwritten."""
    file = tmp_path / "config.yaml"

    def asked(*flags: str, **more: str) -> Terminal:
        command = [sys.executable, "-m", "commands.cli", "init", "--output", str(file), *flags]
        return Terminal(command, columns=200, lines=50, environment=environment(more))

    with asked() as terminal:
        terminal.until("Source (mongodb://")
        terminal.press("nonsense", "Enter")
        terminal.until("Destination (")
        terminal.press(pg_database, "Enter")
        terminal.until("WARP-100 source.type")
        terminal.press("C-c")
        terminal.until("nothing was written")
        eventually(terminal.ended, "the dialogue to end")
    assert not file.exists()

    source = {"CARTRIDGE_WARP_SOURCE": mongo_url(mongo, shop.name)}
    # The server has databases of other tests too, and would ask which.
    with asked("--schema", shop.name, **source, CARTRIDGE_WARP_DESTINATION=pg_database) as terminal:
        terminal.until("Follow its log all the time?")
        terminal.press("Enter")
        terminal.until("rows, about", HOSTILE, "Tables of")
        terminal.press("ordres", "Enter")
        terminal.until("did you mean 'orders'?")
        terminal.press("1, ord*", "Enter")
        terminal.until("written:")
        eventually(terminal.ended, "the dialogue to end")
    read = yaml.safe_load(file.read_text())
    assert read["source"]["connection_string"] == "${CARTRIDGE_WARP_SOURCE}"
    assert read["schemas"][0]["tables"] == [f"{shop.name}.!no", "ord*"]

    with asked() as terminal:
        terminal.until("Overwrite it?")
        terminal.press("n", "Enter")
        terminal.until("WARP-100")
        eventually(terminal.ended, "the dialogue to end")
    assert yaml.safe_load(file.read_text()) == read


def environment(more: Mapping[str, str]) -> dict[str, str]:
    return {**clean(), "TERM": "tmux-256color", **more}
