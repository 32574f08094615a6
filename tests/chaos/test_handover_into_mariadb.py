"""Guarantees 2, 5, 7 and 8 with MariaDB as the destination: the same trials of the hand-over, and
the twins of the guards that its own statements hold.  By `make soak`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from handover_sites import AtMariaDb
from handover_trial import Outcome, Setting, Trial, varied
from mysql_trial import MysqlTrial

from warp.destinations.mysql import merge

FIRST_SEED = int(os.environ.get("CARTRIDGE_WARP_SEED", "1"))
TRIALS = int(os.environ.get("CARTRIDGE_WARP_TRIALS", "30"))
TWIN_TRIALS = 24  # the first wrong one ends it
TO_THE_END = 10_000  # rows: a chunk so late is written when the stream has nothing more to write

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3_600)]

Run = Callable[[Setting], Outcome]


@pytest.fixture
def from_mongodb(mongo: Any, mariadb: Any) -> Run:
    return lambda setting: Trial(mongo.url, AtMariaDb(mariadb.url), setting).run()


@pytest.fixture
def from_mariadb(mariadb: Any) -> Run:
    return lambda setting: MysqlTrial(mariadb.url, AtMariaDb(mariadb.url), setting).run()


def trials(run: Run, *happened: str) -> None:
    totals: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + TRIALS):
        outcome = run(Setting.drawn(seed))
        assert outcome.wrong == [], str(outcome)
        totals.update(outcome.counts)
    if TRIALS >= 30:  # else a trial could pass because nothing happened in it
        for what in ("Crashed", "refused", "replays", "chunk zombie", "stream zombie", *happened):
            assert totals[what] > 0, totals


@pytest.mark.holds(
    guarantee=(2, 5, 7, 8), source="mongodb", destination="mariadb", fault="hand-over"
)
@pytest.mark.holds(guarantee=5, source="mongodb", destination="mariadb", fault="drop and rename")
def test_both_sides_are_equal_when_all_has_settled_from_mongodb(from_mongodb: Run) -> None:
    trials(from_mongodb, "transaction", "drop", "rename_over", "rename_away")


@pytest.mark.holds(
    guarantee=(2, 5, 7, 8), source="mariadb", destination="mariadb", fault="hand-over"
)
@pytest.mark.holds(guarantee=5, source="mariadb", destination="mariadb", fault="drop and rename")
def test_both_sides_are_equal_when_all_has_settled_from_mariadb(from_mariadb: Run) -> None:
    trials(from_mariadb, "transaction", "move", "truncate", "rename_over")


# -- broken twins


def found_wrong(run: Run, **setting: Any) -> bool:
    """Does one of a few trials end wrong?"""
    seeds = range(FIRST_SEED, FIRST_SEED + TWIN_TRIALS)
    return any(run(varied(seed, **setting)).wrong for seed in seeds)


def rewrite(monkeypatch: pytest.MonkeyPatch, old: str, new: str, *, reads: bool) -> None:
    """Replace a piece of the statements that land rows of chunks, or those of the stream."""
    original = merge.upsert

    def changed(landing: Any, **arguments: Any) -> list[str]:
        steps = original(landing, **arguments)
        if arguments["reads"] != reads:
            return steps
        assert any(old in step for step in steps), steps
        return [step.replace(old, new) for step in steps]

    monkeypatch.setattr(merge, "upsert", changed)


def test_without_the_guard_of_chunk_rows_a_late_chunk_brings_back_old_values(
    from_mongodb: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, "d.`_cw_version` < ", "-1 < ", reads=True)
    assert found_wrong(from_mongodb, late=0.8, lag=TO_THE_END)


def test_with_a_strict_guard_the_changes_of_one_transaction_overtake_each_other(
    from_mongodb: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, "d.`_cw_version` <= ", "d.`_cw_version` < ", reads=False)
    assert found_wrong(from_mongodb, transactions=0.8, write_rows=2, late=0.1)


def test_with_plain_deletes_a_late_chunk_brings_back_deleted_rows(
    from_mongodb: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = merge.delete

    def plain(landing: Any, **arguments: Any) -> list[str]:
        return original(landing, **{**arguments, "settled": True})

    monkeypatch.setattr(merge, "delete", plain)
    assert found_wrong(from_mongodb, late=0.8, lag=TO_THE_END)


def test_without_the_truncation_barrier_a_late_chunk_brings_back_a_dropped_collection(
    from_mongodb: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, "> %(after)s", "> -1", reads=True)
    assert found_wrong(from_mongodb, late=0.8, lag=TO_THE_END, structural=0.03, drops_only=True)
