"""The nouns of cartridge-warp: what moves, and how far it has got.

Every other module speaks in these types.  They hold data and answer questions about it; none of
them does I/O or reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final, Protocol, final


class Operation(IntEnum):
    """What happened to a row.  One byte, so that a batch's operations are a bytearray."""

    READ = ord("r")  # seen by a snapshot or a poll
    CREATE = ord("c")
    UPDATE = ord("u")
    DELETE = ord("d")
    TRUNCATE = ord("t")  # every row up to and including this row's version is gone


@dataclass(frozen=True, slots=True)
class Invalid:
    """A cell whose source could not read it as what it should be: a zero date, damaged bytes."""

    text: str  # what the source had, as far as it can be shown


@final
class _Mark:
    """A cell that holds no value and must never be written as NULL."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        return False


UNCHANGED: Final = _Mark("UNCHANGED")
"""The source did not send this cell: keep what the destination has."""
ABSENT: Final = _Mark("ABSENT")
"""The document has no such field.  Written as NULL only where a column must hold something."""


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """A table (or collection) by its two names, at a source or at a destination."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}.{self.name}"


Cells = Sequence[Any]
"""A column: one carrier a row, in a list or packed (`warp.cells`)."""


class Kind(StrEnum):
    """The logical type of a column.  Each destination spells it its own way.

    The comment names the carrier: the one Python type a cell of this kind has inside a
    `TableChanges`.  A source converts to the carrier once, per column; a destination relies on it.
    None, UNCHANGED and ABSENT may stand in any column.
    """

    BOOL = "bool"  # bool
    INT32 = "int32"  # int
    INT64 = "int64"  # int
    FLOAT32 = "float32"  # float that a single holds exactly
    FLOAT64 = "float64"  # float
    DECIMAL = "decimal"  # decimal.Decimal, NaN and infinities included
    TEXT = "text"  # str without NUL
    BYTES = "bytes"  # bytes
    UUID = "uuid"  # bytes, 16 of them
    DATE = "date"  # datetime.date
    TIME = "time"  # int: microseconds since midnight, below 24 hours
    DATETIME = "datetime"  # int: microseconds since 1970-01-01 on a wall clock; no instant
    TIMESTAMP = "timestamp"  # int: microseconds since 1970-01-01 UTC; an instant
    JSON = "json"  # bytes: UTF-8 JSON text without \u0000
    JSON_TEXT = "json_text"  # bytes: UTF-8 JSON text, kept as it is: order, repeated names, \u0000
    OBJECTID = "objectid"  # str: 24 lower-case hexadecimal digits
    TAGGED = "tagged"  # str: JSON text of a value of any type, so that 1 and "1" differ


class Role(StrEnum):
    """Why a column is there."""

    FIELD = "field"  # carries one field or column of the source
    EXTRA = "extra"  # `_extra`: what has no column or does not fit its column, as JSON
    DOCUMENT = "document"  # `doc`: the whole document, as JSON


