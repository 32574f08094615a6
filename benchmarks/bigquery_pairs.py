"""What each pair with BigQuery costs: requests, load jobs, transactions and bytes.

    python -m benchmarks bigquery_pairs [--rows 50000] [--batch 10000] [--save]

BigQuery's quotas and bill are counted in those, and they are the same against the emulator as
against the service.  Rows per second are the emulator's (DuckDB on this machine) and say nothing
about BigQuery; CPU seconds are those of our process.  HTTP requests are counted where they leave
it, but for looks at a job that still runs (every 0.1 to 1 s, for nothing); the Storage Read API's
bytes as they come.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import psycopg
from requests.adapters import HTTPAdapter

from benchmarks.report import Report, parser
from benchmarks.side_by_side.origins import MariaDbOrigin, MongoOrigin, Origin, PostgresOrigin
from benchmarks.side_by_side.shop import TABLE, changes
from warp import pipeline, plugins
from warp.destinations.bigquery import BigQueryDestination, BigQueryDestinationOptions
from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import (
    Capture,
    ChangeBatch,
    Lease,
    Marker,
    Phase,
    Position,
    TableId,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.pipeline import NoMeter
from warp.sources.bigquery import BigQuerySource, BigQuerySourceOptions, reading
from warp.testing.bigquery import PLAIN, BigQueryEmulator, client_of
from warp.testing.servers import MariaDb, Mongod, Postgres

MILLION = 1_000_000
DATABASE = "bench"


@dataclass(slots=True)
class Wire:
    """What this process and BigQuery have said to each other."""

    requests: int = 0  # but for looks at a job that runs, which are as many as it is slow
    looks: int = 0
    streamed: int = 0  # bytes of rows that came by the Storage Read API

    @contextlib.contextmanager
    def tapped(self) -> Iterator[None]:
        send, read = HTTPAdapter.send, reading.read

        def counted(adapter: Any, request: Any, **options: Any) -> Any:
            if request.method == "GET" and "/jobs/" in request.url:
                self.looks += 1
            else:
                self.requests += 1
            return send(adapter, request, **options)

        def weighed(server: Any, ready: Any, **options: Any) -> Iterator[Any]:
            for batch in read(server, ready, **options):
                self.streamed += batch.nbytes if ready.rows is None else 0
                yield batch

        with (
            mock.patch.object(HTTPAdapter, "send", counted),
            mock.patch.object(reading, "read", weighed),
        ):
            yield

    def since(self, before: Wire) -> Wire:
        return Wire(
            self.requests - before.requests,
            self.looks - before.looks,
            self.streamed - before.streamed,
        )


@dataclass(slots=True)
class Hold:
    """A lease that lasts until its stream has got somewhere."""

    lease: Lease
    over: bool = False

    def check(self) -> None: ...

    def stopping(self) -> bool:
        return self.over

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Pair:
    """A source and a destination, and how their table is selected."""

    name: str
    source: Callable[[], SourceConnector]
    destination: Callable[[], DestinationConnector]
    table: TableId
    settings: TableSettings
    found: Callable[[], tuple[int, int]]  # rows at the destination, and the sum of their `qty`

    def must_be(self, rows: int, sum_of_qty: int) -> None:
        """Figures of what did not arrive are none."""
        found = self.found()
        if found != (rows, sum_of_qty):
            raise AssertionError(f"{self.name}: expected {(rows, sum_of_qty)}, found {found}")

    def select(self, table: TableId) -> TableSettings | None:
        return self.settings if table == self.table else None


@dataclass(slots=True)
class Cost:
    """Of one phase."""

    rows: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    wire: Wire = field(default_factory=Wire)
    in_batches: int = 0  # of those requests, how many were made to write a batch
    batches: int = 0
    loads: int = 0
    loaded: int = 0  # bytes of Parquet
    transactions: int = 0


class Run:
    """One pair's units, one after the other in this process, and what each has cost."""

    fences = itertools.count(int(time.time()))

    def __init__(self, pair: Pair, wire: Wire) -> None:
        self.pair = pair
        self.wire = wire
        self.cost = Cost()

    def measured(self, work: Callable[[SourceConnector, DestinationConnector], None]) -> Cost:
        self.cost = cost = Cost()
        with (
            contextlib.closing(self.pair.source()) as source,
            contextlib.closing(self.pair.destination()) as destination,
        ):
            self._count_batches(destination)
            before, cpu, begun = replace(self.wire), time.process_time(), time.monotonic()
            work(source, destination)
            cost.seconds = time.monotonic() - begun
            cost.cpu = time.process_time() - cpu
            cost.wire = self.wire.since(before)
            if isinstance(destination, BigQueryDestination):
                spent = destination.spent
                cost.loads, cost.loaded = spent.loads, spent.loaded_bytes
                cost.transactions = spent.transactions
        return cost

    def _count_batches(self, destination: DestinationConnector) -> None:
        write = destination.write_batch

        def counted(batch: ChangeBatch, marker: Marker, **more: Any) -> Written:
            before = self.wire.requests
            written = write(batch, marker, **more)
            if len(batch):
                self.cost.rows += len(batch)
                self.cost.batches += 1
                self.cost.in_batches += self.wire.requests - before
            return written

        vars(destination)["write_batch"] = counted

    def hold(self, unit: WorkUnit) -> Hold:
        return Hold(Lease(unit, "benchmark", next(self.fences)))

    # -- the phases

    def prepare(self) -> None:
        """Everything that is made once; the place where changes begin is stored."""
        with (
            contextlib.closing(self.pair.source()) as source,
            contextlib.closing(self.pair.destination()) as destination,
        ):
            metadata = destination.metadata()
            metadata.prepare()
            source.tables()  # publishes them, where that is to be done
            if source.traits.streams:
                unit, start = WorkUnit.stream(self.pair.settings.schema), source.position()
            else:
                unit = WorkUnit.poll(self.pair.settings.schema, self.pair.table)
                start = source.poll_start(self.pair.table, fire_time=time.time())
            metadata.register(unit, position=start, phase=Phase.STREAMING)
            chunks = source.chunks(self.pair.table, self.pair.settings.chunk_rows)
            schema, version = self.pair.settings.schema, source.version()
            metadata.plan_snapshot(schema, self.pair.table, chunks, version=version)

    def snapshot(self, source: SourceConnector, destination: DestinationConnector) -> None:
        for marker in destination.metadata().markers((UnitKind.CHUNK,)):
            if marker.unit.table != self.pair.table:
                continue
            hold = self.hold(marker.unit)
            opened = destination.open(hold.lease)
            if opened is None:
                raise AssertionError("a planned chunk has a marker")
            pipeline.snapshot(
                source, destination, opened, hold, selection=self.pair.select, meter=NoMeter()
            )
        destination.metadata().settle(self.pair.settings.schema, self.pair.table)

    def stream(self, source: SourceConnector, destination: DestinationConnector) -> None:
        hold = self.hold(WorkUnit.stream(self.pair.settings.schema))
        goal, acknowledge = source.position(), source.acknowledge

        def arrived(position: Position) -> None:
            acknowledge(position)
            hold.over = source.reached(position, goal)

        vars(source)["acknowledge"] = arrived
        marker = destination.open(hold.lease)
        if marker is None:
            raise AssertionError("a registered stream has a marker")
        select = self.pair.select
        pipeline.stream(source, destination, marker, hold, selection=select, meter=NoMeter())

    def poll(self, source: SourceConnector, destination: DestinationConnector) -> None:
        hold = self.hold(WorkUnit.poll(self.pair.settings.schema, self.pair.table))
        marker = destination.open(hold.lease)
        if marker is None:
            raise AssertionError("a registered poll has a marker")
        pipeline.poll(
            source,
            destination,
            marker,
            hold,
            selection=self.pair.select,
            meter=NoMeter(),
            fire_time=time.time(),
        )


