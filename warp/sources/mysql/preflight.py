"""What must be set, granted and declared at the server before its log can be followed.

Nothing here is a matter of taste: each FAILED was seen to lose or damage rows, or to end the
stream, on a real server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from warp.errors import SourceRefused
from warp.model import Diagnosis, TableId, Verdict
from warp.mysql_family import CIPHER, Server, identifier, of_wire
from warp.sources.mysql import schema
from warp.sources.mysql.connection import Connection, log_status

_SETTINGS: Final = (
    *("log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata"),
    *("binlog_row_value_options", "gtid_mode", "gtid_strict_mode", "binlog_order_commits"),
    *("binlog_expire_logs_seconds", "expire_logs_days"),
    *("log_slave_updates", "gtid_slave_pos"),
)
_NEEDED_TO_NUMBER_ROWS: Final = frozenset({"mysql-commit-order"})
_DAY: Final = 86_400
_NOWHERE: Final = "cartridge_warp_no_such_table"
_OLDEST: Final = {"MariaDB": (10, 5, 0), "MySQL": (8, 0, 1)}
# From here on there is a right for just that; before it was one of RELOAD.
_FLUSH_TABLES_SINCE: Final = (8, 0, 23)
# From here on MySQL's log has the rows that a foreign key changed; seen on 9.7.4.
_CASCADES_ARE_LOGGED: Final = (9, 7, 0)


def diagnose(
    connection: Connection,
    followed: Sequence[TableId],
    polled: Sequence[TableId],
    follow: Callable[[], None],
) -> list[Diagnosis]:
    """Of tables that are followed by the log, and of those that only need to be read.

    `follow` begins to read the log and stops again: the proof that it may be read.
    """
    said = settings(connection.variables(*_SETTINGS), connection.server)
    if polled and not followed:  # the log, where there is one, only numbers the rows
        said = (d for d in said if d.code in _NEEDED_TO_NUMBER_ROWS)
    [(_, cipher)] = connection.rows(CIPHER)
    found = [
        of_wire(connection.login, str(cipher)),
        _version(connection.server),
        *said,
        _may_ask_where_the_log_ends(connection),
    ]
    if followed or not polled:
        found.append(_may_follow(connection, follow))
        if not connection.server.is_mariadb and not has_global_ids(connection):
            found.append(_may_lock(connection))
    for table in followed:
        found += _table(connection, table)
    for table in polled:
        found += _may_select(connection, table)
    return found


def refuse(found: Sequence[Diagnosis]) -> None:
    """Raise what stands in the way, if anything does."""
    failed = [d for d in found if d.verdict is Verdict.FAILED]
    if failed:
        raise SourceRefused(
            "; ".join(
                f"{d.subject}: expected {d.expected}, found {d.found}; {d.mend}" for d in failed
            )
        )


# -- settings


def settings(variables: Mapping[str, str], server: Server) -> Iterator[Diagnosis]:
    """What the global settings say.  Pure."""
    value = {name: text.upper() for name, text in variables.items()}.get
    yield _check(
        "mysql-log-bin",
        "log_bin",
        "ON",
        value("log_bin", "OFF"),
        "set log_bin in the server's configuration and restart it",
    )
    yield _check(
        "mysql-binlog-format",
        "binlog_format",
        "ROW",
        value("binlog_format", "ROW"),  # gone where nothing else is left
        "SET GLOBAL binlog_format = 'ROW'",
    )
    yield _check(
        "mysql-row-image",
        "binlog_row_image",
        "FULL",
        value("binlog_row_image", "FULL"),
        "SET GLOBAL binlog_row_image = 'FULL'",
        otherwise=Verdict.WARNING,  # updates carry a part of the row: looked up where it is needed
    )
    yield _check(
        "mysql-row-metadata",
        "binlog_row_metadata",
        "FULL",  # else no names, unsigned -1, and enum and set without their texts
        value("binlog_row_metadata", "not known to this server"),
        "SET GLOBAL binlog_row_metadata = 'FULL'",
    )
    if "PARTIAL_JSON" in value("binlog_row_value_options", ""):
        yield Diagnosis(
            "mysql-partial-json",
            Verdict.FAILED,
            "binlog_row_value_options",
            "nothing",
            "PARTIAL_JSON",
            "SET GLOBAL binlog_row_value_options = ''",
        )
    if server.is_mariadb:
        yield _check(
            "mysql-gtid",
            "gtid_strict_mode",
            "ON",
            value("gtid_strict_mode", "OFF"),
            "SET GLOBAL gtid_strict_mode = ON",
            otherwise=Verdict.WARNING,
        )
    else:
        yield _check(
            "mysql-gtid",
            "gtid_mode",
            "ON",
            value("gtid_mode", "OFF"),
            "better ON: a position without global ids is lost with this server, and each chunk "
            "of a snapshot holds up every commit for a moment. SET GLOBAL "
            "enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; SET GLOBAL "
            "gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON; then, once, `cartridge-warp "
            "resync SCHEMA`",
            otherwise=Verdict.WARNING,
        )
        yield _check(
            "mysql-commit-order",
            "binlog_order_commits",
            "ON",  # else a snapshot cannot tell which transactions it shows
            value("binlog_order_commits", "ON"),
            "SET GLOBAL binlog_order_commits = ON",
        )
    if value("log_slave_updates", "ON") == "OFF" and value("gtid_slave_pos", ""):
        yield Diagnosis(
            "mysql-replica-updates",
            Verdict.FAILED,
            "log_slave_updates",
            "ON, for this server is, or was, a replica",
            "OFF: what it replicates is not in its own log",
            "set log_slave_updates in the server's configuration and restart it",
        )
    yield _retention(variables)


def _check(
    code: str,
    subject: str,
    expected: str,
    found: str,
    mend: str,
    otherwise: Verdict = Verdict.FAILED,
) -> Diagnosis:
    if found == expected:
        return Diagnosis(code, Verdict.OK, subject, expected, found)
    return Diagnosis(code, otherwise, subject, expected, found, mend)


def retention(variables: Mapping[str, str]) -> float | None:
    """For how many seconds the server keeps its log; None: for ever."""
    seconds = float(variables.get("binlog_expire_logs_seconds", 0))
    days = float(variables.get("expire_logs_days", 0))
    return seconds or days * _DAY or None


def _retention(variables: Mapping[str, str]) -> Diagnosis:
    kept = retention(variables)
    code, subject = "mysql-retention", "binlog_expire_logs_seconds"
    expected = "a day or more, as the longest outage to survive"
    if kept is None:
        return Diagnosis(code, Verdict.OK, subject, expected, "for ever")
    found = f"{kept:.0f} seconds"
    if kept >= _DAY:
        return Diagnosis(code, Verdict.OK, subject, expected, found)
    mend = f"SET GLOBAL binlog_expire_logs_seconds = {7 * _DAY}"
    if "binlog_expire_logs_seconds" not in variables:
        mend = "SET GLOBAL expire_logs_days = 7"
    return Diagnosis(code, Verdict.WARNING, subject, expected, found, mend)


def _version(server: Server) -> Diagnosis:
    name = "MariaDB" if server.is_mariadb else "MySQL"
    oldest = _OLDEST[name]
    expected = f"{name} {'.'.join(map(str, oldest[:2]))} or later"
    ok = server.version >= oldest
    verdict = Verdict.OK if ok else Verdict.FAILED
    mend = "" if ok else "upgrade the server: its log has no names of columns"
    return Diagnosis("mysql-version", verdict, "version", expected, server.said, mend)


# -- rights


def _may_ask_where_the_log_ends(connection: Connection) -> Diagnosis:
    right = "BINLOG MONITOR" if connection.server.is_mariadb else "REPLICATION CLIENT"
    return _try(
        connection,
        "mysql-may-monitor",
        right,
        lambda: connection.execute(log_status(connection.server)),
    )


def _may_follow(connection: Connection, follow: Callable[[], None]) -> Diagnosis:
    return _try(connection, "mysql-may-follow", "REPLICATION SLAVE", follow)


def has_global_ids(connection: Connection) -> bool:
    """Does this MySQL give every transaction one, so that they tell a position?"""
    return connection.variables("gtid_mode").get("gtid_mode", "OFF").upper() == "ON"


def _may_lock(connection: Connection) -> Diagnosis:
    right = "FLUSH_TABLES" if connection.server.version >= _FLUSH_TABLES_SINCE else "RELOAD"
    # Of a table that is not there: the right is asked for all the same, and nothing is flushed.
    probe = f"FLUSH LOCAL TABLES {identifier(_NOWHERE, _NOWHERE)}"
    return _try(connection, "mysql-may-lock", right, lambda: connection.execute(probe))


def _try(connection: Connection, code: str, right: str, action: Callable[[], None]) -> Diagnosis:
    try:
        action()
    except SourceRefused as error:
        user = connection.driver.escape(connection.login.user)
        mend = f"GRANT {right} ON *.* TO {user}"
        return Diagnosis(code, Verdict.FAILED, right, "the right", error.message, mend)
    return Diagnosis(code, Verdict.OK, right, "the right", "given")


# -- tables


def _may_select(connection: Connection, table: TableId) -> Iterator[Diagnosis]:
    try:
        connection.execute(f"SELECT 1 FROM {identifier(table.namespace, table.name)} LIMIT 0")
    except SourceRefused as error:
        user = connection.driver.escape(connection.login.user)
        yield Diagnosis(
            "mysql-may-select",
            Verdict.FAILED,
            str(table),
            "the right SELECT",
            error.message,
            f"GRANT SELECT ON {identifier(table.namespace)}.* TO {user}",
        )


def _table(connection: Connection, table: TableId) -> Iterator[Diagnosis]:
    refused = list(_may_select(connection, table))
    if refused:
        yield from refused
        return
    name = identifier(table.namespace, table.name)
    described = schema.describe(connection, table)
    if described is None:  # dropped meanwhile
        return
    if not described.key:
        yield Diagnosis(
            "mysql-key",
            Verdict.FAILED,
            str(table),
            "a primary key, or a unique one of columns that are NOT NULL",
            "no key: which row of the destination a change is about cannot be told",
            f"ALTER TABLE {name} ADD PRIMARY KEY (…), or list `!{table.name}` under `tables`",
        )
    if described.versioned:
        yield Diagnosis(
            "mysql-versioned",
            Verdict.WARNING,
            str(table),
            "a table without system versioning",
            "system versioning: rows as they are now are followed, their history is not",
        )
    yield from _cascades(connection, table)


# `CONSTRAINT `name` FOREIGN KEY (…) REFERENCES `t` (…) ON DELETE CASCADE ON UPDATE SET NULL`
_CONSTRAINT: Final = re.compile(
    r"CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .*?((?: ON (?:DELETE|UPDATE) [A-Z ]+?)+),?$",
    re.MULTILINE,
)
_CHANGES_ROWS: Final = re.compile(r"ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL)")


def _cascades(connection: Connection, table: TableId) -> Iterator[Diagnosis]:
    server = connection.server
    if not server.is_mariadb and server.version >= _CASCADES_ARE_LOGGED:
        return
    name = identifier(table.namespace, table.name)
    # information_schema shows constraints only to those who may alter the table.
    [(_, created)] = connection.rows(f"SHOW CREATE TABLE {name}")
    for constraint, actions in _CONSTRAINT.findall(created):
        if _CHANGES_ROWS.search(actions):
            yield Diagnosis(
                "mysql-cascade",
                Verdict.WARNING,
                str(table),
                "no foreign key that changes rows",
                f"{constraint} ({actions.strip()}): the server does not write to its log what it "
                "changes by it",
                f"ALTER TABLE {name} DROP FOREIGN KEY `{constraint}`, and delete the rows in the "
                "application; or run `cartridge-warp verify` at intervals",
            )
