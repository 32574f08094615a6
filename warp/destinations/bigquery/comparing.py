"""The rows of a table of BigQuery compared: read once for each key range, and hashed by us.

BigQuery bills the columns that a query names, whatever it answers, so a range costs one query: what
`total` has read is kept for `leaves` and `rows`, as keys and hashes (guarantee 9: as many as
`warp.digest.ranges` keeps).  What they say is therefore as old as the sum; a key that differs is
looked at again anyway before anybody is told.

A key is unique to us and not to BigQuery: somebody may put a row there twice, or one without a
version, which no MERGE of ours would ever touch.  Both are differences here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from warp import stored
from warp.destinations.bigquery import ddl, readback, singling, tables, witness
from warp.destinations.bigquery.groups import Groups, known
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.merge import DELETED, VERSION
from warp.destinations.bigquery.metadata import places
from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.place import Place
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session, Told
from warp.destinations.bigquery.spelling import Spelled
from warp.destinations.bigquery.verdicts import Verdict
from warp.destinations.sql.landing import selected
from warp.digest.comparing import NO_VERSION, Key, Stored
from warp.digest.ranges import Range
from warp.digest.seams import EVERYTHING, Bound, Compared, KeyRange
from warp.digest.sums import Sums
from warp.errors import SchemaMoved
from warp.model import Cells, Marker, TableSelection, UnitKind

_PAGE: Final = 10_000  # rows of one answer; the service ends it at 10 MB as well
# A transaction that began before the first look, and whose deletions are as old as its beginning,
# may commit after it.
_LONGEST_TRANSACTION: Final = dt.timedelta(hours=6)


class BigQueryComparing:
    """As `warp.digest.seams.Comparing`."""

    def __init__(self, session: Session, groups: Groups, selection: TableSelection) -> None:
        self._session = session
        self._groups = groups
        self._selection = selection
        self._read: tuple[Compared, KeyRange, Range] | None = None
        self._looked_at: dt.datetime | None = None  # the first time
        self._places: dict[Compared, Place] = {}

    # -- key ranges

    def total(self, compared: Compared, where: KeyRange) -> Sums:
        found = self._ranged(compared, where)
        self._read = compared, where, found
        return found.sums

    def leaves(self, compared: Compared, where: KeyRange) -> dict[int, Sums]:
        return self._known(compared, where).leaves()

    def rows(
        self, compared: Compared, where: KeyRange, leaves: Sequence[int]
    ) -> list[tuple[Key, bytes]]:
        found = self._known(compared, where).rows(leaves)
        if found is None:  # too many to be kept: read again, and only these
            found = self._ranged(compared, where, frozenset(leaves)).rows(leaves) or []
        return [(key, hash_ or b"") for key, hash_ in found]

    def _known(self, compared: Compared, where: KeyRange) -> Range:
        if self._read is None or self._read[:2] != (compared, where):
            self.total(compared, where)
        if self._read is None:
            raise AssertionError("it was just read")
        return self._read[2]

    def _ranged(
        self,
        compared: Compared,
        where: KeyRange,
        only: frozenset[int] | None = None,
        *,
        at: int | None = None,
    ) -> Range:
        found = Range(compared, only)
        with self._asking(compared) as place:
            spelled = place.spelled([column.name for column in compared.columns])
            numbers = {one.column.name: n for n, one in enumerate(spelled)}
            in_key = [numbers[column.name] for column in compared.key]
            script = Script()
            key = [spelled[n] for n in in_key]
            conditions = [place.live, *_within(script, key, where.lower, where.upper)]
            listed = [f"{readback.selected(one)} AS c{n}" for n, one in enumerate(spelled)]
            listed.append(f"{DELETED} IS NULL AS odd")
            script.add(
                f"SELECT {', '.join(listed)} FROM {place.name}{_as_of(at)}"
                f" WHERE {' AND '.join(conditions)}"
            )
            for *cells, odd in self._session.pages(script, rows=_PAGE):
                made = [readback.carriers(o, c) for o, c in zip(spelled, cells, strict=True)]
                hashes: list[bytes | None] = [*readback.row_hashes(spelled, made)]
                for row, is_odd in enumerate(odd):
                    if is_odd:  # whatever it holds, no change would ever land on it
                        hashes[row] = None
                found.add_rows(readback.forms_of(key, [made[n] for n in in_key]), hashes)
        return found

    def keeps_forms(self, compared: Compared) -> bool:
        """JSON has other digits here than it was written with."""
        spelled = self._place(compared).spelled([c.name for c in compared.columns])
        return all(one.type != "JSON" for one in spelled)

    def kept(self, compared: Compared, cells: Sequence[Cells]) -> Sequence[Cells]:
        place = self._place(compared)
        return readback.kept(place.spelled([c.name for c in compared.columns]), cells)

    # -- keys

    def look(self, compared: Compared, keys: Sequence[Cells]) -> list[Stored | None]:
        with self._asking(compared) as place:
            if self._looked_at is None:
                [row] = self._session.query(Script(["SELECT CURRENT_TIMESTAMP() AS now"]))
                self._looked_at = row["now"]
            rows = self._rows_of(place, compared, keys)
            spelled = place.spelled([column.name for column in compared.key])
            asked = readback.forms_of(spelled, [list(cells) for cells in keys])
            found = [_newest(rows.get(key, ())) for key in asked]
            absent = [n for n, there in enumerate(found) if there is None]
            if absent:
                texts = _texts(compared, keys, absent)
                for text, version in self._deleted_since(compared, list(texts)).items():
                    # A row that comes and goes may be absent at each look and there at the source
                    # each time; that it has gone in between tells it from one that is missing.
                    found[texts[text]] = Stored(version, True, ())
        return found

    def _rows_of(
        self, place: Place, compared: Compared, keys: Sequence[Cells]
    ) -> dict[Key, list[Stored]]:
        """All rows of these keys, and perhaps of others whose parts are the same."""
        spelled = place.spelled([column.name for column in compared.columns])
        numbers = {one.column.name: n for n, one in enumerate(spelled)}
        in_key = [numbers[column.name] for column in compared.key]
        marks = [VERSION, DELETED] + ([quoted(place.soft)] if place.soft is not None else [])
        listed = [f"{readback.selected(one)} AS c{n}" for n, one in enumerate(spelled)]
        listed += [f"{mark} AS m{n}" for n, mark in enumerate(marks)]
        script = Script()
        conditions = [
            _among(script, spelled[n], cells) for n, cells in zip(in_key, keys, strict=True)
        ]
        script.add(f"SELECT {', '.join(listed)} FROM {place.name} WHERE {' AND '.join(conditions)}")
        found: dict[Key, list[Stored]] = {}
        for columns in self._session.pages(script, rows=_PAGE):
            made = [
                readback.carriers(one, cells)
                for one, cells in zip(spelled, columns[: len(spelled)], strict=True)
            ]
            told = zip(*columns[len(spelled) :], strict=True)
            for forms, (version, *gone) in zip(readback.forms_of(spelled, made), told, strict=True):
                key = tuple(forms[n] for n in in_key)
                if version is None or gone[0] is None or None in key:
                    version = NO_VERSION
                found.setdefault(key, []).append(Stored(version, any(gone), forms))
        return found

    def _deleted_since(self, compared: Compared, texts: list[str]) -> dict[str, int]:
        table = compared.schema.table
        if self._looked_at is None:
            raise AssertionError("asked by a look")
        script = Script()
        script.named(
            "deleted_since",
            places(self._session),
            namespace=table.namespace,
            table=table.name,
            since=("TIMESTAMP", self._looked_at - _LONGEST_TRANSACTION),
            keys=("ARRAY<STRING>", texts),
        )
        return {row["key"]: row["version"] for row in self._session.query(script)}

    # -- all of it

    def together(self, tables: Sequence[Compared]) -> tuple[list[Sums], list[Marker]]:
        """As they were at one time, which is a little in the past."""
        with self._session.meaning("summing up tables"):
            [row] = self._session.query(Script(["SELECT UNIX_MICROS(CURRENT_TIMESTAMP()) AS now"]))
            now = int(row["now"])
            streams: list[Marker] = []
            for group in self._groups.names((UnitKind.STREAM,)):
                statement = f"SELECT * FROM {self._groups.quoted(group)}{_as_of(now)}"
                rows = self._session.query(Script([statement]))
                streams += known(rows).values()
        sums = [self._ranged(compared, EVERYTHING, frozenset(), at=now).sums for compared in tables]
        return sums, [marker for marker in streams if marker.unit.kind is UnitKind.STREAM]

    def recount(
        self,
        place: tuple[str, str],
        columns: Sequence[tuple[str, str]],
        soft_delete_column: str | None,
    ) -> tuple[int, str]:
        return witness.recount(self._session, place, columns, soft_delete_column)

    # -- what is written

    def single_out(self, compared: Compared, keys: Sequence[Cells]) -> None:
        singling.single_out(self._session, self._registered, self._groups.bump, compared, keys)

    def hold_places(self, compared: Compared, keys: Sequence[Cells], version: int) -> None:
        def make() -> Script | None:
            group, place = self._registered(compared)
            spelled = place.spelled([column.name for column in compared.key])
            there = self._rows_of(place, _by_key(compared), keys)
            asked = readback.forms_of(spelled, [list(cells) for cells in keys])
            absent = [n for n, key in enumerate(asked) if key not in there]
            if not absent:
                return None
            script = Script()
            # Nobody has written to the table since it was asked: BigQuery would let a row be twice.
            self._groups.bump(script, group)
            names = [quoted(one.name) for one in spelled] + [VERSION, DELETED]
            more = [script.bind(version), "TRUE"]
            if place.soft is not None:
                names.append(quoted(place.soft))
                more.append("FALSE")
            lines = [
                [script.bind(value, type_) for type_, value in _bound(spelled, keys, n)] + more
                for n in absent
            ]
            values = ", ".join(f"({', '.join(line)})" for line in lines)
            script.add(f"INSERT INTO {place.name} ({', '.join(names)}) VALUES {values}")
            return script

        with self._session.meaning(f"holding places in {compared.schema.table}"):
            self._session.patiently(make)

    # -- the table

    @contextmanager
    def _asking(self, compared: Compared) -> Iterator[Place]:
        """A table that moved meanwhile says SchemaMoved, as for whoever writes to it."""
        table = compared.schema.table
        with self._session.meaning(f"comparing rows of {table}"):
            _, place = self._registered(compared)
            try:
                yield place
            except Told as told:
                if told.verdict in (Verdict.REFUSED, Verdict.GONE):
                    self._registered(compared)
                raise

    def _place(self, compared: Compared) -> Place:
        found = self._places.get(compared)
        if found is None:
            with self._session.meaning(f"looking for {compared.schema.table}"):
                _, found = self._registered(compared)
        return found

    def _registered(self, compared: Compared) -> tuple[Group, Place]:
        schema = compared.schema
        settings = selected(self._selection, schema.table, place=self._session.place)
        group = self._groups.of_table(settings.schema, schema.table)
        table = ddl.registered(group)
        if table is None or table.todo or table.schema.version != schema.version:
            have = table.schema.version if table else "no table"
            raise SchemaMoved(
                f"expected schema version {schema.version}, found {have}; compare again",
                place=str(schema.table),
            )
        name = quoted(self._session.project, table.place.namespace, table.place.name)
        found = Place(table, name, tables.soft_name(settings.soft_delete_column))
        self._places[compared] = found
        return group, found


def _as_of(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    moment = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=microseconds)
    return f" FOR SYSTEM_TIME AS OF TIMESTAMP {literal(moment.isoformat(sep=' '))}"


def _by_key(compared: Compared) -> Compared:
    """Only the key of it."""
    return Compared(compared.schema, compared.key, compared.key)


def _within(
    script: Script, spelled: Sequence[Spelled], lower: Bound | None, upper: Bound | None
) -> list[str]:
    """The conditions of a key range.  That on the key's first column alone is for BigQuery, which
    leaves out by it what does not have to be read."""
    conditions: list[str] = []
    for bound, strict, inclusive in ((lower, ">", ">="), (upper, "<", "<=")):
        if bound is None:
            continue
        cells = _parameters(script, spelled, bound)
        names = [quoted(one.name) for one in spelled]
        # A row without a key is of the first range; only somebody else can have put it there.
        first = f"{names[0]} {inclusive} {cells[0]}"
        beyond = _beyond(names, cells, strict, equal=strict == ">")
        if strict == "<" and lower is None:
            beyond, first = f"({beyond} OR {names[0]} IS NULL)", f"({first} OR {names[0]} IS NULL)"
        conditions += [beyond] if len(names) == 1 else [first, beyond]
    return conditions


def _beyond(names: Sequence[str], cells: Sequence[str], strict: str, *, equal: bool) -> str:
    """Is a key of several columns on that side of a bound?"""
    (name, *names_left), (cell, *cells_left) = names, cells
    if not names_left:
        return f"{name} {strict}{'=' if equal else ''} {cell}"
    rest = _beyond(names_left, cells_left, strict, equal=equal)
    return f"({name} {strict} {cell} OR ({name} = {cell} AND {rest}))"


def _parameters(script: Script, spelled: Sequence[Spelled], bound: Bound) -> list[str]:
    told = [readback.bound(one, cell) for one, cell in zip(spelled, bound, strict=True)]
    return [script.bind(value, type_) for type_, value in told]


def _bound(spelled: Sequence[Spelled], keys: Sequence[Cells], row: int) -> list[tuple[str, Any]]:
    return [readback.bound(one, cells[row]) for one, cells in zip(spelled, keys, strict=True)]


def _among(script: Script, one: Spelled, cells: Cells) -> str:
    """Is the column one of these cells?"""
    values = [readback.bound(one, cell)[1] for cell in cells if cell is not None]
    name = quoted(one.name)
    found = f"{name} IN UNNEST({script.bind(list(dict.fromkeys(values)), f'ARRAY<{one.type}>')})"
    return found if len(values) == len(cells) else f"({found} OR {name} IS NULL)"


def _newest(rows: Sequence[Stored]) -> Stored | None:
    live = [row for row in rows if not row.gone]
    if not live:
        return max(rows, key=lambda row: row.version, default=None)
    newest = max(live, key=lambda row: row.version)
    return Stored(newest.version, False, newest.forms, copies=len(live))


def _texts(compared: Compared, keys: Sequence[Cells], rows: Sequence[int]) -> dict[str, int]:
    """Keys as the audit writes them, in the order of the table's columns."""
    order = [column.name for column in compared.schema.columns]
    places = sorted(range(len(compared.key)), key=lambda n: order.index(compared.key[n].name))
    columns = [compared.key[place] for place in places]
    return {stored.dump(columns, [keys[place][row] for place in places]): row for row in rows}