# -- into BigQuery


def into_bigquery(emulator: BigQueryEmulator, origin: Origin, batch: int) -> Pair:
    table = TableId(origin.schema(DATABASE), TABLE)
    dataset = f"from_{origin.name.lower()}"
    settings = TableSettings(
        table,
        TableId(dataset, TABLE),
        DATABASE,
        full_load_batch_size=batch,
        write_batch_size=batch,
        stream_batch_size=batch,
    )
    block = origin.block(DATABASE)
    made: Any = plugins.source(block.pop("type"))
    options = made.Options.model_validate(block)
    pair: Pair

    def destination() -> DestinationConnector:
        given = {
            "connection_string": f"bigquery://{PLAIN.format(emulator.project)}",
            "emulator_host": emulator.url,
            "metadata_schema": f"{dataset}_metadata",
            # Nothing waits for a quota here: what is spent is what is told.
            **{"units": 1, "loads_per_day": 10_000_000, "staging_tables": 10_000},
        }
        chosen = BigQueryDestinationOptions.model_validate(given)
        return BigQueryDestination(chosen, pair.select)

    def source() -> SourceConnector:
        built: SourceConnector = made(options, pair.select)
        return built

    def found() -> tuple[int, int]:
        return in_bigquery(emulator, PLAIN.format(emulator.project), dataset)

    pair = Pair(f"{origin.name} → BigQuery", source, destination, table, settings, found)
    return pair


