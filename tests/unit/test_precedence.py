"""What becomes of a value that does not fit, for every pair of kinds and every policy."""

from __future__ import annotations

import datetime as dt
import itertools
import struct
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from warp.errors import DestinationRefused
from warp.evolve import evolve
from warp.kinds import Relation, as_text, converter, join, relation, widened
from warp.model import (
    ABSENT,
    UNCHANGED,
    Change,
    ChangeBatch,
    Column,
    Evolution,
    Handling,
    Invalid,
    Kind,
    Operation,
    Outcome,
    Policy,
    Position,
    TableChanges,
    TableId,
    TableSchema,
    TableSettings,
)
from warp.precedence import truncated

T = TableId("shop", "orders")
ID = Column("id", Kind.INT64)
PAIRS = list(itertools.product(Kind, Kind))

# (what comes, the column) -> what is done, for every pair that is not "narrower"; written by hand
# from the design, not from the code.
SAME, LOSSLESS, WIDER, EXACT, DRASTIC = (
    Relation.SAME,
    Relation.LOSSLESS,
    Relation.WIDER,
    Relation.EXACT,
    Relation.DRASTIC,
)
K = Kind
EXPECTED: dict[tuple[Kind, Kind], tuple[Relation, Kind | None]] = {
    **{(kind, kind): (SAME, None) for kind in Kind},
    **{(kind, K.TEXT): (LOSSLESS, None) for kind in Kind if kind is not K.TEXT},
    **{(kind, K.JSON): (LOSSLESS, None) for kind in Kind if kind is not K.JSON},
    **{(kind, K.JSON_TEXT): (LOSSLESS, None) for kind in Kind if kind is not K.JSON_TEXT},
    **{(kind, K.TAGGED): (LOSSLESS, None) for kind in Kind if kind is not K.TAGGED},
    (K.INT32, K.INT64): (LOSSLESS, None),
    (K.INT32, K.DECIMAL): (LOSSLESS, None),
    (K.INT64, K.DECIMAL): (LOSSLESS, None),
    (K.INT32, K.FLOAT64): (LOSSLESS, None),
    (K.FLOAT32, K.FLOAT64): (LOSSLESS, None),
    (K.FLOAT32, K.DECIMAL): (LOSSLESS, None),
    (K.FLOAT64, K.DECIMAL): (LOSSLESS, None),
    (K.DATE, K.DATETIME): (LOSSLESS, None),
    (K.DATE, K.TIMESTAMP): (LOSSLESS, None),
    (K.UUID, K.BYTES): (LOSSLESS, None),
    (K.INT64, K.INT32): (WIDER, K.INT64),
    (K.DECIMAL, K.INT32): (WIDER, K.DECIMAL),
    (K.DECIMAL, K.INT64): (WIDER, K.DECIMAL),
    (K.FLOAT32, K.INT32): (WIDER, K.FLOAT64),
    (K.FLOAT64, K.INT32): (WIDER, K.FLOAT64),
    (K.FLOAT32, K.INT64): (WIDER, K.DECIMAL),
    (K.FLOAT64, K.INT64): (WIDER, K.DECIMAL),
    (K.FLOAT64, K.FLOAT32): (WIDER, K.FLOAT64),
    (K.DECIMAL, K.FLOAT32): (WIDER, K.DECIMAL),
    (K.DECIMAL, K.FLOAT64): (WIDER, K.DECIMAL),
    (K.DATETIME, K.DATE): (WIDER, K.DATETIME),
    (K.TIMESTAMP, K.DATE): (WIDER, K.TIMESTAMP),
    (K.INT32, K.FLOAT32): (EXACT, K.FLOAT64),
    (K.INT64, K.FLOAT32): (EXACT, K.DECIMAL),
    (K.INT64, K.FLOAT64): (EXACT, K.DECIMAL),
    **{
        (json, kind): (DRASTIC, None)
        for json in (K.JSON, K.JSON_TEXT)
        for kind in Kind
        if kind not in (K.JSON, K.JSON_TEXT, K.TEXT, K.TAGGED)
    },
}

