"""A source kept equal in a PostgreSQL by hand, and compared with it: any source, one process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import psycopg
from postgresql_copy import Hand
from postgresql_shop import Shop, everything

from warp import pipeline, verifying
from warp.comparison import Ends
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.digest.seams import Kept, Pass, Verifications
from warp.errors import TransientError
from warp.interfaces import DestinationConnector, MetadataStore, SourceConnector
from warp.model import Lease, Phase, TableId, TableSelection, UnitKind, WorkUnit
from warp.own_process import wait_until
from warp.pipeline import NoMeter
from warp.repairing import Correction, Repair
from warp.sources.postgresql import PostgresSource

LIMIT = 60.0
SCHEMA = "shop"


@dataclass
class VerifiedCopy:
    Destination: ClassVar[Any] = PostgresDestination
    idle: ClassVar[float] = 0.05  # seconds between two moves of an idle stream's marker

    make_source: Callable[[], SourceConnector]
    select: TableSelection
    url: str  # of the destination
    rows: int = 25  # of a chunk

    def __post_init__(self) -> None:
        self.fences = itertools.count(int(time.time() * 1_000_000), 1_000)
        self.looking = self.connect()
        self.errors: list[BaseException] = []

    def connect(self) -> Any:
        return psycopg.connect(self.url, autocommit=True)

    def destination(self) -> Any:
        options = PostgresOptions.model_validate({"connection_string": self.url})
        return PostgresDestination(options, self.select)

    def lease(self, unit: WorkUnit) -> Hand:
        return Hand(Lease(unit, "tester", next(self.fences)))

    @contextmanager
    def following(self, *tables: TableId) -> Iterator[None]:
        """The first rows have arrived, and inside the stream runs."""
        self.bring(*tables)
        with self.streaming():
            yield

    def bring(self, *tables: TableId) -> None:
        """The first rows, and a place for the stream to begin."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            metadata = destination.metadata()
            metadata.prepare()
            self.begin(source, metadata, tables)
            for table in tables:
                version = source.version()
                chunks = source.chunks(table, self.rows)
                metadata.plan_snapshot(SCHEMA, table, chunks, version=version)
            for marker in metadata.markers((UnitKind.CHUNK,)):
                hand = self.lease(marker.unit)
                opened = destination.open(hand.lease)
                pipeline.snapshot(
                    source, destination, opened, hand, selection=self.select, meter=NoMeter()
                )
            for table in tables:
                metadata.settle(SCHEMA, table)

    def begin(
        self, source: SourceConnector, metadata: MetadataStore, tables: Sequence[TableId]
    ) -> None:
        """Where changes are followed from."""
        stream = WorkUnit.stream(SCHEMA)
        metadata.register(stream, position=source.position(), phase=Phase.STREAMING)
        source.tables()  # publishes them, where that is to be done

    @contextmanager
    def streaming(self) -> Iterator[None]:
        hand = self.lease(WorkUnit.stream(SCHEMA))
        thread = threading.Thread(target=self._stream, args=(hand,))
        # Whoever compares waits for the marker of a stream that may have nothing to bring.
        patient = self.Destination.traits
        self.Destination.traits = replace(patient, idle_marker_seconds=self.idle)
        thread.start()
        try:
            yield
        finally:
            hand.stop()
            thread.join(LIMIT)
            self.Destination.traits = patient
        assert not self.errors, self.errors

    def arrived(self) -> None:
        """Wait until the stream has brought what the source has now."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            goal = source.position()

            def reached() -> bool:
                [marker] = destination.metadata().markers((UnitKind.STREAM,))
                assert not self.errors, self.errors
                return marker.position is not None and source.reached(marker.position, goal)

            assert wait_until(reached, LIMIT)

    def _stream(self, hand: Hand) -> None:
        while not hand.stopping():
            try:
                self._follow(hand)
            except TransientError:
                hand.wait(0.1)  # as a worker, which keeps its lease and tries again
            except BaseException as error:  # noqa: BLE001 - raised by whoever follows
                self.errors.append(error)
                return

    def _follow(self, hand: Hand) -> None:
        again = Hand(replace(hand.lease, fence=next(self.fences)))
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            marker = destination.open(again.lease)
            pipeline.stream(
                *(source, destination, marker, hand),
                selection=self.select,
                meter=NoMeter(),
                idle=0.02,
            )

    def verify(self, table: TableId) -> Pass:
        """One pass over a table, unit after unit."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            units = verifying.plan(source, destination, SCHEMA, table, self.rows, time.time())
            assert units
            for unit in units:
                self.work(source, destination, unit)
            found: Pass = destination.verifications().passes(SCHEMA, table)[0]
            assert found.complete
            return found

    def work(self, source: SourceConnector, destination: Any, unit: WorkUnit) -> None:
        hand = self.lease(unit)
        marker = destination.open(hand.lease)
        assert verifying.verify(source, destination, marker, hand, selection=self.select)

    def differences(self, table: TableId) -> dict[str, str]:
        """What differs, by key."""
        return {kept.key: kept.sort.value for kept in self.kept(table)}

    def kept(self, table: TableId) -> list[Kept]:
        with closing(self.destination()) as destination:
            there: Verifications = destination.verifications()
            return there.open_differences(SCHEMA, table, after=0, limit=1000)

    def look(self, table: TableId) -> list[Correction]:
        """At what differs, as `repair` does before it hands anything on."""
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            hand = Hand(Lease(WorkUnit.of_replay(SCHEMA, table), "command", 0))
            ends = Ends(source, destination, hand, self.select)
            looked = Repair(ends, SCHEMA, table).look(self.kept(table), holding=True)
            assert looked is not None
            return looked.corrections

    def hand_on(self, table: TableId, corrections: list[Correction]) -> None:
        rows = [c.row for c in corrections if c.row is not None]
        ids = [c.id for c in corrections]
        with closing(self.destination()) as destination:
            assert destination.verifications().correct(SCHEMA, table, rows, ids) == len(ids)

    def mend(self, table: TableId) -> None:
        self.hand_on(table, self.look(table))
        self.replay(table)

    def replay(self, table: TableId) -> None:
        """Land what waits for its table's replay unit."""
        unit = WorkUnit.of_replay(SCHEMA, table)
        with closing(self.make_source()) as source, closing(self.destination()) as destination:
            hand = self.lease(unit)
            marker = destination.open(hand.lease)
            assert pipeline.replay(
                source, destination, marker, hand, selection=self.select, meter=NoMeter()
            )

    def run(self, statement: str, parameters: Any = None) -> list[Any]:
        """At the destination, as somebody who meddles."""
        cursor = self.looking.execute(statement.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.looking.close()


ORDERS = TableId("shop", "orders")
FAULTS = {
    '{"id": 7}': "differs",
    '{"id": 20}': "missing",
    '{"id": 33}': "differs",
    '{"id": 1000}': "extra",
}


@dataclass
class OneCopy:
    """The assembly of one copy, whose schema has a stream of its own."""

    copy: VerifiedCopy

    def knows(self, schema: str) -> bool:
        return schema == SCHEMA

    def sharing(self) -> tuple[str, ...]:
        return ()

    def selection(self, schema: str) -> TableSelection:
        return self.copy.select

    def source(self, schema: str, selection: TableSelection | None = None) -> SourceConnector:
        return self.copy.make_source()

    def destination(self, schema: str) -> DestinationConnector:
        return cast(DestinationConnector, self.copy.destination())


def sixty_orders(shop: Shop) -> None:
    shop.fresh()
    shop.run(
        "create table shop.orders (id bigint primary key, name text, price numeric(12,2),"
        " at timestamptz default now(), share float8, doc jsonb)"
    )
    shop.run(
        "insert into shop.orders select i, 'n' || i, i * 1.10, '2024-01-01'::timestamptz + i *"
        " interval '1 s', i / 7.0, jsonb_build_object('bb', i, 'a', i * 1.5)"
        " from generate_series(1, 60) i"
    )


@contextmanager
def copy_of(shop: Shop, url: str) -> Iterator[VerifiedCopy]:
    """Sixty orders of a PostgreSQL."""
    sixty_orders(shop)
    made = VerifiedCopy(lambda: PostgresSource(shop.options(), everything), everything, url)
    with closing(made):
        yield made


def plant(copy: VerifiedCopy) -> None:
    """A flipped value, a deleted row, a stale one, and one that nobody ever wrote: FAULTS."""
    copy.run("update shop.orders set share = -share where id = 7")
    copy.run("delete from shop.orders where id = 20")
    copy.run("update shop.orders set name = 'old', _cw_version = 1 where id = 33")
    copy.run(
        "insert into shop.orders (id, name, _cw_version, _cw_deleted)"
        " values (1000, 'extra', 5, false)"
    )
