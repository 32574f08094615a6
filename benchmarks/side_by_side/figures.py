"""What a run found, and what several runs say together.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, Self

Shape = Literal["snapshot", "batches", "singles"]
SHAPES: Final[Mapping[Shape, str]] = {
    "snapshot": "snapshot",
    "batches": "stream, transactions of 1,000 changes",
    "singles": "stream, transactions of one change",
}
FLOOR: Final = "floor"


@dataclass(frozen=True, slots=True)
class Scenario:
    shape: Shape
    source: str  # name of the server

    @property
    def id(self) -> str:
        return f"{self.shape}:{self.source.lower()}"

    @property
    def title(self) -> str:
        return f"{self.source} to PostgreSQL, {SHAPES[self.shape]}"

    @property
    def unit(self) -> str:
        return "rows" if self.shape == "snapshot" else "events"


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, from when its processes were ready until the last row was there."""

    wall: float
    cpu: float
    memory: int = 0
    startup: float | None = None  # CPU seconds before that; None where it cannot be told apart
    servers: Mapping[str, float] = field(default_factory=dict)  # CPU seconds of each


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the destination equals the source."""

    expected: int
    found: int
    differing: Mapping[str, int] = field(default_factory=dict)  # rows, by column
    unreadable: str = ""

    @property
    def equal(self) -> bool:
        return self.expected == self.found and not self.differing and not self.unreadable

    def __str__(self) -> str:
        if self.equal:
            return "0 differences"
        if self.unreadable:
            return f"could not be compared: {self.unreadable}"
        said = [f"{self.found:,} rows of {self.expected:,}"] * (self.found != self.expected)
        said += [f"`{name}` differs in {rows:,} rows" for name, rows in self.differing.items()]
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Run:
    scenario: Scenario
    contender: str
    about: str  # version and settings
    amount: int  # rows or events
    measured: Measured | None = None
    verdict: Verdict | None = None
    failed: str = ""  # why there is no figure

    @property
    def counts(self) -> bool:
        """Nothing is reported of a run that was not found equal to the source."""
        return self.measured is not None and self.verdict is not None and self.verdict.equal

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        measured, verdict = kept["measured"], kept["verdict"]
        return cls(
            **{
                **kept,
                "scenario": Scenario(**kept["scenario"]),
                "measured": Measured(**measured) if measured else None,
                "verdict": Verdict(**verdict) if verdict else None,
            }
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range."""

    middle: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found), len(found))

    def told(self, form: str = ",.0f") -> str:
        middle = format(self.middle, form)
        if self.count == 1:
            return middle
        return f"{middle} ({format(self.least, form)} to {format(self.most, form)})"


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one contender in one scenario."""

    contender: str
    about: str
    runs: tuple[Run, ...]

    @property
    def counted(self) -> tuple[tuple[Run, Measured], ...]:
        return tuple((run, run.measured) for run in self.runs if run.counts and run.measured)

    @property
    def trustworthy(self) -> bool:
        """A contender that was wrong or failed once has no figures at all."""
        return bool(self.runs) and len(self.counted) == len(self.runs)

    @property
    def rate(self) -> Spread:
        """Per second."""
        return Spread.of(run.amount / m.wall for run, m in self.counted)

    @property
    def cost(self) -> Spread:
        """CPU seconds per million."""
        return Spread.of(m.cpu * 1e6 / run.amount for run, m in self.counted)

    @property
    def efficiency(self) -> Spread:
        """Per CPU second.  None is cheaper than the clock can tell, 10 ms."""
        return Spread.of(run.amount / max(m.cpu, 0.01) for run, m in self.counted)

    @property
    def startup(self) -> Spread | None:
        known = [m.startup for _, m in self.counted if m.startup is not None]
        return Spread.of(known) if known else None

    @property
    def memory(self) -> Spread:
        return Spread.of(m.memory / 2**20 for _, m in self.counted)

    def server(self, name: str) -> Spread:
        return Spread.of(m.servers.get(name, 0.0) * 1e6 / run.amount for run, m in self.counted)

    @property
    def verdict(self) -> str:
        """The worst of all runs."""
        for run in self.runs:
            if run.failed:
                return run.failed
        for run in self.runs:
            if run.verdict is not None and not run.verdict.equal:
                return str(run.verdict)
        return "0 differences"


def scenarios(runs: Iterable[Run]) -> dict[Scenario, list[Summary]]:
    """In the order of their first runs."""
    grouped: dict[Scenario, dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault(run.scenario, {}).setdefault(run.contender, []).append(run)
    return {
        scenario: [Summary(name, some[0].about, tuple(some)) for name, some in by_name.items()]
        for scenario, by_name in grouped.items()
    }
