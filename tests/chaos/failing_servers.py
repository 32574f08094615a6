"""Servers whose disk fills up and whose clock goes wrong when a test wants it.

They run with a library of our own between them and the system's (`failing_libc.c`), which the
machine's C compiler makes; without it, neither could be shown without being root.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from warp.errors import StartFailed
from warp.own_process import LocalServer
from warp.testing.servers import MariaDb, Postgres, RedisServer

_SOURCE: Final = Path(__file__).parent / "failing_libc.c"
_NANOSECONDS: Final = 1_000_000_000


def _library(directory: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise StartFailed(
            "expected a C compiler for servers whose disk or clock fails, found none; install gcc"
        )
    made = directory / "failing_libc.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartFailed(f"expected {_SOURCE} to compile, found:\n{done.stderr}")
    made.chmod(0o755)
    return made


class Clock:
    """The clock of the processes that are started with its environment."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._library = _library(directory)
        self.shift(0)

    def shift(self, seconds: float) -> None:
        """From now on it is wrong by so much."""
        # In place: the processes have it mapped.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("q", int(seconds * _NANOSECONDS)))

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CARTRIDGE_WARP_CLOCK": str(self._file)}


class RedisWithOwnClock(RedisServer):
    """All leases are told by its clock."""

    clock: Clock

    def _prepare(self) -> None:
        super()._prepare()
        self.clock = Clock(self.directory)

    def _popen_options(self) -> Mapping[str, Any]:
        options = super()._popen_options()
        return {**options, "env": {**options.get("env", os.environ), **self.clock.environment}}


class SmallDisk(LocalServer):
    """A server of which no table's file grows while its disk is full; its logs are on another."""

    def _prepare(self) -> None:
        self._shim = _library(self.directory)
        super()._prepare()

    @property
    def _full(self) -> Path:
        return self.directory / "full"

    def _popen_options(self) -> Mapping[str, Any]:
        options = super()._popen_options()
        ours = {"LD_PRELOAD": str(self._shim), "CARTRIDGE_WARP_DISK_FULL": str(self._full)}
        return {**options, "env": {**options.get("env", os.environ), **ours}}

    def fill_the_disk(self) -> None:
        self._full.touch()

    def restart(self, *, hard: bool = False) -> None:
        # As whoever starts it must: its last checkpoint and its recovery need room of their own.
        self.make_room()
        super().restart(hard=hard)

    def make_room(self) -> None:
        self._full.unlink(missing_ok=True)


class PostgresWithSmallDisk(SmallDisk, Postgres):
    pass


class MariaDbWithSmallDisk(SmallDisk, MariaDb):
    def __init__(self) -> None:
        # The audit asks it which process a connection belongs to.
        super().__init__(settings={"performance_schema": "ON"})
