"""Messages of a COPY straight from the libpq under psycopg, many at once.

psycopg hands out each message as a Python object of its own, which costs more than all else that
is done with a row.  The compiled receiver calls the same functions of the same library instead.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq

from warp import native

if TYPE_CHECKING:
    from warp.native.postgresql import Frames, Receiver

_NAMES: Final = ("PQgetCopyData", "PQfreemem", "PQconsumeInput")
_NO_LIMIT: Final = 1 << 62


@cache
def _receiver() -> Receiver | None:
    """None where psycopg's library does not show its functions: then psycopg reads."""
    library = _library()
    if library is None:
        return None
    try:
        addresses = [ctypes.cast(library[name], ctypes.c_void_p).value or 0 for name in _NAMES]
    except AttributeError:
        return None
    return native.postgresql.Receiver(*addresses) if all(addresses) else None


def _library() -> ctypes.CDLL | None:
    """A name looked up in it is found in the library that psycopg itself was linked with."""
    if pq.__impl__ not in ("binary", "c"):
        return None
    compiled = import_module(f"psycopg_{pq.__impl__}.pq")
    try:
        return ctypes.CDLL(compiled.__file__)
    except OSError:
        return None


def receiver() -> Receiver | None:
    """To be asked once for each COPY; None where the plain Python half is at work."""
    return _receiver() if native.active() else None


def receive(
    connection: pq.abc.PGconn,
    take: Receiver,
    into: Frames,
    most_bytes: int,
    most: int = _NO_LIMIT,
) -> int:
    """What is there, without waiting; says why it stopped (`native.postgresql.FULL`, WAIT, …)."""
    address: int | None = getattr(connection, "pgconn_ptr", None)  # None once it is finished
    status = take.receive(into, address or 0, most_bytes, most)
    if status == native.postgresql.LOST:
        # In psycopg's words, which are explained elsewhere.
        raise psycopg.OperationalError(f"consuming input failed: {connection.get_error_message()}")
    return status
