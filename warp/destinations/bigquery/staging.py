"""Staging tables: what is loaded before a transaction, and what is asked about it.

Their names hold the unit and its fence, so nobody but the unit's present owner ever loads into
them: a worker that was paused over its load and lost the lease writes where nobody reads.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from warp.compact import Compacted
from warp.destinations.bigquery import books, merge, staged, tables
from warp.destinations.bigquery.merge import Landing
from warp.destinations.bigquery.names import digest, quoted
from warp.destinations.bigquery.quotas import Allowance, Pacer
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session
from warp.destinations.bigquery.spelling import Spelled
from warp.destinations.bigquery.staged import Staged, stage
from warp.destinations.bigquery.tables import Table
from warp.model import Cells, Lease, TableId, TableSchema
from warp.replays import Standing

# Longer than this a unit would look stuck to its worker; the next batch waits for the rest.
LONGEST_PAUSE: Final = 30.0


# A unit comes and goes, and its connectors with it: what it has spent stays.
_PACERS: Final[dict[tuple[str, str], Pacer]] = {}
_PACERS_LOCK: Final = threading.Lock()


def _pacer(session: Session, unit: str) -> Pacer:
    options = session.options
    with _PACERS_LOCK:
        found = _PACERS.get((session.place, unit))
        if found is None:
            allowance = Allowance.of(
                staging_tables=options.staging_tables,
                loads_per_day=options.loads_per_day,
                units=options.units,
            )
            found = _PACERS[session.place, unit] = Pacer(allowance, time.monotonic())
        return found


class Staging:
    """The staging tables of one unit."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._owner = f"nobody_{secrets.token_hex(8)}"
        self._pacer = _pacer(session, "")
        self._turns: Counter[TableId] = Counter()
        self._loads = 0
        self._used: set[str] = set()

    def belong_to(self, lease: Lease) -> None:
        # A fence is one owner's, in one metadata dataset; the rest tells those of a project apart.
        self._owner = f"{digest(lease.unit.id, 12)}_{lease.fence}_{secrets.token_hex(4)}"
        self._pacer = _pacer(self._session, lease.unit.id)

    def job_id(self, batch: int, attempt: int) -> str:
        """The same for every sending of the same attempt at the same batch."""
        return f"cartridge_warp_{self._owner}_{batch}_{attempt}"

    def next(self, table: TableId) -> str:
        """A staging table of this table that was not used for as long as there are others."""
        turn = self._turns[table] % max(2, self._session.options.staging_tables)
        name = f"stage_{self._owner}_{digest(str(table))}_{turn}"
        self._turns[table] += 1
        self._used.add(name)
        return name

    def landing(self, table: Table, staging: str, *, soft: str | None, unit: str) -> Landing:
        return Landing(
            table.schema,
            table.spelled,
            quoted(self._session.project, table.place.namespace, table.place.name),
            quoted(self._session.project, self._session.options.staging_dataset, staging),
            tables.soft_name(soft),
            unit,
            self._session.meta(books.AUDIT),
        )

    def pace(self, loads: int) -> None:
        """Wait, where a day's load jobs would not last."""
        wait = self._pacer.spend(loads, time.monotonic())
        if wait > 0:
            time.sleep(min(wait, LONGEST_PAUSE))

    def load(self, name: str, part: Staged, spelled: Sequence[Spelled], *, keys: bool) -> None:
        file = staged.parquet(part, spelled, keys=keys)
        self._loads += 1
        job = f"cartridge_warp_load_{self._owner}_{self._loads}"
        self._session.load(name, file, job)

    def tidy(self) -> None:
        """This unit is done; what is left otherwise goes by itself in two days."""
        for name in self._used:
            self._session.drop(self._session.options.staging_dataset, name)
        self._used.clear()

    # -- what a table has of some keys

    def standings(
        self,
        table: Table,
        keys: Sequence[Cells],
        versions: Sequence[int],
        *,
        soft: str | None,
        audit: bool,
    ) -> list[tuple[Standing, bool]]:
        """What the table has of each key, and whether that is a tombstone or nothing at all.

        `keys` are the key's columns in the order they have in the table.
        """
        if not versions:
            return []
        spelled = table.in_key
        schema = TableSchema(
            table.schema.table, tuple(one.column for one in spelled), table.schema.key
        )
        part = stage(schema, Compacted(b"u" * len(versions), versions, keys))
        name = self.next(schema.table)
        self.pace(1)
        self.load(name, part, spelled, keys=audit)
        only = Table(schema, tuple(spelled), table.place)
        landing = self.landing(only, name, soft=soft, unit="")
        there: list[tuple[int | None, bool, bool]] = [(None, False, True)] * len(versions)
        for row in self._session.query(Script([merge.standings(landing)])):
            there[row["n"]] = row["version"], bool(row["gone"]), bool(row["dead"])
        deleted = [-1] * len(versions)
        if audit:
            script = Script()
            script.add(merge.deletions(landing, script))
            for row in self._session.query(script):
                deleted[row["n"]] = row["version"]
        return [
            (Standing(version, gone, at), dead)
            for (version, gone, dead), at in zip(there, deleted, strict=True)
        ]
