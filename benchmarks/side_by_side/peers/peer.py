"""A peer as a process of its own: started, watched, counted."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg

from benchmarks.side_by_side import accounts
from benchmarks.side_by_side.contender import Contender, Follower, NoFigure, Task, until
from benchmarks.side_by_side.figures import Measured, Scenario
from benchmarks.side_by_side.peers.environment import Environment
from benchmarks.side_by_side.sameness import Landing
from benchmarks.side_by_side.shop import TABLE
from warp.own_process import LOG, OwnProcess

LANDED: Final = "landed"
PROGRAMS: Final = Path(__file__).parent / "programs"
SILENT: Final = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "true",
    "INGESTR_DISABLE_TELEMETRY": "true",
    "SLING_DISABLE_TELEMETRY": "true",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "SLING_LOGGING": "NO_COLOR",
}


class PeerProcess(OwnProcess):
    name: ClassVar[str] = "peer"

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__()
        self._argv = list(command)
        self._environment = environment

    def _command(self) -> Sequence[str]:
        return self._argv

    def _popen_options(self) -> Mapping[str, Any]:
        # What it keeps at home goes with its directory; dlt as root would keep it in /var.
        home = str(self.directory)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        homes = dict.fromkeys(("HOME", "TMPDIR", "DLT_DATA_DIR"), home)
        return {"env": {**kept, **homes, **SILENT, **self._environment}}

    def ended(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def ready(self) -> dict[str, float] | None:
        """What a program of ours says when it is about to begin: the time, and CPU spent."""
        for line in (self.directory / LOG).read_text(errors="replace").splitlines():
            if line.startswith('{"ready"'):
                found: dict[str, float] = json.loads(line)["ready"]
                return found
        return None

    def words(self) -> str:
        said = [line.strip() for line in self.log_tail(200).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower() or "fatal" in line.lower()]
        return " ".join(list(dict.fromkeys(errors or said))[-3:])[-400:]


class Peer(Contender):
    environment: ClassVar[Environment]

    def about(self, scenario: Scenario) -> str:
        return self.environment.version

    def landing(self, scenario: Scenario) -> Landing:
        return Landing(LANDED, TABLE)

    @abstractmethod
    def command(self, task: Task) -> tuple[Sequence[str], Mapping[str, str]]:
        """The command and its environment."""

    def snapshot(self, task: Task) -> Measured:
        self.prepare(task)
        process = PeerProcess(*self.command(task))
        meter = accounts.Meter(task.servers)
        before, begun = _children(), time.time()
        with process:
            peak = _wait(process, task.limit)
            ended = time.time()
            code, cpu = process.ended(), _children() - before
            ready = process.ready()
            if code:
                raise NoFigure(process.words())
        if ready is None:
            return Measured(ended - begun, cpu, peak, None, meter.spent())
        spent = cpu - ready["cpu"]
        return Measured(ended - ready["at"], spent, peak, ready["cpu"], meter.spent())

    @contextlib.contextmanager
    def following(self, task: Task) -> Iterator[Follower]:
        self.prepare(task)
        with PeerProcess(*self.command(task)) as process:
            running = PeerFollower(task, process)
            landed = self.landing(task.scenario)
            until("the snapshot", lambda: _count(task, landed) >= task.rows, running.alive)
            yield running

    def prepare(self, task: Task) -> None:
        with psycopg.connect(task.destination, autocommit=True) as connection:
            connection.execute(f"create schema {LANDED}".encode())


class PeerFollower(Follower):
    def __init__(self, task: Task, process: PeerProcess) -> None:
        self._task = task
        self._process = process
        self.begin()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self) -> None:
        self._meter = accounts.Meter(self._task.servers)
        self._before, self._begun = accounts.cpu(self.pid), time.monotonic()

    def measured(self) -> Measured:
        return Measured(
            time.monotonic() - self._begun,
            accounts.cpu(self.pid) - self._before,
            accounts.peak_memory(self.pid),
            (self._process.ready() or {}).get("cpu"),
            self._meter.spent(),
        )

    def pause(self) -> None:
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def alive(self) -> str:
        if self._process.ended() is None:
            return ""
        return self._process.words() or "it said nothing"


def _children() -> float:
    """CPU seconds of all children that ended and were waited for, and of theirs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _wait(process: PeerProcess, limit: float) -> int:
    """Until it ends; the most memory seen."""
    deadline, peak, pause = time.monotonic() + limit, 0, threading.Event()
    while process.ended() is None:
        peak = max(peak, accounts.peak_memory(process.pid))
        if time.monotonic() > deadline:
            raise NoFigure(f"not done after {limit:.0f} s: {process.words()}")
        pause.wait(0.05)
    return peak


def _count(task: Task, landing: Landing) -> int:
    query = f'select count(*) from "{landing.schema}"."{landing.table}"'
    with (
        psycopg.connect(task.destination, autocommit=True) as connection,
        contextlib.suppress(psycopg.errors.UndefinedTable),
    ):
        row = connection.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0
    return 0
