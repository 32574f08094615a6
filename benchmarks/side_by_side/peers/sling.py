"""Sling, at the last version that has the program in its wheel; later ones fetch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.side_by_side.contender import Task
from benchmarks.side_by_side.figures import Scenario
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, PostgresOrigin
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.peers.peer import LANDED, Peer
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import COLUMNS, TABLE


class Sling(Peer):
    name = "Sling"
    environment: ClassVar[Environment] = Environment("sling", ("sling-linux-amd64==1.4.11",))

    def about(self, scenario: Scenario) -> str:
        what = "one jsonb column, no key" if scenario.source == "MongoDB" else "no primary key"
        return f"{self.environment.version}; {what}"

    def left_out(self, scenario: Scenario) -> str:
        return "" if scenario.shape == "snapshot" else "reads no log in this version"

    def landing(self, scenario: Scenario) -> Landing:
        if scenario.source != "MongoDB":
            return Landing(LANDED, TABLE)
        dug = {name: f"(data->>'{name}')" for name in COLUMNS}
        return Landing(LANDED, TABLE, {**dug, "id": "(data->>'_id')"})

    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        match task.origin:
            case MongoOrigin(mongod):
                source, stream = mongod.direct_url, f"{task.database}.{TABLE}"
                source = source.replace("/?", f"/{task.database}?")
            case MariaDbOrigin(mariadb):
                source, stream = mariadb.database_url(task.database), f"{task.database}.{TABLE}"
            case PostgresOrigin(postgres):
                source = f"{postgres.database_url(task.database)}?sslmode=disable"
                stream = f"public.{TABLE}"
            case _:
                raise AssertionError(task.origin.name)
        source = source.replace("postgresql://", "postgres://")
        there = f"{task.destination}?sslmode=disable".replace("postgresql://", "postgres://")
        program = str(self.environment.packages / "sling_linux_amd64/bin/sling-linux-amd64")
        command = [program, "run", "--src-conn", "SOURCE", "--src-stream", stream]
        command += ["--tgt-conn", "THERE", "--tgt-object", f"{LANDED}.{TABLE}"]
        return [*command, "--mode", "full-refresh"], {"SOURCE": source, "THERE": there}
