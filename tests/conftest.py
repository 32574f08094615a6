"""Names the fixture modules; each lies beside this file as `fix_*.py`."""

import functools
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadGroupScheduling

from warp.testing.servers import describe_programs

pytest_plugins = ["fix_servers", "fix_fragile", "fix_eventful"]

# Where this is set, as in many container images, each process that a test starts would compile all
# our modules anew: a third of the CPU of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_MEMORY: Final = Path("/dev/shm")
_ENOUGH: Final = 6 << 30  # bytes; the servers of three pytest-xdist workers use up to half of it


def _keep_files_in_memory() -> None:
    """Servers of tests lie in memory, where there is enough of it and nobody chose a place.

    A database of PostgreSQL is 300 files: made and dropped it costs 0.03 s of CPU in memory and
    0.35 s on a disk, and hundreds of tests have one of their own.  Nothing less is shown: no test
    cuts the power, and a kill -9 loses neither the page cache nor this.
    """
    if "TMPDIR" in os.environ or not _MEMORY.is_dir():
        return
    there = os.statvfs(_MEMORY)
    # Where no program may be run from it, as in some containers, servers cannot be unpacked there.
    if there.f_bavail * there.f_frsize >= _ENOUGH and not there.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(_MEMORY)  # of our processes too
        tempfile.tempdir = None  # asked for before, perhaps


_keep_files_in_memory()


def pytest_report_header() -> list[str]:
    return [*describe_programs(), f"Directories of servers: in {tempfile.gettempdir()}"]


class _GroupsOfFiles(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """Sends the files of one `xdist_group` to one worker.

    With pytest 9.2, pytest-xdist 3.8 marks tests of a group where nobody reads it any more, and
    without a word spreads them over all workers, each with all the servers.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = self.config.rootpath / nodeid.partition("::")[0]
        return _group_of(file) or str(super()._split_scope(nodeid))


@functools.cache
def _group_of(file: Path) -> str | None:
    named = re.search(r'xdist_group\("([\w-]+)"\)', file.read_text())
    return named and named.group(1)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _GroupsOfFiles | None:
    if config.getoption("dist") != "loadgroup":
        return None
    return _GroupsOfFiles(config, log)