integers = st.integers(-(2**63), 2**63 - 1)
single = st.floats(width=32)
FIRST, LAST = -210_866_803_200_000_000, 9_224_318_016_000_000_000 - 1
CARRIERS: dict[Kind, st.SearchStrategy[Any]] = {
    K.BOOL: st.booleans(),
    K.INT32: st.integers(-(2**31), 2**31 - 1),
    K.INT64: integers | st.integers(-100, 100),
    K.FLOAT32: single | st.sampled_from([0.0, 1.0, 16777216.0]),
    K.FLOAT64: st.floats() | st.sampled_from([0.1, 1.0, -0.0, 2.0**53, 1e300]),
    K.DECIMAL: st.decimals(allow_nan=False)
    | st.sampled_from([Decimal("NaN"), Decimal("1.10"), Decimal("1E+6000"), Decimal(7)]),
    K.TEXT: st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.sampled_from(["7", "0.5", "true", "2026-01-02", "x" * 300]),
    K.BYTES: st.binary() | st.binary(min_size=16, max_size=16),
    K.UUID: st.binary(min_size=16, max_size=16),
    K.DATE: st.dates(),
    K.TIME: st.integers(0, 86_400_000_000 - 1),
    K.DATETIME: st.integers(FIRST, LAST)
    | st.dates().map(lambda d: (d.toordinal() - 719163) * 86_400_000_000),
    K.TIMESTAMP: st.integers(FIRST, LAST),
    K.JSON: st.sampled_from([b'{"a":1}', b"[]", b"1", b'"text"']),
    K.JSON_TEXT: st.sampled_from([b'{"a":1}', b"[]", b'"\\u0000"']),
    K.OBJECTID: st.binary(min_size=12, max_size=12).map(bytes.hex),
    K.TAGGED: st.sampled_from(['"1"', "1", '{"a":1}']),
}


def value_of(kind: Kind) -> Any:
    """One carrier of a kind."""
    return {
        K.BOOL: True, K.INT32: 7, K.INT64: 2**53 + 1, K.FLOAT32: 0.5, K.FLOAT64: 0.1,
        K.DECIMAL: Decimal("1.10"), K.TEXT: "no number", K.BYTES: b"\1", K.UUID: bytes(16),
        K.DATE: dt.date(2026, 1, 2), K.TIME: 1, K.DATETIME: 1, K.TIMESTAMP: 1,
        K.JSON: b'{"a":1}', K.JSON_TEXT: b'{"a":1}', K.OBJECTID: "0" * 24, K.TAGGED: '"1"',
    }[kind]  # fmt: skip


def fit(
    have: Kind, column: Column, *cells: Any, policy: Policy | None = None, **settings: Any
) -> Evolution:
    """What evolve decides for a batch of rows with these cells."""
    known = TableSchema(T, (ID, column), ("id",), version=3)
    schema = TableSchema(T, (ID, Column(column.name, have)), ("id",))
    rows = len(cells)
    part = TableChanges(
        T,
        bytearray([Operation.CREATE] * rows),
        [5] * rows,
        schema,
        [list(range(rows)), list(cells)],
    )
    chosen = TableSettings(T, T, "shop", policy=policy or Policy(), **settings)
    return evolve(ChangeBatch([part], Position("9")), {T: known}, lambda table: chosen)


def outcomes(plan: Evolution) -> dict[Outcome, int]:
    return {finding.outcome: finding.cells for finding in plan.findings}


@pytest.mark.parametrize(("have", "want"), PAIRS)
def test_every_pair_of_kinds_has_the_relation_of_the_design(have: Kind, want: Kind) -> None:
    expected, becomes = EXPECTED.get((have, want), (Relation.NARROWER, None))
    assert relation(have, want) is expected
    assert widened(have, want) is becomes


@pytest.mark.parametrize(("have", "want"), PAIRS)
@pytest.mark.holds(guarantee=4, source="none", destination="pretended", fault="drift")
def test_every_pair_of_kinds_ends_as_the_precedence_says(have: Kind, want: Kind) -> None:
    """One value of each kind that has no exact form in the other, where there is such a value."""
    column, value = Column("v", want), value_of(have)
    plan = fit(have, column, value, None, ABSENT)
    match relation(have, want):
        case Relation.SAME | Relation.LOSSLESS:
            [part] = plan.batch.changes
            assert part.columns[1][1:] == [None, ABSENT]
            assert [plan.ddl, plan.quarantined, plan.findings] == [[], [], []]
        case Relation.WIDER:
            [change] = plan.ddl
            assert (change.change, change.base) == (Change.WIDEN_COLUMN, 3)
            becomes = widened(have, want)
            assert becomes is not None
            assert change.column == replace(column, kind=becomes)
        case Relation.EXACT:
            converts = (have, want) == (K.INT32, K.FLOAT32)
            assert [c.change for c in plan.ddl] == [] if converts else [Change.WIDEN_COLUMN]
        case Relation.NARROWER:
            convert = converter(have, want)
            try:
                exact = convert is not None
                if convert is not None:
                    convert(value)
            except ValueError:
                exact = False
            if exact:
                assert outcomes(plan) == {Outcome.CONVERTED: 1}
            else:
                [change] = plan.ddl
                assert change.change is Change.TEXT_COLUMN
                assert change.column == replace(column, kind=K.TEXT)
        case Relation.DRASTIC:
            [part] = plan.batch.changes
            assert part.columns[1] == [UNCHANGED, None, ABSENT]
            [aside] = plan.quarantined
            assert aside.column == "v"
            assert aside.kinds == {"id": K.INT64.value, "v": have.value}
            assert outcomes(plan) == {Outcome.SKIPPED: 1}


