"""BSON bytes to Python values, damaged documents too.

`bson.decode_all` is called once per batch.  One damaged document would fail it for all, so then
each is decoded alone, and those that still fail are read element by element.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import InvalidBSON

from warp.sources.elements import LENGTH, elements
from warp.sources.extjson import Garbled

KEY: Final = "_id"

# UUIDs stay Binary (UNSPECIFIED): decoding one of 15 bytes as a UUID fails the whole batch.
# Dates stay naive, in UTC, and become DatetimeMS only outside the years 1 to 9999: making a
# DatetimeMS of each costs more than the decoding of all other fields.
DECODING: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    unicode_decode_error_handler="strict",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A batch is all new objects, none of them garbage: collecting costs 1.5 of 3.7 us a row."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def decode(raw: Sequence[bytes]) -> list[dict[str, Any]]:
    """All documents at once; where one of them is damaged, each alone."""
    with _without_collector():
        try:
            return bson.decode_all(b"".join(raw), DECODING)
        except InvalidBSON:
            return [_decode_one(document) for document in raw]


def decode_ids(raw: Sequence[bytes]) -> list[Any]:
    return [document[KEY] for document in decode(raw)]


def _decode_one(document: bytes) -> dict[str, Any]:
    try:
        return bson.decode(document, DECODING)
    except InvalidBSON:
        return _salvage(document)


def _salvage(document: bytes) -> dict[str, Any]:
    """A document that pymongo refuses, read element by element, each as well as it can be."""
    fields: dict[str, Any] = {}
    for code, raw_name, value in elements(document):
        name = raw_name.decode("utf-8", "replace")
        while name in fields:
            name += "\ufffd"
        fields[name] = _salvage_value(code, value)
    return fields


def _salvage_value(code: int, value: bytes) -> Any:
    body = bytes((code,)) + b"v\0" + value + b"\0"
    try:
        return bson.decode(LENGTH.pack(len(body) + 4) + body, DECODING)["v"]
    except InvalidBSON:
        if code == 0x03:
            return _salvage(value)
        if code == 0x04:
            return list(_salvage(value).values())
        if code in (0x02, 0x0D, 0x0E):
            return Garbled(value[4:-1])
        return value  # unreadable, and kept as bytes