@dataclass(frozen=True, slots=True)
class Column:
    name: str  # at the destination
    kind: Kind
    source: str = ""  # the field or column it comes from
    role: Role = Role.FIELD
    comment: str = ""  # kept with the column at the destination
    # The destination's own limits, in a table that somebody else made; None: none.
    limit: int | None = None  # characters of TEXT, digits of DECIMAL
    scale: int | None = None  # digits of DECIMAL after the point
    fixed: bool = False  # cannot be widened: the server refused, or the table is too large

    def __post_init__(self) -> None:
        if not self.source:
            object.__setattr__(self, "source", self.name)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of one table as the destination has them, or as a source proposes them."""

    table: TableId  # at the source
    columns: tuple[Column, ...]
    key: tuple[str, ...]  # names of columns; empty where the table has no key
    version: int = 0  # counts the destination's changes; 0 for a proposal
    full: bool = False  # the destination's table takes no more columns

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)

    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns)

    @property
    def is_guess(self) -> bool:
        """Is this a table for documents of which nobody had seen one?

        Whoever has seen documents says in the key's comment which types their keys have.
        """
        of_documents = any(c.role is not Role.FIELD for c in self.columns)
        return of_documents and not any(c.comment for c in self.columns if c.name in self.key)


class Shape(StrEnum):
    """How the documents of a source without a schema become rows."""

    TYPED = "typed"  # a column per field, the rest in `_extra`
    DOCUMENT = "document"  # the key and `doc`
    BOTH = "both"


class DocumentColumn(StrEnum):
    """What the column of whole documents is."""

    JSONB = "jsonb"  # can be indexed; loses the order of fields, repeated names and NUL
    JSON = "json"  # the text as it is: the document can be rebuilt byte for byte


class Capture(StrEnum):
    """How changes of a table are found."""

    LOG = "log"
    TIMESTAMP = "timestamp"
    TRIGGER = "trigger"
    HASH = "hash"


class Handling(StrEnum):
    """What to do with a value that does not fit its column."""

    WIDEN = "widen"  # the column, to a kind that holds both
    TEXT = "text"  # the column becomes text, which holds both
    TRUNCATE = "truncate"  # with a visible mark
    EXTRA = "extra"  # keep it whole in `_extra`; where there is none: skip
    SKIP = "skip"  # leave the column as it is, and keep the original in quarantine
    SET_NULL = "set_null"  # and keep the original's text in the error log
    QUARANTINE = "quarantine"  # the whole row
    STOP = "stop"  # the unit, until a person has decided


@dataclass(frozen=True, slots=True)
class Policy:
    """What configuration says of values that do not fit; None: the default of the precedence.

    `warp.precedence` is the one place that reads it.
    """

    wider: Handling | None = None  # the column could be widened to hold it
    narrower: Handling | None = None  # another family of scalars
    too_long: Handling | None = None  # for the destination's own length limit
    drastic: Handling | None = None  # an object or array where a scalar was
    invalid: Handling | None = None  # its own source could not read it


class Cover(StrEnum):
    """What is written in the place of a value that must not leave the source."""

    HASH = "hash"  # HMAC-SHA256, 64 hexadecimal digits: equal values stay equal
    MASK = "mask"  # its form, with the last four letters or digits of a long value
    TOKENISE = "tokenise"  # another text of the same form, one for each value, by the key
    DROP = "drop"  # nothing: the column or field is not there
    KEEP = "keep"  # the value, where a wider rule says otherwise


class MissingColumn(StrEnum):
    """What to do where a rule names a column that the table has not got."""

    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Privacy:
    """The rules of one table; a rule's path is a column, or fields of a document with dots."""

    rules: tuple[tuple[str, Cover], ...]  # none of them KEEP
    own: frozenset[str] = frozenset()  # paths named for this very table, not for many
    missing: MissingColumn | None = None  # None: STOP for the table's own paths, WARN for others
    key: bytes = field(default=b"", repr=False)  # of `hash` and `tokenise`


class SnapshotMode(StrEnum):
    CONCURRENT = "concurrent"  # the stream runs from the first moment (docs/architecture.md)
    SERIAL = "serial"  # the stream waits for the table's last chunk
    NEVER = "never"  # changes from now on, no initial rows


