"""What a statement of the log does to rows that have no events of their own.  Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from warp.model import TableId, TableSelection
from warp.sources.mysql.binlog.statements import Sort, Statement

_COMMENT: Final = re.compile(r"/\*(?!M?!).*?\*/", re.DOTALL)
_QUOTED: Final = re.compile(
    r"`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL
)
# The rows that are there get other values: by a default, an expression, or another type.
_REWRITES: Final = re.compile(
    r"\b(?:MODIFY|CHANGE|CONVERT)\b"
    r"|\bADD\b.*(?:\bDEFAULT\b|\bNOT\s+NULL\b|\bGENERATED\b|\bAS\s*\()",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Effect:
    """Of the selected tables: those without rows now, and those to be read anew.

    A `replaced` table holds rows that were another table's: it loses what it had, and is read
    anew.  One in `reload` keeps its rows until the new ones are there.
    """

    emptied: tuple[TableId, ...] = ()
    replaced: tuple[TableId, ...] = ()
    reload: tuple[TableId, ...] = ()


def effect(statement: Statement, selection: TableSelection, known: Collection[TableId]) -> Effect:
    """`known` tables are those of a database that is dropped whole."""

    def selected(tables: Iterable[TableId]) -> tuple[TableId, ...]:
        return tuple(t for t in dict.fromkeys(tables) if selection(t) is not None)

    if _is_temporary(statement.text):
        return Effect()
    tables = statement.tables
    match statement.sort:
        case Sort.TRUNCATE | Sort.DROP:
            return Effect(emptied=selected(tables))
        case Sort.DROP_DATABASE:
            dropped = sorted(t for t in known if t.namespace == statement.namespace)
            return Effect(emptied=selected(dropped))
        case Sort.CREATE if _replaces(statement.text):
            return Effect(emptied=selected(tables))
        case Sort.RENAME:
            return _renamed(selected(tables[0::2]), selected(tables[1::2]))
        case Sort.ALTER if len(tables) > 1:
            return _renamed(selected(tables[:1]), selected(tables[1:]))
        case Sort.ALTER if statement.partial or _REWRITES.search(_bare(statement.text)):
            return Effect(reload=selected(tables))
        case _:
            return Effect()


def _renamed(old: tuple[TableId, ...], new: tuple[TableId, ...]) -> Effect:
    # One that is both, as where a copy takes a table's place, is only read anew.
    return Effect(emptied=tuple(t for t in old if t not in new), replaced=new)


def _bare(text: str) -> str:
    """Without what only looks like words of SQL."""
    return _QUOTED.sub("''", _COMMENT.sub(" ", text))


def _head(text: str) -> str:
    """All words before the one that says what the statement is about."""
    return _bare(text).upper().partition("TABLE")[0]


def _is_temporary(text: str) -> bool:
    # A session's own table may have the name of everybody's, whose rows stay.
    return re.search(r"\bTEMPORARY\b", _head(text)) is not None


def _replaces(text: str) -> bool:
    return re.search(r"\bOR\s+REPLACE\b", _head(text)) is not None
