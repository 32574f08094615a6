"""`auto` batch sizes: the number that is decided, and that sources and workers go by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from config_fakes import fake_connectors  # noqa: F401  a fixture
from hypothesis import given
from hypothesis import strategies as st
from memory_shop import ORDERS, Shop

from warp import autosize
from warp.autosize import LEAST, USUAL, AutoSized, next_size
from warp.config import load
from warp.leases.memory import MemoryLeaseStore
from warp.metrics import Meters
from warp.model import (
    ChangeBatch,
    Chunk,
    TableId,
    TableSelection,
    TableSettings,
    UnitKind,
    WorkUnit,
    Written,
)
from warp.testing.memory import MemoryDestination
from workers.hold import Held
from workers.worker import Pace, Turn

SIZES = ("stream_batch_size", "full_load_batch_size", "write_batch_size")
USERS = TableId("shop", "users")
PROMPT, BACKLOG, MOST = USUAL.prompt_seconds, USUAL.backlog_seconds, USUAL.most_rows


# ---------------------------------------------------------------- the number


@given(
    size=st.integers(LEAST, MOST),
    rows=st.integers(0, 5 * MOST),
    seconds=st.floats(0, 100),
    backlog=st.booleans(),
)
def test_a_size_stays_in_its_bounds_and_moves_by_one_step_in_the_right_direction(
    size: int, rows: int, seconds: float, backlog: bool
) -> None:
    after = next_size(size, rows, seconds, backlog=backlog)
    assert LEAST <= after <= MOST
    assert size // 2 <= after <= 2 * size or after == LEAST
    if after > size:
        assert backlog
        assert seconds <= BACKLOG
    if after < size:
        assert seconds > (BACKLOG if backlog else PROMPT)


@given(
    start=st.integers(LEAST, MOST),
    fixed=st.floats(0.0, 0.02),
    per_row=st.floats(1e-7, 1e-3),
)
def test_under_a_backlog_it_settles_where_a_transaction_takes_as_long_as_it_may(
    start: int, fixed: float, per_row: float
) -> None:
    size = start
    for _ in range(40):
        size = next_size(size, size, fixed + size * per_row, backlog=True)
    taken = fixed + size * per_row
    assert taken <= BACKLOG * 1.01 or size == LEAST
    assert taken >= BACKLOG * 0.9 or size == MOST


def test_where_a_transaction_is_dear_the_first_batch_is_as_large_as_is_best() -> None:
    def select(table: TableId) -> TableSettings:
        return TableSettings(table, table, "shop", auto_sizes=SIZES)

    dear = replace(USUAL, sizes_batches=True, best_batch_rows=50_000, most_rows=200_000)
    for kind in (UnitKind.STREAM, UnitKind.CHUNK, UnitKind.POLL):
        sized = AutoSized(select, kind)
        assert sized(USERS).write_batch_size < 50_000  # type: ignore[union-attr]
        sized.traits = dear
        assert sized(USERS).write_batch_size == 50_000  # type: ignore[union-attr]


def test_a_burst_after_a_slow_one_comes_in_smaller_transactions() -> None:
    size = 4_000
    while (seconds := size * 50e-6) > PROMPT:
        size = next_size(size, size - 1, seconds, backlog=False)
    assert size * 50e-6 <= PROMPT
    assert size == 1_000
    # A transaction that is slow for another reason than its rows does not end at nothing.
    assert next_size(size, 1, 60.0, backlog=False) == size // 2


def test_a_quiet_table_s_few_rows_say_nothing_of_many() -> None:
    assert next_size(5_000, 1, 0.004, backlog=False) == 5_000


# ---------------------------------------------------------------- what it is asked for


def settings_of(**more: Any) -> TableSelection:
    return lambda table: TableSettings(table, table, "shop", **more)


def test_only_auto_sizes_follow_the_load_and_the_others_stay_as_written() -> None:
    sized = AutoSized(
        settings_of(write_batch_size=250, auto_sizes=("stream_batch_size",)), UnitKind.STREAM
    )
    assert sized(ORDERS) == settings_of(
        write_batch_size=250, stream_batch_size=500, auto_sizes=("stream_batch_size",)
    )(ORDERS)
    sized.committed(500, 0.01)
    found = sized(ORDERS)
    assert found is not None
    assert (found.stream_batch_size, found.write_batch_size) == (1_000, 250)


def test_a_selection_without_auto_is_passed_on_as_it_is() -> None:
    plain = settings_of()(ORDERS)
    sized = AutoSized(lambda table: plain if table == ORDERS else None, UnitKind.STREAM)
    sized.committed(500, 0.01)
    assert sized(ORDERS) is plain
    assert sized(USERS) is None


def test_a_chunk_is_all_backlog_and_begins_with_the_snapshot_s_default() -> None:
    sized = AutoSized(settings_of(auto_sizes=SIZES), UnitKind.CHUNK)
    assert sized.size == 10_000
    sized.committed(2_000, 1.0)  # cut by its bytes: less than the size, and still a backlog
    assert sized.size == 5_000
    sized.committed(2_000, 0.1)
    assert sized.size == 10_000


# ---------------------------------------------------------------- as a worker runs it


class AutoShop(Shop):
    def selection(self, schema: str) -> TableSelection:
        return settings_of(auto_sizes=SIZES)


def transactions(rows: int, seconds: Callable[[int], float]) -> list[int]:
    """How many rows each transaction of a chunk had, where all sizes are `auto`; each takes as
    long as `seconds` says."""
    sizes: list[int] = []

    def count(destination: MemoryDestination) -> None:
        write = destination.write_batch

        def write_batch(batch: ChangeBatch, *arguments: Any, **more: Any) -> Written:
            sizes.append(len(batch))
            return replace(write(batch, *arguments, **more), seconds=seconds(len(batch)))

        destination.write_batch = write_batch  # type: ignore[method-assign]

    shop = AutoShop(destination_made=count)
    for number in range(rows):
        shop.database.put(ORDERS, id=number, name="x")
    ledger = MemoryLeaseStore()
    ledger.ensure([CHUNK])
    [lease] = ledger.claim("worker", 1, ttl=10.0, slots=1)
    held = Held(lease, ttl=10.0, asked_at=0.0, clock=lambda: 0.0)
    turn = Turn(ledger, shop, Meters(""), held, Pace(), {}, lambda: 0.0)
    assert turn.play(lambda unit: None).status == "done"
    assert len(shop.warehouse.rows(ORDERS)) == rows
    return sizes


CHUNK = WorkUnit.of_chunk("shop", Chunk(ORDERS, 0), 0)


@pytest.fixture
def small_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start = replace(autosize._DEFAULTS, full_load_batch_size=400)
    monkeypatch.setattr(autosize, "_DEFAULTS", start)


@pytest.mark.usefixtures("small_start")
def test_the_chunk_of_a_slow_destination_is_written_in_ever_smaller_transactions() -> None:
    sizes = transactions(1_600, lambda rows: rows / 100)
    assert sizes[0] == 400
    assert sizes[-2] < 400


@pytest.mark.usefixtures("small_start")
def test_that_notices_a_worker_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoSized, "committed", lambda *_: None)
    assert transactions(1_600, lambda rows: rows / 100)[-2] == 400


# ---------------------------------------------------------------- configuration


ENDS = {
    "source": {"type": "mongodb", "connection_string": "mongodb://h", "database": "shop"},
    "destination": {"type": "postgresql", "connection_string": "postgresql://h/w"},
}


@pytest.mark.usefixtures("fake_connectors")
@pytest.mark.parametrize("mode", ["stream", "batch"])
@pytest.mark.parametrize("level", ["global", "schema", "table"])
def test_batch_size_auto_makes_all_three_sizes_auto_at_every_level(
    mode: str, level: str, tmp_path: Any
) -> None:
    auto = {"batch_size": "auto"}
    schema: dict[str, Any] = {"name": "shop", "mode": mode}
    schema |= auto if level == "schema" else {}
    schema |= {"tables": {"orders": auto}} if level == "table" else {}
    found = resolved(tmp_path, {**ENDS, **(auto if level == "global" else {}), "schemas": [schema]})
    assert set(found.auto_sizes) == set(SIZES)
    defaults = TableSettings(ORDERS, ORDERS, "shop")
    assert all(getattr(found, name) == getattr(defaults, name) for name in SIZES)


@pytest.mark.usefixtures("fake_connectors")
@pytest.mark.parametrize("name", SIZES)
def test_the_nearest_level_says_whether_a_size_is_auto(name: str, tmp_path: Any) -> None:
    tree: dict[str, Any] = {**ENDS, name: "auto", "schemas": [{"name": "shop"}]}
    assert resolved(tmp_path, tree).auto_sizes == (name,)
    tree["schemas"] = [{"name": "shop", "tables": {"orders": {name: 7}}}]
    found = resolved(tmp_path, tree)
    assert (getattr(found, name), found.auto_sizes) == (7, ())
    tree = {**ENDS, name: 7, "schemas": [{"name": "shop", name: "Auto"}]}
    assert resolved(tmp_path, tree).auto_sizes == (name,)


def resolved(tmp_path: Any, tree: dict[str, Any]) -> TableSettings:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tree))
    found = load(path).resolve("shop", ["shop"])(ORDERS)
    assert found is not None
    return found
