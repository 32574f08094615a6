"""Covered values: what each rule promises of one value, of columns, of JSON and of documents."""

from __future__ import annotations

import hmac
import itertools
import json
from decimal import Decimal
from typing import Any

import bson
import pytest
from any_bson import documents
from hypothesis import given, settings
from hypothesis import strategies as st

from warp.errors import SourceRefused
from warp.model import (
    ABSENT,
    UNCHANGED,
    Column,
    Cover,
    Invalid,
    Kind,
    Privacy,
    TableId,
    TableSchema,
)
from warp.privacy.columns import cover_table
from warp.privacy.covering import Covering, masked
from warp.privacy.permutation import permuted
from warp.privacy.sealing import Sealing
from warp.sources.bson_covering import BsonCovering
from warp.sources.elements import elements

KEY = b"a key of the tests"
PEOPLE = TableId("crm", "people")
COVERING = Covering(KEY)
SECRET = "Hedwig Geheimnis"

few = settings(max_examples=30, deadline=None)
texts = st.text(st.characters(codec="utf-8"), max_size=80)


def form_of(text: str) -> list[str]:
    """What a token keeps of a text: where digits, small and capital letters are, and all else."""
    return [
        "9" if c in "0123456789" else "A" if "A" <= c <= "Z" else "a" if "a" <= c <= "z" else c
        for c in text
    ]


@few
@given(texts)
def test_a_hash_is_the_hmac_that_anybody_with_the_key_can_make(text: str) -> None:
    assert COVERING.text(Cover.HASH, text) == hmac.digest(KEY, text.encode(), "sha256").hex()


