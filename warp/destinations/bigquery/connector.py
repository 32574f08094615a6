"""BigQuery as a destination: what each call of the connector does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel

from warp import replays, stored
from warp.compact import Compacted
from warp.destinations.bigquery import ddl, markers, merge, quarantine, verdicts
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.comparing import BigQueryComparing
from warp.destinations.bigquery.ddl import Ddl
from warp.destinations.bigquery.groups import Groups
from warp.destinations.bigquery.look import look
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.merge import Beside
from warp.destinations.bigquery.metadata import BigQueryMetadata, places
from warp.destinations.bigquery.options import BigQueryDestinationOptions
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Spent
from warp.destinations.bigquery.staging import Staging
from warp.destinations.bigquery.tables import Table
from warp.destinations.bigquery.transaction import Transactions
from warp.destinations.bigquery.verifications import BigQueryVerifications
from warp.destinations.sql.landing import selected
from warp.diagnosis import refuse
from warp.errors import DestinationRefused, FenceBehind
from warp.interfaces import DestinationTraits
from warp.kinds import converter
from warp.model import (
    Aside,
    ChangeBatch,
    Choice,
    Diagnosis,
    Finding,
    Lease,
    Marker,
    Phase,
    QuarantinedRow,
    Replay,
    SchemaChange,
    SetAside,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.staged import NOTHING_SAID, Said, counted, stage


class BigQueryDestination:
    """Writes to BigQuery: Parquet load jobs into staging tables, then one transaction per batch."""

    Options: ClassVar[type[BaseModel]] = BigQueryDestinationOptions
    traits: ClassVar[DestinationTraits] = DestinationTraits(
        best_batch_rows=50_000,
        # A transaction takes seconds whatever is in it, and a load job counts against the day.
        prompt_seconds=5.0,
        backlog_seconds=20.0,
        most_rows=200_000,
        sizes_batches=True,
        idle_marker_seconds=15.0,
        # A load, then a transaction, each as long as `commit_timeout` is by default; every request
        # has an end of its own, so nothing hangs behind it.
        slowest_write_seconds=600.0,
        compares=True,
    )

    def __init__(self, options: BigQueryDestinationOptions, selection: TableSelection) -> None:
        self._selection = selection
        self._session = Session(options)
        self._groups = Groups(self._session)
        self._numbers = Numbers()
        self._staging = Staging(self._session)
        self._ddl = Ddl(self._session, self._groups, self._numbers)
        self._metadata = BigQueryMetadata(
            self._session,
            self._groups,
            self._numbers,
            selection,
            self._settle_rows,
            self._count_as_older,
        )
        self._transactions = Transactions(
            self._session, selection, self._groups, self._metadata, self._staging, self._numbers
        )

    @property
    def spent(self) -> Spent:
        """What this connector has cost so far."""
        return self._session.spent

    def check(self) -> None:
        refuse(self._look(), DestinationRefused, place=self._session.place)

    def diagnose(self) -> list[Diagnosis]:
        return self._look()

    def _look(self) -> list[Diagnosis]:
        return look(self._session, getattr(self._selection, "destination_namespace", None))

    def open(self, lease: Lease) -> Marker:
        unit = lease.unit
        self._staging.belong_to(lease)
        self._transactions.forget()
        with self._session.meaning(f"adopting {unit.id}"):
            marker = self._adopt(lease)
        marker = replace(marker, fence=lease.fence, owner=lease.owner)
        return marker if marker.unit.chunk else replace(marker, unit=unit)

    def _adopt(self, lease: Lease) -> Marker:
        unit = lease.unit
        sent = False
        seen: list[Marker] = []

        def make() -> Script | None:
            nonlocal sent
            marker = self._groups.marker(unit)
            if marker is None:
                self._groups.register(unit, position=None, phase=Phase.PLANNED)
                marker = self._groups.marker(unit)
            if marker is None:
                raise AssertionError("the marker was just registered")
            seen.append(marker)
            if sent and (marker.fence, marker.owner) == (lease.fence, lease.owner):
                return None  # an earlier try, whose outcome nobody told
            if marker.fence >= lease.fence:
                raise FenceBehind(
                    f"expected a fence below {lease.fence}, found {marker.fence}; refence or drop "
                    "the unit",
                    found=marker.fence,
                    place=unit.id,
                )
            sent = True
            script = Script()
            group = {"group": self._groups.quoted(markers.group_of(unit))}
            script.named("adopt_marker", group, unit=unit.id, fence=lease.fence, owner=lease.owner)
            script.require_one(verdicts.TABLE)
            if marker.phase is not Phase.DONE:
                if unit.kind is UnitKind.CHUNK:
                    script.named("forget_set_aside", places(self._session), unit=unit.id)
                # Rows of a run that was cut short.
                if table := self._transactions.read_whole(unit):
                    script.add(merge.purge(table))
            return script

        self._session.patiently(make)
        return seen[-1]

    def get_schema(self, table: TableId) -> TableSchema | None:
        settings = self._selection(table)
        if settings is None:
            return None
        self._transactions.forget()
        with self._session.meaning(f"reading the schema of {settings.destination}"):
            found = self._ddl.current(settings)
        return None if found is None else found.schema

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        self._transactions.forget()
        for change in changes:
            settings = self._settings_of(change.table)
            with self._session.meaning(f"{change.change} on {settings.destination}"):
                self._ddl.apply(settings, change)

    def missing(self, changes: TableChanges) -> list[int]:
        settings = self._settings_of(changes.table)
        schema = changes.schema
        if schema is None:
            raise AssertionError("rows shaped into columns")
        with self._session.meaning(f"looking for rows of {settings.destination}"):
            group = self._groups.of_table(settings.schema, changes.table)
            table = ddl.registered(group)
            if table is None:
                return list(range(len(changes)))
            state = group.table
            below = state.stale_below if state else -1
            names = schema.names()
            keys = [changes.columns[names.index(one.column.name)] for one in table.in_key]
            found = self._staging.standings(
                table, keys, changes.versions, soft=settings.soft_delete_column, audit=False
            )
            waiting = {aside.row.key for aside in self._metadata.quarantine(_undecided(settings))}
        asked = stage(
            schema, Compacted(bytes(changes.operations), changes.versions, changes.columns)
        )
        return [
            place
            for place, (standing, dead) in enumerate(found)
            if standing.version is None
            or dead
            or standing.version < below
            or (waiting and asked.key_of(place) in waiting)
        ]

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        started = time.monotonic()
        transactions = self._transactions
        if not transactions.was_committed(batch, marker):
            transactions.write(batch, marker, Said(quarantined, findings, replay))
        self._tidy_up_after(marker)
        deed = transactions.deed
        counts = counted(batch)
        counts.subtract(deed.missing)
        for what in transactions.replaying.unlanded if transactions.replaying else ():
            counts[what] -= 1
        return Written(
            {what: rows for what, rows in counts.items() if rows},
            quarantined=Counter(row.table for row in deed.aside if not row.column),
            seconds=time.monotonic() - started,
        )

    def update_marker(self, marker: Marker) -> None:
        if not self._transactions.was_committed(None, marker):
            self._transactions.write(None, marker, NOTHING_SAID)
        self._tidy_up_after(marker)

    def _tidy_up_after(self, marker: Marker) -> None:
        if marker.phase is Phase.DONE or (
            marker.unit.kind is UnitKind.REPLAY and marker.phase is Phase.IDLE
        ):
            with self._session.meaning(f"tidying up after {marker.unit.id}"):
                self._staging.tidy()

    def deferred_due(self, schema: str) -> bool:
        return False  # BigQuery enforces no foreign key, so nothing waits

    def metadata(self) -> BigQueryMetadata:
        return self._metadata

    def comparing(self) -> BigQueryComparing:
        return BigQueryComparing(self._session, self._groups, self._selection)

    def verifications(self) -> BigQueryVerifications:
        return BigQueryVerifications(
            self._session, self._groups, self._numbers, self._count_as_older
        )

    def close(self) -> None:
        self._session.close()

    def _settings_of(self, table: TableId) -> TableSettings:
        return selected(self._selection, table, place=self._session.place)

    # -- what the metadata does with rows, in its own transactions

    def _settle_rows(self, script: Script, group: Group) -> None:
        """Tombstones and rows that a new snapshot did not find again go, and what was set aside and
        is overruled by one of them with it."""
        table, state = ddl.registered(group), group.table
        settings = self._selection(markers.table_of(group.row))
        if table is None or state is None or settings is None:
            return
        if int(group.row["aside"]):
            self._supersede(script, table, state, settings)
        soft = settings.soft_delete_column
        landing = self._staging.landing(table, "", soft=soft, unit=group.unit)
        beside = Beside(state.position.token if state.position else "", "CAST(NULL AS STRING)")
        if table.schema.key:
            script.add(merge.purge(landing.table))
            if state.sweep_below > -1:
                merge.sweep(landing, script, beside, state.sweep_below)

    def _supersede(
        self, script: Script, table: Table, state: Marker, settings: TableSettings
    ) -> None:
        decisions: dict[int, tuple[str, str]] = {}
        rows: list[SetAside] = []
        keys: list[list[object]] = [[] for _ in table.in_key]
        for aside in self._metadata.quarantine(_undecided(settings)):
            if aside.row.version < state.sweep_below:
                why = f"the table was read anew at version {state.sweep_below}"
                decisions[aside.id] = (Aside.SUPERSEDED.value, why)
            elif (cells := _key_cells(table, aside.row)) is not None:
                rows.append(aside)
                for column, cell in zip(keys, cells, strict=True):
                    column.append(cell)
        standings = self._staging.standings(
            table,
            keys,
            [aside.row.version for aside in rows],
            soft=settings.soft_delete_column,
            audit=False,
        )
        for aside, (standing, _) in zip(rows, standings, strict=True):
            row = aside.row
            # A cell's row that is not there is a question for its replay, not for this table.
            if standing.version is not None and (
                why := replays.overruled(
                    row.operation, row.version, standing, cell=bool(row.column), truncated_at=-1
                )
            ):
                decisions[aside.id] = (Aside.SUPERSEDED.value, why)
        quarantine.decide(script, places(self._session), decisions)

    def _count_as_older(self, script: Script, unit: WorkUnit, newest: int) -> None:
        if unit.table is None:
            return
        table = ddl.registered(self._groups.of_table(unit.schema, unit.table))
        if table is not None and table.schema.key:  # without a key nothing is compared
            landing = self._staging.landing(table, "", soft=None, unit=unit.id)
            script.add(merge.count_as_older(landing, newest))


def _undecided(settings: TableSettings) -> Choice:
    """What may still land of a table's rows in quarantine."""
    states = (Aside.WAITING, Aside.REPLAYING)
    return Choice(states=states, table=str(settings.table), schemas=(settings.schema,))


def _key_cells(table: Table, row: QuarantinedRow) -> list[object] | None:
    """A stored key as the table has it now; None where it is this table's key no more."""
    try:
        carriers = stored.load(row.key, row.kinds)
        cells: list[object] = []
        for one in table.in_key:
            cell, have = carriers[one.column.name], row.kinds[one.column.name]
            if cell is not None and have != one.column.kind:
                convert = converter(type(one.column.kind)(have), one.column.kind)
                if convert is None:
                    return None
                cell = convert(cell)
            cells.append(cell)
    except (KeyError, ValueError):
        return None
    return cells
