"""A BigQuery that answers the real client's HTTP requests from memory, and keeps what it was asked.

The shapes are those of the REST API's documentation; answers to queries are given beforehand, the
first whose pattern is found in the statement.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from requests import PreparedRequest, Response

from warp.bigquery_client import Access
from warp.errors import SourceRefused
from warp.model import Capture, TableId, TableSettings
from warp.sources.bigquery import BigQuerySource, BigQuerySourceOptions
from warp.sources.bigquery.server import Server

ORDERS = TableId("shop", "orders")
NOW = 1_760_000_000_000_000  # microseconds: what the service's clock says
HOUR = 3_600_000_000


@dataclass
class Answer:
    """What a query that looks so is answered."""

    pattern: str
    fields: Sequence[tuple[str, str]] = ()
    rows: Sequence[Sequence[Any]] = ()
    error: tuple[int, str, str] | None = None  # status, reason, message
    looks: int = 0  # at the job, before it is done


@dataclass
class Asked:
    statement: str
    config: dict[str, Any]
    id: str


@dataclass
class Pretended:
    """The service, with one dataset and its tables."""

    tables: dict[str, dict[str, Any]]
    answers: list[Answer] = field(default_factory=list)
    hours: int = 168
    now: int = NOW
    requests: list[tuple[str, str]] = field(default_factory=list)
    jobs: dict[str, tuple[Asked, Answer]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)

    def asked(self, what: str = "") -> list[Asked]:
        """The queries that were run, not those that were only estimated."""
        return [asked for asked, _ in self.jobs.values() if what in asked.statement]

    # -- as an HTTP session

    is_mtls = False

    def mount(self, *_: Any) -> None: ...
    def close(self) -> None: ...

    def request(
        self, method: str, url: str, data: Any = None, headers: Any = None, timeout: Any = None
    ) -> Response:
        parts = urlsplit(url)
        path = parts.path.partition("/projects/p/")[2]
        self.requests.append((method, path))
        body = json.loads(data) if data else {}
        status, said = self._answer(method, path, body, parse_qs(parts.query))
        response = Response()
        response.status_code = status
        response._content = json.dumps(said).encode()
        response.headers["Content-Type"] = "application/json"
        response.request = PreparedRequest()
        response.request.method, response.request.url = method, url
        return response

    def _answer(
        self, method: str, path: str, body: dict[str, Any], query: dict[str, list[str]]
    ) -> tuple[int, dict[str, Any]]:
        if method == "POST" and path == "queries":
            return self._at_once(body)
        if method == "POST" and path == "jobs":
            return self._begun(body)
        found = re.fullmatch(r"(?:jobs|queries)/([^/]+)", path)
        if found and found[1] not in self.jobs:
            return _failure((404, "notFound", f"Not found: Job p:EU.{found[1]}"))
        if found and path.startswith("jobs/"):
            return 200, self._job(found[1])
        if found:
            return self._results(found[1], int(query.get("startIndex", ["0"])[0]))
        if path == "jobs":
            return 200, {"jobs": []}
        if path == "datasets":
            return 200, {"datasets": [{"datasetReference": _reference("")}]}
        if path == "datasets/shop":
            return 200, {
                "datasetReference": {"projectId": "p", "datasetId": "shop"},
                "location": "EU",
                "maxTimeTravelHours": str(self.hours),
            }
        if path == "datasets/shop/tables":
            return 200, {
                "tables": [
                    {"tableReference": _reference(name), "type": "TABLE"} for name in self.tables
                ]
            }
        if found := re.fullmatch(r"datasets/shop/tables/(\w+)", path):
            if found[1] in self.tables:
                return 200, {"tableReference": _reference(found[1]), **self.tables[found[1]]}
            return _failure((404, "notFound", f"Not found: Table p:shop.{found[1]}"))
        raise AssertionError(f"{method} {path}")

    def _find(self, statement: str) -> Answer:
        for answer in self.answers:
            if re.search(answer.pattern, statement):
                return answer
        if "CURRENT_TIMESTAMP()" in statement:
            return Answer("", [("f0_", "INTEGER")], [[self.now]])
        return Answer("", [("f0_", "INTEGER")], [])

    def _at_once(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = self._find(body["query"])
        if answer.error:
            return _failure(answer.error)
        return 200, {
            "jobComplete": True,
            "jobReference": {"projectId": "p", "jobId": "at-once", "location": "EU"},
            **_shown(answer, 0),
        }

    def _begun(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        config = body["configuration"]
        statement = config["query"]["query"]
        answer = self._find(statement)
        if answer.error:
            return _failure(answer.error)
        if config.get("dryRun"):
            return 200, {
                **body,
                "status": {"state": "DONE"},
                "statistics": {"query": {"totalBytesProcessed": "123456789"}},
            }
        name = body["jobReference"]["jobId"]
        self.jobs[name] = (Asked(statement, config, name), answer)
        self.looks[name] = 0
        return 200, self._job(name)

    def _job(self, name: str) -> dict[str, Any]:
        asked, answer = self.jobs[name]
        done = self.looks[name] >= answer.looks
        self.looks[name] += 1
        return {
            "jobReference": {"projectId": "p", "jobId": name, "location": "EU"},
            "configuration": asked.config,
            "status": {"state": "DONE" if done else "RUNNING"},
            "statistics": {
                "creationTime": str(int(time.time() * 1000)),
                "query": {"statementType": "SELECT"},
            },
        }

    def _results(self, name: str, start: int) -> tuple[int, dict[str, Any]]:
        _, answer = self.jobs[name]
        return 200, {
            "jobComplete": True,
            "jobReference": {"projectId": "p", "jobId": name, "location": "EU"},
            **_shown(answer, start),
        }


class PretendedAccess(Access):
    """Clients that talk to the pretended service."""

    def __init__(self, options: BigQuerySourceOptions, service: Pretended) -> None:
        super().__init__(options, SourceRefused)
        object.__setattr__(self, "_found", {"service": service})

    @property
    def has_storage(self) -> bool:
        return False

    def client(self) -> bigquery.Client:
        return bigquery.Client(
            "p",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            _http=self._found["service"],
        )


def orders(**more: Any) -> dict[str, Any]:
    """A table `orders` as REST describes it."""
    return {
        "type": "TABLE",
        "creationTime": str((NOW - 1000 * HOUR) // 1000),
        "numRows": "3",
        "numBytes": "100",
        "schema": {
            "fields": [
                {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
                {"name": "name", "type": "STRING"},
            ]
        },
        "tableConstraints": {"primaryKey": {"columns": ["id"]}},
        **more,
    }


def source_of(
    service: Pretended, capture: Capture = Capture.LOG, settings: Any = None, **options: Any
) -> BigQuerySource:
    said = {"connection_string": "bigquery://p/shop", **options}
    chosen = BigQuerySourceOptions.model_validate(said)

    def select(table: TableId) -> TableSettings | None:
        return TableSettings(table, table, "shop", capture=capture, **(settings or {}))

    return BigQuerySource(chosen, select, Server(chosen, PretendedAccess(chosen, service)))


def _reference(name: str) -> dict[str, str]:
    return {"projectId": "p", "datasetId": "shop", "tableId": name}


def _shown(answer: Answer, start: int) -> dict[str, Any]:
    rows = [
        {"f": [{"v": None if cell is None else str(cell)} for cell in row]}
        for row in answer.rows[start:]
    ]
    fields = [{"name": name, "type": type_, "mode": "NULLABLE"} for name, type_ in answer.fields]
    shown = {"schema": {"fields": fields}, "totalRows": str(len(answer.rows))}
    return {**shown, "rows": rows} if rows else shown


def _failure(error: tuple[int, str, str]) -> tuple[int, dict[str, Any]]:
    status, reason, message = error
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return status, {"error": {"code": status, "message": message, "errors": errors}}
