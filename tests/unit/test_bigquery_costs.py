"""What reading BigQuery costs is known before, and bounded."""

from __future__ import annotations

from typing import Any

from pretended_bigquery import ORDERS, Answer, Pretended, orders, source_of

from warp import rehearsal
from warp.model import Capture, Verdict
from warp.sources.bigquery.costs import BILLED_AT_LEAST

PROCESSED = 123_456_789  # what every dry run of the pretended service says
TIMED = orders(
    schema={
        "fields": [
            {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
            {"name": "updated_at", "type": "TIMESTAMP"},
        ]
    }
)


def test_a_comparison_scans_the_table_at_both_times() -> None:
    service = Pretended({"orders": orders()})
    [cost] = source_of(service, Capture.HASH).cost()
    assert (cost.table, cost.way, cost.snapshot) == (ORDERS, "comparison", PROCESSED)
    assert cost.run == 2 * PROCESSED
    assert cost.verification == PROCESSED
    assert not service.asked()  # a dry run bills nothing
    assert rehearsal.billed(source_of(service, Capture.HASH), ORDERS) == cost  # as `plan` asks


def test_a_verification_scans_a_table_that_is_not_clustered_once_for_each_range() -> None:
    large = {"numRows": "1000", "numBytes": str(10**9)}
    ranges = {"chunk_rows": 100}

    def verification(**more: Any) -> int | None:
        limit = more.pop("scan_limit", "100GB")
        service = Pretended({"orders": orders(**large, **more)})
        [cost] = source_of(service, Capture.HASH, ranges, scan_limit=limit).cost()
        return cost.verification

    assert verification() == 10 * PROCESSED
    assert verification(clustering={"fields": ["id"]}) == PROCESSED
    assert verification(scan_limit="3GB") == 3 * PROCESSED  # so many ranges and no more


def test_a_run_by_times_looks_for_the_greatest_and_then_reads() -> None:
    source = source_of(Pretended({"orders": TIMED}), Capture.TIMESTAMP)
    [cost] = source.cost()
    assert (cost.way, cost.run) == ("timestamp", 2 * PROCESSED)


def test_what_cannot_be_told_before_is_said_to_be_unknown() -> None:
    service = Pretended({"orders": orders()})
    service.answers = [Answer(r"CHANGES\(", error=(400, "invalidQuery", "no history"))]
    [cost] = source_of(service, Capture.LOG).cost()
    assert cost.run is None
    assert "no history" in cost.why_unknown


def test_no_query_is_billed_less_than_ten_megabytes() -> None:
    assert BILLED_AT_LEAST == 10 * 1024 * 1024


def test_doctor_says_the_cost_and_what_the_cap_would_refuse() -> None:
    source = source_of(Pretended({"orders": orders()}), Capture.HASH, maximum_bytes_billed="100MB")
    found = {one.code: one for one in source.diagnose()}
    cost = found["bigquery-cost"]
    assert cost.verdict is Verdict.FAILED
    assert f"{PROCESSED:,} bytes once" in cost.found
    assert found["bigquery-location"].verdict is Verdict.OK


def test_doctor_names_what_each_table_lacks() -> None:
    plain = orders(tableConstraints={}, requirePartitionFilter=True)
    service = Pretended({"orders": plain, "lines": orders()})
    source = source_of(service, Capture.LOG, location="US", time_travel="1h")
    found = {(one.code, one.subject): one for one in source.diagnose()}
    failed = {place for place, one in found.items() if one.verdict is Verdict.FAILED}
    assert failed == {
        ("bigquery-location", "dataset shop"),
        ("bigquery-key", "shop.orders"),
        ("bigquery-partition-filter", "shop.orders"),
        ("bigquery-change-history", "shop.lines"),
    }
    mend = found["bigquery-change-history", "shop.lines"].mend
    assert "SET OPTIONS (enable_change_history = TRUE)" in mend
    assert found["bigquery-time-travel", "dataset shop"].verdict is Verdict.WARNING
    assert found["bigquery-cap", "maximum_bytes_billed"].verdict is Verdict.WARNING


def test_a_refused_right_names_the_role() -> None:
    service = Pretended({"orders": orders()})
    denied = (403, "accessDenied", "Access Denied: User does not have permission")
    service.answers = [Answer("SELECT `id`", error=denied)]
    found = {one.code: one for one in source_of(service, Capture.HASH).diagnose()}
    assert "roles/bigquery.dataViewer" in found["bigquery-may-read"].mend
    service.answers = [Answer("SELECT 1", error=denied)]
    [found_first] = source_of(service, Capture.HASH).diagnose()
    assert "roles/bigquery.jobUser" in found_first.mend


def test_doctor_knows_of_no_triggers() -> None:
    source = source_of(Pretended({"orders": orders()}), Capture.TRIGGER)
    failed = [one for one in source.diagnose() if one.verdict is Verdict.FAILED]
    assert [one.code for one in failed] == ["bigquery-triggers"]
