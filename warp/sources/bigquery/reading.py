"""Rows that stand still while they are read: of a table at a time, or of a query's result.

Either is read from any row on, so a run that was cut short goes on where it stopped, without a
second query to be billed.  A stream of the Storage Read API is kept for six hours, a result for a
day; after that, whoever reads begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.ipc as ipc
from google.api_core import exceptions as api
from google.cloud import bigquery
from google.cloud.bigquery.table import RowIterator, _EmptyRowIterator

from warp.errors import SourceRefused
from warp.model import Cells, TableId
from warp.sources.bigquery.columns import Declared
from warp.sources.bigquery.errors import is_gone
from warp.sources.bigquery.server import RETRY, STREAM_RETRY, Server

FULL_BYTES: Final = 8 << 20  # of a part of rows, as Arrow holds them
# Up to here a result is asked for over REST: a session of its own would take longer.
_SMALL_RESULT: Final = 5_000
_REST_ROWS: Final = 10_000  # of one answer; the service stops at 10 MB as well

Of = Literal["job", "stream"]


class Vanished(Exception):
    """What was read is not kept any more: begin anew."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows that stand still, and how many of them were read; as words of a position."""

    of: Of
    name: str  # of the job, or the whole of the stream's
    location: str = ""  # of the job
    read: int = 0

    def words(self) -> tuple[str, ...]:
        return (self.of, self.name, self.location, str(self.read))

    @staticmethod
    def parse(words: Sequence[str]) -> Taken:
        of, name, location, read = words
        if of not in ("job", "stream"):
            raise ValueError(f"a job or a stream was expected, found {of!r}")
        return Taken(of, name, location, int(read))  # type: ignore[arg-type]

    def after(self, rows: int) -> Taken:
        return Taken(self.of, self.name, self.location, self.read + rows)


@dataclass(frozen=True, slots=True)
class Ready:
    """Rows that can be read now."""

    taken: Taken
    rows: RowIterator | _EmptyRowIterator | None = None  # of a job, over REST


def table_streams(
    server: Server,
    table: TableId,
    columns: Sequence[Declared],
    *,
    at: int,
    restriction: str = "",
    most: int = 1,
) -> list[Taken]:
    """Streams that together hold the rows of a table as it was then; none where there is no row.

    Only where there is the Storage Read API.
    """
    place = f"projects/{server.project}/datasets/{table.namespace}/tables/{table.name}"
    names = [column.name for column in columns]
    return _streams(
        server, place, names, f"read {table}", at=at, restriction=restriction, most=most
    )


def begin_query(server: Server, statement: str, *, doing: str) -> Taken:
    job = server.begin(statement, doing=doing)
    return Taken("job", str(job.job_id), job.location or "")


def wait(server: Server, taken: Taken, *, doing: str, seconds: float | None = None) -> Ready | None:
    """What can be read now; None while the query still runs after so many seconds.

    A large result is turned into a stream: what it is turned into must be remembered, since no
    other stream need have the same order.
    """
    if taken.of == "stream":
        return Ready(taken)
    with _kept(server, doing):
        job = server.begun(taken.name) or server.job(taken.name, taken.location or None)
    if not server.wait(job, doing=doing, seconds=seconds):
        return None
    with _kept(server, doing):
        rows = job.result(
            page_size=_REST_ROWS,
            start_index=taken.read or None,
            retry=RETRY,
            timeout=server.options.request_timeout,
            job_retry=None,
        )
    if taken.read or server.reader is None or (rows.total_rows or 0) <= _SMALL_RESULT:
        return Ready(taken, rows)
    result = _result_of(server, job, doing)
    if result is None:
        return Ready(taken, rows)
    place = f"projects/{result.project}/datasets/{result.dataset_id}/tables/{result.table_id}"
    return Ready(_streams(server, place, (), doing)[0])


