"""What BigQuery says, and what we take it for: its own words, and the emulator's where they differ.

The words are quoted from issues where people met them, and from Google's page of errors.
"""

from __future__ import annotations

import pytest

from warp.destinations.bigquery.verdicts import FENCE, TABLE, WHOLE, Verdict, advice, judge

SAID = [
    # transactions that met
    (
        *(400, "invalidQuery"),
        "Transaction is aborted due to concurrent update against table p:d.t. Transaction ID: 1f",
        Verdict.CONFLICT,
    ),
    (
        *(400, "invalidQuery"),
        "Could not serialize access to table p:d.t due to concurrent update",
        Verdict.CONFLICT,
    ),
    (400, "invalidQuery", "Failed to commit DuckLake transaction.", Verdict.CONFLICT),
    (400, "", "TransactionContext Error: Transaction conflict: cannot commit", Verdict.CONFLICT),
    # our own assertions
    (400, "invalidQuery", f"Query error: {FENCE} at [4:1]", Verdict.FENCED),
    (400, "invalidQuery", f"Query error: {TABLE} at [6:1]", Verdict.MOVED),
    (400, "invalidQuery", f"{WHOLE}", Verdict.PARTIAL),
    # limits
    (
        *(403, "rateLimitExceeded"),
        "Exceeded rate limits: too many table update operations for this table.",
        Verdict.BUSY,
    ),
    (
        *(403, "rateLimitExceeded"),
        "Exceeded rate limits: too many api requests per user per method for this user_method.",
        Verdict.BUSY,
    ),
    (400, "jobRateLimitExceeded", "Job exceeded rate limits: Your table exceeded…", Verdict.BUSY),
    (
        *(400, "invalidQuery"),
        "Resources exceeded during query execution: Too many DML statements outstanding against "
        "table p:d.t, limit is 20.",
        Verdict.BUSY,
    ),
    (
        *(403, "quotaExceeded"),
        "Quota exceeded: Your table exceeded quota for imports or query appends per table.",
        Verdict.QUOTA,
    ),
    (
        *(403, "quotaExceeded"),
        "Quota exceeded: Your project exceeded quota for load jobs. For more information, see",
        Verdict.QUOTA,
    ),
    # the service
    (500, "internalError", "An internal error occurred and the request could not be", Verdict.BUSY),
    (
        503,
        "backendError",
        "Visibility check was unavailable. Please retry the request",
        Verdict.BUSY,
    ),
    (502, "", "Bad Gateway", Verdict.BUSY),
    (429, "", "Too Many Requests", Verdict.BUSY),
    (
        400,
        "jobBackendError",
        "Error encountered during execution. Retrying may solve",
        Verdict.BUSY,
    ),
    # what stays so
    (
        *(403, "accessDenied"),
        "Access Denied: Project p: User does not have bigquery.jobs.create permission in it.",
        Verdict.DENIED,
    ),
    (
        *(403, "billingNotEnabled"),
        "Billing has not been enabled for this project. DML queries are not allowed in the free "
        "tier.",
        Verdict.DENIED,
    ),
    (401, "authError", "Request had invalid authentication credentials.", Verdict.DENIED),
    (403, "", "Forbidden", Verdict.DENIED),
    (404, "notFound", "Not found: Table p:d.t was not found in location EU", Verdict.GONE),
    (409, "duplicate", "Already Exists: Job p:EU.cartridge_warp_1", Verdict.EXISTS),
    (400, "invalidQuery", "Syntax error: Unexpected identifier at [1:1]", Verdict.REFUSED),
    (
        *(400, "invalidQuery"),
        "UPDATE/MERGE must match at most one source row for each target row",
        Verdict.REFUSED,
    ),
    (
        *(400, "invalidQuery"),
        "UPDATE or DELETE statement over table d.t would affect rows in the streaming buffer, "
        "which is not supported",
        Verdict.REFUSED,
    ),
]


@pytest.mark.parametrize(("status", "reason", "message", "verdict"), SAID)
def test_what_bigquery_says_is_taken_for_what_it_is(
    status: int, reason: str, message: str, verdict: Verdict
) -> None:
    assert judge(status, reason, message) is verdict


def test_a_refusal_says_what_a_person_does() -> None:
    assert "insertAll" in advice("… would affect rows in the streaming buffer, which is not")
    assert "billing" in advice("Billing has not been enabled for this project")
    assert advice("Syntax error") == ""
