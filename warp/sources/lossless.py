"""A whole document as JSON text, and the document again from it: no byte is lost.

What JSON has is plain JSON, as long as the text says which BSON type it was:

    int32                           5
    int64 beyond the int32s         5000000000
    int64 within them               {"$numberLong": "5"}
    double                          0.5, and always with a fraction: 5.0, 100000000000000000.0
    double that JSON lacks          {"$numberDouble": "NaN"}, infinities and -0.0 likewise
    every other type                canonical Extended JSON
    what that cannot say either     {"$bson": {"type": "02", "base64": …}}, the bytes of the value

A number's fraction survives jsonb, its exponent does not: jsonb gives 1e17 back as
100000000000000000.  A document that looks like one of the forms above, because a user called a
field "$oid", is wrapped as {"$document": …}; so no two documents have one text.

A `jsonb` column takes no NUL, which becomes the visible U+2400 and is reported, and it keeps
neither the order of fields nor the first of two that have one name.  A `json` column keeps all.

The text of an ordinary document is made by orjson from the decoded one.  Decoding itself may lose
something (a field name that is there twice, a deprecated type, the order of a regex's options):
so the decoded document is encoded again, and where its bytes differ, or orjson's text is suspect,
the text is made from the bytes.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, repeat
from math import isfinite
from typing import Any, Final

import bson
import orjson
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError, InvalidBSON

from warp.sources.elements import LENGTH, elements
from warp.sources.extjson import EXTENDED, NUL_SEEN, OPTIONS

_INT32: Final = struct.Struct("<i")
_INT64: Final = struct.Struct("<q")
_DOUBLE: Final = struct.Struct("<d")
_TIMESTAMP: Final = struct.Struct("<II")  # the increment comes first
_NAN: Final = bytes.fromhex("000000000000f87f")  # the one NaN that the word stands for

# The sets of names that mark a form of ours.
_MARKERS: Final = frozenset(
    frozenset(names.split())
    for names in (
        "$oid",
        "$symbol",
        "$numberLong",
        "$numberDouble",
        "$numberDecimal",
        "$binary",
        "$code",
        "$code $scope",
        "$timestamp",
        "$regularExpression",
        "$dbPointer",
        "$date",
        "$minKey",
        "$maxKey",
        "$undefined",
        "$bson",
        "$document",
    )
)

_Quote = Callable[[str], str]


def column(
    raw: Sequence[bytes],
    documents: Sequence[dict[str, Any]],
    decoding: CodecOptions[dict[str, Any]],
    *,
    verbatim: bool,
) -> tuple[list[bytes], list[int]]:
    """Each document as text, and the places of those in which NUL was replaced.

    `documents` are the `raw` ones, decoded.  `verbatim` is for a column that keeps text as it is.
    """
    try:
        texts = list(map(orjson.dumps, documents, repeat(_exact), repeat(OPTIONS)))
        doubtful = {*_changed(raw, documents, decoding), *_suspects(raw, texts, verbatim=verbatim)}
    except orjson.JSONEncodeError:  # nested deeper than orjson goes
        texts, doubtful = [b""] * len(raw), set(range(len(raw)))
    replaced: list[int] = []
    for row in sorted(doubtful):
        text = written(raw[row])
        if not verbatim and "\\u0000" in text:
            visible = written(raw[row], nul=NUL_SEEN)
            if visible != text:
                text = visible
                replaced.append(row)
        texts[row] = text.encode()
    return texts, replaced


def _changed(
    raw: Sequence[bytes],
    documents: Sequence[dict[str, Any]],
    decoding: CodecOptions[dict[str, Any]],
) -> list[int]:
    """The places of documents that decoding has changed."""
    if len(raw) <= len(_PLACES) and sum(map(len, raw)) <= _TOGETHER:
        # As one array of all of them: 2.2 us a document, against 3.2 each alone [measured].
        together = b"".join(chain.from_iterable(zip(_PLACES, raw, strict=False)))
        if _encoded({"": documents}, decoding)[_BEFORE_ARRAY:-2] == together:
            return []
    encoded = map(_encoded, documents, repeat(decoding))
    return [row for row, (was, now) in enumerate(zip(raw, encoded, strict=True)) if was != now]


_TOGETHER: Final = 1 << 20  # bytes that are looked at as one
_PLACES: Final = [b"\x03%d\0" % place for place in range(1000)]
_BEFORE_ARRAY: Final = 4 + 2 + 4  # a length, the array's type and empty name, its length


def _encoded(document: Mapping[str, Any], decoding: CodecOptions[dict[str, Any]]) -> bytes:
    try:
        return bson.encode(document, codec_options=decoding)
    except BSONError:
        return b""


# ---------------------------------------------------------------------------------------------
# From what the driver decoded


def _exact_long(value: Int64) -> Any:
    number = int(value)
    return {"$numberLong": str(number)} if -(1 << 31) <= number < (1 << 31) else number


def _exact_decimal(value: Decimal128) -> Any:
    text = str(value)
    if Decimal128(text).bid == value.bid:
        return {"$numberDecimal": text}
    return _bytes_of(0x13, value.bid)


_EXACT: Final[dict[type, Callable[[Any], Any]]] = {
    **{
        kind: EXTENDED[kind]
        for kind in (ObjectId, datetime, DatetimeMS, bytes, Binary, Code, Regex, Timestamp)
    },
    MinKey: EXTENDED[MinKey],
    MaxKey: EXTENDED[MaxKey],
    DBRef: EXTENDED[DBRef],
    Int64: _exact_long,
    Decimal128: _exact_decimal,
}


def _exact(value: Any) -> Any:
    """What orjson asks for a value JSON does not have."""
    convert = _EXACT.get(type(value))
    return None if convert is None else convert(value)  # None: its bytes will not be the same


# orjson writes 1e+17 where jsonb needs a fraction.  With every digit as 0, every end of a value as
# a comma and no sign, such a number ends in one of two ways.
_LEVELLED: Final = bytes.maketrans(b"123456789}]", b"000000000,,")
_LARGE: Final = (b"0e00,", b"0e000,")
_NOT_FINITE: Final = re.compile(rb"[\xf0-\xff][\x7f\xff]")  # the end of such a double
_NEGATIVE_ZERO: Final = bytes(7) + b"\x80"
_OURS: Final = re.compile(
    rb"(?:%s)\0" % b"|".join(re.escape(min(names).encode()) for names in _MARKERS)
)


def _suspects(raw: Sequence[bytes], texts: Sequence[bytes], *, verbatim: bool) -> Iterator[int]:
    """The places of texts that may not say what the document does."""
    if sum(map(len, texts)) <= _TOGETHER and not _suspect(
        b"".join(raw), b"".join(texts), verbatim=verbatim
    ):
        return
    for row, (document, text) in enumerate(zip(raw, texts, strict=True)):
        if _suspect(document, text, verbatim=verbatim):
            yield row


def _suspect(raw: bytes, text: bytes, *, verbatim: bool) -> bool:
    if b"null" in text and _NOT_FINITE.search(raw) is not None:
        return True
    if b"-0.0" in text and _NEGATIVE_ZERO in raw:
        return True
    if not verbatim and b"\\u0000" in text:
        return True
    if b"$" in raw and _OURS.search(raw) is not None:
        return True
    levelled = text.translate(_LEVELLED, b"+")
    return _LARGE[0] in levelled or _LARGE[1] in levelled


# ---------------------------------------------------------------------------------------------
# From bytes


def written(document: bytes, nul: str = "\0") -> str:
    """The text of a document, made from its bytes: slow, and right for every document.

    The fast path must agree with it.  `nul` stands for NUL.
    """

    def quote(text: str) -> str:
        return orjson.dumps(text if nul == "\0" else text.replace("\0", nul)).decode()

    return _document(document, quote)


# What reading damaged bytes raises.
_UNREADABLE: Final = (InvalidBSON, ValueError, IndexError, struct.error)


def _bytes_of(code: int, value: bytes) -> dict[str, Any]:
    text = base64.b64encode(value).decode("ascii")
    return {"$bson": {"type": f"{code:02x}", "base64": text}}


def _dumped(value: Any) -> str:
    return orjson.dumps(value).decode()


def _value(code: int, value: bytes, quote: _Quote) -> str:
    try:
        text = _WRITERS[code](value, quote)
    except _UNREADABLE:
        text = None
    return _dumped(_bytes_of(code, value)) if text is None else text


def _document(value: bytes, quote: _Quote) -> str:
    try:
        return _fields(value, quote)
    except _UNREADABLE:
        return _dumped(_bytes_of(0x03, value))


def _fields(value: bytes, quote: _Quote) -> str:
    names: set[str] = set()
    fields: list[str] = []
    size = 5
    for code, raw_name, cell in elements(value):
        name = raw_name.decode()
        names.add(name)
        size += 2 + len(raw_name) + len(cell)
        fields.append(f"{quote(name)}:{_value(code, cell, quote)}")
    _whole(value, size)
    text = "{" + ",".join(fields) + "}"
    return f'{{"$document":{text}}}' if names in _MARKERS else text


def _array(value: bytes, quote: _Quote) -> str | None:
    cells: list[str] = []
    size = 5
    for code, name, cell in elements(value):
        if name != b"%d" % len(cells):
            return None
        size += 2 + len(name) + len(cell)
        cells.append(_value(code, cell, quote))
    _whole(value, size)
    return "[" + ",".join(cells) + "]"


def _whole(value: bytes, size: int) -> None:
    """Do the elements make up the value, to the last byte?"""
    if len(value) != size or LENGTH.unpack_from(value)[0] != size or value[-1] != 0:
        raise InvalidBSON(f"a document of {len(value)} bytes was expected, found {size}")


def _string(value: bytes) -> str:
    if len(value) < 5 or LENGTH.unpack_from(value)[0] != len(value) - 4 or value[-1] != 0:
        raise InvalidBSON("a string was expected, found one of another length")
    return value[4:-1].decode()


def _double(value: bytes, _: _Quote) -> str | None:
    (number,) = _DOUBLE.unpack(value)
    if not isfinite(number):
        if number != number and value != _NAN:
            return None
        name = "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
        return f'{{"$numberDouble":"{name}"}}'
    text = repr(number)
    if text == "-0.0":
        return '{"$numberDouble":"-0.0"}'
    if "e" in text and number.is_integer():
        return format(Decimal(text), "f") + ".0"
    return text


def _binary(value: bytes, _: _Quote) -> str | None:
    subtype, content = value[4], value[5:]
    if LENGTH.unpack_from(value)[0] != len(content):
        return None
    if subtype == 2:  # has its length a second time
        if LENGTH.unpack_from(content)[0] != len(content) - 4:
            return None
        content = content[4:]
    text = base64.b64encode(content).decode("ascii")
    return f'{{"$binary":{{"base64":"{text}","subType":"{subtype:02x}"}}}}'


def _bool(value: bytes, _: _Quote) -> str | None:
    return {b"\0": "false", b"\1": "true"}.get(value)


def _regex(value: bytes, quote: _Quote) -> str:
    pattern, options, _ = value.split(b"\0")
    return (
        f'{{"$regularExpression":{{"pattern":{quote(pattern.decode())},'
        f'"options":{quote(options.decode())}}}}}'
    )


def _db_pointer(value: bytes, quote: _Quote) -> str:
    name = quote(_string(value[:-12]))
    return f'{{"$dbPointer":{{"$ref":{name},"$id":{{"$oid":"{value[-12:].hex()}"}}}}}}'


def _code_with_scope(value: bytes, quote: _Quote) -> str:
    end = 8 + LENGTH.unpack_from(value, 4)[0]
    code, scope = _string(value[4:end]), value[end:]
    if LENGTH.unpack_from(value)[0] != len(value) or end < 9:
        raise InvalidBSON("code and its scope were expected, found another length")
    return f'{{"$code":{quote(code)},"$scope":{_document(scope, quote)}}}'


def _timestamp(value: bytes, _: _Quote) -> str:
    increment, seconds = _TIMESTAMP.unpack(value)
    return f'{{"$timestamp":{{"t":{seconds},"i":{increment}}}}}'


def _long(value: bytes, _: _Quote) -> str:
    (number,) = _INT64.unpack(value)
    return _dumped(_exact_long(Int64(number)))


_WRITERS: Final[dict[int, Callable[[bytes, _Quote], str | None]]] = {
    0x01: _double,
    0x02: lambda v, quote: quote(_string(v)),
    0x03: _document,
    0x04: _array,
    0x05: _binary,
    0x06: lambda _, quote: '{"$undefined":true}',
    0x07: lambda v, _: f'{{"$oid":"{v.hex()}"}}' if len(v) == 12 else None,
    0x08: _bool,
    0x09: lambda v, _: f'{{"$date":{{"$numberLong":"{_INT64.unpack(v)[0]}"}}}}',
    0x0A: lambda _, quote: "null",
    0x0B: _regex,
    0x0C: _db_pointer,
    0x0D: lambda v, quote: f'{{"$code":{quote(_string(v))}}}',
    0x0E: lambda v, quote: f'{{"$symbol":{quote(_string(v))}}}',
    0x0F: _code_with_scope,
    0x10: lambda v, _: str(_INT32.unpack(v)[0]),
    0x11: _timestamp,
    0x12: _long,
    0x13: lambda v, _: _dumped(_exact_decimal(Decimal128.from_bid(v))),
    0x7F: lambda _, quote: '{"$maxKey":1}',
    0xFF: lambda _, quote: '{"$minKey":1}',
}


# ---------------------------------------------------------------------------------------------
# And back


class _Object(list[tuple[str, Any]]):
    """The fields of a JSON object, in order, those with the same name too."""


def rebuild(text: str | bytes) -> bytes:
    """The BSON of the document that this text was written for.

    Byte for byte from a `json` column.  From a `jsonb` column its fields come in jsonb's order,
    each name once, and U+2400 stands where NUL was.  ValueError where the text is not one of ours.
    """
    try:
        code, value = _read(json.loads(text, object_pairs_hook=_Object, parse_constant=_refuse))
    except _UNREADABLE as error:
        raise ValueError(f"expected the text of a document, found {text[:80]!r}: {error}") from None
    except (TypeError, KeyError, ArithmeticError, BSONError) as error:
        raise ValueError(f"expected the text of a document, found {text[:80]!r}: {error}") from None
    if code != 0x03:
        raise ValueError(f"expected the text of a document, found {text[:80]!r}")
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read(value: Any) -> tuple[int, bytes]:
    """(type, bytes) of a value."""
    if isinstance(value, str):
        return 0x02, _string_of(value)
    if isinstance(value, bool):
        return 0x08, bytes((value,))
    if isinstance(value, int):
        if -(1 << 31) <= value < (1 << 31):
            return 0x10, _INT32.pack(value)
        return 0x12, _INT64.pack(value)
    if isinstance(value, float):
        return 0x01, _DOUBLE.pack(value)
    if value is None:
        return 0x0A, b""
    if isinstance(value, _Object):
        return _read_object(value)
    return 0x04, _document_of((str(place), cell) for place, cell in enumerate(value))


def _read_object(value: _Object) -> tuple[int, bytes]:
    if len(value) <= 2 and {name for name, _ in value} in _MARKERS:
        fields = dict(value)
        if "$scope" in fields:
            parts = _string_of(fields["$code"]) + _expect(fields["$scope"], 0x03)
            return 0x0F, LENGTH.pack(4 + len(parts)) + parts
        [(marker, said)] = fields.items()
        return _READERS[marker](said)
    return 0x03, _document_of(value)


def _expect(value: Any, code: int) -> bytes:
    found, body = _read(value)
    if found != code:
        raise ValueError(f"a value of type {code:#x} was expected, found {found:#x}")
    return body


def _document_of(fields: Any) -> bytes:
    parts = [b""]
    for name, value in fields:
        code, body = _read(value)
        parts += (bytes((code,)), name.encode(), b"\0", body)
    parts.append(b"\0")
    parts[0] = LENGTH.pack(4 + sum(map(len, parts)))
    return b"".join(parts)


def _string_of(text: str) -> bytes:
    content = text.encode()
    return LENGTH.pack(len(content) + 1) + content + b"\0"


def _read_double(text: str) -> tuple[int, bytes]:
    return 0x01, _NAN if text == "NaN" else _DOUBLE.pack(float(text))


def _read_binary(said: _Object) -> tuple[int, bytes]:
    fields = dict(said)
    content = base64.b64decode(fields["base64"], validate=True)
    subtype = int(fields["subType"], 16)
    if subtype == 2:
        content = LENGTH.pack(len(content)) + content
    return 0x05, LENGTH.pack(len(content)) + bytes((subtype,)) + content


def _read_regex(said: _Object) -> tuple[int, bytes]:
    fields = dict(said)
    return 0x0B, fields["pattern"].encode() + b"\0" + fields["options"].encode() + b"\0"


def _read_db_pointer(said: _Object) -> tuple[int, bytes]:
    fields = dict(said)
    return 0x0C, _string_of(fields["$ref"]) + _expect(fields["$id"], 0x07)


def _read_timestamp(said: _Object) -> tuple[int, bytes]:
    fields = dict(said)
    return 0x11, _TIMESTAMP.pack(fields["i"], fields["t"])


def _read_bytes(said: _Object) -> tuple[int, bytes]:
    fields = dict(said)
    return int(fields["type"], 16), base64.b64decode(fields["base64"], validate=True)


_READERS: Final[dict[str, Callable[[Any], tuple[int, bytes]]]] = {
    "$oid": lambda said: (0x07, ObjectId(said).binary),
    "$symbol": lambda said: (0x0E, _string_of(said)),
    "$numberLong": lambda said: (0x12, _INT64.pack(int(said))),
    "$numberDouble": _read_double,
    "$numberDecimal": lambda said: (0x13, Decimal128(said).bid),
    "$binary": _read_binary,
    "$code": lambda said: (0x0D, _string_of(said)),
    "$timestamp": _read_timestamp,
    "$regularExpression": _read_regex,
    "$dbPointer": _read_db_pointer,
    "$date": lambda said: (0x09, _expect(said, 0x12)),
    "$minKey": lambda _: (0xFF, b""),
    "$maxKey": lambda _: (0x7F, b""),
    "$undefined": lambda _: (0x06, b""),
    "$bson": _read_bytes,
    "$document": lambda said: (0x03, _document_of(said)),
}
