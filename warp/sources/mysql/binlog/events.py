"""Events of the binary log: their types, their frame, and the bodies of the small ones.

An event is one `bytes` object from its 19-byte header to its last byte, so that a cell that claims
to be longer than its event can never show bytes of the next one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import BinaryIO, Final

import zstandard

from warp.errors import SourceRefused, WarpError

HEADER_SIZE: Final = 19
CHECKSUM_SIZE: Final = 4
unpack_header: Final = struct.Struct("<IBIIIH").unpack_from
# CRC-32 of anything followed by its own CRC-32.
_RESIDUE: Final = 0x2144DF1C

IGNORABLE: Final = 0x80  # flag: whoever does not know the type may pass over it
ARTIFICIAL: Final = 0x20  # flag: made by the server for us, not in the file


class EventType(IntEnum):
    START_V3 = 1
    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    BEGIN_LOAD_QUERY = 17
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    IGNORABLE = 28
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    TRANSACTION_CONTEXT = 36
    VIEW_CHANGE = 37
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42
    # MariaDB's own
    ANNOTATE_ROWS = 160
    BINLOG_CHECKPOINT = 161
    MARIADB_GTID = 162
    GTID_LIST = 163
    START_ENCRYPTION = 164
    QUERY_COMPRESSED = 165
    WRITE_ROWS_COMPRESSED_V1 = 166
    UPDATE_ROWS_COMPRESSED_V1 = 167
    DELETE_ROWS_COMPRESSED_V1 = 168
    WRITE_ROWS_COMPRESSED = 169
    UPDATE_ROWS_COMPRESSED = 170
    DELETE_ROWS_COMPRESSED = 171


# Known to say nothing about rows or about where a transaction ends.
PASSED_OVER: Final = frozenset(
    {
        EventType.START_V3,
        EventType.STOP,
        EventType.INTVAR,
        EventType.RAND,
        EventType.USER_VAR,
        EventType.IGNORABLE,
        EventType.ROWS_QUERY,
        EventType.TRANSACTION_CONTEXT,
        EventType.VIEW_CHANGE,
        EventType.ANNOTATE_ROWS,
        EventType.BINLOG_CHECKPOINT,
        EventType.GTID_LIST,
        EventType.START_ENCRYPTION,  # the server decrypts what it sends
    }
)


def type_name(number: int) -> str:
    try:
        return EventType(number).name
    except ValueError:
        return f"event type {number}"


def damaged(what: str, *, place: str = "") -> WarpError:
    """Bytes that are no event as MySQL and MariaDB write them."""
    return WarpError(
        f"expected an event of the binary log as the server writes it, found {what}; the "
        "connection or the log file is damaged: `mysqlbinlog --verify-binlog-checksum` reads the "
        "same file on the server",
        place=place,
    )


def ends_with_checksum(event: bytes) -> bool:
    """Is its own CRC-32 at the end of an event?"""
    return zlib.crc32(event) == _RESIDUE


def length_at(raw: bytes, place: int) -> tuple[int, int]:
    """(a length-encoded number, the place after it)."""
    first = raw[place]
    if first < 251:
        return first, place + 1
    if first == 252:
        return int.from_bytes(raw[place + 1 : place + 3], "little"), place + 3
    if first == 253:
        return int.from_bytes(raw[place + 1 : place + 4], "little"), place + 4
    if first == 254:
        return int.from_bytes(raw[place + 1 : place + 9], "little"), place + 9
    raise damaged(f"a length that begins with {first:#x}")


# -- the start of a file and the change to another


@dataclass(frozen=True, slots=True)
class Format:
    server_version: str
    checksums: bool  # does each event of this file end with one


def format_of(event: bytes) -> Format:
    """FORMAT_DESCRIPTION: version u16, server version 50 bytes, made u32, header length u8, …"""
    version = int.from_bytes(event[19:21], "little")
    if version != 4 or len(event) < 80 or event[75] != HEADER_SIZE:
        raise damaged(f"a log of version {version}; logs of MySQL 5.6 and later have version 4")
    name = event[21:71].rstrip(b"\0").decode("ascii", "replace")
    # Always written with room for a checksum; the byte before it says which algorithm.
    return Format(name, event[-CHECKSUM_SIZE - 1] == 1)


def rotation_of(event: bytes, end: int) -> tuple[str, int]:
    """ROTATE: (name of the next file, position in it)."""
    position = int.from_bytes(event[19:27], "little")
    return event[27:end].decode("utf-8", "replace"), position


# -- statements


@dataclass(frozen=True, slots=True)
class Query:
    namespace: str  # the session's default database, '' for none
    text: str


def query_of(event: bytes, end: int, *, compressed: bool = False) -> Query:
    """QUERY: thread u32, seconds u32, length of database u8, error u16, length of variables u16."""
    if end < 32:
        raise damaged("a statement shorter than its own header")
    name_size, variables_size = event[27], int.from_bytes(event[30:32], "little")
    start = 32 + variables_size
    after = start + name_size + 1
    if after > end:
        raise damaged("a statement whose parts are longer than itself")
    text = event[after:end]
    if compressed:
        text = uncompressed(text)
    namespace = event[start : start + name_size].decode("utf-8", "replace")
    return Query(namespace, _statement_text(text))


def _statement_text(raw: bytes) -> str:
    # In the client's character set, of which all keep ASCII; only names can be hurt.
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# -- compression


def uncompressed(raw: bytes) -> bytes:
    """MariaDB's own frame: algorithm and size of the length, the length (big endian), zlib."""
    if not raw or raw[0] >> 4 & 7 != 0:
        raise damaged("a compressed part by an algorithm that is not zlib")
    length_size = raw[0] & 7
    length = int.from_bytes(raw[1 : 1 + length_size], "big")
    try:
        text = zlib.decompress(raw[1 + length_size :])
    except zlib.error as error:
        raise damaged(f"a compressed part that zlib refuses ({error})") from error
    if len(text) != length:
        raise damaged(f"a compressed part of {len(text)} bytes instead of {length}")
    return text


