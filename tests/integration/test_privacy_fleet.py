"""Values under a rule turn up nowhere but at their source, whatever a fleet does with their rows.

One fleet carries two collections of the same documents.  `people` has rules; `open` has none, so
its values are found wherever there is a place for them, and the search is known to find.  The
fleet works with the least rights that the pages of docs/ give it, in Redis and in the warehouse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import psycopg
import pymongo
import pytest
from eventful import page_of
from fix_servers import Server, fresh_database
from least_rights import PASSWORD, blocks, make_postgresql_writer
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
from psycopg.conninfo import make_conninfo
from pymongo.database import Database

from warp.testing.servers import RedisServer

ROWS = 24
RULES = {
    "_id": "hash",
    "email": "hash",
    "phone": "mask",
    "ssn": "drop",
    "name": "tokenise",
    "address.street": "mask",
    "visits.doctor": "tokenise",
}


def person(table: str, n: int) -> dict[str, Any]:
    mark = f"{PLANTED[table]}{n}"
    return {
        "_id": f"{mark}@id.example",
        "n": n,
        "email": f"{mark}@mail.example",
        "phone": f"{mark} 0151 2345678",
        "ssn": f"{mark}-ssn",
        "name": f"Hedwig {mark}",
        "address": {"street": f"{mark}weg 12", "city": "Kiel"},
        "visits": [{"doctor": f"Dr. {mark}", "year": 2024}, {"doctor": None}],
    }


@pytest.fixture(scope="module")
def restricted_redis() -> Iterator[RedisServer]:
    """Redis with the user of docs/operations/redis.md, for the namespace of the test."""
    [rights], [errands] = (
        blocks("operations/redis.md", "acl"),
        blocks("operations/redis.md", "acl-errands"),
    )
    user = f"{rights} {errands}".replace("CHANGE-ME", PASSWORD).replace("{prod", "{privacy")
    with RedisServer(users=[user]) as server:
        yield server


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory,
    mongo: Server,
    postgres: Server,
    restricted_redis: RedisServer,
) -> Iterator[Seen]:

    name = "privacy_of_people"
    client = pymongo.MongoClient[dict[str, Any]](mongo.url)
    with client, fresh_database(postgres) as admin_url:
        client.drop_database(name)
        source: Database[dict[str, Any]] = client[name]
        with psycopg.connect(admin_url, autocommit=True) as admin:
            make_postgresql_writer(admin, f"{name}_writer", [name])
        login = f"cartridge-warp:{quote(PASSWORD)}"
        fleet = Fleet(
            tmp_path_factory.mktemp("privacy"),
            mongo.url,
            name,
            make_conninfo(admin_url, user=f"{name}_writer", password=PASSWORD),
            f"redis://{login}@127.0.0.1:{restricted_redis.port}/0",
        )
        fleet.namespace = fleet.settings["coordination"]["namespace"] = "privacy"
        fleet.settings |= {
            "privacy": {"key": "${PRIVACY_KEY}"},
            "tables": {
                PEOPLE: {"shape": "both", "chunk_rows": 8, "privacy": {"columns": RULES}},
                OPEN: {"shape": "both", "chunk_rows": 8},
            },
        }
        fleet.settings["monitoring"]["prometheus"] = {"enabled": True, "port": 0}
        for table in (PEOPLE, OPEN):
            source[table].insert_many([person(table, n) for n in range(ROWS)])
        found = Seen(fleet)
        try:
            live_through(found, admin_url, restricted_redis)
            yield found
        finally:
            fleet.close()
            client.drop_database(name)
            with psycopg.connect(admin_url, autocommit=True) as admin:
                role = sql.Identifier(f"{name}_writer")
                admin.execute(sql.SQL("drop owned by {} cascade").format(role))
                admin.execute(sql.SQL("drop role {}").format(role))


def live_through(seen: Seen, admin_url: str, server: RedisServer) -> None:
    """Snapshot, stream, deletes, rows that are refused, a fault that is found and mended."""
    fleet = seen.fleet
    coordinator = fleet.coordinator(PRIVACY_KEY=KEY)

    def planned(table: str) -> bool:
        return any(f".{table}:" in text for text in everything_in(server) if "chunk:" in text)

    # Units of chunks go when they are done.
    eventually(lambda: planned(PEOPLE) and planned(OPEN), "the chunks of both tables")
    seen.places["redis"] = "\n".join(sorted(everything_in(server)))
    worker = fleet.worker(PRIVACY_KEY=KEY)
    settled = (
        "select count(*) from cartridge_warp_metadata.sync_markers"
        " where kind = 'table' and phase = 'streaming'"
    )
    eventually(lambda: asked(fleet, settled) == [(2,)], "both tables to be complete")
    for table in (PEOPLE, OPEN):
        refuse_large(admin_url, fleet.database_name, table)
        rows = fleet.source[table]
        rows.insert_one(person(table, 100))
        rows.insert_one(person(table, 5000))  # refused, and the server's words repeat the row
        rows.update_one({"n": 3}, {"$set": {"later": "x", "email": person(table, 3)["email"]}})
        rows.delete_one({"n": 5})
    count = "select count(*) from cartridge_warp_metadata.quarantine"
    eventually(lambda: asked(fleet, count) == [(2,)], "the refused rows to be set aside")
    for table in (PEOPLE, OPEN):
        eventually(lambda t=table: len(rows_of(fleet, t)) == ROWS, f"rows of {table}")  # type: ignore[misc]
    # A fault in a value of each table, and a row that is gone.
    for table in (PEOPLE, OPEN):
        name = sql.Identifier(fleet.database_name, table)
        with psycopg.connect(fleet.pg_url) as connection:
            connection.execute(sql.SQL("update {} set name = 'a fault' where n = 7").format(name))
            connection.execute(sql.SQL("delete from {} where n = 8").format(name))
    for what, code in (
        (("verify", PEOPLE, OPEN, "--json"), 3),
        (("repair", "--json"), 3),
        (("repair", "--apply", "--json"), 0),
        (("verify", PEOPLE, "--json"), 0),
        (("quarantine", "show", "1", "--json"), 0),
        (("quarantine", "show", "2", "--json"), 0),
    ):
        seen.ask(*what, code=code)
    seen.places["metrics"] = page_of(worker).text + page_of(coordinator).text
    seen.places["redis"] += "\n".join(sorted(everything_in(server)))
    seen.places |= dumped(admin_url)
    worker.stop()
    coordinator.stop()
    seen.places["logs"] = "".join(said.said() for said in fleet.commands)


def test_no_place_holds_a_value_under_a_rule(seen: Seen) -> None:
    assert seen.holding(PEOPLE) == set()


def test_values_without_a_rule_are_found_in_all_places_there_are_for_them(seen: Seen) -> None:
    """The twin: what the test above looks for can be found."""
    found = seen.holding(OPEN)
    assert found & {"quarantine show 1 --json", "quarantine show 2 --json"}
    assert found >= {
        "table open",
        "table quarantine",
        "table deletion_audit",
        "table sync_markers",
        "table differences",
        "redis",
        "repair --json",
    }


def test_the_rows_are_there_with_what_the_rules_say(seen: Seen) -> None:
    rows = {row["n"]: row for row in rows_of(seen.fleet, PEOPLE)}
    original = person(PEOPLE, 100)

    assert rows.keys() == {*range(ROWS), 100} - {5}
    row = rows[100]
    assert row["_id"] == hashed(original["_id"])
    assert row["email"] == hashed(original["email"])
    assert row["phone"] == "************ **** ***5678"
    assert row["name"] != original["name"]
    assert [len(part) for part in row["name"].split()] == [
        len(part) for part in original["name"].split()
    ]
    assert row["address"] == {"street": "*************eg 12", "city": "Kiel"}
    assert "ssn" not in row
    assert row["doc"]["email"] == row["email"]
    assert "ssn" not in row["doc"]
    assert row["doc"]["visits"][0]["year"] == 2024
    assert row["doc"]["visits"][1] == {"doctor": None}


def test_comparing_and_mending_work_on_covered_values(seen: Seen) -> None:
    found = {
        t["table"].partition(".")[2]: t for t in tables(seen, f"verify {PEOPLE} {OPEN} --json")
    }
    assert {name: t["differences"] for name, t in found.items()} == {PEOPLE: 2, OPEN: 2}
    assert seen.answers[f"verify {PEOPLE} --json"]["equal"] is True
    rows = {row["n"]: row for row in rows_of(seen.fleet, PEOPLE)}
    assert rows[7]["name"] != "a fault"


def tables(seen: Seen, answer: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = seen.answers[answer]["tables"]
    return found
