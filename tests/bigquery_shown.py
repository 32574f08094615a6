"""What was seen of BigQuery as a destination on the emulator, by which tests, and what was not.

    python tests/bigquery_shown.py          writes the tables of docs/destinations/bigquery.md anew

The page is held to this list, and this list to the tests, by tests/unit/test_bigquery_shown.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "destinations" / "bigquery.md"
_CONTRACTS: Final = ROOT / "warp" / "testing" / "contracts"
CONTRACT: Final = (_CONTRACTS / "destinations.py", _CONTRACTS / "quarantine.py")
_TABLES: Final = re.compile(r"(<!-- shown[^\n]*-->\n).*?(<!-- end of shown -->)", re.DOTALL)

FENCE: Final = "integration/test_bigquery_fence.py"
KILLS: Final = "integration/test_bigquery_kills.py"
FLEET: Final = "integration/test_bigquery_fleet.py"
SCHEMA: Final = "integration/test_bigquery_schema.py"
VALUES: Final = "integration/test_bigquery_values.py"
COMPARED: Final = "integration/test_bigquery_compared.py"
INTO: Final = "integration/test_into_bigquery.py"
OUT_OF: Final = "integration/test_bigquery_to_others.py"
ALL: Final = ""
"""In the place of a test's name: every test of the file."""


class Shown(NamedTuple):
    """A promise, and the tests that were seen to pass on the emulator."""

    promise: str
    by: tuple[tuple[str, str], ...]  # file below tests/, test


class Open(NamedTuple):
    """What the emulator cannot show, and why."""

    what: str
    why: str


SHOWN: Final = (
    Shown(
        "the contract of every destination, whole",
        (("contract/test_bigquery_destination.py", ALL),),
    ),
    Shown(
        "rows, marker, fence, quarantine and audit commit together: a failure after any statement "
        "of the transaction undoes all, and without BEGIN a half is left",
        (
            (FENCE, "test_a_failure_after_any_statement_leaves_nothing_behind"),
            (FENCE, "test_without_a_transaction_around_it_a_failure_leaves_a_half"),
            (FENCE, "test_the_words_of_our_assertions_come_back"),
        ),
    ),
    Shown(
        "an owner that was superseded writes nothing, and no batch is written twice; without the "
        "fence, the batch number, the fence of the adoption or the assertion it breaks",
        (
            (FENCE, "test_an_old_owner_writes_neither_rows_nor_marker"),
            (FENCE, "test_without_the_fence_in_each_write_an_old_owner_writes"),
            (FENCE, "test_a_batch_is_written_on_top_of_the_one_it_follows_only"),
            (FENCE, "test_without_the_batch_number_a_batch_is_written_twice"),
            (FENCE, "test_a_worker_that_is_overtaken_while_it_adopts_does_not_adopt"),
            (FENCE, "test_without_the_fence_in_the_adoption_the_slower_one_adopts"),
            (FENCE, "test_a_worker_superseded_after_its_load_writes_nothing"),
            (FENCE, "test_without_the_assertion_it_writes"),
        ),
    ),
    Shown(
        "a process killed (-9) after its load, before, during or after its transaction loses and "
        "repeats nothing; one paused (SIGSTOP) before it writes nothing after its successor, and "
        "without fence and batch number it does",
        ((KILLS, ALL),),
    ),
    Shown(
        "MongoDB kept equal by a fleet of which a worker is killed in its stream, and one is "
        "paused beyond its lease",
        ((FLEET, ALL),),
    ),
    Shown("BigQuery into PostgreSQL and MariaDB, with a worker killed", ((OUT_OF, ALL),)),
    Shown(
        "a job of one id runs once; an outcome that nobody told is read from the marker, and a "
        "transaction that never arrived is written again",
        (
            (FENCE, "test_a_job_that_is_sent_twice_runs_once"),
            (FENCE, "test_an_outcome_that_nobody_told_is_read_from_the_marker"),
            (
                FENCE,
                "test_a_transaction_that_never_arrived_is_told_so_and_can_be_written_again",
            ),
        ),
    ),
    Shown(
        "writers of one table wait for each other and both land; a batch of more tables than a "
        "transaction may change lands whole",
        (
            (FENCE, "test_writers_of_one_table_wait_for_each_other_and_both_land"),
            (FENCE, "test_a_batch_of_more_tables_than_a_transaction_may_change_lands_whole"),
        ),
    ),
    Shown(
        "every kind of value, read back, and keys of every kind; what has no form there is set "
        "aside",
        ((VALUES, ALL),),
    ),
    Shown(
        "limits of a day and of ten seconds: by arithmetic and a simulated day",
        (("unit/test_bigquery_quotas.py", ALL),),
    ),
    Shown(
        "BigQuery's own words for conflicts, limits and refusals are taken for what they are",
        (("unit/test_bigquery_verdicts.py", ALL),),
    ),
    Shown(
        "MongoDB, MariaDB and PostgreSQL brought into BigQuery by `--once`, and by a second one "
        "what changed since",
        ((INTO, ALL),),
    ),
    Shown(
        "tables made, laid out, adopted, widened in place and made anew; names that BigQuery does "
        "not take; a change of columns cut short is finished by whoever comes next; soft deletes",
        ((SCHEMA, ALL),),
    ),
    Shown(
        "compared with its source: every planted fault is found and mended, and no other row is "
        "written; a lost position is recovered by writing what differs",
        ((COMPARED, ALL),),
    ),
)

OPEN: Final = (
    Open("limits and quotas", "it has none; watch `bigquery.googleapis.com/quota`"),
    Open(
        "that a transaction is cancelled by any other on the same table",
        "it lets two pass that only add rows, and says so at COMMIT and in its own words",
    ),
    Open("rights, logins, datasets in other locations", "it asks for none and knows one location"),
    Open("decimals of more than 38 digits, or of 18 after the point", "its BIGNUMERIC has no more"),
    Open("the length of `STRING(n)`", "it is not enforced there"),
    Open("that DDL is refused inside a transaction, and reserved words", "it takes both"),
    Open("latency and cost", "it bills nothing and runs on this machine"),
)


def cases() -> int:
    """Of the contract of destinations."""
    text = "".join(file.read_text() for file in CONTRACT)
    return len(re.findall(r"^    def test_", text, re.MULTILINE))


def tables() -> str:
    lines = ["| promise | tests |", "|---|---|"]
    for shown in SHOWN:
        told = shown.promise
        if shown.by[0][0].startswith("contract/"):
            told += f" ({cases()} cases)"
        lines.append(f"| {told} | {_tests(shown.by)} |")
    lines += ["", "What the emulator cannot show, and so nobody has seen:", ""]
    lines += ["| what | why |", "|---|---|", *(f"| {one.what} | {one.why} |" for one in OPEN)]
    return "\n".join(lines) + "\n"


def _tests(by: tuple[tuple[str, str], ...]) -> str:
    files = dict.fromkeys(file for file, _ in by)
    told = []
    for file in files:
        count = sum(name != ALL for of, name in by if of == file)
        name = Path(file).name
        told.append(f"`{name}`" + (f" ({count} of it)" if count else ""))
    return ", ".join(told)


def page() -> str:
    return _TABLES.sub(lambda found: f"{found[1]}\n{tables()}\n{found[2]}", PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
