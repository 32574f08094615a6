"""Guarantees 2, 5, 7 and 8: however snapshot, stream, crashes and changes of owner interleave,
the destination ends up equal to the source.

Each guard of the protocol has a twin here: without it, trials end wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from handover_sites import AtPostgres
from handover_trial import Outcome, Setting, Trial, varied

from warp.destinations.postgresql import merge

FIRST_SEED = int(os.environ.get("CARTRIDGE_WARP_SEED", "1"))
TRIALS = int(os.environ.get("CARTRIDGE_WARP_TRIALS", "30"))
TWIN_TRIALS = 24  # the first wrong one ends it; on a busy machine luck may take a while
TO_THE_END = 10_000  # rows: a chunk so late is written when the stream has nothing more to write

Run = Callable[[Setting], Outcome]


@pytest.fixture
def run(mongo: Any, postgres: Any) -> Run:
    return lambda setting: Trial(mongo.url, AtPostgres(postgres.url), setting).run()


def trials(run: Run, count: int) -> Counter[str]:
    """Run them one after the other; the first wrong one ends it, with the seed to run it again."""
    totals: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        outcome = run(Setting.drawn(seed))
        assert outcome.wrong == [], str(outcome)
        totals.update(outcome.counts)
    return totals


@pytest.mark.timeout(600)
@pytest.mark.holds(
    guarantee=(2, 5, 7, 8), source="mongodb", destination="postgresql", fault="hand-over"
)
@pytest.mark.holds(guarantee=5, source="mongodb", destination="postgresql", fault="drop and rename")
def test_both_sides_are_equal_when_all_has_settled(run: Run) -> None:
    totals = trials(run, TRIALS)
    if TRIALS >= 30:  # else a trial could pass because nothing happened in it
        for happened in ("Crashed", "refused", "replays", "chunk zombie", "stream zombie"):
            assert totals[happened] > 0, totals
        for happened in ("transaction", "drop", "rename_over", "rename_away"):
            assert totals[happened] > 0, totals


@pytest.mark.soak
def test_both_sides_are_equal_in_thousands_of_trials(run: Run) -> None:
    trials(run, max(TRIALS, 1000))


# -- broken twins


def found_wrong(run: Run, **setting: Any) -> bool:
    """Does one of a few trials end wrong?"""
    for seed in range(FIRST_SEED, FIRST_SEED + TWIN_TRIALS):
        if run(varied(seed, **setting)).wrong:
            return True
    return False


def rewrite(
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    old: str,
    new: str,
    when: Callable[..., bool] = lambda **_: True,
) -> None:
    """Replace a piece of SQL in every statement that `merge` composes under this name."""
    original = getattr(merge, statement)

    def changed(landing: Any, **arguments: Any) -> list[bytes]:
        steps: list[bytes] = original(landing, **arguments)
        if not when(**arguments):
            return steps
        if not any(old.encode() in step for step in steps):
            raise AssertionError(f"the guarded piece {old!r} is not in {steps}")
        return [step.replace(old.encode(), new.encode()) for step in steps]

    monkeypatch.setattr(merge, statement, changed)


OLDER = ' where d."_cw_version" < excluded."_cw_version"'
NOT_NEWER = 'd."_cw_version" <= excluded."_cw_version"'


def test_without_the_guard_of_chunk_rows_a_late_chunk_brings_back_old_values(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, "upsert", OLDER, "", when=lambda reads, **_: reads)
    assert found_wrong(run, late=0.8, lag=TO_THE_END)


def test_with_plain_deletes_a_late_chunk_brings_back_deleted_rows(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = merge.delete

    def plain(landing: Any, **arguments: Any) -> list[bytes]:
        return original(landing, **{**arguments, "settled": True})

    monkeypatch.setattr(merge, "delete", plain)
    assert found_wrong(run, late=0.8, lag=TO_THE_END)


def test_with_a_strict_guard_the_changes_of_one_transaction_overtake_each_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # They share a cluster time, and a batch may end between them.
    rewrite(
        monkeypatch,
        "upsert",
        NOT_NEWER,
        NOT_NEWER.replace("<=", "<"),
        when=lambda reads, **_: not reads,
    )
    assert found_wrong(run, transactions=0.8, write_rows=2, late=0.1)


def test_with_a_position_taken_after_a_chunk_was_read_changes_are_lost(run: Run) -> None:
    assert found_wrong(run, position_late=True)


def test_without_the_truncation_barrier_a_late_chunk_brings_back_a_dropped_collection(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(monkeypatch, "upsert", "> %(after)s", "> -1", when=lambda reads, **_: reads)
    assert found_wrong(run, late=0.8, lag=TO_THE_END, structural=0.03, drops_only=True)
