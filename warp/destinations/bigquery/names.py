"""Names as BigQuery takes them, and how they are quoted.  Pure.

A dataset's name is of letters, digits and underscores; a column's too, begins with no digit, and
differs from its neighbours by more than case.  What is not so is changed, with a hash of the whole
name at its end, so that two names never become one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from typing import Final

from warp.model import TableId

_DATASET: Final = re.compile(r"[A-Za-z0-9_]{1,300}")
_TABLE: Final = re.compile(r"[A-Za-z0-9_-]{1,300}")
_COLUMN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,249}")
# Prefixes that BigQuery keeps for itself, in any case.
_KEPT: Final = re.compile(
    r"_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER|_CHANGE_", re.IGNORECASE
)
_ODD: Final = re.compile(r"[^A-Za-z0-9_]")


def digest(text: str, length: int = 8) -> str:
    """A short mark of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def dataset(name: str) -> str:
    return name if _DATASET.fullmatch(name) else _changed(name)


def table(name: str) -> str:
    return name if _TABLE.fullmatch(name) else _changed(name)


def column(name: str, taken: Collection[str] = ()) -> str:
    """A column's name beside those that are `taken` already, which are in lower case."""
    if _COLUMN.fullmatch(name) and not _KEPT.match(name) and name.lower() not in taken:
        return name
    return "c_" + _changed(name)


def place(table_id: TableId) -> TableId:
    """A destination's table as it is called here."""
    return TableId(dataset(table_id.namespace), table(table_id.name))


def readable(text: str, length: int = 60) -> str:
    """The beginning of any text, as a part of a name; not unique."""
    return _ODD.sub("_", text)[:length]


def quoted(*parts: str) -> str:
    """A name in backticks, part by part."""
    return ".".join(f"`{_escaped(part)}`" for part in parts)


def literal(value: str) -> str:
    """A text in quotes."""
    return '"' + _escaped(value).replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return (
        text.replace("\\", "\\\\")
        .replace("`", "\\`")
        .replace("\n", "\\n")
        .replace("\r", "\\r")
        .replace("\0", "\\0")
    )


def _changed(name: str) -> str:
    return f"{readable(name, 200)}_{digest(name)}"
