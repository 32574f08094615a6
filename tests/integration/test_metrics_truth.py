"""What a fleet's pages say, beside what is true: in the destination, in Redis, of its processes."""

from __future__ import annotations

import re

import pytest
from eventful import (
    CRASHED,
    CREATED,
    MISFITS,
    ROWS,
    SNAPSHOT,
    Day,
    Page,
)

from warp.errors import WarpError
from warp.metrics import METRICS, error_type

pytestmark = [pytest.mark.xdist_group("eventful"), pytest.mark.timeout(400)]

PLAIN = {"schema": "plain", "table": "plain"}
STREAM = {"schema": "plain", "table": "*"}


def of(page: Page, metric: str, **labels: str) -> float | None:
    return page.value(f"cartridge_warp_{metric}", **labels)


def test_rows_are_counted_by_table_and_operation_as_the_destination_has_them(
    eventful: Day,
) -> None:
    page = eventful.pages["worker at rest"]

    for table in ("plain", "quiet", "orders", "lines", "archive"):
        labels = eventful.ours(schema=table, table=table, operation="read")
        assert page.value(ROWS, **labels) == SNAPSHOT
    assert page.value(ROWS, **PLAIN, operation="create") == CREATED
    assert page.value(ROWS, **PLAIN, operation="update") == 5
    assert page.value(ROWS, **PLAIN, operation="delete") == 1
    landed = MISFITS["text"] + MISFITS["long"]
    assert page.value(ROWS, table="orders", operation="create") == landed
    assert page.value(ROWS, table="broken") is None


def test_a_crash_before_the_commit_adds_nothing_and_the_rows_are_counted_once(
    eventful: Day,
) -> None:
    assert eventful.truth["crashes"] >= 1
    assert eventful.truth["rows after the crash"] == SNAPSHOT + CREATED - 1
    assert eventful.pages["crashing worker"].value(ROWS, table="plain") is None

    after = eventful.pages["worker after the crash"]
    assert after.value(ROWS, table="plain", operation="create") == CRASHED
    before = eventful.pages["worker at rest"]
    counted = sum(
        page.value(ROWS, table="plain", operation=operation) or 0
        for page in (before, after)
        for operation in ("read", "create")
    )
    deleted = before.value(ROWS, table="plain", operation="delete") or 0
    assert counted - deleted == eventful.truth["rows in the end"]


def test_the_rate_is_of_rows_that_were_counted(eventful: Day) -> None:
    page = eventful.pages["after the creates"]
    rows = page.value(ROWS, table="plain") or 0

    rate = of(page, "processing_rate", **PLAIN)

    assert rate is not None
    assert 0 < rate * 60 <= rows + 1e-6


def test_an_idle_table_that_is_caught_up_shows_a_lag_of_zero(eventful: Day) -> None:
    worker, coordinator = (eventful.pages[f"{who} at rest"] for who in ("worker", "coordinator"))

    assert of(worker, "lag_seconds", **PLAIN) == 0
    assert of(worker, "lag_seconds", **STREAM) == 0
    # It has not changed since its snapshot, so no worker has measured it.
    assert of(worker, "lag_seconds", schema="quiet", table="quiet") is None
    assert of(coordinator, "lag_seconds", schema="quiet", table="quiet") == 0


def test_the_lag_of_a_stopped_worker_grows_on_the_coordinators_page(eventful: Day) -> None:
    before, after = eventful.pages["nobody works"], eventful.pages["nobody works still"]
    first, second = (of(page, "lag_seconds", **STREAM) for page in (before, after))

    assert first is not None
    assert second is not None
    assert 0 < first < second
    # Told at the coordinator's last round, so never more than at the scrape.
    assert second <= after.at - eventful.truth["delivered up to"] + 1


def test_all_three_values_of_sync_status_are_reached(eventful: Day) -> None:
    worker, coordinator = (eventful.pages[f"{who} at rest"] for who in ("worker", "coordinator"))

    for page in (worker, coordinator):
        assert of(page, "sync_status", **PLAIN) == 1
        assert of(page, "sync_status", **STREAM) == 1
    assert of(coordinator, "sync_status", table="archive") == 0  # until its schedule comes
    assert of(coordinator, "sync_status", table="broken") == -1
    assert of(eventful.pages["nobody works"], "sync_status", **STREAM) == 0


def test_the_last_success_is_the_last_time_the_marker_moved_or_nothing_was_to_do(
    eventful: Day,
) -> None:
    page = eventful.pages["worker at rest"]

    success = of(page, "last_successful_sync", **STREAM)

    assert success is not None
    assert success <= page.at
    assert success == pytest.approx(eventful.truth["moved at"], abs=30)


def test_errors_are_those_of_the_error_log_by_class(eventful: Day) -> None:
    page = eventful.pages["worker at rest"]
    shown = {
        own["error_type"]: value
        for name, own, value in page.series()
        if name == "cartridge_warp_error_count_total" and own["table"] == "broken"
    }

    logged = {snake(name): count for name, count in eventful.truth["errors"]}

    assert shown == logged
    assert logged


