"""What a MongoDB server must be and allow, decided from what it answered.  Pure.

The connector asks (`MongoSource._look`), this says what the answers mean and how to mend them, in
statements for mongosh.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from warp.diagnosis import encryption, failed, ok, warning
from warp.model import Diagnosis, Headroom

OLDEST_WIRE: Final = 13  # MongoDB 5.0: reads at a cluster time outside transactions
ENOUGH_HOURS: Final = 24.0  # of oplog: a night without anybody who looks
_FULL: Final = 0.9  # an oplog of this share of its size has begun to forget

# Kinds of collection that have no change stream -> what to read in their stead.
_INSTEAD: Final = {
    "view": "carry the collections it is made of",
    "timeseries": "MongoDB keeps no log of it",
}


def topology(hello: Mapping[str, Any]) -> Diagnosis:
    expected = "a replica set or mongos, which has change streams"
    if hello.get("msg") == "isdbgrid":
        return ok("mongodb-topology", "server", expected, "mongos")
    if "setName" in hello:
        return ok("mongodb-topology", "server", expected, f"replica set {hello['setName']}")
    return failed(
        "mongodb-topology",
        "server",
        expected,
        "a standalone server",
        "start mongod with --replSet rs0 and run rs.initiate()",
    )


def wire(hosts: Iterable[str], *, encrypted: bool) -> Diagnosis:
    mend = "add tls=true to the connection string (docs/operations/tls.md)"
    return encryption("mongodb-encryption", hosts, encrypted, mend)


def version(hello: Mapping[str, Any], said: str) -> Diagnosis:
    expected = "MongoDB 5.0 or later"
    if hello["maxWireVersion"] < OLDEST_WIRE:
        return failed("mongodb-version", "server", expected, said, "upgrade the server to 5.0")
    return ok("mongodb-version", "server", expected, said)


def right(action: str, place: str, user: Mapping[str, str] | None, *, given: bool) -> Diagnosis:
    """May the user do this to a database, or to all (`place` is empty)?"""
    subject = f"{action} on {place or 'every database'}"
    expected = f"the right to {action}"
    if given:
        return ok("mongodb-rights", subject, expected, "given")
    return failed("mongodb-rights", subject, expected, "not given", grant(user, place))


def grant(user: Mapping[str, str] | None, place: str, *, oplog: bool = False) -> str:
    """A statement that lets the user read a database (all of them), or the oplog."""
    if user is None:
        return "let the connection string name a user, and give it the role `read`"
    role: dict[str, str] = {"role": "read" if place else "readAnyDatabase", "db": place or "admin"}
    if oplog:
        role = {"role": "read", "db": "local"}
    database, name = json.dumps(user["db"]), json.dumps(user["user"])
    return f"db.getSiblingDB({database}).grantRolesToUser({name}, [{json.dumps(role)}])"


def oplog(
    window: tuple[float, float] | None,
    filled: float | None,
    user: Mapping[str, str] | None,
    *,
    megabytes: float = 0.0,
) -> Diagnosis:
    """How long may a stream be away before its place is gone?

    `filled` is the share of its size that the oplog has reached; None where it may not be asked.
    """
    code, subject = "mongodb-oplog", "local.oplog.rs"
    expected = f"a log that reaches back {ENOUGH_HOURS:.0f} hours"
    if window is None:
        return warning(
            code,
            subject,
            f"{expected}, and the right to see how far",
            "it may not be read, so that nobody is warned before a position is lost",
            grant(user, "local", oplog=True),
        )
    hours = (window[1] - window[0]) / 3600
    if hours >= ENOUGH_HOURS:
        return ok(code, subject, expected, f"{hours:.0f} hours")
    if filled is not None and filled < _FULL:
        return ok(code, subject, expected, f"{hours:.1f} hours and room: {filled:.0%} full")
    return warning(
        code, subject, expected, f"{hours:.1f} hours, and it is full", resize(megabytes, hours)
    )


def resize(megabytes: float, hours: float) -> str:
    """A statement that makes the oplog larger by as much as is missing, and never lets it forget
    sooner whatever is written."""
    wanted = max(990.0, megabytes * min(10.0, ENOUGH_HOURS / max(hours, 0.01)))
    return (
        "db.adminCommand({replSetResizeOplog: 1, "
        f"size: Double({wanted:.0f}), minRetentionHours: Double({ENOUGH_HOURS:.0f})}})"
    )


def headroom(
    at: float,
    window: tuple[float, float] | None,
    filled: float | None,
    *,
    megabytes: float = 0.0,
) -> Headroom:
    """How long until an oplog of this window has forgotten the moment `at`?

    The oplog forgets at its start what it gains at its end once it is full, so a place is gone
    when as much time has been added as lies before it; and what it gains until it is full counts
    in full.
    """
    if window is None:
        return Headroom("the oplog may not be read, or lies on shards")
    oldest, newest = window
    kept = newest - oldest
    whole = kept / max(filled, 1e-6) if filled is not None and filled < _FULL else kept
    told = (
        f"the marker stands {max(0.0, at - oldest):.0f} s behind the start of an oplog that "
        f"reaches back {kept:.0f} s"
    )
    if whole > kept:
        told += f" and is {filled:.0%} full"
    mend = resize(megabytes, whole / 3600)
    if at < oldest:
        lost = f"the oplog begins {oldest - at:.0f} s after the marker"
        return Headroom(lost, 0.0, 0.0, window=kept, lost=True, mend=mend)
    if not whole:  # begun this moment, so that nobody knows its pace
        return Headroom(told, 1.0, window=kept, mend=mend)
    seconds = at - oldest + whole - kept
    return Headroom(told, min(1.0, seconds / whole), seconds, window=kept, mend=mend)


def left_out(table: str, kind: str) -> Diagnosis:
    name = table.partition(".")[2]
    return warning(
        "mongodb-left-out",
        table,
        "a collection, which has a change stream",
        f"a {kind}: {_INSTEAD.get(kind, 'it has none')}",
        f"leave it out: `tables: [{json.dumps('!' + name)}]`",
    )


def tables(names: list[str]) -> Diagnosis:
    expected = "collections to carry"
    if not names:
        return warning(
            "mongodb-tables",
            "collections",
            expected,
            "none yet",
            "write to one; or correct the schema's `name` and `tables`",
        )
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ok("mongodb-tables", "collections", expected, ", ".join(names[:5]) + more)
