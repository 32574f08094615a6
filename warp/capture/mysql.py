"""What capture says to MySQL and MariaDB: names, values, their clock, and their triggers."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from warp.capture import names
from warp.capture.clocks import SECOND
from warp.capture.queue import key_columns
from warp.capture.side import Clock
from warp.errors import SourceRefused
from warp.model import Diagnosis, Kind, TableId, TableSchema, Verdict
from warp.sql import load

log = structlog.get_logger(__name__)

Ask = Callable[[str], list[tuple[Any, ...]]]
Act = Callable[..., None]
Types = Callable[[TableId], Mapping[str, str]]
"""Data types of a table's columns, lower case and without length: `int`, `varchar`, `enum`."""

_NUMBERS: Final = (Kind.INT32, Kind.INT64, Kind.DECIMAL, Kind.FLOAT32, Kind.FLOAT64)
_INTEGERS: Final = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_TEXTS: Final = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_BYTES: Final = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_LONGEST_KEY: Final = 3072  # bytes of an index
_WIDEST_CHARACTER: Final = {"latin1": 1, "ascii": 1, "utf8mb3": 3, "utf8": 3, "ucs2": 2}
# The server keeps what it tells about transactions for a tenth of a second, and tells when they
# began in whole ones.
_SLACK: Final = 1 * SECOND
# Whoever writes to the table waits behind us for as long as we wait for those before.  What is
# said of a table may be a day old on MySQL unless told otherwise.
_SESSION: Final = "set /*!80003 session information_schema_stats_expiry = 0, */ session {} = 2"


