"""The metrics: the plan's names exactly, what each means, and one scrape over many processes."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401  imported before any server sets the variable: in memory
import pytest

from warp import metrics
from warp.errors import FenceBehind, SourceUnavailable, StartFailed, WarpError
from warp.metrics import ERROR_TYPES, METRICS, Meters, MetricsServer, Over, Rate, Type, error_type
from warp.model import (
    Change,
    ChangeBatch,
    Chunk,
    Finding,
    Operation,
    Outcome,
    Position,
    SchemaChange,
    TableId,
    WorkUnit,
    Written,
)
from warp.pipeline import Meter

USERS = TableId("shop", "users")
ORDERS = TableId("shop", "orders")
STREAM = WorkUnit.stream("web")
USERS_LABELS = {"database": "shop", "schema": "web", "table": "users"}

SEED = {
    "cartridge_warp_records_processed_total": "database, schema, table, operation",
    "cartridge_warp_processing_rate": "database, schema, table",
    "cartridge_warp_lag_seconds": "database, schema, table",
    "cartridge_warp_sync_status": "database, schema, table",
    "cartridge_warp_last_successful_sync": "database, schema, table",
    "cartridge_warp_error_count_total": "database, schema, table, error_type",
    "cartridge_warp_batch_processing_duration_seconds": "database, schema, table",
    "cartridge_warp_queue_size": "database, schema, table",
    "cartridge_warp_memory_usage_bytes": "database, schema",
    "cartridge_warp_schema_changes_total": "database, schema, table, change_type",
    "cartridge_warp_type_conversion_warnings_total": "database, schema, table",
}


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def meters(clock: FakeClock) -> Meters:
    return Meters("shop", clock=clock)


def batch(committed_at: float) -> ChangeBatch:
    return ChangeBatch([], Position("p", committed_at))


def written(rows: Mapping[Operation, int], table: TableId = USERS) -> Written:
    return Written({(table, operation): count for operation, count in rows.items()}, seconds=0.2)


def value(meters: Meters, name: str, **labels: str) -> float | None:
    """None where the series is not shown."""
    found = meters.registry.get_sample_value(name, {**USERS_LABELS, **labels})
    return None if found is None or found != found else found


def test_the_eleven_metrics_of_the_plan_have_its_names_and_labels() -> None:
    declared = {m.name: ", ".join(m.labels) for m in METRICS if m.of_plan}

    assert declared == SEED


def test_every_declaration_says_what_it_means_and_has_one_name() -> None:
    assert len({m.name for m in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert len(metric.help) > 30
        assert metric.help.endswith(".")
        assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)


def test_meters_are_what_the_pipeline_asks_for(meters: Meters) -> None:
    meter: Meter = meters.meter(STREAM)

    meter.caught_up()


def test_only_committed_rows_are_counted_by_operation(meters: Meters, clock: FakeClock) -> None:
    meter = meters.meter(STREAM)

    meter.committed(batch(clock.now), written({Operation.CREATE: 3, Operation.DELETE: 1}))
    meter.committed(batch(clock.now), written({Operation.CREATE: 2}))

    name = "cartridge_warp_records_processed_total"
    assert value(meters, name, operation="create") == 5
    assert value(meters, name, operation="delete") == 1
    assert value(meters, name, operation="read") is None
    duration = "cartridge_warp_batch_processing_duration_seconds"
    assert value(meters, f"{duration}_count") == 2
    assert value(meters, f"{duration}_sum") == pytest.approx(0.4)


def test_lag_is_event_time_to_commit_time_and_zero_when_caught_up(
    meters: Meters, clock: FakeClock
) -> None:
    meter = meters.meter(STREAM)

    meter.committed(batch(clock.now - 7.5), written({Operation.UPDATE: 1}))
    assert value(meters, "cartridge_warp_lag_seconds") == 7.5

    meter.caught_up()
    assert value(meters, "cartridge_warp_lag_seconds") == 0


def test_a_busy_streams_own_lag_is_not_the_zero_of_its_last_rest(
    meters: Meters, clock: FakeClock
) -> None:
    meter = meters.meter(STREAM)
    meter.caught_up()
    assert value(meters, "cartridge_warp_lag_seconds", table="*") == 0

    meter.committed(batch(clock.now - 3600), written({Operation.UPDATE: 1}))

    assert value(meters, "cartridge_warp_lag_seconds", table="*") == 3600
    assert value(meters, "cartridge_warp_last_successful_sync", table="*") == clock.now


def test_what_alerts_ask_for_is_shown_from_zero_so_that_the_first_is_an_increase(
    meters: Meters, clock: FakeClock
) -> None:
    meters.meter(STREAM).committed(batch(clock.now), written({Operation.CREATE: 1}))

    for name in ("quarantined_total", "deferred_total", "type_conversion_warnings_total"):
        assert value(meters, f"cartridge_warp_{name}") == 0
        assert value(meters, f"cartridge_warp_{name}", table="*") is None
    refused = "cartridge_warp_fence_rejections_total"
    assert meters.registry.get_sample_value(refused, {"schema": "web"}) == 0


def test_documents_with_a_new_field_each_make_no_series_without_end(meters: Meters) -> None:
    meter = meters.meter(STREAM)
    columns = [f"field{n}" for n in range(metrics.MOST_COLUMNS + 30)]

    for column in (*columns, columns[0]):
        meter.found([Finding(USERS, column, Outcome.NULLED, "string", "int64", 2)])

    cells = "cartridge_warp_cells_total"
    assert value(meters, cells, column="field0", outcome="nulled") == 4
    assert value(meters, cells, column=columns[-1], outcome="nulled") is None
    assert value(meters, cells, column=metrics.OTHER_COLUMNS, outcome="nulled") == 60


def test_a_source_whose_clock_is_ahead_makes_no_negative_lag(
    meters: Meters, clock: FakeClock
) -> None:
    meters.meter(STREAM).committed(batch(clock.now + 2), written({Operation.UPDATE: 1}))

    assert value(meters, "cartridge_warp_lag_seconds") == 0


def test_rows_of_a_snapshot_count_but_are_not_late(meters: Meters, clock: FakeClock) -> None:
    chunk = WorkUnit.of_chunk("web", Chunk(USERS, 0), 1)

    meters.meter(chunk).committed(batch(clock.now - 3600), written({Operation.READ: 10}))

    assert value(meters, "cartridge_warp_records_processed_total", operation="read") == 10
    assert not value(meters, "cartridge_warp_lag_seconds")


def test_the_rate_is_the_rows_of_the_last_minute_and_falls_by_itself(
    meters: Meters, clock: FakeClock
) -> None:
    meter = meters.meter(STREAM)
    meter.committed(batch(0), written({Operation.CREATE: 600}))
    assert value(meters, "cartridge_warp_processing_rate") == 10

    clock.now += 59
    meters.refresh()
    assert value(meters, "cartridge_warp_processing_rate") == 10

    clock.now += 2
    meters.refresh()
    assert value(meters, "cartridge_warp_processing_rate") == 0


def test_a_rate_adds_up_what_lies_in_its_window() -> None:
    rate = Rate(window=10)
    for second in range(30):
        rate.add(5, second + 0.5)

    assert rate.value(30) == pytest.approx(5, abs=0.6)
    assert rate.value(100) == 0


def test_status_says_active_then_error_and_goes_when_another_may_have_it(
    meters: Meters, clock: FakeClock
) -> None:
    name, all_tables = "cartridge_warp_sync_status", {"table": "*"}
    meters.meter(STREAM)
    assert value(meters, name, **all_tables) == 1

    meters.stopped(STREAM)
    meters.over(STREAM)
    assert value(meters, name, **all_tables) == -1

    clock.now += metrics.ERROR_SHOWN_FOR + 1
    meters.refresh()
    assert value(meters, name, **all_tables) is None


def test_a_released_unit_leaves_no_stale_lag_behind(meters: Meters, clock: FakeClock) -> None:
    meters.meter(STREAM).committed(batch(clock.now - 5), written({Operation.CREATE: 1}))

    meters.over(STREAM)

    assert value(meters, "cartridge_warp_lag_seconds") is None
    assert value(meters, "cartridge_warp_sync_status") is None
    assert value(meters, "cartridge_warp_records_processed_total", operation="create") == 1


def test_a_finished_chunk_does_not_hide_the_stream_of_its_table(
    meters: Meters, clock: FakeClock
) -> None:
    chunk = WorkUnit.of_chunk("web", Chunk(USERS, 0), 1)
    meters.meter(STREAM).committed(batch(clock.now - 5), written({Operation.CREATE: 1}))
    meters.meter(chunk)

    meters.over(chunk)

    assert value(meters, "cartridge_warp_sync_status") == 1
    assert value(meters, "cartridge_warp_lag_seconds") == 5


def test_what_goes_wrong_is_counted_by_kind(meters: Meters) -> None:
    meter = meters.meter(STREAM)
    chunk = WorkUnit.of_chunk("web", Chunk(USERS, 0), 1)

    meters.error(chunk, SourceUnavailable("away"))
    meters.error(chunk, KeyError("a bug whose text must not become a label"))
    meters.fenced(STREAM)
    meter.found([Finding(USERS, "age", Outcome.NULLED, "string", "int64", 4)])
    meter.found([Finding(USERS, "age", Outcome.CONVERTED, "double", "int64", 3)])
    meter.evolved([SchemaChange(USERS, Change.ADD_COLUMN)])
    meter.committed(batch(0), Written({}, quarantined={USERS: 2}, deferred={USERS: 1}))

    errors = "cartridge_warp_error_count_total"
    assert value(meters, errors, error_type="source_unavailable") == 1
    assert value(meters, errors, error_type="unexpected") == 1
    assert value(meters, "cartridge_warp_type_conversion_warnings_total") == 4
    changes = "cartridge_warp_schema_changes_total"
    assert value(meters, changes, change_type="add_column") == 1
    cells = "cartridge_warp_cells_total"
    assert value(meters, cells, column="age", outcome="nulled") == 4
    assert value(meters, cells, column="age", outcome="converted") == 3
    assert value(meters, "cartridge_warp_quarantined_total") == 2
    assert value(meters, "cartridge_warp_deferred_total") == 1
    fenced = meters.registry.get_sample_value(
        "cartridge_warp_fence_rejections_total", {"schema": "web"}
    )
    assert fenced == 1


def test_error_types_are_a_closed_set() -> None:
    class Unheard(WarpError):
        pass

    assert error_type(FenceBehind("x", found=1)) == "fence_behind"
    assert {error_type(Unheard("x")), error_type(OSError())} <= ERROR_TYPES


def test_showing_a_gauge_anew_takes_away_what_is_not_in_it(meters: Meters) -> None:
    queue = "cartridge_warp_queue_size"
    meters.show(queue, {("shop", "web", "users"): 3, ("shop", "web", "orders"): 1})

    meters.show(queue, {("shop", "web", "orders"): 2})

    assert value(meters, queue) is None
    assert value(meters, queue, table="orders") == 2


def test_leases_and_memory_follow_the_units_in_hand(meters: Meters) -> None:
    meters.meter(STREAM)
    meters.refresh()
    labels = {"database": "shop", "schema": "web"}
    memory = meters.registry.get_sample_value("cartridge_warp_memory_usage_bytes", labels)
    assert memory is not None
    assert memory > 1_000_000
    assert meters.registry.get_sample_value("cartridge_warp_leases_held") == 1

    meters.over(STREAM)
    meters.refresh()
    assert meters.registry.get_sample_value("cartridge_warp_memory_usage_bytes", labels) == 0
    assert meters.registry.get_sample_value("cartridge_warp_leases_held") == 0


def test_a_meter_used_from_many_threads_loses_no_row(meters: Meters) -> None:
    import threading

    meter = meters.meter(STREAM)

    def work() -> None:
        for _ in range(200):
            meter.committed(batch(0), written({Operation.CREATE: 1}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert value(meters, "cartridge_warp_records_processed_total", operation="create") == 1600
    assert value(meters, "cartridge_warp_processing_rate") == pytest.approx(1600 / 60)


# The server


def get(port: int, path: str, **headers: str) -> tuple[int, str, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers["Content-Type"], refused.read()


def test_health_and_readiness_are_the_answers_of_the_hooks(tmp_path: Path) -> None:
    problems: list[dict[str, Any]] = [{"ledger": "away"}]

    with MetricsServer(0, tmp_path, ready=lambda: problems[0] if problems else None) as server:
        assert get(server.port, "/healthz")[:2] == (200, "application/json")
        status, _, body = get(server.port, "/readyz")
        assert (status, json.loads(body)) == (503, {"ok": False, "ledger": "away"})

        problems.clear()

        assert get(server.port, "/readyz")[0] == 200
        assert get(server.port, "/elsewhere")[0] == 404
        zipped = get(server.port, "/metrics", **{"Accept-Encoding": "gzip"})[2]
        assert gzip.decompress(zipped) == b""


def test_a_taken_port_is_named_with_the_setting_that_changes_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(StartFailed) as failed:
            MetricsServer(port, tmp_path)

    assert str(port) in str(failed.value)
    assert "monitoring.prometheus.port" in str(failed.value)
    assert metrics.VARIABLE not in os.environ


def test_a_server_removes_what_an_earlier_life_left_and_its_own_directory(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").write_bytes(b"old")
    with MetricsServer(0, tmp_path):
        assert not list(tmp_path.iterdir())
    with MetricsServer(0) as server:
        own = server.directory
        assert own.is_dir()
    assert not own.exists()


def test_meters_made_before_their_server_would_measure_nothing_and_are_refused(
    tmp_path: Path,
) -> None:
    with MetricsServer(0, tmp_path), pytest.raises(StartFailed, match="make the MetricsServer"):
        Meters()


PARENT = """
    import subprocess, sys
    from warp.metrics import Meters, MetricsServer
    with MetricsServer(0) as server:
        Meters("shop").show("cartridge_warp_queue_size", {("shop", "web", "*"): 4})
        children = []
        for number in ("1", "2"):  # the second owner begins when the first has let go
            children.append(
                subprocess.Popen([sys.executable, "-c", sys.argv[1], number],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert children[-1].stdout.readline() == "ready\\n"
        print(server.port, *(c.pid for c in children), flush=True)
        for line in sys.stdin:
            children[int(line)].kill()  # and not waited for: a zombie is dead too
            print("killed", flush=True)
        for child in children:
            child.kill()
            child.communicate()
"""

CHILD = """
    import sys, time
    from warp.metrics import Meters
    from warp.model import *
    number = int(sys.argv[1])
    meters = Meters("shop")
    users = TableId("shop", "users")
    rows = {(users, Operation.CREATE): 10 * number}
    end = Position("p", time.time() - number * 1000)
    meters.meter(WorkUnit.stream("web")).committed(ChangeBatch([], end), Written(rows, seconds=0.1))
    if number == 1:
        meters.over(WorkUnit.stream("web"))  # handed over to the second process
        meters.meter(WorkUnit.poll("web", TableId("shop", "orders")))
    meters.refresh()
    print("ready", flush=True)
    sys.stdin.read()
"""


def sample(text: str, name: str, **labels: str) -> float | None:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for s in family.samples:
            if s.name == name and labels.items() <= s.labels.items():
                return float(s.value)
    return None


def eventually(check: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "not within time"
        time.sleep(0.05)


def test_one_scrape_adds_up_all_processes_and_forgets_the_live_gauges_of_dead_ones() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), textwrap.dedent(CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdin
        assert parent.stdout
        port = int(parent.stdout.readline().split()[0])

        def scrape() -> str:
            return get(port, "/metrics")[2].decode()

        text = scrape()
        assert sample(text, "cartridge_warp_records_processed_total", table="users") == 30
        assert sample(text, "cartridge_warp_processing_rate", table="users") == 0.5
        assert sample(text, "cartridge_warp_queue_size", table="*") == 4
        lag = sample(text, "cartridge_warp_lag_seconds", table="users")
        assert lag is not None
        assert 2000 <= lag < 2060  # of the second process, the first let go of it
        assert sample(text, "cartridge_warp_leases_held") == 2
        assert sample(text, "cartridge_warp_sync_status", table="orders") == 1
        assert "pid=" not in text
        assert "_created" not in text
        assert "NaN" not in text

        parent.stdin.write("1\n")
        parent.stdin.flush()
        parent.stdout.readline()

        eventually(lambda: sample(scrape(), "cartridge_warp_leases_held") == 1)
        text = scrape()
        assert sample(text, "cartridge_warp_lag_seconds", table="users") is None
        assert sample(text, "cartridge_warp_records_processed_total", table="users") == 30
    finally:
        if parent.stdin:
            parent.stdin.close()
        if parent.stdout:
            parent.stdout.close()
        assert parent.wait(10) == 0


def test_gauges_of_one_owner_take_the_latest_value_and_totals_the_sum() -> None:
    over = {m.name: m.over for m in METRICS if m.type is Type.GAUGE}

    assert over["cartridge_warp_lag_seconds"] is Over.LATEST
    assert over["cartridge_warp_processing_rate"] is Over.SUM
    assert over["cartridge_warp_last_successful_sync"] is Over.MAX
