"""A MySQL without global ids: positions and versions are places in one server's own log files.

The log was recorded from a real MySQL 9.7 with gtid_mode = OFF; the server is imitated.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_logs import events_of

from warp.errors import PositionLost, SourceRefused, SourceUnavailable
from warp.model import ABSENT, Operation, TableId, TableSettings, Verdict
from warp.mysql_family import Server
from warp.sources.mysql import preflight, snapshot
from warp.sources.mysql.binlog.events import EventType
from warp.sources.mysql.binlog.transactions import Place as LogPlace
from warp.sources.mysql.connection import Connection
from warp.sources.mysql.dump import Dump, must_hold
from warp.sources.mysql.errors import of_the_log
from warp.sources.mysql.position import OwnFiles, Place, version_at
from warp.sources.mysql.reading import Reader
from warp.sources.mysql.stream import Catalog, LogStream

SERVER = "00000000-0000-0000-0000-000000000001"
FILE = "bin.000001"
MYSQL = Server.of("9.7.4-2")
FIRST_FILE, *IN_FIRST_FILE = events_of("anonymous")
BEGUN = int.from_bytes(FIRST_FILE[:4], "little")
START = Place(OwnFiles(SERVER), FILE, 4)


def end_of(event: bytes) -> int:
    return int.from_bytes(event[13:17], "little")


def made(event: bytes, *, position: int | None = None, begun: int | None = None) -> bytes:
    """The same event at another place, or of another second, with its checksum."""
    time = event[:4] if begun is None else begun.to_bytes(4, "little")
    at = event[13:17] if position is None else position.to_bytes(4, "little")
    changed = time + event[4:13] + at + event[17:-4]
    return changed + zlib.crc32(changed).to_bytes(4, "little")


def rotation(file: str, position: int = 4) -> bytes:
    body = position.to_bytes(8, "little") + file.encode()
    size = 19 + len(body) + 4
    head = bytes(4) + bytes((EventType.ROTATE,)) + bytes(4) + size.to_bytes(4, "little")
    event = head + bytes(4) + (0x20).to_bytes(2, "little") + body
    return event + zlib.crc32(event).to_bytes(4, "little")


@dataclass
class RecordedDump:
    """Sends what the server would send from a place on."""

    begun: int = BEGUN
    then: list[bytes] = field(default_factory=list)
    server: Server = MYSQL
    waiting: list[bytes] = field(default_factory=list)

    def begin(self, place: Place) -> None:
        asked = place.offset
        self.waiting = [rotation(place.file, asked)]
        self.waiting.append(made(FIRST_FILE, position=0 if asked > 4 else None, begun=self.begun))
        self.waiting += [event for event in IN_FIRST_FILE if end_of(event) > asked]
        self.waiting += self.then

    def read(self, wait: float) -> Iterator[bytes]:
        waiting, self.waiting = self.waiting, []
        yield from waiting


def selection(table: TableId) -> TableSettings:
    return TableSettings(table, table, "shop", write_batch_size=1)


def catalog(*, has_global_ids: bool = False) -> Catalog:
    return Catalog(lambda _: None, lambda _: False, list, lambda: has_global_ids)


Seen = tuple[str, Operation, Any, int]  # table, operation, first cell, version


def followed(start: Place, dump: RecordedDump | None = None) -> list[tuple[Place, list[Seen]]]:
    """The batches from a place to the end of the log, each with where to resume after it."""
    stream = LogStream(cast("Dump", dump or RecordedDump()), catalog(), selection, start.position())
    found = []
    for batch in stream.follow(0.0, lambda: False):
        seen = [
            (part.table.name, Operation(operation), None if first is ABSENT else first, version)
            for part in batch.changes
            for operation, version, first in zip(
                part.operations,
                part.versions,
                part.columns[0] if part.columns else [None] * len(part),
                strict=True,
            )
        ]
        found.append((Place.parse(batch.end.token), seen))
        if not seen:
            return found
    raise AssertionError("a stream goes on for ever")


def test_a_stream_goes_on_from_each_of_its_positions_with_what_follows_it() -> None:
    batches = followed(START)
    assert len(batches) > 8
    resumed = [place for place, _ in batches]
    assert all(place.passed == OwnFiles(SERVER, BEGUN) for place in resumed)
    assert [later.covers(earlier) for earlier, later in pairwise(resumed)] == [True] * (
        len(batches) - 1
    )
    everything = [row for _, rows in batches for row in rows]
    for number, (place, _) in enumerate(batches):
        rest = [row for _, rows in followed(place) for row in rows]
        assert rest == everything[len(everything) - len(rest) :]
        delivered = [row for _, rows in batches[: number + 1] for row in rows]
        assert len(rest) >= len(everything) - len(delivered)  # more only while XA rows are held


def test_the_marker_waits_before_an_xa_transaction_until_it_is_decided() -> None:
    prepared = [place for place, rows in followed(START) for row in rows if row[2] == 7]
    between = next(rows for _, rows in followed(prepared[0]) if rows)
    assert [row[:3] for row in between] == [("a", Operation.CREATE, 7)]


def test_rows_are_later_than_a_chunk_that_lacks_them_and_earlier_than_one_that_has_them() -> None:
    ends = [place for place, _ in followed(START)]
    versions = [row[3] for _, rows in followed(START) for row in rows]
    assert versions == sorted(versions)
    for end in ends:
        before = {row[3] for _, rows in followed(START) for row in rows} - {
            row[3] for _, rows in followed(end) for row in rows
        }
        after = {row[3] for _, rows in followed(end) for row in rows}
        assert all(version < end.version for version in before)
        assert all(version > end.version for version in after)


@given(
    st.lists(
        st.tuples(st.integers(0, (1 << 27) - 1), st.integers(0, (1 << 36) - 1)),
        min_size=2,
        max_size=2,
    )
)
def test_versions_are_in_the_order_of_files_and_places(places: list[tuple[int, int]]) -> None:
    one, other = (version_at(LogPlace(f"b.{file:06}", at)) for file, at in places)
    assert (one < other) == (places[0] < places[1])
    assert 0 <= one < 1 << 63


@pytest.mark.parametrize("place", [LogPlace(f"bin.{1 << 27}", 4), LogPlace(FILE, 1 << 36)])
def test_what_has_no_version_is_refused_and_never_wraps(place: LogPlace) -> None:
    with pytest.raises(SourceRefused, match="gtid_mode = ON"):
        version_at(place)


def next_file(begun: int) -> list[bytes]:
    previous = next(event for event in IN_FIRST_FILE if event[4] == EventType.PREVIOUS_GTIDS)
    return [rotation("bin.000002"), made(FIRST_FILE, begun=begun), previous]


def test_a_quiet_stream_follows_the_log_into_the_next_file() -> None:
    """Else the file that the marker is in would be purged some day, with nothing lost in it."""
    *_, (last, _) = followed(START, RecordedDump(then=next_file(BEGUN + 9)))
    assert (last.file, last.passed) == ("bin.000002", OwnFiles(SERVER, BEGUN + 9))
    assert last.offset > 4


@pytest.mark.holds(guarantee=6, source="mysql", destination="pretended", fault="lost position")
def test_a_file_of_the_same_name_that_was_begun_later_is_a_lost_position() -> None:
    place = followed(START)[3][0]
    with pytest.raises(PositionLost, match=r"was reset.*resync SCHEMA"):
        followed(place, RecordedDump(begun=BEGUN + 60))
    unknown = replace(place, passed=OwnFiles(SERVER))
    assert followed(unknown, RecordedDump(begun=BEGUN + 60))[-1][0].passed == OwnFiles(
        SERVER, BEGUN + 60
    )


def test_without_looking_when_a_file_was_begun_changes_would_be_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin of the test above."""
    monkeypatch.setattr(LogStream, "_open_file", lambda self, begun: None)
    place = followed(START)[3][0]
    rest = [rows for _, rows in followed(place, RecordedDump(begun=BEGUN + 60)) if rows]
    assert 0 < len(rest) < len([rows for _, rows in followed(START) if rows])