@dataclass(frozen=True, slots=True)
class TableSettings:
    """All that configuration says about one table: table > schema > global > default."""

    table: TableId
    destination: TableId
    schema: str  # the schema's name in the configuration
    capture: Capture = Capture.LOG
    shape: Shape = Shape.TYPED
    document_column: DocumentColumn = DocumentColumn.JSONB
    snapshot: SnapshotMode = SnapshotMode.CONCURRENT
    stream_batch_size: int = 1000  # changes read at once
    full_load_batch_size: int = 10_000  # rows of one snapshot transaction
    write_batch_size: int = 500  # rows of one stream or poll transaction
    auto_sizes: tuple[str, ...] = ()  # which of these follow the load: see warp.autosize
    polling_interval: float = 5.0  # seconds; polled captures only
    chunk_rows: int = 100_000  # rows of one chunk, about
    soft_delete_column: str | None = None  # None: hard delete
    timestamp_column: str = "updated_at"
    timezone: str = "UTC"  # of naive timestamps in that column
    overlap: float | None = None  # seconds of that column read again; None: see capture.timestamp
    columns: tuple[tuple[str, Kind], ...] = ()  # kinds fixed by configuration, by source field
    policy: Policy = Policy()
    policies: tuple[tuple[str, Policy], ...] = ()  # of single columns, by source field
    rewrite_limit: int = 1 << 30  # bytes of a table that may be rewritten to widen a column
    max_columns: int = 300  # typed columns; the rest stays in `_extra`
    promote_after: float = 5.0  # seconds between a field's first sight and its column
    dead_letter_queue: bool = True
    deferred_max_age: float = 3600.0  # seconds a row waits for the row it refers to
    deferred_max_tries: int = 1000
    verify_every: float | None = None  # seconds between two comparisons with the source; None: none
    verify_budget: float = 1.0  # share of the time that a comparison works; it rests for the others
    verify_rate: float | None = None  # rows of the source that one reads in a second, about
    masked: tuple[str, ...] = ()  # columns whose values `repair` does not show
    privacy: Privacy | None = None  # None: every value is carried as it is

    @property
    def hidden(self) -> frozenset[str]:
        """Columns whose values `repair` does not show: those masked, and those under a rule.

        What stands at the destination may be from before the rule.
        """
        if self.privacy is None:
            return frozenset(self.masked)
        paths = [path for path, _ in self.privacy.rules]
        whole = ("_extra", "doc")  # which have fields of any name
        return frozenset((*self.masked, *paths, *(p.split(".")[0] for p in paths), *whole))

    def policy_of(self, field: str) -> Policy:
        return dict(self.policies).get(field, self.policy)


class TableSelection(Protocol):
    """Which tables of a source belong to a schema, with their settings."""

    def __call__(self, table: TableId) -> TableSettings | None:
        """None where the table is not selected.  Pure and cheap: asked once per table and batch."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a source's log.

    The token is printable text that only its source can interpret: an LSN, a GTID set, a resume
    token.  Everyone else stores it, shows it and hands it back.
    """

    token: str
    committed_at: float = 0.0  # when the source committed it, Unix seconds; 0 where unknown


class Documents(Protocol):
    """The rows of a source that has no schema, not yet looked into.

    One column representation among others: `evolve` asks for columns once the destination's
    schema is known, so that every decision about types has one place.
    """

    def __len__(self) -> int: ...

    def shape(self, known: TableSchema, settings: TableSettings) -> Shaped:
        """Columns exactly as `known` lists them; what has none or does not fit goes to `_extra`.

        Never loses a value: a cell that fits nowhere raises instead.
        """
        ...

    def describe(self, settings: TableSettings) -> TableSchema:
        """The schema these documents alone would propose, for a table nobody has seen yet."""
        ...

    def covered(self, by: Privacy) -> tuple[Documents, frozenset[str]]:
        """The documents with what the rules say in the place of values, and which rules met one."""
        ...

    def taken(self, rows: Sequence[int]) -> Documents:
        """These of them, in this order."""
        ...

    def joined(self, more: Documents) -> Documents:
        """These and then those, all of them whole rows of one table."""
        ...


@dataclass(frozen=True, slots=True)
class Skipped:
    """A cell that was left out of its row, whose original is kept in quarantine."""

    row: int
    column: str
    kind: Kind  # of the original
    original: Any
    reason: str


