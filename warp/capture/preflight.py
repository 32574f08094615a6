"""What polled tables need at the source, and what their strategy will not see: for `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from warp.capture import clocks
from warp.capture.side import SqlSide
from warp.errors import SourceRefused
from warp.model import Capture, Column, Diagnosis, TableSchema, TableSettings, Verdict


def diagnose(side: SqlSide, tables: Sequence[TableSettings]) -> list[Diagnosis]:
    found: list[Diagnosis] = []
    polled = [t for t in tables if t.capture in (Capture.TIMESTAMP, Capture.TRIGGER)]
    if any(table.capture is Capture.TIMESTAMP for table in polled):
        found += _transactions(side)
    for settings in polled:
        schema = side.schema(settings.table)
        if schema is None:
            continue
        if settings.capture is Capture.TIMESTAMP:
            found += _times(side, settings, schema)
        elif not schema.key:
            found.append(
                Diagnosis(
                    "capture-key",
                    Verdict.FAILED,
                    str(settings.table),
                    "a primary key, whose values a trigger can note",
                    "none",
                    "add a primary key, or set change_detection.strategy to timestamp or hash",
                )
            )
        else:
            found += side.triggers.diagnose(settings.table)
    return found


def _transactions(side: SqlSide) -> Iterator[Diagnosis]:
    clock = side.clock()
    yield Diagnosis(
        "capture-transactions",
        Verdict.WARNING if clock.untold else Verdict.OK,
        "open transactions",
        "a server that tells since when its transactions have been open",
        "one that does not" if clock.untold else "told",
        clock.untold,
    )
    if clock.unknown:
        yield Diagnosis(
            "capture-prepared",
            Verdict.WARNING,
            clock.holder,
            "no prepared transaction, since nobody can tell when it began",
            "one that is neither committed nor rolled back; until then each run reads everything "
            "since again",
            "COMMIT PREPARED or ROLLBACK PREPARED",
        )


def _times(side: SqlSide, settings: TableSettings, schema: TableSchema) -> Iterator[Diagnosis]:
    name = settings.timestamp_column
    column = next((c for c in schema.columns if c.source == name), None)
    subject = f"{settings.table}.{name}"
    if column is None or not schema.key:
        yield Diagnosis(
            "capture-compared-whole",
            Verdict.WARNING,
            subject,
            "a column of times and a primary key",
            "no such column" if column is None else "no primary key",
            "add it, or name another with change_detection.column; until then each run reads the "
            "whole table",
        )
        return
    try:
        clocks.must_hold_times(settings.table, column)
    except SourceRefused:
        yield Diagnosis(
            "capture-column",
            Verdict.FAILED,
            subject,
            "times: a timestamp, a date, or seconds since 1970",
            column.kind.value,
            "name a column of times with change_detection.column",
        )
        return
    yield from _finding(side, settings, column, subject)


def _finding(
    side: SqlSide, settings: TableSettings, column: Column, subject: str
) -> Iterator[Diagnosis]:
    """Can the rows of a time be found, and are there some without?"""
    dialect, table = side.dialect, settings.table
    place, name = dialect.name(table.namespace, table.name), dialect.name(column.source)
    if not side.leads_index(table, column.source):
        index = dialect.name(f"{table.name[:40]}_by_time")
        yield Diagnosis(
            "capture-index",
            Verdict.WARNING,
            subject,
            "an index that begins with the column",
            "none, so each run reads the whole table to find what is new",
            f"CREATE INDEX {index} ON {place} ({name})",
        )
        return
    # Found by the index, so it is asked only where there is one.
    if side.ask(f"select 1 from {place} where {name} is null limit 1"):
        yield Diagnosis(
            "capture-null-times",
            Verdict.WARNING,
            subject,
            "a time in every row",
            "rows without: their changes are not seen",
            f"UPDATE {place} SET {name} = CURRENT_TIMESTAMP WHERE {name} IS NULL, and have it "
            "declared NOT NULL",
        )
    else:
        yield Diagnosis(
            "capture-times", Verdict.OK, subject, "times in every row, and an index", "both"
        )
