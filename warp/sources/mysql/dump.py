"""The binary log as a stream of events, from the server's own dump thread.

The driver's authenticated socket is taken over after the command, TLS included: what comes then is
one event per packet, for ever.  An end of that stream is never the end of the changes.
"""

from __future__ import annotations

import random
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from warp.errors import PositionLost, SourceUnavailable, WarpError
from warp.mysql_family import Server
from warp.sources.mysql.binlog.events import EventType
from warp.sources.mysql.binlog.gtid import GtidSet
from warp.sources.mysql.connection import Connection, MysqlOptions, end_socket
from warp.sources.mysql.errors import refused
from warp.sources.mysql.position import OwnFiles, Place

_DUMP: Final = 0x12
_DUMP_BY_GTID: Final = 0x1E
_BY_GTID_FLAG: Final = 0x04  # THROUGH_GTID
_WHOLE_PACKET: Final = 0xFFFFFF  # such a packet is followed by the rest of the event
FIRST_EVENT: Final = 4  # behind the magic bytes of a file
RESUMABLE: Final = 1 << 32  # a place to begin at is told in 32 bits
_BUFFER: Final = 1 << 20
# So often a quiet server says that it is there; three times as long without a byte, and it is not.
HEARTBEAT_SECONDS: Final = 10.0

_TOLD_WITHIN: Final = 2.0  # seconds

# Of a read that shall not wait, or not longer; the last two of one that shall not, TLS or none.
_NOTHING_YET: Final = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)

_EVENT: Final = 0x00
_ERROR: Final = b"\xff"


