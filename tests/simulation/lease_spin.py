"""The lease protocol by Spin: what it finds beside what `lease_model.py` finds.

    python tests/simulation/lease_spin.py        prints both; `make spin` runs it

Spin comes from this system or from Debian's package, unpacked into a cache; gcc compiles what it
writes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from lease_guards import BREAKS, HINTS
from lease_model import (
    FEW_FAULTS,
    SMALL,
    TWO_BATCHES,
    Bounds,
    Explored,
    Protocol,
    Rules,
    explore,
)

from warp.errors import StartFailed
from warp.testing.debian import Program, spin

PROTOCOL: Final = Path(__file__).with_name("lease.pml")

LASTING: Final = Bounds(clock=1, batches=1, fence=6, wipes=1, steps_back=0, resyncs=0)
"""Where it is asked what happens at last: fences enough to fall behind by more than four."""

# What `land` of lease.pml asserts, in the words of the model.
_BROKEN: Final = {
    "epoch": "a write went on from where the unit stood before a resync",
    ">=": "a batch landed twice",
    "<=": "a batch was passed by",
    "owner": "a superseded worker wrote",
}


@dataclass(frozen=True, slots=True)
class Found:
    states: int
    violation: str = ""
    trace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """One run of Spin, and of the model beside it."""

    name: str
    rules: Rules
    bounds: Bounds
    live: bool = False

    def by_spin(self) -> Found:
        return check(self.rules, self.bounds, live=self.live)

    def by_model(self) -> Explored:
        return explore(Protocol(self.rules, self.bounds), lives=self.live)


def questions(larger: dict[str, Bounds] | None = None) -> Iterator[Question]:
    yield Question("every fault once", Rules(), SMALL)
    yield Question("two batches", Rules(), TWO_BATCHES)
    for name, bounds in (larger or {}).items():
        yield Question(f"{name}, larger", Rules(), bounds)
    for name, broken in BREAKS.items():
        bounds = TWO_BATCHES if broken.rules.write_checks_fence else FEW_FAULTS
        yield Question(f"not: {name}", broken.rules, bounds)
    for hint in HINTS:
        yield Question(f"not: {hint.replace('_', ' ')}", Rules(**{hint: False}), FEW_FAULTS)
    yield Question("a batch lands at last", Rules(), LASTING, live=True)
    yield Question("not: refences", Rules(refences=False), LASTING, live=True)


def check(rules: Rules, bounds: Bounds, *, live: bool = False) -> Found:
    """Every state there is; the shortest way to a guarantee that is broken."""
    given = {
        "CLOCK": bounds.clock,
        "BATCHES": bounds.batches,
        "FENCE": bounds.fence,
        "WIPES": bounds.wipes,
        "STEPS_BACK": bounds.steps_back,
        "RESYNCS": bounds.resyncs,
    }
    defined = [f"-D{name}={value}" for name, value in given.items()]
    gone = [field.name for field in fields(Rules) if not getattr(rules, field.name)]
    defined += [f"-DWITHOUT_{name.upper()}" for name in gone]
    if live:
        defined.append("-DLIVE")
    if shutil.which("gcc") is None:
        raise StartFailed("expected gcc, which compiles what Spin writes; found none; install gcc")
    program = spin()
    with tempfile.TemporaryDirectory() as place:
        there = Path(place)
        shutil.copy(PROTOCOL, there)
        _run(program, there, program.path, "-a", *defined, PROTOCOL.name)
        # NOREDUCE: all states, as the model counts them.  BFS: the nearest first.
        how = ["-DNFAIR=3"] if live else ["-DSAFETY", "-DBFS"]
        _run(program, there, "gcc", "-O1", "-w", "-DNOREDUCE", *how, "-o", "pan", "pan.c")
        # E: a state with nothing left to do is no error.
        say = ["-a", "-f"] if live else ["-E"]
        said = _run(program, there, there / "pan", *say, "-m1000000", "-w22")
        if "max search depth too small" in said:
            raise AssertionError(said)
        if not (there / f"{PROTOCOL.name}.trail").exists():
            [errors] = re.findall(r"errors: (\d+)", said)
            assert errors == "0", said
            return Found(_states(said))
        trail = _run(program, there, program.path, "-t", "-T", *defined, PROTOCOL.name)
    return Found(_states(said), _violation(said, live=live), _trace(trail))


def _run(program: Program, place: Path, *command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=place,
        env=dict(program.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(
            f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
        )
    return done.stdout


def _states(said: str) -> int:
    [states] = re.findall(r"([\d.e+]+) states, stored", said)
    return int(float(states))


def _violation(said: str, *, live: bool) -> str:
    if live:
        assert "acceptance cycle" in said, said
        return "a batch never lands"
    [expression] = re.findall(r"assertion violated (.*) \(at depth", said)
    return next(words for mark, words in _BROKEN.items() if mark in expression)


def _trace(trail: str) -> tuple[str, ...]:
    steps = r"^(tick|ensure|flushall|set_clock_back|resync|no more faults|the lease .*|.*\([AB]\))$"
    return tuple(re.findall(steps, trail, re.MULTILINE))


def main() -> int:
    alike = True
    tell = sys.stdout.write
    tell(f"{'':<78}{'Spin':>30}{'our model':>30}\n")
    for one in questions():
        found, model = one.by_spin(), one.by_model()
        ours = _verdict(model.states, bool(model.violation or model.stuck), model.trace, one.live)
        theirs = _verdict(found.states, bool(found.violation), found.trace, one.live)
        # Asked differently where it is asked what happens at last, so only the answer is the same.
        same = theirs.split(",")[0] == ours.split(",")[0] if one.live else theirs == ours
        alike &= same and (one.live or found.violation == model.violation)
        tell(f"{one.name:<78}{theirs:>30}{ours:>30}\n")
        sys.stdout.flush()
    return 0 if alike else 1


def _verdict(states: int, broken: bool, trace: tuple[str, ...], live: bool) -> str:
    if broken:
        return "broken, by going round" if live else f"broken, in {len(trace)} steps"
    return f"holds, {states:,} states"


if __name__ == "__main__":
    sys.exit(main())
