"""The digest of any set of rows: how many there are, and two sums of their hashes.  Pure.

Sums add up, so the digest of a key range is that of its parts, however it is cut; a row that is
there twice counts twice (an exclusive or would lose both).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from warp.digest.canonical import hash_of, row_texts
from warp.model import Cells, Column

LEAVES: Final = 4096
"""Into how many leaves a key range falls apart, by the hash of the key."""
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Sums:
    """Of some rows: their number, and the sums of the halves of their hashes, modulo 2**64."""

    rows: int = 0
    high: int = 0
    low: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.rows + other.rows,
            (self.high + other.high) & _MASK,
            (self.low + other.low) & _MASK,
        )

    @classmethod
    def of(cls, hashes: Sequence[bytes]) -> Self:
        halves = struct.unpack(f">{2 * len(hashes)}Q", b"".join(hashes))
        return cls(len(hashes), sum(halves[::2]) & _MASK, sum(halves[1::2]) & _MASK)

    @classmethod
    def told(cls, rows: int, high: int | None, low: int | None) -> Self:
        """As a server summed them up: with or without a sign, of no rows NULL."""
        return cls(int(rows), int(high or 0) & _MASK, int(low or 0) & _MASK)

    def __str__(self) -> str:
        return f"{self.rows}:{self.high:016x}{self.low:016x}"

    @classmethod
    def read(cls, text: str) -> Self:
        """What `str` wrote; ValueError where it is something else."""
        rows, _, halves = text.partition(":")
        if len(halves) != 32:
            raise ValueError(f"expected ROWS:32 hexadecimal digits, found {text[:60]!r}")
        return cls(int(rows), int(halves[:16], 16), int(halves[16:], 16))


def total(parts: Iterable[Sums]) -> Sums:
    found = Sums()
    for part in parts:
        found += part
    return found


def leaves_of(key: Sequence[Column], cells: Sequence[Cells]) -> list[int]:
    """The leaf of each row: the first twelve bits of the hash of its key's text."""
    return [leaf_of(text) for text in row_texts(key, cells)]


def leaf_of(key_text: str) -> int:
    first, second = hash_of(key_text)[:2]
    return first << 4 | second >> 4