def read(server: Server, ready: Ready, *, doing: str) -> Iterator[pa.RecordBatch]:
    """The rows from there on.  Vanished where they are not kept any more."""
    taken = ready.taken
    if ready.rows is not None:
        with _kept(server, doing):
            for batch in ready.rows.to_arrow_iterable():
                server.must_be_open()
                yield batch
        return
    reader = server.reader
    if reader is None:
        raise Vanished  # configured otherwise meanwhile
    with _kept(server, doing):
        # Without a timeout: it would be of the whole stream, which takes as long as its writing.
        schema: pa.Schema | None = None  # comes with the first message
        messages: Iterable[Any] = reader.read_rows(taken.name, taken.read)  # type: ignore[no-untyped-call]
        for message in messages:
            server.must_be_open()
            if schema is None:
                schema = ipc.read_schema(pa.py_buffer(message.arrow_schema.serialized_schema))
            packed = message.arrow_record_batch.serialized_record_batch
            yield ipc.read_record_batch(pa.py_buffer(packed), schema)


def parts(
    batches: Iterable[pa.RecordBatch], rows: Callable[[], int], full: int = FULL_BYTES
) -> Iterator[pa.Table]:
    """The same rows in parts of `rows`, asked anew for each, and fewer where they are large."""
    held: list[pa.RecordBatch] = []
    count = size = 0
    for batch in batches:
        each = max(1, batch.nbytes // max(1, batch.num_rows))
        while batch.num_rows:
            room = max(1, min(max(1, rows()) - count, (full - size) // each))
            piece = batch.slice(0, room)
            batch = batch.slice(piece.num_rows)
            held.append(piece)
            count += piece.num_rows
            size += piece.num_rows * each
            if count >= rows() or size + each > full:
                yield pa.Table.from_batches(held)
                held, count, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def cells(part: pa.Table, columns: Sequence[Declared]) -> list[Cells]:
    """A part as columns of carriers, in this order."""
    return [column.cells(part.column(column.name)) for column in columns]


def _result_of(
    server: Server, job: bigquery.QueryJob, doing: str
) -> bigquery.TableReference | None:
    """The table that holds a result.  Of a script it is that of its last query."""
    last: bigquery.QueryJob | None = job
    if job.statement_type == "SCRIPT":
        last = _last_query_of(server, job, doing)
    result: bigquery.TableReference | None = last.destination if last is not None else None
    return result


def _last_query_of(server: Server, job: bigquery.QueryJob, doing: str) -> bigquery.QueryJob | None:
    with server.meaning(doing):
        found = server.client.list_jobs(
            parent_job=str(job.job_id), retry=RETRY, timeout=server.options.request_timeout
        )
        # The newest comes first.
        queries = [j for j in found if isinstance(j, bigquery.QueryJob)]
    return next((j for j in queries if j.statement_type == "SELECT"), None)


def _streams(
    server: Server,
    place: str,
    names: Sequence[str],
    doing: str,
    *,
    at: int | None = None,
    restriction: str = "",
    most: int = 1,
) -> list[Taken]:
    from google.cloud.bigquery_storage_v1 import types

    options = types.ReadSession.TableReadOptions(
        selected_fields=list(names), row_restriction=restriction
    )
    asked = types.ReadSession(table=place, data_format=types.DataFormat.ARROW, read_options=options)
    if at is not None:
        asked.table_modifiers = types.ReadSession.TableModifiers(snapshot_time=_moment(at))
    reader = server.reader
    if reader is None:
        raise AssertionError("asked only where there is the Storage Read API")
    with server.meaning(doing):
        session = reader.create_read_session(
            parent=f"projects/{server.project}",
            read_session=asked,
            max_stream_count=most,
            retry=STREAM_RETRY,
            timeout=server.options.request_timeout,
        )
    scanned, cap = session.estimated_total_bytes_scanned, server.options.maximum_bytes_billed
    if cap is not None and scanned > cap:  # nothing is billed before rows are read
        raise SourceRefused(
            f"at most {cap:,} bytes were expected to be billed, found that reading {place} scans "
            f"{scanned:,}; raise maximum_bytes_billed, or leave the table out",
            place=server.explainer.place,
        )
    return [Taken("stream", stream.name) for stream in session.streams]


def _moment(microseconds: int) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment


@contextmanager
def _kept(server: Server, doing: str) -> Iterator[None]:
    """As `Server.meaning`, but for what is not kept any more."""
    with server.meaning(doing):
        try:
            yield
        except api.GoogleAPICallError as error:
            if is_gone(error):
                raise Vanished from error
            raise
