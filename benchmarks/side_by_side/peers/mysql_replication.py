"""mysql-replication, the usual reader of binary logs in Python, with a staging upsert behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.side_by_side.contender import Task
from benchmarks.side_by_side.figures import Scenario
from benchmarks.side_by_side.origins import MariaDbOrigin
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.peers.peer import PROGRAMS, Peer
from benchmarks.side_by_side.shop import TABLE


class MysqlReplication(Peer):
    name = "mysql-replication"
    environment: ClassVar[Environment] = Environment(
        "mysql-replication",
        ("mysql-replication==1.0.17", "orjson>=3.10,<4", "psycopg[binary]>=3.2,<4"),
    )

    def about(self, scenario: Scenario) -> str:
        return f"{self.environment.version}, and a staging upsert of ours"

    def left_out(self, scenario: Scenario) -> str:
        if scenario.source != "MariaDB":
            return "reads logs of MySQL and MariaDB only"
        return "reads logs only" if scenario.shape == "snapshot" else ""

    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        if not isinstance(task.origin, MariaDbOrigin):
            raise AssertionError(task.origin.name)
        port = str(task.origin.mariadb.port)
        program = str(PROGRAMS / "mysql_replication_apply.py")
        arguments = [port, task.database, TABLE, task.destination]
        return [str(self.environment.python), program, *arguments], {}