class MysqlDialect:
    """As `side.Dialect`."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def name(self, *parts: str) -> str:
        return ".".join("`" + part.replace("`", "``") + "`" for part in parts)

    def selected(self, table: TableId, column: str) -> str:
        # The server rounds a FLOAT to six digits where it prints one.
        name = self.name(column)
        return f"{name} * 1e0" if self._types(table).get(column) == "float" else name

    def literal(self, kind: Kind, text: str) -> str:
        if kind in _NUMBERS:
            # A number in quotes would be compared as a double, which is too coarse for a bigint.
            return _number(text)
        if kind is Kind.BOOL:
            return "1" if text == "true" else "0"
        if kind is Kind.BYTES:
            return f"x'{bytes.fromhex(text.removeprefix(chr(92) + 'x')).hex()}'"
        if kind is Kind.TIMESTAMP:
            text = text.removesuffix("+00")  # what our session's time zone is
        return _text(text)

    def ordered(self, table: TableId, column: str) -> str:
        name = self.name(column)
        match self._types(table).get(column):
            case "enum" | "set":
                return f"cast({name} as char)"  # ordered by number, but compared by name
            case "bit":
                return f"({name} + 0)"
            case "float":
                return f"({name} * 1e0)"
            case _:
                return name


def clock(ask: Ask) -> Clock:
    """As `side.SqlSide.clock`."""
    try:
        [(now, trx, statement, threads, back)] = ask(load("capture", "mysql_clock"))
    except SourceRefused:
        [(now,)] = ask("select timestampdiff(microsecond, '1970-01-01', utc_timestamp(6))")
        untold = (
            "GRANT PROCESS ON *.* TO the user that polls; or set change_detection.overlap to the "
            "longest transaction"
        )
        return Clock(int(now), untold=untold)
    # A wall clock that was set back makes what began before it look younger, even unborn.
    ages = [max(0, int(trx)) + int(back)] if trx is not None else []
    ages += [int(statement)] if statement is not None else []
    oldest = int(now) - max(ages, default=0) * SECOND - _SLACK
    return Clock(int(now), oldest, f"connection {_as_text(threads)}" if threads else "a statement")


def leads_index(ask: Ask, table: TableId, column: str) -> bool:
    """As `side.SqlSide.leads_index`."""
    statement = load("capture", "mysql_leads_index").format(
        database=_text(table.namespace), table=_text(table.name), column=_text(column)
    )
    return bool(ask(statement)[0][0])


@dataclass(frozen=True, slots=True)
class _Declared:
    name: str
    data_type: str
    column_type: str
    charset: str | None
    collation: str | None

    @property
    def kept_as(self) -> str:
        """A type that holds any value of the column, whatever its length becomes."""
        if self.data_type in _INTEGERS:
            # Only of this one is the greatest value no signed one.
            large = self.data_type == "bigint" and "unsigned" in self.column_type.lower()
            return "bigint unsigned" if large else "bigint"
        if self.data_type in _BYTES:
            return f"varbinary({_LONGEST_KEY})"
        if self.data_type in _TEXTS or self.data_type in ("enum", "set"):
            characters = _LONGEST_KEY // _WIDEST_CHARACTER.get(self.charset or "", 4)
            collated = f" collate {_word(self.collation)}" if self.collation else ""
            charset = f" character set {_word(self.charset)}" if self.charset else ""
            return f"varchar({characters}){charset}{collated}"
        match self.data_type:
            case "float" | "double":
                return "double"
            case "datetime" | "timestamp":
                return f"{self.data_type}(6)"
            case _:
                return self.column_type  # decimal, date, bit, year, uuid: nothing to be quoted


class MysqlTriggers:
    """As `side.Triggers`: of rows, since this server has no others, keys only."""

    def __init__(self, ask: Ask, act: Act, *, mariadb: bool, schema: str = names.SCHEMA) -> None:
        self._ask = ask
        self._act = act
        self._schema = schema
        self._dialect = MysqlDialect(lambda table: {})
        self._engine_tables = "innodb_sys_tables" if mariadb else "innodb_tables"

    def queue(self, table: TableId) -> TableId:
        return TableId(self._schema, names.queue(table))

    def install(self, table: TableId, schema: TableSchema) -> bool:
        columns = self._key(table, schema)
        queue = self.queue(table)
        place = self._dialect.name(queue.namespace, queue.name)
        declared = ", ".join(f"k{n} {c.kept_as} null default null" for n, c in enumerate(columns))
        bodies = self._bodies(place, [column.name for column in columns])
        of = hashlib.sha256(f"{declared} {bodies}".encode()).hexdigest()[:16]
        found = self._found(table)
        comment = f"cartridge-warp {of} "
        if found.pop("queue", "").startswith(comment) and found == {
            self._trigger(table, event): body for event, body in bodies.items()
        }:
            return False
        quoted = self._dialect.name
        self._act(
            _SESSION.format("lock_wait_timeout"),
            f"create database if not exists {quoted(self._schema)}",
            *self._drops(table),
            f"create table {place} (id bigint not null auto_increment primary key,"
            f" truncated tinyint not null default 0, {declared}) engine = InnoDB"
            f" comment = '{comment}{secrets.token_hex(4)}'",
            *(
                f"create trigger {quoted(table.namespace, self._trigger(table, event))}"
                f" after {event} on {quoted(table.namespace, table.name)} for each row {body}"
                for event, body in bodies.items()
            ),
        )
        return True

    def changes_unseen(self, table: TableId) -> str:
        """Which queue it is, and which table inside the engine: a truncation, which runs no
        trigger here, makes it anew."""
        queue = self._found(table).get("queue", "").rpartition(" ")[2]
        return f"queue {queue}, table {self._incarnation(table)}"

    def _incarnation(self, table: TableId) -> str:
        statement = load("capture", "mysql_incarnation").format(
            engine_tables=self._engine_tables,
            pattern=_text(
                f"^{_file_pattern(table.namespace)}/{_file_pattern(table.name)}(#p#.*)?$"
            ),
        )
        try:
            [(incarnation,)] = self._ask(statement)
        except SourceRefused:
            log.warning(
                "truncations_unseen",
                table=str(table),
                mend="GRANT PROCESS ON *.* TO the user that polls",
            )
            return "unknown"
        return _as_text(incarnation)

    def diagnose(self, table: TableId) -> list[Diagnosis]:
        return [*self._rights(table), *self._cascades(table)]

    def _rights(self, table: TableId) -> Iterator[Diagnosis]:
        [(log_bin, trust)] = self._ask(
            "select @@global.log_bin, @@global.log_bin_trust_function_creators"
        )
        grants = " ".join(_as_text(line).upper() for (line,) in self._ask("show grants"))
        trusted = (
            not int(log_bin) or int(trust) or "SUPER" in grants or "ALL PRIVILEGES ON *.*" in grants
        )
        yield Diagnosis(
            "capture-trigger-rights",
            Verdict.OK if trusted else Verdict.FAILED,
            str(table),
            "the right to make triggers beside a binary log",
            "there" if trusted else "log_bin_trust_function_creators is off",
            "" if trusted else "SET GLOBAL log_bin_trust_function_creators = 1",
        )

    def _cascades(self, table: TableId) -> Iterator[Diagnosis]:
        statement = load("capture", "mysql_cascades").format(
            database=_text(table.namespace), table=_text(table.name)
        )
        for (constraint,) in self._ask(statement):
            yield Diagnosis(
                "capture-cascade",
                Verdict.WARNING,
                f"{table}, {_as_text(constraint)}",
                "no foreign key that changes rows by itself, which runs no trigger",
                "one that does",
                "make it RESTRICT and let the application change the rows; or use the strategy "
                "log or hash",
            )

    def remove(self, table: TableId) -> None:
        self._act(_SESSION.format("lock_wait_timeout"), *self._drops(table))
        left = (
            "select count(*) from information_schema.tables"
            f" where table_schema = {_text(self._schema)}"
        )
        if self._ask(left) == [(0,)]:
            self._act(f"drop database if exists {self._dialect.name(self._schema)}")

    def _drops(self, table: TableId) -> list[str]:
        """The triggers first: without the queue they would fail, and their writers with them."""
        triggers = [
            self._dialect.name(table.namespace, self._trigger(table, event))
            for event in ("insert", "update", "delete")
        ]
        queue = self.queue(table)
        return [
            *(f"drop trigger if exists {trigger}" for trigger in triggers),
            f"drop table if exists {self._dialect.name(queue.namespace, queue.name)}",
        ]

    def _bodies(self, place: str, columns: list[str]) -> dict[str, str]:
        """Event -> what its trigger does for each row."""
        into = ", ".join(f"k{number}" for number in range(len(columns)))
        quoted = [self._dialect.name(column) for column in columns]

        def noted(row: str) -> str:
            values = ", ".join(f"{row}.{column}" for column in quoted)
            return f"insert into {place} ({into}) values ({values})"

        # Byte by byte: to its collation 'a' and 'A' may be one key, and to others they are two.
        same = " and ".join(
            f"cast(old.{column} as binary) <=> cast(new.{column} as binary)" for column in quoted
        )
        return {
            "insert": noted("new"),
            "update": f"begin {noted('new')}; if not ({same}) then {noted('old')}; end if; end",
            "delete": noted("old"),
        }

    def _trigger(self, table: TableId, event: str) -> str:
        return f"cw_{event}_{names.queue(table)}"

    def _found(self, table: TableId) -> dict[str, str]:
        """What is there by name: the queue with its comment, the triggers with their bodies."""
        statement = load("capture", "mysql_installed").format(
            schema=_text(self._schema),
            queue=_text(self.queue(table).name),
            database=_text(table.namespace),
            table=_text(table.name),
            names=", ".join(
                _text(self._trigger(table, event)) for event in ("insert", "update", "delete")
            ),
        )
        return {_as_text(name): _as_text(said) for name, said in self._ask(statement)}

    def _key(self, table: TableId, schema: TableSchema) -> list[_Declared]:
        statement = load("capture", "mysql_key_types").format(
            database=_text(table.namespace), table=_text(table.name)
        )
        found = {_as_text(row[0]): _Declared(*map(_or_none, row)) for row in self._ask(statement)}
        columns = [column.source for _, column in key_columns(schema)]
        if missing := [column for column in columns if column not in found]:
            raise SourceRefused(
                f"expected the key column {missing[0]!r}, found none of that name; was it renamed "
                "just now?",
                place=str(table),
            )
        return [found[column] for column in columns]


def _text(value: str) -> str:
    """A text that no setting of the session reads otherwise."""
    return f"_utf8mb4 x'{value.encode().hex()}'"


def _file_pattern(name: str) -> str:
    """The name as the engine's files have it.

    What is no letter, digit or underscore is written as @ and four digits; of letters beyond ASCII
    some have a sign of two, so each stands for any: a table too many is harmless.
    """
    return "".join(
        c
        if c.isascii() and (c.isalnum() or c == "_")
        else f"@{ord(c):04x}"
        if c.isascii()
        else "@([0-9a-f]{4}|[0-9a-z]{2})"
        for c in name
    )


def _number(text: str) -> str:
    if not re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text):
        raise ValueError(f"a number was expected, found {text!r}")
    return text


def _word(text: str | None) -> str:
    if not re.fullmatch(r"\w+", text or ""):
        raise ValueError(f"the name of a charset or collation was expected, found {text!r}")
    return str(text)


def _as_text(cell: Any) -> str:
    return cell.decode() if isinstance(cell, bytes | bytearray) else str(cell)


def _or_none(cell: Any) -> Any:
    return None if cell is None else _as_text(cell)
