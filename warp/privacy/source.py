"""Between a source and all who read from it: what comes through has its values covered.

Streams, snapshots, polls, look-ups and samples of a table with rules go through here, so that what
is written, set aside, audited, logged, compared and repaired are covered values (docs/privacy.md).
Tables without rules pass as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from warp.cells import taken, unchanged
from warp.diagnosis import failed, ok, refuse, warning
from warp.digest.seams import Compared, Delivered, Summing, compared_source
from warp.errors import SourceRefused, WarpError
from warp.interfaces import SourceTraits
from warp.model import (
    ChangeBatch,
    Chunk,
    Column,
    Diagnosis,
    Documents,
    Headroom,
    KeySpan,
    Kind,
    MissingColumn,
    Position,
    Privacy,
    Role,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    TableSettings,
    Verdict,
)
from warp.privacy.columns import CoveredTable, cover_table
from warp.privacy.sealing import Sealing

_CODE: Final = "privacy-rules"
_IN_HAND: Final = 4  # batches read and not yet written: one is, one waits, one is being read
_ENOUGH: Final = 1_000  # documents after which a field that none of them has is told
_WITHOUT_VALUES: Final = frozenset(
    {"namespaces", "tables", "version", "rows_about", "cost", "bounds", "close"}
)
_EXTRA: Final = Column("_extra", Kind.JSON, role=Role.EXTRA)

log = structlog.get_logger(__name__)

_Key = tuple[Any, ...]


class _Seen:
    """Of one table's documents: how many were covered, and by which rules."""

    __slots__ = ("met", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.met: set[str] = set()


# A connector lives for one turn of a unit: remembered here.
_seen: dict[tuple[TableId, Privacy], _Seen] = {}
_told: set[tuple[TableId, str]] = set()


class CoveredSource:
    """A source connector.  What brings no value of a row is the other's own; any other way to rows
    than those that are covered here is closed."""

    def __init__(
        self, inner: Any, selection: TableSelection, *, paths: Collection[str], key: bytes
    ) -> None:
        """`paths` are those of all rules in the selection, and `key` is theirs."""
        # Keys that somebody else has read are not those at the source.
        self.traits: SourceTraits = replace(inner.traits, reads_keys=False)
        self._inner = inner
        self._selection = selection
        self._paths = paths
        self._sealing = Sealing(key)
        self._tables: dict[TableId, CoveredTable] = {}
        # Covered key -> key at the source, of rows that carry a part of their row.
        self._in_hand: deque[dict[tuple[TableId, _Key], _Key]] = deque(maxlen=_IN_HAND)

    def __repr__(self) -> str:
        return f"<Covered {self._inner!r}>"

    def __getattr__(self, name: str) -> Any:
        if name not in _WITHOUT_VALUES:
            raise AttributeError(f"{name!r} of a source with privacy rules")
        return getattr(self._inner, name)

    # -- what is there

    def check(self) -> None:
        self._inner.check()
        refuse(self._look(sampling=False), SourceRefused)

    def diagnose(self) -> list[Diagnosis]:
        found: list[Diagnosis] = self._inner.diagnose()
        if all(one.verdict is not Verdict.FAILED for one in found):
            found += self._look(sampling=True)
        return found

    def _look(self, *, sampling: bool) -> Iterator[Diagnosis]:
        """With `sampling` also which fields of documents nobody has seen."""
        for table in self._inner.tables():
            privacy = self._privacy(table)
            if privacy is None or (self.traits.schemaless and not sampling):
                continue
            for schema in self._inner.get_schema([table]).values():
                yield from _findings(schema, privacy, self._settings(table), self.traits)

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        found: dict[TableId, TableSchema] = self._inner.get_schema(tables)
        return {table: self._schema(schema) for table, schema in found.items()}

    def _schema(self, schema: TableSchema) -> TableSchema:
        privacy = self._privacy(schema.table)
        if privacy is None:
            return schema
        if self.traits.schemaless:  # a sample: what it has not got, other documents may have
            return cover_table(schema, privacy).schema
        return self._covered_table(schema, privacy).schema

    # -- the rows

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        batches = self._inner.get_changes(self._opened(position), selection=selection, idle=idle)
        for batch in batches:
            yield self._covered(batch, sealed=self._seals_log)

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        for batch in self._inner.get_full_snapshot(chunk):
            yield self._covered(batch, sealed=self._seals_log)
        privacy = self._privacy(chunk.table)
        if privacy is not None and chunk.lower is None and chunk.upper is None:
            self._tell_unmet(chunk.table, privacy, enough=1)  # all documents there are

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        after = None if position is None else self._opened(position)
        sealed = self._covers_key(table)
        for batch in self._inner.poll(table, after, fire_time=fire_time):
            yield self._covered(batch, sealed=sealed)

    def rows_at(self, chunk: Chunk, at: int) -> Iterator[ChangeBatch]:
        for batch in self._inner.rows_at(chunk, at):
            yield self._covered(batch, sealed=self._seals_log)

    def look_up(self, rows: TableChanges) -> TableChanges:
        return self._looked_up(rows, self._inner.look_up, self._inner.get_full_snapshot)

    def look_up_at(self, rows: TableChanges, at: int) -> TableChanges:
        return self._looked_up(
            rows,
            lambda asked: self._inner.look_up_at(asked, at),
            lambda chunk: self._inner.rows_at(chunk, at),
        )

    def _looked_up(
        self,
        rows: TableChanges,
        look_up: Callable[[TableChanges], TableChanges],
        read: Callable[[Chunk], Iterator[ChangeBatch]],
    ) -> TableChanges:
        privacy = self._privacy(rows.table)
        if privacy is None:
            return look_up(rows)
        if not self._covers_key(rows.table):
            return self._part(look_up(rows))
        keys = _keys(rows)
        known = {
            key: at
            for held in list(self._in_hand)
            for (table, key), at in held.items()
            if table == rows.table
        }
        if rows.schema is not None and all(key in known for key in keys):
            return self._part(look_up(_of_keys(rows, [known[key] for key in keys])))
        return self._searched(rows, frozenset(keys), read)

    def _searched(
        self,
        rows: TableChanges,
        wanted: frozenset[_Key],
        read: Callable[[Chunk], Iterator[ChangeBatch]],
    ) -> TableChanges:
        """The rows of covered keys, which only the whole table can tell."""
        found: TableChanges | None = None
        for batch in read(Chunk(rows.table, 0)):
            for part in map(self._part, batch.changes):
                at = [row for row, key in enumerate(self._keys_as(rows, part)) if key in wanted]
                more = _taken(part, at)
                found = more if found is None else _joined(found, more)
        return _taken(rows, []) if found is None else found

    def _keys_as(self, rows: TableChanges, part: TableChanges) -> list[_Key]:
        """The keys of a part as those of `rows` are written."""
        if part.documents is None:
            return _keys(part)
        if rows.schema is None:
            raise WarpError("expected the column of the key", place=str(rows.table))
        known = replace(rows.schema, columns=(*rows.schema.columns, _EXTRA))
        shaped = part.documents.shape(known, self._settings(part.table))
        return [(cell,) for cell in shaped.columns[0]]

    def _covered(self, batch: ChangeBatch, *, sealed: bool) -> ChangeBatch:
        self._in_hand.append({})
        changes = [self._part(part) for part in batch.changes]
        return replace(batch, changes=changes, end=self._sealed(batch.end, sealed))

    def _part(self, part: TableChanges) -> TableChanges:
        privacy = self._privacy(part.table)
        if privacy is None:
            return part
        if part.documents is not None:
            documents, met = part.documents.covered(privacy)
            seen = _seen.setdefault((part.table, privacy), _Seen())
            seen.rows += len(part)
            seen.met |= met
            self._tell_unmet(part.table, privacy, enough=_ENOUGH)
            return replace(part, documents=documents)
        if part.schema is None:
            raise WarpError("expected a schema or documents", place=str(part.table))
        if not part.schema.columns:  # a table that was dropped before anybody had seen a row of it
            return part
        table = self._covered_table(part.schema, privacy)
        # Here, where there are rows: who plans the work of a schema must not stop for one table.
        must_hold(table, privacy)
        for path in table.unmet:
            _tell(part.table, path)
        covered = replace(part, schema=table.schema, columns=table.columns(part.columns))
        if table.covered_key:
            self._remember(part, covered)
        return covered

    def _remember(self, part: TableChanges, covered: TableChanges) -> None:
        """The keys of rows that may have to be looked up."""
        if self.traits.full_rows or not self._in_hand:
            return
        lacking = {row for column in part.columns for row in unchanged(column)}
        if lacking:
            there, keys = _keys(covered), _keys(part)
            self._in_hand[-1].update({(part.table, there[row]): keys[row] for row in lacking})

    # -- key ranges

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        """A table whose key is covered is one chunk: bounds are values of the key, and are kept."""
        found: list[Chunk] = self._inner.chunks(table, rows)
        if not self._covers_key(table):
            return found
        return [Chunk(table, 0, rows=sum(chunk.rows for chunk in found))]

    def chunks_within(self, table: TableId, within: KeySpan, rows: int) -> list[Chunk]:
        if self._covers_key(table):
            raise SourceRefused(
                "expected a key that is carried as it is, found one that a privacy rule covers: "
                "a range of its values means nothing at the destination; resync the whole table",
                place=str(table),
            )
        found: list[Chunk] = self._inner.chunks_within(table, within, rows)
        return found

    def summing(self, chunk: Chunk, compared: Compared) -> Summing | None:
        """What the source's server would sum up are the values as they are."""
        if self._privacy(chunk.table) is not None:
            return None
        return compared_source(self._inner, chunk.table).summing(chunk, compared)

    # -- positions

    def position(self) -> Position:
        return self._sealed(self._inner.position(), self._seals_log)

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        start: Position = self._inner.poll_start(table, fire_time=fire_time)
        return self._sealed(start, self._covers_key(table))

    def delivered(self, table: TableId, position: Position) -> Delivered | None:
        found: Delivered | None = self._inner.delivered(table, self._opened(position))
        return found

    def reached(self, position: Position, goal: Position) -> bool:
        return bool(self._inner.reached(self._opened(position), self._opened(goal)))

    def acknowledge(self, position: Position) -> None:
        self._inner.acknowledge(self._opened(position))

    def headroom(self, position: Position) -> Headroom:
        found: Headroom = self._inner.headroom(self._opened(position))
        return found

    @property
    def _seals_log(self) -> bool:
        """Do positions of the log hold values of a key that is covered?"""
        name = self.traits.key_in_positions
        return bool(name) and any(_is_at(path, name) for path in self._paths)

    def _sealed(self, position: Position, sealed: bool) -> Position:
        return replace(position, token=self._sealing.seal(position.token)) if sealed else position

    def _opened(self, position: Position) -> Position:
        if not Sealing.is_sealed(position.token):
            return position
        return replace(position, token=self._sealing.open(position.token))

    # -- the rules

    def _settings(self, table: TableId) -> TableSettings:
        settings = self._selection(table)
        if settings is None:
            raise WarpError("expected a table of the configuration", place=str(table))
        return settings

    def _privacy(self, table: TableId) -> Privacy | None:
        settings = self._selection(table)
        return None if settings is None else settings.privacy

    def _covers_key(self, table: TableId) -> bool:
        privacy = self._privacy(table)
        if privacy is None:
            return False
        if self.traits.schemaless:
            name = self.traits.key_in_positions
            return any(_is_at(path, name) for path, _ in privacy.rules)
        known = self._tables.get(table)
        if known is None:
            for schema in self._inner.get_schema([table]).values():
                known = self._covered_table(schema, privacy)
        return known is not None and known.covered_key

    def _covered_table(self, schema: TableSchema, privacy: Privacy) -> CoveredTable:
        known = self._tables.get(schema.table)
        if known is not None and (known.at_source is schema or known.at_source == schema):
            return known
        known = cover_table(schema, privacy)
        self._tables[schema.table] = known
        return known

    def _tell_unmet(self, table: TableId, privacy: Privacy, *, enough: int) -> None:
        """Of documents, which have no schema to look into, after some of them."""
        seen = _seen.get((table, privacy))
        if seen is None or seen.rows < enough or len(seen.met) == len(privacy.rules):
            return
        for path, _ in privacy.rules:
            if path not in seen.met:
                if privacy.missing is MissingColumn.STOP:
                    raise _missing(table, path, f"none in {seen.rows} documents")
                _tell(table, path)


def must_hold(table: CoveredTable, privacy: Privacy) -> None:
    """Raises SourceRefused where a rule cannot be kept, or covers nothing and must."""
    name = table.at_source.table
    for path in table.broken:
        raise SourceRefused(
            f"expected `hash` or `tokenise` for a column of the key, found "
            f"{dict(privacy.rules)[path].value!r}, which would make different rows one: change "
            f"the rule of {path!r}",
            place=str(name),
        )
    for path in table.opaque:
        raise SourceRefused(
            f"expected fields inside of a column for the privacy rule of {path!r}, found "
            f"{_opaque(table, path)}; {_MEND_OPAQUE.format(path)}; nothing was written",
            place=str(name),
        )
    for path in table.unmet:
        if stops(path, privacy):
            raise _missing(name, path, f"the columns {', '.join(table.at_source.names())}")


_MEND_OPAQUE: Final = "cover the column as a whole, or say `{}: keep` for this table"


def _opaque(table: CoveredTable, path: str) -> str:
    [column] = [c for c in table.at_source.columns if path.startswith(c.source + ".")][:1]
    return f"{column.source!r} of kind {column.kind}, whose text is carried as it is"


def stops(path: str, privacy: Privacy) -> bool:
    """Must the table have what the rule names?"""
    if privacy.missing is not None:
        return privacy.missing is MissingColumn.STOP
    return path in privacy.own


def _missing(table: TableId, path: str, found: str) -> SourceRefused:
    return SourceRefused(
        f"expected {path!r}, for which there is a privacy rule, found {found}: was it renamed? "
        "Correct the rule, or set `privacy.missing: warn`; nothing was written",
        place=str(table),
    )


def _tell(table: TableId, path: str) -> None:
    if (table, path) not in _told:
        _told.add((table, path))
        log.warning(
            "privacy_rule_names_nothing",
            table=str(table),
            rule=path,
            mend="correct the rule, or remove it where the table has no such value",
        )


def _findings(
    schema: TableSchema, privacy: Privacy, settings: TableSettings, traits: SourceTraits
) -> Iterator[Diagnosis]:
    table = cover_table(schema, privacy)
    subject = str(schema.table)
    for path in table.broken:
        yield failed(
            _CODE,
            subject,
            f"hash or tokenise for {path!r}, which is of the key",
            f"{dict(privacy.rules)[path].value}, which would make different rows one",
            "change the rule",
        )
    opaque = () if traits.schemaless else table.opaque
    for path in opaque:
        yield failed(
            _CODE,
            subject,
            f"fields for {path!r}, for which there is a rule",
            _opaque(table, path),
            _MEND_OPAQUE.format(path),
        )
    unmet = [
        path
        for path in table.unmet
        if path not in opaque and (not traits.schemaless or _is_sampled(path, schema))
    ]
    for path in unmet:
        make = failed if not traits.schemaless and stops(path, privacy) else warning
        yield make(
            _CODE,
            subject,
            f"{path!r}, for which there is a rule",
            "no such column" if not traits.schemaless else "no such field in a sample",
            "correct the rule, or remove it; or set `privacy.missing: warn`",
        )
    if not table.broken and not unmet and not opaque:
        covers = ", ".join(f"{path}: {cover.value}" for path, cover in privacy.rules)
        yield ok(_CODE, subject, "privacy rules that name what is there", covers)


def _is_sampled(path: str, schema: TableSchema) -> bool:
    """Could a sample have shown it?  Fields inside of others have no columns of their own."""
    columns = {c.source for c in schema.columns if c.role is Role.FIELD}
    return len(columns) > 1 and path.split(".")[0] not in columns


def _is_at(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")


# ---------------------------------------------------------------- parts of batches


def _keys(part: TableChanges) -> list[_Key]:
    schema = part.schema
    if schema is None:
        raise WarpError("expected rows with columns", place=str(part.table))
    places = [schema.names().index(name) for name in schema.key]
    return list(zip(*(part.columns[place] for place in places), strict=True))


def _of_keys(rows: TableChanges, keys: Sequence[_Key]) -> TableChanges:
    """The rows with other keys, and nothing but their keys."""
    schema = rows.schema
    if schema is None:
        raise WarpError("expected rows with columns", place=str(rows.table))
    columns = tuple(column for name in schema.key if (column := schema.column(name)) is not None)
    return replace(
        rows,
        schema=replace(schema, columns=columns),
        columns=[list(cells) for cells in zip(*keys, strict=True)] or [[] for _ in columns],
    )


def _taken(part: TableChanges, rows: Sequence[int]) -> TableChanges:
    documents: Documents | None = part.documents
    return replace(
        part,
        operations=bytearray(part.operations[row] for row in rows),
        versions=[part.versions[row] for row in rows],
        columns=[taken(column, rows) for column in part.columns],
        documents=None if documents is None else documents.taken(rows),
    )


def _joined(part: TableChanges, more: TableChanges) -> TableChanges:
    documents = part.documents
    if documents is not None and more.documents is not None:
        documents = documents.joined(more.documents)
    return replace(
        part,
        operations=part.operations + more.operations,
        versions=[*part.versions, *more.versions],
        columns=[[*a, *b] for a, b in zip(part.columns, more.columns, strict=True)],
        documents=documents,
    )
