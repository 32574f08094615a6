"""The tables beside the markers: only added to, so that no two writers are in each other's way.

What has become of a row of the quarantine, and how a run ended, are lines too; the latest or the
first of them counts.  Made by hand of DDL that does no harm twice, each version a step forward.
"""

from __future__ import annotations

import random
import time
from typing import Final

VERSION: Final = 2

Columns = tuple[tuple[str, str], ...]

QUARANTINE: Final = "quarantine"
DECISIONS: Final = "quarantine_decisions"
AUDIT: Final = "deletion_audit"
RUNS: Final = "sync_runs"
ERRORS: Final = "error_log"
ERRANDS: Final = "errands"
REGISTRY: Final = "schema_registry"
VERIFICATIONS: Final = "verifications"
DIFFERENCES: Final = "differences"
DIFFERENCE_DECISIONS: Final = "difference_decisions"
SCHEMA_VERSION: Final = "schema_version"

_OF_TABLE: Final[Columns] = (("source_namespace", "STRING"), ("source_table", "STRING"))

TABLES: Final[dict[str, Columns]] = {
    QUARANTINE: (
        ("id", "INT64"),
        ("noted_at", "TIMESTAMP"),
        ("unit", "STRING"),
        ("schema_name", "STRING"),
        *_OF_TABLE,
        ("key", "STRING"),
        ("operation", "STRING"),
        ("row", "STRING"),
        ("reason", "STRING"),
        ("code", "STRING"),
        ("position", "STRING"),
        ("position_seconds", "FLOAT64"),
        ("version", "INT64"),
        ("kinds", "STRING"),
        ("partial", "BOOL"),
        ("column_name", "STRING"),
    ),
    DECISIONS: (
        ("id", "INT64"),
        ("noted_at", "TIMESTAMP"),
        ("state", "STRING"),
        ("tried", "BOOL"),
        ("error", "STRING"),
    ),
    AUDIT: (
        ("noted_at", "TIMESTAMP"),
        ("unit", "STRING"),
        ("position", "STRING"),
        ("run", "STRING"),
        *_OF_TABLE,
        ("reason", "STRING"),
        ("version", "INT64"),
        ("key", "STRING"),
        ("row", "STRING"),
        ("row_count", "INT64"),
    ),
    RUNS: (
        ("run", "STRING"),
        ("noted_at", "TIMESTAMP"),
        ("unit", "STRING"),
        ("schema_name", "STRING"),
        *_OF_TABLE,
        ("worker", "STRING"),
        ("fence", "INT64"),
        ("status", "STRING"),
        ("row_count", "INT64"),
        ("error", "STRING"),
        ("slot", "FLOAT64"),
    ),
    ERRORS: (
        ("id", "INT64"),
        ("noted_at", "TIMESTAMP"),
        ("code", "STRING"),
        ("error_class", "STRING"),
        ("message", "STRING"),
        ("schema_name", "STRING"),
        ("unit", "STRING"),
        ("run", "STRING"),
        *_OF_TABLE,
        ("column_name", "STRING"),
        ("key", "STRING"),
        ("position", "STRING"),
        ("action", "STRING"),
        # names what happened to the cells of one column; all lines of one are counted together
        ("finding", "STRING"),
        ("cells", "INT64"),
        ("original_length", "INT64"),
    ),
    ERRANDS: (
        ("id", "STRING"),
        ("name", "STRING"),
        ("arguments", "STRING"),
        ("status", "STRING"),
        ("result", "STRING"),
        ("added_at", "TIMESTAMP"),
    ),
    REGISTRY: (
        ("unit", "STRING"),
        ("version", "INT64"),
        ("schema_name", "STRING"),
        *_OF_TABLE,
        ("destination_dataset", "STRING"),
        ("destination_table", "STRING"),
        ("spec", "STRING"),
        ("change", "STRING"),
        ("noted_at", "TIMESTAMP"),
    ),
    # A line when a unit is planned, and one when it is done.
    VERIFICATIONS: (
        ("unit", "STRING"),
        ("noted_at", "TIMESTAMP"),
        ("schema_name", "STRING"),
        *_OF_TABLE,
        ("pass", "INT64"),
        ("repairs", "BOOL"),
        ("checked", "BOOL"),
        ("row_count", "INT64"),
        ("digest", "STRING"),
        ("looks", "INT64"),
        ("aside", "INT64"),
        ("unsettled", "INT64"),
        ("position", "STRING"),
        ("position_seconds", "FLOAT64"),
    ),
    DIFFERENCES: (
        ("id", "INT64"),
        ("noted_at", "TIMESTAMP"),
        ("unit", "STRING"),
        ("schema_name", "STRING"),
        *_OF_TABLE,
        ("pass", "INT64"),
        ("key", "STRING"),
        ("kinds", "STRING"),
        ("sort", "STRING"),
        ("column_names", "STRING"),
        ("version", "INT64"),
    ),
    # open, where there is none; repairing, repaired, gone, or forgotten: found anew
    DIFFERENCE_DECISIONS: (("id", "INT64"), ("noted_at", "TIMESTAMP"), ("state", "STRING")),
    SCHEMA_VERSION: (("version", "INT64"), ("noted_at", "TIMESTAMP")),
}

_SINCE: Final = 1_735_689_600_000_000  # 2025-01-01 in microseconds: ids stay readable


class Numbers:
    """Ids in the order they are drawn; two processes draw the same once in a thousand lifetimes.

    BigQuery has no sequences.
    """

    def __init__(self) -> None:
        self._last = 0
        self._mine = random.randrange(1000)

    def draw(self) -> int:
        now = int(time.time() * 1_000_000) - _SINCE
        self._last = max(self._last + 1, now)
        return self._last * 1000 + self._mine
