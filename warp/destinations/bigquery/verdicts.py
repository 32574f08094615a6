"""What an answer of BigQuery's means for us.  Pure: by status, reason and words.

The words are BigQuery's own where a person is quoted in an issue or the documentation has them, and
the emulator's where it has others; `tests/unit/test_bigquery_verdicts.py` lists both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Verdict(Enum):
    """What to do next."""

    FENCED = "fenced"  # the marker is not as we left it: somebody newer is at work
    MOVED = "moved"  # a table's own row is not as it was looked at: look again
    PARTIAL = "partial"  # a table without a key was not read whole
    CONFLICT = "conflict"  # another transaction on the same table was first: once more, soon
    BUSY = "busy"  # the service is: once more, later
    QUOTA = "quota"  # a limit of the day or the minute is used up: once more, much later
    GONE = "gone"  # what was asked for is not there
    EXISTS = "exists"  # what was to be made is there: a job of this id above all
    DENIED = "denied"  # a right or a login is missing
    REFUSED = "refused"  # the request is wrong, and stays wrong
    UNKNOWN = "unknown"  # nobody told the outcome: ask for it


FENCE: Final = "cartridge-warp: the marker moved"
TABLE: Final = "cartridge-warp: the table moved"
WHOLE: Final = "cartridge-warp: not read whole"
"""What an ASSERT of ours says when it fails."""

_OURS: Final = ((FENCE, Verdict.FENCED), (TABLE, Verdict.MOVED), (WHOLE, Verdict.PARTIAL))

_CONFLICTS: Final = re.compile(
    r"aborted due to concurrent update"
    r"|could not serialize access to table"
    r"|concurrent (?:update|modification|transaction)"
    # local-bigquery, at COMMIT; and DuckDB below it
    r"|failed to commit ducklake transaction"
    r"|transaction conflict"
    r"|conflict on (?:update|tuple)",
    re.IGNORECASE,
)
_BUSY: Final = re.compile(
    r"too many dml statements outstanding"
    r"|exceeded rate limits"
    r"|visibility check was unavailable"
    r"|please (?:re)?try(?: again)?"
    r"|retrying (?:the job )?may solve"
    r"|query exceeded resource limits"
    r"|resources exceeded during query execution",
    re.IGNORECASE,
)
_QUOTAS: Final = re.compile(r"quota exceeded|exceeded (?:its )?quota", re.IGNORECASE)
_DENIALS: Final = re.compile(
    r"access denied|permission|billing has not been enabled|not authorized|vpc service controls",
    re.IGNORECASE,
)
_BUSY_REASONS: Final = frozenset(
    {
        *("backendError", "internalError", "jobBackendError", "jobInternalError"),
        *("rateLimitExceeded", "jobRateLimitExceeded", "resourcesExceeded", "resourceInUse"),
        *("tableUnavailable", "timeout", "stopped"),
    }
)
_QUOTA_REASONS: Final = frozenset({"quotaExceeded", "billingTierLimitExceeded"})
_DENIED_REASONS: Final = frozenset(
    {"accessDenied", "billingNotEnabled", "blocked", "required", "authError", "forbidden"}
)


def judge(status: int, reason: str, message: str) -> Verdict:
    """The verdict of one answer; `reason` may be empty."""
    for words, verdict in _OURS:
        if words in message:
            return verdict
    if _CONFLICTS.search(message):
        return Verdict.CONFLICT
    if reason in _DENIED_REASONS or status == 401:
        return Verdict.DENIED
    # BigQuery says 403 both of a missing right and of a limit: the reason tells them apart.
    if reason in _BUSY_REASONS or status == 429 or status >= 500 or _BUSY.search(message):
        return Verdict.BUSY
    if reason in _QUOTA_REASONS or _QUOTAS.search(message):
        return Verdict.QUOTA
    if reason == "duplicate" or status == 409:
        return Verdict.EXISTS
    if reason == "notFound" or status == 404:
        return Verdict.GONE
    if status == 403 or _DENIALS.search(message):
        return Verdict.DENIED
    return Verdict.REFUSED


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person does about a refusal."""

    words: re.Pattern[str]
    mend: str


ADVICE: Final = (
    Advice(
        re.compile("streaming buffer", re.IGNORECASE),
        "somebody writes to this table by insertAll, whose rows cannot be changed for up to 30 "
        "minutes; let only cartridge-warp write to it",
    ),
    Advice(
        re.compile("billing|free tier", re.IGNORECASE),
        "enable billing for the project: without it there is no MERGE",
    ),
    Advice(
        re.compile("location", re.IGNORECASE),
        "set `location` to the datasets' own, such as EU",
    ),
    Advice(
        re.compile("partition filter|filter over column", re.IGNORECASE),
        "ALTER TABLE … SET OPTIONS (require_partition_filter = false): rows are found by their key",
    ),
)
RIGHTS: Final = (
    "grant roles/bigquery.jobUser on the project and roles/bigquery.dataEditor on the datasets; "
    "docs/destinations/bigquery.md lists the single rights"
)


def advice(message: str) -> str:
    return next((one.mend for one in ADVICE if one.words.search(message)), "")
