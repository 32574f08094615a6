"""What a PostgreSQL server must be and allow, and the statement that mends what is not so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import sql
from psycopg.rows import namedtuple_row

from warp.destinations.postgresql.session import MINIMUM_VERSION, Session, fitting, name
from warp.diagnosis import encryption, failed, ok, warning
from warp.model import Diagnosis

# A worker process opens a connection for each of its slots, a coordinator some more.
ENOUGH_CONNECTIONS: Final = 20

_DURABLE: Final = "fsync and full_page_writes on, so that a power cut loses no row reported written"
_UNCUT: Final = "no limit on how long a session may wait"


def look(session: Session, namespace: str | None) -> Iterator[Diagnosis]:
    """The server, the metadata schema, and the schema `namespace` where it is known."""
    with session.meaning("looking at the destination"):
        connection = session.connect()
        cursor = connection.cursor(row_factory=namedtuple_row)
        facts: Any = cursor.execute(session.statement("look")).fetchone()
    yield encryption(
        "postgresql-encryption",
        [connection.info.host],
        connection.pgconn.ssl_in_use,
        "add sslmode=verify-full to the connection string (docs/operations/tls.md)",
    )
    yield from of_server(facts)
    schemas = {session.options.metadata_schema: True}
    if namespace is not None:
        schemas.setdefault(namespace, False)
    for schema, ours in schemas.items():
        found = _ask(session, "look_at_schema", schema=fitting(schema))
        yield of_schema(schema, found[0] if found else None, facts)
        if found and found[0][0]:
            names = None if ours else _registered(session, schema)
            tables = _ask(session, "look_at_tables", schema=fitting(schema), names=names)
            yield from of_tables(schema, tables, facts, ours=ours)
    yield _held(
        facts.may_stage,
        *("postgresql-temporary", f"database {facts.database}"),
        *("the right TEMPORARY on the database", "given" if facts.may_stage else "not given"),
        f"GRANT TEMPORARY ON DATABASE {_quoted(facts.database)} TO {_quoted(facts.user)}",
    )


def _ask(session: Session, statement: str, **parameters: Any) -> list[Any]:
    with session.meaning("looking at the destination"):
        return session.named(statement, **parameters).fetchall()


def _registered(session: Session, schema: str) -> list[str]:
    """The tables of a schema that are kept equal to something."""
    registry = name(session.options.metadata_schema, "schema_registry")
    with session.meaning("looking at the destination"):
        there = session.run(
            b"select pg_catalog.has_table_privilege(pg_catalog.to_regclass(%s), 'SELECT')",
            [registry.as_string(None).replace("%%", "%")],
        ).fetchone()
        if there is None or not there[0]:
            return []
        rows = session.run(
            sql.SQL(
                "select distinct destination_table from {} where destination_namespace = %s"
            ).format(registry),
            [schema],
        )
        return [fitting(table) for (table,) in rows]


def of_server(facts: Any) -> Iterator[Diagnosis]:
    """Its version, kind and settings; `facts` is the row of look.sql."""
    user, database = _quoted(facts.user), _quoted(facts.database)
    major = facts.version // 10_000
    yield _held(
        facts.version >= MINIMUM_VERSION,
        *("postgresql-version", "server", "PostgreSQL 13 or later", f"{major}"),
        "upgrade the server to 13 or later",
    )
    yield _held(
        facts.encoding == "UTF8",
        *("postgresql-encoding", f"database {facts.database}", "a database in UTF8"),
        *(facts.encoding, "CREATE DATABASE warehouse ENCODING 'UTF8' TEMPLATE template0"),
    )
    yield _held(
        not facts.standby,
        *("postgresql-primary", "server", "a primary"),
        *("a standby" if facts.standby else "a primary", "connect to the primary"),
    )
    yield _held(
        not facts.read_only,
        *("postgresql-read-only", "default_transaction_read_only", "off"),
        "on" if facts.read_only else "off",
        f"ALTER ROLE {user} IN DATABASE {database} SET default_transaction_read_only = off",
    )
    yield from _of_connections(facts, user)
    if facts.survives:
        yield ok("postgresql-durability", "fsync, full_page_writes", _DURABLE, "on")
    else:
        yield warning(
            *("postgresql-durability", "fsync, full_page_writes", _DURABLE, "off"),
            "ALTER SYSTEM SET fsync = on; ALTER SYSTEM SET full_page_writes = on; "
            "SELECT pg_reload_conf()",
        )
    for setting in facts.cut_by:
        yield warning(
            *("postgresql-timeouts", setting, _UNCUT, "a limit"),
            f"ALTER ROLE {user} IN DATABASE {database} SET {setting} = 0",
        )


def _of_connections(facts: Any, user: str) -> Iterator[Diagnosis]:
    code, expected = "postgresql-connections", f"room for {ENOUGH_CONNECTIONS} connections or more"
    left = facts.connections_left
    if left >= ENOUGH_CONNECTIONS:
        yield ok(code, "max_connections", expected, f"{left} left")
    else:
        yield warning(
            *(code, "max_connections", expected, f"{max(0, left)} left"),
            "end idle sessions; or ALTER SYSTEM SET max_connections = 200, and restart the server",
        )
    if 0 <= facts.role_limit < ENOUGH_CONNECTIONS:
        yield warning(
            *(code, f"connection limit of {facts.user}", expected, str(facts.role_limit)),
            f"ALTER ROLE {user} CONNECTION LIMIT -1",
        )


def of_schema(schema: str, found: Sequence[Any] | None, facts: Any) -> Diagnosis:
    """A schema must be ours to use, or to make."""
    user, quoted = _quoted(facts.user), _quoted(schema)
    code, subject = "postgresql-schema", f"schema {schema}"
    if found is None:
        return _held(
            facts.may_create,
            *(code, subject, f"a schema {quoted}, or the right CREATE on the database to make it"),
            "none yet; it can be made" if facts.may_create else "neither",
            f"GRANT CREATE ON DATABASE {_quoted(facts.database)} TO {user}; "
            f"or CREATE SCHEMA {quoted} AUTHORIZATION {user}",
        )
    usable, owner = found
    return _held(
        usable,
        *(code, subject, "the rights USAGE and CREATE on the schema"),
        "given" if usable else f"not given; it belongs to {owner}",
        f"GRANT USAGE, CREATE ON SCHEMA {quoted} TO {user}",
    )


def of_tables(
    schema: str, odd: Sequence[tuple[str, bool]], facts: Any, *, ours: bool
) -> Iterator[Diagnosis]:
    """Tables that our user may not write, or does not own; `ours` is the metadata schema."""
    user = _quoted(facts.user)
    code = "postgresql-table"
    for table, writable in odd:
        place = f"{_quoted(schema)}.{_quoted(table)}"
        subject = f"table {schema}.{table}"
        if not writable:
            yield failed(
                *(code, subject, "the rights SELECT, INSERT, UPDATE and DELETE", "not all given"),
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place} TO {user}",
            )
            continue
        what = "may move the metadata forward" if ours else "may add and widen columns"
        yield warning(
            *(code, subject, f"{facts.user} as its owner, who {what}", "another owner"),
            f"ALTER TABLE {place} OWNER TO {user}",
        )
    if not odd:
        what = "metadata tables" if ours else "tables kept equal"
        yield ok(code, f"schema {schema}", f"{what} that {facts.user} owns", "no other")


def _held(held: bool, code: str, subject: str, expected: str, found: str, mend: str) -> Diagnosis:
    if held:
        return ok(code, subject, expected, found)
    return failed(code, subject, expected, found, mend)


def _quoted(identifier: str) -> str:
    return sql.Identifier(identifier).as_string(None)
