"""Names of databases, tables and columns as the server takes them.  Pure.

At most 64 characters, none beyond U+FFFF, no NUL, no space at the end; and two columns of one table
must differ in more than the case of their letters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from warp.mysql_family import identifier

_LONGEST: Final = 64  # characters; longer ones are refused (1059)


def fitting(name: str) -> str:
    """The name, or where the server does not take it, its beginning and a hash of it all."""
    kept = "".join(c for c in name if c != "\0" and c <= "\uffff" and not "\ud800" <= c <= "\udfff")
    if kept == name and 0 < len(name) <= _LONGEST and not name.endswith(" "):
        return name
    return _marked(kept, name)


def unlike(name: str, taken: Iterable[str]) -> str:
    """A fitting name for a column beside others: `Name` and `name` are one to the server."""
    fit = fitting(name)
    return _marked(fit, name) if fit.lower() in {other.lower() for other in taken} else fit


def _marked(kept: str, name: str) -> str:
    mark = "_" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return kept[: _LONGEST - len(mark)].rstrip(" ") + mark


def quoted(*parts: str) -> str:
    """A quoted name, for a statement whose percent signs stand for parameters."""
    return identifier(*parts).replace("%", "%%")


def text_literal(value: str) -> str:
    """A quoted text, for such a statement."""
    hexed = value.encode("utf-8", "surrogatepass").hex()
    return f"_utf8mb4 X'{hexed}'" if value else "''"