class Dump:
    """One dump thread of the server, and the events that it sends."""

    def __init__(self, options: MysqlOptions, closed: threading.Event) -> None:
        self._connection = Connection(options)
        self._closed = closed
        self._socket: Any = None
        self._sequence = 1
        self._buffer = bytearray(_BUFFER)
        self._start = self._end = 0  # of what is in the buffer and was not taken
        self._heard_at = 0.0

    @property
    def server(self) -> Server:
        return self._connection.server

    def begin(self, place: Place) -> None:
        """Ask for everything after a place."""
        heartbeat = int(HEARTBEAT_SECONDS * 1e9)
        connection = self._connection
        # Two workers must never have one id: the server would end the elder's stream for the
        # younger's, and both would try again for ever.  Who may write is the fence's to say.
        server_id = random.randrange(1 << 30, 1 << 32)
        if connection.server.is_mariadb:
            connection.execute(
                "SET @master_heartbeat_period = %s, @master_binlog_checksum = 'CRC32', "
                "@mariadb_slave_capability = 4, @slave_connect_state = %s, "
                "@slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0",
                [heartbeat, str(place.passed)],
            )
            body = struct.pack("<IHI", FIRST_EVENT, 0, server_id)
            self._command(_DUMP, body)
        else:
            connection.execute(
                "SET @source_heartbeat_period = %s, @master_heartbeat_period = %s, "
                "@source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'",
                [heartbeat, heartbeat],
            )
            self._compare(place)
            if isinstance(place.passed, OwnFiles):
                body = struct.pack("<IHI", place.offset, 0, server_id) + place.file.encode()
                self._command(_DUMP, body)
            else:
                known = _encoded(place)
                body = struct.pack("<HII", _BY_GTID_FLAG, server_id, 0)
                body += struct.pack("<QI", FIRST_EVENT, len(known)) + known
                self._command(_DUMP_BY_GTID, body)
        self._heard_at = time.monotonic()

    def _compare(self, place: Place) -> None:
        [(executed, server, mode)] = self._connection.rows(
            "SELECT @@GLOBAL.gtid_executed, @@server_uuid, @@GLOBAL.gtid_mode"
        )
        must_hold(place, executed, server, mode, at=self._connection.login.place)

    def first_timestamp(self, file: str) -> int:
        """When a log file was begun, in Unix seconds; 0 where the server does not say."""
        self._connection.execute(
            "SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32', "
            "@mariadb_slave_capability = 4"
        )
        body = struct.pack("<IHI", FIRST_EVENT, 0, random.randrange(1 << 30, 1 << 32))
        self._command(_DUMP, body + file.encode())
        deadline = time.monotonic() + _TOLD_WITHIN
        while time.monotonic() < deadline:
            for event in self.read(_TOLD_WITHIN):
                if event[4] == EventType.FORMAT_DESCRIPTION:
                    return int.from_bytes(event[:4], "little")
        return 0

    def _command(self, code: int, body: bytes) -> None:
        self._socket = self._connection.driver._sock  # type: ignore[attr-defined]
        packet = bytes((code,)) + body
        try:
            self._socket.settimeout(HEARTBEAT_SECONDS)
            self._socket.sendall(struct.pack("<I", len(packet)) + packet)
        except OSError as error:
            raise self._lost(str(error)) from error

    def read(self, wait: float) -> Iterator[bytes]:
        """The events that are here or come within `wait` seconds, from header to checksum.

        Raises SourceUnavailable when the stream ends, whatever ended it, and PositionLost or
        SourceRefused when the server says that.
        """
        while not self._has_event():
            if not self._receive(wait):
                return
        while True:
            # Once per event, of which a busy server makes tens of thousands a second.
            buffer, start, end = self._buffer, self._start, self._end
            if end - start < 4:
                return
            length = buffer[start] | buffer[start + 1] << 8 | buffer[start + 2] << 16
            after = start + 4 + length
            if length == _WHOLE_PACKET:
                event = self._joined()
                if event is None:
                    return
                yield event
                continue
            if end < after:
                return
            self._next(buffer[start + 3])
            self._start = after
            if not length or buffer[start + 4] != _EVENT:
                raise self._refused(bytes(buffer[start + 4 : after]))
            yield bytes(memoryview(buffer)[start + 5 : after])

    @property
    def waiting(self) -> tuple[bytearray, int, int, int]:
        """What is here and was not taken: where in which buffer, and the next packet's number."""
        return self._buffer, self._start, self._end, self._sequence

    def passed(self, start: int, sequence: int) -> None:
        """Somebody else took the packets before."""
        self._start, self._sequence = start, sequence

    def _has_event(self) -> bool:
        start, end = self._start, self._end
        if end - start < 4:
            return False
        length = int.from_bytes(self._buffer[start : start + 3], "little")
        return end - start >= 4 + length

    def _joined(self) -> bytes | None:
        """An event of several packets, once the last one is here."""
        places: list[tuple[int, int]] = []
        at, length = self._start, _WHOLE_PACKET
        while length == _WHOLE_PACKET:
            if self._end - at < 4:
                return None
            length = int.from_bytes(self._buffer[at : at + 3], "little")
            if self._end - at < 4 + length:
                return None
            places.append((at + 4, at + 4 + length))
            at += 4 + length
        view = memoryview(self._buffer)
        for first, _ in places:
            self._next(view[first - 1])
        self._start = at
        if view[places[0][0]] != _EVENT:
            raise self._refused(bytes(view[slice(*places[0])]))
        whole = b"".join(view[first:last] for first, last in places)
        return whole[1:]

    def _next(self, sequence: int) -> None:
        if sequence != self._sequence:
            raise self._lost(f"packet {sequence} came where {self._sequence} was expected")
        self._sequence = (sequence + 1) & 0xFF

    def _refused(self, packet: bytes) -> WarpError:
        """What a packet means that is no event."""
        if packet[:1] != _ERROR:
            return self._lost("the server ended the stream of its log")
        return refused(packet, f"follow the log of {self._connection.login.place}")

    def _receive(self, wait: float) -> bool:
        """More bytes into the buffer; False where none came within `wait` seconds."""
        if self._end == len(self._buffer):
            self._make_room()
        buffer = self._buffer
        try:
            self._socket.settimeout(wait)
            with memoryview(buffer) as view:
                count = self._socket.recv_into(view[self._end :])
        except _NOTHING_YET:
            if time.monotonic() - self._heard_at > 3 * HEARTBEAT_SECONDS:
                raise self._lost("the server has said nothing for too long") from None
            return False
        except OSError as error:
            raise self._lost(str(error)) from error
        if count == 0:
            raise self._lost("the connection was closed")
        self._end += count
        self._heard_at = time.monotonic()
        return True

    def _make_room(self) -> None:
        """What was not taken to the front of a buffer that is large enough, and no larger."""
        held = self._buffer[self._start : self._end]
        size = _BUFFER
        while size < 2 * len(held):
            size *= 2
        if size != len(self._buffer):
            self._buffer = bytearray(size)
        self._buffer[: len(held)] = held
        self._start, self._end = 0, len(held)

    def _lost(self, why: str) -> SourceUnavailable:
        if self._closed.is_set():
            return SourceUnavailable("the connector was closed")
        return SourceUnavailable(
            f"a stream of the binary log without end was expected from "
            f"{self._connection.login.place}, found: {why}; it is followed again from the marker"
        )

    def end(self) -> None:
        """From any thread: a read that waits ends with an error."""
        end_socket(getattr(self._connection.driver, "_sock", None))

    def close(self) -> None:
        self.end()
        self._connection.close()


