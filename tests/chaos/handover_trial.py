"""One random trial of the hand-over from snapshot to stream, on a real MongoDB and PostgreSQL.

A writer changes two collections while chunks are cut, read late, read twice and abandoned, and
while the stream changes hands; owners stop, crash in the middle of a transaction, or live on beside
their successors.  When everything has settled, both sides must be equal.  The duties are decided by
the real planner and done by the real pipeline and connectors; only time and luck are the trial's.
"""

from __future__ import annotations

import itertools
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pymongo
from bson import ObjectId
from handover_sites import Site
from pymongo.client_session import ClientSession
from pymongo.errors import OperationFailure

from coordinator import planner
from warp import faults, pipeline
from warp.errors import FenceBehind, LeaseLost, TransientError
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    ChangeBatch,
    Kind,
    Lease,
    Marker,
    Phase,
    Position,
    Role,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.pipeline import NoMeter
from warp.sources.extjson import tagged
from warp.sources.mongodb import MongoOptions, MongoSource

MAIN, SIDE, STAGED = "h", "g", "staged"  # `staged` is not selected: it is renamed over `h`
LIMIT = 600.0  # seconds; only a trial that hangs comes near it, however loaded the machine
IDLE = 0.03
SINCE = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a trial is made of; the shares are probabilities."""

    seed: int
    changes: int = 160
    documents: int = 200
    transactions: float = 0.25
    structural: float = 0.0  # drops and renames
    drops_only: bool = False
    late: float = 0.3  # chunks that are written long after they were read
    lag: int = 60  # for how many rows of the stream they wait, at most
    replays: float = 0.15  # stream owners who start before their marker
    write_rows: int = 8
    position_late: bool = False  # the stream's start is stored after a chunk was read (wrong!)

    @staticmethod
    def drawn(seed: int) -> Setting:
        """The setting that a seed stands for."""
        luck = random.Random(seed)
        return Setting(
            seed,
            structural=luck.choice([0.0, 0.0, 0.02]),
            late=luck.choice([0.1, 0.3, 0.6]),
            write_rows=luck.randint(3, 20),
        )


@dataclass(slots=True)
class Outcome:
    """How a trial ended.  `wrong` is empty where both sides are equal."""

    setting: Setting
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        shown = "\n  ".join(self.wrong[:8]) or "equal"
        return (
            f"seed {self.setting.seed}: {len(self.wrong)} wrong\n  {shown}\n"
            f"{self.setting}\n{dict(sorted(self.counts.items()))}\n"
            f"again: CARTRIDGE_WARP_SEED={self.setting.seed} CARTRIDGE_WARP_TRIALS=1 "
            "pytest tests/chaos/test_handover.py -k equal"
        )


class Crashed(BaseException):
    """This owner's process is gone.  Not an Exception, so that nothing takes it for one."""


class Doom(threading.local):
    """When the owner that runs in this thread crashes: after so many fault points."""

    left: int | None = None

    def strike(self, point: str) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise Crashed(point)


doom = Doom()


@contextmanager
def crashing() -> Iterator[None]:
    """Inside, the fault points of every connector obey `doom`."""
    kept = faults.hit
    faults.hit = doom.strike
    try:
        yield
    finally:
        faults.hit = kept


@dataclass(frozen=True, slots=True)
class Selection:
    """The two collections of one database."""

    namespace: str
    setting: Setting
    soft_delete_column: str | None
    rows: int
    place: str  # of the tables, at the destination

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace or table.name not in (MAIN, SIDE):
            return None
        return TableSettings(
            table,
            TableId(self.place, table.name),
            self.namespace,
            write_batch_size=self.setting.write_rows,
            full_load_batch_size=self.rows,
            chunk_rows=self.rows * 2,
            promote_after=0.1,
            soft_delete_column=self.soft_delete_column,
        )


class Seen(NoMeter):
    """Counts the stream's rows, so that a late chunk knows how late it is."""

    def __init__(self) -> None:
        self.rows = 0

    def committed(self, batch: ChangeBatch, written: Written) -> None:
        self.rows += len(batch)


class Hand:
    """A lease in the hand of one of the trial's owners; it never notices that it was lost."""

    def __init__(self, lease: Lease, over: threading.Event, turn: int, *, zombie: bool) -> None:
        self._lease = lease
        self._over = over
        self._turn = turn  # checks until somebody else's turn
        self._zombie = zombie
        self.delay: Callable[[], None] | None = None
        self.passed = threading.Event()

    @property
    def lease(self) -> Lease:
        return self._lease

    def check(self) -> None:
        if self.delay is not None:
            delay, self.delay = self.delay, None
            delay()
        self._turn -= 1
        if self._turn <= 0:
            self.passed.set()

    def stopping(self) -> bool:
        return self._over.is_set() or (self.passed.is_set() and not self._zombie)

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)


