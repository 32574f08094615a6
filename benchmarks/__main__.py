"""`python -m benchmarks [NAME | all] [OPTIONS…]`: ours beside the floor and peers, or another.

python -m benchmarks --save           ours, the floor and peers, kept in benchmarks/results/
python -m benchmarks snapshot --save  another of them
python -m benchmarks all              every one, each in a process of its own
python -m benchmarks --list
"""

from __future__ import annotations

import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

FIRST = "side_by_side"
NOT_RUN = {"__main__", "free", "orders", "report"}
ALONE = {"soak"}  # it takes an hour: by its own name only


def names() -> list[str]:
    found = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return [FIRST, *sorted(found - NOT_RUN - {FIRST})]


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"], ["--list"]):
        print(__doc__)
        print("\n".join(names()))
        return 0
    if arguments[:1] == ["all"]:
        return every_one(arguments[1:])
    if not arguments or arguments[0].startswith("-"):
        arguments = [FIRST, *arguments]
    name, *rest = arguments
    if name not in names():
        print(f"expected all or one of {', '.join(names())}, found {name!r}", file=sys.stderr)
        return 2
    sys.argv = [f"python -m benchmarks {name}", *rest]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


def every_one(arguments: list[str]) -> int:
    failed = 0
    for name in names():  # each in a process of its own, so that none warms up another
        if name in ALONE:
            continue
        print(f"== {name}", flush=True)
        failed |= subprocess.run(
            [sys.executable, "-m", "benchmarks", name, *arguments], check=False
        ).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
