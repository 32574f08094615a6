"""Ours: the coordinator and the worker that an operator starts, with the settings of a recipe."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
import yaml
from fleet import Coordinator, Program, Worker
from psycopg import sql

from benchmarks.side_by_side import accounts
from benchmarks.side_by_side.contender import Contender, Follower, Task, until
from benchmarks.side_by_side.figures import Measured, Scenario
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import TABLE

SCHEMA: Final = "landed"
ROOT: Final = Path(__file__).parents[2]
# A worker is stopped while the events are made; its leases shall outlive that, so that what is
# measured is catching up and not taking over, which `takeover` measures.
LONG_LEASE: Final = "600s"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings, as an operator would write them."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1
    slots: int = 8

    @property
    def about(self) -> str:
        said = [f"{name} {value}" for name, value in self.schema.items()]
        if self.processes > 1:
            said.append(f"{self.processes} processes")
        return ", ".join(said) or "all settings at their defaults"


@dataclass(frozen=True, slots=True)
class Ours(Contender):
    recipes: Mapping[str, Recipe]  # by shape
    name: str
    redis_url: str

    def about(self, scenario: Scenario) -> str:
        return self.recipes[scenario.shape].about

    def left_out(self, scenario: Scenario) -> str:
        return "" if scenario.shape in self.recipes else "no settings of its own for this"

    def landing(self, scenario: Scenario) -> Landing:
        key = {"id": '"_id"'} if scenario.source == "MongoDB" else {}
        return Landing(SCHEMA, TABLE, key, "not _cw_deleted")

    def snapshot(self, task: Task) -> Measured:
        with self._running(task) as fleet, task.watching(fleet.pid):
            until("the snapshot to be complete", fleet.settled, fleet.alive)
            return fleet.measured()

    @contextlib.contextmanager
    def following(self, task: Task) -> Iterator[Follower]:
        with self._running(task, LONG_LEASE) as fleet:
            until("the snapshot to be complete", fleet.settled, fleet.alive)
            yield fleet

    @contextlib.contextmanager
    def _running(self, task: Task, lease_ttl: str | None = None) -> Iterator[Fleet]:
        recipe = self.recipes[task.scenario.shape]
        with tempfile.TemporaryDirectory(prefix="cartridge-warp-bench-") as directory:
            path = Path(directory) / "config.yaml"
            path.write_text(yaml.safe_dump(self._configuration(task, recipe, lease_ttl)))
            arguments = ("--processes", str(recipe.processes), "--slots", str(recipe.slots))
            # Another PYTHONPATH than ours asks `programs` for an interpreter of its own.
            fresh = {"PYTHONPATH": f"{ROOT}{os.pathsep}"}
            with contextlib.ExitStack() as stack:
                worker = Worker("worker", path, arguments, fresh)
                coordinator = Coordinator("coordinator", path, (), fresh)
                for program in (worker, coordinator):
                    stack.callback(program.close)
                worker.start()
                _started(worker, "worker_started")
                coordinator.start()
                _started(coordinator, "coordinator_started")
                yield Fleet(task, worker, coordinator)

    def _configuration(self, task: Task, recipe: Recipe, lease_ttl: str | None) -> dict[str, Any]:
        lease = {"lease_ttl": lease_ttl} if lease_ttl else {}
        return {
            "source": task.origin.block(task.database),
            "destination": {
                "type": "postgresql",
                "connection_string": task.destination,
                "schema": SCHEMA,
            },
            "schemas": [{"name": task.origin.schema(task.database), **recipe.schema}],
            "coordination": {"redis_url": self.redis_url, "namespace": task.label, **lease},
        }


def _started(program: Program, event: str) -> None:
    until(
        f"the {program.label} to be up",
        lambda: bool(program.said(event)),
        lambda: "" if program.running else program.log_tail(5),
    )


class Fleet(Follower):
    """What is ready now; its accounts begin here."""

    def __init__(self, task: Task, worker: Worker, coordinator: Coordinator) -> None:
        self._task = task
        self._worker = worker
        self._coordinator = coordinator
        self._startup = self._cpu()
        self.begin()

    @property
    def pid(self) -> int:
        return self._worker.pid

    def begin(self) -> None:
        self._meter = accounts.Meter(self._task.servers)
        self._before, self._begun = self._cpu(), time.monotonic()

    def measured(self) -> Measured:
        return Measured(
            time.monotonic() - self._begun,
            self._cpu() - self._before,
            accounts.peak_memory(self._worker.pid),
            self._startup,
            self._meter.spent(),
        )

    def pause(self) -> None:
        self._worker.pause()

    def resume(self) -> None:
        self._worker.resume()

    def alive(self) -> str:
        for program in (self._worker, self._coordinator):
            if not program.running:
                return program.log_tail(5)
        return ""

    def copied(self) -> bool:
        """Are all rows there?  The chunks are planned in one transaction."""
        return self._marked("bool_and(phase = 'done') filter (where kind = 'chunk')") or (
            self.settled()
        )

    def settled(self) -> bool:
        """Has the coordinator noticed too, and closed the snapshot?"""
        return self._marked("bool_or(kind = 'table' and phase = 'streaming')")

    def _marked(self, condition: LiteralString) -> bool:
        with (
            psycopg.connect(self._task.destination, autocommit=True) as connection,
            contextlib.suppress(psycopg.errors.UndefinedTable),
        ):
            query = sql.SQL("select {} from cartridge_warp_metadata.sync_markers")
            row = connection.execute(query.format(sql.SQL(condition))).fetchone()
            return bool(row and row[0])
        return False

    def _cpu(self) -> float:
        return accounts.cpu(self._worker.pid) + accounts.cpu(self._coordinator.pid)
