"""A replication connection: the log's messages in, what may be forgotten out.

Spoken through `psycopg.pq`, since psycopg itself has no replication; the layouts are those of
"Streaming Replication Protocol" in PostgreSQL's documentation.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq, sql

from warp import native
from warp.errors import SourceUnavailable, WarpError
from warp.sources.postgresql import libpq
from warp.sources.postgresql.pgoutput import PADDING
from warp.sources.postgresql.position import lsn_of, lsn_text
from warp.sources.postgresql.session import Server

if TYPE_CHECKING:
    from warp.native.postgresql import Frames, Receiver

DATA: Final = ord("w")
KEEPALIVE: Final = ord("k")
HEADER: Final = 25  # bytes of a DATA message before the plugin's own

_READ_BYTES: Final = 1 << 20
_FEW_BYTES: Final = 64 << 10
_DENSE: Final = 0.001  # seconds between two reads that both found something
_NAP: Final = 0.001  # what an event may be later, where they come that densely
_SPEAK_AFTER: Final = 5.0  # seconds; a walsender takes us for dead after wal_sender_timeout, 60 s
# A server that is asked whether it is there says so at once, unless it decodes a large transaction
# of which we want nothing; its own `wal_sender_timeout` would end that after a minute.
_SILENT: Final = 120.0  # seconds without an answer
_ANSWERED_WITHIN: Final = 60.0  # seconds, of what is asked before the log flows
_EPOCH: Final = 946_684_800
_keepalive = struct.Struct(">QqB").unpack_from
_status = struct.Struct(">cQQQqB").pack


class Replication:
    """One connection that follows a slot."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._confirmed = 0  # what the server was told it may forget
        self._spoken = 0.0
        self._closing = threading.Lock()
        self._wake: int | None
        server.still_open()
        self._woken, self._wake = os.pipe()
        # Not `pq.PGconn.connect`, nor its `exec_`: they hold Python's lock as long as they wait,
        # and with it the heartbeat and every other unit of the process.
        try:
            self._owner = psycopg.connect(server.conninfo(replication=True), autocommit=True)
        except psycopg.Error as error:
            os.close(self._woken)
            os.close(self._wake)
            words = str(error)
            doing = "connect for replication"
            raise server.explainer.explain_words(None, words, doing) from error
        self._connection = self._owner.pgconn
        self._connection.nonblocking = 1
        self._receiver = libpq.receiver()
        self._read_at = 0.0  # and found something
        self._asked_at: float | None = None  # whether the server is there; None: it has answered

    @property
    def pid(self) -> int:
        """Of the walsender."""
        return self._connection.backend_pid

    def start(self, slot: str, lsn: int, plugin_options: Mapping[str, str]) -> None:
        """Follow the slot from `lsn` on; but from where it was confirmed to, if that is later."""
        options = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in plugin_options.items()
        )
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot), sql.SQL(lsn_text(lsn)), options
        )
        result = self._ask(command.as_string())
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise self._explained(result, f"follow the slot {slot}")

    def left_timeline(self, old: int, current: int) -> int | None:
        """Where this server's history left an older timeline; None where it was never on it."""
        if old > current:
            return None
        result = self._ask(f"TIMELINE_HISTORY {current}")
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise self._explained(result, f"read the history of timeline {current}")
        history = (result.get_value(0, 1) or b"").decode("utf-8", "replace")
        for line in history.splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == str(old):
                return lsn_of(words[1])
        return None

    def read(self, timeout: float) -> Sequence[bytes]:
        """The messages that are there, about a megabyte of them; or none after `timeout`.

        In `native.postgresql.Frames`, where the compiled modules are at work.
        """
        if self._receiver is None:
            frames: Sequence[bytes] = self._read_one_by_one(timeout)
        else:
            frames = self._read_at_once(self._receiver, timeout)
        if len(frames):
            self._asked_at = None
        elif self._asked_at is not None and time.monotonic() - self._asked_at > _SILENT:
            # Not how long nothing came: a quiet log is no news, and nobody reads while a batch is
            # written.  A proxy keeps the connection open whose other end has vanished.
            words = f"the server has not answered for {_SILENT:g} s"
            raise self._server.explainer.explain_words(None, words, "read the log")
        return frames

    def _read_at_once(self, receiver: Receiver, timeout: float) -> Frames:
        frames = native.postgresql.Frames()
        try:
            status = libpq.receive(self._connection, receiver, frames, _READ_BYTES)
            if status == native.postgresql.WAIT and not len(frames) and self._wait(timeout):
                status = libpq.receive(self._connection, receiver, frames, _READ_BYTES)
            if 0 < frames.nbytes < _FEW_BYTES and time.monotonic() - self._read_at < _DENSE:
                # The server sends each message by itself, and whoever keeps up with it would be
                # woken by each.
                self._server.closed.wait(_NAP)
                status = libpq.receive(self._connection, receiver, frames, _READ_BYTES)
            if len(frames):
                self._read_at = time.monotonic()
        except psycopg.Error as error:
            raise self._server.explainer.explain_words(None, str(error), "read the log") from error
        self._server.still_open()
        if status in (native.postgresql.ENDED, native.postgresql.REFUSED) and not len(frames):
            raise self._explained(self._connection.get_result(), "read the log")
        return frames

    def _read_one_by_one(self, timeout: float) -> list[bytes]:
        get = self._connection.get_copy_data
        frames: list[bytes] = []
        size = 0
        waited = False
        while size < _READ_BYTES:
            length, data = get(1)
            if length > 0:
                frames.append(b"".join((data, PADDING)))
                size += length
            elif length == 0:
                if waited or not self._wait(0.0 if frames else timeout):
                    break
                waited = bool(frames)
                self._consume()
            else:
                result = self._connection.get_result()
                raise self._explained(result, "read the log")
        return frames

    def _wait(self, timeout: float) -> bool:
        # Not `select`, which takes no file descriptor beyond 1,023.
        poll = select.poll()
        for descriptor in (self._connection.socket, self._woken):
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(timeout * 1000)
        self._server.still_open()
        return any(descriptor != self._woken for descriptor, _ in ready)

    def _ask(self, command: str) -> pq.abc.PGresult:
        """As `exec_` does, but not for ever."""
        until = time.monotonic() + _ANSWERED_WITHIN
        first: pq.abc.PGresult | None = None
        try:
            self._connection.send_query(command.encode())
            self._connection.flush()
            while True:
                while self._connection.is_busy():
                    if not self._wait(max(0.0, until - time.monotonic())):
                        raise psycopg.OperationalError(
                            f"the server did not answer within {_ANSWERED_WITHIN:g} s"
                        )
                    self._connection.consume_input()
                result = self._connection.get_result()
                first = first or result
                if first is None or result is None or first.status == pq.ExecStatus.COPY_BOTH:
                    break
        except psycopg.Error as error:
            words = command.split(None, 1)[0]
            raise self._server.explainer.explain_words(None, str(error), f"run {words}") from error
        if first is None:
            raise self._explained(None, f"run {command.split(None, 1)[0]}")
        return first

    def _consume(self) -> None:
        try:
            self._connection.consume_input()
        except psycopg.Error as error:
            raise self._server.explainer.explain_words(None, str(error), "read the log") from error

    def confirm(self, lsn: int, *, at_once: bool = False) -> None:
        """Tell the server that it may forget the log before `lsn` (guarantee 3).

        Written and applied are said to be no more than that: a server that is told of more as
        written sends no keepalives, by which a quiet stream learns where the log has got to.
        """
        now = time.monotonic()
        lsn = max(lsn, self._confirmed)
        quiet = now - self._spoken >= _SPEAK_AFTER
        if lsn == self._confirmed and not at_once and not quiet:
            return
        micros = int((time.time() - _EPOCH) * 1_000_000)
        message = _status(b"r", lsn, lsn, lsn, micros, int(quiet))  # quiet: answer, please
        try:
            self._connection.put_copy_data(message)
            self._connection.flush()
        except psycopg.Error as error:
            said = str(error)
            raise self._server.explainer.explain_words(None, said, "confirm the log") from error
        self._confirmed, self._spoken = lsn, now
        if quiet and self._asked_at is None:
            self._asked_at = now

    def wake(self) -> None:
        """From any thread: end a read that waits."""
        with self._closing:
            if self._wake is not None:
                os.write(self._wake, b"w")

    def close(self) -> None:
        with self._closing:
            self._owner.close()
            if self._wake is not None:
                os.close(self._woken)
                os.close(self._wake)
                self._wake = None

    def _explained(self, result: pq.abc.PGresult | None, doing: str) -> WarpError:
        if result is None or result.status == pq.ExecStatus.COPY_OUT:
            return SourceUnavailable(f"could not {doing}: the server ended the log")
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        words = result.get_error_message() or self._connection.get_error_message()
        if not result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) and not words.strip():
            words = "the server ended the log"
        return self._server.explainer.explain_words(state.decode() if state else None, words, doing)


def keepalive(frame: bytes) -> tuple[int, float, bool]:
    """(how far the log was read, Unix seconds there, is an answer expected?)"""
    end, micros, reply = _keepalive(frame, 1)
    return end, _EPOCH + micros / 1_000_000, bool(reply)