_PAYLOAD_END, _PAYLOAD_SIZE, _PAYLOAD_COMPRESSION, _PAYLOAD_UNCOMPRESSED = range(4)
_ZSTD, _NO_COMPRESSION = 0, 255


def events_of_payload(event: bytes, end: int) -> Iterator[bytes]:
    """TRANSACTION_PAYLOAD: the events of one transaction, compressed together; without checksums.

    One at a time, so that memory is bounded by the compressed size (guarantee 9).
    """
    place, size, compression, length = HEADER_SIZE, 0, _NO_COMPRESSION, 0
    try:
        while True:
            field, place = length_at(event, place)
            if field == _PAYLOAD_END:
                break
            width, place = length_at(event, place)
            value, _ = length_at(event, place)
            place += width
            if field == _PAYLOAD_SIZE:
                size = value
            elif field == _PAYLOAD_COMPRESSION:
                compression = value
            elif field == _PAYLOAD_UNCOMPRESSED:
                length = value
    except IndexError as error:
        raise damaged("a compressed transaction without its header") from error
    raw = event[place:end]
    if size and size != len(raw):
        raise damaged(f"a compressed transaction of {len(raw)} bytes instead of {size}")
    if compression not in (_ZSTD, _NO_COMPRESSION):
        raise SourceRefused(
            "expected a transaction compressed by zstd, as MySQL 8 and 9 do it, found method "
            f"{compression}; set binlog_transaction_compression=OFF at the source, then resync"
        )
    stream: BinaryIO = BytesIO(raw)
    if compression == _ZSTD:
        stream = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    try:
        yield from _cut(stream, length or len(raw))
    except zstandard.ZstdError as error:
        raise damaged(f"a compressed transaction that zstd refuses ({error})") from error


def _cut(stream: BinaryIO, length: int) -> Iterator[bytes]:
    seen = 0
    while seen < length:
        head = stream.read(HEADER_SIZE)
        size = int.from_bytes(head[9:13], "little")
        if len(head) != HEADER_SIZE or not HEADER_SIZE <= size <= length - seen:
            raise damaged(f"an event of {size} bytes inside a compressed transaction")
        event = head + stream.read(size - HEADER_SIZE)
        if len(event) != size:
            raise damaged("a compressed transaction that ends within an event")
        seen += size
        yield event