def test_a_place_in_the_files_of_another_server_is_a_lost_position() -> None:
    must_hold(START, "", SERVER, "OFF", at="db")
    must_hold(START, "", SERVER, "ON_PERMISSIVE", at="db")
    with pytest.raises(PositionLost, match=r"no other server understands it.*resync SCHEMA"):
        must_hold(START, "", SERVER.replace("1", "2"), "OFF", at="db")


def test_a_place_that_the_server_cannot_begin_at_is_told() -> None:
    with pytest.raises(PositionLost, match="FLUSH BINARY LOGS"):
        must_hold(replace(START, offset=1 << 32), "", SERVER, "OFF", at="db")


def test_places_are_compared_within_the_files_of_one_server_and_one_log() -> None:
    early, late = (Place(OwnFiles(SERVER, BEGUN), FILE, offset) for offset in (200, 300))
    assert late.covers(early)
    assert not early.covers(late)
    assert replace(early, file="bin.000002", passed=OwnFiles(SERVER, BEGUN + 5)).covers(late)
    assert not replace(late, passed=OwnFiles(SERVER, BEGUN + 5)).covers(early)  # after a RESET
    assert replace(late, passed=OwnFiles(SERVER)).covers(early)
    assert not replace(late, passed=OwnFiles(SERVER.replace("1", "2"), BEGUN)).covers(early)