@dataclass(slots=True)
class Shaped:
    """Documents as columns, and what did not fit."""

    columns: Sequence[Cells]
    # Source field -> the column its values ask for, for fields in `_extra` for want of a column.
    unknown: dict[str, Column] = field(default_factory=dict)
    # What became of cells that did not fit.  `key` is not filled in: the row's key is known later.
    findings: list[tuple[int, Finding]] = field(default_factory=list)  # with the first such row
    asked: list[tuple[Change, Column]] = field(default_factory=list)  # columns to change first
    skipped: list[Skipped] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)  # rows to set aside whole, and why
    # The key holds types its column cannot: the kind the key column must take first, or None.
    key_kind: Kind | None = None


@dataclass(slots=True)
class TableChanges:
    """The changes of one table, oldest first, held as columns.

    Either `schema` and `columns` are set (one for each of the schema's, one cell per row), or
    `documents` is, until `evolve` has shaped it.  A DELETE carries its key and may carry
    ABSENT elsewhere; a TRUNCATE row carries only ABSENT (or an empty document).
    """

    table: TableId
    operations: bytearray
    versions: Sequence[int]  # the source's order key of each row; equal ones are in list order
    schema: TableSchema | None = None
    columns: Sequence[Cells] = field(default_factory=list)
    documents: Documents | None = None

    def __len__(self) -> int:
        return len(self.operations)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns, strict=True)


@dataclass(slots=True)
class ChangeBatch:
    """The atom of delivery: applied whole, together with its end position, or not at all."""

    changes: list[TableChanges]
    end: Position  # resume here once this batch is durable
    # Tables that came to hold rows without events (a rename): snapshot them anew.
    reload: tuple[TableId, ...] = ()
    read_at: float = 0.0  # Unix seconds when the source handed it over

    def __len__(self) -> int:
        return sum(map(len, self.changes))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A key range [lower, upper) of one table.  None is an open end.

    The bounds are printable text that only the source can interpret, as positions are.
    """

    table: TableId
    number: int  # from 0, within one snapshot of the table
    lower: str | None = None
    upper: str | None = None
    rows: int = 0  # about how many, for progress


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a range of keys: values of the key's first columns, as text of `key_range`."""

    values: tuple[str, ...]
    inclusive: bool


@dataclass(frozen=True, slots=True)
class KeySpan:
    """Keys between two edges, compared column by column; None is an open end.

    Unlike the bounds of a `Chunk` both the source and the destination can read it.
    """

    key: tuple[str, ...]  # the columns of the key at the source, in its order
    lower: Edge | None = None
    upper: Edge | None = None

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that an edge compares."""
        return self.key[: max(len(e.values) for e in (self.lower, self.upper) if e is not None)]


SHARED: Final = "*"
"""Stands for a schema's name in the stream that several schemas share."""


class UnitKind(StrEnum):
    STREAM = "stream"
    CHUNK = "chunk"
    POLL = "poll"
    REPLAY = "replay"  # rows of one table that come out of quarantine
    VERIFY = "verify"  # a key range of one table that is compared at both ends
    TABLE = "table"  # never leased: the marker row that holds a table's snapshot state
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """The smallest thing one worker owns.  Its id is stable, so a restart finds the same marker."""

    id: str
    kind: UnitKind
    schema: str  # the schema's name in the configuration; SHARED for a stream of several
    table: TableId | None = None  # None for a stream: it follows all tables of its schemas
    chunk: Chunk | None = None

    @staticmethod
    def stream(schema: str) -> WorkUnit:
        return WorkUnit(f"stream:{schema}", UnitKind.STREAM, schema)

    @staticmethod
    def poll(schema: str, table: TableId) -> WorkUnit:
        return WorkUnit(f"poll:{schema}:{table}", UnitKind.POLL, schema, table)

    @staticmethod
    def of_chunk(schema: str, chunk: Chunk, epoch: int) -> WorkUnit:
        id = f"chunk:{schema}:{chunk.table}:{epoch}:{chunk.number}"
        return WorkUnit(id, UnitKind.CHUNK, schema, chunk.table, chunk)

    @staticmethod
    def of_replay(schema: str, table: TableId) -> WorkUnit:
        return WorkUnit(f"replay:{schema}:{table}", UnitKind.REPLAY, schema, table)

    @staticmethod
    def of_verification(schema: str, chunk: Chunk, number: int) -> WorkUnit:
        id = f"verify:{schema}:{chunk.table}:{number}:{chunk.number}"
        return WorkUnit(id, UnitKind.VERIFY, schema, chunk.table, chunk)

    @staticmethod
    def of_table(schema: str, table: TableId) -> WorkUnit:
        return WorkUnit(f"table:{schema}:{table}", UnitKind.TABLE, schema, table)


