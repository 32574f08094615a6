"""What was compared with the source and what was found, in the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warp import metadata_rows, stored
from warp.destinations.sql.metadata import SqlMetadata
from warp.destinations.sql.notes import aside_line
from warp.destinations.sql.session import Session
from warp.digest.canonical import of_form
from warp.digest.comparing import Difference, Sort
from warp.digest.seams import Compared, Kept, Pass, Verified
from warp.digest.sums import Sums, total
from warp.model import Chunk, Position, QuarantinedRow, TableId, WorkUnit


class SqlVerifications:
    """As `warp.digest.seams.Verifications`."""

    def __init__(self, session: Session, metadata: SqlMetadata[Any]) -> None:
        self._session = session
        self._metadata = metadata

    def plan(
        self, schema: str, chunks: Sequence[Chunk], *, number: int, repairs: bool = False
    ) -> bool:
        table = chunks[0].table
        where = _where(schema, table)
        with self._session.transaction(f"planning the verification of {table}"):
            # Its row excludes another planner.
            unit = WorkUnit.of_table(schema, table)
            self._session.named("read_marker", unit=unit.id)
            row = self._session.named("last_pass", **where).fetchone()
            last = row[0] if row is not None and row[0] is not None else -1
            if last >= number:
                return False
            self._session.named("remove_verify_markers", **where)
            self._session.named("abandon_verify_runs", **where)
            self._session.named("forget_passes", last=last, **where)
            for chunk in chunks:
                unit = WorkUnit.of_verification(schema, chunk, number)
                self._metadata.add(unit, epoch=number)
                self._session.named(
                    "add_verification", unit=unit.id, repairs=repairs, **where, **{"pass": number}
                )
        return True

    def conclude(self, unit: WorkUnit, compared: Compared, verified: Verified) -> bool:
        with self._session.transaction(f"noting what {unit.id} found"):
            self._session.named(
                "conclude_verification",
                unit=unit.id,
                rows=verified.rows,
                digest=str(verified.digest),
                looks=verified.looks,
                aside=verified.aside,
                unsettled=verified.unsettled,
                **metadata_rows.place(verified.position),
            )
            row = self._session.named("read_verification", unit=unit.id).fetchone()
            if row is None:  # a later pass has taken its place
                return False
            number, schema, namespace, name, repairs = row
            where = _where(schema, TableId(namespace, name)) | {"pass": number}
            lines = [self._line(compared, found) for found in verified.differences]
            self._session.named(
                "forget_differences",
                unit=unit.id,
                keys=[line["key"] for line in lines],
                **_where(schema, TableId(namespace, name)),
            )
            if lines:
                self._session.each(
                    "add_difference", [{"unit": unit.id} | where | line for line in lines]
                )
            self._session.named("close_differences", **where)
        return bool(repairs and lines)

    def start_anew(self, stream: WorkUnit, position: Position) -> None:
        with self._session.transaction(f"moving {stream.id}"):
            self._session.named(
                "resync_stream", unit=stream.id, moves=True, **metadata_rows.place(position)
            )

    def begin_history(self, stream: WorkUnit, schema: str, newest: int) -> None:
        self._metadata.begin_history(stream, schema, newest)

    def passes(self, schema: str | None = None, table: TableId | None = None) -> list[Pass]:
        where = {
            "schema": schema,
            "namespace": table.namespace if table else None,
            "table": table.name if table else None,
        }
        with self._session.meaning("reading the verifications"):
            rows = self._session.named("read_passes", **where).fetchall()
        return [_pass(row) for row in rows]

    def open_differences(
        self, schema: str, table: TableId, *, after: int, limit: int, unit: str = ""
    ) -> list[Kept]:
        with self._session.meaning(f"reading the differences of {table}"):
            rows = self._session.named(
                "read_differences", after=after, limit=limit, unit=unit, **_where(schema, table)
            ).fetchall()
        of_json = self._session.of_json
        return [
            Kept(id, key, of_json(kinds), Sort(sort), tuple(of_json(columns)), version, at, state)
            for id, key, kinds, sort, columns, version, at, state in rows
        ]

    def decide(self, ids: Sequence[int], state: str) -> None:
        with self._session.meaning("deciding about differences"):
            self._session.named("decide_differences", ids=list(ids), state=state)

    def set_aside(self, schema: str, table: TableId, keys: Sequence[str]) -> set[str]:
        with self._session.meaning(f"looking for rows of {table} that wait"):
            rows = self._session.named("known_aside", keys=list(keys), **_where(schema, table))
            return {key for (key,) in rows.fetchall()}

    def waiting(self, schema: str, table: TableId, keys: Sequence[str]) -> dict[str, str]:
        with self._session.meaning(f"looking for rows of {table} that wait"):
            rows = self._session.named("waiting_rows", keys=list(keys), **_where(schema, table))
            return dict(rows.fetchall())

    def correct(
        self, schema: str, table: TableId, rows: Sequence[QuarantinedRow], ids: Sequence[int]
    ) -> int:
        unit = WorkUnit.of_replay(schema, table)
        with self._session.transaction(f"handing on corrections of {table}"):
            self._metadata.want_replay(unit)
            self._session.each(
                "correct_row", [aside_line(self._session, unit, schema, row) for row in rows]
            )
            self._session.named("decide_differences", ids=list(ids), state="repairing")
        return len(rows)

    def _line(self, compared: Compared, found: Difference) -> dict[str, Any]:
        cells = [of_form(c.kind, text) for c, text in zip(compared.key, found.key, strict=True)]
        return {
            "key": self._session.storable(stored.dump(compared.key, cells)),
            "kinds": self._session.to_json(stored.kinds_of(compared.key)),
            "sort": found.sort.value,
            "columns": self._session.to_json(list(found.columns)),
            "version": found.version,
        }


def _where(schema: str, table: TableId) -> dict[str, Any]:
    return {"schema": schema, "namespace": table.namespace, "table": table.name}


def _pass(row: Sequence[Any]) -> Pass:
    (schema, namespace, table, number, units, done, rows, differences, aside, unsettled, planned,
     oldest, newest, digests) = row  # fmt: skip
    return Pass(
        schema,
        TableId(namespace, table),
        number,
        units,
        done,
        rows,
        differences,
        aside,
        unsettled,
        planned,
        oldest,
        newest,
        total(map(Sums.read, digests.split(",") if digests else ())),
    )
