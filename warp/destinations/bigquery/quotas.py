"""How often BigQuery may be written to, and how large a batch must be so that it is enough.  Pure.

The limits are those of the quotas page as far as we could read them; docs/destinations/bigquery.md
says which were taken from where.  Load jobs are what runs out: a table takes 1,500 a day, failed
ones included, so staging tables are turned over; and all of a project's share 100,000.  Statements
that change rows have no limit a day, but 25 in ten seconds for each table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400.0
LOADS_OF_A_TABLE: Final = 1_500  # a day
LOADS_OF_A_PROJECT: Final = 100_000  # a day
STATEMENTS_OF_A_TABLE: Final = 25  # in ten seconds
STATEMENTS_OF_A_BATCH: Final = 6  # that change one table in one transaction, at most
TABLES_OF_A_TRANSACTION: Final = 100  # that it changes
# Each of a batch's tables costs two of them: itself, and its own row; a few more are ours.
TABLES_OF_A_BATCH: Final = (TABLES_OF_A_TRANSACTION - 6) // 2
BURST: Final = 120  # loads that may come at once, after a quiet time


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one unit may spend."""

    loads_a_day: int

    @staticmethod
    def of(*, staging_tables: int, loads_per_day: int, units: int) -> Allowance:
        """A unit's share: of its own staging tables, and of the project.

        What came at once after a quiet time is spent too, so it is set aside beforehand.
        """
        own = staging_tables * LOADS_OF_A_TABLE
        share = max(1, loads_per_day // units)
        least = min(own, share)
        return Allowance(max(1, least - min(BURST, least // 2)))

    @property
    def burst(self) -> int:
        return min(BURST, self.loads_a_day)

    @property
    def pause(self) -> float:
        """Seconds between two loads, for as long as it takes."""
        return DAY / self.loads_a_day

    def rows_a_batch(self, rows_a_second: float, tables: int = 1) -> int:
        """Rows that a batch must have, so that this rate holds all day; each table is a load."""
        return math.ceil(rows_a_second * self.seconds_a_batch(tables))

    def seconds_a_batch(self, tables: int = 1) -> float:
        """How far apart batches must be: by their loads, and by the statements on one table."""
        return max(self.pause * tables, 10.0 * STATEMENTS_OF_A_BATCH / STATEMENTS_OF_A_TABLE)


class Pacer:
    """Says how long to wait before the next loads; a bucket that fills with time."""

    def __init__(self, allowance: Allowance, now: float) -> None:
        self._allowance = allowance
        self._left = float(allowance.burst)
        self._at = now

    def spend(self, loads: int, now: float) -> float:
        """Take so many loads out, and answer with the seconds to wait before they are made."""
        self._left = min(
            float(self._allowance.burst),
            self._left + (now - self._at) / self._allowance.pause,
        )
        self._at = now
        self._left -= loads
        return max(0.0, -self._left * self._allowance.pause)
