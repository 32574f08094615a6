"""A day's writing stays within BigQuery's limits, and how large batches must be for it."""

from __future__ import annotations

from collections import Counter, deque

import pytest

from warp.destinations.bigquery import BigQueryDestination
from warp.destinations.bigquery.quotas import (
    DAY,
    LOADS_OF_A_PROJECT,
    LOADS_OF_A_TABLE,
    STATEMENTS_OF_A_BATCH,
    STATEMENTS_OF_A_TABLE,
    Allowance,
    Pacer,
)

STAGING_TABLES = 8
DEFAULT = Allowance.of(staging_tables=STAGING_TABLES, loads_per_day=100_000, units=20)


def a_day(
    rows_a_second: float,
    *,
    allowance: Allowance,
    most_rows: int = BigQueryDestination.traits.most_rows,
    seconds_a_batch: float = 4.0,
    tables: int = 1,
) -> tuple[int, Counter[int], float, float]:
    """A day of one unit: loads, loads by staging table, the most statements on one table within
    ten seconds, and how late the rows are at the end."""
    now = arrived = written = 0.0
    pacer = Pacer(allowance, now)
    loads = 0
    by_table: Counter[int] = Counter()
    recent: deque[float] = deque()
    densest = 0
    while now < DAY:
        now += pacer.spend(tables, now)
        arrived = now * rows_a_second
        ready = min(arrived - written, float(most_rows))
        if ready < 1:
            now += 1.0
            continue
        for _ in range(tables):
            by_table[loads % STAGING_TABLES] += 1
            loads += 1
        recent.extend([now] * STATEMENTS_OF_A_BATCH)
        while recent and recent[0] <= now - 10:
            recent.popleft()
        densest = max(densest, len(recent))
        now += seconds_a_batch
        written += ready
    late = (now * rows_a_second - written) / rows_a_second
    return loads, by_table, densest, late


@pytest.mark.parametrize("rows_a_second", [0.01, 1, 100, 5_000])
def test_a_day_at_any_rate_stays_within_every_limit(rows_a_second: float) -> None:
    loads, by_table, densest, late = a_day(rows_a_second, allowance=DEFAULT)
    assert loads * 20 <= LOADS_OF_A_PROJECT
    assert max(by_table.values()) <= LOADS_OF_A_TABLE
    assert densest <= STATEMENTS_OF_A_TABLE
    assert late < 120


def test_a_unit_alone_is_held_by_its_own_staging_tables() -> None:
    alone = Allowance.of(staging_tables=STAGING_TABLES, loads_per_day=100_000, units=1)
    loads, by_table, _, _ = a_day(1_000, allowance=alone, seconds_a_batch=0.1)
    assert max(by_table.values()) <= LOADS_OF_A_TABLE
    assert loads > 0.98 * STAGING_TABLES * LOADS_OF_A_TABLE


def test_without_pacing_a_day_would_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pacer, "spend", lambda *_: 0.0)
    loads, by_table, _, _ = a_day(100, allowance=DEFAULT)
    assert loads * 20 > LOADS_OF_A_PROJECT
    assert max(by_table.values()) > LOADS_OF_A_TABLE


def test_many_tables_in_each_batch_cost_many_loads() -> None:
    loads, _, _, late = a_day(1_000, allowance=DEFAULT, tables=10)
    assert loads * 20 <= LOADS_OF_A_PROJECT
    assert late < 400


def test_a_batch_must_be_as_large_as_what_comes_until_the_next_one() -> None:
    # A unit of twenty has 5,000 loads a day, 120 of them for what comes at once.
    assert DEFAULT.loads_a_day == 4_880
    assert DEFAULT.pause == pytest.approx(17.7, abs=0.1)
    assert DEFAULT.rows_a_batch(1_000) == pytest.approx(17_705, abs=1)
    assert DEFAULT.rows_a_batch(1_000, tables=10) == pytest.approx(177_050, abs=10)


def test_a_load_holds_what_its_source_gives_at_once_and_a_day_so_many_of_them() -> None:
    """Sources end a batch at four megabytes, so that their memory is bounded (guarantee 9)."""
    batch = 4 << 20
    assert DEFAULT.loads_a_day * batch / DAY == pytest.approx(237_000, rel=0.01)
    wide = Allowance.of(staging_tables=64, loads_per_day=100_000, units=1)
    assert wide.loads_a_day * batch / DAY == pytest.approx(4_650_000, rel=0.01)
    rows = batch // 240  # bytes of a row
    assert a_day(900, allowance=DEFAULT, most_rows=rows)[3] < 120
    assert a_day(1_200, allowance=DEFAULT, most_rows=rows)[3] > 3_600
    assert a_day(4_000, allowance=wide, most_rows=rows, seconds_a_batch=2.0)[3] < 120


def test_after_a_quiet_time_what_comes_at_once_does_not_wait() -> None:
    pacer = Pacer(DEFAULT, 0.0)
    assert sum(pacer.spend(1, 0.0) for _ in range(120)) == 0.0
    assert pacer.spend(1, 0.0) == pytest.approx(DEFAULT.pause)
    assert pacer.spend(1, DAY) == 0.0
