"""What each error of BigQuery or its clients means for the unit: wait, stop, or too far back.

The service says a reason beside its status, which tells more than the status; the Storage Read API,
over gRPC, says a status only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import contextmanager
from typing import Any, Final

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from requests.exceptions import RequestException

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.options import redact

_WAITING_REASONS: Final = frozenset(
    {
        "backendError",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "quotaExceeded",
        "rateLimitExceeded",
        "tableUnavailable",
        "timeout",
        "userRateLimitExceeded",
    }
)
_ADVICE: Final = {
    "accessDenied": "grant the right to the account; docs/sources/bigquery.md lists the roles",
    "billingNotEnabled": "enable billing for the project",
    "billingTierLimitExceeded": "the query needs a higher billing tier",
    "bytesBilledLimitExceeded": "raise `maximum_bytes_billed`, or read less: another strategy, a "
    "partitioned or clustered table, a longer polling_interval",
    "resourcesExceeded": "the query is too large for one worker of BigQuery; cluster the table by "
    "its key, or use another strategy",
}
# Seen in messages, with status 400: "Invalid snapshot time 1…", "Invalid time travel timestamp 1…
# for table …. Cannot read before 1…".
_TOO_FAR_BACK: Final = re.compile(
    r"invalid (?:snapshot time|time travel timestamp)|cannot read before|"
    r"earlier than (?:the )?(?:allowed time interval|allowed by time travel)",
    re.IGNORECASE,
)
_DENIED: Final = (api.Forbidden, api.Unauthorized, api.PermissionDenied, api.Unauthenticated)
_GONE: Final = (api.NotFound, api.FailedPrecondition)
# What a driver raises of the network, and what says that nobody answered in time.
_UNREACHED: Final = (RequestException, ConnectionError, WaitedTooLong, TimeoutError)


class Explainer:
    """Turns errors of one project's clients into ours."""

    def __init__(self, place: str) -> None:
        self.place = place

    def explain(self, error: BaseException, doing: str) -> WarpError:
        """`doing` completes "could not …"."""
        if isinstance(error, api.RetryError) and error.cause is not None:
            return self.explain(error.cause, doing)
        said = _words(error)
        passes = isinstance(error, auth.GoogleAuthError) and error.retryable
        if passes or isinstance(error, (auth.TransportError, *_UNREACHED)):
            return SourceUnavailable(
                f"a BigQuery that answers was expected; could not {doing}: {said}; look at the "
                "network and, for an emulator, at emulator_host",
                place=self.place,
            )
        if isinstance(error, auth.GoogleAuthError):
            return self._refused(
                doing, said, "check the credentials: credentials_file, impersonate"
            )
        if not isinstance(error, api.GoogleAPICallError):
            return WarpError(f"could not {doing}: {said}", place=self.place)
        reason = reason_of(error)
        if _TOO_FAR_BACK.search(said):
            return PositionLost(
                f"could not {doing}: {said}; run `cartridge-warp resync SCHEMA`, and poll more "
                "often than the time travel of the dataset reaches back",
                place=self.place,
            )
        if reason in _WAITING_REASONS or _passes(error):
            return SourceUnavailable(
                f"could not {doing}: {said}; it is tried again", place=self.place
            )
        if reason in _ADVICE:
            return self._refused(doing, said, _ADVICE[reason])
        if isinstance(error, _DENIED):
            return self._refused(doing, said, _ADVICE["accessDenied"])
        return self._refused(doing, said, "")

    def _refused(self, doing: str, said: str, advice: str) -> SourceRefused:
        text = f"could not {doing}: {said}" + (f"; {advice}" if advice else "")
        return SourceRefused(text, place=self.place)

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Errors of the clients inside leave as errors of ours."""
        try:
            yield
        except (api.GoogleAPIError, auth.GoogleAuthError, *_UNREACHED) as error:
            raise self.explain(error, doing) from error


def reason_of(error: BaseException) -> str:
    """The service's own word for it, such as `notFound`; empty where there is none."""
    errors: Any = getattr(error, "errors", None) or ()
    for one in errors:
        if isinstance(one, dict) and one.get("reason"):
            return str(one["reason"])
    return ""


def is_gone(error: BaseException) -> bool:
    """Does what was asked for not exist, or not any more: a table, a job, a stream of rows?"""
    return isinstance(error, _GONE) or reason_of(error) == "notFound"


def _passes(error: api.GoogleAPICallError) -> bool:
    code = error.code or 0
    return int(code) == 429 or int(code) >= 500


def _words(error: BaseException) -> str:
    """In one line and without a secret (guarantee 10)."""
    said = getattr(error, "message", None) or str(error) or type(error).__name__
    return " ".join(redact(str(said)).split())[:1_000]