@given(st.sampled_from(PAIRS).flatmap(lambda pair: st.tuples(st.just(pair), CARRIERS[pair[0]])))
def test_a_conversion_is_exact_or_refused(case: tuple[tuple[Kind, Kind], Any]) -> None:
    (have, want), value = case
    convert = converter(have, want)
    assume(convert is not None and have is not want)
    assert convert is not None
    try:
        made = convert(value)
    except ValueError:
        assert relation(have, want) is not Relation.LOSSLESS
        return
    back = converter(want, have)
    if back is None or {have, want} & {K.JSON, K.JSON_TEXT, K.TAGGED, K.BYTES}:
        return  # values stay apart, as the next test shows for text; nothing reads them back
    if K.TEXT in (have, want):
        # 007 and 7 are one number, so it is the number that must come back.
        number, kind = (made, want) if have is K.TEXT else (value, have)
        if kind in (K.FLOAT32, K.FLOAT64, K.DECIMAL) and (
            # A decimal NaN can be compared for equality only.
            number != number or not 1e-300 < abs(number) < 1e300
        ):
            return  # NaN, the infinities and numbers of a thousand digits are not read from text
        read = converter(K.TEXT, kind)
        assert read is not None
        if kind not in (K.DATETIME, K.TIMESTAMP) or as_text(kind, number)[4] == "-":
            assert same(read(as_text(kind, number)), number)
        return
    returned = back(made)
    assert same(returned, value), (value, made, returned)


def same(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))


@given(
    st.sampled_from(list(Kind)).flatmap(lambda k: st.tuples(st.just(k), CARRIERS[k], CARRIERS[k]))
)
def test_two_values_that_differ_have_two_texts(case: tuple[Kind, Any, Any]) -> None:
    kind, one, other = case
    if kind in (K.FLOAT32, K.FLOAT64):
        code = "f" if kind is K.FLOAT32 else "d"
        assume(struct.pack(code, one) != struct.pack(code, other) and one != other)
    else:
        assume(one != other)
    assume(not (one != one and other != other))
    assert as_text(kind, one) != as_text(kind, other)


@given(st.sampled_from(PAIRS))
def test_a_widened_column_takes_both_kinds_without_loss(pair: tuple[Kind, Kind]) -> None:
    becomes = widened(*pair)
    if becomes is None:
        return
    for kind in pair:
        assert relation(kind, becomes) in (Relation.SAME, Relation.LOSSLESS)
        assert join(*pair) in (becomes, K.FLOAT64)


@pytest.mark.parametrize(
    ("policy", "outcome", "cell"),
    [
        (Policy(narrower=Handling.SKIP), Outcome.SKIPPED, UNCHANGED),
        (Policy(narrower=Handling.SET_NULL), Outcome.NULLED, None),
        (Policy(narrower=Handling.EXTRA), Outcome.SKIPPED, UNCHANGED),  # there is no `_extra`
    ],
)
def test_a_policy_chooses_what_becomes_of_a_cell(
    policy: Policy, outcome: Outcome, cell: object
) -> None:
    plan = fit(K.TEXT, Column("v", K.INT64), "7", "x", policy=policy)
    [part] = plan.batch.changes
    assert part.columns[1] == [7, cell]
    assert outcomes(plan) == {Outcome.CONVERTED: 1, outcome: 1}
    told = next(f for f in plan.findings if f.outcome is outcome)
    assert (told.key, told.original, told.met, told.expected) == ('{"id": 1}', "x", "text", "int64")


def test_a_policy_may_set_the_whole_row_aside() -> None:
    policy = Policy(narrower=Handling.QUARANTINE)
    plan = fit(K.TEXT, Column("v", K.INT64), "7", "x", policy=policy)
    [part] = plan.batch.changes
    assert part.columns == [[0], [7]]
    [row] = plan.quarantined
    assert (row.key, row.row, row.column) == ('{"id": 1}', '{"id": 1, "v": "x"}', "")


