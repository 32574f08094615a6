"""Change events as bytes -> operation, table, version and document.  Pure.

An event is recognised by its exact layout (what MongoDB 6 to 8 send), so that its document is cut
out without being decoded; any other layout is read element by element.  Both give the same.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import bson

from warp.model import Operation
from warp.sources.elements import elements

_OPERATIONS: Final = {
    b"insert": int(Operation.CREATE),
    b"update": int(Operation.UPDATE),
    b"replace": int(Operation.UPDATE),
    b"delete": int(Operation.DELETE),
}

_LENGTH: Final = struct.Struct("<i").unpack_from

# Up to the document.  Strings are (length, text, NUL); a transaction's events start with its number
# and session.
_HEAD: Final = re.compile(
    rb".{4}"
    rb"(?:\x12txnNumber\0.{8}\x03lsid\0.{4}\x05id\0.{21}\x05uid\0.{37}\0)?"
    rb"\x03_id\0.{4}\x02_data\0.{4}([0-9A-F]+)\0\0"
    rb"\x02operationType\0.{4}(insert|update|replace|delete)\0"
    rb"\x11clusterTime\0(.{8})"
    rb"\x09wallTime\0(.{8})"
    rb"(?:(\x03)fullDocument\0|\x0afullDocument\0)?",
    re.DOTALL,
)
_NAMESPACE: Final = re.compile(
    rb"\x03ns\0(.{4}\x02db\0.{4}[^\0]*\0\x02coll\0.{4}[^\0]*\0\0)\x03documentKey\0", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """Something happened to a collection, the database or the stream."""

    token: dict[str, Any]
    operation: str
    database: str
    collection: str
    to: tuple[str, str] | None  # a rename's new name
    version: int
    wall_ms: int


RowEvent = tuple[bytes | dict[str, Any], int, bytes, int, int, bytes | None]
"""A row was written or deleted: (token, operation, namespace, version, wall ms, document).

The token is the text of its `_data`, or the whole of it; the namespace is {db, coll} as BSON, for
`table_of`, once per table; of a delete the document is its key; None is an updated document that
was gone before it could be looked up.
"""


def fast(event: bytes) -> RowEvent | None:
    """A row event of the known layout; None: use `careful`."""
    head = _HEAD.match(event)
    if head is None:
        return None
    token, operation, version, wall, full = head.groups()
    at = head.end()
    document = None
    if full is not None:
        start, at = at, at + _LENGTH(event, at)[0]
        document = event[start:at]
    space = _NAMESPACE.match(event, at)
    if space is None:
        return None
    if operation == b"delete":
        start = space.end()
        document = event[start : start + _LENGTH(event, start)[0]]
    elif document is None:
        return None
    from_bytes = int.from_bytes
    return (
        token,
        _OPERATIONS[operation],
        space.group(1),
        from_bytes(version, "little"),
        from_bytes(wall, "little"),
        document,
    )


def parse(event: bytes) -> RowEvent | OtherEvent:
    return fast(event) or careful(event)


def careful(event: bytes) -> RowEvent | OtherEvent:
    """Any event, element by element."""
    return _of_parts({name: value for _, name, value in elements(event)})


def with_document(event: bytes, look_up: Callable[[bytes], bytes | None]) -> RowEvent | OtherEvent:
    """An event that was sent without its document, with what `look_up` finds by its key."""
    parts = {name: value for _, name, value in elements(event)}
    if b"documentKey" in parts:
        parts[b"fullDocument"] = look_up(parts[b"documentKey"]) or b""
    return _of_parts(parts)


def _of_parts(parts: dict[bytes, bytes]) -> RowEvent | OtherEvent:
    token: dict[str, Any] = bson.decode(parts[b"_id"])
    operation = parts[b"operationType"][4:-1]
    version = int.from_bytes(parts[b"clusterTime"], "little")
    wall_ms = int.from_bytes(parts.get(b"wallTime", b""), "little", signed=True)
    if operation in _OPERATIONS:
        name = b"documentKey" if operation == b"delete" else b"fullDocument"
        document = parts.get(name) or None  # null has no bytes
        return token, _OPERATIONS[operation], parts[b"ns"], version, wall_ms, document
    namespace = parts.get(b"ns")
    database, collection = table_of(namespace) if namespace else ("", "")
    to = table_of(parts[b"to"]) if b"to" in parts else None
    return OtherEvent(token, operation.decode(), database, collection, to, version, wall_ms)


def table_of(namespace: bytes) -> tuple[str, str]:
    """(database, collection) of an event's `ns`; no collection where a database was dropped."""
    names = bson.decode(namespace)
    return names["db"], names.get("coll", "")
