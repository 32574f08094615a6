"""Documents with their privacy rules applied, as BSON still, so that all who read them read that.

A document is copied element by element; what no rule names is not looked into, so it stays as it
was, byte for byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import bson
from bson import Decimal128
from bson.errors import InvalidBSON

from warp.digest.canonical import json_form
from warp.kinds import as_text
from warp.model import Cover, Kind, Privacy
from warp.privacy.columns import canonical_text
from warp.privacy.covering import Covering
from warp.privacy.paths import Paths, rules_of
from warp.sources.bson_decoding import DECODING
from warp.sources.elements import LENGTH, elements
from warp.sources.extjson import to_json

_STRING, _OBJECT, _ARRAY, _BINARY = 0x02, 0x03, 0x04, 0x05
_NOTHING: Final = (0x06, 0x0A)  # undefined, null: there is no value to cover
_DOUBLE: Final = struct.Struct("<d").unpack
_INT32: Final = struct.Struct("<i").unpack
_INT64: Final = struct.Struct("<q").unpack
_UUID_SUBTYPE: Final = 4
_UUID_LENGTH: Final = 4 + 1 + 16


class BsonCovering:
    """The rules of one table for its documents, and which of them have met a value."""

    def __init__(self, privacy: Privacy) -> None:
        self._covering = Covering(privacy.key)
        self._paths = Paths(rules_of(privacy.rules))
        self.met: set[str] = set()

    def cover(self, document: bytes) -> bytes:
        return self._with_fields(document, self._paths)

    def _with_fields(self, document: bytes, paths: Paths) -> bytes:
        made: list[bytes] = []
        for code, name, value in elements(document):
            whole, inside = paths.at(name.decode("utf-8", "replace"))
            if whole is not None:
                self.met.add(whole.path)
                if whole.cover is Cover.DROP:
                    continue
                code, value = self._covered(code, value, whole.cover)
            elif inside is not None:
                value = self._inside(code, value, inside)
            made.append(_element(code, name, value))
        return _document(made)

    def _inside(self, code: int, value: bytes, paths: Paths) -> bytes:
        if code == _OBJECT:
            return self._with_fields(value, paths)
        if code == _ARRAY:
            return _document(
                [
                    _element(each, name, self._inside(each, inner, paths))
                    for each, name, inner in elements(value)
                ]
            )
        return value

    def _covered(self, code: int, value: bytes, cover: Cover) -> tuple[int, bytes]:
        if code in _NOTHING:
            return code, value
        if code in (_OBJECT, _ARRAY) and cover is not Cover.HASH:
            leaves = [
                _element(*self._leaf(each, name, inner, cover))
                for each, name, inner in elements(value)
            ]
            return code, _document(leaves)
        return _STRING, _string(self._text(code, value, cover))

    def _leaf(self, code: int, name: bytes, value: bytes, cover: Cover) -> tuple[int, bytes, bytes]:
        made, covered = self._covered(code, value, cover)
        return made, name, covered

    def _text(self, code: int, value: bytes, cover: Cover) -> str:
        if code == _STRING:
            return self._covering.text(cover, value[4:-1].decode("utf-8", "surrogateescape"))
        family, text = _canonical(code, value)
        return self._covering.other(cover, family, text)


def _element(code: int, name: bytes, value: bytes) -> bytes:
    return bytes((code,)) + name + b"\0" + value


def _document(made: list[bytes]) -> bytes:
    body = b"".join(made)
    return LENGTH.pack(len(body) + 5) + body + b"\0"


def _string(text: str) -> bytes:
    data = text.encode()
    return LENGTH.pack(len(data) + 1) + data + b"\0"


# ---------------------------------------------------------------- what is no text


def _canonical(code: int, value: bytes) -> tuple[str, str]:
    """The name of its sort and its text, the same as of a SQL source's value."""
    if code == _BINARY and value[4] == _UUID_SUBTYPE and len(value) == _UUID_LENGTH:
        return "uuid", as_text(Kind.UUID, value[5:])
    known = _FAMILIES.get(code)
    if known is not None:
        family, text = known
        return family, text(value)
    if code in (_OBJECT, _ARRAY):
        return "json", _json(code, value)
    return f"bson {code:02x}", value.hex()


def _double(value: bytes) -> str:
    return canonical_text(Kind.FLOAT64, _DOUBLE(value)[0])


def _decimal(value: bytes) -> str:
    number: Decimal = Decimal128.from_bid(value).to_decimal()
    return canonical_text(Kind.DECIMAL, number) if number.is_finite() else str(number)


def _moment(value: bytes) -> str:
    return as_text(Kind.TIMESTAMP, _INT64(value)[0] * 1000)


def _json(code: int, value: bytes) -> str:
    body = _element(code, b"v", value)
    try:
        decoded: Any = bson.decode(_document([body]), DECODING)["v"]
        return json_form(to_json(decoded))
    except (InvalidBSON, ValueError, RecursionError):
        return value.hex()


_FAMILIES: Final[dict[int, tuple[str, Callable[[bytes], str]]]] = {
    0x01: ("number", _double),
    0x05: ("bytes", lambda v: "\\x" + v[5:].hex()),
    0x07: ("objectid", bytes.hex),
    0x08: ("bool", lambda v: as_text(Kind.BOOL, v != b"\0")),
    0x09: ("timestamp", _moment),
    0x10: ("number", lambda v: str(_INT32(v)[0])),
    0x12: ("number", lambda v: str(_INT64(v)[0])),
    0x13: ("number", _decimal),
}
