"""ingestr, at the last version whose wheel has the program in it; later ones fetch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.side_by_side.contender import Task
from benchmarks.side_by_side.figures import Scenario
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, PostgresOrigin
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.peers.peer import LANDED, Peer
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import TABLE


class Ingestr(Peer):
    name = "ingestr"
    environment: ClassVar[Environment] = Environment("ingestr", ("ingestr==0.15.9",))

    def left_out(self, scenario: Scenario) -> str:
        if scenario.shape == "snapshot":
            return ""
        if scenario.source == "PostgreSQL":
            return (
                "its `postgres+cdc` was tried by hand and did not catch up: 800 rows in 89 s, then "
                "no more, in transactions of 100 changes; the cause was not found"
            )
        return f"has no log-based reading of {scenario.source}"

    def landing(self, scenario: Scenario) -> Landing:
        key = {"id": '"_id"'} if scenario.source == "MongoDB" else {}
        return Landing(LANDED, TABLE, key)

    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        more: list[str] = []
        match task.origin:
            case MongoOrigin(mongod):
                source, table = mongod.direct_url, f"{task.database}.{TABLE}"
            case MariaDbOrigin(mariadb):
                source, table = mariadb.database_url(task.database), f"{task.database}.{TABLE}"
                more = ["--columns", "extra:json"]  # MariaDB's JSON is text, which it cannot size
            case PostgresOrigin(postgres):
                source = f"{postgres.database_url(task.database)}?sslmode=disable"
                table = f"public.{TABLE}"
            case _:
                raise AssertionError(task.origin.name)
        program = str(self.environment.folder / "bin/ingestr")
        command = [program, "ingest", "--source-uri", source, "--source-table", table]
        command += ["--dest-uri", f"{task.destination}?sslmode=disable"]
        command += ["--dest-table", f"{LANDED}.{TABLE}", "--yes", "--progress", "log"]
        return [*command, "--incremental-strategy", "replace", *more], {}
