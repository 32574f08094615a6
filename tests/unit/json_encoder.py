"""Python values -> MySQL's binary JSON, as the server lays it out: the decoder's counterpart."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Opaque:
    """A value of a MySQL type that JSON has not, as the server keeps it."""

    kind: int
    raw: bytes


def encoded(value: Any) -> bytes:
    kind, body = _value(value)
    return bytes((kind,)) + body


def _value(value: Any) -> tuple[int, bytes]:
    if value is None or isinstance(value, bool):
        return 4, bytes(({None: 0, True: 1, False: 2}[value],))
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, str):
        raw = value.encode()
        return 12, _length(len(raw)) + raw
    if isinstance(value, Opaque):
        return 15, bytes((value.kind,)) + _length(len(value.raw)) + value.raw
    names = None
    if isinstance(value, dict):
        # The server sorts keys by length, then by bytes.
        ordered = sorted(value.items(), key=lambda item: (len(item[0].encode()), item[0].encode()))
        names, items = [name.encode() for name, _ in ordered], [item for _, item in ordered]
    else:
        items = list(value)
    small = _container(names, items, 2)
    if small is not None:
        return (0 if names is not None else 2), small
    large = _container(names, items, 4)
    assert large is not None
    return (1 if names is not None else 3), large


def _integer(value: int) -> tuple[int, bytes]:
    for kind, form, low, high in (
        (5, "<h", -(1 << 15), (1 << 15) - 1),
        (6, "<H", 0, (1 << 16) - 1),
        (7, "<i", -(1 << 31), (1 << 31) - 1),
        (8, "<I", 0, (1 << 32) - 1),
        (9, "<q", -(1 << 63), (1 << 63) - 1),
        (10, "<Q", 0, (1 << 64) - 1),
    ):
        if low <= value <= high:
            return kind, struct.pack(form, value)
    raise ValueError(value)


def _length(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes((*out, size))


def _container(names: list[bytes] | None, items: list[Any], width: int) -> bytes | None:
    """None where offsets of that width are too small."""
    number = "<H" if width == 2 else "<I"
    head = 2 * width + len(items) * (1 + width) + (len(names) * (width + 2) if names else 0)
    keys, entries, tail = b"", b"", b""
    try:
        for name in names or []:
            keys += struct.pack(number, head + len(tail)) + struct.pack("<H", len(name))
            tail += name
        for item in items:
            kind, body = _value(item)
            inline = kind in (4, 5, 6) or (width == 4 and kind in (7, 8))
            entries += bytes((kind,))
            if inline:
                entries += body.ljust(width, b"\0")
            else:
                entries += struct.pack(number, head + len(tail))
                tail += body
        size = struct.pack(number, head + len(tail))
    except struct.error:
        return None
    return struct.pack(number, len(items)) + size + keys + entries + tail