def test_global_ids_turned_on_or_off_after_the_marker_are_told_and_never_guessed() -> None:
    with pytest.raises(PositionLost, match=r"found gtid_mode = ON; run `cartridge-warp resync"):
        must_hold(START, f"{SERVER}:1-5", SERVER, "ON", at="db")
    by_ids = Place.of_mysql(f"{SERVER}:1-5", FILE, 200)
    must_hold(by_ids, f"{SERVER}:1-9", SERVER, "ON", at="db")
    for mode in ("OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE"):
        with pytest.raises(PositionLost, match=rf"found {mode}: .*resync SCHEMA"):
            must_hold(by_ids, f"{SERVER}:1-9", SERVER, mode, at="db")
    assert not by_ids.covers(START)
    assert not START.covers(by_ids)


@pytest.mark.parametrize("turned_on", [True, False])
def test_a_running_stream_stops_when_global_ids_are_turned_on_or_off(turned_on: bool) -> None:
    start = START if turned_on else Place.of_mysql(f"{SERVER}:1-5")
    modes = catalog(has_global_ids=turned_on)
    stream = LogStream(cast("Dump", RecordedDump()), modes, selection, start.position())
    stream._looked_at -= 60
    with pytest.raises(PositionLost, match="gtid_mode = ON"):
        next(iter(stream.follow(0.0, lambda: False)))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Could not find first log file name in binary log index file", PositionLost),
        ("Cannot replicate anonymous transaction when @@GLOBAL.GTID_MODE = ON", PositionLost),
        ("Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF", PositionLost),
    ],
)
def test_what_the_server_says_of_a_place_it_cannot_go_on_from(said: str, kind: type) -> None:
    assert type(of_the_log(said)) is kind


# -- chunks


@dataclass
class Commits:
    """A server on which somebody commits whenever it may, and whose log is ahead of its views.

    Like the real one it writes a transaction to its log before it can be seen.
    """

    server: Server = MYSQL
    logged: int = 0
    shown: int = 0
    is_locked: bool = False
    refusals: int = 0  # times that the lock cannot be had
    view: int = -1
    said: list[str] = field(default_factory=list)

    def one(self, statement: str) -> tuple[bytes | None, ...]:
        self.said.append(statement)
        if not self.is_locked:
            self.shown, self.logged = self.logged, self.logged + 1
        if "gtid_mode" in statement:
            return (b"", b"OFF", SERVER.encode())
        if statement == "SHOW BINARY LOG STATUS":
            return (FILE.encode(), str(self.logged).encode(), b"", b"", b"")
        if statement == "FLUSH TABLES WITH READ LOCK":
            if self.refusals:
                self.refusals -= 1
                raise SourceUnavailable("waited") from OSError(1205, "Lock wait timeout exceeded")
            self.is_locked, self.shown = True, self.logged
        elif statement == "UNLOCK TABLES":
            self.is_locked = False
        elif statement.startswith("START TRANSACTION"):
            self.view = self.shown
        return ()


def open_view(commits: Commits, earlier: Place | None = None) -> Place:
    return snapshot.open_view(cast("Reader", commits), threading.Event(), earlier)


@pytest.mark.holds(guarantee=4, source="mysql", destination="pretended", fault="late commit")
def test_a_view_shows_every_transaction_up_to_the_place_told_with_it() -> None:
    commits = Commits()
    place = open_view(commits)
    assert commits.view >= place.offset > 0
    assert not commits.is_locked
    # The waits of other statements are as before.
    assert commits.said[-1] == "SET SESSION lock_wait_timeout = 10, SESSION wait_timeout = 28800"


def test_without_the_lock_a_view_lacks_what_its_place_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the test above."""
    monkeypatch.setattr(snapshot, "_lock", lambda reader: True)
    commits = Commits()
    assert commits.view < open_view(commits).offset


def test_only_the_first_page_of_a_chunk_holds_up_commits() -> None:
    commits = Commits()
    first = open_view(commits)
    commits.said.clear()
    assert open_view(commits, earlier=first) == first
    assert commits.said == ["START TRANSACTION WITH CONSISTENT SNAPSHOT"]


def test_a_lock_that_cannot_be_had_is_tried_again_and_then_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "_LOCK_PAUSE", 0.0)
    assert open_view(Commits(refusals=2)).offset
    with pytest.raises(SourceUnavailable, match="SHOW PROCESSLIST"):
        open_view(Commits(refusals=3))


def test_the_right_to_lock_is_told_with_the_statement_that_gives_it() -> None:
    class Refusing:
        server = MYSQL
        login = type("Login", (), {"user": "warp"})
        driver = type("Driver", (), {"escape": staticmethod(lambda text: f"'{text}'")})

        def execute(self, statement: str) -> None:
            raise SourceRefused(f"could not run {statement}")

    refusing = Refusing()
    told = preflight._may_lock(cast("Connection", refusing))
    assert (told.verdict, told.mend) == (Verdict.FAILED, "GRANT FLUSH_TABLES ON *.* TO 'warp'")
    refusing.server = Server.of("8.0.11")
    assert preflight._may_lock(cast("Connection", refusing)).mend == "GRANT RELOAD ON *.* TO 'warp'"
