"""Requests to one project, each within its limits: how long, how often tried, how many bytes."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from google.api_core import exceptions as api
from google.api_core.retry import Retry, if_exception_type
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from warp.bigquery_client import Access
from warp.errors import SourceRefused, SourceUnavailable, WarpError
from warp.sources.bigquery.errors import Explainer
from warp.sources.bigquery.options import BigQuerySourceOptions

if TYPE_CHECKING:
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

# Whoever cannot be reached is told of within ten seconds; the unit waits and tries again by itself.
RETRY: Final = DEFAULT_RETRY.with_delay(initial=0.2, maximum=2.0).with_timeout(8.0)
STREAM_RETRY: Final = Retry(  # of the Storage Read API
    if_exception_type(api.ServiceUnavailable), initial=0.2, maximum=2.0, timeout=8.0
)
_LABELS: Final = {"application": "cartridge-warp"}  # so that the project's bills tell who asked
_REMEMBERED: Final = 8  # queries
_FIRST_LOOK, _SLOWEST_LOOK = 0.05, 1.0  # seconds between two looks at a running job


class Server:
    """One project as one unit asks it; in the hands of one thread, but for `close`."""

    def __init__(self, options: BigQuerySourceOptions, access: Access | None = None) -> None:
        self.options = options
        self.access = access or Access(options, SourceRefused)
        self.explainer = Explainer(f"bigquery://{self.access.project}")
        self.closed = threading.Event()
        self._making = threading.Lock()
        self._client: bigquery.Client | None = None
        self._reader: BigQueryReadClient | None = None
        self._begun: dict[str, bigquery.QueryJob] = {}  # the last few, which need not be asked for

    def __repr__(self) -> str:
        return f"<Server {self.explainer.place}>"

    @property
    def project(self) -> str:
        return self.access.project

    @property
    def client(self) -> bigquery.Client:
        with self._making:
            self.must_be_open()
            if self._client is None:
                self._client = self.access.client()
            return self._client

    @property
    def reader(self) -> BigQueryReadClient | None:
        """The Storage Read API; None where it is not to be used."""
        if not (self.options.storage_api and self.access.has_storage):
            return None
        with self._making:
            self.must_be_open()
            if self._reader is None:
                self._reader = self.access.reader()
            return self._reader

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Errors of the clients inside leave as errors of ours."""
        try:
            with self.explainer.meaning(doing):
                yield
        except (WarpError, ValueError):  # of a channel that is closed
            self.must_be_open()
            raise

    def must_be_open(self) -> None:
        if self.closed.is_set():
            raise SourceUnavailable("the connector was closed", place=self.explainer.place)

    # -- queries

    def ask(self, statement: str, *, doing: str) -> list[tuple[Any, ...]]:
        """A few rows."""
        with self.meaning(doing):
            rows = self.client.query_and_wait(
                statement,
                job_config=self._config(),
                retry=RETRY,
                job_retry=None,  # type: ignore[arg-type]  # None is documented: do not run it again
                api_timeout=self.options.request_timeout,
                wait_timeout=self.options.request_timeout,
            )
            return [row.values() for row in rows]

    def begin(self, statement: str, *, doing: str) -> bigquery.QueryJob:
        """Have a query run, under a name of ours; `wait` tells when it is done."""
        name = f"cartridge_warp_{uuid.uuid4().hex}"
        with self.meaning(doing):
            try:
                job = self.client.query(
                    statement,
                    job_config=self._config(),
                    job_id=name,
                    retry=RETRY,
                    job_retry=None,
                    timeout=self.options.request_timeout,
                )
            except api.Conflict:
                # The request was sent twice, and the first has come through.
                return self.job(name, None)
        self._begun = {name: job} if len(self._begun) >= _REMEMBERED else {**self._begun, name: job}
        return job

    def job(self, name: str, location: str | None) -> bigquery.QueryJob:
        found = self.client.get_job(
            name, location=location, retry=RETRY, timeout=self.options.request_timeout
        )
        if not isinstance(found, bigquery.QueryJob):
            raise SourceRefused("a query was expected, found another job", place=name)
        return found

    def begun(self, name: str) -> bigquery.QueryJob | None:
        """A query of ours of just now, none of whose rows were read: it keeps its first ones."""
        return self._begun.pop(name, None)

    def wait(self, job: bigquery.QueryJob, *, doing: str, seconds: float | None = None) -> bool:
        """Is it done within so many seconds?  Its failure is raised."""
        deadline = None if seconds is None else time.monotonic() + seconds
        pause = _FIRST_LOOK
        with self.meaning(doing):
            while job.state != "DONE":
                self.closed.wait(pause)
                self.must_be_open()
                pause = min(_SLOWEST_LOOK, pause * 1.5)
                job.reload(retry=RETRY, timeout=self.options.request_timeout)
                if job.state != "DONE" and deadline is not None and time.monotonic() > deadline:
                    return False
            if job.error_result is not None:
                job.result(retry=RETRY, timeout=self.options.request_timeout, job_retry=None)
        return True

    def estimate(self, statement: str, *, doing: str) -> int:
        """Bytes that a query would process, asked by a dry run, which costs nothing."""
        with self.meaning(doing):
            job = self.client.query(
                statement,
                job_config=self._config(dry_run=True, use_query_cache=False),
                retry=RETRY,
                job_retry=None,
                timeout=self.options.request_timeout,
            )
        return int(job.total_bytes_processed or 0)

    def now(self) -> int:
        """The service's clock, in microseconds since 1970-01-01 UTC; it bills no bytes."""
        [(now,)] = self.ask("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())", doing="read the clock")
        return int(now)

    def _config(self, **more: Any) -> bigquery.QueryJobConfig:
        options: Mapping[str, Any] = {"labels": _LABELS, **more}
        config = bigquery.QueryJobConfig(**options)
        if self.options.maximum_bytes_billed is not None:
            config.maximum_bytes_billed = self.options.maximum_bytes_billed
        return config

    def close(self) -> None:
        self.closed.set()
        with self._making:
            if self._client is not None:
                self._client.close()  # type: ignore[no-untyped-call]
            if self._reader is not None:
                self._reader.transport.close()  # type: ignore[no-untyped-call]
