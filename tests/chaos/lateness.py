"""How late each event of a source arrived, and in which seconds a destination was behind.  Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from history import Event, Outcome
from verdict import Applied, RowKey

Arrival = tuple[float, float]  # when it was written and when it was there, in Unix seconds
Span = tuple[float, float]


def arrivals(history: Iterable[Event], applied: Iterable[Applied]) -> Iterator[Arrival]:
    """Of every event that surely took place and arrived, by itself or with a later one of its row.

    A deletion arrives when its row goes, which no stamp tells: it is taken for the first one after.
    """
    stamps: dict[RowKey, list[tuple[int, float]]] = defaultdict(list)
    gone: dict[RowKey, list[float]] = defaultdict(list)
    for each in applied:
        if each.deleted:
            gone[each.table, each.key].append(each.at)
        else:
            stamps[each.table, each.key].append((each.stamp, each.at))
    earliest = {row: _earliest(found) for row, found in stamps.items()}
    for times in gone.values():
        times.sort()
    for event in history:
        if event.outcome is not Outcome.SURE or event.refused:
            continue
        found = _first(earliest.get(event.row, []), event.stamp)
        if not event.alive:
            times = gone.get(event.row, [])
            at = bisect_left(times, event.at)
            found = min([found, *times[at : at + 1]])
        if found < float("inf"):
            yield event.at, found


def _earliest(found: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """By stamp, with the first moment at which that stamp or a later one was there."""
    soonest = float("inf")
    made = []
    for stamp, at in sorted(found, reverse=True):
        soonest = min(soonest, at)
        made.append((stamp, soonest))
    return made[::-1]


def _first(earliest: Sequence[tuple[int, float]], stamp: int) -> float:
    at = bisect_left(earliest, (stamp, 0.0))
    return earliest[at][1] if at < len(earliest) else float("inf")


def behind(arrived: Iterable[Arrival], limit: float) -> list[Span]:
    """When something older than `limit` seconds was missing; spans do not overlap."""
    spans: list[Span] = []
    for start, end in sorted((w + limit, there) for w, there in arrived if there - w > limit):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def share_within(seconds: Span, late: Sequence[Span], left_out: Sequence[Span] = ()) -> float:
    """Of the whole seconds between two moments, less those that are left out: the share in which
    nothing was late."""
    counted = good = 0
    second = seconds[0]
    while second + 1 <= seconds[1]:
        this = second, second + 1
        if not _touches(this, left_out):
            counted += 1
            good += not _touches(this, late)
        second += 1
    return good / counted if counted else 1.0


def _touches(second: Span, spans: Sequence[Span]) -> bool:
    return any(start < second[1] and second[0] < end for start, end in spans)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line closest to them; 0 where there are too few."""
    count = len(points)
    if count < 2:
        return 0.0
    middle_x = sum(x for x, _ in points) / count
    middle_y = sum(y for _, y in points) / count
    width = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width if width else 0.0
