"""Values under a rule of a MariaDB and of a BigQuery turn up nowhere but there, as those of a
MongoDB (test_privacy_fleet.py).

One fleet carries three tables of the same rows: `people`, followed (of a BigQuery: compared), and
`stamped`, polled by a column of times, have rules; `open` has none, so its values are found
wherever there is a place for them, and the search is known to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import bigquery_world
import mysql_world
import psycopg
import pytest
from eventful import page_of
from fix_servers import Server, fresh_database
from privacy_world import (
    KEY,
    OPEN,
    PEOPLE,
    PLANTED,
    Seen,
    asked,
    dumped,
    everything_in,
    hashed,
    refuse_large,
    rows_of,
)
from processes import Fleet, eventually
from psycopg import sql

pytestmark = [
    pytest.mark.soak,
    pytest.mark.xdist_group("bigquery"),
    pytest.mark.timeout(1_800),
]

STAMPED = "stamped"
TABLES = (PEOPLE, STAMPED, OPEN)
ROWS = 24
LIMIT = 900.0  # seconds for what takes thirty of an emulator; this machine may be busy
RULES = {"mail": "hash", "name": "tokenise", "ssn": "drop", "phone": "mask"}


class Source(Protocol):
    name: str  # of the database or dataset
    columns: str
    block: dict[str, Any]  # `source:`
    schema: dict[str, Any]  # its settings
    rules: dict[str, str]

    def run(self, statement: str) -> None: ...
    def close(self) -> None: ...


class OfMariaDb:
    columns = (
        "mail varchar(100) PRIMARY KEY, n int, name varchar(100), ssn varchar(100),"
        " phone varchar(100), doc json, updated_at timestamp(6)"
    )

    def __init__(self, server: Server) -> None:
        self.world = mysql_world.World(server.url)
        self.name = self.world.database
        self.block = {"type": "mysql", "connection_string": self.world.connection_string}
        self.schema: dict[str, Any] = {"mode": "stream"}
        self.rules = {"doc": "hash"}  # its JSON is text, of which no field can be covered

    def run(self, statement: str) -> None:
        self.world.sql(statement.replace("NOW", "now(6)"))

    def close(self) -> None:
        self.world.close()


class OfBigQuery:
    columns = (
        "mail STRING, n INT64, name STRING, ssn STRING, phone STRING, doc JSON,"
        " updated_at TIMESTAMP, PRIMARY KEY (mail) NOT ENFORCED"
    )

    def __init__(self, server: Any) -> None:
        self.world = bigquery_world.World(server)
        self.name = self.world.dataset
        self.block = {
            "type": "bigquery",
            "connection_string": f"bigquery://{server.project}/{self.name}",
            "emulator_host": server.url,
            "emulator_grpc": server.grpc,
        }
        self.schema: dict[str, Any] = {
            "mode": "batch",
            "change_detection": {"strategy": "hash"},
        }
        self.rules = {"doc.home.street": "mask"}

    def run(self, statement: str) -> None:
        for table in TABLES:
            statement = statement.replace(f"`{table}`", f"`{self.name}`.`{table}`")
        statement = statement.replace("'{", "JSON '{").replace("NOW", "CURRENT_TIMESTAMP()")
        self.world.sql(statement)

    def close(self) -> None:
        self.world.close()


def inserting(table: str, *numbers: int) -> str:
    rows = []
    for n in numbers:
        mark = f"{PLANTED[OPEN if table == OPEN else PEOPLE]}{n}"
        doc = f'{{"home": {{"street": "{mark}weg 12", "city": "Kiel"}}}}'
        texts = (f"Hedwig {mark}", f"{mark}-ssn", f"{mark} 0151 2345678", doc)
        written = ", ".join(f"'{text}'" for text in texts)
        rows.append(f"('{mark}@mail.example', {n}, {written}, NOW)")
    return (
        f"INSERT INTO `{table}` (mail, n, name, ssn, phone, doc, updated_at)"
        f" VALUES {', '.join(rows)}"
    )


@pytest.fixture(scope="module", params=["mariadb", "bigquery"])
def source(request: pytest.FixtureRequest) -> Iterator[Source]:
    made: Source
    if request.param == "mariadb":
        made = OfMariaDb(request.getfixturevalue("mariadb"))
    else:
        made = OfBigQuery(request.getfixturevalue("bigquery_server"))
    for table in TABLES:
        made.run(f"CREATE TABLE `{table}` ({made.columns})")
        made.run(inserting(table, *range(ROWS)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory,
    source: Source,
    postgres: Server,
    redis_server: Server,
) -> Iterator[Seen]:
    covered = {"privacy": {"columns": RULES | source.rules}, "chunk_rows": 8}
    nobody = "mongodb://127.0.0.1:1/"  # no MongoDB takes part
    with fresh_database(postgres) as url:
        folder = tmp_path_factory.mktemp("privacy")
        fleet = Fleet(folder, nobody, source.name, url, redis_server.url)
        by_time = {"change_detection": {"strategy": "timestamp", "overlap": "1s"}}
        fleet.settings |= {
            "source": source.block,
            "privacy": {"key": "${PRIVACY_KEY}"},
            "schemas": [
                {
                    "name": source.name,
                    "polling_interval": "2s",
                    "tables": {
                        PEOPLE: covered,
                        STAMPED: covered | by_time,
                        OPEN: {"chunk_rows": 8},
                    },
                    **source.schema,
                }
            ],
            "monitoring": {
                "logging": {"format": "json", "level": "debug"},
                "prometheus": {"enabled": True, "port": 0},
            },
        }
        found = Seen(fleet)
        try:
            live_through(found, source, url, redis_server)
            yield found
        finally:
            fleet.close()


def live_through(seen: Seen, source: Source, url: str, server: Server) -> None:
    """First rows, changes, deletes, rows that are refused, a fault that is found and mended."""
    fleet = seen.fleet
    coordinator, worker = (start(PRIVACY_KEY=KEY) for start in (fleet.coordinator, fleet.worker))
    for table in TABLES:
        eventually(lambda t=table: len(rows_of(fleet, t)) == ROWS, f"first rows of {table}", LIMIT)  # type: ignore[misc]
        refuse_large(url, source.name, table)
    for table in TABLES:
        source.run(inserting(table, 100, 5000))  # of which the second is refused
        source.run(
            f"UPDATE `{table}` SET name = CONCAT(name, ' again'), updated_at = NOW WHERE n = 3"
        )
        source.run(f"DELETE FROM `{table}` WHERE n = 5")
    refused = "select count(distinct source_table) from cartridge_warp_metadata.quarantine"
    eventually(lambda: asked(fleet, refused) == [(3,)], "the refused rows to be set aside", LIMIT)
    for table in TABLES:
        # A column of times shows no delete.
        expected = {*range(ROWS), 100} - ({5} if table != STAMPED else set())
        eventually(
            lambda t=table, e=expected: {row["n"] for row in rows_of(fleet, t)} == e,  # type: ignore[misc]
            f"the changes of {table}",
            LIMIT,
        )
    seen.places["redis"] = "\n".join(sorted(everything_in(server)))
    for table in (PEOPLE, OPEN):
        name = sql.Identifier(source.name, table)
        with psycopg.connect(fleet.pg_url) as connection:
            connection.execute(sql.SQL("update {} set name = 'a fault' where n = 7").format(name))
            connection.execute(sql.SQL("delete from {} where n = 8").format(name))
    seen.ask("verify", PEOPLE, OPEN, "--json", code=3)
    seen.ask("repair", "--json", code=3)
    seen.ask("repair", "--apply", "--json", code=0)
    seen.ask("verify", PEOPLE, "--json", code=0)
    ids = asked(fleet, "select id from cartridge_warp_metadata.quarantine order by id")
    for (id_,) in ids[:6]:
        seen.ask("quarantine", "show", str(id_), "--json", code=0)
    seen.ask("status", "--json", code=0)
    seen.ask("errors", "--json", code=0)
    seen.places["metrics"] = page_of(worker).text + page_of(coordinator).text
    seen.places["redis"] += "\n".join(sorted(everything_in(server)))
    seen.places |= dumped(url)
    worker.stop()
    coordinator.stop()
    seen.places["logs"] = "".join(said.said() for said in fleet.commands)


def test_no_place_holds_a_value_under_a_rule(seen: Seen) -> None:
    assert seen.holding(PEOPLE) == set()


def test_values_without_a_rule_are_found_in_all_places_there_are_for_them(seen: Seen) -> None:
    """The twin: what the test above looks for can be found."""
    found = seen.holding(OPEN)
    assert any(place.startswith("quarantine show") for place in found)
    assert found >= {"table open", "table quarantine", "table deletion_audit"}
    assert found >= {"table differences", "repair --json"}


@pytest.mark.parametrize("table", [PEOPLE, STAMPED])
def test_the_rows_are_there_with_what_the_rules_say(seen: Seen, source: Source, table: str) -> None:
    rows = {row["n"]: row for row in rows_of(seen.fleet, table)}
    mark = f"{PLANTED[PEOPLE]}100"
    row = rows[100]
    assert row["mail"] == hashed(f"{mark}@mail.example")
    assert row["phone"] == "************ **** ***5678"
    assert row["name"] != f"Hedwig {mark}"
    assert [len(part) for part in row["name"].split()] == [6, len(mark)]
    assert "ssn" not in row
    if "doc" in source.rules:
        assert row["doc"] == hashed(f'{{"home": {{"street": "{mark}weg 12", "city": "Kiel"}}}}')
    else:
        assert row["doc"] == {"home": {"street": "*************eg 12", "city": "Kiel"}}
    assert [len(part) for part in rows[3]["name"].split()] == [6, len(mark) - 2, 5]


def test_comparing_and_mending_work_on_covered_values(seen: Seen) -> None:
    told = seen.answers[f"verify {PEOPLE} {OPEN} --json"]["tables"]
    found = {one["table"].partition(".")[2]: one["differences"] for one in told}
    assert found == {PEOPLE: 2, OPEN: 2}
    assert seen.answers[f"verify {PEOPLE} --json"]["equal"] is True
    assert {row["n"]: row for row in rows_of(seen.fleet, PEOPLE)}[7]["name"] != "a fault"
