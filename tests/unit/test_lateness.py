"""How late events arrive is told from the history and from what was seen at the destination."""

from __future__ import annotations

import pytest
from history import Event, Kind, Outcome
from lateness import arrivals, behind, share_within, slope
from verdict import Applied


def event(key: str, stamp: int, at: float, kind: Kind = Kind.CHANGE) -> Event:
    return Event("t", key, stamp, kind, Outcome.SURE, 0, stamp, 1, "n", at)


def applied(key: str, stamp: int, at: float) -> Applied:
    return Applied(int(at), int(at), "t", key, stamp, stamp, 1, "n", deleted=not stamp, at=at)


def test_an_event_arrives_by_itself_or_with_a_later_one_of_its_row() -> None:
    history = [event("a", 1, 10), event("a", 2, 11), event("b", 3, 12), event("a", 4, 13)]
    seen = [applied("a", 2, 15), applied("b", 3, 16)]
    assert list(arrivals(history, seen)) == [(10, 15), (11, 15), (12, 16)]


def test_a_row_that_comes_again_does_not_make_its_event_late() -> None:
    assert list(arrivals([event("a", 1, 10)], [applied("a", 1, 11), applied("a", 1, 90)])) == [
        (10, 11)
    ]


def test_a_deletion_arrives_when_its_row_goes_or_when_the_next_one_comes() -> None:
    history = [event("a", 1, 10, Kind.DELETE), event("b", 2, 10, Kind.DELETE), event("b", 3, 11)]
    seen = [applied("a", 0, 9), applied("a", 0, 12), applied("b", 3, 14)]
    assert list(arrivals(history, seen)) == [(10, 12), (10, 14), (11, 14)]


def test_a_destination_is_behind_while_something_old_is_missing() -> None:
    assert behind([(0, 5), (1, 14), (2, 13), (20, 31)], 10) == [(11, 14), (30, 31)]


def test_seconds_of_outages_are_left_out() -> None:
    late = [(11.5, 12.5)]
    assert share_within((0, 20), late) == pytest.approx(18 / 20)
    assert share_within((0, 20), late, [(10, 12)]) == pytest.approx(17 / 18)
    assert share_within((0, 20), late, [(0, 20)]) == 1.0


def test_the_slope_of_a_straight_line_is_its_own() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 1)]) == 0
