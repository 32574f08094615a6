"""What each error of the server or the driver means for the unit: wait, stop, or the log is gone.

Seen on PostgreSQL 18.6 and 15 except where a comment says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from warp.errors import PositionLost, SourceRefused, SourceUnavailable, WarpError
from warp.options import redact

OBJECT_IN_USE: Final = "55006"  # the slot is active for another process
NOT_IN_PREREQUISITE_STATE: Final = "55000"
DUPLICATE_OBJECT: Final = "42710"
UNDEFINED_OBJECT: Final = "42704"
QUERY_CANCELED: Final = "57014"
LOCK_NOT_AVAILABLE: Final = "55P03"
INSUFFICIENT_PRIVILEGE: Final = "42501"
CONFIGURATION_LIMIT: Final = "53400"  # all replication slots are in use

# Stands for a SQLSTATE where libpq would not go on with this server.
TLS: Final = "TLS"
_REFUSED: Final = {
    TLS: "correct sslmode and sslrootcert in the connection string, or the server's certificate",
    "28": "check the user and the password in the connection string, and pg_hba.conf",
    "3D": "create the database or name another in the connection string",
    INSUFFICIENT_PRIVILEGE: "grant the right to the user of the connection string; "
    "docs/sources/postgresql.md lists those it needs",
    CONFIGURATION_LIMIT: "raise max_replication_slots and restart, or drop a slot that nobody uses",
}
"""SQLSTATE or its class -> what a person does about it."""

_WAITING: Final = frozenset(
    {
        "08",  # connection
        "40001",
        "40P01",
        "53",  # out of memory, disk or connections
        "57",  # shutting down, starting up, cancelled
        "58",  # the server's disk
        OBJECT_IN_USE,
        LOCK_NOT_AVAILABLE,
        "25P03",
    }
)
_ADVICE: Final = {
    "53": "free connections, memory or disk at the server; it is tried again",
    "55": "another session holds it; it is tried again",
    "57": "the server is stopping or was told to end this session; it is tried again",
}

# A refused login carries no SQLSTATE in libpq, nor does any error of a replication connection
# that ended: only the server's words.
_WORDS: Final = (
    (re.compile(r"password authentication failed|no password supplied"), "28P01"),
    (re.compile(r"role \".*\" does not exist|pg_hba\.conf|authentication failed"), "28000"),
    (re.compile(r"database \".*\" does not exist"), "3D000"),
    (re.compile(r"permission denied (for database|to start WAL sender)"), INSUFFICIENT_PRIVILEGE),
    (re.compile(r"must be superuser or replication role"), INSUFFICIENT_PRIVILEGE),
    (re.compile(r"is not permitted to log in"), "28000"),
    (re.compile(r"does not support SSL|certificate"), TLS),
    (re.compile(r"invalid (connection option|port number|sslmode)"), "28000"),
    (re.compile(r"replication slot .* is active for PID"), OBJECT_IN_USE),
)

# 18: "can no longer access replication slot"; 15: "cannot read from logical replication slot …
# This slot has been invalidated"; the last one (reasoned) where a file vanished under the reader.
_LOST: Final = re.compile(
    r"can no longer access replication slot|has been invalidated|"
    r"replication slot \".*\" does not exist|requested WAL segment .* has already been removed"
)


class Explainer:
    """Turns errors of one connection string into ours; knows the place and the password."""

    def __init__(self, place: str, password: str) -> None:
        self.place = place
        self._password = password

    def said(self, error: psycopg.Error | str) -> str:
        """The words of the error, in one line and without a secret (guarantee 10)."""
        words = " ".join(redact(str(error)).split())
        return words.replace(self._password, "***") if self._password else words

    def explain(self, error: psycopg.Error, doing: str) -> WarpError:
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if error.sqlstate is None and not lost:  # the driver's own: we asked it wrongly
            return WarpError(f"could not {doing}: {self.said(error)}", place=self.place)
        return self.explain_words(error.sqlstate, str(error), doing)

    def explain_words(self, state: str | None, words: str, doing: str) -> WarpError:
        """`doing` completes "could not …"; without a state the words decide."""
        said = self.said(words)
        if _LOST.search(words):
            return self.lost(said)
        found = state or next((s for pattern, s in _WORDS if pattern.search(words)), "")
        for part in (found, found[:2]):
            if part in _REFUSED:
                return SourceRefused(
                    f"could not {doing}: {said}; {_REFUSED[part]}", place=self.place
                )
        if not found:
            return SourceUnavailable(
                f"a PostgreSQL that answers was expected; could not {doing}: {said}; start the "
                "server or correct the source's connection string",
                place=self.place,
            )
        if found in _WAITING or found[:2] in _WAITING:
            advice = _ADVICE.get(found[:2], "it is tried again")
            return SourceUnavailable(f"could not {doing}: {said}; {advice}", place=self.place)
        return SourceRefused(f"could not {doing}: {said} (SQLSTATE {found})", place=self.place)

    def lost(self, why: str) -> PositionLost:
        """The log does not hold the marker's place any more (guarantee 6)."""
        return PositionLost(
            f"the log from the marker on was expected, found: {why}; changes in between cannot be "
            "read any more: run `cartridge-warp recover SCHEMA`, which makes the slot anew and "
            "writes only rows that differ, or `cartridge-warp resync SCHEMA`, which reads all of "
            "them again; mind max_slot_wal_keep_size, and who drops slots",
            place=self.place,
        )

    @contextmanager
    def meaning(self, doing: str) -> Iterator[None]:
        """Errors of the driver inside leave as errors of ours."""
        try:
            yield
        except psycopg.Error as error:
            raise self.explain(error, doing) from error
