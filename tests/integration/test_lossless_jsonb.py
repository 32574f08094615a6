"""The text of a document through a real PostgreSQL and back: what jsonb and json make of it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from any_bson import documents, meaning
from bson import encode
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from warp.sources import lossless
from warp.sources.bson_decoding import DECODING, decode
from warp.sources.lossless import rebuild


@pytest.fixture
def connection(pg_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(pg_database, autocommit=True) as connection:
        yield connection


def through(connection: psycopg.Connection, texts: list[bytes], type_: bytes) -> list[str]:
    query = b"select t::%s::text from unnest(%%s::text[]) with ordinality as u (t, n) order by n"
    rows = connection.execute(query % type_, [[text.decode() for text in texts]])
    return [row[0] for row in rows]


LARGE = [1e16, 1e17, -1.5e22, 1.7976931348623157e308, 5e-324, -0.0, 5.0, 0.1]


@given(batch=st.lists(documents, min_size=1, max_size=20))
@example(batch=[encode({"v": value}) for value in LARGE])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_document_is_rebuilt_from_jsonb_up_to_what_jsonb_cannot_keep(
    connection: psycopg.Connection, batch: list[bytes]
) -> None:
    texts, _ = lossless.column(batch, decode(batch), DECODING, verbatim=False)
    back = map(rebuild, through(connection, texts, b"jsonb"))
    assert list(map(meaning, back)) == list(map(meaning, batch))


@given(batch=st.lists(documents, min_size=1, max_size=20))
@example(batch=[encode({"v": value}) for value in LARGE])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_document_is_rebuilt_from_json_byte_for_byte(
    connection: psycopg.Connection, batch: list[bytes]
) -> None:
    texts, _ = lossless.column(batch, decode(batch), DECODING, verbatim=True)
    assert list(map(rebuild, through(connection, texts, b"json"))) == batch


def test_without_its_fraction_a_double_would_come_back_as_an_integer(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: orjson's own text of 1e17, whose exponent jsonb does not keep."""
    raw = [encode({"v": 1e17})]
    texts, _ = lossless.column(raw, decode(raw), DECODING, verbatim=False)
    assert list(map(rebuild, through(connection, texts, b"jsonb"))) == raw
    monkeypatch.setattr(lossless, "_LARGE", (b"\xff", b"\xff"))
    texts, _ = lossless.column(raw, decode(raw), DECODING, verbatim=False)
    assert list(map(rebuild, through(connection, texts, b"jsonb"))) != raw
