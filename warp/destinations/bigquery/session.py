"""One client: requests, jobs with ids of our own, and what their errors mean.

Google's library is told not to retry by itself: it would for ten minutes, and a transaction whose
outcome is not known must be asked for, never sent again blindly (guarantee 7).
"""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import google.api_core.exceptions as google_errors
import requests
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import bigquery

from warp import faults
from warp.bigquery_client import Access
from warp.destinations.bigquery import names, verdicts
from warp.destinations.bigquery.markers import COLUMNS
from warp.destinations.bigquery.options import BigQueryDestinationOptions
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.verdicts import Verdict
from warp.errors import DestinationRefused, DestinationUnavailable, WarpError
from warp.options import redact
from warp.retry import Backoff

if TYPE_CHECKING:
    from google.cloud.bigquery.job import LoadJob, QueryJob

_LOST: Final = (
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    TransportError,
    google_errors.RetryError,
)
ERRORS: Final = (google_errors.GoogleAPICallError, GoogleAuthError, *_LOST)
# Asked again after a moment: reads, and what has an id of its own, so that twice is once.
_AGAIN: Final = Backoff(max_retries=3, base=0.2, cap=2.0)
# Two transactions met on one table: whoever was cancelled lets the other one through.
PATIENCE: Final = Backoff(max_retries=12, base=0.1, cap=5.0)
# No retry of the library's own; its annotations do not know that this may be None.
ONCE: Final[Any] = None
_READERS: Final = 8  # requests at once where many small tables are read
_DONE: Final = "DONE"


T = TypeVar("T")


class Told(Exception):
    """BigQuery's answer to one request, judged; never leaves this package."""

    def __init__(self, verdict: Verdict, message: str) -> None:
        self.verdict = verdict
        self.message = message
        super().__init__(message)


@dataclass(slots=True)
class Spent:
    """What a session has cost so far: what a day's quota and the bill are counted in."""

    requests: int = 0
    loads: int = 0
    loaded_bytes: int = 0
    transactions: int = 0


