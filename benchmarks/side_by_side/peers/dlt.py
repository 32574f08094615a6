"""dlt, by its own SQL source; of MongoDB by a resource as its source for it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.side_by_side.contender import Task
from benchmarks.side_by_side.figures import Scenario
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, PostgresOrigin
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.peers.peer import LANDED, PROGRAMS, Peer
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import TABLE


class Dlt(Peer):
    name = "dlt"
    environment: ClassVar[Environment] = Environment(
        "dlt",
        (
            *("dlt[postgres]==1.31.0", "sqlalchemy>=2,<3", "psycopg2-binary>=2.9,<3"),
            *("pyarrow>=20", "pymongo>=4.10,<5", "pymysql>=1.1,<2"),
        ),
    )

    def about(self, scenario: Scenario) -> str:
        how = "documents" if scenario.source == "MongoDB" else "pyarrow"
        return f"{self.environment.version}, {how}"

    def left_out(self, scenario: Scenario) -> str:
        if scenario.shape == "snapshot":
            return ""
        return "its source that follows PostgreSQL's log is in no package; it has no other"

    def landing(self, scenario: Scenario) -> Landing:
        key = {"id": '"_id"'} if scenario.source == "MongoDB" else {}
        return Landing(LANDED, TABLE, key)

    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        match task.origin:
            case MongoOrigin(mongod):
                kind, source = "mongodb", mongod.direct_url
            case MariaDbOrigin(mariadb):
                url = mariadb.database_url(task.database)
                kind, source = "sql", url.replace("mysql://", "mysql+pymysql://")
            case PostgresOrigin(postgres):
                url = postgres.database_url(task.database)
                kind, source = "sql", url.replace("postgresql://", "postgresql+psycopg2://")
            case _:
                raise AssertionError(task.origin.name)
        # It insists on a password; the server asks for none.
        there = task.destination.replace("postgres@", "postgres:none@")
        arguments = [kind, source, task.database, TABLE, there, LANDED]
        return [str(self.environment.python), str(PROGRAMS / "dlt_snapshot.py"), *arguments], {}
