"""A second opinion on digests: what `docs/digest.md` says, once more, from values as any driver
gives them.  Pure.

Shares no code with what writes digests, on purpose, so that a mistake in one of the two shows.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

_TWO64: Final = 1 << 64


def count(rows: Iterable[Sequence[Any]], kinds: Sequence[str]) -> tuple[int, str]:
    """(rows, digest) of rows whose cells are of these kinds.

    Whoever reads them gives a date as days since 2000-01-01, a time as microseconds of its day, a
    datetime and a timestamp as microseconds since 2000-01-01.
    """
    texts = [_TEXTS[kind] for kind in kinds]
    counted = left = right = 0
    for row in rows:
        text = "".join(
            "-," if value is None else make(value) for make, value in zip(texts, row, strict=True)
        )
        first, second = struct.unpack(">QQ", hashlib.sha256(text.encode()).digest()[:16])
        counted += 1
        left = (left + first) % _TWO64
        right = (right + second) % _TWO64
    return counted, f"{counted}:{left:016x}{right:016x}"


def _free(value: str) -> str:
    return f"{len(value.encode())}:{value},"


def _plain(value: str) -> str:
    return value + ","


def _big_endian(form: str) -> Callable[[Any], str]:
    def make(value: Any) -> str:
        if value != value:
            return {"d": "7ff8000000000000", "f": "7fc00000"}[form] + ","
        return struct.pack(">" + form, value + 0 if value else 0).hex() + ","

    return make


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        return "NaN,"
    if value.is_infinite():
        return ("Infinity" if value > 0 else "-Infinity") + ","
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)))
    if number == 0 or not isinstance(exponent, int):
        return "0,"
    while exponent < 0 and number % 10 == 0:
        number, exponent = number // 10, exponent + 1
    text = str(number) + "0" * max(0, exponent)
    if exponent < 0:
        text = text.rjust(1 - exponent, "0")
        text = f"{text[:exponent]}.{text[exponent:]}"
    return ("-" if sign else "") + text + ","


class _Digits(str):
    """A number of a JSON text, with all the digits it was written with."""

    __slots__ = ()


def _printed(value: Any) -> str:
    match value:
        case _Digits():
            plain = str(value) if value.lstrip("-").isdigit() else format(Decimal(value), "f")
            return plain.lstrip("-") if not plain.strip("-0.") else plain
        case dict():
            names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
            inside = (f"{_printed(name)}: {_printed(value[name])}" for name in names)
            return "{" + ", ".join(inside) + "}"
        case list():
            return "[" + ", ".join(map(_printed, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False)
    return {None: "null", True: "true", False: "false"}[value]


_TEXTS: Final[dict[str, Callable[[Any], str]]] = {
    "bool": lambda v: "t," if v else "f,",
    "int32": lambda v: f"{v},",
    "int64": lambda v: f"{v},",
    "float32": _big_endian("f"),
    "float64": _big_endian("d"),
    "decimal": _decimal,
    "text": _free,
    "bytes": lambda v: bytes(v).hex() + ",",
    "uuid": lambda v: (v.hex() if isinstance(v, bytes) else v.hex) + ",",
    "date": _big_endian("i"),
    "time": _big_endian("q"),
    "datetime": _big_endian("q"),
    "timestamp": _big_endian("q"),
    "json": lambda v: _free(_printed(json.loads(v, parse_int=_Digits, parse_float=_Digits))),
    "json_text": _free,
    "objectid": _plain,
    "tagged": _free,
}
