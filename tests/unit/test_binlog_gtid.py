"""Sets of GTIDs behave as sets of transactions, and are written as the servers write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_logs import events_of

from warp.errors import WarpError
from warp.sources.mysql.binlog.gtid import Gtid, GtidSet, MariaGtid, MariaPosition

A = "e8abdb19-e929-11f1-97e6-02fc00000001"
B = "00000000-e929-11f1-97e6-02fc00000002"

GTIDS = st.builds(
    Gtid, st.sampled_from([A, B]), st.sampled_from(["", "", "tag", "x_1"]), st.integers(1, 12)
)


def set_of(gtids: set[Gtid]) -> GtidSet:
    made = GtidSet()
    for gtid in gtids:
        made = made.add(gtid)
    return made


def members(of: GtidSet) -> set[Gtid]:
    return {
        Gtid(source, tag, number)
        for source, tag, (low, high) in of
        for number in range(low, high + 1)
    }


@settings(max_examples=60, deadline=None)
@given(st.sets(GTIDS, max_size=10), st.sets(GTIDS, max_size=10), GTIDS)
def test_a_set_of_gtids_is_a_set(left: set[Gtid], right: set[Gtid], one: Gtid) -> None:
    first, second = set_of(left), set_of(right)
    assert members(first) == left
    assert first.count() == len(first) == len(left)
    assert (one in first) == (one in left)
    assert members(first | second) == left | right
    assert members(first - second) == left - right
    assert (first <= second) == (left <= right)
    assert (first == second) == (left == right)
    assert bool(first) == bool(left)
    assert members(first.add(one)) == left | {one}


@settings(max_examples=40, deadline=None)
@given(st.sets(GTIDS, max_size=10))
def test_a_set_is_read_back_from_its_text(gtids: set[Gtid]) -> None:
    made = set_of(gtids)
    again = GtidSet.parse(str(made))
    assert again == made
    assert str(again) == str(made)
    assert hash(again) == hash(made)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("", ""),
        (f"{A}:1-3:7", f"{A}:1-3:7"),
        (f"{A}:5:1-4", f"{A}:1-5"),
        (f" {A.upper()}:1-4:ABC:1-2:x_yz:1 ,\n{B}:9", f"{B}:9,{A}:1-4:abc:1-2:x_yz:1"),
        (f"{A}:1,{A}:2", f"{A}:1-2"),
    ],
)
def test_texts_of_the_server_are_read_and_always_written_the_same(text: str, written: str) -> None:
    assert str(GtidSet.parse(text)) == written


@pytest.mark.parametrize(
    "text", ["nonsense", f"{A}", f"{A}:0-3", f"{A}:5-3", f"{A}:1-2-3", "1-2-3"]
)
def test_what_is_no_set_is_an_error(text: str) -> None:
    with pytest.raises(WarpError, match="expected a set of GTIDs"):
        GtidSet.parse(text)


def test_a_set_is_encoded_for_the_server_without_tags() -> None:
    raw = GtidSet.parse(f"{A}:1-3:7").encoded()
    assert raw[:8] == (1).to_bytes(8, "little")
    assert raw[8:24].hex() == A.replace("-", "")
    numbers = [int.from_bytes(raw[place : place + 8], "little") for place in range(24, 64, 8)]
    assert numbers == [2, 1, 4, 7, 8]


def test_a_set_with_tags_is_encoded_as_the_server_writes_it_into_its_own_log() -> None:
    event = next(event for event in events_of("tagged") if event[4] == 35)  # PREVIOUS_GTIDS
    raw = event[19:-4]
    assert (raw[0], raw[7]) == (1, 1)  # the form with tags
    texts, place = [], 8
    for _ in range(int.from_bytes(raw[1:7], "little")):
        source, size = raw[place : place + 16].hex(), raw[place + 16] >> 1
        tag = raw[place + 17 : place + 17 + size].decode()
        place += 17 + size
        count = int.from_bytes(raw[place : place + 8], "little")
        numbers = [
            int.from_bytes(raw[place + 8 * n : place + 8 * n + 8], "little")
            for n in range(1, 2 * count + 1)
        ]
        place += 8 + 16 * count
        parts = [source, *[tag] * bool(tag)]
        parts += [f"{a}-{b - 1}" for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
        texts.append(":".join(parts))
    assert place == len(raw)
    found = GtidSet.parse(",".join(texts))
    assert any(tag for _, tag, _ in found)
    assert found.encoded() == raw


POSITIONS = st.lists(st.builds(MariaGtid, *[st.integers(0, 5)] * 2, st.integers(1, 99)), max_size=9)


@settings(max_examples=40, deadline=None)
@given(POSITIONS)
def test_a_mariadb_position_holds_the_last_of_each_domain(gtids: list[MariaGtid]) -> None:
    position = MariaPosition()
    for gtid in gtids:
        position = position.add(gtid)
        assert gtid in position
    last = {gtid.domain: gtid for gtid in gtids}
    assert set(position.domains) == set(last.values())
    assert position.count() == sum(gtid.sequence for gtid in last.values())
    assert MariaPosition.parse(str(position)) == position
    for gtid in gtids:
        assert (gtid in position) == (gtid.sequence <= last[gtid.domain].sequence)


def test_what_is_no_position_is_an_error() -> None:
    with pytest.raises(WarpError, match="expected a GTID position"):
        MariaPosition.parse("0-1")