def in_bigquery(
    emulator: BigQueryEmulator, project: str, dataset: str, live: str = "NOT _cw_deleted"
) -> tuple[int, int]:
    with contextlib.closing(client_of(emulator.url, project)) as client:
        [row] = client.query_and_wait(
            f"SELECT COUNT(*), CAST(SUM(qty) AS INT64) FROM {dataset}.{TABLE} WHERE {live}"
        )
        rows, quantity = row.values()
        return int(rows), int(quantity)


def at(origin: Origin) -> tuple[int, int]:
    quantities = [order.qty for order in origin.orders(DATABASE)]
    return len(quantities), sum(quantities)


def measure_into(report: Report, pair: Pair, origin: Origin, wire: Wire, given: Any) -> None:
    origin.create(DATABASE, given.rows)
    run = Run(pair, wire)
    run.prepare()
    tell(report, f"{pair.name}, snapshot", run.measured(run.snapshot))
    origin.change(DATABASE, changes(given.rows), "batches")
    tell(report, f"{pair.name}, stream", run.measured(run.stream))
    pair.must_be(*at(origin))
    origin.drop(DATABASE)


# -- out of BigQuery


def fill(emulator: BigQueryEmulator, dataset: str, rows: int) -> None:
    with contextlib.closing(emulator.client()) as client:
        client.create_dataset(dataset)
        client.query_and_wait(
            f"CREATE TABLE {dataset}.{TABLE} (id INT64, customer STRING, qty INT64, amount NUMERIC,"
            " weight FLOAT64, created_at TIMESTAMP, paid BOOL, updated_at TIMESTAMP,"
            " PRIMARY KEY (id) NOT ENFORCED)"
        )
        client.query_and_wait(
            f"INSERT INTO {dataset}.{TABLE} SELECT n, CONCAT('customer-', CAST(n AS STRING)),"
            " MOD(n, 97), CAST(MOD(n, 10007) AS NUMERIC) / 4, n / 7,"
            " TIMESTAMP_MILLIS(1700000000000 + n), MOD(n, 3) = 0, CURRENT_TIMESTAMP()"
            f" FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS n"
        )


def change(emulator: BigQueryEmulator, dataset: str, some: int) -> None:
    with contextlib.closing(emulator.client()) as client:
        client.query_and_wait(
            f"UPDATE {dataset}.{TABLE} SET qty = qty + 1, updated_at = CURRENT_TIMESTAMP()"
            f" WHERE id <= {some}"
        )


def out_of_bigquery(
    emulator: BigQueryEmulator,
    dataset: str,
    to: str,
    make: Callable[..., Any],
    ask: Callable[[str], Any],
    way: Capture,
) -> Pair:
    table = TableId(dataset, TABLE)
    settings = TableSettings(
        table, TableId(dataset, TABLE), dataset, capture=way, write_batch_size=10_000
    )
    said = {
        "connection_string": f"bigquery://{emulator.project}/{dataset}",
        "emulator_host": emulator.url,
        "emulator_grpc": emulator.grpc,
    }
    options = BigQuerySourceOptions.model_validate(said)
    pair: Pair

    def source() -> SourceConnector:
        return BigQuerySource(options, pair.select)

    def destination() -> DestinationConnector:
        built: DestinationConnector = make(pair.select)
        return built

    def found() -> tuple[int, int]:
        query = f"select count(*), sum(qty) from {dataset}.{TABLE} where not _cw_deleted"
        rows, quantity = ask(query)
        return int(rows), int(quantity)

    pair = Pair(f"BigQuery → {to}", source, destination, table, settings, found)
    return pair


