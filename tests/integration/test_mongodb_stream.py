"""The MongoDB stream against real servers: structure, transactions, failover, lost logs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import WriteConcern
from pymongo.database import Database
from pymongo.errors import PyMongoError

from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.model import (
    ChangeBatch,
    Operation,
    Position,
    TableId,
    TableSelection,
    TableSettings,
)
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.mongodb import cursor as cursors
from warp.sources.mongodb import stream as streams
from warp.sources.mongodb.tokens import Token
from warp.testing.servers import Mongod, ReplicaSet

CREATE, UPDATE, DELETE, TRUNCATE = (
    Operation.CREATE,
    Operation.UPDATE,
    Operation.DELETE,
    Operation.TRUNCATE,
)
LIMIT = 30.0  # seconds a test waits for what it expects


@dataclass
class Selection:
    """Some collections of one database, as a configured schema selects them."""

    namespace: str
    only: tuple[str, ...] = ()
    write_batch_size: int = 500
    stream_batch_size: int = 1000

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace or (self.only and table.name not in self.only):
            return None
        return TableSettings(
            table,
            table,
            self.namespace,
            write_batch_size=self.write_batch_size,
            stream_batch_size=self.stream_batch_size,
        )


Event = tuple[Operation, str, Any, int]  # operation, collection, id, version


def events(batch: ChangeBatch) -> list[Event]:
    found = []
    for part in batch.changes:
        ids = [d.get("_id") for d in part.documents.documents()]  # type: ignore[union-attr]
        rows = zip(part.operations, ids, part.versions, strict=True)
        found += [(Operation(o), part.table.name, id, version) for o, id, version in rows]
    return found


_opened: list[MongoSource] = []


def connect(url: str, selection: TableSelection) -> MongoSource:
    """A connector that is closed when the test ends, however it ends."""
    source = MongoSource(MongoOptions.model_validate({"connection_string": url}), selection)
    _opened.append(source)
    return source


@pytest.fixture(autouse=True)
def _close_sources() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def follow(
    source: MongoSource,
    start: Position,
    enough: Callable[[list[ChangeBatch]], bool],
    *,
    selection: TableSelection | None = None,
) -> list[ChangeBatch]:
    """Batches with changes until they are enough."""
    found: list[ChangeBatch] = []
    chosen = selection or source._selection
    deadline = time.monotonic() + LIMIT
    for batch in source.get_changes(start, selection=chosen, idle=0.1):
        if batch.changes or batch.reload:
            found.append(batch)
        if enough(found):
            break
        if time.monotonic() > deadline:
            raise AssertionError(f"not enough after {LIMIT} s: {[events(b) for b in found]}")
    return found


def count(wanted: int) -> Callable[[list[ChangeBatch]], bool]:
    return lambda batches: sum(map(len, batches)) >= wanted


def flat(batches: list[ChangeBatch]) -> list[Event]:
    return [event for batch in batches for event in events(batch)]


@pytest.fixture
def shop(mongo: Any, mongo_database: Database[Any]) -> tuple[str, Database[Any]]:
    return mongo.url, mongo_database


# -- structure


@pytest.mark.holds(guarantee=5, source="mongodb", destination="pretended", fault="drop and rename")
def test_a_drop_truncates_and_the_stream_lives_on(shop: tuple[str, Database[Any]]) -> None:
    url, database = shop
    source = connect(url, Selection(database.name))
    start = source.position()
    database.a.insert_one({"_id": 1})
    database.a.drop()
    database.a.insert_one({"_id": 2})
    found = flat(follow(source, start, count(3)))
    assert [e[:3] for e in found] == [
        (CREATE, "a", 1),
        (TRUNCATE, "a", None),
        (CREATE, "a", 2),
    ]
    assert found[0][3] <= found[1][3] < found[2][3]


def test_a_dropped_database_truncates_every_collection_and_the_stream_lives_on(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    source = connect(url, Selection(database.name))
    start = source.position()
    database.a.insert_one({"_id": 1})
    database.b.insert_one({"_id": 1})
    database.client.drop_database(database.name)
    database.a.insert_one({"_id": 2})
    batches = follow(source, start, count(5))
    assert {e[1] for e in flat(batches) if e[0] is TRUNCATE} == {"a", "b"}
    assert flat(batches)[-1][:3] == (CREATE, "a", 2)
    again = follow(source, batches[0].end, count(1))
    assert flat(again)[-1][:3] == (CREATE, "a", 2)


def test_a_rename_out_of_the_selection_truncates_the_old_name(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.a.insert_one({"_id": 1})
    source = connect(url, Selection(database.name, ("a",)))
    start = source.position()
    database.a.rename("elsewhere")
    [batch] = follow(source, start, count(1))
    assert [e[:2] for e in events(batch)] == [(TRUNCATE, "a")]
    assert batch.reload == ()


def test_a_rename_into_the_selection_asks_for_a_new_snapshot(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.draft.insert_one({"_id": 1})
    selection = Selection(database.name, ("a",))
    source = connect(url, selection)
    start = source.position()
    database.draft.rename("a")
    database.a.insert_one({"_id": 2})
    batches = follow(source, start, count(2))
    assert [t for b in batches for t in b.reload] == [TableId(database.name, "a")]
    assert [e[:3] for e in flat(batches)] == [(TRUNCATE, "a", None), (CREATE, "a", 2)]


@pytest.mark.holds(guarantee=5, source="mongodb", destination="pretended", fault="drop and rename")
def test_rows_renamed_into_place_land_even_when_read_at_the_moment_of_the_rename(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.draft.insert_one({"_id": 1})
    source = connect(url, Selection(database.name, ("a",)))
    start = source.position()
    database.draft.rename("a")
    [batch] = follow(source, start, count(1))
    [[(_, _, _, truncated_at)]] = [events(batch)]
    table = TableId(database.name, "a")
    [chunk] = source.chunks(table, 10)
    [part] = [p for b in source.get_full_snapshot(chunk) for p in b.changes]
    assert min(part.versions) > truncated_at


def test_a_rename_within_the_selection_moves_the_rows(shop: tuple[str, Database[Any]]) -> None:
    url, database = shop
    database.a.insert_one({"_id": 1})
    database.b.insert_one({"_id": 2})
    source = connect(url, Selection(database.name))
    start = source.position()
    database.a.rename("b", dropTarget=True)
    batches = follow(source, start, count(2))
    assert {e[:2] for e in flat(batches)} == {(TRUNCATE, "a"), (TRUNCATE, "b")}
    assert [t for b in batches for t in b.reload] == [TableId(database.name, "b")]


def test_collections_that_are_not_selected_stay_at_the_server(
    shop: tuple[str, Database[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, database = shop
    database.noise.insert_one({"_id": 0})
    source = connect(url, Selection(database.name, ("a",)))
    start = source.position()
    database.noise.insert_many([{"_id": i} for i in range(1, 100)])
    database.a.insert_one({"_id": 1})
    sent: list[int] = []
    take = cursors.RawCursor._take

    def counting(self: cursors.RawCursor, reply: bytes) -> cursors.Reply:
        taken = take(self, reply)
        sent.append(len(taken.documents))
        return taken

    monkeypatch.setattr(cursors.RawCursor, "_take", counting)
    follow(source, start, count(1))
    assert sum(sent) == 1


def test_one_stream_follows_several_databases(shop: tuple[str, Database[Any]]) -> None:
    url, database = shop
    other = database.client[database.name + "_2"]
    both = {database.name, other.name}

    def selection(table: TableId) -> TableSettings | None:
        return TableSettings(table, table, "all") if table.namespace in both else None

    database.a.insert_one({"_id": 0})
    other.a.insert_one({"_id": 0})
    source = connect(url, selection)
    start = source.position()
    database.a.insert_one({"_id": 1})
    other.a.insert_one({"_id": 2})
    batches = follow(source, start, count(2))
    assert {(p.table.namespace, len(p)) for b in batches for p in b.changes} == {
        (database.name, 1),
        (other.name, 1),
    }
    database.client.drop_database(other.name)


# -- updates and transactions


def test_an_update_whose_document_is_gone_is_left_to_its_delete(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    source = connect(url, Selection(database.name))
    start = source.position()
    database.a.insert_one({"_id": 1})
    database.a.update_one({"_id": 1}, {"$set": {"v": 1}})
    database.a.delete_one({"_id": 1})
    assert [e[0] for e in flat(follow(source, start, count(2)))] == [CREATE, DELETE]


def in_a_transaction(database: Database[Any], *ids: int) -> None:
    with database.client.start_session() as session, session.start_transaction():
        for id in ids:
            database.a.insert_one({"_id": id}, session=session)


def test_a_transaction_larger_than_a_batch_resumes_inside_itself(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.create_collection("a")
    selection = Selection(database.name, write_batch_size=3, stream_batch_size=4)
    source = connect(url, selection)
    start = source.position()
    in_a_transaction(database, *range(10))
    database.a.insert_one({"_id": 10})
    batches = follow(source, start, count(11))
    assert [e[2] for e in flat(batches)] == list(range(11))
    assert max(map(len, batches)) <= 3
    assert len({e[3] for e in flat(batches)[:10]}) == 1  # one clusterTime
    for place, batch in enumerate(batches[:-1]):
        rest = flat(batches[place + 1 :])
        assert flat(follow(source, batch.end, count(len(rest)))) == rest


@pytest.mark.holds(guarantee=9, source="mongodb", destination="pretended", fault="large data")
def test_a_batch_is_no_larger_than_its_smallest_table_allows(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.create_collection("a")
    source = connect(url, Selection(database.name, write_batch_size=7))
    start = source.position()
    database.a.insert_many([{"_id": i} for i in range(50)])
    batches = follow(source, start, count(50))
    assert max(map(len, batches)) == 7
    assert [e[2] for e in flat(batches)] == list(range(50))


def test_a_selective_stream_says_where_it_stands_while_nothing_is_for_it(
    shop: tuple[str, Database[Any]],
) -> None:
    """Else its marker would stay behind until the log had forgotten it."""
    url, database = shop
    source = connect(url, Selection(database.name, ("a",)))
    start = source.position()
    stream = source.get_changes(start, selection=source._selection, idle=0.05)
    for _ in range(3):
        database.client.other_database.noise.insert_one({})
    goal = source.position()
    deadline = time.monotonic() + LIMIT
    assert any(source.reached(batch.end, goal) or time.monotonic() > deadline for batch in stream)
    assert time.monotonic() < deadline
    database.client.drop_database("other_database")


def test_an_idle_stream_says_so_promptly_after_activity(shop: tuple[str, Database[Any]]) -> None:
    url, database = shop
    database.create_collection("a")
    source = connect(url, Selection(database.name))
    stream = source.get_changes(source.position(), selection=source._selection, idle=20.0)
    assert next(stream).changes == []
    database.a.insert_one({"_id": 1})
    started = time.monotonic()
    assert len(next(stream)) == 1
    assert next(stream).changes == []
    assert time.monotonic() - started < 5


def test_closing_from_another_thread_ends_a_blocked_read(shop: tuple[str, Database[Any]]) -> None:
    url, database = shop
    source = connect(url, Selection(database.name))
    start = source.position()
    blocked = threading.Event()

    def read() -> None:
        for _ in source.get_changes(start, selection=source._selection, idle=60.0):
            blocked.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert blocked.wait(LIMIT)
    source.close()
    reader.join(5)
    assert not reader.is_alive()


def test_a_document_of_16_megabytes_and_its_update_pass(shop: tuple[str, Database[Any]]) -> None:
    """An event with both the document and the update would be too large (error 10334)."""
    url, database = shop
    source = connect(url, Selection(database.name))
    start = source.position()
    database.a.insert_one({"_id": 1, "v": "x" * 15_900_000})
    database.a.update_one({"_id": 1}, {"$set": {"v": "y" * 15_900_000}})
    database.a.insert_one({"_id": 2})
    found = flat(follow(source, start, count(3)))
    assert [e[:3] for e in found] == [(CREATE, "a", 1), (UPDATE, "a", 1), (CREATE, "a", 2)]


def test_an_event_larger_than_a_reply_is_read_by_its_key_and_the_stream_goes_on(
    shop: tuple[str, Database[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id comes three times in an event: in the document, in the key and in the token."""
    url, database = shop
    source = connect(url, Selection(database.name))
    leans: list[bool] = []
    pipeline = streams.ChangeStream.pipeline

    def noted(self: streams.ChangeStream, token: Any, *, lean: bool = False) -> Any:
        leans.append(lean)
        return pipeline(self, token, lean=lean)

    monkeypatch.setattr(streams.ChangeStream, "pipeline", noted)
    start = source.position()
    long = "x" * 300_000
    database.a.insert_one({"_id": 1})
    database.a.insert_one({"_id": long, "v": "y" * 15_900_000})
    database.a.insert_one({"_id": 2})
    idle = source.get_changes(start, selection=source._selection, idle=0.1)
    batches = list(itertools.takewhile(lambda batch: batch.changes, idle))
    assert [e[2] for e in flat(batches)] == [1, long, 2]
    document = batches[1].changes[0].documents.documents()[0]  # type: ignore[union-attr]
    assert len(document["v"]) == 15_900_000
    assert leans == [False, True, False]


