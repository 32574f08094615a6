"""Damaged bytes give an error of ours; only a log without checksums can be damaged unseen."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_logs import START, events_of, everything, fed

from warp.errors import WarpError
from warp.sources.mysql.binlog.transactions import Transactions

NAMES = ["compressed", "tagged", "xa", "minimal", "definitions", "hidden"]


@cache
def recorded(name: str) -> list[bytes]:
    return [event for event in events_of(name) if len(event) < 20_000]


def machine(*, verify: bool) -> Transactions:
    made = Transactions(everything, START, verify=verify)
    fed(made, recorded("tagged")[:1])
    return made


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_damage_raises_an_error_of_ours_even_where_no_checksum_tells(name: str, data: Any) -> None:
    events = recorded(name)
    number = data.draw(st.integers(1, len(events) - 1))
    damaged = bytearray(events[number])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(17, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    changed = [*events[1:number], bytes(damaged)]
    outcome(machine(verify=False), changed)
    if bytes(damaged) != events[number]:
        with pytest.raises(WarpError):
            fed(machine(verify=True), changed)


def outcome(reader: Transactions, events: list[bytes]) -> str:
    try:
        fed(reader, events)
    except WarpError as error:
        return str(error)
    return ""


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_an_event_cut_short_is_an_error(name: str, data: Any) -> None:
    events = recorded(name)
    event = data.draw(st.sampled_from(events[1:]))
    short = event[: data.draw(st.integers(0, len(event) - 1))]
    with pytest.raises(WarpError, match="expected an event"):
        fed(machine(verify=False), [short])
    # Also where its header agrees with what is left of it.
    if len(short) > 19:
        agreeing = short[:9] + len(short).to_bytes(4, "little") + short[13:]
        outcome(machine(verify=False), [agreeing])
        with pytest.raises(WarpError):
            fed(machine(verify=True), [agreeing])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_an_error(raw: bytes) -> None:
    with pytest.raises(WarpError):
        fed(machine(verify=True), [raw])


@pytest.mark.parametrize("more", [-3, -2, -1, 1, 2])
def test_rows_that_are_longer_or_shorter_than_their_columns_are_an_error(more: int) -> None:
    """Without the comparison at the end of the rows a wrong value would be given."""
    events = recorded("minimal")
    number = next(place for place, event in enumerate(events) if event[4] == 30)
    rows = events[number][:-4]
    other = rows + b"\0" * more if more > 0 else rows[:more]
    other = other[:9] + (len(other) + 4).to_bytes(4, "little") + other[13:] + b"\0" * 4
    with pytest.raises(WarpError, match=r"rows that do not fit|expected"):
        fed(machine(verify=False), [*events[1:number], other])
