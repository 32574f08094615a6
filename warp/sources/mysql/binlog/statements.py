"""What a statement in the log is: does it begin, end or undo, or change a table's shape?

The text is cut into words as the server does, so that comments, quotes and qualified names make
no difference.  Only statements that the log itself carries come here, after the server has
accepted them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from warp.model import TableId

# Nothing here goes back over what it has taken, so that a text of megabytes takes no longer.
# An executable comment (`/*!50100 … */`, `/*M! … */`) is part of the statement; its marks are not.
_WORDS: Final = re.compile(
    r"""
      (?P<space>\s+ | /\*M?!\d* | \*/ | /\*(?!M?!).*?(?:\*/|\Z))
    | (?P<comment>(?:--(?=\s|$) | \#)[^\n]*)
    | (?P<quoted>`(?:[^`]|``)*+(?:`|\Z))
    | (?P<double>"(?:[^"\\]|\\.|"")*+(?:"|\Z))
    | (?P<text>[xXbBnN]?'(?:[^'\\]|\\.|'')*+(?:'|\Z))
    | (?P<name>[\w$@\u0080-\U0010ffff]+)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Sort(StrEnum):
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    ROLLBACK_TO = "rollback_to"
    XA_START = "xa_start"
    XA_END = "xa_end"
    XA_COMMIT = "xa_commit"
    XA_ROLLBACK = "xa_rollback"
    CREATE = "create"
    ALTER = "alter"
    DROP = "drop"
    RENAME = "rename"
    TRUNCATE = "truncate"
    DROP_DATABASE = "drop_database"
    ROWS = "rows"  # changes rows, and the log has the statement instead of the rows
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Statement:
    sort: Sort
    text: str
    # The tables it is about; of RENAME each old name followed by its new one.
    tables: tuple[TableId, ...] = ()
    namespace: str = ""  # of DROP DATABASE, and where unqualified names lie
    xid: str = ""  # of an XA statement: its parts as they are written
    partial: bool = False  # ALTER TABLE that removes or moves rows without logging them


@dataclass(frozen=True, slots=True)
class _Word:
    text: str  # without its quotes
    bare: str  # in capitals; '' where it was quoted or is a text


def _words(text: str) -> Iterator[_Word]:
    for match in _WORDS.finditer(text):
        if match.lastgroup == "quoted":
            yield _Word(match[0][1:].removesuffix("`").replace("``", "`"), "")
        elif match.lastgroup == "double":
            yield _Word(match[0][1:].removesuffix('"').replace('""', '"'), "")
        elif match.lastgroup == "text":
            yield _Word(match[0], "'")
        elif match.lastgroup in ("name", "sign"):
            yield _Word(match[0], match[0].upper())


_PLAIN: Final = {
    "BEGIN": Sort.BEGIN,
    "COMMIT": Sort.COMMIT,
    "SAVEPOINT": Sort.SAVEPOINT,
    "RELEASE": Sort.SAVEPOINT,
}
_CHANGES_ROWS: Final = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "MERGE"}
_BEFORE_TABLE: Final = {
    *("OR", "REPLACE", "TEMPORARY", "ONLINE", "OFFLINE", "IGNORE", "IF", "NOT", "EXISTS"),
}
_MOVES_ROWS: Final = {"TRUNCATE", "DROP", "EXCHANGE", "DISCARD", "IMPORT"}


def statement_of(text: str, namespace: str) -> Statement:
    """`namespace` is the session's default database."""
    # The rows of a statement may make it megabytes long; what it is stands at its beginning.
    words = list(_words(text[:_LONGEST]))
    bare = [word.bare for word in words]
    if bare[:2] == ["SET", "STATEMENT"] and "FOR" in bare:  # MariaDB: settings for one statement
        words = words[bare.index("FOR") + 1 :]
    first = words[0].bare if words else ""
    if first in _PLAIN:
        return Statement(_PLAIN[first], text)
    if first == "ROLLBACK":
        sort = Sort.ROLLBACK_TO if any(word.bare == "TO" for word in words) else Sort.ROLLBACK
        return Statement(sort, text)
    if first == "XA":
        return _xa(text, words)
    if first in ("CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"):
        return _definition(first, text, words, namespace)
    if first == "DELETE" and (emptied := _emptied(words, namespace)):
        return Statement(Sort.TRUNCATE, text, (emptied,), namespace)
    if first in _CHANGES_ROWS:
        return Statement(Sort.ROWS, text, tuple(_mentioned(words, namespace)), namespace)
    return Statement(Sort.OTHER, text, (), namespace)


_LONGEST: Final = 1 << 16


def outline(text: str, limit: int = 200) -> str:
    """A statement as it may be shown: without what it says between quotes (guarantee 10)."""
    parts = (
        match[0][:1] + "…" + match[0][:1] if match.lastgroup in ("text", "double") else match[0]
        for match in _WORDS.finditer(text[:_LONGEST])
    )
    whole = "".join(parts)
    return whole if len(whole) <= limit else whole[:limit] + "…"


def _xa(text: str, words: list[_Word]) -> Statement:
    sorts = {
        "START": Sort.XA_START,
        "BEGIN": Sort.XA_START,
        "END": Sort.XA_END,
        "COMMIT": Sort.XA_COMMIT,
        "ROLLBACK": Sort.XA_ROLLBACK,
    }
    second = words[1].bare if len(words) > 1 else ""
    parts = "".join(word.text for word in words[2:])
    return Statement(sorts.get(second, Sort.OTHER), text, xid=parts)


def _definition(first: str, text: str, words: list[_Word], namespace: str) -> Statement:
    sort = Sort(first.lower())
    place = 1
    while place < len(words) and words[place].bare in _BEFORE_TABLE:
        place += 1
    what = words[place].bare if place < len(words) else ""
    if any(word.bare == "TEMPORARY" for word in words[1:place]):
        return Statement(Sort.OTHER, text, (), namespace)
    if first == "DROP" and what in ("DATABASE", "SCHEMA"):
        place = _past_conditions(words, place + 1)
        gone = words[place].text if place < len(words) else namespace
        return Statement(Sort.DROP_DATABASE, text, (), gone)
    if what in ("TABLE", "TABLES"):
        place += 1
    elif first != "TRUNCATE":  # an index, a view, a user, …
        return _about_no_table(first, what, text, words, namespace)
    tables = tuple(_names(words, _past_conditions(words, place), namespace, sort))
    moves = sort is Sort.ALTER and _moves_rows(words)
    if sort is Sort.ALTER:
        tables += tuple(_renamed(words, namespace))
    return Statement(sort, text, tables, namespace, partial=moves)


def _about_no_table(
    first: str, what: str, text: str, words: list[_Word], namespace: str
) -> Statement:
    """CREATE INDEX … ON t changes t; the rest changes no table that we read."""
    kinds = ("INDEX", "UNIQUE", "FULLTEXT", "SPATIAL")
    if first in ("CREATE", "DROP") and what in kinds:
        for place, word in enumerate(words):
            if word.bare == "ON":
                tables = tuple(_names(words, place + 1, namespace, Sort.ALTER))[:1]
                return Statement(Sort.ALTER, text, tables, namespace)
    return Statement(Sort.OTHER, text, (), namespace)


def _past_conditions(words: list[_Word], place: int) -> int:
    while place < len(words) and words[place].bare in ("IF", "NOT", "EXISTS"):
        place += 1
    return place


def _name(words: list[_Word], place: int, namespace: str) -> tuple[TableId | None, int]:
    """(the name that begins at a word, the place after it)."""
    if place >= len(words) or words[place].bare in ("'", "(", ",", ";"):
        return None, place
    first = words[place].text
    if place + 2 < len(words) and words[place + 1].bare == ".":
        return TableId(first, words[place + 2].text), place + 3
    return TableId(namespace, first), place + 1


def _names(words: list[_Word], place: int, namespace: str, sort: Sort) -> Iterator[TableId]:
    """The names that a definition is about."""
    while True:
        table, place = _name(words, place, namespace)
        if table is None:
            return
        yield table
        if sort is Sort.RENAME:
            # RENAME TABLE a [WAIT n] TO b, c TO d
            while place < len(words) and words[place].bare not in ("TO", ","):
                place += 1
        following = words[place].bare if place < len(words) else ""
        joined = {Sort.DROP: (",",), Sort.TRUNCATE: (",",), Sort.RENAME: (",", "TO")}
        if following in joined.get(sort, ()):
            place += 1
        else:
            return


def _clauses(words: list[_Word]) -> Iterator[list[_Word]]:
    """The parts of an ALTER TABLE between commas that are in no brackets, name and all."""
    depth, clause = 0, list[_Word]()
    for word in words:
        depth += (word.bare == "(") - (word.bare == ")")
        if word.bare == "," and depth == 0:
            yield clause
            clause = []
        else:
            clause.append(word)
    yield clause


def _renamed(words: list[_Word], namespace: str) -> Iterator[TableId]:
    """The new name of ALTER TABLE a RENAME [TO|AS|=] b; not of a column, an index, a constraint."""
    for clause in _clauses(words):
        for place, word in enumerate(clause):
            if word.bare != "RENAME" or place + 1 >= len(clause):
                continue
            after = place + 1
            if clause[after].bare in ("COLUMN", "INDEX", "KEY", "CONSTRAINT"):
                break
            while clause[after].bare in ("TO", "AS", "=") and after + 1 < len(clause):
                after += 1
            table, _ = _name(clause, after, namespace)
            if table is not None:
                yield table
            break


def _moves_rows(words: list[_Word]) -> bool:
    """ALTER TABLE … TRUNCATE|DROP|EXCHANGE PARTITION, IMPORT TABLESPACE: rows go without events."""
    for place, word in enumerate(words[:-1]):
        if word.bare in _MOVES_ROWS and words[place + 1].bare in ("PARTITION", "TABLESPACE"):
            return True
        if word.bare == "CONVERT" and words[place + 1].bare in ("PARTITION", "TABLE"):
            return True
    return False


def _emptied(words: list[_Word], namespace: str) -> TableId | None:
    """DELETE FROM t with nothing behind: how a restart empties MEMORY tables."""
    if len(words) < 3 or words[1].bare != "FROM":
        return None
    table, place = _name(words, 2, namespace)
    rest = [word for word in words[place:] if word.bare != ";"]
    return table if not rest else None


def _mentioned(words: list[_Word], namespace: str) -> Iterator[TableId]:
    """Every name that may be a table of a statement that changes rows."""
    seen = set()
    for place, word in enumerate(words):
        if word.bare and not (word.bare[0].isalpha() or word.bare[0] == "_"):
            continue
        before = words[place - 1].bare if place else ""
        if before == ".":
            continue
        table, _ = _name(words, place, namespace)
        if table is not None and table not in seen:
            seen.add(table)
            yield table
