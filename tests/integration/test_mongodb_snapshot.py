"""Chunks and polls of MongoDB against a real server: every id of every type, once, at one time."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from pymongo.database import Database
from pymongo.errors import OperationFailure

from warp.errors import SourceUnavailable
from warp.model import Chunk, Kind, Operation, Position, TableId, TableSettings
from warp.sources.mongodb import MongoOptions, MongoSource, snapshot
from warp.sources.mongodb.cursor import RawCursor, Reply


@dataclass
class Selection:
    namespace: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace:
            return None
        return TableSettings(table, table, self.namespace, **self.settings)


@pytest.fixture
def connect(mongo: Any, mongo_database: Database[Any]) -> Iterator[Callable[..., MongoSource]]:
    opened: list[MongoSource] = []

    def connect(**settings: Any) -> MongoSource:
        options = MongoOptions.model_validate({"connection_string": mongo.url})
        opened.append(MongoSource(options, Selection(mongo_database.name, settings)))
        return opened[-1]

    yield connect
    for source in opened:
        source.close()


Connect = Callable[..., MongoSource]


def rows_of(source: MongoSource, chunk: Chunk) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for batch in source.get_full_snapshot(chunk):
        for part in batch.changes:
            assert set(part.operations) == {Operation.READ}
            assert part.documents is not None
            documents = part.documents.documents()  # type: ignore[attr-defined]
            found += list(zip(part.versions, documents, strict=True))
    return found


def ids_of_every_type(chance: random.Random, count: int) -> list[Any]:
    makers: list[Callable[[int], Any]] = [
        lambda n: n,
        lambda n: Int64(n + 2**40),
        lambda n: n + 0.5,
        lambda n: Decimal128(f"{n}.25"),
        lambda n: f"s{n}",
        lambda n: ObjectId(b"%012d" % n),
        lambda n: Binary(b"%d" % n, chance.choice([0, 4, 5, 128])),
        lambda n: Binary(b"%016d" % n, 4),
        lambda n: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=n),
        lambda n: DatetimeMS(2**60 + n),
        lambda n: {"a": n, "b": None},
        lambda n: {"b": None, "a": n},
        lambda n: Timestamp(n, 1),
        lambda n: Code(f"f{n}"),
    ]
    ids = [makers[n % len(makers)](n) for n in range(count)]
    return [*ids, None, True, False, float("nan"), float("inf"), "", {}]


def test_chunks_cover_ids_of_every_type_once(connect: Connect, mongo_database: Any) -> None:
    ids = ids_of_every_type(random.Random(1), 700)
    mongo_database.a.insert_many([{"_id": id, "n": n} for n, id in enumerate(ids)])
    source = connect(full_load_batch_size=37)
    table = TableId(mongo_database.name, "a")
    chunks = source.chunks(table, 50)
    assert len(chunks) > 10
    assert [c.number for c in chunks] == list(range(len(chunks)))
    found = [row["n"] for chunk in chunks for _, row in rows_of(source, chunk)]
    assert sorted(found) == list(range(len(ids)))


def test_ranges_by_comparison_would_lose_ids_of_other_types(
    connect: Connect, mongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: `_id > x` in place of the index bounds."""
    run = RawCursor._run

    def compared(self: RawCursor, command: dict[str, Any]) -> bytes:
        if "find" in command and "hint" in command:
            bounds = {}
            if "min" in command:
                bounds["$gte"] = command["min"]["_id"]
            if "max" in command:
                bounds["$lt"] = command["max"]["_id"]
            command = {k: v for k, v in command.items() if k not in ("min", "max")}
            command["filter"] = {"_id": bounds} if bounds else {}
        return run(self, command)

    monkeypatch.setattr(RawCursor, "_run", compared)
    with pytest.raises(AssertionError):
        test_chunks_cover_ids_of_every_type_once(connect, mongo_database)


def test_a_chunk_is_one_moment_whatever_happens_while_it_is_read(
    connect: Connect, mongo_database: Any
) -> None:
    mongo_database.a.insert_many([{"_id": n, "v": 0} for n in range(300)])
    source = connect(full_load_batch_size=10)
    [chunk] = source.chunks(TableId(mongo_database.name, "a"), 1000)
    found: list[tuple[int, dict[str, Any]]] = []
    for number, batch in enumerate(source.get_full_snapshot(chunk)):
        mongo_database.a.update_many({}, {"$set": {"v": number + 1}})
        mongo_database.a.insert_one({"_id": 1000 + number, "v": 0})
        for part in batch.changes:
            documents = part.documents.documents()  # type: ignore[union-attr]
            found += list(zip(part.versions, documents, strict=True))
    assert [row["_id"] for _, row in found] == list(range(300))
    assert {row["v"] for _, row in found} == {0}
    assert len({version for version, _ in found}) == 1


