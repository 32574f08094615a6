"""A schema of a PostgreSQL kept equal in another one, by the planner's duties in this process."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
from postgresql_shop import Shop, everything
from psycopg import sql

from coordinator import planner
from warp import pipeline
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.errors import LeaseLost, TransientError
from warp.model import Lease, Phase, Position, TableId, TableSettings, UnitKind, WorkUnit
from warp.pipeline import NoMeter
from warp.sources.postgresql import PostgresSource

LIMIT = 60.0


def small(table: TableId) -> TableSettings | None:
    """Everything in `shop`, in small batches and chunks, so that there are many."""
    settings = everything(table)
    if settings is None:
        return None
    return replace(settings, write_batch_size=7, full_load_batch_size=11, chunk_rows=25)


class Hand:
    """A lease that lasts until it is told to stop."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._over = threading.Event()

    @property
    def lease(self) -> Lease:
        return self._lease

    def check(self) -> None: ...

    def stop(self) -> None:
        self._over.set()

    def stopping(self) -> bool:
        return self._over.is_set()

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)


class Copy:
    """One shop and where it is copied to."""

    fences = itertools.count(1)

    def __init__(self, shop: Shop, url: str) -> None:
        self.shop = shop
        self.url = url
        self.errors: list[BaseException] = []
        self.restarts = 0
        self._working: dict[str, tuple[Hand, threading.Thread, PostgresSource]] = {}

    def destination(self) -> PostgresDestination:
        options = PostgresOptions.model_validate({"connection_string": self.url})
        return PostgresDestination(options, small)

    def tend_until_equal(self, then: Callable[[], None] | None = None) -> None:
        """Plan, read, follow and settle until everything up to now has arrived.

        `then` is done when it has, and what it did is waited for under the same owners.
        """
        with closing(self.destination()) as destination, closing(self._source()) as source:
            destination.metadata().prepare()
            try:
                self._tend(source, destination, source.position())
                if then is not None:
                    then()
                    self._tend(source, destination, source.position())
            finally:
                self.stop()
            assert not self.errors, self.errors

    def _tend(
        self, source: PostgresSource, destination: PostgresDestination, goal: Position
    ) -> None:
        # The goal is taken once: each marker that is written to the same server moves its log.
        deadline = time.monotonic() + LIMIT
        while not self._tended(source, destination, goal):
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, destination.metadata().markers()
            time.sleep(0.03)

    def _tended(
        self, source: PostgresSource, destination: PostgresDestination, goal: Position
    ) -> bool:
        metadata = destination.metadata()
        markers = metadata.markers()
        settings = tuple(s for t in source.tables() if (s := small(t)) is not None)
        view = planner.SchemaView("shop", settings)
        ours = planner.by_schema(markers).get("shop", planner.MarkersOf())
        for duty in planner.plan(view, ours, {}, delay=lambda table, last: 0.0, revived={}):
            match duty:
                case planner.StartStream():
                    unit = WorkUnit.stream("shop")
                    metadata.register(unit, position=source.position(), phase=Phase.STREAMING)
                case planner.PlanSnapshot(schema, table, rows):
                    version = source.version()
                    chunks = [] if rows is None else source.chunks(table, rows)
                    metadata.plan_snapshot(schema, table, chunks, version=version)
                case planner.Settle(schema, table):
                    metadata.settle(schema, table)
                case planner.Ensure(units):
                    for unit in units:
                        self._work(unit)
                case other:
                    raise AssertionError(f"unexpected duty {other}")
        place = next((m.position for m in markers if m.unit.kind is UnitKind.STREAM), None)
        tables = [m for m in markers if m.unit.kind is UnitKind.TABLE]
        return (
            place is not None
            and source.reached(place, goal)
            and {m.unit.table for m in tables} >= {s.table for s in settings}
            and all(m.phase is Phase.STREAMING for m in tables)
        )

    def plan(self) -> list[WorkUnit]:
        """The stream and the chunks of all tables, for a test to start in an order of its own."""
        with closing(self.destination()) as destination, closing(self._source()) as source:
            metadata = destination.metadata()
            metadata.prepare()
            metadata.register(
                WorkUnit.stream("shop"), position=source.position(), phase=Phase.STREAMING
            )
            for table in source.tables():
                version = source.version()
                metadata.plan_snapshot("shop", table, source.chunks(table, 1_000), version=version)
            kinds = [UnitKind.STREAM, UnitKind.CHUNK]
            return [marker.unit for kind in kinds for marker in metadata.markers([kind])]

    def start(self, unit: WorkUnit) -> threading.Thread:
        self._work(unit)
        return self._working[unit.id][1]

    def restart_stream(self) -> None:
        """As when its worker dies: another connects, from the marker."""
        for unit, (hand, thread, source) in list(self._working.items()):
            if unit.startswith("stream"):
                hand.stop()
                source.close()
                thread.join(LIMIT)
                self.restarts += 1

    def stop(self) -> None:
        for hand, _, _ in self._working.values():
            hand.stop()
        for _, thread, _ in self._working.values():
            thread.join(LIMIT)

    def _source(self) -> PostgresSource:
        return PostgresSource(self.shop.options(), small)

    def _work(self, unit: WorkUnit) -> None:
        working = self._working.get(unit.id)
        if working is not None and working[1].is_alive():
            return
        hand = Hand(Lease(unit, f"worker {unit.id}", next(self.fences)))
        source = self._source()
        thread = threading.Thread(target=self._own, args=(hand, source))
        self._working[unit.id] = hand, thread, source
        thread.start()

    def _own(self, hand: Hand, source: PostgresSource) -> None:
        try:
            with closing(source), closing(self.destination()) as destination:
                marker = destination.open(hand.lease)
                if hand.lease.unit.kind is UnitKind.STREAM:
                    pipeline.stream(
                        source,
                        destination,
                        marker,
                        hand,
                        selection=small,
                        meter=NoMeter(),
                        idle=0.03,
                    )
                else:
                    pipeline.snapshot(
                        source, destination, marker, hand, selection=small, meter=NoMeter()
                    )
        except (TransientError, LeaseLost):
            pass  # the next round starts it again
        except BaseException as error:  # noqa: BLE001 - raised by whoever tends
            self.errors.append(error)

    # -- both sides

    def destination_columns(self, table: str) -> set[str]:
        with closing(self.destination()) as destination:
            schema = destination.get_schema(TableId("shop", table))
            assert schema is not None
            return set(schema.names())

    def rows(self, table: str, columns: str = "*") -> tuple[list[Any], list[Any]]:
        """(at the source, at the destination), each as text and in order."""
        name = sql.Identifier("shop", table)
        query = sql.SQL("select t::text from (select {} from {}{}) t order by 1")
        live = sql.SQL(" where not _cw_deleted")
        here = self.shop.admin.execute(query.format(sql.SQL(columns), name, sql.SQL(""))).fetchall()
        with psycopg.connect(self.url) as connection:
            there = connection.execute(query.format(sql.SQL(columns), name, live)).fetchall()
        return here, there
