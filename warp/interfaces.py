"""The seams of cartridge-warp.  Implement one and you have extended it.

Each method states when it is called, what it promises and which errors it raises.
`warp.testing.contracts` holds the tests that any implementation must pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from warp.model import (
    ChangeBatch,
    Choice,
    Chunk,
    Cost,
    CutShort,
    Diagnosis,
    ErrorLine,
    Finding,
    Foreseen,
    Headroom,
    Intent,
    KeySpan,
    Lease,
    LeasedUnit,
    LedgerStats,
    Marker,
    Phase,
    Position,
    QuarantinedRow,
    Replay,
    SchemaChange,
    SetAside,
    TableChanges,
    TableId,
    TableSchema,
    TableSelection,
    UnitKind,
    WorkerState,
    WorkUnit,
    Written,
)


@dataclass(frozen=True, slots=True)
class SourceTraits:
    """What a source can do, as data, so that the core never asks for its type."""

    streams: bool = True  # has a log to follow
    bills: bool = False  # reading costs by the byte: see `TellsCosts`
    follows_twice: bool = True  # two streams of one database cost little more than one
    holds_log: bool = False  # keeps its log until acknowledge()
    full_rows: bool = True  # False where an update, or a create by a new key, has UNCHANGED cells
    schemaless: bool = False  # batches carry documents
    headroom: bool = False  # it can tell what it still keeps: see `TellsHeadroom`
    ranges: bool = False  # it can cut a range of keys: see `CutsRanges`
    compares: bool = False  # its rows can be verified: see warp.digest.seams
    estimates: bool = False  # it knows about how many rows there are: see `EstimatesRows`
    reads_keys: bool = False  # `hash` capture by digests: see warp.digest.seams.ReadsKeys
    remembers: bool = False  # it shows a table as it was: see warp.digest.seams.Remembers
    # The field that is the key of every table, where positions of the log hold its values.
    key_in_positions: str = ""


@dataclass(frozen=True, slots=True)
class DestinationTraits:
    """What a destination can do."""

    atomic_marker: bool = True  # rows and marker commit together
    transactional_ddl: bool = False
    best_batch_rows: int = 1_000
    ranges: bool = False  # a range of keys can be read anew: see `ResyncsRanges`
    foresees: bool = False  # it can tell what it would do: see `Foresees`
    # What `auto` batch sizes aim at: seconds one transaction may take where all that was ready was
    # in it, and where there is a backlog; and rows at most.
    prompt_seconds: float = 0.05
    backlog_seconds: float = 0.5
    most_rows: int = 10_000
    # Are batch sizes `auto` where nobody has said them, and begin at `best_batch_rows`?  For where
    # a transaction costs the same whatever is in it, and there are so many a day.
    sizes_batches: bool = False
    # How long a quiet stream's marker may lag behind the log, where each move of it costs.
    idle_marker_seconds: float = 2.0
    # How long a healthy write may take: before that its unit is not taken for stuck, where
    # `stall_after` is not set.  Zero: what is usual of a database.
    slowest_write_seconds: float = 0.0
    compares: bool = False  # its rows can be verified: see warp.digest.seams
    tells_cut_short: bool = False  # its metadata is a TellsCutShort


class SourceConnector(Protocol):
    """Somewhere changes come from.  One instance serves one unit, in one thread at a time.

    Constructed as `Connector(options, selection)`; connecting happens on first use.  Any method
    may raise SourceUnavailable (waiting helps) or SourceRefused (a person must act), each within
    ten seconds when the server cannot be reached.
    """

    Options: ClassVar[type[BaseModel]]
    traits: ClassVar[SourceTraits]

    def check(self) -> None:
        """Called before work starts and by `validate`: can this server do what we need?

        Raises SourceRefused naming the missing right or setting and how to give it.
        """
        ...

    def diagnose(self) -> list[Diagnosis]:
        """All that `check` looks at, and what only costs or warns, each with what mends it.

        For `doctor`.  What it finds it returns; raises only where the server cannot be asked.
        """
        ...

    def namespaces(self) -> list[str]:
        """The namespaces that exist now: databases, schemas, datasets.

        Asked to find out what a schema's name means, so before there is a selection.
        """
        ...

    def tables(self) -> list[TableId]:
        """The selected tables that exist now.  Called at each reconciliation; must be cheap."""
        ...

    def get_schema(self, tables: Sequence[TableId]) -> dict[TableId, TableSchema]:
        """Columns and key of each table, for one the destination has not got yet.

        A schemaless source looks at a sample.  A table that does not exist is left out.
        """
        ...

    def position(self) -> Position:
        """Where the log ends now.  Taken and stored before a snapshot; the stream starts here."""
        ...

    def version(self) -> int:
        """The order key now: every row a snapshot reads from here on carries one at least as high.

        What a finished snapshot of now has not seen, and is older, is gone at the source.  Higher
        than that of any change that the log has forgotten.
        """
        ...

    def reached(self, position: Position, goal: Position) -> bool:
        """Has a stream at `position` delivered everything up to `goal`?"""
        ...

    def look_up(self, rows: TableChanges) -> TableChanges:
        """The rows of these keys as they are now, as READ operations; those gone are left out.

        For changes that carry a part of a row which the destination has not got
        (docs/architecture.md, how snapshot and stream meet).  Only the key columns of `rows` are
        looked at, no two of one key; any order.  May be called while `get_changes` reads ahead in
        another thread, so over a connection of its own.  Raises SourceRefused where
        `traits.full_rows` says that no update is partial, unless `traits.compares`.
        """
        ...

    def chunks(self, table: TableId, rows: int) -> list[Chunk]:
        """Cut a table into key ranges of about `rows` rows that together cover every key.

        At least one chunk, also for an empty table, and every key type is covered.
        """
        ...

    def get_full_snapshot(self, chunk: Chunk) -> Iterator[ChangeBatch]:
        """The rows of one chunk as READ operations, at one consistent version per chunk.

        Every row carries that version; `end` of each batch is the chunk's read position.
        """
        ...

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        """Changes after `position` in commit order, for as long as the caller asks.

        Blocks on the server, never polls.  When nothing happened for `idle` seconds, yields an
        empty batch whose end is where the log has got to.  `end` never moves back.  A transaction
        larger than one batch comes as several that carry the previous commit's end but the last.
        Raises PositionLost when the log no longer holds `position` (guarantee 6).
        """
        ...

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        """Rows changed since `position` by the table's own capture strategy, one finite run.

        `position` is the end of the last batch of the previous run, or None for the first.
        READ or UPDATE operations, always of whole rows: an UPDATE where two runs may see different
        rows at one version.  DELETE and TRUNCATE where the strategy sees what is gone.  A run that
        reads the table whole ends with a TRUNCATE row of the version before its own: what it did
        not find is gone.  A table without a key can only be read whole, always with None, at one
        version, as READ operations.
        """
        ...

    def poll_start(self, table: TableId, *, fire_time: float) -> Position:
        """Where polling goes on after a snapshot that begins now.

        Taken before the snapshot: a poll from here finds whatever changed since.
        """
        ...

    def acknowledge(self, position: Position) -> None:
        """Everything up to here is durable; the source may forget it (guarantee 3).

        Here is the end of a batch of `get_changes` or of `poll`.
        """
        ...

    def close(self) -> None:
        """Release everything.  May be called from another thread, to end a blocked read."""
        ...


class TellsHeadroom(Protocol):
    """What a source can do besides whose `traits.headroom` says so."""

    def headroom(self, position: Position) -> Headroom:
        """How much is left before this position of a stream is forgotten (guarantee 6).

        Asked now and then of a stream that runs or has stopped; cheap, and changes nothing.
        """
        ...


class CutsRanges(Protocol):
    """What a source can do besides whose `traits.ranges` says so."""

    def chunks_within(self, table: TableId, within: KeySpan, rows: int) -> list[Chunk]:
        """As `chunks`, of the keys in a range: the chunks cover every row of it.

        Rows beside it may be in them too, and there may be none.
        """
        ...


class EstimatesRows(Protocol):
    """What a source can do besides whose `traits.estimates` says so."""

    def rows_about(self, tables: Sequence[TableId]) -> dict[TableId, int]:
        """About how many rows each table has, without reading them; for people to see.

        A table that the server has no figure of is left out.
        """
        ...


class DestinationConnector(Protocol):
    """Somewhere changes go.  One instance serves one unit, in one thread.

    Constructed as `Connector(options, selection)`.  There is no way to write rows without their
    marker.  Any method may raise DestinationUnavailable or DestinationRefused.
    """

    Options: ClassVar[type[BaseModel]]
    traits: ClassVar[DestinationTraits]

    def check(self) -> None:
        """Called before work starts and by `validate`.  DestinationRefused names the right."""
        ...

    def diagnose(self) -> list[Diagnosis]:
        """As of a source."""
        ...

    def missing(self, changes: TableChanges) -> list[int]:
        """Which of these rows, by their place, the destination has not got.

        Asked about updates that carry a part of a row, before they are written; `changes` holds
        their key columns only.  A tombstone is not a row, a soft-deleted row is one.  While a
        table is read anew, a row older than that snapshot counts as missing: the columns an
        update leaves alone may have changed at the source while nobody followed.
        So does a row of whose key something waits in quarantine: what that alone has changed is
        in no row, and the update would overrule it.
        """
        ...

    def open(self, lease: Lease) -> Marker:
        """Adopt the unit: raise its fence in the destination and say where to resume.

        A unit never seen before gets a marker without a position.  Raises FenceBehind, with the
        fence found, when one at least as new as the lease's stands there.  (Guarantee 2, first
        half: `update … where fence < :mine`.)
        """
        ...

    def get_schema(self, table: TableId) -> TableSchema | None:
        """The table as the destination has it now, by its source name; None where there is none."""
        ...

    def apply_schema_changes(self, changes: Sequence[SchemaChange]) -> None:
        """Make the changes, or find them made: doing one twice is not an error.

        A column that cannot be widened (the server refuses, or the table is too large to rewrite)
        is registered as fixed instead, with a line in the error log.  Raises SchemaBusy where the
        table is in use for longer than others could be made to wait behind us.

        Two workers may ask at once; the schema version grows once per change made.
        """
        ...

    def write_batch(
        self,
        batch: ChangeBatch,
        marker: Marker,
        *,
        quarantined: Sequence[QuarantinedRow] = (),
        findings: Sequence[Finding] = (),
        replay: Replay | None = None,
    ) -> Written:
        """Rows, quarantine, audit and marker in ONE transaction, or none of them (guarantee 1).

        `findings` become lines of the error log in it: one line per table, column, outcome and
        type met, which counts the cells of all batches.

        `marker` is the one to leave behind; it must follow the stored one (same fence,
        batch = stored + 1), else FenceBehind and nothing is written (guarantee 2).  SchemaMoved
        when a table's schema version is not the batch's.  An outcome that the connection did not
        report is settled by reading the marker again, never by guessing (guarantee 7).

        A table without a key takes READ rows of chunks and polls only.  They are seen once the run
        is whole (the chunk DONE, the poll's TRUNCATE row written), in the place of all rows before
        it; what a run cut short has left is gone when its unit is opened again.

        With `replay` the rows come out of quarantine, no two of one key, and what becomes of each
        is written there in the same transaction: REPLAYED where it landed; SUPERSEDED, and nothing
        written, where `warp.replays.overruled` says so of what the destination has; WAITING with
        one more try where it was refused again, which makes no second row of the quarantine.
        A cell lands alone.  LeaseLost when one of them is not REPLAYING any more.
        """
        ...

    def update_marker(self, marker: Marker) -> None:
        """The same transaction with no rows: an idle stream, a finished chunk.

        Both also try, now and then, rows that wait for other rows (`Written.deferred`).
        """
        ...

    def deferred_due(self, schema: str) -> bool:
        """Should a transaction be made, though nothing has changed, for rows of this schema (for
        SHARED, of all that are selected) that wait for other rows?  Asked between transactions."""
        ...

    def metadata(self) -> MetadataStore:
        """The bookkeeping beside the data, over this connection."""
        ...

    def close(self) -> None: ...


class Foresees(Protocol):
    """What a destination can do besides whose `traits.foresees` says so.  Changes nothing."""

    def standing(self, table: TableId) -> TableSchema | None:
        """As `get_schema`, also where nothing was ever prepared, and without ending anything that
        was begun."""
        ...

    def foresee(self, have: TableSchema | None, change: SchemaChange) -> Foreseen:
        """What the change would do to a table that is as `have` says by then.

        Raises DestinationRefused as the change itself would.
        """
        ...


class MetadataStore(Protocol):
    """`cartridge_warp_metadata`: the truth that outlives Redis and every process.

    Used by the coordinator to plan and to rebuild the ledger, by workers for runs and errors,
    by `status` for display.  Every method is idempotent.
    """

    def prepare(self) -> None:
        """Create the metadata schema or migrate it forward.  Safe from many processes at once."""
        ...

    def prepared(self) -> bool:
        """Is there a metadata schema?  Asking needs no right to create one."""
        ...

    def register(self, unit: WorkUnit, *, position: Position | None, phase: Phase) -> bool:
        """Add the marker of a unit unless one is there; True when this call added it."""
        ...

    def plan_snapshot(
        self, schema: str, table: TableId, chunks: Sequence[Chunk], *, version: int
    ) -> bool:
        """Store a table's chunks as PLANNED markers and the table as SNAPSHOT, all or none.

        Only where the table has no snapshot yet or its state is PLANNED; False where another
        planner was first.  `version` is the source's version before planning: rows of an earlier
        snapshot that are older are swept when the last chunk is done.
        """
        ...

    def settle(self, schema: str, table: TableId) -> bool:
        """If every chunk is done: purge tombstones, sweep stale rows, mark the table STREAMING.

        One transaction that excludes every writer of the table; True when this call did it.
        Rows of the quarantine that what goes here overrules are SUPERSEDED in it.
        """
        ...

    def markers(self, kinds: Sequence[UnitKind] = ()) -> list[Marker]:
        """All markers, or those of some kinds."""
        ...

    def mark(self, unit_id: str, phase: Phase, *, seen: int | None = None) -> bool:
        """Set a unit's phase without touching its position: FAILED, PAUSED, or back again.

        The fence grows, so that a worker that is at the unit must adopt it anew, and sees it.
        Where a fence above `seen` stands, somebody has been at the unit or decided about it since
        that was read: nothing changes, and False is returned.  So a request that arrives when its
        caller has long given it up undoes nothing.
        """
        ...

    def follow(self, stream: WorkUnit, follows: str, *, left: Sequence[WorkUnit]) -> bool:
        """Say what a stream carries from now on; True when this call changed it.

        The fence grows, so that whoever follows the log with another configuration is shut out
        before the first chunk of a new table is read.  The tables of `left` are carried no more:
        they become PLANNED under a new epoch in the same transaction (guarantee 4).
        """
        ...

    def resync(
        self,
        schema: str,
        table: TableId | None,
        *,
        position: Position,
        stream: WorkUnit | None = None,
        newest: int | None = None,
    ) -> list[WorkUnit]:
        """Start over at `position`: fence and epoch of the stream grow, tables become PLANNED.

        A resync of one table leaves the stream where it is, and so does that of a schema whose
        `stream` is shared: what others follow is not moved.  Returns the units whose lease must be
        offered again.

        `newest` is the source's version before `position`, where that does not go on from the old
        one: another server, a log that was reset.  Rows with this version or a higher one count as
        older from then on, or else nothing that is read anew would replace them (guarantee 6).
        """
        ...

    def begin_run(self, lease: Lease, run: str, *, slot: float | None = None) -> None:
        """Open a row in sync_runs; runs of the same unit that never ended become `abandoned`.

        `slot` is the one of its schedule that a poll runs for.  The transaction that leaves the
        poll's marker IDLE ends the run too, and takes the slot (`Marker.slot`, `slot_taken`).
        """
        ...

    def slot_taken(self, unit_id: str, slot: float) -> bool:
        """Has a run of this slot come to its end?  One that was abandoned or stopped has not.

        Asked by who has opened the unit: from then on nobody else's run can end.
        """
        ...

    def end_run(self, run: str, *, status: str, rows: int, error: str = "") -> None: ...

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
        """One line in error_log.  `action` says what was done about it."""
        ...

    def add_errand(self, id: str, name: str, arguments: Mapping[str, Any]) -> None:
        """Store an operator's intent before rq carries it, so that a lost Redis loses nothing."""
        ...

    def open_errands(self) -> list[tuple[str, str, dict[str, Any]]]:
        """(id, name, arguments) of the errands not finished, oldest first."""
        ...

    def end_errand(self, id: str, *, status: str, result: str = "") -> None: ...

    def errands(self, id: str | None = None) -> list[Intent]:
        """The errand with this id; or a hundred: the open ones, then the newest others."""
        ...

    def quarantined(self) -> dict[TableId, int]:
        """How many rows of each source table wait in quarantine; tables without any left out."""
        ...

    def deferred(self) -> dict[TableId, int]:
        """How many rows of each source table wait for other rows; tables without any left out."""
        ...

    def quarantine(self, choice: Choice) -> list[SetAside]:
        """Rows of the quarantine in the order of their ids; without their values unless `whole`."""
        ...

    def replay(self, schema: str, table: TableId, ids: Sequence[int]) -> int:
        """WAITING rows of a table become REPLAYING; how many.  Rows without kinds cannot.

        In the same transaction the marker of the table's replay unit becomes PLANNED unless it is
        PAUSED, so that the intent outlives Redis; its fence grows, so that a worker about to end
        the unit looks again.
        """
        ...

    def to_replay(self, schema: str, table: TableId, limit: int) -> list[SetAside]:
        """REPLAYING rows of a table, the oldest version first; at least one where there is any.

        No more than `limit`, and than what a few megabytes hold (guarantee 9).
        """
        ...

    def discard(self, ids: Sequence[int]) -> int:
        """Rows that are WAITING or REPLAYING become DISCARDED; how many."""
        ...

    def errors(self, choice: Choice) -> list[ErrorLine]:
        """Lines of the error log, the latest first; `states` and `after` say nothing here."""
        ...


class ResyncsRanges(Protocol):
    """What the metadata of a destination can do besides whose `traits.ranges` says so."""

    def resync_range(
        self, schema: str, table: TableId, within: KeySpan, *, stream: WorkUnit
    ) -> list[WorkUnit]:
        """As `resync` of one table, which must be complete, else DestinationRefused.

        Its marker becomes PLANNED with `Marker.within`, and what settles it then sweeps rows of
        that range only.
        """
        ...

    def plan_range(
        self,
        schema: str,
        table: TableId,
        chunks: Sequence[Chunk],
        within: KeySpan,
        *,
        version: int,
    ) -> bool:
        """As `plan_snapshot`; False also where the marker says another range by now, or none."""


class TellsCutShort(Protocol):
    """Metadata that can tell people which runs never came to their end."""

    def cut_short(self, *, newer_than: float, limit: int) -> list[CutShort]:
        """Runs of the last `newer_than` seconds that ended `abandoned` or `lost`, newest first."""
        ...


class LeaseStore(Protocol):
    """The ledger: who may work on what.  All clocks are the store's own; all times are seconds.

    Any method may raise LedgerUnavailable.  Nothing here is the truth: a store wiped at any moment
    costs a pause, never a row, because the destination checks the fence itself.
    """

    def ensure(self, units: Sequence[WorkUnit]) -> int:
        """Offer the units that are neither due, later, leased nor dead; how many were added."""
        ...

    def offer(self, unit: WorkUnit, *, delay: float = 0.0) -> bool:
        """Make a unit ready after `delay` seconds; the earlier time wins, and False says it did.

        A dead unit stays dead until revived (also False).  A leased unit is only marked to be
        offered again when it is released.
        """
        ...

    def claim(self, worker: str, count: int, *, ttl: float, slots: int) -> list[Lease]:
        """Take up to `count` ready units, each with a fence never issued before.

        Longest ready first, but streams and polls before chunks, which have a quarter of all
        slots to themselves.  What is above the worker's fair share is left to others for a tenth
        of the ttl, so that units given back for balance do not bounce.
        """
        ...

    def renew(
        self, worker: str, leases: Sequence[Lease], *, ttl: float, slots: int, memory: int = 0
    ) -> tuple[int, list[bool]]:
        """(how many to shed, for each lease whether it is still held).  At most 250 at a time.

        To shed is the wish of this moment, for the worker as a whole: not to be added to the last
        one.  Also proof of life of the worker: call it with no leases too.  `memory` is what it
        tells of its resident bytes, for people to see.
        """
        ...

    def release(
        self, lease: Lease, *, delay: float | None = 0.0, failed: bool = False, dead: bool = False
    ) -> bool:
        """Give a unit back: ready after `delay` seconds, or finished where `delay` is None.

        `failed` counts a failure and holds the unit back, for `delay` seconds or, where that is 0,
        exponentially by its failures in a row, whatever was offered meanwhile; `dead` sets it
        aside for the operator at once.  False when the lease was not ours any more.
        """
        ...

    def refence(self, lease: Lease, floor: int) -> Lease | None:
        """A lease on the same unit whose fence is above `floor`; None when it is not ours."""
        ...

    def drain(self, worker: str) -> None:
        """This worker claims no more; its capacity no longer counts."""
        ...

    def withdraw(self, unit_ids: Sequence[str]) -> int:
        """Forget units that are not leased (finished, or no longer configured)."""
        ...

    def revive(self, unit_id: str) -> bool:
        """Make a dead unit ready again."""
        ...

    def mend(self) -> list[str]:
        """Put right what a stranger may have written; what that was.

        Where nothing of it can be believed, the store begins anew, as one that was wiped.
        """
        ...

    def incarnation(self) -> str:
        """An id drawn when the store was first used; another one means it was wiped."""
        ...

    def stats(self) -> LedgerStats: ...

    def units(self) -> list[LeasedUnit]:
        """Every unit the ledger knows, for status."""
        ...

    def workers(self) -> list[WorkerState]: ...

    def wait(self, timeout: float) -> None:
        """Return when the bell rings or after `timeout` seconds.  The bell is only a speed-up."""
        ...

    def close(self) -> None: ...


class Hold(Protocol):
    """A lease in a worker's hand, kept alive by the heartbeat."""

    @property
    def lease(self) -> Lease: ...

    def check(self) -> None:
        """Called before each transaction.  LeaseLost unless the lease is certainly still ours.

        Also the proof of progress: the heartbeat stops renewing a unit that no longer calls it.
        """
        ...

    def stopping(self) -> bool:
        """Should the unit be handed back at the next batch boundary (shutdown, drain, shed)?"""
        ...

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until `stopping()`; the only sleep in the data path."""
        ...


class TellsCosts(Protocol):
    """What a source can do besides whose `traits.bills` says so."""

    def cost(self, tables: Sequence[TableId] | None = None) -> list[Cost]:
        """What reading these tables will bill, or all that are selected.  Asking bills nothing."""
        ...