def failing(
    monkeypatch: pytest.MonkeyPatch, *, after: int, error: Exception, times: int = 1
) -> None:
    """The read after `after` successful ones of a snapshot fails, `times` times."""
    read = RawCursor.read
    state = {"read": 0, "failed": 0}

    def broken(self: RawCursor, batch_size: int, wait_ms: int | None = None) -> Reply:
        if "readConcern" in self._command:
            if state["read"] >= after and state["failed"] < times:
                state["failed"] += 1
                raise error
            state["read"] += 1
        return read(self, batch_size, wait_ms)

    monkeypatch.setattr(RawCursor, "read", broken)


@pytest.mark.parametrize("code", [239, 246, 43, 175, 11602])
def test_a_read_that_lost_its_moment_goes_on_from_where_it_was(
    connect: Connect, mongo_database: Any, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    mongo_database.a.insert_many([{"_id": n} for n in range(100)])
    source = connect(full_load_batch_size=10)
    [chunk] = source.chunks(TableId(mongo_database.name, "a"), 1000)
    failing(monkeypatch, after=4, error=OperationFailure("as told", code))
    found = rows_of(source, chunk)
    assert [row["_id"] for _, row in found] == [*range(40), *range(39, 100)]  # 39 twice: harmless
    versions = [version for version, _ in found]
    assert versions == sorted(versions)


def test_a_read_that_never_comes_to_anything_is_reported(
    connect: Connect, mongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongo_database.a.insert_one({"_id": 1})
    source = connect()
    [chunk] = source.chunks(TableId(mongo_database.name, "a"), 1000)
    failing(monkeypatch, after=0, error=OperationFailure("too old", 239), times=100)
    with pytest.raises(SourceUnavailable):
        rows_of(source, chunk)


def test_a_moment_that_the_server_no_longer_keeps_is_read_again_for_real(
    connect: Connect, mongo_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongo_database.a.insert_one({"_id": 1})
    source = connect()
    table = TableId(mongo_database.name, "a")
    asked: list[Timestamp] = []
    now = source._now

    def first_too_early() -> Timestamp:
        moment = now()
        asked.append(moment)
        return Timestamp(moment.time - 4000, 1) if len(asked) == 1 else moment

    parts = snapshot.read(
        source._client[table.namespace],
        Chunk(table, 0),
        lambda: 10,
        now=first_too_early,
        closed=source._closed,
    )
    assert sum(len(documents) for _, documents in parts) == 1
    assert len(asked) == 2


@pytest.mark.holds(guarantee=9, source="mongodb", destination="pretended", fault="large data")
def test_large_documents_come_in_bounded_batches(connect: Connect, mongo_database: Any) -> None:
    for n in range(30):
        mongo_database.a.insert_one({"_id": n, "v": "x" * 2_000_000})
    source = connect()
    [chunk] = source.chunks(TableId(mongo_database.name, "a"), 1000)
    sizes = [len(b) for b in source.get_full_snapshot(chunk)]
    assert sum(sizes) == 30
    assert max(sizes) * 2_000_000 <= 24 << 20


def test_views_and_time_series_are_left_out_and_named(
    connect: Connect, mongo_database: Any, caplog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mongo_database.a.insert_one({"_id": 1})
    mongo_database.command({"create": "a_view", "viewOn": "a", "pipeline": []})
    mongo_database.create_collection("series", timeseries={"timeField": "t"})
    source = connect()
    assert source.tables() == [TableId(mongo_database.name, "a")]
    said = capsys.readouterr().out + caplog.text
    assert "a_view" in said
    assert "series" in said
    source.tables()
    assert "a_view" not in capsys.readouterr().out  # once is enough


def test_a_schema_is_proposed_from_a_sample(connect: Connect, mongo_database: Any) -> None:
    mongo_database.a.insert_many([{"_id": n, "v": n, "w": [n]} for n in range(50)])
    mongo_database.create_collection("empty")
    source = connect()
    tables = [TableId(mongo_database.name, name) for name in ("a", "empty", "missing")]
    found = source.get_schema(tables)
    kinds = [(c.name, c.kind) for c in found[tables[0]].columns]
    assert kinds == [
        ("_id", Kind.INT64),
        ("v", Kind.INT64),
        ("w", Kind.JSON),
        ("_extra", Kind.JSON),
    ]
    assert found[tables[1]].names() == ("_id", "_extra")
    assert tables[2] not in found


def test_a_sample_of_a_large_collection_sees_its_newest_documents(
    connect: Connect, mongo_database: Any
) -> None:
    mongo_database.a.insert_many([{"_id": n, "old": 1} for n in range(4000)])
    mongo_database.a.insert_many([{"_id": n, "new": 1} for n in range(4000, 4100)])
    table = TableId(mongo_database.name, "a")
    proposal = connect().get_schema([table])[table]
    assert {"old", "new"} <= set(proposal.names())


# -- polls

DAY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def poll(
    source: MongoSource, table: TableId, position: Position | None, fire_time: float = 7.0
) -> tuple[list[tuple[Operation, Any]], Position]:
    found: list[tuple[Operation, Any]] = []
    end = position
    for batch in source.poll(table, position, fire_time=fire_time):
        for part in batch.changes:
            ids = [d.get("_id") for d in part.documents.documents()]  # type: ignore[union-attr]
            found += [(Operation(o), id) for o, id in zip(part.operations, ids, strict=True)]
        end = batch.end
    assert end is not None
    return found, end


@pytest.mark.parametrize(
    ("old", "tie", "newer", "again"),
    [
        # Times that the clock has left behind are not read again where nothing is newer.
        (DAY, DAY + dt.timedelta(1), DAY + dt.timedelta(2), []),
        ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", []),
        (1, 2, 3, [4]),
        (1.5, 2.5, 3.5, [4]),
    ],
)
def test_a_poll_reads_what_is_new_and_loses_no_tie(
    connect: Connect, mongo_database: Any, old: Any, tie: Any, newer: Any, again: list[int]
) -> None:
    table = TableId(mongo_database.name, "a")
    rows = mongo_database.a
    rows.insert_many([{"_id": 1, "updated_at": old}, {"_id": 2, "updated_at": tie}])
    source = connect()
    found, end = poll(source, table, None)
    assert [id for _, id in found] == [1, 2]
    rows.insert_many([{"_id": 3, "updated_at": tie}, {"_id": 4, "updated_at": newer}])
    found, end = poll(source, table, end)
    assert [id for _, id in found] == [2, 3, 4]
    found, end = poll(source, table, end, fire_time=8.0)
    assert [id for _, id in found] == again
    assert json.loads(end.token)["slot"] == 8.0
    assert end.committed_at == 8.0


def test_a_poll_compares_within_each_type_and_reads_what_has_no_age(
    connect: Connect, mongo_database: Any
) -> None:
    table = TableId(mongo_database.name, "a")
    mongo_database.a.insert_many(
        [
            {"_id": 1, "updated_at": 5},
            {"_id": 2, "updated_at": "2026"},
            {"_id": 3, "updated_at": DAY},
            {"_id": 4, "updated_at": None},
            {"_id": 5},
            {"_id": 6, "updated_at": Regex("x")},
        ]
    )
    source = connect(write_batch_size=2)
    found, end = poll(source, table, None)
    assert sorted(id for _, id in found) == [1, 2, 3, 4, 5, 6]
    mongo_database.a.insert_many(
        [{"_id": 7, "updated_at": 4}, {"_id": 8, "updated_at": 6}, {"_id": 9, "updated_at": "2027"}]
    )
    found, _ = poll(source, table, end)
    assert sorted(id for _, id in found) == [1, 2, 4, 5, 6, 8, 9]


def test_a_poll_cut_short_goes_on_from_its_last_batch(
    connect: Connect, mongo_database: Any
) -> None:
    table = TableId(mongo_database.name, "a")
    mongo_database.a.insert_many([{"_id": n, "updated_at": n} for n in range(10)])
    source = connect(write_batch_size=4)
    first = next(source.poll(table, None, fire_time=1.0))
    found, _ = poll(source, table, first.end)
    assert [id for _, id in found] == list(range(3, 10))


def test_without_the_field_everything_is_compared_and_deletes_are_found(
    connect: Connect, mongo_database: Any
) -> None:
    table = TableId(mongo_database.name, "a")
    mongo_database.a.insert_many([{"_id": 1}, {"_id": 2}])
    source = connect()
    _, end = poll(source, table, None)
    mongo_database.a.delete_one({"_id": 1})
    batches = list(source.poll(table, end, fire_time=9.0))
    *read, last = [part for batch in batches for part in batch.changes]
    assert [list(p.operations) for p in read] == [[Operation.READ]]
    assert list(last.operations) == [Operation.TRUNCATE]
    assert last.versions[0] == read[0].versions[0] - 1


def test_a_poll_of_an_empty_collection_yields_a_batch(
    connect: Connect, mongo_database: Any
) -> None:
    mongo_database.create_collection("a")
    batches = list(connect().poll(TableId(mongo_database.name, "a"), None, fire_time=3.0))
    assert batches[-1].end.committed_at == 3.0
