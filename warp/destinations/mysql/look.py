"""What a MySQL or MariaDB server must be and allow, and the statement that mends what is not so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from warp.destinations.mysql.names import fitting
from warp.destinations.mysql.session import Session
from warp.diagnosis import failed, ok, warning
from warp.model import Diagnosis
from warp.mysql_family import CIPHER, Server, identifier, of_wire

# A worker process opens a connection for each of its slots, a coordinator some more.
ENOUGH_CONNECTIONS: Final = 20
ENOUGH_PACKET: Final = 16 << 20

_OLDEST: Final = {True: (10, 6, 0), False: (8, 0, 17)}  # with the collations of bytes we need
WRITING: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER")
STAGING: Final = (*WRITING, "CREATE TEMPORARY TABLES")
_VARIABLES: Final = (
    "read_only",
    "log_bin",
    "binlog_format",
    "local_infile",
    "innodb_flush_log_at_trx_commit",
    "sync_binlog",
    "max_allowed_packet",
    "max_connections",
    "lower_case_table_names",
)


def look(session: Session, namespace: str | None) -> Iterator[Diagnosis]:
    """The server, the metadata database, and the database `namespace` where it is known."""
    with session.meaning("looking at the destination"):
        server = session.server
        found = session.run(
            "show global variables where variable_name in %(names)s", {"names": _VARIABLES}
        ).fetchall()
        facts = {name.lower(): str(value) for name, value in found}
        [(_, connected)] = session.run("show global status like 'Threads_connected'").fetchall()
        [(_, cipher)] = session.run(CIPHER).fetchall()
    yield of_wire(session.login, str(cipher))
    yield from of_server(server, facts, int(connected))
    wanted: dict[str, Sequence[str]] = {session.meta: STAGING}
    if namespace is not None:
        wanted.setdefault(fitting(namespace), WRITING)
    with session.meaning("looking at the rights"):
        user, given = _given(session)
    for database, rights in wanted.items():
        yield of_rights(user, database, rights, given)


def of_server(server: Server, facts: Mapping[str, str], connected: int) -> Iterator[Diagnosis]:
    """Its version and settings."""
    oldest = ".".join(map(str, _OLDEST[server.is_mariadb][:2]))
    what = f"{'MariaDB' if server.is_mariadb else 'MySQL'} {oldest} or later"
    yield _held(
        server.version >= _OLDEST[server.is_mariadb],
        *("mysql-version", "server", what, server.said, f"upgrade the server to {what}"),
    )
    read_only = facts.get("read_only", "OFF") not in ("OFF", "0")
    yield _held(
        not read_only,
        *("mysql-read-only", "read_only", "OFF", facts.get("read_only", "OFF")),
        "connect to the primary",
    )
    logs = facts.get("log_bin") == "ON"
    by_statement = logs and facts.get("binlog_format") == "STATEMENT"
    yield _held(
        not by_statement,
        *("mysql-binlog-format", "binlog_format", "ROW or MIXED, or no binary log"),
        facts.get("binlog_format", "ROW") if logs else "no binary log",
        "SET GLOBAL binlog_format = ROW",
    )
    yield _advised(
        facts.get("local_infile", "ON") == "ON",
        *("mysql-local-infile", "local_infile", "ON, so that rows come by LOAD DATA"),
        facts.get("local_infile", "ON"),
        "SET GLOBAL local_infile = ON; without it rows come by INSERT, which takes longer",
    )
    durable = facts.get("innodb_flush_log_at_trx_commit") == "1"
    durable = durable and (not logs or facts.get("sync_binlog") == "1")
    yield _advised(
        durable,
        *("mysql-durability", "innodb_flush_log_at_trx_commit, sync_binlog"),
        "1, so that a power cut loses no row reported written",
        "1" if durable else "less",
        "SET GLOBAL innodb_flush_log_at_trx_commit = 1; SET GLOBAL sync_binlog = 1",
    )
    packet = int(facts.get("max_allowed_packet", ENOUGH_PACKET))
    yield _advised(
        packet >= ENOUGH_PACKET,
        *("mysql-packet", "max_allowed_packet", f"{ENOUGH_PACKET} or more", str(packet)),
        f"SET GLOBAL max_allowed_packet = {4 * ENOUGH_PACKET}",
    )
    left = int(facts.get("max_connections", 0)) - connected
    yield _advised(
        left >= ENOUGH_CONNECTIONS,
        *("mysql-connections", "max_connections", f"room for {ENOUGH_CONNECTIONS} or more"),
        f"{max(0, left)} left",
        "end idle sessions; or SET GLOBAL max_connections = 200",
    )
    folded = facts.get("lower_case_table_names", "0") != "0"
    yield _advised(
        not folded,
        *("mysql-table-names", "lower_case_table_names", "0, so that `Orders` is not `orders`"),
        facts.get("lower_case_table_names", "0"),
        "name other destination tables where two differ in the case of letters only",
    )


def of_rights(
    user: str, database: str, wanted: Sequence[str], given: Sequence[tuple[str | None, str]]
) -> Diagnosis:
    """`given` are rights, each with the pattern of databases it is for; None: all."""
    held = {
        right.upper()
        for pattern, right in given
        if pattern is None or re.fullmatch(_as_expression(pattern), database)
    }
    lacking = [right for right in wanted if right not in held]
    pattern = re.sub(r"([\\_%])", r"\\\1", database)
    return _held(
        not lacking,
        *("mysql-rights", f"database {database}", f"the rights {', '.join(wanted)}"),
        f"without {', '.join(lacking)}" if lacking else "given",
        f"GRANT {', '.join(wanted)} ON {identifier(pattern)}.* TO {user}",
    )


def _as_expression(pattern: str) -> str:
    r"""A pattern of a GRANT: `%` and `_` stand for others unless a backslash is before them."""
    parts = re.findall(r"\\.|.", pattern, re.S)
    return "".join(
        ".*" if p == "%" else "." if p == "_" else re.escape(p[1:] if len(p) > 1 else p)
        for p in parts
    )


def _given(session: Session) -> tuple[str, list[tuple[str | None, str]]]:
    """Who we are, and our rights; those of a role we have taken count too."""
    [(me,)] = session.run("select current_user()").fetchall()
    name, _, host = str(me).rpartition("@")
    holders = [f"'{name}'@'{host}'"]
    [(role,)] = session.run("select current_role()").fetchall()
    for taken in re.findall(r"[^,]+", str(role or "")):
        bare = taken.strip().replace("`", "").partition("@")
        holders += [f"'{bare[0]}'@''", f"'{bare[0]}'@'{bare[2] or '%'}'"]
    everywhere = session.run(
        "select null, privilege_type from information_schema.user_privileges"
        " where grantee in %(holders)s",
        {"holders": holders},
    ).fetchall()
    somewhere = session.run(
        "select table_schema, privilege_type from information_schema.schema_privileges"
        " where grantee in %(holders)s",
        {"holders": holders},
    ).fetchall()
    return holders[0], [*everywhere, *somewhere]


def _held(held: bool, code: str, subject: str, expected: str, found: str, mend: str) -> Diagnosis:
    if held:
        return ok(code, subject, expected, found)
    return failed(code, subject, expected, found, mend)


def _advised(
    held: bool, code: str, subject: str, expected: str, found: str, mend: str
) -> Diagnosis:
    if held:
        return ok(code, subject, expected, found)
    return warning(code, subject, expected, found, mend)
