"""Positions of a MongoDB stream as text: resume tokens, and moments of the cluster's clock.

    at:1795422135:13      everything up to and including this moment is known
    826B03F7…04           everything up to and including this event is known
    826B03F7…04+          … and of its moment there is no more (the server had nothing left)

A resume token's text sorts as its events do, within a transaction too, and its second to ninth
byte are the cluster time, which no driver promises but every server since 4.0 keeps (seen on
6.0.5; PeerDB relies on it as well).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

from bson import Timestamp

from warp.errors import SourceRefused
from warp.model import Position

_DRAINED: Final = "+"
_MOMENT: Final = "at:"


def order_key(time: Timestamp) -> int:
    """A cluster time as one number; rows carry it as their version."""
    return (time.time << 32) | time.inc


@dataclass(frozen=True, slots=True)
class Token:
    """Where to resume.  Without `data` it is a moment, else the event of a resume token."""

    version: int
    data: str = ""
    type_bits: bytes = b""
    drained: bool = False

    @classmethod
    def at(cls, version: int) -> Self:
        return cls(version, drained=True)

    @classmethod
    def of(cls, resume: dict[str, Any], *, drained: bool = False) -> Self:
        """From a resume token as the server sends it."""
        data = resume["_data"]
        return cls(int(data[2:18], 16), data, bytes(resume.get("_typeBits", b"")), drained)

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            if text.startswith(_MOMENT):
                seconds, increment = text.removeprefix(_MOMENT).split(":")
                return cls.at((int(seconds) << 32) | int(increment))
            data, _, bits = text.rstrip(_DRAINED).partition(":")
            drained = text.endswith(_DRAINED)
            return cls(int(data[2:18], 16), data, bytes.fromhex(bits), drained)
        except ValueError as error:
            raise SourceRefused(
                f"a position of a MongoDB stream was expected, found {text!r}; "
                "run `cartridge-warp resync SCHEMA`"
            ) from error

    def __str__(self) -> str:
        if not self.data:
            return f"{_MOMENT}{self.version >> 32}:{self.version & 0xFFFFFFFF}"
        bits = f":{self.type_bits.hex()}" if self.type_bits else ""
        return f"{self.data}{bits}{_DRAINED if self.drained else ''}"

    @property
    def timestamp(self) -> Timestamp:
        return Timestamp(self.version >> 32, self.version & 0xFFFFFFFF)

    @property
    def seconds(self) -> float:
        return float(self.version >> 32)

    def resume(self) -> dict[str, Any]:
        """The option of $changeStream that continues after this place.

        `startAfter` takes every token, also that of an invalidate event, which `resumeAfter`
        refuses with 260.
        """
        if not self.data:
            return {"startAtOperationTime": self.timestamp}
        bits = {"_typeBits": self.type_bits} if self.type_bits else {}
        return {"startAfter": {"_data": self.data, **bits}}

    def before(self, other: Token) -> bool:
        """Is this place earlier than `other`'s?  The text decides within one moment."""
        if self.version != other.version:
            return self.version < other.version
        if self.drained:
            return False  # nothing of this moment is missing
        return other.drained or self.data < other.data

    def moment_before(self) -> Token:
        """The moment before this event's: from there its whole transaction comes again."""
        return Token.at(self.version - 1)

    def covers(self, goal: Token) -> bool:
        """Was everything up to `goal` delivered by a stream that stands here?"""
        if self.version != goal.version:
            return self.version > goal.version
        return self.drained or (not goal.drained and self.data >= goal.data)

    def position(self, committed_at: float = 0.0) -> Position:
        return Position(str(self), committed_at or self.seconds)
