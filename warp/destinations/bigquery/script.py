"""A script: statements and the values bound to them, sent as one request.  Pure.

Values are bound as named parameters, never written into the text; the type is told by the caller
where Python's own says too little (NULL, a time).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warp.destinations.bigquery.names import literal
from warp.sql import load

_TYPES = {bool: "BOOL", int: "INT64", float: "FLOAT64", str: "STRING", bytes: "BYTES"}


@dataclass(slots=True)
class Script:
    """Statements in their order."""

    statements: list[str] = field(default_factory=list)
    values: dict[str, tuple[str, Any]] = field(default_factory=dict)  # name -> type and value
    _known: dict[tuple[str, Any], str] = field(default_factory=dict)

    def bind(self, value: Any, type_: str = "") -> str:
        """The parameter that stands for this value; lists become arrays."""
        if not type_:
            type_ = "STRING" if value is None else _type_of(value)
        known = (type_, tuple(value) if isinstance(value, list) else value)
        name = self._known.get(known)
        if name is None:
            name = f"p{len(self.values)}"
            self._known[known] = name
            self.values[name] = (type_, value)
        return f"@{name}"

    def add(self, statement: str) -> None:
        self.statements.append(statement)

    def named(self, statement: str, places: dict[str, str], /, **values: Any) -> None:
        """A statement of warp/sql/bigquery, its values bound and its tables put in."""
        self.add(self.text(statement, places, **values))

    def text(self, statement: str, places: dict[str, str], /, **values: Any) -> str:
        bound = {
            key: self.bind(value[1], value[0]) if isinstance(value, tuple) else self.bind(value)
            for key, value in values.items()
        }
        return load("bigquery", statement).strip().format(**places, **bound)

    def require_one(self, said: str) -> None:
        """The statement before this one has changed one row, or nothing of it all remains."""
        self.add(f"ASSERT @@row_count = 1 AS {literal(said)}")

    def transaction(self) -> str:
        """All of it as one transaction."""
        return ";\n".join(["BEGIN TRANSACTION", *self.statements, "COMMIT TRANSACTION"]) + ";"

    def single(self) -> str:
        [statement] = self.statements
        return statement


def _type_of(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"ARRAY<{_TYPES[type(value[0])] if value else 'STRING'}>"
    return _TYPES[type(value)]