def schema_of(unit_id: str, table: TableId | None) -> str:
    """The schema that a unit's id names, given what table the unit or its news are about."""
    kind, _, rest = unit_id.partition(":")
    if kind in (UnitKind.CHUNK, UnitKind.VERIFY):
        rest = rest.rsplit(":", 2)[0]
    return rest if kind == UnitKind.STREAM else rest.removesuffix(f":{table}")


@dataclass(frozen=True, slots=True)
class Lease:
    """Time-limited ownership of one unit by one worker."""

    unit: WorkUnit
    owner: str
    fence: int  # grows at each change of owner, never shrinks (guarantee 2)

    def refenced(self, fence: int) -> Lease:
        return replace(self, fence=fence)


class Phase(StrEnum):
    """Where a unit or a table stands, as kept in its marker."""

    PLANNED = "planned"  # a table whose snapshot is wanted, or a chunk not yet read
    SNAPSHOT = "snapshot"  # a table whose chunks are being read
    STREAMING = "streaming"  # a stream; or a table whose snapshot is complete
    IDLE = "idle"  # a poll between runs
    DONE = "done"  # a finished chunk
    FAILED = "failed"  # stopped until a person acts
    PAUSED = "paused"


EVERY_VERSION: Final = (1 << 63) - 1
"""Above the version of every row: eight bytes hold one."""


