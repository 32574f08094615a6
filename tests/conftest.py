"""Names the fixture modules; each lies beside this file as `fix_*.py`."""

import os
import sys

from warp.testing.servers import describe_programs

pytest_plugins = ["fix_servers", "fix_fragile"]

# Where this is set, as in many container images, each process that a test starts would compile all
# our modules anew: a third of the CPU of its start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_report_header() -> list[str]:
    return describe_programs()
