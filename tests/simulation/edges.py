"""The edges of a simulated fleet: what its processes reach over a network that fails.

Behind them stand the real scripts in a simulated Redis, and the in-memory source and destination,
which keep the same contracts as the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from faults import Fault
from redis.exceptions import NoScriptError
from redis.exceptions import TimeoutError as RedisTimeoutError
from scheduler import Killed, Process, SimulatedMachine
from scripted_redis import RedisConnection

import warp.leases.redis as redis_ledger
from warp.errors import DestinationUnavailable, SourceUnavailable
from warp.interfaces import DestinationConnector, MetadataStore, SourceConnector
from warp.leases.redis import RedisLeaseStore
from warp.model import (
    SHARED,
    Capture,
    ChangeBatch,
    Handling,
    Marker,
    Operation,
    Policy,
    Position,
    TableChanges,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
)
from warp.streams import Together
from warp.testing.memory import (
    MemoryDatabase,
    MemoryDestination,
    MemoryDestinationOptions,
    MemorySource,
    MemorySourceOptions,
)
from warp.testing.memory.source import Row

if TYPE_CHECKING:
    from world import World

ORDERS = TableId("shop", "orders")
ITEMS = TableId("shop", "items")
PEOPLE = TableId("crm", "people")
RATES = TableId("cron", "rates")
TABLES: Mapping[str, tuple[TableId, ...]] = {
    "shop": (ORDERS, ITEMS),
    "crm": (PEOPLE,),
    "cron": (RATES,),
}
STREAMED = ("shop", "crm")

GIVES_UP = 1.5  # seconds after which a connection to a source or destination gives up


@dataclass
class RecordedDatabase(MemoryDatabase):
    """Remembers all changes, whatever its log has forgotten."""

    history: list[tuple[int, TableId]] = field(default_factory=list)

    def _append(self, table: TableId, operation: Operation, row: Row) -> None:
        super()._append(table, operation, row)
        self.history.append((self.version, table))


class Network:
    """What is between one process and everything else."""

    def __init__(self, world: World, process: Process) -> None:
        self.world = world
        self.process = process
        self.cut_until: dict[str, float] = {}
        self.looked_up: set[str] = set()  # schemas whose next rows are not as the log had them
        self.who = process.name.partition(".")[0]

    def call(self, call: str, effect: Callable[[], Any], *, told: str = "") -> Any:
        """Do something at an edge, unless something goes wrong on the way."""
        world, scheduler, process = self.world, self.world.scheduler, self.process
        if process.dead:
            raise Killed
        edge = call.partition(".")[0]
        edge = "destination" if edge == "metadata" else edge
        if self.cut_until.get(edge, 0.0) > scheduler.now:
            scheduler.wait(min(GIVES_UP, self.cut_until[edge] - scheduler.now))
            self._trace(call, told, "unreachable")
            raise self._unreachable(edge)
        strike = world.strikes.on(call, self.who, scheduler.now)
        fault, seconds = (strike.fault, strike.seconds) if strike else (None, 0.0)
        if strike is not None:
            world.met(f"fault: {strike.fault.name}")
            self._trace(call, told, f"! {strike.fault.name}")
        if fault is Fault.CRASH_BEFORE:
            self._die()
        if fault is Fault.FREEZE_BEFORE:
            process.paused_until = scheduler.now + seconds
        scheduler.wait(world.latency())
        if fault is Fault.LATE and edge != "source":
            world.in_flight(effect, seconds)
        if fault in (Fault.LATE, Fault.LOST_REQUEST):
            scheduler.wait(GIVES_UP)
            raise self._unreachable(edge)
        try:
            answer = effect()
            if edge == "destination":
                world.checks.look()
        except Exception as error:
            world.met(f"{call}: {type(error).__name__}")
            self._trace(call, told, type(error).__name__)
            raise
        self._trace(call, told, "")
        if fault is Fault.CRASH_AFTER:
            self._die()
        if fault is Fault.FREEZE_AFTER:
            process.paused_until = scheduler.now + seconds
        if fault is Fault.LOST_REPLY:
            scheduler.wait(GIVES_UP)
            raise self._unreachable(edge)
        if fault is Fault.SLOW:
            scheduler.wait(min(seconds, GIVES_UP) if edge == "ledger" else seconds)
            if edge == "ledger" and seconds > GIVES_UP:
                raise self._unreachable(edge)
        else:
            scheduler.wait(world.latency())
        return answer

    def _die(self) -> None:
        self.world.scheduler.kill(self.process)
        raise Killed

    def _trace(self, call: str, told: str, outcome: str) -> None:
        self.world.trace(self.process.name, f"{call} {told} {outcome}")

    @staticmethod
    def _unreachable(edge: str) -> Exception:
        if edge == "ledger":
            return RedisTimeoutError("simulated")
        if edge == "source":
            return SourceUnavailable("simulated")
        return DestinationUnavailable("simulated")


class Through:
    """An object at an edge, each of whose methods is called over the network."""

    def __init__(self, network: Network, edge: str, inner: Any) -> None:
        self._network = network
        self._edge = edge
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or isinstance(value, type) or name == "reached":
            return value

        def method(*arguments: Any, **named: Any) -> Any:
            call = f"{self._edge}.{name}"
            return self._network.call(call, lambda: value(*arguments, **named))

        setattr(self, name, method)
        return method

    def close(self) -> None:
        self._inner.close()


# ---------------------------------------------------------------- the ledger


class LedgerConnection(RedisConnection):
    """Each script is one call."""

    def __init__(self, network: Network, machine: SimulatedMachine) -> None:
        super().__init__(network.world.redis, machine)
        self._network = network
        self._names = {redis_ledger._script(name)[0]: name for name in SCRIPTS}

    def evalsha(self, digest: str, count: int, *arguments: Any) -> Any:
        script, told = self._names[digest], _told(arguments)
        run = super().evalsha
        # A script that the server does not know is sent whole; no call of its own.
        text = redis_ledger._script(script)[1]

        def effect() -> Any:
            world = self._network.world
            world.replicate()
            try:
                answer = run(digest, count, *arguments)
            except NoScriptError:
                answer = self._server.run(text, count, arguments)
            if script == "claim":
                taken = dict.fromkeys((unit, arguments[-4]) for unit in answer[::3])
                world.claimed |= dict.fromkeys(taken, world.scheduler.now)
            return answer

        return self._network.call(f"ledger.{script}", effect, told=told)


SCRIPTS = (
    *("claim", "drain", "ensure", "incarnation", "mend", "offer", "refence", "release", "renew"),
    *("revive", "rights", "stats", "units", "withdraw", "workers"),
)


def _told(arguments: tuple[Any, ...]) -> str:
    """Of a script's arguments, the units."""
    kinds = ("stream:", "chunk:", "poll:", "replay:", "leader")
    return " ".join(a for a in arguments if isinstance(a, str) and a.startswith(kinds))


