"""A condition on a key, as a person writes it, and the range of keys that it means.  Pure.

Nothing of the text goes to a server: columns must be those of the key, values must be of their
kind, and what is left of a condition is two edges, which each connector makes statements of with
its own quoting.

Only kinds whose order is the same on every server are taken.  Texts are compared by collations,
and a range that is one thing at the source and another at the destination would remove rows that
nobody has read.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from warp.errors import ConfigError
from warp.model import Edge, KeySpan, Kind, TableSchema

PLACE: Final = "--where"

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<op>>=|<=|=|>|<)|(?P<text>'(?:[^']|'')*')|(?P<number>[+-]?\d+(?:\.\d+)?)(?![\w.])"
    r'|"(?P<quoted>(?:[^"]|"")+)"|`(?P<ticked>(?:[^`]|``)+)`|(?P<word>\w+))'
)
_SHOWN: Final = "such as `id >= 100 and id < 200`, or `tenant = 7 and id between 1 and 1000`"


def parse(text: str, schema: TableSchema) -> KeySpan:
    """Raises ConfigError where the text is no range of this table's key."""
    names = [column.source for name in schema.key if (column := schema.column(name))]
    kinds = {c.source: c.kind for c in schema.columns if c.name in schema.key}
    if not names:
        raise _unlike("a table with a key", "one without", "leave --where out")
    by_column: dict[str, list[_Term]] = {}
    for term in _terms(_tokens(text)):
        name = _column(term.column, names)
        by_column.setdefault(name, []).append(term)
    fixed: list[str] = []
    lower: list[Edge] = []
    upper: list[Edge] = []
    for name in names:
        terms = by_column.pop(name, [])
        if not terms:
            break
        values = [(t.op, _value(t.value, kinds[name], name)) for t in terms]
        if [op for op, _ in values] == ["="]:
            fixed.append(values[0][1])
            continue
        for op, value in values:
            edge = Edge((*fixed, value), inclusive=op in (">=", "<="))
            if op == "=":
                raise _unlike("one condition beside `=`", f"more on {name!r}", "leave one out")
            (lower if op in (">", ">=") else upper).append(edge)
        break
    if by_column:
        raise _unlike(
            f"a range of the key ({', '.join(names)}): `=` on its first columns, then one range",
            f"a condition on {sorted(by_column)[0]!r} that narrows no range",
            "leave it out, or narrow the columns before it with `=`",
        )
    if len(lower) > 1 or len(upper) > 1:
        raise _unlike("one lower and one upper end", "several", "keep the narrower")
    whole = Edge(tuple(fixed), inclusive=True) if fixed else None
    return KeySpan(tuple(names), lower[0] if lower else whole, upper[0] if upper else whole)


def must_agree(within: KeySpan, schema: TableSchema | None) -> None:
    """Does the destination order these keys as the source does?"""
    if schema is None:
        raise _unlike(
            "a table at the destination", "none yet", "run `cartridge-warp resync` without --where"
        )
    for name in within.used:
        found = next((c.kind for c in schema.columns if c.source == name), None)
        if found not in _READERS:
            raise _unlike(
                f"a column of {_KINDS} for {name!r} at the destination",
                "none" if found is None else found.value,
                "run `cartridge-warp resync` without --where",
            )


# -- the text


@dataclass(frozen=True, slots=True)
class _Term:
    column: str
    op: str
    value: str


_Token = tuple[str, str]


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _unlike(f"a condition {_SHOWN}", repr(text[at:].strip()[:40]), "correct it")
        kind, said = match.lastgroup, match[match.lastgroup]
        if kind == "text":
            said = said[1:-1].replace("''", "'")
        elif kind in ("quoted", "ticked"):
            mark = '"' if kind == "quoted" else "`"
            kind, said = "column", said.replace(mark * 2, mark)
        found.append((kind, said))
        at = match.end()
    return found