def snake(name: str) -> str:
    kinds = {kind.__name__: kind for kind in every_kind(WarpError)}
    return error_type(kinds[name].__new__(kinds[name])) if name in kinds else "unexpected"


def every_kind(kind: type[WarpError]) -> list[type[WarpError]]:
    return [kind, *(each for sub in kind.__subclasses__() for each in every_kind(sub))]


def test_a_write_transaction_is_timed_once_for_each_table_it_wrote_to(eventful: Day) -> None:
    name = "batch_processing_duration_seconds"
    before, after = (eventful.pages[f"{which} the creates"] for which in ("before", "after"))

    transactions = (of(after, f"{name}_count", **PLAIN) or 0) - (
        of(before, f"{name}_count", **PLAIN) or 0
    )

    assert transactions == eventful.truth["transactions"] > 0
    seconds = of(after, f"{name}_sum", **PLAIN) or 0
    assert 0 < seconds < after.at - eventful.began
    assert of(after, f"{name}_bucket", **PLAIN, le="+Inf") == of(after, f"{name}_count", **PLAIN)


def test_the_queue_is_the_number_that_autoscalers_read_in_redis(eventful: Day) -> None:
    coordinator, worker = eventful.pages["coordinator at rest"], eventful.pages["worker at rest"]

    assert of(coordinator, "queue_size") == eventful.truth["demand"] == 5  # one stream a schema
    assert of(coordinator, "queue_size", **STREAM) == 1
    assert of(coordinator, "queue_size", table="archive") == 0
    assert of(worker, "queue_size") is None
    assert of(worker, "leases_held") == eventful.truth["demand"]


def test_memory_is_that_of_the_processes_that_serve_the_schema(eventful: Day) -> None:
    shown = of(eventful.pages["worker at rest"], "memory_usage_bytes", schema="plain")

    assert shown == pytest.approx(eventful.truth["resident"], rel=0.3)


def test_changes_of_tables_are_those_that_were_made(eventful: Day) -> None:
    page = eventful.pages["worker at rest"]

    assert of(page, "schema_changes_total", table="quiet", change_type="create_table") == 1
    assert of(page, "schema_changes_total", table="plain", change_type="create_table") == 1
    added = of(page, "schema_changes_total", table="plain", change_type="add_column")
    assert added == eventful.truth["columns added"] == 1


def test_cells_that_did_not_fit_are_those_of_the_error_log(eventful: Day) -> None:
    page = eventful.pages["worker at rest"]
    shown = sorted(
        (own["table"], own["column"], own["outcome"], int(value))
        for name, own, value in page.series()
        if name == "cartridge_warp_cells_total"
    )

    assert shown == [tuple(row) for row in eventful.truth["cells"]]
    assert of(page, "type_conversion_warnings_total", table="orders") == (
        MISFITS["text"] + MISFITS["long"]
    )
    assert of(page, "type_conversion_warnings_total", table="quiet") == 0


def test_what_is_beyond_the_eleven_is_true_as_well(eventful: Day) -> None:
    worker, coordinator = (eventful.pages[f"{who} at rest"] for who in ("worker", "coordinator"))

    assert of(worker, "quarantined_total", table="orders") == MISFITS["refused"]
    assert of(worker, "deferred_total", table="lines") == MISFITS["orphans"]
    assert of(coordinator, "snapshot_progress_ratio", table="plain") == 1
    assert of(coordinator, "snapshot_progress_ratio", table="broken") == 0
    retention = of(coordinator, "source_retention_seconds", schema="plain")
    reaches = coordinator.at - eventful.truth["oplog begins"]
    assert retention == pytest.approx(reaches, abs=60)


def test_takeovers_superseded_writers_and_wipes_are_counted(eventful: Day) -> None:
    taken = of(eventful.pages["coordinator after the crash"], "takeovers_total", schema="plain")
    assert taken is not None
    assert 1 <= taken <= eventful.truth["lives"]  # each can lose the stream once
    assert of(eventful.pages["coordinator at rest"], "takeovers_total", schema="plain") == 0

    before = of(eventful.pages["worker after the crash"], "fence_rejections_total", schema="plain")
    after = of(eventful.pages["superseded worker"], "fence_rejections_total", schema="plain")
    assert before == 0
    assert after is not None
    assert after >= 1

    assert of(eventful.pages["coordinator at rest"], "ledger_wipes_total") == 0
    assert of(eventful.pages["coordinator after the wipe"], "ledger_wipes_total") == 1


def test_health_and_readiness_are_answered_on_the_same_port(eventful: Day) -> None:
    assert set(eventful.answers) == {
        f"{who} {path}" for who in ("coordinator", "worker") for path in ("/healthz", "/readyz")
    }
    assert all(answer["ok"] for answer in eventful.answers.values())


def test_every_series_is_one_that_is_declared_with_its_labels(eventful: Day) -> None:
    declared = {metric.name: set(metric.labels) for metric in METRICS}
    for page in eventful.pages.values():
        for name, own, _ in page.series():
            stem = re.sub(r"_(bucket|count|sum)$", "", name) if name not in declared else name
            assert set(own) - {"le"} == declared[stem], name
