"""Following the log: messages of one slot to change batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from psycopg import sql

from warp import native
from warp.errors import SourceRefused, WarpError
from warp.model import Capture, ChangeBatch, Position, TableId, TableSelection
from warp.sources.postgresql import ddl, pgoutput
from warp.sources.postgresql.catalog import Catalog, Table
from warp.sources.postgresql.pgoutput import Commit, Decoder, Reading, RelationMessage
from warp.sources.postgresql.position import Log, LogEnd, Place, lsn_text
from warp.sources.postgresql.publication import Publication
from warp.sources.postgresql.replication import DATA, HEADER, KEEPALIVE, Replication, keepalive
from warp.sources.postgresql.rows import FULL_BYTES
from warp.sources.postgresql.session import Server
from warp.sources.postgresql.slots import Slot
from warp.sources.postgresql.transactions import InProgress

log = structlog.get_logger(__name__)

_NO_LIMIT: Final = 1 << 62
_LONGEST_WAIT: Final = 1.0
# Rows that keep trickling in are handed over no later than this.
_OLDEST: Final = 0.05  # seconds
_WHOLE: Final = 4  # batches that a transaction may fill and still be kept whole
_LOOK_AFTER: Final = 30.0  # seconds between looks whether the publication is still the same
_KIND: Final = HEADER  # where a DATA frame's message begins with its kind
_BODY: Final = HEADER + 1
_STREAMED: Final = 5  # where a message's body begins, after its kind and its transaction


class LogStream:
    """Follows one slot for one selection."""

    def __init__(
        self,
        server: Server,
        catalog: Catalog,
        slot: Slot,
        publication: Publication,
        log_end: Callable[[], LogEnd],
    ) -> None:
        self._server = server
        self._catalog = catalog
        self._slot = slot
        self._publication = publication
        self._log_end = log_end
        self._acknowledged = 0
        self._replication: Replication | None = None
        self._selection: TableSelection = lambda table: None
        self._described: set[TableId] = set()
        self._limit = _NO_LIMIT  # rows of a batch: the least of what these tables are written by
        self._columns = ddl.SeenColumns(catalog)
        self._reload: set[TableId] = set()
        self._keyless: set[TableId] = set()

    def acknowledge(self, lsn: int) -> None:
        """Noted here, and said by the thread that reads (guarantee 3)."""
        self._acknowledged = max(self._acknowledged, lsn)

    def wake(self) -> None:
        """From any thread: end a read that waits."""
        replication = self._replication
        if replication is not None:
            replication.wake()

    # -- opening

    def follow(
        self, position: Position, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        place = Place.parse(position.token)
        self._selection = selection
        replication = self._replication = Replication(self._server)
        in_progress = InProgress(self._server.options.spill_after)
        try:
            end = self._same_log(place, replication)
            self._slot.let_go()
            replication.start(self._slot.name, place.lsn, self._plugin_options())
            self._nothing_skipped(place)
            followed = self._followed()
            self._publication.keep({table.id for table in followed})
            reload = self._columns.begin(followed, place)
            self._reload |= reload
            progress = _Progress(end.log, place, position)
            if reload:
                progress.read_anew_up_to(end)
            follow = _Following(Decoder(self._describe), in_progress, progress)
            yield from self._read(replication, follow, idle)
        finally:
            with suppress(WarpError):
                replication.confirm(self._acknowledged)
            self._replication = None
            replication.close()
            in_progress.close()

    def _plugin_options(self) -> dict[str, str]:
        # Read as a list of identifiers.
        name = sql.Identifier(self._publication.name).as_string()
        return {"proto_version": "2", "publication_names": name, "streaming": "on"}

    def _same_log(self, place: Place, replication: Replication) -> LogEnd:
        """The server would follow any LSN of any log; this one must be ours (guarantee 6)."""
        end = self._log_end()
        here = end.log
        lost = self._server.explainer.lost
        if here.system != place.log.system:
            raise lost(
                f"the marker is a place in the log of the server {place.log.system}, and this is "
                f"{here.system}"
            )
        if here.publication != place.log.publication:
            raise lost(
                f"the publication {self._publication.name} "
                + ("is another than the marker's" if here.publication else "is gone")
            )
        if here.timeline != place.log.timeline:
            left = replication.left_timeline(place.log.timeline, here.timeline)
            if left is None or left < place.lsn:
                raise lost(
                    f"the marker is at {lsn_text(place.lsn)} of timeline {place.log.timeline}, "
                    f"which this server (timeline {here.timeline}) left before"
                )
        return end

    def _nothing_skipped(self, place: Place) -> None:
        """A server that was told it may forget more than we have starts there, without a word.

        Asked once the slot is ours, so that nobody can move it between the look and the start.
        """
        state = self._slot.state()
        if state is None:
            raise self._server.explainer.lost(f"the slot {self._slot.name} is gone")
        self._slot.belongs(state)
        if state.confirmed > place.lsn:
            raise self._server.explainer.lost(
                f"the slot {self._slot.name} has let go of the log up to "
                f"{lsn_text(state.confirmed)}, and the marker is at {lsn_text(place.lsn)}: it was "
                "made anew or moved on by somebody else"
            )

    def _followed(self) -> list[Table]:
        namespace = getattr(self._selection, "namespace", None)
        tables = self._catalog.tables(None if namespace is None else [namespace])
        return [
            table
            for table in tables
            if (settings := self._selection(table.id)) is not None
            and settings.capture is Capture.LOG
        ]

    # -- following

    def _read(
        self, replication: Replication, follow: _Following, idle: float
    ) -> Iterator[ChangeBatch]:
        """Batches; empty ones while nothing happens."""
        decoder, progress = follow.decoder, follow.progress
        was_busy = True
        spoken = looked = time.monotonic()
        wait = min(idle, _LONGEST_WAIT)
        while True:
            frames = replication.read(0.0 if decoder.rows and not follow.within else wait)
            asked = False
            for frame in self._unread(frames, follow):
                if frame is None:  # a batch is full
                    yield self._batch(follow)
                    spoken = time.monotonic()
                elif frame[0] == DATA:
                    kind = frame[_KIND]
                    if kind in pgoutput.ROWS and not follow.streamed:
                        decoder.row(kind, frame, _BODY)
                        if not self._is_too_large(decoder):
                            continue
                        yield self._batch(follow)
                        spoken = time.monotonic()
                    else:
                        for batch in self._told(kind, frame, replication, follow):
                            yield batch
                            spoken = time.monotonic()
                elif frame[0] == KEEPALIVE:
                    end, at, must_answer = keepalive(frame)
                    asked |= must_answer
                    if not follow.within and not decoder.rows:
                        # Nothing is in flight: what the server has read holds nothing for us.
                        progress.move(end, at)
            replication.confirm(self._acknowledged, at_once=asked)
            now = time.monotonic()
            if decoder.rows and not follow.within and (not frames or now - spoken >= _OLDEST):
                yield self._batch(follow)
                spoken, was_busy = time.monotonic(), True
            elif now - spoken >= idle or (was_busy and not frames and not follow.within):
                yield self._nothing(follow)
                spoken, was_busy = time.monotonic(), bool(frames)
            if now - looked >= _LOOK_AFTER:
                looked = now
                self._look_around(progress)

    def _unread(self, frames: Sequence[bytes], follow: _Following) -> Iterator[bytes | None]:
        """The frames that are to be looked at one by one, and None where a batch is full.

        The compiled reader takes the committed transactions between them.
        """
        decoder = follow.decoder
        compiled = decoder.compiled
        if compiled is None or not isinstance(frames, native.postgresql.Frames):
            yield from frames
            return
        at = 0
        while at < len(frames):
            if not follow.streamed:
                at = decoder.gather(
                    frames,
                    at,
                    enough=self._limit,
                    most=min(_WHOLE * self._limit, _NO_LIMIT),
                    most_bytes=FULL_BYTES,
                )
                follow.within = compiled.within
                if compiled.committed:
                    follow.progress.move(compiled.end, pgoutput.unix_time(compiled.at))
                full = self._is_too_large(decoder) if follow.within else self._is_enough(decoder)
                if full:
                    yield None
                    continue
                if at == len(frames):
                    return
            yield frames[at]
            at += 1

    def _told(
        self, kind: int, frame: bytes, replication: Replication, follow: _Following
    ) -> Iterator[ChangeBatch]:
        """All messages but the rows of a transaction that is known to be committed."""
        if follow.streamed:
            if kind == pgoutput.STREAM_STOP:
                follow.streamed = 0
            else:
                message = frame[HEADER:]
                of = pgoutput.transaction_of(message)
                follow.in_progress.add(follow.streamed, of, message)
        elif kind == pgoutput.BEGIN:
            follow.within = True
            follow.decoder.begin(frame, _BODY)
        elif kind == pgoutput.COMMIT:
            follow.within = False
            commit = Commit.read(frame, _BODY)
            follow.progress.move(commit.end, commit.at)
            if self._is_enough(follow.decoder):
                yield self._batch(follow)
        elif kind == pgoutput.RELATION:
            yield from self._relation(RelationMessage.read(frame, _BODY), follow)
        elif kind == pgoutput.STREAM_START:
            follow.streamed = pgoutput.transaction_of(frame[HEADER:])
        elif kind == pgoutput.STREAM_ABORT:
            follow.in_progress.abort(*pgoutput.aborted(frame, _BODY))
        elif kind == pgoutput.STREAM_COMMIT:
            xid = pgoutput.transaction_of(frame[HEADER:])
            commit = Commit.read(frame, _BODY + 4)
            for batch in self._replayed(xid, commit, follow):
                yield batch
                replication.confirm(self._acknowledged)
            follow.progress.move(commit.end, commit.at)
        elif kind not in pgoutput.UNUSED:
            raise WarpError(f"a message of pgoutput was expected, found {frame[25:40]!r}")

    def _replayed(self, xid: int, commit: Commit, follow: _Following) -> Iterator[ChangeBatch]:
        """The batches of a transaction that came in advance, now that it is committed."""
        decoder = follow.decoder
        decoder.version = commit.lsn
        for message, aborted in follow.in_progress.commit(xid):
            kind = message[0]
            if kind == pgoutput.RELATION:
                yield from self._relation(RelationMessage.read(message, _STREAMED), follow)
            elif kind in pgoutput.ROWS and not aborted:
                decoder.row(kind, message, _STREAMED)
                # Too large to be kept whole, or the server would not have sent it in advance.
                if decoder.rows >= self._limit or decoder.size >= FULL_BYTES:
                    yield self._batch(follow)

    def _is_enough(self, decoder: Decoder) -> bool:
        """Is a batch full at the end of a transaction?"""
        return decoder.rows >= self._limit

    def _is_too_large(self, decoder: Decoder) -> bool:
        """Must the batch end amid a transaction?

        One that is not much larger than a batch is kept whole: readers of the destination see all
        of it at once, and none of it is applied again after a crash.
        """
        return decoder.rows >= _WHOLE * self._limit or decoder.size >= FULL_BYTES

    def _relation(self, message: RelationMessage, follow: _Following) -> Iterator[ChangeBatch]:
        if follow.decoder.reshapes(message):
            yield self._batch(follow)
        follow.decoder.relation(message)

    def _batch(self, follow: _Following) -> ChangeBatch:
        """What was gathered.  Amid a transaction its end is the previous commit's."""
        changes = follow.decoder.take()
        self._limit = self._limit_now()
        return ChangeBatch(changes, follow.progress.shown, self._reloads(), time.time())

    def _limit_now(self) -> int:
        settings = map(self._selection, self._described)
        return min((s.write_batch_size for s in settings if s is not None), default=_NO_LIMIT)

    def _nothing(self, follow: _Following) -> ChangeBatch:
        return ChangeBatch([], follow.progress.shown, self._reloads(), time.time())

    def _reloads(self) -> tuple[TableId, ...]:
        reload, self._reload = tuple(sorted(self._reload)), set()
        return reload

    def _look_around(self, progress: _Progress) -> None:
        """What the log does not tell."""
        end = self._log_end()
        if end.log.publication != progress.log.publication:
            # PostgreSQL 18 goes on without a word, and without changes.
            raise self._server.explainer.lost(
                f"the publication {self._publication.name} was dropped or made anew"
            )
        if self._columns.all_accounted(self._followed(), progress.horizon):
            progress.raise_horizon(end)

    # -- relations

    def _describe(self, message: RelationMessage) -> Reading | None:
        settings = self._selection(message.table)
        if settings is None or settings.capture is not Capture.LOG:
            return None
        self._catalog.learn(message.types)
        key = self._key(message)
        if not key:
            if message.table not in self._keyless:
                self._keyless.add(message.table)
                log.warning("not_followed", table=str(message.table), why="it has no key")
            return None
        self._described.add(message.table)
        self._limit = min(self._limit, settings.write_batch_size)
        if self._columns.ask_for_a_reload(message):
            self._reload.add(message.table)
        return Reading(tuple(map(self._catalog.types.codec, message.types)), key)

    def _key(self, message: RelationMessage) -> tuple[str, ...]:
        if message.identity != pgoutput.FULL_IDENTITY:
            return tuple(message.columns[place] for place in message.identifying)
        # Every column identifies the row; the key is what the catalog says it is.
        table = self._catalog.find([message.table]).get(message.table)
        if table is None:
            raise SourceRefused(
                "the table was expected to tell its key, found it dropped while its changes are "
                "still in the log; leave it out of the configuration",
                place=str(message.table),
            )
        if set(table.key) <= set(message.columns):
            return table.key
        now = [c.name for c in self._catalog.shapes([table.oid])[table.oid].columns]
        if len(now) == len(message.columns):  # renamed since: the columns' order is the same
            return tuple(message.columns[now.index(name)] for name in table.key)
        raise SourceRefused(
            f"the key {', '.join(table.key)} was expected among the log's columns, found "
            f"{', '.join(message.columns)}: it was changed since; run `cartridge-warp resync`",
            place=str(message.table),
        )


