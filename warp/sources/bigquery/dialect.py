"""How GoogleSQL spells names and values.  Pure.

Names stand in backticks, whose content knows the escapes of strings.  Each value is a literal of
its type: a column of NUMERIC is not compared with a float, and the conditions of the Storage Read
API know literals only.
"""

from __future__ import annotations

from typing import Final

from warp.kinds import as_text
from warp.model import Kind, TableId

_ESCAPES: Final = str.maketrans(
    {"\\": "\\\\", "'": "\\'", "`": "\\`", "\n": "\\n", "\r": "\\r", "\0": "\\0"}
)
_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")


class BigQueryDialect:
    """As `warp.capture.side.Dialect`."""

    def name(self, *parts: str) -> str:
        return ".".join(f"`{part.translate(_ESCAPES)}`" for part in parts)

    def literal(self, kind: Kind, text: str) -> str:
        match kind:
            case Kind.INT32 | Kind.INT64:
                return str(int(text))
            case Kind.BOOL:
                return "TRUE" if text == "true" else "FALSE"
            case Kind.DECIMAL:
                return f"BIGNUMERIC {_quoted(text)}"
            case Kind.FLOAT32 | Kind.FLOAT64:
                said = text.replace("Infinity", "inf") if text in _NOT_FINITE else repr(float(text))
                return f"CAST({_quoted(said)} AS FLOAT64)"
            case Kind.BYTES:
                raw = bytes.fromhex(text.removeprefix("\\x"))
                return "b'" + "".join(f"\\x{byte:02x}" for byte in raw) + "'"
            case Kind.DATE | Kind.TIME | Kind.DATETIME | Kind.TIMESTAMP:
                return f"{kind.value.upper()} {_quoted(text)}"
            case _:
                return _quoted(text)

    def selected(self, table: TableId, column: str) -> str:
        return self.name(column)

    def ordered(self, table: TableId, column: str) -> str:
        return self.name(column)

    def instant(self, microseconds: int) -> str:
        return self.literal(Kind.TIMESTAMP, as_text(Kind.TIMESTAMP, microseconds))

    def at(self, table: TableId, microseconds: int) -> str:
        """The table as it was then."""
        name = self.name(table.namespace, table.name)
        return f"{name} FOR SYSTEM_TIME AS OF {self.instant(microseconds)}"


def _quoted(text: str) -> str:
    return f"'{text.translate(_ESCAPES)}'"
