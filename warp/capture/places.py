"""Where a polled table stands, as the text of a position.  Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from warp.capture.clocks import instant, iso
from warp.capture.pages import Between
from warp.errors import SourceRefused
from warp.model import Position


class Strategy(StrEnum):
    TIMESTAMP = "timestamp"
    WHOLE = "whole"
    DIGESTS = "digests"  # of key ranges, compared with the destination's
    TRIGGER = "trigger"
    HISTORY = "history"  # which a source keeps of each table


@dataclass(frozen=True, slots=True)
class Reading:
    """A run under way: what it reads, and after which row it goes on."""

    after: tuple[str, ...] | None = None  # of digests: the upper bound of the last range compared
    between: Between | None = None  # of a column of times
    then: int | None = None  # the instant from which the next run reads
    first: int = 0  # of a whole reading: the version of its first row
    unseen: str = ""  # of a table with triggers: what `Triggers.changes_unseen` said before it


@dataclass(frozen=True, slots=True)
class Place:
    """How far the polls of one table have got."""

    strategy: Strategy
    about: str = ""  # the column of times, or what `Triggers.changes_unseen` said
    upto: int | None = None  # the instant from which the next run reads; None: the beginning
    greatest: str = ""  # the greatest time that was read
    version: int = 0  # of the last row read: a server that was restored may count lower
    entry: int = 0  # the last entry of the queue that was read
    reading: Reading | None = None

    def position(self, fire_time: float) -> Position:
        said: dict[str, Any] = {"strategy": self.strategy.value, "version": self.version}
        if self.about:
            said["about"] = self.about
        if self.upto is not None:
            said["upto"] = iso(self.upto)
        if self.greatest:
            said["greatest"] = self.greatest
        if self.entry:
            said["entry"] = self.entry
        if self.reading is not None:
            said["reading"] = _said(self.reading)
        said["slot"] = fire_time
        return Position(json.dumps(said, sort_keys=True), fire_time)

    def at(self, version: int, **changes: Any) -> Place:
        return replace(self, version=version, **changes)


def parse(position: Position | None, strategy: Strategy, about: str = "") -> Place | None:
    """None where nothing is known that this way of polling could go on from: read everything.

    That is so at first, after a resync, and when strategy or column were changed.
    """
    if position is None:
        return None
    place = _read(position)
    if place.strategy is not strategy:
        return None
    return place if strategy is not Strategy.TIMESTAMP or place.about == about else None


def version_of(position: Position | None) -> int:
    """The version that the polls have come to, in whichever way; the next must not fall behind."""
    return 0 if position is None else _read(position).version


def _read(position: Position) -> Place:
    try:
        said = json.loads(position.token)
        return Place(
            Strategy(said["strategy"]),
            about=str(said.get("about", "")),
            upto=instant(said["upto"]) if "upto" in said else None,
            greatest=str(said.get("greatest", "")),
            version=int(said["version"]),
            entry=int(said.get("entry", 0)),
            reading=_reading(said["reading"]) if "reading" in said else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SourceRefused(
            f"the position of a polled table was expected, found {position.token!r}; "
            "run `cartridge-warp resync SCHEMA`"
        ) from error


def is_polled(position: Position) -> bool:
    """Is this the position of a poll, and none of a log?"""
    return position.token.startswith("{") and '"strategy"' in position.token


def _said(reading: Reading) -> dict[str, Any]:
    said: dict[str, Any] = {"first": reading.first}
    if reading.after is not None:
        said["after"] = list(reading.after)
    if reading.between is not None:
        said["from"], said["to"] = reading.between.low, reading.between.high
    if reading.then is not None:
        said["then"] = iso(reading.then)
    if reading.unseen:
        said["unseen"] = reading.unseen
    return said


def _reading(said: dict[str, Any]) -> Reading:
    return Reading(
        after=tuple(map(str, said["after"])) if "after" in said else None,
        between=Between(said["from"], str(said["to"])) if "to" in said else None,
        then=instant(said["then"]) if "then" in said else None,
        first=int(said["first"]),
        unseen=str(said.get("unseen", "")),
    )