def _terms(tokens: Sequence[_Token]) -> Iterator[_Term]:
    rest = list(tokens)

    def take(*kinds: str, what: str) -> str:
        if not rest or rest[0][0] not in kinds:
            found = repr(rest[0][1]) if rest else "the end"
            raise _unlike(f"{what}, {_SHOWN}", found, "correct it")
        return rest.pop(0)[1]

    def is_word(word: str) -> bool:
        return bool(rest) and rest[0][0] == "word" and rest[0][1].lower() == word

    while True:
        column = take("word", "column", what="a key column")
        if is_word("between"):
            rest.pop(0)
            yield _Term(column, ">=", take("number", "text", what="a value"))
            if not is_word("and"):
                raise _unlike("`between … and …`", "no `and`", "correct it")
            rest.pop(0)
            yield _Term(column, "<=", take("number", "text", what="a value"))
        else:
            op = take("op", what="a comparison")
            yield _Term(column, op, take("number", "text", what="a value"))
        if not rest:
            return
        if not is_word("and"):
            raise _unlike("`and` between comparisons", repr(rest[0][1]), "correct it")
        rest.pop(0)


def _column(name: str, names: Sequence[str]) -> str:
    if name in names:
        return name
    raise _unlike(f"a column of the key ({', '.join(names)})", repr(name), "correct it")


# -- values


def _whole(text: str) -> str:
    return str(int(text))


def _decimal(text: str) -> str:
    value = Decimal(text)
    if not value.is_finite():
        raise ValueError(text)
    return f"{value:f}"


def _date(text: str) -> str:
    return dt.date.fromisoformat(text).isoformat()


def _datetime(text: str) -> str:
    value = dt.datetime.fromisoformat(text)
    if value.tzinfo is not None:
        raise ValueError(text)
    return value.isoformat(sep=" ")


def _objectid(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{24}", text):
        raise ValueError(text)
    return text.lower()


_READERS: Final[Mapping[Kind, Callable[[str], str]]] = {
    Kind.INT32: _whole,
    Kind.INT64: _whole,
    Kind.DECIMAL: _decimal,
    Kind.DATE: _date,
    Kind.DATETIME: _datetime,
    Kind.OBJECTID: _objectid,
}
_KINDS: Final = ", ".join(_READERS)


def _value(text: str, kind: Kind, name: str) -> str:
    reader = _READERS.get(kind)
    if reader is None:
        raise _unlike(
            f"a key whose order is the same on every server ({_KINDS})",
            f"{name!r} of kind {kind.value}",
            "run `cartridge-warp resync` without --where",
        )
    try:
        return reader(text)
    except (ValueError, InvalidOperation):
        raise _unlike(
            f"a value of kind {kind.value} for {name!r}", repr(text), "correct it"
        ) from None


def _unlike(expected: str, found: str, advice: str) -> ConfigError:
    return ConfigError(f"expected {expected}, found {found}; {advice}", place=PLACE)


# -- as it is kept


def dump(within: KeySpan) -> dict[str, Any]:
    """For a marker; `load` reads it again."""
    return {
        "key": list(within.key),
        "lower": _dumped(within.lower),
        "upper": _dumped(within.upper),
    }


def load(found: Mapping[str, Any]) -> KeySpan:
    return KeySpan(tuple(found["key"]), _loaded(found["lower"]), _loaded(found["upper"]))


def _dumped(edge: Edge | None) -> dict[str, Any] | None:
    return None if edge is None else {"values": list(edge.values), "inclusive": edge.inclusive}


def _loaded(found: Mapping[str, Any] | None) -> Edge | None:
    return None if found is None else Edge(tuple(found["values"]), bool(found["inclusive"]))


def shown(within: KeySpan) -> str:
    """For people: `id >= 100 and id < 200`."""
    parts = []
    for edge, signs in ((within.lower, (">", ">=")), (within.upper, ("<", "<="))):
        if edge is not None:
            columns = ", ".join(within.key[: len(edge.values)])
            values = ", ".join(edge.values)
            several = len(edge.values) > 1
            left, right = (f"({columns})", f"({values})") if several else (columns, values)
            parts.append(f"{left} {signs[edge.inclusive]} {right}")
    return " and ".join(parts) or json.dumps("everything")
