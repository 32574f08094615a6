"""What a million rows written to BigQuery cost: requests, load jobs, bytes, transactions.

Those are what its quotas and its bill are counted in, and they are the same against the emulator as
against the service.  The seconds are the emulator's (DuckDB on this machine) and say nothing about
BigQuery; our own CPU is ours.
"""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.pg_write import SCHEMA, TABLE, columns, select
from benchmarks.report import Report, parser
from warp.destinations.bigquery import BigQueryDestination, BigQueryDestinationOptions
from warp.model import (
    Change,
    ChangeBatch,
    Lease,
    Marker,
    Operation,
    Phase,
    Position,
    SchemaChange,
    TableChanges,
    WorkUnit,
)
from warp.testing.bigquery import BigQueryEmulator

MILLION = 1_000_000


class Writer:
    """A stream into one table."""

    def __init__(self, emulator: BigQueryEmulator, fence: int) -> None:
        options = BigQueryDestinationOptions.model_validate(
            {
                "connection_string": f"bigquery://{emulator.project}",
                "emulator_host": emulator.url,
                # Nothing waits for a quota here: the benchmark says itself what it spends.
                "units": 1,
                "loads_per_day": 10_000_000,
                "staging_tables": 10_000,
            }
        )
        self.destination = BigQueryDestination(options, select)
        metadata = self.destination.metadata()
        metadata.prepare()
        table = WorkUnit.of_table("benchmark", TABLE)
        metadata.register(table, position=None, phase=Phase.STREAMING)
        create = SchemaChange(TABLE, Change.CREATE_TABLE, schema=SCHEMA)
        self.destination.apply_schema_changes([create])
        self.schema = self.destination.get_schema(TABLE)
        unit = WorkUnit.stream("benchmark")
        self.marker: Marker = self.destination.open(Lease(unit, "benchmark", fence))
        self.version = self.marker.rows + 1

    def write(self, operation: Operation, first: int, rows: int) -> None:
        cells = columns(first, rows)
        versions = list(range(self.version, self.version + rows))
        self.version += rows
        part = TableChanges(TABLE, bytearray([operation]) * rows, versions, self.schema, cells)
        batch = ChangeBatch([part], Position(str(self.version)))
        after = self.marker.advanced(batch, phase=Phase.STREAMING)
        self.destination.write_batch(batch, after)
        self.marker = after


def main() -> None:
    arguments = parser(__doc__, rows=100_000, runs=1).parse_args()
    rows = arguments.rows
    report = Report(
        "bigquery_write",
        f"{rows:,} rows of 8 columns created, then updated, against the emulator; "
        "per million rows.",
        (
            "rows a batch",
            "load jobs",
            "transactions",
            "requests",
            "Parquet, MB",
            "our CPU, s",
            "the emulator's rows per second",
        ),
    )
    with BigQueryEmulator() as emulator:
        for number, size in enumerate((1_000, 10_000, 50_000)):
            writer = Writer(emulator, number + 1)
            before = replace(writer.destination.spent)
            begun, clock = time.process_time(), time.monotonic()
            for operation in (Operation.CREATE, Operation.UPDATE):
                for first in range(0, rows, size):
                    writer.write(operation, first, size)
            cpu, seconds = time.process_time() - begun, time.monotonic() - clock
            spent = writer.destination.spent
            share = MILLION / (2 * rows)
            report.add(
                f"{size:,}",
                round((spent.loads - before.loads) * share),
                round((spent.transactions - before.transactions) * share),
                round((spent.requests - before.requests) * share),
                round((spent.loaded_bytes - before.loaded_bytes) * share / 1e6),
                f"{cpu * share:.1f}",
                f"{2 * rows / seconds:,.0f}",
            )
            writer.destination.close()
    report.note(
        "1,000 rows a batch would use up a table's staging of 8 times 1,500 loads a day after 12 "
        "million rows; 50,000 after 600 million"
    )
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
