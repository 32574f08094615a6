"""The demo's comparison finds whatever differs: otherwise its zero would say nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from bson import ObjectId
from pymongo.database import Database

from commands.demo_compare import Comparison, compare, same

DOCUMENTS: list[dict[str, Any]] = [
    {
        "_id": ObjectId(f"{number:024x}"),
        "carrier": "UA",
        "delay": number / 4,
        "left": datetime(2013, 1, 1, 5, number, tzinfo=UTC),
        "distance": 1400 + number,
        "place": {"type": "Point", "coordinates": [-73.5, 40.0]},
        "gate": f"B{number}",
    }
    for number in range(20)
] + [{"_id": ObjectId(f"{99:024x}"), "carrier": None}]

Source = Database[dict[str, Any]]
Destination = psycopg.Connection[Any]


@pytest.fixture
def copied(mongo_database: Source, pg_database: str) -> Iterator[tuple[Source, Destination]]:
    """Both sides equal; `gate` is a field whose column does not exist yet."""
    mongo_database.t.insert_many(DOCUMENTS)
    with psycopg.connect(pg_database, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute(
            'create schema s; create table s.t ("_id" text primary key, carrier text, '
            'delay float8, "left" timestamptz, distance bigint, place jsonb, _extra jsonb, '
            "_cw_version bigint, _cw_deleted bool)"
        )
        for document in DOCUMENTS:
            connection.execute(
                "insert into s.t values (%s, %s, %s, %s, %s, %s, %s, 1, false)",
                (
                    str(document["_id"]),
                    document["carrier"],
                    document.get("delay"),
                    document.get("left"),
                    document.get("distance"),
                    json.dumps(document["place"]) if "place" in document else None,
                    json.dumps({"gate": document["gate"]}) if "gate" in document else None,
                ),
            )
        yield mongo_database, connection


def found(copied: tuple[Source, Destination]) -> Comparison:
    return compare(*copied, "s", "t")


def test_equal_sides_have_no_differences(copied: tuple[Source, Destination]) -> None:
    result = found(copied)
    assert same([result])
    assert (result.source_rows, result.destination_rows) == (21, 21)
    assert result.fields == 20 * 7 + 2


@pytest.mark.parametrize(
    "fault",
    [
        "delete from s.t where distance = 1400",
        "delete from s.t where distance = 1419",
        "insert into s.t values (repeat('a', 24))",
        "insert into s.t values (repeat('0', 22) || '0a0')",
        "update s.t set carrier = 'AA' where distance = 1403",
        "update s.t set carrier = null where distance = 1403",
        "update s.t set carrier = 'AA' where carrier is null",
        "update s.t set delay = delay + 1e-9 where distance = 1405",
        """update s.t set "left" = "left" + interval '1 ms' where distance = 1405""",
        "update s.t set place = jsonb_set(place, '{coordinates,1}', '41') where distance = 1401",
        'update s.t set _extra = \'{"gate": "C1"}\' where distance = 1401',
        "update s.t set _extra = null where distance = 1401",
        'update s.t set _extra = \'{"gate": "B1", "x": 1}\' where distance = 1401',
    ],
)
def test_one_fault_in_one_field_is_one_difference(
    copied: tuple[Source, Destination], fault: str
) -> None:
    assert copied[1].execute(fault).rowcount == 1
    result = found(copied)
    assert result.different == 1, result
    assert len(result.examples) == 1


def test_a_missing_table_makes_every_row_different(copied: tuple[Source, Destination]) -> None:
    copied[1].execute("drop table s.t")
    assert found(copied).different == 21
