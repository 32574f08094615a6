"""Starts local-bigquery, which pretends to be BigQuery, without the network and with a few mends.

Run by the emulator's own Python, never imported by ours:

    python bigquery_launcher.py install                     once, when the environment is built
    python bigquery_launcher.py serve --port … --data-dir …

DuckDB fetches the extensions that local-bigquery needs from the network; here they come from
wheels.  A MERGE of local-bigquery begins a transaction of its own, which DuckDB 1.5 answers by
aborting the one around it, so that no MERGE worked inside BEGIN TRANSACTION.  And it looks for each
table of each statement in a list of all there are, with their sizes: a third of its CPU.  Its
PARSE_JSON takes one argument and not BigQuery's `wide_number_mode`.  And it takes the `=` of
`SET tags = …` for a comparison, which JSON has none of: `SET tags = CAST(NULL AS JSON)`, by which a
row deleted beside a snapshot becomes a tombstone, was refused with "Equality is not defined for
arguments of type JSON".
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import duckdb


def install() -> None:
    """Put the extensions where DuckDB looks for them: below HOME."""
    from duckdb_extensions import import_extension

    for extension in ("icu", "ducklake", "spatial"):
        import_extension(extension)


def _in_transaction(cursor: Any) -> bool:
    """now() is the start of the transaction, so it stands still only inside of one."""

    def now() -> Any:
        return cursor.execute("SELECT epoch_us(now())").fetchone()

    first = now()
    time.sleep(0.002)
    return bool(first == now())


class _Cursor:
    """Refuses a nested BEGIN before DuckDB sees it, with the error that local-bigquery expects."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: Any, *parameters: Any) -> Any:
        if statement == "BEGIN" and _in_transaction(self._cursor):
            raise duckdb.TransactionException("already in a transaction")
        return self._cursor.execute(statement, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _Asking:
    """A job's cursor, which has no temporary tables yet: they are looked for among all there are,
    in every project, which is a fifth of the CPU of a job."""

    _TEMPORARY = "SELECT table_name FROM duckdb_tables() WHERE temporary"

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def sql(self, statement: str, *more: Any, **named: Any) -> Any:
        if statement == self._TEMPORARY:
            statement = "SELECT '' AS table_name WHERE FALSE"
        return self._cursor.sql(statement, *more, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


_REMEMBERING = threading.local()


def _remembered(ask: Callable[..., Any]) -> Callable[..., Any]:
    """What a transaction has asked about a table it is told again; no DDL of ours is in one."""

    def asking(*what: Any) -> Any:
        known: dict[Any, Any] | None = getattr(_REMEMBERING, "known", None)
        if known is None:
            return ask(*what)
        if (ask, what) not in known:
            known[ask, what] = ask(*what)
        return known[ask, what]

    return asking


_MODE = re.compile(r",\s*wide_number_mode\s*=>\s*'\w+'")
_OBJECTS = """
    SELECT t.table_name, '{what}', 0
    FROM {catalog}.ducklake_{kind} AS t JOIN {catalog}.ducklake_schema AS s USING (schema_id)
    WHERE s.schema_name = $1 AND t.{kind}_name = coalesce($2, t.{kind}_name)
        AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
"""


def _objects_by(database: Any) -> Any:
    """What there is in a dataset, asked of DuckLake's own tables; without sizes."""
    slowly = database.objects

    def objects(project: str, dataset: str, table: str | None = None) -> list[Any]:
        catalog = database.quote(f"__ducklake_metadata_{project}")
        parts = [
            _OBJECTS.format(catalog=catalog, kind=kind, what=kind.upper()).replace(
                "t.table_name, ", f"t.{kind}_name, "
            )
            for kind in ("table", "view")
        ]
        try:
            found: list[Any] = database.fetch(
                " UNION ALL ".join(parts) + " ORDER BY 1", [dataset, table]
            )
        except duckdb.Error:  # a project that nobody has attached yet
            return list(slowly(project, dataset, table))
        return found

    return objects


def _but_in_assignments(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A rule about comparisons that leaves `UPDATE … SET column = value` alone."""
    from sqlglot import exp

    def rule(node: Any, context: Any) -> Any:
        if isinstance(node, exp.EQ) and isinstance(node.parent, exp.Update):
            return node
        return compare(node, context)

    return rule


def serve() -> None:
    from local_bigquery.catalog import metadata, tables
    from local_bigquery.cli import main
    from local_bigquery.engine import database
    from local_bigquery.jobs import merge, query
    from local_bigquery.sql.rules import NODE_RULES, json

    database.objects = _remembered(_objects_by(database))
    metadata.load = _remembered(metadata.load)
    tables.columns = _remembered(tables.columns)
    NODE_RULES[NODE_RULES.index(json.equality)] = _but_in_assignments(json.equality)
    execute = query.execute

    def run_job(cursor: Any, project: Any, job: Any, config: Any, *more: Any, **named: Any) -> Any:
        statements = _MODE.sub("", config.query)
        plain = config.model_copy(update={"query": statements})
        of_its_own = named.get("session") is None
        if statements.startswith("BEGIN TRANSACTION"):
            _REMEMBERING.known = {}
        try:
            return execute(
                _Asking(cursor) if of_its_own else cursor, project, job, plain, *more, **named
            )
        finally:
            _REMEMBERING.known = None

    query.execute = run_job
    run = merge.run
    merge.run = lambda cursor, tree, context: run(_Cursor(cursor), tree, context)
    main()


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    else:
        serve()
