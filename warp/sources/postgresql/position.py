"""Positions of a PostgreSQL log as text:  16/B374D848@7312345678901234567.1.16412.75310

An LSN, then what it is a place in: the system identifier, the timeline, and the publication that
was followed.  An LSN alone would be taken by any server, and skipped to (guarantee 6).  The next
number is a transaction id: what older ones did to tables' columns is known, and the log from here
on tells of them no more (see `ddl`).  Where one more follows, the log may still tell of what
transactions between the two did, and the tables that they changed are read anew already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from warp.errors import SourceRefused
from warp.model import Position

_TOKEN: Final = re.compile(
    r"([0-9A-F]{1,8})/([0-9A-F]{1,8})@(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\.(\d+))?"
)


def lsn_of(text: str) -> int:
    """`16/B374D848` as one number, which rows carry as their version."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True, slots=True)
class Log:
    """Which log an LSN is a place in."""

    system: int
    timeline: int
    publication: int  # its oid: one made anew has not published what the old one had

    def position(
        self, lsn: int, horizon: int, committed_at: float, *, read_anew: int = 0
    ) -> Position:
        text = f"{lsn_text(lsn)}@{self.system}.{self.timeline}.{self.publication}.{horizon}"
        return Position(text + (f".{read_anew}" if read_anew > horizon else ""), committed_at)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log of a server ends now."""

    lsn: int  # what comes before would survive a crash
    inserted: int  # and this much is written in all
    horizon: int  # every older transaction is over, before `inserted`
    log: Log


@dataclass(frozen=True, slots=True)
class Place:
    lsn: int
    log: Log
    horizon: int
    read_anew: int  # tables that transactions older than this have changed; not below the horizon

    @classmethod
    def parse(cls, token: str) -> Self:
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise SourceRefused(
                f"a position of a PostgreSQL log was expected, found {token!r}; "
                "run `cartridge-warp resync SCHEMA`"
            )
        lsn = int(found[1], 16) << 32 | int(found[2], 16)
        log, horizon = Log(int(found[3]), int(found[4]), int(found[5])), int(found[6])
        return cls(lsn, log, horizon, max(horizon, int(found[7] or 0)))
