"""Is a difference one, or only a change on its way?  Pure.

Source and destination are read one after the other while both are written.  What is seen of a key
counts as a difference only where two looks agree: each read the source, waited until the stream had
passed a place in the log at least as late, and read the destination.  Where the destination's row
is the same both times, its version too, no change of the key was on its way between them, so the
destination should have had what the source had at the second look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from warp.digest.sums import Sums
from warp.model import UNCHANGED, Column

Forms = tuple[Any, ...]
"""Of each compared column its canonical text; None for NULL, UNCHANGED where any will do."""

Key = tuple[str | None, ...]
"""The forms of a row's key."""


class Sort(StrEnum):
    """What is wrong with a row of the destination."""

    MISSING = "missing"  # the source has it
    EXTRA = "extra"  # the source has not got it
    DIFFERS = "differs"  # in some of its columns
    # Several rows have its key, which not every server forbids; or, of a table without a key: it
    # is there more often, or less often.
    DUPLICATE = "duplicate"


class Judgement(StrEnum):
    SAME = "same"
    ASIDE = "aside"  # the row was set aside, or waits for another: known, and told elsewhere
    LATER = "later"  # it may have changed since what is compared: the next run brings it
    DIFFERENT = "different"
    MOVING = "moving"  # look again


NO_VERSION: Final = -2
"""Of a row that somebody else wrote, without a version or a key, and that no change lands on."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the destination has of a key.  A tombstone and a soft-deleted row are `gone`."""

    version: int
    gone: bool
    forms: Forms
    copies: int = 1  # rows of this key that are not gone; of several this is the newest

    @property
    def reachable(self) -> bool:
        """Does a change of the key land here, and leave one row?"""
        return self.copies < 2 and self.version != NO_VERSION


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a key, at both ends."""

    expected: Forms | None = None  # None: the source has no such row
    aside: bool = False  # the source's row is one that cannot be written
    stored: Stored | None = None
    later: bool = False  # not sure to be of the moment that is compared
    at: int | None = None  # that moment, as a version, where it is not now

    @property
    def found(self) -> Forms | None:
        return None if self.stored is None or self.stored.gone else self.stored.forms

    @property
    def reachable(self) -> bool:
        return self.stored is None or self.stored.reachable


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not at the destination as it should be."""

    key: Key
    sort: Sort
    columns: tuple[str, ...] = ()  # those that differ
    version: int | None = None  # of the destination's row


def differing(seen: Seen, columns: Sequence[Column]) -> list[str]:
    """The columns in which a row that both have differs."""
    if seen.expected is None or seen.found is None:
        return []
    return [
        column.name
        for column, wanted, found in zip(columns, seen.expected, seen.found, strict=True)
        if wanted is not UNCHANGED and wanted != found
    ]


def is_same(seen: Seen, columns: Sequence[Column]) -> bool:
    if seen.expected is None or seen.found is None:
        return seen.expected is seen.found
    return seen.reachable and not differing(seen, columns)


def judge(before: Seen | None, now: Seen, columns: Sequence[Column]) -> Judgement:
    """What two looks, one after the other, say of a key."""
    if is_same(now, columns):
        return Judgement.SAME
    if now.aside:
        return Judgement.ASIDE
    if now.later:
        return Judgement.LATER
    if before is None or before.stored != now.stored or before.expected != now.expected:
        return Judgement.MOVING
    return Judgement.DIFFERENT


def difference(key: Key, seen: Seen, columns: Sequence[Column]) -> Difference:
    """What is wrong with a key that was judged DIFFERENT."""
    version = None if seen.stored is None else seen.stored.version
    if seen.expected is None:
        return Difference(key, Sort.EXTRA, version=version)
    if seen.found is None:
        return Difference(key, Sort.MISSING, version=version)
    copied = seen.stored is not None and seen.stored.copies > 1
    sort = Sort.DUPLICATE if copied else Sort.DIFFERS
    return Difference(key, sort, tuple(differing(seen, columns)), version)


def leaves_apart(ours: Mapping[int, Sums], theirs: Mapping[int, Sums]) -> list[int]:
    """The leaves whose digests differ."""
    none: Final = Sums()
    return sorted(
        leaf for leaf in {*ours, *theirs} if ours.get(leaf, none) != theirs.get(leaf, none)
    )


def in_groups(
    apart: Iterable[int], ours: Mapping[int, Sums], theirs: Mapping[int, Sums], most: int
) -> list[list[int]]:
    """The same leaves in groups of no more than `most` rows of both sides, or of one leaf."""
    none: Final = Sums()
    groups: list[list[int]] = []
    room = 0
    for leaf in apart:
        rows = ours.get(leaf, none).rows + theirs.get(leaf, none).rows
        if not groups or rows > room:
            groups.append([])
            room = most
        groups[-1].append(leaf)
        room -= rows
    return groups


def keys_apart(
    ours: Iterable[tuple[Key, bytes | None]], theirs: Iterable[tuple[Key, bytes]]
) -> list[Key]:
    """The keys to be looked at: those that only one side has, or whose hashes differ.

    A hash of None, of a row that no hash tells whole, differs from every other; so does one of a
    key that the destination has twice.
    """
    left: dict[Key, bytes] = {}
    for key, hash_ in theirs:
        left[key] = b"" if key in left else hash_
    apart = [key for key, hash_ in ours if left.pop(key, b"") != hash_]
    return [*apart, *left]


def rows_apart(ours: Iterable[Key], theirs: Iterable[Key]) -> dict[Key, int]:
    """Of rows without a key: how many more the source has of each, or (below 0) fewer."""
    found = Counter(ours)
    found.subtract(theirs)
    return {row: count for row, count in found.items() if count}
