"""Processes of ours for tests, forked from one interpreter that has imported everything.

A fresh interpreter spends about a second of CPU on imports, and the tests start hundreds.  What
only a fresh one shows, that the installed commands start at all, is what tests/acceptance runs.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from warp import faults
from warp.own_process import Running
from workers.nursery import Nursery

# prometheus_client is not among them: it must be imported when its directory is known.
_IMPORTED = (
    "commands.init",
    "commands.single",
    "commands.operate",
    "commands.quarantine",
    "commands.show",
    "commands.status",
    "commands.validate",
    "warp.destinations.postgresql",
    "warp.sources.mongodb",
    "workers.cli",
    "programs",
)


def start(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Path | None = None,
    stderr: Path | None = None,
) -> Running:
    """`python -m` with these arguments, in a session of its own.

    What it says is appended to the files; to none where none is named.  An environment with
    another PYTHONPATH than ours asks for another code, and one with LD_PRELOAD for another library:
    both get an interpreter of their own.
    """
    env = dict(os.environ if env is None else env)
    said = [str(file or os.devnull) for file in (stdout, stderr)]
    if any(env.get(name) != os.environ.get(name) for name in ("PYTHONPATH", "LD_PRELOAD")):
        with Path(said[0]).open("ab") as out, Path(said[1]).open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
    place = {"cwd": str(cwd or Path.cwd()), "said": said}
    return _nursery().start("programs", [json.dumps(place), *arguments], env)


def run(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """`start`, to the end, with what it said."""
    with tempfile.TemporaryDirectory() as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        process = start(*arguments, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@functools.cache
def _nursery() -> Nursery:
    # Of its own: pytest has threads, and more imported than a program of ours would have.
    path = os.pathsep.join(p for p in sys.path if p)
    nursery = Nursery.of_its_own(_IMPORTED, {**os.environ, "PYTHONPATH": path})
    atexit.register(nursery.close)
    return nursery


def main() -> None:
    """In the forked process: take its place, then run its module as `python -m` does."""
    place = json.loads(sys.argv[1])
    os.chdir(place["cwd"])
    for number, file in ((0, os.devnull), *enumerate(place["said"], 1)):
        opened = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    faults.hit = faults.armed(os.environ)
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.modules.pop(module, None)  # runpy warns of what it finds imported
    runpy.run_module(module, run_name="__main__", alter_sys=True)