@dataclass(frozen=True, slots=True)
class Marker:
    """The durable record of how far a unit has got.  Written in the transaction of the rows.

    `batch` counts the transactions of the unit, whoever wrote them: each write states the number
    it follows and is refused when another came between (the second half of the fence).
    """

    unit: WorkUnit
    fence: int = 0
    owner: str = ""
    epoch: int = 0  # grows when the position is moved by hand (resync)
    position: Position | None = None
    batch: int = 0
    rows: int = 0
    phase: Phase = Phase.PLANNED
    updated_at: float = 0.0
    # TABLE rows only: the destination's schema version, and the version of the last truncation.
    schema_version: int = 0
    truncated_at: int = -1
    sweep_below: int = -1  # rows older than this are gone at the source once all chunks are done
    within: KeySpan | None = None  # what is read anew, where that is not the whole table
    # STREAM rows only: names the tables it carries; a worker that means others must not run it.
    follows: str = ""

    # Polls with a schedule only, and never written but by a run's end: the slot run last.
    slot: float | None = None

    @property
    def stale_below(self) -> int:
        """Of a TABLE row: rows of an earlier version may not be what the source had then.

        Between a resync and the plan of its chunks that is each of them: the stream may go on from
        a place behind changes that nobody has carried (guarantee 4).
        """
        if self.phase is Phase.PLANNED:
            return EVERY_VERSION
        return self.sweep_below if self.phase is Phase.SNAPSHOT else -1

    def advanced(self, batch: ChangeBatch, *, phase: Phase | None = None) -> Marker:
        """This marker after `batch`."""
        return replace(
            self,
            position=batch.end,
            batch=self.batch + 1,
            rows=self.rows + len(batch),
            phase=phase or self.phase,
        )


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row set aside, whole, with its reason, ready to replay; or one cell of a row that landed.

    `key` and `row` are texts of `warp.stored`, and `kinds` is what reads them again.
    """

    table: TableId
    key: str
    operation: Operation
    row: str
    reason: str
    code: str
    position: Position | None = None
    version: int = 0  # the source's order key: a replay never overrules a newer change
    kinds: Mapping[str, str] = field(default_factory=dict)  # column -> kind
    partial: bool = False  # what `row` does not say, the destination keeps
    column: str = ""  # the cell's column, where the rest of the row landed
    # A later change of the same batch deletes its row: kept to be seen, and never to land.
    overtaken: bool = False


class Aside(StrEnum):
    """Where a row of the quarantine stands.  The last three are for good."""

    WAITING = "waiting"  # for a person
    REPLAYING = "replaying"  # to be landed by its table's replay unit
    REPLAYED = "replayed"  # landed
    SUPERSEDED = "superseded"  # never to land: the source has said something newer since
    DISCARDED = "discarded"  # never to land: a person said so


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row of the quarantine as the metadata keeps it."""

    id: int
    schema: str  # the schema's name in the configuration
    unit: str  # that set it aside
    row: QuarantinedRow
    state: Aside = Aside.WAITING
    at: float = 0.0  # Unix seconds
    tries: int = 0
    tried_at: float | None = None
    last_error: str = ""  # of the last try; or why it is superseded


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of the quarantine, or lines of the error log: what is not said does not narrow."""

    ids: tuple[int, ...] | None = None
    schemas: tuple[str, ...] = ()
    table: str = ""  # `name` or `namespace.name`, at the source
    code: str = ""
    reason: str = ""  # a part of the reason or message, or the whole code
    states: tuple[Aside, ...] = ()
    older_than: float | None = None  # seconds
    newer_than: float | None = None
    after: int = 0  # the id to go on from
    limit: int | None = None
    whole: bool = False  # with the values of the rows, each of which may be megabytes


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """A line of the error log; one that counts cells stands for all findings of its sort."""

    id: int
    at: float  # Unix seconds
    last_at: float
    code: str
    error_class: str
    message: str
    schema: str
    unit: str
    table: TableId | None = None
    column: str = ""
    key: str = ""
    position: str = ""
    action: str = ""
    cells: int | None = None  # of a finding
    original_length: int | None = None


@dataclass(frozen=True, slots=True)
class CutShort:
    """A run that its worker could not end: it was gone (`abandoned`) or superseded (`lost`)."""

    unit: str
    schema: str
    worker: str
    fence: int
    status: str
    ended_at: float  # Unix seconds
    error: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    """What a batch has to do with the quarantine: where its rows come from."""

    ids: Sequence[int]  # in the quarantine, one for each row of the batch in its order
    # Rows that are not in the batch, because they could not even be shaped -> why.
    refused: Mapping[int, str] = field(default_factory=dict)


class Outcome(StrEnum):
    """What became of a cell that did not fit its column as it was."""

    CONVERTED = "converted"  # exactly, to the column's kind
    TRUNCATED = "truncated"  # to the destination's length limit, with a visible mark
    EXTRA = "extra"  # kept whole in `_extra`, or its unwritable characters are
    SKIPPED = "skipped"  # the column is left as it was; the original is in quarantine
    NULLED = "nulled"  # NULL stands in the column; the error log has the original
    QUARANTINED = "quarantined"  # the whole row was set aside
    DEFERRED = "deferred"  # the whole row waits for the row it refers to


@dataclass(frozen=True, slots=True)
class Finding:
    """What happened to some cells of one column in one batch: a line in error_log, and numbers."""

    table: TableId
    column: str
    outcome: Outcome
    met: str  # what was found: a type's name, a length
    expected: str  # what the column holds
    cells: int
    key: str = ""  # of the first such row, as `warp.stored` writes it
    original: str = ""  # the first such value, as text, cut to a readable length
    original_length: int | None = None  # characters of the longest such value, where it was cut


@dataclass(frozen=True, slots=True)
class Intent:
    """What an operator asked for once, and what became of it."""

    id: str
    name: str
    arguments: dict[str, Any]
    status: str = "open"  # then `done` or `failed`
    result: str = ""
    added_at: float = 0.0


class Change(StrEnum):
    """What a schema change does."""

    CREATE_TABLE = "create_table"
    ADD_COLUMN = "add_column"  # and move the values already in `_extra` into it
    WIDEN_COLUMN = "widen_column"  # to a kind that holds every value of both
    TEXT_COLUMN = "text_column"  # to text, which holds every scalar
    RETYPE_KEY = "retype_key"  # the key column becomes TAGGED


@dataclass(frozen=True, slots=True)
class SchemaChange:
    table: TableId  # at the source
    change: Change
    schema: TableSchema | None = None  # CREATE_TABLE
    column: Column | None = None  # as it shall be; not for CREATE_TABLE
    base: int = 0  # the schema version it was decided on


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a schema change would do, told without doing it."""

    schema: TableSchema  # the table after it
    statements: tuple[str, ...] = ()  # as the destination would run them


