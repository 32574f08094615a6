"""Guarantees 5, 7 and 8 for MySQL and MariaDB: however snapshot, stream, crashes and changes of
owner interleave, the destination ends up equal to the source.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from handover_sites import AtPostgres
from handover_trial import Outcome, Setting, varied
from mysql_trial import MysqlTrial

from warp.sources.mysql import snapshot
from warp.sources.mysql.position import Place
from warp.sources.mysql.reading import Reader

FIRST_SEED = int(os.environ.get("CARTRIDGE_WARP_SEED", "1"))
TRIALS = int(os.environ.get("CARTRIDGE_WARP_TRIALS", "10"))
TWIN_TRIALS = 6

Run = Callable[[Setting], Outcome]


@pytest.fixture
def run(mariadb: Any, postgres: Any) -> Run:
    return lambda setting: MysqlTrial(mariadb.url, AtPostgres(postgres.url), setting).run()


def trials(run: Run, count: int) -> Counter[str]:
    totals: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        outcome = run(Setting.drawn(seed))
        assert outcome.wrong == [], str(outcome)
        totals.update(outcome.counts)
    return totals


@pytest.mark.timeout(600)
@pytest.mark.holds(
    guarantee=(5, 7, 8), source="mariadb", destination="postgresql", fault="hand-over"
)
def test_both_sides_are_equal_when_all_has_settled(run: Run) -> None:
    totals = trials(run, TRIALS)
    if TRIALS >= 10:  # else a trial could pass because nothing happened in it
        for happened in ("Crashed", "refused", "replays", "transaction", "move"):
            assert totals[happened] > 0, totals


@pytest.mark.soak
def test_both_sides_are_equal_in_hundreds_of_trials(run: Run) -> None:
    trials(run, max(TRIALS, 300))


def test_with_a_version_taken_after_the_view_changes_are_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after(reader: Reader, closed: threading.Event, earlier: Place | None = None) -> Place:
        reader.one("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        closed.wait(0.1)
        return snapshot.read_place(reader)

    monkeypatch.setattr(snapshot, "open_view", after)
    seeds = range(FIRST_SEED, FIRST_SEED + TWIN_TRIALS)
    assert any(
        run(varied(seed, changes=120, documents=400, late=0.0, structural=0.0)).wrong
        for seed in seeds
    )