class Replaying(MongoSource):
    """Starts earlier than it was asked to, as a source may that cannot resume exactly."""

    earlier: Position | None = None

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        return super().get_changes(self.earlier or position, selection=selection, idle=IDLE)


class Trial:
    """One trial, in a database, a schema and a metadata schema of its own."""

    def __init__(self, url: str, site: Site, setting: Setting) -> None:
        """From a source at a URL to a site."""
        self.setting = setting
        self.name = f"trial_{setting.seed}_{secrets.token_hex(3)}"
        self._url, self.site = url, site
        self._luck = random.Random(f"{setting.seed} fleet")
        soft = "gone" if self._luck.random() < 0.2 else None
        rows = self._luck.randint(15, 40)
        self.selection = Selection(self.name, setting, soft, rows, f"{self.name}_copy")
        self.outcome = Outcome(setting)
        self._fences = itertools.count(1)
        self._over = threading.Event()
        self._written = threading.Event()
        self._seen = Seen()
        self._owners: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._history: list[Position] = []

    # -- the parts

    def source(self) -> Replaying:
        options = MongoOptions.model_validate({"connection_string": self._url})
        return Replaying(options, self.selection)

    def destination(self) -> DestinationConnector:
        return self.site.destination(f"cw_{self.name}", self.selection)

    def run(self) -> Outcome:
        started = time.monotonic()
        with (
            pymongo.MongoClient[dict[str, Any]](self._url, tz_aware=True) as client,
            crashing(),
            closing(self.source()) as source,
            closing(self.destination()) as destination,
        ):
            destination.metadata().prepare()
            writer = Writer(client, self.name, self.setting, self._written)
            writer.fill()
            changing = threading.Thread(target=self._guarded, args=(writer.run,))
            try:
                changing.start()
                self._coordinate(source, destination, started + LIMIT)
                self._compare(client[self.name], destination)
            finally:
                self._over.set()
                self._join(changing)
                client.drop_database(self.name)
                self._tidy()
            self.outcome.counts.update(writer.counts)
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    def _join(self, *more: threading.Thread) -> None:
        for thread in (*self._owners, *more):
            thread.join(LIMIT)
        if self._errors:
            raise AssertionError(f"an owner failed\n{self.outcome}") from self._errors[0]

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - the trial raises it in its own thread
            self._errors.append(error)
            self._written.set()

    def _tidy(self) -> None:
        for schema in (self.selection.place, f"cw_{self.name}"):
            self.site.drop(schema)

    # -- the coordinator

    def _coordinate(
        self, source: SourceConnector, destination: DestinationConnector, deadline: float
    ) -> None:
        goal: Position | None = None
        stream: Owner | None = None
        chunks: list[Owner] = []
        while not self._errors:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"no rest within {LIMIT:.0f} s: goal {goal}\n{self.outcome}\n"
                    + "\n".join(map(str, destination.metadata().markers()))
                )
            try:
                markers = destination.metadata().markers()
                wanted = self._duties(markers, source, destination)
            except TransientError as error:
                self._count(error)
                continue
            for unit in wanted:
                if unit.kind is UnitKind.STREAM and (stream is None or stream.passed()):
                    stream = self._start(unit, next(m for m in markers if m.unit == unit))
            open_chunks = [u for u in wanted if u.kind is UnitKind.CHUNK]
            chunks = [owner for owner in chunks if not owner.passed()]
            if open_chunks and len(chunks) < 2:
                chunks.append(self._start(self._luck.choice(open_chunks), None))
            if self._written.is_set():
                goal = goal or source.position()
                if not chunks and self._at_rest(source, goal, markers):
                    # A stream owner who replays may have moved the marker back meanwhile.
                    self._over.set()
                    self._join()
                    if self._at_rest(source, goal, destination.metadata().markers()):
                        return
                    self._over.clear()
            time.sleep(0.1 if self._written.is_set() else 0.05)

    def _at_rest(self, source: SourceConnector, goal: Position, markers: list[Marker]) -> bool:
        place = next((m.position for m in markers if m.unit.kind is UnitKind.STREAM), None)
        tables = [m for m in markers if m.unit.kind is UnitKind.TABLE]
        return (
            place is not None
            and source.reached(place, goal)
            and all(m.phase is Phase.STREAMING for m in tables)
            and {m.unit.table for m in tables if m.unit.table} >= set(source.tables())
        )

    def _duties(
        self, markers: list[Marker], source: SourceConnector, destination: DestinationConnector
    ) -> list[WorkUnit]:
        """Do what the planner says; what it wants to be worked on is returned."""
        settings = [self.selection(table) for table in source.tables()]
        view = planner.SchemaView(self.name, tuple(s for s in settings if s is not None))
        of_ours = planner.by_schema(markers).get(self.name, planner.MarkersOf())
        metadata = destination.metadata()
        wanted: list[WorkUnit] = []
        for duty in planner.plan(view, of_ours, {}, delay=_no_polls, revived={}):
            match duty:
                case planner.StartStream():
                    if self.setting.position_late:
                        self._read_a_chunk_first(source, destination)
                    unit = WorkUnit.stream(self.name)
                    metadata.register(unit, position=source.position(), phase=Phase.STREAMING)
                case planner.PlanSnapshot(schema, table, rows):
                    version = source.version()
                    chunks = [] if rows is None else source.chunks(table, rows)
                    metadata.plan_snapshot(schema, table, chunks, version=version)
                case planner.Settle(schema, table):
                    if metadata.settle(schema, table):
                        self.outcome.counts["settled"] += 1
                case planner.Ensure(units):
                    wanted += units
                case other:
                    raise AssertionError(f"unexpected duty {other}")
        return wanted

    def _read_a_chunk_first(
        self, source: SourceConnector, destination: DestinationConnector
    ) -> None:
        """The mistake that the planner's order prevents."""
        table = TableId(self.name, MAIN)
        chunks = source.chunks(table, self.setting.documents * 2)
        destination.metadata().plan_snapshot(self.name, table, chunks, version=source.version())
        for chunk in chunks:
            self._start(WorkUnit.of_chunk(self.name, chunk, 0), None, style="plain").thread.join()
        self._written.wait(LIMIT)

    # -- owners

    def _start(self, unit: WorkUnit, marker: Marker | None, *, style: str = "") -> Owner:
        luck = self._luck
        style = style or luck.choice(["plain", "stops", "crashes", "crashes", "zombie"])
        if style == "plain" or self._written.is_set():
            turn, strikes = (LIMIT_OF_CHECKS, None) if unit.chunk else (luck.randint(20, 60), None)
        else:
            turn = luck.randint(1, 4) if unit.chunk else luck.randint(2, 25)
            strikes = luck.randint(1, 40) if style == "crashes" else None
        lease = Lease(unit, f"{style} {len(self._owners)}", next(self._fences))
        hand = Hand(lease, self._over, turn, zombie=style in ("crashes", "zombie"))
        source = self.source()
        if marker is not None and marker.position is not None:
            # A replay moves the marker back, so an older marker may lie ahead of this one.
            here = marker.position
            self._history = [p for p in self._history if source.reached(here, p)] + [here]
            if luck.random() < self.setting.replays:
                source.earlier = luck.choice(self._history[-4:])
                self.outcome.counts["replays"] += 1
        if unit.chunk and luck.random() < self.setting.late:
            hand.delay = self._lateness(luck.randint(self.setting.lag // 10, self.setting.lag))
        owner = Owner(hand, threading.Thread(target=self._own, args=(hand, source, strikes)))
        self.outcome.counts[f"{unit.kind} {style}"] += 1
        self._owners.append(owner.thread)
        owner.thread.start()
        return owner

    def _lateness(self, rows: int) -> Callable[[], None]:
        """Wait until the stream has written so many more rows, or has no more to write."""

        def wait() -> None:
            goal = self._seen.rows + rows
            while self._seen.rows < goal and not self._over.is_set():
                before = self._seen.rows
                if self._over.wait(0.2 if self._written.is_set() else 0.02):
                    return
                if self._written.is_set() and self._seen.rows == before:
                    return

        return wait

    def _own(self, hand: Hand, source: Replaying, strikes: int | None) -> None:
        """Top of an owner's thread: one lease, from adoption to its end."""
        doom.left = strikes
        unit = hand.lease.unit
        destination = self.destination()
        try:
            marker = destination.open(hand.lease)
            if unit.kind is UnitKind.STREAM:
                pipeline.stream(
                    source,
                    destination,
                    marker,
                    hand,
                    selection=self.selection,
                    meter=self._seen,
                    idle=IDLE,
                )
            else:
                pipeline.snapshot(
                    source, destination, marker, hand, selection=self.selection, meter=NoMeter()
                )
        except (Crashed, LeaseLost, TransientError) as error:
            self._count(error)
        except BaseException as error:  # noqa: BLE001 - the trial raises it in its own thread
            self._errors.append(error)
        finally:
            doom.left = None
            hand.passed.set()
            source.close()
            destination.close()

    def _count(self, error: BaseException) -> None:
        name = "refused" if isinstance(error, FenceBehind) else type(error).__name__
        self.outcome.counts[name] += 1

    # -- the comparison

    def _compare(self, database: Any, destination: DestinationConnector) -> None:
        for collection in (MAIN, SIDE):
            table = TableId(self.name, collection)
            expected = {
                tagged(document["_id"]): {
                    name: _plain(value) for name, value in document.items() if name != "_id"
                }
                for document in database[collection].find()
            }
            found = self._rows(table, destination)
            self.outcome.counts["rows"] += len(expected)
            for key in sorted(expected.keys() | found.keys()):
                if key not in found:
                    self.outcome.wrong.append(f"{collection} {key}: lost {expected[key]}")
                elif key not in expected:
                    self.outcome.wrong.append(f"{collection} {key}: too much {found[key]}")
                elif found[key] != expected[key]:
                    self.outcome.wrong.append(
                        f"{collection} {key}: expected {expected[key]}, found {found[key]}"
                    )

    def _rows(self, table: TableId, destination: DestinationConnector) -> dict[str, dict[str, Any]]:
        schema = destination.get_schema(table)
        if schema is None:
            return {}
        found: dict[str, dict[str, Any]] = {}
        for row in self.site.rows(TableId(self.selection.place, table.name)):
            if self.selection.soft_delete_column and row[self.selection.soft_delete_column]:
                continue
            document: dict[str, Any] = {}
            for column in schema.columns:
                value = self.site.plain(column, row[column.name])
                if column.role is Role.EXTRA:
                    document |= {name: _plain(v) for name, v in (value or {}).items()}
                elif column.name not in schema.key and value is not None:
                    document[column.source] = _plain(value)
            key = schema.column(schema.key[0])
            if key is None:
                raise AssertionError("a key has a column")
            text = _key_text(key.kind, row[key.name])
            if row["_cw_deleted"]:
                self.outcome.wrong.append(f"{table.name} {text}: a tombstone is left")
            else:
                found[text] = document
        return found


LIMIT_OF_CHECKS = 1_000_000  # a turn that ends with the work


@dataclass(slots=True)
class Owner:
    hand: Hand
    thread: threading.Thread

    def passed(self) -> bool:
        """May somebody else take the unit?  The owner itself may still be at work."""
        return self.hand.passed.is_set()


def _no_polls(table: TableSettings, marker: Marker) -> float:
    raise AssertionError(f"{table.table} is not polled")


def _key_text(kind: Kind, value: Any) -> str:
    if kind is Kind.TAGGED:
        return str(value)
    return tagged(ObjectId(value) if kind is Kind.OBJECTID else value)


def _plain(value: Any) -> Any:
    """One form for a value as MongoDB, a column and `_extra` have it."""
    if isinstance(value, datetime):
        return ("date", round((value - SINCE) / timedelta(milliseconds=1)))
    if isinstance(value, ObjectId):
        return ("oid", str(value))
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        if value.keys() == {"$date"}:
            since = SINCE.timestamp() * 1000
            return ("date", round(int(value["$date"]["$numberLong"]) - since))
        if value.keys() == {"$oid"}:
            return ("oid", value["$oid"])
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


class Writer:
    """Changes the source: single writes, transactions, drops and renames."""

    def __init__(
        self,
        client: pymongo.MongoClient[dict[str, Any]],
        database: str,
        setting: Setting,
        done: threading.Event,
    ) -> None:
        self._client = client
        self._database = client[database]
        self._setting = setting
        self._done = done
        self._luck = random.Random(f"{setting.seed} writer")
        self._numbers = itertools.count(1)
        self._ids = [self._id(n) for n in range(setting.documents)]
        self.counts: Counter[str] = Counter()

    def _id(self, number: int) -> Any:
        """Of four types, and so that 7, "7" and 7.5 all occur."""
        match self._luck.randrange(4):
            case 0:
                return number
            case 1:
                return str(self._luck.randrange(number + 1))
            case 2:
                return ObjectId(b"%012d" % number)
            case _:
                return self._luck.randrange(number + 1) + 0.5

    def _body(self) -> dict[str, Any]:
        number = next(self._numbers)
        luck = self._luck
        body: dict[str, Any] = {"v": number, "name": f"n{number} \u00e9", "tags": [number, "x"]}
        if luck.random() < 0.6:
            body["at"] = SINCE + timedelta(milliseconds=number * 7_919)
        if luck.random() < 0.5:
            body["amount"] = luck.choice([number, number + 0.25])
        if luck.random() < 0.3:
            body["inner"] = {"n": number, "deep": {"list": [1, None, {"k": "v"}]}}
        if luck.random() < 0.05:
            body["name"] = number  # does not fit the column: must be kept in `_extra`
        if luck.random() < 0.05:
            body[f"rare{luck.randrange(3)}"] = luck.choice([number, f"t{number}"])
        return body

    def fill(self) -> None:
        main = [i for i in dict.fromkeys(self._ids) if self._luck.random() < 0.8]
        self._database[MAIN].insert_many([{"_id": i, **self._body()} for i in main])
        self._database[SIDE].insert_many([{"_id": n, **self._body()} for n in range(20)])

    def run(self) -> None:
        for _ in range(self._setting.changes):
            kind = self._choose()
            self.counts[kind] += 1
            getattr(self, f"_{kind}")()
        self._done.set()

    def _choose(self) -> str:
        drawn = self._luck.random()
        if drawn < self._setting.structural:
            renames = (
                [] if self._setting.drops_only else ["rename_over", "rename_over", "rename_away"]
            )
            return self._luck.choice(["drop", *renames])
        if drawn < self._setting.structural + self._setting.transactions:
            return "transaction"
        return self._luck.choice(["replace", "update", "update", "delete", "delete", "side"])

    def _replace(self) -> None:
        self._put(self._luck.choice(self._ids))

    def _put(self, id: Any, session: ClientSession | None = None) -> None:
        self._database[MAIN].replace_one({"_id": id}, self._body(), upsert=True, session=session)

    def _update(self) -> None:
        change = {"$set": {"v": next(self._numbers)}, "$push": {"tags": next(self._numbers)}}
        if self._luck.random() < 0.2:
            change = {"$unset": {"amount": 1}, "$set": {"inner.n": next(self._numbers)}}
        self._database[MAIN].update_one({"_id": self._luck.choice(self._ids)}, change)

    def _delete(self) -> None:
        self._database[MAIN].delete_one({"_id": self._luck.choice(self._ids)})

    def _side(self) -> None:
        id = self._luck.randrange(25)
        if self._luck.random() < 0.3:
            self._database[SIDE].delete_one({"_id": id})
        else:
            self._database[SIDE].replace_one({"_id": id}, self._body(), upsert=True)

    def _transaction(self) -> None:
        """Several changes of one key, which share a cluster time, and some of other keys."""
        id, luck = self._luck.choice(self._ids), self._luck
        main = self._database[MAIN]
        # Aborted where a drop or a rename came between: then nothing happened.
        with (
            suppress(OperationFailure),
            self._client.start_session() as session,
            session.start_transaction(),
        ):
            main.delete_one({"_id": id}, session=session)
            main.insert_one({"_id": id, **self._body()}, session=session)
            number = next(self._numbers)
            main.update_one({"_id": id}, {"$set": {"v": number}}, session=session)
            if luck.random() < 0.4:
                main.delete_one({"_id": id}, session=session)
            for other in luck.sample(self._ids, luck.randint(0, 4)):
                self._put(other, session)
            if luck.random() < 0.3:
                self._database[SIDE].update_one(
                    {"_id": luck.randrange(20)}, {"$inc": {"v": 1}}, session=session
                )

    def _drop(self) -> None:
        self._database[MAIN].drop()

    def _rename_over(self) -> None:
        staged = self._database[STAGED]
        some = self._luck.sample(self._ids, len(self._ids) // 2)
        staged.insert_many([{"_id": i, **self._body()} for i in dict.fromkeys(some)])
        staged.rename(MAIN, dropTarget=True)

    def _rename_away(self) -> None:
        if MAIN in self._database.list_collection_names():
            self._database[MAIN].rename("away", dropTarget=True)


def varied(seed: int, **changes: Any) -> Setting:
    """The drawn setting with some parts fixed."""
    return replace(Setting.drawn(seed), **changes)