@few
@given(texts)
def test_a_mask_shows_four_letters_or_digits_at_most_and_never_half_of_them(text: str) -> None:
    said = [c for c in text if c.isalnum() or not c.isascii()]
    made = masked(text)
    shown = [c for a, c in zip(text, made, strict=True) if a in said and c != "*"]
    assert len(shown) <= min(4, len(said) // 2)
    assert [c for c in made if c not in said and c != "*"] == [
        c for c in text if c not in said and c != "*"
    ]


@few
@given(st.text(st.characters(max_codepoint=0x7F), max_size=40))
def test_a_token_keeps_the_form_of_a_text(text: str) -> None:
    token = COVERING.text(Cover.TOKENISE, text)
    assert form_of(token) == form_of(text)
    assert token == Covering(KEY).text(Cover.TOKENISE, text)


@few
@given(st.sets(texts, min_size=2, max_size=20))
def test_no_two_texts_get_one_token_or_one_hash(some: set[str]) -> None:
    for cover in (Cover.TOKENISE, Cover.HASH):
        assert len({COVERING.text(cover, text) for text in some}) == len(some)


def test_all_numbers_of_a_form_are_permuted_whatever_their_radices() -> None:
    def round_(number: int, half: int) -> int:
        return int.from_bytes(hmac.digest(KEY, bytes((number, half % 256)), "sha256"), "big")

    for radices in ([10], [2, 3, 7], [10, 26, 10], [400, 2]):
        every = list(itertools.product(*map(range, radices)))
        images = {tuple(permuted(digits, radices, round_)) for digits in every}
        assert images == set(every)


def test_another_key_gives_other_tokens_and_a_number_is_not_its_text() -> None:
    other = Covering(b"another key of the tests")
    for cover in (Cover.TOKENISE, Cover.HASH):
        assert COVERING.text(cover, SECRET) != other.text(cover, SECRET)
        assert COVERING.other(cover, "number", "1") != COVERING.text(cover, "1")


# -- columns


def covered(kind: Kind, cover: Cover, *cells: Any) -> list[Any]:
    schema = TableSchema(PEOPLE, (Column("v", kind),), ())
    table = cover_table(schema, Privacy((("v", cover),), key=KEY))
    return list(table.columns([list(cells)])[0])


def test_what_is_no_value_stays_what_it_is() -> None:
    for cover in (Cover.HASH, Cover.MASK, Cover.TOKENISE):
        made = covered(Kind.TEXT, cover, None, UNCHANGED, ABSENT)
        assert [made[0] is None, made[1] is UNCHANGED, made[2] is ABSENT] == [True] * 3


def test_a_cell_that_its_source_could_not_read_is_not_told_either() -> None:
    [cell] = covered(Kind.TEXT, Cover.HASH, Invalid(SECRET))
    assert isinstance(cell, Invalid)
    assert SECRET not in cell.text


def test_a_number_has_one_hash_in_whichever_column_it_stands() -> None:
    made = {
        covered(kind, Cover.HASH, value)[0]
        for kind, value in (
            (Kind.INT32, 42),
            (Kind.INT64, 42),
            (Kind.FLOAT64, 42.0),
            (Kind.DECIMAL, Decimal("42.00")),
        )
    }
    document = BsonCovering(Privacy((("v", Cover.HASH),), key=KEY)).cover(bson.encode({"v": 42}))
    assert made == {bson.decode(document)["v"]}
    assert len({covered(Kind.FLOAT64, Cover.HASH, v)[0] for v in (0.0, -0.0)}) == 1


def test_a_dropped_column_is_not_there_and_others_become_text() -> None:
    columns = tuple(Column(name, Kind.INT64) for name in ("id", "a", "b"))
    rules = (("a", Cover.DROP), ("b", Cover.MASK))
    table = cover_table(TableSchema(PEOPLE, columns, ("id",)), Privacy(rules, key=KEY))
    assert [(c.name, c.kind) for c in table.schema.columns] == [
        ("id", Kind.INT64),
        ("b", Kind.TEXT),
    ]
    assert table.columns([[1], [2], [123456789]]) == [[1], ["*****6789"]]


# -- inside of JSON and documents

ADDRESS = {"street": SECRET, "zip": 12345, "more": [{"street": SECRET}, None, [{"street": 7}]]}
INSIDE = Privacy((("v.street", Cover.HASH), ("v.more.street", Cover.DROP)), key=KEY)


def test_fields_inside_of_json_are_covered_and_nothing_else_changes() -> None:
    schema = TableSchema(PEOPLE, (Column("v", Kind.JSON),), ())
    written = json.dumps(ADDRESS)[:-1] + ', "price": 1.10, "zip": 1e400}'
    [[made]] = cover_table(schema, INSIDE).columns([[written.encode()]])
    hashed = COVERING.text(Cover.HASH, SECRET)
    assert made.decode() == (
        f'{{"street": "{hashed}", "zip": 12345, "more": [{{}}, null, [{{}}]],'
        ' "price": 1.10, "zip": 1e400}'
    )


def test_json_that_cannot_be_looked_into_is_never_written_as_it_was() -> None:
    schema = TableSchema(PEOPLE, (Column("v", Kind.JSON),), ())
    deep = b"[" * 5000 + f'"{SECRET}"'.encode() + b"]" * 5000
    [[made]] = cover_table(schema, INSIDE).columns([[deep]])
    assert isinstance(made, Invalid)
    assert SECRET not in made.text


def test_fields_inside_of_documents_are_covered_as_those_of_json_are() -> None:
    [made] = [BsonCovering(INSIDE).cover(bson.encode({"v": ADDRESS, "w": SECRET}))]
    hashed = COVERING.text(Cover.HASH, SECRET)
    assert bson.decode(made) == {
        "v": {"street": hashed, "zip": 12345, "more": [{}, None, [{}]]},
        "w": SECRET,
    }


def test_a_name_with_dots_is_no_way_around_a_rule() -> None:
    made = BsonCovering(INSIDE).cover(bson.encode({"v.street": SECRET}))
    assert SECRET not in str(bson.decode(made))


@few
@given(documents, st.sampled_from([Cover.HASH, Cover.MASK, Cover.TOKENISE, Cover.DROP]))
def test_whatever_a_document_holds_its_other_fields_stay_byte_for_byte(
    document: bytes, cover: Cover
) -> None:
    ruled = [name_of(each) for each in elements(document)][::2]
    made = BsonCovering(Privacy(tuple((n, cover) for n in ruled), key=KEY)).cover(document)

    def plain(each: tuple[int, bytes, bytes]) -> bool:
        return not any((name_of(each) + ".").startswith(path + ".") for path in ruled) and not any(
            path.startswith(name_of(each) + ".") for path in ruled
        )

    assert list(filter(plain, elements(made))) == list(filter(plain, elements(document)))
    covered_ = [each for each in elements(made) if name_of(each) in ruled]
    if cover is Cover.DROP:
        assert covered_ == []
    if cover is Cover.HASH:  # 64 digits, or nothing that could be hashed
        assert all(code in (0x06, 0x0A) or len(value) == 64 + 5 for code, _, value in covered_)


def name_of(element: tuple[int, bytes, bytes]) -> str:
    return element[1].decode("utf-8", "replace")


# -- positions


@few
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_sealed_position_is_opened_by_its_key_and_by_no_other(text: str) -> None:
    sealed = Sealing(KEY).seal(text)
    assert Sealing.is_sealed(sealed)
    assert Sealing(KEY).seal(text) == sealed
    assert Sealing(KEY).open(sealed) == text
    with pytest.raises(SourceRefused, match="another key"):
        Sealing(b"another key of the tests").open(sealed)
