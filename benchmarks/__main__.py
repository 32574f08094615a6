"""`python -m benchmarks [NAME [OPTIONS…]]`: one benchmark, or all that need no options.

python -m benchmarks                  every benchmark, the short way
python -m benchmarks snapshot --save  one of them, and keep the result in benchmarks/results/
python -m benchmarks --list
"""

from __future__ import annotations

import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

NOT_RUN = {"__main__", "free", "orders", "report"}


def names() -> list[str]:
    found = (module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    return sorted(set(found) - NOT_RUN)


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"], ["--list"]):
        print(__doc__)
        print("\n".join(names()))
        return 0
    if arguments and not arguments[0].startswith("-"):
        name, *rest = arguments
        if name not in names():
            print(f"expected one of {', '.join(names())}, found {name!r}", file=sys.stderr)
            return 2
        sys.argv = [f"python -m benchmarks {name}", *rest]
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return 0
    failed = 0
    for name in names():  # each in a process of its own, so that none warms up another
        print(f"== {name}", flush=True)
        failed |= subprocess.run(
            [sys.executable, "-m", "benchmarks", name, *arguments], check=False
        ).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
