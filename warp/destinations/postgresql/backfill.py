"""Values moved out of `_extra` in ranges of pages, each in a transaction of its own, so readers
never wait for the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from warp.destinations.postgresql.session import Session, fitting, name, text
from warp.destinations.sql import backfill as shared
from warp.model import Column, Kind, TableSchema, TableSettings

PAGES: Final = 2_000  # of one transaction: 16 MB of table

# For each kind: when the JSON value {v} fits, and the column's value then.  Numbers beyond 2**53
# stay: as JSON a double and an int64 look alike there.  Written for the forms that
# sources write into `_extra`: JSON where it has the type, canonical Extended JSON elsewhere.
_NUMBER: Final = "jsonb_typeof({v}) = 'number'"
_TEXT_OF: Final = "({v} #>> '{{}}')"
_EXACT: Final[dict[Kind, tuple[str, str]]] = {
    Kind.BOOL: ("jsonb_typeof({v}) = 'boolean'", f"{_TEXT_OF}::boolean"),
    Kind.INT32: (
        f"case when {_NUMBER} then {_TEXT_OF}::numeric % 1 = 0"
        f" and {_TEXT_OF}::numeric between -2147483648 and 2147483647 end",
        f"{_TEXT_OF}::numeric::integer",
    ),
    Kind.INT64: (
        f"case when {_NUMBER} then {_TEXT_OF}::numeric % 1 = 0"
        f" and {_TEXT_OF}::numeric between -9223372036854775808 and 9223372036854775807 end",
        f"{_TEXT_OF}::numeric::bigint",
    ),
    Kind.FLOAT64: (
        f"case when {_NUMBER} then {_TEXT_OF}::numeric % 1 <> 0"
        f" or abs({_TEXT_OF}::numeric) <= 9007199254740992"
        f" or abs({_TEXT_OF}::numeric) >= 9223372036854775808"
        " else {v} = jsonb_build_object('$numberDouble', {v} -> '$numberDouble') end",
        f"coalesce({{v}} ->> '$numberDouble', {_TEXT_OF})::double precision",
    ),
    Kind.DECIMAL: (
        "jsonb_typeof({v}) = 'number'"
        " or ({v} = jsonb_build_object('$numberDecimal', {v} -> '$numberDecimal')"
        " and {v} ->> '$numberDecimal' ~"
        " '^(NaN|-?[0-9]{{1,40}}([.][0-9]{{1,40}})?(E[-+]?[0-9]{{1,3}})?)$')",
        f"coalesce({{v}} ->> '$numberDecimal', {_TEXT_OF})::numeric",
    ),
    Kind.TEXT: ("jsonb_typeof({v}) = 'string'", _TEXT_OF),
    Kind.OBJECTID: (
        "{v} = jsonb_build_object('$oid', {v} -> '$oid') and {v} ->> '$oid' ~ '^[0-9a-f]{{24}}$'",
        "{v} ->> '$oid'",
    ),
    Kind.TIMESTAMP: (
        "case when {v} #>> '{{$date,$numberLong}}' ~ '^-?[0-9]{{1,16}}$'"
        " then ({v} #>> '{{$date,$numberLong}}')::bigint"
        " between -210866803200000 and 9224318015999999 end",
        # Days and the rest apart: one interval of milliseconds is a double inside.
        "timestamptz 'epoch'"
        " + ({v} #>> '{{$date,$numberLong}}')::bigint / 86400000 * interval '24 hours'"
        " + ({v} #>> '{{$date,$numberLong}}')::bigint % 86400000 * interval '1 millisecond'",
    ),
    Kind.UUID: (
        "case when {v} #>> '{{$binary,subType}}' = '04'"
        " then octet_length(decode({v} #>> '{{$binary,base64}}', 'base64')) = 16 end",
        "encode(decode({v} #>> '{{$binary,base64}}', 'base64'), 'hex')::uuid",
    ),
    Kind.BYTES: (
        "{v} = jsonb_build_object('$binary', {v} -> '$binary')"
        " and jsonb_typeof({v} #> '{{$binary,base64}}') = 'string'",
        "decode({v} #>> '{{$binary,base64}}', 'base64')",
    ),
    Kind.JSON: ("{v} <> 'null'", "{v}"),
    Kind.JSON_TEXT: ("{v} <> 'null'", "{v}::json"),
}


def finish(session: Session, settings: TableSettings, schema: TableSchema | None) -> None:
    def fill(extra: Column, column: Column) -> None:
        if column.kind in _EXACT:
            field = column.source.replace("\0", "\u2400")
            _fill(session, settings, extra.name, column, field)

    shared.finish(session, settings, schema, alone=lambda unit: _alone(session, unit), fill=fill)


_LOCK_KEY: Final = b"pg_catalog.hashtextextended('cartridge-warp back-fill ' || %s, 0)"


@contextmanager
def _alone(session: Session, unit: str) -> Iterator[bool]:
    row = session.run(
        b"select pg_catalog.pg_try_advisory_lock(" + _LOCK_KEY + b")", [unit]
    ).fetchone()
    if not (row and row[0]):
        yield False
        return
    try:
        yield True
    finally:
        if not session.lost:
            session.run(b"select pg_catalog.pg_advisory_unlock(" + _LOCK_KEY + b")", [unit])


def _within(column: Column, fits: str, value: str) -> tuple[str, str]:
    """Nothing beyond the limits of a column that somebody else made: it stays where it is."""
    if column.limit is None:
        return fits, value
    if column.kind is Kind.DECIMAL:
        scale = column.scale or 0
        bound = (
            f"scale(trim_scale({value})) <= {scale}"
            f" and abs({value}) < 1e{column.limit - scale}::numeric and {value} <> 'NaN'"
        )
    else:
        bound = f"char_length({value}) <= {column.limit}"
    return f"case when ({fits}) then {bound} end", value


def _fill(
    session: Session, settings: TableSettings, extra: str, column: Column, field: str
) -> None:
    place = settings.destination
    fits, value = _within(column, *_EXACT[column.kind])
    cell = text("(d.{} -> %(field)s)").format(name(extra))
    statement = text(
        "update {table} as d set {column} = case when {cell} <> 'null' then {value} end,"
        " {extra} = nullif(d.{extra} - %(field)s, '{{}}')"
        " where d.ctid >= %(first)s::tid and d.ctid < %(last)s::tid"
        " and d.{extra} ? %(field)s and d.{column} is null"
        " and ({cell} = 'null' or ({fits}))"
    ).format(
        table=name(place.namespace, place.name),
        column=name(column.name),
        extra=name(extra),
        cell=cell,
        value=text(value.replace("%", "%%")).format(v=cell),
        fits=text(fits.replace("%", "%%")).format(v=cell),
    )
    row = session.run(
        b"select pg_catalog.pg_relation_size(c.oid) / 8192 from pg_catalog.pg_class c"
        b" join pg_catalog.pg_namespace n on n.oid = c.relnamespace"
        b" where n.nspname = %s and c.relname = %s",
        [fitting(place.namespace), fitting(place.name)],
    ).fetchone()
    pages = row[0] if row else 0
    for first in range(0, pages + 1, PAGES):
        session.run(
            statement,
            {
                "field": field,
                "first": f"({first},0)",
                # Writers of this schema put the field into its column: pages beyond need no visit.
                "last": f"({first + PAGES},0)",
            },
        )