def test_a_policy_of_a_column_outranks_that_of_the_table() -> None:
    plan = fit(
        K.TEXT,
        Column("v", K.INT64),
        "x",
        policy=Policy(narrower=Handling.QUARANTINE),
        policies=(("v", Policy(narrower=Handling.SET_NULL)),),
    )
    assert outcomes(plan) == {Outcome.NULLED: 1}


@pytest.mark.parametrize("handling", [Handling.STOP, Handling.SKIP, Handling.QUARANTINE])
def test_without_a_dead_letter_queue_nothing_is_set_aside_and_the_unit_stops(
    handling: Handling,
) -> None:
    with pytest.raises(DestinationRefused, match="column v: expected int64, found text 'x'"):
        fit(
            K.TEXT,
            Column("v", K.INT64),
            "x",
            policy=Policy(narrower=handling),
            dead_letter_queue=False,
        )


def test_a_column_that_cannot_be_changed_keeps_the_original_aside() -> None:
    plan = fit(K.FLOAT64, Column("v", K.INT64, fixed=True), 5.0, 5.5)
    [part] = plan.batch.changes
    assert part.columns[1] == [5, UNCHANGED]
    [aside] = plan.quarantined
    assert aside.row == '{"v": 5.5}'
    assert not plan.ddl


def test_a_key_is_widened_or_its_row_set_aside_but_never_blurred() -> None:
    known = TableSchema(T, (Column("id", K.INT32),), ("id",), version=1)

    def decide(have: Kind, *ids: object) -> Evolution:
        part = TableChanges(
            T,
            bytearray([Operation.CREATE] * len(ids)),
            [1] * len(ids),
            TableSchema(T, (Column("id", have),), ("id",)),
            [list(ids)],
        )
        settings = TableSettings(T, T, "shop", policy=Policy(narrower=Handling.SET_NULL))
        return evolve(ChangeBatch([part], Position("1")), {T: known}, lambda table: settings)

    assert [c.change for c in decide(K.INT64, 1).ddl] == [Change.WIDEN_COLUMN]
    plan = decide(K.TEXT, "1", "one")
    assert plan.batch.changes[0].columns == [[1]]
    assert [row.key for row in plan.quarantined] == ['{"id": "one"}']


def test_text_beyond_the_destinations_limit_is_cut_with_a_mark_and_its_length_told() -> None:
    plan = fit(K.TEXT, Column("v", K.TEXT, limit=5), "12345", "123456", "1234567890")
    assert plan.batch.changes[0].columns[1] == ["12345", "1234…", "1234…"]
    [told] = plan.findings
    assert (told.outcome, told.cells, told.original_length) == (Outcome.TRUNCATED, 2, 10)


@given(st.text(min_size=1), st.integers(0, 20))
def test_a_truncated_text_is_never_longer_than_its_limit(text: str, limit: int) -> None:
    cut = truncated(text, limit)
    assert len(cut) <= limit
    assert limit == 0 or cut.endswith("…")


def test_the_limit_of_a_text_may_be_lifted_instead() -> None:
    policy = Policy(too_long=Handling.TEXT)
    plan = fit(K.TEXT, Column("v", K.TEXT, limit=3), "long", policy=policy)
    [change] = plan.ddl
    assert (change.change, change.column) == (Change.TEXT_COLUMN, Column("v", K.TEXT))


@pytest.mark.parametrize(
    ("value", "fits"),
    [("12.34", True), ("12.340", True), ("0.001", False), ("999.99", True), ("1000", False),
     ("NaN", True), ("Infinity", False), ("0E+10", True), ("1E+2", True)],
)  # fmt: skip
def test_a_number_is_never_rounded_to_the_digits_of_its_column(value: str, fits: bool) -> None:
    plan = fit(K.DECIMAL, Column("v", K.DECIMAL, limit=5, scale=2), Decimal(value))
    if fits:
        assert plan.batch.changes[0].columns[1][0].compare_total(Decimal(value)) == 0
    else:
        assert [c.column for c in plan.ddl] == [Column("v", K.DECIMAL)]


def test_what_the_source_could_not_read_is_null_and_its_text_is_told() -> None:
    plan = fit(K.DATE, Column("v", K.DATE), dt.date(2026, 1, 2), Invalid("0000-00-00"))
    assert plan.batch.changes[0].columns[1] == [dt.date(2026, 1, 2), None]
    [told] = plan.findings
    assert (told.outcome, told.met, told.original) == (Outcome.NULLED, "invalid", "0000-00-00")
