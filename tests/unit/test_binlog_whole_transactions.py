"""Transactions taken whole by the compiled half give the batches that the reference gives."""

from __future__ import annotations

import struct
import threading
import zlib
from functools import cache
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_logs import events_of

from warp import native
from warp.cells import listed
from warp.errors import WarpError
from warp.model import TableId, TableSettings
from warp.mysql_family import Flavour
from warp.sources.mysql.dump import Dump
from warp.sources.mysql.position import Place
from warp.sources.mysql.stream import Catalog, LogStream

pytestmark = pytest.mark.skipif(not native.active(), reason="asked to test the plain Python half")

START = Place.of_mysql("", "bin.000001", 4).position()
UUID = bytes(range(16))


class Wire(Dump):
    """A dump thread that has sent all of its packets."""

    server: Any = SimpleNamespace(flavour=Flavour.MYSQL, is_mariadb=False)

    def __init__(self, packets: bytes) -> None:
        self._buffer = bytearray(packets)
        self._start, self._end, self._sequence = 0, len(packets), 1
        self._closed = threading.Event()
        self._connection = SimpleNamespace(login=SimpleNamespace(place="here"))  # type: ignore[assignment]

    def begin(self, place: Any) -> None:
        pass

    def _receive(self, wait: float) -> bool:
        return False

    @property
    def is_over(self) -> bool:
        return not self._has_event()


def packed(events: list[bytes]) -> bytes:
    return b"".join(
        struct.pack("<I", len(event) + 1)[:3] + bytes((number + 1 & 0xFF, 0)) + event
        for number, event in enumerate(events)
    )


def select(table: TableId) -> TableSettings | None:
    return TableSettings(table, table, "shop", write_batch_size=20)


def batches(wire: bytes) -> tuple[list[str], str]:
    """Everything that the stream says of these packets, and the error it ends with."""
    dump = Wire(wire)
    catalog = Catalog(lambda table: None, lambda table: False, list, lambda: True)
    found: list[str] = []
    try:
        stream = LogStream(dump, catalog, select, START)
        for batch in stream.follow(
            0, lambda: dump.is_over and (stream._inside or not stream._making)
        ):
            said: list[Any] = [batch.end, batch.reload]
            for part in batch.changes:
                said += [part.table, bytes(part.operations), list(part.versions)]
                said += [listed(column) for column in part.columns]
            found.append(repr(said))
    except WarpError as error:
        return found, str(error)
    return found, ""


def sealed(event: bytes, position: int) -> bytes:
    body = event[:13] + struct.pack("<I", position) + event[17:-4]
    return body + struct.pack("<I", zlib.crc32(body))


@cache
def recorded() -> tuple[bytes, list[list[bytes]]]:
    """The start of a log, and transactions that end with an XID, as a server wrote them."""
    first, *others = events_of("minimal")
    found: list[list[bytes]] = []
    under_way: list[bytes] = []
    for event in others:
        if event[4] == 33:
            under_way = []
        under_way.append(event)
        if event[4] == 16 and under_way[0][4] == 33:
            found.append(under_way)
    return first, found


def log(luck: Random, count: int) -> list[bytes]:
    """Such transactions again and again, with their numbers and positions as a log has them."""
    first, choice = recorded()
    events, position = [first], 1000
    number = 1
    for _ in range(count):
        transaction = luck.choice(choice)
        number += luck.random() < 0.98 or 2
        for event in transaction:
            if event[4] == 33:
                event = event[:20] + UUID + struct.pack("<q", number) + event[44:]
            position += len(event)
            events.append(sealed(event, position))
    return events


def taken(wire: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    """(what is said of it, how many transactions were taken whole)."""
    counts: list[int] = []
    original = LogStream._take_whole

    def counted(self: LogStream, whole: Any) -> None:
        original(self, whole)
        counts.append(whole.count)

    monkeypatch.setattr(LogStream, "_take_whole", counted)
    return batches(wire), sum(counts)


def test_most_small_transactions_are_taken_whole_and_mean_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = packed(log(Random(1), 400))
    found, whole = taken(wire, monkeypatch)
    assert whole > 100
    with native.switched(False):
        assert batches(wire) == found
    assert not found[1]


def test_without_the_count_of_versions_the_batches_would_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broken twin of the test above: all would have the version of the first."""
    monkeypatch.setattr(native.binlog, "Transactions", _Still)
    wire = packed(log(Random(1), 60))
    with native.switched(False):
        expected = batches(wire)
    assert batches(wire) != expected


class _Still:
    """Takes as the compiled one does, and does not say that it moved the version."""

    def __init__(self) -> None:
        self._real = _REAL()
        self.version = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def take(self, *given: Any) -> None:
        self._real.take(*given)
        self.version = given[8]


_REAL: Any = native.binlog.Transactions if native.active() else object


def check_damage(seed: int) -> None:
    luck = Random(seed)
    events = log(luck, luck.randint(1, 40))
    wire = bytearray(packed(events))
    for _ in range(luck.randint(0, 2)):
        wire[luck.randrange(len(events[0]) + 5, len(wire))] = luck.randrange(256)
    if luck.random() < 0.3:
        place = luck.randrange(1, len(events))
        del events[place]
        wire = bytearray(packed(events))
    cut = bytes(wire[: luck.choice([len(wire), luck.randint(0, len(wire))])])
    found = batches(cut)
    with native.switched(False):
        expected = batches(cut)
    # Where an error comes, how many batches came before it may depend on the half.
    assert found[1] == expected[1]
    if not found[1]:
        assert found == expected


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1 << 64))
def test_damaged_logs_mean_the_same_to_either_half(seed: int) -> None:
    check_damage(seed)


@pytest.mark.soak
def test_ten_thousand_damaged_logs_mean_the_same_to_either_half() -> None:
    for seed in range(10_000):
        check_damage(seed)


@given(st.binary(max_size=100))
def test_the_checksum_is_that_of_zlib(data: bytes) -> None:
    assert native.binlog.crc32(data) == zlib.crc32(data)
