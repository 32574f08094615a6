"""A Redis inside the test, with a clock the test moves: fakeredis, running the real scripts."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import fakeredis

NOVEMBER_2026 = 1_795_000_000.0  # any plausible now; a fence must fit beside the real ones


class FakeTime:
    """Stands in for the `time` module inside fakeredis, so that TIME says what the test wants."""

    def __init__(self) -> None:
        self.now = NOVEMBER_2026

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return round(self.now * 1_000_000) * 1000

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextlib.contextmanager
def fake_time() -> Iterator[FakeTime]:
    """Every fakeredis in this process follows the clock it yields."""
    clock = FakeTime()
    loaded = [m for name, m in sys.modules.items() if name.split(".")[0] == "fakeredis"]
    with contextlib.ExitStack() as patches:
        for module in loaded:
            if getattr(module, "time", None) is time:
                patches.enter_context(mock.patch.object(module, "time", clock))
        yield clock


class FakeServer:
    """One fake Redis: `client()` is a connection to it, `wipe()` is FLUSHALL."""

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()

    def client(self) -> Any:
        return fakeredis.FakeRedis(server=self._server)

    def wipe(self) -> None:
        self.client().flushall()
