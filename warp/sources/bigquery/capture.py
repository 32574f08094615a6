"""What `warp.capture` asks of BigQuery: queries whose rows are read as columns of Arrow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

from warp.capture.side import Clock
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Cells, Column, Diagnosis, TableId, TableSchema, Verdict
from warp.sources.bigquery import reading
from warp.sources.bigquery.catalog import Table
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.dialect import BigQueryDialect
from warp.sources.bigquery.server import RETRY, Server

# Each page is a query that scans its columns anew.
_PAGE_ROWS: Final = 100_000
_SAME_CLOCK: Final = 5.0  # seconds for which the clock is not asked again
_JOBS_LOOKED_AT: Final = 1_000
_NO_TRIGGERS: Final = (
    "a strategy of BigQuery was expected, found trigger, and BigQuery has no triggers; set "
    "change_detection.strategy to timestamp, hash or log"
)
_UNTOLD: Final = (
    "give the account bigquery.jobs.list (roles/bigquery.user); or set change_detection.overlap to "
    "the longest statement that writes"
)


class CaptureSide:
    """As `warp.capture.side.SqlSide`."""

    page_rows = _PAGE_ROWS

    def __init__(self, server: Server, describe: Callable[[TableId], Table | None]) -> None:
        self._server = server
        self._describe = describe
        self._described: dict[TableId, Table] = {}
        self._told: tuple[int, float] | None = None  # the service's clock, and when it was asked
        self.dialect = BigQueryDialect()
        self.triggers = NoTriggers()

    def schema(self, table: TableId) -> TableSchema | None:
        self._described.pop(table, None)
        found = self._describe(table)
        if found is None:
            return None
        self._described[table] = found
        return found.proposal()

    def version(self) -> int:
        # A little early is right: no row may carry a version that is too high.
        if self._told is None or time.monotonic() - self._told[1] > _SAME_CLOCK:
            self._told = (self._server.now(), time.monotonic())
        return self._told[0]

    def clock(self) -> Clock:
        """The service's clock, then the jobs that run: each may stamp rows and commit them later.

        In that order: a job that is not among them has committed before the rows are read, or
        begins after the clock was read (guarantee 4).
        """
        self._told = None
        now = self.version()
        try:
            began = self._began()
        except SourceRefused:
            return Clock(now, untold=_UNTOLD)
        name, oldest = min(began.items(), key=lambda job: job[1], default=("", None))
        return Clock(now, oldest, f"job {name}" if name else "")

    def _began(self) -> dict[str, int]:
        """The jobs of the project that run now, and when they began, in microseconds."""
        with self._server.meaning("list the running jobs"):
            jobs = self._server.client.list_jobs(
                all_users=True,
                state_filter="running",
                max_results=_JOBS_LOOKED_AT,
                retry=RETRY,
                timeout=self._server.options.request_timeout,
            )
            return {
                str(job.job_id): int(job.created.timestamp() * 1_000_000)
                for job in jobs
                if job.created is not None
            }

    def select(
        self, statement: str, schema: TableSchema, *, rows: int
    ) -> Iterator[Sequence[Cells]]:
        table = self._known(schema.table)
        doing = f"read {schema.table}"
        taken = reading.begin_query(self._server, statement, doing=doing)
        try:
            ready = reading.wait(self._server, taken, doing=doing)
            batches = reading.read(self._server, ready or reading.Ready(taken), doing=doing)
            for part in reading.parts(batches, lambda: rows):
                # By place: an aggregate has no name.
                yield [
                    _declared(table, column).cells(part.column(place))
                    for place, column in enumerate(schema.columns)
                ]
        except reading.Vanished as error:
            raise SourceUnavailable(
                "the result of a query was expected, found it gone", place=str(schema.table)
            ) from error

    def leads_index(self, table: TableId, column: str) -> bool:
        return True  # there are none; `preflight` tells of clustering and partitions

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        return self._server.ask(statement, doing="look at a table")

    def act(self, *statements: str) -> None:
        raise SourceRefused(_NO_TRIGGERS)

    def close(self) -> None: ...

    def _known(self, table: TableId) -> Table:
        if table not in self._described and self.schema(table) is None:
            raise SourceUnavailable("the table was dropped meanwhile", place=str(table))
        return self._described[table]


class NoTriggers:
    """As `warp.capture.side.Triggers`: each asks for another strategy."""

    def queue(self, table: TableId) -> TableId:
        self._refuse(table)

    def install(self, table: TableId, schema: TableSchema) -> bool:
        self._refuse(table)

    def changes_unseen(self, table: TableId) -> str:
        self._refuse(table)

    def diagnose(self, table: TableId) -> list[Diagnosis]:
        mend = "set change_detection.strategy to timestamp, hash or log"
        return [
            Diagnosis(
                "bigquery-triggers",
                Verdict.FAILED,
                str(table),
                "a strategy of BigQuery",
                "trigger, of which BigQuery has none",
                mend,
            )
        ]

    def remove(self, table: TableId) -> None: ...

    def _refuse(self, table: TableId) -> NoReturn:
        raise SourceRefused(_NO_TRIGGERS, place=str(table))


def _declared(table: Table, column: Column) -> Declared:
    # One that was dropped meanwhile: its cells as they come.
    return table.column(column.source) or Declared(column.source, column.kind.value.upper())
