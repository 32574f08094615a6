"""Positions of a MongoDB stream: printable, comparable, never moving back."""

from __future__ import annotations

import pytest
from bson import Timestamp

from warp.errors import SourceRefused
from warp.model import Position
from warp.sources.mongodb import MongoOptions, MongoSource
from warp.sources.mongodb.tokens import Token, order_key

# As MongoDB 6.0.5 sent them: a high-water mark, then three events of one transaction.
MARK = "826B03F7B7000000052B0229296E04"
FIRST = "826B03F7B7000000052B022C0100296E5A10044C6103CB84384162BFEB900D91775BDE461E5F6964002B0A0004"
SECOND = (
    "826B03F7B7000000052B022C01002B026E5A10044C6103CB84384162BFEB900D91775BDE461E5F6964002B0A0004"
)
THIRD = (
    "826B03F7B7000000052B022C01002B046E5A10044C6103CB84384162BFEB900D91775BDE461E5F6964002B0A0004"
)
MOMENT = order_key(Timestamp(0x6B03F7B7, 5))


def event(data: str, *, drained: bool = False) -> Token:
    return Token.of({"_data": data}, drained=drained)


def test_a_resume_token_carries_its_cluster_time() -> None:
    assert event(FIRST).version == MOMENT
    assert event(FIRST).timestamp == Timestamp(0x6B03F7B7, 5)


@pytest.mark.parametrize(
    "token",
    [
        Token.at(MOMENT),
        event(FIRST),
        event(FIRST, drained=True),
        Token.of({"_data": FIRST, "_typeBits": b"\x01\xfe"}),
        Token.of({"_data": FIRST, "_typeBits": b"\x01\xfe"}, drained=True),
    ],
)
def test_a_token_survives_being_printed(token: Token) -> None:
    assert Token.parse(str(token)) == token


def test_type_bits_are_sent_back() -> None:
    sent = {"_data": FIRST, "_typeBits": b"\x01"}
    assert Token.parse(str(Token.of(sent))).resume() == {"startAfter": sent}


def test_a_moment_starts_at_its_operation_time() -> None:
    assert Token.at(MOMENT).resume() == {"startAtOperationTime": Timestamp(0x6B03F7B7, 5)}


@pytest.mark.parametrize("text", ["", "nonsense", "at:", "at:1", "at:x:1", "82zz", "at:1:2:3"])
def test_a_token_that_is_none_of_ours_says_what_to_do(text: str) -> None:
    with pytest.raises(SourceRefused, match="resync"):
        Token.parse(text)


def test_tokens_are_ordered_within_a_transaction() -> None:
    order = [
        Token.at(MOMENT - 1),
        event(MARK),
        event(FIRST),
        event(SECOND),
        event(THIRD),
        event(THIRD, drained=True),
        Token.at(MOMENT + 1),
    ]
    for place, token in enumerate(order):
        assert [other.before(token) for other in order] == [i < place for i in range(len(order))]


def test_a_moment_is_covered_only_when_nothing_of_it_is_missing() -> None:
    goal = Token.at(MOMENT)
    assert not Token.at(MOMENT - 1).covers(goal)
    assert not event(MARK).covers(goal)
    assert not event(THIRD).covers(goal)
    assert event(THIRD, drained=True).covers(goal)
    assert Token.at(MOMENT).covers(goal)
    assert Token.at(MOMENT + 1).covers(goal)


def test_an_event_is_covered_by_itself_and_by_later_ones() -> None:
    assert event(SECOND).covers(event(SECOND))
    assert event(THIRD).covers(event(SECOND))
    assert not event(FIRST).covers(event(SECOND))


def test_a_source_compares_positions_without_a_server() -> None:
    options = MongoOptions.model_validate({"connection_string": "mongodb://nowhere:1/"})
    source = MongoSource(options, lambda _: None)
    assert source.reached(Position(str(Token.at(MOMENT))), Position(str(event(FIRST))))
    assert not source.reached(Position(FIRST), Position(str(Token.at(MOMENT))))


def test_a_source_never_shows_its_password() -> None:
    url = "mongodb://user:hunter2@nowhere:1/"
    source = MongoSource(MongoOptions.model_validate({"connection_string": url}), lambda _: None)
    assert "hunter2" not in repr(source) + repr(source._options) + str(source._options)
