"""A server cursor driven by raw commands: replies stay bytes, and every event keeps its token.

The driver's own change stream costs 13 CPU-seconds per million events and hides
postBatchResumeToken; these commands cost 1.3 [measured, MongoDB 6.0.5].  The price is that
resuming is ours (`stream`, `snapshot`).
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import bson
from bson import Int64
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import InvalidOperation, PyMongoError

from warp import native
from warp.sources.elements import elements

if TYPE_CHECKING:
    from warp.native.replies import Slices

RAW: Final = CodecOptions(document_class=RawBSONDocument)

_PATIENCE: Final = 5.0  # seconds for a read to notice that its cursor is gone

_LENGTH: Final = struct.Struct("<i").unpack_from


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the server: documents as it sent them."""

    documents: Sequence[bytes]
    size: int  # bytes of the documents
    resume: dict[str, Any] | None  # postBatchResumeToken


class RawCursor:
    """One open cursor.  Not for use from two threads, but `close` may come from another."""

    def __init__(self, database: Database[Any], command: Mapping[str, Any]) -> None:
        """`command` is an aggregate or a find; it runs on the first `read`."""
        self._database = database
        self._command = dict(command)
        # Server cursors belong to the session that opened them, so a cursor has one of its own.
        self._session: ClientSession | None = None
        self._id: int | None = None
        self._collection = ""
        self._closed = False
        self._busy = threading.Lock()

    @property
    def exhausted(self) -> bool:
        return self._id == 0

    def read(self, batch_size: int, wait_ms: int | None = None) -> Reply:
        """The next documents: at most `batch_size`, waiting up to `wait_ms` on a tailable one."""
        if self._id is None:
            self._session = self._database.client.start_session(causal_consistency=False)
            return self._take(self._run(self._command))
        more: dict[str, Any] = {"getMore": Int64(self._id), "collection": self._collection}
        more["batchSize"] = batch_size
        if wait_ms is not None:
            more["maxTimeMS"] = wait_ms
        return self._take(self._run(more))

    def _run(self, command: dict[str, Any]) -> bytes:
        with self._busy:
            if self._closed:
                raise InvalidOperation("the cursor was closed")
            reply = self._database.command(command, codec_options=RAW, session=self._session)
        return bytes(reply.raw)

    def _take(self, reply: bytes) -> Reply:
        found = native.replies.cut(reply) if native.active() else None
        if found is not None:
            self._id, namespace, token, documents, size = found
            self._collection = namespace.partition(".")[2]
            return Reply(documents, size, None if token is None else bson.decode(token))
        return self._taken(reply)

    def _taken(self, reply: bytes) -> Reply:
        cursor = next(value for _, name, value in elements(reply) if name == b"cursor")
        del reply  # a document may have 16 MB: the fewer copies at once, the better (guarantee 9)
        documents: list[bytes] = []
        resume: dict[str, Any] | None = None
        size = 0
        for _, name, value in elements(cursor):
            if name in (b"nextBatch", b"firstBatch"):
                documents, size = array_of_documents(value), len(value)
            elif name == b"postBatchResumeToken":
                resume = bson.decode(value)
            elif name == b"id":
                self._id = int.from_bytes(value, "little", signed=True)
            elif name == b"ns":
                self._collection = value[4:-1].decode().partition(".")[2]
        return Reply(documents, size, resume)

    def close(self) -> None:
        """End the cursor at the server, which also ends a read that waits there."""
        if self._closed:
            return
        self._closed = True
        if self._id:
            command = {"killCursors": self._collection, "cursors": [Int64(self._id)]}
            with contextlib.suppress(PyMongoError):  # it dies with its session anyway
                self._database.command(command)
        # Not before the read has come back: a client closed under it would make it wait for a
        # server until its timeout.
        came_back = self._busy.acquire(timeout=_PATIENCE)
        if came_back:
            self._busy.release()
        if self._session is not None and came_back:
            self._session.end_session()


def gathering() -> Slices | list[bytes]:
    """Where documents of several replies are gathered."""
    return native.replies.Slices() if native.active() else []


def array_of_documents(array: bytes) -> list[bytes]:
    """The documents of a BSON array, without looking into them."""
    documents: list[bytes] = []
    add = documents.append
    at, end = 4, len(array) - 1
    while at < end:
        start = array.index(0, at) + 1  # behind the type and the place, which is decimal text
        at = start + _LENGTH(array, start)[0]
        add(array[start:at])
    return documents
