"""Writes `docs/guarantees-matrix.md` from the markers of the tests.

    python tests/guarantees_matrix.py > docs/guarantees-matrix.md

    @pytest.mark.holds(guarantee=2, source="mongodb", destination="postgresql", fault="SIGSTOP")

says that a test shows guarantee 2 for rows on their way from a MongoDB to a PostgreSQL, whose
worker is stopped meanwhile.  Each word may be several: `guarantee=(1, 7)`.  On a class that
inherits a contract, `by="test_…"` names the case of the contract.

The tests are read, not run, and no test is imported.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "guarantees-matrix.md"
CONTRACTS: Final = tuple((ROOT / "warp" / "testing" / "contracts").glob("*.py"))

NONE: Final = "none"  # no source: the batches are the test's own
PRETENDED: Final = "pretended"  # no destination server: in memory, imitated, or not asked

SOURCES: Final = ("mongodb", "postgresql", "mariadb", "mysql", "bigquery", NONE)
DESTINATIONS: Final = ("postgresql", "mariadb", "bigquery", PRETENDED)

FAULTS: Final[Mapping[int, tuple[str, ...]]] = {
    1: ("error", "kill -9", "lost connection", "storm"),
    2: ("SIGSTOP", "superseded", "FLUSHALL", "clock set back", "hand-over", "storm"),
    3: ("no fault", "superseded"),
    4: ("no fault", "late commit", "refused rows", "drift", "kill -9", "storm"),
    5: ("no fault", "drop and rename", "hand-over", "storm"),
    6: ("lost position",),
    7: (
        *("error", "kill -9", "SIGTERM", "SIGSTOP", "FLUSHALL", "server crash"),
        *("lost connection", "hand-over", "a stranger in Redis", "storm", "no fault"),
    ),
    8: ("kill -9", "hand-over", "storm"),
    9: ("large data",),
    10: ("planted passwords",),
}
"""The faults that each guarantee is asked about, in the order of the page."""

MEANINGS: Final[Mapping[str, str]] = {
    "no fault": "nothing goes wrong but what the load itself brings",
    "error": "an exception at each point of a write or of a change of schema",
    "kill -9": "a worker or a coordinator is killed, also between any two statements",
    "SIGTERM": "a worker is told to end",
    "SIGSTOP": "a worker is stopped for longer than its lease, inside a transaction or between two",
    "superseded": "the lease went to another worker and the old one does not look",
    "FLUSHALL": "Redis is wiped",
    "a stranger in Redis": "each key of the ledger is written to by somebody else",
    "clock set back": "the clock of Redis is set back",
    "server crash": "Redis, the destination or the source is killed and comes back",
    "lost connection": "the connection breaks at COMMIT: before, during or after it",
    "hand-over": "snapshot, stream, crashes and changes of owner interleave at random",
    "storm": "many kinds of fault strike a whole fleet and its servers at random",
    "late commit": "a transaction becomes visible after a later one",
    "refused rows": "the destination's constraints and types refuse rows",
    "drift": "fields and columns come, go and change their types",
    "drop and rename": "tables are dropped, renamed and take each other's place",
    "lost position": "the source has let go of the log: oplog, slot, binlog, triggers",
    "large data": "tables, transactions and documents that are larger than the memory allowed",
    "planted passwords": "passwords are looked for in all that is written",
}


class Claim(NamedTuple):
    """One cell's worth of what a test says it shows."""

    guarantee: int
    source: str
    destination: str
    fault: str


class Pointless(NamedTuple):
    """Cells that ask for nothing, of any destination; empty stands for every source or fault."""

    guarantee: int
    source: str
    fault: str
    why: str

    def holds(self, claim: Claim) -> bool:
        return (
            claim.guarantee == self.guarantee
            and claim.source == (self.source or claim.source)
            and claim.fault == (self.fault or claim.fault)
        )

    def __str__(self) -> str:
        fault = f", {self.fault}" if self.fault else ""
        return f"guarantee {self.guarantee}{fault}: {self.source or 'it'} {self.why}"


DOES_NOT_APPLY: Final = (
    Pointless(3, "mongodb", "", "keeps its oplog by size and age, whoever has read it"),
    Pointless(3, "bigquery", "", "keeps its history by age, whoever has read it"),
    *(
        Pointless(
            guarantee, "bigquery", "hand-over", "has no log: no stream runs beside a snapshot"
        )
        for guarantee in (2, 5, 7, 8)
    ),
    Pointless(1, "", "error", "strikes within a write, in which no source has a part"),
    Pointless(7, "", "error", "strikes within a write, in which no source has a part"),
    Pointless(7, "", "a stranger in Redis", "strikes the ledger, which knows of neither side"),
)

_HEAD: Final = """# The guarantees as a matrix

<!-- Written by `python tests/guarantees_matrix.py` from the markers of the tests; `make docs`. -->

Guarantee, source, destination, fault: in each cell the tests that hold it, or `not proved`. What a
test shows is said where it stands, by `@pytest.mark.holds(…)`; [guarantees.md](guarantees.md) tells
what each promise means, how the tests go about it, and the broken twins that must fail.

The servers are MongoDB 6.0, PostgreSQL 18, MariaDB 10.11 and Redis. Under *mysql* are tests on
recorded logs of a MySQL 9.7, under *bigquery* tests on an emulator. In the column *no source* a
test makes its batches itself, which shows the destination's part for every source; in rows of the
destination *pretended* there is none but in memory, which shows the source's part for every
destination. There an empty cell says that nobody asked. *(soak)* marks what runs every night and
not with every change. A dash is in cells that ask for nothing:
"""


