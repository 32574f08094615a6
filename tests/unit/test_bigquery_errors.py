"""What errors of BigQuery mean: wait, stop, or too far back."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.sources.bigquery.errors import Explainer

api: Any = exceptions  # whose constructors have no types
auth: Any = auth_exceptions


def failure(kind: Any, reason: str, message: str) -> Exception:
    error: Exception = kind(message, errors=[{"reason": reason, "message": message}])
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (failure(api.Forbidden, "rateLimitExceeded", "Exceeded rate limits"), SourceUnavailable),
        (failure(api.Forbidden, "quotaExceeded", "Quota exceeded"), SourceUnavailable),
        (failure(api.BadRequest, "jobInternalError", "An error occurred"), SourceUnavailable),
        (failure(api.BadRequest, "backendError", "Retrying may solve it"), SourceUnavailable),
        (failure(api.ServiceUnavailable, "", "503"), SourceUnavailable),
        (failure(api.TooManyRequests, "", "429"), SourceUnavailable),
        (api.DeadlineExceeded("504"), SourceUnavailable),
        (api.RetryError("timed out", api.BadGateway("502")), SourceUnavailable),
        (requests.ConnectionError("refused"), SourceUnavailable),
        (auth.TransportError("no route"), SourceUnavailable),
        (auth.RefreshError("invalid_grant"), SourceRefused),
        (failure(api.Forbidden, "accessDenied", "Access Denied"), SourceRefused),
        (failure(api.Unauthorized, "authError", "Login required"), SourceRefused),
        (api.PermissionDenied("bigquery.readsessions.create denied"), SourceRefused),
        (failure(api.NotFound, "notFound", "Not found: Dataset"), SourceRefused),
        (failure(api.BadRequest, "invalidQuery", "Syntax error"), SourceRefused),
        (failure(api.BadRequest, "bytesBilledLimitExceeded", "limit"), SourceRefused),
        (
            failure(
                api.BadRequest,
                "invalid",
                "Invalid snapshot time 1 for Table x. Cannot read before 2",
            ),
            PositionLost,
        ),
        (api.InvalidArgument("request failed: Invalid snapshot time 1"), PositionLost),
    ],
)
def test_each_error_means_one_thing(error: Exception, meaning: type[WarpError]) -> None:
    assert type(Explainer("bigquery://p").explain(error, "read")) is meaning


def test_the_words_of_the_service_are_kept_but_no_secret() -> None:
    error = failure(api.BadRequest, "invalidQuery", "near password=hunter2\nline two")
    said = str(Explainer("bigquery://p").explain(error, "read shop.orders"))
    assert "could not read shop.orders" in said
    assert "line two" in said
    assert "hunter2" not in said