@dataclass(slots=True)
class Evolution:
    """What `evolve` decided: schema changes to make first, rows to write, rows to set aside.

    With `ddl` the batch must be evolved anew after the changes are made.
    """

    batch: ChangeBatch
    ddl: list[SchemaChange] = field(default_factory=list)
    quarantined: list[QuarantinedRow] = field(default_factory=list)
    unknown: dict[TableId, dict[str, Column]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Written:
    """What one `write_batch` committed: rows landed, and rows that did not."""

    counts: dict[tuple[TableId, Operation], int]
    quarantined: Mapping[TableId, int] = field(default_factory=dict)
    deferred: Mapping[TableId, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What reading one table will bill at a source that bills by bytes."""

    table: TableId
    way: str  # how its changes are found, in a word
    snapshot: int  # once: all rows
    run: int | None  # each run, as far as it can be told before; None: it cannot
    cap: int | None = None  # what no single query may exceed
    why_unknown: str = ""
    verification: int | None = None  # each pass over all rows, but for looks at what differs

    @property
    def is_refused(self) -> bool:
        """Is a query larger than what is allowed?"""
        return self.cap is not None and max(self.snapshot, self.run or 0) > self.cap


class Verdict(StrEnum):
    """What a look before work starts has found."""

    OK = "ok"
    WARNING = "warning"  # work can start; something will cost more, or be missing
    FAILED = "failed"  # work cannot start, or would lose something


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that a server must have or be for our work, and what was found of it."""

    code: str  # stable, such as `postgresql-wal-level`
    verdict: Verdict
    subject: str  # the setting, right or table it is about
    expected: str
    found: str
    mend: str = ""  # the exact statement or setting that mends it; empty where nothing is to mend


@dataclass(frozen=True, slots=True)
class Headroom:
    """How much a source still keeps before it forgets a position.

    What is None the source does not tell, or it does not forget in that way.
    """

    told: str  # what was found at the server, for people
    ratio: float | None = None  # of all it keeps: 1 at the log's end, 0 where the place is lost
    seconds: float | None = None  # until it is forgotten, if nobody goes on from it
    bytes: int | None = None  # likewise, of what may still be written
    window: float | None = None  # seconds that the log reaches back
    retained: int | None = None  # bytes that are kept for us alone
    lost: bool = False
    mend: str = ""  # the statement that lets the source keep more


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """One reading of the ledger."""

    due: int
    later: int
    leased: int
    expired: int
    dead: int
    demand: int  # due or leased: the number autoscalers read
    oldest_due: float  # seconds the oldest ready unit has waited
    capacity: int
    workers: int


@dataclass(frozen=True, slots=True)
class LeasedUnit:
    """How the ledger sees one unit: for status, never for decisions about ownership."""

    unit: WorkUnit
    state: str  # due | later | leased | dead
    owner: str = ""
    fence: int = 0
    tries: int = 0
    expires_in: float = 0.0  # seconds until the lease expires, or a `later` unit is due


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How the ledger sees one worker process."""

    id: str
    slots: int
    held: int
    alive_for: float  # seconds until it counts as dead
    memory: int = 0  # resident bytes, as it last told; 0: it did not