class MarkerWrong(Exception):
    """A marker that says nothing this page has a place for."""


def claims() -> dict[Claim, list[str]]:
    """All that the tests claim, with their names."""
    found: dict[Claim, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text()
        if "mark.holds" in text:
            tree = ast.parse(text, str(file))
            slow = _all_soak(tree)
            for node, marker in _marked(tree):
                where = f"{file.relative_to(ROOT)}::{node.name}"
                rarely = slow or any("mark.soak" in ast.unparse(one) for one in node.decorator_list)
                for claim, shown in _read(marker, node.name, where):
                    found[claim].add(f"`{shown}` (soak)" if rarely else f"`{shown}`")
    return {claim: sorted(names) for claim, names in found.items()}


def _all_soak(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and "mark.soak" in ast.unparse(node.value)
        for node in tree.body
    )


def _marked(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef | ast.ClassDef, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                if ast.unparse(decorator).startswith("pytest.mark.holds"):
                    if not isinstance(decorator, ast.Call) or decorator.args:
                        raise MarkerWrong(f"{node.name}: expected holds(guarantee=…, source=…, …)")
                    yield node, decorator


def _read(marker: ast.Call, name: str, where: str) -> Iterator[tuple[Claim, str]]:
    said: dict[str, Any] = {
        word.arg or "": ast.literal_eval(word.value) for word in marker.keywords
    }
    shown = said.pop("by", name)
    if shown != name and not any(f"def {shown}(" in one.read_text() for one in CONTRACTS):
        raise MarkerWrong(f"{where}: expected a case of the contracts, found {shown!r}")
    if said.keys() != set(Claim._fields):
        raise MarkerWrong(f"{where}: expected {', '.join(Claim._fields)}, found {', '.join(said)}")
    for words in itertools.product(*(_several(said[field]) for field in Claim._fields)):
        claim = Claim(*words)
        _check(claim, where)
        yield claim, shown


def _several(said: Any) -> tuple[Any, ...]:
    return said if isinstance(said, tuple) else (said,)


def _check(claim: Claim, where: str) -> None:
    allowed: Iterable[tuple[object, Iterable[object]]] = (
        (claim.guarantee, FAULTS),
        (claim.source, SOURCES),
        (claim.destination, DESTINATIONS),
        (claim.fault, FAULTS.get(claim.guarantee, ())),
    )
    for found, words in allowed:
        if found not in words:
            listed = ", ".join(map(str, words))
            raise MarkerWrong(f"{where}: expected one of {listed}; found {found!r}")
    if rule := pointless(claim):
        raise MarkerWrong(f"{where}: expected a cell that asks for something; {rule}")


def pointless(claim: Claim) -> Pointless | None:
    """Why nothing is asked here.  What a test shows of one side alone is asked everywhere."""
    if claim.source == NONE or claim.destination == PRETENDED:
        return None
    return next((rule for rule in DOES_NOT_APPLY if rule.holds(claim)), None)


# ---------------------------------------------------------------- the page


def page() -> str:
    found = claims()
    titles = dict(re.findall(r"^## (\d+)\. (.+)$", (ROOT / "docs/guarantees.md").read_text(), re.M))
    real = [
        Claim(guarantee, source, destination, fault)
        for guarantee, faults in FAULTS.items()
        for destination, fault, source in itertools.product(DESTINATIONS[:-1], faults, SOURCES[:-1])
    ]
    asked = [claim for claim in real if not pointless(claim)]
    proved = sum(claim in found for claim in asked)
    lines = [
        _HEAD,
        *(f"* {rule}." for rule in DOES_NOT_APPLY),
        "",
        f"Of {len(real)} cells between a real source and a real destination, {len(asked)} ask for "
        f"something, and {proved} of these have a test.",
        "",
        "| fault | what happens |",
        "| --- | --- |",
        *(f"| {fault} | {meaning} |" for fault, meaning in MEANINGS.items()),
    ]
    for guarantee, faults in FAULTS.items():
        lines += ["", f"## {guarantee}. {titles[str(guarantee)]}", ""]
        lines += _table(found, guarantee, faults)
    return "\n".join(lines) + "\n"


def _table(
    found: Mapping[Claim, list[str]], guarantee: int, faults: tuple[str, ...]
) -> Iterator[str]:
    heads = ["destination", "fault", *(f"from {source}" for source in SOURCES[:-1]), "no source"]
    yield f"| {' | '.join(heads)} |"
    yield f"| {' | '.join(['---'] * len(heads))} |"
    for destination, fault in itertools.product(DESTINATIONS, faults):
        row = [Claim(guarantee, source, destination, fault) for source in SOURCES]
        if destination == PRETENDED and not any(claim in found for claim in row):
            continue
        yield f"| {destination} | {fault} | {' | '.join(_cell(found, claim) for claim in row)} |"


def _cell(found: Mapping[Claim, list[str]], claim: Claim) -> str:
    if claim in found:
        return "<br>".join(found[claim])
    if pointless(claim):
        return "—"
    return "" if claim.source == NONE or claim.destination == PRETENDED else "not proved"


if __name__ == "__main__":
    sys.stdout.write(page())
