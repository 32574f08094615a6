"""What each error of MongoDB makes us do, with the server's answers faked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson import Timestamp
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.model import ChangeBatch, Position, TableId, TableSettings
from warp.sources.mongodb import errors
from warp.sources.mongodb.cursor import Reply
from warp.sources.mongodb.stream import ChangeStream
from warp.sources.mongodb.tokens import Token

TABLE = TableId("shop", "orders")
SETTINGS = TableSettings(TABLE, TABLE, "shop")


def failure(code: int, *labels: str) -> OperationFailure:
    return OperationFailure(f"code {code}", code, {"errorLabels": list(labels), "code": code})


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (failure(286, "NonResumableChangeStreamError"), PositionLost),
        (failure(136), PositionLost),
        (failure(9), SourceRefused),
        (failure(15), SourceRefused),
        (failure(13), SourceRefused),
        (failure(18), SourceRefused),
        (failure(40573), SourceRefused),
        (failure(280), SourceRefused),
        (failure(43), SourceUnavailable),
        (failure(239), SourceUnavailable),
        (failure(246), SourceUnavailable),
        (failure(10107), SourceUnavailable),
        (failure(99999, "ResumableChangeStreamError"), SourceUnavailable),
        (failure(99999), SourceRefused),
        (NotPrimaryError("stepped down", {"code": 10107}), SourceUnavailable),
        (AutoReconnect("reset"), SourceUnavailable),
        (NetworkTimeout("slow"), SourceUnavailable),
        (ServerSelectionTimeoutError("no primary of the replica set"), SourceUnavailable),
        (ConfigurationError("bad option"), SourceRefused),
    ],
)
def test_each_error_means_one_thing(error: PyMongoError, ours: type[WarpError]) -> None:
    assert type(errors.translate(error, "read")) is ours


def test_a_password_in_a_drivers_message_is_masked() -> None:
    said = errors.translate(AutoReconnect("mongodb://u:hunter2@h/ is gone"), "read")
    assert "hunter2" not in str(said)


class FakeCursor:
    """Answers as told, one answer or error per read."""

    exhausted = False

    def __init__(self, answers: Iterator[Reply | PyMongoError]) -> None:
        self.answers = answers

    def read(self, batch_size: int, wait_ms: int | None = None) -> Reply:
        if batch_size == 0:
            return Reply([], 0, None)
        answer = next(self.answers)
        if isinstance(answer, PyMongoError):
            raise answer
        return answer

    def close(self) -> None: ...


class Scripted(ChangeStream):
    """A stream whose server follows a script; it remembers where it was opened."""

    def __init__(self, *answers: Reply | PyMongoError) -> None:
        self.answers = iter(answers)
        self.opened: list[str] = []
        super().__init__(
            FakeDatabase(),  # type: ignore[arg-type]
            read_size=lambda: 10,
            closed=threading.Event(),
            oldest=lambda: "2026-01-01 00:00:00 UTC",
        )

    def open(self, token: Token, *, lean: bool = False) -> Any:
        self.opened.append(str(token))
        return FakeCursor(self.answers)

    def batches(self, start: Token, count: int) -> list[ChangeBatch]:
        stream = self.follow(Position(str(start)), lambda _: SETTINGS, 0.01)
        return [next(stream) for _ in range(count)]


class FakeDatabase:
    name = "shop"


def event(second: int, id: int, place: int = 4) -> bytes:
    return bson.encode(
        {
            "_id": {"_data": data(second, place)},
            "operationType": "insert",
            "clusterTime": Timestamp(second, 1),
            "fullDocument": {"_id": id},
            "ns": {"db": "shop", "coll": "orders"},
            "documentKey": {"_id": id},
        }
    )


def data(second: int, place: int = 4) -> str:
    """A token; `place` is that within a transaction."""
    return f"82{second:08X}000000012B{place:02X}"


def token(second: int) -> Token:
    return Token.of({"_data": data(second)})


def reply(*events: bytes, second: int, place: int = 4) -> Reply:
    return Reply(list(events), sum(map(len, events)), {"_data": data(second, place)})


START = Token.at(1 << 32)


def ends(batches: list[ChangeBatch]) -> list[str]:
    return [b.end.token for b in batches]


@pytest.mark.parametrize(
    "error",
    [
        failure(43),
        failure(11602),
        failure(237),
        failure(1, "ResumableChangeStreamError"),
        NotPrimaryError("stepped down", {"code": 10107}),
        AutoReconnect("connection reset"),
    ],
)
def test_a_cursor_lost_by_no_fault_is_opened_again_at_our_place(error: PyMongoError) -> None:
    stream = Scripted(reply(event(2, 1), second=2), error, reply(event(3, 2), second=3))
    first, second = stream.batches(START, 2)
    assert ends([first, second]) == [data(2), data(3)]
    assert stream.opened == [str(START), data(2)]


def test_a_server_that_stays_away_is_reported_after_a_few_tries() -> None:
    stream = Scripted(*[AutoReconnect("gone")] * 9)
    with pytest.raises(SourceUnavailable):
        stream.batches(START, 1)
    assert len(stream.opened) == 4


def test_a_log_that_lost_our_place_says_since_when_and_what_to_do() -> None:
    stream = Scripted(failure(286, "NonResumableChangeStreamError"))
    with pytest.raises(PositionLost) as caught:
        stream.batches(Token.at(1_790_000_000 << 32), 1)
    assert "2026-01-01 00:00:00" in str(caught.value)
    assert "2026-09-21" in str(caught.value)
    assert "cartridge-warp resync SCHEMA" in str(caught.value)
    assert len(stream.opened) == 1


def test_a_cursor_overtaken_by_the_log_is_opened_once_more() -> None:
    stream = Scripted(failure(136), reply(event(2, 1), second=2))
    assert ends(stream.batches(START, 1)) == [data(2)]


def test_a_cursor_overtaken_twice_has_lost_its_place() -> None:
    stream = Scripted(failure(136), failure(136))
    with pytest.raises(PositionLost):
        stream.batches(START, 1)


def test_a_token_that_is_not_found_falls_back_to_its_moment() -> None:
    stream = Scripted(failure(280), reply(event(2, 1), event(3, 2), second=3))
    [batch] = stream.batches(token(2), 1)
    assert stream.opened == [data(2), "at:2:0"]
    assert batch.end.token == data(3)
    assert len(batch) == 2  # the first again: harmless, it is applied by its version


def test_events_that_come_again_never_move_the_position_back() -> None:
    again = reply(event(4, 1, place=2), second=4, place=2)
    stream = Scripted(failure(280), again, reply(event(5, 2), second=5))
    before = token(4)
    batches = stream.batches(before, 2)
    assert ends(batches) == [str(before), data(5)]


def test_a_moment_that_fails_too_is_reported() -> None:
    stream = Scripted(failure(280), failure(280))
    with pytest.raises(SourceRefused):
        stream.batches(token(2), 1)


@pytest.mark.parametrize("code", [9, 15, 13, 40573])
def test_what_waiting_does_not_mend_is_not_tried_again(code: int) -> None:
    stream = Scripted(failure(code))
    with pytest.raises(SourceRefused):
        stream.batches(token(2), 1)
    assert len(stream.opened) == 1


def test_what_was_read_at_the_start_moment_does_not_come_again() -> None:
    stream = Scripted(reply(event(1, 1), event(2, 2), second=2))
    [batch] = stream.batches(Token.at((1 << 32) | 1), 1)
    assert len(batch) == 1


def test_an_event_too_large_even_without_its_document_is_reported() -> None:
    stream = Scripted(failure(10334), failure(10334))
    with pytest.raises(SourceRefused):
        stream.batches(token(2), 1)
