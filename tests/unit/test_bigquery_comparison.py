"""Comparing a table of BigQuery with the last run: what is asked, and what a lost result means."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pretended_bigquery import NOW, ORDERS, Answer, Pretended, orders, source_of

from warp.model import ABSENT, Capture, Operation

MINUTE = 60_000_000
UPDATE, DELETE, TRUNCATE = Operation.UPDATE, Operation.DELETE, Operation.TRUNCATE
COLUMNS = [("id", "INTEGER"), ("name", "STRING")]


def compared(*rows: tuple[int, str | None, bool]) -> Answer:
    return Answer("_cw_before", [*COLUMNS, ("_cw_gone", "BOOLEAN")], rows)


def whole(*rows: tuple[int, str]) -> Answer:
    return Answer(r"FROM `shop`.`orders` FOR SYSTEM_TIME AS OF [^;]*$", COLUMNS, rows)


def events(batches: Any) -> list[tuple[Any, ...]]:
    return [
        (Operation(operation), *row)
        for batch in batches
        for part in batch.changes
        for operation, row in zip(part.operations, part.rows(), strict=True)
    ]


def after_a_run(service: Pretended, **settings: int) -> tuple[Any, Any]:
    """A source, and where it stands after a first run."""
    source = source_of(service, Capture.HASH, settings)
    service.now = NOW - MINUTE
    *_, last = source.poll(ORDERS, None, fire_time=1.0)
    service.now = NOW
    return source, last.end


def test_no_statement_names_the_table_at_two_times() -> None:
    # BigQuery refuses that; the emulator does not.
    service = Pretended({"orders": orders()})
    source, end = after_a_run(service)
    list(source.poll(ORDERS, end, fire_time=2.0))
    [asked] = service.asked("_cw_before")
    assert [part.count("FOR SYSTEM_TIME AS OF") for part in asked.statement.split(";")] == [1, 1]


def test_what_differs_is_updates_and_deletes() -> None:
    service = Pretended({"orders": orders()}, [compared((1, "new", False), (2, None, True))])
    source, end = after_a_run(service)
    found = events(source.poll(ORDERS, end, fire_time=2.0))
    assert found == [(UPDATE, 1, "new"), (DELETE, 2, ABSENT)]


def test_a_difference_of_which_a_part_was_delivered_is_followed_by_all_rows() -> None:
    # Row 1 was changed and delivered; until the run begins anew it is set back to what it was at
    # the run before, so that another difference would say nothing of it.
    answers = [compared((1, "changed", False), (2, "b", False)), whole((1, "a"), (2, "b"))]
    service = Pretended({"orders": orders()}, answers)
    source, end = after_a_run(service, write_batch_size=1)
    cut = list(islice(source.poll(ORDERS, end, fire_time=2.0), 2))
    assert events(cut) == [(UPDATE, 1, "changed")]
    service.jobs.clear()  # a day later
    service.now = NOW + MINUTE
    found = events(source.poll(ORDERS, cut[-1].end, fire_time=3.0))
    assert found == [(UPDATE, 1, "a"), (UPDATE, 2, "b"), (TRUNCATE, ABSENT, ABSENT)]
