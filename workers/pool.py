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

log = structlog.get_logger(__name__)

LOOK = 0.05  # seconds between looks at the children


@dataclass(slots=True)
class Child:
    """One place in the pool, whoever fills it."""

    number: int
    streak: Streak
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0


class Pool:
    """Keeps `count` processes of one command running until told to stop.

    `environment` is what they get beside ours.  They are in sessions of their own: Ctrl-C is for
    us alone, and we end them in order.  Use it from one thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        count: int,
        *,
        end_limit: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = list(command)
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

    def pids(self) -> list[int]:
        return [c.process.pid for c in self._children if c.process is not None]

    def stop(self) -> None:
        """Make `run` end the children and return.  For signal use."""
        self._stopping = True

    def run(self) -> None:
        """Keep the pool full until `stop`, then end every child."""
        try:
            while not self._stopping:
                for child in self._children:
                    self._tend(child)
                time.sleep(LOOK)
        finally:
            self._end_all()

    def _tend(self, child: Child) -> None:
        if child.process is not None and child.process.poll() is not None:
            code = child.process.returncode
            child.process = None
            wait = child.streak.failed() or 0.0
            child.start_at = self._clock() + wait
            log.error("worker_crashed", number=child.number, exit=code, restart_in=round(wait, 2))
        if child.process is None and self._clock() >= child.start_at:
            child.process = subprocess.Popen(
                self._command, env={**os.environ, **self._environment}, start_new_session=True
            )
            log.info("worker_process_started", number=child.number, pid=child.process.pid)

    def _end_all(self) -> None:
        living = [c.process for c in self._children if c.process is not None]
        for process in living:
            process.terminate()
        deadline = self._clock() + self._end_limit
        for process in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - self._clock()))
        for process in living:
            if process.poll() is None:
                log.error("worker_killed", pid=process.pid, after=self._end_limit)
                process.kill()
                process.wait()