def ledger_of(network: Network, machine: SimulatedMachine, namespace: str) -> RedisLeaseStore:
    client: Any = LedgerConnection(network, machine)
    ttl = network.world.ttl
    return RedisLeaseStore(client, namespace, lease_ttl=ttl, machine=machine)


# ---------------------------------------------------------------- the source


class SourceConnection(Through):
    """One unit's source."""

    def __init__(self, network: Network, schema: str, inner: MemorySource) -> None:
        super().__init__(network, "source", inner)
        self._schema = schema

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        strikes, scheduler = self._network.world.strikes, self._network.world.scheduler
        changes = self._inner.get_changes(position, selection=selection, idle=idle)
        for batch in self._read(changes):
            yield batch
            if len(batch) and strikes.delivers_twice(scheduler.now):
                self._network.world.delivered_twice()
                yield _copied(batch)

    def get_full_snapshot(self, chunk: Any) -> Iterator[ChangeBatch]:
        return self._read(self._inner.get_full_snapshot(chunk))

    def poll(
        self, table: TableId, position: Position | None, *, fire_time: float
    ) -> Iterator[ChangeBatch]:
        return self._read(self._inner.poll(table, position, fire_time=fire_time))

    def look_up(self, rows: TableChanges) -> TableChanges:
        self._network.looked_up.add(self._schema)
        effect = lambda: self._inner.look_up(rows)  # noqa: E731
        found: TableChanges = self._network.call("source.look_up", effect)
        return found

    def acknowledge(self, position: Position) -> None:
        checks = self._network.world.checks
        checks.acknowledged(self._schema, position)
        self._network.call("source.acknowledge", lambda: self._inner.acknowledge(position))

    def _read(self, batches: Iterator[ChangeBatch]) -> Iterator[ChangeBatch]:
        while True:
            batch = self._network.call("source.read", lambda: next(batches, None))
            if batch is None:
                return
            yield batch


def _copied(batch: ChangeBatch) -> ChangeBatch:
    parts = [
        TableChanges(
            part.table,
            bytearray(part.operations),
            list(part.versions),
            part.schema,
            [list(cells) for cells in part.columns],
        )
        for part in batch.changes
    ]
    return ChangeBatch(parts, batch.end, batch.reload, batch.read_at)