def must_hold(place: Place, executed: str, server: str, mode: str, *, at: str) -> None:
    """Can the MySQL that has executed this, with this server_uuid and gtid_mode, go on from there?

    It minds only transactions of its own: another server would send everything.
    """
    passed = place.passed
    if isinstance(passed, OwnFiles):
        if passed.server != server:
            raise PositionLost(
                f"the server {passed.server} was expected, where the marker is a place in its log "
                f"files, found {server} at {at}: without global ids no other server understands "
                "it; run `cartridge-warp resync SCHEMA`"
            )
        if mode == "ON":
            raise found_global_ids()
        if place.offset >= RESUMABLE:
            raise PositionLost(
                f"a place below 4 GiB was expected, found {place.file}:{place.offset}: the server "
                "begins at no other without global ids; run FLUSH BINARY LOGS there, then "
                "`cartridge-warp resync SCHEMA`"
            )
        return
    if mode != "ON":
        raise lost_global_ids(mode)
    has = GtidSet.parse(executed)
    if not isinstance(passed, GtidSet) or not (missing := passed - has):
        return
    known = {source for source, _, _ in has}
    if all(source in known and source != server for source, _, _ in missing):
        raise SourceUnavailable(
            f"{at} was expected to have every transaction that was delivered, found it behind by "
            f"{missing.count()}: {missing}; a replica catches up"
        )
    raise PositionLost(
        f"{at} was expected to have every transaction that was delivered, found that it lacks "
        f"{missing}: it was restored, reset, or is another server; run "
        "`cartridge-warp recover SCHEMA`, which writes only rows that differ, or "
        "`cartridge-warp resync SCHEMA`"
    )


def found_global_ids() -> PositionLost:
    return PositionLost(
        "a server without global ids was expected, where the marker is a place in its log files, "
        "found gtid_mode = ON; run `cartridge-warp resync SCHEMA` once, which goes on by global ids"
    )


def lost_global_ids(found: str = "another mode") -> PositionLost:
    return PositionLost(
        f"gtid_mode = ON was expected, where the marker is a set of global ids, found {found}: "
        "what was written without an id is in no set; run `cartridge-warp resync SCHEMA`, which "
        "goes on by file and place"
    )


def _encoded(place: Place) -> bytes:
    if not isinstance(place.passed, GtidSet):
        raise AssertionError("a position of MySQL was checked before")
    return place.passed.encoded()
