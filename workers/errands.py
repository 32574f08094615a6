"""Carries errands out: the only place where something asked for through Redis is done.

rq brings an id and a short name.  The name must be on the list below and the intent with that id
must be open in the destination, under the same name; what to do is read from there.  Anything else
is refused, logged, and never imported.  An errand moves no rows: it changes markers, and offers the
units that then do the work under their own leases.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

import structlog

# First: it tells rq where to keep its keys.
from warp.errands import Errand, ErrandQueue

# isort: split
from redis.exceptions import RedisError
from rq.exceptions import StopRequested
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

from warp import key_range, logs, verifying
from warp.assembly import Assembly
from warp.digest.seams import ComparedDestination
from warp.errors import ConfigError, ErrandRefused, SourceRefused, TransientError
from warp.interfaces import (
    DestinationConnector,
    LeaseStore,
    MetadataStore,
    ResyncsRanges,
    SourceConnector,
)
from warp.model import (
    SHARED,
    Capture,
    KeySpan,
    Marker,
    Phase,
    Position,
    TableId,
    UnitKind,
    WorkUnit,
)
from warp.plugins import nearest
from warp.streams import stream_of

log = structlog.get_logger(__name__)

SEND_AGAIN: Final = 30.0  # seconds between two looks for intents whose errand was lost
CARRIED: Final = (
    UnitKind.STREAM,
    UnitKind.POLL,
    UnitKind.CHUNK,
    UnitKind.REPLAY,
    UnitKind.VERIFY,
)
WORKING: Final = {UnitKind.STREAM: Phase.STREAMING}  # others: PLANNED, so that they run at once


@dataclass(frozen=True, slots=True)
class Desk:
    """What an errand may use."""

    metadata: MetadataStore
    ledger: LeaseStore
    assembly: Assembly

    def offer(self, unit: WorkUnit) -> None:
        if not self.ledger.revive(unit.id):
            self.ledger.offer(unit)


# ---------------------------------------------------------------- the errands


def resync(desk: Desk, *, schema: str, table: str | None = None, where: str | None = None) -> str:
    """Read a schema, or one table of it, or a range of its keys, anew."""
    _known(desk, schema)
    if table is not None and where is not None:
        return _resync_range(desk, schema, table, where)
    sharing = desk.assembly.sharing()
    with contextlib.closing(desk.assembly.source(schema)) as source:
        chosen = _table(table, source.tables(), schema) if table is not None else None
        newest: int | None = source.version()
        # Before the first row is read again: the stream goes on from here (docs/architecture.md).
        position = _end_of_log(desk, source, stream_of(schema, sharing))
        if _goes_on(source, _position_of(desk, stream_of(schema, sharing)), position):
            newest = None
    if schema not in sharing:
        if chosen is not None and not _is_polled(desk, schema, chosen):
            newest = None  # the stream stays in its history
        units = _start_over(desk, schema, chosen, position, newest=newest)
    elif chosen is None and _has_failed(desk, stream_of(schema, sharing)):
        return _resync_all(desk, sharing, position, newest)
    else:
        stream = stream_of(schema, sharing)
        units = desk.metadata.resync(schema, chosen, position=position, stream=stream)
    for unit in units:
        desk.offer(unit)
    return f"{chosen or schema} starts over; offered: {', '.join(u.id for u in units) or 'nothing'}"


def _resync_range(desk: Desk, schema: str, name: str, where: str) -> str:
    with contextlib.closing(desk.assembly.source(schema)) as source:
        table, within = _range(desk, source, schema, name, where)
    stream = stream_of(schema, desk.assembly.sharing())
    metadata = cast(ResyncsRanges, desk.metadata)
    units = metadata.resync_range(schema, table, within, stream=stream)
    for unit in units:
        desk.offer(unit)
    return f"{table} starts over where {key_range.shown(within)}"


def _range(
    desk: Desk, source: SourceConnector, schema: str, name: str, where: str
) -> tuple[TableId, KeySpan]:
    """The table, and the range of its keys that a condition means on both sides."""
    table = _table(name, source.tables(), schema)
    if _is_polled(desk, schema, table):
        raise ConfigError(
            f"expected a table that is followed by a log, found {table}, which is polled; run "
            "`cartridge-warp resync` without --where",
            place=key_range.PLACE,
        )
    described = source.get_schema([table])
    with contextlib.closing(desk.assembly.destination(schema)) as destination:
        if not (source.traits.ranges and destination.traits.ranges) or table not in described:
            raise ConfigError(
                "expected a source and a destination that can read a range of keys anew, found "
                "one that cannot; run `cartridge-warp resync` without --where",
                place=key_range.PLACE,
            )
        within = key_range.parse(where, described[table])
        key_range.must_agree(within, destination.get_schema(table))
    return table, within


def _start_over(
    desk: Desk,
    schema: str,
    table: TableId | None,
    position: Position,
    *,
    stream: WorkUnit | None = None,
    newest: int | None,
) -> list[WorkUnit]:
    """As `MetadataStore.resync`; by a destination that knows the tables, where rows are meant."""
    if newest is None:
        return desk.metadata.resync(schema, table, position=position, stream=stream)
    log.warning("another_history", schema=schema, position=position.token, version=newest)
    with contextlib.closing(desk.assembly.destination(schema)) as destination:
        return destination.metadata().resync(
            schema, table, position=position, stream=stream, newest=newest
        )


def _position_of(desk: Desk, stream: WorkUnit) -> Position | None:
    found = {m.unit.id: m.position for m in desk.metadata.markers((UnitKind.STREAM,))}
    return found.get(stream.id)


def _end_of_log(desk: Desk, source: SourceConnector, stream: WorkUnit) -> Position:
    try:
        return source.position()
    except SourceRefused:
        if any(m.unit.id == stream.id for m in desk.metadata.markers((UnitKind.STREAM,))):
            raise
        return Position("no log")  # of a source whose tables are all polled; no stream is moved


def _is_polled(desk: Desk, schema: str, table: TableId) -> bool:
    settings = desk.assembly.selection(schema)(table)
    return settings is not None and settings.capture is not Capture.LOG


def _goes_on(source: SourceConnector, old: Position | None, new: Position) -> bool:
    """Is the new position one of the history that the old one is of?  Without one nobody knows."""
    try:
        return old is not None and source.reached(new, old)
    except SourceRefused:  # of another kind of source altogether
        return False


def _has_failed(desk: Desk, stream: WorkUnit) -> bool:
    found = {m.unit.id: m.phase for m in desk.metadata.markers((UnitKind.STREAM,))}
    return found.get(stream.id) is Phase.FAILED


def _resync_all(desk: Desk, sharing: Sequence[str], position: Position, newest: int | None) -> str:
    """A stream that cannot go on takes all its schemas with it when it is moved (guarantee 4).

    It moves last: a resync cut short is done again, and then every table is read after the
    position that the stream goes on from.
    """
    stream = WorkUnit.stream(SHARED)
    units: dict[str, WorkUnit] = {}
    for schema in sharing:
        again = _start_over(desk, schema, None, position, stream=stream, newest=newest)
        units |= {unit.id: unit for unit in again}
    units |= {unit.id: unit for unit in desk.metadata.resync(SHARED, None, position=position)}
    for unit in units.values():
        desk.offer(unit)
    names = ", ".join(sharing)
    return f"{names} start over, whose stream had failed; offered: {', '.join(units) or 'nothing'}"


def recover(desk: Desk, *, schema: str) -> str:
    """Let a stream that has lost its place go on from the end of its log, and find what happened
    in between by comparing: only rows that differ are written.

    The new place is stored before the first row is compared, so whatever changes from there on
    comes with the stream (guarantee 6).  Where the log is one of another history (a server that was
    reset or restored, or another one), what is there counts as older before the stream is moved.
    """
    _known(desk, schema)
    sharing = desk.assembly.sharing()
    stream = stream_of(schema, sharing)
    names = sharing if stream.schema == SHARED else (schema,)
    with contextlib.closing(desk.assembly.source(stream.schema)) as source:
        if not source.traits.streams:
            raise ConfigError(
                f"expected a stream, whose place may be lost, found {schema}, whose tables are all "
                f"polled; run `cartridge-warp resync {schema} TABLE` for one whose poll has "
                "stopped, or `verify` and `repair --apply` where rows differ",
                place="SCHEMA",
            )
        newest: int | None = source.version()
        position = source.position()
        if _goes_on(source, _position_of(desk, stream), position):
            newest = None
    units: list[WorkUnit] = []
    with contextlib.ExitStack() as stack:
        ends: dict[str, tuple[SourceConnector, ComparedDestination]] = {}
        for name in names:
            source = stack.enter_context(contextlib.closing(desk.assembly.source(name)))
            destination = stack.enter_context(contextlib.closing(desk.assembly.destination(name)))
            if not verifying.can_compare(source, destination):
                raise ConfigError(
                    "expected a source and a destination whose rows can be compared, found others; "
                    f"run `cartridge-warp resync {schema}`",
                    place="SCHEMA",
                )
            ends[name] = source, cast("ComparedDestination", destination)
        for name, (_, there) in ends.items():
            if newest is not None:
                log.warning("another_history", schema=name, position=position.token, version=newest)
                there.verifications().begin_history(stream, name, newest)
        ends[names[0]][1].verifications().start_anew(stream, position)
        for name, (here, there) in ends.items():
            units += _recovered(desk, here, there, name, stream, position)
    for unit in (stream, *units):
        desk.offer(unit)
    return f"{stream.id} goes on at {position.token}; {len(units)} units compare what it has missed"


def _recovered(
    desk: Desk,
    source: SourceConnector,
    destination: DestinationConnector,
    schema: str,
    stream: WorkUnit,
    position: Position,
) -> list[WorkUnit]:
    """Units that compare and mend the tables of a schema; one whose first rows have not all arrived
    is read anew."""
    selection = desk.assembly.selection(schema)
    units: list[WorkUnit] = []
    for marker in desk.metadata.markers((UnitKind.TABLE,)):
        table = marker.unit.table
        settings = selection(table) if table is not None else None
        if table is None or settings is None or marker.unit.schema != schema:
            continue
        if settings.capture is not Capture.LOG:
            continue
        if marker.phase is Phase.STREAMING:
            rows = settings.chunk_rows
            units += verifying.plan(
                *(source, destination, schema, table, rows, time.time()), repairs=True
            )
        else:
            desk.metadata.resync(schema, table, position=position, stream=stream)
    return units


def revive(desk: Desk, *, unit: str) -> str:
    """Let a stopped unit try again from where it stands."""
    found = _unit(desk, unit)
    if found.phase in (Phase.FAILED, Phase.PAUSED):
        _mark(desk, found, WORKING.get(found.unit.kind, Phase.PLANNED))
    desk.offer(found.unit)
    return f"{unit} offered"


def pause(desk: Desk, *, schema: str) -> str:
    """Stop every unit of a schema at its place until `resume`.

    A stream that is shared stops with all schemas it carries: it cannot leave one behind.
    """
    _known(desk, schema)
    together = _together(desk, schema)
    stopped = (Phase.DONE, Phase.FAILED, Phase.PAUSED)
    working = [
        m
        for m in desk.metadata.markers(CARRIED)
        if m.unit.schema in together and m.phase not in stopped
    ]
    for marker in working:
        _mark(desk, marker, Phase.PAUSED)  # also fences whoever is at it
    desk.ledger.withdraw([marker.unit.id for marker in working])
    return f"{len(working)} units paused{_of_all(desk, schema)}"


def resume(desk: Desk, *, schema: str) -> str:
    _known(desk, schema)
    together = _together(desk, schema)
    paused = [
        m
        for m in desk.metadata.markers(CARRIED)
        if m.unit.schema in together and m.phase is Phase.PAUSED
    ]
    for marker in paused:
        _mark(desk, marker, WORKING.get(marker.unit.kind, Phase.PLANNED))
        desk.offer(marker.unit)
    return f"{len(paused)} units resumed{_of_all(desk, schema)}"


def _mark(desk: Desk, marker: Marker, phase: Phase) -> None:
    """As it stands, or has come to stand when a worker has adopted it meanwhile.

    Never under a fence that was not read: a mark that arrives after its errand was given up and
    carried out anew would stop a unit that somebody has resumed since (simulation, seed 22573).
    """
    now: Marker | None = marker
    stopped = (Phase.FAILED, Phase.PAUSED)
    while now is not None and (now.phase in stopped) is (marker.phase in stopped):
        if now.phase is Phase.DONE:
            return
        if desk.metadata.mark(now.unit.id, phase, seen=now.fence):
            return
        found = desk.metadata.markers((marker.unit.kind,))
        now = next((one for one in found if one.unit == marker.unit), None)


def _together(desk: Desk, schema: str) -> frozenset[str]:
    """What must stop and go on together: a schema, or all that share its stream."""
    sharing = desk.assembly.sharing()
    return frozenset((*sharing, SHARED) if schema in sharing else (schema,))


def _of_all(desk: Desk, schema: str) -> str:
    sharing = desk.assembly.sharing()
    if schema not in sharing or len(sharing) == 1:
        return ""
    return f", of {', '.join(sharing)}: they share one stream"


def replay(desk: Desk, *, schema: str, table: str) -> str:
    """Offer the unit that lands the rows of a table that were marked in the quarantine."""
    _known(desk, schema)
    for marker in desk.metadata.markers((UnitKind.REPLAY,)):
        unit = marker.unit
        if unit.schema == schema and str(unit.table) == table:
            if marker.phase is Phase.PAUSED:
                return f"{unit.id} is paused: its rows land after `resume`"
            desk.offer(unit)
            return f"{unit.id} offered"
    raise ConfigError(
        f"expected a table of schema {schema!r} with rows marked for replay, found {table!r}"
    )


ERRANDS: Final[Mapping[str, Callable[..., str]]] = {
    "resync": resync,
    "recover": recover,
    "revive": revive,
    "pause": pause,
    "resume": resume,
    "replay": replay,
}


def examine(
    desk: Desk,
    *,
    schema: str = "",
    table: str | None = None,
    where: str | None = None,
    unit: str = "",
) -> None:
    """Raise ConfigError where the arguments of an errand name what is not there.

    Whoever is about to ask for an errand learns of a slip before it is stored.
    """
    if schema:
        _known(desk, schema)
    if table is not None:
        with contextlib.closing(desk.assembly.source(schema)) as source:
            if where is not None:
                _range(desk, source, schema, table, where)
            else:
                _table(table, source.tables(), schema)
    if unit:
        _unit(desk, unit)


def _known(desk: Desk, schema: str) -> None:
    if not desk.assembly.knows(schema):
        raise ConfigError(f"expected a configured schema, found {schema!r}")


def _table(name: str, tables: Sequence[TableId], schema: str) -> TableId:
    for table in tables:
        if name in (table.name, str(table)):
            return table
    known = [str(table) for table in tables]
    raise ConfigError(
        f"expected a table of schema {schema!r} that exists at the source, found {name!r}; "
        + nearest(name, [t.name for t in tables] + known),
        place="TABLE",
    )


def _unit(desk: Desk, id: str) -> Marker:
    units = {m.unit.id: m for m in desk.metadata.markers(CARRIED)}
    if id not in units:
        raise ConfigError(
            f"expected the id of a unit, as `status` shows it, found {id!r}; " + nearest(id, units),
            place="UNIT",
        )
    return units[id]


# ---------------------------------------------------------------- carrying them out


def carry_out(id: str, name: object, ledger: LeaseStore, assembly: Assembly) -> str:
    """Do the errand whose intent has this id; what was done.  Raises ErrandRefused."""
    if not isinstance(name, str) or name not in ERRANDS:
        raise ErrandRefused(f"expected an errand ({', '.join(ERRANDS)}), found {str(name)[:80]!r}")
    with contextlib.closing(assembly.bookkeeping()) as destination:
        metadata = destination.metadata()
        intents = {i: (n, arguments) for i, n, arguments in metadata.open_errands()}
        if id not in intents:
            return "nothing to do: no open intent with this id"
        intended, arguments = intents[id]
        if intended != name:
            raise ErrandRefused(f"expected the errand {intended!r} of the intent, found {name!r}")
        desk = Desk(metadata, ledger, assembly)
        try:
            result = _call(ERRANDS[name], desk, arguments)
        except TransientError:
            raise  # the intent stays open and is sent again
        except Exception as error:
            # Top of an errand: whatever it is, the operator shall read it, and it is not
            # tried for ever.
            said = logs.masked(f"{type(error).__name__}: {error}")
            metadata.end_errand(id, status="failed", result=said)
            raise
        metadata.end_errand(id, status="done", result=result)
        log.info("errand_done", id=id, name=name, result=result)
        return result


def _call(errand: Callable[..., str], desk: Desk, arguments: Mapping[str, Any]) -> str:
    try:
        inspect.signature(errand).bind(desk, **arguments)
    except TypeError as error:
        raise ConfigError(f"expected the arguments of {errand.__name__}: {error}") from None
    for argument, value in arguments.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"expected text as {argument}, found {type(value).__name__}")
    return errand(desk, **arguments)


@contextlib.contextmanager
def carried_out(
    redis_url: str,
    namespace: str,
    ledger: LeaseStore,
    assembly: Assembly,
    *,
    send_again_every: float = SEND_AGAIN,
) -> Iterator[None]:
    """Errands are carried out while this is open.  On a Redis Cluster there are none."""
    try:
        queue = ErrandQueue(redis_url, namespace)
    except ConfigError as error:
        log.warning("errands_not_carried_out", reason=error.message)
        yield
        return
    runner = ErrandRunner(queue, ledger, assembly, send_again_every=send_again_every)
    runner.start()
    try:
        yield
    finally:
        runner.stop()


class ErrandRunner:
    """Carries out the errands of one namespace in a thread of its own, one at a time.

    Any number may run; an errand that two of them carry out is done twice, which changes nothing
    but costs its work again.
    """

    def __init__(
        self,
        errands: ErrandQueue,
        ledger: LeaseStore,
        assembly: Assembly,
        *,
        look_every: float = 1.0,
        send_again_every: float = SEND_AGAIN,
    ) -> None:
        """Intents whose errand got lost on the way are sent again every `send_again_every` s,

        and as soon as the ledger's incarnation shows that Redis was wiped.
        """
        self._errands = errands
        self._ledger = ledger
        self._assembly = assembly
        self._look_every = look_every
        self._send_again_every = send_again_every
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="errands", daemon=True)
        self._thread.start()

    def stop(self, limit: float = 5.0) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(limit)

    def _run(self) -> None:
        worker = _RqWorker(self._errands, self.carry_out, self._stopping)
        send_again_at = time.monotonic()
        incarnation = ""
        while not self._stopping.is_set():
            try:
                found = self._ledger.incarnation()
                if found != incarnation or time.monotonic() >= send_again_at:
                    self._send_again()
                    incarnation = found  # not before: what failed must be tried again
                    send_again_at = time.monotonic() + self._send_again_every
                if self._errands.queue.count:
                    worker.work(burst=True)
            except (RedisError, TransientError) as error:
                log.debug("errands_wait", reason=type(error).__name__)
            except Exception:  # top of a thread
                log.exception("errands_troubled")
            self._stopping.wait(self._look_every)

    def _send_again(self) -> None:
        with contextlib.closing(self._assembly.bookkeeping()) as destination:
            metadata = destination.metadata()
            if not metadata.prepared():
                return  # nothing has run yet, so nobody has asked for anything
            sent = self._errands.carry_open(metadata)
        if sent:
            log.info("errands_sent_again", ids=sent)

    def carry_out(self, id: str, name: object) -> str:
        return carry_out(id, name, self._ledger, self._assembly)


class _Carried(Errand):
    """An errand in the hands of a runner."""

    carry_out: ClassVar[Callable[[str, object], str]]

    def _execute(self) -> str:
        # func_name reads the payload as JSON; anything else is an error, and is never unpickled.
        return type(self).carry_out(self.id, self.func_name)


class _RqWorker(SimpleWorker):
    """rq's worker without what does not fit into a thread of our process.

    No signal handlers, no process title, no log handlers on stdout; and no commands by pub/sub,
    among which is one that ends the process.
    """

    death_penalty_class = TimerDeathPenalty  # rq's usual one needs SIGALRM, hence the main thread
    max_connection_wait_time = 1.0

    def __init__(
        self,
        errands: ErrandQueue,
        carry_out: Callable[[str, object], str],
        stopping: threading.Event,
    ) -> None:
        carried = type("Carried", (_Carried,), {"carry_out": staticmethod(carry_out)})
        self._runner_stops = stopping
        super().__init__(
            [errands.queue.name],
            connection=errands.connection,
            job_class=carried,
            serializer=JSONSerializer,
            maintenance_interval=30,
            log_job_description=False,
            prepare_for_work=False,  # else it talks to Redis at once, which may be away
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()

    def bootstrap(self, *_: Any, **__: Any) -> None:
        self.register_birth()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None: ...

    def unsubscribe(self) -> None: ...

    def procline(self, message: str) -> None: ...

    def _install_signal_handlers(self) -> None: ...

    def heartbeat(self, *arguments: Any, **options: Any) -> None:
        # rq waits for a lost Redis in a loop of its own, whose every round comes by here.
        if self._runner_stops.is_set():
            raise StopRequested
        super().heartbeat(*arguments, **options)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Any = None,
    ) -> None:
        told = logs.masked(exc_string)  # which rq keeps in Redis
        super().handle_job_failure(job, queue, started_job_registry, told, execution)

    def handle_exception(self, job: Job, *trouble: Any) -> None:
        error = trouble[1]
        event = "errand_refused" if isinstance(error, ErrandRefused) else "errand_failed"
        log.error(event, id=str(job.id)[:80], error=f"{type(error).__name__}: {error}")
