"""The same digests as SQL, for servers whose functions give the same bytes.  Pure.

Each function takes a column as the caller's driver has quoted it and gives the SQL of its form, or
None where this server has no such form: then the rows are read and hashed by us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from warp.digest.canonical import FREE_TEXT, NULL
from warp.model import Kind

Quoted = tuple[Kind, str]
"""A column's kind, and its quoted name or an expression in parentheses."""

# ---------------------------------------------------------------- PostgreSQL 13 and later


def _sent(function: str) -> Callable[[str], str]:
    return lambda x: f"encode({function}({x}), 'hex')"


def _floating(function: str, digits: int, nan: str) -> Callable[[str], str]:
    return lambda x: (
        f"case when {x} = 0 then '{'0' * digits}' when {x} = 'NaN' then '{nan}'"
        f" else encode({function}({x}), 'hex') end"
    )


_POSTGRESQL: Final[Mapping[Kind, Callable[[str], str]]] = {
    Kind.BOOL: lambda x: f"case when {x} then 't' when not {x} then 'f' end",
    Kind.INT32: lambda x: f"{x}::text",
    Kind.INT64: lambda x: f"{x}::text",
    Kind.FLOAT32: _floating("float4send", 8, "7fc00000"),
    Kind.FLOAT64: _floating("float8send", 16, "7ff8000000000000"),
    Kind.DECIMAL: lambda x: f"trim_scale({x})::text",
    Kind.TEXT: lambda x: f"{x}::text",
    Kind.BYTES: lambda x: f"encode({x}, 'hex')",
    Kind.UUID: _sent("uuid_send"),
    Kind.DATE: _sent("date_send"),
    Kind.TIME: _sent("time_send"),
    Kind.DATETIME: _sent("timestamp_send"),
    Kind.TIMESTAMP: _sent("timestamptz_send"),
    Kind.JSON: lambda x: f"{x}::text",
    Kind.JSON_TEXT: lambda x: f"{x}::text",
    Kind.OBJECTID: lambda x: f"{x}::text",
    Kind.TAGGED: lambda x: f"{x}::text",
}


def postgresql_form(kind: Kind, quoted: str) -> str:
    """NULL for NULL."""
    return _POSTGRESQL[kind](quoted)


def postgresql_text(columns: Sequence[Quoted]) -> str:
    """The text of a row, or of a key."""
    fields = []
    for kind, quoted in columns:
        made = postgresql_form(kind, quoted)
        if kind in FREE_TEXT:
            made = f"octet_length({made})::text || ':' || {made}"
        fields.append(f"coalesce({made} || ',', '{NULL}')")
    return f"({' || '.join(fields)})" if fields else "''"


def postgresql_hash(text: str) -> str:
    return f"sha256(convert_to({text}, 'UTF8'))"


def postgresql_sums(hash_: str) -> str:
    """Rows and the two sums, to be selected from a subquery that has the hash of each row."""
    halves = [
        f"sum(('x' || encode(substr({hash_}, {start}, 8), 'hex'))::bit(64)::bigint)"
        for start in (1, 9)
    ]
    return f"count(*), {', '.join(halves)}"


def postgresql_leaf(key_hash: str) -> str:
    # Parentheses: to PostgreSQL the three operators are of one rank.
    return f"((get_byte({key_hash}, 0) << 4) | (get_byte({key_hash}, 1) >> 4))"


# ---------------------------------------------------------------- MySQL 8 and later, MariaDB


def _counted(expression: str, digits: int) -> str:
    return f"lower(right(lpad(hex({expression}), 16, '0'), {digits}))"


# No text of a float names its bits, and JSON is printed in another order: both are hashed by us.
_MYSQL: Final[Mapping[Kind, Callable[[str], str]]] = {
    Kind.BOOL: lambda x: f"case when {x} is null then null when {x} then 't' else 'f' end",
    Kind.INT32: lambda x: f"cast({x} as char)",
    Kind.INT64: lambda x: f"cast({x} as char)",
    Kind.DECIMAL: lambda x: (
        f"case when {x} = 0 then '0' when locate('.', {x}) > 0"
        f" then trim(trailing '.' from trim(trailing '0' from cast({x} as char)))"
        f" else cast({x} as char) end"
    ),
    Kind.TEXT: lambda x: f"convert({x} using utf8mb4)",
    Kind.BYTES: lambda x: f"lower(hex({x}))",
    Kind.UUID: lambda x: f"lower(replace({x}, '-', ''))",
    Kind.DATE: lambda x: _counted(f"datediff({x}, '2000-01-01')", 8),
    Kind.TIME: lambda x: _counted(f"floor(time_to_sec({x})) * 1000000 + microsecond({x})", 16),
    Kind.DATETIME: lambda x: _counted(f"timestampdiff(microsecond, '2000-01-01', {x})", 16),
    Kind.TIMESTAMP: lambda x: _counted(f"timestampdiff(microsecond, '2000-01-01', {x})", 16),
    Kind.OBJECTID: lambda x: f"convert({x} using utf8mb4)",
    Kind.TAGGED: lambda x: f"convert({x} using utf8mb4)",
}


def mysql_form(kind: Kind, quoted: str) -> str | None:
    """NULL for NULL.  The session's time zone must be UTC."""
    made = _MYSQL.get(kind)
    return None if made is None else made(quoted)


def mysql_text(columns: Sequence[Quoted]) -> str | None:
    """The text of a row, or of a key; the connection must be in utf8mb4."""
    fields = []
    for kind, quoted in columns:
        made = mysql_form(kind, quoted)
        if made is None:
            return None
        # All but free text is ASCII, the same in every charset.  It must not be cast: MariaDB 10.11
        # gives the first digit of `cast(lower(hex(x)) as binary)` as NUL in some rows [seen].
        parts = [made, "','"]
        if kind in FREE_TEXT:
            parts = [f"cast(length({made}) as char)", "':'", f"cast({made} as binary)", "','"]
        fields.append(f"coalesce(concat({', '.join(parts)}), '{NULL}')")
    return f"concat({', '.join(fields)})"


def mysql_sums(text: str) -> str:
    """Rows, hashed rows (a row beyond max_allowed_packet has no hash), and the two sums."""
    halves = [
        f"sum(cast(conv(substring(sha2({text}, 256), {start}, 16), 16, 10) as unsigned))"
        for start in (1, 17)
    ]
    return f"count(*), count(sha2({text}, 256)), {', '.join(halves)}"


def mysql_leaf(key_text: str) -> str:
    return f"conv(left(sha2({key_text}, 256), 3), 16, 10)"
