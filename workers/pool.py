"""The processes of one `warp-worker`: started, restarted after a crash, ended together."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from warp.retry import Backoff, Streak
from workers.nursery import PARENT, Born, Nursery

log = structlog.get_logger(__name__)

LOOK = 0.05  # seconds between looks at the children


@dataclass(slots=True)
class Child:
    """One place in the pool, whoever fills it."""

    number: int
    streak: Streak
    process: Born | None = None
    start_at: float = 0.0


class Pool:
    """Keeps `count` processes of one module running until told to stop.

    `environment` is what they get beside ours.  They are in sessions of their own: Ctrl-C is for
    us alone, and we end them in order.  Use it from one thread.
    """

    def __init__(
        self,
        nursery: Nursery,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        *,
        name: str = "worker",
        end_limit: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nursery = nursery
        self._module = module
        self._arguments = ["--child-of", PARENT, *arguments]
        self._name = name
        self._environment = dict(environment)
        self._end_limit = end_limit
        self._clock = clock
        backoff = Backoff(max_retries=None, factor=2.0, base=0.2, cap=30.0)
        self._children = [Child(n, Streak(backoff, clock=clock)) for n in range(count)]
        self._stopping = False  # a plain flag: a signal may interrupt any lock's holder

    @property
    def running(self) -> int:
        """How many processes live now.  From any thread."""
        return sum(
            1 for c in self._children if c.process is not None and c.process.returncode is None
        )

    def stop(self) -> None:
        """Make `run` end the children and return.  For signal use."""
        self._stopping = True

    def run(self) -> None:
        """Keep the pool full until `stop`, then end every child."""
        try:
            while not self._stopping:
                self.tend()
                time.sleep(LOOK)
        finally:
            self.end()

    def tend(self) -> None:
        """Start what is missing; to be called often."""
        for child in self._children:
            self._tend(child)

    def end(self) -> None:
        """Ask every child to end, wait for it, and kill what does not."""
        end_all([self], self._end_limit, self._clock)

    def _tend(self, child: Child) -> None:
        if child.process is not None and child.process.poll() is not None:
            code = child.process.returncode
            child.process = None
            wait = child.streak.failed() or 0.0
            child.start_at = self._clock() + wait
            log.error(
                "process_crashed",
                name=self._name,
                number=child.number,
                exit=code,
                restart_in=round(wait, 2),
            )
        if child.process is None and self._clock() >= child.start_at:
            environment = {**os.environ, **self._environment}
            child.process = self._nursery.start(self._module, self._arguments, environment)
            log.info("process_started", name=self._name, number=child.number, pid=child.process.pid)

    def living(self) -> list[Born]:
        return [c.process for c in self._children if c.process is not None]


def end_all(
    pools: Sequence[Pool], limit: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """End the children of several pools side by side."""
    processes = [process for pool in pools for process in pool.living()]
    for process in processes:
        process.terminate()
    deadline = clock() + limit
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, deadline - clock()))
    for process in processes:
        if process.poll() is None:
            log.error("process_killed", pid=process.pid, after=limit)
            process.kill()
            process.wait()
