"""What every source promises."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from warp import headroom
from warp.errors import SourceRefused
from warp.evolve import evolve
from warp.interfaces import (
    CutsRanges,
    EstimatesRows,
    SourceConnector,
)
from warp.model import (
    UNCHANGED,
    ChangeBatch,
    Edge,
    KeySpan,
    Operation,
    Position,
    TableChanges,
    Verdict,
)
from warp.testing.contracts.orders import (
    DELETE,
    ORDERS,
    READ,
    TRUNCATE,
    UPDATE,
    Event,
    select,
)


class _OneTable(ABC):
    """A source with one table, `shop.orders`, which is empty when a test starts."""

    @abstractmethod
    def make(self) -> SourceConnector:
        """A new connector, selecting as `select` does."""

    @abstractmethod
    def put(self, id: int, name: str) -> None:
        """Insert or update one row at the source, committed on return."""

    @abstractmethod
    def delete(self, id: int) -> None: ...

    # -- reading helpers

    def events(self, source: SourceConnector, batch: ChangeBatch) -> list[Event]:
        """(operation, version, id, name) of every row of a batch, as evolve shapes it."""
        known = source.get_schema([part.table for part in batch.changes])
        plan = evolve(batch, known, select)
        while plan.ddl:
            known |= {c.table: c.schema for c in plan.ddl if c.schema is not None}
            plan = evolve(batch, known, select)
        found: list[Event] = []
        for part in plan.batch.changes:
            if part.schema is None:
                raise AssertionError("an evolved part has a schema")
            names = [c.source for c in part.schema.columns]
            key = names.index(part.schema.column(part.schema.key[0]).source)  # type: ignore[union-attr]
            name = names.index("name") if "name" in names else None
            for code, version, row in zip(part.operations, part.versions, part.rows(), strict=True):
                value = None if name is None else row[name]
                found.append((Operation(code), version, row[key], value))
        return found

    def follow(self, position: Position, count: int) -> list[tuple[Event, Position]]:
        """The next `count` events after a position, each with the end of its batch."""
        source = self.make()
        found: list[tuple[Event, Position]] = []
        try:
            for batch in self._changes(source, position):
                found += [(event, batch.end) for event in self.events(source, batch)]
                if len(found) >= count:
                    return found
        finally:
            source.close()
        raise AssertionError("the stream ended")

    def _changes(self, source: SourceConnector, position: Position) -> Iterator[ChangeBatch]:
        return source.get_changes(position, selection=select, idle=0.05)

    def snapshot(self, rows: int = 10) -> list[Event]:
        source = self.make()
        found: list[Event] = []
        for chunk in source.chunks(ORDERS, rows):
            for batch in source.get_full_snapshot(chunk):
                found += self.events(source, batch)
        source.close()
        return found


class RowsContract(_OneTable):
    """What every source promises of its tables and chunks, with a log or without."""

    def test_the_table_is_listed_with_its_key(self) -> None:
        self.put(1, "a")
        source = self.make()
        source.check()
        assert not [one for one in source.diagnose() if one.verdict is Verdict.FAILED]
        assert source.tables() == [ORDERS]
        schema = source.get_schema([ORDERS])[ORDERS]
        assert len(schema.key) == 1
        source.close()

    def test_about_how_many_rows_there_are_is_told_where_a_source_knows(self) -> None:
        self.put(1, "a")
        source = self.make()
        if source.traits.estimates:
            found = cast(EstimatesRows, source).rows_about([ORDERS])
            assert [table for table in found if found[table] >= 0] == [ORDERS]
        source.close()

    def test_the_chunks_hold_every_row_once(self) -> None:
        for id in range(100):
            self.put(id, f"n{id}")
        found = self.snapshot(rows=10)
        assert sorted(e[2] for e in found) == list(range(100))
        assert {e[0] for e in found} == {READ}

    def test_an_empty_table_has_a_chunk_that_yields_a_batch(self) -> None:
        self.put(1, "a")
        self.delete(1)
        source = self.make()
        chunks = source.chunks(ORDERS, 10)
        assert chunks
        for chunk in chunks:
            assert [len(b) for b in source.get_full_snapshot(chunk)] == [0]
        source.close()

    def test_a_chunk_s_batches_are_as_large_as_the_selection_says_by_then(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for id in range(30):
            self.put(id, f"n{id}")
        source = self.make()
        [chunk] = source.chunks(ORDERS, 100)
        sizes: list[int] = []
        for batch in source.get_full_snapshot(chunk):
            sizes.append(len(batch))
            monkeypatch.setattr("warp.testing.contracts.orders.SNAPSHOT_ROWS", 3)
        assert sizes[0] == 7
        assert max(sizes[1:]) == 3
        assert sum(sizes) == 30
        source.close()

    def test_rows_are_looked_up_by_key_as_they_are_now(self) -> None:
        for id, name in enumerate(["a", "b", "c", "d"]):
            self.put(id, name)
        self.put(1, "changed")
        self.delete(2)
        source = self.make()
        schema = source.get_schema([ORDERS])[ORDERS]
        keys: list[list[Any]] = [
            [1, 2, 0, 9] if c.name in schema.key else [UNCHANGED] * 4 for c in schema.columns
        ]
        asked = TableChanges(ORDERS, bytearray([UPDATE]) * 4, [1] * 4, schema, keys)
        if source.traits.full_rows and not source.traits.compares:
            with pytest.raises(SourceRefused):
                source.look_up(asked)
        else:
            batch = ChangeBatch([source.look_up(asked)], Position("now"))
            found = self.events(source, batch)
            assert sorted((e[0], e[2], e[3]) for e in found) == [
                (READ, 0, "a"),
                (READ, 1, "changed"),
            ]
        source.close()

    def test_a_chunk_is_read_at_one_version_no_older_than_the_source_says(self) -> None:
        self.put(1, "a")
        self.put(2, "b")
        source = self.make()
        before = source.version()
        source.close()
        [version] = {event[1] for event in self.snapshot(rows=100)}
        assert version >= before


class SourceContract(RowsContract):
    """What every source promises that has a log to follow."""

    def test_a_chunk_is_read_at_one_version_at_or_after_the_changes_it_holds(self) -> None:
        start = self.position()
        self.put(1, "a")
        self.put(2, "b")
        changed = max(event[1] for event, _ in self.follow(start, 2))
        versions = {event[1] for event in self.snapshot(rows=100)}
        assert len(versions) == 1
        assert min(versions) >= changed

    def test_a_stream_carries_what_came_after_its_position_in_order(self) -> None:
        self.put(1, "before")
        start = self.position()
        self.put(1, "a")
        self.put(2, "b")
        self.put(1, "c")
        self.delete(2)
        events = [event for event, _ in self.follow(start, 4)]
        assert [e[2] for e in events] == [1, 2, 1, 2]
        assert events[2][3] == "c"  # the first update may already show a later value
        assert events[3][0] == DELETE
        assert [e[1] for e in events] == sorted(e[1] for e in events)

    def test_a_stream_s_batches_are_as_large_as_the_selection_says_by_then(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("warp.testing.contracts.orders.STREAM_ROWS", 4)
        start = self.position()
        for id in range(40):
            self.put(id, f"n{id}")
        source = self.make()
        sizes: list[int] = []
        for batch in self._changes(source, start):
            if not len(batch):  # an idle one may come before a busy server has answered
                continue
            sizes.append(len(batch))
            monkeypatch.setattr("warp.testing.contracts.orders.STREAM_ROWS", 8)
            if sum(sizes) >= 40:
                break
        source.close()
        assert sizes[0] == 4
        assert max(sizes) == 8

    def test_resuming_at_any_batch_end_loses_nothing(self) -> None:
        start = self.position()
        for id in range(20):
            self.put(id, f"n{id}")
        whole = self.follow(start, 20)
        for index, (_, end) in enumerate(whole):
            rest = [e for e, other in whole[index + 1 :] if other != end]
            if rest:
                again = [event for event, _ in self.follow(end, len(rest))]
                assert [e[2] for e in again] == [e[2] for e in rest]

    def test_an_idle_stream_yields_empty_batches_whose_end_never_moves_back(self) -> None:
        self.put(1, "a")
        source = self.make()
        start = source.position()
        ends = [batch.end for batch in itertools.islice(self._changes(source, start), 3)]
        assert all(source.reached(later, earlier) for earlier, later in itertools.pairwise(ends))
        source.close()

    def test_a_position_is_reached_when_its_changes_were_delivered(self) -> None:
        start = self.position()
        self.put(1, "a")
        goal = self.position()
        source = self.make()
        assert not source.reached(start, goal)
        for batch in self._changes(source, start):
            if source.reached(batch.end, goal):
                break
        source.close()

    def test_a_place_at_the_log_s_end_is_kept_where_a_source_can_tell(self) -> None:
        source = self.make()
        found = headroom.ask(source, source.position())
        source.close()
        if not source.traits.headroom:
            assert found is None
            return
        assert found is not None
        assert (found.lost, found.ratio) == (False, 1.0)
        assert found.told

    def test_a_range_of_keys_is_cut_into_chunks_where_a_source_can_do_that(self) -> None:
        for id in range(50):
            self.put(id, f"n{id}")
        source = self.make()
        schema = source.get_schema([ORDERS])[ORDERS]
        key = tuple(c.source for c in schema.columns if c.name in schema.key)

        def read(lower: Edge | None, upper: Edge | None) -> tuple[list[Any], int]:
            within = KeySpan(key, lower, upper)
            chunks = cast(CutsRanges, source).chunks_within(ORDERS, within, 4)
            batches = [b for chunk in chunks for b in source.get_full_snapshot(chunk)]
            return [e[2] for b in batches for e in self.events(source, b)], len(chunks)

        if source.traits.ranges:
            ten, twenty = Edge(("10",), inclusive=True), Edge(("20",), inclusive=False)
            assert read(ten, twenty) == (list(range(10, 20)), 3)
            after, until = Edge(("10",), inclusive=False), Edge(("20",), inclusive=True)
            assert read(after, until)[0] == list(range(11, 21))
            assert read(Edge(("47",), inclusive=False), None)[0] == [48, 49]
            assert read(None, Edge(("1",), inclusive=True))[0] == [0, 1]
            assert read(Edge(("50",), inclusive=True), None)[0] == []
            assert read(twenty, ten)[0] == []
        source.close()

    def position(self) -> Position:
        source = self.make()
        position = source.position()
        source.close()
        return position


class PollContract(_OneTable):
    """What every source promises that is polled, by whatever strategy."""

    sees_deletes: bool  # does the strategy?

    # -- reading helpers

    def run(self, position: Position | None) -> Iterator[tuple[list[Event], Position]]:
        """The batches of one run, each as its events and its end."""
        source = self.make()
        try:
            for batch in source.poll(ORDERS, position, fire_time=1_000.0):
                yield self.events(source, batch), batch.end
        finally:
            source.close()

    def start(self) -> Position:
        source = self.make()
        found = source.poll_start(ORDERS, fire_time=999.0)
        source.close()
        return found

    # -- promises

    def test_a_first_run_finds_every_row(self) -> None:
        for id in range(20):
            self.put(id, f"n{id}")
        copy = _Copy()
        copy.follow(self.run(None))
        assert copy.rows() == {n: f"n{n}" for n in range(20)}

    def test_a_run_from_the_start_of_a_snapshot_finds_what_changed_since(self) -> None:
        self.put(1, "before")
        start = self.start()
        self.put(1, "changed")
        self.put(2, "new")
        copy = _Copy()
        copy.follow(self.run(start))
        assert copy.rows() == {1: "changed", 2: "new"}

    def test_runs_keep_a_copy_equal(self) -> None:
        copy = _Copy()
        position: Position | None = None
        truth: dict[int, str] = {}
        for number in range(3):
            for id in range(number, number + 4):
                truth[id] = f"{id} of {number}"
                self.put(id, truth[id])
            if self.sees_deletes and number:
                del truth[number]
                self.delete(number)
            position = copy.follow(self.run(position))
            assert copy.rows() == truth

    def test_a_run_cut_short_after_any_batch_goes_on_and_loses_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("warp.testing.contracts.orders.STREAM_ROWS", 3)
        for id in range(5):
            self.put(id, f"n{id}")
        batches = len(list(self.run(None)))
        assert batches > 2
        for cut in range(1, batches):
            copy = _Copy()
            position = copy.follow(itertools.islice(self.run(None), cut))
            copy.follow(self.run(position))
            assert copy.rows() == {n: f"n{n}" for n in range(5)}

    def test_versions_never_fall_from_run_to_run(self) -> None:
        last, position = 0, None
        for number in range(2):
            self.put(1, f"n{number}")
            copy = _Copy()
            position = copy.follow(self.run(position))
            assert copy.versions[1] >= last
            last = copy.versions[1]


class _Copy:
    """What a destination makes of events: the version of each row is kept, and none goes back."""

    def __init__(self) -> None:
        self.names: dict[int, Any] = {}
        self.versions: dict[int, int] = {}

    def rows(self) -> dict[int, Any]:
        return self.names

    def follow(self, batches: Iterable[tuple[list[Event], Position]]) -> Position:
        """Apply them; the end of the last."""
        end: Position | None = None
        for events, reached in batches:
            for event in events:
                self._apply(*event)
            end = reached
        if end is None:
            raise AssertionError("a run yields at least one batch")
        return end

    def _apply(self, operation: Operation, version: int, id: int, name: Any) -> None:
        if operation == TRUNCATE:
            for key in [key for key, at in self.versions.items() if at <= version]:
                del self.names[key], self.versions[key]
        elif operation == DELETE:
            self.names.pop(id, None)
            self.versions.pop(id, None)
        elif self.versions.get(id, version) <= version:
            self.names[id], self.versions[id] = name, version
