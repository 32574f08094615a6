"""What a process and all its children have spent, and the most memory any of them held."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil


def family(pid: int) -> list[psutil.Process]:
    try:
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu(pid: int) -> float:
    """CPU seconds of the family, of those that ended too.

    PostgreSQL's backends end with their connections, and the kernel then adds theirs to their
    parent's account, once it has collected them.
    """
    spent = 0.0
    for member in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
    return spent


def peak_memory(pid: int) -> int:
    """Bytes: the highest resident size (VmHWM) of any one of the family that lives."""
    peaks = [0]
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{member.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peaks.append(int(line.split()[1]) * 1024)
    return max(peaks)


def busiest(pid: int) -> int:
    """The member of the family that has spent the most itself; the first where none is left."""

    def spent(member: psutil.Process) -> float:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            return float(times.user + times.system)
        return 0.0

    return max(family(pid), key=spent, default=psutil.Process(pid)).pid


@dataclass(slots=True)
class Meter:
    """CPU of several servers since it was made."""

    pids: Mapping[str, int]
    _before: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._before = {name: cpu(pid) for name, pid in self.pids.items()}

    def spent(self) -> dict[str, float]:
        return {name: cpu(pid) - self._before[name] for name, pid in self.pids.items()}
