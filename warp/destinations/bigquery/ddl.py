"""The destination's tables: made, widened and re-keyed.

DDL is in no transaction with anything, so a change has three steps, and whoever meets one half-way
goes on with it:

1. the table's first marker row gets the next version and the statements to do.  In a transaction,
   so a writer of the old version is either before it or refused: until step 3 the table stands
   still;
2. the statements run as a job whose id stands on the row too.  BigQuery runs a job of one id once,
   so somebody late cannot make a table anew over rows that came since;
3. the statements are taken off the row.  Nobody is told of the version before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from warp import faults
from warp.destinations.bigquery import (
    adopting,
    backfill,
    markers,
    names,
    spelling,
    tables,
    verdicts,
)
from warp.destinations.bigquery.books import Numbers
from warp.destinations.bigquery.groups import Groups
from warp.destinations.bigquery.markers import Group
from warp.destinations.bigquery.merge import DELETED, VERSION
from warp.destinations.bigquery.metadata import places, storable
from warp.destinations.bigquery.names import digest, literal, quoted
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import PATIENCE, Session, Told
from warp.destinations.bigquery.spelling import KINDS, TEXTS, Spelled
from warp.destinations.bigquery.tables import Table
from warp.destinations.bigquery.verdicts import Verdict
from warp.destinations.sql import ddl as shared
from warp.errors import DestinationRefused
from warp.kinds import Relation, relation
from warp.model import (
    Change,
    Column,
    Kind,
    Phase,
    Role,
    SchemaChange,
    TableSchema,
    TableSettings,
)

MOST_COLUMNS: Final = 10_000
_OURS: Final = 3  # columns that a source's schema does not have
_RESERVED: Final = frozenset({VERSION, DELETED})


class Ddl:
    """Changes of tables, over one session."""

    def __init__(self, session: Session, groups: Groups, numbers: Numbers) -> None:
        self._session = session
        self._groups = groups
        self._numbers = numbers
        self._datasets: set[str] = set()  # that are there

    # -- what there is

    def current(self, settings: TableSettings) -> Table | None:
        """The table as it was last registered, whatever was left to do done.

        None where it was never made, or was dropped and is to be read anew.
        """
        group = self._groups.of_table(settings.schema, settings.table)
        table = registered(group)
        if table is not None and table.todo:
            table = self._finish(settings, table)
        if table is None:
            return None
        there = self._types(table)
        if not there:
            if group.row["phase"] == Phase.PLANNED.value:
                return None
            raise DestinationRefused(
                f"expected the table {table.place}, found it dropped; "
                f"run `cartridge-warp resync {settings.table}` to read it anew",
                place=group.unit,
            )
        soft = tables.soft_name(settings.soft_delete_column)
        spelled = [one.name for one in table.spelled]
        shared.must_leave_ours(settings, spelled, _ours(settings), alike=str.lower)
        if soft is not None and soft.lower() not in there:
            # The table was made before deletes were configured to be soft.
            column = (soft, "BOOL", "")
            self._session.ddl(tables.add_columns(table, self._session.project, column))
        return self._without_dropped(settings, table, there)

    def _without_dropped(
        self, settings: TableSettings, table: Table, there: Mapping[str, str]
    ) -> Table:
        kept = tuple(one for one in table.spelled if one.name.lower() in there)
        if missing := set(table.schema.key) - {one.column.name for one in kept}:
            raise DestinationRefused(
                f"expected the key columns {sorted(missing)} in {table.place}, found them "
                f"dropped; drop the table and run `cartridge-warp resync {settings.table}`",
                place=str(settings.table),
            )
        full = len(kept) + _OURS >= MOST_COLUMNS
        schema = replace(table.schema, columns=tuple(one.column for one in kept), full=full)
        return replace(table, schema=schema, spelled=kept)

    def _types(self, table: Table) -> dict[str, str]:
        """By column in lower case; empty where there is no such table."""
        found = self._session.table(table.place.namespace, table.place.name)
        return {} if found is None else {f.name.lower(): f.field_type for f in found.schema}

    # -- the three steps

    def apply(self, settings: TableSettings, change: SchemaChange) -> None:
        """Make one change, or find it made."""

        def make() -> Script | None:
            group = self._groups.of_table(settings.schema, settings.table)
            have = registered(group)
            if have is not None:
                have = self.current(settings)
                group = self._groups.of_table(settings.schema, settings.table)
            wanted = self._decide(settings, have, change, int(group.row["schema_version"]))
            if wanted is None:
                return None
            script = Script()
            if change.change is Change.CREATE_TABLE and have is not None:
                place = quoted(self._session.project, have.place.namespace, have.place.name)
                said = literal(verdicts.TABLE)
                script.add(f"ASSERT NOT EXISTS (SELECT 1 FROM {place}) AS {said}")
            self._register(script, group, settings, wanted, change)
            return script

        self._session.patiently(make)
        faults.hit("after_register")
        table = registered(self._groups.of_table(settings.schema, settings.table))
        if table is not None and table.todo:
            self._finish(settings, table)
        faults.hit("after_change")

    def _register(
        self,
        script: Script,
        group: Group,
        settings: TableSettings,
        table: Table,
        change: SchemaChange,
    ) -> None:
        if table.todo:
            table = replace(table, job=self._session.new_id())
        version = table.schema.version
        phase = group.row["phase"]
        changes: dict[str, Any] = {
            "schema_version": ("INT64", version),
            "spec": ("STRING", table.text()),
        }
        if phase == "unregistered":
            changes["phase"] = ("STRING", Phase.PLANNED.value)
        self._groups.bump(script, group, **changes)
        script.named(
            "add_registry",
            places(self._session),
            unit=group.unit,
            version=version,
            schema=settings.schema,
            namespace=settings.table.namespace,
            table=settings.table.name,
            dataset=table.place.namespace,
            name=table.place.name,
            spec=table.text(),
            change=change.change.value,
        )

    def _finish(self, settings: TableSettings, table: Table) -> Table | None:
        """Steps 2 and 3, by whoever comes along."""
        waits = PATIENCE.delays()
        for _ in range(5):
            if table.place.namespace not in self._datasets:
                if self._session.dataset(table.place.namespace) is None:
                    self._session.make_dataset(table.place.namespace)
                self._datasets.add(table.place.namespace)
            failed = self._session.once("; ".join(table.todo) + ";", table.job)
            faults.hit("after_alter")
            if failed is None:
                done = replace(table, todo=(), job="")
            elif failed.verdict in (Verdict.BUSY, Verdict.CONFLICT, Verdict.QUOTA):
                done = replace(table, job=self._session.new_id())
                time.sleep(next(waits))
            else:
                # Under another id the next time: one that failed is not run again.
                self._note(settings, table, replace(table, job=self._session.new_id()))
                raise failed
            if self._note(settings, table, done):
                now: Table | None = done
            else:  # somebody else went on with it
                now = registered(self._groups.of_table(settings.schema, settings.table))
            if now is None or not now.todo:
                return now
            table = now
        raise Told(Verdict.BUSY, f"the columns of {table.place} could not be changed five times")

    def _note(self, settings: TableSettings, was: Table, becomes: Table) -> bool:
        def make() -> Script | None:
            group = self._groups.of_table(settings.schema, settings.table)
            now = registered(group)
            if now is None or now.text() != was.text():
                return None
            script = Script()
            self._groups.bump(script, group, spec=("STRING", becomes.text()))
            return script

        return self._session.patiently(make)

    # -- the changes; each answers with what shall be, or None where it is so already

    def _decide(
        self, settings: TableSettings, have: Table | None, change: SchemaChange, version: int
    ) -> Table | None:
        if change.change is Change.CREATE_TABLE:
            if change.schema is None:
                raise AssertionError("CREATE_TABLE carries a schema")
            return self._create(settings, have, change.schema, version)
        column = change.column
        if column is None:
            raise AssertionError("a column is changed to a column")
        if have is None:
            raise DestinationRefused(
                f"expected the table {settings.destination}, found none; create it first",
                place=str(settings.table),
            )
        if change.change is Change.ADD_COLUMN:
            return self._add(settings, have, column)
        if change.change is Change.RETYPE_KEY:
            return self._tag_key(settings, have, column)
        return self._retype(settings, have, column)

    def _create(
        self, settings: TableSettings, have: Table | None, wanted: TableSchema, version: int
    ) -> Table | None:
        if have is not None and not have.schema.is_guess:
            return None
        place = names.place(settings.destination)
        soft = tables.soft_name(settings.soft_delete_column)
        ours = (*_RESERVED, settings.soft_delete_column)
        shared.must_leave_ours(settings, wanted.names(), ours)
        there = self._session.table(place.namespace, place.name)
        layout = self._session.options.layout_of(place)
        if have is None and there is not None:
            table = self._spelled(settings, wanted, version)
            return adopting.adopt(table, settings, there, self._session.project)
        if have is not None and self._has_rows(have):
            return None  # rows of its own by now: they stay as they are
        table = self._spelled(settings, wanted, version)
        project = self._session.project
        if have is None:
            return replace(table, todo=(tables.create(table, project, layout, soft),))
        return replace(table, todo=(tables.replace_empty(table, project, layout, soft),))

    def _has_rows(self, table: Table) -> bool:
        place = quoted(self._session.project, table.place.namespace, table.place.name)
        return bool(self._session.query(Script([f"SELECT 1 AS one FROM {place} LIMIT 1"])))

    def _spelled(self, settings: TableSettings, wanted: TableSchema, version: int) -> Table:
        options = self._session.options
        used = _ours(settings)
        spelled: list[Spelled] = []
        extra = any(c.role is not Role.FIELD for c in wanted.columns)
        for column in wanted.columns:
            if extra and len(used) >= MOST_COLUMNS and column.name not in wanted.key:
                continue  # its values stay in `_extra`
            name = names.column(column.name, used)
            used.add(name.lower())
            # Rows are found by `=`, which JSON has none of; a source's text of it is the same for
            # the same key.
            json = "STRING" if column.name in wanted.key else options.json_type
            spelled.append(spelling.spelled(column, name, decimal=options.decimal_type, json=json))
        columns = tuple(one.column for one in spelled)
        schema = replace(wanted, table=settings.table, columns=columns, version=version + 1)
        return Table(schema, tuple(spelled), names.place(settings.destination))

    def _add(self, settings: TableSettings, have: Table, column: Column) -> Table | None:
        if have.column(column.name) is not None:
            return None
        if have.schema.full:
            if any(c.role is not Role.FIELD for c in have.schema.columns):
                return None  # the field stays in `_extra`
            raise DestinationRefused(
                f"expected room for column {column.name!r}, found {MOST_COLUMNS:,} columns, the "
                "most BigQuery has; leave columns out at the source",
                place=str(settings.destination),
            )
        options = self._session.options
        there = self._types(have)
        name = names.column(column.name, have.taken | _ours(settings))
        one = spelling.spelled(column, name, decimal=options.decimal_type, json=options.json_type)
        if name.lower() in there:  # somebody made it by hand, or dropped it from our registry
            kind = KINDS.get(there[name.lower()])
            if kind is None:
                raise DestinationRefused(
                    f"expected {one.type} or a type of ours, found column {name!r} of type "
                    f"{there[name.lower()]}; drop it or change its type",
                    place=str(settings.destination),
                )
            one = adopting.typed(one, kind, there[name.lower()])
        said = tables.description(one, settings.table)
        todo = [tables.add_columns(have, self._session.project, (name, one.type, said))]
        fill = backfill.statement(have, self._session.project, one)
        if fill is not None and self._size(have) <= settings.rewrite_limit:
            todo.append(fill)
        return have.having([*have.spelled, one], todo)

    def _retype(self, settings: TableSettings, have: Table, wanted: Column) -> Table | None:
        """Change a column to a kind that holds every value it has, or mark it as one that stays."""
        old = have.column(wanted.name)
        if old is None or old.column.fixed or _holds_all_of(old.column, wanted):
            return None
        options = self._session.options
        new = spelling.spelled(
            replace(wanted, comment=wanted.comment or old.column.comment, limit=None, scale=None),
            old.name,
            decimal=options.decimal_type,
            json=options.json_type,
        )
        spelled = [new if one.name == old.name else one for one in have.spelled]
        project = self._session.project
        if new.type == old.type and new.column.kind in TEXTS and old.column.kind in TEXTS:
            longer = [] if old.column.limit is None else [new.type]
            return have.having(
                spelled, [tables.retype(have, project, old.name, type_) for type_ in longer]
            )
        if (old.type, new.type) in spelling.WIDENED_IN_PLACE:
            return have.having(spelled, [tables.retype(have, project, old.name, new.type)])
        cast = tables.cast(old, new)
        why_not = self._why_not(settings, have, old, new, cast)
        if why_not or cast is None:
            fixed = replace(old, column=replace(old.column, fixed=True))
            self._log_kept(settings, old, new, why_not)
            return have.having([fixed if one.name == old.name else one for one in have.spelled])
        return self._anew(settings, have, spelled, {old.name: cast})

    def _anew(
        self,
        settings: TableSettings,
        have: Table,
        spelled: list[Spelled],
        casts: Mapping[str, str],
    ) -> Table:
        becomes = have.having(spelled)
        layout = self._session.options.layout_of(have.place)
        soft = tables.soft_name(settings.soft_delete_column)
        project, staging = self._session.project, self._session.options.staging_dataset
        aside = quoted(project, staging, f"anew_{digest(self._session.new_id(), 16)}")
        return replace(becomes, todo=tables.make_anew(becomes, project, layout, soft, casts, aside))

    def _why_not(
        self, settings: TableSettings, have: Table, old: Spelled, new: Spelled, cast: str | None
    ) -> str:
        if cast is None:
            return f"there is no exact form of {old.type} as {new.type}"
        if have.adopted:
            return "the table is not ours to make anew"
        size = self._size(have)
        if size > settings.rewrite_limit:
            return (
                f"a rewrite of {size:,} bytes is more than rewrite_limit "
                f"({settings.rewrite_limit:,})"
            )
        return ""

    def _size(self, table: Table) -> int:
        found = self._session.table(table.place.namespace, table.place.name)
        return int(found.num_bytes or 0) if found is not None else 0

    def _log_kept(self, settings: TableSettings, old: Spelled, new: Spelled, why: str) -> None:
        script = Script()
        script.named(
            "add_error",
            places(self._session),
            id=self._numbers.draw(),
            code=DestinationRefused.code,
            error_class=DestinationRefused.__name__,
            message=storable(f"expected to change the column to {new.type}: {why}"),
            schema=settings.schema,
            unit=f"table:{settings.schema}:{settings.table}",
            run="",
            namespace=("STRING", settings.table.namespace),
            table=("STRING", settings.table.name),
            column=storable(old.column.name),
            key="",
            position=("STRING", None),
            action="the column stays; values that do not fit are kept beside it",
            finding=("STRING", None),
            cells=("INT64", None),
            length=("INT64", None),
        )
        self._session.run(script)

    def _tag_key(self, settings: TableSettings, have: Table, wanted: Column) -> Table | None:
        old = have.column(wanted.name)
        if old is None or old.column.name not in have.schema.key:
            raise AssertionError(f"{wanted.name} is no key column of {settings.table}")
        if old.column.kind is wanted.kind:
            return None
        new = Spelled(replace(old.column, kind=wanted.kind), old.name, "STRING")
        cast = tables.cast(old, new)
        why_not = self._why_not(settings, have, old, new, cast)
        if not why_not and self._any_long(have, str(cast)):
            why_not = f"keys of more than {tables.LONGEST_TAGGED} bytes are hashed by their source"
        if why_not or wanted.kind is not Kind.TAGGED or cast is None:
            raise DestinationRefused(
                f"expected a key that can become {wanted.kind}, found {old.column.kind}: "
                f"{why_not or 'no such change'}; drop the table and run `cartridge-warp resync "
                f"{settings.table}`",
                place=str(settings.destination),
            )
        spelled = [new if one.name == old.name else one for one in have.spelled]
        return self._anew(settings, have, spelled, {old.name: cast})

    def _any_long(self, have: Table, cast: str) -> bool:
        place = quoted(self._session.project, have.place.namespace, have.place.name)
        long = f"BYTE_LENGTH({cast}) > {tables.LONGEST_TAGGED}"
        return bool(
            self._session.query(Script([f"SELECT 1 AS one FROM {place} WHERE {long} LIMIT 1"]))
        )


def _ours(settings: TableSettings) -> set[str]:
    """Names that no source's column may have, in lower case."""
    soft = tables.soft_name(settings.soft_delete_column)
    return {name.lower() for name in (*_RESERVED, soft) if name is not None}


def registered(group: Group) -> Table | None:
    row = group.row
    if not row["schema_version"] or not row["spec"]:
        return None
    return tables.read(
        markers.table_of(row),
        int(row["schema_version"]),
        row["spec"],
    )


def _holds_all_of(column: Column, wanted: Column) -> bool:
    """Another worker may have changed it already, perhaps further."""
    if column.kind == wanted.kind:
        # A decimal knows no wider one: what does not fit is kept beside it.
        return column.limit in (None, math.inf)
    return relation(wanted.kind, column.kind) is Relation.LOSSLESS