def measure_out(
    report: Report, emulator: BigQueryEmulator, pair: Pair, wire: Wire, given: Any
) -> None:
    dataset, way = pair.table.namespace, pair.settings.capture
    fill(emulator, dataset, given.rows)
    run = Run(pair, wire)
    run.prepare()
    tell(report, f"{pair.name}, snapshot", run.measured(run.snapshot))
    change(emulator, dataset, given.rows)
    tell(report, f"{pair.name}, changes by {way}", run.measured(run.poll))
    pair.must_be(*in_bigquery(emulator, emulator.project, dataset, "TRUE"))


def ask_mariadb(mariadb: MariaDb) -> Callable[[str], Any]:
    def ask(query: str) -> Any:
        with contextlib.closing(mariadb.client()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()

    return ask


def ask_postgresql(url: str) -> Callable[[str], Any]:
    def ask(query: str) -> Any:
        with psycopg.connect(url) as connection:
            return connection.execute(query.encode()).fetchone()

    return ask


# -- the page


def tell(report: Report, what: str, cost: Cost) -> None:
    share = MILLION / cost.rows
    into = cost.loads > 0
    # What a unit costs beside its batches it costs once, however many rows it carries.
    once = cost.wire.requests - cost.in_batches
    report.add(
        what,
        f"{cost.rows:,}",
        f"{cost.rows / cost.seconds:,.0f}",
        f"{cost.cpu * share:.0f}",
        f"{cost.batches}",
        f"{cost.loads * share:,.0f}" if into else "",
        f"{cost.transactions * share:,.0f}" if into else "",
        f"{cost.in_batches * share:,.0f}" if into else "",
        once,
        f"{(cost.loaded if into else cost.wire.streamed) * share / 1e6:,.0f}",
    )


def main() -> None:
    arguments = parser(__doc__, rows=50_000, batch=10_000).parse_args()
    report = Report(
        "bigquery_pairs",
        f"{arguments.rows:,} orders of 8 columns, then as many changes, in batches of at most "
        f"{arguments.batch:,} rows, against the emulator; one process.",
        (
            "",
            "rows",
            "rows per second with the emulator",
            "our CPU, s per million rows",
            "batches",
            "load jobs per million rows",
            "transactions per million",
            "HTTP requests of batches per million",
            "HTTP requests beside them, in all",
            "MB of Parquet or Arrow per million",
        ),
    )
    wire = Wire()
    with wire.tapped(), BigQueryEmulator() as emulator:
        with Mongod() as mongod:
            origin: Origin = MongoOrigin(mongod)
            measure_into(
                report, into_bigquery(emulator, origin, arguments.batch), origin, wire, arguments
            )
        with MariaDb() as mariadb:
            origin = MariaDbOrigin(mariadb)
            measure_into(
                report, into_bigquery(emulator, origin, arguments.batch), origin, wire, arguments
            )
            mysql = MysqlWriterOptions.model_validate({"connection_string": mariadb.url})
            for way in (Capture.TIMESTAMP, Capture.HASH):
                pair = out_of_bigquery(
                    emulator,
                    f"to_mariadb_{way}",
                    "MariaDB",
                    lambda select: MysqlDestination(mysql, select),
                    ask_mariadb(mariadb),
                    way,
                )
                measure_out(report, emulator, pair, wire, arguments)
        with Postgres() as postgres:
            origin = PostgresOrigin(postgres)
            measure_into(
                report, into_bigquery(emulator, origin, arguments.batch), origin, wire, arguments
            )
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                connection.execute("create database warehouse")
            postgresql = PostgresOptions.model_validate(
                {"connection_string": postgres.database_url("warehouse")}
            )
            for way in (Capture.TIMESTAMP, Capture.HASH):
                pair = out_of_bigquery(
                    emulator,
                    f"to_postgresql_{way}",
                    "PostgreSQL",
                    lambda select: PostgresDestination(postgresql, select),
                    ask_postgresql(postgres.database_url("warehouse")),
                    way,
                )
                measure_out(report, emulator, pair, wire, arguments)
    report.note(
        "load jobs, transactions, requests and bytes are counted, so they hold on a machine busy "
        "with other things, as this one may have been; seconds do not"
    )
    report.note(
        "load jobs, transactions and requests follow the number of batches: with batches of 50,000 "
        "rows they are a fifth of those with 10,000"
    )
    report.note(
        "out of BigQuery rows come by the Storage Read API; what its queries bill is not known of "
        "the emulator, which bills nothing"
    )
    report.finish(save=arguments.save)


if __name__ == "__main__":
    main()