def test_ids_of_every_type_are_resumed_behind(shop: tuple[str, Database[Any]]) -> None:
    """Some put type bits into the resume token."""
    from bson import Decimal128, Int64, ObjectId

    url, database = shop
    ids = [1, Int64(2), 3.0, Decimal128("4.00"), "x", ObjectId(), b"y", None, True, {"a": 1.0}]
    database.create_collection("a")
    source = connect(url, Selection(database.name, write_batch_size=1))
    start = source.position()
    database.a.insert_many([{"_id": id} for id in ids])
    batches = follow(source, start, count(len(ids)))
    for place, batch in enumerate(batches[:-1]):
        after = follow(source, batch.end, count(len(ids) - place - 1))
        assert len(flat(after)) == len(ids) - place - 1


# -- lost cursors and lost logs


def test_a_killed_cursor_is_opened_again_and_loses_nothing(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    database.create_collection("a")
    source = connect(url, Selection(database.name))
    stream = source.get_changes(source.position(), selection=source._selection, idle=0.05)
    next(stream)
    for id in range(5):
        assert source._stream is not None
        opened = source._stream._cursor
        assert opened is not None
        killed = database.command({"killCursors": "$cmd.aggregate", "cursors": [opened._id]})
        assert killed["cursorsKilled"]
        database.a.insert_one({"_id": id})
        found = next(b for b in stream if b.changes)
        assert [e[2] for e in events(found)] == [id]


def test_without_reopening_a_killed_cursor_would_end_the_stream(
    shop: tuple[str, Database[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test above."""
    monkeypatch.setattr(streams, "_REOPENINGS", 0)
    with pytest.raises(SourceUnavailable):
        test_a_killed_cursor_is_opened_again_and_loses_nothing(shop)


def expect_lost_positions_to_be_reported(server: Mongod) -> None:
    """Lets the log roll over two positions; each must be reported, with what to do."""
    with server.client() as client:
        database = client.shop
        database.a.insert_one({"_id": "first"})
        source = connect(server.url, Selection("shop"))
        start = source.position()
        before = source.headroom(start)
        assert not before.lost
        database.a.insert_one({"_id": "second"})
        [batch] = follow(source, start, count(1))
        # Open all the while: it is overtaken (136), and opened anew it is told so (286).
        slow = connect(server.url, Selection("shop"))
        overtaken = slow.get_changes(start, selection=slow._selection, idle=0.05)
        next(overtaken)
        # So that there is a time between a log that is full and a place that is lost.
        padding = "x" * 50_000
        told: list[float] = []
        oplog = client.local["oplog.rs"]
        deadline = time.monotonic() + 120
        for number in itertools.count():
            database.noise.replace_one({"_id": number % 4}, {"v": padding}, upsert=True)
            entry = oplog.find_one(sort=[("$natural", 1)])
            assert entry is not None
            if entry["ts"].time > start.committed_at + 1:
                break
            if not (found := source.headroom(start)).lost:
                told.append(found.ratio or 0.0)
            assert time.monotonic() < deadline
        for lost in (start, batch.end):
            with pytest.raises(PositionLost, match="cartridge-warp resync") as caught:
                follow(source, lost, count(1))
            assert "UTC" in str(caught.value)
        with pytest.raises(PositionLost, match="error 286"):
            list(itertools.islice(overtaken, 10_000))
        # What was told before it happened, and after.
        after = source.headroom(start)
        assert after.lost
        assert after.window is not None
        assert after.window < 120
        assert min(told) < 1.0


def small_log(start_server: Callable[[Any], Any]) -> Mongod:
    server: Mongod = start_server(Mongod(oplog_megabytes=8, arguments=("--syncdelay", "1")))
    return server


@pytest.mark.holds(guarantee=6, source="mongodb", destination="pretended", fault="lost position")
def test_a_log_that_rolled_over_is_reported_and_never_skipped(
    start_server: Callable[[Any], Any],
) -> None:
    """Guarantee 6."""
    expect_lost_positions_to_be_reported(small_log(start_server))


def test_a_stream_that_goes_on_where_the_log_begins_would_skip_silently(
    start_server: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the test above: a lost position answered by the oldest one there is."""
    server = small_log(start_server)

    def oldest(self: streams.ChangeStream, *_: Any) -> Token:
        entry = self._database.client.local["oplog.rs"].find_one(sort=[("$natural", 1)])
        assert entry is not None
        return Token.parse(f"at:{entry['ts'].time}:{entry['ts'].inc}")

    monkeypatch.setattr(streams.ChangeStream, "_reaction", oldest)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        expect_lost_positions_to_be_reported(server)


def test_a_token_of_another_stream_falls_back_to_its_moment(
    shop: tuple[str, Database[Any]],
) -> None:
    url, database = shop
    other = database.client[database.name + "_other"]
    foreign = connect(url, Selection(other.name))
    start = foreign.position()
    other.a.insert_one({"_id": 1})
    [elsewhere] = follow(foreign, start, count(1))
    database.a.insert_one({"_id": 2})
    source = connect(url, Selection(database.name))
    found = flat(follow(source, elsewhere.end, count(1)))
    assert found[-1][:3] == (CREATE, "a", 2)
    database.client.drop_database(other.name)


# -- failover


@pytest.mark.holds(guarantee=7, source="mongodb", destination="pretended", fault="server crash")
def test_no_acknowledged_write_is_lost_or_doubled_when_the_primary_is_killed(
    start_server: Callable[[Any], Any],
) -> None:
    servers: ReplicaSet = start_server(ReplicaSet())
    selection = Selection("shop")
    with servers.client() as client:
        writes = client.shop.get_collection("a", write_concern=WriteConcern(w="majority"))
        writes.insert_one({"_id": -1})
        source = connect(servers.url, selection)
        start = source.position()
        acknowledged: list[int] = []
        stop = threading.Event()

        def write() -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                # A retryable write: acknowledged, it is in the log exactly once.
                with suppress(PyMongoError):
                    writes.insert_one({"_id": number})
                    acknowledged.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        seen: list[int] = []
        place = start
        killed_at = 0
        deadline = time.monotonic() + 90
        while not (stop.is_set() and seen and set(acknowledged) <= set(seen)):
            assert time.monotonic() < deadline
            try:
                for batch in source.get_changes(place, selection=selection, idle=0.1):
                    seen += [e[2] for e in events(batch)]
                    place = batch.end
                    if not killed_at and len(seen) > 100:
                        victim = servers.primary()
                        assert victim is not None
                        victim.kill9()
                        killed_at = len(seen)
                    if killed_at and len(seen) > killed_at + 300:
                        stop.set()
                    if stop.is_set() and not batch.changes and set(acknowledged) <= set(seen):
                        break
            except SourceUnavailable:
                continue  # as a worker does, with its lease kept
        writer.join()
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert set(acknowledged) <= set(seen)
    assert len(seen) > killed_at


# -- refusals


def test_a_standalone_server_is_refused_with_what_to_do(
    start_server: Callable[[Any], Any],
) -> None:
    class Standalone(Mongod):
        def _command(self) -> list[str]:
            words = list(super()._command())
            at = words.index("--replSet")
            return words[:at] + words[at + 2 :]

    server = start_server(Standalone(initiate=False))
    source = connect(server.direct_url, Selection("shop"))
    with pytest.raises(SourceRefused, match=r"rs\.initiate"):
        source.check()
    with pytest.raises(SourceRefused, match=r"rs\.initiate"):
        source.position()


def test_a_server_that_is_not_there_is_reported_within_ten_seconds() -> None:
    source = connect("mongodb://127.0.0.1:1/?replicaSet=rs0", Selection("shop"))
    started = time.monotonic()
    with pytest.raises(SourceUnavailable):
        source.check()
    assert time.monotonic() - started < 10


def test_a_connection_string_that_is_none_is_refused() -> None:
    with pytest.raises(SourceRefused, match="connection string"):
        connect("mongodb://host:notaport/", Selection("shop")).check()


@pytest.mark.holds(
    guarantee=10, source="mongodb", destination="pretended", fault="planted passwords"
)
def test_logins_and_rights_are_checked_and_no_password_is_shown(
    start_server: Callable[[Any], Any],
) -> None:
    server: Mongod = start_server(Mongod(auth=True))
    with server.client() as client:
        client.shop.a.insert_one({"_id": 1})
        role = {"role": "read", "db": "shop"}
        client.admin.command("createUser", "reader", pwd="s3cretword", roles=[role])
        client.admin.command("createUser", "nobody", pwd="s3cretword", roles=[])
    selection = Selection("shop")

    def login(user: str, password: str = "s3cretword") -> MongoSource:
        url = f"mongodb://{user}:{password}@{server.address}/?replicaSet=rs0"
        return connect(url, selection)

    reader = login("reader")
    reader.check()
    assert reader.tables() == [TableId("shop", "a")]
    assert reader.namespaces() == ["shop"]
    [chunk] = reader.chunks(TableId("shop", "a"), 10)
    assert [len(b) for b in reader.get_full_snapshot(chunk)] == [1]
    # It may not read the oplog, which is no reason to fail.
    assert reader.headroom(reader.position()).ratio is None
    missing = r'grantRolesToUser\("nobody", \[{"role": "read", "db": "shop"}\]\)'
    for source, right in ((login("nobody"), missing), (login("reader", "wr0ng"), "password")):
        with pytest.raises(SourceRefused, match=right) as caught:
            source.check()
        assert "s3cretword" not in str(caught.value)
        assert "wr0ng" not in str(caught.value)
