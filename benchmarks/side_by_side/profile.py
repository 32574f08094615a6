"""Where the time of a worker goes: py-spy on all its processes, in a run of its own.

The run is not counted: py-spy stops the process a hundred times a second to look at it.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_RATE: Final = 100
_OURS: Final = re.compile(r"\b(warp|workers)/")
_FRAME: Final = re.compile(r"(?P<name>.+) \((?P<file>[^()]*?)(:\d+)?\)$")
_RUNTIME: Final = ("process ", "thread ")
# py-spy counts many threads that wait as running when it looks at native frames.
_WAITING: Final = re.compile(
    r"^(PyThread_acquire_lock_timed|take_gil|clock_nanosleep|(__)?poll|select|epoll_wait|accept"
    r"|pthread_cond_(timed|clock)?wait) \("
)
_NAMELESS: Final = "0x"


@dataclass(frozen=True, slots=True)
class Profile:
    title: str
    samples: int = 0
    own: list[tuple[str, int]] = field(default_factory=list)  # by the innermost frame
    places: list[tuple[str, int]] = field(default_factory=list)  # by our innermost function
    failed: str = ""


@contextlib.contextmanager
def profiling(pid: int, title: str, found: list[Profile]) -> Iterator[None]:
    """Append what was seen while the block ran."""
    program = Path(sys.executable).parent / "py-spy"
    if not program.exists():
        found.append(Profile(title, failed="py-spy is not installed: pip install py-spy"))
        yield
        return
    with tempfile.TemporaryDirectory(prefix="cartridge-warp-profile-") as directory:
        stacks = Path(directory) / "stacks"
        command = [str(program), "record", "--pid", str(pid), "--subprocesses", "--native"]
        command += ["--format", "raw", "--rate", str(_RATE), "--output", str(stacks), "--nolineno"]
        watcher = subprocess.Popen(
            [*command, "--duration", "3600"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            yield
        finally:
            watcher.send_signal(signal.SIGINT)  # it then writes what it has
            try:
                _, words = watcher.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                watcher.kill()
                _, words = watcher.communicate()
            if stacks.exists():
                found.append(summed(title, stacks.read_text().splitlines()))
            else:
                found.append(Profile(title, failed=words.decode(errors="replace").strip()[-300:]))


def summed(title: str, lines: Iterable[str], top: int = 15) -> Profile:
    """From lines `frame;frame;… count`, outermost first; threads that wait are left out."""
    own: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [_short(frame) for frame in stack.split(";") if not frame.startswith(_RUNTIME)]
        if not frames or not count.isdigit() or any(map(_WAITING.match, frames[-3:])):
            continue
        named = [frame for frame in frames if not frame.startswith(_NAMELESS)]
        own[named[-1] if named else frames[-1]] += int(count)
        ours = [frame for frame in frames if _OURS.search(frame)]
        places[ours[-1] if ours else "outside"] += int(count)
    return Profile(title, own.total(), own.most_common(top), places.most_common(top))


def _short(frame: str) -> str:
    """`name (file)`, of a path only what is below the last folder of packages or the project."""
    match = _FRAME.match(frame.strip())
    if match is None:
        return frame.strip()
    file = match["file"].rpartition("site-packages/")[2]
    below = re.search(r"(?:^|/)((?:warp|workers)/.*)", file)
    if below:
        file = below[1]
    elif file.startswith("/"):
        file = file.rpartition("/")[2]
    return f"{match['name']} ({file})"