class _Progress:
    """How far the log was read: what the consumer is told."""

    __slots__ = ("_later", "_lsn", "_read_anew", "horizon", "log", "shown")

    def __init__(self, log: Log, place: Place, shown: Position) -> None:
        self.log = log
        self.shown = shown
        self.horizon = place.horizon
        self._read_anew = place.read_anew
        self._lsn = place.lsn
        self._later: LogEnd | None = None  # its horizon holds once the log was read up to there

    def move(self, lsn: int, at: float) -> None:
        """On to `lsn`, never back."""
        if lsn > self._lsn:
            self._lsn = lsn
            if self._later is not None and self._later.inserted <= lsn:
                self.horizon, self._later = self._later.horizon, None
            self._show(at)

    def read_anew_up_to(self, end: LogEnd) -> None:
        """What was changed before that is asked for with the very next batch.

        Else each owner of a stream that is behind would ask again, and one that never comes up
        with its log would read the table for ever [seen: 35 times in ten minutes of faults].
        """
        self._read_anew = end.horizon
        self._show(self.shown.committed_at)

    def _show(self, at: float) -> None:
        self.shown = self.log.position(self._lsn, self.horizon, at, read_anew=self._read_anew)

    def raise_horizon(self, end: LogEnd) -> None:
        if self._later is None:
            self._later = end


@dataclass(slots=True)
class _Following:
    """Where one connection is in what the server tells."""

    decoder: Decoder
    in_progress: InProgress
    progress: _Progress
    within: bool = False  # between a Begin and its Commit
    streamed: int = 0  # the transaction whose block of changes this is, ahead of its commit
