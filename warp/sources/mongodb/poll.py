"""Collections read on a schedule: what a timestamp field says has changed, or everything.

As in `warp.capture.timestamp`: the place reached is not the greatest time seen but an instant of
the server's clock, or the beginning of the oldest transaction then open (guarantee 4); `times` says
which values that makes.  Documents whose field is missing, null or of another type than the three
say nothing about their age and are read in every run.

A collection in which no document has the field is compared in full: every row is read, then the
rows this run has not seen are removed, which also finds deletes; a timestamp never does.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from bson import Timestamp, json_util
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from warp.capture.clocks import instant, iso
from warp.errors import SourceRefused, SourceUnavailable
from warp.model import Position, TableId, TableSettings
from warp.sources.bson_decoding import decode
from warp.sources.mongodb.cursor import RawCursor, gathering
from warp.sources.mongodb.errors import translated
from warp.sources.mongodb.snapshot import BOUNDS
from warp.sources.mongodb.times import FAMILIES, SECOND, Clock, family_of, lowest

_REPLY_ROWS: Final = 1_000
_FULL_BYTES: Final = 8 << 20
_UNAUTHORIZED: Final = 13
# What a stamp may be older than the transaction that carries it, by clocks that differ; and where
# transactions may not be asked for, also how long the server lets one live by default.
OVERLAP: Final = 5.0
UNTOLD_OVERLAP: Final = 65.0

log = structlog.get_logger(__name__)
_told: set[TableId] = set()


@dataclass(frozen=True, slots=True)
class Run:
    """What a run reads: from which value on, and what the next one starts from."""

    low: Mapping[str, Any]  # of each family
    newest: Mapping[str, Any]
    then: int


@dataclass(frozen=True, slots=True)
class Reached:
    """How far the polls of a collection have got; printable as a position."""

    upto: int | None = None  # the instant from which the next run reads
    greatest: Mapping[str, Any] = field(default_factory=dict)  # seen of each family
    run: Run | None = None  # one under way
    seen: Mapping[str, Any] = field(default_factory=dict)  # by it

    @classmethod
    def parse(cls, position: Position | None) -> Reached:
        if position is None:
            return cls()
        try:
            said = json_util.loads(position.token, json_options=BOUNDS)
            run = None
            if "run" in said:
                low, newest = (_families(said["run"][name]) for name in ("low", "newest"))
                run = Run(low, newest, instant(said["run"]["then"]))
            return cls(
                upto=instant(said["upto"]) if "upto" in said else None,
                greatest=_families(said["cursor"]),
                run=run,
                seen=_families(said.get("seen", {})),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceRefused(
                f"the position of a polled collection was expected, found {position.token!r}; "
                "run `cartridge-warp resync SCHEMA`"
            ) from error

    def position(self, fire_time: float) -> Position:
        said: dict[str, Any] = {"cursor": _plain(self.greatest), "slot": fire_time}
        if self.upto is not None:
            said["upto"] = iso(self.upto)
        if self.run is not None:
            low, newest = _plain(self.run.low), _plain(self.run.newest)
            said["run"] = {"low": low, "newest": newest, "then": iso(self.run.then)}
            said["seen"] = _plain(self.seen)
        return Position(json.dumps(said, sort_keys=True), fire_time)

    def begun(self, clock: Clock, newest: Mapping[str, Any], settings: TableSettings) -> Reached:
        """With what this run reads."""
        overlap = overlap_of(clock, settings)
        low = {
            family: lowest(
                family,
                greatest,
                newest.get(family, greatest),
                upto=self.upto,
                zone=settings.timezone,
                overlap=overlap,
            )
            for family, greatest in self.greatest.items()
        }
        return replace(self, run=Run(low, newest, _then(clock, overlap)))

    def ended(self) -> Reached:
        if self.run is None:
            return self
        return Reached(self.run.then, {**self.greatest, **self.run.newest})

    def with_value(self, value: Any) -> Reached:
        family = family_of(value)
        return self if family is None else replace(self, seen={**self.seen, family: value})

    def filter(self, field: str) -> dict[str, Any]:
        """What may have changed since: ties again, since equal times need not be equal rows."""
        low = {**(self.run.low if self.run else self.greatest), **self.seen}
        conditions: list[dict[str, Any]] = [{field: {"$not": {"$type": list(FAMILIES.values())}}}]
        for family, type_name in FAMILIES.items():
            if family in low:
                conditions.append({field: {"$gte": low[family], "$type": type_name}})
            else:
                conditions.append({field: {"$type": type_name}})
        return {"$or": conditions}


def start(client: MongoClient[dict[str, Any]], table: TableId, settings: TableSettings) -> Reached:
    """Where polling goes on after a snapshot that begins now."""
    clock = read_clock(client)
    then = _then(clock, overlap_of(clock, settings))
    return Reached(then, newest(client[table.namespace], table, settings.timestamp_column))


def begin(
    client: MongoClient[dict[str, Any]], table: TableId, settings: TableSettings, reached: Reached
) -> Reached:
    """What this run reads, unless it is one that was cut short."""
    if reached.run is not None:
        return reached
    # The clock first: a transaction that it does not show as open is committed before the rows
    # are read, or begins later than it says (guarantee 4).
    clock = read_clock(client)
    if not clock.told and settings.overlap is None and table not in _told:
        _told.add(table)
        log.warning(
            "transactions_untold",
            table=str(table),
            mend="grant the action inprog on the cluster, or set change_detection.overlap to "
            "transactionLifetimeLimitSeconds and a little more",
        )
    found = newest(client[table.namespace], table, settings.timestamp_column)
    return reached.begun(clock, found, settings)


def read_clock(client: MongoClient[dict[str, Any]]) -> Clock:
    pipeline: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleSessions": True}},
        {"$match": {"transaction.startWallClockTime": {"$exists": True}}},
        {"$sort": {"transaction.startWallClockTime": 1}},
        {"$limit": 1},
        {"$project": {"began": "$transaction.startWallClockTime"}},
    ]
    with translated("read the server's clock"):
        now = _instant(client.admin.command("hello")["localTime"])
        try:
            found = list(client.admin.aggregate(pipeline))
        except OperationFailure as error:
            if error.code != _UNAUTHORIZED:
                raise
            return Clock(now, told=False)
    began = [instant(str(each["began"])) for each in found]
    return Clock(now, min(began, default=None))


def overlap_of(clock: Clock, settings: TableSettings) -> float:
    if settings.overlap is not None:
        return settings.overlap
    return OVERLAP if clock.told else UNTOLD_OVERLAP


def _then(clock: Clock, overlap: float) -> int:
    """The instant from which the next run reads."""
    reached = clock.now if clock.oldest is None else min(clock.now, clock.oldest)
    return reached - int(overlap * SECOND)


def _instant(moment: dt.datetime) -> int:
    since = moment.replace(tzinfo=dt.UTC) - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return since // dt.timedelta(microseconds=1)


def _families(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in FAMILIES if name in said}


def _plain(families: Mapping[str, Any]) -> Any:
    return json.loads(json_util.dumps(dict(families), json_options=BOUNDS))


def has_field(database: Database[Any], table: TableId, field: str) -> bool:
    found = database.command({"find": table.name, "filter": {field: {"$exists": True}}, "limit": 1})
    return bool(found["cursor"]["firstBatch"])


def newest(database: Database[Any], table: TableId, field: str) -> dict[str, Any]:
    """The greatest value of each family now."""
    found = Reached()
    for type_name in FAMILIES.values():
        command = {
            "find": table.name,
            "filter": {field: {"$type": type_name}},
            "sort": {field: -1},
            "projection": {field: 1, "_id": 0},
            "limit": 1,
            "batchSize": 1,
            "singleBatch": True,
        }
        cursor = RawCursor(database, command)
        try:
            with translated(f"find the newest of {table}"):
                found = _reached(found, cursor.read(1).documents, field)
        finally:
            cursor.close()
    return dict(found.seen)


def read(
    database: Database[Any],
    table: TableId,
    reached: Reached,
    field: str | None,
    *,
    version: Timestamp,
    rows: int,
    closed: threading.Event,
) -> Iterator[tuple[Sequence[bytes], Reached]]:
    """Documents in the order of `field`, with how far each part of them reaches.

    Without a field, all of them.  One consistent version: a run that takes longer than the server
    keeps it (some five minutes) fails, and the next goes on from where this one got to.
    """
    command: dict[str, Any] = {"find": table.name, "batchSize": min(rows, _REPLY_ROWS)}
    if field is not None:
        command["filter"] = reached.filter(field)
        command["sort"] = {field: 1, "_id": 1}
        command["allowDiskUse"] = True
    command["readConcern"] = {"level": "snapshot", "atClusterTime": version}
    cursor = RawCursor(database, command)
    documents = gathering()
    size = 0
    try:
        while not cursor.exhausted:
            if closed.is_set():  # to end here would look like the end of the rows
                raise SourceUnavailable("the connector was closed", place=str(table))
            with translated(f"poll {table}"):
                reply = cursor.read(max(1, min(rows - len(documents), _REPLY_ROWS)))
            documents.extend(reply.documents)
            size += reply.size
            if len(documents) >= rows or size >= _FULL_BYTES:
                reached = _reached(reached, documents, field)
                yield documents, reached
                documents, size = gathering(), 0
    finally:
        cursor.close()
    if documents:
        yield documents, _reached(reached, documents, field)


def _reached(reached: Reached, documents: Sequence[bytes], field: str | None) -> Reached:
    """They come sorted, so the last of each family is its greatest."""
    if field is None:
        return reached
    path = field.split(".")
    for document in decode(documents):
        value: Any = document
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        reached = reached.with_value(value)
    return reached
