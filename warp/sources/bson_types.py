"""What types the values of a field have, and the kind of column that they ask for.  Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Final

from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from warp.model import Kind
from warp.sources.extjson import Garbled

EXACT_IN_DOUBLE: Final = 1 << 53


class Seen:
    """What one field held in a number of documents."""

    __slots__ = ("large", "types")

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.large = False  # an int that no double holds exactly

    def add(self, value: Any) -> None:
        self.add_type(
            type_name(value),
            large=isinstance(value, int) and not -EXACT_IN_DOUBLE <= value <= EXACT_IN_DOUBLE,
        )

    def add_type(self, name: str, *, large: bool) -> None:
        self.types[name] += 1
        self.large = self.large or large

    def kind(self) -> Kind | None:
        """The narrowest kind that holds all of it; None where only nulls were seen."""
        kinds = {KIND_OF[name] for name in self.types if name != "null"}
        if not kinds:
            return None
        if len(kinds) == 1:
            return kinds.pop()
        if kinds <= {Kind.INT64, Kind.FLOAT64}:
            return Kind.DECIMAL if self.large else Kind.FLOAT64
        if kinds <= {Kind.INT64, Kind.FLOAT64, Kind.DECIMAL}:
            return Kind.DECIMAL
        return Kind.JSON

    def comment(self, field: str, documents: int) -> str:
        shares = ", ".join(
            f"{name} {count * 100 / documents:.3g} %" for name, count in self.types.most_common()
        )
        return f"MongoDB field {field!r}: {shares}"


NAMES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "bool",
    int: "int",
    Int64: "long",
    float: "double",
    Decimal128: "decimal",
    str: "string",
    Garbled: "string that is not UTF-8",
    bytes: "binData",
    ObjectId: "objectId",
    datetime: "date",
    DatetimeMS: "date",
    dict: "object",
    list: "array",
    Regex: "regex",
    Code: "javascript",
    Timestamp: "timestamp",
    MinKey: "minKey",
    MaxKey: "maxKey",
    DBRef: "dbRef",
}

KIND_OF: Final[dict[str, Kind]] = {
    "bool": Kind.BOOL,
    "int": Kind.INT64,
    "long": Kind.INT64,
    "double": Kind.FLOAT64,
    "decimal": Kind.DECIMAL,
    "string": Kind.TEXT,
    "string that is not UTF-8": Kind.TEXT,
    "binData": Kind.BYTES,
    "uuid": Kind.UUID,
    "objectId": Kind.OBJECTID,
    "date": Kind.TIMESTAMP,
    "object": Kind.JSON,
    "array": Kind.JSON,
    "regex": Kind.JSON,
    "javascript": Kind.JSON,
    "timestamp": Kind.JSON,
    "minKey": Kind.JSON,
    "maxKey": Kind.JSON,
    "dbRef": Kind.JSON,
}


def type_name(value: Any) -> str:
    """The BSON type of a decoded value, as MongoDB calls it."""
    if type(value) is Binary:
        return "uuid" if value.subtype == 4 and len(value) == 16 else "binData"
    return NAMES[type(value)]
