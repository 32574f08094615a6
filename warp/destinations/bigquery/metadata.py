"""The bookkeeping beside the data: markers, plans, runs, errors, errands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from warp.destinations.bigquery import books, markers, quarantine, verdicts
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.groups import Groups
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.verdicts import Verdict
from warp.errors import DestinationRefused
from warp.model import (
    Choice,
    Chunk,
    ErrorLine,
    Intent,
    Lease,
    Marker,
    Phase,
    Position,
    SetAside,
    TableId,
    TableSelection,
    UnitKind,
    WorkUnit,
    schema_of,
)

# Five values for each chunk's row, of the ten thousand that one request may bind.
MOST_CHUNKS = 1_000
STAGED_FOR = 2 * 86_400.0  # seconds
_ANY_FENCE: Final = (1 << 63) - 1


class BigQueryMetadata:
    """`cartridge_warp_metadata`, a dataset."""

    def __init__(
        self,
        session: Session,
        groups: Groups,
        numbers: Numbers,
        selection: TableSelection,
        settle_rows: Callable[[Script, Group], None],
        count_as_older: Callable[[Script, WorkUnit, int], None],
    ) -> None:
        self._session = session
        self._groups = groups
        self._numbers = numbers
        self._selection = selection
        self._settle_rows = settle_rows
        self._count_as_older = count_as_older

    # -- the dataset itself

    def prepare(self) -> None:
        options = self._session.options
        with self._session.meaning("preparing the metadata dataset"):
            have = self._version()
            if have == books.VERSION:
                return
            if have is not None and have > books.VERSION:
                raise DestinationRefused(
                    f"expected metadata of version {books.VERSION} or older, found version {have}: "
                    "a newer cartridge-warp works here; upgrade this one",
                    place=f"{self._session.place} {options.metadata_schema}",
                )
            self._session.make_dataset(options.metadata_schema)
            self._session.make_dataset(options.staging_dataset, expires=STAGED_FOR)
            for name, columns in books.TABLES.items():  # the version's own is the last
                self._session.make_table(name, columns)
            script = Script()
            script.named(
                "add_version",
                {"versions": self._session.meta(books.SCHEMA_VERSION)},
                version=books.VERSION,
            )
            self._session.run(script)

    def prepared(self) -> bool:
        with self._session.meaning("looking for the metadata dataset"):
            return self._version() is not None

    def _version(self) -> int | None:
        """The newest step made; None where there is no metadata yet."""
        versions = self._session.meta(books.SCHEMA_VERSION)
        try:
            rows = self._session.query(Script([f"SELECT MAX(version) AS version FROM {versions}"]))
        except Told as told:
            if told.verdict is Verdict.GONE:
                return None
            raise
        return rows[0]["version"] if rows else None

    # -- markers

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        with self._session.meaning(f"registering {unit.id}"):
            return self._groups.register(unit, position=position, phase=phase)

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        with self._session.meaning("reading the markers"):
            return self._groups.all(kinds)

    def mark(self, unit_id: str, phase: Phase, *, seen: int | None = None) -> bool:
        with self._session.meaning(f"marking {unit_id} {phase}"):
            marker = self._marker(unit_id)
            if marker is None or (seen is not None and marker.fence > seen):
                return False
            group = self._groups.quoted(markers.group_of(marker.unit))
            most = _ANY_FENCE if seen is None else seen
            self._change("mark", {"group": group}, unit=unit_id, phase=phase.value, seen=most)
            now = self._marker(unit_id)
            return now is not None and now.fence > marker.fence

    def _marker(self, unit_id: str) -> Marker | None:
        return next((m for m in self._groups.all() if m.unit.id == unit_id), None)

    def _change(self, statement: str, places: dict[str, str], **values: Any) -> None:
        """One statement that is always to be made."""
        sent = False

        def make() -> Script | None:
            nonlocal sent
            script = Script()
            script.named(statement, places, **values)
            sent = True
            return script

        self._session.patiently(make)

    # -- snapshots

    def plan_snapshot(
        self, schema: str, table: TableId, chunks: Sequence[Chunk], *, version: int
    ) -> bool:
        if len(chunks) > MOST_CHUNKS:
            raise DestinationRefused(
                f"expected at most {MOST_CHUNKS} chunks of a table, found {len(chunks)}; raise "
                "chunk_rows of this table",
                place=str(table),
            )

        def make() -> Script | None:
            group = self._groups.of_table(schema, table)
            state = group.table
            if state is not None and state.phase is not Phase.PLANNED:
                return None
            epoch = int(group.row["epoch"])
            script = Script()
            # A first snapshot sweeps nothing: there is no earlier one whose rows could be gone.
            self._groups.bump(
                script,
                group,
                phase=("STRING", Phase.SNAPSHOT.value),
                sweep_below=("INT64", version if epoch else -1),
            )
            for chunk in chunks:
                unit = WorkUnit.of_chunk(schema, chunk, epoch)
                if unit.id not in group.markers:
                    self._groups.add(script, group.name, unit, phase=Phase.PLANNED)
            return script

        with self._session.meaning(f"planning the snapshot of {table}"):
            return self._session.patiently(make)

    def settle(self, schema: str, table: TableId) -> bool:
        def make() -> Script | None:
            group = self._groups.of_table(schema, table)
            state = group.table
            if state is None or state.phase is not Phase.SNAPSHOT:
                return None
            if any(m.phase is not Phase.DONE and m.epoch == state.epoch for m in group.chunks):
                return None
            if self._selection(table) is None:
                raise DestinationRefused(
                    f"expected a table of the configuration, found {table}; settle it with a "
                    "destination of its schema, which knows where it lies",
                    place=state.unit.id,
                )
            script = Script()
            self._groups.bump(script, group, phase=("STRING", Phase.STREAMING.value))
            self._settle_rows(script, group)
            return script

        with self._session.meaning(f"settling {table}"):
            return self._session.patiently(make)

    def read_anew(self, script: Script, group: Group) -> None:
        """A table becomes PLANNED under a new epoch, and its chunks are forgotten."""
        self._groups.bump(script, group, epoch="epoch + 1", phase=("STRING", Phase.PLANNED.value))
        self.remove_chunks(script, group)

    def remove_chunks(self, script: Script, group: Group) -> None:
        if group.chunks:
            script.add(f"DELETE FROM {self._groups.quoted(group.name)} WHERE kind = 'chunk'")

    def follow(self, stream: WorkUnit, follows: str, *, left: Sequence[WorkUnit]) -> bool:
        def make() -> Script | None:
            marker = self._groups.marker(stream)
            if marker is None or marker.follows == follows:
                return None
            script = Script()
            script.named(
                "follow",
                {"group": self._groups.quoted(markers.group_of(stream))},
                unit=stream.id,
                fence=marker.fence,
                spec=json.dumps({"follows": follows}),
            )
            script.require_one(verdicts.TABLE)
            for unit in left:
                if unit.table is not None:
                    self.read_anew(script, self._groups.of_table(unit.schema, unit.table))
            return script

        with self._session.meaning(f"saying what {stream.id} follows"):
            return self._session.patiently(make)

    def resync(
        self,
        schema: str,
        table: TableId | None,
        *,
        position: Position,
        stream: WorkUnit | None = None,
        newest: int | None = None,
    ) -> list[WorkUnit]:
        moves = table is None and stream is None
        stream = stream or WorkUnit.stream(schema)
        again: list[WorkUnit] = []
        with self._session.meaning(f"starting {table or schema} over"):
            if self._moved(stream, position, moves=moves):
                again.append(stream)
            groups = (
                [self._groups.of_table(schema, table)]
                if table is not None
                else self._groups.of_schema(schema)
            )
            # A transaction for each table: one may change a hundred tables at most.  Done again
            # after a fault half-way, it reads them anew once more, which is harmless.
            for group in groups:
                again += self._started_over(group, newest)
        return again

    def _moved(self, stream: WorkUnit, position: Position, *, moves: bool) -> bool:
        """The fence grows with the epoch: the running stream is shut out at once."""
        seen: Marker | None = None

        def make() -> Script | None:
            nonlocal seen
            marker = self._groups.marker(stream)
            if marker is None or (seen is not None and marker.epoch > seen.epoch):
                return None
            seen = marker
            script = Script()
            to = position if moves or marker.position is None else marker.position
            script.named(
                "resync_stream",
                {"group": self._groups.quoted(markers.group_of(stream))},
                unit=stream.id,
                fence=marker.fence,
                epoch=marker.epoch,
                **markers.place_of(to),
            )
            script.require_one(verdicts.TABLE)
            return script

        return self._session.patiently(make) or seen is not None

    def _started_over(self, group: Group, newest: int | None) -> list[WorkUnit]:
        table = WorkUnit(group.unit, UnitKind.TABLE, *_of(group.row))
        polls = [m.unit for m in group.markers.values() if m.unit.kind is UnitKind.POLL]
        first = int(group.row["epoch"])

        def make() -> Script | None:
            if table.table is None:
                raise AssertionError("the first row of a table's markers names the table")
            now = self._groups.of_table(table.schema, table.table)
            if int(now.row["epoch"]) > first:
                return None
            script = Script()
            changes: dict[str, Any] = {"epoch": "epoch + 1"}
            changes["phase"] = ("STRING", Phase.PLANNED.value)
            if newest is not None:
                changes["truncated_at"] = f"LEAST(truncated_at, {newest - 1})"
            self._groups.bump(script, now, **changes)
            self.remove_chunks(script, now)
            place = {"group": self._groups.quoted(now.name)}
            for poll in polls:
                script.named("resync_poll", place, unit=poll.id)
            if newest is not None:
                self._count_as_older(script, table, newest)
                for statement in ("count_quarantine_as_older", "count_audit_as_older"):
                    script.named(
                        statement,
                        self._places(),
                        namespace=table.table.namespace,
                        table=table.table.name,
                        newest=newest,
                    )
            return script

        self._session.patiently(make)
        return polls

    # -- runs, errors, errands

    def begin_run(self, lease: Lease, run: str, *, slot: float | None = None) -> None:
        unit = lease.unit
        group = self._groups.quoted(markers.group_of(unit))
        places = {"group": group, **self._places()}

        def make() -> Script:
            script = Script()
            script.named("abandon_run", places, unit=unit.id, run=run)
            script.named("mark_run", places, unit=unit.id, run=run, slot=("FLOAT64", slot))
            script.named(
                "add_run",
                places,
                run=run,
                unit=unit.id,
                schema=unit.schema,
                namespace=("STRING", unit.table.namespace if unit.table else None),
                table=("STRING", unit.table.name if unit.table else None),
                worker=lease.owner,
                fence=lease.fence,
                status="running",
                rows=0,
                error="",
            )
            return script

        with self._session.meaning(f"beginning a run of {unit.id}"):
            self._session.patiently(make)

    def slot_taken(self, unit_id: str, slot: float) -> bool:
        script = Script()
        script.named("slot_taken", self._places(), unit=unit_id, slot=float(slot))
        with self._session.meaning(f"asking for the last run of {unit_id}"):
            return bool(self._session.query(script))

    def end_run(self, run: str, *, status: str, rows: int, error: str = "") -> None:
        script = Script()
        script.named(
            "end_run", self._places(), run=run, status=status, rows=rows, error=storable(error)
        )
        with self._session.meaning(f"ending run {run}"):
            self._session.run(script)

    def log_error(
        self,
        *,
        code: str,
        error_class: str,
        message: str,
        unit: str = "",
        run: str = "",
        table: TableId | None = None,
        column: str = "",
        key: str = "",
        position: Position | None = None,
        action: str = "",
    ) -> None:
        script = Script()
        script.named(
            "add_error",
            self._places(),
            id=self._numbers.draw(),
            code=code,
            error_class=error_class,
            message=storable(message),
            schema=schema_of(unit, table),
            unit=unit,
            run=run,
            namespace=("STRING", table.namespace if table else None),
            table=("STRING", table.name if table else None),
            column=storable(column),
            key=storable(key),
            position=("STRING", position.token if position else None),
            action=storable(action),
            finding=("STRING", None),
            cells=("INT64", None),
            length=("INT64", None),
        )
        with self._session.meaning("writing to the error log"):
            self._session.run(script)

    def add_errand(self, id: str, name: str, arguments: Mapping[str, Any]) -> None:
        script = Script()
        script.named(
            "add_errand", self._places(), id=id, name=name, arguments=json.dumps(dict(arguments))
        )
        with self._session.meaning(f"storing the errand {name}"):
            self._session.run(script)

    def open_errands(self) -> list[tuple[str, str, dict[str, Any]]]:
        found = reversed([one for one in self.errands() if one.status == "open"])
        return [(one.id, one.name, one.arguments) for one in found]

    def end_errand(self, id: str, *, status: str, result: str = "") -> None:
        with self._session.meaning(f"ending the errand {id}"):
            self._change(
                "end_errand", self._places(), id=id, status=status, result=storable(result)
            )

    def errands(self, id: str | None = None) -> list[Intent]:
        script = Script()
        script.named("read_errands", self._places(), id=("STRING", id))
        with self._session.meaning("reading the errands"):
            rows = self._session.query(script)
        return [
            Intent(
                row["id"],
                row["name"],
                json.loads(row["arguments"]),
                row["status"],
                row["result"],
                row["added_at"].timestamp(),
            )
            for row in rows
        ]

    # -- quarantine

    def quarantined(self) -> dict[TableId, int]:
        script = Script()
        script.named("count_quarantined", self._places())
        with self._session.meaning("counting the rows in quarantine"):
            rows = self._session.query(script)
        return {TableId(r["source_namespace"], r["source_table"]): r["waiting"] for r in rows}

    def deferred(self) -> dict[TableId, int]:
        return {}  # nothing here refers to anything, so nothing waits

    def quarantine(self, choice: Choice) -> list[SetAside]:
        script = quarantine.choose(choice, self._places())
        with self._session.meaning("reading the quarantine"):
            return [quarantine.set_aside(row) for row in self._session.query(script)]

    def replay(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        unit = WorkUnit.of_replay(schema, table)
        count = 0

        def make() -> Script:
            nonlocal count
            group = self._groups.of_table(schema, table)
            asked = Choice(ids=tuple(ids), schemas=(schema,), whole=True)
            found = [a for a in self.quarantine(asked) if a.row.table == table]
            wanted = [a.id for a in found if a.state.value == "waiting" and a.row.kinds]
            count = len(wanted)
            script = Script()
            self._groups.bump(script, group)
            place = {"group": self._groups.quoted(group.name)}
            if unit.id in group.rows:
                script.named("mark_replay", place, unit=unit.id)
            else:
                self._groups.add(script, group.name, unit, phase=Phase.PLANNED, fence=1)
            quarantine.decide(script, self._places(), dict.fromkeys(wanted, ("replaying", "")))
            return script

        with self._session.meaning(f"marking rows of {table} for replay"):
            self._session.patiently(make)
        return count

    def to_replay(self, schema: str, table: TableId, limit: int) -> list[SetAside]:
        script = quarantine.to_replay(schema, table, limit, self._places())
        with self._session.meaning(f"reading the rows of {table} to replay"):
            rows = self._session.query(script)
        return quarantine.fitting([quarantine.set_aside(row) for row in rows])

    def discard(self, ids: Sequence[int]) -> int:
        with self._session.meaning("discarding rows of the quarantine"):
            tables = {(a.schema, a.row.table) for a in self.quarantine(Choice(ids=tuple(ids)))}
            return sum(self._discarded(schema, table, ids) for schema, table in tables)

    def _discarded(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        count = 0

        def make() -> Script | None:
            nonlocal count
            group = self._groups.of_table(schema, table)
            found = self.quarantine(Choice(ids=tuple(ids), schemas=(schema,)))
            open_ = [
                a.id
                for a in found
                if a.row.table == table and a.state.value in ("waiting", "replaying")
            ]
            if not open_:
                return None
            count = len(open_)
            script = Script()
            self._groups.bump(script, group)
            quarantine.decide(script, self._places(), dict.fromkeys(open_, ("discarded", "")))
            return script

        self._session.patiently(make)
        return count

    def errors(self, choice: Choice) -> list[ErrorLine]:
        script = quarantine.choose_errors(choice, self._places())
        with self._session.meaning("reading the error log"):
            return [quarantine.error_line(row) for row in self._session.query(script)]

    def _places(self) -> dict[str, str]:
        return places(self._session)


def places(session: Session) -> dict[str, str]:
    """The tables that the statements of warp/sql/bigquery name."""
    return {
        "quarantine": session.meta(books.QUARANTINE),
        "decisions": session.meta(books.DECISIONS),
        "audit": session.meta(books.AUDIT),
        "runs": session.meta(books.RUNS),
        "errors": session.meta(books.ERRORS),
        "errands": session.meta(books.ERRANDS),
        "registry": session.meta(books.REGISTRY),
    }


def storable(value: str) -> str:
    """Text as a column takes it: without half of a surrogate pair."""
    return value.encode("utf-8", "replace").decode()


def _of(row: Mapping[str, Any]) -> tuple[str, TableId]:
    return row["schema_name"], TableId(row["source_namespace"], row["source_table"])
