"""Requests to BigQuery one by one, against a client that answers what a test says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import google.api_core.exceptions as google_errors
import pytest
import requests
from google.auth.exceptions import RefreshError

from warp.destinations.bigquery import session as session_module
from warp.destinations.bigquery.options import BigQueryDestinationOptions
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.verdicts import Verdict
from warp.errors import DestinationRefused, DestinationUnavailable
from warp.retry import Backoff

told: Any = google_errors  # it is not annotated
LOST = requests.exceptions.ConnectionError("reset")


class Client:
    """Answers in turn: an exception is raised, anything else is a job in that state."""

    def __init__(self, sent: list[Any], asked: list[Any]) -> None:
        self.sent, self.asked = sent, asked
        self.ids: list[str] = []

    def query(self, statement: str, *, job_id: str, **options: Any) -> Any:
        assert options["retry"] is None
        assert options["job_retry"] is None
        self.ids.append(job_id)
        return self._next(self.sent, job_id)

    def get_job(self, job_id: str, **options: Any) -> Any:
        return self._next(self.asked, job_id)

    @staticmethod
    def _next(answers: list[Any], job_id: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        state, failed = answer
        return SimpleNamespace(job_id=job_id, state=state, error_result=failed)


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_AGAIN", Backoff(max_retries=2, base=1e-6, cap=1e-6))


def session_with(sent: list[Any], asked: list[Any]) -> tuple[Session, Client]:
    options = BigQueryDestinationOptions.model_validate(
        {"connection_string": "bigquery://project", "emulator_host": "127.0.0.1:1"}
    )
    session = Session(options)
    client = Client(sent, asked)
    session._client = client  # type: ignore[assignment]
    return session, client


DONE = ("DONE", None)
RUNNING = ("RUNNING", None)
THERE = told.Conflict("Already Exists: Job project:EU.j")


def test_a_lost_answer_is_asked_for_under_the_same_id_and_nothing_runs_twice() -> None:
    session, client = session_with([LOST, THERE], [RUNNING, DONE])
    session.transact(Script(["SELECT 1"]), "j")
    assert client.ids == ["j", "j"]
    assert client.asked == []


def test_a_job_that_failed_is_judged_by_its_words() -> None:
    failed = {
        "reason": "invalidQuery",
        "message": "Transaction is aborted due to concurrent update",
    }
    session, _ = session_with([RUNNING], [("DONE", failed)])
    with pytest.raises(Told) as caught:
        session.transact(Script(["SELECT 1"]), "j")
    assert caught.value.verdict is Verdict.CONFLICT


def test_where_nobody_answers_the_outcome_is_unknown() -> None:
    session, client = session_with([LOST] * 3, [])
    with pytest.raises(Told) as caught:
        session.transact(Script(["SELECT 1"]), "j")
    assert caught.value.verdict is Verdict.UNKNOWN
    assert client.ids == ["j"] * 3


def test_a_job_that_does_not_end_has_an_unknown_outcome() -> None:
    session, _ = session_with([RUNNING], [])
    session.options.__dict__["commit_timeout"] = 0.0
    with pytest.raises(Told) as caught:
        session.transact(Script(["SELECT 1"]), "j")
    assert caught.value.verdict is Verdict.UNKNOWN


def test_a_refused_login_is_told_without_its_words() -> None:
    session, _ = session_with([RefreshError("token ya29.secret")], [])  # type: ignore[no-untyped-call]
    with pytest.raises(DestinationRefused) as caught, session.meaning("writing"):
        session.transact(Script(["SELECT 1"]), "j")
    assert "ya29" not in str(caught.value)
    assert "roles/bigquery.jobUser" in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (told.Forbidden("Access Denied: Dataset p:d"), DestinationRefused),
        (told.BadRequest("Syntax error"), DestinationRefused),
        (
            told.ServiceUnavailable("Visibility check was unavailable"),
            DestinationUnavailable,
        ),
        (told.Forbidden("Quota exceeded: Your project exceeded"), DestinationUnavailable),
    ],
)
def test_what_waiting_mends_is_told_apart_from_what_a_person_must_mend(
    error: Exception, expected: type[Exception]
) -> None:
    session, _ = session_with([error] * 3, [])
    with pytest.raises(expected), session.meaning("writing"):
        session.transact(Script(["SELECT 1"]), "j")