# ---------------------------------------------------------------- the destination


class DestinationConnection(Through):
    """One unit's destination."""

    def __init__(self, network: Network, inner: MemoryDestination) -> None:
        super().__init__(network, "destination", inner)

    def open(self, lease: Any) -> Marker:
        checks = self._network.world.checks

        def effect() -> Marker:
            marker: Marker = self._inner.open(lease)
            checks.opened(lease)
            return marker

        opened: Marker = self._network.call("destination.open", effect, told=lease.unit.id)
        return opened

    def write_batch(self, batch: ChangeBatch, marker: Marker, **more: Any) -> Any:
        kind = "chunk" if marker.unit.kind is UnitKind.CHUNK else "batch"
        return self._transaction(f"write_{kind}", marker, batch, more)

    def update_marker(self, marker: Marker) -> None:
        self._transaction("update_marker", marker, None, {})

    def apply_schema_changes(self, changes: Any) -> None:
        told = " ".join(f"{change.table.name}:{change.change.name}" for change in changes)
        effect = lambda: self._inner.apply_schema_changes(changes)  # noqa: E731
        self._network.call("destination.apply_schema_changes", effect, told=told)

    def deferred_due(self, schema: str) -> bool:
        due: bool = self._inner.deferred_due(schema)  # known without asking
        return due

    def metadata(self) -> MetadataStore:
        metadata = Through(self._network, "metadata", self._inner.metadata())
        return cast("MetadataStore", metadata)

    def _transaction(
        self, name: str, marker: Marker, batch: ChangeBatch | None, more: Mapping[str, Any]
    ) -> Any:
        world = self._network.world
        world.checks.about_to_write(self._network.process, marker)

        def effect() -> Any:
            before = dict(world.warehouse.markers)
            if batch is None:
                answer = self._inner.update_marker(marker)
            else:
                answer = self._inner.write_batch(batch, marker, **more)
            looked_up = False
            if marker.unit.kind is UnitKind.STREAM:
                looked_up = marker.unit.schema in self._network.looked_up
                self._network.looked_up.discard(marker.unit.schema)
            aside = more.get("quarantined", ())
            world.checks.wrote(marker, before, batch, aside, looked_up=looked_up)
            return answer

        rows = f"rows {len(batch)}" if batch is not None else ""
        place = f"at {marker.position.token}" if marker.position else ""
        told = f"{marker.unit.id} fence {marker.fence} batch {marker.batch} {place} {rows}"
        return self._network.call(f"destination.{name}", effect, told=told)


# ---------------------------------------------------------------- who gets them


class SimulatedAssembly:
    """The `warp.assembly.Assembly` of one process."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._world = network.world
        self._selections = {name: self._selection_of(name) for name in TABLES}

    def knows(self, schema: str) -> bool:
        return bool(self.sharing()) if schema == SHARED else schema in TABLES

    def sharing(self) -> tuple[str, ...]:
        return () if self._world.source_class.traits.follows_twice else STREAMED

    def follows(self, schema: str) -> str:
        return " ".join(self.sharing() if schema == SHARED else (schema,))

    def selection(self, schema: str) -> TableSelection:
        if schema == SHARED:
            return Together({name: self._selections[name] for name in self.sharing()})
        return self._selections[schema]

    def _selection_of(self, schema: str) -> TableSelection:
        settings = {
            table: TableSettings(
                table,
                table,
                schema,
                capture=Capture.TIMESTAMP if schema == "cron" else Capture.LOG,
                policy=Policy(invalid=Handling.QUARANTINE),
                full_load_batch_size=3,
                write_batch_size=self._world.batch_size,
                chunk_rows=5,
                promote_after=1.0,
            )
            for table in TABLES[schema]
        }
        return lambda table: settings.get(table)

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        database = self._world.rates if schema == "cron" else self._world.database
        options = MemorySourceOptions.model_construct(database=database)
        inner = self._world.source_class(options, selection or self.selection(schema))
        return cast("SourceConnector", SourceConnection(self._network, schema, inner))

    def destination(self, schema: str) -> DestinationConnector:
        return self._destination(self.selection(schema))

    def bookkeeping(self) -> DestinationConnector:
        return self._destination(lambda table: None)

    def _destination(self, selection: TableSelection) -> DestinationConnector:
        options = MemoryDestinationOptions.model_construct(warehouse=self._world.warehouse)
        inner = MemoryDestination(options, selection)
        return cast("DestinationConnector", DestinationConnection(self._network, inner))
