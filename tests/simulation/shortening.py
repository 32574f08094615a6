"""A failing schedule with everything left out that it fails without, and how it is told."""

from __future__ import annotations

from collections.abc import Callable

from faults import Planned
from world import Result, run

Again = Callable[[int, tuple[Planned, ...]], Result]

SHOWN = 30  # lines of the trace


def shortened(failed: Result, again: Again = run) -> Result:
    """Faults are left out one by one while it still fails, whatever it then fails with."""
    shortest = failed
    left_out = True
    while left_out:
        left_out = False
        for place in reversed(range(len(shortest.planned))):
            fewer = shortest.planned[:place] + shortest.planned[place + 1 :]
            result = again(shortest.seed, fewer)
            if result.violation:
                shortest, left_out = result, True
    return shortest


def told(failed: Result, shortest: Result) -> str:
    """What a person reads who finds it in the morning."""
    planned = "\n".join(f"  {one}" for one in shortest.planned) or "  nothing goes wrong at all"
    lines = "\n".join(f"  {line}" for line in shortest.trace[-SHOWN:])
    return (
        f"seed {failed.seed}: {failed.violation}\n"
        f"{len(failed.planned)} faults, shortened to {len(shortest.planned)}, "
        f"after which: {shortest.violation}\n{planned}\n"
        f"the end of its trace:\n{lines}\n"
        f"again: make simulate SEED={failed.seed} SEEDS=1"
    )