class Session:
    """A client that is made when first used."""

    def __init__(self, options: BigQueryDestinationOptions) -> None:
        self.options = options
        self._access = Access(options, DestinationRefused)
        self._client: bigquery.Client | None = None
        self.spent = Spent()

    @property
    def project(self) -> str:
        return self._access.project

    @property
    def place(self) -> str:
        return f"bigquery://{self.project}"

    @property
    def client(self) -> bigquery.Client:
        if self._client is None:
            self._client = self._access.client()
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
            self._client = None

    # -- names

    def meta(self, table: str) -> str:
        """A table of the metadata, quoted."""
        return names.quoted(self.project, self.options.metadata_schema, table)

    # -- small requests

    def query(self, script: Script) -> list[Mapping[str, Any]]:
        """The rows a SELECT answers, or none of a statement that changes something twice alike."""
        return self.again(lambda: self._query(script.single(), script))

    def run(self, script: Script) -> int:
        """One statement that changes rows, in a transaction of its own; how many it changed."""
        statement = script.single()
        job = self.until_alone(
            lambda: self._finish(self._query_job(statement, script, self.new_id()))
        )
        return int(job.num_dml_affected_rows or 0)

    def _query(self, statement: str, script: Script) -> list[Mapping[str, Any]]:
        with self._request():
            found = self.client.query_and_wait(
                statement,
                job_config=self._config(script),
                retry=ONCE,
                job_retry=ONCE,
                api_timeout=self.options.request_timeout,
            )
            return [dict(row.items()) for row in found]

    def pages(self, script: Script, *, rows: int) -> Iterator[list[list[Any]]]:
        """The columns of a large answer, so many rows at a time.

        Over REST, where reading is for nothing and needs no further right.
        """
        with self._request():
            found = self.client.query_and_wait(
                script.single(),
                job_config=self._config(script),
                retry=ONCE,
                job_retry=ONCE,
                api_timeout=self.options.request_timeout,
                page_size=rows,
            )
            for batch in found.to_arrow_iterable():
                yield [column.to_pylist() for column in batch.columns]

    def each(self, statement: str) -> Iterator[Sequence[Any]]:
        """The rows of a large answer, as the client gives them."""
        with self._request():
            found = self.client.query_and_wait(
                statement,
                job_config=self._config(Script()),
                retry=ONCE,
                job_retry=ONCE,
                api_timeout=self.options.request_timeout,
            )
            for row in found:
                yield row.values()

    def ddl(self, statement: str) -> None:
        """A change of a table that does no harm when it is made twice."""
        script = Script([statement])
        self.again(lambda: self._query(statement, script))

    def dry_run(self, statement: str) -> None:
        config = bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)

        def ask() -> None:
            with self._request():
                self.client.query(
                    statement,
                    job_config=config,
                    retry=ONCE,
                    job_retry=ONCE,
                    timeout=self.options.request_timeout,
                )

        self.again(ask)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a small table of the metadata, read without a query, which is for nothing."""
        schema = _schema(COLUMNS)
        place = f"{self.project}.{self.options.metadata_schema}.{table}"

        def read() -> list[dict[str, Any]]:
            with self._request():
                found = self.client.list_rows(
                    bigquery.TableReference.from_string(place),
                    selected_fields=schema,
                    retry=ONCE,
                    timeout=self.options.request_timeout,
                )
                return [dict(row.items()) for row in found]

        try:
            return self.again(read)
        except Told as told:
            if told.verdict is Verdict.GONE:
                return []
            raise

    def many(self, tables: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of several such tables."""
        if len(tables) < 2:
            return [row for table in tables for row in self.rows(table)]
        with ThreadPoolExecutor(min(_READERS, len(tables))) as pool:
            return [row for rows in pool.map(self.rows, tables) for row in rows]

    def tables(self, prefix: str) -> list[str]:
        """Tables of the metadata whose name begins so."""

        def read() -> list[str]:
            with self._request():
                found = self.client.list_tables(
                    f"{self.project}.{self.options.metadata_schema}",
                    retry=ONCE,
                    timeout=self.options.request_timeout,
                )
                return sorted(t.table_id for t in found if t.table_id.startswith(prefix))

        try:
            return self.again(read)
        except Told as told:
            if told.verdict is Verdict.GONE:
                return []
            raise

    def table(self, dataset: str, table: str) -> bigquery.Table | None:
        """What BigQuery says of a table; None where there is none."""

        def read() -> bigquery.Table:
            with self._request():
                return self.client.get_table(
                    f"{self.project}.{dataset}.{table}",
                    retry=ONCE,
                    timeout=self.options.request_timeout,
                )

        try:
            return self.again(read)
        except Told as told:
            if told.verdict is Verdict.GONE:
                return None
            raise

    def dataset(self, name: str) -> bigquery.Dataset | None:
        def read() -> bigquery.Dataset:
            with self._request():
                return self.client.get_dataset(
                    f"{self.project}.{name}", retry=ONCE, timeout=self.options.request_timeout
                )

        try:
            return self.again(read)
        except Told as told:
            if told.verdict is Verdict.GONE:
                return None
            raise

    def make_dataset(self, name: str, *, expires: float | None = None) -> None:
        made = bigquery.Dataset(f"{self.project}.{name}")
        if self.options.region:
            made.location = self.options.region
        if expires is not None:
            made.default_table_expiration_ms = int(expires * 1000)

        def make() -> None:
            with self._request():
                self.client.create_dataset(
                    made, exists_ok=True, retry=ONCE, timeout=self.options.request_timeout
                )

        self.until_alone(lambda: self.again(make))

    def make_table(self, name: str, columns: Iterable[tuple[str, str]]) -> None:
        """A table of the metadata, unless it is there."""
        place = f"{self.project}.{self.options.metadata_schema}.{name}"
        made = bigquery.Table(place, schema=_schema(columns))

        def make() -> None:
            with self._request():
                self.client.create_table(
                    made, exists_ok=True, retry=ONCE, timeout=self.options.request_timeout
                )

        self.until_alone(lambda: self.again(make))

    def drop(self, dataset: str, table: str) -> None:
        def remove() -> None:
            with self._request():
                self.client.delete_table(
                    f"{self.project}.{dataset}.{table}",
                    not_found_ok=True,
                    retry=ONCE,
                    timeout=self.options.request_timeout,
                )

        self.until_alone(lambda: self.again(remove))

    # -- jobs

    def load(self, table: str, file: bytes, job_id: str) -> None:
        """A Parquet file, which says itself what it holds, takes the place of all rows of a staging
        table."""
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
        )
        place = f"{self.project}.{self.options.staging_dataset}.{table}"

        def send() -> LoadJob:
            return self.client.load_table_from_file(
                io.BytesIO(file),
                place,
                size=len(file),
                num_retries=0,
                job_id=job_id,
                job_config=config,
                timeout=self.options.request_timeout,
            )

        self.spent.loads += 1
        self.spent.loaded_bytes += len(file)
        self._finish(self._sent(send, job_id))

    def transact(self, script: Script, job_id: str = "") -> None:
        """All statements in one transaction; Told says what became of it where it did not commit.

        UNKNOWN where nobody could be asked: the caller reads the marker.
        """
        self.spent.transactions += 1
        job = self._query_job(script.transaction(), script, job_id or self.new_id())
        faults.hit("after_send")  # from here on it runs whether we live or not
        self._finish(job)

    def patiently(self, make: Callable[[], Script | None]) -> bool:
        """A transaction that decides by what it has read: made anew until nobody was faster.

        False where `make` finds nothing to do, which is how an outcome nobody told is found out.
        """
        waits = PATIENCE.delays()
        while (script := make()) is not None:
            try:
                self.transact(script)
                return True
            except Told as told:
                again = (Verdict.CONFLICT, Verdict.MOVED, Verdict.BUSY, Verdict.UNKNOWN)
                wait = next(waits, None) if told.verdict in again else None
                if wait is None:
                    raise
            time.sleep(wait)
        return False

    def once(self, statements: str, job_id: str) -> Told | None:
        """Statements outside any transaction, run once for this id whoever asks for them; how the
        job failed, if it did."""
        script = Script([statements])
        try:
            self._finish(self._query_job(statements, script, job_id))
        except Told as told:
            if told.verdict is Verdict.UNKNOWN:
                raise
            return told
        return None

    @staticmethod
    def new_id() -> str:
        return f"cartridge_warp_{uuid.uuid4().hex}"

    def _query_job(self, statement: str, script: Script, job_id: str) -> QueryJob:
        config = self._config(script)

        def send() -> QueryJob:
            return self.client.query(
                statement,
                job_config=config,
                job_id=job_id,
                retry=ONCE,
                job_retry=ONCE,
                timeout=self.options.request_timeout,
            )

        job: QueryJob = self._sent(send, job_id)
        return job

    def _sent(self, send: Any, job_id: str) -> Any:
        """The job, sent once under its id however often we must try."""
        try:
            return self.again(lambda: self._send(send))
        except Told as told:
            if told.verdict is not Verdict.EXISTS:
                raise
            return self.again(lambda: self._job(job_id))  # an answer that was lost on its way

    def _send(self, send: Any) -> Any:
        with self._request():
            return send()

    def _job(self, job_id: str) -> Any:
        with self._request():
            return self.client.get_job(job_id, retry=ONCE, timeout=self.options.request_timeout)

    def _finish(self, job: Any) -> Any:
        """Wait for a job's end; raises what it failed by."""
        deadline = time.monotonic() + self.options.commit_timeout
        pause = 0.1  # nothing here takes less
        job_id = job.job_id
        while job.state != _DONE:
            if time.monotonic() > deadline:
                raise Told(
                    Verdict.UNKNOWN,
                    f"expected job {job_id} to end within {self.options.commit_timeout:.0f} s, "
                    f"found it {job.state}",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
            job = self.again(lambda: self._job(job_id))
        failed = job.error_result
        if failed:
            message, reason = str(failed.get("message", "")), str(failed.get("reason", ""))
            raise Told(verdicts.judge(400, reason, message), message)
        return job

    def _config(self, script: Script) -> bigquery.QueryJobConfig:
        parameters = [
            _parameter(name, type_, value) for name, (type_, value) in script.values.items()
        ]
        return bigquery.QueryJobConfig(query_parameters=parameters, use_query_cache=False)

    # -- errors

    def again(self, ask: Callable[[], T]) -> T:
        """Once more, after a moment, where the service was busy or did not answer."""
        waits = _AGAIN.delays()
        while True:
            try:
                return ask()
            except Told as told:
                if told.verdict not in (Verdict.BUSY, Verdict.UNKNOWN):
                    raise
                wait = next(waits, None)
                if wait is None:
                    raise
            time.sleep(wait)

    @staticmethod
    def until_alone(ask: Callable[[], T]) -> T:
        """Once more where somebody else's change was first and so nothing of ours has happened."""
        waits = PATIENCE.delays()
        while True:
            try:
                return ask()
            except Told as told:
                wait = next(waits, None) if told.verdict is Verdict.CONFLICT else None
                if wait is None:
                    raise
            time.sleep(wait)

    @contextmanager
    def _request(self) -> Iterator[None]:
        """One request is made inside: it is counted, and its errors are judged."""
        self.spent.requests += 1
        try:
            yield
        except google_errors.GoogleAPICallError as error:
            raise Told(_verdict(error), _message(error)) from error
        except GoogleAuthError as error:
            lost = isinstance(error, TransportError)
            # Its words may quote a key or a token (guarantee 10).
            said = "the login server does not answer" if lost else "the login was refused"
            raise Told(Verdict.UNKNOWN if lost else Verdict.DENIED, said) from error
        except _LOST as error:
            raise Told(Verdict.UNKNOWN, f"no answer ({type(error).__name__})") from error

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Raise what BigQuery said as what the caller should do about it."""
        try:
            yield
        except Told as told:
            raise self.explain(told, doing) from told

    def explain(self, told: Told, doing: str) -> WarpError:
        said = redact(told.message.strip())
        match told.verdict:
            case Verdict.DENIED:
                mend = verdicts.advice(said) or verdicts.RIGHTS
                return DestinationRefused(f"{doing}: {said}; {mend}", place=self.place)
            case Verdict.REFUSED | Verdict.GONE | Verdict.EXISTS:
                mend = verdicts.advice(said) or "this stays so until somebody changes something"
                return DestinationRefused(f"{doing}: {said}; {mend}", place=self.place)
            case Verdict.QUOTA:
                return DestinationUnavailable(
                    f"{doing}: {said}; it is tried again; lower loads_per_day, or ask Google for "
                    "more",
                    place=self.place,
                )
            case _:
                return DestinationUnavailable(
                    f"{doing}: {said}; it is tried again", place=self.place
                )


def _verdict(error: google_errors.GoogleAPICallError) -> Verdict:
    status = int(error.code or 0)
    return verdicts.judge(status, _reason(error), _message(error))


def _reason(error: google_errors.GoogleAPICallError) -> str:
    for one in error.errors:
        if isinstance(one, Mapping) and one.get("reason"):
            return str(one["reason"])
    return ""


def _message(error: google_errors.GoogleAPICallError) -> str:
    return str(error.message or error)


def _schema(columns: Iterable[tuple[str, str]]) -> list[bigquery.SchemaField]:
    return [bigquery.SchemaField(name, type_) for name, type_ in columns]


def _parameter(
    name: str, type_: str, value: Any
) -> bigquery.ScalarQueryParameter | bigquery.ArrayQueryParameter:
    if type_.startswith("ARRAY<"):
        return bigquery.ArrayQueryParameter(name, type_[6:-1], value)
    return bigquery.ScalarQueryParameter(name, type_, value)
